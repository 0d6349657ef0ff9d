//! What has to be sent to a chat service, and in which order.
//!
//! For every request the outbox keeps the state that its card should show and the state that the
//! service is known to show; what is to be done is the difference. So an event replaces earlier ones,
//! an outage leaves no backlog of old news, and one thing happens to a request at a time: the card is
//! posted, then changed, then the receipt follows in its thread.
//!
//! This is a value: it reads no clock and calls nobody. A channel's sender asks it for the next
//! [`Task`] and reports how that went.
//!
//! When the service cannot be reached everything waits, longer after each failure, and one task at a
//! time is tried. When it limits the rate of one kind of call, that kind waits as long as it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::journal::MessageRef;
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Verdict};
use crate::statement::RequestId;

#[cfg(test)]
mod tests;

/// How long a channel waits before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryTiming {
    /// The first wait after a failed call or connection. It doubles with every failure ..
    pub first: Duration,
    /// .. up to this.
    pub longest: Duration,
    /// The wait after an error that only an operator can repair (a revoked token, a missing channel).
    pub refused: Duration,
}

impl Default for RetryTiming {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            refused: Duration::from_secs(30),
        }
    }
}

/// The kinds of calls whose rate a service limits separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallKind {
    /// Changing a message.
    Update,
    /// Posting a message.
    Post,
}

/// One thing to do for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) id: RequestId,
    pub(super) action: Action,
    /// Show only what always fits, because the service refused the whole card.
    pub(super) brief: bool,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Posts the card.
    Post,
    /// Changes the card to the present state.
    Update { place: MessageRef, key: String },
    /// Takes the buttons off a card of an earlier run.
    Close { place: MessageRef },
    /// Posts into the thread what the statement did.
    Receipt { place: MessageRef, receipt: ReceiptJson },
    /// Posts into the thread how the request ended, because the card cannot be changed any more.
    Ending { place: MessageRef },
}

impl Action {
    fn kind(&self) -> CallKind {
        match self {
            Self::Update { .. } | Self::Close { .. } => CallKind::Update,
            Self::Post | Self::Receipt { .. } | Self::Ending { .. } => CallKind::Post,
        }
    }

    fn description(&self) -> &'static str {
        match self {
            Self::Post => "post the card",
            Self::Update { .. } => "change the card",
            Self::Close { .. } => "close the card of an earlier run",
            Self::Receipt { .. } => "post the receipt",
            Self::Ending { .. } => "post how it ended",
        }
    }
}

/// The next step of a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Carry this out, and report it with [`Outbox::done`] or [`Outbox::failed`].
    Do(Task),
    /// There is nothing to do before this time.
    WaitUntil(Instant),
    /// There is nothing to do before the next event or report.
    Idle,
}

/// How a task was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The card is shown there, since then.
    Posted { place: MessageRef, at: Timestamp },
    /// The message was sent.
    Sent,
    /// Nothing was left to do.
    NothingToDo,
}

/// How a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service limits calls of this kind.
    RateLimited { wait: Duration },
    /// The service cannot be reached, or has a problem of its own.
    Temporary { error: String },
    /// Only an operator can repair it.
    NeedsOperator { error: String },
    /// The service refuses the message because of its size or form.
    TooLarge { error: String },
    /// The message was deleted.
    MessageGone,
    /// The workspace does not allow messages of that age to be changed.
    NotEditable,
    /// It will not work, however often it is tried.
    Permanent { error: String },
}

/// A change that the journal has to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JournalChange {
    /// A card with buttons is shown.
    Shown(RequestId, MessageRef),
    /// The card has no buttons any more.
    Closed(RequestId),
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The request's code.
    pub request: String,
    /// What was to be done.
    pub what: &'static str,
    /// The service's answer.
    pub error: String,
    /// When it was given up.
    pub at: Timestamp,
}

/// A card as it is shown, to compare a click with.
#[derive(Clone, Debug)]
pub(super) struct ShownCard {
    pub(super) request: Arc<Request>,
    /// The message; `None` while the service has not named it yet.
    pub(super) place: Option<MessageRef>,
    pub(super) displayed_at: Option<Timestamp>,
    pub(super) offered: Vec<Verdict>,
}

