//! A denied statement, and the state of the session after it.

use super::*;

#[test]
fn a_denied_statement_has_a_code_a_detail_and_a_hint_and_the_session_goes_on() {
    let stack = Stack::denying_ddl(15);

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
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);

    stack.psql(&["drop table orders /* marker-of-the-agent */"]);

    let log = stack.server_log();
    assert!(!log.contains("marker-of-the-agent"), "the denied text never reached upstream");
    let lines =
        log.lines().filter(|line| line.contains("ERROR:") && line.contains("countersign_denied_by_policy"));
    assert_eq!(lines.count(), 1, "{log}");
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
fn in_a_failed_transaction_a_statement_that_needs_approval_is_refused_with_a_hint() {
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
fn a_write_in_a_read_only_transaction_needs_no_approval() {
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
