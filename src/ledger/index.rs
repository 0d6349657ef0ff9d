//! The index: a second database, for people and searches, derived from the ledger and never part of a
//! proof. It can be deleted at any time and is built again.
//!
//! Each entry becomes at most one row, and a row never changes but for a redaction, so that
//! verification can compare it with what the entries say in one pass. What belongs together (a
//! statement and its outcome, a request and its reviews) is joined by views that a person can read with
//! `sqlite3`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::Shared;
use super::cbor::Value;
use super::entry::{Entry, Key, Kind, Shape};
use super::key::with_suffix;
use super::read::{Damage, ReadError, Reader, Text};
use super::settings::is_live;
use super::store::{StoreError, open_for_reading};
use super::verify::{Code, Problem};
use crate::statement::Digest;

/// A table of the index: which entries it holds, and which of their fields.
struct Table {
    name: &'static str,
    holds: fn(Kind) -> bool,
    columns: &'static [Key],
}

const TABLES: [Table; 8] = [
    Table {
        name: "statement",
        holds: |kind| matches!(kind, Kind::Statement | Kind::Refused),
        columns: &[
            Key::Kind,
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Upstream,
            Key::Database,
            Key::Role,
            Key::Via,
            Key::Class,
            Key::Clearance,
            Key::Refusal,
            Key::Rules,
            Key::Request,
            Key::InTransaction,
            Key::Fingerprint,
            Key::Effects,
            Key::Reasons,
            Key::Sql,
            Key::Ending,
            Key::Tag,
            Key::SqlState,
            Key::Rows,
            Key::Bytes,
            Key::Duration,
        ],
    },
    Table {
        name: "outcome",
        holds: |kind| kind == Kind::Outcome,
        columns: &[
            Key::Ref,
            Key::Ending,
            Key::Tag,
            Key::SqlState,
            Key::Rows,
            Key::Bytes,
            Key::Duration,
            Key::Transaction,
        ],
    },
    Table {
        name: "request",
        holds: |kind| kind == Kind::RequestOpened,
        columns: &[
            Key::Request,
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Upstream,
            Key::Database,
            Key::Class,
            Key::Rules,
            Key::Effects,
            Key::Reasons,
            Key::Sql,
            Key::Approvals,
            Key::Assurance,
            Key::Expires,
        ],
    },
    Table {
        name: "review",
        holds: |kind| kind == Kind::Review,
        columns: &[
            Key::Request,
            Key::Reviewer,
            Key::Groups,
            Key::Verdict,
            Key::Channel,
            Key::Assurance,
            Key::Counted,
            Key::WhyNot,
            Key::Reason,
        ],
    },
    Table {
        name: "ending",
        holds: |kind| kind == Kind::RequestClosed,
        columns: &[Key::Request, Key::State, Key::What, Key::Reviewer],
    },
    Table {
        name: "session",
        holds: |kind| kind == Kind::SessionOpened,
        columns: &[
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Method,
            Key::Address,
            Key::Upstream,
            Key::Database,
            Key::Role,
            Key::Verified,
            Key::Claimed,
        ],
    },
    Table {
        name: "session_end",
        holds: |kind| kind == Kind::SessionClosed,
        columns: &[Key::Session, Key::What],
    },
    Table {
        name: "event",
        holds: |kind| {
            let elsewhere = matches!(
                kind,
                Kind::Statement
                    | Kind::Refused
                    | Kind::Outcome
                    | Kind::RequestOpened
                    | Kind::Review
                    | Kind::RequestClosed
                    | Kind::SessionOpened
                    | Kind::SessionClosed
                    | Kind::CheckpointRef
                    | Kind::Anchored
            );
            !elsewhere
        },
        columns: &[Key::Kind, Key::Request, Key::What, Key::By, Key::Count],
    },
];

