//! A second opinion on where statements begin and end.
//!
//! libpg_query decides. `sqlparser` knows less of Postgres (it rejects a tenth of its regression
//! tests, which means nothing), but it was written by other people: where it *accepts* a text and sees
//! another number of statements, or statements of another kind, one of the two has been led astray,
//! perhaps as Postgres would be. Such a text is held.
//!
//! It is only asked about texts that would pass, that are short, and in which lexers could differ at
//! all: most SQL has no backslash, comment, dollar sign or adjacent quotes in it, and then there is
//! only one way to read it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use memchr::memchr3;
use sqlparser::ast::{SetExpr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::{StatementClass, StatementPart};

/// Its parser is slow on long texts, and its trees are dropped by recursion.
const LONGEST: usize = 16 * 1024;

/// More nodes than this in our own tree, and its tree could be deep enough to overflow a stack when
/// it is dropped (34,000 terms of a sum do).
const MOST_NODES: usize = 3_000;

/// What a statement is, as far as both parsers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Query,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    Transaction,
    Set,
    Explain,
    Names,
    Cursor,
    /// Not compared.
    Other,
}

/// Whether the parsers disagree about a text that would otherwise pass.
pub(super) fn disagrees(text: &str, parts: &[StatementPart], nodes: usize) -> bool {
    if text.len() > LONGEST || nodes > MOST_NODES || is_unambiguous(text) {
        return false;
    }
    // It takes what follows a COPY .. FROM STDIN for the rows, as psql's files have them.
    let copies = parts.iter().take(parts.len().saturating_sub(1)).any(|part| &*part.kind == "CopyStmt");
    if copies {
        return false;
    }
    // A panic of its is as good as a rejection.
    catch_unwind(AssertUnwindSafe(|| second_opinion(text, parts))).unwrap_or(false)
}

fn second_opinion(text: &str, parts: &[StatementPart]) -> bool {
    let dialect = PostgreSqlDialect {};
    let parsed = Parser::new(&dialect)
        .with_recursion_limit(60)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements());
    let Ok(statements) = parsed else { return false };
    if statements.len() != parts.len() {
        return true;
    }
    statements.iter().zip(parts).any(|(theirs, ours)| {
        let (theirs, ours) = (family_of(theirs), family_named(&ours.kind));
        theirs != Family::Other && ours != Family::Other && theirs != ours
    })
}

/// Whether every lexer of SQL splits the text alike: plain characters, quotes that pair off, at most
/// a closing semicolon.
///
/// Goes from one byte that could matter to the next; this runs for most statements that pass.
fn is_unambiguous(text: &str) -> bool {
    let bytes = text.trim_end_matches([';', ' ', '\n', '\t', '\r']).as_bytes();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| is_special(*byte))) {
        at += found;
        let (head, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
        let before = head.last().copied().unwrap_or(b' ');
        let skipped = match rest {
            [quote @ (b'\'' | b'"'), inside @ ..] => {
                // E'..', U&"..", and strings side by side (with only blanks between, too) are where
                // opinions differ.
                let last = head.trim_ascii_end().last().copied().unwrap_or(b' ');
                if before.is_ascii_alphanumeric()
                    || matches!(before, b'&' | b'_' | b'$')
                    || matches!(last, b'\'' | b'"')
                {
                    return false;
                }
                match memchr3(*quote, b'\\', b'\n', inside) {
                    Some(end) if inside.get(end) == Some(quote) => end + 2,
                    _ => return false,
                }
            }
            [b'$', b'0'..=b'9', ..] if !before.is_ascii_alphanumeric() => 1,
            [b'-', next, ..] if *next != b'-' => 1,
            [b'/', next, ..] if *next != b'*' => 1,
            [b'-' | b'/'] => 1,
            _ => return false,
        };
        at += skipped;
    }
    true
}

/// The bytes that [`is_unambiguous`] looks at, and around.
const fn specials() -> [bool; 256] {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let plain = byte < 0x80
            && !matches!(byte as u8, b'\'' | b'"' | b'$' | b'-' | b'/' | b'\\' | b';' | b'#' | b'`');
        #[expect(clippy::indexing_slicing, reason = "bounded by the loop")]
        {
            special[byte] = !plain;
        }
        byte += 1;
    }
    special
}

fn is_special(byte: u8) -> bool {
    static SPECIALS: [bool; 256] = specials();
    SPECIALS.get(usize::from(byte)).is_none_or(|special| *special)
}

