//! What servers say: the messages that we write ourselves, and the fields of those that we must read.
//!
//! Rows and copied data are not here: they pass through by header alone (`session::replies`).

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::cancel::CancelKey;
use super::frame::{Malformed, Reader};
use crate::refusal::Refusal;

/// The types of messages a server may send after start-up (protocol documentation, "Message Formats").
pub mod tag {
    /// AuthenticationXXX
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// CopyData
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone
    pub const COPY_DONE: u8 = b'c';
    /// CopyInResponse
    pub const COPY_IN: u8 = b'G';
    /// CopyOutResponse
    pub const COPY_OUT: u8 = b'H';
    /// CopyBothResponse
    pub const COPY_BOTH: u8 = b'W';
    /// DataRow
    pub const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse
    pub const EMPTY_QUERY: u8 = b'I';
    /// ErrorResponse
    pub const ERROR: u8 = b'E';
    /// FunctionCallResponse
    pub const FUNCTION_CALL: u8 = b'V';
    /// NegotiateProtocolVersion
    pub const NEGOTIATE: u8 = b'v';
    /// NoData
    pub const NO_DATA: u8 = b'n';
    /// NoticeResponse
    pub const NOTICE: u8 = b'N';
    /// NotificationResponse
    pub const NOTIFICATION: u8 = b'A';
    /// ParameterDescription
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete
    pub const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery
    pub const READY: u8 = b'Z';
    /// RowDescription
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// The fields of an `ErrorResponse` or `NoticeResponse` that somebody decides by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// `V`: the severity, never translated. Servers before 9.6 do not send it.
    pub severity: &'a str,
    /// `C`: the SQLSTATE.
    pub code: &'a str,
    /// `M`: the message.
    pub message: &'a str,
    /// `R`: the server's function that said so, never translated.
    pub routine: &'a str,
}

impl<'a> Fields<'a> {
    /// Reads the body of an `E` or `N` frame. Bytes that are no UTF-8 read as empty fields.
    ///
    /// # Errors
    /// When a field does not end within the body.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        loop {
            let kind = reader.u8()?;
            if kind == 0 {
                return Ok(fields);
            }
            let value = std::str::from_utf8(reader.cstr()?).unwrap_or_default();
            match kind {
                b'V' => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'R' => fields.routine = value,
                _ => {}
            }
        }
    }

    /// Whether the server ends the connection behind this error.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, "FATAL" | "PANIC")
    }
}

/// The command tag of a `CommandComplete` body, and the number of rows that it tells.
///
/// # Errors
/// When the body is not one terminated string.
pub fn command_complete(body: &[u8]) -> Result<(&str, u64), Malformed> {
    let mut reader = Reader::new(body);
    let tag = std::str::from_utf8(reader.cstr()?).map_err(|_| Malformed)?;
    reader.end()?;
    let rows = tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    Ok((tag, rows))
}

/// Name and value of a `ParameterStatus` body.
///
/// # Errors
/// When the body is not two terminated strings.
pub fn parameter_status(body: &[u8]) -> Result<(&str, &str), Malformed> {
    let mut reader = Reader::new(body);
    let name = std::str::from_utf8(reader.cstr()?).map_err(|_| Malformed)?;
    let value = std::str::from_utf8(reader.cstr()?).map_err(|_| Malformed)?;
    reader.end()?;
    Ok((name, value))
}

/// The first column of a `DataRow` body, as text; for the rows of our own probes.
///
/// # Errors
/// When the body holds no such column.
pub fn first_column(body: &[u8]) -> Result<Option<&str>, Malformed> {
    let mut reader = Reader::new(body);
    if reader.count()? == 0 {
        return Err(Malformed);
    }
    match reader.i32()? {
        -1 => Ok(None),
        length => {
            let bytes = reader.bytes(usize::try_from(length).map_err(|_| Malformed)?)?;
            std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed)
        }
    }
}

/// Appends a message of pgwire's. Encoding fails only for messages over the protocol's own limits,
/// which nothing that we write comes near; such a message is left out.
fn put(message: &impl Message, out: &mut BytesMut) {
    let before = out.len();
    if message.encode(out).is_err() {
        out.truncate(before);
    }
}

