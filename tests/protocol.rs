//! Real servers and real clients: what agents see of the protocol.
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

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use support::{AGENT, BOB, Setup, Stack, TOKEN, signal, text, wait_for};
use wire::Wire;

/// Denies what the tests need denied at once, so that no reviewer has to answer.
const DENY_DROP: &str = r#"
[[rule]]
name = "no-ddl"
when = { class = ["ddl"] }
then = "deny"
message = "not by an agent"
"#;

fn denying() -> Stack {
    Stack::with(&Setup { policy: Some(DENY_DROP.to_owned()), ..Setup::default() })
}

fn on(version: u32) -> Stack {
    Stack::with(&Setup { policy: Some(DENY_DROP.to_owned()), version, ..Setup::default() })
}

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
fn a_denied_statement_has_a_code_a_detail_and_a_hint_and_the_session_goes_on() {
    let stack = denying();

    let output = stack.psql(&["\\set VERBOSITY verbose", "drop table orders", "select 1"]);

    let shown = text(&output);
    assert!(shown.contains("ERROR:  42501: statement denied by rule \"no-ddl\""), "{shown}");
    assert!(shown.contains("DETAIL:  not by an agent"), "{shown}");
    assert!(shown.contains("HINT:"), "{shown}");
    assert!(shown.starts_with("1\n") || shown.contains("\n1\n"), "{shown}");
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
}

/// P5: agent, proxy and upstream agree on the transaction after a denial.
#[test]
fn p5_after_a_denial_the_transaction_is_failed_and_savepoints_work() {
    let stack = denying();
    let script = r#"
import sys, psycopg
from psycopg.pq import TransactionStatus as T
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    c.execute("begin")
    c.execute("insert into orders values (2001, 1, 1)")
    c.execute("savepoint s")
    try:
        c.execute("drop table orders")
        raise SystemExit("not denied")
    except psycopg.errors.InsufficientPrivilege as e:
        print(e.diag.sqlstate, e.diag.message_primary)
    print(c.info.transaction_status == T.INERROR)
    try:
        c.execute("select 1")
    except psycopg.errors.InFailedSqlTransaction:
        print("failed")
    c.execute("rollback to s")
    print(c.info.transaction_status == T.INTRANS)
    c.execute("insert into orders values (2002, 1, 1)")
    c.execute("commit")
    print(c.execute("select count(*) from orders where id > 2000").fetchone()[0])
"#;

    let output = stack.python(script, &[]);

    assert_eq!(text(&output), "42501 statement denied by rule \"no-ddl\"\nTrue\nfailed\nTrue\n2\n");
}

#[test]
fn a_denial_inside_a_pipeline_fails_the_rest_of_it_and_nothing_of_its_implicit_transaction_stays() {
    let stack = denying();
    let script = r#"
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    try:
        with c.pipeline() as p:
            a = c.execute("insert into orders values (%s, 1, 1)", (3001,))
            b = c.execute("drop table customers")
            d = c.execute("insert into orders values (%s, 1, 1)", (3002,))
            p.sync()
    except psycopg.errors.InsufficientPrivilege as e:
        print("denied")
    print(c.execute("select count(*) from orders where id > 3000").fetchone()[0])
    with c.pipeline() as p:
        r = [c.execute("select %s::int", (n,)) for n in range(50)]
    print(sum(x.fetchone()[0] for x in r))
"#;

    let output = stack.python(script, &[]);

    assert_eq!(text(&output), "denied\n0\n1225\n");
}

