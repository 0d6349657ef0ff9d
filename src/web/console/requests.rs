//! The lists: what waits, and what has ended.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

use super::page::{Answer, Frame, Place, Problem, SignedIn, render};
use super::request::Time;
use super::words::{count, duration};
use crate::actor::{AgentName, ReviewerId};
use crate::approval::document::approvals_in_words;
use crate::approval::{HoldState, Request, Shown};
use crate::classify::StatementClass;
use crate::desk::{Filter, RequestView};
use crate::statement::TransactionStatus;
use crate::web::api::{self, ApiError, Stream};
use crate::web::{Web, off_thread};

/// How many requests a list shows. Nobody reads more; the search of the ledger has the rest.
const MOST: usize = 200;

#[derive(Template)]
#[template(path = "requests.html")]
struct WaitingPage {
    frame: Frame,
    /// Those that this reader may approve.
    mine: Vec<Row>,
    /// Those that others have to.
    others: Vec<Row>,
    /// How many more wait.
    more: usize,
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    frame: Frame,
    rows: Vec<Row>,
    states: [&'static str; 5],
    state: String,
    agents: Vec<String>,
    agent: String,
    /// There may be more.
    is_full: bool,
}

/// One request in a list.
struct Row {
    code: String,
    class: &'static str,
    tier: &'static str,
    state: &'static str,
    agent: String,
    target: String,
    /// The beginning of the statement.
    sql: String,
    /// What is left out of it.
    left_out: Option<String>,
    opened: Time,
    expires: Time,
    /// Who is missing, or who decided.
    who: String,
    /// What came of it.
    result: String,
    flags: Vec<&'static str>,
}

pub(super) async fn waiting(State(web): State<Web>, SignedIn(browser): SignedIn) -> Answer {
    let desk = web.0.desk.clone();
    let filter = Filter { limit: Some(MOST), ..Filter::waiting() };
    let found = off_thread(move || desk.requests(&filter)).await.ok_or_else(Problem::internal)?;
    let (waiting, _) = web.0.desk.counts();
    let now = web.now();
    let me = &browser.who.reviewer().id;
    // What waits behind an identical request has no card of its own yet.
    let shown: Vec<&RequestView> = found.iter().filter(|view| !view.is_behind).collect();
    let (mine, others): (Vec<_>, Vec<_>) = shown.into_iter().partition(|view| view.may_answer.contains(me));
    // The most urgent first: what expires soonest.
    let rows = |mut views: Vec<&RequestView>| {
        views.sort_by_key(|view| view.request.expires_at);
        views.into_iter().map(|view| row(view, now)).collect::<Vec<_>>()
    };
    let page = WaitingPage {
        frame: Frame::new(&web, &browser, Place::Requests, "Requests"),
        mine: rows(mine),
        others: rows(others),
        more: waiting.saturating_sub(found.len()),
    };
    Ok(render(StatusCode::OK, &page))
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    state: Option<String>,
    agent: Option<String>,
}

const ENDED: [&str; 5] = ["granted", "executed", "denied", "expired", "withdrawn"];

pub(super) async fn history(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let state = wanted.state.filter(|state| ENDED.contains(&state.as_str()));
    let agent = wanted.agent.filter(|agent| !agent.is_empty());
    let filter =
        Filter { state: state.clone(), agent: agent.as_deref().map(AgentName::from), ..Filter::default() };
    let desk = web.0.desk.clone();
    let found = off_thread(move || {
        let views = desk.requests(&filter).into_iter();
        views.filter(|view| view.state != HoldState::Waiting).take(MOST).collect::<Vec<_>>()
    });
    let found = found.await.ok_or_else(Problem::internal)?;
    let now = web.now();
    let page = HistoryPage {
        frame: Frame::new(&web, &browser, Place::History, "History"),
        is_full: found.len() == MOST,
        rows: found.iter().map(|view| row(view, now)).collect(),
        states: ENDED,
        state: state.unwrap_or_default(),
        agents: web.0.directory.load().agents().map(|entry| entry.agent.name.to_string()).collect(),
        agent: agent.unwrap_or_default(),
    };
    Ok(render(StatusCode::OK, &page))
}

fn row(view: &RequestView, now: Timestamp) -> Row {
    let request = &view.request;
    let draft = &request.draft;
    let class = draft.classification.class;
    let (sql, left_out) = beginning(request);
    let mut flags = Vec::new();
    if view.state == HoldState::Waiting {
        match draft.transaction.status {
            Some(TransactionStatus::InBlock) => flags.push("locks held"),
            None => flags.push("upstream busy"),
            Some(TransactionStatus::Idle | TransactionStatus::Failed) => {}
        }
    }
    if request.is_deferred() {
        flags.push("deferred");
    }
    if view.behind > 0 {
        flags.push("asked more than once");
    }
    if view.reviews.iter().any(|review| review.quick) {
        flags.push("approved within 3 s");
    }
    Row {
        code: request.id.code(),
        class: class.as_str(),
        tier: tier(class),
        state: view.state.as_str(),
        agent: Shown::line(draft.identity.agent.name.as_str()).to_string(),
        target: format!("{} / {}", draft.target.upstream, draft.target.database),
        sql,
        left_out,
        opened: Time::new(request.opened_at, now),
        expires: Time::new(request.expires_at, now),
        who: who(view),
        result: result(view),
        flags,
    }
}

fn who(view: &RequestView) -> String {
    if view.state == HoldState::Waiting {
        return approvals_in_words(&view.missing);
    }
    let mut people: Vec<&ReviewerId> = view.reviews.iter().map(|review| &review.reviewer).collect();
    people.dedup();
    people.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ")
}

fn result(view: &RequestView) -> String {
    match (&view.state, &view.receipt) {
        (_, Some(receipt)) => {
            let took = duration(std::time::Duration::from_millis(receipt.duration_ms));
            format!("{} in {took}", Shown::line(&receipt.result))
        }
        (HoldState::Denied { message: Some(message), .. }, None) => Shown::line(message).to_string(),
        (HoldState::Withdrawn { reason }, None) => (*reason).to_owned(),
        (
            HoldState::Waiting
            | HoldState::Granted { .. }
            | HoldState::Denied { .. }
            | HoldState::Expired
            | HoldState::Executed,
            None,
        ) => String::new(),
    }
}

/// As much of the text as a list shows. Nothing is decided on a list.
const LINES: usize = 5;
const CHARS: usize = 420;
/// Bytes that are looked at for it: more than enough, and few even where the text has megabytes.
const LOOKED_AT: usize = 4 * CHARS;

fn beginning(request: &Request) -> (String, Option<String>) {
    let draft = &request.draft;
    let bytes = match &draft.classification.redacted_sql {
        Some(redacted) => redacted.as_bytes(),
        None => draft.statement.sql.as_bytes(),
    };
    let looked_at = bytes.get(..LOOKED_AT.min(bytes.len())).unwrap_or_default();
    let shown = Shown::of_bytes(looked_at);
    let mut kept: String = shown.as_str().trim_start().split('\n').take(LINES).collect::<Vec<_>>().join("\n");
    if let Some((cut, _)) = kept.char_indices().nth(CHARS) {
        kept.truncate(cut);
    }
    let is_all = looked_at.len() == bytes.len() && kept.len() == shown.as_str().trim_start().len();
    let lines = String::from_utf8_lossy(bytes).lines().count();
    let left_out = (!is_all).then(|| {
        format!(
            "the beginning of {} bytes in {}",
            super::words::number(bytes.len() as u64),
            count(lines, "line", "lines")
        )
    });
    (kept, left_out)
}

/// How loudly a class is shown.
pub(super) fn tier(class: StatementClass) -> &'static str {
    match class {
        StatementClass::Session | StatementClass::Read | StatementClass::Write => "low",
        StatementClass::Ddl
        | StatementClass::MassWrite
        | StatementClass::Export
        | StatementClass::Settings => "mid",
        StatementClass::SensitiveRead
        | StatementClass::Admin
        | StatementClass::Grant
        | StatementClass::Identity
        | StatementClass::Code
        | StatementClass::ServerIo
        | StatementClass::Invalid => "high",
    }
}

/// What happens, for pages that follow it. It says that something did, not what: the page then asks.
pub(super) async fn live(State(web): State<Web>, headers: HeaderMap) -> Result<Stream, ApiError> {
    web.browser(&headers, false).ok_or_else(ApiError::unauthenticated)?;
    let may_listen = move |web: &Web| web.browser(&headers, false).is_some();
    api::stream(&web, may_listen, |event| api::brief(api::word(event), Some(event.id())))
}
