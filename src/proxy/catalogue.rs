//! Upstreams with what classification must know of them: version, defaults, and the catalogue.
//!
//! The catalogue is read over a connection of our own with the same login, so that what it shows is
//! what a session sees. It is read again after every statement that may have changed it, and from
//! time to time, because others change it without asking us. Names that it does not know are looked up
//! one by one before they decide anything.
//!
//! That connection stays open while sessions run (the *standing connection*): agents who have taken all
//! of the server's connections do not keep us from judging the statements of those who have one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::upstream::{ConnectError, Connected, Upstream, log_in};
use crate::actor::AgentName;
use crate::classify::catalogue::{QUERIES, Row, from_rows};
use crate::classify::{Catalogue, Declared, Doubt, Guards, SearchPath, guards};
use crate::session::settings::{AtLogin, parse_search_path};
use crate::wire::backend::{Fields, tag};
use crate::wire::frame::{Frame, Reader};
use crate::wire::frontend::Opening;

/// How long a catalogue counts as current although nobody told us of a change.
const LIFE: Duration = Duration::from_secs(60);

/// The first major version of Postgres that speaks protocol 3.2.
const NEGOTIATES: u32 = 18;

/// How long reading it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a catalogue may be used that cannot be read anew, if nobody told us of a change.
const GRACE: Duration = Duration::from_secs(600);

/// How far readings are apart that a statement asks for because of a name that is not known.
const SPACING: Duration = Duration::from_secs(1);

/// How long it counts that upstream does not know a name either.
const ABSENT: Duration = Duration::from_secs(1);

/// The most names that are remembered as unknown to upstream, and the most that are looked up at once; for
/// more, the catalogue is read.
const MOST_ABSENT: usize = 10_000;
const MOST_LOOKED_UP: usize = 500;

/// How long the standing connection stays behind the last session.
const STANDING: Duration = Duration::from_secs(30);

/// How long others may be slowed by catalogue changes of one agent, as a multiple of what the readings take:
/// behind some changes at once, an agent's next one waits so long.
const PAUSE: u32 = 3;
/// So many changes do not wait.
const CHANGES_AT_ONCE: u32 = 20;

/// Where a fresh session of our role would look names up. What `ALTER ROLE` and `ALTER DATABASE` say counts
/// at login only, so it is looked up in their table; nothing is answered where this session began with
/// another value than a fresh one would.
const FRESH_PATH: &str = "SELECT COALESCE(
 (SELECT pg_catalog.substr(c, 13) FROM pg_catalog.pg_db_role_setting s
   LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) s.setrole
   LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase
   CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c
  WHERE (s.setrole OPERATOR(pg_catalog.=) 0 OR r.rolname OPERATOR(pg_catalog.=) session_user)
   AND (s.setdatabase OPERATOR(pg_catalog.=) 0 OR d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
   AND pg_catalog.starts_with(c, 'search_path=')
  ORDER BY s.setrole OPERATOR(pg_catalog.=) 0, s.setdatabase OPERATOR(pg_catalog.=) 0 LIMIT 1),
 CASE WHEN p.source OPERATOR(pg_catalog.=) ANY (ARRAY['global', 'database', 'user', 'database user']) THEN NULL ELSE p.setting END)
FROM pg_catalog.pg_settings p WHERE p.name OPERATOR(pg_catalog.=) 'search_path'";

/// What an upstream is like, as of some moment.
#[derive(Debug)]
pub struct Known {
    /// Major version.
    pub server_version: u32,
    /// Its catalogue.
    pub catalogue: Arc<Catalogue>,
    /// `search_path` of a fresh session of our role in this database.
    pub search_path: Option<Arc<str>>,
    /// What a fresh session reports of itself.
    pub parameters: BTreeMap<String, String>,
    /// When its reading began: what was there by then, it shows.
    read_at: Instant,
    /// How long the reading took.
    took: Duration,
    change: u64,
}

impl Known {
    /// The fresh session's path, parsed.
    #[must_use]
    pub fn initial_path(&self, role: &str) -> SearchPath {
        self.search_path.as_deref().map_or(SearchPath::Unknown, |path| parse_search_path(path, role))
    }

