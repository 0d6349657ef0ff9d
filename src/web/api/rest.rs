//! Who asks, how everything is, sessions, policy, people.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use serde::Serialize;
use tracing::info;

use super::{ApiError, Given};
use crate::actor::{AgentName, Assurance, ChannelName, GroupName, PersonName, ReviewerId, UpstreamName};
use crate::statement::{Digest, SessionId};
use crate::web::caller::{Caller, Person};
use crate::web::views::{LedgerStatus, PartStatus, SessionRow};
use crate::web::what_if::{Question, WhatIf, what_if as ask};
use crate::web::{Web, off_thread};

/// Who the caller is.
#[derive(Serialize)]
pub(super) struct WhoAmI {
    /// `reviewer` or `agent`.
    kind: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assurance: Option<Assurance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<ChannelName>,
}

pub(super) async fn whoami(caller: Caller) -> Json<WhoAmI> {
    Json(match caller {
        Caller::Reviewer(person) => WhoAmI {
            kind: "reviewer",
            id: person.reviewer().id.to_string(),
            groups: person.reviewer().groups.clone(),
            assurance: Some(person.assurance()),
            channel: Some(person.channel()),
        },
        Caller::Agent(agent) => WhoAmI {
            kind: "agent",
            id: agent.name.to_string(),
            groups: Vec::new(),
            assurance: None,
            channel: None,
        },
    })
}

/// How everything is.
#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct Status {
    /// Everything below works.
    pub(in crate::web) healthy: bool,
    pub(in crate::web) version: &'static str,
    pub(in crate::web) now: Timestamp,
    pub(in crate::web) started_at: Timestamp,
    pub(in crate::web) url: String,
    pub(in crate::web) ledger: LedgerStatus,
    pub(in crate::web) policy: PolicyStatus,
    pub(in crate::web) requests: RequestCounts,
    pub(in crate::web) sessions: SessionCounts,
    pub(in crate::web) upstreams: Vec<PartStatus>,
    pub(in crate::web) channels: Vec<PartStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct PolicyStatus {
    pub(in crate::web) digest: Digest,
    pub(in crate::web) rules: usize,
    pub(in crate::web) cases: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct RequestCounts {
    pub(in crate::web) waiting: usize,
    pub(in crate::web) remembered: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(in crate::web) struct SessionCounts {
    pub(in crate::web) open: usize,
    pub(in crate::web) held: usize,
}

impl Web {
    /// How everything is. May wait for locks.
    pub(in crate::web) fn status(&self) -> Status {
        let views = &self.0.views;
        let ledger = views.ledger.status();
        let policy = views.policy.policy();
        let sessions = views.sessions.sessions();
        let (upstreams, channels) = (views.health.upstreams(), views.health.channels());
        let counts = self.0.desk.counts();
        let held = sessions.iter().filter(|session| session.request.is_some()).count();
        Status {
            healthy: ledger.writable && upstreams.iter().chain(&channels).all(|part| part.healthy),
            version: env!("CARGO_PKG_VERSION"),
            now: self.now(),
            started_at: self.0.started,
            url: self.0.settings.url.to_string(),
            policy: PolicyStatus {
                digest: policy.digest(),
                rules: policy.rules().len(),
                cases: policy.cases().len(),
            },
            requests: RequestCounts { waiting: counts.waiting, remembered: counts.ended },
            sessions: SessionCounts { open: sessions.len(), held },
            ledger,
            upstreams,
            channels,
        }
    }
}

pub(super) async fn status(State(web): State<Web>, _: Person) -> Result<Json<Status>, ApiError> {
    off_thread(move || web.status()).await.map(Json).ok_or_else(ApiError::internal)
}

pub(super) async fn sessions(State(web): State<Web>, _: Person) -> Result<Json<Vec<SessionRow>>, ApiError> {
    off_thread(move || web.0.views.sessions.sessions()).await.map(Json).ok_or_else(ApiError::internal)
}

/// What ending a session is answered with.
#[derive(Serialize)]
pub(super) struct Killed {
    id: SessionId,
    killed: bool,
}

pub(super) async fn kill(
    State(web): State<Web>,
    Person(by): Person,
    Path(id): Path<String>,
) -> Result<Json<Killed>, ApiError> {
    let id = web.kill(&id, by.reviewer().id.clone()).await?;
    Ok(Json(Killed { id, killed: true }))
}

impl Web {
    /// Ends a session. Any reviewer may: it is a denial of what comes next, and needs no more.
    pub(in crate::web) async fn kill(&self, id: &str, by: ReviewerId) -> Result<SessionId, ApiError> {
        let unknown = || {
            let hint = "/api/v1/sessions lists those that are open.";
            ApiError::unknown("unknown_session", "no such session", hint)
        };
        let id = uuid::Uuid::try_parse(id).map(SessionId).map_err(|_| unknown())?;
        let sessions = self.0.views.sessions.clone();
        let who = by.clone();
        if !off_thread(move || sessions.kill(id, &who)).await.ok_or_else(ApiError::internal)?? {
            return Err(unknown());
        }
        info!(session = %id, reviewer = %by, "session ended by a reviewer");
        Ok(id)
    }
}

/// The policy set in force.
#[derive(Serialize)]
pub(super) struct Policies {
    digest: Digest,
    /// The set in its normal form, which the digest is of.
    set: serde_json::Value,
    cases: usize,
}

pub(super) async fn policies(State(web): State<Web>, _: Person) -> Json<Policies> {
    let policy = web.0.views.policy.policy();
    let set = serde_json::from_str(&policy.normal_form()).unwrap_or_default();
    Json(Policies { digest: policy.digest(), set, cases: policy.cases().len() })
}

pub(super) async fn what_if(
    State(web): State<Web>,
    _: Person,
    Given(question): Given<Question>,
) -> Result<Json<WhatIf>, ApiError> {
    Ok(Json(ask(&*web.0.views.policy, &web.0.directory.load(), &question, web.now())?))
}

/// An agent, as configured.
#[derive(Serialize)]
pub(super) struct AgentJson {
    name: AgentName,
    owners: Vec<PersonName>,
    upstreams: Vec<UpstreamName>,
}

pub(super) async fn agents(State(web): State<Web>, _: Person) -> Json<Vec<AgentJson>> {
    let directory = web.0.directory.load();
    let json = |entry: &crate::identity::AgentEntry| AgentJson {
        name: entry.agent.name.clone(),
        owners: entry.agent.owners.clone(),
        upstreams: entry.agent.upstreams.clone(),
    };
    Json(directory.agents().map(json).collect())
}

/// A reviewer, as enrolled.
#[derive(Serialize)]
pub(super) struct ReviewerJson {
    id: ReviewerId,
    also: Vec<PersonName>,
    groups: Vec<GroupName>,
    /// Personal tokens they have.
    tokens: usize,
    /// Chat accounts they have, by channel.
    #[serde(flatten)]
    accounts: BTreeMap<&'static str, usize>,
}

pub(super) async fn reviewers(State(web): State<Web>, _: Person) -> Json<Vec<ReviewerJson>> {
    let directory = web.0.directory.load();
    let json = |entry: &crate::identity::ReviewerEntry| ReviewerJson {
        id: entry.reviewer.id.clone(),
        also: entry.reviewer.also.clone(),
        groups: entry.reviewer.groups.clone(),
        tokens: entry.tokens.len(),
        accounts: ChannelName::WITH_ACCOUNTS
            .into_iter()
            .map(|channel| (channel.as_str(), entry.accounts_on(channel).count()))
            .collect(),
    };
    Json(directory.reviewers().map(json).collect())
}
