//! Deterministic CBOR (RFC 8949, section 4.2.1), and the small part of CBOR that entries use:
//! unsigned integers, byte strings, text, booleans, arrays, and maps with unsigned keys.
//!
//! Writing goes through `minicbor`, which always takes the shortest form. Reading is our own, because
//! a general decoder accepts many spellings of one value, and an entry that can be spelled twice
//! could be changed without changing what it says. [`parse`] refuses every spelling but one.

use minicbor::encode::Encoder;

/// How deep arrays and maps may nest. Entries need three levels.
const DEEPEST: u8 = 4;

/// One value of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Major type 0.
    Uint(u64),
    /// Major type 2.
    Bytes(&'a [u8]),
    /// Major type 3, valid UTF-8.
    Text(&'a str),
    /// Simple values 20 and 21.
    Bool(bool),
    /// Major type 4.
    Array(Vec<Value<'a>>),
    /// Major type 5 with unsigned keys, ascending.
    Map(Vec<(u64, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The number, if it is one.
    #[must_use]
    pub fn as_uint(&self) -> Option<u64> {
        if let Self::Uint(value) = self { Some(*value) } else { None }
    }

    /// The bytes, if it is a byte string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(value) = self { Some(value) } else { None }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&'a str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The elements; none of what is no array.
    #[must_use]
    pub fn elements(&self) -> &[Self] {
        if let Self::Array(elements) = self { elements } else { &[] }
    }
}

/// Why some bytes are not deterministic CBOR as entries use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The bytes end in the middle of a value.
    #[error("the encoding ends in the middle of a value")]
    Short,
    /// Bytes follow the value.
    #[error("bytes follow the value")]
    Trailing,
    /// A length or an integer is not in its shortest form.
    #[error("a number is not in its shortest form")]
    NotShortest,
    /// Map keys are not ascending, or one occurs twice.
    #[error("map keys are not in ascending order")]
    KeyOrder,
    /// A text is not UTF-8.
    #[error("a text is not valid UTF-8")]
    NotUtf8,
    /// Nesting beyond what entries need.
    #[error("values nest too deeply")]
    TooDeep,
    /// Floats, tags, negative numbers, null, indefinite lengths, text keys.
    #[error("a kind of value that entries do not use")]
    Unused,
}

/// Reads exactly one value that fills `bytes`.
///
/// # Errors
///
/// Anything but the one deterministic encoding of a value that entries may contain.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, CborError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(CborError::Trailing) }
}

/// Reads the pairs of a map without its head: how a [`Fields`] is laid out.
///
/// # Errors
///
/// As [`parse`].
pub(crate) fn parse_pairs(bytes: &[u8]) -> Result<Vec<(u64, &[u8])>, CborError> {
    let mut reader = Reader { rest: bytes };
    let mut pairs = Vec::new();
    while !reader.rest.is_empty() {
        let key = reader.key()?;
        let before = reader.rest;
        reader.value(1)?;
        let length = before.len() - reader.rest.len();
        pairs.push((key, before.get(..length).ok_or(CborError::Short)?));
    }
    Ok(pairs)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Short)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CborError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The head of a value: its major type and its argument, in the shortest form or not at all.
    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let &[first] = self.take(1)? else { return Err(CborError::Short) };
        let (major, low) = (first >> 5, first & 31);
        if major == 7 {
            // Only `false` and `true`: their argument is the value itself.
            return if low == 20 || low == 21 { Ok((7, u64::from(low))) } else { Err(CborError::Unused) };
        }
        let width = match low {
            0..=23 => return Ok((major, u64::from(low))),
            24..=27 => 1_u64 << (low - 24),
            _ => return Err(CborError::Unused),
        };
        let argument = self.take(width)?.iter().fold(0, |sum: u64, &byte| sum << 8 | u64::from(byte));
        let smallest = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if argument < smallest { Err(CborError::NotShortest) } else { Ok((major, argument)) }
    }

    fn key(&mut self) -> Result<u64, CborError> {
        match self.head()? {
            (0, key) => Ok(key),
            _ => Err(CborError::Unused),
        }
    }

    fn value(&mut self, depth: u8) -> Result<Value<'a>, CborError> {
        if depth > DEEPEST {
            return Err(CborError::TooDeep);
        }
        let (major, argument) = self.head()?;
        Ok(match major {
            0 => Value::Uint(argument),
            2 => Value::Bytes(self.take(argument)?),
            3 => {
                let bytes = self.take(argument)?;
                Value::Text(std::str::from_utf8(bytes).map_err(|_| CborError::NotUtf8)?)
            }
            4 => {
                // Every element takes at least one byte, so the length is bounded by what is there.
                if argument > self.rest.len() as u64 {
                    return Err(CborError::Short);
                }
                let elements = (0..argument).map(|_| self.value(depth + 1)).collect::<Result<_, _>>()?;
                Value::Array(elements)
            }
            5 => {
                if argument > self.rest.len() as u64 {
                    return Err(CborError::Short);
                }
                let mut pairs: Vec<(u64, Value<'a>)> = Vec::with_capacity(argument.min(64) as usize);
                for _ in 0..argument {
                    let key = self.key()?;
                    if pairs.last().is_some_and(|&(last, _)| last >= key) {
                        return Err(CborError::KeyOrder);
                    }
                    pairs.push((key, self.value(depth + 1)?));
                }
                Value::Map(pairs)
            }
            7 => Value::Bool(argument == 21),
            _ => return Err(CborError::Unused),
        })
    }
}

