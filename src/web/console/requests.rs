//! The lists: what waits, and what has ended.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::page::{Answer, Frame, Place, Problem, SignedIn, render};
use super::request::Time;
use super::statement::{Line, plain_lines};
use super::words::{bytes as size, count, duration};
use crate::actor::{AgentName, ReviewerId};
use crate::approval::document::approvals_in_words;
use crate::approval::{HoldState, Request, Shown, Verdict};
use crate::classify::{Impact, StatementClass};
use crate::desk::{Filter, RequestView};
use crate::statement::{RequestId, TransactionStatus};
use crate::web::api::{self, ApiError, Stream};
use crate::web::caller::ShownSession;
use crate::web::streams::Listener;
use crate::web::{Web, off_thread};

/// How many requests a page of a list has. There are as many pages as are needed.
const PAGE: usize = 100;

#[derive(Template)]
#[template(path = "requests.html")]
struct WaitingPage {
    frame: Frame,
    /// Those on this page that this reader may approve, and how many there are in all.
    mine: Vec<Row>,
    all_mine: usize,
    /// Those that others have to.
    others: Vec<Row>,
    all_others: usize,
    /// Which page of how many this is, from 1.
    number: usize,
    pages: usize,
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
    /// Where older ones are.
    older: Option<String>,
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
    lines: Vec<Line>,
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

#[derive(Debug, Deserialize)]
pub(super) struct Turned {
    /// The page, from 1.
    page: Option<usize>,
}

pub(super) async fn waiting(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Query(turned): Query<Turned>,
) -> Answer {
    let desk = web.0.desk.clone();
    let found = off_thread(move || desk.requests(&Filter::waiting())).await.ok_or_else(Problem::internal)?;
    let now = web.now();
    let me = &browser.who.reviewer().id;
    // What waits behind an identical request has no card of its own yet.
    let shown: Vec<&RequestView> = found.iter().filter(|view| !view.is_behind).collect();
    let (mut mine, mut others): (Vec<_>, Vec<_>) =
        shown.into_iter().partition(|view| view.may_answer.contains(me));
    // The most urgent first, that is what expires soonest: new requests never push older ones off.
    mine.sort_by_key(|view| (view.request.expires_at, view.request.id));
    others.sort_by_key(|view| (view.request.expires_at, view.request.id));
    let (all_mine, all_others) = (mine.len(), others.len());
    let pages = (all_mine + all_others).div_ceil(PAGE).max(1);
    let number = turned.page.unwrap_or(1).clamp(1, pages);
    let ordered =
        mine.into_iter().map(|view| (true, view)).chain(others.into_iter().map(|view| (false, view)));
    let (mine, others): (Vec<_>, Vec<_>) =
        ordered.skip((number - 1) * PAGE).take(PAGE).partition(|(is_mine, _)| *is_mine);
    let rows = |views: Vec<(bool, &RequestView)>| views.into_iter().map(|(_, view)| row(view, now)).collect();
    let page = WaitingPage {
        frame: Frame::new(&web, &browser, Place::Requests, "Requests"),
        mine: rows(mine),
        all_mine,
        others: rows(others),
        all_others,
        number,
        pages,
    };
    Ok(render(StatusCode::OK, &page))
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    state: Option<String>,
    agent: Option<String>,
    /// Those that were opened before this one.
    before: Option<String>,
}

const ENDED: [&str; 5] = ["granted", "executed", "denied", "expired", "withdrawn"];

pub(super) async fn history(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let state = wanted.state.filter(|state| ENDED.contains(&state.as_str()));
    let agent = wanted.agent.filter(|agent| !agent.is_empty());
    let before = wanted.before.and_then(|id| uuid::Uuid::try_parse(&id).ok()).map(RequestId);
    let filter = Filter {
        state: state.clone(),
        agent: agent.as_deref().map(AgentName::from),
        ended: true,
        before,
        limit: Some(PAGE + 1),
        ..Filter::default()
    };
    let desk = web.0.desk.clone();
    let mut found = off_thread(move || desk.requests(&filter)).await.ok_or_else(Problem::internal)?;
    let has_more = found.len() > PAGE;
    found.truncate(PAGE);
    let older = found.last().filter(|_| has_more).map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("state", &state), ("agent", &agent)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("before", &last.request.id.0.to_string());
        browser.at(&format!("/history?{}", query.finish()))
    });
    let now = web.now();
    let page = HistoryPage {
        frame: Frame::new(&web, &browser, Place::History, "History"),
        older,
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
    let (lines, left_out) = beginning(request);
    let mut flags = Vec::new();
    if view.state == HoldState::Waiting {
        match draft.transaction.status {
            Some(TransactionStatus::InBlock) => flags.push("locks held"),
            None => flags.push("upstream busy"),
            Some(TransactionStatus::Idle | TransactionStatus::Failed) => {}
        }
    }
    let has_markers =
        lines.iter().flat_map(|line| &line.pieces).any(|piece| piece.marker && piece.text.starts_with("⟨U"));
    if has_markers {
        flags.push("odd characters");
    }
    if draft.classification.parts.len() > 1 {
        flags.push("several statements");
    }
    if !draft.refers_to.is_empty() {
        flags.push("runs another by name");
    }
    if request.is_deferred() {
        flags.push("deferred");
    }
    if view.behind > 0 {
        flags.push("asked more than once");
    }
    if view.reviews.iter().any(|review| review.quick && review.verdict == Verdict::Approve) {
        flags.push("approved within 3 s");
    }
    Row {
        code: request.id.code(),
        class: class.as_str(),
        tier: tier(class),
        state: view.state.as_str(),
        agent: Shown::line(draft.identity.agent.name.as_str()).to_string(),
        target: format!("{} / {}", draft.target.upstream, draft.target.database),
        lines,
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
        (HoldState::Withdrawn { reason }, None) => reason.to_string(),
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

fn beginning(request: &Request) -> (Vec<Line>, Option<String>) {
    let draft = &request.draft;
    let bytes = match &draft.classification.redacted_sql {
        Some(redacted) => redacted.as_bytes(),
        None => draft.statement.sql.as_bytes(),
    };
    let looked_at = bytes.get(..LOOKED_AT.min(bytes.len())).unwrap_or_default();
    let mut lines = plain_lines(&Shown::of_bytes(looked_at));
    let shown = lines.len();
    lines.truncate(LINES);
    let mut room = CHARS;
    for line in &mut lines {
        line.pieces.retain_mut(|piece| {
            // A marker is shown whole or not at all.
            if piece.marker && piece.text.chars().count() > room {
                room = 0;
            }
            if let Some((cut, _)) = piece.text.char_indices().nth(room) {
                piece.text.truncate(cut);
            }
            room -= piece.text.chars().count();
            !piece.text.is_empty()
        });
    }
    if looked_at.len() == bytes.len() && shown <= LINES && room > 0 {
        return (lines, None);
    }
    let all = String::from_utf8_lossy(bytes).lines().count();
    let left_out =
        format!("the beginning of {} in {}", size(bytes.len() as u64), count(all, "line", "lines"));
    (lines, Some(left_out))
}

/// How loudly a class is shown.
pub(super) fn tier(class: StatementClass) -> &'static str {
    match class.impact() {
        Impact::Low => "low",
        Impact::Middle => "mid",
        Impact::High => "high",
    }
}

/// What happens, for pages that follow it. It says that something did, not what: the page then asks.
pub(super) async fn live(State(web): State<Web>, shown: ShownSession) -> Result<Stream, ApiError> {
    let browser = web.browser(&shown, false).ok_or_else(ApiError::unauthenticated)?;
    let listener = Listener::Reviewer(browser.who.reviewer().id.to_string());
    let may_listen = move |web: &Web| web.browser(&shown, false).is_some();
    api::stream(&web, listener, may_listen, |event| api::brief(api::word(event), Some(event.id())))
}
