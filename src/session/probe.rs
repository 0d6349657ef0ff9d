//! Asking upstream itself what state the session is in.
//!
//! What a grant is bound to comes from here: when a hold opens, and again right before the statement is
//! forwarded, a few `SHOW`s run on the agent's own upstream connection. So does what the session knows of
//! its search path and its role, once something may have changed them. `SHOW` takes no snapshot, so a
//! `SET TRANSACTION` may still follow; the statement and portal have names of their own, so the agent's
//! unnamed ones survive.
//!
//! A probe ends in a `Sync` where nothing of the agent's would end with it. In the middle of a pipeline that
//! has run something it ends in a `Flush`: it is then part of the pipeline's own transaction, and what it
//! says holds until that ends.
//!
//! Where a statement would be harmless if the relations that it changes were temporary tables, or no temporary
//! views, one more question asks that. It takes a snapshot, as the statement itself is about to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::message::frontend;

use super::denial::Substitutes;
use super::upstream::Fate;
use super::{Output, Owed, Session};
use crate::refusal::Refusal;
use crate::statement::{RelationCheck, ServerTimers, TransactionStatus};
use crate::wire::backend::{self, tag};
use crate::wire::frame::Frame;

/// The settings that decide what a statement means or may do. All exist since PostgreSQL 14.
pub const SETTINGS: [&str; 27] = [
    // Those that decide what names mean, which are asked for by themselves as well.
    "session_authorization",
    "role",
    "search_path",
    "standard_conforming_strings",
    "backslash_quote",
    "client_encoding",
    "session_replication_role",
    "row_security",
    "transaction_isolation",
    "transaction_read_only",
    // How literals and values are read and written.
    "DateStyle",
    "TimeZone",
    "IntervalStyle",
    "bytea_output",
    "xmloption",
    "array_nulls",
    "transform_null_equals",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "timezone_abbreviations",
    "extra_float_digits",
    "xmlbinary",
    "default_text_search_config",
    "gin_fuzzy_search_limit",
    // Where what is created goes.
    "default_tablespace",
    "default_table_access_method",
];

/// How many of [`SETTINGS`], from the first, decide what names mean.
const OF_NAMES: usize = 3;

/// What a probe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Questions {
    /// What decides what names mean: the search path, and who the session acts as.
    Names,
    /// All of [`SETTINGS`].
    Everything,
}

impl Questions {
    /// The settings that are asked for.
    #[must_use]
    pub fn settings(self) -> &'static [&'static str] {
        let all = &SETTINGS[..];
        match self {
            Self::Names => all.get(..OF_NAMES).unwrap_or(all),
            Self::Everything => all,
        }
    }
}

/// The answer where the session has no temporary view at all.
const NO_VIEWS: &str = "none";

/// A question about relations.
#[derive(Clone, Copy, Debug)]
pub struct RelationQuestion<'a> {
    /// What has to be so.
    pub check: RelationCheck,
    /// Their names, at least one.
    pub names: &'a [Arc<str>],
}

impl RelationQuestion<'_> {
    /// Answers `t` where it is so, or [`NO_VIEWS`]. Operators and functions are named with their schema: the
    /// session's path may lead elsewhere.
    fn sql(&self) -> String {
        let escaped = |name: &Arc<str>| name.replace('\'', "''");
        if self.check == RelationCheck::NoTemporaryViews {
            let names: Vec<String> = self.names.iter().map(|name| format!("'{}'", escaped(name))).collect();
            let views = "EXISTS (SELECT FROM pg_catalog.pg_class c
 WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND c.relhasrules";
            return format!(
                "SELECT CASE WHEN NOT {views}) THEN '{NO_VIEWS}' WHEN NOT {views}
 AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.name[])) THEN 't' ELSE 'f' END",
                names.join(", ")
            );
        }
        let quoted = |name: &Arc<str>| format!("'\"{}\"'", escaped(name).replace('"', "\"\""));
        let names: Vec<String> = self.names.iter().map(quoted).collect();
        let tables = self.check == RelationCheck::TemporaryTables;
        let rules = if tables { " AND NOT c.relhasrules" } else { "" };
        format!(
            "SELECT pg_catalog.bool_and(COALESCE(c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema(){rules}, false))
 FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) AS n(name)
 LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(n.name)::pg_catalog.oid",
            names.join(", ")
        )
    }
}

