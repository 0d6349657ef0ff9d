//! The moment when a grant is used, and the moment when policy or people have changed.

use std::sync::Arc;

use tracing::{info, warn};

use super::shelf::Slot;
use super::view::Enrolled;
use super::{Desk, Ending};
use crate::approval::{Grant, Lapse, Release, Request, Seal};
use crate::ledger::HoldEnd;
use crate::policy::Decision;

impl Desk {
    /// Judges a grant at the moment of its use, by the people of this moment. `seal` and `decision` are
    /// what the statement is now. A grant that does not stand is void, and its request withdrawn.
    pub fn release(&self, grant: Grant, seal: &Seal, decision: &Decision) -> Result<Release, Lapse> {
        let request = grant.request();
        let directory = self.0.directory.load();
        let released = grant.release(seal, decision, &Enrolled(&directory), self.now());
        if let Err(lapse) = &released {
            warn!(%request, %lapse, "grant not used");
            let slot = self.0.shelf.lock().get(request);
            if let Some(slot) = slot {
                self.lapse(&slot, lapse);
                self.show_next();
            }
        }
        released
    }

    /// Looks again at everything that waits, or was granted and not used: called when policy or people
    /// have changed. `decide` says what the policy in force makes of a request. What does not stand is
    /// withdrawn, and whoever waits for it is told why. What the policy would allow by now goes on
    /// waiting: sent again, it runs.
    pub fn reconsider(&self, decide: impl Fn(&Request) -> Decision) {
        let slots: Vec<Arc<Slot>> = self.0.shelf.lock().newest_first(None).cloned().collect();
        for slot in slots {
            if slot.live.lock().hold.state().is_final() {
                continue;
            }
            let decision = decide(&slot.request);
            let directory = self.0.directory.load();
            let now = self.now();
            let stands = slot.live.lock().hold.reconsider(&decision, &Enrolled(&directory), now);
            if let Err(lapse) = stands {
                self.lapse(&slot, &lapse);
            }
        }
        self.show_next();
    }

    /// Withdraws what does not stand any more.
    fn lapse(&self, slot: &Arc<Slot>, lapse: &Lapse) {
        let mut live = slot.live.lock();
        let now = self.now();
        let before = self.change(&mut live, |hold| hold.on_withdrawn(lapse.withdrawal(), now));
        let state = live.hold.state().clone();
        if state == before || state.as_str() != HoldEnd::Withdrawn.as_str() {
            // It ended in another way meanwhile.
            return self.settle(slot, &mut live, &before, None);
        }
        info!(request = %slot.request.id, %lapse, "what was asked for does not stand any more");
        // The ledger has the rule; everybody else is told less.
        self.record_end(slot.request.id, HoldEnd::Withdrawn, Some(&lapse.to_string()), None);
        let waiting = live.waiting.take();
        self.settle(slot, &mut live, &before, Some(&state));
        if let Some(waiting) = waiting {
            // A session that is gone needs no answer.
            let _ = waiting.send(Ending::Lapsed(lapse.clone()));
        }
    }
}