#[test]
fn one_line_of_the_servers_log_names_a_denial_and_nothing_of_the_statement() {
    let stack = denying();

    stack.psql(&["drop table orders /* marker-of-the-agent */"]);

    let log = stack.server_log();
    assert!(!log.contains("marker-of-the-agent"), "the denied text never reached upstream");
    let lines =
        log.lines().filter(|line| line.contains("ERROR:") && line.contains("countersign_denied_by_policy"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn asyncpg_prepares_binds_copies_and_cancels() {
    let stack = denying();
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

/// What no server parses, and what only servers of other versions than our grammar's do.
const UNPARSED: [&str; 9] = [
    "\\set VERBOSITY verbose",
    "selec 1",
    "select 1; selec 2; select 3",
    r"select U&'wrong: \061'",
    "drop operator === (int4)",
    "create publication p for current_schema",
    "alter table orders alter constraint c not valid",
    "select 'open",
    "select 1_2_3, 0x",
];

/// Its catalogue is read, what it knows is told apart, and a held statement runs once it is approved.
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
        // Before, it is a call of a function that nobody knows.
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
fn what_does_not_parse_is_told_in_upstreams_own_words() {
    for version in [15, 18] {
        let stack = on(version);
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
fn what_upstream_parses_and_we_cannot_is_held_as_something_unknown() {
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
fn upstream_calls_a_session_what_the_agent_calls_itself_if_the_operator_wants_that() {
    let verifier = countersign::identity::ScramVerifier::of_password(TOKEN);
    let config = format!(
        "\n[[upstream]]\nname = \"named\"\nhost = \"127.0.0.1\"\nport = {{port}}\ndatabase = \"postgres\"\nuser = \"app\"\n\
         password_file = \"upstream-password\"\napplication_name = \"agent\"\n\
         [[agent]]\nname = \"named-bot\"\nowner = \"alice@example.com\"\nverifier = \"{verifier}\"\nupstreams = [\"named\"]\n"
    );
    let stack = Stack::with(&Setup { config, ..Setup::default() });
    let name = |url: &str| {
        let url = format!("{url}?application_name=month-end");
        text(&stack.psql_command(&url).args(["-c", "show application_name"]).output().unwrap())
    };

    assert!(name(&stack.url()).starts_with("countersign reporting-bot "), "unless told otherwise");
    let named = format!("postgresql://named-bot:{TOKEN}@127.0.0.1:{}/named", stack.port);
    assert_eq!(name(&named), "month-end\n");
}

#[test]
fn copy_in_streams_and_fails_as_without_the_proxy() {
    for version in [15, 18] {
        let stack = on(version);
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
fn a_wrong_password_and_an_unknown_agent_are_told_the_same() {
    let stack = Stack::start();
    let told = |user: &str, password: &str| {
        let url = format!("postgresql://{user}:{password}@127.0.0.1:{}/app", stack.port);
        let output = stack.psql_command(&url).args(["-c", "select 1"]).output().unwrap();
        assert!(!output.status.success());
        text(&output).replace(user, "USER")
    };

    let wrong = told(AGENT, "wrong");
    let unknown = told("nobody-here", "wrong");

    assert!(wrong.contains("password authentication failed for user \"USER\""), "{wrong}");
    assert_eq!(wrong, unknown);
}

#[test]
fn a_database_that_is_no_upstream_of_the_agents_does_not_exist() {
    let stack = Stack::start();
    let url = format!("postgresql://{AGENT}:{TOKEN}@127.0.0.1:{}/postgres", stack.port);

    let output = stack.psql_command(&url).args(["-c", "select 1"]).output().unwrap();

    assert!(text(&output).contains("database \"postgres\" does not exist"), "{}", text(&output));
}

#[test]
fn an_upstream_that_is_down_is_named() {
    let mut stack = Stack::start();
    stack.cluster.crash();

    let output = stack.psql(&["select 1"]);

    assert!(text(&output).contains("could not connect to upstream \"app\""), "{}", text(&output));
}

#[test]
fn an_upstream_that_dies_ends_the_session_with_its_own_words_or_ours() {
    let mut stack = Stack::start();
    let mut psql = stack.psql_start(&["select pg_sleep(30) from customers limit 1"]);
    // pg_sleep is not harmless to everyone, so it may be held; either way the session is there.
    wait_for("the session runs", || stack.log().contains("session begun"));
    std::thread::sleep(Duration::from_millis(300));

    stack.cluster.crash();
    let mut shown = String::new();
    psql.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    psql.wait().unwrap();

    let told = [
        "terminating connection",
        "could not connect to upstream",
        "was lost",
        "server closed the connection",
    ];
    assert!(told.iter().any(|words| shown.contains(words)), "{shown}");
}

#[test]
fn start_up_parameters_outside_the_list_are_refused_by_name() {
    let stack = Stack::start();
    let told = |options: &str| {
        let mut psql = stack.psql_command(&stack.url());
        text(&psql.env("PGOPTIONS", options).args(["-c", "show statement_timeout"]).output().unwrap())
    };

    assert!(
        told("-c session_replication_role=replica").contains("\"session_replication_role\" is not accepted")
    );
    assert!(told("-c role=postgres").contains("\"role\" is not accepted"));
    assert_eq!(told("-c statement_timeout=5s -c countersign.model=test"), "5s\n");
}

#[test]
fn a_psql_in_another_locale_gets_utf8_all_the_same() {
    let stack = Stack::start();
    let mut psql = stack.psql_command(&stack.url());

    let output = psql
        .env("LC_ALL", "C")
        .env("PGCLIENTENCODING", "LATIN1")
        .args(["-c", "show client_encoding"])
        .output();

    assert_eq!(text(&output.unwrap()), "UTF8\n");
}

#[test]
fn tls_is_offered_and_verified_with_channel_binding() {
    let stack = Stack::with(&Setup { tls: true, ..Setup::default() });
    let certificate = stack.path("server.crt");
    let url = format!(
        "postgresql://{AGENT}:{TOKEN}@localhost:{}/app?sslmode=verify-full&sslrootcert={}&channel_binding=require",
        stack.port,
        certificate.display()
    );

    let output = stack.psql_command(&url).args(["-c", "select 'over tls'"]).output().unwrap();

    assert_eq!(text(&output), "over tls\n");
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
fn replication_is_refused() {
    let stack = Stack::start();
    let url = format!("{}?replication=database", stack.url());
    let output = stack.psql_command(&url).args(["-c", "IDENTIFY_SYSTEM"]).output().unwrap();
    assert!(text(&output).contains("replication is not supported"), "{}", text(&output));
}

#[test]
fn large_objects_move_by_the_fast_path_and_are_decided_as_the_select_that_does_the_same() {
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
        let stack = on(version);
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
fn what_upstream_says_while_the_proxy_logs_in_reaches_the_agent() {
    let sql = "
        CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE NOTICE 'welcome, %', session_user; END $$;
        CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION greet();";
    let stack = Stack::with(&Setup { version: 18, sql: sql.into(), ..Setup::default() });
    let mut agent = Wire::agent(stack.port);
    let [greeting] = &*agent.notices else { panic!("{:?}", agent.notices) };
    assert!(greeting.contains("Mwelcome, app"), "{greeting}");
    assert_eq!(agent.ask(&wire::query("SELECT 1")), "TDC[SELECT 1]ZI");
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

#[test]
fn malformed_bytes_are_told_closed_and_counted() {
    use std::io::Write as _;
    let stack = Stack::start();
    // Before anybody has said who they are, there is nobody to tell.
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap();
    socket.set_read_timeout(Some(support::SOON)).unwrap();
    socket.write_all(b"\xff\xff\xff\xffgarbage").unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty());
    wait_for("it is in the log", || stack.log().contains("malformed start-up"));

    let script = r#"
import os, socket, sys, psycopg
malformed = {
    "unknown type": b"\x01\0\0\0\x04",
    "length below 4": b"Q\0\0\0\x03",
    "negative length": b"Q\xff\xff\xff\xff",
    "no terminator": b"Q\0\0\0\x05x",
    "text after the terminator": b"Q\0\0\0\x0eselect 1\0x",
    "too many parameters for its bytes": b"B\0\0\0\x0c\0\0\x7f\xff\0\0\0\0",
}
for name, bytes in malformed.items():
    connection = psycopg.connect(sys.argv[1])
    end = socket.socket(fileno=os.dup(connection.fileno()))
    end.settimeout(10)
    end.sendall(bytes)
    answer = b""
    while True:
        more = end.recv(4096)
        if not more:
            break
        answer += more
    print(name, b"08P01" in answer)
"#;
    let output = stack.python(script, &[]);
    assert_eq!(text(&output).matches(" True").count(), 6, "{}", text(&output));
    assert_eq!(stack.metric("countersign_sessions_malformed_total"), 7);
    assert_eq!(stack.metric("countersign_ledger_healthy"), 1);
}

#[test]
fn a_crowd_that_proves_nothing_is_bounded_and_the_next_is_told() {
    let stack = Stack::start();
    let crowd: Vec<_> =
        (0..256).map(|_| std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap()).collect();
    wait_for("they are all received", || stack.metric("countersign_connections_total") >= 257);

    let mut told = Vec::new();
    wait_for("the next is told", || {
        let mut next = std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap();
        next.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        told.clear();
        let _ = next.read_to_end(&mut told);
        !told.is_empty()
    });

    assert!(String::from_utf8_lossy(&told).contains("53300"), "{told:?}");
    drop(crowd);
    wait_for("there is room again", || text(&stack.psql(&["select 'in'"])).contains("in"));
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

/// Where a transaction stays open behind the status `I`, its locks stay as well.
#[test]
fn a_query_behind_an_execute_without_a_sync_leaves_no_transaction_open() {
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
fn the_ledger_tells_what_was_committed_before_an_error_from_what_was_rolled_back() {
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
    // A connection that is lost: what was committed before is told all the same.
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

/// What a session that starts with these parameters shows of setting `name`, or why there is none.
fn shown_with(
    port: u16,
    user: (&str, &str),
    password: &str,
    start: &[(&str, &str)],
    name: &str,
) -> Result<String, String> {
    let mut parameters = vec![("user", user.0), ("database", user.1)];
    parameters.extend(start);
    let mut session = Wire::try_connect(port, &parameters, password)?;
    session.ask(&wire::query(&format!("SHOW {name}")));
    Ok(session.row)
}

#[test]
fn a_session_may_start_with_whatever_set_may_do_without_asking() {
    let stack = Stack::start();
    let proxied =
        |start: &[(&str, &str)], name: &str| shown_with(stack.port, (AGENT, "app"), TOKEN, start, name);
    let direct = |start: &[(&str, &str)], name: &str| {
        shown_with(stack.cluster.port(), ("app", "postgres"), "upstream-secret", start, name)
    };
    for (name, value) in [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("work_mem", "64MB"),
        ("plan_cache_mode", "force_custom_plan"),
        ("enable_seqscan", "off"),
        ("bytea_output", "escape"),
        ("search_path", "audit,public"),
        ("statement_timeout", "70s"),
    ] {
        for options in [
            format!("-c {name}={value}"),
            format!("-c{name}={value}"),
            format!("--{}={value}", name.replace('_', "-")),
        ] {
            let start = [("options", options.as_str())];
            assert_eq!(proxied(&start, name), direct(&start, name), "{options}");
            assert!(direct(&start, name).is_ok(), "{options}");
        }
        let start = [(name, value)];
        assert_eq!(proxied(&start, name), direct(&start, name), "{name}");
    }
    // Postgres's own precedence.
    for start in [
        &[("work_mem", "1MB"), ("options", "-c work_mem=2MB")][..],
        &[("options", "-c work_mem=2MB"), ("WORK_MEM", "3MB")],
        &[("options", "-c work_mem=2MB -c Work_Mem=4MB")],
        &[("options", "-c work_mem=2MB"), ("options", "-c jit=off")],
        &[("options", r"-c work_mem=\5\M\B")],
        &[("work_mem", "6MB"), ("work_mem", "7MB")],
    ] {
        let (through, without) = (proxied(start, "work_mem"), direct(start, "work_mem"));
        assert!(without.is_ok(), "{start:?}");
        assert_eq!(through, without, "{start:?}");
    }
    // What SET may not do, and what is no setting there.
    for (name, value) in [
        ("role", "postgres"),
        ("session_authorization", "postgres"),
        ("search_path", "pg_temp"),
        ("synchronous_commit", "off"),
        ("app.tenant", "7"),
        ("session_preload_libraries", "x"),
    ] {
        let options = format!("-c {name}={value}");
        for start in [("options", options.as_str()), (name, value)] {
            let refused = proxied(&[start], "work_mem").unwrap_err();
            assert!(refused.contains("C0A000") && refused.contains(name), "{refused}");
        }
    }
    for options in ["-c user=postgres", "-c database=template1", "-c options=-crole=x", "-c replication=true"]
    {
        assert!(proxied(&[("options", options)], "work_mem").unwrap_err().contains("C0A000"), "{options}");
    }
    // A value that the server does not take: its own words, and the upstream is well.
    let refused = proxied(&[("work_mem", "much")], "work_mem").unwrap_err();
    assert!(
        refused.contains("C22023") && refused.contains("invalid value for parameter \"work_mem\""),
        "{refused}"
    );
    assert_eq!(proxied(&[], "work_mem"), direct(&[], "work_mem"));
}

#[test]
fn operators_guards_are_not_switched_off_unasked() {
    let sql = "ALTER ROLE app SET statement_timeout = '50s'; ALTER DATABASE postgres SET default_transaction_read_only = on;
               ALTER ROLE app IN DATABASE postgres SET lock_timeout = '9s'; ALTER ROLE app SET lock_timeout = 0;";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let mut agent = Wire::agent(stack.port);

    for passes in [
        "SET statement_timeout = '50s'",
        "SET statement_timeout = 5000",
        "RESET statement_timeout",
        "SET statement_timeout TO DEFAULT",
        "SELECT set_config('statement_timeout', '4s', false)",
        "RESET ALL",
        "DISCARD ALL",
        "SET lock_timeout = '1s'",
        "SET idle_session_timeout = 0",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN READ ONLY",
        "COMMIT",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION READ ONLY",
        "COMMIT",
    ] {
        let answer = agent.ask(&wire::query(passes));
        assert!(answer.contains("C["), "{passes}: {answer}");
        assert!(!agent.notices.iter().any(|notice| notice.contains("waiting for approval")), "{passes}");
    }
    for held in [
        "SET statement_timeout = 0",
        "SET statement_timeout = '1min'",
        "SET LOCAL lock_timeout = 0",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_catalog.set_config('default_transaction_read_only', 'off', true)",
        "SET default_transaction_read_only = off",
        "SET default_transaction_read_only = false",
        "SET transaction_read_only = off",
        "SET transaction_read_only TO DEFAULT",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "COMMIT; BEGIN READ WRITE; SELECT 1",
    ] {
        agent.send(&wire::query(held));
        let request = stack.request();
        assert_eq!(request["class"], "settings", "{held}: {request}");
        stack.approve(BOB, &request);
        let answer = agent.until_ready();
        assert!(answer.contains("C["), "{held}: {answer}");
        agent.ask(&wire::query("ROLLBACK"));
        wait_for("nothing waits", || stack.waiting().is_empty());
    }
    let check =
        support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();
    let check = text(&check);
    for guard in ["statement_timeout = 50s", "lock_timeout = 9s", "default_transaction_read_only = on"] {
        assert!(check.contains(guard), "{check}");
    }
    // At start-up neither, in whichever way.
    for start in [
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("options", "-c statement_timeout=0"),
        ("options", "--lock-timeout=10s"),
    ] {
        let refused = shown_with(stack.port, (AGENT, "app"), TOKEN, &[start], "work_mem").unwrap_err();
        assert!(refused.contains("C0A000") && refused.contains("loosens"), "{start:?}: {refused}");
    }
    let tighter = [("statement_timeout", "1s"), ("default_transaction_read_only", "on")];
    assert!(shown_with(stack.port, (AGENT, "app"), TOKEN, &tighter, "work_mem").is_ok());
}

/// Where nothing is set there is nothing to loosen.
#[test]
fn an_agent_takes_back_what_it_has_set_itself() {
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    for passes in [
        "SET default_transaction_read_only = on",
        "SET default_transaction_read_only = off",
        "SET statement_timeout = '5s'",
        "SET statement_timeout = 0",
        "BEGIN READ WRITE",
        "SET TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SET LOCAL lock_timeout = 0",
        "ROLLBACK",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    ] {
        let answer = agent.ask(&wire::query(passes));
        assert!(answer.contains("C["), "{passes}: {answer}");
    }
    assert!(stack.waiting().is_empty());
}

#[test]
fn a_held_statement_outlives_the_servers_idle_timers() {
    let sql = "ALTER ROLE app SET idle_in_transaction_session_timeout = '1s'; ALTER ROLE app SET idle_session_timeout = '1s';";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    // Outside and inside a transaction, with the operator's timers and the agent's own, shorter ones.
    for before in [
        vec![],
        vec!["BEGIN"],
        vec!["SET idle_in_transaction_session_timeout = '300ms'", "BEGIN"],
        vec!["BEGIN", "SET LOCAL idle_session_timeout = '300ms'"],
    ] {
        let mut agent = Wire::agent(stack.port);
        for statement in &before {
            agent.ask(&wire::query(statement));
        }
        agent.send(&wire::query("CREATE TABLE held (a int)"));
        let request = stack.request();
        let (_, shown) =
            stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
        assert!(shown.to_string().contains("kept awake"), "{shown}");
        assert!(agent.is_silent_but_notices(Duration::from_millis(2500)), "{before:?}");
        stack.approve(BOB, &request);
        let answer = agent.until_ready();
        assert!(answer.contains("C[CREATE TABLE]"), "{before:?}: {answer}");
        assert!(agent.ask(&wire::query("ROLLBACK")).ends_with("ZI"), "{before:?}");
        assert!(agent.ask(&wire::query("DROP TABLE IF EXISTS pg_temp.held")).ends_with("ZI"));
        stack.superuser("DROP TABLE IF EXISTS held");
    }
}

/// A failed transaction answers no question, so nothing could be said of where names are looked up.
#[test]
fn in_a_failed_transaction_what_needs_approval_is_refused_with_what_to_do() {
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&wire::query("BEGIN"));
    agent.ask(&wire::query("SELECT 1/0"));

    assert_eq!(agent.ask(&wire::query("ROLLBACK; CREATE TABLE held (a int)")), "E42501ZE");

    assert!(agent.errors.last().is_some_and(|error| error.contains("ROLLBACK")), "{:?}", agent.errors);
    assert!(stack.waiting().is_empty());
    assert_eq!(agent.ask(&wire::query("ROLLBACK")), "C[ROLLBACK]ZI");
}

#[test]
fn a_hold_expires_before_the_servers_transaction_timeout_and_the_session_goes_on() {
    let stack = Stack::with(&Setup {
        version: 18,
        sql: "ALTER ROLE app SET transaction_timeout = '3s'".into(),
        ..Setup::default()
    });
    let mut agent = Wire::agent(stack.port);
    assert_eq!(agent.ask(&wire::query("BEGIN")), "C[BEGIN]ZT");
    agent.send(&wire::query("CREATE TABLE held (a int)"));
    let request = stack.request();
    let (_, shown) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert!(shown.to_string().contains("expires early"), "{shown}");
    let answer = agent.until_ready();
    assert!(answer.ends_with("ZE"), "{answer}");
    assert!(
        agent.notices.iter().any(|notice| notice.contains("transaction_timeout (3s)")),
        "{:?}",
        agent.notices
    );
    assert_eq!(agent.ask(&wire::query("ROLLBACK")), "C[ROLLBACK]ZI");
    assert_eq!(agent.ask(&wire::query("SELECT 1")), "TDC[SELECT 1]ZI");
    // Outside of a transaction that timer does not run.
    agent.send(&wire::query("CREATE TABLE held (a int)"));
    let request = stack.request();
    assert!(agent.is_silent_but_notices(Duration::from_millis(3500)));
    stack.approve(BOB, &request);
    assert_eq!(agent.until_ready(), "C[CREATE TABLE]ZI");
}

#[test]
fn what_the_server_refuses_in_a_read_only_transaction_asks_nobody() {
    let mut stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    let mut ask = |bytes: &[u8]| agent.ask(bytes);
    let unit = |sql: &str, values: &[&str]| [wire::extended(sql, values), wire::sync()].concat();

    assert_eq!(ask(&wire::query("BEGIN READ ONLY")), "C[BEGIN]ZT");
    assert_eq!(ask(&wire::query("DELETE FROM orders")), "E25006ZE");
    assert_eq!(ask(&wire::query("ROLLBACK")), "C[ROLLBACK]ZI");
    assert_eq!(ask(&wire::query("SET default_transaction_read_only = on")), "C[SET]ZI");
    for refused in
        ["DROP TABLE orders", "CREATE TABLE made ()", "TRUNCATE orders", "GRANT SELECT ON orders TO public"]
    {
        assert_eq!(ask(&wire::query(refused)), "E25006ZI", "{refused}");
        assert_eq!(ask(&unit(refused, &[])), "12E25006ZI", "{refused}");
    }
    assert_eq!(ask(&unit("UPDATE orders SET amount = $1", &["0"])), "12E25006ZI");
    assert!(stack.waiting().is_empty());

    // What may do something, or may turn the transaction into another, waits.
    for held in [
        "DO $$ BEGIN SET TRANSACTION READ WRITE; DELETE FROM orders; END $$",
        "SET TRANSACTION READ WRITE; DELETE FROM orders",
        "BEGIN READ WRITE; DELETE FROM orders",
        "VACUUM orders",
        "COPY orders FROM PROGRAM 'true'",
        "ALTER SYSTEM SET work_mem = '1MB'",
    ] {
        agent.send(&wire::query(held));
        let request = stack.request();
        let (status, _) = stack.answer(BOB, &request, "deny", Some("no"));
        assert_eq!(status, 200);
        assert!(agent.until_ready().contains('E'), "{held}");
        wait_for("nothing waits", || stack.waiting().is_empty());
    }
    // In one pipeline, something else before it may do that, too; and a portal outlives its Bind.
    let flip = wire::extended("SET TRANSACTION READ WRITE", &[]);
    agent.send(&[flip.clone(), unit("DELETE FROM orders", &[])].concat());
    let request = stack.request();
    stack.answer(BOB, &request, "deny", Some("no"));
    assert!(agent.until_ready().contains('E'));
    let bound = [wire::parse("drop", "DROP TABLE orders"), wire::bind("late", "drop", &[])].concat();
    agent.send(&[bound, flip, wire::execute("late", 0), wire::sync()].concat());
    let request = stack.request();
    stack.answer(BOB, &request, "deny", Some("no"));
    assert!(agent.until_ready().contains('E'));
    assert_eq!(stack.superuser("select count(*) from orders where amount > 0"), "1000");

    let cleared =
        stack.entries("statement", 10).into_iter().filter(|entry| entry["clearance"] == "read_only");
    assert!(cleared.count() >= 10);
    drop(agent);
    stack.assert_verifies();
}
