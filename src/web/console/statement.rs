//! A statement laid out for a page: lines of pieces, every one of which is text.
//!
//! What makes it safe to read is [`Shown`]; this only cuts it, into lines (so that each has a number
//! and a wrapped line is no new one) and into pieces (so that markers, and the parts that the reasons
//! are about, can be emphasised). Put together again the pieces are the shown text, letter for
//! letter: that is checked each time, and if it ever were not so, nothing is emphasised.

use std::ops::Range;

use crate::approval::{Request, Shown};
use crate::classify::Reason;

/// A statement laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Laid {
    /// Its lines.
    pub(super) lines: Vec<Line>,
    /// All of it is there.
    pub(super) whole: bool,
    /// Characters that would be invisible, or are look-alikes, were marked.
    pub(super) marked: usize,
    /// Characters of the shown text, those that are left out included.
    pub(super) chars: usize,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pieces: Vec<Piece>,
}

/// A run of characters of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// One of our markers, not a part of the statement.
    pub(super) marker: bool,
    /// The number of the reason that is about it, from 1.
    pub(super) reason: Option<usize>,
}

/// What a page can carry and a person can look through. Whatever is longer is not approved here.
pub(super) const MOST_CHARS: usize = 4 << 20;
const MOST_LINES: usize = 100_000;
/// What is shown of a statement that is longer.
const EXCERPT: usize = 20_000;

/// Lays out the statement of `request`.
pub(super) fn lay_out(request: &Request) -> Laid {
    let classification = &request.draft.classification;
    let shown = request.shown_sql();
    let chars = shown.as_str().chars().count();
    let marked = markers(shown.as_str());
    if chars > MOST_CHARS || shown.as_str().lines().count() > MOST_LINES {
        let excerpt = shown.excerpt(EXCERPT).text;
        return Laid { lines: lines(&[(excerpt, None)]), whole: false, marked, chars };
    }
    // The spans are those of the original text, so there are none to go by where that is not shown.
    let original = request.draft.statement.sql.as_str().filter(|_| classification.redacted_sql.is_none());
    let segments = original
        .map(|text| segments(text, &spans_of(text, &classification.reasons)))
        .filter(|segments| is_all_of(segments, &shown))
        .unwrap_or_else(|| vec![(shown, None)]);
    Laid { lines: lines(&segments), whole: true, marked, chars }
}

/// Where the reasons are about, by reason. Emphasis is for what makes a statement privileged, and for
/// a part of it: what is about all of it needs none.
fn spans_of(text: &str, reasons: &[Reason]) -> Vec<Option<Range<u32>>> {
    let body = text.trim().trim_end_matches(';');
    let span = |reason: &Reason| {
        let span = reason.span.clone().filter(|_| reason.class.is_privileged())?;
        let covered = text.get(usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?)?;
        (covered.trim().len() < body.len()).then_some(span)
    };
    reasons.iter().map(span).collect()
}

type Segment = (Shown, Option<usize>);

fn is_all_of(segments: &[Segment], shown: &Shown) -> bool {
    let mut rest = shown.as_str();
    segments.iter().all(|(segment, _)| match rest.strip_prefix(segment.as_str()) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    }) && rest.is_empty()
}

/// Cuts `text` where spans begin and end. Of several reasons about one place the first counts: they
/// come the most severe first.
fn segments(text: &str, spans: &[Option<Range<u32>>]) -> Vec<Segment> {
    let spans: Vec<(usize, Range<usize>)> = spans
        .iter()
        .enumerate()
        .filter_map(|(place, span)| Some((place + 1, widened(text, span.clone()?)?)))
        .collect();
    let mut cuts: Vec<usize> = spans.iter().flat_map(|(_, span)| [span.start, span.end]).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .filter_map(|pair| {
            let [from, to] = *pair else { return None };
            let reason = spans.iter().find(|(_, span)| span.start <= from && to <= span.end);
            Some((Shown::of(text.get(from..to)?), reason.map(|(number, _)| *number)))
        })
        .collect()
}

/// The span, widened to places where cutting changes nothing: not inside a word, a run of blanks, or
/// a run of line breaks, which are shown as a whole.
fn widened(text: &str, span: Range<u32>) -> Option<Range<usize>> {
    let (mut start, mut end) = (usize::try_from(span.start).ok()?, usize::try_from(span.end).ok()?);
    end = end.min(text.len());
    while start > 0 && !may_cut(text, start) {
        start -= 1;
    }
    while end < text.len() && !may_cut(text, end) {
        end += 1;
    }
    (start < end).then_some(start..end)
}

