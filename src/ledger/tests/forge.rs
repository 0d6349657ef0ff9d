//! The strongest attacker there is: whoever holds the root key. Takes a ledger apart into entries,
//! lets a test change them, and signs the whole again: tree, tiles, checkpoints, epochs, references. What is left to
//! find such a forgery by is its meaning, and an anchor.
#![allow(clippy::wildcard_enum_match_arm, reason = "what a test does not look at")]

use std::collections::BTreeMap;
use std::path::Path;

use minicbor::Encoder;
use rusqlite::{Connection, params};

use crate::approval::request::TreeHead;
use crate::ledger::cbor::{Value, parse, parse_pairs};
use crate::ledger::checkpoint::Note;
use crate::ledger::entry::{Key, Kind};
use crate::ledger::key::{EpochKey, RootKey};
use crate::ledger::payload;
use crate::ledger::store::{APPLICATION_ID, SCHEMA, open_for_reading};
use crate::ledger::tree::{Tiles, Tree, leaf_hash};
use crate::statement::Digest;

/// An entry, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it was, for references; `None` for one that was made up.
    was: Option<u64>,
    /// Its fields, each encoded.
    pub(crate) fields: BTreeMap<u64, Vec<u8>>,
    pub(crate) texts: BTreeMap<u64, Vec<u8>>,
    pub(crate) signed: bool,
    /// A checkpoint follows.
    pub(crate) ends_group: bool,
}

/// A CBOR value.
pub(crate) fn encoded(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes));
    bytes
}

impl Piece {
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.uint(Key::Kind).and_then(Kind::from_number)
    }

    pub(crate) fn uint(&self, key: Key) -> Option<u64> {
        parse(self.fields.get(&key.into())?).ok()?.as_uint()
    }

    pub(crate) fn text(&self, key: Key) -> Option<String> {
        parse(self.fields.get(&key.into())?).ok()?.as_text().map(str::to_owned)
    }

    pub(crate) fn bytes(&self, key: Key) -> Option<Vec<u8>> {
        parse(self.fields.get(&key.into())?).ok()?.as_bytes().map(<[u8]>::to_vec)
    }

    pub(crate) fn set_uint(&mut self, key: Key, value: u64) {
        self.fields.insert(key.into(), encoded(|e| drop(e.u64(value))));
    }

    pub(crate) fn set_text(&mut self, key: Key, value: &str) {
        self.fields.insert(key.into(), encoded(|e| drop(e.str(value))));
    }

    pub(crate) fn set_bytes(&mut self, key: Key, value: &[u8]) {
        self.fields.insert(key.into(), encoded(|e| drop(e.bytes(value))));
    }

    pub(crate) fn set_texts(&mut self, key: Key, values: &[&str]) {
        let value = encoded(|e| {
            e.array(values.len() as u64).unwrap();
            for value in values {
                e.str(value).unwrap();
            }
        });
        self.fields.insert(key.into(), value);
    }

    pub(crate) fn set_rows(&mut self, key: Key, rows: &[(&str, u64)]) {
        let value = encoded(|e| {
            e.array(rows.len() as u64).unwrap();
            for (text, number) in rows {
                e.array(2).unwrap().str(text).unwrap().u64(*number).unwrap();
            }
        });
        self.fields.insert(key.into(), value);
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.fields.remove(&key.into());
        self.texts.remove(&key.into());
    }

    /// Another text, with a commitment that fits.
    pub(crate) fn set_committed(&mut self, key: Key, value: &[u8]) {
        self.texts.insert(key.into(), value.to_vec());
        let commitment = payload::commitment(key, &[9; 16], value);
        self.set_bytes(key, commitment.as_bytes());
    }

    /// Made up: nothing refers to it, and no record stands behind it.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.was = None;
        copy.remove(Key::Record);
        copy.remove(Key::RecordEnd);
        copy.ends_group = false;
        copy
    }

    pub(crate) fn move_time(&mut self, wall: i64, mono: i64) {
        for (key, by) in [(Key::Wall, wall), (Key::Mono, mono)] {
            let moved = self.uint(key).unwrap().checked_add_signed(by).unwrap();
            self.set_uint(key, moved);
        }
    }
}

type Spelling = fn(kind: Kind, body: Vec<u8>) -> Vec<u8>;

/// What a forger may do besides changing entries.
pub(crate) struct Forger<'a> {
    pub(crate) root: &'a RootKey,
    /// Leaves record numbers as they are, gaps and all.
    pub(crate) keep_records: bool,
    /// Writes the body of an entry in its own way.
    pub(crate) spell: Option<Spelling>,
    /// The number of an epoch, in place of the right one.
    pub(crate) epoch_number: fn(u64) -> u64,
    /// Keeps signing with the first epoch's key.
    pub(crate) stale_epoch: bool,
}