/// What makes searches quick, and what people read.
const REST: &str = "
CREATE INDEX statement_agent ON statement (agent, seq);
CREATE INDEX statement_session ON statement (session, seq);
CREATE INDEX statement_request ON statement (request) WHERE request IS NOT NULL;
CREATE INDEX outcome_ref ON outcome (ref);
CREATE INDEX request_request ON request (request);
CREATE INDEX review_request ON review (request);
CREATE INDEX ending_request ON ending (request);
CREATE INDEX session_session ON session (session);
CREATE INDEX session_end_session ON session_end (session);
CREATE VIEW statements AS
SELECT s.seq, s.time, s.agent, s.class,
  CASE WHEN s.kind = 'refused' THEN s.refusal ELSE coalesce(o.ending, s.ending, 'running') END AS state,
  s.sql, s.clearance, s.rules,
  (SELECT group_concat(v.reviewer, ', ') FROM review v WHERE v.request = s.request AND v.counted = 1
    AND v.verdict = CASE WHEN s.kind = 'refused' THEN 'deny' ELSE 'approve' END) AS reviewer,
  coalesce(o.tag, s.tag) AS tag, coalesce(o.sqlstate, s.sqlstate) AS sqlstate,
  coalesce(o.rows, s.rows) AS rows, coalesce(o.bytes, s.bytes) AS bytes,
  coalesce(o.duration, s.duration) / 1000000.0 AS milliseconds,
  s.upstream, s.database, s.role, s.in_transaction, s.effects, s.reasons, s.session, s.request,
  s.fingerprint, o.seq AS outcome_seq
FROM statement s LEFT JOIN outcome o ON o.ref = s.seq;
CREATE VIEW decisions AS
SELECT r.seq, r.time, r.agent, r.class, coalesce(
    (SELECT e.state FROM ending e WHERE e.request = r.request ORDER BY e.seq DESC LIMIT 1), 'waiting') AS state,
  r.sql,
  (SELECT group_concat(v.reviewer || ' ' || v.verdict || ' (' || v.channel || ', ' || v.assurance || ')', ', ')
    FROM review v WHERE v.request = r.request AND v.counted = 1) AS reviews,
  (SELECT count(*) FROM review v WHERE v.request = r.request AND v.counted = 0) AS not_counted,
  r.approvals, r.rules, r.reasons, r.owners, r.expires, r.upstream, r.database, r.session, r.request,
  (SELECT s.seq FROM statement s WHERE s.request = r.request AND s.clearance = 'granted') AS statement_seq
FROM request r;
CREATE VIEW sessions AS
SELECT s.seq, s.time AS began, e.time AS ended, s.agent, s.owners, s.method, s.address, s.upstream,
  s.database, s.role, s.verified, s.claimed, e.what AS why_ended,
  (SELECT count(*) FROM statement t WHERE t.session = s.session) AS statements, s.session
FROM session s LEFT JOIN session_end e ON e.session = s.session;
";

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

/// The whole schema, one statement after the other.
fn schema() -> String {
    let mut sql =
        "CREATE TABLE meta (origin TEXT NOT NULL, size INTEGER NOT NULL, format INTEGER NOT NULL) STRICT;"
            .to_owned();
    for table in &TABLES {
        let mut columns = vec!["seq INTEGER PRIMARY KEY".to_owned(), "time TEXT NOT NULL".to_owned()];
        columns.extend(table.columns.iter().map(|key| format!("{} {}", key.name(), type_of(*key))));
        sql.push_str(&format!("\nCREATE TABLE {} ({}) STRICT;", table.name, columns.join(", ")));
    }
    sql + REST
}

fn type_of(key: Key) -> &'static str {
    let is_number = matches!(key.shape(), Shape::Uint | Shape::Bool) && key != Key::Kind;
    if is_number { "INTEGER" } else { "TEXT" }
}

/// A field as the index has it.
fn cell(entry: &Entry<'_>, key: Key, text: &mut dyn FnMut(Key) -> Option<Vec<u8>>) -> Cell {
    if key == Key::Kind {
        return Cell::Text(entry.kind().name().to_owned());
    }
    if key.shape() == Shape::Commitment {
        let value = if entry.has(key) { text(key) } else { None };
        return value.map_or(Cell::Null, |value| Cell::Text(String::from_utf8_lossy(&value).into_owned()));
    }
    entry.value(key).map_or(Cell::Null, |value| match (key.shape(), value) {
        (Shape::Uint, Value::Uint(number)) => Cell::Integer(i64::try_from(*number).unwrap_or(i64::MAX)),
        (Shape::Bool, Value::Bool(truth)) => Cell::Integer(i64::from(*truth)),
        (shape, value) => Cell::Text(display(key, shape, value)),
    })
}