    /// Whether it shows what was there at a moment.
    #[must_use]
    pub fn is_as_of(&self, moment: Instant) -> bool {
        self.read_at >= moment
    }
}

/// What an agent has changed in the catalogue of late.
#[derive(Debug)]
struct Changes {
    /// How many more do not wait.
    free: u32,
    /// When the next one may be made.
    next: Instant,
}

/// One upstream and what is known of it.
pub struct UpstreamState {
    /// Where it is.
    pub upstream: Upstream,
    /// What the operator says of its database.
    declared: Arc<ArcSwap<Declared>>,
    known: ArcSwap<Option<Arc<Known>>>,
    /// Counts the changes that we know of.
    change: Arc<AtomicU64>,
    /// The standing connection, while there is one. Whoever asks something by it holds the lock, and takes it
    /// out meanwhile: one that breaks off in the middle of an answer is never used again.
    standing: Mutex<Option<Asking>>,
    /// When an attempt to ask began that failed, and why.
    failed: parking_lot::Mutex<Option<(Instant, Arc<ConnectError>)>>,
    /// Names that upstream did not know when it was asked last.
    absent: parking_lot::Mutex<HashMap<Doubt, Instant>>,
    /// Sessions that run.
    sessions: AtomicUsize,
    /// Who has changed the catalogue of late.
    changes: parking_lot::Mutex<HashMap<AgentName, Changes>>,
    trouble: parking_lot::Mutex<Option<String>>,
    /// Something in between refused protocol 3.2 although the server knows it.
    only_3_0: AtomicBool,
}

impl UpstreamState {
    /// Nothing is known yet; the first session asks.
    #[must_use]
    pub fn new(upstream: Upstream, declared: Arc<Declared>) -> Self {
        Self {
            upstream,
            declared: Arc::new(ArcSwap::new(declared)),
            known: ArcSwap::default(),
            change: Arc::default(),
            standing: Mutex::new(None),
            failed: parking_lot::Mutex::default(),
            absent: parking_lot::Mutex::default(),
            sessions: AtomicUsize::new(0),
            changes: parking_lot::Mutex::default(),
            trouble: parking_lot::Mutex::default(),
            only_3_0: AtomicBool::new(false),
        }
    }

    /// The same upstream in a configuration that was loaded later. Sessions keep the state that they began
    /// with, so what is told to the one has to reach the other.
    #[must_use]
    pub fn succeeding(self, earlier: &Self) -> Self {
        Self { declared: Arc::clone(&earlier.declared), change: Arc::clone(&earlier.change), ..self }
    }

    /// A forwarded statement may have changed the catalogue: what is known is not good any more.
    pub fn changed(&self) {
        self.change.fetch_add(1, Ordering::AcqRel);
    }

    /// The same by a statement of this agent's. An agent that changes it again and again would have all others
    /// wait for one reading after the other, so behind a number of changes its next ones wait.
    pub fn changed_by(&self, agent: &AgentName) {
        self.changed();
        let pause = self.last().map_or(Duration::ZERO, |known| known.took * PAUSE);
        let now = Instant::now();
        let mut changes = self.changes.lock();
        // Whoever has been quiet for a while begins anew.
        changes.retain(|_, changes| changes.next + STANDING > now);
        let of_agent = changes.entry(agent.clone()).or_insert(Changes { free: CHANGES_AT_ONCE, next: now });
        if let Some(free) = of_agent.free.checked_sub(1) {
            of_agent.free = free;
            of_agent.next = now;
        } else {
            of_agent.next = of_agent.next.max(now) + pause;
        }
    }

    /// How long a statement of this agent's that changes the catalogue has to wait.
    #[must_use]
    pub fn pause(&self, agent: &AgentName) -> Option<Duration> {
        let next = self.changes.lock().get(agent)?.next;
        next.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }

    /// The operator says something else of its database now.
    pub fn declare(&self, declared: Arc<Declared>) {
        self.declared.store(declared);
        self.changed();
    }

