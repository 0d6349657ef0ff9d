//! Reads libpg_query's JSON into items, by the generated table and with a stack of its own.
//!
//! This is no JSON parser for the world: it accepts what libpg_query writes, and calls everything
//! else unknown.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::Item;
use super::grammar::{Field, KINDS, Kind};
use super::spec::{KindSpec, Shape};

/// Something in the tree that the table does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(in crate::classify) struct Unknown {
    what: String,
}

fn unknown(what: impl Into<String>) -> Unknown {
    Unknown { what: what.into() }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(40)).unwrap_or(bytes)).into_owned()
}

enum Frame {
    /// In a node: the next field's place in the table, because fields come in the table's order.
    Node { item: u32, spec: &'static KindSpec, next: usize, wrapped: bool },
    /// In a list of such values.
    List { item: u32, shape: Shape },
}

struct Reader<'a> {
    json: &'a [u8],
    at: usize,
    items: &'a mut Vec<Item>,
    stack: Vec<Frame>,
}

/// Reads the whole text; the root is a `ParseResult`.
pub(super) fn read(json: &[u8], items: &mut Vec<Item>) -> Result<(), Unknown> {
    let mut reader = Reader { json, at: 0, items, stack: Vec::with_capacity(32) };
    reader.value(Shape::Message(Kind::ParseResult), Field::None, 0)?;
    while !reader.stack.is_empty() {
        reader.step()?;
    }
    if reader.at == json.len() { Ok(()) } else { Err(unknown("text behind the parse tree")) }
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.json.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unknown> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(unknown(format!("a parse tree broken at byte {}", self.at)))
        }
    }

    /// One field or one item of what is open, or its end.
    fn step(&mut self) -> Result<(), Unknown> {
        let broken = || unknown("a parse tree that ends early");
        let count = self.items.len() as u32;
        match self.stack.last_mut().ok_or_else(broken)? {
            Frame::Node { item, wrapped, .. } if self.json.get(self.at) == Some(&b'}') => {
                let (item, wrapped) = (*item, *wrapped);
                self.at += 1;
                self.close(item, count);
                if wrapped {
                    self.expect(b'}')?;
                }
            }
            Frame::List { item, .. } if self.json.get(self.at) == Some(&b']') => {
                let item = *item;
                self.at += 1;
                self.close(item, count);
            }
            Frame::Node { .. } => self.field()?,
            Frame::List { item, shape } => {
                let (item, shape) = (*item, *shape);
                self.take(b',');
                self.value(shape, Field::None, item)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, item: u32, end: u32) {
        if let Some(item) = self.items.get_mut(item as usize) {
            item.end = end;
        }
        self.stack.pop();
    }

    fn field(&mut self) -> Result<(), Unknown> {
        self.take(b',');
        let Some(Frame::Node { item, spec, next, .. }) = self.stack.last_mut() else {
            return Err(unknown("a field outside a node"));
        };
        let (item, spec) = (*item, *spec);
        // Usually the first comparison or two: libpg_query writes fields in the table's order and
        // leaves out those with nothing in them. So the name need not even be read to its end.
        let rest = self.json.get(self.at..).unwrap_or(&[]);
        let stands_here = |name: &str| {
            rest.get(1..=name.len()) == Some(name.as_bytes()) && rest.get(name.len() + 1) == Some(&b'"')
        };
        let ahead = spec.fields.get(*next..).unwrap_or(&[]);
        let found = ahead
            .iter()
            .position(|field| stands_here(field.name))
            .map(|skipped| *next + skipped)
            .or_else(|| spec.fields.iter().position(|field| stands_here(field.name)));
        let field = found.and_then(|place| Some((place, spec.fields.get(place)?)));
        let Some((place, field)) = field else {
            let name = self.string()?;
            let name = self.json.get(name.0 as usize..name.1 as usize).unwrap_or(b"");
            return Err(unknown(format!("the unknown field {} of node {}", shown(name), spec.name)));
        };
        *next = place + 1;
        self.expect(b'"')?;
        self.at += field.name.len() + 1;
        self.expect(b':')?;
        self.value(field.shape, field.field, item)
    }

    fn push(&mut self, kind: Kind, field: Field, parent: u32, text: (u32, u32)) -> Result<u32, Unknown> {
        let index = u32::try_from(self.items.len()).map_err(|_| unknown("a parse tree that is too large"))?;
        self.items.push(Item { kind, field, parent, end: index + 1, start: text.0, stop: text.1 });
        Ok(index)
    }

    fn open(&mut self, kind: Kind, field: Field, parent: u32, wrapped: bool) -> Result<(), Unknown> {
        self.expect(b'{')?;
        let spec = KINDS.get(kind as usize).ok_or_else(|| unknown("a node without a description"))?;
        debug_assert_eq!(spec.kind, kind, "the table is in order");
        let item = self.push(kind, field, parent, (0, 0))?;
        self.stack.push(Frame::Node { item, spec, next: 0, wrapped });
        Ok(())
    }

    fn value(&mut self, shape: Shape, field: Field, parent: u32) -> Result<(), Unknown> {
        let list = |shape| (shape, true);
        let (shape, is_list) = match shape {
            Shape::Nodes => list(Shape::Node),
            Shape::Messages(kind) => list(Shape::Message(kind)),
            Shape::Numbers => list(Shape::Number),
            Shape::Node | Shape::Message(_) | Shape::Text | Shape::Number | Shape::Flag | Shape::Enum(_) => {
                (shape, false)
            }
        };
        if is_list {
            self.expect(b'[')?;
            let item = self.push(Kind::Items, field, parent, (0, 0))?;
            self.stack.push(Frame::List { item, shape });
            return Ok(());
        }
        match shape {
            Shape::Node => self.node(field, parent),
            Shape::Message(kind) => self.open(kind, field, parent, false),
            Shape::Text => {
                let text = if self.null() { (0, 0) } else { self.string()? };
                self.push(Kind::Scalar, field, parent, text).map(drop)
            }
            Shape::Enum(values) => {
                let text = self.string()?;
                let value = self.json.get(text.0 as usize..text.1 as usize).unwrap_or(b"");
                if !values.iter().any(|known| known.as_bytes() == value) {
                    return Err(unknown(format!("the unknown value {} of {field:?}", shown(value))));
                }
                self.push(Kind::Scalar, field, parent, text).map(drop)
            }
            Shape::Number | Shape::Flag => {
                let start = self.at as u32;
                let rest = self.json.get(self.at..).unwrap_or(&[]);
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z');
                self.at += rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let text = (start, self.at as u32);
                if text.0 == text.1 {
                    return Err(unknown(format!("an unknown value of {field:?}")));
                }
                self.push(Kind::Scalar, field, parent, text).map(drop)
            }
            Shape::Nodes | Shape::Messages(_) | Shape::Numbers => Err(unknown("a list in a list")),
        }
    }

    /// A node in its wrapper, or the nothing that stands for NULL (and for a node that libpg_query
    /// itself could not write: the walker must not take it for harmless).
    fn node(&mut self, field: Field, parent: u32) -> Result<(), Unknown> {
        if self.null() {
            return self.push(Kind::Empty, field, parent, (0, 0)).map(drop);
        }
        self.expect(b'{')?;
        if self.take(b'}') {
            return self.push(Kind::Empty, field, parent, (0, 0)).map(drop);
        }
        let name = self.string()?;
        let name = self.json.get(name.0 as usize..name.1 as usize).unwrap_or(b"");
        let kind = kind_named(name).ok_or_else(|| unknown(format!("the unknown node {}", shown(name))))?;
        self.expect(b':')?;
        self.open(kind, field, parent, true)
    }

    fn null(&mut self) -> bool {
        let null = self.json.get(self.at..).is_some_and(|rest| rest.starts_with(b"null"));
        self.at += if null { 4 } else { 0 };
        null
    }

    /// The place of a string's text, without its quotes and still escaped.
    fn string(&mut self) -> Result<(u32, u32), Unknown> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.json.get(self.at..).unwrap_or(&[]);
            let Some(stop) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return Err(unknown("a parse tree that ends in a string"));
            };
            self.at += stop;
            if self.peek() == b'"' {
                break;
            }
            self.at += 2;
        }
        self.at += 1;
        Ok((start as u32, self.at as u32 - 1))
    }
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

fn slot(name: &[u8]) -> usize {
    let byte = |place: usize| name.get(place).copied().map_or(0, usize::from);
    let length = name.len();
    (length * 193
        + byte(0) * 7
        + byte(length / 2) * 31
        + byte(length / 3) * 71
        + byte(length.wrapping_sub(1)) * 131)
        & 1023
}

fn kind_named(name: &[u8]) -> Option<Kind> {
    let table = &*BY_NAME;
    let mut slot = slot(name);
    loop {
        let place = *table.get(slot)?;
        let spec = KINDS.get(usize::from(place))?;
        if spec.name.as_bytes() == name {
            return Some(spec.kind);
        }
        slot = (slot + 1) & 1023;
    }
}

/// The text behind JSON's escapes. A string may hold bytes that are no UTF-8 (`E'\xff'`); upstream
/// refuses those, so that showing U+FFFD instead loses nothing.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
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
            assert_eq!(kind_named(spec.name.as_bytes()), spec.is_node.then_some(spec.kind), "{}", spec.name);
        }
        assert_eq!(kind_named(b"Selectstmt"), None);
        assert_eq!(kind_named(b""), None);
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
