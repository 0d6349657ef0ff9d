//! What would become of a statement: nothing is run, held or recorded.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::views::{PolicyView, ViewError};
use crate::actor::{Agent, AgentName};
use crate::approval::Shown;
use crate::approval::document::{approvals_in_words, columns_of, way_of};
use crate::classify::{Classification, SearchPath};
use crate::identity::Directory;
use crate::policy::rule::Matched;
use crate::policy::{Approval, Decision, InTransaction, Subject};
use crate::statement::{Digest, RuleName, SqlText};

/// What is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The statement.
    pub(super) sql: String,
    /// The agent that would send it.
    pub(super) agent: Option<String>,
    /// The upstream it would run on; the first when not said.
    pub(super) upstream: Option<String>,
    /// Schemas, separated by commas; `public` when not said.
    pub(super) search_path: Option<String>,
    /// A transaction is open.
    #[serde(default)]
    pub(super) in_transaction: bool,
    /// The agent asks for a deferred hold.
    #[serde(default)]
    pub(super) defer: bool,
}

/// What would become of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WhatIf {
    /// `allow`, `hold`, `deny` or `refuse` (no SQL that Postgres accepts).
    pub(super) then: &'static str,
    /// In one sentence.
    pub(super) summary: String,
    /// The statement class.
    pub(super) class: &'static str,
    /// Why it has that class.
    pub(super) reasons: Vec<Shown>,
    /// What it does to which objects.
    pub(super) effects: Vec<Shown>,
    /// What each rule says of it.
    pub(super) rules: Vec<RuleSays>,
    /// Who would have to approve.
    pub(super) approvals: Vec<Approval>,
    /// The terms of the hold, in words.
    pub(super) terms: Vec<(&'static str, String)>,
    /// Digest of the policy set.
    pub(super) policy: Digest,
}

/// What one rule says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RuleSays {
    pub(super) rule: RuleName,
    pub(super) then: &'static str,
    /// `yes`, `no` or `unknown`.
    pub(super) speaks: &'static str,
    /// Why not, or what cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<&'static str>,
    /// It decided.
    pub(super) decided: bool,
}

/// The longest statement that can be tried out. It is read on a thread that serves requests.
const LONGEST: usize = 48 << 10;

pub(super) fn what_if(
    policy: &dyn PolicyView,
    directory: &Directory,
    question: &Question,
    now: Timestamp,
) -> Result<WhatIf, ViewError> {
    if question.sql.trim().is_empty() {
        return Err(ViewError::Question("there is no statement to ask about".to_owned()));
    }
    if question.sql.len() > LONGEST {
        return Err(ViewError::Question(format!(
            "statements of up to {LONGEST} bytes can be tried out here"
        )));
    }
    let targets = policy.targets();
    let wanted = question.upstream.as_deref().filter(|name| !name.is_empty());
    let target = match wanted {
        Some(name) => targets.iter().find(|target| target.upstream.as_str() == name),
        None => targets.first(),
    };
    let target = target.ok_or_else(|| ViewError::Question("there is no such upstream".to_owned()))?;
    let search_path = search_path(question.search_path.as_deref());
    let classification = policy.classify(&SqlText::from(question.sql.as_str()), target, &search_path)?;
    let name = AgentName::new(question.agent.as_deref().filter(|name| !name.is_empty()).unwrap_or("agent"));
    let agent = match directory.agent(&name) {
        Some(entry) => entry.agent.clone(),
        None => Arc::new(Agent { name, owners: Vec::new(), upstreams: vec![target.upstream.clone()] }),
    };
    let subject = Subject {
        agent: &agent,
        target,
        classification: &classification,
        search_path: &search_path,
        in_transaction: question.in_transaction,
        claimed_defer: question.defer,
        now,
    };
    let set = policy.policy();
    let decision = set.decide(&subject);
    let decided = decision.rules().into_iter().cloned().collect::<Vec<_>>();
    let rules = set.answers(&subject).into_iter().map(|answer| {
        let (speaks, because) = match answer.matched {
            Matched::Yes => ("yes", None),
            Matched::No(condition) => ("no", Some(condition)),
            Matched::Unknown(why) => ("unknown", Some(why)),
        };
        let decided = decided.contains(&answer.rule);
        RuleSays { rule: answer.rule, then: answer.then, speaks, because, decided }
    });
    Ok(WhatIf {
        then: decision.then().as_str(),
        summary: summary(&decision, &classification),
        class: classification.class.as_str(),
        reasons: classification.reasons.iter().map(|reason| Shown::line(&reason.text)).collect(),
        effects: effects(&classification),
        rules: rules.collect(),
        approvals: match &decision {
            Decision::Hold(terms) => terms.approvals.clone(),
            Decision::Allow(_) | Decision::Deny(_) | Decision::Invalid(_) => Vec::new(),
        },
        terms: terms(&decision),
        policy: set.digest(),
    })
}

