//! Fields of entries as text for people.

use serde_json::{Value as Json, json};

use super::cbor::Value;
use super::entry::{Key, Shape};

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
        (_, Value::Map(claims)) => claims_object(claims).to_string(),
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

/// Claims by name: each is a value of its own, whatever it says.
pub(super) fn claims_object(claims: &[(u64, Value<'_>)]) -> Json {
    let pair = |(number, value): &(u64, Value<'_>)| {
        (claim_name(*number).to_owned(), json!(value.as_text().unwrap_or_default()))
    };
    Json::Object(claims.iter().map(pair).collect())
}
