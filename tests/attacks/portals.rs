//! Portals, cursors and prepared statements that run something else than what was decided.

use super::*;

#[test]
fn a_portal_of_execute_does_not_run_a_redefined_name() {
    let stack = stack();
    attack(
        &stack,
        &format!(
            "{RAW}{}",
            r#"
def prepared():
    r = Raw()
    r.do(P(b"s", b"select 1::text"), P(b"x", b"execute s"), S)
    return r
# Bound in one unit, the name changed in a second, executed in a third.
r = prepared()
r.do(Q(b"begin"))
r.do(B(b"p", b"x"), S)
r.do(C(b"S", b"s"), P(b"s", BAD), S)
r.do(E(b"p"), S)
# The same with DEALLOCATE and PREPARE in between.
r = prepared()
r.do(Q(b"begin"))
r.do(B(b"p", b"x"), S)
r.do(Q(b"deallocate s"))
r.do(P(b"s", BAD), S)
r.do(E(b"p"), S)
# All of it in one unit, in every order.
r = prepared()
r.do(B(b"p", b"x"), C(b"S", b"s"), P(b"s", BAD), E(b"p"), S)
r = prepared()
r.do(C(b"S", b"s"), P(b"s", BAD), B(b"p", b"x"), E(b"p"), C(b"S", b"s"), P(b"s", b"select 1::text"), S)
# Without a Sync: what is bound is forwarded after a silence.
r = prepared()
r.send(B(b"", b"x"))
time.sleep(0.3)
r.do(C(b"S", b"s"), P(b"s", BAD), E(b""), S)
# Behind EXPLAIN ANALYZE and CREATE TABLE AS.
for wrapped in (b"explain analyze execute s", b"create temp table t as execute s"):
    r = prepared()
    r.do(P(b"y", wrapped), S)
    r.do(Q(b"begin"))
    r.do(B(b"p", b"y"), S)
    r.do(C(b"S", b"s"), P(b"s", BAD), S)
    r.do(E(b"p"), S)
# A utility statement that looks names up when it runs.
for late in (
    b"create temp table t (a text default lower('Q'::varchar))",
    b"alter table pg_temp.u add b text default lower('Q'::varchar)",
):
    r = Raw()
    r.do(Q(b"create temp table u (a text); insert into u values ('x')"))
    r.do(P(b"y", late), S)
    r.do(Q(b"begin"))
    r.do(B(b"p", b"y"), S)
    r.do(Q(b"set search_path = evil"))
    r.do(E(b"p"), S)
    r.do(Q(b"insert into t default values"))
"#
        ),
    );
    // A portal that is executed in the unit of its Bind still runs, and so does one whose meaning has not changed.
    let output = stack.python(
        &format!(
            "{PRELUDE}{RAW}{}",
            r#"
r = Raw()
r.do(P(b"s", b"select 'it runs'::text"), P(b"x", b"execute s"), S)
print(r.do(B(b"", b"x"), D(b""), E(b""), S))
r.do(Q(b"begin"))
r.do(B(b"p", b"x"), S)
print(r.do(E(b"p"), S))
"#
        ),
        &[],
    );
    assert_eq!(text(&output).matches("it runs").count(), 2, "{}", text(&output));
}

#[test]
fn a_statement_after_the_end_of_a_failed_transaction_needs_approval() {
    let stack = stack();
    attack(
        &stack,
        &format!(
            "{RAW}{}",
            r#"
def failed(*prepare):
    r = Raw()
    r.do(*prepare, S)
    r.do(Q(b"begin"))
    r.do(Q(b"savepoint a"))
    r.do(Q(b"select 1/0"))
    return r
bad = (P(b"", BAD), B(b"", b""), E(b""), S)
for way in (b"rollback", b"commit", b"rollback to savepoint a", b"commit and chain", b"rollback and chain", b"end"):
    r = failed()
    r.do(P(b"", way), B(b"", b""), E(b""), *bad)
    r.do(Q(b"commit"))
    # Prepared, or bound, in an earlier unit.
    r = failed(P(b"way", way))
    r.do(B(b"", b"way"), E(b""), *bad)
    r.do(Q(b"commit"))
    r = failed(P(b"way", way))
    r.do(B(b"p", b"way"), S)
    r.do(E(b"p"), *bad)
    r.do(Q(b"commit"))
    # Without a Sync, with a Query behind.
    r = failed()
    r.send(P(b"", way), B(b"", b""), E(b""))
    r.send(Q(BAD))
    time.sleep(0.2)
    r = failed()
    r.send(P(b"", way), B(b"", b""), E(b""), message(b"H"), *bad)
    time.sleep(0.2)
    # Two Queries back to back.
    r = failed()
    r.do(Q(way), Q(BAD))
    r.do(Q(b"commit"))
# The whole life of the transaction in one write.
r = Raw()
r.send(Q(b"begin"), Q(b"select 1/0"), P(b"", b"rollback"), B(b"", b""), E(b""), *bad)
r.until_ready(3)
"#
        ),
    );
}

