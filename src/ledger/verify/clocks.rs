//! Clocks: within one run of the proxy time moves on, and where the wall clock was set, the ledger says
//! so. One run's entries come in one piece, but for what it left in the spool.

use std::collections::{BTreeMap, BTreeSet};

use super::{Code, Problem};
use crate::ledger::assemble::is_untimed;
use crate::ledger::clock::{JUMP, Moment};
use crate::ledger::entry::{Entry, Key, Kind};

#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The last moment of each run that may still go on.
    runs: BTreeMap<[u8; 16], Moment>,
    over: BTreeSet<[u8; 16]>,
    last_wall: u64,
}

impl Clocks {
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Problem> {
        if is_untimed(entry.kind()) {
            return Ok(());
        }
        let boot: [u8; 16] = entry.array(Key::Boot).unwrap_or_default();
        let at = Moment {
            wall: entry.uint(Key::Wall).unwrap_or_default(),
            mono: entry.uint(Key::Mono).unwrap_or_default(),
        };
        let problem = |what: &str| Err(Problem::new(Code::Clock, entry.seq(), what));
        if self.over.contains(&boot) {
            return problem("it belongs to a run of the proxy that was over");
        }
        let was_set = entry.kind() == Kind::ClockJump;
        match self.runs.get(&boot) {
            Some(before) if at.mono < before.mono => {
                return problem("the machine's clock goes back");
            }
            Some(before) if at.jumped_since(*before) && !was_set => {
                return problem("the wall clock was set, and no entry says so");
            }
            None if at.wall.saturating_add(JUMP) < self.last_wall && !was_set => {
                return problem("a run begins before the one before it ended");
            }
            _ => {}
        }
        self.runs.insert(boot, at);
        self.last_wall = at.wall;
        if entry.kind() == Kind::Recovered {
            let others: Vec<_> = self.runs.keys().copied().filter(|other| *other != boot).collect();
            for other in others {
                self.runs.remove(&other);
                self.over.insert(other);
            }
        }
        Ok(())
    }
}
