//! How actors prove who they are.
//!
//! - [`account`]: chat accounts.
//! - [`agent`]: SCRAM verifiers, and the exchange with unknown agents.
//! - [`certificate`]: client certificates.
//! - [`token`]: signed tokens in place of passwords; [`keys`]: the keys that they are checked with.
//! - [`reviewer`]: personal tokens.
//! - [`link`]: one-time sign-in links.
//! - [`session`]: console sessions.
//! - [`directory`]: everybody who is configured.
//!
//! The invariant this module exists for: an [`AuthenticatedReviewer`] is made here and nowhere else,
//! from a proof that an agent cannot have. The desk takes nothing less, so "an agent's credential can
//! never decide, on any channel" holds for channels that are not written yet.

pub mod account;
pub mod agent;
pub mod certificate;
pub mod directory;
pub mod keys;
pub mod link;
pub mod reviewer;
pub mod secret;
pub mod session;
#[cfg(test)]
mod tests;
pub mod token;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::agent::ScramVerifier;
pub use self::certificate::CertificateRule;
pub use self::directory::{AgentEntry, Directory, ReviewerEntry};
pub use self::keys::KeySources;
pub use self::token::TokenRule;
use crate::actor::{Agent, Assurance, ChannelName, Reviewer};

/// A person who has proved to be a certain reviewer. Made only in this module.
#[derive(Clone, Debug)]
pub struct AuthenticatedReviewer {
    reviewer: Arc<Reviewer>,
    assurance: Assurance,
    channel: ChannelName,
}

impl AuthenticatedReviewer {
    /// Private to this module's children, on purpose.
    fn new(reviewer: Arc<Reviewer>, assurance: Assurance, channel: ChannelName) -> Self {
        Self { reviewer, assurance, channel }
    }

    /// The person.
    #[must_use]
    pub fn reviewer(&self) -> &Arc<Reviewer> {
        &self.reviewer
    }

    /// How sure we are of them.
    #[must_use]
    pub fn assurance(&self) -> Assurance {
        self.assurance
    }

    /// The way they came.
    #[must_use]
    pub fn channel(&self) -> ChannelName {
        self.channel
    }
}

/// Why a proof was not accepted. For the log: the one who offered it is told only that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecognised {
    /// Nobody's, or not of this form.
    #[error("the proof is nobody's")]
    Unknown,
    /// It was good once.
    #[error("the proof has expired")]
    Expired,
    /// It may be used once, and was.
    #[error("the proof was used before")]
    Used,
    /// An agent's credential, which can never decide.
    #[error("the proof is an agent's credential")]
    AgentCredential,
    /// The person is not, or no longer, enrolled.
    #[error("the person is not enrolled")]
    NotEnrolled,
}

/// A way in which reviewers prove who they are.
pub trait ReviewerIdentity {
    /// What they show.
    type Proof<'a>;

    /// Who shows it, among those whom `directory` knows.
    fn recognise(
        &self,
        directory: &Directory,
        proof: Self::Proof<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised>;
}

/// A way in which agents prove who they are.
pub trait AgentIdentity {
    /// What whoever says to be `name` has to show. There always is something: an unknown agent is asked
    /// for a password, in an exchange that takes as long and looks the same as another.
    fn demand(&self, name: &str) -> Demand;
}

/// What an agent has to show: all of it.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The agent; where there is none, the exchange must fail at its end.
    pub agent: Option<Arc<Agent>>,
    /// The client certificate.
    pub certificate: Option<CertificateRule>,
    /// What is asked for over the connection.
    pub secret: Demanded,
}

/// What an agent is asked for over the connection.
#[derive(Clone, Debug)]
pub enum Demanded {
    /// Nothing: its certificate is its proof.
    Nothing,
    /// To know the password behind this verifier.
    Password(ScramVerifier),
    /// A token that this rule accepts.
    Token(Arc<TokenRule>),
}
