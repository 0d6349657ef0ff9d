//! From a click to an answer.
//!
//! A click is checked against the card it should be on, its account against what the operator and
//! Slack say about it, and then it is handed in; whether it counts is the desk's to say. Whoever
//! clicked in vain is told why, so that nobody else sees it, and it is written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tracing::{error, info, warn};

use super::card::{Button, Card};
use super::check::{self, Turned};
use super::client::{CallError, Me};
use super::envelope::{Click, Interaction, Origin, Submission};
use super::facts::suitability;
use super::journal::Place;
use super::modal::{self, Asked};
use super::outbox::{Found, Known};
use super::socket::Received;
use super::text::Inert;
use super::{Inner, card, secret};
use crate::approval::{HoldState, Request, Verdict, VerdictError};
use crate::channel::answers::{Account, AccountAnswer};

/// How many clicks are looked at at a time.
const AT_A_TIME: usize = 64;
/// How many people are being told something at a time. Nobody who may approve waits for them.
const WHISPERS: usize = 64;
/// How long a click may wait for Slack to say where the card is that it is on: people can be faster
/// than the answer to the call that posted it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Slack takes the ticket of a click for so long.
const TICKET: Duration = Duration::from_secs(3);

/// The places for those who are being told something.
pub(super) fn whispers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WHISPERS))
}

/// Looks at what comes in, for ever.
pub(super) async fn run(inner: Arc<Inner>, mut inbox: mpsc::Receiver<Received>) {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    while let Some(Received { interaction, at }) = inbox.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let inner = inner.clone();
        tokio::spawn(async move {
            // There are no sockets before we know who we are.
            if let Some(me) = inner.me.load_full() {
                match *interaction {
                    Interaction::Click(click) => on_click(&inner, &me, click, at).await,
                    Interaction::Submission(submission) => on_submission(&inner, &me, submission).await,
                }
            }
            drop(place);
        });
    }
}

async fn on_click(inner: &Arc<Inner>, me: &Me, click: Click, at: Instant) {
    let verdict = match check::button(&click) {
        // The browser does the rest.
        Ok(Button::Open) => return,
        Ok(Button::Answer(verdict)) => verdict,
        Err(turned) => {
            let known = about(inner, &click);
            return turn_away(inner, &click, known.as_ref(), Verdict::Approve, &turned);
        }
    };
    let known = match find(inner, &click).await {
        Found::Card(known) => known,
        Found::OtherKey(known) => {
            return turn_away(inner, &click, Some(&known), verdict, &Turned::OtherValue);
        }
        Found::Copy(known) => {
            close(inner, me, &click, "This is a copy. The card that can be answered is another one.").await;
            let code = known.request.id.code();
            let text = Inert::line(code).and(": this card is a copy. Please use the other one.");
            return tell(inner, &click.channel, &click.by.user, &text);
        }
        Found::Nothing => return on_unknown_card(inner, me, &click, verdict).await,
    };
    let account = match check::account(&click.by, me).and_then(|account| {
        check::on_card(&click, &known, verdict)?;
        Ok(account)
    }) {
        Ok(account) => account,
        Err(turned) => return turn_away(inner, &click, Some(&known), verdict, &turned),
    };
    if let Err(why) = vet(inner, me, &account).await {
        return match why {
            Unvetted::Refused(why) => turn_away(inner, &click, Some(&known), verdict, &why),
            Unvetted::Unknown(error) => {
                tell(inner, &click.channel, &click.by.user, &unvetted(&known.request, &error));
            }
        };
    }
    let displayed_at = known.displayed_at.unwrap_or(known.request.opened_at);
    let asked =
        Asked { account, request: known.request.id, verdict, digest: known.request.digest, displayed_at };
    if is_worth_a_dialog(inner, &known.request, &asked) {
        return ask(inner, &click, &known.request, asked, at).await;
    }
    give(inner, &click.channel, &known.request, asked, None).await;
}

