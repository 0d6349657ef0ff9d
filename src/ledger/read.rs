//! Reading a ledger: one entry with everything about it, searches through the index, proofs. For the
//! command line and the console; nothing here writes to the ledger.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, VerifyingKey};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use super::assemble::Signing;
use super::checkpoint::Note;
use super::display::display_time;
use super::entry::{self, Entry, EntryError, Key, Kind};
use super::index::{self, IndexError};
use super::key::{Certificate, entry_message};
use super::payload;
use super::proof::Proof;
use super::standing::certificate_of;
use super::store::{self, StoreError};
use super::tree;
use super::verify::{Code, must_be_signed};
use crate::approval::request::TreeHead;
use crate::statement::Digest;

/// Why a ledger cannot be read. Whether it can be trusted is for [`super::verify`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// No such entry.
    #[error("there is no entry {0}")]
    NoEntry(u64),
    /// What is there cannot be read.
    #[error("{0}; see countersign ledger verify")]
    Damaged(&'static str),
    /// An entry is not the one that was recorded.
    #[error("entry {0}: {1}; see countersign ledger verify")]
    Altered(u64, Unsound),
}

/// A ledger, open for reading. What it gives is checked: an entry against the tree of the last
/// checkpoint, a text against its entry's commitment, a row of the index against its entry. What does
/// not fit is not given, and [`Reader::damage`] tells of it.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
    vouched: RefCell<Option<Vouched>>,
    damage: RefCell<BTreeMap<u64, Damage>>,
    redactions: RefCell<Redactions>,
    /// Whether every entry of an epoch is signed, by the epoch's number.
    signs_every_entry: RefCell<BTreeMap<u64, bool>>,
}

/// The texts that redaction entries name, as far as the ledger was searched for such entries.
#[derive(Debug, Default)]
struct Redactions {
    searched: u64,
    texts: BTreeSet<(u64, u64)>,
}

/// Leaf hashes that lead to the root of a signed checkpoint, by tile.
#[derive(Debug)]
struct Vouched {
    head: TreeHead,
    tiles: BTreeMap<u64, Vec<u8>>,
}

/// What was found not to be as it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The entry is not the one in the tree.
    Entry,
    /// A text is not the one that the entry commits to.
    Text(Key),
    /// A text that the entry commits to was deleted, and no redaction entry names it.
    Deleted(Key),
    /// The entry must have a signature of its own and has none.
    Unsigned,
    /// There is no such entry, although later entries exist.
    Missing,
    /// This entry and all later ones are missing, although a checkpoint covers them.
    CutOff,
    /// The index says something else than the entries.
    Index,
}

impl Damage {
    /// The code that `countersign ledger verify` has for it.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Entry => Code::Root,
            Self::Text(_) | Self::Deleted(_) => Code::Redaction,
            Self::Unsigned => Code::Entry,
            Self::Missing => Code::Order,
            Self::CutOff => Code::RolledBack,
            Self::Index => Code::Derived,
        }
    }

    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Text(key) | Self::Deleted(key) => key.name(),
            Self::Unsigned => "signature",
            Self::Missing | Self::CutOff => "missing",
            Self::Index => "index",
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry => f.write_str("it is not the entry that the ledger's tree holds"),
            Self::Text(key) => write!(f, "the text \"{}\" is not the one that was recorded", key.name()),
            Self::Deleted(key) => {
                write!(f, "the text \"{}\" was deleted, and no redaction entry names it", key.name())
            }
            Self::Unsigned => f.write_str("its signature is missing"),
            Self::Missing => f.write_str("the entry is missing"),
            Self::CutOff => f.write_str("the ledger ends before it, although a checkpoint covers it"),
            Self::Index => f.write_str("the index says something else of it"),
        }
    }
}

/// A text that an entry commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// It is there, and it is the one that was recorded.
    Kept(Vec<u8>),
    /// It is never stored: the digest of a text that holds a secret.
    NotStored,
    /// It was redacted, as a later entry says.
    Redacted,
    /// It was deleted, and no entry says so.
    Deleted,
    /// Something else is there.
    Damaged,
}

impl Text {
    /// The text, if it may be shown.
    #[must_use]
    pub fn kept(self) -> Option<Vec<u8>> {
        match self {
            Self::Kept(value) => Some(value),
            Self::NotStored | Self::Redacted | Self::Deleted | Self::Damaged => None,
        }
    }

