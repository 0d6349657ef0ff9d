//! The ledger of a running proxy, as the web side reads it: from its file, as an auditor would.
//!
//! Whoever looks is recorded. The same question by the same person within a minute is one look, or a
//! page that somebody reloads would fill the ledger with itself.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::warn;

use super::views::{
    AnchorStatus, LedgerEntry, LedgerField, LedgerPage, LedgerProof, LedgerRow, LedgerSearch, LedgerStatus,
    LedgerText, LedgerVerified, LedgerView, ViewError,
};
use crate::actor::ReviewerId;
use crate::approval::{Shown, parameter};
use crate::desk::Clock;
use crate::ledger::cbor::Value;
use crate::ledger::display::{claim_name, display};
use crate::ledger::entry::{Entry, Key, Shape};
use crate::ledger::read::{ReadError, Reader, Text, field_name};
use crate::ledger::search::{Hit, Search};
use crate::ledger::verify::{self, Options, Progress, Report};
use crate::ledger::{Event, Ledger, Settings};
use crate::statement::{Parameter, RequestId};

/// The ledger of this process.
pub struct Record {
    ledger: Ledger,
    path: PathBuf,
    /// The root's public key, to verify with.
    key: PathBuf,
    /// Head files: checkpoints that are kept elsewhere.
    heads: Vec<PathBuf>,
    origin: String,
    clock: Clock,
    /// Who asked what last, and when.
    asked: Mutex<Option<(ReviewerId, String, Timestamp)>>,
}

/// How long to wait for the newest entries to reach the file.
const MOMENT: Duration = Duration::from_millis(300);
/// The same question within this many seconds is one look.
const ONE_LOOK: i64 = 60;
/// As much of a text as a list shows, in characters.
const SUMMARY: usize = 300;
/// And in lines.
const LINES: usize = 3;

impl Record {
    /// The open `ledger`, whose settings are `settings`.
    #[must_use]
    pub fn new(ledger: Ledger, settings: &Settings, clock: Clock) -> Self {
        // The first entry may still be on its way into the file.
        let _ = ledger.flush(MOMENT);
        let origin = Reader::open(&settings.path).and_then(|reader| reader.origin()).unwrap_or_default();
        Self {
            ledger,
            path: settings.path.clone(),
            key: settings.key_files().public,
            heads: settings.heads.clone(),
            origin,
            clock,
            asked: Mutex::default(),
        }
    }

    fn reader(&self) -> Result<Reader, ViewError> {
        let _ = self.ledger.flush(MOMENT);
        Reader::open(&self.path).map_err(unreadable)
    }

    /// Writes down who looks at what. A ledger that cannot write can still be read: that is when
    /// somebody has to.
    fn look(&self, by: &ReviewerId, what: String, entry: Option<u64>) {
        let now = self.clock.now();
        {
            let mut asked = self.asked.lock();
            let is_same = asked.as_ref().is_some_and(|(who, question, when)| {
                who == by && *question == what && now.duration_since(*when).as_secs() < ONE_LOOK
            });
            if is_same {
                return;
            }
            *asked = Some((by.clone(), what.clone(), now));
        }
        let event = Event::Export { by: by.to_string(), what, from: entry, to: entry };
        if let Err(error) = self.ledger.append(event) {
            warn!(%error, reviewer = %by, "a look at the ledger is not in the ledger");
        }
    }
}

fn unreadable(error: ReadError) -> ViewError {
    ViewError::Unavailable(format!("the ledger cannot be read: {error}"))
}

impl LedgerView for Record {
    fn status(&self) -> LedgerStatus {
        let status = self.ledger.status();
        let trouble = status.trouble.as_ref().map(|trouble| trouble.reason.clone());
        let name = match self.heads.first().and_then(|path| path.file_name()) {
            Some(name) => format!("file:{}", name.to_string_lossy()),
            None => "none".to_owned(),
        };
        LedgerStatus {
            writable: status.is_healthy(),
            trouble: trouble.or(status.anchor_trouble),
            origin: self.origin.clone(),
            size: status.head.map_or(0, |head| head.size),
            root: status.head.map(|head| head.root),
            backlog_bytes: status.backlog_bytes,
            anchors: status
                .anchored
                .map(|head| AnchorStatus { name, size: head.size, at: None })
                .into_iter()
                .collect(),
        }
    }

    fn search(&self, search: &LedgerSearch, by: &ReviewerId) -> Result<LedgerPage, ViewError> {
        self.look(by, format!("console: search{}", in_words(search)), None);
        let found = Search {
            kind: search.kind.clone(),
            agent: search.agent.clone(),
            class: search.class.clone(),
            request: search.request.clone(),
            session: search.session.clone(),
            contains: search.text.clone(),
            before: search.before,
            limit: search.limit,
        };
        let hits = self.reader()?.search(&found).map_err(unreadable)?;
        let next = (hits.len() == search.limit).then(|| hits.last().map(|hit| hit.seq)).flatten();
        Ok(LedgerPage { entries: hits.iter().map(row).collect(), next })
    }

