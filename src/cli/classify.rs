//! `countersign classify`: what a statement is, and why, without a server.
//!
//! Exit codes: 0 classified (whatever the class), 2 wrong usage, unreadable input, or a malformed line
//! of `--jsonl`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::serve;
use super::terminal;
use crate::actor::UpstreamName;
use crate::approval::document::{columns_of, in_words, way_of};
use crate::classify::{
    Catalogue, Classification, Classifier, Context, Effect, Limits, Reason, SearchPath, StatementClass,
    SyntaxError,
};
use crate::config::Config;
use crate::statement::SqlText;
use crate::toml_reader::Problem;

/// Classify a statement, and say why it would be held.
///
/// Without a configuration no server is asked: functions that Postgres does not have itself are then unknown, and
/// so code.
#[derive(Args)]
pub(super) struct Arguments {
    /// The statement; `-` or nothing reads it from standard input
    #[arg(allow_hyphen_values = true, conflicts_with = "jsonl")]
    sql: Option<String>,
    /// Read `{"id": .., "sql": ..}` lines from standard input and write a line for each, in order
    #[arg(long)]
    jsonl: bool,
    /// Write one JSON object
    #[arg(long, conflicts_with = "jsonl")]
    json: bool,
    /// The server's major version [default: 15, or the upstream's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(14..=18), conflicts_with = "config")]
    server_version: Option<u32>,
    /// A configuration: read the catalogue of its upstream's database now, and use the declarations of its
    /// policies
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The upstream to use if the configuration has several
    #[arg(long, value_name = "NAME", requires = "config")]
    upstream: Option<String>,
}

/// The database that statements are classified for.
struct Database {
    server_version: u32,
    catalogue: Arc<Catalogue>,
    search_path: SearchPath,
    name: String,
    role: String,
}

impl Database {
    /// Any of that version: it has what Postgres has, and names may mean anything.
    fn any(server_version: u32) -> Self {
        Self {
            server_version,
            catalogue: Catalogue::built_in(server_version),
            search_path: SearchPath::Unknown,
            name: String::new(),
            role: String::new(),
        }
    }

    /// An upstream of a configuration, as a fresh session of an agent finds it.
    fn of(config: &Path, upstream: Option<&str>) -> anyhow::Result<Self> {
        let refused = |problems: Vec<Problem>| {
            super::report_problems(&problems);
            anyhow::anyhow!("the configuration cannot be used")
        };
        let config = Config::load(config).map_err(refused)?;
        let names = || config.upstreams.keys().map(UpstreamName::as_str).collect::<Vec<_>>().join(", ");
        let upstream = match upstream {
            Some(name) => config.upstreams.get(&UpstreamName::from(name)),
            None if config.upstreams.len() == 1 => config.upstreams.values().next(),
            None => None,
        };
        let upstream =
            upstream.with_context(|| format!("name one of the upstreams with --upstream: {}", names()))?;
        let policy = config.load_policy().map_err(refused)?;
        let state = serve::state(upstream, Arc::clone(policy.declared()))?;
        let known = serve::runtime()?.block_on(state.known());
        let known = known.with_context(|| format!("upstream \"{}\" was not reached", upstream.name))?;
        let target = &upstream.target;
        Ok(Self {
            server_version: known.server_version,
            catalogue: Arc::clone(&known.catalogue),
            search_path: known.initial_path(target.role.as_str()),
            name: target.database.to_string(),
            role: target.role.to_string(),
        })
    }
}

/// More statements are not remembered with their columns.
const MOST_TOLD: usize = 20_000;

/// What is written for one text.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    class: StatementClass,
    privileged: bool,
    statements: Vec<Part<'a>>,
    effects: &'a [Effect],
    reasons: &'a [Reason],
    #[serde(skip_serializing_if = "Option::is_none")]
    syntax_error: Option<&'a SyntaxError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

#[derive(Serialize)]
struct Part<'a> {
    kind: &'a str,
    class: StatementClass,
}

/// One line of `--jsonl`.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    sql: String,
}

/// What is written for a line that cannot be read.
#[derive(Serialize)]
struct LineError {
    line: u64,
    error: String,
}