    /// Whether somebody changed or deleted it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match self {
            Self::Deleted | Self::Damaged => true,
            Self::Kept(_) | Self::NotStored | Self::Redacted => false,
        }
    }
}

/// Why an entry is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// It is not the one that was recorded.
    #[error("it is not the entry that the ledger's tree holds")]
    Altered,
    /// It cannot be read.
    #[error("unreadable: {0}")]
    Unreadable(#[from] EntryError),
}

/// A stored entry, still as bytes.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place.
    pub seq: u64,
    /// What is hashed and signed.
    pub body: Vec<u8>,
    /// Its own signature.
    pub signature: Option<Vec<u8>>,
    /// Whether it is in the tree of a signed checkpoint.
    pub is_sound: bool,
    /// Whether it must have a signature of its own and has none.
    pub lacks_signature: bool,
}

impl Stored {
    /// Its hash in the tree.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        tree::leaf_hash(&self.body)
    }

    /// What it says, when it is the entry that was recorded.
    ///
    /// # Errors
    ///
    /// When it is not, or cannot be read.
    pub fn entry(&self) -> Result<Entry<'_>, Unsound> {
        if !self.is_sound {
            return Err(Unsound::Altered);
        }
        Ok(Entry::parse(&self.body)?)
    }
}

/// What a search looks for. All that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The agent's name.
    pub agent: Option<String>,
    /// The statement class.
    pub class: Option<String>,
    /// Not before, nanoseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Not after.
    pub until: Option<u64>,
    /// A ground (`granted`), a state (`completed`, `denied_by_reviewer`), or `refused`.
    pub decision: Option<String>,
    /// Somebody who approved or denied it.
    pub reviewer: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// Words within the text.
    pub contains: Option<String>,
    /// The newest of them first, and no more than these.
    pub limit: Option<u64>,
}

/// One statement as the index has it: columns of the view `statements`.
pub type Row = Vec<(String, Cell)>;

