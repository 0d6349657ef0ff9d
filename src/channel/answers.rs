//! The way back: what a channel hands in when somebody answered on it.
//!
//! A channel knows accounts, not people. It says which account answered, what was put before it, and
//! what it said; whose account that is, and whether the answer counts, is found out on the other
//! side of this trait. The desk implements it, and so the channels need not know the desk.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::actor::ReviewerId;
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Review, Verdict, VerdictError};
use crate::policy::Approval;
use crate::statement::{Digest, RequestId};

/// An account in a chat workspace, as the chat service itself told it over a connection that it
/// authenticated. Names and e-mail addresses are no part of it: people can change them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    /// The workspace (`T0..`).
    pub team: String,
    /// The user in it (`U0..`).
    pub user: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.team, self.user)
    }
}

/// What an account said to a request.
#[derive(Clone, Debug)]
pub struct AccountAnswer {
    /// Who, as far as the channel knows.
    pub account: Account,
    /// The request whose card they answered.
    pub request: RequestId,
    /// What they said.
    pub verdict: Verdict,
    /// Digest of the statement on that card.
    pub digest: Digest,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When the card was put before their eyes.
    pub displayed_at: Option<Timestamp>,
}

/// How a request stands, as its card should tell.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What it is about.
    pub request: Arc<Request>,
    /// How it stands.
    pub state: HoldState,
    /// The answers that counted.
    pub reviews: Vec<Review>,
    /// Who is still missing.
    pub missing: Vec<Approval>,
    /// Who may still approve.
    pub may_approve: Vec<ReviewerId>,
    /// Identical requests that wait behind it.
    pub behind: usize,
    /// What the approved statement did.
    pub receipt: Option<ReceiptJson>,
}

/// Takes in answers. None of the methods waits for anything but the ledger.
pub trait Answers: Send + Sync {
    /// Whose account it is, if it is an enrolled reviewer's.
    fn whose(&self, account: &Account) -> Option<ReviewerId>;

    /// The accounts of this channel that are enrolled.
    fn enrolled(&self) -> Vec<Account>;

    /// Gives an answer. It counts when this returns `Ok`, and is in the ledger then.
    fn answer(&self, answer: &AccountAnswer) -> Result<HoldState, VerdictError>;

    /// Writes down that an answer was turned away before it came to the desk, and why. An account
    /// that is nobody's is recorded as the account that it is.
    fn turned_away(&self, answer: &AccountAnswer, why: &str);

    /// How a request stands; `None` when nothing is remembered of it.
    fn standing(&self, request: RequestId) -> Option<Standing>;

    /// The time by which deadlines are judged.
    fn now(&self) -> Timestamp;
}
