//! Listening, connecting, and driving sessions.
//!
//! - [`handshake`]: an agent's first messages.
//! - [`upstream`]: our login at the other end.
//! - `connection`: one session, from its first message to its last.
//! - `gate`: one statement's decision.
//! - `holding`: what a session waits for, and what it tells meanwhile.
//! - [`catalogue`]: what an upstream is like.
//! - [`sessions`]: who is connected.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod catalogue;
mod comment;
mod connection;
mod created;
mod gate;
pub mod handshake;
mod holding;
mod pipe;
pub mod sessions;
pub mod stream;
pub mod tls;
pub mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, debug, info, info_span, warn};
use uuid::Uuid;

use self::catalogue::UpstreamState;
use self::connection::{Connection, Parts};
use self::handshake::{Arrival, Door, Turned, Visitor};
use self::pipe::Pipe;
use self::sessions::{Control, Sessions, Watch};
use self::tls::AgentTls;
use crate::actor::{AgentName, UpstreamName};
use crate::classify::Classifier;
use crate::desk::Desk;
use crate::identity::{AgentIdentity as _, Directory, ScramVerifier};
use crate::ledger::{Ledger, SessionInfo};
use crate::policy::Policy;
use crate::refusal::{OneLine, Refusal};
use crate::session::settings::Settings;
use crate::session::{Limits, Session};
use crate::statement::{SessionId, TransactionStatus};
use crate::wire::backend;
use crate::wire::scram::Keys;

/// How much the proxy takes on.
#[derive(Clone, Copy, Debug)]
pub struct ProxyLimits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Sessions of one agent at a time.
    pub sessions_per_agent: usize,
    /// Connections that have not proved who they are.
    pub unproved: usize,
    /// What a session takes in.
    pub session: Limits,
}

/// Counts for `status` and metrics.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    turned_away: AtomicU64,
    malformed: AtomicU64,
}

impl Counters {
    pub(crate) fn malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections accepted, connections turned away, and sessions ended for malformed bytes.
    #[must_use]
    pub fn read(&self) -> (u64, u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.accepted), of(&self.turned_away), of(&self.malformed))
    }
}

/// Everything that sessions share.
pub struct Shared {
    /// What statements do.
    pub classifier: Classifier,
    /// What they may do.
    pub policy: ArcSwap<Policy>,
    /// The record.
    pub ledger: Ledger,
    /// Where they wait.
    pub desk: Desk,
    /// Who may come.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Where they go.
    pub upstreams: ArcSwap<BTreeMap<UpstreamName, Arc<UpstreamState>>>,
    /// TLS towards agents.
    pub tls: ArcSwap<Option<AgentTls>>,
    /// Agents may come without TLS from other machines.
    pub insecure_plaintext: bool,
    /// The sessions that run.
    pub sessions: Sessions,
    /// How many there may be.
    pub limits: ProxyLimits,
    /// Counts.
    pub counters: Counters,
    /// Why a changed policy or configuration is not used, for `status`.
    pub trouble: Mutex<Option<String>>,
    /// Zero of the monotonic clock.
    pub started: Instant,
    /// Sessions of each agent.
    pub per_agent: Mutex<HashMap<AgentName, usize>>,
}

impl Shared {
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How the proxy is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    Run,
    /// No new sessions; those that run end when nothing is open.
    Drain,
    /// At once.
    Now,
}

/// Accepts agents until told to stop, and returns when the last session has ended.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<Stop>) {
    let unproved = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => {
                if *stop.borrow() == Stop::Run { continue } else { break }
            }
        };
        match accepted {
            Ok((socket, from)) => {
                shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
                let (shared, unproved) = (Arc::clone(&shared), Arc::clone(&unproved));
                tokio::spawn(async move { receive(shared, socket, from, unproved).await });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait until some are closed rather than spin.
                warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    drain(&shared, stop).await;
}

async fn drain(shared: &Shared, mut stop: watch::Receiver<Stop>) {
    info!(sessions = shared.sessions.count(), "draining");
    shared.sessions.tell_all(|| Control::Drain);
    while shared.sessions.count() > 0 {
        if *stop.borrow() == Stop::Now {
            shared.sessions.tell_all(|| Control::Stop);
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), stop.changed()).await;
    }
}

