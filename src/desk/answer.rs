//! How verdicts are given: looked at, written down, carried out, in that order.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{info, warn};

use super::index::{Entry, EntryState};
use super::view::Enrolled;
use super::{Desk, DeskEvent};
use crate::actor::{Assurance, ChannelName, Reviewer};
use crate::approval::hold::{CheckedAnswer, People, Reply};
use crate::approval::{HoldState, Review, Verdict, VerdictError, Withdrawal};
use crate::identity::AuthenticatedReviewer;
use crate::ledger::{Event, HoldEnd, ReviewRecord};
use crate::policy::Approval;
use crate::statement::{Digest, RequestId};

/// A reviewer's answer, as it comes in.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Who, and how sure we are.
    pub by: AuthenticatedReviewer,
    /// Digest of the statement that they were shown.
    pub digest: Digest,
    /// Why, in their words. On a denial the agent is notified.
    pub reason: Option<String>,
    /// When it was displayed to them, where the channel itself knows. What the desk was notified by
    /// [`Desk::note_displayed`] goes before.
    pub displayed_at: Option<Timestamp>,
}

/// An answer that a channel refused before it came to the desk.
#[derive(Clone, Debug)]
pub struct RefusedAnswer {
    /// The request.
    pub request: RequestId,
    /// The person, or the account where nobody is enrolled with it.
    pub by: Arc<Reviewer>,
    /// The channel that it came over.
    pub channel: ChannelName,
    /// The answer.
    pub verdict: Verdict,
    /// Digest of the statement that they were shown.
    pub digest: Digest,
    /// Their reason, in their words.
    pub reason: Option<String>,
    /// When it was displayed to them, where the channel knows.
    pub displayed_at: Option<Timestamp>,
    /// Why it was refused.
    pub why: String,
}

/// An answer that counted, and what came of it.
#[derive(Clone, Debug)]
pub struct CountedAnswer {
    /// How the request stands now.
    pub state: HoldState,
    /// The answer as recorded.
    pub review: Review,
    /// Who is still missing.
    pub missing: Vec<Approval>,
}

impl Desk {
    /// Gives a verdict on a request. It counts only if the request still waits, its session is still
    /// there, the reviewer saw what waits and may answer now, and the ledger has it.
    ///
    /// A denial is for identical requests, too; an approval is for this one alone.
    pub fn verdict(
        &self,
        id: RequestId,
        verdict: Verdict,
        answer: Answer,
    ) -> Result<CountedAnswer, VerdictError> {
        let entry = self.0.index.lock().get(id).ok_or(VerdictError::Unknown)?;
        let given = self.give(&entry, verdict, &answer);
        if verdict == Verdict::Deny && given.is_ok() {
            let identical: Vec<Arc<Entry>> = {
                let index = self.0.index.lock();
                index.identical(&entry).into_iter().filter_map(|other| index.get(other)).collect()
            };
            for other in identical {
                // Whatever keeps it from counting there, the other goes on waiting for an answer of
                // its own, which is the safe side.
                if let Err(error) = self.give(&other, verdict, &answer) {
                    info!(request = %other.request.id, %error, "the denial of an identical request does not count here");
                }
            }
        }
        self.announce_next();
        given
    }

