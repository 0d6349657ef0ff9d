//! What is allowed and yet probably a mistake: groups without people, quorums nobody can reach, files
//! that others can read. For `check` and `policy lint`; nothing here keeps the proxy from starting.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{Config, UpstreamTls};
use crate::actor::{Agent, GroupName, PersonName, Reviewer, may_be_one_person};
use crate::approval::quorum::{self, RequiredGroup};
use crate::identity::Directory;
use crate::policy::rule::Then;
use crate::policy::{Approval, Policy};
use crate::statement::Target;

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Concern {
    /// What it is about: a file, a key, a rule.
    pub about: String,
    /// In one sentence, in lower case.
    pub message: String,
}

impl Concern {
    fn new(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self { about: about.into(), message: message.into() }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.message)
    }
}

impl Config {
    /// What an operator should look at, given the policies in force.
    #[must_use]
    pub fn concerns(&self, policy: &Policy) -> Vec<Concern> {
        let mut concerns = self.own_concerns();
        concerns.extend(people_concerns(policy, &self.directory));
        let targets: Vec<&Target> = self.upstreams.values().map(|upstream| &upstream.target).collect();
        concerns.extend(name_concerns(policy, &self.directory, &targets));
        concerns.sort();
        concerns.dedup();
        concerns
    }

    fn own_concerns(&self) -> Vec<Concern> {
        let mut concerns = Vec::new();
        if self.secret_is_temporary {
            concerns.push(Concern::new(
                "secret_file",
                "is not given: sign-in links cannot be made, and after a restart unknown agents are answered with other salts than before",
            ));
        }
        if self.insecure_plaintext && self.tls.is_none() {
            concerns
                .push(Concern::new("insecure_plaintext", "agents' statements cross the network in clear"));
        }
        if let Some(console) = &self.console
            && !console.listen.ip().is_loopback()
            && console.url.scheme() == "http"
        {
            concerns.push(Concern::new(
                "console.url",
                "is plain http, and the console listens for other machines: tokens and sign-in links cross the network in clear; put a TLS proxy in front and give its https URL",
            ));
        }
        if let Some(console) = &self.console
            && console.url.scheme() == "http"
            && console.url.domain() == Some("localhost")
        {
            concerns.push(Concern::new(
                "console.url",
                "is http://localhost, which is two addresses: another process on this machine can listen on the other one, and browsers would take its pages for the console's; write 127.0.0.1",
            ));
        }
        for upstream in self.upstreams.values() {
            if !upstream.is_local() && matches!(upstream.tls, UpstreamTls::Disable | UpstreamTls::Require) {
                concerns.push(Concern::new(
                    format!("upstream {}", upstream.name),
                    format!(
                        "tls = \"{}\": whoever answers at {} is believed",
                        upstream.tls.as_str(),
                        upstream.host
                    ),
                ));
            }
        }
        if self.ledger.head_files.is_empty() {
            concerns.push(Concern::new(
                "ledger.head_file",
                "is not given: without an anchor outside the ledger, a lost tail or a roll-back cannot be found",
            ));
        }
        let keys = self.upstreams.values().filter_map(|upstream| Some(upstream.client.as_ref()?.1.as_path()));
        let secrets = self.tls.iter().map(|tls| tls.key.as_path()).chain(keys).chain([self.path.as_path()]);
        concerns.extend(secrets.filter_map(readable_by_others));
        for owner in self.directory.agents().flat_map(|entry| &entry.agent.owners) {
            concerns.extend(
                self.directory.reviewers().filter_map(|entry| almost_the_same(owner, &entry.reviewer)),
            );
        }
        let reviewers: Vec<&Reviewer> = self.directory.reviewers().map(|entry| &*entry.reviewer).collect();
        for (place, one) in reviewers.iter().enumerate() {
            let others = reviewers.iter().skip(place + 1);
            concerns.extend(others.filter_map(|other| almost_twice(one, other)));
        }
        concerns
    }
}

/// A key, or the file with the verifiers, that everybody on the machine can read.
fn readable_by_others(path: &Path) -> Option<Concern> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0)
        .then(|| Concern::new(path.display().to_string(), "can be read by everybody on this machine"))
}

/// An owner who is perhaps a reviewer under a name that nobody entered: then nothing would keep them
/// from approving for their own agent.
fn almost_the_same(owner: &PersonName, reviewer: &Reviewer) -> Option<Concern> {
    if reviewer.is(owner) {
        return None;
    }
    let similar = names(reviewer).find(|name| may_be_one_person(owner.as_str(), name))?;
    let (owner, similar) = (plainly(owner.as_str()), plainly(similar));
    Some(Concern::new(
        format!("owner {owner}"),
        format!(
            "looks like reviewer \"{similar}\"; if they are one person, add \"{owner}\" to the reviewer's also = [..]"
        ),
    ))
}

