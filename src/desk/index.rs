//! Where the desk's requests stand: found by id, code, seal and deadline, counted by agent, and
//! forgotten when they have long ended.
//!
//! The index is only an index. How a request stands is in its [`Entry`], under a lock of its own, so
//! that writing one verdict to disk keeps nobody else waiting. Lock order: a entry may be locked
//! first and the index then, never the other way round, and never two entries.

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
pub(super) struct Entry {
    pub(super) request: Arc<Request>,
    /// Digest of the seal without its session: what identical requests have in common.
    pub(super) dedup_key: Digest,
    pub(super) live: Mutex<EntryState>,
}

/// What changes about a request.
pub(super) struct EntryState {
    pub(super) hold: Hold,
    /// The session that waits; none for a deferred hold.
    pub(super) waiting: Option<oneshot::Sender<Ending>>,
    pub(super) receipt: Option<ReceiptJson>,
    /// When the whole document was first displayed to whom.
    pub(super) displayed: BTreeMap<ReviewerId, Timestamp>,
}

/// What an agent asks for, values aside: what cools down after a denial, and what has a past.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestPattern {
    agent: AgentName,
    upstream: UpstreamName,
    database: DatabaseName,
    fingerprint: Fingerprint,
}

impl RequestPattern {
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
struct AgentUsage {
    /// Requests that wait or are being opened.
    waiting: usize,
    /// Their memory_size.
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
pub(super) struct RequestIndex {
    entries: BTreeMap<RequestId, Arc<Entry>>,
    codes: BTreeMap<String, RequestId>,
    usage: BTreeMap<AgentName, AgentUsage>,
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
    past: VecDeque<(RequestPattern, Past, Option<Statement>)>,
    cooling: BTreeMap<RequestPattern, Timestamp>,
    /// Deferred holds that were denied, by dedup_key.
    denied: BTreeMap<Digest, Denial>,
}

/// The position of a request in the line of identical ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinePosition {
    /// Identical requests that wait behind it.
    pub(super) behind: usize,
    /// It waits behind another one itself.
    pub(super) is_behind: bool,
}

/// The number of requests at the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests that wait.
    pub waiting: usize,
    /// Ended requests that are remembered.
    pub ended: usize,
}

/// The request whose card is affected when another one stops waiting.
pub(super) struct NextInLine {
    /// The first of the identical requests that are left.
    pub(super) first: Arc<Entry>,
    /// How many wait behind it.
    pub(super) behind: usize,
    /// It has become the first by this, so its card has to be shown.
    pub(super) is_new: bool,
}

/// The position that a new request took.
pub(super) enum Placement {
    /// It has a card of its own.
    First,
    /// It waits behind this one, as the so-manieth.
    Behind(Arc<Entry>, usize),
}

impl RequestIndex {
    /// Takes a place for one more request of `agent`, of `bytes` bytes, if there is one; otherwise
    /// says which limit was in the way.
    pub(super) fn reserve(
        &mut self,
        agent: &AgentName,
        bytes: usize,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), usize> {
        let usage = self.usage.entry(agent.clone()).or_default();
        usage.opened.retain(|at| now.duration_since(*at) < MINUTE);
        if usage.waiting >= limits.waiting_per_agent {
            return Err(limits.waiting_per_agent);
        }
        if usage.bytes.saturating_add(bytes) > limits.waiting_bytes_per_agent {
            return Err(usage.waiting);
        }
        if usage.opened.len() >= limits.opened_per_minute {
            return Err(limits.opened_per_minute);
        }
        if self.waiting >= limits.waiting {
            return Err(limits.waiting);
        }
        usage.waiting += 1;
        usage.bytes += bytes;
        usage.opened.push_back(now);
        self.waiting += 1;
        Ok(())
    }

