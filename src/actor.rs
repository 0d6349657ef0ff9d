//! Who: the agents that ask, the people who answer, and the names they go by.
//!
//! Everything here is a value. How somebody *proved* to be one of these is `identity`'s business;
//! what they may do is `policy`'s and `approval`'s.

mod person;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::person::{may_be_one_person, person_key};
use crate::secrets;

/// Declares a newtype over `Arc<str>`: cheap to clone, impossible to mix up with another name.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps `name` as it is; nothing is folded or trimmed.
            #[must_use]
            pub fn new(name: impl AsRef<str>) -> Self {
                Self(Arc::from(name.as_ref()))
            }

            /// The name as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}
pub(crate) use name_type;

name_type! {
    /// The name of an agent, which is also the user name it connects with.
    AgentName
}
name_type! {
    /// A person who may answer requests, as the operator enrolled them (usually an e-mail address).
    ReviewerId
}
name_type! {
    /// A person as some directory names them: an owner's e-mail address, a reviewer's other address.
    PersonName
}
name_type! {
    /// A group of reviewers that a rule can ask (`dba`, `security`, ..).
    GroupName
}
name_type! {
    /// A Postgres role: the user name that the proxy logs in with upstream.
    RoleName
}
name_type! {
    /// The operator's name for one upstream; agents ask for it as the database name.
    UpstreamName
}
name_type! {
    /// A database on an upstream server.
    DatabaseName
}

impl PersonName {
    /// Whether two names denote the same person, see [`person_key`].
    #[must_use]
    pub fn same_person(&self, other: &str) -> bool {
        // Most names are written alike, and lists of requests compare many of them.
        self.as_str() == other || person_key(self.as_str()) == person_key(other)
    }
}

/// An agent as the operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The name it connects with.
    pub name: AgentName,
    /// The humans behind it. None of them can approve for it.
    pub owners: Vec<PersonName>,
    /// The upstreams it may ask for.
    pub upstreams: Vec<UpstreamName>,
}

/// A reviewer as the operator enrolled them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewer {
    /// The id that verdicts are counted under, whatever channel they came through.
    pub id: ReviewerId,
    /// Other names of the same person: what an agent's `owner` may call them.
    pub also: Vec<PersonName>,
    /// The groups this person answers for.
    pub groups: Vec<GroupName>,
}

impl Reviewer {
    /// Whether `name` is this person under any of their names.
    #[must_use]
    pub fn is(&self, name: &PersonName) -> bool {
        name.same_person(self.id.as_str()) || self.also.iter().any(|other| other.same_person(name.as_str()))
    }
}

/// How an agent proved who it is. Recorded with every statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationMethod {
    /// SCRAM-SHA-256 (RFC 7677) against a stored verifier.
    ScramSha256,
    /// The same, bound to the TLS channel (`SCRAM-SHA-256-PLUS`, RFC 5929 `tls-server-end-point`).
    ScramSha256Plus,
    /// A client certificate that the TLS handshake verified.
    Certificate,
    /// A signed token (JWT) sent as the password under TLS.
    Jwt,
}

impl AuthenticationMethod {
    /// The stable spelling that the ledger and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::ScramSha256Plus => "scram-sha-256-plus",
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
        }
    }
}

/// How sure we must be of a reviewer, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// An enrolled chat account or a personal token.
    Click,
    /// A console session with a recent sign-in.
    Login,
}

impl Assurance {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Click => "click",
            Self::Login => "login",
        }
    }
}

/// The way an answer came in. An account on a channel is never a person: people are reviewers, and
/// one person answering on two channels is one voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelName {
    /// A button in Slack.
    Slack,
    /// The web console.
    Console,
    /// The REST API, which the command line uses too.
    Api,
}

impl ChannelName {
    /// The channels on which reviewers answer from chat accounts that they are enrolled with.
    pub const WITH_ACCOUNTS: [Self; 1] = [Self::Slack];

    /// The stable spelling that the ledger and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Console => "console",
            Self::Api => "api",
        }
    }

    /// The name as people write it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Console => "Console",
            Self::Api => "API",
        }
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is said about the run that an agent is on. The same fields exist twice on a session:
/// once **claimed** (the agent's own words) and once **verified** (from a signed token).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The model that drives the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
    /// The version of the agent's software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// The run, conversation or trace this belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Arc<str>>,
    /// The task the agent was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Arc<str>>,
    /// Why it needs the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Arc<str>>,
}

impl Claims {
    /// The longest claim that is kept, in bytes; the rest is cut at a character boundary.
    pub const LONGEST: usize = 1024;

    /// Sets the claim `countersign.<name>`; `false` when there is no such claim.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let slot = match name {
            "model" => &mut self.model,
            "version" => &mut self.version,
            "run" => &mut self.run,
            "task" => &mut self.task,
            "purpose" => &mut self.purpose,
            _ => return false,
        };
        // An agent that tells its task may tell a password with it; nobody has to see that.
        let hidden = secrets::prose::without_secrets(value);
        let value = hidden.as_deref().unwrap_or(value);
        let mut end = value.len().min(Self::LONGEST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        *slot = value.get(..end).filter(|kept| !kept.is_empty()).map(Arc::from);
        true
    }

    /// Every claim that is set, by name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("model", &self.model),
            ("version", &self.version),
            ("run", &self.run),
            ("task", &self.task),
            ("purpose", &self.purpose),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }

    /// Whether nothing is claimed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Who is at the other end of a session, as far as it was proved. Fixed at start-up, but for the
/// claims that `SET countersign.*` may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The agent, as configured when the session began.
    pub agent: Arc<Agent>,
    /// How it proved to be that agent.
    pub method: AuthenticationMethod,
    /// Where it connected from, without the port (`203.0.113.7`, `[unix]`).
    pub client_address: Arc<str>,
    /// SHA-256 of the client certificate (DER), when it showed one.
    pub certificate_fingerprint: Option<[u8; 32]>,
    /// Claims of a verified token.
    pub verified: Claims,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_recognised_under_every_name_and_any_case() {
        let bob = Reviewer {
            id: "bob@example.com".into(),
            also: vec!["robert@corp.example".into()],
            groups: vec!["dba".into()],
        };

        assert!(bob.is(&"Bob@Example.com ".into()));
        assert!(bob.is(&"ROBERT@corp.example".into()));
        assert!(bob.is(&"\u{ff42}ob@example.com".into()), "full width");
        assert!(PersonName::from("jose\u{301}@x").same_person("JOS\u{c9}@X"), "composed and decomposed");
        assert!(bob.is(&"mailto:bob+db@example.com".into()));
        assert!(!bob.is(&"alice@example.com".into()));
    }

    #[test]
    fn a_claim_that_is_too_long_is_cut_between_characters() {
        let mut claims = Claims::default();

        assert!(claims.set("purpose", &"é".repeat(2000)));
        assert!(!claims.set("colour", "red"));

        assert_eq!(claims.purpose.unwrap().len(), Claims::LONGEST);
    }
}
