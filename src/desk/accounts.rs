//! Answers that come in from chat accounts: recognised by identity, given to the desk.
//!
//! A refused answer leaves an entry, but the same refusal of the same account only once in a while:
//! otherwise whoever can press a button in a channel could fill the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::{Answer, Desk};
use crate::actor::{Assurance, ChannelName, Reviewer, ReviewerId};
use crate::approval::{HoldState, VerdictError};
use crate::channel::answers::{Account, AccountAnswer, Answers, Standing};
use crate::identity::reviewer::{SlackAccounts, SlackProof};
use crate::identity::{Directory, ReviewerIdentity as _};
use crate::ledger::{Event, ReviewRecord};
use crate::statement::RequestId;

/// The desk as Slack sees it.
pub struct SlackAnswers {
    desk: Desk,
    /// What was written down, and when last.
    refused: Mutex<BTreeMap<Refused, Timestamp>>,
}

/// Who was refused, at which request, with which verdict, and why.
type Refused = (Account, RequestId, &'static str, String);

/// How soon the same refusal is written down again.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How many refusals are remembered for that.
const REMEMBERED: usize = 4_096;

impl SlackAnswers {
    /// Takes in answers for `desk`.
    #[must_use]
    pub fn new(desk: Desk) -> Self {
        Self { desk, refused: Mutex::default() }
    }

    fn with_directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        look(&self.desk.0.directory.load())
    }

    /// Whose account it is; an account that is nobody's stands for itself, under an id that no
    /// reviewer can be enrolled with by accident.
    fn person(&self, account: &Account) -> Arc<Reviewer> {
        let enrolled = self.whose(account).and_then(|id| {
            self.with_directory(|directory| directory.reviewer(&id).map(|entry| entry.reviewer.clone()))
        });
        enrolled.unwrap_or_else(|| {
            let id = ReviewerId::new(format!("slack:{account}"));
            Arc::new(Reviewer { id, also: Vec::new(), groups: Vec::new() })
        })
    }

    /// Whether this refusal was not written down a short while ago.
    fn is_news(&self, answer: &AccountAnswer, why: &str) -> bool {
        let now = self.desk.now();
        let key = (answer.account.clone(), answer.request, answer.verdict.as_str(), why.to_owned());
        let mut refused = self.refused.lock();
        let recent = |at: &Timestamp| now.duration_since(*at) < AGAIN;
        if refused.get(&key).is_some_and(recent) {
            return false;
        }
        if refused.len() >= REMEMBERED {
            refused.retain(|_, at| recent(at));
        }
        // Still full of fresh ones: somebody is at work. Enough of it is in the ledger.
        if refused.len() >= REMEMBERED {
            return false;
        }
        refused.insert(key, now);
        true
    }
}

impl Answers for SlackAnswers {
    fn whose(&self, account: &Account) -> Option<ReviewerId> {
        let proof = SlackProof { team: &account.team, user: &account.user };
        self.with_directory(|directory| SlackAccounts.recognise(directory, proof, self.desk.now()))
            .ok()
            .map(|known| known.reviewer().id.clone())
    }

    fn enrolled(&self) -> Vec<Account> {
        self.with_directory(|directory| {
            let accounts = directory.reviewers().flat_map(|entry| &entry.slack);
            accounts
                .map(|account| Account { team: account.team.clone(), user: account.user.clone() })
                .collect()
        })
    }

    fn answer(&self, answer: &AccountAnswer) -> Result<HoldState, VerdictError> {
        let proof = SlackProof { team: &answer.account.team, user: &answer.account.user };
        let by = self
            .with_directory(|directory| SlackAccounts.recognise(directory, proof, self.desk.now()))
            .map_err(|_| {
                self.turned_away(answer, "the account is not that of an enrolled reviewer");
                VerdictError::NotEnrolled
            })?;
        let AccountAnswer { request, verdict, digest, reason, displayed_at, .. } = answer.clone();
        self.desk
            .verdict(request, verdict, Answer { by, digest, reason, displayed_at })
            .map(|verdicted| verdicted.state)
    }

    fn turned_away(&self, answer: &AccountAnswer, why: &str) {
        tracing::warn!(request = %answer.request, account = %answer.account, verdict = answer.verdict.as_str(), why, "an answer was turned away");
        if !self.is_news(answer, why) {
            return;
        }
        let (displayed_at, quick) = self.desk.measure(answer.request, answer.displayed_at);
        let record = ReviewRecord {
            request: answer.request,
            reviewer: self.person(&answer.account),
            verdict: answer.verdict,
            channel: ChannelName::Slack,
            assurance: Assurance::Click,
            digest: answer.digest,
            reason: answer.reason.clone(),
            displayed_at,
            quick,
            not_counted: Some(why.to_owned()),
            signature: None,
        };
        if let Err(unrecorded) = self.desk.0.recorder.append(Event::Review(Box::new(record))) {
            tracing::error!(request = %answer.request, %unrecorded, "a refused answer is not in the ledger");
        }
    }

    fn standing(&self, request: RequestId) -> Option<Standing> {
        let view = self.desk.request(&request.0.to_string())?;
        Some(Standing {
            request: view.request,
            state: view.state,
            reviews: view.reviews,
            missing: view.missing,
            may_approve: view.may_answer,
            behind: view.behind,
            receipt: view.receipt,
        })
    }

    fn now(&self) -> Timestamp {
        self.desk.now()
    }
}
