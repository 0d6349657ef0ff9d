//! The desk's clock.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::approval::request::later;

/// Tells the time.
///
/// Deadlines are wall-clock times, because people are shown them; but somebody who sets the wall
/// clock back must not thereby keep a grant alive. So the later of two clocks counts: the wall, and
/// the time at start plus what has passed since then on a clock that nobody can set.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real { started_at: Timestamp, started: Instant },
    Manual(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// The real one.
    #[must_use]
    pub fn real() -> Self {
        Self(Source::Real { started_at: Timestamp::now(), started: Instant::now() })
    }

    /// One that stands still until it is set, for tests and demonstrations.
    #[must_use]
    pub fn manual(time: Arc<Mutex<Timestamp>>) -> Self {
        Self(Source::Manual(time))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Real { started_at, started } => {
                Timestamp::now().max(later(*started_at, started.elapsed()))
            }
            Source::Manual(time) => *time.lock(),
        }
    }
}
