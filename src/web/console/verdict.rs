//! Answering a request from its page.
//!
//! The form carries what its page showed, signed by us: which digest, when, and whether all of it.
//! So an approval can only come from a page on which the whole statement was, whatever was typed.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use serde::Deserialize;

use super::page::{Answer, Posted, Problem};
use super::request::{Banner, show};
use crate::approval::{Verdict, VerdictError};
use crate::desk;
use crate::web::api::ApiError;
use crate::web::{Web, off_thread};

#[derive(Deserialize)]
pub(super) struct Form {
    verdict: String,
    reason: Option<String>,
    seen: String,
}

pub(super) async fn answer(
    State(web): State<Web>,
    Path(id): Path<String>,
    Posted(browser, form): Posted<Form>,
) -> Answer {
    let verdict = [Verdict::Approve, Verdict::Deny, Verdict::Escalate]
        .into_iter()
        .find(|verdict| verdict.as_str() == form.verdict)
        .ok_or_else(Problem::bad_form)?;
    let seen = web.check_seen(&browser, &form.seen).map_err(|_| Problem::forged())?;
    if verdict == Verdict::Approve && !seen.whole {
        return Err(Problem::forged());
    }
    let id = web.0.desk.find(&id).ok_or(ApiError::from(VerdictError::Unknown))?;
    let reason =
        form.reason.map(|reason| reason.trim().replace("\r\n", "\n")).filter(|reason| !reason.is_empty());
    let given =
        desk::Answer { by: browser.who.clone(), digest: seen.digest, reason, displayed_at: Some(seen.at) };
    let desk = web.0.desk.clone();
    let given = off_thread(move || desk.verdict(id, verdict, given)).await.ok_or_else(Problem::internal)?;
    match given {
        Ok(_) => {
            let page = format!("/requests/{}?done={}", id.code(), verdict.as_str());
            Ok(Redirect::to(&browser.at(&page)).into_response())
        }
        Err(error) => refused(&web, &browser, id, error),
    }
}

/// The page again, with why the answer does not count.
fn refused(
    web: &Web,
    browser: &crate::web::caller::Browser,
    id: crate::statement::RequestId,
    error: VerdictError,
) -> Answer {
    let problem = ApiError::from(error);
    let (status, message, hint) = problem.told();
    let Some(found) = web.0.desk.request(&id.0.to_string()) else { return Err(problem.into()) };
    let text = match status {
        // What follows is on the page, in the place where it belongs.
        StatusCode::FORBIDDEN | StatusCode::CONFLICT => format!("{message}."),
        _ => format!("{message}. {hint}"),
    };
    let banner = Banner { kind: "bad", title: "Your answer does not count".to_owned(), text };
    show(web, browser, &found, Some(banner), status)
}