fn family_named(kind: &str) -> Family {
    match kind {
        "SelectStmt" => Family::Query,
        "InsertStmt" => Family::Insert,
        "UpdateStmt" => Family::Update,
        "DeleteStmt" => Family::Delete,
        "MergeStmt" => Family::Merge,
        "CopyStmt" => Family::Copy,
        "TransactionStmt" => Family::Transaction,
        "VariableSetStmt" => Family::Set,
        "ExplainStmt" => Family::Explain,
        "PrepareStmt" | "ExecuteStmt" | "DeallocateStmt" => Family::Names,
        "DeclareCursorStmt" | "FetchStmt" | "ClosePortalStmt" => Family::Cursor,
        _ => Family::Other,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their statements of other dialects are not compared")]
fn family_of(statement: &Statement) -> Family {
    match statement {
        Statement::Query(query) => match &*query.body {
            SetExpr::Insert(_) => Family::Insert,
            SetExpr::Update(_) => Family::Update,
            SetExpr::Delete(_) => Family::Delete,
            SetExpr::Merge(_) => Family::Merge,
            _ => Family::Query,
        },
        Statement::Insert(_) => Family::Insert,
        Statement::Update(_) => Family::Update,
        Statement::Delete(_) => Family::Delete,
        Statement::Merge(_) => Family::Merge,
        Statement::Copy { .. } => Family::Copy,
        Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. } => Family::Transaction,
        Statement::Set(_) | Statement::Reset(_) => Family::Set,
        Statement::Explain { .. } => Family::Explain,
        Statement::Prepare { .. } | Statement::Execute { .. } | Statement::Deallocate { .. } => Family::Names,
        Statement::Declare { .. } | Statement::Fetch { .. } | Statement::Close { .. } => Family::Cursor,
        // Whatever changes objects has a class of its own, and is held without this.
        Statement::Drop { .. }
        | Statement::CreateTable(_)
        | Statement::AlterTable(_)
        | Statement::Truncate(_)
        | Statement::Grant(_)
        | Statement::Revoke(_) => Family::Other,
        _ => Family::Other,
    }
}

/// The class and words of a disagreement.
pub(super) const DISAGREEMENT: (StatementClass, &str) =
    (StatementClass::Admin, "parsers disagree about where its statements begin and end, or what they are");

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: &str) -> StatementPart {
        StatementPart { kind: kind.into(), class: StatementClass::Read, span: 0..0 }
    }

    #[test]
    fn another_number_or_kind_of_statements_is_a_disagreement() {
        assert!(second_opinion("select 1", &[part("SelectStmt"), part("SelectStmt")]));
        assert!(second_opinion("delete from t", &[part("SelectStmt")]));
        assert!(!second_opinion("with a as (select 1) insert into t select 1", &[part("InsertStmt")]));
        assert!(!second_opinion("this is no sql", &[part("SelectStmt")]));
    }

    #[test]
    fn plain_texts_are_not_asked_about() {
        for plain in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
            "select \"t\".\"a\", 'x' from t where b = $1 and c in ('a', 'b')",
        ] {
            assert!(is_unambiguous(plain), "{plain}");
        }
        for odd in [
            "select E'a'",
            "select 'a''b'",
            "select 'a' 'b'",
            "select 'a'\n'b'",
            "select 'a\\'",
            "select 1 -- x",
            "select 1; select 2",
            "select $$a$$",
            "select U&\"a\"",
            "select ä",
            "select /* */ 1",
            "select 'a",
            "select a$1",
            "select '\n'",
        ] {
            assert!(!is_unambiguous(odd), "{odd}");
        }
    }

    /// The same, byte by byte.
    fn is_plainly_unambiguous(text: &str) -> bool {
        let mut bytes = text.trim_end_matches([';', ' ', '\n', '\t', '\r']).as_bytes().iter();
        let mut before = b' ';
        while let Some(&byte) = bytes.next() {
            let next = || bytes.as_slice().first();
            match byte {
                b'\'' | b'"' => {
                    if before.is_ascii_alphanumeric() || matches!(before, b'&' | b'_' | b'\'' | b'"' | b'$') {
                        return false;
                    }
                    let stops = |inside: &&u8| **inside == byte || matches!(inside, b'\\' | b'\n');
                    if bytes.find(stops) != Some(&byte) {
                        return false;
                    }
                }
                b'$' if !next().is_some_and(u8::is_ascii_digit) || before.is_ascii_alphanumeric() => {
                    return false;
                }
                b'-' if next() == Some(&b'-') => return false,
                b'/' if next() == Some(&b'*') => return false,
                b'\\' | b';' | b'#' | b'`' | 0x80.. => return false,
                _ => {}
            }
            if !byte.is_ascii_whitespace() || !matches!(before, b'\'' | b'"') {
                before = byte;
            }
        }
        true
    }

    #[test]
    fn going_from_special_byte_to_special_byte_misses_nothing() {
        let letters = ["a", "1", " ", "'", "\"", "$", "-", "/", "*", ";", "&", "_", "\\", "\n", "#", "ä"];
        let mut texts = vec![String::new()];
        let mut plain = 0;
        for _ in 0..5 {
            texts = texts.iter().flat_map(|text| letters.map(|letter| format!("{text}{letter}"))).collect();
            for text in &texts {
                assert_eq!(is_unambiguous(text), is_plainly_unambiguous(text), "{text:?}");
                plain += usize::from(is_unambiguous(text));
            }
        }
        assert!(plain > 1000, "{plain}");
    }

    #[test]
    fn long_sums_and_conjunctions_do_not_overflow_the_stack() {
        for text in [
            format!("select {}1 -- x", "1+".repeat(8_000)),
            format!("select 1 where {}a -- x", "a and ".repeat(2_600)),
        ] {
            // As many nodes as such a text has at least.
            assert!(!disagrees(&text, &[part("SelectStmt")], text.len()));
        }
        let text = format!("select {}1 -- x", "1+".repeat(700));
        assert!(!disagrees(&text, &[part("SelectStmt")], MOST_NODES));
    }
}
