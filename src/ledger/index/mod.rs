//! The index: a second database, for people and searches, derived from the ledger and never part of a
//! proof. It can be deleted at any time and is built again.
//!
//! Each entry becomes at most one row, and a row never changes but for a redaction, so that
//! verification can compare it with what the entries say in one pass. What belongs together (a
//! statement and its outcome, a request and its reviews) is joined by views that a person can read with
//! `sqlite3`.

mod check;
mod compare;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params_from_iter};

pub(super) use self::check::{Checked, check_row};
use self::compare::written_schema;
pub(super) use self::compare::{compare, expected_schema, snapshot};
use self::tables::{TABLES, derive, insert_sql, schema};
use super::Shared;
use super::entry::{Entry, Key, Kind};
use super::key::with_suffix;
use super::settings::is_live;
use super::store::{StoreError, open_for_reading};

/// How many entries are indexed by one transaction.
const BATCH: u64 = 8192;
/// Entries in 0.4 s at which the index waits for a quieter time.
const BUSY: u64 = 800;
/// Entries that it may be behind: a search makes up for that many within a few seconds.
const FARTHEST_BEHIND: u64 = 500_000;
/// How far the thread that keeps the index steps back (`setpriority(2)`).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Where the index of a ledger is.
#[must_use]
pub fn path_of(ledger: &Path) -> PathBuf {
    with_suffix(ledger, "index.db")
}

/// Why the index could not be brought up to date. It can always be deleted.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The ledger or the index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// The index of one ledger, open for writing.
#[derive(Debug)]
pub struct Index {
    ledger: Connection,
    index: Connection,
    size: u64,
    /// Its log may still hold what was redacted.
    is_unclean: bool,
    /// So may its free pages.
    is_stale: bool,
}

impl Index {
    /// Opens the index beside a ledger; makes it anew where it is missing, of another ledger, of another
    /// version, or ahead of the ledger.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn open(ledger_path: &Path) -> Result<Self, IndexError> {
        let ledger = open_for_reading(ledger_path)?;
        let origin = origin_of(&ledger)?;
        let total = size_of(&ledger)?;
        let path = path_of(ledger_path);
        if path.exists() {
            let index = open_index(&path)?;
            if let Ok(Some(size)) = usable(&index, &origin, total) {
                return Ok(Self { ledger, index, size, is_unclean: true, is_stale: false });
            }
        }
        delete(ledger_path);
        // Under another name until it is whole: a half-made one would be taken for one that was altered.
        let new = super::store::with_suffix_raw(&path, ".new");
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(super::store::with_suffix_raw(&new, suffix));
        }
        let made = open_index(&new)?;
        lay_out(&made, &origin)?;
        made.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        made.close().map_err(|(_, error)| error)?;
        std::fs::rename(&new, &path).map_err(StoreError::from)?;
        Ok(Self { ledger, index: open_index(&path)?, size: 0, is_unclean: true, is_stale: false })
    }

    fn begin(ledger: Connection, index: Connection, origin: &str) -> Result<Self, IndexError> {
        lay_out(&index, origin)?;
        Ok(Self { ledger, index, size: 0, is_unclean: false, is_stale: false })
    }

    /// Sees to it that what was redacted is in neither the file nor its log; `false` when somebody who
    /// reads keeps that from being done.
    fn purge(&mut self, path: &Path) -> Result<bool, IndexError> {
        if self.is_stale && super::store::rewrite(&self.index, path)? {
            self.is_stale = false;
        }
        if self.is_unclean && !self.is_stale && super::store::empty_log(&self.index)? {
            self.is_unclean = false;
        }
        Ok(!self.is_unclean)
    }

    /// Indexes what is new. Returns how many entries that were.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn catch_up(&mut self) -> Result<u64, IndexError> {
        let before = self.size;
        while self.batch()? {}
        Ok(self.size - before)
    }

    fn batch(&mut self) -> Result<bool, IndexError> {
        let snapshot = self.ledger.unchecked_transaction()?;
        let transaction = self.index.transaction()?;
        let mut size = self.size;
        {
            let mut entries =
                snapshot.prepare_cached("SELECT body FROM entry WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
            // Both tables are in the order of entries: one pass over each, side by side.
            let mut texts = snapshot.prepare_cached(
                "SELECT seq, field, value FROM payload WHERE seq >= ?1 ORDER BY seq, field",
            )?;
            let mut texts = Texts::new(texts.query([size])?);
            let mut rows = entries.query([size, BATCH])?;
            let mut inserts = Vec::with_capacity(TABLES.len());
            for table in &TABLES {
                inserts.push(transaction.prepare_cached(&insert_sql(table))?);
            }
            while let Some(row) = rows.next()? {
                let body = row.get_ref(0)?.as_blob().unwrap_or_default();
                // What cannot be read is for `verify` to complain of.
                if let Ok(entry) = Entry::parse(body) {
                    texts.of(size)?;
                    if let Some((place, cells)) = derive(&entry, &mut |key| texts.take(key))
                        && let Some(insert) = inserts.get_mut(place)
                    {
                        insert.execute(params_from_iter(cells))?;
                    }
                    forget(&transaction, &entry)?;
                    let redacts = entry.kind() == Kind::Redaction;
                    self.is_unclean |= redacts;
                    self.is_stale |= redacts;
                }
                size += 1;
            }
        }
        let more = size > self.size;
        if more {
            transaction.execute("UPDATE meta SET size = ?1", [size])?;
            transaction.commit()?;
        }
        self.size = size;
        Ok(more)
    }
}

