//! Finds out who we are, where we post and who is enrolled; at the start, and again from time to time.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use super::client::{AppIdentity, CallError};
use super::health::Part;
use super::lookups::check_channel;
use super::{Inner, sender};
use crate::channel::outbox::back_off;

/// Looks things up, for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let me = identify_app(&inner).await;
    loop {
        let suitable = check_posting(&inner).await;
        inner.outbox.lock().allow_posting(suitable);
        inner.wake.notify_one();
        if suitable {
            look_up_accounts(&inner, &me).await;
        }
        let timing = &inner.settings.timing;
        let wait = if suitable { timing.look_up } else { timing.retry.refused.min(timing.look_up) };
        tokio::time::sleep(wait).await;
    }
}

/// Asks Slack who we are until it says so.
async fn identify_app(inner: &Arc<Inner>) -> Arc<AppIdentity> {
    let timing = inner.settings.timing;
    let mut failures = 0;
    loop {
        let error = match inner.api.me().await {
            Ok(me) => {
                info!(app = me.app, team = me.team, "slack knows us");
                let me = Arc::new(me);
                inner.me.store(Some(me.clone()));
                inner.identified.notify_waiters();
                return me;
            }
            Err(error) => error,
        };
        failures += 1;
        inner.health.fails(Part::Setup, &error.to_string(), inner.now());
        let wait = match &error {
            CallError::RateLimited { wait } => *wait,
            CallError::ErrorCode(_) if sender::is_refusal(&error) => timing.retry.refused,
            CallError::ErrorCode(_)
            | CallError::Status(_)
            | CallError::Timeout
            | CallError::Unreachable
            | CallError::NotSlack => back_off(&timing.retry, failures, u64::from(failures)),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Whether cards may be posted to the channel.
async fn check_posting(inner: &Inner) -> bool {
    let asked = &inner.settings.channel;
    let error = match inner.api.channel(asked).await {
        Ok(channel) => {
            let suitable = check_channel(&channel, asked);
            inner.lookups.remember_channel(suitable, Instant::now());
            match suitable {
                Ok(()) => {
                    inner.health.works(Part::Setup, inner.now());
                    // What could not be sent may not be wanted any more, and Slack answers.
                    if inner.outbox.lock().queued() == 0 {
                        inner.health.works(Part::Calls, inner.now());
                    }
                    return true;
                }
                Err(unsuitable) => unsuitable.to_string(),
            }
        }
        Err(error) => {
            // What was seen a moment ago is still true for a while.
            if inner.lookups.channel(Instant::now()) == Some(Ok(())) {
                return true;
            }
            format!("conversations.info: {error}")
        }
    };
    inner.health.fails(Part::Setup, &error, inner.now());
    false
}

/// Learns ahead of time who the enrolled accounts are, so that their clicks need not wait for it.
async fn look_up_accounts(inner: &Inner, me: &AppIdentity) {
    for account in inner.answers.enrolled() {
        if account.team != me.team {
            continue;
        }
        let answer = inner.api.user(&account.user).await;
        if let Err(CallError::RateLimited { wait }) = &answer {
            tokio::time::sleep(*wait).await;
        }
        // Who cannot be looked up now is looked up on the first click.
        let _ = inner.lookups.remember_user(&account.user, answer, me, Instant::now());
    }
}

/// No socket opens, and slack-morphism keeps the reason to itself: asks for one to hear it.
pub(super) async fn report_why_no_socket(inner: Arc<Inner>) {
    let error = match inner.api.why_no_socket().await {
        Ok(()) => "no socket is open".to_owned(),
        Err(error) => format!("no socket is open: {error}"),
    };
    // One may have opened meanwhile.
    if inner.health.open_sockets() == 0 {
        inner.health.fails(Part::Sockets, &error, inner.now());
    }
}
