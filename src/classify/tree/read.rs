//! Reads libpg_query's JSON into items, by the generated table and with a stack of its own.
//!
//! This is no JSON parser for the world: it accepts what libpg_query writes, and calls everything
//! else unknown.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::Item;
use super::grammar::{Field, KINDS, Kind};
use super::spec::{FieldSpec, KindSpec, Shape, first_word};

/// Something in the tree that the table does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(in crate::classify) struct Unknown {
    what: String,
}

/// What is wrong, and where: made into words only if it comes to that.
struct Trouble {
    at: usize,
    what: What,
}

enum What {
    Broken,
    EndsInString,
    Field(&'static KindSpec),
    Node,
    Word(Field),
    Number(Field),
    TooLarge,
}

impl Trouble {
    #[cold]
    fn told(&self, json: &[u8]) -> Unknown {
        let name = || {
            let (start, stop, _) = string(json, self.at).unwrap_or_default();
            let name = json.get(start as usize..stop as usize).unwrap_or_default();
            String::from_utf8_lossy(name.get(..40).unwrap_or(name)).into_owned()
        };
        let what = match &self.what {
            What::Broken => format!("a parse tree broken at byte {}", self.at),
            What::EndsInString => "a parse tree that ends in a string".into(),
            What::Field(spec) => format!("the unknown field {} of node {}", name(), spec.name),
            What::Node => format!("the unknown node {}", name()),
            What::Word(field) => format!("the unknown value {} of {field:?}", name()),
            What::Number(field) => format!("an unknown value of {field:?}"),
            What::TooLarge => "a parse tree that is too large".into(),
        };
        Unknown { what }
    }
}

/// What is open.
struct Frame {
    item: u32,
    /// Of a node: the next field's place in the table, because fields come in the table's order.
    next: u32,
    body: Body,
}

enum Body {
    Node(&'static KindSpec),
    /// In an object of its own that says its name.
    Named(&'static KindSpec),
    /// A list of such values, which is that field.
    List(Shape, Field),
}

/// Reads the whole text; the root is a `ParseResult`.
pub(super) fn read(json: &[u8], items: &mut Vec<Item>) -> Result<(), Unknown> {
    read_all(json, items).map_err(|trouble| trouble.told(json))
}

/// Where the reader stands is a number that the functions below are given and give back: kept behind a
/// `&mut`, it went through memory with every byte, and that was a third of what reading took.
fn read_all(json: &[u8], items: &mut Vec<Item>) -> Result<(), Trouble> {
    let mut stack = Vec::with_capacity(32);
    let mut usual = [Kind::ParseResult; USUAL];
    let root = Place { field: Field::None, parent: 0, within: Field::None };
    let mut at = value(json, 0, Shape::Message(Kind::ParseResult), root, items, &mut stack, &mut usual)?;
    while let Some(top) = stack.last_mut() {
        let item = top.item;
        let byte = json.get(at).copied().unwrap_or(0);
        let behind = at + usize::from(byte == b',');
        match top.body {
            Body::Node(_) | Body::Named(_) if byte == b'}' => {
                at += 1;
                if let Body::Named(_) = top.body {
                    at = expect(json, at, b'}')?;
                }
                close(item, items, &mut stack);
            }
            Body::Node(spec) | Body::Named(spec) => {
                let rest = json.get(behind..).unwrap_or_default();
                let Some((place, field)) = field_at(rest, spec, top.next as usize) else {
                    return Err(Trouble { at: behind, what: What::Field(spec) });
                };
                top.next = place as u32 + 1;
                let place = Place { field: field.field, parent: item, within: field.field };
                at = value(json, behind + field.width(), field.shape, place, items, &mut stack, &mut usual)?;
            }
            Body::List(..) if byte == b']' => {
                at += 1;
                close(item, items, &mut stack);
            }
            Body::List(shape, within) => {
                let place = Place { field: Field::None, parent: item, within };
                at = value(json, behind, shape, place, items, &mut stack, &mut usual)?;
            }
        }
    }
    if at == json.len() { Ok(()) } else { Err(Trouble { at, what: What::Broken }) }
}

/// Where a value stands in the tree.
#[derive(Clone, Copy)]
struct Place {
    field: Field,
    parent: u32,
    /// The field, or that of the list.
    within: Field,
}

/// The kind of node that a field had last: usually the next one's, and then its name is compared with one name
/// instead of being looked up. Two fields may share a place.
type Usual = [Kind; USUAL];
const USUAL: usize = 256;

#[inline(always)]
fn close(item: u32, items: &mut [Item], stack: &mut Vec<Frame>) {
    let end = items.len() as u32;
    if let Some(item) = items.get_mut(item as usize) {
        item.end = end;
    }
    stack.pop();
}

#[inline(always)]
fn expect(json: &[u8], at: usize, byte: u8) -> Result<usize, Trouble> {
    if json.get(at) == Some(&byte) { Ok(at + 1) } else { Err(Trouble { at, what: What::Broken }) }
}

/// Reads the value at `at`, or what opens it, and says where that ends.
#[inline(always)]
fn value(
    json: &[u8],
    at: usize,
    shape: Shape,
    place: Place,
    items: &mut Vec<Item>,
    stack: &mut Vec<Frame>,
    usual: &mut Usual,
) -> Result<usize, Trouble> {
    if let Shape::Node = shape
        && let Some((start, stop, end)) = whole_string(json, at)
    {
        let node = u32::try_from(items.len()).map_err(|_| Trouble { at, what: What::TooLarge })?;
        let Place { field, parent, .. } = place;
        items.push(Item { kind: Kind::String, field, parent, end: node + 2, start: 0, stop: 0 });
        let (field, parent) = (Field::Sval, node);
        items.push(Item { kind: Kind::Scalar, field, parent, end: node + 2, start, stop });
        return Ok(end);
    }
    let mut push = |kind, start, stop| {
        let index = u32::try_from(items.len()).map_err(|_| Trouble { at, what: What::TooLarge })?;
        items.push(Item { kind, field: place.field, parent: place.parent, end: index + 1, start, stop });
        Ok(index)
    };
    let mut open = |item, body| stack.push(Frame { item, next: 0, body });
    let list = match shape {
        Shape::Message(kind) => {
            let end = expect(json, at, b'{')?;
            open(push(kind, 0, 0)?, Body::Node(spec_of(kind, at)?));
            return Ok(end);
        }
        Shape::Node => {
            // The nothing that stands for NULL, and for a node that libpg_query itself could not write:
            // the walker must not take it for harmless.
            let rest = json.get(at..).unwrap_or_default();
            for nothing in [&b"{}"[..], b"null"] {
                if rest.starts_with(nothing) {
                    push(Kind::Empty, 0, 0)?;
                    return Ok(at + nothing.len());
                }
            }
            let name_at = expect(json, at, b'{')?;
            #[expect(clippy::indexing_slicing, reason = "the remainder is within")]
            let usual = &mut usual[place.within as usize % USUAL];
            let expected = KINDS.get(*usual as usize).filter(|spec| spec.is_node);
            let name = json.get(name_at..).unwrap_or_default();
            let (spec, end) = match expected.filter(|spec| spec.stands_at(name)) {
                Some(spec) => (spec, name_at + spec.width()),
                None => {
                    let (start, stop, end) = string(json, name_at)?;
                    let spec = json.get(start as usize..stop as usize).and_then(spec_named);
                    let spec = spec.ok_or(Trouble { at: name_at, what: What::Node })?;
                    *usual = spec.kind;
                    (spec, expect(json, end, b':')?)
                }
            };
            let end = expect(json, end, b'{')?;
            open(push(spec.kind, 0, 0)?, Body::Named(spec));
            return Ok(end);
        }
        Shape::Text => {
            let null = json.get(at..).is_some_and(|rest| rest.starts_with(b"null"));
            let (start, stop, end) = if null { (0, 0, at + 4) } else { string(json, at)? };
            push(Kind::Scalar, start, stop)?;
            return Ok(end);
        }
        Shape::Number | Shape::Flag => {
            let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z');
            let rest = json.get(at..).unwrap_or_default();
            let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
            if length == 0 {
                return Err(Trouble { at, what: What::Number(place.field) });
            }
            push(Kind::Scalar, at as u32, (at + length) as u32)?;
            return Ok(at + length);
        }
        Shape::Enum(words) => {
            let (start, stop, end) = string(json, at)?;
            let word = json.get(start as usize..stop as usize).unwrap_or_default();
            if !words.iter().any(|known| known.as_bytes() == word) {
                return Err(Trouble { at, what: What::Word(place.field) });
            }
            push(Kind::Scalar, start, stop)?;
            return Ok(end);
        }
        Shape::Nodes => Shape::Node,
        Shape::Messages(kind) => Shape::Message(kind),
        Shape::Numbers => Shape::Number,
    };
    let end = expect(json, at, b'[')?;
    open(push(Kind::Items, 0, 0)?, Body::List(list, place.within));
    Ok(end)
}

/// Where the text of a `String` node begins and ends, and where the node does, if one with nothing unusual about
/// it stands at `at`. Every part of a name is one: half of the items of most trees, and opening and closing them
/// like other nodes was a quarter of what reading took.
#[inline(always)]
fn whole_string(json: &[u8], at: usize) -> Option<(u32, u32, usize)> {
    const OPENS: &[u8; 19] = br#"{"String":{"sval":""#;
    let rest = json.get(at..)?;
    if rest.first_chunk() != Some(OPENS) {
        return None;
    }
    let (start, stop, end) = string(json, at + OPENS.len() - 1).ok()?;
    (json.get(end..)?.first_chunk() == Some(b"}}")).then_some((start, stop, end + 2))
}

fn spec_of(kind: Kind, at: usize) -> Result<&'static KindSpec, Trouble> {
    let spec = KINDS.get(kind as usize).ok_or(Trouble { at, what: What::Broken })?;
    debug_assert_eq!(spec.kind, kind, "the table is in order");
    Ok(spec)
}

/// Where the text of the string at `at` begins and ends, without its quotes and still escaped, and where
/// the string ends.
#[inline(always)]
fn string(json: &[u8], at: usize) -> Result<(u32, u32, usize), Trouble> {
    let start = expect(json, at, b'"')?;
    let mut stop = start;
    loop {
        let rest = json.get(stop..).unwrap_or_default();
        stop += quote_or_backslash(rest).ok_or(Trouble { at, what: What::EndsInString })?;
        if json.get(stop) == Some(&b'"') {
            return Ok((start as u32, stop as u32, stop + 1));
        }
        stop += 2;
    }
}

/// The field whose name stands here, and its place in the table. Usually the first comparison or two tell:
/// libpg_query writes fields in the table's order and leaves out those with nothing in them.
#[inline(always)]
fn field_at(rest: &[u8], spec: &'static KindSpec, next: usize) -> Option<(usize, &'static FieldSpec)> {
    let first = first_word(rest);
    let stands_here = |(_, field): &(usize, &FieldSpec)| field.stands_at(first, rest);
    let mut ahead = spec.fields.iter().enumerate().skip(next);
    ahead.find(stands_here).or_else(|| spec.fields.iter().enumerate().find(stands_here))
}

/// Where the first `"` or `\\` stands. Eight bytes at a time, because most strings are shorter than what
/// it takes to set up anything wider.
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The lowest bit that is set stands in the first byte that is zero; those above it may lie.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(at + rest)
}

/// Node names to kinds: an open-addressed table, because a `HashMap` with its own hash costs more
/// than the rest of reading a node.
static BY_NAME: LazyLock<[u16; 1024]> = LazyLock::new(|| {
    let mut table = [u16::MAX; 1024];
    for (place, spec) in KINDS.iter().enumerate().filter(|(_, spec)| spec.is_node) {
        let mut slot = slot(spec.name.as_bytes());
        while table.get(slot).is_some_and(|taken| *taken != u16::MAX) {
            slot = (slot + 1) & 1023;
        }
        if let Some(free) = table.get_mut(slot) {
            *free = place as u16;
        }
    }
    table
});

/// From the first and the last eight bytes and the length: `AlterRoleStmt` and `AlterRoleSetStmt` must not meet.
fn slot(name: &[u8]) -> usize {
    let last = name.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
    let mixed = first_word(name) ^ last.rotate_left(23) ^ name.len() as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}

fn spec_named(name: &[u8]) -> Option<&'static KindSpec> {
    let table = &*BY_NAME;
    let mut slot = slot(name);
    loop {
        let place = *table.get(slot)?;
        let spec = KINDS.get(usize::from(place))?;
        if same(spec.name.as_bytes(), name) {
            return Some(spec);
        }
        slot = (slot + 1) & 1023;
    }
}

