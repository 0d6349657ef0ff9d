//! From the agent: messages are gathered into a unit, decided one by one, and forwarded together.

use std::sync::Arc;

use super::denial::{Substitutes, Told};
use super::names::{Lookup, Name, Prepared};
use super::settings::Change;
use super::texts::Texts;
use super::unit::{Kind, Unit};
use super::{Deciding, Gate, Output, Owed, Portal, Purpose, Resolution, Run, RunKey, Session, Submission};
use crate::refusal::Refusal;
use crate::statement::{Ending, SessionEffect, SqlText, Statement, Step, TransactionStatus, Via};
use crate::wire::frame::{Frame, FrameError, Header};
use crate::wire::frontend::{is_known, tag};

/// The largest frame that Postgres itself accepts (`PQ_LARGE_MESSAGE_LIMIT`), for messages that pass
/// through without being held whole.
const STREAMED: usize = 0x3fff_ffff;

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Length => Self::Protocol { what: "invalid message length" },
            FrameError::TooLarge { length, limit } => Self::TooLarge { length, limit },
        }
    }
}

impl Session {
    /// Takes in what the agent sent; returns how many bytes were consumed. The rest is to be offered
    /// again, with more behind it, or once the unit under decision has been resolved.
    ///
    /// # Errors
    /// When the bytes are not the protocol. The session cannot go on.
    pub fn on_agent(&mut self, input: &[u8], now_ns: u64) -> Result<usize, Refusal> {
        let mut used = 0;
        while matches!(self.gate, Gate::Open) && !self.agent_left && !self.ended {
            let rest = input.get(used..).unwrap_or_default();
            if self.copy_rest > 0 {
                let part = rest.get(..self.copy_rest.min(rest.len())).unwrap_or_default();
                if part.is_empty() {
                    break;
                }
                if self.copy_forward {
                    self.to_upstream.extend_from_slice(part);
                }
                self.copy_rest -= part.len();
                used += part.len();
                continue;
            }
            let Some(header) = Header::read(rest, STREAMED)? else { break };
            if header.tag == tag::COPY_DATA && self.unit.is_empty() {
                self.copy_rest = header.total;
                self.copy_forward = self.may_be_copying();
                continue;
            }
            if header.total > self.limits.message {
                return Err(Refusal::TooLarge { length: header.total, limit: self.limits.message });
            }
            let Some(bytes) = rest.get(..header.total) else { break };
            self.take(Frame { tag: header.tag, bytes }, now_ns)?;
            used += header.total;
        }
        Ok(used)
    }

    /// Whether `input`, which waits behind a unit under decision, holds a `Terminate`.
    #[must_use]
    pub fn says_goodbye(input: &[u8]) -> bool {
        let mut rest = input;
        while let Ok(Some(header)) = Header::read(rest, STREAMED) {
            if header.tag == tag::TERMINATE {
                return true;
            }
            rest = rest.get(header.total..).unwrap_or_default();
        }
        false
    }

    /// The agent's socket is closed, or half of it: everything before that still counts.
    pub fn agent_gone(&mut self, now_ns: u64) {
        if matches!(self.gate, Gate::Open) && !self.agent_left {
            self.leave(now_ns);
        } else {
            self.agent_left = true;
            self.tell_left();
        }
    }

    /// Decides what is there of a unit although the rest has not come: the agent has been silent for
    /// a while and may be waiting for answers.
    pub fn decide_partial(&mut self, now_ns: u64) {
        if self.has_partial_unit() {
            self.begin(now_ns);
        }
    }

    /// Upstream may read copy data now or when it comes to it. Anywhere else it ignores such
    /// messages, so they need not be forwarded.
    fn may_be_copying(&self) -> bool {
        self.copy_in
            || self.expected.iter().any(|owed| matches!(owed.kind, Owed::Query { .. } | Owed::Execute { .. }))
    }

