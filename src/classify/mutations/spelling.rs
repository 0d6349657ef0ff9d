//! The same statement written another way: other white space and comments, other case, other quotes and
//! escapes, more brackets. The tokens come from Postgres's own scanner by way of libpg_query, not from
//! [`lex`](super::super::lex); whether two texts are the same statement is the parser's word.

use pg_query::protobuf::{KeywordKind, Token as Scanned};

use super::{Random, tree_of};

/// What may be put between two tokens.
const GAPS: &[&str] = &[
    " ",
    " ",
    " ",
    "\n",
    "\t",
    "\r",
    "\r\n",
    "\x0c",
    "\x0b",
    "  \n",
    "/**/",
    "/***/",
    "/* ; */",
    "/*'*/",
    "/*\"*/",
    "/*$$*/",
    "/*$a$*/",
    "/*--*/",
    "/* /* */ */",
    "/*/**/*/",
    "/*/*'*/*/ ",
    "/*\n--\n*/",
    "/*\\*/",
    "/*+ x */",
    "/*!50000 */",
    "/*é*/",
    "/* U&'\\' */",
    "-- x\n",
    "--\n",
    "--'\n",
    "--\"\n",
    "--;\r",
    "--/*\n",
    "--*/\n",
    "--\\\n",
    "--$$\n",
    "--E'\r\n",
    "--日本\n",
    "--\x0b\n",
];

/// What may be put between the pieces of a string: white space with a line break, and `--` comments.
const BREAKS: &[&str] = &["\n", " \n\t", "\r", "\r\n", "--c\n", " --'\n ", "\x0c\n", "\n--;\n", "\n \n"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// An unquoted name.
    Name,
    /// A keyword, of which it is not known whether it is used as a name.
    Keyword,
    /// A quoted name, by its value.
    Quoted(String),
    /// A string constant, by its value.
    Text(String),
    /// A whole number.
    Number(i32),
    /// `$1`
    Parameter(u32),
    /// Written as it is.
    Other,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    kind: Kind,
    /// Nothing may come between it and the next.
    sticks: bool,
}

fn tokens_of(sql: &str) -> Vec<Token> {
    let scanned = pg_query::scan(sql).unwrap_or_else(|error| panic!("{sql:?}: {error}"));
    let mut tokens: Vec<Token> = Vec::new();
    let mut after_uescape = false;
    for token in scanned.tokens {
        let text = sql[token.start as usize..token.end as usize].to_owned();
        let kind = match token.token() {
            Scanned::SqlComment | Scanned::CComment => continue,
            Scanned::Ident => quoted(&text, '"').map_or(Kind::Name, Kind::Quoted),
            Scanned::Sconst if after_uescape || tokens.last().is_some_and(|last| last.sticks) => Kind::Other,
            Scanned::Sconst => string(&text).map_or(Kind::Other, Kind::Text),
            Scanned::Iconst => text.parse().map_or(Kind::Other, Kind::Number),
            Scanned::Param => text[1..].parse().map_or(Kind::Other, Kind::Parameter),
            _ if token.keyword_kind() != KeywordKind::NoKeyword => Kind::Keyword,
            _ => Kind::Other,
        };
        after_uescape = token.token() == Scanned::Uescape;
        let sticks = token.token() == Scanned::Nchar && text.len() == 1;
        tokens.push(Token { text, kind, sticks });
    }
    tokens
}

/// The value between quotes, where it is one piece.
fn quoted(text: &str, quote: char) -> Option<String> {
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let halves = inner.replace(&format!("{quote}{quote}"), "\0");
    (!halves.contains(quote)).then(|| halves.replace('\0', &quote.to_string()))
}

/// The value of `'..'` in one piece and of `$$..$$`.
fn string(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('$') {
        let tag = &text[..=rest.find('$')? + 1];
        return Some(text.strip_prefix(tag)?.strip_suffix(tag)?.to_owned());
    }
    quoted(text, '\'')
}

/// A change that is known to leave the tree as it is, because it was tried.
#[derive(Clone, Debug)]
enum Twist {
    /// Brackets from this token to that one.
    Brackets(usize, usize),
    /// This keyword is a name, and may be quoted.
    QuotedKeyword(usize),
    /// `x::t` as `CAST(x AS t)`: the first and last token of `x`, and the last of `t`.
    Cast(usize, usize, usize),
    /// `CAST(x AS t)` as `(x)::t`: the word, the `AS` and the closing bracket.
    Colons(usize, usize, usize),
}

impl Twist {
    fn extent(&self) -> (usize, usize) {
        match *self {
            Self::Brackets(from, to) | Self::Cast(from, _, to) | Self::Colons(from, _, to) => (from, to),
            Self::QuotedKeyword(place) => (place, place),
        }
    }
}

