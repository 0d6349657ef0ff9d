//! Who asks: a reviewer with a personal token, an agent with its password, or a browser that has
//! signed in. Programs show what they have with each request; browsers have a cookie. The API takes
//! no cookie and the console no token, so that neither has the other's weaknesses.

use std::collections::BTreeMap;
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

use super::Web;
use super::api::ApiError;
use super::limiter::network;
use crate::actor::{Agent, AgentName};
use crate::identity::reviewer::PersonalTokens;
use crate::identity::secret::{Kind, SecretHash};
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
                PersonalTokens.recognise(&web.0.directory.load(), token, now).map(Self::Reviewer)
            }
            Shown::Token(_) | Shown::Password { .. } => match web.0.failures.wait(&from, now) {
                Some(wait) => return Err(ApiError::too_many_failures(wait)),
                None => web.recognise_agent(shown.clone()).await.map(Self::Agent),
            },
        };
        if let Ok(Self::Agent(agent)) = &found {
            if let Some(wait) = web.0.asking.wait(&agent.name, now) {
                return Err(ApiError::too_many_questions(wait));
            }
            web.0.asking.note(agent.name.clone(), now);
        }
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
    async fn recognise_agent(&self, shown: Shown) -> Result<Arc<Agent>, NotRecognised> {
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
                Some(entry) if entry.verifier.as_ref() == Some(&verifier) => Ok(entry.agent.clone()),
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
        known.insert(hash, (entry.agent.name.clone(), verifier));
        Ok(entry.agent)
    }
}

/// A browser that has signed in, and what its forms are signed with.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    /// Who signed in.
    pub(super) who: AuthenticatedReviewer,
    /// Hash of the session's secret: what ties a form to the session.
    session: SecretHash,
}

/// Why a form is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForgedForm;

impl Web {
    /// The name of the session's cookie. Under TLS no other host, nor a page without TLS, can set a
    /// cookie of this name (RFC 6265bis, section 4.1.3.2).
    pub(super) fn cookie_name(&self) -> &'static str {
        if self.is_secure() { "__Host-countersign" } else { "countersign" }
    }

    /// The secret of the session that a browser shows.
    pub(super) fn session_secret(&self, headers: &HeaderMap) -> Option<String> {
        let name = self.cookie_name();
        let mut found = None;
        for header in headers.get_all(header::COOKIE) {
            for pair in header.to_str().ok()?.split(';') {
                let Some((key, value)) = pair.trim().split_once('=') else { continue };
                if key == name && found.replace(value.to_owned()).is_some() {
                    // Two of one name: one of them was planted.
                    return None;
                }
            }
        }
        found
    }

    /// The browser that shows a session, as long as it is good. `used` says whether its owner did
    /// something: a page that refreshes itself must not keep a session alive for ever.
    pub(super) fn browser(&self, headers: &HeaderMap, used: bool) -> Option<Browser> {
        let secret = self.session_secret(headers)?;
        let directory = self.0.directory.load();
        let now = self.now();
        let found = if used {
            self.0.sessions.recognise(&directory, &secret, now)
        } else {
            self.0.sessions.peek(&directory, &secret, now)
        };
        Some(Browser { who: found.ok()?, session: SecretHash::of(&secret) })
    }

    /// The `Set-Cookie` that opens a session.
    pub(super) fn cookie(&self, secret: &str) -> String {
        let secure = if self.is_secure() { "; Secure" } else { "" };
        // Lax, not Strict: a reviewer who follows a link in a chat message is signed in. Nothing
        // that such a link can lead to changes anything.
        format!("{}={secret}; Path=/; HttpOnly; SameSite=Lax{secure}", self.cookie_name())
    }

    /// The `Set-Cookie` that forgets a session.
    pub(super) fn no_cookie(&self) -> String {
        format!("{}; Max-Age=0", self.cookie(""))
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
