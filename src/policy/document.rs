//! The file format: TOML with `[[rule]]` and `[[case]]`, described in `docs/policy.md`.
//!
//! What is written here is checked as hard as it can be without running anything: unknown keys,
//! unknown words, keys that mean nothing beside others. A rule that is not what its author meant is
//! the one mistake that nobody notices until it is too late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cases::{Case, Expect, ExpectedThen};
use super::hours::Hours;
use super::rule::{HoldTerms, Rule, Then, When};
use super::{Approval, Assurance, InTransaction, PolicyError};
use crate::actor::{AgentName, GroupName};
use crate::classify::pattern::{Glob, TablePattern};
use crate::classify::{Declared, SensitiveName, StatementClass, reach_of};
use crate::statement::RuleName;
use crate::toml_reader::{self, At, Problem, Problems, Table, is_near, parse_duration};

/// The name that stands for "no rule" where a rule is named.
pub const DEFAULT_RULE: &str = "default";
/// The most people that a rule may ask of one group.
const MOST_PEOPLE: u64 = 16;

/// What the files of a set say together.
#[derive(Default)]
pub(super) struct Set {
    /// Sorted by name.
    pub(super) rules: Vec<Rule>,
    pub(super) cases: Vec<Case>,
    pub(super) declared: Declared,
}

/// Reads all files of a set.
pub(super) fn read(files: &[(String, String)]) -> Result<Set, Vec<PolicyError>> {
    let mut problems = Vec::new();
    let (mut rules, mut cases) = (Vec::new(), Vec::new());
    let mut declared = Lists::default();
    for (file, text) in files {
        match toml_reader::read(file, text, |root, problems| Some(read_file(file, root, problems))) {
            Ok(its) => {
                rules.extend(its.rules);
                cases.extend(its.cases);
                declared.functions.extend(its.declared.functions);
                declared.extensions.extend(its.declared.extensions);
                declared.settings.extend(its.declared.settings);
                declared.sensitive.extend(its.declared.sensitive);
            }
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(repeated_names(&rules));
    if problems.is_empty() {
        problems.extend(cases.iter().filter_map(|case| unknown_rule(case, &rules)));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Set { rules, cases, declared: declared.into() })
}

/// What one file says.
struct File {
    rules: Vec<Rule>,
    cases: Vec<Case>,
    declared: Lists,
}

/// What a file declares of the database.
#[derive(Default)]
struct Lists {
    functions: Vec<TablePattern>,
    extensions: Vec<String>,
    settings: Vec<Glob>,
    sensitive: Vec<SensitiveName>,
}

impl From<Lists> for Declared {
    fn from(lists: Lists) -> Self {
        Self::default()
            .with_safe_functions(lists.functions)
            .with_safe_extensions(lists.extensions)
            .with_safe_settings(lists.settings)
            .with_sensitive(lists.sensitive)
    }
}

fn read_file(file: &str, root: &Table<'_>, problems: &Problems) -> File {
    let file: Arc<str> = file.into();
    let declared = Lists {
        functions: read_list(root, "safe_functions", problems, read_safe_function).unwrap_or_default(),
        extensions: read_list(root, "safe_extensions", problems, read_safe_extension).unwrap_or_default(),
        settings: read_list(root, "safe_settings", problems, read_safe_setting).unwrap_or_default(),
        sensitive: read_list(root, "sensitive", problems, SensitiveName::parse).unwrap_or_default(),
    };
    let rules = root.tables("rule", |table| read_rule(&file, table, problems));
    let cases = root.tables("case", |table| read_case(&file, table, problems));
    File {
        rules: rules.into_iter().flatten().collect(),
        cases: cases.into_iter().flatten().collect(),
        declared,
    }
}

/// Functions whose calls are reads, because the operator says so. What Postgres has built in is known for
/// what it is, and no file makes it harmless.
fn read_safe_function(text: &str) -> Result<TablePattern, String> {
    let form = || {
        format!(
            "\"{text}\" is not of the form \"schema.function\", \"schema.prefix_*\" or \"schema.*\", without arguments"
        )
    };
    if text.contains(['(', ')']) {
        return Err(form());
    }
    let pattern = TablePattern::parse(text).map_err(|_| form())?;
    if ["pg_catalog", "information_schema"].iter().any(|own| pattern.schema.matches(own)) {
        return Err(format!("\"{text}\": what is built in cannot be declared safe"));
    }
    Ok(pattern)
}

/// An extension whose functions are safe.
fn read_safe_extension(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['*', '"', '.']) || text.contains(char::is_whitespace) {
        return Err(format!(
            "\"{text}\" is not the name of an extension, such as \"vector\" or \"uuid-ossp\"; patterns are not taken, so that each is a decision"
        ));
    }
    match reach_of(text) {
        Some(reach) => Err(format!(
            "the extension \"{text}\" {reach}, so it cannot be trusted as a whole; name single functions of it in safe_functions"
        )),
        None => Ok(text.to_owned()),
    }
}

/// A custom setting that may be changed to anything.
fn read_safe_setting(text: &str) -> Result<Glob, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(format!(
            "\"{text}\" is not the name of a setting, such as \"app.tenant_id\" or \"app.*\""
        ));
    }
    let Some((class, _)) = text.split_once('.') else {
        return Err(format!(
            "\"{text}\": only settings with a dot in their name can be declared safe, such as \"app.*\"; a setting of the server itself can be allowed by a rule with class = [\"settings\"] and setting = [\"{text}\"]"
        ));
    };
    if class.is_empty() {
        return Err(format!("\"{text}\" has nothing before its dot"));
    }
    Ok(Glob::new(&text.to_ascii_lowercase()))
}

