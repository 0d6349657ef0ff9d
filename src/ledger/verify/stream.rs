//! The pass over the entries, in their order, with checkpoints and texts alongside.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};
use rusqlite::{Connection, Rows};

use super::anchors::{self, Anchor, Seen};
use super::clocks::Clocks;
use super::meaning::{Meaning, Texts};
use super::signatures::Signatures;
use super::{Code, Problem, Progress, Recorded, Report, sqlite_damage};
use crate::ledger::assemble::Signing;
use crate::ledger::checkpoint::Note;
use crate::ledger::entry::{Entry, Key, Kind};
use crate::ledger::key::{PublicRoot, hand_over_message};
use crate::ledger::payload;
use crate::ledger::standing::certificate_of;
use crate::ledger::tree::{Tiles, Tree, leaf_hash};
use crate::statement::Digest;

type Step = Result<(), Problem>;

impl From<rusqlite::Error> for Problem {
    /// What SQLite cannot read in the middle of a file is damage, whatever it calls it.
    fn from(error: rusqlite::Error) -> Self {
        let what = if sqlite_damage(&error) { "SQLite: " } else { "reading: " };
        Self::new(Code::Damaged, None, format!("{what}{error}"))
    }
}

/// Checks everything but the schema, the file's integrity and the index, and fills the report in.
pub(super) fn run(
    connection: &Connection,
    root: &PublicRoot,
    given: &[Result<Anchor, Problem>],
    progress: &Progress,
    report: &mut Report,
) {
    let mut pass = Pass::new(root);
    let result = pass.everything(connection, given, progress, report);
    let (signatures, failed) = pass.signatures.finish();
    report.counts.signatures = signatures;
    // The threads may have found something that comes earlier. Within one entry the signature comes
    // before everything that needs the entry to be trusted.
    let by_threads = failed.map(|seq| Problem::new(Code::Entry, seq, "its signature does not hold"));
    report.problem = match (by_threads, result.err()) {
        (Some(bad), Some((before_signature, problem))) => {
            let earlier = problem
                .seq
                .is_some_and(|seq| Some(seq) < bad.seq || (Some(seq) == bad.seq && before_signature));
            Some(if earlier { problem } else { bad })
        }
        (bad, problem) => bad.or(problem.map(|(_, problem)| problem)),
    };
    report.counts.entries = pass.tree.size();
    report.root = Some(pass.tree.root());
}

/// A problem, and whether it is one that is looked for before an entry's signature.
type Found = (bool, Problem);

struct Pass<'a> {
    root: &'a PublicRoot,
    signatures: Signatures,
    tree: Tree,
    tiles: Tiles,
    clocks: Clocks,
    meaning: Meaning,
    records: Records,
    /// How many epochs there were so far.
    epochs: u64,
    /// The running epoch: its number, key, and which entries it signs.
    epoch: Option<(u64, VerifyingKey, Signing)>,
    /// The roots so far, the trusted one somewhere among them.
    roots: Vec<VerifyingKey>,
    /// The last checkpoint, until an entry has told of it: size, root, digest of the note.
    untold: Option<(u64, Digest, Digest)>,
    /// How many entries checkpoints cover.
    covered: u64,
    /// Rows of `payload` that are not there and that no redaction has named yet.
    missing: BTreeSet<(u64, u64)>,
    seen: Seen,
    /// What entries tell of anchors: the last size left with each.
    anchored: BTreeMap<String, u64>,
    /// The first tile that is not as derived.
    bad_tile: Option<(u32, u64)>,
    tiles_checked: u64,
}

impl<'a> Pass<'a> {
    fn new(root: &'a PublicRoot) -> Self {
        Self {
            root,
            signatures: Signatures::new(&root.origin),
            tree: Tree::new(),
            tiles: Tiles::default(),
            clocks: Clocks::default(),
            meaning: Meaning::default(),
            records: Records::default(),
            epochs: 0,
            epoch: None,
            roots: Vec::new(),
            untold: None,
            covered: 0,
            missing: BTreeSet::new(),
            seen: Seen::default(),
            anchored: BTreeMap::new(),
            bad_tile: None,
            tiles_checked: 0,
        }
    }

