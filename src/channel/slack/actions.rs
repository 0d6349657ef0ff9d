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
use super::check::{self, ClickError};
use super::client::{AppIdentity, CallError};
use super::envelope::{Click, Interaction, Origin, Submission};
use super::lookups::check_channel;
use super::modal::{self, PendingAnswer};
use super::socket::Received;
use super::text::PlainText;
use super::{Inner, card, secret};
use crate::approval::{HoldState, Request, Verdict, VerdictError};
use crate::channel::accounts::AccountAnswer;
use crate::channel::journal::MessageRef;
use crate::channel::outbox::{CardMatch, ShownCard};
use crate::identity::account::ChatAccount;

/// How many clicks are looked at at a time.
const AT_A_TIME: usize = 64;
/// How many people are being told something at a time. Nobody who may approve waits for them.
const MAX_EPHEMERAL: usize = 64;
/// How long a click may wait for Slack to say where the card is that it is on: people can be faster
/// than the answer to the call that posted it.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// Slack takes the ticket of a click for so long.
const TRIGGER_LIFE: Duration = Duration::from_secs(3);

/// The places for those who are being told something.
pub(super) fn ephemeral_slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_EPHEMERAL))
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

async fn on_click(inner: &Arc<Inner>, me: &AppIdentity, click: Click, at: Instant) {
    let verdict = match check::button(&click) {
        // The browser does the rest.
        Ok(Button::Open) => return,
        Ok(Button::Answer(verdict)) => verdict,
        Err(error) => {
            let known = about(inner, &click);
            return reject_click(inner, &click, known.as_ref(), Verdict::Approve, &error);
        }
    };
    let known = match find(inner, &click).await {
        CardMatch::Current(known) => known,
        CardMatch::OtherKey(known) => {
            return reject_click(inner, &click, Some(&known), verdict, &ClickError::OtherValue);
        }
        CardMatch::Copy(known) => {
            close(inner, me, &click, "This is a copy. The card that can be answered is another one.").await;
            let code = known.request.id.code();
            let text = PlainText::line(code).and(": this card is a copy. Please use the other one.");
            return tell_user(inner, &click.channel, &click.by.user, &text);
        }
        CardMatch::Unknown => return on_unknown_card(inner, me, &click, verdict).await,
    };
    let account = match check::account(&click.by, me).and_then(|account| {
        check::on_card(&click, &known, verdict)?;
        Ok(account)
    }) {
        Ok(account) => account,
        Err(error) => return reject_click(inner, &click, Some(&known), verdict, &error),
    };
    if let Err(why) = check_reviewer(inner, me, &account).await {
        return match why {
            AccountRejection::Refused(why) => reject_click(inner, &click, Some(&known), verdict, &why),
            AccountRejection::Unknown(error) => {
                tell_user(inner, &click.channel, &click.by.user, &lookup_failed_text(&known.request, &error));
            }
        };
    }
    let displayed_at = known.displayed_at.unwrap_or(known.request.opened_at);
    let asked = PendingAnswer {
        account,
        request: known.request.id,
        verdict,
        digest: known.request.digest,
        displayed_at,
    };
    if needs_dialog(inner, &known.request, &asked) {
        return open_dialog(inner, &click, &known.request, asked, at).await;
    }
    submit_answer(inner, &click.channel, &known.request, asked, None).await;
}

async fn on_submission(inner: &Arc<Inner>, me: &AppIdentity, submission: Submission) {
    let channel = inner.settings.channel.clone();
    let Submission { by, nonce, reason, .. } = submission;
    let asked = check::account(&by, me)
        .and_then(|account| inner.dialogs.lock().take(&nonce, &account).ok_or(ClickError::OtherDialog));
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            warn!(account = %account_of(&by), why = %error, "a submitted dialog was error away");
            return tell_user(inner, &channel, &by.user, &PlainText::line(sentence(&error.to_string())));
        }
    };
    let Some(view) = inner.view(asked.request) else {
        let text = PlainText::line(asked.request.code()).and(": nothing is known of this request any more.");
        return tell_user(inner, &channel, &by.user, &text);
    };
    let request = view.request;
    if let Err(why) = check_reviewer(inner, me, &asked.account).await {
        let text = match why {
            AccountRejection::Refused(why) => {
                record_refused(inner, &by, &request, &asked, &why);
                refusal_text(&request, &why)
            }
            AccountRejection::Unknown(error) => lookup_failed_text(&request, &error),
        };
        return tell_user(inner, &channel, &by.user, &text);
    }
    submit_answer(inner, &channel, &request, asked, reason).await;
}

/// A click on a card that nothing is known of: one of an earlier run, or a forgery.
async fn on_unknown_card(inner: &Arc<Inner>, me: &AppIdentity, click: &Click, verdict: Verdict) {
    let place = MessageRef { channel: click.channel.clone(), message: click.ts.clone() };
    let there = inner.outbox.lock().at(&place);
    if let Some(known) = there {
        return reject_click(inner, click, Some(&known), verdict, &ClickError::OtherValue);
    }
    close(inner, me, click, "This card is of an earlier run of the proxy and cannot be answered.").await;
    let text =
        PlainText::ours("This card cannot be answered any more. How its request ended is in the ledger.");
    tell_user(inner, &click.channel, &click.by.user, &text);
}

