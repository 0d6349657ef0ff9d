//! No byte of any row can change unseen.

use proptest::prelude::*;
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::rich;
use super::sample::Place;
use crate::ledger::verify::{Options, Progress, verify};

const COLUMNS: [(&str, &str); 15] = [
    ("entry", "seq"),
    ("entry", "body"),
    ("entry", "sig"),
    ("checkpoint", "size"),
    ("checkpoint", "note"),
    ("payload", "seq"),
    ("payload", "field"),
    ("payload", "salt"),
    ("payload", "value"),
    ("tile", "level"),
    ("tile", "idx"),
    ("tile", "hashes"),
    ("anchor", "name"),
    ("anchor", "size"),
    ("anchor", "note"),
];

thread_local! {
    /// Made once: each case changes a copy.
    static LEDGER: Place = {
        let place = Place::new();
        rich::fill(&place);
        place
    };
}

fn flipped(value: Value, at: prop::sample::Index, bit: u8) -> Option<Value> {
    let flip = |mut bytes: Vec<u8>| {
        if bytes.is_empty() {
            return None;
        }
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        Some(bytes)
    };
    match value {
        Value::Blob(bytes) => flip(bytes).map(Value::Blob),
        Value::Text(text) => {
            flip(text.into_bytes()).and_then(|bytes| String::from_utf8(bytes).ok()).map(Value::Text)
        }
        Value::Integer(number) => Some(Value::Integer(number ^ 1 << (bit * 3))),
        Value::Null | Value::Real(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn flipping_any_bit_of_any_row_is_found(
        column in 0..COLUMNS.len(), row in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(), bit in 0..7_u8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        LEDGER.with(|place| {
            std::fs::copy(place.path(), &path).unwrap();
            std::fs::copy(place.path().with_extension("db.pub"), path.with_extension("db.pub")).unwrap();
        });
        let (table, column) = COLUMNS[column];
        let connection = Connection::open(&path).unwrap();
        let values: Vec<Value> = connection
            .prepare(&format!("SELECT {column} FROM {table}")).unwrap()
            .query_map([], |row| row.get(0)).unwrap()
            .collect::<Result<_, _>>().unwrap();
        let place = row.index(values.len());
        let Some(changed) = flipped(values[place].clone(), at, bit) else { return Ok(()) };
        // By place rather than by value: the value may occur more than once.
        let keys = match table {
            "entry" => "seq",
            "checkpoint" => "size",
            "payload" => "seq, field",
            "tile" => "level, idx",
            _ => "name",
        };
        let sql = format!(
            "UPDATE {table} SET {column} = ?1 WHERE ({keys}) = (SELECT {keys} FROM {table} LIMIT 1 OFFSET {place})"
        );
        // What a constraint forbids (two rows of one key) is no attack.
        if connection.execute(&sql, params![changed]).is_err() {
            return Ok(());
        }
        drop(connection);

        let options = Options { path, key: None, anchors: Vec::new() };
        let report = verify(&options, &Progress::default()).unwrap();

        prop_assert!(report.problem.is_some(), "{table}.{column}, row {place}: passed");
    }
}