/// Counts something as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = counter.fetch_add(1, Ordering::AcqRel);
        (Self(Arc::clone(counter)), before)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn receive(shared: Arc<Shared>, socket: TcpStream, from: SocketAddr, unproved: Arc<AtomicUsize>) {
    if stream::tune(&socket).is_err() {
        return;
    }
    let (counted, before) = Counted::new(&unproved);
    if before >= shared.limits.unproved {
        shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
        // As Postgres does when it cannot start a process: before anything was read. What the socket
        // does not take at once is not waited for.
        let mut last_words = BytesMut::new();
        backend::put_refusal_as(&Refusal::TooManySessions, "FATAL", &mut last_words);
        let _ = socket.try_write(&last_words);
        return;
    }
    let directory = shared.directory.load_full();
    let tls = shared.tls.load_full();
    let verifier = |name: &str| {
        let (agent, verifier) = directory.scram(name);
        let ScramVerifier { iterations, salt, stored_key, server_key } = verifier;
        (agent, Keys { iterations, salt, stored_key, server_key })
    };
    let door = Door {
        tls: tls.as_ref().as_ref(),
        insecure_plaintext: shared.insecure_plaintext,
        verifier: &verifier,
    };
    let visitor = handshake::receive(socket, from, &door).await;
    drop(counted);
    match visitor {
        Ok(Visitor::Cancel { process, secret }) => shared.sessions.cancel(process, &secret).await,
        Ok(Visitor::Agent(arrival)) => welcome(shared, *arrival).await,
        Err(turned) => {
            shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            match turned {
                Turned::Gone(error) => debug!(%from, %error, "connection gone before a session began"),
                Turned::Malformed(error) => {
                    shared.counters.malformed();
                    info!(%from, %error, "malformed start-up");
                }
                Turned::TooSlow => info!(%from, "no proof of identity in time"),
                Turned::Refused(refusal) => info!(%from, error = %OneLine(&refusal), "agent turned away"),
            }
        }
    }
}

/// From a proved identity to a running session, or an error that says why not.
async fn welcome(shared: Arc<Shared>, mut arrival: Arrival) {
    let id = SessionId(Uuid::now_v7());
    let agent = arrival.identity.agent.name.clone();
    let span = info_span!("session", session = %id, %agent);
    async move {
        let Some(_place) = Place::take(&shared, &agent) else {
            return tell(&mut arrival, &Refusal::TooManySessions).await;
        };
        match begin(&shared, id, &mut arrival).await {
            Err(refusal) => {
                info!(error = %OneLine(&refusal), "session not begun");
                tell(&mut arrival, &refusal).await;
            }
            Ok(ready) => {
                info!(upstream = %ready.watch.target.upstream, from = %ready.watch.identity.client_address, "session begun");
                let key = ready.key;
                let connection = ready.into_connection(&shared, arrival);
                let reason = connection.run().await;
                shared.sessions.remove(id, key);
                info!(reason, "session ended");
            }
        }
    }
    .instrument(span)
    .await;
}

async fn tell(arrival: &mut Arrival, refusal: &Refusal) {
    backend::put_refusal_as(refusal, "FATAL", &mut arrival.output);
    let _ = arrival.stream.write_all(&arrival.output).await;
    let _ = arrival.stream.shutdown().await;
}

/// One of the places that sessions take.
struct Place {
    shared: Arc<Shared>,
    agent: AgentName,
}

