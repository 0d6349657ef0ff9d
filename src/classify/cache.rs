//! Remembers classifications by everything that decides them.
//!
//! The key is hashed once, without building it: entries are found by the hash and compared field by
//! field. A collision is only a miss, so nobody gains by finding one.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::{Classification, Context, SearchPath};

/// Longer texts are not remembered: they are rarely asked twice, and would push out those that are.
pub(super) const LONGEST: usize = 16 * 1024;

/// Enough that threads seldom meet at one lock.
const SHARDS: usize = 16;

/// What an entry costs beside its text.
const OVERHEAD: usize = 512;

struct Entry {
    sql: Box<[u8]>,
    database: Box<str>,
    role: Box<str>,
    generation: u64,
    server_version: u32,
    search_path: SearchPath,
    value: Arc<Classification>,
}

impl Entry {
    fn is_for(&self, sql: &[u8], context: &Context<'_>) -> bool {
        *self.sql == *sql
            && self.generation == context.catalogue.generation
            && self.server_version == context.server_version
            && *self.database == *context.database
            && *self.role == *context.role
            && self.search_path == *context.search_path
    }

    fn cost(&self) -> usize {
        // Reasons and effects grow with the text, if they are there at all.
        OVERHEAD + self.sql.len() + 128 * (self.value.reasons.len() + self.value.effects.len())
    }
}

struct Shard {
    entries: LruCache<u64, Entry, Unhashed>,
    bytes: usize,
}

/// The keys are hashes already.
#[derive(Clone, Default)]
struct Unhashed;

#[derive(Default)]
struct Same(u64);

impl BuildHasher for Unhashed {
    type Hasher = Same;

    fn build_hasher(&self) -> Same {
        Same(0)
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The cache of one process.
pub(super) struct Cache {
    shards: Vec<Mutex<Shard>>,
    hash: lru::DefaultHasher,
    bytes_per_shard: usize,
}

impl Cache {
    pub(super) fn new(bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded_with_hasher(Unhashed), bytes: 0 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hash: lru::DefaultHasher::default(),
            bytes_per_shard: bytes / SHARDS,
        }
    }

    /// The key of a text in its surroundings; `None` for texts that are not remembered.
    pub(super) fn key(&self, sql: &[u8], context: &Context<'_>) -> Option<u64> {
        if sql.len() > LONGEST {
            return None;
        }
        let mut hasher = self.hash.build_hasher();
        hasher.write(sql);
        hasher.write_u64(context.catalogue.generation);
        hasher.write_u32(context.server_version);
        hasher.write(context.database.as_bytes());
        hasher.write(context.role.as_bytes());
        context.search_path.hash(&mut hasher);
        Some(hasher.finish())
    }

    fn shard(&self, key: u64) -> Option<&Mutex<Shard>> {
        self.shards.get((key >> 60) as usize % SHARDS)
    }

    pub(super) fn get(&self, key: u64, sql: &[u8], context: &Context<'_>) -> Option<Arc<Classification>> {
        let mut shard = self.shard(key)?.lock();
        let entry = shard.entries.get(&key).filter(|entry| entry.is_for(sql, context))?;
        Some(Arc::clone(&entry.value))
    }

    pub(super) fn put(&self, key: u64, sql: &[u8], context: &Context<'_>, value: &Arc<Classification>) {
        let entry = Entry {
            // A copy: the agent's bytes are a slice of a whole read buffer, which this would keep alive.
            sql: sql.into(),
            database: context.database.into(),
            role: context.role.into(),
            generation: context.catalogue.generation,
            server_version: context.server_version,
            search_path: context.search_path.clone(),
            value: Arc::clone(value),
        };
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock();
        shard.bytes += entry.cost();
        if let Some(old) = shard.entries.put(key, entry) {
            shard.bytes -= old.cost();
        }
        while shard.bytes > self.bytes_per_shard {
            let Some((_, oldest)) = shard.entries.pop_lru() else { break };
            shard.bytes -= oldest.cost();
        }
    }

    /// How many bytes are accounted for.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Catalogue, Classifier, Limits};
    use super::*;
    use crate::statement::SqlText;

    fn context<'a>(catalogue: &'a Catalogue, path: &'a SearchPath, role: &'a str) -> Context<'a> {
        Context {
            server_version: 15,
            catalogue,
            search_path: path,
            database: "app",
            role,
            strings_standard: true,
        }
    }

    #[test]
    fn an_entry_is_for_its_text_and_surroundings_only() {
        let cache = Cache::new(1 << 20);
        let catalogue = Catalogue::built_in(15);
        let (path, other) = (SearchPath::Unknown, SearchPath::Known(vec!["a".into()]));
        let here = context(&catalogue, &path, "bot");
        let value = Classifier::new(Limits::default()).classify(&SqlText::from("select 1"), &here);
        let key = cache.key(b"select 1", &here).unwrap();
        cache.put(key, b"select 1", &here, &value);

        assert!(cache.get(key, b"select 1", &here).is_some());
        // Even where the hashes were to collide.
        assert!(cache.get(key, b"select 2", &here).is_none());
        assert!(cache.get(key, b"select 1", &context(&catalogue, &path, "other")).is_none());
        assert!(cache.get(key, b"select 1", &context(&catalogue, &other, "bot")).is_none());
        assert!(cache.get(key, b"select 1", &context(&Catalogue::built_in(16), &path, "bot")).is_none());
    }

    #[test]
    fn memory_is_bounded_and_long_texts_are_not_kept() {
        let cache = Cache::new(64 * 1024);
        let catalogue = Catalogue::built_in(15);
        let path = SearchPath::Unknown;
        let here = context(&catalogue, &path, "bot");
        let value = Classifier::new(Limits::default()).classify(&SqlText::from("select 1"), &here);

        for number in 0..10_000 {
            let sql = format!("select {number}");
            let key = cache.key(sql.as_bytes(), &here).unwrap();
            cache.put(key, sql.as_bytes(), &here, &value);
        }

        assert!(cache.bytes() <= 64 * 1024 && cache.bytes() > 0);
        assert_eq!(cache.key(&[b' '; LONGEST + 1], &here), None);
    }
}
