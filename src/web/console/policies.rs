//! The policy set in force, its cases, and a box to try statements in.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::page::{Answer, Frame, Place, Posted, SignedIn, render};
use super::requests::tier;
use super::words::duration;
use crate::approval::Shown;
use crate::approval::document::approvals_in_words;
use crate::classify::StatementClass;
use crate::policy::rule::{HoldTerms, Then, When};
use crate::policy::{Case, Defaults, InTransaction, Policy, Rule};
use crate::web::Web;
use crate::web::caller::Browser;
use crate::web::what_if::{Question, WhatIf, what_if as ask};

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    frame: Frame,
    digest: String,
    defaults: Vec<(&'static str, String)>,
    rules: Vec<RuleView>,
    cases: Vec<CaseView>,
    agents: Vec<String>,
    upstreams: Vec<String>,
    asked: Asked,
    answer: Option<WhatIf>,
    answer_tier: &'static str,
    /// Why the question cannot be answered.
    refused: Option<String>,
}

struct RuleView {
    name: String,
    then: &'static str,
    place: String,
    when: Vec<(&'static str, Vec<String>)>,
    terms: Vec<(&'static str, String)>,
}

struct CaseView {
    name: String,
    sql: String,
    agent: String,
    expect: String,
    place: String,
}

/// What the form was sent with, to be shown in it again.
#[derive(Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    sql: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    upstream: String,
    #[serde(default)]
    search_path: String,
    /// A checkbox: there when it is ticked.
    in_transaction: Option<String>,
}

pub(super) async fn page(State(web): State<Web>, SignedIn(browser): SignedIn) -> Answer {
    Ok(show(&web, &browser, Asked::default(), None))
}

pub(super) async fn what_if(State(web): State<Web>, Posted(browser, asked): Posted<Asked>) -> Answer {
    let question = Question {
        // A form sends line breaks as CR LF, whatever was typed.
        sql: asked.sql.replace("\r\n", "\n"),
        agent: Some(asked.agent.clone()),
        upstream: Some(asked.upstream.clone()),
        search_path: Some(asked.search_path.clone()),
        in_transaction: asked.in_transaction.is_some(),
        defer: false,
    };
    let answer = ask(&*web.0.views.policy, &web.0.directory.load(), &question, web.now());
    Ok(show(&web, &browser, asked, Some(answer.map_err(|error| error.to_string()))))
}

fn show(web: &Web, browser: &Browser, asked: Asked, answer: Option<Result<WhatIf, String>>) -> Response {
    let policy = web.0.views.policy.policy();
    let (answer, refused) = match answer {
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(refused)) => (None, Some(refused)),
        None => (None, None),
    };
    let status = if refused.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let class = answer.as_ref().and_then(|answer| StatementClass::from_name(answer.class));
    let page = PoliciesPage {
        frame: Frame::new(web, browser, Place::Policies, "Policies"),
        digest: policy.digest().to_string(),
        defaults: defaults(policy.defaults()),
        rules: policy.rules().iter().map(|rule| rule_view(rule, &policy)).collect(),
        cases: policy.cases().iter().map(case_view).collect(),
        agents: web.0.directory.load().agents().map(|entry| entry.agent.name.to_string()).collect(),
        upstreams: web.0.views.policy.targets().iter().map(|target| target.upstream.to_string()).collect(),
        answer_tier: class.map_or("low", tier),
        asked,
        answer,
        refused,
    };
    render(status, &page)
}

fn defaults(defaults: &Defaults) -> Vec<(&'static str, String)> {
    vec![
        ("reviewers", defaults.reviewers.to_string()),
        ("waits", duration(defaults.expires)),
        ("in a transaction", in_transaction(defaults.in_transaction)),
    ]
}

fn in_transaction(value: InTransaction) -> String {
    match value {
        InTransaction::Wait(limit) => format!("waits {}", duration(limit)),
        InTransaction::Refuse => "refused".to_owned(),
    }
}

fn rule_view(rule: &Rule, policy: &Policy) -> RuleView {
    RuleView {
        name: rule.name.to_string(),
        then: rule.then.as_str(),
        place: format!("{}:{}", rule.file, rule.place.line),
        when: conditions(&rule.when),
        terms: match &rule.then {
            Then::Allow => Vec::new(),
            Then::Hold(terms) => hold_terms(terms, policy.defaults()),
            Then::Deny { message } => {
                message.iter().map(|message| ("tells the agent", Shown::line(message).to_string())).collect()
            }
        },
    }
}

fn conditions(when: &When) -> Vec<(&'static str, Vec<String>)> {
    fn texts<T: ToString>(values: &Option<Vec<T>>) -> Option<Vec<String>> {
        values.as_ref().map(|values| values.iter().map(ToString::to_string).collect())
    }
    let inside = when.in_transaction.map(|inside| vec![if inside { "yes" } else { "no" }.to_owned()]);
    [
        ("class", texts(&when.classes)),
        ("table", texts(&when.tables)),
        ("agent", texts(&when.agents)),
        ("upstream", texts(&when.upstreams)),
        ("database", texts(&when.databases)),
        ("role", texts(&when.roles)),
        ("hours", texts(&when.hours)),
        ("in a transaction", inside),
    ]
    .into_iter()
    .filter_map(|(what, values)| Some((what, values?)))
    .collect()
}

fn hold_terms(terms: &HoldTerms, defaults: &Defaults) -> Vec<(&'static str, String)> {
    let approvals = match terms.approvals.as_slice() {
        [] => format!("1 of {}", defaults.reviewers),
        approvals => approvals_in_words(approvals),
    };
    let mut said = vec![("asks", approvals)];
    if let Some(assurance) = terms.assurance {
        said.push(("assurance", assurance.as_str().to_owned()));
    }
    if terms.reason_required {
        said.push(("reason", "required".to_owned()));
    }
    if let Some(expires) = terms.expires {
        said.push(("waits", duration(expires)));
    }
    if let Some(value) = terms.in_transaction {
        said.push(("in a transaction", in_transaction(value)));
    }
    for (after, to) in &terms.escalate {
        said.push(("escalates", format!("to {to} after {}", duration(*after))));
    }
    match terms.defer {
        Some(true) => said.push(("deferred", "always".to_owned())),
        Some(false) => said.push(("deferred", "never".to_owned())),
        None => {}
    }
    said
}

fn case_view(case: &Case) -> CaseView {
    let rule = case.expect.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let class = case.expect.class.map(|class| format!(" as {class}")).unwrap_or_default();
    CaseView {
        name: case.name.clone().unwrap_or_default(),
        sql: Shown::of(&case.sql).to_string(),
        agent: case.agent.to_string(),
        expect: format!("{}{class}{rule}", case.expect.then.as_str()),
        place: format!("{}:{}", case.file, case.place.line),
    }
}
