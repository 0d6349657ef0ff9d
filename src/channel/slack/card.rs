//! A request as a Slack message.
//!
//! The card renders the [`Document`] and adds nothing to it but how the request stands and the
//! buttons. It shows the whole document, in its order, or it says that it does not and has no
//! Approve button. What the limits are is Slack's business; where it does not say, they are drawn
//! so that no reading of its documentation could make Slack cut or refuse a complete card.

use slack_morphism::prelude::{
    SlackAccessibilityLabel, SlackActionBlockElement, SlackActionsBlock, SlackBlock, SlackBlockButtonElement,
    SlackBlockButtonStyle,
};
use url::Url;

use super::text::{MOST, PlainText};
use crate::actor::Assurance;
use crate::approval::document::{Body, Document, Section, approvals_in_words};
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Review, Shown, Verdict};
use crate::desk::RequestView;

/// Slack takes 50 blocks in one message. The document gets so many of them; the rest is for the
/// heading, the status and the buttons.
const DOCUMENT_BLOCKS: usize = 44;
/// Slack refuses messages whose blocks have somewhat more than 12,000 characters together
/// (`msg_blocks_too_long`) and does not say how it counts; this counts all bytes of the JSON. The
/// document gets a share of its own, so that whether a card is whole does not depend on how much
/// people have said about it since.
const DOCUMENT_BYTES: usize = 9_500;
/// The share of how the request stands.
const STATUS_BYTES: usize = 1_500;
/// The most characters of one reason.
const LONGEST_REASON: usize = 300;
/// The most characters of the line that says what it is about.
const LONGEST_TITLE: usize = 200;
/// Longer lines are continued on the next one.
const LONGEST_LINE: usize = 400;

/// The block that holds the buttons.
pub(super) const BUTTONS: &str = "countersign";

/// A button's meaning, as it is written into its action id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Button {
    Answer(Verdict),
    /// Opens the console in a browser; Slack reports the click nevertheless.
    Open,
}

impl Button {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Answer(Verdict::Approve), "countersign.approve"),
        (Self::Answer(Verdict::Deny), "countersign.deny"),
        (Self::Answer(Verdict::Escalate), "countersign.escalate"),
        (Self::Open, "countersign.open"),
    ];

    pub(super) fn action_id(self) -> &'static str {
        Self::ALL.iter().find(|(button, _)| *button == self).map_or("", |(_, id)| id)
    }

    pub(super) fn of_action_id(id: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == id).map(|(button, _)| *button)
    }
}

/// What is rendered.
pub(super) struct CardInput<'a> {
    pub(super) view: &'a RequestView,
    /// What the buttons carry; clicks must bring it back.
    pub(super) key: &'a str,
    pub(super) console: Option<&'a Url>,
}

/// A message, and what it lets people do.
#[derive(Clone, Debug)]
pub(super) struct Card {
    pub(super) blocks: Vec<SlackBlock>,
    /// For notifications. Slack reads it as markup, so it is escaped and holds nothing of the agent's.
    pub(super) text: String,
    /// The verdicts that it has buttons for.
    pub(super) offers: Vec<Verdict>,
}

/// Renders a request, whole if it fits.
pub(super) fn render(input: &CardInput<'_>) -> Card {
    let document = Document::of(&input.view.request);
    for space in &SPACE_LIMITS {
        let laid = lay_out(&document, space);
        if fits(&laid.blocks) {
            return compose(input, &document, laid.blocks, laid.complete);
        }
    }
    compose(input, &document, Vec::new(), false)
}

/// Renders a request without anything that could be too much for Slack.
pub(super) fn render_briefly(input: &CardInput<'_>) -> Card {
    compose(input, &Document::of(&input.view.request), Vec::new(), false)
}

fn fits(blocks: &[SlackBlock]) -> bool {
    blocks.len() <= DOCUMENT_BLOCKS
        && serde_json::to_vec(blocks).is_ok_and(|json| json.len() <= DOCUMENT_BYTES)
}

