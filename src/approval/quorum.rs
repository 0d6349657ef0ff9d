//! Whether enough distinct people have approved, and who may be one of them.
//!
//! Terms ask for places: `dba: 2, security: 1` are three places, and three different people have to
//! fill them. Somebody who is in both groups may fill a place of either kind, but never two. Which
//! place a person fills is not decided when they answer. It is decided anew each time, for everybody
//! together, by matching people to places; so the order of answers never matters.
//!
//! People are counted, not names: two entries that share any name are one person.

use std::sync::Arc;

use crate::actor::{Agent, GroupName, PersonName, Reviewer};
use crate::policy::{Approval, Terms};

/// One group's part of what is asked, with the groups that may answer in its place by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredGroup {
    /// The group that is asked.
    pub group: GroupName,
    /// How many people of it.
    pub count: u32,
    /// Groups that stand in for it since the request was escalated.
    pub stand_ins: Vec<GroupName>,
}

impl RequiredGroup {
    fn accepts(&self, reviewer: &Reviewer) -> bool {
        reviewer.groups.iter().any(|group| *group == self.group || self.stand_ins.contains(group))
    }
}

/// What `terms` ask for once their first `steps` escalations are in force.
#[must_use]
pub fn required(terms: &Terms, steps: usize) -> Vec<RequiredGroup> {
    terms
        .approvals
        .iter()
        .map(|asked| RequiredGroup {
            group: asked.group.clone(),
            count: asked.count,
            stand_ins: terms
                .escalate
                .iter()
                .take(steps)
                .filter(|step| step.stands_in_for.contains(&asked.group))
                .map(|step| step.to.clone())
                .collect(),
        })
        .collect()
}

/// What is still missing once everybody in `people` has approved. Groups are in the order of
/// `required`. Whether the quorum is met is [`is_met`]'s to say: nothing is missing where nobody is
/// asked, and yet nobody approved.
#[must_use]
pub fn missing(required: &[RequiredGroup], people: &[Arc<Reviewer>]) -> Vec<Approval> {
    Assignment::assign_all(required, &distinct(people)).open_places()
}

/// Whether `people` are enough. Terms that ask nobody are never met.
#[must_use]
pub fn is_met(required: &[RequiredGroup], people: &[Arc<Reviewer>]) -> bool {
    let people = distinct(people);
    let assignment = Assignment::assign_all(required, &people);
    !assignment.places.is_empty() && assignment.open_places().is_empty()
}

/// Whether two entries are one person: they share a name.
#[must_use]
pub fn same_person(one: &Reviewer, other: &Reviewer) -> bool {
    other.is(&one.id.as_str().into()) || one.also.iter().any(|name| other.is(name))
}

fn distinct(people: &[Arc<Reviewer>]) -> Vec<&Reviewer> {
    let mut seen: Vec<&Reviewer> = Vec::with_capacity(people.len());
    for person in people {
        if !seen.iter().any(|other| same_person(other, person)) {
            seen.push(person);
        }
    }
    seen
}

/// Why somebody's approval does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// They are, under this or another name, a human behind the agent.
    #[error("you are an owner of the agent that asks, so you cannot approve for it")]
    OwnsTheAgent,
    /// They go by the agent's own name.
    #[error("an agent cannot answer requests")]
    IsTheAgent,
    /// They are in none of the groups that are asked.
    #[error("you are in none of the groups that are asked: {}", join(.asked))]
    NotAsked {
        /// The groups that are, escalations included.
        asked: Vec<GroupName>,
    },
}

