//! Text on a terminal: what came from elsewhere cannot move the cursor, change colours or hide.
//!
//! Everything that the commands print goes through here ([`out`], [`say`], [`complain`]), and no other
//! file of this folder opens standard output or standard error (`tests/architecture.rs` looks). So a
//! field that somebody forgot to make visible ([`line()`], [`block`]) is made visible all the same.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use jiff::Timestamp;

/// `text` with everything made visible that a terminal would obey or not draw. The server does so
/// for statements; a terminal takes nobody's word for it.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same on one line.
pub(super) fn line(text: &str) -> String {
    plain(text).replace('\n', "⏎")
}

/// The first line of `text`, at most `width` characters of it; says when that is not all.
pub(super) fn beginning(text: &str, width: usize) -> String {
    let text = plain(text);
    let first = text.trim_start().lines().next().unwrap_or_default();
    let is_all = first.len() == text.trim().len() && first.chars().count() <= width;
    if is_all {
        return first.to_owned();
    }
    let mut cut: String = first.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Whether a terminal would do something other than draw it: controls but the line break, and format
/// characters (bidi, zero-width, tags).
fn is_obeyed(c: char) -> bool {
    match c {
        '\n' | '"' | '\'' | '\\' => false,
        // Letters and symbols that are drawn as nothing: fillers of Hangul, the empty pattern of Braille.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => true,
        // The standard library escapes exactly what is not printable and what extends another
        // character.
        c => c.escape_debug().nth(1).is_some(),
    }
}

/// A text of several lines, each with room before it, so that none of them passes for one of ours.
pub(super) fn block(text: &str, indent: usize) -> String {
    let margin = format!("\n{:indent$}", "");
    // A tab is layout as well, of a width that only the terminal knows.
    plain(&text.replace('\t', "    ")).replace('\n', &margin)
}

/// JSON in which nothing is left that a terminal would obey or not draw: escaped, so its values are the
/// same.
pub(super) fn json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_obeyed) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    let mut units = [0; 2];
    for c in json.chars() {
        if is_obeyed(c) {
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// How what is printed is made visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// For people.
    Text,
    /// As JSON.
    Json,
}

impl As {
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Text => plain(text),
            Self::Json => json(text),
        }
    }
}

/// Writes text of which nothing is left that a terminal would obey.
pub(super) struct Visible<W: Write> {
    inner: W,
    how: As,
    /// The beginning of a character whose end has not come.
    rest: Vec<u8>,
}

impl<W: Write> Visible<W> {
    fn new(inner: W, how: As) -> Self {
        Self { inner, how, rest: Vec::new() }
    }
}

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.rest);
        for chunk in pending.utf8_chunks() {
            self.inner.write_all(self.how.apply(chunk.valid()).as_bytes())?;
            let is_last = pending.ends_with(chunk.invalid());
            if is_last
                && chunk.invalid().len() < 4
                && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none())
            {
                self.rest = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.inner.write_all("\u{fffd}".as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Standard output.
pub(super) fn out(how: As) -> Visible<io::StdoutLock<'static>> {
    Visible::new(io::stdout().lock(), how)
}

/// Standard output for files of other programs: as it is, unless somebody looks at it.
pub(super) fn out_for_programs(how: As) -> Box<dyn Write> {
    let stdout = io::stdout();
    if stdout.is_terminal() { Box::new(out(how)) } else { Box::new(stdout.lock()) }
}

/// A line on standard output.
pub(super) fn say(text: &str) {
    // Who has closed standard output does not want to know.
    let _ = writeln!(out(As::Text), "{text}");
}

/// JSON on a line of standard output.
pub(super) fn say_json(json: &serde_json::Value) {
    let _ = writeln!(out(As::Json), "{json}");
}

/// JSON on standard output, laid out for people.
pub(super) fn say_json_laid_out(json: &serde_json::Value) {
    let _ = writeln!(out(As::Json), "{json:#}");
}

/// A line on standard error. What follows a line break is moved in, so that it passes for no line of
/// ours.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", plain(text).replace('\n', "\n  "));
}

