//! The sessions that are open, and ending one.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use serde::Deserialize;

use super::page::{Answer, Frame, Place, Posted, Problem, SignedIn, render};
use super::request::Time;
use super::words::number;
use crate::approval::Shown;
use crate::statement::TransactionStatus;
use crate::web::{Web, off_thread};

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    rows: Vec<Row>,
    /// A session was ended just now.
    killed: bool,
}

struct Row {
    id: String,
    agent: String,
    target: String,
    role: String,
    address: String,
    method: &'static str,
    tls: bool,
    opened: Time,
    activity: &'static str,
    transaction: &'static str,
    request: Option<String>,
    statements: String,
    claims: Vec<(&'static str, String)>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Came {
    killed: Option<String>,
}

pub(super) async fn page(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Query(came): Query<Came>,
) -> Answer {
    let sessions = web.0.views.sessions.clone();
    let sessions = off_thread(move || sessions.sessions()).await.ok_or_else(Problem::internal)?;
    let now = web.now();
    let rows = sessions.into_iter().map(|session| Row {
        id: session.id.to_string(),
        agent: Shown::line(session.agent.as_str()).to_string(),
        target: format!("{} / {}", session.upstream, session.database),
        role: session.role,
        address: session.client_address,
        method: session.method,
        tls: session.tls,
        opened: Time::new(session.opened_at, now),
        activity: session.activity.as_str(),
        transaction: match session.transaction {
            Some(TransactionStatus::InBlock) => "in a transaction",
            Some(TransactionStatus::Failed) => "in a failed transaction",
            Some(TransactionStatus::Idle) | None => "",
        },
        request: session.request.map(|request| request.code()),
        statements: number(session.statements),
        claims: session.claimed.iter().map(|(name, value)| (name, Shown::line(value).to_string())).collect(),
    });
    let page = SessionsPage {
        frame: Frame::new(&web, &browser, Place::Sessions, "Sessions"),
        rows: rows.collect(),
        killed: came.killed.is_some(),
    };
    Ok(render(StatusCode::OK, &page))
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

pub(super) async fn kill(
    State(web): State<Web>,
    Path(id): Path<String>,
    Posted(browser, Nothing {}): Posted<Nothing>,
) -> Answer {
    web.kill(&id, browser.who.reviewer().id.clone()).await?;
    Ok(Redirect::to(&browser.at("/sessions?killed=1")).into_response())
}
