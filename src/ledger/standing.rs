//! Where a ledger stands when it is opened: read from the file itself, never from anything derived.

use rusqlite::Connection;

use super::OpenError;
use super::assemble::{OpenIntent, OpenRequest, Standing, is_untimed};
use super::checkpoint::Note;
use super::clock::Moment;
use super::entry::{self, Entry, Key, Kind};
use super::key::Certificate;
use super::store::{self, Store};
use super::tree::{self, ProofError, Tiles, Tree};
use crate::classify::StatementClass;
use crate::statement::Digest;

/// A ledger as it was left.
pub(crate) struct Found {
    pub(crate) origin: String,
    pub(crate) standing: Standing,
    /// The root's word for the last epoch.
    pub(crate) certificate: Certificate,
}

/// Reads it. `None` when the file holds nothing yet.
pub(crate) fn read(store: &Store) -> Result<Option<Found>, OpenError> {
    let checkpoints = store.last_checkpoints()?;
    let Some((size, text)) = checkpoints.first().cloned() else {
        let entries: u64 = store
            .connection()
            .query_row("SELECT count(*) FROM entry", [], |row| row.get(0))
            .map_err(store::StoreError::from)?;
        return if entries == 0 { Ok(None) } else { Err(damaged("entries without a checkpoint")) };
    };
    let first = store.body(0)?.ok_or_else(|| damaged("the first entry is missing"))?;
    let first = parse(&first)?;
    let origin =
        first.text(Key::Origin).ok_or_else(|| damaged("the first entry names no ledger"))?.to_owned();

    let note = Note::parse(&text).map_err(|_| damaged("the last checkpoint cannot be read"))?;
    let connection = store.connection();
    let tree = tree_of(connection, size)?;
    if note.checkpoint.head.root != tree.root() || note.checkpoint.head.size != size {
        return Err(damaged("the tree does not lead to the last checkpoint"));
    }
    let end: u64 = connection
        .query_row("SELECT coalesce(max(seq) + 1, 0) FROM entry", [], |row| row.get(0))
        .map_err(store::StoreError::from)?;
    if end != size {
        return Err(damaged("the last checkpoint is not over the last entry"));
    }
    let tiles = Tiles::resume(size, |level, index| {
        store::tile(connection, level, index)?.ok_or_else(|| damaged("a tile is missing"))
    })?;

    let open_from = match checkpoints.get(1) {
        Some((start, _)) => open_from(connection, *start)?,
        None => 0,
    };
    let mut standing =
        Standing { tree, tiles, checkpoint: Some((note.checkpoint.head, text)), ..Standing::default() };
    scan_forwards(connection, open_from, &mut standing)?;
    let certificate = scan_backwards(connection, size, &mut standing)?;
    Ok(Some(Found { origin, standing, certificate }))
}

/// The first entry that may still be open, as the last group says it. Where a run begins, the entries
/// of its keys come before that.
fn open_from(connection: &Connection, start: u64) -> Result<u64, OpenError> {
    for seq in start..start + 4 {
        let body = store::body(connection, seq)?.ok_or_else(|| damaged("an entry is missing"))?;
        let entry = parse(&body)?;
        if entry.kind() == Kind::CheckpointRef {
            return entry.uint(Key::OpenFrom).ok_or_else(|| damaged("an entry cannot be read"));
        }
    }
    Err(damaged("a group does not tell of the checkpoint before it"))
}

/// The tree of the first `size` entries, from tiles.
pub(crate) fn tree_of(connection: &Connection, size: u64) -> Result<Tree, OpenError> {
    Tree::from_nodes(size, |height, index| {
        tree::node_from_tiles(height, index, |level, index| {
            store::tile(connection, level, index).ok().flatten()
        })
    })
    .map_err(|_: ProofError| damaged("a tile is missing"))
}

