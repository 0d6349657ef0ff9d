//! What the fuzzers in `fuzz/` run, and `cargo test` runs with seeds, so that it cannot rot.
//!
//! Each function takes any bytes, reads a scenario from them, and panics where a promise is broken. None
//! of this exists in an ordinary build: it is compiled for tests and for `cargo fuzz` (`cfg(fuzzing)`),
//! and the program refuses to be built that way.
//!
//! - [`frames`]: bytes in any chunking; the readers of both directions' messages.
//! - [`startup`]: first packets, start-up parameters, SCRAM.
//! - [`session`]: sessions between any agent and a server that behaves (`model`), or one that does not.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a broken promise is to stop the fuzzer"
)]

mod frames;
mod model;
mod session;
mod startup;

pub use frames::frames;
pub use session::session;
pub use startup::startup;

/// `COUNTERSIGN_FUZZ_TRACE=1` prints what happens, message by message.
pub(crate) static TRACE: std::sync::LazyLock<bool> =
    std::sync::LazyLock::new(|| std::env::var_os("COUNTERSIGN_FUZZ_TRACE").is_some());

/// Reads choices from a fuzzer's bytes; behind their end, all choices are 0.
pub(crate) struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// One of `count` things.
    pub(crate) fn pick(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// Up to `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn frames_are_the_same_in_any_chunking(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            frames(&data);
        }

        #[test]
        fn startup_never_accepts_what_is_not_on_the_list(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            startup(&data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

        #[test]
        fn sessions_forward_nothing_without_a_receipt(data in proptest::collection::vec(any::<u8>(), 0..800)) {
            session(&data);
        }
    }

    /// What the fuzzers kept: the corpus of the repository, crashes that were fixed among it.
    #[test]
    fn the_corpus_still_passes() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in [("frames", frames as fn(&[u8])), ("startup", startup), ("session", session)] {
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "no corpus for {name}");
        }
    }
}
