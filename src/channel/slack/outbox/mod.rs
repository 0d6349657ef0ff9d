//! What has to be sent to Slack, and in which order.
//!
//! For every request it is kept what its card should show and what Slack is known to show; what is
//! to be done is the difference. So a notice replaces earlier ones, an outage leaves no pile of old
//! news, and per request one thing happens at a time: the card is posted, then changed, then the
//! receipt follows in its thread.
//!
//! This is a value: it reads no clock and calls nobody. [`courier`](super::courier) asks it for the
//! next [`Errand`] and tells it how that went.
//!
//! When Slack cannot be reached everything waits, longer after each failure, and one errand at a time
//! tries. When it says that it is asked too much of one kind, that kind waits as long as it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::journal::Place;
use super::settings::Timing;
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Verdict};
use crate::statement::RequestId;

#[cfg(test)]
mod tests;

/// What Slack counts separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `chat.update`
    Update,
    /// `chat.postMessage`
    Post,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) id: RequestId,
    pub(super) what: What,
    /// Only the least is shown, because Slack refused the rest.
    pub(super) brief: bool,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Show the card.
    Post,
    /// Show how it stands now.
    Update { place: Place, key: String },
    /// Take the buttons off a card of an earlier run.
    Close { place: Place },
    /// Say in the thread what the statement did.
    Receipt { place: Place, receipt: ReceiptJson },
    /// Say in the thread how it ended, because the card cannot be changed any more.
    Ending { place: Place },
}

impl What {
    fn kind(&self) -> Kind {
        match self {
            Self::Update { .. } | Self::Close { .. } => Kind::Update,
            Self::Post | Self::Receipt { .. } | Self::Ending { .. } => Kind::Post,
        }
    }

    fn in_words(&self) -> &'static str {
        match self {
            Self::Post => "post the card",
            Self::Update { .. } => "change the card",
            Self::Close { .. } => "close the card of an earlier run",
            Self::Receipt { .. } => "post the receipt",
            Self::Ending { .. } => "post how it ended",
        }
    }
}

/// What should happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This. It has to be reported with [`Outbox::done`] or [`Outbox::failed`].
    Do(Errand),
    /// Nothing before then.
    WaitUntil(Instant),
    /// Nothing before something happens.
    Idle,
}

/// How an errand went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The card is shown there, since then.
    Posted { place: Place, at: Timestamp },
    /// It was done.
    Sent,
    /// There was nothing to do after all.
    Needless,
}

/// How an errand failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Slack wants fewer calls of this kind.
    TooMany { wait: Duration },
    /// Slack cannot be reached, or has a problem of its own.
    Passing { error: String },
    /// Only an operator can mend it.
    Refused { error: String },
    /// Slack takes no such message.
    TooMuch { error: String },
    /// The message is not there any more.
    Gone,
    /// Messages of that age may not be changed in this workspace.
    Unchangeable,
    /// It will not work, however often it is tried.
    Hopeless { error: String },
}

/// What follows for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A card with buttons is shown.
    Shown(RequestId, Place),
    /// It has none any more.
    Closed(RequestId),
}

/// Something that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The request's code.
    pub request: String,
    /// What was to be done.
    pub what: &'static str,
    /// Slack's answer.
    pub error: String,
    /// When it was given up.
    pub at: Timestamp,
}

/// What is known of a card, for whoever looks at a click.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) request: Arc<Request>,
    /// Where it is; `None` while Slack has not said so yet.
    pub(super) place: Option<Place>,
    pub(super) displayed_at: Option<Timestamp>,
    pub(super) offered: Vec<Verdict>,
}

/// The card that a button's value belongs to.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// This one, as it is shown.
    Card(Known),
    /// A copy of it: a post that was thought to have failed.
    Copy(Known),
    /// The request has a card, but it carries something else.
    OtherKey(Known),
    /// None that is known.
    Nothing,
}

/// The messages to send.
#[derive(Debug)]
pub(super) struct Outbox {
    timing: Timing,
    cards: BTreeMap<RequestId, Card>,
    ready: BTreeMap<Kind, BTreeSet<(Urgency, u64, RequestId)>>,
    delayed: BTreeSet<(Instant, u64, RequestId)>,
    /// Slack said to wait with these.
    paused: BTreeMap<Kind, Instant>,
    /// Everything waits.
    halted: Option<Instant>,
    /// Failures since something last worked.
    failures: u32,
    in_flight: usize,
    /// New cards may be shown.
    posting: bool,
    sequence: u64,
    over: VecDeque<RequestId>,
    dead: VecDeque<DeadLetter>,
}

