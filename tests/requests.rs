//! `countersign requests`, `sessions` and `status`, with the real binary against a real API.
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

#[path = "support/web.rs"]
mod web;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use countersign::approval::HoldState;
use countersign::approval::Withdrawal;
use countersign::desk::{Ending, Limits};
use countersign::web::views::Activity;
use serde_json::{Value, json};
use web::{Site, SiteSetup};

const EXPORT: &str = "COPY customers TO STDOUT";
const DDL: &str = "ALTER TABLE orders ADD COLUMN note text";

impl Site {
    fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(arguments).stdin(Stdio::null());
        command.env("COUNTERSIGN_URL", self.url.as_str()).env("COUNTERSIGN_TOKEN", &self.secrets[who]);
        command
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(who, arguments).output().unwrap())
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {} {}", self.out, self.err))
    }
}

#[test]
fn waiting_requests_are_listed_for_people_and_for_scripts() {
    let site = Site::open();
    assert_eq!(site.run("bob", &["requests", "list"]).out, "No requests.\n");
    assert_eq!(site.run("bob", &["requests", "list", "--json"]).out, "[]\n");
    let opened = site.ask("COPY customers\nTO STDOUT");
    let code = opened.request.id.code();

    let listed = site.run("bob", &["requests", "list"]);
    let json = site.run("bob", &["requests", "list", "--json"]).json();

    assert!(listed.out.contains(&code) && listed.out.contains("COPY customers…"), "{}", listed.out);
    for (field, value) in [
        ("id", code.as_str()),
        ("state", "waiting"),
        ("class", "export"),
        ("agent", "reporting-bot"),
        ("upstream", "app"),
        ("sql", "COPY customers\nTO STDOUT"),
        ("digest", &opened.request.digest.to_string()),
        ("expires_at", "2026-11-23T09:56:07Z"),
    ] {
        assert_eq!(json[0][field], value, "{field}");
    }
    assert_eq!(site.run("alice", &["requests", "list", "--mine", "--json"]).out, "[]\n");
    assert_eq!(site.run("bob", &["requests", "list", "--state", "denied", "--json"]).out, "[]\n");
    assert_eq!(site.run("bob", &["requests", "list", "--state", "asleep"]).code, 2);
}

#[test]
fn a_request_is_shown_whole() {
    let site = Site::open();
    let opened = site.ask_as("reporting-bot", EXPORT, |draft| draft.claimed = web::claims()).unwrap();

    let shown = site.run("bob", &["requests", "show", &opened.request.id.code().to_lowercase()]);

    assert_eq!(shown.code, 0);
    for part in [
        EXPORT,
        "What the agent says about itself (nobody checked this)",
        "gpt-5.2",
        &opened.request.digest.to_string(),
        "needs 1 of dba and 1 of security",
    ] {
        assert!(shown.out.contains(part), "{part}:\n{}", shown.out);
    }
    let json = site.run("bob", &["requests", "show", &opened.request.id.code(), "--json"]).json();
    assert_eq!(json["document"]["sections"][0]["id"], "statement");
    assert_eq!(site.run("bob", &["requests", "show", "0000-00"]).code, 5);
}

#[test]
fn an_approval_counts_and_says_who_is_missing() {
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let code = opened.request.id.code();

    let first = site.run("bob", &["requests", "approve", &code, "--reason", "known report"]);
    let second = site.run("dave", &["requests", "approve", &code, "--reason", "fine", "--json"]);

    assert_eq!((first.code, second.code), (0, 0), "{} {}", first.err, second.err);
    assert!(first.out.contains("your approval counts; still missing: 1 of security"), "{}", first.out);
    // The approved statement was on the screen.
    assert!(first.err.contains(EXPORT), "{}", first.err);
    assert_eq!(second.json()["state"], "granted");
    assert!(matches!(opened.ending.blocking_recv(), Ok(Ending::Granted(_))));
}

#[test]
fn a_denial_carries_its_reason() {
    let site = Site::open();
    let opened = site.ask(DDL);

    let denied = site.run("bob", &["requests", "deny", &opened.request.id.code(), "--reason", "not today"]);

    assert_eq!(denied.code, 0);
    let Ok(Ending::Denied { message, .. }) = opened.ending.blocking_recv() else { panic!("not denied") };
    assert_eq!(message.as_deref(), Some("not today"));
}

#[test]
fn an_escalation_tells_the_next_group() {
    let site = Site::open();
    let opened = site.ask(EXPORT);

    let escalated =
        site.run("bob", &["requests", "escalate", &opened.request.id.code(), "--reason", "asleep"]);

    assert_eq!(escalated.code, 0, "{}", escalated.err);
    assert_eq!(
        site.run("bob", &["requests", "escalate", &opened.request.id.code(), "--reason", "x"]).code,
        6
    );
}

