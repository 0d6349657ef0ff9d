//! Where held statements wait.
//!
//! The desk owns the holds and their deadlines, takes answers to them, and tells its listeners what
//! happened. [`approval::hold`](crate::approval::hold) decides what an answer means, and
//! [`identity`](crate::identity) who may give one. The desk adds three things: everything is recorded
//! before it takes effect, of two answers one is first, and no agent can ask without limit.
//!
//! # Who owns the state of a request
//!
//! The desk does: the [`Hold`] of an entry is the only place in which a request changes its state.
//! Everything else derives its picture from it and decides nothing by it:
//!
//! - **The session** that waits is told the [`Ending`] once, over a channel of its own. It keeps no
//!   copy of the state; whether a grant still counts is asked of the desk ([`Desk::release`]).
//! - **The ledger** has every change before (answers) or as soon as (expiry, withdrawal) it takes effect.
//!   It is read only at the start, to close what an earlier run left open.
//! - **Channels** get [`DeskEvent`]s and look the state up again when they render a card
//!   ([`Desk::request`]). The outbox of a channel keeps the last state that it heard of, to know
//!   which messages are to be sent and in which order.
//! - **Console and API** ask for a [`RequestView`] for every page.
//!
//! # Identical requests
//!
//! Several sessions of one agent that ask for the same thing (the same seal, sessions aside) wait in
//! line and have one card: reviewers are shown the first, with the number of those behind it. An
//! approval is for the first alone, because a grant covers one statement of one session once; then
//! the next one is shown. A denial is for all of them. Deferred holds name no session, so identical
//! ones are one request.
//!
//! # Ended requests
//!
//! They are kept for a while, bounded in number and bytes, so that late clicks are told what
//! happened. The ledger has all of them, for ever.
//!
//! # Files
//!
//! - [`recorder`]: what it needs of the ledger.
//! - [`view`]: requests as channels, console and API see them.
//! - `index`: requests by id, code, seal and deadline.
//! - `lookup`: lists of requests, and single ones.
//! - `answer`: how answers are checked, recorded and applied.
//! - `timers`: escalation, expiry, and sessions that left.
//! - `release`: grants that are used, and requests that a change of policy or people ends.
//! - `event`: what listeners are told.

mod answer;
pub mod clock;
mod event;
mod index;
mod lookup;
pub mod recorder;
mod release;
#[cfg(test)]
mod tests;
mod timers;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot};
use tracing::{error, info};
use uuid::Uuid;

pub use self::answer::{Answer, CountedAnswer, RefusedAnswer};
pub use self::clock::Clock;
pub use self::event::DeskEvent;
pub use self::index::RequestCounts;
use self::index::{
    Entry, EntryState, LinePosition, NextInLine, Placement, RequestIndex, RequestPattern, memory_size,
};
pub use self::recorder::{Recorder, Unrecorded};
pub use self::view::{Filter, RequestView};
use crate::actor::ReviewerId;
use crate::approval::request::BadDraft;
use crate::approval::{Draft, Grant, Hold, HoldState, Request, Seal, VerdictError, VoidReason, Withdrawal};
use crate::identity::Directory;
use crate::ledger::{Event, HoldEnd};
use crate::refusal::Refusal;
use crate::statement::{Outcome, RequestId};

/// How much the desk takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests of one agent that wait at a time.
    pub waiting_per_agent: usize,
    /// Requests that wait at a time.
    pub waiting: usize,
    /// The most memory that one agent's waiting requests take, in bytes.
    pub waiting_bytes_per_agent: usize,
    /// Requests that one agent may open in a minute, however quickly it withdraws them: each is a
    /// message to somebody.
    pub opened_per_minute: usize,
    /// How long a statement may not be asked for again after it was denied, in whatever values.
    pub cool_down: Duration,
    /// Ended requests that are remembered.
    pub history: usize,
    /// The most memory they take, in bytes.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_per_agent: 20,
            waiting: 10_000,
            waiting_bytes_per_agent: 128 << 20,
            opened_per_minute: 120,
            cool_down: Duration::from_secs(60),
            history: 2_000,
            history_bytes: 64 << 20,
        }
    }
}

