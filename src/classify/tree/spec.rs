//! How the generated table describes the parse tree.

use super::grammar::{Field, Kind};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any node, wrapped in its name: `{"ColumnRef":{..}}`.
    Node,
    /// A list of them.
    Nodes,
    /// A node of one kind, not wrapped.
    Message(Kind),
    /// A list of them.
    Messages(Kind),
    /// A string.
    Text,
    /// A number.
    Number,
    /// A list of numbers.
    Numbers,
    /// `true` or absent.
    Flag,
    /// One of these words.
    Enum(&'static [&'static str]),
}

/// One field of a node.
#[derive(Debug)]
pub(super) struct FieldSpec {
    pub(super) name: &'static str,
    pub(super) field: Field,
    pub(super) shape: Shape,
    /// `"name":` as it stands in the JSON.
    key: Key,
}

impl FieldSpec {
    pub(super) const fn new(name: &'static str, field: Field, shape: Shape) -> Self {
        Self { name, field, shape, key: Key::of(name) }
    }

    /// Whether `rest` begins with `"name":`; `first` is its [`first_word`].
    pub(super) fn stands_at(&self, first: u64, rest: &[u8]) -> bool {
        self.key.stands_at(self.name, first, rest)
    }

    /// How long `"name":` is.
    pub(super) fn width(&self) -> usize {
        Key::width(self.name)
    }
}

/// `"name":` in words of eight bytes, because calling `memcmp` for a dozen bytes, several times for each
/// field, was a tenth of what reading a tree took.
#[derive(Debug)]
struct Key {
    first: u64,
    /// Which bits of the first word count: all, unless the whole is shorter.
    counts: u64,
    /// The last eight bytes, if the first word does not hold them all.
    last: u64,
}

impl Key {
    const fn of(name: &str) -> Self {
        let width = Self::width(name);
        let (mut first, mut counts, mut last) = (0, 0, 0);
        let mut place = 0;
        while place < width {
            let byte = Self::byte(name, place) as u64;
            if place < 8 {
                first |= byte << (8 * place);
                counts |= 0xff << (8 * place);
            }
            if width > 8 && place >= width - 8 {
                last |= byte << (8 * (place + 8 - width));
            }
            place += 1;
        }
        Self { first, counts, last }
    }

    const fn byte(name: &str, place: usize) -> u8 {
        let bytes = name.as_bytes();
        if place > 0 && place <= bytes.len() {
            #[expect(clippy::indexing_slicing, reason = "bounded by the line above")]
            return bytes[place - 1];
        }
        if place == bytes.len() + 2 { b':' } else { b'"' }
    }

    const fn width(name: &str) -> usize {
        name.len() + 3
    }

    #[inline(always)]
    fn stands_at(&self, name: &str, first: u64, rest: &[u8]) -> bool {
        first & self.counts == self.first && self.rest_stands_at(name, rest)
    }

    /// What the first word does not tell.
    fn rest_stands_at(&self, name: &str, rest: &[u8]) -> bool {
        let width = Self::width(name);
        let Some(from) = width.checked_sub(8).filter(|from| *from > 0) else { return true };
        let Some(last) = rest.get(from..).and_then(<[u8]>::first_chunk) else { return false };
        let between =
            || rest.get(8..from).unwrap_or_default() == name.as_bytes().get(7..from - 1).unwrap_or_default();
        u64::from_le_bytes(*last) == self.last && (from <= 8 || between())
    }
}

/// The first eight bytes, as one number; zeros where there are fewer.
#[inline(always)]
pub(super) fn first_word(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_le_bytes(*first);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4));
        return u64::from(u32::from_le_bytes(*first)) | last;
    }
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// One kind of node.
#[derive(Debug)]
pub(super) struct KindSpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether it can stand where any node can.
    pub(super) is_node: bool,
    pub(super) fields: &'static [FieldSpec],
    /// `"name":` as it stands in the JSON.
    key: Key,
}

impl KindSpec {
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        is_node: bool,
        fields: &'static [FieldSpec],
    ) -> Self {
        Self { name, kind, is_node, fields, key: Key::of(name) }
    }

    /// Whether `rest` begins with `"name":`.
    #[inline(always)]
    pub(super) fn stands_at(&self, rest: &[u8]) -> bool {
        self.key.stands_at(self.name, first_word(rest), rest)
    }

    /// How long `"name":` is.
    pub(super) fn width(&self) -> usize {
        Key::width(self.name)
    }
}
