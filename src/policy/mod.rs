//! Whether a statement may run: `(agent, target, classification)` in, a [`Decision`] out.
//!
//! Every rule is evaluated and order never matters: deny beats hold beats allow, and several holds
//! add up. A class that is held by default and that no rule speaks of is held; a rule that cannot
//! be evaluated holds.
//!
//! - [`document`]: the file format.
//! - [`rule`]: one rule, and whether it speaks of a statement.
//! - [`pattern`](crate::classify::pattern), [`hours`]: what its conditions are made of.
//! - [`decide`]: all rules together.
//! - [`normal`]: the set in one spelling, and its digest.
//! - [`cases`]: the tests a set carries.
//! - [`lint`]: rules that cannot be what their author meant.
//!
//! The invariant this module exists for: an [`Allowed`] is made in one place, [`Policy::decide`],
//! and without one (or a grant) nothing can be forwarded.

pub mod cases;
pub mod decide;
pub mod document;
pub mod hours;
pub mod lint;
pub mod normal;
pub mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::{Agent, GroupName};
use crate::classify::{Classification, Declared, SearchPath, SyntaxError};
use crate::statement::{Digest, RuleName, Target};
use crate::toml_reader::Problem;

pub use crate::actor::Assurance;
pub use cases::Case;
pub use rule::Rule;

/// What is wrong with a policy file.
pub type PolicyError = Problem;

/// A loaded set of rules. Immutable: a changed file makes another set.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Sorted by name.
    rules: Vec<Rule>,
    cases: Vec<Case>,
    declared: Arc<Declared>,
    defaults: Defaults,
    digest: Digest,
}

/// What holds where no rule says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Who is asked.
    pub reviewers: GroupName,
    /// How long a statement waits, and how long an unused grant lives.
    pub expires: Duration,
    /// What happens inside an open transaction.
    pub in_transaction: InTransaction,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            reviewers: "dba".into(),
            expires: Duration::from_secs(15 * 60),
            in_transaction: InTransaction::Wait(Duration::from_secs(2 * 60)),
        }
    }
}

/// What is decided about: one statement of one agent at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who asks.
    pub agent: &'a Agent,
    /// Where it would run.
    pub target: &'a Target,
    /// What it does.
    pub classification: &'a Classification,
    /// Where its unqualified names are looked up.
    pub search_path: &'a SearchPath,
    /// A transaction is open, or may be.
    pub in_transaction: bool,
    /// The agent asks for a deferred hold (`countersign.hold = defer`).
    pub claimed_defer: bool,
    /// The moment.
    pub now: jiff::Timestamp,
}

impl Policy {
    /// Reads a set from the texts of its files, given as (file name, text). Everything that is wrong
    /// with any of them is reported at once.
    pub fn load(files: &[(String, String)], defaults: Defaults) -> Result<Self, Vec<PolicyError>> {
        let document::Set { rules, cases, declared } = document::read(files)?;
        let form = normal::form(&rules, &declared, &defaults);
        let declared = Arc::new(declared);
        Ok(Self { rules, cases, declared, digest: normal::digest(&form), defaults })
    }

    /// Digest of everything in the set that decides; see [`normal`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The rules, sorted by name.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the operator says of the database: to be handed to the
    /// [`Catalogue`](crate::classify::Catalogue), so that classification knows it.
    #[must_use]
    pub fn declared(&self) -> &Arc<Declared> {
        &self.declared
    }

    /// The cases that its files carry.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// What holds where no rule says otherwise.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }
}

/// Policy's answer for one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it.
    Allow(Allowed),
    /// Let it wait for people.
    Hold(Terms),
    /// Refuse it.
    Deny(Denied),
    /// Refuse it as what it is: no SQL. It is never forwarded, because upstream's grammar may be
    /// another one than ours.
    Invalid(InvalidText),
}

/// A text that Postgres's grammar rejects and that no rule wants to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidText {
    /// What the grammar says.
    pub error: SyntaxError,
    /// The policy set that was in force.
    pub policy: Digest,
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

impl Terms {
    /// How many of the escalations are in force at `now`, for a request that was opened at `opened_at`.
    #[must_use]
    pub fn steps_due(&self, opened_at: jiff::Timestamp, now: jiff::Timestamp) -> usize {
        let waited = Duration::try_from(now.duration_since(opened_at)).unwrap_or_default();
        self.escalate.iter().take_while(|step| step.after <= waited).count()
    }
}
