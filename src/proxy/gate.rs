//! What happens to one submitted statement: classified, decided, recorded.
//!
//! Everything here is quick and local; what takes time (asking upstream, asking people) is handed
//! back to the connection.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::Shared;
use super::catalogue::Known;
use super::large_texts::Turn;
use super::sessions::Watch;
use crate::classify::{
    BoundValue, Classification, Context, Doubt, Here, IfConfirmed, LARGE, SearchPath, StatementClass,
    resolve_names,
};
use crate::ledger::{Clearance, LedgerError, SessionLog, StatementRecord};
use crate::policy::{Decision, Subject, Terms};
use crate::refusal::Refusal;
use crate::session::names::Lookup;
use crate::session::probe::RelationQuestion;
use crate::session::{Purpose, Resolution, Session, Submission};
use crate::statement::{
    Digest, RelationCheck, RequestId, RuleName, SessionEffect, SqlText, Statement, Step, TransactionStatus,
    Via,
};

/// What is decided must be what is read, and it is read as UTF-8.
const OTHER_ENCODING: Refusal = Refusal::Unsupported {
    feature: "a client_encoding other than UTF8",
    hint: "Leave client_encoding at UTF8 and convert in the client; RESET client_encoding goes back to UTF8.",
};

/// The same, where something else has changed it.
const OTHER_ENCODING_NOW: Refusal = Refusal::Unsupported {
    feature: "text outside ASCII while client_encoding is not UTF8",
    hint: "Send RESET client_encoding first, which goes back to UTF8.",
};

/// Whether all of a statement is ASCII, which every encoding reads alike.
fn is_ascii(statement: &Statement) -> bool {
    let mut values = statement.parameters.iter().filter_map(|parameter| parameter.value.as_ref());
    statement.sql.as_bytes().is_ascii() && values.all(|value| value.is_ascii())
}

/// The most prepared statements that one text may execute: each is looked up, shown and sealed.
const MOST_EXECUTED: usize = 1_000;
/// The most that all executions of one text may do to the session.
const MOST_EFFECTS: usize = 100_000;

/// A text that a statement refers to by a name.
pub(super) struct Referred {
    pub(super) name: Arc<str>,
    pub(super) sql: SqlText,
    /// The same without its secrets.
    pub(super) shown: SqlText,
    /// Types of its parameters, as its `Parse` gave them: they decide what its values mean.
    pub(super) types: Box<[u32]>,
}

/// A statement that waits for something, with everything known about it.
pub(super) struct Pending {
    pub(super) submission: Submission,
    pub(super) classification: Arc<Classification>,
    pub(super) terms: Terms,
    pub(super) arrived: Timestamp,
    /// Texts that it refers to by name (`EXECUTE x`, `FETCH ALL c`).
    pub(super) refers_to: Vec<Referred>,
    /// The request that was opened for it.
    pub(super) request: Option<RequestId>,
}

impl Pending {
    /// What upstream is to be asked about relations. The answer must hold for what runs: nothing may run
    /// before it, and its names must be looked up anew when it runs. A prepared query keeps the table that it
    /// was analysed for, whatever stands before it by now; but it keeps no view that is gone or renamed.
    pub(super) fn relation_question(&self) -> Option<RelationQuestion<'_>> {
        let Submission { first, status, statement, .. } = &self.submission;
        let IfConfirmed { check, names, .. } = self.classification.if_confirmed.as_deref()?;
        let looked_up_anew = statement.via == Via::Query
            || self.classification.is_bound_late()
            || *check == RelationCheck::NoTemporaryViews;
        (*first && status.is_some() && looked_up_anew).then_some(RelationQuestion { check: *check, names })
    }
}

/// What is to be done with a submission.
pub(super) enum Decided {
    /// The session can be told at once.
    Resolved(Resolution),
    /// People have to be asked.
    Hold(Box<Pending>),
    /// To be decided again when something is there.
    Later(Box<Submission>, Needs),
}

