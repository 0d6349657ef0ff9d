//! How many bytes of an agent's texts are kept: prepared statements, portals, what is under decision.
//!
//! A text is counted once, from the message that brought it until the last thing that refers to it is
//! gone, wherever that is. The same text under many names is one text.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::Limits;
use crate::refusal::Refusal;
use crate::statement::SessionEffect;

/// Smaller texts are not counted: their number is limited, and what surrounds them is as large.
const SMALLEST: usize = 512;
/// Smaller texts are not compared with those that are there.
const SMALLEST_SHARED: usize = 4096;
/// So many texts are remembered before those that are gone are looked for.
const TIDY_AT: usize = 1024;

/// Bytes that are kept for somebody.
#[derive(Clone, Debug, Default)]
pub struct KeptBytes(Arc<AtomicUsize>);

impl KeptBytes {
    /// How many there are.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One text, which is counted while it is there.
#[derive(Debug)]
struct Counted {
    bytes: Box<[u8]>,
    counts: [KeptBytes; 2],
}

impl Drop for Counted {
    fn drop(&mut self) {
        for count in &self.counts {
            count.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// What [`Bytes`] refers to.
struct Shared(Arc<Counted>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// The texts of one session.
#[derive(Debug, Default)]
pub(super) struct Texts {
    session: KeptBytes,
    agent: KeptBytes,
    /// Those that statements were prepared from, by their hash.
    known: HashMap<u64, Weak<Counted>>,
    hash: RandomState,
}

impl Texts {
    /// The same, where others count for the same agent.
    pub(super) fn of_agent(agent: KeptBytes) -> Self {
        Self { agent, ..Self::default() }
    }

    /// Whether a text of so many bytes is counted.
    pub(super) fn counts(length: usize) -> bool {
        length >= SMALLEST
    }

    /// How many bytes the session keeps.
    pub(super) fn kept(&self) -> usize {
        self.session.get()
    }

    fn counted(&self, bytes: &[u8]) -> Arc<Counted> {
        let counts = [self.session.clone(), self.agent.clone()];
        for count in &counts {
            count.0.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        Arc::new(Counted { bytes: bytes.into(), counts })
    }

    /// A copy that is counted.
    pub(super) fn copy(&self, bytes: &[u8]) -> Bytes {
        if bytes.len() < SMALLEST {
            return Bytes::copy_from_slice(bytes);
        }
        Bytes::from_owner(Shared(self.counted(bytes)))
    }

    /// The same for the text of a statement that is prepared: one copy, however often it is.
    pub(super) fn copy_shared(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() < SMALLEST_SHARED {
            return self.copy(bytes);
        }
        let hash = self.hash.hash_one(bytes);
        if let Some(known) = self.known.get(&hash).and_then(Weak::upgrade)
            && *known.bytes == *bytes
        {
            return Bytes::from_owner(Shared(known));
        }
        if self.known.len() >= TIDY_AT {
            self.known.retain(|_, text| text.strong_count() > 0);
        }
        let counted = self.counted(bytes);
        self.known.insert(hash, Arc::downgrade(&counted));
        Bytes::from_owner(Shared(counted))
    }

    /// Why nothing more can be kept under a name, if nothing can.
    pub(super) fn over(&self, limits: &Limits) -> Option<Refusal> {
        let over = |count: &KeptBytes, limit: usize, whose: &'static str, setting: &'static str| {
            (count.get() > limit).then_some(Refusal::TooMuchText { whose, limit, setting })
        };
        over(&self.session, limits.prepared_bytes, "this session", "prepared_bytes").or_else(|| {
            over(&self.agent, limits.prepared_bytes_per_agent, "this agent", "prepared_bytes_per_agent")
        })
    }
}

/// How many names there are at most while statements with these effects run, where there are `before`.
pub(super) fn most_names<'e>(
    effects: impl Iterator<Item = &'e SessionEffect>,
    before: usize,
) -> Option<usize> {
    let (mut names, mut most) = (before, None);
    for effect in effects {
        if matches!(effect, SessionEffect::Prepare(_) | SessionEffect::Declare(_)) {
            names += 1;
            most = most.max(Some(names));
        } else if matches!(effect, SessionEffect::Deallocate(_) | SessionEffect::CloseCursor(_)) {
            names = names.saturating_sub(1);
        } else if matches!(effect, SessionEffect::DeallocateAll | SessionEffect::DiscardAll) {
            names = 0;
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_once_until_the_last_that_refers_to_it_is_gone() {
        let agent = KeptBytes::default();
        let mut texts = Texts::of_agent(agent.clone());
        let long = vec![b'x'; 10_000];

        let first = texts.copy_shared(&long);
        let again = texts.copy_shared(&long);
        let part = again.slice(5..9);
        let other = texts.copy(&long);

        assert_eq!((texts.kept(), agent.get()), (20_000, 20_000));
        drop((first, again, other));
        assert_eq!(texts.kept(), 10_000, "the part refers to it");
        drop(part);
        assert_eq!((texts.kept(), agent.get()), (0, 0));
    }

    #[test]
    fn names_that_are_freed_in_between_do_not_add_up() {
        let (prepare, free) = (SessionEffect::Prepare("a".into()), SessionEffect::Deallocate("a".into()));
        let effects: Vec<SessionEffect> = (0..5).flat_map(|_| [prepare.clone(), free.clone()]).collect();

        assert_eq!(most_names(effects.iter(), 7), Some(8));
        assert_eq!(most_names([free].iter(), 7), None);
    }
}
