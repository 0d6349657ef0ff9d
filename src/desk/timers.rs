//! The clock's part: escalations, expiry, and sessions that left without a word.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info};

use super::index::Entry;
use super::{Desk, DeskEvent};
use crate::ledger::Event;

/// How often the desk looks for sessions that left without withdrawing.
const SWEEP: Duration = Duration::from_secs(5);

impl Desk {
    /// Lets the clock do its work, for ever: run it as a task beside the desk. Decisions never depend
    /// on it: what is past its deadline is expired whether or not this has noticed. It is what tells
    /// the waiting sessions and the channels.
    pub async fn run_timers(&self) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.on_time(self.now());
            // At least now and then, because the wall clock may be set while we sleep.
            let sleep = next.map_or(SWEEP, |next| {
                Duration::try_from(next.duration_since(self.now())).unwrap_or_default().min(SWEEP)
            });
            tokio::select! {
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    /// Does what is due at `now`; says when something will be due next.
    pub fn on_time(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.0.index.lock().due(now);
        for entry in due {
            self.on_time_for(&entry, now);
        }
        self.announce_next();
        self.0.index.lock().next_due()
    }

    pub(super) fn on_time_for(&self, entry: &Arc<Entry>, now: Timestamp) {
        let mut live = entry.live.lock();
        let steps = live.hold.steps();
        let before = self.change(&mut live, |hold| hold.on_time(now));
        let escalations = &entry.request.draft.terms.escalate;
        for step in escalations.iter().take(live.hold.steps()).skip(steps) {
            let record = Event::Escalated { request: entry.request.id, group: step.to.clone(), by: None };
            if let Err(unrecorded) = self.0.recorder.append(record) {
                error!(request = %entry.request.id, %unrecorded, "an escalation is not in the ledger");
            }
            info!(request = %entry.request.id, to = %step.to, "escalated");
            let notified = live.hold.notified();
            self.publish(DeskEvent::Escalated {
                request: entry.request.clone(),
                to: step.to.clone(),
                notified,
            });
        }
        self.apply_change(entry, &mut live, &before, None);
    }

    /// Withdraws the requests whose sessions do not wait for them any more.
    pub(super) fn sweep(&self) {
        let entries: Vec<Arc<Entry>> = self.0.index.lock().newest_first(None).cloned().collect();
        for entry in entries {
            self.withdraw_if_abandoned(&entry, &mut entry.live.lock());
        }
        self.announce_next();
    }
}
