//! Drives one session: bytes between two sockets and the state machine, statements through the gate,
//! and, while something is held, the wait.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use super::catalogue::{Known, Running, UpstreamState};
use super::gate::{Cleared, Gate, Judgement, Needs, NoMeaning, Pending, Progress, record};
use super::holding::{self, Before, Holding};
use super::pipe::Pipe;
use super::sessions::{Control, Doing, Watch};
use super::upstream::{self, ConnectError};
use super::{Shared, created};
use crate::approval::{Grant, Release, Seal, Withdrawal};
use crate::classify::Classification;
use crate::desk::{self, Claim};
use crate::identity::Directory;
use crate::ledger::{Clearance, IntentId, SessionLog};
use crate::policy::Policy;
use crate::refusal::{OneLine, Refusal};
use crate::session::probe::{ProbeFailed, Probed, Questions};
use crate::session::{Output, Purpose, Resolution, Session, Sink, Submission};
use crate::statement::{RequestId, ServerTimers, SessionEnd, TransactionStatus, Via};
use crate::wire::cancel::CancelKey;

/// Bytes that may wait for an agent that does not read, before upstream is not read any more.
const AGENT_HIGH: usize = 256 << 10;
/// Bytes that may wait for upstream, before the agent is not read any more.
const UPSTREAM_HIGH: usize = 1 << 20;
/// Bytes of an agent that are read while its statement is held, so that a goodbye is seen. An agent that
/// sends more than that cannot be seen to leave.
const HELD_AHEAD: usize = 1 << 20;
/// Messages that upstream may owe an answer for, before the agent is not read any more: a message of five
/// bytes takes many times that to remember. Upstream sends what it has answered every 8 KiB, and its
/// shortest answer has five bytes, so it never waits for more with as much as this unanswered.
const MOST_OWED: usize = 4_096;
/// Bytes of an agent that one round of a turn takes in, and for upstream that wait for its end.
const ROUND: usize = 64 << 10;
/// Rounds of a turn, each of which decides one unit at most, before others get theirs.
const ROUNDS: usize = 128;
/// How long an agent may be silent in the middle of a unit before it is decided as it is.
const PARTIAL_AFTER: Duration = Duration::from_millis(50);
/// How often a waiting agent is told that it waits.
const NOTICE_EVERY: Duration = Duration::from_secs(30);
/// How long upstream may go on after the agent has left.
const AFTERMATH: Duration = Duration::from_secs(600);
/// How long an agent may take to read the last of what it is owed (at most [`AGENT_HIGH`] and a read).
const GOODBYE: Duration = Duration::from_secs(30);
/// The same while the proxy shuts down, and for upstream, which reads at once.
const HURRY: Duration = Duration::from_secs(2);

/// Something that happened.
enum Event {
    /// Bytes came or a socket closed.
    Traffic,
    Control(Control),
    /// The request that waits has ended.
    Ended(desk::Ending),
    /// What had to be there before a statement can be decided, is.
    Before(Before),
    /// The catalogue was read anew for a grant that is to be used.
    Reread(Result<Arc<Known>, ConnectError>),
    /// A cancel has reached upstream.
    Cancelled,
    Timer,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    state: Arc<UpstreamState>,
    known: Arc<Known>,
    upstream_key: Option<CancelKey>,
    session: Session,
    log: SessionLog,
    agent: Pipe,
    upstream: Pipe,
    control: mpsc::Receiver<Control>,
    holding: Option<Holding>,
    /// A cancel on its way to upstream; nothing new is forwarded meanwhile, so that it cannot hit a
    /// later statement.
    cancelling: Option<JoinHandle<()>>,
    granted: VecDeque<(IntentId, RequestId)>,
    created: Vec<Arc<str>>,
    catalogue_dirty: bool,
    /// When this session has changed what only it can name, and the catalogue was not read since.
    own_change: Option<Instant>,
    own_dirty: bool,
    /// What the statement under decision has behind it.
    progress: Progress,
    /// By whom the first statement of the unit under decision was decided.
    decided_by: Option<DecidedBy>,
    defer: bool,
    draining: bool,
    ended: Option<SessionEnd>,
    left_at: Option<Instant>,
    last_read: Instant,
    /// The last turn ended although there was more to do.
    unfinished: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// Keeps what the sessions of one upstream share.
    _running: Running,
}

/// What a connection is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) watch: Arc<Watch>,
    pub(super) state: Arc<UpstreamState>,
    pub(super) known: Arc<Known>,
    pub(super) upstream_key: Option<CancelKey>,
    pub(super) session: Session,
    pub(super) log: SessionLog,
    pub(super) agent: Pipe,
    pub(super) upstream: Pipe,
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) defer: bool,
    pub(super) running: Running,
}

/// The policy and the people by whom something is decided.
struct DecidedBy {
    policy: Arc<Policy>,
    people: Arc<Directory>,
}

impl DecidedBy {
    fn now(shared: &Shared) -> Self {
        Self { policy: shared.policy.load_full(), people: shared.directory.load_full() }
    }

    /// Whether they are still in force.
    fn is_current(&self, shared: &Shared) -> bool {
        let policy = shared.policy.load();
        Arc::ptr_eq(&self.people, &shared.directory.load())
            && (Arc::ptr_eq(&self.policy, &policy) || self.policy.digest() == policy.digest())
    }
}

/// A grant that stands, with what the statement was found to do at that moment.
struct Released {
    release: Release,
    classification: Arc<Classification>,
}

