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
use super::settings::is_live;
use super::store::{StoreError, open_for_reading};
use super::verify::{Code, Problem};

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
    let mut sql = "CREATE TABLE meta (origin TEXT NOT NULL, size INTEGER NOT NULL) STRICT;".to_owned();
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
        (_, Value::Map(pairs)) => {
            let names = ["model", "version", "run", "task", "purpose"];
            let pair = |(claim, value): &(u64, Value<'_>)| {
                let name = names.get(*claim as usize).copied().unwrap_or("?");
                format!("{name}={}", value.as_text().unwrap_or_default())
            };
            pairs.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
    }
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
                return Ok(Self { ledger, index, size });
            }
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(super::store::with_suffix_raw(&path, suffix));
        }
        Self::begin(ledger, open_index(&path)?, &origin)
    }

    fn begin(ledger: Connection, index: Connection, origin: &str) -> Result<Self, IndexError> {
        index.execute_batch(&format!("BEGIN;\n{}\nCOMMIT", schema()))?;
        index.execute("INSERT INTO meta VALUES (?1, 0)", [origin])?;
        Ok(Self { ledger, index, size: 0 })
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
        Some(size) => Ok(Index { ledger: source, index: copy, size }),
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
        match result.and_then(|mut open| open.catch_up().map(|_| open)) {
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
            if ending || now - before < BUSY || now.saturating_sub(size) > FARTHEST_BEHIND {
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
        if written_schema(&connection)? != expected_schema()? {
            return Ok(Err("another schema".to_owned()));
        }
        // Tables may hold the truth and their indexes another, and searching goes by those.
        let state: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if state != "ok" {
            return Ok(Err(state));
        }
        let count: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
        let (origin, size) = connection
            .query_row("SELECT origin, size FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let snapshot = Snapshot { connection, origin, size };
        Ok::<_, rusqlite::Error>(if count == 1 {
            Ok(snapshot)
        } else {
            Err("more than one origin".to_owned())
        })
    };
    match open() {
        Ok(Ok(snapshot)) => Ok(Some(snapshot)),
        Ok(Err(what)) => Err(problem(format!("has {what}"))),
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