/// What upstream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Each setting that was asked for, with its value.
    pub settings: BTreeMap<Arc<str>, Arc<str>>,
    /// The transaction status that upstream last told.
    pub status: TransactionStatus,
    /// Whether upstream has confirmed what it was asked about relations.
    pub confirmed: bool,
    /// Timers that may end the session while it waits. No grant is bound to them.
    pub timers: ServerTimers,
}

/// Why upstream did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailed {
    /// It answered with an error; an open transaction is aborted by it.
    #[error("upstream answered with an error")]
    Refused,
    /// The connection is gone.
    #[error("upstream is gone")]
    Gone,
}

/// A probe under way.
#[derive(Debug)]
pub(super) struct Probe {
    questions: Questions,
    /// The timers that it asks for behind the settings.
    timers: &'static [&'static str],
    answers: Vec<Arc<str>>,
    /// How many `CloseComplete` have come; each question has two.
    closed: usize,
    failed: bool,
    /// Behind the settings, it asks about relations.
    of_relations: bool,
    /// [`Settings::changes`](super::settings::Settings::changes) when it was sent.
    changes: u64,
}

impl Probe {
    /// How many questions it asks.
    fn asked(&self) -> usize {
        self.questions.settings().len() + self.timers.len() + usize::from(self.of_relations)
    }
}

impl Session {
    /// Sends a probe, if upstream can answer one here: it has answered everything and its transaction has
    /// not failed. `false` when it cannot. The answer comes as [`Output::Probed`].
    pub fn probe(&mut self, questions: Questions) -> bool {
        self.probe_with(questions, None)
    }

    /// The same, and one question about relations.
    pub fn probe_with(&mut self, questions: Questions, question: Option<RelationQuestion<'_>>) -> bool {
        self.drop_copy_ends();
        let between_messages = self.copy_rest == 0 && self.passing.rest == 0;
        let failed = self.status == TransactionStatus::Failed;
        if !self.is_at_rest()
            || self.is_stuck()
            || self.ended
            || failed
            || !between_messages
            || self.probe.is_some()
        {
            return false;
        }
        // What was only parsed since the last `ReadyForQuery` survives a `Sync`.
        let synced = self.synced || !self.executed;
        let timers = if questions == Questions::Everything { self.timers_asked() } else { &[] };
        let name = self.substitutes.name("probe");
        let out = &mut self.to_upstream;
        for setting in questions.settings().iter().chain(timers) {
            put_question(&name, &format!("SHOW {setting}"), out);
        }
        if let Some(question) = &question {
            put_question(&name, &question.sql(), out);
        }
        if synced {
            frontend::sync(out);
        } else {
            Substitutes::flush(out);
        }
        let (answers, changes) = (Vec::new(), self.settings.changes());
        let of_relations = question.is_some();
        self.probe =
            Some(Probe { questions, timers, answers, closed: 0, failed: false, of_relations, changes });
        self.expect(Owed::Probe { synced }, None);
        true
    }

