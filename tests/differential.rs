//! The same session with Postgres and through the proxy, message by message.
//!
//! From a seed comes a session of frontend messages ([`generate`]); it is played to Postgres directly
//! and through a proxy that allows everything, on two databases with the same content ([`arena`]);
//! what was answered and what is in the tables afterwards must be the same ([`compare`]). A difference
//! is shown as a script that is as short as it gets ([`script`]); those that were bugs are kept in
//! `fixtures/wire/`, and played as well.
//!
//! | variable | |
//! |---|---|
//! | `COUNTERSIGN_SOAK=1` | 10,000 sessions on each version rather than a few hundred |
//! | `COUNTERSIGN_DIFFERENTIAL_SEED=7` | begins at this seed rather than at a fixed one |
//! | `COUNTERSIGN_DIFFERENTIAL_COUNT=1` | plays so many sessions |
//! | `COUNTERSIGN_DIFFERENTIAL_SCRIPTS=/tmp/x` | plays the scripts of this folder rather than `fixtures/wire` |
//! | `COUNTERSIGN_DIFFERENTIAL_SHOW=1` | shows each script before it is played |
//! | `COUNTERSIGN_DIFFERENTIAL_KEEP=1` | goes on after a difference, and tells all at the end |
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
#[path = "differential/arena.rs"]
mod arena;
#[path = "differential/client.rs"]
mod client;
#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/generate/mod.rs"]
mod generate;
#[path = "differential/script.rs"]
mod script;
mod support;
#[path = "differential/transcript.rs"]
mod transcript;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arena::{Arena, Bench};
use generate::Mode;
use parking_lot::Mutex;
use script::Script;

/// Sessions that run at the same time, each with a pair of databases of its own.
const AT_ONCE: usize = 4;

fn play(version: u32, mode: Mode, few: u64, many: u64) {
    let soak = std::env::var_os("COUNTERSIGN_SOAK").is_some();
    let count =
        support::number_from("COUNTERSIGN_DIFFERENTIAL_COUNT").unwrap_or(if soak { many } else { few });
    let first = support::number_from("COUNTERSIGN_DIFFERENTIAL_SEED").unwrap_or(0);
    let keep = std::env::var_os("COUNTERSIGN_DIFFERENTIAL_KEEP").is_some();
    let show = std::env::var_os("COUNTERSIGN_DIFFERENTIAL_SHOW").is_some();
    let policy = if mode == Mode::Denied { arena::DENY } else { arena::ALLOW };
    let workers = AT_ONCE.min(usize::try_from(count).unwrap());
    let arena = Arena::start(version, policy, workers);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let next = Arc::new(AtomicU64::new(first));
    let messages = Arc::new(AtomicUsize::new(0));
    let found: Arc<Mutex<Vec<String>>> = Arc::default();
    let tasks: Vec<_> = arena
        .pairs
        .iter()
        .map(|pair| {
            let (pair, next, found) = (pair.clone(), Arc::clone(&next), Arc::clone(&found));
            let messages = Arc::clone(&messages);
            runtime.spawn(async move {
                let mut bench = Bench::new(&pair).await;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || (!keep && !found.lock().is_empty()) {
                        return;
                    }
                    let script = generate::session(seed, mode);
                    if show {
                        eprintln!("---- seed {seed}\n{script}");
                    }
                    let (told, answers) = judge(&mut bench, seed, mode, &script).await;
                    messages.fetch_add(answers, Ordering::Relaxed);
                    if let Some(told) = told {
                        eprintln!("{told}");
                        found.lock().push(told);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        if let Err(error) = runtime.block_on(task) {
            eprintln!("--- what Postgres logged\n{}", arena.server_log());
            panic!("{error}");
        }
    }
    let found = found.lock();
    let answers = messages.load(Ordering::Relaxed);
    eprintln!("{count} sessions on Postgres {version}, {answers} answers, {} with a difference", found.len());
    assert!(found.is_empty(), "{} sessions differ", found.len());
}

/// Plays one script both ways; what differs, as short as it gets, and how many answers there were.
async fn judge(bench: &mut Bench, seed: u64, mode: Mode, script: &Script) -> (Option<String>, usize) {
    bench.seed = seed;
    let variant = |script: &Script| {
        if mode == Mode::Denied { generate::denied(script) } else { script.clone() }
    };
    let shown = bench.show(&variant(script), script).await;
    let answers = shown.direct.lines.len();
    let Some(difference) = compare::difference(&shown) else { return (None, answers) };
    bench.patience = Duration::from_secs(4);
    let shortest = compare::shrink(bench, script, variant).await;
    let again = bench.show(&variant(&shortest), &shortest).await;
    bench.patience = client::PATIENCE;
    let shortest_difference = compare::difference(&again);
    let told = format!(
        "==== seed {seed} ({mode:?}): {}\n---- shortest script\n{shortest}---- its difference: {}\n{}",
        difference.0,
        shortest_difference.map_or("gone when played again".to_owned(), |difference| difference.0),
        compare::both(&again)
    );
    (Some(told), answers)
}

/// Plays the scripts of `fixtures/wire`: each is a difference that there once was.
fn play_again(version: u32) {
    let arena = Arena::start(version, arena::ALLOW, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let from = std::env::var_os("COUNTERSIGN_DIFFERENTIAL_SCRIPTS")
        .map_or_else(|| support::root().join("fixtures/wire"), std::path::PathBuf::from);
    let mut files: Vec<_> = std::fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut found = 0;
    runtime.block_on(async {
        let mut bench = Bench::new(&arena.pairs[0]).await;
        for file in files {
            let script = Script::read(&std::fs::read_to_string(&file).unwrap());
            assert!(!script.steps.is_empty(), "{}", file.display());
            let shown = bench.show(&script, &script).await;
            if let Some(difference) = compare::difference(&shown) {
                eprintln!("==== {}: {}\n{}", file.display(), difference.0, compare::both(&shown));
                found += 1;
            }
        }
    });
    assert_eq!(found, 0, "scripts that differ");
}

#[test]
fn scripts_of_fixed_bugs_behave_as_with_postgres_15() {
    play_again(15);
}

#[test]
fn scripts_of_fixed_bugs_behave_as_with_postgres_18() {
    play_again(18);
}

#[test]
fn a_script_reads_as_it_is_written() {
    for seed in 0..200 {
        let script = generate::session(seed, Mode::Ordinary);
        assert_eq!(Script::read(&script.to_string()), script, "seed {seed}");
    }
}

/// What the proxy denies ends as if Postgres itself had refused it: the same statuses behind it, the
/// same rest of the pipeline, the same content.
#[test]
fn denied_statements_leave_the_session_as_failed_ones_do() {
    play(15, Mode::Denied, 100, 3_000);
}

#[test]
fn sessions_that_break_the_protocol_end_with_the_same_class_of_error() {
    play(15, Mode::Broken, 50, 1_000);
}

#[test]
fn sessions_through_the_proxy_are_as_with_postgres_15() {
    play(15, Mode::Ordinary, 300, 10_000);
}

#[test]
fn sessions_through_the_proxy_are_as_with_postgres_18() {
    play(18, Mode::Ordinary, 150, 10_000);
}