    fn everything(
        &mut self,
        connection: &Connection,
        given: &[Result<Anchor, Problem>],
        progress: &Progress,
        report: &mut Report,
    ) -> Result<(), Found> {
        let after = |problem: Problem| (false, problem);
        let sqlite = |error: rusqlite::Error| (true, Problem::from(error));
        let total =
            connection.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).map_err(sqlite)?;
        progress.start(total);
        let kept = kept_anchors(connection).map_err(after)?;
        let wanted: BTreeSet<u64> =
            kept.iter().chain(given).flatten().map(|anchor| anchor.head.size).collect();

        let mut entries =
            connection.prepare("SELECT seq, body, sig FROM entry ORDER BY seq").map_err(sqlite)?;
        let mut entries = entries.query([]).map_err(sqlite)?;
        let mut checkpoints =
            connection.prepare("SELECT size, note FROM checkpoint ORDER BY size").map_err(sqlite)?;
        let mut checkpoints =
            Lookahead::<String>::new(checkpoints.query([]).map_err(sqlite)?).map_err(after)?;
        let mut payloads = connection
            .prepare("SELECT seq, field, salt, value FROM payload ORDER BY seq, field")
            .map_err(sqlite)?;
        let mut payloads =
            Lookahead::<(u64, Vec<u8>, Vec<u8>)>::new(payloads.query([]).map_err(sqlite)?).map_err(after)?;
        let mut still_there = connection
            .prepare("SELECT count(*) FROM payload WHERE seq = ?1 AND field = ?2")
            .map_err(sqlite)?;
        let mut stored_tile =
            connection.prepare("SELECT hashes FROM tile WHERE level = ?1 AND idx = ?2").map_err(sqlite)?;

