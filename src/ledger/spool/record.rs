//! How records lie in a segment.
//!
//! ```text
//! record = length:u32  check:u32  number:u64  wall:u64  mono:u64  content      (little-endian)
//! ```
//!
//! `length` counts the whole record, `check` is the CRC-32 of everything behind itself. Numbers follow
//! each other without a gap. A record that was cut off by a crash fails its check or its number, and
//! so does whatever lies behind it.
//!
//! The spool is a private file of this program, read back by the version that wrote it; its format
//! may change with every version that drains it at start-up.

use super::super::cbor::Fields;
use super::super::clock::Moment;
use super::super::entry::{Key, Kind};
use super::super::payload::{Payload, SALT};

/// Bytes before a record's content.
pub(crate) const HEADER: usize = 32;
/// Where the checked part begins.
const CHECKED: usize = 8;

const CONTEXT: u8 = 1;
const ENTRY: u8 = 2;
const OUTCOME: u8 = 3;

const JOINS_SESSION: u8 = 1;
const MUST_SIGN: u8 = 2;

/// What a record holds, borrowed from the segment.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// The constants of a session; becomes no entry.
    Context {
        /// Whose.
        session: [u8; 16],
        /// Its fields.
        fields: Fields,
    },
    /// Becomes one entry.
    Entry(NewEntry<'a>),
    /// The outcome of the statement whose intent is the record `intent`.
    Outcome {
        /// The record of the intent.
        intent: u64,
        /// Its fields.
        fields: Fields,
    },
}

/// An entry before the writer adds what only it knows.
#[derive(Debug)]
pub(crate) struct NewEntry<'a> {
    /// Its kind.
    pub(crate) kind: Kind,
    /// It repeats the constants of its session.
    pub(crate) joins_session: bool,
    /// It is signed by itself, whatever the signing mode.
    pub(crate) must_sign: bool,
    /// Its session; zeros where it has none.
    pub(crate) session: [u8; 16],
    /// Its request; zeros where it has none.
    pub(crate) request: [u8; 16],
    /// What was composed.
    pub(crate) fields: Fields,
    /// The texts it commits to.
    pub(crate) payloads: Vec<Payload<'a>>,
}

/// Starts a record in `out`, leaving room for its header.
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
}

fn put_fields(out: &mut Vec<u8>, fields: &Fields) {
    let (count, first, last) = fields.extent();
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&last.to_le_bytes());
    out.extend_from_slice(&(fields.as_bytes().len() as u32).to_le_bytes());
    out.extend_from_slice(fields.as_bytes());
}

/// A whole record with a session's constants, but for number and time.
pub(crate) fn context(out: &mut Vec<u8>, session: &[u8; 16], fields: &Fields) {
    begin(out);
    out.push(CONTEXT);
    out.extend_from_slice(session);
    put_fields(out, fields);
}

/// A whole record that becomes an entry, but for number and time.
pub(crate) fn entry<'p>(
    out: &mut Vec<u8>,
    kind: Kind,
    (joins_session, must_sign): (bool, bool),
    session: &[u8; 16],
    request: &[u8; 16],
    fields: &Fields,
    payloads: impl Iterator<Item = Payload<'p>>,
) {
    begin(out);
    out.push(ENTRY);
    out.push(kind as u8);
    out.push(if joins_session { JOINS_SESSION } else { 0 } | if must_sign { MUST_SIGN } else { 0 });
    out.extend_from_slice(session);
    out.extend_from_slice(request);
    put_fields(out, fields);
    for payload in payloads {
        out.extend_from_slice(&(u64::from(payload.key) as u16).to_le_bytes());
        out.push(u8::from(payload.salt.is_some()));
        out.extend_from_slice(&payload.salt.unwrap_or_default());
        out.extend_from_slice(&(payload.value.len() as u32).to_le_bytes());
        out.extend_from_slice(payload.value);
    }
}

/// A whole record with an outcome, but for number and time.
pub(crate) fn outcome(out: &mut Vec<u8>, intent: u64, fields: &Fields) {
    begin(out);
    out.push(OUTCOME);
    out.extend_from_slice(&intent.to_le_bytes());
    put_fields(out, fields);
}

/// Fills in number and time, and the check over all of it.
pub(crate) fn seal(record: &mut [u8], number: u64, at: Moment) {
    let length = record.len() as u32;
    let Some((header, _)) = record.split_first_chunk_mut::<HEADER>() else { return };
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..24].copy_from_slice(&at.wall.to_le_bytes());
    header[24..32].copy_from_slice(&at.mono.to_le_bytes());
    let check = crc32fast::hash(record.get(CHECKED..).unwrap_or_default());
    if let Some(place) = record.get_mut(4..CHECKED) {
        place.copy_from_slice(&check.to_le_bytes());
    }
}

