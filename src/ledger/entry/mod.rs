//! One line of the ledger: which kinds there are, which fields each has, and what a field's value
//! looks like. `docs/ledger-format.md` is the reference; the two tables below are that page in code,
//! and [`Entry::parse`] is the only way in: it accepts exactly what the page allows.
//!
//! An entry is hashed and signed as bytes. Nothing here ever re-encodes a stored entry.

use super::cbor::{self, CborError, Value};
use crate::statement::Digest;

/// The format version that every entry names.
pub const VERSION: u64 = 1;

/// Keys from here on carry remarks that verification does not look at.
pub const FIRST_REMARK: u64 = 1000;

/// What the value of a field must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An unsigned number.
    Uint,
    /// Nanoseconds since the Unix epoch.
    Time,
    /// `false` or `true`.
    Bool,
    /// Text.
    Text,
    /// Bytes of any length.
    Bytes,
    /// 16 bytes: a UUID.
    Uuid,
    /// 32 bytes: a SHA-256 value or a public key.
    Hash,
    /// 32 bytes: a salted commitment to a value in `payload`.
    Commitment,
    /// 64 bytes: an Ed25519 signature.
    Signature,
    /// An array of texts.
    Texts,
    /// A map from claim numbers (0 model, 1 version, 2 run, 3 task, 4 purpose) to text.
    Claims,
    /// An array of arrays that each hold these.
    Rows(&'static [Cell]),
    /// An array of unsigned numbers.
    Uints,
}

/// One place in a row of [`Shape::Rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Text.
    Text,
    /// An unsigned number.
    Uint,
}

macro_rules! keys {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $shape:expr;)*) => {
        /// The fields an entry can have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key { $($(#[$doc])* $variant = $number,)* }

        impl Key {
            /// Every field, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The field with this number.
            #[must_use]
            pub fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The name that exports and people use.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What its value must look like.
            #[must_use]
            pub fn shape(self) -> Shape {
                match self { $(Self::$variant => $shape,)* }
            }
        }
    };
}

