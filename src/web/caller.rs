//! Who asks: a reviewer with a personal token, an agent with its password, or a browser that has
//! signed in. Programs show what they have with each request; browsers have a cookie, and a path that
//! only they know. The API takes no cookie and the console no token, so that neither has the other's
//! weaknesses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tracing::warn;
use zeroize::Zeroizing;

use super::Web;
use super::api::ApiError;
use super::connections::{Connection, Standing};
use super::limiter::network;
use crate::actor::{Agent, AgentName, ReviewerId};
use crate::identity::reviewer::PersonalTokens;
use crate::identity::secret::{Kind, SecretHash};
use crate::identity::session::{SessionProof, SessionSecrets};
use crate::identity::{
    AgentEntry, AuthenticatedReviewer, NotRecognised, ReviewerIdentity as _, ScramVerifier,
};
use crate::statement::Digest;

/// The address at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Peer {
    /// The address, or the network it is in; one that stands for nobody where the request came
    /// without a connection.
    pub(super) fn of(extensions: &Extensions) -> IpAddr {
        let address = extensions.get::<Self>().map(|peer| peer.0.ip());
        network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

/// A program that uses the API.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// On behalf of a reviewer.
    Reviewer(AuthenticatedReviewer),
    /// An agent; it may read its own requests and nothing else.
    Agent(Arc<Agent>),
}

/// A program that uses the API on behalf of a reviewer.
#[derive(Clone, Debug)]
pub(super) struct Person(pub(super) AuthenticatedReviewer);

impl FromRequestParts<Web> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        match Caller::from_request_parts(parts, web).await? {
            Caller::Reviewer(person) => Ok(Self(person)),
            Caller::Agent(agent) => {
                warn!(agent = %agent.name, path = parts.uri.path(), "an agent tried what only people may do");
                Err(ApiError::agent_credential())
            }
        }
    }
}

/// What a program has proved who it is by, for whoever has to look at it again: a stream of events goes
/// on long after its request.
#[derive(Clone)]
pub(super) enum Proven {
    /// A reviewer's personal token.
    Token { reviewer: ReviewerId, token: Arc<Zeroizing<String>> },
    /// An agent's password.
    Password { agent: AgentName, verifier: Box<ScramVerifier> },
}

impl Proven {
    /// Whether it would be accepted now.
    pub(super) fn is_still_good(&self, web: &Web) -> bool {
        let directory = web.0.directory.load();
        match self {
            Self::Token { reviewer, token } => PersonalTokens
                .recognise(&directory, token, web.now())
                .is_ok_and(|found| found.reviewer().id == *reviewer),
            Self::Password { agent, verifier } => directory.agent(agent).is_some_and(|entry| {
                entry.certificate.is_none() && entry.verifier.as_ref() == Some(verifier)
            }),
        }
    }
}

impl FromRequestParts<Web> for Proven {
    type Rejection = ApiError;

    /// Behind [`Caller`], which leaves it there.
    async fn from_request_parts(parts: &mut Parts, _: &Web) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthenticated)
    }
}

impl FromRequestParts<Web> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let now = web.now();
        let from = Peer::of(&parts.extensions);
        let shown = Shown::of(&parts.headers).ok_or_else(ApiError::unauthenticated)?;
        let found = match &shown {
            Shown::Token(token) if token.starts_with(Kind::Reviewer.prefix()) => {
                // Cheap to check, so it is checked before anything is counted: nobody can lock
                // reviewers out by guessing.
                PersonalTokens.recognise(&web.0.directory.load(), token, now).map(|person| {
                    let token = Arc::new(Zeroizing::new(token.clone()));
                    let proven = Proven::Token { reviewer: person.reviewer().id.clone(), token };
                    (Self::Reviewer(person), proven)
                })
            }
            Shown::Token(_) | Shown::Password { .. } => match web.0.failures.wait(&from, now) {
                Some(wait) => return Err(ApiError::too_many_failures(wait)),
                None => web.recognise_agent(shown.clone()).await.map(|(agent, verifier)| {
                    let proven = Proven::Password { agent: agent.name.clone(), verifier: Box::new(verifier) };
                    (Self::Agent(agent), proven)
                }),
            },
        };
        if let Ok((Self::Agent(agent), _)) = &found {
            if let Some(wait) = web.0.asking.wait(&agent.name, now) {
                return Err(ApiError::too_many_questions(wait));
            }
            web.0.asking.note(agent.name.clone(), now);
        }
        let found = found.map(|(caller, proven)| {
            if let Some(connection) = parts.extensions.get::<Connection>() {
                connection.proved(match &caller {
                    Self::Reviewer(_) => Standing::Person,
                    Self::Agent(_) => Standing::Agent,
                });
            }
            parts.extensions.insert(proven);
            caller
        });
        found.map_err(|why| {
            warn!(%from, %why, "credentials were not accepted");
            web.0.failures.note(from, now);
            match (why, web.0.failures.wait(&from, now)) {
                (NotRecognised::AgentCredential, _) => ApiError::agent_credential(),
                (_, Some(wait)) => ApiError::too_many_failures(wait),
                (_, None) => ApiError::unauthenticated(),
            }
        })
    }
}

