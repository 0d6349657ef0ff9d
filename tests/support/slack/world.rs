//! What there is in the fake workspace, and what happened in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{APP, CHANNEL, TEAM, texts};

/// A user, as `users.info` tells it.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub facts: Value,
}

impl User {
    /// A full member.
    pub fn member(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            facts: json!({
                "id": id, "team_id": TEAM, "name": id.to_lowercase(), "deleted": false,
                "is_admin": false, "is_owner": false, "is_primary_owner": false,
                "is_restricted": false, "is_ultra_restricted": false, "is_bot": false,
                "is_app_user": false, "profile": {"display_name": id},
            }),
        }
    }

    /// The same with one fact changed.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.facts[name] = value;
        self
    }

    /// The workspace or organisation that the user is at home in.
    pub fn home(&self) -> String {
        self.facts["team_id"].as_str().unwrap_or_default().to_owned()
    }
}

/// A message, as it is shown now.
#[derive(Clone, Debug)]
pub struct Message {
    pub channel: String,
    pub ts: String,
    pub thread: Option<String>,
    pub text: String,
    pub blocks: Value,
    /// How often it was changed.
    pub edits: usize,
}

impl Message {
    /// Everything that it says, one text per line.
    pub fn says(&self) -> String {
        texts(&self.blocks).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n")
    }

    /// The ids of its buttons.
    pub fn buttons(&self) -> Vec<String> {
        let blocks = self.blocks.as_array().cloned().unwrap_or_default();
        let actions = blocks.iter().filter(|block| block["type"] == "actions");
        let elements = actions.flat_map(|block| block["elements"].as_array().cloned().unwrap_or_default());
        elements.filter_map(|element| element["action_id"].as_str().map(str::to_owned)).collect()
    }

    /// The button called `action`, and the id of the block it is in.
    pub fn button(&self, action: &str) -> Option<(Value, String)> {
        for block in self.blocks.as_array()? {
            for element in block["elements"].as_array().into_iter().flatten() {
                if element["action_id"] == action {
                    return Some((element.clone(), block["block_id"].as_str()?.to_owned()));
                }
            }
        }
        None
    }
}

/// A call of the Web API.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub body: Value,
    pub at: Instant,
    /// `ok`, or how it failed.
    pub outcome: String,
}

/// How a call fails.
#[derive(Clone, Debug)]
pub enum Failure {
    /// 429 with `Retry-After`.
    RateLimited { seconds: u64 },
    /// A status of Slack's load balancer.
    Status(u16),
    /// `"ok": false` with this code.
    Says(&'static str),
    /// No answer.
    Silence,
    /// It is carried out, and the answer gets lost.
    LostAnswer,
    /// Another server answers, with a page and status 200.
    Portal,
}

/// An open dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    pub id: String,
    pub user: String,
    pub view: Value,
}

/// The trigger id of a button press, with which a dialog can be opened.
#[derive(Clone, Debug)]
pub struct Trigger {
    pub user: String,
    pub at: Instant,
    pub used: bool,
}

/// A command to a socket.
#[derive(Debug)]
pub enum Order {
    Send(String),
    /// Close as WebSockets do.
    Close,
    /// Vanish.
    Cut,
    /// Stay open, and neither read nor write any more.
    Freeze,
}

pub struct World {
    state: Mutex<State>,
    clock: AtomicU64,
}

#[derive(Default)]
pub struct State {
    pub users: BTreeMap<String, User>,
    pub channel: Value,
    pub messages: Vec<Message>,
    pub whispers: Vec<(String, String)>,
    pub dialogs: Vec<Dialog>,
    pub triggers: BTreeMap<String, Trigger>,
    pub tickets: Vec<String>,
    pub sockets: BTreeMap<u64, mpsc::UnboundedSender<Order>>,
    pub waiting_acks: BTreeMap<String, oneshot::Sender<Value>>,
    /// Acknowledgements by envelope.
    pub acks: BTreeMap<String, usize>,
    pub calls: Vec<Call>,
    pub failures: BTreeMap<String, VecDeque<Failure>>,
    /// Nothing answers at all.
    pub down: bool,
    /// Sockets are accepted and then say nothing.
    pub mute: bool,
    /// Sockets are refused.
    pub deaf: bool,
    pub revoked: bool,
    /// How long a trigger is good.
    pub trigger_life: Option<Duration>,
    /// What `hello` says.
    pub hello_app: Option<String>,
    pub auth: Option<Value>,
}

