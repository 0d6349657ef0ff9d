//! Answers that come in from chat accounts: recognised by [`identity`](crate::identity), given to
//! the desk.
//!
//! A channel knows accounts, not people. It says which account answered, which card it was shown,
//! and the answer. Every channel with chat accounts uses [`AccountAnswers`].
//!
//! A refused answer leaves an entry in the ledger, but the same refusal of the same account only once
//! in ten minutes: otherwise whoever can press a button in a channel could fill the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::actor::{ChannelName, Reviewer, ReviewerId};
use crate::approval::{HoldState, Verdict, VerdictError};
use crate::desk::{Answer, Desk, RefusedAnswer, RequestView};
use crate::identity::account::{ChatAccount, ChatAccounts};
use crate::identity::{AuthenticatedReviewer, NotRecognised, ReviewerIdentity as _};
use crate::statement::{Digest, RequestId};

/// The answer of an account to a request.
#[derive(Clone, Debug)]
pub struct AccountAnswer {
    /// The account that answered.
    pub account: ChatAccount,
    /// The request whose card they answered.
    pub request: RequestId,
    /// The answer.
    pub verdict: Verdict,
    /// Digest of the statement on that card.
    pub digest: Digest,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When the card was shown.
    pub displayed_at: Option<Timestamp>,
}

/// Takes in the answers of one channel's accounts. No method waits for anything but the ledger.
pub struct AccountAnswers {
    desk: Desk,
    channel: ChannelName,
    /// Which refusals were recorded, and when last.
    refused: Mutex<BTreeMap<Refusal, Timestamp>>,
}

/// Who was refused, at which request, with which verdict, and why.
type Refusal = (ChatAccount, RequestId, &'static str, String);

/// How soon the same refusal is recorded again.
const RECORD_AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How many refusals are remembered for that.
const REMEMBERED: usize = 4_096;

impl AccountAnswers {
    /// Takes in the answers that come over `channel` to `desk`.
    #[must_use]
    pub fn new(desk: Desk, channel: ChannelName) -> Self {
        Self { desk, channel, refused: Mutex::default() }
    }

    /// The reviewer who is enrolled with an account.
    #[must_use]
    pub fn reviewer_of(&self, account: &ChatAccount) -> Option<ReviewerId> {
        self.recognise(account).ok().map(|known| known.reviewer().id.clone())
    }

    /// The accounts of this channel that are enrolled.
    #[must_use]
    pub fn enrolled(&self) -> Vec<ChatAccount> {
        let directory = self.desk.directory();
        let accounts = directory.reviewers().flat_map(|entry| &entry.accounts);
        accounts.filter(|account| account.channel == self.channel).cloned().collect()
    }

    /// Gives an answer. It counts when this returns `Ok`, and is in the ledger then.
    pub fn answer(&self, answer: &AccountAnswer) -> Result<HoldState, VerdictError> {
        let by = self.recognise(&answer.account).map_err(|_| {
            self.record_refused(answer, "the account is not that of an enrolled reviewer");
            VerdictError::NotEnrolled
        })?;
        let AccountAnswer { request, verdict, digest, reason, displayed_at, .. } = answer.clone();
        self.desk
            .verdict(request, verdict, Answer { by, digest, reason, displayed_at })
            .map(|verdicted| verdicted.state)
    }

    /// Records that an answer was refused before it came to the desk, and why.
    pub fn record_refused(&self, answer: &AccountAnswer, why: &str) {
        tracing::warn!(request = %answer.request, account = %answer.account, verdict = answer.verdict.as_str(), why, "an answer was refused");
        if !self.is_new_refusal(answer, why) {
            return;
        }
        self.desk.record_refused(RefusedAnswer {
            request: answer.request,
            by: self.person(&answer.account),
            channel: self.channel,
            verdict: answer.verdict,
            digest: answer.digest,
            reason: answer.reason.clone(),
            displayed_at: answer.displayed_at,
            why: why.to_owned(),
        });
    }

    /// The state of a request; `None` when nothing is remembered of it.
    #[must_use]
    pub fn view(&self, request: RequestId) -> Option<RequestView> {
        self.desk.request(&request.0.to_string())
    }

    /// The time by which deadlines are judged.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }

    fn recognise(&self, account: &ChatAccount) -> Result<AuthenticatedReviewer, NotRecognised> {
        ChatAccounts.recognise(&self.desk.directory(), account, self.desk.now())
    }

    /// The reviewer of an account. An account that nobody is enrolled with stands for itself, under
    /// an id that no reviewer can be enrolled with by accident.
    fn person(&self, account: &ChatAccount) -> Arc<Reviewer> {
        let enrolled = self.recognise(account).map(|known| known.reviewer().clone());
        enrolled.unwrap_or_else(|_| {
            let id = ReviewerId::new(format!("{}:{account}", self.channel));
            Arc::new(Reviewer { id, also: Vec::new(), groups: Vec::new() })
        })
    }

    /// Whether this refusal was not recorded a short while ago.
    fn is_new_refusal(&self, answer: &AccountAnswer, why: &str) -> bool {
        let now = self.desk.now();
        let key = (answer.account.clone(), answer.request, answer.verdict.as_str(), why.to_owned());
        let mut refused = self.refused.lock();
        let is_recent = |at: &Timestamp| now.duration_since(*at) < RECORD_AGAIN;
        if refused.get(&key).is_some_and(is_recent) {
            return false;
        }
        if refused.len() >= REMEMBERED {
            refused.retain(|_, at| is_recent(at));
        }
        // Thousands of fresh refusals are an attack, and the ledger has enough of it.
        if refused.len() >= REMEMBERED {
            return false;
        }
        refused.insert(key, now);
        true
    }
}
