//! Attempts to get something privileged past the proxy, over the wire, with a real server behind it.
//!
//! The canary is a table that only an unapproved call can have written. Agents here ask for deferred
//! holds, so that whatever is held fails at once.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod support;
#[path = "support/wire.rs"]
mod wire;

use support::{BOB, Setup, Stack, text, wait_for};

/// A function that takes `lower(varchar)` away from the built-in one for whoever searches its schema,
/// and an operator and a cast that run it.
const TRAPS: &str = "
    CREATE TABLE canary (what text);
    GRANT INSERT, SELECT ON canary TO app;
    CREATE SCHEMA evil;
    GRANT USAGE, CREATE ON SCHEMA evil TO app;
    CREATE FUNCTION evil.lower(varchar) RETURNS text LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''lower''); RETURN $1; END';
    CREATE FUNCTION evil.ping(text) RETURNS text LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''ping''); RETURN $1; END';
    CREATE OPERATOR evil.@@@ (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textcat);
    CREATE TYPE evil.mood AS ENUM ('sad', 'ok');
    CREATE FUNCTION evil.to_mood(text) RETURNS evil.mood LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''cast''); RETURN ''ok''; END';
    CREATE CAST (text AS evil.mood) WITH FUNCTION evil.to_mood(text);
";

fn stack() -> Stack {
    let stack = Stack::with(&Setup { sql: TRAPS.to_owned(), ..Setup::default() });
    // The traps do snap when nobody stands in front of them.
    for way in [
        "set search_path = evil; select lower('x'::varchar)",
        "select 'x'::text::evil.mood",
        "select ('x'::text).ping",
    ] {
        stack.superuser(&format!("set search_path = evil, public; {way}"));
    }
    assert_eq!(stack.superuser("select count(*) from canary"), "3");
    stack.superuser("truncate canary");
    stack
}

const PRELUDE: &str = r#"
import sys, psycopg
from psycopg import pq
url = sys.argv[1] + "?options=-c%20countersign.hold%3Ddefer"
def session():
    return psycopg.connect(url, autocommit=True)
def attempt(what):
    try:
        what()
    except psycopg.Error:
        pass
"#;

fn attack(stack: &Stack, script: &str) {
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "the attack itself broke: {}", text(&output));
    assert_eq!(
        stack.superuser("select count(*) from canary"),
        "0",
        "the canary was reached: {}",
        text(&output)
    );
}

#[test]
fn a_value_whose_check_runs_somebodys_function_is_held_however_deep_the_check_lies() {
    let traps = "
        CREATE TABLE canary (what text);
        CREATE FUNCTION public.checked(int) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.canary VALUES (''check''); RETURN true; END';
        CREATE DOMAIN small AS int CHECK (checked(VALUE));
        CREATE TYPE span AS RANGE (subtype = small);
        CREATE TYPE pair AS (a int, b small);
        CREATE DOMAIN pairs AS pair[];
        CREATE TYPE deep AS (p pairs, s span_multirange);
        CREATE FUNCTION public.checked(int[]) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.canary VALUES (''check''); RETURN true; END';
        CREATE DOMAIN ints AS int[] CHECK (checked(VALUE));
    ";
    let stack = Stack::with(&Setup { sql: traps.to_owned(), superuser: true, ..Setup::default() });
    let ways = [
        "'1'::small",
        "'[1,2]'::span",
        "'{[1,2]}'::span_multirange",
        "'(1,2)'::pair",
        "array['(1,2)']::pairs",
        "'(,\"{[1,2]}\")'::deep",
        "'{1}'::small[]",
        "'{1}'::ints",
    ];
    for way in ways {
        stack.superuser(&format!("select {way}"));
    }
    assert_ne!(stack.superuser("select count(*) from canary"), "0", "the traps snap");
    stack.superuser("truncate canary");

    let script = format!("for way in {ways:?}:\n    attempt(lambda: session().execute('select ' + way))\n");
    attack(&stack, &script);
}

#[test]
fn a_shadowing_function_is_not_called_however_its_schema_gets_into_the_path() {
    let stack = stack();
    attack(
        &stack,
        r#"
ways = [
    "set search_path = evil, public; select lower('x'::varchar)",
    "select set_config('search_path', 'evil', false); select lower('x'::varchar)",
    "begin; set local search_path = evil; select lower('x'::varchar); commit",
    "set schema 'evil'; select lower('x'::varchar)",
    "select lower(name::varchar) from customers where false; set search_path to evil; select lower(name::varchar) from customers limit 1",
]
for way in ways:
    c = session()
    attempt(lambda: c.pgconn.exec_(way.encode()))
    c.close()
for way in ways:
    c = session()
    for part in way.split("; "):
        attempt(lambda: c.execute(part))
    c.close()
# Everything in one pipeline, before any answer has come.
c = session()
def pipelined():
    with c.pipeline():
        c.execute("set search_path = evil")
        c.execute("select lower('x'::varchar)")
attempt(pipelined)
# Separate syncs, still without waiting.
c = session()
c.pgconn.enter_pipeline_mode()
for sql in [b"set search_path = evil", b"select lower('x'::varchar)"]:
    c.pgconn.send_query_params(sql, [])
    c.pgconn.pipeline_sync()
attempt(lambda: [c.pgconn.flush(), c.pgconn.get_result()])
"#,
    );
}

#[test]
fn a_start_up_path_is_known_from_the_first_statement_on() {
    let stack = stack();
    attack(
        &stack,
        r#"
c = psycopg.connect(sys.argv[1] + "?options=-c%20search_path%3Devil%20-c%20countersign.hold%3Ddefer", autocommit=True)
attempt(lambda: c.execute("select lower('x'::varchar)"))
attempt(lambda: c.execute("select ping('x')"))
"#,
    );
}

#[test]
fn functions_hide_in_attributes_casts_operators_and_wrappers() {
    let stack = stack();
    attack(
        &stack,
        r#"
for sql in [
    "select evil.ping('x')",
    "select ('x'::text).ping",
    "set search_path = evil; select (q.t).ping from (select 'x'::text as t) q",
    "set search_path = evil; select q.ping from unnest(array['x']) q",
    "select 'x'::text::evil.mood",
    "select cast('x'::text as evil.mood)",
    "select 'a' operator(evil.@@@) evil.ping('b')",
    "explain analyze select evil.ping('x')",
    "prepare p as select evil.ping('x')",
    "prepare p as select evil.ping('x'); execute p",
    "declare c cursor with hold for select evil.ping('x')",
    "copy (select evil.ping('x')) to stdout",
    "create temp table t as select evil.ping('x') as v",
    "create temp table t (v text default evil.ping('x')); insert into t default values",
    "create temp table t (v text check (evil.ping(v) = 'x')); insert into t values ('x')",
    "create temp table t (v text, w text generated always as (evil.ping(v)) stored); insert into t values ('x')",
    "insert into orders select 9999, 1, 1 where evil.ping('x') = 'x'",
    "update orders set amount = 1 where id = 1 and evil.ping('x') = 'x'",
    "delete from orders where id = 1 returning evil.ping('x')",
    "select * from orders order by evil.ping('x') limit 1",
    "select * from rows from (evil.ping('x')) as r",
    "select count(*) filter (where evil.ping('x') = 'x') from orders",
    "with w as (select evil.ping('x')) select * from w",
    "select case when true then evil.ping('x') end",
    "merge into orders o using (select 1 as id) s on o.id = s.id when matched and evil.ping('x') = 'x' then do nothing",
    "table customers; select evil.ping('x')",
    "values (evil.ping('x'))",
    "do $$ begin perform evil.ping('x'); end $$",
    "select U&\"\\0065vil\".U&\"p\\0069ng\"('x')",
    "select \"evil\".\"ping\"('x')",
    "select evil . /* */ ping ( 'x' )",
]:
    c = session()
    attempt(lambda: c.pgconn.exec_(sql.encode()))
    c.close()
    c = session()
    attempt(lambda: c.execute(sql.encode(), prepare=True))
    c.close()
"#,
    );
}

#[test]
fn names_cannot_be_swapped_under_a_decision() {
    let stack = stack();
    attack(
        &stack,
        r#"
# A Parse that fails keeps the old meaning of a name; so does one that is skipped.
c = session()
g = c.pgconn
attempt(lambda: g.prepare(b"s", b"select evil.ping('x')"))
g.enter_pipeline_mode()
g.send_prepare(b"s", b"select 1")
g.pipeline_sync()
g.send_query_prepared(b"s", [])
g.pipeline_sync()
g.flush()
while True:
    r = g.get_result()
    if r is None:
        r = g.get_result()
        if r is None:
            break
c.close()
# SQL names and protocol names are one space.
c = session()
g = c.pgconn
g.prepare(b"t", b"select evil.ping('x')")
attempt(lambda: c.execute("execute t"))
g.exec_prepared(b"t", [])
c.close()
# A name of more than 63 bytes is the same as its first 63.
c = session()
g = c.pgconn
g.prepare(b"a" * 70, b"select evil.ping('x')")
g.exec_prepared(b"a" * 63, [])
g.exec_(b"execute " + b"a" * 64)
c.close()
"#,
    );
}

