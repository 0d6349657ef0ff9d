//! From what callers hand in to the fields of an entry.
//!
//! Composing happens on the caller's thread and touches no file: it ends in [`Fields`] and the
//! texts they will commit to. The writer adds what only it knows (place, epoch, references, salts).
//! Keys are written in ascending order, so that joining a statement's fields with its session's
//! constants and its outcome is copying.

use jiff::Timestamp;
use minicbor::encode::{Encoder, Error};
use sha2::{Digest as _, Sha256};

use super::cbor::Fields;
use super::entry::Key;
use super::payload::{self, Payload};
use super::record::{ReviewRecord, SessionInfo, StatementRecord};
use crate::actor::{Claims, Reviewer};
use crate::approval::{Grant, Request, Seal};
use crate::classify::{Classification, Effect, ObjectKind, Verb};
use crate::refusal::Refusal;
use crate::statement::{Digest, Ending, Outcome, RuleName, Statement, TransactionStatus};

type Written = Result<(), Error<std::convert::Infallible>>;
type Writer<'a> = Encoder<&'a mut Vec<u8>>;

/// Texts of ordinary statements beyond this are stored cut, with a commitment to the whole: a bulk load
/// must not fill the spool.
pub(crate) const LONGEST_TEXT: usize = 1 << 20;
/// How much of such a text is stored.
const KEPT_OF_LONG_TEXT: usize = 1 << 16;

/// Nanoseconds since the Unix epoch; times before it count as the epoch.
pub(crate) fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or(0)
}

/// The fields that every statement of a session repeats.
pub(crate) fn session(info: &SessionInfo) -> Fields {
    let identity = &info.identity;
    let mut fields = Fields::new();
    fields
        .bytes(Key::Session, info.session.0.as_bytes())
        .text(Key::Agent, identity.agent.name.as_str())
        .texts(Key::Owners, identity.agent.owners.iter().map(|owner| owner.as_str()))
        .text(Key::Method, identity.method.as_str())
        .text(Key::Address, &identity.client_address);
    if let Some(certificate) = &identity.certificate_fingerprint {
        fields.bytes(Key::Certificate, certificate);
    }
    if !identity.verified.is_empty() {
        claims(&mut fields, Key::Verified, &identity.verified);
    }
    if !info.claimed.is_empty() {
        claims(&mut fields, Key::Claimed, &info.claimed);
    }
    fields
        .text(Key::Upstream, info.target.upstream.as_str())
        .text(Key::Database, info.target.database.as_str())
        .text(Key::Role, info.target.role.as_str());
    fields
}

/// Claims as a map from the claim's number to its text.
pub(crate) fn claims(fields: &mut Fields, key: Key, claims: &Claims) {
    let all = [&claims.model, &claims.version, &claims.run, &claims.task, &claims.purpose];
    let set = all.iter().filter(|claim| claim.is_some()).count();
    fields.nested(key, |writer| {
        writer.map(set as u64)?;
        for (number, claim) in all.into_iter().enumerate() {
            if let Some(text) = claim {
                writer.u64(number as u64)?.str(text)?;
            }
        }
        Ok(())
    });
}

/// How much of a statement is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of it, however long: somebody decides or has decided by it, or it was privileged.
    Whole,
    /// The beginning of a long one: nobody was asked about it, or it did not run.
    Beginning,
}

/// What is stored of a statement, and how that differs from what the agent sent.
pub(crate) struct Texts<'a> {
    sql: &'a [u8],
    parameters: Option<Vec<u8>>,
    rendition: Option<&'static str>,
}

impl<'a> Texts<'a> {
    pub(crate) fn of(statement: &'a Statement, classification: &'a Classification, keep: Keep) -> Self {
        let (mut sql, mut rendition) = match &classification.redacted_sql {
            Some(text) => (text.as_bytes(), Some("redacted")),
            None => (statement.sql.as_bytes(), None),
        };
        let shown = classification.without_secrets(&statement.parameters);
        if shown.is_some() {
            rendition = Some("redacted");
        }
        let shown = shown.as_deref().unwrap_or(&statement.parameters);
        let mut parameters = (!shown.is_empty()).then(|| Statement::encode_parameters(shown));
        let cut = |text: &'a [u8]| text.get(..KEPT_OF_LONG_TEXT).unwrap_or(text);
        if keep == Keep::Whole {
            return Self { sql, parameters, rendition };
        }
        if sql.len() > LONGEST_TEXT {
            sql = cut(sql);
            rendition.get_or_insert("truncated");
        }
        if let Some(encoded) = parameters.as_mut().filter(|encoded| encoded.len() > LONGEST_TEXT) {
            encoded.truncate(KEPT_OF_LONG_TEXT);
            rendition.get_or_insert("truncated");
        }
        Self { sql, parameters, rendition }
    }