/// What a program shows.
#[derive(Clone)]
enum Shown {
    /// `Authorization: Bearer ..`
    Token(String),
    /// `Authorization: Basic ..`: an agent's name and password, as in its connection string.
    Password { name: String, password: String },
}

impl Shown {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self::Password { name: name.to_owned(), password: password.to_owned() })
    }
}

/// Passwords that were found to be some agent's. Checking one takes thousands of hashes; a program
/// that asks every second must not cost that each time.
#[derive(Debug)]
pub(super) struct KnownAgents {
    found: Mutex<BTreeMap<SecretHash, (AgentName, ScramVerifier)>>,
    /// One check at a time.
    checking: Arc<Semaphore>,
}

impl Default for KnownAgents {
    fn default() -> Self {
        Self { found: Mutex::default(), checking: Arc::new(Semaphore::new(1)) }
    }
}

/// How many passwords are remembered.
const REMEMBERED: usize = 1024;

impl Web {
    async fn recognise_agent(&self, shown: Shown) -> Result<(Arc<Agent>, ScramVerifier), NotRecognised> {
        let (name, password) = match shown {
            Shown::Password { name, password } => (Some(name), password),
            // A token says nothing of whose it is. Those that we made are told by their prefix; only
            // they are worth trying on every agent.
            Shown::Token(token) if token.starts_with(Kind::Agent.prefix()) => (None, token),
            Shown::Token(_) => return Err(NotRecognised::Unknown),
        };
        let hash = SecretHash::of(&format!("{}\0{password}", name.as_deref().unwrap_or_default()));
        let directory = self.0.directory.load_full();
        let known = self.0.agents.found.lock().get(&hash).cloned();
        if let Some((agent, verifier)) = known {
            // As configured now: a rotated or revoked password is one no more.
            return match directory.agent(&agent) {
                Some(entry) if entry.verifier.as_ref() == Some(&verifier) => {
                    Ok((entry.agent.clone(), verifier))
                }
                Some(_) | None => Err(NotRecognised::Expired),
            };
        }
        let permit = self.0.agents.checking.clone().acquire_owned().await;
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // One that has to show a certificate as well cannot show it here.
            let fits = |entry: &&AgentEntry| entry.certificate.is_none() && entry.has_password(&password);
            match name {
                Some(name) => directory.agent(&AgentName::new(name)).filter(fits).cloned(),
                None => directory.agents().find(fits).cloned(),
            }
        });
        let entry = found.await.ok().flatten().ok_or(NotRecognised::Unknown)?;
        let verifier = entry.verifier.ok_or(NotRecognised::Unknown)?;
        let mut known = self.0.agents.found.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, (entry.agent.name.clone(), verifier.clone()));
        Ok((entry.agent, verifier))
    }
}

/// The session whose pages a browser asks for: the segment of the path that nobody else knows. It is
/// cut off the path before a request is routed, so that it is in no log and no `next`.
#[derive(Clone)]
pub(super) struct Within(Arc<str>);

impl Within {
    /// What stands before the segment.
    const PREFIX: &str = "/s/";

    /// Takes the session off a path: the session, and the path of the page.
    pub(super) fn split(path: &str) -> Option<(Self, &str)> {
        let rest = path.strip_prefix(Self::PREFIX)?;
        let (segment, page) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some((Self(segment.into()), if page.is_empty() { "/" } else { page }))
    }

    /// What the paths of the session's pages begin with.
    pub(super) fn base(&self) -> String {
        format!("{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Within(..)")
    }
}

/// What a browser shows of its session: the path that it asks under, and cookies.
#[derive(Clone)]
pub(super) struct ShownSession {
    pub(super) within: Option<Within>,
    /// Everything of the right name. Another port of the same host can plant cookies beside ours;
    /// they fit no path, so they neither sign anybody in nor lock anybody out.
    cookies: Vec<String>,
    connection: Option<Connection>,
}

impl ShownSession {
    pub(super) fn of(web: &Web, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let name = web.cookie_name();
        let texts = headers.get_all(header::COOKIE).into_iter().filter_map(|header| header.to_str().ok());
        let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let cookies = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect();
        let within = extensions.get::<Within>().cloned();
        Self { within, cookies, connection: extensions.get::<Connection>().cloned() }
    }

    /// Every way in which what is shown might be a session.
    pub(super) fn proofs(&self) -> impl Iterator<Item = SessionProof<'_>> {
        let within = self.within.iter();
        within.flat_map(|within| {
            self.cookies.iter().map(|cookie| SessionProof { path: &within.0, cookie: cookie.as_str() })
        })
    }
}

impl FromRequestParts<Web> for ShownSession {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Infallible> {
        Ok(Self::of(web, &parts.extensions, &parts.headers))
    }
}

