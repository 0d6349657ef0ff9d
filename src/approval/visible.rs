//! Making text safe to look at: what a reviewer sees is what the agent sent, or says so.
//!
//! A [`Shown`] is text in which nothing hides. Whatever a screen would swallow, reorder or draw as
//! something else is replaced by a marker in angle brackets, which holds the character itself where
//! that can do no harm: `⟨U+202E⟩`, `⟨U+0430 а⟩`, `⟨40 spaces⟩`. The brackets themselves are marked
//! when they occur in the original, so a marker is always ours and cannot be forged.
//!
//! Which letters can be mistaken for others is Unicode's word (UTS #39), by way of `unicode-security`.
//!
//! Nothing is cut here. A channel that cannot carry the whole text asks for an [`Excerpt`], which
//! says that it is one; a card made from an incomplete excerpt offers no Approve.

use std::fmt::{self, Write as _};

use serde::Serialize;
use unicode_normalization::UnicodeNormalization as _;
use unicode_script::{Script, UnicodeScript as _};
use unicode_security::GeneralSecurityProfile as _;
use unicode_security::confusable_detection::skeleton;

/// Text that is safe to look at in a plain-text element. Channels still have to keep it out of
/// their markup.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Shown(String);

/// As much of a text as fits, and whether that is all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The beginning of the text; when something was left out, the last line says how much.
    pub text: Shown,
    /// Nothing was left out.
    pub complete: bool,
}

/// Runs of blanks longer than this are written as a marker: they push text out of sight.
const LONGEST_RUN_OF_BLANKS: usize = 16;
/// More line breaks than this in a row are written as a marker.
const LONGEST_RUN_OF_BREAKS: usize = 3;

impl Shown {
    /// Shows `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + text.len() / 8);
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (len, kind) = run(rest, first);
            let (run, after) = rest.split_at(len);
            match kind {
                Run::Blanks => show_blanks(&mut out, run),
                Run::Breaks => show_breaks(&mut out, run),
                Run::Word => show_word(&mut out, run),
                Run::Other => show_char(&mut out, first),
            }
            rest = after;
        }
        Self(out)
    }

    /// Shows bytes that should be UTF-8 but need not be.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut out = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            out.push_str(&Self::of(chunk.valid()).0);
            for byte in chunk.invalid() {
                let _ = write!(out, "⟨byte {byte:02X}⟩");
            }
        }
        Self(out)
    }

    /// Shows `text` on one line: line breaks become markers too. For names, claims and messages.
    #[must_use]
    pub fn line(text: &str) -> Self {
        Self::of(text).on_one_line()
    }

    /// Our own words followed by shown ones. `ours` must not hold anything that came from outside.
    #[must_use]
    pub(super) fn after(ours: &str, shown: &Self) -> Self {
        Self::between(ours, shown, "")
    }

    /// Shown words between our own.
    #[must_use]
    pub(super) fn between(before: &str, shown: &Self, after: &str) -> Self {
        Self(format!("{before}{}{after}", shown.0))
    }

    /// The same on one line.
    #[must_use]
    pub fn on_one_line(&self) -> Self {
        Self(self.0.replace('\n', "⟨line break⟩"))
    }

    /// The text, markers and all.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The beginning of the text, at most `most` characters of it.
    #[must_use]
    pub fn excerpt(&self, most: usize) -> Excerpt {
        match self.0.char_indices().nth(most) {
            None => Excerpt { text: self.clone(), complete: true },
            Some((cut, _)) => {
                let (kept, dropped) = self.0.split_at(cut);
                let text = format!("{kept}\n⟨{} more characters are not shown⟩", dropped.chars().count());
                Excerpt { text: Self(text), complete: false }
            }
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    /// Prints a length only: a [`Shown`] mostly holds SQL, which never belongs into a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({} bytes)", self.0.len())
    }
}

enum Run {
    Blanks,
    Breaks,
    Word,
    Other,
}

