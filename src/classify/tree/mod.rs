//! libpg_query's parse tree as a flat list that is walked without recursion.
//!
//! [`Tree::read`] turns the JSON text into items in the order of the text, so that a node's
//! descendants are exactly the items between it and its `end`: "visit everything below" is a loop
//! over a range, forwards for parents first, backwards for children first. No depth of nesting can
//! overflow a stack here.
//!
//! The reader knows every node, field and enum value by the generated table in `grammar.rs`. Anything
//! else is an [`Unknown`], and the text that holds it is held: a node that nobody thought about is
//! never harmless by default.

pub(super) mod grammar;
mod read;
mod spec;

#[cfg(test)]
mod generate;

use std::borrow::Cow;
use std::cell::Cell;

pub(super) use grammar::{Field, Kind};
pub(super) use read::Unknown;

/// One node, list or value. 24 bytes: a statement of 1 MiB makes about three million of them.
#[derive(Clone, Copy, Debug)]
struct Item {
    kind: Kind,
    field: Field,
    parent: u32,
    end: u32,
    /// Where a value's text stands in the JSON, without its quotes.
    start: u32,
    stop: u32,
}

/// A parse tree.
pub(super) struct Tree<'j> {
    json: &'j [u8],
    items: Vec<Item>,
    /// Somebody has looked at a number that is no position.
    number_seen: Cell<bool>,
}

impl<'j> Tree<'j> {
    /// Reads libpg_query's JSON.
    pub(super) fn read(json: &'j [u8], room: Room) -> Result<Self, Unknown> {
        let mut items = room.0;
        items.clear();
        read::read(json, &mut items)?;
        Ok(Self { json, items, number_seen: Cell::new(false) })
    }

    /// Gives the room back for reuse.
    pub(super) fn into_room(self) -> Room {
        Room(self.items)
    }

    /// Whether any number but positions in the text was looked at. Where none was, what was found holds
    /// for every statement that differs in such values only.
    pub(super) fn number_was_seen(&self) -> bool {
        self.number_seen.get()
    }

    /// How many nodes, lists and values it has.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The raw statements, in order.
    pub(super) fn statements(&self) -> impl Iterator<Item = Node<'_>> {
        self.node(0).into_iter().flat_map(|root| root.list(Field::Stmts))
    }

    /// The item at `index`.
    pub(super) fn node(&self, index: u32) -> Option<Node<'_>> {
        ((index as usize) < self.items.len()).then_some(Node { tree: self, index })
    }

    fn item(&self, index: u32) -> &Item {
        #[expect(
            clippy::indexing_slicing,
            reason = "only `Node`s hold indexes, and each was made from one in range"
        )]
        &self.items[index as usize]
    }
}

/// Room for a tree's items, kept between statements.
#[derive(Default)]
pub(super) struct Room(Vec<Item>);

impl Room {
    /// Whether it is small enough to keep.
    pub(super) fn is_small(&self) -> bool {
        self.0.capacity() <= 64 * 1024
    }
}

