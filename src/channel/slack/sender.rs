//! Carries out the tasks of the outbox, and reports how each went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::card::{self, Card, CardInput};
use super::client::CallError;
use super::health::Part;
use super::{Inner, check, secret};
use crate::approval::HoldState;
use crate::channel::outbox::{Action, Done, Failure, JournalChange, Next, Task};
use crate::desk::RequestView;
use crate::statement::RequestId;

/// Sends, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut under_way = JoinSet::new();
    loop {
        let next = inner.outbox.lock().next(Instant::now());
        let wait = match next {
            Next::Do(task) => {
                let inner = inner.clone();
                under_way.spawn(async move { run_task(&inner, task).await });
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
                    error!(%panic, "a task panicked while sending to slack");
                }
            }
        }
    }
}

/// Reports a task as failed when it is dropped without an outcome: otherwise the card of a lost
/// task would never change again.
struct TaskReport<'a> {
    inner: &'a Inner,
    task: &'a Task,
    reported: bool,
}

impl TaskReport<'_> {
    fn finish(mut self, result: Result<Done, CallError>) {
        self.reported = true;
        let now = self.inner.now();
        let id = self.task.id;
        let change = match result {
            Ok(done) => {
                if done != Done::NothingToDo {
                    self.inner.health.works(Part::Calls, now);
                }
                self.inner.outbox.lock().done(id, done)
            }
            Err(error) => {
                let failure = failure(&error, &self.task.action);
                match &failure {
                    Failure::Temporary { error } | Failure::NeedsOperator { error } => {
                        self.inner.health.fails(Part::Calls, error, now);
                    }
                    Failure::RateLimited { wait } => {
                        debug!(request = %id, ?wait, "slack limits the rate of calls")
                    }
                    Failure::TooLarge { .. }
                    | Failure::MessageGone
                    | Failure::NotEditable
                    | Failure::Permanent { .. } => {
                        self.inner.health.works(Part::Calls, now);
                        warn!(request = %id, %error, "slack refused a message");
                    }
                }
                self.inner.outbox.lock().failed(self.task, failure, Instant::now(), now)
            }
        };
        self.inner.record_in_journal(change);
    }
}

impl Drop for TaskReport<'_> {
    fn drop(&mut self) {
        if !self.reported {
            let failure = Failure::Permanent { error: "internal error".to_owned() };
            let change =
                self.inner.outbox.lock().failed(self.task, failure, Instant::now(), self.inner.now());
            self.inner.record_in_journal(change);
        }
    }
}

async fn run_task(inner: &Arc<Inner>, task: Task) {
    let report = TaskReport { inner, task: &task, reported: false };
    let result = send(inner, &task).await;
    report.finish(result);
}

async fn send(inner: &Arc<Inner>, task: &Task) -> Result<Done, CallError> {
    let id = task.id;
    let api = &inner.api;
    match &task.action {
        Action::Post => {
            let key = secret();
            let Some((card, state)) = render(inner, task, &key).await else { return Ok(Done::NothingToDo) };
            if state != HoldState::Waiting {
                return Ok(Done::NothingToDo);
            }
            inner.outbox.lock().sending(id, Some(key), &card.offers);
            let place = api.post(&inner.settings.channel, None, &card).await?;
            Ok(Done::Posted { place, at: inner.now() })
        }
        Action::Update { place, key } => {
            let Some((card, _)) = render(inner, task, key).await else { return Ok(Done::NothingToDo) };
            inner.outbox.lock().sending(id, None, &card.offers);
            api.update(place, &card).await.map(|()| Done::Sent)
        }
        Action::Close { place } => {
            let why = "The proxy was restarted while this request was open, so nobody can answer it any more. \
                How it ended is in the ledger.";
            api.update(place, &card::closed(&id.code(), why)).await.map(|()| Done::Sent)
        }
        Action::Receipt { place, receipt } => {
            let card = card::receipt(&id.code(), receipt);
            api.post(&place.channel, Some(&place.message), &card).await.map(|_| Done::Sent)
        }
        Action::Ending { place } => {
            let Some(view) = inner.view(id) else { return Ok(Done::NothingToDo) };
            api.post(&place.channel, Some(&place.message), &card::ending(&view)).await.map(|_| Done::Sent)
        }
    }
}

/// Renders a card in the present state, on a blocking thread: a statement may be megabytes long.
async fn render(inner: &Arc<Inner>, task: &Task, key: &str) -> Option<(Card, HoldState)> {
    let (inner, id, brief, key) = (inner.clone(), task.id, task.brief, check::key(task.id, key));
    let rendered = tokio::task::spawn_blocking(move || {
        let view = inner.view(id)?;
        let console = inner.settings.console_url.as_ref();
        let input = CardInput { view: &view, key: &key, console };
        let card = if brief { card::render_briefly(&input) } else { card::render(&input) };
        Some((card, view.state))
    });
    rendered.await.ok().flatten()
}

impl Inner {
    /// The state of a request: the desk's or, when the desk has forgotten it, the last one heard of.
    pub(super) fn view(&self, id: RequestId) -> Option<RequestView> {
        self.answers.view(id).or_else(|| {
            let (request, state) = self.outbox.lock().last_known(id)?;
            Some(RequestView::forgotten(request, state))
        })
    }

    fn record_in_journal(&self, change: Option<JournalChange>) {
        let mut journal = self.journal.lock();
        match change {
            Some(JournalChange::Shown(id, place)) => journal.show(id, &place),
            Some(JournalChange::Closed(id)) => journal.close(id),
            None => {}
        }
    }
}

/// What an error of a call means for its task.
fn failure(error: &CallError, action: &Action) -> Failure {
    let in_words = error.to_string();
    let code = match error {
        CallError::RateLimited { wait } => return Failure::RateLimited { wait: *wait },
        CallError::Timeout | CallError::Unreachable | CallError::NotSlack => {
            return Failure::Temporary { error: in_words };
        }
        CallError::Status(status) if (400..500).contains(status) && *status != 408 => {
            return Failure::NeedsOperator { error: in_words };
        }
        CallError::Status(_) => return Failure::Temporary { error: in_words },
        CallError::ErrorCode(code) => code.as_str(),
    };
    let changes_a_message = matches!(action, Action::Update { .. } | Action::Close { .. });
    match code {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            Failure::RateLimited { wait: Duration::from_secs(5) }
        }
        "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Failure::Temporary { error: in_words },
        "invalid_blocks" | "invalid_blocks_format" | "msg_too_long" | "msg_blocks_too_long" => {
            Failure::TooLarge { error: in_words }
        }
        "message_not_found" if changes_a_message => Failure::MessageGone,
        "cant_update_message" | "edit_window_closed" if changes_a_message => Failure::NotEditable,
        _ if is_refusal(error) => Failure::NeedsOperator { error: in_words },
        _ => Failure::Permanent { error: in_words },
    }
}

/// Whether only an operator can repair the cause of an error.
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
    matches!(error, CallError::ErrorCode(code) if CODES.contains(&code.as_str()))
}
