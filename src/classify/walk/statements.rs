//! Statements that read, write and wrap rows.

use std::sync::Arc;

use super::Walk;
use super::conditions::{self, Verdict};
use super::patience::Patience;
use super::sources::Names;
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::{BoundValue, NameUse, ObjectKind, StatementClass, Verb, names};

/// FETCH of more rows than this is taking data out in bulk.
const LARGE_FETCH: u64 = 10_000;

impl<'a> Walk<'a> {
    /// SELECT, VALUES and TABLE.
    pub(super) fn select(&mut self, node: Node<'a>) {
        self.enter_scope(node);
        self.does(StatementClass::Read, node, "");
        self.reads_sensitive(node, Field::FromClause);
        if let Some(into) = node.get(Field::IntoClause) {
            self.creates_table(node, into.get(Field::Rel), "creates a table from a query");
        }
        if node.has(Field::LockingClause) {
            self.does(StatementClass::Write, node, "locks rows");
            for table in node.list(Field::FromClause).filter(|item| item.kind() == Kind::RangeVar) {
                let (schema, name) = (table.text(Field::Schemaname), table.text(Field::Relname));
                self.effect(Verb::Lock, ObjectKind::Relation, schema.as_deref(), &name.unwrap_or_default());
            }
        }
    }

    pub(super) fn insert(&mut self, node: Node<'a>) {
        self.enter_scope(node);
        self.does(StatementClass::Write, node, "inserts rows");
        self.returns_sensitive(node, Field::FromClause);
        let target = node.get(Field::Relation);
        if self.overwrites_itself(node) && !target.is_some_and(|target| self.writes_temporary_table(target)) {
            self.does(
                StatementClass::MassWrite,
                node,
                "overwrites every row, perhaps: it inserts the table into itself, or a series of keys",
            );
        }
    }

    /// `INSERT INTO t SELECT .. FROM t ON CONFLICT .. DO UPDATE ..` is an UPDATE of the whole of t.
    fn overwrites_itself(&self, node: Node<'a>) -> bool {
        let updates = node
            .get(Field::OnConflictClause)
            .is_some_and(|conflict| conflict.word(Field::Action) == "ONCONFLICT_UPDATE");
        let Some(query) = node.get(Field::SelectStmt) else { return false };
        updates
            && (conditions::brings_all_back(self.names(), node, query, &self.patience)
                || conditions::counts(query))
    }

    pub(super) fn update(&mut self, node: Node<'a>) {
        self.enter_scope(node);
        self.does(StatementClass::Write, node, "updates rows");
        self.reads_sensitive(node, Field::FromClause);
        self.returns_sensitive(node, Field::FromClause);
        self.needs_condition(node, "updates");
    }

    pub(super) fn delete(&mut self, node: Node<'a>) {
        self.enter_scope(node);
        self.does(StatementClass::Write, node, "deletes rows");
        self.reads_sensitive(node, Field::UsingClause);
        self.returns_sensitive(node, Field::UsingClause);
        self.needs_condition(node, "deletes");
    }

    fn needs_condition(&mut self, node: Node<'a>, what: &str) {
        let target = node.get(Field::Relation);
        if target.is_some_and(|target| self.writes_temporary_table(target)) {
            return;
        }
        let why = match node.get(Field::WhereClause) {
            None => format!("{what} every row: there is no WHERE"),
            Some(condition) => match conditions::picks_rows(self.names(), node, condition, &self.patience) {
                Verdict::Picks => return,
                Verdict::SameForAll => format!("{what} every row: its WHERE does not depend on the row"),
                Verdict::Unclear => {
                    format!("{what} every row, perhaps: its WHERE is not one that surely picks some")
                }
            },
        };
        self.does(StatementClass::MassWrite, node, &why);
    }

    pub(super) fn merge(&mut self, node: Node<'a>) {
        self.enter_scope(node);
        self.does(StatementClass::Write, node, "merges rows");
        self.merges_sensitive(node);
        self.returns_sensitive(node, Field::SourceRelation);
        if node.get(Field::Relation).is_some_and(|target| self.writes_temporary_table(target)) {
            return;
        }
        let picks = node.get(Field::JoinCondition).is_some_and(|condition| {
            conditions::picks_rows(self.names(), node, condition, &self.patience) == Verdict::Picks
        });
        for branch in node.list(Field::MergeWhenClauses) {
            let changes = matches!(branch.word(Field::CommandType), "CMD_UPDATE" | "CMD_DELETE");
            match branch.word(Field::MatchKind) {
                "MERGE_WHEN_NOT_MATCHED_BY_SOURCE" if changes => {
                    self.does(
                        StatementClass::MassWrite,
                        node,
                        "changes every row that the source does not have",
                    );
                }
                "MERGE_WHEN_MATCHED" if changes && !picks => {
                    self.does(
                        StatementClass::MassWrite,
                        node,
                        "changes every row, perhaps: its condition is not one that surely picks some",
                    );
                }
                _ => {}
            }
        }
    }

    pub(super) fn truncate(&mut self, node: Node<'a>) {
        if node.list(Field::Relations).all(|table| self.is_temporary(table)) {
            self.does(StatementClass::Write, node, "empties temporary tables");
        } else {
            self.does(StatementClass::MassWrite, node, "removes every row");
        }
    }

