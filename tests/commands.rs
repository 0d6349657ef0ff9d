//! What operators type: `demo`, `check`, `status`, `sessions`, against real servers.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test has no callers, and what is wrong should stop it"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use countersign::cli::cluster::free_port;
use serde_json::Value;
use support::{BOB, Setup, Stack, countersign, signal, text, wait_for};

/// A command of the stack's reviewer, and what it printed.
fn as_bob(stack: &Stack, arguments: &[&str]) -> Output {
    countersign()
        .args(arguments)
        .env("COUNTERSIGN_URL", format!("http://127.0.0.1:{}", stack.console))
        .env("COUNTERSIGN_TOKEN", BOB.1)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A demo that ends with the test, and takes its Postgres along.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            signal(self.0.id(), "INT");
            self.0.wait().unwrap();
        }
    }
}

#[test]
fn the_demo_says_what_to_try_does_it_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    // Postgres runs as another user when we are root.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(temporary.path(), open).unwrap();
    let (port, console) = (free_port().unwrap(), free_port().unwrap());
    let demo = countersign()
        .args(["demo", "--port", &port.to_string(), "--console-port", &console.to_string()])
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = Ended(demo);
    let mut lines = BufReader::new(demo.0.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("ends it and removes everything") {
        said.push_str(&lines.next().expect("it goes on").unwrap());
        said.push('\n');
    }
    let between = |from: &str, to: &str| {
        let rest = said.split_once(from).unwrap_or_else(|| panic!("no {from} in {said}")).1;
        rest.split_once(to).unwrap().0.to_owned()
    };
    let url = format!("postgresql://{}", between("psql \"postgresql://", "\""));
    let token = between("COUNTERSIGN_TOKEN=", "\n");
    let reviewer = |arguments: &[&str]| {
        countersign()
            .args(arguments)
            .env("COUNTERSIGN_URL", format!("http://127.0.0.1:{console}"))
            .env("COUNTERSIGN_TOKEN", &token)
            .output()
            .unwrap()
    };
    let psql = |statement: &str| {
        let mut psql = Command::new("psql");
        psql.args(["-X", &url, "-c", statement]).stdout(Stdio::piped()).stderr(Stdio::piped());
        psql.spawn().unwrap()
    };
    let waiting = || -> Option<String> {
        let requests = json(&reviewer(&["requests", "list", "--state", "waiting", "--json"]));
        Some(requests.as_array()?.first()?["id"].as_str()?.to_owned())
    };

    let read = psql("SELECT * FROM revenue_by_region").wait_with_output().unwrap();
    assert!(text(&read).contains("(3 rows)"), "{}", text(&read));

    let export = psql("COPY customers TO STDOUT");
    wait_for("the export waits", || waiting().is_some());
    assert!(reviewer(&["requests", "approve", &waiting().unwrap()]).status.success());
    let export = text(&export.wait_with_output().unwrap());
    assert_eq!(export.matches("@example.com").count(), 500, "{export}");

    let drop = psql("DROP TABLE coupons");
    wait_for("the DROP waits", || waiting().is_some());
    let denied = reviewer(&["requests", "deny", &waiting().unwrap(), "--reason", "not today"]);
    assert!(denied.status.success(), "{}", text(&denied));
    assert!(text(&drop.wait_with_output().unwrap()).contains("not today"));

    let grant = psql("GRANT SELECT ON customers TO PUBLIC");
    wait_for("the GRANT waits", || waiting().is_some());
    signal(grant.id(), "INT");
    assert!(text(&grant.wait_with_output().unwrap()).contains("canceling statement"));

    // The link asks first: whatever fetches links to look at them must not use it up.
    let link = format!("http://127.0.0.1:{console}/sign-in/{}", between("/sign-in/", "\n").trim());
    let page = ureq::get(&link).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(page.contains("<form") && page.contains("Sign in"), "{page}");

    let ledger = between("ledger verify ", " --anchor");
    let head = between("--anchor ", "\n");
    let verified = countersign().args(["ledger", "verify", &ledger, "--anchor", &head]).output().unwrap();
    assert!(verified.status.code().is_some_and(|code| code <= 1), "{}", text(&verified));
    assert!(text(&verified).contains("3 opened, 2 answers counted"), "{}", text(&verified));

    signal(demo.0.id(), "INT");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(demo.0.wait().unwrap().success(), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("everything is removed."), "{rest:?}");
    let left: Vec<PathBuf> =
        std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_demo_whose_port_is_taken_says_so_and_starts_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let demo = countersign().args(["demo", "--port", &port]).output().unwrap();

    assert_eq!(demo.status.code(), Some(2));
    assert!(text(&demo).contains(&format!("port {port} is in use")) && text(&demo).contains("--port"));
}

