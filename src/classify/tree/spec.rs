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
}

/// One kind of node.
#[derive(Debug)]
pub(super) struct KindSpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether it can stand where any node can.
    pub(super) is_node: bool,
    pub(super) fields: &'static [FieldSpec],
}