/// The longest text of one field that we write; keeps a message under pgwire's limit of 30,000 bytes.
const LONGEST_FIELD: usize = 8_000;

fn field(kind: u8, text: &str) -> (u8, String) {
    let mut end = text.len().min(LONGEST_FIELD);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // A NUL would end the field early and turn the rest into fields of its own.
    (kind, text.get(..end).unwrap_or_default().replace('\0', "\u{fffd}"))
}

/// Appends the `ErrorResponse` that tells an agent of a refusal.
pub fn put_refusal(refusal: &Refusal, out: &mut BytesMut) {
    put_refusal_as(refusal, if refusal.is_fatal() { "FATAL" } else { "ERROR" }, out);
}

/// The same with a severity that the situation decides: before a session runs, every error is fatal.
pub fn put_refusal_as(refusal: &Refusal, severity: &str, out: &mut BytesMut) {
    let mut fields = vec![
        field(b'S', severity),
        field(b'V', severity),
        field(b'C', refusal.sqlstate()),
        field(b'M', &refusal.to_string()),
    ];
    fields.extend(refusal.detail().map(|detail| field(b'D', &detail)));
    fields.extend(refusal.hint().map(|hint| field(b'H', &hint)));
    if let Refusal::Syntax { position: Some(position), .. } = refusal {
        fields.push(field(b'P', &position.to_string()));
    }
    put(&ErrorResponse::new(fields), out);
}

/// Appends an error in Postgres's own words, for what Postgres would have said of the agent's message.
pub fn put_error(code: &str, message: &str, out: &mut BytesMut) {
    let fields = vec![field(b'S', "ERROR"), field(b'V', "ERROR"), field(b'C', code), field(b'M', message)];
    put(&ErrorResponse::new(fields), out);
}

/// Appends a `NoticeResponse` of severity `NOTICE` (SQLSTATE 00000).
pub fn put_notice(message: &str, detail: Option<&str>, hint: Option<&str>, out: &mut BytesMut) {
    let mut fields =
        vec![field(b'S', "NOTICE"), field(b'V', "NOTICE"), field(b'C', "00000"), field(b'M', message)];
    fields.extend(detail.map(|detail| field(b'D', detail)));
    fields.extend(hint.map(|hint| field(b'H', hint)));
    put(&NoticeResponse::new(fields), out);
}

/// Appends `AuthenticationSASL` with the mechanisms on offer.
pub fn put_sasl(mechanisms: &[&str], out: &mut BytesMut) {
    put(&Authentication::SASL(mechanisms.iter().map(|&name| name.to_owned()).collect()), out);
}

/// Appends `AuthenticationSASLContinue`.
pub fn put_sasl_continue(data: &[u8], out: &mut BytesMut) {
    put(&Authentication::SASLContinue(data.to_vec().into()), out);
}

/// Appends `AuthenticationSASLFinal`.
pub fn put_sasl_final(data: &[u8], out: &mut BytesMut) {
    put(&Authentication::SASLFinal(data.to_vec().into()), out);
}

/// Appends `AuthenticationCleartextPassword`.
pub fn put_cleartext_request(out: &mut BytesMut) {
    put(&Authentication::CleartextPassword, out);
}

/// Appends `AuthenticationOk`.
pub fn put_authentication_ok(out: &mut BytesMut) {
    put(&Authentication::Ok, out);
}

/// Appends a `ParameterStatus`.
pub fn put_parameter(name: &str, value: &str, out: &mut BytesMut) {
    put(&ParameterStatus::new(name.to_owned(), value.to_owned()), out);
}

/// Appends `BackendKeyData`.
pub fn put_key(key: &CancelKey, out: &mut BytesMut) {
    let secret = SecretKey::Bytes(bytes::Bytes::copy_from_slice(key.secret()));
    put(&BackendKeyData::new(key.process, secret), out);
}

/// Appends `NegotiateProtocolVersion`: the newest that we speak is 3.`minor`, and these options of the
/// agent's are unknown. The documentation calls the field a minor version; Postgres sends the whole
/// version in it, and libpq takes nothing else for an answer.
pub fn put_negotiate(minor: u16, unsupported: Vec<String>, out: &mut BytesMut) {
    put(&NegotiateProtocolVersion::new(i32::from(minor) | 3 << 16, unsupported), out);
}

