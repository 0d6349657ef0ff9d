//! From upstream: messages pass by their headers, and each answer settles what was owed for it.

use std::sync::Arc;

use super::denial::{Substitute, Told};
use super::probe::ProbeFailed;
use super::{Expected, Output, Owed, Passing, RunKey, Session, Settling, is_commit, is_transaction_end};
use crate::refusal::Refusal;
use crate::statement::{Ending, SessionEffect, SqlState, SqlText, TransactionStatus};
use crate::wire::backend::{self, Fields, tag};
use crate::wire::frame::{Frame, Header};

/// The largest message that may pass by its header: what the length field can say.
const LARGEST: usize = (u32::MAX as usize) + 1;

/// Takes what goes to the agent, in order.
pub trait Sink<'a> {
    /// Bytes of upstream's, a piece of the input as it was.
    fn pass(&mut self, bytes: &'a [u8]);
    /// Bytes of our own.
    fn insert(&mut self, bytes: &[u8]);
}

/// What to do with a whole message.
pub(super) enum Fate {
    Pass,
    Swallow,
    /// The substitute's answer is in `to_agent`; it takes the message's place.
    Replace,
}

impl Session {
    /// Takes in what upstream sent; returns how many bytes were consumed. The rest is to be offered
    /// again with more behind it.
    ///
    /// # Errors
    /// When upstream says what it cannot say here. The session cannot go on.
    pub fn on_upstream<'a>(
        &mut self,
        input: &'a [u8],
        now_ns: u64,
        sink: &mut impl Sink<'a>,
    ) -> Result<usize, Refusal> {
        let mut used = 0;
        // Bytes from here to `used` are for the agent and not handed out yet.
        let mut pending = 0;
        let result = loop {
            let rest = input.get(used..).unwrap_or_default();
            if self.passing.rest > 0 {
                let part = rest.get(..self.passing.rest.min(rest.len())).unwrap_or_default();
                if part.is_empty() {
                    break Ok(());
                }
                self.pass_part(part);
                used += part.len();
                if self.passing.rest == 0 && !self.notices.is_empty() {
                    hand_out(input, pending, used, sink);
                    pending = used;
                    for notice in self.notices.drain(..) {
                        sink.insert(&notice);
                    }
                }
                continue;
            }
            let header = match Header::read(rest, LARGEST) {
                Ok(Some(header)) => header,
                Ok(None) => break Ok(()),
                Err(_) => break Err(Self::out_of_step()),
            };
            // The rows of a probe are read whole: they are small, or something is wrong.
            if matches!(header.tag, tag::DATA_ROW | tag::COPY_DATA | tag::ROW_DESCRIPTION)
                && !matches!(self.expected.front(), Some(Expected { kind: Owed::Probe { .. }, .. }))
            {
                match self.begin_passing(header) {
                    Ok(()) => continue,
                    Err(refusal) => break Err(refusal),
                }
            }
            if header.total > self.limits.reply {
                break Err(Refusal::Internal { what: "upstream sent a message over the limit" });
            }
            let Some(bytes) = rest.get(..header.total) else { break Ok(()) };
            let frame = Frame { tag: header.tag, bytes };
            match self.whole(frame, now_ns) {
                Ok(Fate::Pass) => {}
                Ok(Fate::Swallow) => {
                    hand_out(input, pending, used, sink);
                    pending = used + header.total;
                }
                Ok(Fate::Replace) => {
                    hand_out(input, pending, used, sink);
                    sink.insert(&self.to_agent);
                    self.to_agent.clear();
                    pending = used + header.total;
                }
                Err(refusal) => break Err(refusal),
            }
            used += header.total;
        };
        hand_out(input, pending, used, sink);
        if self.passing.rest == 0 {
            self.decide_what_waited_for_quiet(now_ns);
        }
        result.map(|()| used)
    }

    pub(super) fn out_of_step() -> Refusal {
        Refusal::Internal { what: "upstream's answer does not fit what was asked" }
    }

    /// Counts part of a message that passes by length alone.
    fn pass_part(&mut self, part: &[u8]) {
        use sha2::Digest as _;
        self.passing.rest -= part.len();
        if let Some(run) = self.passing.run.and_then(|key| self.runs.get_mut(key)) {
            run.bytes += part.len() as u64;
            if let Some(hash) = &mut run.digest {
                hash.update(part);
            }
        }
    }

    fn begin_passing(&mut self, header: Header) -> Result<(), Refusal> {
        self.drop_copy_ends();
        let mut run = None;
        match (header.tag, self.expected.front().map(|head| &head.kind)) {
            (tag::ROW_DESCRIPTION, Some(Owed::Describe)) => {
                self.expected.pop_front();
            }
            (tag::ROW_DESCRIPTION, Some(Owed::Query { .. })) => {}
            (
                tag::DATA_ROW | tag::COPY_DATA,
                Some(Owed::Query { run: key, .. } | Owed::Execute { run: key, .. }),
            ) => {
                run = *key;
                if header.tag == tag::DATA_ROW
                    && let Some(run) = run.and_then(|key| self.runs.get_mut(key))
                {
                    run.rows_passed += 1;
                }
            }
            _ => return Err(Self::out_of_step()),
        }
        self.passing = Passing { rest: header.total, run };
        Ok(())
    }

    /// Ends of copies that upstream has come to; it does not answer them.
    pub(super) fn drop_copy_ends(&mut self) {
        while matches!(self.expected.front(), Some(Expected { kind: Owed::CopyEnd, .. })) {
            self.expected.pop_front();
        }
    }

    /// A whole message other than rows and copied data.
    fn whole(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<Fate, Refusal> {
        let body = frame.body();
        match frame.tag {
            tag::NOTICE | tag::NOTIFICATION => return Ok(Fate::Pass),
            tag::PARAMETER_STATUS => {
                if let Ok((name, value)) = backend::parameter_status(body) {
                    self.settings.reported(name, value);
                }
                return Ok(Fate::Pass);
            }
            tag::ERROR => return self.error(frame, now_ns),
            _ => {}
        }
        let Some(head) = self.expected.front() else {
            return self.unexpected(frame, now_ns);
        };
        match (frame.tag, &head.kind) {
            (_, Owed::Probe { .. }) => self.probe_answer(frame, now_ns),
            (_, Owed::Parsing { .. }) => self.parsing_answer(frame, now_ns),
            (tag::READY, Owed::KeepAlive) => {
                self.ready(body, now_ns)?;
                Ok(Fate::Swallow)
            }
            (tag::PARSE_COMPLETE, Owed::Parse { ticket, name, run }) => {
                let (ticket, name, run) = (*ticket, name.clone(), *run);
                self.statements.confirm(ticket, &name);
                self.complete(run, "PARSE", 0);
                self.expected.pop_front();
                self.release_run(run, now_ns);
                // Upstream parses what we cannot. The agent is told of the error only.
                Ok(if self.is_about_to_refuse_unparsed() { Fate::Swallow } else { Fate::Pass })
            }
            (tag::BIND_COMPLETE, Owed::Bind { ticket, portal, run }) => {
                let (ticket, portal, run) = (*ticket, portal.clone(), *run);
                let ended = self.portals.confirm(ticket, &portal);
                self.release_portals(ended, now_ns);
                self.expected.pop_front();
                self.release_run(run, now_ns);
                Ok(Fate::Pass)
            }
            (tag::CLOSE_COMPLETE, Owed::CloseStatement { ticket, name }) => {
                let (ticket, name) = (*ticket, name.clone());
                self.statements.confirm(ticket, &name);
                self.expected.pop_front();
                Ok(Fate::Pass)
            }
            (tag::CLOSE_COMPLETE, Owed::ClosePortal { ticket, name }) => {
                let (ticket, name) = (*ticket, name.clone());
                let ended = self.portals.confirm(ticket, &name);
                self.release_portals(ended, now_ns);
                self.expected.pop_front();
                Ok(Fate::Pass)
            }
            (tag::PARAMETER_DESCRIPTION, Owed::Describe) => Ok(Fate::Pass),
            (tag::NO_DATA, Owed::Describe) => {
                self.expected.pop_front();
                Ok(Fate::Pass)
            }
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY, Owed::Execute { ticket, run }) => {
                let (ticket, run) = (*ticket, *run);
                self.step_complete(frame, run, ticket, now_ns)?;
                self.expected.pop_front();
                if let Some(run) = run {
                    self.complete_for_now(run, now_ns);
                }
                self.release_run(run, now_ns);
                Ok(Fate::Pass)
            }
            (tag::COMMAND_COMPLETE | tag::EMPTY_QUERY, Owed::Query { ticket, run }) => {
                let (ticket, run) = (*ticket, *run);
                self.answered = true;
                self.step_complete(frame, run, ticket, now_ns)?;
                Ok(Fate::Pass)
            }
            (tag::PORTAL_SUSPENDED, Owed::Execute { run, .. }) => {
                let run = *run;
                if let Some(run) = run.and_then(|key| self.runs.get_mut(key)) {
                    run.tag = "PORTAL SUSPENDED".to_owned();
                    run.done = run.done.max(1);
                    run.rows += std::mem::take(&mut run.rows_passed);
                }
                self.expected.pop_front();
                self.release_run(run, now_ns);
                Ok(Fate::Pass)
            }
            (tag::COPY_IN, Owed::Query { .. } | Owed::Execute { .. }) => {
                self.copy_begins()?;
                if self.copy_in && (self.is_deciding() || !self.unit.is_empty()) {
                    return Err(Self::not_copy_data());
                }
                Ok(Fate::Pass)
            }
            (tag::COPY_OUT | tag::COPY_DONE, Owed::Query { .. } | Owed::Execute { .. }) => Ok(Fate::Pass),
            (tag::FUNCTION_CALL, Owed::FunctionCall { run }) => {
                let run = *run;
                self.answered = true;
                self.complete(run, "FUNCTION CALL", 0);
                Ok(Fate::Pass)
            }
            (tag::READY, Owed::Sync) => self.ready(body, now_ns),
            // Before it is ready it has told how the statement ended.
            (tag::READY, Owed::Query { .. } | Owed::FunctionCall { .. }) if self.answered => {
                self.ready(body, now_ns)
            }
            (_, Owed::CopyEnd) => {
                self.expected.pop_front();
                self.whole(frame, now_ns)
            }
            _ => self.unexpected(frame, now_ns),
        }
    }

    /// Whether what upstream answers next is the substitute behind a text that we could not parse.
    fn is_about_to_refuse_unparsed(&self) -> bool {
        let substitute = self.expected.front().and_then(|next| next.substitute.as_deref());
        matches!(substitute, Some(Substitute { told: Told::Unparsed(_), .. }))
    }

    /// The only answer that may come although nothing seems to be owed: `ReadyForQuery` for a `Sync`
    /// that upstream may or may not have read as part of a copy which failed.
    fn unexpected(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<Fate, Refusal> {
        if frame.tag == tag::READY && self.swallowed > 0 {
            self.swallowed -= 1;
            if std::mem::take(&mut self.skipping) && self.skipped {
                // It was not skipping after all, and misses what was not sent.
                return Err(Self::out_of_step());
            }
            self.expected.push_front(Expected { kind: Owed::Sync, substitute: None });
            return self.ready(frame.body(), now_ns);
        }
        Err(Self::out_of_step())
    }

    /// One raw statement of a run completed.
    fn step_complete(
        &mut self,
        frame: Frame<'_>,
        run: Option<RunKey>,
        ticket: u64,
        now_ns: u64,
    ) -> Result<(), Refusal> {
        let (tag, rows) = if frame.tag == tag::COMMAND_COMPLETE {
            backend::command_complete(frame.body()).map_err(|_| Self::out_of_step())?
        } else {
            ("", 0)
        };
        // The copy ended well, so upstream read every Sync among its data as part of it, and its end.
        if std::mem::take(&mut self.copying) {
            self.swallowed = 0;
            self.copy_in = false;
            let ended = std::mem::take(&mut self.copy_ended);
            if !ended && matches!(self.expected.get(1), Some(Expected { kind: Owed::CopyEnd, .. })) {
                self.expected.remove(1);
            }
        }
        let at = run.and_then(|key| self.runs.get(key)).map_or(0, |run| run.done);
        self.complete(run, tag, rows);
        self.left_block |= is_transaction_end(tag);
        if let Some(run) = run.and_then(|key| self.runs.get_mut(key)) {
            run.committed |= is_commit(tag);
        }
        if let Some(run) = run {
            self.confirm_effects(run, at, ticket, now_ns);
        }
        Ok(())
    }

    /// Notes a completed part of a run.
    pub(super) fn complete(&mut self, run: Option<RunKey>, tag: &str, rows: u64) {
        /// Keeps a text of a thousand statements from filling the ledger with tags.
        const LONGEST_TAG: usize = 1000;
        let Some(run) = run.and_then(|key| self.runs.get_mut(key)) else { return };
        if run.tag == "PORTAL SUSPENDED" {
            run.tag.clear();
        }
        if run.tag.len() + tag.len() < LONGEST_TAG {
            if !run.tag.is_empty() && !tag.is_empty() {
                run.tag.push_str("; ");
            }
            run.tag.push_str(tag);
        } else if !run.tag.ends_with("..") {
            run.tag.push_str("; ..");
        }
        run.rows += rows;
        run.rows_passed = 0;
        run.done += 1;
    }

    fn finish_completed(&mut self, run: RunKey, now_ns: u64) {
        let Some((tag, shown)) = self.runs.get(run).map(|run| (run.tag.as_str().into(), run.shown.clone()))
        else {
            return;
        };
        self.remember(shown);
        self.finish_run(run, Ending::Completed { tag }, now_ns);
    }

    /// An `Execute` has completed; outside of a block its transaction ends with the next `Sync`, perhaps in
    /// an error.
    fn complete_for_now(&mut self, run: RunKey, now_ns: u64) {
        /// An agent that never sends a `Sync` is not waited for.
        const MOST_SETTLING: usize = 4096;
        let in_block = self.status != TransactionStatus::Idle && !self.left_block;
        if in_block || self.settling.len() >= MOST_SETTLING {
            return self.finish_completed(run, now_ns);
        }
        let commits_by_itself = self.commits_by_itself(run);
        let Some((tag, shown)) = self.runs.get(run).map(|run| (run.tag.as_str().into(), run.shown.clone()))
        else {
            return;
        };
        self.remember(shown);
        if let Some(Output::Outcome { intent, outcome, duration_ns }) =
            self.outcome_of_run(run, Ending::Completed { tag }, now_ns)
        {
            self.settling.push(Settling { intent, outcome, duration_ns, commits_by_itself });
        }
    }

    /// Keeps a text for the reviewers of what may be held later in this transaction.
    fn remember(&mut self, shown: SqlText) {
        let shown = beginning_of(shown, self.limits.transaction_bytes);
        self.transaction_bytes += shown.len();
        self.transaction.push_back(shown);
        while self.transaction.len() > Self::TRANSACTION_KEPT
            || self.transaction_bytes > self.limits.transaction_bytes
        {
            let Some(oldest) = self.transaction.pop_front() else { break };
            self.transaction_bytes -= oldest.len();
            self.transaction_earlier += 1;
        }
    }

    /// Upstream asks for copy data. Every `Sync` that was forwarded before the copy's end is read as
    /// part of the copy and not answered.
    ///
    /// # Errors
    /// When anything but the copy's end was forwarded behind such a `Sync`. If the copy goes on, upstream
    /// ends the connection for it; if the copy fails before upstream has read the `Sync`, upstream runs
    /// it. Which of the two an answer then belongs to could not be told.
    fn copy_begins(&mut self) -> Result<(), Refusal> {
        self.copying = true;
        self.copy_ended = false;
        let swallowed = self.swallowed;
        while matches!(self.expected.get(1), Some(Expected { kind: Owed::Sync, .. })) {
            self.expected.remove(1);
            self.swallowed += 1;
        }
        if self.swallowed > swallowed
            && matches!(self.expected.front(), Some(Expected { kind: Owed::Execute { .. }, .. }))
        {
            self.pipeline.sync_was_swallowed();
        }
        // Any other message that is on its way ends the connection: Postgres gives the stream up as out
        // of step (`CopyGetData` complains before it has read the message), and says so itself.
        self.copy_in = self.expected.len() == 1;
        let next = self.expected.get(1).map(|expected| &expected.kind);
        if self.swallowed > swallowed && !matches!(next, None | Some(Owed::CopyEnd)) {
            return Err(Self::not_copy_data());
        }
        Ok(())
    }

    pub(super) fn ready(&mut self, body: &[u8], now_ns: u64) -> Result<Fate, Refusal> {
        let status = match body {
            [byte] => TransactionStatus::from_byte(*byte),
            _ => None,
        };
        let status = status.ok_or_else(Self::out_of_step)?;
        self.status = status;
        self.answered = false;
        self.skipped = false;
        let head = self.expected.pop_front();
        self.drop_copy_ends();
        self.synced = self.expected.is_empty();
        if self.synced {
            self.pipeline.at_rest(status != TransactionStatus::Idle);
        }
        self.copy_in = false;
        self.copying = false;
        match head.map(|head| head.kind) {
            Some(Owed::Query { ticket, run }) => {
                self.statements.confirm(ticket, &super::names::Name::new(b""));
                if let Some(run) = run {
                    let done = self.runs.get(run).map_or(0, |run| run.done);
                    self.withdraw_effects(run, done, ticket, now_ns);
                    self.finish_completed(run, now_ns);
                }
                self.release_run(run, now_ns);
            }
            Some(Owed::FunctionCall { run }) => {
                if let Some(run) = run {
                    self.finish_completed(run, now_ns);
                }
                self.release_run(run, now_ns);
            }
            _ => {}
        }
        self.settings.ready(status, self.is_idle());
        self.executed &= !self.is_idle();
        self.settle_completed(status == TransactionStatus::Idle && self.failed);
        self.failed = false;
        if status == TransactionStatus::Idle {
            // Portals end with their transaction; cursors may be WITH HOLD and are left to upstream.
            let mut ended = self.portals.end_confirmed(|portal| !portal.cursor);
            ended.extend(self.portals.end_unnamed(|portal| !portal.cursor));
            // So does the unnamed one, unless a Query is under way that came behind it.
            if self.portals.unnamed_may_live()
                && !self.expected.iter().any(|expected| expected.kind.stands_for_a_query())
            {
                self.portals.unnamed_is_gone();
            }
            self.release_portals(ended, now_ns);
            self.transaction.clear();
            self.transaction_earlier = 0;
            self.transaction_bytes = 0;
        }
        self.decide_what_waited(now_ns);
        Ok(Fate::Pass)
    }

    fn error(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<Fate, Refusal> {
        let fields = Fields::read(frame.body()).map_err(|_| Self::out_of_step())?;
        if fields.is_fatal() {
            // The connection ends behind it; what was owed is settled when it does.
            self.farewell = true;
            return Ok(Fate::Pass);
        }
        self.drop_copy_ends();
        self.failed = true;
        self.answered = true;
        self.copy_in = false;
        self.copying = false;
        // The transaction, or the part since its last savepoint, is undone by now.
        self.settings.forget_what_the_transaction_changed();
        let Some(head) = self.expected.front_mut() else {
            return Err(Self::out_of_step());
        };
        let mut fate = Fate::Pass;
        if let Some(substitute) = head.substitute.take()
            && substitute.nonce.as_ref().is_none_or(|nonce| fields.message.contains(nonce.as_str()))
        {
            substitute.told.put(&mut self.to_agent);
            fate = Fate::Replace;
        }
        let sqlstate = SqlState::new(fields.code).unwrap_or_else(SqlState::internal);
        match &head.kind {
            Owed::Probe { synced: true } => return self.probe_answer(frame, now_ns),
            Owed::Parsing { .. } => return self.parsing_answer(frame, now_ns),
            // The agent has not asked; where its transaction has failed, its next statement says so.
            Owed::KeepAlive => return Ok(Fate::Swallow),
            // A commit that fails at Sync, a Query that fails: ReadyForQuery follows without a skip.
            Owed::Sync => {}
            Owed::Query { ticket, run } => {
                let (ticket, run) = (*ticket, *run);
                if let Some(run) = run {
                    let done = self.runs.get(run).map_or(0, |run| run.done);
                    self.withdraw_effects(run, done, ticket, now_ns);
                    let ending = self.ending_of_error(run, sqlstate);
                    self.finish_run(run, ending, now_ns);
                }
            }
            Owed::FunctionCall { run } => {
                if let Some(run) = *run {
                    self.finish_run(run, Ending::Failed { sqlstate }, now_ns);
                }
            }
            // A probe in the middle of the agent's pipeline: its implicit transaction has failed, as by a
            // statement of its own, and the agent is told why.
            Owed::Probe { synced: false }
            | Owed::Parse { .. }
            | Owed::Bind { .. }
            | Owed::Describe
            | Owed::Execute { .. }
            | Owed::CloseStatement { .. }
            | Owed::ClosePortal { .. }
            | Owed::CopyEnd => self.skip_to_sync(sqlstate, now_ns),
        }
        Ok(fate)
    }

    /// How a run ends that upstream has answered with an error. The status is still the one that it
    /// began with.
    fn ending_of_error(&self, run: RunKey, sqlstate: SqlState) -> Ending {
        let Some(known) = self.runs.get(run) else { return Ending::Failed { sqlstate } };
        let tag = || Arc::from(known.tag.as_str());
        if known.committed {
            return Ending::FailedAfterCommit { tag: tag(), sqlstate };
        }
        let in_block = self.status != TransactionStatus::Idle && !self.left_block;
        if !in_block && self.commits_by_itself(run) {
            return Ending::Unknown { tag: tag(), sqlstate: Some(sqlstate) };
        }
        Ending::Failed { sqlstate }
    }

    /// Whether a run may end transactions of its own. In a text of several statements nothing can.
    fn commits_by_itself(&self, run: RunKey) -> bool {
        self.runs.get(run).is_some_and(
            |run| matches!(&*run.steps, [step] if step.effects.contains(&SessionEffect::CommitsByItself)),
        )
    }

    /// An error in the extended protocol: the message that failed, and everything behind it up to
    /// `Sync`, will not be answered any more.
    fn skip_to_sync(&mut self, sqlstate: SqlState, now_ns: u64) {
        let mut first = true;
        loop {
            match self.expected.front() {
                None => {
                    self.skipping = true;
                    self.skipped = false;
                    if self.is_deciding() || !self.unit.is_empty() {
                        self.drop_skipped_unit(now_ns);
                    }
                    return;
                }
                Some(Expected { kind: Owed::Sync | Owed::KeepAlive, .. }) => return,
                Some(_) => {}
            }
            let Some(Expected { kind, .. }) = self.expected.pop_front() else { return };
            let failed = first.then_some(sqlstate);
            first = false;
            self.settle_undone(kind, failed, now_ns);
        }
    }

    /// What was owed will not come: `failed` says with which error, or it was skipped.
    fn settle_undone(&mut self, kind: Owed, failed: Option<SqlState>, now_ns: u64) {
        let end = |session: &mut Self, run: Option<RunKey>| {
            if let (Some(run), Some(sqlstate)) = (run, failed) {
                session.finish_run(run, Ending::Failed { sqlstate }, now_ns);
            }
            session.release_run(run, now_ns);
        };
        let end_executed = |session: &mut Self, run: Option<RunKey>| {
            if let (Some(run), Some(sqlstate)) = (run, failed) {
                let ending = session.ending_of_error(run, sqlstate);
                session.finish_run(run, ending, now_ns);
            }
            session.release_run(run, now_ns);
        };
        match kind {
            Owed::Parse { ticket, name, run } => {
                if failed.is_some() && name.is_unnamed() {
                    // Even a failing Parse has removed the unnamed statement.
                    self.statements.end_unnamed(|_| true);
                }
                self.statements.withdraw(ticket, &name);
                end(self, run);
            }
            Owed::Bind { ticket, portal, run } => {
                // These are found before the portal of that name goes (`exec_bind_message`); anything else
                // may have come behind that.
                let early = |sqlstate: SqlState| matches!(sqlstate.as_str(), "26000" | "08P01" | "25P02");
                if failed.is_some_and(|sqlstate| !early(sqlstate)) && portal.is_unnamed() {
                    // Whether it did come behind that is guesswork.
                    let ended = self.portals.forget_confirmed_unnamed(ticket);
                    self.release_portals(ended, now_ns);
                }
                let never = self.portals.withdraw(ticket, &portal);
                self.release_portals(never, now_ns);
                end(self, run);
            }
            Owed::Execute { ticket, run } => {
                if let Some(run) = run {
                    self.withdraw_effects(run, 0, ticket, now_ns);
                }
                // The portal had gone with its transaction: what it ran before is what happened.
                let ran = run.and_then(|run| self.runs.get(run)).is_some_and(|run| run.done > 0);
                if ran && failed.is_some_and(|sqlstate| sqlstate.as_str() == "34000") {
                    self.release_run(run, now_ns);
                } else {
                    end_executed(self, run);
                }
            }
            Owed::CloseStatement { ticket, name } => {
                self.statements.withdraw(ticket, &name);
            }
            Owed::ClosePortal { ticket, name } => {
                self.portals.withdraw(ticket, &name);
            }
            Owed::Query { ticket, run } => {
                self.statements.withdraw(ticket, &super::names::Name::new(b""));
                if let Some(run) = run {
                    self.withdraw_effects(run, 0, ticket, now_ns);
                }
                end(self, run);
            }
            Owed::FunctionCall { run } => end(self, run),
            Owed::Parsing { run, .. } => end(self, Some(run)),
            Owed::Probe { .. } => {
                if self.probe.take().is_some() {
                    self.outputs.push_back(Output::Probed(Err(ProbeFailed::Refused)));
                }
            }
            Owed::Describe | Owed::Sync | Owed::CopyEnd | Owed::KeepAlive => {}
        }
    }

    /// The connection to upstream is gone. What was forwarded and not answered may or may not have
    /// run; what is under decision is withdrawn.
    pub fn upstream_gone(&mut self, now_ns: u64) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.drop_skipped_unit(now_ns);
        self.settle_lost();
        let unknown: Vec<RunKey> = self
            .expected
            .iter()
            .filter_map(|expected| {
                let (Owed::Execute { run, .. } | Owed::Query { run, .. } | Owed::FunctionCall { run }) =
                    expected.kind
                else {
                    return None;
                };
                run
            })
            .collect();
        for run in unknown {
            let tag = self.runs.get(run).map(|run| run.tag.as_str()).unwrap_or_default().into();
            self.finish_run(run, Ending::Unknown { tag, sqlstate: None }, now_ns);
        }
        let left: Vec<RunKey> = self.runs.iter().map(|(key, _)| key).collect();
        for run in left {
            let ending = match self.runs.get(run) {
                Some(run) if run.done > 0 => Ending::Completed { tag: run.tag.as_str().into() },
                _ => Ending::NotExecuted,
            };
            self.finish_run(run, ending, now_ns);
        }
        self.runs.clear();
        self.expected.clear();
        if self.probe.take().is_some() {
            self.outputs.push_back(Output::Probed(Err(ProbeFailed::Gone)));
        }
    }
}

/// A text, or half as much of its beginning as `limit` allows, and how much is left out.
fn beginning_of(text: SqlText, limit: usize) -> SqlText {
    if text.len() <= limit {
        return text;
    }
    let kept = limit / 2;
    let beginning = String::from_utf8_lossy(text.as_bytes().get(..kept).unwrap_or_default());
    let left_out = text.len() - kept;
    SqlText::from(format!("{beginning} /* .. {left_out} more bytes, which are not kept here */").as_str())
}

fn hand_out<'a>(input: &'a [u8], from: usize, to: usize, sink: &mut impl Sink<'a>) {
    if let Some(bytes) = input.get(from..to)
        && !bytes.is_empty()
    {
        sink.pass(bytes);
    }
}