/// The card that a click seems to be about, for the record of a click that is on none of its buttons.
fn about(inner: &Inner, click: &Click) -> Option<ShownCard> {
    let outbox = inner.outbox.lock();
    let by_value = check::value(&click.value).map(|(id, key)| outbox.find(id, key));
    match by_value {
        Some(CardMatch::Current(known) | CardMatch::Copy(known) | CardMatch::OtherKey(known)) => Some(known),
        Some(CardMatch::Unknown) | None => {
            outbox.at(&MessageRef { channel: click.channel.clone(), message: click.ts.clone() })
        }
    }
}

/// The card that a click is on, once Slack has said where that is.
async fn find(inner: &Inner, click: &Click) -> CardMatch {
    let Some((id, key)) = check::value(&click.value) else { return CardMatch::Unknown };
    let patience = Instant::now() + PLACE_WAIT;
    loop {
        let found = inner.outbox.lock().find(id, key);
        let waiting = matches!(&found, CardMatch::Current(ShownCard { place: None, .. }));
        if !waiting || Instant::now() >= patience {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Why an account may not answer.
enum AccountRejection {
    Refused(String),
    /// Slack does not say.
    Unknown(CallError),
}

/// Whether it is an enrolled reviewer's account, a full member's, and the channel one of ours alone.
async fn check_reviewer(
    inner: &Inner,
    me: &AppIdentity,
    account: &ChatAccount,
) -> Result<(), AccountRejection> {
    if inner.answers.reviewer_of(account).is_none() {
        return Err(AccountRejection::Refused("the account is not that of an enrolled reviewer".to_owned()));
    }
    let check_account = match inner.lookups.user(&account.user, Instant::now()) {
        Some(known) => known,
        None => {
            let answer = inner.api.user(&account.user).await;
            inner
                .lookups
                .remember_user(&account.user, answer, me, Instant::now())
                .map_err(AccountRejection::Unknown)?
        }
    };
    check_account.map_err(|unfit| AccountRejection::Refused(unfit.to_string()))?;
    let asked = &inner.settings.channel;
    let suitable = match inner.lookups.channel(Instant::now()) {
        Some(known) => known,
        None => {
            let suitable =
                check_channel(&inner.api.channel(asked).await.map_err(AccountRejection::Unknown)?, asked);
            inner.lookups.remember_channel(suitable, Instant::now());
            suitable
        }
    };
    suitable.map_err(|unsuitable| AccountRejection::Refused(unsuitable.to_string()))
}

/// Whether a reason is to be asked for. Nobody should think about one that comes too late, or for an
/// approval that is not theirs to give; the desk tells them so at once.
fn needs_dialog(inner: &Inner, request: &Request, asked: &PendingAnswer) -> bool {
    let Some(view) = inner.answers.view(request.id) else { return false };
    let waits = view.state == HoldState::Waiting;
    match asked.verdict {
        // The agent is told why, so there is always room for a reason.
        Verdict::Deny => waits || card::can_be_taken_back(&view),
        Verdict::Approve => {
            let who = inner.answers.reviewer_of(&asked.account);
            let may = who.is_some_and(|who| view.may_answer.contains(&who));
            waits && may && request.draft.terms.reason_required
        }
        Verdict::Escalate => false,
    }
}

/// Opens the dialog that asks for a reason.
async fn open_dialog(
    inner: &Arc<Inner>,
    click: &Click,
    request: &Request,
    asked: PendingAnswer,
    at: Instant,
) {
    let nonce = secret();
    let view = modal::dialog(request, asked.verdict, &nonce);
    inner.dialogs.lock().insert(nonce.clone(), asked);
    let left = TRIGGER_LIFE.saturating_sub(at.elapsed()).min(inner.settings.timing.dialog);
    let opened = inner.api.open_dialog(&click.trigger, &view, left).await;
    let Err(error) = opened else { return };
    // It may have opened all the same, when only the answer was late: then it stays good.
    if error != CallError::Timeout {
        inner.dialogs.lock().remove(&nonce);
    }
    info!(request = %request.id, %error, "a dialog did not open");
    let text = PlainText::line(request.id.code())
        .and(": Slack did not open the dialog in time. Please press the button again.");
    tell_user(inner, &click.channel, &click.by.user, &text);
}

/// Hands an answer in, and tells the user when it does not count. When it does, the card says so.
async fn submit_answer(
    inner: &Arc<Inner>,
    channel: &str,
    request: &Request,
    asked: PendingAnswer,
    reason: Option<String>,
) {
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
    tell_user(inner, channel, &user, &explain_refusal(inner, request, &error));
}

fn explain_refusal(inner: &Inner, request: &Request, error: &VerdictError) -> PlainText {
    let VerdictError::TooLate { state } = error else { return refusal_text(request, &error.to_string()) };
    let ended = match state {
        HoldState::Granted { .. } | HoldState::Executed => " has been approved already",
        HoldState::Denied { .. } => " has been denied already",
        HoldState::Expired => " has expired",
        HoldState::Withdrawn { .. } => " was withdrawn",
        HoldState::Waiting => " cannot be answered now",
    };
    let mut text = PlainText::ours("Too late: ").then(&PlainText::line(request.id.code())).and(ended);
    let reviews = inner.answers.view(request.id).map(|view| view.reviews).unwrap_or_default();
    let last = reviews.last().filter(|_| !matches!(state, HoldState::Expired | HoldState::Withdrawn { .. }));
    if let Some(last) = last {
        text = text.and(", by ").then(&PlainText::line(last.reviewer.as_str()));
    }
    if let HoldState::Withdrawn { reason } = state {
        text = text.and(": ").then(&PlainText::ours(reason.as_str()));
    }
    text.and(".")
}

/// Turns a click away: says why, and writes it down where it is known what it was about.
fn reject_click(
    inner: &Arc<Inner>,
    click: &Click,
    known: Option<&ShownCard>,
    verdict: Verdict,
    why: &impl ToString,
) {
    let why = why.to_string();
    let Some(known) = known else {
        warn!(account = %account_of(&click.by), why, "a click was error away");
        return tell_user(inner, &click.channel, &click.by.user, &PlainText::line(sentence(&why)));
    };
    let request = &known.request;
    let asked = PendingAnswer {
        account: account_of(&click.by),
        request: request.id,
        verdict,
        digest: request.digest,
        displayed_at: known.displayed_at.unwrap_or(request.opened_at),
    };
    record_refused(inner, &click.by, request, &asked, &why);
    tell_user(inner, &click.channel, &click.by.user, &refusal_text(request, &why));
}

fn record_refused(inner: &Arc<Inner>, by: &Origin, request: &Request, asked: &PendingAnswer, why: &str) {
    let answer = AccountAnswer {
        account: account_of(by),
        request: request.id,
        verdict: asked.verdict,
        digest: asked.digest,
        reason: None,
        displayed_at: Some(asked.displayed_at),
    };
    let (answers, why) = (inner.answers.clone(), why.to_owned());
    tokio::task::spawn_blocking(move || answers.record_refused(&answer, &why));
}

/// The account as Slack told it, of whatever workspace it may be.
fn account_of(by: &Origin) -> ChatAccount {
    let team = if by.home.starts_with('E') { &by.team } else { &by.home };
    check::chat_account(team, &by.user)
}

fn refusal_text(request: &Request, why: &str) -> PlainText {
    PlainText::line(request.id.code())
        .and(": your answer does not count. ")
        .then(&PlainText::line(sentence(why)))
}

fn lookup_failed_text(request: &Request, error: &CallError) -> PlainText {
    PlainText::line(request.id.code())
        .and(": your answer does not count, because Slack does not say whose account this is (")
        .then(&PlainText::line(error.to_string()))
        .and("). Please try again, or use the console.")
}

/// `you are not asked` → `You are not asked.`
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// Says something to one user, where they clicked; soon, and without anybody waiting for it.
fn tell_user(inner: &Arc<Inner>, channel: &str, user: &str, text: &PlainText) {
    let Ok(place) = inner.ephemeral_slots.clone().try_acquire_owned() else {
        warn!(user, "too much to tell; somebody is not told about their click");
        return;
    };
    let card = Card {
        blocks: vec![text.section()],
        text: PlainText::ours("About your answer").for_notification(),
        offers: Vec::new(),
    };
    let (inner, channel, user) = (inner.clone(), channel.to_owned(), user.to_owned());
    tokio::spawn(async move {
        post_ephemeral(&inner, &channel, &user, &card).await;
        drop(place);
    });
}

/// Worth a few attempts and no more: soon nobody remembers having clicked.
async fn post_ephemeral(inner: &Inner, channel: &str, user: &str, card: &Card) {
    for _ in 0..3 {
        let wait = match inner.api.post_ephemeral(channel, user, card).await {
            Ok(()) => return,
            Err(CallError::RateLimited { wait }) => wait.min(Duration::from_secs(30)),
            Err(CallError::ErrorCode(error)) => {
                warn!(user, error, "somebody could not be told about their click");
                return;
            }
            Err(_) => inner.settings.timing.retry.first,
        };
        tokio::time::sleep(wait).await;
    }
}

/// Takes the buttons off a message of ours that is no card.
async fn close(inner: &Arc<Inner>, me: &AppIdentity, click: &Click, why: &'static str) {
    if check::account(&click.by, me).is_err() || click.channel != inner.settings.channel {
        return;
    }
    let place = MessageRef { channel: click.channel.clone(), message: click.ts.clone() };
    if inner.outbox.lock().at(&place).is_some() {
        return;
    }
    let code = check::value(&click.value).map_or_else(|| "This request".to_owned(), |(id, _)| id.code());
    if let Err(error) = inner.api.update(&place, &card::closed(&code, why)).await {
        info!(%error, "an old card could not be closed");
    }
}
