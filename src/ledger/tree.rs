//! The Merkle tree over all entries (RFC 6962, section 2.1): roots, inclusion and consistency proofs.
//!
//! A growing tree is kept as [`Tree`]: the hashes of its complete subtrees, one a level, so that a new
//! leaf costs two hashes on average and a root costs at most 64. What proofs need is kept in
//! *tiles* (C2SP tlog-tiles): 256 hashes of one level side by side. [`Tiles`] says which tiles a new
//! leaf changes; [`inclusion_proof`] and [`consistency_proof`] read nodes from them through a
//! closure, because this module does not know where tiles are stored.

use sha2::{Digest as _, Sha256};

use crate::statement::Digest;

/// Hashes side by side in one tile.
pub const TILE_WIDTH: u64 = 256;
/// A tile stands for eight levels of the tree.
const TILE_HEIGHT: u32 = 8;

/// The hash of a leaf: SHA-256(0x00 || body).
#[must_use]
pub fn leaf_hash(body: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(body);
    Digest::from_bytes(hash.finalize().into())
}

/// The hash of an inner node: SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// A growing tree, known by its complete subtrees only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// `complete[h]` is the hash of the complete subtree of height `h`, where the size has bit `h`.
    /// Slots of other bits hold what was there before and are not looked at.
    complete: Vec<Digest>,
}

impl Tree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the hash of a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut carried = leaf;
        let mut height = 0;
        while self.size >> height & 1 == 1 {
            if let Some(left) = self.complete.get(height) {
                carried = node_hash(left, &carried);
            }
            height += 1;
        }
        match self.complete.get_mut(height) {
            Some(slot) => *slot = carried,
            None => self.complete.push(carried),
        }
        self.size += 1;
    }

    /// The root: of no leaves, SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut root = None;
        for (height, hash) in self.complete.iter().enumerate() {
            if self.size >> height & 1 == 1 {
                root = Some(root.map_or(*hash, |right| node_hash(hash, &right)));
            }
        }
        root.unwrap_or_else(|| Digest::of(b""))
    }

    /// The tree of `size` leaves whose complete subtrees `node(level, index)` gives.
    pub fn from_nodes<E>(size: u64, mut node: impl FnMut(u32, u64) -> Result<Digest, E>) -> Result<Self, E> {
        let heights = u64::BITS - size.leading_zeros();
        let complete = (0..heights)
            .map(|height| {
                if size >> height & 1 == 1 {
                    // The subtree of this height ends where the higher bits of the size point.
                    node(height, (size >> height) - 1)
                } else {
                    Ok(Digest::from_bytes([0; 32]))
                }
            })
            .collect::<Result<_, E>>()?;
        Ok(Self { size, complete })
    }
}

/// The unfinished tiles at the right edge of a growing tree, lowest level first.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    edge: Vec<EdgeTile>,
}

#[derive(Clone, Debug, Default)]
struct EdgeTile {
    index: u64,
    hashes: Vec<u8>,
    changed: bool,
}

/// A tile as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// 0 holds leaf hashes; each hash of level `l + 1` stands for a full tile of level `l`.
    pub level: u32,
    /// Its place in its level.
    pub index: u64,
    /// Up to 256 hashes of 32 bytes.
    pub hashes: Vec<u8>,
}

impl Tiles {
    /// The right edge of a tree of `size` leaves, its tiles read by `tile(level, index)`.
    pub fn resume<E>(size: u64, mut tile: impl FnMut(u32, u64) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let mut edge = Vec::new();
        let mut width = size;
        let mut level = 0;
        while width > 0 {
            let (index, partial) = (width / TILE_WIDTH, width % TILE_WIDTH);
            let mut hashes = Vec::with_capacity(32 * TILE_WIDTH as usize);
            if partial > 0 {
                hashes = tile(level, index)?;
                hashes.truncate(partial as usize * 32);
            }
            edge.push(EdgeTile { index, hashes, changed: false });
            width /= TILE_WIDTH;
            level += 1;
        }
        Ok(Self { edge })
    }