impl Reader {
    /// Opens a ledger: the live file, or a copy.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let connection = store::open_for_reading(path)?;
        if !store::has_schema(&connection)? {
            return Err(ReadError::Damaged("this is not a ledger of this version"));
        }
        Ok(Self {
            path: path.to_owned(),
            connection,
            vouched: RefCell::default(),
            damage: RefCell::default(),
            redactions: RefCell::default(),
            signs_every_entry: RefCell::default(),
        })
    }

    /// What was come across that is not as it was recorded, by entry.
    #[must_use]
    pub fn damage(&self) -> BTreeMap<u64, Damage> {
        self.damage.borrow().clone()
    }

    pub(super) fn note_damage(&self, seq: u64, damage: Damage) {
        self.damage.borrow_mut().entry(seq).or_insert(damage);
    }

    /// An entry as it is stored, and whether the tree holds it.
    fn stored(&self, seq: u64, body: Vec<u8>, signature: Option<Vec<u8>>) -> Result<Stored, ReadError> {
        let is_sound = self.vouches(seq, &tree::leaf_hash(&body))?;
        if !is_sound {
            self.note_damage(seq, Damage::Entry);
        }
        let lacks_signature = is_sound && signature.is_none() && self.must_be_signed(seq, &body)?;
        if lacks_signature {
            self.note_damage(seq, Damage::Unsigned);
        }
        Ok(Stored { seq, body, signature, is_sound, lacks_signature })
    }

    /// Whether an entry must have a signature of its own. Where only some entries have one, an outcome
    /// has one if its statement has; that is left to `verify`.
    fn must_be_signed(&self, seq: u64, body: &[u8]) -> Result<bool, ReadError> {
        let Ok(entry) = Entry::parse(body) else { return Ok(false) };
        if must_be_signed(&entry) == Some(true) {
            return Ok(true);
        }
        let epoch = entry.uint(Key::Epoch).unwrap_or_default();
        if let Some(known) = self.signs_every_entry.borrow().get(&epoch) {
            return Ok(*known);
        }
        let begin = store::body(&self.connection, self.beginning_of_epoch(seq)?)?.unwrap_or_default();
        let signing =
            Entry::parse(&begin).ok().and_then(|entry| Signing::from_name(entry.text(Key::Signing)?));
        let every = signing == Some(Signing::EveryEntry);
        self.signs_every_entry.borrow_mut().insert(epoch, every);
        Ok(every)
    }

    /// Whether this is the hash of entry `seq` in the tree of the last checkpoint, which is signed.
    fn vouches(&self, seq: u64, leaf: &Digest) -> Result<bool, ReadError> {
        let tile = seq / TILE;
        let place = (seq % TILE) as usize * 32;
        let mut cached = self.vouched.borrow_mut();
        let mut vouched = match cached.take().filter(|vouched| seq < vouched.head.size) {
            Some(vouched) => vouched,
            None => Vouched { head: self.checkpoint()?.checkpoint.head, tiles: BTreeMap::new() },
        };
        if !vouched.tiles.contains_key(&tile) {
            if vouched.tiles.len() >= KEPT_TILES {
                vouched.tiles.clear();
            }
            vouched.tiles.insert(tile, self.vouch(vouched.head, tile).unwrap_or_default());
        }
        let hash = vouched.tiles.get(&tile).and_then(|hashes| hashes.get(place..place + 32));
        let is_held = hash.is_some_and(|hash| hash == leaf.as_bytes());
        *cached = Some(vouched);
        Ok(is_held)
    }

    /// The leaf hashes of a tile, when they lead to the root. The proof of the first one takes in all the
    /// others.
    fn vouch(&self, head: TreeHead, tile: u64) -> Option<Vec<u8>> {
        let first = tile * TILE;
        let count = usize::try_from(head.size.checked_sub(first)?.min(TILE)).ok()?;
        let mut hashes = store::tile(&self.connection, 0, tile).ok()??;
        hashes.truncate(count * 32);
        let leaf = Digest::from_bytes(*hashes.first_chunk::<32>()?);
        let path = tree::inclusion_proof(first, head.size, |height, index| {
            tree::node_from_tiles(height, index, |level, index| {
                store::tile(&self.connection, level, index).ok().flatten()
            })
        });
        tree::verify_inclusion(leaf, first, head.size, &path.ok()?, head.root).ok()?;
        Some(hashes)
    }

    /// Entries whose texts or fields hold these bytes.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn holders_of(&self, bytes: &[u8]) -> Result<Vec<u64>, ReadError> {
        let sql = "SELECT seq FROM payload WHERE instr(value, ?1) > 0 \
                   UNION SELECT seq FROM entry WHERE instr(body, ?1) > 0 LIMIT 20";
        let mut statement = self.connection.prepare(sql)?;
        let seqs = statement.query_map([bytes], |row| row.get(0))?;
        Ok(seqs.collect::<Result<_, _>>()?)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn size(&self) -> Result<u64, ReadError> {
        let sql = "SELECT coalesce(max(seq) + 1, 0) FROM entry";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// One entry.
    ///
    /// # Errors
    ///
    /// When there is none of that number.
    pub fn entry(&self, seq: u64) -> Result<Stored, ReadError> {
        let sql = "SELECT body, sig FROM entry WHERE seq = ?1";
        let found = self
            .connection
            .prepare_cached(sql)?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((body, signature)) = found else {
            if seq < self.size()? {
                self.note_damage(seq, Damage::Missing);
            } else {
                // It notes entries that are covered and not there.
                self.checkpoint()?;
            }
            return Err(ReadError::NoEntry(seq));
        };
        self.stored(seq, body, signature)
    }

    /// Hands every entry of a range to `each`, in order, until it has enough.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or whatever `each` returns.
    pub fn each<E: From<ReadError>>(
        &self,
        from: u64,
        to: u64,
        mut each: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<(), E> {
        // It notes an end that is missing, also where the range has no entry.
        self.checkpoint()?;
        let sqlite = |error: rusqlite::Error| E::from(error.into());
        let sql = "SELECT seq, body, sig FROM entry WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
        let mut statement = self.connection.prepare(sql).map_err(sqlite)?;
        let to = i64::try_from(to).unwrap_or(i64::MAX);
        let mut rows = statement.query(rusqlite::params![from, to]).map_err(sqlite)?;
        let mut expected = from;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let columns = (|| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))();
            let (seq, body, signature) = columns.map_err(sqlite)?;
            if seq > expected {
                self.note_damage(expected, Damage::Missing);
            }
            expected = seq + 1;
            each(self.stored(seq, body, signature)?)?;
        }
        Ok(())
    }

    /// The text that an entry commits to, if it is still there and the one that was recorded.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn text(&self, entry: &Entry<'_>, key: Key) -> Result<Text, ReadError> {
        let seq = entry.seq();
        let sql = "SELECT salt, value FROM payload WHERE seq = ?1 AND field = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<(Vec<u8>, Vec<u8>)> = statement.query_row([seq, key.into()], columns).optional()?;
        // The digest of a hidden text has no row.
        let is_hidden = key == Key::Digest && entry.has(Key::Nonce);
        let Some((salt, value)) = found else {
            if is_hidden {
                return Ok(Text::NotStored);
            }
            if self.is_redacted(seq, key)? {
                return Ok(Text::Redacted);
            }
            self.note_damage(seq, Damage::Deleted(key));
            return Ok(Text::Deleted);
        };
        let committed = entry.commitments().find(|(other, _)| *other == key).map(|(_, digest)| digest);
        if !is_hidden
            && salt.len() == payload::SALT
            && committed == Some(payload::commitment(key, &salt, &value))
        {
            return Ok(Text::Kept(value));
        }
        self.note_damage(seq, Damage::Text(key));
        Ok(Text::Damaged)
    }

    /// Whether an entry that the tree holds names this text as redacted. Only a missing text asks for this,
    /// so the search through the entries is made once at most, and continued for those that came since.
    fn is_redacted(&self, seq: u64, key: Key) -> Result<bool, ReadError> {
        let wanted = (seq, u64::from(key));
        let mut redactions = self.redactions.borrow_mut();
        if redactions.texts.contains(&wanted) {
            return Ok(true);
        }
        let mut statement =
            self.connection.prepare_cached("SELECT seq, body FROM entry WHERE seq >= ?1 ORDER BY seq")?;
        let mut rows = statement.query([redactions.searched])?;
        while let Some(row) = rows.next()? {
            let at: u64 = row.get(0)?;
            let body = row.get_ref(1)?.as_blob().unwrap_or_default();
            redactions.searched = at + 1;
            if entry::peek_kind(body) != Some(Kind::Redaction) || !self.vouches(at, &tree::leaf_hash(body))? {
                continue;
            }
            let Ok(entry) = Entry::parse(body) else { continue };
            redactions.texts.extend(entry.rows(Key::Redacted).filter_map(|row| match row {
                [seq, field] => Some((seq.as_uint()?, field.as_uint()?)),
                _ => None,
            }));
        }
        Ok(redactions.texts.contains(&wanted))
    }

    /// The last checkpoint, with the root's word for the key that signed it: an anchor. By the keys
    /// that the ledger names; whether those can be trusted is for [`super::verify`].
    ///
    /// # Errors
    ///
    /// When there is none, it cannot be read, or is not signed.
    pub fn checkpoint(&self) -> Result<Note, ReadError> {
        let sql = "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1";
        let text: Option<String> = self.connection.query_row(sql, [], |row| row.get(0)).optional()?;
        let text = text.ok_or(ReadError::Damaged("there is no checkpoint"))?;
        let note =
            Note::parse(&text).map_err(|_| ReadError::Damaged("the last checkpoint cannot be read"))?;
        let (covered, size) = (note.checkpoint.head.size, self.size()?);
        if covered > size {
            self.note_damage(size, Damage::CutOff);
        }
        let last = covered.min(size).saturating_sub(1);
        let (certificate, root) = self.epoch_of(last)?;
        let note = note.with_certificate(&certificate, &root);
        match note.verify_by_root(&root) {
            Ok(_) => Ok(note),
            Err(_) => Err(ReadError::Damaged("the last checkpoint is not signed by the ledger's keys")),
        }
    }

    /// The certificate of the epoch that signed an entry, and the root that signed that.
    fn epoch_of(&self, seq: u64) -> Result<(Certificate, VerifyingKey), ReadError> {
        let none = || ReadError::Damaged("its epoch cannot be found");
        let mut begin = self.beginning_of_epoch(seq)?;
        let certificate = self.certificate_at(begin)?;
        let origin = self.origin()?;
        // Every root but the first stands right before the first epoch that it certifies.
        let mut root = self.body_of_the_first()?;
        while certificate.verify(&origin, &root_of(&root).ok_or_else(none)?).is_err() {
            let before = begin.checked_sub(1).ok_or_else(none)?;
            match store::body(&self.connection, before)? {
                Some(body) if entry::peek_kind(&body) == Some(Kind::KeyRoot) => {
                    root = body;
                    // If this one did not certify it either, an earlier one cannot have.
                    let key = root_of(&root).ok_or_else(none)?;
                    certificate.verify(&origin, &key).map_err(|_| none())?;
                }
                Some(_) => {
                    let earlier = self.beginning_of_epoch(before)?;
                    if earlier >= begin {
                        return Err(none());
                    }
                    begin = earlier;
                }
                None => return Err(none()),
            }
        }
        Ok((certificate, root_of(&root).ok_or_else(none)?))
    }

    fn certificate_at(&self, seq: u64) -> Result<Certificate, ReadError> {
        let body = store::body(&self.connection, seq)?;
        let certificate = body.as_deref().and_then(|body| certificate_of(&Entry::parse(body).ok()?));
        certificate.ok_or(ReadError::Damaged("an epoch cannot be read"))
    }

    /// Where the epoch of an entry begins: epochs are numbered in the order of entries, so it is found by
    /// halving.
    fn beginning_of_epoch(&self, seq: u64) -> Result<u64, ReadError> {
        let wanted = self.epoch_number(seq)?;
        let (mut from, mut to) = (0, seq);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.epoch_number(middle)? < wanted { from = middle + 1 } else { to = middle }
        }
        // What the root signs itself counts to the epoch that follows.
        for seq in from..from + 3 {
            let body = store::body(&self.connection, seq)?.unwrap_or_default();
            if entry::peek_kind(&body) == Some(Kind::KeyEpoch) {
                return Ok(seq);
            }
        }
        Err(ReadError::Damaged("its epoch cannot be found"))
    }

    /// The number of the epoch of an entry; of one that the root signed, that of the epoch behind it.
    fn epoch_number(&self, seq: u64) -> Result<u64, ReadError> {
        for seq in seq..seq + 3 {
            let Some(body) = store::body(&self.connection, seq)? else { continue };
            let entry = Entry::parse(&body).map_err(|error| ReadError::Altered(seq, error.into()))?;
            match entry.uint(Key::Epoch) {
                Some(0) | None => {}
                Some(number) => return Ok(number),
            }
        }
        Err(ReadError::Damaged("its epoch cannot be found"))
    }

    /// The proof that an entry is in the tree of the last checkpoint.
    ///
    /// # Errors
    ///
    /// When there is no such entry, or a tile is missing.
    pub fn proof(&self, seq: u64) -> Result<Proof, ReadError> {
        let body = self.entry(seq)?.body;
        let note = self.checkpoint()?;
        let path = tree::inclusion_proof(seq, note.checkpoint.head.size, |height, index| {
            tree::node_from_tiles(height, index, |level, index| {
                store::tile(&self.connection, level, index).ok().flatten()
            })
        })
        .map_err(|_| ReadError::Damaged("the proof cannot be made: a tile is missing"))?;
        let head = note.checkpoint.head;
        tree::verify_inclusion(tree::leaf_hash(&body), seq, head.size, &path, head.root)
            .map_err(|_| ReadError::Altered(seq, Unsound::Altered))?;
        Ok(Proof { index: seq, path, note, body })
    }

    /// Whether an entry's own signature holds: `None` when it has none. By the keys that the ledger
    /// names; whether those can be trusted, the proof says.
    ///
    /// # Errors
    ///
    /// When the epoch cannot be found.
    pub fn signature_holds(&self, stored: &Stored) -> Result<Option<bool>, ReadError> {
        let Some(signature) = &stored.signature else { return Ok(None) };
        let Ok(signature) = Signature::from_slice(signature) else { return Ok(Some(false)) };
        // The first entry comes before any epoch, and is the root's own.
        let (certificate, root) = self.epoch_of(stored.seq.max(1))?;
        let by_root = matches!(entry::peek_kind(&stored.body), Some(Kind::LedgerCreated | Kind::KeyRoot));
        let key = if by_root { Ok(root) } else { VerifyingKey::from_bytes(&certificate.key) };
        let origin = self.origin()?;
        let message = entry_message(&origin, stored.seq, &stored.leaf());
        Ok(Some(key.is_ok_and(|key| key.verify_strict(&message, &signature).is_ok())))
    }

    /// The first entry names the ledger and its key, by which the rest is checked.
    fn body_of_the_first(&self) -> Result<Vec<u8>, ReadError> {
        store::body(&self.connection, 0)?.ok_or(ReadError::NoEntry(0))
    }

    /// The ledger's name.
    ///
    /// # Errors
    ///
    /// When the first entry cannot be read.
    pub fn origin(&self) -> Result<String, ReadError> {
        let first = self.body_of_the_first()?;
        let origin = Entry::parse(&first).ok().and_then(|entry| entry.text(Key::Origin).map(str::to_owned));
        origin.ok_or(ReadError::Damaged("the first entry cannot be read"))
    }

    /// Searches the statements, newest first. The index finds them; what it says of them is compared with
    /// their entries, and where it says something else the row has nothing but its number and `damaged`.
    ///
    /// # Errors
    ///
    /// When the index cannot be read or made.
    pub fn statements(&self, filter: &Filter) -> Result<Vec<Row>, ReadError> {
        let index = index::for_searching(&self.path)?;
        let mut conditions = Vec::new();
        let mut values: Vec<String> = Vec::new();
        let mut condition = |sql: &str, value: Option<String>| {
            if let Some(value) = value {
                values.push(value);
                conditions.push(sql.replace('?', &format!("?{}", values.len())));
            }
        };
        condition("agent = ?", filter.agent.clone());
        condition("class = ?", filter.class.clone());
        condition("time >= ?", filter.since.map(display_time));
        condition("time <= ?", filter.until.map(display_time));
        condition("session = ?", filter.session.clone());
        condition("instr(lower(sql), lower(?)) > 0", filter.contains.clone());
        condition(
            "(clearance = ? OR state = ? OR (? = 'refused' AND clearance IS NULL))",
            filter.decision.clone(),
        );
        condition(
            "request IN (SELECT request FROM review WHERE reviewer = ? COLLATE NOCASE)",
            filter.reviewer.clone(),
        );
        let mut sql = "SELECT * FROM statements".to_owned();
        if !conditions.is_empty() {
            sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
        }
        sql.push_str(&format!(" ORDER BY seq DESC LIMIT {}", filter.limit.unwrap_or(u64::from(u32::MAX))));
        let mut statement = index.prepare(&sql)?;
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let rows = statement.query_map(params_from_iter(values), |row| {
            let cells = names.iter().enumerate().map(|(place, name)| Ok((name.clone(), row.get(place)?)));
            Ok((row.get("seq")?, cells.collect::<Result<Row, rusqlite::Error>>()?))
        })?;
        let mut checked = Vec::new();
        for row in rows {
            let (seq, mut row): (u64, Row) = row?;
            match index::check_row(&index, self, seq, "statement")? {
                index::Checked::Damaged(damage) => {
                    row.iter_mut().filter(|(name, _)| name != "seq").for_each(|(_, cell)| *cell = Cell::Null);
                    row.push(("damaged".to_owned(), Cell::Text(damage.name().to_owned())));
                }
                index::Checked::TextGone => {
                    row.iter_mut().filter(|(name, _)| name == "sql").for_each(|(_, cell)| *cell = Cell::Null);
                }
                index::Checked::Agrees => {}
            }
            checked.push(row);
        }
        Ok(checked)
    }
}

/// Leaf hashes in a tile.
const TILE: u64 = 256;
/// How many tiles are kept at a time.
const KEPT_TILES: usize = 256;

/// The root key that an entry names.
fn root_of(body: &[u8]) -> Option<VerifyingKey> {
    let key = Entry::parse(body).ok()?.array(Key::RootKey)?;
    VerifyingKey::from_bytes(&key).ok()
}

/// The name a field has in exports: that of its key, or its number for a remark.
#[must_use]
pub fn field_name(number: u64) -> String {
    Key::from_number(number).map_or_else(|| format!("remark_{number}"), |key| key.name().to_owned())
}
