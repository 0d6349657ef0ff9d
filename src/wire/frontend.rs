//! What agents say: views that borrow the frame they were read from.
//!
//! A view is made only from a whole frame and only if the frame holds exactly the message, so what is
//! judged is what will be forwarded. Text stays bytes: nothing is converted, nothing is replaced.

use bytes::BytesMut;

use super::frame::{Frame, Malformed, Reader};

/// The types of messages an agent may send after start-up (protocol documentation, "Message Formats").
pub mod tag {
    /// Bind (extended query)
    pub const BIND: u8 = b'B';
    /// Close a statement or portal
    pub const CLOSE: u8 = b'C';
    /// CopyData
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail
    pub const COPY_FAIL: u8 = b'f';
    /// Describe a statement or portal
    pub const DESCRIBE: u8 = b'D';
    /// Execute a portal
    pub const EXECUTE: u8 = b'E';
    /// Flush
    pub const FLUSH: u8 = b'H';
    /// FunctionCall (fast path)
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse (extended query)
    pub const PARSE: u8 = b'P';
    /// Passwords, SASL messages, GSS tokens
    pub const PASSWORD: u8 = b'p';
    /// Simple query
    pub const QUERY: u8 = b'Q';
    /// Sync
    pub const SYNC: u8 = b'S';
    /// Terminate
    pub const TERMINATE: u8 = b'X';
}

/// `Parse`: prepare a statement.
#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The text.
    pub sql: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the body of a `P` frame.
    ///
    /// # Errors
    /// When the frame holds anything but one `Parse`.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let sql = reader.cstr()?;
        let count = reader.count()?;
        let types = reader.bytes(count * 4)?;
        reader.end()?;
        Ok(Self { name, sql, types })
    }

    /// The declared parameter types' OIDs; 0 where the server is to infer one.
    pub fn types(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.types.as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// Format codes and values, as `Bind` and `FunctionCall` have them.
#[derive(Clone, Copy, Debug)]
struct Values<'a> {
    formats: &'a [u8],
    values: &'a [u8],
    count: usize,
}

impl<'a> Values<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let format_count = reader.count()?;
        let formats = reader.bytes(format_count * 2)?;
        let count = reader.count()?;
        let before = reader.rest();
        for _ in 0..count {
            Self::value(reader)?;
        }
        let values = before.get(..before.len() - reader.rest().len()).ok_or(Malformed)?;
        Ok(Self { formats, values, count })
    }

    fn value(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
        match reader.i32()? {
            -1 => Ok(None),
            length => reader.bytes(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
        }
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (i16, Option<&'a [u8]>)> + use<'a> {
        let formats = self.formats.as_chunks::<2>().0;
        let mut reader = Reader::new(self.values);
        (0..self.count).map(move |index| {
            let format = match formats {
                [all] => Some(all),
                each => each.get(index),
            };
            // All of them were read once before.
            let value = Self::value(&mut reader).unwrap_or_default();
            (format.map_or(0, |code| i16::from_be_bytes(*code)), value)
        })
    }
}

/// `Bind`: a statement plus values make a portal.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    values: Values<'a>,
}

impl<'a> Bind<'a> {
    /// Reads the body of a `B` frame.
    ///
    /// # Errors
    /// When the frame holds anything but one `Bind`, or a number of format codes that the protocol
    /// does not allow (none, one, or one per value).
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let values = Values::read(&mut reader)?;
        let result_formats = reader.count()?;
        reader.bytes(result_formats * 2)?;
        reader.end()?;
        Ok(Self { portal, statement, values })
    }

    /// How many values are bound.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.count
    }

    /// Whether no value is bound.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.count == 0
    }

    /// Each value with its format code (0 text, 1 binary). One code stands for all values, none for
    /// text. A number of codes that fits neither is passed on as text: the server refuses it.
    pub fn values(&self) -> impl ExactSizeIterator<Item = (i16, Option<&'a [u8]>)> {
        self.values.iter()
    }
}

/// What `Describe` and `Close` are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

impl<'a> Named<'a> {
    /// Reads the body of a `D` or `C` frame.
    ///
    /// # Errors
    /// When the frame holds anything else.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let name = reader.cstr()?;
        reader.end()?;
        match kind {
            b'S' => Ok(Self::Statement(name)),
            b'P' => Ok(Self::Portal(name)),
            _ => Err(Malformed),
        }
    }
}

