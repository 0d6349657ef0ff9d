//! The configuration as it is written: which keys there are, of which type, and their defaults.
//!
//! Nothing outside the text is looked at here, so this also serves commands that edit the file on a
//! machine that has none of its secrets.

mod actors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use self::actors::{read_agent, read_reviewer};
use super::secret::Named;
use super::{ApplicationName, ConfigError, Console, Limits, UpstreamTls, is_local_host};
use crate::actor::ChannelName;
use crate::actor::{Agent, AgentName, GroupName, PersonName, Reviewer, ReviewerId, UpstreamName, person_key};
use crate::desk;
use crate::identity::account::ChatAccount;
use crate::identity::directory::Entry;
use crate::identity::keys::{self, KeyPlace};
use crate::identity::secret::SecretHash;
use crate::identity::token::{Algorithm, ClaimPaths};
use crate::identity::{AgentEntry, CertificateRule, Directory, ReviewerEntry, ScramVerifier, TokenRule};
use crate::ledger::Signing;
use crate::policy::{Defaults, InTransaction};
use crate::statement::Target;
use crate::toml_reader::{self, At, Place, Problem, Problems, Table, parse_duration};

/// The file as written.
#[derive(Debug)]
pub struct RawConfig {
    pub(super) listen: At<SocketAddr>,
    pub(super) advertise: Option<String>,
    pub(super) insecure_plaintext: bool,
    pub(super) secret: Option<SecretSource>,
    pub(super) tls: Option<RawTls>,
    pub(super) upstreams: Vec<RawUpstream>,
    pub(super) agents: Vec<RawAgent>,
    pub(super) reviewers: Vec<RawReviewer>,
    pub(super) policy: RawPolicy,
    pub(super) ledger: RawLedger,
    pub(super) console: Option<Console>,
    pub(super) slack: Option<RawSlack>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) limits: Limits,
}

/// A secret, named.
#[derive(Clone, Debug)]
pub(super) struct SecretSource {
    pub(super) named: Named,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct RawTls {
    pub(super) certificate: At<String>,
    pub(super) key: At<String>,
    pub(super) client_ca: Option<At<String>>,
}

#[derive(Debug)]
pub(super) struct RawUpstream {
    pub(super) name: UpstreamName,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<SecretSource>,
    pub(super) tls: UpstreamTls,
    pub(super) ca: Option<At<String>>,
    pub(super) client: Option<(At<String>, At<String>)>,
    pub(super) application_name: ApplicationName,
}

impl RawUpstream {
    pub(super) fn target(&self) -> Target {
        Target {
            upstream: self.name.clone(),
            database: self.database.as_str().into(),
            role: self.user.as_str().into(),
        }
    }
}

/// An agent. The files that its token's rule names are as written, relative to the configuration's
/// folder.
#[derive(Debug)]
pub(super) struct RawAgent {
    pub(super) entry: AgentEntry,
    /// Files that its token's rule names: keys, and who signs the issuer's certificate.
    pub(super) files: Vec<At<String>>,
    pub(super) revoked: bool,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct RawReviewer {
    pub(super) entry: ReviewerEntry,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct RawPolicy {
    pub(super) dir: At<String>,
    pub(super) defaults: Defaults,
}

#[derive(Debug)]
pub(super) struct RawLedger {
    pub(super) path: String,
    pub(super) key_file: String,
    pub(super) signing: Signing,
    pub(super) head_files: Vec<String>,
}

#[derive(Debug)]
pub(super) struct RawSlack {
    pub(super) app_token: SecretSource,
    pub(super) bot_token: SecretSource,
    pub(super) channel: String,
    pub(super) api_url: Option<Url>,
}

impl RawConfig {
    /// Reads the text of a configuration; `file` is what it is called in errors.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let raw = toml_reader::read(file, text, read_root)?;
        let problems = raw.contradictions(file);
        if problems.is_empty() { Ok(raw) } else { Err(problems) }
    }

    /// The names of the upstreams.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamName> {
        self.upstreams.iter().map(|upstream| &upstream.name)
    }

    /// The address that agents are told, and whether they have to use TLS.
    #[must_use]
    pub fn address_for_agents(&self) -> (String, bool) {
        (super::address_for_agents(self.advertise.as_deref(), self.listen.value), self.tls.is_some())
    }