/// What a decision waits for.
pub(super) enum Needs {
    /// A turn among those who have large texts read.
    Turn,
    /// Names that the catalogue does not know are to be looked up.
    LookUp(Vec<Doubt>),
    /// Its agent has changed the catalogue often of late, and is to wait with the next change.
    Pause,
}

/// What a statement that is to be decided has behind it.
#[derive(Default)]
pub(super) struct Progress {
    /// It is its turn among those who have large texts read.
    pub(super) turn: Option<Turn>,
    /// Names that the catalogue does not know were looked up.
    pub(super) looked_up: bool,
    /// The catalogue can be trusted for nothing: it has changed and could not be read.
    pub(super) stale: bool,
    /// It has waited with its change of the catalogue.
    pub(super) paused: bool,
    /// Upstream has confirmed what [`Pending::relation_question`] asks.
    pub(super) confirmed: bool,
}

/// What policy says of a submission, and what it was told. Nothing has been recorded yet.
pub(super) struct Judgement {
    pub(super) classification: Arc<Classification>,
    pub(super) refers_to: Vec<Referred>,
    pub(super) decision: Decision,
}

/// What can be said of a submission at this moment.
pub(super) enum Judged {
    /// Policy was asked.
    Decided(Judgement),
    /// It is refused whatever policy says.
    Refused(Arc<Classification>, Refusal),
    /// It depends on answers that upstream still owes.
    WhenIdle,
    /// A large text has to be read for it, and it is not its turn.
    Turn,
}

/// The parties to a decision.
pub(super) struct Gate<'a> {
    pub(super) shared: &'a Shared,
    pub(super) known: &'a Known,
    pub(super) session: &'a Session,
    pub(super) watch: &'a Watch,
    pub(super) log: &'a SessionLog,
    pub(super) defer: bool,
    /// Functions, operators and types that this session's open transaction has created: nobody else
    /// can see them yet, so no catalogue has them.
    pub(super) created: &'a [Arc<str>],
    /// This session's open transaction has changed the catalogue.
    pub(super) has_changed_catalogue: bool,
    /// The agent has to wait with its next change of the catalogue.
    pub(super) is_pausing: bool,
    /// Large texts are read when it is their turn, and not at once.
    pub(super) takes_turns: bool,
    pub(super) progress: &'a Progress,
}

