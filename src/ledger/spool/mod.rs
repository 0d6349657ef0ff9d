//! The spool: where a record is durable before the statement it tells of goes upstream.
//!
//! A record is one `write()` into a segment whose space was allocated beforehand: about a
//! microsecond, and it survives the death of the process. Privileged records are followed by
//! `fdatasync` and survive the loss of power too. The writer thread follows behind ([`Follower`]) and
//! deletes a segment once all of it is committed to SQLite. As long as it keeps up it is handed the
//! bytes that were written, in memory; where it falls behind it reads them back from the file, which
//! bounds memory however far behind it is.
//!
//! A record that nobody waits for ([`Spool::append_soon`]) goes along with the next one, or is written
//! by the writer thread when its next group begins: one `write()` less for each statement that only
//! reads.
//!
//! What this module refuses to know: what a record means.

#![allow(clippy::disallowed_methods, reason = "how long something waits is measured here")]

pub(crate) mod record;
mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::cbor::Fields;
use super::clock::{Clock, Moment};
use record::{NoRecord, Record, SpoolKey};
pub(crate) use segment::Segment;
use segment::{Displaced, FIRST_OFFSET, SegmentHeader};

/// The end of a segment that only the record of a breakdown may use: there must be room to say that
/// there is no room.
const RESERVE: u64 = 4096;
/// How much is read back at a time.
const CHUNK: u64 = 1 << 20;
/// How much of what was written is kept for the writer thread.
const FRESH: usize = 4 << 20;
/// How much may wait to be written along.
const SOON: u64 = 64 << 10;
/// How old the last look at the segments' places may be when a routine record is written, nanoseconds.
/// Before and after a privileged one they are looked at in any case.
const LOOK: u64 = 20_000_000;
/// The part of the spool's limit that one record may take.
const LARGEST: u64 = 4;

/// Why a record could not be spooled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The disk is full.
    #[error("no space for the spool")]
    NoSpace,
    /// Writing or syncing failed.
    #[error("the spool cannot be written: {0}")]
    Io(io::Error),
    /// An earlier write failed and has not been repaired yet.
    #[error("the spool is broken")]
    Broken,
    /// The file that is written is not the one that a start after a crash would read.
    #[error(transparent)]
    Displaced(#[from] Displaced),
    /// The writer is too far behind.
    #[error("the spool holds {0} bytes that are not in the ledger yet")]
    Backlog(u64),
    /// The record can never fit.
    #[error("a record of {0} bytes does not fit into a segment")]
    TooLarge(usize),
}

impl SpoolError {
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::NoSpace)
    }

    fn of(error: io::Error) -> Self {
        if is_out_of_space(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

/// Whether space is what is missing. A limit on file size (`RLIMIT_FSIZE`) is a full disk by another
/// name.
pub(crate) fn is_out_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The constants of one session, and the segment that has them already.
#[derive(Debug)]
pub(crate) struct Context {
    session: [u8; 16],
    fields: Fields,
    written_in: u64,
}

impl Context {
    pub(crate) fn new(session: [u8; 16], fields: Fields) -> Self {
        Self { session, fields, written_in: 0 }
    }

    /// Other constants from now on.
    pub(crate) fn replace(&mut self, fields: Fields) {
        self.fields = fields;
        self.written_in = 0;
    }
}

/// How the spool is laid out.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) directory: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) backlog_bytes: u64,
    pub(crate) key: SpoolKey,
}

/// The spool of one running ledger.
#[derive(Debug)]
pub(crate) struct Spool {
    layout: Layout,
    boot: [u8; 16],
    clock: Clock,
    /// What an earlier run had left was not all there.
    is_incomplete: bool,
    inner: Mutex<Inner>,
    wake: Wake,
    watch: Watch,
}

/// Since when records wait that are not in the ledger yet.
#[derive(Debug)]
struct Watch {
    base: Instant,
    /// Milliseconds after `base`, and one more; zero when nothing waits.
    since: AtomicU64,
}

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Something was written. Called under the spool's lock.
    fn waits(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(self.now(), Ordering::Release);
        }
    }

    /// A group was committed. Called under the spool's lock.
    fn committed(&self, all: bool) {
        self.since.store(if all { 0 } else { self.now() }, Ordering::Release);
    }

    fn waited(&self) -> Duration {
        match self.since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now().saturating_sub(since)),
        }
    }
}

