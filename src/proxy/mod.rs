//! Listening, connecting, and driving sessions.
//!
//! - `crowd`: how many may stand at the door.
//! - [`handshake`]: an agent's first messages.
//! - [`upstream`]: our login at the other end.
//! - `connection`: one session, from its first message to its last.
//! - `gate`: one statement's decision.
//! - `holding`: what a session waits for, and what it tells meanwhile.
//! - [`large_texts`]: whose large text is read next.
//! - [`catalogue`]: what an upstream is like.
//! - [`sessions`]: who is connected.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod catalogue;
mod comment;
mod connection;
mod created;
mod crowd;
mod gate;
pub mod handshake;
mod holding;
pub mod large_texts;
mod pipe;
pub mod sessions;
pub mod stream;
pub mod tls;
pub mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

use self::catalogue::{Asking, UpstreamState};
use self::connection::{Connection, Parts};
use self::crowd::Crowd;
use self::handshake::{Arrival, Door, Turned, Visitor};
use self::large_texts::LargeTexts;
use self::pipe::Pipe;
use self::sessions::{Control, Sessions, Watch};
use self::tls::AgentTls;
use crate::actor::{AgentName, UpstreamName};
use crate::classify::{Classifier, may_start_with};
use crate::desk::Desk;
use crate::identity::{Directory, KeySources};
use crate::ledger::{Ledger, SessionInfo};
use crate::policy::Policy;
use crate::refusal::{OneLine, Refusal};
use crate::session::settings::{AtLogin, Settings};
use crate::session::startup;
use crate::session::{KeptBytes, Limits, Session};
use crate::statement::{SessionEnd, SessionId, TransactionStatus};
use crate::wire::backend;
use crate::wire::cancel::CancelKey;
use crate::wire::frontend::Opening;

/// How much the proxy takes on.
#[derive(Clone, Copy, Debug)]
pub struct ProxyLimits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Sessions of one agent at a time.
    pub sessions_per_agent: usize,
    /// How long an agent may take to prove who it is.
    pub login: Duration,
    /// Connections that have not proved who they are.
    pub unproved: usize,
    /// Those of them that may come from one address of another machine.
    pub unproved_per_address: usize,
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

/// What an agent has of the proxy.
#[derive(Debug, Default)]
pub struct Usage {
    sessions: usize,
    /// Bytes of texts that its sessions keep.
    texts: KeptBytes,
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
    /// What each agent with sessions has of the proxy.
    pub per_agent: Mutex<HashMap<AgentName, Usage>>,
    /// Keys that agents' tokens are checked with.
    pub key_sources: KeySources,
    /// Turns for large texts.
    pub large_texts: Arc<LargeTexts>,
}

impl Shared {
    /// Ends the sessions of agents that are gone from the directory, or may not use their upstream any
    /// more. To be called when the directory has changed. Other changes, a new password among them, are
    /// for new sessions.
    pub fn end_revoked(&self) {
        for watch in self.sessions.list() {
            if !self.may_stay(&watch) {
                info!(session = %watch.id, agent = %watch.identity.agent.name, "session of a revoked agent");
                // Not to be lost in a queue that somebody else fills.
                tokio::spawn(async move { watch.end(SessionEnd::AgentRevoked).await });
            }
        }
    }

    /// Looks again at every request: what waits, and what was granted and not used, has to stand before
    /// the policy and the people of this moment. To be called when either has changed.
    pub fn reconsider(&self) {
        let policy = self.policy.load_full();
        let now = Timestamp::now();
        self.desk.reconsider(|request| holding::decide_again(&policy, request, now));
    }

