//! What: the statement an agent asked to run, byte for byte, and the names, digests and outcomes
//! that travel with it.
//!
//! Nothing here understands SQL. The one rule of this module: SQL text and parameter values never
//! appear in `Debug` output, so that no log line can leak them by accident.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::actor::{DatabaseName, RoleName, UpstreamName, name_type};

/// A SHA-256 value: of exact bytes ([`Statement::digest`]), of a policy set, of a seal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// SHA-256 (FIPS 180-4) of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Wraps a value that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{:02x}{:02x}{:02x}{:02x}..", a, b, c, d)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}

/// SHA-256 of a statement's normalised text: literals replaced, white space and comments dropped.
/// Two statements with one fingerprint differ in values only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub Digest);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text of a statement exactly as the agent sent it, without the protocol's terminating NUL.
/// It need not be UTF-8. `Debug` prints a digest.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SqlText(Bytes);

impl SqlText {
    /// Wraps the agent's bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, when it is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text for display; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn to_display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SqlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlText({} bytes, {:?})", self.0.len(), Digest::of(&self.0))
    }
}

impl From<&str> for SqlText {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// One bound parameter of the extended protocol, as it was on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameter {
    /// 0 is text, 1 is binary (protocol documentation, "Bind").
    pub format: i16,
    /// The type's OID as the agent declared it in Parse; 0 when it left that to the server.
    pub type_oid: u32,
    /// The value; `None` is NULL.
    pub value: Option<Bytes>,
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.value.as_ref().map(Bytes::len);
        write!(f, "Parameter {{ format: {}, type_oid: {}, length: {length:?} }}", self.format, self.type_oid)
    }
}

/// Which part of the protocol a statement came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A simple `Query` message; it may hold several statements, which stand or fall together.
    Query,
    /// A `Bind` of the extended protocol, with its parameters.
    Bind,
    /// A `Parse` that is not bound together with it: prepared, not run.
    Parse,
    /// A `FunctionCall` (fast-path) message; the text is the `SELECT` that does the same, or a comment
    /// that names the OID.
    FunctionCall,
}

impl Via {
    /// The stable spelling that the ledger and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Bind => "bind",
            Self::Parse => "parse",
            Self::FunctionCall => "function_call",
        }
    }
}

/// What the agent asked to run: one unit that is decided, granted, forwarded and recorded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The message it came in.
    pub via: Via,
    /// The text.
    pub sql: SqlText,
    /// Bound values; empty for a simple `Query`.
    pub parameters: Arc<[Parameter]>,
}

impl Statement {
    /// A simple `Query`.
    #[must_use]
    pub fn query(sql: SqlText) -> Self {
        Self { via: Via::Query, sql, parameters: Arc::from([]) }
    }

    /// SHA-256 of everything that decides what runs. The encoding, all integers big-endian:
    ///
    /// ```text
    /// "countersign/statement/v1" 0x00  via:u8 (0 query, 1 bind, 2 function call, 3 parse)
    /// u64 length of sql, sql          u32 number of parameters
    /// per parameter: i16 format, u32 type oid, u8 1 + u64 length + bytes | u8 0 for NULL
    /// ```
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"countersign/statement/v1\0");
        hash.update([match self.via {
            Via::Query => 0,
            Via::Bind => 1,
            Via::FunctionCall => 2,
            Via::Parse => 3,
        }]);
        hash.update((self.sql.len() as u64).to_be_bytes());
        hash.update(self.sql.as_bytes());
        hash.update(Self::encode_parameters(&self.parameters));
        Digest(hash.finalize().into())
    }

    /// The part of [`Self::digest`]'s input that stands for the parameters; also how the ledger
    /// stores them.
    #[must_use]
    pub fn encode_parameters(parameters: &[Parameter]) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + parameters.len() * 16);
        out.extend_from_slice(&(parameters.len() as u32).to_be_bytes());
        for parameter in parameters {
            out.extend_from_slice(&parameter.format.to_be_bytes());
            out.extend_from_slice(&parameter.type_oid.to_be_bytes());
            match &parameter.value {
                Some(value) => {
                    out.push(1);
                    out.extend_from_slice(&(value.len() as u64).to_be_bytes());
                    out.extend_from_slice(value);
                }
                None => out.push(0),
            }
        }
        out
    }
}

/// Where a statement would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The operator's name for the upstream.
    pub upstream: UpstreamName,
    /// The database on it.
    pub database: DatabaseName,
    /// The role the proxy logged in with.
    pub role: RoleName,
}

