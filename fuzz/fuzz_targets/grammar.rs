//! Our parser against the servers' own: texts that a real Postgres 15 reads otherwise than we do.
//!
//! A text is classified, and sent as a `Parse` inside of a transaction that has failed, so that it is read and
//! never run (`tests/grammar.rs` does the same with mutated corpora, on five versions). What both read must be
//! as many statements; what only the server reads must be held.
#![no_main]
#![allow(dead_code, reason = "shared with tests that use more of it")]

/// What the shared code wants of the tests around it.
mod support {
    pub const AGENT: &str = "reporting-bot";
    pub const TOKEN: &str = "";
    pub const SOON: std::time::Duration = std::time::Duration::from_secs(20);
}
#[path = "../../tests/support/verdicts.rs"]
mod verdicts;
#[path = "../../tests/support/wire.rs"]
mod wire;

use std::sync::{LazyLock, Mutex};

use countersign::classify::{Catalogue, Classifier, Context, Limits, SearchPath};
use countersign::cli::cluster::{Cluster, find_server};
use countersign::statement::SqlText;
use wire::Wire;

const PASSWORD: &str = "superuser-secret";
const VERSION: u32 = 15;

struct Both {
    server: Wire,
    _cluster: Cluster,
    classifier: Classifier,
}

static BOTH: LazyLock<Mutex<Both>> = LazyLock::new(|| {
    let cluster = Cluster::start(&find_server().expect("a Postgres server"), PASSWORD, &[]).expect("a cluster");
    let parameters = [("user", "postgres"), ("database", "postgres")];
    let mut server = Wire::connect(cluster.port(), &parameters, PASSWORD);
    assert!(server.ask(&wire::query("BEGIN; SELECT 1/0")).ends_with("ZE"), "a failed transaction");
    let classifier = Classifier::new(Limits { cache_bytes: 0, ..Limits::default() });
    Mutex::new(Both { server, _cluster: cluster, classifier })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.is_empty() || data.contains(&0) {
        return;
    }
    let mut both = BOTH.lock().expect("nobody panicked");
    let context = Context {
        server_version: VERSION,
        catalogue: &Catalogue::built_in(VERSION),
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    let found = both.classifier.classify(&SqlText::new(data.to_vec()), &context);
    let theirs = verdicts::ask(&mut both.server, &[data.to_vec()]).remove(0);
    let text = String::from_utf8_lossy(data);
    let (kind, is_bug) = verdicts::judge(VERSION, &text, &found, &theirs);
    assert!(!is_bug, "{kind}: {theirs:?} by the server, {:?} ({}) by us", verdicts::our_verdict(&found), found.class);
});
