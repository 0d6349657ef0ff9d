//! One file of the spool: allocated before it is needed, written from front to back, deleted whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::record::{CHECK, SpoolKey};
use super::sync_directory;

const MAGIC: &[u8; 8] = b"CSSPOOL2";
/// Where the first record lies.
pub(crate) const FIRST_OFFSET: u64 = 64;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Segments follow each other by number.
    pub(crate) number: u64,
    /// The number of its first record.
    pub(crate) first_record: u64,
    /// The run of the proxy that writes it.
    pub(crate) boot: [u8; 16],
}

impl SegmentHeader {
    fn to_bytes(self, key: &SpoolKey) -> [u8; FIRST_OFFSET as usize] {
        let mut bytes = [0; FIRST_OFFSET as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_record.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.boot);
        let check = key.check(&bytes[..40]);
        bytes[40..40 + CHECK].copy_from_slice(&check);
        bytes
    }

    fn from_bytes(bytes: &[u8; FIRST_OFFSET as usize], key: &SpoolKey) -> Option<Self> {
        let number = |from: usize| Some(u64::from_le_bytes(bytes.get(from..from + 8)?.try_into().ok()?));
        let good = bytes.starts_with(MAGIC) && key.holds(bytes.get(..40)?, bytes.get(40..40 + CHECK)?);
        let boot = bytes.get(24..40)?.try_into().ok()?;
        good.then_some(Self { number: number(8)?, first_record: number(16)?, boot })
    }
}

/// A segment. `end` is known once nothing more will be written to it.
#[derive(Debug)]
pub(crate) struct Segment {
    header: SegmentHeader,
    /// The header as it was written; zeros until then.
    head: [u8; FIRST_OFFSET as usize],
    file: File,
    path: PathBuf,
    /// How long the file was made.
    bytes: u64,
    end: OnceLock<u64>,
    /// The file at the path is not this one any more, or was altered; somebody was told.
    displaced: AtomicBool,
}

/// Why a segment would not be found, or not be read, after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Displaced {
    /// It is not at its path.
    #[error("a segment of the spool was removed from its directory")]
    Removed,
    /// Another file is at its path.
    #[error("another file was put in the place of a segment of the spool")]
    Replaced,
    /// It is shorter than it was made.
    #[error("a segment of the spool was cut off")]
    CutOff,
    /// Its header is not the one that was written.
    #[error("a segment of the spool was overwritten")]
    Overwritten,
    /// The file system does not say.
    #[error("a segment of the spool cannot be looked at")]
    Unreadable,
}

pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The segments in a directory, by number, and whether there was one that is not ours. One that was
/// never begun holds nothing and is deleted; one whose header was changed is put aside.
pub(super) fn list(directory: &Path, key: &SpoolKey) -> io::Result<(Vec<Segment>, bool)> {
    let mut segments = Vec::new();
    let mut damaged = false;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = [0; FIRST_OFFSET as usize];
        let read = file.read_exact_at(&mut bytes, 0).is_ok();
        match SegmentHeader::from_bytes(&bytes, key).filter(|_| read) {
            Some(header) => {
                let length = file.metadata()?.len();
                let end = OnceLock::new();
                let displaced = AtomicBool::new(false);
                segments.push(Segment { header, head: bytes, file, path, bytes: length, end, displaced });
            }
            None if bytes.iter().all(|byte| *byte == 0) => std::fs::remove_file(&path)?,
            None => {
                damaged = true;
                std::fs::rename(&path, path.with_extension("damaged"))?;
            }
        }
    }
    segments.sort_by_key(Segment::number);
    Ok((segments, damaged))
}

