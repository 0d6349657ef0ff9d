//! The promises P1 to P10 of the threat model, each by its number.

use super::*;

/// A function whose effects nobody can see.
fn unknown_thing() -> Setup {
    let sql = "create function public.unknown_thing(text) returns text language sql as 'select $1'";
    Setup { sql: sql.to_owned(), ..Setup::default() }
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
fn p5_a_disconnect_withdraws_the_request_and_a_late_approval_does_nothing() {
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
fn p4_a_new_owner_of_a_connected_agent_cannot_approve_and_is_recorded() {
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
fn p4_a_stand_in_cannot_escalate_to_approve_earlier() {
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