/// SQL cursors and protocol portals share one name space: FETCH and MOVE run what a `Bind` has prepared.
/// A utility statement is looked up only when it runs, and its meaning may have changed since it was decided.
#[test]
fn fetch_does_not_run_a_name_that_changed_since_bind() {
    use wire::{Wire, bind, close, execute, parse, query, sync};
    let stack = Stack::start();
    let count = || stack.superuser("select count(*) from orders");
    let before = count();
    let harmful = [
        "delete from orders returning id",
        "create table taken as select 1 as a",
        "select set_config('role', 'none', false)",
    ];
    for harm in harmful {
        for wraps in ["execute x", "explain analyze execute x"] {
            if harm.starts_with("create") && wraps.starts_with("execute") {
                continue;
            }
            for runs in ["fetch 1 from pp", "move 1 from pp"] {
                let harmless = [parse("x", "select id from orders"), parse("s", wraps), bind("pp", "s", &[])];
                let swapped = [close('S', "x"), parse("x", harm)];

                // In a transaction, by a Query.
                let mut agent = Wire::agent(stack.port);
                agent.ask(&query("begin"));
                agent.ask(&[harmless.concat(), swapped.concat(), sync()].concat());
                let seen = agent.ask(&query(runs));
                assert_eq!(seen, "E0A000ZE", "{harm}, {wraps}, {runs}: {:?}", agent.errors);
                agent.ask(&query("commit"));

                // In one pipeline, bound as well, before and behind what it runs.
                let fetch = [parse("f", runs), bind("pf", "f", &[])].concat();
                let behind = [harmless.concat(), swapped.concat(), fetch.clone(), execute("pf", 0), sync()];
                let ahead = [fetch, harmless.concat(), swapped.concat(), execute("pf", 0), sync()];
                for pipeline in [behind, ahead] {
                    let seen = Wire::agent(stack.port).ask(&pipeline.concat());
                    assert!(seen.contains("E0A000"), "{harm}, {wraps}, {runs}: {seen}");
                }
            }
        }
    }
    assert!(stack.waiting().is_empty());
    assert_eq!(count(), before);
    assert_eq!(stack.superuser("select count(*) from pg_class where relname = 'taken'"), "0");
}

/// The same for a portal that was decided with all its effects: allowed, and recorded as executed.
#[test]
fn a_bound_portal_that_fetch_runs_is_recorded_as_executed() {
    use wire::{Wire, bind, parse, query, sync};
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("begin"));
    let insert = "insert into orders values (9001, 1, 1) returning id";
    agent.ask(&[parse("s", insert), bind("pp", "s", &[]), sync()].concat());
    assert_eq!(agent.ask(&query("fetch 1 from pp")), "TDC[FETCH 1]ZT");
    agent.ask(&query("commit"));
    // One that fails half-way.
    agent.ask(&query("begin"));
    let fails = "insert into orders values (9003, 1, 1), (9004, 1, 1 / (select 0)) returning id";
    agent.ask(&[parse("s2", fails), bind("pp", "s2", &[]), sync()].concat());
    assert_eq!(agent.ask(&query("fetch 1 from pp")), "E22012ZE");
    agent.ask(&query("rollback"));

    let ending = |text: &str| {
        let statements = stack.entries("statement", 4);
        let entry = statements.iter().find(|entry| entry["texts"]["sql"] == text && entry["via"] == "bind");
        let entry = entry.unwrap_or_else(|| panic!("{statements:?}"));
        let told = match entry["ending"].as_str() {
            Some(_) => entry.clone(),
            None => {
                stack.entries("outcome", 1).into_iter().find(|o| o["ref"] == entry["seq"]).unwrap_or_default()
            }
        };
        told["ending"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(stack.superuser("select count(*) from orders where id > 9000"), "1");
    wait_for("its outcome is recorded", || !ending(fails).is_empty());
    assert_eq!((ending(insert).as_str(), ending(fails).as_str()), ("completed", "unknown"));
}

/// An `Execute` of a cursor that SQL has declared is the `FETCH` that does the same: decided, held and
/// recorded as one.
#[test]
fn an_execute_of_a_declared_cursor_is_decided_and_recorded_as_a_fetch() {
    use wire::{Wire, execute, query, sync};
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("begin"));
    agent.ask(&query("declare \"c c\" cursor for select * from customers"));
    assert_eq!(agent.ask(&[execute("c c", 2), sync()].concat()), "DDsZT");

    agent.send(&[execute("c c", 0), sync()].concat());
    let request = stack.request();
    let shown = request["sql"].as_str().unwrap_or_default();
    assert!(shown.starts_with("FETCH FORWARD ALL FROM \"c c\"\n"), "{shown}");
    assert!(shown.ends_with("cursor for select * from customers"), "{shown}");
    assert_eq!(request["class"], "export");
    stack.answer(BOB, &request, "deny", None);
    assert_eq!(agent.until_ready(), "E42501ZE");
    agent.ask(&query("rollback"));

    let recorded = |text: &str| {
        let entries = [stack.entries("statement", 1), stack.entries("refused", 1)].concat();
        entries.iter().any(|entry| entry["texts"]["sql"] == text)
    };
    assert!(recorded("FETCH FORWARD 2 FROM \"c c\""));
    assert!(recorded("FETCH FORWARD ALL FROM \"c c\""));
}

