//! `countersign check`: configuration, policies, ledger and upstreams, all problems at once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::terminal;
use super::{reload, serve, unseen};
use crate::classify::{Classifier, Declared, InstalledExtension};
use crate::config::{Config, Limits, Upstream};
use crate::identity::KeySources;
use crate::ledger::key::RootKey;
use crate::proxy::catalogue::{Asking, UpstreamState};
use crate::proxy::upstream::ConnectError;

/// Checks everything that `serve` will need: the configuration, certificates, policies and their
/// cases, the ledger's key, and each upstream with the role we log in as. Lists what statements can set off in its
/// database that no proxy can see.
///
/// Exit code 0: nothing is wrong, though there may be warnings. 2: something is.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Default)]
struct Findings {
    good: Vec<String>,
    warnings: Vec<String>,
    problems: Vec<String>,
    /// What statements can set off there that nobody can tell from their texts.
    unseen: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    match Config::load(&arguments.config) {
        Err(problems) => findings.problems.extend(problems.iter().map(ToString::to_string)),
        Ok(config) => serve::runtime()?.block_on(look(&config, &mut findings)),
    }
    findings.print(arguments.json)?;
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

impl Findings {
    fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            let answer = json!({
                "ok": self.good,
                "warnings": self.warnings,
                "problems": self.problems,
                "unseen": self.unseen,
            });
            terminal::say_json_laid_out(&answer);
            return Ok(());
        }
        let lists = [
            ("ok      ", &self.good),
            ("unseen  ", &self.unseen),
            ("warning ", &self.warnings),
            ("problem ", &self.problems),
        ];
        for (mark, lines) in lists {
            for line in lines {
                terminal::say(&format!("{mark} {}", terminal::line(line)));
            }
        }
        Ok(())
    }
}

async fn look(config: &Config, findings: &mut Findings) {
    let counts =
        (config.upstreams.len(), config.directory.agents().count(), config.directory.reviewers().count());
    findings
        .good
        .push(format!("configuration: {} upstreams, {} agents, {} reviewers", counts.0, counts.1, counts.2));
    match serve::agent_tls(config) {
        Ok(Some(_)) => findings.good.push("TLS towards agents: certificate and key fit".to_owned()),
        Ok(None) => findings
            .warnings
            .push("no TLS towards agents: only agents on this machine can connect".to_owned()),
        Err(error) => findings.problems.push(format!("TLS towards agents: {error:#}")),
    }
    let mut declared = Arc::default();
    match config.load_policy() {
        Err(problems) => findings.problems.extend(problems.iter().map(ToString::to_string)),
        Ok(policy) => {
            let (rules, cases) = (policy.rules().len(), policy.cases().len());
            declared = Arc::clone(policy.declared());
            findings.warnings.extend(config.concerns(&policy).iter().map(ToString::to_string));
            let classifier = Classifier::new(config.limits.classify());
            match reload::passing(&classifier, policy) {
                Ok(_) => findings.good.push(format!("policies: {rules} rules, {cases} cases pass")),
                Err(failed) => {
                    findings.problems.extend(failed.iter().map(|failed| format!("policies: {failed}")))
                }
            }
        }
    }
    look_at_issuers(config, findings).await;
    look_at_ledger(config, findings);
    for upstream in config.upstreams.values() {
        look_at_upstream(config, upstream, &declared, findings).await;
    }
}

/// Whether the keys are there that agents' tokens are checked with.
async fn look_at_issuers(config: &Config, findings: &mut Findings) {
    let sources = KeySources::default();
    for entry in config.directory.agents() {
        let Some(rule) = &entry.token else { continue };
        let name = &entry.agent.name;
        match sources.keys(&rule.keys, |_| true).await {
            Err(error) => findings.problems.push(format!("agent \"{name}\": {error}")),
            Ok(keys) if keys.is_empty() => findings
                .problems
                .push(format!("agent \"{name}\": none of the keys from {} can be used", rule.keys)),
            Ok(keys) => findings.good.push(format!("agent \"{name}\": {} keys of its issuer", keys.len())),
        }
    }
}

