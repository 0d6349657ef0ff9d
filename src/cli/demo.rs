//! `countersign demo`: everything at once, in a folder that goes when it ends.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::cluster::{Cluster, find_server};
use super::init;
use super::serve::{Running, runtime};
use super::terminal;
use crate::actor::ReviewerId;
use crate::approval::{HoldState, Request};
use crate::config::Config;
use crate::desk::DeskEvent;
use crate::identity::ScramVerifier;
use crate::identity::secret::{Kind, SecretHash, generate};

/// Try it: a throw-away Postgres with sample data, the proxy, the console, one agent, two reviewers
///
/// Ctrl-C ends it and removes everything.
#[derive(Args)]
pub(super) struct Arguments {
    /// The proxy's port on 127.0.0.1
    #[arg(long, default_value_t = 6432)]
    port: u16,
    /// The console's port on 127.0.0.1
    #[arg(long, default_value_t = 6480)]
    console_port: u16,
}

const CONFIG: &str = include_str!("demo.toml");
const SAMPLE: &str = include_str!("demo.sql");
/// The password of the role in [`SAMPLE`]; agents never see it.
const UPSTREAM_PASSWORD: &str = "only-the-proxy-knows-this";

/// What the newcomer has to be told.
struct Secrets {
    agent: String,
    bob: String,
    carol: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::log::start_at("warn");
    for (what, port, flag) in
        [("the proxy", arguments.port, "--port"), ("the console", arguments.console_port, "--console-port")]
    {
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            bail!("port {port} is in use, and {what} wants it; choose another with {flag}");
        }
    }
    say("starting a throw-away Postgres ...");
    let password = generate(Kind::Session);
    let cluster = Cluster::start(&find_server()?, &password, &[])?;
    load_sample(&cluster)?;

    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let directory = tempfile_directory()?;
    let outcome = prepare(arguments, &cluster, directory.path()).and_then(|secrets| {
        let config = directory.path().join("countersign.toml");
        let config = Config::load(&config).map_err(|problems| {
            super::report_problems(&problems);
            anyhow::anyhow!("the demo's configuration is wrong, which is a bug")
        })?;
        runtime()?.block_on(serve(config, directory.path(), &secrets))
    });
    drop(cluster);
    drop(directory);
    outcome?;
    say("everything is removed.");
    Ok(ExitCode::SUCCESS)
}

fn say(what: &str) {
    terminal::narrate(what);
}

/// A private directory that is removed when it is dropped.
struct Directory(std::path::PathBuf);

