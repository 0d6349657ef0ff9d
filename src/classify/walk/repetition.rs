//! How often a statement runs a call: at most once, or once for each row of something.
//!
//! `SELECT lo_unlink(5)` removes one large object, `SELECT lo_unlink(oid) FROM t` any number of them. The
//! answer follows the call's place up to the statement: each query on the way multiplies by its rows, unless
//! it surely has no more than one. Everything that is not recognised as one row counts as many.

use super::sources::{DEEPEST, Tables};
use super::{Names, Walk};
use crate::classify::functions::{is_aggregate, is_set_returning};
use crate::classify::tree::{Field, Kind, Node};

impl<'a> Walk<'a> {
    /// Whether a statement may run the call at `node` more than once.
    pub(super) fn may_repeat(&self, node: Node<'a>) -> bool {
        let names: Names<'_> = self.names();
        Repetition { tables: names.with(&self.patience) }.may_repeat(node)
    }
}

struct Repetition<'p> {
    tables: Tables<'p>,
}

impl Repetition<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only queries and stored expressions multiply")]
    fn may_repeat(&self, call: Node<'_>) -> bool {
        // Whether an aggregate of the query that is being left may take the call as its argument.
        let mut within_aggregate = false;
        let mut part = call;
        while let Some(around) = part.parent() {
            if !self.tables.patience.can_step() {
                return true;
            }
            let field = part.field();
            let repeats = match around.kind() {
                Kind::SelectStmt => self.query_repeats(around, field, within_aggregate),
                // Once for each row that is inserted.
                Kind::InsertStmt => {
                    let once =
                        around.get(Field::SelectStmt).is_none_or(|query| self.returns_one_row(query, 0));
                    matches!(field, Field::OnConflictClause | Field::ReturningClause) && !once
                }
                Kind::UpdateStmt | Kind::DeleteStmt => {
                    field != Field::WithClause && !self.changes_one_row(around)
                }
                Kind::MergeStmt => field != Field::WithClause,
                Kind::CopyStmt => field == Field::WhereClause,
                // Defaults and checks run for each row that is ever written.
                Kind::ColumnDef
                | Kind::Constraint
                | Kind::AlterTableCmd
                | Kind::ViewStmt
                | Kind::RuleStmt => true,
                _ => false,
            };
            if repeats {
                return true;
            }
            within_aggregate = match around.kind() {
                Kind::SelectStmt
                | Kind::InsertStmt
                | Kind::UpdateStmt
                | Kind::DeleteStmt
                | Kind::MergeStmt => false,
                Kind::JsonArrayAgg | Kind::JsonObjectAgg => true,
                Kind::FuncCall => within_aggregate || self.may_be_aggregate(around),
                _ => within_aggregate,
            };
            part = around;
        }
        self.tables.patience.is_over()
    }

    /// Whether a query runs what stands in one of its clauses more than once.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named runs for each row")]
    fn query_repeats(&self, query: Node<'_>, clause: Field, within_aggregate: bool) -> bool {
        match clause {
            Field::Larg | Field::Rarg | Field::WithClause | Field::LimitCount | Field::LimitOffset => false,
            // Only a single row may hold a function that makes several of it.
            Field::ValuesLists => !has_several_rows(query) && self.may_return_sets(query, Field::ValuesLists),
            // Beside other items, a function or a subquery is run again for their rows.
            Field::FromClause => {
                let mut items = query.list(Field::FromClause);
                let first = items.next();
                first.is_none_or(|item| item.kind() == Kind::JoinExpr) || items.next().is_some()
            }
            Field::TargetList | Field::HavingClause => {
                if self.may_return_sets(query, Field::TargetList) {
                    return true;
                }
                let one_group = !within_aggregate && self.is_one_group(query);
                let limited = clause == Field::TargetList && !within_aggregate && takes_one_row(query);
                !one_group && !limited && !self.reads_one_row(query, 0)
            }
            _ => !self.reads_one_row(query, 0),
        }
    }

    /// Whether a query surely returns one row at most.
    fn returns_one_row(&self, query: Node<'_>, depth: u32) -> bool {
        if depth > DEEPEST || !self.tables.patience.can_step() || query.kind() != Kind::SelectStmt {
            return false;
        }
        if !matches!(query.word(Field::Op), "" | "SETOP_NONE") {
            return false;
        }
        if query.has(Field::ValuesLists) {
            return !has_several_rows(query) && !self.may_return_sets(query, Field::ValuesLists);
        }
        if takes_one_row(query) {
            return true;
        }
        !self.may_return_sets(query, Field::TargetList)
            && (self.is_one_group(query) || self.reads_one_row(query, depth))
    }

    /// Whether there is surely no more than one row for a query's expressions, before it is grouped.
    fn reads_one_row(&self, query: Node<'_>, depth: u32) -> bool {
        let mut items = query.list(Field::FromClause);
        let Some(first) = items.next() else { return true };
        if items.next().is_some() {
            return false;
        }
        self.is_one_row(first, depth + 1)
            || query.get(Field::WhereClause).is_some_and(|condition| self.picks_one_row(first, condition))
    }

    /// Whether an item of a FROM surely has no more than one row.
    fn is_one_row(&self, item: Node<'_>, depth: u32) -> bool {
        if depth > DEEPEST || !self.tables.patience.can_step() {
            return false;
        }
        if item.kind() == Kind::RangeSubselect {
            return item.get(Field::Subquery).is_some_and(|query| self.returns_one_row(query, depth + 1));
        }
        let Some(with) = self.tables.with_clause(item) else { return false };
        // A query that names itself grows.
        let inside = (with.index()..with.end()).contains(&item.index());
        !inside && with.get(Field::Ctequery).is_some_and(|query| self.returns_one_row(query, depth + 1))
    }

    /// Whether an UPDATE or DELETE changes one row at most.
    fn changes_one_row(&self, statement: Node<'_>) -> bool {
        let alone = !statement.has(Field::FromClause) && !statement.has(Field::UsingClause);
        alone
            && statement.get(Field::Relation).is_some_and(|table| {
                statement
                    .get(Field::WhereClause)
                    .is_some_and(|condition| self.picks_one_row(table, condition))
            })
    }

    /// Whether a condition wants one value of a key of the table.
    fn picks_one_row(&self, table: Node<'_>, condition: Node<'_>) -> bool {
        if table.kind() != Kind::RangeVar || self.tables.with_clause(table).is_some() {
            return false;
        }
        let alias = table.get(Field::Alias).and_then(|alias| alias.text(Field::Aliasname));
        // Other names for its columns.
        if table.get(Field::Alias).is_some_and(|alias| alias.has(Field::Colnames)) {
            return false;
        }
        let name = table.text(Field::Relname).unwrap_or_default();
        let schema = table.text(Field::Schemaname);
        let called = alias.as_deref().unwrap_or(&name);
        let is_key = |column: Node<'_>| {
            let names = column.names(Field::Fields);
            let own = match names.as_slice() {
                [column] => Some(column),
                [qualifier, column] if **qualifier == *called => Some(column),
                _ => None,
            };
            column.kind() == Kind::ColumnRef
                && own.is_some_and(|column| {
                    let (catalogue, path) = (self.tables.catalogue, self.tables.path);
                    catalogue
                        .constraint(schema.as_deref(), &name, column, path)
                        .is_some_and(|constraint| constraint.is_key)
                })
        };
        let mut open = vec![condition];
        while let Some(part) = open.pop() {
            if !self.tables.patience.can_step() {
                return false;
            }
            if part.kind() == Kind::BoolExpr && part.word(Field::Boolop) == "AND_EXPR" {
                open.extend(part.list(Field::Args));
                continue;
            }
            if part.kind() != Kind::AExpr
                || part.word(Field::Kind) != "AEXPR_OP"
                || part.names(Field::Name) != ["="]
            {
                continue;
            }
            let (Some(left), Some(right)) = (part.get(Field::Lexpr), part.get(Field::Rexpr)) else {
                continue;
            };
            if (is_key(left) && is_value(right)) || (is_key(right) && is_value(left)) {
                return true;
            }
        }
        false
    }

    /// Whether a query's rows are surely one group: it has an aggregate of its own and no GROUP BY.
    fn is_one_group(&self, query: Node<'_>) -> bool {
        if query.has(Field::GroupClause) {
            return false;
        }
        // An aggregate of columns further out belongs to the query that they are of.
        let mut around = query.parent();
        let mut sees_others = false;
        while let Some(node) = around {
            if !self.tables.patience.can_step() {
                return false;
            }
            sees_others |= node.kind() == Kind::SubLink
                || (node.kind() == Kind::RangeSubselect && node.flag(Field::Lateral));
            around = node.parent();
        }
        let own = |call: Node<'_>| {
            let names = call.names(Field::Funcname);
            let known = match names.as_slice() {
                [name] => is_aggregate(name),
                [schema, name] => **schema == *"pg_catalog" && is_aggregate(name),
                _ => false,
            };
            known && !call.has(Field::Over) && (call.flag(Field::AggStar) || !sees_others)
        };
        [Field::TargetList, Field::HavingClause]
            .into_iter()
            .filter_map(|clause| query.get(clause))
            .any(|clause| self.any_call(clause, own))
    }

    /// Whether a clause may make several rows of one by a function that returns a set.
    fn may_return_sets(&self, query: Node<'_>, clause: Field) -> bool {
        let sets = |call: Node<'_>| {
            let names = call.names(Field::Funcname);
            match names.as_slice() {
                [.., name] => is_set_returning(name) || !self.tables.catalogue.is_built_in(name),
                [] => true,
            }
        };
        query.get(clause).is_some_and(|clause| self.any_call(clause, sets))
    }

    /// Whether some call of a clause, those of its subqueries left out, is of a kind. Where no patience is left
    /// to tell, [`Self::may_repeat`] says so in the end.
    fn any_call<'t>(&self, clause: Node<'t>, is: impl Fn(Node<'t>) -> bool) -> bool {
        let mut open: Vec<Node<'t>> = vec![clause];
        while let Some(node) = open.pop() {
            if !self.tables.patience.can_step() {
                return false;
            }
            if node.kind() == Kind::FuncCall && is(node) {
                return true;
            }
            if node.kind() != Kind::SubLink {
                open.extend(node.children());
            }
        }
        false
    }

    fn may_be_aggregate(&self, call: Node<'_>) -> bool {
        let names = call.names(Field::Funcname);
        names.last().is_none_or(|name| is_aggregate(name) || !self.tables.catalogue.is_built_in(name))
    }
}