fn may_cut(text: &str, at: usize) -> bool {
    let Some((before, after)) = text.split_at_checked(at) else { return false };
    let (Some(before), Some(after)) = (before.chars().next_back(), after.chars().next()) else { return true };
    let kind = |c: char| match c {
        ' ' | '\t' => 1,
        '\n' | '\r' => 2,
        c if c.is_alphanumeric() || c == '_' => 3,
        _ => 0,
    };
    kind(before) == 0 || kind(before) != kind(after)
}

/// The lines of a text that nothing is emphasised in, for lists.
pub(super) fn plain_lines(shown: &Shown) -> Vec<Line> {
    lines(&[(shown.clone(), None)])
}

/// Cuts segments into lines, and their pieces at our markers.
fn lines(segments: &[Segment]) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    for (shown, reason) in segments {
        for (place, text) in shown.as_str().split('\n').enumerate() {
            if place > 0 {
                lines.push(Line::default());
            }
            if let Some(line) = lines.last_mut() {
                push_pieces(&mut line.pieces, text, *reason);
            }
        }
    }
    lines
}

/// Cuts `text` at our markers. The brackets are ours alone: those of an agent are marked themselves.
fn push_pieces(pieces: &mut Vec<Piece>, text: &str, reason: Option<usize>) {
    let mut push = |text: &str, marker| {
        if !text.is_empty() {
            pieces.push(Piece { text: text.to_owned(), marker, reason });
        }
    };
    let mut rest = text;
    while let Some(at) = rest.find(['⟨', '⇥']) {
        let (before, from) = rest.split_at(at);
        push(before, false);
        let len = match from.strip_prefix('⇥') {
            Some(_) => '⇥'.len_utf8(),
            None => from.find('⟩').map_or(from.len(), |close| close + '⟩'.len_utf8()),
        };
        let (marker, after) = from.split_at(len);
        push(marker, true);
        rest = after;
    }
    push(rest, false);
}

/// How many markers there are that a reader should know of; blanks and tabs are no news.
fn markers(shown: &str) -> usize {
    shown.matches("⟨U+").count() + shown.matches("⟨byte ").count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(lines: &[Line]) -> String {
        let line = |line: &Line| line.pieces.iter().map(|piece| piece.text.as_str()).collect::<String>();
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_a_reason_is_about_is_a_piece_of_its_own() {
        let sql = "select pg_read_file('x'),\n  pg_sleep(1)";
        let segments = segments(sql, &[Some(7..19), Some(28..36)]);

        let emphasised: Vec<(&str, Option<usize>)> =
            segments.iter().map(|(shown, reason)| (shown.as_str(), *reason)).collect();
        assert_eq!(
            emphasised,
            [
                ("select ", None),
                ("pg_read_file", Some(1)),
                ("('x'),\n  ", None),
                ("pg_sleep", Some(2)),
                ("(1)", None)
            ]
        );
    }

    #[test]
    fn of_two_reasons_the_more_severe_is_shown() {
        let segments = segments("drop table t", &[Some(0..4), Some(0..12)]);

        assert_eq!(segments.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [Some(1), Some(2)]);
    }

    #[test]
    fn markers_are_pieces_and_cannot_be_forged() {
        let shown = Shown::of("a\u{202e}b ⟨U+0041⟩\tc");
        let lines = lines(&[(shown.clone(), None)]);

        let markers: Vec<&str> =
            lines[0].pieces.iter().filter(|piece| piece.marker).map(|piece| piece.text.as_str()).collect();
        assert_eq!(markers, ["⟨U+202E⟩", "⟨U+27E8⟩", "⟨U+27E9⟩", "⇥"]);
        assert_eq!(text_of(&lines), shown.as_str());
    }

    proptest! {
        /// Wherever the spans are, the page says what the shown text says.
        #[test]
        fn nothing_is_lost_or_changed_by_cutting(
            text in "[a-zа-в _\t\r\n⟨'’\u{200b}\u{301}]{0,40}",
            spans in prop::collection::vec((0u32..60, 0u32..60), 0..4),
        ) {
            let spans: Vec<_> = spans.into_iter().map(|(from, to)| Some(from..to)).collect();
            let segments = segments(&text, &spans);
            let shown = Shown::of(&text);
            if !text.is_empty() {
                prop_assert!(is_all_of(&segments, &shown), "{segments:?}");
            }
            prop_assert_eq!(text_of(&lines(&segments)), shown.as_str());
        }
    }
}