/// What became of a hold, for the session that waits for it.
#[derive(Debug)]
pub enum Ending {
    /// It may run: once, as sealed, soon.
    Granted(Grant),
    /// Somebody said no.
    Denied {
        /// Who.
        by: ReviewerId,
        /// What they want the agent to know.
        message: Option<String>,
    },
    /// Nobody answered in time.
    Expired,
    /// It was withdrawn.
    Withdrawn {
        /// Why.
        reason: Withdrawal,
    },
    /// Policy or people have changed, and what was asked for does not fit any more.
    Lapsed(VoidReason),
}

/// An opened request. For a deferred hold `ending` never comes: the statement fails at once, and is
/// claimed with [`Desk::claim`] when it is retried.
#[derive(Debug)]
pub struct Opened {
    /// What reviewers are shown.
    pub request: Arc<Request>,
    /// What becomes of it. Dropping this withdraws the request, sooner or later;
    /// [`Desk::withdraw`] does so at once and says why.
    pub ending: oneshot::Receiver<Ending>,
}

/// What [`Desk::claim`] found for a statement.
#[derive(Debug)]
pub enum Claim {
    /// It was approved. This is its one run.
    Granted(Grant),
    /// It still waits.
    Waiting(RequestId),
    /// It was denied a short while ago.
    Denied {
        /// The request.
        request: RequestId,
        /// Who said no.
        by: ReviewerId,
        /// What they want the agent to know.
        message: Option<String>,
    },
    /// Nothing is known of it.
    None,
}

/// Where held statements wait. Cheap to clone; all clones are one desk.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    limits: Limits,
    recorder: Arc<dyn Recorder>,
    directory: Arc<ArcSwap<Directory>>,
    clock: Clock,
    index: Mutex<RequestIndex>,
    events: broadcast::Sender<DeskEvent>,
    /// Told when a deadline may have come closer.
    wake: Notify,
    /// Requests whose turn for a card has come; see [`Desk::announce_next`].
    next: Mutex<Vec<Arc<Entry>>>,
}

/// How many events a listener may lag behind before it misses some.
const EVENTS_KEPT: usize = 1024;

impl Desk {
    /// A desk at which nobody waits. [`Desk::run_timers`] has to run beside it.
    #[must_use]
    pub fn new(
        limits: Limits,
        recorder: Arc<dyn Recorder>,
        directory: Arc<ArcSwap<Directory>>,
        clock: Clock,
    ) -> Self {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Self(Arc::new(Inner {
            limits,
            recorder,
            directory,
            clock,
            index: Mutex::default(),
            events,
            wake: Notify::new(),
            next: Mutex::default(),
        }))
    }

    /// Opens a request: records it, then tells the channels. Refused when the agent has too many
    /// waiting, when the same was denied a short while ago, or when the ledger cannot write.
    pub fn open(&self, draft: Draft) -> Result<Opened, Refusal> {
        let now = self.now();
        let dedup_key = draft.seal.without_session().digest();
        let pattern = RequestPattern::of(&draft);
        let agent = draft.identity.agent.name.clone();
        if draft.terms.defer
            && let Some(waiting) = self.live_deferred(&dedup_key, now)
        {
            return Ok(joined(&waiting));
        }
        let (id, past, last_approved) = {
            let mut index = self.0.index.lock();
            if let Some(until) = index.cooling(&pattern, now) {
                let retry_after = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                return Err(Refusal::CoolingDown { retry_after });
            }
            index
                .reserve(&agent, memory_size(&draft), &self.0.limits, now)
                .map_err(|limit| Refusal::TooManyHolds { limit })?;
            let (past, last_approved) = index.past(&pattern);
            (new_id(&index), past, last_approved)
        };
        let bytes = memory_size(&draft);
        let opened = self.record_opened(id, draft, past, last_approved, now);
        let request = opened.inspect_err(|_| self.0.index.lock().release(&agent, bytes))?;
        let (sender, ending) = oneshot::channel();
        let deferred = request.is_deferred();
        let hold = Hold::new(request.clone());
        let next_change = hold.next_change();
        let entry = Arc::new(Entry {
            request: request.clone(),
            dedup_key,
            live: Mutex::new(EntryState {
                hold,
                waiting: (!deferred).then_some(sender),
                receipt: None,
                displayed: BTreeMap::new(),
            }),
        });
        // Whoever finds the request from now on waits until its card has been announced, so that
        // nobody hears of its end before its beginning.
        let live = entry.live.lock();
        let placement = {
            let mut index = self.0.index.lock();
            let placement = index.place(&entry);
            match placement {
                Ok(_) => index.schedule(id, next_change),
                Err(_) => index.release(&agent, bytes),
            }
            placement
        };
        match placement {
            Ok(Placement::First) => self.publish(DeskEvent::Opened { request: request.clone(), behind: 0 }),
            Ok(Placement::Behind(first, behind)) => {
                self.publish(DeskEvent::Joined { request: first.request.clone(), behind });
            }
            // Two sessions asked at once; the other was a moment earlier.
            Err(other) => {
                self.record_end(id, HoldEnd::Withdrawn, Some(Withdrawal::Duplicate.as_str()), None);
                return Ok(joined(&other));
            }
        }
        drop(live);
        self.0.wake.notify_one();
        info!(request = %request.id, agent = %agent, class = %request.draft.classification.class, deferred, "hold opened");
        Ok(Opened { request, ending })
    }

