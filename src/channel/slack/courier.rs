//! Carries out what the outbox says, and tells it how that went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::card::{self, Card, View};
use super::client::CallError;
use super::health::Part;
use super::outbox::{Done, Errand, Failure, Next, Note, What};
use super::{Inner, check, secret};
use crate::approval::HoldState;
use crate::channel::answers::Standing;
use crate::statement::RequestId;

/// Sends, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut under_way = JoinSet::new();
    loop {
        let next = inner.outbox.lock().next(Instant::now());
        let wait = match next {
            Next::Do(errand) => {
                let inner = inner.clone();
                under_way.spawn(async move { carry_out(&inner, errand).await });
                continue;
            }
            Next::WaitUntil(until) => until,
            Next::Idle => Instant::now() + Duration::from_secs(3600),
        };
        tokio::select! {
            () = inner.wake.notified() => {}
            () = tokio::time::sleep_until(wait.into()) => {}
            Some(ended) = under_way.join_next() => {
                if let Err(panic) = ended {
                    error!(%panic, "sending to slack broke");
                }
            }
        }
    }
}

/// Reports an errand as failed when it is dropped without an outcome: an errand that got lost would
/// keep its card as it is for ever.
struct Outcome<'a> {
    inner: &'a Inner,
    errand: &'a Errand,
    reported: bool,
}

impl Outcome<'_> {
    fn report(mut self, result: Result<Done, CallError>) {
        self.reported = true;
        let now = self.inner.now();
        let id = self.errand.id;
        let note = match result {
            Ok(done) => {
                if done != Done::Needless {
                    self.inner.health.works(Part::Calls, now);
                }
                self.inner.outbox.lock().done(id, done)
            }
            Err(error) => {
                let failure = failure(&error, &self.errand.what);
                match &failure {
                    Failure::Passing { error } | Failure::Refused { error } => {
                        self.inner.health.fails(Part::Calls, error, now);
                    }
                    Failure::TooMany { wait } => debug!(request = %id, ?wait, "slack wants fewer calls"),
                    Failure::TooMuch { .. }
                    | Failure::Gone
                    | Failure::Unchangeable
                    | Failure::Hopeless { .. } => {
                        self.inner.health.works(Part::Calls, now);
                        warn!(request = %id, %error, "slack does not take a message");
                    }
                }
                self.inner.outbox.lock().failed(self.errand, failure, Instant::now(), now)
            }
        };
        self.inner.write_down(note);
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.reported {
            let failure = Failure::Hopeless { error: "internal error".to_owned() };
            let note =
                self.inner.outbox.lock().failed(self.errand, failure, Instant::now(), self.inner.now());
            self.inner.write_down(note);
        }
    }
}

async fn carry_out(inner: &Arc<Inner>, errand: Errand) {
    let outcome = Outcome { inner, errand: &errand, reported: false };
    let result = send(inner, &errand).await;
    outcome.report(result);
}

async fn send(inner: &Arc<Inner>, errand: &Errand) -> Result<Done, CallError> {
    let id = errand.id;
    let api = &inner.api;
    match &errand.what {
        What::Post => {
            let key = secret();
            let Some((card, state)) = render(inner, errand, &key).await else { return Ok(Done::Needless) };
            if state != HoldState::Waiting {
                return Ok(Done::Needless);
            }
            inner.outbox.lock().sending(id, Some(key), &card.offers);
            let place = api.post(&inner.settings.channel, None, &card).await?;
            Ok(Done::Posted { place, at: inner.now() })
        }
        What::Update { place, key } => {
            let Some((card, _)) = render(inner, errand, key).await else { return Ok(Done::Needless) };
            inner.outbox.lock().sending(id, None, &card.offers);
            api.update(place, &card).await.map(|()| Done::Sent)
        }
        What::Close { place } => {
            let why = "The proxy was restarted while this request was open, so nobody can answer it any more. \
                How it ended is in the ledger.";
            api.update(place, &card::closed(&id.code(), why)).await.map(|()| Done::Sent)
        }
        What::Receipt { place, receipt } => {
            let card = card::receipt(&id.code(), receipt);
            api.post(&place.channel, Some(&place.ts), &card).await.map(|_| Done::Sent)
        }
        What::Ending { place } => {
            let Some(standing) = inner.standing(id) else { return Ok(Done::Needless) };
            api.post(&place.channel, Some(&place.ts), &card::ending(&standing)).await.map(|_| Done::Sent)
        }
    }
}

/// Renders a card as the request stands now. On a thread for it: a statement may be megabytes long.
async fn render(inner: &Arc<Inner>, errand: &Errand, key: &str) -> Option<(Card, HoldState)> {
    let (inner, id, brief, key) = (inner.clone(), errand.id, errand.brief, check::key(errand.id, key));
    let rendered = tokio::task::spawn_blocking(move || {
        let standing = inner.standing(id)?;
        let escalated = inner.outbox.lock().known(id).map_or(0, |(_, _, escalated)| escalated);
        let console = inner.settings.console_url.as_ref();
        let view = View { standing: &standing, escalated, key: &key, console };
        let card = if brief { card::render_briefly(&view) } else { card::render(&view) };
        Some((card, standing.state))
    });
    rendered.await.ok().flatten()
}

impl Inner {
    /// How a request stands: as the desk says, or, when the desk has forgotten it, as it ended.
    pub(super) fn standing(&self, id: RequestId) -> Option<Standing> {
        self.answers.standing(id).or_else(|| {
            let (request, state, _) = self.outbox.lock().known(id)?;
            Some(Standing {
                request,
                state,
                reviews: Vec::new(),
                missing: Vec::new(),
                may_approve: Vec::new(),
                behind: 0,
                receipt: None,
            })
        })
    }

    fn write_down(&self, note: Option<Note>) {
        let mut journal = self.journal.lock();
        match note {
            Some(Note::Shown(id, place)) => journal.show(id, &place),
            Some(Note::Closed(id)) => journal.close(id),
            None => {}
        }
    }
}

/// What an error means for what was to be done.
fn failure(error: &CallError, what: &What) -> Failure {
    let in_words = error.to_string();
    let code = match error {
        CallError::TooMany { wait } => return Failure::TooMany { wait: *wait },
        CallError::Late | CallError::OutOfReach | CallError::Foreign => {
            return Failure::Passing { error: in_words };
        }
        CallError::Status(status) if (400..500).contains(status) && *status != 408 => {
            return Failure::Refused { error: in_words };
        }
        CallError::Status(_) => return Failure::Passing { error: in_words },
        CallError::Said(code) => code.as_str(),
    };
    let changes_a_message = matches!(what, What::Update { .. } | What::Close { .. });
    match code {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            Failure::TooMany { wait: Duration::from_secs(5) }
        }
        "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Failure::Passing { error: in_words },
        "invalid_blocks" | "invalid_blocks_format" | "msg_too_long" | "msg_blocks_too_long" => {
            Failure::TooMuch { error: in_words }
        }
        "message_not_found" if changes_a_message => Failure::Gone,
        "cant_update_message" | "edit_window_closed" if changes_a_message => Failure::Unchangeable,
        _ if is_refusal(error) => Failure::Refused { error: in_words },
        _ => Failure::Hopeless { error: in_words },
    }
}

/// Whether an error is one that only an operator can mend.
pub(super) fn is_refusal(error: &CallError) -> bool {
    const CODES: [&str; 19] = [
        "access_denied",
        "account_inactive",
        "channel_not_found",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "invalid_auth",
        "is_archived",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
        "two_factor_setup_required",
    ];
    matches!(error, CallError::Said(code) if CODES.contains(&code.as_str()))
}