fn compose(input: &CardInput<'_>, document: &Document, sections: Vec<SlackBlock>, complete: bool) -> Card {
    let view = input.view;
    let offers = offers(input, complete);
    let mut blocks = vec![heading(&document.code, &view.state).header()];
    blocks.push(PlainText::shown(&document.title.excerpt(LONGEST_TITLE).text.on_one_line()).heading());
    let (status, _) = take_lines(status(view, complete).into_iter(), STATUS_BYTES);
    blocks.extend(PlainText::lines(status).pieces(MOST).iter().map(PlainText::section));
    blocks.extend(sections);
    blocks.extend(buttons(input, &offers));
    Card { blocks, text: notification(document, &view.state), offers }
}

/// What may be answered here and now.
fn offers(input: &CardInput<'_>, complete: bool) -> Vec<Verdict> {
    let view = input.view;
    if can_be_taken_back(view) {
        return vec![Verdict::Deny];
    }
    if view.state != HoldState::Waiting {
        return Vec::new();
    }
    let terms = &view.request.draft.terms;
    let mut offers = Vec::new();
    if complete && clicks_are_enough(&view.request) {
        offers.push(Verdict::Approve);
    }
    offers.push(Verdict::Deny);
    if view.notified < terms.escalate.len() {
        offers.push(Verdict::Escalate);
    }
    offers
}

/// Whether a denial still changes something after the approval: when no session waits for it, a grant
/// may lie about for a while.
pub(super) fn can_be_taken_back(view: &RequestView) -> bool {
    view.request.is_deferred() && matches!(view.state, HoldState::Granted { handed_out: false, .. })
}

fn clicks_are_enough(request: &Request) -> bool {
    request.draft.terms.assurance <= Assurance::Click
}

fn heading(code: &str, state: &HoldState) -> PlainText {
    PlainText::line(code).and(match state {
        HoldState::Waiting => " waits for an answer",
        HoldState::Granted { .. } => " was approved",
        HoldState::Denied { .. } => " was denied",
        HoldState::Expired => " has expired",
        HoldState::Withdrawn { .. } => " was withdrawn",
        HoldState::Executed => " was approved and ran",
    })
}

fn notification(document: &Document, state: &HoldState) -> String {
    heading(&document.code, state).and(": ").then(&PlainText::shown(&document.title)).for_notification()
}

/// How it stands, what stands in the way, and who said what: in this order, because the end may be
/// cut off.
fn status(view: &RequestView, complete: bool) -> Vec<PlainText> {
    let mut lines = vec![state(view)];
    if view.state == HoldState::Waiting {
        lines.extend(obstacles(view, complete));
    }
    lines.extend(view.reviews.iter().map(review));
    lines
}

fn state(view: &RequestView) -> PlainText {
    match &view.state {
        HoldState::Waiting => PlainText::ours("Waiting for ")
            .then(&PlainText::line(missing(view)))
            .and(", until ")
            .then(&moment(view.request.expires_at))
            .and("."),
        HoldState::Granted { until, .. } => {
            PlainText::ours("It may run once, until ").then(&moment(*until)).and(".")
        }
        HoldState::Denied { by, .. } => {
            PlainText::ours("It does not run. Denied by ").then(&PlainText::line(by.as_str())).and(".")
        }
        HoldState::Expired => {
            PlainText::ours("It does not run: nobody answered, or used the answer, in time.")
        }
        HoldState::Withdrawn { reason } => {
            PlainText::ours("It does not run: ").then(&PlainText::ours(reason.as_str())).and(".")
        }
        HoldState::Executed => PlainText::ours("It ran once; what it did is in the thread."),
    }
}

