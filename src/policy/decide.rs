//! How the answers of all rules become one decision.

use std::time::Duration;

use super::rule::{ClassSet, HoldTerms, Matched, Rule, Then};
use super::{
    Allowed, Approval, Assurance, Decision, Denied, Escalation, InTransaction, Policy, Subject, Terms,
};
use crate::actor::GroupName;
use crate::classify::StatementClass;
use crate::statement::RuleName;

/// What one rule said of a statement, for people who ask why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAnswer {
    /// The rule.
    pub rule: RuleName,
    /// What it says where it speaks.
    pub then: &'static str,
    /// Whether it speaks.
    pub matched: Matched,
}

impl Policy {
    /// Whether the statement may run. Every rule is asked, so their order cannot matter.
    ///
    /// This is the only place where an [`Allowed`] is made.
    #[must_use]
    pub fn decide(&self, subject: &Subject<'_>) -> Decision {
        let classes = ClassSet::of(subject.classification);
        let mut denied: Option<&Rule> = None;
        let mut allowed: Option<&Rule> = None;
        let mut holding: Vec<(&RuleName, Option<&HoldTerms>)> = Vec::new();
        for rule in &self.rules {
            match (&rule.then, rule.matches(subject, classes)) {
                (_, Matched::No(_)) | (Then::Allow, Matched::Unknown(_)) => {}
                // Rules are sorted by name: of several that say the same, the first is named.
                (Then::Deny { .. }, Matched::Yes) => denied = denied.or(Some(rule)),
                (Then::Allow, Matched::Yes) => allowed = allowed.or(Some(rule)),
                (Then::Hold(terms), Matched::Yes | Matched::Unknown(_)) => {
                    holding.push((&rule.name, Some(terms)));
                }
                // Perhaps it would deny. People decide, on the default terms.
                (Then::Deny { .. }, Matched::Unknown(_)) => holding.push((&rule.name, None)),
            }
        }
        if let Some(Rule { name, then: Then::Deny { message }, .. }) = denied {
            return Decision::Deny(Denied {
                rule: name.clone(),
                message: message.clone(),
                policy: self.digest,
            });
        }
        if !holding.is_empty() {
            return Decision::Hold(self.terms(&holding, subject));
        }
        let classification = subject.classification;
        if let Some(error) = &classification.syntax_error
            && classification.class == StatementClass::Invalid
        {
            return Decision::Invalid(super::InvalidText { error: error.clone(), policy: self.digest });
        }
        if allowed.is_some() || !classification.class.is_privileged() {
            return Decision::Allow(Allowed {
                rule: allowed.map(|rule| rule.name.clone()),
                policy: self.digest,
            });
        }
        Decision::Hold(self.terms(&[], subject))
    }

    /// What every rule says of the statement, and why those that do not speak are silent.
    #[must_use]
    pub fn answers(&self, subject: &Subject<'_>) -> Vec<RuleAnswer> {
        let classes = ClassSet::of(subject.classification);
        self.rules
            .iter()
            .map(|rule| RuleAnswer {
                rule: rule.name.clone(),
                then: rule.then.as_str(),
                matched: rule.matches(subject, classes),
            })
            .collect()
    }

    /// Adds up the terms of the rules that hold, each at its strictest. `None` stands for the
    /// default terms.
    fn terms(&self, holding: &[(&RuleName, Option<&HoldTerms>)], subject: &Subject<'_>) -> Terms {
        let default = HoldTerms::default();
        let parts: Vec<&HoldTerms> = if holding.is_empty() {
            vec![&default]
        } else {
            holding.iter().map(|(_, terms)| terms.unwrap_or(&default)).collect()
        };
        let asked: Vec<Vec<Approval>> = parts.iter().map(|part| self.approvals_of(part)).collect();
        let transaction = |part: &&HoldTerms| part.in_transaction.unwrap_or(self.defaults.in_transaction);
        let refused = parts.iter().any(|part| part.defer == Some(false));
        let wanted = subject.claimed_defer || parts.iter().any(|part| part.defer == Some(true));
        Terms {
            rules: holding.iter().map(|(rule, _)| (*rule).clone()).collect(),
            approvals: union(&asked),
            reason_required: parts.iter().any(|part| part.reason_required),
            assurance: parts.iter().filter_map(|part| part.assurance).max().unwrap_or(Assurance::Click),
            expires: parts
                .iter()
                .map(|part| part.expires.unwrap_or(self.defaults.expires))
                .min()
                .unwrap_or(self.defaults.expires),
            in_transaction: parts.iter().map(transaction).fold(InTransaction::Wait(Duration::MAX), strictest),
            escalate: escalations(&parts, &asked),
            defer: wanted && !refused,
            policy: self.digest,
        }
    }

    fn approvals_of(&self, part: &HoldTerms) -> Vec<Approval> {
        if part.approvals.is_empty() {
            vec![Approval { group: self.defaults.reviewers.clone(), count: 1 }]
        } else {
            part.approvals.clone()
        }
    }
}

fn strictest(one: InTransaction, other: InTransaction) -> InTransaction {
    match (one, other) {
        (InTransaction::Wait(one), InTransaction::Wait(other)) => InTransaction::Wait(one.min(other)),
        (InTransaction::Refuse, _) | (_, InTransaction::Refuse) => InTransaction::Refuse,
    }
}

/// Every group that any rule asks, with the largest count; sorted by group.
fn union(asked: &[Vec<Approval>]) -> Vec<Approval> {
    let mut all: Vec<Approval> = asked.iter().flatten().cloned().collect();
    // The largest count of a group comes first and is the one that stays.
    all.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| b.count.cmp(&a.count)));
    all.dedup_by(|later, kept| later.group == kept.group);
    all
}

/// The escalations that no rule is weakened by. A group may be stood in for only when every rule
/// that asks it names the stand-in, and not before the last of them does: otherwise an escalation of
/// one rule would let its stand-ins answer for a group that another rule insists on.
fn escalations(parts: &[&HoldTerms], asked: &[Vec<Approval>]) -> Vec<Escalation> {
    let mut steps: Vec<(Duration, GroupName, GroupName)> = Vec::new();
    for Approval { group, .. } in union(asked) {
        let insisting: Vec<&HoldTerms> = parts
            .iter()
            .zip(asked)
            .filter(|(_, asked)| asked.iter().any(|approval| approval.group == group))
            .map(|(part, _)| *part)
            .collect();
        let mut stand_ins: Vec<&GroupName> =
            insisting.iter().flat_map(|part| part.escalate.iter().map(|(_, to)| to)).collect();
        stand_ins.sort();
        stand_ins.dedup();
        for to in stand_ins {
            let soonest = |part: &&HoldTerms| {
                part.escalate.iter().filter(|(_, group)| group == to).map(|(after, _)| *after).min()
            };
            if let Some(after) = insisting
                .iter()
                .map(soonest)
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max())
            {
                steps.push((after, to.clone(), group.clone()));
            }
        }
    }
    steps.sort();
    let mut escalations: Vec<Escalation> = Vec::new();
    for (after, to, group) in steps {
        match escalations.last_mut() {
            Some(last) if last.after == after && last.to == to => last.stands_in_for.push(group),
            Some(_) | None => escalations.push(Escalation { after, to, stands_in_for: vec![group] }),
        }
    }
    escalations
}
