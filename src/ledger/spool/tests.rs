use super::*;
use crate::ledger::entry::Key;

const KEY: [u8; 32] = [7; 32];
const SEGMENT: u64 = 256 << 10;

fn spool(directory: &Path) -> Spool {
    let layout = Layout {
        directory: directory.to_owned(),
        segment_bytes: SEGMENT,
        backlog_bytes: 64 * SEGMENT,
        key: SpoolKey::new(&KEY),
    };
    Spool::open(layout, [1; 16], Clock::System, 0, None).unwrap()
}

fn outcome(rest: usize) -> Vec<u8> {
    let mut fields = Fields::new();
    fields.text(Key::What, &"x".repeat(rest));
    let mut record = Vec::new();
    record::outcome(&mut record, 1, &fields);
    record
}

fn append(spool: &Spool, mut record: Vec<u8>) {
    let length = record.len();
    spool.append(&mut record, &[length], None, false).unwrap();
}

/// All records that a reader of the files finds, in order.
fn records(spool: &Spool) -> Vec<(u64, Moment)> {
    let mut follower = Follower::new(0);
    let mut found = Vec::new();
    loop {
        let batch = follower.read_file(spool, 10_000).unwrap();
        assert_eq!((batch.lost.as_slice(), batch.damaged), (&[][..], false));
        found.extend(batch.records.iter().map(|record| (record.number, record.at)));
        // What the writer thread would take from memory comes last.
        if batch.records.is_empty() && !batch.more {
            return found;
        }
    }
}

#[test]
fn a_record_in_a_new_segment_is_not_older_than_what_was_waiting_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());

    // What waits is written at the end of one segment, and what did not fit begins the next.
    for _ in 0..20 {
        spool.append_soon(&outcome(10)).unwrap();
        append(&spool, outcome(150_000));
    }

    let found = records(&spool);
    let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<u64>>());
    assert!(found.is_sorted_by_key(|(_, at)| at.mono), "{found:?}");
}

#[test]
fn a_segment_that_is_allocated_twice_at_once_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            for _ in 0..150 {
                append(&spool, outcome(150_000));
                let last = spool.inner.lock().segments.back().unwrap().number();
                spool.retire(last);
            }
        });
        while !writer.is_finished() {
            spool.prepare().unwrap();
            spool.check_in_place().unwrap();
        }
    });

    // Neither the files that lost the race nor those that are read are left.
    let files = std::fs::read_dir(directory.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "seg"));
    assert!(files.count() <= 2, "the current one and a spare one");
}
