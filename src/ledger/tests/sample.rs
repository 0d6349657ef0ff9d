//! A ledger in a temporary directory, and one of everything to put into it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::actor::{ChannelName, Claims, GroupName, PersonName, Reviewer};
use crate::approval::request::TransactionView;
use crate::approval::seal::SealedSetting;
use crate::approval::{Draft, Grant, Release, Request, Review, Seal, Verdict};
use crate::classify::{Classification, Effect, ObjectKind, Reason, StatementClass, Verb};
use crate::ledger::clock::{Clock, ManualClock};
use crate::ledger::key::{KeyFiles, RootKey};
use crate::ledger::{
    Clearance, Event, HoldEnd, IntentId, Ledger, ReviewRecord, SessionInfo, SessionLog, Settings,
    StatementRecord,
};
use crate::policy::{Allowed, Assurance, Terms};
use crate::samples::{self, approval, identity, target};
use crate::statement::{
    Digest, Ending, Outcome, Parameter, RequestId, SessionId, SqlState, SqlText, Statement,
    TransactionStatus, Via,
};

pub(crate) const ORIGIN: &str = "example.com/ledger";
/// 2026-01-01T00:00:00Z
pub(crate) const START: u64 = 1_767_225_600_000_000_000;

/// A directory with a key, in which ledgers can be opened.
pub(crate) struct Place {
    pub(crate) directory: Arc<tempfile::TempDir>,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<ManualClock>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    pub(crate) fn in_directory(directory: tempfile::TempDir) -> Self {
        let path = directory.path().join("ledger.db");
        RootKey::generate(ORIGIN).unwrap().save(&KeyFiles::beside(&path)).unwrap();
        let clock = ManualClock::starting_at(START);
        let mut settings = Settings::new(path);
        settings.clock = Clock::Manual(clock.clone());
        settings.heads = vec![directory.path().join("head")];
        settings.segment_bytes = 1 << 20;
        settings.backlog_bytes = 8 << 20;
        Self { directory: Arc::new(directory), settings, clock }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.settings.path.clone()
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.directory.path().join("head")
    }

    pub(crate) fn open(&self) -> Ledger {
        Ledger::open(&self.settings).unwrap()
    }
}

pub(crate) fn settle(ledger: &Ledger) {
    assert!(ledger.flush(Duration::from_secs(20)), "the writer did not keep up");
}

pub(crate) fn session(number: u128, agent: &str) -> SessionInfo {
    SessionInfo {
        session: SessionId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number)),
        identity: Arc::new(identity(agent)),
        target: target("agent_rw"),
        claimed: Claims { model: Some("gpt-5.2".into()), ..Claims::default() },
        at: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn classified(class: StatementClass) -> Classification {
    Classification {
        effects: vec![Effect::of(
            Verb::Read,
            ObjectKind::Relation,
            Some("public".into()),
            "customers".into(),
        )],
        reasons: vec![Reason { class, text: format!("a {class} statement").into(), span: None }],
        ..samples::classified(class)
    }
}

pub(crate) fn query(sql: &str) -> Statement {
    Statement::query(SqlText::from(sql))
}

pub(crate) fn bound(sql: &str, value: &str) -> Statement {
    let value = Some(bytes::Bytes::copy_from_slice(value.as_bytes()));
    Statement {
        via: Via::Bind,
        sql: sql.into(),
        parameters: Arc::from([Parameter { format: 0, type_oid: 25, value }]),
    }
}

pub(crate) fn policy() -> Digest {
    Digest::of(b"policy")
}

/// A statement with everything that is recorded with it.
pub(crate) struct Asked {
    pub(crate) statement: Statement,
    pub(crate) classification: Classification,
    pub(crate) request: Option<RequestId>,
}

impl Asked {
    pub(crate) fn new(statement: Statement, class: StatementClass) -> Self {
        Self { statement, classification: classified(class), request: None }
    }

    pub(crate) fn record(&self) -> StatementRecord<'_> {
        StatementRecord {
            statement: &self.statement,
            digest: self.statement.digest(),
            classification: &self.classification,
            in_transaction: false,
            request: self.request,
            policy: policy(),
            rules: &[],
            wall: Timestamp::from_nanosecond(i128::from(START)).unwrap(),
        }
    }
}

pub(crate) fn completed(tag: &str, rows: u64) -> Outcome {
    Outcome {
        ending: Ending::Completed { tag: tag.into() },
        rows,
        bytes: rows * 10,
        transaction: Some(TransactionStatus::Idle),
        result_digest: None,
    }
}

pub(crate) fn failed(code: &str) -> Outcome {
    Outcome {
        ending: Ending::Failed { sqlstate: SqlState::new(code).unwrap() },
        rows: 0,
        bytes: 0,
        transaction: Some(TransactionStatus::Failed),
        result_digest: None,
    }
}

