//! Who is who, and whether enough distinct people approved.
//!
//! Written a second time, on purpose: what decided at the time lives in `approval::quorum`; what checks
//! the record afterwards must not share its mistakes.

use std::collections::BTreeSet;

use crate::ledger::entry::{Entry, Key};

/// A name as it is compared: directories do not agree on case.
pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// One person, under all their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) names: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
}

impl Person {
    /// The reviewer of a `review` entry.
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        let id = entry.text(Key::Reviewer).into_iter();
        Self {
            names: id.chain(entry.texts(Key::Also)).map(folded).collect(),
            groups: entry.texts(Key::Groups).map(str::to_owned).collect(),
        }
    }

    pub(super) fn is_one_of(&self, names: &BTreeSet<String>) -> bool {
        !self.names.is_disjoint(names)
    }
}

/// A seat that has to be taken: by somebody of one of these groups.
pub(super) type Seat = BTreeSet<String>;

/// Whether every seat can be taken by a person of its own. There must be at least one.
pub(super) fn can_be_seated(seats: &[Seat], people: &[&Person]) -> bool {
    let mut taken: Vec<Option<usize>> = vec![None; people.len()];
    let seated = (0..seats.len()).all(|seat| {
        let mut asked = BTreeSet::new();
        find_person(seat, seats, people, &mut taken, &mut asked)
    });
    !seats.is_empty() && seated
}

/// Finds a person for a seat; somebody who sits elsewhere moves if another seat's person can be found.
fn find_person(
    seat: usize,
    seats: &[Seat],
    people: &[&Person],
    taken: &mut Vec<Option<usize>>,
    asked: &mut BTreeSet<usize>,
) -> bool {
    for (place, person) in people.iter().enumerate() {
        let fits = seats.get(seat).is_some_and(|groups| !groups.is_disjoint(&person.groups));
        if !fits || !asked.insert(place) {
            continue;
        }
        let free = match taken.get(place).copied().flatten() {
            None => true,
            Some(other) => find_person(other, seats, people, taken, asked),
        };
        if free {
            if let Some(slot) = taken.get_mut(place) {
                *slot = Some(seat);
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, groups: &[&str]) -> Person {
        Person {
            names: [folded(name)].into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    fn seat(groups: &[&str]) -> Seat {
        groups.iter().map(|group| (*group).to_owned()).collect()
    }

    #[test]
    fn people_move_over_so_that_all_can_sit() {
        let (both, dba) = (person("bob", &["dba", "security"]), person("dora", &["dba"]));
        let seats = [seat(&["dba"]), seat(&["security"])];

        assert!(can_be_seated(&seats, &[&both, &dba]));
        assert!(can_be_seated(&seats, &[&dba, &both]));
        assert!(!can_be_seated(&seats, &[&both]));
        assert!(!can_be_seated(&seats, &[&dba, &dba]));
        assert!(!can_be_seated(&[], &[&both]));
    }
}