#[test]
fn what_a_transaction_has_created_is_not_trusted_by_its_builtin_name() {
    let stack = Stack::with(&Setup {
        sql: TRAPS.to_owned(),
        policy: Some(
            "[[rule]]\nname = \"functions-are-fine\"\nwhen = { class = [\"code\", \"ddl\"], in_transaction = true }\nthen = \"deny\"\n".to_owned(),
        ),
        ..Setup::default()
    });
    attack(
        &stack,
        r#"
c = session()
attempt(lambda: c.pgconn.exec_(b"begin; create function public.upper(varchar) returns text language sql as 'insert into public.canary values (1); select $1'; select upper('x'::varchar); commit"))
"#,
    );
}

/// Messages written by hand, on a connection that psycopg logged in.
const RAW: &str = r#"
import os, socket, struct, time
def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body
def P(name, sql): return message(b"P", name + b"\0" + sql + b"\0\0\0")
def B(portal, name): return message(b"B", portal + b"\0" + name + b"\0" + b"\0\0" * 3)
def E(portal): return message(b"E", portal + b"\0" + b"\0" * 4)
def C(kind, name): return message(b"C", kind + name + b"\0")
def D(portal): return message(b"D", b"P" + portal + b"\0")
def Q(sql): return message(b"Q", sql + b"\0")
S = message(b"S")
class Raw:
    def __init__(self):
        self.connection = session()
        self.socket = socket.socket(fileno=os.dup(self.connection.fileno()))
        self.socket.settimeout(10)
    def send(self, *messages):
        self.socket.sendall(b"".join(messages))
    def until_ready(self, times=1):
        "Everything up to so many ReadyForQuery."
        seen, buffer = [], b""
        while times:
            while len(buffer) < 5 or len(buffer) < 1 + struct.unpack("!I", buffer[1:5])[0]:
                more = self.socket.recv(65536)
                if not more:
                    return seen
                buffer += more
            length = 1 + struct.unpack("!I", buffer[1:5])[0]
            kind, body, buffer = buffer[:1], buffer[5:length], buffer[length:]
            seen.append((kind, body))
            times -= kind == b"Z"
        return seen
    def do(self, *messages):
        self.send(*messages)
        return self.until_ready(sum(m == S or m[:1] == b"Q" for m in messages))
BAD = b"select evil.ping('x')"
"#;

