//! `countersign policy`: what rules would do, before they do it.
//!
//! Exit codes: 0 all cases passed, nothing found, shown; 1 a case failed, something was found; 2 the
//! files cannot be read or are wrong.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal;
use crate::approval::document::approvals_in_words;
use crate::classify::{Classifier, Limits};
use crate::config::problems::{name_concerns, people_concerns};
use crate::config::raw::RawConfig;
use crate::config::{Concern, load_policy};
use crate::policy::rule::{HoldTerms, Rule, Then, When};
use crate::policy::{Defaults, Policy};
use crate::statement::RuleName;

/// Test, check and show policies
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases that the files carry
    Test(Set),
    /// Find rules that are probably mistakes
    Lint(Set),
    /// Print the rules as loaded, and their digest
    Show {
        #[command(flatten)]
        set: Set,
        /// Print the normal form, which the digest is of
        #[arg(long, conflicts_with = "json")]
        normal: bool,
    },
}

/// Which files make up the set, and what holds beside them.
#[derive(Args)]
struct Set {
    /// Folders with *.toml, or files [default: the configuration's folder, or policies]
    paths: Vec<PathBuf>,
    /// The configuration, for the default reviewers and the names of agents and reviewers
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

struct Loaded {
    policy: Policy,
    config: Option<RawConfig>,
}

impl Set {
    /// Reads the set; what is wrong is printed.
    fn load(&self) -> anyhow::Result<Result<Loaded, ExitCode>> {
        let config = match &self.config {
            None => None,
            Some(path) => match read_config(path) {
                Ok(config) => Some(config),
                Err(problems) => return Ok(Err(super::print_problems(&problems, self.json)?)),
            },
        };
        let defaults = config.as_ref().map_or_else(Defaults::default, |config| config.policy().1.clone());
        let paths = match (&self.config, &config) {
            (Some(path), Some(config)) if self.paths.is_empty() => {
                vec![path.parent().unwrap_or(Path::new("")).join(config.policy().0)]
            }
            _ if self.paths.is_empty() => vec![PathBuf::from("policies")],
            _ => self.paths.clone(),
        };
        match load_policy(&paths, defaults) {
            Ok(policy) => Ok(Ok(Loaded { policy, config })),
            Err(problems) => Ok(Err(super::print_problems(&problems, self.json)?)),
        }
    }
}

fn read_config(path: &Path) -> Result<RawConfig, Vec<crate::toml_reader::Problem>> {
    let text = crate::config::read_text(path)?;
    RawConfig::read(&path.display().to_string(), &text)
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Test(set) => match set.load()? {
            Ok(loaded) => test(&loaded.policy, set.json),
            Err(code) => Ok(code),
        },
        Command::Lint(set) => match set.load()? {
            Ok(loaded) => lint(&loaded, set.json),
            Err(code) => Ok(code),
        },
        Command::Show { set, normal } => match set.load()? {
            Ok(loaded) => show(&loaded.policy, set.json, normal),
            Err(code) => Ok(code),
        },
    }
}

