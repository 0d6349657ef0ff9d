//! The main job, end to end: a statement waits for a human, runs exactly once or not at all, and the
//! ledger proves it. Each promise of the design is a test by its name.
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

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{AGENT, ALICE, BOB, CAROL, Setup, Stack, TOKEN, ended, signal, text, wait_for};

/// A function whose effects nobody can see.
fn unknown_thing() -> Setup {
    let sql = "create function public.unknown_thing(text) returns text language sql as 'select $1'";
    Setup { sql: sql.to_owned(), ..Setup::default() }
}

fn state_of(stack: &Stack, request: &Value) -> String {
    let (status, view) =
        stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert_eq!(status, 200, "{view}");
    view["state"].as_str().unwrap().to_owned()
}

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

/// P1: the intent of a statement is in the ledger before its first byte goes upstream.
#[test]
fn p1_nothing_is_forwarded_unrecorded() {
    let mut stack = Stack::start();
    let marker = "select 'p1-marker-4711' from customers limit 1";
    stack.psql(&[marker]);

    // Killed at once: nothing had time to be tidied up.
    stack.kill_proxy();
    assert!(stack.server_log().contains("p1-marker-4711"));
    stack.run();

    let found = support::countersign()
        .args(["ledger", "query"])
        .arg(stack.ledger())
        .args(["--contains", "p1-marker-4711", "--json"])
        .output()
        .unwrap();
    assert!(text(&found).contains("p1-marker-4711"), "{}", text(&found));
    stack.assert_verifies();
}

/// P2: a grant covers one statement with its values, in one session, once.
#[test]
fn p2_a_grant_covers_exactly_one_statement_with_its_values_once() {
    let stack = Stack::with(&unknown_thing());
    let script = r#"
import sys, psycopg, threading
c = psycopg.connect(sys.argv[1], autocommit=True)
for n in range(2):
    c.execute("select unknown_thing(%s::text)", ("same value",))
    print("ran", n, flush=True)
"#;
    let mut python = support::python();
    let python = python.arg("-c").arg(script).arg(stack.url());
    let python =
        python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();

    let first = stack.request();
    stack.approve(BOB, &first);
    let mut second = Value::Null;
    wait_for("the same statement asks again", || {
        second = stack.waiting().into_iter().next().unwrap_or_default();
        second["id"].is_string() && second["id"] != first["id"]
    });
    assert_eq!(first["digest"], second["digest"], "the same bytes and values");
    stack.answer(BOB, &second, "deny", None);

    let shown = ended(python);
    assert!(shown.contains("ran 0") && !shown.contains("ran 1"), "{shown}");
}

