//! What a session's frontend sends: steps, their bytes, and a text that says the same to people.
//!
//! A script is written one step a line. Strings are in double quotes with `\n`, `\t`, `\\`, `\"` and
//! `\xNN`; `"x"*70000` repeats, `+` joins:
//!
//! ```text
//! Chunks 1 7                      how the bytes are cut, in turn; nothing: each burst in one write
//! Pause 2                         milliseconds between two chunks
//! Parse "s1" "select $1" 23       name, text, types
//! Bind "" "s1" [0] ["7" NULL] [1] portal, statement, formats, values, result formats
//! Describe S "s1"
//! Execute "" 0
//! Sync
//! Wait                            until what was asked has been answered
//! ```

use std::fmt;

/// One thing that the frontend does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Query(Vec<u8>),
    Parse {
        name: Vec<u8>,
        sql: Vec<u8>,
        types: Vec<u32>,
    },
    Bind {
        portal: Vec<u8>,
        statement: Vec<u8>,
        formats: Vec<i16>,
        values: Vec<Option<Vec<u8>>>,
        results: Vec<i16>,
    },
    Describe(u8, Vec<u8>),
    Execute(Vec<u8>, i32),
    Close(u8, Vec<u8>),
    Sync,
    Flush,
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail(Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
    Terminate,
    /// No more bytes, and the answers are read to the end.
    HalfClose,
    /// Until what was asked has been answered.
    Wait,
    /// Ends whatever copy, skipping or pipeline there is, and waits until all of it has been answered.
    Settle,
    /// Silence, in milliseconds.
    Sleep(u64),
}

/// A whole session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub chunks: Vec<usize>,
    pub pause: u64,
    pub steps: Vec<Step>,
}

fn frame(tag: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap();
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

fn codes(out: &mut Vec<u8>, codes: &[i16]) {
    out.extend_from_slice(&u16::try_from(codes.len()).unwrap().to_be_bytes());
    for code in codes {
        out.extend_from_slice(&code.to_be_bytes());
    }
}

impl Step {
    /// Appends the message's bytes; steps that are no messages have none.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Query(sql) => frame(b'Q', out, |out| text(out, sql)),
            Self::Parse { name, sql, types } => frame(b'P', out, |out| {
                text(out, name);
                text(out, sql);
                out.extend_from_slice(&u16::try_from(types.len()).unwrap().to_be_bytes());
                for oid in types {
                    out.extend_from_slice(&oid.to_be_bytes());
                }
            }),
            Self::Bind { portal, statement, formats, values, results } => frame(b'B', out, |out| {
                text(out, portal);
                text(out, statement);
                codes(out, formats);
                out.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
                for value in values {
                    match value {
                        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
                        Some(value) => {
                            out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                            out.extend_from_slice(value);
                        }
                    }
                }
                codes(out, results);
            }),
            Self::Describe(kind, name) => frame(b'D', out, |out| {
                out.push(*kind);
                text(out, name);
            }),
            Self::Execute(portal, rows) => frame(b'E', out, |out| {
                text(out, portal);
                out.extend_from_slice(&rows.to_be_bytes());
            }),
            Self::Close(kind, name) => frame(b'C', out, |out| {
                out.push(*kind);
                text(out, name);
            }),
            Self::Sync => frame(b'S', out, |_| {}),
            Self::Flush => frame(b'H', out, |_| {}),
            Self::CopyData(data) => frame(b'd', out, |out| out.extend_from_slice(data)),
            Self::CopyDone => frame(b'c', out, |_| {}),
            Self::CopyFail(why) => frame(b'f', out, |out| text(out, why)),
            Self::Raw(bytes) => out.extend_from_slice(bytes),
            Self::Terminate => frame(b'X', out, |_| {}),
            Self::HalfClose | Self::Wait | Self::Settle | Self::Sleep(_) => {}
        }
    }
}

