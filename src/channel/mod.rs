//! How reviewers are reached.
//!
//! A channel carries requests out and answers in. It never decides who a reviewer is
//! ([`identity`](crate::identity) does) nor what an answer means ([`approval::hold`](crate::approval)
//! does). Nothing waits for it: a chat service that is slow or down must not keep the console from
//! working, nor a statement from expiring.
//!
//! - [`accounts`]: answers from chat accounts, for channels on which people can answer.
//! - `follow`: carries what happens at the desk to a channel.
//! - `outbox`: what is to be sent to a chat service, as a value.
//! - `journal`: which cards are shown, on disk.
//! - [`slack`][]: Slack.
//!
//! To add a channel: a folder here, a variant in [`Settings`] and in
//! [`ChannelName`], its table in the configuration, and its page in `docs/`.

pub mod accounts;
mod follow;
mod journal;
mod outbox;
pub mod slack;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use self::follow::follow;
pub use self::outbox::{DeadLetter, RetryTiming};
use self::slack::{Slack, SlackSettings};
pub use crate::actor::ChannelName;
use crate::desk::{Desk, DeskEvent};

/// A way to reach reviewers.
pub trait Channel: Send + Sync {
    /// The channel's name.
    fn name(&self) -> ChannelName;

    /// Takes an event in and returns at once: the channel keeps an outbox of its own, which retries
    /// and orders as its service needs. The same event may come twice.
    fn deliver(&self, event: &DeskEvent);

    /// How the channel is doing.
    fn status(&self) -> ChannelStatus;
}

/// How a channel is doing, for `status`, the console and the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelStatus {
    /// Requests go out and answers come in.
    pub connected: bool,
    /// Since when that is so, or not so.
    pub since: Timestamp,
    /// The last error. It stays when everything works again.
    pub last_error: Option<LastError>,
    /// Messages that wait to be sent.
    pub queued: usize,
    /// Messages that were given up, oldest first.
    pub dead_letters: Vec<DeadLetter>,
}

/// An error, and when it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The error.
    pub error: String,
    /// When it was first seen.
    pub at: Timestamp,
}

/// The settings of one channel.
#[derive(Clone, Debug)]
pub enum Settings {
    /// Slack.
    Slack(SlackSettings),
}

/// Why a channel cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Slack's settings are wrong.
    #[error("Slack: {0}")]
    Slack(#[from] slack::BadSettings),
}

/// Starts a channel beside `desk`. That its service cannot be reached is no reason not to start.
pub fn start(settings: Settings, desk: Desk) -> Result<Arc<dyn Channel>, StartError> {
    match settings {
        Settings::Slack(settings) => Ok(Slack::start(settings, desk)?),
    }
}

/// Waits until the channels have sent everything, at most `within`, so that no card keeps buttons
/// that do nothing. For shutting down, after the desk has withdrawn what waits.
pub async fn drain(channels: &[Arc<dyn Channel>], within: Duration) {
    let empty = async {
        while channels.iter().any(|channel| channel.status().queued > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(within, empty).await;
}