/// A field's value as people read it.
#[must_use]
pub fn display(key: Key, shape: Shape, value: &Value<'_>) -> String {
    match (shape, value) {
        (Shape::Time, Value::Uint(time)) => display_time(*time),
        (Shape::Uuid, Value::Bytes(bytes)) => {
            uuid::Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |uuid| uuid.to_string())
        }
        (_, Value::Uint(number)) => number.to_string(),
        (_, Value::Bool(truth)) => truth.to_string(),
        (_, Value::Text(text)) => (*text).to_owned(),
        (_, Value::Bytes(bytes)) => hex::encode(bytes),
        (_, Value::Array(values)) => {
            values.iter().map(|value| display_element(key, value)).collect::<Vec<_>>().join(", ")
        }
        // As JSON: whatever a claim says, it is one value under one name.
        (_, Value::Map(claims)) => super::export::claims_object(claims).to_string(),
    }
}

/// The name of a claim.
#[must_use]
pub fn claim_name(number: u64) -> &'static str {
    let names = ["model", "version", "run", "task", "purpose"];
    usize::try_from(number).ok().and_then(|number| names.get(number)).copied().unwrap_or("unknown")
}

fn display_element(key: Key, value: &Value<'_>) -> String {
    let simple = |value: &Value<'_>| match value {
        Value::Uint(number) => number.to_string(),
        Value::Text(text) => (*text).to_owned(),
        Value::Bytes(_) | Value::Bool(_) | Value::Array(_) | Value::Map(_) => String::new(),
    };
    let row = value.elements();
    match (key, row) {
        (Key::Effects, [verb, _, schema, name]) => match schema.as_text().filter(|schema| !schema.is_empty())
        {
            Some(schema) => format!("{} {schema}.{}", simple(verb), simple(name)),
            None => format!("{} {}", simple(verb), simple(name)),
        },
        (_, []) => simple(value),
        (_, cells) => cells.iter().map(simple).collect::<Vec<_>>().join(" "),
    }
}

/// `YYYY-MM-DD HH:MM:SS.mmm`, UTC.
#[must_use]
pub fn display_time(nanoseconds: u64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 / 1_000_000);
    let time = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
    match time {
        Ok(time) => format!("{}.{rest:03}", time.strftime("%Y-%m-%d %H:%M:%S")),
        Err(_) => nanoseconds.to_string(),
    }
}

/// The table an entry belongs into, and its row.
fn derive(entry: &Entry<'_>, text: &mut dyn FnMut(Key) -> Option<Vec<u8>>) -> Option<(usize, Vec<Cell>)> {
    let place = TABLES.iter().position(|table| (table.holds)(entry.kind()))?;
    let table = TABLES.get(place)?;
    let time = display_time(entry.uint(Key::Wall).unwrap_or_default());
    let mut row = Vec::with_capacity(table.columns.len() + 2);
    row.push(Cell::Integer(i64::try_from(entry.seq()).unwrap_or(i64::MAX)));
    row.push(Cell::Text(time));
    row.extend(table.columns.iter().map(|key| cell(entry, *key, text)));
    Some((place, row))
}

/// Whether what the index says of one entry, and of what it is joined with, is what the entries say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It is.
    Agrees,
    /// It is, but a text is not there: it was redacted, or is never stored.
    TextGone,
    /// It is not.
    Damaged(Damage),
}

/// Compares everything in the index that a row about entry `seq` is made of with the entries themselves.
/// What the index leaves out is not found this way; `verify` finds it.
pub(super) fn check_row(
    index: &Connection,
    reader: &Reader,
    seq: u64,
    kind: &str,
) -> Result<Checked, ReadError> {
    let damaged = |seq: u64, damage: Damage| {
        reader.note_damage(seq, damage);
        Ok(Checked::Damaged(damage))
    };
    let stored = match reader.entry(seq) {
        Ok(stored) => stored,
        Err(ReadError::NoEntry(_)) => return damaged(seq, Damage::Index),
        Err(error) => return Err(error),
    };
    let Ok(entry) = stored.entry() else { return damaged(seq, Damage::Entry) };
    // A row is about one kind of entry; a search for statements also finds refused ones.
    if kind != entry.kind().name() && !(kind == "statement" && entry.kind() == Kind::Refused) {
        return damaged(seq, Damage::Index);
    }
    let mut result = Checked::Agrees;
    let number = i64::try_from(seq).unwrap_or(i64::MAX);
    let mut parts: Vec<(&str, &str, Cell)> =
        TABLES.iter().map(|table| (table.name, "seq", Cell::Integer(number))).collect();
    let text = |key: Key| entry.value(key).map(|value| Cell::Text(display(key, key.shape(), value)));
    let mut joined = |table: &'static str, column: &'static str, key: Key| {
        parts.extend(text(key).map(|value| (table, column, value)));
    };
    joined("outcome", "ref", Key::Seq);
    joined("request", "request", Key::Request);
    joined("review", "request", Key::Request);
    joined("ending", "request", Key::Request);
    joined("session", "session", Key::Session);
    for (table, column, value) in parts {
        match check_rows(index, reader, (table, column), &value)? {
            Checked::Agrees => {}
            // The texts of others that it is joined with are not told.
            Checked::TextGone if column == "seq" => result = Checked::TextGone,
            Checked::TextGone => {}
            Checked::Damaged(damage) => return damaged(seq, damage),
        }
    }
    Ok(result)
}

