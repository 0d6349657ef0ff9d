//! Requests as the desk knows them: what channels, console and API ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Agent, AgentName, GroupName, PersonName, Reviewer, ReviewerId, UpstreamName};
use crate::approval::hold::People;
use crate::approval::json::{ReceiptJson, RequestJson};
use crate::approval::quorum::{self, RequiredGroup};
use crate::approval::{Document, Hold, HoldState, Request, Review, Verdict};
use crate::identity::Directory;
use crate::policy::Approval;
use crate::statement::{Ending, Outcome, RequestId};

/// A request, how it stands, and who may still answer it.
#[derive(Clone, Debug)]
pub struct RequestView {
    /// What it is about.
    pub request: Arc<Request>,
    /// How it stands.
    pub state: HoldState,
    /// The answers that counted.
    pub reviews: Vec<Review>,
    /// Who is still missing, by group.
    pub missing: Vec<Approval>,
    /// Who may still approve.
    pub may_answer: Vec<ReviewerId>,
    /// What is asked now, escalations included; empty once it does not wait any more.
    pub required: Vec<RequiredGroup>,
    /// How many of the rule's further groups were notified of it, in order.
    pub notified: usize,
    /// Identical requests that wait behind it.
    pub behind: usize,
    /// It waits behind another, identical one, and has no card of its own yet.
    pub is_behind: bool,
    /// What the approved statement did.
    pub receipt: Option<ReceiptJson>,
}

impl RequestView {
    /// A request that the desk has forgotten, as it ended.
    #[must_use]
    pub fn forgotten(request: Arc<Request>, state: HoldState) -> Self {
        Self {
            request,
            state,
            reviews: Vec::new(),
            missing: Vec::new(),
            may_answer: Vec::new(),
            required: Vec::new(),
            notified: 0,
            behind: 0,
            is_behind: false,
            receipt: None,
        }
    }

    /// The API's JSON, with the whole document or, for lists, without.
    #[must_use]
    pub fn to_json(&self, with_document: bool) -> RequestJson {
        RequestJson {
            twins: self.behind,
            missing: self.missing.clone(),
            may_answer: self.may_answer.clone(),
            receipt: self.receipt.clone(),
            document: with_document.then(|| Document::of(&self.request)),
            ..RequestJson::of(&self.request, &self.state, &self.reviews)
        }
    }
}

/// Which requests to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those that stand so (`waiting`, `denied`, ..).
    pub state: Option<String>,
    /// Only those that do not wait any more.
    pub ended: bool,
    /// Only those that were opened before this one: where a page of a list begins.
    pub before: Option<RequestId>,
    /// Only those of this agent. An agent's or a webhook's credential sees nothing else.
    pub agent: Option<AgentName>,
    /// Only those that this person may approve.
    pub for_reviewer: Option<ReviewerId>,
    /// At most so many, newest first.
    pub limit: Option<usize>,
}

impl Filter {
    /// Those that wait.
    #[must_use]
    pub fn waiting() -> Self {
        Self { state: Some("waiting".to_owned()), ..Self::default() }
    }
}

/// The people of a directory, as a hold asks for them.
pub(super) struct Enrolled<'a>(pub(super) &'a Directory);

impl People for Enrolled<'_> {
    fn reviewer(&self, id: &ReviewerId) -> Option<Arc<Reviewer>> {
        self.0.reviewer(id).map(|entry| entry.reviewer.clone())
    }

    fn owners(&self, agent: &AgentName) -> Vec<PersonName> {
        self.0.owners(agent).to_vec()
    }

    fn may_use(&self, agent: &AgentName, upstream: &UpstreamName) -> bool {
        self.0.agent(agent).is_some_and(|entry| entry.agent.upstreams.contains(upstream))
    }
}

/// Works out who may answer, and remembers it: of ten thousand waiting requests most ask the same
/// groups for the same few agents.
pub(super) struct EligibleReviewers<'a> {
    directory: &'a Directory,
    known: BTreeMap<(AgentName, Vec<GroupName>), Vec<Arc<Reviewer>>>,
}

impl<'a> EligibleReviewers<'a> {
    pub(super) fn new(directory: &'a Directory) -> Self {
        Self { directory, known: BTreeMap::new() }
    }

    /// The people who may still approve `hold`.
    pub(super) fn of(&mut self, hold: &Hold, required: &[RequiredGroup]) -> Vec<ReviewerId> {
        let agent = &hold.request().draft.identity.agent;
        let mut groups: Vec<GroupName> = required
            .iter()
            .flat_map(|needed| std::iter::once(&needed.group).chain(&needed.stand_ins))
            .cloned()
            .collect();
        groups.sort();
        groups.dedup();
        let directory = self.directory;
        self.known
            .entry((agent.name.clone(), groups))
            .or_insert_with_key(|(_, groups)| people_of(directory, agent, groups, required))
            .iter()
            .filter(|person| !has_approved(hold, person))
            .map(|person| person.id.clone())
            .collect()
    }
}

fn has_approved(hold: &Hold, person: &Reviewer) -> bool {
    hold.reviews().iter().any(|review| review.verdict == Verdict::Approve && review.reviewer == person.id)
}

fn people_of(
    directory: &Directory,
    agent: &Agent,
    groups: &[GroupName],
    required: &[RequiredGroup],
) -> Vec<Arc<Reviewer>> {
    let owners = directory.owners(&agent.name);
    let mut people: Vec<Arc<Reviewer>> = groups
        .iter()
        .flat_map(|group| directory.members(group))
        .filter(|person| quorum::may_approve(person, agent, owners, required).is_ok())
        .cloned()
        .collect();
    people.sort_by(|a, b| a.id.cmp(&b.id));
    people.dedup_by(|a, b| a.id == b.id);
    people
}

/// What a statement did, for its card.
pub(super) fn receipt(outcome: &Outcome, duration: Duration) -> ReceiptJson {
    let (result, completed) = match &outcome.ending {
        Ending::Completed { tag } => (tag.to_string(), true),
        Ending::Failed { sqlstate } => (sqlstate.to_string(), false),
        Ending::NotExecuted => ("not executed".to_owned(), false),
        Ending::FailedAfterCommit { tag, sqlstate } => {
            (format!("{sqlstate} after what it had committed: {tag}"), false)
        }
        Ending::Unknown { tag, sqlstate } => {
            let mut known = "unknown what is kept of it".to_owned();
            if let Some(sqlstate) = sqlstate {
                known = format!("{sqlstate}, {known}");
            }
            if !tag.is_empty() {
                known = format!("{known}; completed before: {tag}");
            }
            (known, false)
        }
    };
    ReceiptJson {
        result,
        completed,
        rows: outcome.rows,
        bytes: outcome.bytes,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    }
}
