//! A grant is judged once more when it takes effect.
//!
//! Hours may pass between a request and its grant, and days between a deferred grant and its use.
//! Meanwhile a policy may be loaded that denies the statement or asks more people, and those who
//! approved may have left, or own the agent now. What counts is the policy and the people of the
//! moment of use. [`Grant::release`] asks both, and the ledger takes nothing but the [`Release`] that
//! it makes: no grant can be used without having been judged at that moment.
//!
//! The same question is asked of everything that waits whenever policy or people change
//! ([`Hold::reconsider`]), so that nobody is asked for an answer that could not count.

use jiff::Timestamp;

use super::{Grant, GrantMismatch, Hold, HoldState, People, Review, Verdict, Withdrawal};
use crate::approval::quorum;
use crate::approval::request::{Request, later, waiting_time};
use crate::approval::seal::Seal;
use crate::policy::{Decision, Terms};
use crate::statement::{Digest, RequestId, RuleName};

/// Why what was asked for, or approved, is void.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoidReason {
    /// The grant does not cover what is about to run, or its life is over.
    #[error("the session is not what it was when approval was asked for: {0}")]
    Mismatch(#[from] GrantMismatch),
    /// A policy that was loaded since then denies the statement.
    #[error("rule \"{rule}\" of the policy in force denies it")]
    DeniedByPolicy {
        /// The rule.
        rule: RuleName,
        /// Its message to the agent.
        message: Option<String>,
    },
    /// No rule holds it any more, and its text is no SQL.
    #[error("under the policy in force it is refused as a syntax error")]
    SyntaxError,
    /// A policy that was loaded since then asks for more than this request did.
    #[error("the policy in force asks for more than was asked for: {what}")]
    Stricter {
        /// In one phrase.
        what: &'static str,
    },
    /// Somebody whose approval it rests on could not approve it now.
    #[error("somebody who approved may not approve it any more")]
    ApproversChanged,
    /// The agent is not configured any more, or not for this upstream.
    #[error("the agent is no longer allowed here")]
    AgentRevoked,
}

impl VoidReason {
    /// Why the request is withdrawn: without what only the agent and the ledger are notified.
    #[must_use]
    pub fn withdrawal(&self) -> Withdrawal {
        match self {
            Self::Mismatch(_) => Withdrawal::SessionChanged,
            Self::DeniedByPolicy { .. } => Withdrawal::DeniedByPolicy,
            Self::SyntaxError => Withdrawal::SyntaxError,
            Self::Stricter { .. } => Withdrawal::StricterPolicy,
            Self::ApproversChanged => Withdrawal::ApproversChanged,
            Self::AgentRevoked => Withdrawal::AgentRevoked,
        }
    }
}

/// A grant that fits what is about to run, by the policy and the people of this moment. Made by
/// [`Grant::release`] and nowhere else; the ledger takes it by value when the statement is recorded.
#[derive(Debug)]
pub struct Release {
    grant: Grant,
    rules: Vec<RuleName>,
    policy: Digest,
}

impl Release {
    /// The grant.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The request it came from.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.grant.request()
    }

    /// The rules that speak of the statement now.
    #[must_use]
    pub fn rules(&self) -> &[RuleName] {
        &self.rules
    }

    /// The policy set that it was judged by.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// A release that nobody judged, for tests of what consumes it.
    #[cfg(test)]
    pub(crate) fn for_test(grant: Grant, policy: Digest) -> Self {
        Self { grant, rules: Vec::new(), policy }
    }
}

impl Grant {
    /// Judges the grant at the moment of its use. `seal` and `decision` are of what is about to run:
    /// both have to be made anew, by the policy in force.
    pub fn release(
        self,
        seal: &Seal,
        decision: &Decision,
        people: &dyn People,
        now: Timestamp,
    ) -> Result<Release, VoidReason> {
        self.fits(seal, now)?;
        let (rules, policy) = match decision {
            Decision::Allow(allowed) => (allowed.rule().cloned().into_iter().collect(), allowed.policy()),
            Decision::Hold(terms) => (terms.rules.clone(), terms.policy),
            Decision::Deny(denied) => (vec![denied.rule.clone()], denied.policy),
            Decision::Invalid(invalid) => (Vec::new(), invalid.policy),
        };
        self.stands(decision, people, now)?;
        Ok(Release { grant: self, rules, policy })
    }