    /// The agents, and whether each is revoked.
    pub fn agents(&self) -> impl Iterator<Item = (&Arc<Agent>, bool)> {
        self.agents.iter().map(|agent| (&agent.entry.agent, agent.revoked))
    }

    /// The reviewers.
    pub fn reviewers(&self) -> impl Iterator<Item = &ReviewerEntry> {
        self.reviewers.iter().map(|reviewer| &reviewer.entry)
    }

    /// Where policies are, relative to the file, and what holds where they say nothing.
    #[must_use]
    pub fn policy(&self) -> (&str, &Defaults) {
        (&self.policy.dir.value, &self.policy.defaults)
    }

    /// The targets of the upstreams.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.upstreams.iter().map(RawUpstream::target).collect()
    }

    /// Agents and reviewers, without the installation's secret: for looking at who there is, not for
    /// recognising anybody.
    #[must_use]
    pub fn roster(&self) -> Option<Directory> {
        directory(&self.agents, &self.reviewers, [0; 32]).ok()
    }

    /// The console's address.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// What one part of the file says of another.
    fn contradictions(&self, file: &str) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |place: &Place, key: &str, message: String| {
            let key = format!("{}{key}", place.key);
            problems.push(Problem { file: file.into(), line: place.line, key, message });
        };
        for agent in &self.agents {
            for upstream in &agent.entry.agent.upstreams {
                if !self.upstreams().any(|known| known == upstream) {
                    let known: Vec<&str> = self.upstreams().map(UpstreamName::as_str).collect();
                    problem(
                        &agent.place,
                        ".upstreams",
                        format!("there is no upstream \"{upstream}\"; there is {}", known.join(", ")),
                    );
                }
            }
        }
        for agent in self.agents.iter().filter(|agent| !agent.revoked) {
            let tls = self.tls.as_ref();
            if agent.entry.certificate.is_some() && tls.is_none_or(|tls| tls.client_ca.is_none()) {
                problem(&agent.place, ".certificate", "needs client_ca in [tls]: who signs it?".to_owned());
            }
            if agent.entry.token.is_some() && tls.is_none() {
                problem(
                    &agent.place,
                    ".jwt",
                    "needs [tls]: tokens are not taken without encryption".to_owned(),
                );
            }
        }
        if let Err(conflicts) = directory(&self.agents, &self.reviewers, [0; 32]) {
            for (place, message) in conflicts {
                problem(&place, "", message);
            }
        }
        problems
    }
}

/// Everybody who is not revoked, if they can stand side by side; otherwise who cannot, and why.
pub(super) fn directory(
    agents: &[RawAgent],
    reviewers: &[RawReviewer],
    secret: [u8; 32],
) -> Result<Directory, Vec<(Place, String)>> {
    let agents: Vec<&RawAgent> = agents.iter().filter(|agent| !agent.revoked).collect();
    let entries = agents.iter().map(|agent| agent.entry.clone()).collect();
    let people = reviewers.iter().map(|reviewer| reviewer.entry.clone()).collect();
    Directory::new(entries, people, secret).map_err(|conflicts| {
        conflicts
            .into_iter()
            .filter_map(|conflict| {
                let place = match conflict.entry {
                    Entry::Agent(number) => agents.get(number).map(|agent| &agent.place),
                    Entry::Reviewer(number) => reviewers.get(number).map(|reviewer| &reviewer.place),
                };
                Some((place?.clone(), conflict.message))
            })
            .collect()
    })
}