impl Directory {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile_directory() -> anyhow::Result<Directory> {
    // A short name, since people copy it. Never one that exists: it may be somebody else's trap.
    for number in 1..100 {
        let name = if number == 1 { "countersign".to_owned() } else { format!("countersign-{number}") };
        let path = std::env::temp_dir().join(name);
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(Directory(path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
        }
    }
    bail!("{} is full of countersign directories; remove them", std::env::temp_dir().display())
}

/// psql over the Unix socket, as the superuser of the throw-away cluster.
fn load_sample(cluster: &Cluster) -> anyhow::Result<()> {
    let psql = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
        .arg(cluster.directory())
        .args(["-p", &cluster.port().to_string(), "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut psql = psql.context("psql is missing; install it (Debian: apt-get install postgresql-client)")?;
    if let Some(mut input) = psql.stdin.take() {
        input.write_all(SAMPLE.as_bytes())?;
    }
    let output = psql.wait_with_output()?;
    if !output.status.success() {
        bail!("loading the sample data: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn prepare(arguments: &Arguments, cluster: &Cluster, directory: &Path) -> anyhow::Result<Secrets> {
    let secrets = Secrets {
        agent: generate(Kind::Agent).to_string(),
        bob: generate(Kind::Reviewer).to_string(),
        carol: generate(Kind::Reviewer).to_string(),
    };
    let config = CONFIG
        .replace("{port}", &arguments.port.to_string())
        .replace("{console_port}", &arguments.console_port.to_string())
        .replace("{upstream_port}", &cluster.port().to_string())
        .replace("{verifier}", &ScramVerifier::of_password(&secrets.agent).to_string())
        .replace("{bob}", &SecretHash::of(&secrets.bob).to_string())
        .replace("{carol}", &SecretHash::of(&secrets.carol).to_string());
    init::lay_out(directory, "demo.example/countersign", &config)?;
    std::fs::write(directory.join("keys/shop.password"), UPSTREAM_PASSWORD)?;
    Ok(secrets)
}

async fn serve(config: Config, directory: &Path, secrets: &Secrets) -> anyhow::Result<()> {
    let agents = config.address_for_agents();
    let console = config.console.as_ref().map(|console| console.url.to_string()).unwrap_or_default();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let running = Running::start(config).await?;
    let link = running.web.as_ref().and_then(|web| web.sign_in_link(&ReviewerId::from("bob@example.com")));
    let link = link.map(|link| link.to_string()).unwrap_or_default();
    introduce(&agents, &console, &link, directory, secrets);

    let mut events = running.shared.desk.subscribe();
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            event = events.recv() => match event {
                Ok(event) => narrate(&event),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            },
        }
    }
    say("\nstopping; what still waits is withdrawn ...");
    // Nothing here is worth waiting for.
    running.stop_after(tokio::time::sleep(std::time::Duration::from_millis(500))).await;
    Ok(())
}

/// A path as people would type it here.
fn short(path: &Path) -> String {
    let here =
        std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    here.as_deref().unwrap_or(path).display().to_string()
}

fn introduce(agents: &str, console: &str, link: &str, directory: &Path, secrets: &Secrets) {
    let Secrets { agent, bob, carol } = secrets;
    let bold = if terminal::error_is_seen() { terminal::BOLD } else { ("", "") };
    let binary = std::env::current_exe().map(|path| short(&path)).unwrap_or_default();
    let (on, off) = bold;
    let config = directory.join("countersign.toml");
    let config = config.display();
    let ledger = directory.join("ledger/countersign.db");
    let ledger = ledger.display();
    say(&format!(
        "
{on}Countersign is running.{off} Agent reporting-bot belongs to Alice; Bob (dba) and Carol (security) review.

{on}1. Be the agent{off}, in another terminal:

   psql \"postgresql://reporting-bot:{agent}@{agents}/shop\"

{on}2. Be the reviewer{off}: sign in as Bob (this link works once, for ten minutes)

   {link}

   or in a terminal:

   export COUNTERSIGN_URL={console} COUNTERSIGN_TOKEN={bob}
   {binary} requests list
   {binary} requests approve CODE

{on}3. Try{off} in psql

   SELECT * FROM revenue_by_region;               a read: passes
   COPY customers TO STDOUT;                      an export: waits for Bob
   DROP TABLE coupons;                            DDL: waits; deny it with a reason
   GRANT SELECT ON customers TO PUBLIC;           a grant: waits; cancel it with Ctrl-C

{on}4. Check the record{off}: everything that happened, signed

   {binary} ledger verify {ledger} --anchor {anchor}
   {binary} ledger tail {ledger}

   With key and anchor from beside the ledger that ends with exit code 1: whoever can replace it can replace
   them. An auditor has copies from elsewhere, made before:  cp {public} {anchor} ELSEWHERE
   {binary} ledger verify {ledger} --key ELSEWHERE/ledger.pub --anchor ELSEWHERE/head

Another sign-in link:  {binary} reviewer link -c {config} bob@example.com
Carol's token:         {carol}

{on}Ctrl-C{off} ends it and removes everything.
",
        anchor = directory.join("anchors/head").display(),
        public = directory.join("keys/ledger.pub").display(),
    ));
}

/// What happens, as it happens, one line each.
fn narrate(event: &DeskEvent) {
    let line = match event {
        DeskEvent::Opened { request, .. } => Some(format!("{} waits: {}", request.id, brief(request))),
        DeskEvent::Reviewed { request, review, .. } => {
            Some(format!("{} {}: {}", request.id, verb(review.verdict), review.reviewer))
        }
        DeskEvent::Escalated { request, to, .. } => Some(format!("{} escalated to {to}", request.id)),
        DeskEvent::Ended { request, state } => match state {
            HoldState::Expired | HoldState::Withdrawn { .. } => {
                Some(format!("{} {}", request.id, state.as_str()))
            }
            HoldState::Waiting
            | HoldState::Granted { .. }
            | HoldState::Denied { .. }
            | HoldState::Executed => None,
        },
        DeskEvent::Ran { request, receipt } => {
            Some(format!("{} ran: {} in {} ms", request.id, receipt.result, receipt.duration_ms))
        }
        DeskEvent::Joined { .. } | DeskEvent::LeftOver { .. } => None,
    };
    if let Some(line) = line {
        say(&format!("   {line}"));
    }
}

fn verb(verdict: crate::approval::Verdict) -> &'static str {
    match verdict {
        crate::approval::Verdict::Approve => "approved by",
        crate::approval::Verdict::Deny => "denied by",
        crate::approval::Verdict::Escalate => "escalated by",
    }
}

/// The beginning of a statement, on one line, with nothing in it that a terminal would obey.
fn brief(request: &Request) -> String {
    let mut line = request.shown_sql().on_one_line().to_string();
    if line.chars().count() > 100 {
        line = line.chars().take(99).chain(['…']).collect();
    }
    format!("{} ({})", line, request.draft.classification.class)
}