/// Text on standard error that is laid out already.
pub(super) fn print_error(text: &str) {
    let _ = write!(io::stderr().lock(), "{}", plain(text));
}

/// A line on standard error in which [`BOLD`] may stand.
pub(super) fn narrate(text: &str) {
    let visible = plain(text);
    let text =
        [BOLD.0, BOLD.1].iter().fold(visible.into_owned(), |text, code| text.replace(&*plain(code), code));
    // A closed terminal is no reason to leave things behind.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Switches to bold letters, and back.
pub(super) const BOLD: (&str, &str) = ("\x1b[1m", "\x1b[0m");

/// Whether standard error is looked at by somebody.
pub(super) fn error_is_seen() -> bool {
    io::stderr().is_terminal()
}

/// Whether somebody is there to be asked.
pub(super) fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a line of text.
pub(super) fn ask(question: &str) -> anyhow::Result<String> {
    let mut err = io::stderr().lock();
    write!(err, "{} ", plain(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// A time of the API's JSON, as people read it: to the second.
pub(super) fn moment(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => line(text),
    }
}

/// A table with columns as wide as they need to be, but for the last.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = head.get(column).map_or(0, |title| title.len());
        cells.chain([head]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(
            plain("a\u{1b}[2Jb\r\u{7}\u{9b}c\u{202e}"),
            "a⟨U+001B⟩[2Jb⟨U+000D⟩⟨U+0007⟩⟨U+009B⟩c⟨U+202E⟩"
        );
        assert_eq!(plain("select 'ä', \"x\\y\"\n⟨U+200B⟩"), "select 'ä', \"x\\y\"\n⟨U+200B⟩");
        assert_eq!(line("a\nb"), "a⏎b");
    }

    #[test]
    fn everything_that_is_printed_is_made_visible() {
        let mut text = Visible::new(Vec::new(), As::Text);
        let mut json = Visible::new(Vec::new(), As::Json);
        // In pieces that cut characters apart.
        for piece in "{\"a\": \"ä\u{202e}\u{1b}[2J\u{3164}\u{e0041}\"}\n".as_bytes().chunks(3) {
            text.write_all(piece).unwrap();
            json.write_all(piece).unwrap();
        }
        text.write_all(b"\xff.").unwrap();

        assert_eq!(
            String::from_utf8(text.inner).unwrap(),
            "{\"a\": \"ä⟨U+202E⟩⟨U+001B⟩[2J⟨U+3164⟩⟨U+E0041⟩\"}\n\u{fffd}."
        );
        let json = String::from_utf8(json.inner).unwrap();
        assert_eq!(json, "{\"a\": \"ä\\u202e\\u001b[2J\\u3164\\udb40\\udc41\"}\n");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["a"], "ä\u{202e}\u{1b}[2J\u{3164}\u{e0041}");
    }

    #[test]
    fn a_text_of_several_lines_passes_for_no_line_of_ours() {
        assert_eq!(
            block("select 1\nproof  it is good\t\u{7}", 4),
            "select 1\n    proof  it is good    ⟨U+0007⟩"
        );
    }

    #[test]
    fn a_beginning_says_that_it_is_one() {
        assert_eq!(beginning("select 1", 20), "select 1");
        assert_eq!(beginning("select 1\n", 20), "select 1");
        assert_eq!(beginning("select 1;\ndrop table t", 20), "select 1;…");
        assert_eq!(beginning("select 1234567890", 10), "select 12…");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["7F3K-2Q".to_owned(), "waiting".to_owned()], vec!["A".to_owned(), "ran".to_owned()]];

        assert_eq!(table(&["ID", "STATE"], &rows), "ID       STATE\n7F3K-2Q  waiting\nA        ran\n");
    }
}