fn read_root(root: &Table<'_>, problems: &Problems) -> Option<RawConfig> {
    let listen = match root.text("listen") {
        Some(at) => read_address(&at, problems).map(|value| At { value, place: at.place }),
        None if root.has("listen") => None,
        None => Some(At { value: SocketAddr::from(([127, 0, 0, 1], 6432)), place: root.place_of("listen") }),
    };
    let advertise = root.text("advertise").map(|at| at.value);
    let insecure_plaintext = root.boolean("insecure_plaintext").unwrap_or(false);
    let secret = read_secret(root, "secret_file", "secret", problems);
    let tls = root.table("tls", read_tls);
    let mut names = Names::default();
    let upstreams = root.tables("upstream", |table| read_upstream(table, problems, &mut names));
    if upstreams.is_empty() && !root.has("upstream") {
        root.problem("upstream", "is missing: there is nothing to be a proxy for");
    }
    let agents = root.tables("agent", |table| read_agent(table, problems));
    let reviewers = root.tables("reviewer", |table| read_reviewer(table, problems));
    let policy = root.table("policy", |table| read_policy(table, problems));
    let ledger = root.table("ledger", |table| read_ledger(table, problems));
    let console = root.table("console", |table| read_console(table, problems));
    let slack = root.table("slack", |table| read_slack(table, problems));
    let metrics = root
        .table("metrics", |table| table.required_text("listen").and_then(|at| read_address(&at, problems)));
    let limits = root.table("limits", read_limits);
    Some(RawConfig {
        listen: listen?,
        advertise,
        insecure_plaintext,
        secret,
        tls: flatten(tls)?,
        upstreams: upstreams.into_iter().flatten().collect(),
        agents: agents.into_iter().flatten().collect(),
        reviewers: reviewers.into_iter().flatten().collect(),
        policy: policy.unwrap_or_else(|| default_policy(root)),
        ledger: ledger.unwrap_or_else(default_ledger),
        console: flatten(console)?,
        slack: flatten(slack)?,
        metrics: flatten(metrics)?,
        limits: limits.unwrap_or_else(default_limits),
    })
}

/// A section that is there must have been read; one that is not there is nothing.
#[expect(clippy::option_option, reason = "the outer says whether the section is there")]
fn flatten<T>(section: Option<Option<T>>) -> Option<Option<T>> {
    match section {
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
        None => Some(None),
    }
}

fn read_address(at: &At<String>, problems: &Problems) -> Option<SocketAddr> {
    let address = at.value.replace("localhost:", "127.0.0.1:").parse();
    if address.is_err() {
        problems.add(&at.place, format!("\"{}\" is not an address such as \"0.0.0.0:6432\"", at.value));
    }
    address.ok()
}

/// A secret by its file (`password_file = ".."`) or its variable (`password = "env:NAME"`). It is
/// never taken from the file itself, and so is never in its backups and history.
fn read_secret(
    table: &Table<'_>,
    file_key: &'static str,
    key: &'static str,
    problems: &Problems,
) -> Option<SecretSource> {
    let file = table.text(file_key);
    let direct = table.text(key);
    match (file, direct) {
        (Some(_), Some(direct)) => {
            problems.add(&direct.place, format!("is given twice; {file_key} names it, too"));
            None
        }
        (Some(at), None) => Some(SecretSource { named: Named::File(at.value), place: at.place }),
        (None, Some(at)) => match at.value.strip_prefix("env:") {
            Some(name) if !name.is_empty() => {
                Some(SecretSource { named: Named::Env(name.to_owned()), place: at.place })
            }
            Some(_) | None => {
                problems.add(
                    &at.place,
                    format!("secrets do not stand in this file; write {file_key} = \"PATH\" or {key} = \"env:NAME\""),
                );
                None
            }
        },
        (None, None) => None,
    }
}

fn read_tls(table: &Table<'_>) -> Option<RawTls> {
    let certificate = table.required_text("certificate");
    let key = table.required_text("key");
    let client_ca = table.text("client_ca");
    Some(RawTls { certificate: certificate?, key: key?, client_ca })
}

#[derive(Default)]
struct Names(std::collections::BTreeSet<String>);

/// A name that stands in URLs, in Postgres's start-up packet and on screens.
fn read_name(table: &Table<'_>, key: &'static str) -> Option<String> {
    let At { value, place: _ } = table.required_text(key)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() > 63 || !value.chars().all(fits) {
        table.problem(
            key,
            format!("\"{value}\" must be at most 63 letters, digits, dots, hyphens and underscores"),
        );
        return None;
    }
    Some(value)
}

