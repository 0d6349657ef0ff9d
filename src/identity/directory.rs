//! Everybody who is configured: agents, reviewers, groups, and the proofs they are known by.
//!
//! Immutable; a changed configuration makes another. It cannot be built with two entries that could
//! be one person, or with a reviewer who goes by an agent's name: those would be ways to approve for
//! oneself that no rule could see.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::account::ChatAccount;
use super::agent::{ITERATIONS, ScramVerifier};
use super::certificate::CertificateRule;
use super::secret::SecretHash;
use super::token::TokenRule;
use super::{Demand, Demanded};
use crate::actor::{Agent, AgentName, ChannelName, GroupName, PersonName, Reviewer, ReviewerId, person_key};

/// One agent and what it is checked against: at least one of the three, and not both a password and
/// a token.
#[derive(Clone, Debug)]
pub struct AgentEntry {
    /// The agent.
    pub agent: Arc<Agent>,
    /// What its password is checked against.
    pub verifier: Option<ScramVerifier>,
    /// Which client certificate it has to show.
    pub certificate: Option<CertificateRule>,
    /// What its token has to say.
    pub token: Option<Arc<TokenRule>>,
}

impl AgentEntry {
    /// An agent that has a password and nothing else.
    #[must_use]
    pub fn with_password(agent: Agent, verifier: ScramVerifier) -> Self {
        Self { agent: Arc::new(agent), verifier: Some(verifier), certificate: None, token: None }
    }

    /// Whether `password` is its password. Slow by design.
    #[must_use]
    pub fn has_password(&self, password: &str) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.fits(password))
    }
}

/// One reviewer and the proofs they are known by.
#[derive(Clone, Debug)]
pub struct ReviewerEntry {
    /// The person.
    pub reviewer: Arc<Reviewer>,
    /// Hashes of their personal tokens.
    pub tokens: Vec<SecretHash>,
    /// Their chat accounts.
    pub accounts: Vec<ChatAccount>,
}

impl ReviewerEntry {
    /// Their accounts on one channel.
    pub fn accounts_on(&self, channel: ChannelName) -> impl Iterator<Item = &ChatAccount> {
        self.accounts.iter().filter(move |account| account.channel == channel)
    }
}

/// Two entries that cannot stand side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which of the entries, by their number as given.
    pub entry: Entry,
    /// Why, in lower case.
    pub message: String,
}

/// An entry by its number, as given to [`Directory::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of the agents.
    Agent(usize),
    /// Of the reviewers.
    Reviewer(usize),
}

/// Everybody who is configured.
pub struct Directory {
    agents: BTreeMap<AgentName, AgentEntry>,
    reviewers: BTreeMap<ReviewerId, ReviewerEntry>,
    groups: BTreeMap<GroupName, Vec<Arc<Reviewer>>>,
    secret: zeroize::Zeroizing<[u8; 32]>,
    mock_iterations: u32,
    /// Tokens that were checked against every agent's verifier; see [`Self::is_an_agents`].
    checked: BTreeMap<SecretHash, AtomicBool>,
}

impl Directory {
    /// Builds a directory. `secret` is this installation's own: what unknown agents are answered
    /// with and what sign-in links are signed with are derived from it.
    pub fn new(
        agents: Vec<AgentEntry>,
        reviewers: Vec<ReviewerEntry>,
        secret: [u8; 32],
    ) -> Result<Self, Vec<Conflict>> {
        let conflicts = conflicts(&agents, &reviewers);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut groups: BTreeMap<GroupName, Vec<Arc<Reviewer>>> = BTreeMap::new();
        for entry in &reviewers {
            for group in &entry.reviewer.groups {
                groups.entry(group.clone()).or_default().push(entry.reviewer.clone());
            }
        }
        Ok(Self {
            mock_iterations: usual_iterations(&agents),
            checked: reviewers
                .iter()
                .flat_map(|entry| entry.tokens.iter().map(|token| (*token, AtomicBool::new(false))))
                .collect(),
            agents: agents.into_iter().map(|entry| (entry.agent.name.clone(), entry)).collect(),
            reviewers: reviewers.into_iter().map(|entry| (entry.reviewer.id.clone(), entry)).collect(),
            groups,
            secret: zeroize::Zeroizing::new(secret),
        })
    }

    /// The agent called `name`.
    #[must_use]
    pub fn agent(&self, name: &AgentName) -> Option<&AgentEntry> {
        self.agents.get(name)
    }

    /// Every agent, by name.
    pub fn agents(&self) -> impl Iterator<Item = &AgentEntry> {
        self.agents.values()
    }

    /// The reviewer called `id`.
    #[must_use]
    pub fn reviewer(&self, id: &ReviewerId) -> Option<&ReviewerEntry> {
        self.reviewers.get(id)
    }

    /// Every reviewer, by id.
    pub fn reviewers(&self) -> impl Iterator<Item = &ReviewerEntry> {
        self.reviewers.values()
    }