#[test]
fn exit_codes_tell_why_an_answer_did_not_count() {
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let code = opened.request.id.code();
    let approve = |who, more: &[&str]| {
        let ran = site.run(who, &[&["requests", "approve", &code], more].concat());
        assert!(ran.code == 0 || ran.err.contains("countersign: "), "{}", ran.err);
        ran.code
    };

    // The agent's owner; somebody who is not asked; the agent itself.
    assert_eq!(approve("alice", &["--reason", "x"]), 4);
    assert_eq!(approve("reporting-bot", &["--reason", "x"]), 4);
    assert_eq!(site.run("reporting-bot", &["requests", "deny", &code]).code, 4);
    assert_eq!(approve("bob", &[]), 6);
    assert_eq!(approve("bob", &["--reason", "x", "--digest", &"0".repeat(64)]), 6);
    assert_eq!(approve("bob", &["--reason", "x", "--digest", &opened.request.digest.to_string()]), 0);
    assert_eq!(approve("bob", &["--reason", "x"]), 6);
    assert_eq!(site.run("bob", &["requests", "approve", "0000-00"]).code, 5);
    site.pass(16 * 60);
    assert_eq!(approve("dave", &["--reason", "x"]), 3);
    assert_eq!(site.run("dave", &["requests", "deny", &code, "--reason", "x"]).code, 3);
    assert_eq!(site.run("bob", &["requests", "approve"]).code, 2);
}

#[test]
fn an_agent_sees_its_own_requests() {
    let site = Site::open();
    let own = site.ask(DDL);
    let _other = site.ask_as("migration-agent", DDL, |_| {}).unwrap();

    let listed = site.run("reporting-bot", &["requests", "list", "--json"]).json();

    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["id"], own.request.id.code());
    assert_eq!(site.run("reporting-bot", &["requests", "show", &own.request.id.code()]).code, 0);
    assert_eq!(site.run("reporting-bot", &["sessions", "list"]).code, 4);
    assert_eq!(site.run("reporting-bot", &["status"]).code, 4);
}

#[test]
fn without_credentials_or_server_the_command_says_what_is_missing() {
    let site = Site::open();
    let mut command = site.command("bob", &["requests", "list"]);
    let none = Ran::of(command.env_remove("COUNTERSIGN_TOKEN").output().unwrap());
    assert_eq!(none.code, 2);
    assert!(none.err.contains("COUNTERSIGN_TOKEN"), "{}", none.err);

    let wrong = Ran::of(site.command("bob", &["status"]).env("COUNTERSIGN_TOKEN", "csr_x").output().unwrap());
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("personal token"), "{}", wrong.err);

    let away = Ran::of(
        site.command("bob", &["status"]).env("COUNTERSIGN_URL", "http://127.0.0.1:9").output().unwrap(),
    );
    assert_eq!(away.code, 2);
    assert!(away.err.contains("cannot reach"), "{}", away.err);
    for ran in [none, wrong, away] {
        assert!(!ran.err.contains("csr_x") && !ran.err.contains(&site.secrets["bob"]), "{}", ran.err);
    }
}

/// Runs a command at a terminal (of `script`) and types what is given.
fn at_a_terminal(site: &Site, who: &str, arguments: &str, typed: &str) -> Ran {
    let mut command = Command::new("script");
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_countersign"));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("COUNTERSIGN_URL", site.url.as_str()).env("COUNTERSIGN_TOKEN", &site.secrets[who]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn at_a_terminal_an_approval_is_confirmed_on_what_is_shown() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let code = opened.request.id.code();
    let approve = format!("requests approve {code}");

    let unsure = at_a_terminal(&site, "bob", &approve, "\n");
    assert_eq!(unsure.code, 1, "{}", unsure.out);
    assert!(unsure.out.contains(DDL) && unsure.out.contains("[y/N]"), "{}", unsure.out);
    assert_eq!(site.desk.request(&code).unwrap().state, HoldState::Waiting);

    let sure = at_a_terminal(&site, "bob", &approve, "y\n");
    assert_eq!(sure.code, 0, "{}", sure.out);
    let Ok(Ending::Granted(grant)) = opened.ending.blocking_recv() else { panic!("not granted") };
    assert_eq!(grant.seal().statement, opened.request.digest);
}