/// Two reviewers who are perhaps one person, whose answers would count twice.
fn almost_twice(one: &Reviewer, other: &Reviewer) -> Option<Concern> {
    let alike = names(one).any(|mine| names(other).any(|theirs| may_be_one_person(mine, theirs)));
    let (one, other) = (plainly(one.id.as_str()), plainly(other.id.as_str()));
    alike.then(|| {
        Concern::new(
            format!("reviewer {one}"),
            format!(
                "looks like reviewer \"{other}\"; one person is one reviewer, with other names in also = [..]"
            ),
        )
    })
}

fn names(reviewer: &Reviewer) -> impl Iterator<Item = &str> {
    std::iter::once(reviewer.id.as_str()).chain(reviewer.also.iter().map(PersonName::as_str))
}

/// A name with its letters spelled out, where some of them may pass for others.
fn plainly(name: &str) -> String {
    if name.is_ascii() { name.to_owned() } else { name.escape_default().to_string() }
}

/// Rules whose quorum cannot be reached: because a group is unknown or too small, or because those in
/// it own the agent.
#[must_use]
pub fn people_concerns(policy: &Policy, directory: &Directory) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let default = Approval { group: policy.defaults().reviewers.clone(), count: 1 };
    let mut asked: Vec<(String, Vec<Approval>, Vec<&Agent>)> =
        vec![("default reviewers".to_owned(), vec![default.clone()], agents(directory, |_| true))];
    for rule in policy.rules() {
        let Then::Hold(terms) = &rule.then else { continue };
        let about = format!("rule {}", rule.name);
        for (_, group) in &terms.escalate {
            if directory.members(group).is_empty() {
                concerns
                    .push(Concern::new(&about, format!("escalates to \"{group}\", which has nobody in it")));
            }
        }
        let approvals =
            if terms.approvals.is_empty() { vec![default.clone()] } else { terms.approvals.clone() };
        let globs = &rule.when.agents;
        let named = |agent: &Agent| {
            globs.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(agent.name.as_str())))
        };
        asked.push((about, approvals, agents(directory, named)));
    }
    for (about, approvals, agents) in asked {
        concerns.extend(unreachable(&about, &approvals, &agents, directory));
    }
    concerns
}

fn agents(directory: &Directory, wanted: impl Fn(&Agent) -> bool) -> Vec<&Agent> {
    directory.agents().map(|entry| &*entry.agent).filter(|agent| wanted(agent)).collect()
}

fn unreachable(
    about: &str,
    approvals: &[Approval],
    agents: &[&Agent],
    directory: &Directory,
) -> Vec<Concern> {
    let required: Vec<RequiredGroup> = approvals
        .iter()
        .map(|asked| RequiredGroup { group: asked.group.clone(), count: asked.count, stand_ins: Vec::new() })
        .collect();
    let people: Vec<Arc<Reviewer>> = directory.reviewers().map(|entry| entry.reviewer.clone()).collect();
    let missing = quorum::missing(&required, &people);
    if !missing.is_empty() {
        let words: Vec<String> = missing
            .iter()
            .map(|asked| lacks(&asked.group, asked.count, directory.members(&asked.group).len()))
            .collect();
        return vec![Concern::new(about, format!("nobody can ever approve: {}", words.join(", ")))];
    }
    agents
        .iter()
        .filter(|agent| {
            let allowed: Vec<Arc<Reviewer>> =
                people.iter().filter(|person| !quorum::is_owner(person, agent, &[])).cloned().collect();
            !quorum::is_met(&required, &allowed)
        })
        .map(|agent| {
            Concern::new(
                about,
                format!(
                    "nobody can approve for agent \"{}\", because too many of those asked own it",
                    agent.name
                ),
            )
        })
        .collect()
}

fn lacks(group: &GroupName, missing: u32, members: usize) -> String {
    match members {
        0 => format!("group \"{group}\" has nobody in it"),
        1 => format!("group \"{group}\" has one person and {missing} more must agree"),
        members => format!("group \"{group}\" has {members} people and {missing} more must agree"),
    }
}

/// Rules that name agents, upstreams, databases or roles that do not exist.
#[must_use]
pub fn name_concerns(policy: &Policy, directory: &Directory, targets: &[&Target]) -> Vec<Concern> {
    let agents: Vec<&str> = directory.agents().map(|entry| entry.agent.name.as_str()).collect();
    let upstreams: Vec<&str> = targets.iter().map(|target| target.upstream.as_str()).collect();
    let databases: Vec<&str> = targets.iter().map(|target| target.database.as_str()).collect();
    let roles: Vec<&str> = targets.iter().map(|target| target.role.as_str()).collect();
    let mut concerns = Vec::new();
    for rule in policy.rules() {
        let about = format!("rule {}", rule.name);
        let when = &rule.when;
        for (what, globs, names) in [
            ("agent", &when.agents, &agents),
            ("upstream", &when.upstreams, &upstreams),
            ("database", &when.databases, &databases),
            ("role", &when.roles, &roles),
        ] {
            for glob in globs.iter().flatten() {
                if !glob.is_any() && !names.iter().any(|name| glob.matches(name)) {
                    concerns.push(Concern::new(&about, format!("no {what} is called \"{glob}\"")));
                }
            }
        }
    }
    concerns
}