    /// The people of `group`.
    #[must_use]
    pub fn members(&self, group: &GroupName) -> &[Arc<Reviewer>] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }

    /// Every group that has somebody in it, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &[Arc<Reviewer>])> {
        self.groups.iter().map(|(group, members)| (group, members.as_slice()))
    }

    /// The owners of an agent as configured now.
    #[must_use]
    pub fn owners(&self, agent: &AgentName) -> &[PersonName] {
        self.agents.get(agent).map_or(&[], |entry| &entry.agent.owners)
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Whether a reviewer's token is also some agent's password. It cannot be when both were made
    /// by us; an operator who copied one into the other would let the agent approve for itself.
    /// Found out once for each token, because it takes one SCRAM derivation for each agent.
    pub(super) fn is_an_agents(&self, token: &str) -> bool {
        let checked = self.checked.get(&SecretHash::of(token));
        if checked.is_some_and(|checked| checked.load(Ordering::Acquire)) {
            return false;
        }
        let found = self.agents.values().any(|entry| entry.has_password(token));
        if let Some(checked) = checked
            && !found
        {
            checked.store(true, Ordering::Release);
        }
        found
    }
}

impl super::AgentIdentity for Directory {
    fn demand(&self, name: &str) -> Demand {
        let mock = || Demanded::Password(ScramVerifier::mock(&self.secret, name, self.mock_iterations));
        let Some(entry) = self.agents.get(&AgentName::new(name)) else {
            return Demand { agent: None, certificate: None, secret: mock() };
        };
        let secret = match entry {
            AgentEntry { token: Some(rule), .. } => Demanded::Token(Arc::clone(rule)),
            AgentEntry { verifier: Some(verifier), .. } => Demanded::Password(verifier.clone()),
            AgentEntry { certificate: Some(_), .. } => Demanded::Nothing,
            // The configuration does not have such entries; if one is made, nobody gets in by it.
            AgentEntry { agent: _, verifier: None, certificate: None, token: None } => {
                return Demand { agent: None, certificate: None, secret: mock() };
            }
        };
        Demand { agent: Some(entry.agent.clone()), certificate: entry.certificate.clone(), secret }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory {{ agents: {}, reviewers: {} }}", self.agents.len(), self.reviewers.len())
    }
}

/// The number of iterations that most agents have, so that a mock exchange looks like theirs.
fn usual_iterations(agents: &[AgentEntry]) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for verifier in agents.iter().filter_map(|entry| entry.verifier.as_ref()) {
        *counts.entry(verifier.iterations).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(ITERATIONS, |(iterations, _)| iterations)
}

fn conflicts(agents: &[AgentEntry], reviewers: &[ReviewerEntry]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut agent_names: BTreeMap<String, usize> = BTreeMap::new();
    let agents_as_people: BTreeSet<String> =
        agents.iter().map(|entry| person_key(entry.agent.name.as_str())).collect();
    for (number, entry) in agents.iter().enumerate() {
        let folded = entry.agent.name.as_str().trim().to_lowercase();
        if agent_names.insert(folded, number).is_some() {
            conflicts.push(Conflict {
                entry: Entry::Agent(number),
                message: format!("another agent is called \"{}\", but for case", entry.agent.name),
            });
        }
    }
    let mut people: BTreeMap<String, usize> = BTreeMap::new();
    let mut accounts: BTreeMap<&ChatAccount, usize> = BTreeMap::new();
    let mut tokens: BTreeMap<SecretHash, usize> = BTreeMap::new();
    for (number, entry) in reviewers.iter().enumerate() {
        let mut conflict = |message| conflicts.push(Conflict { entry: Entry::Reviewer(number), message });
        let other = |place: usize| reviewers.get(place).map_or("", |other| other.reviewer.id.as_str());
        let reviewer = &entry.reviewer;
        let names = std::iter::once(reviewer.id.as_str()).chain(reviewer.also.iter().map(PersonName::as_str));
        for name in names {
            let folded = person_key(name);
            if let Some(place) = people.insert(folded.clone(), number)
                && place != number
            {
                conflict(format!(
                    "\"{name}\" is a name of reviewer \"{}\" as well; one person is one reviewer",
                    other(place)
                ));
            }
            if agents_as_people.contains(&folded) {
                conflict(format!("\"{name}\" is the name of an agent; an agent cannot answer requests"));
            }
        }
        for account in &entry.accounts {
            if let Some(place) = accounts.insert(account, number) {
                conflict(format!(
                    "the {} account {} is that of reviewer \"{}\" as well",
                    account.channel.title(),
                    account.user,
                    other(place)
                ));
            }
        }
        for token in &entry.tokens {
            if let Some(place) = tokens.insert(*token, number) {
                conflict(format!("the token is that of reviewer \"{}\" as well", other(place)));
            }
        }
    }
    conflicts
}
