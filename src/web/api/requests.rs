//! Requests, and the verdicts on them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ApiError, Asked, Given};
use crate::actor::AgentName;
use crate::approval::json::{RequestJson, ReviewJson};
use crate::approval::{Verdict, VerdictError};
use crate::desk::{Answer, Filter, RequestView};
use crate::policy::Approval;
use crate::statement::Digest;
use crate::web::caller::{Caller, Person};
use crate::web::{Web, off_thread};

/// What may stand behind `?` when requests are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    state: Option<String>,
    agent: Option<String>,
    /// Only those that the caller may approve.
    #[serde(default)]
    mine: bool,
    limit: Option<usize>,
}

/// How many requests a list has when nobody says, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// The states there are.
const STATES: [&str; 6] = ["waiting", "granted", "denied", "expired", "withdrawn", "executed"];

/// What waits first, newest first; then what has ended.
pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Asked(list): Asked<List>,
) -> Result<Response, ApiError> {
    if let Some(state) = &list.state
        && !STATES.contains(&state.as_str())
    {
        let states = STATES.join(", ");
        return Err(ApiError::malformed(&format!("there is no state \"{state}\"; there are {states}")));
    }
    let limit = list.limit.unwrap_or(USUAL).min(MOST);
    let agent = match &caller {
        // An agent sees its own, whatever it asks for.
        Caller::Agent(agent) => Some(agent.name.clone()),
        Caller::Reviewer(_) => list.agent.as_deref().map(AgentName::from),
    };
    let for_reviewer = match &caller {
        Caller::Reviewer(person) if list.mine => Some(person.reviewer().id.clone()),
        Caller::Reviewer(_) | Caller::Agent(_) => None,
    };
    let filter = Filter { state: list.state, agent, for_reviewer, limit: Some(limit) };
    let desk = web.0.desk.clone();
    let requests =
        off_thread(move || waiting_first(&desk, filter, limit)).await.ok_or_else(ApiError::internal)?;
    let shown: Vec<RequestJson> = requests.iter().map(|request| shown_to(&caller, request, false)).collect();
    Ok(Json(shown).into_response())
}

/// The requests that `filter` asks for, those that wait first. The desk has them newest first.
pub(in crate::web) fn waiting_first(
    desk: &crate::desk::Desk,
    filter: Filter,
    limit: usize,
) -> Vec<RequestView> {
    if filter.state.is_some() {
        return desk.requests(&filter);
    }
    let waiting = Filter { state: Some("waiting".to_owned()), limit: Some(limit), ..filter.clone() };
    let mut requests = desk.requests(&waiting);
    if requests.len() < limit {
        // As many as are wanted, and those of them that wait and are listed already.
        let all = desk.requests(&Filter { limit: Some(limit + requests.len()), ..filter });
        let ended = all.into_iter().filter(|request| request.state.as_str() != "waiting");
        requests.extend(ended);
        requests.truncate(limit);
    }
    requests
}

/// A request as `caller` may see it.
pub(super) fn shown_to(caller: &Caller, request: &RequestView, with_document: bool) -> RequestJson {
    match caller {
        Caller::Reviewer(_) => request.to_json(with_document),
        // An agent is told how its request stands, and what a reviewer addressed to it. Who its
        // reviewers are and what they say among themselves would help it to talk them round.
        Caller::Agent(_) => {
            RequestJson { reviews: Vec::new(), may_answer: Vec::new(), ..request.to_json(false) }
        }
    }
}

/// The request called `id`, if `caller` may see it. To an agent others' requests do not exist.
fn find(web: &Web, caller: &Caller, id: &str) -> Result<RequestView, ApiError> {
    let found = web.0.desk.request(id).ok_or(VerdictError::Unknown)?;
    match caller {
        Caller::Agent(agent) if found.request.draft.identity.agent.name != agent.name => {
            Err(VerdictError::Unknown.into())
        }
        Caller::Agent(_) | Caller::Reviewer(_) => Ok(found),
    }
}

pub(super) async fn show(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RequestJson>, ApiError> {
    Ok(Json(shown_to(&caller, &find(&web, &caller, &id)?, true)))
}

/// The exact bytes, as a file: what the digest is of, besides the bound values.
pub(super) async fn statement(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    exact_bytes(&find(&web, &caller, &id)?)
}

/// The exact bytes of a statement as an answer that no browser displays.
pub(in crate::web) fn exact_bytes(found: &RequestView) -> Result<Response, ApiError> {
    if found.request.draft.classification.redacted_sql.is_some() {
        return Err(ApiError::hides_secrets());
    }
    let name = format!("attachment; filename=\"{}.sql\"", found.request.id.code());
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, found.request.draft.statement.sql.as_bytes().to_vec()).into_response())
}

/// The body of a verdict.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictBody {
    /// Digest of the statement that was seen.
    digest: Option<String>,
    reason: Option<String>,
    /// When it was put before the reviewer's eyes.
    displayed_at: Option<Timestamp>,
}

/// What a verdict that counted is answered with.
#[derive(Debug, Serialize)]
pub(super) struct Counted {
    /// How the request stands now.
    state: &'static str,
    /// The answer, as recorded.
    review: ReviewJson,
    /// Who is still missing.
    missing: Vec<Approval>,
    /// The request.
    request: Option<RequestJson>,
}

pub(super) async fn approve(
    state: State<Web>,
    person: Person,
    id: Path<String>,
    body: Given<VerdictBody>,
) -> Result<Json<Counted>, ApiError> {
    answer(state, person, id, body, Verdict::Approve).await
}

pub(super) async fn deny(
    state: State<Web>,
    person: Person,
    id: Path<String>,
    body: Given<VerdictBody>,
) -> Result<Json<Counted>, ApiError> {
    answer(state, person, id, body, Verdict::Deny).await
}

pub(super) async fn escalate(
    state: State<Web>,
    person: Person,
    id: Path<String>,
    body: Given<VerdictBody>,
) -> Result<Json<Counted>, ApiError> {
    answer(state, person, id, body, Verdict::Escalate).await
}

async fn answer(
    State(web): State<Web>,
    Person(by): Person,
    Path(id): Path<String>,
    Given(body): Given<VerdictBody>,
    verdict: Verdict,
) -> Result<Json<Counted>, ApiError> {
    let digest = body.digest.as_deref().and_then(Digest::from_hex).ok_or_else(ApiError::digest_required)?;
    let id = web.0.desk.find(&id).ok_or(VerdictError::Unknown)?;
    let answer = Answer { by, digest, reason: body.reason, displayed_at: body.displayed_at };
    let desk = web.0.desk.clone();
    // The ledger writes the answer to disk before it counts.
    let verdicted =
        off_thread(move || desk.verdict(id, verdict, answer)).await.ok_or_else(ApiError::internal)??;
    Ok(Json(Counted {
        state: verdicted.state.as_str(),
        review: ReviewJson::from(&verdicted.review),
        missing: verdicted.missing,
        request: web.0.desk.request(&id.0.to_string()).map(|request| request.to_json(false)),
    }))
}
