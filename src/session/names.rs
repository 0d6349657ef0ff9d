//! What a name means upstream: prepared statements and portals.
//!
//! The invariant of this module: a meaning is **confirmed** only when upstream said so. Between a
//! message's forwarding and its answer the new meaning is *pending*, because the message may fail
//! and leave the old one in place. A map that is updated early says `select 1` while `Bind` runs the
//! old `DELETE`.
//!
//! Protocol names and SQL names are one space: `PREPARE x` can be bound, a parsed `x` can be
//! `EXECUTE`d. Postgres keeps both in tables keyed by 63 bytes (`NAMEDATALEN` - 1), so longer names
//! that agree in their first 63 bytes are the same name.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::statement::SqlText;

/// A name as upstream's tables know it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Bytes of a name that count (`NAMEDATALEN` - 1).
    pub const LONGEST: usize = 63;

    /// Cuts `name` as Postgres's tables do.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        Self(name.get(..Self::LONGEST).unwrap_or(name).into())
    }

    /// Whether it is the unnamed statement's or portal's.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a statement's name stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The text it was prepared from: the `Parse`'s own, or the whole text that held the `PREPARE`.
    pub sql: SqlText,
    /// Parameter types as declared in `Parse`.
    pub types: Box<[u32]>,
}

/// Orders proposals; each forwarded message that may change a name has its own.
pub type Ticket = u64;

/// One name's meanings. `None` as a meaning is "no such name".
#[derive(Debug)]
struct Slot<M> {
    confirmed: Option<M>,
    pending: VecDeque<(Ticket, Option<M>)>,
}

impl<M> Default for Slot<M> {
    fn default() -> Self {
        Self { confirmed: None, pending: VecDeque::new() }
    }
}

/// What is known of a name at this point of the conversation.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Lookup<M> {
    /// It has no meaning, now or pending: upstream would say that it does not exist.
    Unknown,
    /// Whatever the pending answers are, it means this or nothing.
    Known(M),
    /// It may mean different things, depending on answers that have not come.
    Unsettled,
}

/// The meanings of all names of one kind.
#[derive(Debug)]
pub struct Names<M> {
    unnamed: Slot<M>,
    /// The unnamed entry was forgotten for the message of this ticket, and upstream may have it still.
    unnamed_may_live: Option<Ticket>,
    named: HashMap<Name, Slot<M>>,
    /// How many of them have a confirmed meaning: to end those of none, again and again, costs nothing.
    confirmed: usize,
    /// Tickets of forwarded `DEALLOCATE ALL`, `DISCARD ALL`.
    clearing: VecDeque<Ticket>,
}

impl<M> Default for Names<M> {
    fn default() -> Self {
        Self {
            unnamed: Slot::default(),
            unnamed_may_live: None,
            named: HashMap::new(),
            confirmed: 0,
            clearing: VecDeque::new(),
        }
    }
}

impl<M: Clone + PartialEq> Names<M> {
    fn slot(&self, name: &Name) -> Option<&Slot<M>> {
        if name.is_unnamed() { Some(&self.unnamed) } else { self.named.get(name) }
    }

    fn slot_mut(&mut self, name: &Name) -> &mut Slot<M> {
        if name.is_unnamed() { &mut self.unnamed } else { self.named.entry(name.clone()).or_default() }
    }

    /// What `name` means to a message that is forwarded now. `since` is the last ticket from before the
    /// latest message that ends upstream's skipping: a proposal behind it succeeds before this message
    /// is read, or else upstream skips this message as well.
    #[must_use]
    pub fn lookup(&self, name: &Name, since: Ticket) -> Lookup<M> {
        let Some(slot) = self.slot(name) else { return Lookup::Unknown };
        if let Some((ticket, meaning)) = slot.pending.back()
            && *ticket > since
        {
            return meaning.clone().map_or(Lookup::Unknown, Lookup::Known);
        }
        let mut meanings = slot.confirmed.iter().chain(slot.pending.iter().filter_map(|(_, to)| to.as_ref()));
        let Some(first) = meanings.next() else { return Lookup::Unknown };
        if name.is_unnamed() && self.unnamed_may_live.is_some() && slot.confirmed.is_none() {
            return Lookup::Unsettled;
        }
        if meanings.all(|other| other == first) { Lookup::Known(first.clone()) } else { Lookup::Unsettled }
    }