fn join(groups: &[GroupName]) -> String {
    groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether `reviewer` may approve, or escalate, what `agent` asks. `owners` counts besides those
/// the agent had when it connected, so that a change of owners works in both directions at once.
pub fn may_approve(
    reviewer: &Reviewer,
    agent: &Agent,
    owners: &[PersonName],
    required: &[RequiredGroup],
) -> Result<(), NotAllowed> {
    if goes_by(reviewer, agent) {
        return Err(NotAllowed::IsTheAgent);
    }
    if is_owner(reviewer, agent, owners) {
        return Err(NotAllowed::OwnsTheAgent);
    }
    is_asked(reviewer, required)
}

/// Whether `reviewer` may deny. Saying no needs less than saying yes: an owner may stop their own
/// agent, whether asked or not.
pub fn may_deny(
    reviewer: &Reviewer,
    agent: &Agent,
    owners: &[PersonName],
    required: &[RequiredGroup],
) -> Result<(), NotAllowed> {
    if goes_by(reviewer, agent) {
        return Err(NotAllowed::IsTheAgent);
    }
    if is_owner(reviewer, agent, owners) {
        return Ok(());
    }
    is_asked(reviewer, required)
}

fn goes_by(reviewer: &Reviewer, agent: &Agent) -> bool {
    reviewer.is(&agent.name.as_str().into())
}

/// Whether `reviewer` is a human behind `agent`.
#[must_use]
pub fn is_owner(reviewer: &Reviewer, agent: &Agent, owners: &[PersonName]) -> bool {
    agent.owners.iter().chain(owners).any(|owner| reviewer.is(owner))
}

fn is_asked(reviewer: &Reviewer, required: &[RequiredGroup]) -> Result<(), NotAllowed> {
    if required.iter().any(|needed| needed.accepts(reviewer)) {
        return Ok(());
    }
    let mut asked: Vec<GroupName> = required
        .iter()
        .flat_map(|needed| std::iter::once(&needed.group).chain(&needed.stand_ins))
        .cloned()
        .collect();
    asked.sort();
    asked.dedup();
    Err(NotAllowed::NotAsked { asked })
}

/// People matched to places. Where every suitable place of a person is filled, somebody who fills one is
/// moved to another place if possible (Kuhn's algorithm for bipartite matching), so the matching is
/// always as large as it can be.
struct Assignment<'a> {
    required: &'a [RequiredGroup],
    people: &'a [&'a Reviewer],
    places: Vec<Place<'a>>,
}

struct Place<'a> {
    group: &'a RequiredGroup,
    /// Index into the people.
    person: Option<usize>,
    /// Tried already for the person who is being assigned.
    tried: bool,
}

