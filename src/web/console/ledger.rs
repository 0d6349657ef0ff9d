//! The record: searching it, one entry with its proof, and whether it verifies.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use tracing::{info, warn};

use super::page::{Answer, Frame, Place, Posted, Problem, SignedIn, render};
use super::request::Time;
use super::words::number;
use crate::actor::ReviewerId;
use crate::classify::StatementClass;
use crate::web::api::Search;
use crate::web::views::{LedgerEntry, LedgerPage, LedgerProof, LedgerStatus, LedgerVerified};
use crate::web::{Web, off_thread};

/// The last verification that was asked for here.
#[derive(Clone, Default)]
pub(in crate::web) struct Verification(Arc<Mutex<Run>>);

#[derive(Clone, Default)]
enum Run {
    #[default]
    Never,
    Running {
        since: Timestamp,
        by: ReviewerId,
    },
    Done {
        at: Timestamp,
        by: ReviewerId,
        found: Result<LedgerVerified, String>,
    },
}

#[derive(Template)]
#[template(path = "ledger.html")]
struct SearchPage {
    frame: Frame,
    status: LedgerStatus,
    head: Head,
    search: Fields,
    kinds: &'static [&'static str],
    classes: Vec<&'static str>,
    rows: Vec<Row>,
    /// Where the next page is.
    next: Option<String>,
    /// Why nothing can be shown.
    trouble: Option<String>,
    verification: VerificationView,
}

/// The tree head, in words.
struct Head {
    size: String,
    root: String,
    anchors: Vec<(String, String, String)>,
}

struct Row {
    seq: u64,
    at: String,
    kind: String,
    agent: String,
    class: String,
    request: String,
    summary: String,
    outcome: String,
}

/// What the search form shows.
#[derive(Default)]
struct Fields {
    kind: String,
    agent: String,
    class: String,
    request: String,
    session: String,
    text: String,
    is_narrowed: bool,
}

#[derive(Default)]
struct VerificationView {
    running: Option<String>,
    done: Option<VerifiedView>,
}

struct VerifiedView {
    good: bool,
    code: u8,
    summary: String,
    at: Time,
    by: String,
    findings: Vec<String>,
}

/// The kinds of entry that people look for.
const KINDS: &[&str] = &[
    "statement",
    "decision",
    "request_opened",
    "review",
    "hold_ended",
    "session_opened",
    "session_closed",
    "policy_loaded",
    "config_changed",
    "key_epoch",
    "anchored",
    "degraded",
    "resumed",
    "export",
];

pub(super) async fn page(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Query(asked): Query<Search>,
) -> Answer {
    let fields = Fields {
        kind: asked.kind.clone().unwrap_or_default(),
        agent: asked.agent.clone().unwrap_or_default(),
        class: asked.class.clone().unwrap_or_default(),
        request: asked.request.clone().unwrap_or_default(),
        session: asked.session.clone().unwrap_or_default(),
        text: asked.text.clone().unwrap_or_default(),
        is_narrowed: false,
    };
    let fields = Fields { is_narrowed: fields.is_narrowed(), ..fields };
    let search = asked.meant()?;
    let ledger = web.0.views.ledger.clone();
    let by = browser.who.reviewer().id.clone();
    let (status, found) = off_thread(move || (ledger.status(), ledger.search(&search, &by)))
        .await
        .ok_or_else(Problem::internal)?;
    let (found, trouble) = match found {
        Ok(found) => (found, None),
        Err(error) => (LedgerPage::default(), Some(error.to_string())),
    };
    let now = web.now();
    let page = SearchPage {
        frame: Frame::new(&web, &browser, Place::Ledger, "Ledger"),
        head: head(&status, now),
        next: found.next.map(|before| browser.at(&fields.link(before))),
        search: fields,
        kinds: KINDS,
        classes: StatementClass::ALL.iter().map(|class| class.as_str()).collect(),
        rows: found.entries.into_iter().map(row).collect(),
        verification: web.0.verification.view(now),
        status,
        trouble,
    };
    Ok(render(StatusCode::OK, &page))
}

fn head(status: &LedgerStatus, now: Timestamp) -> Head {
    Head {
        size: number(status.size),
        root: status.root.map(|root| root.to_string()).unwrap_or_default(),
        anchors: status
            .anchors
            .iter()
            .map(|anchor| {
                let at = anchor.at.map(|at| super::words::relative(at, now)).unwrap_or_default();
                (anchor.name.clone(), number(anchor.size), at)
            })
            .collect(),
    }
}

fn row(row: crate::web::views::LedgerRow) -> Row {
    Row {
        seq: row.seq,
        at: super::words::moment(row.at),
        kind: row.kind,
        agent: row.agent.map(|agent| agent.to_string()).unwrap_or_default(),
        class: row.class.unwrap_or_default(),
        request: row.request.unwrap_or_default(),
        summary: row.summary.to_string(),
        outcome: row.outcome.map(|outcome| outcome.to_string()).unwrap_or_default(),
    }
}

