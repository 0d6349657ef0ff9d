//! One proxied session as a state machine without I/O.
//!
//! Bytes of the agent and of upstream go in, bytes for each of them come out, and in between the
//! session *submits* each statement and forwards nothing of it until it is *resolved*: with a
//! [`Receipt`], or with a refusal.
//!
//! ```text
//! on_agent(bytes)  -> a unit is complete  -> Output::Submit  -> caller decides -> resolve(..)
//! on_upstream(bytes) -> sink(bytes for the agent), Output::Outcome(..), Output::Probed(..)
//! ```
//!
//! A **unit** is what the agent sent from the first message after a `Sync` up to the next `Sync` or
//! `Flush`, or one `Query`. It is decided whole before any of it is forwarded, so that no implicit
//! transaction keeps locks while a human thinks.
//!
//! - [`mod@unit`]: the messages of a unit, and what they mean for names.
//! - `agent` and `upstream`: the two directions.
//! - [`names`]: prepared statements and portals; confirmed by upstream only.
//! - `pipeline`: what has been executed since the last `Sync`.
//! - `unparsed`: asking upstream to parse what our grammar rejects.
//! - [`fast_path`]: what calls by OID are in SQL.
//! - [`denial`]: substitutes that make upstream itself refuse.
//! - [`probe`]: asking upstream what state the session is in.
//! - `texts`: how many bytes of texts are kept.
//! - [`settings`], [`startup`]: settings as upstream has told them, and those an agent may bring.
//!
//! The session knows nothing of classes, policies, reviewers or clocks. Times are nanoseconds on
//! the caller's monotonic clock.

mod agent;
pub mod denial;
pub mod fast_path;
pub mod names;
mod pipeline;
pub mod probe;
pub mod settings;
pub mod startup;
#[cfg(test)]
mod tests;
mod texts;
pub mod unit;
mod unparsed;
mod upstream;

pub use texts::KeptBytes;
pub use upstream::Sink;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use slab::Slab;

use crate::ledger::{IntentId, Receipt};
use crate::refusal::Refusal;
use crate::statement::{
    Digest, Ending, Identity, Outcome, SearchPath, SessionEffect, SqlState, SqlText, Statement, Step,
    TransactionStatus,
};
use crate::wire::backend;
use denial::{Substitute, Substitutes};
use names::{Lookup, Name, Names, Prepared, Statements, Ticket};
use pipeline::Pipeline;
use probe::{Probe, Probed};
use settings::{Change, Settings};
use texts::Texts;
use unit::Unit;

/// What the session may take in, in bytes and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message of the agent's that must be held whole.
    pub message: usize,
    /// The largest unit; a longer one is decided in parts, as if the agent had sent `Flush`.
    pub unit: usize,
    /// The largest message of upstream's that must be held whole (errors, notices, statuses).
    pub reply: usize,
    /// The most prepared statements by name.
    pub statements: usize,
    /// Bytes of texts that the session may keep before it may prepare no more.
    pub prepared_bytes: usize,
    /// The same of all sessions of the agent.
    pub prepared_bytes_per_agent: usize,
    /// Bytes of texts of the open transaction that are kept for reviewers.
    pub transaction_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 64 << 20,
            unit: 64 << 20,
            reply: 16 << 20,
            statements: 10_000,
            prepared_bytes: 64 << 20,
            prepared_bytes_per_agent: 256 << 20,
            transaction_bytes: 1 << 20,
        }
    }
}

/// What the session asks for or tells.
#[derive(Debug)]
pub enum Output {
    /// Decide this, then call [`Session::resolve`] with its ticket.
    Submit(Submission),
    /// The submission with this ticket no longer matters: upstream failed before it, or is gone.
    Withdrawn(u64),
    /// A forwarded statement ended.
    Outcome {
        /// Which.
        intent: IntentId,
        /// How.
        outcome: Outcome,
        /// From forwarding to the end, in nanoseconds.
        duration_ns: u64,
    },
    /// Upstream answered a probe.
    Probed(Result<Probed, probe::ProbeFailed>),
    /// A confirmed statement may have changed the catalogue.
    CatalogueChanged,
    /// The same for this session only.
    OwnCatalogueChanged,
    /// The agent set one of its claims, `countersign.<name>`; `None` resets it.
    Claimed(Arc<str>, Option<Arc<str>>),
    /// The agent said goodbye and everything before that has been forwarded.
    AgentLeft,
}