#[test]
fn at_a_terminal_a_reason_is_asked_for_where_the_rule_wants_one() {
    let site = Site::open();
    let opened = site.ask(EXPORT);

    let ran = at_a_terminal(
        &site,
        "bob",
        &format!("requests approve {} --yes --reason 'known'", opened.request.id),
        "",
    );
    assert_eq!(ran.code, 0, "{}", ran.out);
    let ran = at_a_terminal(&site, "dave", &format!("requests deny {}", opened.request.id), "too broad\n");
    assert_eq!(ran.code, 0, "{}", ran.out);

    let Ok(Ending::Denied { message, .. }) = opened.ending.blocking_recv() else { panic!("not denied") };
    assert_eq!(message.as_deref(), Some("too broad"));
}

#[test]
fn output_holds_no_terminal_escapes() {
    let site = Site::open();
    let opened = site
        .ask_as("reporting-bot", "drop table a /* \u{1b}[2J\u{1b}]0;owned\u{7}\r\u{202e} */", |draft| {
            draft.claimed.set("purpose", "\u{1b}[1A\u{1b}[2Kapproved by carol");
        })
        .unwrap();
    let code = opened.request.id.code();
    let reason = "\u{1b}[31mno\u{9b}2J\r\nOK";

    let ran = [
        site.run("bob", &["requests", "list"]),
        site.run("bob", &["requests", "show", &code]),
        site.run("bob", &["requests", "deny", &code, "--reason", reason]),
        site.run("bob", &["requests", "show", &code]),
        site.run("bob", &["requests", "show", "\u{1b}[2J"]),
    ];

    for ran in ran {
        let shown = ran.out + &ran.err;
        let obeyed: Vec<char> =
            shown.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
        assert!(obeyed.is_empty(), "{obeyed:?} in {shown}");
    }
}

#[test]
fn a_hostile_server_cannot_send_escapes_to_the_terminal() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let request = json!({"id": "A\u{1b}[2J", "state": "waiting\u{1b}[2J", "class": "ddl", "agent": "x\u{7}", "upstream": "u",
            "sql": "select\u{1b}[2J\u{202e}", "digest": "d", "expires_at": "e"});
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4096];
            let read = socket.read(&mut head).unwrap();
            let list = String::from_utf8_lossy(&head[..read]).starts_with("GET /api/v1/requests HTTP");
            let body = if list {
                json!([request])
            } else {
                json!({"error": "x\u{1b}", "message": "m\u{1b}[2J", "hint": "h\u{1b}"})
            };
            let status = if list { "200 OK" } else { "418 \u{1b}" };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    let site = Site::open();

    for arguments in [["requests", "list"], ["requests", "show"], ["sessions", "list"]] {
        let mut arguments = arguments.to_vec();
        if arguments[1] == "show" {
            arguments.push("x");
        }
        let ran = Ran::of(site.command("bob", &arguments).env("COUNTERSIGN_URL", &url).output().unwrap());
        let shown = ran.out + &ran.err;
        assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{shown:?}");
    }
}

#[test]
fn a_statement_of_two_megabytes_is_printed_whole() {
    let site = Site::open();
    let rows =
        (0..60_000).map(|n| format!("({n}, 'a name that takes some room')")).collect::<Vec<_>>().join(",\n");
    let sql = format!("INSERT INTO t VALUES {rows}; DROP TABLE t");
    let opened = site.ask(&sql);

    let shown = site.run("bob", &["requests", "show", &opened.request.id.code()]);

    let printed: Vec<&str> = shown.out.lines().filter_map(|line| line.strip_prefix("  | ")).collect();
    assert_eq!(printed.join("\n"), sql);
}

