//! Slack: requests as cards in a channel, answers as clicks on them.
//!
//! Socket mode, so nothing of ours has to be reachable from outside. Nothing waits for Slack: when it
//! is down, holds stand as they are, can be answered elsewhere, and are shown once it is back.
//!
//! - [`settings`]: tokens, channel, times.
//! - `client`: the Web API, every call under a timeout.
//! - `card`: a request as blocks.
//! - `text`: text that Slack shows as it is.
//! - `modal`: the dialog for a reason.
//! - `outbox`: what is to be sent, as a value.
//! - `courier`: sends it.
//! - `journal`: which cards are shown, on disk.
//! - `socket`: where clicks come in.
//! - `envelope`: what they say.
//! - `check`: whether they are on a card of ours.
//! - `facts`: whether Slack knows the account as a full member.
//! - `actions`: from a click to an answer.
//! - `scout`: who we are, looked up now and then.
//! - [`health`]: whether all that works.
//!
//! Two things are for others to say: whose account it is and whether an answer counts
//! ([`Answers`]), and what a reviewer should read ([`Document`](crate::approval::Document)).
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

mod actions;
mod card;
mod check;
mod client;
mod courier;
mod envelope;
mod facts;
pub mod health;
mod journal;
mod modal;
mod outbox;
mod scout;
pub mod settings;
mod socket;
mod text;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

use self::client::{Api, Maker, Me};
use self::facts::Facts;
use self::health::{Health, Part};
pub use self::health::{LastError, SlackStatus};
use self::journal::Journal;
use self::modal::Dialogs;
pub use self::outbox::DeadLetter;
use self::outbox::Outbox;
pub use self::settings::{BadSettings, SLACK_API, SlackSettings, Timing, Token};
use self::socket::Sockets;
use super::answers::Answers;
use super::{Channel, ChannelName, Notice};
use crate::approval::HoldState;

/// The Slack channel. Dropping it ends everything it does.
pub struct Slack {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

/// What the channel's tasks share.
struct Inner {
    settings: SlackSettings,
    api: Api,
    answers: Arc<dyn Answers>,
    /// `None` until Slack has said it.
    me: ArcSwapOption<Me>,
    outbox: Mutex<Outbox>,
    /// Told when there may be something to send.
    wake: Notify,
    journal: Mutex<Journal>,
    dialogs: Mutex<Dialogs>,
    facts: Facts,
    whispers: Arc<Semaphore>,
    health: Health,
    /// Told when we know who we are.
    introduced: Notify,
}

/// How many clicks may wait to be looked at.
const CLICKS: usize = 256;

impl Slack {
    /// Starts the channel on the current runtime. It need not reach Slack for that; what keeps it from
    /// doing so is in [`Slack::status`].
    ///
    /// What happens at the desk has to be carried to it ([`Desk::carry`](crate::desk::Desk::carry)).
    pub fn start(settings: SlackSettings, answers: Arc<dyn Answers>) -> Result<Arc<Self>, BadSettings> {
        settings.check()?;
        let maker = Maker::new(&settings)?;
        let timing = settings.timing;
        let inner = Arc::new(Inner {
            api: Api::new(&settings, maker.clone()),
            me: ArcSwapOption::empty(),
            outbox: Mutex::new(Outbox::new(timing)),
            wake: Notify::new(),
            journal: Mutex::new(Journal::open(settings.cards_file.as_deref())),
            dialogs: Mutex::default(),
            facts: Facts::new(timing.rely),
            whispers: actions::whispers(),
            health: Health::new(answers.now()),
            introduced: Notify::new(),
            answers,
            settings,
        });
        inner.take_up_old_cards();
        let (clicks, inbox) = mpsc::channel(CLICKS);
        let tasks = vec![
            tokio::spawn(scout::run(inner.clone())).abort_handle(),
            tokio::spawn(courier::run(inner.clone())).abort_handle(),
            tokio::spawn(actions::run(inner.clone(), inbox)).abort_handle(),
            tokio::spawn(listen(inner.clone(), maker, clicks)).abort_handle(),
        ];
        Ok(Arc::new(Self { inner, tasks }))
    }

    /// How the channel is doing.
    #[must_use]
    pub fn status(&self) -> SlackStatus {
        let outbox = self.inner.outbox.lock();
        self.inner.health.status(outbox.queued(), outbox.dead_letters().cloned().collect())
    }

    /// Waits until everything is sent, so that no card keeps buttons that do nothing; at most so long.
    /// For shutting down, after the desk has withdrawn what waits and the news has arrived here.
    pub async fn drain(&self, within: Duration) {
        let empty = async {
            while self.inner.outbox.lock().queued() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(within, empty).await;
    }
}

impl Drop for Slack {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Channel for Slack {
    fn name(&self) -> ChannelName {
        ChannelName::Slack
    }

    fn deliver(&self, notice: &Notice) {
        let mut outbox = self.inner.outbox.lock();
        match notice {
            Notice::Opened { request, .. } => outbox.opened(request),
            Notice::Joined { request, .. } | Notice::Reviewed { request, .. } => outbox.changed(request.id),
            Notice::Escalated { request, told, .. } => outbox.escalated(request.id, *told),
            Notice::Ended { request, state } => outbox.ended(request.id, state),
            Notice::Ran { request, receipt } => outbox.ran(request.id, receipt),
            // Its card, if there was one, was found in the journal at the start.
            Notice::LeftOver { .. } => {}
        }
        drop(outbox);
        self.inner.wake.notify_one();
    }

    fn is_healthy(&self) -> bool {
        self.inner.health.is_connected()
    }
}

impl Inner {
    /// Cards that an earlier run has left are closed, unless their request still waits: then it is
    /// only this channel that was started anew, and the card gets new buttons.
    fn take_up_old_cards(&self) {
        let old: Vec<_> = {
            let journal = self.journal.lock();
            journal.shown().map(|(id, place)| (id, place.clone())).collect()
        };
        let mut outbox = self.outbox.lock();
        for (id, place) in old {
            match self.answers.standing(id).filter(|standing| standing.state == HoldState::Waiting) {
                Some(standing) => outbox.adopt(&standing.request, place, secret(), self.answers.now()),
                None => outbox.left_over(id, place),
            }
        }
    }

    fn now(&self) -> jiff::Timestamp {
        self.answers.now()
    }
}

/// 128 random bits, for what a card or dialog must bring back.
fn secret() -> String {
    hex::encode(crate::identity::secret::random::<16>())
}

/// Keeps the sockets open, once we know which app they must belong to.
async fn listen(inner: Arc<Inner>, maker: Maker, clicks: mpsc::Sender<socket::Received>) {
    let me = loop {
        let introduced = inner.introduced.notified();
        if let Some(me) = inner.me.load_full() {
            break me;
        }
        introduced.await;
    };
    let report = |report: socket::Report| {
        inner.health.sockets(report.open, inner.now());
        match report.problem {
            Some(problem) => inner.health.fails(Part::Sockets, problem, inner.now()),
            None if report.open == 0 => {
                tokio::spawn(scout::find_out_why_no_socket(inner.clone()));
            }
            None => {}
        }
    };
    let token = client::token(&inner.settings.app_token);
    Sockets::run(maker, token, inner.settings.timing, clicks, &me.app, report).await;
}