fn repeated_names(rules: &[Rule]) -> Vec<PolicyError> {
    let mut first: BTreeMap<&RuleName, &Rule> = BTreeMap::new();
    let mut problems = Vec::new();
    for rule in rules {
        match first.get(&rule.name) {
            None => {
                first.insert(&rule.name, rule);
            }
            Some(other) => problems.push(Problem {
                file: rule.file.clone(),
                line: rule.place.line,
                key: format!("{}.name", rule.place.key),
                message: format!(
                    "a rule called \"{}\" stands in {}:{} already",
                    rule.name, other.file, other.place.line
                ),
            }),
        }
    }
    problems
}

fn unknown_rule(case: &Case, rules: &[Rule]) -> Option<PolicyError> {
    let name = case.expect.rule.as_ref()?;
    let known = name.as_str() == DEFAULT_RULE || rules.iter().any(|rule| rule.name == *name);
    (!known).then(|| Problem {
        file: case.file.clone(),
        line: case.place.line,
        key: format!("{}.expect.rule", case.place.key),
        message: format!("there is no rule called \"{name}\""),
    })
}

fn read_rule(file: &Arc<str>, table: &Table<'_>, problems: &Problems) -> Option<Rule> {
    let name = table.required_text("name");
    if let Some(At { value, .. }) = &name
        && value == DEFAULT_RULE
    {
        table.problem("name", format!("\"{DEFAULT_RULE}\" stands for no rule; choose another name"));
    }
    table.text("description");
    let when = table.table("when", |when| read_when(when, problems)).unwrap_or_default();
    let then = table.required_text("then");
    let hold = read_hold(table, problems);
    let message = table.text("message").map(|at| at.value);
    let then = match then?.value.as_str() {
        "allow" => Then::Allow,
        "hold" => Then::Hold(hold.clone()),
        "deny" => Then::Deny { message: message.clone() },
        other => {
            table.problem("then", format!("\"{other}\" is not \"allow\", \"hold\" or \"deny\""));
            return None;
        }
    };
    if !matches!(then, Then::Hold(_)) {
        for key in ["approvals", "reason", "assurance", "expires", "escalate", "hold_in_transaction", "defer"]
        {
            if table.has(key) {
                table.problem(key, format!("means nothing in a rule that says \"{}\"", then.as_str()));
            }
        }
    }
    if message.is_some() && !matches!(then, Then::Deny { .. }) {
        table.problem("message", "is told to the agent by a rule that says \"deny\"; here it means nothing");
    }
    if then == Then::Allow {
        check_allow(table, &when);
    }
    Some(Rule {
        name: RuleName::new(name?.value),
        when,
        then,
        file: file.clone(),
        place: table.place().clone(),
    })
}

