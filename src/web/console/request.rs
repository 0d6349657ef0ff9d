//! One request, whole: what an answer is given on.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::page::{Answer, Frame, Place, Problem, SignedIn, render};
use super::requests::tier;
use super::statement::{self, Laid};
use super::words::{bytes, count, duration, moment, number, relative};
use crate::actor::{Assurance, Reviewer};
use crate::approval::document::{Body, Document, Section, SectionId};
use crate::approval::parameter::ShownParameter;
use crate::approval::quorum::{self, RequiredGroup};
use crate::approval::{HoldState, Review, Shown, Verdict};
use crate::desk::RequestView;
use crate::statement::TransactionStatus;
use crate::web::Web;
use crate::web::api::ApiError;
use crate::web::caller::{Browser, Seen};

#[derive(Template)]
#[template(path = "request.html")]
pub(super) struct RequestPage {
    frame: Frame,
    code: String,
    title: String,
    class: &'static str,
    tier: &'static str,
    /// What a reader should know before reading.
    notes: Vec<Note>,
    laid: Laid,
    /// Length and shape of the exact bytes, in words.
    shape: String,
    digest: String,
    words: String,
    /// The exact bytes may be downloaded; not when they hold secrets.
    has_bytes: bool,
    /// The session that an approval is for, in words.
    scope: &'static str,
    parameters: Vec<ShownParameter>,
    reasons: Vec<ReasonLine>,
    rules: String,
    cards: Vec<Card>,
    status: RequestStatus,
    form: Option<VerdictForm>,
    /// Why this reader cannot approve.
    cannot: Option<Cannot>,
    banner: Option<Banner>,
}

/// Something to know before reading.
struct Note {
    /// `danger`, `warning` or `info`.
    kind: &'static str,
    title: String,
    text: String,
}

struct ReasonLine {
    number: usize,
    class: &'static str,
    tier: &'static str,
    text: String,
    /// The place it is about is emphasised in the statement.
    is_marked: bool,
}