    fn take(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<(), Refusal> {
        if !is_known(frame) {
            return Err(Refusal::Protocol { what: "invalid frontend message type" });
        }
        let bare = matches!(frame.tag, tag::SYNC | tag::FLUSH | tag::COPY_DONE | tag::TERMINATE);
        if bare && !frame.body().is_empty() {
            return Err(Refusal::Protocol { what: "invalid message format" });
        }
        if self.skipping {
            match frame.tag {
                tag::SYNC => {
                    self.skipping = false;
                    self.forward_sync(frame.bytes);
                }
                tag::TERMINATE => self.leave(now_ns),
                // Upstream drops it, so it need not be sent; and what is not sent needs no receipt.
                _ => self.skipped = true,
            }
            return Ok(());
        }
        if self.unit.is_empty() {
            match frame.tag {
                tag::SYNC if self.copy_in => {
                    self.swallowed += 1;
                    // If the copy has failed already, it is not swallowed.
                    self.resynced = self.tickets;
                    self.to_upstream.extend_from_slice(frame.bytes);
                    return Ok(());
                }
                tag::SYNC => {
                    self.forward_sync(frame.bytes);
                    return Ok(());
                }
                tag::FLUSH => {
                    self.to_upstream.extend_from_slice(frame.bytes);
                    return Ok(());
                }
                tag::COPY_DONE | tag::COPY_FAIL => {
                    self.forward_copy_end(frame.bytes);
                    return Ok(());
                }
                _ => {}
            }
        }
        if frame.tag == tag::TERMINATE {
            self.leave(now_ns);
            return Ok(());
        }
        if self.copy_in && self.unit.is_empty() {
            return Err(Self::not_copy_data());
        }
        let malformed = |_| Refusal::Protocol { what: "invalid message format" };
        self.unit.push(frame, &mut self.texts).map_err(malformed)?;
        let complete = matches!(frame.tag, tag::SYNC | tag::FLUSH | tag::QUERY | tag::FUNCTION_CALL)
            || self.unit.bytes.len() >= self.limits.unit
            || self.unit.items.len() >= Unit::MOST_ITEMS;
        if complete {
            self.begin(now_ns);
        }
        Ok(())
    }

    /// Upstream waits for copy data and the agent sends something else. It would be decided behind a
    /// copy that cannot end.
    pub(super) fn not_copy_data() -> Refusal {
        Refusal::Protocol { what: "unexpected message type during COPY from stdin" }
    }

    fn leave(&mut self, now_ns: u64) {
        self.agent_left = true;
        // Postgres runs what came before the end even without a Sync.
        if self.unit.is_empty() { self.tell_left() } else { self.begin(now_ns) }
    }

    pub(super) fn tell_left(&mut self) {
        if self.agent_left && !self.left_told && matches!(self.gate, Gate::Open) && self.unit.is_empty() {
            self.left_told = true;
            self.outputs.push_back(Output::AgentLeft);
        }
    }

    fn forward_sync(&mut self, bytes: &[u8]) {
        self.to_upstream.extend_from_slice(bytes);
        self.owe(Owed::Sync);
    }

    fn forward_copy_end(&mut self, bytes: &[u8]) {
        if !self.may_be_copying() {
            return;
        }
        self.to_upstream.extend_from_slice(bytes);
        if self.copy_in {
            self.copy_in = false;
            self.copy_ended = true;
        } else {
            self.owe(Owed::CopyEnd);
        }
    }

    pub(super) fn owe(&mut self, kind: Owed) {
        self.expect(kind, None);
    }

    fn begin(&mut self, now_ns: u64) {
        self.gate = Gate::Deciding(Deciding::default());
        self.advance(now_ns);
    }

    /// Goes on deciding: up to the next submission, or to the end and forwards the unit.
    pub(super) fn advance(&mut self, now_ns: u64) {
        loop {
            let Gate::Deciding(deciding) = &self.gate else { return };
            let waits =
                deciding.when_idle || deciding.when_quiet || deciding.when_answered || deciding.parsing;
            if deciding.submitted.is_some() || waits {
                return;
            }
            let (at, covering) = (deciding.at, deciding.covering);
            let end = deciding.refused.as_ref().map_or(self.unit.items.len(), |(end, _)| *end);
            if at >= end {
                if covering {
                    self.forward_unit(now_ns);
                    return;
                }
                self.set_deciding(|deciding| {
                    deciding.covering = true;
                    deciding.at = 0;
                });
                continue;
            }
            let waits = if covering { self.cover(at) } else { self.decide(at) };
            if waits {
                return;
            }
            // `decide` may have cut the unit short before `at`; the next round sees that.
            self.set_deciding(|deciding| deciding.at += 1);
        }
    }

    pub(super) fn set_deciding(&mut self, change: impl FnOnce(&mut Deciding)) {
        if let Gate::Deciding(deciding) = &mut self.gate {
            change(deciding);
        }
    }

    /// Decides item `at`; `true` when a submission is out.
    fn decide(&mut self, at: usize) -> bool {
        enum Then {
            Nothing,
            Submit(Statement, Purpose),
            Refuse(Told),
            Wait,
        }
        let Some(item) = self.unit.items.get(at) else { return false };
        let is_run_at_once = matches!(item.kind, Kind::Query(_) | Kind::FunctionCall);
        let refused = if is_run_at_once { self.refusal_behind_execute(at) } else { None };
        let over = self.texts.over(&self.limits);
        let then = match &item.kind {
            // A Parse that is bound in the same unit is recorded with its Bind.
            Kind::Parse { name, prepared, .. } => {
                // There is one unnamed statement, and the next Parse takes its place.
                let over = over.filter(|_| !name.is_unnamed() && Texts::counts(prepared.sql.len()));
                if self.statements.count() >= self.limits.statements && !name.is_unnamed() {
                    Then::Refuse(Told::Refusal(Refusal::TooManyStatements { limit: self.limits.statements }))
                } else if let Some(over) = over {
                    Then::Refuse(Told::Refusal(over))
                } else if self.unit.is_bound_later(at, name) {
                    Then::Nothing
                } else {
                    Then::Submit(parse_only(prepared.sql.clone()), Purpose::Prepare)
                }
            }
            Kind::Bind { portal, .. }
                if !portal.is_unnamed() && self.portals.count() >= self.limits.statements =>
            {
                Then::Refuse(Told::Refusal(Refusal::TooManyStatements { limit: self.limits.statements }))
            }
            Kind::Bind { portal, statement } => {
                // A portal keeps the text, and perhaps the values, even when the statement is closed.
                let kept = |prepared: &Prepared| prepared.sql.len() + self.unit.frame(at).len();
                let over = over.filter(|_| !portal.is_unnamed());
                let meaning = match self.unit.statement_before(statement, at) {
                    Some((prepared, _)) => Lookup::Known(prepared),
                    None => self.statements.lookup(statement, self.resynced),
                };
                match (meaning, over) {
                    (Lookup::Known(prepared), Some(over)) if Texts::counts(kept(&prepared)) => {
                        Then::Refuse(Told::Refusal(over))
                    }
                    (Lookup::Known(prepared), _) => {
                        match self.unit.bound_statement(at, &prepared, &self.texts) {
                            Some(statement) => Then::Submit(statement, Purpose::Run),
                            None => Then::Refuse(Told::Refusal(Refusal::Internal {
                                what: "a Bind changed its mind",
                            })),
                        }
                    }
                    (Lookup::Unknown, _) => Then::Refuse(Told::NoStatement(self.unit.name_as_sent(at))),
                    (Lookup::Unsettled, _) => Then::Wait,
                }
            }
            Kind::Execute { portal } => {
                let known = self.unit.portal_before(portal, at).is_some()
                    || self.portals.lookup(portal, self.resynced) != Lookup::Unknown;
                if !known {
                    Then::Refuse(Told::NoPortal(self.unit.name_as_sent(at)))
                } else {
                    match self.executed_statement(portal, at) {
                        Lookup::Unknown => Then::Nothing,
                        Lookup::Known(statement) => Then::Submit(statement, Purpose::Run),
                        Lookup::Unsettled => Then::Wait,
                    }
                }
            }
            Kind::Query(_) | Kind::FunctionCall if refused.is_some() => {
                refused.map_or(Then::Nothing, |refusal| Then::Refuse(Told::Refusal(refusal)))
            }
            Kind::Query(sql) => Then::Submit(Statement::query(sql.clone()), Purpose::Run),
            Kind::FunctionCall => match self.unit.called_statement(at) {
                Some(statement) => Then::Submit(statement, Purpose::Run),
                None => Then::Refuse(Told::Refusal(Refusal::Internal { what: "a call changed its mind" })),
            },
            Kind::Describe
            | Kind::CloseStatement(_)
            | Kind::ClosePortal(_)
            | Kind::Flush
            | Kind::Sync
            | Kind::CopyData
            | Kind::CopyEnd => Then::Nothing,
        };
        match then {
            Then::Nothing => {
                self.note_execution(at);
                false
            }
            Then::Submit(statement, purpose) => {
                self.submit(at, statement, purpose);
                true
            }
            Then::Refuse(told) => {
                self.set_deciding(|deciding| deciding.refused = Some((at, told)));
                false
            }
            Then::Wait => self.wait_for_answers(at),
        }
    }

    /// Submits item `at`, a `Parse`, if no receipt covers it yet; `true` when a submission is out.
    fn cover(&mut self, at: usize) -> bool {
        let Some(item) = self.unit.items.get(at) else { return false };
        if let (Kind::Parse { prepared, covered: false, .. }, None) = (&item.kind, item.run) {
            let statement = parse_only(prepared.sql.clone());
            self.submit(at, statement, Purpose::Prepare);
            return true;
        }
        false
    }

    /// An `Execute` tells the rest of the unit which names its statement makes.
    fn note_execution(&mut self, at: usize) {
        let Some(item) = self.unit.items.get(at) else { return };
        let Kind::Execute { portal } = &item.kind else { return };
        let Some(run) = item.run.or_else(|| self.run_of_portal(portal, at)) else { return };
        let changes = self.change_by_run(run).is_some();
        self.set_deciding(|deciding| deciding.changes_settings |= changes);
        if let Some(Run { sql, steps, .. }) = self.runs.get(run) {
            self.unit.will_run(at, run, sql, steps);
        }
    }

    pub(super) fn run_of_portal(&self, portal: &Name, end: usize) -> Option<RunKey> {
        match self.unit.portal_before(portal, end) {
            Some(run) => run,
            None => self.portals.latest(portal).map(|portal| portal.run),
        }
    }

    /// What an `Execute` of `portal` at item `at` is decided as; unknown where its `Bind` has said it.
    fn executed_statement(&self, portal: &Name, at: usize) -> Lookup<Statement> {
        let late = self.late_statement(portal, at);
        if late == Lookup::Unknown && self.is_cursor(portal, at) {
            return self.unit.fetched_statement(at).map_or(Lookup::Unknown, Lookup::Known);
        }
        late
    }

    /// Whether `portal` is a cursor that SQL has declared, as far as item `at` can tell.
    fn is_cursor(&self, portal: &Name, at: usize) -> bool {
        if self.unit.bind_before(portal, at).is_some() {
            return false;
        }
        self.unit.portal_before(portal, at).is_some()
            || self.portals.meanings(portal).any(|portal| portal.cursor)
    }

    /// The statement that an `Execute` of `portal` at item `at` runs, where that has to be decided
    /// anew: it is looked up when it is executed, and something may have happened since its `Bind`.
    fn late_statement(&self, portal: &Name, at: usize) -> Lookup<Statement> {
        let late = |run: RunKey| self.runs.get(run).and_then(|run| run.late.clone());
        if let Some(bind) = self.unit.bind_before(portal, at) {
            if self.unit.is_quiet_between(bind, at) {
                return Lookup::Unknown;
            }
            let run = self.unit.items.get(bind).and_then(|item| item.run);
            return run.and_then(late).map_or(Lookup::Unknown, Lookup::Known);
        }
        if self.unit.portal_before(portal, at).is_some() {
            return Lookup::Unknown;
        }
        match self.portals.lookup(portal, self.resynced) {
            Lookup::Known(portal) if !portal.cursor => {
                late(portal.run).map_or(Lookup::Unknown, Lookup::Known)
            }
            // Which run it is decides what its completion says of names and settings.
            Lookup::Unsettled => Lookup::Unsettled,
            Lookup::Known(_) | Lookup::Unknown => Lookup::Unknown,
        }
    }

    fn submit(&mut self, at: usize, statement: Statement, purpose: Purpose) {
        let ticket = self.ticket();
        let status = self.is_idle().then_some(self.status);
        let before = self.unit.items.iter().take(at).filter_map(|item| item.run);
        let before = before.filter_map(|run| self.runs.get(run)).map(|run| run.shown.clone()).collect();
        let digest = statement.digest();
        let first = !self.unit.executes_before(at);
        let mut upstream_parses = false;
        self.set_deciding(|deciding| {
            deciding.submitted = Some((ticket, digest));
            upstream_parses = deciding.upstream_parses;
        });
        let submission =
            Submission { ticket, purpose, statement, digest, status, before, first, upstream_parses };
        self.outputs.push_back(Output::Submit(submission));
    }

    /// Item `at` means one thing or another, depending on answers that have not come: it waits for them;
    /// `true` when it does. They come by themselves, because a message that ends in `ReadyForQuery` was
    /// forwarded behind what they answer.
    fn wait_for_answers(&mut self, at: usize) -> bool {
        let waits = self.expected.iter().any(|expected| expected.kind.ends_in_ready());
        self.set_deciding(|deciding| {
            if waits {
                deciding.when_answered = true;
            } else {
                // It cannot be, and refusing is better than guessing.
                let told = Told::Refusal(Refusal::Internal { what: "a name's meaning cannot be settled" });
                deciding.refused = Some((at, told));
            }
        });
        waits
    }

    /// Upstream has said `ReadyForQuery`: what waited for that is decided now.
    pub(super) fn decide_what_waited(&mut self, now_ns: u64) {
        self.drop_copy_ends();
        let idle = self.is_idle();
        let Gate::Deciding(deciding) = &mut self.gate else { return };
        if deciding.when_answered || (deciding.when_idle && idle) {
            deciding.when_answered = false;
            deciding.when_idle &= !idle;
            self.advance(now_ns);
        }
    }

    /// Upstream owes nothing more: what waited for that is decided now.
    pub(super) fn decide_what_waited_for_quiet(&mut self, now_ns: u64) {
        if !matches!(&self.gate, Gate::Deciding(deciding) if deciding.when_quiet) {
            return;
        }
        self.drop_copy_ends();
        if self.expected.is_empty() {
            self.set_deciding(|deciding| deciding.when_quiet = false);
            self.advance(now_ns);
        }
    }

    /// The answer to a submission. Answers to submissions that were withdrawn are ignored; a receipt
    /// that comes too late is told as never executed.
    pub fn resolve(&mut self, ticket: u64, resolution: Resolution, now_ns: u64) {
        let (at, submitted) = if let Gate::Deciding(deciding) = &self.gate
            && let Some((out, digest)) = deciding.submitted
            && out == ticket
        {
            (deciding.at, digest)
        } else {
            if let Resolution::Forward { receipt, .. } | Resolution::Unparsed { receipt, .. } = resolution {
                self.never_executed(&receipt);
            }
            return;
        };
        self.set_deciding(|deciding| deciding.submitted = None);
        match resolution {
            Resolution::Forward { receipt, steps, shown, digest_result, late } => {
                let Some(statement) = self.cleared(at, &receipt) else {
                    self.never_executed(&receipt);
                    // An answer that came meanwhile may have changed what its name means: then it is
                    // decided anew.
                    if receipt.digest() != submitted {
                        let what = "a receipt for another statement";
                        let told = Told::Refusal(Refusal::Internal { what });
                        self.set_deciding(|deciding| deciding.refused = Some((at, told)));
                    }
                    self.advance(now_ns);
                    return;
                };
                let changes = self.note_effects(at, &steps);
                let (sql, late) = (statement.sql.clone(), late.then_some(statement));
                let run = self.runs.insert(Run {
                    intent: Some(receipt.intent()),
                    sql,
                    shown,
                    steps,
                    done: 0,
                    committed: false,
                    tag: String::new(),
                    rows: 0,
                    rows_passed: 0,
                    bytes: 0,
                    digest: digest_result.then(sha2::Sha256::default),
                    started_ns: now_ns,
                    changes,
                    late,
                    doubtful: false,
                    holders: 1,
                });
                if let Some(item) = self.unit.items.get_mut(at) {
                    item.run = Some(run);
                }
                self.mark_covered(at);
                self.note_execution(at);
                self.set_deciding(|deciding| deciding.at += 1);
            }
            Resolution::Refuse(refusal) => self.refuse(at, refusal),
            Resolution::Unparsed { receipt, refusal, shown } => match self.cleared(at, &receipt) {
                Some(statement) => {
                    let intent = Some(receipt.intent());
                    let run = self.runs.insert(Run::of_parsing(intent, statement.sql, shown, now_ns));
                    self.ask_upstream_to_parse(at, run, refusal, now_ns);
                }
                None => {
                    self.never_executed(&receipt);
                    if receipt.digest() != submitted {
                        let what = "a receipt for another statement";
                        let told = Told::Refusal(Refusal::Internal { what });
                        self.set_deciding(|deciding| deciding.refused = Some((at, told)));
                    }
                }
            },
            Resolution::RollBack => {
                let query =
                    matches!(self.unit.items.get(at), Some(item) if matches!(item.kind, Kind::Query(_)));
                if query {
                    self.set_deciding(|deciding| deciding.refused = Some((at, Told::RolledBack)));
                } else {
                    self.refuse(at, Refusal::LedgerUnavailable { disk_full: false });
                }
            }
            Resolution::WhenIdle => {
                if self.will_rest() {
                    let settles = self.settles();
                    if !settles {
                        // The agent may not have asked for the answers yet.
                        Substitutes::flush(&mut self.to_upstream);
                        #[cfg(any(test, fuzzing))]
                        {
                            self.flushes += 1;
                        }
                    }
                    self.set_deciding(|deciding| {
                        deciding.when_idle = settles;
                        deciding.when_quiet = !settles;
                    });
                }
            }
        }
        self.advance(now_ns);
    }

    /// What a statement that was just allowed means for the rest of its unit; which settings it may change.
    fn note_effects(&mut self, at: usize, steps: &[Step]) -> Option<Change> {
        if matches!(self.unit.items.get(at), Some(item) if matches!(item.kind, Kind::Parse { .. })) {
            return None;
        }
        let mut changes = None;
        let mut ends_transaction = false;
        for effect in steps.iter().flat_map(|step| &step.effects) {
            let change = if let SessionEffect::Fetch(name) = effect {
                let declared_here = steps
                    .iter()
                    .flat_map(|step| &step.effects)
                    .any(|other| matches!(other, SessionEffect::Declare(declared) if declared == name));
                if declared_here { None } else { self.change_by_fetch(name, at) }
            } else {
                self.settings.change_by(effect)
            };
            let ends = matches!(
                effect,
                SessionEffect::Commit { .. }
                    | SessionEffect::Rollback { .. }
                    | SessionEffect::RollbackToSavepoint
            );
            ends_transaction |= ends && change.is_some();
            // The end of a transaction is looked at again when it is forwarded.
            changes = changes.max(change.filter(|_| !ends));
            if *effect == SessionEffect::TemporaryRelation {
                self.settings.may_have_temporary_relations();
            }
            // Code may make one, too.
            if matches!(effect, SessionEffect::OwnCatalogueChange | SessionEffect::PathUnknown) {
                self.settings.may_have_temporary_views();
            }
            self.settings.note_strings(effect);
        }
        let any = changes.is_some() || ends_transaction;
        self.set_deciding(|deciding| deciding.changes_settings |= any);
        changes
    }

    /// A statement that was recorded and will not be forwarded.
    fn never_executed(&mut self, receipt: &crate::ledger::Receipt) {
        let outcome = crate::statement::Outcome {
            ending: Ending::NotExecuted,
            rows: 0,
            bytes: 0,
            transaction: None,
            result_digest: None,
        };
        self.outputs.push_back(Output::Outcome { intent: receipt.intent(), outcome, duration_ns: 0 });
    }

    /// The statement that a receipt clears, if it is a receipt for item `at`.
    fn cleared(&self, at: usize, receipt: &crate::ledger::Receipt) -> Option<Statement> {
        let statement = match &self.unit.items.get(at)?.kind {
            Kind::Parse { prepared, .. } => parse_only(prepared.sql.clone()),
            Kind::Bind { statement, .. } => {
                let prepared = match self.unit.statement_before(statement, at) {
                    Some((prepared, _)) => prepared,
                    None => match self.statements.lookup(statement, self.resynced) {
                        Lookup::Known(prepared) => prepared,
                        Lookup::Unknown | Lookup::Unsettled => return None,
                    },
                };
                self.unit.bound_statement(at, &prepared, &self.texts)?
            }
            Kind::Query(sql) => Statement::query(sql.clone()),
            Kind::FunctionCall => self.unit.called_statement(at)?,
            Kind::Execute { portal } => match self.executed_statement(portal, at) {
                Lookup::Known(statement) => statement,
                Lookup::Unknown | Lookup::Unsettled => return None,
            },
            Kind::Describe
            | Kind::CloseStatement(_)
            | Kind::ClosePortal(_)
            | Kind::Flush
            | Kind::Sync
            | Kind::CopyData
            | Kind::CopyEnd => return None,
        };
        (statement.digest() == receipt.digest()).then_some(statement)
    }

    fn mark_covered(&mut self, at: usize) {
        let Some(Kind::Bind { statement, .. }) = self.unit.items.get(at).map(|item| &item.kind) else {
            return;
        };
        let Some((_, Some(parse))) = self.unit.statement_before(statement, at) else { return };
        if let Some(Kind::Parse { covered, .. }) = self.unit.items.get_mut(parse).map(|item| &mut item.kind) {
            *covered = true;
        }
    }

    /// Whether a statement of the unit under decision was decided, and may be forwarded.
    #[must_use]
    pub fn has_decided(&self) -> bool {
        self.unit.items.iter().any(|item| item.run.is_some())
    }

    /// Refuses the unit under decision, from the first statement that was already decided: that decision
    /// no longer holds. The submission that waits for its answer is forgotten.
    pub fn refuse_unit(&mut self, refusal: Refusal, now_ns: u64) {
        let Some(at) = self.unit.items.iter().position(|item| item.run.is_some()) else { return };
        self.set_deciding(|deciding| {
            *deciding = Deciding { at, refused: Some((at, Told::Refusal(refusal))), ..Deciding::default() };
        });
        self.advance(now_ns);
    }

    pub(super) fn refuse(&mut self, at: usize, refusal: Refusal) {
        let mut cut = at;
        // What Postgres does not read is refused where Postgres would refuse it: at its Parse.
        if matches!(refusal, Refusal::Syntax { .. } | Refusal::Encoding { .. })
            && let Some(Kind::Bind { statement, .. }) = self.unit.items.get(at).map(|item| &item.kind)
            && let Some((_, Some(parse))) = self.unit.statement_before(statement, at)
        {
            cut = parse;
        }
        self.set_deciding(|deciding| {
            deciding.refused = Some((cut, Told::Refusal(refusal)));
            deciding.at = deciding.at.max(cut);
        });
    }

    /// Forwards the unit: every message up to its end or its refusal, then the substitute, then the
    /// `Sync`, in one go.
    fn forward_unit(&mut self, now_ns: u64) {
        let Gate::Deciding(deciding) = std::mem::replace(&mut self.gate, Gate::Open) else { return };
        if self.is_idle() && self.status == TransactionStatus::Idle {
            self.transaction_since_ns = now_ns;
        }
        let mut unit = std::mem::take(&mut self.unit);
        let end = deciding.refused.as_ref().map_or(unit.items.len(), |(end, _)| *end);

        for at in 0..end {
            let Some(item) = unit.items.get_mut(at) else { break };
            let run = item.run.take();
            let bytes = unit.bytes.get(item.range.clone()).unwrap_or_default();
            self.forward_item(&item.kind, bytes, run, now_ns);
        }
        if let Some((at, told)) = deciding.refused {
            if let Told::Unparsed(refusal) = told {
                let run = unit.items.get_mut(at).and_then(|item| item.run.take());
                self.forward_unparsed(&unit, at, run, refusal, now_ns);
            } else {
                self.forward_substitute(&unit, at, told, now_ns);
            }
            for item in unit.items.iter_mut().skip(at) {
                self.release_run(item.run.take(), now_ns);
            }
            if let Some(at) = unit.items.len().checked_sub(1).filter(|&last| last > at)
                && unit.items.get(at).is_some_and(|item| matches!(item.kind, Kind::Sync))
            {
                self.forward_sync(unit.frame(at));
            }
        }
        unit.clear();
        self.unit = unit;
        self.tell_left();
    }

    /// Forwards one message as the agent sent it, and notes what upstream owes for it. The item's own
    /// hold on its run passes to that note.
    pub(super) fn forward_item(&mut self, kind: &Kind, bytes: &[u8], run: Option<RunKey>, now_ns: u64) {
        let ticket = self.ticket();
        self.executed |= matches!(
            kind,
            Kind::Bind { .. } | Kind::Execute { .. } | Kind::Query(_) | Kind::FunctionCall | Kind::CopyEnd
        );
        if let Some(run) = run.filter(|_| !matches!(kind, Kind::Parse { .. })) {
            // The planner may run functions at `Bind` already.
            self.forward_changes_of(run);
        }
        match kind {
            Kind::Parse { name, prepared, .. } => {
                self.statements.propose(ticket, name, Some(Arc::clone(prepared)));
                self.owe(Owed::Parse { ticket, name: name.clone(), run });
            }
            Kind::Bind { portal, .. } => {
                if let Some(run) = run {
                    self.hold_run(Some(run));
                    self.portals.propose(ticket, portal, Some(Portal { run, cursor: false }));
                }
                self.owe(Owed::Bind { ticket, portal: portal.clone(), run });
            }
            Kind::Describe => self.owe(Owed::Describe),
            Kind::Execute { portal } => {
                let meanings: Vec<RunKey> = self.portals.meanings(portal).map(|portal| portal.run).collect();
                for meaning in meanings {
                    self.forward_changes_of(meaning);
                }
                let run = match run {
                    Some(own) => Some(own),
                    None => {
                        let run = self.portals.latest(portal).map(|portal| portal.run);
                        self.hold_run(run)
                    }
                };
                let steps = run.and_then(|run| self.runs.get(run)).map(|run| Arc::clone(&run.steps));
                self.pipeline.executed(steps.as_deref());
                if let Some(run) = run {
                    self.propose_effects(run, ticket);
                }
                self.owe(Owed::Execute { ticket, run });
            }
            Kind::CloseStatement(name) => {
                self.statements.propose(ticket, name, None);
                self.owe(Owed::CloseStatement { ticket, name: name.clone() });
            }
            Kind::ClosePortal(name) => {
                self.portals.propose(ticket, name, None);
                self.owe(Owed::ClosePortal { ticket, name: name.clone() });
            }
            Kind::Flush | Kind::CopyData => {}
            Kind::Sync => self.owe(Owed::Sync),
            Kind::Query(_) => {
                self.forget_unnamed(ticket, now_ns);
                if let Some(run) = run {
                    self.propose_effects(run, ticket);
                }
                self.owe(Owed::Query { ticket, run });
            }
            Kind::FunctionCall => self.owe(Owed::FunctionCall { run }),
            Kind::CopyEnd => {
                self.forward_copy_end(bytes);
                return;
            }
        }
        self.to_upstream.extend_from_slice(bytes);
    }

    /// A Query destroys the unnamed statement, and, where it comes so far as to be run, the unnamed portal.
    /// An Execute of that portal must not be forwarded behind it: it has crashed a Postgres 15.18.
    pub(super) fn forget_unnamed(&mut self, ticket: u64, now_ns: u64) {
        self.statements.propose(ticket, &Name::new(b""), None);
        self.forget_unnamed_portal(ticket, now_ns);
    }

    fn forget_unnamed_portal(&mut self, ticket: super::names::Ticket, now_ns: u64) {
        let ended = self.portals.forget_unnamed(ticket);
        self.release_portals(ended, now_ns);
    }

    fn forward_substitute(&mut self, unit: &Unit, at: usize, told: Told, now_ns: u64) {
        let Some(item) = unit.items.get(at) else { return };
        let ticket = self.ticket();
        if told == Told::RolledBack {
            self.settings.forget_what_the_transaction_changed();
            self.substitutes.roll_back(&mut self.to_upstream);
            self.forget_unnamed(ticket, now_ns);
            self.owe(Owed::Query { ticket, run: None });
            return;
        }
        let out = &mut self.to_upstream;
        let (substitute, kind) = match &item.kind {
            Kind::Query(_) => (self.substitutes.query(told, out), Owed::Query { ticket, run: None }),
            Kind::FunctionCall => {
                (self.substitutes.function_call(told, out), Owed::FunctionCall { run: None })
            }
            Kind::Parse { name, .. } => {
                let early = told.is_about_encoding();
                let substitute = self.substitutes.parse(told, name.as_bytes(), out);
                let kind = Owed::Parse { ticket, name: name.clone(), run: None };
                // An error before the statement's name matters changes no name.
                (substitute, if early { Owed::Describe } else { kind })
            }
            Kind::Execute { .. } => {
                (self.substitutes.execute(told, out), Owed::Execute { ticket, run: None })
            }
            Kind::Bind { .. }
            | Kind::Describe
            | Kind::CloseStatement(_)
            | Kind::ClosePortal(_)
            | Kind::Flush
            | Kind::Sync
            | Kind::CopyData
            | Kind::CopyEnd => {
                let substitute = self.substitutes.bind(told, out);
                (substitute, Owed::Bind { ticket, portal: Name::new(b""), run: None })
            }
        };
        if matches!(kind, Owed::Query { .. }) {
            if substitute.told.is_about_encoding() {
                self.forget_unnamed_portal(ticket, now_ns);
            } else {
                self.forget_unnamed(ticket, now_ns);
            }
        }
        self.expect(kind, Some(Box::new(substitute)));
    }

    /// Upstream skips to `Sync`, and the unit under decision lies before it: it is dropped as
    /// upstream would drop it.
    pub(super) fn drop_skipped_unit(&mut self, now_ns: u64) {
        let mut unit = std::mem::take(&mut self.unit);
        if let Gate::Deciding(deciding) = std::mem::replace(&mut self.gate, Gate::Open)
            && let Some((ticket, _)) = deciding.submitted
        {
            self.outputs.push_back(Output::Withdrawn(ticket));
        }
        for item in &mut unit.items {
            self.release_run(item.run.take(), now_ns);
        }
        self.skipped |= !unit.is_empty();
        let ends_in_sync = unit.items.last().is_some_and(|item| matches!(item.kind, Kind::Sync));
        if ends_in_sync {
            self.skipping = false;
            self.forward_sync(unit.frame(unit.items.len().saturating_sub(1)));
        }
        unit.clear();
        self.unit = unit;
        self.tell_left();
    }

    /// In a failed transaction upstream refuses everything but its end, so a single statement that
    /// does not end it needs nobody's approval. It must be the first that its unit executes: what is
    /// pipelined before it may end the transaction.
    #[must_use]
    pub fn is_doomed(submission: &Submission, steps: &[Step]) -> bool {
        use crate::statement::SessionEffect as Effect;
        let ends = |effect: &Effect| {
            matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. } | Effect::RollbackToSavepoint)
        };
        submission.first
            && submission.status == Some(TransactionStatus::Failed)
            && matches!(steps, [step] if !step.effects.iter().any(ends))
    }
}

/// What stands for a `Parse` in the ledger: its text, without values.
fn parse_only(sql: SqlText) -> Statement {
    Statement { via: Via::Parse, sql, parameters: Arc::from([]) }
}
