//! Compares the whole index with the ledger, for `ledger verify`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::tables::{TABLES, derive, schema};
use super::{path_of, redacted};
use crate::ledger::entry::{Entry, Key};
use crate::ledger::verify::{Code, Problem};
use crate::statement::Digest;

/// The schema as a file has it.
pub(super) fn written_schema(index: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement =
        index.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The schema as a new file would have it.
pub(in crate::ledger) fn expected_schema() -> Result<Vec<String>, rusqlite::Error> {
    let memory = Connection::open_in_memory()?;
    memory.execute_batch(&schema())?;
    written_schema(&memory)
}

/// An index that was opened before the ledger it belongs to: whatever it holds, the ledger holds by the
/// time that is read.
pub(in crate::ledger) struct Snapshot {
    connection: Connection,
    origin: String,
    size: u64,
}

/// SHA-256 of the schema that the index had in its first format, in which claims were joined without a
/// way to tell them apart.
const EARLIER_SCHEMA: &str = "830d4a17442e739484cd4af071d5fe7699854c172a1592f512c6e42ebf7bb33b";

/// Opens the index beside a ledger, if there is one.
pub(in crate::ledger) fn snapshot(ledger: &Path) -> Result<Option<Snapshot>, Problem> {
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
pub(in crate::ledger) fn compare(
    ledger: &Connection,
    index: &Snapshot,
    origin: &str,
) -> Result<u64, Problem> {
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