/// A statement that wants a decision.
#[derive(Debug)]
pub struct Submission {
    /// Names this submission to [`Session::resolve`].
    pub ticket: u64,
    /// What for.
    pub purpose: Purpose,
    /// The statement.
    pub statement: Statement,
    /// [`Statement::digest`].
    pub digest: Digest,
    /// The transaction status upstream last told; `None` while it is still busy with earlier
    /// messages, or when messages were forwarded without a `Sync`.
    pub status: Option<TransactionStatus>,
    /// Texts decided earlier in the same unit, which will run before this one.
    pub before: Vec<SqlText>,
    /// Nothing before it in its unit is executed, so that it meets upstream as `status` says.
    pub first: bool,
    /// It was submitted before and found to be no SQL, and upstream's grammar takes it all the same.
    pub upstream_parses: bool,
}

/// What a submission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The statement is about to run.
    Run,
    /// It is prepared, and not bound in the same unit: planned at most, never executed.
    Prepare,
}

/// The answer to a submission.
#[derive(Debug)]
pub enum Resolution {
    /// Forward it.
    Forward {
        /// Proof that it is recorded. It names the digest, which is compared.
        receipt: Receipt,
        /// What each raw statement does to the session.
        steps: Arc<[Step]>,
        /// The text as it may be shown to others (secrets replaced).
        shown: SqlText,
        /// Compute SHA-256 over the result's frames.
        digest_result: bool,
        /// What it means is looked up when it is executed, not when it is bound: a utility statement.
        /// Its `Execute` is decided anew unless it follows its `Bind` at once.
        late: bool,
    },
    /// Refuse it.
    Refuse(Refusal),
    /// It is no SQL to us: upstream is asked to parse it, and says itself what is wrong. If upstream
    /// finds nothing wrong, a `Query` is submitted again, as one that only upstream can read; anything
    /// else is refused.
    Unparsed {
        /// Proof that it is recorded.
        receipt: Receipt,
        /// What the agent is told if upstream finds nothing wrong and it is not submitted again.
        refusal: Refusal,
        /// The text as it may be shown to others (secrets replaced).
        shown: SqlText,
    },
    /// The ledger cannot write, and the statement is nothing but a `ROLLBACK`: upstream gets one of our
    /// own, so that an open transaction does not keep its locks until the ledger is back.
    RollBack,
    /// Submit it again once upstream has answered everything, if it will ([`Session::will_rest`]).
    WhenIdle,
}

/// One forwarded statement, from its receipt to its outcome.
#[derive(Debug)]
struct Run {
    /// Taken when the outcome is told.
    intent: Option<IntentId>,
    sql: SqlText,
    shown: SqlText,
    steps: Arc<[Step]>,
    /// How many raw statements have completed.
    done: usize,
    /// One of them has committed what it and those before it did.
    committed: bool,
    tag: String,
    rows: u64,
    /// Rows that have passed since a tag last said how many there were.
    rows_passed: u64,
    bytes: u64,
    digest: Option<sha2::Sha256>,
    started_ns: u64,
    /// Which settings it may change, by itself or by what it fetches from.
    changes: Option<Change>,
    /// The statement, where a later `Execute` of its portal has to be decided anew.
    late: Option<Statement>,
    /// A `FETCH` from its portal failed, or was never reached.
    doubtful: bool,
    /// Portals and expected answers that still refer to it.
    holders: u32,
}

/// Index into the session's runs.
type RunKey = usize;

/// What a portal's name stands for: the run of its `Bind`, or the SQL `DECLARE` that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Portal {
    run: RunKey,
    cursor: bool,
}

/// An answer that upstream owes.
#[derive(Debug)]
struct Expected {
    kind: Owed,
    substitute: Option<Box<Substitute>>,
}

#[derive(Debug)]
enum Owed {
    Parse {
        ticket: Ticket,
        name: Name,
        run: Option<RunKey>,
    },
    Bind {
        ticket: Ticket,
        portal: Name,
        run: Option<RunKey>,
    },
    Describe,
    Execute {
        ticket: Ticket,
        run: Option<RunKey>,
    },
    CloseStatement {
        ticket: Ticket,
        name: Name,
    },
    ClosePortal {
        ticket: Ticket,
        name: Name,
    },
    Sync,
    Query {
        ticket: Ticket,
        run: Option<RunKey>,
    },
    FunctionCall {
        run: Option<RunKey>,
    },
    /// Where the agent's `CopyDone`/`CopyFail` lies among its messages; nothing answers it.
    CopyEnd,
    /// A probe of ours, from its first message to the `ReadyForQuery` of its `Sync`; or, where it ends in
    /// a `Flush`, to the last of its answers.
    Probe {
        synced: bool,
    },
    /// A `Sync` of ours that keeps an idle upstream from ending the session.
    KeepAlive,
    /// The text of a `Query`, to be parsed and nothing more, up to the `ReadyForQuery` of our `Sync`.
    Parsing {
        ticket: Ticket,
        run: RunKey,
        /// Upstream's grammar takes it.
        taken: bool,
        /// What stands for upstream's complaint that it is not one statement.
        refusal: Box<Refusal>,
    },
}