/// A routine read, forwarded and not yet answered.
pub(crate) fn read(log: &SessionLog, sql: &str) -> IntentId {
    let asked = Asked::new(query(sql), StatementClass::Read);
    log.record_intent(&asked.record(), Clearance::Allowed(Allowed::for_test(None, policy())))
        .unwrap()
        .intent()
}

/// The same, answered.
pub(crate) fn read_through(log: &SessionLog, sql: &str) {
    log.outcome(read(log, sql), &completed("SELECT 1", 1), 1_000);
}

pub(crate) fn terms(approvals: &[(&str, u32)]) -> Terms {
    Terms {
        approvals: approvals.iter().map(|(group, count)| approval(group, *count)).collect(),
        policy: policy(),
        ..samples::terms()
    }
}

/// A request for `asked` in the session `info`.
pub(crate) fn request(number: u128, info: &SessionInfo, asked: &Asked, terms: Terms) -> Arc<Request> {
    let opened_at = Timestamp::from_nanosecond(i128::from(START)).unwrap();
    let seal = Seal {
        statement: asked.statement.digest(),
        agent: info.identity.agent.name.clone(),
        session: Some(info.session),
        upstream: info.target.upstream.clone(),
        database: info.target.database.clone(),
        role: info.target.role.clone(),
        settings: [("search_path".into(), SealedSetting::Known("public".into()))].into(),
        batch_before: None,
        prepared: BTreeMap::new(),
    };
    Arc::new(Request {
        id: RequestId(Uuid::from_u128(0x0199_0000_0000_7000_9000_0000_0000_0000 + number)),
        digest: asked.statement.digest(),
        words: ["a", "b", "c", "d"],
        opened_at,
        expires_at: opened_at + terms.expires,
        checkpoint: None,
        draft: Draft {
            statement: asked.statement.clone(),
            classification: Arc::new(asked.classification.clone()),
            identity: info.identity.clone(),
            claimed: info.claimed.clone(),
            session: info.session,
            target: info.target.clone(),
            seal,
            transaction: TransactionView {
                status: Some(TransactionStatus::Idle),
                ..TransactionView::default()
            },
            terms,
            refers_to: Vec::new(),
        },
        past: Vec::new(),
        last_approved: None,
    })
}

pub(crate) fn person(id: &str, groups: &[&str]) -> Arc<Reviewer> {
    Arc::new(Reviewer {
        id: id.into(),
        also: vec![PersonName::from(format!("{id}.example").as_str())],
        groups: groups.iter().map(|group| GroupName::from(*group)).collect(),
    })
}

/// What a person says to a request.
pub(crate) fn answer(request: &Request, reviewer: &Arc<Reviewer>, verdict: Verdict) -> ReviewRecord {
    ReviewRecord {
        request: request.id,
        reviewer: reviewer.clone(),
        verdict,
        channel: ChannelName::Console,
        assurance: Assurance::Login,
        digest: request.digest,
        reason: Some("looks right".to_owned()),
        displayed_at: None,
        quick: true,
        not_counted: None,
        signature: None,
    }
}

pub(crate) fn grant(request: &Request, reviewers: &[&Arc<Reviewer>]) -> Release {
    let approvals = reviewers
        .iter()
        .map(|reviewer| Review {
            reviewer: reviewer.id.clone(),
            verdict: Verdict::Approve,
            assurance: Assurance::Login,
            channel: ChannelName::Console,
            reason: None,
            at: request.opened_at,
            digest: request.digest,
            quick: false,
        })
        .collect();
    let grant = Grant::for_test(Arc::new(request.clone()), approvals, request.expires_at);
    Release::for_test(grant, policy())
}

/// A held statement from the first question to its outcome.
pub(crate) fn held_through(
    ledger: &Ledger,
    log: &SessionLog,
    info: &SessionInfo,
    number: u128,
    sql: &str,
    (approvals, reviewers): (&[(&str, u32)], &[&Arc<Reviewer>]),
) {
    let mut asked = Asked::new(query(sql), StatementClass::Export);
    let request = request(number, info, &asked, terms(approvals));
    ledger.append(Event::RequestOpened { request: request.clone() }).unwrap();
    for reviewer in reviewers {
        ledger.append(Event::Review(Box::new(answer(&request, reviewer, Verdict::Approve)))).unwrap();
    }
    let end = |end| Event::HoldEnded { request: request.id, end, reason: None, by: None };
    ledger.append(end(HoldEnd::Granted)).unwrap();
    asked.request = Some(request.id);
    let receipt = log.record_intent(&asked.record(), Clearance::Granted(grant(&request, reviewers))).unwrap();
    log.outcome(receipt.intent(), &completed("COPY 3", 3), 5_000);
    ledger.append(end(HoldEnd::Executed)).unwrap();
}
