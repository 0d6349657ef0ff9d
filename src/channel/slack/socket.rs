//! The sockets over which clicks come in: two, so that one can be renewed while the other listens.
//!
//! slack-morphism opens and keeps a socket; what it lacks is added here. It has no timeouts, so a
//! socket that does not say hello in time is thrown away. It awaits callbacks inside its reader, so ours
//! only put things into a queue. It reconnects after a fixed half minute, so we do that. And its tasks
//! outlive a socket that died silently, and write the socket's address, which is a secret, and whole
//! messages, SQL and all, into the log; so every socket lives on a thread and a runtime of its own,
//! on which nothing is logged, and which is dropped with everything on it.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use slack_morphism::clients_manager::SlackSocketModeClientsManagerFactory as _;
use slack_morphism::listener::SlackClientEventsListenerEnvironment;
use slack_morphism::prelude::{
    SlackApiToken, SlackClientSocketModeConfig, SlackSocketModeClientListener, SlackSocketModeWssClientId,
};
use tokio::sync::{mpsc, oneshot};
use tracing::subscriber::NoSubscriber;
use tracing::{debug, info, warn};

use super::client::ClientFactory;
use super::envelope::{self, Frame, Interaction, SeenEnvelopes};
use super::settings::Timing;
use crate::channel::outbox::back_off;

/// Something that somebody did, and when it came in.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) interaction: Box<Interaction>,
    pub(super) at: Instant,
}

/// How the sockets are, whenever that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// So many are open.
    pub(super) open: usize,
    /// What is wrong, where it is known.
    pub(super) problem: Option<&'static str>,
}

/// What happens on a socket.
#[derive(Debug)]
enum Signal {
    Hello { app: String },
    Disconnect { reason: String },
    Unreadable,
    Overloaded,
    Lost,
}

/// One socket and the thread that it lives on. Dropping it ends both.
struct Line {
    number: u64,
    opened: Instant,
    got_hello: bool,
    /// Slack will close it; another is on its way.
    leaving: bool,
    _stop: oneshot::Sender<()>,
}

/// The place of one socket.
#[derive(Default)]
struct Slot {
    line: Option<Line>,
    /// What will take its place.
    next: Option<Line>,
    failures: u32,
    retry: Option<Instant>,
}

/// Keeps the sockets open.
pub(super) struct Sockets {
    clients: ClientFactory,
    token: SlackApiToken,
    timing: Timing,
    inbox: mpsc::Sender<Received>,
    seen: Arc<Mutex<SeenEnvelopes>>,
    signals: mpsc::UnboundedSender<(u64, Signal)>,
    slots: [Slot; 2],
    lines: u64,
}

/// A socket that was open for less than this has failed, whatever it said.
const MIN_LIFETIME: Duration = Duration::from_secs(5);

impl Sockets {
    /// Keeps sockets open, for ever. `app` is the app that they must belong to.
    pub(super) async fn run(
        clients: ClientFactory,
        token: SlackApiToken,
        timing: Timing,
        inbox: mpsc::Sender<Received>,
        app: &str,
        report: impl Fn(Report),
    ) {
        let (signals, mut incoming) = mpsc::unbounded_channel();
        let mut sockets = Self {
            clients,
            token,
            timing,
            inbox,
            seen: Arc::default(),
            signals,
            slots: Default::default(),
            lines: 0,
        };
        loop {
            let wake = sockets.tend(Instant::now(), &report);
            let signal = tokio::time::timeout_at(wake.into(), incoming.recv()).await;
            if let Ok(Some((number, signal))) = signal {
                sockets.on_signal(number, signal, app, Instant::now(), &report);
            }
        }
    }

