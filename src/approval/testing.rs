//! Made-up requests and people, for tests here and at the desk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::hold::{People, Reply};
use super::request::TransactionView;
use super::{Draft, Request, Seal};
use crate::actor::{
    Agent, AgentIdentity, AgentName, Assurance, AuthenticationMethod, ChannelName, Claims, GroupName,
    PersonName, Reviewer, ReviewerId, UpstreamName,
};
use crate::classify::{Classification, Effect, ObjectKind, Reason, StatementClass, StatementPart, Verb};
use crate::policy::{Approval, Escalation, InTransaction, Terms};
use crate::statement::{
    Digest, Fingerprint, RequestId, SessionId, SqlText, Statement, Step, Target, TransactionStatus,
};

/// 2026-01-05 10:00:00 UTC, a Monday.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_767_607_200).unwrap()
}

pub(crate) fn after(seconds: u64) -> Timestamp {
    start().checked_add(Duration::from_secs(seconds)).unwrap()
}

pub(crate) fn reviewer(id: &str, groups: &[&str]) -> Arc<Reviewer> {
    Arc::new(Reviewer {
        id: id.into(),
        also: Vec::new(),
        groups: groups.iter().map(|group| GroupName::from(*group)).collect(),
    })
}

pub(crate) fn approval(group: &str, count: u32) -> Approval {
    Approval { group: group.into(), count }
}

pub(crate) fn terms() -> Terms {
    Terms {
        rules: vec!["customer-export".into()],
        approvals: vec![approval("dba", 1)],
        reason_required: false,
        assurance: Assurance::Click,
        expires: Duration::from_secs(900),
        in_transaction: InTransaction::Wait(Duration::from_secs(120)),
        escalate: Vec::new(),
        defer: false,
        policy: Digest::of(b"policy"),
    }
}

pub(crate) fn escalation(after: u64, to: &str, stands_in_for: &[&str]) -> Escalation {
    Escalation {
        after: Duration::from_secs(after),
        to: to.into(),
        stands_in_for: stands_in_for.iter().map(|group| GroupName::from(*group)).collect(),
    }
}

pub(crate) fn classification(sql: &str) -> Classification {
    Classification {
        class: StatementClass::Export,
        parts: vec![StatementPart {
            kind: "CopyStmt".into(),
            class: StatementClass::Export,
            span: 0..u32::try_from(sql.len()).unwrap(),
        }],
        effects: vec![Effect::of(
            Verb::Export,
            ObjectKind::Relation,
            Some("public".into()),
            "customers".into(),
        )],
        reasons: vec![Reason {
            class: StatementClass::Export,
            text: "copies public.customers out".into(),
            span: None,
        }],
        steps: Arc::from([Step::default()]),
        names: Vec::new(),
        fingerprint: Fingerprint(Digest::of(sql.split(' ').next().unwrap_or_default().as_bytes())),
        syntax_error: None,
        redacted_sql: None,
        doubts: Vec::new(),
        bound_secrets: Arc::from([]),
        inseparable: None,
        if_confirmed: None,
        notes: Default::default(),
    }
}

/// A draft of `reporting-bot`, owned by alice, on session `session`, with `terms`.
pub(crate) fn draft_of(sql: &str, session: u128, terms: Terms) -> Draft {
    let statement = Statement::query(SqlText::from(sql));
    let agent = Arc::new(Agent {
        name: "reporting-bot".into(),
        owners: vec!["alice@example.com".into()],
        upstreams: vec!["app".into()],
    });
    let target = Target { upstream: "app".into(), database: "app".into(), role: "bot".into() };
    let session = SessionId(Uuid::from_u128(session));
    let settings = BTreeMap::from([("search_path".into(), "public".into())]);
    let mut claimed = Claims::default();
    claimed.set("model", "gpt-5.2");
    claimed.set("purpose", "monthly report");
    Draft {
        seal: Seal {
            statement: statement.digest(),
            agent: agent.name.clone(),
            session: (!terms.defer).then_some(session),
            upstream: target.upstream.clone(),
            database: target.database.clone(),
            role: target.role.clone(),
            settings,
        },
        classification: Arc::new(classification(sql)),
        identity: Arc::new(AgentIdentity {
            agent,
            method: AuthenticationMethod::ScramSha256Plus,
            client_address: "203.0.113.7".into(),
            certificate_fingerprint: None,
            verified: Claims::default(),
        }),
        claimed,
        session,
        target,
        statement,
        transaction: TransactionView { status: Some(TransactionStatus::Idle), ..TransactionView::default() },
        terms,
        refers_to: Vec::new(),
    }
}

pub(crate) const SQL: &str = "COPY customers TO STDOUT";

/// A request on `terms`, opened at [`start`].
pub(crate) fn request(terms: Terms) -> Arc<Request> {
    let id = RequestId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0123_4567_89ab));
    Arc::new(Request::open(id, draft_of(SQL, 1, terms), start(), None, Vec::new(), None).unwrap())
}

/// People as a made-up directory knows them.
#[derive(Clone, Default)]
pub(crate) struct Crowd {
    pub(crate) people: Vec<Arc<Reviewer>>,
    pub(crate) owners: Vec<PersonName>,
    /// The agent was revoked, or lost its upstream.
    pub(crate) agent_is_gone: bool,
}

impl Crowd {
    pub(crate) fn of(people: &[&Arc<Reviewer>]) -> Self {
        Self { people: people.iter().map(|person| (*person).clone()).collect(), ..Self::default() }
    }
}

impl People for Crowd {
    fn reviewer(&self, id: &ReviewerId) -> Option<Arc<Reviewer>> {
        self.people.iter().find(|person| person.id == *id).cloned()
    }

    fn owners(&self, _: &AgentName) -> Vec<PersonName> {
        self.owners.clone()
    }

    fn may_use(&self, _: &AgentName, _: &UpstreamName) -> bool {
        !self.agent_is_gone
    }
}

/// An answer by somebody who saw `request`.
pub(crate) fn reply(by: &Arc<Reviewer>, request: &Request) -> Reply {
    Reply {
        by: by.clone(),
        assurance: Assurance::Click,
        channel: ChannelName::Api,
        digest: request.digest,
        reason: None,
        displayed_at: None,
    }
}
