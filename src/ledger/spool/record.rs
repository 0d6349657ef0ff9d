//! How records lie in a segment.
//!
//! ```text
//! record = length:u32  check:16  number:u64  wall:u64  mono:u64  content      (little-endian)
//! ```
//!
//! `length` counts the whole record, `check` is the HMAC of everything behind itself ([`SpoolKey`]):
//! what is in the spool after a crash becomes signed history, so nobody but the holder of the root key
//! may be able to write there. Numbers follow each other without a gap. A record that was cut off by
//! a crash fails its check.
//!
//! The spool is a private file of this program, read back by the version that wrote it; its format
//! may change with every version that drains it at start-up.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::super::cbor::Fields;
use super::super::clock::Moment;
use super::super::entry::{Key, Kind};
use super::super::payload::{Payload, SALT};

/// Bytes before a record's content.
pub(crate) const HEADER: usize = CHECKED + 24;
/// Bytes of a check: half of an HMAC-SHA-256 (RFC 2104, section 5).
pub(crate) const CHECK: usize = 16;
/// Where the checked part begins.
const CHECKED: usize = 4 + CHECK;

/// Checks what is in the spool. It is derived from the root's private key.
#[derive(Clone)]
pub(crate) struct SpoolKey(Hmac<Sha256>);

impl SpoolKey {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        // HMAC takes keys of any length.
        Self(Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!("any length is a key")))
    }

    pub(crate) fn check(&self, bytes: &[u8]) -> [u8; CHECK] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let (half, _) = whole.split_first_chunk::<CHECK>().unwrap_or((&[0; CHECK], &[]));
        *half
    }

    pub(crate) fn holds(&self, bytes: &[u8], check: &[u8]) -> bool {
        let mut mac = self.0.clone();
        mac.update(bytes);
        check.len() == CHECK && mac.verify_truncated_left(check).is_ok()
    }
}

impl std::fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolKey")
    }
}

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
pub(crate) fn seal(record: &mut [u8], number: u64, at: Moment, key: &SpoolKey) {
    let length = record.len() as u32;
    let Some((header, _)) = record.split_first_chunk_mut::<HEADER>() else { return };
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[CHECKED..CHECKED + 8].copy_from_slice(&number.to_le_bytes());
    header[CHECKED + 8..CHECKED + 16].copy_from_slice(&at.wall.to_le_bytes());
    header[CHECKED + 16..].copy_from_slice(&at.mono.to_le_bytes());
    let check = key.check(record.get(CHECKED..).unwrap_or_default());
    if let Some(place) = record.get_mut(4..CHECKED) {
        place.copy_from_slice(&check);
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

/// Reads the record at the beginning of bytes that never left this process, so its check is not looked
/// at; none where nothing is left.
pub(crate) fn recall(bytes: &[u8]) -> Option<Record<'_>> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    open(length, bytes.get(CHECKED..length)?)
}

/// Reads a record's checked part.
fn open(length: usize, checked: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor { rest: checked };
    let number = cursor.u64()?;
    let at = Moment { wall: cursor.u64()?, mono: cursor.u64()? };
    Some(Record { length, number, at, content: cursor.content()? })
}

/// Reads the record at the beginning of `bytes`.
pub(crate) fn read<'a>(bytes: &'a [u8], key: &SpoolKey) -> Result<Record<'a>, NoRecord> {
    let mut cursor = Cursor { rest: bytes };
    let length = match cursor.u32() {
        Some(0) => return Err(NoRecord::Blank),
        Some(length) => length as usize,
        // Too little to be a record: the end, or as far as was read.
        None if bytes.iter().all(|&byte| byte == 0) => return Err(NoRecord::Blank),
        None => return Err(NoRecord::Torn),
    };
    let whole = bytes.get(..length).filter(|whole| whole.len() > HEADER).ok_or(NoRecord::Torn)?;
    let check = cursor.take(CHECK).ok_or(NoRecord::Torn)?;
    if !key.holds(whole.get(CHECKED..).unwrap_or_default(), check) {
        return Err(NoRecord::Torn);
    }
    open(length, whole.get(CHECKED..).unwrap_or_default()).ok_or(NoRecord::Torn)
}

/// Where in `bytes` the next record lies that was written with `key` and has a number from `next` on:
/// something before it was changed, or never reached the disk.
pub(crate) fn find(bytes: &[u8], next: u64, key: &SpoolKey) -> Option<usize> {
    /// More than fit into any segment.
    const NEAR: u64 = 1 << 32;
    (0..bytes.len()).find(|&at| {
        let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > HEADER) else { return false };
        let mut cursor = Cursor { rest };
        let length = cursor.u32().unwrap_or_default() as usize;
        let Some(_) = cursor.take(CHECK) else { return false };
        let number = cursor.u64().unwrap_or_default();
        // The check costs most, so what cannot be is left out first.
        let is_near = number >= next && number - next < NEAR;
        length > HEADER && length <= rest.len() && is_near && read(rest, key).is_ok()
    })
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

    fn key() -> SpoolKey {
        SpoolKey::new(&[7; 32])
    }

    #[test]
    fn a_record_of_another_key_is_none() {
        assert_eq!(read(&sample(), &SpoolKey::new(&[8; 32])).unwrap_err(), NoRecord::Torn);
    }

    #[test]
    fn a_record_behind_noise_is_found() {
        let bytes = [&[3; 100][..], &[0; 50], &sample(), &[0; 9]].concat();

        assert_eq!(find(&bytes, 7, &key()), Some(150));
        assert_eq!(find(&bytes, 8, &key()), None, "that number was read before");
        assert_eq!(find(&bytes[..bytes.len() - 10], 7, &key()), None, "not whole");
    }

    fn sample() -> Vec<u8> {
        let mut fields = Fields::new();
        fields.text(Key::What, "x");
        let mut out = Vec::new();
        let payloads = [Payload { key: Key::Reason, salt: None, value: b"because" }];
        entry(&mut out, Kind::Export, (false, true), &[1; 16], &[2; 16], &fields, payloads.into_iter());
        seal(&mut out, 7, Moment { wall: 8, mono: 9 }, &key());
        out
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let bytes = sample();

        let record = read(&bytes, &key()).unwrap();

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
            assert_eq!(read(&bytes[..cut], &key()).unwrap_err(), NoRecord::Torn, "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x40;
            assert!(read(&changed, &key()).is_err(), "byte {place}");
        }
        assert_eq!(read(&[0; 64], &key()).unwrap_err(), NoRecord::Blank);
        assert_eq!(read(&[], &key()).unwrap_err(), NoRecord::Blank);
    }
}
