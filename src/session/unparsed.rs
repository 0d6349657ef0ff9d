//! Asking upstream to parse what our grammar rejects.
//!
//! What upstream says of it is what the agent is told: its words, detail, hint and position, in its
//! language. A `Parse` executes nothing, so nothing runs that nobody can read. Upstream's grammar is
//! another version's and may take the text all the same. There are three ways on from there:
//!
//! - A `Query`, with upstream idle: it is parsed on its own and nothing of it stays behind. If upstream
//!   takes it, it is submitted again, as a text that upstream can read and we cannot.
//! - A `Query` behind messages of the extended protocol in one pipeline is refused in our words: whether
//!   upstream reads it at all depends on them, and a `Sync` of ours would end its skipping.
//! - Anything else cannot wait for the answer without a `Sync` of ours in the agent's implicit
//!   transaction: behind it goes a message that must fail, so that upstream is left where a syntax
//!   error would leave it, and the agent gets our grammar's error.

use std::sync::Arc;

use super::denial::{Substitutes, Told};
use super::names::Name;
use super::unit::{Kind, Unit};
use super::upstream::Fate;
use super::{Gate, Owed, Run, RunKey, Session};
use crate::ledger::IntentId;
use crate::refusal::Refusal;
use crate::statement::{Ending, SqlState, SqlText};
use crate::wire::backend::{Fields, tag};
use crate::wire::frame::Frame;

impl Run {
    /// A text that is parsed and nothing more.
    pub(super) fn of_parsing(intent: Option<IntentId>, sql: SqlText, shown: SqlText, now_ns: u64) -> Self {
        Self {
            intent,
            sql,
            shown,
            steps: Arc::from([]),
            done: 0,
            committed: false,
            tag: String::new(),
            rows: 0,
            rows_passed: 0,
            bytes: 0,
            digest: None,
            started_ns: now_ns,
            changes: None,
            late: None,
            doubtful: false,
            holders: 1,
        }
    }
}

impl Session {
    /// Has upstream parse the text of item `at`; `run` is its receipt's.
    pub(super) fn ask_upstream_to_parse(&mut self, at: usize, run: RunKey, refusal: Refusal, now_ns: u64) {
        let asked = matches!(&self.gate, Gate::Deciding(deciding) if deciding.upstream_parses);
        let kind = self.unit.items.get(at).map(|item| &item.kind);
        if let Some(Kind::Query(sql)) = kind {
            if at == 0 && self.is_idle() && !asked {
                let sql = sql.clone();
                self.parse_query(&sql, run, refusal, now_ns);
            } else {
                self.release_run(Some(run), now_ns);
                self.refuse(at, refusal);
            }
            return;
        }
        let cut = if let Some(Kind::Bind { statement, .. }) = kind {
            self.unit.statement_before(statement, at).and_then(|(_, parse)| parse)
        } else {
            matches!(kind, Some(Kind::Parse { .. })).then_some(at)
        };
        let answered = match kind {
            Some(Kind::Bind { statement, .. }) => self.statements.confirmed(statement).is_some(),
            _ => true,
        };
        let Some((cut, item)) = cut.and_then(|cut| Some((cut, self.unit.items.get_mut(cut)?))) else {
            // It was parsed in an earlier unit: nothing is left to ask. If upstream has not answered yet,
            // it will most likely not take the text, and then the name means nothing.
            self.release_run(Some(run), now_ns);
            if answered {
                self.refuse(at, refusal);
            } else {
                let told = Told::NoStatement(self.unit.name_as_sent(at));
                self.set_deciding(|deciding| deciding.refused = Some((at, told)));
            }
            return;
        };
        item.run = Some(run);
        self.set_deciding(|deciding| {
            deciding.refused = Some((cut, Told::Unparsed(refusal)));
            deciding.at = deciding.at.max(cut);
        });
    }

    /// The first way: the text of a `Query` as the unnamed statement, which a `Query` removes in any
    /// case, and its end.
    fn parse_query(&mut self, sql: &SqlText, run: RunKey, refusal: Refusal, now_ns: u64) {
        let ticket = self.ticket();
        self.forget_unnamed(ticket, now_ns);
        Substitutes::parse_of_query(sql.as_bytes(), &mut self.to_upstream);
        Substitutes::close_unnamed(&mut self.to_upstream);
        Substitutes::sync(&mut self.to_upstream);
        self.owe(Owed::Parsing { ticket, run, taken: false, refusal: Box::new(refusal) });
        self.set_deciding(|deciding| deciding.parsing = true);
    }

    /// An answer to [`Self::parse_query`].
    pub(super) fn parsing_answer(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<Fate, Refusal> {
        let Some(Owed::Parsing { ticket, run, taken, refusal }) =
            self.expected.front_mut().map(|expected| &mut expected.kind)
        else {
            return Err(Self::out_of_step());
        };
        let (ticket, run) = (*ticket, *run);
        match frame.tag {
            tag::PARSE_COMPLETE => {
                *taken = true;
                self.complete(Some(run), "PARSE", 0);
                Ok(Fate::Swallow)
            }
            tag::CLOSE_COMPLETE if *taken => Ok(Fate::Swallow),
            tag::ERROR => {
                let fields = Fields::read(frame.body()).map_err(|_| Self::out_of_step())?;
                *taken = false;
                self.failed = true;
                let sqlstate = SqlState::new(fields.code).unwrap_or_else(SqlState::internal);
                // Its grammar took all of the text, and it was not one statement. Who sent a Query knows
                // nothing of prepared statements.
                let several = fields.code == "42601" && fields.routine == "exec_parse_message";
                if several {
                    Told::Refusal(Refusal::clone(refusal)).put(&mut self.to_agent);
                }
                self.finish_run(run, Ending::Failed { sqlstate }, now_ns);
                Ok(if several { Fate::Replace } else { Fate::Pass })
            }
            tag::READY if *taken => {
                self.parsed(ticket, run, now_ns);
                self.ready(frame.body(), now_ns)?;
                self.set_deciding(|deciding| {
                    deciding.parsing = false;
                    deciding.upstream_parses = true;
                });
                self.advance(now_ns);
                Ok(Fate::Swallow)
            }
            tag::READY if self.failed => {
                self.parsed(ticket, run, now_ns);
                self.unit.clear();
                self.gate = Gate::Open;
                let fate = self.ready(frame.body(), now_ns);
                self.tell_left();
                fate
            }
            _ => Err(Self::out_of_step()),
        }
    }

    fn parsed(&mut self, ticket: u64, run: RunKey, now_ns: u64) {
        self.statements.confirm(ticket, &Name::new(b""));
        self.release_run(Some(run), now_ns);
    }

    /// The last way: the agent's own `Parse`, and behind it a message that must fail.
    pub(super) fn forward_unparsed(
        &mut self,
        unit: &Unit,
        at: usize,
        run: Option<RunKey>,
        refusal: Refusal,
        now_ns: u64,
    ) {
        let Some(item) = unit.items.get(at) else { return };
        self.forward_item(&item.kind, unit.frame(at), run, now_ns);
        let substitute = self.substitutes.bind(Told::Unparsed(refusal), &mut self.to_upstream);
        let kind = Owed::Bind { ticket: self.ticket(), portal: Name::new(b""), run: None };
        self.expect(kind, Some(Box::new(substitute)));
    }
}
