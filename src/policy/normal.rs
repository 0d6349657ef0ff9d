//! A policy set in one spelling, and its digest.
//!
//! Two sets that decide alike because they differ only in comments, file names, the order of rules
//! or of lists, or in leaving defaults out or writing them down, have one normal form. It is JSON:
//!
//! ```text
//! {"defaults":{..},"safe_functions":[..],"safe_extensions":[..],"safe_settings":[..],"sensitive":[..],"rules":[{"name":..,"when":{..},"then":..,..}, ..]}
//! ```
//!
//! with keys in the order below, rules sorted by name, lists sorted, times in milliseconds, and no
//! blanks; `safe_extensions`, `safe_settings` and `sensitive` are left out where they are empty. Cases are no part of it: they test a set and decide nothing. The digest is
//!
//! ```text
//! SHA-256("countersign/policy/v1" 0x00 || normal form)
//! ```
//!
//! and `countersign policy show --normal` prints the form, so that anybody can compute it again.

use serde::Serialize;

use super::rule::{HoldTerms, Rule, Then, When};
use super::{Approval, Defaults, InTransaction, Policy};
use crate::classify::Declared;
use crate::statement::Digest;

#[derive(Serialize)]
struct NormalSet<'a> {
    defaults: NormalDefaults<'a>,
    safe_functions: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    safe_extensions: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    safe_settings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sensitive: Vec<String>,
    rules: Vec<NormalRule<'a>>,
}

#[derive(Serialize)]
struct NormalDefaults<'a> {
    reviewers: &'a str,
    expires_ms: u128,
    hold_in_transaction: String,
}

#[derive(Serialize)]
struct NormalRule<'a> {
    name: &'a str,
    when: NormalWhen,
    then: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<NormalHold>,
}

#[derive(Serialize)]
struct NormalWhen {
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    setting: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_role: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_transaction: Option<bool>,
}

#[derive(Serialize)]
struct NormalHold {
    approvals: Vec<Approval>,
    reason_required: bool,
    assurance: &'static str,
    expires_ms: u128,
    hold_in_transaction: String,
    escalate: Vec<(u128, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    defer: Option<bool>,
}

impl Policy {
    /// The normal form, as one line of JSON.
    #[must_use]
    pub fn normal_form(&self) -> String {
        form(&self.rules, &self.declared, &self.defaults)
    }
}

/// The digest of a set in its normal form.
pub(super) fn digest(form: &str) -> Digest {
    Digest::of(&[b"countersign/policy/v1\0", form.as_bytes()].concat())
}

/// The normal form. `rules` are sorted by name, what is declared by itself.
pub(super) fn form(rules: &[Rule], declared: &Declared, defaults: &Defaults) -> String {
    let set = NormalSet {
        safe_functions: sorted(declared.safe_functions()),
        safe_extensions: declared.safe_extensions(),
        safe_settings: sorted(declared.safe_settings()),
        sensitive: declared.sensitive().iter().map(ToString::to_string).collect(),
        defaults: NormalDefaults {
            reviewers: defaults.reviewers.as_str(),
            expires_ms: defaults.expires.as_millis(),
            hold_in_transaction: in_transaction(defaults.in_transaction),
        },
        rules: rules.iter().map(|rule| normal_rule(rule, defaults)).collect(),
    };
    #[expect(clippy::expect_used, reason = "strings, numbers and lists of them: JSON can say it all")]
    let form = serde_json::to_string(&set).expect("a normal form is JSON");
    form
}

fn normal_rule<'a>(rule: &'a Rule, defaults: &Defaults) -> NormalRule<'a> {
    let (message, hold) = match &rule.then {
        Then::Allow => (None, None),
        Then::Deny { message } => (message.as_deref(), None),
        Then::Hold(terms) => (None, Some(normal_hold(terms, defaults))),
    };
    NormalRule {
        name: rule.name.as_str(),
        when: normal_when(&rule.when),
        then: rule.then.as_str(),
        message,
        hold,
    }
}

fn normal_when(when: &When) -> NormalWhen {
    NormalWhen {
        class: when.classes.as_deref().map(sorted),
        table: when.tables.as_deref().map(sorted),
        agent: when.agents.as_deref().map(sorted),
        database: when.databases.as_deref().map(sorted),
        upstream: when.upstreams.as_deref().map(sorted),
        role: when.roles.as_deref().map(sorted),
        setting: when.settings.as_deref().map(sorted),
        set_role: when.set_roles.as_deref().map(sorted),
        hours: when.hours.as_deref().map(sorted),
        in_transaction: when.in_transaction,
    }
}

fn normal_hold(terms: &HoldTerms, defaults: &Defaults) -> NormalHold {
    let mut approvals = terms.approvals.clone();
    if approvals.is_empty() {
        approvals.push(Approval { group: defaults.reviewers.clone(), count: 1 });
    }
    approvals.sort_by(|a, b| a.group.cmp(&b.group));
    let mut escalate: Vec<(u128, String)> =
        terms.escalate.iter().map(|(after, to)| (after.as_millis(), to.to_string())).collect();
    escalate.sort();
    NormalHold {
        approvals,
        reason_required: terms.reason_required,
        assurance: terms.assurance.unwrap_or(super::Assurance::Click).as_str(),
        expires_ms: terms.expires.unwrap_or(defaults.expires).as_millis(),
        hold_in_transaction: in_transaction(terms.in_transaction.unwrap_or(defaults.in_transaction)),
        escalate,
        defer: terms.defer,
    }
}

fn sorted<T: ToString>(values: &[T]) -> Vec<String> {
    let mut texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts
}

fn in_transaction(value: InTransaction) -> String {
    match value {
        InTransaction::Wait(limit) => format!("{}ms", limit.as_millis()),
        InTransaction::Refuse => "refuse".to_owned(),
    }
}