    /// What was known last, current or not.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Known>> {
        self.known.load().as_ref().clone()
    }

    /// Why it could not be reached when somebody tried last; `None` when it could.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Notes how an attempt to reach it ended.
    pub(super) fn note<T>(&self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        let trouble = result.as_ref().err().filter(|error| error.about_a_setting().is_none());
        *self.trouble.lock() = trouble.map(ToString::to_string);
        result
    }

    /// A session for an agent. Protocol 3.2, with its long cancel keys, is asked for where the server is
    /// known to speak it: an older one would agree on 3.0, but not everything that stands before one
    /// knows how to.
    ///
    /// # Errors
    /// As for [`log_in`].
    pub async fn log_in(
        &self,
        known: &Known,
        settings: &[(String, String)],
    ) -> Result<Connected, ConnectError> {
        if known.server_version >= NEGOTIATES && !self.only_3_0.load(Ordering::Relaxed) {
            match log_in(&self.upstream, settings, Opening::NEWEST).await {
                Err(error @ ConnectError::Version { .. }) => {
                    info!(upstream = %self.upstream.name, %error, "protocol 3.0 from now on");
                    self.only_3_0.store(true, Ordering::Relaxed);
                }
                session => return self.note(session),
            }
        }
        self.note(log_in(&self.upstream, settings, 0).await)
    }

    /// What is known, if it is current.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Known>> {
        self.as_of(self.change.load(Ordering::Acquire))
    }

    /// What is known, if it was read after change number `wanted`.
    fn as_of(&self, wanted: u64) -> Option<Arc<Known>> {
        let known = self.last()?;
        (known.change >= wanted && known.read_at.elapsed() < LIFE).then_some(known)
    }

    /// What was known last, where it cannot be read anew at the moment and nobody told us of a change since.
    #[must_use]
    pub fn unchanged(&self) -> Option<Arc<Known>> {
        let known = self.last()?;
        let unchanged = known.change >= self.change.load(Ordering::Acquire);
        (unchanged && known.read_at.elapsed() < GRACE).then_some(known)
    }

    /// Whether reading it has just failed, so that nobody need wait for the next attempt.
    #[must_use]
    pub fn has_just_failed(&self) -> bool {
        self.failed.lock().as_ref().is_some_and(|(began, _)| began.elapsed() < SPACING)
    }

    /// What is known, read anew unless it is current. Several who ask at once wait for one reading.
    ///
    /// # Errors
    /// When upstream cannot be reached or does not answer as expected.
    pub async fn known(&self) -> Result<Arc<Known>, ConnectError> {
        let wanted = self.change.load(Ordering::Acquire);
        if let Some(known) = self.current() {
            return Ok(known);
        }
        // A reading that began after we asked shows what we asked for. To want the newest of all would be
        // to read again and again for as long as others go on changing things.
        self.read_unless(|state| state.as_of(wanted)).await
    }

    /// What is known, as of `moment` at least: read anew if its reading began before. Such readings have a
    /// distance, whoever asks for them.
    ///
    /// # Errors
    /// As for [`Self::known`].
    pub async fn known_since(&self, moment: Instant) -> Result<Arc<Known>, ConnectError> {
        let wanted = self.change.load(Ordering::Acquire);
        if let Some(last) = self.last() {
            tokio::time::sleep(SPACING.saturating_sub(last.read_at.elapsed())).await;
        }
        self.read_unless(|state| state.as_of(wanted).filter(|known| known.is_as_of(moment))).await
    }

    /// Waits for the standing connection, and reads by it unless `enough` says that somebody has done so.
    async fn read_unless(
        &self,
        enough: impl Fn(&Self) -> Option<Arc<Known>>,
    ) -> Result<Arc<Known>, ConnectError> {
        let asked_at = Instant::now();
        let mut standing = self.standing.lock().await;
        if let Some(known) = enough(self) {
            return Ok(known);
        }
        self.not_in_vain(asked_at)?;
        let change = self.change.load(Ordering::Acquire);
        let began = Instant::now();
        let known = Arc::new(self.tell(began, self.read(&mut standing, change).await)?);
        info!(upstream = %self.upstream.name, version = known.server_version, generation = known.catalogue.generation, "catalogue read");
        self.known.store(Arc::new(Some(Arc::clone(&known))));
        Ok(known)
    }

    /// An attempt that began after `asked_at` and failed would fail again: those who waited for it have its
    /// error.
    fn not_in_vain(&self, asked_at: Instant) -> Result<(), ConnectError> {
        match &*self.failed.lock() {
            Some((began, error)) if *began >= asked_at => Err(ConnectError::Shared(Arc::clone(error))),
            _ => Ok(()),
        }
    }

    /// Notes how an attempt to ask upstream something ended.
    fn tell<T>(&self, began: Instant, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        let result = self.note(result).map_err(Arc::new);
        *self.failed.lock() = result.as_ref().err().map(|error| (began, Arc::clone(error)));
        result.map_err(ConnectError::Shared)
    }

    /// Looks up names that the catalogue does not know: whether upstream knows them by now. Where it does, the
    /// catalogue is read anew. Returns what is known then.
    ///
    /// # Errors
    /// As for [`Self::known`].
    pub async fn look_up(&self, doubts: &[Doubt], asked_at: Instant) -> Result<Arc<Known>, ConnectError> {
        let is_column = |doubt: &Doubt| matches!(doubt, Doubt::Column(_));
        if doubts.iter().any(is_column) || doubts.len() > MOST_LOOKED_UP {
            return self.known_since(asked_at).await;
        }
        if self.are_absent(doubts) {
            return self.known().await;
        }
        let began = {
            let mut standing = self.standing.lock().await;
            if let Some(known) = self.last().filter(|known| known.is_as_of(asked_at)) {
                return Ok(known);
            }
            if self.are_absent(doubts) {
                None
            } else {
                self.not_in_vain(asked_at)?;
                let began = Instant::now();
                let found = self.tell(began, self.exist(&mut standing, doubts).await)?;
                if !found {
                    let mut absent = self.absent.lock();
                    if absent.len() > MOST_ABSENT {
                        absent.clear();
                    }
                    absent.extend(doubts.iter().map(|doubt| (doubt.clone(), began)));
                }
                found.then_some(began)
            }
        };
        match began {
            Some(began) => self.known_since(began).await,
            None => self.known().await,
        }
    }

    fn are_absent(&self, doubts: &[Doubt]) -> bool {
        let absent = self.absent.lock();
        doubts.iter().all(|doubt| absent.get(doubt).is_some_and(|at| at.elapsed() < ABSENT))
    }

    /// Whether upstream has any of these.
    async fn exist(&self, standing: &mut Option<Asking>, doubts: &[Doubt]) -> Result<bool, ConnectError> {
        let question = existence(doubts);
        let answers = self.ask(standing, &[&question]).await?;
        Ok(answers.first().is_some_and(|rows| !rows.is_empty()))
    }

    /// Asks by the standing connection; where it has broken, by a new one.
    async fn ask(
        &self,
        standing: &mut Option<Asking>,
        questions: &[&str],
    ) -> Result<Vec<Vec<Row>>, ConnectError> {
        let asked = |mut asking: Asking| async move {
            let answers = tokio::time::timeout(PATIENCE, asking.ask_all(questions));
            let answers = answers.await.unwrap_or(Err(ConnectError::Timeout(PATIENCE)))?;
            Ok::<_, ConnectError>((asking, answers))
        };
        if let Some(asking) = standing.take() {
            match asked(asking).await {
                Ok((asking, answers)) => {
                    *standing = Some(asking);
                    return Ok(answers);
                }
                Err(error) => {
                    info!(upstream = %self.upstream.name, %error, "the standing connection is made anew");
                }
            }
        }
        let (asking, answers) = asked(self.begin().await?).await?;
        *standing = Some(asking);
        Ok(answers)
    }

    /// A session of our own, to be kept.
    async fn begin(&self) -> Result<Asking, ConnectError> {
        // Compiling a query that runs once takes longer than running it.
        let mut settings = vec![("application_name", "countersign catalogue"), ("jit", "off")];
        // This is no login of anybody's, so login triggers (Postgres 17) do not fire for it, where the role may
        // say so.
        let known = self.last();
        let reports = known.as_ref().map(|known| (known.server_version, &known.parameters));
        if reports.is_some_and(|(version, told)| {
            version >= 17 && told.get("is_superuser").is_some_and(|superuser| superuser == "on")
        }) {
            settings.push(("event_triggers", "off"));
        }
        let settings: Vec<(String, String)> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut asking = Asking { connected: log_in(&self.upstream, &settings, 0).await? };
        // It is idle most of the time, on purpose. Older servers have no such setting.
        asking
            .ask(
                "SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s \
                 WHERE s.name OPERATOR(pg_catalog.=) 'idle_session_timeout'",
            )
            .await?;
        Ok(asking)
    }

    async fn read(&self, standing: &mut Option<Asking>, change: u64) -> Result<Known, ConnectError> {
        let read_at = Instant::now();
        // All of them at once: somebody waits for this, so it costs one round trip.
        let questions: Vec<&str> =
            [FRESH_PATH, guards::QUERY].into_iter().chain(QUERIES.iter().map(|query| query.sql)).collect();
        let mut answers = self.ask(standing, &questions).await?;
        let mut path = fresh_path(&answers);
        if path.is_none() {
            // It is another one than that of our session: a new session tells. Where there is none to be had,
            // nobody begins one who would have to know.
            if let Ok(asking) = self.begin().await {
                *standing = Some(asking);
                answers = self.ask(standing, &questions).await?;
                path = fresh_path(&answers);
            }
        }
        let guards = Guards::from_rows(answers.get(1).map_or(&[][..], Vec::as_slice));
        let answers = answers.get(2..).unwrap_or_default();
        let parameters = standing.as_ref().map(|asking| asking.parameters().clone()).unwrap_or_default();
        let version = parameters.get("server_version").map(String::as_str).unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
        let server_version = major.ok_or(ConnectError::Protocol("no server version"))?;
        let catalogue = from_rows(server_version, answers, &self.declared.load()).map_err(|error| {
            warn!(upstream = %self.upstream.name, %error, "catalogue not understood");
            ConnectError::Protocol("a catalogue that makes no sense")
        })?;
        Ok(Known {
            server_version,
            catalogue: Arc::new(catalogue.with_guards(guards)),
            search_path: path,
            parameters,
            read_at,
            took: read_at.elapsed(),
            change,
        })
    }

    /// A session begins; to be kept while it runs. The standing connection goes some time after the last.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Running {
        self.sessions.fetch_add(1, Ordering::AcqRel);
        Running { state: Arc::clone(self) }
    }

    /// Closes the standing connection if no session has run for a while: it would keep the server from
    /// dropping the database, and from a smart shutdown.
    async fn rest(&self) {
        tokio::time::sleep(STANDING).await;
        if self.sessions.load(Ordering::Acquire) == 0
            && let Some(asking) = self.standing.lock().await.take()
        {
            asking.leave().await;
        }
    }
}

