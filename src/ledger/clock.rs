//! The two clocks of an entry: the wall clock, which people read and anybody can set, and the
//! machine's time since it started, which nobody can.
#![allow(
    clippy::disallowed_methods,
    reason = "the ledger stamps entries itself, at the moment it accepts them"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// When something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Moment {
    /// Nanoseconds since the Unix epoch.
    pub(crate) wall: u64,
    /// Nanoseconds since the machine started, suspended time included.
    pub(crate) mono: u64,
}

/// How far the two clocks may move apart between two entries before that is called a jump.
/// Slewing by NTP moves both; only setting the clock moves one.
pub(crate) const JUMP: u64 = 1_000_000_000;

impl Moment {
    /// Whether the wall clock went another way than the clock that nobody sets, since `before`.
    pub(crate) fn jumped_since(self, before: Self) -> bool {
        let wall = i128::from(self.wall) - i128::from(before.wall);
        let mono = i128::from(self.mono) - i128::from(before.mono);
        (wall - mono).unsigned_abs() > u128::from(JUMP)
    }
}

/// Where moments come from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The machine.
    #[default]
    System,
    /// A test's hand.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests and fixtures set the time by hand"))]
    Manual(Arc<ManualClock>),
}

/// A clock that moves when told to.
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    wall: AtomicU64,
    mono: AtomicU64,
}

#[cfg(test)]
impl ManualClock {
    pub(crate) fn starting_at(wall: u64) -> Arc<Self> {
        Arc::new(Self { wall: AtomicU64::new(wall), mono: AtomicU64::new(1_000_000_000) })
    }

    pub(crate) fn pass(&self, nanoseconds: u64) {
        self.wall.fetch_add(nanoseconds, Ordering::SeqCst);
        self.mono.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    pub(crate) fn set_wall(&self, wall: u64) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock {
    /// Now, by both clocks.
    pub(crate) fn now(&self) -> Moment {
        match self {
            Self::System => {
                Moment { wall: nanoseconds(ClockId::Realtime), mono: nanoseconds(ClockId::Boottime) }
            }
            Self::Manual(clock) => {
                Moment { wall: clock.wall.load(Ordering::SeqCst), mono: clock.mono.load(Ordering::SeqCst) }
            }
        }
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_was_set_has_jumped() {
        let before = Moment { wall: 10_000_000_000, mono: 5_000_000_000 };

        assert!(!Moment { wall: 3_610_000_000_000, mono: 3_605_000_000_000 }.jumped_since(before));
        assert!(!Moment { wall: 9_500_000_000, mono: 5_000_000_000 }.jumped_since(before));
        assert!(Moment { wall: 8_000_000_000, mono: 5_000_000_001 }.jumped_since(before));
        assert!(Moment { wall: 12_000_000_000, mono: 5_000_000_001 }.jumped_since(before));
    }
}
