//! How many streams of events may be open: of one caller, and of all. A stream costs a task and a
//! connection for as long as somebody listens; an agent must not take what reviewers need.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Of all callers together.
const OF_ALL: usize = 512;
/// Of all agents together: many agents must leave room for reviewers, too.
const OF_AGENTS: usize = OF_ALL / 2;
/// Of one reviewer: a few browsers with many tabs.
const OF_REVIEWER: usize = 48;
/// Of one agent.
const OF_AGENT: usize = 8;

/// Who listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listener {
    Reviewer(String),
    Agent(String),
}

/// The streams that are open.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<BTreeMap<Listener, usize>>);

/// A place for one stream, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    listener: Listener,
}

impl Streams {
    /// A place for one more stream of `listener`; `None` when there is none.
    pub(super) fn place(self: &Arc<Self>, listener: Listener) -> Option<Place> {
        let mut open = self.0.lock();
        let most = match listener {
            Listener::Reviewer(_) => OF_REVIEWER,
            Listener::Agent(_) => OF_AGENT,
        };
        let all: usize = open.values().sum();
        let is_agents = |listener: &Listener| matches!(listener, Listener::Agent(_));
        let agents: usize = open.iter().filter(|(who, _)| is_agents(who)).map(|(_, count)| count).sum();
        if is_agents(&listener) && agents >= OF_AGENTS {
            return None;
        }
        let theirs = open.entry(listener.clone()).or_default();
        if all >= OF_ALL || *theirs >= most {
            return None;
        }
        *theirs += 1;
        drop(open);
        Some(Place { streams: self.clone(), listener })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.listener) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.listener);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_take_the_places_of_reviewers() {
        let streams = Arc::new(Streams::default());
        let bot = || streams.place(Listener::Agent("bot".to_owned()));
        let held: Vec<Place> = std::iter::from_fn(bot).collect();

        assert_eq!(held.len(), OF_AGENT);
        assert!(streams.place(Listener::Reviewer("bot".to_owned())).is_some());
        drop(held);
        assert!(bot().is_some());
        assert!(streams.0.lock().is_empty());
    }

    #[test]
    fn all_agents_together_leave_room_for_reviewers() {
        let streams = Arc::new(Streams::default());
        let agents = (0..1_000).flat_map(|n| streams.place(Listener::Agent(format!("bot{n}"))));
        let held: Vec<Place> = agents.collect();

        assert_eq!(held.len(), OF_AGENTS);
        assert!(streams.place(Listener::Reviewer("bob".to_owned())).is_some());
    }
}
