//! The console, the REST API, and the server under both.
//!
//! A web page is a channel that carries the whole request: what a reviewer needs is on it, and what
//! the agent wrote is on it as text and nothing else. Who somebody is, [`identity`](crate::identity)
//! says; what their answer means, [`desk`](crate::desk). What this module adds is that an answer can
//! only come from a page or a program that its sender meant to use.
//!
//! - [`views`]: what is asked of ledger, sessions and policy.
//! - [`record`]: the ledger, read.
//! - [`serve`]: sockets, TLS, shutting down.
//! - `connections`: which connections stay.
//! - `guard`: what every request and every answer must have.
//! - `caller`: who asks.
//! - `limiter`, `streams`: how much anybody may ask for.
//! - `assets`: the console's own files.
//! - `what_if`: what would become of a statement.
//! - [`api`][]: `/api/v1`.
//! - [`console`][]: pages.
//!
//! The invariants that live here: text of an agent is never markup; a console page offers Approve
//! only when it shows the whole statement, and the server takes an approval only from a form of such
//! a page; nothing that changes anything is done by a `GET` or for another site.

pub mod api;
mod assets;
mod caller;
mod connections;
pub mod console;
mod guard;
mod limiter;
pub mod record;
pub mod serve;
mod streams;
pub mod views;
mod what_if;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use jiff::Timestamp;
use tokio::sync::watch;
use url::Url;
use zeroize::Zeroizing;

pub use self::connections::ConnectionLimits;
pub use self::views::Views;
use crate::actor::{AgentName, ReviewerId};
use crate::desk::Desk;
use crate::identity::link::{self, SignInLinks};
use crate::identity::session::{ConsoleSessions, Lifetimes};
use crate::identity::{Directory, secret};
use crate::statement::RequestId;

/// How the web side is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How browsers reach it: scheme, host and port; a path is ignored.
    pub url: Url,
    /// How long console sessions live.
    pub lifetimes: Lifetimes,
    /// How long a request may take to be answered, streams of events aside.
    pub patience: Duration,
    /// How many connections there may be, and for how long.
    pub connections: ConnectionLimits,
}

impl Settings {
    /// The usual ones, for a console that is reached at `url`.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            lifetimes: Lifetimes::default(),
            patience: Duration::from_secs(30),
            connections: ConnectionLimits::of(1024),
        }
    }
}

/// The web side. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Web(Arc<Inner>);

struct Inner {
    settings: Settings,
    desk: Desk,
    directory: Arc<ArcSwap<Directory>>,
    links: SignInLinks,
    sessions: ConsoleSessions,
    views: Views,
    /// Signs what forms carry. Made anew at each start: forms do not outlive console sessions.
    form_key: Zeroizing<[u8; 32]>,
    failures: limiter::Limiter<IpAddr>,
    asking: limiter::Limiter<AgentName>,
    agents: caller::KnownAgents,
    streams: Arc<streams::Streams>,
    /// Becomes true when the server shuts down, so that streams end.
    closing: watch::Sender<bool>,
    verification: console::ledger::Verification,
    started: Timestamp,
}

/// The longest body of a request, but where a route says otherwise.
const BODY: usize = 64 << 10;

impl Web {
    /// The web side of `desk`, for the people in `directory`.
    #[must_use]
    pub fn new(settings: Settings, desk: Desk, directory: Arc<ArcSwap<Directory>>, views: Views) -> Self {
        let started = desk.now();
        Self(Arc::new(Inner {
            sessions: ConsoleSessions::new(settings.lifetimes),
            settings,
            desk,
            directory,
            links: SignInLinks::new(started),
            views,
            form_key: Zeroizing::new(secret::random()),
            failures: limiter::Limiter::new(limiter::FAILURES),
            asking: limiter::Limiter::new(limiter::ASKING),
            agents: caller::KnownAgents::default(),
            streams: Arc::default(),
            closing: watch::Sender::new(false),
            verification: console::ledger::Verification::default(),
            started,
        }))
    }

    /// A link with which `reviewer` can sign in to the console once, within ten minutes; `None` when
    /// nobody of that name is enrolled.
    #[must_use]
    pub fn sign_in_link(&self, reviewer: &ReviewerId) -> Option<Url> {
        let directory = self.0.directory.load();
        directory.reviewer(reviewer)?;
        Some(sign_in_url(&self.0.settings.url, &link::issue(&directory, reviewer, self.0.desk.now())))
    }

    /// Where a request is shown in the console; for cards on other channels.
    #[must_use]
    pub fn request_url(&self, request: RequestId) -> Url {
        let mut url = self.0.settings.url.clone();
        url.set_path(&format!("/requests/{}", request.code()));
        url
    }

    /// Everything, as one service.
    pub fn router(&self) -> Router {
        Router::new()
            .nest("/api/v1", api::router(self))
            .merge(console::router(self))
            .layer(DefaultBodyLimit::max(BODY))
            .layer(middleware::from_fn_with_state(self.clone(), guard::patience))
            .layer(middleware::from_fn_with_state(self.clone(), guard::headers))
            .with_state(self.clone())
    }

    fn now(&self) -> Timestamp {
        self.0.desk.now()
    }

    /// Whether browsers reach the console over TLS, here or at a proxy in front of it.
    fn is_secure(&self) -> bool {
        self.0.settings.url.scheme() == "https"
    }
}

/// The address of a sign-in link: its secret behind the console's `/sign-in/`. In the path, not behind
/// `#`: signing in must work without JavaScript. The page there uses the link up only when a button
/// is pressed, so previews of chat services do not.
fn sign_in_url(console: &Url, secret: &str) -> Url {
    let mut url = console.clone();
    url.set_path(&format!("/sign-in/{secret}"));
    url
}

/// Runs something that may wait for a disk away from the threads that serve requests. `None` when
/// it broke, which is in the log.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(%error, "work for a web request broke");
            None
        }
    }
}
