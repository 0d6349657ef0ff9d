//! The one thread that writes SQLite: follows the spool, groups what it finds, signs, commits, tells
//! anchors; and when something fails, says so, keeps what it has, and tries again until it works.
#![allow(clippy::disallowed_methods, reason = "timers of the shell: group windows, anchors, retries")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::anchor::{AnchorError, HeadFile};
use super::assemble::Assembler;
use super::cbor::Fields;
use super::entry::{Key, Kind};
use super::health::Trouble;
use super::inbox;
use super::index;
use super::key::{HandOver, KeyFiles, RootKey};
use super::spool::record as spooled;
use super::spool::{Follower, SpoolError};
use super::store::{Store, StoreError};
use super::{OpenError, Recovery, Shared};
use crate::statement::RequestId;

/// The most records in one transaction.
const GROUP: usize = 1024;
/// How long a group waits for company.
const WINDOW: Duration = Duration::from_millis(5);
/// How long a group of routine entries waits beyond that: the larger a group, the less one entry costs.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often something that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often the writer looks around when nothing happens.
const IDLE: Duration = Duration::from_millis(500);
/// How often the files are looked for where they should be.
const LOOK: Duration = Duration::from_millis(500);
/// How often notes from others are looked for.
const INBOX: Duration = Duration::from_millis(250);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Store,
    assembler: Assembler,
    follower: Follower,
    heads: Vec<HeadFile>,
    /// The group in the assembler is not committed yet.
    uncommitted: Option<Uncommitted>,
    epoch_began: Instant,
    anchored_at: Instant,
    inbox_at: Instant,
    looked_at: Instant,
    anchored_size: u64,
    /// When trying the root key failed last.
    root_failed: Option<Instant>,
}

