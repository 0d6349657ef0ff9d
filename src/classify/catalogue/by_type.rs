//! Things by the name of a type, which an array of it bears as well: `_mood` is made of `mood`.

use std::collections::HashMap;

/// Longer names lose their end.
const LONGEST: usize = 63;

#[derive(Debug)]
pub(super) struct ByType<T> {
    all: HashMap<Box<str>, Vec<T>>,
    /// Names without the `_` in front, to the names. A text of 1 MiB may name a hundred thousand arrays.
    elements: HashMap<Box<str>, Vec<Box<str>>>,
}

impl<T> Default for ByType<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), elements: HashMap::new() }
    }
}

impl<T> ByType<T> {
    pub(super) fn add(&mut self, name: &str, what: T) {
        if !self.all.contains_key(name) {
            self.elements.entry(element_of(name).into()).or_default().push(name.into());
        }
        self.all.entry(name.into()).or_default().push(what);
    }

    /// Whether some type is of a kind.
    pub(super) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        self.all.values().flatten().any(is)
    }

    /// Whether a type has exactly that name.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Whether [`Self::named`] is worth asking: for nearly all names it is not.
    pub(super) fn may_know(&self, name: &str) -> bool {
        !self.all.is_empty() && (name.starts_with('_') || self.all.contains_key(name))
    }

    /// Those of the type of that name, and of those that it may be an array of: Postgres puts `_` before a
    /// type's name, more than one where that is taken.
    pub(super) fn named<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c T> {
        let element = element_of(name);
        let is_an_array = element != name;
        let made_of = self.elements.get(element).filter(|_| is_an_array).into_iter().flatten();
        let is_cut = is_an_array && name.len() >= LONGEST;
        let cut = is_cut.then(|| {
            let longer = move |known: &str| known != element && known.starts_with(element);
            self.elements.iter().filter(move |(known, _)| longer(known)).flat_map(|(_, names)| names)
        });
        let arrays = made_of.chain(cut.into_iter().flatten()).filter(move |known| ***known != *name);
        self.all.get(name).into_iter().chain(arrays.filter_map(|known| self.all.get(known))).flatten()
    }
}

fn element_of(name: &str) -> &str {
    name.trim_start_matches('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_what_it_is_made_of() {
        let long = "a".repeat(63);
        let mut types = ByType::default();
        for (number, name) in ["mood", "_mood", "other", &long].into_iter().enumerate() {
            types.add(name, number);
        }
        let named = |name: &str| {
            let mut found: Vec<usize> = types.named(name).copied().collect();
            found.sort_unstable();
            assert!(found.is_empty() || types.may_know(name));
            found
        };
        assert_eq!(named("mood"), [0]);
        assert_eq!(named("_mood"), [0, 1]);
        assert_eq!(named("__mood"), [0, 1]);
        assert!(named("moo").is_empty());
        assert!(named("_moo").is_empty());
        assert!(named("_").is_empty());
        assert_eq!(named(&format!("_{}", "a".repeat(62))), [3]);
        assert_eq!(named(&format!("__{}", "a".repeat(61))), [3]);
        assert!(named(&format!("_{}", "a".repeat(61))).is_empty(), "no name was cut to that");
    }
}