    fn record_opened(
        &self,
        id: RequestId,
        draft: Draft,
        past: Vec<crate::approval::request::Past>,
        last_approved: Option<crate::statement::Statement>,
        now: Timestamp,
    ) -> Result<Arc<Request>, Refusal> {
        let request = Request::open(id, draft, now, self.0.recorder.head(), past, last_approved);
        let request = Arc::new(request.map_err(|bad| match bad {
            BadDraft::InTransaction => Refusal::HoldInTransaction,
            BadDraft::SealDiffers => {
                Refusal::Internal { what: "the seal does not speak of the statement that is held" }
            }
        })?);
        self.0
            .recorder
            .append(Event::RequestOpened { request: request.clone() })
            .map_err(|Unrecorded { disk_full }| Refusal::LedgerUnavailable { disk_full })?;
        Ok(request)
    }

    /// The deferred hold that waits, or was granted and not claimed yet.
    fn live_deferred(&self, dedup_key: &crate::statement::Digest, now: Timestamp) -> Option<Arc<Entry>> {
        let entry = self.0.index.lock().deferred(dedup_key)?;
        // Its time may be over without a timer having noticed.
        self.on_time_for(&entry, now);
        let over = entry.live.lock().hold.state().is_final();
        (!over).then_some(entry)
    }

    /// Looks for a deferred hold that covers `seal`, and takes its grant when it was approved. The
    /// grant is handed out once; the next identical statement opens a new request.
    #[must_use]
    pub fn claim(&self, seal: &Seal) -> Claim {
        let now = self.now();
        let dedup_key = seal.without_session().digest();
        let entry = self.live_deferred(&dedup_key, now);
        self.announce_next();
        if let Some(entry) = entry {
            let mut live = entry.live.lock();
            if let Some(grant) = live.hold.take_grant(now) {
                self.0.index.lock().stop_deferring(&entry);
                self.reschedule(&live);
                return Claim::Granted(grant);
            }
            if live.hold.state_at(now) == HoldState::Waiting {
                return Claim::Waiting(entry.request.id);
            }
        }
        match self.0.index.lock().denied(&dedup_key, now) {
            Some(denial) => Claim::Denied { request: denial.request, by: denial.by, message: denial.message },
            None => Claim::None,
        }
    }

    /// Ends a request for a reason that is nobody's verdict. Nothing happens when it has ended.
    pub fn withdraw(&self, id: RequestId, reason: Withdrawal) {
        let now = self.now();
        let entry = self.0.index.lock().get(id);
        if let Some(entry) = entry {
            self.change_and_apply(&entry, |hold| hold.on_withdrawn(reason, now));
        }
    }

    /// The approved statement ran: its receipt goes onto the card.
    pub fn ran(&self, id: RequestId, outcome: &Outcome, duration: Duration) {
        let entry = self.0.index.lock().get(id);
        let Some(entry) = entry else { return };
        let receipt = view::receipt(outcome, duration);
        entry.live.lock().receipt = Some(receipt.clone());
        self.change_and_apply(&entry, Hold::on_ran);
        self.publish(DeskEvent::Ran { request: entry.request.clone(), receipt });
    }