    fn entry(&self, seq: u64, by: &ReviewerId) -> Result<Option<LedgerEntry>, ViewError> {
        self.look(by, "console: entry".to_owned() + &format!(" {seq}"), Some(seq));
        let reader = self.reader()?;
        let stored = match reader.entry(seq) {
            Ok(stored) => stored,
            Err(ReadError::NoEntry(_)) => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let entry = stored.entry().map_err(|error| unreadable(ReadError::Altered(seq, error)))?;
        let mut texts = Vec::new();
        for (key, _) in entry.commitments() {
            let text = reader.text(&entry, key).map_err(unreadable)?;
            texts.extend(texts_of(key, text));
        }
        let wall = entry.uint(Key::Wall).unwrap_or_default();
        Ok(Some(LedgerEntry {
            seq,
            at: Timestamp::from_nanosecond(i128::from(wall)).unwrap_or_default(),
            kind: entry.kind().name().to_owned(),
            leaf: stored.leaf(),
            body: hex::encode(&stored.body),
            signature: stored.signature.as_ref().map(hex::encode),
            fields: fields(&entry),
            texts,
        }))
    }

    fn proof(&self, seq: u64, by: &ReviewerId) -> Result<Option<LedgerProof>, ViewError> {
        self.look(by, format!("console: entry {seq}"), Some(seq));
        let reader = self.reader()?;
        let size = reader.checkpoint().map_err(unreadable)?.checkpoint.head.size;
        if seq >= size {
            return Ok(None);
        }
        let proof = reader.proof(seq).map_err(unreadable)?;
        let head = proof.note.checkpoint.head;
        let text = proof.to_text();
        Ok(Some(LedgerProof { seq, size: head.size, root: head.root, path: proof.path, text }))
    }

    fn verify(&self, by: &ReviewerId) -> Result<LedgerVerified, ViewError> {
        self.look(by, "console: verify".to_owned(), None);
        let options = Options {
            path: self.path.clone(),
            key: self.key.exists().then(|| self.key.clone()),
            anchors: self.heads.iter().filter(|head| head.exists()).cloned().collect(),
        };
        let report = verify::verify(&options, &Progress::default());
        report.map(|report| verified(&report)).map_err(|error| ViewError::Unavailable(error.to_string()))
    }
}

/// A search, for the record.
fn in_words(search: &LedgerSearch) -> String {
    // An entry is for good, and who looks for a secret must not write it down in one.
    let text = search.text.as_ref().map(|text| format!("({} characters)", text.chars().count()));
    let given = [
        ("kind", &search.kind),
        ("agent", &search.agent),
        ("class", &search.class),
        ("request", &search.request),
        ("session", &search.session),
        ("text", &text),
    ];
    given.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!(" {name}={value}"))).collect()
}

fn row(hit: &Hit) -> LedgerRow {
    let request = hit.request.as_deref().and_then(|uuid| uuid::Uuid::try_parse(uuid).ok());
    let what = hit.what.as_deref().unwrap_or("(redacted)");
    // Cut before it is made visible: a list must not read megabytes to show three lines.
    let cut = what.char_indices().nth(SUMMARY).map_or(what.len(), |(at, _)| at);
    let lines: Vec<&str> = what.get(..cut).unwrap_or(what).lines().collect();
    let kept = lines.get(..lines.len().min(LINES)).unwrap_or_default().join("\n");
    let is_all = cut == what.len() && lines.len() <= LINES;
    let summary = if is_all { kept } else { format!("{kept} …") };
    LedgerRow {
        seq: hit.seq,
        at: format!("{}Z", hit.time.replace(' ', "T")).parse().unwrap_or_default(),
        kind: hit.kind.clone(),
        agent: hit.agent.as_deref().map(Shown::line),
        class: hit.class.clone(),
        request: request.map(|uuid| RequestId(uuid).code()),
        summary: Shown::of(&summary),
        outcome: hit.ended.as_deref().map(Shown::line),
    }
}