impl Owed {
    /// Whether the answer ends in `ReadyForQuery`: upstream skips nothing behind it.
    fn ends_in_ready(&self) -> bool {
        matches!(
            self,
            Self::Sync
                | Self::Query { .. }
                | Self::FunctionCall { .. }
                | Self::Probe { synced: true }
                | Self::KeepAlive
                | Self::Parsing { .. }
        )
    }

    /// Whether it is a `Query`, or stands for one: the unnamed portal was forgotten for it.
    fn stands_for_a_query(&self) -> bool {
        matches!(self, Self::Query { .. } | Self::Parsing { .. })
    }
}

/// What the agent's side is doing.
#[derive(Debug)]
enum Gate {
    /// Reading messages into the unit.
    Open,
    /// A unit is being decided; nothing more is read.
    Deciding(Deciding),
}

/// Progress of a unit's decision.
#[derive(Debug, Default)]
struct Deciding {
    /// The item that is next, or under decision.
    at: usize,
    /// Whether `at` counts items that need a receipt of their own (second pass).
    covering: bool,
    /// A submission is out: its ticket, and what it is about.
    submitted: Option<(Ticket, Digest)>,
    /// Submit `at` again once upstream is idle.
    when_idle: bool,
    /// Submit `at` again once upstream has answered everything that was forwarded.
    when_quiet: bool,
    /// Something decided before `at` may change settings, and has not been forwarded.
    changes_settings: bool,
    /// Upstream is parsing the text of `at`.
    parsing: bool,
    /// It did, and found nothing wrong with it.
    upstream_parses: bool,
    /// Decide `at` again once more of what it may mean has been answered.
    when_answered: bool,
    /// Where and how the unit is cut short.
    refused: Option<(usize, denial::Told)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    texts: Texts,
    gate: Gate,
    unit: Unit,
    /// Bytes still to come of a CopyData message that passes through, and whether it is forwarded.
    copy_rest: usize,
    copy_forward: bool,
    agent_left: bool,
    left_told: bool,
    ended: bool,

    expected: VecDeque<Expected>,
    runs: Slab<Run>,
    statements: Statements,
    portals: Names<Portal>,
    settings: Settings,
    /// Something was bound or run since the last `ReadyForQuery`: a `Sync` would end a transaction.
    executed: bool,
    /// Counts what [`Session::flushes`] tells.
    #[cfg(any(test, fuzzing))]
    flushes: u64,
    /// What the settings are was told in the middle of a pipeline, whose end may take changes back.
    told_in_pipeline: bool,
    status: TransactionStatus,
    /// Upstream's last word was `ReadyForQuery`, and nothing was forwarded since.
    synced: bool,
    /// An error was answered since the last `ReadyForQuery`.
    failed: bool,
    /// What has completed outside of a block since then: the transaction around it has not.
    settling: Vec<Settling>,
    /// A transaction has ended since then, so that what comes behind is outside of the block.
    left_block: bool,
    /// Upstream has said that it ends the connection.
    farewell: bool,
    /// Upstream drops everything up to a `Sync` that the agent has not sent yet.
    skipping: bool,
    /// Something that the agent sent was dropped because of that.
    skipped: bool,
    /// The first thing that upstream owes has been answered in part.
    answered: bool,
    /// Upstream waits for copy data.
    copy_in: bool,
    /// Upstream reads copy data for the first thing that it owes; what ends the copy may be on its way.
    copying: bool,
    /// The end of the copy that is under way was forwarded after upstream had asked for it. Any other
    /// end among what is owed is another copy's.
    copy_ended: bool,
    /// `Sync`s that upstream read as part of a copy, if it was still copying by then.
    swallowed: u32,
    /// Bytes still to come of a message of upstream's that passes by length alone.
    passing: Passing,
    probe: Option<Probe>,
    pipeline: Pipeline,
    transaction: VecDeque<SqlText>,
    transaction_earlier: u64,
    /// The open transaction has not begun before that.
    transaction_since_ns: u64,
    transaction_bytes: usize,

    substitutes: Substitutes,
    tickets: Ticket,
    /// The last ticket of messages up to the latest that ends upstream's skipping ([`Names::lookup`]).
    resynced: Ticket,
    outputs: VecDeque<Output>,
    notices: VecDeque<BytesMut>,
    to_upstream: BytesMut,
    to_agent: BytesMut,
}

