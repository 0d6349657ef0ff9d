//! What callers do with the ledger besides statements: events in, the switch that stops everything.
#![allow(clippy::disallowed_methods, reason = "waiting for other threads, within limits")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cbor::Fields;
use super::compose::{self, Hidden, Keep, Texts};
use super::entry::{Key, Kind};
use super::key::random;
use super::payload::{self, Payload};
use super::record::{Event, HoldEnd, ReviewRecord, SessionInfo};
use super::spool::SpoolError;
use super::spool::record as spooled;
use super::{LedgerError, MOST_POSTPONED, Shared, TreeHead, WaitingRequest, request_bytes};
use crate::actor::ReviewerId;
use crate::approval::{Request, Verdict};
use crate::statement::RequestId;

impl Shared {
    /// Whether anything may be recorded at all.
    pub(super) fn admit(&self) -> Result<(), LedgerError> {
        self.watch_the_writer();
        if self.health.is_degraded() {
            return Err(LedgerError::Unavailable { disk_full: self.health.turn_away() });
        }
        if self.stop.load(Ordering::Acquire) {
            return Err(LedgerError::Closed);
        }
        Ok(())
    }

    /// What is only in the spool is in the hands of whoever may write there. A writer that commits
    /// nothing for some seconds, because the file is locked, or the disk or the thread hangs, stops
    /// everything until it commits again.
    pub(super) fn watch_the_writer(&self) {
        let waited = self.spool.waited();
        if waited > self.settings.commit_within && !self.health.is_degraded() {
            let seconds = waited.as_secs();
            let reason = format!("nothing could be committed for {seconds} seconds: is the file locked?");
            self.degrade(&reason, false);
        }
    }

    /// A write failed: from now on nothing runs, until it works again.
    pub(super) fn failed(&self, error: SpoolError) -> LedgerError {
        if let SpoolError::TooLarge(bytes) = error {
            return LedgerError::TooLarge(bytes);
        }
        let disk_full = error.is_disk_full();
        self.degrade(&error.to_string(), disk_full);
        LedgerError::Unavailable { disk_full }
    }

    /// Spools a record of something that has happened already; `soon` where nothing depends on it.
    pub(super) fn append_or_postpone(&self, record: &mut [u8], soon: bool) {
        let length = record.len();
        if !self.health.is_degraded() {
            let appended = match soon {
                true => self.spool.append_soon(record),
                false => self.spool.append(record, &[length], None, false).map(drop),
            };
            match appended {
                Ok(()) => return,
                Err(error) => drop(self.failed(error)),
            }
        }
        let mut postponed = self.postponed.lock();
        // Beyond this the intents stay open, and the next start closes them as unknown.
        if postponed.len() < MOST_POSTPONED {
            postponed.push(record.to_vec());
        }
    }

    /// Records an event, durably.
    pub(super) fn append(&self, event: Event) -> Result<(), LedgerError> {
        self.admit()?;
        match event {
            Event::RequestOpened { request } => self.request_opened(&request),
            Event::Review(review) => self.review(&review),
            Event::HoldEnded { request, end, reason, by } => self.hold_ended(request, end, reason, by),
            Event::Escalated { request, group, by } => {
                let mut fields = Fields::new();
                if let Some(by) = &by {
                    fields.text(Key::Reviewer, by.as_str());
                }
                fields.text(Key::Group, group.as_str());
                self.event(Kind::RequestEscalated, Some(request), &fields, &[])
            }
            Event::PolicyLoaded { policy, what, by, difference, rules } => {
                let mut fields = Fields::new();
                fields.bytes(Key::Policy, policy.as_bytes()).text(Key::What, &what);
                put_by(&mut fields, by.as_deref());
                fields.uint(Key::Count, rules);
                self.event(Kind::PolicyLoaded, None, &fields, &difference_of(difference.as_deref()))
            }
            Event::ConfigChanged { what, by, digest, difference } => {
                let mut fields = Fields::new();
                fields.text(Key::What, &what);
                put_by(&mut fields, by.as_deref());
                if let Some(digest) = &digest {
                    fields.bytes(Key::Configuration, digest.as_bytes());
                }
                self.event(Kind::ConfigChanged, None, &fields, &difference_of(difference.as_deref()))
            }
            Event::Export { by, what, from, to } => {
                let mut fields = Fields::new();
                fields.text(Key::What, &what).text(Key::By, &by);
                if let Some(from) = from {
                    fields.uint(Key::From, from);
                }
                if let Some(to) = to {
                    fields.uint(Key::To, to);
                }
                self.event(Kind::Export, None, &fields, &[])
            }
            Event::Redaction { by, reason, fields: redacted } => {
                let mut fields = Fields::new();
                fields.text(Key::What, &reason).text(Key::By, &by);
                fields.nested(Key::Redacted, |writer| {
                    writer.array(redacted.len() as u64)?;
                    for (seq, field) in &redacted {
                        writer.array(2)?.u64(*seq)?.u64(*field)?;
                    }
                    Ok(())
                });
                self.event(Kind::Redaction, None, &fields, &[])
            }
        }
    }

