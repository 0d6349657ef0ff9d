//! What the extended protocol has executed since the last `Sync`, as far as it matters to a `Query`.
//!
//! Since PostgreSQL 18 a `Query` or `FunctionCall` behind an `Execute` without a `Sync` in between leaves
//! the transaction open, although the server reports that none is (status `I`): its locks stay, and the
//! next message fails. Inside a transaction block nothing is wrong. The session never sends such a message.

use super::Session;
use super::unit::Kind;
use crate::refusal::Refusal;
use crate::statement::{SessionEffect, Step};

/// The first major version with that fault.
const SINCE: u32 = 18;

/// The state of upstream's transaction at the end of what has been forwarded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pipeline {
    /// A transaction block is open for certain.
    block: bool,
    /// Something has been executed outside of a block since the last `Sync`.
    executed: bool,
}

impl Pipeline {
    /// Upstream has answered everything: whether a block is open is known.
    pub(super) fn at_rest(&mut self, in_block: bool) {
        *self = Self { block: in_block, executed: false };
    }

    /// A message was forwarded that ends in `ReadyForQuery`. Whether a block is open behind it only its
    /// answer tells.
    pub(super) fn synced(&mut self) {
        *self = Self::default();
    }

    /// Upstream reads the `Sync` that was forwarded behind an `Execute` as part of its copy.
    pub(super) fn sync_was_swallowed(&mut self) {
        self.executed = true;
    }

    /// An `Execute` of a statement with these steps was forwarded; `None` when they are not known. Whatever
    /// is behind it is reached only if it succeeds.
    pub(super) fn executed(&mut self, steps: Option<&[Step]>) {
        let effects = || steps.into_iter().flatten().flat_map(|step| &step.effects);
        let is_begin = |effect: &SessionEffect| matches!(effect, SessionEffect::Begin);
        let is_end = |effect: &SessionEffect| {
            let (SessionEffect::Commit { chain } | SessionEffect::Rollback { chain }) = effect else {
                return false;
            };
            !chain
        };
        if effects().any(is_begin) {
            self.block = true;
        } else if effects().any(is_end) {
            *self = Self::default();
        } else if !self.block {
            self.executed = true;
        }
    }

    fn would_stay_open(self) -> bool {
        self.executed && !self.block
    }
}

impl Session {
    /// Why item `at` of the unit under decision, a `Query` or `FunctionCall`, must not be forwarded behind
    /// what is executed before it.
    pub(super) fn refusal_behind_execute(&self, at: usize) -> Option<Refusal> {
        if self.settings.server_version() < SINCE {
            return None;
        }
        let mut pipeline = self.pipeline;
        for (place, item) in self.unit.items.iter().enumerate().take(at) {
            if let Kind::Execute { portal } = &item.kind {
                let run = item.run.or_else(|| self.run_of_portal(portal, place));
                let steps = run.and_then(|run| self.runs.get(run)).map(|run| &*run.steps);
                pipeline.executed(steps);
            }
        }
        pipeline.would_stay_open().then_some(Refusal::Unsupported {
            feature: "a Query or FunctionCall behind an Execute without a Sync in between",
            hint: "Send Sync after Execute. This server would leave the transaction and its locks open.",
        })
    }
}
