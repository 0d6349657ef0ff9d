//! A held statement from the notice to its end.

use super::*;

#[test]
fn a_held_drop_waits_runs_once_when_approved_and_the_ledger_verifies() {
    let mut stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders", "select 'after'"]);
    let request = stack.request();
    assert_eq!(request["sql"], "drop table orders");
    assert_eq!(request["class"], "ddl");
    assert_eq!(request["agent"], AGENT);
    assert_eq!(stack.superuser("select count(*) from orders"), "1000", "nothing ran yet");

    stack.approve(BOB, &request);

    let shown = ended(psql);
    assert!(shown.contains("after"), "{shown}");
    assert!(shown.contains(&format!("request {}", request["id"].as_str().unwrap())), "{shown}");
    assert_eq!(stack.superuser("select to_regclass('orders') is null"), "t");
    wait_for("the receipt is on the card", || state_of(&stack, &request) == "executed");
    let (live, report) = stack.verify();
    assert!(live <= 1, "a live ledger verifies, but for a tail that no anchor has seen: {live} {report}");
    stack.assert_verifies();
}

#[test]
fn a_denial_reaches_the_agent_with_the_reviewers_words() {
    let stack = Stack::start();
    let psql = stack.psql_start(&["copy customers to stdout", "select 'still here'"]);
    let request = stack.request();

    let (status, answer) = stack.answer(BOB, &request, "deny", Some("use the report view"));

    assert_eq!(status, 200, "{answer}");
    let shown = ended(psql);
    assert!(shown.contains("denied: use the report view"), "{shown}");
    assert!(shown.contains("still here"), "{shown}");
    assert!(!shown.contains("c1@example.com"), "{shown}");
}

#[test]
fn copy_out_runs_when_approved_with_every_byte() {
    let stack = Stack::start();
    let psql = stack.psql_start(&["copy (select * from customers order by id) to stdout"]);
    let request = stack.request();
    assert_eq!(request["class"], "export");

    stack.approve(BOB, &request);

    let shown = ended(psql);
    let direct = stack.superuser("copy (select * from customers order by id) to stdout");
    assert!(shown.starts_with(&direct), "{shown}");
}

#[test]
fn two_groups_must_approve_and_one_person_counts_once() {
    let policy = "[[rule]]\nname = \"two\"\nwhen = { class = [\"export\"] }\nthen = \"hold\"\napprovals = [{ group = \"dba\", count = 1 }, { group = \"security\", count = 1 }]\n";
    let mut stack = Stack::with(&Setup { policy: Some(policy.to_owned()), ..Setup::default() });
    let psql = stack.psql_start(&["copy customers to stdout"]);
    let request = stack.request();

    stack.approve(BOB, &request);
    assert_eq!(state_of(&stack, &request), "waiting");
    let (again, answer) = stack.answer(BOB, &request, "approve", None);
    assert_ne!(again, 200, "{answer}");
    stack.approve(CAROL, &request);

    assert!(ended(psql).contains("c1@example.com"));
    stack.assert_verifies();
}

#[test]
fn a_verdict_on_another_digest_than_the_one_shown_does_not_count() {
    let stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    let id = request["id"].as_str().unwrap();

    let (status, answer) =
        stack.api(BOB, "POST", &format!("/requests/{id}/approve"), Some(json!({ "digest": "0".repeat(64) })));

    assert!(status == 409 || status == 412, "{status} {answer}");
    assert_eq!(state_of(&stack, &request), "waiting");
    stack.answer(BOB, &request, "deny", None);
    ended(psql);
}

#[test]
fn a_deferred_statement_fails_at_once_and_runs_once_when_retried_after_approval() {
    let stack = Stack::start();
    let deferred = format!("{}?options=-c%20countersign.hold%3Ddefer", stack.url());
    let run = || {
        let output = stack
            .psql_command(&deferred)
            .args(["-v", "VERBOSITY=verbose", "-c", "drop table orders"])
            .output();
        text(&output.unwrap())
    };
    let first = run();
    assert!(first.contains("42501") && first.contains(", pending"), "{first}");
    assert!(run().contains(", pending"), "still waiting, and still one request");
    let waiting = stack.waiting();
    assert_eq!(waiting.len(), 1, "{waiting:?}");

    stack.approve(BOB, &waiting[0]);

    assert_eq!(run(), "", "a new session claims it");
    assert_eq!(stack.superuser("select to_regclass('orders') is null"), "t");
    let again = run();
    assert!(again.contains(", pending"), "once: {again}");
}

#[test]
fn a_transaction_with_a_denied_statement_keeps_its_savepoint_and_another_role_cannot_be_slipped_in() {
    let stack = Stack::start();
    let psql = stack.psql_start(&[
        "begin",
        "set local search_path = public",
        "drop table orders",
        "rollback",
        "select 'done'",
    ]);
    let request = stack.request();
    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    let shown = whole.to_string();
    assert!(shown.contains("set local search_path = public"), "the transaction so far is shown: {shown}");
    assert!(shown.contains("session_authorization"), "what the grant is bound to: {shown}");

    stack.answer(BOB, &request, "deny", None);

    let shown = ended(psql);
    assert!(shown.contains("done"), "{shown}");
}

#[test]
fn the_agent_gets_a_notice_at_once_that_names_the_groups() {
    let stack = Stack::start();
    let started = Instant::now();
    let script = r#"
import sys, psycopg, threading, time
c = psycopg.connect(sys.argv[1], autocommit=True)
c.add_notice_handler(lambda d: print(d.severity, d.message_primary, "|", d.message_detail, flush=True))
threading.Timer(1.5, c.cancel).start()
try:
    c.execute("drop table orders")
except psycopg.errors.QueryCanceled:
    pass
"#;
    let output = stack.python(script, &[]);

    let shown = text(&output);
    assert!(shown.contains("NOTICE waiting for approval"), "{shown}");
    assert!(shown.contains("Asked: dba"), "{shown}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_restart_withdraws_waiting_requests() {
    let mut stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();

    stack.kill_proxy();
    let shown = ended(psql);
    assert!(!shown.is_empty());
    stack.run();

    assert!(stack.waiting().is_empty());
    let (status, answer) = stack.answer(BOB, &request, "approve", None);
    assert!(status == 404 || status == 409, "{status} {answer}");
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
    stack.assert_verifies();
}

#[test]
fn a_session_that_drains_finishes_its_transaction_first() {
    let mut stack = Stack::start();
    let script = r#"
import sys, psycopg, time
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute("begin")
c.execute("insert into orders values (7001, 1, 1)")
print("open", flush=True)
time.sleep(1.5)
c.execute("commit")
print("committed", flush=True)
try:
    time.sleep(0.5)
    c.execute("select 1")
except psycopg.Error as e:
    print("ended")
"#;
    let mut python = support::python();
    let python = python.arg("-c").arg(script).arg(stack.url());
    let mut python =
        python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the transaction is open", || {
        stack.superuser("select count(*) from pg_stat_activity where state = 'idle in transaction'") == "1"
    });

    signal(stack.proxy_id(), "TERM");
    let mut shown = String::new();
    python.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    python.wait().unwrap();

    assert_eq!(shown, "open\ncommitted\nended\n");
    assert!(stack.stop_proxy().success());
    assert_eq!(stack.superuser("select count(*) from orders where id = 7001"), "1");
}