/// A statement, ready to be written in many ways.
pub(super) struct Spellings {
    tokens: Vec<Token>,
    twists: Vec<Twist>,
    /// Whether the server reads `0x1f` and `1_000`.
    newer_numbers: bool,
}

impl Spellings {
    pub(super) fn of(sql: &str, version: u32) -> Self {
        Self { tokens: tokens_of(sql), twists: Vec::new(), newer_numbers: version >= 16 }
    }

    /// Finds changes of its brackets, casts and quotes that keep its tree: `trials` of those that come
    /// into question are tried.
    pub(super) fn with_twists(mut self, sql: &str, random: &mut Random, trials: usize) -> Self {
        let tree = tree_of(sql).unwrap_or_else(|| panic!("{sql:?} is no SQL"));
        let mut candidates = self.candidates(random);
        while self.twists.len() < trials && !candidates.is_empty() {
            let candidate = candidates.swap_remove(random.below(candidates.len()));
            let mut plain = Random::new(0);
            let tried = self.spell(&mut plain, std::slice::from_ref(&candidate), false);
            if tree_of(&tried).as_ref() == Some(&tree) {
                self.twists.push(candidate);
            }
        }
        self
    }

    fn candidates(&self, random: &mut Random) -> Vec<Twist> {
        let mut found = Vec::new();
        let mut open = Vec::new();
        let is = |place: usize, word: &str| {
            self.tokens.get(place).is_some_and(|token: &Token| token.text.eq_ignore_ascii_case(word))
        };
        for (place, token) in self.tokens.iter().enumerate() {
            match token.kind {
                Kind::Other => {}
                Kind::Keyword => found.extend([Twist::QuotedKeyword(place), Twist::Brackets(place, place)]),
                _ => found.push(Twist::Brackets(place, place)),
            }
            match token.text.as_str() {
                "(" => open.push(place),
                ")" => {
                    let Some(start) = open.pop() else { continue };
                    found.push(Twist::Brackets(start, place));
                    // With the name in front, it may be a call.
                    found.push(Twist::Brackets(start.saturating_sub(1), place));
                    if is(start.wrapping_sub(1), "cast")
                        && let Some(word) = (start..place).rev().find(|place| is(*place, "as"))
                    {
                        found.push(Twist::Colons(start - 1, word, place));
                    }
                    if is(place + 1, "::") {
                        found.push(Twist::Cast(start, place, place + 2));
                    }
                }
                "::" if place > 0 => {
                    found.push(Twist::Cast(place - 1, place - 1, place + 1));
                    found.push(Twist::Brackets(place - 1, place + 1));
                }
                _ => {}
            }
        }
        // `a = b`, `a.b`, `NOT a` and whatever else turns out to be an expression.
        for _ in 0..self.tokens.len() {
            let start = random.below(self.tokens.len());
            found.push(Twist::Brackets(start, (start + 1 + random.below(7)).min(self.tokens.len() - 1)));
        }
        let last = self.tokens.len() - 1;
        let end = if is(last, ";") { last.saturating_sub(1) } else { last };
        found.push(Twist::Brackets(0, end));
        found
    }

    /// One of its spellings.
    pub(super) fn one(&self, random: &mut Random) -> String {
        let mut twists: Vec<Twist> = Vec::new();
        for twist in &self.twists {
            // Pairs of brackets that cross would be other pairs.
            let crosses = |other: &Twist| {
                let ((a, b), (c, d)) = (twist.extent(), other.extent());
                (a < c && c <= b && b < d) || (c < a && a <= d && d < b)
            };
            if random.chance(25) && !twists.iter().any(crosses) {
                twists.push(twist.clone());
            }
        }
        self.spell(random, &twists, true)
    }