/// A session that runs.
pub struct Running {
    state: Arc<UpstreamState>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        if state.sessions.fetch_sub(1, Ordering::AcqRel) == 1
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { state.rest().await });
        }
    }
}

fn fresh_path(answers: &[Vec<Row>]) -> Option<Arc<str>> {
    answers.first()?.first()?.first()?.as_deref().map(Arc::from)
}

/// Asks whether any of these names exist by now, as the catalogue's own queries would find them. Names are
/// the agent's: they are sent as hexadecimal digits, which no quoting can go wrong with.
fn existence(doubts: &[Doubt]) -> String {
    let names = |kind: fn(&Doubt) -> Option<&str>| {
        let mut names = doubts.iter().filter_map(kind).map(|name| {
            let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("pg_catalog.convert_from(pg_catalog.decode('{digits}', 'hex'), 'UTF8')::pg_catalog.name")
        });
        let first = names.next()?;
        Some(names.fold(first, |all, name| format!("{all}, {name}")))
    };
    let called = names(|doubt| match doubt {
        Doubt::Column(name) | Doubt::Attribute(name) | Doubt::Call(name) => Some(name),
        Doubt::Relation(_) | Doubt::Type(_) => None,
    });
    let types = names(|doubt| match doubt {
        Doubt::Column(name) | Doubt::Attribute(name) | Doubt::Type(name) => Some(name),
        Doubt::Call(_) | Doubt::Relation(_) => None,
    });
    let relations = names(|doubt| match doubt {
        Doubt::Relation(name) => Some(name),
        Doubt::Column(_) | Doubt::Attribute(_) | Doubt::Call(_) | Doubt::Type(_) => None,
    });
    let functions = called.map(|names| {
        format!(
            "SELECT 1 FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.>=) 16384 \
             AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[{names}])"
        )
    });
    let types = types.map(|names| {
        format!(
            "SELECT 1 FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class k ON k.oid OPERATOR(pg_catalog.=) t.typrelid \
             WHERE t.oid OPERATOR(pg_catalog.>=) 16384 AND t.typname OPERATOR(pg_catalog.=) ANY (ARRAY[{names}]) \
             AND (t.typcategory OPERATOR(pg_catalog.<>) 'A' OR t.typtype OPERATOR(pg_catalog.=) 'd') \
             AND (t.typtype OPERATOR(pg_catalog.<>) 'c' OR k.relkind OPERATOR(pg_catalog.=) 'c')"
        )
    });
    let relations = relations.map(|names| {
        format!(
            "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
             WHERE c.oid OPERATOR(pg_catalog.>=) 16384 AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[{names}]) \
             AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'f', 'S']::\"char\"[]) \
             AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'"
        )
    });
    let parts: Vec<String> = [functions, types, relations].into_iter().flatten().collect();
    if parts.is_empty() { "SELECT 1 LIMIT 0".to_owned() } else { parts.join(" UNION ALL ") }
}