    fn event(
        &self,
        kind: Kind,
        request: Option<RequestId>,
        fields: &Fields,
        payloads: &[Payload<'_>],
    ) -> Result<(), LedgerError> {
        let mut record = Vec::new();
        let request = request_bytes(request);
        spooled::entry(
            &mut record,
            kind,
            (false, true),
            &[0; 16],
            &request,
            fields,
            payloads.iter().cloned(),
        );
        let length = record.len();
        self.spool.append(&mut record, &[length], None, true).map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn request_opened(&self, request: &Request) -> Result<(), LedgerError> {
        let draft = &request.draft;
        let texts = Texts::of(&draft.statement, &draft.classification, Keep::Whole);
        let digest = request.digest;
        let (hidden, salt, covers) = match texts.rendition() {
            Some(_) => {
                let hidden = Hidden::new(&self.secret, random()?, digest);
                let covers = hidden.commitment;
                (Some(hidden), None, covers)
            }
            None => {
                let salt = random()?;
                (None, Some(salt), payload::commitment(Key::Digest, &salt, digest.as_bytes()))
            }
        };
        let mut fields = compose::session(&SessionInfo {
            session: draft.session,
            identity: draft.identity.clone(),
            target: draft.target.clone(),
            claimed: draft.claimed.clone(),
            at: request.opened_at,
        });
        fields.append(&compose::request(request, covers, hidden.as_ref(), &texts));
        let mut payloads: Vec<Payload<'_>> = texts.payloads().collect();
        if salt.is_some() {
            payloads.push(Payload { key: Key::Digest, salt, value: digest.as_bytes() });
        }
        self.event(Kind::RequestOpened, Some(request.id), &fields, &payloads)?;
        let waiting = WaitingRequest { covers, hidden, digest, approved_by: Vec::new() };
        self.requests.lock().insert(request.id, waiting);
        Ok(())
    }

    fn review(&self, review: &ReviewRecord) -> Result<(), LedgerError> {
        let covers = {
            let requests = self.requests.lock();
            let waiting = requests.get(&review.request);
            waiting.filter(|waiting| waiting.digest == review.digest).map(|waiting| waiting.covers)
        };
        let fields = compose::review(review, covers);
        self.event(Kind::Review, Some(review.request), &fields, &compose::review_payloads(review))?;
        if review.not_counted.is_none()
            && review.verdict == Verdict::Approve
            && covers.is_some()
            && let Some(waiting) = self.requests.lock().get_mut(&review.request)
        {
            waiting.approved_by.push(review.reviewer.id.as_str().to_owned());
        }
        Ok(())
    }

    fn hold_ended(
        &self,
        request: RequestId,
        end: HoldEnd,
        reason: Option<String>,
        by: Option<ReviewerId>,
    ) -> Result<(), LedgerError> {
        let mut fields = Fields::new();
        if let Some(by) = &by {
            fields.text(Key::Reviewer, by.as_str());
        }
        fields.text(Key::State, end.as_str());
        let mut payloads = Vec::new();
        match &reason {
            // A person's words may have to be forgotten one day; the program's own never.
            Some(words) if by.is_some() => {
                payloads.push(Payload { key: Key::Reason, salt: None, value: words.as_bytes() });
            }
            Some(phrase) => drop(fields.text(Key::What, phrase)),
            None => {}
        }
        self.event(Kind::RequestClosed, Some(request), &fields, &payloads)?;
        if end != HoldEnd::Granted {
            self.requests.lock().remove(&request);
        }
        Ok(())
    }

    /// The writer says how far it came.
    pub(super) fn committed(&self, head: TreeHead, upto: u64) {
        self.spool.committed(upto);
        let mut progress = self.progress.lock();
        progress.head = Some(head);
        progress.committed = upto;
        drop(progress);
        self.moved.notify_all();
    }

    /// How many entries are in the file.
    pub(super) fn written(&self) -> u64 {
        self.progress.lock().head.map_or(0, |head| head.size)
    }

    /// The writer says what anchors know.
    pub(super) fn anchored(&self, head: TreeHead, trouble: Option<String>) {
        let mut progress = self.progress.lock();
        if trouble.is_none() {
            progress.anchored = Some(head);
        }
        progress.anchor_trouble = trouble;
    }

    /// Waits until the file has grown or the writer has stopped, but no longer than `limit`.
    pub(super) fn wait_for_progress(&self, limit: Duration) {
        let mut progress = self.progress.lock();
        if !self.written_out.load(Ordering::Acquire) {
            let _timed_out = self.moved.wait_for(&mut progress, limit);
        }
    }

    /// Waits for `limit`, less when the writer stops meanwhile.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let mut progress = self.progress.lock();
        let until = std::time::Instant::now() + limit;
        while !self.written_out.load(Ordering::Acquire) {
            if self.moved.wait_until(&mut progress, until).timed_out() {
                return;
            }
        }
    }

    /// Waits until everything spooled so far is in the file.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let wanted = self.spool.next_record();
        self.spool.hurry();
        let mut progress = self.progress.lock();
        while progress.committed < wanted {
            if self.moved.wait_for(&mut progress, limit).timed_out() {
                return progress.committed >= wanted;
            }
        }
        true
    }
}

fn put_by(fields: &mut Fields, by: Option<&str>) {
    if let Some(by) = by {
        fields.text(Key::By, by);
    }
}

fn difference_of(difference: Option<&str>) -> Vec<Payload<'_>> {
    difference
        .map(|text| Payload { key: Key::Difference, salt: None, value: text.as_bytes() })
        .into_iter()
        .collect()
}