async fn on_submission(inner: &Arc<Inner>, me: &Me, submission: Submission) {
    let channel = inner.settings.channel.clone();
    let Submission { by, nonce, reason, .. } = submission;
    let asked = check::account(&by, me)
        .and_then(|account| inner.dialogs.lock().take(&nonce, &account).ok_or(Turned::OtherDialog));
    let asked = match asked {
        Ok(asked) => asked,
        Err(turned) => {
            warn!(account = %whoever(&by), why = %turned, "a submitted dialog was turned away");
            return tell(inner, &channel, &by.user, &Inert::line(sentence(&turned.to_string())));
        }
    };
    let Some(standing) = inner.standing(asked.request) else {
        let text = Inert::line(asked.request.code()).and(": nothing is known of this request any more.");
        return tell(inner, &channel, &by.user, &text);
    };
    let request = standing.request;
    if let Err(why) = vet(inner, me, &asked.account).await {
        let text = match why {
            Unvetted::Refused(why) => {
                note(inner, &by, &request, &asked, &why);
                refusal(&request, &why)
            }
            Unvetted::Unknown(error) => unvetted(&request, &error),
        };
        return tell(inner, &channel, &by.user, &text);
    }
    give(inner, &channel, &request, asked, reason).await;
}

/// A click on a card that nothing is known of: one of an earlier run, or a forgery.
async fn on_unknown_card(inner: &Arc<Inner>, me: &Me, click: &Click, verdict: Verdict) {
    let place = Place { channel: click.channel.clone(), ts: click.ts.clone() };
    let there = inner.outbox.lock().at(&place);
    if let Some(known) = there {
        return turn_away(inner, click, Some(&known), verdict, &Turned::OtherValue);
    }
    close(inner, me, click, "This card is of an earlier run of the proxy and cannot be answered.").await;
    let text = Inert::ours("This card cannot be answered any more. How its request ended is in the ledger.");
    tell(inner, &click.channel, &click.by.user, &text);
}

/// The card that a click seems to be about, for the record of a click that is on none of its buttons.
fn about(inner: &Inner, click: &Click) -> Option<Known> {
    let outbox = inner.outbox.lock();
    let by_value = check::value(&click.value).map(|(id, key)| outbox.find(id, key));
    match by_value {
        Some(Found::Card(known) | Found::Copy(known) | Found::OtherKey(known)) => Some(known),
        Some(Found::Nothing) | None => {
            outbox.at(&Place { channel: click.channel.clone(), ts: click.ts.clone() })
        }
    }
}

