//! What must be true of statements, requests, reviews and grants, whoever signed them: also the holder
//! of the key cannot write an approval that breaks these rules without it being found.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::people::{Person, Seat, can_be_seated, folded};
use super::{Code, Counts, Problem, sshsig};
use crate::classify::StatementClass;
use crate::ledger::assemble::is_routine;
use crate::ledger::clock::JUMP;
use crate::ledger::entry::{Entry, Key, Kind};
use crate::statement::Digest;

/// The values that `payload` holds for the entry at hand.
pub(super) type Texts = BTreeMap<Key, Vec<u8>>;

type Id = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Meaning {
    sessions: BTreeMap<Id, Session>,
    intents: BTreeMap<u64, Intent>,
    requests: BTreeMap<Id, Request>,
    /// Requests that ended: an id is never used twice.
    ended: BTreeSet<Id>,
    grants: BTreeMap<u64, UsedGrant>,
    roots: BTreeMap<u64, Digest>,
}

#[derive(Debug)]
struct Session {
    boot: Id,
    agent: String,
}

#[derive(Debug)]
struct Intent {
    boot: Id,
    session: Id,
    doomed: bool,
    read_only: bool,
    parse_only: bool,
    pub(super) must_sign: bool,
}

#[derive(Debug)]
struct Request {
    seq: u64,
    boot: Id,
    wall: u64,
    expires: u64,
    session: Id,
    agent: String,
    /// The agent's own name, and its owners'.
    agent_name: BTreeSet<String>,
    owners: BTreeSet<String>,
    digest: Digest,
    /// What the digest's commitment was opened to.
    opened: Option<Digest>,
    seal: Digest,
    approvals: Vec<(String, u64)>,
    assurance: u8,
    reason_required: bool,
    escalations: Vec<(u64, u64, String, String)>,
    defer: bool,
    /// Reviews that counted, by entry.
    reviews: BTreeMap<u64, Review>,
    /// Steps that reviewers brought forward.
    steps: u64,
    granted: bool,
}

#[derive(Debug)]
struct Review {
    reviewer: String,
    person: Person,
    approves: bool,
    wall: u64,
    /// Steps of escalation in force when it was given.
    steps: u64,
}

#[derive(Debug)]
struct UsedGrant {
    request: Id,
    session: Id,
    agent: String,
    covers: Digest,
    opened: Option<Digest>,
}

type Checked = Result<(), &'static str>;