/// What an allow must not say.
fn check_allow(table: &Table<'_>, when: &When) {
    let Some(classes) = &when.classes else { return };
    if classes.contains(&StatementClass::Invalid) {
        table.problem(
            "when",
            "a text that is no SQL cannot be allowed: nobody knows what upstream would make of it",
        );
    }
    let Some(class) = classes.iter().filter(|class| class.is_opaque()).min() else { return };
    let unseen = [
        (when.tables.is_some(), "which tables", "touches", "table"),
        (when.settings.is_some(), "which settings", "changes", "setting"),
        (when.set_roles.is_some(), "which role", "takes", "set_role"),
    ];
    for (_, what, does, key) in unseen.into_iter().filter(|(given, ..)| *given) {
        table.problem(
            "when",
            format!("{what} a statement of class \"{class}\" {does} cannot be seen, so it cannot be allowed by {key}"),
        );
    }
}

fn read_when(when: &Table<'_>, problems: &Problems) -> When {
    When {
        classes: read_list(when, "class", problems, read_class),
        tables: read_list(when, "table", problems, TablePattern::parse),
        agents: read_list(when, "agent", problems, read_glob),
        databases: read_list(when, "database", problems, read_glob),
        upstreams: read_list(when, "upstream", problems, read_glob),
        roles: read_list(when, "role", problems, read_glob),
        settings: read_list(when, "setting", problems, read_setting),
        set_roles: read_list(when, "set_role", problems, read_glob),
        hours: read_list(when, "hours", problems, Hours::parse),
        in_transaction: when.boolean("in_transaction"),
    }
}

fn read_list<T>(
    table: &Table<'_>,
    key: &'static str,
    problems: &Problems,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let texts = table.texts(key)?;
    if texts.is_empty() {
        table.problem(key, "is empty, so the rule would never match; leave it out to match everything");
    }
    let mut values = Vec::with_capacity(texts.len());
    for At { value, place } in texts {
        match read(&value) {
            Ok(value) => values.push(value),
            Err(message) => problems.add(&place, message),
        }
    }
    Some(values)
}

fn read_class(name: &str) -> Result<StatementClass, String> {
    StatementClass::from_name(name).ok_or_else(|| {
        let names = StatementClass::ALL.map(StatementClass::as_str);
        match names.into_iter().find(|known| is_near(known, name)) {
            Some(near) => format!("unknown class \"{name}\"; did you mean \"{near}\"?"),
            None => format!("unknown class \"{name}\"; known classes are {}", names.join(", ")),
        }
    })
}

fn read_glob(text: &str) -> Result<Glob, String> {
    if text.is_empty() {
        return Err("an empty name never matches".to_owned());
    }
    Ok(Glob::new(text))
}

/// A pattern for settings, whose names know no case.
fn read_setting(text: &str) -> Result<Glob, String> {
    read_glob(&text.to_ascii_lowercase())
}

fn read_hold(table: &Table<'_>, problems: &Problems) -> HoldTerms {
    let approvals: Vec<Approval> = table.tables("approvals", read_approval).into_iter().flatten().collect();
    if table.has("approvals") && approvals.is_empty() {
        table.problem("approvals", "asks nobody; leave it out to ask the default reviewers");
    }
    for (place, approval) in approvals.iter().enumerate() {
        if approvals.iter().take(place).any(|other| other.group == approval.group) {
            table.problem("approvals", format!("names the group \"{}\" twice; use count", approval.group));
        }
    }
    let expires = table.duration("expires");
    if expires.is_some_and(|expires| expires < Duration::from_secs(1)) {
        table.problem("expires", "is shorter than a second");
    }
    let escalate: Vec<(Duration, GroupName)> =
        table.tables("escalate", read_escalation).into_iter().flatten().collect();
    if let Some(expires) = expires
        && escalate.iter().any(|(after, _)| *after >= expires)
    {
        table.problem("escalate", "has a step that comes after the request has expired");
    }
    let reason_required = match table.text("reason") {
        None => false,
        Some(at) => match at.value.as_str() {
            "required" => true,
            "optional" => false,
            other => {
                problems.add(&at.place, format!("\"{other}\" is not \"required\" or \"optional\""));
                false
            }
        },
    };
    HoldTerms {
        approvals,
        reason_required,
        assurance: table.text("assurance").and_then(|at| match at.value.as_str() {
            "click" => Some(Assurance::Click),
            "login" => Some(Assurance::Login),
            // The ledger's format has a place for it, but nothing here can make one.
            "signature" => {
                problems.add(
                    &at.place,
                    "\"signature\" is not supported: no channel can take a reviewer's signature, so nobody could ever approve; write \"login\"",
                );
                None
            }
            other => {
                problems.add(&at.place, format!("\"{other}\" is not \"click\" or \"login\""));
                None
            }
        }),
        expires,
        in_transaction: table.text("hold_in_transaction").and_then(|at| match at.value.as_str() {
            "refuse" => Some(InTransaction::Refuse),
            text => match parse_duration(text) {
                Some(limit) => Some(InTransaction::Wait(limit)),
                None => {
                    problems.add(
                        &at.place,
                        format!("\"{text}\" is not \"refuse\" or a length of time such as \"2m\""),
                    );
                    None
                }
            },
        }),
        escalate,
        defer: table.boolean("defer"),
    }
}