/// `Execute`: run a portal.
#[derive(Clone, Copy, Debug)]
pub struct Execute<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// The most rows to return; 0 for all.
    pub rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads the body of an `E` frame.
    ///
    /// # Errors
    /// When the frame holds anything else.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let rows = reader.i32()?;
        reader.end()?;
        Ok(Self { portal, rows })
    }
}

/// Reads the text of a `Q` frame.
///
/// # Errors
/// When the body is not exactly one NUL-terminated string: a reviewer would otherwise be shown less
/// than was sent.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let sql = reader.cstr()?;
    reader.end()?;
    Ok(sql)
}

/// `FunctionCall`: run a function by its OID (fast path).
#[derive(Clone, Copy, Debug)]
pub struct FunctionCall<'a> {
    /// The function's OID.
    pub oid: u32,
    arguments: Values<'a>,
}

impl<'a> FunctionCall<'a> {
    /// Reads the body of an `F` frame.
    ///
    /// # Errors
    /// When the frame holds anything but one `FunctionCall`.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let oid = reader.u32()?;
        let arguments = Values::read(&mut reader)?;
        let _result_format = reader.bytes(2)?;
        reader.end()?;
        Ok(Self { oid, arguments })
    }

    /// Each argument with its format code (0 text, 1 binary), as for [`Bind::values`].
    pub fn arguments(&self) -> impl ExactSizeIterator<Item = (i16, Option<&'a [u8]>)> {
        self.arguments.iter()
    }
}

/// The first packet of a connection, which has no type byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening<'a> {
    /// May we speak TLS?
    SslRequest,
    /// May we speak GSSAPI encryption?
    GssEncRequest,
    /// Cancel another session's statement.
    Cancel {
        /// Its process id.
        process: i32,
        /// Its secret key: four bytes in protocol 3.0, up to 256 in 3.2.
        secret: &'a [u8],
    },
    /// A start-up message.
    Startup {
        /// Minor protocol version; the major one is 3.
        minor: u16,
        /// Parameters in the order they came.
        parameters: Vec<(&'a str, &'a str)>,
    },
}

/// What is wrong with a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// The length is impossible or over the limit.
    #[error("invalid length of startup packet")]
    Length,
    /// Not protocol 3.
    #[error("unsupported frontend protocol {0}.{1}: countersign speaks 3.0 to 3.2")]
    Version(u16, u16),
    /// The parameters are not a list of terminated UTF-8 strings.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A second request to encrypt.
    #[error("a second request to encrypt, or one under TLS")]
    Again,
    /// Bytes behind a request to encrypt, before it was answered.
    #[error("unencrypted bytes behind a request to encrypt")]
    Behind,
    /// TLS at once, without the protocol's name.
    #[error("direct TLS without the ALPN protocol \"postgresql\"")]
    Alpn,
}

impl<'a> Opening<'a> {
    /// The newest minor version that we speak: 3.2, with cancel keys of more than four bytes. There is
    /// no 3.1; who asks for it gets 3.0's keys, as from Postgres.
    pub const NEWEST: u16 = 2;

    /// The most bytes of a start-up packet behind its length, as in Postgres
    /// (`MAX_STARTUP_PACKET_LENGTH`).
    pub const LIMIT: usize = 10_000;

    /// The length of the packet that `bytes` begin with, once its first four bytes are there.
    ///
    /// # Errors
    /// When it is impossible or over [`Self::LIMIT`].
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, OpeningError> {
        let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if (8..=Self::LIMIT + 4).contains(&length) { Ok(Some(length)) } else { Err(OpeningError::Length) }
    }

    /// Reads one whole packet, its length included.
    ///
    /// # Errors
    /// As [`OpeningError`] says.
    pub fn read(packet: &'a [u8]) -> Result<Self, OpeningError> {
        let mut reader = Reader::new(packet);
        let length = reader.u32().map_err(|_| OpeningError::Length)? as usize;
        let code = reader.u32().map_err(|_| OpeningError::Length)?;
        if length != packet.len() {
            return Err(OpeningError::Length);
        }
        let (major, minor) = ((code >> 16) as u16, (code & 0xffff) as u16);
        match (major, minor) {
            (1234, 5679) if length == 8 => Ok(Self::SslRequest),
            (1234, 5680) if length == 8 => Ok(Self::GssEncRequest),
            (1234, 5678) => {
                let process = reader.i32().map_err(|_| OpeningError::Length)?;
                let secret = reader.rest();
                if (4..=256).contains(&secret.len()) {
                    Ok(Self::Cancel { process, secret })
                } else {
                    Err(OpeningError::Length)
                }
            }
            (3, minor) => {
                let parameters = Self::parameters(reader).ok_or(OpeningError::Layout)?;
                Ok(Self::Startup { minor, parameters })
            }
            (major, minor) => Err(OpeningError::Version(major, minor)),
        }
    }

