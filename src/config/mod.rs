//! The configuration file: as written ([`raw`]), and as meant ([`Config`]).
//!
//! One TOML file. Every mistake in it is reported at once, with file, line and key. Paths are
//! relative to the file. Secrets never stand in it: they are named, by `*_file` or `env:NAME`, and
//! read when the configuration is loaded, so that what is missing is known at start.
//!
//! - [`raw`]: what may be written.
//! - [`secret`]: values that are never printed.
//! - [`edit`]: adding agents and reviewers while keeping the operator's comments.
//! - [`problems`]: what is allowed and yet probably a mistake.

pub mod edit;
pub mod problems;
pub mod raw;
pub mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

pub use self::problems::Concern;
pub use self::secret::Secret;
use crate::actor::UpstreamName;
use crate::channel;
use crate::channel::slack::{SLACK_API, SlackSettings, Timing, Token};
use crate::desk;
use crate::identity::keys::KeyPlace;
use crate::identity::{Directory, TokenRule};
use crate::ledger::{self, Signing};
use crate::policy::{Defaults, Policy};
use crate::statement::{Digest, Target};
use crate::toml_reader::{Place, Problem};

/// What is wrong with the file.
pub type ConfigError = Problem;

/// The configuration, as meant: checked, defaults filled in, secrets read.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Digest of the file's bytes, for the ledger.
    pub digest: Digest,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// What agents are told to connect to, where that is not `listen`.
    pub advertise: Option<String>,
    /// The certificate that agents are shown.
    pub tls: Option<Tls>,
    /// Agents may connect without TLS, off loopback, too.
    pub insecure_plaintext: bool,
    /// The servers behind.
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
    /// Agents and reviewers.
    pub directory: Arc<Directory>,
    /// The secret of the directory was made up for this run, because the file names none.
    pub secret_is_temporary: bool,
    /// Where policies are, and what holds where they say nothing.
    pub policy: PolicySettings,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// The web console and API.
    pub console: Option<Console>,
    /// The channels beside the console.
    pub channels: Vec<channel::Settings>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How much is taken on.
    pub limits: Limits,
    /// Every file that it was read from or names, but for what is read each time it is used: a change
    /// of one is a change of the configuration.
    pub files: Vec<PathBuf>,
}

/// The certificate that agents are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM, the chain.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM: who signs agents' certificates, where they have some.
    pub client_ca: Option<PathBuf>,
}

/// A server behind.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The name agents ask for.
    pub name: UpstreamName,
    /// Host name or address; a path is the directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Target: name, database, role.
    pub target: Target,
    /// The role's password.
    pub password: Option<Secret>,
    /// How the connection is protected.
    pub tls: UpstreamTls,
    /// PEM: who signs the server's certificate, where that is not somebody whom the system trusts.
    pub ca: Option<PathBuf>,
    /// PEM, both: the certificate that we show, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// What its sessions are called there.
    pub application_name: ApplicationName,
}

impl Upstream {
    /// Whether the connection does not leave the machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_local_host(&self.host)
    }
}

/// What `pg_stat_activity` and the server's log call a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationName {
    /// `countersign AGENT SESSION`: who is behind it.
    Session,
    /// What the agent calls itself, as without a proxy.
    Agent,
}

impl ApplicationName {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Agent => "agent",
        }
    }
}

/// How the connection to a server behind is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Encrypted, and the certificate is for this host.
    VerifyFull,
    /// Encrypted, and the certificate is by a known authority.
    VerifyCa,
    /// Encrypted; whoever answers is believed.
    Require,
    /// Not encrypted.
    Disable,
}

impl UpstreamTls {
    /// The stable spelling, which is libpq's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::VerifyCa => "verify-ca",
            Self::Require => "require",
            Self::Disable => "disable",
        }
    }
}

/// Where policies are, and what holds where they say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// The folder with `*.toml`.
    pub dir: PathBuf,
    /// What holds where no rule says otherwise.
    pub defaults: Defaults,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSettings {
    /// The database file; its spool, index and lock lie beside it.
    pub path: PathBuf,
    /// The root's private key; its public half lies beside it.
    pub key: PathBuf,
    /// What is signed one by one.
    pub signing: Signing,
    /// Where the tree head is kept apart from the ledger, so that a roll-back shows.
    pub head_files: Vec<PathBuf>,
}

/// The web console and API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How browsers reach it.
    pub url: Url,
}

/// How much is taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Sessions of one agent at a time.
    pub sessions_per_agent: usize,
    /// The longest message of the protocol, in bytes.
    pub message_bytes: usize,
    /// The longest text of a statement that is parsed, in bytes; lists of literals do not count.
    pub text_bytes: usize,
    /// Bytes of texts that a session may keep before it may prepare no more.
    pub prepared_bytes: usize,
    /// The same of all sessions of one agent.
    pub prepared_bytes_per_agent: usize,
    /// Bytes of texts of an open transaction that are kept for reviewers.
    pub transaction_bytes: usize,
    /// How long an agent may take to log in.
    pub login: Duration,
    /// Connections at a time that have not proved who they are.
    pub unauthenticated: usize,
    /// How many of them one address of another machine may have; a quarter if it is not given.
    pub unauthenticated_per_address: Option<usize>,
    /// HTTP connections to the console and its API.
    pub console_connections: usize,
    /// And how many of them one address may have, those of people who proved who they are aside; a
    /// quarter, where it is not said.
    pub console_connections_per_address: Option<usize>,
    /// How much waits.
    pub desk: desk::Limits,
}

