//! Where the desk's requests stand: found by id, code, seal and deadline, counted by agent, and
//! forgotten when they have long ended.
//!
//! The shelf is only an index. How a request stands is in its [`Slot`], under a lock of its own, so
//! that writing one verdict to disk keeps nobody else waiting. Lock order: a slot may be locked
//! first and the shelf then, never the other way round, and never two slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Ending, Limits};
use crate::actor::{AgentName, DatabaseName, ReviewerId, UpstreamName};
use crate::approval::json::ReceiptJson;
use crate::approval::request::Past;
use crate::approval::{Draft, Hold, Request};
use crate::statement::{Digest, Fingerprint, RequestId, Statement};

/// One request.
pub(super) struct Slot {
    pub(super) request: Arc<Request>,
    /// Digest of the seal without its session: what identical requests have in common.
    pub(super) sameness: Digest,
    pub(super) live: Mutex<Live>,
}

/// What changes about a request.
pub(super) struct Live {
    pub(super) hold: Hold,
    /// The session that waits; none for a deferred hold.
    pub(super) waiting: Option<oneshot::Sender<Ending>>,
    pub(super) receipt: Option<ReceiptJson>,
    /// When the whole document was first displayed to whom.
    pub(super) displayed: BTreeMap<ReviewerId, Timestamp>,
}

/// What an agent asks for, values aside: what cools down after a denial, and what has a past.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Likeness {
    agent: AgentName,
    upstream: UpstreamName,
    database: DatabaseName,
    fingerprint: Fingerprint,
}

impl Likeness {
    pub(super) fn of(draft: &Draft) -> Self {
        Self {
            agent: draft.identity.agent.name.clone(),
            upstream: draft.target.upstream.clone(),
            database: draft.target.database.clone(),
            fingerprint: draft.classification.fingerprint,
        }
    }
}

/// Something that was denied, for as long as it may not be asked again.
#[derive(Clone)]
pub(super) struct Denial {
    pub(super) request: RequestId,
    pub(super) by: ReviewerId,
    pub(super) message: Option<String>,
    pub(super) until: Timestamp,
}

/// What one agent takes up.
#[derive(Default)]
struct Share {
    /// Requests that wait or are being opened.
    waiting: usize,
    /// Their weight.
    bytes: usize,
    /// When the latest were opened, within a minute.
    opened: VecDeque<Timestamp>,
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
/// How many endings are remembered for the "earlier requests like this one" of later ones.
const PAST_KEPT: usize = 512;
/// How many of them a request shows.
const PAST_SHOWN: usize = 5;

#[derive(Default)]
pub(super) struct Shelf {
    slots: BTreeMap<RequestId, Arc<Slot>>,
    codes: BTreeMap<String, RequestId>,
    shares: BTreeMap<AgentName, Share>,
    waiting: usize,
    /// Identical requests that wait, the one whose card is shown first.
    same: BTreeMap<Digest, VecDeque<RequestId>>,
    /// Deferred holds that can be claimed or still wait.
    deferred: BTreeMap<Digest, RequestId>,
    /// When the clock next changes something.
    due: BTreeSet<(Timestamp, RequestId)>,
    due_of: BTreeMap<RequestId, Timestamp>,
    ended: VecDeque<(RequestId, usize)>,
    ended_bytes: usize,
    past: VecDeque<(Likeness, Past, Option<Statement>)>,
    cooling: BTreeMap<Likeness, Timestamp>,
    /// Deferred holds that were denied, by sameness.
    denied: BTreeMap<Digest, Denial>,
}

/// Where a new request took its place.
pub(super) enum Placed {
    /// It has a card of its own.
    First,
    /// It waits behind this one, as the so-manieth.
    Behind(Arc<Slot>, usize),
}

impl Shelf {
    /// Takes a place for one more request of `agent`, of `bytes` bytes, if there is one; otherwise
    /// says which limit was in the way.
    pub(super) fn reserve(
        &mut self,
        agent: &AgentName,
        bytes: usize,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), usize> {
        let share = self.shares.entry(agent.clone()).or_default();
        share.opened.retain(|at| now.duration_since(*at) < MINUTE);
        if share.waiting >= limits.waiting_per_agent {
            return Err(limits.waiting_per_agent);
        }
        if share.bytes.saturating_add(bytes) > limits.waiting_bytes_per_agent {
            return Err(share.waiting);
        }
        if share.opened.len() >= limits.opened_per_minute {
            return Err(limits.opened_per_minute);
        }
        if self.waiting >= limits.waiting {
            return Err(limits.waiting);
        }
        share.waiting += 1;
        share.bytes += bytes;
        share.opened.push_back(now);
        self.waiting += 1;
        Ok(())
    }

