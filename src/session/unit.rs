//! A unit: the agent's messages from one `Sync` to the next `Sync` or `Flush`, or one `Query`.
//!
//! A unit keeps the agent's bytes as they came; items are ranges of them. While it is decided it is
//! also an overlay on the session's names, because its later messages refer to its earlier ones.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::names::{Name, Prepared};
use super::texts::Texts;
use super::{RunKey, fast_path};
use crate::statement::{Parameter, SessionEffect, SqlText, Statement, Step, Via};
use crate::wire::frame::{Frame, HEADER, Malformed};
use crate::wire::frontend::{self, Bind, Execute, FunctionCall, Named, Parse, tag};

/// One message of a unit.
#[derive(Debug)]
pub(super) struct Item {
    /// Its frame within the unit's bytes.
    pub(super) range: Range<usize>,
    pub(super) kind: Kind,
    /// The receipt's run, once it has one.
    pub(super) run: Option<RunKey>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `covered`: a `Bind` of the same unit that has a receipt carries this text.
    Parse {
        name: Name,
        prepared: Arc<Prepared>,
        covered: bool,
    },
    Bind {
        portal: Name,
        statement: Name,
    },
    Describe,
    Execute {
        portal: Name,
    },
    CloseStatement(Name),
    ClosePortal(Name),
    Flush,
    Sync,
    Query(SqlText),
    FunctionCall,
    CopyData,
    CopyEnd,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) bytes: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// Names that SQL statements of this unit prepare or declare, once they are decided.
    sql_statements: Vec<(usize, Name, Arc<Prepared>)>,
    sql_portals: Vec<(usize, Name, RunKey)>,
    /// Where the `Parse` and `Bind` items are.
    parses: Vec<usize>,
    binds: Vec<usize>,
}