/// A `Query` that fails before it is run, and one that is skipped, leave the unnamed portal as it is. What an
/// `Execute` behind a `Bind` that has not been answered would run may still be that one, long after what it
/// names has changed.
#[test]
fn an_unnamed_portal_that_survives_a_query_is_not_executed() {
    use wire::{Wire, bind, close, execute, parse, query, sync};
    let stack = Stack::start();
    let before = stack.superuser("select count(*) from orders");
    let by_name = |statement: &str, sql: &str| {
        [parse(statement, sql), bind(statement, statement, &[]), execute(statement, 0), sync()].concat()
    };
    // Each leaves the block failed and the unnamed portal alive.
    let failing = [
        query("selec 1"),
        query("select 1 in words of no grammar"),
        [parse("e", "select 1 from nowhere"), query("select 1"), sync()].concat(),
        [parse("e", "select 1 from nowhere"), sync(), query("select 1")].concat(),
    ];
    for fails in failing {
        let mut agent = Wire::agent(stack.port);
        agent.ask(&query("begin"));
        let bound =
            [parse("x", "select id from orders"), parse("w", "execute x"), bind("", "w", &[]), sync()];
        assert_eq!(agent.ask(&bound.concat()), "112ZT");
        agent.ask(&by_name("sp", "savepoint s"));
        agent.send(&fails);
        let syncs = if fails.windows(5).filter(|part| *part == [b'S', 0, 0, 0, 4]).count() > 0
            && fails.first() == Some(&b'P')
            && !fails.ends_with(&sync())
        {
            2
        } else {
            1
        };
        for _ in 0..syncs {
            assert!(agent.until_ready().ends_with("ZE"), "{:?}", fails.escape_ascii().to_string());
        }
        assert!(agent.ask(&by_name("rb", "rollback to s")).ends_with("ZT"));
        agent.ask(&[close('S', "x"), parse("x", "delete from orders"), sync()].concat());

        // One write: nothing of it is answered when the Execute is read.
        let never = [parse("", "select 1 from nowhere"), bind("", "", &[]), sync()].concat();
        let run = [execute("", 0), sync()].concat();
        agent.send(&[never, by_name("rb2", "rollback to s"), run].concat());
        let seen = [agent.until_ready(), agent.until_ready(), agent.until_ready()].concat();
        assert!(!seen.contains("DELETE"), "{seen}");
        agent.ask(&query("commit"));
        assert_eq!(stack.superuser("select count(*) from orders"), before, "{seen}");
    }
    assert!(stack.waiting().is_empty());
}

/// Rows that were sent are recorded, whether or not their portal was read to its end.
#[test]
fn rows_of_a_portal_that_is_not_read_to_its_end_are_counted() {
    use wire::{Wire, bind, execute, parse, query, sync};
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    let sql = |what: &str| format!("select n as {what} from generate_series(1, 500) n");
    let read = |agent: &mut Wire, what: &str, parts: &[u32]| {
        let begun = [parse(what, &sql(what)), bind(what, what, &[])].concat();
        let runs: Vec<u8> = parts.iter().flat_map(|rows| execute(what, *rows)).collect();
        agent.ask(&[begun, runs, sync()].concat());
    };
    read(&mut agent, "suspended", &[499]);
    read(&mut agent, "in_parts", &[400, 400]);
    agent.ask(&query("begin"));
    read(&mut agent, "gone", &[2]);
    agent.ask(&query("commit"));
    agent.ask(&[execute("gone", 0), sync()].concat());

    for (what, rows) in [("suspended", 499), ("in_parts", 500), ("gone", 2)] {
        let told = || {
            let statements = stack.entries("statement", 1);
            let of =
                |entry: &&serde_json::Value| entry["texts"]["sql"] == sql(what) && entry["via"] == "bind";
            let entry = statements.iter().find(of)?.clone();
            if entry["ending"].is_string() {
                return Some(entry);
            }
            stack.entries("outcome", 0).into_iter().find(|outcome| outcome["ref"] == entry["seq"])
        };
        wait_for(what, || told().is_some());
        let told = told().unwrap();
        assert_eq!(
            (told["ending"].as_str(), told["rows"].as_u64()),
            (Some("completed"), Some(rows)),
            "{what}: {told}"
        );
    }
}