/// Where unqualified names are looked up, in order. `pg_catalog` and `pg_temp` are searched first
/// when they are not named (PostgreSQL documentation, `search_path`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchPath {
    /// As upstream told it, with `"$user"` resolved.
    Known(Vec<Arc<str>>),
    /// It could not be told; an unqualified name may then be in any schema.
    Unknown,
}

/// Who a session acts as, as upstream told it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `current_user`.
    pub user: Arc<str>,
    /// `session_user`.
    pub session_user: Arc<str>,
    /// What `current_user` would be after `RESET ROLE`.
    pub reset_user: Arc<str>,
    /// What `session_user` was at login, and would be after `SET SESSION AUTHORIZATION DEFAULT`.
    pub login_user: Arc<str>,
    /// The open transaction has not changed it, so its end does not either.
    pub outlasts_transaction: bool,
}

/// Upstream's transaction status, as `ReadyForQuery` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionStatus {
    /// `I`: no transaction block.
    Idle,
    /// `T`: in a transaction block.
    InBlock,
    /// `E`: in a failed block; everything but its end is refused.
    Failed,
}

impl TransactionStatus {
    /// Reads the byte of `ReadyForQuery`.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InBlock),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte of `ReadyForQuery`.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }
}

/// Timers of upstream's own that may end a session while one of its statements waits for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTimers {
    /// `idle_in_transaction_session_timeout`; `None` for no limit, as for the others.
    pub idle_in_transaction: Option<Duration>,
    /// `idle_session_timeout`
    pub idle_session: Option<Duration>,
    /// `transaction_timeout` (17 and later), which runs from the transaction's beginning.
    pub transaction: Option<Duration>,
}

impl ServerTimers {
    /// The settings, in the order of the fields.
    pub const NAMES: [&str; 3] =
        ["idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"];

    /// From the settings' values, by name.
    #[must_use]
    pub fn of<'v>(value: impl Fn(&str) -> Option<&'v str>) -> Self {
        let [idle_in_transaction, idle_session, transaction] =
            Self::NAMES.map(|name| value(name).and_then(setting_duration).filter(|limit| !limit.is_zero()));
        Self { idle_in_transaction, idle_session, transaction }
    }

    /// The timer of these that ends an idle session first.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        [self.idle_in_transaction, self.idle_session].into_iter().flatten().min()
    }
}

/// The value of a setting in units of time whose own unit is milliseconds, as Postgres reads it; `None` for
/// a text that it may read otherwise.
#[must_use]
pub fn setting_duration(value: &str) -> Option<Duration> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    // A number that begins with a zero may be octal.
    if number.len() > 1 && number.starts_with('0') && !number.starts_with("0.") {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    /// Each unit in milliseconds, from the largest.
    const UNITS: [(&str, f64); 6] =
        [("d", 86_400e3), ("h", 3_600e3), ("min", 60e3), ("s", 1e3), ("ms", 1.0), ("us", 0.001)];
    let unit = unit.trim_start();
    let milliseconds = if unit.is_empty() {
        number
    } else {
        let place = UNITS.iter().position(|(known, _)| *known == unit)?;
        let (_, milliseconds) = UNITS.get(place)?;
        // Rounded to whole units of the next smaller kind: a small part of an hour is no time at all.
        UNITS.get(place + 1).map_or(number * milliseconds, |(_, smaller)| {
            (number * milliseconds / smaller).round_ties_even() * smaller
        })
    };
    // And then to whole milliseconds, halves to even (`convert_to_base_unit`, `parse_int`).
    let milliseconds = milliseconds.round_ties_even();
    (milliseconds <= f64::from(i32::MAX)).then(|| Duration::from_millis(milliseconds as u64))
}

/// What a statement may depend on that only its own session can tell of relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelationCheck {
    /// All of them, looked up as an unqualified name would be, are temporary ones of this session.
    Temporary,
    /// The same, and none has a rule, as each view has: what changes their rows changes nothing else.
    TemporaryTables,
    /// None of their names is that of a temporary view, or of a temporary table with rules.
    NoTemporaryViews,
}

