//! What agents send and get back: queries, prepared statements, COPY, cancels, large results.

use super::*;

#[test]
fn a_read_passes_and_psql_notices_nothing() {
    let stack = Stack::start();

    let output = stack.psql(&["select count(*) from customers", "select 'it''s'"]);

    assert_eq!(text(&output), "100\nit's\n");
}

#[test]
fn psql_describes_tables_without_a_hold() {
    let stack = Stack::start();

    let output = stack.psql(&["\\d customers", "\\dt", "\\df", "\\dp", "\\l", "\\du", "\\dn", "\\dx"]);

    let shown = text(&output);
    assert!(shown.contains("email|text"), "{shown}");
    assert!(!shown.contains("approval"), "{shown}");
}

#[test]
fn asyncpg_prepares_binds_copies_and_cancels() {
    let stack = Stack::denying_ddl(15);
    let script = r#"
import sys, asyncio, asyncpg, io
async def main():
    c = await asyncpg.connect(sys.argv[1])
    print(await c.fetchval("select $1::int + 1", 41))
    s = await c.prepare("select name from customers where id = $1")
    print(await s.fetchval(7), await s.fetchval(8))
    async with c.transaction():
        await c.execute("insert into orders values (4001, 1, 1)")
        try:
            async with c.transaction():
                await c.execute("drop table orders")
        except asyncpg.InsufficientPrivilegeError as e:
            print("denied", e.sqlstate)
        await c.execute("insert into orders values (4002, 1, 1)")
    print(await c.fetchval("select count(*) from orders where id > 4000"))
    await c.copy_records_to_table("orders", records=[(4100 + n, 1, n) for n in range(500)])
    print(await c.fetchval("select count(*) from orders where id >= 4100"))
    try:
        await asyncio.wait_for(c.fetchval("select count(*) from generate_series(1, 100000000000)"), 0.5)
    except asyncio.TimeoutError:
        print("cancelled")
    print(await c.fetchval("select 'alive'"))
    async with c.transaction():
        cur = await c.cursor("select id from orders where id >= 4100 order by id")
        print(len(await cur.fetch(10)), len(await cur.fetch(20)))
    await c.close()
asyncio.run(main())
"#;

    let output = stack.python(script, &[]);

    assert_eq!(text(&output), "42\ncustomer 7 customer 8\ndenied 42501\n2\n500\ncancelled\nalive\n10 20\n");
}

/// Its catalogue is read, known names are distinguished, and a held statement runs once it is approved.
#[test]
fn every_version_that_is_supported_is_served() {
    for version in [14, 15, 16, 17, 18] {
        let sql = "CREATE TABLE kept (x int, y int); INSERT INTO kept VALUES (1, 1), (2, 2);
                   CREATE TABLE listed (y int); INSERT INTO listed VALUES (1);
                   CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 2 * $1';
                   CREATE FUNCTION volatile_one() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
                   CREATE TYPE span AS RANGE (subtype = int);
                   GRANT SELECT, DELETE, INSERT, UPDATE ON kept, listed TO app; GRANT ALL ON SCHEMA public TO app;";
        let stack = Stack::with(&Setup { version, sql: sql.into(), ..Setup::default() });
        let mut agent = Wire::agent(stack.port);
        let mut ask = |sql: &str| {
            let answer = agent.ask(&wire::query(sql));
            if answer.starts_with('E') { agent.errors.pop().unwrap_or_default() } else { answer }
        };

        assert_eq!(ask("SELECT twice(1), '[1,2]'::span"), "TDC[SELECT 1]ZI", "{version}");
        assert_eq!(ask("DELETE FROM kept WHERE y IN (SELECT y FROM listed)"), "C[DELETE 1]ZI", "{version}");
        let merge = "MERGE INTO kept USING listed ON kept.y = listed.y WHEN MATCHED THEN DELETE";
        let merged = ask(merge);
        assert_eq!(merged == "C[MERGE 0]ZI", version >= 15, "{version}: {merged}");
        // Before, it is a call of an unknown function.
        if version >= 16 {
            assert_eq!(ask("SELECT JSON_ARRAY(1)"), "TDC[SELECT 1]ZI", "{version}");
        }
        let returning = ask(
            "MERGE INTO kept USING listed ON kept.y = listed.y WHEN MATCHED THEN DELETE RETURNING kept.y",
        );
        assert_eq!(returning == "TC[MERGE 0]ZI", version >= 17, "{version}: {returning}");
        let old = ask("DELETE FROM kept WHERE y = 7 RETURNING WITH (OLD AS o) o.y");
        assert_eq!(old == "TC[DELETE 0]ZI", version >= 18, "{version}: {old}");

        for held in [
            "DELETE FROM kept WHERE x IN (SELECT x FROM listed)",
            "SELECT volatile_one()",
            "CREATE TABLE made ()",
        ] {
            agent.send(&wire::query(held));
            stack.approve(BOB, &stack.request());
            let answer = agent.until_ready();
            assert!(answer.ends_with("ZI") && answer.contains("C["), "{version}: {answer}");
        }
        assert_eq!(stack.superuser("select count(*) from kept"), "0", "{version}");
    }
}

