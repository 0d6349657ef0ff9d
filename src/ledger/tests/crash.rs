//! Death of the process, and a spool that was cut off: what was acknowledged is in the ledger afterwards,
//! and the ledger verifies.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::sample::*;
use super::{assert_good, verified};
use crate::ledger::clock::Clock;
use crate::ledger::store::open_for_reading;
use crate::ledger::{Ledger, Settings};

const CHILD: &str = "COUNTERSIGN_CRASH_CHILD";

/// Not a test: what the test below runs in another process, and kills.
#[test]
fn a_process_that_is_going_to_be_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let path = PathBuf::from(path);
    let mut settings = Settings::new(&path);
    settings.heads = vec![path.with_file_name("head")];
    settings.segment_bytes = 1 << 16;
    let ledger = Ledger::open(&settings).unwrap();
    let round = std::process::id();
    let info = session(u128::from(round), "bot");
    let log = ledger.session_opened(&info).unwrap();
    let mut output = std::io::stdout();
    let bob = person("bob@example.com", &["dba"]);
    for number in 0_u64.. {
        let sql = format!("select {number} /* {round} */");
        let intent = read(&log, &sql);
        // Acknowledged: from here on it may be running upstream.
        writeln!(output, "{sql}").unwrap();
        output.flush().unwrap();
        if number % 3 != 0 {
            log.outcome(intent, &completed("SELECT 1", 1), 1);
        }
        if number % 50 == 49 {
            let held = u128::from(round) << 32 | u128::from(number);
            let sql = format!("copy t_{number} to stdout /* {round} */");
            held_now(&ledger, &log, &info, held, &sql, &bob);
            writeln!(output, "{sql}").unwrap();
        }
    }
}

/// As `held_through`, by the machine's clock.
fn held_now(
    ledger: &Ledger,
    log: &crate::ledger::SessionLog,
    info: &crate::ledger::SessionInfo,
    number: u128,
    sql: &str,
    reviewer: &std::sync::Arc<crate::actor::Reviewer>,
) {
    use crate::approval::Verdict;
    use crate::ledger::{Clearance, Event};
    let mut asked = Asked::new(query(sql), crate::classify::StatementClass::Export);
    let mut request = (*request(number, info, &asked, terms(&[("dba", 1)]))).clone();
    let now = Clock::System.now().wall;
    request.opened_at = jiff::Timestamp::from_nanosecond(i128::from(now)).unwrap();
    request.expires_at = request.opened_at + Duration::from_secs(900);
    let request = std::sync::Arc::new(request);
    ledger.append(Event::RequestOpened { request: request.clone() }).unwrap();
    ledger.append(Event::Review(Box::new(answer(&request, reviewer, Verdict::Approve)))).unwrap();
    asked.request = Some(request.id);
    let receipt =
        log.record_intent(&asked.record(), Clearance::Granted(grant(&request, &[reviewer]))).unwrap();
    log.outcome(receipt.intent(), &completed("COPY 1", 1), 1);
}

