//! What an operator does before the proxy runs: a folder to start from, agents, reviewers, policies.
//! Through the built program, as scripts use it.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn init_writes_a_configuration_that_loads_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = start(dir.path());

    let loaded = countersign::config::Config::load(&config).expect("it loads");
    let policy = loaded.load_policy().expect("its policies load");
    assert_eq!(policy.rules().len(), 1);
    assert!(loaded.tls.is_some() && loaded.console.is_some() && !loaded.secret_is_temporary);
    let key = mode(&dir.path().join("c/server.key"));
    let secret = mode(&dir.path().join("c/keys/installation.secret"));
    assert_eq!((key, secret, mode(&config)), (0o600, 0o600, 0o600));

    let before = fs::read(&config).unwrap();
    let again = run(dir.path(), &["init", "c"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("nothing was written"));
    assert_eq!(fs::read(&config).unwrap(), before);
}

#[test]
fn an_agent_is_added_and_its_token_fits_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let config = start(dir.path());

    let added = json(
        dir.path(),
        &[
            "agent",
            "add",
            "-c",
            "c/countersign.toml",
            "bot",
            "--owner",
            "alice@example.com",
            "--upstream",
            "app",
            "--json",
        ],
    );

    let token = added["token"].as_str().unwrap();
    assert_eq!(
        added["url"].as_str().unwrap(),
        format!("postgresql://bot:{token}@127.0.0.1:6432/app?sslmode=require")
    );
    let loaded = countersign::config::Config::load(&config).unwrap();
    let entry = loaded.directory.agent(&"bot".into()).unwrap();
    assert!(entry.has_password(token));
    let stored = fs::read_to_string(&config).unwrap();
    assert!(!stored.contains(token), "the token itself is nowhere");
}

#[test]
fn a_reviewer_is_added_and_recognised_by_their_token_until_it_is_rotated() {
    use countersign::identity::ReviewerIdentity as _;
    use countersign::identity::reviewer::PersonalTokens;

    let dir = tempfile::tempdir().unwrap();
    let config = start(dir.path());
    let file = ["-c", "c/countersign.toml", "--json"];
    let recognised = |token: &str| {
        let loaded = countersign::config::Config::load(&config).unwrap();
        let who = PersonalTokens.recognise(&loaded.directory, token, "2026-01-05T00:00:00Z".parse().unwrap());
        who.map(|who| who.reviewer().id.to_string())
    };

    let first = json(
        dir.path(),
        &[&["reviewer", "add", "bob@example.com", "--group", "dba", "--also", "rob"], &file[..]].concat(),
    );
    let first = first["token"].as_str().unwrap();
    assert_eq!(recognised(first).as_deref(), Ok("bob@example.com"));

    let second = json(dir.path(), &[&["reviewer", "rotate", "bob@example.com"], &file[..]].concat());
    assert!(recognised(first).is_err());
    assert!(recognised(second["token"].as_str().unwrap()).is_ok());

    let link = json(dir.path(), &[&["reviewer", "link", "bob@example.com"], &file[..]].concat());
    assert!(link["url"].as_str().unwrap().starts_with("http://127.0.0.1:6480/sign-in/csl_"));
    assert_eq!(
        run(dir.path(), &["reviewer", "remove", "bob@example.com", "-c", "c/countersign.toml"]).status.code(),
        Some(0)
    );
    assert!(recognised(second["token"].as_str().unwrap()).is_err());
}

