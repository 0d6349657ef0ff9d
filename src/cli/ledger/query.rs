//! `ledger query`: statements, searched and shown as a table.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use jiff::{SignedDuration, Timestamp, Zoned, civil};
use rusqlite::types::Value as Cell;
use serde_json::{Map, Value as Json, json};

use crate::cli::terminal::{self, line, plain};
use crate::ledger::read::{Filter, Row};

/// Search the statements
///
/// Times are RFC 3339 (`2026-01-31T12:00:00Z`), local dates or times (`2026-01-31`, `2026-01-31T12:00`), or
/// how long ago (`90m`, `2h`, `7d`).
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The ledger file: the live one or a copy
    file: PathBuf,
    /// Statements of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Statements of this class
    #[arg(long)]
    class: Option<String>,
    /// Statements recorded at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Statements recorded at this time or earlier
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Why it ran (allowed, granted, doomed, `read_only`), refused, or how it ended: completed, failed, `failed_after_commit`,
    /// `denied_by_reviewer` ..
    #[arg(long)]
    decision: Option<String>,
    /// Statements that this reviewer approved or denied
    #[arg(long, value_name = "ID")]
    reviewer: Option<String>,
    /// Statements of this session
    #[arg(long, value_name = "UUID")]
    session: Option<String>,
    /// Statements whose text contains this, in upper or lower case
    #[arg(long, value_name = "WORDS")]
    contains: Option<String>,
    /// Show at most this many statements, the newest ones
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let time = |words: &Option<String>| words.as_deref().map(|words| parse_time(words, now)).transpose();
    let filter = Filter {
        agent: arguments.agent.clone(),
        class: arguments.class.clone(),
        since: time(&arguments.since)?,
        until: time(&arguments.until)?,
        decision: arguments.decision.clone(),
        reviewer: arguments.reviewer.clone(),
        session: arguments.session.clone(),
        contains: arguments.contains.clone(),
        limit: Some(arguments.limit),
    };
    let reader = super::open(&arguments.file, &format!("ledger query{}", words_of(arguments)), None, None)?;
    let mut rows = reader.statements(&filter)?;
    rows.reverse();
    if arguments.json {
        terminal::say_json_laid_out(&Json::Array(rows.iter().map(as_json).collect()));
    } else {
        terminal::out(terminal::As::Text).write_all(table(&rows).as_bytes())?;
    }
    Ok(super::damage_report(&reader))
}

/// The search, for the record.
fn words_of(arguments: &Arguments) -> String {
    // An entry is for good, and who looks for a secret must not write it down in one.
    let contains = arguments.contains.as_ref().map(|words| format!("({} characters)", words.chars().count()));
    let given = [
        ("agent", &arguments.agent),
        ("class", &arguments.class),
        ("since", &arguments.since),
        ("until", &arguments.until),
        ("decision", &arguments.decision),
        ("reviewer", &arguments.reviewer),
        ("session", &arguments.session),
        ("contains", &contains),
    ];
    let words =
        given.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!(" --{name} {value}")));
    words.collect()
}

/// A time as people write it, in nanoseconds since the Unix epoch.
fn parse_time(words: &str, now: Timestamp) -> anyhow::Result<u64> {
    let ago = || {
        let (number, unit) = words.split_at_checked(words.len().checked_sub(1)?)?;
        let number: i64 = number.parse().ok()?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        now.checked_sub(SignedDuration::from_secs(number.checked_mul(seconds)?)).ok()
    };
    let local = || {
        let civil: civil::DateTime = words.parse().ok()?;
        Some(civil.to_zoned(Zoned::now().time_zone().clone()).ok()?.timestamp())
    };
    let time = ago().or_else(|| words.parse().ok()).or_else(local);
    let time = time
        .ok_or_else(|| anyhow!("\"{words}\" is not a time; write 2026-01-31T12:00:00Z, 2026-01-31, or 2h"))?;
    u64::try_from(time.as_nanosecond()).context("a time before 1970")
}

fn as_json(row: &Row) -> Json {
    let object: Map<String, Json> = row
        .iter()
        .map(|(name, cell)| {
            let value = match cell {
                Cell::Null | Cell::Blob(_) => Json::Null,
                Cell::Integer(number) => json!(number),
                Cell::Real(number) => json!(number),
                Cell::Text(text) => json!(text),
            };
            (name.clone(), value)
        })
        .collect();
    Json::Object(object)
}

/// What fits on a screen: who, what, how it ended, and as much of the text as there is room for.
const COLUMNS: [(&str, usize); 8] = [
    ("seq", 8),
    ("time", 23),
    ("agent", 20),
    ("class", 14),
    ("state", 18),
    ("reviewer", 40),
    ("rows", 10),
    ("sql", 100),
];

fn table(rows: &[Row]) -> String {
    let cell = |row: &Row, name: &str| {
        let of = |name: &str| row.iter().find(|(column, _)| column == name).map(|(_, cell)| cell);
        let is = |name: &str, text: &str| matches!(of(name), Some(Cell::Text(cell)) if cell == text);
        // Of a statement that was parsed and never run, only the parsing is complete.
        if name == "state" && is("clearance", "parse_only") && is("state", "completed") {
            return "prepared".to_owned();
        }
        if let ("state", Some(Cell::Text(_))) = (name, of("damaged")) {
            return "DAMAGED".to_owned();
        }
        match of(name) {
            Some(Cell::Integer(number)) => number.to_string(),
            Some(Cell::Real(number)) => format!("{number:.1}"),
            Some(Cell::Text(text)) if name == "sql" => one_line(text),
            Some(Cell::Text(text)) => line(text),
            Some(Cell::Null | Cell::Blob(_)) | None => String::new(),
        }
    };
    let mut lines = vec![COLUMNS.map(|(name, _)| name.to_owned())];
    lines.extend(rows.iter().map(|row| COLUMNS.map(|(name, widest)| cut(&cell(row, name), widest))));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text.push_str(&match rows.len() {
        1 => "1 statement\n".to_owned(),
        count => format!("{count} statements\n"),
    });
    text
}

/// A statement on one line, with the room between its words made narrow. What would let it draw its own
/// table is made visible.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split([' ', '\n', '\r', '\t']).filter(|word| !word.is_empty());
    plain(&words.collect::<Vec<_>>().join(" ")).into_owned()
}

fn cut(text: &str, widest: usize) -> String {
    if text.chars().count() <= widest {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(widest - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_only_parsed_is_not_told_as_completed() {
        let text = |name: &str, text: &str| (name.to_owned(), Cell::Text(text.to_owned()));
        let row = |clearance| {
            vec![text("clearance", clearance), text("state", "completed"), text("sql", "drop table t")]
        };

        assert!(table(&[row("parse_only")]).contains("prepared"));
        assert!(!table(&[row("parse_only")]).contains("completed"));
        assert!(table(&[row("granted")]).contains("completed"));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let at = |words: &str| parse_time(words, now).map(|time| time / 1_000_000_000).ok();

        assert_eq!(at("2h"), Some(now.as_second() as u64 - 7200));
        assert_eq!(at("2026-01-31T11:00:00Z"), Some(now.as_second() as u64 - 3600));
        assert!(at("2026-01-31").is_some() && at("2026-01-31T12:00").is_some());
        assert_eq!((at("soon"), at("é"), at("")), (None, None, None));
    }

    #[test]
    fn a_statement_cannot_draw_its_own_table() {
        assert_eq!(one_line("select 1\n\x1b[31m  42  completed"), "select 1 ⟨U+001B⟩[31m 42 completed");
    }
}
