//! How the API says no: a status, a stable word, a sentence, and what to do about it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::approval::VerdictError;
use crate::web::caller::seconds;
use crate::web::views::ViewError;

/// An error, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// A stable word for programs.
    error: &'static str,
    /// One sentence for people.
    message: String,
    /// What to do.
    hint: String,
    /// How the request stands, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>, hint: &str) -> Self {
        Self { status, error, message: message.into(), hint: hint.to_owned(), state: None, retry_after: None }
    }

    /// The stable word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.error
    }

    /// Status, sentence and advice, for pages.
    pub(in crate::web) fn told(&self) -> (StatusCode, &str, &str) {
        (self.status, &self.message, &self.hint)
    }

    pub(in crate::web) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "no credentials, or nobody's",
            "Send `Authorization: Bearer csr_..` with your personal token; an agent that reads its own requests sends its name and password with `Authorization: Basic`.",
        )
    }

    pub(in crate::web) fn agent_credential() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "agent_credential",
            "an agent's credential can read the agent's own requests and nothing else",
            "Answers are given by enrolled reviewers, with their own tokens.",
        )
    }

    pub(in crate::web) fn too_many_failures(wait: Duration) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many credentials from your address were nobody's",
            "Wait as long as `Retry-After` says.",
        );
        Self { retry_after: Some(seconds(wait)), ..error }
    }

    pub(in crate::web) fn too_many_questions(wait: Duration) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_questions",
            "this agent asks too often",
            "Wait as long as `Retry-After` says; /events tells what happens without asking.",
        );
        Self { retry_after: Some(seconds(wait)), ..error }
    }

    pub(in crate::web) fn too_many_streams() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many streams of events are open",
            "Close some, or ask for /requests from time to time.",
        );
        Self { retry_after: Some(5), ..error }
    }

    pub(in crate::web) fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the request took too long",
            "Try again. Whether a verdict counted is on the request.",
        )
    }

    pub(super) fn no_such_route() -> Self {
        let hint = "All routes are in /api/v1/openapi.json.";
        Self::new(StatusCode::NOT_FOUND, "no_such_route", "there is nothing here", hint)
    }

    pub(super) fn method_not_allowed() -> Self {
        let hint = "All routes and methods are in /api/v1/openapi.json.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route has no such method", hint)
    }

    pub(super) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body is not declared as JSON",
            "Send `Content-Type: application/json`.",
        )
    }

    pub(super) fn malformed(what: &str) -> Self {
        let hint = "What each route takes is in /api/v1/openapi.json.";
        Self::new(StatusCode::BAD_REQUEST, "malformed", what, hint)
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body is too large",
            "A reason may have 2,000 characters, a statement to try out 48 KiB.",
        )
    }

    pub(super) fn digest_required() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "digest_required",
            "a verdict must say which statement was seen",
            "Send `digest`: the 64 hexadecimal digits of the request that was read.",
        )
    }

    pub(super) fn unknown(what: &'static str, message: &str, hint: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, what, message, hint)
    }

    pub(super) fn hides_secrets() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "hides_secrets",
            "the statement holds secrets, which are shown to nobody",
            "The digest covers them; the text with the secrets replaced is in the request.",
        )
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something broke while this was answered",
            "The server's log has the details. Whether a verdict counted is on the request.",
        )
    }
}

impl From<VerdictError> for ApiError {
    fn from(error: VerdictError) -> Self {
        let message = error.to_string();
        let (status, word, hint) = match &error {
            VerdictError::Unknown => (
                StatusCode::NOT_FOUND,
                "unknown_request",
                "What ended long ago is in the ledger: /api/v1/ledger/entries?request=..",
            ),
            VerdictError::TooLate { .. } => (
                StatusCode::CONFLICT,
                "too_late",
                "The first answer counts. A statement that is sent again opens a new request.",
            ),
            VerdictError::NotAllowed { .. } => (
                StatusCode::FORBIDDEN,
                "not_allowed",
                "`may_answer` of the request names the people who may.",
            ),
            VerdictError::NotYet { .. } => (
                StatusCode::FORBIDDEN,
                "not_yet",
                "Those who are asked first have until then. You can deny it now.",
            ),
            VerdictError::NotEnrolled => {
                (StatusCode::FORBIDDEN, "not_enrolled", "Ask the operator to enrol you as a reviewer.")
            }
            VerdictError::AssuranceTooLow { .. } => {
                (StatusCode::FORBIDDEN, "assurance_too_low", "Sign in to the console again and answer there.")
            }
            VerdictError::DigestMismatch => (
                StatusCode::CONFLICT,
                "digest_mismatch",
                "Get the request again, and read what is there now.",
            ),
            VerdictError::AlreadyAnswered => {
                (StatusCode::CONFLICT, "already_answered", "Your earlier answer counts; others are missing.")
            }
            VerdictError::NoFurtherStep => {
                (StatusCode::CONFLICT, "no_further_step", "Approve it, deny it, or let it expire.")
            }
            VerdictError::ReasonRequired => {
                (StatusCode::UNPROCESSABLE_ENTITY, "reason_required", "Send `reason`.")
            }
            VerdictError::ReasonTooLong { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "reason_too_long", "Shorten it.")
            }
            VerdictError::Unrecorded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ledger_unavailable",
                "While the ledger cannot write, nothing runs and no answer counts.",
            ),
        };
        let state = match &error {
            VerdictError::TooLate { state } => Some(state.as_str()),
            VerdictError::Unknown
            | VerdictError::NotAllowed { .. }
            | VerdictError::NotYet { .. }
            | VerdictError::NotEnrolled
            | VerdictError::DigestMismatch
            | VerdictError::ReasonRequired
            | VerdictError::ReasonTooLong { .. }
            | VerdictError::AssuranceTooLow { .. }
            | VerdictError::AlreadyAnswered
            | VerdictError::NoFurtherStep
            | VerdictError::Unrecorded => None,
        };
        Self { state, ..Self::new(status, word, message, hint) }
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Unavailable(what) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", what, "Try again later.")
            }
            ViewError::Question(what) => Self::malformed(&what),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let retry_after = self.retry_after;
        let mut answer = (status, Json(self)).into_response();
        let headers = answer.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // Not `Basic`: a browser would ask its user for a password in a window of its own.
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"countersign\""));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}
