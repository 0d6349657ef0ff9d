//! Sample agents, statements, requests and people, for the tests of the crate, the test binaries and the
//! benchmarks.
//!
//! The crate's own tests include this file by its path, so that it is compiled once more there and the
//! crate needs no feature for tests. `countersign` is the crate's name from inside as well (`lib.rs`).
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and what is wrong should stop the test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use countersign::actor::{
    Agent, AgentIdentity, AgentName, Assurance, AuthenticationMethod, ChannelName, Claims, GroupName,
    PersonName, Reviewer, ReviewerId, UpstreamName,
};
use countersign::approval::hold::{People, Reply};
use countersign::approval::request::TransactionView;
use countersign::approval::seal::SealedSetting;
use countersign::approval::{Draft, Request, Seal};
use countersign::classify::{
    Classification, Effect, ObjectKind, Reason, StatementClass, StatementPart, Verb,
};
use countersign::policy::{Approval, Escalation, InTransaction, Terms};
use countersign::statement::{
    Digest, Fingerprint, RequestId, SessionId, SqlText, Statement, Step, Target, TransactionStatus,
};

/// 2026-01-05 10:00:00 UTC, a Monday.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_767_607_200).unwrap()
}

pub fn after(seconds: u64) -> Timestamp {
    start().checked_add(Duration::from_secs(seconds)).unwrap()
}

pub fn reviewer(id: &str, groups: &[&str]) -> Arc<Reviewer> {
    Arc::new(Reviewer {
        id: id.into(),
        also: Vec::new(),
        groups: groups.iter().map(|group| GroupName::from(*group)).collect(),
    })
}

pub fn approval(group: &str, count: u32) -> Approval {
    Approval { group: group.into(), count }
}

pub fn terms() -> Terms {
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

pub fn escalation(after: u64, to: &str, stands_in_for: &[&str]) -> Escalation {
    Escalation {
        after: Duration::from_secs(after),
        to: to.into(),
        stands_in_for: stands_in_for.iter().map(|group| GroupName::from(*group)).collect(),
    }
}

/// A classification of which nothing is known but the class.
pub fn classified(class: StatementClass) -> Classification {
    Classification {
        class,
        parts: Vec::new(),
        effects: Vec::new(),
        reasons: Vec::new(),
        steps: Arc::from([]),
        names: Vec::new(),
        fingerprint: Fingerprint(Digest::of(class.as_str().as_bytes())),
        syntax_error: None,
        redacted_sql: None,
        doubts: Vec::new(),
        bound_secrets: Arc::from([]),
        inseparable: None,
        if_confirmed: None,
        notes: Default::default(),
    }
}

/// The classification of `COPY customers TO STDOUT`, for any text.
pub fn customer_export(sql: &str) -> Classification {
    Classification {
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
        fingerprint: Fingerprint(Digest::of(sql.split(' ').next().unwrap_or_default().as_bytes())),
        ..classified(StatementClass::Export)
    }
}

/// An agent of Alice's that may use the upstream `app`.
pub fn agent(name: &str) -> Agent {
    Agent { name: name.into(), owners: vec!["alice@example.com".into()], upstreams: vec!["app".into()] }
}

/// The same agent, connected with its password.
pub fn identity(name: &str) -> AgentIdentity {
    AgentIdentity {
        agent: Arc::new(agent(name)),
        method: AuthenticationMethod::ScramSha256,
        client_address: "203.0.113.7".into(),
        certificate_fingerprint: None,
        verified: Claims::default(),
    }
}

/// The database `app` of the upstream `app`, under that role.
pub fn target(role: &str) -> Target {
    Target { upstream: "app".into(), database: "app".into(), role: role.into() }
}

/// A draft of `reporting-bot`, owned by alice, on session `session`, with `terms`.
pub fn draft_of(sql: &str, session: u128, terms: Terms) -> Draft {
    let statement = Statement::query(SqlText::from(sql));
    let identity = identity("reporting-bot");
    let target = target("bot");
    let session = SessionId(Uuid::from_u128(session));
    let mut claimed = Claims::default();
    claimed.set("model", "gpt-5.2");
    claimed.set("purpose", "monthly report");
    Draft {
        seal: Seal {
            statement: statement.digest(),
            agent: identity.agent.name.clone(),
            session: (!terms.defer).then_some(session),
            upstream: target.upstream.clone(),
            database: target.database.clone(),
            role: target.role.clone(),
            settings: BTreeMap::from([("search_path".into(), SealedSetting::Known("public".into()))]),
            batch_before: None,
            prepared: BTreeMap::new(),
        },
        classification: Arc::new(customer_export(sql)),
        identity: Arc::new(AgentIdentity { method: AuthenticationMethod::ScramSha256Plus, ..identity }),
        claimed,
        session,
        target,
        statement,
        transaction: TransactionView { status: Some(TransactionStatus::Idle), ..TransactionView::default() },
        terms,
        refers_to: Vec::new(),
    }
}

pub const SQL: &str = "COPY customers TO STDOUT";

/// A request on `terms`, opened at [`start`].
pub fn request(terms: Terms) -> Arc<Request> {
    let id = RequestId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0123_4567_89ab));
    Arc::new(Request::open(id, draft_of(SQL, 1, terms), start(), None, Vec::new(), None).unwrap())
}

/// A directory of people, without their secrets.
#[derive(Clone, Default)]
pub struct SamplePeople {
    pub people: Vec<Arc<Reviewer>>,
    pub owners: Vec<PersonName>,
    /// The agent was revoked, or lost its upstream.
    pub agent_is_gone: bool,
}

impl SamplePeople {
    pub fn of(people: &[&Arc<Reviewer>]) -> Self {
        Self { people: people.iter().map(|person| (*person).clone()).collect(), ..Self::default() }
    }
}

impl People for SamplePeople {
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
pub fn reply(by: &Arc<Reviewer>, request: &Request) -> Reply {
    Reply {
        by: by.clone(),
        assurance: Assurance::Click,
        channel: ChannelName::Api,
        digest: request.digest,
        reason: None,
        displayed_at: None,
    }
}