/// Ten rounds always; two hundred with `COUNTERSIGN_SOAK=1`.
#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let rounds = if std::env::var_os("COUNTERSIGN_SOAK").is_some() { 200 } else { 10 };
    let mut place = Place::new();
    place.settings.clock = Clock::System;
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::crash::a_process_that_is_going_to_be_killed", "--nocapture"])
            .env(CHILD, place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some rounds die early, some after several segments.
        for _ in 0..(round * 97) % 1200 + 3 {
            let Some(Ok(line)) = lines.next() else { break };
            acknowledged.extend(line.contains("/*").then_some(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was written to the pipe before the kill was acknowledged as well.
        acknowledged.extend(lines.map_while(Result::ok).filter(|line| line.ends_with("*/")));
    }

    place.open().close();

    let recorded = texts(&place.path());
    let lost: Vec<&String> = acknowledged.iter().filter(|sql| !recorded.contains(*sql)).collect();
    assert!(acknowledged.len() > rounds * 3);
    assert_eq!(lost, Vec::<&String>::new());
    assert_good(&place);
}

fn texts(ledger: &Path) -> BTreeSet<String> {
    let connection = open_for_reading(ledger).unwrap();
    let mut statement =
        connection.prepare("SELECT CAST(value AS TEXT) FROM payload WHERE field = 40").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A crash as the disk has it: everything that a run had written, nothing of its end. The writer was
/// kept from committing, so that all statements are in the spool only.
fn crash_image(statements: usize) -> tempfile::TempDir {
    let mut place = Place::new();
    place.settings.index = false;
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    read_through(&log, "select 'committed'");
    settle(&ledger);
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..statements {
        read_through(&log, &format!("select {number}"));
    }
    let image = tempfile::tempdir().unwrap();
    copy_all(place.directory.path(), image.path());
    lock.execute_batch("ROLLBACK").unwrap();
    image
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The place as it was at the crash, to be opened again.
fn place_in(image: tempfile::TempDir) -> Place {
    let mut place = Place::new();
    place.settings = Settings::new(image.path().join("ledger.db"));
    place.settings.clock = Clock::Manual(place.clock.clone());
    place.settings.heads = vec![image.path().join("head")];
    place.settings.segment_bytes = 1 << 20;
    place.clock.pass(60_000_000_000);
    place.directory = std::sync::Arc::new(image);
    place
}

/// The end of what was written, in the only segment.
fn written(image: &Path) -> (PathBuf, u64) {
    let segments: Vec<PathBuf> = std::fs::read_dir(image.join("ledger.db.spool"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let segment = segments.into_iter().max().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    (segment, end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However much of its end is missing (cut off, or zeros where a page was never written), what is
    /// left of the spool becomes a ledger that verifies, with a beginning of what was recorded.
    #[test]
    fn a_spool_that_was_cut_off_replays_to_a_good_ledger(
        statements in 1..40_usize, kept in 0.0..1.0_f64, truncate in any::<bool>(),
    ) {
        let image = crash_image(statements);
        let (segment, end) = written(image.path());
        let keep = 64 + ((end - 64) as f64 * kept) as u64;
        let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
        if truncate {
            file.set_len(keep).unwrap();
        } else {
            file.write_all_at(&vec![0; (end - keep) as usize], keep).unwrap();
        }
        let place = place_in(image);

        let ledger = place.open();
        prop_assert!(!ledger.recovery().damaged, "a crash is no damage");
        ledger.close();

        prop_assert_eq!(verified(&place, &[]).problem, None);
        let recorded = texts(&place.path());
        let first_missing = (0..statements).find(|n| !recorded.contains(&format!("select {n}"))).unwrap_or(statements);
        for number in first_missing..statements {
            prop_assert!(!recorded.contains(&format!("select {number}")), "a hole before {number}");
        }
    }

    /// Bytes that were changed rather than cut off are told of, and what follows is a good ledger.
    #[test]
    fn a_spool_that_was_changed_replays_to_a_good_ledger(
        statements in 5..40_usize, at in 0.0..1.0_f64, noise in any::<u8>(),
    ) {
        let image = crash_image(statements);
        let (segment, end) = written(image.path());
        let at = 64 + ((end - 65) as f64 * at) as u64;
        let mut byte = [0];
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= noise | 1;
        file.write_all_at(&byte, at).unwrap();
        let place = place_in(image);

        place.open().close();

        prop_assert_eq!(verified(&place, &[]).problem, None);
    }
}

#[test]
fn one_changed_bit_costs_one_record_and_is_told() {
    let image = crash_image(40);
    let (segment, _) = written(image.path());
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|words| words == b"select 20").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"delete 20", at as u64).unwrap();
    let place = place_in(image);

    let ledger = place.open();

    assert!(ledger.recovery().damaged, "{:?}", ledger.recovery());
    assert_eq!(ledger.recovery().lost, 1);
    ledger.close();
    let recorded = texts(&place.path());
    assert!(!recorded.contains("delete 20") && !recorded.contains("select 20"));
    assert!(
        recorded.contains("select 19") && recorded.contains("select 21") && recorded.contains("select 39")
    );
    assert_eq!(verified(&place, &[]).problem, None);
}

#[test]
fn a_record_that_somebody_else_wrote_does_not_become_history() {
    let image = crash_image(3);
    let (segment, end) = written(image.path());
    let bytes = std::fs::read(&segment).unwrap();
    // The last record once more, as the next one, with the best check that can be had without the key.
    let last = bytes.windows(8).rposition(|words| words == b"select 2").unwrap();
    let start = (64..last).rev().find(|&at| {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let number = u64::from_le_bytes(bytes[at + 20..at + 28].try_into().unwrap());
        length > 100 && (1..100).contains(&number) && at + length > last && at + length <= end as usize + 8
    });
    let start = start.unwrap();
    let length = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    let mut forged = bytes[start..start + length].to_vec();
    let number = u64::from_le_bytes(forged[20..28].try_into().unwrap());
    forged[20..28].copy_from_slice(&(number + 2).to_le_bytes());
    let at = forged.windows(8).position(|words| words == b"select 2").unwrap();
    forged[at..at + 8].copy_from_slice(b"select 7");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&forged, end).unwrap();
    let place = place_in(image);

    place.open().close();

    assert!(!texts(&place.path()).contains("select 7"));
    assert_eq!(verified(&place, &[]).problem, None);
}

#[test]
fn a_spool_that_is_gone_after_a_crash_is_told() {
    for take_away in ["the segments", "the folder", "the header"] {
        let image = crash_image(5);
        let spool = image.path().join("ledger.db.spool");
        let (segment, _) = written(image.path());
        match take_away {
            "the segments" => std::fs::remove_file(segment).unwrap(),
            "the folder" => std::fs::remove_dir_all(&spool).unwrap(),
            _ => {
                let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
                file.write_all_at(&[0xff], 20).unwrap();
            }
        }
        let place = place_in(image);

        let ledger = place.open();
        assert!(ledger.recovery().damaged, "{take_away}");
        ledger.close();
        assert_eq!(verified(&place, &[]).problem, None, "{take_away}");

        let ledger = place.open();
        assert_eq!(ledger.recovery(), &crate::ledger::Recovery::default(), "a run that ended well");
        ledger.close();
    }
}

#[test]
fn an_old_mark_does_not_say_that_a_later_run_has_ended_well() {
    let place = Place::new();
    place.open().close();
    let mark = place.path().with_file_name("ledger.db.spool").join("ended");
    let old = std::fs::read(&mark).unwrap();
    let ledger = place.open();
    read_through(&ledger.session_opened(&session(1, "bot")).unwrap(), "select 1");
    settle(&ledger);
    ledger.close();

    std::fs::write(&mark, old).unwrap();

    let ledger = place.open();
    assert!(ledger.recovery().damaged);
    ledger.close();
}

#[test]
fn a_whole_spool_is_replayed_whole() {
    let place = place_in(crash_image(40));

    let ledger = place.open();

    assert!(ledger.recovery().replayed >= 40, "{:?}", ledger.recovery());
    ledger.close();
    assert_eq!(texts(&place.path()).len(), 41);
    assert_good(&place);
}