/// The same for the rows of one table that have a value in a column.
fn check_rows(
    index: &Connection,
    reader: &Reader,
    (table, column): (&str, &str),
    value: &Cell,
) -> Result<Checked, ReadError> {
    let mut statement = index.prepare_cached(&format!("SELECT * FROM {table} WHERE {column} = ?1"))?;
    let mut rows = statement.query([value])?;
    let mut result = Checked::Agrees;
    while let Some(row) = rows.next()? {
        let stored = match row.get::<_, u64>(0).map(|seq| reader.entry(seq)) {
            Ok(Ok(stored)) => stored,
            Ok(Err(ReadError::NoEntry(_))) | Err(_) => return Ok(Checked::Damaged(Damage::Index)),
            Ok(Err(error)) => return Err(error),
        };
        let Ok(entry) = stored.entry() else { return Ok(Checked::Damaged(Damage::Entry)) };
        let mut texts: Vec<(Key, Text)> = Vec::new();
        for (key, _) in entry.commitments() {
            texts.push((key, reader.text(&entry, key)?));
        }
        let text_of = |key: Key| texts.iter().find(|(other, _)| *other == key).map(|(_, text)| text);
        let mut kept = |key: Key| match text_of(key) {
            Some(Text::Kept(value)) => Some(value.clone()),
            _ => None,
        };
        let Some((place, expected)) = derive(&entry, &mut kept) else {
            return Ok(Checked::Damaged(Damage::Index));
        };
        let Some(of) = TABLES.get(place).filter(|of| of.name == table) else {
            return Ok(Checked::Damaged(Damage::Index));
        };
        for (column, wanted) in expected.iter().enumerate() {
            let key = column.checked_sub(2).and_then(|column| of.columns.get(column));
            match key.and_then(|key| text_of(*key).map(|text| (*key, text))) {
                Some((key, Text::Damaged)) => return Ok(Checked::Damaged(Damage::Text(key))),
                Some((key, Text::Deleted)) => return Ok(Checked::Damaged(Damage::Deleted(key))),
                Some((_, Text::Redacted | Text::NotStored)) => {
                    result = Checked::TextGone;
                    continue;
                }
                Some((_, Text::Kept(_))) | None => {}
            }
            if row.get_ref(column)? != rusqlite::types::ValueRef::from(wanted) {
                return Ok(Checked::Damaged(Damage::Index));
            }
        }
    }
    Ok(result)
}

