//! Shortens long texts that are long by their literals.
//!
//! A parse tree takes a hundred times the text, so texts over the parser's limit are held unread. But loading
//! rows by large statements is ordinary, and such a text is mostly literals, which do nothing. This copies a
//! text in one pass, with memory for the copy only, and leaves out rows of a `VALUES`, members of an `IN` and
//! elements of an `ARRAY` that are literals of the same form as one before them; of long strings among them it
//! keeps the quotes. The copy is then classified like any text, so that a long statement and a short one are
//! judged by the same rules: views, partitions, casts, `RETURNING` and what else stands in it.
//!
//! What is left out are literals that were read as such to their last token. Their form is what they are made
//! of: kinds of tokens, brackets, the types that they are cast to, and the few values that conditions can
//! depend on (`0`, `1`, `true`, `NULL`, ..). Everything else is copied as it stands.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;

use super::lex::{Lexer, Token, TokenKind};

/// A text without most of its literals.
#[derive(Debug)]
pub(super) struct Shortened {
    pub(super) text: String,
    /// Where each piece of it begins, there and in the original; ascending.
    pieces: Vec<(u32, u32)>,
}

impl Shortened {
    /// Where a range of the copy stands in the original.
    pub(super) fn in_original(&self, range: &Range<u32>) -> Range<u32> {
        let start = self.original(range.start);
        // The end of what is behind the last byte, not of what was left out after it.
        let end = range.end.checked_sub(1).map_or(start, |last| self.original(last) + 1);
        start..end.max(start)
    }

    fn original(&self, at: u32) -> u32 {
        let next = self.pieces.partition_point(|(copy, _)| *copy <= at);
        let piece = next.checked_sub(1).and_then(|piece| self.pieces.get(piece));
        piece.map_or(at, |(copy, original)| original + (at - copy))
    }
}

/// Members of a list that are copied whatever they are: what a list of several is, it stays.
const FIRST: usize = 16;
/// Strings up to here are copied.
const SHORT: usize = 32;
/// Brackets inside each other that are followed.
const DEEPEST: u32 = 24;
/// Forms of literals that are told apart.
const MOST_FORMS: usize = 10_000;

/// Shortens a text to `limit` bytes at most; `None` where it cannot be read so, or stays longer.
pub(super) fn shorten(text: &str, limit: usize) -> Option<Shortened> {
    let mut lexer = Lexer::new(text);
    let next = lexer.next();
    let mut copier = Copier {
        text,
        lexer,
        next,
        copied: 0,
        out: Shortened { text: String::new(), pieces: Vec::new() },
        limit,
        forms: 0,
        brackets: 0,
    };
    copier.rest(0, None)?;
    copier.next.is_none().then_some(())?;
    copier.skip_to(text.len() as u32);
    // A string that never ends swallows everything, and a long operator or a deep comment stops the scan.
    let read =
        !copier.lexer.unterminated() && copier.lexer.operator_run() < 64 && copier.lexer.comment_depth() < 64;
    (read && copier.out.text.len() <= limit).then_some(copier.out)
}

/// How a list ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closer {
    Round,
    Square,
}

impl Closer {
    fn mark(self) -> &'static str {
        match self {
            Self::Round => ")",
            Self::Square => "]",
        }
    }
}

struct Copier<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    next: Option<Token>,
    /// Up to here the original is copied, or left out.
    copied: u32,
    out: Shortened,
    limit: usize,
    /// How many forms of literals are remembered.
    forms: usize,
    /// How many brackets are open.
    brackets: i64,
}

impl<'t> Copier<'t> {
    fn take(&mut self) -> Option<Token> {
        let token = self.next?;
        if token.kind == TokenKind::Punctuation {
            match token.of(self.text) {
                "(" | "[" => self.brackets += 1,
                ")" | "]" => self.brackets -= 1,
                _ => {}
            }
        }
        self.next = self.lexer.next();
        Some(token)
    }

