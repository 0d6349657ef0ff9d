//! Postgres's lexical rules (src/backend/parser/scan.l), linear and without libpg_query.
//!
//! What the tokens are for: the [fingerprint](super::fingerprint), finding secrets to
//! [redact](super::redact), the extent of a piece of text that a reason points at, and
//! [bulk inserts](super::bulk). None of these decides that something is harmless, but the last,
//! which accepts only the plainest tokens. The two figures beside the tokens guard the parser
//! against the texts for which Postgres's own scanner is quadratic.

use memchr::memchr;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or an unquoted name.
    Word,
    /// `"name"`
    QuotedName,
    /// `U&"name"`
    UnicodeName,
    /// `1`, `1.5`, `1e3`, `0x1f`, `1_000`
    Number,
    /// `'..'`, with its continuations on following lines.
    String,
    /// `E'..'`
    EscapeString,
    /// `U&'..'`
    UnicodeString,
    /// `B'..'` or `X'..'`
    BitString,
    /// `$$..$$`, `$tag$..$tag$`
    DollarString,
    /// `$1`
    Parameter,
    /// `::`, `..`, `:=`, `=>` and runs of operator characters.
    Operator,
    /// One character that stands for itself: `( ) [ ] , ; . :`
    Punctuation,
    /// A character that starts no token.
    Stray,
}

impl TokenKind {
    /// Whether it is a string of some kind.
    pub(super) fn is_string(self) -> bool {
        matches!(
            self,
            Self::String | Self::EscapeString | Self::UnicodeString | Self::BitString | Self::DollarString
        )
    }
}

/// One token: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Token {
    /// Its text.
    pub(super) fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or("")
    }
}

/// What the scan found.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    /// The tokens, without white space and comments.
    pub(super) tokens: Vec<Token>,
    /// How deep comments nest.
    pub(super) comment_depth: u32,
    /// The longest run of operator characters, in comments as well.
    pub(super) operator_run: u32,
}

/// Splits a text into tokens.
pub(super) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer::new(text);
    let mut tokens = Vec::with_capacity(text.len() / 5 + 4);
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    Lexed { tokens, comment_depth: lexer.comment_depth, operator_run: lexer.operator_run }
}

/// A scan in progress; it keeps no tokens, so that a bulk insert of 32 MiB costs no memory.
pub(super) struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    comment_depth: u32,
    operator_run: u32,
    unterminated: bool,
}

const OPERATOR: &[u8] = b"~!@#^&|`?+-*/%<>=";

/// A class for each byte, so that the inner loops are one look-up.
#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a panic is a compile error")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 {
            table[byte] |= NAME_START | NAME;
        }
        if b.is_ascii_digit() {
            table[byte] |= NAME | DIGIT;
        }
        if b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' {
            table[byte] |= PLAIN;
        }
        if b == b'$' {
            table[byte] |= NAME;
        }
        if matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            table[byte] |= SPACE | BLANK;
        }
        if b == b'-' || b == b'/' {
            table[byte] |= BLANK;
        }
        let mut place = 0;
        while place < OPERATOR.len() {
            if OPERATOR[place] == b {
                table[byte] |= OP;
            }
            place += 1;
        }
        byte += 1;
    }
    table
}