fn ensure(holds: bool, otherwise: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Whether an entry must be signed by itself where only some are. `None` for an outcome: it depends on
/// the outcome's statement.
#[expect(clippy::wildcard_enum_match_arm, reason = "most kinds are signed unless they are routine")]
pub(in crate::ledger) fn must_be_signed(entry: &Entry<'_>) -> Option<bool> {
    match entry.kind() {
        Kind::Statement => Some(is_privileged(entry) || entry.has(Key::Request)),
        Kind::Outcome => None,
        kind => Some(!is_routine(kind)),
    }
}

impl Meaning {
    /// Whether this entry must be signed by itself where only some are.
    pub(super) fn must_sign(&self, entry: &Entry<'_>) -> bool {
        must_be_signed(entry).unwrap_or_else(|| {
            let intent = entry.uint(Key::Ref).and_then(|seq| self.intents.get(&seq));
            intent.is_none_or(|intent| intent.must_sign)
        })
    }

    /// A checkpoint that was found good.
    pub(super) fn checkpoint(&mut self, size: u64, root: Digest) {
        self.roots.insert(size, root);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most kinds have no meaning beyond their fields")]
    pub(super) fn entry(
        &mut self,
        entry: &Entry<'_>,
        texts: &Texts,
        counts: &mut Counts,
    ) -> Result<(), Problem> {
        let checked = match entry.kind() {
            Kind::SessionOpened => {
                let session = Session { boot: boot(entry), agent: agent(entry) };
                self.sessions.insert(id(entry, Key::Session), session);
                Ok(())
            }
            Kind::SessionClosed | Kind::SessionClaims => self.has_session(entry, false),
            Kind::Statement => {
                counts.statements += 1;
                counts.grants += u64::from(entry.text(Key::Clearance) == Some("granted"));
                self.statement(entry, texts)
            }
            Kind::Outcome => self.outcome(entry),
            Kind::Refused => {
                counts.refused += 1;
                self.has_session(entry, true)
            }
            Kind::RequestOpened => {
                counts.requests += 1;
                self.request(entry, texts)
            }
            Kind::Review => {
                counts.reviews += u64::from(entry.bool(Key::Counted) == Some(true));
                self.review(entry, texts)
            }
            Kind::RequestClosed => self.closed(entry),
            Kind::GrantUsed => self.grant(entry),
            Kind::Anchored => {
                let size = entry.uint(Key::TreeSize).unwrap_or_default();
                let known = self.roots.get(&size).copied();
                ensure(known == entry.digest(Key::TreeRoot), "it names a checkpoint that never was")
            }
            Kind::Recovered => self.recovered(entry),
            _ => Ok(()),
        };
        checked.map_err(|what| Problem::new(Code::Meaning, entry.seq(), what))
    }

    fn has_session(&self, entry: &Entry<'_>, of_agent: bool) -> Checked {
        let session =
            self.sessions.get(&id(entry, Key::Session)).filter(|session| session.boot == boot(entry));
        let session = session.ok_or("its session was never opened")?;
        ensure(!of_agent || session.agent == agent(entry), "its session belongs to another agent")
    }

    fn statement(&mut self, entry: &Entry<'_>, texts: &Texts) -> Checked {
        self.has_session(entry, true)?;
        let clearance = entry.text(Key::Clearance).unwrap_or_default();
        match clearance {
            "allowed" => {
                let has_rule = entry.texts(Key::Rules).next().is_some();
                ensure(
                    !is_privileged(entry) || has_rule,
                    "a privileged statement was forwarded without a grant, and no rule allowed it",
                )?;
            }
            "granted" => self.granted(entry, texts)?,
            "doomed" | "read_only" | "parse_only" => {}
            _ => return Err("it was forwarded on no known ground"),
        }
        let intent = Intent {
            boot: boot(entry),
            session: id(entry, Key::Session),
            doomed: clearance == "doomed",
            read_only: clearance == "read_only",
            parse_only: clearance == "parse_only",
            must_sign: is_privileged(entry) || entry.has(Key::Request),
        };
        if entry.has(Key::Ending) {
            return ended(&intent, entry);
        }
        self.intents.insert(entry.seq(), intent);
        Ok(())
    }

    fn granted(&mut self, entry: &Entry<'_>, texts: &Texts) -> Checked {
        let grant = entry.uint(Key::Ref).and_then(|seq| self.grants.remove(&seq));
        let grant =
            grant.ok_or("a held statement was forwarded without a grant, or with one that was used")?;
        let same = entry.array(Key::Request) == Some(grant.request)
            && id(entry, Key::Session) == grant.session
            && agent(entry) == grant.agent;
        ensure(same, "its grant is for another request, session or agent")?;
        ensure(entry.digest(Key::Covers) == Some(grant.covers), "its grant covers another statement")?;
        if entry.has(Key::Nonce) {
            let digest = entry.digest(Key::Digest);
            ensure(digest == Some(grant.covers), "what ran is not what was approved")?;
        }
        let ran = statement_digest(entry, texts);
        ensure(
            ran.is_none() || grant.opened.is_none() || ran == grant.opened,
            "what ran is not what was approved",
        )
    }

    fn outcome(&mut self, entry: &Entry<'_>) -> Checked {
        let intent = entry.uint(Key::Ref).and_then(|seq| self.intents.remove(&seq));
        let intent = intent.ok_or("an outcome without an open statement")?;
        ensure(intent.session == id(entry, Key::Session), "an outcome of another session's statement")?;
        ended(&intent, entry)
    }

    fn request(&mut self, entry: &Entry<'_>, texts: &Texts) -> Checked {
        self.has_session(entry, true)?;
        let request_id = id(entry, Key::Request);
        let is_new = !self.requests.contains_key(&request_id) && !self.ended.contains(&request_id);
        ensure(is_new, "a request with this id was opened before")?;
        let (wall, expires) = (number(entry, Key::Wall), number(entry, Key::Expires));
        ensure(expires.saturating_add(JUMP) >= wall, "it was opened after it expired")?;
        let opened = texts
            .get(&Key::Digest)
            .and_then(|value| Some(Digest::from_bytes(value.as_slice().try_into().ok()?)));
        let asked = statement_digest(entry, texts);
        ensure(
            asked.is_none() || opened.is_none() || asked == opened,
            "the text that was shown is not the text that was asked for",
        )?;
        let row = |row: &[crate::ledger::cbor::Value<'_>]| match row {
            [group, count] => Some((group.as_text()?.to_owned(), count.as_uint()?)),
            _ => None,
        };
        let step = |row: &[crate::ledger::cbor::Value<'_>]| match row {
            [step, after, to, stands_in] => Some((
                step.as_uint()?,
                after.as_uint()?,
                to.as_text()?.to_owned(),
                stands_in.as_text()?.to_owned(),
            )),
            _ => None,
        };
        let request = Request {
            seq: entry.seq(),
            boot: boot(entry),
            wall,
            expires,
            session: id(entry, Key::Session),
            agent: agent(entry),
            agent_name: [folded(&agent(entry))].into(),
            owners: entry.texts(Key::Owners).map(folded).collect(),
            digest: entry.digest(Key::Digest).unwrap_or(Digest::from_bytes([0; 32])),
            opened,
            seal: entry.digest(Key::Seal).unwrap_or(Digest::from_bytes([0; 32])),
            approvals: entry.rows(Key::Approvals).filter_map(row).collect(),
            assurance: rank(entry.text(Key::Assurance)).ok_or("it asks for an unknown assurance")?,
            reason_required: entry.bool(Key::ReasonRequired).unwrap_or(true),
            escalations: entry.rows(Key::Escalations).filter_map(step).collect(),
            defer: entry.bool(Key::Defer).unwrap_or(false),
            reviews: BTreeMap::new(),
            steps: 0,
            granted: false,
        };
        self.requests.insert(request_id, request);
        Ok(())
    }

    fn review(&mut self, entry: &Entry<'_>, texts: &Texts) -> Checked {
        let counted = entry.bool(Key::Counted) == Some(true);
        ensure(counted != entry.has(Key::WhyNot), "it counted and did not")?;
        if entry.text(Key::Scheme) == Some("sshsig") {
            let (key, signed, signature) =
                (entry.bytes(Key::PublicKey), texts.get(&Key::Signed), texts.get(&Key::ReviewerSignature));
            if let (Some(key), Some(signed), Some(signature)) = (key, signed, signature) {
                ensure(sshsig::holds(key, signed, signature), "the reviewer's own signature does not hold")?;
            }
        }
        if !counted {
            return Ok(());
        }
        let request =
            self.requests.get_mut(&id(entry, Key::Request)).ok_or("it counted for no open request")?;
        ensure(entry.uint(Key::Ref) == Some(request.seq), "it names another entry as its request")?;
        ensure(entry.digest(Key::Covers) == Some(request.digest), "the reviewer saw another statement")?;
        let wall = number(entry, Key::Wall);
        ensure(wall <= request.expires.saturating_add(JUMP), "it counted after the request had expired")?;
        let person = Person::of(entry);
        let verdict = entry.text(Key::Verdict).unwrap_or_default();
        let approves = verdict == "approve";
        ensure(!person.is_one_of(&request.agent_name), "an agent answered its own request")?;
        if verdict != "deny" {
            ensure(!person.is_one_of(&request.owners), "somebody approved for an agent they own")?;
        }
        let assurance = rank(entry.text(Key::Assurance)).ok_or("an unknown assurance")?;
        ensure(!approves || assurance >= request.assurance, "its assurance is too low for the request")?;
        let explained = !request.reason_required || verdict == "escalate" || entry.has(Key::Reason);
        ensure(explained, "it lacks the reason that the request requires")?;
        let due = request.steps_due(wall);
        match verdict {
            "approve" | "deny" => {}
            "escalate" => request.steps = request.steps.max(due) + 1,
            _ => return Err("an unknown verdict"),
        }
        let reviewer = entry.text(Key::Reviewer).unwrap_or_default().to_owned();
        let steps = request.steps.max(due);
        request.reviews.insert(entry.seq(), Review { reviewer, person, approves, wall, steps });
        Ok(())
    }

    fn grant(&mut self, entry: &Entry<'_>) -> Checked {
        let request_id = id(entry, Key::Request);
        let request = self.requests.get_mut(&request_id).ok_or("a grant of no open request")?;
        ensure(entry.uint(Key::Ref) == Some(request.seq), "it names another entry as its request")?;
        ensure(!request.granted, "the request was granted before")?;
        ensure(entry.digest(Key::Covers) == Some(request.digest), "it covers another statement")?;
        ensure(entry.digest(Key::Seal) == Some(request.seal), "it was sealed to something else")?;
        ensure(agent(entry) == request.agent, "it was used by another agent")?;
        let session = id(entry, Key::Session);
        ensure(request.defer || session == request.session, "it was used in another session")?;
        let expires = number(entry, Key::Expires);
        ensure(expires.saturating_add(JUMP) >= number(entry, Key::Wall), "it was used after it had expired")?;
        let names: Vec<&str> = entry.texts(Key::ApprovedBy).collect();
        let seqs: Vec<u64> = entry.uints(Key::Reviews).collect();
        ensure(names.len() == seqs.len(), "an approval it rests on has no review")?;
        let mut people: Vec<&Person> = Vec::new();
        let mut steps = 0;
        let mut last = 0;
        for (name, seq) in names.iter().zip(&seqs) {
            let review = request.reviews.get(seq).ok_or("it rests on a review that is not there")?;
            ensure(
                review.approves && review.reviewer == *name,
                "it rests on a review that says something else",
            )?;
            let distinct = people.iter().all(|other| !review.person.is_one_of(&other.names));
            ensure(distinct, "one person is counted twice")?;
            people.push(&review.person);
            steps = steps.max(review.steps);
            last = last.max(review.wall);
        }
        let seats = request.seats(steps.max(request.steps_due(last)));
        ensure(can_be_seated(&seats, &people), "too few people approved, or of the wrong groups")?;
        request.granted = true;
        let used = UsedGrant {
            request: request_id,
            session,
            agent: request.agent.clone(),
            covers: request.digest,
            opened: request.opened,
        };
        self.grants.insert(entry.seq(), used);
        Ok(())
    }

    fn closed(&mut self, entry: &Entry<'_>) -> Checked {
        let state = entry.text(Key::State).unwrap_or_default();
        let known = ["granted", "denied", "expired", "withdrawn", "executed"].contains(&state);
        ensure(known, "an unknown state")?;
        let Some(reference) = entry.uint(Key::Ref) else { return Ok(()) };
        let request_id = id(entry, Key::Request);
        let request = self.requests.get(&request_id).ok_or("the end of no open request")?;
        ensure(request.seq == reference, "it names another entry as its request")?;
        ensure(state != "executed" || request.granted, "it is called executed, and no grant was used")?;
        if state != "granted" {
            self.requests.remove(&request_id);
            self.ended.insert(request_id);
        }
        Ok(())
    }

    /// A run begins: what earlier runs left open was closed right before.
    fn recovered(&mut self, entry: &Entry<'_>) -> Checked {
        let boot = boot(entry);
        ensure(
            self.intents.values().all(|intent| intent.boot == boot),
            "a statement of an earlier run was never closed",
        )?;
        ensure(
            self.requests.values().all(|request| request.boot == boot),
            "a request of an earlier run was never closed",
        )?;
        self.sessions.retain(|_, session| session.boot == boot);
        self.grants.clear();
        Ok(())
    }
}

impl Request {
    /// How many steps of escalation the clock has put in force.
    fn steps_due(&self, wall: u64) -> u64 {
        self.escalations
            .iter()
            .filter(|(_, after, ..)| self.wall.saturating_add(*after) <= wall.saturating_add(JUMP))
            .map(|(step, ..)| *step)
            .max()
            .unwrap_or(0)
    }

    fn seats(&self, steps: u64) -> Vec<Seat> {
        let seat = |group: &String| {
            let stand_ins = self
                .escalations
                .iter()
                .filter(|(step, _, _, stands_in_for)| *step <= steps && stands_in_for == group)
                .map(|(_, _, to, _)| to.clone());
            std::iter::once(group.clone()).chain(stand_ins).collect::<Seat>()
        };
        self.approvals
            .iter()
            // More seats than there can be people need not be counted out.
            .flat_map(|(group, count)| std::iter::repeat_n(seat(group), (*count).min(1000) as usize))
            .collect()
    }
}

fn ended(intent: &Intent, entry: &Entry<'_>) -> Checked {
    let ending = entry.text(Key::Ending).unwrap_or_default();
    let endings = ["completed", "failed", "failed_after_commit", "not_executed", "unknown"];
    ensure(endings.contains(&ending), "an unknown ending")?;
    let completed = ["completed", "failed_after_commit"].contains(&ending);
    ensure(!intent.doomed || !completed, "a statement that had to fail completed")?;
    // A rule that makes nothing of it has no rows.
    ensure(
        !intent.read_only || !completed || number(entry, Key::Rows) == 0,
        "a statement in a read-only transaction wrote rows",
    )?;
    ensure(
        !intent.parse_only || number(entry, Key::Rows) == 0,
        "a statement that was only parsed returned rows",
    )
}

/// The digest of the statement whose texts these are, where they are all there and as they were.
fn statement_digest(entry: &Entry<'_>, texts: &Texts) -> Option<Digest> {
    let via = match entry.text(Key::Via)? {
        "query" => 0,
        "bind" => 1,
        "function_call" => 2,
        _ => return None,
    };
    if entry.has(Key::Rendition) {
        return None;
    }
    let sql = texts.get(&Key::Sql)?;
    let parameters: &[u8] =
        if entry.has(Key::Parameters) { texts.get(&Key::Parameters)? } else { &[0, 0, 0, 0] };
    let mut hash = Sha256::new();
    hash.update(b"countersign/statement/v1\0");
    hash.update([via]);
    hash.update((sql.len() as u64).to_be_bytes());
    hash.update(sql);
    hash.update(parameters);
    Some(Digest::from_bytes(hash.finalize().into()))
}

fn is_privileged(entry: &Entry<'_>) -> bool {
    // A class that this version does not know is one it cannot call harmless.
    entry.text(Key::Class).and_then(StatementClass::from_name).is_none_or(StatementClass::is_privileged)
}

fn rank(assurance: Option<&str>) -> Option<u8> {
    match assurance? {
        "click" => Some(0),
        "login" => Some(1),
        "signature" => Some(2),
        _ => None,
    }
}

fn id(entry: &Entry<'_>, key: Key) -> Id {
    entry.array(key).unwrap_or_default()
}

fn boot(entry: &Entry<'_>) -> Id {
    id(entry, Key::Boot)
}

fn agent(entry: &Entry<'_>) -> String {
    entry.text(Key::Agent).unwrap_or_default().to_owned()
}

fn number(entry: &Entry<'_>, key: Key) -> u64 {
    entry.uint(key).unwrap_or_default()
}
