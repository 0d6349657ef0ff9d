//! What classification costs a statement. Targets (never asserted): cached 0.3 µs, a pgbench SELECT
//! 4 µs, a 60-column SELECT 50 µs.

#![allow(missing_docs, reason = "criterion's macros make items that nobody documents")]

use std::hint::black_box;

use countersign::classify::{Catalogue, Classifier, Context, Limits, SearchPath};
use countersign::statement::SqlText;
use criterion::{Criterion, criterion_group, criterion_main};

fn classify(c: &mut Criterion) {
    let catalogue = Catalogue::built_in(15);
    let path = SearchPath::Known(vec!["public".into()]);
    let context = Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &path,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    let columns: Vec<String> = (0..60).map(|n| format!("\"app_customer\".\"column_{n}\"")).collect();
    let wide = format!(
        "SELECT {} FROM \"app_customer\" INNER JOIN \"app_order\" ON (\"app_customer\".\"id\" = \
         \"app_order\".\"customer_id\") WHERE \"app_customer\".\"id\" = $1 ORDER BY \"app_order\".\"created\" DESC LIMIT 21",
        columns.join(", ")
    );
    let statements = [
        ("select 1", "SELECT 1".to_owned()),
        ("pgbench select", "SELECT abalance FROM pgbench_accounts WHERE aid = 45013;".to_owned()),
        (
            "pgbench update",
            "UPDATE pgbench_accounts SET abalance = abalance + -503 WHERE aid = 45013;".to_owned(),
        ),
        ("begin", "BEGIN".to_owned()),
        ("60 columns", wide),
        ("second opinion", "SELECT abalance FROM pgbench_accounts WHERE aid = 1 /* c */".to_owned()),
        ("bulk 1 MiB", format!("INSERT INTO t VALUES {}(1,'a')", "(123456,'abcdefgh'),".repeat(50_000))),
    ];
    let cached = Classifier::new(Limits::default());
    let uncached = Classifier::new(Limits { cache_bytes: 0, ..Limits::default() });
    for (name, sql) in &statements {
        let sql = SqlText::from(sql.as_str());
        c.bench_function(&format!("uncached/{name}"), |b| {
            b.iter(|| uncached.classify(black_box(&sql), &context))
        });
        if sql.len() < 16 * 1024 {
            c.bench_function(&format!("cached/{name}"), |b| {
                b.iter(|| cached.classify(black_box(&sql), &context))
            });
        }
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
