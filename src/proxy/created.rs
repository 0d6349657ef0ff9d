//! Names that an open transaction has created.
//!
//! A function or view that was created (and approved) inside a transaction is visible there at once and
//! to nobody else, so the catalogue that we read over a connection of our own does not have it. Until
//! the transaction ends, whatever uses something of such a name is held as code.

use std::sync::Arc;

use crate::classify::{Classification, Doubt, Effect, ObjectKind, Reason, StatementClass, Verb};

/// Statements that make a relation which stands for others.
const MAKE_VIEWS: [&str; 3] = ["ViewStmt", "RuleStmt", "CreateSchemaStmt"];

/// The names that a statement creates, where later statements can run code, or reach other tables, through
/// them. Temporary views are not among them: upstream can be asked about those.
pub(super) fn names(classification: &Classification) -> impl Iterator<Item = Arc<str>> {
    let makes_views = classification.parts.iter().any(|part| MAKE_VIEWS.contains(&&*part.kind));
    let stands_for_more = move |effect: &&Effect| match effect.kind {
        ObjectKind::Function | ObjectKind::Operator | ObjectKind::Type | ObjectKind::Other => true,
        ObjectKind::Relation => makes_views && effect.schema.as_deref() != Some("pg_temp"),
        ObjectKind::Role | ObjectKind::Setting | ObjectKind::Schema => false,
    };
    let creates = |effect: &&Effect| matches!(effect.verb, Verb::Create | Verb::Alter);
    classification
        .effects
        .iter()
        .filter(creates)
        .filter(stands_for_more)
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