fn read_upstream(table: &Table<'_>, problems: &Problems, names: &mut Names) -> Option<RawUpstream> {
    let name = read_name(table, "name");
    if let Some(name) = &name
        && !names.0.insert(name.clone())
    {
        table.problem("name", format!("there is another upstream \"{name}\""));
    }
    let host = table.required_text("host").map(|at| at.value);
    let port = if table.has("port") { table.integer("port", 1, 65_535) } else { Some(5432) };
    let database = table.text("database").map(|at| at.value).or_else(|| name.clone());
    let user = table.required_text("user").map(|at| at.value);
    let password = read_secret(table, "password_file", "password", problems);
    let ca = table.text("ca");
    let client = match (table.text("certificate"), table.text("key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(at), None) => {
            problems.add(&at.place, "needs its key: key = \"PATH\"");
            None
        }
        (None, Some(at)) => {
            problems.add(&at.place, "needs its certificate: certificate = \"PATH\"");
            None
        }
        (None, None) => None,
    };
    let tls = match table.text("tls") {
        Some(at) => {
            let modes =
                [UpstreamTls::VerifyFull, UpstreamTls::VerifyCa, UpstreamTls::Require, UpstreamTls::Disable];
            let mode = modes.into_iter().find(|mode| mode.as_str() == at.value);
            if mode.is_none() {
                problems.add(
                    &at.place,
                    format!(
                        "\"{}\" is not \"verify-full\", \"verify-ca\", \"require\" or \"disable\"",
                        at.value
                    ),
                );
            }
            mode
        }
        None if host.as_deref().is_some_and(is_local_host) => Some(UpstreamTls::Disable),
        None => Some(UpstreamTls::VerifyFull),
    };
    let application_name = match table.text("application_name") {
        Some(at) => {
            let known = [ApplicationName::Session, ApplicationName::Agent];
            let found = known.into_iter().find(|known| known.as_str() == at.value);
            if found.is_none() {
                problems.add(&at.place, format!("\"{}\" is not \"session\" or \"agent\"", at.value));
            }
            found
        }
        None => Some(ApplicationName::Session),
    };
    Some(RawUpstream {
        application_name: application_name?,
        name: UpstreamName::new(name?),
        host: host?,
        port: u16::try_from(port?).ok()?,
        database: database?,
        user: user?,
        password,
        tls: tls.inspect(|mode| {
            if *mode == UpstreamTls::Disable && client.is_some() {
                table.problem("certificate", "is never shown with tls = \"disable\"");
            }
        })?,
        ca,
        client,
    })
}

fn default_policy(root: &Table<'_>) -> RawPolicy {
    let dir = At { value: "policies".to_owned(), place: root.place_of("policy") };
    RawPolicy { dir, defaults: Defaults::default() }
}

fn read_policy(table: &Table<'_>, problems: &Problems) -> RawPolicy {
    let dir = table
        .text("dir")
        .unwrap_or_else(|| At { value: "policies".to_owned(), place: table.place().clone() });
    let mut defaults = Defaults::default();
    if let Some(group) = table.text("reviewers") {
        if group.value.trim().is_empty() {
            problems.add(&group.place, "is empty");
        }
        defaults.reviewers = GroupName::new(group.value);
    }
    if let Some(expires) = table.duration("expires") {
        defaults.expires = expires;
        if expires < Duration::from_secs(1) {
            table.problem("expires", "is shorter than a second");
        }
    }
    if let Some(at) = table.text("hold_in_transaction") {
        match (at.value.as_str(), parse_duration(&at.value)) {
            ("refuse", _) => defaults.in_transaction = InTransaction::Refuse,
            (_, Some(limit)) => defaults.in_transaction = InTransaction::Wait(limit),
            (text, None) => problems
                .add(&at.place, format!("\"{text}\" is not \"refuse\" or a length of time such as \"2m\"")),
        }
    }
    RawPolicy { dir, defaults }
}

fn default_ledger() -> RawLedger {
    RawLedger {
        path: "ledger/countersign.db".to_owned(),
        key_file: "keys/ledger.key".to_owned(),
        signing: Signing::default(),
        head_files: Vec::new(),
    }
}

fn read_ledger(table: &Table<'_>, problems: &Problems) -> RawLedger {
    let default = default_ledger();
    RawLedger {
        path: table.text("path").map_or(default.path, |at| at.value),
        key_file: table.text("key_file").map_or(default.key_file, |at| at.value),
        head_files: table.texts("head_file").unwrap_or_default().into_iter().map(|at| at.value).collect(),
        signing: match table.text("signing") {
            None => default.signing,
            Some(at) => {
                let known = [Signing::EveryEntry, Signing::Checkpoint];
                known.into_iter().find(|signing| signing.as_str() == at.value).unwrap_or_else(|| {
                    problems
                        .add(&at.place, format!("\"{}\" is not \"every-entry\" or \"checkpoint\"", at.value));
                    default.signing
                })
            }
        },
    }
}

