//! Text that Slack shows as it is.
//!
//! Everything that a card says is a [`PlainText`]: our own words, or text in which nothing hides. It
//! goes into `plain_text` objects with `emoji` off and nowhere else; there, `*`, `_`, `<!channel>`,
//! `<@U..>` and `:smile:` mean nothing. No object of type `mrkdwn` is ever made.
//!
//! One thing is left: Slack writes `&` as `&amp;` when it stores a text, and whether it also reads
//! `&amp;` in a text that it is sent depends on where it stands. An agent could use that to have
//! `1 &lt; f(x)`, which is two statements, shown as `1 < f(x)`. So an ampersand that could begin such
//! a sequence is followed by a marker, and what is shown is the same either way.

use slack_morphism::prelude::{
    SlackBlock, SlackBlockPlainText, SlackBlockPlainTextOnly, SlackBlockText, SlackContextBlock,
    SlackHeaderBlock, SlackSectionBlock,
};

use crate::approval::Shown;

/// The most characters of one text of a section or context.
pub(super) const MOST: usize = 3_000;
/// The most characters of a header.
const MOST_IN_HEADER: usize = 150;

/// Text that Slack shows as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PlainText(String);

impl PlainText {
    /// Our own words.
    pub(super) fn ours(words: &'static str) -> Self {
        Self(words.to_owned())
    }

    /// Text from outside.
    pub(super) fn shown(text: &Shown) -> Self {
        Self::already_shown(text.as_str())
    }

    /// A part of a text that has been through [`Shown`].
    pub(super) fn already_shown(part: &str) -> Self {
        Self(without_entities(part))
    }

    /// Anything that is not a constant of ours: a name, a number, a time. One line.
    pub(super) fn line(text: impl AsRef<str>) -> Self {
        Self::shown(&Shown::line(text.as_ref()))
    }

    /// Adds words of ours.
    pub(super) fn and(mut self, words: &'static str) -> Self {
        self.0.push_str(words);
        self
    }

    /// Adds another text.
    pub(super) fn then(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Lines, one below the other.
    pub(super) fn lines(lines: impl IntoIterator<Item = Self>) -> Self {
        let lines: Vec<String> = lines.into_iter().map(|line| line.0).collect();
        Self(lines.join("\n"))
    }

    /// How many characters Slack may take this for.
    #[cfg(test)]
    pub(super) fn length(&self) -> usize {
        length(&self.0)
    }

    /// How many bytes this takes in JSON, as a line among others.
    pub(super) fn bytes(&self) -> usize {
        let escaped = self.0.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n')).count();
        self.0.len() + escaped + r"\n".len()
    }

    /// Cuts the text into pieces of at most `most` characters, at line breaks where there are any.
    pub(super) fn pieces(&self, most: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut piece = String::new();
        let mut taken = 0;
        for line in self.0.split_inclusive('\n') {
            let needed = length(line);
            if taken + needed > most && !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
                taken = 0;
            }
            if needed <= most {
                piece.push_str(line);
                taken += needed;
                continue;
            }
            for c in line.chars() {
                let needed = char_length(c);
                if taken + needed > most {
                    pieces.push(std::mem::take(&mut piece));
                    taken = 0;
                }
                piece.push(c);
                taken += needed;
            }
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
        // The gap between two sections is the line break. Slack takes no empty text.
        pieces
            .into_iter()
            .map(|piece| Self(piece.strip_suffix('\n').unwrap_or(&piece).to_owned()))
            .filter(|piece| !piece.0.is_empty())
            .collect()
    }

    pub(super) fn plain(&self) -> SlackBlockPlainText {
        SlackBlockPlainText::new(self.0.clone()).with_emoji(false)
    }

    /// A section that is never folded: Slack hides the end of long texts behind "See more" unless it
    /// is told not to, and a reviewer has to see the end, too.
    pub(super) fn section(&self) -> SlackBlock {
        SlackSectionBlock::new().with_text(SlackBlockText::Plain(self.plain())).with_expand(true).into()
    }

    /// Small and grey: a heading. Text in a section cannot look like it.
    pub(super) fn heading(&self) -> SlackBlock {
        SlackContextBlock::new(vec![self.plain().into()]).into()
    }

    /// Large: what the message is about. What does not fit is cut off.
    pub(super) fn header(&self) -> SlackBlock {
        let piece = self.pieces(MOST_IN_HEADER).into_iter().next().unwrap_or_default();
        SlackHeaderBlock::new(piece.only()).into()
    }

    /// For buttons, labels and titles.
    pub(super) fn only(&self) -> SlackBlockPlainTextOnly {
        self.plain().into()
    }

    /// For the text beside the blocks, which notifications show and which Slack reads as markup.
    pub(super) fn for_notification(&self) -> String {
        self.0.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    }
}

/// Counted as Slack may count it, whichever way is longest: in UTF-16, with its own escapes.
fn length(text: &str) -> usize {
    text.chars().map(char_length).sum()
}

fn char_length(c: char) -> usize {
    match c {
        '&' => "&amp;".len(),
        '<' | '>' => "&lt;".len(),
        c => c.len_utf16(),
    }
}

fn without_entities(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (place, part) in text.split('&').enumerate() {
        if place > 0 {
            out.push('&');
            if looks_like_an_entity(part) {
                out.push_str("⟨U+0026⟩");
            }
        }
        out.push_str(part);
    }
    out
}

/// Whether `&` before `rest` could be read as the beginning of an HTML entity.
fn looks_like_an_entity(rest: &str) -> bool {
    let name = rest.strip_prefix('#').unwrap_or(rest);
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    end > 0 && name.get(end..).is_some_and(|after| after.starts_with(';'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inert(text: &str) -> PlainText {
        PlainText::shown(&Shown::of(text))
    }

    #[test]
    fn an_entity_cannot_be_smuggled_in() {
        assert_eq!(inert("select 1 &lt; drop").as_str(), "select 1 &⟨U+0026⟩lt; drop");
        assert_eq!(inert("&amp;lt;").as_str(), "&⟨U+0026⟩amp;lt;");
        assert_eq!(inert("&#60;&#x3c;").as_str(), "&⟨U+0026⟩#60;&⟨U+0026⟩#x3c;");
        assert_eq!(inert("a & b && c &d").as_str(), "a & b && c &d");
    }

    #[test]
    fn only_the_text_of_notifications_is_escaped() {
        assert_eq!(
            PlainText::line("<!channel> & <@U1>").for_notification(),
            "&lt;!channel&gt; &amp; &lt;@U1&gt;"
        );
        assert_eq!(PlainText::line("<!channel>").plain().text, "<!channel>");
    }

    #[test]
    fn pieces_break_at_lines_where_they_can() {
        let pieces = inert("one\ntwo\nthree").pieces(8);

        assert_eq!(pieces, [PlainText("one\ntwo".into()), PlainText("three".into())]);
        assert_eq!(inert("abcdef").pieces(4), [PlainText("abcd".into()), PlainText("ef".into())]);
    }

    proptest! {
        #[test]
        fn no_piece_is_too_long_and_none_is_lost(text in "[a-z<&\u{1F600}\n]{0,200}", most in 8usize..40) {
            let whole = inert(&text);
            let pieces = whole.pieces(most);

            prop_assert!(pieces.iter().all(|piece| piece.length() <= most));
            let joined: String = pieces.iter().map(PlainText::as_str).collect();
            prop_assert_eq!(joined.replace('\n', ""), whole.as_str().replace('\n', ""));
        }
    }
}