#[test]
fn a_portal_of_execute_does_not_run_what_its_name_has_become() {
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
    // What is executed where it was bound still runs, and so does what has not changed since.
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
fn a_failed_transaction_that_ends_in_the_same_pipeline_dooms_nothing() {
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

#[test]
fn sessions_end_with_their_agents_and_leave_no_locks() {
    let stack = stack();
    attack(
        &stack,
        &format!(
            "{RAW}{}",
            r#"
row = 0
def locked():
    global row
    row += 1
    r = Raw()
    r.do(Q(b"create temp table t (a text)"))
    r.do(Q(b"begin"))
    r.do(Q(b"update orders set amount = amount where id = %d" % row))
    return r
left = []
# In an open copy; in an open copy with something else behind it; with a held statement and no Sync.
r = locked()
r.send(Q(b"copy t from stdin"), message(b"d", b"x\n"))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(Q(b"copy t from stdin"))
time.sleep(0.2)
r.send(message(b"d", b"x\n"), Q(BAD))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(Q(b"copy t from stdin"), Q(BAD))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(P(b"", BAD), B(b"", b""))
left.append(r)
r = locked()
r.send(P(b"", b"select pg_sleep(0.3)"), B(b"", b""), E(b""))
left.append(r)
for r in left:
    r.connection.pgconn.finish()
    r.socket.close()
"#
        ),
    );
    wait_for("every session has ended", || {
        stack.superuser(
            "select count(*) from pg_stat_activity where usename = 'app' and application_name not in ('', 'countersign catalogue')",
        ) == "0"
            && stack.metric("countersign_sessions") == 0
    });
    assert_eq!(
        stack
            .superuser("set lock_timeout = '2s'; with u as (update orders set amount = 1 where id < 6 returning 1) select count(*) from u"),
        "5"
    );
}

/// SQL cursors and protocol portals share one name space: FETCH and MOVE run what a `Bind` has prepared.
/// Where that is looked up only when it runs, what it means may have been changed since it was decided.
#[test]
fn a_fetch_does_not_run_what_a_name_has_come_to_mean_since_its_bind() {
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

/// The same way for what was decided with all that it does: allowed, and told as executed.
#[test]
fn what_a_fetch_runs_of_a_bound_portal_is_not_told_as_never_executed() {
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
    use BOB;
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
fn the_unnamed_portal_that_outlives_a_query_is_not_run_as_another() {
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

const DEFERS: &[(&str, &str)] =
    &[("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")];

/// What is approved of a cursor is approved of its query.
#[test]
fn a_deferred_grant_for_a_cursor_does_not_fit_another_query_of_its_name() {
    use support::{BOB, TOKEN};
    use wire::{Wire, execute, query, sync};
    let stack = Stack::start();
    type Take = fn() -> Vec<u8>;
    let takes: [Take; 3] = [
        || query("fetch all k"),
        || [execute("k", 0), sync()].concat(),
        || query("select cursor_to_xml('k', 1000, false, false, '')"),
    ];
    for (number, take) in takes.iter().enumerate() {
        let mut agent = Wire::connect(stack.port, DEFERS, TOKEN);
        let mut with = |declare: &str| {
            agent.ask(&query("begin"));
            agent.ask(&query(declare));
            let seen = agent.ask(&take());
            agent.ask(&query("rollback"));
            seen
        };
        let asked = format!("declare k cursor for select {number} as asked");
        let other = "declare k cursor for select 'other' as x from generate_series(1, 3)";
        assert_eq!(with(&asked), "E42501ZE");
        let request = stack.request();
        assert!(request.to_string().contains("as asked"), "the reviewer sees the query: {request}");
        stack.answer(BOB, &request, "approve", None);

        assert_eq!(with(other), "E42501ZE", "{number}: it is another query");
        let second = stack.request();
        stack.answer(BOB, &second, "deny", None);
        let seen = with(&asked);
        assert!(!seen.starts_with('E'), "{number}: and this is the one: {seen}");
    }
}

/// Rules by table are about the rows that leave, whichever way.
#[test]
fn a_rule_by_table_sees_through_a_cursor() {
    use support::TOKEN;
    use wire::{Wire, execute, query, sync};
    let policy = "[[rule]]\nname = \"orders stay\"\nwhen = { class = [\"export\"], table = [\"public.orders\"] }\nthen = \"deny\"\n";
    let stack = Stack::with(&Setup { policy: Some(policy.to_owned()), ..Setup::default() });
    let mut agent = Wire::connect(stack.port, DEFERS, TOKEN);
    let denied = |agent: &Wire| agent.errors.last().is_some_and(|error| error.contains("orders stay"));
    agent.ask(&query("copy public.orders to stdout"));
    assert!(denied(&agent), "{:?}", agent.errors);
    for take in [query("fetch all c"), [execute("c", 0), sync()].concat(), query("fetch backward all in c")] {
        agent.ask(&query("begin"));
        agent.ask(&query("declare c scroll cursor for select * from public.orders"));
        agent.errors.clear();
        agent.ask(&take);
        assert!(denied(&agent), "{:?}", agent.errors);
        agent.ask(&query("rollback"));
    }
    // One that nobody here knows may be anything: it is held, never allowed.
    agent.ask(&query("begin"));
    assert_eq!(agent.ask(&query("fetch all nobody_knows_it")), "E42501ZE");
    agent.ask(&query("rollback"));
    assert_eq!(agent.ask(&query("select query_to_xml('table public.orders', true, false, '')")), "E42501ZI");
}

/// Rows that have left are told, whether or not their portal was ever read to its end.
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

/// What had completed and was undone with its transaction is not told as completed.
#[test]
fn what_a_failing_sync_undoes_is_not_told_as_completed() {
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

/// Nothing in these texts names the function that they run.
#[test]
fn what_runs_somebodys_function_without_naming_it_is_held() {
    let stack = Stack::with(&Setup {
        sql: "
            CREATE TABLE canary (what text);
            GRANT INSERT, SELECT ON canary TO app;
            CREATE FUNCTION f(text) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.canary VALUES ($1); RETURN true; END';
            CREATE DOMAIN dom AS text CHECK (f(VALUE));
            CREATE TYPE pair AS (a dom, b int);
            CREATE FUNCTION eq(varchar, varchar) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT public.f($1)';
            CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = eq);
            CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE plpgsql AS
                'BEGIN PERFORM public.f(''cmp''); RETURN sign($1 - $2); END';
            CREATE OPERATOR CLASS r_ops FOR TYPE int USING btree AS
                OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int);
            CREATE TYPE rrng AS RANGE (SUBTYPE = int4, SUBTYPE_OPCLASS = r_ops);"
            .to_owned(),
        ..Setup::default()
    });
    // They do run it when nobody stands in front of them.
    stack.superuser("select case 'a'::varchar when 'b'::varchar then 1 end; select '[1,2]'::rrng");
    assert_ne!(stack.superuser("select count(*) from canary"), "0");
    stack.superuser("truncate canary");
    attack(
        &stack,
        r#"
c = session()
values = {'dom': b'x', '_dom': b'{x}', 'pair': b'(x,1)', '_pair': b'{"(x,1)"}', 'rrng': b'[1,2]', '_rrng': b'{"[1,2]"}'}
p = c.pgconn
for name, value in values.items():
    oid = c.execute(f"select '{name}'::regtype::oid").fetchone()[0]
    result = p.exec_params(b'select $1', [value], [oid])
    assert result.error_field(pq.DiagnosticField.SQLSTATE) == b'42501', (name, result.error_message)
    p.prepare(b'p' + name.encode(), b'select 1 where $1 is null', [oid])
    attempt(lambda: c.execute("execute p%s('%s')" % (name, value.decode())))
for query in [
    "select case 'x'::varchar when 'b'::varchar then 1 end",
    "select 'x'::varchar in (select 'b'::varchar)",
    "select 'x'::varchar not in (select 'b'::varchar)",
    "select 1 from (select 'x'::varchar v) x join (select 'b'::varchar v) y using (v)",
    "select 1 from (select 'x'::varchar v) x natural join (select 'b'::varchar v) y",
    "select '[1,2]'::public.rrng",
    "create temp table ix as select generate_series(1,3) x",
    "create index on pg_temp.ix (x r_ops)",
    "create temp table parted (x int) partition by range (x r_ops)",
]:
    attempt(lambda: c.execute(query))
"#,
    );
}

#[test]
fn a_search_path_that_a_statement_gives_to_later_sessions_is_theirs_at_once() {
    let policy = r#"
[[rule]]
name = "grants"
when = { class = ["grant", "admin"] }
then = "allow"

[[rule]]
name = "secret"
when = { table = ["hidden.*"] }
then = "deny"
"#;
    let stack = Stack::with(&Setup {
        policy: Some(policy.to_owned()),
        sql: "CREATE SCHEMA hidden; GRANT USAGE ON SCHEMA hidden TO app;
              CREATE TABLE hidden.notes (a int); GRANT SELECT ON hidden.notes TO app;
              CREATE TABLE public.notes (a int); GRANT SELECT ON public.notes TO app;"
            .into(),
        ..Setup::default()
    });
    let read = wire::query("SELECT * FROM notes");
    assert_eq!(wire::Wire::agent(stack.port).ask(&read), "TC[SELECT 0]ZI");

    // A rule by table cannot tell what a grant touches, and holds it.
    let mut changing = wire::Wire::agent(stack.port);
    changing.send(&wire::query("ALTER ROLE app SET search_path = hidden"));
    stack.approve(BOB, &stack.request());
    assert_eq!(changing.until_ready(), "C[ALTER ROLE]ZI");

    let mut later = wire::Wire::agent(stack.port);
    assert!(later.ask(&read).starts_with('E'), "{:?}", later.errors);
}

/// What goes along with a table, and where it goes, is covered by a rule or asked about.
#[test]
fn an_allow_of_ddl_by_table_takes_nothing_else_along() {
    let rule = "[[rule]]\nname = 'scratch'\nwhen = { class = ['ddl'], table = ['public.scratch', 'public.scratch_*'] }\nthen = 'allow'\n";
    let stack = Stack::with(&Setup {
        policy: Some(rule.into()),
        sql: "SET ROLE app; CREATE TABLE scratch (id int PRIMARY KEY, v text); CREATE VIEW report AS SELECT id FROM scratch;
              CREATE TABLE child (id int CONSTRAINT child_fk REFERENCES scratch); CREATE TABLE scratch_2 (id int);
              CREATE SEQUENCE scratch_s; CREATE TABLE numbered (id int DEFAULT nextval('scratch_s'));
              CREATE TABLE scratch_3 (id int); CREATE VIEW scratch_v AS SELECT * FROM scratch_3;
              CREATE VIEW late AS SELECT * FROM scratch_v; CREATE SCHEMA attic"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::agent(stack.port);
    agent.ask(&wire::query("SET countersign.hold = 'defer'"));
    for sql in [
        "drop table public.scratch cascade",
        "alter table public.scratch drop column id cascade",
        "alter table public.scratch drop constraint scratch_pkey cascade",
        "drop table public.scratch_3 cascade",
        "drop view public.scratch_v cascade",
        "drop sequence public.scratch_s cascade",
        "alter table public.scratch_2 rename to invoices",
        "alter table public.scratch_2 set schema attic",
        "alter sequence public.scratch_s owned by public.child.id",
        "alter table public.scratch_2 inherit public.child",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.contains("E42501"), "{sql}: {seen}");
    }
    let left = "select count(*) from unnest(array['report', 'late', 'scratch_v', 'scratch_2', 'numbered']) n where to_regclass(n) is not null";
    assert_eq!(stack.superuser(left), "5");
    assert_eq!(stack.superuser("select count(*) from pg_constraint where conname = 'child_fk'"), "1");
    for sql in [
        "create table public.scratch_9 (id int)",
        "alter table public.scratch_9 rename to scratch_8",
        "alter table public.scratch_2 add column x int",
        "drop table public.scratch_2, public.scratch_8 cascade",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(!seen.contains('E') || seen.starts_with("C["), "{sql}: {seen} {:?}", agent.errors);
    }
}

/// One statement, one call in its text, all large objects.
#[test]
fn a_call_for_each_row_is_not_judged_as_one() {
    let stack = Stack::with(&Setup {
        sql: "SELECT lo_from_bytea(0, 'x') FROM generate_series(1, 50); UPDATE pg_largeobject_metadata SET lomowner = 'app'::regrole;
              CREATE SEQUENCE s1; CREATE SEQUENCE s2; ALTER SEQUENCE s1 OWNER TO app; ALTER SEQUENCE s2 OWNER TO app"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::agent(stack.port);
    agent.ask(&wire::query("SET countersign.hold = 'defer'"));
    for sql in [
        "select count(lo_unlink(oid)) from pg_largeobject_metadata",
        "select 1 from pg_largeobject_metadata where lo_unlink(oid) = 1",
        "select u from pg_largeobject_metadata m, lo_unlink(m.oid) u",
        "select (select lo_unlink(m.oid)) from pg_largeobject_metadata m",
        "select lo_unlink(unnest(array(select oid from pg_largeobject_metadata)))",
        "create temp table x (o oid check (lo_unlink(o) = 1))",
        "select setval(oid::regclass, 1) from pg_class where relname in ('s1', 's2')",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.contains("E42501"), "{sql}: {seen}");
    }
    assert_eq!(stack.superuser("select count(*) from pg_largeobject_metadata"), "50");
    for sql in [
        "select setval('s1', coalesce(max(id), 1), max(id) is not null) from orders",
        "select nextval('s1') from generate_series(1, 10)",
        "select pg_notify('c', id::text) from customers where id = 5",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.starts_with("TD"), "{sql}: {seen}");
    }
}

/// A role's own path may lead to operators of somebody else's, with which our queries would find nothing.
#[test]
fn own_queries_of_the_catalogue_call_nobodys_operators() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE reached (what text); GRANT ALL ON reached TO PUBLIC;
              CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
              CREATE FUNCTION evil.no(oid, oid) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''oid''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
              CREATE OPERATOR evil.>= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
              CREATE FUNCTION evil.no(text, text) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''text''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
              CREATE FUNCTION evil.no(name, name) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''name''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.no);
              CREATE FUNCTION public.harmful() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
              ALTER ROLE app SET search_path = evil, pg_catalog, public"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::agent(stack.port);
    agent.ask(&wire::query("SET countersign.hold = 'defer'"));
    let seen = agent.ask(&wire::query("SELECT harmful()"));
    assert!(seen.contains("E42501"), "{seen}");
    let checked =
        support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();
    assert!(
        text(&checked).contains("public.customers"),
        "it lists the role's own tables: {}",
        text(&checked)
    );

    assert_eq!(stack.superuser("select count(*) from reached"), "0");
}

/// `DELETE .. WHERE x IN (SELECT x FROM u)` where u has no x compares x with itself.
#[test]
fn a_subquery_of_a_table_without_the_column_deletes_nothing_unasked() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE kept (x int, y int); INSERT INTO kept SELECT n, n FROM generate_series(1, 9) n;
              CREATE TABLE listed (y int); INSERT INTO listed VALUES (3);
              CREATE VIEW shown AS SELECT * FROM listed;
              GRANT SELECT, DELETE ON kept, listed, shown TO app;"
            .into(),
        ..Setup::default()
    });
    assert_eq!(
        stack.superuser(
            "begin; delete from kept where x in (select x from listed); select count(*) from kept; rollback"
        ),
        "0",
        "it deletes everything"
    );
    let script = r#"
c = session()
for query in [
    "delete from kept where x in (select x from listed)",
    "delete from kept where x = (select x from listed limit 1)",
    "delete from kept where ctid in (select ctid from shown)",
    "delete from kept where exists (select from listed where kept.x = x)",
    "create temp table listed (z int); insert into pg_temp.listed values (1); delete from kept where y in (select y from listed)",
]:
    attempt(lambda: c.execute(query))
c = session()
c.execute("create temp table listed as select 1 as z")
for prepare in [None, True]:
    attempt(lambda: c.execute("delete from kept where y in (select y from listed)", prepare=prepare))
c = session()
c.execute("prepare later as delete from kept where y in (select y from listed)")
c.execute("create temp table listed as select 1 as z")
attempt(lambda: c.execute("execute later"))
c = session()
c.prepare_threshold = 0
def both():
    with c.pipeline():
        c.execute("create temp table listed as select 1 as z")
        c.execute("delete from kept where y in (select y from listed)")
attempt(both)
"#;
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "the attack itself broke: {}", text(&output));
    assert_eq!(stack.superuser("select count(*) from kept"), "9", "{}", text(&output));

    let mut agent = wire::Wire::agent(stack.port);
    assert_eq!(
        agent.ask(&wire::query("DELETE FROM kept WHERE y IN (SELECT y FROM listed)")),
        "C[DELETE 1]ZI"
    );
}

