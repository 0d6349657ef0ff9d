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

use super::text::{Inert, MOST};
use crate::actor::Assurance;
use crate::approval::document::{Body, Document, Section, approvals_in_words};
use crate::approval::json::ReceiptJson;
use crate::approval::{HoldState, Request, Review, Shown, Verdict};
use crate::channel::answers::Standing;

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
pub(super) struct View<'a> {
    pub(super) standing: &'a Standing,
    /// How many of the further groups have been told.
    pub(super) escalated: usize,
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
pub(super) fn render(view: &View<'_>) -> Card {
    let document = Document::of(&view.standing.request);
    for room in &ROOMS {
        let laid = lay_out(&document, room);
        if fits(&laid.blocks) {
            return compose(view, &document, laid.blocks, laid.complete);
        }
    }
    compose(view, &document, Vec::new(), false)
}

/// Renders a request without anything that could be too much for Slack.
pub(super) fn render_briefly(view: &View<'_>) -> Card {
    compose(view, &Document::of(&view.standing.request), Vec::new(), false)
}

fn fits(blocks: &[SlackBlock]) -> bool {
    blocks.len() <= DOCUMENT_BLOCKS
        && serde_json::to_vec(blocks).is_ok_and(|json| json.len() <= DOCUMENT_BYTES)
}

fn compose(view: &View<'_>, document: &Document, sections: Vec<SlackBlock>, complete: bool) -> Card {
    let standing = view.standing;
    let offers = offers(view, complete);
    let mut blocks = vec![heading(&document.code, &standing.state).header()];
    blocks.push(Inert::shown(&document.title.excerpt(LONGEST_TITLE).text.on_one_line()).heading());
    let (status, _) = take_lines(status(standing, complete).into_iter(), STATUS_BYTES);
    blocks.extend(Inert::lines(status).pieces(MOST).iter().map(Inert::section));
    blocks.extend(sections);
    blocks.extend(buttons(view, &offers));
    Card { blocks, text: notification(document, &standing.state), offers }
}

/// What may be answered here and now.
fn offers(view: &View<'_>, complete: bool) -> Vec<Verdict> {
    let standing = view.standing;
    if can_be_taken_back(standing) {
        return vec![Verdict::Deny];
    }
    if standing.state != HoldState::Waiting {
        return Vec::new();
    }
    let terms = &standing.request.draft.terms;
    let mut offers = Vec::new();
    if complete && clicks_are_enough(&standing.request) {
        offers.push(Verdict::Approve);
    }
    offers.push(Verdict::Deny);
    if view.escalated < terms.escalate.len() {
        offers.push(Verdict::Escalate);
    }
    offers
}

/// Whether a denial still changes something after the approval: when no session waits for it, a grant
/// may lie about for a while.
pub(super) fn can_be_taken_back(standing: &Standing) -> bool {
    standing.request.is_deferred() && matches!(standing.state, HoldState::Granted { handed_out: false, .. })
}

fn clicks_are_enough(request: &Request) -> bool {
    request.draft.terms.assurance <= Assurance::Click
}

fn heading(code: &str, state: &HoldState) -> Inert {
    Inert::line(code).and(match state {
        HoldState::Waiting => " waits for an answer",
        HoldState::Granted { .. } => " was approved",
        HoldState::Denied { .. } => " was denied",
        HoldState::Expired => " has expired",
        HoldState::Withdrawn { .. } => " was withdrawn",
        HoldState::Executed => " was approved and ran",
    })
}

fn notification(document: &Document, state: &HoldState) -> String {
    heading(&document.code, state).and(": ").then(&Inert::shown(&document.title)).for_notification()
}

/// How it stands, what stands in the way, and who said what: in this order, because the end may be
/// cut off.
fn status(standing: &Standing, complete: bool) -> Vec<Inert> {
    let mut lines = vec![state(standing)];
    if standing.state == HoldState::Waiting {
        lines.extend(obstacles(standing, complete));
    }
    lines.extend(standing.reviews.iter().map(review));
    lines
}