#[test]
fn syntax_errors_are_reported_in_upstreams_own_words() {
    for version in [15, 18] {
        let stack = Stack::denying_ddl(version);
        let socket = stack.cluster.directory().display().to_string();
        let direct = format!("host={socket} port={} user=postgres dbname=postgres", stack.cluster.port());
        let told = |url: &str| {
            let mut psql = stack.psql_command(url);
            for command in UNPARSED {
                psql.args(["-c", command]);
            }
            psql.args([
                "-c",
                "select 'in step'",
                "-c",
                "begin",
                "-c",
                "selec 1",
                "-c",
                "select 2",
                "-c",
                "rollback",
            ]);
            text(&psql.output().unwrap())
        };

        let through = told(&stack.url());

        assert_eq!(
            through,
            told(&direct),
            "version {version}: message, detail, hint, place, and what follows"
        );
        assert!(through.contains("HINT:") && through.contains("LINE 1:"), "{through}");
        let script = r#"
import sys, psycopg
c = psycopg.connect(sys.argv[1])
for sql in [r"select U&'\061'", "select %s +"]:
    try:
        with c.pipeline(), c.cursor() as cur:
            cur.execute("select 1")
            cur.execute(sql, (1,) if "%s" in sql else (), prepare=True)
            cur.execute("select 2")
    except psycopg.Error as e:
        print(e.sqlstate, e.diag.message_primary, e.diag.message_hint, e.diag.statement_position, c.info.transaction_status.name)
    c.rollback()
print(c.execute("select 'in step'").fetchone()[0])
"#;
        let through = text(&stack.python(script, &[]));
        let past = text(&support::python().arg("-c").arg(script).arg(&direct).output().unwrap());
        assert_eq!(through, past, "version {version}, pipelined");
        assert!(through.contains("42601") && through.ends_with("in step\n"), "{through}");
    }
}

#[test]
fn a_text_that_only_upstream_parses_is_held_as_admin() {
    let mut stack = Stack::start();
    // A word that 16 reserved, and 15 takes for a name like any other.
    let create = "create table system_user (a int)";

    let psql = stack.psql_start(&[
        "begin",
        "insert into orders values (7001, 1, 1)",
        create,
        "commit",
        "select 'on'",
    ]);
    let request = stack.request();
    assert_eq!((&request["class"], &request["sql"]), (&"admin".into(), &create.into()));
    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    let reasons = whole.to_string();
    assert!(reasons.contains("accepted by this server's grammar and not by ours"), "{reasons}");
    stack.answer(BOB, &request, "deny", None);
    let shown = text(&psql.wait_with_output().unwrap());
    assert!(shown.contains("denied") && shown.starts_with("on\n"), "{shown}");
    assert_eq!(stack.superuser("select count(*) from orders where id = 7001"), "0", "rolled back");

    let psql = stack.psql_start(&["create table system_user (b int)", "select 'and on'"]);
    let request = stack.request();
    assert_eq!(stack.superuser("select count(*) from pg_class where relname = 'system_user'"), "0");
    stack.approve(BOB, &request);
    assert!(text(&psql.wait_with_output().unwrap()).starts_with("and on\n"));
    assert_eq!(stack.superuser("select count(*) from pg_class where relname = 'system_user'"), "1");

    // Prepared, it is refused: upstream cannot be asked in the middle of what the agent began.
    let script = r#"
import sys, psycopg
c = psycopg.connect(sys.argv[1], autocommit=True)
try:
    c.execute("insert into system_user values (%s)", (1,))
except psycopg.Error as e:
    print(e.sqlstate, e.diag.message_primary)
print(c.execute("select 'alive'").fetchone()[0])
"#;
    let shown = text(&stack.python(script, &[]));
    assert_eq!(shown, "42601 syntax error at or near \"system_user\"\nalive\n");
    stack.assert_verifies();
}