impl Limits {
    /// Those of classification.
    #[must_use]
    pub fn classify(&self) -> crate::classify::Limits {
        let default = crate::classify::Limits::default();
        crate::classify::Limits {
            parse_bytes: self.text_bytes,
            bulk_bytes: default.bulk_bytes.max(self.text_bytes),
            ..default
        }
    }
}

impl Config {
    /// Reads the file at `path` and everything it names.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let text = read_text(path)?;
        Self::from_text(path, &text, &|name| std::env::var(name).ok())
    }

    /// The same for a text that was read already; `env` looks variables up.
    pub fn from_text(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigError>> {
        let raw = raw::RawConfig::read(&path.display().to_string(), text)?;
        let mut resolve = Resolve { path, env, problems: Vec::new(), files: vec![path.to_owned()] };
        let config = resolve.config(raw, Digest::of(text.as_bytes()));
        match config {
            Some(config) if resolve.problems.is_empty() => Ok(config),
            Some(_) | None => {
                resolve.problems.sort_by_key(|problem| problem.line);
                Err(resolve.problems)
            }
        }
    }

    /// Reads the policies of the folder that the configuration names.
    pub fn load_policy(&self) -> Result<Policy, Vec<Problem>> {
        load_policy(std::slice::from_ref(&self.policy.dir), self.policy.defaults.clone())
    }

    /// How the ledger is set up.
    #[must_use]
    pub fn ledger_settings(&self) -> ledger::Settings {
        ledger::Settings {
            key: Some(self.ledger.key.clone()),
            signing: self.ledger.signing,
            heads: self.ledger.head_files.clone(),
            ..ledger::Settings::new(&self.ledger.path)
        }
    }

    /// The address that agents are told, as `host:port`.
    #[must_use]
    pub fn address_for_agents(&self) -> String {
        address_for_agents(self.advertise.as_deref(), self.listen)
    }
}

/// The address that agents are told. Nobody can connect to "every address", so that becomes the
/// machine's own.
pub(crate) fn address_for_agents(advertise: Option<&str>, listen: SocketAddr) -> String {
    match advertise {
        Some(address) => address.to_owned(),
        None if listen.ip().is_unspecified() => format!("localhost:{}", listen.port()),
        None => listen.to_string(),
    }
}