/// Hands upstream's bytes to the agent: the first piece straight to its socket, if nothing waits.
struct ToAgent<'a, 'b> {
    pipe: &'b mut Pipe,
    cx: &'b mut Context<'a>,
}

impl<'i> Sink<'i> for ToAgent<'_, '_> {
    fn pass(&mut self, bytes: &'i [u8]) {
        self.pipe.write(self.cx, bytes);
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.pipe.output().extend_from_slice(bytes);
    }
}

impl Connection {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            shared,
            watch,
            state,
            known,
            upstream_key,
            session,
            log,
            agent,
            upstream,
            control,
            defer,
            running,
        } = parts;
        Self {
            shared,
            watch,
            state,
            known,
            upstream_key,
            session,
            log,
            agent,
            upstream,
            control,
            holding: None,
            cancelling: None,
            granted: VecDeque::new(),
            created: Vec::new(),
            catalogue_dirty: false,
            own_change: None,
            own_dirty: false,
            progress: Progress::default(),
            decided_by: None,
            defer,
            draining: false,
            ended: None,
            left_at: None,
            last_read: Instant::now(),
            unfinished: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            _running: running,
        }
    }

    /// Runs the session to its end; returns why it ended.
    pub(super) async fn run(mut self) -> SessionEnd {
        self.turn().await;
        while self.ended.is_none() {
            if self.unfinished {
                tokio::task::yield_now().await;
            }
            match self.next().await {
                Event::Traffic | Event::Timer => {}
                Event::Control(control) => self.on_control(control),
                Event::Ended(ending) => self.on_ending(ending),
                Event::Before(before) => self.on_before(before),
                Event::Reread(read) => self.on_reread(read),
                Event::Cancelled => self.cancelling = None,
            }
            self.turn().await;
        }
        let reason = self.ended.unwrap_or(SessionEnd::AgentLeft);
        self.withdraw(Withdrawal::SessionEnded);
        self.session.upstream_gone(self.shared.now_ns());
        self.tell_outcomes();
        // What upstream has answered is the agent's, however slowly it reads.
        let patience = if self.draining { HURRY } else { GOODBYE };
        let _ = tokio::time::timeout(HURRY, self.upstream.shut_down()).await;
        let _ = tokio::time::timeout(patience, self.agent.shut_down()).await;
        self.log.closed(reason.as_str());
        reason
    }

    /// Waits for the next event. Everything that can happen is polled in one place, so that a slow
    /// reader on one side never stops the other side from being seen.
    async fn next(&mut self) -> Event {
        self.set_timer();
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Some(control)) = self.control.poll_recv(cx) {
            return Poll::Ready(Event::Control(control));
        }
        if let Some(event) = self.holding.as_mut().and_then(|holding| poll_holding(holding, cx)) {
            return Poll::Ready(event);
        }
        if let Some(cancel) = &mut self.cancelling
            && Pin::new(cancel).poll(cx).is_ready()
        {
            return Poll::Ready(Event::Cancelled);
        }
        let mut wrote = false;
        if !self.upstream.output().is_empty() {
            wrote |= self.upstream.poll_write(cx).is_ready();
        }
        if !self.agent.output().is_empty() {
            wrote |= self.agent.poll_write(cx).is_ready();
        }
        let read_upstream = self.agent.output().len() < AGENT_HIGH;
        if read_upstream && self.upstream.poll_read(cx).is_ready() {
            return Poll::Ready(Event::Traffic);
        }
        if self.wants_agent() && self.agent.poll_read(cx).is_ready() {
            self.last_read = Instant::now();
            return Poll::Ready(Event::Traffic);
        }
        if self.timer_at.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.timer_at = None;
            return Poll::Ready(Event::Timer);
        }
        // Room was made on one side: the other may be read again.
        if wrote || self.unfinished { Poll::Ready(Event::Traffic) } else { Poll::Pending }
    }

    fn wants_agent(&mut self) -> bool {
        let stopped = self.session.is_deciding() || self.cancelling.is_some() || !self.has_room();
        // What is there comes first; small statements are decided more slowly than they are read.
        let takes_nothing = stopped || self.unfinished;
        self.upstream.output().len() < UPSTREAM_HIGH
            && (!takes_nothing || self.agent.input().len() < HELD_AHEAD)
    }

    /// Whether more of the agent's may be forwarded.
    fn has_room(&mut self) -> bool {
        self.upstream.output().len() < UPSTREAM_HIGH && self.session.owed() < MOST_OWED
    }

    /// Does everything that can be done with what is there.
    async fn turn(&mut self) {
        poll_fn(|cx| {
            self.turn_with(cx);
            Poll::Ready(())
        })
        .await;
        self.watch.set_doing(self.doing());
    }

    fn doing(&self) -> Doing {
        if matches!(self.holding, Some(Holding::Waiting { .. })) {
            Doing::Holding
        } else if !self.session.is_idle() {
            Doing::Running
        } else if self.session.status() == TransactionStatus::Idle {
            Doing::Idle
        } else {
            Doing::InTransaction
        }
    }

    fn turn_with(&mut self, cx: &mut Context<'_>) {
        let now_ns = self.shared.now_ns();
        self.unfinished = true;
        for _ in 0..ROUNDS {
            let mut progress = false;
            if !self.upstream.input().is_empty() {
                let mut sink = ToAgent { pipe: &mut self.agent, cx };
                match self.session.on_upstream(self.upstream.input(), now_ns, &mut sink) {
                    Ok(used) => {
                        progress |= used > 0;
                        self.upstream.consume(used);
                    }
                    Err(refusal) => {
                        warn!(session = %self.watch.id, error = %OneLine(&refusal), "upstream out of step");
                        return self.fail(&refusal, SessionEnd::UpstreamOutOfStep);
                    }
                }
            }
            self.flush_to_agent();
            if self.upstream.is_closed() {
                return self.upstream_closed();
            }
            if self.cancelling.is_none() {
                let offered = self.has_room();
                let mut took = false;
                if offered && !self.agent.input().is_empty() {
                    match self.take_in(now_ns) {
                        Ok(used) => {
                            took = used > 0;
                            progress |= took;
                            self.agent.consume(used);
                        }
                        Err(refusal) => {
                            self.shared.counters.malformed();
                            info!(session = %self.watch.id, error = %OneLine(&refusal), "agent broke the protocol");
                            self.flush_to_upstream(cx);
                            return self.fail(&refusal, SessionEnd::ProtocolViolation);
                        }
                    }
                }
                self.look_for_goodbye(offered && !took);
                let silent = offered && !took && self.last_read.elapsed() >= PARTIAL_AFTER;
                if silent && self.session.has_partial_unit() {
                    self.session.decide_partial(now_ns);
                }
            }
            while let Some(output) = self.session.poll() {
                progress = true;
                self.on_output(output);
            }
            self.look_at_hold();
            if self.session.to_upstream().len() >= ROUND {
                self.flush_to_upstream(cx);
            }
            self.flush_to_agent();
            if self.ended.is_some() || !progress {
                self.unfinished = false;
                break;
            }
        }
        self.flush_to_upstream(cx);
        if self.draining && self.ended.is_none() && self.may_drain() {
            self.fail(&Refusal::ShuttingDown, SessionEnd::Drained);
        }
        if self.left_at.is_some_and(|left| left.elapsed() > AFTERMATH) {
            self.ended = Some(SessionEnd::UpstreamUnfinished);
        }
        let deciding = self.session.is_deciding();
        let told = self.upstream.output().is_empty() && self.agent.output().is_empty();
        if self.left_at.is_some() && !deciding && self.session.is_idle() && told {
            self.ended = Some(SessionEnd::AgentLeft);
        }
        // Upstream ends what runs, answers it, and then sees the end as if the agent were its own:
        // an open transaction or copy is rolled back and its locks go.
        if self.left_at.is_some() && !self.session.is_deciding() {
            self.upstream.poll_finish(cx);
        }
    }

    /// Offers the session what the agent sent, a part at a time.
    fn take_in(&mut self, now_ns: u64) -> Result<usize, Refusal> {
        let input = self.agent.input();
        let part = input.get(..ROUND).unwrap_or(input);
        match self.session.on_agent(part, now_ns)? {
            // A message that is larger than that.
            0 if part.len() < input.len() => self.session.on_agent(input, now_ns),
            used => Ok(used),
        }
    }

    fn flush_to_agent(&mut self) {
        let bytes = self.session.to_agent();
        if !bytes.is_empty() {
            self.agent.output().extend_from_slice(bytes);
            bytes.clear();
        }
    }

    /// One write for everything that was decided in this turn.
    fn flush_to_upstream(&mut self, cx: &mut Context<'_>) {
        let bytes = self.session.to_upstream();
        if !bytes.is_empty() {
            self.upstream.write(cx, bytes);
            if bytes.capacity() > 256 << 10 {
                *bytes = BytesMut::new();
            } else {
                bytes.clear();
            }
        }
    }

    /// Sees an agent that hangs up while its statement is held, or before it was complete. `exhausted`
    /// says that nothing more can be taken of what has been read: everything before the end counts.
    fn look_for_goodbye(&mut self, exhausted: bool) {
        if self.left_at.is_some() {
            // Nobody waits for an answer any more.
            if let Some(pending) = self.withdraw(Withdrawal::AgentDisconnected) {
                let refusal = holding::withdrawn(&pending, Withdrawal::AgentDisconnected);
                self.refuse(&pending, refusal);
            }
            return;
        }
        // To one that reset the connection a notice cannot be written.
        let gone = self.agent.is_closed() || (self.holding.is_some() && self.agent.is_broken());
        // A goodbye behind what is decided at once is seen when it is its turn.
        let terminated = self.holding.is_some() && Session::says_goodbye(self.agent.input());
        if !gone && !terminated {
            return;
        }
        if let Some(pending) = self.withdraw(Withdrawal::AgentDisconnected) {
            let refusal = holding::withdrawn(&pending, Withdrawal::AgentDisconnected);
            self.refuse(&pending, refusal);
            // What was queued behind it is dropped with it: whoever sent it is gone.
            let rest = self.agent.input().len();
            self.agent.consume(rest);
            self.leave();
        } else if gone && (self.agent.input().is_empty() || (exhausted && !self.session.is_deciding())) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if self.left_at.is_none() {
            self.left_at = Some(Instant::now());
            self.session.agent_gone(self.shared.now_ns());
        }
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Submit(submission) => self.submit(submission),
            Output::Withdrawn(_) => {
                // Upstream failed before it, or is gone: recorded as withdrawn, and nobody is asked.
                self.holding
                    .take_if(|holding| matches!(holding, Holding::Undecided { .. } | Holding::Asking { .. }));
                if let Some(pending) = self.withdraw(Withdrawal::EarlierFailed) {
                    let refusal = holding::withdrawn(&pending, Withdrawal::EarlierFailed);
                    self.record_refusal(&pending, &refusal);
                }
            }
            Output::Outcome { intent, outcome, duration_ns } => {
                self.log.outcome(intent, &outcome, duration_ns);
                if let Some(at) = self.granted.iter().position(|(granted, _)| *granted == intent)
                    && let Some((_, request)) = self.granted.remove(at)
                {
                    self.shared.desk.ran(request, &outcome, Duration::from_nanos(duration_ns));
                }
            }
            Output::Probed(probed) => self.on_probed(probed),
            Output::CatalogueChanged => {
                self.catalogue_dirty = true;
                // In an open transaction nobody else can see it yet.
                if self.session.status() == TransactionStatus::Idle {
                    self.state.changed();
                }
            }
            Output::OwnCatalogueChanged => {
                self.own_dirty = true;
                self.own_change = Some(Instant::now());
            }
            Output::Claimed(name, value) => self.on_claim(&name, value.as_deref()),
            Output::AgentLeft => self.leave(),
        }
        // What an open transaction changed is visible to our own connection once it has ended.
        let dirty = self.catalogue_dirty || !self.created.is_empty();
        let ended = self.session.status() == TransactionStatus::Idle && self.session.is_idle();
        if ended && dirty {
            self.catalogue_dirty = false;
            self.created.clear();
            self.state.changed_by(&self.watch.identity.agent.name);
        }
        if ended && std::mem::take(&mut self.own_dirty) {
            self.own_change = Some(Instant::now());
        }
    }

    fn tell_outcomes(&mut self) {
        while let Some(output) = self.session.poll() {
            if let Output::Outcome { .. } = output {
                self.on_output(output);
            }
        }
    }

    fn on_claim(&mut self, name: &str, value: Option<&str>) {
        if name == "hold" {
            self.defer = value == Some("defer");
            return;
        }
        let mut claimed = self.watch.claimed.lock();
        if claimed.set(name, value.unwrap_or_default()) {
            self.log.claims(&claimed);
        }
    }

    fn gate(&self) -> Gate<'_> {
        Gate {
            shared: &self.shared,
            known: &self.known,
            session: &self.session,
            watch: &self.watch,
            log: &self.log,
            defer: self.defer,
            created: &self.created,
            has_changed_catalogue: self.catalogue_dirty || self.own_dirty,
            takes_turns: true,
            is_pausing: self.state.pause(&self.watch.identity.agent.name).is_some(),
            progress: &self.progress,
        }
    }

    fn submit(&mut self, submission: Submission) {
        self.progress = Progress::default();
        let own = self.own_change;
        let current = self.state.current().filter(|known| own.is_none_or(|change| known.is_as_of(change)));
        // Where it is only some time ago that it was read, the next attempt is not waited for behind one that
        // has failed.
        let usable = current
            .or_else(|| self.state.unchanged().filter(|_| own.is_none() && self.state.has_just_failed()));
        if let Some(known) = usable {
            self.known = known;
            self.own_change = None;
            return self.decide(submission);
        }
        let state = Arc::clone(&self.state);
        let waiting = tokio::spawn(async move { Before::Catalogue(read_catalogue(&state, own).await) });
        self.holding = Some(Holding::Undecided { submission, waiting });
    }

    /// Tells the session what became of a submission. A unit is forwarded whole, so what was decided of it
    /// before holds only while the policy and the people are the same.
    fn resolve(&mut self, ticket: u64, resolution: Resolution) {
        let now_ns = self.shared.now_ns();
        if let Some(earlier) = self.decided_by.take_if(|_| self.session.has_decided()) {
            if !earlier.is_current(&self.shared) {
                self.session.refuse_unit(Refusal::BatchOutdated, now_ns);
            }
            self.session.resolve(ticket, resolution, now_ns);
            self.decided_by = Some(earlier);
        } else {
            self.session.resolve(ticket, resolution, now_ns);
            // Most units are forwarded by now.
            let goes_on = self.session.is_deciding() && self.session.has_decided();
            self.decided_by = goes_on.then(|| DecidedBy::now(&self.shared));
        }
    }

    /// Decides a submission; first, if it matters and is not known, upstream is asked what names mean.
    fn decide(&mut self, submission: Submission) {
        if self.session.settings().are_known()
            || self.session.unit_changes_settings()
            || !self.gate().depends_on_settings(&submission)
        {
            return self.judge(submission);
        }
        if submission.status.is_none() && self.session.settles() && !self.session.is_idle() {
            return self.resolve(submission.ticket, Resolution::WhenIdle);
        }
        if submission.status.is_some() && self.session.probe(Questions::Names) {
            self.holding = Some(Holding::Asking { submission });
        } else {
            self.judge(submission);
        }
    }

    fn judge(&mut self, submission: Submission) {
        self.clear(submission, Self::hold);
    }

    /// Has the gate decide a submission. `hold` is called where people have to be asked.
    fn clear(&mut self, submission: Submission, hold: impl FnOnce(&mut Self, Box<Pending>)) {
        let ticket = submission.ticket;
        match self.gate().clear(submission, Timestamp::now()) {
            Cleared::Resolved { resolution, creates } => {
                self.created.extend(creates);
                self.resolve(ticket, resolution);
            }
            Cleared::Hold(pending) => hold(self, pending),
            Cleared::Later(submission, needs) => return self.wait_for(*submission, needs),
        }
        self.progress = Progress::default();
    }

    fn wait_for(&mut self, submission: Submission, needs: Needs) {
        let state = Arc::clone(&self.state);
        let agent = self.watch.identity.agent.name.clone();
        let waiting = match needs {
            Needs::Turn => {
                let large_texts = Arc::clone(&self.shared.large_texts);
                tokio::spawn(async move { Before::Turn(large_texts.turn(&agent).await) })
            }
            Needs::LookUp(doubts) => {
                // Others have theirs read meanwhile.
                self.progress.turn = None;
                let now = Instant::now();
                tokio::spawn(async move { Before::LookedUp(state.look_up(&doubts, now).await) })
            }
            Needs::Pause => {
                self.progress.turn = None;
                let pause = state.pause(&agent).unwrap_or_default();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    Before::Paused
                })
            }
        };
        self.holding = Some(Holding::Undecided { submission, waiting });
    }

    /// Something has to be held: first upstream itself is asked what the session is like.
    fn hold(&mut self, pending: Box<Pending>) {
        if let Some(refusal) = holding::too_much_before(&pending.submission.before) {
            return self.refuse(&pending, refusal);
        }
        if self.session.probe_with(Questions::Everything, pending.relation_question()) {
            self.holding = Some(Holding::Probing { pending });
        } else {
            self.refuse(&pending, Refusal::HoldOutOfReach);
        }
    }

    fn on_probed(&mut self, probed: Result<Probed, ProbeFailed>) {
        match (self.holding.take(), probed) {
            // Where it did not say, names may mean whatever they could.
            (Some(Holding::Asking { submission }), _) => self.judge(submission),
            (Some(Holding::Probing { pending }), Ok(probed)) if probed.confirmed => {
                self.progress = Progress { confirmed: true, ..Progress::default() };
                self.clear(pending.submission, |connection, pending| {
                    connection.open(pending, probed.settings, probed.timers);
                });
            }
            (Some(Holding::Probing { pending }), Ok(probed))
                if is_refused_by_upstream(&self.session, &pending, &probed) =>
            {
                self.forward_refused(&pending);
            }
            (Some(Holding::Probing { pending }), Ok(probed)) => {
                self.open(pending, probed.settings, probed.timers);
            }
            (Some(Holding::Reprobing { pending, grant }), Ok(probed)) => {
                self.use_grant(pending, grant, probed.settings)
            }
            (Some(Holding::Probing { pending } | Holding::Reprobing { pending, .. }), Err(error)) => {
                warn!(session = %self.watch.id, %error, "upstream did not tell its state");
                let refusal = Refusal::Internal { what: "upstream did not tell the session's state" };
                self.refuse(&pending, refusal);
            }
            // The hold ended while upstream was asked.
            (other, _) => self.holding = other,
        }
    }

    /// Opens the request, or claims what was approved before.
    fn open(&mut self, pending: Box<Pending>, settings: holding::ReportedSettings, timers: ServerTimers) {
        let seal = holding::seal(&self.watch, &self.session, &pending, settings);
        if pending.terms.defer {
            match self.shared.desk.claim(&seal) {
                Claim::Granted(grant) => match self.release(&pending, grant, &seal) {
                    Ok(released) => return self.forward_released(&pending, *released),
                    Err((refusal @ Refusal::DeniedByPolicy { .. }, request)) => {
                        return self.refuse_under(&pending, refusal, Some(request));
                    }
                    // It was approved and does not stand any more: people are asked anew.
                    Err(_) => {}
                },
                Claim::Waiting(request) => return self.refuse(&pending, Refusal::Deferred { request }),
                Claim::Denied { request, message, .. } => {
                    return self.refuse(&pending, Refusal::DeniedByReviewer { request, message });
                }
                Claim::None => {}
            }
        }
        let classification = self.gate().detailed(&pending);
        let directory = self.shared.directory.load();
        let owners = directory.owners(&self.watch.identity.agent.name);
        let mut draft = holding::draft(&self.watch, &self.session, &pending, seal, classification, owners);
        draft.transaction.timers = timers;
        draft.transaction.left = holding::time_left(&self.session, &pending, &timers, self.shared.now_ns());
        match self.shared.desk.open(draft) {
            Err(refusal) => self.refuse(&pending, refusal),
            Ok(opened) if pending.terms.defer => {
                let request = opened.request.id;
                self.refuse_under(&pending, Refusal::Deferred { request }, Some(request));
                self.reconsider_opened(&pending);
            }
            Ok(opened) => {
                let notice = holding::opened_notice(&opened.request);
                self.session.notice(
                    &notice.message,
                    notice.detail.as_deref(),
                    Some("Cancel the statement to withdraw the request."),
                );
                *self.watch.held.lock() = Some(opened.request.id);
                self.reconsider_opened(&pending);
                self.holding = Some(Holding::Waiting {
                    pending,
                    request: opened.request,
                    ending: opened.ending,
                    notice_at: Instant::now() + NOTICE_EVERY,
                    awake: holding::awake_every(&timers).map(|every| (every, Instant::now() + every)),
                });
            }
        }
    }

    /// A policy that was loaded while the request was being opened has not seen it.
    fn reconsider_opened(&self, pending: &Pending) {
        if self.shared.policy.load().digest() != pending.terms.policy {
            self.shared.reconsider();
        }
    }

    fn on_ending(&mut self, ending: desk::Ending) {
        let Some(Holding::Waiting { pending, request, .. }) = self.holding.take() else { return };
        *self.watch.held.lock() = None;
        let id = request.id;
        match ending {
            desk::Ending::Granted(grant) => {
                info!(session = %self.watch.id, request = %id, "grant received");
                if self.agent.input().len() >= HELD_AHEAD {
                    let reason = Withdrawal::TooMuchAhead;
                    self.shared.desk.withdraw(id, reason);
                    return self
                        .refuse(&pending, Refusal::HoldWithdrawn { request: id, reason: reason.as_str() });
                }
                match self.state.current() {
                    Some(known) => {
                        self.known = known;
                        self.reprobe(pending, grant);
                    }
                    None => {
                        let state = Arc::clone(&self.state);
                        let reading = tokio::spawn(async move { state.known().await });
                        self.holding = Some(Holding::Rereading { pending, grant, reading });
                    }
                }
            }
            desk::Ending::Denied { message, .. } => {
                self.refuse(&pending, Refusal::DeniedByReviewer { request: id, message });
            }
            desk::Ending::Expired => self.refuse(&pending, Refusal::HoldExpired { request: id }),
            desk::Ending::Withdrawn { reason } => {
                self.refuse(&pending, Refusal::HoldWithdrawn { request: id, reason: reason.as_str() });
            }
            desk::Ending::Lapsed(lapse) => {
                self.refuse_under(&pending, holding::lapsed(id, &lapse), Some(id));
            }
        }
    }

    /// The session's state is asked for again: what was approved was approved for that state.
    fn reprobe(&mut self, pending: Box<Pending>, grant: Grant) {
        if self.session.probe(Questions::Everything) {
            self.holding = Some(Holding::Reprobing { pending, grant });
        } else {
            let request = grant.request();
            let reason = Withdrawal::SettingsUnknown;
            self.shared.desk.withdraw(request, reason);
            self.refuse(&pending, Refusal::HoldWithdrawn { request, reason: reason.as_str() });
        }
    }

    fn use_grant(&mut self, pending: Box<Pending>, grant: Grant, settings: holding::ReportedSettings) {
        let seal = holding::seal(&self.watch, &self.session, &pending, settings);
        match self.release(&pending, grant, &seal) {
            Ok(released) => self.forward_released(&pending, *released),
            Err((refusal, request)) => self.refuse_under(&pending, refusal, Some(request)),
        }
    }

    /// Judges what was approved once more, at the moment of its use: by one policy, which is the one that
    /// is recorded. A grant that does not stand is void.
    fn release(
        &self,
        pending: &Pending,
        grant: Grant,
        seal: &Seal,
    ) -> Result<Box<Released>, (Refusal, RequestId)> {
        let request = grant.request();
        // It was read before, when it was its turn.
        let gate = Gate { takes_turns: false, ..self.gate() };
        let policy = self.shared.policy.load();
        match gate.judge(&pending.submission, &policy, Timestamp::now()) {
            Ok(Judgement { classification, decision, .. }) => {
                match self.shared.desk.release(grant, seal, &decision) {
                    Ok(release) => Ok(Box::new(Released { release, classification })),
                    Err(lapse) => Err((holding::lapsed(request, &lapse), request)),
                }
            }
            Err(NoMeaning::Refused(_, refusal)) => {
                self.shared.desk.withdraw(request, Withdrawal::CannotRun);
                Err((refusal, request))
            }
            // Nothing was forwarded while it was held, so nothing of it can depend on an answer.
            Err(NoMeaning::WhenIdle | NoMeaning::Turn) => {
                let reason = Withdrawal::SessionChanged;
                self.shared.desk.withdraw(request, reason);
                Err((Refusal::HoldWithdrawn { request, reason: reason.as_str() }, request))
            }
        }
    }

    fn forward_released(&mut self, pending: &Pending, released: Released) {
        let Released { release, classification } = released;
        let request = release.request();
        let Pending { submission, arrived, .. } = pending;
        let policy = release.policy();
        let record = record(submission, &classification, &[], policy, Some(request), *arrived);
        let clearance = Clearance::Granted(release);
        let resolution = self.gate().record_and_forward(&record, clearance);
        if let Resolution::Forward { receipt, .. } = &resolution {
            self.granted.push_back((receipt.intent(), request));
            self.created.extend(created::names(&classification));
        } else {
            self.shared.desk.withdraw(request, Withdrawal::Unrecorded);
        }
        self.resolve(submission.ticket, resolution);
    }

    /// What upstream refuses anyway asks nobody.
    fn forward_refused(&mut self, pending: &Pending) {
        let Pending { submission, classification, terms, arrived, .. } = pending;
        let record = record(submission, classification, &terms.rules, terms.policy, None, *arrived);
        let resolution = self.gate().record_and_forward(&record, Clearance::ReadOnly);
        self.resolve(submission.ticket, resolution);
    }

    fn refuse(&mut self, pending: &Pending, refusal: Refusal) {
        let request = refusal.request();
        self.refuse_under(pending, refusal, request);
    }

    fn refuse_under(&mut self, pending: &Pending, refusal: Refusal, request: Option<RequestId>) {
        *self.watch.held.lock() = None;
        let Pending { submission, classification, terms, arrived, .. } = pending;
        let record = record(submission, classification, &terms.rules, terms.policy, request, *arrived);
        let resolution = self.gate().record_and_refuse(&record, refusal);
        self.resolve(submission.ticket, resolution);
    }

    fn record_refusal(&self, pending: &Pending, refusal: &Refusal) {
        let Pending { submission, classification, terms, arrived, .. } = pending;
        let request = refusal.request();
        let record = record(submission, classification, &terms.rules, terms.policy, request, *arrived);
        if let Err(error) = self.log.record_refusal(&record, refusal) {
            tracing::error!(session = %self.watch.id, %error, "refusal not recorded");
        }
    }

    /// Ends whatever waits, for a reason that is nobody's verdict; returns what waited.
    fn withdraw(&mut self, reason: Withdrawal) -> Option<Box<Pending>> {
        *self.watch.held.lock() = None;
        match self.holding.take()? {
            // Nobody was asked yet; what becomes of it is decided when the catalogue is there.
            undecided @ (Holding::Undecided { .. } | Holding::Asking { .. }) => {
                self.holding = Some(undecided);
                None
            }
            Holding::Probing { pending } => Some(pending),
            Holding::Waiting { pending, request, .. } => {
                self.shared.desk.withdraw(request.id, reason);
                Some(Box::new(Pending { request: Some(request.id), ..*pending }))
            }
            Holding::Rereading { pending, grant, .. } | Holding::Reprobing { pending, grant } => {
                let request = grant.request();
                self.shared.desk.withdraw(request, reason);
                Some(Box::new(Pending { request: Some(request), ..*pending }))
            }
        }
    }

    fn on_before(&mut self, before: Before) {
        let submission = match self.holding.take() {
            Some(Holding::Undecided { submission, .. }) => submission,
            other => {
                self.holding = other;
                return;
            }
        };
        match before {
            Before::Catalogue(Ok(known)) => {
                self.known = known;
                self.own_change = None;
            }
            Before::Catalogue(Err(error)) => {
                warn!(session = %self.watch.id, %error, "catalogue not read");
                match self.state.unchanged().filter(|_| self.own_change.is_none()) {
                    Some(known) => self.known = known,
                    None => self.progress.stale = true,
                }
            }
            Before::LookedUp(Ok(known)) => {
                self.known = known;
                self.progress.looked_up = true;
            }
            Before::LookedUp(Err(error)) => {
                warn!(session = %self.watch.id, %error, "names not looked up; nothing can be told of them");
                self.progress.stale = true;
            }
            Before::Turn(turn) => self.progress.turn = Some(turn),
            Before::Paused => self.progress.paused = true,
        }
        self.decide(submission);
    }

    fn on_reread(&mut self, read: Result<Arc<Known>, ConnectError>) {
        let (pending, grant) = match self.holding.take() {
            Some(Holding::Rereading { pending, grant, .. }) => (pending, grant),
            other => {
                self.holding = other;
                return;
            }
        };
        match read {
            Ok(known) => {
                self.known = known;
                self.reprobe(pending, grant);
            }
            Err(error) => {
                let request = grant.request();
                warn!(session = %self.watch.id, %request, %error, "catalogue not read; a grant is not used");
                let reason = Withdrawal::CatalogueUnknown;
                self.shared.desk.withdraw(request, reason);
                self.refuse(&pending, Refusal::HoldWithdrawn { request, reason: reason.as_str() });
            }
        }
    }

    fn on_control(&mut self, control: Control) {
        match control {
            Control::Cancel(reached) => {
                if let Some(pending) = self.withdraw(Withdrawal::AgentCancelled) {
                    let refusal = match pending.request {
                        Some(request) => Refusal::HoldCancelled { request },
                        None => Refusal::Cancelled,
                    };
                    self.refuse(&pending, refusal);
                    let _ = reached.send(());
                } else if let Some(Holding::Undecided { submission, .. } | Holding::Asking { submission }) =
                    self.holding.take_if(|holding| {
                        matches!(holding, Holding::Undecided { .. } | Holding::Asking { .. })
                    })
                {
                    let resolution = Resolution::Refuse(Refusal::Cancelled);
                    self.resolve(submission.ticket, resolution);
                    let _ = reached.send(());
                } else if let (true, Some(key)) = (self.session.is_running(), self.upstream_key.clone()) {
                    let state = Arc::clone(&self.state);
                    // One after the other: nothing is forwarded before the last of them is through.
                    let earlier = self.cancelling.take();
                    self.cancelling = Some(tokio::spawn(async move {
                        if let Some(earlier) = earlier {
                            let _ = earlier.await;
                        }
                        if let Err(error) = upstream::cancel(&state.upstream, &key).await {
                            debug!(upstream = %state.upstream.name, %error, "cancel did not reach upstream");
                        }
                        let _ = reached.send(());
                    }));
                }
            }
            Control::End(why) => self.fail(&Refusal::SessionOver { why: why.as_str() }, why),
            Control::Kill => self.fail(&Refusal::Killed, SessionEnd::Killed),
            Control::Drain => self.draining = true,
            Control::Stop => self.fail(&Refusal::ShuttingDown, SessionEnd::ShutDown),
        }
    }

    fn may_drain(&self) -> bool {
        self.session.is_idle()
            && self.session.status() == TransactionStatus::Idle
            && self.holding.is_none()
            && !self.session.has_partial_unit()
    }

    /// Ends the session with an error of ours.
    fn fail(&mut self, refusal: &Refusal, reason: SessionEnd) {
        if let Some(pending) = self.withdraw(Withdrawal::Session(reason)) {
            let refusal = holding::withdrawn(&pending, Withdrawal::Session(reason));
            self.record_refusal(&pending, &refusal);
        }
        self.session.end(refusal, self.shared.now_ns());
        self.tell_outcomes();
        self.flush_to_agent();
        self.ended = Some(reason);
    }

    /// Upstream is gone. If it said why, the agent has its error; otherwise it gets ours.
    fn upstream_closed(&mut self) {
        if self.left_at.is_some() {
            self.ended = Some(SessionEnd::AgentLeft);
            return;
        }
        let upstream = self.watch.target.upstream.to_string();
        let refusal = if self.session.said_farewell() {
            None
        } else if self.session.is_running() {
            Some(Refusal::UpstreamLost { upstream })
        } else {
            Some(Refusal::UpstreamUnreachable { upstream })
        };
        match refusal {
            Some(refusal) => self.fail(&refusal, SessionEnd::UpstreamClosed),
            None => {
                if let Some(pending) = self.withdraw(Withdrawal::Session(SessionEnd::UpstreamClosed)) {
                    let refusal =
                        holding::withdrawn(&pending, Withdrawal::Session(SessionEnd::UpstreamClosed));
                    self.record_refusal(&pending, &refusal);
                }
                self.ended = Some(SessionEnd::UpstreamClosed);
            }
        }
    }

    /// While a statement waits, the agent is told so from time to time.
    fn look_at_hold(&mut self) {
        let Some(Holding::Waiting { request, notice_at, awake, .. }) = &mut self.holding else { return };
        if let Some((every, at)) = awake
            && Instant::now() >= *at
        {
            *at = Instant::now() + *every;
            self.session.keep_awake();
        }
        if Instant::now() >= *notice_at {
            *notice_at = Instant::now() + NOTICE_EVERY;
            let notice = holding::waiting_notice(request, Timestamp::now());
            self.session.notice(&notice.message, notice.detail.as_deref(), None);
        }
    }

    fn set_timer(&mut self) {
        let mut at: Option<Instant> = None;
        let mut earliest = |candidate: Instant| at = Some(at.map_or(candidate, |at| at.min(candidate)));
        if let Some(Holding::Waiting { notice_at, awake, .. }) = &self.holding {
            earliest(*notice_at);
            if let Some((_, at)) = awake {
                earliest(*at);
            }
        }
        if self.session.has_partial_unit() {
            earliest(self.last_read + PARTIAL_AFTER);
        }
        if let Some(left) = self.left_at {
            earliest(left + AFTERMATH + Duration::from_millis(1));
        }
        if at != self.timer_at {
            self.timer_at = at;
            if let Some(at) = at {
                self.timer.as_mut().reset(at.into());
            }
        }
    }
}

