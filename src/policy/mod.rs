//! Whether a statement may run: `(agent, target, classification)` in, a [`Decision`] out.
//!
//! Every rule is evaluated and order never matters: deny beats hold beats allow, and several holds
//! add up. A class that is held by default and that no rule speaks of is held; a rule that cannot
//! be evaluated holds.
//!
//! The invariant this module exists for: an [`Allowed`] is made in one place, [`Policy::decide`],
//! and without one (or a grant) nothing can be forwarded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::GroupName;
use crate::statement::{Digest, RuleName};

/// Policy's answer for one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it.
    Allow(Allowed),
    /// Let it wait for people.
    Hold(Terms),
    /// Refuse it.
    Deny(Denied),
}

/// Proof that policy allowed a statement without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The rule that allowed it; `None` where the class is simply not held by default.
    rule: Option<RuleName>,
    /// The policy set that was in force.
    policy: Digest,
}

impl Allowed {
    /// An allowance out of thin air, for tests of what consumes them.
    #[cfg(test)]
    pub(crate) fn for_test(rule: Option<RuleName>, policy: Digest) -> Self {
        Self { rule, policy }
    }

    /// The rule that allowed it; `None` where the class is simply not held by default.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleName> {
        self.rule.as_ref()
    }

    /// Digest of the policy set that was in force.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }
}

/// A refusal by rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The rule.
    pub rule: RuleName,
    /// Its message to the agent.
    pub message: Option<String>,
    /// The policy set that was in force.
    pub policy: Digest,
}

/// How sure we must be of a reviewer, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// An enrolled chat account or a personal token.
    Click,
    /// A console session with a recent sign-in.
    Login,
    /// A passkey or SSH signature over the request.
    Signature,
}

impl Assurance {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Click => "click",
            Self::Login => "login",
            Self::Signature => "signature",
        }
    }
}

/// How many people of a group must approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The group.
    pub group: GroupName,
    /// How many distinct people of it.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// Who is asked as well when nobody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// How long after the request was opened.
    pub after: Duration,
    /// The group that may then answer in place of those asked first.
    pub to: GroupName,
    /// The groups it may answer for. An escalation of one rule never weakens another rule: a group
    /// is listed here only when every rule that asks it agrees to this step.
    pub stands_in_for: Vec<GroupName>,
}

/// What a hold inside an open transaction may do, because it keeps locks while a human thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTransaction {
    /// Wait, but no longer than this.
    Wait(Duration),
    /// Refuse at once.
    Refuse,
}

/// The terms on which a statement waits: the union of every rule that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The rules that hold it, by name, sorted.
    pub rules: Vec<RuleName>,
    /// Who must approve: all of these, each by distinct people.
    pub approvals: Vec<Approval>,
    /// A verdict must carry a reason.
    pub reason_required: bool,
    /// How sure we must be of each reviewer.
    pub assurance: Assurance,
    /// How long it waits, and how long an unused grant lives.
    pub expires: Duration,
    /// What happens inside an open transaction.
    pub in_transaction: InTransaction,
    /// Who is asked when nobody answers, in order.
    pub escalate: Vec<Escalation>,
    /// The statement fails at once and runs when the agent retries it after approval.
    pub defer: bool,
    /// The policy set that was in force.
    pub policy: Digest,
}