    fn spell(&self, random: &mut Random, twists: &[Twist], freely: bool) -> String {
        let count = self.tokens.len();
        let mut before: Vec<Vec<&str>> = vec![Vec::new(); count];
        let mut after: Vec<Vec<&str>> = vec![Vec::new(); count];
        let mut instead: Vec<Option<String>> = vec![None; count];
        for twist in twists {
            match *twist {
                Twist::Brackets(from, to) => {
                    before[from].insert(0, "(");
                    after[to].push(")");
                }
                Twist::QuotedKeyword(place) => {
                    instead[place] = Some(name(&self.tokens[place].text.to_ascii_lowercase(), random));
                }
                Twist::Cast(from, to, end) if end < count && instead[to + 1].is_none() => {
                    before[from].insert(0, "CAST(");
                    instead[to + 1] = Some("AS".to_owned());
                    after[end].push(")");
                }
                Twist::Colons(word, middle, end) if instead[middle].is_none() => {
                    instead[word] = Some(String::new());
                    // The bracket behind CAST now closes before the type.
                    instead[middle] = Some(")::".to_owned());
                    instead[end] = Some(String::new());
                }
                Twist::Cast(..) | Twist::Colons(..) => {}
            }
        }
        let mut out = Writer { text: String::new(), freely, last: String::new(), sticks: false };
        if freely && random.chance(20) {
            out.text.push_str([";", ";;", " ; ", "/**/;", "\n"][random.below(5)]);
        }
        for (place, token) in self.tokens.iter().enumerate() {
            before[place].iter().for_each(|word| out.put(word, random));
            match &instead[place] {
                Some(text) if text.is_empty() => {}
                Some(text) => out.put(text, random),
                None if freely => {
                    let written = self.respelled(token, random);
                    out.put(&written, random);
                }
                None => out.put(&token.text, random),
            }
            after[place].iter().for_each(|word| out.put(word, random));
            out.sticks = token.sticks;
        }
        if freely {
            out.text.push_str(
                ["", "", " ", ";", ";;", " ; ", "\n", "--", " -- '", "/**/", ";--;"][random.below(11)],
            );
        }
        out.text
    }

    fn respelled(&self, token: &Token, random: &mut Random) -> String {
        match &token.kind {
            Kind::Name if random.chance(30) && token.text.len() < 60 => {
                name(&token.text.to_ascii_lowercase(), random)
            }
            Kind::Name | Kind::Keyword => cased(&token.text, random),
            Kind::Quoted(value) => name(value, random),
            Kind::Text(value) if random.chance(70) => text(value, random),
            Kind::Number(value) if random.chance(40) => number(*value, self.newer_numbers, random),
            Kind::Parameter(value) if random.chance(40) => format!("$0{value}"),
            Kind::Text(_) | Kind::Number(_) | Kind::Parameter(_) | Kind::Other => token.text.clone(),
        }
    }
}

/// Puts tokens one behind the other, with something in between that keeps them apart.
struct Writer {
    text: String,
    freely: bool,
    last: String,
    sticks: bool,
}

impl Writer {
    fn put(&mut self, token: &str, random: &mut Random) {
        if !self.sticks && !self.last.is_empty() {
            self.gap(token, random);
        }
        self.sticks = false;
        self.text.push_str(token);
        self.last.replace_range(.., token);
    }

    fn gap(&mut self, next: &str, random: &mut Random) {
        if !self.freely || random.chance(30) {
            let keep = !self.freely || !may_touch(&self.last, next);
            self.text.push_str(if keep { " " } else { "" });
            return;
        }
        // A line break would make two strings one; `-` and `--` together are a comment.
        let is_string = |text: &str, end: bool| {
            let quote = if end { text.ends_with('\'') } else { text.starts_with('\'') };
            quote || (end && text.ends_with('$'))
        };
        if is_string(&self.last, true) && is_string(next, false) {
            return self.text.push(' ');
        }
        if self.last.ends_with('-') {
            self.text.push(' ');
        }
        for _ in 0..=random.below(3) {
            self.text.push_str(GAPS[random.below(GAPS.len())]);
        }
    }
}

/// Whether two tokens stay two with nothing between them.
fn may_touch(one: &str, next: &str) -> bool {
    let (Some(end), Some(start)) = (one.chars().next_back(), next.chars().next()) else { return true };
    let brackets = |c: char| "(),;[]".contains(c);
    let wordy = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    // `e'..'`, `U&"..` and their like.
    let prefix = one.len() == 1 || one.ends_with('&');
    match (end, start) {
        (a, b) if brackets(a) || brackets(b) => true,
        (a, '\'' | '"') if wordy(a) => !prefix && !one.starts_with(|c: char| c.is_ascii_digit()),
        ('\'' | '"', b) if wordy(b) => true,
        (a, '.') if one != ".." => (wordy(a) || a == '"') && !one.starts_with(|c: char| c.is_ascii_digit()),
        ('.', b) => (wordy(b) && !b.is_ascii_digit()) || b == '"' || b == '*',
        (a, ':') => next == "::" && (wordy(a) || matches!(a, '\'' | '"')) && !one.starts_with('$'),
        (':', b) => one == "::" && (wordy(b) || b == '"'),
        _ => false,
    }
}

