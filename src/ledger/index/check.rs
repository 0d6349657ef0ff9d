//! Compares rows of the index with the entries that they come from, before they are shown.

use rusqlite::Connection;
use rusqlite::types::Value as Cell;

use super::tables::{TABLES, derive};
use crate::ledger::display::display;
use crate::ledger::entry::{Key, Kind};
use crate::ledger::read::{Damage, ReadError, Reader, Text};

/// Whether what the index says of one entry, and of what it is joined with, is what the entries say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Checked {
    /// It is.
    Agrees,
    /// It is, but a text is not there: it was redacted, or is never stored.
    TextGone,
    /// It is not.
    Damaged(Damage),
}

/// Compares everything in the index that a row about entry `seq` is made of with the entries themselves.
/// What the index leaves out is not found this way; `verify` finds it.
pub(in crate::ledger) fn check_row(
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