/// What is still open began at `from` or later.
#[expect(clippy::wildcard_enum_match_arm, reason = "most kinds open and close nothing")]
fn scan_forwards(connection: &Connection, from: u64, standing: &mut Standing) -> Result<(), OpenError> {
    let mut statement = connection
        .prepare("SELECT body FROM entry WHERE seq >= ?1 ORDER BY seq")
        .map_err(store::StoreError::from)?;
    let mut rows = statement.query([from]).map_err(store::StoreError::from)?;
    let mut records_of = std::collections::HashMap::new();
    while let Some(row) = rows.next().map_err(store::StoreError::from)? {
        let body = row.get_ref(0).map_err(store::StoreError::from)?;
        let entry = parse(body.as_blob().map_err(|_| damaged("an entry is no blob"))?)?;
        let (seq, record) = (entry.seq(), entry.uint(Key::Record));
        let session = entry.array(Key::Session).unwrap_or_default();
        let request: [u8; 16] = entry.array(Key::Request).unwrap_or_default();
        match entry.kind() {
            Kind::Statement => {
                if let Some(open) = standing.requests.get_mut(&request) {
                    open.grant = open.grant.or(Some(seq));
                }
                if let Some(record) = record.filter(|_| !entry.has(Key::Ending)) {
                    let class = entry.text(Key::Class).and_then(StatementClass::from_name);
                    let must_sign = class.is_none_or(StatementClass::is_privileged) || request != [0; 16];
                    standing.intents.insert(record, OpenIntent { seq, session, request, must_sign });
                    records_of.insert(seq, record);
                }
            }
            Kind::Outcome => {
                if let Some(record) = entry.uint(Key::Ref).and_then(|intent| records_of.remove(&intent)) {
                    standing.intents.remove(&record);
                }
            }
            Kind::RequestOpened => {
                standing.requests.insert(request, OpenRequest { seq, ..OpenRequest::default() });
            }
            Kind::Review => {
                let approves =
                    entry.text(Key::Verdict) == Some("approve") && entry.bool(Key::Counted) == Some(true);
                if let (Some(open), Some(name), true) =
                    (standing.requests.get_mut(&request), entry.text(Key::Reviewer), approves)
                {
                    open.approvals.push((name.to_owned(), seq));
                }
            }
            Kind::GrantUsed => {
                if let Some(open) = standing.requests.get_mut(&request) {
                    open.grant = Some(seq);
                }
            }
            Kind::RequestClosed if entry.text(Key::State) != Some("granted") => {
                standing.requests.remove(&request);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The last record, times and epoch: usually within the last group, but an idle ledger may have
/// written nothing but its own entries for hours.
fn scan_backwards(
    connection: &Connection,
    size: u64,
    standing: &mut Standing,
) -> Result<Certificate, OpenError> {
    let mut statement = connection
        .prepare("SELECT seq, body FROM entry WHERE seq < ?1 ORDER BY seq DESC")
        .map_err(store::StoreError::from)?;
    let mut rows = statement.query([size]).map_err(store::StoreError::from)?;
    let mut records_known = false;
    let mut certificate = None;
    while let Some(row) = rows.next().map_err(store::StoreError::from)? {
        let body = row.get_ref(1).map_err(store::StoreError::from)?;
        let body = body.as_blob().map_err(|_| damaged("an entry is no blob"))?;
        let kind = entry::peek_kind(body);
        if records_known && kind != Some(Kind::KeyEpoch) {
            continue;
        }
        let entry = parse(body)?;
        standing.epoch = standing.epoch.max(entry.uint(Key::Epoch).unwrap_or(0));
        if !is_untimed(entry.kind()) {
            let at =
                Moment { wall: entry.uint(Key::Wall).unwrap_or(0), mono: entry.uint(Key::Mono).unwrap_or(0) };
            if standing.moments.is_empty() {
                standing.last_wall = at.wall;
            }
            standing.moments.entry(entry.array(Key::Boot).unwrap_or_default()).or_insert(at);
        }
        let record = entry.uint(Key::RecordEnd).max(entry.uint(Key::Record));
        let lost = if entry.kind() == Kind::Discarded { entry.uint(Key::To) } else { None };
        standing.ingested = standing.ingested.max(record.max(lost).unwrap_or(0));
        // Within a group an outcome's record may stand in an earlier entry than a later intent's, so
        // the whole group counts; groups end where a checkpoint is told of.
        records_known |= entry.kind() == Kind::CheckpointRef && standing.ingested > 0;
        if entry.kind() == Kind::KeyEpoch && certificate.is_none() {
            certificate = Some(certificate_of(&entry).ok_or_else(|| damaged("an epoch cannot be read"))?);
        }
        if certificate.is_some() && records_known {
            break;
        }
    }
    certificate.ok_or_else(|| damaged("no epoch was ever begun"))
}

/// The certificate that a `key_epoch` entry holds.
pub(crate) fn certificate_of(entry: &Entry<'_>) -> Option<Certificate> {
    Some(Certificate {
        epoch: entry.uint(Key::Epoch)?,
        key: entry.array(Key::EpochKey)?,
        size: entry.seq(),
        root: Digest::from_bytes(entry.array(Key::TreeRoot)?),
        wall: entry.uint(Key::Wall)?,
        signature: entry.array(Key::RootSignature)?,
    })
}

fn parse(body: &[u8]) -> Result<Entry<'_>, OpenError> {
    Entry::parse(body).map_err(|_| damaged("an entry cannot be read"))
}

fn damaged(what: &'static str) -> OpenError {
    OpenError::Damaged(what)
}