impl<'a> Assignment<'a> {
    fn assign_all(required: &'a [RequiredGroup], people: &'a [&'a Reviewer]) -> Self {
        let places = required
            .iter()
            .flat_map(|needed| {
                (0..needed.count).map(move |_| Place { group: needed, person: None, tried: false })
            })
            .collect();
        let mut assignment = Self { required, people, places };
        for person in 0..people.len() {
            for place in &mut assignment.places {
                place.tried = false;
            }
            assignment.assign(person);
        }
        assignment
    }

    fn assign(&mut self, person: usize) -> bool {
        let Some(reviewer) = self.people.get(person).copied() else { return false };
        for number in 0..self.places.len() {
            let Some(place) = self.places.get_mut(number) else { continue };
            if place.tried || !place.group.accepts(reviewer) {
                continue;
            }
            place.tried = true;
            let free = match place.person {
                None => true,
                // The depth is bounded by the number of places: each is tried once.
                Some(current) => self.assign(current),
            };
            if free {
                if let Some(place) = self.places.get_mut(number) {
                    place.person = Some(person);
                }
                return true;
            }
        }
        false
    }

    fn open_places(&self) -> Vec<Approval> {
        self.required
            .iter()
            .filter_map(|needed| {
                let free = |place: &&Place<'_>| std::ptr::eq(place.group, needed) && place.person.is_none();
                let count = u32::try_from(self.places.iter().filter(free).count()).unwrap_or(u32::MAX);
                (count > 0).then(|| Approval { group: needed.group.clone(), count })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_are_matched_to_places_in_whatever_order_they_answer() {
        let asked = [required_group("dba", 1), required_group("security", 1)];
        let both = person("bob", &["dba", "security"]);
        let dba = person("dora", &["dba"]);

        assert!(is_met(&asked, &[both.clone(), dba.clone()]));
        assert!(is_met(&asked, &[dba, both]));
    }

    #[test]
    fn one_person_in_two_groups_is_still_one_person() {
        let asked = [required_group("dba", 1), required_group("security", 1)];
        let both = person("bob", &["dba", "security"]);

        assert!(!is_met(&asked, std::slice::from_ref(&both)));
        assert!(!is_met(&asked, &[both.clone(), both]));
    }

    #[test]
    fn two_names_of_one_person_are_one_voice() {
        let asked = [required_group("dba", 2)];
        let bob = person("bob@example.com", &["dba"]);
        let by_id = named("Robert@corp.example", &["BOB@example.com "], &["dba"]);
        let by_alias = named("rob", &["r@x"], &["dba"]);
        let shares_alias = named("bobby", &["R@X"], &["dba"]);

        assert!(!is_met(&asked, &[bob, by_id]));
        assert!(!is_met(&asked, &[by_alias, shares_alias]));
    }

    #[test]
    fn terms_that_ask_nobody_are_never_met() {
        assert!(!is_met(&[], &[person("bob", &["dba"])]));
        assert!(!is_met(&[required_group("dba", 0)], &[person("bob", &["dba"])]));
    }

    #[test]
    fn a_stand_in_counts_only_once_it_was_called() {
        let asked = [RequiredGroup { stand_ins: vec!["oncall".into()], ..required_group("dba", 1) }];

        assert!(is_met(&asked, &[person("olga", &["oncall"])]));
        assert!(!is_met(&[required_group("dba", 1)], &[person("olga", &["oncall"])]));
    }

    #[test]
    fn an_owner_cannot_approve_under_any_name_but_can_deny() {
        let agent = agent("bot", &["alice@corp.example"]);
        let alice = named("alice@example.com", &["Alice@Corp.Example"], &["dba"]);
        let asked = [required_group("dba", 1)];

        assert_eq!(may_approve(&alice, &agent, &[], &asked), Err(NotAllowed::OwnsTheAgent));
        assert_eq!(may_deny(&alice, &agent, &[], &[required_group("security", 1)]), Ok(()));
    }

    #[test]
    fn an_owner_added_after_the_agent_connected_counts() {
        let bob = person("bob", &["dba"]);

        let answer =
            may_approve(&bob, &agent("bot", &["alice"]), &["bob".into()], &[required_group("dba", 1)]);

        assert_eq!(answer, Err(NotAllowed::OwnsTheAgent));
    }

    #[test]
    fn an_agent_can_do_nothing_even_if_a_reviewer_has_its_name() {
        let twin = person("bot", &["dba"]);
        let agent = agent("bot", &[]);

        assert_eq!(may_approve(&twin, &agent, &[], &[required_group("dba", 1)]), Err(NotAllowed::IsTheAgent));
        assert_eq!(may_deny(&twin, &agent, &[], &[required_group("dba", 1)]), Err(NotAllowed::IsTheAgent));
    }

    #[test]
    fn what_is_missing_names_the_group_that_nobody_sat_for() {
        let asked = [required_group("dba", 2), required_group("security", 1)];

        let missing = missing(&asked, &[person("bob", &["dba"])]);

        assert_eq!(missing, [approval("dba", 1), approval("security", 1)]);
    }

    proptest! {
        /// The quorum is met exactly when some assignment of distinct people to required exists.
        #[test]
        fn the_quorum_agrees_with_trying_every_assignment(
            counts in prop::collection::vec(1u32..3, 1..4),
            people in prop::collection::vec(prop::collection::vec(0usize..4, 0..3), 0..6),
        ) {
            let asked: Vec<RequiredGroup> =
                counts.iter().enumerate().map(|(i, count)| required_group(&format!("g{i}"), *count)).collect();
            let people: Vec<Arc<Reviewer>> = people
                .iter()
                .enumerate()
                .map(|(i, groups)| {
                    let groups: Vec<String> = groups.iter().map(|g| format!("g{g}")).collect();
                    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
                    person(&format!("p{i}"), &groups)
                })
                .collect();
            let places: Vec<&RequiredGroup> =
                asked.iter().flat_map(|needed| std::iter::repeat_n(needed, needed.count as usize)).collect();

            prop_assert_eq!(is_met(&asked, &people), assignable(&places, &people));
        }

        /// More approvals never make a met quorum unmet.
        #[test]
        fn another_approval_never_hurts(members in prop::collection::vec(0usize..3, 1..7)) {
            let asked = [required_group("g0", 1), required_group("g1", 2)];
            let people: Vec<_> = members
                .iter()
                .enumerate()
                .map(|(i, g)| person(&format!("p{i}"), &[&format!("g{g}")]))
                .collect();
            let met: Vec<bool> = (0..=people.len()).map(|n| is_met(&asked, &people[..n])).collect();

            prop_assert!(met.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    fn assignable(places: &[&RequiredGroup], people: &[Arc<Reviewer>]) -> bool {
        let Some((first, others)) = places.split_first() else { return true };
        (0..people.len()).any(|i| {
            let mut left = people.to_vec();
            let person = left.remove(i);
            first.accepts(&person) && assignable(others, &left)
        })
    }

    fn required_group(group: &str, count: u32) -> RequiredGroup {
        RequiredGroup { group: group.into(), count, stand_ins: Vec::new() }
    }

    fn approval(group: &str, count: u32) -> Approval {
        Approval { group: group.into(), count }
    }

    fn person(id: &str, groups: &[&str]) -> Arc<Reviewer> {
        named(id, &[], groups)
    }

    fn named(id: &str, also: &[&str], groups: &[&str]) -> Arc<Reviewer> {
        Arc::new(Reviewer {
            id: id.into(),
            also: also.iter().map(|name| PersonName::from(*name)).collect(),
            groups: groups.iter().map(|group| GroupName::from(*group)).collect(),
        })
    }

    fn agent(name: &str, owners: &[&str]) -> Agent {
        Agent {
            name: name.into(),
            owners: owners.iter().map(|owner| PersonName::from(*owner)).collect(),
            upstreams: Vec::new(),
        }
    }
}
