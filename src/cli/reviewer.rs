//! `countersign reviewer`: who may answer.
//!
//! Exit codes: 0 done; 1 not done, because the name is taken or unknown, or the file would be wrong;
//! 2 wrong usage or I/O.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::agent::ConfigFile;
use super::terminal;
use crate::actor::ChannelName;
use crate::actor::{GroupName, PersonName, ReviewerId};
use crate::config::Config;
use crate::config::edit::Editor;
use crate::identity::account::ChatAccount;
use crate::identity::link;
use crate::identity::secret::{Kind, SecretHash, generate};

/// Add, list, change and remove reviewers
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a reviewer and print their personal token, once
    Add {
        /// What they are called, usually their e-mail address
        id: String,
        /// A group they answer for; may be given several times
        #[arg(long, required = true, value_name = "GROUP")]
        group: Vec<String>,
        /// Another name of theirs, as agents' owners may be written; may be given several times
        #[arg(long, value_name = "NAME")]
        also: Vec<String>,
        /// Their Slack account
        #[arg(long, value_name = "TEAM:USER", value_parser = slack_account)]
        slack: Option<(String, String)>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// List the reviewers
    List(ConfigFile),
    /// Replace a reviewer's token and print the new one, once; the old token stops working
    Rotate {
        /// What they are called
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a reviewer's entry
    Remove {
        /// What they are called
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print a link that signs a reviewer in to the console: valid once, for ten minutes
    Link {
        /// What they are called
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

fn slack_account(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((team, user)) if team.starts_with('T') && user.starts_with(['U', 'W']) => {
            Ok((team.to_owned(), user.to_owned()))
        }
        Some(_) | None => Err("it is not of the form T0123456:U0123456".to_owned()),
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Add { id, group, also, slack, file } => {
            let token = generate(Kind::Reviewer);
            let hash = SecretHash::of(&token).to_string();
            let slack = slack.iter().map(|(team, user)| ChatAccount {
                channel: ChannelName::Slack,
                team: team.clone(),
                user: user.clone(),
            });
            let accounts: Vec<ChatAccount> = slack.collect();
            let done =
                super::edit(&file.config, |editor| editor.add_reviewer(&id, &also, &group, &accounts, &hash));
            with_token(done?, &id, &token, &file)
        }
        Command::Rotate { id, file } => {
            let token = generate(Kind::Reviewer);
            let hash = SecretHash::of(&token).to_string();
            let done = super::edit(&file.config, |editor| editor.rotate_reviewer(&id, &hash));
            with_token(done?, &id, &token, &file)
        }
        Command::Remove { id, file } => {
            let done = super::edit(&file.config, |editor| editor.remove_reviewer(&id))?;
            super::report(done, &file, &json!({ "id": id, "removed": true }), &format!("{id} is removed"))
        }
        Command::List(file) => list(&file),
        Command::Link { id, file } => sign_in_link(&id, &file),
    }
}

fn with_token(
    done: Result<(), ExitCode>,
    id: &str,
    token: &str,
    file: &ConfigFile,
) -> anyhow::Result<ExitCode> {
    if let Err(code) = done {
        return Ok(code);
    }
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        writeln!(out, "{}", json!({ "id": id, "token": token }))?;
    } else {
        writeln!(out, "reviewer  {id}\ntoken     {token}")?;
        writeln!(out, "\nThe token is not stored and cannot be shown again.")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = match Editor::open(&file.config)?.read() {
        Ok(config) => config,
        Err(problems) => return super::print_problems(&problems, file.json),
    };
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        let reviewers: Vec<serde_json::Value> = config
            .reviewers()
            .map(|entry| {
                let reviewer = &entry.reviewer;
                let also: Vec<&str> = reviewer.also.iter().map(PersonName::as_str).collect();
                let groups: Vec<&str> = reviewer.groups.iter().map(GroupName::as_str).collect();
                let mut json = json!({
                    "id": reviewer.id.as_str(), "also": also, "groups": groups,
                    "tokens": entry.tokens.len(),
                });
                if let Some(fields) = json.as_object_mut() {
                    for channel in ChannelName::WITH_ACCOUNTS {
                        let users: Vec<&str> =
                            entry.accounts_on(channel).map(|account| account.user.as_str()).collect();
                        fields.insert(channel.to_string(), json!(users));
                    }
                }
                json
            })
            .collect();
        writeln!(out, "{}", serde_json::Value::Array(reviewers))?;
    } else {
        for entry in config.reviewers() {
            let groups: Vec<&str> = entry.reviewer.groups.iter().map(GroupName::as_str).collect();
            let mut ways = Vec::new();
            if !entry.tokens.is_empty() {
                ways.push("token");
            }
            ways.extend(entry.accounts.iter().map(|account| account.channel.as_str()));
            writeln!(out, "{:<32} {:<24} {}", entry.reviewer.id.as_str(), groups.join(","), ways.join(","))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a sign-in link. The secret that it is signed with is read from where the server reads it,
/// so this works on the server's machine only.
fn sign_in_link(id: &str, file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = match Config::load(&file.config) {
        Ok(config) => config,
        Err(problems) => return super::print_problems(&problems, file.json),
    };
    let console = config.console.as_ref().context("the configuration has no [console]")?;
    anyhow::ensure!(
        !config.secret_is_temporary,
        "the configuration names no secret_file, so this command and the server have no secret in common"
    );
    let reviewer = ReviewerId::new(id);
    if config.directory.reviewer(&reviewer).is_none() {
        terminal::complain(&format!("countersign: there is no reviewer \"{id}\""));
        return Ok(ExitCode::from(1));
    }
    let secret = link::issue(&config.directory, &reviewer, jiff::Timestamp::now());
    let url = link::url(&console.url, &secret);
    let mut out = terminal::out(terminal::As::of(file.json));
    if file.json {
        writeln!(out, "{}", json!({ "id": id, "url": url.as_str(), "expires_in": link::LIFE.as_secs() }))?;
    } else {
        writeln!(out, "{url}\n\nIt signs {id} in, once, within {} minutes.", link::LIFE.as_secs() / 60)?;
    }
    Ok(ExitCode::SUCCESS)
}
