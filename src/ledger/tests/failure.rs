//! Things that break, or are broken, under a running ledger: nothing runs meanwhile, nothing that was
//! acknowledged is lost, and it goes on by itself when it can.

use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sample::*;
use super::{assert_good, assert_good_and_told_of_damage, verified};
use crate::classify::StatementClass;
use crate::ledger::entry::{Entry, Key, Kind};
use crate::ledger::store::open_for_reading;
use crate::ledger::{Clearance, Event, Ledger, LedgerError, OpenError, SessionLog, Signing};
use crate::policy::Allowed;

#[allow(clippy::disallowed_methods, reason = "waits for a real thread")]
fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !happens() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn try_read(log: &SessionLog, sql: &str) -> Result<(), LedgerError> {
    let asked = Asked::new(query(sql), StatementClass::Read);
    let receipt =
        log.record_intent(&asked.record(), Clearance::Allowed(Allowed::for_test(None, policy())))?;
    log.outcome(receipt.intent(), &completed("SELECT 1", 1), 1_000);
    Ok(())
}

fn count(place: &Place, kind: Kind) -> usize {
    let connection = open_for_reading(&place.path()).unwrap();
    let mut statement = connection.prepare("SELECT body FROM entry").unwrap();
    let bodies: Vec<Vec<u8>> =
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    bodies.iter().filter(|body| Entry::parse(body).unwrap().kind() == kind).count()
}

/// Degraded, then well again, and all of it told.
fn degrades_and_resumes(
    place: &Place,
    ledger: Ledger,
    log: SessionLog,
    spoil: impl FnOnce(),
    mend: impl FnOnce(),
) {
    read_through(&log, "select 'before'");
    settle(&ledger);
    let open = read(&log, "select 'answered while nothing can be written'");
    spoil();
    let mut refused = 0;
    eventually("it never noticed", || {
        refused += usize::from(try_read(&log, "select 'during'").is_err());
        refused > 0
    });
    assert!(!ledger.status().is_healthy());
    let event = Event::Export { by: "x".into(), what: "y".into(), from: None, to: None };
    assert!(ledger.append(event).is_err(), "no event either");
    log.outcome(open, &completed("SELECT 1", 1), 7);
    mend();
    eventually("it never recovered", || ledger.status().is_healthy());
    read_through(&log, "select 'after'");
    settle(&ledger);
    log.closed("the agent left");
    ledger.close();

    assert_eq!((count(place, Kind::Degraded), count(place, Kind::Resumed)), (1, 1));
    assert_good_and_told_of_damage(place);
    let open = place.open();
    assert_eq!(open.recovery().unknown, 0, "no outcome was lost");
}

fn started() -> (Place, Ledger, SessionLog) {
    let place = Place::new();
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    (place, ledger, log)
}

#[test]
fn a_removed_database_is_put_back() {
    let (place, ledger, log) = started();
    let path = place.path();

    degrades_and_resumes(
        &place,
        ledger,
        log,
        || {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(crate::ledger::store::with_suffix_raw(&path, suffix));
            }
        },
        || {},
    );
}

#[test]
fn a_removed_write_ahead_log_loses_nothing() {
    let (place, ledger, log) = started();
    let log_file = crate::ledger::store::with_suffix_raw(&place.path(), "-wal");

    degrades_and_resumes(&place, ledger, log, || std::fs::remove_file(&log_file).unwrap(), || {});
}

#[test]
fn another_file_in_the_place_of_the_database_is_not_written_to() {
    let (place, ledger, log) = started();
    let (path, aside) = (place.path(), place.path().with_extension("aside"));
    let other = Place::new();
    other.open().close();

    degrades_and_resumes(
        &place,
        ledger,
        log,
        || {
            std::fs::rename(&path, &aside).unwrap();
            std::fs::copy(other.path(), &path).unwrap();
        },
        || {
            std::thread::sleep(Duration::from_millis(600));
            std::fs::remove_file(&path).unwrap();
            std::fs::rename(&aside, &path).unwrap();
        },
    );
    assert_eq!(count(&other, Kind::Statement), 0);
}

