//! The REST API, over HTTP, with a real desk behind it. Every answer is held against `openapi.json`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod callers;
mod events;
#[path = "../support/openapi.rs"]
mod openapi;
mod requests;
#[path = "../support/scenes.rs"]
mod scenes;
mod views;
#[path = "../support/web.rs"]
mod web;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use base64::Engine as _;
use countersign::approval::HoldState;
use countersign::desk::{Ending, Limits};
use countersign::identity::secret::SecretHash;
use countersign::identity::{AgentEntry, ReviewerEntry, ScramVerifier};
use countersign::ledger::Event;
use countersign::web::views::Activity;
use serde_json::{Value, json};
use web::{Site, SiteSetup};

const EXPORT: &str = "COPY customers TO STDOUT";

const DDL: &str = "ALTER TABLE orders ADD COLUMN note text";

struct Answer {
    status: u16,
    body: Value,
    headers: http::HeaderMap,
    text: String,
}

fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    config.timeout_global(Some(Duration::from_secs(30))).build().into()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

impl Site {
    fn send(&self, method: &str, path: &str, credentials: Option<&str>, body: Option<Value>) -> Answer {
        let path = format!("/api/v1{path}");
        let mut request = http::Request::builder().method(method).uri(self.at(&path));
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        let client = client();
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                client.run(request.body(body.to_string()).unwrap())
            }
            None => client.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let content_type = headers["content-type"].to_str().unwrap().to_owned();
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        openapi::check(method, &path, status, &content_type, &text);
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), headers, text }
    }

    fn get(&self, path: &str, who: &str) -> Answer {
        self.send("GET", path, Some(&bearer(&self.secrets[who])), None)
    }

    fn post(&self, path: &str, who: &str, body: Value) -> Answer {
        self.send("POST", path, Some(&bearer(&self.secrets[who])), Some(body))
    }
}

/// How an unauthenticated client holds a connection open: HTTP/2 without a request, HTTP/1 without an end, nothing.
const BEGINNINGS: [&[u8]; 4] = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"GET / HTTP/1.1\r\nhost: x\r\n",
    b"PRI * HT",
    b"",
];

struct Events(std::sync::mpsc::Receiver<(String, Value)>);

impl Events {
    fn next(&self) -> (String, Value) {
        self.0.recv_timeout(Duration::from_secs(10)).expect("an event")
    }
}

impl Site {
    /// The answer that was recorded last.
    fn review(&self) -> Box<countersign::ledger::ReviewRecord> {
        let records = self.recorded.records.lock();
        let found = records.iter().rev().find_map(|record| match record {
            Event::Review(review) => Some(review.clone()),
            _ => None,
        });
        found.expect("a review")
    }

    fn listen(&self, path: &str, credentials: &str) -> Events {
        let (sender, receiver) = std::sync::mpsc::channel();
        let config = ureq::Agent::config_builder().http_status_as_error(true).build();
        let client: ureq::Agent = config.into();
        let answer = client.get(self.at(path)).header("authorization", credentials).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let reader = BufReader::new(answer.into_body().into_reader());
        std::thread::spawn(move || {
            let mut kind = String::new();
            for line in reader.lines() {
                let Ok(line) = line else { return };
                if let Some(word) = line.strip_prefix("event: ") {
                    kind = word.to_owned();
                } else if let Some(data) = line.strip_prefix("data: ") {
                    let told = serde_json::from_str(data).unwrap();
                    if sender.send((std::mem::take(&mut kind), told)).is_err() {
                        return;
                    }
                }
            }
        });
        Events(receiver)
    }
}