keys! {
    /// The format version, 1.
    V = 0, "v", Shape::Uint;
    /// The [`Kind`].
    Kind = 1, "kind", Shape::Uint;
    /// The place in the ledger, from 0.
    Seq = 2, "seq", Shape::Uint;
    /// The wall clock when it was recorded.
    Wall = 3, "time", Shape::Time;
    /// The clock that is never set (since the machine's start), nanoseconds.
    Mono = 4, "mono", Shape::Uint;
    /// The run of the proxy that recorded it.
    Boot = 5, "boot", Shape::Uuid;
    /// The epoch whose key signs it; 0 is the root key itself.
    Epoch = 6, "epoch", Shape::Uint;
    /// The spool record it was made from.
    Record = 7, "record", Shape::Uint;
    /// The spool record of the outcome, where one entry holds both.
    RecordEnd = 8, "record_end", Shape::Uint;
    /// The entry it belongs to.
    Ref = 9, "ref", Shape::Uint;
    /// The approval request.
    Request = 10, "request", Shape::Uuid;
    /// The agent's session.
    Session = 11, "session", Shape::Uuid;
    /// The agent.
    Agent = 12, "agent", Shape::Text;
    /// The humans behind the agent.
    Owners = 13, "owners", Shape::Texts;
    /// How the agent proved who it is.
    Method = 14, "method", Shape::Text;
    /// Where it connected from.
    Address = 15, "address", Shape::Text;
    /// SHA-256 of its client certificate.
    Certificate = 16, "certificate", Shape::Hash;
    /// Claims of a verified token.
    Verified = 17, "verified", Shape::Claims;
    /// Claims that are only the agent's words.
    Claimed = 18, "claimed", Shape::Claims;
    /// The operator's name for the upstream.
    Upstream = 19, "upstream", Shape::Text;
    /// The database.
    Database = 20, "database", Shape::Text;
    /// The role the proxy logged in with.
    Role = 21, "role", Shape::Text;
    /// The protocol message the statement came in.
    Via = 22, "via", Shape::Text;
    /// The statement class.
    Class = 23, "class", Shape::Text;
    /// On what ground it was forwarded.
    Clearance = 24, "clearance", Shape::Text;
    /// The fingerprint of the normalised text.
    Fingerprint = 25, "fingerprint", Shape::Hash;
    /// What it does: verb, kind of object, schema (or nothing), name.
    Effects = 26, "effects", Shape::Rows(&[Cell::Text, Cell::Text, Cell::Text, Cell::Text]);
    /// Why it has its class.
    Reasons = 27, "reasons", Shape::Texts;
    /// The policy rules that decided.
    Rules = 28, "rules", Shape::Texts;
    /// The digest of the policy set in force.
    Policy = 29, "policy", Shape::Hash;
    /// Whether a transaction was open.
    InTransaction = 30, "in_transaction", Shape::Bool;
    /// When the statement arrived.
    Asked = 31, "asked", Shape::Time;
    /// How it ended: completed, failed, failed_after_commit, not_executed, unknown.
    Ending = 32, "ending", Shape::Text;
    /// The command tags.
    Tag = 33, "tag", Shape::Text;
    /// An SQLSTATE.
    SqlState = 34, "sqlstate", Shape::Text;
    /// Rows returned or affected.
    Rows = 35, "rows", Shape::Uint;
    /// Bytes of result data.
    Bytes = 36, "bytes", Shape::Uint;
    /// How long it took, nanoseconds.
    Duration = 37, "duration", Shape::Uint;
    /// The transaction status afterwards.
    Transaction = 38, "transaction_status", Shape::Text;
    /// SHA-256 over the result frames.
    Result = 39, "result", Shape::Hash;
    /// Commitment to the text of the statement.
    Sql = 40, "sql", Shape::Commitment;
    /// Commitment to its encoded parameters.
    Parameters = 41, "parameters", Shape::Commitment;
    /// Commitment to the statement's digest.
    Digest = 42, "digest", Shape::Commitment;
    /// Names the secret salt of the digest's commitment, where the stored text is a rendition.
    Nonce = 43, "nonce", Shape::Uuid;
    /// What the stored text is instead of the original: redacted, truncated.
    Rendition = 44, "rendition", Shape::Text;
    /// The request's digest commitment, repeated by what belongs to the request.
    Covers = 45, "covers", Shape::Hash;
    /// The word for a refusal.
    Refusal = 46, "refusal", Shape::Text;
    /// Who must approve: group, how many people.
    Approvals = 47, "approvals", Shape::Rows(&[Cell::Text, Cell::Uint]);
    /// How sure one must be, or was, of a reviewer.
    Assurance = 48, "assurance", Shape::Text;
    /// A verdict needs a reason.
    ReasonRequired = 49, "reason_required", Shape::Bool;
    /// When the request, or the grant, expires.
    Expires = 50, "expires", Shape::Time;
    /// Who is asked as well: number of the step (from 1), nanoseconds after opening, the group, a group
    /// it may answer for.
    Escalations = 51, "escalations", Shape::Rows(&[Cell::Uint, Cell::Uint, Cell::Text, Cell::Text]);
    /// The statement failed at once and may be retried after approval.
    Defer = 52, "defer", Shape::Bool;
    /// SHA-256 of everything but the statement that a grant is bound to.
    Seal = 53, "seal", Shape::Hash;
    /// The session settings that the grant is bound to.
    Settings = 54, "settings", Shape::Rows(&[Cell::Text, Cell::Text]);
    /// The person.
    Reviewer = 55, "reviewer", Shape::Text;
    /// Other names of the same person.
    Also = 56, "also", Shape::Texts;
    /// The groups the person answers for.
    Groups = 57, "groups", Shape::Texts;
    /// approve, deny, escalate.
    Verdict = 58, "verdict", Shape::Text;
    /// How the verdict reached us.
    Channel = 59, "channel", Shape::Text;
    /// Commitment to the reviewer's words.
    Reason = 60, "reason", Shape::Commitment;
    /// When the request was first displayed to the person, as far as the proxy itself knows.
    Displayed = 61, "displayed", Shape::Time;
    /// Whether the verdict counted.
    Counted = 62, "counted", Shape::Bool;
    /// Why it did not.
    WhyNot = 63, "why_not", Shape::Text;
    /// How the reviewer signed: sshsig, webauthn.
    Scheme = 64, "scheme", Shape::Text;
    /// The reviewer's public key, as the scheme writes it.
    PublicKey = 65, "public_key", Shape::Bytes;
    /// Commitment to the record that the reviewer signed.
    Signed = 66, "signed", Shape::Commitment;
    /// Commitment to the reviewer's signature, as the scheme writes it.
    ReviewerSignature = 67, "reviewer_signature", Shape::Commitment;
    /// What became of a request.
    State = 68, "state", Shape::Text;
    /// Whose approvals make up a grant.
    ApprovedBy = 69, "approved_by", Shape::Texts;
    /// The entries of those approvals, in the same order.
    Reviews = 70, "reviews", Shape::Uints;
    /// The ledger's name.
    Origin = 71, "origin", Shape::Text;
    /// A root public key.
    RootKey = 72, "root_key", Shape::Hash;
    /// An epoch's public key.
    EpochKey = 73, "epoch_key", Shape::Hash;
    /// A root's signature over an epoch's or a successor's key.
    RootSignature = 74, "root_signature", Shape::Signature;
    /// The next root's signature over the same hand-over.
    SuccessorSignature = 75, "successor_signature", Shape::Signature;
    /// Which entries are signed one by one: every-entry, checkpoint.
    Signing = 76, "signing", Shape::Text;
    /// A number of entries.
    TreeSize = 77, "tree_size", Shape::Uint;
    /// The root hash over that many entries.
    TreeRoot = 78, "tree_root", Shape::Hash;
    /// SHA-256 of a checkpoint's note.
    Note = 79, "note", Shape::Hash;
    /// The oldest entry that still waits for its outcome or its end.
    OpenFrom = 80, "open_from", Shape::Uint;
    /// What happened, or was read, or changed, in words.
    What = 81, "what", Shape::Text;
    /// Who did it, as far as the machine knows.
    By = 82, "by", Shape::Text;
    /// How many.
    Count = 83, "count", Shape::Uint;
    /// The first of a range.
    From = 84, "from", Shape::Uint;
    /// The last of a range.
    To = 85, "to", Shape::Uint;
    /// The wall clock that was expected.
    WallExpected = 86, "expected", Shape::Time;
    /// What was redacted: entry, number of the field.
    Redacted = 87, "redacted", Shape::Rows(&[Cell::Uint, Cell::Uint]);
    /// The name of an anchor.
    Anchor = 88, "anchor", Shape::Text;
    /// The version of countersign.
    Software = 89, "software", Shape::Text;
    /// The digest of a configuration.
    Configuration = 90, "configuration", Shape::Hash;
    /// Commitment to what changed in a policy set or a configuration.
    Difference = 91, "difference", Shape::Commitment;
    /// The group asked as well.
    Group = 92, "group", Shape::Text;
    /// How many intents were closed as unknown at start-up.
    Unknown = 93, "unknown", Shape::Uint;
    /// How many requests were withdrawn at start-up.
    Withdrawn = 94, "withdrawn", Shape::Uint;
    /// The answer came within three seconds of the request's display, or of its opening where that is
    /// not known: sooner than it can have been read.
    Quick = 95, "quick", Shape::Bool;
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key as Self
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal,
        must [$($must:ident)*], may [$($may:ident)*];)*) => {
        /// What an entry tells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $variant = $number,)* }

        impl Kind {
            /// Every kind, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kind with this number.
            #[must_use]
            pub fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The name that exports and people use.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The fields it has besides those that every entry has.
            #[must_use]
            pub fn required(self) -> &'static [Key] {
                match self { $(Self::$variant => &[$(Key::$must,)*],)* }
            }

            /// The fields it may have.
            #[must_use]
            pub fn optional(self) -> &'static [Key] {
                match self { $(Self::$variant => &[$(Key::$may,)*],)* }
            }
        }
    };
}