/// The run that `rest`, which begins with `first`, begins with: its length in bytes and its kind.
fn run(rest: &str, first: char) -> (usize, Run) {
    let until = |stop: fn(char) -> bool| rest.find(stop).unwrap_or(rest.len());
    match first {
        ' ' | '\t' => (until(|c| !matches!(c, ' ' | '\t')), Run::Blanks),
        // A Windows line break is a line break; a carriage return elsewhere could overwrite a line
        // on a terminal and is shown as itself.
        '\n' => (breaks_len(rest), Run::Breaks),
        '\r' if rest.starts_with("\r\n") => (breaks_len(rest), Run::Breaks),
        c if is_word(c) => (until(|c| !is_word(c)), Run::Word),
        c => (c.len_utf8(), Run::Other),
    }
}

fn breaks_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut len = 0;
    loop {
        match bytes.get(len..) {
            Some([b'\n', ..]) => len += 1,
            Some([b'\r', b'\n', ..]) => len += 2,
            _ => return len,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn show_blanks(out: &mut String, run: &str) {
    let blanks = run.chars().count();
    if blanks > LONGEST_RUN_OF_BLANKS {
        let what = if run.contains('\t') { "blanks" } else { "spaces" };
        let _ = write!(out, "⟨{blanks} {what}⟩");
        return;
    }
    for blank in run.chars() {
        // A tab is common in SQL and harmless, but it is not a space: inside a literal they differ.
        out.push_str(if blank == '\t' { "⇥   " } else { " " });
    }
}

fn show_breaks(out: &mut String, run: &str) {
    let breaks = run.bytes().filter(|&byte| byte == b'\n').count();
    if breaks > LONGEST_RUN_OF_BREAKS {
        let _ = write!(out, "\n⟨{} empty lines⟩\n", breaks - 1);
    } else {
        for _ in 0..breaks {
            out.push('\n');
        }
    }
}

/// Shows a run of letters and digits. Marked are letters that can mislead:
///
/// - letters of another script in a word that has Latin ones;
/// - letters that resemble ASCII ones, in a word with ASCII ones or in one that reads as ASCII from end
///   to end (`сору` in Cyrillic);
/// - whatever NFKC changes (`ﬁ`, `ʰ`, full-width forms), and whatever Unicode would not have in
///   identifiers: small capitals, phonetic letters, scripts that are hardly used.
///
/// In a word that is plainly of another script (`Привет`, `顧客`) a letter is an ordinary letter.
fn show_word(out: &mut String, word: &str) {
    if word.is_ascii() {
        out.push_str(word);
        return;
    }
    let among_ascii = word.bytes().any(|byte| byte.is_ascii_alphanumeric());
    if !among_ascii && word.chars().any(is_right_to_left) {
        // Such a word turns the signs beside it around, up to the next Latin letter; the words of
        // these markers are what stops it.
        out.push_str("⟨right-to-left⟩");
        for c in word.chars() {
            if is_invisible(c) || is_unusual(c) { mark(out, c) } else { out.push(c) }
        }
        out.push_str("⟨end⟩");
        return;
    }
    let reads_as_ascii = word.chars().all(|c| c.is_ascii() || resembles_ascii(c));
    let has_latin = word.chars().any(|c| c.script() == Script::Latin);
    for c in word.chars() {
        let misleads = is_unusual(c)
            || (has_latin && is_of_another_script(c))
            || ((among_ascii || reads_as_ascii) && resembles_ascii(c));
        let marked = misleads || is_invisible(c) || is_right_to_left(c) || resembles_punctuation(c);
        if marked && !c.is_ascii() { mark(out, c) } else { out.push(c) }
    }
}

fn show_char(out: &mut String, c: char) {
    if c.is_ascii_graphic() {
        out.push(c);
    } else if is_invisible(c)
        || is_right_to_left(c)
        || resembles_punctuation(c)
        || resembles_ascii(c)
        || changes_in_nfkc(c)
    {
        mark(out, c);
    } else {
        out.push(c);
    }
}

/// Writes a marker in place of `c`, with `c` itself inside where that shows something and reorders
/// nothing. Behind the letter, a marker would leave the word as it stands.
fn mark(out: &mut String, c: char) {
    let code = c as u32;
    let _ = if is_invisible(c) || is_right_to_left(c) {
        write!(out, "⟨U+{code:04X}⟩")
    } else {
        write!(out, "⟨U+{code:04X} {c}⟩")
    };
}

/// Whether a screen would show nothing, or something other than this character: controls, format
/// characters (bidi, zero-width), unassigned and private ones, combining marks, blanks that are not
/// the space, and the brackets of our own markers.
pub(super) fn is_invisible(c: char) -> bool {
    match c {
        '⟨' | '⟩' | '⇥' => true,
        // Letters and symbols that are drawn as nothing.
        '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{2800}' | '\u{3164}' | '\u{FFA0}'
        | '\u{FFFC}' => true,
        // Variation selectors and language tags, assigned or not.
        '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E0FFF}' => true,
        '"' | '\'' | '\\' => false,
        // The standard library escapes exactly what is not printable (categories C*, Z* but the
        // space) and what extends another character (combining marks).
        c => c.escape_debug().nth(1).is_some(),
    }
}

/// Whether `c` is written from right to left (the blocks that Unicode sets aside for such scripts).
/// No control character is needed to reorder a line: a Hebrew letter on either side is enough.
fn is_right_to_left(c: char) -> bool {
    matches!(
        c,
        '\u{0590}'..='\u{08FF}'
            | '\u{FB1D}'..='\u{FDFF}'
            | '\u{FE70}'..='\u{FEFF}'
            | '\u{10800}'..='\u{10FFF}'
            | '\u{1E800}'..='\u{1EFFF}'
    )
}

/// Whether Unicode's table of confusables (UTS #39) says that `c` is drawn like one ASCII character.
fn resembles_ascii(c: char) -> bool {
    let mut buffer = [0; 4];
    let mut drawn = skeleton(c.encode_utf8(&mut buffer));
    !c.is_ascii() && drawn.next().is_some_and(|first| first.is_ascii_graphic()) && drawn.next().is_none()
}

/// Whether `c` belongs to a script, and that is not Latin.
fn is_of_another_script(c: char) -> bool {
    !matches!(c.script(), Script::Latin | Script::Common | Script::Inherited | Script::Unknown)
}

/// Whether `c` is a letter or digit that ordinary text of no language in common use has (UTS #39,
/// identifier status), or another spelling of one.
fn is_unusual(c: char) -> bool {
    !c.is_ascii() && (!c.identifier_allowed() || changes_in_nfkc(c))
}

/// Whether `c` is another spelling of something else: `ﬁ` of `fi`, `①` of `1`.
fn changes_in_nfkc(c: char) -> bool {
    !std::iter::once(c).nfkc().eq(std::iter::once(c))
}

/// Whether `c` is drawn like one of the signs that SQL is made of.
fn resembles_punctuation(c: char) -> bool {
    matches!(
        c,
        // quotes
        '\u{00B4}' | '\u{2018}'..='\u{201F}' | '\u{2032}'..='\u{2037}' | '\u{2039}' | '\u{203A}' | '\u{FF02}' | '\u{FF07}' | '\u{FF40}'
        // minus and dashes: `--` begins a comment only when it is ASCII
        | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2043}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}' | '\u{2796}'
        // semicolon, colon, comma, full stop
        | '\u{037E}' | '\u{061B}' | '\u{FF1B}' | '\u{A789}' | '\u{2236}' | '\u{FF1A}' | '\u{FF0C}' | '\u{2024}' | '\u{FF0E}'
        | '\u{00B7}' | '\u{0387}' | '\u{3002}'
        // slash, asterisk, backslash, bar
        | '\u{2044}' | '\u{2215}' | '\u{29F8}' | '\u{FF0F}' | '\u{2217}' | '\u{204E}' | '\u{FF0A}' | '\u{066D}' | '\u{2216}' | '\u{29F5}'
        | '\u{FF3C}' | '\u{2223}' | '\u{01C0}' | '\u{FF5C}' | '\u{2758}'
        // brackets, comparison, dollar, percent, at, hash, tilde and the like
        | '\u{FF08}' | '\u{FF09}' | '\u{2768}'..='\u{2775}' | '\u{FF3B}' | '\u{FF3D}' | '\u{FF5B}' | '\u{FF5D}' | '\u{FF1C}'..='\u{FF1E}'
        | '\u{2264}' | '\u{2265}' | '\u{2260}' | '\u{A78A}' | '\u{FF04}' | '\u{FF05}' | '\u{FF06}' | '\u{FF20}' | '\u{FF03}' | '\u{FF0B}' | '\u{FF5E}'
        | '\u{223C}' | '\u{02DC}' | '\u{FF01}' | '\u{01C3}' | '\u{FF1F}' | '\u{FF3E}' | '\u{02C6}' | '\u{FF3F}' | '\u{00A6}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        Shown::of(text).0
    }

    #[test]
    fn ordinary_sql_is_shown_as_it_is() {
        let sql =
            "SELECT name, \"Größe\" FROM kunden\n  WHERE stadt = 'Москва' -- it's fine\n    AND x <> 1;";

        assert_eq!(shown(sql), sql);
    }

    #[test]
    fn controls_bidi_and_zero_width_characters_are_made_visible() {
        assert_eq!(shown("a\u{202E}b\u{200B}c\u{2066}d"), "a⟨U+202E⟩b⟨U+200B⟩c⟨U+2066⟩d");
        assert_eq!(shown("drop\u{0}\u{1b}[2K\u{7f}"), "drop⟨U+0000⟩⟨U+001B⟩[2K⟨U+007F⟩");
        assert_eq!(shown("a\rb"), "a⟨U+000D⟩b");
        assert_eq!(shown("\u{feff}select\u{a0}1\u{2028}"), "⟨U+FEFF⟩select⟨U+00A0⟩1⟨U+2028⟩");
        assert_eq!(shown("x\u{e0041}y\u{fe0f}"), "x⟨U+E0041⟩y⟨U+FE0F⟩");
        assert_eq!(shown("e\u{301}"), "e⟨U+0301⟩");
        assert_eq!(shown("\u{3164}\u{2800}"), "⟨U+3164⟩⟨U+2800⟩");
    }

    #[test]
    fn look_alike_letters_are_marked_where_they_can_mislead() {
        assert_eq!(shown("cust\u{43e}mers"), "cust⟨U+043E \u{43e}⟩mers");
        // A whole word in another script that reads as ASCII: `сосо`.
        assert_eq!(shown("\u{441}\u{43e}"), "⟨U+0441 \u{441}⟩⟨U+043E \u{43e}⟩");
        assert_eq!(shown("ｄｒｏｐ"), "⟨U+FF44 ｄ⟩⟨U+FF52 ｒ⟩⟨U+FF4F ｏ⟩⟨U+FF50 ｐ⟩");
        assert_eq!(shown("’ or 1=1 －－"), "⟨U+2019 ’⟩ or 1=1 ⟨U+FF0D －⟩⟨U+FF0D －⟩");
    }

    #[test]
    fn a_letter_of_any_script_is_marked_in_a_word_with_latin_ones() {
        for word in [
            "customer\u{a4e2}", // Lisu
            "\u{144c}sers",     // Canadian syllabics
            "\u{1042c}rders",   // Deseret
            "\u{430}dmin",      // Cyrillic
            "r\u{3bf}le",       // Greek
            "\u{585}rders",     // Armenian
            "\u{13aa}ustomers", // Cherokee
            "table\u{30ce}",    // Katakana
            "drop_\u{433}",     // Cyrillic, behind an underscore
            "\u{2ca3}rders",    // Coptic
        ] {
            assert!(!shown(word).contains(word), "{word}: {}", shown(word));
        }
    }

    #[test]
    fn other_spellings_and_unusual_letters_are_marked_in_every_word() {
        for word in [
            "pro\u{fb01}le",                   // ligature
            "\u{2b0}ost",                      // modifier letter
            "\u{1d64}sers",                    // subscript
            "\u{abaa}\u{ab8e}",                // Cherokee, small
            "\u{1d430}\u{1d431}",              // mathematical
            "\u{1d05}\u{280}\u{1d0f}\u{1d18}", // small capitals
            "adm\u{131}n",                     // dotless i
            "\u{24d3}rop",                     // circled
            "\u{ff44}\u{ff52}op",              // full-width
            "x\u{b2}",                         // superscript
            "\u{441}\u{43e}\u{440}\u{443}",    // Cyrillic from end to end, reads as Latin
        ] {
            assert!(!shown(word).contains(word), "{word}: {}", shown(word));
        }
    }

    #[test]
    fn words_of_other_languages_are_shown_as_they_are() {
        for text in [
            "Привет, мир",
            "顧客",
            "テーブル",
            "고객",
            "πελάτης",
            "Größe",
            "Kærlighed",
            "smørrebrød",
            "łódź",
            "Straße",
            "khách hàng",
            "çok güzel",
            "Հաճախորդ",
            "ლარი",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn words_written_from_right_to_left_do_not_turn_their_neighbours_around() {
        // On a screen `'א' = 1 OR 'ב'` would read as if the letters had changed places.
        assert_eq!(
            shown("'\u{5d0}' = 1 OR '\u{5d1}\u{5d2}'"),
            "'⟨right-to-left⟩\u{5d0}⟨end⟩' = 1 OR '⟨right-to-left⟩\u{5d1}\u{5d2}⟨end⟩'"
        );
        assert_eq!(shown("a\u{5d0}1"), "a⟨U+05D0⟩1");
        assert_eq!(shown("\u{730}A"), "⟨U+0730⟩A");
        assert_eq!(shown("\u{61b}"), "⟨U+061B⟩");
    }

    #[test]
    fn blanks_cannot_push_text_out_of_sight() {
        let sql = format!("select 1;{}drop table t;{}x", " ".repeat(40), "\n".repeat(200));

        assert_eq!(shown(&sql), "select 1;⟨40 spaces⟩drop table t;\n⟨199 empty lines⟩\nx");
        assert_eq!(shown("a\tb\r\n\r\nc"), "a⇥   b\n\nc");
    }

    #[test]
    fn a_marker_cannot_be_forged() {
        assert_eq!(shown("⟨40 spaces⟩"), "⟨U+27E8⟩40 spaces⟨U+27E9⟩");
        assert_eq!(shown("⇥"), "⟨U+21E5⟩");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_bytes() {
        assert_eq!(Shown::of_bytes(b"caf\xe9 \xff").0, "caf⟨byte E9⟩ ⟨byte FF⟩");
    }

    #[test]
    fn an_excerpt_says_that_it_is_one() {
        let whole = Shown::of("select 1");

        assert!(whole.excerpt(8).complete);
        let cut = whole.excerpt(6);
        assert!(!cut.complete);
        assert_eq!(cut.text.0, "select\n⟨2 more characters are not shown⟩");
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(
            Shown::line("nightly\n\nAPPROVED by bob").0,
            "nightly⟨line break⟩⟨line break⟩APPROVED by bob"
        );
    }

    proptest! {
        /// Whatever comes in, what goes out has no character that a screen hides or reorders.
        #[test]
        fn nothing_invisible_survives(text in any::<String>()) {
            let shown = shown(&text);
            let plain = shown.replace(['⟨', '⟩', '⇥', '\n'], "");
            prop_assert!(!plain.chars().any(is_invisible), "{plain:?}");
        }

        /// Two texts that look the same are the same: removing the markers' ambiguity is what they
        /// are for. (Texts without blanks, which are the one thing that is abbreviated.)
        #[test]
        fn different_texts_look_different(a in "[a-cа-в'’⟨⟩\u{200b}]{0,6}", b in "[a-cа-в'’⟨⟩\u{200b}]{0,6}") {
            prop_assert_eq!(a == b, shown(&a) == shown(&b));
        }
    }
}