impl<'a> Forger<'a> {
    pub(crate) fn new(root: &'a RootKey) -> Self {
        Self { root, keep_records: false, spell: None, epoch_number: |number| number, stale_epoch: false }
    }
}

/// Takes a ledger apart.
pub(crate) fn take_apart(path: &Path) -> Vec<Piece> {
    let connection = open_for_reading(path).unwrap();
    let mut ends = connection.prepare("SELECT size FROM checkpoint").unwrap();
    let ends: std::collections::BTreeSet<u64> =
        ends.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let mut statement = connection.prepare("SELECT seq, body, sig FROM entry ORDER BY seq").unwrap();
    let mut texts = connection.prepare("SELECT field, value FROM payload WHERE seq = ?1").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut pieces = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let seq: u64 = row.get(0).unwrap();
        let body: Vec<u8> = row.get(1).unwrap();
        let signature: Option<Vec<u8>> = row.get(2).unwrap();
        // The head of the map is one or two bytes.
        let head = if body[0] == 0xb8 { 2 } else { 1 };
        let fields = parse_pairs(&body[head..]).unwrap();
        let fields = fields.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        let texts = texts
            .query_map([seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        pieces.push(Piece {
            was: Some(seq),
            fields,
            texts,
            signed: signature.is_some(),
            ends_group: ends.contains(&(seq + 1)),
        });
    }
    pieces
}

/// Puts a ledger together again, signed throughout, in the place of the one at `path`.
pub(crate) fn put_together(path: &Path, mut pieces: Vec<Piece>, forger: &Forger<'_>) {
    renumber(&mut pieces, forger);
    for suffix in ["", "-wal", "-shm", ".index.db", ".index.db-wal", ".index.db-shm"] {
        let _ = std::fs::remove_file(crate::ledger::store::with_suffix_raw(path, suffix));
    }
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    for (_, sql) in SCHEMA {
        connection.execute_batch(sql).unwrap();
    }
    let transaction = connection.unchecked_transaction().unwrap();
    let (mut tree, mut tiles) = (Tree::new(), Tiles::default());
    let mut roots: BTreeMap<u64, (Digest, String)> = BTreeMap::new();
    let mut last_checkpoint = 0;
    let mut epochs = 0;
    let mut epoch: Option<EpochKey> = None;
    let mut full = Vec::new();
    let mut kept = BTreeMap::new();
    let none = (Digest::from_bytes([0; 32]), String::new());
    for (seq, piece) in pieces.iter_mut().enumerate() {
        let seq = seq as u64;
        let kind = piece.kind().unwrap_or(Kind::Export);
        piece.set_uint(Key::Seq, seq);
        match kind {
            Kind::KeyEpoch => {
                epochs += 1;
                let wall = piece.uint(Key::Wall).unwrap();
                let number = (forger.epoch_number)(epochs);
                let key = forger.root.begin_epoch(number, seq, tree.root(), wall).unwrap();
                let certificate = key.certificate();
                piece.set_uint(Key::Epoch, number);
                piece.set_bytes(Key::EpochKey, &certificate.key);
                piece.set_bytes(Key::RootSignature, &certificate.signature);
                piece.set_bytes(Key::TreeRoot, certificate.root.as_bytes());
                if !(forger.stale_epoch && epoch.is_some()) {
                    epoch = Some(key);
                }
            }
            Kind::LedgerCreated => piece.set_bytes(Key::RootKey, forger.root.public().key.as_bytes()),
            Kind::CheckpointRef => {
                let (root, note) = roots.get(&last_checkpoint).unwrap_or(&none);
                piece.set_uint(Key::TreeSize, last_checkpoint);
                piece.set_bytes(Key::TreeRoot, root.as_bytes());
                piece.set_bytes(Key::Note, Digest::of(note.as_bytes()).as_bytes());
            }
            Kind::Anchored if !piece.fields.contains_key(&2000) => {
                // Sizes have moved: the last checkpoint is one that was.
                let (root, _) = roots.get(&last_checkpoint).unwrap_or(&none);
                kept.insert(piece.text(Key::Anchor).unwrap(), last_checkpoint);
                piece.set_uint(Key::TreeSize, last_checkpoint);
                piece.set_bytes(Key::TreeRoot, root.as_bytes());
            }
            _ => {
                if let Some(epoch) = &epoch
                    && kind != Kind::KeyRoot
                {
                    piece.set_uint(Key::Epoch, epoch.number());
                }
            }
        }
        let mut body = encoded(|e| drop(e.map(piece.fields.len() as u64)));
        for (key, value) in &piece.fields {
            body.extend(encoded(|e| drop(e.u64(*key))));
            body.extend(value);
        }
        if let Some(spell) = forger.spell {
            body = spell(kind, body);
        }
        let leaf = leaf_hash(&body);
        let by_root = matches!(kind, Kind::LedgerCreated | Kind::KeyRoot);
        let signature = match &epoch {
            _ if !piece.signed => None,
            Some(epoch) if !by_root => Some(epoch.sign_entry(seq, &leaf)),
            _ => Some(forger.root.sign_entry(seq, &leaf)),
        };
        let signature = signature.map(|signature| signature.to_bytes().to_vec());
        transaction.execute("INSERT INTO entry VALUES (?1, ?2, ?3)", params![seq, body, signature]).unwrap();
        for (field, value) in &piece.texts {
            let salt = salt_of(piece, *field, value);
            transaction
                .execute("INSERT INTO payload VALUES (?1, ?2, ?3, ?4)", params![seq, field, salt, value])
                .unwrap();
        }
        tree.push(leaf);
        tiles.push(leaf, |tile| full.push(tile));
        if piece.ends_group {
            let head = TreeHead { size: tree.size(), root: tree.root() };
            let note = Note::sign(forger.root.origin(), head, epoch.as_ref().unwrap()).to_text();
            transaction.execute("INSERT INTO checkpoint VALUES (?1, ?2)", params![head.size, note]).unwrap();
            roots.insert(head.size, (head.root, note));
            last_checkpoint = head.size;
        }
    }
    for (name, size) in kept {
        let note = &roots[&size].1;
        transaction.execute("INSERT INTO anchor VALUES (?1, ?2, ?3)", params![name, size, note]).unwrap();
    }
    full.extend(tiles.changed());
    for tile in full {
        transaction
            .execute("INSERT INTO tile VALUES (?1, ?2, ?3)", params![tile.level, tile.index, tile.hashes])
            .unwrap();
    }
    transaction.commit().unwrap();
}

/// The salt under which the piece commits to the value: the one it had, or the forger's own.
fn salt_of(piece: &Piece, field: u64, value: &[u8]) -> Vec<u8> {
    let key = Key::from_number(field).unwrap();
    let wanted = piece.bytes(key).unwrap_or_default();
    let known = SALTS.with_borrow(|salts| salts.clone());
    known
        .into_iter()
        .find(|salt| payload::commitment(key, salt, value).as_bytes().as_slice() == wanted)
        .unwrap_or(vec![9; 16])
}

thread_local! {
    /// The salts of the ledger that was taken apart last.
    static SALTS: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Remembers the salts of a ledger, for commitments that stay as they are.
pub(crate) fn remember_salts(path: &Path) {
    let connection = open_for_reading(path).unwrap();
    let mut statement = connection.prepare("SELECT salt FROM payload").unwrap();
    let salts = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    SALTS.set(salts);
}

/// References follow the entries they mean; records are 1 to n again.
fn renumber(pieces: &mut [Piece], forger: &Forger<'_>) {
    let places: BTreeMap<u64, u64> =
        pieces.iter().enumerate().filter_map(|(now, piece)| Some((piece.was?, now as u64))).collect();
    let moved = |seq: u64| places.get(&seq).copied().unwrap_or(seq);
    let mut records: Vec<u64> = pieces
        .iter()
        .flat_map(|piece| [piece.uint(Key::Record), piece.uint(Key::RecordEnd)])
        .flatten()
        .collect();
    records.sort_unstable();
    let records: BTreeMap<u64, u64> = records.into_iter().zip(1..).collect();
    for piece in pieces {
        if let Some(seq) = piece.uint(Key::Ref) {
            piece.set_uint(Key::Ref, moved(seq));
        }
        if let Some(value) = piece.fields.get(&Key::Reviews.into()).cloned() {
            let seqs: Vec<u64> =
                parse(&value).unwrap().elements().iter().filter_map(Value::as_uint).collect();
            let value = encoded(|e| {
                e.array(seqs.len() as u64).unwrap();
                for seq in &seqs {
                    e.u64(moved(*seq)).unwrap();
                }
            });
            piece.fields.insert(Key::Reviews.into(), value);
        }
        if let Some(value) = piece.fields.get(&Key::Redacted.into()).cloned() {
            let parsed = parse(&value).unwrap();
            let rows: Vec<(u64, u64)> = parsed
                .elements()
                .iter()
                .map(|row| (row.elements()[0].as_uint().unwrap(), row.elements()[1].as_uint().unwrap()))
                .collect();
            let value = encoded(|e| {
                e.array(rows.len() as u64).unwrap();
                for (seq, field) in &rows {
                    e.array(2).unwrap().u64(moved(*seq)).unwrap().u64(*field).unwrap();
                }
            });
            piece.fields.insert(Key::Redacted.into(), value);
        }
        if !forger.keep_records {
            for key in [Key::Record, Key::RecordEnd] {
                if let Some(number) = piece.uint(key) {
                    piece.set_uint(key, records[&number]);
                }
            }
        }
    }
}