/// Whether upstream, which has just told its settings and gets nothing else before it, refuses a statement
/// because its transaction is read-only.
fn is_refused_by_upstream(session: &Session, pending: &Pending, probed: &Probed) -> bool {
    let Pending { submission, classification, .. } = pending;
    let read_only = probed.settings.get("transaction_read_only").is_some_and(|value| **value == *"on");
    let is_next = submission.first && submission.status.is_some() && submission.purpose == Purpose::Run;
    let by_text = submission.statement.via != Via::FunctionCall && pending.refers_to.is_empty();
    let has_parameters = !submission.statement.parameters.is_empty();
    read_only
        && is_next
        && by_text
        && classification.is_refused_when_read_only(&session.search_path(), has_parameters)
}

/// Reads the catalogue for a session that runs, as of its own last change where there is one. That upstream
/// does not answer now need not last: a while is waited for it.
async fn read_catalogue(state: &UpstreamState, own: Option<Instant>) -> Result<Arc<Known>, ConnectError> {
    /// So long.
    const WHILE: Duration = Duration::from_secs(8);
    let end = Instant::now() + WHILE;
    let mut pause = Duration::from_millis(100);
    loop {
        let read = match own {
            Some(change) => state.known_since(change).await,
            None => state.known().await,
        };
        if read.is_ok() || Instant::now() + pause >= end || (own.is_none() && state.unchanged().is_some()) {
            return read;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn poll_holding(holding: &mut Holding, cx: &mut Context<'_>) -> Option<Event> {
    match holding {
        Holding::Waiting { ending, .. } => match Pin::new(ending).poll(cx) {
            Poll::Ready(Ok(ending)) => Some(Event::Ended(ending)),
            Poll::Ready(Err(_)) => {
                Some(Event::Ended(desk::Ending::Withdrawn { reason: Withdrawal::DeskClosed }))
            }
            Poll::Pending => None,
        },
        Holding::Undecided { waiting, .. } => match Pin::new(waiting).poll(cx) {
            Poll::Ready(Ok(before)) => Some(Event::Before(before)),
            Poll::Ready(Err(_)) => {
                let error = ConnectError::Protocol("what it waited for broke off");
                Some(Event::Before(Before::LookedUp(Err(error))))
            }
            Poll::Pending => None,
        },
        Holding::Rereading { reading, .. } => match Pin::new(reading).poll(cx) {
            Poll::Ready(Ok(read)) => Some(Event::Reread(read)),
            Poll::Ready(Err(_)) => Some(Event::Reread(Err(ConnectError::Protocol("the reading broke off")))),
            Poll::Pending => None,
        },
        Holding::Asking { .. } | Holding::Probing { .. } | Holding::Reprobing { .. } => None,
    }
}
