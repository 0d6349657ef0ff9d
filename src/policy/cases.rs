//! The tests that a policy carries: statements, and what is to become of them.
//!
//! A set whose cases fail is not loaded: they run in `policy test`, at start-up and at a reload. They
//! are classified with what a server of their version has built in, and the functions that the set
//! itself declares safe; no server is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::document::DEFAULT_RULE;
use super::{Decision, Policy, Subject};
use crate::actor::{Agent, AgentName, DatabaseName, GroupName, RoleName, UpstreamName};
use crate::classify::{Catalogue, Classification, Classifier, Context, SearchPath, StatementClass};
use crate::statement::{RuleName, SqlText, Target};
use crate::toml_reader::Place;

/// One test of a policy.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file it stands in.
    pub file: Arc<str>,
    /// Where it stands there.
    pub place: Place,
    /// What it is called, if anything.
    pub name: Option<String>,
    /// The statement.
    pub sql: String,
    /// The agent that asks; `agent` when the case does not say.
    pub agent: AgentName,
    /// The upstream; `app` when the case does not say.
    pub upstream: UpstreamName,
    /// The database; `app` when the case does not say.
    pub database: DatabaseName,
    /// The role; `app` when the case does not say.
    pub role: RoleName,
    /// The search path; `public` when the case does not say.
    pub search_path: Option<Vec<String>>,
    /// A transaction is open.
    pub in_transaction: bool,
    /// The agent asks for a deferred hold.
    pub defer: bool,
    /// The moment; a Wednesday noon when the case does not say.
    pub at: Option<Timestamp>,
    /// The server's major version, for what it has built in; 15 when the case does not say.
    pub server_version: Option<u32>,
    /// What is to become of it.
    pub expect: Expect,
}

/// What is to become of a case's statement. What is not given is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The decision.
    pub then: ExpectedThen,
    /// A rule that must be among those that decided; `default` for none.
    pub rule: Option<RuleName>,
    /// The class the statement must have.
    pub class: Option<StatementClass>,
    /// The groups that must be asked, all of them, in any order.
    pub groups: Option<Vec<GroupName>>,
}

/// A decision, as a case names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedThen {
    /// It runs.
    Allow,
    /// It waits.
    Hold,
    /// A rule denies it.
    Deny,
    /// It is refused as a syntax error.
    Refuse,
}

impl ExpectedThen {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Deny => "deny",
            Self::Refuse => "refuse",
        }
    }

    /// Reads the stable spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Allow, Self::Hold, Self::Deny, Self::Refuse].into_iter().find(|then| then.as_str() == name)
    }
}

/// What became of a case.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its class.
    pub class: StatementClass,
    /// The decision.
    pub decision: Decision,
    /// What was expected and did not happen; empty when the case passed.
    pub failures: Vec<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => f.write_str(self.sql.lines().next().unwrap_or_default()),
        }
    }
}

impl Policy {
    /// Runs the cases that the set carries, in the order of its files.
    #[must_use]
    pub fn run_cases(&self, classifier: &Classifier) -> Vec<(&Case, Ran)> {
        let mut catalogues: BTreeMap<u32, Arc<Catalogue>> = BTreeMap::new();
        self.cases
            .iter()
            .map(|case| {
                let version = case.server_version.unwrap_or(DEFAULT_SERVER);
                let catalogue = catalogues
                    .entry(version)
                    .or_insert_with(|| Catalogue::built_in_with(version, &self.declared));
                let classification = classifier.classify(
                    &SqlText::from(case.sql.as_str()),
                    &Context {
                        server_version: version,
                        catalogue,
                        search_path: &case.search_path(),
                        database: case.database.as_str(),
                        role: case.role.as_str(),
                        strings_standard: true,
                    },
                );
                (case, case.run(self, &classification))
            })
            .collect()
    }
}

/// The server's version of a case that names none.
const DEFAULT_SERVER: u32 = 15;
/// The moment of a case that names none: Wednesday, 7 January 2026, noon UTC.
const NOON: i64 = 1_767_787_200;

impl Case {
    /// The search path it runs with.
    #[must_use]
    pub fn search_path(&self) -> SearchPath {
        match &self.search_path {
            Some(path) => SearchPath::Known(path.iter().map(|schema| schema.as_str().into()).collect()),
            None => SearchPath::Known(vec!["public".into()]),
        }
    }

    /// Runs it against `policy`, once it is known what its statement does.
    #[must_use]
    pub fn run(&self, policy: &Policy, classification: &Classification) -> Ran {
        let agent =
            Agent { name: self.agent.clone(), owners: Vec::new(), upstreams: vec![self.upstream.clone()] };
        let target = Target {
            upstream: self.upstream.clone(),
            database: self.database.clone(),
            role: self.role.clone(),
        };
        let decision = policy.decide(&Subject {
            agent: &agent,
            target: &target,
            classification,
            search_path: &self.search_path(),
            in_transaction: self.in_transaction,
            claimed_defer: self.defer,
            now: self.at.unwrap_or_else(|| Timestamp::from_second(NOON).unwrap_or(Timestamp::UNIX_EPOCH)),
        });
        let failures = self.expect.failures(classification, &decision);
        Ran { class: classification.class, decision, failures }
    }
}

impl Expect {
    fn failures(&self, classification: &Classification, decision: &Decision) -> Vec<String> {
        let mut failures = Vec::new();
        let then = decision.then();
        if then != self.then {
            failures.push(format!("expected {}, got {}", self.then.as_str(), then.as_str()));
        }
        let rules: Vec<&str> = decision.rules().into_iter().map(RuleName::as_str).collect();
        if let Some(rule) = &self.rule {
            let met =
                if rule.as_str() == DEFAULT_RULE { rules.is_empty() } else { rules.contains(&rule.as_str()) };
            if !met {
                let by = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
                failures.push(format!("expected it from rule {rule}, got it from {by}"));
            }
        }
        if let Some(class) = self.class
            && class != classification.class
        {
            failures.push(format!("expected class {class}, got {}", classification.class));
        }
        if let Some(groups) = &self.groups {
            let asked: Vec<GroupName> = match decision {
                Decision::Hold(terms) => terms.approvals.iter().map(|asked| asked.group.clone()).collect(),
                Decision::Allow(_) | Decision::Deny(_) | Decision::Invalid(_) => Vec::new(),
            };
            let mut expected = groups.clone();
            expected.sort();
            if expected != asked {
                failures.push(format!("expected to ask {expected:?}, got {asked:?}"));
            }
        }
        failures
    }
}

impl Decision {
    /// The decision as a case names it.
    #[must_use]
    pub fn then(&self) -> ExpectedThen {
        match self {
            Self::Allow(_) => ExpectedThen::Allow,
            Self::Hold(_) => ExpectedThen::Hold,
            Self::Deny(_) => ExpectedThen::Deny,
            Self::Invalid(_) => ExpectedThen::Refuse,
        }
    }

    /// The rules that decided; none where nothing but the class did.
    #[must_use]
    pub fn rules(&self) -> Vec<&RuleName> {
        match self {
            Self::Allow(allowed) => allowed.rule().into_iter().collect(),
            Self::Hold(terms) => terms.rules.iter().collect(),
            Self::Deny(denied) => vec![&denied.rule],
            Self::Invalid(_) => Vec::new(),
        }
    }
}