kinds! {
    /// The first entry; signed by the root key.
    LedgerCreated = 1, "ledger_created",
        must [Origin RootKey Software], may [];
    /// A new epoch begins; signed by its own key, certified by the root.
    KeyEpoch = 2, "key_epoch",
        must [EpochKey RootSignature Signing TreeRoot], may [];
    /// The root key hands over to another; signed by the new one.
    KeyRoot = 3, "key_root",
        must [RootKey RootSignature SuccessorSignature], may [];
    /// An agent logged in.
    SessionOpened = 4, "session_opened",
        must [Session Agent Owners Method Address Upstream Database Role],
        may [Certificate Verified Claimed Asked];
    /// A session ended.
    SessionClosed = 5, "session_closed",
        must [Session What], may [];
    /// An agent changed what it claims about itself.
    SessionClaims = 6, "session_claims",
        must [Session Claimed], may [];
    /// A statement was forwarded; with its outcome where that was known in time.
    Statement = 7, "statement",
        must [Session Agent Owners Method Address Upstream Database Role
              Via Class Clearance Policy InTransaction Asked Sql],
        may [RecordEnd Ref Request Certificate Verified Claimed Fingerprint Effects Reasons Rules
             Ending Tag SqlState Rows Bytes Duration Transaction Result
             Parameters Digest Nonce Rendition Covers];
    /// What became of a forwarded statement.
    Outcome = 8, "outcome",
        must [Ref Session Ending Rows Bytes Duration],
        may [Request Tag SqlState Transaction Result];
    /// A statement was not forwarded.
    Refused = 9, "refused",
        must [Session Agent Owners Method Address Upstream Database Role
              Via Class Policy InTransaction Asked Sql Refusal SqlState],
        may [Ref Request Certificate Verified Claimed Fingerprint Effects Reasons Rules
             Parameters Digest Nonce Rendition Covers];
    /// People are asked.
    RequestOpened = 10, "request_opened",
        must [Request Session Agent Owners Method Address Upstream Database Role
              Via Class Policy InTransaction Sql Digest
              Approvals Assurance ReasonRequired Expires Defer Seal],
        may [Certificate Verified Claimed Fingerprint Effects Reasons Rules
             Parameters Nonce Rendition Escalations Settings TreeSize TreeRoot];
    /// Somebody answered.
    Review = 11, "review",
        must [Request Reviewer Also Groups Verdict Channel Assurance Counted],
        may [Ref Covers Reason Displayed Quick WhyNot Scheme PublicKey Signed ReviewerSignature];
    /// A request reached its end.
    RequestClosed = 12, "request_closed",
        must [Request State], may [Ref What Reviewer Reason];
    /// A grant was consumed, right before the statement it covers.
    GrantUsed = 13, "grant_used",
        must [Ref Request Session Agent Covers Seal ApprovedBy Reviews Expires], may [];
    /// A policy set came into force.
    PolicyLoaded = 14, "policy_loaded",
        must [Policy What], may [By Difference Count];
    /// The configuration changed.
    ConfigChanged = 15, "config_changed",
        must [What], may [By Configuration Difference];
    /// The checkpoint of the group before; the first entry of its group.
    CheckpointRef = 16, "checkpoint_ref",
        must [TreeSize TreeRoot Note OpenFrom], may [];
    /// A checkpoint was left with an anchor.
    Anchored = 17, "anchored",
        must [Anchor TreeSize TreeRoot], may [];
    /// A run of the proxy began; what it found of the one before.
    Recovered = 18, "recovered",
        must [Count Unknown Withdrawn Software], may [What];
    /// The wall clock was set.
    ClockJump = 19, "clock_jump",
        must [WallExpected], may [];
    /// Texts were deleted; their commitments stay.
    Redaction = 20, "redaction",
        must [By What Redacted], may [];
    /// Somebody read or exported the ledger.
    Export = 21, "export",
        must [By What], may [From To];
    /// The ledger could not write; nothing ran from here on.
    Degraded = 22, "degraded",
        must [What], may [];
    /// It can write again.
    Resumed = 23, "resumed",
        must [What Count], may [];
    /// More people are asked.
    RequestEscalated = 24, "request_escalated",
        must [Request Group], may [Ref Reviewer];
    /// Spooled records that could not become entries; told, so that none is left out in silence.
    Discarded = 25, "discarded",
        must [What], may [RecordEnd From To];
}

