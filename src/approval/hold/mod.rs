//! The life of one held statement, from `Waiting` to exactly one ending.
//!
//! ```text
//!             enough approvals                    handed to a session      the session says it ran
//!   Waiting ───────────────────▶ Granted (unused) ─────────────▶ Granted (handed out) ──▶ Executed
//!      │  one denial                    │ grant's life over            │ session gone
//!      ├────────────▶ Denied            ├──────────────▶ Expired       └──────────▶ Withdrawn
//!      │  deadline                      │ withdrawn, or taken back by a denial
//!      ├────────────▶ Expired           └──────────────▶ Withdrawn
//!      │  agent cancelled, hung up, ..
//!      └────────────▶ Withdrawn
//! ```
//!
//! A hold never reads a clock and never talks to a channel or the ledger: the caller hands in what
//! happened and when, and acts on the state that comes back. That keeps every race between
//! "approve", "expire" and "agent hung up" a unit test.
//!
//! A verdict is applied in two steps, so that it can be recorded before it takes effect:
//! [`Hold::check_answer`] says what an answer would do and changes nothing; [`Hold::on_verdict`] does it.
//!
//! The invariant this module exists for: a [`Grant`] is created in one place,
//! [`Hold::on_verdict`], at most once per hold, only while it waits, and it names the digest of what
//! the reviewers saw. It cannot be cloned, and it leaves the hold once.

mod error;
mod release;
#[cfg(test)]
mod tests;
mod withdrawal;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::error::VerdictError;
pub use self::release::{Release, VoidReason};
pub use self::withdrawal::Withdrawal;
use super::quorum::{self, NotAllowed};
use super::request::{Request, later};
use super::seal::{Seal, SealDifference};
use super::visible::is_invisible;
use crate::actor::{Agent, AgentName, ChannelName, PersonName, Reviewer, ReviewerId, UpstreamName};
use crate::policy::{Approval, Assurance};
use crate::statement::{Digest, RequestId};

/// A reviewer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Let it run.
    Approve,
    /// Do not let it run.
    Deny,
    /// Tell the next group now that it will be asked.
    Escalate,
}

impl Verdict {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Escalate => "escalate",
        }
    }
}

/// One answer as it reaches the hold: who says so, how sure we are of them, and what they saw.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The person, as enrolled now.
    pub by: Arc<Reviewer>,
    /// How sure we are of them.
    pub assurance: Assurance,
    /// The way the answer came.
    pub channel: ChannelName,
    /// Digest of the statement that they were shown.
    pub digest: Digest,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When it was put before their eyes, where the channel knows.
    pub displayed_at: Option<Timestamp>,
}

/// Who people are at this moment. Answers given earlier are judged by it too: somebody who has
/// left the group, or become an owner, since they approved is not counted.
pub trait People {
    /// The reviewer as enrolled now.
    fn reviewer(&self, id: &ReviewerId) -> Option<Arc<Reviewer>>;
    /// The owners of an agent as configured now.
    fn owners(&self, agent: &AgentName) -> Vec<PersonName>;
    /// Whether the agent is configured now, for this upstream.
    fn may_use(&self, agent: &AgentName, upstream: &UpstreamName) -> bool;
}

/// An answer that counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Who.
    pub reviewer: ReviewerId,
    /// What they said.
    pub verdict: Verdict,
    /// How sure we were of them.
    pub assurance: Assurance,
    /// The way it came.
    pub channel: ChannelName,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Digest of what they saw.
    pub digest: Digest,
    /// It came so soon after the request was displayed that it cannot have been read.
    pub quick: bool,
}

/// An answer sooner than this after the request was displayed is flagged.
const QUICK: SignedDuration = SignedDuration::from_secs(3);
/// The longest reason, in characters.
const LONGEST_REASON: usize = 2_000;

/// Where a hold stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// People are being asked.
    Waiting,
    /// Enough of them approved.
    Granted {
        /// Until when the grant may be used.
        until: Timestamp,
        /// A session has it. From then on only that session can say how it ended.
        handed_out: bool,
    },
    /// Somebody said no.
    Denied {
        /// Who.
        by: ReviewerId,
        /// What they want the agent to know.
        message: Option<String>,
    },
    /// Nobody answered in time, or the grant was not used in time.
    Expired,
    /// The agent cancelled or went away, or the session changed.
    Withdrawn {
        /// Why.
        reason: Withdrawal,
    },
    /// The grant was used.
    Executed,
}