#[test]
fn a_spool_that_somebody_writes_into_is_told_of() {
    let (place, ledger, log) = started();
    read_through(&log, "select 1");
    settle(&ledger);
    // The writer is kept from reading until it is too far behind to be handed anything in memory, and
    // the spool is spoiled behind its back.
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let spoiled = newest_segment(&place);
    let long = "x".repeat(1000);
    let mut number = 0;
    while newest_segment(&place) == spoiled || number % 50 != 0 {
        read_through(&log, &format!("select {number}, '{long}'"));
        number += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    spoil(&spoiled, 20_000);
    lock.execute_batch("COMMIT").unwrap();

    eventually("it never noticed", || count(&place, Kind::Degraded) == 1);
    eventually("it never recovered", || ledger.status().is_healthy());
    read_through(&log, "select 'after'");
    settle(&ledger);
    drop(log);
    ledger.close();

    assert!(count(&place, Kind::Discarded) >= 1);
    assert_good_and_told_of_damage(&place);
}

/// Writes noise where `before_end` bytes of what was written last lie.
fn spoil(segment: &Path, before_end: u64) {
    let length = std::fs::read(segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.seek(std::io::SeekFrom::Start(length - before_end)).unwrap();
    file.write_all(&[0x5a; 1000]).unwrap();
}

#[test]
fn what_is_written_into_a_spool_that_is_kept_up_with_changes_nothing() {
    let (place, ledger, log) = started();
    settle(&ledger);
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..50 {
        read_through(&log, &format!("select {number}"));
    }
    spoil(&newest_segment(&place), 2000);
    lock.execute_batch("COMMIT").unwrap();
    settle(&ledger);
    drop(log);
    ledger.close();

    assert_eq!(count(&place, Kind::Statement), 50);
    assert_eq!(count(&place, Kind::Degraded), 0);
    assert_good(&place);
}

fn newest_segment(place: &Place) -> PathBuf {
    segments(&place.path()).pop().unwrap()
}

fn segments(ledger: &Path) -> Vec<PathBuf> {
    let directory = crate::ledger::key::with_suffix(ledger, "spool");
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    segments.sort();
    segments
}

#[test]
fn a_removed_spool_is_made_anew() {
    let (place, ledger, log) = started();
    read_through(&log, "select 1");
    std::fs::remove_dir_all(crate::ledger::key::with_suffix(&place.path(), "spool")).unwrap();

    eventually("it never noticed", || try_read(&log, "select 'into nothing'").is_err());
    eventually("it never recovered", || ledger.status().is_healthy());
    // Enough to need several new segments.
    let long = "x".repeat(1000);
    for number in 0..3000 {
        read_through(&log, &format!("select {number}, '{long}'"));
    }
    settle(&ledger);
    drop(log);
    ledger.close();

    assert_good_and_told_of_damage(&place);
}

fn spool_of(place: &Place) -> PathBuf {
    crate::ledger::key::with_suffix(&place.path(), "spool")
}

/// What somebody does to the spool, by name.
type Way = (&'static str, fn(&Place));

/// Ways to take from the disk what is only in the spool, while the running proxy goes on writing into a
/// file that nobody will find.
fn ways_to_take_the_spool_away() -> Vec<Way> {
    vec![
        ("removed", |place| std::fs::remove_file(newest_segment(place)).unwrap()),
        ("renamed", |place| {
            let segment = newest_segment(place);
            std::fs::rename(&segment, segment.with_extension("aside")).unwrap();
        }),
        ("cut off", |place| {
            let file = std::fs::OpenOptions::new().write(true).open(newest_segment(place)).unwrap();
            file.set_len(0).unwrap();
        }),
        ("cut off and made long again", |place| {
            let file = std::fs::OpenOptions::new().write(true).open(newest_segment(place)).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
        }),
        ("replaced by a copy", |place| {
            let segment = newest_segment(place);
            let copy = segment.with_extension("copy");
            std::fs::copy(&segment, &copy).unwrap();
            std::fs::rename(&copy, &segment).unwrap();
        }),
        ("replaced by a link to a copy", |place| {
            let segment = newest_segment(place);
            let copy = segment.with_extension("copy");
            std::fs::copy(&segment, &copy).unwrap();
            std::fs::remove_file(&segment).unwrap();
            std::os::unix::fs::symlink(&copy, &segment).unwrap();
        }),
        ("the folder removed", |place| std::fs::remove_dir_all(spool_of(place)).unwrap()),
        ("the folder renamed", |place| {
            std::fs::rename(spool_of(place), spool_of(place).with_extension("aside")).unwrap();
        }),
        ("the folder replaced by a link to another", |place| {
            let other = spool_of(place).with_extension("other");
            std::fs::create_dir(&other).unwrap();
            for segment in segments(&place.path()) {
                std::fs::copy(&segment, other.join(segment.file_name().unwrap())).unwrap();
            }
            std::fs::rename(spool_of(place), spool_of(place).with_extension("aside")).unwrap();
            std::os::unix::fs::symlink(&other, spool_of(place)).unwrap();
        }),
    ]
}

#[test]
fn a_spool_that_is_taken_away_stops_privileged_statements_at_once_and_loses_nothing() {
    for (way, take_away) in ways_to_take_the_spool_away() {
        let (place, ledger, log) = started();
        settle(&ledger);
        let lock = Connection::open(place.path()).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        read_through(&log, "select 'only in the spool'");
        take_away(&place);

        let asked = Asked::new(query("drop table t"), StatementClass::Ddl);
        let allowed = Clearance::Allowed(Allowed::for_test(Some("by-rule".into()), policy()));
        let forwarded = log.record_intent(&asked.record(), allowed);
        assert!(matches!(forwarded, Err(LedgerError::Unavailable { .. })), "{way}: {forwarded:?}");
        assert!(!ledger.status().is_healthy(), "{way}");
        assert!(try_read(&log, "select 'refused'").is_err(), "{way}");
        lock.execute_batch("COMMIT").unwrap();
        eventually(way, || ledger.status().is_healthy());
        read_through(&log, "select 'after'");
        settle(&ledger);
        drop(log);
        ledger.close();

        let connection = open_for_reading(&place.path()).unwrap();
        let count = |text: &str| {
            let sql = "SELECT count(*) FROM payload WHERE CAST(value AS TEXT) = ?1";
            connection.query_row(sql, [text], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count("select 'only in the spool'"), 1, "{way}");
        assert_eq!((count("drop table t"), count("select 'refused'")), (0, 0), "{way}");
        drop(connection);
        assert_good_and_told_of_damage(&place);
    }
}

#[test]
fn a_spool_that_is_taken_away_is_noticed_without_any_statement() {
    let (place, ledger, log) = started();
    settle(&ledger);
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    read_through(&log, "select 1");

    std::fs::remove_file(newest_segment(&place)).unwrap();

    eventually("it never noticed", || !ledger.status().is_healthy());
    lock.execute_batch("COMMIT").unwrap();
    eventually("it never recovered", || ledger.status().is_healthy());
    drop(log);
    ledger.close();
}

#[test]
fn a_database_that_is_replaced_is_noticed_without_any_statement() {
    let (place, ledger, log) = started();
    settle(&ledger);
    let aside = place.path().with_extension("aside");
    std::fs::rename(place.path(), &aside).unwrap();
    std::fs::copy(&aside, place.path()).unwrap();

    eventually("it never noticed", || !ledger.status().is_healthy());
    std::fs::rename(&aside, place.path()).unwrap();
    eventually("it never recovered", || ledger.status().is_healthy());
    drop(log);
    ledger.close();
    assert_good_and_told_of_damage(&place);
}

#[test]
fn a_writer_that_cannot_commit_for_some_seconds_stops_everything_until_it_can() {
    let mut place = Place::new();
    place.settings.commit_within = Duration::from_millis(300);
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    settle(&ledger);
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut taken = 0;
    eventually("it never stopped", || {
        let ran = try_read(&log, "select 1").is_ok();
        taken += usize::from(ran);
        !ran
    });
    let reason = ledger.status().trouble.unwrap().reason;
    assert!(reason.contains("nothing could be committed"), "{reason}");
    lock.execute_batch("COMMIT").unwrap();
    eventually("it never recovered", || ledger.status().is_healthy());
    read_through(&log, "select 'after'");
    settle(&ledger);
    drop(log);
    ledger.close();

    assert_eq!(count(&place, Kind::Statement), taken + 1);
    assert_good_and_told_of_damage(&place);
}

#[test]
fn a_ledger_whose_lock_is_taken_away_locks_again() {
    let (place, ledger, log) = started();
    let lock = crate::ledger::settings::lock_file(&place.path());

    std::fs::remove_file(&lock).unwrap();

    eventually("it never locked again", || crate::ledger::is_live(&place.path()));
    assert!(matches!(Ledger::open(&place.settings), Err(OpenError::InUse(_))));
    drop(log);
    ledger.close();
    assert_good(&place);
}

#[test]
fn a_writer_that_falls_behind_stops_everything_before_the_spool_grows_without_bound() {
    let (place, ledger, log) = started();
    settle(&ledger);
    let lock = Connection::open(place.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let long = "x".repeat(10_000);

    let mut taken = 0;
    while try_read(&log, &format!("select '{long}'")).is_ok() {
        taken += 1;
        assert!(taken < 2_000, "it never stopped");
    }
    assert!(ledger.status().trouble.unwrap().reason.contains("not in the ledger yet"));
    lock.execute_batch("COMMIT").unwrap();
    eventually("it never recovered", || ledger.status().is_healthy());
    read_through(&log, "select 'after'");
    settle(&ledger);
    drop(log);
    ledger.close();

    assert_eq!(count(&place, Kind::Statement), taken + 1);
    assert_good_and_told_of_damage(&place);
}

/// A small file system of its own, where that can be made.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(directory.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { directory });
        }
        eprintln!("a small file system cannot be mounted here (that takes root): not run");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

#[test]
fn a_full_disk_stops_everything_until_there_is_room() {
    let Some(disk) = SmallDisk::new(12 << 20) else { return };
    let inner = tempfile::tempdir_in(disk.directory.path()).unwrap();
    let ballast = disk.directory.path().join("ballast");
    let place = Place::in_directory(inner);
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    degrades_and_resumes(
        &place,
        ledger.clone(),
        log,
        || {
            let mut file = std::fs::File::create(&ballast).unwrap();
            while file.write_all(&[1; 4096]).is_ok() {}
        },
        || {
            let trouble = ledger.status().trouble.unwrap();
            assert!(trouble.disk_full, "{trouble:?}");
            std::fs::remove_file(&ballast).unwrap();
        },
    );
    drop(place);
}

#[test]
fn a_disk_that_is_full_says_so_to_the_agent() {
    let full = crate::refusal::Refusal::from(LedgerError::Unavailable { disk_full: true });
    let broken = crate::refusal::Refusal::from(LedgerError::Unavailable { disk_full: false });

    assert_eq!((full.sqlstate(), broken.sqlstate()), ("58030", "58030"));
    assert_eq!(full.detail().as_deref(), Some("the disk of the ledger is full"));
    assert_eq!(broken.detail(), None);
}

#[test]
fn an_anchor_that_has_seen_more_stops_the_start() {
    let place = Place::new();
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    settle(&ledger);
    let backup = tempfile::tempdir().unwrap();
    let early = backup.path().join("ledger.db");
    open_for_reading(&place.path()).unwrap().execute("VACUUM INTO ?1", [early.to_str().unwrap()]).unwrap();
    for number in 0..10 {
        read_through(&log, &format!("select {number}"));
    }
    settle(&ledger);
    drop(log);
    ledger.close();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::ledger::store::with_suffix_raw(&place.path(), suffix));
    }
    std::fs::copy(&early, place.path()).unwrap();

    let error = Ledger::open(&place.settings).unwrap_err();

    assert!(matches!(error, OpenError::Anchor(crate::ledger::anchor::AnchorError::Ahead { .. })), "{error}");
    assert_eq!(verified(&place, &[place.head()]).exit_code(), 18);
}

#[test]
fn a_ledger_is_open_once() {
    let place = Place::new();
    let ledger = place.open();

    assert!(matches!(Ledger::open(&place.settings), Err(OpenError::InUse(_))));
    ledger.close();
    place.open();
}

#[test]
fn another_key_does_not_go_on_with_the_ledger() {
    use crate::ledger::key::{HandOver, KeyFiles, RootKey};
    let place = Place::new();
    place.open().close();
    let files = KeyFiles::beside(&place.path());
    let old = RootKey::load(&files).unwrap();
    let new = RootKey::generate(ORIGIN).unwrap();
    for file in [&files.private, &files.public] {
        std::fs::remove_file(file).unwrap();
    }
    new.save(&files).unwrap();

    assert!(matches!(Ledger::open(&place.settings), Err(OpenError::OtherKey { .. })));

    // With a hand-over by both, it does, and either key verifies the whole.
    std::fs::write(HandOver::file(&place.path()), HandOver::prepare(&old, &new).to_text()).unwrap();
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    read_through(&log, "select 1");
    drop(log);
    ledger.close();
    assert_eq!(count(&place, Kind::KeyRoot), 1);
    assert!(!HandOver::file(&place.path()).exists());
    assert_good(&place);
    std::fs::write(&files.public, old.public().to_text()).unwrap();
    assert_good_after_all(&place);
}

/// Good by the old key: the anchor's certificate is by the new one, which the chain leads to.
fn assert_good_after_all(place: &Place) {
    assert_eq!(verified(place, &[place.head()]).problem, None);
}

#[test]
fn only_privileged_entries_are_signed_where_checkpoints_cover_the_rest() {
    let mut place = Place::new();
    place.settings.signing = Signing::Checkpoint;
    super::rich::fill(&place);

    assert_good(&place);
    let unsigned = |sql: &str| {
        let connection = Connection::open(place.path()).unwrap();
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(unsigned("SELECT count(*) FROM entry WHERE sig IS NULL") > 40);
    // What must be signed cannot be stripped; what is not signed cannot be changed.
    let connection = Connection::open(place.path()).unwrap();
    connection
        .execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM entry; UPDATE entry SET sig = NULL WHERE seq = (SELECT max(seq) FROM entry WHERE sig IS NOT NULL)")
        .unwrap();
    assert_eq!(verified(&place, &[]).exit_code(), 13);
    connection
        .execute_batch(
            "UPDATE entry SET sig = (SELECT sig FROM kept WHERE kept.seq = entry.seq); \
             UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), 'SELECT 1', 'SELECT 2') AS BLOB) WHERE 0",
        )
        .unwrap();
    let body: Vec<u8> =
        connection.query_row("SELECT body FROM entry WHERE seq = 20", [], |row| row.get(0)).unwrap();
    let mut changed = body.clone();
    let place_of_tag = changed.windows(8).position(|word| word == b"SELECT 1").unwrap();
    changed[place_of_tag + 7] = b'9';
    connection.execute("UPDATE entry SET body = ?1 WHERE seq = 20", [changed]).unwrap();
    drop(connection);
    assert_eq!(verified(&place, &[]).exit_code(), 15);
}

#[test]
fn a_grant_rests_on_what_was_recorded() {
    let (_place, ledger, log) = started();
    let info = session(1, "bot");
    let bob = person("bob", &["dba"]);
    let mut asked = Asked::new(query("drop table t"), StatementClass::Ddl);
    let waiting = request(1, &info, &asked, terms(&[("dba", 1)]));
    asked.request = Some(waiting.id);
    let forward =
        |asked: &Asked| log.record_intent(&asked.record(), Clearance::Granted(grant(&waiting, &[&bob])));

    assert!(matches!(forward(&asked), Err(LedgerError::Ungrounded(_))), "no request");
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    assert!(matches!(forward(&asked), Err(LedgerError::Ungrounded(_))), "no review");
    let approval = answer(&waiting, &bob, crate::approval::Verdict::Approve);
    ledger.append(Event::Review(Box::new(approval))).unwrap();
    let other = Asked::new(query("drop table u"), StatementClass::Ddl);
    assert!(matches!(forward(&other), Err(LedgerError::Ungrounded(_))), "another statement");
    assert!(forward(&asked).is_ok());
    assert!(matches!(forward(&asked), Err(LedgerError::Ungrounded(_))), "used");
}

#[test]
fn a_secret_is_nowhere_in_the_files() {
    let place = Place::new();
    super::rich::fill(&place);

    for entry in std::fs::read_dir(place.directory.path()).unwrap().flatten() {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(7).any(|word| word == b"hunter2"), "{}", entry.path().display());
        }
    }
}

#[test]
fn a_redacted_text_is_gone_from_the_files() {
    let place = Place::new();
    super::rich::fill(&place);

    for name in ["ledger.db", "ledger.db-wal", "ledger.db.index.db", "ledger.db.index.db-wal"] {
        let bytes = std::fs::read(place.path().with_file_name(name)).unwrap_or_default();
        let word = b"update t set a = 1";
        assert!(!bytes.windows(word.len()).any(|window| window == word), "{name}");
    }
    assert!(segments(&place.path()).iter().all(|path| path.extension().is_none()), "only the mark is left");
}

#[test]
fn a_text_too_long_to_keep_is_cut_and_committed_to() {
    let (place, ledger, log) = started();
    let long = format!("insert into t values ('{}')", "x".repeat(2 << 20));

    let error = try_read(&log, &long);

    // The test's segments are small; the record still has to fit, because only its beginning is kept.
    assert!(error.is_ok(), "{error:?}");
    settle(&ledger);
    drop(log);
    ledger.close();
    let connection = open_for_reading(&place.path()).unwrap();
    let body: Vec<u8> = connection
        .query_row("SELECT body FROM entry JOIN payload USING (seq) WHERE length(value) = 65536", [], |row| {
            row.get(0)
        })
        .unwrap();
    let entry = Entry::parse(&body).unwrap();
    assert_eq!(entry.text(Key::Rendition), Some("truncated"));
    assert!(entry.has(Key::Digest) && entry.has(Key::Nonce));
    assert_good(&place);
}

#[test]
fn what_was_held_is_kept_whole_with_its_values_whatever_its_size() {
    let (place, ledger, log) = started();
    let info = session(1, "bot");
    let bob = person("bob", &["dba"]);
    // More than a segment of the spool holds, here.
    let sql = format!("/*{}*/ drop table victim where $1", "generated; ".repeat(120_000));
    let value = "v".repeat(70_000);
    let mut asked = Asked::new(bound(&sql, &value), StatementClass::Ddl);
    let waiting = request(1, &info, &asked, terms(&[("dba", 1)]));
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    ledger
        .append(Event::Review(Box::new(answer(&waiting, &bob, crate::approval::Verdict::Approve))))
        .unwrap();
    asked.request = Some(waiting.id);
    let granted = Clearance::Granted(grant(&waiting, &[&bob]));
    let receipt = log.record_intent(&asked.record(), granted).unwrap();
    log.outcome(receipt.intent(), &completed("DROP TABLE", 0), 1);
    settle(&ledger);
    drop(log);
    ledger.close();

    let reader = crate::ledger::read::Reader::open(&place.path()).unwrap();
    let mut whole = 0;
    reader
        .each::<crate::ledger::read::ReadError>(0, u64::MAX, |stored| {
            let entry = stored.entry().unwrap();
            if matches!(entry.kind(), Kind::RequestOpened | Kind::Statement) {
                let text = |key| reader.text(&entry, key).unwrap().kept().unwrap();
                assert_eq!(text(Key::Sql), sql.as_bytes());
                assert!(text(Key::Parameters).ends_with(value.as_bytes()));
                assert!(!entry.has(Key::Rendition));
                whole += 1;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(whole, 2);
    assert_good(&place);
}

#[test]
fn a_statement_that_is_too_long_to_keep_whole_is_refused_by_itself() {
    let (_place, ledger, log) = started();
    let info = session(1, "bot");
    let asked = Asked::new(query(&format!("/*{}*/ drop table t", "x".repeat(4 << 20))), StatementClass::Ddl);

    let opened =
        ledger.append(Event::RequestOpened { request: request(1, &info, &asked, terms(&[("dba", 1)])) });

    assert!(matches!(opened, Err(LedgerError::TooLarge(_))), "{opened:?}");
    assert!(ledger.status().is_healthy(), "others go on");
    read_through(&log, "select 1");
}

#[test]
fn a_search_makes_up_for_an_index_that_is_behind() {
    let (mut place, ledger, log) = started();
    for number in 0..5 {
        read_through(&log, &format!("select {number}"));
    }
    drop(log);
    ledger.close();
    // From here on nobody keeps the index, as on a day when statements leave no time for it.
    place.settings.index = false;
    let ledger = place.open();
    let log = ledger.session_opened(&session(2, "bot")).unwrap();
    for number in 0..7 {
        read_through(&log, &format!("select {number}"));
    }
    settle(&ledger);

    let found = crate::ledger::index::for_searching(&place.path()).unwrap();

    let count = |index: &Connection| {
        index.query_row("SELECT count(*) FROM statement", [], |row| row.get::<_, usize>(0)).unwrap()
    };
    assert_eq!(count(&found), 12);
    let kept = Connection::open(crate::ledger::index::path_of(&place.path())).unwrap();
    assert_eq!(count(&kept), 5, "the file is its keeper's");
}