    pub(super) fn copy(&mut self, node: Node<'a>) {
        if node.flag(Field::IsProgram) {
            self.does(StatementClass::ServerIo, node, "runs a program on the server");
        } else if node.has(Field::Filename) {
            self.does(StatementClass::ServerIo, node, "reads or writes a file of the server");
        }
        if node.flag(Field::IsFrom) {
            self.does(StatementClass::Write, node, "copies rows in");
        } else {
            let what = match (node.get(Field::Relation), node.get(Field::Query)) {
                (Some(table), _) => {
                    let schema =
                        table.text(Field::Schemaname).map(|schema| format!("{schema}.")).unwrap_or_default();
                    let name = table.text(Field::Relname).unwrap_or_default();
                    format!("copies rows out: all of {schema}{name}")
                }
                (None, Some(query)) => {
                    format!("copies rows out: {}", scope_of(self.names(), query, &self.patience))
                }
                (None, None) => "copies rows out".to_owned(),
            };
            self.does(StatementClass::Export, node, &what);
        }
    }

    pub(super) fn fetch(&mut self, node: Node<'a>) {
        let (rows, moves) = (node.number(Field::HowMany), node.flag(Field::Ismove));
        // ABSOLUTE and RELATIVE return one row, however large their number.
        let many = matches!(node.word(Field::Direction), "FETCH_FORWARD" | "FETCH_BACKWARD")
            && rows.unsigned_abs() > LARGE_FETCH;
        if many && !moves {
            self.does(StatementClass::Export, node, "fetches more than 10,000 rows of a cursor, or all");
        } else {
            self.does(StatementClass::Read, node, "");
        }
    }

    /// EXPLAIN. With ANALYZE it runs the statement; without, planning still evaluates functions.
    pub(super) fn explain(&mut self, node: Node<'a>) {
        self.does(StatementClass::Read, node, "");
        let mut analyzes = node
            .list(Field::Options)
            .filter(|option| option.text(Field::Defname).as_deref() == Some("analyze"));
        // Postgres takes the last of several; any that is not surely off is enough for us.
        let runs = analyzes.any(|option| !option.get(Field::Arg).is_some_and(is_off));
        if let Some(query) = node.get(Field::Query).filter(|_| !runs) {
            self.planned_until = self.planned_until.max(query.end());
        }
    }

    /// PREPARE and DECLARE are what they wrap.
    pub(super) fn deferred(&mut self, node: Node<'a>) {
        self.does(StatementClass::Read, node, "");
        self.later_until = self.later_until.max(node.end());
    }

    /// EXECUTE is what was prepared under the name, wherever that was. Inside a plain EXPLAIN we take
    /// it for the same, because the plan may evaluate any function in it.
    pub(super) fn execute(&mut self, node: Node<'a>) {
        let name: Arc<str> = node.text(Field::Name).unwrap_or_default().into();
        let known = self.prepared.get(&name).copied();
        self.class = self.class.max(StatementClass::Read);
        let span = Some(self.part_range.clone());
        match known {
            Some(class) if !class.changes_nothing() => {
                self.finds(class, format!("executes {name}, prepared in the same text"), span);
            }
            Some(_) => {}
            None => self.finds_for_now(StatementClass::Code, names::unknown(&name), span),
        }
        let values = node.list(Field::Params).map(|value| match value.literal() {
            Some(text) => BoundValue::Text(text.into()),
            None if value.flag(Field::Isnull) => BoundValue::Null,
            None => BoundValue::Unknown,
        });
        let values = values.collect();
        let (part, known) = (self.part, known.is_some());
        self.found.names.push(NameUse { name, part, known, otherwise: StatementClass::Read, values });
    }
}

/// How much a query returns, as far as its text says.
fn scope_of(names: Names<'_>, query: Node<'_>, patience: &Patience) -> &'static str {
    if query.kind() != Kind::SelectStmt {
        return "those that it changes";
    }
    let limited = query.has(Field::LimitCount);
    let picked = query.get(Field::WhereClause);
    match picked {
        _ if limited => "as many as its LIMIT says",
        Some(condition) if conditions::picks_any(names, query, condition, patience) => {
            "those that its WHERE picks"
        }
        Some(_) => "perhaps all that there are: its WHERE is not one that surely picks some",
        None => "all that there are: it has no WHERE and no LIMIT",
    }
}

/// Whether a relation is temporary by the way it is written.
pub(super) fn is_temporary(relation: Node<'_>) -> bool {
    let kept = relation.text(Field::Relpersistence);
    kept.as_deref() == Some("t") || relation.text(Field::Schemaname).as_deref() == Some("pg_temp")
}

impl<'a> Walk<'a> {
    /// Whether a relation that a statement changes is temporary: by the way it is written or, where that is
    /// assumed of names without a schema, because upstream will be asked.
    pub(super) fn is_temporary(&mut self, relation: Node<'a>) -> bool {
        if is_temporary(relation) {
            return true;
        }
        let assumed = self.around.assumes_temporary && !relation.has(Field::Schemaname);
        if assumed {
            let name = relation.text(Field::Relname).unwrap_or_default();
            self.found.assumed_temporary.push(name.into());
            self.assumed.insert(relation.index());
        }
        assumed
    }

    /// Whether the rows that a statement changes are those of a temporary table. Where upstream is asked, it
    /// has to be one without rules: a view, or a rule, hands writes on to other tables.
    pub(super) fn writes_temporary_table(&mut self, relation: Node<'a>) -> bool {
        let temporary = self.is_temporary(relation);
        self.found.writes_assumed_temporary |= temporary;
        temporary
    }
}

/// Whether an option's argument is certainly false.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, it is not certainly false")]
fn is_off(argument: Node<'_>) -> bool {
    match argument.kind() {
        Kind::Integer => argument.number(Field::Ival) == 0,
        Kind::Boolean => !argument.flag(Field::Boolval),
        Kind::String => {
            let text = argument.string().unwrap_or_default();
            text.eq_ignore_ascii_case("off") || text.eq_ignore_ascii_case("false")
        }
        _ => false,
    }
}
