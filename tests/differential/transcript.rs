//! What a backend answered, one line a message, with what must differ between two databases made
//! equal: object identifiers in the order in which they appear, our own process id, the first
//! `application_name`, source lines of Postgres's errors.

use std::fmt::Write as _;

use super::script::Quoted;

/// A longer value is told by its beginning, its length and a checksum.
const SHOWN: usize = 400;

/// Identifiers from here on are made at run time.
const FIRST_NORMAL_OID: u32 = 16_384;

/// Reads messages into lines.
#[derive(Debug)]
pub struct Reader {
    process: i32,
    application_name: String,
    oids: Vec<u32>,
}

/// The next parts of a message's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap();
        let text = String::from_utf8_lossy(self.bytes(end)).into_owned();
        self.bytes(1);
        text
    }
}

fn shown(value: &[u8]) -> String {
    if value.len() <= SHOWN {
        return Quoted(value).to_string();
    }
    let sum = value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{}.. ({} bytes, {sum:016x})", Quoted(&value[..40]), value.len())
}

impl Reader {
    pub fn new(process: i32, application_name: &str) -> Self {
        Self { process, application_name: application_name.to_owned(), oids: Vec::new() }
    }

    fn oid(&mut self, oid: i32) -> String {
        let oid = oid.cast_unsigned();
        if oid < FIRST_NORMAL_OID {
            return oid.to_string();
        }
        let at = self.oids.iter().position(|&known| known == oid).unwrap_or_else(|| {
            self.oids.push(oid);
            self.oids.len() - 1
        });
        format!("#{at}")
    }

    /// One message as a line.
    pub fn line(&mut self, tag: u8, body: &[u8]) -> String {
        let mut body = Body(body);
        match tag {
            b'1' => "ParseComplete".to_owned(),
            b'2' => "BindComplete".to_owned(),
            b'3' => "CloseComplete".to_owned(),
            b'n' => "NoData".to_owned(),
            b's' => "PortalSuspended".to_owned(),
            b'I' => "EmptyQueryResponse".to_owned(),
            b'c' => "CopyDone".to_owned(),
            b'C' => format!("CommandComplete {}", body.text()),
            b'Z' => format!("ReadyForQuery {}", body.bytes(1)[0] as char),
            b'd' => format!("CopyData {}", shown(body.0)),
            b'S' => {
                let (name, mut value) = (body.text(), body.text());
                if name == "application_name" && value == self.application_name {
                    value = "(as at first)".to_owned();
                }
                format!("ParameterStatus {name} = {value:?}")
            }
            b'A' => {
                let from = if body.i32() == self.process { "ourselves" } else { "others" };
                format!("NotificationResponse {from} {:?} {:?}", body.text(), body.text())
            }
            b'D' => {
                let mut line = "DataRow".to_owned();
                for _ in 0..body.i16() {
                    match body.i32() {
                        -1 => line.push_str(" NULL"),
                        length => {
                            let value = body.bytes(usize::try_from(length).unwrap());
                            if value == self.application_name.as_bytes() {
                                line.push_str(" (as at first)");
                            } else {
                                write!(line, " {}", shown(value)).unwrap();
                            }
                        }
                    }
                }
                line
            }
            b'T' => {
                let mut line = "RowDescription".to_owned();
                for _ in 0..body.i16() {
                    let name = body.text();
                    let (table, column, kind) = (body.i32(), body.i16(), body.i32());
                    let (table, kind) = (self.oid(table), self.oid(kind));
                    let (size, modifier, format) = (body.i16(), body.i32(), body.i16());
                    write!(line, " {name:?}/{table}.{column}/{kind}/{size}/{modifier}/{format}").unwrap();
                }
                line
            }
            b't' => {
                let mut line = "ParameterDescription".to_owned();
                for _ in 0..body.i16() {
                    let oid = body.i32();
                    write!(line, " {}", self.oid(oid)).unwrap();
                }
                line
            }
            b'G' | b'H' | b'W' => {
                let name = if tag == b'G' { "CopyInResponse" } else { "CopyOutResponse" };
                format!("{name} {:?}", body.0)
            }
            b'E' | b'N' => {
                let mut line = if tag == b'E' { "ErrorResponse" } else { "NoticeResponse" }.to_owned();
                while body.0.first().is_some_and(|&kind| kind != 0) {
                    let kind = body.bytes(1)[0];
                    let value = body.text();
                    // Where in Postgres's source it was raised.
                    if !matches!(kind, b'F' | b'L' | b'R') {
                        write!(line, " {}={value:?}", kind as char).unwrap();
                    }
                }
                line
            }
            other => format!("{:?} {:?}", other as char, body.0),
        }
    }
}