const NAME_START: u8 = 1;
const NAME: u8 = 2;
const DIGIT: u8 = 4;
const SPACE: u8 = 8;
const OP: u8 = 16;
const PLAIN: u8 = 32;
/// What white space or a comment begins with, and perhaps something else.
const BLANK: u8 = 64;
static CLASSES: [u8; 256] = classes();

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether a name in quotes means the same without them, but for keywords.
pub(super) fn needs_no_quotes(name: &[u8]) -> bool {
    // To the end in any case: names are short, and so it is not a branch for each byte.
    let all = |classes: u8, byte: &u8| classes & CLASSES.get(usize::from(*byte)).copied().unwrap_or(0);
    name.iter().fold(PLAIN, all) & PLAIN != 0 && name.first().is_some_and(|first| !first.is_ascii_digit())
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { bytes: text.as_bytes(), at: 0, comment_depth: 0, operator_run: 0, unterminated: false }
    }

    /// Whether it ended inside a string, a quoted name or a comment.
    pub(super) fn unterminated(&self) -> bool {
        self.unterminated
    }

    /// How deep comments nested so far.
    pub(super) fn comment_depth(&self) -> u32 {
        self.comment_depth
    }

    /// The longest run of operator characters so far.
    pub(super) fn operator_run(&self) -> u32 {
        self.operator_run
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip(&mut self, class: u8) {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        self.at += rest.iter().position(|byte| !is(*byte, class)).unwrap_or(rest.len());
    }

    fn skip_line(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        self.at += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
    }

    /// The next token.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let kind = match first {
            b'\'' => self.string(TokenKind::String),
            b'"' => self.quoted_name(TokenKind::QuotedName),
            b'$' => self.dollar(),
            b'(' | b')' | b'[' | b']' | b',' | b';' => self.one(TokenKind::Punctuation),
            b'.' if is(self.byte(1), DIGIT) => self.number(),
            b'.' | b':' => self.dots(),
            _ if is(first, NAME_START) => self.word(first),
            _ if is(first, DIGIT) => self.number(),
            _ if is(first, OP) => self.operator(),
            _ => self.one(TokenKind::Stray),
        };
        Some(Token { kind, start: start as u32, end: self.at as u32 })
    }

    fn one(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        kind
    }

    fn dots(&mut self) -> TokenKind {
        let two = matches!((self.byte(0), self.byte(1)), (b'.', b'.') | (b':', b':' | b'='));
        self.at += if two { 2 } else { 1 };
        if two { TokenKind::Operator } else { TokenKind::Punctuation }
    }

    fn skip_blank(&mut self) {
        while is(self.byte(0), BLANK) {
            self.skip(SPACE);
            match (self.byte(0), self.byte(1)) {
                (b'-', b'-') => self.skip_line(),
                (b'/', b'*') => self.comment(),
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        let mut depth = 0_u32;
        let mut measured = self.at;
        while self.at < self.bytes.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'*') => {
                    // Postgres's scanner takes in all operator characters behind a `/*`, and then puts
                    // back all but two: `/**//**//**/..` costs its length again for each comment.
                    if self.at >= measured {
                        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
                        let run = rest.iter().position(|byte| !is(*byte, OP)).unwrap_or(rest.len());
                        self.operator_run = self.operator_run.max(run as u32);
                        measured = self.at + run;
                        if self.operator_run > LONGEST_OPERATOR_RUN {
                            self.at = self.bytes.len();
                            return;
                        }
                    }
                    depth += 1;
                    self.comment_depth = self.comment_depth.max(depth);
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unterminated = true;
    }

    fn word(&mut self, first: u8) -> TokenKind {
        match (first, self.byte(1), self.byte(2)) {
            (b'e' | b'E', b'\'', _) => return self.prefixed(1, TokenKind::EscapeString),
            (b'b' | b'B' | b'x' | b'X', b'\'', _) => return self.prefixed(1, TokenKind::BitString),
            (b'u' | b'U', b'&', b'\'') => return self.prefixed(2, TokenKind::UnicodeString),
            (b'u' | b'U', b'&', b'"') => {
                self.at += 2;
                return self.quoted_name(TokenKind::UnicodeName);
            }
            // N'..' is the keyword NCHAR and then a string: the string comes next.
            (b'n' | b'N', b'\'', _) => return self.one(TokenKind::Word),
            _ => {}
        }
        self.skip(NAME);
        TokenKind::Word
    }

    fn prefixed(&mut self, length: usize, kind: TokenKind) -> TokenKind {
        self.at += length;
        self.string(kind)
    }

    /// At the opening quote. A string goes on when another quote follows behind white space that
    /// holds a line break, and keeps its kind: `E'a'⏎'\''` is one escape string.
    fn string(&mut self, kind: TokenKind) -> TokenKind {
        loop {
            self.at += 1;
            self.string_body(kind);
            let end = self.at;
            if self.unterminated || !self.continues() {
                self.at = end;
                return kind;
            }
        }
    }

    fn string_body(&mut self, kind: TokenKind) {
        let escapes = kind == TokenKind::EscapeString;
        // A bit string has no way to spell a quote: `b'1''0'` is two of them.
        let doubles = kind != TokenKind::BitString;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or(&[]);
            let stop = rest.iter().position(|byte| *byte == b'\'' || (escapes && *byte == b'\\'));
            let Some(stop) = stop else {
                self.at = self.bytes.len();
                self.unterminated = true;
                return;
            };
            self.at += stop;
            match (self.byte(0), self.byte(1)) {
                (b'\'', b'\'') if !doubles => {
                    self.at += 1;
                    return;
                }
                (b'\\', _) | (b'\'', b'\'') => self.at = (self.at + 2).min(self.bytes.len()),
                _ => {
                    self.at += 1;
                    return;
                }
            }
        }
    }

    /// White space with a line break in it (and `--` comments, but no others) up to a quote.
    fn continues(&mut self) -> bool {
        let mut line_break = false;
        loop {
            match (self.byte(0), self.byte(1)) {
                (b'\n' | b'\r', _) => {
                    line_break = true;
                    self.at += 1;
                }
                (b'-', b'-') => self.skip_line(),
                (b'\'', _) => return line_break,
                (byte, _) if is(byte, SPACE) => self.at += 1,
                _ => return false,
            }
        }
    }

    fn quoted_name(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or(&[]);
            let Some(quote) = memchr(b'"', rest) else {
                self.at = self.bytes.len();
                self.unterminated = true;
                return kind;
            };
            self.at += quote + 1;
            if self.byte(0) != b'"' {
                return kind;
            }
            self.at += 1;
        }
    }

    fn dollar(&mut self) -> TokenKind {
        if is(self.byte(1), DIGIT) {
            self.at += 1;
            self.skip(DIGIT);
            return TokenKind::Parameter;
        }
        let rest = self.bytes.get(self.at + 1..).unwrap_or(&[]);
        let tag = rest.iter().position(|byte| *byte == b'$' || !is(*byte, NAME));
        let tag = tag.filter(|end| rest.get(*end) == Some(&b'$'));
        // A tag starts like a name, so `$1a$` is none (that was a parameter, above).
        let Some(tag) = tag else { return self.one(TokenKind::Stray) };
        let delimiter = self.bytes.get(self.at..self.at + tag + 2).unwrap_or(&[]);
        self.at += delimiter.len();
        let mut from = self.at;
        loop {
            let rest = self.bytes.get(from..).unwrap_or(&[]);
            let Some(found) = rest.iter().position(|byte| *byte == b'$') else {
                self.at = self.bytes.len();
                self.unterminated = true;
                return TokenKind::DollarString;
            };
            if rest.get(found..).is_some_and(|rest| rest.starts_with(delimiter)) {
                self.at = from + found + delimiter.len();
                return TokenKind::DollarString;
            }
            from += found + 1;
        }
    }

    fn number(&mut self) -> TokenKind {
        let radix = self.byte(0) == b'0' && matches!(self.byte(1), b'x' | b'X' | b'o' | b'O' | b'b' | b'B');
        if radix {
            self.at += 2;
            self.skip(NAME);
            return TokenKind::Number;
        }
        let digits = |lexer: &mut Self| {
            while is(lexer.byte(0), DIGIT) || (lexer.byte(0) == b'_' && is(lexer.byte(1), DIGIT)) {
                lexer.at += 1;
            }
        };
        digits(self);
        // `1..10` is 1, `..`, 10 (PL/pgSQL loops; never valid SQL).
        if self.byte(0) == b'.' && self.byte(1) != b'.' {
            self.at += 1;
            digits(self);
        }
        let sign = usize::from(matches!(self.byte(1), b'+' | b'-'));
        if matches!(self.byte(0), b'e' | b'E') && is(self.byte(1 + sign), DIGIT) {
            self.at += 2 + sign;
            digits(self);
        }
        TokenKind::Number
    }

    fn operator(&mut self) -> TokenKind {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let run = rest.iter().position(|byte| !is(*byte, OP)).unwrap_or(rest.len());
        self.operator_run = self.operator_run.max(run as u32);
        let text = rest.get(..run).unwrap_or(&[]);
        // A comment may start inside the run.
        let comment = text.windows(2).position(|pair| pair == b"/*" || pair == b"--");
        let mut length = comment.unwrap_or(run).max(1);
        // So that `1=-1` works: a trailing + or - belongs to the operator only when it has one of
        // the characters that SQL itself does not use.
        let run = text.get(..length).unwrap_or(&[]);
        let special = run.iter().any(|byte| b"~!@#^&|`?%".contains(byte));
        while !special && length > 1 && matches!(text.get(length - 1), Some(b'+' | b'-')) {
            length -= 1;
        }
        self.at += length;
        // The guard on long runs makes the rescans of what was cut off here bounded.
        if self.operator_run > LONGEST_OPERATOR_RUN {
            self.at = self.bytes.len();
        }
        TokenKind::Operator
    }
}