#[derive(Debug)]
struct Inner {
    /// What is not yet all in the ledger, oldest first. The last one is being written.
    segments: VecDeque<Arc<Segment>>,
    /// Allocated and empty.
    spare: Option<Segment>,
    /// The end of what is written in the last segment.
    offset: u64,
    next_record: u64,
    /// A write failed; the last segment's end cannot be trusted.
    broken: bool,
    /// When the segments' places were looked at last, by the clock that nobody sets.
    looked: Option<u64>,
    /// Left behind without a sync; the next sync includes them.
    unsynced: Vec<Arc<Segment>>,
    /// Records that wait to be written along, without numbers yet, and their lengths.
    soon: Vec<u8>,
    soon_lengths: Vec<usize>,
    /// What was written into the last segment from `fresh_from` on, for the writer thread.
    fresh: Vec<u8>,
    fresh_from: u64,
}

impl Spool {
    /// Opens the spool directory. Segments that an earlier run left are first in line to be
    /// followed; `next_record` is the number for new records once those are counted. `ended` is where
    /// the ledger stands, if there is one: a run that ended well has left a mark of it, any other a
    /// segment, and where neither is there, somebody has taken it away.
    pub(crate) fn open(
        layout: Layout,
        boot: [u8; 16],
        clock: Clock,
        ingested: u64,
        ended: Option<u64>,
    ) -> io::Result<Self> {
        segment::make_directory(&layout.directory)?;
        let (old, foreign) = segment::list(&layout.directory, &layout.key)?;
        let mark = layout.directory.join(MARK);
        let ended_well = ended.is_none_or(|size| {
            let marked = std::fs::read(&mark).unwrap_or_default();
            layout.key.holds(&mark_of(ingested, size), &marked)
        });
        let is_incomplete = foreign || old.is_empty() && !ended_well;
        let last = old.last().map_or(0, |segment| segment.number());
        let next_record = next_after(&old, ingested, &layout.key)?;
        let mut segments: VecDeque<_> = old.into_iter().map(Arc::new).collect();
        let header = SegmentHeader { number: last + 1, first_record: next_record, boot };
        segments.push_back(Arc::new(Segment::create(
            &layout.directory,
            layout.segment_bytes,
            header,
            &layout.key,
        )?));
        // From here on this run has not ended.
        match std::fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sync_directory(&layout.directory)?,
        }
        Ok(Self {
            is_incomplete,
            layout,
            boot,
            clock,
            inner: Mutex::new(Inner {
                segments,
                spare: None,
                offset: FIRST_OFFSET,
                next_record,
                broken: false,
                looked: None,
                unsynced: Vec::new(),
                soon: Vec::new(),
                soon_lengths: Vec::new(),
                fresh: Vec::new(),
                fresh_from: FIRST_OFFSET,
            }),
            wake: Wake::default(),
            watch: Watch { base: Instant::now(), since: AtomicU64::new(0) },
        })
    }

    /// Writes records, all in one piece, and returns the number of the last. With `sync` they are on
    /// the disk when this returns.
    ///
    /// `context` is written first where this segment does not have it yet.
    ///
    /// Nothing is written into a file that a start after a crash would not find.
    pub(crate) fn append(
        &self,
        records: &mut [u8],
        lengths: &[usize],
        context: Option<&mut Context>,
        sync: bool,
    ) -> Result<u64, SpoolError> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if inner.broken {
            return Err(SpoolError::Broken);
        }
        let prelude =
            context.as_ref().map_or(0, |context| record::HEADER + 64 + context.fields.as_bytes().len());
        let needed = (records.len() + prelude) as u64;
        let began = self.clock.now().mono;
        if sync || inner.looked.is_none_or(|at| began.saturating_sub(at) > LOOK) {
            Self::look(inner, began)?;
        }
        if inner.end() + needed > inner.room()? {
            self.write_soon(inner)?;
            if inner.offset + needed > inner.room()? {
                self.roll_for(inner, needed)?;
            }
        }
        let current = inner.current()?;
        // Read after `write_soon`, which stamps what it writes: time must not go back between records.
        let now = self.clock.now();
        // What waits goes first, and all of it by one write.
        let (waiting, mut number) = inner.seal_soon(now, &self.layout.key);
        let in_segment = context.as_ref().map(|context| context.written_in);
        if let Some(context) = &context
            && context.written_in != current.number()
        {
            let mut before = Vec::new();
            record::context(&mut before, &context.session, &context.fields);
            record::seal(&mut before, number, now, &self.layout.key);
            inner.soon.extend_from_slice(&before);
        }
        number = seal_all(records, lengths, number, now, &self.layout.key);
        inner.soon.extend_from_slice(records);
        if let Err(error) = Self::write_out(inner, &current) {
            inner.soon.truncate(waiting);
            return Err(error);
        }
        if let Some(context) = context
            && in_segment != Some(current.number())
        {
            context.written_in = current.number();
        }
        inner.next_record = number + 1;
        self.watch.waits();
        let unsynced = if sync { std::mem::take(&mut inner.unsynced) } else { Vec::new() };
        drop(guard);
        self.wake.appended(number);
        if sync {
            self.wake.hurry();
            self.sync(&current, unsynced)?;
            // Once more, now that it is on the disk: it may have been taken away while it was written.
            let mut inner = self.inner.lock();
            if current.is_displaced() {
                return Err(SpoolError::Broken);
            }
            Self::look(&mut inner, now.mono)?;
        }
        Ok(number)
    }

    /// Looks whether every segment that holds something is where a start after a crash looks for it.
    /// One that is not is told of once, and no more is written into it.
    pub(crate) fn check_in_place(&self) -> Result<(), SpoolError> {
        let mut inner = self.inner.lock();
        if inner.broken {
            return Ok(());
        }
        let now = self.clock.now().mono;
        Self::look(&mut inner, now)
    }

    fn look(inner: &mut Inner, now: u64) -> Result<(), SpoolError> {
        for segment in inner.segments.iter().filter(|segment| !segment.is_displaced()) {
            if let Err(displaced) = segment.check_in_place() {
                segment.displace();
                inner.broken = true;
                return Err(displaced.into());
            }
        }
        inner.looked = Some(now);
        Ok(())
    }

    /// How long something has been waiting without anything being committed.
    pub(crate) fn waited(&self) -> Duration {
        self.watch.waited()
    }

    /// All records before `upto` are in the ledger.
    pub(crate) fn committed(&self, upto: u64) {
        let inner = self.inner.lock();
        self.watch.committed(inner.next_record <= upto);
    }

    /// Writes a record along with the next one, a group of the writer thread's later at most. A crash
    /// before that loses it: for what tells of nothing that changed.
    pub(crate) fn append_soon(&self, record: &[u8]) -> Result<(), SpoolError> {
        let mut inner = self.inner.lock();
        if inner.broken {
            return Err(SpoolError::Broken);
        }
        if (inner.soon.len() + record.len()) as u64 > SOON.min(self.layout.segment_bytes / 4) {
            self.write_soon(&mut inner)?;
        }
        inner.soon.extend_from_slice(record);
        inner.soon_lengths.push(record.len());
        let number = inner.next_with_soon() - 1;
        drop(inner);
        self.wake.appended(number);
        Ok(())
    }

    /// Writes what waits to be written along.
    pub(crate) fn settle(&self) -> Result<(), SpoolError> {
        self.write_soon(&mut self.inner.lock())
    }

    fn write_soon(&self, inner: &mut Inner) -> Result<(), SpoolError> {
        if inner.soon.is_empty() {
            return Ok(());
        }
        if inner.broken {
            return Err(SpoolError::Broken);
        }
        if inner.end() > inner.room()? {
            self.roll(inner)?;
        }
        let current = inner.current()?;
        let (_, number) = inner.seal_soon(self.clock.now(), &self.layout.key);
        Self::write_out(inner, &current)?;
        inner.next_record = number;
        self.watch.waits();
        Ok(())
    }

    /// One write of everything that is sealed in `soon`.
    fn write_out(inner: &mut Inner, current: &Segment) -> Result<(), SpoolError> {
        let bytes = std::mem::take(&mut inner.soon);
        let written = Self::write(inner, current, &bytes);
        inner.soon = bytes;
        if written.is_ok() {
            inner.soon.clear();
            inner.soon_lengths.clear();
            // One large statement must not keep its room for ever.
            inner.soon.shrink_to(SOON as usize);
        }
        written
    }

    /// Writes the record of a breakdown where nothing else may be written.
    pub(crate) fn append_reserved(&self, record: &mut [u8]) -> Result<u64, SpoolError> {
        let mut inner = self.inner.lock();
        if inner.broken || inner.offset + record.len() as u64 > inner.current()?.bytes() {
            return Err(SpoolError::Broken);
        }
        let current = inner.current()?;
        let number = inner.next_record;
        record::seal(record, number, self.clock.now(), &self.layout.key);
        Self::write(&mut inner, &current, record)?;
        inner.next_record = number + 1;
        drop(inner);
        self.wake.appended(number);
        self.sync(&current, Vec::new())?;
        Ok(number)
    }

    fn write(inner: &mut Inner, current: &Segment, bytes: &[u8]) -> Result<(), SpoolError> {
        match current.write_at(bytes, inner.offset) {
            Ok(()) => {
                inner.offset += bytes.len() as u64;
                inner.keep_fresh(bytes);
                Ok(())
            }
            Err(error) => {
                // How much of it arrived nobody knows. Nothing more goes behind it.
                inner.broken = true;
                Err(SpoolError::of(error))
            }
        }
    }

    fn sync(&self, current: &Segment, unsynced: Vec<Arc<Segment>>) -> Result<(), SpoolError> {
        // In order, so that power lost in the middle leaves a beginning and not a hole.
        let result = unsynced.iter().try_for_each(|segment| segment.sync()).and_then(|()| current.sync());
        result.map_err(|error| {
            // After a failed sync the kernel may have dropped the pages and will not say so again:
            // what this segment holds is unknown from here on.
            self.inner.lock().broken = true;
            SpoolError::of(error)
        })
    }

    /// Goes on in a new segment of the usual size.
    fn roll(&self, inner: &mut Inner) -> Result<(), SpoolError> {
        self.roll_for(inner, 0)
    }

    /// Goes on in a new segment that has room for `needed` bytes.
    fn roll_for(&self, inner: &mut Inner, needed: u64) -> Result<(), SpoolError> {
        let usual = self.layout.segment_bytes;
        let bytes = usual.max((FIRST_OFFSET + needed + RESERVE).next_multiple_of(RESERVE));
        let held: u64 = inner.segments.iter().map(|segment| segment.bytes()).sum();
        // One large statement is refused by itself, and leaves room for those of others: that there is
        // no room left stops everybody.
        if bytes > usual
            && (bytes > self.layout.backlog_bytes / LARGEST || held + bytes > self.layout.backlog_bytes / 2)
        {
            return Err(SpoolError::TooLarge(usize::try_from(needed).unwrap_or(usize::MAX)));
        }
        if held + bytes > self.layout.backlog_bytes {
            return Err(SpoolError::Backlog(held));
        }
        let current = inner.current()?;
        let header =
            SegmentHeader { number: current.number() + 1, first_record: inner.next_record, boot: self.boot };
        let spare = match inner.spare.take().filter(|spare| spare.bytes() >= bytes) {
            Some(spare) => spare,
            None => {
                Segment::allocate(&self.layout.directory, bytes, header.number).map_err(SpoolError::of)?
            }
        };
        let next = spare.begin(header, &self.layout.key).map_err(SpoolError::of)?;
        current.seal(inner.offset);
        inner.unsynced.push(current);
        inner.segments.push_back(Arc::new(next));
        inner.offset = FIRST_OFFSET;
        // What the writer thread has not taken of the segment before, it reads back.
        inner.fresh.clear();
        inner.fresh_from = FIRST_OFFSET;
        Ok(())
    }

    /// Allocates the next segment ahead of time, so that no statement waits for it.
    pub(crate) fn prepare(&self) -> Result<(), SpoolError> {
        let number = {
            let inner = self.inner.lock();
            if inner.spare.is_some() || inner.offset < self.layout.segment_bytes / 2 {
                return Ok(());
            }
            inner.current()?.number() + 1
        };
        let spare = Segment::allocate(&self.layout.directory, self.layout.segment_bytes, number)
            .map_err(SpoolError::of)?;
        let mut inner = self.inner.lock();
        // An append may have been faster.
        if inner.spare.is_none() && inner.current()?.number() + 1 == number {
            inner.spare = Some(spare);
            return Ok(());
        }
        drop(inner);
        std::fs::remove_file(spare.path()).map_err(SpoolError::of)
    }

    /// Somebody altered what was written. Nothing more goes into this segment.
    pub(crate) fn mistrust(&self) {
        self.inner.lock().broken = true;
    }

    /// Whether what an earlier run had left was not all there.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Deletes every segment: all of them is in the ledger of `size` entries, and nothing is going to
    /// be written. Leaves the mark that says so.
    pub(crate) fn clear(&self, ingested: u64, size: u64) {
        let mark = self.layout.key.check(&mark_of(ingested, size));
        if let Err(error) = std::fs::write(self.layout.directory.join(MARK), mark) {
            tracing::warn!(%error, "the spool's mark cannot be written; the next start will miss it");
        }
        self.retire(u64::MAX);
        let mut inner = self.inner.lock();
        inner.broken = true;
        let spare = inner.spare.take();
        for path in inner.segments.iter().map(|segment| segment.path()).chain(spare.iter().map(Segment::path))
        {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Makes the spool writable again, if it can be: goes on in a new segment after a failed write,
    /// or when there is no room left in this one.
    pub(crate) fn repair(&self) -> Result<(), SpoolError> {
        let mut inner = self.inner.lock();
        let room = inner.offset + 2 * RESERVE <= inner.current()?.bytes();
        if inner.broken || !room {
            inner.spare = None;
            self.roll(&mut inner)?;
            inner.broken = false;
        }
        Ok(())
    }

    /// Goes on in a new segment, so that the present one can be deleted once all of it is in the
    /// ledger: it holds something that was redacted. Returns the number of the new one.
    pub(crate) fn leave_segment(&self) -> Result<u64, SpoolError> {
        let mut inner = self.inner.lock();
        self.write_soon(&mut inner)?;
        self.roll(&mut inner)?;
        Ok(inner.current()?.number())
    }

    /// Whether segments before `number` are all deleted.
    pub(crate) fn begins_at(&self, number: u64) -> bool {
        self.inner.lock().segments.front().is_some_and(|segment| segment.number() >= number)
    }

    /// Deletes segments before `number`; all of them is in the ledger.
    pub(crate) fn retire(&self, number: u64) {
        self.delete_before(number, false);
    }

    /// The same, and overwrites them first: what is in them was redacted.
    pub(crate) fn wipe(&self, number: u64) {
        self.delete_before(number, true);
    }

    fn delete_before(&self, number: u64, wipe: bool) {
        let mut retired = Vec::new();
        {
            let mut inner = self.inner.lock();
            while inner.segments.len() > 1
                && inner.segments.front().is_some_and(|segment| segment.number() < number)
            {
                retired.extend(inner.segments.pop_front());
            }
            inner.unsynced.retain(|segment| segment.number() >= number);
        }
        for segment in retired {
            if wipe && let Err(error) = segment.wipe() {
                tracing::warn!(%error, "a spool segment cannot be overwritten");
            }
            // One that cannot be deleted is skipped by its records' numbers at the next start.
            if let Err(error) = std::fs::remove_file(segment.path()) {
                tracing::warn!(%error, "a spool segment cannot be deleted");
            }
        }
    }

    /// The number the next record will have.
    pub(crate) fn next_record(&self) -> u64 {
        self.inner.lock().next_with_soon()
    }

    /// Bytes that are not in the ledger yet, whole segments counted whole.
    pub(crate) fn backlog(&self) -> u64 {
        let inner = self.inner.lock();
        let behind = inner.segments.len().saturating_sub(1);
        inner.segments.iter().take(behind).map(|segment| segment.bytes()).sum::<u64>() + inner.offset
    }

    /// Now, but not before any record that was appended: read under the lock that stamps records.
    /// `None` when records wait that `following` has not taken.
    pub(crate) fn quiet_moment(&self, following: u64) -> Option<Moment> {
        let inner = self.inner.lock();
        (inner.next_with_soon() == following).then(|| self.clock.now())
    }

    /// Blocks the writer until record `number` was appended, `limit` has passed, or it is woken.
    pub(crate) fn wait(&self, number: u64, limit: Duration) {
        self.wake.wait(number, limit, || self.inner.lock().next_with_soon() > number);
    }

    /// Wakes the writer.
    pub(crate) fn nudge(&self) {
        self.wake.nudge();
    }

    /// Wakes the writer, which shall not wait for company.
    pub(crate) fn hurry(&self) {
        self.wake.hurry();
        self.wake.nudge();
    }

    /// Whether anybody was in a hurry since this was asked last.
    pub(crate) fn was_hurried(&self) -> bool {
        self.wake.hurried.swap(false, Ordering::AcqRel)
    }
}

impl Inner {
    /// How far ordinary records may be written in the last segment.
    fn room(&self) -> Result<u64, SpoolError> {
        Ok(self.current()?.bytes().saturating_sub(RESERVE))
    }

    /// Where the last segment will end when what waits is written.
    fn end(&self) -> u64 {
        self.offset + self.soon.len() as u64
    }

    /// Numbers and checks what waits; returns how much that is, and the next number.
    fn seal_soon(&mut self, now: Moment, key: &SpoolKey) -> (usize, u64) {
        if !self.soon_lengths.is_empty() {
            seal_all(&mut self.soon, &self.soon_lengths, self.next_record, now, key);
        }
        (self.soon.len(), self.next_with_soon())
    }

    /// The next number when what waits has got its own.
    fn next_with_soon(&self) -> u64 {
        self.next_record + self.soon_lengths.len() as u64
    }

    /// Keeps what was just written for the writer thread, or nothing where it is too far behind.
    fn keep_fresh(&mut self, written: &[u8]) {
        if self.fresh.len() + written.len() > FRESH {
            self.fresh.clear();
            self.fresh_from = self.offset;
        } else {
            self.fresh.extend_from_slice(written);
        }
    }

    fn current(&self) -> Result<Arc<Segment>, SpoolError> {
        self.segments.back().cloned().ok_or(SpoolError::Broken)
    }
}

/// Numbers and checks each record; returns the last number.
fn seal_all(records: &mut [u8], lengths: &[usize], first: u64, now: Moment, key: &SpoolKey) -> u64 {
    let mut rest = records;
    let mut number = first;
    for (place, length) in lengths.iter().enumerate() {
        let Some((record, after)) = rest.split_at_mut_checked(*length) else { break };
        number = first + place as u64;
        record::seal(record, number, now, key);
        rest = after;
    }
    number
}

/// The number after the last whole record that an earlier run left.
fn next_after(old: &[Segment], ingested: u64, key: &SpoolKey) -> io::Result<u64> {
    let mut next = ingested + 1;
    let mut buffer = Vec::new();
    for segment in old {
        next = next.max(segment.first_record());
        buffer.resize(segment.length()? as usize, 0);
        segment.read_at(&mut buffer, 0)?;
        let mut rest = buffer.get(FIRST_OFFSET as usize..).unwrap_or_default();
        loop {
            let skipped = match record::read(rest, key) {
                Ok(record) => {
                    if !matches!(record.content, record::Content::Context { .. }) {
                        next = next.max(record.number + 1);
                    }
                    Some(record.length)
                }
                Err(_) => record::find(rest, next, key),
            };
            let Some(skipped) = skipped else { break };
            rest = rest.get(skipped..).unwrap_or_default();
        }
    }
    Ok(next)
}

/// Gives what was appended, in order, across segments: from memory where it is there, from the file
/// otherwise.
#[derive(Debug)]
pub(crate) struct Follower {
    segment: Option<Arc<Segment>>,
    offset: u64,
    next_record: u64,
    buffer: Vec<u8>,
    /// How much of `buffer` was handed over in memory, and given already.
    handed: Option<usize>,
}

/// Records of one segment.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// The run of the proxy that wrote them.
    pub(crate) boot: [u8; 16],
    /// The records.
    pub(crate) records: Vec<Record<'a>>,
    /// Numbers, first to last, that were written and are not there any more.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Bytes behind the last whole record are neither blank nor a record cut off by a crash.
    pub(crate) damaged: bool,
    /// There is more to read.
    pub(crate) more: bool,
}