        while let Some(row) = entries.next().map_err(sqlite)? {
            let seq = self.tree.size();
            if self.signatures.has_failed() {
                // Whatever else may be wrong further on, it is not the first.
                return Ok(());
            }
            let found: i64 = row.get(0).map_err(sqlite)?;
            if u64::try_from(found) != Ok(seq) {
                return Err((
                    true,
                    Problem::new(Code::Order, seq, format!("it is missing; entry {found} follows")),
                ));
            }
            let body = row.get_ref(1).map_err(sqlite)?.as_blob().unwrap_or_default();
            let signature = row.get_ref(2).map_err(sqlite)?.as_blob_or_null().unwrap_or(Some(&[]));
            let entry = Entry::parse(body)
                .map_err(|error| (true, Problem::new(Code::Entry, seq, error.to_string())))?;
            self.place(&entry, signature, seq).map_err(|problem| (true, problem))?;
            let leaf = leaf_hash(body);
            self.keys(&entry).map_err(|problem| (true, problem))?;
            self.signature(&entry, leaf, signature).map_err(after)?;
            self.told(&entry).map_err(after)?;
            self.clocks.entry(&entry).map_err(after)?;
            let texts = self.texts(&entry, &mut payloads, report).map_err(after)?;
            self.redaction(&entry, report, |seq, field| {
                Ok(still_there.query_row([seq, field], |row| row.get::<_, i64>(0))? > 0)
            })
            .map_err(after)?;
            self.meaning.entry(&entry, &texts, &mut report.counts).map_err(after)?;
            self.grow(leaf, |level, index| {
                stored_tile.query_row([u64::from(level), index], |row| row.get::<_, Vec<u8>>(0)).ok()
            });
            self.records.entry(&entry).map_err(after)?;
            note_damage(&entry, report);
            if let (Kind::Anchored, Some(name), Some(size)) =
                (entry.kind(), entry.text(Key::Anchor), entry.uint(Key::TreeSize))
            {
                self.anchored.insert(name.to_owned(), size);
            }
            let size = self.tree.size();
            if wanted.contains(&size)
                && let Some((_, key, _)) = &self.epoch
            {
                self.seen.at.insert(size, (self.tree.root(), *key));
            }
            self.checkpoint(&mut checkpoints, report).map_err(after)?;
            let time = entry.uint(Key::Wall).unwrap_or_default();
            report.counts.times = Some((report.counts.times.map_or(time, |(first, _)| first), time));
            if size.is_multiple_of(1024) {
                progress.reached(size);
            }
        }
        let size = self.tree.size();
        progress.reached(size);
        if size == 0 {
            return Err(after(Problem::new(Code::Order, None, "there are no entries")));
        }
        self.trusted(report).map_err(after)?;
        self.ends(&checkpoints, &payloads).map_err(after)?;
        self.tiles(connection).map_err(after)?;
        self.anchors(&kept, given, report).map_err(after)
    }

    /// Whether the entry is where it says it is.
    fn place(&self, entry: &Entry<'_>, signature: Option<&[u8]>, seq: u64) -> Step {
        if signature.is_some_and(|signature| signature.len() != 64) {
            return Err(Problem::new(Code::Entry, seq, "its signature is no signature"));
        }
        if entry.seq() != seq {
            let what = format!("it says that it is entry {}", entry.seq());
            return Err(Problem::new(Code::Order, seq, what));
        }
        if (entry.kind() == Kind::LedgerCreated) != (seq == 0) {
            return Err(Problem::new(Code::Order, seq, "a ledger begins with its creation, and only there"));
        }
        Ok(())
    }

    /// Roots, epochs, and which key must have signed this entry.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds are of the running epoch")]
    fn keys(&mut self, entry: &Entry<'_>) -> Step {
        let problem = |what: &str| Err(Problem::new(Code::Key, entry.seq(), what));
        let epoch = entry.uint(Key::Epoch).unwrap_or_default();
        let named = |key: Key| entry.array::<32>(key).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        match entry.kind() {
            Kind::LedgerCreated => {
                let origin = entry.text(Key::Origin).unwrap_or_default();
                if origin != self.root.origin {
                    return problem(&format!("this is the ledger \"{origin}\", the key is for another"));
                }
                let Some(root) = named(Key::RootKey).filter(|_| epoch == 0) else {
                    return problem("its root key is none");
                };
                self.roots.push(root);
            }
            Kind::KeyRoot => {
                let (Some(new), Some(old), 0) = (named(Key::RootKey), self.roots.last(), epoch) else {
                    return problem("its root key is none");
                };
                let message = hand_over_message(&self.root.origin, old, &new);
                let by = |key: &VerifyingKey, signature: Key| {
                    let signature = entry.array(signature).map(|bytes| Signature::from_bytes(&bytes));
                    signature.is_some_and(|signature| key.verify_strict(&message, &signature).is_ok())
                };
                if !by(old, Key::RootSignature) || !by(&new, Key::SuccessorSignature) {
                    return problem("the hand-over is not signed by both roots");
                }
                self.roots.push(new);
                self.epoch = None;
            }
            Kind::KeyEpoch => return self.new_epoch(entry),
            _ => {
                if self.epoch.as_ref().is_none_or(|(running, ..)| *running != epoch) {
                    return problem("it is not of the running epoch");
                }
            }
        }
        Ok(())
    }

    fn new_epoch(&mut self, entry: &Entry<'_>) -> Step {
        let problem = |what: &str| Err(Problem::new(Code::Key, entry.seq(), what));
        let Some(certificate) = certificate_of(entry) else { return problem("its certificate is none") };
        if certificate.epoch != self.epochs + 1 {
            return problem("the epochs do not follow each other");
        }
        if certificate.root != self.tree.root() {
            return problem("its certificate is for another tree");
        }
        let root = self.roots.last().copied().unwrap_or(self.root.key);
        let Ok(key) = certificate.verify(&self.root.origin, &root) else {
            return problem("the root does not vouch for its key");
        };
        let Some(signing) = entry.text(Key::Signing).and_then(Signing::from_name) else {
            return Err(Problem::new(Code::Entry, entry.seq(), "it signs in no known way"));
        };
        self.epochs = certificate.epoch;
        self.epoch = Some((certificate.epoch, key, signing));
        Ok(())
    }

    fn signature(&mut self, entry: &Entry<'_>, leaf: Digest, signature: Option<&[u8]>) -> Step {
        let by_root = matches!(entry.kind(), Kind::LedgerCreated | Kind::KeyRoot);
        let (key, needed) = match (&self.epoch, self.roots.last()) {
            (_, Some(root)) if by_root => (*root, true),
            (Some((_, key, signing)), _) => {
                (*key, *signing == Signing::EveryEntry || self.meaning.must_sign(entry))
            }
            _ => return Err(Problem::new(Code::Key, entry.seq(), "there is no epoch")),
        };
        match signature.and_then(|bytes| Signature::from_slice(bytes).ok()) {
            Some(signature) => {
                self.signatures.check(entry.seq(), leaf, signature, key);
                Ok(())
            }
            None if needed => Err(Problem::new(Code::Entry, entry.seq(), "its signature is missing")),
            None => Ok(()),
        }
    }

    /// Behind a checkpoint, and only there, an entry tells of it; only keys may come before that.
    fn told(&mut self, entry: &Entry<'_>) -> Step {
        let problem = |what: &str| Err(Problem::new(Code::Checkpoint, entry.seq(), what));
        let tells = entry.kind() == Kind::CheckpointRef;
        match self.untold {
            None if tells => problem("the checkpoint before it is missing"),
            None => Ok(()),
            Some(_) if matches!(entry.kind(), Kind::KeyEpoch | Kind::KeyRoot) => Ok(()),
            Some(_) if !tells => problem("the checkpoint before it was never told of"),
            Some((size, root, note)) => {
                self.untold = None;
                let agrees = entry.uint(Key::TreeSize) == Some(size)
                    && entry.digest(Key::TreeRoot) == Some(root)
                    && entry.digest(Key::Note) == Some(note);
                if agrees { Ok(()) } else { problem("it tells of another checkpoint than there is") }
            }
        }
    }

    /// The texts of this entry, each of which must fit what the entry commits to.
    fn texts(
        &mut self,
        entry: &Entry<'_>,
        rows: &mut Lookahead<'_, (u64, Vec<u8>, Vec<u8>)>,
        report: &mut Report,
    ) -> Result<Texts, Problem> {
        let seq = entry.seq();
        let problem = |what: String| Err(Problem::new(Code::Redaction, seq, what));
        let mut texts = Texts::new();
        if rows.key().is_some_and(|row| row < i128::from(seq)) {
            return problem("a text before it belongs to no entry".to_owned());
        }
        while rows.key() == Some(i128::from(seq)) {
            let Some((field, salt, value)) = rows.take()? else { break };
            let key = Key::from_number(field);
            let committed = entry.commitments().find(|(other, _)| Some(*other) == key);
            let Some((key, commitment)) = committed else {
                return problem(format!("a text (field {field}) belongs to nothing in it"));
            };
            if key == Key::Digest && entry.has(Key::Nonce) {
                return problem("the digest of a hidden text is there to be read".to_owned());
            }
            if salt.len() != payload::SALT || payload::commitment(key, &salt, &value) != commitment {
                return problem(format!("the text \"{}\" is not the one that was recorded", key.name()));
            }
            report.counts.texts += 1;
            texts.insert(key, value);
        }
        for (key, _) in entry.commitments() {
            let hidden = key == Key::Digest && entry.has(Key::Nonce);
            if !hidden && !texts.contains_key(&key) {
                self.missing.insert((seq, key.into()));
            }
        }
        Ok(texts)
    }

    /// What a redaction names is gone.
    fn redaction(
        &mut self,
        entry: &Entry<'_>,
        report: &mut Report,
        mut still_there: impl FnMut(u64, u64) -> rusqlite::Result<bool>,
    ) -> Step {
        for row in entry.rows(Key::Redacted) {
            let [seq, field] = row else { continue };
            let (Some(seq), Some(field)) = (seq.as_uint(), field.as_uint()) else { continue };
            if self.missing.remove(&(seq, field)) {
                report.counts.redacted += 1;
            } else if seq >= entry.seq() {
                return Err(Problem::new(Code::Redaction, entry.seq(), "it redacts what comes later"));
            } else if still_there(seq, field)? {
                let what = format!("the text of entry {seq} that it redacts is still there");
                return Err(Problem::new(Code::Redaction, entry.seq(), what));
            }
        }
        Ok(())
    }

    fn grow(&mut self, leaf: Digest, mut stored: impl FnMut(u32, u64) -> Option<Vec<u8>>) {
        self.tree.push(leaf);
        let (bad, checked) = (&mut self.bad_tile, &mut self.tiles_checked);
        self.tiles.push(leaf, |tile| {
            *checked += 1;
            if bad.is_none() && stored(tile.level, tile.index).as_ref() != Some(&tile.hashes) {
                *bad = Some((tile.level, tile.index));
            }
        });
    }

    /// The checkpoint that ends here, when there is one.
    fn checkpoint(&mut self, rows: &mut Lookahead<'_, String>, report: &mut Report) -> Step {
        let size = self.tree.size();
        let last = size - 1;
        if rows.key().is_some_and(|row| row < i128::from(size)) {
            return Err(Problem::new(Code::Checkpoint, last, "a checkpoint is of no size that ever was"));
        }
        if rows.key() != Some(i128::from(size)) {
            return Ok(());
        }
        let Some(text) = rows.take()? else { return Ok(()) };
        let problem = |code: Code, what: String| Err(Problem::new(code, last, what));
        let named = format!("checkpoint {size}");
        let Ok(note) = Note::parse(&text) else {
            return problem(Code::Checkpoint, format!("{named} is no signed checkpoint"));
        };
        let right = note.checkpoint.origin == self.root.origin && note.checkpoint.head.size == size;
        let signed = self.epoch.as_ref().is_some_and(|(_, key, _)| note.verify(key).is_ok());
        if !right || !signed || note.signatures.len() != 1 {
            return problem(Code::Checkpoint, format!("{named} is not signed by the running epoch"));
        }
        let root = self.tree.root();
        if note.checkpoint.head.root != root {
            return problem(Code::Root, format!("{named} has another root than the entries lead to"));
        }
        self.records.settled(last)?;
        self.meaning.checkpoint(size, root);
        if self.untold.is_some() {
            return problem(Code::Checkpoint, "the checkpoint before this one was never told of".to_owned());
        }
        self.untold = Some((size, root, Digest::of(text.as_bytes())));
        self.covered = size;
        report.counts.checkpoints += 1;
        Ok(())
    }

    /// Whether the trusted root is among those that signed.
    fn trusted(&mut self, report: &mut Report) -> Step {
        report.counts.epochs = self.epochs;
        if self.roots.contains(&self.root.key) {
            return Ok(());
        }
        Err(Problem::new(Code::Key, 0, "its root key is not the trusted one"))
    }

    /// What lies behind the last entry or the last checkpoint.
    fn ends(
        &self,
        checkpoints: &Lookahead<'_, String>,
        payloads: &Lookahead<'_, (u64, Vec<u8>, Vec<u8>)>,
    ) -> Step {
        let size = self.tree.size();
        if let Some(beyond) = checkpoints.key() {
            let what = format!("there is a checkpoint over {beyond} entries, and only {size} are left");
            return Err(Problem::new(Code::RolledBack, None, what));
        }
        if self.covered != size {
            return Err(Problem::new(Code::UnsignedTail, self.covered, "no checkpoint covers it"));
        }
        if payloads.key().is_some() {
            return Err(Problem::new(Code::Redaction, None, "a text behind the last entry belongs to none"));
        }
        match self.missing.first() {
            Some((seq, field)) => {
                let what = format!("its text (field {field}) is gone, and no redaction says so");
                Err(Problem::new(Code::Redaction, *seq, what))
            }
            None => Ok(()),
        }
    }

    fn tiles(&mut self, connection: &Connection) -> Step {
        let problem = |what: String| Err(Problem::new(Code::Derived, None, what));
        if let Some((level, index)) = self.bad_tile {
            return problem(format!("tile {level}/{index} is not as derived"));
        }
        let edge = self.tiles.changed();
        for tile in &edge {
            let stored = crate::ledger::store::tile(connection, tile.level, tile.index).ok().flatten();
            if stored.as_ref() != Some(&tile.hashes) {
                return problem(format!("tile {}/{} is not as derived", tile.level, tile.index));
            }
        }
        let count: u64 = connection.query_row("SELECT count(*) FROM tile", [], |row| row.get(0))?;
        if count != self.tiles_checked + edge.len() as u64 {
            return problem("there are tiles too many".to_owned());
        }
        Ok(())
    }

    fn anchors(
        &mut self,
        kept: &[Result<Anchor, Problem>],
        given: &[Result<Anchor, Problem>],
        report: &mut Report,
    ) -> Step {
        self.seen.size = self.tree.size();
        self.seen.roots.clone_from(&self.roots);
        let mut told = std::mem::take(&mut self.anchored);
        for anchor in kept {
            let anchor = anchor.as_ref().map_err(Clone::clone)?;
            anchors::check(anchor, &self.root.origin, &self.seen)?;
            if told.remove(&anchor.name) != Some(anchor.head.size) {
                let what = format!("anchor {} is kept otherwise than its entry tells", anchor.name);
                return Err(Problem::new(Code::Derived, None, what));
            }
        }
        if let Some(name) = told.keys().next() {
            return Err(Problem::new(Code::Derived, None, format!("anchor {name} is not kept")));
        }
        for anchor in given {
            let anchor = anchor.as_ref().map_err(Clone::clone)?;
            anchors::check(anchor, &self.root.origin, &self.seen)?;
            report.counts.anchors += 1;
            report.anchored = report.anchored.max(Some(anchor.head.size));
            if !anchor.is_beside {
                report.anchored_elsewhere = report.anchored_elsewhere.max(Some(anchor.head.size));
            }
        }
        Ok(())
    }
}