/// What keeps the request from being approved here, and what an approval covers.
fn obstacles(view: &RequestView, complete: bool) -> Vec<PlainText> {
    let mut lines = Vec::new();
    if !complete {
        let why = "This is not the whole request, so it cannot be approved here. Open it in the console.";
        lines.push(PlainText::ours(why));
    }
    if !clicks_are_enough(&view.request) {
        let needed = PlainText::line(view.request.draft.terms.assurance.as_str());
        let why = PlainText::ours("It needs a ")
            .then(&needed)
            .and(" to be approved, and a click in Slack is less.");
        lines.push(why.and(" Open it in the console."));
    }
    if view.behind > 0 {
        let why = PlainText::line(view.behind.to_string()).and(" identical requests wait behind this one.");
        lines.push(why.and(" A denial is for all of them, an approval for this one."));
    }
    lines
}

fn missing(view: &RequestView) -> String {
    let asked = &view.request.draft.terms.approvals;
    approvals_in_words(if view.missing.is_empty() { asked } else { &view.missing })
}

/// Who said what, when, and why.
fn review(review: &Review) -> PlainText {
    let said = match review.verdict {
        Verdict::Approve => " approved",
        Verdict::Deny => " denied",
        Verdict::Escalate => " escalated",
    };
    let mut line = PlainText::line(review.reviewer.as_str())
        .and(said)
        .and(" at ")
        .then(&moment(review.at))
        .and(" (")
        .then(&PlainText::ours(review.channel.as_str()))
        .and(")");
    // A denial needs no reading.
    if review.quick && review.verdict == Verdict::Approve {
        line = line.and(", sooner than it can be read");
    }
    match &review.reason {
        Some(reason) => {
            let shown = Shown::line(reason).excerpt(LONGEST_REASON).text.on_one_line();
            line.and(": ").then(&PlainText::shown(&shown))
        }
        None => line,
    }
}

fn moment(at: jiff::Timestamp) -> PlainText {
    PlainText::line(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Sections laid out, and whether that is all of them.
struct Layout {
    blocks: Vec<SlackBlock>,
    complete: bool,
}

/// How many bytes of the statement, and of each other section, are laid out.
struct SpaceLimit {
    statement: usize,
    other: usize,
}

/// Tried in this order: first everything, then what is left on a card that cannot show everything.
const SPACE_LIMITS: [SpaceLimit; 4] = [
    SpaceLimit { statement: DOCUMENT_BYTES, other: DOCUMENT_BYTES },
    SpaceLimit { statement: 2_000, other: 700 },
    SpaceLimit { statement: 1_500, other: 350 },
    SpaceLimit { statement: 800, other: 150 },
];

fn lay_out(document: &Document, space: &SpaceLimit) -> Layout {
    let mut laid = Layout { blocks: Vec::new(), complete: true };
    for section in &document.sections {
        let space = if matches!(section.body, Body::Sql(_)) { space.statement } else { space.other };
        let (lines, complete) = take_lines(lines_of(section), space);
        laid.complete &= complete;
        laid.blocks.push(PlainText::ours(section.title).heading());
        laid.blocks.extend(PlainText::lines(lines).pieces(MOST).iter().map(PlainText::section));
    }
    laid
}

/// As many lines as there is space for, and whether that is all of them. Of a text of megabytes, only
/// what may be shown is looked at.
fn take_lines(lines: impl Iterator<Item = PlainText>, space: usize) -> (Vec<PlainText>, bool) {
    let mut left = space;
    let mut taken = Vec::new();
    for line in lines {
        match left.checked_sub(line.bytes()) {
            Some(rest) => left = rest,
            None => {
                taken.push(PlainText::ours("⟨the rest is not shown here⟩"));
                return (taken, false);
            }
        }
        taken.push(line);
    }
    (taken, true)
}

/// The lines of a section. One that is too long is continued on the next, behind a sign that begins
/// no other line; so nothing in a text of the agent's can pose as a line of its own.
fn lines_of(section: &Section) -> Box<dyn Iterator<Item = PlainText> + '_> {
    match &section.body {
        Body::Sql(sql) => Box::new(numbered(sql)),
        Body::Facts(facts) => Box::new(facts.iter().flat_map(|fact| {
            let claimed = if section.claimed { "claimed " } else { "" };
            let label = PlainText::ours(claimed).and(fact.label).and(": ");
            wrapped(label, fact.value.on_one_line().as_str())
        })),
        Body::Parameters(parameters) => {
            Box::new(parameters.iter().flat_map(|parameter| {
                wrapped(PlainText::default(), parameter.to_line().on_one_line().as_str())
            }))
        }
        Body::Lines(lines) => {
            Box::new(lines.iter().flat_map(|line| wrapped(PlainText::default(), line.on_one_line().as_str())))
        }
    }
}

/// SQL behind line numbers: no line of it can pose as a heading of ours, none can be missing unseen.
fn numbered(sql: &Shown) -> impl Iterator<Item = PlainText> + '_ {
    let width = sql.as_str().split('\n').count().to_string().len();
    sql.as_str().split('\n').enumerate().flat_map(move |(place, line)| {
        chunks(line).enumerate().map(move |(part, chunk)| {
            let number = if part == 0 { format!("{:>width$}", place + 1) } else { " ".repeat(width) };
            let bar = if part == 0 { " │ " } else { " ┆ " };
            PlainText::line(number).and(bar).then(&PlainText::already_shown(chunk))
        })
    })
}