fn fields(entry: &Entry<'_>) -> Vec<LedgerField> {
    type Pair<'v> = (u64, Value<'v>);
    let claim = |name: &str, (number, value): &Pair<'_>| LedgerField {
        name: format!("{name}.{}", claim_name(*number)),
        value: Shown::line(value.as_text().unwrap_or_default()),
    };
    let field = |(number, value): &Pair<'_>| {
        let key = Key::from_number(*number);
        // Each claim under its own name: joined, one could pass for another.
        if let (Some(Shape::Claims), Value::Map(claims)) = (key.map(Key::shape), value) {
            let name = field_name(*number);
            return claims.iter().map(|pair| claim(&name, pair)).collect();
        }
        let text = match key {
            Some(key) => display(key, key.shape(), value),
            None => display(Key::What, Shape::Text, value),
        };
        vec![LedgerField { name: field_name(*number), value: Shown::line(&text) }]
    };
    // What the page says anyway.
    let is_head = |number: u64| [Key::V, Key::Kind, Key::Seq].into_iter().any(|key| u64::from(key) == number);
    entry.fields().iter().filter(|(number, _)| !is_head(*number)).flat_map(field).collect()
}

/// What an entry commits to under one field, as people can read it.
fn texts_of(key: Key, text: Text) -> Vec<LedgerText> {
    let is_damaged = text.is_damaged();
    let named = |name: &str, text| LedgerText { name: name.to_owned(), text, damaged: is_damaged };
    let Some(value) = text.kept() else { return vec![named(key.name(), None)] };
    let value = value.as_slice();
    if matches!(key, Key::Sql | Key::Reason | Key::Difference) {
        return vec![named(key.name(), Some(Shown::of_bytes(value)))];
    }
    match decoded(value).filter(|_| key == Key::Parameters) {
        Some(parameters) => {
            let shown = parameter::show(&parameters);
            shown.iter().map(|parameter| named("parameter", Some(parameter.to_line()))).collect()
        }
        None => vec![named(key.name(), Some(Shown::of(&hex::encode(value))))],
    }
}

/// Reads what [`Statement::encode_parameters`](crate::statement::Statement::encode_parameters) wrote.
fn decoded(mut bytes: &[u8]) -> Option<Vec<Parameter>> {
    fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
        let (taken, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(taken)
    }
    let count = u32::from_be_bytes(*take(&mut bytes)?);
    let mut parameters = Vec::new();
    for _ in 0..count {
        let format = i16::from_be_bytes(*take(&mut bytes)?);
        let type_oid = u32::from_be_bytes(*take(&mut bytes)?);
        let value = match take::<1>(&mut bytes)? {
            [0] => None,
            [_] => {
                let length = usize::try_from(u64::from_be_bytes(*take(&mut bytes)?)).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Some(value.to_vec().into())
            }
        };
        parameters.push(Parameter { format, type_oid, value });
    }
    bytes.is_empty().then_some(parameters)
}

fn verified(report: &Report) -> LedgerVerified {
    let counts = &report.counts;
    let reservations = report.reservations();
    let summary = match &report.problem {
        Some(problem) => format!("Not verified: {}", problem.code.as_str().replace('_', " ")),
        None if reservations.is_empty() => "Verified, and an anchor covers the last entry".to_owned(),
        None => "Verified as far as this machine can show".to_owned(),
    };
    let mut findings: Vec<String> = report.problem.iter().map(ToString::to_string).collect();
    if report.problem.is_none() {
        findings.extend(reservations.iter().map(ToString::to_string));
    }
    let damage = report.damage.iter();
    findings.extend(damage.map(|told| format!("entry {} ({}): {}", told.seq, told.kind.name(), told.what)));
    findings.push(format!(
        "{} entries, {} signatures on entries, {} checkpoints, {} epochs",
        counts.entries, counts.signatures, counts.checkpoints, counts.epochs
    ));
    findings.push(format!(
        "{} statements forwarded, {} of them on a grant; {} refused; {} answers counted",
        counts.statements, counts.grants, counts.refused, counts.reviews
    ));
    if let Some(root) = &report.root {
        findings.push(format!("root {root}, key {}", report.key.0));
    }
    LedgerVerified { code: report.exit_code(), summary, entries: counts.entries, findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Statement;

    #[test]
    fn parameters_are_read_as_they_were_written() {
        let parameters = [
            Parameter { format: 0, type_oid: 25, value: Some("O'Brien".into()) },
            Parameter { format: 1, type_oid: 23, value: Some(vec![0, 0, 0, 7].into()) },
            Parameter { format: 0, type_oid: 0, value: None },
        ];

        let encoded = Statement::encode_parameters(&parameters);

        assert_eq!(decoded(&encoded).as_deref(), Some(parameters.as_slice()));
        let shown =
            texts_of(Key::Parameters, Text::Kept(encoded.clone())).into_iter().map(|text| text.text.unwrap());
        let shown: Vec<String> = shown.map(|text| text.to_string()).collect();
        assert_eq!(shown, ["$1 (text) = O'Brien", "$2 (int4) = 7", "$3 (left to the server) = NULL"]);
        for cut in 0..encoded.len() {
            assert_eq!(decoded(&encoded[..cut]), None);
        }
    }
}
