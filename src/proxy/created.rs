//! Names that an open transaction has created.
//!
//! A function that was created (and approved) inside a transaction is visible there at once and to
//! nobody else, so the catalogue that we read over a connection of our own does not have it. Until
//! the transaction ends, whatever calls something of such a name is held as code.

use std::sync::Arc;

use crate::classify::{Classification, Doubt, Effect, ObjectKind, Reason, StatementClass, Verb};

/// The names that a statement's effects create, where later statements can run code through them.
pub(super) fn names(effects: &[Effect]) -> impl Iterator<Item = Arc<str>> {
    let runs = |kind| {
        matches!(kind, ObjectKind::Function | ObjectKind::Operator | ObjectKind::Type | ObjectKind::Other)
    };
    effects
        .iter()
        .filter(move |effect| matches!(effect.verb, Verb::Create | Verb::Alter) && runs(effect.kind))
        .map(|effect| Arc::clone(&effect.name))
}

/// `classification`, held as code if it uses one of `created`.
pub(super) fn apply(classification: &Arc<Classification>, created: &[Arc<str>]) -> Arc<Classification> {
    let effects = classification.effects.iter().map(|effect| &effect.name);
    // `v.f` calls f where v has no such column, and does so by no effect while nobody knows f.
    let doubts = classification.doubts.iter().map(Doubt::name);
    let used = effects.chain(doubts).find(|name| created.contains(name));
    let Some(used) = used.filter(|_| classification.class < StatementClass::Code) else {
        return Arc::clone(classification);
    };
    let text = format!(
        "uses {}, which this transaction has created or replaced: what it runs is not known until the transaction ends",
        used
    );
    let mut held = Classification::clone(classification);
    held.class = StatementClass::Code;
    held.reasons.insert(0, Reason { class: StatementClass::Code, text: text.into(), span: None });
    Arc::new(held)
}
