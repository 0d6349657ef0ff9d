//! From spooled records to entries: adds what only the writer knows (place, epoch, references, salts),
//! joins statements with their sessions and outcomes, and keeps what is still open.
//!
//! No I/O happens here. What an assembler has done cannot be undone, so its group must be committed
//! before the next is begun; the writer tries until it can.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::cbor::{Fields, Value};
use super::clock::Moment;
use super::entry::{self, Key, Kind};
use super::key::{EpochKey, KeyError, RootKey, fill_random};
use super::payload::{self, Payload, SALT};
use super::spool::record::{Content, NewEntry, Record};
use super::store::Group;
use super::tree::{self, Tiles, Tree};
use crate::approval::request::TreeHead;
use crate::statement::Digest;

/// Which entries are signed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// All of them.
    #[default]
    EveryEntry,
    /// Privileged statements, decisions, reviews and key events; the rest is covered by the
    /// checkpoint of its group.
    Checkpoint,
}

impl Signing {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EveryEntry => "every-entry",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Reads the stable spelling.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::EveryEntry, Self::Checkpoint].into_iter().find(|signing| signing.as_str() == name)
    }
}

/// Kinds that a checkpoint alone may cover, where `signing = "checkpoint"` and, for statements and
/// their outcomes, the statement was neither privileged nor held.
#[must_use]
pub(crate) fn is_routine(kind: Kind) -> bool {
    match kind {
        Kind::SessionOpened
        | Kind::SessionClosed
        | Kind::SessionClaims
        | Kind::Statement
        | Kind::Outcome
        | Kind::CheckpointRef
        | Kind::Anchored => true,
        Kind::LedgerCreated
        | Kind::KeyEpoch
        | Kind::KeyRoot
        | Kind::Refused
        | Kind::RequestOpened
        | Kind::Review
        | Kind::RequestClosed
        | Kind::GrantUsed
        | Kind::PolicyLoaded
        | Kind::ConfigChanged
        | Kind::Recovered
        | Kind::ClockJump
        | Kind::Redaction
        | Kind::Export
        | Kind::Degraded
        | Kind::Resumed
        | Kind::RequestEscalated
        | Kind::Discarded => false,
    }
}

/// Kinds whose time is not compared with their neighbours': they were written beside another entry, or
/// before there was a key to sign with that the clock had been set.
#[must_use]
pub(crate) fn is_untimed(kind: Kind) -> bool {
    matches!(kind, Kind::CheckpointRef | Kind::Anchored | Kind::KeyEpoch | Kind::KeyRoot)
}

/// An intent whose outcome has not come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenIntent {
    pub(crate) seq: u64,
    pub(crate) session: [u8; 16],
    pub(crate) request: [u8; 16],
    pub(crate) must_sign: bool,
}

/// A request that has not ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenRequest {
    pub(crate) seq: u64,
    /// Who approved, and in which entry.
    pub(crate) approvals: Vec<(String, u64)>,
    pub(crate) grant: Option<u64>,
}

/// Where a ledger stands, as read from its file.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) tree: Tree,
    pub(crate) tiles: Tiles,
    /// The last checkpoint: head and note.
    pub(crate) checkpoint: Option<(TreeHead, String)>,
    /// The last spool record that is in the ledger.
    pub(crate) ingested: u64,
    /// The last entry of each run that may still have records in the spool.
    pub(crate) moments: HashMap<[u8; 16], Moment>,
    /// The wall clock of the last entry that has a time of its own.
    pub(crate) last_wall: u64,
    pub(crate) intents: HashMap<u64, OpenIntent>,
    pub(crate) requests: BTreeMap<[u8; 16], OpenRequest>,
    pub(crate) epoch: u64,
}

/// Turns records into groups.
pub(crate) struct Assembler {
    origin: String,
    boot: [u8; 16],
    signing: Signing,
    standing: Standing,
    epoch: Option<EpochKey>,
    contexts: HashMap<[u8; 16], Arc<Fields>>,
    /// Entries that `intents` and `requests` began at, to find the oldest.
    open: BTreeSet<u64>,
    salts: Vec<[u8; SALT]>,
    group: Group,
    /// Something happened that anchors should know of at once.
    notable: bool,
    /// The last checkpoint has its entry.
    told: bool,
    /// What anchors were given since the last group.
    anchored: Vec<(String, TreeHead, String)>,
}

