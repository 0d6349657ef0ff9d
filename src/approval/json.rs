//! Requests as the API tells them: stable names, flat where scripts look, the whole document below.

use jiff::Timestamp;
use serde::Serialize;

use super::document::Document;
use super::hold::{HoldState, Review};
use super::request::Request;
use super::visible::Shown;
use crate::actor::ReviewerId;
use crate::policy::Approval;
use crate::statement::Digest;

/// One request in the API's JSON. The first nine fields are a contract with scripts.
#[derive(Clone, Debug, Serialize)]
pub struct RequestJson {
    /// The code people use, as in `7F3K-2Q`.
    pub id: String,
    /// `waiting`, `granted`, `denied`, `expired`, `withdrawn` or `executed`.
    pub state: &'static str,
    /// The statement class.
    pub class: &'static str,
    /// The agent that asks.
    pub agent: String,
    /// The upstream it asks for.
    pub upstream: String,
    /// The whole text, with what would hide made visible and secrets replaced. Show it; do not run it.
    pub sql: Shown,
    /// The digest that an answer must name, in hexadecimal.
    pub digest: Digest,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it expires unless answered.
    pub expires_at: Timestamp,
    /// The full id.
    pub uuid: String,
    /// Four words of the digest.
    pub words: [&'static str; 4],
    /// The agent's message on a denial, or the reason of a withdrawal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// No session waits for it.
    pub deferred: bool,
    /// Identical requests that wait behind this one.
    pub twins: usize,
    /// The answers so far.
    pub reviews: Vec<ReviewJson>,
    /// How many people of which group are still missing.
    pub missing: Vec<Approval>,
    /// Who may still answer.
    pub may_answer: Vec<ReviewerId>,
    /// What the approved statement did, once it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptJson>,
    /// The document; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
}

/// One answer.
#[derive(Clone, Debug, Serialize)]
pub struct ReviewJson {
    /// Who.
    pub reviewer: ReviewerId,
    /// `approve`, `deny` or `escalate`.
    pub verdict: &'static str,
    /// The way it came.
    pub channel: &'static str,
    /// How sure we were of them.
    pub assurance: &'static str,
    /// Why, in their words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// So soon that it cannot have been read.
    pub quick: bool,
}

/// What an approved statement did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptJson {
    /// The command tag, or the SQLSTATE, or `not executed`, or `unknown`.
    pub result: String,
    /// Whether upstream completed it.
    pub completed: bool,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of result data that went to the agent.
    pub bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

impl From<&Review> for ReviewJson {
    fn from(review: &Review) -> Self {
        Self {
            reviewer: review.reviewer.clone(),
            verdict: review.verdict.as_str(),
            channel: review.channel.as_str(),
            assurance: review.assurance.as_str(),
            reason: review.reason.clone(),
            at: review.at,
            quick: review.quick,
        }
    }
}

impl RequestJson {
    /// The request by itself; what the desk knows of it besides is filled in by the desk.
    #[must_use]
    pub fn of(request: &Request, state: &HoldState, reviews: &[Review]) -> Self {
        let draft = &request.draft;
        let message = match state {
            HoldState::Denied { message, .. } => message.clone(),
            HoldState::Withdrawn { reason } => Some(reason.to_string()),
            HoldState::Waiting | HoldState::Granted { .. } | HoldState::Expired | HoldState::Executed => None,
        };
        Self {
            id: request.id.code(),
            state: state.as_str(),
            class: draft.classification.class.as_str(),
            agent: draft.identity.agent.name.to_string(),
            upstream: draft.target.upstream.to_string(),
            sql: request.shown_sql(),
            digest: request.digest,
            opened_at: request.opened_at,
            expires_at: request.expires_at,
            uuid: request.id.0.to_string(),
            words: request.words,
            message,
            deferred: request.is_deferred(),
            twins: 0,
            reviews: reviews.iter().map(ReviewJson::from).collect(),
            missing: Vec::new(),
            may_answer: Vec::new(),
            receipt: None,
            document: None,
        }
    }
}