/// Reads every `*.toml` in the given folders (or the files themselves) as one set. Files are named
/// as they were given, so that an error can be clicked on.
pub fn load_policy(paths: &[PathBuf], defaults: Defaults) -> Result<Policy, Vec<Problem>> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        match policy_files(path) {
            Ok(found) => files.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut texts = Vec::new();
    for file in files {
        match read_text(&file) {
            Ok(text) => texts.push((file.display().to_string(), text)),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Policy::load(&texts, defaults)
}

fn policy_files(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    let problem = |error: std::io::Error| file_problem(path, format!("cannot be read: {error}"));
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(problem)? {
        let file = entry.map_err(problem)?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if file.extension().is_some_and(|extension| extension == "toml") && !hidden {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn read_text(path: &Path) -> Result<String, Vec<Problem>> {
    std::fs::read_to_string(path)
        .map_err(|error| vec![file_problem(path, format!("cannot be read: {error}"))])
}

fn file_problem(path: &Path, message: String) -> Problem {
    Problem { file: path.display().to_string().into(), line: 0, key: String::new(), message }
}

fn is_local_host(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Turns what is written into what is meant.
struct Resolve<'a> {
    path: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
    /// Files that were looked at.
    files: Vec<PathBuf>,
}

impl Resolve<'_> {
    fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.path.display().to_string().into(),
            line: place.line,
            key: place.key.clone(),
            message: message.into(),
        });
    }

    fn file(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn existing(&mut self, at: &crate::toml_reader::At<String>) -> PathBuf {
        let path = self.file(&at.value);
        if !path.is_file() {
            self.problem(&at.place, format!("there is no file {}", path.display()));
        }
        self.files.push(path.clone());
        path
    }

    /// An agent's entry with the files of its token's rule where they are.
    fn agent(&mut self, mut agent: raw::RawAgent) -> raw::RawAgent {
        for file in &agent.files {
            self.existing(file);
        }
        if let Some(rule) = &agent.entry.token {
            let mut rule = TokenRule::clone(rule);
            let absolute = |path: &Path| self.path.parent().unwrap_or(Path::new("")).join(path);
            rule.keys = match rule.keys {
                KeyPlace::File(path) => KeyPlace::File(absolute(&path)),
                KeyPlace::Url { url, ca } => KeyPlace::Url { url, ca: ca.as_deref().map(absolute) },
            };
            agent.entry.token = Some(Arc::new(rule));
        }
        agent
    }

    fn secret(&mut self, source: &raw::SecretSource) -> Option<Secret> {
        if let secret::Named::File(path) = &source.named {
            self.files.push(self.file(path));
        }
        match secret::read(&source.named, &|path| self.file(path), self.env) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.problem(&source.place, message);
                None
            }
        }
    }

    fn config(&mut self, raw: raw::RawConfig, digest: Digest) -> Option<Config> {
        if raw.tls.is_none() && !raw.insecure_plaintext && !raw.listen.value.ip().is_loopback() {
            self.problem(
                &raw.listen.place,
                "is not a loopback address, so [tls] is needed (or insecure_plaintext = true)",
            );
        }
        let tls = raw.tls.map(|tls| Tls {
            certificate: self.existing(&tls.certificate),
            key: self.existing(&tls.key),
            client_ca: tls.client_ca.map(|ca| self.existing(&ca)),
        });
        let upstreams: Vec<Option<Upstream>> =
            raw.upstreams.into_iter().map(|upstream| self.upstream(upstream)).collect();
        let (secret, secret_is_temporary) = self.installation_secret(raw.secret.as_ref());
        // Its entries were found to agree when the text was read.
        let agents: Vec<raw::RawAgent> = raw.agents.into_iter().map(|agent| self.agent(agent)).collect();
        let directory = raw::directory(&agents, &raw.reviewers, secret).ok();
        let mut channels = Vec::new();
        let mut channels_are_complete = true;
        if let Some(slack) = raw.slack {
            let cards_file = self.file(&raw.ledger.path).with_extension("slack-cards");
            let console_url = raw.console.as_ref().map(|console| console.url.clone());
            match self.slack(slack, console_url, cards_file) {
                Some(slack) => channels.push(channel::Settings::Slack(slack)),
                None => channels_are_complete = false,
            }
        }
        let policy_dir = self.file(&raw.policy.dir.value);
        if !policy_dir.is_dir() {
            self.problem(&raw.policy.dir.place, format!("there is no folder {}", policy_dir.display()));
        }
        Some(Config {
            path: self.path.to_owned(),
            digest,
            listen: raw.listen.value,
            advertise: raw.advertise,
            tls,
            insecure_plaintext: raw.insecure_plaintext,
            upstreams: upstreams.into_iter().flatten().map(|one| (one.name.clone(), one)).collect(),
            directory: Arc::new(directory?),
            secret_is_temporary,
            policy: PolicySettings { dir: policy_dir, defaults: raw.policy.defaults },
            ledger: LedgerSettings {
                path: self.file(&raw.ledger.path),
                key: self.file(&raw.ledger.key_file),
                signing: raw.ledger.signing,
                head_files: raw.ledger.head_files.iter().map(|file| self.file(file)).collect(),
            },
            console: raw.console,
            channels: channels_are_complete.then_some(channels)?,
            metrics: raw.metrics,
            limits: raw.limits,
            files: std::mem::take(&mut self.files),
        })
    }

    fn slack(
        &mut self,
        raw: raw::RawSlack,
        console_url: Option<Url>,
        cards_file: PathBuf,
    ) -> Option<SlackSettings> {
        let app_token = self.secret(&raw.app_token);
        let bot_token = self.secret(&raw.bot_token);
        Some(SlackSettings {
            api_url: raw.api_url.or_else(|| SLACK_API.parse().ok())?,
            app_token: Token::new(app_token?.expose()),
            bot_token: Token::new(bot_token?.expose()),
            channel: raw.channel,
            console_url,
            cards_file: Some(cards_file),
            timing: Timing::default(),
        })
    }

    fn upstream(&mut self, raw: raw::RawUpstream) -> Option<Upstream> {
        let password = match &raw.password {
            Some(source) => Some(self.secret(source)?),
            None => None,
        };
        let ca = raw.ca.as_ref().map(|ca| self.existing(ca));
        let client =
            raw.client.as_ref().map(|(certificate, key)| (self.existing(certificate), self.existing(key)));
        Some(Upstream {
            target: raw.target(),
            name: raw.name,
            host: raw.host,
            port: raw.port,
            password,
            tls: raw.tls,
            ca,
            client,
            application_name: raw.application_name,
        })
    }

    fn installation_secret(&mut self, source: Option<&raw::SecretSource>) -> ([u8; 32], bool) {
        let Some(source) = source else { return (crate::identity::secret::random(), true) };
        let bytes = self.secret(source).map(|secret| {
            // Of any form and length; what matters is that nobody else knows it.
            *Digest::of(&[b"countersign/installation/v1\0", secret.expose().as_bytes()].concat()).as_bytes()
        });
        (bytes.unwrap_or_default(), false)
    }
}
