//! What happens, live, as server-sent events.
//!
//! Events are news, not the truth: who misses some (a `resync` says so) asks for the requests again.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::requests::{find_id, shown_to};
use super::{ApiError, Asked};
use crate::actor::GroupName;
use crate::approval::json::RequestJson;
use crate::desk::DeskEvent;
use crate::statement::RequestId;
use crate::web::Web;
use crate::web::caller::{Caller, Proven};
use crate::web::streams::Listener;

/// A stream of events.
pub(in crate::web) type Stream =
    Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

/// How long a stream may be silent; proxies close silent connections.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is asked whether somebody may go on listening.
const RECHECK: Duration = Duration::from_secs(2);
/// Events that wait for a slow reader. Whoever is slower is told to ask again.
const WAITING: usize = 64;

/// What may stand behind `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    /// Only what is about this request.
    request: Option<String>,
}

#[derive(Serialize)]
struct EventJson {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestJson>,
}

pub(super) async fn events(
    State(web): State<Web>,
    caller: Caller,
    proven: Proven,
    Asked(about): Asked<About>,
) -> Result<Stream, ApiError> {
    let only = match about.request {
        Some(request) => Some(find_id(&web, &caller, &request)?),
        None => None,
    };
    let listener = match &caller {
        Caller::Reviewer(person) => Listener::Reviewer(person.reviewer().id.to_string()),
        Caller::Agent(agent) => Listener::Agent(agent.name.to_string()),
    };
    let teller = web.clone();
    let tell = move |event: &DeskEvent| -> Option<Event> {
        let id = event.id();
        if only.is_some_and(|only| only != id) {
            return None;
        }
        let view = teller.0.desk.request(&id.0.to_string());
        if let Caller::Agent(agent) = &caller {
            let its_own =
                view.as_ref().is_some_and(|view| view.request.draft.identity.agent.name == agent.name);
            if !its_own {
                return None;
            }
        }
        let to = match (event, &caller) {
            (DeskEvent::Escalated { to, .. }, Caller::Reviewer(_)) => Some(to.clone()),
            (_, Caller::Reviewer(_) | Caller::Agent(_)) => None,
        };
        let request = view.map(|view| shown_to(&caller, &view, false));
        let kind = word(event);
        let told = EventJson { kind, id: Some(id.code()), to, request };
        Event::default().event(kind).json_data(told).ok()
    };
    stream(&web, listener, move |web| proven.is_still_good(web), tell)
}

/// The stable word for an event.
pub(in crate::web) fn word(event: &DeskEvent) -> &'static str {
    match event {
        DeskEvent::Opened { .. } => "opened",
        DeskEvent::Joined { .. } => "joined",
        DeskEvent::Reviewed { .. } => "reviewed",
        DeskEvent::Escalated { .. } => "escalated",
        DeskEvent::Ended { .. } => "ended",
        DeskEvent::Ran { .. } => "ran",
        DeskEvent::LeftOver { .. } => "left_over",
    }
}

/// A short event for browsers, which then ask for what they show.
pub(in crate::web) fn brief(kind: &'static str, id: Option<RequestId>) -> Option<Event> {
    let told = EventJson { kind, id: id.map(|id| id.code()), to: None, request: None };
    Event::default().event(kind).json_data(told).ok()
}

/// Streams what `tell` makes of each event, for as long as `may_listen` says so. That is asked before
/// every event and every few seconds: who has signed out or was removed, or whose token was replaced,
/// hears nothing more.
pub(in crate::web) fn stream(
    web: &Web,
    listener: Listener,
    may_listen: impl Fn(&Web) -> bool + Send + Sync + 'static,
    tell: impl Fn(&DeskEvent) -> Option<Event> + Send + Sync + 'static,
) -> Result<Stream, ApiError> {
    let place = web.0.streams.place(listener).ok_or_else(ApiError::too_many_streams)?;
    let mut heard = web.0.desk.subscribe();
    let mut closing = web.0.closing.subscribe();
    let (sender, receiver) = mpsc::channel(WAITING);
    let web = web.clone();
    tokio::spawn(async move {
        let _place = place;
        let told = async {
            // Said at once, so that a reader knows from when on it misses nothing.
            let mut next = brief("ready", None);
            loop {
                if let Some(event) = next.take()
                    && sender.send(Ok(event)).await.is_err()
                {
                    return;
                }
                let event = heard.recv().await;
                if !may_listen(&web) {
                    return;
                }
                match event {
                    Ok(event) => next = tell(&event),
                    Err(RecvError::Lagged(_)) => next = brief("resync", None),
                    Err(RecvError::Closed) => return,
                }
            }
        };
        let lost = async {
            let mut check = tokio::time::interval(RECHECK);
            loop {
                check.tick().await;
                if !may_listen(&web) {
                    return;
                }
            }
        };
        tokio::select! {
            () = told => {}
            () = lost => {}
            _ = closing.changed() => {}
            () = sender.closed() => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(SILENCE)))
}
