//! Entries for other programs: JSON lines and CSV. Both are for reading and searching; what proves
//! something is the body, which JSON carries as it was signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::cbor::Value;
use super::entry::{Entry, Key, Shape};
use super::index::{display, display_time};
use super::read::{ReadError, Reader, Stored, field_name};

/// An entry as one JSON object: its fields by name, the texts it commits to where they are still
/// there, and the bytes that were signed.
///
/// # Errors
///
/// When its texts cannot be read.
pub fn to_json(reader: &Reader, stored: &Stored) -> Result<Json, ReadError> {
    let mut object = Map::new();
    object.insert("seq".to_owned(), json!(stored.seq));
    let entry = Entry::parse(&stored.body);
    match &entry {
        Ok(entry) => {
            object.insert("kind".to_owned(), json!(entry.kind().name()));
            for (number, value) in entry.fields() {
                let key = Key::from_number(*number);
                if matches!(key, Some(Key::V | Key::Kind | Key::Seq)) {
                    continue;
                }
                object.insert(field_name(*number), field(key, value));
            }
            let mut texts = Map::new();
            for (key, _) in entry.commitments() {
                let value = reader.text(stored.seq, key)?;
                texts.insert(key.name().to_owned(), text(key, value.as_deref()));
            }
            if !texts.is_empty() {
                object.insert("texts".to_owned(), Json::Object(texts));
            }
        }
        Err(error) => {
            object.insert("error".to_owned(), json!(error.to_string()));
        }
    }
    object.insert("leaf".to_owned(), json!(stored.leaf().to_string()));
    object
        .insert("signature".to_owned(), json!(stored.signature.as_ref().map(|bytes| STANDARD.encode(bytes))));
    object.insert("cbor".to_owned(), json!(STANDARD.encode(&stored.body)));
    Ok(Json::Object(object))
}

/// A committed value: as text where it is text, otherwise in base64; null when it was redacted.
fn text(key: Key, value: Option<&[u8]>) -> Json {
    let is_text = matches!(key, Key::Sql | Key::Reason | Key::Difference);
    match value {
        Some(bytes) if is_text => json!(String::from_utf8_lossy(bytes)),
        Some(bytes) => json!(STANDARD.encode(bytes)),
        None => Json::Null,
    }
}

fn field(key: Option<Key>, value: &Value<'_>) -> Json {
    match (key.map(|key| (key, key.shape())), value) {
        (Some((key, shape @ (Shape::Time | Shape::Uuid))), value) => json!(display(key, shape, value)),
        (Some((key, Shape::Claims)), value) => claims(key, value),
        (_, Value::Uint(number)) => json!(number),
        (_, Value::Bool(truth)) => json!(truth),
        (_, Value::Text(text)) => json!(text),
        (_, Value::Bytes(bytes)) => json!(hex::encode(bytes)),
        (_, Value::Array(values)) => Json::Array(values.iter().map(|value| field(None, value)).collect()),
        (_, Value::Map(pairs)) => {
            Json::Object(pairs.iter().map(|(key, value)| (key.to_string(), field(None, value))).collect())
        }
    }
}

fn claims(key: Key, value: &Value<'_>) -> Json {
    let words = display(key, Shape::Claims, value);
    let pairs = words.split(", ").filter_map(|pair| pair.split_once('='));
    Json::Object(pairs.map(|(name, words)| (name.to_owned(), json!(words))).collect())
}

/// The columns of an export as CSV: what most questions are about, one row an entry.
pub const CSV_COLUMNS: &[Key] = &[
    Key::Kind,
    Key::Session,
    Key::Agent,
    Key::Owners,
    Key::Address,
    Key::Upstream,
    Key::Database,
    Key::Role,
    Key::Class,
    Key::Clearance,
    Key::Refusal,
    Key::Rules,
    Key::Effects,
    Key::Reasons,
    Key::Request,
    Key::Reviewer,
    Key::Verdict,
    Key::Channel,
    Key::Assurance,
    Key::Counted,
    Key::State,
    Key::Ref,
    Key::Ending,
    Key::Tag,
    Key::SqlState,
    Key::Rows,
    Key::Bytes,
    Key::Duration,
    Key::What,
    Key::By,
    Key::Sql,
    Key::Reason,
];

/// The first line of a CSV export.
#[must_use]
pub fn csv_header() -> Vec<&'static str> {
    let mut header = vec!["seq", "time"];
    header.extend(CSV_COLUMNS.iter().map(|key| key.name()));
    header.push("leaf");
    header
}

/// An entry as a row of CSV.
///
/// # Errors
///
/// When its texts cannot be read.
pub fn to_csv(reader: &Reader, stored: &Stored) -> Result<Vec<String>, ReadError> {
    let mut row = vec![stored.seq.to_string()];
    match Entry::parse(&stored.body) {
        Ok(entry) => {
            row.push(display_time(entry.uint(Key::Wall).unwrap_or_default()));
            for key in CSV_COLUMNS {
                row.push(match (key, entry.value(*key)) {
                    (Key::Kind, _) => entry.kind().name().to_owned(),
                    (Key::Sql | Key::Reason, Some(_)) => {
                        let value = reader.text(stored.seq, *key)?;
                        value.map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default()
                    }
                    (_, Some(value)) => display(*key, key.shape(), value),
                    (_, None) => String::new(),
                });
            }
        }
        Err(error) => {
            row.push(error.to_string());
            row.resize(CSV_COLUMNS.len() + 2, String::new());
        }
    }
    row.push(stored.leaf().to_string());
    Ok(row)
}