/// The card that a button's value belongs to.
#[derive(Clone, Debug)]
pub(super) enum CardMatch {
    /// The card that is shown.
    Current(ShownCard),
    /// A copy of it: a post that seemed to have failed.
    Copy(ShownCard),
    /// The request has a card, but its buttons carry another value.
    OtherKey(ShownCard),
    /// No card that is known.
    Unknown,
}

/// The messages to send.
#[derive(Debug)]
pub(super) struct Outbox {
    timing: RetryTiming,
    cards: BTreeMap<RequestId, Card>,
    ready: BTreeMap<CallKind, BTreeSet<(Priority, u64, RequestId)>>,
    delayed: BTreeSet<(Instant, u64, RequestId)>,
    /// The service said to wait with these.
    paused: BTreeMap<CallKind, Instant>,
    /// Everything waits.
    paused_until: Option<Instant>,
    /// Failures since something last worked.
    failures: u32,
    in_flight: usize,
    /// New cards may be shown.
    may_post: bool,
    sequence: u64,
    over: VecDeque<RequestId>,
    dead: VecDeque<DeadLetter>,
}

#[derive(Debug)]
struct Card {
    code: String,
    /// `None` for a card of an earlier run.
    request: Option<Arc<Request>>,
    /// The value that its buttons carry.
    key: String,
    /// The values that buttons of earlier attempts carried.
    old_keys: Vec<String>,
    place: Option<MessageRef>,
    displayed_at: Option<Timestamp>,
    offered: Vec<Verdict>,
    /// What was sent last has buttons for answers.
    has_buttons: bool,
    state: HoldState,
    /// The service may show an older state.
    outdated: bool,
    receipt: Option<ReceiptJson>,
    attempts: u32,
    brief: bool,
    not_editable: bool,
    queue: QueueState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueState {
    None,
    Ready(CallKind, Priority, u64),
    Delayed(Instant, u64),
    Busy(CallKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    /// Buttons that do nothing any more are to go.
    Ended,
    /// Somebody should look.
    New,
    Progress,
    Receipt,
    LeftOver,
}

/// How many tasks are under way at a time.
const MAX_CONCURRENT: usize = 4;
/// How many cards are remembered after they have ended, for late clicks.
const ENDED_CARDS_KEPT: usize = 2_000;
/// How many messages that were given up are kept for `status`.
const DEAD_LETTERS_KEPT: usize = 100;
/// A card whose request has ended is given up after so many attempts. A waiting one never is.
const MAX_ATTEMPTS: u32 = 20;

impl Outbox {
    pub(super) fn new(timing: RetryTiming) -> Self {
        Self {
            timing,
            cards: BTreeMap::new(),
            ready: BTreeMap::from([(CallKind::Update, BTreeSet::new()), (CallKind::Post, BTreeSet::new())]),
            delayed: BTreeSet::new(),
            paused: BTreeMap::new(),
            paused_until: None,
            failures: 0,
            in_flight: 0,
            may_post: false,
            sequence: 0,
            over: VecDeque::new(),
            dead: VecDeque::new(),
        }
    }

    /// A request waits. When it is known already, its card may be out of date.
    pub(super) fn opened(&mut self, request: &Arc<Request>) {
        let new = || Card::new(request.id.code(), Some(request.clone()));
        self.cards.entry(request.id).or_insert_with(new).outdated = true;
        self.queue(request.id);
    }

    /// Its card may be out of date.
    pub(super) fn changed(&mut self, id: RequestId) {
        if let Some(card) = self.cards.get_mut(&id) {
            card.outdated = true;
            self.queue(id);
        }
    }

    /// It was granted, or ended. What was never shown need not be shown now.
    pub(super) fn ended(&mut self, id: RequestId, state: &HoldState) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if card.state == *state {
            return;
        }
        let first = card.state == HoldState::Waiting;
        card.state = state.clone();
        card.outdated = true;
        if first {
            self.over.push_back(id);
        }
        self.queue(id);
        self.forget();
    }

    /// The statement ran.
    pub(super) fn ran(&mut self, id: RequestId, receipt: &ReceiptJson) {
        if let Some(card) = self.cards.get_mut(&id) {
            card.receipt = Some(receipt.clone());
            self.queue(id);
        }
    }

    /// A card of an earlier run is still shown, and its request is over.
    pub(super) fn left_over(&mut self, id: RequestId, place: MessageRef) {
        if self.cards.contains_key(&id) {
            return;
        }
        self.cards
            .insert(id, Card { place: Some(place), state: HoldState::Expired, ..Card::new(id.code(), None) });
        self.over.push_back(id);
        self.queue(id);
    }

    /// A card of an earlier run is still shown, and its request waits. Its buttons get a new key.
    pub(super) fn adopt(&mut self, request: &Arc<Request>, place: MessageRef, key: String, at: Timestamp) {
        let card = Card {
            place: Some(place),
            key,
            displayed_at: Some(at),
            ..Card::new(request.id.code(), Some(request.clone()))
        };
        self.cards.insert(request.id, card);
        self.queue(request.id);
    }

    /// Sets whether new cards may be posted. At first they may not.
    pub(super) fn allow_posting(&mut self, allowed: bool) {
        self.may_post = allowed;
    }

    /// The next step of the sender.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.wake(now);
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Next::WaitUntil(until);
        }
        let most = if self.failures > 0 { 1 } else { MAX_CONCURRENT };
        if self.in_flight >= most {
            return Next::Idle;
        }
        let open = |kind: &CallKind| {
            (self.may_post || *kind != CallKind::Post)
                && self.paused.get(kind).is_none_or(|until| *until <= now)
        };
        let first = self
            .ready
            .iter()
            .filter(|(kind, _)| open(kind))
            .filter_map(|(_, ready)| ready.first())
            .min()
            .map(|(_, _, id)| *id);
        if let Some(id) = first {
            return self.start(id).map_or(Next::Idle, Next::Do);
        }
        let paused = self
            .paused
            .iter()
            .filter(|(kind, until)| {
                **until > now && self.ready.get(kind).is_some_and(|ready| !ready.is_empty())
            })
            .map(|(_, until)| *until);
        let delayed = self.delayed.first().map(|(until, ..)| *until);
        paused.chain(delayed).min().map_or(Next::Idle, Next::WaitUntil)
    }

    /// Notes the buttons of a card that is about to be sent. `key` is given for posts.
    pub(super) fn sending(&mut self, id: RequestId, key: Option<String>, offers: &[Verdict]) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if let Some(key) = key {
            let old = std::mem::replace(&mut card.key, key);
            if !old.is_empty() {
                card.old_keys.push(old);
            }
        }
        card.has_buttons = !offers.is_empty();
        // Somebody may press a button of the card as it was shown before.
        if card.state == HoldState::Waiting && !offers.is_empty() {
            card.offered = offers.to_vec();
        }
    }

    /// A task was done.
    pub(super) fn done(&mut self, id: RequestId, done: Done) -> Option<JournalChange> {
        self.failures = 0;
        self.paused_until = None;
        self.finish_task(id)?;
        let card = self.cards.get_mut(&id)?;
        card.attempts = 0;
        let note = match done {
            Done::Posted { place, at } => {
                card.place = Some(place.clone());
                card.displayed_at = Some(at);
                Some(JournalChange::Shown(id, place))
            }
            // A card that is outdated again is sent once more before it counts as closed.
            Done::Sent if !card.has_buttons && !card.outdated => Some(JournalChange::Closed(id)),
            Done::Sent | Done::NothingToDo => None,
        };
        self.queue(id);
        self.forget();
        note
    }

    /// A task failed.
    pub(super) fn failed(
        &mut self,
        task: &Task,
        failure: Failure,
        now: Instant,
        wall: Timestamp,
    ) -> Option<JournalChange> {
        let id = task.id;
        let kind = self.finish_task(id)?;
        self.slow_down(kind, &failure, now);
        let (timing, sequence) = (self.timing, self.sequence);
        let card = self.cards.get_mut(&id)?;
        card.mark_undone(task);
        let mut note = None;
        let mut given_up = None;
        match failure {
            Failure::RateLimited { .. } | Failure::NeedsOperator { .. } => {}
            Failure::Temporary { error } => {
                card.attempts += 1;
                if card.attempts <= MAX_ATTEMPTS || card.state == HoldState::Waiting {
                    let wait = back_off(&timing, card.attempts, sequence);
                    self.delay(id, now + wait);
                    return None;
                }
                given_up = Some(error);
            }
            Failure::TooLarge { error } if card.brief => given_up = Some(error),
            Failure::TooLarge { .. } => card.brief = true,
            Failure::MessageGone => {
                // Somebody deleted it. A request that waits needs a card.
                card.place = None;
                card.receipt = None;
                card.outdated = card.state == HoldState::Waiting;
                note = Some(JournalChange::Closed(id));
            }
            Failure::NotEditable if card.not_editable || card.request.is_none() => {
                given_up = Some("it cannot be changed any more".to_owned());
                note = Some(JournalChange::Closed(id));
            }
            Failure::NotEditable => card.not_editable = true,
            Failure::Permanent { error } => given_up = Some(error),
        }
        if let Some(error) = given_up {
            card.mark_started(task);
            let request = card.code.clone();
            self.dead.push_back(DeadLetter { request, what: task.action.description(), error, at: wall });
            if self.dead.len() > DEAD_LETTERS_KEPT {
                self.dead.pop_front();
            }
        }
        self.queue(id);
        self.forget();
        note
    }

    /// Makes other tasks wait, where a failure says so.
    fn slow_down(&mut self, kind: CallKind, failure: &Failure, now: Instant) {
        let wait = match failure {
            Failure::RateLimited { wait } => {
                self.paused.insert(kind, now + *wait);
                return;
            }
            // The service answered, so it can be reached.
            Failure::TooLarge { .. }
            | Failure::MessageGone
            | Failure::NotEditable
            | Failure::Permanent { .. } => {
                self.failures = 0;
                return;
            }
            Failure::Temporary { .. } => {
                back_off(&self.timing, self.failures.saturating_add(1), self.sequence)
            }
            Failure::NeedsOperator { .. } => self.timing.refused,
        };
        self.failures = self.failures.saturating_add(1);
        self.paused_until = Some(now + wait);
    }

    /// The card that a button's value belongs to.
    pub(super) fn find(&self, id: RequestId, key: &str) -> CardMatch {
        let Some(card) = self.cards.get(&id) else { return CardMatch::Unknown };
        let Some(known) = card.known() else { return CardMatch::Unknown };
        if card.key == key {
            CardMatch::Current(known)
        } else if card.old_keys.iter().any(|old| old == key) {
            CardMatch::Copy(known)
        } else {
            CardMatch::OtherKey(known)
        }
    }

    /// The card that is shown in a message.
    pub(super) fn at(&self, place: &MessageRef) -> Option<ShownCard> {
        self.cards.values().find(|card| card.place.as_ref() == Some(place)).and_then(Card::known)
    }

    /// A request and the state that it was in when that was last heard of.
    pub(super) fn last_known(&self, id: RequestId) -> Option<(Arc<Request>, HoldState)> {
        let card = self.cards.get(&id)?;
        Some((card.request.clone()?, card.state.clone()))
    }

    /// How much waits to be sent.
    pub(super) fn queued(&self) -> usize {
        self.ready.values().map(BTreeSet::len).sum::<usize>() + self.delayed.len() + self.in_flight
    }

    /// What was given up, oldest first.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter()
    }

    /// Puts a card into the queue of its next task, unless a task is under way or has to wait.
    fn queue(&mut self, id: RequestId) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        match card.queue {
            QueueState::Busy(_) | QueueState::Delayed(..) => return,
            QueueState::Ready(kind, priority, sequence) => {
                if let Some(ready) = self.ready.get_mut(&kind) {
                    ready.remove(&(priority, sequence, id));
                }
            }
            QueueState::None => {}
        }
        card.queue = QueueState::None;
        let Some((action, priority)) = card.next_action() else { return };
        self.sequence += 1;
        card.queue = QueueState::Ready(action.kind(), priority, self.sequence);
        self.ready.entry(action.kind()).or_default().insert((priority, self.sequence, id));
    }

    fn delay(&mut self, id: RequestId, until: Instant) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        self.sequence += 1;
        card.queue = QueueState::Delayed(until, self.sequence);
        self.delayed.insert((until, self.sequence, id));
    }

    /// Makes delayed cards ready whose time has come.
    fn wake(&mut self, now: Instant) {
        while let Some((until, sequence, id)) = self.delayed.first().copied()
            && until <= now
        {
            self.delayed.remove(&(until, sequence, id));
            if let Some(card) = self.cards.get_mut(&id) {
                card.queue = QueueState::None;
            }
            self.queue(id);
        }
    }

    fn start(&mut self, id: RequestId) -> Option<Task> {
        let card = self.cards.get_mut(&id)?;
        if let QueueState::Ready(kind, priority, sequence) = card.queue {
            self.ready.get_mut(&kind)?.remove(&(priority, sequence, id));
        }
        card.queue = QueueState::None;
        let (action, _) = card.next_action()?;
        card.queue = QueueState::Busy(action.kind());
        let task = Task { id, action, brief: card.brief };
        card.mark_started(&task);
        self.in_flight += 1;
        Some(task)
    }

    fn finish_task(&mut self, id: RequestId) -> Option<CallKind> {
        let card = self.cards.get_mut(&id)?;
        let QueueState::Busy(kind) = card.queue else { return None };
        card.queue = QueueState::None;
        self.in_flight -= 1;
        Some(kind)
    }

    /// Forgets the oldest of the cards that have ended and have nothing left to be done.
    fn forget(&mut self) {
        while self.over.len() > ENDED_CARDS_KEPT {
            let Some(id) = self.over.front() else { break };
            if self.cards.get(id).is_some_and(|card| card.queue != QueueState::None) {
                // It still has something to send.
                break;
            }
            self.cards.remove(id);
            self.over.pop_front();
        }
    }
}