impl Segment {
    /// Allocates the file of a segment. It holds nothing until [`Self::begin`].
    pub(super) fn allocate(directory: &Path, bytes: u64, number: u64) -> io::Result<Self> {
        // It may have been removed under us; what is written in the segments that are open is safe.
        make_directory(directory)?;
        let (file, path) = create_new(directory, number)?;
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => fill_with_zeros(&file, bytes),
            other => other.map_err(io::Error::from),
        };
        if let Err(error) = allocated.and_then(|()| file.sync_all()).and_then(|()| sync_directory(directory))
        {
            // The space that was taken before it ran out is needed for other things now.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let header = SegmentHeader { number, first_record: 0, boot: [0; 16] };
        let (end, displaced) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { header, head: [0; FIRST_OFFSET as usize], file, path, bytes, end, displaced })
    }

    /// Gives it its header. It is not synced here: the first sync of a record includes it.
    pub(super) fn begin(mut self, header: SegmentHeader, key: &SpoolKey) -> io::Result<Self> {
        self.head = header.to_bytes(key);
        self.file.write_all_at(&self.head, 0)?;
        self.header = header;
        Ok(self)
    }

    /// Whether a start after a crash would find this file: it is at its path, as long as it was made,
    /// and begins with its header.
    pub(super) fn check_in_place(&self) -> Result<(), Displaced> {
        let open = self.file.metadata().map_err(|_| Displaced::Unreadable)?;
        // Not followed: a link to somewhere else is another file.
        let there = match std::fs::symlink_metadata(&self.path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Displaced::Removed),
            Err(_) => return Err(Displaced::Unreadable),
        };
        if (there.dev(), there.ino()) != (open.dev(), open.ino()) {
            return Err(Displaced::Replaced);
        }
        if open.len() < self.bytes {
            return Err(Displaced::CutOff);
        }
        let mut head = [0; FIRST_OFFSET as usize];
        match self.file.read_exact_at(&mut head, 0) {
            Ok(()) if head == self.head => Ok(()),
            Ok(()) => Err(Displaced::Overwritten),
            Err(_) => Err(Displaced::Unreadable),
        }
    }

    /// Somebody was told that it is not in its place.
    pub(super) fn is_displaced(&self) -> bool {
        self.displaced.load(Ordering::Acquire)
    }

    pub(super) fn displace(&self) {
        self.displaced.store(true, Ordering::Release);
    }

    /// How long the file was made.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Overwrites the file with zeros, before it is deleted: what it held was redacted.
    pub(super) fn wipe(&self) -> io::Result<()> {
        fill_with_zeros(&self.file, self.bytes)?;
        self.file.sync_data()
    }

    /// Allocates a segment and begins it.
    pub(super) fn create(
        directory: &Path,
        bytes: u64,
        header: SegmentHeader,
        key: &SpoolKey,
    ) -> io::Result<Self> {
        Self::allocate(directory, bytes, header.number)?.begin(header, key)
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn first_record(&self) -> u64 {
        self.header.first_record
    }

    pub(crate) fn boot(&self) -> [u8; 16] {
        self.header.boot
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Nothing more will be written behind `end`.
    pub(super) fn seal(&self, end: u64) {
        let _ = self.end.set(end);
    }

    pub(super) fn sealed_at(&self) -> Option<u64> {
        self.end.get().copied()
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads as much as there is; what lies behind the end of the file reads as zeros.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + read as u64) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Creates a file for segment `number`, and never takes the place of one: two threads may allocate the same
/// segment at once, and the one that comes second must not remove what the first writes into. The header
/// says which segment a file is; its name is for people.
fn create_new(directory: &Path, number: u64) -> io::Result<(File, PathBuf)> {
    const MOST: usize = 1_000;
    for place in 0..MOST {
        let name = if place == 0 { format!("{number:012}.seg") } else { format!("{number:012}-{place}.seg") };
        let path = directory.join(name);
        // What somebody put there is not followed or written to: it may be a link.
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, path)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many files have the name of a segment"))
}

/// For file systems that cannot allocate: there a write is the only promise of space there is.
fn fill_with_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut offset = 0;
    while offset < bytes {
        let count = (bytes - offset).min(zeros.len() as u64);
        file.write_all_at(zeros.get(..count as usize).unwrap_or_default(), offset)?;
        offset += count;
    }
    Ok(())
}