/// The card that a click is on, once Slack has said where that is.
async fn find(inner: &Inner, click: &Click) -> Found {
    let Some((id, key)) = check::value(&click.value) else { return Found::Nothing };
    let patience = Instant::now() + PATIENCE;
    loop {
        let found = inner.outbox.lock().find(id, key);
        let waiting = matches!(&found, Found::Card(Known { place: None, .. }));
        if !waiting || Instant::now() >= patience {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Why an account may not answer.
enum Unvetted {
    Refused(String),
    /// Slack does not say.
    Unknown(CallError),
}

/// Whether it is an enrolled reviewer's account, a full member's, and the channel one of ours alone.
async fn vet(inner: &Inner, me: &Me, account: &Account) -> Result<(), Unvetted> {
    if inner.answers.whose(account).is_none() {
        return Err(Unvetted::Refused("the account is not that of an enrolled reviewer".to_owned()));
    }
    let fitness = match inner.facts.user(&account.user, Instant::now()) {
        Some(known) => known,
        None => {
            let answer = inner.api.user(&account.user).await;
            inner.facts.learn_user(&account.user, answer, me, Instant::now()).map_err(Unvetted::Unknown)?
        }
    };
    fitness.map_err(|unfit| Unvetted::Refused(unfit.to_string()))?;
    let asked = &inner.settings.channel;
    let suitable = match inner.facts.channel(Instant::now()) {
        Some(known) => known,
        None => {
            let suitable = suitability(&inner.api.channel(asked).await.map_err(Unvetted::Unknown)?, asked);
            inner.facts.learn_channel(suitable, Instant::now());
            suitable
        }
    };
    suitable.map_err(|unsuitable| Unvetted::Refused(unsuitable.to_string()))
}

/// Whether a reason is to be asked for. Nobody should think about one that comes too late, or for an
/// approval that is not theirs to give; the desk tells them so at once.
fn is_worth_a_dialog(inner: &Inner, request: &Request, asked: &Asked) -> bool {
    let Some(standing) = inner.answers.standing(request.id) else { return false };
    let waits = standing.state == HoldState::Waiting;
    match asked.verdict {
        // The agent is told why, so there is always room for a reason.
        Verdict::Deny => waits || card::can_be_taken_back(&standing),
        Verdict::Approve => {
            let who = inner.answers.whose(&asked.account);
            let may = who.is_some_and(|who| standing.may_approve.contains(&who));
            waits && may && request.draft.terms.reason_required
        }
        Verdict::Escalate => false,
    }
}

/// Opens the dialog that asks for a reason.
async fn ask(inner: &Arc<Inner>, click: &Click, request: &Request, asked: Asked, at: Instant) {
    let nonce = secret();
    let view = modal::dialog(request, asked.verdict, &nonce);
    inner.dialogs.lock().insert(nonce.clone(), asked);
    let left = TICKET.saturating_sub(at.elapsed()).min(inner.settings.timing.dialog);
    let opened = inner.api.open_dialog(&click.trigger, &view, left).await;
    let Err(error) = opened else { return };
    // It may have opened all the same, when only the answer was late: then it stays good.
    if error != CallError::Late {
        inner.dialogs.lock().remove(&nonce);
    }
    info!(request = %request.id, %error, "a dialog did not open");
    let text = Inert::line(request.id.code())
        .and(": Slack did not open the dialog in time. Please press the button again.");
    tell(inner, &click.channel, &click.by.user, &text);
}

/// Hands an answer in, and tells whoever gave it when it does not count. When it does, the card says so.
async fn give(inner: &Arc<Inner>, channel: &str, request: &Request, asked: Asked, reason: Option<String>) {
    let user = asked.account.user.clone();
    let answer = AccountAnswer {
        account: asked.account,
        request: asked.request,
        verdict: asked.verdict,
        digest: asked.digest,
        reason,
        displayed_at: Some(asked.displayed_at),
    };
    let answers = inner.answers.clone();
    // The ledger may take its time.
    let given = tokio::task::spawn_blocking(move || answers.answer(&answer)).await;
    let error = match given {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error,
        Err(panic) => {
            error!(request = %request.id, %panic, "taking an answer in broke");
            VerdictError::Unrecorded
        }
    };
    tell(inner, channel, &user, &why_not(inner, request, &error));
}

fn why_not(inner: &Inner, request: &Request, error: &VerdictError) -> Inert {
    let VerdictError::TooLate { state } = error else { return refusal(request, &error.to_string()) };
    let ended = match state {
        HoldState::Granted { .. } | HoldState::Executed => " has been approved already",
        HoldState::Denied { .. } => " has been denied already",
        HoldState::Expired => " has expired",
        HoldState::Withdrawn { .. } => " was withdrawn",
        HoldState::Waiting => " cannot be answered now",
    };
    let mut text = Inert::ours("Too late: ").then(&Inert::line(request.id.code())).and(ended);
    let reviews = inner.answers.standing(request.id).map(|standing| standing.reviews).unwrap_or_default();
    let last = reviews.last().filter(|_| !matches!(state, HoldState::Expired | HoldState::Withdrawn { .. }));
    if let Some(last) = last {
        text = text.and(", by ").then(&Inert::line(last.reviewer.as_str()));
    }
    if let HoldState::Withdrawn { reason } = state {
        text = text.and(": ").then(&Inert::ours(reason.as_str()));
    }
    text.and(".")
}

/// Turns a click away: says why, and writes it down where it is known what it was about.
fn turn_away(
    inner: &Arc<Inner>,
    click: &Click,
    known: Option<&Known>,
    verdict: Verdict,
    why: &impl ToString,
) {
    let why = why.to_string();
    let Some(known) = known else {
        warn!(account = %whoever(&click.by), why, "a click was turned away");
        return tell(inner, &click.channel, &click.by.user, &Inert::line(sentence(&why)));
    };
    let request = &known.request;
    let asked = Asked {
        account: whoever(&click.by),
        request: request.id,
        verdict,
        digest: request.digest,
        displayed_at: known.displayed_at.unwrap_or(request.opened_at),
    };
    note(inner, &click.by, request, &asked, &why);
    tell(inner, &click.channel, &click.by.user, &refusal(request, &why));
}

fn note(inner: &Arc<Inner>, by: &Origin, request: &Request, asked: &Asked, why: &str) {
    let answer = AccountAnswer {
        account: whoever(by),
        request: request.id,
        verdict: asked.verdict,
        digest: asked.digest,
        reason: None,
        displayed_at: Some(asked.displayed_at),
    };
    let (answers, why) = (inner.answers.clone(), why.to_owned());
    tokio::task::spawn_blocking(move || answers.turned_away(&answer, &why));
}

/// The account as Slack told it, of whatever workspace it may be.
fn whoever(by: &Origin) -> Account {
    let team = if by.home.starts_with('E') { &by.team } else { &by.home };
    Account { team: team.clone(), user: by.user.clone() }
}

fn refusal(request: &Request, why: &str) -> Inert {
    Inert::line(request.id.code()).and(": your answer does not count. ").then(&Inert::line(sentence(why)))
}

fn unvetted(request: &Request, error: &CallError) -> Inert {
    Inert::line(request.id.code())
        .and(": your answer does not count, because Slack does not say whose account this is (")
        .then(&Inert::line(error.to_string()))
        .and("). Please try again, or use the console.")
}

/// `you are not asked` → `You are not asked.`
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// Says something to one user, where they clicked; soon, and without anybody waiting for it.
fn tell(inner: &Arc<Inner>, channel: &str, user: &str, text: &Inert) {
    let Ok(place) = inner.whispers.clone().try_acquire_owned() else {
        warn!(user, "too much to tell; somebody is not told about their click");
        return;
    };
    let card = Card {
        blocks: vec![text.section()],
        text: Inert::ours("About your answer").for_notification(),
        offers: Vec::new(),
    };
    let (inner, channel, user) = (inner.clone(), channel.to_owned(), user.to_owned());
    tokio::spawn(async move {
        whisper(&inner, &channel, &user, &card).await;
        drop(place);
    });
}

/// Worth a few attempts and no more: soon nobody remembers having clicked.
async fn whisper(inner: &Inner, channel: &str, user: &str, card: &Card) {
    for _ in 0..3 {
        let wait = match inner.api.whisper(channel, user, card).await {
            Ok(()) => return,
            Err(CallError::TooMany { wait }) => wait.min(Duration::from_secs(30)),
            Err(CallError::Said(error)) => {
                warn!(user, error, "somebody could not be told about their click");
                return;
            }
            Err(_) => inner.settings.timing.retry_first,
        };
        tokio::time::sleep(wait).await;
    }
}

/// Takes the buttons off a message of ours that is no card.
async fn close(inner: &Arc<Inner>, me: &Me, click: &Click, why: &'static str) {
    if check::account(&click.by, me).is_err() || click.channel != inner.settings.channel {
        return;
    }
    let place = Place { channel: click.channel.clone(), ts: click.ts.clone() };
    if inner.outbox.lock().at(&place).is_some() {
        return;
    }
    let code = check::value(&click.value).map_or_else(|| "This request".to_owned(), |(id, _)| id.code());
    if let Err(error) = inner.api.update(&place, &card::closed(&code, why)).await {
        info!(%error, "an old card could not be closed");
    }
}
