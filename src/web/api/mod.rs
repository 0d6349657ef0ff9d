//! `/api/v1`: what programs, the command line and reviewers' own scripts use.
//!
//! A caller is a reviewer (`Authorization: Bearer csr_..`), who may do what the console can, or an
//! agent (`Authorization: Basic`, its name and password, or `Bearer csa_..`), which may read its own
//! requests and decides nothing. Cookies are not looked at, so other sites have nothing to forge.
//!
//! Every route is in [`routes`] and in `openapi.json`; a test compares the two and checks that each
//! answer given in the tests is one that the document describes.
//!
//! - [`error`]: how it says no.
//! - `requests`: requests and verdicts.
//! - `events`: what happens, live.
//! - `rest`: sessions, status, policy, people.
//! - `ledger`: the record.

pub mod error;
mod events;
pub(super) mod ledger;
pub(super) mod requests;
mod rest;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::de::DeserializeOwned;

pub use self::error::ApiError;
pub(super) use self::events::{Stream, brief, stream, word};
pub(super) use self::ledger::Search;
pub(super) use self::requests::exact_bytes;
use super::Web;

/// One route.
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path below `/api/v1`, with `{..}` for what varies.
    pub path: &'static str,
    handler: MethodRouter<Web>,
}

/// Every route there is.
#[must_use]
pub fn routes() -> Vec<Route> {
    let read = |path, handler| Route { method: "GET", path, handler };
    let act = |path, handler| Route { method: "POST", path, handler };
    vec![
        read("/openapi.json", get(document)),
        read("/whoami", get(rest::whoami)),
        read("/status", get(rest::status)),
        read("/requests", get(requests::list)),
        read("/requests/{id}", get(requests::show)),
        read("/requests/{id}/statement", get(requests::statement)),
        act("/requests/{id}/approve", post(requests::approve)),
        act("/requests/{id}/deny", post(requests::deny)),
        act("/requests/{id}/escalate", post(requests::escalate)),
        read("/events", get(events::events)),
        read("/sessions", get(rest::sessions)),
        act("/sessions/{id}/kill", post(rest::kill)),
        read("/ledger", get(ledger::status)),
        read("/ledger/entries", get(ledger::search)),
        read("/ledger/entries/{seq}", get(ledger::entry)),
        read("/ledger/entries/{seq}/proof", get(ledger::proof)),
        read("/policies", get(rest::policies)),
        act("/policies/what-if", post(rest::what_if)),
        read("/agents", get(rest::agents)),
        read("/reviewers", get(rest::reviewers)),
    ]
}

pub(super) fn router(_: &Web) -> Router<Web> {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        let handler = route.handler.fallback(async || ApiError::method_not_allowed());
        router.route(route.path, handler)
    });
    router.fallback(async || ApiError::no_such_route())
}

/// The OpenAPI document, as it is served.
pub const DOCUMENT: &str = include_str!("openapi.json");

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

/// JSON in a request's body, or an error that says what is wrong with it.
struct Given<T>(T);

impl<T: DeserializeOwned> FromRequest<Web> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, web: &Web) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::not_json());
        }
        let body = Bytes::from_request(request, web).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(),
            _ => ApiError::malformed("the body could not be read"),
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| ApiError::malformed(&error.to_string()))
    }
}

/// Parameters behind `?`, or an error that says what is wrong with them.
struct Asked<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<Web> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, web).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(ApiError::malformed(&rejection.body_text())),
        }
    }
}

/// Whether the process works, for load balancers; says nothing else and asks for nothing.
pub(super) async fn health(State(web): State<Web>) -> Response {
    let ledger = web.0.views.ledger.clone();
    let writable = super::off_thread(move || ledger.status().writable).await.unwrap_or(false);
    let (status, word) =
        if writable { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "degraded") };
    (status, axum::Json(serde_json::json!({ "status": word }))).into_response()
}
