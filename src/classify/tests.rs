//! The corpora under `fixtures/statements/`, and what must hold for any text at all.

use std::sync::Arc;

use super::*;
use crate::statement::SqlText;

/// Classifies with the built-in catalogue of Postgres 15, as `countersign classify` does.
fn classify(sql: &str) -> Arc<Classification> {
    classify_on(15, sql)
}

fn classify_on(version: u32, sql: &str) -> Arc<Classification> {
    let catalogue = Catalogue::built_in(version);
    let context = Context {
        server_version: version,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context)
}

#[derive(serde::Deserialize)]
struct Line {
    id: String,
    sql: String,
    class: StatementClass,
    #[serde(default)]
    server_version: Option<u32>,
}

fn lines(file: &str) -> Vec<Line> {
    file.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn mistakes(lines: &[Line]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for line in lines {
        let found = classify_on(line.server_version.unwrap_or(15), &line.sql);
        if found.class != line.class {
            mistakes.push(format!(
                "{}: {} is {}, not {}: {:?}",
                line.id, line.sql, found.class, line.class, found.reasons
            ));
        }
    }
    mistakes
}

#[test]
fn every_line_of_the_corpus_has_its_class() {
    let lines = lines(include_str!("../../fixtures/statements/corpus.jsonl"));
    assert!(lines.len() > 250);

    let mistakes = mistakes(&lines);

    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}