    /// Whether what is stored is not what the agent sent.
    pub(crate) fn rendition(&self) -> Option<&'static str> {
        self.rendition
    }

    /// The texts, for the writer to commit to.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let parameters = self.parameters.as_deref();
        std::iter::once(Payload { key: Key::Sql, salt: None, value: self.sql })
            .chain(parameters.map(|value| Payload { key: Key::Parameters, salt: None, value }))
    }
}

/// The commitment to a statement's digest where the stored text is a rendition: its salt can be
/// derived again by whoever holds the root key, and by nobody else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hidden {
    pub(crate) nonce: [u8; 16],
    pub(crate) commitment: Digest,
}

impl Hidden {
    pub(crate) fn new(secret: &[u8; 32], nonce: [u8; 16], digest: Digest) -> Self {
        let salt = payload::secret_salt(secret, &nonce);
        Self { nonce, commitment: payload::commitment(Key::Digest, &salt, digest.as_bytes()) }
    }
}

/// Fields 22 to 31: the statement as it was asked.
fn asked(fields: &mut Fields, record: &StatementRecord<'_>, clearance: Option<&str>) {
    fields.text(Key::Via, record.statement.via.as_str());
    fields.text(Key::Class, record.classification.class.as_str());
    if let Some(clearance) = clearance {
        fields.text(Key::Clearance, clearance);
    }
    meaning(fields, record.classification, record.rules);
    fields
        .bytes(Key::Policy, record.policy.as_bytes())
        .bool(Key::InTransaction, record.in_transaction)
        .uint(Key::Asked, nanoseconds(record.wall));
}

/// Fields 25 to 28: what classification and policy said of it.
fn meaning(fields: &mut Fields, classification: &Classification, rules: &[RuleName]) {
    fields.bytes(Key::Fingerprint, classification.fingerprint.0.as_bytes());
    if !classification.effects.is_empty() {
        fields.nested(Key::Effects, |writer| effects(writer, &classification.effects));
    }
    if !classification.reasons.is_empty() {
        fields.texts(Key::Reasons, classification.reasons.iter().map(|reason| &*reason.text));
    }
    if !rules.is_empty() {
        fields.texts(Key::Rules, rules.iter().map(RuleName::as_str));
    }
}

fn effects(writer: &mut Writer<'_>, effects: &[Effect]) -> Written {
    writer.array(effects.len() as u64)?;
    for effect in effects {
        let schema = effect.schema.as_deref().unwrap_or("");
        writer.array(4)?.str(verb(effect.verb))?.str(object(effect.kind))?.str(schema)?.str(&effect.name)?;
    }
    Ok(())
}

/// The stable spelling of a verb.
fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Read => "read",
        Verb::Insert => "insert",
        Verb::Update => "update",
        Verb::Delete => "delete",
        Verb::Truncate => "truncate",
        Verb::Lock => "lock",
        Verb::Export => "export",
        Verb::Create => "create",
        Verb::Alter => "alter",
        Verb::Drop => "drop",
        Verb::Call => "call",
        Verb::Set => "set",
        Verb::Grant => "grant",
        Verb::Use => "use",
    }
}

/// The stable spelling of a kind of object.
fn object(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Relation => "relation",
        ObjectKind::Function => "function",
        ObjectKind::Operator => "operator",
        ObjectKind::Role => "role",
        ObjectKind::Setting => "setting",
        ObjectKind::Schema => "schema",
        ObjectKind::Type => "type",
        ObjectKind::Other => "other",
    }
}

/// What hides behind a rendition, and what of a request the statement repeats.
#[derive(Default)]
pub(crate) struct Bindings {
    pub(crate) hidden: Option<Hidden>,
    pub(crate) rendition: Option<&'static str>,
    pub(crate) covers: Option<Digest>,
}