fn wrapped(label: PlainText, line: &str) -> Vec<PlainText> {
    let mut lines: Vec<PlainText> = Vec::new();
    for chunk in chunks(line) {
        let before = if lines.is_empty() { label.clone() } else { PlainText::ours("┆ ") };
        lines.push(before.then(&PlainText::already_shown(chunk)));
    }
    lines
}

/// A line in pieces of [`LONGEST_LINE`] characters; an empty line is one empty piece.
fn chunks(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let whole = rest?;
        let cut = whole.char_indices().nth(LONGEST_LINE).map(|(cut, _)| cut);
        let (chunk, after) = whole.split_at_checked(cut.unwrap_or(whole.len())).unwrap_or((whole, ""));
        rest = cut.map(|_| after);
        Some(chunk)
    })
}

fn buttons(input: &CardInput<'_>, offers: &[Verdict]) -> Option<SlackBlock> {
    let code = input.view.request.id.code();
    let mut elements: Vec<SlackActionBlockElement> = Vec::new();
    for verdict in offers {
        let (label, style) = match verdict {
            Verdict::Approve => ("Approve", Some(SlackBlockButtonStyle::Primary)),
            Verdict::Deny if input.view.state != HoldState::Waiting => {
                ("Take back", Some(SlackBlockButtonStyle::Danger))
            }
            Verdict::Deny => ("Deny", Some(SlackBlockButtonStyle::Danger)),
            Verdict::Escalate => ("Escalate", None),
        };
        let button = SlackBlockButtonElement::new(PlainText::ours(label).only())
            .with_action_id(Button::Answer(*verdict).action_id().into())
            .with_value(input.key.to_owned())
            .opt_style(style)
            .with_accessibility_label(SlackAccessibilityLabel(format!("{label} request {code}")));
        elements.push(button.into());
    }
    if let Some(url) = input.console {
        let button = SlackBlockButtonElement::new(PlainText::ours("Open").only())
            .with_action_id(Button::Open.action_id().into())
            .with_url(page_of(url, &code))
            .with_accessibility_label(SlackAccessibilityLabel(format!("Open request {code} in the console")));
        elements.push(button.into());
    }
    (!elements.is_empty()).then(|| SlackActionsBlock::new(elements).with_block_id(BUTTONS.into()).into())
}

/// The console's page of a request.
fn page_of(console: &Url, code: &str) -> Url {
    let mut url = console.clone();
    url.set_path(&format!("/requests/{code}"));
    url
}

/// A card of which nothing is known but its request's code.
pub(super) fn closed(code: &str, why: &'static str) -> Card {
    let heading = PlainText::line(code).and(" is closed");
    Card {
        text: heading.for_notification(),
        blocks: vec![heading.header(), PlainText::ours(why).section()],
        offers: Vec::new(),
    }
}