impl Unit {
    /// The most messages of a unit, so that looking names up in it stays cheap; a longer unit is
    /// decided in parts.
    pub(super) const MOST_ITEMS: usize = 4096;

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.sql_statements.clear();
        self.sql_portals.clear();
        self.parses.clear();
        self.binds.clear();
        // One huge statement must not keep its memory for the rest of the session.
        if self.bytes.capacity() > 256 << 10 {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Adds a message. Only types that a unit is made of come here.
    pub(super) fn push(&mut self, frame: Frame<'_>, texts: &mut Texts) -> Result<(), Malformed> {
        let body = frame.body();
        let kind = match frame.tag {
            tag::PARSE => {
                let parse = Parse::read(body)?;
                let sql = SqlText::new(texts.copy_shared(parse.sql));
                let prepared = Arc::new(Prepared { sql, types: parse.types().collect() });
                Kind::Parse { name: Name::new(parse.name), prepared, covered: false }
            }
            tag::BIND => {
                let bind = Bind::read(body)?;
                Kind::Bind { portal: Name::new(bind.portal), statement: Name::new(bind.statement) }
            }
            tag::DESCRIBE => {
                Named::read(body)?;
                Kind::Describe
            }
            tag::EXECUTE => Kind::Execute { portal: Name::new(Execute::read(body)?.portal) },
            tag::CLOSE => match Named::read(body)? {
                Named::Statement(name) => Kind::CloseStatement(Name::new(name)),
                Named::Portal(name) => Kind::ClosePortal(Name::new(name)),
            },
            tag::FLUSH if body.is_empty() => Kind::Flush,
            tag::SYNC if body.is_empty() => Kind::Sync,
            tag::QUERY => Kind::Query(SqlText::new(texts.copy(frontend::query(body)?))),
            tag::FUNCTION_CALL => {
                FunctionCall::read(body)?;
                Kind::FunctionCall
            }
            tag::COPY_DATA => Kind::CopyData,
            tag::COPY_DONE | tag::COPY_FAIL => Kind::CopyEnd,
            _ => return Err(Malformed),
        };
        if matches!(kind, Kind::Parse { .. }) {
            self.parses.push(self.items.len());
        } else if matches!(kind, Kind::Bind { .. }) {
            self.binds.push(self.items.len());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame.bytes);
        self.items.push(Item { range: start..self.bytes.len(), kind, run: None });
        Ok(())
    }

    /// The agent's bytes of item `at`.
    pub(super) fn frame(&self, at: usize) -> &[u8] {
        self.items.get(at).and_then(|item| self.bytes.get(item.range.clone())).unwrap_or_default()
    }

    /// The statement's name in item `at`, a `Bind`, or the portal's, in an `Execute`, whole: tables know
    /// 63 bytes of it, and errors tell all.
    pub(super) fn name_as_sent(&self, at: usize) -> String {
        let body = self.frame(at).get(HEADER..).unwrap_or_default();
        let name = match self.items.get(at).map(|item| &item.kind) {
            Some(Kind::Bind { .. }) => Bind::read(body).map(|bind| bind.statement),
            _ => Execute::read(body).map(|execute| execute.portal),
        };
        String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
    }

    /// What the `Execute` at item `at` amounts to where its portal is a cursor that SQL declared: the
    /// `FETCH` that does the same.
    pub(super) fn fetched_statement(&self, at: usize) -> Option<Statement> {
        let execute = Execute::read(self.frame(at).get(HEADER..)?).ok()?;
        let name = String::from_utf8_lossy(execute.portal).replace('"', "\"\"");
        let count = if execute.rows > 0 { execute.rows.to_string() } else { "ALL".to_owned() };
        let sql = format!("FETCH FORWARD {count} FROM \"{name}\"");
        Some(Statement { via: Via::Bind, sql: sql.as_str().into(), parameters: Arc::from([]) })
    }

    /// What `name` stands for because of messages before item `end` of this unit, and the item of
    /// the `Parse` that said so. The latest one counts: had an earlier one of the same name still
    /// stood, it would have failed, and everything behind it would be skipped.
    pub(super) fn statement_before(&self, name: &Name, end: usize) -> Option<(Arc<Prepared>, Option<usize>)> {
        let parsed = self.parses.iter().rev().filter(|&&at| at < end).find_map(|&at| {
            let Kind::Parse { name: parsed, prepared, .. } = &self.items.get(at)?.kind else { return None };
            (parsed == name).then_some((at, prepared))
        });
        let sql = self.sql_statements.iter().rev().find(|(at, prepared, _)| *at < end && prepared == name);
        match (parsed, sql) {
            (Some((parsed_at, prepared)), sql) if sql.is_none_or(|(at, ..)| *at < parsed_at) => {
                Some((Arc::clone(prepared), Some(parsed_at)))
            }
            (_, sql) => sql.map(|(_, _, prepared)| (Arc::clone(prepared), None)),
        }
    }

    /// Whether a later message of the unit binds what item `at` parses, before the name is parsed
    /// again.
    pub(super) fn is_bound_later(&self, at: usize, name: &Name) -> bool {
        let again = self.parses.iter().copied().filter(|&other| other > at).find(|&other| {
            self.items
                .get(other)
                .is_some_and(|item| matches!(&item.kind, Kind::Parse { name: again, .. } if again == name))
        });
        let mut binds =
            self.binds.iter().copied().filter(|&bind| bind > at && again.is_none_or(|again| bind < again));
        binds.any(|bind| {
            self.items
                .get(bind)
                .is_some_and(|item| matches!(&item.kind, Kind::Bind { statement, .. } if statement == name))
        })
    }

    /// The run of the portal that messages before item `end` bind under `name`; `Some(None)` when one
    /// is bound but has no receipt.
    pub(super) fn portal_before(&self, name: &Name, end: usize) -> Option<Option<RunKey>> {
        if let Some(at) = self.bind_before(name, end) {
            return self.items.get(at).map(|item| item.run);
        }
        let declared = self.sql_portals.iter().rev().find(|(at, portal, _)| *at < end && portal == name);
        declared.map(|(_, _, run)| Some(*run))
    }

    /// Where messages before item `end` bind the portal that `name` then stands for; `None` when none
    /// does, or when it is a cursor that SQL declared behind it.
    pub(super) fn bind_before(&self, name: &Name, end: usize) -> Option<usize> {
        let bound = self.binds.iter().copied().rev().filter(|&at| at < end).find(|&at| {
            let item = self.items.get(at);
            item.is_some_and(|item| matches!(&item.kind, Kind::Bind { portal, .. } if portal == name))
        })?;
        let declared =
            self.sql_portals.iter().any(|(at, portal, _)| (bound..end).contains(at) && portal == name);
        (!declared).then_some(bound)
    }

    /// Whether nothing between items `from` and `to` can change what anything means.
    pub(super) fn is_quiet_between(&self, from: usize, to: usize) -> bool {
        let between = self.items.get(from + 1..to).unwrap_or_default();
        between.iter().all(|item| matches!(item.kind, Kind::Describe))
    }

    /// Whether anything is executed before item `end`.
    pub(super) fn executes_before(&self, end: usize) -> bool {
        let before = self.items.get(..end).unwrap_or_default();
        before
            .iter()
            .any(|item| matches!(item.kind, Kind::Execute { .. } | Kind::Query(_) | Kind::FunctionCall))
    }

    /// Item `at`, an `Execute` or `Query`, runs a statement with these steps.
    pub(super) fn will_run(&mut self, at: usize, run: RunKey, sql: &SqlText, steps: &[Step]) {
        for effect in steps.iter().flat_map(|step| &step.effects) {
            if let SessionEffect::Prepare(name) = effect {
                let prepared = Prepared { sql: sql.clone(), types: Box::default() };
                self.sql_statements.push((at, Name::new(name.as_bytes()), Arc::new(prepared)));
            } else if let SessionEffect::Declare(name) = effect {
                self.sql_portals.push((at, Name::new(name.as_bytes()), run));
            }
        }
    }

    /// The statement that item `at`, a `FunctionCall`, would run.
    pub(super) fn called_statement(&self, at: usize) -> Option<Statement> {
        let frame = Bytes::copy_from_slice(self.frame(at).get(HEADER..)?);
        Some(fast_path::statement(&frame, &FunctionCall::read(&frame).ok()?))
    }

    /// The statement that item `at`, a `Bind`, would run.
    pub(super) fn bound_statement(&self, at: usize, prepared: &Prepared, texts: &Texts) -> Option<Statement> {
        // A utility statement's values are kept with its portal.
        let frame = texts.copy(self.frame(at).get(HEADER..)?);
        let bind = Bind::read(&frame).ok()?;
        let parameters: Arc<[Parameter]> = bind
            .values()
            .enumerate()
            .map(|(index, (format, value))| Parameter {
                format,
                type_oid: prepared.types.get(index).copied().unwrap_or(0),
                value: value.map(|value| frame.slice_ref(value)),
            })
            .collect();
        Some(Statement { via: Via::Bind, sql: prepared.sql.clone(), parameters })
    }
}