impl Bindings {
    fn write(&self, fields: &mut Fields) {
        if let Some(hidden) = &self.hidden {
            fields.bytes(Key::Digest, hidden.commitment.as_bytes()).bytes(Key::Nonce, &hidden.nonce);
        }
        if let Some(rendition) = self.rendition {
            fields.text(Key::Rendition, rendition);
        }
        if let Some(covers) = &self.covers {
            fields.bytes(Key::Covers, covers.as_bytes());
        }
    }
}

/// A statement that is forwarded.
pub(crate) fn forwarded(
    fields: &mut Fields,
    record: &StatementRecord<'_>,
    clearance: &str,
    bindings: &Bindings,
) {
    asked(fields, record, Some(clearance));
    bindings.write(fields);
}

/// A statement that is not.
pub(crate) fn refused(fields: &mut Fields, record: &StatementRecord<'_>, why: &Refusal, bindings: &Bindings) {
    asked(fields, record, None);
    fields.text(Key::SqlState, why.sqlstate());
    bindings.write(fields);
    fields.text(Key::Refusal, why.code());
}

/// Fields 32 to 39: how a statement ended.
pub(crate) fn outcome(fields: &mut Fields, outcome: &Outcome, duration_ns: u64) {
    let (ending, tag, sqlstate) = match &outcome.ending {
        Ending::Completed { tag } => ("completed", Some(&**tag), None),
        Ending::Failed { sqlstate } => ("failed", None, Some(sqlstate)),
        Ending::FailedAfterCommit { tag, sqlstate } => ("failed_after_commit", Some(&**tag), Some(sqlstate)),
        Ending::NotExecuted => ("not_executed", None, None),
        Ending::Unknown { tag, sqlstate } => {
            ("unknown", Some(&**tag).filter(|tag| !tag.is_empty()), sqlstate.as_ref())
        }
    };
    fields.text(Key::Ending, ending);
    if let Some(tag) = tag {
        fields.text(Key::Tag, tag);
    }
    if let Some(sqlstate) = sqlstate {
        fields.text(Key::SqlState, sqlstate.as_str());
    }
    fields.uint(Key::Rows, outcome.rows).uint(Key::Bytes, outcome.bytes).uint(Key::Duration, duration_ns);
    if let Some(status) = outcome.transaction {
        fields.text(Key::Transaction, transaction(status));
    }
    if let Some(digest) = &outcome.result_digest {
        fields.bytes(Key::Result, digest.as_bytes());
    }
}

fn transaction(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Idle => "idle",
        TransactionStatus::InBlock => "in_block",
        TransactionStatus::Failed => "failed",
    }
}

/// A request, besides its session's fields. `digest` is the commitment to the statement's digest.
pub(crate) fn request(
    request: &Request,
    digest: Digest,
    hidden: Option<&Hidden>,
    texts: &Texts<'_>,
) -> Fields {
    let draft = &request.draft;
    let terms = &draft.terms;
    let mut fields = Fields::new();
    fields.text(Key::Via, draft.statement.via.as_str()).text(Key::Class, draft.classification.class.as_str());
    meaning(&mut fields, &draft.classification, &terms.rules);
    // What upstream has not answered counts as an open transaction.
    let idle = draft.transaction.status == Some(TransactionStatus::Idle);
    fields.bytes(Key::Policy, terms.policy.as_bytes()).bool(Key::InTransaction, !idle);
    fields.bytes(Key::Digest, digest.as_bytes());
    if let Some(hidden) = hidden {
        fields.bytes(Key::Nonce, &hidden.nonce);
    }
    if let Some(rendition) = texts.rendition() {
        fields.text(Key::Rendition, rendition);
    }
    fields.nested(Key::Approvals, |writer| {
        writer.array(terms.approvals.len() as u64)?;
        for approval in &terms.approvals {
            writer.array(2)?.str(approval.group.as_str())?.u64(u64::from(approval.count))?;
        }
        Ok(())
    });
    fields
        .text(Key::Assurance, terms.assurance.as_str())
        .bool(Key::ReasonRequired, terms.reason_required)
        .uint(Key::Expires, nanoseconds(request.expires_at));
    if !terms.escalate.is_empty() {
        fields.nested(Key::Escalations, |writer| {
            let rows = terms.escalate.iter().map(|step| step.stands_in_for.len()).sum::<usize>();
            writer.array(rows as u64)?;
            for (number, step) in terms.escalate.iter().enumerate() {
                let after = u64::try_from(step.after.as_nanos()).unwrap_or(u64::MAX);
                for group in &step.stands_in_for {
                    writer.array(4)?.u64(number as u64 + 1)?.u64(after)?;
                    writer.str(step.to.as_str())?.str(group.as_str())?;
                }
            }
            Ok(())
        });
    }
    fields.bool(Key::Defer, draft.seal.session.is_none()).bytes(Key::Seal, seal(&draft.seal).as_bytes());
    let sealed = draft.seal.to_rows();
    if !sealed.is_empty() {
        fields.nested(Key::Settings, |writer| {
            writer.array(sealed.len() as u64)?;
            for (name, value) in &sealed {
                writer.array(2)?.str(name)?.str(value)?;
            }
            Ok(())
        });
    }
    if let Some(head) = &request.checkpoint {
        fields.uint(Key::TreeSize, head.size).bytes(Key::TreeRoot, head.root.as_bytes());
    }
    fields
}

