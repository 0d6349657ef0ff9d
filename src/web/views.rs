//! What the web side asks of ledger, sessions, policy and the rest of the process.
//!
//! These are seams: who serves the console wires them to the real things, and a part that is not
//! there yet (or not in a test) says so on its page instead of keeping the console from starting.
//! Every call may take a moment (a query, a lock) and is made off the threads that serve requests.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::actor::{AgentName, Claims, ReviewerId};
use crate::approval::Shown;
use crate::classify::{Classification, SearchPath};
use crate::policy::Policy;
use crate::statement::{Digest, RequestId, SessionId, SqlText, Target, TransactionStatus};

/// Everything that is asked.
#[derive(Clone)]
pub struct Views {
    /// The ledger.
    pub ledger: Arc<dyn LedgerView>,
    /// The sessions that are open.
    pub sessions: Arc<dyn SessionsView>,
    /// The policy set in force.
    pub policy: Arc<dyn PolicyView>,
    /// Upstreams and channels.
    pub health: Arc<dyn HealthView>,
}

/// Why something cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// This part of the process is not there, or not now.
    #[error("{0}")]
    Unavailable(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Question(String),
}

/// The ledger, for reading. Reading it is itself recorded, so every question says who asks.
pub trait LedgerView: Send + Sync {
    /// How it is.
    fn status(&self) -> LedgerStatus;

    /// Entries, newest first.
    fn search(&self, search: &LedgerSearch, by: &ReviewerId) -> Result<LedgerPage, ViewError>;

    /// One entry, decoded.
    fn entry(&self, seq: u64, by: &ReviewerId) -> Result<Option<LedgerEntry>, ViewError>;

    /// The proof that an entry is in the ledger.
    fn proof(&self, seq: u64, by: &ReviewerId) -> Result<Option<LedgerProof>, ViewError>;

    /// Verifies everything. May take minutes.
    fn verify(&self, by: &ReviewerId) -> Result<LedgerVerified, ViewError>;
}

/// How the ledger is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerStatus {
    /// It can write; while it cannot, nothing runs.
    pub writable: bool,
    /// What keeps it from writing, or what an operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Its name, as in its checkpoints.
    pub origin: String,
    /// Entries under the last signed checkpoint.
    pub size: u64,
    /// Root hash of that checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
    /// Bytes that are durable and not in the ledger's file yet.
    pub backlog_bytes: u64,
    /// Where its head is kept apart from it.
    pub anchors: Vec<AnchorStatus>,
}

/// One place where the ledger's head is kept apart from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnchorStatus {
    /// Which.
    pub name: String,
    /// The size that was written there last.
    pub size: u64,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// Which entries to find: all of these, each where it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerSearch {
    /// The kind of entry, as in the ledger's format.
    pub kind: Option<String>,
    /// The agent.
    pub agent: Option<String>,
    /// The statement class.
    pub class: Option<String>,
    /// The request, by code or UUID.
    pub request: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// Words that occur in the statement.
    pub text: Option<String>,
    /// Entries before this number only.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// Entries that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerPage {
    /// Newest first.
    pub entries: Vec<LedgerRow>,
    /// What to ask for as `before` to go on; `None` at the end.
    pub next: Option<u64>,
}

/// One entry on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerRow {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// The agent it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Shown>,
    /// The statement class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The request, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The beginning of the statement's text, or what else the entry says.
    pub summary: Shown,
    /// How it ended, where it is about something that ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Shown>,
}

/// One entry, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Its leaf hash.
    pub leaf: Digest,
    /// Its body, byte for byte, in hexadecimal: what the leaf hash is of.
    pub body: String,
    /// Its signature in hexadecimal, where it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What the body says, by field.
    pub fields: Vec<LedgerField>,
    /// Texts that the body commits to.
    pub texts: Vec<LedgerText>,
}

/// One field of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerField {
    /// Its name in the ledger's format.
    pub name: String,
    /// Its value, readable.
    pub value: Shown,
}

/// A text that an entry commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerText {
    /// What it is: the statement, its parameters, ..
    pub name: String,
    /// The text; `None` when it is not there, or not the one that was recorded.
    pub text: Option<Shown>,
    /// What is there is not the text that was recorded.
    pub damaged: bool,
}

impl LedgerText {
    /// What it is, as a heading.
    #[must_use]
    pub fn title(&self) -> String {
        match self.name.as_str() {
            "sql" => "Statement".to_owned(),
            "parameter" => "Bound value".to_owned(),
            name => {
                let mut title = name.replace('_', " ");
                if let Some(first) = title.get_mut(0..1) {
                    first.make_ascii_uppercase();
                }
                title
            }
        }
    }
}

/// The proof that an entry is in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerProof {
    /// Its number.
    pub seq: u64,
    /// The tree size that the proof speaks of.
    pub size: u64,
    /// The root hash of that tree.
    pub root: Digest,
    /// The inclusion proof, as in RFC 6962, section 2.1.1.
    pub path: Vec<Digest>,
    /// The whole, as a `.tlog-proof` that `countersign ledger verify` and others understand.
    pub text: String,
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerVerified {
    /// The exit code that `countersign ledger verify` would end with.
    pub code: u8,
    /// In one sentence.
    pub summary: String,
    /// Entries that were checked.
    pub entries: u64,
    /// What is wrong, or worth knowing.
    pub findings: Vec<String>,
}

