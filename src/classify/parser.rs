//! Postgres's own grammar, by way of libpg_query. The one file with `unsafe` in it.
//!
//! What libpg_query does for us, and what it does not, found by trying:
//!
//! - It checks its own stack depth in every recursive function, against the stack of the calling
//!   thread (at most 2 MB of it, and never the last 512 kB), and reports "stack depth limit
//!   exceeded". The bison parser keeps its stack on the heap, at most 10,000 deep. So no text
//!   overflows a thread's stack, provided the thread has 1 MiB or more.
//! - Errors come back as values; memory contexts are freed on all paths but those handed to us.
//! - Two scanner rules are quadratic: nested comments (20,000 levels take 2.6 s) and long runs of
//!   operator characters (900 kB of `+` take 42 s; 1 MiB of `/**/` takes minutes). `lex` finds both
//!   before this is called.
//! - Each thread that ever parses costs one of the process's 1,024 pthread keys, for good. So large
//!   texts go to *one* thread of ours with a stack of known size, instead of a thread each.

#![allow(unsafe_code, reason = "libpg_query is C; this file is the whole border to it")]

use std::ffi::{CStr, c_char, c_int};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};

// The symbols below come from the C library that this crate links; without a use of the crate the
// linker would leave both out.
use pg_query as _;

/// Texts above this are parsed on the large thread, one at a time: their trees take up to 45 times
/// the text as JSON and as much again as items.
pub const LARGE: usize = 32 * 1024;

/// `PgQueryError` of pg_query.h.
#[repr(C)]
struct RawError {
    message: *mut c_char,
    funcname: *mut c_char,
    filename: *mut c_char,
    lineno: c_int,
    cursorpos: c_int,
    context: *mut c_char,
}

/// `PgQueryParseResult` of pg_query.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawResult {
    parse_tree: *mut c_char,
    stderr_buffer: *mut c_char,
    error: *mut RawError,
}

unsafe extern "C" {
    fn pg_query_parse_opts(input: *const c_char, options: c_int) -> RawResult;
    fn pg_query_free_parse_result(result: RawResult);
}

/// `PG_QUERY_PARSE_DEFAULT`, with `standard_conforming_strings = on`, `backslash_quote =
/// safe_encoding`: the defaults, and the only settings under which we classify at all.
const OPTIONS: c_int = 0;

/// A parse tree as libpg_query wrote it: owned by C, freed on drop.
pub(super) struct Json {
    raw: RawResult,
    length: usize,
}

// SAFETY: the pointers are to memory from malloc() that nothing else knows of; free() may be called
// from any thread.
unsafe impl Send for Json {}

impl Json {
    /// The text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `length` is strlen() of `parse_tree`, which lives until drop and is never written.
        unsafe { std::slice::from_raw_parts(self.raw.parse_tree.cast::<u8>(), self.length) }
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        // SAFETY: `raw` came from pg_query_parse_opts and is freed exactly once, here.
        unsafe { pg_query_free_parse_result(self.raw) }
    }
}

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The grammar rejects the text.
    Grammar {
        /// Postgres's message.
        message: String,
        /// 1-based, in characters.
        position: Option<u32>,
    },
    /// The text is beyond what this parser can do; Postgres may well accept it.
    Limit(String),
}

/// Parses a text that holds no NUL.
pub(super) fn parse(text: &str) -> Result<Json, Failure> {
    if text.len() <= LARGE { parse_here(text) } else { LargeThread::parse(text) }
}

/// Parses on the calling thread.
fn parse_here(text: &str) -> Result<Json, Failure> {
    let mut terminated = Vec::with_capacity(text.len() + 1);
    terminated.extend_from_slice(text.as_bytes());
    terminated.push(0);
    let Ok(input) = CStr::from_bytes_with_nul(&terminated) else {
        return Err(Failure::Limit("the text holds a NUL byte".into()));
    };
    // SAFETY: `input` is NUL-terminated and outlives the call; the function keeps no pointer to it.
    let raw = unsafe { pg_query_parse_opts(input.as_ptr(), OPTIONS) };
    let mut json = Json { raw, length: 0 };
    if !raw.error.is_null() {
        return Err(failure(&json));
    }
    if raw.parse_tree.is_null() {
        return Err(Failure::Limit("the parser ran out of memory".into()));
    }
    // SAFETY: not null, and NUL-terminated by the library's strdup().
    json.length = unsafe { CStr::from_ptr(raw.parse_tree) }.to_bytes().len();
    Ok(json)
}

