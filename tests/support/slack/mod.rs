//! A Slack of our own: the Web API over real HTTP, socket mode over real WebSockets, and people who
//! press buttons. It refuses what Slack's documentation says that Slack refuses, and fails on demand.
//!
//! - `world`: what there is (users, channels, messages, dialogs), and what happened.
//! - `web`: the Web API. - `wire`: sockets. - `people`: clicks and submissions. - `limits`: what
//!   Slack takes.
//!
//! It lives on a thread of its own on which nothing is logged, so that a test can look for secrets in
//! the log of the code under test.

pub mod limits;
pub mod people;
mod web;
mod wire;
pub mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;
use url::Url;

pub use self::people::Click;
pub use self::world::{Call, Failure, Message, User, World};

/// The ids that everything has unless a test says otherwise.
pub const APP: &str = "A0COUNTER1";
pub const TEAM: &str = "T0HOME0001";
pub const CHANNEL: &str = "C0APPROVALS";
pub const BOT_TOKEN: &str = "xoxb-1111-2222-bottokenbottoken";
pub const APP_TOKEN: &str = "xapp-1-A0COUNTER1-3333-apptokenapptoken";

/// A running fake. Dropping it ends it.
pub struct FakeSlack {
    world: Arc<World>,
    api: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl FakeSlack {
    /// Starts one, with one channel that has the bot as its only member.
    pub fn start() -> Self {
        let world = Arc::new(World::new());
        let (addresses, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = world.clone();
        std::thread::spawn(move || {
            let _silence = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let sockets = wire::serve(shared.clone()).await;
                let api = web::serve(shared, sockets).await;
                addresses.send(api).unwrap();
                let _ = stopped.await;
            });
            runtime.shutdown_background();
        });
        let api = started.recv().unwrap();
        Self { world, api, _stop: stop }
    }

    /// Where its Web API is.
    pub fn api_url(&self) -> Url {
        Url::parse(&format!("http://{}/api", self.api)).unwrap()
    }

    /// What there is, and what happened.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Adds a full member of the workspace to the channel.
    pub fn add_member(&self, id: &str) {
        self.world.add_user(User::member(id));
    }

    /// The messages that the channel shows, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.world.messages()
    }

    /// The cards: messages that are not in a thread.
    pub fn cards(&self) -> Vec<Message> {
        self.messages().into_iter().filter(|message| message.thread.is_none()).collect()
    }

    /// The messages in the thread below `ts`.
    pub fn thread(&self, ts: &str) -> Vec<Message> {
        self.messages().into_iter().filter(|message| message.thread.as_deref() == Some(ts)).collect()
    }

    /// The ephemeral messages to `user`, as text.
    pub fn whispers(&self, user: &str) -> Vec<String> {
        self.world.whispers(user)
    }

    /// Every call of `method` so far.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.world.calls().into_iter().filter(|call| call.method == method).collect()
    }

    /// Waits until `what` gives something.
    pub async fn until<T>(&self, what: impl Fn(&Self) -> Option<T>) -> T {
        let patience = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(found) = what(self) {
                return found;
            }
            assert!(Instant::now() < patience, "waited in vain; calls: {:#?}", self.world.summary());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the first card.
    pub async fn first_card(&self) -> Message {
        self.until(|fake| fake.cards().into_iter().next()).await
    }

    /// Waits for an ephemeral message to `user` that contains `words`.
    pub async fn told(&self, user: &str, words: &str) -> String {
        self.until(|fake| fake.whispers(user).into_iter().find(|whisper| whisper.contains(words))).await
    }

    /// Waits until `sockets` sockets are open.
    pub async fn until_sockets(&self, sockets: usize) {
        self.until(|fake| (fake.world.sockets() == sockets).then_some(())).await;
    }
}

/// Every text object in a JSON value, as (type, text).
pub fn texts(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(value, &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
            if matches!(kind, "plain_text" | "mrkdwn" | "markdown" | "text" | "raw_text")
                && let Some(text) = object.get("text").and_then(Value::as_str)
            {
                found.push((kind.to_owned(), text.to_owned()));
            }
            object.values().for_each(|value| collect(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