fn check(config: &Path) -> (i32, Value) {
    let output = countersign().args(["check", "--json", "-c"]).arg(config).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn check_finds_every_problem_at_once_and_warns_of_a_role_that_can_do_too_much() {
    let mut stack = Stack::with(&Setup { superuser: true, ..Setup::default() });
    let config = stack.path("countersign.toml");
    stack.stop_proxy();

    let (code, answer) = check(&config);
    assert_eq!(code, 0, "{answer}");
    assert!(answer["warnings"].to_string().contains("superuser"), "{answer}");

    // A wrong upstream password, a policy that is wrong, and a certificate that is not there.
    std::fs::write(stack.path("upstream-password"), "another").unwrap();
    std::fs::write(stack.path("policies/bad.toml"), "[[rule]]\nnam = \"x\"\n").unwrap();
    let (code, answer) = check(&config);
    let problems = answer["problems"].to_string();
    assert_eq!(code, 2, "{answer}");
    assert!(problems.contains("password authentication failed"), "{problems}");
    assert!(problems.contains("bad.toml:2"), "{problems}");
    assert!(!problems.contains("another"), "{problems}");

    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("head_file", "haed_file").replace("owner =", "owner = 3 #"))
        .unwrap();
    let (code, answer) = check(&config);
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(code, 2);
    assert!(problems.len() >= 2, "{answer}");
    assert!(problems.iter().all(|line| line.as_str().unwrap().contains("countersign.toml:")), "{answer}");
    assert!(answer["problems"].to_string().contains("head_file"), "the nearest key is named: {answer}");
}

#[test]
fn status_and_sessions_show_what_runs_and_a_session_can_be_ended() {
    let mut stack = Stack::start();
    let mut psql = stack.psql_start(&["select 'first'", "drop table orders"]);
    let request = stack.request();

    let status = json(&as_bob(&stack, &["status", "--json"]));
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["requests"]["waiting"], 1, "{status}");
    let sessions = json(&as_bob(&stack, &["sessions", "list", "--json"]));
    let session = &sessions.as_array().unwrap()[0];
    assert_eq!(session["agent"], support::AGENT, "{session}");
    assert_eq!(session["request"], request["id"], "{session}");

    let id = session["id"].as_str().unwrap();
    assert!(as_bob(&stack, &["sessions", "kill", id]).status.success());
    let mut shown = String::new();
    psql.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(!psql.wait().unwrap().success());
    assert!(shown.contains("FATAL") || shown.contains("server closed the connection"), "{shown}");
    assert!(stack.waiting().is_empty());
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
    assert_ne!(as_bob(&stack, &["sessions", "kill", id]).status.code(), Some(0), "it is gone");
    stack.assert_verifies();
}

