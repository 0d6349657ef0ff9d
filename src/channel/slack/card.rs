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

/// Slack takes no more blocks in one message.
const MOST_BLOCKS: usize = 50;
/// The most bytes that the blocks of one message may take as JSON. Slack refuses messages whose
/// blocks have somewhat more than 12,000 characters together (`msg_blocks_too_long`) and does not
/// say how it counts; this counts everything, in the largest unit.
const MOST_BYTES: usize = 12_000;
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
    /// How many of its escalations are in force.
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
    let all = lay_out(&document, &ALL);
    if all.complete {
        let whole = compose(view, &document, all.blocks, true);
        if fits(&whole.blocks) {
            return whole;
        }
    }
    compose(view, &document, lay_out(&document, &EXCERPT).blocks, false)
}

/// Renders a request without anything that could be too much for Slack.
pub(super) fn render_briefly(view: &View<'_>) -> Card {
    let document = Document::of(&view.standing.request);
    compose(view, &document, Vec::new(), false)
}

fn fits(blocks: &[SlackBlock]) -> bool {
    blocks.len() <= MOST_BLOCKS && serde_json::to_vec(blocks).is_ok_and(|json| json.len() <= MOST_BYTES)
}

fn compose(view: &View<'_>, document: &Document, sections: Vec<SlackBlock>, complete: bool) -> Card {
    let standing = view.standing;
    let request = &standing.request;
    let offers = offers(view, complete);
    let mut status = status(standing);
    if standing.state == HoldState::Waiting {
        if !complete {
            status.push(Inert::ours(
                "This is not the whole request, so it cannot be approved here. Open it in the console.",
            ));
        }
        if !clicks_are_enough(request) {
            let needed = request.draft.terms.assurance.as_str();
            status.push(
                Inert::ours("It needs ")
                    .then(&Inert::line(needed))
                    .and(" to be approved, which a click in Slack is not. Open it in the console."),
            );
        }
    }
    let mut blocks = vec![heading(&document.code, &standing.state).header()];
    blocks.push(Inert::shown(&document.title).heading());
    blocks.extend(Inert::lines(status).pieces(MOST).iter().map(Inert::section));
    blocks.extend(sections);
    blocks.extend(buttons(view, &offers));
    Card { blocks, text: notification(document, &standing.state), offers }
}

/// What may be answered here and now.
fn offers(view: &View<'_>, complete: bool) -> Vec<Verdict> {
    let standing = view.standing;
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

/// How it stands, who said what, and what is still to come.
fn status(standing: &Standing) -> Vec<Inert> {
    let request = &standing.request;
    let mut lines = Vec::new();
    match &standing.state {
        HoldState::Waiting => lines.push(
            Inert::ours("Waiting for ")
                .then(&Inert::line(missing(standing)))
                .and(", until ")
                .then(&moment(request.expires_at))
                .and("."),
        ),
        HoldState::Granted { until, .. } => {
            lines.push(Inert::ours("It may run once, until ").then(&moment(*until)).and("."));
        }
        HoldState::Denied { by, .. } => {
            lines.push(Inert::ours("It does not run. Denied by ").then(&Inert::line(by.as_str())).and("."));
        }
        HoldState::Expired => {
            lines.push(Inert::ours("It does not run: nobody answered, or used the answer, in time."))
        }
        HoldState::Withdrawn { reason } => {
            lines.push(Inert::ours("It does not run: ").then(&Inert::ours(reason)).and("."));
        }
        HoldState::Executed => lines.push(Inert::ours("It ran once; what it did is in the thread.")),
    }
    lines.extend(standing.reviews.iter().map(review));
    if standing.state == HoldState::Waiting && standing.behind > 0 {
        lines.push(
            Inert::line(standing.behind.to_string())
                .and(" identical requests wait behind this one. A denial is for all of them, an approval for this one."),
        );
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
    if review.quick {
        line = line.and(", sooner than it can be read");
    }
    match &review.reason {
        Some(reason) => line.and(": ").then(&Inert::line(reason)),
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

/// How many characters of the statement, and of each other section, are laid out.
struct Room {
    statement: usize,
    other: usize,
}

/// More than fits into any message.
const ALL: Room = Room { statement: MOST_BYTES, other: MOST_BYTES };
/// What is left on a card that cannot show everything.
const EXCERPT: Room = Room { statement: 2_000, other: 300 };

fn lay_out(document: &Document, room: &Room) -> Laid {
    let mut laid = Laid { blocks: Vec::new(), complete: true };
    for section in &document.sections {
        let mut left = if matches!(section.body, Body::Sql(_)) { room.statement } else { room.other };
        let mut lines = Vec::new();
        // Lazily: of a text of megabytes, only what may be shown is looked at.
        for line in lines_of(section) {
            if line.length() >= left {
                laid.complete = false;
                lines.push(Inert::ours("⟨the rest is not shown here⟩"));
                break;
            }
            left -= line.length() + 1;
            lines.push(line);
        }
        laid.blocks.push(Inert::ours(section.title).heading());
        laid.blocks.extend(Inert::lines(lines).pieces(MOST).iter().map(Inert::section));
    }
    laid
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
    let lines = std::iter::once(heading).chain(status(standing));
    let blocks = Inert::lines(lines).pieces(MOST).iter().map(Inert::section).collect();
    Card { text, blocks, offers: Vec::new() }
}