#[test]
fn copy_in_streams_and_fails_as_without_the_proxy() {
    for version in [15, 18] {
        let stack = Stack::denying_ddl(version);
        let script = r#"
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    with c.cursor() as cur:
        with cur.copy("COPY orders FROM STDIN") as copy:
            for n in range(20000):
                copy.write_row((10000 + n, 1, n))
        print(cur.rowcount)
        try:
            with cur.copy("COPY orders FROM STDIN") as copy:
                copy.write("not a number\t1\t1\n" * 1000)
        except psycopg.errors.InvalidTextRepresentation as e:
            print("bad data", e.sqlstate)
        try:
            with cur.copy("COPY orders FROM STDIN") as copy:
                copy.write_row((1, 1, 1))
                raise ValueError("the agent gives up")
        except ValueError:
            print("given up")
    print(c.execute("select count(*) from orders where id >= 10000").fetchone()[0])
"#;

        let output = stack.python(script, &[]);

        assert_eq!(text(&output), "20000\nbad data 22P02\ngiven up\n20000\n", "version {version}");
    }
}

#[test]
fn a_running_statement_is_cancelled_by_ctrl_c() {
    let stack = Stack::start();
    let mut psql = stack.psql_command(&stack.url());
    let mut psql = psql
        .args(["-c", "select count(*) from generate_series(1, 100000000000)", "-c", "select 'next'"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the statement runs", || {
        stack.superuser("select count(*) from pg_stat_activity where query like '%generate_series(1, 1000%' and pid <> pg_backend_pid() and state = 'active'") == "1"
    });

    signal(psql.id(), "INT");

    let mut shown = String::new();
    psql.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    psql.wait().unwrap();
    assert!(shown.contains("canceling statement due to user request"), "{shown}");
}

/// libpq since version 17 waits for the end of its cancel connection, and takes one without a close_notify
/// for a failure.
#[test]
fn when_a_cancel_connection_ends_the_cancel_is_through_and_hits_nothing_later() {
    let stack = Stack::with(&Setup { tls: true, ..Setup::default() });
    let url = format!(
        "postgresql://{AGENT}:{TOKEN}@localhost:{}/app?sslmode=verify-full&sslrootcert={}",
        stack.port,
        stack.path("server.crt").display()
    );
    let script = r#"
import sys, threading, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as c, psycopg.connect(sys.argv[1], autocommit=True) as watcher:
    cancelled = 0
    def sleep():
        global cancelled
        try:
            c.execute("select pg_sleep(30)")
        except psycopg.errors.QueryCanceled:
            cancelled += 1
    active = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'PgSleep' and query like '%%pg_sleep%%'"
    for n in range(10):
        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        while not watcher.execute(active, (c.info.backend_pid,)).fetchone()[0]:
            pass
        c.cancel_safe()
        sleeper.join()
        c.cancel_safe()
        assert c.execute("select %s::int", (n,)).fetchone() == (n,)
    print(cancelled)
"#;

    let output = support::python().arg("-c").arg(script).arg(url).output().unwrap();

    assert_eq!(text(&output), "10\n");
}