    fn may_stay(&self, watch: &Watch) -> bool {
        let directory = self.directory.load();
        let entry = directory.agent(&watch.identity.agent.name);
        entry.is_some_and(|entry| entry.agent.upstreams.contains(&watch.target.upstream))
    }

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
    let crowd = Crowd::new(shared.limits.unproved, shared.limits.unproved_per_address);
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
                let (shared, crowd) = (Arc::clone(&shared), Arc::clone(&crowd));
                tokio::spawn(async move { receive(shared, socket, from, crowd).await });
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

async fn receive(shared: Arc<Shared>, socket: TcpStream, from: SocketAddr, crowd: Arc<Crowd>) {
    if stream::tune(&socket).is_err() {
        return;
    }
    let Some(standing) = crowd.enter(from.ip()) else {
        shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
        debug!(%from, "too many connections that have not proved who they are");
        // As Postgres does when it cannot start a process: before anything was read. What the socket
        // does not take at once is not waited for.
        let mut last_words = BytesMut::new();
        backend::put_refusal_as(&Refusal::TooManySessions, "FATAL", &mut last_words);
        let _ = socket.try_write(&last_words);
        return;
    };
    let directory = shared.directory.load_full();
    let tls = shared.tls.load_full();
    let door = Door {
        tls: tls.as_ref().as_ref(),
        insecure_plaintext: shared.insecure_plaintext,
        patience: shared.limits.login,
        agents: &*directory,
        key_sources: &shared.key_sources,
    };
    let visitor = handshake::receive(socket, from, &door).await;
    drop(standing);
    match visitor {
        Ok(Visitor::Cancel { process, secret, mut stream }) => {
            shared.sessions.cancel(process, &secret).await;
            // Under TLS with a close_notify: libpq reports an end without one as a failed cancel.
            let _ = stream.shutdown().await;
        }
        Ok(Visitor::Agent(arrival)) => welcome(shared, *arrival).await,
        Err(turned) => {
            shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            match turned {
                Turned::Gone(error) => debug!(%from, %error, "connection gone before a session began"),
                Turned::Tls(error) => info!(%from, %error, "no TLS came about"),
                Turned::Malformed(error) => {
                    shared.counters.malformed();
                    info!(%from, %error, "malformed start-up");
                }
                Turned::TooSlow(_) => info!(%from, "no proof of identity in time"),
                Turned::Refused { refusal, why } => {
                    let why = why.unwrap_or_default();
                    info!(%from, error = %OneLine(&refusal), why, "agent turned away");
                }
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
        let Some(place) = Place::take(&shared, &agent) else {
            return tell(&mut arrival, &Refusal::TooManySessions).await;
        };
        match begin(&shared, id, &mut arrival).await {
            Err(refusal) => {
                info!(error = %OneLine(&refusal), "session not begun");
                tell(&mut arrival, &refusal).await;
            }
            Ok(ready) => {
                info!(upstream = %ready.watch.target.upstream, from = %ready.watch.identity.client_address, "session begun");
                let process = ready.process;
                let expiry = arrival.until.map(|until| tokio::spawn(expire(Arc::clone(&ready.watch), until)));
                let connection = ready.into_connection(&shared, arrival, &place);
                let reason = connection.run().await;
                if let Some(expiry) = expiry {
                    expiry.abort();
                }
                shared.sessions.remove(id, process);
                info!(%reason, "session ended");
            }
        }
    }
    .instrument(span)
    .await;
}

/// Ends a session when its token expires.
async fn expire(watch: Arc<Watch>, until: Timestamp) {
    let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left).await;
    watch.end(SessionEnd::TokenExpired).await;
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
    texts: KeptBytes,
}

impl Place {
    fn take(shared: &Arc<Shared>, agent: &AgentName) -> Option<Self> {
        let mut per_agent = shared.per_agent.lock();
        let all: usize = shared.sessions.count();
        let mine = per_agent.entry(agent.clone()).or_default();
        if all >= shared.limits.sessions || mine.sessions >= shared.limits.sessions_per_agent {
            return None;
        }
        mine.sessions += 1;
        Some(Self { shared: Arc::clone(shared), agent: agent.clone(), texts: mine.texts.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut per_agent = self.shared.per_agent.lock();
        if let Some(mine) = per_agent.get_mut(&self.agent) {
            mine.sessions -= 1;
            if mine.sessions == 0 {
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
    /// What upstream says of the session's settings.
    told: AtLogin,
    log: crate::ledger::SessionLog,
    control: mpsc::Receiver<Control>,
    /// The process id that the agent was told.
    process: i32,
    seed: u64,
    running: catalogue::Running,
}

async fn begin(shared: &Arc<Shared>, id: SessionId, arrival: &mut Arrival) -> Result<Ready, Refusal> {
    let name = UpstreamName::from(arrival.startup.database.as_str());
    let allowed = arrival.identity.agent.upstreams.contains(&name);
    let state = shared.upstreams.load().get(&name).filter(|_| allowed).cloned();
    let state = state.ok_or_else(|| Refusal::UnknownUpstream { name: name.to_string() })?;

    let running = state.enter();
    let unreachable = |error: upstream::ConnectError| {
        warn!(upstream = %name, %error, "upstream not reached");
        match error.encoding() {
            Some(encoding) => {
                Refusal::UpstreamEncoding { upstream: name.to_string(), encoding: encoding.to_owned() }
            }
            None => Refusal::UpstreamUnreachable { upstream: name.to_string() },
        }
    };
    let known = state.known().await.map_err(unreachable)?;
    for (name, value) in &arrival.startup.settings {
        may_start_with(&known.catalogue, name, value).map_err(|why| Refusal::StartupParameter {
            name: startup::printable(name),
            hint: format!("It {why}. Connect without it; SET asks for approval where it may be changed."),
        })?;
    }
    let mut settings = arrival.startup.settings.clone();
    let application_name = if state.upstream.agents_name_sessions {
        arrival.startup.application_name.clone()
    } else {
        Some(application_name(arrival, id))
    };
    settings.extend(application_name.map(|name| ("application_name".to_owned(), name)));
    let connected = state.log_in(&known, &settings).await.map_err(|error| match error.about_a_setting() {
        Some(message) if !arrival.startup.settings.is_empty() => {
            Refusal::StartupSetting { message: message.to_owned() }
        }
        _ => unreachable(error),
    })?;
    let (connected, told) =
        Asking::settings_at_login(connected, &state.upstream).await.map_err(unreachable)?;

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
    let (key, seed) = own_key(shared, connected.key.as_ref(), arrival.minor)?;
    shared.sessions.add(&watch, key.clone());
    // The directory may have changed since the agent proved who it is. Asked only now: a change from
    // here on finds the session among those that run.
    if !shared.may_stay(&watch) {
        shared.sessions.remove(id, key.process);
        log.closed(SessionEnd::AgentRevoked.as_str());
        return Err(Refusal::SessionOver { why: SessionEnd::AgentRevoked.as_str() });
    }

    for (name, value) in &connected.parameters {
        backend::put_parameter(name, value, &mut arrival.output);
    }
    backend::put_key(&key, &mut arrival.output);
    arrival.output.extend_from_slice(&connected.notices);
    backend::put_ready(TransactionStatus::Idle.as_byte(), &mut arrival.output);
    Ok(Ready { watch, state, known, connected, told, log, control, process: key.process, seed, running })
}

/// Upstream's own process id, so that `pg_backend_pid()` tells the same, and a secret of ours: who
/// knows the agent's key cannot cancel anything past us.
fn own_key(shared: &Shared, upstream: Option<&CancelKey>, minor: u16) -> Result<(CancelKey, u64), Refusal> {
    let length = if minor >= Opening::NEWEST { CancelKey::LONG } else { CancelKey::SHORT };
    loop {
        let mut random = [0; CancelKey::LONG + 12];
        getrandom::fill(&mut random).map_err(|_| Refusal::Internal { what: "no randomness" })?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, secret @ ..] = random;
        let seed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let process = upstream.map_or(i32::from_be_bytes([i, j, k, l]) & i32::MAX, |key| key.process);
        let key = CancelKey::new(process, secret.get(..length).unwrap_or(&secret));
        if !shared.sessions.knows_key(&key) {
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
    fn into_connection(self, shared: &Arc<Shared>, arrival: Arrival, place: &Place) -> Connection {
        let mut settings = Settings::new(&self.told);
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
            session: Session::new(shared.limits.session, settings, self.seed).counting(place.texts.clone()),
            log: self.log,
            agent,
            upstream: Pipe::new(self.connected.stream, self.connected.rest),
            control: self.control,
            defer: arrival.startup.defer,
            running: self.running,
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