/// The pairs of a map while it is being written, without the map's head: so that pairs from several
/// hands (the session's constants, the statement, the outcome) can be joined by copying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    count: u16,
    first: u64,
    last: u64,
}

/// `Vec<u8>` cannot fail to be written to; minicbor's signature has a `Result` all the same.
fn infallible<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok(), "writing to memory");
    drop(result);
}

impl Fields {
    pub(crate) fn new() -> Self {
        // Room for most of what is written by one hand, taken at once.
        Self { bytes: Vec::with_capacity(96), ..Self::default() }
    }

    /// Takes over an allocation, so that a hot path can reuse one.
    pub(crate) fn reuse(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, ..Self::default() }
    }

    /// Takes up again what [`Self::extent`] and [`Self::as_bytes`] gave.
    pub(crate) fn restore(bytes: Vec<u8>, (count, first, last): (u16, u64, u64)) -> Self {
        Self { bytes, count, first, last }
    }

    /// How many pairs there are, the first key and the last.
    pub(crate) fn extent(&self) -> (u16, u64, u64) {
        (self.count, self.first, self.last)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes over all fields of `other`, whose keys all lie behind these.
    pub(crate) fn append(&mut self, other: &Self) {
        debug_assert!(self.count == 0 || other.count == 0 || other.first > self.last, "keys ascend");
        if self.count == 0 {
            self.first = other.first;
        }
        if other.count > 0 {
            self.last = other.last;
        }
        self.count += other.count;
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// The value of a field.
    pub(crate) fn value(&self, key: impl Into<u64>) -> Option<Value<'_>> {
        let key = key.into();
        let pairs = parse_pairs(&self.bytes).ok()?;
        let (_, value) = pairs.into_iter().find(|(number, _)| *number == key)?;
        parse(value).ok()
    }

    fn key(&mut self, key: u64) -> Encoder<&mut Vec<u8>> {
        debug_assert!(self.count == 0 || key > self.last, "key {key} after {}", self.last);
        if self.count == 0 {
            self.first = key;
        }
        self.last = key;
        self.count += 1;
        let mut encoder = Encoder::new(&mut self.bytes);
        infallible(encoder.u64(key).map(|_| ()));
        encoder
    }

    pub(crate) fn uint(&mut self, key: impl Into<u64>, value: u64) -> &mut Self {
        infallible(self.key(key.into()).u64(value).map(|_| ()));
        self
    }

    pub(crate) fn text(&mut self, key: impl Into<u64>, value: &str) -> &mut Self {
        infallible(self.key(key.into()).str(value).map(|_| ()));
        self
    }

    pub(crate) fn bytes(&mut self, key: impl Into<u64>, value: &[u8]) -> &mut Self {
        infallible(self.key(key.into()).bytes(value).map(|_| ()));
        self
    }

    pub(crate) fn bool(&mut self, key: impl Into<u64>, value: bool) -> &mut Self {
        infallible(self.key(key.into()).bool(value).map(|_| ()));
        self
    }

    pub(crate) fn texts<'t>(
        &mut self,
        key: impl Into<u64>,
        values: impl ExactSizeIterator<Item = &'t str>,
    ) -> &mut Self {
        let mut encoder = self.key(key.into());
        infallible(encoder.array(values.len() as u64).map(|_| ()));
        for value in values {
            infallible(encoder.str(value).map(|_| ()));
        }
        self
    }

    /// Anything nested; `write` must write exactly one value.
    pub(crate) fn nested(
        &mut self,
        key: impl Into<u64>,
        write: impl FnOnce(
            &mut Encoder<&mut Vec<u8>>,
        ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
    ) -> &mut Self {
        let mut encoder = self.key(key.into());
        infallible(write(&mut encoder));
        self
    }

    /// Joins pairs from several hands into one map with its head.
    ///
    /// The parts are written so that, for statements, their keys do not overlap and joining is
    /// copying; where they do overlap, the pairs are sorted. A key that two parts have is taken from
    /// the later part.
    pub(crate) fn join(parts: &[&Self], out: &mut Vec<u8>) {
        let mut order: Vec<&Self> = parts.iter().copied().filter(|part| part.count > 0).collect();
        order.sort_unstable_by_key(|part| part.first);
        let apart = order.windows(2).all(|pair| match pair {
            [one, two] => one.last < two.first,
            _ => true,
        });
        if apart {
            let count: u64 = order.iter().map(|part| u64::from(part.count)).sum();
            infallible(Encoder::new(&mut *out).map(count).map(|_| ()));
            for part in order {
                out.extend_from_slice(&part.bytes);
            }
            return;
        }
        let mut pairs = std::collections::BTreeMap::new();
        for part in parts {
            // What `Fields` wrote parses; there is nothing else it could hold.
            for (key, value) in parse_pairs(&part.bytes).unwrap_or_default() {
                pairs.insert(key, value);
            }
        }
        infallible(Encoder::new(&mut *out).map(pairs.len() as u64).map(|_| ()));
        for (key, value) in pairs {
            infallible(Encoder::new(&mut *out).u64(key).map(|_| ()));
            out.extend_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_but_the_shortest_is_refused() {
        let cases: [(&[u8], CborError); 15] = [
            (&[0x18, 0x17], CborError::NotShortest),
            (&[0x19, 0x00, 0xff], CborError::NotShortest),
            (&[0x1a, 0x00, 0x00, 0xff, 0xff], CborError::NotShortest),
            (&[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], CborError::NotShortest),
            (&[0x58, 0x01, 0x00], CborError::NotShortest),
            (&[0x5f, 0x41, 0x00, 0xff], CborError::Unused),
            (&[0xbf, 0xff], CborError::Unused),
            (&[0xa2, 0x02, 0x00, 0x01, 0x00], CborError::KeyOrder),
            (&[0xa2, 0x01, 0x00, 0x01, 0x00], CborError::KeyOrder),
            (&[0xa1, 0x61, 0x61, 0x00], CborError::Unused),
            (&[0x61, 0xff], CborError::NotUtf8),
            (&[0x01, 0x01], CborError::Trailing),
            (&[0x42, 0x01], CborError::Short),
            (&[0xf6], CborError::Unused),
            (&[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x00], CborError::TooDeep),
        ];

        for (bytes, error) in cases {
            assert_eq!(parse(bytes), Err(error), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        assert_eq!(parse(&[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(CborError::Short));
        assert_eq!(parse(&[0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(CborError::Short));
    }

    #[test]
    fn what_fields_write_reads_back_whichever_hand_wrote_it() {
        let mut one = Fields::new();
        one.uint(1_u64, 7).texts(30_u64, ["a", "b"].into_iter());
        let mut two = Fields::new();
        two.bytes(2_u64, b"x").bool(300_u64, true);

        let mut joined = Vec::new();
        Fields::join(&[&one, &two], &mut joined);

        let expected = Value::Map(vec![
            (1, Value::Uint(7)),
            (2, Value::Bytes(b"x")),
            (30, Value::Array(vec![Value::Text("a"), Value::Text("b")])),
            (300, Value::Bool(true)),
        ]);
        assert_eq!(parse(&joined), Ok(expected));
    }
}