fn cased(word: &str, random: &mut Random) -> String {
    match random.below(4) {
        0 => word.to_ascii_lowercase(),
        1 => word.to_ascii_uppercase(),
        _ => word
            .chars()
            .map(|c| if random.chance(50) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
            .collect(),
    }
}

/// A name in double quotes, perhaps with escapes.
fn name(value: &str, random: &mut Random) -> String {
    if random.chance(50) {
        return format!("\"{}\"", value.replace('"', "\"\""));
    }
    unicode(value, '"', random)
}

/// `U&'..'` or `U&".."`, with or without UESCAPE.
fn unicode(value: &str, quote: char, random: &mut Random) -> String {
    const MARKS: &[char] =
        &['\\', '\\', '\\', '!', '#', '@', '|', '~', 'z', 'Z', '_', '^', ',', '.', ';', '(', '$', '-'];
    let mark = MARKS[random.below(MARKS.len())];
    let mut body = String::new();
    for c in value.chars() {
        let code = u32::from(c);
        match random.below(5) {
            0 if code < 0x1_0000 => body.push_str(&hex(&format!("{mark}{code:04x}"), mark, random)),
            0 => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    body.push_str(&hex(&format!("{mark}{unit:04x}"), mark, random));
                }
            }
            1 => body.push_str(&hex(&format!("{mark}+{code:06x}"), mark, random)),
            _ if c == mark || c == quote => body.extend([c, c]),
            _ => body.push(c),
        }
        if quote == '\'' && random.chance(3) {
            body.push_str(&format!("'{}'", BREAKS[random.below(BREAKS.len())]));
        }
    }
    let prefix = if random.chance(50) { "U&" } else { "u&" };
    let mut out = format!("{prefix}{quote}{body}{quote}");
    if mark != '\\' || random.chance(10) {
        let written = match random.below(4) {
            0 if mark != '$' => format!("$${mark}$$"),
            1 => format!("E'\\x{:02x}'", u32::from(mark)),
            _ => format!("'{mark}'"),
        };
        let gap = GAPS[random.below(GAPS.len())];
        out.push_str(&format!("{gap}{}{gap}{written}", cased("uescape", random)));
    }
    out
}

/// Changes the case of hexadecimal digits behind the mark.
fn hex(escape: &str, mark: char, random: &mut Random) -> String {
    let digits = &escape[mark.len_utf8()..];
    let digits = if random.chance(50) { digits.to_ascii_uppercase() } else { digits.to_owned() };
    format!("{mark}{digits}")
}

/// A string constant.
fn text(value: &str, random: &mut Random) -> String {
    match random.below(4) {
        0 => unicode(value, '\'', random),
        1 => dollars(value, random),
        2 => escapes(value, random),
        _ => {
            let mut body = String::new();
            for c in value.chars() {
                body.push(c);
                if c == '\'' {
                    body.push(c);
                }
                if random.chance(5) {
                    body.push_str(&format!("'{}'", BREAKS[random.below(BREAKS.len())]));
                }
            }
            format!("'{body}'")
        }
    }
}

fn dollars(value: &str, random: &mut Random) -> String {
    let tag = ["", "a", "A1", "é", "_", "body", "select"][random.below(7)];
    let quote = format!("${tag}$");
    if value.contains(&quote) || value.ends_with('$') || (tag.is_empty() && value.contains('$')) {
        return format!("'{}'", value.replace('\'', "''"));
    }
    format!("{quote}{value}{quote}")
}

fn escapes(value: &str, random: &mut Random) -> String {
    let mut body = String::new();
    for c in value.chars() {
        let code = u32::from(c);
        match random.below(9) {
            0 => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| body.push_str(&format!("\\x{byte:02X}"))),
            1 => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| body.push_str(&format!("\\{byte:03o}"))),
            2 if code < 0x1_0000 => body.push_str(&format!("\\u{code:04x}")),
            3 => body.push_str(&format!("\\U{code:08X}")),
            // A backslash before what is no escape is nothing.
            4 if c.is_ascii_uppercase() && c != 'U' => body.extend(['\\', c]),
            _ => match c {
                '\\' => body.push_str("\\\\"),
                '\'' => body.push_str(if random.chance(50) { "\\'" } else { "''" }),
                '\n' if random.chance(50) => body.push_str("\\n"),
                '\t' => body.push_str("\\t"),
                _ => body.push(c),
            },
        }
        if random.chance(3) {
            body.push_str(&format!("'{}'", BREAKS[random.below(BREAKS.len())]));
        }
    }
    format!("{}'{body}'", if random.chance(50) { 'E' } else { 'e' })
}

fn number(value: i32, newer: bool, random: &mut Random) -> String {
    match random.below(if newer { 6 } else { 2 }) {
        0 => format!("0{value}"),
        2 => format!("0x{value:x}"),
        3 => format!("0B{value:b}"),
        4 => format!("0o_{value:o}"),
        5 => {
            let digits = value.to_string();
            let mut out = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && random.chance(30) {
                    out.push('_');
                }
                out.push(digit);
            }
            out
        }
        _ => format!("00{value}"),
    }
}