/// Whether a VALUES has more than one row.
fn has_several_rows(query: Node<'_>) -> bool {
    query.list(Field::ValuesLists).nth(1).is_some()
}

/// Whether a query stops at its first row, before anything is made of the second.
fn takes_one_row(query: Node<'_>) -> bool {
    let one = query.get(Field::LimitCount).is_some_and(|limit| {
        limit.kind() == Kind::AConst
            && limit.get(Field::Ival).is_some_and(|value| value.number(Field::Ival) <= 1)
    });
    let else_first = [
        Field::LimitOffset,
        Field::DistinctClause,
        Field::GroupClause,
        Field::HavingClause,
        Field::SortClause,
        Field::WindowClause,
        Field::LockingClause,
    ];
    one && query.word(Field::LimitOption) != "LIMIT_OPTION_WITH_TIES"
        && !else_first.into_iter().any(|clause| query.has(clause))
        && !query.has(Field::Larg)
        && !query
            .list(Field::TargetList)
            .any(|item| item.within().any(|node| node.kind() == Kind::FuncCall && node.has(Field::Over)))
}

/// Whether an expression is one value, given or bound.
fn is_value(node: Node<'_>) -> bool {
    let cast = node.kind() == Kind::TypeCast;
    let value = if cast { node.get(Field::Arg) } else { Some(node) };
    value.is_some_and(|value| matches!(value.kind(), Kind::AConst | Kind::ParamRef))
}