fn look_at_ledger(config: &Config, findings: &mut Findings) {
    let settings = config.ledger_settings();
    match RootKey::load(&settings.key_files()) {
        Ok(key) => {
            findings.good.push(format!("ledger: {} (origin {})", settings.path.display(), key.origin()))
        }
        Err(error) => findings.problems.push(format!("ledger: {error}")),
    }
    if settings.heads.is_empty() {
        findings.warnings.push(
            "ledger: no head_file; without an anchor elsewhere nobody can tell when its end is cut off"
                .to_owned(),
        );
    }
}

/// What our role may do that no proxy can see, and so should not be able to.
const ROLE: &str = "
SELECT CASE WHEN r.rolsuper THEN 'is a superuser' END, CASE WHEN r.rolbypassrls THEN 'bypasses row-level security' END,
 CASE WHEN r.rolcreaterole THEN 'may create roles' END, CASE WHEN r.rolreplication THEN 'may replicate' END,
 (SELECT string_agg('is a member of ' || m.rolname, ', ' ORDER BY m.rolname) FROM pg_catalog.pg_roles m
  WHERE m.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_read_all_data',
   'pg_write_all_data', 'pg_signal_backend', 'pg_checkpoint', 'pg_maintain', 'pg_create_subscription')
  AND NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER'))
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

/// How many sessions of our role the server has room for: its own limit and what it keeps back, and the
/// limits of the role and the database (-1 is none).
const ROOM: &str = "
SELECT pg_catalog.current_setting('max_connections'), pg_catalog.current_setting('superuser_reserved_connections'),
 COALESCE(pg_catalog.current_setting('reserved_connections', true), '0'), r.rolconnlimit::text, d.datconnlimit::text, r.rolsuper::text
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
WHERE r.rolname OPERATOR(pg_catalog.=) current_user AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

async fn look_at_upstream(
    config: &Config,
    upstream: &Upstream,
    declared: &Arc<Declared>,
    findings: &mut Findings,
) {
    let name = &upstream.name;
    let state = match serve::state(upstream, Arc::clone(declared)) {
        Ok(state) => state,
        Err(error) => {
            findings.problems.push(format!("upstream \"{name}\": {error:#}"));
            return;
        }
    };
    match UpstreamState::known(&state).await {
        Err(error) => findings
            .problems
            .push(format!("upstream \"{name}\" at {}:{}: {error}", upstream.host, upstream.port)),
        Ok(known) => {
            let role = &upstream.target.role;
            findings.good.push(format!(
                "upstream \"{name}\": PostgreSQL {}, logged in as {role}",
                known.server_version
            ));
            let guards = known.catalogue.guards();
            findings.good.extend(guards.iter().map(|(guard, value)| {
                format!(
                    "upstream \"{name}\": {guard} = {value} for {role}; agents may tighten it{}",
                    timer_and_holds(guard)
                )
            }));
            if guards.timeout("transaction_timeout").is_some() {
                findings.warnings.push(format!(
                    "upstream \"{name}\": transaction_timeout ends transactions of {role}; a statement that is held in one expires before that"
                ));
            }
            if !(14..=18).contains(&known.server_version) {
                findings.warnings.push(format!(
                    "upstream \"{name}\": PostgreSQL {} is not one of 14 to 18, which the function lists are made from",
                    known.server_version
                ));
            }
            let extensions = known.catalogue.extensions().filter_map(|extension| trust(&extension));
            findings.good.extend(extensions.map(|line| format!("upstream \"{name}\": {line}")));
            look_at_room(config, upstream, &state, findings).await;
            match powers(&state).await {
                Err(error) => findings
                    .warnings
                    .push(format!("upstream \"{name}\": the role cannot be looked at: {error}")),
                Ok((powers, unseen)) => {
                    findings.warnings.extend(powers.into_iter().map(|power| {
                        format!("upstream \"{name}\": {role} {power}; give agents a role of their own without that (see docs/operations.md)")
                    }));
                    findings
                        .unseen
                        .extend(unseen.into_iter().map(|line| format!("upstream \"{name}\": {line}")));
                }
            }
        }
    }
}