/// P2: other values are another statement.
#[test]
fn p2_other_values_need_another_approval_and_have_another_digest() {
    let stack = Stack::with(&unknown_thing());
    let held = |value: &str| {
        let script = r#"
import sys, psycopg
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute("select unknown_thing(%s::text)", (sys.argv[2],))
"#;
        let mut python = support::python();
        let python = python.arg("-c").arg(script).arg(stack.url()).arg(value);
        python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let one = held("one");
    let first = stack.request();
    let two = held("two");
    wait_for("both wait", || stack.waiting().len() == 2);
    let requests = stack.waiting();
    let second = requests.iter().find(|request| request["id"] != first["id"]).unwrap();

    assert_ne!(first["digest"], second["digest"]);
    stack.approve(BOB, &first);
    assert_eq!(ended(one), "");
    stack.answer(BOB, second, "deny", None);
    assert!(ended(two).contains("denied"), "only the first was approved");
}

/// P3: what cannot be classified never passes.
#[test]
fn p3_what_cannot_be_classified_is_held_and_what_does_not_parse_is_refused() {
    let stack = Stack::with(&unknown_thing());
    let output = stack.psql(&["\\set VERBOSITY verbose", "selec 1", "select 'in step'"]);
    let shown = text(&output);
    assert!(shown.contains("42601: syntax error at or near \"selec\""), "{shown}");
    assert!(shown.contains("LINE 1: selec 1"), "with Postgres's position: {shown}");
    assert!(shown.contains("in step"), "{shown}");

    let psql = stack.psql_start(&["select unknown_thing('x')"]);
    let request = stack.request();
    assert_eq!(request["class"], "code");
    stack.answer(BOB, &request, "deny", None);
    assert!(ended(psql).contains("denied"));
}

/// P4: the requester's owner cannot approve, nor can somebody outside of the group, nor the agent.
#[test]
fn p4_nobody_approves_for_themselves_and_an_agent_never_decides() {
    let mut stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();

    let (owner, why) = stack.answer(ALICE, &request, "approve", None);
    assert_eq!(owner, 403, "{why}");
    let (stranger, why) = stack.answer(CAROL, &request, "approve", None);
    assert_eq!(stranger, 403, "{why}");
    let (agent, why) = stack.answer((AGENT, TOKEN), &request, "approve", None);
    assert!(agent == 401 || agent == 403, "{agent} {why}");
    let (nobody, why) = stack.answer(("nobody", "csr_made-up"), &request, "approve", None);
    assert_eq!(nobody, 401, "{why}");
    assert_eq!(state_of(&stack, &request), "waiting");

    let (status, answer) = stack.answer(BOB, &request, "deny", None);
    assert_eq!(status, 200, "{answer}");
    assert!(ended(psql).contains("denied"));
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
    stack.assert_verifies();
}

/// P5: after a cancel, an expiry and a disconnect, everybody agrees on the transaction.
#[test]
fn p5_a_cancelled_hold_withdraws_the_request_and_the_session_goes_on() {
    let stack = Stack::start();
    let script = r#"
import sys, psycopg, threading, time
from psycopg.pq import TransactionStatus as T
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute("begin")
c.execute("insert into orders values (5001, 1, 1)")
c.execute("savepoint s")
threading.Timer(1.0, c.cancel).start()
try:
    c.execute("drop table customers")
except psycopg.errors.QueryCanceled as e:
    print("cancelled", e.diag.sqlstate)
print(c.info.transaction_status == T.INERROR)
c.execute("rollback to s")
c.execute("commit")
print(c.execute("select count(*) from orders where id = 5001").fetchone()[0])
"#;
    let output = stack.python(script, &[]);

    assert_eq!(text(&output), "cancelled 57014\nTrue\n1\n");
    assert!(stack.waiting().is_empty());
    let (_, all) = stack.api(BOB, "GET", "/requests?state=withdrawn", None);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
}

#[test]
fn p5_a_hold_that_expires_says_so_and_nothing_ran() {
    let policy = "[[rule]]\nname = \"quick\"\nwhen = { class = [\"ddl\"] }\nthen = \"hold\"\napprovals = [{ group = \"dba\", count = 1 }]\nexpires = \"2s\"\n";
    let stack = Stack::with(&Setup { policy: Some(policy.to_owned()), ..Setup::default() });

    let output = stack.psql(&["\\set VERBOSITY verbose", "drop table orders", "select 'on'"]);

    let shown = text(&output);
    assert!(shown.contains("57014") && shown.contains("expired without an answer"), "{shown}");
    assert!(shown.contains("on\n"), "{shown}");
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
}

#[test]
fn p5_an_agent_that_hangs_up_withdraws_and_a_late_approval_does_nothing() {
    let stack = Stack::start();
    let mut psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();

    psql.kill().unwrap();
    psql.wait().unwrap();
    wait_for("it is withdrawn", || state_of(&stack, &request) == "withdrawn");

    let (status, answer) = stack.answer(BOB, &request, "approve", None);
    assert_eq!(status, 409, "{answer}");
    assert!(answer.to_string().contains("withdrawn"), "{answer}");
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
    wait_for("its transaction is gone upstream", || {
        stack.superuser("select count(*) from pg_stat_activity where usename = 'app' and application_name like 'countersign reporting%'") == "0"
    });
}

/// P6: the reviewer is shown the whole statement.
#[test]
fn p6_a_two_megabyte_statement_is_held_and_shown_whole() {
    let stack = Stack::start();
    let long = "x".repeat(2 << 20);
    let sql = format!("select length('{long}') from customers limit 1");
    let file = stack.path("long.sql");
    std::fs::write(&file, &sql).unwrap();
    let mut psql = stack.psql_command(&stack.url());
    let psql = psql.arg("-f").arg(&file);
    let psql =
        psql.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let request = stack.request();

    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);

    assert_eq!(whole["sql"].as_str().map(str::len), Some(sql.len()));
    stack.approve(BOB, &request);
    assert!(ended(psql).contains("2097152"));
}

