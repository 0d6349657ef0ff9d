//! Ten thousand waiting requests: listing them and deciding one stay below 50 ms.

#[path = "../tests/support/samples.rs"]
mod samples;

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign::actor::{AgentIdentity, Reviewer};
use countersign::approval::request::TreeHead;
use countersign::approval::{Draft, Verdict};
use countersign::classify::{Classification, StatementClass};
use countersign::desk::{Answer, Clock, Desk, Filter, Limits, Recorder, Unrecorded};
use countersign::identity::reviewer::PersonalTokens;
use countersign::identity::secret::SecretHash;
use countersign::identity::{Directory, ReviewerEntry, ReviewerIdentity as _};
use countersign::ledger::Event;
use countersign::statement::{Digest, Fingerprint};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

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
    let sql = format!("COPY (SELECT * FROM t{number}) TO STDOUT");
    let agent = Arc::new(samples::agent(&format!("agent-{}", number % AGENTS)));
    let mut draft = samples::draft_of(&sql, number, samples::terms());
    draft.seal.agent = agent.name.clone();
    draft.classification = Arc::new(Classification {
        fingerprint: Fingerprint(Digest::of(&number.to_be_bytes())),
        ..samples::classified(StatementClass::Export)
    });
    draft.identity = Arc::new(AgentIdentity { agent, ..samples::identity("") });
    draft
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
            accounts: Vec::new(),
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
    let waiting = desk.counts().waiting;
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