/// What a new group is about: enough to publish it.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) head: TreeHead,
    /// A privileged outcome or a review is in it.
    pub(crate) notable: bool,
}

impl Assembler {
    pub(crate) fn new(origin: &str, boot: [u8; 16], signing: Signing, standing: Standing) -> Self {
        let open = standing
            .intents
            .values()
            .map(|intent| intent.seq)
            .chain(standing.requests.values().map(|request| request.seq))
            .collect();
        Self {
            origin: origin.to_owned(),
            boot,
            signing,
            standing,
            epoch: None,
            contexts: HashMap::new(),
            open,
            salts: Vec::new(),
            group: Group::default(),
            notable: false,
            told: false,
            anchored: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.standing.tree.size()
    }

    pub(crate) fn epoch(&self) -> Option<&EpochKey> {
        self.epoch.as_ref()
    }

    /// The time of the last entry of this run.
    pub(crate) fn last_moment(&self) -> Option<Moment> {
        self.standing.moments.get(&self.boot).copied()
    }

    /// The group that waits to be committed.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn checkpoint(&self) -> Option<&(TreeHead, String)> {
        self.standing.checkpoint.as_ref()
    }

    /// A checkpoint was left with an anchor; the next group says so.
    pub(crate) fn anchored(&mut self, name: &str, head: TreeHead, note: String) {
        self.anchored.retain(|(other, ..)| other != name);
        self.anchored.push((name.to_owned(), head, note));
    }

    /// Begins the next group, at the time of its first entry.
    pub(crate) fn begin(&mut self, at: Moment) {
        self.group = Group { first: self.size(), ..Group::default() };
        self.notable = false;
        self.tell(at);
    }

    /// Tells of the checkpoint before this group, so that it cannot be taken away without a trace.
    /// Where a run begins, its epoch has to come first: before it there is no key to sign this.
    fn tell(&mut self, at: Moment) {
        if self.epoch.is_none() {
            return;
        }
        let Some((head, note)) = self.standing.checkpoint.as_ref().filter(|_| !self.told) else { return };
        let mut fields = Fields::new();
        fields
            .uint(Key::TreeSize, head.size)
            .bytes(Key::TreeRoot, head.root.as_bytes())
            .bytes(Key::Note, Digest::of(note.as_bytes()).as_bytes())
            .uint(Key::OpenFrom, self.open.first().copied().unwrap_or_else(|| self.size()));
        self.told = true;
        self.own(Kind::CheckpointRef, at, &fields);
        for (name, head, note) in std::mem::take(&mut self.anchored) {
            let mut fields = Fields::new();
            fields.uint(Key::TreeSize, head.size).bytes(Key::TreeRoot, head.root.as_bytes());
            fields.text(Key::Anchor, &name);
            self.own(Kind::Anchored, at, &fields);
            self.group.anchors.push((name, head.size, note));
        }
    }

    /// The first entry of a new ledger, by the root's own hand.
    pub(crate) fn create(&mut self, at: Moment, root: &RootKey, software: &str) {
        let mut fields = Fields::new();
        fields
            .text(Key::Origin, root.origin())
            .bytes(Key::RootKey, root.public().key.as_bytes())
            .text(Key::Software, software);
        self.by_root(Kind::LedgerCreated, at, &fields, root);
    }

    /// An entry that the root signs itself.
    pub(crate) fn by_root(&mut self, kind: Kind, at: Moment, fields: &Fields, root: &RootKey) {
        self.epoch = None;
        let seq = self.push(Place { kind, at, boot: self.boot, must_sign: false }, &[fields]);
        let leaf = self.last_leaf();
        if let Some((_, signature)) = self.group.entries.last_mut() {
            *signature = Some(root.sign_entry(seq, &leaf).to_bytes());
        }
    }