fn insert_sql(table: &Table) -> String {
    let places = vec!["?"; table.columns.len() + 2].join(", ");
    format!("INSERT INTO {} VALUES ({places})", table.name)
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

/// The schema as a file has it.
fn written_schema(index: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement =
        index.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The schema as a new file would have it.
pub(super) fn expected_schema() -> Result<Vec<String>, rusqlite::Error> {
    let memory = Connection::open_in_memory()?;
    memory.execute_batch(&schema())?;
    written_schema(&memory)
}

/// An index that was opened before the ledger it belongs to: whatever it holds, the ledger holds by the
/// time that is read.
pub(super) struct Snapshot {
    connection: Connection,
    origin: String,
    size: u64,
}

/// SHA-256 of the schema that the index had in its first format, in which claims were joined without a
/// way to tell them apart.
const EARLIER_SCHEMA: &str = "830d4a17442e739484cd4af071d5fe7699854c172a1592f512c6e42ebf7bb33b";

/// Opens the index beside a ledger, if there is one.
pub(super) fn snapshot(ledger: &Path) -> Result<Option<Snapshot>, Problem> {
    let path = path_of(ledger);
    if !path.exists() {
        return Ok(None);
    }
    let problem = |what: String| Problem::new(Code::Derived, None, format!("the index {what}"));
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN")?;
        let schema = written_schema(&connection)?;
        if Digest::of(schema.join("\n").as_bytes()).to_string() == EARLIER_SCHEMA {
            // The program that wrote it is gone, and this one does not read it: searches make it anew.
            return Ok(None);
        }
        if schema != expected_schema()? {
            return Ok(Some(Err("another schema".to_owned())));
        }
        // Tables may hold the truth and their indexes another, and searching goes by those.
        let state: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if state != "ok" {
            return Ok(Some(Err(state)));
        }
        let count: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        let (origin, size) = connection
            .query_row("SELECT origin, size FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let snapshot = Snapshot { connection, origin, size };
        Ok::<_, rusqlite::Error>(Some(if count == 1 {
            Ok(snapshot)
        } else {
            Err("more than one origin".to_owned())
        }))
    };
    match open() {
        Ok(None) => Ok(None),
        Ok(Some(Ok(snapshot))) => Ok(Some(snapshot)),
        Ok(Some(Err(what))) => Err(problem(format!("has {what}"))),
        Err(error) => Err(problem(format!("cannot be read: {error}"))),
    }
}

/// Whether every row of the index is as derived from the ledger; how many rows that are.
pub(super) fn compare(ledger: &Connection, index: &Snapshot, origin: &str) -> Result<u64, Problem> {
    let problem =
        |seq: Option<u64>, what: &str| Problem::new(Code::Derived, seq, format!("the index {what}"));
    let unreadable = |error: rusqlite::Error| problem(None, &format!("cannot be read: {error}"));
    if index.origin != origin {
        return Err(problem(None, "is of another ledger"));
    }
    let total: u64 = ledger.query_row("SELECT coalesce(max(seq) + 1, 0) FROM entry", [], |row| row.get(0))?;
    if index.size > total {
        return Err(problem(None, "has seen more entries than there are"));
    }
    let mut statements = TABLES
        .iter()
        .map(|table| index.connection.prepare(&format!("SELECT * FROM {} ORDER BY seq", table.name)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let mut tables = statements
        .iter_mut()
        .map(|statement| statement.query([]))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let pending = redacted_later(ledger, index.size)?;

    let mut entries = ledger.prepare("SELECT body FROM entry WHERE seq < ?1 ORDER BY seq")?;
    let mut entries = entries.query([index.size])?;
    let mut texts = ledger.prepare("SELECT value FROM payload WHERE seq = ?1 AND field = ?2")?;
    let mut checked = 0;
    while let Some(row) = entries.next()? {
        let Ok(entry) = Entry::parse(row.get_ref(0)?.as_blob().unwrap_or_default()) else { continue };
        let seq = entry.seq();
        let mut text = |key: Key| texts.query_row([seq, key.into()], |row| row.get(0)).ok();
        let Some((place, expected)) = derive(&entry, &mut text) else { continue };
        let differs = || problem(Some(seq), "says something else of it");
        let (Some(rows), Some(table)) = (tables.get_mut(place), TABLES.get(place)) else { continue };
        let found = rows.next().map_err(unreadable)?.ok_or_else(differs)?;
        for (column, wanted) in expected.iter().enumerate() {
            let redacting = column.checked_sub(2).and_then(|column| table.columns.get(column));
            if redacting.is_some_and(|key| pending.contains(&(seq, *key))) {
                continue;
            }
            let is = found.get_ref(column).map_err(unreadable)?;
            if is != rusqlite::types::ValueRef::from(wanted) {
                return Err(differs());
            }
        }
        checked += 1;
    }
    for rows in &mut tables {
        if rows.next().map_err(unreadable)?.is_some() {
            return Err(problem(None, "has rows that belong to no entry"));
        }
    }
    Ok(checked)
}

/// What entries behind the end of the index redact: the index may not have forgotten it yet.
fn redacted_later(ledger: &Connection, size: u64) -> Result<BTreeSet<(u64, Key)>, Problem> {
    let mut later = BTreeSet::new();
    let mut statement = ledger.prepare("SELECT body FROM entry WHERE seq >= ?1")?;
    let mut rows = statement.query([size])?;
    while let Some(row) = rows.next()? {
        if let Ok(entry) = Entry::parse(row.get_ref(0)?.as_blob().unwrap_or_default()) {
            later.extend(redacted(&entry));
        }
    }
    Ok(later)
}