/// A section of the document.
struct Card {
    id: String,
    title: &'static str,
    claimed: bool,
    facts: Vec<(&'static str, String)>,
    lines: Vec<String>,
    /// The lines are the agent's SQL, or the planner's words, and need room.
    wide: bool,
}

/// How the request stands.
pub(super) struct RequestStatus {
    state: &'static str,
    heading: String,
    sentence: String,
    opened: Time,
    expires: Time,
    waits: bool,
    /// How long it may wait in all, and how long it still may, in seconds.
    total_s: i64,
    left_s: i64,
    required: Vec<RequiredLine>,
    terms: Vec<(&'static str, String)>,
    reviews: Vec<ReviewLine>,
    receipt: Option<ReceiptLine>,
}

/// A moment, for people and for scripts.
pub(super) struct Time {
    pub(super) iso: String,
    pub(super) moment: String,
    pub(super) relative: String,
}

impl Time {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { iso: at.to_string(), moment: moment(at), relative: relative(at, now) }
    }
}

struct RequiredLine {
    group: String,
    count: u32,
    got: u32,
    stand_ins: String,
}

struct ReviewLine {
    reviewer: String,
    verdict: &'static str,
    how: String,
    at: Time,
    reason: Option<String>,
    quick: bool,
}

struct ReceiptLine {
    completed: bool,
    result: String,
    facts: String,
}

struct VerdictForm {
    seen: String,
    reason_required: bool,
    approve: bool,
    deny: bool,
    escalate: Option<String>,
}

/// Why somebody cannot approve.
struct Cannot {
    title: &'static str,
    text: String,
}

/// What came of an answer.
pub(super) struct Banner {
    /// `good` or `bad`.
    pub(super) kind: &'static str,
    pub(super) title: String,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Came {
    /// The verdict that was given just now.
    done: Option<String>,
}

pub(super) async fn page(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Path(id): Path<String>,
    Query(came): Query<Came>,
) -> Answer {
    let found = web.0.desk.request(&id).ok_or_else(not_remembered)?;
    web.0.desk.note_displayed(found.request.id, &browser.who.reviewer().id);
    let banner = came.done.and_then(|verdict| banner(&verdict, &found, &browser));
    show(&web, &browser, &found, banner, StatusCode::OK)
}

/// The page of `found`, as `browser` may see it.
pub(super) fn show(
    web: &Web,
    browser: &Browser,
    found: &RequestView,
    banner: Option<Banner>,
    status: StatusCode,
) -> Answer {
    let request = &found.request;
    let draft = &request.draft;
    let now = web.now();
    let document = Document::of(request);
    let laid = statement::lay_out(request);
    let parameters = match document.section(SectionId::Parameters).map(|section| &section.body) {
        Some(Body::Parameters(parameters)) => parameters.clone(),
        Some(Body::Facts(_) | Body::Sql(_) | Body::Lines(_)) | None => Vec::new(),
    };
    let values: usize = parameters.iter().filter_map(|p| p.value.as_ref()).map(|v| v.as_str().len()).sum();
    // A page of many megabytes is no page. What is left out is said, and Approve with it.
    let whole = laid.whole && values <= statement::MOST_CHARS;
    let parameters = if values <= statement::MOST_CHARS { parameters } else { Vec::new() };
    let (form, cannot) = form(web, browser, found, whole, now);
    let sql = &draft.statement.sql;
    let lines = sql.to_display().lines().count();
    let class = draft.classification.class;
    let rules: Vec<&str> = draft.terms.rules.iter().map(|rule| rule.as_str()).collect();
    let page = RequestPage {
        frame: Frame::new(web, browser, Place::Requests, format!("{} · {}", request.id, document.title)),
        code: request.id.code(),
        title: document.title.to_string(),
        class: class.as_str(),
        tier: tier(class),
        notes: notes(found, &laid, whole),
        shape: format!(
            "{}, {}, sent as {}",
            bytes(sql.len() as u64),
            count(lines, "line", "lines"),
            draft.statement.via.as_str()
        ),
        digest: request.digest.to_string(),
        words: request.words.join(" "),
        has_bytes: draft.classification.redacted_sql.is_none(),
        scope: if request.is_deferred() { "any one session of this agent" } else { "this session" },
        reasons: reasons(found, &laid),
        rules: rules.join(", "),
        cards: document.sections.iter().filter_map(card).collect(),
        status: status_of(found, now),
        parameters,
        laid,
        form,
        cannot,
        banner,
    };
    Ok(render(status, &page))
}

fn not_remembered() -> Problem {
    let advice = "Requests that ended long ago are in the ledger: search it for the code.";
    Problem::not_found("There is no such request, or it is not remembered any more.", advice)
}

/// What a reader should know before reading, the most important first.
fn notes(found: &RequestView, laid: &Laid, whole: bool) -> Vec<Note> {
    let request = &found.request;
    let draft = &request.draft;
    let mut notes = Vec::new();
    let mut note = |kind, title: &str, text: String| notes.push(Note { kind, title: title.to_owned(), text });
    if !whole {
        note(
            "danger",
            "This is not all of it",
            format!(
                "The statement and its values have {} characters, more than can be read on a page, so there is no Approve here. Download the exact bytes and read them; then `countersign requests approve {}` on the command line, which names their digest. Deny works here.",
                number(laid.chars as u64),
                request.id
            ),
        );
    }
    let waits = found.state == HoldState::Waiting;
    match draft.transaction.status {
        Some(TransactionStatus::InBlock) if waits => note(
            "warning",
            "Locks are held while this waits",
            "The agent's transaction is open. It keeps its locks until this is answered or expires."
                .to_owned(),
        ),
        None if waits => note(
            "warning",
            "Upstream is still busy",
            "Statements sent before this one have not finished, so a transaction may be open and hold locks."
                .to_owned(),
        ),
        Some(TransactionStatus::InBlock | TransactionStatus::Idle | TransactionStatus::Failed) | None => {}
    }
    if laid.marked > 0 {
        note(
            "warning",
            "Some characters are not what they seem",
            format!(
                "{} invisible, reordering or look-alike: {} written as ⟨U+…⟩ beside or in place of the character.",
                count(laid.marked, "character is", "characters are"),
                if laid.marked == 1 { "it is" } else { "they are" }
            ),
        );
    }
    let parts = draft.classification.parts.len();
    if parts > 1 {
        note(
            "info",
            "Several statements",
            format!("This is {parts} statements that run, or do not run, together."),
        );
    }
    if draft.classification.redacted_sql.is_some() {
        let text = "Passwords in the text are replaced for display. The digest covers the original.";
        note("info", "Secrets are hidden", text.to_owned());
    }
    if request.is_deferred() {
        let life = duration(draft.terms.expires);
        let text = format!(
            "No session waits for it. Once approved, the agent may run this statement once, within {life}."
        );
        note("info", "Deferred", text);
    }
    if found.behind > 0 {
        let text = format!(
            "{} from this agent wait behind it. An approval is for this one alone; a denial is for all.",
            count(found.behind, "identical request", "identical requests")
        );
        note("info", "Asked more than once", text);
    }
    notes
}

fn reasons(found: &RequestView, laid: &Laid) -> Vec<ReasonLine> {
    let marked =
        |number| laid.lines.iter().flat_map(|line| &line.pieces).any(|piece| piece.reason == Some(number));
    let reasons = &found.request.draft.classification.reasons;
    let line = |(place, reason): (usize, &crate::classify::Reason)| ReasonLine {
        number: place + 1,
        class: reason.class.as_str(),
        tier: tier(reason.class),
        text: Shown::line(&reason.text).to_string(),
        is_marked: marked(place + 1),
    };
    reasons.iter().enumerate().map(line).collect()
}

/// The sections that have no place of their own on the page.
fn card(section: &Section) -> Option<Card> {
    // What stands below the statement already.
    let is_said = |label| section.id == SectionId::Proof && matches!(label, "digest" | "words");
    let (facts, lines) = match &section.body {
        Body::Facts(facts) => {
            let facts = facts.iter().filter(|fact| !is_said(fact.label));
            (facts.map(|fact| (fact.label, fact.value.to_string())).collect(), vec![])
        }
        // The first line of the effects stands above the statement.
        Body::Lines(lines) if section.id == SectionId::Effects => {
            (vec![], lines.iter().skip(1).map(context_line).collect())
        }
        Body::Lines(lines) => (vec![], lines.iter().map(context_line).collect()),
        Body::Sql(_) | Body::Parameters(_) => return None,
    };
    let wide = match section.id {
        SectionId::Transaction | SectionId::Past | SectionId::Proof => true,
        SectionId::Effects | SectionId::Agent | SectionId::Claims | SectionId::Target => false,
        SectionId::Statement | SectionId::Parameters | SectionId::Reasons | SectionId::Answer => return None,
    };
    let id = serde_json::to_value(section.id).ok()?.as_str()?.to_owned();
    let title =
        if section.id == SectionId::Claims { "What the agent says about itself" } else { section.title };
    if facts.is_empty() && lines.is_empty() {
        return None;
    }
    Some(Card { id, title, claimed: section.claimed, facts, lines, wide })
}

/// The longest line of what is around the statement. It is context: the answer does not cover it.
const LONGEST_CONTEXT: usize = 4_000;

fn context_line(line: &Shown) -> String {
    line.excerpt(LONGEST_CONTEXT).text.to_string()
}

fn status_of(found: &RequestView, now: Timestamp) -> RequestStatus {
    let request = &found.request;
    let terms = &request.draft.terms;
    let (heading, sentence) = state_in_words(found, now);
    let mut said = vec![
        ("assurance", terms.assurance.as_str().to_owned()),
        ("reason", if terms.reason_required { "required" } else { "optional" }.to_owned()),
    ];
    for step in &terms.escalate {
        let groups: Vec<&str> = step.stands_in_for.iter().map(|group| group.as_str()).collect();
        let text = format!("{} may answer for {} after {}", step.to, groups.join(", "), duration(step.after));
        said.push(("escalation", text));
    }
    RequestStatus {
        state: found.state.as_str(),
        heading,
        sentence,
        opened: Time::new(request.opened_at, now),
        expires: Time::new(request.expires_at, now),
        waits: found.state == HoldState::Waiting,
        total_s: request.expires_at.duration_since(request.opened_at).as_secs().max(1),
        left_s: request.expires_at.duration_since(now).as_secs().max(0),
        required: required(found),
        terms: said,
        reviews: found.reviews.iter().map(|review| review_line(review, now)).collect(),
        receipt: found.receipt.as_ref().map(|receipt| ReceiptLine {
            completed: receipt.completed,
            result: Shown::line(&receipt.result).to_string(),
            facts: format!(
                "{} rows, {} to the agent, {}",
                number(receipt.rows),
                bytes(receipt.bytes),
                duration(std::time::Duration::from_millis(receipt.duration_ms))
            ),
        }),
    }
}

fn state_in_words(found: &RequestView, now: Timestamp) -> (String, String) {
    let said = |heading: &str, sentence: String| (heading.to_owned(), sentence);
    match &found.state {
        HoldState::Waiting => {
            let missing = crate::approval::document::approvals_in_words(&found.missing);
            let whose = if found.request.is_deferred() { "" } else { " The agent's session waits." };
            said("Waiting", format!("For {missing}.{whose}"))
        }
        HoldState::Granted { until, handed_out: false } => {
            said("Approved", format!("It has not run yet; it may, once, until {}.", moment(*until)))
        }
        HoldState::Granted { handed_out: true, .. } => {
            said("Approved", "It was handed to the agent's session to run.".to_owned())
        }
        HoldState::Denied { by, message } => {
            let told = if message.is_some() { "The agent was told why." } else { "The agent was told." };
            said("Denied", format!("By {by}. {told} It did not run."))
        }
        HoldState::Expired => {
            let ago = relative(found.request.expires_at, now);
            said("Expired", format!("Its time was over {ago}. It did not run."))
        }
        HoldState::Withdrawn { reason } => said("Withdrawn", format!("Because {reason}. It did not run.")),
        HoldState::Executed => said("Ran", "The approved statement was forwarded, once.".to_owned()),
    }
}

fn required(found: &RequestView) -> Vec<RequiredLine> {
    let terms = &found.request.draft.terms;
    // Once it is over nobody is asked any more; then it shows who was.
    let asked = if found.required.is_empty() { quorum::required(terms, 0) } else { found.required.clone() };
    let is_over = found.state != HoldState::Waiting;
    asked
        .iter()
        .map(|needed: &RequiredGroup| {
            let missing = found.missing.iter().find(|missing| missing.group == needed.group);
            let missing = missing.map_or(0, |missing| missing.count);
            let granted = matches!(found.state, HoldState::Granted { .. } | HoldState::Executed);
            let got = match (is_over, granted) {
                (false, _) => needed.count.saturating_sub(missing),
                (true, true) => needed.count,
                (true, false) => 0,
            };
            let stand_ins: Vec<&str> = needed.stand_ins.iter().map(|group| group.as_str()).collect();
            RequiredLine {
                group: needed.group.to_string(),
                count: needed.count,
                got,
                stand_ins: stand_ins.join(", "),
            }
        })
        .collect()
}

fn review_line(review: &Review, now: Timestamp) -> ReviewLine {
    ReviewLine {
        reviewer: review.reviewer.to_string(),
        verdict: match review.verdict {
            Verdict::Approve => "approved",
            Verdict::Deny => "denied",
            Verdict::Escalate => "escalated",
        },
        how: format!("by {}, {}", review.channel, review.assurance.as_str()),
        at: Time::new(review.at, now),
        reason: review.reason.as_deref().map(|reason| Shown::of(reason).to_string()),
        // A denial needs no reading.
        quick: review.quick && review.verdict == Verdict::Approve,
    }
}

/// The form for an answer, with the buttons that this reader has; and why Approve is not among them.
fn form(
    web: &Web,
    browser: &Browser,
    found: &RequestView,
    whole: bool,
    now: Timestamp,
) -> (Option<VerdictForm>, Option<Cannot>) {
    if found.state != HoldState::Waiting {
        return (None, None);
    }
    let request = &found.request;
    let terms = &request.draft.terms;
    let agent = &request.draft.identity.agent;
    let directory = web.0.directory.load();
    let owners = directory.owners(&agent.name);
    let reviewer = browser.who.reviewer();
    let in_time = quorum::required(terms, usize::MAX);
    let cannot = cannot_approve(reviewer, browser.who.assurance(), found, owners);
    let deny = quorum::may_deny(reviewer, agent, owners, &in_time).is_ok();
    let next = terms.escalate.get(found.notified);
    let may_escalate = quorum::may_approve(reviewer, agent, owners, &in_time).is_ok();
    let escalate = next.filter(|_| may_escalate).map(|step| step.to.to_string());
    let approve = cannot.is_none() && whole;
    if !approve && !deny && escalate.is_none() {
        return (None, cannot);
    }
    let seen = Seen { digest: request.digest, at: now, whole };
    let form = VerdictForm {
        seen: web.seen_token(browser, &seen),
        reason_required: terms.reason_required,
        approve,
        deny,
        escalate,
    };
    (Some(form), cannot)
}

fn cannot_approve(
    reviewer: &Reviewer,
    assurance: Assurance,
    found: &RequestView,
    owners: &[crate::actor::PersonName],
) -> Option<Cannot> {
    let terms = &found.request.draft.terms;
    let agent = &found.request.draft.identity.agent;
    let cannot = |title, text: String| Some(Cannot { title, text });
    if let Err(why) = quorum::may_approve(reviewer, agent, owners, &found.required) {
        let advice = match why {
            quorum::NotAllowed::OwnsTheAgent => " You can deny: saying no needs less than saying yes.",
            quorum::NotAllowed::IsTheAgent | quorum::NotAllowed::NotAsked { .. } => "",
        };
        let mut why = why.to_string();
        if let Some(first) = why.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        return cannot("You cannot approve this", format!("{why}.{advice}"));
    }
    let approved = |review: &Review| review.verdict == Verdict::Approve && review.reviewer == reviewer.id;
    if found.reviews.iter().any(approved) {
        return cannot("You have approved", "Others are still missing. You can still deny.".to_owned());
    }
    if assurance < terms.assurance {
        let text =
            "The rule asks for a recent sign-in by a link from the operator. Sign in again, then answer.";
        return cannot("Not sure enough that it is you", text.to_owned());
    }
    None
}

/// What is said after an answer that counted. Only what is known to be true now: the address may
/// have been typed.
fn banner(verdict: &str, found: &RequestView, browser: &Browser) -> Option<Banner> {
    let me = &browser.who.reviewer().id;
    let mine = found.reviews.iter().rev().find(|review| review.reviewer == *me)?;
    if mine.verdict.as_str() != verdict {
        return None;
    }
    let (title, text) = match (mine.verdict, &found.state) {
        (Verdict::Approve, HoldState::Waiting) => {
            let missing = crate::approval::document::approvals_in_words(&found.missing);
            ("Your approval counts", format!("Still missing: {missing}."))
        }
        (Verdict::Approve, _) => ("Your approval counts", "Nobody else is needed.".to_owned()),
        (Verdict::Deny, _) => {
            ("Denied", "The agent has been told, and the statement did not run.".to_owned())
        }
        (Verdict::Escalate, _) => {
            ("Escalated", "The next group has been told. It may approve once its time has come.".to_owned())
        }
    };
    Some(Banner { kind: "good", title: title.to_owned(), text })
}

pub(super) async fn exact_bytes(
    State(web): State<Web>,
    SignedIn(_): SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = web.0.desk.request(&id).ok_or_else(not_remembered)?;
    crate::web::api::exact_bytes(&found).map_err(|error: ApiError| error.into())
}