/// The fields that every entry has.
pub const HEAD: &[Key] = &[Key::V, Key::Kind, Key::Seq, Key::Wall, Key::Mono, Key::Boot, Key::Epoch];

/// Why some bytes are not an entry of this format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not deterministic CBOR.
    #[error("not canonical: {0}")]
    Cbor(#[from] CborError),
    /// Not a map.
    #[error("not a map")]
    NotAMap,
    /// A version of the format that this program does not know.
    #[error("format version {0} is not known")]
    Version(u64),
    /// A kind of entry that this version does not have.
    #[error("kind {0} is not known")]
    UnknownKind(u64),
    /// A field that this kind of entry cannot have.
    #[error("field {0} does not belong into this kind of entry")]
    Misplaced(u64),
    /// A field that must be there.
    #[error("field \"{0}\" is missing")]
    Missing(&'static str),
    /// A field whose value is not of its shape.
    #[error("field \"{0}\" has a value of another shape")]
    Shape(&'static str),
}

/// An entry, read. Borrows from the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    kind: Kind,
    fields: Vec<(u64, Value<'a>)>,
}

impl<'a> Entry<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Whatever the format page does not allow: another encoding of the same values, an unknown
    /// kind, a field too many or too few or of another shape.
    pub fn parse(body: &'a [u8]) -> Result<Self, EntryError> {
        let Value::Map(fields) = cbor::parse(body)? else { return Err(EntryError::NotAMap) };
        let number = |key: Key| match fields.binary_search_by_key(&u64::from(key), |&(key, _)| key) {
            Ok(place) => {
                let value = fields.get(place).and_then(|(_, value)| value.as_uint());
                value.ok_or(EntryError::Shape(key.name()))
            }
            Err(_) => Err(EntryError::Missing(key.name())),
        };
        let version = number(Key::V)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let kind = number(Key::Kind)?;
        let kind = Kind::from_number(kind).ok_or(EntryError::UnknownKind(kind))?;
        let entry = Self { kind, fields };
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), EntryError> {
        for (number, value) in &self.fields {
            if *number >= FIRST_REMARK {
                continue;
            }
            let key = Key::from_number(*number).ok_or(EntryError::Misplaced(*number))?;
            let allowed = HEAD.contains(&key)
                || key == Key::Record
                || self.kind.required().contains(&key)
                || self.kind.optional().contains(&key);
            if !allowed {
                return Err(EntryError::Misplaced(*number));
            }
            if !fits(key.shape(), value) {
                return Err(EntryError::Shape(key.name()));
            }
        }
        match HEAD.iter().chain(self.kind.required()).find(|&&key| self.value(key).is_none()) {
            Some(key) => Err(EntryError::Missing(key.name())),
            None => Ok(()),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Every field in order, also those that are only remarks.
    #[must_use]
    pub fn fields(&self) -> &[(u64, Value<'a>)] {
        &self.fields
    }

    /// A field's value.
    #[must_use]
    pub fn value(&self, key: Key) -> Option<&Value<'a>> {
        let place = self.fields.binary_search_by_key(&u64::from(key), |&(key, _)| key).ok()?;
        self.fields.get(place).map(|(_, value)| value)
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.value(key).is_some()
    }

    /// A number or a time.
    #[must_use]
    pub fn uint(&self, key: Key) -> Option<u64> {
        self.value(key)?.as_uint()
    }

    /// A text.
    #[must_use]
    pub fn text(&self, key: Key) -> Option<&'a str> {
        self.value(key)?.as_text()
    }

    /// A truth value.
    #[must_use]
    pub fn bool(&self, key: Key) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    /// Bytes of any length.
    #[must_use]
    pub fn bytes(&self, key: Key) -> Option<&'a [u8]> {
        self.value(key)?.as_bytes()
    }

    /// Exactly `N` bytes.
    #[must_use]
    pub fn array<const N: usize>(&self, key: Key) -> Option<[u8; N]> {
        self.bytes(key)?.try_into().ok()
    }

    /// A SHA-256 value.
    #[must_use]
    pub fn digest(&self, key: Key) -> Option<Digest> {
        self.array(key).map(Digest::from_bytes)
    }

    /// The texts of an array; none when the field is not there.
    pub fn texts(&self, key: Key) -> impl Iterator<Item = &'a str> {
        self.elements(key).iter().filter_map(Value::as_text)
    }

    /// The numbers of an array; none when the field is not there.
    pub fn uints(&self, key: Key) -> impl Iterator<Item = u64> {
        self.elements(key).iter().filter_map(Value::as_uint)
    }

    /// The rows of an array of arrays; none when the field is not there.
    pub fn rows(&self, key: Key) -> impl Iterator<Item = &[Value<'a>]> {
        self.elements(key).iter().map(Value::elements)
    }

    fn elements(&self, key: Key) -> &[Value<'a>] {
        self.value(key).map_or(&[], Value::elements)
    }

    /// The place it says it has.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.uint(Key::Seq).unwrap_or_default()
    }

    /// Its fields that commit to a value in `payload`.
    pub fn commitments(&self) -> impl Iterator<Item = (Key, Digest)> {
        self.fields.iter().filter_map(|(number, value)| {
            let key = Key::from_number(*number)?;
            let bytes = value.as_bytes().filter(|_| key.shape() == Shape::Commitment)?;
            Some((key, Digest::from_bytes(bytes.try_into().ok()?)))
        })
    }
}