fn read_approval(table: &Table<'_>) -> Option<Approval> {
    let group = table.required_text("group");
    let count = if table.has("count") { table.integer("count", 1, MOST_PEOPLE) } else { Some(1) };
    Some(Approval { group: GroupName::new(group?.value), count: u32::try_from(count?).ok()? })
}

fn read_escalation(table: &Table<'_>) -> Option<(Duration, GroupName)> {
    if !table.has("after") {
        table.problem("after", "is missing");
    }
    let after = table.duration("after");
    let to = table.required_text("to");
    Some((after?, GroupName::new(to?.value)))
}

fn read_case(file: &Arc<str>, table: &Table<'_>, problems: &Problems) -> Option<Case> {
    let sql = table.required_text("sql");
    let name = table.text("name").map(|at| at.value);
    let text = |key, default: &str| table.text(key).map_or_else(|| default.to_owned(), |at| at.value);
    let search_path = table.texts("search_path").map(|path| path.into_iter().map(|at| at.value).collect());
    let at = table.text("at").and_then(|at| match at.value.parse() {
        Ok(moment) => Some(moment),
        Err(_) => {
            problems.add(&at.place, "is not a moment such as \"2026-01-05T10:00:00Z\"");
            None
        }
    });
    let server_version = table.integer("server_version", 14, 18);
    let agent = AgentName::new(text("agent", "agent"));
    let upstream = text("upstream", "app");
    let database = text("database", "app");
    let role = text("role", "app");
    let in_transaction = table.boolean("in_transaction").unwrap_or(false);
    let defer = table.boolean("defer").unwrap_or(false);
    let expect = table.table("expect", |expect| read_expect(expect, problems));
    if expect.is_none() && !table.has("expect") {
        table.problem("expect", "is missing");
    }
    Some(Case {
        file: file.clone(),
        place: table.place().clone(),
        name,
        sql: sql?.value,
        agent,
        upstream: upstream.as_str().into(),
        database: database.as_str().into(),
        role: role.as_str().into(),
        search_path,
        in_transaction,
        defer,
        at,
        server_version: server_version.and_then(|version| u32::try_from(version).ok()),
        expect: expect??,
    })
}

fn read_expect(table: &Table<'_>, problems: &Problems) -> Option<Expect> {
    let then = table.required_text("then").and_then(|at| {
        let then = ExpectedThen::from_name(&at.value);
        if then.is_none() {
            problems.add(
                &at.place,
                format!("\"{}\" is not \"allow\", \"hold\", \"deny\" or \"refuse\"", at.value),
            );
        }
        then
    });
    let rule = table.text("rule").map(|at| RuleName::new(at.value));
    let class = table.text("class").and_then(|at| match read_class(&at.value) {
        Ok(class) => Some(class),
        Err(message) => {
            problems.add(&at.place, message);
            None
        }
    });
    let groups =
        table.texts("groups").map(|groups| groups.into_iter().map(|at| GroupName::new(at.value)).collect());
    Some(Expect { then: then?, rule, class, groups })
}
