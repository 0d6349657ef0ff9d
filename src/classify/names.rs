//! `EXECUTE name`: what was prepared under the name is known to the session, not to the text.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::walk::MOST_REASONS;
use super::{Classification, Effect, NameUse, ObjectKind, Reason, Verb};
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
    let mut steps: Vec<Step> = c.steps.to_vec();
    let mut meanings: HashMap<&str, Option<Meaning>> = HashMap::new();
    // `CREATE TEMP TABLE t AS EXECUTE x`
    let mut creates_some = creates_relations(c);
    for used in &c.names {
        let meaning = meanings.entry(&used.name).or_insert_with(|| {
            let meaning = Meaning::of(lookup(&used.name)?);
            resolved.merge(used, &meaning.all);
            Some(meaning)
        });
        let Some(meaning) = meaning else { continue };
        resolved.has_class_of(used, &meaning.all);
        if let Some(step) = steps.get_mut(used.part as usize) {
            creates_some |= meaning.creates_relations;
            does_what(used, meaning, creates_some, step);
        }
    }
    resolved.steps = steps.into();
    resolved.forget_unknown(&c.names, &|name| meanings.get(name).is_some_and(Option::is_some));
    resolved.settle();
    Arc::new(resolved)
}

/// What a name stands for.
struct Meaning {
    all: Arc<Classification>,
    /// The names that its text prepares.
    prepares: HashSet<Arc<str>>,
    /// `CREATE TABLE t AS EXECUTE x`, and its kind.
    creates_relations: bool,
}

impl Meaning {
    fn of(all: Arc<Classification>) -> Self {
        let prepares = all.session_effects().filter_map(|effect| {
            let SessionEffect::Prepare(name) = effect else { return None };
            Some(Arc::clone(name))
        });
        Self { prepares: prepares.collect(), creates_relations: creates_relations(&all), all }
    }
}

fn creates_relations(classification: &Classification) -> bool {
    let creates = |effect: &Effect| effect.verb == Verb::Create && effect.kind == ObjectKind::Relation;
    classification.effects.iter().any(creates)
}

/// An `EXECUTE` of an unknown name may change the catalogue; of one that is known to be harmless it does not,
/// and reading the catalogue anew after each would cost more than running it. What it does to the session is
/// what its meaning does, which may be any statement that the protocol prepared: `SET`, `DEALLOCATE`,
/// `CREATE TEMP TABLE`.
fn does_what(used: &NameUse, meaning: &Meaning, creates_some: bool, step: &mut Step) {
    let harmless = !used.otherwise.max(meaning.all.class).is_privileged();
    // What the same text prepared was judged with it.
    if harmless && !used.known {
        step.effects.retain(|effect| match *effect == SessionEffect::TemporaryRelation {
            true => creates_some,
            false => !matches!(effect, SessionEffect::CatalogueChange | SessionEffect::PathUnknown),
        });
    }
    // `PREPARE x AS ..` is what SQL prepared as x, and is not prepared again; it may call `set_config`.
    if meaning.prepares.contains(&used.name) {
        let privileged = meaning.all.class.is_privileged();
        step.effects.extend(privileged.then_some(SessionEffect::PathUnknown));
        let changes = |effect: &&SessionEffect| **effect == SessionEffect::MayChangeSettings;
        step.effects.extend(meaning.all.session_effects().find(changes).cloned());
    } else {
        step.effects.extend(meaning.all.session_effects().cloned());
    }
}

impl Classification {
    /// Takes back that names are unknown which are not.
    fn forget_unknown(&mut self, names: &[NameUse], is_known: &dyn Fn(&str) -> bool) {
        let texts: HashSet<String> = names
            .iter()
            .filter(|used| !used.known && is_known(&used.name))
            .map(|used| unknown(&used.name))
            .collect();
        self.reasons.retain(|reason| !texts.contains(&*reason.text));
    }

    /// A part that executes a name has the class of what that means, and of whatever else it does.
    fn has_class_of(&mut self, used: &NameUse, meaning: &Self) {
        if let Some(part) = self.parts.get_mut(used.part as usize) {
            if !used.known {
                part.class = used.otherwise;
            }
            part.class = part.class.max(meaning.class);
        }
    }

    /// What a name brings that counts once, however often it is executed.
    fn merge(&mut self, used: &NameUse, meaning: &Self) {
        if let Some(part) = self.parts.get(used.part as usize) {
            let span = Some(part.span.clone());
            self.reasons.extend(meaning.reasons.iter().map(|reason| Reason {
                text: format!("executes {}, which {}", used.name, reason.text).into(),
                span: span.clone(),
                ..reason.clone()
            }));
        }
        self.effects.extend(meaning.effects.iter().cloned());
        self.doubts.extend(meaning.doubts.iter().cloned());
        self.notes.other_encoding |= meaning.notes.other_encoding;
    }

    fn settle(&mut self) {
        // Some reasons are about the text as a whole, and no part's.
        let parts = self.parts.iter().map(|part| part.class);
        let reasons = self.reasons.iter().map(|reason| reason.class);
        self.class = parts.chain(reasons).max().unwrap_or(self.class);
        self.effects.sort_unstable();
        self.effects.dedup();
        self.doubts.sort_unstable();
        self.doubts.dedup();
        self.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.class));
        self.reasons.dedup();
        // No more than a person reads, and one of each class, because rules are about classes.
        let mut kept = 0;
        let mut classes = HashSet::new();
        self.reasons.retain(|reason| {
            kept += 1;
            classes.insert(reason.class) || kept <= MOST_REASONS
        });
    }
}