    /// Begins an epoch with a fresh key.
    pub(crate) fn begin_epoch(&mut self, at: Moment, root: &RootKey) -> Result<(), KeyError> {
        let number = self.standing.epoch + 1;
        let key = root.begin_epoch(number, self.size(), self.standing.tree.root(), at.wall)?;
        let mut fields = Fields::new();
        let certificate = key.certificate();
        fields
            .bytes(Key::EpochKey, &certificate.key)
            .bytes(Key::RootSignature, &certificate.signature)
            .text(Key::Signing, self.signing.as_str())
            .bytes(Key::TreeRoot, certificate.root.as_bytes());
        self.standing.epoch = number;
        self.epoch = Some(key);
        self.own(Kind::KeyEpoch, at, &fields);
        self.tell(at);
        Ok(())
    }

    /// An entry of the writer's own.
    pub(crate) fn own(&mut self, kind: Kind, at: Moment, fields: &Fields) -> u64 {
        self.push(Place { kind, at, boot: self.boot, must_sign: !is_routine(kind) }, &[fields])
    }

    /// Takes records of one run in. Statements whose outcome is among them become one entry.
    ///
    /// Salts are drawn before anything else: a commitment without one would hide nothing, so without
    /// randomness nothing may be taken in at all.
    pub(crate) fn ingest(&mut self, boot: [u8; 16], records: Vec<Record<'_>>) -> Result<(), KeyError> {
        self.draw_salts(&records)?;
        let mut outcomes: HashMap<u64, (u64, Fields)> = HashMap::new();
        let mut rest = Vec::with_capacity(records.len());
        // Only a routine statement's outcome is joined: a privileged intent stands by itself, as it
        // stood before anybody knew how it would end.
        // In the order of their numbers, as the records are.
        let routine: Vec<u64> = records
            .iter()
            .filter(|record| match &record.content {
                Content::Entry(new) => new.kind == Kind::Statement && !new.must_sign,
                Content::Context { .. } | Content::Outcome { .. } => false,
            })
            .map(|record| record.number)
            .collect();
        for record in records {
            match record.content {
                Content::Outcome { intent, fields }
                    if routine.binary_search(&intent).is_ok() && !outcomes.contains_key(&intent) =>
                {
                    outcomes.insert(intent, (record.number, fields));
                }
                content @ (Content::Context { .. } | Content::Entry(_) | Content::Outcome { .. }) => {
                    rest.push(Record { content, ..record });
                }
            }
        }
        for record in rest {
            match record.content {
                Content::Context { session, fields } => {
                    self.contexts.insert(session, Arc::new(fields));
                }
                Content::Entry(new) => {
                    let outcome = outcomes.remove(&record.number);
                    self.entry(boot, record.number, record.at, new, outcome);
                }
                Content::Outcome { intent, fields } => {
                    self.outcome(boot, record.number, record.at, intent, &fields);
                }
            }
        }
        Ok(())
    }