impl Place {
    fn take(shared: &Arc<Shared>, agent: &AgentName) -> Option<Self> {
        let mut per_agent = shared.per_agent.lock();
        let all: usize = shared.sessions.count();
        let mine = per_agent.entry(agent.clone()).or_insert(0);
        if all >= shared.limits.sessions || *mine >= shared.limits.sessions_per_agent {
            return None;
        }
        *mine += 1;
        Some(Self { shared: Arc::clone(shared), agent: agent.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut per_agent = self.shared.per_agent.lock();
        if let Some(mine) = per_agent.get_mut(&self.agent) {
            *mine -= 1;
            if *mine == 0 {
                per_agent.remove(&self.agent);
            }
        }
    }
}

/// A session that is about to run.
struct Ready {
    watch: Arc<Watch>,
    state: Arc<UpstreamState>,
    known: Arc<catalogue::Known>,
    connected: upstream::Connected,
    log: crate::ledger::SessionLog,
    control: mpsc::Receiver<Control>,
    key: (i32, i32),
    seed: u64,
}

async fn begin(shared: &Arc<Shared>, id: SessionId, arrival: &mut Arrival) -> Result<Ready, Refusal> {
    let name = UpstreamName::from(arrival.startup.database.as_str());
    let allowed = arrival.identity.agent.upstreams.contains(&name);
    let state = shared.upstreams.load().get(&name).filter(|_| allowed).cloned();
    let state = state.ok_or_else(|| Refusal::UnknownUpstream { name: name.to_string() })?;

    let unreachable = |error: upstream::ConnectError| {
        warn!(upstream = %name, %error, "upstream not reached");
        Refusal::UpstreamUnreachable { upstream: name.to_string() }
    };
    let known = state.known().await.map_err(unreachable)?;
    let mut settings = arrival.startup.settings.clone();
    let application_name = if state.upstream.agents_name_sessions {
        arrival.startup.application_name.clone()
    } else {
        Some(application_name(arrival, id))
    };
    settings.extend(application_name.map(|name| ("application_name".to_owned(), name)));
    let connected = state.note(upstream::log_in(&state.upstream, &settings).await).map_err(unreachable)?;

    let identity = Arc::new(arrival.identity.clone());
    let claimed = arrival.startup.claims.clone();
    let target = state.upstream.target();
    let info = SessionInfo {
        session: id,
        identity: Arc::clone(&identity),
        target: target.clone(),
        claimed: claimed.clone(),
        at: Timestamp::now(),
    };
    let log = shared.ledger.session_opened(&info)?;
    let (sender, control) = mpsc::channel(16);
    let encrypted = matches!(arrival.stream, stream::Stream::Agent(_));
    let watch = Arc::new(Watch::new(id, identity, claimed, target, encrypted, info.at, sender));
    let (key, seed) = own_key(shared, connected.key)?;
    shared.sessions.add(&watch, key);

    for (name, value) in &connected.parameters {
        backend::put_parameter(name, value, &mut arrival.output);
    }
    backend::put_key(key.0, key.1, &mut arrival.output);
    backend::put_ready(TransactionStatus::Idle.as_byte(), &mut arrival.output);
    Ok(Ready { watch, state, known, connected, log, control, key, seed })
}

/// Upstream's own process id, so that `pg_backend_pid()` tells the same, and a secret of ours: who
/// knows the agent's key cannot cancel anything past us.
fn own_key(shared: &Shared, upstream: Option<(i32, i32)>) -> Result<((i32, i32), u64), Refusal> {
    loop {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Refusal::Internal { what: "no randomness" })?;
        let [a, b, c, d, e, f, g, h, rest @ ..] = random;
        let seed = u64::from_be_bytes(rest);
        let process = upstream.map_or(i32::from_be_bytes([e, f, g, h]) & i32::MAX, |(process, _)| process);
        let key = (process, i32::from_be_bytes([a, b, c, d]));
        if !shared.sessions.knows_key(key) {
            return Ok((key, seed));
        }
    }
}

/// What a DBA sees in `pg_stat_activity`: us, the agent, the session; at most 63 bytes.
fn application_name(arrival: &Arrival, id: SessionId) -> String {
    let session = id.0.simple().to_string();
    // The end of a UUIDv7 is its random part.
    let short = session.get(session.len() - 8..).unwrap_or(&session);
    let mut agent = arrival.identity.agent.name.to_string();
    while agent.len() > 40 {
        agent.pop();
    }
    format!("countersign {agent} {short}")
}

impl Ready {
    fn into_connection(self, shared: &Arc<Shared>, arrival: Arrival) -> Connection {
        let path = arrival.startup.search_path().map(str::to_owned);
        let path = path.or_else(|| self.known.search_path.as_deref().map(str::to_owned));
        let mut settings = Settings::new(self.watch.target.role.as_str(), path.as_deref());
        for (name, value) in &self.connected.parameters {
            settings.reported(name, value);
        }
        let mut agent = Pipe::new(arrival.stream, arrival.input);
        *agent.output() = arrival.output;
        Connection::new(Parts {
            shared: Arc::clone(shared),
            watch: self.watch,
            state: self.state,
            known: self.known,
            upstream_key: self.connected.key,
            session: Session::new(shared.limits.session, settings, self.seed),
            log: self.log,
            agent,
            upstream: Pipe::new(self.connected.stream, self.connected.rest),
            control: self.control,
            defer: arrival.startup.defer,
        })
    }
}

/// Tells a connection that nobody can be received, before anything is known of it.
pub async fn turn_away(mut socket: TcpStream, refusal: &Refusal) -> io::Result<()> {
    let mut output = BytesMut::new();
    backend::put_refusal_as(refusal, "FATAL", &mut output);
    socket.write_all(&output).await?;
    socket.shutdown().await
}