#[test]
fn watching_prints_what_happens() {
    let site = Site::open();
    let early = site.ask(DDL);
    let mut child = site.command("bob", &["requests", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);

    let first = lines.next().unwrap();
    assert!(first.contains("waiting") && first.contains(&early.request.id.code()), "{first}");
    let opened = site.ask(EXPORT);
    let second = lines.next().unwrap();
    assert!(second.contains("opened") && second.contains(&opened.request.id.code()), "{second}");
    site.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    let third = lines.next().unwrap();
    assert!(third.contains("ended") && third.contains("withdrawn"), "{third}");

    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watching_ends_when_the_token_is_revoked() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let watch = |arguments: &[&str]| {
        site.command("bob", arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut children =
        [watch(&["requests", "watch"]), watch(&["requests", "watch", &opened.request.id.code()])];
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("waiting"), "{line}");
    }

    site.change_people(|_, reviewers| reviewers.retain(|one| one.reviewer.id.as_str() != "bob@example.com"));

    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn a_list_is_complete_however_many_requests_there_are() {
    let limits = Limits { waiting_per_agent: 20_000, opened_per_minute: 20_000, ..Limits::default() };
    let site = Site::open_with(SiteSetup { limits: Some(limits), ..SiteSetup::default() });
    let oldest = site.ask_as("support-copilot", DDL, |_| {}).unwrap();
    let flood: Vec<_> = (0..1_150).map(|number| site.ask(&format!("drop table t{number}"))).collect();

    let listed = site.run("bob", &["requests", "list", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), flood.len() + 1);
    assert_eq!(listed[flood.len()]["id"], oldest.request.id.code());
    assert!(site.run("bob", &["requests", "list"]).out.contains(&oldest.request.id.code()));
    let some = site.run("bob", &["requests", "list", "--json", "--limit", "1020"]).json();
    assert_eq!(some.as_array().unwrap().len(), 1_020);

    let mut child = site.command("bob", &["requests", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.into_iter().next().unwrap();
    assert!(first.contains(&oldest.request.id.code()), "{first}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watching_one_request_ends_with_it() {
    let site = Site::open();
    let [granted, denied] = [site.ask(DDL), site.ask("DROP TABLE t")];
    let watch = |id: String| {
        site.command("bob", &["requests", "watch", &id, "--json"]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children = [watch(granted.request.id.code()), watch(denied.request.id.code())];
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["type"], "waiting");
    }

    assert_eq!(site.run("bob", &["requests", "approve", &granted.request.id.code()]).code, 0);
    assert_eq!(site.run("bob", &["requests", "deny", &denied.request.id.code()]).code, 0);

    let codes = children.map(|mut child| child.wait().unwrap().code());
    assert_eq!(codes, [Some(0), Some(1)]);
    assert_eq!(site.run("bob", &["requests", "watch", &denied.request.id.code()]).code, 1);
    assert_eq!(site.run("bob", &["requests", "watch", "0000-00"]).code, 5);
}

#[test]
fn over_tls_the_certificate_is_checked() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = (made.cert.der().to_vec(), made.signing_key.serialize_der());
    let site = Site::open_with(SiteSetup { tls: Some(tls), ..SiteSetup::default() });
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();

    let unknown = site.run("bob", &["requests", "list"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("cannot reach"), "{}", unknown.err);
    let known =
        Ran::of(site.command("bob", &["requests", "list"]).env("COUNTERSIGN_CA", &ca).output().unwrap());
    assert_eq!((known.code, known.out.as_str()), (0, "No requests.\n"), "{}", known.err);

    // Browsers are told never to come without TLS again, and get a cookie for the session's path only,
    // which no page without TLS can set.
    let roots =
        ureq::tls::RootCerts::new_with_certs(&[
            ureq::tls::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
        ]);
    let config = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false);
    let config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build()).build();
    let client: ureq::Agent = config.into();
    let link = site.web.sign_in_link(&"bob@example.com".into()).unwrap();
    let secret = link.path().strip_prefix("/sign-in/").unwrap();
    let sent = client.post(site.at("/sign-in")).header("origin", site.url.origin().ascii_serialization());
    let answer = sent.send_form([("link", secret)]).unwrap();
    assert_eq!(answer.status(), 303);
    assert!(answer.headers()["strict-transport-security"].to_str().unwrap().contains("max-age=31536000"));
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Secure-countersign=css_") && cookie.ends_with("; Secure"), "{cookie}");
    let path = answer.headers()["location"].to_str().unwrap().strip_suffix("requests").unwrap();
    assert!(path.starts_with("/s/") && path.len() > 32, "{path}");
    assert!(
        cookie.contains(&format!("Path={path};"))
            && cookie.contains("HttpOnly")
            && !cookie.contains("Domain"),
        "{cookie}"
    );
}

#[test]
fn sessions_are_listed_and_ended() {
    let site = Site::open();
    assert_eq!(site.run("bob", &["sessions", "list"]).out, "Nobody is connected.\n");
    let row = web::session_row("reporting-bot", 3, site.now(), Activity::Running);
    let id = row.id.to_string();
    site.sample_sessions.0.lock().push(row);

    let listed = site.run("bob", &["sessions", "list"]);
    assert!(listed.out.contains(&id) && listed.out.contains("running"), "{}", listed.out);
    assert_eq!(site.run("bob", &["sessions", "list", "--json"]).json()[0]["agent"], "reporting-bot");
    assert_eq!(site.run("bob", &["sessions", "kill", &id]).code, 0);
    assert_eq!(site.run("bob", &["sessions", "kill", &id]).code, 5);
}

#[test]
fn status_ends_with_whether_everything_works() {
    let site = Site::open();

    let status = site.run("bob", &["status"]);

    // There is no ledger in this site.
    assert_eq!(status.code, 1);
    assert!(status.out.contains("NOT writing, so nothing runs"), "{}", status.out);
    assert_eq!(site.run("bob", &["status", "--json"]).json()["policy"]["rules"], 3);
}
