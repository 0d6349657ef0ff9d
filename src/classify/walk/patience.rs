//! How much of a text is looked at again, behind the one visit of every node, to judge it.

use std::cell::Cell;

use crate::classify::tree::Node;

/// How many nodes may still be looked at. One for all questions about a text: nested subqueries would cost
/// their depth times their size, and WITH queries that name each other several times more than that. Whoever
/// is out of it knows nothing, and what nothing is known of is held.
#[derive(Debug)]
pub(super) struct Patience(Cell<u32>);

impl Patience {
    /// For all conditions of a text of `nodes`. Most texts need fewer than there are in them.
    pub(super) fn for_tree(nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        Self::of(nodes.saturating_mul(8).saturating_add(200_000))
    }

    /// For so many nodes.
    pub(super) fn of(nodes: u32) -> Self {
        Self(Cell::new(nodes))
    }

    /// Whether one more node may be looked at.
    pub(super) fn can_step(&self) -> bool {
        self.can_spend(1)
    }

    /// Whether a node and all below it may be looked at.
    pub(super) fn can_afford(&self, node: Node<'_>) -> bool {
        self.can_spend(node.end() - node.index())
    }

    fn can_spend(&self, nodes: u32) -> bool {
        let left = self.0.get().checked_sub(nodes);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Whether it is at its end, and what was found since then means nothing.
    pub(super) fn is_over(&self) -> bool {
        self.0.get() == 0
    }
}
