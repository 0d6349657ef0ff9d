//! The command line as a client of the API.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::{Host, Url};

use super::terminal;
use super::terminal::plain;

/// Where the API is.
#[derive(Args, Clone, Debug)]
pub(super) struct Server {
    /// The URL of the console and its API
    #[arg(
        long,
        env = "COUNTERSIGN_URL",
        default_value = "http://127.0.0.1:6480",
        value_name = "URL",
        global = true
    )]
    url: Url,
    /// PEM file with the console's certificate authority, if the system does not trust it
    #[arg(long, env = "COUNTERSIGN_CA", value_name = "FILE", global = true)]
    ca: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The API, with somebody's credentials.
pub(super) struct Api {
    agent: ureq::Agent,
    base: Url,
    authorization: String,
}

/// The variable that has the personal token. There is no option for it: other users of a machine
/// can read a process's arguments.
const TOKEN: &str = "COUNTERSIGN_TOKEN";

/// How long the API may take to answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a stream of events may be silent; the server says something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// How many items are asked for at a time.
const PAGE: usize = 1000;
const PAGE_TEXT: &str = "1000";

/// An answer of the API.
pub(super) enum Told {
    /// What was asked for.
    Yes(Value),
    /// Why not.
    No(No),
}

/// What became of listening.
pub(super) enum Listened {
    /// Whoever listened has heard enough.
    Enough,
    /// The stream ended: the server is gone, or the caller may not listen any more.
    BrokeOff,
    /// The API does not let the caller listen.
    Refused(No),
}

/// Why the API does not do what was asked.
#[derive(Clone, Debug)]
pub(super) struct No {
    pub(super) word: String,
    pub(super) message: String,
    pub(super) hint: String,
    pub(super) body: Value,
}

impl Server {
    /// The API, with the credentials in the environment.
    pub(super) fn connect(&self) -> anyhow::Result<Api> {
        let token = std::env::var(TOKEN).unwrap_or_default();
        let token = token.trim();
        if token.is_empty() {
            bail!("{TOKEN} is not set: it must have your personal token (csr_..)");
        }
        let is_local = match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match self.url.scheme() {
            "https" => {}
            "http" if is_local => {}
            "http" => terminal::complain(&format!(
                "countersign: warning: the token is sent to {} without encryption",
                self.url
            )),
            other => bail!("{other}: is not http or https"),
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would take the token elsewhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(SILENCE));
        if is_local {
            config = config.proxy(None);
        }
        if let Some(path) = &self.ca {
            let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
            let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            });
            let certificates: Vec<Certificate<'static>> =
                certificates.collect::<Result<_, _>>().with_context(|| path.display().to_string())?;
            let roots = RootCerts::new_with_certs(&certificates);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let base = self.url.join("/api/v1/").context("not an address of a console")?;
        Ok(Api { agent: config.build().into(), base, authorization: format!("Bearer {token}") })
    }
}

