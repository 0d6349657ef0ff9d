//! Ten thousand waiting requests: listing them and deciding one stay below 50 ms.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign::actor::{Agent, AgentIdentity, Assurance, AuthenticationMethod, Claims, Reviewer};
use countersign::approval::request::{TransactionView, TreeHead};
use countersign::approval::{Draft, Seal, Verdict};
use countersign::classify::{Classification, StatementClass};
use countersign::desk::{Answer, Clock, Desk, Filter, Limits, Recorder, Unrecorded};
use countersign::identity::reviewer::PersonalTokens;
use countersign::identity::secret::SecretHash;
use countersign::identity::{Directory, ReviewerEntry, ReviewerIdentity as _};
use countersign::ledger::Event;
use countersign::policy::{Approval, InTransaction, Terms};
use countersign::statement::{Digest, Fingerprint, SessionId, Statement, Target, TransactionStatus};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use uuid::Uuid;

/// A ledger that takes no time, so that the desk's own is seen.
struct Nothing;

impl Recorder for Nothing {
    fn append(&self, _: Event) -> Result<(), Unrecorded> {
        Ok(())
    }

    fn head(&self) -> Option<TreeHead> {
        None
    }
}

const AGENTS: u128 = 500;
const WAITING: u128 = 10_000;

fn draft(number: u128) -> Draft {
    let statement = Statement::query(format!("COPY (SELECT * FROM t{number}) TO STDOUT").as_str().into());
    let agent = Arc::new(Agent {
        name: format!("agent-{}", number % AGENTS).as_str().into(),
        owners: vec!["alice@example.com".into()],
        upstreams: vec!["app".into()],
    });
    let target = Target { upstream: "app".into(), database: "app".into(), role: "bot".into() };
    let session = SessionId(Uuid::from_u128(number));
    Draft {
        seal: Seal {
            statement: statement.digest(),
            agent: agent.name.clone(),
            session: Some(session),
            upstream: target.upstream.clone(),
            database: target.database.clone(),
            role: target.role.clone(),
            settings: BTreeMap::new(),
        },
        classification: Arc::new(Classification {
            class: StatementClass::Export,
            parts: Vec::new(),
            effects: Vec::new(),
            reasons: Vec::new(),
            steps: Arc::from([]),
            names: Vec::new(),
            fingerprint: Fingerprint(Digest::of(&number.to_be_bytes())),
            syntax_error: None,
            redacted_sql: None,
            doubts: Vec::new(),
            bound_secrets: Arc::from([]),
            inseparable: None,
            if_confirmed: None,
            notes: Default::default(),
        }),
        identity: Arc::new(AgentIdentity {
            agent,
            method: AuthenticationMethod::ScramSha256,
            client_address: "203.0.113.7".into(),
            certificate_fingerprint: None,
            verified: Claims::default(),
        }),
        claimed: Claims::default(),
        session,
        target,
        statement,
        transaction: TransactionView { status: Some(TransactionStatus::Idle), ..TransactionView::default() },
        terms: Terms {
            rules: Vec::new(),
            approvals: vec![Approval { group: "dba".into(), count: 1 }],
            reason_required: false,
            assurance: Assurance::Click,
            expires: Duration::from_secs(900),
            in_transaction: InTransaction::Refuse,
            escalate: Vec::new(),
            defer: false,
            policy: Digest::of(b"policy"),
        },
        refers_to: Vec::new(),
    }
}

fn directory() -> Directory {
    let people = (0..30)
        .map(|number| ReviewerEntry {
            reviewer: Arc::new(Reviewer {
                id: format!("reviewer-{number}").as_str().into(),
                also: vec![format!("r{number}@example.com").as_str().into()],
                groups: vec!["dba".into()],
            }),
            tokens: vec![SecretHash::of(&format!("csr_{number}"))],
            slack: Vec::new(),
        })
        .collect();
    match Directory::new(Vec::new(), people, [0; 32]) {
        Ok(directory) => directory,
        Err(conflicts) => unreachable!("{conflicts:?}"),
    }
}

fn desk(criterion: &mut Criterion) {
    let directory = Arc::new(ArcSwap::from_pointee(directory()));
    let limits = Limits {
        waiting_per_agent: 1_000_000,
        waiting: 1_000_000,
        opened_per_minute: usize::MAX,
        ..Limits::default()
    };
    let desk = Desk::new(limits, Arc::new(Nothing), directory.clone(), Clock::real());
    // Sessions that wait, for as long as the benchmark runs.
    let mut sessions: Vec<_> = (0..WAITING).filter_map(|number| desk.open(draft(number)).ok()).collect();
    let waiting = desk.counts().0;
    let Ok(reviewer) = PersonalTokens.recognise(&directory.load(), "csr_7", desk.now()) else {
        unreachable!("the token is known")
    };

    let mut group = criterion.benchmark_group(format!("desk/{waiting} waiting"));
    group.sample_size(20);
    group.bench_function("list all", |bench| {
        bench.iter(|| black_box(desk.requests(&Filter::waiting())).len())
    });
    group.bench_function("list all as JSON", |bench| {
        bench.iter(|| {
            let views = desk.requests(&Filter::waiting());
            let json: Vec<_> = views.iter().map(|view| view.to_json(false)).collect();
            serde_json::to_vec(&json).map(|bytes| bytes.len())
        });
    });
    let mut next = WAITING;
    group.bench_function("open and approve one", |bench| {
        bench.iter_batched(
            || {
                next += 1;
                draft(next)
            },
            |draft| {
                let Ok(opened) = desk.open(draft) else { unreachable!("there is room") };
                let answer = Answer {
                    by: reviewer.clone(),
                    digest: opened.request.digest,
                    reason: None,
                    displayed_at: None,
                };
                let given = desk.verdict(opened.request.id, Verdict::Approve, answer).is_ok();
                sessions.push(opened);
                given
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, desk);
criterion_main!(benches);