    /// Opens what should be open, gives up what does not answer; says when to look again.
    fn tend(&mut self, now: Instant, report: &impl Fn(Report)) -> Instant {
        let hello = self.timing.hello;
        let mut wake = now + Duration::from_secs(3600);
        let mut failed = false;
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let timing = self.timing;
            let mut silent = 0;
            for line in [&mut slot.line, &mut slot.next] {
                if line.as_ref().is_some_and(|line| !line.got_hello && now >= line.opened + hello) {
                    *line = None;
                    silent += 1;
                }
            }
            if silent > 0 {
                debug!(place, "a socket did not open in time");
                slot.fail(&timing, now, place);
            }
            failed |= silent > 0;
            let wants = slot.next.is_none() && slot.line.as_ref().is_none_or(|line| line.leaving);
            if wants && slot.retry.is_none_or(|retry| now >= retry) {
                let line = self.open(now);
                if let Some(slot) = self.slots.get_mut(place) {
                    slot.retry = None;
                    match line {
                        Some(line) if slot.line.is_none() => slot.line = Some(line),
                        Some(line) => slot.next = Some(line),
                        None => slot.fail(&timing, now, place),
                    }
                }
            }
            let Some(slot) = self.slots.get(place) else { continue };
            let waiting = [&slot.line, &slot.next].into_iter().flatten().filter(|line| !line.got_hello);
            let due = waiting.map(|line| line.opened + hello).chain(slot.retry).min();
            wake = due.map_or(wake, |due| wake.min(due));
        }
        if failed {
            report(Report { open: self.open_sockets(), problem: None });
        }
        wake
    }

    fn open_sockets(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_open()).count()
    }

    fn on_signal(&mut self, number: u64, signal: Signal, app: &str, now: Instant, report: &impl Fn(Report)) {
        let timing = self.timing;
        let found = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.has(number));
        // What a socket says that was thrown away meanwhile is of no interest.
        let Some((place, slot)) = found else { return };
        let mut problem = None;
        match signal {
            Signal::Hello { app: theirs } if theirs != app => {
                slot.remove(number);
                slot.retry = Some(now + timing.retry.refused);
                problem = Some("the app token and the bot token belong to different apps");
            }
            Signal::Hello { .. } => {
                slot.greet(number);
                info!(place, "slack socket open");
            }
            Signal::Disconnect { reason } if reason == "link_disabled" => {
                slot.remove(number);
                slot.retry = Some(now + timing.retry.refused);
                problem = Some("socket mode is switched off in the app's settings");
            }
            Signal::Disconnect { reason } if reason == "too_many_websockets" => {
                slot.remove(number);
                slot.retry = Some(now + timing.retry.refused);
                problem = Some("the app has too many sockets open");
            }
            Signal::Disconnect { .. } => slot.leave(number),
            Signal::Unreadable => warn!("slack sent something that cannot be read; it was not acknowledged"),
            Signal::Overloaded => warn!("too many clicks at a time; some were not acknowledged"),
            Signal::Lost => {
                let line = slot.remove(number);
                // One that worked for a while is replaced at once; one that did not, after a while.
                if line.is_none_or(|line| !line.got_hello || now.duration_since(line.opened) < MIN_LIFETIME) {
                    slot.fail(&timing, now, place);
                } else {
                    slot.failures = 0;
                }
            }
        }
        report(Report { open: self.open_sockets(), problem });
    }

    /// Opens a socket on a thread of its own.
    fn open(&mut self, now: Instant) -> Option<Line> {
        self.lines += 1;
        let number = self.lines;
        let (stop, stopped) = oneshot::channel();
        let listener = Listener {
            number,
            signals: self.signals.clone(),
            inbox: self.inbox.clone(),
            seen: self.seen.clone(),
        };
        let (clients, token) = (self.clients.clone(), self.token.clone());
        let ping = self.timing.ping.as_secs().max(1);
        let spawned = std::thread::Builder::new().name(format!("slack-socket-{number}")).spawn(move || {
            let _silence = tracing::subscriber::set_default(NoSubscriber::default());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else {
                listener.say(Signal::Lost);
                return;
            };
            runtime.block_on(listen(&clients, token, ping, listener, stopped));
            // Not waiting for a name that is still being looked up.
            runtime.shutdown_background();
        });
        match spawned {
            Ok(_) => Some(Line { number, opened: now, got_hello: false, leaving: false, _stop: stop }),
            Err(error) => {
                warn!(%error, "no thread for a slack socket");
                None
            }
        }
    }
}

/// How long a socket has to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

