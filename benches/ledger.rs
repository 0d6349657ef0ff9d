//! What the ledger costs: on a statement's path, sustained, and for the auditor. Reports figures, asserts none.
//!
//! `COUNTERSIGN_BENCH_ENTRIES` sets the size of the ledger that is verified (default 1,000,000);
//! `COUNTERSIGN_BENCH_DIR` the directory, and with it the disk.
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(missing_docs, reason = "a benchmark has no callers")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark may fail loudly"
)]

#[path = "../tests/support/samples.rs"]
mod samples;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::actor::Claims;
use countersign::classify::{Classification, Effect, ObjectKind, Reason, SearchPath, StatementClass, Verb};
use countersign::ledger::key::{KeyFiles, RootKey};
use countersign::ledger::verify::{Options, Progress, verify};
use countersign::ledger::{Clearance, Ledger, SessionInfo, SessionLog, Settings, Signing, StatementRecord};
use countersign::policy::{Decision, Defaults, Policy, Subject};
use countersign::statement::{Digest, Ending, Outcome, SessionId, Statement, TransactionStatus};
use uuid::Uuid;

fn main() {
    // `cargo test --benches` runs this too, and wants it to be quick.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let entries =
        std::env::var("COUNTERSIGN_BENCH_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    latency();
    for signing in [Signing::EveryEntry, Signing::Checkpoint] {
        for index in [false, true] {
            sustained(signing, index, 300_000);
        }
    }
    for signing in [Signing::EveryEntry, Signing::Checkpoint] {
        verification(signing, entries);
    }
}

/// A ledger in a directory of its own.
struct Bench {
    directory: tempfile::TempDir,
    settings: Settings,
    policy: Policy,
}

impl Bench {
    fn new(signing: Signing, index: bool) -> Self {
        let directory = match std::env::var_os("COUNTERSIGN_BENCH_DIR") {
            Some(path) => tempfile::tempdir_in(path).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let path = directory.path().join("ledger.db");
        RootKey::generate("bench.example/ledger").unwrap().save(&KeyFiles::beside(&path)).unwrap();
        let mut settings = Settings::new(path);
        settings.signing = signing;
        settings.index = index;
        settings.backlog_bytes = 4 << 30;
        let policy = Policy::load(&[], Defaults::default()).unwrap();
        Self { directory, settings, policy }
    }

    fn open(&self) -> Ledger {
        Ledger::open(&self.settings).unwrap()
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }
}

/// One statement like those of pgbench -S, with all that is recorded with it.
struct Asked {
    statement: Statement,
    classification: Classification,
    info: SessionInfo,
}

impl Asked {
    fn new(class: StatementClass) -> Self {
        let mut claimed = Claims::default();
        claimed.set("model", "gpt-5.2");
        claimed.set("run", "r-81");
        let classification = Classification {
            effects: vec![Effect {
                qualified: false,
                ..Effect::of(
                    Verb::Read,
                    ObjectKind::Relation,
                    Some("public".into()),
                    "pgbench_accounts".into(),
                )
            }],
            reasons: vec![Reason { class, text: "reads rows of pgbench_accounts".into(), span: None }],
            ..samples::classified(class)
        };
        Self {
            statement: Statement::query("SELECT abalance FROM pgbench_accounts WHERE aid = 4711;".into()),
            classification,
            info: SessionInfo {
                session: SessionId(Uuid::now_v7()),
                identity: Arc::new(samples::identity("reporting-bot")),
                target: samples::target("agent_rw"),
                claimed,
                at: jiff::Timestamp::now(),
            },
        }
    }

    fn clearance(&self, policy: &Policy) -> Clearance {
        let subject = Subject {
            agent: &self.info.identity.agent,
            target: &self.info.target,
            classification: &self.classification,
            search_path: &SearchPath::Unknown,
            in_transaction: false,
            claimed_defer: false,
            now: jiff::Timestamp::now(),
        };
        match policy.decide(&subject) {
            Decision::Allow(allowed) => Clearance::Allowed(allowed),
            _ => Clearance::Doomed,
        }
    }

    fn record(&self, digest: Digest, policy: Digest) -> StatementRecord<'_> {
        StatementRecord {
            statement: &self.statement,
            digest,
            classification: &self.classification,
            in_transaction: false,
            request: None,
            policy,
            rules: &[],
            wall: jiff::Timestamp::now(),
        }
    }
}

fn outcome() -> Outcome {
    Outcome {
        ending: Ending::Completed { tag: "SELECT 1".into() },
        rows: 1,
        bytes: 24,
        transaction: Some(TransactionStatus::Idle),
        result_digest: None,
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:>9.2?}   p99 {:>9.2?}   max {:>9.2?}", at(0.5), at(0.99), at(1.0))
}

/// The part of recording that a statement waits for.
fn latency() {
    for (name, class, count) in [
        ("append, routine", StatementClass::Read, 200_000),
        ("append, privileged (fdatasync)", StatementClass::Ddl, 3_000),
    ] {
        let bench = Bench::new(Signing::EveryEntry, false);
        let ledger = bench.open();
        let asked = Asked::new(class);
        let log = ledger.session_opened(&asked.info).unwrap();
        let (digest, policy) = (asked.statement.digest(), bench.policy.digest());
        let (mut intents, mut outcomes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count {
            let clearance = asked.clearance(&bench.policy);
            let record = asked.record(digest, policy);
            let start = Instant::now();
            let receipt = log.record_intent(&record, clearance).unwrap();
            intents.push(start.elapsed());
            let ended = outcome();
            let start = Instant::now();
            log.outcome(receipt.intent(), &ended, 120_000);
            outcomes.push(start.elapsed());
            // Not flat out: a writer that competes for the core would be measured as well.
            if number % 64 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        println!("{name:<34} {}", percentiles(intents));
        println!("{:<34} {}", "  its outcome", percentiles(outcomes));
        drop(log);
        ledger.close();
    }
}

fn push(log: &SessionLog, asked: &Asked, bench: &Bench, count: usize) {
    let (digest, policy) = (asked.statement.digest(), bench.policy.digest());
    for _ in 0..count {
        let clearance = asked.clearance(&bench.policy);
        let receipt = log.record_intent(&asked.record(digest, policy), clearance).unwrap();
        log.outcome(receipt.intent(), &outcome(), 120_000);
    }
}

/// Statements a second, from the first append until all are committed and signed.
fn sustained(signing: Signing, index: bool, count: usize) {
    let bench = Bench::new(signing, index);
    let ledger = bench.open();
    let asked = Asked::new(StatementClass::Read);
    let log = ledger.session_opened(&asked.info).unwrap();
    let start = Instant::now();
    push(&log, &asked, &bench, count);
    let appended = start.elapsed();
    assert!(ledger.flush(Duration::from_secs(600)));
    let committed = start.elapsed();
    let with = if index { "index" } else { "no index" };
    println!(
        "sustained, {:<11} {with:<8}      {:>7.0} entries/s committed   ({:>8.0}/s appended)",
        signing.as_str(),
        count as f64 / committed.as_secs_f64(),
        count as f64 / appended.as_secs_f64(),
    );
    drop(log);
    ledger.close();
}

/// How long an auditor waits.
fn verification(signing: Signing, count: usize) {
    let bench = Bench::new(signing, false);
    let ledger = bench.open();
    let asked = Asked::new(StatementClass::Read);
    let log = ledger.session_opened(&asked.info).unwrap();
    push(&log, &asked, &bench, count);
    assert!(ledger.flush(Duration::from_secs(600)));
    drop(log);
    ledger.close();
    let size = std::fs::metadata(bench.path()).unwrap().len();
    let check = |what: &str| {
        let options = Options { path: bench.path().to_owned(), key: None, anchors: Vec::new() };
        let start = Instant::now();
        let report = verify(&options, &Progress::default()).unwrap();
        assert_eq!(report.problem, None);
        println!(
            "verify, {:<11} {what:<10}       {:>9.2?} for {} entries ({} MB)",
            signing.as_str(),
            start.elapsed(),
            report.counts.entries,
            size >> 20,
        );
    };
    check("no index");
    let start = Instant::now();
    countersign::ledger::index::Index::open(bench.path()).unwrap().catch_up().unwrap();
    println!("index, built anew                  {:>9.2?}", start.elapsed());
    check("index");
    drop(bench.directory);
}