fn state(standing: &Standing) -> Inert {
    match &standing.state {
        HoldState::Waiting => Inert::ours("Waiting for ")
            .then(&Inert::line(missing(standing)))
            .and(", until ")
            .then(&moment(standing.request.expires_at))
            .and("."),
        HoldState::Granted { until, .. } => {
            Inert::ours("It may run once, until ").then(&moment(*until)).and(".")
        }
        HoldState::Denied { by, .. } => {
            Inert::ours("It does not run. Denied by ").then(&Inert::line(by.as_str())).and(".")
        }
        HoldState::Expired => Inert::ours("It does not run: nobody answered, or used the answer, in time."),
        HoldState::Withdrawn { reason } => {
            Inert::ours("It does not run: ").then(&Inert::ours(reason.as_str())).and(".")
        }
        HoldState::Executed => Inert::ours("It ran once; what it did is in the thread."),
    }
}

/// What whoever wants to approve has to know first.
fn obstacles(standing: &Standing, complete: bool) -> Vec<Inert> {
    let mut lines = Vec::new();
    if !complete {
        let why = "This is not the whole request, so it cannot be approved here. Open it in the console.";
        lines.push(Inert::ours(why));
    }
    if !clicks_are_enough(&standing.request) {
        let needed = Inert::line(standing.request.draft.terms.assurance.as_str());
        let why =
            Inert::ours("It needs a ").then(&needed).and(" to be approved, and a click in Slack is less.");
        lines.push(why.and(" Open it in the console."));
    }
    if standing.behind > 0 {
        let why = Inert::line(standing.behind.to_string()).and(" identical requests wait behind this one.");
        lines.push(why.and(" A denial is for all of them, an approval for this one."));
    }
    lines
}

fn missing(standing: &Standing) -> String {
    let asked = &standing.request.draft.terms.approvals;
    approvals_in_words(if standing.missing.is_empty() { asked } else { &standing.missing })
}

/// Who said what, when, and why.
fn review(review: &Review) -> Inert {
    let said = match review.verdict {
        Verdict::Approve => " approved",
        Verdict::Deny => " denied",
        Verdict::Escalate => " escalated",
    };
    let mut line = Inert::line(review.reviewer.as_str())
        .and(said)
        .and(" at ")
        .then(&moment(review.at))
        .and(" (")
        .then(&Inert::ours(review.channel.as_str()))
        .and(")");
    // A denial needs no reading.
    if review.quick && review.verdict == Verdict::Approve {
        line = line.and(", sooner than it can be read");
    }
    match &review.reason {
        Some(reason) => {
            let shown = Shown::line(reason).excerpt(LONGEST_REASON).text.on_one_line();
            line.and(": ").then(&Inert::shown(&shown))
        }
        None => line,
    }
}