/// The texts of one entry after the other, from one pass over all of them.
struct Texts<'s> {
    rows: rusqlite::Rows<'s>,
    /// The row was read and belongs to this entry, or to a later one.
    ahead: Option<(u64, u64, Vec<u8>)>,
    /// Fields and values of the entry at hand.
    here: Vec<(u64, Vec<u8>)>,
}

impl<'s> Texts<'s> {
    fn new(rows: rusqlite::Rows<'s>) -> Self {
        Self { rows, ahead: None, here: Vec::new() }
    }

    /// Goes on to an entry.
    fn of(&mut self, seq: u64) -> Result<(), rusqlite::Error> {
        self.here.clear();
        loop {
            match self.ahead.take() {
                Some((of, field, value)) if of == seq => self.here.push((field, value)),
                Some(later) if later.0 > seq => {
                    self.ahead = Some(later);
                    return Ok(());
                }
                Some(_) | None => {}
            }
            self.ahead = match self.rows.next()? {
                Some(row) => Some((row.get(0)?, row.get(1)?, row.get(2)?)),
                None => return Ok(()),
            };
        }
    }

    fn take(&mut self, key: Key) -> Option<Vec<u8>> {
        let (_, value) = self.here.iter_mut().find(|(field, _)| *field == u64::from(key))?;
        Some(std::mem::take(value))
    }
}

/// An index of at least what the ledger holds now: the one beside it, kept by the running proxy or
/// brought up to date here; one in memory where neither is possible.
pub(super) fn for_searching(ledger: &Path) -> Result<Connection, IndexError> {
    if is_live(ledger) {
        if let Some(index) = kept(ledger)? {
            return Ok(index);
        }
        // It waits for a quieter time: a copy of it is brought up to date here.
        if let Ok(mut copy) = copied(ledger)
            && copy.catch_up().is_ok()
        {
            return Ok(copy.index);
        }
    } else if let Ok(mut index) = Index::open(ledger)
        && index.catch_up().is_ok()
    {
        return Ok(index.index);
    }
    let source = open_for_reading(ledger)?;
    let origin = origin_of(&source)?;
    let mut index = Index::begin(source, Connection::open_in_memory()?, &origin)?;
    index.catch_up()?;
    Ok(index.index)
}

/// A copy, in memory, of the index beside a ledger.
fn copied(ledger: &Path) -> Result<Index, IndexError> {
    let source = open_for_reading(ledger)?;
    let origin = origin_of(&source)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let kept = Connection::open_with_flags(path_of(ledger), flags)?;
    kept.busy_timeout(Duration::from_secs(5))?;
    let mut copy = Connection::open_in_memory()?;
    rusqlite::backup::Backup::new(&kept, &mut copy)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    let total = size_of(&source)?;
    match usable(&copy, &origin, total)? {
        Some(size) => Ok(Index { ledger: source, index: copy, size, is_unclean: false, is_stale: false }),
        None => Err(rusqlite::Error::QueryReturnedNoRows.into()),
    }
}