/// A statement that completed and was undone with its transaction is not recorded as completed.
#[test]
fn a_statement_that_is_undone_at_sync_is_recorded_as_failed() {
    use wire::{Wire, bind, execute, parse, query, sync};
    let stack = Stack::with(&Setup {
        sql: "create table once (a int unique deferrable initially deferred); grant all on once to app"
            .to_owned(),
        ..Setup::default()
    });
    let mut agent = Wire::agent(stack.port);
    let run = |name: &str, sql: &str| [parse(name, sql), bind(name, name, &[]), execute(name, 0)].concat();
    let late = "insert into once values (1), (1)";
    let early = "insert into once values (2)";
    let fails = "select 1 / (select 0)";
    let kept = "insert into once values (3)";
    let behind = "insert into once values (4)";
    // The constraint is checked when the transaction ends.
    assert_eq!(agent.ask(&[run("a", late), sync()].concat()), "12C[INSERT 0 2]E23505ZI");
    // Something behind it fails.
    agent.ask(&[run("b", early), run("c", fails), sync()].concat());
    // A transaction of its own within one pipeline is kept; what comes behind it is not.
    let pipeline =
        [run("d", "begin"), run("e", kept), run("f", "commit"), run("g", behind), run("h", fails), sync()]
            .concat();
    agent.ask(&pipeline);
    agent.ask(&query("select 1"));
    assert_eq!(stack.superuser("select string_agg(a::text, ',') from once"), "3");

    let told = |sql: &str| {
        let statements = stack.entries("statement", 6);
        let entry =
            statements.iter().find(|entry| entry["texts"]["sql"] == sql && entry["via"] == "bind")?.clone();
        let told = match entry["ending"].as_str() {
            Some(_) => entry,
            None => stack.entries("outcome", 0).into_iter().find(|outcome| outcome["ref"] == entry["seq"])?,
        };
        Some((told["ending"].as_str()?.to_owned(), told["sqlstate"].as_str().unwrap_or("").to_owned()))
    };
    for (sql, ending) in [
        (late, ("failed", "40000")),
        (early, ("failed", "40000")),
        (kept, ("completed", "")),
        (behind, ("failed", "40000")),
        (fails, ("failed", "22012")),
    ] {
        wait_for(sql, || told(sql).is_some());
        let told = told(sql).unwrap();
        assert_eq!((told.0.as_str(), told.1.as_str()), ending, "{sql}");
    }
}