fn search_path(asked: Option<&str>) -> SearchPath {
    let schemas: Vec<Arc<str>> = asked
        .unwrap_or_default()
        .split(',')
        .map(|schema| schema.trim().trim_matches('"'))
        .filter(|schema| !schema.is_empty())
        .map(Arc::from)
        .collect();
    SearchPath::Known(if schemas.is_empty() { vec!["public".into()] } else { schemas })
}

fn summary(decision: &Decision, classification: &Classification) -> String {
    let class = classification.class;
    match decision {
        Decision::Allow(allowed) => match allowed.rule() {
            Some(rule) => format!("It would run at once: rule {rule} allows it."),
            None => format!("It would run at once: {class} is not held by default."),
        },
        Decision::Hold(terms) => {
            let why = match terms.rules.as_slice() {
                [] => format!("{class} is held by default"),
                rules => format!("held by {}", join(rules)),
            };
            let asked = approvals_in_words(&terms.approvals);
            format!("It would wait for {asked} to approve: {why}.")
        }
        Decision::Deny(denied) => format!("It would be refused: rule {} denies it.", denied.rule),
        Decision::Invalid(invalid) => {
            format!("It would be refused as a syntax error: {}", Shown::line(&invalid.error.message))
        }
    }
}

fn join(rules: &[RuleName]) -> String {
    rules.iter().map(RuleName::as_str).collect::<Vec<_>>().join(", ")
}

fn effects(classification: &Classification) -> Vec<Shown> {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        Ok(_) | Err(_) => String::new(),
    };
    let line = |effect: &crate::classify::Effect| {
        let schema = effect.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let (verb, kind) = (word(serde_json::to_value(effect.verb)), word(serde_json::to_value(effect.kind)));
        let through = way_of(effect);
        let columns = columns_of(effect);
        Shown::line(&format!("{verb} {kind} {schema}{}{columns}{through}", effect.name))
    };
    classification.effects.iter().map(line).collect()
}

fn terms(decision: &Decision) -> Vec<(&'static str, String)> {
    let Decision::Hold(terms) = decision else { return Vec::new() };
    let mut said = vec![
        ("approvals", approvals_in_words(&terms.approvals)),
        ("assurance", terms.assurance.as_str().to_owned()),
        ("reason", if terms.reason_required { "required" } else { "optional" }.to_owned()),
        ("waits", super::console::words::duration(terms.expires)),
    ];
    let inside = match terms.in_transaction {
        InTransaction::Wait(limit) => super::console::words::duration(limit.min(terms.expires)),
        InTransaction::Refuse => "refused".to_owned(),
    };
    said.push(("in a transaction", inside));
    for step in &terms.escalate {
        said.push((
            "escalation",
            format!("{} after {}", step.to, super::console::words::duration(step.after)),
        ));
    }
    if terms.defer {
        said.push(("deferred", "fails at once, runs when retried after approval".to_owned()));
    }
    said
}