/// A browser that has signed in, and what its forms are signed with.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    /// Who signed in.
    pub(super) who: AuthenticatedReviewer,
    /// Hash of the session's secrets: what ties a form to the session.
    session: SecretHash,
    within: Within,
}

impl Browser {
    /// The address of a page in this session.
    pub(super) fn at(&self, page: &str) -> String {
        format!("{}{page}", self.within.base())
    }
}

/// Why a form is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForgedForm;

impl Web {
    /// The name of the session's cookie. Under TLS no page without TLS can set a cookie of this name
    /// (RFC 6265bis, section 4.1.3.1). Not `__Host-`: that would be for `/`, and go to all ports.
    pub(super) fn cookie_name(&self) -> &'static str {
        if self.is_secure() { "__Secure-countersign" } else { "countersign" }
    }

    /// The browser that shows a session, as long as it is good. `used` says whether its owner did
    /// something: a page that refreshes itself must not keep a session alive for ever.
    pub(super) fn browser(&self, shown: &ShownSession, used: bool) -> Option<Browser> {
        let within = shown.within.clone()?;
        let directory = self.0.directory.load();
        let now = self.now();
        shown.proofs().find_map(|proof| {
            let found = if used {
                self.0.sessions.recognise(&directory, proof, now)
            } else {
                self.0.sessions.peek(&directory, proof, now)
            };
            let who = found.ok()?;
            if let Some(connection) = &shown.connection {
                connection.proved(Standing::Person);
            }
            Some(Browser { who, session: proof.hash(), within: within.clone() })
        })
    }

    /// Ends the session that a browser shows.
    pub(super) fn close_session(&self, shown: &ShownSession) {
        for proof in shown.proofs() {
            self.0.sessions.close(proof);
        }
    }

    /// Where the pages of a new session are, and the `Set-Cookie` that opens it.
    pub(super) fn entrance(&self, secrets: &SessionSecrets) -> (Within, String) {
        let within = Within(secrets.path.as_str().into());
        let cookie = self.cookie(&within, &secrets.cookie);
        (within, cookie)
    }

    /// A cookie that browsers send to the pages of this session only. `Strict`: the only way in from
    /// elsewhere is the sign-in page, which needs no cookie.
    fn cookie(&self, within: &Within, value: &str) -> String {
        let secure = if self.is_secure() { "; Secure" } else { "" };
        let (name, path) = (self.cookie_name(), within.base());
        format!("{name}={value}; Path={path}/; HttpOnly; SameSite=Strict{secure}")
    }

    /// The `Set-Cookie` that forgets a session.
    pub(super) fn no_cookie(&self, within: &Within) -> String {
        format!("{}; Max-Age=0", self.cookie(within, ""))
    }

    /// What every form of this browser carries, so that no other site can send one in its name.
    pub(super) fn form_token(&self, browser: &Browser) -> String {
        hex::encode(self.form_mac(&[b"form", browser.session.to_string().as_bytes()]))
    }

    /// Whether a form carries what [`Self::form_token`] gave.
    pub(super) fn check_form(&self, browser: &Browser, token: &str) -> Result<(), ForgedForm> {
        let expected = self.form_token(browser);
        let same: bool = expected.as_bytes().ct_eq(token.as_bytes()).into();
        if same { Ok(()) } else { Err(ForgedForm) }
    }

    /// What the form of a request carries besides: that this browser was shown this statement, when,
    /// and whether it was shown whole.
    pub(super) fn seen_token(&self, browser: &Browser, seen: &Seen) -> String {
        let facts = seen.encode();
        let mac = self.form_mac(&[b"seen", browser.session.to_string().as_bytes(), facts.as_bytes()]);
        format!("{facts}.{}", hex::encode(mac))
    }

    /// Reads what [`Self::seen_token`] wrote.
    pub(super) fn check_seen(&self, browser: &Browser, token: &str) -> Result<Seen, ForgedForm> {
        let (facts, mac) = token.rsplit_once('.').ok_or(ForgedForm)?;
        let expected = self.form_mac(&[b"seen", browser.session.to_string().as_bytes(), facts.as_bytes()]);
        let same: bool = hex::encode(expected).as_bytes().ct_eq(mac.as_bytes()).into();
        if same { Seen::decode(facts).ok_or(ForgedForm) } else { Err(ForgedForm) }
    }

    fn form_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.form_key.as_slice()).expect("any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// What a browser was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Digest of the statement.
    pub(super) digest: Digest,
    /// When.
    pub(super) at: Timestamp,
    /// All of it was on the page.
    pub(super) whole: bool,
}

impl Seen {
    fn encode(&self) -> String {
        format!("{}.{}.{}", self.digest, self.at.as_millisecond(), u8::from(self.whole))
    }

    fn decode(facts: &str) -> Option<Self> {
        let mut parts = facts.split('.');
        let digest = Digest::from_hex(parts.next()?)?;
        let at = Timestamp::from_millisecond(parts.next()?.parse().ok()?).ok()?;
        let whole = parts.next()? == "1";
        Some(Self { digest, at, whole })
    }
}

/// Seconds, rounded up, for `Retry-After`.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
