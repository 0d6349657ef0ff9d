//! The tables of the index, their schema, and the row that an entry becomes.

use rusqlite::types::Value as Cell;

use crate::ledger::cbor::Value;
use crate::ledger::display::{display, display_time};
use crate::ledger::entry::{Entry, Key, Kind, Shape};

/// A table of the index: which entries it holds, and which of their fields.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) holds: fn(Kind) -> bool,
    pub(super) columns: &'static [Key],
}

pub(super) const TABLES: [Table; 8] = [
    Table {
        name: "statement",
        holds: |kind| matches!(kind, Kind::Statement | Kind::Refused),
        columns: &[
            Key::Kind,
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Upstream,
            Key::Database,
            Key::Role,
            Key::Via,
            Key::Class,
            Key::Clearance,
            Key::Refusal,
            Key::Rules,
            Key::Request,
            Key::InTransaction,
            Key::Fingerprint,
            Key::Effects,
            Key::Reasons,
            Key::Sql,
            Key::Ending,
            Key::Tag,
            Key::SqlState,
            Key::Rows,
            Key::Bytes,
            Key::Duration,
        ],
    },
    Table {
        name: "outcome",
        holds: |kind| kind == Kind::Outcome,
        columns: &[
            Key::Ref,
            Key::Ending,
            Key::Tag,
            Key::SqlState,
            Key::Rows,
            Key::Bytes,
            Key::Duration,
            Key::Transaction,
        ],
    },
    Table {
        name: "request",
        holds: |kind| kind == Kind::RequestOpened,
        columns: &[
            Key::Request,
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Upstream,
            Key::Database,
            Key::Class,
            Key::Rules,
            Key::Effects,
            Key::Reasons,
            Key::Sql,
            Key::Approvals,
            Key::Assurance,
            Key::Expires,
        ],
    },
    Table {
        name: "review",
        holds: |kind| kind == Kind::Review,
        columns: &[
            Key::Request,
            Key::Reviewer,
            Key::Groups,
            Key::Verdict,
            Key::Channel,
            Key::Assurance,
            Key::Counted,
            Key::WhyNot,
            Key::Reason,
        ],
    },
    Table {
        name: "ending",
        holds: |kind| kind == Kind::RequestClosed,
        columns: &[Key::Request, Key::State, Key::What, Key::Reviewer],
    },
    Table {
        name: "session",
        holds: |kind| kind == Kind::SessionOpened,
        columns: &[
            Key::Session,
            Key::Agent,
            Key::Owners,
            Key::Method,
            Key::Address,
            Key::Upstream,
            Key::Database,
            Key::Role,
            Key::Verified,
            Key::Claimed,
        ],
    },
    Table {
        name: "session_end",
        holds: |kind| kind == Kind::SessionClosed,
        columns: &[Key::Session, Key::What],
    },
    Table {
        name: "event",
        holds: |kind| {
            let elsewhere = matches!(
                kind,
                Kind::Statement
                    | Kind::Refused
                    | Kind::Outcome
                    | Kind::RequestOpened
                    | Kind::Review
                    | Kind::RequestClosed
                    | Kind::SessionOpened
                    | Kind::SessionClosed
                    | Kind::CheckpointRef
                    | Kind::Anchored
            );
            !elsewhere
        },
        columns: &[Key::Kind, Key::Request, Key::What, Key::By, Key::Count],
    },
];

/// What makes searches quick, and what people read.
const REST: &str = "
CREATE INDEX statement_agent ON statement (agent, seq);
CREATE INDEX statement_session ON statement (session, seq);
CREATE INDEX statement_request ON statement (request) WHERE request IS NOT NULL;
CREATE INDEX outcome_ref ON outcome (ref);
CREATE INDEX request_request ON request (request);
CREATE INDEX review_request ON review (request);
CREATE INDEX ending_request ON ending (request);
CREATE INDEX session_session ON session (session);
CREATE INDEX session_end_session ON session_end (session);
CREATE VIEW statements AS
SELECT s.seq, s.time, s.agent, s.class,
  CASE WHEN s.kind = 'refused' THEN s.refusal ELSE coalesce(o.ending, s.ending, 'running') END AS state,
  s.sql, s.clearance, s.rules,
  (SELECT group_concat(v.reviewer, ', ') FROM review v WHERE v.request = s.request AND v.counted = 1
    AND v.verdict = CASE WHEN s.kind = 'refused' THEN 'deny' ELSE 'approve' END) AS reviewer,
  coalesce(o.tag, s.tag) AS tag, coalesce(o.sqlstate, s.sqlstate) AS sqlstate,
  coalesce(o.rows, s.rows) AS rows, coalesce(o.bytes, s.bytes) AS bytes,
  coalesce(o.duration, s.duration) / 1000000.0 AS milliseconds,
  s.upstream, s.database, s.role, s.in_transaction, s.effects, s.reasons, s.session, s.request,
  s.fingerprint, o.seq AS outcome_seq
