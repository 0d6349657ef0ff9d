//! A bound value as a person can read it.
//!
//! A value in text format is shown as the text it is. One in binary format is read by the type that
//! the agent declared, which is the type the server will read it by; where that type is not one of
//! the few known here, or the bytes do not fit it, the bytes themselves are shown.

use std::fmt::Write as _;

use serde::Serialize;

use super::visible::Shown;
use crate::statement::Parameter;

/// One bound value, laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownParameter {
    /// 1 for `$1`.
    pub number: usize,
    /// Name of the declared type, where it is one that is known here; otherwise its OID.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The value; `None` is NULL.
    pub value: Option<Shown>,
    /// The value is shown as hexadecimal digits, because its bytes could not be read as a value.
    pub hex: bool,
    /// Its length in bytes.
    pub length: usize,
}

/// Lays `parameters` out.
#[must_use]
pub fn show(parameters: &[Parameter]) -> Vec<ShownParameter> {
    parameters.iter().enumerate().map(|(place, parameter)| show_one(place + 1, parameter)).collect()
}

fn show_one(number: usize, parameter: &Parameter) -> ShownParameter {
    let type_name = type_name(parameter.type_oid);
    let Some(bytes) = parameter.value.as_deref() else {
        return ShownParameter { number, type_name, value: None, hex: false, length: 0 };
    };
    let read = match parameter.format {
        0 => Some(Shown::of_bytes(bytes)),
        _ => read_binary(parameter.type_oid, bytes),
    };
    let hex = read.is_none();
    let value = read.unwrap_or_else(|| Shown::of(&hex::encode(bytes)));
    ShownParameter { number, type_name, value: Some(value), hex, length: bytes.len() }
}

/// The names of `pg_type` (its OIDs below 10000 never change).
fn type_name(oid: u32) -> String {
    let name = match oid {
        0 => "left to the server",
        16 => "bool",
        17 => "bytea",
        18 => "\"char\"",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        25 => "text",
        26 => "oid",
        114 => "json",
        142 => "xml",
        700 => "float4",
        701 => "float8",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1114 => "timestamp",
        1184 => "timestamptz",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        1009 => "text[]",
        1007 => "int4[]",
        1016 => "int8[]",
        oid => return format!("type {oid}"),
    };
    name.to_owned()
}

fn read_binary(oid: u32, bytes: &[u8]) -> Option<Shown> {
    let text = match oid {
        16 => match bytes {
            [0] => "false".to_owned(),
            [1] => "true".to_owned(),
            _ => return None,
        },
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        26 => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        700 => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        701 => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        18 | 19 | 25 | 114 | 142 | 1042 | 1043 => std::str::from_utf8(bytes).ok()?.to_owned(),
        // jsonb's binary form is a version byte, 1, and the text.
        3802 => match bytes.split_first() {
            Some((1, text)) => std::str::from_utf8(text).ok()?.to_owned(),
            _ => return None,
        },
        2950 => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            uuid::Uuid::from_bytes(bytes).to_string()
        }
        _ => return None,
    };
    Some(Shown::of(&text))
}

impl ShownParameter {
    /// `$1 (int4) = 7`
    #[must_use]
    pub fn to_line(&self) -> Shown {
        let mut ours = format!("${} ({}) = ", self.number, self.type_name);
        match &self.value {
            None => Shown::of(&(ours + "NULL")),
            Some(value) => {
                if self.hex {
                    let _ = write!(ours, "{} bytes, hexadecimal: ", self.length);
                }
                Shown::after(&ours, value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: i16, type_oid: u32, value: Option<&'static [u8]>) -> String {
        show(&[Parameter { format, type_oid, value: value.map(Into::into) }])[0].to_line().to_string()
    }

    #[test]
    fn values_are_read_as_the_server_will_read_them() {
        assert_eq!(line(0, 25, Some(b"O'Brien")), "$1 (text) = O'Brien");
        assert_eq!(line(1, 23, Some(&[0, 0, 1, 0])), "$1 (int4) = 256");
        assert_eq!(line(1, 16, Some(&[1])), "$1 (bool) = true");
        assert_eq!(line(1, 3802, Some(b"\x01{\"a\":1}")), "$1 (jsonb) = {\"a\":1}");
        assert_eq!(line(1, 1043, None), "$1 (varchar) = NULL");
    }

    #[test]
    fn bytes_that_do_not_fit_their_type_are_shown_as_bytes() {
        assert_eq!(line(1, 23, Some(&[1, 2])), "$1 (int4) = 2 bytes, hexadecimal: 0102");
        assert_eq!(line(1, 25, Some(b"\xff")), "$1 (text) = 1 bytes, hexadecimal: ff");
        assert_eq!(line(1, 0, Some(b"abcd")), "$1 (left to the server) = 4 bytes, hexadecimal: 61626364");
    }

    #[test]
    fn a_value_cannot_hide_what_it_is() {
        assert_eq!(line(0, 25, Some("1\u{202e}".as_bytes())), "$1 (text) = 1⟨U+202E⟩");
    }
}