/// The kind of a stored entry, without reading the rest of it. The head of every body is the same: a
/// map, key 0 with the version, key 1 with the kind.
#[must_use]
pub fn peek_kind(body: &[u8]) -> Option<Kind> {
    let rest = match body {
        [0xb8, _, rest @ ..] | [_, rest @ ..] => rest,
        [] => return None,
    };
    match rest {
        [0, 1, 1, 0x18, kind, ..] => Kind::from_number(u64::from(*kind)),
        [0, 1, 1, kind, ..] => Kind::from_number(u64::from(*kind)),
        _ => None,
    }
}

fn fits(shape: Shape, value: &Value<'_>) -> bool {
    let all = |test: fn(&Value<'_>) -> bool| matches!(value, Value::Array(values) if values.iter().all(test));
    let has_length = |length: usize| value.as_bytes().is_some_and(|bytes| bytes.len() == length);
    match shape {
        Shape::Uint | Shape::Time => value.as_uint().is_some(),
        Shape::Bool => value.as_bool().is_some(),
        Shape::Text => value.as_text().is_some(),
        Shape::Bytes => value.as_bytes().is_some(),
        Shape::Uuid => has_length(16),
        Shape::Hash | Shape::Commitment => has_length(32),
        Shape::Signature => has_length(64),
        Shape::Texts => all(|value| value.as_text().is_some()),
        Shape::Uints => all(|value| value.as_uint().is_some()),
        Shape::Claims => {
            matches!(value, Value::Map(pairs) if pairs.iter().all(|(claim, value)| *claim < 5 && value.as_text().is_some()))
        }
        Shape::Rows(cells) => {
            matches!(value, Value::Array(rows) if rows.iter().all(|row| is_row(cells, row)))
        }
    }
}

fn is_row(cells: &[Cell], row: &Value<'_>) -> bool {
    let fits = |(cell, value): (&Cell, &Value<'_>)| match cell {
        Cell::Text => value.as_text().is_some(),
        Cell::Uint => value.as_uint().is_some(),
    };
    let values = row.elements();
    matches!(row, Value::Array(_)) && values.len() == cells.len() && cells.iter().zip(values).all(fits)
}

#[cfg(test)]
mod tests;