fn read_console(table: &Table<'_>, problems: &Problems) -> Option<Console> {
    let listen = match table.text("listen") {
        Some(at) => read_address(&at, problems),
        None => Some(SocketAddr::from(([127, 0, 0, 1], 6480))),
    };
    let url = match table.text("url") {
        Some(at) => read_url(&at, problems),
        None => listen.and_then(|listen| Url::parse(&format!("http://{listen}")).ok()),
    };
    Some(Console { listen: listen?, url: url? })
}

/// An address that secrets are sent to: encrypted, unless it is on this machine.
fn read_url(at: &At<String>, problems: &Problems) -> Option<Url> {
    let Ok(url) = Url::parse(&at.value) else {
        problems.add(&at.place, format!("\"{}\" is not a URL", at.value));
        return None;
    };
    let local = keys::is_local(&url);
    if url.scheme() == "https" || (url.scheme() == "http" && local) {
        return Some(url);
    }
    problems.add(&at.place, "must begin with https:// (http:// only on this machine)");
    None
}

fn read_slack(table: &Table<'_>, problems: &Problems) -> Option<RawSlack> {
    let app_token = read_secret(table, "app_token_file", "app_token", problems);
    let bot_token = read_secret(table, "bot_token_file", "bot_token", problems);
    for (token, file_key, key) in
        [(&app_token, "app_token_file", "app_token"), (&bot_token, "bot_token_file", "bot_token")]
    {
        if token.is_none() && !table.has(file_key) && !table.has(key) {
            table.problem(file_key, "is missing");
        }
    }
    let channel = table.required_text("channel");
    let api_url = table.text("api_url").map(|at| read_url(&at, problems));
    Some(RawSlack {
        app_token: app_token?,
        bot_token: bot_token?,
        channel: channel?.value,
        api_url: match api_url {
            Some(url) => Some(url?),
            None => None,
        },
    })
}

fn default_limits() -> Limits {
    Limits {
        sessions: 5_000,
        // Postgres has 100 connections if nobody says otherwise: one agent must not take them all.
        sessions_per_agent: 50,
        message_bytes: 64 << 20,
        text_bytes: 1 << 20,
        prepared_bytes: 64 << 20,
        prepared_bytes_per_agent: 256 << 20,
        transaction_bytes: 1 << 20,
        login: Duration::from_secs(10),
        unauthenticated: 256,
        unauthenticated_per_address: None,
        console_connections: 1024,
        console_connections_per_address: None,
        desk: desk::Limits::default(),
    }
}

fn read_limits(table: &Table<'_>) -> Limits {
    let mut limits = default_limits();
    let number = |key, most: u64, value: &mut usize| {
        if let Some(number) = table.integer(key, 1, most) {
            *value = usize::try_from(number).unwrap_or(*value);
        }
    };
    number("sessions", 1_000_000, &mut limits.sessions);
    number("sessions_per_agent", 1_000_000, &mut limits.sessions_per_agent);
    number("message_bytes", 1 << 30, &mut limits.message_bytes);
    number("text_bytes", 16 << 20, &mut limits.text_bytes);
    number("prepared_bytes", 1 << 40, &mut limits.prepared_bytes);
    number("prepared_bytes_per_agent", 1 << 40, &mut limits.prepared_bytes_per_agent);
    number("transaction_bytes", 1 << 30, &mut limits.transaction_bytes);
    number("waiting_per_agent", 10_000, &mut limits.desk.waiting_per_agent);
    number("waiting", 100_000, &mut limits.desk.waiting);
    number("waiting_bytes_per_agent", 1 << 40, &mut limits.desk.waiting_bytes_per_agent);
    number("opened_per_minute", 1_000_000, &mut limits.desk.opened_per_minute);
    number("history", 1_000_000, &mut limits.desk.history);
    number("history_bytes", 1 << 40, &mut limits.desk.history_bytes);
    number("unauthenticated", 100_000, &mut limits.unauthenticated);
    number("console_connections", 100_000, &mut limits.console_connections);
    if let Some(share) = table.integer("unauthenticated_per_address", 1, 100_000) {
        limits.unauthenticated_per_address = usize::try_from(share).ok();
    }
    if let Some(share) = table.integer("console_connections_per_address", 1, 100_000) {
        limits.console_connections_per_address = usize::try_from(share).ok();
    }
    if let Some(login) = table.duration("login") {
        if login.is_zero() {
            table.problem("login", "is no time at all");
        }
        limits.login = login;
    }
    if let Some(cool_down) = table.duration("cool_down") {
        limits.desk.cool_down = cool_down;
    }
    limits
}