    /// Appends the hash of a leaf; hands every tile that became full to `full`.
    pub fn push(&mut self, leaf: Digest, mut full: impl FnMut(Tile)) {
        let mut hash = leaf;
        for level in 0.. {
            if self.edge.len() == level {
                self.edge.push(EdgeTile::default());
            }
            let Some(tile) = self.edge.get_mut(level) else { return };
            tile.hashes.extend_from_slice(hash.as_bytes());
            tile.changed = true;
            if tile.hashes.len() < 32 * TILE_WIDTH as usize {
                return;
            }
            hash = root_of_hashes(&tile.hashes);
            let hashes = std::mem::replace(&mut tile.hashes, Vec::with_capacity(32 * TILE_WIDTH as usize));
            full(Tile { level: level as u32, index: tile.index, hashes });
            tile.index += 1;
            tile.changed = false;
        }
    }

    /// The unfinished tiles that changed since they were last asked for.
    pub fn changed(&mut self) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for (level, tile) in self.edge.iter_mut().enumerate() {
            if std::mem::take(&mut tile.changed) && !tile.hashes.is_empty() {
                tiles.push(Tile { level: level as u32, index: tile.index, hashes: tile.hashes.clone() });
            }
        }
        tiles
    }
}

/// The root over hashes that lie side by side in a tile.
fn root_of_hashes(hashes: &[u8]) -> Digest {
    let mut tree = Tree::new();
    for hash in hashes.chunks_exact(32) {
        if let Ok(hash) = <[u8; 32]>::try_from(hash) {
            tree.push(Digest::from_bytes(hash));
        }
    }
    tree.root()
}

/// Why a proof could not be made or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf or the older tree lies outside the tree.
    #[error("the tree is smaller than that")]
    OutOfRange,
    /// A tile that the proof needs is missing or short.
    #[error("a tile is missing")]
    MissingTile,
    /// The proof does not lead to the root.
    #[error("the proof does not lead to the root")]
    Wrong,
}

/// Reads the hash of the complete subtree of height `height` at `index` out of tiles.
pub fn node_from_tiles(
    height: u32,
    index: u64,
    mut tile: impl FnMut(u32, u64) -> Option<Vec<u8>>,
) -> Result<Digest, ProofError> {
    let (level, within) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
    let first = index << within;
    let hashes = tile(level, first / TILE_WIDTH).ok_or(ProofError::MissingTile)?;
    let start = (first % TILE_WIDTH) as usize * 32;
    let end = start + (32 << within);
    hashes.get(start..end).map(root_of_hashes).ok_or(ProofError::MissingTile)
}

/// Reads the root of leaves `start..end`, where `start` is a multiple of the greatest power of two
/// that is not above the length: the ranges that RFC 6962 splits a tree into.
fn range_root(
    start: u64,
    end: u64,
    node: &mut impl FnMut(u32, u64) -> Result<Digest, ProofError>,
) -> Result<Digest, ProofError> {
    let length = end - start;
    if length.is_power_of_two() {
        let height = length.trailing_zeros();
        return node(height, start >> height);
    }
    let split = start + split_of(length);
    Ok(node_hash(&range_root(start, split, node)?, &range_root(split, end, node)?))
}

/// The greatest power of two smaller than `length` (RFC 6962 calls it `k`).
fn split_of(length: u64) -> u64 {
    1 << (u64::BITS - 1 - (length - 1).leading_zeros())
}

