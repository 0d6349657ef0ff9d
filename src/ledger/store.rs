//! The ledger's SQLite file.
//!
//! A group of entries, the texts they commit to, the tiles they change and the checkpoint over all of
//! it go in by one transaction. The transaction is synced (`synchronous = FULL`): a checkpoint may be
//! in a chat message a millisecond later, and a ledger that lost it to a power cut would look rolled
//! back. Statements do not wait for any of this; the spool has them.
//!
//! The schema is part of the format. `verify` compares it byte for byte, because a trigger or a view
//! would let the file show other rows than it holds.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use super::entry::Key;
use super::key::with_suffix;
use super::payload::SALT;
use super::tree::Tile;

/// `CSLG`: tells `file(1)` and us what the file is.
pub(crate) const APPLICATION_ID: i32 = 0x4353_4c47;

/// The tables, in the order and the words in which SQLite keeps them.
pub(crate) const SCHEMA: [(&str, &str); 5] = [
    ("entry", "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, sig BLOB) STRICT"),
    ("checkpoint", "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT"),
    (
        "tile",
        "CREATE TABLE tile (level INTEGER NOT NULL, idx INTEGER NOT NULL, hashes BLOB NOT NULL, \
         PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID",
    ),
    (
        "payload",
        "CREATE TABLE payload (seq INTEGER NOT NULL, field INTEGER NOT NULL, salt BLOB NOT NULL, \
         value BLOB NOT NULL, PRIMARY KEY (seq, field)) STRICT, WITHOUT ROWID",
    ),
    (
        "anchor",
        "CREATE TABLE anchor (name TEXT PRIMARY KEY, size INTEGER NOT NULL, note TEXT NOT NULL) \
         STRICT, WITHOUT ROWID",
    ),
];

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says so.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file system says so.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file, or its write-ahead log, is not at its path any more.
    #[error("the database was removed from its path")]
    Unlinked,
    /// Another file is at its path.
    #[error("another file was put in the place of the database")]
    Replaced,
    /// Not a ledger.
    #[error("not a ledger: {0}")]
    NotALedger(&'static str),
}

impl StoreError {
    /// Whether space is what is missing.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => error.code == ErrorCode::DiskFull,
            Self::Io(error) => super::spool::is_out_of_space(error),
            Self::Sqlite(_) | Self::Unlinked | Self::Replaced | Self::NotALedger(_) => false,
        }
    }

    /// Whether somebody else holds a lock: a reason to wait, not to worry.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
                matches!(error.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            }
            Self::Sqlite(_) | Self::Io(_) | Self::Unlinked | Self::Replaced | Self::NotALedger(_) => false,
        }
    }
}

/// What is written by one transaction.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The number of its first entry.
    pub(crate) first: u64,
    /// Bodies, side by side.
    pub(crate) bodies: Vec<u8>,
    /// Each entry's end in `bodies`, and its signature.
    pub(crate) entries: Vec<(usize, Option<[u8; 64]>)>,
    /// Values of payloads, side by side.
    pub(crate) values: Vec<u8>,
    /// Entry, field, salt, end in `values`.
    pub(crate) payloads: Vec<(u64, Key, [u8; SALT], usize)>,
    /// Payloads to delete: entry, number of the field.
    pub(crate) redacted: Vec<(u64, u64)>,
    /// Tiles that became full or changed.
    pub(crate) tiles: Vec<Tile>,
    /// Size and text of the checkpoint.
    pub(crate) checkpoint: (u64, String),
    /// What anchors were given last: name, size, note.
    pub(crate) anchors: Vec<(String, u64, String)>,
}

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
    identity: Identity,
}

/// What tells a file from another one with the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    database: (u64, u64),
    log: (u64, u64),
}

impl Identity {
    fn at(path: &Path) -> std::io::Result<Self> {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path)?;
            Ok::<_, std::io::Error>((metadata.dev(), metadata.ino()))
        };
        Ok(Self { database: of(path)?, log: of(&with_suffix_raw(path, "-wal"))? })
    }
}