/// P7: everything that decided is in the ledger.
#[test]
fn p7_who_decided_what_by_which_rule_and_when_is_in_the_ledger() {
    let stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    stack.answer(BOB, &request, "deny", Some("not today"));
    ended(psql);

    let export = || {
        let command = support::countersign()
            .args(["ledger", "export"])
            .arg(stack.ledger())
            .args(["--format", "jsonl"])
            .output();
        let lines = String::from_utf8(command.unwrap().stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let mut all = String::new();
    // What nothing waits for is written a moment later.
    wait_for("the denial is in the ledger", || {
        all = serde_json::to_string(&export()).unwrap();
        all.contains("not today")
    });
    for what in [
        "bob@example.com",
        "not today",
        "drop table orders",
        "reporting-bot",
        "alice@example.com",
        "scram-sha-256",
        "127.0.0.1",
    ] {
        assert!(all.contains(what), "{what} is missing in {all}");
    }
}

/// P8: every edit of the ledger is found.
#[test]
fn p8_an_edited_ledger_does_not_verify() {
    let mut stack = Stack::start();
    stack.psql(&["select 1", "select 2"]);
    assert!(stack.stop_proxy().success());
    let (code, report) = stack.verify();
    assert_eq!(code, 0, "{report}");

    let edited = std::process::Command::new("sqlite3")
        .arg(stack.ledger())
        .arg("update entry set body = x'a0' where seq = 3")
        .status()
        .unwrap();

    assert!(edited.success());
    let (code, report) = stack.verify();
    assert!(code >= 10, "{code} {report}");
}

/// P9: if the ledger cannot write, nothing runs.
#[test]
fn p9_when_the_ledger_cannot_write_nothing_runs_and_a_rollback_still_does() {
    let stack = Stack::start();
    let script = r#"
import sys, psycopg, shutil, os, time
from psycopg.pq import TransactionStatus as T
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute("begin")
c.execute("insert into orders values (9001, 1, 1)")
os.rename(sys.argv[2], sys.argv[2] + ".gone")
deadline = time.time() + 15
while time.time() < deadline:
    try:
        c.execute("select 'p9-ran-unrecorded'")
        time.sleep(0.05)
    except psycopg.Error as e:
        print(e.diag.sqlstate, e.diag.message_primary)
        break
c.pgconn.exec_(b"rollback")
print(c.info.transaction_status == T.IDLE)
"#;
    let output = stack.python(script, &[stack.ledger().to_str().unwrap()]);

    let shown = text(&output);
    assert!(shown.contains("58030"), "{shown}");
    assert!(shown.contains("True"), "{shown}");
    assert_eq!(stack.superuser("select count(*) from orders where id = 9001"), "0");
}

/// P10: no secret is ever in a log, a ledger entry or an error.
#[test]
fn p10_no_secret_is_in_a_log_a_ledger_or_an_error() {
    let mut stack = Stack::with(&Setup { superuser: true, ..Setup::default() });
    let psql = stack.psql_start(&["create role fresh password 'hunter2-the-secret'"]);
    let request = stack.request();
    assert!(!request.to_string().contains("hunter2"), "{request}");
    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert!(!whole.to_string().contains("hunter2"), "{whole}");
    stack.approve(BOB, &request);
    let shown = ended(psql);
    assert!(!shown.contains("ERROR"), "{shown}");
    assert_eq!(stack.superuser("select rolpassword is not null from pg_authid where rolname = 'fresh'"), "t");
    assert!(stack.stop_proxy().success());

    let mut everything = stack.log();
    fn collect(folder: &std::path::Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.file_name().unwrap() != "upstream-password"
                && path.file_name().unwrap() != "countersign.toml"
            {
                into.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
            }
        }
    }
    collect(stack.directory.path(), &mut everything);
    for secret in ["hunter2-the-secret", "upstream-secret", TOKEN, BOB.1] {
        assert!(!everything.contains(secret), "{secret} was written somewhere");
    }
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
fn the_agent_is_told_at_once_that_it_waits_and_for_whom() {
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
fn a_restart_closes_what_waited_and_says_so() {
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

#[test]
fn a_bad_policy_file_leaves_the_old_set_in_force_and_is_shown() {
    let stack = Stack::start();
    std::fs::write(
        stack.path("policies/bad.toml"),
        "[[rule]]\nname = \"x\"\nthen = \"allow\"\nwhen = { klass = [\"ddl\"] }\n",
    )
    .unwrap();
    wait_for("the error is logged", || stack.log().contains("changed policies are not used"));
    let (status, answer) = stack.api(BOB, "GET", "/status", None);
    assert_eq!(status, 200);
    assert!(answer.to_string().contains("bad.toml"), "{answer}");

    std::fs::write(
        stack.path("policies/bad.toml"),
        "[[rule]]\nname = \"ddl-is-fine\"\nthen = \"allow\"\nwhen = { class = [\"ddl\"] }\n",
    )
    .unwrap();
    wait_for("the mended set is loaded", || stack.log().contains("policies loaded"));
    assert_eq!(text(&stack.psql(&["create table free (a int)", "select 'free'"])), "free\n");
}

#[test]
fn what_the_policy_declares_of_the_database_counts_and_so_does_a_change_of_it() {
    let deny = "[[rule]]\nname = \"none\"\nwhen = { class = [\"code\", \"export\"] }\nthen = \"deny\"\n";
    let by_table = "[[rule]]\nname = \"orders\"\nwhen = { table = [\"public.orders\"] }\nthen = \"deny\"\n";
    let stack = Stack::with(&Setup {
        policy: Some(format!("safe_functions = [\"public.total\"]\n{deny}")),
        sql: "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM customers';
              CREATE VIEW addresses AS SELECT email AS a FROM customers;
              CREATE VIEW late AS SELECT * FROM addresses;
              CREATE VIEW sums AS SELECT sum(amount) FROM orders;
              GRANT SELECT ON addresses, late, sums TO app;"
            .into(),
        ..Setup::default()
    });
    let says = |sql: &str| {
        let output = stack.psql(&[sql]);
        match output.status.success() {
            true => "runs".to_owned(),
            false => String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned(),
        }
    };
    let is_denied = |sql: &str| says(sql).contains("denied by rule");

    assert_eq!(says("SELECT total()"), "runs");
    assert_eq!(says("SELECT * FROM late"), "runs");
    assert_eq!(says("SELECT * FROM sums"), "runs");

    let changed = format!("sensitive = [\"public.customers.email\"]\n{deny}{by_table}");
    let folder = stack.path("policies");
    for file in std::fs::read_dir(&folder).unwrap() {
        std::fs::write(file.unwrap().path(), &changed).unwrap();
    }
    wait_for("the change is loaded", || stack.log().contains("policies loaded"));

    assert!(is_denied("SELECT total()"), "{}", says("SELECT total()"));
    assert!(is_denied("SELECT * FROM late"));
    assert!(is_denied("SELECT a FROM addresses"));
    assert!(is_denied("SELECT email FROM customers"));
    assert!(is_denied("SELECT * FROM sums"), "a rule by table sees through views");
    assert_eq!(says("SELECT name FROM customers"), "runs");
    assert_eq!(says("SELECT a FROM late WHERE a = 'c5@example.com'"), "runs");
    assert_eq!(says("SELECT * FROM customers LIMIT 5"), "runs");
}

/// Adds a file of policies, or replaces it, and waits until it is in force.
fn load_policy(stack: &Stack, name: &str, policy: &str) {
    let before = stack.log().matches("policies loaded").count();
    std::fs::write(stack.path(&format!("policies/{name}.toml")), policy).unwrap();
    wait_for("the policy is loaded", || stack.log().matches("policies loaded").count() > before);
}

fn exists(stack: &Stack, table: &str) -> bool {
    stack.superuser(&format!("select to_regclass('{table}') is not null")) == "t"
}

#[test]
fn a_policy_that_denies_what_waits_withdraws_it_and_the_agent_is_told_the_rule() {
    let mut stack = Stack::start();
    for (round, when) in [
        r#"class = ["ddl"]"#,
        r#"table = ["public.orders"], class = ["ddl"]"#,
        r#"agent = "reporting-*", class = ["ddl"]"#,
        r#"upstream = "app", class = ["ddl"]"#,
    ]
    .into_iter()
    .enumerate()
    {
        let psql = stack.psql_start(&["drop table orders", "select 'still here'"]);
        let request = stack.request();

        let rule = format!("[[rule]]\nname = \"freeze-{round}\"\nwhen = {{ {when} }}\nthen = \"deny\"\n");
        load_policy(&stack, "freeze", &rule);

        let shown = ended(psql);
        assert!(shown.contains(&format!("freeze-{round}")) && shown.contains("still here"), "{shown}");
        assert_eq!(state_of(&stack, &request), "withdrawn");
        let (status, answer) = stack.answer(BOB, &request, "approve", Some("ok"));
        assert_eq!((status, answer["error"].as_str()), (409, Some("too_late")), "{answer}");
        assert!(exists(&stack, "orders"));
        load_policy(&stack, "freeze", "");
    }
    stack.assert_verifies();
}

#[test]
fn a_policy_that_asks_for_more_withdraws_what_waits_and_a_looser_one_does_not() {
    let mut stack = Stack::start();
    let hold = |terms: &str| {
        format!("[[rule]]\nname = \"ddl\"\nwhen = {{ class = [\"ddl\"] }}\nthen = \"hold\"\n{terms}\n")
    };
    for terms in [
        r#"approvals = [{ group = "dba", count = 2 }]"#,
        r#"approvals = [{ group = "security", count = 1 }]"#,
        r#"assurance = "login""#,
        r#"reason = "required""#,
    ] {
        let psql = stack.psql_start(&["drop table orders"]);
        let request = stack.request();
        load_policy(&stack, "more", &hold(terms));

        let shown = ended(psql);
        assert!(shown.contains("asks for more") && shown.contains("Retry the statement"), "{shown}");
        assert_eq!(state_of(&stack, &request), "withdrawn");
        load_policy(&stack, "more", "");
    }
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    load_policy(
        &stack,
        "more",
        "[[rule]]\nname = \"fine\"\nwhen = { class = [\"ddl\"] }\nthen = \"allow\"\n",
    );
    assert_eq!(state_of(&stack, &request), "waiting");
    stack.approve(BOB, &request);
    ended(psql);
    assert!(!exists(&stack, "orders"));
    stack.assert_verifies();
}

#[test]
fn p4_a_deferred_grant_does_not_outlive_its_approver() {
    let tables = "create table t0 (a int); create table t1 (a int); create table t2 (a int); create table t3 (a int);
        create table t4 (a int); alter table t0 owner to app; alter table t1 owner to app; alter table t2 owner to app;
        alter table t3 owner to app; alter table t4 owner to app;";
    let mut stack = Stack::with(&Setup { sql: tables.to_owned(), ..Setup::default() });
    let deferred = format!("{}?options=-c%20countersign.hold%3Ddefer", stack.url());
    let run = |stack: &Stack, table: &str| {
        let output = stack
            .psql_command(&deferred)
            .args(["-v", "VERBOSITY=verbose", "-c", &format!("drop table {table}")])
            .output();
        text(&output.unwrap())
    };
    let bob_in = |groups: &str| format!("id = \"{}\"\ngroups = [{groups}]", BOB.0);
    let owner = |owners: &str| format!("owners = [{owners}]\nverifier");
    let alice = format!("owner = \"{}\"\nverifier", ALICE.0);
    let as_dba = bob_in("\"dba\"");
    for (round, (what, from, to)) in [
        ("left the group", as_dba.clone(), bob_in("\"marketing\"")),
        ("is another person", as_dba.clone(), as_dba.replace("bob@", "robert@")),
        ("owns the agent", alice.clone(), owner("\"alice@example.com\", \"Bob <BOB@example.com>\"")),
        ("owns the agent alone", alice.clone(), owner("\"mailto:bob@example.com\"")),
        ("is called as the owner", as_dba.clone(), format!("also = [\"alice@example.net\"]\n{as_dba}")),
    ]
    .into_iter()
    .enumerate()
    {
        // Another one each time: what was denied may not be asked for again for a while.
        let table = format!("t{round}");
        if what == "is called as the owner" {
            stack.reconfigure(|text| {
                text.replace(&alice, &owner("\"alice@example.com\", \"alice@example.net\""))
            });
        }
        assert!(run(&stack, &table).contains(", pending"));
        let request = stack.request();
        stack.approve(BOB, &request);

        stack.reconfigure(|text| {
            assert!(text.contains(&from), "{what}: {text}");
            text.replace(&from, &to)
        });

        let shown = run(&stack, &table);
        assert!(shown.contains(", pending"), "{what}: people are asked anew: {shown}");
        assert!(exists(&stack, &table), "{what}");
        let (_, first) =
            stack.api(CAROL, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
        assert_eq!(first["state"], "withdrawn", "{what}");
        stack.reconfigure(|text| text.replace(&to, &from));
        let again = stack.request();
        stack.answer(ALICE, &again, "deny", Some("not now"));
    }
    stack.assert_verifies();
}

#[test]
fn p4_two_approvals_count_only_while_both_people_may_give_them() {
    let mut stack = Stack::with(&Setup {
        policy: Some(
            "[[rule]]\nname = \"two\"\nwhen = { class = [\"ddl\"] }\nthen = \"hold\"\napprovals = [{ group = \"dba\", count = 1 }, { group = \"security\", count = 1 }]\n"
                .to_owned(),
        ),
        ..Setup::default()
    });
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    stack.approve(CAROL, &request);

    let carol = format!("id = \"{}\"\ngroups = [\"security\"]", CAROL.0);
    stack.reconfigure(|text| text.replace(&carol, &carol.replace("security", "marketing")));
    stack.approve(BOB, &request);
    assert_eq!(state_of(&stack, &request), "waiting", "Carol's approval does not count any more");
    assert!(exists(&stack, "orders"));

    stack.reconfigure(|text| text.replace(&carol.replace("security", "marketing"), &carol));
    let (status, _) = stack.answer(CAROL, &request, "deny", Some("no"));
    assert_eq!(status, 200);
    ended(psql);
    stack.assert_verifies();
}

#[test]
fn p4_who_owns_an_agent_while_its_session_runs_cannot_approve_and_is_named() {
    let mut stack = Stack::start();
    let go = stack.path("go");
    let wait = format!("\\! while [ ! -e {} ]; do sleep 0.1; done", go.display());
    let psql = stack.psql_start(&["select 'session 4711'", &wait, "drop table orders"]);
    wait_for("the session runs", || stack.server_log().contains("session 4711"));
    let alice = format!("owner = \"{}\"\nverifier", ALICE.0);
    stack.reconfigure(|text| text.replace(&alice, "owner = \"mailto:Bob@example.com\"\nverifier"));
    std::fs::write(&go, "").unwrap();

    let request = stack.request();
    let (status, answer) = stack.answer(BOB, &request, "approve", Some("mine"));

    assert_eq!((status, answer["error"].as_str()), (403, Some("not_allowed")), "{answer}");
    let (status, answer) = stack.answer(ALICE, &request, "approve", Some("it was mine"));
    assert_eq!((status, answer["error"].as_str()), (403, Some("not_allowed")), "{answer}");
    let (_, shown) = stack.api(CAROL, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    assert!(shown.to_string().contains("mailto:Bob@example.com"), "{shown}");
    stack.answer(BOB, &request, "deny", Some("no"));
    ended(psql);
    assert!(exists(&stack, "orders"));
    stack.assert_verifies();
}

#[test]
fn whom_the_configuration_asks_by_default_counts_for_what_waits() {
    let mut stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();

    stack.reconfigure(|text| format!("{text}\n[policy]\nreviewers = \"security\"\n"));

    let shown = ended(psql);
    assert!(shown.contains("asks for more"), "{shown}");
    assert_eq!(state_of(&stack, &request), "withdrawn");
    let psql = stack.psql_start(&["drop table orders"]);
    stack.approve(CAROL, &stack.request());
    ended(psql);
    assert!(!exists(&stack, "orders"));
    stack.assert_verifies();
}

#[test]
fn p4_a_stand_in_cannot_bring_their_own_time_forward() {
    let olga = ("olga@example.com", "csr_token-of-olga");
    let hash = countersign::identity::secret::SecretHash::of(olga.1).to_string();
    let mut stack = Stack::with(&Setup {
        policy: Some(
            "[[rule]]\nname = \"slow\"\nwhen = { class = [\"ddl\"] }\nthen = \"hold\"\nescalate = [{ after = \"10m\", to = \"oncall\" }]\n"
                .to_owned(),
        ),
        config: format!("[[reviewer]]\nid = \"{}\"\ngroups = [\"oncall\"]\ntoken_hash = \"{hash}\"\n", olga.0),
        ..Setup::default()
    });
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    let not_yet = |(status, answer): (u16, Value)| {
        assert_eq!((status, answer["error"].as_str()), (403, Some("not_yet")), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("you stand in for others"), "{answer}");
    };

    not_yet(stack.answer(olga, &request, "approve", Some("now")));
    for who in [olga, BOB] {
        let (status, answer) = stack.answer(who, &request, "escalate", Some("nobody is there"));
        assert!(status == 200 || answer["error"] == "no_further_step", "{answer}");
        not_yet(stack.answer(olga, &request, "approve", Some("now")));
    }
    assert!(exists(&stack, "orders"));
    let (status, _) = stack.answer(olga, &request, "deny", Some("no"));
    assert_eq!(status, 200, "no is possible at once");
    ended(psql);
    stack.assert_verifies();
}

#[test]
fn a_rule_by_table_sees_what_foreign_keys_do_to_it() {
    let policy = "[[rule]]
name = \"no-lines-go\"
when = { class = [\"write\", \"mass_write\"], table = [\"public.lines\"] }
then = \"deny\"

[[rule]]
name = \"drafts-may\"
when = { class = [\"mass_write\"], table = [\"public.drafts\"] }
then = \"allow\"
";
    let stack = Stack::with(&Setup {
        policy: Some(policy.to_owned()),
        sql: "CREATE TABLE bills (id int PRIMARY KEY); INSERT INTO bills SELECT generate_series(1, 5);
              CREATE TABLE lines (bill int REFERENCES bills ON DELETE CASCADE);
              CREATE TABLE drafts (id int PRIMARY KEY); INSERT INTO drafts VALUES (1);
              CREATE TABLE notes (draft int REFERENCES drafts ON DELETE CASCADE);
              GRANT ALL ON bills, lines, drafts, notes TO app;"
            .into(),
        ..Setup::default()
    });
    let says = |sql: &str| text(&stack.psql(&[sql]));

    assert!(says("DELETE FROM bills WHERE id = 5").contains("denied by rule \"no-lines-go\""));
    assert_eq!(says("UPDATE bills SET id = 7 WHERE id = 5"), "", "the key would not let go of anything");
    assert_eq!(stack.superuser("SELECT max(id) FROM bills"), "7");
    assert_eq!(says("DELETE FROM drafts WHERE id = 5"), "");

    // To allow emptying the one is not to allow emptying the other.
    let psql = stack.psql_start(&["DELETE FROM public.drafts", "SELECT 'done'"]);
    let request = stack.request();
    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    let document = whole.to_string();
    assert!(
        document.contains("delete relation public.notes (by foreign key notes_draft_fkey)"),
        "{document}"
    );
    stack.approve(BOB, &request);
    assert!(ended(psql).contains("done"));
}
