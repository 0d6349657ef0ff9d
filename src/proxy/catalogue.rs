//! Upstreams with what classification must know of them: version, defaults, and the catalogue.
//!
//! The catalogue is read over a connection of our own with the same login, so that what it shows is
//! what a session sees. It is read again after every statement that may have changed it, and from
//! time to time, because others change it without asking us.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::upstream::{ConnectError, Connected, Upstream, log_in};
use crate::classify::catalogue::{QUERIES, Row, from_rows};
use crate::classify::{Catalogue, Declared, Guards, SearchPath, guards};
use crate::session::settings::parse_search_path;
use crate::wire::backend::{Fields, tag};
use crate::wire::frame::{Frame, Reader};
use crate::wire::frontend::Opening;

/// How long a catalogue counts as current although nobody told us of a change.
const LIFE: Duration = Duration::from_secs(60);

/// The first major version of Postgres that speaks protocol 3.2.
const NEGOTIATES: u32 = 18;

/// How long reading it may take.
const PATIENCE: Duration = Duration::from_secs(10);

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
    read_at: Instant,
    change: u64,
}

impl Known {
    /// The fresh session's path, parsed.
    #[must_use]
    pub fn initial_path(&self, role: &str) -> SearchPath {
        self.search_path.as_deref().map_or(SearchPath::Unknown, |path| parse_search_path(path, role))
    }
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
    reading: Mutex<()>,
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
            reading: Mutex::new(()),
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
        let known = self.known.load();
        let known = known.as_ref().as_ref()?;
        let current = known.change >= wanted && known.read_at.elapsed() < LIFE;
        current.then(|| Arc::clone(known))
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
        let _reading = self.reading.lock().await;
        // A reading that began after we asked shows what we asked for. To want the newest of all would be
        // to read again and again for as long as others go on changing things.
        if let Some(known) = self.as_of(wanted) {
            return Ok(known);
        }
        let change = self.change.load(Ordering::Acquire);
        let read = tokio::time::timeout(PATIENCE, self.read(change));
        let known = Arc::new(self.note(read.await.unwrap_or(Err(ConnectError::Timeout(PATIENCE))))?);
        info!(upstream = %self.upstream.name, version = known.server_version, generation = known.catalogue.generation, "catalogue read");
        self.known.store(Arc::new(Some(Arc::clone(&known))));
        Ok(known)
    }

    async fn read(&self, change: u64) -> Result<Known, ConnectError> {
        // Compiling a query that runs once takes longer than running it.
        let mut settings = vec![("application_name", "countersign catalogue"), ("jit", "off")];
        // This is no login of anybody's, so login triggers (Postgres 17) do not fire for it, where the role may
        // say so.
        let known = self.known.load();
        let reports = known.as_ref().as_ref().map(|known| (known.server_version, &known.parameters));
        if reports.is_some_and(|(version, told)| {
            version >= 17 && told.get("is_superuser").is_some_and(|superuser| superuser == "on")
        }) {
            settings.push(("event_triggers", "off"));
        }
        let settings: Vec<(String, String)> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut reader = Asking { connected: log_in(&self.upstream, &settings, 0).await? };
        let version =
            reader.connected.parameters.get("server_version").map(String::as_str).unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok());
        let server_version = major.ok_or(ConnectError::Protocol("no server version"))?;
        // All of them at once: somebody waits for this, so it costs one round trip.
        let questions =
            ["SHOW search_path", guards::QUERY].into_iter().chain(QUERIES.iter().map(|query| query.sql));
        reader.send(questions).await?;
        let search_path = reader.answer().await?;
        let search_path = search_path.into_iter().flatten().flatten().next().map(Arc::from);
        let guards = Guards::from_rows(&reader.answer().await?);
        let mut answers = Vec::with_capacity(QUERIES.len());
        for _ in &QUERIES {
            answers.push(reader.answer().await?);
        }
        let catalogue = from_rows(server_version, &answers, &self.declared.load()).map_err(|error| {
            warn!(upstream = %self.upstream.name, %error, "catalogue not understood");
            ConnectError::Protocol("a catalogue that makes no sense")
        })?;
        let parameters = reader.connected.parameters.clone();
        reader.leave().await;
        Ok(Known {
            server_version,
            catalogue: Arc::new(catalogue.with_guards(guards)),
            search_path,
            parameters,
            read_at: Instant::now(),
            change,
        })
    }
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

    async fn send(&mut self, questions: impl Iterator<Item = &str>) -> Result<(), ConnectError> {
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