/// A session of our own in which a few queries are asked, one after the other.
pub struct Asking {
    connected: Connected,
}

impl Asking {
    /// Logs in.
    ///
    /// # Errors
    /// As for [`log_in`].
    pub async fn begin(upstream: &Upstream, purpose: &str) -> Result<Self, ConnectError> {
        let settings = [("application_name".to_owned(), format!("countersign {purpose}"))];
        Ok(Self { connected: log_in(upstream, &settings, 0).await? })
    }

    /// Asks in an agent's own session, before the agent is in it, what the login has made of its settings:
    /// the defaults of role, database and server, and what login triggers did.
    pub(super) async fn settings_at_login(
        connected: Connected,
        upstream: &Upstream,
    ) -> Result<(Connected, AtLogin), ConnectError> {
        let mut asking = Self { connected };
        let question = "SELECT pg_catalog.current_setting('search_path'), \
                        pg_catalog.current_setting('role'), session_user";
        let answer = async {
            asking.send(std::iter::once(question)).await?;
            asking.answer().await
        };
        let asked = tokio::time::timeout(upstream.timeout, answer).await;
        let told = match asked.unwrap_or(Err(ConnectError::Timeout(upstream.timeout))) {
            Ok(rows) => {
                let mut values = rows.into_iter().flatten().map(|value| value.map(Arc::from));
                let mut next = || values.next().flatten();
                AtLogin { search_path: next(), role: next(), session_authorization: next() }
            }
            // A statement_timeout of a millisecond, for instance: then it is asked again when it matters.
            Err(ConnectError::Refused { .. }) => AtLogin::default(),
            Err(error) => return Err(error),
        };
        Ok((asking.connected, told))
    }

