//! Where issuers' keys come from, and how long they are believed.
//!
//! A file is read each time, so that a changed one counts at once. What a URL answers is kept: asked
//! for again after five minutes, or at once when a token names a key that is not in it, but then no
//! more than every ten seconds, because whoever can connect can make up names of keys. While the
//! issuer does not answer, the keys that are known go on counting for an hour since they were fetched;
//! after that, and where none are known, nobody is let in.
#![allow(clippy::disallowed_methods, reason = "how old keys are is a matter of the clock")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tracing::{info, warn};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use url::{Host, Url};

use super::token::KeySet;

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPlace {
    /// A file.
    File(PathBuf),
    /// An address, and who signs its certificate where that is not somebody whom the system trusts.
    Url {
        /// `https`, or `http` on this machine.
        url: Url,
        /// PEM.
        ca: Option<PathBuf>,
    },
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
        }
    }
}

/// How long things may take and last.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After this, keys are asked for again.
    pub fresh: Duration,
    /// After this, keys that could not be asked for again are not believed any more.
    pub stale: Duration,
    /// The least time between two attempts because of a key that is not known, or after a failure.
    pub between: Duration,
    /// How long an answer may take.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(300),
            stale: Duration::from_secs(3_600),
            between: Duration::from_secs(10),
            patience: Duration::from_secs(3),
        }
    }
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no keys from {place}: {what}")]
pub struct KeysUnavailable {
    /// Where they should be.
    pub place: String,
    /// What is the matter.
    pub what: String,
}

/// The most bytes of a set of keys.
const LARGEST: u64 = 1 << 20;

/// All sets of keys. Outlives a change of the configuration, so that what is known stays known.
#[derive(Debug, Default)]
pub struct KeySources {
    timing: Timing,
    sources: Mutex<BTreeMap<KeyPlace, Arc<Source>>>,
}

#[derive(Debug, Default)]
struct Source {
    held: ArcSwapOption<Held>,
    /// Held while keys are asked for.
    asking: tokio::sync::Mutex<Asked>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    at: Instant,
}

#[derive(Debug, Default)]
struct Asked {
    /// When somebody asked last although the keys were fresh, or got no answer.
    at: Option<Instant>,
    trouble: Option<KeysUnavailable>,
}

impl KeySources {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self { timing, sources: Mutex::default() }
    }

    /// The keys at `place`, asked for anew if what is known is old or not `enough`.
    ///
    /// # Errors
    /// When there are none, or only ones that are too old.
    pub async fn keys(
        &self,
        place: &KeyPlace,
        enough: impl Fn(&KeySet) -> bool,
    ) -> Result<Arc<KeySet>, KeysUnavailable> {
        if let KeyPlace::File(_) = place {
            return read(place, self.timing.patience).await.map(Arc::new);
        }
        let source = Arc::clone(self.sources.lock().entry(place.clone()).or_default());
        let good = |held: &Held| held.at.elapsed() < self.timing.fresh && enough(&held.keys);
        let held = source.held.load_full();
        if let Some(held) = held.as_ref().filter(|held| good(held)) {
            return Ok(Arc::clone(&held.keys));
        }
        let bearable = held.filter(|held| held.at.elapsed() < self.timing.stale && enough(&held.keys));
        let mut asked = match (source.asking.try_lock(), bearable) {
            (Ok(asked), _) => asked,
            // Somebody asks already; an issuer that hangs shall not make everybody wait.
            (Err(_), Some(held)) => return Ok(Arc::clone(&held.keys)),
            (Err(_), None) => source.asking.lock().await,
        };
        let held = source.held.load_full();
        if let Some(held) = held.as_ref().filter(|held| good(held)) {
            return Ok(Arc::clone(&held.keys));
        }
        if asked.at.is_none_or(|at| at.elapsed() >= self.timing.between) {
            let was_fresh = held.is_some_and(|held| held.at.elapsed() < self.timing.fresh);
            let answer = read(place, self.timing.patience).await;
            asked.at = (was_fresh || answer.is_err()).then(Instant::now);
            match answer {
                Ok(keys) => {
                    info!(%place, keys = keys.len(), "keys read");
                    asked.trouble = None;
                    source.held.store(Some(Arc::new(Held { keys: Arc::new(keys), at: Instant::now() })));
                }
                Err(error) => {
                    warn!(%error, "keys not read");
                    asked.trouble = Some(error);
                }
            }
        }
        match source.held.load_full() {
            Some(held) if held.at.elapsed() < self.timing.stale => Ok(Arc::clone(&held.keys)),
            Some(_) | None => Err(asked.trouble.clone().unwrap_or_else(|| KeysUnavailable {
                place: place.to_string(),
                what: "those that are known are too old".to_owned(),
            })),
        }
    }
}

