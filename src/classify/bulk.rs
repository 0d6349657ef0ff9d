//! Recognises `INSERT INTO t (..) VALUES (literals), ..` by its tokens alone.
//!
//! A parse tree takes a hundred times the text, so texts over the parser's limit are held unread; but
//! loading rows by large INSERTs is ordinary, and its text is mostly literals, which do nothing. This
//! reads them in one pass without memory. It accepts only what cannot be anything else; for the rest
//! the answer is `None`, and the text is parsed or held.

use std::sync::Arc;

use super::lex::{Lexer, Token, TokenKind};
use super::settings::truncated;

/// The table that a bulk insert writes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BulkInsert {
    pub(super) schema: Option<Arc<str>>,
    pub(super) name: Arc<str>,
    /// Where the statement's own text ends.
    pub(super) end: u32,
}

struct Reader<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    next: Option<Token>,
    end: u32,
}

/// Reads the whole text.
pub(super) fn recognise(text: &str) -> Option<BulkInsert> {
    let mut lexer = Lexer::new(text);
    let next = lexer.next();
    let mut reader = Reader { text, lexer, next, end: 0 };
    let insert = reader.insert()?;
    // A string that never ends swallows everything, and a long operator stops the scan.
    (!reader.lexer.unterminated() && reader.lexer.operator_run() < 64).then_some(insert)
}

impl<'t> Reader<'t> {
    fn take(&mut self) -> Option<Token> {
        let token = self.next?;
        self.end = token.end;
        self.next = self.lexer.next();
        Some(token)
    }

    fn shown(&self) -> &'t str {
        self.next.map_or("", |token| token.of(self.text))
    }

    fn is_word(&self, word: &str) -> bool {
        self.next.is_some_and(|token| token.kind == TokenKind::Word)
            && self.shown().eq_ignore_ascii_case(word)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        if self.is_word(word) { self.take().map(drop) } else { None }
    }

    fn mark(&mut self, mark: &str) -> bool {
        let found =
            self.next.is_some_and(|token| token.kind == TokenKind::Punctuation) && self.shown() == mark;
        if found {
            self.take();
        }
        found
    }

    /// A name as Postgres keeps it. `U&".."` is left to the parser.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a list of what is accepted")]
    fn name(&mut self) -> Option<Arc<str>> {
        let token = self.take()?;
        let shown = token.of(self.text);
        match token.kind {
            TokenKind::Word if shown.is_ascii() => Some(truncated(&shown.to_ascii_lowercase()).into()),
            TokenKind::QuotedName => {
                let inner = shown.get(1..shown.len() - 1)?.replace("\"\"", "\"");
                (!inner.is_empty()).then(|| truncated(&inner).into())
            }
            _ => None,
        }
    }

    fn insert(&mut self) -> Option<BulkInsert> {
        self.word("insert")?;
        self.word("into")?;
        let mut name = self.name()?;
        let mut schema = None;
        if self.mark(".") {
            schema = Some(std::mem::replace(&mut name, self.name()?));
        }
        if self.mark("(") {
            loop {
                self.name()?;
                if self.mark(")") {
                    break;
                }
                self.mark(",").then_some(())?;
            }
        }
        self.word("values")?;
        loop {
            self.row()?;
            if !self.mark(",") {
                break;
            }
        }
        if self.is_word("on") {
            self.take();
            self.word("conflict")?;
            self.word("do")?;
            self.word("nothing")?;
        }
        let end = self.end;
        while self.mark(";") {}
        self.next.is_none().then_some(BulkInsert { schema, name, end })
    }

    fn row(&mut self) -> Option<()> {
        self.mark("(").then_some(())?;
        loop {
            self.literal()?;
            if self.mark(")") {
                return Some(());
            }
            self.mark(",").then_some(())?;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a list of what is accepted")]
    fn literal(&mut self) -> Option<()> {
        if matches!(self.shown(), "-" | "+") {
            self.take();
            return (self.take()?.kind == TokenKind::Number).then_some(());
        }
        let token = self.take()?;
        match token.kind {
            TokenKind::Number | TokenKind::DollarString | TokenKind::BitString => Some(()),
            TokenKind::String | TokenKind::EscapeString => Some(()),
            TokenKind::Word => {
                let shown = token.of(self.text);
                let known = ["null", "true", "false", "default"];
                known.iter().any(|word| shown.eq_ignore_ascii_case(word)).then_some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rows_of_literals_are_recognised() {
        let insert =
            recognise("INSERT INTO App.\"T\" (a, \"b\") VALUES (1, 'x''y'), (-2.5, NULL) ; ").unwrap();
        assert_eq!((insert.schema.as_deref(), &*insert.name), (Some("app"), "T"));
        assert!(recognise("insert into t values (E'\\'', $$;$$, default) on conflict do nothing").is_some());
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "insert into t values (f())",
            "insert into t values (1); drop table t",
            "insert into t values (1) returning f()",
            "insert into t values ('a'), ('b'",
            "insert into t values ('a)",
            "insert into t select 1",
            "insert into t values (1 + 1)",
            "insert into t values (x)",
            "insert into t values ('a'::evil)",
            "insert into t (a[f()]) values (1)",
            "insert into U&\"t\" values (1)",
            "insert into t values ()",
            "insert into t values (1) /* ",
            "with x as (delete from t) insert into t values (1)",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }
}