/// What `EXECUTE` runs may be any statement that a Parse prepared, and does to the session what that does.
#[test]
fn what_execute_does_to_the_session_is_known() {
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

/// An array type goes by a name of its own, `_` and its element's.
#[test]
fn an_array_types_own_name_runs_no_code_unasked() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE calls (n int); GRANT INSERT, SELECT ON calls TO app;
              CREATE FUNCTION noted(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO calls VALUES (1); RETURN true; END';
              CREATE DOMAIN d AS text CHECK (noted(value));
              CREATE DOMAIN _odd AS text CHECK (noted(value));
              CREATE DOMAIN a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_underscore AS text CHECK (noted(value));
              CREATE TYPE comp AS (a d); CREATE TABLE tdom (a d, b int); CREATE VIEW vd AS SELECT * FROM tdom;
              CREATE TYPE mood AS ENUM ('a'); CREATE TYPE plain AS ENUM ('a');
              CREATE FUNCTION to_mood(int) RETURNS mood LANGUAGE plpgsql AS 'BEGIN INSERT INTO calls VALUES (1); RETURN ''a''; END';
              CREATE CAST (int AS mood) WITH FUNCTION to_mood(int);"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::connect(
        stack.port,
        &[("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")],
        support::TOKEN,
    );
    for sql in [
        "SELECT '{x}'::_d",
        "SELECT public._d '{x}'",
        "SELECT ARRAY['x']::_d",
        "SELECT '{x}'::__odd",
        "SELECT '{x}'::_a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_underscor",
        "SELECT '{x}'::_a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_undersco",
        r#"SELECT '{"(x)"}'::_comp"#,
        r#"SELECT '{"(x,1)"}'::_tdom"#,
        r#"SELECT '{"(x,1)"}'::_vd"#,
        "SELECT ARRAY[1]::_mood",
        r#"SELECT * FROM json_to_record('{"a":["x"]}') AS x(a _d)"#,
        "SELECT array_append('{}'::_d, 'x')",
        // Attributes that are casts.
        "SELECT ('x'::text).d",
        "SELECT ('x'::varchar).d",
        "SELECT ('{x}'::text)._d",
        "SELECT (t.b).d FROM tdom t",
        "SELECT f.d FROM unnest(ARRAY['q']) f",
        "SELECT (current_user).d",
        "PREPARE p(_d) AS SELECT $1",
        "EXECUTE p('{x}')",
        "CREATE TEMP TABLE u (a _d)",
        "INSERT INTO pg_temp.u VALUES ('{x}')",
    ] {
        agent.ask(&wire::query(sql));
    }
    assert_eq!(stack.superuser("SELECT count(*) FROM calls"), "0", "code ran unasked: {:?}", agent.errors);
    assert_eq!(agent.ask(&wire::query("SELECT '{1,2}'::_int4, '{a}'::_plain")), "TDC[SELECT 1]ZI");
}

/// Names are cut and compared by the database's encoding: in another one than ours two names would be one
/// to upstream and two to us.
#[test]
fn a_database_that_is_not_in_utf8_is_refused_at_connect_by_check_and_in_status() {
    let stack = Stack::start();
    let mut database = "postgres".to_owned();
    for encoding in ["SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"] {
        let name = format!("in_{}", encoding.to_lowercase());
        stack.superuser(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ));
        stack.reconfigure(|config| {
            config.replace(&format!("database = \"{database}\""), &format!("database = \"{name}\""))
        });
        database = name;

        let parameters = [("user", support::AGENT), ("database", "app")];
        let refused = wire::Wire::try_connect(stack.port, &parameters, support::TOKEN).err().unwrap();
        assert!(refused.contains("0A000") && refused.contains(encoding), "{refused}");
        assert!(refused.contains("ENCODING 'UTF8'"), "{refused}");

        let check = support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output();
        let check = check.unwrap();
        let said = text(&check);
        assert_eq!(check.status.code(), Some(2), "{said}");
        assert!(said.contains(encoding) && said.contains("UTF8 databases only"), "{said}");

        let (_, status) = stack.api(BOB, "GET", "/status", None);
        assert!(status["upstreams"].to_string().contains(encoding), "{status}");
    }
}