impl Gate<'_> {
    /// What decides the meaning of a text in this session.
    fn context<'c>(&'c self, search_path: &'c SearchPath) -> Context<'c> {
        Context {
            server_version: self.known.server_version,
            catalogue: &self.known.catalogue,
            search_path,
            database: self.watch.target.database.as_str(),
            role: self.watch.target.role.as_str(),
            strings_standard: self.session.settings().strings_standard(),
        }
    }

    /// Whether what is decided may depend on settings of the session: on where names are looked up, and on
    /// who it acts as. Transaction control and its like do not.
    pub(super) fn depends_on_settings(&self, submission: &Submission) -> bool {
        let sql = &submission.statement.sql;
        let is_session = || {
            let unknown = self.context(&SearchPath::Unknown);
            self.shared.classifier.classify(sql, &unknown).class == StatementClass::Session
        };
        // What is that long takes a while to read, and is no such statement.
        submission.purpose == Purpose::Run && (sql.len() > LARGE || !is_session())
    }

    /// What a statement does, in as much detail as people can use.
    pub(super) fn detailed(&self, pending: &Pending) -> Arc<Classification> {
        let search_path = self.session.search_path();
        let texts = std::iter::once(&pending.submission.statement.sql)
            .chain(pending.refers_to.iter().map(|referred| &referred.sql));
        self.shared.classifier.detail(texts, &self.context(&search_path), &pending.classification)
    }

    /// Asks policy about a submission, as everything stands now. What is about to be used on a grant is
    /// judged by this once more, so it may not depend on anything that was found out before.
    pub(super) fn judge(&self, submission: &Submission, now: Timestamp) -> Judged {
        let search_path = self.session.search_path();
        let context = self.context(&search_path);
        let identity = self.session.identity();
        let classify_with = |sql: &SqlText, values: &[BoundValue]| {
            let here = Here { identity: identity.as_ref(), values };
            // Parsing a large one may take long enough to keep other sessions of the thread waiting.
            if sql.len() > LARGE {
                tokio::task::block_in_place(|| self.shared.classifier.classify_here(sql, &context, &here))
            } else {
                self.shared.classifier.classify_here(sql, &context, &here)
            }
        };
        // A text behind names is classified once, however many it has: not all are remembered elsewhere.
        let meanings: RefCell<HashMap<(*const u8, usize), Arc<Classification>>> = RefCell::default();
        let classify = |sql: &SqlText| {
            let key = (sql.as_bytes().as_ptr(), sql.len());
            if let Some(known) = meanings.borrow().get(&key) {
                return Arc::clone(known);
            }
            let meaning = classify_with(sql, &[]);
            meanings.borrow_mut().insert(key, Arc::clone(&meaning));
            meaning
        };
        let waits_for_turn =
            |sql: &SqlText| sql.len() > LARGE && self.takes_turns && self.progress.turn.is_none();
        if waits_for_turn(&submission.statement.sql) {
            return Judged::Turn;
        }
        // What most statements are, without a name in them, is asked for once.
        let mut classification = classify_with(&submission.statement.sql, &[]);
        if !self.session.settings().is_utf8() && !is_ascii(&submission.statement) {
            return Judged::Refused(classification, OTHER_ENCODING_NOW);
        }
        if classification.notes.needs_values {
            let values: Vec<BoundValue> = submission.statement.parameters.iter().map(Into::into).collect();
            classification = classify_with(&submission.statement.sql, &values);
        }
        if self.progress.confirmed
            && let Some(confirmed) = &classification.if_confirmed
        {
            classification = Arc::clone(&confirmed.classification);
        }
        if submission.statement.via == Via::FunctionCall && classification.parts.is_empty() {
            // It runs some function by its OID, of which we can say nothing.
            let refusal = Refusal::Unsupported {
                feature: "a fast-path function call",
                hint: "Call the function with SELECT.",
            };
            return Judged::Refused(classification, refusal);
        }
        let mut refers_to = Vec::new();
        let too_many = Refusal::TooManyExecuted { limit: MOST_EXECUTED };
        if executed(&classification).next().is_some() {
            let names: HashSet<&Arc<str>> = executed(&classification).collect();
            if names.len() > MOST_EXECUTED {
                return Judged::Refused(classification, too_many);
            }
            let mut seen = HashSet::new();
            for name in executed(&classification).filter(|name| seen.insert(*name)) {
                match self.session.lookup(name) {
                    Lookup::Known(prepared) => refers_to.push(Referred {
                        name: Arc::clone(name),
                        sql: prepared.sql.clone(),
                        shown: prepared.sql.clone(),
                        types: prepared.types.clone(),
                    }),
                    Lookup::Unknown => {}
                    Lookup::Unsettled if self.session.settles() && !self.session.is_idle() => {
                        return Judged::WhenIdle;
                    }
                    // It cannot be told what it means: treated as a name that is not known, held.
                    Lookup::Unsettled => {}
                }
            }
            if refers_to.iter().any(|known| waits_for_turn(&known.sql)) {
                return Judged::Turn;
            }
            for known in &mut refers_to {
                known.shown = shown(&known.sql, &classify(&known.sql));
            }
            // Of several executions with different values none can speak for the others.
            let values_of = |name: &str| {
                let mut uses = classification.names.iter().filter(|used| *used.name == *name);
                uses.next().filter(|_| uses.next().is_none()).map_or(&[][..], |used| &used.values)
            };
            let meaning_of = |known: &Referred| {
                let meaning = classify(&known.sql);
                let values = values_of(&known.name);
                if meaning.notes.needs_values && !values.is_empty() {
                    classify_with(&known.sql, values)
                } else {
                    meaning
                }
            };
            let known: HashMap<&str, Arc<Classification>> =
                refers_to.iter().map(|known| (&*known.name, meaning_of(known))).collect();
            // Each execution does to the session what its statement does.
            let prepares = |meaning: &Classification, name: &str| {
                meaning
                    .session_effects()
                    .any(|effect| matches!(effect, SessionEffect::Prepare(prepared) if **prepared == *name))
            };
            let does: HashMap<&str, usize> = known
                .iter()
                .filter(|(name, meaning)| !prepares(meaning, name))
                .map(|(name, meaning)| (*name, meaning.session_effects().count()))
                .collect();
            let all = classification.names.iter().filter_map(|used| does.get(&*used.name));
            if all.fold(0_usize, |all, one| all.saturating_add(*one)) > MOST_EFFECTS {
                return Judged::Refused(classification, too_many);
            }
            classification = resolve_names(&classification, &|name| known.get(name).cloned());
            let secrets =
                |name: &str| known.get(name).map_or_else(Vec::new, |known| known.bound_secrets.to_vec());
            let sql = &submission.statement.sql;
            classification = self.shared.classifier.with_arguments(sql, classification, &secrets);
        }
        if classification.notes.other_encoding && submission.purpose == Purpose::Run {
            return Judged::Refused(classification, OTHER_ENCODING);
        }
        let mut referred = refers_to.iter().map(|known| classify(&known.sql));
        let late = self.fetches_late(&classification) || referred.any(|meaning| self.fetches_late(&meaning));
        let runs = submission.purpose == Purpose::Run;
        if late && runs && !Session::is_doomed(submission, &classification.steps) {
            let refusal = Refusal::Unsupported {
                feature: "a FETCH or MOVE that would run a statement bound by the protocol",
                hint: "Send Execute for that portal, or DECLARE a cursor.",
            };
            return Judged::Refused(classification, refusal);
        }
        // A `Parse` declares its parameters' types by number; making their values runs what the types run.
        let declared = submission.statement.parameters.iter().map(|parameter| parameter.type_oid);
        let named = refers_to.iter().flat_map(|known| known.types.iter().copied());
        if declared.chain(named).any(|oid| context.catalogue.type_runs_code(oid)) {
            classification = Arc::new(classification.with_values_that_run_code());
        }
        // Rows that are taken out of a cursor are those of its query: rules by table, reviewers and the grant
        // are about them.
        if classification.class.is_privileged() {
            let mut queries = Vec::new();
            let mut unknown = false;
            // The same text may have declared them.
            let here: HashSet<&str> = declared_cursors(&classification).collect();
            let mut seen = HashSet::new();
            for name in fetched(&classification).filter(|name| seen.insert(*name)) {
                let texts = self.session.cursor_texts(name);
                unknown |= texts.is_empty() && !here.contains(&**name);
                queries.extend(texts.into_iter().map(|sql| (Arc::clone(name), sql)));
            }
            if classification.reads_cursors_by_function() {
                queries.extend(self.session.all_cursor_texts());
                unknown = true;
            }
            if queries.len() > MOST_EXECUTED {
                return Judged::Refused(classification, too_many);
            }
            if queries.iter().any(|(_, sql)| waits_for_turn(sql)) {
                return Judged::Turn;
            }
            if unknown || !queries.is_empty() {
                let mut meanings: Vec<_> = queries.iter().map(|(_, sql)| classify(sql)).collect();
                meanings.sort_unstable_by_key(Arc::as_ptr);
                meanings.dedup_by(|one, other| Arc::ptr_eq(one, other));
                classification = Arc::new(classification.with_rows_of(&meanings, unknown));
            }
            refers_to.extend(queries.into_iter().map(|(name, sql)| Referred {
                name: format!("cursor {name}").into(),
                shown: shown(&sql, &classify(&sql)),
                sql,
                types: Box::default(),
            }));
        }
        if !self.created.is_empty() {
            classification = super::created::apply(&classification, self.created);
        }

        if runs && !self.progress.confirmed && !classification.class.is_privileged() {
            let creates = |step: &Step| step.effects.contains(&SessionEffect::OwnCatalogueChange);
            let created_here = classification.steps.iter().any(creates);
            if created_here || self.session.settings().has_temporary_views() {
                let names = classification.written_without_schema();
                if !names.is_empty() {
                    let view = classification.with_possible_views(names, !created_here);
                    classification = Arc::new(view);
                }
            }
        }
        if submission.upstream_parses && classification.class == StatementClass::Invalid {
            classification = Arc::new(classification.of_unreadable());
        }
        if submission.upstream_parses && self.unknown_column(&classification).is_some() {
            classification = Arc::new(classification.with_unknown_calls());
        }
        if self.progress.stale && classification.class != StatementClass::Session {
            let upstream = self.watch.target.upstream.to_string();
            return Judged::Refused(classification, Refusal::CatalogueUnavailable { upstream });
        }
        let length = submission.statement.sql.len();
        if runs && let Some(refusal) = self.session.keeps_too_much(length, &classification.steps) {
            return Judged::Refused(classification, refusal);
        }

        // What is hidden must not run, and what runs must not be hidden.
        let hides_code = classification.hides_code(&submission.statement.parameters);
        if let Some(secret) = hides_code.filter(|_| classification.syntax_error.is_none()) {
            let refusal = Refusal::Unsupported { feature: secret.feature(), hint: secret.hint() };
            return Judged::Refused(classification, refusal);
        }

        let changed = self.session.settings().change_on_the_way(&classification.steps);
        let subject = Subject {
            agent: &self.watch.identity.agent,
            target: &self.watch.target,
            classification: &classification,
            // Rules by table match whatever an unqualified name could mean, then.
            search_path: if changed { &SearchPath::Unknown } else { &search_path },
            in_transaction: submission.status != Some(TransactionStatus::Idle),
            claimed_defer: self.defer,
            now,
        };
        let decision = self.shared.policy.load().decide(&subject);
        Judged::Decided(Judgement { classification, refers_to, decision })
    }

    pub(super) fn decide(&self, submission: Submission, now: Timestamp) -> Decided {
        let Judgement { classification, refers_to, decision } = match self.judge(&submission, now) {
            Judged::Decided(judgement) => judgement,
            Judged::WhenIdle => return Decided::Resolved(Resolution::WhenIdle),
            Judged::Turn => return Decided::Later(Box::new(submission), Needs::Turn),
            Judged::Refused(classification, refusal) => {
                let policy = self.shared.policy.load().digest();
                let record = record(&submission, &classification, &[], policy, None, now);
                return Decided::Resolved(self.refuse(&record, refusal));
            }
        };
        let would_run = submission.purpose == Purpose::Run && matches!(decision, Decision::Allow(_));
        if would_run && !classification.doubts.is_empty() && !self.progress.looked_up {
            let doubts = classification.doubts.clone();
            return Decided::Later(Box::new(submission), Needs::LookUp(doubts));
        }
        let changes = || {
            let change = |effect: &SessionEffect| matches!(effect, SessionEffect::CatalogueChange);
            classification.session_effects().any(change)
        };
        if would_run && self.is_pausing && !self.progress.paused && changes() {
            return Decided::Later(Box::new(submission), Needs::Pause);
        }
        // Upstream knows what it is: if it is no function either, upstream says so itself when it parses the
        // statement.
        if let Some(name) = self.unknown_column(&classification).filter(|_| would_run) {
            if submission.status.is_none() && self.session.settles() {
                return Decided::Resolved(Resolution::WhenIdle);
            }
            let policy = self.shared.policy.load().digest();
            let record = record(&submission, &classification, &[], policy, None, now);
            let refusal = Refusal::UnknownColumn { name: name.to_string() };
            let asked = self.ask_upstream_to_parse(&submission, &classification, &record, refusal);
            return Decided::Resolved(asked);
        }
        let resolution = match decision {
            // Upstream is asked to parse it when nothing else is on its way; and whether the name of a
            // Bind means it at all may depend on an answer that has not come.
            Decision::Invalid(invalid)
                if !invalid.error.encoding
                    && submission.purpose != Purpose::Prepare
                    && submission.status.is_none()
                    && self.session.settles() =>
            {
                Resolution::WhenIdle
            }
            // Upstream says it of bytes that it does not even begin to parse; so do we.
            Decision::Invalid(invalid) if invalid.error.encoding => {
                let refusal = Refusal::Encoding { message: invalid.error.message.to_string() };
                let record = record(&submission, &classification, &[], invalid.policy, None, now);
                self.refuse(&record, refusal)
            }
            Decision::Invalid(invalid) => {
                let (message, position) = (invalid.error.message.to_string(), invalid.error.position);
                let refusal = Refusal::Syntax { message, position };
                let record = record(&submission, &classification, &[], invalid.policy, None, now);
                self.ask_upstream_to_parse(&submission, &classification, &record, refusal)
            }
            // A rule holds what does not parse; with secrets hidden in it, nobody could tell what to approve.
            Decision::Hold(terms)
                if classification.class == StatementClass::Invalid
                    && classification.redacted_sql.is_some() =>
            {
                let error = classification.syntax_error.as_ref();
                let message = error.map_or_else(String::new, |error| error.message.to_string());
                let position = error.and_then(|error| error.position);
                let record = record(&submission, &classification, &terms.rules, terms.policy, None, now);
                self.refuse(&record, Refusal::Syntax { message, position })
            }
            _ if submission.purpose == Purpose::Prepare => {
                let policy = self.shared.policy.load().digest();
                let record = record(&submission, &classification, &[], policy, None, now);
                self.forward(&submission, &classification, &record, Clearance::ParseOnly)
            }
            Decision::Allow(allowed) => {
                let rules: Vec<RuleName> = allowed.rule().cloned().into_iter().collect();
                let record = record(&submission, &classification, &rules, allowed.policy(), None, now);
                self.forward(&submission, &classification, &record, Clearance::Allowed(allowed))
            }
            Decision::Deny(denied) => {
                let rules = [denied.rule.clone()];
                let record = record(&submission, &classification, &rules, denied.policy, None, now);
                self.refuse(&record, Refusal::DeniedByPolicy { rule: denied.rule, message: denied.message })
            }
            Decision::Hold(terms) => {
                if Session::is_doomed(&submission, &classification.steps) {
                    let record = record(&submission, &classification, &terms.rules, terms.policy, None, now);
                    self.forward(&submission, &classification, &record, Clearance::Doomed)
                } else if submission.status.is_none() && self.session.will_rest() {
                    // Upstream has to be asked what it is bound to, and answers when it has come to it.
                    Resolution::WhenIdle
                } else {
                    let pending =
                        Pending { submission, classification, terms, arrived: now, refers_to, request: None };
                    return Decided::Hold(Box::new(pending));
                }
            }
        };
        Decided::Resolved(resolution)
    }

    /// Records and forwards.
    pub(super) fn forward(
        &self,
        submission: &Submission,
        classification: &Classification,
        record: &StatementRecord<'_>,
        clearance: Clearance,
    ) -> Resolution {
        // Upstream refuses it now. A portal of it may be executed when the transaction is read-only no more.
        let is_for_now = matches!(clearance, Clearance::ReadOnly);
        match self.log.forward(record, clearance) {
            Ok(receipt) => {
                self.watch.count_statement();
                Resolution::Forward {
                    receipt,
                    steps: Arc::clone(&classification.steps),
                    shown: shown(&submission.statement.sql, classification),
                    digest_result: classification.class.is_privileged(),
                    late: is_for_now || classification.is_bound_late(),
                }
            }
            Err(error) => self.not_recorded(error, classification),
        }
    }

    /// A name behind a dot that is no column that is known, and so may be a function that was made a moment
    /// ago. What this very transaction has changed, only this session can see.
    fn unknown_column<'c>(&self, classification: &'c Classification) -> Option<&'c Arc<str>> {
        let is_column = |doubt: &&Doubt| matches!(doubt, Doubt::Column(_));
        classification.doubts.iter().find(is_column).filter(|_| !self.has_changed_catalogue).map(Doubt::name)
    }

    /// Has upstream parse a statement and nothing more.
    fn ask_upstream_to_parse(
        &self,
        submission: &Submission,
        classification: &Classification,
        record: &StatementRecord<'_>,
        refusal: Refusal,
    ) -> Resolution {
        match self.log.forward(record, Clearance::ParseOnly) {
            Ok(receipt) => {
                self.watch.count_statement();
                let shown = shown(&submission.statement.sql, classification);
                Resolution::Unparsed { receipt, refusal, shown }
            }
            Err(error) => self.not_recorded(error, classification),
        }
    }

    /// What is not recorded is not forwarded.
    fn not_recorded(&self, error: LedgerError, classification: &Classification) -> Resolution {
        tracing::error!(session = %self.watch.id, %error, "statement not recorded, so not forwarded");
        let only_rolls_back = matches!(
            &*classification.steps,
            [step] if matches!(&*step.effects, [SessionEffect::Rollback { .. }])
        );
        if only_rolls_back { Resolution::RollBack } else { Resolution::Refuse(error.into()) }
    }

    fn fetches_late(&self, classification: &Classification) -> bool {
        classification.session_effects().any(|effect| {
            let SessionEffect::Fetch(name) = effect else { return false };
            self.session.fetches_late(name)
        })
    }

    /// Records and refuses.
    pub(super) fn refuse(&self, record: &StatementRecord<'_>, refusal: Refusal) -> Resolution {
        if let Err(error) = self.log.refuse(record, &refusal) {
            // It is refused all the same; the ledger's own state says that something is missing.
            tracing::error!(session = %self.watch.id, %error, "refusal not recorded");
        }
        Resolution::Refuse(refusal)
    }
}