    /// Gives a place back: the request was not opened after all, or does not wait any more. There
    /// are as many usage as agents are configured, so they are kept.
    pub(super) fn release(&mut self, agent: &AgentName, bytes: usize) {
        if let Some(usage) = self.usage.get_mut(agent) {
            usage.waiting = usage.waiting.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(bytes);
        }
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Puts an opened request onto the index. `Err` gives the identical deferred hold that is here
    /// already: of those there is one at a time, because any session may claim it.
    pub(super) fn place(&mut self, entry: &Arc<Entry>) -> Result<Placement, Arc<Entry>> {
        let id = entry.request.id;
        if entry.request.is_deferred() {
            if let Some(other) = self.deferred.get(&entry.dedup_key).and_then(|other| self.entries.get(other))
            {
                return Err(other.clone());
            }
            self.deferred.insert(entry.dedup_key, id);
        }
        self.entries.insert(id, entry.clone());
        self.codes.insert(id.code(), id);
        let same = self.same.entry(entry.dedup_key).or_default();
        same.push_back(id);
        let behind = same.len() - 1;
        let first = same.front().and_then(|first| self.entries.get(first)).cloned();
        Ok(match first {
            Some(first) if behind > 0 => Placement::Behind(first, behind),
            Some(_) | None => Placement::First,
        })
    }

    /// The request no longer waits. Gives the one whose card is to be shown next, if it was this
    /// one's turn, or the one whose card has one fewer behind it; and how many are behind that.
    pub(super) fn stop_waiting(&mut self, entry: &Entry) -> Option<NextInLine> {
        self.release(&entry.request.draft.identity.agent.name, memory_size(&entry.request.draft));
        let same = self.same.get_mut(&entry.dedup_key)?;
        let was_first = same.front() == Some(&entry.request.id);
        same.retain(|id| *id != entry.request.id);
        let behind = same.len().saturating_sub(1);
        let Some(first) = same.front().copied() else {
            self.same.remove(&entry.dedup_key);
            return None;
        };
        self.entries.get(&first).map(|first| NextInLine { first: first.clone(), behind, is_new: was_first })
    }

    /// A deferred hold can no longer be claimed.
    pub(super) fn stop_deferring(&mut self, entry: &Entry) {
        if self.deferred.get(&entry.dedup_key) == Some(&entry.request.id) {
            self.deferred.remove(&entry.dedup_key);
        }
    }

    pub(super) fn deferred(&self, dedup_key: &Digest) -> Option<Arc<Entry>> {
        self.deferred.get(dedup_key).and_then(|id| self.entries.get(id)).cloned()
    }

    /// Requests identical to `entry` that wait, besides itself.
    pub(super) fn identical(&self, entry: &Entry) -> Vec<RequestId> {
        let same = self.same.get(&entry.dedup_key);
        same.into_iter().flatten().copied().filter(|id| *id != entry.request.id).collect()
    }

    /// How many wait behind `entry`, and whether it waits behind another.
    pub(super) fn position(&self, entry: &Entry) -> LinePosition {
        match self.same.get(&entry.dedup_key) {
            Some(same) if same.front() == Some(&entry.request.id) => {
                LinePosition { behind: same.len() - 1, is_behind: false }
            }
            Some(same) => LinePosition { behind: 0, is_behind: same.contains(&entry.request.id) },
            None => LinePosition { behind: 0, is_behind: false },
        }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<Arc<Entry>> {
        self.entries.get(&id).cloned()
    }

    pub(super) fn by_code(&self, code: &str) -> Option<Arc<Entry>> {
        self.codes.get(code).and_then(|id| self.entries.get(id)).cloned()
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.codes.contains_key(code)
    }

    /// Everything that is here, or was opened before `before`, newest first.
    pub(super) fn newest_first(&self, before: Option<RequestId>) -> impl Iterator<Item = &Arc<Entry>> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((Bound::Unbounded, end)).map(|(_, entry)| entry).rev()
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
    pub(super) fn due(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, id)| self.entries.get(id)).cloned().collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Remembers an ended request for a while, and forgets the oldest beyond the limits. The ledger
    /// has all of them.
    pub(super) fn retire(&mut self, entry: &Entry, limits: &Limits) {
        let bytes = memory_size(&entry.request.draft);
        self.ended.push_back((entry.request.id, bytes));
        self.ended_bytes += bytes;
        while self.ended.len() > limits.history
            || (self.ended_bytes > limits.history_bytes && self.ended.len() > 1)
        {
            let Some((id, bytes)) = self.ended.pop_front() else { break };
            self.ended_bytes -= bytes;
            if self.entries.remove(&id).is_some() && self.codes.get(&id.code()) == Some(&id) {
                self.codes.remove(&id.code());
            }
        }
    }

    /// Remembers how a request ended, for later ones like it.
    pub(super) fn remember(&mut self, request: &Request, past: Past) {
        // Without its secrets it could not be compared, and with them it is shown to nobody.
        let approved = past.ended == "granted" && !request.draft.holds_secrets();
        let statement = approved.then(|| request.draft.statement.clone());
        self.past.push_front((RequestPattern::of(&request.draft), past, statement));
        self.past.truncate(PAST_KEPT);
    }

    /// What was said to requests like `pattern`, newest first, and the last statement approved.
    pub(super) fn past(&self, pattern: &RequestPattern) -> (Vec<Past>, Option<Statement>) {
        let like = || self.past.iter().filter(|(other, ..)| other == pattern);
        let shown = like().take(PAST_SHOWN).map(|(_, past, _)| past.clone()).collect();
        (shown, like().find_map(|(_, _, statement)| statement.clone()))
    }

    /// `pattern` may not be asked before `until`.
    pub(super) fn cool_down(
        &mut self,
        pattern: RequestPattern,
        dedup_key: Digest,
        denial: Denial,
        now: Timestamp,
    ) {
        self.cooling.retain(|_, until| *until > now);
        self.denied.retain(|_, denial| denial.until > now);
        self.cooling.insert(pattern, denial.until);
        self.denied.insert(dedup_key, denial);
    }

    pub(super) fn cooling(&self, pattern: &RequestPattern, now: Timestamp) -> Option<Timestamp> {
        self.cooling.get(pattern).copied().filter(|until| *until > now)
    }

    pub(super) fn denied(&self, dedup_key: &Digest, now: Timestamp) -> Option<Denial> {
        self.denied.get(dedup_key).filter(|denial| denial.until > now).cloned()
    }

    pub(super) fn counts(&self) -> RequestCounts {
        RequestCounts { waiting: self.waiting, ended: self.ended.len() }
    }
}

/// About how much memory a request takes.
pub(super) fn memory_size(draft: &Draft) -> usize {
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