/// A name of more than 63 bytes is cut where Postgres cuts it: in SQL before a character that does not fit,
/// in the protocol behind the 63rd byte.
#[test]
fn long_names_in_several_bytes_mean_here_what_they_mean_upstream() {
    use wire::{Wire, parse, query};
    let stack = stack();
    stack.superuser("CREATE TABLE victim (a int); ALTER TABLE victim OWNER TO app");
    let n = |count: usize| "n".repeat(count);
    let names: Vec<String> = [(62, "é"), (61, "é"), (61, "漢"), (60, "😀x"), (63, "é"), (60, "漢é")]
        .into_iter()
        .flat_map(|(count, tail)| [n(count), format!("{}{tail}", n(count))])
        .collect();
    let direct = || {
        Wire::connect(stack.cluster.port(), &[("user", "app"), ("database", "postgres")], "upstream-secret")
    };
    let sync = wire::frame('S', &[]);
    for prepared in &names {
        for executed in &names {
            let run = |mut wire: Wire| {
                let mut said = vec![wire.ask(&[parse(prepared, "select 1"), sync.clone()].concat())];
                said.push(wire.ask(&query(&format!("prepare \"{executed}\" as select 2"))));
                said.push(wire.ask(&query(&format!("execute \"{executed}\""))));
                said.push(wire.row.clone());
                said.push(wire.ask(&query(&format!("deallocate \"{prepared}\""))));
                said
            };
            let defer =
                [("user", support::AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
            let ours = run(Wire::connect(stack.port, &defer, support::TOKEN));
            assert_eq!(ours, run(direct()), "{prepared} {executed}");
        }
    }
    // What is held under one of them is not run under another.
    for prepared in &names {
        let mut agent = Wire::agent(stack.port);
        agent.ask(&query("set countersign.hold = 'defer'"));
        agent.ask(&[parse(prepared, "drop table victim"), sync.clone()].concat());
        for executed in &names {
            agent.ask(&query(&format!("prepare \"{executed}\" as select 1")));
            agent.ask(&query(&format!("execute \"{executed}\"")));
        }
    }
    assert_eq!(stack.superuser("select count(*) from pg_class where relname = 'victim'"), "1");
}

/// A function that somebody has made since the catalogue was read last, called as if it were a column.
#[test]
fn a_name_behind_a_dot_that_is_no_column_is_looked_up_before_it_passes() {
    use wire::{Wire, query};
    let stack = stack();
    stack.superuser(
        "CREATE TABLE v (a int PRIMARY KEY, b text); INSERT INTO v VALUES (1, 'x'); ALTER TABLE v OWNER TO app;
         CREATE TYPE pair AS (x int, y int)",
    );
    let defer = [("user", support::AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
    let mut agent = Wire::connect(stack.port, &defer, support::TOKEN);
    let mut round = 0;
    for call in [
        "select v.F from v",
        "select (v.*).F from v",
        "select (v).F from v",
        "select x.F from v x",
        "select x.F from (select * from v) x",
        "with w as (select * from v) select w.F from w",
        "select 1 from v where v.F is null",
        "select 1 from v order by v.F",
        "select (select v.F) from v",
        "update v set b = 'y' where a = 1 returning v.F",
        "insert into v values (1) on conflict (a) do update set b = excluded.F where v.a = 1",
        "update v set b = v.F where a = 1",
        "select coalesce(v.F, 'z') from v join (select 1 as one) o on v.F is not null",
        "prepare pF as select v.F from v",
        "select public.v.F from public.v",
        "select t.F from pg_temp.t",
    ] {
        round += 1;
        let name = format!("made{round}");
        let table = if call.contains("pg_temp") {
            agent.ask(&query("create temp table t (a int)"));
            agent.ask(&query("insert into t values (1)"));
            "anyelement"
        } else {
            "v"
        };
        agent.ask(&query("select v.a, v.b from v"));
        stack.superuser(&format!(
            "CREATE FUNCTION {name}({table}) RETURNS text LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.canary VALUES (''{name}''); RETURN ''x''; END'"
        ));
        agent.errors.clear();
        agent.ask(&query(&call.replace('F', &name)));
        assert!(agent.errors.iter().any(|error| error.contains("42501")), "{call}: {:?}", agent.errors);
    }
    assert_eq!(stack.superuser("select string_agg(what, ' ') from canary"), "");

    // What is no function is told by the server itself, and what is a column passes at once.
    agent.errors.clear();
    agent.ask(&query("select v.nothing from v"));
    assert!(agent.errors.iter().any(|error| error.contains("42703")), "{:?}", agent.errors);
    stack
        .superuser("ALTER TABLE v ADD COLUMN fresh int DEFAULT 7; CREATE VIEW fresh_view AS SELECT a FROM v; GRANT SELECT ON fresh_view TO app");
    agent.errors.clear();
    for harmless in [
        "select v.fresh from v",
        "select f.a from fresh_view f",
        "select t.a from t",
        "select e.key, e.value from jsonb_each('{\"a\": 1}') e",
        "select g.g from generate_series(1, 2) g",
        "select (row(1, 2)::pair).x",
        "select c.relname, c.oid from pg_class c limit 1",
        "insert into v values (2, 'x') on conflict (a) do update set b = excluded.b",
        "with w(n) as (select 1) select w.n from w",
        "select v.ctid, v.xmin from v",
        "select v.* from v",
        "select n.nullif from (select nullif(1, 2)) n",
    ] {
        agent.ask(&query(harmless));
        assert!(agent.errors.is_empty(), "{harmless}: {:?}", agent.errors);
    }
}

/// Temporary objects are the session's own: nobody else has to read the catalogue because of them.
#[test]
fn temporary_objects_of_one_session_make_no_other_read_the_catalogue() {
    use wire::{Wire, query};
    // A column that has the name of a type is looked up as a function once a temporary table may hide its own.
    let sql = "CREATE DOMAIN email AS text CHECK (value ~ '@'); CREATE TABLE people (id int, email email); GRANT SELECT ON people TO app";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let (mut a, mut b) = (Wire::agent(stack.port), Wire::agent(stack.port));
    b.ask(&query("select 1"));
    let readings = || stack.log().matches("catalogue read").count();
    let before = readings();
    for made in [
        "create temp table x (a int)",
        "drop table pg_temp.x",
        "create temporary table x as select 1 as a",
        "drop table pg_temp.x",
        "select 1 as a into temp x",
        "drop table pg_temp.x",
        "create table pg_temp.x (a int, b text)",
        "alter table pg_temp.x add column c int",
        "create index on pg_temp.x (a)",
        "drop table pg_temp.x",
        "create temp sequence s",
        "drop sequence pg_temp.s",
        "begin; create temp table y (a int) on commit drop; commit",
        "select people.email from people",
        "select p.email from people p",
    ] {
        a.errors.clear();
        a.ask(&query(made));
        assert!(a.errors.is_empty(), "{made}: {:?}", a.errors);
        b.ask(&query("select 1"));
    }
    assert_eq!(readings(), before, "{}", stack.log());
}

/// All of the server's connections are taken, and the catalogue has to be read anew.
#[test]
fn a_full_server_refuses_no_session_that_runs() {
    use wire::{Wire, query};
    let policy = "[[rule]]\nname = \"scratch\"\nwhen = { class = [\"ddl\"] }\nthen = \"allow\"\n";
    let stack = Stack::with(&Setup {
        server: vec![("max_connections", "20")],
        policy: Some(policy.to_owned()),
        ..Setup::default()
    });
    let mut running = Wire::agent(stack.port);
    running.ask(&query("select 1"));
    let parameters = [("user", support::AGENT), ("database", "app")];
    let mut all = Vec::new();
    while let Ok(session) = Wire::try_connect(stack.port, &parameters, support::TOKEN) {
        all.push(session);
        assert!(all.len() < 30, "the server should be full");
    }
    for round in 0..3 {
        running.errors.clear();
        all[0].ask(&query(&format!("create table t{round} (a int)")));
        running.ask(&query(&format!("select count(*) from t{round}")));
        assert!(running.errors.is_empty(), "{:?}", running.errors);
    }
    // Even without the connection of our own, transactions can end.
    running.ask(&query("begin"));
    running.ask(&query("select 1"));
    let kept = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'countersign cat%'";
    stack.superuser(kept);
    let mut another = Vec::new();
    while let Ok(session) = Wire::try_connect(stack.port, &parameters, support::TOKEN) {
        another.push(session);
    }
    all[0].ask(&query("create table late (a int)"));
    running.errors.clear();
    running.ask(&query("rollback"));
    assert!(running.errors.is_empty(), "{:?}", running.errors);
    // Once there is room, everything goes on.
    all.truncate(3);
    drop(another);
    wait_for("statements run again", || {
        running.errors.clear();
        running.ask(&query("select count(*) from late"));
        running.errors.is_empty()
    });
}

/// What is prepared is kept, so it is counted: in bytes, and once however many names it has.
#[test]
fn texts_that_a_session_keeps_are_limited_in_bytes() {
    use wire::{Wire, bind, close, parse, query};
    let stack = Stack::with(&Setup {
        config: "[limits]\nprepared_bytes = 1000000\nprepared_bytes_per_agent = 1600000\n".to_owned(),
        ..Setup::default()
    });
    let sync = wire::frame('S', &[]);
    let long = |tag: &str| format!("select '{tag}{}'", "x".repeat(400_000));
    let refused = |wire: &mut Wire, bytes: &[u8]| {
        wire.errors.clear();
        wire.ask(bytes);
        wire.errors.iter().any(|error| error.contains("53200") && error.contains("DEALLOCATE"))
    };
    let parsed = |name: &str, text: &str| [parse(name, text), sync.clone()].concat();
    let mut a = Wire::agent(stack.port);

    assert!(!refused(&mut a, &parsed("a", &long("a"))));
    assert!(!refused(&mut a, &parsed("b", &long("b"))));
    for name in 0..20 {
        assert!(!refused(&mut a, &parsed(&format!("again{name}"), &long("b"))), "the same text again");
    }
    assert!(refused(&mut a, &parsed("c", &long("c"))), "{:?}", a.errors);
    assert!(refused(&mut a, &query(&format!("prepare d as {}", long("d")))), "{:?}", a.errors);
    assert!(
        refused(&mut a, &query(&format!("declare e cursor with hold for {}", long("e")))),
        "{:?}",
        a.errors
    );
    assert!(refused(&mut a, &query(&format!("prepare f as select 1; {}", long("f")))), "{:?}", a.errors);
    assert!(!refused(&mut a, &query(&long("not kept"))), "{:?}", a.errors);
    assert!(!refused(&mut a, &parsed("", &long("unnamed"))), "{:?}", a.errors);
    assert!(!refused(&mut a, &query("prepare small as select 1")), "{:?}", a.errors);
    a.ask(&query("deallocate a"));
    assert!(!refused(&mut a, &query(&format!("prepare d as {}", long("d")))), "{:?}", a.errors);
    a.ask(&query("deallocate all"));

    // A portal keeps its text when its statement is closed.
    a.ask(&query("begin"));
    for portal in ["p", "q"] {
        let bound = [parse("", &long(portal)), bind(portal, "", &[]), sync.clone()].concat();
        assert!(!refused(&mut a, &bound), "{:?}", a.errors);
    }
    assert!(refused(&mut a, &[parse("", &long("r")), bind("r", "", &[]), sync.clone()].concat()));
    a.ask(&query("rollback"));
    assert!(!refused(&mut a, &parsed("c", &long("c"))), "{:?}", a.errors);

    // And all sessions of an agent together.
    let mut b = Wire::agent(stack.port);
    assert!(!refused(&mut a, &parsed("d", &long("d"))), "{:?}", a.errors);
    assert!(!refused(&mut b, &parsed("a", &long("e"))), "{:?}", b.errors);
    assert!(refused(&mut b, &parsed("b", &long("f"))), "{:?}", b.errors);
    assert!(b.errors.iter().any(|error| error.contains("this agent")), "{:?}", b.errors);
    a.ask(&[close('S', "c"), sync.clone()].concat());
    assert!(!refused(&mut b, &parsed("b", &long("f"))), "{:?}", b.errors);
}

#[test]
fn one_text_executes_a_name_often_and_only_so_many_names() {
    use wire::{Wire, query};
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("prepare p as select 1"));
    let said = agent.ask(&query(&"execute p;".repeat(3_000)));
    assert!(agent.errors.is_empty() && said.matches('C').count() >= 3_000, "{:?}", agent.errors);

    let prepare: String = (0..1_100).map(|name| format!("prepare p{name} as select 1;")).collect();
    agent.ask(&query(&prepare));
    let some: String = (0..900).map(|name| format!("execute p{name};")).collect();
    agent.ask(&query(&some));
    assert!(agent.errors.is_empty(), "{:?}", agent.errors);
    let too_many: String = (0..1_100).map(|name| format!("execute p{name};")).collect();
    agent.ask(&query(&too_many));
    assert!(agent.errors.iter().any(|error| error.contains("54000")), "{:?}", agent.errors);
}

/// A secret's word beside code made the proxy show and keep something else than what ran.
#[test]
fn a_word_that_says_secret_hides_no_code_from_reviewers_and_the_ledger() {
    let stack = Stack::with(&Setup { sql: "CREATE TABLE v_0 (i int); CREATE TABLE v_1 (i int); ALTER TABLE v_0 OWNER TO app; ALTER TABLE v_1 OWNER TO app".to_owned(), ..Setup::default() });
    for (table, statement) in [
        ("v_0", "DO $$ begin perform 1; /* no password '*/ drop table v_0; /*'*/ end $$"),
        ("v_1", "DO E'begin /* token \\'*/ drop table v_1; /*\\'*/ end'"),
    ] {
        let waiting = stack.psql_start(&[statement]);
        let request = stack.request();
        let shown = request["sql"].as_str().unwrap().to_owned();
        assert!(shown.contains(&format!("drop table {table}")), "{shown}");
        stack.approve(BOB, &request);
        let output = waiting.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    for entry in stack.entries("statement", 2) {
        let kept = entry["texts"]["sql"].to_string();
        assert!(!kept.contains("DO ") || kept.contains("drop table v_"), "{kept}");
    }
}

#[test]
fn a_secret_inside_code_is_refused_with_what_to_do_and_in_no_file() {
    let mut stack = stack();
    stack.superuser("create function dblink_exec(text, text) returns text language sql as 'select $2'");
    let script = r#"
import psycopg
def refused(run):
    try:
        run()
    except psycopg.errors.FeatureNotSupported as error:
        print(error.diag.message_primary, "/", error.diag.message_hint)
    else:
        raise SystemExit("it ran")
with session() as s:
    refused(lambda: s.execute("COPY (select 1) TO PROGRAM 'curl -u bob:S3C-01 https://backup.example'"))
    refused(lambda: s.execute("DO $$ begin alter role app password 'S3C-02'; end $$"))
    refused(lambda: s.execute("SET app.password = 'S3C-03 drop table canary'"))
    refused(lambda: s.execute("select dblink_exec('c', %s)", ["alter role app password 'S3C-04'"]))
    for bound in [("select dblink_connect(%s)", ["host=h user=u password=S3C-05"]), ("select crypt(%b, %s)", ["S3C-06", "x"])]:
        attempt(lambda: s.execute(*bound))
    for sql in ["ALTER ROLE app PASSWORD 'S3C-07", "CREATE USER bob IDENTIFIED BY 'S3C-08'", "SET app.db_password = 'S3C-09'",
                "SELECT dblink_connect('host=h password=' || 'S3C-10')", "SET countersign.task = 'use the password S3C-11'",
                "ALTER ROLE app PASSWORD 'S3C-12'", "drop table canary /*task='password%3DS3C-13'*/"]:
        attempt(lambda: s.execute(sql))
"#;
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("among the arguments of a program") && told.contains("~/.pgpass"), "{told}");
    assert!(told.contains("inside code") && told.contains("by itself"), "{told}");
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(stack.stop_proxy().success());
    for entry in std::fs::read_dir(stack.path("ledger")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let text = String::from_utf8_lossy(&bytes);
        if let Some(at) = text.find("S3C-") {
            panic!("{}: {}", path.display(), &text[at..at + 6]);
        }
    }
    assert!(!stack.log().contains("S3C-"), "{}", stack.log());
}

/// A schema behind a rule that denies, tables of the same names before it, and functions that lead there.
const BEHIND_A_RULE: &str = r#"
    CREATE SCHEMA audit; CREATE SCHEMA "Sales"; CREATE SCHEMA "a, b"; CREATE SCHEMA elsewhere;
    CREATE TABLE public.people (id int, name text); CREATE TABLE audit.people (id int, name text);
    CREATE TABLE "Sales".people (id int, name text); CREATE TABLE "a, b".people (id int, name text);
    INSERT INTO audit.people SELECT n, 'x' FROM generate_series(1, 99) n;
    INSERT INTO "Sales".people SELECT n, 'x' FROM generate_series(1, 99) n;
    INSERT INTO "a, b".people SELECT n, 'x' FROM generate_series(1, 99) n;
    CREATE FUNCTION moves() RETURNS text LANGUAGE sql STABLE AS $$ SELECT set_config('search_path', 'audit', false) $$;
    CREATE FUNCTION moves_by_name(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT set_config(name, 'audit', false) $$;
    CREATE FUNCTION calls() RETURNS text LANGUAGE sql STABLE AS $$ SELECT moves() $$;
    CREATE FUNCTION with_own_path() RETURNS text LANGUAGE sql STABLE SET search_path = public
        AS $$ SELECT set_config('search_path', 'audit', false) $$;
    CREATE FUNCTION atomic() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT set_config('search_path', 'audit', false); END;
    CREATE FUNCTION dynamic(int) RETURNS int LANGUAGE plpgsql STABLE
        AS $$ BEGIN EXECUTE 'SET sea' || 'rch_path = audit'; RETURN $1; END $$;
    CREATE FUNCTION dynamic(int, int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN dynamic($1); END $$;
    CREATE FUNCTION quiet(int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN dynamic($1); END $$;
    CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM dynamic(1); RETURN NEW; END $$;
    CREATE OPERATOR public.@+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = dynamic);
    CREATE VIEW seen AS SELECT dynamic(1); CREATE VIEW seen_through AS SELECT * FROM seen;
    CREATE TABLE fired (a int); CREATE TRIGGER t BEFORE INSERT ON fired FOR EACH ROW EXECUTE FUNCTION fires();
    CREATE TABLE parent (a int) PARTITION BY RANGE (a); CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9);
    CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION fires();
    CREATE TABLE defaulted (a int, b int DEFAULT dynamic(2)); CREATE TABLE checked (a int CHECK (quiet(a) > 0));
    CREATE DOMAIN small AS int CHECK (quiet(VALUE) > 0); CREATE TABLE of_domain (a small);
    CREATE TABLE filtered (a int); ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
    INSERT INTO filtered VALUES (1); CREATE POLICY p ON filtered USING (quiet(a) > 0);
    CREATE TABLE held_by (k int PRIMARY KEY); CREATE TABLE holds (k int REFERENCES held_by ON DELETE CASCADE);
    CREATE FUNCTION fires_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM dynamic(1); RETURN OLD; END $$;
    CREATE TRIGGER t BEFORE DELETE ON holds FOR EACH ROW EXECUTE FUNCTION fires_late();
    INSERT INTO held_by VALUES (1); INSERT INTO holds VALUES (1);
    GRANT ALL ON ALL TABLES IN SCHEMA public, audit, "Sales", "a, b" TO app;
    GRANT USAGE ON SCHEMA audit, "Sales", "a, b", elsewhere TO app;
"#;

const BEHIND_A_RULE_POLICY: &str = r#"
safe_functions = ["public.dynamic"]

[[rule]]
name = "stays"
when = { table = ["audit.*", '"Sales".*', '"a, b".*'] }
then = "deny"
"#;

fn behind_a_rule(version: u32) -> Stack {
    Stack::with(&Setup {
        sql: BEHIND_A_RULE.to_owned(),
        policy: Some(BEHIND_A_RULE_POLICY.to_owned()),
        version,
        ..Setup::default()
    })
}

fn deferring(stack: &Stack) -> wire::Wire {
    let parameters =
        [("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")];
    wire::Wire::connect(stack.port, &parameters, support::TOKEN)
}

/// What is deleted by its plain name is in no schema that the rule keeps, whatever came before it.
fn deletes_nothing(stack: &Stack, ways: &[(&str, Vec<Vec<u8>>)]) {
    let left = "SELECT (SELECT count(*) FROM audit.people) + (SELECT count(*) FROM \"Sales\".people) + (SELECT count(*) FROM \"a, b\".people)";
    for (name, before) in ways {
        let mut agent = deferring(stack);
        for message in before {
            agent.ask(message);
        }
        for id in 1..3 {
            agent.ask(&wire::query(&format!("DELETE FROM people WHERE id = {id}")));
        }
        assert_eq!(stack.superuser(left), "297", "{name}: deleted against a rule; {:?}", agent.errors);
    }
}

/// The path is what the server says, never what a statement said that it would be.
#[test]
fn a_rule_by_table_holds_however_the_search_path_got_where_it_is() {
    let query = |sql: &str| wire::query(sql);
    let set = "SELECT set_config('search_path', 'audit', false)";
    let some_rows = |sql: &str| {
        [wire::parse("", sql), wire::bind("", "", &[]), wire::execute("", 1), wire::sync()].concat()
    };
    let bound = [wire::parse("", set), wire::bind("p", "", &[]), wire::sync()].concat();
    let several = |sql: &[&str]| sql.iter().map(|sql| wire::query(sql)).collect::<Vec<_>>();
    let one = |sql: &str| vec![wire::query(sql)];
    for version in [15, 18] {
        let stack = behind_a_rule(version);
        deletes_nothing(
            &stack,
            &[
                ("a quoted name", one("SET search_path = \"Sales\"")),
                ("a quoted name in a literal", one("SET search_path = 'Sales'")),
                ("a comma in a name", one("SET search_path = 'a, b'")),
                ("an escaped name", one("SET search_path = U&\"\\0053ales\"")),
                ("SET SCHEMA", one("SET SCHEMA 'Sales'")),
                ("SET SESSION", one("SET SESSION search_path TO audit, \"Sales\"")),
                ("one text", one("SET search_path = audit; DELETE FROM people WHERE id = 3")),
                ("set_config", one("SELECT set_config('search_path', '\"Sales\"', false)")),
                ("set_config, not local by a word", one("SELECT set_config('search_path', 'audit', 'off')")),
                ("set_config, not local by NULL", one("SELECT set_config('search_path', 'audit', NULL)")),
                (
                    "set_config, not local by a cast",
                    one("SELECT set_config('search_path', 'audit', 0::bool)"),
                ),
                (
                    "set_config, not local by a query",
                    one("SELECT set_config('search_path', 'audit', (SELECT false))"),
                ),
                (
                    "set_config by another case",
                    one("SELECT pg_catalog.set_config('Search_Path', 'audit', false)"),
                ),
                (
                    "a local path that is not lasting",
                    several(&[
                        "SET search_path = audit",
                        "SELECT set_config('search_path', 'elsewhere', 't')",
                        "SELECT set_config('search_path', 'elsewhere', 'yes')",
                        "SELECT set_config('search_path', 'elsewhere', 1::bool)",
                        "SET LOCAL search_path = elsewhere",
                    ]),
                ),
                (
                    "bound values",
                    vec![
                        [
                            wire::extended("SELECT set_config($1, $2, $3)", &["search_path", "audit", "f"]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                (
                    "a prepared statement",
                    vec![[wire::parse("s", set), wire::sync()].concat(), query("EXECUTE s")],
                ),
                ("a row limit", vec![some_rows(set)]),
                (
                    "FETCH from a portal",
                    vec![query("BEGIN"), bound.clone(), query("FETCH 1 FROM p"), query("COMMIT")],
                ),
                (
                    "MOVE in a portal",
                    vec![query("BEGIN"), bound.clone(), query("MOVE 1 IN p"), query("COMMIT")],
                ),
                (
                    "a portal that is left suspended",
                    vec![query("BEGIN"), bound.clone(), [wire::execute("p", 1), wire::sync()].concat()],
                ),
                (
                    "a rollback",
                    several(&["SET search_path = audit", "BEGIN", "SET search_path = elsewhere", "ROLLBACK"]),
                ),
                (
                    "a rollback to a savepoint",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SAVEPOINT a",
                        "SET LOCAL search_path = elsewhere",
                        "ROLLBACK TO a",
                    ]),
                ),
                (
                    "the end of SET LOCAL",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SET LOCAL search_path = elsewhere",
                        "COMMIT",
                    ]),
                ),
                (
                    "a transaction that fails",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SET search_path = elsewhere",
                        "SELECT 1/0",
                        "COMMIT",
                    ]),
                ),
                (
                    "a pipeline that fails",
                    vec![
                        query("SET search_path = audit"),
                        [
                            wire::extended("SET search_path = elsewhere", &[]),
                            wire::extended("SELECT 1/0", &[]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                (
                    "the end of a pipeline",
                    vec![
                        query("SET search_path = audit"),
                        [
                            wire::extended("SELECT set_config('search_path', 'elsewhere', true)", &[]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                ("RESET", several(&["SET search_path = audit", "BEGIN", "RESET search_path", "ROLLBACK"])),
                ("a function", one("SELECT public.moves()")),
                ("a function of a function", one("SELECT public.calls()")),
                ("a function with a path of its own", one("SELECT public.with_own_path()")),
                ("a function with a body of the standard's", one("SELECT public.atomic()")),
                ("a planned function", one("EXPLAIN SELECT public.moves_by_name('search_path')")),
                ("a function that was declared safe", one("SELECT public.dynamic(1)")),
                ("an attribute", one("SELECT (1).dynamic")),
                ("an operator", one("SELECT 1 OPERATOR(public.@+@) 2")),
                ("a view", one("SELECT * FROM public.seen")),
                ("a view of a view", one("SELECT * FROM public.seen_through")),
                ("a cursor", several(&["BEGIN", "DECLARE c CURSOR FOR TABLE public.seen", "FETCH 1 FROM c"])),
                ("a trigger", one("INSERT INTO public.fired VALUES (1)")),
                ("a trigger of a partition", one("INSERT INTO public.parent VALUES (1)")),
                ("a default", one("INSERT INTO public.defaulted VALUES (1)")),
                ("a check", one("INSERT INTO public.checked VALUES (1)")),
                ("a column's domain", one("INSERT INTO public.of_domain VALUES (1)")),
                ("a policy", one("SELECT * FROM public.filtered WHERE a = 1")),
                ("a cascade", one("DELETE FROM public.held_by WHERE k = 1")),
                (
                    "a trigger behind COPY",
                    vec![
                        [
                            query("COPY public.fired FROM STDIN"),
                            wire::frame('d', b"1\n"),
                            wire::frame('c', b""),
                        ]
                        .concat(),
                    ],
                ),
            ],
        );
    }
}

/// A reviewer is shown where names are looked up when the statement runs, or that this is not known.
#[test]
fn reviewers_see_the_path_that_the_server_tells_in_the_middle_of_a_pipeline_too() {
    let stack = Stack::with(&Setup {
        sql: format!("{BEHIND_A_RULE} ALTER TABLE audit.people OWNER TO app;"),
        ..Setup::default()
    });
    let shown = |request: &serde_json::Value| {
        let path = format!("/requests/{}", request["id"].as_str().unwrap());
        stack.api(BOB, "GET", &path, None).1.to_string()
    };
    let drop = [wire::extended("DROP TABLE people", &[]), wire::flush()].concat();
    let run = |sql: &str| [wire::extended(sql, &[]), wire::flush()].concat();
    let set = |path: &str| format!("SELECT set_config('search_path', '{path}', true)");

    // What was set before is asked for, and again before the statement runs.
    let mut agent = wire::Wire::agent(stack.port);
    agent.send(&run(&set("audit")));
    agent.send(&drop);
    let request = stack.request();
    let document = shown(&request);
    assert!(document.contains("search_path = audit"), "{document}");
    stack.approve(BOB, &request);
    agent.send(&wire::sync());
    let answer = agent.until_ready();
    assert!(answer.ends_with("C[DROP TABLE]ZI"), "{answer}");
    assert_eq!(
        stack.superuser("SELECT to_regclass('audit.people') IS NULL, to_regclass('people')"),
        "t|people"
    );

    // What runs before it in the same batch has not run yet.
    let mut agent = wire::Wire::agent(stack.port);
    let moves = wire::extended("SELECT set_config($1, $2, true)", &["search_path", "\"Sales\""]);
    agent.send(&[moves, drop, wire::sync()].concat());
    let request = stack.request();
    let document = shown(&request);
    assert!(document.contains("search_path = (not known"), "{document}");
    stack.answer(BOB, &request, "deny", None);
    assert!(agent.until_ready().contains("E42501"), "{:?}", agent.errors);
}

/// Upstream refuses it while the transaction is read-only. A portal outlives that.
#[test]
fn what_a_read_only_transaction_refuses_is_decided_again_when_its_portal_runs_later() {
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
                let mut agent = deferring(&stack);
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

/// A view hands writes on to the table behind it, under whatever name it stands.
#[test]
fn a_temporary_view_hands_no_write_on_unasked() {
    let views = [
        ("tv", "CREATE TEMP VIEW tv AS SELECT * FROM orders"),
        ("orders", "CREATE TEMP VIEW orders AS SELECT * FROM public.orders"),
        ("tv", "CREATE OR REPLACE TEMPORARY VIEW tv AS SELECT id, amount FROM orders WHERE id > 0"),
        ("tv", "CREATE TEMP VIEW first AS SELECT * FROM orders; CREATE TEMP VIEW tv AS SELECT * FROM first"),
        ("tv", "CREATE VIEW pg_temp.tv AS TABLE orders"),
        ("tv", "BEGIN; CREATE TEMP VIEW tv AS SELECT * FROM orders"),
        ("tv", "CREATE TEMP VIEW other AS SELECT * FROM orders; ALTER VIEW other RENAME TO tv"),
        (
            "tv",
            "PREPARE u AS SELECT 1; CREATE TEMP VIEW tv AS SELECT 1 AS amount; CREATE OR REPLACE TEMP VIEW tv AS SELECT amount FROM orders",
        ),
    ];
    for version in [15, 18] {
        let stack = Stack::with(&Setup { version, superuser: true, ..Setup::default() });
        let untouched = || stack.superuser("SELECT count(*) FROM orders WHERE amount > 0");
        let before = untouched();
        for (place, (name, view)) in views.iter().enumerate() {
            let writes = [
                format!("UPDATE {name} SET amount = -1"),
                format!("UPDATE {name} SET amount = -1 WHERE amount = 5"),
                format!("DELETE FROM {name}"),
                format!("DELETE FROM pg_temp.{name}"),
                format!("UPDATE pg_temp.{name} SET amount = -1"),
                format!("WITH x AS (DELETE FROM {name} RETURNING 1) SELECT count(*) FROM x"),
                format!("PREPARE w AS DELETE FROM {name}; EXECUTE w"),
            ];
            for (number, write) in writes.iter().enumerate() {
                // Each session reads the catalogue anew, so each view meets each write in one way only.
                let way = match (place + number) % 6 {
                    0 => vec![wire::query(view), wire::query(write)],
                    1 => vec![wire::query(&format!("{view}; {write}"))],
                    2 => vec![wire::query(view), [wire::extended(write, &[]), wire::sync()].concat()],
                    _ => continue,
                };
                let way = if version == 18 && place > 2 { continue } else { way };
                let mut agent = deferring(&stack);
                for message in &way {
                    agent.ask(message);
                }
                agent.ask(&wire::query("COMMIT"));
                assert_eq!(untouched(), before, "{version}: {view}: {write}: {:?}", agent.errors);
            }
        }
        // One over the settings sets any of them.
        for (name, after) in [
            ("tv", "UPDATE tv SET setting = 'replica' WHERE name = 'session_replication_role'"),
            ("tv", "UPDATE pg_temp.tv SET setting = 'replica' WHERE name = 'session_replication_role'"),
            ("orders", "UPDATE orders SET setting = 'replica' WHERE name = 'session_replication_role'"),
        ] {
            let mut agent = deferring(&stack);
            for begin in ["SELECT 1", "BEGIN"] {
                agent.ask(&wire::query(begin));
                agent.ask(&wire::query(&format!("CREATE TEMP VIEW {name} AS SELECT * FROM pg_settings")));
                agent.ask(&wire::query(after));
                agent.ask(&[wire::extended(after, &[]), wire::sync()].concat());
                agent.ask(&wire::query("COMMIT"));
                assert_eq!(
                    agent.numbers("SELECT (current_setting('session_replication_role') = 'origin')::int"),
                    [1],
                    "{version}: {after}"
                );
            }
        }
    }
}

/// Upstream is asked whether a name is that of such a view.
#[test]
fn a_session_with_a_temporary_view_goes_on_writing_to_its_tables() {
    let stack = Stack::with(&Setup { superuser: true, ..Setup::default() });
    let mut agent = deferring(&stack);
    let passes = |agent: &mut wire::Wire, bytes: &[u8], expected: &str| {
        assert_eq!(agent.ask(bytes), expected, "{:?}", agent.errors);
    };
    let unit = |sql: &str, values: &[&str]| [wire::extended(sql, values), wire::sync()].concat();
    passes(&mut agent, &wire::query("CREATE TEMP VIEW tv AS SELECT * FROM orders"), "C[CREATE VIEW]ZI");
    passes(&mut agent, &wire::query("UPDATE orders SET amount = amount WHERE id = 5"), "C[UPDATE 1]ZI");
    passes(&mut agent, &unit("UPDATE orders SET amount = $1 WHERE id = $2", &["7", "5"]), "12C[UPDATE 1]ZI");
    passes(&mut agent, &wire::query("BEGIN"), "C[BEGIN]ZT");
    passes(&mut agent, &unit("DELETE FROM orders WHERE id = $1", &["6"]), "12C[DELETE 1]ZT");
    passes(&mut agent, &wire::query("ROLLBACK"), "C[ROLLBACK]ZI");
    passes(&mut agent, &wire::query("CREATE TEMP TABLE stage (id int)"), "C[CREATE TABLE]ZI");
    passes(&mut agent, &wire::query("INSERT INTO stage VALUES (1), (2)"), "C[INSERT 0 2]ZI");
    passes(&mut agent, &wire::query("DELETE FROM stage"), "C[DELETE 2]ZI");
    passes(&mut agent, &unit("DELETE FROM pg_temp.stage WHERE id = 1", &[]), "12C[DELETE 0]ZI");
    passes(&mut agent, &wire::query("DROP VIEW tv"), "C[DROP VIEW]ZI");
    assert!(stack.waiting().is_empty());
}

/// Parts of a unit are rounded to whole ones of the next smaller, and none at all is no limit.
#[test]
fn no_spelling_of_a_timeout_gets_past_the_operators_guard() {
    let sql = "ALTER ROLE app SET statement_timeout = '30s'";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let mut agent = deferring(&stack);
    let numbers = [
        "0", "1", "0.4", "0.5", "0.51", "1.5", "2.5", "0.0001", "0.0005", "0.0083", "0.0084", "0.008333",
        "0.499999", "0.00034", "0.00035", "29.9999", "30", "30.0004", "30.5", "30000", "30000.5", ".5",
        "5e3", "0x10", "010", "-1", "+5", " 5 ", "1_000",
    ];
    let mut passed = 0;
    for number in numbers {
        for unit in ["", "us", "ms", "s", "min", "h", "d", " ms", "MS"] {
            let value = format!("{number}{unit}");
            let set = format!("SET statement_timeout = '{value}'");
            let literal = format!("SET LOCAL statement_timeout = {number}");
            let call = format!("SELECT set_config('statement_timeout', '{value}', true)");
            for sql in [&set, &literal, &call] {
                agent.ask(&wire::query("BEGIN"));
                passed += usize::from(agent.ask(&wire::query(sql)).starts_with('C'));
                if agent.ask(&wire::query("SELECT 1")).contains('E') {
                    agent.ask(&wire::query("ROLLBACK"));
                    continue;
                }
                let limit =
                    agent.numbers("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'");
                assert!((1..=30_000).contains(&limit[0]), "{sql}: {limit:?}");
                agent.ask(&wire::query("ROLLBACK"));
            }
        }
    }
    assert!(passed > 100, "{passed}");
}

/// A unit is forwarded whole, long after its first statement was decided if a later one waits.
#[test]
fn what_was_decided_of_a_batch_does_not_outlast_the_policy_while_the_rest_of_it_waits() {
    let mut stack = Stack::with(&Setup {
        sql: "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1); ALTER TABLE kept OWNER TO app".into(),
        ..Setup::default()
    });
    let load = |policy: &str| {
        let before = stack.log().matches("policies loaded").count();
        std::fs::write(stack.path("policies/later.toml"), policy).unwrap();
        wait_for("it is loaded", || stack.log().matches("policies loaded").count() > before);
    };
    let deny = "[[rule]]\nname = 'freeze'\nwhen = { class = ['ddl', 'write'] }\nthen = 'deny'\n";
    // What was approved, and what nobody had to approve.
    for first in ["DROP TABLE kept", "DELETE FROM kept WHERE id = 1"] {
        let mut agent = wire::Wire::agent(stack.port);
        let unit = [wire::extended(first, &[]), wire::extended("TRUNCATE orders", &[]), wire::sync()];
        agent.send(&unit.concat());
        if first.starts_with("DROP") {
            let request = stack.request();
            assert!(request.to_string().contains("kept"), "{request}");
            stack.approve(BOB, &request);
            wait_for("the next one waits", || {
                stack.waiting().first().is_some_and(|next| next["id"] != request["id"])
            });
        }
        let request = stack.request();
        load(deny);
        stack.approve(BOB, &request);
        let seen = agent.until_ready();
        assert!(seen.contains("E57014ZI"), "{first}: {seen}");
        assert!(agent.errors.last().unwrap().contains("have changed"), "{:?}", agent.errors);
        assert_eq!(stack.superuser("select count(*) from kept"), "1", "{first}");
        assert_eq!(stack.superuser("select count(*) from orders"), "1000", "{first}");
        load("");
        // Sent again, it is decided anew; and where nothing changes, both run.
        agent.send(&unit.concat());
        while stack.superuser("select count(*) from orders") == "1000" {
            if let Some(request) = stack.waiting().first() {
                stack.approve(BOB, request);
            }
        }
        let seen = agent.until_ready();
        assert!(!seen.contains("E5") && seen.ends_with("ZI"), "{seen}: {:?}", agent.errors);
        stack.superuser("insert into orders (id, amount) select g, g from generate_series(1, 1000) g");
        stack.superuser("create table if not exists kept (id int); alter table kept owner to app; delete from kept; insert into kept values (1)");
    }
    stack.assert_verifies();
}

/// What runs before a statement in its batch decides what it does, so reviewers see all of it.
#[test]
fn all_that_runs_before_a_held_statement_in_its_batch_is_shown_or_it_is_refused() {
    let stack = Stack::start();
    let batch = |before: &[String]| {
        let before = before.iter().map(|sql| wire::extended(sql, &[]));
        [before.collect::<Vec<_>>().concat(), wire::extended("DROP TABLE orders", &[]), wire::sync()].concat()
    };
    let path = "SET search_path = elsewhere".to_owned();
    let reads = |count: usize| (0..count).map(|number| format!("SELECT {number}"));
    let mut agent = wire::Wire::agent(stack.port);

    agent.send(&batch(&std::iter::once(path.clone()).chain(reads(60)).collect::<Vec<_>>()));
    let request = stack.request();
    let id = request["id"].as_str().unwrap();
    let (_, shown) = stack.api(BOB, "GET", &format!("/requests/{id}"), None);
    assert!(shown.to_string().contains("SET search_path = elsewhere"), "{shown}");
    stack.answer(BOB, &request, "deny", Some("no"));
    assert!(agent.until_ready().contains("E42501"));

    let long = format!("SELECT '{}'", "x".repeat(70_000));
    for before in [std::iter::once(path.clone()).chain(reads(120)).collect(), vec![path, long]] {
        let seen = agent.ask(&batch(&before));
        assert!(seen.contains("E42501"), "{seen}");
        assert!(agent.errors.last().unwrap().contains("too much comes before it"), "{:?}", agent.errors);
    }
    assert!(stack.waiting().is_empty());
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
}

/// Behind more than the proxy reads ahead, nobody sees the connection end.
#[test]
fn an_agent_that_sends_too_much_to_be_seen_leaving_runs_nothing_later() {
    let mut stack = Stack::start();
    let hold = || {
        let mut agent = wire::Wire::agent(stack.port);
        agent.send(&wire::query("DROP TABLE orders"));
        let request = stack.request();
        // As much as the sockets and the proxy take.
        let more = wire::query(&format!("SELECT '{}'", "x".repeat(60_000)));
        while agent.try_send(&more).is_ok() {}
        (agent, request)
    };
    for leaves in [true, false] {
        let (agent, request) = hold();
        let agent = if leaves { None } else { Some(agent) };
        stack.answer(BOB, &request, "approve", None);
        wait_for("it does not wait any more", || stack.waiting().is_empty());
        let state = || stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
        wait_for("it is withdrawn", || state().1["state"] == "withdrawn");
        assert_eq!(stack.superuser("select count(*) from orders"), "1000");
        drop(agent);
    }
    stack.assert_verifies();
}