/// SHA-256 of what a grant is bound to besides the statement. The statement's own digest is left
/// out: it is unsalted, and would let anybody test guesses at a text that was redacted.
pub(crate) fn seal(seal: &Seal) -> Digest {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    text("countersign/ledger/seal/v1");
    text(seal.agent.as_str());
    text(&seal.session.map(|session| session.to_string()).unwrap_or_default());
    text(seal.upstream.as_str());
    text(seal.database.as_str());
    text(seal.role.as_str());
    for (name, value) in seal.to_rows() {
        text(&name);
        text(&value);
    }
    Digest::from_bytes(hash.finalize().into())
}

/// A grant that is used up.
pub(crate) fn grant(grant: &Grant, session: &[u8; 16], agent: &str, covers: Digest) -> Fields {
    let mut fields = Fields::new();
    fields
        .bytes(Key::Session, session)
        .text(Key::Agent, agent)
        .bytes(Key::Covers, covers.as_bytes())
        .uint(Key::Expires, nanoseconds(grant.expires()))
        .bytes(Key::Seal, seal(grant.seal()).as_bytes())
        .texts(Key::ApprovedBy, grant.approvals().iter().map(|review| review.reviewer.as_str()));
    fields
}

/// A reviewer, as enrolled.
fn person(fields: &mut Fields, reviewer: &Reviewer) {
    fields
        .text(Key::Reviewer, reviewer.id.as_str())
        .texts(Key::Also, reviewer.also.iter().map(|name| name.as_str()))
        .texts(Key::Groups, reviewer.groups.iter().map(|group| group.as_str()));
}

/// An answer. `covers` is the commitment of the request, when the digest they saw is its digest.
pub(crate) fn review(record: &ReviewRecord, covers: Option<Digest>) -> Fields {
    let mut fields = Fields::new();
    if let Some(covers) = &covers {
        fields.bytes(Key::Covers, covers.as_bytes());
    }
    fields.text(Key::Assurance, record.assurance.as_str());
    person(&mut fields, &record.reviewer);
    fields.text(Key::Verdict, record.verdict.as_str()).text(Key::Channel, record.channel.as_str());
    if let Some(at) = record.displayed_at {
        fields.uint(Key::Displayed, nanoseconds(at));
    }
    fields.bool(Key::Counted, record.not_counted.is_none());
    if let Some(why) = &record.not_counted {
        fields.text(Key::WhyNot, why);
    }
    if let Some(signature) = &record.signature {
        fields.text(Key::Scheme, signature.scheme).bytes(Key::PublicKey, &signature.public_key);
    }
    if record.quick {
        fields.bool(Key::Quick, true);
    }
    fields
}

/// The texts of an answer.
pub(crate) fn review_payloads(record: &ReviewRecord) -> Vec<Payload<'_>> {
    let mut payloads = Vec::new();
    if let Some(reason) = &record.reason {
        payloads.push(Payload { key: Key::Reason, salt: None, value: reason.as_bytes() });
    }
    if let Some(signature) = &record.signature {
        payloads.push(Payload { key: Key::Signed, salt: None, value: &signature.record });
        payloads.push(Payload { key: Key::ReviewerSignature, salt: None, value: &signature.signature });
    }
    payloads
}