impl HoldState {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Granted { .. } => "granted",
            Self::Denied { .. } => "denied",
            Self::Expired => "expired",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Executed => "executed",
        }
    }

    /// Whether nothing more can happen.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Waiting | Self::Granted { .. } => false,
            Self::Denied { .. } | Self::Expired | Self::Withdrawn { .. } | Self::Executed => true,
        }
    }
}

/// Permission to forward one statement, once: made by [`Hold::on_verdict`] and nowhere else, not
/// clonable, consumed by value when the statement is forwarded: it is judged once more then, see
/// [`Grant::release`].
#[derive(Debug)]
pub struct Grant {
    request: Arc<Request>,
    approvals: Vec<Review>,
    expires: Timestamp,
}

/// Why a grant does not cover the statement that is about to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantMismatch {
    /// Its life is over.
    #[error("the grant has expired")]
    Expired,
    /// The statement, the session or the target is not what was approved.
    #[error(transparent)]
    Seal(#[from] SealDifference),
}

impl Grant {
    /// Whether it covers `seal` at `now`. A deferred grant names no session and fits any session of
    /// its agent; everything else must be equal.
    pub fn fits(&self, seal: &Seal, now: Timestamp) -> Result<(), GrantMismatch> {
        if now >= self.expires {
            return Err(GrantMismatch::Expired);
        }
        self.seal().difference(seal).map_or(Ok(()), |difference| Err(difference.into()))
    }

    /// The request it came from.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request.id
    }

    /// What it covers.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.request.draft.seal
    }

    /// The approvals that it rests on.
    #[must_use]
    pub fn approvals(&self) -> &[Review] {
        &self.approvals
    }

    /// Until when it may be used.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// A grant out of thin air, for tests of what consumes grants.
    #[cfg(test)]
    pub(crate) fn for_test(request: Arc<Request>, approvals: Vec<Review>, expires: Timestamp) -> Self {
        Self { request, approvals, expires }
    }
}

/// What an answer would do. Made by [`Hold::check_answer`], applied by [`Hold::on_verdict`]; between the
/// two it is written into the ledger.
#[derive(Debug)]
pub struct CheckedAnswer {
    review: Review,
    effect: Effect,
    /// Whose approvals the quorum rests on, should this complete it.
    counted: Vec<ReviewerId>,
    request: RequestId,
    revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Counts,
    Grants,
    Denies,
    TakesBack,
    /// Notifies so many of the further groups, whose time has not come.
    Notifies {
        groups: usize,
    },
}

impl CheckedAnswer {
    /// The review to record.
    #[must_use]
    pub fn review(&self) -> &Review {
        &self.review
    }

    /// Whether it completes the quorum.
    #[must_use]
    pub fn grants(&self) -> bool {
        self.effect == Effect::Grants
    }

    /// The number of the escalation that it has announced before its time, from 0.
    #[must_use]
    pub fn next_step(&self) -> Option<usize> {
        match self.effect {
            Effect::Notifies { groups } => groups.checked_sub(1),
            Effect::Counts | Effect::Grants | Effect::Denies | Effect::TakesBack => None,
        }
    }

    /// Whether it takes a grant back that nobody has used.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.effect == Effect::TakesBack
    }
}

/// A held statement.
#[derive(Debug)]
pub struct Hold {
    request: Arc<Request>,
    state: HoldState,
    reviews: Vec<Review>,
    /// How many escalations are in force and were announced. More may be due by the clock.
    steps: usize,
    /// How many of the further groups were notified of it, by the clock or by somebody who did not wait.
    notified: usize,
    /// Made and not yet handed out.
    grant: Option<Grant>,
    /// Counts changes, so that what was checked for one state is never applied to another.
    revision: u64,
}

impl Hold {
    /// A hold that waits.
    #[must_use]
    pub fn new(request: Arc<Request>) -> Self {
        Self {
            request,
            state: HoldState::Waiting,
            reviews: Vec::new(),
            steps: 0,
            notified: 0,
            grant: None,
            revision: 0,
        }
    }