/// The sessions that are open.
pub trait SessionsView: Send + Sync {
    /// All of them, the oldest first.
    fn sessions(&self) -> Vec<SessionRow>;

    /// Ends one, and records who wanted it. `false` when it is not there.
    fn kill(&self, session: SessionId, by: &ReviewerId) -> Result<bool, ViewError>;
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// The agent.
    pub agent: AgentName,
    /// Where it would run things.
    pub upstream: String,
    /// The database there.
    pub database: String,
    /// The role there.
    pub role: String,
    /// Where the agent connected from.
    pub client_address: String,
    /// How the agent proved who it is.
    pub method: &'static str,
    /// Whether its connection is encrypted.
    pub tls: bool,
    /// Since when.
    pub opened_at: Timestamp,
    /// What it is doing.
    pub activity: Activity,
    /// The request it waits for, by code.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "code")]
    pub request: Option<RequestId>,
    /// The transaction status that upstream told last.
    pub transaction: Option<TransactionStatus>,
    /// Statements so far.
    pub statements: u64,
    /// What the agent says about itself.
    pub claimed: Claims,
}

fn code<S: serde::Serializer>(request: &Option<RequestId>, serializer: S) -> Result<S::Ok, S::Error> {
    match request {
        Some(request) => serializer.serialize_str(&request.code()),
        None => serializer.serialize_none(),
    }
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Waiting for the agent.
    Idle,
    /// Waiting for upstream.
    Running,
    /// Waiting for a reviewer.
    Held,
}

impl Activity {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Held => "held",
        }
    }
}

/// The policy set in force.
pub trait PolicyView: Send + Sync {
    /// The set.
    fn policy(&self) -> Arc<Policy>;

    /// Where statements can be asked about: one for each upstream.
    fn targets(&self) -> Vec<Target>;

    /// What a text would do on `target`, as a session there would be told.
    fn classify(
        &self,
        sql: &SqlText,
        target: &Target,
        search_path: &SearchPath,
    ) -> Result<Arc<Classification>, ViewError>;
}

/// How the rest of the process is.
pub trait HealthView: Send + Sync {
    /// The upstreams, as last seen.
    fn upstreams(&self) -> Vec<PartStatus>;

    /// The channels.
    fn channels(&self) -> Vec<PartStatus>;
}

/// One part of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartStatus {
    /// Which.
    pub name: String,
    /// Whether it works.
    pub healthy: bool,
    /// What an operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A part that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

impl LedgerView for Absent {
    fn status(&self) -> LedgerStatus {
        LedgerStatus { trouble: Some("there is no ledger here".to_owned()), ..LedgerStatus::default() }
    }

    fn search(&self, _: &LedgerSearch, _: &ReviewerId) -> Result<LedgerPage, ViewError> {
        Err(no("ledger"))
    }

    fn entry(&self, _: u64, _: &ReviewerId) -> Result<Option<LedgerEntry>, ViewError> {
        Err(no("ledger"))
    }

    fn proof(&self, _: u64, _: &ReviewerId) -> Result<Option<LedgerProof>, ViewError> {
        Err(no("ledger"))
    }

    fn verify(&self, _: &ReviewerId) -> Result<LedgerVerified, ViewError> {
        Err(no("ledger"))
    }
}

impl SessionsView for Absent {
    fn sessions(&self) -> Vec<SessionRow> {
        Vec::new()
    }

    fn kill(&self, _: SessionId, _: &ReviewerId) -> Result<bool, ViewError> {
        Ok(false)
    }
}

impl HealthView for Absent {
    fn upstreams(&self) -> Vec<PartStatus> {
        Vec::new()
    }

    fn channels(&self) -> Vec<PartStatus> {
        Vec::new()
    }
}

fn no(part: &str) -> ViewError {
    ViewError::Unavailable(format!("there is no {part} here"))
}

/// A set and a classifier, without upstreams to load catalogues from: for the demonstration of a
/// policy, and for tests.
pub struct LoadedPolicy {
    /// The set.
    pub policy: Arc<arc_swap::ArcSwap<Policy>>,
    /// The classifier.
    pub classifier: Arc<crate::classify::Classifier>,
    /// Postgres's own functions.
    pub catalogue: Arc<crate::classify::Catalogue>,
    /// The upstreams.
    pub targets: Vec<Target>,
}

impl PolicyView for LoadedPolicy {
    fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    fn targets(&self) -> Vec<Target> {
        self.targets.clone()
    }

    fn classify(
        &self,
        sql: &SqlText,
        target: &Target,
        search_path: &SearchPath,
    ) -> Result<Arc<Classification>, ViewError> {
        let context = crate::classify::Context {
            server_version: self.catalogue.server_version(),
            catalogue: &self.catalogue,
            search_path,
            database: target.database.as_str(),
            role: target.role.as_str(),
            strings_standard: true,
        };
        let found = self.classifier.classify(sql, &context);
        Ok(self.classifier.detail(std::iter::once(sql), &context, &found))
    }
}
