//! The console: pages for people.
//!
//! The pages of a session live under a path that only its browser knows (`/s/` and a secret), and its
//! cookie is for that path. The same paths without it lead to the sign-in page and back. So what
//! another port of the same host is sent, or can plant, opens nothing.
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

use std::convert::Infallible;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use tower_service::Service as _;

use self::page::Problem;
use super::caller::{ShownSession, Within};
use super::guard::{self, Foreign};
use super::{Web, api, assets};

pub(super) fn router(web: &Web) -> Router<Web> {
    let pages = Router::new()
        .route("/", get(home))
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
        .layer(middleware::from_fn_with_state(web.clone(), guard::same_site))
        .with_state(web.clone());
    Router::new()
        .route("/healthz", get(api::health))
        .route("/static/{file}", get(assets::serve))
        .fallback(move |request: Request| enter(pages.clone(), request))
}

/// Takes the session off the path, so that the pages are the same with and without one.
async fn enter(mut pages: Router, mut request: Request) -> Response {
    let session = split_session(request.uri());
    let within = session.map(|(within, uri)| {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(within.clone());
        within
    });
    let mut answer = pages.call(request).await.unwrap_or_else(|never: Infallible| match never {});
    match (within, answer.extensions_mut().remove::<Problem>()) {
        // It was said for nobody in particular; its links are to stay in the session.
        (Some(within), Some(problem)) => problem.page(&within.base()),
        (Some(_) | None, _) => answer,
    }
}

/// The session of a path, and the address without it.
fn split_session(uri: &Uri) -> Option<(Within, Uri)> {
    let (within, page) = Within::split(uri.path())?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{page}{query}").parse().ok()?);
    Some((within, Uri::from_parts(parts).ok()?))
}

async fn home(State(_): State<Web>, shown: ShownSession) -> Redirect {
    let base = shown.within.map(|within| within.base()).unwrap_or_default();
    Redirect::to(&format!("{base}/requests"))
}

/// What is answered to a request that its sender's user did not mean.
pub(super) fn turned_away(web: &Web, foreign: Foreign, asked: &Uri) -> Response {
    match foreign {
        Foreign::Host => Problem::wrong_host(&web.0.settings.url).into_response(),
        Foreign::Alias => {
            // Without the session: its cookie is for the name under which it was opened.
            let mut url = web.0.settings.url.clone();
            url.set_path(asked.path());
            url.set_query(asked.query());
            Redirect::to(url.as_str()).into_response()
        }
        Foreign::Site => Problem::cross_site().into_response(),
    }
}