FROM statement s LEFT JOIN outcome o ON o.ref = s.seq;
CREATE VIEW decisions AS
SELECT r.seq, r.time, r.agent, r.class, coalesce(
    (SELECT e.state FROM ending e WHERE e.request = r.request ORDER BY e.seq DESC LIMIT 1), 'waiting') AS state,
  r.sql,
  (SELECT group_concat(v.reviewer || ' ' || v.verdict || ' (' || v.channel || ', ' || v.assurance || ')', ', ')
    FROM review v WHERE v.request = r.request AND v.counted = 1) AS reviews,
  (SELECT count(*) FROM review v WHERE v.request = r.request AND v.counted = 0) AS not_counted,
  r.approvals, r.rules, r.reasons, r.owners, r.expires, r.upstream, r.database, r.session, r.request,
  (SELECT s.seq FROM statement s WHERE s.request = r.request AND s.clearance = 'granted') AS statement_seq
FROM request r;
CREATE VIEW sessions AS
SELECT s.seq, s.time AS began, e.time AS ended, s.agent, s.owners, s.method, s.address, s.upstream,
  s.database, s.role, s.verified, s.claimed, e.what AS why_ended,
  (SELECT count(*) FROM statement t WHERE t.session = s.session) AS statements, s.session
FROM session s LEFT JOIN session_end e ON e.session = s.session;
";

/// The whole schema, one statement after the other.
pub(super) fn schema() -> String {
    let mut sql =
        "CREATE TABLE meta (origin TEXT NOT NULL, size INTEGER NOT NULL, format INTEGER NOT NULL) STRICT;"
            .to_owned();
    for table in &TABLES {
        let mut columns = vec!["seq INTEGER PRIMARY KEY".to_owned(), "time TEXT NOT NULL".to_owned()];
        columns.extend(table.columns.iter().map(|key| format!("{} {}", key.name(), type_of(*key))));
        sql.push_str(&format!("\nCREATE TABLE {} ({}) STRICT;", table.name, columns.join(", ")));
    }
    sql + REST
}

fn type_of(key: Key) -> &'static str {
    let is_number = matches!(key.shape(), Shape::Uint | Shape::Bool) && key != Key::Kind;
    if is_number { "INTEGER" } else { "TEXT" }
}

/// A field as the index has it.
fn cell(entry: &Entry<'_>, key: Key, text: &mut dyn FnMut(Key) -> Option<Vec<u8>>) -> Cell {
    if key == Key::Kind {
        return Cell::Text(entry.kind().name().to_owned());
    }
    if key.shape() == Shape::Commitment {
        let value = if entry.has(key) { text(key) } else { None };
        return value.map_or(Cell::Null, |value| Cell::Text(String::from_utf8_lossy(&value).into_owned()));
    }
    entry.value(key).map_or(Cell::Null, |value| match (key.shape(), value) {
        (Shape::Uint, Value::Uint(number)) => Cell::Integer(i64::try_from(*number).unwrap_or(i64::MAX)),
        (Shape::Bool, Value::Bool(truth)) => Cell::Integer(i64::from(*truth)),
        (shape, value) => Cell::Text(display(key, shape, value)),
    })
}

/// The table an entry belongs into, and its row.
pub(super) fn derive(
    entry: &Entry<'_>,
    text: &mut dyn FnMut(Key) -> Option<Vec<u8>>,
) -> Option<(usize, Vec<Cell>)> {
    let place = TABLES.iter().position(|table| (table.holds)(entry.kind()))?;
    let table = TABLES.get(place)?;
    let time = display_time(entry.uint(Key::Wall).unwrap_or_default());
    let mut row = Vec::with_capacity(table.columns.len() + 2);
    row.push(Cell::Integer(i64::try_from(entry.seq()).unwrap_or(i64::MAX)));
    row.push(Cell::Text(time));
    row.extend(table.columns.iter().map(|key| cell(entry, *key, text)));
    Some((place, row))
}

pub(super) fn insert_sql(table: &Table) -> String {
    let places = vec!["?"; table.columns.len() + 2].join(", ");
    format!("INSERT INTO {} VALUES ({places})", table.name)
}