impl Follower {
    /// Follows from the record after `ingested`.
    pub(crate) fn new(ingested: u64) -> Self {
        Self {
            segment: None,
            offset: FIRST_OFFSET,
            next_record: ingested + 1,
            buffer: Vec::new(),
            handed: None,
        }
    }

    /// The number of the record it will give next.
    pub(crate) fn next_record(&self) -> u64 {
        self.next_record
    }

    /// The segment it is in; those before it have been given whole.
    pub(crate) fn segment(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.number())
    }

    /// Gives the next records, at most `most` of them.
    pub(crate) fn read(&mut self, spool: &Spool, most: usize) -> io::Result<Batch<'_>> {
        if self.take_over(spool) {
            return Ok(self.read_memory(spool, most));
        }
        self.read_file(spool, most)
    }

    /// Takes what was written since, if that is all that was; returns whether there is anything in
    /// memory.
    fn take_over(&mut self, spool: &Spool) -> bool {
        if self.handed.is_some() {
            return true;
        }
        let mut inner = spool.inner.lock();
        let here = self.segment.as_ref().map(|segment| segment.number());
        let is_last = here.is_some() && here == inner.segments.back().map(|segment| segment.number());
        if !is_last || self.offset < inner.fresh_from || self.offset >= inner.offset {
            return false;
        }
        let known = (self.offset - inner.fresh_from) as usize;
        self.buffer.clear();
        self.buffer.shrink_to(FRESH / 4);
        // The one that is filled from now on is the one that was emptied: nothing is allocated.
        std::mem::swap(&mut self.buffer, &mut inner.fresh);
        inner.fresh_from = inner.offset;
        self.handed = Some(known);
        true
    }

    /// The next records of what was handed over.
    fn read_memory(&mut self, spool: &Spool, most: usize) -> Batch<'_> {
        let mut batch = Batch { boot: spool.boot, ..Batch::default() };
        let begin = self.handed.unwrap_or_default();
        let mut taken = begin;
        while batch.records.len() < most
            && let Some(found) = record::recall(self.buffer.get(taken..).unwrap_or_default())
        {
            taken += found.length;
            if !matches!(found.content, record::Content::Context { .. }) {
                if found.number > self.next_record {
                    // Read from the file before, and not all of it was there.
                    batch.lost.push((self.next_record, found.number - 1));
                }
                self.next_record = found.number + 1;
            }
            batch.records.push(found);
        }
        self.offset += (taken - begin) as u64;
        batch.more = taken > begin && taken < self.buffer.len();
        self.handed = batch.more.then_some(taken);
        batch
    }

    fn read_file(&mut self, spool: &Spool, most: usize) -> io::Result<Batch<'_>> {
        let (segment, end, next, first_behind) = {
            let inner = spool.inner.lock();
            let mut segments = inner.segments.iter();
            let segment = match &self.segment {
                Some(here) => segments.find(|segment| segment.number() == here.number()).cloned(),
                None => segments.next().cloned(),
            };
            let next = segments.next().cloned();
            // From there on it is in memory.
            let in_memory = next.is_none() && self.offset < inner.fresh_from;
            let end = match next {
                Some(_) => None,
                None if in_memory => Some(inner.fresh_from),
                None => Some(inner.offset),
            };
            let first_behind = match &next {
                Some(next) => next.first_record(),
                // The first one in memory shows whether any is missing.
                None if in_memory => 0,
                None => inner.next_record,
            };
            (segment, end, next, first_behind)
        };
        let Some(segment) = segment else { return Ok(Batch::default()) };
        let end = match end.or(segment.sealed_at()) {
            Some(end) => end,
            None => segment.length()?,
        };
        self.segment = Some(segment.clone());
        let mut wanted = CHUNK.min(end.saturating_sub(self.offset));
        loop {
            self.buffer.resize(wanted as usize, 0);
            segment.read_at(&mut self.buffer, self.offset)?;
            // A record longer than a chunk: read as far as it goes.
            let first = self.buffer.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
            let whole = first.min(end.saturating_sub(self.offset));
            if whole <= wanted {
                break;
            }
            wanted = whole;
        }
        let mut batch = Batch { boot: segment.boot(), ..Batch::default() };
        let mut taken = 0;
        let stopped = loop {
            let rest = self.buffer.get(taken..).unwrap_or_default();
            if batch.records.len() >= most {
                break None;
            }
            match record::read(rest, &spool.layout.key) {
                Ok(found) => {
                    taken += found.length;
                    let is_context = matches!(found.content, record::Content::Context { .. });
                    if found.number < self.next_record && !is_context {
                        // Committed before the crash that kept its segment from being deleted.
                        continue;
                    }
                    if !is_context {
                        if found.number > self.next_record {
                            batch.lost.push((self.next_record, found.number - 1));
                        }
                        self.next_record = found.number + 1;
                    }
                    batch.records.push(found);
                }
                Err(no_record) => break Some((no_record, rest)),
            }
        };
        let at_end = self.offset + taken as u64 >= end;
        self.offset += taken as u64;
        batch.more = !at_end || next.is_some();
        if let Some((no_record, rest)) = stopped
            && !at_end
            && (taken == 0 || no_record == NoRecord::Blank && rest.len() >= record::HEADER)
        {
            // Here ends what can be read of this segment, unless more of it lies behind.
            let mut behind = vec![0; (end - self.offset) as usize];
            segment.read_at(&mut behind, self.offset)?;
            match record::find(&behind, self.next_record, &spool.layout.key) {
                Some(found) => {
                    batch.damaged = true;
                    self.offset += found as u64;
                    batch.more = true;
                    return Ok(batch);
                }
                None => {
                    batch.damaged = !is_end(rest, no_record, &segment, self.offset, end)?;
                    self.offset = end;
                    batch.more = next.is_some();
                }
            }
        }
        if self.offset >= end && self.next_record < first_behind {
            batch.lost.push((self.next_record, first_behind - 1));
            self.next_record = first_behind;
        }
        if self.offset >= end
            && let Some(next) = next
        {
            self.segment = Some(next);
            self.offset = FIRST_OFFSET;
        }
        Ok(batch)
    }
}