/// How much of the ledger an index holds, if it is one of this ledger and of this version.
fn usable(index: &Connection, origin: &str, total: u64) -> Result<Option<u64>, rusqlite::Error> {
    let (of, size): (String, u64) =
        index.query_row("SELECT origin, size FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let fits = of == origin && size <= total && written_schema(index)? == expected_schema()?;
    Ok(fits.then_some(size))
}

/// How often, and how far apart, the running proxy's index is looked at before it is given up.
const LOOKS: (u32, Duration) = (50, Duration::from_millis(30));

/// The index that the running proxy keeps, as soon as it holds what the ledger holds now; none where
/// that takes too long.
fn kept(ledger: &Path) -> Result<Option<Connection>, IndexError> {
    let wanted = size_of(&open_for_reading(ledger)?)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let (looks, pause) = LOOKS;
    for look in 0..looks {
        if look > 0 {
            std::thread::sleep(pause);
        }
        // It is made anew where it does not fit, so it is opened anew.
        let Ok(index) = Connection::open_with_flags(path_of(ledger), flags) else { continue };
        index.busy_timeout(Duration::from_secs(5))?;
        let size = index.query_row("SELECT size FROM meta", [], |row| row.get::<_, u64>(0));
        if size.is_ok_and(|size| size >= wanted) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// How many entries a ledger has.
pub(super) fn size_of(ledger: &Connection) -> Result<u64, rusqlite::Error> {
    ledger.query_row("SELECT coalesce(max(seq) + 1, 0) FROM entry", [], |row| row.get(0))
}

/// Takes the texts that an entry redacts out of the index as well.
fn forget(index: &Connection, entry: &Entry<'_>) -> Result<(), rusqlite::Error> {
    for (seq, key) in redacted(entry) {
        for table in TABLES.iter().filter(|table| table.columns.contains(&key)) {
            index
                .execute(&format!("UPDATE {} SET {} = NULL WHERE seq = ?1", table.name, key.name()), [seq])?;
        }
    }
    Ok(())
}

/// What an entry redacts: entry and field.
fn redacted<'e>(entry: &'e Entry<'_>) -> impl Iterator<Item = (u64, Key)> + 'e {
    entry.rows(Key::Redacted).filter_map(|row| match row {
        [seq, field] => Some((seq.as_uint()?, Key::from_number(field.as_uint()?)?)),
        _ => None,
    })
}

/// Makes the tables of an empty index.
fn lay_out(index: &Connection, origin: &str) -> Result<(), rusqlite::Error> {
    let transaction = index.unchecked_transaction()?;
    transaction.execute_batch(&schema())?;
    transaction.execute("INSERT INTO meta VALUES (?1, 0, 2)", [origin])?;
    transaction.commit()
}

fn open_index(path: &Path) -> Result<Connection, IndexError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // It holds the same texts as the ledger, and is for nobody else's eyes either.
    let options = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    options.map_err(StoreError::from)?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // It is derived: what a power cut takes is derived again.
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "secure_delete", "on")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Deletes the index beside a ledger.
pub(super) fn delete(ledger: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(super::store::with_suffix_raw(&path_of(ledger), suffix));
    }
}

fn origin_of(ledger: &Connection) -> Result<String, rusqlite::Error> {
    let body: Vec<u8> = ledger.query_row("SELECT body FROM entry WHERE seq = 0", [], |row| row.get(0))?;
    let origin = Entry::parse(&body).ok().and_then(|entry| entry.text(Key::Origin).map(str::to_owned));
    Ok(origin.unwrap_or_default())
}

/// The thread that keeps the index of a running ledger, a moment behind it.
pub(super) fn keep(shared: &Arc<Shared>) {
    // Statements come first: this thread gets what they leave. Where it may not step back, it does not.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let mut index = None;
    loop {
        let last_time = shared.written_out.load(Ordering::Acquire);
        let result = match index.take() {
            Some(index) => Ok(index),
            None => Index::open(&shared.settings.path),
        };
        let path = path_of(&shared.settings.path);
        let kept = result.and_then(|mut open| {
            open.catch_up()?;
            if open.purge(&path)? {
                shared.purge.indexed(open.size);
            }
            Ok(open)
        });
        match kept {
            Ok(open) => index = Some(open),
            Err(error) => {
                tracing::warn!(%error, "the index cannot be brought up to date");
                shared.wait_for_end(Duration::from_secs(1));
            }
        }
        if last_time {
            return;
        }
        shared.wait_for_progress(Duration::from_millis(500));
        // While much comes in, the index waits: the processor belongs to statements, and the more there
        // is to do at once, the less one entry costs. What it may be behind is bounded, because a search
        // has to make up for it.
        let size = index.as_ref().map_or(0, |index| index.size);
        loop {
            let before = shared.written();
            shared.wait_for_end(Duration::from_millis(400));
            let (now, ending) = (shared.written(), shared.written_out.load(Ordering::Acquire));
            let is_far = now.saturating_sub(size) > FARTHEST_BEHIND;
            if ending || is_far || now - before < BUSY || shared.purge.is_pending() {
                break;
            }
        }
    }
}