/// What one raw statement inside a text does to the session that runs it. Classification finds
/// these; the session applies them when upstream confirms the statement.
///
/// Names are as Postgres keeps them: folded, unescaped, cut to 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionEffect {
    /// `PREPARE name AS ..`
    Prepare(Arc<str>),
    /// `EXECUTE name`, also inside `EXPLAIN` or `CREATE TABLE AS`.
    Execute(Arc<str>),
    /// `DEALLOCATE name`
    Deallocate(Arc<str>),
    /// `DEALLOCATE ALL`
    DeallocateAll,
    /// `DECLARE name CURSOR ..`: SQL cursors and protocol portals share one name space.
    Declare(Arc<str>),
    /// `FETCH` or `MOVE` from `name`: runs what the portal of that name holds, as an `Execute` does.
    Fetch(Arc<str>),
    /// `CLOSE name`
    CloseCursor(Arc<str>),
    /// `CLOSE ALL`
    CloseAllCursors,
    /// `SET [LOCAL] name = value`, also `set_config` with literal arguments and the transaction
    /// characteristics of `BEGIN`/`SET TRANSACTION`; `None` sets the default.
    Set {
        /// The setting, in lower case.
        name: Arc<str>,
        /// The new value as text, when the statement gives one.
        value: Option<Arc<str>>,
        /// Until the transaction ends.
        local: bool,
    },
    /// `RESET ALL`
    ResetAll,
    /// `DISCARD ALL`
    DiscardAll,
    /// `BEGIN` / `START TRANSACTION`
    Begin,
    /// `COMMIT` / `END` / `PREPARE TRANSACTION`; `chain` for `AND CHAIN`.
    Commit {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `ROLLBACK` / `ABORT`
    Rollback {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `SAVEPOINT`
    Savepoint,
    /// `ROLLBACK TO SAVEPOINT`
    RollbackToSavepoint,
    /// `COPY .. FROM STDIN`
    CopyIn,
    /// `COPY .. TO STDOUT`
    CopyOut,
    /// The catalogue may look different afterwards (DDL, code, extensions).
    CatalogueChange,
    /// The catalogue looks different for this session afterwards: it may have made a temporary view, which
    /// others cannot name.
    OwnCatalogueChange,
    /// A temporary table or view may exist afterwards, and stand in front of others of its name.
    TemporaryRelation,
    /// Outside of a transaction block it may commit parts of its work before it fails (`CALL`, `DO`,
    /// `VACUUM`, `CREATE INDEX CONCURRENTLY` and other commands that open transactions of their own).
    CommitsByItself,
    /// The search path may be any afterwards, and the session somebody else: code ran.
    PathUnknown,
    /// The same, because of functions that need no approval: those of a view, a trigger, a cursor's query.
    MayChangeSettings,
}

/// The effects of one raw statement, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Step {
    /// Usually none or one.
    pub effects: Vec<SessionEffect>,
}

/// A five-character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// From five ASCII characters; `None` for anything else.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// `40000`, for what had completed when its transaction was undone.
    #[must_use]
    pub const fn rolled_back() -> Self {
        Self(*b"40000")
    }

    /// `XX000`, for an error whose code cannot be read.
    #[must_use]
    pub const fn internal() -> Self {
        Self(*b"XX000")
    }

    /// The five characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a forwarded statement ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Upstream completed it. The command tags of all its statements, joined with `; `.
    Completed {
        /// For instance `UPDATE 3`.
        tag: Arc<str>,
    },
    /// Upstream answered with an error, and kept nothing of it.
    Failed {
        /// Its code.
        sqlstate: SqlState,
    },
    /// Upstream answered with an error, and a `COMMIT` or `PREPARE TRANSACTION` of the same text had
    /// completed before: what preceded that is kept.
    FailedAfterCommit {
        /// The command tags of what had completed, joined with `; `.
        tag: Arc<str>,
        /// The error's code.
        sqlstate: SqlState,
    },
    /// It was forwarded but upstream never came to it: an earlier message of its pipeline failed,
    /// or its portal was bound and never executed.
    NotExecuted,
    /// Nobody said what is kept of it: the answer never came because upstream or the proxy died first, or
    /// it was the error of a command that may commit parts of its work by itself (`CALL`, `VACUUM`).
    Unknown {
        /// The command tags that had come by then, joined with `; `; empty when none had.
        tag: Arc<str>,
        /// The error's code, if there was one.
        sqlstate: Option<SqlState>,
    },
}

impl Ending {
    /// Nothing was answered.
    #[must_use]
    pub fn unknown() -> Self {
        Self::Unknown { tag: Arc::default(), sqlstate: None }
    }
}

/// What upstream answered, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of result data that went to the agent (DataRow and CopyData frames).
    pub bytes: u64,
    /// The transaction status after it, where upstream told one.
    pub transaction: Option<TransactionStatus>,
    /// SHA-256 over the result frames, where policy wants it.
    pub result_digest: Option<Digest>,
}