    /// The timers that this server has.
    fn timers_asked(&self) -> &'static [&'static str] {
        /// The first version that has `transaction_timeout`.
        const LIMITS_TRANSACTIONS: u32 = 17;
        let all = &ServerTimers::NAMES[..];
        if self.settings.server_version() >= LIMITS_TRANSACTIONS {
            all
        } else {
            all.split_last().map_or(all, |(_, idle)| idle)
        }
    }

    /// Keeps upstream from ending an idle session: a `Sync` whose answer nobody sees. It does nothing
    /// there, whatever the transaction's status, but to begin the time anew. `false` where upstream is not
    /// idle, so that no such timer runs, or one is on its way.
    pub fn keep_awake(&mut self) -> bool {
        let between_messages = self.copy_rest == 0 && self.passing.rest == 0;
        if !self.is_idle() || !between_messages || self.ended {
            return false;
        }
        Substitutes::sync(&mut self.to_upstream);
        self.owe(Owed::KeepAlive);
        true
    }

    /// Whether upstream owes nothing, or nothing but answers to what keeps it awake.
    fn is_at_rest(&self) -> bool {
        self.expected.iter().all(|expected| matches!(expected.kind, Owed::KeepAlive))
    }

    /// An answer to our own probe.
    pub(super) fn probe_answer(&mut self, frame: Frame<'_>, now_ns: u64) -> Result<Fate, Refusal> {
        let synced = matches!(
            self.expected.front().map(|expected| &expected.kind),
            Some(Owed::Probe { synced: true })
        );
        let Some(probe) = &mut self.probe else { return Err(Self::out_of_step()) };
        match frame.tag {
            tag::DATA_ROW => {
                let value = backend::first_column(frame.body()).ok().flatten();
                probe.answers.extend(value.map(Arc::from));
            }
            tag::ERROR => {
                self.failed = true;
                probe.failed = true;
            }
            tag::CLOSE_COMPLETE => {
                probe.closed += 1;
                if !synced && probe.closed == 2 * probe.asked() {
                    self.expected.pop_front();
                    self.told_in_pipeline = true;
                    self.probe_ends();
                }
            }
            tag::READY if synced => {
                self.ready(frame.body(), now_ns)?;
                self.probe_ends();
            }
            tag::PARSE_COMPLETE | tag::BIND_COMPLETE | tag::COMMAND_COMPLETE => {}
            _ => return Err(Self::out_of_step()),
        }
        Ok(Fate::Swallow)
    }

    /// All of its answers have come.
    fn probe_ends(&mut self) {
        let Some(mut probe) = self.probe.take() else { return };
        let names = probe.questions.settings();
        let complete = !probe.failed && probe.answers.len() == probe.asked();
        let answer = if probe.of_relations { probe.answers.pop() } else { None };
        let no_views = complete && answer.as_deref() == Some(NO_VIEWS);
        let confirmed = no_views || answer.as_deref() == Some("t");
        // Nothing was forwarded since the question was.
        if no_views {
            self.settings.has_no_temporary_views();
        }
        let probed = if complete {
            let answers = probe.answers.get(names.len()..).unwrap_or_default();
            let timers = ServerTimers::of(|name| {
                let place = probe.timers.iter().position(|timer| *timer == name)?;
                answers.get(place).map(|answer| &**answer)
            });
            let settings: BTreeMap<Arc<str>, Arc<str>> =
                names.iter().map(|&name| Arc::from(name)).zip(probe.answers).collect();
            let value = |name| settings.get(name).map(|value| &**value);
            if let (Some(path), Some(role), Some(session_user)) =
                (value("search_path"), value("role"), value("session_authorization"))
            {
                self.settings.learn(probe.changes, path, role, session_user);
            }
            Ok(Probed { settings, status: self.status, confirmed, timers })
        } else {
            Err(ProbeFailed::Refused)
        };
        self.outputs.push_back(Output::Probed(probed));
    }
}

/// Parse, Bind, Execute, and Close of both, so that nothing of ours stays behind.
fn put_question(name: &str, sql: &str, out: &mut BytesMut) {
    let before = out.len();
    let written = frontend::parse(name, sql, [], out)
        .map(|()| put_bind(name, out))
        .and_then(|()| frontend::execute(name, 0, out))
        .and_then(|()| frontend::close(b'P', name, out))
        .and_then(|()| frontend::close(b'S', name, out));
    // Fails only for a NUL in a name, which ours do not have.
    if written.is_err() {
        out.truncate(before);
    }
}

fn put_bind(name: &str, out: &mut BytesMut) {
    out.put_u8(b'B');
    out.put_u32((4 + 2 * (name.len() + 1) + 6) as u32);
    for _ in 0..2 {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
    }
    out.put_slice(&[0; 6]);
}