#[derive(Debug)]
struct Card {
    code: String,
    /// `None` for a card of an earlier run.
    request: Option<Arc<Request>>,
    key: String,
    /// What the buttons of earlier attempts carried.
    old_keys: Vec<String>,
    place: Option<Place>,
    displayed_at: Option<Timestamp>,
    offered: Vec<Verdict>,
    /// What was sent last has buttons for answers.
    has_buttons: bool,
    state: HoldState,
    escalated: usize,
    /// What Slack shows may be out of date.
    stale: bool,
    receipt: Option<ReceiptJson>,
    attempts: u32,
    brief: bool,
    unchangeable: bool,
    queue: Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    None,
    Ready(Kind, Urgency, u64),
    Delayed(Instant, u64),
    Busy(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Buttons that do nothing any more are to go.
    Ended,
    /// Somebody should look.
    New,
    Progress,
    Receipt,
    LeftOver,
}

/// How many errands are under way at a time.
const AT_A_TIME: usize = 4;
/// How many cards are remembered after they have ended, for late clicks.
const REMEMBERED: usize = 2_000;
/// How many things that were given up are kept for `status`.
const DEAD_KEPT: usize = 100;
/// After so many attempts, what has ended is given up. What still waits never is.
const MOST_ATTEMPTS: u32 = 20;

impl Outbox {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            cards: BTreeMap::new(),
            ready: BTreeMap::from([(Kind::Update, BTreeSet::new()), (Kind::Post, BTreeSet::new())]),
            delayed: BTreeSet::new(),
            paused: BTreeMap::new(),
            halted: None,
            failures: 0,
            in_flight: 0,
            posting: false,
            sequence: 0,
            over: VecDeque::new(),
            dead: VecDeque::new(),
        }
    }

    /// A request waits. When it is known already, its card may be out of date.
    pub(super) fn opened(&mut self, request: &Arc<Request>) {
        let new = || Card::new(request.id.code(), Some(request.clone()));
        self.cards.entry(request.id).or_insert_with(new).stale = true;
        self.queue(request.id);
    }

    /// Its card may be out of date.
    pub(super) fn changed(&mut self, id: RequestId) {
        if let Some(card) = self.cards.get_mut(&id) {
            card.stale = true;
            self.queue(id);
        }
    }

    /// So many of the further groups have been told.
    pub(super) fn escalated(&mut self, id: RequestId, told: usize) {
        if let Some(card) = self.cards.get_mut(&id) {
            card.escalated = card.escalated.max(told);
        }
        self.changed(id);
    }

    /// It was granted, or ended. What was never shown need not be shown now.
    pub(super) fn ended(&mut self, id: RequestId, state: &HoldState) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if card.state == *state {
            return;
        }
        let first = card.state == HoldState::Waiting;
        card.state = state.clone();
        card.stale = true;
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
    pub(super) fn left_over(&mut self, id: RequestId, place: Place) {
        if self.cards.contains_key(&id) {
            return;
        }
        self.cards
            .insert(id, Card { place: Some(place), state: HoldState::Expired, ..Card::new(id.code(), None) });
        self.over.push_back(id);
        self.queue(id);
    }

    /// A card of an earlier run is still shown, and its request waits. Its buttons get a new key.
    pub(super) fn adopt(&mut self, request: &Arc<Request>, place: Place, key: String, at: Timestamp) {
        let card = Card {
            place: Some(place),
            key,
            displayed_at: Some(at),
            ..Card::new(request.id.code(), Some(request.clone()))
        };
        self.cards.insert(request.id, card);
        self.queue(request.id);
    }

    /// Whether new cards may be shown. Until that is known, they may not.
    pub(super) fn allow_posting(&mut self, allowed: bool) {
        self.posting = allowed;
    }

    /// What should happen now.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.wake(now);
        if let Some(until) = self.halted.filter(|until| *until > now) {
            return Next::WaitUntil(until);
        }
        let most = if self.failures > 0 { 1 } else { AT_A_TIME };
        if self.in_flight >= most {
            return Next::Idle;
        }
        let open = |kind: &Kind| {
            (self.posting || *kind != Kind::Post) && self.paused.get(kind).is_none_or(|until| *until <= now)
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

    /// What is about to be sent: what its buttons carry and which there are. `key` is given for posts.
    pub(super) fn sending(&mut self, id: RequestId, key: Option<String>, offers: &[Verdict]) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        if let Some(key) = key {
            let old = std::mem::replace(&mut card.key, key);
            if !old.is_empty() {
                card.old_keys.push(old);
            }
        }
        card.has_buttons = !offers.is_empty();
        // Somebody may be pressing a button of the card as it was. What is over says so itself.
        if card.state == HoldState::Waiting && !offers.is_empty() {
            card.offered = offers.to_vec();
        }
    }

    /// An errand was done.
    pub(super) fn done(&mut self, id: RequestId, done: Done) -> Option<Note> {
        self.failures = 0;
        self.halted = None;
        self.landed(id)?;
        let card = self.cards.get_mut(&id)?;
        card.attempts = 0;
        let note = match done {
            Done::Posted { place, at } => {
                card.place = Some(place.clone());
                card.displayed_at = Some(at);
                Some(Note::Shown(id, place))
            }
            // Unless something happened meanwhile that it does not show yet.
            Done::Sent if !card.has_buttons && !card.stale => Some(Note::Closed(id)),
            Done::Sent | Done::Needless => None,
        };
        self.queue(id);
        self.forget();
        note
    }

    /// An errand failed.
    pub(super) fn failed(
        &mut self,
        errand: &Errand,
        failure: Failure,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Note> {
        let id = errand.id;
        let kind = self.landed(id)?;
        self.slow_down(kind, &failure, now);
        let (timing, sequence) = (self.timing, self.sequence);
        let card = self.cards.get_mut(&id)?;
        card.want_again(errand);
        let mut note = None;
        let mut given_up = None;
        match failure {
            Failure::TooMany { .. } | Failure::Refused { .. } => {}
            Failure::Passing { error } => {
                card.attempts += 1;
                if card.attempts <= MOST_ATTEMPTS || card.state == HoldState::Waiting {
                    let wait = back_off(&timing, card.attempts, sequence);
                    self.delay(id, now + wait);
                    return None;
                }
                given_up = Some(error);
            }
            Failure::TooMuch { error } if card.brief => given_up = Some(error),
            Failure::TooMuch { .. } => card.brief = true,
            Failure::Gone => {
                // Somebody deleted it. A request that waits needs a card.
                card.place = None;
                card.receipt = None;
                card.stale = card.state == HoldState::Waiting;
                note = Some(Note::Closed(id));
            }
            Failure::Unchangeable if card.unchangeable || card.request.is_none() => {
                given_up = Some("it cannot be changed any more".to_owned());
                note = Some(Note::Closed(id));
            }
            Failure::Unchangeable => card.unchangeable = true,
            Failure::Hopeless { error } => given_up = Some(error),
        }
        if let Some(error) = given_up {
            card.want_no_more(errand);
            let request = card.code.clone();
            self.dead.push_back(DeadLetter { request, what: errand.what.in_words(), error, at: wall });
            if self.dead.len() > DEAD_KEPT {
                self.dead.pop_front();
            }
        }
        self.queue(id);
        self.forget();
        note
    }

    /// What a failure means for everything else that is to be sent.
    fn slow_down(&mut self, kind: Kind, failure: &Failure, now: Instant) {
        let wait = match failure {
            Failure::TooMany { wait } => {
                self.paused.insert(kind, now + *wait);
                return;
            }
            // Slack answered, so it is there.
            Failure::TooMuch { .. } | Failure::Gone | Failure::Unchangeable | Failure::Hopeless { .. } => {
                self.failures = 0;
                return;
            }
            Failure::Passing { .. } => back_off(&self.timing, self.failures.saturating_add(1), self.sequence),
            Failure::Refused { .. } => self.timing.refused,
        };
        self.failures = self.failures.saturating_add(1);
        self.halted = Some(now + wait);
    }

    /// The card that a button's value belongs to.
    pub(super) fn find(&self, id: RequestId, key: &str) -> Found {
        let Some(card) = self.cards.get(&id) else { return Found::Nothing };
        let Some(known) = card.known() else { return Found::Nothing };
        if card.key == key {
            Found::Card(known)
        } else if card.old_keys.iter().any(|old| old == key) {
            Found::Copy(known)
        } else {
            Found::OtherKey(known)
        }
    }

    /// The card that is shown there.
    pub(super) fn at(&self, place: &Place) -> Option<Known> {
        self.cards.values().find(|card| card.place.as_ref() == Some(place)).and_then(Card::known)
    }

    /// What a request's card is rendered from besides the request: its buttons' key, how many of the
    /// further groups were told, and how it stood when that was last heard of.
    pub(super) fn known(&self, id: RequestId) -> Option<(Arc<Request>, HoldState, usize)> {
        let card = self.cards.get(&id)?;
        Some((card.request.clone()?, card.state.clone(), card.escalated))
    }

    /// How much waits to be sent.
    pub(super) fn queued(&self) -> usize {
        self.ready.values().map(BTreeSet::len).sum::<usize>() + self.delayed.len() + self.in_flight
    }

    /// What was given up, oldest first.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter()
    }

    /// Puts a card where it belongs, unless it is being worked on or has to wait.
    fn queue(&mut self, id: RequestId) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        match card.queue {
            Queue::Busy(_) | Queue::Delayed(..) => return,
            Queue::Ready(kind, urgency, sequence) => {
                if let Some(ready) = self.ready.get_mut(&kind) {
                    ready.remove(&(urgency, sequence, id));
                }
            }
            Queue::None => {}
        }
        card.queue = Queue::None;
        let Some((what, urgency)) = card.need() else { return };
        self.sequence += 1;
        card.queue = Queue::Ready(what.kind(), urgency, self.sequence);
        self.ready.entry(what.kind()).or_default().insert((urgency, self.sequence, id));
    }

    fn delay(&mut self, id: RequestId, until: Instant) {
        let Some(card) = self.cards.get_mut(&id) else { return };
        self.sequence += 1;
        card.queue = Queue::Delayed(until, self.sequence);
        self.delayed.insert((until, self.sequence, id));
    }

    /// What has waited long enough is ready again.
    fn wake(&mut self, now: Instant) {
        while let Some((until, sequence, id)) = self.delayed.first().copied()
            && until <= now
        {
            self.delayed.remove(&(until, sequence, id));
            if let Some(card) = self.cards.get_mut(&id) {
                card.queue = Queue::None;
            }
            self.queue(id);
        }
    }

    fn start(&mut self, id: RequestId) -> Option<Errand> {
        let card = self.cards.get_mut(&id)?;
        if let Queue::Ready(kind, urgency, sequence) = card.queue {
            self.ready.get_mut(&kind)?.remove(&(urgency, sequence, id));
        }
        card.queue = Queue::None;
        let (what, _) = card.need()?;
        card.queue = Queue::Busy(what.kind());
        let errand = Errand { id, what, brief: card.brief };
        card.want_no_more(&errand);
        self.in_flight += 1;
        Some(errand)
    }

    fn landed(&mut self, id: RequestId) -> Option<Kind> {
        let card = self.cards.get_mut(&id)?;
        let Queue::Busy(kind) = card.queue else { return None };
        card.queue = Queue::None;
        self.in_flight -= 1;
        Some(kind)
    }

    /// Forgets the oldest of the cards that have ended and have nothing left to be done.
    fn forget(&mut self) {
        while self.over.len() > REMEMBERED {
            let Some(id) = self.over.front() else { break };
            if self.cards.get(id).is_some_and(|card| card.queue != Queue::None) {
                // It is its turn as soon as Slack is back.
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
            escalated: 0,
            stale: true,
            receipt: None,
            attempts: 0,
            brief: false,
            unchangeable: false,
            queue: Queue::None,
        }
    }

    fn known(&self) -> Option<Known> {
        Some(Known {
            request: self.request.clone()?,
            place: self.place.clone(),
            displayed_at: self.displayed_at,
            offered: self.offered.clone(),
        })
    }

    /// What there is to do for it.
    fn need(&self) -> Option<(What, Urgency)> {
        let over = self.state != HoldState::Waiting;
        let Some(place) = self.place.clone() else {
            return (self.stale && !over).then_some((What::Post, Urgency::New));
        };
        if self.stale {
            if self.request.is_none() {
                return Some((What::Close { place }, Urgency::LeftOver));
            }
            if !self.unchangeable {
                let urgency = if over { Urgency::Ended } else { Urgency::Progress };
                return Some((What::Update { place, key: self.key.clone() }, urgency));
            }
            if self.state.is_final() {
                return Some((What::Ending { place }, Urgency::Ended));
            }
        }
        let receipt = self.receipt.clone()?;
        Some((What::Receipt { place, receipt }, Urgency::Receipt))
    }

    fn want_no_more(&mut self, errand: &Errand) {
        match errand.what {
            What::Post | What::Update { .. } | What::Close { .. } | What::Ending { .. } => self.stale = false,
            What::Receipt { .. } => self.receipt = None,
        }
    }

    fn want_again(&mut self, errand: &Errand) {
        match &errand.what {
            What::Post | What::Update { .. } | What::Close { .. } | What::Ending { .. } => self.stale = true,
            What::Receipt { receipt, .. } => {
                self.receipt.get_or_insert_with(|| receipt.clone());
            }
        }
    }
}

/// Doubles with every failure, and differs a little each time, so that many do not come at once.
pub(super) fn back_off(timing: &Timing, failures: u32, salt: u64) -> Duration {
    let doubled = timing.retry_first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let wait = doubled.min(timing.retry_most);
    let spread = u32::try_from(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).unwrap_or(0);
    wait.saturating_sub(wait.saturating_mul(spread) / 1024)
}