    /// What the server reported of itself at login.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.connected.parameters
    }

    /// Asks one query; returns its rows as text. Its names are looked up in `pg_catalog` only: a role's own
    /// `search_path` may lead to operators and functions of somebody else's.
    ///
    /// # Errors
    /// When upstream refuses it, is gone, or answers something else.
    pub async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, ConnectError> {
        // One `Query`, with which the setting ends.
        let sql = format!("SET LOCAL search_path = pg_catalog, pg_temp; {sql}");
        self.send(std::iter::once(sql.as_str())).await?;
        self.answer().await
    }

    /// Asks several at once.
    async fn ask_all(&mut self, questions: &[&str]) -> Result<Vec<Vec<Row>>, ConnectError> {
        self.send(questions.iter().copied()).await?;
        let mut answers = Vec::with_capacity(questions.len());
        for _ in questions {
            answers.push(self.answer().await?);
        }
        Ok(answers)
    }

    async fn send<'q>(&mut self, questions: impl Iterator<Item = &'q str>) -> Result<(), ConnectError> {
        let mut request = BytesMut::new();
        for sql in questions {
            frontend::query(sql, &mut request)?;
        }
        self.connected.stream.write_all(&request).await?;
        Ok(self.connected.stream.flush().await?)
    }

    /// The answer to the first question that has none yet.
    async fn answer(&mut self) -> Result<Vec<Row>, ConnectError> {
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                tag::DATA_ROW => rows.push(row(&body).ok_or(ConnectError::Protocol("a malformed row"))?),
                tag::ERROR => {
                    let fields =
                        Fields::read(&body).map_err(|_| ConnectError::Protocol("a malformed error"))?;
                    let (code, message) = (fields.code.to_owned(), fields.message.to_owned());
                    refused = Some(ConnectError::Refused { code, message });
                }
                tag::READY => return refused.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    async fn receive(&mut self) -> Result<(u8, BytesMut), ConnectError> {
        const LIMIT: usize = 256 << 20;
        let Connected { stream, rest, .. } = &mut self.connected;
        loop {
            let first =
                Frame::first(rest, LIMIT).map_err(|_| ConnectError::Protocol("a message's length"))?;
            if let Some(frame) = first {
                let (tag, total) = (frame.tag, frame.bytes.len());
                let mut frame = rest.split_to(total);
                return Ok((tag, frame.split_off(crate::wire::frame::HEADER)));
            }
            if stream.read_buf(rest).await? == 0 {
                return Err(ConnectError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Says goodbye.
    pub async fn leave(mut self) {
        let mut goodbye = BytesMut::new();
        frontend::terminate(&mut goodbye);
        // Whether it arrives or not, the connection ends.
        let _ = self.connected.stream.write_all(&goodbye).await;
        let _ = self.connected.stream.shutdown().await;
    }
}

fn row(body: &[u8]) -> Option<Row> {
    let mut reader = Reader::new(body);
    let count = reader.count().ok()?;
    let mut row = Vec::with_capacity(count);
    for _ in 0..count {
        row.push(match reader.i32().ok()? {
            -1 => None,
            length => {
                let bytes = reader.bytes(usize::try_from(length).ok()?).ok()?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        });
    }
    reader.end().ok()?;
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> UpstreamState {
        let upstream = Upstream {
            name: "app".into(),
            host: "localhost".to_owned(),
            port: 1,
            database: "app".into(),
            role: "app".into(),
            password: None,
            tls: None,
            timeout: PATIENCE,
            agents_name_sessions: false,
        };
        UpstreamState::new(upstream, Arc::default())
    }

    /// As if it had been read when `change` changes were known of.
    fn read(state: &UpstreamState, change: u64) {
        let known = Known {
            server_version: 15,
            catalogue: Catalogue::built_in(15),
            search_path: None,
            parameters: BTreeMap::new(),
            read_at: Instant::now(),
            took: Duration::ZERO,
            change,
        };
        state.known.store(Arc::new(Some(Arc::new(known))));
    }

    #[test]
    fn a_reading_serves_those_who_asked_before_it_began_and_nobody_else() {
        let state = state();
        state.changed();
        read(&state, 1);
        assert!(state.current().is_some());

        // Somebody asks, a reading begins, and a change comes before it ends.
        let wanted = 1;
        state.changed();

        assert!(state.as_of(wanted).is_some(), "it shows what was there when they asked");
        assert!(state.current().is_none(), "who asks now wants the change");
    }
}
