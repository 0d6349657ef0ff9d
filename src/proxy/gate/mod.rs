//! What happens to one submitted statement: its meaning is found, the policy decides, the ledger records.
//!
//! - [`meaning`]: what it means in its session; pure.
//! - [`Gate`]: asks the policy, and has the ledger record what follows.
//!
//! Everything here is quick and local; what takes time (asking upstream, asking people) is handed
//! back to the connection.

mod meaning;

use std::sync::Arc;

use jiff::Timestamp;

use self::meaning::{Meaning, SessionView, meaning_of};
pub(super) use self::meaning::{NoMeaning, Referred};
use super::catalogue::Known;
use super::large_texts::Turn;
use super::sessions::Watch;
use super::{Shared, created};
use crate::classify::{Classification, Doubt, IfConfirmed, LARGE, SearchPath, StatementClass, SyntaxError};
use crate::ledger::{Clearance, LedgerError, SessionLog, StatementRecord};
use crate::policy::{Decision, Policy, Subject, Terms};
use crate::refusal::Refusal;
use crate::session::probe::RelationQuestion;
use crate::session::{Purpose, Resolution, Session, Submission};
use crate::statement::{
    Digest, RelationCheck, RequestId, RuleName, SessionEffect, SqlText, TransactionStatus, Via,
};

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
pub(super) enum Cleared {
    /// The session can be told at once.
    Resolved {
        resolution: Resolution,
        /// What it creates that only this session can see until its transaction ends ([`created::names`]).
        creates: Vec<Arc<str>>,
    },
    /// People have to be asked.
    Hold(Box<Pending>),
    /// To be decided again when something is there.
    Later(Box<Submission>, Needs),
}