/// SQLite's own files have the database's name with `-wal` and the like appended, without a dot.
pub(crate) fn with_suffix_raw(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Store {
    /// Makes a new file. It must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let connection = Connection::open_with_flags(path, Self::flags())?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "page_size", 8192)?;
        connection.execute_batch("VACUUM")?;
        Self::configure(&connection)?;
        for (_, sql) in SCHEMA {
            connection.execute_batch(sql)?;
        }
        super::spool::sync_directory(super::anchor::directory_of(path))?;
        Self::with(path, connection)
    }

    /// Opens an existing file.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open_with_flags(path, Self::flags())?;
        Self::configure(&connection)?;
        if !has_schema(&connection)? {
            return Err(StoreError::NotALedger("its schema is another one"));
        }
        Self::with(path, connection)
    }

    fn flags() -> OpenFlags {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
    }

    fn configure(connection: &Connection) -> Result<(), StoreError> {
        connection.busy_timeout(Duration::from_millis(100))?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "full")?;
        // Redacted texts must be gone from the file, not just from the table.
        connection.pragma_update(None, "secure_delete", "on")?;
        connection.pragma_update(None, "cache_size", -16_000)?;
        connection.pragma_update(None, "trusted_schema", "off")?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(())
    }

    fn with(path: &Path, connection: Connection) -> Result<Self, StoreError> {
        // An empty write makes sure that the write-ahead log exists before it is looked for.
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let identity = Identity::at(path)?;
        Ok(Self { path: path.to_owned(), connection, identity })
    }

    /// Reads.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the file at the path is the one that is open.
    pub(crate) fn check_in_place(&self) -> Result<(), StoreError> {
        match Identity::at(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(found) if found.database != self.identity.database => Err(StoreError::Replaced),
            Ok(_) => Err(StoreError::Unlinked),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Unlinked),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a group, durably.
    pub(crate) fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        self.check_in_place()?;
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut entry =
                transaction.prepare_cached("INSERT INTO entry (seq, body, sig) VALUES (?1, ?2, ?3)")?;
            let mut start = 0;
            for (place, (end, signature)) in group.entries.iter().enumerate() {
                let body = group.bodies.get(start..*end).unwrap_or_default();
                let signature = signature.as_ref().map(<[u8; 64]>::as_slice);
                entry.execute(params![group.first + place as u64, body, signature])?;
                start = *end;
            }
            let mut payload = transaction
                .prepare_cached("INSERT INTO payload (seq, field, salt, value) VALUES (?1, ?2, ?3, ?4)")?;
            let mut start = 0;
            for (seq, key, salt, end) in &group.payloads {
                let value = group.values.get(start..*end).unwrap_or_default();
                payload.execute(params![*seq, u64::from(*key), salt.as_slice(), value])?;
                start = *end;
            }
            let mut redact =
                transaction.prepare_cached("DELETE FROM payload WHERE seq = ?1 AND field = ?2")?;
            for (seq, field) in &group.redacted {
                redact.execute(params![*seq, *field])?;
            }
            let mut tile = transaction
                .prepare_cached("INSERT OR REPLACE INTO tile (level, idx, hashes) VALUES (?1, ?2, ?3)")?;
            for Tile { level, index, hashes } in &group.tiles {
                tile.execute(params![*level, *index, hashes])?;
            }
            let (size, note) = &group.checkpoint;
            transaction
                .prepare_cached("INSERT INTO checkpoint (size, note) VALUES (?1, ?2)")?
                .execute(params![*size, note])?;
            let mut anchor = transaction
                .prepare_cached("INSERT OR REPLACE INTO anchor (name, size, note) VALUES (?1, ?2, ?3)")?;
            for (name, size, note) in &group.anchors {
                anchor.execute(params![name, *size, note])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Moves the write-ahead log into the database and empties it. `false` when somebody who reads kept
    /// that from being done to its end.
    pub(crate) fn flush(&self) -> Result<bool, StoreError> {
        Ok(empty_log(&self.connection)?)
    }

    /// Writes the database anew where it is small enough; see [`rewrite`].
    pub(crate) fn rewrite(&self) -> Result<bool, StoreError> {
        rewrite(&self.connection, &self.path)
    }

    /// Puts the database back where it belongs, if it was removed: it is still open here, whole. A
    /// file that somebody put in its place is left alone; that is for people to look at.
    pub(crate) fn restore(&mut self) -> Result<(), StoreError> {
        match self.check_in_place() {
            Err(StoreError::Unlinked) => {}
            other => return other,
        }
        if !self.path.exists() {
            let copy = with_suffix(&self.path, "restored");
            let _ = std::fs::remove_file(&copy);
            {
                let mut target = Connection::open(&copy)?;
                rusqlite::backup::Backup::new(&self.connection, &mut target)?.run_to_completion(
                    1024,
                    Duration::ZERO,
                    None,
                )?;
            }
            std::fs::File::open(&copy)?.sync_all()?;
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(with_suffix_raw(&self.path, suffix));
            }
            // Unlike rename, this fails when somebody was faster.
            std::fs::hard_link(&copy, &self.path)?;
            std::fs::remove_file(&copy)?;
        } else {
            // Only the write-ahead log is gone. What it holds goes into the database now; closing the
            // connection below would do the same, but would not say whether it worked.
            if !self.flush()? {
                return Err(StoreError::Unlinked);
            }
        }
        let old = std::mem::replace(&mut self.connection, Connection::open_in_memory()?);
        old.close().map_err(|(_, error)| error)?;
        *self = Self::open(&self.path.clone())?;
        Ok(())
    }

    /// The body of one entry.
    pub(crate) fn body(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        body(&self.connection, seq)
    }

    /// The last two checkpoints, the newest first: size and note.
    pub(crate) fn last_checkpoints(&self) -> Result<Vec<(u64, String)>, StoreError> {
        let mut statement =
            self.connection.prepare("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 2")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Moves a write-ahead log into its database and empties it; whether that came to its end.
pub(crate) fn empty_log(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let is_busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(is_busy == 0)
}

/// Writes a database anew, where it is small enough for that: `secure_delete` overwrites what is deleted,
/// but not what moving rows between pages leaves behind. `false` when it has to be tried again.
pub(crate) fn rewrite(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    if std::fs::metadata(path)?.len() <= super::purge::SMALL {
        match connection.execute_batch("VACUUM") {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if matches!(error.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) =>
            {
                return Ok(false);
            }
            other => other?,
        }
    }
    Ok(true)
}

/// The body of one entry.
pub(crate) fn body(connection: &Connection, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT body FROM entry WHERE seq = ?1")?
        .query_row([seq], |row| row.get(0))
        .optional()?)
}

/// The hashes of one tile.
pub(crate) fn tile(connection: &Connection, level: u32, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT hashes FROM tile WHERE level = ?1 AND idx = ?2")?
        .query_row(params![level, index], |row| row.get(0))
        .optional()?)
}