/// Identifies a session: one agent connection and its upstream connection. A UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The agent disconnected.
    AgentLeft,
    /// The agent disconnected, and upstream did not finish its last statement in time.
    UpstreamUnfinished,
    /// Upstream closed the connection.
    UpstreamClosed,
    /// Upstream sent what the protocol does not allow.
    UpstreamOutOfStep,
    /// The agent sent what the protocol does not allow.
    ProtocolViolation,
    /// The proxy shuts down, and the session was idle.
    Drained,
    /// The proxy shut down without waiting for the session.
    ShutDown,
    /// An operator ended it.
    Killed,
    /// The agent is no longer configured, or not with this owner or upstream.
    AgentRevoked,
    /// The token that the agent signed in with has expired.
    TokenExpired,
}

impl SessionEnd {
    /// The reason in one lower-case phrase, as the ledger has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentLeft => "the agent left",
            Self::UpstreamUnfinished => "upstream did not finish after the agent had left",
            Self::UpstreamClosed => "upstream closed the connection",
            Self::UpstreamOutOfStep => "upstream broke the protocol",
            Self::ProtocolViolation => "the agent broke the protocol",
            Self::Drained => "drained",
            Self::ShutDown => "the proxy shut down",
            Self::Killed => "ended by an operator",
            Self::AgentRevoked => "the agent is no longer allowed here",
            Self::TokenExpired => "the agent's token has expired",
        }
    }
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies an approval request: a UUIDv7, and a short code that people can read aloud.
///
/// The code is what agents, reviewers, URLs and commands use; the desk makes sure that no two
/// requests it knows share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// Crockford's base 32: no I, L, O, U.
    const ALPHABET: &'static [u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    /// Six characters from the random part of the UUID, as in `7F3K-2Q`.
    #[must_use]
    pub fn code(&self) -> String {
        let mut bits = self.0.as_u128();
        let mut code = String::with_capacity(7);
        for place in 0..6 {
            if place == 4 {
                code.push('-');
            }
            let index = (bits & 31) as usize;
            code.push(Self::ALPHABET.get(index).map_or('0', |&byte| char::from(byte)));
            bits >>= 5;
        }
        code
    }

    /// Folds what a person typed into the spelling of [`Self::code`]: case, a missing hyphen, and
    /// the letters that look like digits. `None` when it cannot be a code.
    #[must_use]
    pub fn normalise_code(typed: &str) -> Option<String> {
        let mut code = String::with_capacity(7);
        for typed in typed.trim().chars().filter(|c| *c != '-') {
            let folded = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            if !folded.is_ascii() || !Self::ALPHABET.contains(&(folded as u8)) || code.len() > 6 {
                return None;
            }
            if code.len() == 4 {
                code.push('-');
            }
            code.push(folded);
        }
        (code.len() == 7).then_some(code)
    }
}

impl RequestId {
    /// The lowest 30 bits of the ids whose code this is; `None` when it cannot be a code.
    #[must_use]
    pub fn bits_of_code(typed: &str) -> Option<u32> {
        let code = Self::normalise_code(typed)?;
        let places = code.bytes().filter(|byte| *byte != b'-').rev().map(|byte| {
            let place = Self::ALPHABET.iter().position(|letter| *letter == byte)?;
            u32::try_from(place).ok()
        });
        places.into_iter().try_fold(0, |bits, place| Some(bits << 5 | place?))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

name_type! {
    /// The name of a policy rule.
    RuleName
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(sql: &str, value: &'static [u8]) -> Statement {
        Statement {
            via: Via::Bind,
            sql: sql.into(),
            parameters: Arc::from([Parameter { format: 0, type_oid: 23, value: Some(value.into()) }]),
        }
    }

    #[test]
    fn the_digest_covers_text_values_types_and_the_way_it_came() {
        let one = bind("delete from t where id = $1", b"1");
        let mut typed = one.clone();
        typed.parameters = Arc::from([Parameter { format: 0, type_oid: 25, value: Some("1".into()) }]);
        let simple = Statement::query(one.sql.clone());

        let digests = [
            one.digest(),
            bind("delete from t where id = $1", b"2").digest(),
            typed.digest(),
            simple.digest(),
        ];

        for (place, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(place));
        }
    }

    #[test]
    fn debug_output_never_shows_sql_or_values() {
        let shown = format!("{:?}", bind("alter role bob password 'hunter2'", b"hunter2"));

        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_request_code_survives_being_read_aloud() {
        let id = RequestId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0123_4567_89ab));
        let code = id.code();

        assert_eq!(code.len(), 7);
        assert_eq!(RequestId::normalise_code(&code.to_lowercase().replace('-', "")), Some(code));
        assert_eq!(RequestId::normalise_code("7f3k-2"), None);
        assert_eq!(RequestId::normalise_code("7f3k-2q9"), None);
        assert_eq!(RequestId::normalise_code("o1l0-ii").as_deref(), Some("0110-11"));
    }
}