    /// Tells the channels of requests that an earlier run of the proxy left open. The ledger closed
    /// them as withdrawn when it opened ([`Recovery::withdrawn`](crate::ledger::Recovery)): their
    /// sessions are gone, and a grant that was not used died with the process.
    pub fn close_left_over(&self, requests: &[RequestId]) {
        for id in requests {
            self.publish(DeskEvent::LeftOver { id: *id });
        }
    }

    /// Everything that happens from now on. A listener that lags more than about a thousand events
    /// behind misses some and has to ask for [`Desk::requests`] again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<DeskEvent> {
        self.0.events.subscribe()
    }

    /// The number of requests that wait, and of ended ones that are remembered.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        self.0.index.lock().counts()
    }

    /// The people who are configured now.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        self.0.directory.load_full()
    }

    /// The desk's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Lets `change` do something to a hold, and carries out what follows.
    fn change_and_apply(&self, entry: &Arc<Entry>, change: impl FnOnce(Hold) -> Hold) {
        {
            let mut live = entry.live.lock();
            let before = self.change(&mut live, change);
            self.apply_change(entry, &mut live, &before, None);
        }
        self.announce_next();
    }

    /// Announces the requests whose turn for a card has come, because the one before them in line has
    /// ended. Called with no entry in hand: each is locked while it is announced, so that nobody hears
    /// of its end before its beginning.
    fn announce_next(&self) {
        let next = std::mem::take(&mut *self.0.next.lock());
        for entry in next {
            let live = entry.live.lock();
            let LinePosition { behind, is_behind } = self.0.index.lock().position(&entry);
            if *live.hold.state() == HoldState::Waiting && !is_behind {
                self.publish(DeskEvent::Opened { request: entry.request.clone(), behind });
            }
        }
    }

    /// Replaces a hold by what `change` makes of it; says how it stood before.
    fn change(&self, live: &mut EntryState, change: impl FnOnce(Hold) -> Hold) -> HoldState {
        let before = live.hold.state().clone();
        let stand_in = Hold::new(live.hold.request().clone());
        live.hold = change(std::mem::replace(&mut live.hold, stand_in));
        before
    }

    /// Carries out what follows from a hold's change of state: the record (unless it was written
    /// before, as for verdicts), the session's answer, the index, the news.
    fn apply_change(
        &self,
        entry: &Arc<Entry>,
        live: &mut EntryState,
        before: &HoldState,
        recorded: Option<&HoldState>,
    ) {
        let now = self.now();
        let state = live.hold.state().clone();
        self.reschedule(live);
        if state == *before {
            return;
        }
        if recorded != Some(&state) {
            let (end, reason, by) = end_of(&state);
            if let Some(end) = end {
                self.record_end(entry.request.id, end, reason.as_deref(), by);
            }
        }
        info!(request = %entry.request.id, state = state.as_str(), "hold changed");
        if *before == HoldState::Waiting {
            self.stopped_waiting(entry, live, &state, now);
        }
        let mut over = state.is_final();
        self.publish(DeskEvent::Ended { request: entry.request.clone(), state: state.clone() });
        if let Some(sender) = live.waiting.take() {
            over |= self.answer_session(entry, live, sender, state, now);
        }
        let deferred_is_over = live.hold.state().is_final();
        let mut index = self.0.index.lock();
        if deferred_is_over {
            index.stop_deferring(entry);
        }
        if over {
            index.retire(entry, &self.0.limits);
        }
    }

    fn stopped_waiting(&self, entry: &Arc<Entry>, live: &EntryState, state: &HoldState, now: Timestamp) {
        let next = {
            let mut index = self.0.index.lock();
            index.remember(
                &entry.request,
                crate::approval::request::Past {
                    request: entry.request.id,
                    at: now,
                    ended: state.as_str(),
                    by: live.hold.reviews().iter().map(|review| review.reviewer.clone()).collect(),
                },
            );
            if let HoldState::Denied { by, message } = state {
                let denial = index::Denial {
                    request: entry.request.id,
                    by: by.clone(),
                    message: message.clone(),
                    until: crate::approval::request::later(now, self.0.limits.cool_down),
                };
                index.cool_down(RequestPattern::of(&entry.request.draft), entry.dedup_key, denial, now);
            }
            index.stop_waiting(entry)
        };
        match next {
            Some(NextInLine { first, is_new: true, .. }) => self.0.next.lock().push(first),
            Some(NextInLine { first, behind, is_new: false }) => {
                self.publish(DeskEvent::Joined { request: first.request.clone(), behind });
            }
            None => {}
        }
    }

    /// Tells the waiting session what became of its hold. Says whether the hold is over by that:
    /// a grant that nobody is there to take is withdrawn.
    fn answer_session(
        &self,
        entry: &Arc<Entry>,
        live: &mut EntryState,
        sender: oneshot::Sender<Ending>,
        state: HoldState,
        now: Timestamp,
    ) -> bool {
        let ending = match state {
            HoldState::Granted { .. } => match live.hold.take_grant(now) {
                Some(grant) => Ending::Granted(grant),
                // Granted a moment ago and too old already: the clock was faster than we were.
                None => {
                    self.change(live, |hold| hold.on_time(now));
                    if *live.hold.state() != HoldState::Expired {
                        return false;
                    }
                    self.record_end(entry.request.id, HoldEnd::Expired, None, None);
                    self.publish(DeskEvent::Ended {
                        request: entry.request.clone(),
                        state: HoldState::Expired,
                    });
                    Ending::Expired
                }
            },
            HoldState::Denied { by, message } => Ending::Denied { by, message },
            HoldState::Expired => Ending::Expired,
            HoldState::Withdrawn { reason } => Ending::Withdrawn { reason },
            HoldState::Waiting | HoldState::Executed => return false,
        };
        self.reschedule(live);
        match sender.send(ending) {
            Ok(())
            | Err(Ending::Denied { .. } | Ending::Expired | Ending::Withdrawn { .. } | Ending::Lapsed(_)) => {
                false
            }
            Err(Ending::Granted(_)) => {
                let before = self.change(live, |hold| hold.on_withdrawn(Withdrawal::SessionGone, now));
                debug_assert!(matches!(before, HoldState::Granted { .. }));
                self.record_end(
                    entry.request.id,
                    HoldEnd::Withdrawn,
                    Some(Withdrawal::SessionGone.as_str()),
                    None,
                );
                let state = live.hold.state().clone();
                self.publish(DeskEvent::Ended { request: entry.request.clone(), state });
                true
            }
        }
    }

    fn reschedule(&self, live: &EntryState) {
        let mut index = self.0.index.lock();
        index.schedule(live.hold.request().id, live.hold.next_change());
        drop(index);
        self.0.wake.notify_one();
    }

    /// Records an end that is on the safe side, so that it takes effect whether or not it can be
    /// written: nothing runs because of it. When the ledger cannot write, nothing runs at all.
    fn record_end(&self, request: RequestId, end: HoldEnd, reason: Option<&str>, by: Option<ReviewerId>) {
        let reason = reason.map(str::to_owned);
        if let Err(unrecorded) = self.0.recorder.append(Event::HoldEnded { request, end, reason, by }) {
            error!(%request, ?end, %unrecorded, "the end of a hold is not in the ledger");
        }
    }

    fn publish(&self, event: DeskEvent) {
        // Nobody listening is fine.
        let _ = self.0.events.send(event);
    }
}

fn joined(entry: &Entry) -> Opened {
    let (_, ending) = oneshot::channel();
    Opened { request: entry.request.clone(), ending }
}

/// An id whose code no request on the index has.
fn new_id(index: &RequestIndex) -> RequestId {
    loop {
        let id = RequestId(Uuid::now_v7());
        if !index.has_code(&id.code()) {
            return id;
        }
    }
}

fn end_of(state: &HoldState) -> (Option<HoldEnd>, Option<String>, Option<ReviewerId>) {
    match state {
        HoldState::Waiting => (None, None, None),
        HoldState::Granted { .. } => (Some(HoldEnd::Granted), None, None),
        HoldState::Denied { by, message } => (Some(HoldEnd::Denied), message.clone(), Some(by.clone())),
        HoldState::Expired => (Some(HoldEnd::Expired), None, None),
        HoldState::Withdrawn { reason } => (Some(HoldEnd::Withdrawn), Some(reason.to_string()), None),
        HoldState::Executed => (Some(HoldEnd::Executed), None, None),
    }
}

impl From<Unrecorded> for VerdictError {
    fn from(_: Unrecorded) -> Self {
        Self::Unrecorded
    }
}