/// What is to be done once the group is in the file.
struct Uncommitted {
    sealed: super::assemble::Sealed,
    /// All records before this one are in it or in groups before it.
    upto: u64,
    /// Segments before this one are used up.
    segment: u64,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Store,
        assembler: Assembler,
        ingested: u64,
        heads: Vec<HeadFile>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            store,
            assembler,
            follower: Follower::new(ingested),
            heads,
            uncommitted: None,
            epoch_began: now,
            anchored_at: now,
            inbox_at: now,
            looked_at: now,
            anchored_size: 0,
            root_failed: None,
        }
    }

    /// The first thing a run does: its epoch, and before that whatever only the root may say.
    pub(crate) fn begin_run(
        &mut self,
        root: &RootKey,
        first: Option<&str>,
        hand_over: Option<&HandOver>,
    ) -> Result<(), OpenError> {
        let now = self.shared.settings.clock.now();
        self.assembler.begin(now);
        if let Some(software) = first {
            self.assembler.create(now, root, software);
        }
        if let Some(hand_over) = hand_over {
            let mut fields = Fields::new();
            fields
                .bytes(Key::RootKey, hand_over.new.key.as_bytes())
                .bytes(Key::RootSignature, &hand_over.by_old)
                .bytes(Key::SuccessorSignature, &hand_over.by_new);
            self.assembler.by_root(Kind::KeyRoot, now, &fields, root);
        }
        self.assembler.begin_epoch(now, root)?;
        self.seal_and_commit()?;
        Ok(())
    }

    /// Takes in what an earlier run left in the spool, and closes what it left open.
    pub(crate) fn recover(&mut self, software: &str) -> Result<Recovery, OpenError> {
        let boot = self.shared.boot;
        let (mut replayed, mut lost, mut damaged) = (0, 0, self.shared.spool.is_incomplete());
        loop {
            let batch = self.follower.read(&self.shared.spool, GROUP)?;
            if batch.records.is_empty() && batch.lost.is_empty() && !batch.more {
                break;
            }
            // Only the segment of this run is left, and nothing is in it yet.
            if batch.boot == boot && batch.records.is_empty() && batch.lost.is_empty() {
                break;
            }
            damaged |= batch.damaged;
            let now = self.shared.settings.clock.now();
            self.assembler.begin(now);
            let entries =
                |record: &spooled::Record<'_>| !matches!(record.content, spooled::Content::Context { .. });
            replayed += batch.records.iter().filter(|record| entries(record)).count() as u64;
            let gaps = batch.lost.clone();
            self.assembler.ingest(batch.boot, batch.records)?;
            for (from, to) in gaps {
                lost += to - from + 1;
                self.assembler.lost(now, from, to);
            }
            self.seal_and_commit()?;
        }
        let now = self.shared.settings.clock.now();
        self.assembler.begin(now);
        let (unknown, withdrawn) = self.assembler.close_all(now);
        let mut fields = Fields::new();
        if damaged || lost > 0 {
            fields.text(Key::What, "the spool was damaged");
        }
        fields
            .uint(Key::Count, replayed)
            .text(Key::Software, software)
            .uint(Key::Unknown, unknown)
            .uint(Key::Withdrawn, withdrawn.len() as u64);
        self.assembler.own(Kind::Recovered, now, &fields);
        self.seal_and_commit()?;
        let withdrawn = withdrawn.into_iter().map(|id| RequestId(uuid::Uuid::from_bytes(id))).collect();
        Ok(Recovery { replayed, lost, damaged, unknown, withdrawn })
    }

    /// Seals and commits while the ledger is being opened: there an error is for the operator.
    fn seal_and_commit(&mut self) -> Result<(), OpenError> {
        self.seal();
        self.commit()?;
        Ok(())
    }

    /// Works until the ledger is closed.
    pub(crate) fn run(mut self) {
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            let busy = self.turn();
            if self.shared.health.is_degraded() {
                // A moment first: what flaps is worse for agents than what is down.
                if !stopping {
                    std::thread::sleep(RETRY);
                }
                self.try_to_resume();
                if stopping {
                    break;
                }
                continue;
            }
            if busy {
                continue;
            }
            if stopping {
                break;
            }
            let next = self.follower.next_record();
            self.shared.spool.wait(next, self.until_next_timer());
            if !self.shared.stop.load(Ordering::Acquire) && self.shared.spool.next_record() > next {
                let full = next + GROUP as u64 - 1;
                self.shared.spool.wait(full, WINDOW);
                if !self.shared.spool.was_hurried() {
                    self.shared.spool.wait(full, PATIENCE);
                }
            }
        }
        self.finish();
    }

    fn until_next_timer(&self) -> Duration {
        let settings = &self.shared.settings;
        let epoch = settings.epoch.saturating_sub(self.epoch_began.elapsed());
        let anchor = if self.assembler.size() > self.anchored_size && !self.heads.is_empty() {
            settings.anchor_every.saturating_sub(self.anchored_at.elapsed())
        } else {
            IDLE
        };
        IDLE.min(epoch).min(anchor).max(Duration::from_millis(1))
    }

    /// Does what there is to do; `true` when there is more.
    fn turn(&mut self) -> bool {
        if self.looked_at.elapsed() >= LOOK {
            self.looked_at = Instant::now();
            self.look_around();
        }
        if self.uncommitted.is_some() && !self.try_to_commit() {
            return false;
        }
        self.rotate_if_due();
        let _ = self.shared.spool.was_hurried();
        if let Err(error) = self.shared.spool.settle().and_then(|()| self.shared.spool.prepare()) {
            self.shared.degrade(&error.to_string(), error.is_disk_full());
        }
        if self.inbox_at.elapsed() >= INBOX {
            self.inbox_at = Instant::now();
            inbox::take_in(&self.shared);
        }
        let group = match self.next_group() {
            Ok(more) => more,
            Err(error) => {
                self.shared.degrade(&format!("the spool cannot be read back: {error}"), false);
                return false;
            }
        };
        if let Some(more) = group {
            return self.try_to_commit() && more;
        }
        self.anchor_if_due(false);
        self.purge();
        false
    }

    /// Gets rid of what was redacted, a step at a time: nothing waits here for those who read.
    fn purge(&mut self) {
        let shared = self.shared.clone();
        if self.uncommitted.is_some() || !shared.purge.is_pending() {
            return;
        }
        if let Some(wanted) = shared.purge.wanted() {
            match self.purge_up_to(wanted) {
                Ok(true) => shared.purge.is_done(wanted),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "what was redacted is not gone from every file yet"),
            }
        }
        shared.purge.answer(self.follower.next_record());
    }

    fn purge_up_to(&mut self, wanted: u64) -> Result<bool, OpenError> {
        let shared = self.shared.clone();
        let is_ending = shared.stop.load(Ordering::Acquire);
        // At its end a run deletes its spool and leaves the index whole.
        if !is_ending {
            let segment = match shared.purge.segment() {
                Some(segment) => segment,
                None => {
                    let segment = shared.spool.leave_segment().map_err(std::io::Error::other)?;
                    shared.purge.left_segment(wanted, segment);
                    segment
                }
            };
            if self.follower.segment() < segment {
                return Ok(false);
            }
            shared.spool.wipe(segment);
            if !shared.spool.begins_at(segment) {
                return Ok(false);
            }
            if shared.settings.index && !shared.purge.is_indexed(wanted) {
                return Ok(false);
            }
        }
        if !shared.settings.index {
            index::delete(&shared.settings.path);
        }
        // Once is enough, however long somebody keeps the log from being emptied.
        if !shared.purge.is_rewritten(wanted) {
            if !self.store.rewrite()? {
                return Ok(false);
            }
            shared.purge.rewritten(wanted);
        }
        Ok(self.store.flush()?)
    }

    /// Whether the files that are written are the ones that others, and the next start, would read.
    fn look_around(&self) {
        let shared = &self.shared;
        if let Err(error) = shared.spool.check_in_place() {
            shared.degrade(&error.to_string(), false);
        }
        if let Err(error) = self.store.check_in_place() {
            shared.degrade(&error.to_string(), false);
        }
        if let Err(error) = self.keep_lock() {
            shared.degrade(&error.to_string(), false);
        }
        shared.watch_the_writer();
    }

    /// Takes the lock again where its file was taken away: nobody else may write meanwhile.
    fn keep_lock(&self) -> Result<(), OpenError> {
        let settings = &self.shared.settings;
        let mut lock = self.shared.lock.lock();
        if lock.as_ref().is_some_and(|lock| !super::settings::holds(lock, &settings.path)) {
            *lock = Some(settings.lock()?);
            tracing::warn!("the ledger's lock was taken away and is made anew");
        }
        Ok(())
    }

    /// Assembles what was spooled; `None` when there was nothing.
    fn next_group(&mut self) -> Result<Option<bool>, OpenError> {
        let batch = self.follower.read(&self.shared.spool, GROUP)?;
        if batch.records.is_empty() && batch.lost.is_empty() {
            return Ok(None);
        }
        let at = batch.records.first().map_or_else(|| self.shared.settings.clock.now(), |record| record.at);
        let more = batch.more;
        let gaps = batch.lost.clone();
        self.assembler.begin(at);
        self.assembler.ingest(batch.boot, batch.records)?;
        for (from, to) in gaps {
            // The file is ours alone: somebody wrote into it, or the disk lies.
            self.shared.spool.mistrust();
            self.shared.degrade("spooled records cannot be read back", false);
            let last = self.assembler.last_moment().unwrap_or(at);
            self.assembler.lost(last, from, to);
        }
        self.seal();
        Ok(Some(more))
    }

    fn seal(&mut self) {
        if let Some(sealed) = self.assembler.seal() {
            self.uncommitted = Some(Uncommitted {
                sealed,
                upto: self.follower.next_record(),
                segment: self.follower.segment(),
            });
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let Some(Uncommitted { sealed, upto, segment }) = &self.uncommitted else { return Ok(()) };
        self.store.commit(self.assembler.group())?;
        let (upto, segment, notable) = (*upto, *segment, sealed.notable);
        let sealed_size = sealed.head.size;
        let redacted = !self.assembler.group().redacted.is_empty();
        self.shared.committed(sealed.head, upto);
        self.shared.spool.retire(segment);
        self.uncommitted = None;
        if redacted {
            self.shared.purge.ask(sealed_size);
        }
        self.anchor_if_due(notable);
        Ok(())
    }

    fn try_to_commit(&mut self) -> bool {
        match self.commit() {
            Ok(()) => true,
            // Somebody reads under a lock, or copies the file. The spool holds what comes meanwhile,
            // and says so when it has enough of it.
            Err(error) if error.is_busy() => false,
            Err(error) => {
                self.shared.degrade(&error.to_string(), error.is_disk_full());
                false
            }
        }
    }

    /// A new epoch every hour, busy or not.
    fn rotate_if_due(&mut self) {
        if self.epoch_began.elapsed() < self.shared.settings.epoch
            || self.shared.health.is_degraded()
            || self.root_failed.is_some_and(|at| at.elapsed() < Duration::from_secs(60))
        {
            return;
        }
        let root = match RootKey::load(&self.shared.settings.key_files()) {
            Ok(root) if root.public() == self.shared.root => root,
            other => {
                // The running epoch goes on: a long epoch is no lie, and stopping helps nobody.
                self.root_failed = Some(Instant::now());
                let error = other.err().map(|error| error.to_string());
                tracing::error!(error, "the epoch key cannot be rotated: the root key is not usable");
                return;
            }
        };
        // Entries are in the order of their times, so the epoch can only begin where no record waits.
        let Some(now) = self.shared.spool.quiet_moment(self.follower.next_record()) else { return };
        self.assembler.begin(now);
        match self.assembler.begin_epoch(now, &root) {
            Ok(()) => self.epoch_began = Instant::now(),
            Err(error) => tracing::error!(%error, "the epoch key cannot be rotated"),
        }
        self.seal();
        self.try_to_commit();
    }

    /// Leaves the newest checkpoint with the anchors.
    fn anchor_if_due(&mut self, notable: bool) {
        let settings = &self.shared.settings;
        let Some((head, note)) = self.assembler.checkpoint().cloned() else { return };
        // The first one at once: until it is there, nothing shows that a whole ledger was replaced.
        let due = notable || self.anchored_size == 0 || self.anchored_at.elapsed() >= settings.anchor_every;
        if !due || head.size <= self.anchored_size || self.uncommitted.is_some() {
            return;
        }
        self.anchored_at = Instant::now();
        self.anchored_size = head.size;
        // The log stream is an anchor too, where it is shipped elsewhere.
        tracing::debug!(size = head.size, root = %head.root, "ledger checkpoint");
        let text = self.anchor_text(&note);
        let mut trouble = None;
        for file in &mut self.heads {
            match file.publish(&text) {
                Ok(()) => self.assembler.anchored(&file.name(), head, note.clone()),
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = &trouble {
            tracing::error!(%error, "an anchor could not be left");
        }
        self.shared.anchored(head, trouble.as_ref().map(AnchorError::to_string));
    }

    /// The checkpoint with the root's word for the key that signed it.
    fn anchor_text(&self, note: &str) -> String {
        match (super::checkpoint::Note::parse(note), self.assembler.epoch()) {
            (Ok(note), Some(epoch)) => {
                note.with_certificate(epoch.certificate(), &self.shared.root.key).to_text()
            }
            _ => note.to_owned(),
        }
    }

    /// Takes in everything that was spooled; `false` when that cannot be done now.
    fn catch_up(&mut self) -> bool {
        loop {
            match self.next_group() {
                Ok(None) => return true,
                Ok(Some(_)) if self.try_to_commit() => {}
                Ok(Some(_)) => return false,
                Err(error) => {
                    tracing::debug!(%error, "the spool cannot be read back");
                    return false;
                }
            }
        }
    }

    /// Looks whether what failed works again; statements are let through only when all of it does.
    fn try_to_resume(&mut self) {
        if let Err(error) = self.store.restore() {
            tracing::debug!(%error, "the ledger's file is still not usable");
            return;
        }
        if self.uncommitted.is_some() && !self.try_to_commit() {
            return;
        }
        if let Err(error) = self.keep_lock() {
            tracing::debug!(%error, "the ledger's lock is not ours");
            return;
        }
        // What lies in a segment that is not in its place, or was altered, is only here: it is in the
        // ledger before anything runs, and what is in memory is taken from there.
        if !self.catch_up() {
            return;
        }
        if let Err(error) = self.shared.spool.repair().and_then(|()| self.shared.spool.prepare()) {
            tracing::debug!(%error, "the spool is still not usable");
            return;
        }
        if !self.catch_up() {
            return;
        }
        if self.shared.spool.backlog() > self.shared.settings.backlog_bytes / 2 {
            return;
        }
        if let Err(error) = self.shared.resume() {
            tracing::debug!(%error, "the ledger cannot resume yet");
        }
    }

    /// The last group, the last checkpoint, the last word to the anchors.
    fn finish(&mut self) {
        if self.shared.health.is_degraded() {
            return;
        }
        self.anchor_if_due(true);
        if self.shared.spool.next_record() == self.follower.next_record() && self.uncommitted.is_none() {
            match index::size_of(self.store.connection()) {
                Ok(size) => self.shared.spool.clear(self.follower.next_record() - 1, size),
                Err(error) => tracing::warn!(%error, "the spool was left for the next start"),
            }
        }
        self.purge();
        match self.store.flush() {
            Ok(true) => {}
            Ok(false) => tracing::warn!("somebody reads the ledger: its log was left for the next start"),
            Err(error) => tracing::warn!(%error, "the write-ahead log was left for the next start"),
        }
    }
}

impl Shared {
    /// Throws the switch, and says so in the spool's reserve, or as soon as there is room.
    pub(crate) fn degrade(&self, reason: &str, disk_full: bool) {
        let since = self.settings.clock.now().wall;
        if !self.health.degrade(Trouble { since, reason: reason.to_owned(), disk_full }) {
            return;
        }
        let mut fields = Fields::new();
        fields.text(Key::What, reason);
        let mut record = Vec::new();
        spooled::entry(
            &mut record,
            Kind::Degraded,
            (false, true),
            &[0; 16],
            &[0; 16],
            &fields,
            std::iter::empty(),
        );
        if self.spool.append_reserved(&mut record).is_err() {
            self.postponed.lock().insert(0, record);
        }
        self.spool.nudge();
    }

    /// Spools what could not be spooled, says that the ledger is back, and opens the switch.
    fn resume(&self) -> Result<(), SpoolError> {
        let reason = self.health.trouble().map(|trouble| trouble.reason).unwrap_or_default();
        {
            let mut postponed = self.postponed.lock();
            while let Some(record) = postponed.first_mut() {
                let length = record.len();
                self.spool.append(record, &[length], None, false)?;
                postponed.remove(0);
            }
        }
        let mut fields = Fields::new();
        fields.text(Key::What, &reason).uint(Key::Count, self.health.refused());
        let mut record = Vec::new();
        spooled::entry(
            &mut record,
            Kind::Resumed,
            (false, true),
            &[0; 16],
            &[0; 16],
            &fields,
            std::iter::empty(),
        );
        let length = record.len();
        self.spool.append(&mut record, &[length], None, true)?;
        self.health.resume();
        Ok(())
    }
}

/// Where the key of a hand-over that was recorded is not needed any more.
pub(crate) fn forget_hand_over(files: &KeyFiles, ledger: &std::path::Path) {
    let _ = std::fs::remove_file(HandOver::file(ledger));
    tracing::info!(key = %files.public.display(), "the root key was handed over");
}