    /// What upstream has said that `name` means.
    #[must_use]
    pub fn confirmed(&self, name: &Name) -> Option<&M> {
        self.slot(name)?.confirmed.as_ref()
    }

    /// A forwarded message would make `name` mean `meaning`.
    pub fn propose(&mut self, ticket: Ticket, name: &Name, meaning: Option<M>) {
        self.slot_mut(name).pending.push_back((ticket, meaning));
    }

    /// Upstream confirmed the message; returns the meaning that ended, if one did.
    pub fn confirm(&mut self, ticket: Ticket, name: &Name) -> Option<M> {
        let slot = self.slot_mut(name);
        let at = slot.pending.iter().position(|(pending, _)| *pending == ticket)?;
        let (_, meaning) = slot.pending.remove(at)?;
        let is_confirmed = meaning.is_some();
        let ended = std::mem::replace(&mut slot.confirmed, meaning);
        if !name.is_unnamed() {
            self.confirmed = self.confirmed + usize::from(is_confirmed) - usize::from(ended.is_some());
        }
        if name.is_unnamed() && self.unnamed_may_live.is_some_and(|since| since < ticket) {
            self.unnamed_may_live = None;
        }
        self.tidy(name);
        ended
    }

    /// Upstream refused or skipped the message; returns the meaning that never came to be.
    pub fn withdraw(&mut self, ticket: Ticket, name: &Name) -> Option<M> {
        let slot = self.slot_mut(name);
        let at = slot.pending.iter().position(|(pending, _)| *pending == ticket)?;
        let (_, meaning) = slot.pending.remove(at)?;
        self.tidy(name);
        meaning
    }

    fn tidy(&mut self, name: &Name) {
        if !name.is_unnamed()
            && self.named.get(name).is_some_and(|slot| slot.confirmed.is_none() && slot.pending.is_empty())
        {
            self.named.remove(name);
        }
    }

    /// A forwarded statement would remove all names.
    pub fn propose_clear(&mut self, ticket: Ticket) {
        self.clearing.push_back(ticket);
    }

    /// Upstream refused or skipped the clearing statement.
    pub fn withdraw_clear(&mut self, ticket: Ticket) {
        self.clearing.retain(|pending| *pending != ticket);
    }

    /// Upstream removed all names; returns what they meant. Names whose messages were forwarded
    /// behind it stay pending. `DEALLOCATE ALL` keeps the unnamed statement.
    pub fn confirm_clear(&mut self, ticket: Ticket) -> Vec<M> {
        self.withdraw_clear(ticket);
        self.end_confirmed(|_| true)
    }

    /// Ends confirmed meanings of named entries that `ends` says so of.
    pub fn end_confirmed(&mut self, mut ends: impl FnMut(&M) -> bool) -> Vec<M> {
        let mut ended = Vec::new();
        if self.confirmed == 0 {
            return ended;
        }
        #[expect(clippy::iter_over_hash_type, reason = "each entry is judged alone; order does not matter")]
        for slot in self.named.values_mut() {
            if slot.confirmed.as_ref().is_some_and(&mut ends) {
                ended.extend(slot.confirmed.take());
            }
        }
        self.named.retain(|_, slot| slot.confirmed.is_some() || !slot.pending.is_empty());
        self.confirmed -= ended.len();
        ended
    }

    /// Everything that `name` may mean, depending on answers that have not come.
    pub fn meanings(&self, name: &Name) -> impl Iterator<Item = &M> {
        let slot = self.slot(name).into_iter();
        slot.flat_map(|slot| {
            slot.confirmed.iter().chain(slot.pending.iter().filter_map(|(_, to)| to.as_ref()))
        })
    }

    /// The meaning that was proposed last, or else the confirmed one.
    #[must_use]
    pub fn latest(&self, name: &Name) -> Option<&M> {
        let slot = self.slot(name)?;
        slot.pending.iter().rev().find_map(|(_, to)| to.as_ref()).or(slot.confirmed.as_ref())
    }

    /// Ends every meaning of the unnamed entry, pending ones included: something was forwarded that
    /// destroys it when it is run. When it fails before, or is skipped, upstream has the entry still; so what
    /// is proposed next is not believed before it is confirmed. Returns what ended.
    pub fn forget_unnamed(&mut self, ticket: Ticket) -> Vec<M> {
        self.unnamed_may_live = Some(ticket);
        let confirmed = self.unnamed.confirmed.take();
        let pending = self.unnamed.pending.iter_mut().filter_map(|(_, to)| to.take());
        pending.chain(confirmed).collect()
    }