/// What trust in an extension means or would mean; nothing of one that brings no functions to call.
fn trust(extension: &InstalledExtension<'_>) -> Option<String> {
    let InstalledExtension { name, version, covered, excluded, trusted, reach } = *extension;
    if covered + excluded == 0 || name == "plpgsql" {
        return None;
    }
    let but = match excluded {
        0 => String::new(),
        some => format!(
            "; {some} others run as their owner, or may write by statements that nobody sees, and stay held"
        ),
    };
    Some(match (trusted, reach) {
        (_, Some(reach)) => format!(
            "extension {name} {version} {reach}: it cannot be trusted as a whole, its functions are held one by one"
        ),
        (true, None) => format!(
            "extension {name} {version} is trusted: calls of its {covered} functions, and its operators, pass as reads{but}"
        ),
        (false, None) => format!(
            "extension {name} {version} is not trusted: each call of its {covered} functions or operators is held; safe_extensions = [\"{name}\"] in the policy would let them pass as reads{but}"
        ),
    })
}

/// What a timer of the server means for statements that are held.
fn timer_and_holds(guard: &str) -> &'static str {
    match guard {
        "idle_in_transaction_session_timeout" | "idle_session_timeout" => {
            ", and a session whose statement is held is kept awake past it"
        }
        _ => "",
    }
}

/// Whether the server has room for as many sessions as the configuration lets in.
async fn look_at_room(config: &Config, upstream: &Upstream, state: &UpstreamState, findings: &mut Findings) {
    let name = &upstream.name;
    let asked = async {
        let mut asking = Asking::begin(&state.upstream, "check").await?;
        let rows = asking.ask(ROOM).await?;
        asking.leave().await;
        Ok::<_, ConnectError>(rows)
    };
    let room = match asked.await {
        Ok(rows) => Room::read(&rows),
        Err(error) => {
            findings
                .warnings
                .push(format!("upstream \"{name}\": its limits of connections cannot be read: {error}"));
            return;
        }
    };
    let Some(room) = room else {
        findings.warnings.push(format!("upstream \"{name}\": its limits of connections make no sense"));
        return;
    };
    let agents = config.directory.agents().filter(|entry| entry.agent.upstreams.contains(name)).count();
    findings.good.push(format!("upstream \"{name}\": room for {} sessions ({})", room.sessions, room.why));
    findings.warnings.extend(
        room.concern(&config.limits, agents).map(|concern| format!("upstream \"{name}\": {concern}")),
    );
}

/// How many sessions of agents a server has room for, and what says so.
struct Room {
    sessions: usize,
    why: String,
}

impl Room {
    fn read(rows: &[Vec<Option<String>>]) -> Option<Self> {
        let row = rows.first()?;
        let text = |place: usize| row.get(place)?.as_deref();
        let number = |place: usize| text(place)?.parse::<i64>().ok();
        let (most, role, database) = (number(0)?, number(3)?, number(4)?);
        let kept_back = if text(5)? == "true" { 0 } else { number(1)? + number(2)? };
        let mut why = format!("max_connections {most}, of which {kept_back} are reserved");
        let mut room = most - kept_back;
        for (limit, whose) in [(role, "role"), (database, "database")] {
            if limit >= 0 {
                room = room.min(limit);
                why.push_str(&format!(", CONNECTION LIMIT {limit} of the {whose}"));
            }
        }
        why.push_str(", one for reading the catalogue");
        Some(Self { sessions: usize::try_from(room - 1).unwrap_or(0), why })
    }

    /// What is to be said of the configured limits, for so many agents.
    fn concern(&self, limits: &Limits, agents: usize) -> Option<String> {
        let room = self.sessions;
        let each = limits.sessions_per_agent;
        let all = limits.sessions.min(each.saturating_mul(agents));
        if each.min(limits.sessions) >= room {
            Some(format!(
                "one agent may have {each} sessions ([limits] sessions_per_agent) and take all {room} that there is room for; lower sessions_per_agent, or raise the server's limits"
            ))
        } else if all > room {
            Some(format!(
                "its {agents} agents may have {all} sessions together ([limits] sessions {}, sessions_per_agent {each}), and there is room for {room}; lower the limits, or raise the server's",
                limits.sessions
            ))
        } else {
            None
        }
    }
}

/// What our role may do, and what hides in its database.
async fn powers(state: &UpstreamState) -> Result<(Vec<String>, Vec<String>), ConnectError> {
    let mut asking = Asking::begin(&state.upstream, "check").await?;
    let rows = asking.ask(ROLE).await?;
    let unseen = unseen::list(&mut asking).await?;
    asking.leave().await;
    Ok((rows.into_iter().flatten().flatten().collect(), unseen))
}
