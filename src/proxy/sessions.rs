//! The sessions that run, for those who look at them, cancel in them, or end them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::actor::{AgentIdentity, Claims};
use crate::statement::{RequestId, SessionEnd, SessionId, Target};
use crate::wire::cancel::CancelKey;

/// What somebody outside wants of a session.
#[derive(Debug)]
pub enum Control {
    /// The agent cancels what it waits for; the sender is told when that has reached upstream.
    Cancel(oneshot::Sender<()>),
    /// An operator ends it.
    Kill,
    /// The agent may not go on; the reason is told.
    End(SessionEnd),
    /// The proxy shuts down: end as soon as nothing is open.
    Drain,
    /// The proxy shuts down now.
    Stop,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waiting for the agent.
    Idle,
    /// In a transaction, waiting for the agent.
    InTransaction,
    /// Upstream works.
    Running,
    /// A statement waits for approval.
    Holding,
}

impl Doing {
    /// The stable spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::InTransaction => "in_transaction",
            Self::Running => "running",
            Self::Holding => "holding",
        }
    }
}

/// What others may see of a session while it runs.
#[derive(Debug)]
pub struct Watch {
    /// Its id.
    pub id: SessionId,
    /// Who is on it.
    pub identity: Arc<AgentIdentity>,
    /// What the agent claims, as of now.
    pub claimed: Mutex<Claims>,
    /// Where it runs.
    pub target: Target,
    /// Whether the agent's connection is under TLS.
    pub encrypted: bool,
    /// When it began.
    pub since: Timestamp,
    /// The request that waits.
    pub held: Mutex<Option<RequestId>>,
    doing: AtomicU8,
    statements: AtomicU64,
    control: mpsc::Sender<Control>,
}

impl Watch {
    pub(super) fn new(
        id: SessionId,
        identity: Arc<AgentIdentity>,
        claimed: Claims,
        target: Target,
        encrypted: bool,
        since: Timestamp,
        control: mpsc::Sender<Control>,
    ) -> Self {
        Self {
            id,
            identity,
            claimed: Mutex::new(claimed),
            target,
            encrypted,
            since,
            held: Mutex::default(),
            doing: AtomicU8::new(0),
            statements: AtomicU64::new(0),
            control,
        }
    }

    pub(super) fn set_doing(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    pub(super) fn count_statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// What it is doing.
    #[must_use]
    pub fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Idle,
            1 => Doing::InTransaction,
            2 => Doing::Running,
            _ => Doing::Holding,
        }
    }

    /// Ends the session, whatever else it is told meanwhile.
    pub(super) async fn end(&self, why: SessionEnd) {
        // An error says that it has ended already.
        let _ = self.control.send(Control::End(why)).await;
    }

    /// Statements forwarded so far.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    running: Mutex<HashMap<SessionId, Arc<Watch>>>,
    /// Cancel keys that we gave to agents, by process id: two upstreams may have the same one.
    keys: Mutex<HashMap<i32, Vec<(CancelKey, SessionId)>>>,
    begun: AtomicU64,
}

impl Sessions {
    pub(super) fn add(&self, watch: &Arc<Watch>, key: CancelKey) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.keys.lock().entry(key.process).or_default().push((key, watch.id));
        self.running.lock().insert(watch.id, Arc::clone(watch));
    }

    pub(super) fn remove(&self, id: SessionId, process: i32) {
        self.running.lock().remove(&id);
        let mut keys = self.keys.lock();
        if let Entry::Occupied(mut entry) = keys.entry(process) {
            entry.get_mut().retain(|(_, owner)| *owner != id);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Whether a cancel key is in use.
    pub(super) fn knows_key(&self, key: &CancelKey) -> bool {
        self.owner(key.process, key.secret()).is_some()
    }

    /// The session that a cancel key was given to.
    fn owner(&self, process: i32, secret: &[u8]) -> Option<SessionId> {
        let keys = self.keys.lock();
        keys.get(&process)?.iter().find(|(key, _)| key.has_secret(secret)).map(|(_, id)| *id)
    }

    /// How many run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().len()
    }

    /// How many have begun since the start.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Watch>> {
        let mut sessions: Vec<_> = self.running.lock().values().cloned().collect();
        sessions.sort_by_key(|watch| watch.id);
        sessions
    }

    /// Ends one; `false` when it does not run.
    #[must_use]
    pub fn kill(&self, id: SessionId) -> bool {
        let watch = self.running.lock().get(&id).cloned();
        watch.is_some_and(|watch| watch.control.try_send(Control::Kill).is_ok())
    }

    /// Tells all sessions the same.
    pub(super) fn tell_all(&self, control: impl Fn() -> Control) {
        for watch in self.list() {
            let _ = watch.control.try_send(control());
        }
    }

    /// Cancels in the session that this key was given to. Returns when upstream has got it; for keys
    /// that are nobody's, at once.
    pub(super) async fn cancel(&self, process: i32, secret: &[u8]) {
        let watch = self.owner(process, secret).and_then(|id| self.running.lock().get(&id).cloned());
        if let Some(watch) = watch {
            let (sender, reached) = oneshot::channel();
            if watch.control.send(Control::Cancel(sender)).await.is_ok() {
                let _ = reached.await;
            }
        }
    }
}