fn fetched(classification: &Classification) -> impl Iterator<Item = &Arc<str>> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Fetch(name) = effect else { return None };
        Some(name)
    })
}

fn declared_cursors(classification: &Classification) -> impl Iterator<Item = &str> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Declare(name) = effect else { return None };
        Some(&**name)
    })
}

fn executed(classification: &Classification) -> impl Iterator<Item = &Arc<str>> {
    classification.session_effects().filter_map(|effect| {
        let SessionEffect::Execute(name) = effect else { return None };
        Some(name)
    })
}

/// The text as it may be shown and stored: passwords replaced.
fn shown(sql: &SqlText, classification: &Classification) -> SqlText {
    match &classification.redacted_sql {
        Some(redacted) => SqlText::from(&**redacted),
        None => sql.clone(),
    }
}

/// The ledger's record of a submission.
pub(super) fn record<'a>(
    submission: &'a Submission,
    classification: &'a Classification,
    rules: &'a [RuleName],
    policy: Digest,
    request: Option<RequestId>,
    wall: Timestamp,
) -> StatementRecord<'a> {
    StatementRecord {
        statement: &submission.statement,
        digest: submission.digest,
        classification,
        in_transaction: submission.status != Some(TransactionStatus::Idle),
        request,
        policy,
        rules,
        wall,
    }
}