fn moment(at: jiff::Timestamp) -> Inert {
    Inert::line(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Sections laid out, and whether that is all of them.
struct Laid {
    blocks: Vec<SlackBlock>,
    complete: bool,
}

/// How many bytes of the statement, and of each other section, are laid out.
struct Room {
    statement: usize,
    other: usize,
}

/// Tried in this order: first everything, then what is left on a card that cannot show everything.
const ROOMS: [Room; 4] = [
    Room { statement: DOCUMENT_BYTES, other: DOCUMENT_BYTES },
    Room { statement: 2_000, other: 700 },
    Room { statement: 1_500, other: 350 },
    Room { statement: 800, other: 150 },
];

fn lay_out(document: &Document, room: &Room) -> Laid {
    let mut laid = Laid { blocks: Vec::new(), complete: true };
    for section in &document.sections {
        let room = if matches!(section.body, Body::Sql(_)) { room.statement } else { room.other };
        let (lines, complete) = take_lines(lines_of(section), room);
        laid.complete &= complete;
        laid.blocks.push(Inert::ours(section.title).heading());
        laid.blocks.extend(Inert::lines(lines).pieces(MOST).iter().map(Inert::section));
    }
    laid
}

/// As many lines as there is room for, and whether that is all of them. Of a text of megabytes, only
/// what may be shown is looked at.
fn take_lines(lines: impl Iterator<Item = Inert>, room: usize) -> (Vec<Inert>, bool) {
    let mut left = room;
    let mut taken = Vec::new();
    for line in lines {
        match left.checked_sub(line.bytes()) {
            Some(rest) => left = rest,
            None => {
                taken.push(Inert::ours("⟨the rest is not shown here⟩"));
                return (taken, false);
            }
        }
        taken.push(line);
    }
    (taken, true)
}

/// The lines of a section. One that is too long is continued on the next, behind a sign that begins
/// no other line; so nothing in a text of the agent's can pose as a line of its own.
fn lines_of(section: &Section) -> Box<dyn Iterator<Item = Inert> + '_> {
    match &section.body {
        Body::Sql(sql) => Box::new(numbered(sql)),
        Body::Facts(facts) => Box::new(facts.iter().flat_map(|fact| {
            let claimed = if section.claimed { "claimed " } else { "" };
            let label = Inert::ours(claimed).and(fact.label).and(": ");
            wrapped(label, fact.value.on_one_line().as_str())
        })),
        Body::Parameters(parameters) => Box::new(
            parameters
                .iter()
                .flat_map(|parameter| wrapped(Inert::default(), parameter.to_line().on_one_line().as_str())),
        ),
        Body::Lines(lines) => {
            Box::new(lines.iter().flat_map(|line| wrapped(Inert::default(), line.on_one_line().as_str())))
        }
    }
}

/// SQL behind line numbers: no line of it can pose as a heading of ours, none can be missing unseen.
fn numbered(sql: &Shown) -> impl Iterator<Item = Inert> + '_ {
    let width = sql.as_str().split('\n').count().to_string().len();
    sql.as_str().split('\n').enumerate().flat_map(move |(place, line)| {
        chunks(line).enumerate().map(move |(part, chunk)| {
            let number = if part == 0 { format!("{:>width$}", place + 1) } else { " ".repeat(width) };
            let bar = if part == 0 { " │ " } else { " ┆ " };
            Inert::line(number).and(bar).then(&Inert::already_shown(chunk))
        })
    })
}