/// Reads a set of keys where it is.
async fn read(place: &KeyPlace, patience: Duration) -> Result<KeySet, KeysUnavailable> {
    let reading = {
        let place = place.clone();
        move || match &place {
            KeyPlace::File(path) => read_file(path),
            KeyPlace::Url { url, ca } => fetch(url, ca.as_deref(), patience),
        }
    };
    let bytes = tokio::task::spawn_blocking(reading).await.unwrap_or_else(|error| Err(error.to_string()));
    bytes
        .and_then(|bytes| KeySet::parse(&bytes).map_err(|what| format!("the answer {what}")))
        .map_err(|what| KeysUnavailable { place: place.to_string(), what })
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LARGEST {
        return Err("it is too large".to_owned());
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Whether a URL leads to this machine.
#[must_use]
pub fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn fetch(url: &Url, ca: Option<&Path>, patience: Duration) -> Result<Vec<u8>, String> {
    let roots: Vec<Certificate<'static>> = match ca {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            ureq::tls::parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    Ok(_) | Err(_) => None,
                })
                .collect()
        }
        None if url.scheme() == "http" => Vec::new(),
        None => {
            let native = rustls_native_certs::load_native_certs().certs;
            native.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
        }
    };
    let mut config = ureq::Agent::config_builder()
        // Whoever is redirected to would decide who is let in.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .https_only(!is_local(url))
        .timeout_global(Some(patience))
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build());
    if is_local(url) {
        config = config.proxy(None);
    }
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.get(url.as_str()).call().map_err(|error| error.to_string())?;
    if answer.status() != 200 {
        return Err(format!("the answer has status {}", answer.status()));
    }
    answer.body_mut().with_config().limit(LARGEST).read_to_vec().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A web server that answers whatever it was last told to.
    struct Issuer {
        url: Url,
        answer: Arc<Mutex<String>>,
        asked: Arc<AtomicUsize>,
    }

    fn set(keys: &[&str]) -> String {
        let keys: Vec<String> = keys
            .iter()
            .map(|id| {
                format!(
                    "{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{id}\",\"x\":\"{}\"}}",
                    "A".repeat(43)
                )
            })
            .collect();
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    impl Issuer {
        fn start(keys: &[&str]) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
            let answer = Arc::new(Mutex::new(ok(&set(keys))));
            let asked = Arc::new(AtomicUsize::new(0));
            let (told, counted) = (Arc::clone(&answer), Arc::clone(&asked));
            // Ends with the test's process.
            std::thread::spawn(move || {
                for socket in listener.incoming() {
                    let mut socket = socket.unwrap();
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answer = told.lock().clone();
                    std::thread::spawn(move || {
                        let _ = socket.read(&mut [0; 4096]);
                        if answer.is_empty() {
                            std::thread::sleep(Duration::from_secs(30));
                        }
                        let _ = socket.write_all(answer.as_bytes());
                    });
                }
            });
            Self { url, answer, asked }
        }

        fn tell(&self, answer: String) {
            *self.answer.lock() = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        fn place(&self) -> KeyPlace {
            KeyPlace::Url { url: self.url.clone(), ca: None }
        }
    }

    fn timing(fresh: u64, stale: u64, between: u64) -> Timing {
        let ms = Duration::from_millis;
        Timing { fresh: ms(fresh), stale: ms(stale), between: ms(between), patience: ms(2_000) }
    }

    #[tokio::test]
    async fn keys_are_asked_for_once_and_again_when_a_new_one_is_named() {
        let issuer = Issuer::start(&["a"]);
        let sources = KeySources::new(timing(60_000, 60_000, 60_000));
        let place = issuer.place();
        let keys = |count: usize| sources.keys(&place, move |keys| keys.len() >= count);

        for _ in 0..5 {
            assert_eq!(keys(1).await.unwrap().len(), 1);
        }
        assert_eq!(issuer.asked(), 1);

        issuer.tell(ok(&set(&["a", "b"])));
        assert_eq!(keys(2).await.unwrap().len(), 2, "rotated");
        assert_eq!(issuer.asked(), 2);

        // Names that are made up do not become a flood of questions.
        for _ in 0..5 {
            assert_eq!(keys(3).await.unwrap().len(), 2);
        }
        assert_eq!(issuer.asked(), 2);
    }

    #[tokio::test]
    async fn while_the_issuer_is_away_known_keys_count_for_a_while() {
        let issuer = Issuer::start(&["a"]);
        let sources = KeySources::new(timing(50, 4_000, 10));
        let place = issuer.place();
        let keys = || sources.keys(&place, |keys| !keys.is_empty());
        assert!(keys().await.is_ok());

        for away in
            ["HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(), ok("<html>")]
        {
            issuer.tell(away);
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert!(keys().await.is_ok(), "still believed");
        }
        assert!(issuer.asked() >= 3, "it was asked again");

        tokio::time::sleep(Duration::from_millis(4_000)).await;
        assert!(keys().await.unwrap_err().to_string().contains("the answer is no JSON"));

        issuer.tell(ok(&set(&["b"])));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(keys().await.is_ok(), "back again");
    }

    #[tokio::test]
    async fn an_issuer_that_hangs_makes_nobody_wait_who_need_not() {
        let issuer = Issuer::start(&["a"]);
        let sources = Arc::new(KeySources::new(timing(50, 60_000, 10)));
        let place = issuer.place();
        sources.keys(&place, |_| true).await.unwrap();
        issuer.tell(String::new());
        tokio::time::sleep(Duration::from_millis(60)).await;

        let asking = tokio::spawn({
            let (sources, place) = (Arc::clone(&sources), place.clone());
            async move { sources.keys(&place, |_| true).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(sources.keys(&place, |_| true).await.is_ok());
        assert!(!asking.is_finished(), "nobody waits for the one who asks");
        assert!(asking.await.unwrap(), "the one who asked got what is known, after its patience");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_no_keys() {
        let issuer = Issuer::start(&[]);
        let elsewhere = Issuer::start(&["evil"]);
        let redirect = format!(
            "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            elsewhere.url
        );
        let huge = ok(&format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(2 << 20)));
        for answer in [redirect, huge, ok("{}"), "garbage".to_owned(), String::new()] {
            issuer.tell(answer);
            let sources = KeySources::new(timing(60_000, 60_000, 60_000));
            assert!(sources.keys(&issuer.place(), |_| true).await.is_err());
            // Not asked again at once, and no less refused.
            let asked = issuer.asked();
            assert!(sources.keys(&issuer.place(), |_| true).await.is_err());
            assert_eq!(issuer.asked(), asked);
        }
        assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
        let nobody = KeyPlace::Url { url: "http://127.0.0.1:1/".parse().unwrap(), ca: None };
        assert!(KeySources::default().keys(&nobody, |_| true).await.is_err());
    }

    #[tokio::test]
    async fn a_file_counts_as_it_is_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sources = KeySources::default();
        let place = KeyPlace::File(file.path().to_owned());
        let count = async || sources.keys(&place, |_| true).await.map(|keys| keys.len()).ok();

        assert_eq!(count().await, None);
        std::fs::write(file.path(), set(&["a"])).unwrap();
        assert_eq!(count().await, Some(1));
        std::fs::write(file.path(), set(&["a", "b"])).unwrap();
        assert_eq!(count().await, Some(2));
        std::fs::remove_file(file.path()).unwrap();
        assert_eq!(count().await, None);
    }
}