/// Opens a ledger for reading: the live file, a copy of it, or a copy on a medium that cannot be
/// written to.
///
/// # Errors
///
/// When it cannot be opened.
pub(crate) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    std::fs::metadata(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let readable = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let connection = match readable {
        // A copy in WAL mode wants to make a `-shm` file beside itself, which a read-only medium
        // does not allow. Nobody else can be writing there, so the file may be read as it lies.
        Err(rusqlite::Error::SqliteFailure(error, _))
            if matches!(error.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly) =>
        {
            let mut uri = String::from("file:");
            for byte in std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()) {
                uri.push_str(&format!("%{byte:02x}"));
            }
            uri.push_str("?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
        }
        _ => connection,
    };
    connection.pragma_update(None, "trusted_schema", "off")?;
    connection.pragma_update(None, "cell_size_check", "on")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Whether the schema is the built-in one, byte for byte, and nothing else.
pub(crate) fn has_schema(connection: &Connection) -> Result<bool, StoreError> {
    Ok(schema_difference(connection)?.is_none())
}

/// The first thing about the schema that is not as it should be.
pub(crate) fn schema_difference(connection: &Connection) -> Result<Option<String>, StoreError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Ok(Some(format!("application_id is {application:#x}")));
    }
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    let mut expected = SCHEMA.iter();
    while let Some(row) = rows.next()? {
        let (kind, name, table, sql): (String, String, String, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        match expected.next() {
            Some((wanted, words))
                if kind == "table"
                    && name == *wanted
                    && table == *wanted
                    && sql.as_deref() == Some(*words) => {}
            _ => return Ok(Some(format!("{kind} \"{name}\" is not as it should be"))),
        }
    }
    Ok(expected.next().map(|(missing, _)| format!("table \"{missing}\" is missing")))
}