/// Bytes as a string that [`Script::read`] understands; long runs of one byte are counted.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Shorter runs are written out.
        const RUN: usize = 40;
        let mut rest = self.0;
        let mut open = false;
        f.write_str("\"")?;
        while let [first, ..] = rest {
            let run = rest.iter().take_while(|&byte| byte == first).count();
            if run >= RUN {
                f.write_str(if open { "\"+\"" } else { "" })?;
                escape(*first, f)?;
                write!(f, "\"*{run}")?;
                rest = &rest[run..];
                if rest.is_empty() {
                    return Ok(());
                }
                f.write_str("+\"")?;
                open = false;
            } else {
                let character = std::str::from_utf8(rest.get(..4.min(rest.len())).unwrap_or_default());
                let valid = match character {
                    Ok(text) => text,
                    Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
                };
                match valid.chars().next() {
                    Some(c) if !c.is_ascii() => {
                        write!(f, "{c}")?;
                        rest = &rest[c.len_utf8()..];
                    }
                    _ => {
                        escape(*first, f)?;
                        rest = &rest[1..];
                    }
                }
                open = true;
            }
        }
        f.write_str("\"")
    }
}

fn escape(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match byte {
        b'\n' => f.write_str("\\n"),
        b'\t' => f.write_str("\\t"),
        b'\\' => f.write_str("\\\\"),
        b'"' => f.write_str("\\\""),
        b' '..=b'~' => write!(f, "{}", byte as char),
        _ => write!(f, "\\x{byte:02x}"),
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", items.join(" "))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(sql) => write!(f, "Query {}", Quoted(sql)),
            Self::Parse { name, sql, types } => {
                write!(f, "Parse {} {}", Quoted(name), Quoted(sql))?;
                types.iter().try_for_each(|oid| write!(f, " {oid}"))
            }
            Self::Bind { portal, statement, formats, values, results } => {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| value.as_ref().map_or("NULL".to_owned(), |value| Quoted(value).to_string()))
                    .collect();
                write!(
                    f,
                    "Bind {} {} {} {} {}",
                    Quoted(portal),
                    Quoted(statement),
                    List(formats),
                    List(&values),
                    List(results)
                )
            }
            Self::Describe(kind, name) => write!(f, "Describe {} {}", *kind as char, Quoted(name)),
            Self::Execute(portal, rows) => write!(f, "Execute {} {rows}", Quoted(portal)),
            Self::Close(kind, name) => write!(f, "Close {} {}", *kind as char, Quoted(name)),
            Self::Sync => f.write_str("Sync"),
            Self::Flush => f.write_str("Flush"),
            Self::CopyData(data) => write!(f, "CopyData {}", Quoted(data)),
            Self::CopyDone => f.write_str("CopyDone"),
            Self::CopyFail(why) => write!(f, "CopyFail {}", Quoted(why)),
            Self::Raw(bytes) => write!(f, "Raw {}", Quoted(bytes)),
            Self::Terminate => f.write_str("Terminate"),
            Self::HalfClose => f.write_str("HalfClose"),
            Self::Wait => f.write_str("Wait"),
            Self::Settle => f.write_str("Settle"),
            Self::Sleep(milliseconds) => write!(f, "Sleep {milliseconds}"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.chunks.is_empty() {
            write!(f, "Chunks")?;
            self.chunks.iter().try_for_each(|size| write!(f, " {size}"))?;
            writeln!(f)?;
        }
        if self.pause > 0 {
            writeln!(f, "Pause {}", self.pause)?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(Vec<u8>),
    Open,
    Close,
}

fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '#' {
            break;
        } else if first == '[' || first == ']' {
            tokens.push(if first == '[' { Token::Open } else { Token::Close });
            rest = &rest[1..];
        } else if first == '"' {
            let (text, after) = quoted(rest);
            tokens.push(Token::Text(text));
            rest = after;
        } else {
            let end = rest.find([' ', '[', ']']).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    tokens
}

/// A string with its repetitions and joins, and what is behind it.
fn quoted(mut rest: &str) -> (Vec<u8>, &str) {
    let mut whole = Vec::new();
    loop {
        let mut piece = Vec::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            let (at, c) = characters.next().expect("a string ends");
            match c {
                '"' => break at + 2,
                '\\' => match characters.next().expect("an escape ends").1 {
                    'n' => piece.push(b'\n'),
                    't' => piece.push(b'\t'),
                    'x' => {
                        let digits: String = (0..2).map(|_| characters.next().unwrap().1).collect();
                        piece.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
                    }
                    other => piece.extend_from_slice(other.to_string().as_bytes()),
                },
                other => piece.extend_from_slice(other.to_string().as_bytes()),
            }
        };
        rest = &rest[end..];
        if let Some(after) = rest.strip_prefix('*') {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            piece = piece.repeat(after[..digits].parse().expect("a count"));
            rest = &after[digits..];
        }
        whole.extend_from_slice(&piece);
        match rest.strip_prefix('+') {
            Some(after) => rest = after,
            None => return (whole, rest),
        }
    }
}

struct Line(std::vec::IntoIter<Token>);

impl Line {
    fn text(&mut self) -> Vec<u8> {
        match self.0.next() {
            Some(Token::Text(text)) => text,
            other => panic!("expected a string, not {other:?}"),
        }
    }

    fn word(&mut self) -> String {
        match self.0.next() {
            Some(Token::Word(word)) => word,
            other => panic!("expected a word, not {other:?}"),
        }
    }

    fn kind(&mut self) -> u8 {
        self.word().as_bytes()[0]
    }

    fn list(&mut self) -> Vec<Token> {
        assert_eq!(self.0.next(), Some(Token::Open), "expected a list");
        self.0.by_ref().take_while(|token| *token != Token::Close).collect()
    }

    fn codes(&mut self) -> Vec<i16> {
        let code = |token| match token {
            Token::Word(word) => word.parse().expect("a code"),
            other => panic!("expected a code, not {other:?}"),
        };
        self.list().into_iter().map(code).collect()
    }

    fn values(&mut self) -> Vec<Option<Vec<u8>>> {
        let value = |token| match token {
            Token::Word(word) if word == "NULL" => None,
            Token::Text(text) => Some(text),
            other => panic!("expected a value, not {other:?}"),
        };
        self.list().into_iter().map(value).collect()
    }

    fn numbers<N: std::str::FromStr>(self) -> Vec<N> {
        let number = |token| match token {
            Token::Word(word) => word.parse().ok().expect("a number"),
            other => panic!("expected a number, not {other:?}"),
        };
        self.0.map(number).collect()
    }
}

impl Script {
    /// Reads what [`fmt::Display`] writes.
    pub fn read(text: &str) -> Self {
        let mut script = Self::default();
        for line in text.lines() {
            let mut line = Line(tokens(line).into_iter());
            let Some(Token::Word(word)) = line.0.next() else { continue };
            let step = match word.as_str() {
                "Chunks" => {
                    script.chunks = line.numbers();
                    continue;
                }
                "Pause" => {
                    script.pause = line.word().parse().unwrap();
                    continue;
                }
                "Query" => Step::Query(line.text()),
                "Parse" => Step::Parse { name: line.text(), sql: line.text(), types: line.numbers() },
                "Bind" => Step::Bind {
                    portal: line.text(),
                    statement: line.text(),
                    formats: line.codes(),
                    values: line.values(),
                    results: line.codes(),
                },
                "Describe" => Step::Describe(line.kind(), line.text()),
                "Execute" => Step::Execute(line.text(), line.word().parse().unwrap()),
                "Close" => Step::Close(line.kind(), line.text()),
                "Sync" => Step::Sync,
                "Flush" => Step::Flush,
                "CopyData" => Step::CopyData(line.text()),
                "CopyDone" => Step::CopyDone,
                "CopyFail" => Step::CopyFail(line.text()),
                "Raw" => Step::Raw(line.text()),
                "Terminate" => Step::Terminate,
                "HalfClose" => Step::HalfClose,
                "Wait" => Step::Wait,
                "Settle" => Step::Settle,
                "Sleep" => Step::Sleep(line.word().parse().unwrap()),
                other => panic!("no such step: {other}"),
            };
            script.steps.push(step);
        }
        script
    }
}
