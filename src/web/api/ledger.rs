//! The record, for reading.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{ApiError, Asked};
use crate::web::caller::Person;
use crate::web::views::{LedgerEntry, LedgerPage, LedgerSearch, LedgerStatus};
use crate::web::{Web, off_thread};

/// How many entries a page has when nobody says, and at most.
const USUAL: usize = 50;
const MOST: usize = 500;

/// What may stand behind `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::web) struct Search {
    pub(in crate::web) kind: Option<String>,
    pub(in crate::web) agent: Option<String>,
    pub(in crate::web) class: Option<String>,
    pub(in crate::web) request: Option<String>,
    pub(in crate::web) session: Option<String>,
    pub(in crate::web) text: Option<String>,
    pub(in crate::web) before: Option<String>,
    pub(in crate::web) limit: Option<String>,
}

impl Search {
    /// The search that is meant. A field that a form leaves empty asks for nothing.
    pub(in crate::web) fn meant(self) -> Result<LedgerSearch, ApiError> {
        let word =
            |field: Option<String>| field.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let number = |field: Option<String>, what: &str| match word(field) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ApiError::malformed(&format!("`{what}` is not a number"))),
            },
        };
        let limit = number(self.limit, "limit")?.and_then(|limit| usize::try_from(limit).ok());
        Ok(LedgerSearch {
            kind: word(self.kind),
            agent: word(self.agent),
            class: word(self.class),
            request: word(self.request),
            session: word(self.session),
            text: word(self.text),
            before: number(self.before, "before")?,
            limit: limit.unwrap_or(USUAL).clamp(1, MOST),
        })
    }
}

pub(super) async fn status(State(web): State<Web>, _: Person) -> Result<Json<LedgerStatus>, ApiError> {
    let ledger = web.0.views.ledger.clone();
    off_thread(move || ledger.status()).await.map(Json).ok_or_else(ApiError::internal)
}

pub(super) async fn search(
    State(web): State<Web>,
    Person(by): Person,
    Asked(search): Asked<Search>,
) -> Result<Json<LedgerPage>, ApiError> {
    let search = search.meant()?;
    let ledger = web.0.views.ledger.clone();
    let found = off_thread(move || ledger.search(&search, &by.reviewer().id)).await;
    Ok(Json(found.ok_or_else(ApiError::internal)??))
}

pub(super) async fn entry(
    State(web): State<Web>,
    Person(by): Person,
    Path(seq): Path<String>,
) -> Result<Json<LedgerEntry>, ApiError> {
    let seq = number(&seq)?;
    let ledger = web.0.views.ledger.clone();
    let found =
        off_thread(move || ledger.entry(seq, &by.reviewer().id)).await.ok_or_else(ApiError::internal)??;
    found.map(Json).ok_or_else(no_such_entry)
}

/// The proof as JSON, or as the text that verifiers read when that is what is accepted.
pub(super) async fn proof(
    State(web): State<Web>,
    Person(by): Person,
    Path(seq): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let seq = number(&seq)?;
    let ledger = web.0.views.ledger.clone();
    let found =
        off_thread(move || ledger.proof(seq, &by.reviewer().id)).await.ok_or_else(ApiError::internal)??;
    let proof = found.ok_or_else(no_such_entry)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.starts_with("text/plain") {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], proof.text).into_response());
    }
    Ok(Json(proof).into_response())
}

fn number(seq: &str) -> Result<u64, ApiError> {
    seq.parse().map_err(|_| ApiError::malformed("an entry is named by its number"))
}

fn no_such_entry() -> ApiError {
    let hint = "Entries are numbered from 0; a proof exists once a checkpoint covers the entry.";
    ApiError::unknown("unknown_entry", "no such entry, or no checkpoint covers it yet", hint)
}
