//! `EXECUTE name`: what was prepared under the name is known to the session, not to the text.

use std::sync::Arc;

use super::{Classification, Effect, NameUse, ObjectKind, Reason, StatementClass, Verb};
use crate::statement::{SessionEffect, Step};

/// The reason for an `EXECUTE` that nothing is known of.
pub(super) fn unknown(name: &str) -> String {
    format!("executes {name}, which is not known to be prepared")
}

/// Gives `c` the meaning of the names that it executes. `lookup` tells what the session knows under a
/// name; nothing means that it may be anything.
///
/// A name that the same text prepares has that meaning, and the session's as well: where both exist
/// the more severe counts, because it is upstream that decides which of them runs.
#[must_use]
pub fn resolve_names(
    c: &Arc<Classification>,
    lookup: &dyn Fn(&str) -> Option<Arc<Classification>>,
) -> Arc<Classification> {
    if c.names.is_empty() {
        return Arc::clone(c);
    }
    let mut resolved = Classification::clone(c);
    for used in &c.names {
        if let Some(meaning) = lookup(&used.name) {
            resolved.forget_unknown(used);
            resolved.merge(used, &meaning);
            resolved.does_what(used, &meaning);
        }
    }
    resolved.settle();
    Arc::new(resolved)
}

impl Classification {
    /// Takes back that the name is unknown.
    fn forget_unknown(&mut self, used: &NameUse) {
        if used.known {
            return;
        }
        let text = unknown(&used.name);
        // Other reasons of the same statement stay: its arguments may call functions.
        self.reasons.retain(|reason| *reason.text != *text);
        let Some(span) = self.parts.get(used.part as usize).map(|part| part.span.clone()) else { return };
        let inside = |reason: &&Reason| {
            // A reason that does not say where it comes from may come from here.
            reason.span.as_ref().is_none_or(|at| span.start <= at.start && at.end <= span.end)
        };
        let class = self.reasons.iter().filter(inside).map(|reason| reason.class).max();
        if let Some(part) = self.parts.get_mut(used.part as usize) {
            part.class = class.unwrap_or(StatementClass::Read);
        }
    }

    fn merge(&mut self, used: &NameUse, meaning: &Self) {
        if let Some(part) = self.parts.get_mut(used.part as usize) {
            part.class = part.class.max(meaning.class);
            let span = Some(part.span.clone());
            self.reasons.extend(meaning.reasons.iter().map(|reason| Reason {
                text: format!("executes {}, which {}", used.name, reason.text).into(),
                span: span.clone(),
                ..reason.clone()
            }));
        }
        self.effects.extend(meaning.effects.iter().cloned());
        self.explainable &= meaning.explainable;
    }

    /// An `EXECUTE` of an unknown name may change the catalogue; of one that is known to be harmless it does
    /// not, and reading the catalogue anew after each would cost more than running it. What it does to the
    /// session is what `meaning` does, which may be any statement that the protocol prepared: `SET`,
    /// `DEALLOCATE`, `CREATE TEMP TABLE`.
    fn does_what(&mut self, used: &NameUse, meaning: &Self) {
        let harmless =
            self.parts.get(used.part as usize).is_some_and(|part| part.class < StatementClass::Ddl);
        // `CREATE TEMP TABLE t AS EXECUTE x`
        let creates = |effect: &Effect| effect.verb == Verb::Create && effect.kind == ObjectKind::Relation;
        let creates_some = self.effects.iter().any(creates);
        let mut steps: Vec<Step> = self.steps.to_vec();
        if let Some(step) = steps.get_mut(used.part as usize) {
            if harmless {
                step.effects.retain(|effect| match (effect, used.known) {
                    // What the same text prepared was judged with it.
                    (_, true) => true,
                    (SessionEffect::TemporaryRelation, false) => creates_some,
                    (effect, false) => {
                        !matches!(effect, SessionEffect::CatalogueChange | SessionEffect::PathUnknown)
                    }
                });
            }
            let does = || meaning.session_effects();
            // `PREPARE x AS ..` is what SQL prepared as x, and is not prepared again; it may call `set_config`.
            if does().any(|effect| matches!(effect, SessionEffect::Prepare(name) if *name == used.name)) {
                step.effects.extend(meaning.class.is_privileged().then_some(SessionEffect::PathUnknown));
            } else {
                step.effects.extend(does().cloned());
            }
        }
        self.steps = steps.into();
    }

    fn settle(&mut self) {
        // Some reasons are about the text as a whole, and no part's.
        let parts = self.parts.iter().map(|part| part.class);
        let reasons = self.reasons.iter().map(|reason| reason.class);
        self.class = parts.chain(reasons).max().unwrap_or(self.class);
        self.effects.sort_unstable();
        self.effects.dedup();
        self.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.class));
        self.reasons.dedup();
    }
}