impl Cleared {
    fn at_once(resolution: Resolution) -> Self {
        Self::Resolved { resolution, creates: Vec::new() }
    }
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
    fn view(&self) -> SessionView<'_> {
        SessionView {
            classifier: &self.shared.classifier,
            known: self.known,
            session: self.session,
            target: &self.watch.target,
            created: self.created,
            has_changed_catalogue: self.has_changed_catalogue,
            takes_turns: self.takes_turns,
            progress: self.progress,
        }
    }

    /// Whether what is decided may depend on settings of the session: on where names are looked up, and on
    /// who it acts as. Transaction control and its like do not.
    pub(super) fn depends_on_settings(&self, submission: &Submission) -> bool {
        let sql = &submission.statement.sql;
        let is_session = || {
            let view = self.view();
            let unknown = view.context(&SearchPath::Unknown);
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
        self.shared.classifier.detail(texts, &self.view().context(&search_path), &pending.classification)
    }

    /// What a submission means, and what `policy` says of it, as everything stands now. Nothing is recorded.
    pub(super) fn judge(
        &self,
        submission: &Submission,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Judgement, NoMeaning> {
        let search_path = self.session.search_path();
        let Meaning { classification, refers_to } = meaning_of(submission, &self.view(), &search_path)?;
        let changes_path = self.session.settings().change_on_the_way(&classification.steps);
        let decision = policy.decide(&Subject {
            agent: &self.watch.identity.agent,
            target: &self.watch.target,
            classification: &classification,
            // Rules by table match whatever an unqualified name could mean, then.
            search_path: if changes_path { &SearchPath::Unknown } else { &search_path },
            in_transaction: submission.status != Some(TransactionStatus::Idle),
            claimed_defer: self.defer,
            now,
        });
        Ok(Judgement { classification, refers_to, decision })
    }

    /// Decides a submission by the policy in force, and records what it decides.
    pub(super) fn clear(&self, submission: Submission, now: Timestamp) -> Cleared {
        let policy = self.shared.policy.load();
        let Judgement { classification, refers_to, decision } = match self.judge(&submission, &policy, now) {
            Ok(judgement) => judgement,
            Err(NoMeaning::WhenIdle) => return Cleared::at_once(Resolution::WhenIdle),
            Err(NoMeaning::Turn) => return Cleared::Later(Box::new(submission), Needs::Turn),
            Err(NoMeaning::Refused(classification, refusal)) => {
                let record = record(&submission, &classification, &[], policy.digest(), None, now);
                return Cleared::at_once(self.record_and_refuse(&record, refusal));
            }
        };
        let would_run = submission.purpose == Purpose::Run && matches!(decision, Decision::Allow(_));
        if let Some(needs) = self.needs(&classification).filter(|_| would_run) {
            return Cleared::Later(Box::new(submission), needs);
        }
        if let Decision::Hold(terms) = &decision
            && self.waits_for_people(&submission, &classification)
        {
            if submission.status.is_none() && self.session.will_rest() {
                // Upstream has to be asked what it is bound to, and answers when it has come to it.
                return Cleared::at_once(Resolution::WhenIdle);
            }
            let (terms, request) = (terms.clone(), None);
            let pending = Pending { submission, classification, terms, arrived: now, refers_to, request };
            return Cleared::Hold(Box::new(pending));
        }
        let record = |rules| record(&submission, &classification, rules, policy.digest(), None, now);
        // Upstream knows what it is: if it is no function either, upstream says so itself when it parses the
        // statement.
        if let Some(name) = self.view().unknown_column(&classification).filter(|_| would_run) {
            if submission.status.is_none() && self.session.settles() {
                return Cleared::at_once(Resolution::WhenIdle);
            }
            let refusal = Refusal::UnknownColumn { name: name.to_string() };
            return Cleared::at_once(self.ask_upstream_to_parse(&record(&[]), refusal));
        }
        let rules = rules_of(&decision);
        let runs = would_run && !classification.class.changes_nothing();
        let creates = if runs { created::names(&classification).collect() } else { Vec::new() };
        let resolution = match decision {
            // Upstream says it of bytes that it does not even begin to parse; so do we.
            Decision::Invalid(invalid) if invalid.error.encoding => {
                let refusal = Refusal::Encoding { message: invalid.error.message.to_string() };
                self.record_and_refuse(&record(&rules), refusal)
            }
            // Upstream is asked to parse it when nothing else is on its way; and whether the name of a
            // Bind means it at all may depend on an answer that has not come.
            Decision::Invalid(_)
                if submission.purpose != Purpose::Prepare
                    && submission.status.is_none()
                    && self.session.settles() =>
            {
                Resolution::WhenIdle
            }
            Decision::Invalid(invalid) => {
                self.ask_upstream_to_parse(&record(&rules), syntax_error(Some(&invalid.error)))
            }
            // A rule holds what does not parse; with secrets hidden in it, nobody could tell what to approve.
            Decision::Hold(_) if is_unreadable(&classification) => {
                let refusal = syntax_error(classification.syntax_error.as_ref());
                self.record_and_refuse(&record(&rules), refusal)
            }
            // No rule is about what does not run.
            _ if submission.purpose == Purpose::Prepare => {
                self.record_and_forward(&record(&[]), Clearance::ParseOnly)
            }
            Decision::Allow(allowed) => self.record_and_forward(&record(&rules), Clearance::Allowed(allowed)),
            Decision::Deny(denied) => {
                let refusal = Refusal::DeniedByPolicy { rule: denied.rule, message: denied.message };
                self.record_and_refuse(&record(&rules), refusal)
            }
            // What people can be asked about is held above: upstream refuses this one by itself.
            Decision::Hold(_) => self.record_and_forward(&record(&rules), Clearance::Doomed),
        };
        Cleared::Resolved { resolution, creates }
    }

    /// What has to be there before a statement that is allowed may run.
    fn needs(&self, classification: &Classification) -> Option<Needs> {
        if !classification.doubts.is_empty() && !self.progress.looked_up {
            return Some(Needs::LookUp(classification.doubts.clone()));
        }
        let is_change = |effect: &SessionEffect| matches!(effect, SessionEffect::CatalogueChange);
        let pauses = self.is_pausing && !self.progress.paused;
        (pauses && classification.session_effects().any(is_change)).then_some(Needs::Pause)
    }

    /// Whether a statement that a rule holds is one that people can be asked about.
    fn waits_for_people(&self, submission: &Submission, classification: &Classification) -> bool {
        submission.purpose == Purpose::Run
            && !is_unreadable(classification)
            && !Session::is_doomed(submission, &classification.steps)
    }

    /// Records the intent of a statement, without which nothing is forwarded.
    pub(super) fn record_and_forward(
        &self,
        record: &StatementRecord<'_>,
        clearance: Clearance,
    ) -> Resolution {
        let classification = record.classification;
        // Upstream refuses it now. A portal of it may be executed when the transaction is read-only no more.
        let is_for_now = matches!(clearance, Clearance::ReadOnly);
        match self.log.record_intent(record, clearance) {
            Ok(receipt) => {
                self.watch.count_statement();
                Resolution::Forward {
                    receipt,
                    steps: Arc::clone(&classification.steps),
                    shown: shown(&record.statement.sql, classification),
                    digest_result: classification.class.is_privileged(),
                    late: is_for_now || classification.is_bound_late(),
                }
            }
            Err(error) => self.not_recorded(error, classification),
        }
    }

    /// Has upstream parse a statement and nothing more. `refusal` is for the agent if upstream accepts it.
    fn ask_upstream_to_parse(&self, record: &StatementRecord<'_>, refusal: Refusal) -> Resolution {
        match self.log.record_intent(record, Clearance::ParseOnly) {
            Ok(receipt) => {
                self.watch.count_statement();
                let shown = shown(&record.statement.sql, record.classification);
                Resolution::Unparsed { receipt, refusal, shown }
            }
            Err(error) => self.not_recorded(error, record.classification),
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

    /// Refuses a statement, and records that.
    pub(super) fn record_and_refuse(&self, record: &StatementRecord<'_>, refusal: Refusal) -> Resolution {
        if let Err(error) = self.log.record_refusal(record, &refusal) {
            // It is refused all the same; the ledger's own state says that something is missing.
            tracing::error!(session = %self.watch.id, %error, "refusal not recorded");
        }
        Resolution::Refuse(refusal)
    }
}

/// The rules that speak of a statement.
fn rules_of(decision: &Decision) -> Vec<RuleName> {
    match decision {
        Decision::Allow(allowed) => allowed.rule().cloned().into_iter().collect(),
        Decision::Deny(denied) => vec![denied.rule.clone()],
        Decision::Hold(terms) => terms.rules.clone(),
        Decision::Invalid(_) => Vec::new(),
    }
}

/// Whether it is no SQL, and secrets are hidden in it.
fn is_unreadable(classification: &Classification) -> bool {
    classification.class == StatementClass::Invalid && classification.redacted_sql.is_some()
}

fn syntax_error(error: Option<&SyntaxError>) -> Refusal {
    Refusal::Syntax {
        message: error.map_or_else(String::new, |error| error.message.to_string()),
        position: error.and_then(|error| error.position),
    }
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