/// A run that has completed, in a transaction that has not.
#[derive(Debug)]
struct Settling {
    intent: IntentId,
    outcome: Outcome,
    duration_ns: u64,
    /// It may have committed what is before it, and its own work.
    commits_by_itself: bool,
}

/// Whether a command tag says that a transaction has ended. `ROLLBACK` is also what a `COMMIT` of a failed
/// transaction says, and what `ROLLBACK TO SAVEPOINT` says, which no unit outside of a block has.
fn is_transaction_end(tag: &str) -> bool {
    is_commit(tag) || tag == "ROLLBACK"
}

/// Whether a command tag says that what preceded is kept.
fn is_commit(tag: &str) -> bool {
    matches!(tag, "COMMIT" | "PREPARE TRANSACTION")
}

/// What was told to have completed may have been undone; the tags stay.
fn make_unknown(ending: &mut Ending) {
    let tag = match ending {
        Ending::Completed { tag } => Arc::clone(tag),
        Ending::Failed { .. }
        | Ending::FailedAfterCommit { .. }
        | Ending::NotExecuted
        | Ending::Unknown { .. } => return,
    };
    *ending = Ending::Unknown { tag, sqlstate: None };
}

/// The rest of a message that passes by length alone.
#[derive(Clone, Copy, Debug, Default)]
struct Passing {
    rest: usize,
    run: Option<RunKey>,
}

impl Session {
    /// How many texts of an open transaction are kept for reviewers.
    const TRANSACTION_KEPT: usize = 20;

    /// A session whose upstream has just said `ReadyForQuery` outside a transaction. `seed` is 64
    /// fresh random bits, from which names that no agent can guess are made.
    #[must_use]
    pub fn new(limits: Limits, settings: Settings, seed: u64) -> Self {
        Self {
            limits,
            texts: Texts::default(),
            gate: Gate::Open,
            unit: Unit::default(),
            copy_rest: 0,
            copy_forward: false,
            agent_left: false,
            left_told: false,
            ended: false,
            expected: VecDeque::new(),
            runs: Slab::new(),
            statements: Statements::default(),
            portals: Names::default(),
            settings,
            executed: false,
            #[cfg(any(test, fuzzing))]
            flushes: 0,
            told_in_pipeline: false,
            status: TransactionStatus::Idle,
            synced: true,
            failed: false,
            settling: Vec::new(),
            left_block: false,
            farewell: false,
            skipping: false,
            skipped: false,
            answered: false,
            copy_in: false,
            copying: false,
            copy_ended: false,
            swallowed: 0,
            passing: Passing::default(),
            probe: None,
            pipeline: Pipeline::default(),
            transaction: VecDeque::new(),
            transaction_earlier: 0,
            transaction_since_ns: 0,
            transaction_bytes: 0,
            substitutes: Substitutes::new(seed),
            tickets: 0,
            resynced: 0,
            outputs: VecDeque::new(),
            notices: VecDeque::new(),
            to_upstream: BytesMut::new(),
            to_agent: BytesMut::new(),
        }
    }

    /// The same, where other sessions of the agent count their texts by the same count.
    #[must_use]
    pub fn counting(self, agent: KeptBytes) -> Self {
        Self { texts: Texts::of_agent(agent), ..self }
    }