    /// Whether its approvals satisfy what is asked now.
    fn stands(&self, decision: &Decision, people: &dyn People, now: Timestamp) -> Result<(), VoidReason> {
        let terms = asked_now(&self.request, decision, people)?;
        let own = &self.request.draft.terms;
        if !approved(&self.request, own, &self.approvals, people) {
            return Err(VoidReason::ApproversChanged);
        }
        let Some(terms) = terms else { return Ok(()) };
        let stricter = |what| Err(VoidReason::Stricter { what });
        if !approved(&self.request, terms, &self.approvals, people) {
            return stricter("other or more approvals");
        }
        if self.request.is_deferred() && !terms.defer {
            return stricter("it may not be deferred");
        }
        let Ok(wait) = waiting_time(terms, self.request.draft.transaction.status) else {
            return stricter("it may not wait inside a transaction");
        };
        let last = self.approvals.iter().map(|review| review.at).max().unwrap_or(self.request.opened_at);
        let too_late = last >= later(self.request.opened_at, wait);
        let too_old = self.request.is_deferred() && now >= later(last, terms.expires);
        if too_late || too_old { stricter("an approval in less time") } else { Ok(()) }
    }
}

impl Hold {
    /// Whether what waits, or was granted and not handed out, may stay as it is now that policy or
    /// people have changed. What a session has in hand is judged when it is used.
    pub fn reconsider(
        &self,
        decision: &Decision,
        people: &dyn People,
        now: Timestamp,
    ) -> Result<(), VoidReason> {
        match (self.state_at(now), &self.grant) {
            (HoldState::Waiting, _) => {
                let terms = asked_now(&self.request, decision, people)?;
                terms.map_or(Ok(()), |terms| not_stricter(&self.request, terms))
            }
            (HoldState::Granted { handed_out: false, .. }, Some(grant)) => {
                grant.stands(decision, people, now)
            }
            (
                HoldState::Granted { .. }
                | HoldState::Denied { .. }
                | HoldState::Expired
                | HoldState::Withdrawn { .. }
                | HoldState::Executed,
                _,
            ) => Ok(()),
        }
    }
}

/// The terms of the policy in force; none where it allows the statement without asking anybody.
fn asked_now<'d>(
    request: &Request,
    decision: &'d Decision,
    people: &dyn People,
) -> Result<Option<&'d Terms>, VoidReason> {
    if !people.may_use(&request.draft.identity.agent.name, &request.draft.target.upstream) {
        return Err(VoidReason::AgentRevoked);
    }
    match decision {
        Decision::Allow(_) => Ok(None),
        Decision::Hold(terms) => Ok(Some(terms)),
        Decision::Deny(denied) => {
            Err(VoidReason::DeniedByPolicy { rule: denied.rule.clone(), message: denied.message.clone() })
        }
        Decision::Invalid(_) => Err(VoidReason::SyntaxError),
    }
}

/// Whether `reviews` satisfy `terms`, each reviewer being who they are now. What somebody was asked
/// for when they answered is notified by the time: a stand-in counts from its step on.
fn approved(request: &Request, terms: &Terms, reviews: &[Review], people: &dyn People) -> bool {
    let agent = &request.draft.identity.agent;
    let owners = people.owners(&agent.name);
    let required = |at| quorum::required(terms, terms.steps_due(request.opened_at, at));
    let last = reviews.iter().map(|review| review.at).max().unwrap_or(request.opened_at);
    let counted: Vec<_> = reviews
        .iter()
        .filter(|review| review.verdict == Verdict::Approve)
        .filter(|review| review.assurance >= terms.assurance)
        .filter(|review| review.reason.is_some() || !terms.reason_required)
        .filter_map(|review| Some((people.reviewer(&review.reviewer)?, review.at)))
        .filter(|(reviewer, at)| quorum::may_approve(reviewer, agent, &owners, &required(*at)).is_ok())
        .map(|(reviewer, _)| reviewer)
        .collect();
    quorum::is_met(&required(last), &counted)
}

/// Whether an approval on the request's own terms would satisfy `terms` as well.
fn not_stricter(request: &Request, terms: &Terms) -> Result<(), VoidReason> {
    let own = &request.draft.terms;
    let stricter = |what| Err(VoidReason::Stricter { what });
    let asked = |group, count| own.approvals.iter().any(|asked| asked.group == group && asked.count >= count);
    if !terms.approvals.iter().all(|approval| asked(approval.group.clone(), approval.count)) {
        return stricter("other or more approvals");
    }
    let may_stand_in = |to, group, after| {
        terms
            .escalate
            .iter()
            .any(|step| step.to == to && step.after <= after && step.stands_in_for.contains(group))
    };
    let escalates = own.escalate.iter().all(|step| {
        let groups = step.stands_in_for.iter();
        // A group that is not asked any more needs no stand-in.
        let mut asked = groups.filter(|group| terms.approvals.iter().any(|now| now.group == **group));
        asked.all(|group| may_stand_in(step.to.clone(), group, step.after))
    });
    if !escalates {
        return stricter("stand-ins later, or none");
    }
    if terms.reason_required && !own.reason_required {
        return stricter("a reason with the answer");
    }
    if terms.assurance > own.assurance {
        return stricter("more assurance");
    }
    if request.is_deferred() && !terms.defer {
        return stricter("it may not be deferred");
    }
    if waiting_time(terms, request.draft.transaction.status).is_err() {
        return stricter("it may not wait inside a transaction");
    }
    Ok(())
}