/// Damage that an entry tells of: a spool that was not all there when a run began, records that could
/// not become entries, a time when nothing could be written.
fn note_damage(entry: &Entry<'_>, report: &mut Report) {
    let kind = entry.kind();
    let tells =
        matches!(kind, Kind::Discarded | Kind::Degraded) || kind == Kind::Recovered && entry.has(Key::What);
    if !tells {
        return;
    }
    report.damaged += 1;
    if report.damage.len() < super::DAMAGE_TOLD {
        let what = entry.text(Key::What).unwrap_or_default().to_owned();
        report.damage.push(Recorded { seq: entry.seq(), kind: entry.kind(), what });
    }
}

/// The anchors that the ledger itself remembers.
fn kept_anchors(connection: &Connection) -> Result<Vec<Result<Anchor, Problem>>, Problem> {
    let mut statement = connection.prepare("SELECT name, size, note FROM anchor ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut kept = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, size, note): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        kept.push(anchors::kept(&name, size, &note));
    }
    Ok(kept)
}

/// Spool records: 1 to n, each once, none left out.
#[derive(Debug, Default)]
struct Records {
    /// All up to here were named.
    upto: u64,
    ahead: BTreeSet<u64>,
}

impl Records {
    fn entry(&mut self, entry: &Entry<'_>) -> Step {
        for number in [entry.uint(Key::Record), entry.uint(Key::RecordEnd)].into_iter().flatten() {
            if number <= self.upto || !self.ahead.insert(number) {
                let what = format!("record {number} became an entry twice");
                return Err(Problem::new(Code::Order, entry.seq(), what));
            }
        }
        if let (Kind::Discarded, Some(from), Some(to)) =
            (entry.kind(), entry.uint(Key::From), entry.uint(Key::To))
            && from == self.upto + 1
            && to >= from
        {
            self.upto = to;
        }
        while self.ahead.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
        Ok(())
    }