impl<'a> Report<'a> {
    fn of(id: Option<&'a RawValue>, found: &'a Classification) -> Self {
        Self {
            id,
            class: found.class,
            privileged: found.class.is_privileged(),
            statements: found.parts.iter().map(|part| Part { kind: &part.kind, class: part.class }).collect(),
            effects: &found.effects,
            reasons: &found.reasons,
            syntax_error: found.syntax_error.as_ref(),
            fingerprint: None,
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let database = match &arguments.config {
        Some(config) => {
            crate::proxy::tls::install_provider();
            Database::of(config, arguments.upstream.as_deref())?
        }
        None => Database::any(arguments.server_version.unwrap_or(15)),
    };
    let context = Context {
        server_version: database.server_version,
        catalogue: &database.catalogue,
        search_path: &database.search_path,
        database: &database.name,
        role: &database.role,
        strings_standard: true,
    };
    let classifier = Classifier::new(Limits::default());
    let mut out =
        BufWriter::with_capacity(1 << 16, terminal::out(terminal::As::of(arguments.json || arguments.jsonl)));
    if arguments.jsonl {
        return classify_lines(std::io::stdin().lock(), &mut out, &classifier, &context);
    }
    let sql = match arguments.sql {
        Some(sql) if sql != "-" => sql.into_bytes(),
        given => {
            anyhow::ensure!(
                given.is_some() || !std::io::stdin().is_terminal(),
                "no statement: give one as an argument, or on standard input"
            );
            let mut sql = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut sql)
                .context("reading the statement from standard input")?;
            sql
        }
    };
    let sql = SqlText::new(sql);
    let found = detailed(&classifier, &sql, &context);
    if arguments.json {
        let report = Report { fingerprint: Some(found.fingerprint.to_string()), ..Report::of(None, &found) };
        serde_json::to_writer(&mut out, &report)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(render(&sql.to_display(), &found).as_bytes())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn detailed(classifier: &Classifier, sql: &SqlText, context: &Context<'_>) -> Arc<Classification> {
    let found = classifier.classify(sql, context);
    classifier.detail(std::iter::once(sql), context, &found)
}

/// Reads lines, writes lines; those that cannot be read get an error in their place.
fn classify_lines(
    mut input: impl BufRead,
    out: &mut impl Write,
    classifier: &Classifier,
    context: &Context<'_>,
) -> anyhow::Result<ExitCode> {
    let mut buffer = Vec::new();
    let mut number = 0_u64;
    let mut malformed = false;
    // With what it was told from, so that its address stays its own.
    let mut told: HashMap<*const Classification, (Arc<Classification>, Arc<Classification>)> = HashMap::new();
    loop {
        buffer.clear();
        if input.read_until(b'\n', &mut buffer).context("reading standard input")? == 0 {
            break;
        }
        number += 1;
        if buffer.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Line<'_>>(&buffer) {
            Ok(line) => {
                let sql = SqlText::new(line.sql);
                let found = classifier.classify(&sql, context);
                // What has been classified before in other numbers names the same columns.
                if told.len() >= MOST_TOLD {
                    told.clear();
                }
                let (_, found) = told.entry(Arc::as_ptr(&found)).or_insert_with(|| {
                    let detailed = classifier.detail(std::iter::once(&sql), context, &found);
                    (found, detailed)
                });
                serde_json::to_writer(&mut *out, &Report::of(line.id, found))?;
            }
            Err(error) => {
                malformed = true;
                let error = LineError { line: number, error: error.to_string() };
                serde_json::to_writer(&mut *out, &error)?;
            }
        }
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(if malformed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// The answer for a person: the class, then each reason with the piece of the text it is about.
fn render(sql: &str, found: &Classification) -> String {
    let mut out = String::new();
    let verdict = if found.class == StatementClass::Invalid {
        "refused as the syntax error that it is, unless a rule holds it"
    } else if found.class.is_privileged() {
        "held until somebody approves"
    } else {
        "not held"
    };
    let _ = writeln!(out, "{}: {verdict}", found.class);
    if let [_, _, ..] = found.parts.as_slice() {
        for (place, part) in found.parts.iter().enumerate() {
            let _ = writeln!(out, "  {}. {} is {}", place + 1, part.kind, part.class);
        }
    }
    for reason in &found.reasons {
        let _ = writeln!(out, "\n  {} because it {}", reason.class, terminal::line(&reason.text));
        if let Some(span) = &reason.span {
            underline(&mut out, sql, span.start as usize..span.end as usize);
        }
    }
    if !found.effects.is_empty() {
        out.push_str("\n  touches\n");
        for effect in &found.effects {
            let verb = format!("{:?}", effect.verb).to_lowercase();
            let schema = effect.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
            let through = way_of(effect);
            let columns = columns_of(effect);
            let touched = terminal::line(&format!("{schema}{}{columns}{through}", effect.name));
            let _ = writeln!(out, "    {verb:<8} {touched}");
            if let Some(security) = effect.row_security {
                let _ = writeln!(out, "             {}", in_words(security));
            }
        }
    }
    out
}

/// Longer lines are cut around the piece.
const WIDTH: usize = 100;

/// The line that a piece starts in, with the piece marked below it.
fn underline(out: &mut String, sql: &str, piece: std::ops::Range<usize>) {
    let Some(before) = sql.get(..piece.start) else { return };
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = sql.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
    let column = sql.get(line_start..piece.start).map_or(0, |text| text.chars().count());
    let length = sql.get(piece).map_or(1, |text| text.lines().next().unwrap_or("").chars().count()).max(1);
    let skipped = if column + length.min(WIDTH) > WIDTH { column.saturating_sub(20) } else { 0 };
    // One column for each character: what would move the cursor, or show nothing, is replaced.
    let shown: String = line
        .chars()
        .skip(skipped)
        .take(WIDTH)
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let marks = "^".repeat(length.min(WIDTH.saturating_sub(column - skipped)).max(1));
    let _ = writeln!(out, "    | {shown}\n    | {}{marks}", " ".repeat(column - skipped));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_context<T>(run: impl FnOnce(&Classifier, &Context<'_>) -> T) -> T {
        let catalogue = Catalogue::built_in(15);
        let context = Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &SearchPath::Unknown,
            database: "",
            role: "",
            strings_standard: true,
        };
        run(&Classifier::new(Limits::default()), &context)
    }

    fn rendered(sql: &str) -> String {
        with_context(|classifier, context| render(sql, &classifier.classify(&SqlText::from(sql), context)))
    }

    #[test]
    fn a_person_sees_the_class_and_the_piece_it_comes_from() {
        insta::assert_snapshot!(rendered("select a,\n\tpg_catalog.pg_read_file('/etc/passwd') from t"), @r"
        server_io: held until somebody approves

          server_io because it calls pg_read_file, which reads files of the server
            |  pg_catalog.pg_read_file('/etc/passwd') from t
            |  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

          touches
            read     t
            call     pg_catalog.pg_read_file
        ");
        insta::assert_snapshot!(rendered("begin; delete from t where 1=1; commit"), @r"
        mass_write: held until somebody approves
          1. TransactionStmt is session
          2. DeleteStmt is mass_write
          3. TransactionStmt is session

          mass_write because it deletes every row: its WHERE does not depend on the row
            | begin; delete from t where 1=1; commit
            |        ^^^^^^^^^^^^^^^^^^^^^^^

          write because it deletes rows
            | begin; delete from t where 1=1; commit
            |        ^^^^^^^^^^^^^^^^^^^^^^^

          touches
            delete   t
        ");
        insta::assert_snapshot!(rendered("selec 1"), @r#"
        invalid: refused as the syntax error that it is, unless a rule holds it

          invalid because it is not accepted by Postgres's grammar: syntax error at or near "selec"
            | selec 1
            | ^^^^^
        "#);
    }

    #[test]
    fn lines_come_back_in_order_and_a_malformed_one_is_an_error_in_its_place() {
        let input = "{\"id\":1,\"sql\":\"select 1\"}\n\nnot json\n{\"id\":\"x\",\"sql\":\"drop table t\"}\n";
        let mut out = Vec::new();

        let code = with_context(|classifier, context| {
            classify_lines(input.as_bytes(), &mut out, classifier, context).unwrap()
        });

        let lines: Vec<serde_json::Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["id"], 1);
        assert_eq!((&lines[0]["class"], &lines[0]["privileged"]), (&"read".into(), &false.into()));
        assert_eq!(lines[1]["line"], 3);
        assert!(lines[1]["error"].is_string());
        assert_eq!((&lines[2]["id"], &lines[2]["class"]), (&"x".into(), &"ddl".into()));
        assert_eq!(lines[2]["statements"][0]["kind"], "DropStmt");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }

    #[test]
    fn odd_characters_cannot_move_the_marks() {
        let shown = rendered("select '\u{1b}[2J', pg_read_file('x')");

        assert!(!shown.contains('\u{1b}'));
    }
}