/// What the statement did, for the thread below its card.
pub(super) fn receipt(code: &str, receipt: &ReceiptJson) -> Card {
    let outcome = if receipt.completed { " ran: " } else { " did not complete: " };
    let heading = PlainText::line(code).and(outcome).then(&PlainText::line(&receipt.result));
    let figures = PlainText::line(receipt.rows.to_string())
        .and(" rows, ")
        .then(&PlainText::line(receipt.bytes.to_string()))
        .and(" bytes, ")
        .then(&PlainText::line(receipt.duration_ms.to_string()))
        .and(" ms");
    Card {
        text: PlainText::line(code).and(" ran").for_notification(),
        blocks: vec![PlainText::lines([heading, figures]).section()],
        offers: Vec::new(),
    }
}

/// How a request ended, for the thread below a card that can no longer be changed.
pub(super) fn ending(view: &RequestView) -> Card {
    let heading = heading(&view.request.id.code(), &view.state);
    let text = heading.for_notification();
    let lines = std::iter::once(heading).chain(status(view, true));
    let blocks = PlainText::lines(lines).pieces(MOST).iter().map(PlainText::section).collect();
    Card { text, blocks, offers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::Terms;
    use crate::samples::{after, draft_of, escalation, start, terms};
    use crate::statement::{Digest, RequestId};

    const SQL: &str = "COPY (SELECT id, name, email FROM customers\n      WHERE country = 'DE')\n  TO STDOUT WITH (FORMAT csv);";

    #[test]
    fn a_card_that_waits() {
        let terms = Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() };
        let view = RequestView {
            reviews: vec![review(Verdict::Escalate, Some("dora is away"))],
            behind: 2,
            ..view(SQL, terms, HoldState::Waiting)
        };

        insta::assert_snapshot!(laid_out(&render(&input(&view))));
    }

    #[test]
    fn a_card_that_was_denied() {
        let by = "bob@example.com".into();
        let denied = HoldState::Denied { by, message: Some("use the anonymised copy".to_owned()) };
        let view = RequestView {
            reviews: vec![review(Verdict::Deny, Some("use the anonymised copy"))],
            ..view(SQL, terms(), denied)
        };

        insta::assert_snapshot!(laid_out(&render(&input(&view))));
    }

    #[test]
    fn a_card_that_cannot_show_everything() {
        let sql =
            format!("INSERT INTO t VALUES\n{}  (0, 'end');", "  (1, 'one of very many rows'),\n".repeat(900));
        let view = view(&sql, terms(), HoldState::Waiting);

        insta::assert_snapshot!(laid_out(&render(&input(&view))));
    }

    #[test]
    fn a_statement_of_megabytes_is_cut_without_being_laid_out() {
        let view = view(&"x, ".repeat(1 << 20), terms(), HoldState::Waiting);

        let card = render(&input(&view));

        assert!(!card.offers.contains(&Verdict::Approve));
        assert!(bytes(&card) < 12_000);
    }

    #[test]
    fn nothing_that_people_or_agents_say_makes_a_card_too_much_for_slack() {
        let mut draft = draft_of(&"⟨".repeat(5_000), 1, terms());
        for claim in ["model", "version", "run", "task", "purpose"] {
            draft.claimed.set(claim, &"\u{202e}".repeat(400));
        }
        draft.transaction.status = None;
        draft.transaction.statements = vec!["\u{1F600}\"\\".repeat(3_000); 20];
        draft.transaction.batch = vec!["\n".repeat(2_000); 20];
        let request = request_of(draft);
        let quiet = RequestView { request, ..view(SQL, terms(), HoldState::Waiting) };
        let loud = RequestView {
            reviews: vec![review(Verdict::Approve, Some(&"\u{200b}\"".repeat(1_000))); 40],
            behind: 1_000,
            ..quiet.clone()
        };

        for view in [&quiet, &loud] {
            let card = render(&input(view));
            assert!(bytes(&card) < 12_000 && card.blocks.len() <= 50, "{}", bytes(&card));
            assert!(laid_out(&card).contains("not the whole request"), "{}", laid_out(&card));
        }
    }

    #[test]
    fn what_others_have_said_does_not_take_the_approve_button_away() {
        let whole = |length: usize, reviews: usize| {
            let view = RequestView {
                reviews: vec![review(Verdict::Approve, Some(&"because ".repeat(250))); reviews],
                ..view(&"x, ".repeat(length), terms(), HoldState::Waiting)
            };
            let card = render(&input(&view));
            assert!(bytes(&card) < 12_000);
            card.offers.contains(&Verdict::Approve)
        };
        let longest = (0..4_000).rev().step_by(25).find(|length| whole(*length, 0)).unwrap();

        assert!(longest > 1_500, "{longest}");
        assert!(whole(longest, 30));
    }

    #[test]
    fn what_is_offered_follows_how_it_stands() {
        let offers = |terms: Terms, state: HoldState, notified: usize| {
            let view = view(SQL, terms, state);
            render(&input(&RequestView { notified, ..view })).offers
        };
        let escalating = || Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() };

        use Verdict::{Approve, Deny, Escalate};
        assert_eq!(offers(terms(), HoldState::Waiting, 0), [Approve, Deny]);
        assert_eq!(offers(escalating(), HoldState::Waiting, 0), [Approve, Deny, Escalate]);
        assert_eq!(offers(escalating(), HoldState::Waiting, 1), [Approve, Deny]);
        assert_eq!(offers(Terms { assurance: Assurance::Login, ..terms() }, HoldState::Waiting, 0), [Deny]);
        assert_eq!(offers(escalating(), HoldState::Expired, 0), []);
    }

    fn view(sql: &str, terms: Terms, state: HoldState) -> RequestView {
        RequestView {
            missing: terms.approvals.clone(),
            request: request_of(draft_of(sql, 1, terms)),
            state,
            reviews: Vec::new(),
            may_answer: Vec::new(),
            required: Vec::new(),
            notified: 0,
            is_behind: false,
            behind: 0,
            receipt: None,
        }
    }

    fn request_of(draft: crate::approval::Draft) -> Arc<Request> {
        let head = crate::approval::request::TreeHead { size: 4711, root: Digest::of(b"root") };
        let id = RequestId(uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0123_4567_89ab));
        Arc::new(Request::open(id, draft, start(), Some(head), Vec::new(), None).unwrap())
    }

    fn bytes(card: &Card) -> usize {
        serde_json::to_vec(&card.blocks).unwrap().len()
    }

    fn review(verdict: Verdict, reason: Option<&str>) -> Review {
        Review {
            reviewer: "bob@example.com".into(),
            verdict,
            assurance: Assurance::Click,
            channel: crate::actor::ChannelName::Slack,
            reason: reason.map(str::to_owned),
            at: after(61),
            digest: Digest::of(b"x"),
            quick: false,
        }
    }

    fn input(view: &RequestView) -> CardInput<'_> {
        CardInput { view, key: "key", console: None }
    }

    /// As a person would see it, roughly.
    fn laid_out(card: &Card) -> String {
        let mut out = format!("({})\n", card.text);
        for block in serde_json::to_value(&card.blocks).unwrap().as_array().unwrap() {
            let text = |value: &serde_json::Value| value["text"].as_str().unwrap_or("").to_owned();
            let elements = block["elements"].as_array().cloned().unwrap_or_default();
            let shown = match block["type"].as_str().unwrap() {
                "header" => format!("# {}", text(&block["text"])),
                "context" => format!("\n-- {} --", elements.iter().map(text).collect::<String>()),
                "actions" => {
                    let labels = elements.iter().map(|element| format!("[ {} ]", text(&element["text"])));
                    format!("\n{}", labels.collect::<Vec<_>>().join("  "))
                }
                _ => text(&block["text"]),
            };
            out.push_str(&shown);
            out.push('\n');
        }
        out
    }
}