    /// Ends the confirmed meaning of the unnamed entry, which upstream may have still.
    pub fn forget_confirmed_unnamed(&mut self, ticket: Ticket) -> Option<M> {
        self.unnamed_may_live = Some(self.unnamed_may_live.map_or(ticket, |since| since.max(ticket)));
        self.unnamed.confirmed.take()
    }

    /// Whether upstream may have an unnamed entry that is not known here.
    #[must_use]
    pub fn unnamed_may_live(&self) -> bool {
        self.unnamed_may_live.is_some()
    }

    /// Upstream has no unnamed entry but what was confirmed.
    pub fn unnamed_is_gone(&mut self) {
        self.unnamed_may_live = None;
    }

    /// Ends the confirmed meaning of the unnamed entry, if `ends` says so.
    pub fn end_unnamed(&mut self, ends: impl FnOnce(&M) -> bool) -> Option<M> {
        if self.unnamed.confirmed.as_ref().is_some_and(ends) { self.unnamed.confirmed.take() } else { None }
    }

    /// The names that there are, pending ones included.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.named.keys()
    }

    /// How many names there are, pending ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.named.len()
    }
}

/// Prepared statements by name.
pub type Statements = Names<Arc<Prepared>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(sql: &str) -> Arc<Prepared> {
        Arc::new(Prepared { sql: sql.into(), types: Box::new([]) })
    }

    #[test]
    fn a_failing_reparse_keeps_the_old_meaning() {
        let mut names = Statements::default();
        let x = Name::new(b"x");
        let (delete, select) = (prepared("delete from t"), prepared("select 1"));
        names.propose(1, &x, Some(delete.clone()));
        names.confirm(1, &x);

        names.propose(2, &x, Some(select));
        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Unsettled);
        names.withdraw(2, &x);

        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Known(delete));
    }

    #[test]
    fn a_first_meaning_is_known_before_it_is_confirmed() {
        let mut names = Statements::default();
        let x = Name::new(b"x");

        names.propose(1, &x, Some(prepared("select 1")));

        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Known(prepared("select 1")));
    }

    #[test]
    fn a_pending_close_leaves_one_meaning_and_a_reparse_behind_it_two() {
        let mut names = Statements::default();
        let x = Name::new(b"x");
        names.propose(1, &x, Some(prepared("delete from t")));
        names.confirm(1, &x);

        names.propose(2, &x, None);
        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Known(prepared("delete from t")));
        names.propose(3, &x, Some(prepared("select 1")));
        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Unsettled);
        names.confirm(2, &x);
        names.confirm(3, &x);

        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Known(prepared("select 1")));
    }

    /// Had the later proposal failed, what asks would be skipped with it.
    #[test]
    fn within_one_pipeline_the_latest_proposal_decides() {
        let mut names = Statements::default();
        let x = Name::new(b"x");
        names.propose(1, &x, Some(prepared("delete from t")));
        names.propose(2, &x, Some(prepared("select 1")));

        assert_eq!(names.lookup(&x, 1), Lookup::Known(prepared("select 1")));
        assert_eq!(names.lookup(&x, 2), Lookup::Unsettled, "a Sync lies between");
        names.propose(3, &x, None);
        assert_eq!(names.lookup(&x, 2), Lookup::Unknown, "it is closed, or the Close is skipped as well");
    }

    #[test]
    fn names_are_one_when_their_first_63_bytes_are() {
        let long = [b'a'; 70];

        assert_eq!(Name::new(&long), Name::new(&long[..63]));
        assert_ne!(Name::new(&long), Name::new(&long[..62]));
    }

    #[test]
    fn clearing_keeps_what_was_forwarded_behind_it() {
        let mut names = Statements::default();
        let (x, y) = (Name::new(b"x"), Name::new(b"y"));
        names.propose(1, &x, Some(prepared("a")));
        names.confirm(1, &x);
        names.propose_clear(2);
        names.propose(3, &y, Some(prepared("b")));

        assert_eq!(names.confirm_clear(2).len(), 1);

        assert_eq!(names.lookup(&x, Ticket::MAX), Lookup::Unknown);
        assert_eq!(names.lookup(&y, Ticket::MAX), Lookup::Known(prepared("b")));
        names.confirm(3, &y);
        assert_eq!(names.count(), 1);
    }
}