#[test]
fn fast_path_calls_of_large_objects_are_decided_as_the_same_select() {
    let holding = "[[rule]]\nname = \"writes\"\nwhen = { class = [\"write\"] }\nthen = \"hold\"\n";
    let stack = Stack::start();
    let careful = Stack::with(&Setup { policy: Some(holding.to_owned()), ..Setup::default() });
    let (file, copy) = (stack.path("countersign.toml"), stack.path("copy"));

    // psql's \lo_import calls lo_creat, lo_open, lowrite and lo_close by their OIDs.
    let import = format!("\\lo_import {}", file.display());
    let export = format!("\\lo_export :LASTOID {}", copy.display());
    let mut psql = stack.psql_command(&stack.url());
    psql.args(["-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut psql = psql.spawn().unwrap();
    let script = format!("{import}\n{export}\n\\lo_unlink :LASTOID\n");
    std::io::Write::write_all(&mut psql.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(psql.wait().unwrap().success());
    assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(file).unwrap());
    assert_eq!(stack.superuser("select count(*) from pg_largeobject_metadata"), "0", "unlinked");

    let psql = careful.psql_start(&[&import, "select 'alive'"]);
    let request = careful.request();
    assert_eq!(request["sql"], "SELECT pg_catalog.lo_creat($1)", "{request}");
    assert_eq!(careful.superuser("select count(*) from pg_largeobject_metadata"), "0");
    careful.answer(BOB, &request, "deny", None);
    let output = psql.wait_with_output().unwrap();
    assert!(text(&output).contains("denied") && text(&output).contains("alive"), "{}", text(&output));
}

#[test]
fn a_fast_path_call_of_anything_else_is_refused_and_the_session_goes_on() {
    let stack = Stack::start();
    // pg_read_file(text), the server's own lo_import(text), lo_open with an argument missing, nothing.
    let script = r#"
import ctypes, sys
pq = ctypes.CDLL("libpq.so.5")
class Arg(ctypes.Structure):
    _fields_ = [("len", ctypes.c_int), ("isint", ctypes.c_int), ("ptr", ctypes.c_char_p)]
pq.PQconnectdb.restype = pq.PQfn.restype = pq.PQexec.restype = ctypes.c_void_p
pq.PQresultErrorMessage.restype = pq.PQgetvalue.restype = ctypes.c_char_p
c = ctypes.c_void_p(pq.PQconnectdb(sys.argv[1].encode()))
name = Arg(13, 0, b"/etc/hostname")
for oid in [6208, 764, 952, 0]:
    length = ctypes.c_int()
    buffer = ctypes.create_string_buffer(8000)
    result = ctypes.c_void_p(pq.PQfn(c, oid, buffer, ctypes.byref(length), 0, ctypes.byref(name), 1))
    print(oid, pq.PQresultErrorMessage(result).decode().splitlines()[0])
print(pq.PQgetvalue(ctypes.c_void_p(pq.PQexec(c, b"select 'alive'")), 0, 0).decode())
"#;

    let shown = text(&stack.python(script, &[]));

    assert_eq!(shown.matches("a fast-path function call is not supported").count(), 4, "{shown}");
    assert!(shown.ends_with("alive\n"), "{shown}");
    assert_eq!(stack.superuser("select count(*) from pg_largeobject_metadata"), "0");
}

#[test]
fn the_functions_that_may_be_called_by_oid_are_what_the_servers_say_they_are() {
    use countersign::session::fast_path::FUNCTIONS;
    for version in [15, 18] {
        let stack = Stack::denying_ddl(version);
        for (oid, name, types) in FUNCTIONS {
            let types = types.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            let found = stack.superuser(&format!(
                "select pronamespace::regnamespace, proname, proargtypes from pg_proc where oid = {oid}"
            ));
            assert_eq!(found, format!("pg_catalog|{name}|{types}"), "version {version}");
        }
    }
}

#[test]
fn large_results_arrive_whole() {
    let stack = Stack::start();
    let script = r#"
import sys, psycopg, hashlib
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    rows = c.execute("select n, repeat(md5(n::text), 100) from generate_series(1, 20000) n").fetchall()
    print(len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()[:16])
    one = c.execute("select repeat('x', 50000000)").fetchone()[0]
    print(len(one))
"#;
    let through = text(&stack.python(script, &[]));
    let direct =
        format!("postgresql://postgres:superuser-secret@127.0.0.1:{}/postgres", stack.cluster.port());
    let without = text(&support::python().arg("-c").arg(script).arg(direct).output().unwrap());

    assert_eq!(through, without);
    assert!(through.starts_with("20000 "), "{through}");
}

#[test]
fn notifications_and_notices_pass() {
    let stack = Stack::start();
    let script = r#"
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    notices = []
    c.add_notice_handler(lambda d: notices.append(d.message_primary))
    c.execute("listen jobs")
    with psycopg.connect(sys.argv[1], autocommit=True) as d:
        d.execute("notify jobs, 'hello'")
    print([n.payload for n in c.notifies(timeout=5, stop_after=1)])
    c.execute("create temp table if not exists t (a int)")
    c.execute("create temp table if not exists t (a int)")
    print(notices)
"#;

    let output = stack.python(script, &[]);

    assert_eq!(text(&output), "['hello']\n['relation \"t\" already exists, skipping']\n");
}

/// `Parse` and `Bind` count without a sign.
#[test]
fn as_many_values_as_postgres_takes_are_bound_recorded_and_shown_to_reviewers() {
    const MOST: usize = 65_535;
    let mut stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    let places = |from: usize| (from..=MOST).map(|n| format!("${n}")).collect::<Vec<_>>().join(",");
    let values = vec!["7"; MOST];
    let passes = format!("SELECT count(*) FROM customers WHERE id IN ({})", places(1));
    let unit = |sql: &str| [wire::extended(sql, &values), wire::sync()].concat();

    assert_eq!(agent.ask(&unit(&passes)), "12DC[SELECT 1]ZI");
    assert_eq!(agent.row, "1");

    let held = format!("DELETE FROM orders WHERE id IN ({}) OR true", places(1));
    agent.send(&unit(&held));
    let request = stack.request();
    let (status, shown) =
        stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert_eq!(status, 200, "{shown}");
    assert!(shown.to_string().contains("$65535"), "the last value is shown");
    stack.approve(BOB, &request);
    assert_eq!(agent.until_ready(), "12C[DELETE 1000]ZI");
    assert_eq!(stack.superuser("select count(*) from orders"), "0");
    drop(agent);
    stack.assert_verifies();
}

/// If a transaction stays open behind the status `I`, its locks stay as well.
#[test]
fn a_query_after_an_execute_without_a_sync_leaves_no_transaction_open() {
    for version in [17, 18] {
        let stack = Stack::with(&Setup { version, ..Setup::default() });
        let open = "select count(*) from pg_stat_activity where usename = 'app' and xact_start is not null
                    and state like 'idle%'";
        let locks = "select count(*) from pg_locks where relation = 'customers'::regclass";
        let update = wire::extended("UPDATE customers SET name = 'changed' WHERE id = $1", &["1"]);
        for (behind, flush) in [
            (wire::query("SELECT 1"), true),
            (wire::query("SELECT 1"), false),
            (wire::query("UPDATE customers SET name = 'again' WHERE id = 2"), true),
            // The fast path: pg_backend_pid().
            (wire::frame('F', &[&2026_u32.to_be_bytes()[..], &[0; 6]].concat()), true),
        ] {
            let mut agent = Wire::agent(stack.port);
            agent.send(&update);
            if flush {
                agent.send(&wire::flush());
            }
            agent.send(&behind);
            let answer = agent.until_ready();
            assert!(answer.ends_with("ZI"), "{version}: {answer}");
            let told = agent.errors.last().is_some_and(|error| error.contains("behind an Execute without"));
            assert_eq!(told, version >= 18, "{version}: {answer}");
            assert_eq!(agent.ask(&wire::sync()), "ZI", "{version}");
            assert_eq!(stack.superuser(open), "0", "{version}");
            assert_eq!(stack.superuser(locks), "0", "{version}");
            // The session goes on, and what it does now is kept.
            let kept = "UPDATE customers SET email = 'kept' WHERE id = 3";
            assert_eq!(agent.ask(&wire::query(kept)), "C[UPDATE 1]ZI", "{version}");
            assert_eq!(agent.ask(&[update.clone(), wire::sync()].concat()), "12C[UPDATE 1]ZI", "{version}");
        }
        // Inside a block, and behind a Sync, nothing is wrong with it.
        let mut agent = Wire::agent(stack.port);
        assert_eq!(agent.ask(&wire::query("BEGIN")), "C[BEGIN]ZT");
        assert_eq!(
            agent.ask(&[update.clone(), wire::query("SELECT 1")].concat()),
            "12C[UPDATE 1]TDC[SELECT 1]ZT"
        );
        assert_eq!(agent.ask(&wire::query("COMMIT")), "C[COMMIT]ZI");
        agent.send(&[update, wire::sync(), wire::query("SELECT 1")].concat());
        assert_eq!(agent.until_ready(), "12C[UPDATE 1]ZI");
        assert_eq!(agent.until_ready(), "TDC[SELECT 1]ZI");
    }
}

/// The ending in the ledger of the statement whose text holds `mark`, and its tags.
fn ending_of(stack: &Stack, count: usize, mark: &str) -> (String, String) {
    let outcomes = stack.entries("outcome", count);
    let statements = stack.entries("statement", count);
    let statement = statements
        .iter()
        .find(|entry| entry.to_string().contains(mark))
        .unwrap_or_else(|| panic!("no statement with {mark}"));
    let ended = |entry: &serde_json::Value| {
        (entry["ending"].as_str().unwrap().to_owned(), entry["tag"].as_str().unwrap_or_default().to_owned())
    };
    match outcomes.iter().find(|outcome| outcome["ref"] == statement["seq"]) {
        Some(outcome) => ended(outcome),
        None => ended(statement),
    }
}

#[test]
fn the_ledger_distinguishes_commits_and_rollbacks_before_an_error() {
    let sql = "CREATE TABLE kept (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
               INSERT INTO kept VALUES (1); GRANT ALL ON kept TO app;";
    let policy = "[[rule]]\nname = \"all\"\nwhen = { class = [\"code\"] }\nthen = \"allow\"\n";
    let mut stack = Stack::with(&Setup {
        sql: sql.into(),
        policy: Some(policy.into()),
        server: vec![("max_prepared_transactions", "5")],
        ..Setup::default()
    });
    let mut agent = Wire::agent(stack.port);
    let cases = [
        ("begin; insert into kept values (11); commit; select 1/0", true, "failed_after_commit"),
        ("insert into kept values (12); commit; select 1/0", true, "failed_after_commit"),
        ("begin; insert into kept values (13); commit and chain; select 1/0", true, "failed_after_commit"),
        ("begin; insert into kept values (14); end; select nosuch", true, "failed_after_commit"),
        ("insert into kept values (21); select 1/0", false, "failed"),
        ("begin; insert into kept values (22); rollback; select 1/0", false, "failed"),
        ("begin; insert into kept values (23), (1); commit; select 1/0", false, "failed"),
        ("begin; insert into kept values (24); select 1/0; commit", false, "failed"),
        ("do $$ begin insert into kept values (15); commit; perform 1/0; end $$", true, "unknown"),
    ];
    for (text, _, _) in cases {
        let answer = agent.ask(&wire::query(text));
        assert!(answer.contains('E'), "{text}: {answer}");
        agent.ask(&wire::query("rollback"));
    }
    let unit = |sql: &str| wire::extended(sql, &[]);
    agent.ask(
        &[
            unit("insert into kept values (16)"),
            unit("commit"),
            unit("insert into kept values (26)"),
            unit("select 1/0"),
            wire::sync(),
        ]
        .concat(),
    );
    // A lost connection: statements that were committed before are recorded as completed.
    agent.send(&wire::query("begin; insert into kept values (17); commit; select pg_sleep(600)"));
    wait_for("it sleeps", || {
        stack
            .superuser("select count(*) from pg_stat_activity where query like '%(17)%' and state = 'active'")
            != "0"
            && stack.superuser("select count(*) from kept where id = 17") == "1"
    });
    stack.superuser("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and query like '%(17)%'");
    agent.until_ready();

    let ending = |mark: &str| ending_of(&stack, 1, mark);
    for (text, kept, expected) in cases {
        let (id, _) = text.split_once("values (").unwrap().1.split_once(')').unwrap();
        assert_eq!(
            stack.superuser(&format!("select count(*) from kept where id = {id}")) == "1",
            kept,
            "{text}"
        );
        wait_for(&format!("the outcome of {text}"), || ending(&format!("({id})")).0 == expected);
    }
    assert_eq!(ending("(12)").1, "INSERT 0 1; COMMIT");
    assert_eq!(ending("(16)").0, "completed");
    assert_eq!(ending("(26)").0, "failed");
    wait_for("the outcome of what was lost", || {
        ending("(17)") == ("unknown".to_owned(), "BEGIN; INSERT 0 1; COMMIT".to_owned())
    });
    drop(agent);
    stack.assert_verifies();
}