    fn shown(&self) -> &'t str {
        self.next.map_or("", |token| token.of(self.text))
    }

    fn kind(&self) -> Option<TokenKind> {
        self.next.map(|token| token.kind)
    }

    fn is_mark(&self, mark: &str) -> bool {
        self.kind() == Some(TokenKind::Punctuation) && self.shown() == mark
    }

    fn is_word(&self, word: &str) -> bool {
        self.kind() == Some(TokenKind::Word) && self.shown().eq_ignore_ascii_case(word)
    }

    /// Copies the original up to a place.
    fn copy_to(&mut self, end: u32) -> Option<()> {
        if end > self.copied {
            let piece = self.text.get(self.copied as usize..end as usize)?;
            self.out.pieces.push((self.out.text.len() as u32, self.copied));
            self.out.text.push_str(piece);
            self.copied = end;
        }
        (self.out.text.len() <= self.limit.saturating_mul(2)).then_some(())
    }

    /// Leaves the original out up to a place; what was not copied before it is.
    fn skip_to(&mut self, end: u32) {
        self.copied = self.copied.max(end);
    }

    /// Takes a token and copies up to its end.
    fn copy(&mut self) -> Option<Token> {
        let token = self.take()?;
        self.copy_to(token.end)?;
        Some(token)
    }

    /// Copies whatever comes, up to a comma or closing bracket where so many are open, which is left; `None`: to
    /// the end.
    fn rest(&mut self, depth: u32, floor: Option<i64>) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        while let Some(token) = self.next {
            let shown = token.of(self.text);
            if token.kind == TokenKind::Punctuation
                && floor == Some(self.brackets)
                && matches!(shown, ")" | "]" | ",")
            {
                return Some(());
            }
            self.copy()?;
            if token.kind != TokenKind::Word {
                continue;
            }
            if shown.eq_ignore_ascii_case("values") {
                self.rows(depth + 1)?;
            } else if shown.eq_ignore_ascii_case("in") && self.is_mark("(") {
                self.copy()?;
                self.members(depth + 1, Closer::Round, FIRST)?;
            } else if shown.eq_ignore_ascii_case("array") && self.is_mark("[") {
                self.copy()?;
                self.members(depth + 1, Closer::Square, 2)?;
            }
        }
        Some(())
    }

    /// The rows behind VALUES, whose keyword is copied.
    fn rows(&mut self, depth: u32) -> Option<()> {
        let mut forms = HashSet::new();
        let mut count = 0_usize;
        while self.is_mark("(") {
            count += 1;
            self.member(depth, &mut forms, count <= 2)?;
            // Only another row belongs to it: behind `VALUES (1), x` nothing does.
            if !self.is_mark(",") {
                break;
            }
            let comma = self.take()?;
            if self.is_mark("(") {
                continue;
            }
            self.copy_to(comma.end)?;
            break;
        }
        Some(())
    }

    /// The members of a list up to its closing bracket; the opening one is copied.
    fn members(&mut self, depth: u32, closer: Closer, first: usize) -> Option<()> {
        let mut forms = HashSet::new();
        let mut count = 0_usize;
        loop {
            if self.is_mark(closer.mark()) {
                return self.copy().map(drop);
            }
            count += 1;
            self.member(depth, &mut forms, count <= first)?;
            if self.is_mark(",") {
                self.take()?;
            } else if !self.is_mark(closer.mark()) {
                // The other bracket, or the end: no list at all.
                return if self.next.is_none() { Some(()) } else { None };
            }
        }
    }

    /// One member of a list. A comma before it is copied with it, so that it goes with it.
    fn member(&mut self, depth: u32, forms: &mut HashSet<u64>, keep: bool) -> Option<()> {
        let (length, pieces, start) = (self.out.text.len(), self.out.pieces.len(), self.copied);
        let floor = self.brackets;
        let mut form = DefaultHasher::new();
        let literal = self.literal(depth, &mut form)?;
        let ended = self.kind() == Some(TokenKind::Punctuation) && matches!(self.shown(), "," | ")" | "]");
        // Of rows, what follows may also be a word or the end.
        let behind_row = !matches!(self.kind(), Some(TokenKind::Operator | TokenKind::Punctuation))
            && self.out.text.as_bytes().last() == Some(&b')');
        if literal && (ended || behind_row) {
            let known = !forms.insert(form.finish());
            if known && !keep {
                let end = self.copied;
                self.out.text.truncate(length);
                self.out.pieces.truncate(pieces);
                self.copied = start.max(end);
            } else {
                self.forms += 1;
                (self.forms <= MOST_FORMS || self.out.text.len() < self.limit).then_some(())?;
            }
            return Some(());
        }
        self.rest(depth + 1, Some(floor))
    }

    /// A literal, copied in short; `false` where it is something else, of which the beginning is copied.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a list of what is a literal")]
    fn literal(&mut self, depth: u32, form: &mut DefaultHasher) -> Option<bool> {
        if depth > DEEPEST {
            return None;
        }
        if self.kind() == Some(TokenKind::Operator) && matches!(self.shown(), "-" | "+") {
            self.shown().hash(form);
            self.copy()?;
            if self.kind() != Some(TokenKind::Number) {
                return Some(false);
            }
        }
        let Some(kind) = self.kind() else { return Some(false) };
        let shown = self.shown();
        match kind {
            TokenKind::Number => {
                number_form(shown).hash(form);
                self.copy()?;
            }
            TokenKind::Parameter => {
                "$".hash(form);
                self.copy()?;
            }
            TokenKind::String | TokenKind::EscapeString | TokenKind::BitString | TokenKind::DollarString => {
                self.string(form)?;
            }
            TokenKind::Punctuation if shown == "(" => {
                "(".hash(form);
                self.copy()?;
                if !self.tuple(depth + 1, Closer::Round, form)? {
                    return Some(false);
                }
            }
            // Inside an ARRAY only; elsewhere the grammar knows no such thing.
            TokenKind::Punctuation if shown == "[" => {
                "[".hash(form);
                self.copy()?;
                if !self.elements(depth + 1, form)? {
                    return Some(false);
                }
            }
            TokenKind::Word if ["null", "true", "false", "default"].iter().any(|word| self.is_word(word)) => {
                shown.to_ascii_lowercase().hash(form);
                self.copy()?;
            }
            TokenKind::Word if self.is_word("array") => {
                "array".hash(form);
                self.copy()?;
                if !self.is_mark("[") {
                    return Some(false);
                }
                self.copy()?;
                if !self.elements(depth + 1, form)? {
                    return Some(false);
                }
            }
            TokenKind::Word if self.is_word("row") => {
                "row".hash(form);
                self.copy()?;
                if !self.is_mark("(") {
                    return Some(false);
                }
                self.copy()?;
                if !self.tuple(depth + 1, Closer::Round, form)? {
                    return Some(false);
                }
            }
            TokenKind::Word if self.is_word("cast") => {
                "cast".hash(form);
                self.copy()?;
                if !self.is_mark("(") {
                    return Some(false);
                }
                self.copy()?;
                if !self.literal(depth + 1, form)? || !self.is_word("as") {
                    return Some(false);
                }
                self.copy()?;
                if !self.type_name(form)? || !self.is_mark(")") {
                    return Some(false);
                }
                self.copy()?;
            }
            // `DATE '2026-01-01'`, `public.vector '[1,2]'`
            TokenKind::Word | TokenKind::QuotedName => {
                "typed".hash(form);
                let is_type = self.type_name(form)?;
                if !is_type || !self.kind().is_some_and(TokenKind::is_string) {
                    return Some(false);
                }
                self.string(form)?;
            }
            _ => return Some(false),
        }
        while self.kind() == Some(TokenKind::Operator) && self.shown() == "::" {
            "::".hash(form);
            self.copy()?;
            if !self.type_name(form)? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// A string, of which a long one keeps its quotes.
    fn string(&mut self, form: &mut DefaultHasher) -> Option<()> {
        let token = self.next?;
        let shown = token.of(self.text);
        (token.kind as u8).hash(form);
        if token.kind == TokenKind::UnicodeString || shown.len() <= SHORT {
            let inside = shown.trim_matches('\'').to_ascii_lowercase();
            if FLAGS.contains(&&*inside) || token.kind == TokenKind::UnicodeString {
                inside.hash(form);
            }
            self.copy()?;
            return Some(());
        }
        let bits = token.kind == TokenKind::BitString;
        let short = if bits { format!("{}'1'", shown.get(..1)?) } else { "'..'".to_owned() };
        self.take()?;
        self.copy_to(token.start)?;
        self.out.pieces.push((self.out.text.len() as u32, token.start));
        self.out.text.push_str(&short);
        self.skip_to(token.end);
        Some(())
    }

    /// The literals of a row, all of which are copied; `false` when one is none.
    fn tuple(&mut self, depth: u32, closer: Closer, form: &mut DefaultHasher) -> Option<bool> {
        loop {
            if !self.literal(depth, form)? {
                return Some(false);
            }
            if self.is_mark(closer.mark()) {
                closer.mark().hash(form);
                self.copy()?;
                return Some(true);
            }
            if !self.is_mark(",") {
                return Some(false);
            }
            self.copy()?;
        }
    }

    /// The elements of an array, of which those of a form before them are left out.
    fn elements(&mut self, depth: u32, form: &mut DefaultHasher) -> Option<bool> {
        if depth > DEEPEST {
            return None;
        }
        let mut forms: HashSet<u64> = HashSet::new();
        let mut count = 0_usize;
        loop {
            if self.is_mark("]") {
                let mut all: Vec<u64> = forms.into_iter().collect();
                all.sort_unstable();
                all.hash(form);
                "]".hash(form);
                self.copy()?;
                return Some(true);
            }
            count += 1;
            let (length, pieces) = (self.out.text.len(), self.out.pieces.len());
            let mut own = DefaultHasher::new();
            if !self.literal(depth, &mut own)? {
                return Some(false);
            }
            let known = !forms.insert(own.finish());
            if known && count > 2 {
                self.out.text.truncate(length);
                self.out.pieces.truncate(pieces);
            }
            if self.is_mark(",") {
                self.take()?;
            } else if !self.is_mark("]") {
                return Some(false);
            }
        }
    }

    /// A type's name, with what belongs to it.
    fn type_name(&mut self, form: &mut DefaultHasher) -> Option<bool> {
        loop {
            match self.kind() {
                Some(TokenKind::Word) => self.shown().to_ascii_lowercase().hash(form),
                Some(TokenKind::QuotedName) => self.shown().hash(form),
                _ => return Some(false),
            }
            self.copy()?;
            if !self.is_mark(".") {
                break;
            }
            ".".hash(form);
            self.copy()?;
        }
        loop {
            let more = ["precision", "varying", "with", "without", "time", "zone", "local", "to"];
            let units = ["year", "month", "day", "hour", "minute", "second"];
            if more.iter().chain(&units).any(|word| self.is_word(word)) {
                self.shown().to_ascii_lowercase().hash(form);
                self.copy()?;
                continue;
            }
            let closer = match self.kind() {
                Some(TokenKind::Punctuation) if self.shown() == "(" => Closer::Round,
                Some(TokenKind::Punctuation) if self.shown() == "[" => Closer::Square,
                _ => return Some(true),
            };
            closer.mark().hash(form);
            self.copy()?;
            while !self.is_mark(closer.mark()) {
                let number = self.kind() == Some(TokenKind::Number);
                if !number && !self.is_mark(",") {
                    return Some(false);
                }
                self.shown().hash(form);
                self.copy()?;
            }
            self.copy()?;
        }
    }
}

/// Values that conditions may depend on: both of a flag's are every row.
const FLAGS: [&str; 12] = ["", "0", "1", "t", "f", "y", "n", "on", "off", "yes", "no", "true"];

/// What a number looks like: those of another spelling than decimal are their own form.
fn number_form(shown: &str) -> &str {
    let plain =
        shown.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    if plain && !matches!(shown, "0" | "1") { "1.0" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> Option<String> {
        shorten(text, 1 << 20).map(|short| short.text)
    }

    #[test]
    fn rows_members_and_elements_of_one_form_are_left_out() {
        let rows =
            |count: usize| (0..count).map(|n| format!("({n}2, 'x{n}')")).collect::<Vec<_>>().join(", ");
        let text = short(&format!("INSERT INTO App.\"T\" (a, b) VALUES {} RETURNING a", rows(500))).unwrap();
        assert_eq!(text, "INSERT INTO App.\"T\" (a, b) VALUES (02, 'x0'), (12, 'x1') RETURNING a");

        let members: Vec<String> = (2..500).map(|n| n.to_string()).collect();
        let text = short(&format!("SELECT 1 WHERE a IN ({}) AND b", members.join(","))).unwrap();
        assert_eq!(text, "SELECT 1 WHERE a IN (2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17) AND b");

        let elements = vec!["0.5"; 500].join(",");
        let text = short(&format!("SELECT ARRAY[{elements}]::vector, f(ARRAY[[{elements}],[1]])")).unwrap();
        assert_eq!(text, "SELECT ARRAY[0.5,0.5]::vector, f(ARRAY[[0.5,0.5],[1]])");
        let long = "x".repeat(100);
        assert_eq!(
            short(&format!("INSERT INTO t VALUES (E'{long}', $${long}$$::json)")).unwrap(),
            "INSERT INTO t VALUES ('..', '..'::json)"
        );
        assert_eq!(
            short(&format!("SELECT f('{long}')")).unwrap(),
            format!("SELECT f('{long}')"),
            "no literal of a list"
        );
    }

    #[test]
    fn what_is_not_surely_a_literal_of_a_known_form_stays() {
        let many = vec!["(7, 'a')"; 50].join(", ");
        for piece in [
            "(f(), 'a')",
            "(1 + 1, 'a')",
            "(x, 'a')",
            "(7, 'a'::evil)",
            "(7, evil 'a')",
            "(7, CAST('a' AS evil))",
            "(7, (SELECT 1))",
            "(7, 'a' || 'b')",
            "(7, 'a' COLLATE \"C\")",
            "(+7, 'a')",
            "(7, NULL)",
            "(7, true)",
            "(0, 'a')",
            "(7, 't')",
            "(0x1f, 'a')",
            "(7)",
            "(7, 'a', 7)",
            "((7, 'a'))",
            "(7, ROW('a'))",
            "(7, 'a'::text[])",
            "(7, 'a'::varchar(3))",
            "(7, ARRAY[f()])",
            "(7, ARRAY['a', NULL])",
            "(7, 'a'::\"Text\")",
            "(7, 'a'::pg_catalog.text)",
        ] {
            let text = format!("INSERT INTO t VALUES {many}, {piece}, {many}");
            let short = short(&text).unwrap_or_else(|| text.clone());
            assert!(short.contains(piece), "{piece}: {short}");
            assert!(short.len() < 100, "{short}");
        }
        let text = format!("INSERT INTO t VALUES {many}; DROP TABLE t; VALUES {many}");
        assert!(short(&text).unwrap().contains("; DROP TABLE t; VALUES"));
        for text in ["INSERT INTO t VALUES (1, 'a", "SELECT 1 /* ", "SELECT a IN (1]", "VALUES (1)) + (2"] {
            let short = short(text);
            assert!(short.is_none() || short.as_deref() == Some(text), "{text}");
        }
    }

    #[test]
    fn places_of_the_copy_are_told_in_the_original() {
        let many = vec!["(7, 'a')"; 50].join(", ");
        let text = format!("INSERT INTO t VALUES {many} RETURNING evil(1)");
        let short = shorten(&text, 1 << 20).unwrap();
        let at = short.text.find("evil(1)").unwrap() as u32;

        let place = short.in_original(&(at..at + 7));

        assert_eq!(&text[place.start as usize..place.end as usize], "evil(1)");
        assert_eq!(short.in_original(&(0..short.text.len() as u32)), 0..text.len() as u32);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(shorten(&"x IN (".repeat(100_000), 1 << 20).is_none());
        assert!(shorten(&format!("VALUES ({}", "ARRAY[".repeat(100_000)), 1 << 20).is_none());
        assert!(shorten(&format!("VALUES {}", "(".repeat(100_000)), 1 << 20).is_none());
    }
}