#[test]
fn a_proxy_whose_policies_fail_their_cases_does_not_start() {
    let mut stack = Stack::start();
    stack.stop_proxy();
    std::fs::write(
        stack.path("policies/loose.toml"),
        "[[rule]]\nname = \"loose\"\nwhen = { class = [\"ddl\"] }\nthen = \"allow\"\n\
         [[case]]\nname = \"no drops\"\nsql = \"DROP TABLE orders\"\nexpect = { then = \"hold\" }\n",
    )
    .unwrap();

    let output = countersign().args(["serve", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("no drops"), "{}", text(&output));
}

#[test]
fn check_lists_extensions_with_what_trusting_them_means() {
    let stack = Stack::with(&Setup {
        policy: Some("safe_extensions = ['pg_trgm']\n".into()),
        sql: "CREATE EXTENSION pg_trgm; CREATE EXTENSION fuzzystrmatch; CREATE EXTENSION dblink".into(),
        ..Setup::default()
    });
    let config = stack.path("countersign.toml");
    let checked = countersign().args(["check", "--json", "-c"]).arg(&config).output().unwrap();
    let good = json(&checked)["ok"].to_string();
    for line in [
        "extension pg_trgm 1.6 is trusted",
        "safe_extensions = [\\\"fuzzystrmatch\\\"]",
        "reaches other servers over the network: it cannot be trusted as a whole",
    ] {
        assert!(good.contains(line), "{line}: {good}");
    }

    let told = countersign()
        .args(["classify", "-c"])
        .arg(&config)
        .arg("SELECT levenshtein('a', 'b')")
        .output()
        .unwrap();
    let told = text(&told);
    assert!(told.contains("declare public.levenshtein safe, or the extension fuzzystrmatch"), "{told}");
}

#[test]
fn classify_asks_the_upstream_of_a_configuration_what_names_mean() {
    let stack = Stack::with(&Setup {
        policy: Some("safe_functions = [\"public.harmless\"]\nsensitive = [\"public.customers\"]\n".into()),
        sql: "CREATE FUNCTION harmless() RETURNS int LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
              CREATE VIEW shown AS SELECT * FROM customers;"
            .into(),
        ..Setup::default()
    });
    let config = stack.path("countersign.toml");
    let classify = |arguments: &[&str], sql: &str| {
        json(&countersign().args(["classify", "--json"]).args(arguments).arg(sql).output().unwrap())
    };
    let asked = ["-c", config.to_str().unwrap()];

    assert_eq!(classify(&[], "SELECT lower('X')")["class"], "read");
    assert_eq!(classify(&asked, "SELECT lower('X')")["class"], "code");
    assert_eq!(classify(&[], "SELECT harmless()")["class"], "code");
    assert_eq!(classify(&asked, "SELECT harmless()")["class"], "read");
    let shown = classify(&asked, "SELECT * FROM shown");
    assert_eq!(shown["class"], "export");
    assert_eq!(shown["effects"][0]["through"], "public.shown", "{shown}");

    let unknown =
        countersign().args(["classify", "--upstream", "nowhere"]).args(asked).arg("SELECT 1").output();
    let said = String::from_utf8(unknown.unwrap().stderr).unwrap();
    assert!(said.contains("--upstream: app"), "{said}");
}

#[test]
fn a_function_in_sql_that_only_reads_is_a_read_of_what_it_reads() {
    let stack = Stack::with(&Setup {
        policy: Some("sensitive = [\"public.orders\"]\n".into()),
        sql: "CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM customers';
              CREATE FUNCTION half(n numeric) RETURNS numeric IMMUTABLE LANGUAGE sql SET search_path = public AS 'SELECT n / 2';
              CREATE FUNCTION half_total() RETURNS numeric STABLE LANGUAGE sql AS 'SELECT half(total())';
              CREATE FUNCTION over_all(n int) RETURNS int STABLE LANGUAGE sql AS 'SELECT n';
              CREATE FUNCTION over_all(n text) RETURNS int STABLE LANGUAGE sql AS 'SELECT length(n)';
              CREATE SCHEMA other;
              CREATE FUNCTION other.upper(varchar) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1::text';

              CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION definer() RETURNS bigint STABLE SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM customers';
              CREATE FUNCTION files() RETURNS text STABLE LANGUAGE sql AS 'SELECT pg_read_file(''x'')';
              CREATE FUNCTION calls_files() RETURNS text STABLE LANGUAGE sql AS 'SELECT files()';
              CREATE FUNCTION defaults(n int DEFAULT writes()) RETURNS int STABLE LANGUAGE sql AS 'SELECT n';
              CREATE FUNCTION sets() RETURNS int STABLE LANGUAGE sql SET work_mem = '1MB' AS 'SELECT 1';
              CREATE FUNCTION loops(n int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
              CREATE OR REPLACE FUNCTION loops(n int) RETURNS int STABLE LANGUAGE sql
                AS 'SELECT CASE WHEN n > 0 THEN loops(n - 1) END';
              CREATE FUNCTION bulk() RETURNS SETOF orders STABLE LANGUAGE sql AS 'SELECT * FROM orders';
              CREATE FUNCTION pl() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
              CREATE FUNCTION atomic() RETURNS int STABLE LANGUAGE sql RETURN writes();
              CREATE FUNCTION checked(n int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
              CREATE DOMAIN guarded AS int CHECK (checked(value));
              CREATE FUNCTION takes(n guarded) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION gives() RETURNS guarded STABLE LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION one(i int) RETURNS SETOF orders STABLE LANGUAGE sql AS 'SELECT * FROM orders WHERE id = $1';
              CREATE FUNCTION plus(anyelement) RETURNS anyelement STABLE LANGUAGE sql AS 'SELECT $1 + 1';
              CREATE TYPE pair AS (a int); CREATE FUNCTION cast_pair(pair) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
              CREATE CAST (pair AS text) WITH FUNCTION cast_pair(pair) AS IMPLICIT;
              CREATE FUNCTION mixed(n int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION mixed(n text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';"
            .into(),
        ..Setup::default()
    });
    let config = stack.path("countersign.toml");
    let texts = [
        ("read", "SELECT total()"),
        ("read", "SELECT half(7)"),
        ("read", "SELECT public.half_total()"),
        ("read", "SELECT over_all(7), over_all('x')"),
        ("read", "SELECT upper('x')"),
        ("code", "SELECT writes()"),
        ("code", "SELECT definer()"),
        ("code", "SELECT files()"),
        ("code", "SELECT calls_files()"),
        ("code", "SELECT defaults()"),
        ("code", "SELECT sets()"),
        ("code", "SELECT loops(3)"),
        ("code", "SELECT bulk()"),
        ("code", "SELECT pl()"),
        ("code", "SELECT atomic()"),
        ("code", "SELECT takes(1)"),
        ("code", "SELECT gives()"),
        ("code", "SELECT mixed(1)"),
        ("code", "SELECT o.* FROM generate_series(1, 20000) g, one(g) o"),
        ("code", "SELECT plus(1)"),
        ("code", "SELECT lower(row(1)::pair)"),
    ];
    let line = |(class, sql): &(&str, &str)| serde_json::json!({ "id": class, "sql": sql }).to_string();
    let input = stack.path("lines.jsonl");
    std::fs::write(&input, texts.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let mut classify = countersign();
    classify.args(["classify", "--jsonl", "-c"]).arg(&config).stdin(std::fs::File::open(&input).unwrap());
    let output = text(&classify.output().unwrap());
    let found: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    assert_eq!(found.len(), texts.len(), "{output}");
    for (found, (class, sql)) in found.iter().zip(texts) {
        assert_eq!(found["class"], *class, "{sql}: {found}");
    }
    let effects = found[2]["effects"].to_string();
    assert!(effects.contains("customers") && effects.contains("through\":\"public.half_total"), "{effects}");
    let reason = found[6]["reasons"][0]["text"].as_str().unwrap();
    assert!(reason.contains("it is a stable sql function that runs as its owner, postgres"), "{reason}");
    assert!(reason.ends_with("; if it is harmless, declare public.definer safe"), "{reason}");
}

#[test]
fn check_lists_what_statements_set_off_unseen() {
    let stack = Stack::with(&Setup {
        sql: "CREATE SCHEMA theirs; GRANT USAGE ON SCHEMA theirs TO app;
              CREATE FUNCTION theirs.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
              CREATE FUNCTION theirs.definer() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION theirs.fixed() RETURNS int SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT 1';
              CREATE FUNCTION theirs.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
              CREATE TABLE theirs.triggered (a int); GRANT INSERT ON theirs.triggered TO app;
              CREATE TRIGGER t BEFORE INSERT ON theirs.triggered FOR EACH ROW EXECUTE FUNCTION theirs.t();
              CREATE TABLE theirs.ruled (a int); GRANT INSERT ON theirs.ruled TO app;
              CREATE RULE r AS ON INSERT TO theirs.ruled DO ALSO SELECT 1;
              CREATE VIEW theirs.shown AS SELECT theirs.f(1); GRANT SELECT ON theirs.shown TO app;
              CREATE TABLE theirs.defaulted (a int DEFAULT theirs.f(1));
              CREATE TABLE theirs.checked (a int CHECK (theirs.f(a) > 0));
              CREATE TABLE theirs.secured (a int); CREATE POLICY p ON theirs.secured USING (theirs.f(a) > 0);
              CREATE TABLE theirs.indexed (a int); CREATE INDEX ON theirs.indexed (theirs.f(a));
              CREATE TYPE theirs.pair AS (a int); CREATE FUNCTION theirs.p(text) RETURNS theirs.pair LANGUAGE sql AS 'SELECT row(1)::theirs.pair';
              CREATE CAST (text AS theirs.pair) WITH FUNCTION theirs.p(text) AS IMPLICIT;
              CREATE FUNCTION theirs.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
              CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION theirs.e();
              CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
              CREATE FOREIGN TABLE theirs.far (a int) SERVER s; GRANT SELECT ON theirs.far TO app;
              CREATE SCHEMA open; GRANT CREATE ON SCHEMA open TO app;
              CREATE TABLE own (a int); ALTER TABLE own OWNER TO app;"
            .into(),
        ..Setup::default()
    });

    let (code, answer) = check(&stack.path("countersign.toml"));

    let unseen: Vec<&str> = answer["unseen"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(code, 0, "{answer}");
    for (name, what) in [
        ("theirs.definer()", "the caller's search_path"),
        ("theirs.fixed()", "their owners' rights, whose"),
        ("theirs.triggered", "triggers"),
        ("theirs.ruled", "rules"),
        ("theirs.shown", "views that call"),
        ("theirs.defaulted", "defaults"),
        ("theirs.checked", "checks"),
        ("theirs.secured", "row security policies"),
        ("theirs.indexed", "indexes"),
        ("text to theirs.pair", "casts"),
        (": watch.", "event triggers"),
        ("theirs.far", "foreign tables"),
        (": open, public.", "the role may create"),
        ("public.customers, public.orders, public.own", "the role's own"),
    ] {
        let found = unseen.iter().any(|line| line.contains(what) && line.contains(name));
        assert!(found, "{name}: {unseen:#?}");
    }
}
