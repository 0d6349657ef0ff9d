//! Rules that cannot be what their author meant.
//!
//! Nothing here changes a decision; a set with findings works. What is found is what can be told from
//! the rules alone: whether there are people to ask is the configuration's to say.

use std::sync::Arc;

use super::rule::{HoldTerms, Rule, Then, When};
use super::{Policy, Problem};
use crate::classify::StatementClass;

impl Policy {
    /// What looks wrong, by file and line.
    #[must_use]
    pub fn lint(&self) -> Vec<Problem> {
        let mut findings: Vec<Problem> = Vec::new();
        for rule in &self.rules {
            let mut find = |key: &str, message: String| {
                findings.push(Problem {
                    file: Arc::clone(&rule.file),
                    line: rule.place.line,
                    key: format!("{}{key}", rule.place.key),
                    message: format!("rule \"{}\" {message}", rule.name),
                });
            };
            if let Some(message) = self.overruled(rule) {
                find("", message);
            }
            for (key, message) in never_matches(&rule.when) {
                find(key, message);
            }
            match &rule.then {
                Then::Allow => {
                    allow_findings(&rule.when).into_iter().for_each(|message| find(".when", message))
                }
                Then::Hold(terms) => {
                    if rule.when.classes.is_none() {
                        find(".when", "names no class, so it holds reading, too".to_owned());
                    }
                    for message in hold_findings(terms) {
                        find(".escalate", message);
                    }
                }
                Then::Deny { .. } => {
                    if is_everything(&rule.when) {
                        find(".when", "names nothing, so it denies every statement".to_owned());
                    }
                }
            }
        }
        findings.sort();
        findings
    }

    /// Why a rule never has an effect: another one speaks of everything that it speaks of, and
    /// weighs more.
    fn overruled(&self, rule: &Rule) -> Option<String> {
        let stronger = self.rules.iter().filter(|other| weight(&other.then) > weight(&rule.then));
        stronger
            .filter(|other| covers(&other.when, &rule.when))
            .map(|other| {
                let same = covers(&rule.when, &other.when);
                let relation = if same { "contradicts" } else { "has no effect beside" };
                format!(
                    "{relation} rule \"{}\", which says \"{}\" to {} ({}:{})",
                    other.name,
                    other.then.as_str(),
                    if same { "the same statements" } else { "all of its statements" },
                    other.file,
                    other.place.line
                )
            })
            .next()
    }
}

fn weight(then: &Then) -> u8 {
    match then {
        Then::Allow => 0,
        Then::Hold(_) => 1,
        Then::Deny { .. } => 2,
    }
}

/// Whether everything that `small` speaks of, `large` surely speaks of as well.
fn covers(large: &When, small: &When) -> bool {
    let globs = |large: &Option<Vec<crate::classify::pattern::Glob>>,
                 small: &Option<Vec<crate::classify::pattern::Glob>>| {
        subset(large, small, |large, small| large.covers(small))
    };
    subset(&large.classes, &small.classes, |large, small| large == small)
        && subset(&large.tables, &small.tables, |large, small| large.covers(small))
        && globs(&large.agents, &small.agents)
        && globs(&large.databases, &small.databases)
        && globs(&large.upstreams, &small.upstreams)
        && globs(&large.roles, &small.roles)
        && globs(&large.settings, &small.settings)
        && globs(&large.set_roles, &small.set_roles)
        && subset(&large.hours, &small.hours, |large, small| large == small || large.is_always())
        && large.in_transaction.is_none_or(|wanted| small.in_transaction == Some(wanted))
}

/// Whether each of `small` is covered by one of `large`. A condition that is not given is everything.
fn subset<T>(large: &Option<Vec<T>>, small: &Option<Vec<T>>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (large, small) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(large), Some(small)) => small.iter().all(|one| large.iter().any(|other| covers(other, one))),
    }
}

fn is_everything(when: &When) -> bool {
    covers(when, &When::default())
}

fn never_matches(when: &When) -> Vec<(&'static str, String)> {
    let mut findings = Vec::new();
    if let (Some(classes), Some(_)) = (&when.classes, &when.tables)
        && !classes.iter().any(|class| class.names_tables())
    {
        findings.push((".when", "never matches: statements of these classes name no table".to_owned()));
    }
    let only =
        |class| when.classes.as_ref().is_some_and(|classes| classes.iter().all(|known| *known == class));
    if only(StatementClass::Identity) && when.roles.is_some() && when.set_roles.is_none() {
        findings.push((
            ".when.role",
            "names the role that the proxy logs in with; the role that a statement takes is set_role"
                .to_owned(),
        ));
    }
    for pattern in when.tables.iter().flatten() {
        let text = pattern.to_string();
        if text.contains(|c: char| c.is_uppercase()) {
            findings.push((
                ".when.table",
                format!("names \"{text}\"; Postgres keeps unquoted names in lower case, so this matches only names that were created in double quotes"),
            ));
        }
    }
    findings
}

fn allow_findings(when: &When) -> Vec<String> {
    let mut findings = Vec::new();
    let privileged = when.classes.iter().flatten().any(|class| class.is_privileged());
    if !privileged {
        findings.push(
            "allows nothing that would not run anyway; to allow what is held by default, name the class"
                .to_owned(),
        );
    }
    let everybody =
        when.agents.as_ref().is_none_or(|agents| agents.iter().any(crate::classify::pattern::Glob::is_any));
    if everybody && let Some(class) = when.classes.iter().flatten().find(|class| class.is_sweeping()) {
        findings.push(format!(
            "allows class \"{class}\" to every agent; who may do that may do everything, so name the agents"
        ));
    }
    findings
}

fn hold_findings(terms: &HoldTerms) -> Vec<String> {
    terms
        .escalate
        .iter()
        .filter(|(_, to)| {
            !terms.approvals.is_empty() && terms.approvals.iter().all(|asked| asked.group == *to)
        })
        .map(|(_, to)| format!("escalates to \"{to}\", which is asked from the beginning"))
        .collect()
}
