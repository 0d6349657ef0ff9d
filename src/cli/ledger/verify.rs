//! `ledger verify`: everything checked, the verdict, and the first thing that is wrong.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::terminal::{self, line as one_line};
use crate::ledger::display::display_time;
use crate::ledger::verify::{Options, Progress, Recorded, Report, Reservation, verify};

/// Check a ledger: the live file or a copy, offline
///
/// Exit codes: 0 verified, by a key and an anchor from elsewhere that covers the last entry; 1 verified with a
/// reservation (no anchor covers the end, key or anchor lie beside the ledger, the ledger itself records damage);
/// 2 usage or I/O; 10 schema; 11 file damaged; 12 gap, duplicate, order; 13 entry signature or
/// encoding; 14 checkpoint or anchor signature; 15 root; 16 derived data; 17 unsigned tail; 18 roll-back
/// or fork; 19 key or epoch; 20 texts and redaction; 21 clock; 22 meaning (a missing review, a self-approval ..).
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The ledger
    file: PathBuf,
    /// The root's public key, kept elsewhere; without it, the one beside the ledger is used
    #[arg(long, value_name = "PUB")]
    key: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere; may be given several times
    #[arg(long = "anchor", value_name = "FILE")]
    anchors: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = Options {
        path: arguments.file.clone(),
        key: arguments.key.clone(),
        anchors: arguments.anchors.clone(),
    };
    let progress = Progress::default();
    let finished = std::sync::atomic::AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        if terminal::error_is_seen() && !arguments.json {
            scope.spawn(|| show_progress(&progress, &finished));
        }
        let report = verify(&options, &progress);
        finished.store(true, Ordering::Release);
        report
    })?;
    if arguments.json {
        terminal::say_json_laid_out(&as_json(&report));
    } else {
        terminal::out(terminal::As::Text).write_all(as_text(&report, arguments).as_bytes())?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn show_progress(progress: &Progress, finished: &std::sync::atomic::AtomicBool) {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} entries, {eta} left")
    {
        bar.set_style(style);
    }
    while !finished.load(Ordering::Acquire) {
        bar.set_length(progress.total.load(Ordering::Relaxed));
        bar.set_position(progress.done.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(100));
    }
    bar.finish_and_clear();
}

fn as_text(report: &Report, arguments: &Arguments) -> String {
    let counts = &report.counts;
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12} {value}\n"));
    line("ledger", format!("{} ({})", arguments.file.display(), one_line(&report.origin)));
    let (id, path) = &report.key;
    let beside = if report.key_is_beside {
        "\n             (it lies beside the ledger; give --key with a copy that was kept elsewhere)"
    } else {
        ""
    };
    let path = path.canonicalize().unwrap_or_else(|_| path.clone());
    line("root key", format!("{id} {}{beside}", path.display()));
    if let Some((first, last)) = counts.times {
        line("entries", format!("{}, {} to {} UTC", counts.entries, display_time(first), display_time(last)));
    }
    line(
        "signatures",
        format!(
            "{} on entries, {} checkpoints, {} epochs",
            counts.signatures, counts.checkpoints, counts.epochs
        ),
    );
    line(
        "statements",
        format!(
            "{} forwarded, {} of them on a grant; {} refused",
            counts.statements, counts.grants, counts.refused
        ),
    );
    line("requests", format!("{} opened, {} answers counted", counts.requests, counts.reviews));
    line("texts", format!("{} fit their commitments, {} redacted", counts.texts, counts.redacted));
    line(
        "anchors",
        match counts.anchors {
            0 => "none given".to_owned(),
            count => format!("{count} agree"),
        },
    );
    line(
        "index",
        match counts.index_rows {
            Some(rows) => format!("{rows} rows as derived"),
            None => "not there or not looked at".to_owned(),
        },
    );
    if let Some(root) = &report.root {
        line("root", format!("{root} over {} entries", counts.entries));
    }
    text.push('\n');
    text.push_str(&verdict(report));
    text.push('\n');
    text
}

fn verdict(report: &Report) -> String {
    if let Some(problem) = &report.problem {
        let (name, code) = (problem.code.as_str(), problem.code as u8);
        return format!("NOT VERIFIED: {name} (exit code {code})\n  {}", one_line(&problem.to_string()));
    }
    let reservations = report.reservations();
    if reservations.is_empty() {
        return "VERIFIED, and an anchor covers the last entry.".to_owned();
    }
    let mut text =
        "VERIFIED WITH A RESERVATION (exit code 1): every entry is as it was signed. But:".to_owned();
    for reservation in &reservations {
        text.push_str(&format!("\n- {reservation}"));
        if matches!(reservation, Reservation::Damage { .. }) {
            for Recorded { seq, kind, what } in &report.damage {
                text.push_str(&format!("\n    entry {seq} ({}): {}", kind.name(), one_line(what)));
            }
        }
    }
    text
}

fn as_json(report: &Report) -> Value {
    let counts = &report.counts;
    let problem = report.problem.as_ref().map(|problem| {
        json!({
            "code": problem.code as u8,
            "name": problem.code.as_str(),
            "seq": problem.seq,
            "what": problem.what,
        })
    });
    let reservations: Vec<Value> = match report.problem {
        Some(_) => Vec::new(),
        None => report.reservations().iter().map(told).collect(),
    };
    let damage = report.damage.iter();
    let damage: Vec<Value> =
        damage.map(|told| json!({ "seq": told.seq, "kind": told.kind.name(), "what": told.what })).collect();
    json!({
        "verified": report.problem.is_none(),
        "exit_code": report.exit_code(),
        "problem": problem,
        "reservations": reservations,
        "damage": damage,
        "origin": report.origin,
        "key": { "id": report.key.0, "file": report.key.1, "beside_the_ledger": report.key_is_beside },
        "entries": counts.entries,
        "root": report.root.map(|root| root.to_string()),
        "anchored": report.anchored,
        "tail_from": if report.anchored == Some(counts.entries) { None } else { Some(report.anchored.unwrap_or(0)) },
        "first": counts.times.map(|(first, _)| display_time(first)),
        "last": counts.times.map(|(_, last)| display_time(last)),
        "counts": {
            "signatures": counts.signatures,
            "checkpoints": counts.checkpoints,
            "epochs": counts.epochs,
            "statements": counts.statements,
            "grants": counts.grants,
            "refused": counts.refused,
            "requests": counts.requests,
            "reviews": counts.reviews,
            "texts": counts.texts,
            "redacted": counts.redacted,
            "anchors": counts.anchors,
            "index_rows": counts.index_rows,
        },
    })
}

fn told(reservation: &Reservation) -> Value {
    json!({ "name": reservation.as_str(), "what": reservation.to_string() })
}