    fn draw_salts(&mut self, records: &[Record<'_>]) -> Result<(), KeyError> {
        let needed: usize = records
            .iter()
            .map(|record| match &record.content {
                Content::Entry(new) => new.payloads.iter().filter(|payload| payload.salt.is_none()).count(),
                Content::Context { .. } | Content::Outcome { .. } => 0,
            })
            .sum();
        let mut bytes = vec![0; needed.saturating_sub(self.salts.len()) * SALT];
        fill_random(&mut bytes)?;
        self.salts.extend(bytes.as_chunks().0);
        Ok(())
    }

    fn entry(
        &mut self,
        boot: [u8; 16],
        number: u64,
        at: Moment,
        new: NewEntry<'_>,
        outcome: Option<(u64, Fields)>,
    ) {
        self.note_jump(at, boot);
        let mut own = Fields::new();
        own.uint(Key::Record, number);
        if let Some((end, _)) = &outcome {
            own.uint(Key::RecordEnd, *end);
        }
        if let Some(reference) = self.reference(&new) {
            own.uint(Key::Ref, reference);
        }
        if new.request != [0; 16] {
            own.bytes(Key::Request, &new.request);
        }
        let context = new.joins_session.then(|| self.contexts.get(&new.session).cloned());
        if context.as_ref().is_some_and(Option::is_none) {
            // The segment that said whose session it is was damaged.
            let mut fields = Fields::new();
            fields.text(Key::What, &format!("a record ({}) of an unknown session", new.kind.name()));
            let mut numbers = Fields::new();
            numbers.uint(Key::Record, number);
            if let Some((end, _)) = &outcome {
                numbers.uint(Key::RecordEnd, *end);
            }
            self.push(Place { kind: Kind::Discarded, at, boot, must_sign: true }, &[&numbers, &fields]);
            return;
        }
        let context = context.flatten();
        let reviews = self.reviews_of(&new);
        let salted = self.commit_payloads(self.size(), &new.payloads);
        let mut session_only = Fields::default();
        if context.is_none() && new.session != [0; 16] && new.kind != Kind::GrantUsed {
            session_only.bytes(Key::Session, &new.session);
        }
        let nothing = Fields::default();
        let parts = [
            &own,
            context.as_deref().unwrap_or(&session_only),
            &new.fields,
            outcome.as_ref().map_or(&nothing, |(_, fields)| fields),
            &salted,
            &reviews,
        ];
        let must_sign = new.must_sign || !is_routine(new.kind);
        let seq = self.push(Place { kind: new.kind, at, boot, must_sign }, &parts);
        self.follow(seq, number, &new, outcome.is_some());
    }

    /// The entry that a new one belongs to.
    fn reference(&self, new: &NewEntry<'_>) -> Option<u64> {
        let request = self.standing.requests.get(&new.request)?;
        if new.kind == Kind::Statement { request.grant } else { Some(request.seq) }
    }

    /// For a grant, the entries of the approvals it rests on.
    fn reviews_of(&self, new: &NewEntry<'_>) -> Fields {
        let mut fields = Fields::default();
        if new.kind != Kind::GrantUsed {
            return fields;
        }
        let approvals =
            self.standing.requests.get(&new.request).map_or(&[][..], |request| &request.approvals);
        let names = texts_of(&new.fields, Key::ApprovedBy);
        let seqs: Vec<u64> = names
            .iter()
            .filter_map(|name| approvals.iter().rev().find(|(by, _)| by == name).map(|(_, seq)| *seq))
            .collect();
        fields.nested(Key::Reviews, |writer| {
            writer.array(seqs.len() as u64)?;
            for seq in &seqs {
                writer.u64(*seq)?;
            }
            Ok(())
        });
        fields
    }

    /// What an entry opens and closes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most kinds open and close nothing")]
    fn follow(&mut self, seq: u64, number: u64, new: &NewEntry<'_>, complete: bool) {
        match new.kind {
            Kind::Statement if !complete => {
                self.open.insert(seq);
                self.standing.intents.insert(
                    number,
                    OpenIntent { seq, session: new.session, request: new.request, must_sign: new.must_sign },
                );
            }
            Kind::SessionClosed => {
                self.contexts.remove(&new.session);
            }
            Kind::RequestOpened => {
                self.open.insert(seq);
                self.standing.requests.insert(new.request, OpenRequest { seq, ..OpenRequest::default() });
            }
            Kind::Review => {
                self.notable = true;
                if let Some(request) = self.standing.requests.get_mut(&new.request)
                    && let Some(name) = approver(&new.fields)
                {
                    request.approvals.push((name, seq));
                }
            }
            Kind::GrantUsed => {
                if let Some(request) = self.standing.requests.get_mut(&new.request) {
                    request.grant = Some(seq);
                }
            }
            Kind::RequestClosed => {
                self.notable = true;
                // A granted request still waits for its statement.
                if new.fields.value(Key::State) != Some(Value::Text("granted")) {
                    self.close_request(&new.request);
                }
            }
            Kind::Redaction => {
                self.notable = true;
                self.group.redacted.extend(pairs_of(&new.fields, Key::Redacted));
            }
            _ => {}
        }
    }

    fn close_request(&mut self, request: &[u8; 16]) {
        if let Some(closed) = self.standing.requests.remove(request) {
            self.open.remove(&closed.seq);
        }
    }

    fn outcome(&mut self, boot: [u8; 16], number: u64, at: Moment, intent: u64, outcome: &Fields) {
        self.note_jump(at, boot);
        let mut own = Fields::new();
        own.uint(Key::Record, number);
        let Some(intent) = self.standing.intents.remove(&intent) else {
            // Its intent was lost with a damaged spool, or it came twice. Nothing may be left out in
            // silence, so the record becomes an entry all the same.
            let mut fields = Fields::new();
            fields.text(Key::What, "an outcome of no open statement");
            self.push(Place { kind: Kind::Discarded, at, boot, must_sign: true }, &[&own, &fields]);
            return;
        };
        self.open.remove(&intent.seq);
        self.notable |= intent.must_sign;
        own.uint(Key::Ref, intent.seq);
        if intent.request != [0; 16] {
            own.bytes(Key::Request, &intent.request);
        }
        own.bytes(Key::Session, &intent.session);
        self.push(Place { kind: Kind::Outcome, at, boot, must_sign: intent.must_sign }, &[&own, outcome]);
    }

    /// Records that were spooled and cannot be read back.
    pub(crate) fn lost(&mut self, at: Moment, from: u64, to: u64) {
        let mut fields = Fields::new();
        fields
            .text(Key::What, "spool records that could not be read back")
            .uint(Key::From, from)
            .uint(Key::To, to);
        self.own(Kind::Discarded, at, &fields);
    }

    /// At start-up: nothing of an earlier run can go on. Its intents end as unknown, its requests are
    /// withdrawn. Returns how many of each.
    pub(crate) fn close_all(&mut self, at: Moment) -> (u64, Vec<[u8; 16]>) {
        self.note_jump(at, self.boot);
        let mut intents: Vec<OpenIntent> = self.standing.intents.drain().map(|(_, intent)| intent).collect();
        intents.sort_by_key(|intent| intent.seq);
        for intent in &intents {
            let mut fields = Fields::new();
            fields.uint(Key::Ref, intent.seq);
            if intent.request != [0; 16] {
                fields.bytes(Key::Request, &intent.request);
            }
            fields
                .bytes(Key::Session, &intent.session)
                .text(Key::Ending, "unknown")
                .uint(Key::Rows, 0)
                .uint(Key::Bytes, 0)
                .uint(Key::Duration, 0);
            self.push(
                Place { kind: Kind::Outcome, at, boot: self.boot, must_sign: intent.must_sign },
                &[&fields],
            );
        }
        let requests = std::mem::take(&mut self.standing.requests);
        for (request, open) in &requests {
            let mut fields = Fields::new();
            fields
                .uint(Key::Ref, open.seq)
                .bytes(Key::Request, request)
                .text(Key::State, if open.grant.is_some() { "executed" } else { "withdrawn" })
                .text(Key::What, "the proxy stopped");
            self.own(Kind::RequestClosed, at, &fields);
        }
        self.open.clear();
        self.contexts.clear();
        (intents.len() as u64, requests.into_keys().collect())
    }

    /// Says that the wall clock was set, where it was.
    fn note_jump(&mut self, at: Moment, boot: [u8; 16]) {
        let expected = match self.standing.moments.get(&boot) {
            Some(before) if at.jumped_since(*before) => {
                before.wall.saturating_add(at.mono.saturating_sub(before.mono))
            }
            // A run begins: the wall clock may stand anywhere after the last run's end.
            None if at.wall.saturating_add(super::clock::JUMP) < self.standing.last_wall => {
                self.standing.last_wall
            }
            _ => return,
        };
        let mut fields = Fields::new();
        fields.uint(Key::WallExpected, expected);
        self.push(Place { kind: Kind::ClockJump, at, boot, must_sign: true }, &[&fields]);
    }

    /// Closes the group with its checkpoint.
    pub(crate) fn seal(&mut self) -> Option<Sealed> {
        let epoch = self.epoch.as_ref()?;
        if self.group.entries.is_empty() {
            return None;
        }
        let head = TreeHead { size: self.standing.tree.size(), root: self.standing.tree.root() };
        let note = super::checkpoint::Note::sign(&self.origin, head, epoch).to_text();
        self.group.tiles.extend(self.standing.tiles.changed());
        self.group.checkpoint = (head.size, note.clone());
        self.standing.checkpoint = Some((head, note));
        self.told = false;
        Some(Sealed { head, notable: self.notable })
    }

    fn push(&mut self, place: Place, parts: &[&Fields]) -> u64 {
        let seq = self.size();
        let mut head = Fields::new();
        head.uint(Key::V, entry::VERSION)
            .uint(Key::Kind, place.kind as u64)
            .uint(Key::Seq, seq)
            .uint(Key::Wall, place.at.wall)
            .uint(Key::Mono, place.at.mono)
            .bytes(Key::Boot, &place.boot)
            .uint(Key::Epoch, self.epoch.as_ref().map_or(0, EpochKey::number));
        let start = self.group.bodies.len();
        let mut all: [&Fields; 8] = [&head; 8];
        let count = parts.len().min(7);
        for (slot, part) in all.iter_mut().skip(1).zip(parts) {
            *slot = part;
        }
        Fields::join(all.get(..=count).unwrap_or_default(), &mut self.group.bodies);
        let leaf = tree::leaf_hash(self.group.bodies.get(start..).unwrap_or_default());
        let signs = place.must_sign || self.signing == Signing::EveryEntry;
        let signature =
            self.epoch.as_ref().filter(|_| signs).map(|epoch| epoch.sign_entry(seq, &leaf).to_bytes());
        self.group.entries.push((self.group.bodies.len(), signature));
        self.standing.tree.push(leaf);
        let tiles = &mut self.group.tiles;
        self.standing.tiles.push(leaf, |full| tiles.push(full));
        if !is_untimed(place.kind) {
            self.standing.moments.insert(place.boot, place.at);
            self.standing.last_wall = place.at.wall;
        }
        seq
    }

    fn last_leaf(&self) -> Digest {
        let ends: Vec<usize> = self.group.entries.iter().rev().take(2).map(|(end, _)| *end).collect();
        let (end, start) = (ends.first().copied().unwrap_or(0), ends.get(1).copied().unwrap_or(0));
        tree::leaf_hash(self.group.bodies.get(start..end).unwrap_or_default())
    }

    /// Salts the texts of entry `seq`, keeps them, and gives the fields that commit to them.
    fn commit_payloads(&mut self, seq: u64, payloads: &[Payload<'_>]) -> Fields {
        let mut fields = Fields::new();
        for payload in payloads {
            let salt = payload.salt.or_else(|| self.salts.pop()).unwrap_or_default();
            // The commitment to a digest was made when its request was opened: others repeat it.
            if payload.key != Key::Digest {
                let commitment = payload::commitment(payload.key, &salt, payload.value);
                fields.bytes(payload.key, commitment.as_bytes());
            }
            self.group.values.extend_from_slice(payload.value);
            self.group.payloads.push((seq, payload.key, salt, self.group.values.len()));
        }
        fields
    }
}

/// Where an entry goes and how.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    at: Moment,
    boot: [u8; 16],
    must_sign: bool,
}

/// The texts of an array field.
fn texts_of(fields: &Fields, key: Key) -> Vec<&str> {
    let Some(Value::Array(values)) = fields.value(key) else { return Vec::new() };
    values.iter().filter_map(Value::as_text).collect()
}

/// The rows of an array field that holds pairs of numbers.
fn pairs_of(fields: &Fields, key: Key) -> Vec<(u64, u64)> {
    let Some(Value::Array(rows)) = fields.value(key) else { return Vec::new() };
    let pair = |row: &Value<'_>| match row.elements() {
        [one, two] => Some((one.as_uint()?, two.as_uint()?)),
        _ => None,
    };
    rows.iter().filter_map(pair).collect()
}

/// The person, when these are the fields of an approval that counted.
fn approver(fields: &Fields) -> Option<String> {
    let counted = fields.value(Key::Counted) == Some(Value::Bool(true));
    let approves = fields.value(Key::Verdict) == Some(Value::Text("approve"));
    let name = fields.value(Key::Reviewer)?.as_text()?;
    (counted && approves).then(|| name.to_owned())
}