    /// Appends a start-up message of version 3.`minor`.
    pub fn put_startup<'p>(
        minor: u16,
        parameters: impl Iterator<Item = (&'p str, &'p str)>,
        out: &mut BytesMut,
    ) -> std::io::Result<()> {
        let start = out.len();
        postgres_protocol::message::frontend::startup_message(parameters, out)?;
        // The library writes 3.0; the minor version is the last two of the four bytes behind the length.
        if let Some(place) = out.get_mut(start + 6..start + 8) {
            place.copy_from_slice(&minor.to_be_bytes());
        }
        Ok(())
    }

    fn parameters(mut reader: Reader<'a>) -> Option<Vec<(&'a str, &'a str)>> {
        let mut parameters = Vec::new();
        loop {
            let name = std::str::from_utf8(reader.cstr().ok()?).ok()?;
            if name.is_empty() {
                break;
            }
            let value = std::str::from_utf8(reader.cstr().ok()?).ok()?;
            parameters.push((name, value));
        }
        reader.end().ok()?;
        Some(parameters)
    }
}

/// Whether a type byte is one that agents may send once a session runs. Everything else ends it.
#[must_use]
pub fn is_known(frame: Frame<'_>) -> bool {
    matches!(
        frame.tag,
        tag::BIND
            | tag::CLOSE
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::FLUSH
            | tag::FUNCTION_CALL
            | tag::PARSE
            | tag::QUERY
            | tag::SYNC
            | tag::TERMINATE
    )
}

#[cfg(test)]
mod tests {
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    use super::*;

    fn body(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        write(&mut buffer);
        Frame::first(&buffer, 1 << 20).unwrap().unwrap().body().to_vec()
    }

    /// Postgres reads these counts without a sign (`pq_getmsgint(.., 2)`).
    #[test]
    fn counts_up_to_65535_are_read() {
        for count in [32_767_u16, 32_768, 65_535] {
            let mut parse = b"s1\0select 1\0".to_vec();
            parse.extend(count.to_be_bytes());
            parse.extend(23_u32.to_be_bytes().repeat(count.into()));
            assert_eq!(Parse::read(&parse).unwrap().types().len(), usize::from(count));

            let mut bind = b"\0s1\0".to_vec();
            for code in [1_u16, 0] {
                bind.extend(count.to_be_bytes());
                if code == 1 {
                    bind.extend(code.to_be_bytes().repeat(count.into()));
                }
            }
            bind.extend([0, 0, 0, 1, b'7'].repeat(count.into()));
            bind.extend(count.to_be_bytes());
            bind.extend([0; 2].repeat(count.into()));
            let bind = Bind::read(&bind).unwrap();
            assert_eq!(bind.len(), usize::from(count));
            assert_eq!(bind.values().last(), Some((1, Some(&b"7"[..]))));

            let mut call = 1_u32.to_be_bytes().to_vec();
            call.extend([0, 0]);
            call.extend(count.to_be_bytes());
            call.extend((-1_i32).to_be_bytes().repeat(count.into()));
            call.extend([0, 0]);
            assert_eq!(FunctionCall::read(&call).unwrap().arguments().len(), usize::from(count));
        }
    }