/// A record, found whole.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Its length in the segment.
    pub(crate) length: usize,
    /// Its number. A context has the number of the record that follows it.
    pub(crate) number: u64,
    /// When it was written.
    pub(crate) at: Moment,
    /// What it holds.
    pub(crate) content: Content<'a>,
}

/// Why there is no record at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// Nothing was written here.
    Blank,
    /// Something was, and it is not whole.
    Torn,
}

/// Reads the record at the beginning of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Record<'_>, NoRecord> {
    let mut cursor = Cursor { rest: bytes };
    let length = match cursor.u32() {
        Some(0) => return Err(NoRecord::Blank),
        Some(length) => length as usize,
        // Too little to be a record: the end, or as far as was read.
        None if bytes.iter().all(|&byte| byte == 0) => return Err(NoRecord::Blank),
        None => return Err(NoRecord::Torn),
    };
    let whole = bytes.get(..length).filter(|whole| whole.len() > HEADER).ok_or(NoRecord::Torn)?;
    let check = cursor.u32().ok_or(NoRecord::Torn)?;
    if crc32fast::hash(whole.get(CHECKED..).unwrap_or_default()) != check {
        return Err(NoRecord::Torn);
    }
    let mut cursor = Cursor { rest: whole.get(CHECKED..).unwrap_or_default() };
    (|| {
        let number = cursor.u64()?;
        let at = Moment { wall: cursor.u64()?, mono: cursor.u64()? };
        Some(Record { length, number, at, content: cursor.content()? })
    })()
    .ok_or(NoRecord::Torn)
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn fields(&mut self) -> Option<Fields> {
        let extent = (self.u16()?, self.u64()?, self.u64()?);
        let length = self.u32()? as usize;
        Some(Fields::restore(self.take(length)?.to_vec(), extent))
    }

    fn content(&mut self) -> Option<Content<'a>> {
        match self.u8()? {
            CONTEXT => Some(Content::Context { session: self.array()?, fields: self.fields()? }),
            ENTRY => {
                let kind = Kind::from_number(u64::from(self.u8()?))?;
                let flags = self.u8()?;
                let (session, request) = (self.array()?, self.array()?);
                let fields = self.fields()?;
                let mut payloads = Vec::new();
                while !self.rest.is_empty() {
                    let key = Key::from_number(u64::from(self.u16()?))?;
                    let salted = self.u8()? == 1;
                    let salt: [u8; SALT] = self.array()?;
                    let length = self.u32()? as usize;
                    let value = self.take(length)?;
                    payloads.push(Payload { key, salt: salted.then_some(salt), value });
                }
                Some(Content::Entry(NewEntry {
                    kind,
                    joins_session: flags & JOINS_SESSION != 0,
                    must_sign: flags & MUST_SIGN != 0,
                    session,
                    request,
                    fields,
                    payloads,
                }))
            }
            OUTCOME => Some(Content::Outcome { intent: self.u64()?, fields: self.fields()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut fields = Fields::new();
        fields.text(Key::What, "x");
        let mut out = Vec::new();
        let payloads = [Payload { key: Key::Reason, salt: None, value: b"because" }];
        entry(&mut out, Kind::Export, (false, true), &[1; 16], &[2; 16], &fields, payloads.into_iter());
        seal(&mut out, 7, Moment { wall: 8, mono: 9 });
        out
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let bytes = sample();

        let record = read(&bytes).unwrap();

        assert_eq!((record.length, record.number, record.at.mono), (bytes.len(), 7, 9));
        let Content::Entry(entry) = record.content else { panic!("an entry") };
        assert_eq!(entry.kind, Kind::Export);
        assert!(entry.must_sign && !entry.joins_session);
        assert_eq!(entry.payloads[0].value, b"because");
    }

    #[test]
    fn a_record_that_is_cut_or_changed_is_torn() {
        let bytes = sample();

        for cut in 4..bytes.len() {
            assert_eq!(read(&bytes[..cut]).unwrap_err(), NoRecord::Torn, "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x40;
            assert!(read(&changed).is_err(), "byte {place}");
        }
        assert_eq!(read(&[0; 64]).unwrap_err(), NoRecord::Blank);
        assert_eq!(read(&[]).unwrap_err(), NoRecord::Blank);
    }
}