    /// What reviewers are shown.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// The answers that counted, in order.
    #[must_use]
    pub fn reviews(&self) -> &[Review] {
        &self.reviews
    }

    /// How many escalations are in force and were announced.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How many of the further groups were notified of it: those whose time has come, and those whom
    /// somebody notified before. Being notified early lets nobody answer early.
    #[must_use]
    pub fn notified(&self) -> usize {
        self.notified.max(self.steps)
    }

    /// Where it stood when something last happened to it.
    #[must_use]
    pub fn state(&self) -> &HoldState {
        &self.state
    }

    /// Where it stands at `now`. What is past its deadline is expired even if no timer has fired
    /// yet, so an outcome never depends on how busy the runtime was.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> HoldState {
        match &self.state {
            HoldState::Waiting if now >= self.request.expires_at => HoldState::Expired,
            HoldState::Granted { until, handed_out: false } if now >= *until => HoldState::Expired,
            HoldState::Waiting
            | HoldState::Granted { .. }
            | HoldState::Denied { .. }
            | HoldState::Expired
            | HoldState::Withdrawn { .. }
            | HoldState::Executed => self.state.clone(),
        }
    }

    /// Who is still missing at `now`, by group.
    #[must_use]
    pub fn missing_at(&self, people: &dyn People, now: Timestamp) -> Vec<Approval> {
        let required = quorum::required(&self.request.draft.terms, self.steps_at(now));
        quorum::missing(&required, &self.approvers(people))
    }

    /// What is asked at `now`, escalations included.
    #[must_use]
    pub fn required_at(&self, now: Timestamp) -> Vec<quorum::RequiredGroup> {
        quorum::required(&self.request.draft.terms, self.steps_at(now))
    }

    /// When the clock will next change something, if it will.
    #[must_use]
    pub fn next_change(&self) -> Option<Timestamp> {
        match &self.state {
            HoldState::Waiting => {
                let step = self.request.draft.terms.escalate.get(self.steps);
                let step = step.map(|step| later(self.request.opened_at, step.after));
                Some(step.map_or(self.request.expires_at, |step| step.min(self.request.expires_at)))
            }
            HoldState::Granted { until, handed_out: false } => Some(*until),
            HoldState::Granted { handed_out: true, .. }
            | HoldState::Denied { .. }
            | HoldState::Expired
            | HoldState::Withdrawn { .. }
            | HoldState::Executed => None,
        }
    }

    /// Says what an answer would do at `now`, and changes nothing.
    pub fn check_answer(
        &self,
        verdict: Verdict,
        reply: &Reply,
        people: &dyn People,
        now: Timestamp,
    ) -> Result<CheckedAnswer, VerdictError> {
        let state = self.state_at(now);
        // Saying no is possible for as long as it changes anything: also to a grant that nobody has
        // used yet, which for a deferred hold can be a long time.
        let unused = matches!(state, HoldState::Granted { handed_out: false, .. });
        if state != HoldState::Waiting && !(unused && verdict == Verdict::Deny) {
            return Err(VerdictError::TooLate { state });
        }
        let terms = &self.request.draft.terms;
        let agent = &self.request.draft.identity.agent;
        let owners = people.owners(&agent.name);
        let steps = self.steps_at(now);
        let required = quorum::required(terms, steps);
        match verdict {
            Verdict::Approve => {
                quorum::may_approve(&reply.by, agent, &owners, &required)
                    .map_err(|why| self.unless_later(why, &reply.by, agent, &owners))?;
            }
            // Those who would be asked later may say no, or have others notified, now.
            Verdict::Escalate => {
                quorum::may_approve(&reply.by, agent, &owners, &quorum::required(terms, usize::MAX))?;
            }
            Verdict::Deny => {
                quorum::may_deny(&reply.by, agent, &owners, &quorum::required(terms, usize::MAX))?
            }
        }
        if reply.digest != self.request.digest {
            return Err(VerdictError::DigestMismatch);
        }
        let reason = self.reason_for(verdict, reply)?;
        let said_before = |wanted: Verdict| {
            self.reviews.iter().any(|review| {
                review.verdict == wanted
                    && people.reviewer(&review.reviewer).map_or_else(
                        || reply.by.is(&review.reviewer.as_str().into()),
                        |before| quorum::same_person(&before, &reply.by),
                    )
            })
        };
        if said_before(verdict) {
            return Err(VerdictError::AlreadyAnswered);
        }
        let mut counted = Vec::new();
        let effect = match verdict {
            Verdict::Approve => {
                if reply.assurance < terms.assurance {
                    return Err(VerdictError::AssuranceTooLow {
                        needed: terms.assurance,
                        had: reply.assurance,
                    });
                }
                let mut approvers = self.approvers(people);
                approvers.push(reply.by.clone());
                counted = approvers.iter().map(|reviewer| reviewer.id.clone()).collect();
                if quorum::is_met(&required, &approvers) { Effect::Grants } else { Effect::Counts }
            }
            Verdict::Deny if unused => Effect::TakesBack,
            Verdict::Deny => Effect::Denies,
            Verdict::Escalate => {
                let notified = self.notified.max(steps);
                if notified >= terms.escalate.len() {
                    return Err(VerdictError::NoFurtherStep);
                }
                Effect::Notifies { groups: notified + 1 }
            }
        };
        Ok(CheckedAnswer {
            review: Review {
                reviewer: reply.by.id.clone(),
                verdict,
                assurance: reply.assurance,
                channel: reply.channel,
                reason,
                at: now,
                digest: reply.digest,
                quick: self.is_quick(reply.displayed_at, now),
            },
            effect,
            counted,
            request: self.request.id,
            revision: self.revision,
        })
    }

    /// When the request was displayed, as far as that can be: not before it was opened, and not later
    /// than now. A channel's clock may be wrong.
    #[must_use]
    pub fn plausible(&self, displayed_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        displayed_at.filter(|at| (self.request.opened_at..=now).contains(at))
    }

    /// Whether an answer at `now` came sooner than the request can have been read: since it was
    /// displayed or, where nobody knows when that was, since it was opened.
    #[must_use]
    pub fn is_quick(&self, displayed_at: Option<Timestamp>, now: Timestamp) -> bool {
        let since = self.plausible(displayed_at, now).unwrap_or(self.request.opened_at);
        now.duration_since(since) < QUICK
    }

    /// Applies what was checked. This is the only place where a [`Grant`] is made.
    ///
    /// Should the deadline have passed in between, because writing the answer down took that long,
    /// the hold has expired and the answer does nothing.
    #[must_use]
    pub fn on_verdict(self, checked: CheckedAnswer, now: Timestamp) -> Self {
        // What was checked for another hold, or before something else happened, is void. An escalation
        // that is due counted when it was checked, whether or not it was announced.
        let is_void = checked.request != self.request.id || checked.revision != self.revision;
        let before = self.state.clone();
        let hold = self.on_time(now);
        if is_void || hold.state != before {
            return hold;
        }
        let CheckedAnswer { review, effect, counted, .. } = checked;
        let at = review.at;
        let mut hold = hold.changed();
        match effect {
            Effect::Counts => {}
            Effect::Notifies { groups } => hold.notified = groups,
            Effect::Denies => {
                hold.state =
                    HoldState::Denied { by: review.reviewer.clone(), message: review.reason.clone() };
            }
            Effect::TakesBack => {
                hold.grant = None;
                hold.state = HoldState::Withdrawn { reason: Withdrawal::TakenBack };
            }
            Effect::Grants => {
                let until = later(at, hold.request.grant_life());
                let approvals = hold
                    .reviews
                    .iter()
                    .chain([&review])
                    .filter(|review| review.verdict == Verdict::Approve && counted.contains(&review.reviewer))
                    .cloned()
                    .collect();
                hold.state = HoldState::Granted { until, handed_out: false };
                hold.grant = Some(Grant { request: hold.request.clone(), approvals, expires: until });
            }
        }
        hold.reviews.push(review);
        hold
    }

    /// Lets the clock do its work: escalations that are due, expiry of the hold or of its grant.
    #[must_use]
    pub fn on_time(self, now: Timestamp) -> Self {
        let state = self.state_at(now);
        let steps = if state == HoldState::Waiting { self.steps_at(now) } else { self.steps };
        if state == self.state && steps == self.steps {
            return self;
        }
        let expired = state == HoldState::Expired;
        let hold = self.changed();
        Self { state, steps, grant: if expired { None } else { hold.grant }, ..hold }
    }

    /// Ends it for a reason that is nobody's verdict. What has ended stays as it ended, also what
    /// was past its deadline before a timer noticed.
    #[must_use]
    pub fn on_withdrawn(self, reason: Withdrawal, now: Timestamp) -> Self {
        let hold = self.on_time(now);
        if hold.state.is_final() {
            return hold;
        }
        Self { state: HoldState::Withdrawn { reason }, grant: None, ..hold.changed() }
    }

    /// The session that has the grant says that the statement ran.
    #[must_use]
    pub fn on_ran(self) -> Self {
        match self.state {
            HoldState::Granted { handed_out: true, .. } => {
                Self { state: HoldState::Executed, ..self.changed() }
            }
            // Nobody has a grant: nothing of this hold can have run.
            HoldState::Granted { handed_out: false, .. }
            | HoldState::Waiting
            | HoldState::Denied { .. }
            | HoldState::Expired
            | HoldState::Withdrawn { .. }
            | HoldState::Executed => self,
        }
    }

    /// Hands the grant out, once, while it lives.
    pub fn take_grant(&mut self, now: Timestamp) -> Option<Grant> {
        let HoldState::Granted { until, handed_out: false } = self.state_at(now) else { return None };
        let grant = self.grant.take()?;
        self.state = HoldState::Granted { until, handed_out: true };
        self.revision += 1;
        Some(grant)
    }

    fn changed(self) -> Self {
        Self { revision: self.revision + 1, ..self }
    }

    /// The escalations in force at `now`. Only time brings them into force: `after` is the least that a
    /// stand-in waits, whoever says that they are needed sooner.
    fn steps_at(&self, now: Timestamp) -> usize {
        // The wall clock may have been set back since.
        self.steps.max(self.request.draft.terms.steps_due(self.request.opened_at, now))
    }

    /// The refusal of somebody who may not approve, which says from when on they may, if they may later.
    fn unless_later(
        &self,
        why: NotAllowed,
        by: &Reviewer,
        agent: &Agent,
        owners: &[PersonName],
    ) -> VerdictError {
        let terms = &self.request.draft.terms;
        let mut steps = terms.escalate.iter().enumerate();
        let first = steps.find(|(place, _)| {
            quorum::may_approve(by, agent, owners, &quorum::required(terms, place + 1)).is_ok()
        });
        match first {
            Some((_, step)) => VerdictError::NotYet { from: later(self.request.opened_at, step.after) },
            None => why.into(),
        }
    }

    /// The people whose approvals still count.
    fn approvers(&self, people: &dyn People) -> Vec<Arc<Reviewer>> {
        let agent = &self.request.draft.identity.agent;
        let owners = people.owners(&agent.name);
        self.reviews
            .iter()
            .filter(|review| review.verdict == Verdict::Approve)
            .filter_map(|review| people.reviewer(&review.reviewer))
            .filter(|reviewer| !quorum::is_owner(reviewer, agent, &owners))
            .collect()
    }

    fn reason_for(&self, verdict: Verdict, reply: &Reply) -> Result<Option<String>, VerdictError> {
        let says_something = |c: char| !c.is_whitespace() && !c.is_control() && !is_invisible(c);
        let reason =
            reply.reason.as_deref().map(str::trim).filter(|reason| reason.chars().any(says_something));
        if reason.is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
            return Err(VerdictError::ReasonTooLong { limit: LONGEST_REASON });
        }
        if reason.is_none() && self.request.draft.terms.reason_required && verdict != Verdict::Escalate {
            return Err(VerdictError::ReasonRequired);
        }
        // It goes into a message of the protocol, onto cards and into logs.
        let turns_text = |c: char| matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        let is_hidden = |c: char| (c.is_control() || turns_text(c)) && c != '\n';
        let plain = |c: char| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c };
        Ok(reason.map(|reason| reason.chars().map(plain).collect()))
    }
}