    #[test]
    fn parse_and_bind_are_read_as_another_library_writes_them() {
        let parse = body(|out| frontend::parse("s1", "select $1", [23, 0], out).unwrap());
        let parse = Parse::read(&parse).unwrap();
        assert_eq!((parse.name, parse.sql), (&b"s1"[..], &b"select $1"[..]));
        assert_eq!(parse.types().collect::<Vec<_>>(), [23, 0]);

        let bind = body(|out| {
            let values = [Some("42"), None];
            let written = frontend::bind(
                "p",
                "s1",
                [0, 1],
                values,
                |value, out| {
                    Ok(match value {
                        Some(value) => {
                            out.extend_from_slice(value.as_bytes());
                            postgres_protocol::IsNull::No
                        }
                        None => postgres_protocol::IsNull::Yes,
                    })
                },
                [1],
                out,
            );
            assert!(written.is_ok());
        });
        let bind = Bind::read(&bind).unwrap();
        assert_eq!((bind.portal, bind.statement, bind.len()), (&b"p"[..], &b"s1"[..], 2));
        assert_eq!(bind.values().collect::<Vec<_>>(), [(0, Some(&b"42"[..])), (1, None)]);
    }

    #[test]
    fn one_format_code_stands_for_all_values_and_none_for_text() {
        let one = b"\0\0\0\x01\0\x01\0\x02\0\0\0\x01a\0\0\0\x01b\0\0";
        assert!(Bind::read(one).unwrap().values().all(|(format, _)| format == 1));
        let none = b"\0\0\0\0\0\x01\0\0\0\x01a\0\0";
        assert!(Bind::read(none).unwrap().values().all(|(format, _)| format == 0));
    }

    #[test]
    fn text_behind_the_terminator_is_malformed_not_ignored() {
        assert_eq!(query(b"select 1\0"), Ok(&b"select 1"[..]));
        assert_eq!(query(b"select 1\0drop table t\0"), Err(Malformed));
        assert_eq!(query(b"select 1"), Err(Malformed));
    }

    #[test]
    fn a_count_that_promises_more_than_the_frame_holds_is_malformed() {
        assert!(Parse::read(b"\0select\0\x7f\xff").is_err());
        assert!(Bind::read(b"\0\0\0\0\xff\xff\0\0").is_err());
    }

    #[test]
    fn the_first_packet_tells_ssl_cancel_and_startup_apart() {
        assert_eq!(Opening::read(&[0, 0, 0, 8, 4, 210, 22, 47]), Ok(Opening::SslRequest));
        assert_eq!(Opening::read(&[0, 0, 0, 8, 4, 210, 22, 48]), Ok(Opening::GssEncRequest));
        let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 1, 2, 3, 4];
        assert_eq!(Opening::read(&cancel), Ok(Opening::Cancel { process: 7, secret: &[1, 2, 3, 4] }));
        let startup = b"\0\0\0\x12\0\x03\0\0user\0bot\0\0";
        let parameters = vec![("user", "bot")];
        assert_eq!(Opening::read(startup), Ok(Opening::Startup { minor: 0, parameters }));
    }

    #[test]
    fn a_startup_message_is_read_as_it_was_written() {
        for minor in [0, Opening::NEWEST] {
            let mut out = BytesMut::from(&b"before"[..]);
            Opening::put_startup(minor, [("user", "bot")].into_iter(), &mut out).unwrap();
            let parameters = vec![("user", "bot")];
            assert_eq!(Opening::read(&out[6..]), Ok(Opening::Startup { minor, parameters }));
        }
    }

    #[test]
    fn a_packet_may_be_as_long_as_postgres_takes_it_and_no_longer() {
        let length = |length: u32| Opening::length(&length.to_be_bytes());
        assert_eq!(length(10_004), Ok(Some(10_004)));
        assert_eq!(length(10_005), Err(OpeningError::Length));
        assert_eq!(length(8), Ok(Some(8)));
        assert_eq!(length(7), Err(OpeningError::Length));
    }

    #[test]
    fn a_startup_packet_with_something_behind_its_end_is_refused() {
        let mut packet = b"\0\0\0\0\0\x03\0\0user\0bot\0\0extra\0".to_vec();
        let length = packet.len() as u32;
        packet[..4].copy_from_slice(&length.to_be_bytes());

        assert_eq!(Opening::read(&packet), Err(OpeningError::Layout));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Parse::read(&bytes);
            if let Ok(bind) = Bind::read(&bytes) {
                prop_assert_eq!(bind.values().count(), bind.len());
            }
            let _ = Named::read(&bytes);
            let _ = Execute::read(&bytes);
            let _ = query(&bytes);
            let _ = FunctionCall::read(&bytes);
            let _ = Opening::read(&bytes);
            let _ = Opening::length(&bytes);
        }
    }
}
