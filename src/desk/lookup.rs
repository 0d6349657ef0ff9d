//! Requests are looked up: lists for console, API and channels, and single ones.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::index::{Entry, EntryState, LinePosition};
use super::view::{EligibleReviewers, Enrolled};
use super::{Desk, Filter, RequestView};
use crate::actor::{AgentName, ReviewerId};
use crate::approval::HoldState;
use crate::identity::Directory;
use crate::statement::RequestId;

impl Desk {
    /// The requests that `filter` asks for, newest first.
    #[must_use]
    pub fn requests(&self, filter: &Filter) -> Vec<RequestView> {
        let now = self.now();
        let directory = self.0.directory.load();
        let mut eligible = EligibleReviewers::new(&directory);
        let entries: Vec<(Arc<Entry>, LinePosition)> = {
            let index = self.0.index.lock();
            index.newest_first(filter.before).map(|entry| (entry.clone(), index.position(entry))).collect()
        };
        let mut views = Vec::new();
        for (entry, behind) in &entries {
            if filter.limit.is_some_and(|limit| views.len() >= limit) {
                break;
            }
            let agent = &entry.request.draft.identity.agent.name;
            if filter.agent.as_ref().is_some_and(|wanted| wanted != agent) {
                continue;
            }
            let live = entry.live.lock();
            let state = live.hold.state_at(now);
            let is_unwanted = filter.state.as_ref().is_some_and(|wanted| wanted != state.as_str());
            if is_unwanted || (filter.ended && state == HoldState::Waiting) {
                continue;
            }
            let view = view_of(entry, &live, state, *behind, &mut eligible, &directory, now);
            if filter.for_reviewer.as_ref().is_none_or(|person| view.may_answer.contains(person)) {
                views.push(view);
            }
        }
        views
    }

    /// One request, by the code people use or by its UUID.
    #[must_use]
    pub fn request(&self, code_or_uuid: &str) -> Option<RequestView> {
        let id = self.find(code_or_uuid)?;
        let (entry, behind) = {
            let index = self.0.index.lock();
            let entry = index.get(id)?;
            let behind = index.position(&entry);
            (entry, behind)
        };
        let now = self.now();
        let directory = self.0.directory.load();
        let live = entry.live.lock();
        let state = live.hold.state_at(now);
        Some(view_of(&entry, &live, state, behind, &mut EligibleReviewers::new(&directory), &directory, now))
    }

    /// Notes that the document of a request is displayed to `to` at this moment. The first time counts:
    /// it is what an answer of theirs is measured by, whatever the answer says of itself.
    pub fn note_displayed(&self, id: RequestId, to: &ReviewerId) {
        let entry = self.0.index.lock().get(id);
        if let Some(entry) = entry {
            let now = self.now();
            let mut live = entry.live.lock();
            if live.hold.state_at(now) == HoldState::Waiting {
                live.displayed.entry(to.clone()).or_insert(now);
            }
        }
    }

    /// The same of a request of `agent`: to an agent the requests of others do not exist, and are not
    /// looked at any longer than if they did not.
    #[must_use]
    pub fn find_of(&self, agent: &AgentName, code_or_uuid: &str) -> Option<RequestId> {
        let id = self.find(code_or_uuid)?;
        let entry = self.0.index.lock().get(id)?;
        (entry.request.draft.identity.agent.name == *agent).then_some(id)
    }

    /// The id behind a code or a UUID, while the request is remembered.
    #[must_use]
    pub fn find(&self, code_or_uuid: &str) -> Option<RequestId> {
        let index = self.0.index.lock();
        if let Ok(uuid) = Uuid::try_parse(code_or_uuid.trim()) {
            return index.get(RequestId(uuid)).map(|entry| entry.request.id);
        }
        index.by_code(&RequestId::normalise_code(code_or_uuid)?).map(|entry| entry.request.id)
    }
}

fn view_of(
    entry: &Entry,
    live: &EntryState,
    state: HoldState,
    LinePosition { behind, is_behind }: LinePosition,
    eligible: &mut EligibleReviewers<'_>,
    directory: &Directory,
    now: Timestamp,
) -> RequestView {
    let waits = state == HoldState::Waiting;
    let required = if waits { live.hold.required_at(now) } else { Vec::new() };
    RequestView {
        request: entry.request.clone(),
        missing: if waits { live.hold.missing_at(&Enrolled(directory), now) } else { Vec::new() },
        may_answer: if waits { eligible.of(&live.hold, &required) } else { Vec::new() },
        required,
        notified: live.hold.notified(),
        reviews: live.hold.reviews().to_vec(),
        state,
        behind,
        is_behind,
        receipt: live.receipt.clone(),
    }
}
