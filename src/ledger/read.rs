//! Reading a ledger: one entry with everything about it, searches through the index, proofs. For the
//! command line and the console; nothing here writes to the ledger.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use super::checkpoint::{Note, NoteError};
use super::entry::{self, Entry, Key, Kind};
use super::index::{self, IndexError};
use super::key::{Certificate, PublicRoot, entry_message};
use super::standing::certificate_of;
use super::store::{self, StoreError};
use super::tree::{self, ProofError};
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
}

/// A ledger, open for reading.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
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
}

impl Stored {
    /// Its hash in the tree.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        tree::leaf_hash(&self.body)
    }
}

/// How far an entry is proved by the ledger it is in.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The entry.
    pub index: u64,
    /// The way from its hash to the root, sibling by sibling.
    pub path: Vec<Digest>,
    /// The checkpoint whose tree that is, with the root's word for the key that signed it.
    pub note: Note,
    /// The entry's body.
    pub body: Vec<u8>,
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFailure {
    /// Not a proof.
    #[error("not a proof of one entry (c2sp.org/tlog-proof@v1)")]
    Malformed,
    /// The checkpoint.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The way to the root.
    #[error(transparent)]
    Path(#[from] ProofError),
}

const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";

impl Proof {
    /// The text of a `.tlog-proof` file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text =
            format!("{PROOF_HEADER}\nextra {}\nindex {}\n", STANDARD.encode(&self.body), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash.as_bytes()));
            text.push('\n');
        }
        text + "\n" + &self.note.to_text()
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, ProofFailure> {
        let (head, note) = text.split_once("\n\n").ok_or(ProofFailure::Malformed)?;
        let mut lines = head.lines();
        let mut next = |prefix: &str| lines.next().and_then(|line| line.strip_prefix(prefix));
        let header = next(PROOF_HEADER).filter(|rest| rest.is_empty());
        let body = header.and_then(|_| next("extra ")).and_then(|body| STANDARD.decode(body).ok());
        let body = body.ok_or(ProofFailure::Malformed)?;
        let index = next("index ").and_then(|index| index.parse().ok()).ok_or(ProofFailure::Malformed)?;
        let path = lines
            .map(|line| Some(Digest::from_bytes(STANDARD.decode(line).ok()?.try_into().ok()?)))
            .collect::<Option<Vec<_>>>()
            .ok_or(ProofFailure::Malformed)?;
        let proof = Self { index, path, note: Note::parse(note)?, body };
        if proof.to_text() == text { Ok(proof) } else { Err(ProofFailure::Malformed) }
    }

    /// Checks it by the root's public key alone.
    ///
    /// # Errors
    ///
    /// When anything about it does not hold.
    pub fn verify(&self, root: &PublicRoot) -> Result<TreeHead, ProofFailure> {
        if self.note.checkpoint.origin != root.origin {
            return Err(NoteError::OtherOrigin.into());
        }
        self.note.verify_by_root(&root.key)?;
        let head = self.note.checkpoint.head;
        tree::verify_inclusion(tree::leaf_hash(&self.body), self.index, head.size, &self.path, head.root)?;
        Ok(head)
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
        Ok(Self { path: path.to_owned(), connection })
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
            .query_row([seq], |row| Ok(Stored { seq, body: row.get(0)?, signature: row.get(1)? }))
            .optional()?;
        found.ok_or(ReadError::NoEntry(seq))
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
        let sqlite = |error: rusqlite::Error| E::from(error.into());
        let sql = "SELECT seq, body, sig FROM entry WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq";
        let mut statement = self.connection.prepare(sql).map_err(sqlite)?;
        let to = i64::try_from(to).unwrap_or(i64::MAX);
        let mut rows = statement.query(rusqlite::params![from, to]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let stored = (|| Ok(Stored { seq: row.get(0)?, body: row.get(1)?, signature: row.get(2)? }))();
            each(stored.map_err(sqlite)?)?;
        }
        Ok(())
    }

    /// The text that an entry commits to, if it is still there.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn text(&self, seq: u64, key: Key) -> Result<Option<Vec<u8>>, ReadError> {
        let sql = "SELECT value FROM payload WHERE seq = ?1 AND field = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([seq, key.into()], |row| row.get(0)).optional()?)
    }

    /// The last checkpoint, with the root's word for the key that signed it: an anchor.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn checkpoint(&self) -> Result<Note, ReadError> {
        let sql = "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1";
        let text: Option<String> = self.connection.query_row(sql, [], |row| row.get(0)).optional()?;
        let text = text.ok_or(ReadError::Damaged("there is no checkpoint"))?;
        let note =
            Note::parse(&text).map_err(|_| ReadError::Damaged("the last checkpoint cannot be read"))?;
        let last = note.checkpoint.head.size.saturating_sub(1);
        let (certificate, root) = self.epoch_of(last)?;
        Ok(note.with_certificate(&certificate, &root))
    }

    /// The certificate of the epoch that signed an entry, and the root that signed that.
    fn epoch_of(&self, seq: u64) -> Result<(Certificate, VerifyingKey), ReadError> {
        let none = || ReadError::Damaged("its epoch cannot be found");
        let body = self.newest(seq, Kind::KeyEpoch)?.ok_or_else(none)?;
        let certificate =
            Entry::parse(&body).ok().and_then(|entry| certificate_of(&entry)).ok_or_else(none)?;
        let root = match self.newest(seq, Kind::KeyRoot)? {
            Some(body) => body,
            None => self.entry(0)?.body,
        };
        let root = Entry::parse(&root).ok().and_then(|entry| entry.array(Key::RootKey)).ok_or_else(none)?;
        Ok((certificate, VerifyingKey::from_bytes(&root).map_err(|_| none())?))
    }

    /// The newest entry of a kind up to `seq`.
    fn newest(&self, seq: u64, kind: Kind) -> Result<Option<Vec<u8>>, ReadError> {
        let mut statement =
            self.connection.prepare("SELECT body FROM entry WHERE seq <= ?1 ORDER BY seq DESC")?;
        let mut rows = statement.query([seq])?;
        while let Some(row) = rows.next()? {
            let body = row.get_ref(0)?.as_blob().unwrap_or_default();
            if entry::peek_kind(body) == Some(kind) {
                return Ok(Some(body.to_vec()));
            }
        }
        Ok(None)
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

    /// The ledger's name.
    ///
    /// # Errors
    ///
    /// When the first entry cannot be read.
    pub fn origin(&self) -> Result<String, ReadError> {
        let first = self.entry(0)?.body;
        let origin = Entry::parse(&first).ok().and_then(|entry| entry.text(Key::Origin).map(str::to_owned));
        origin.ok_or(ReadError::Damaged("the first entry cannot be read"))
    }

    /// Searches the statements, newest first.
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
        condition("time >= ?", filter.since.map(index::display_time));
        condition("time <= ?", filter.until.map(index::display_time));
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
            names.iter().enumerate().map(|(place, name)| Ok((name.clone(), row.get(place)?))).collect()
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The name a field has in exports: that of its key, or its number for a remark.
#[must_use]
pub fn field_name(number: u64) -> String {
    Key::from_number(number).map_or_else(|| format!("remark_{number}"), |key| key.name().to_owned())
}
