//! Remembers classifications by everything that decides them.
//!
//! Programs that write numbers into their SQL send a new text each time. Where nothing that was found
//! in a statement depends on a number's value ([`Tree::number_was_seen`](super::tree::Tree)), it is
//! remembered with its numbers masked, digit for digit, so that every position in it stays what it was.
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

/// A text, or all texts that differ from it in the numbers that are masked in it. The two are never the
/// same, not even where every number of a text is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling<'a> {
    /// This text.
    Exact(&'a [u8]),
    /// What [`mask`] made of it.
    Masked(&'a [u8]),
}

impl<'a> Spelling<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Exact(bytes) | Self::Masked(bytes) => bytes,
        }
    }

    fn is_masked(self) -> bool {
        matches!(self, Self::Masked(_))
    }
}

struct Entry {
    sql: Box<[u8]>,
    masked: bool,
    database: Box<str>,
    role: Box<str>,
    generation: u64,
    server_version: u32,
    search_path: SearchPath,
    value: Arc<Classification>,
}

impl Entry {
    fn is_for(&self, sql: Spelling<'_>, context: &Context<'_>) -> bool {
        *self.sql == *sql.bytes()
            && self.masked == sql.is_masked()
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

/// Writes `sql` to `out` with every digit of its plain integers replaced by `0`. `false` where there
/// are none, or where it cannot be told without a lexer what is a number: quotes, comments, parameters,
/// escapes.
pub(super) fn mask(sql: &[u8], out: &mut Vec<u8>) -> bool {
    /// As many digits always make an integer of the grammar (`ICONST`).
    const DIGITS: usize = 9;
    if sql.len() > LONGEST || sql.iter().any(|byte| !byte.is_ascii() || b"'\"\\$".contains(byte)) {
        return false;
    }
    if sql.windows(2).any(|pair| pair == b"--" || pair == b"/*") {
        return false;
    }
    let apart = |byte: Option<&u8>, others: &[u8]| {
        byte.is_none_or(|byte| b" \t\r\n,=<>+-*/%".contains(byte) || others.contains(byte))
    };
    out.clear();
    out.extend_from_slice(sql);
    let mut masked = false;
    let mut at = 0;
    while at < sql.len() {
        let run = sql.get(at..).unwrap_or_default();
        let length = run.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            at += 1;
            continue;
        }
        let before = at.checked_sub(1).and_then(|before| sql.get(before));
        if length <= DIGITS && apart(before, b"(") && apart(sql.get(at + length), b");") {
            masked = true;
            out.iter_mut().skip(at).take(length).for_each(|digit| *digit = b'0');
        }
        at += length;
    }
    masked
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
    pub(super) fn key(&self, sql: Spelling<'_>, context: &Context<'_>) -> Option<u64> {
        if sql.bytes().len() > LONGEST {
            return None;
        }
        let mut hasher = self.hash.build_hasher();
        hasher.write(sql.bytes());
        hasher.write_u8(u8::from(sql.is_masked()));
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

    pub(super) fn get(
        &self,
        key: u64,
        sql: Spelling<'_>,
        context: &Context<'_>,
    ) -> Option<Arc<Classification>> {
        let mut shard = self.shard(key)?.lock();
        let entry = shard.entries.get(&key).filter(|entry| entry.is_for(sql, context))?;
        Some(Arc::clone(&entry.value))
    }

    pub(super) fn put(
        &self,
        key: u64,
        sql: Spelling<'_>,
        context: &Context<'_>,
        value: &Arc<Classification>,
    ) {
        let entry = Entry {
            // A copy: the agent's bytes are a slice of a whole read buffer, which this would keep alive.
            sql: sql.bytes().into(),
            masked: sql.is_masked(),
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
    use super::super::{Catalogue, Classifier, Limits, StatementClass};
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
        let one = Spelling::Exact(b"select 1");
        let key = cache.key(one, &here).unwrap();
        cache.put(key, one, &here, &value);

        assert!(cache.get(key, one, &here).is_some());
        assert!(cache.get(key, Spelling::Masked(b"select 1"), &here).is_none());
        // Even where the hashes were to collide.
        assert!(cache.get(key, Spelling::Exact(b"select 2"), &here).is_none());
        assert!(cache.get(key, one, &context(&catalogue, &path, "other")).is_none());
        assert!(cache.get(key, one, &context(&catalogue, &other, "bot")).is_none());
        assert!(cache.get(key, one, &context(&Catalogue::built_in(16), &path, "bot")).is_none());
    }

    #[test]
    fn only_plain_integers_are_masked() {
        let masked = |sql: &str| {
            let mut out = Vec::new();
            mask(sql.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
        };

        assert_eq!(
            masked("select a1 from t where x=12 and y>-7;").unwrap(),
            "select a1 from t where x=00 and y>-0;"
        );
        assert_eq!(masked("select f(10,2) limit 5").unwrap(), "select f(00,0) limit 0");
        // A name, a float, another base, an interval of digits too long to be an integer.
        for none in [
            "select a1",
            "select 1.5, .5, 5.",
            "select 0x1f",
            "select 1_000",
            "select 1234567890",
            "select a[1]",
            "select 1e5",
        ] {
            assert_eq!(masked(none), None, "{none}");
        }
        // What only a lexer can read.
        for none in [
            "select '1' , 1",
            "select 1 -- 2",
            "select 1 /* 2 */",
            "select $1 + 1",
            "select \"a 1 \" + 1",
            "select e'\\'' + 1",
            "select 1 as ä",
        ] {
            assert_eq!(masked(none), None, "{none}");
        }
    }

    #[test]
    fn other_numbers_mean_the_same_only_where_no_number_was_looked_at() {
        let classifier = Classifier::new(Limits::default());
        let catalogue = Catalogue::built_in(15);
        let path = SearchPath::Known(vec!["public".into()]);
        let here = context(&catalogue, &path, "bot");
        let classify = |sql: &str| classifier.classify(&SqlText::from(sql), &here);

        let one = classify("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;");
        let other = classify("SELECT abalance FROM pgbench_accounts WHERE aid = 54321;");
        assert!(Arc::ptr_eq(&one, &other), "remembered with its number masked");
        let longer = classify("SELECT abalance FROM pgbench_accounts WHERE aid = 543210;");
        assert!(!Arc::ptr_eq(&one, &longer), "its positions are others");

        assert_eq!(classify("DELETE FROM t WHERE 1 = 2").class, StatementClass::MassWrite);
        assert_eq!(classify("DELETE FROM t WHERE a = 2").class, StatementClass::Write);
        assert_eq!(classify("UPDATE t SET a = 1 WHERE 3 = 3").class, StatementClass::MassWrite);
        // Its only number is zero, and looks like a mask.
        assert_eq!(classify("FETCH 00000 FROM c").class, StatementClass::Read);
        assert_eq!(classify("FETCH 10000 FROM c").class, StatementClass::Read);
        assert_eq!(classify("FETCH 99999 FROM c").class, StatementClass::Export);
    }

    #[test]
    fn what_is_remembered_with_masked_numbers_is_what_would_be_found_anew() {
        let remembers = Classifier::new(Limits::default());
        let forgets = Classifier::new(Limits { cache_bytes: 0, ..Limits::default() });
        let catalogue = Catalogue::built_in(15);
        let path = SearchPath::Known(vec!["public".into()]);
        let here = context(&catalogue, &path, "bot");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/statements");
        let (mut compared, mut masked) = (0, Vec::new());
        for file in std::fs::read_dir(folder).unwrap() {
            for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let sql = line["sql"].as_str().unwrap();
                // Numbers of all sizes behind everything that takes one.
                for sql in [
                    sql.to_owned(),
                    format!("{sql} LIMIT 1"),
                    sql.replace(" 1", " 10000"),
                    sql.replace("$1", "7"),
                ] {
                    if !mask(sql.as_bytes(), &mut masked) {
                        continue;
                    }
                    remembers.classify(&SqlText::from(sql.as_str()), &here);
                    for digit in ["0", "1", "5", "9"] {
                        let others = sql.replace(|c: char| c.is_ascii_digit(), digit);
                        let mut again = Vec::new();
                        if mask(others.as_bytes(), &mut again) && again == masked {
                            let others = SqlText::from(others.as_str());
                            assert_eq!(
                                remembers.classify(&others, &here),
                                forgets.classify(&others, &here),
                                "{others:?} after {sql}"
                            );
                            compared += 1;
                        }
                    }
                }
            }
        }
        assert!(compared > 500, "{compared}");
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
            let sql = Spelling::Exact(sql.as_bytes());
            let key = cache.key(sql, &here).unwrap();
            cache.put(key, sql, &here, &value);
        }

        assert!(cache.bytes() <= 64 * 1024 && cache.bytes() > 0);
        assert_eq!(cache.key(Spelling::Exact(&[b' '; LONGEST + 1]), &here), None);
    }
}