impl Card {
    fn new(code: String, request: Option<Arc<Request>>) -> Self {
        Self {
            code,
            request,
            key: String::new(),
            old_keys: Vec::new(),
            place: None,
            displayed_at: None,
            offered: Vec::new(),
            has_buttons: false,
            state: HoldState::Waiting,
            outdated: true,
            receipt: None,
            attempts: 0,
            brief: false,
            not_editable: false,
            queue: QueueState::None,
        }
    }

    fn known(&self) -> Option<ShownCard> {
        Some(ShownCard {
            request: self.request.clone()?,
            place: self.place.clone(),
            displayed_at: self.displayed_at,
            offered: self.offered.clone(),
        })
    }

    /// The next thing to do for it.
    fn next_action(&self) -> Option<(Action, Priority)> {
        let over = self.state != HoldState::Waiting;
        let Some(place) = self.place.clone() else {
            return (self.outdated && !over).then_some((Action::Post, Priority::New));
        };
        if self.outdated {
            if self.request.is_none() {
                return Some((Action::Close { place }, Priority::LeftOver));
            }
            if !self.not_editable {
                let priority = if over { Priority::Ended } else { Priority::Progress };
                return Some((Action::Update { place, key: self.key.clone() }, priority));
            }
            if self.state.is_final() {
                return Some((Action::Ending { place }, Priority::Ended));
            }
        }
        let receipt = self.receipt.clone()?;
        Some((Action::Receipt { place, receipt }, Priority::Receipt))
    }

    fn mark_started(&mut self, task: &Task) {
        match task.action {
            Action::Post | Action::Update { .. } | Action::Close { .. } | Action::Ending { .. } => {
                self.outdated = false
            }
            Action::Receipt { .. } => self.receipt = None,
        }
    }

    fn mark_undone(&mut self, task: &Task) {
        match &task.action {
            Action::Post | Action::Update { .. } | Action::Close { .. } | Action::Ending { .. } => {
                self.outdated = true
            }
            Action::Receipt { receipt, .. } => {
                self.receipt.get_or_insert_with(|| receipt.clone());
            }
        }
    }
}

/// Doubles with every failure, with some jitter, so that many do not retry at once.
pub(super) fn back_off(timing: &RetryTiming, failures: u32, salt: u64) -> Duration {
    let doubled = timing.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let wait = doubled.min(timing.longest);
    let spread = u32::try_from(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).unwrap_or(0);
    wait.saturating_sub(wait.saturating_mul(spread) / 1024)
}