impl Fields {
    fn named(&self) -> [(&'static str, &str); 6] {
        [
            ("kind", &self.kind),
            ("agent", &self.agent),
            ("class", &self.class),
            ("request", &self.request),
            ("session", &self.session),
            ("text", &self.text),
        ]
    }

    fn is_narrowed(&self) -> bool {
        self.named().iter().any(|(_, value)| !value.is_empty())
    }

    /// The address of the page that goes on before entry `before`.
    fn link(&self, before: u64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.named() {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("before", &before.to_string());
        format!("/ledger?{}", query.finish())
    }
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage {
    frame: Frame,
    entry: LedgerEntry,
    at: String,
    proof: Option<LedgerProof>,
    proof_size: String,
}

pub(super) async fn entry(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Path(seq): Path<String>,
) -> Answer {
    let seq: u64 = seq.parse().map_err(|_| no_such_entry())?;
    let ledger = web.0.views.ledger.clone();
    let by = browser.who.reviewer().id.clone();
    let found = off_thread(move || (ledger.entry(seq, &by), ledger.proof(seq, &by)));
    let (entry, proof) = found.await.ok_or_else(Problem::internal)?;
    let entry = entry?.ok_or_else(no_such_entry)?;
    let proof = proof.unwrap_or_default();
    let page = EntryPage {
        frame: Frame::new(&web, &browser, Place::Ledger, format!("Entry {seq}")),
        at: super::words::moment(entry.at),
        entry,
        proof_size: proof.as_ref().map(|proof| number(proof.size)).unwrap_or_default(),
        proof,
    };
    Ok(render(StatusCode::OK, &page))
}

/// The proof as a file that verifiers read.
pub(super) async fn proof(
    State(web): State<Web>,
    SignedIn(browser): SignedIn,
    Path(seq): Path<String>,
) -> Answer {
    let seq: u64 = seq.parse().map_err(|_| no_such_entry())?;
    let ledger = web.0.views.ledger.clone();
    let by = browser.who.reviewer().id.clone();
    let found = off_thread(move || ledger.proof(seq, &by)).await.ok_or_else(Problem::internal)?;
    let proof = found?.ok_or_else(no_such_entry)?;
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{seq}.tlog-proof\"")),
    ];
    Ok((headers, proof.text).into_response())
}

fn no_such_entry() -> Problem {
    let advice = "Entries are numbered from 0. The newest may take a moment to be under a checkpoint.";
    Problem::not_found("There is no such entry.", advice)
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// Starts verifying, unless that is going on.
pub(super) async fn verify(State(web): State<Web>, Posted(browser, Nothing {}): Posted<Nothing>) -> Answer {
    let by = browser.who.reviewer().id.clone();
    if web.0.verification.begin(&by, web.now()) {
        let web = web.clone();
        tokio::spawn(async move {
            let ledger = web.0.views.ledger.clone();
            let who = by.clone();
            let found = off_thread(move || ledger.verify(&who)).await;
            let found = match found {
                Some(Ok(verified)) => Ok(verified),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("verifying broke; the server's log says why".to_owned()),
            };
            match &found {
                Ok(verified) => info!(code = verified.code, entries = verified.entries, "ledger verified"),
                Err(error) => warn!(%error, "ledger could not be verified"),
            }
            *web.0.verification.0.lock() = Run::Done { at: web.now(), by, found };
        });
    }
    Ok(Redirect::to(&browser.at("/ledger")).into_response())
}

impl Verification {
    /// Notes that somebody verifies; `false` when somebody does already.
    fn begin(&self, by: &ReviewerId, now: Timestamp) -> bool {
        let mut run = self.0.lock();
        if matches!(*run, Run::Running { .. }) {
            return false;
        }
        *run = Run::Running { since: now, by: by.clone() };
        true
    }

    fn view(&self, now: Timestamp) -> VerificationView {
        match self.0.lock().clone() {
            Run::Never => VerificationView::default(),
            Run::Running { since, by } => {
                let since = super::words::relative(since, now);
                VerificationView { running: Some(format!("started {since} by {by}")), done: None }
            }
            Run::Done { at, by, found } => {
                let (good, code, summary, findings) = match found {
                    Ok(found) => (found.code <= 1, found.code, found.summary, found.findings),
                    Err(error) => (false, 2, error, Vec::new()),
                };
                let done = VerifiedView {
                    good,
                    code,
                    summary,
                    findings,
                    at: Time::new(at, now),
                    by: by.to_string(),
                };
                VerificationView { running: None, done: Some(done) }
            }
        }
    }
}
