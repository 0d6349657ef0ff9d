//! What classification costs a statement. Targets (never asserted): cached 0.3 µs, a pgbench SELECT
//! 4 µs, a 60-column SELECT 50 µs, where libpg_query alone takes 2.1 and 35 µs (`parser/..`).

#![allow(missing_docs, reason = "criterion's macros make items that nobody documents")]
#![allow(unsafe_code, reason = "libpg_query is timed alone, and only its C side gives the JSON")]

use std::ffi::{CString, c_char, c_int};
use std::hint::black_box;

use countersign::classify::{Catalogue, Classifier, Context, Limits, SearchPath};
use countersign::statement::SqlText;
use criterion::{Criterion, criterion_group, criterion_main};
use pg_query as _;

/// `PgQueryParseResult` of pg_query.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parsed([*mut c_char; 3]);

unsafe extern "C" {
    fn pg_query_parse_opts(input: *const c_char, options: c_int) -> Parsed;
    fn pg_query_free_parse_result(result: Parsed);
}

/// What libpg_query alone takes of it: the part that is not ours, and differs between machines.
fn parse_only(sql: &CString) {
    // SAFETY: `sql` ends in a NUL and outlives the call; the result is freed once and not used after.
    unsafe { pg_query_free_parse_result(pg_query_parse_opts(sql.as_ptr(), 0)) }
}

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
        if let Ok(input) = CString::new(sql.as_str()) {
            c.bench_function(&format!("parser/{name}"), |b| b.iter(|| parse_only(black_box(&input))));
        }
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