    fn settled(&self, seq: u64) -> Step {
        match self.ahead.first() {
            Some(_) => {
                let what = format!("record {} never became an entry", self.upto + 1);
                Err(Problem::new(Code::Order, seq, what))
            }
            None => Ok(()),
        }
    }
}

/// A row of a query that was read ahead: its first column decides when it is its turn.
struct Lookahead<'a, T> {
    rows: Rows<'a>,
    next: Option<(i64, T)>,
}

/// What stands in the columns behind the first.
trait FromRow: Sized {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self>;
}

impl FromRow for String {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        row.get(1)
    }
}

impl FromRow for (u64, Vec<u8>, Vec<u8>) {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let field: i64 = row.get(1)?;
        // A number that cannot be a field's belongs to nothing, as does every other unknown number.
        Ok((u64::try_from(field).unwrap_or(u64::MAX), row.get(2)?, row.get(3)?))
    }
}

impl<'a, T: FromRow> Lookahead<'a, T> {
    fn new(rows: Rows<'a>) -> Result<Self, Problem> {
        let mut lookahead = Self { rows, next: None };
        lookahead.advance()?;
        Ok(lookahead)
    }

    fn key(&self) -> Option<i128> {
        self.next.as_ref().map(|(key, _)| i128::from(*key))
    }

    fn take(&mut self) -> Result<Option<T>, Problem> {
        let taken = self.next.take().map(|(_, value)| value);
        self.advance()?;
        Ok(taken)
    }

    fn advance(&mut self) -> Result<(), Problem> {
        self.next = match self.rows.next()? {
            Some(row) => Some((row.get(0)?, T::from_row(row)?)),
            None => None,
        };
        Ok(())
    }
}