/// Operators have at most 63 characters, and a banner in a comment is as wide as a page. Longer runs
/// are somebody looking for trouble: 1 MiB of `/**/` keeps Postgres's scanner busy for minutes.
pub(super) const LONGEST_OPERATOR_RUN: u32 = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<&str> {
        lex(text).tokens.into_iter().map(|token| token.of(text)).collect()
    }

    /// The same by Postgres's own scanner; `None` where it finds an error.
    fn postgres(text: &str) -> Option<Vec<(u32, u32)>> {
        let scanned = pg_query::scan(text).ok()?;
        let comments = [pg_query::protobuf::Token::SqlComment, pg_query::protobuf::Token::CComment];
        Some(
            scanned
                .tokens
                .iter()
                .filter(|token| !comments.contains(&token.token()))
                .map(|token| (token.start as u32, token.end as u32))
                .collect(),
        )
    }

    fn agrees(text: &str) {
        if let Some(expected) = postgres(text) {
            let lexed = lex(text);
            let found: Vec<_> = lexed.tokens.iter().map(|token| (token.start, token.end)).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn strings_continue_over_line_breaks_and_keep_their_kind() {
        assert_eq!(shown("select E'a'\n'\\''; x"), ["select", "E'a'\n'\\''", ";", "x"]);
        assert_eq!(shown("'a' --c\n 'b' 'c'"), ["'a' --c\n 'b'", "'c'"]);
        assert_eq!(shown("'a' /*\n*/ 'b'"), ["'a'", "'b'"]);
    }

    #[test]
    fn operators_end_where_postgres_ends_them() {
        assert_eq!(
            shown("1=-1 @- 2 a*/*x*/b <>--\n3"),
            ["1", "=", "-", "1", "@-", "2", "a", "*", "b", "<>", "3"]
        );
    }

    #[test]
    fn dollars_quote_or_number() {
        assert_eq!(shown("$1 $$a$b$$ $t$ $$ $t$ a$b"), ["$1", "$$a$b$$", "$t$ $$ $t$", "a$b"]);
    }

    #[test]
    fn what_is_slow_in_postgres_scanner_is_measured() {
        assert_eq!(lex(&format!("{}{}", "/*".repeat(99), "*/".repeat(99))).comment_depth, 99);
        assert_eq!(lex("'/*/*/*'").comment_depth, 0);
        assert_eq!(lex(&"/**/".repeat(1_000)).operator_run, 4_000);
        assert_eq!(lex(&format!("select 1 /*{}*/", "=".repeat(100))).operator_run, 104);
        assert_eq!(lex(&"+".repeat(900_000)).operator_run, 900_000);
        for text in ["/* a", "'a", "$$a", "\"a"] {
            let mut lexer = Lexer::new(text);
            while lexer.next().is_some() {}
            assert!(lexer.unterminated(), "{text}");
        }
    }

    #[test]
    fn every_corpus_statement_has_postgres_own_tokens() {
        for line in include_str!("../../fixtures/statements/corpus.jsonl").lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            agrees(line["sql"].as_str().unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_text_has_postgres_own_tokens(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "'", "''", "\"", "E'", "e'", "U&'", "U&\"", "b'", "x'", "n'", "\\", "$", "$$", "$a$", "$1",
                    "--", "/*", "*/", "\n", " ", "\t", "a", "select", "é", "1", "0x1f", "1.5", "1e3", ".", "..",
                    "::", ":=", "=>", "<=", "+", "-", "*", "/", "%", "@", "#", "?", "|", "=", "<", ">", "!", "~",
                    "(", ")", "[", "]", ",", ";", ":", "_", "e", "u", "&",
                ]),
                0..24,
            )
        ) {
            agrees(&pieces.concat());
        }
    }
}