    /// How many bytes of texts it keeps.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.texts.kept()
    }

    /// Why a statement of this length with these steps may not run, where it would keep more names or texts than the session
    /// or its agent may have.
    #[must_use]
    pub fn keeps_too_much(&self, length: usize, steps: &[Step]) -> Option<Refusal> {
        let effects = || steps.iter().flat_map(|step| &step.effects);
        let declares = effects().any(|effect| matches!(effect, SessionEffect::Declare(_)));
        let before = self.statements.count().max(if declares { self.portals.count() } else { 0 });
        let most = texts::most_names(effects(), before)?;
        if most > self.limits.statements {
            return Some(Refusal::TooManyStatements { limit: self.limits.statements });
        }
        self.texts.over(&self.limits).filter(|_| Texts::counts(length))
    }

    /// The next thing the session asks for or tells.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Bytes for upstream. The caller takes them from the front.
    pub fn to_upstream(&mut self) -> &mut BytesMut {
        &mut self.to_upstream
    }

    /// Messages of our own for the agent, to be sent behind whatever `on_upstream` has handed out.
    pub fn to_agent(&mut self) -> &mut BytesMut {
        &mut self.to_agent
    }

    /// Whether upstream owes nothing and is outside of any unfinished implicit transaction.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.synced && self.expected.is_empty()
    }

    /// Whether upstream will be idle without another message of the agent's: what was forwarded last
    /// ends in a `ReadyForQuery`.
    #[must_use]
    pub fn settles(&self) -> bool {
        if self.copy_in || self.skipping {
            return false;
        }
        match self.expected.back() {
            None => self.synced,
            Some(last) => last.kind.ends_in_ready(),
        }
    }

    /// Whether upstream will have answered everything that was forwarded, and has not done so yet.
    #[must_use]
    pub fn will_rest(&self) -> bool {
        // The end of a copy that was none is not answered.
        let owes = || self.expected.iter().any(|expected| !matches!(expected.kind, Owed::CopyEnd));
        if self.settles() { !self.is_idle() } else { !self.is_stuck() && owes() }
    }

    /// Upstream answers nothing but what only the agent can send: copy data, or a `Sync`.
    fn is_stuck(&self) -> bool {
        self.copy_in || self.copying || self.skipping
    }

    /// Whether part of a unit waits for the rest of it.
    #[must_use]
    pub fn has_partial_unit(&self) -> bool {
        matches!(self.gate, Gate::Open) && !self.unit.is_empty()
    }

    /// Whether upstream has told the agent itself that it ends the connection.
    #[must_use]
    pub fn said_farewell(&self) -> bool {
        self.farewell
    }

    /// Whether a unit is being decided.
    #[must_use]
    pub fn is_deciding(&self) -> bool {
        matches!(self.gate, Gate::Deciding(_))
    }

    /// Whether anything that was forwarded has not been answered.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.expected.iter().any(|expected| !matches!(expected.kind, Owed::Probe { .. } | Owed::KeepAlive))
    }

    /// How many messages were forwarded that upstream has not answered.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.expected.len()
    }

    /// Whether the agent has said goodbye.
    #[must_use]
    pub fn agent_has_left(&self) -> bool {
        self.agent_left
    }

    /// The transaction status that upstream last told.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The settings, as far as upstream has told them.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the names of a statement that is submitted now will be looked up. While something is in flight,
    /// or was decided before it in the same unit, that may change this, nobody can tell.
    #[must_use]
    pub fn search_path(&self) -> SearchPath {
        if self.unit_changes_settings() { SearchPath::Unknown } else { self.settings.search_path() }
    }

    /// Who a statement that is submitted now will run as, if that is known.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        if self.unit_changes_settings() { None } else { self.settings.identity() }
    }

    /// Whether something before the item under decision, in the same unit, may change settings.
    #[must_use]
    pub fn unit_changes_settings(&self) -> bool {
        matches!(&self.gate, Gate::Deciding(deciding) if deciding.changes_settings)
    }

    /// The texts that ran in the open transaction, oldest first, and how many ran before them.
    pub fn transaction(&self) -> (impl Iterator<Item = &SqlText>, u64) {
        (self.transaction.iter(), self.transaction_earlier)
    }

    /// How long the open transaction has lasted at most.
    #[must_use]
    pub fn transaction_age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.transaction_since_ns))
    }

    /// Whether `FETCH` or `MOVE` from `name`, in the message that is being decided, may run a statement that
    /// is looked up only then: one that a `Bind` has made a portal of and that nothing has executed since.
    /// What it means may have changed, so what was decided at its `Bind` says nothing.
    #[must_use]
    pub fn fetches_late(&self, name: &str) -> bool {
        let name = Name::new(name.as_bytes());
        let at = match &self.gate {
            Gate::Deciding(deciding) => deciding.at,
            Gate::Open => 0,
        };
        let is_late = |run: RunKey| self.runs.get(run).is_some_and(|run| run.late.is_some() && run.done == 0);
        if let Some(bind) = self.unit.bind_before(&name, at) {
            return self.unit.items.get(bind).and_then(|item| item.run).is_some_and(is_late);
        }
        if self.unit.portal_before(&name, at).is_some() {
            return false;
        }
        let late = |portal: &Portal| !portal.cursor && is_late(portal.run);
        match self.portals.lookup(&name, self.resynced) {
            Lookup::Known(portal) => late(&portal),
            Lookup::Unknown => false,
            Lookup::Unsettled => self.portals.meanings(&name).any(late),
        }
    }

    /// The texts behind the portal that a `FETCH` in the message that is being decided reads from: more than
    /// one where answers that have not come decide which, none where nobody here knows.
    #[must_use]
    pub fn cursor_texts(&self, name: &str) -> Vec<SqlText> {
        let name = Name::new(name.as_bytes());
        let at = match &self.gate {
            Gate::Deciding(deciding) => deciding.at,
            Gate::Open => 0,
        };
        let text = |run: RunKey| self.runs.get(run).map(|run| run.sql.clone());
        match self.unit.portal_before(&name, at) {
            Some(run) => run.and_then(text).into_iter().collect(),
            None => self.portals.meanings(&name).filter_map(|portal| text(portal.run)).collect(),
        }
    }

    /// The texts behind all portals that have a name, in the order of the names.
    #[must_use]
    pub fn all_cursor_texts(&self) -> Vec<(Arc<str>, SqlText)> {
        let mut names: Vec<&Name> = self.portals.names().collect();
        names.sort_unstable();
        let mut texts = Vec::new();
        for name in names {
            let shown: Arc<str> = String::from_utf8_lossy(name.as_bytes()).into();
            let runs = self.portals.meanings(name).filter_map(|portal| self.runs.get(portal.run));
            texts.extend(runs.map(|run| (Arc::clone(&shown), run.sql.clone())));
        }
        texts
    }

    /// What the statement of this name is, for the SQL command `EXECUTE` in the message that is being
    /// decided. What later messages of its unit say of the name does not count: they come later.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Lookup<Arc<Prepared>> {
        let name = Name::new(name.as_bytes());
        let at = match &self.gate {
            Gate::Deciding(deciding) => deciding.at,
            Gate::Open => 0,
        };
        match self.unit.statement_before(&name, at) {
            Some((prepared, _)) => Lookup::Known(prepared),
            None => self.statements.lookup(&name, self.resynced),
        }
    }

    /// The message that a submission is out for, for the fuzzers' oracle: its place in its unit, how many
    /// messages the unit has, and its bytes.
    #[cfg(any(test, fuzzing))]
    pub fn item_under_decision(&self) -> Option<(usize, usize, &[u8])> {
        let Gate::Deciding(deciding) = &self.gate else { return None };
        deciding.submitted.map(|_| (deciding.at, self.unit.items.len(), self.unit.frame(deciding.at)))
    }

    /// How many `Flush` were sent that are not the agent's, for the fuzzers' oracle; without those of probes.
    #[cfg(any(test, fuzzing))]
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Bytes of the agent's that are kept until they are decided, for the fuzzers' oracle.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        self.unit.bytes.len()
    }

    /// Tells the agent something while it waits. It is sent between two messages of upstream's.
    pub fn notice(&mut self, message: &str, detail: Option<&str>, hint: Option<&str>) {
        let mut frame = BytesMut::new();
        backend::put_notice(message, detail, hint, &mut frame);
        if self.passing.rest == 0 {
            self.to_agent.extend_from_slice(&frame);
        } else {
            self.notices.push_back(frame);
        }
    }

    /// Ends the session with an error of ours, where the agent can still read one: between two
    /// messages. What was forwarded and not answered has an unknown outcome.
    pub fn end(&mut self, refusal: &Refusal, now_ns: u64) {
        if !self.ended && self.passing.rest == 0 {
            backend::put_refusal_as(refusal, "FATAL", &mut self.to_agent);
        }
        self.upstream_gone(now_ns);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    /// Upstream owes an answer of this kind.
    fn expect(&mut self, kind: Owed, substitute: Option<Box<Substitute>>) {
        if kind.ends_in_ready() {
            self.resynced = self.tickets;
            self.pipeline.synced();
            // The transaction of the pipeline ends with it, and `SET LOCAL` with that.
            if std::mem::take(&mut self.told_in_pipeline) {
                self.settings.forget(Change::All);
            }
        }
        self.synced = false;
        self.expected.push_back(Expected { kind, substitute });
    }

    fn hold_run(&mut self, run: Option<RunKey>) -> Option<RunKey> {
        if let Some(run) = run.and_then(|key| self.runs.get_mut(key)) {
            run.holders += 1;
        }
        run
    }

    /// One holder less; the last one ends the run. A run that nothing refers to and that never
    /// completed was never executed.
    fn release_run(&mut self, key: Option<RunKey>, now_ns: u64) {
        let Some(key) = key else { return };
        let Some(run) = self.runs.get_mut(key) else { return };
        run.holders = run.holders.saturating_sub(1);
        if run.holders > 0 {
            return;
        }
        let ending = if run.done > 0 {
            Ending::Completed { tag: run.tag.as_str().into() }
        } else if run.doubtful {
            Ending::unknown()
        } else {
            Ending::NotExecuted
        };
        self.finish_run(key, ending, now_ns);
        self.runs.remove(key);
    }

    /// Tells a run's outcome, once.
    fn finish_run(&mut self, key: RunKey, ending: Ending, now_ns: u64) {
        let outcome = self.outcome_of_run(key, ending, now_ns);
        self.outputs.extend(outcome);
    }

    fn outcome_of_run(&mut self, key: RunKey, ending: Ending, now_ns: u64) -> Option<Output> {
        use sha2::Digest as _;
        let run = self.runs.get_mut(key)?;
        let intent = run.intent.take()?;
        let result_digest = run.digest.take().map(|hash| Digest::from_bytes(hash.finalize().into()));
        let outcome = Outcome {
            ending,
            rows: run.rows + run.rows_passed,
            bytes: run.bytes,
            transaction: self.synced.then_some(self.status),
            result_digest,
        };
        let duration_ns = now_ns.saturating_sub(run.started_ns);
        Some(Output::Outcome { intent, outcome, duration_ns })
    }

    /// Tells what has completed since the last `ReadyForQuery`. Outside of a block an error undoes all of it,
    /// back to the last end of a transaction: the answers said that it had completed, and nothing is left.
    fn settle_completed(&mut self, undone: bool) {
        self.left_block = false;
        let status = self.status;
        self.settle(undone, |outcome, may_be_kept| {
            outcome.transaction = Some(status);
            if may_be_kept {
                make_unknown(&mut outcome.ending);
            } else {
                outcome.ending = Ending::Failed { sqlstate: SqlState::rolled_back() };
            }
        });
    }

    /// Tells what has completed and is settled by the end of the connection: nobody said whether the
    /// transaction around it came to its end.
    fn settle_lost(&mut self) {
        self.settle(true, |outcome, _| make_unknown(&mut outcome.ending));
    }

    /// Hands out what has completed since the last `ReadyForQuery`. Where the last transaction was
    /// `undone`, what belongs to it is changed by `undo`, which is told whether a command behind it, or it
    /// itself, may have committed it all the same.
    fn settle(&mut self, undone: bool, undo: impl Fn(&mut Outcome, bool)) {
        let ends = |settling: &Settling| {
            let Ending::Completed { tag } = &settling.outcome.ending else { return false };
            is_transaction_end(tag)
        };
        let kept = if undone {
            self.settling.iter().rposition(ends).map_or(0, |last| last + 1)
        } else {
            self.settling.len()
        };
        let status = self.status;
        let last_commit = self.settling.iter().rposition(|settling| settling.commits_by_itself);
        for (place, mut settling) in self.settling.drain(..).enumerate() {
            if !undone {
                settling.outcome.transaction = Some(status);
            }
            if place >= kept {
                undo(&mut settling.outcome, last_commit.is_some_and(|last| place <= last));
            }
            let Settling { intent, outcome, duration_ns, .. } = settling;
            self.outputs.push_back(Output::Outcome { intent, outcome, duration_ns });
        }
    }

    /// Which settings a run may change: by what it is, by what it fetches from, and by ending a transaction.
    fn change_by_run(&self, run: RunKey) -> Option<Change> {
        let run = self.runs.get(run)?;
        let effects = run.steps.iter().flat_map(|step| &step.effects);
        let by_effects = effects.filter_map(|effect| self.settings.change_by(effect)).max();
        by_effects.max(run.changes).max(self.settings.change_by_anything())
    }

    /// The same for what fetches from `name` at item `at` of the unit.
    fn change_by_fetch(&self, name: &str, at: usize) -> Option<Change> {
        let name = Name::new(name.as_bytes());
        let change_of = |run: RunKey| self.runs.get(run).and_then(|run| run.changes);
        match self.unit.portal_before(&name, at) {
            Some(run) => run.map_or(Some(Change::All), change_of),
            None => {
                let mut portals = self.portals.meanings(&name).peekable();
                // Code may have opened it, and nobody knows its query.
                let nobody_knows = portals.peek().is_none().then_some(Change::All);
                portals.filter_map(|portal| change_of(portal.run)).max().max(nobody_knows)
            }
        }
    }

    /// A run goes upstream, in part or as a whole.
    fn forward_changes_of(&mut self, key: RunKey) {
        if let Some(change) = self.change_by_run(key) {
            self.settings.forget(change);
        }
        let Some(run) = self.runs.get(key) else { return };
        if run.steps.iter().any(|step| step.effects.contains(&SessionEffect::PathUnknown)) {
            self.settings.note_code();
        }
    }

    /// The effects of a run's raw statement `at` on names and settings, proposed under `ticket`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only the effects on names are this function's business"
    )]
    fn propose_effects(&mut self, run: RunKey, ticket: Ticket) {
        let Some(steps) = self.runs.get(run).map(|run| Arc::clone(&run.steps)) else { return };
        for effect in steps.iter().flat_map(|step| &step.effects) {
            match effect {
                SessionEffect::Prepare(name) => {
                    let sql = self.runs.get(run).map(|run| run.sql.clone());
                    let prepared = sql.map(|sql| Arc::new(Prepared { sql, types: Box::default() }));
                    self.statements.propose(ticket, &Name::new(name.as_bytes()), prepared);
                }
                SessionEffect::Deallocate(name) => {
                    self.statements.propose(ticket, &Name::new(name.as_bytes()), None);
                }
                SessionEffect::DeallocateAll | SessionEffect::DiscardAll => {
                    self.statements.propose_clear(ticket)
                }
                SessionEffect::Declare(name) => {
                    self.hold_run(Some(run));
                    let portal = Portal { run, cursor: true };
                    self.portals.propose(ticket, &Name::new(name.as_bytes()), Some(portal));
                }
                SessionEffect::CloseCursor(name) => {
                    self.portals.propose(ticket, &Name::new(name.as_bytes()), None);
                }
                _ => {}
            }
        }
    }

    /// Upstream confirmed raw statement `at` of a run.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only the effects on names are this function's business"
    )]
    fn confirm_effects(&mut self, run: RunKey, at: usize, ticket: Ticket, now_ns: u64) {
        let Some(steps) = self.runs.get(run).map(|run| Arc::clone(&run.steps)) else { return };
        let Some(step) = steps.get(at) else { return };
        for effect in &step.effects {
            if matches!(
                effect,
                SessionEffect::Commit { chain: true } | SessionEffect::Rollback { chain: true }
            ) {
                self.transaction_since_ns = now_ns;
            }
            match effect {
                SessionEffect::Prepare(name) | SessionEffect::Deallocate(name) => {
                    self.statements.confirm(ticket, &Name::new(name.as_bytes()));
                }
                SessionEffect::DeallocateAll => {
                    self.statements.confirm_clear(ticket);
                }
                SessionEffect::DiscardAll => {
                    self.statements.confirm_clear(ticket);
                    let ended = self.portals.end_confirmed(|_| true);
                    self.release_portals(ended, now_ns);
                }
                SessionEffect::Declare(name) | SessionEffect::CloseCursor(name) => {
                    let ended = self.portals.confirm(ticket, &Name::new(name.as_bytes()));
                    self.release_portals(ended, now_ns);
                }
                SessionEffect::CloseAllCursors => {
                    let ended = self.portals.end_confirmed(|_| true);
                    self.release_portals(ended, now_ns);
                }
                SessionEffect::Fetch(name) => {
                    let tag = self.runs.get(run).map(|run| run.tag.clone()).unwrap_or_default();
                    if let Some(fetched) = self.run_of_bound_portal(name) {
                        fetched.tag = tag;
                        fetched.done = fetched.done.max(1);
                    }
                }
                SessionEffect::CatalogueChange => self.outputs.push_back(Output::CatalogueChanged),
                SessionEffect::OwnCatalogueChange => self.outputs.push_back(Output::OwnCatalogueChanged),
                SessionEffect::Set { name, value, .. } => {
                    if let Some(claim) = name.strip_prefix("countersign.") {
                        self.outputs.push_back(Output::Claimed(claim.into(), value.clone()));
                    }
                }
                _ => {}
            }
        }
    }

    /// Upstream will not run what is left of a run from raw statement `from` on.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only the effects on names are this function's business"
    )]
    fn withdraw_effects(&mut self, run: RunKey, from: usize, ticket: Ticket, now_ns: u64) {
        let Some(steps) = self.runs.get(run).map(|run| Arc::clone(&run.steps)) else { return };
        for effect in steps.iter().skip(from).flat_map(|step| &step.effects) {
            match effect {
                SessionEffect::Prepare(name) | SessionEffect::Deallocate(name) => {
                    self.statements.withdraw(ticket, &Name::new(name.as_bytes()));
                }
                SessionEffect::DeallocateAll | SessionEffect::DiscardAll => {
                    self.statements.withdraw_clear(ticket)
                }
                SessionEffect::Declare(name) | SessionEffect::CloseCursor(name) => {
                    let never = self.portals.withdraw(ticket, &Name::new(name.as_bytes()));
                    self.release_portals(never, now_ns);
                }
                // It failed, or was never reached: how far what it fetches from had come, nobody says.
                SessionEffect::Fetch(name) => {
                    if let Some(fetched) = self.run_of_bound_portal(name) {
                        fetched.doubtful = fetched.done == 0;
                    }
                }
                _ => {}
            }
        }
    }

    /// The run that the portal `name` stood for when upstream came to what it has just answered, where a
    /// `Bind` made it.
    fn run_of_bound_portal(&mut self, name: &str) -> Option<&mut Run> {
        let portal = *self.portals.confirmed(&Name::new(name.as_bytes()))?;
        if portal.cursor { None } else { self.runs.get_mut(portal.run) }
    }

    fn release_portals(&mut self, ended: impl IntoIterator<Item = Portal>, now_ns: u64) {
        for portal in ended {
            self.release_run(Some(portal.run), now_ns);
        }
    }
}
