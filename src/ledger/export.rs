//! Entries for other programs: JSON lines and CSV. Both are for reading and searching; what proves
//! something is the body, which JSON carries as it was signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::cbor::Value;
use super::display::{claims_object, display, display_time};
use super::entry::{Key, Shape};
use super::read::{ReadError, Reader, Stored, field_name};

/// An entry as one JSON object: its fields by name, the texts it commits to where they are still
/// there, and the bytes that were signed. `damaged` names what is not as it was recorded, and nothing of
/// that is given.
///
/// # Errors
///
/// When its texts cannot be read.
pub fn to_json(reader: &Reader, stored: &Stored) -> Result<Json, ReadError> {
    let mut object = Map::new();
    object.insert("seq".to_owned(), json!(stored.seq));
    let entry = match stored.entry() {
        Ok(entry) => entry,
        Err(error) => {
            object.insert("damaged".to_owned(), json!(["entry"]));
            object.insert("error".to_owned(), json!(error.to_string()));
            return Ok(Json::Object(object));
        }
    };
    {
        {
            object.insert("kind".to_owned(), json!(entry.kind().name()));
            for (number, value) in entry.fields() {
                let key = Key::from_number(*number);
                if matches!(key, Some(Key::V | Key::Kind | Key::Seq)) {
                    continue;
                }
                object.insert(field_name(*number), field(key, value));
            }
            let mut texts = Map::new();
            let mut damaged = Vec::new();
            if stored.lacks_signature {
                damaged.push(json!("signature"));
            }
            for (key, _) in entry.commitments() {
                let found = reader.text(&entry, key)?;
                if found.is_damaged() {
                    damaged.push(json!(key.name()));
                }
                texts.insert(key.name().to_owned(), text(key, found.kept().as_deref()));
            }
            if !texts.is_empty() {
                object.insert("texts".to_owned(), Json::Object(texts));
            }
            if !damaged.is_empty() {
                object.insert("damaged".to_owned(), Json::Array(damaged));
            }
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
        (Some((_, Shape::Claims)), Value::Map(claims)) => claims_object(claims),
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

/// A cell of CSV that no spreadsheet takes for a formula. It begins with an apostrophe where the text
/// begins, behind what is not seen and behind quotes, with what would make it one; and where the text
/// begins with an apostrophe, so that taking one away always gives the text.
#[must_use]
pub fn csv_cell(text: String) -> String {
    let is_skipped =
        |c: char| c.is_whitespace() || c.is_control() || c == '"' || c.escape_debug().nth(1).is_some();
    let is_formula = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '﹢' | '﹣' | '﹦' | '﹫' | '−' | '|' | '%'
        )
    };
    let begins_blank = text.starts_with(|c: char| c.is_whitespace() || c.is_control());
    let first = text.chars().find(|c| !is_skipped(*c) || matches!(c, '\'' | '\\'));
    if text.starts_with('\'') || begins_blank || first.is_some_and(is_formula) {
        return format!("'{text}");
    }
    text
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
    Key::Verified,
    Key::Claimed,
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
    header.extend(["leaf", "damaged"]);
    header
}

/// An entry as a row of CSV, as [`csv_header`] names its cells. The last one names what is not as it was
/// recorded; nothing of that is given.
///
/// # Errors
///
/// When its texts cannot be read.
pub fn to_csv(reader: &Reader, stored: &Stored) -> Result<Vec<String>, ReadError> {
    let mut row = vec![stored.seq.to_string()];
    let mut damaged = Vec::new();
    match stored.entry() {
        Ok(entry) => {
            if stored.lacks_signature {
                damaged.push("signature");
            }
            row.push(display_time(entry.uint(Key::Wall).unwrap_or_default()));
            for key in CSV_COLUMNS {
                row.push(match (key, entry.value(*key)) {
                    (Key::Kind, _) => entry.kind().name().to_owned(),
                    (Key::Sql | Key::Reason, Some(_)) => {
                        let found = reader.text(&entry, *key)?;
                        if found.is_damaged() {
                            damaged.push(key.name());
                        }
                        let value = found.kept().unwrap_or_default();
                        String::from_utf8_lossy(&value).into_owned()
                    }
                    (_, Some(value)) => display(*key, key.shape(), value),
                    (_, None) => String::new(),
                });
            }
        }
        Err(_) => {
            damaged.push("entry");
            row.resize(CSV_COLUMNS.len() + 2, String::new());
        }
    }
    row.push(stored.leaf().to_string());
    row.push(damaged.join(" "));
    Ok(row.into_iter().map(csv_cell).collect())
}
