//! Slack: requests as cards in a channel, answers as clicks on them.
//!
//! Socket mode is used, so nothing of ours has to be reachable from outside. Nothing waits for Slack:
//! when it is down, holds stay as they are, can be answered elsewhere, and are shown once it is back.
//!
//! - [`settings`]: tokens, channel, times.
//! - `client`: the Web API, every call under a timeout.
//! - `card`: a request as blocks.
//! - `text`: text that Slack does not interpret.
//! - `modal`: the dialog for a reason.
//! - `sender`: sends what the outbox has.
//! - `socket`: the sockets over which clicks come in.
//! - `envelope`: reading what comes in.
//! - `check`: whether a click is on a card of ours.
//! - `lookups`: whether Slack knows the account as a full member, and the channel as private.
//! - `actions`: from a click to an answer.
//! - `refresh`: looks up the app, the channel and the accounts, now and then.
//! - `health`: whether all that works.
//!
//! Whose account it is and whether an answer counts is decided by
//! [`AccountAnswers`] and the desk; what a reviewer should read, by
//! [`Document`](crate::approval::Document).
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

mod actions;
mod card;
mod check;
mod client;
mod envelope;
mod health;
mod lookups;
mod modal;
mod refresh;
mod sender;
pub mod settings;
mod socket;
mod text;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

use self::client::{Api, AppIdentity, ClientFactory};
use self::health::{Health, Part};
use self::lookups::Lookups;
use self::modal::Dialogs;
pub use self::settings::{BadSettings, SLACK_API, SlackSettings, Timing, Token};
use self::socket::Sockets;
use super::accounts::AccountAnswers;
use super::journal::Journal;
use super::outbox::Outbox;
use super::{Channel, ChannelName, ChannelStatus};
use crate::approval::HoldState;
use crate::desk::{Desk, DeskEvent};

/// The Slack channel. Dropping it ends everything it does.
pub struct Slack {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

/// What the channel's tasks share.
struct Inner {
    settings: SlackSettings,
    api: Api,
    answers: Arc<AccountAnswers>,
    /// `None` until Slack has said it.
    me: ArcSwapOption<AppIdentity>,
    outbox: Mutex<Outbox>,
    /// Notified when there may be something to send.
    wake: Notify,
    journal: Mutex<Journal>,
    dialogs: Mutex<Dialogs>,
    lookups: Lookups,
    ephemeral_slots: Arc<Semaphore>,
    health: Health,
    /// Notified when `me` is known.
    identified: Notify,
}

/// How many clicks may wait to be handled.
const CLICKS: usize = 256;

impl Slack {
    /// Starts the channel on the current runtime. It need not reach Slack for that; what keeps it from
    /// doing so is in its status. [`channel::follow`](super::follow()) has to run beside it.
    pub fn start(settings: SlackSettings, desk: Desk) -> Result<Arc<Self>, BadSettings> {
        settings.check()?;
        let clients = ClientFactory::new(&settings)?;
        let timing = settings.timing;
        let answers = Arc::new(AccountAnswers::new(desk, ChannelName::Slack));
        let inner = Arc::new(Inner {
            api: Api::new(&settings, clients.clone()),
            me: ArcSwapOption::empty(),
            outbox: Mutex::new(Outbox::new(timing.retry)),
            wake: Notify::new(),
            journal: Mutex::new(Journal::open(settings.cards_file.as_deref())),
            dialogs: Mutex::default(),
            lookups: Lookups::new(timing.rely),
            ephemeral_slots: actions::ephemeral_slots(),
            health: Health::new(answers.now()),
            identified: Notify::new(),
            answers,
            settings,
        });
        inner.adopt_old_cards();
        let (clicks, inbox) = mpsc::channel(CLICKS);
        let tasks = vec![
            tokio::spawn(refresh::run(inner.clone())).abort_handle(),
            tokio::spawn(sender::run(inner.clone())).abort_handle(),
            tokio::spawn(actions::run(inner.clone(), inbox)).abort_handle(),
            tokio::spawn(listen(inner.clone(), clients, clicks)).abort_handle(),
        ];
        Ok(Arc::new(Self { inner, tasks }))
    }

    /// How many sockets are open over which clicks come in; two when all is well.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.inner.health.open_sockets()
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

    fn deliver(&self, event: &DeskEvent) {
        let mut outbox = self.inner.outbox.lock();
        match event {
            DeskEvent::Opened { request, .. } => outbox.opened(request),
            DeskEvent::Joined { request, .. }
            | DeskEvent::Reviewed { request, .. }
            | DeskEvent::Escalated { request, .. } => outbox.changed(request.id),
            DeskEvent::Ended { request, state } => outbox.ended(request.id, state),
            DeskEvent::Ran { request, receipt } => outbox.ran(request.id, receipt),
            // Its card, if there was one, was found in the journal at the start.
            DeskEvent::LeftOver { .. } => {}
        }
        drop(outbox);
        self.inner.wake.notify_one();
    }

    fn status(&self) -> ChannelStatus {
        let outbox = self.inner.outbox.lock();
        self.inner.health.status(outbox.queued(), outbox.dead_letters().cloned().collect())
    }
}

impl Inner {
    /// Closes the cards that an earlier run has left. A card whose request still waits gets new
    /// buttons instead: then only this channel was started anew.
    fn adopt_old_cards(&self) {
        let old: Vec<_> = {
            let journal = self.journal.lock();
            journal.shown().map(|(id, place)| (id, place.clone())).collect()
        };
        let mut outbox = self.outbox.lock();
        for (id, place) in old {
            match self.answers.view(id).filter(|view| view.state == HoldState::Waiting) {
                Some(view) => outbox.adopt(&view.request, place, secret(), self.answers.now()),
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
async fn listen(inner: Arc<Inner>, clients: ClientFactory, clicks: mpsc::Sender<socket::Received>) {
    let me = loop {
        let identified = inner.identified.notified();
        if let Some(me) = inner.me.load_full() {
            break me;
        }
        identified.await;
    };
    let report = |report: socket::Report| {
        inner.health.sockets(report.open, inner.now());
        match report.problem {
            Some(problem) => inner.health.fails(Part::Sockets, problem, inner.now()),
            None if report.open == 0 => {
                tokio::spawn(refresh::report_why_no_socket(inner.clone()));
            }
            None => {}
        }
    };
    let token = client::token(&inner.settings.app_token);
    Sockets::run(clients, token, inner.settings.timing, clicks, &me.app, report).await;
}