/// One item of a tree.
#[derive(Clone, Copy)]
pub(super) struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl<'t> Node<'t> {
    /// What it is.
    pub(super) fn kind(self) -> Kind {
        self.tree.item(self.index).kind
    }

    /// Which field of its parent it is; `None` for an item of a list.
    pub(super) fn field(self) -> Field {
        self.tree.item(self.index).field
    }

    /// Its place in the tree.
    pub(super) fn index(self) -> u32 {
        self.index
    }

    /// The place behind its last descendant.
    pub(super) fn end(self) -> u32 {
        self.tree.item(self.index).end
    }

    /// The node or list it stands in.
    pub(super) fn parent(self) -> Option<Self> {
        (self.index > 0).then(|| Self { index: self.tree.item(self.index).parent, ..self })
    }

    /// The node it stands in, and the field of it: lists are looked through.
    pub(super) fn place(self) -> (Kind, Field) {
        match self.parent() {
            Some(parent) if parent.kind() == Kind::Items => {
                (parent.parent().map_or(Kind::Empty, Self::kind), parent.field())
            }
            Some(parent) => (parent.kind(), self.field()),
            None => (Kind::Empty, Field::None),
        }
    }

    /// The node that [`Self::place`] speaks of.
    pub(super) fn holder(self) -> Option<Self> {
        let parent = self.parent()?;
        if parent.kind() == Kind::Items { parent.parent() } else { Some(parent) }
    }

    /// Its direct parts.
    pub(super) fn children(self) -> Children<'t> {
        Children { tree: self.tree, next: self.index + 1, end: self.end() }
    }

    /// Itself and everything below it, parents first.
    pub(super) fn within(self) -> impl DoubleEndedIterator<Item = Self> + use<'t> {
        (self.index..self.end()).map(move |index| Self { index, ..self })
    }

    /// One of its fields.
    pub(super) fn get(self, field: Field) -> Option<Self> {
        // Zero is left out: not to find a number tells it.
        if matches!(field, Field::Ival | Field::Fval) {
            self.tree.number_seen.set(true);
        }
        self.children().find(|child| child.field() == field)
    }

    /// The items of one of its lists; none when the list is absent.
    pub(super) fn list(self, field: Field) -> Children<'t> {
        self.get(field).map_or(Children { tree: self.tree, next: 0, end: 0 }, Self::children)
    }

    /// Whether it has a field at all.
    pub(super) fn has(self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// A flag of it.
    pub(super) fn flag(self, field: Field) -> bool {
        self.get(field).is_some_and(|value| value.raw() == b"true")
    }

    /// An enum value of it, as the grammar spells it.
    pub(super) fn word(self, field: Field) -> &'t str {
        self.get(field).map_or("", |value| std::str::from_utf8(value.raw()).unwrap_or(""))
    }

    /// A number of it; libpg_query leaves out zero.
    pub(super) fn number(self, field: Field) -> i64 {
        if !is_position(field) {
            self.tree.number_seen.set(true);
        }
        self.get(field).map_or(0, Self::as_number)
    }

    /// A string of it.
    pub(super) fn text(self, field: Field) -> Option<Cow<'t, str>> {
        self.get(field).map(Self::as_text)
    }

    /// This value as a number.
    pub(super) fn as_number(self) -> i64 {
        std::str::from_utf8(self.raw()).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// This value as a string, unescaped.
    pub(super) fn as_text(self) -> Cow<'t, str> {
        read::unescape(self.raw())
    }

    /// This value as it stands in the JSON.
    pub(super) fn raw(self) -> &'t [u8] {
        let item = self.tree.item(self.index);
        let raw = self.tree.json.get(item.start as usize..item.stop as usize).unwrap_or(b"");
        // Whatever begins like a number, in whichever field: a constant, the count of a FETCH, a typmod.
        if !is_position(item.field) && raw.first().is_some_and(|first| b"-.0123456789".contains(first)) {
            self.tree.number_seen.set(true);
        }
        raw
    }

    /// The text of a `String` node.
    pub(super) fn string(self) -> Option<Cow<'t, str>> {
        if self.kind() == Kind::String { self.text(Field::Sval).or(Some(Cow::Borrowed(""))) } else { None }
    }

    /// A list of `String` nodes, as qualified names are; anything else in it is left out.
    pub(super) fn names(self, field: Field) -> Vec<Cow<'t, str>> {
        self.list(field).filter_map(Self::string).collect()
    }

    /// Where it stands in the statement's text, in bytes. libpg_query leaves out zero, and says -1
    /// where it does not know.
    pub(super) fn location(self) -> Option<u32> {
        u32::try_from(self.number(Field::Location)).ok()
    }

    /// A literal string: `'x'`, or the same with a cast to a plain text type around it.
    pub(super) fn literal(self) -> Option<Cow<'t, str>> {
        if self.kind() == Kind::TypeCast {
            let to = self.get(Field::TypeName)?;
            let names = to.names(Field::Names);
            // `varchar(3)` cuts, and so would make another string of it.
            let plain = matches!(names.last().map(|name| &**name), Some("text" | "varchar"))
                && !to.has(Field::Typmods)
                && !to.has(Field::ArrayBounds);
            return self.get(Field::Arg).filter(|arg| plain && arg.kind() == Kind::AConst)?.literal();
        }
        (self.kind() == Kind::AConst).then(|| self.get(Field::Sval)).flatten().map(|value| {
            // `sval` of a constant is a String message of its own.
            value.text(Field::Sval).unwrap_or(Cow::Borrowed(""))
        })
    }
}

/// Numbers that say where something stands in the text.
fn is_position(field: Field) -> bool {
    matches!(
        field,
        Field::Location | Field::ArgLocation | Field::ConninfoLocation | Field::StmtLocation | Field::StmtLen
    )
}

/// The direct parts of a node.
#[derive(Clone)]
pub(super) struct Children<'t> {
    tree: &'t Tree<'t>,
    next: u32,
    end: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        if self.next >= self.end {
            return None;
        }
        let node = Node { tree: self.tree, index: self.next };
        self.next = node.end();
        Some(node)
    }
}

impl Kind {
    /// The parser's name for it.
    pub(super) fn name(self) -> &'static str {
        grammar::KINDS.get(self as usize).map_or("", |spec| spec.name)
    }
}