/// What `EXECUTE` runs may be any statement that a Parse prepared, and does to the session what that does.
#[test]
fn effects_of_execute_on_the_session_are_known() {
    let stack = Stack::with(&Setup {
        sql: "CREATE SCHEMA s2; GRANT USAGE ON SCHEMA s2 TO app;
              CREATE TABLE calls (n int); GRANT INSERT, SELECT ON calls TO app;
              CREATE FUNCTION ff(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION s2.ff(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.calls VALUES (1); RETURN 2; END';
              CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept SELECT generate_series(1, 9);
              CREATE TABLE listed (id int); GRANT ALL ON kept, listed TO app; GRANT ALL ON SCHEMA public TO app;"
            .into(),
        ..Setup::default()
    });
    let (query, parse) =
        (|sql: &str| wire::query(sql), |sql: &str| [wire::parse("s", sql), wire::sync()].concat());
    let by_execute = [query("EXECUTE s")];
    let by_extended = [[wire::extended("EXECUTE s", &[]), wire::sync()].concat()];
    let explained = [query("EXPLAIN ANALYZE EXECUTE s")];
    let into_a_table = [query("CREATE TEMP TABLE z AS EXECUTE s")];
    let twice =
        [[wire::parse("t", "EXECUTE s"), wire::bind("", "t", &[]), wire::execute("", 0), wire::sync()]
            .concat()];
    let ways = [&by_execute, &by_extended, &explained, &into_a_table, &twice];
    let open = || {
        let parameters =
            [("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")];
        wire::Wire::connect(stack.port, &parameters, support::TOKEN)
    };

    for sql in [
        "SET search_path = s2",
        "SELECT set_config('search_path', 's2', false)",
        "EXPLAIN ANALYZE SELECT set_config('search_path', 's2', false)",
        "DISCARD ALL",
    ] {
        for way in ways {
            let mut agent = open();
            assert_eq!(agent.ask(&query("SELECT ff(1)")), "TDC[SELECT 1]ZI", "it is public's, which reads");
            agent.ask(&parse(sql));
            agent.ask(&way[0]);
            agent.ask(&query("SELECT ff(1)"));
        }
    }
    assert_eq!(stack.superuser("SELECT count(*) FROM calls"), "0", "code ran unasked");

    // A temporary table of the name takes the column away, and the id is the row's own.
    let delete = query("DELETE FROM kept WHERE id IN (SELECT id FROM listed)");
    for sql in [
        "CREATE TEMP TABLE listed (foo int)",
        "CREATE TEMP TABLE listed AS SELECT 1 AS foo",
        "SELECT 1 AS foo INTO TEMP listed",
        "EXPLAIN ANALYZE CREATE TEMP TABLE listed AS SELECT 1 AS foo",
    ] {
        for way in ways {
            let mut agent = open();
            assert_eq!(agent.ask(&delete), "C[DELETE 0]ZI");
            agent.ask(&parse(sql));
            agent.ask(&way[0]);
            agent.ask(&query("INSERT INTO pg_temp.listed VALUES (1)"));
            agent.ask(&delete);
        }
    }
    for making in [
        "CREATE TEMP TABLE listed AS EXECUTE m",
        "CREATE TABLE pg_temp.listed AS EXECUTE m",
        "CREATE TEMP TABLE IF NOT EXISTS listed AS EXECUTE m",
        "EXPLAIN ANALYZE CREATE TEMP TABLE listed AS EXECUTE m",
    ] {
        let mut agent = open();
        agent.ask(&query("PREPARE m AS SELECT 1 AS foo"));
        let prepared =
            [wire::parse("d", "DELETE FROM kept WHERE id IN (SELECT id FROM listed)"), wire::sync()].concat();
        agent.ask(&prepared);
        agent.ask(&query(making));
        agent.ask(&query("DISCARD PLANS"));
        agent.ask(&delete);
        agent.ask(&[wire::bind("", "d", &[]), wire::execute("", 0), wire::sync()].concat());
    }
    assert_eq!(stack.superuser("SELECT count(*) FROM kept"), "9", "everything was deleted unasked");
}

/// Upstream refuses it while the transaction is read-only. A portal outlives that.
#[test]
fn a_portal_bound_in_a_read_only_transaction_is_decided_again_at_execute() {
    for version in [15, 18] {
        let stack = Stack::with(&Setup { version, ..Setup::default() });
        let run = |sql: &str| wire::extended(sql, &[]);
        let bound = |sql: &str| [wire::parse("s", sql), wire::bind("p", "s", &[])].concat();
        let later = [wire::execute("p", 0), wire::sync()].concat();
        let read_only = ["BEGIN", "SAVEPOINT a", "SET TRANSACTION READ ONLY"].map(wire::query);
        for sql in
            ["DELETE FROM orders", "TRUNCATE orders", "DROP TABLE orders", "UPDATE orders SET amount = 0"]
        {
            for (name, after) in [
                (
                    "released",
                    vec![[bound(sql), wire::sync()].concat(), wire::query("RELEASE a"), later.clone()],
                ),
                (
                    "released by the protocol",
                    vec![[bound(sql), wire::sync()].concat(), [run("RELEASE a"), later.clone()].concat()],
                ),
                ("in one pipeline", vec![[bound(sql), run("RELEASE a"), later.clone()].concat()]),
                (
                    "flushed",
                    vec![
                        [bound(sql), wire::sync()].concat(),
                        wire::query("SAVEPOINT b; RELEASE a"),
                        later.clone(),
                    ],
                ),
            ] {
                let mut agent = wire::Wire::deferring_agent(stack.port);
                for message in read_only.iter().chain(&after) {
                    agent.ask(message);
                }
                agent.ask(&wire::query("COMMIT"));
                let left = stack.superuser("SELECT count(*) FROM orders WHERE amount > 0");
                assert_eq!(left, "1000", "{version}: {sql}, {name}: {:?}", agent.errors);
            }
        }
    }
}