/// The file that says that a run has ended well.
const MARK: &str = "ended";

/// What the mark vouches for: the last record, and the size of the ledger that holds it.
fn mark_of(ingested: u64, size: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(b"ended v1");
    bytes[8..16].copy_from_slice(&ingested.to_le_bytes());
    bytes[16..].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// Whether a segment may end here: at most one `write()` that a crash cut off, then nothing but the
/// zeros that the segment was allocated with.
fn is_end(rest: &[u8], found: NoRecord, segment: &Segment, offset: u64, end: u64) -> io::Result<bool> {
    let length = rest.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
    let cut_off = match found {
        NoRecord::Blank => 0,
        // Where even the length was cut off, the rest of the header is the most there can be.
        NoRecord::Torn => length.max(record::HEADER as u64),
    };
    let behind = (offset + cut_off).min(end);
    let mut tail = vec![0; (end - behind) as usize];
    segment.read_at(&mut tail, behind)?;
    Ok(tail.iter().all(|&byte| byte == 0))
}

/// Lets the writer sleep until there is enough to do. Appending costs one atomic load unless the
/// writer waits for exactly that record.
#[derive(Debug)]
struct Wake {
    /// The record the writer wants to be woken at.
    at: AtomicU64,
    /// Something was appended that should not wait for company.
    hurried: AtomicBool,
    woken: Mutex<bool>,
    condvar: Condvar,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            at: AtomicU64::new(u64::MAX),
            hurried: AtomicBool::new(false),
            woken: Mutex::new(false),
            condvar: Condvar::new(),
        }
    }
}

impl Wake {
    fn appended(&self, number: u64) {
        if number >= self.at.load(Ordering::SeqCst) {
            self.nudge();
        }
    }

    fn hurry(&self) {
        if !self.hurried.swap(true, Ordering::AcqRel) {
            self.nudge();
        }
    }

    fn nudge(&self) {
        self.at.store(u64::MAX, Ordering::SeqCst);
        *self.woken.lock() = true;
        self.condvar.notify_one();
    }

    fn wait(&self, number: u64, limit: Duration, there_already: impl FnOnce() -> bool) {
        self.at.store(number, Ordering::SeqCst);
        // Between the caller's last look and the store above it may have been appended unseen.
        if !there_already() {
            let mut woken = self.woken.lock();
            if !*woken {
                let _timed_out = self.condvar.wait_for(&mut woken, limit);
            }
        }
        self.at.store(u64::MAX, Ordering::SeqCst);
        *self.woken.lock() = false;
    }
}

/// Makes a new entry of a directory survive the loss of power.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
