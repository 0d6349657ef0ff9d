//! `countersign agent`: who may connect.
//!
//! The configuration file is edited in place, its comments kept. Secrets are printed once and stored
//! as verifiers only. A running proxy notices the change of the file by itself.
//!
//! Exit codes: 0 done; 1 not done, because the name is taken or unknown, or the file would be wrong;
//! 2 wrong usage or I/O.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal;
use crate::actor::{PersonName, UpstreamName};
use crate::config::edit::Editor;
use crate::config::raw::RawConfig;
use crate::identity::ScramVerifier;
use crate::identity::secret::{Kind, generate};

/// Add, list, change and remove agents
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add an agent and print its token, once
    Add {
        /// Its name, which is also the user name it connects with
        name: String,
        /// The human behind it, who can never approve for it; may be given several times
        #[arg(long, required = true, value_name = "EMAIL")]
        owner: Vec<String>,
        /// An upstream it may ask for; may be given several times
        #[arg(long, required = true, value_name = "NAME")]
        upstream: Vec<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// List the agents
    List(ConfigFile),
    /// Replace an agent's token and print the new one, once; the old token stops working
    Rotate {
        /// Its name
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Block an agent and keep its entry; `rotate` admits it again
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove an agent's entry
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Which configuration, and how to answer.
#[derive(Args)]
pub(super) struct ConfigFile {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "countersign.toml", env = "COUNTERSIGN_CONFIG")]
    pub(super) config: PathBuf,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Add { name, owner, upstream, file } => {
            let token = generate(Kind::Agent);
            let verifier = ScramVerifier::of_password(&token).to_string();
            let done =
                super::edit(&file.config, |editor| editor.add_agent(&name, &owner, &upstream, &verifier));
            with_token(done?, &name, &token, &file)
        }
        Command::Rotate { name, file } => {
            let token = generate(Kind::Agent);
            let verifier = ScramVerifier::of_password(&token).to_string();
            let done = super::edit(&file.config, |editor| editor.rotate_agent(&name, &verifier));
            with_token(done?, &name, &token, &file)
        }
        Command::Revoke { name, file } => {
            let done = super::edit(&file.config, |editor| editor.revoke_agent(&name))?;
            super::report(
                done,
                &file,
                &json!({ "name": name, "revoked": true }),
                &format!("{name} is kept out"),
            )
        }
        Command::Remove { name, file } => {
            let done = super::edit(&file.config, |editor| editor.remove_agent(&name))?;
            super::report(
                done,
                &file,
                &json!({ "name": name, "removed": true }),
                &format!("{name} is removed"),
            )
        }
        Command::List(file) => list(&file),
    }
}

/// Prints the token, once: it is stored nowhere.
fn with_token(
    done: Result<(), ExitCode>,
    name: &str,
    token: &str,
    file: &ConfigFile,
) -> anyhow::Result<ExitCode> {
    if let Err(code) = done {
        return Ok(code);
    }
    let url = read(&file.config).and_then(|config| url(&config, name, token));
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        writeln!(out, "{}", json!({ "name": name, "token": token, "url": url }))?;
    } else {
        writeln!(out, "agent  {name}\ntoken  {token}")?;
        if let Some(url) = url {
            writeln!(out, "url    {url}")?;
        }
        writeln!(out, "\nThe token is not stored and cannot be shown again.")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Option<RawConfig> {
    let text = std::fs::read_to_string(path).ok()?;
    RawConfig::read(&path.display().to_string(), &text).ok()
}

/// The connection string. Names and tokens are of characters that need no escaping in it.
fn url(config: &RawConfig, name: &str, token: &str) -> Option<String> {
    let (agent, _) = config.agents().find(|(agent, _)| agent.name.as_str() == name)?;
    let upstream = agent.upstreams.first()?;
    let (address, tls) = config.address_for_agents();
    let mode = if tls { "require" } else { "disable" };
    Some(format!("postgresql://{name}:{token}@{address}/{upstream}?sslmode={mode}"))
}

fn list(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = match Editor::open(&file.config)?.read() {
        Ok(config) => config,
        Err(problems) => return super::print_problems(&problems, file.json),
    };
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        let agents: Vec<serde_json::Value> = config
            .agents()
            .map(|(agent, revoked)| {
                let owners: Vec<&str> = agent.owners.iter().map(PersonName::as_str).collect();
                let upstreams: Vec<&str> = agent.upstreams.iter().map(UpstreamName::as_str).collect();
                json!({ "name": agent.name.as_str(), "owners": owners, "upstreams": upstreams, "revoked": revoked })
            })
            .collect();
        writeln!(out, "{}", serde_json::Value::Array(agents))?;
    } else {
        for (agent, revoked) in config.agents() {
            let owners: Vec<&str> = agent.owners.iter().map(PersonName::as_str).collect();
            let upstreams: Vec<&str> = agent.upstreams.iter().map(UpstreamName::as_str).collect();
            let revoked = if revoked { "  (revoked)" } else { "" };
            writeln!(
                out,
                "{:<24} {:<16} owned by {}{revoked}",
                agent.name.as_str(),
                upstreams.join(","),
                terminal::line(&owners.join(", "))
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