/// Reads a `NegotiateProtocolVersion`: the minor version that upstream offers, and how many options it
/// does not know. Some servers send the minor version alone.
///
/// # Errors
/// When the body is not one, or offers another major version.
pub fn negotiate(body: &[u8]) -> Result<(u16, usize), Malformed> {
    let mut reader = Reader::new(body);
    let version = reader.u32()?;
    let (major, minor) = (version >> 16, (version & 0xffff) as u16);
    let options = reader.u32()? as usize;
    for _ in 0..options {
        reader.cstr()?;
    }
    reader.end()?;
    if major == 3 || major == 0 { Ok((minor, options)) } else { Err(Malformed) }
}

/// Appends `ReadyForQuery`.
pub fn put_ready(status: u8, out: &mut BytesMut) {
    out.extend_from_slice(&[tag::READY, 0, 0, 0, 5, status]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::RequestId;
    use crate::wire::frame::Frame;

    fn fields_of(out: &BytesMut) -> Vec<(u8, String)> {
        let mut reader = Reader::new(Frame::first(out, 1 << 20).unwrap().unwrap().body());
        let mut fields = Vec::new();
        loop {
            match reader.u8().unwrap() {
                0 => return fields,
                kind => fields.push((kind, String::from_utf8(reader.cstr().unwrap().to_vec()).unwrap())),
            }
        }
    }

    #[test]
    fn a_refusal_has_code_detail_and_hint() {
        let request = RequestId(uuid::Uuid::from_u128(7));
        let mut out = BytesMut::new();

        put_refusal(
            &Refusal::DeniedByReviewer { request, message: Some("not on a Friday".into()) },
            &mut out,
        );

        let fields = fields_of(&out);
        assert!(fields.contains(&(b'C', "42501".into())), "{fields:?}");
        assert!(fields.contains(&(b'V', "ERROR".into())), "{fields:?}");
        assert!(
            fields.iter().any(|(kind, text)| *kind == b'D' && text.contains("not on a Friday")),
            "{fields:?}"
        );
        assert!(fields.iter().any(|(kind, _)| *kind == b'H'), "{fields:?}");
    }

    #[test]
    fn a_nul_in_a_message_cannot_forge_fields() {
        let mut out = BytesMut::new();

        put_notice("waiting\0CFORGED\0", None, None, &mut out);

        assert_eq!(fields_of(&out).iter().filter(|(kind, _)| *kind == b'C').count(), 1);
    }

    #[test]
    fn a_very_long_message_is_cut_and_still_sent() {
        let mut out = BytesMut::new();

        put_error("XX000", &"é".repeat(100_000), &mut out);

        assert!(Frame::first(&out, 30_000).unwrap().is_some());
    }

    #[test]
    fn a_negotiated_version_is_written_whole_and_read_in_both_spellings() {
        let mut out = BytesMut::new();
        put_negotiate(2, vec!["_pq_.x".to_owned()], &mut out);

        let body = Frame::first(&out, 1 << 20).unwrap().unwrap().body();
        assert_eq!(body[..4], 0x0003_0002_u32.to_be_bytes());
        assert_eq!(negotiate(body), Ok((2, 1)));
        assert_eq!(negotiate(&[0, 0, 0, 0, 0, 0, 0, 0]), Ok((0, 0)));
        assert!(negotiate(&[0, 4, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(negotiate(&[0, 3, 0, 0, 0, 0, 0, 9]).is_err());
    }

    #[test]
    fn rows_are_read_from_the_tag() {
        assert_eq!(command_complete(b"INSERT 0 42\0"), Ok(("INSERT 0 42", 42)));
        assert_eq!(command_complete(b"CREATE TABLE\0"), Ok(("CREATE TABLE", 0)));
        assert!(command_complete(b"SELECT 1").is_err());
    }

    #[test]
    fn an_error_without_an_end_is_malformed() {
        assert!(Fields::read(b"SERROR\0C42601\0").is_err());
        let fields = Fields::read(b"VFATAL\0C57P01\0Mbye\0\0").unwrap();
        assert!(fields.is_fatal());
        assert_eq!((fields.code, fields.message), ("57P01", "bye"));
    }
}
