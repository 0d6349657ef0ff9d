//! Text on a terminal: what came from elsewhere cannot move the cursor, change colours or hide.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

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
        // The standard library escapes exactly what is not printable and what extends another
        // character.
        c => c.escape_debug().nth(1).is_some(),
    }
}

/// Whether somebody is there to be asked.
pub(super) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a line of text.
pub(super) fn ask(question: &str) -> anyhow::Result<String> {
    let mut err = std::io::stderr().lock();
    write!(err, "{question} ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
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