/// The proof that leaf `index` is in the tree of `size` leaves (RFC 6962, section 2.1.1), from the
/// leaf's sibling upwards.
pub fn inclusion_proof(
    index: u64,
    size: u64,
    mut node: impl FnMut(u32, u64) -> Result<Digest, ProofError>,
) -> Result<Vec<Digest>, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let split = start + split_of(end - start);
        if index < split {
            path.push(range_root(split, end, &mut node)?);
            end = split;
        } else {
            path.push(range_root(start, split, &mut node)?);
            start = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `size` (RFC 6962, 2.1.2).
pub fn consistency_proof(
    old: u64,
    size: u64,
    mut node: impl FnMut(u32, u64) -> Result<Digest, ProofError>,
) -> Result<Vec<Digest>, ProofError> {
    if old == 0 || old > size {
        return Err(ProofError::OutOfRange);
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    // The old tree's own root is known to whoever asks, unless the walk has left it.
    let mut known = true;
    while old != end {
        let split = start + split_of(end - start);
        if old <= split {
            path.push(range_root(split, end, &mut node)?);
            end = split;
        } else {
            path.push(range_root(start, split, &mut node)?);
            start = split;
            known = false;
        }
    }
    if !known {
        path.push(range_root(start, end, &mut node)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks an inclusion proof (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(
    leaf: Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Wrong);
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == root { Ok(()) } else { Err(ProofError::Wrong) }
}

/// Checks a consistency proof (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(
    old: u64,
    size: u64,
    old_root: Digest,
    root: Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if old == 0 || old > size {
        return Err(ProofError::OutOfRange);
    }
    if old == size {
        return if proof.is_empty() && old_root == root { Ok(()) } else { Err(ProofError::Wrong) };
    }
    let mut steps = proof.iter().copied();
    let first = if old.is_power_of_two() { old_root } else { steps.next().ok_or(ProofError::Wrong)? };
    let (mut place, mut last) = (old - 1, size - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (first, first);
    for step in steps {
        if last == 0 {
            return Err(ProofError::Wrong);
        }
        if place & 1 == 1 || place == last {
            from_old = node_hash(&step, &from_old);
            from_new = node_hash(&step, &from_new);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, &step);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 && from_old == old_root && from_new == root { Ok(()) } else { Err(ProofError::Wrong) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// RFC 6962's own definition, as slow and as plain as it is written there.
    fn reference_root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split_of(leaves.len() as u64) as usize);
                node_hash(&reference_root(left), &reference_root(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Digest> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn tiles_of(leaves: &[Digest]) -> BTreeMap<(u32, u64), Vec<u8>> {
        let mut stored = BTreeMap::new();
        let mut tiles = Tiles::default();
        for leaf in leaves {
            tiles.push(*leaf, |tile| {
                stored.insert((tile.level, tile.index), tile.hashes);
            });
        }
        for tile in tiles.changed() {
            stored.insert((tile.level, tile.index), tile.hashes);
        }
        stored
    }

    #[test]
    fn roots_are_those_of_the_rfc() {
        // The vectors of certificate-transparency-go's merkle tests.
        let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        ];
        let mut tree = Tree::new();
        for (input, root) in inputs.iter().zip(roots) {
            tree.push(leaf_hash(&hex::decode(input).unwrap()));
            assert_eq!(tree.root().to_string(), root);
        }
    }

    #[test]
    fn a_tree_grows_resumes_and_proves_at_every_size() {
        let all = leaves(600);
        let mut tree = Tree::new();
        for size in 0..=all.len() {
            let root = reference_root(&all[..size]);
            assert_eq!(tree.root(), root, "size {size}");
            if size % 37 == 0 || size == 256 || size == 257 {
                let stored = tiles_of(&all[..size]);
                let node =
                    |height, index| node_from_tiles(height, index, |l, i| stored.get(&(l, i)).cloned());
                assert_eq!(Tree::from_nodes(size as u64, node).unwrap().root(), root);
                for index in (0..size).step_by(11) {
                    let proof = inclusion_proof(index as u64, size as u64, node).unwrap();
                    verify_inclusion(all[index], index as u64, size as u64, &proof, root).unwrap();
                    assert!(
                        verify_inclusion(all[(index + 1) % size], index as u64, size as u64, &proof, root)
                            .is_err()
                            || size == 1
                    );
                }
                for old in (1..=size).step_by(13) {
                    let proof = consistency_proof(old as u64, size as u64, node).unwrap();
                    let old_root = reference_root(&all[..old]);
                    verify_consistency(old as u64, size as u64, old_root, root, &proof).unwrap();
                    if old != size {
                        let wrong = reference_root(&all[..old - 1]);
                        assert!(verify_consistency(old as u64, size as u64, wrong, root, &proof).is_err());
                    }
                }
            }
            if let Some(leaf) = all.get(size) {
                tree.push(*leaf);
            }
        }
    }

    #[test]
    fn tiles_resume_where_they_stopped() {
        let all = leaves(70_000);
        let whole = tiles_of(&all);
        assert_eq!(whole.len(), 273 + 1 + 1 + 1 + 1);
        for cut in [0, 1, 255, 256, 257, 65_535, 65_536, 65_537] {
            let mut stored = tiles_of(&all[..cut]);
            let mut tiles =
                Tiles::resume(cut as u64, |level, index| stored.get(&(level, index)).cloned().ok_or(()))
                    .unwrap();
            for leaf in &all[cut..] {
                tiles.push(*leaf, |tile| {
                    stored.insert((tile.level, tile.index), tile.hashes);
                });
            }
            for tile in tiles.changed() {
                stored.insert((tile.level, tile.index), tile.hashes);
            }
            assert!(stored == whole, "resumed at {cut}");
        }
    }
}