    /// Gives a place back: the request was not opened after all, or does not wait any more. There
    /// are as many shares as agents are configured, so they are kept.
    pub(super) fn release(&mut self, agent: &AgentName, bytes: usize) {
        if let Some(share) = self.shares.get_mut(agent) {
            share.waiting = share.waiting.saturating_sub(1);
            share.bytes = share.bytes.saturating_sub(bytes);
        }
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Puts an opened request onto the shelf. `Err` gives the identical deferred hold that is here
    /// already: of those there is one at a time, because any session may claim it.
    pub(super) fn place(&mut self, slot: &Arc<Slot>) -> Result<Placed, Arc<Slot>> {
        let id = slot.request.id;
        if slot.request.is_deferred() {
            if let Some(other) = self.deferred.get(&slot.sameness).and_then(|other| self.slots.get(other)) {
                return Err(other.clone());
            }
            self.deferred.insert(slot.sameness, id);
        }
        self.slots.insert(id, slot.clone());
        self.codes.insert(id.code(), id);
        let same = self.same.entry(slot.sameness).or_default();
        same.push_back(id);
        let behind = same.len() - 1;
        let first = same.front().and_then(|first| self.slots.get(first)).cloned();
        Ok(match first {
            Some(first) if behind > 0 => Placed::Behind(first, behind),
            Some(_) | None => Placed::First,
        })
    }

    /// The request no longer waits. Gives the one whose card is to be shown next, if it was this
    /// one's turn, or the one whose card has one fewer behind it; and how many are behind that.
    pub(super) fn stop_waiting(&mut self, slot: &Slot) -> Option<(Arc<Slot>, usize, bool)> {
        self.release(&slot.request.draft.identity.agent.name, weight(&slot.request.draft));
        let same = self.same.get_mut(&slot.sameness)?;
        let was_first = same.front() == Some(&slot.request.id);
        same.retain(|id| *id != slot.request.id);
        let behind = same.len().saturating_sub(1);
        let Some(first) = same.front().copied() else {
            self.same.remove(&slot.sameness);
            return None;
        };
        self.slots.get(&first).map(|first| (first.clone(), behind, was_first))
    }

    /// A deferred hold can no longer be claimed.
    pub(super) fn stop_deferring(&mut self, slot: &Slot) {
        if self.deferred.get(&slot.sameness) == Some(&slot.request.id) {
            self.deferred.remove(&slot.sameness);
        }
    }

    pub(super) fn deferred(&self, sameness: &Digest) -> Option<Arc<Slot>> {
        self.deferred.get(sameness).and_then(|id| self.slots.get(id)).cloned()
    }

    /// Requests identical to `slot` that wait, besides itself.
    pub(super) fn twins(&self, slot: &Slot) -> Vec<RequestId> {
        let same = self.same.get(&slot.sameness);
        same.into_iter().flatten().copied().filter(|id| *id != slot.request.id).collect()
    }

    /// How many wait behind `slot`, and whether it waits behind another.
    pub(super) fn behind(&self, slot: &Slot) -> (usize, bool) {
        match self.same.get(&slot.sameness) {
            Some(same) if same.front() == Some(&slot.request.id) => (same.len() - 1, false),
            Some(same) => (0, same.contains(&slot.request.id)),
            None => (0, false),
        }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<Arc<Slot>> {
        self.slots.get(&id).cloned()
    }

    pub(super) fn by_code(&self, code: &str) -> Option<Arc<Slot>> {
        self.codes.get(code).and_then(|id| self.slots.get(id)).cloned()
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.codes.contains_key(code)
    }

    /// Everything that is here, or was opened before `before`, newest first.
    pub(super) fn newest_first(&self, before: Option<RequestId>) -> impl Iterator<Item = &Arc<Slot>> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.slots.range((Bound::Unbounded, end)).map(|(_, slot)| slot).rev()
    }

    /// Notes when the clock next changes `id`.
    pub(super) fn schedule(&mut self, id: RequestId, at: Option<Timestamp>) {
        if let Some(before) = self.due_of.remove(&id) {
            self.due.remove(&(before, id));
        }
        if let Some(at) = at {
            self.due.insert((at, id));
            self.due_of.insert(id, at);
        }
    }

    /// What is due at `now`.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Arc<Slot>> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, id)| self.slots.get(id)).cloned().collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Remembers an ended request for a while, and forgets the oldest beyond the limits. The ledger
    /// has all of them.
    pub(super) fn retire(&mut self, slot: &Slot, limits: &Limits) {
        let bytes = weight(&slot.request.draft);
        self.ended.push_back((slot.request.id, bytes));
        self.ended_bytes += bytes;
        while self.ended.len() > limits.history
            || (self.ended_bytes > limits.history_bytes && self.ended.len() > 1)
        {
            let Some((id, bytes)) = self.ended.pop_front() else { break };
            self.ended_bytes -= bytes;
            if self.slots.remove(&id).is_some() && self.codes.get(&id.code()) == Some(&id) {
                self.codes.remove(&id.code());
            }
        }
    }

    /// Remembers how a request ended, for later ones like it.
    pub(super) fn remember(&mut self, request: &Request, past: Past) {
        // Without its secrets it could not be compared, and with them it is shown to nobody.
        let approved = past.ended == "granted" && !request.draft.holds_secrets();
        let statement = approved.then(|| request.draft.statement.clone());
        self.past.push_front((Likeness::of(&request.draft), past, statement));
        self.past.truncate(PAST_KEPT);
    }

    /// What was said to requests like `likeness`, newest first, and the last statement approved.
    pub(super) fn past(&self, likeness: &Likeness) -> (Vec<Past>, Option<Statement>) {
        let like = || self.past.iter().filter(|(other, ..)| other == likeness);
        let shown = like().take(PAST_SHOWN).map(|(_, past, _)| past.clone()).collect();
        (shown, like().find_map(|(_, _, statement)| statement.clone()))
    }

    /// `likeness` may not be asked before `until`.
    pub(super) fn cool_down(&mut self, likeness: Likeness, sameness: Digest, denial: Denial, now: Timestamp) {
        self.cooling.retain(|_, until| *until > now);
        self.denied.retain(|_, denial| denial.until > now);
        self.cooling.insert(likeness, denial.until);
        self.denied.insert(sameness, denial);
    }

    pub(super) fn cooling(&self, likeness: &Likeness, now: Timestamp) -> Option<Timestamp> {
        self.cooling.get(likeness).copied().filter(|until| *until > now)
    }

    pub(super) fn denied(&self, sameness: &Digest, now: Timestamp) -> Option<Denial> {
        self.denied.get(sameness).filter(|denial| denial.until > now).cloned()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting, self.ended.len())
    }
}

/// About how much memory a request takes.
pub(super) fn weight(draft: &Draft) -> usize {
    let parameters: usize = draft
        .statement
        .parameters
        .iter()
        .map(|parameter| parameter.value.as_ref().map_or(0, |v| v.len()))
        .sum();
    let transaction: usize =
        draft.transaction.statements.iter().chain(&draft.transaction.batch).map(String::len).sum();
    draft.statement.sql.len() + parameters + transaction + 1024
}