async fn listen(
    clients: &ClientFactory,
    token: SlackApiToken,
    ping: u64,
    listener: Listener,
    stopped: oneshot::Receiver<()>,
) {
    let environment = Arc::new(SlackClientEventsListenerEnvironment::new(Arc::new(clients.make())));
    let manager = environment.client.http_api.connector.new_clients_manager(environment.clone());
    let config = SlackClientSocketModeConfig::new()
        .with_max_connections_count(1)
        .with_initial_backoff_in_seconds(0)
        .with_ping_interval_in_seconds(ping)
        .with_ping_failure_threshold_times(3);
    if manager.register_new_token(&config, token, Arc::new(listener)).await.is_ok() {
        manager.start().await;
        // An error is a dropped sender, which is how a line ends.
        let _ = stopped.await;
        manager.shutdown().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    }
}

impl Slot {
    fn has(&self, number: u64) -> bool {
        [&self.line, &self.next].into_iter().flatten().any(|line| line.number == number)
    }

    fn is_open(&self) -> bool {
        [&self.line, &self.next].into_iter().flatten().any(|line| line.got_hello)
    }

    /// A socket works. If it came to replace another, that one goes.
    fn greet(&mut self, number: u64) {
        for line in [&mut self.line, &mut self.next].into_iter().flatten() {
            line.got_hello |= line.number == number;
        }
        if self.next.as_ref().is_some_and(|next| next.got_hello) {
            self.line = self.next.take();
        }
    }

    fn leave(&mut self, number: u64) {
        for line in [&mut self.line, &mut self.next].into_iter().flatten() {
            line.leaving |= line.number == number;
        }
    }

    fn remove(&mut self, number: u64) -> Option<Line> {
        if self.next.as_ref().is_some_and(|next| next.number == number) {
            return self.next.take();
        }
        let line = self.line.take_if(|line| line.number == number);
        if self.line.is_none() {
            self.line = self.next.take();
        }
        line
    }

    fn fail(&mut self, timing: &Timing, now: Instant, place: usize) {
        self.failures = self.failures.saturating_add(1);
        let salt = u64::from(self.failures) + 1000 * place as u64;
        self.retry = Some(now + back_off(&timing.retry, self.failures, salt));
    }
}

/// What slack-morphism calls for every frame. Nothing here waits.
struct Listener {
    number: u64,
    signals: mpsc::UnboundedSender<(u64, Signal)>,
    inbox: mpsc::Sender<Received>,
    seen: Arc<Mutex<SeenEnvelopes>>,
}

impl Listener {
    fn say(&self, signal: Signal) {
        // Nobody listens any more: then nothing matters any more.
        let _ = self.signals.send((self.number, signal));
    }

    /// What to answer to a frame.
    fn on_frame(&self, text: &str) -> Option<String> {
        match envelope::read(text) {
            Frame::Hello { app } => {
                self.say(Signal::Hello { app });
                None
            }
            Frame::Disconnect { reason } => {
                self.say(Signal::Disconnect { reason });
                None
            }
            Frame::Other { envelope } => Some(envelope::acknowledgement(&envelope)),
            Frame::Unreadable => {
                self.say(Signal::Unreadable);
                None
            }
            Frame::Interaction { envelope, interaction } => {
                let mut seen = self.seen.lock();
                if seen.is_new(&envelope, &interaction) {
                    let received = Received { interaction, at: Instant::now() };
                    if let Err(full) = self.inbox.try_send(received) {
                        // Without an acknowledgement, Slack tells the user that it did not work.
                        seen.forget(&envelope, &full.into_inner().interaction);
                        self.say(Signal::Overloaded);
                        return None;
                    }
                }
                Some(envelope::acknowledgement(&envelope))
            }
        }
    }
}

#[async_trait]
impl SlackSocketModeClientListener for Listener {
    async fn on_message(&self, _: &SlackSocketModeWssClientId, body: String) -> Option<String> {
        self.on_frame(&body)
    }

    async fn on_error(&self, _: Box<dyn std::error::Error + Send + Sync>) {}

    async fn on_disconnect(&self, _: &SlackSocketModeWssClientId) {
        self.say(Signal::Lost);
    }
}