fn test(policy: &Policy, json: bool) -> anyhow::Result<ExitCode> {
    let ran = policy.run_cases(&Classifier::new(Limits::default()));
    let failed = ran.iter().filter(|(_, ran)| !ran.failures.is_empty()).count();
    let passed = ran.len() - failed;
    let mut out = terminal::out(terminal::As::of(json));
    if json {
        let cases: Vec<serde_json::Value> = ran
            .iter()
            .map(|(case, ran)| {
                let rules: Vec<&str> = ran.decision.rules().into_iter().map(RuleName::as_str).collect();
                json!({
                    "file": &*case.file, "line": case.place.line, "name": case.name, "sql": case.sql,
                    "agent": case.agent.as_str(), "class": ran.class.as_str(),
                    "then": ran.decision.then().as_str(), "rules": rules,
                    "passed": ran.failures.is_empty(), "failures": ran.failures,
                })
            })
            .collect();
        let report = json!({ "digest": policy.digest(), "passed": passed, "failed": failed, "cases": cases });
        writeln!(out, "{report}")?;
    } else {
        for (case, ran) in ran.iter().filter(|(_, ran)| !ran.failures.is_empty()) {
            writeln!(out, "FAILED  {}:{}  {case}", case.file, case.place.line)?;
            for line in case.sql.lines() {
                writeln!(out, "          | {line}")?;
            }
            for failure in &ran.failures {
                writeln!(out, "        {failure}")?;
            }
        }
        if ran.is_empty() {
            writeln!(out, "there are no cases: nothing says what these rules are for")?;
        }
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn lint(loaded: &Loaded, json: bool) -> anyhow::Result<ExitCode> {
    let findings = loaded.policy.lint();
    let concerns: Vec<Concern> = loaded.config.as_ref().map_or_else(Vec::new, |config| {
        let targets = config.targets();
        let targets: Vec<_> = targets.iter().collect();
        config.roster().map_or_else(Vec::new, |roster| {
            let mut concerns = people_concerns(&loaded.policy, &roster);
            concerns.extend(name_concerns(&loaded.policy, &roster, &targets));
            concerns
        })
    });
    let found = findings.len() + concerns.len();
    let mut out = terminal::out(terminal::As::of(json));
    if json {
        let findings: Vec<serde_json::Value> = findings
            .iter()
            .map(|found| {
                json!({ "file": &*found.file, "line": found.line, "key": found.key, "message": found.message })
            })
            .chain(concerns.iter().map(|concern| json!({ "about": concern.about, "message": concern.message })))
            .collect();
        writeln!(out, "{}", json!({ "digest": loaded.policy.digest(), "findings": findings }))?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
        for concern in &concerns {
            writeln!(out, "{concern}")?;
        }
        if loaded.config.is_none() {
            writeln!(out, "groups and agents were not checked; give the configuration with -c")?;
        }
        writeln!(out, "{} rules, {found} findings", loaded.policy.rules().len())?;
    }
    Ok(ExitCode::from(u8::from(found > 0)))
}

fn show(policy: &Policy, json: bool, normal: bool) -> anyhow::Result<ExitCode> {
    let mut out = terminal::out(terminal::As::of(json || normal));
    if normal {
        writeln!(out, "{}", policy.normal_form())?;
    } else if json {
        let set: serde_json::Value = serde_json::from_str(&policy.normal_form())?;
        writeln!(out, "{}", json!({ "digest": policy.digest(), "set": set }))?;
    } else {
        write!(out, "{}", render(policy))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The set for a person.
fn render(policy: &Policy) -> String {
    let mut lines = Vec::new();
    for rule in policy.rules() {
        lines.push(format!("{}: {}  ({}:{})", rule.name, rule.then.as_str(), rule.file, rule.place.line));
        lines.extend(conditions(&rule.when).into_iter().map(|line| format!("  when {line}")));
        lines.extend(consequences(rule).into_iter().map(|line| format!("  {line}")));
        lines.push(String::new());
    }
    let defaults = policy.defaults();
    lines.push(format!(
        "without a rule: privileged classes are held for 1 of {}, for {} s",
        defaults.reviewers,
        defaults.expires.as_secs()
    ));
    let declared = policy.declared();
    if !declared.safe_functions().is_empty() {
        lines.push(format!("safe functions: {}", list(declared.safe_functions())));
    }
    if !declared.safe_extensions().is_empty() {
        lines.push(format!("safe extensions: {}", list(declared.safe_extensions())));
    }
    if !declared.safe_settings().is_empty() {
        lines.push(format!("safe settings: {}", list(declared.safe_settings())));
    }
    if !declared.sensitive().is_empty() {
        lines.push(format!("sensitive: {}", list(declared.sensitive())));
    }
    lines.push(format!("digest {}", policy.digest()));
    lines.join("\n") + "\n"
}

fn conditions(when: &When) -> Vec<String> {
    fn one_of<T: ToString>(what: &str, values: Option<&Vec<T>>) -> Option<String> {
        let values: Vec<String> = values?.iter().map(ToString::to_string).collect();
        Some(format!("{what} is {}", values.join(" or ")))
    }
    let mut lines: Vec<String> = [
        one_of("class", when.classes.as_ref()),
        one_of("table", when.tables.as_ref()),
        one_of("agent", when.agents.as_ref()),
        one_of("database", when.databases.as_ref()),
        one_of("upstream", when.upstreams.as_ref()),
        one_of("role", when.roles.as_ref()),
        one_of("a setting that it changes", when.settings.as_ref()),
        one_of("the role that it takes", when.set_roles.as_ref()),
        one_of("time", when.hours.as_ref()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(wanted) = when.in_transaction {
        lines.push(if wanted { "a transaction is open" } else { "no transaction is open" }.to_owned());
    }
    lines
}

/// Names with commas between.
fn list<T: ToString>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn consequences(rule: &Rule) -> Vec<String> {
    match &rule.then {
        Then::Allow => Vec::new(),
        Then::Deny { message } => message.iter().map(|message| format!("saying {message:?}")).collect(),
        Then::Hold(terms) => hold_terms(terms),
    }
}

fn hold_terms(terms: &HoldTerms) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(if terms.approvals.is_empty() {
        "for 1 of the default reviewers".to_owned()
    } else {
        format!("for {}", approvals_in_words(&terms.approvals))
    });
    for (after, to) in &terms.escalate {
        lines.push(format!("after {} s also {to}", after.as_secs()));
    }
    if let Some(expires) = terms.expires {
        lines.push(format!("for at most {} s", expires.as_secs()));
    }
    if let Some(assurance) = terms.assurance {
        lines.push(format!("by {} at least", assurance.as_str()));
    }
    if terms.reason_required {
        lines.push("with a reason".to_owned());
    }
    if let Some(defer) = terms.defer {
        lines.push(if defer { "deferred" } else { "never deferred" }.to_owned());
    }
    lines
}
