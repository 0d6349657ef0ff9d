//! The console: pages for people.
//!
//! Every page works without JavaScript; with it, pages follow what happens. Text of an agent reaches
//! a page as [`Shown`](crate::approval::Shown), through templates that escape everything, into
//! elements that hold plain text.
//!
//! - [`page`]: what all pages have in common.
//! - [`sign_in`]: getting in and out.
//! - [`requests`]: the lists.
//! - [`request`], [`statement`]: one request.
//! - [`verdict`]: answering it.
//! - [`sessions`], [`ledger`], [`policies`], [`people`]: the rest.
//! - [`words`]: times and numbers.

pub(super) mod ledger;
mod page;
mod people;
mod policies;
mod request;
mod requests;
mod sessions;
mod sign_in;
mod statement;
mod verdict;
pub(super) mod words;

use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};

use self::page::Problem;
use super::guard::{self, Foreign};
use super::{Web, api, assets};

pub(super) fn router(web: &Web) -> Router<Web> {
    let pages = Router::new()
        .route("/", get(async || Redirect::to("/requests")))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-in/{link}", get(sign_in::with_link))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/requests", get(requests::waiting))
        .route("/requests/{id}", get(request::page))
        .route("/requests/{id}/statement.sql", get(request::exact_bytes))
        .route("/requests/{id}/verdict", post(verdict::answer))
        .route("/history", get(requests::history))
        .route("/sessions", get(sessions::page))
        .route("/sessions/{id}/kill", post(sessions::kill))
        .route("/ledger", get(ledger::page))
        .route("/ledger/verify", post(ledger::verify))
        .route("/ledger/{seq}", get(ledger::entry))
        .route("/ledger/{seq}/proof", get(ledger::proof))
        .route("/policies", get(policies::page).post(policies::what_if))
        .route("/people", get(people::page))
        .route("/live", get(requests::live))
        .fallback(page::nothing_here)
        .layer(middleware::from_fn_with_state(web.clone(), guard::same_site));
    Router::new().route("/healthz", get(api::health)).route("/static/{file}", get(assets::serve)).merge(pages)
}

/// What is answered to a request that its sender's user did not mean.
pub(super) fn turned_away(web: &Web, foreign: Foreign) -> Response {
    match foreign {
        Foreign::Host => Problem::wrong_host(&web.0.settings.url).into_response(),
        Foreign::Site => Problem::cross_site().into_response(),
    }
}
