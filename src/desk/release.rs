//! The moment when a grant is used, and the moment when policy or people have changed.

use std::sync::Arc;

use tracing::{info, warn};

use super::index::Entry;
use super::view::Enrolled;
use super::{Desk, Ending};
use crate::approval::{Grant, Release, Request, Seal, VoidReason};
use crate::ledger::HoldEnd;
use crate::policy::Decision;

impl Desk {
    /// Judges a grant at the moment of its use, by the people of this moment. `seal` and `decision` are
    /// what the statement is now. A grant that does not stand is void, and its request withdrawn.
    pub fn release(&self, grant: Grant, seal: &Seal, decision: &Decision) -> Result<Release, VoidReason> {
        let request = grant.request();
        let directory = self.0.directory.load();
        let released = grant.release(seal, decision, &Enrolled(&directory), self.now());
        if let Err(why) = &released {
            warn!(%request, %why, "grant not used");
            let entry = self.0.index.lock().get(request);
            if let Some(entry) = entry {
                self.void(&entry, why);
                self.announce_next();
            }
        }
        released
    }

    /// Looks again at everything that waits, or was granted and not used: called when policy or people
    /// have changed. `decide` says what the policy in force makes of a request. What does not stand is
    /// withdrawn, and whoever waits for it is notified why. What the policy would allow by now goes on
    /// waiting: sent again, it runs.
    pub fn reconsider(&self, decide: impl Fn(&Request) -> Decision) {
        let entries: Vec<Arc<Entry>> = self.0.index.lock().newest_first(None).cloned().collect();
        for entry in entries {
            if entry.live.lock().hold.state().is_final() {
                continue;
            }
            let decision = decide(&entry.request);
            let directory = self.0.directory.load();
            let now = self.now();
            let stands = entry.live.lock().hold.reconsider(&decision, &Enrolled(&directory), now);
            if let Err(why) = stands {
                self.void(&entry, &why);
            }
        }
        self.announce_next();
    }

    /// Withdraws what does not stand any more.
    fn void(&self, entry: &Arc<Entry>, why: &VoidReason) {
        let mut live = entry.live.lock();
        let now = self.now();
        let before = self.change(&mut live, |hold| hold.on_withdrawn(why.withdrawal(), now));
        let state = live.hold.state().clone();
        if state == before || state.as_str() != HoldEnd::Withdrawn.as_str() {
            // It ended in another way meanwhile.
            return self.apply_change(entry, &mut live, &before, None);
        }
        info!(request = %entry.request.id, %why, "what was asked for does not stand any more");
        // The ledger has the rule; everybody else is notified less.
        self.record_end(entry.request.id, HoldEnd::Withdrawn, Some(&why.to_string()), None);
        let waiting = live.waiting.take();
        self.apply_change(entry, &mut live, &before, Some(&state));
        if let Some(waiting) = waiting {
            // A session that is gone needs no answer.
            let _ = waiting.send(Ending::Lapsed(why.clone()));
        }
    }
}