#[test]
fn what_cannot_be_done_is_said_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path());
    let refused = |arguments: &[&str]| {
        let output = run(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        text(&output.stderr)
    };
    let add = ["agent", "add", "-c", "c/countersign.toml", "bot", "--owner", "a@b", "--upstream", "app"];
    assert!(run(dir.path(), &add).status.success());

    assert!(refused(&add).contains("the agent \"bot\" exists already"));
    assert!(
        refused(&["agent", "revoke", "-c", "c/countersign.toml", "ghost"])
            .contains("there is no agent \"ghost\"")
    );
    let elsewhere =
        ["agent", "add", "-c", "c/countersign.toml", "b2", "--owner", "a@b", "--upstream", "elsewhere"];
    assert!(refused(&elsewhere).contains("there is no upstream \"elsewhere\"; there is app"));
    let both = ["reviewer", "add", "-c", "c/countersign.toml", "BOT", "--group", "dba"];
    assert!(refused(&both).contains("an agent cannot answer requests"));

    let missing = run(dir.path(), &["agent", "list", "-c", "nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn revoked_agents_are_listed_as_such() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path());
    run(
        dir.path(),
        &["agent", "add", "-c", "c/countersign.toml", "bot", "--owner", "a@b", "--upstream", "app"],
    );
    run(dir.path(), &["agent", "revoke", "-c", "c/countersign.toml", "bot"]);

    let listed = json(dir.path(), &["agent", "list", "-c", "c/countersign.toml", "--json"]);

    assert_eq!(listed[0]["name"], "bot");
    assert_eq!(listed[0]["revoked"], true);
}

#[test]
fn policy_test_runs_the_cases_we_ship() {
    let policies = shipped();

    let human = run(Path::new("/"), &["policy", "test", &policies]);
    assert_eq!(human.status.code(), Some(0), "{}", text(&human.stdout));
    assert!(text(&human.stdout).ends_with(" passed, 0 failed\n"));

    let report = json(Path::new("/"), &["policy", "test", &policies, "--json"]);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["cases"].as_array().unwrap().len() as u64, report["passed"].as_u64().unwrap());
}

#[test]
fn a_failing_case_says_where_and_what_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("p.toml"),
        "[[case]]\nname = \"exports run\"\nsql = \"COPY t TO STDOUT\"\nexpect = { then = \"allow\" }\n",
    )
    .unwrap();

    let output = run(dir.path(), &["policy", "test", "p.toml"]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        "FAILED  p.toml:1  exports run\n          | COPY t TO STDOUT\n        expected allow, got hold\n0 passed, 1 failed\n"
    );
}

#[test]
fn a_policy_that_is_wrong_is_not_tested() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.toml"), "[[rule]]\nname = \"x\"\nthen = \"hold\"\naprovals = []\n").unwrap();

    let output = run(dir.path(), &["policy", "test", "p.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("p.toml:4: rule[0].aprovals: unknown key; did you mean \"approvals\"?")
    );

    let output = run(dir.path(), &["policy", "lint", "p.toml", "--json"]);
    let problems: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problems["problems"][0]["line"], 4);
}

#[test]
fn lint_knows_the_people_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path());

    let nobody = run(dir.path(), &["policy", "lint", "-c", "c/countersign.toml"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stdout)
            .contains("rule held-by-default: nobody can ever approve: group \"dba\" has nobody in it")
    );

    run(dir.path(), &["reviewer", "add", "-c", "c/countersign.toml", "bob", "--group", "dba"]);
    let somebody = run(dir.path(), &["policy", "lint", "-c", "c/countersign.toml"]);
    assert_eq!(somebody.status.code(), Some(0), "{}", text(&somebody.stdout));
}

#[test]
fn the_digest_that_show_prints_is_of_the_form_that_it_prints() {
    let policies = shipped();
    let shown = json(Path::new("/"), &["policy", "show", &policies, "--json"]);
    let normal = text(&run(Path::new("/"), &["policy", "show", &policies, "--normal"]).stdout);

    let bytes = [b"countersign/policy/v1\0", normal.trim_end().as_bytes()].concat();
    let digest = countersign::statement::Digest::of(&bytes).to_string();

    assert_eq!(shown["digest"], digest);
}

// ---- helpers ----------------------------------------------------------------------------------

/// Runs `init c` in `dir`; gives the configuration's path.
fn start(dir: &Path) -> PathBuf {
    let output = run(dir, &["init", "c"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    dir.join("c/countersign.toml")
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("COUNTERSIGN_CONFIG")
        .output()
        .unwrap()
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn shipped() -> String {
    format!("{}/policies", env!("CARGO_MANIFEST_DIR"))
}
