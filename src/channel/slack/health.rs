//! Whether reviewers can be reached through Slack, and why not.

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::channel::{ChannelStatus, DeadLetter, LastError};

/// What has to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Who we are and where we post is known and right.
    Setup,
    /// Calls are answered.
    Calls,
    /// Clicks come in.
    Sockets,
}

#[derive(Debug)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What is wrong with each part.
    wrong: [Option<String>; 3],
    sockets: usize,
    since: Timestamp,
    last_error: Option<LastError>,
}

/// Why nothing works right after the start.
const STARTING: &str = "starting";

impl Health {
    pub(super) fn new(now: Timestamp) -> Self {
        let starting = || Some(STARTING.to_owned());
        Self(Mutex::new(State {
            // Calls work until one fails.
            wrong: [starting(), None, starting()],
            sockets: 0,
            since: now,
            last_error: None,
        }))
    }

    /// A part works.
    pub(super) fn works(&self, part: Part, now: Timestamp) {
        self.change(now, |state| *state.of(part) = None);
    }

    /// A part does not work.
    pub(super) fn fails(&self, part: Part, error: &str, now: Timestamp) {
        self.change(now, |state| {
            let wrong = state.of(part);
            // Every retry would say it again.
            if wrong.as_deref() == Some(error) {
                return;
            }
            *wrong = Some(error.to_owned());
            state.last_error = Some(LastError { error: error.to_owned(), at: now });
            warn!(part = ?part, error, "slack does not work");
        });
    }

    /// So many sockets are open.
    pub(super) fn sockets(&self, open: usize, now: Timestamp) {
        self.change(now, |state| {
            state.sockets = open;
            if open > 0 {
                *state.of(Part::Sockets) = None;
            }
        });
    }

    pub(super) fn open_sockets(&self) -> usize {
        self.0.lock().sockets
    }

    pub(super) fn status(&self, queued: usize, dead_letters: Vec<DeadLetter>) -> ChannelStatus {
        let state = self.0.lock();
        ChannelStatus {
            connected: state.is_connected(),
            since: state.since,
            last_error: state.last_error.clone(),
            queued,
            dead_letters,
        }
    }

    fn change(&self, now: Timestamp, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        let before = state.is_connected();
        change(&mut state);
        let after = state.is_connected();
        if before != after {
            state.since = now;
            if after {
                info!("slack is connected");
            } else {
                warn!("slack cannot be reached; requests wait, and can be answered elsewhere");
            }
        }
    }
}

impl State {
    fn of(&mut self, part: Part) -> &mut Option<String> {
        let [setup, calls, sockets] = &mut self.wrong;
        match part {
            Part::Setup => setup,
            Part::Calls => calls,
            Part::Sockets => sockets,
        }
    }

    fn is_connected(&self) -> bool {
        self.wrong.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_connected_when_every_part_works_and_says_since_when() {
        let health = Health::new(at(0));
        health.works(Part::Setup, at(1));
        assert!(!health.status(0, Vec::new()).connected);

        health.sockets(1, at(2));
        assert_eq!(health.status(0, Vec::new()).since, at(2));
        assert!(health.status(0, Vec::new()).connected);

        health.fails(Part::Calls, "out of reach", at(3));
        health.fails(Part::Calls, "out of reach", at(4));
        let status = health.status(7, Vec::new());
        assert!(!status.connected);
        assert_eq!(status.since, at(3));
        assert_eq!(status.last_error, Some(LastError { error: "out of reach".to_owned(), at: at(3) }));
        assert_eq!(status.queued, 7);

        health.works(Part::Calls, at(5));
        let status = health.status(0, Vec::new());
        assert!(status.connected && status.last_error.is_some());
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
}
