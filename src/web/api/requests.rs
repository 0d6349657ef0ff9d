//! Requests, and the verdicts on them.

use std::fmt;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{ApiError, Asked, Given};
use crate::actor::AgentName;
use crate::approval::json::{RequestJson, ReviewJson};
use crate::approval::{Verdict, VerdictError};
use crate::desk::{Answer, Desk, Filter, RequestView};
use crate::policy::Approval;
use crate::statement::{Digest, RequestId};
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
    /// Where to go on, from the `Link` of the page before.
    cursor: Option<String>,
}

/// How many requests a page has when nobody says, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;
/// How much SQL a page has, unless its first request alone has more.
const MOST_SQL: usize = 8 << 20;

/// The states there are.
const STATES: [&str; 6] = ["waiting", "granted", "denied", "expired", "withdrawn", "executed"];

/// What waits first, newest first; then what has ended. A page at a time: `Link` says where the next one
/// is, so that no number of newer requests hides an older one.
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
    let cursor = match &list.cursor {
        Some(text) => {
            let what = "this is no cursor; take it from the `Link` of the page before";
            Some(Cursor::parse(text).ok_or_else(|| ApiError::malformed(what))?)
        }
        None => None,
    };
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
    let filter = Filter { state: list.state.clone(), agent, for_reviewer, ..Filter::default() };
    let desk = web.0.desk.clone();
    let page =
        off_thread(move || page(&desk, &filter, cursor, limit)).await.ok_or_else(ApiError::internal)?;
    let shown: Vec<RequestJson> =
        page.requests.iter().map(|request| shown_to(&caller, request, false)).collect();
    let mut answer = Json(shown).into_response();
    if let Some(next) = page.next
        && let Ok(link) = list.link(&next).parse()
    {
        answer.headers_mut().insert(header::LINK, link);
    }
    Ok(answer)
}

impl List {
    /// The `Link` header (RFC 8288) that leads to the next page.
    fn link(&self, next: &Cursor) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("state", &self.state), ("agent", &self.agent)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        if self.mine {
            query.append_pair("mine", "true");
        }
        if let Some(limit) = self.limit {
            query.append_pair("limit", &limit.to_string());
        }
        query.append_pair("cursor", &next.to_string());
        format!("</api/v1/requests?{}>; rel=\"next\"", query.finish())
    }
}

/// Where a page begins: behind a request, among those that waited or among those that had ended.
///
/// What ends while somebody turns the pages may be told twice, once as waiting; nothing that was there
/// at the beginning is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    among_ended: bool,
    behind: RequestId,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (among, id) = text.split_at_checked(1)?;
        let among_ended = match among {
            "w" => false,
            "e" => true,
            _ => return None,
        };
        Some(Self { among_ended, behind: RequestId(uuid::Uuid::try_parse(id).ok()?) })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.among_ended { 'e' } else { 'w' }, self.behind.0)
    }
}

/// One page of a list.
struct Page {
    requests: Vec<RequestView>,
    /// Where the next one begins, if there is one.
    next: Option<Cursor>,
}

/// The requests that `filter` asks for, those that wait first.
fn page(desk: &Desk, filter: &Filter, cursor: Option<Cursor>, limit: usize) -> Page {
    let parts: &[bool] = match filter.state.as_deref() {
        Some("waiting") => &[false],
        Some(_) => &[true],
        None => &[false, true],
    };
    let mut found: Vec<(bool, RequestView)> = Vec::new();
    for &among_ended in parts {
        let before = match cursor {
            Some(cursor) if cursor.among_ended == among_ended => Some(cursor.behind),
            // Those that wait were on earlier pages.
            Some(cursor) if cursor.among_ended => continue,
            Some(_) | None => None,
        };
        let part = Filter {
            state: filter.state.clone().or_else(|| (!among_ended).then(|| "waiting".to_owned())),
            ended: among_ended,
            before,
            // One more than is wanted says whether there is a next page.
            limit: Some((limit + 1).saturating_sub(found.len())),
            ..filter.clone()
        };
        found.extend(desk.requests(&part).into_iter().map(|view| (among_ended, view)));
    }
    let mut sql = 0;
    let fits = |(number, (_, view)): (usize, &(bool, RequestView))| {
        sql += view.request.draft.statement.sql.len();
        number < limit && (number == 0 || sql <= MOST_SQL)
    };
    let shown = found.iter().enumerate().map(fits).take_while(|fits| *fits).count();
    let next = match found.get(shown.saturating_sub(1)) {
        Some((among_ended, last)) if shown < found.len() => {
            Some(Cursor { among_ended: *among_ended, behind: last.request.id })
        }
        Some(_) | None => None,
    };
    found.truncate(shown);
    Page { requests: found.into_iter().map(|(_, view)| view).collect(), next }
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
    let id = find_id(web, caller, id)?;
    Ok(web.0.desk.request(&id.0.to_string()).ok_or(VerdictError::Unknown)?)
}

/// The same, where the id is enough.
pub(super) fn find_id(web: &Web, caller: &Caller, id: &str) -> Result<RequestId, ApiError> {
    let found = match caller {
        Caller::Agent(agent) => web.0.desk.find_of(&agent.name, id),
        Caller::Reviewer(_) => web.0.desk.find(id),
    };
    Ok(found.ok_or(VerdictError::Unknown)?)
}

pub(super) async fn show(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RequestJson>, ApiError> {
    let found = find(&web, &caller, &id)?;
    if let Caller::Reviewer(person) = &caller {
        web.0.desk.note_displayed(found.request.id, &person.reviewer().id);
    }
    Ok(Json(shown_to(&caller, &found, true)))
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
    /// Ignored, since anybody can say anything: the server knows when it told the request to whom.
    #[serde(default)]
    #[expect(dead_code, reason = "read so that clients that send it are not refused")]
    displayed_at: Option<serde::de::IgnoredAny>,
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
    let answer = Answer { by, digest, reason: body.reason, displayed_at: None };
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