/// `==`, without a call where it is short.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && first_word(one) == first_word(other)
        && one.last_chunk::<8>() == other.last_chunk()
        && (one.len() <= 16 || one == other)
}

/// The text behind JSON's escapes. A string may hold bytes that are no UTF-8 (`E'\xff'`); upstream
/// refuses those, so that showing U+FFFD instead loses nothing.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'u') => {
                // libpg_query escapes single bytes below 0x80 only.
                let digits: Vec<u8> = rest.by_ref().take(4).collect();
                let code =
                    std::str::from_utf8(&digits).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let mut buffer = [0; 4];
                let c = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Cow::Owned(
        String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Room, Tree};
    use super::*;

    #[test]
    fn every_node_is_found_by_its_name() {
        for spec in KINDS.iter() {
            assert_eq!(
                spec_named(spec.name.as_bytes()).map(|found| found.kind),
                spec.is_node.then_some(spec.kind),
                "{}",
                spec.name
            );
        }
        assert!(spec_named(b"Selectstmt").is_none());
        assert!(spec_named(b"").is_none());
    }

    #[test]
    fn a_field_stands_where_its_whole_name_does() {
        for field in KINDS.iter().flat_map(|spec| spec.fields) {
            let stands = |text: &[u8]| field.stands_at(first_word(text), text);
            let key = format!("\"{}\":", field.name);
            assert_eq!(key.len(), field.width());
            assert!(stands(key.as_bytes()) && stands(format!("{key}true,").as_bytes()), "{key}");
            for place in 0..key.len() {
                let mut other = format!("{key}true,").into_bytes();
                other[place] ^= 1;
                assert!(!stands(&other) && !stands(&key.as_bytes()[..place]), "{key} {place}");
            }
        }
    }

    #[test]
    fn words_of_eight_bytes_say_what_single_bytes_do() {
        let text: Vec<u8> = (0..200_u32).map(|n| b"abcd\"\\!#]["[(n * n % 91 % 10) as usize]).collect();
        for from in 0..text.len() {
            for to in from..text.len().min(from + 20) {
                let part = &text[from..to];
                let stop = part.iter().position(|byte| matches!(byte, b'"' | b'\\'));
                assert_eq!(quote_or_backslash(part), stop, "{part:?}");
                let mut padded = [0; 8];
                let first = part.len().min(8);
                padded[..first].copy_from_slice(&part[..first]);
                assert_eq!(first_word(part), u64::from_le_bytes(padded), "{part:?}");
                assert!(same(part, part.to_owned().as_slice()));
                for place in 0..part.len() {
                    let mut other = part.to_vec();
                    other[place] ^= 0x80;
                    assert!(!same(part, &other) && !same(part, &part[..place]), "{part:?} {place}");
                }
            }
        }
        for byte in 0..=255 {
            let stop = matches!(byte, b'"' | b'\\').then_some(3);
            assert_eq!(quote_or_backslash(&[b'a', 0, 0xff, byte, 0x21, 0x23, 0x5b, 0x5d, b'"'][..8]), stop);
        }
    }

    #[test]
    fn what_the_table_does_not_know_is_named() {
        let cases = [
            (r#"{"version":1,"stmts":[{"stmt":{"NewStmt":{}}}]}"#, "the unknown node NewStmt"),
            (
                r#"{"version":1,"stmts":[{"stmt":{"SelectStmt":{"new":1}}}]}"#,
                "the unknown field new of node SelectStmt",
            ),
            (
                r#"{"version":1,"stmts":[{"stmt":{"SelectStmt":{"op":"SETOP_NEW"}}}]}"#,
                "the unknown value SETOP_NEW of Op",
            ),
            (
                r#"{"version":1,"stmts":[{"stmt":{"SelectStmt":{"op":"(null)"}}}]}"#,
                "the unknown value (null) of Op",
            ),
        ];
        for (json, what) in cases {
            let error = Tree::read(json.as_bytes(), Room::default()).err().expect(json);
            assert_eq!(error.to_string(), what);
        }
    }

    /// The short way makes the items that the long way makes.
    #[test]
    fn strings_are_read_whole_or_piece_by_piece_alike() {
        let items_of = |column: &str| {
            let json = format!(
                r#"{{"stmts":[{{"stmt":{{"ColumnRef":{{"fields":[{column},{{"A_Star":{{}}}},{column}],"location":7}}}}}}]}}"#
            );
            let mut items = Vec::new();
            read(json.as_bytes(), &mut items).unwrap_or_else(|error| panic!("{json}: {error}"));
            let text = |item: &Item| json[item.start as usize..item.stop as usize].to_owned();
            items
                .iter()
                .map(|item| (item.kind, item.field, item.parent, item.end, text(item)))
                .collect::<Vec<_>>()
        };
        let whole = items_of(r#"{"String":{"sval":"a\"}}b"}}"#);
        // A comma is where libpg_query writes none, and there the long way begins.
        let by_pieces = items_of(r#"{"String":{,"sval":"a\"}}b"}}"#);
        assert_eq!(whole, by_pieces);
        assert_eq!(whole.iter().filter(|item| item.4 == r#"a\"}}b"#).count(), 2);
        assert_eq!(items_of(r#"{"String":{}}"#).len(), whole.len() - 2);
        assert!(whole_string(br#"{"String":{"sval":"a"},"#, 0).is_none());
        assert!(whole_string(br#"{"String":{"sval":"a}}"#, 0).is_none());
    }

    #[test]
    fn broken_text_is_an_error_and_never_a_panic() {
        let json = r#"{"version":1,"stmts":[{"stmt":{"SelectStmt":{"targetList":[{"String":{"sval":"a\"b"}}],"op":"SETOP_NONE"}},"stmt_len":9}]}"#;
        assert!(Tree::read(json.as_bytes(), Room::default()).is_ok());
        for cut in 0..json.len() {
            assert!(Tree::read(&json.as_bytes()[..cut], Room::default()).is_err(), "{cut}");
        }
        for place in 0..json.len() {
            let mut bytes = json.as_bytes().to_vec();
            bytes[place] = b'!';
            let _ = Tree::read(&bytes, Room::default());
        }
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(br#"a\"b\\c\n\u0001<\u003c"#), "a\"b\\c\n\u{1}<<");
        assert_eq!(unescape(b"\xff"), "\u{fffd}");
    }
}