fn wrapped(label: Inert, line: &str) -> Vec<Inert> {
    let mut lines: Vec<Inert> = Vec::new();
    for chunk in chunks(line) {
        let before = if lines.is_empty() { label.clone() } else { Inert::ours("┆ ") };
        lines.push(before.then(&Inert::already_shown(chunk)));
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

fn buttons(view: &View<'_>, offers: &[Verdict]) -> Option<SlackBlock> {
    let code = view.standing.request.id.code();
    let mut elements: Vec<SlackActionBlockElement> = Vec::new();
    for verdict in offers {
        let (label, style) = match verdict {
            Verdict::Approve => ("Approve", Some(SlackBlockButtonStyle::Primary)),
            Verdict::Deny if view.standing.state != HoldState::Waiting => {
                ("Take back", Some(SlackBlockButtonStyle::Danger))
            }
            Verdict::Deny => ("Deny", Some(SlackBlockButtonStyle::Danger)),
            Verdict::Escalate => ("Escalate", None),
        };
        let button = SlackBlockButtonElement::new(Inert::ours(label).only())
            .with_action_id(Button::Answer(*verdict).action_id().into())
            .with_value(view.key.to_owned())
            .opt_style(style)
            .with_accessibility_label(SlackAccessibilityLabel(format!("{label} request {code}")));
        elements.push(button.into());
    }
    if let Some(url) = view.console {
        let button = SlackBlockButtonElement::new(Inert::ours("Open").only())
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
    let heading = Inert::line(code).and(" is closed");
    Card {
        text: heading.for_notification(),
        blocks: vec![heading.header(), Inert::ours(why).section()],
        offers: Vec::new(),
    }
}

/// What the statement did, for the thread below its card.
pub(super) fn receipt(code: &str, receipt: &ReceiptJson) -> Card {
    let outcome = if receipt.completed { " ran: " } else { " did not complete: " };
    let heading = Inert::line(code).and(outcome).then(&Inert::line(&receipt.result));
    let figures = Inert::line(receipt.rows.to_string())
        .and(" rows, ")
        .then(&Inert::line(receipt.bytes.to_string()))
        .and(" bytes, ")
        .then(&Inert::line(receipt.duration_ms.to_string()))
        .and(" ms");
    Card {
        text: Inert::line(code).and(" ran").for_notification(),
        blocks: vec![Inert::lines([heading, figures]).section()],
        offers: Vec::new(),
    }
}

/// How a request ended, for the thread below a card that can no longer be changed.
pub(super) fn ending(standing: &Standing) -> Card {
    let heading = heading(&standing.request.id.code(), &standing.state);
    let text = heading.for_notification();
    let lines = std::iter::once(heading).chain(status(standing, true));
    let blocks = Inert::lines(lines).pieces(MOST).iter().map(Inert::section).collect();
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
        let standing = Standing {
            reviews: vec![review(Verdict::Escalate, Some("dora is away"))],
            behind: 2,
            ..standing(SQL, terms, HoldState::Waiting)
        };

        insta::assert_snapshot!(laid_out(&render(&view(&standing))));
    }

    #[test]
    fn a_card_that_was_denied() {
        let by = "bob@example.com".into();
        let denied = HoldState::Denied { by, message: Some("use the anonymised copy".to_owned()) };
        let standing = Standing {
            reviews: vec![review(Verdict::Deny, Some("use the anonymised copy"))],
            ..standing(SQL, terms(), denied)
        };

        insta::assert_snapshot!(laid_out(&render(&view(&standing))));
    }

    #[test]
    fn a_card_that_cannot_show_everything() {
        let sql =
            format!("INSERT INTO t VALUES\n{}  (0, 'end');", "  (1, 'one of very many rows'),\n".repeat(900));
        let standing = standing(&sql, terms(), HoldState::Waiting);

        insta::assert_snapshot!(laid_out(&render(&view(&standing))));
    }

    #[test]
    fn a_statement_of_megabytes_is_cut_without_being_laid_out() {
        let standing = standing(&"x, ".repeat(1 << 20), terms(), HoldState::Waiting);

        let card = render(&view(&standing));

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
        let quiet = Standing { request, ..standing(SQL, terms(), HoldState::Waiting) };
        let loud = Standing {
            reviews: vec![review(Verdict::Approve, Some(&"\u{200b}\"".repeat(1_000))); 40],
            behind: 1_000,
            ..quiet.clone()
        };

        for standing in [&quiet, &loud] {
            let card = render(&view(standing));
            assert!(bytes(&card) < 12_000 && card.blocks.len() <= 50, "{}", bytes(&card));
            assert!(laid_out(&card).contains("not the whole request"), "{}", laid_out(&card));
        }
    }

    #[test]
    fn what_others_have_said_does_not_take_the_approve_button_away() {
        let whole = |length: usize, reviews: usize| {
            let standing = Standing {
                reviews: vec![review(Verdict::Approve, Some(&"because ".repeat(250))); reviews],
                ..standing(&"x, ".repeat(length), terms(), HoldState::Waiting)
            };
            let card = render(&view(&standing));
            assert!(bytes(&card) < 12_000);
            card.offers.contains(&Verdict::Approve)
        };
        let longest = (0..4_000).rev().step_by(25).find(|length| whole(*length, 0)).unwrap();

        assert!(longest > 1_500, "{longest}");
        assert!(whole(longest, 30));
    }

    #[test]
    fn what_is_offered_follows_how_it_stands() {
        let offers = |terms: Terms, state: HoldState, escalated: usize| {
            let standing = standing(SQL, terms, state);
            render(&View { escalated, ..view(&standing) }).offers
        };
        let escalating = || Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() };

        use Verdict::{Approve, Deny, Escalate};
        assert_eq!(offers(terms(), HoldState::Waiting, 0), [Approve, Deny]);
        assert_eq!(offers(escalating(), HoldState::Waiting, 0), [Approve, Deny, Escalate]);
        assert_eq!(offers(escalating(), HoldState::Waiting, 1), [Approve, Deny]);
        assert_eq!(offers(Terms { assurance: Assurance::Login, ..terms() }, HoldState::Waiting, 0), [Deny]);
        assert_eq!(offers(escalating(), HoldState::Expired, 0), []);
    }

    fn standing(sql: &str, terms: Terms, state: HoldState) -> Standing {
        Standing {
            missing: terms.approvals.clone(),
            request: request_of(draft_of(sql, 1, terms)),
            state,
            reviews: Vec::new(),
            may_approve: Vec::new(),
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

    fn view(standing: &Standing) -> View<'_> {
        View { standing, escalated: 0, key: "key", console: None }
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