fn failure(json: &Json) -> Failure {
    // SAFETY: the caller saw that `error` is not null; it and its strings live until `json` drops.
    let (message, function, cursor) = unsafe {
        let error = &*json.raw.error;
        (copied(error.message), copied(error.funcname), error.cursorpos)
    };
    // These are the parser's own limits, where the server's may be wider: not the grammar's word.
    let is_limit = function == "check_stack_depth"
        || message.starts_with("memory exhausted")
        || message.starts_with("out of memory")
        || message.starts_with("invalid memory alloc request")
        || message.starts_with("string buffer exceeds")
        || message.starts_with("cannot enlarge string buffer");
    if is_limit {
        return Failure::Limit(message);
    }
    Failure::Grammar { message, position: u32::try_from(cursor).ok().filter(|place| *place > 0) }
}

/// # Safety
///
/// `text` is null or NUL-terminated.
unsafe fn copied(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

struct Order {
    text: String,
    answer: SyncSender<Result<Json, Failure>>,
}

/// The thread that parses large texts.
struct LargeThread(Mutex<SyncSender<Order>>);

static LARGE_THREAD: LazyLock<Option<LargeThread>> = LazyLock::new(LargeThread::start);

impl LargeThread {
    fn start() -> Option<Self> {
        let (orders, inbox): (SyncSender<Order>, Receiver<Order>) = sync_channel(0);
        std::thread::Builder::new()
            .name("parse-large".into())
            .stack_size(8 * 1024 * 1024)
            .spawn(move || {
                for order in inbox {
                    // The asker may be gone; then nobody wants the answer.
                    let _ = order.answer.send(parse_here(&order.text));
                }
            })
            .ok()
            .map(|_| Self(Mutex::new(orders)))
    }

    fn parse(text: &str) -> Result<Json, Failure> {
        let gone = || Failure::Limit("the thread that parses large texts is gone".into());
        let thread = LARGE_THREAD.as_ref().ok_or_else(gone)?;
        let (answer, inbox) = sync_channel(1);
        let orders = thread.0.lock().map_err(|_| gone())?.clone();
        orders.send(Order { text: text.to_owned(), answer }).map_err(|_| gone())?;
        inbox.recv().map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Failure {
        parse(text).err().expect(text)
    }

    #[test]
    fn a_tree_is_json_and_an_error_has_postgres_message_and_position() {
        let json = parse("select 1").unwrap_or_else(|error| panic!("{error:?}"));
        assert!(json.as_bytes().starts_with(b"{\"version\":180"));
        assert_eq!(
            message("select 'ä', 1 1"),
            Failure::Grammar { message: "syntax error at or near \"1\"".into(), position: Some(15) }
        );
        assert_eq!(
            message("select 'a"),
            Failure::Grammar {
                message: "unterminated quoted string at or near \"'a\"".into(),
                position: Some(8)
            }
        );
    }

    /// The worst texts found for depth and size. Each must come back as a tree or as a limit, on a
    /// thread as small as a test's.
    #[test]
    fn the_worst_texts_end_in_a_value() {
        let repeat = |text: &str, times: usize| text.repeat(times);
        let limits = [
            format!("select {}1", repeat("1+", 34_000)),
            format!("select {}1{}", repeat("(", 100_000), repeat(")", 100_000)),
            format!("select {}a", repeat("- ", 500_000)),
            format!("select 1{}", repeat("::int", 200_000)),
            format!("select a{}", repeat(" isnull", 140_000)),
            format!("select 1 {}", repeat("union select 1 ", 60_000)),
            format!("select {}1{}", repeat("case when a then ", 3_000), repeat(" end", 3_000)),
            format!("select {}1{}", repeat("array[", 30_000), repeat("]", 30_000)),
            format!("{}select 1{}", repeat("select * from (", 3_000), repeat(") a", 3_000)),
        ];
        for text in limits {
            assert!(matches!(parse(&text), Err(Failure::Limit(_))), "{}", &text[..40]);
        }
        let trees = [
            format!("select {}1", repeat("1,", 100_000)),
            format!("select 1 where {}b", repeat("a and ", 170_000)),
            format!("select 1 from t {}", repeat("join u on true ", 3_000)),
            format!("select {}", repeat("'a'\n", 200_000)),
            repeat("select 1;", 50_000),
            repeat(";", 1_000_000),
        ];
        for text in trees {
            assert!(parse(&text).is_ok(), "{}", &text[..40]);
        }
    }

    #[test]
    fn a_small_stack_is_enough() {
        // The system may hand out the larger stack of a thread that has ended, of which the parser uses
        // at most 2 MiB: the deep texts are deep enough for that, too.
        let depth = |text: String| {
            std::thread::Builder::new()
                .stack_size(1024 * 1024)
                .spawn(move || parse_here(&text).is_ok())
                .expect("a thread")
                .join()
                .expect("no overflow")
        };
        assert!(depth(format!("select {}1", "1+".repeat(100))));
        assert!(!depth(format!("select {}1", "1+".repeat(100_000))));
        assert!(!depth(format!("select 1 {}", "union select 1 ".repeat(60_000))));
    }
}