impl Api {
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            // What somebody typed is one segment, whatever is in it.
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => bail!("not an address of a console"),
        };
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Asks for something.
    pub(super) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Told> {
        let url = self.url(path, query)?;
        let answer = self.agent.get(url.as_str()).header("authorization", &self.authorization).call();
        self.told(answer)
    }

    /// Asks for a list, page by page, until it is complete or has `most` items. An item that is on two
    /// pages, because it changed in between, is kept once.
    pub(super) fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        most: Option<usize>,
    ) -> anyhow::Result<Told> {
        let mut items: Vec<Value> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            let left = most.map(|most| most.saturating_sub(items.len()).min(PAGE).to_string());
            query.extend(left.as_deref().map(|left| ("limit", left)));
            if let Some(cursor) = &cursor {
                if left.is_none() {
                    query.push(("limit", PAGE_TEXT));
                }
                query.push(("cursor", cursor));
            }
            let url = self.url(path, &query)?;
            let answer = self.agent.get(url.as_str()).header("authorization", &self.authorization).call();
            let next = answer.as_ref().ok().and_then(|answer| next_cursor(&url, answer.headers()));
            let page = match self.told(answer)? {
                Told::Yes(Value::Array(page)) => page,
                Told::Yes(_) => bail!("{} answered with no list", self.base),
                no @ Told::No(_) => return Ok(no),
            };
            let before = items.len();
            items.extend(page.into_iter().filter(|item| seen.insert(text(item, "id").to_owned())));
            if let Some(most) = most {
                items.truncate(most);
            }
            let is_full = most.is_some_and(|most| items.len() >= most);
            match next {
                // A page with nothing new would be asked for again and again.
                Some(next) if !is_full && cursor.as_ref() != Some(&next) && items.len() > before => {
                    cursor = Some(next);
                }
                Some(_) | None => return Ok(Told::Yes(Value::Array(items))),
            }
        }
    }

    /// Does something.
    pub(super) fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Told> {
        let url = self.url(path, &[])?;
        let request = self.agent.post(url.as_str()).header("authorization", &self.authorization);
        self.told(request.send_json(body))
    }

    fn told(&self, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Told> {
        let mut answer = answer.with_context(|| format!("cannot reach {}", self.base))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(256 << 20).read_to_string()?;
        let body: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} answered {status} and no JSON: is it a console?", self.base))?;
        if status.is_success() {
            return Ok(Told::Yes(body));
        }
        let word = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Told::No(No { word: word("error"), message: word("message"), hint: word("hint"), body }))
    }

    /// Listens: `hear` gets each event's kind and data, and says whether to go on.
    pub(super) fn listen(
        &self,
        query: &[(&str, &str)],
        hear: &mut dyn FnMut(&str, Value) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Listened> {
        let url = self.url(&["events"], query)?;
        let request = self.agent.get(url.as_str()).header("authorization", &self.authorization);
        let answer = request.call().with_context(|| format!("cannot reach {}", self.base))?;
        if !answer.status().is_success() {
            // Too many streams, a server that is overloaded: that passes.
            let may_pass = answer.status().is_server_error() || answer.status().as_u16() == 429;
            match self.told(Ok(answer))? {
                Told::No(no) if may_pass => bail!("{}", plain(&no.message)),
                Told::No(no) => return Ok(Listened::Refused(no)),
                Told::Yes(_) => bail!("{} does not tell events", self.base),
            }
        }
        let mut kind = String::new();
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let Ok(line) = line else { return Ok(Listened::BrokeOff) };
            if let Some(word) = line.strip_prefix("event:") {
                kind = word.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                let data = serde_json::from_str(data).context("an event that is no JSON")?;
                if !hear(&std::mem::take(&mut kind), data)? {
                    return Ok(Listened::Enough);
                }
            }
        }
        Ok(Listened::BrokeOff)
    }
}

/// Where the next page of a list begins: the `cursor` of the `Link` to it (RFC 8288).
fn next_cursor(asked: &Url, headers: &http::HeaderMap) -> Option<String> {
    let links = headers.get_all(http::header::LINK).into_iter().filter_map(|link| link.to_str().ok());
    let next = links
        .flat_map(|links| links.split(", "))
        .find(|link| link.split(';').skip(1).any(|parameter| parameter.trim() == "rel=\"next\""))?;
    let target = next.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
    let url = asked.join(target).ok()?;
    url.query_pairs().find(|(name, _)| name == "cursor").map(|(_, value)| value.into_owned())
}

/// Says why not, and gives the exit code for it: 3 too late, 4 this person may not, 5 unknown, 6 not
/// acceptable as it is, 2 for everything else.
pub(super) fn refuse(no: &No, json: bool) -> ExitCode {
    if json {
        terminal::say_json(&no.body);
    } else {
        terminal::complain(&format!("countersign: {}", no.message));
        if !no.hint.is_empty() {
            terminal::complain(&no.hint);
        }
    }
    ExitCode::from(match no.word.as_str() {
        "too_late" => 3,
        "not_allowed" | "not_yet" | "not_enrolled" | "assurance_too_low" | "agent_credential" => 4,
        "unknown_request" | "unknown_session" => 5,
        "digest_mismatch" | "already_answered" | "no_further_step" | "reason_required"
        | "reason_too_long" => 6,
        _ => 2,
    })
}

/// A field of a JSON object as text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
