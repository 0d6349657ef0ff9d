//! Conditions that the classifier takes for ones that pick rows, asked of a real server: none of them may
//! be true of every row.
//!
//! Conditions are made from a seed. The server counts the rows of which each one is true, in tables that
//! hold whatever such columns may hold. A condition that is true of all rows is true because of its form, so
//! a `DELETE` with it must not be classified as `write`.
//!
//! | variable | |
//! |---|---|
//! | `COUNTERSIGN_SOAK=1` | some hundred thousand conditions rather than some thousand |
//! | `COUNTERSIGN_CONDITIONS_SEED=7` | begins at this seed rather than at 0 |
//! | `COUNTERSIGN_CONDITIONS_COUNT=1` | as many conditions as this |
//! | `COUNTERSIGN_CONDITIONS_SHOW=1` | shows what is held although it picks few rows |
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
mod expressions;
mod subqueries;
#[path = "../support/mod.rs"]
mod support;
mod values;

use countersign::classify::{Catalogue, Classifier, Context, Limits, SearchPath, StatementClass};
use countersign::cli::cluster::Cluster;
use countersign::statement::SqlText;
use support::random::Random;
use support::wire::{self, Wire};

const PASSWORD: &str = "superuser-secret";

/// What is asked, and how often.
struct Plan {
    /// Makes the tables, and last a function that counts.
    tables: String,
    /// Settings of the session that counts.
    settings: &'static str,
    /// A query for the number of rows of each table.
    rows: &'static str,
    /// Conditions that are asked about in one query.
    batch: u64,
    count: u64,
    soak_count: u64,
    /// One in so many conditions is expected to pick rows.
    one_picks_of: u64,
}

/// A condition that was made from a seed.
struct Sample {
    /// The statement that is classified.
    statement: String,
    /// SQL expressions: the number of rows of each table of which the condition is true, -1 where it is no
    /// SQL.
    counts: Vec<String>,
    /// Where it is true of all rows, that may be due to the rows and not to its form.
    may_be_true_by_chance: bool,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Fails with every condition that is true of all rows of all tables and classified as `write`.
fn run(plan: &Plan, make: impl Fn(Random) -> Sample) {
    let soak = std::env::var_os("COUNTERSIGN_SOAK").is_some();
    let show = std::env::var_os("COUNTERSIGN_CONDITIONS_SHOW").is_some();
    let usual = if soak { plan.soak_count } else { plan.count };
    let count = support::number_from("COUNTERSIGN_CONDITIONS_COUNT").unwrap_or(usual);
    let first = support::number_from("COUNTERSIGN_CONDITIONS_SEED").unwrap_or(0);
    let cluster = Cluster::start(&support::server(15), PASSWORD, &[]).expect("a cluster");
    let mut server =
        Wire::connect(cluster.port(), &[("user", "postgres"), ("database", "postgres")], PASSWORD);
    let ready = server.ask(&wire::query(&plan.tables));
    assert!(ready.ends_with("C[CREATE FUNCTION]ZI"), "{ready}: {:?}", server.errors);
    server.ask(&wire::query(plan.settings));
    let rows = server.numbers(plan.rows);

    let catalogue = Catalogue::built_in(15);
    let classifier = Classifier::new(Limits::default());
    let context = Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    let (mut all, mut picks, mut held, mut wrong) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut bypasses = Vec::new();
    let seeds: Vec<u64> = (first..first + count).collect();
    for seeds in seeds.chunks(plan.batch as usize) {
        let samples: Vec<Sample> = seeds.iter().map(|&seed| make(Random::new(seed))).collect();
        let counts: Vec<&str> =
            samples.iter().flat_map(|sample| &sample.counts).map(String::as_str).collect();
        let found = server.numbers(&format!("SELECT {}", counts.join(", ")));
        for ((sample, found), seed) in samples.iter().zip(found.chunks(rows.len())).zip(seeds) {
            let statement = SqlText::from(sample.statement.as_str());
            let is_write = classifier.classify(&statement, &context).class == StatementClass::Write;
            match (is_write, found == rows) {
                _ if found.contains(&-1) => wrong += 1,
                (true, true) if !sample.may_be_true_by_chance => {
                    bypasses.push(format!("seed {seed}: {}", sample.statement));
                }
                (true, _) => picks += 1,
                (false, true) => all += 1,
                (false, false) => {
                    held += 1;
                    if show && found.iter().zip(&rows).all(|(found, rows)| found * 4 < *rows) {
                        println!("{found:?} of {rows:?}: {}", sample.statement);
                    }
                }
            }
        }
    }
    println!(
        "{count} conditions of {rows:?} rows: {picks} pick, {all} are all rows and held, {held} are held and not all rows, {wrong} are no conditions"
    );
    assert!(picks * plan.one_picks_of > count && all * 100 > count, "there is something to tell");
    assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));
}