    fn give(
        &self,
        entry: &Arc<Entry>,
        verdict: Verdict,
        answer: &Answer,
    ) -> Result<CountedAnswer, VerdictError> {
        // Whatever is looked at is looked at with the entry in hand: waiting for it may have taken past
        // a deadline, or past a change of the configuration.
        let mut live = entry.live.lock();
        let now = self.now();
        let directory = self.0.directory.load();
        let people = Enrolled(&directory);
        // As enrolled at this moment: a proof may be older than a change of the configuration.
        let person = people.reviewer(&answer.by.reviewer().id);
        let reply = Reply {
            by: person.clone().unwrap_or_else(|| answer.by.reviewer().clone()),
            assurance: answer.by.assurance(),
            channel: answer.by.channel(),
            digest: answer.digest,
            reason: answer.reason.clone(),
            displayed_at: {
                let by = &answer.by.reviewer().id;
                let known = live.displayed.get(by).copied().or(answer.displayed_at);
                live.hold.plausible(known, now)
            },
        };
        self.withdraw_if_abandoned(entry, &mut live);
        let checked = match person {
            Some(_) => live.hold.check_answer(verdict, &reply, &people, now),
            None => Err(VerdictError::NotEnrolled),
        };
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let quick = live.hold.is_quick(reply.displayed_at, now);
                self.note_refused(entry, verdict, &reply, quick, &error);
                return Err(error);
            }
        };
        self.record(entry, &reply, &checked, verdict)?;
        let review = checked.review().clone();
        if review.quick && verdict == Verdict::Approve {
            warn!(request = %entry.request.id, reviewer = %review.reviewer, "approved sooner than it can be read");
        }
        let counted = live.hold.reviews().len() + 1;
        let written = self.now();
        let before = self.change(&mut live, |hold| hold.on_verdict(checked, written));
        if live.hold.reviews().len() != counted {
            // Writing it down took past the deadline.
            self.apply_change(entry, &mut live, &before, None);
            return Err(VerdictError::TooLate { state: live.hold.state().clone() });
        }
        let recorded = live.hold.state().clone();
        let missing =
            if recorded == HoldState::Waiting { live.hold.missing_at(&people, now) } else { Vec::new() };
        self.publish(DeskEvent::Reviewed {
            request: entry.request.clone(),
            review: review.clone(),
            missing: missing.clone(),
        });
        if verdict == Verdict::Escalate
            && let Some(step) = entry.request.draft.terms.escalate.get(live.hold.notified().saturating_sub(1))
        {
            let notified = live.hold.notified();
            self.publish(DeskEvent::Escalated {
                request: entry.request.clone(),
                to: step.to.clone(),
                notified,
            });
        }
        self.apply_change(entry, &mut live, &before, Some(&recorded));
        let state = live.hold.state().clone();
        if verdict == Verdict::Approve && matches!(state, HoldState::Withdrawn { .. }) {
            // The session left between our look and our word to it.
            return Err(VerdictError::TooLate { state });
        }
        Ok(CountedAnswer { state, review, missing })
    }

    /// Writes an answer down, and what it brings about. Only if both are in the ledger does it count.
    fn record(
        &self,
        entry: &Arc<Entry>,
        reply: &Reply,
        checked: &CheckedAnswer,
        verdict: Verdict,
    ) -> Result<(), VerdictError> {
        let request = entry.request.id;
        let review = checked.review();
        let recorder = &self.0.recorder;
        recorder.append(Event::Review(Box::new(review_record(
            request,
            verdict,
            reply,
            review.quick,
            None,
        ))))?;
        match verdict {
            Verdict::Approve if checked.grants() => recorder.append(Event::HoldEnded {
                request,
                end: HoldEnd::Granted,
                reason: None,
                by: None,
            })?,
            Verdict::Approve => {}
            Verdict::Deny if checked.takes_back() => recorder.append(Event::HoldEnded {
                request,
                end: HoldEnd::Withdrawn,
                reason: Some(Withdrawal::TakenBack.to_string()),
                by: Some(review.reviewer.clone()),
            })?,
            Verdict::Deny => recorder.append(Event::HoldEnded {
                request,
                end: HoldEnd::Denied,
                reason: review.reason.clone(),
                by: Some(review.reviewer.clone()),
            })?,
            Verdict::Escalate => {
                if let Some(step) =
                    checked.next_step().and_then(|step| entry.request.draft.terms.escalate.get(step))
                {
                    recorder.append(Event::Escalated {
                        request,
                        group: step.to.clone(),
                        by: Some(review.reviewer.clone()),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Leaves an entry about an answer that may not count because of who gave it, or how, or on
    /// what they saw. One that merely came too late or twice is nobody's fault.
    fn note_refused(
        &self,
        entry: &Arc<Entry>,
        verdict: Verdict,
        reply: &Reply,
        quick: bool,
        error: &VerdictError,
    ) {
        let worth_noting = match error {
            VerdictError::NotAllowed { .. }
            | VerdictError::NotYet { .. }
            | VerdictError::NotEnrolled
            | VerdictError::AssuranceTooLow { .. }
            | VerdictError::DigestMismatch => true,
            VerdictError::Unknown
            | VerdictError::TooLate { .. }
            | VerdictError::ReasonRequired
            | VerdictError::ReasonTooLong { .. }
            | VerdictError::AlreadyAnswered
            | VerdictError::NoFurtherStep
            | VerdictError::Unrecorded => false,
        };
        if !worth_noting {
            return;
        }
        warn!(request = %entry.request.id, reviewer = %reply.by.id, verdict = verdict.as_str(), %error, "an answer was refused");
        let record = review_record(entry.request.id, verdict, reply, quick, Some(error.to_string()));
        self.append_refused(record);
    }

    /// Records an answer that was refused before it came to the desk.
    pub fn record_refused(&self, refused: RefusedAnswer) {
        let RefusedAnswer { request, by, channel, verdict, digest, reason, displayed_at, why } = refused;
        let entry = self.0.index.lock().get(request);
        let now = self.now();
        let (displayed_at, quick) = entry.map_or((None, false), |entry| {
            let live = entry.live.lock();
            (live.hold.plausible(displayed_at, now), live.hold.is_quick(displayed_at, now))
        });
        let record = ReviewRecord {
            request,
            reviewer: by,
            verdict,
            channel,
            assurance: Assurance::Click,
            digest,
            reason,
            displayed_at,
            quick,
            not_counted: Some(why),
            signature: None,
        };
        self.append_refused(record);
    }

    fn append_refused(&self, record: ReviewRecord) {
        let request = record.request;
        if let Err(unrecorded) = self.0.recorder.append(Event::Review(Box::new(record))) {
            tracing::error!(%request, %unrecorded, "a refused answer is not in the ledger");
        }
    }

    /// Withdraws a request whose session does not wait for it any more.
    pub(super) fn withdraw_if_abandoned(&self, entry: &Arc<Entry>, live: &mut EntryState) {
        let left = live.waiting.as_ref().is_some_and(tokio::sync::oneshot::Sender::is_closed);
        if left {
            let now = self.now();
            let before = self.change(live, |hold| hold.on_withdrawn(Withdrawal::SessionGone, now));
            self.apply_change(entry, live, &before, None);
        }
    }
}

fn review_record(
    request: RequestId,
    verdict: Verdict,
    reply: &Reply,
    quick: bool,
    not_counted: Option<String>,
) -> ReviewRecord {
    ReviewRecord {
        request,
        reviewer: reply.by.clone(),
        verdict,
        channel: reply.channel,
        assurance: reply.assurance,
        digest: reply.digest,
        reason: reply.reason.clone(),
        displayed_at: reply.displayed_at,
        quick,
        not_counted,
        signature: None,
    }
}