impl World {
    pub fn new() -> Self {
        let channel = json!({
            "id": CHANNEL, "name": "approvals", "is_channel": true, "is_private": false, "is_archived": false,
            "is_shared": false, "is_ext_shared": false, "is_org_shared": false,
            "is_pending_ext_shared": false, "is_member": true,
        });
        Self { state: Mutex::new(State { channel, ..State::default() }), clock: AtomicU64::new(1) }
    }

    /// Looks at the state, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// A number that was never used before.
    pub fn number(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// A message's id.
    pub fn ts(&self) -> String {
        format!("1767607200.{:06}", self.number())
    }

    pub fn add_user(&self, user: User) {
        self.with(|state| state.users.insert(user.id.clone(), user));
    }

    pub fn user(&self, id: &str) -> Option<User> {
        self.with(|state| state.users.get(id).cloned())
    }

    /// Changes a fact about the channel.
    pub fn set_channel(&self, name: &str, value: Value) {
        self.with(|state| state.channel[name] = value);
    }

    pub fn messages(&self) -> Vec<Message> {
        self.with(|state| state.messages.clone())
    }

    pub fn message(&self, ts: &str) -> Option<Message> {
        self.messages().into_iter().find(|message| message.ts == ts)
    }

    /// An administrator deletes a message.
    pub fn delete(&self, ts: &str) {
        self.with(|state| state.messages.retain(|message| message.ts != ts));
    }

    pub fn whispers(&self, user: &str) -> Vec<String> {
        self.with(|state| {
            let theirs = state.whispers.iter().filter(|(other, _)| other == user);
            theirs.map(|(_, text)| text.clone()).collect()
        })
    }

    pub fn calls(&self) -> Vec<Call> {
        self.with(|state| state.calls.clone())
    }

    /// Every call and how it went, for messages of failed tests.
    pub fn summary(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| format!("{} {}", call.method, call.outcome)).collect()
    }

    /// The dialog that `user` looks at.
    pub fn dialog(&self, user: &str) -> Option<Dialog> {
        self.with(|state| state.dialogs.iter().rev().find(|dialog| dialog.user == user).cloned())
    }

    /// The next `times` calls of `method` fail.
    pub fn fail(&self, method: &str, failure: &Failure, times: usize) {
        self.with(|state| {
            let failures = state.failures.entry(method.to_owned()).or_default();
            failures.extend(std::iter::repeat_n(failure.clone(), times));
        });
    }

    /// Everything works again.
    pub fn mend(&self) {
        self.with(|state| {
            state.failures.clear();
            state.down = false;
            state.mute = false;
            state.deaf = false;
            state.revoked = false;
        });
    }

    /// Nothing answers from now on, and what is open breaks.
    pub fn go_down(&self) {
        self.with(|state| state.down = true);
        self.order_all(|| Order::Cut);
    }

    /// Slack's support takes the tokens away.
    pub fn revoke(&self) {
        self.with(|state| state.revoked = true);
    }

    pub fn sockets(&self) -> usize {
        self.with(|state| state.sockets.len())
    }

    /// The open sockets, oldest first.
    pub fn socket_ids(&self) -> Vec<u64> {
        self.with(|state| state.sockets.keys().copied().collect())
    }

    pub fn order(&self, socket: u64, order: Order) {
        self.with(|state| {
            if let Some(sender) = state.sockets.get(&socket) {
                let _ = sender.send(order);
            }
        });
    }

    pub fn order_all(&self, order: impl Fn() -> Order) {
        for socket in self.socket_ids() {
            self.order(socket, order());
        }
    }

    /// Tells a socket that it will be closed, and closes it, as Slack does now and then.
    pub fn disconnect(&self, socket: u64, reason: &str, and_close: bool) {
        let frame = json!({
            "type": "disconnect", "reason": reason,
            "debug_info": {"host": "applink-1", "started": "", "build_number": 1, "approximate_connection_time": 18060},
        });
        self.order(socket, Order::Send(frame.to_string()));
        if and_close {
            self.order(socket, Order::Close);
            // Nothing more is sent over it.
            self.with(|state| state.sockets.remove(&socket));
        }
    }

    /// The app that a socket belongs to.
    pub fn hello_app(&self) -> String {
        self.with(|state| state.hello_app.clone()).unwrap_or_else(|| APP.to_owned())
    }
}
