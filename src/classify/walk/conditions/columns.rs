//! Whose a column is that is named without its table.
//!
//! In `DELETE FROM t WHERE x IN (SELECT x FROM u)` the inner x is u's; but where u has no such column, it is
//! t's, and every row goes. Postgres looks from the inside to the outside (`colNameToVar`), and so does this,
//! with the columns that the catalogue knows.

use super::{Analysis, Reads};
use crate::classify::catalogue::{Constraint, Has};
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::walk::sources::{DEEPEST, From, is_a_query};

/// Whose a column is, seen from the table whose rows are to be picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The table's own.
    Target,
    /// Of another item of a FROM, by its name.
    Source(Option<String>),
    /// Somebody else's.
    Other,
    /// One or the other.
    Unclear,
}

/// What stands behind a column of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Something of its rows.
    OfTheRow,
    /// Something that is worked out of one of its columns, or of several.
    WorkedOut,
    /// A constant, or a value that many rows share.
    Up,
    /// The place of the row in an order.
    Rank {
        /// In each of several groups.
        starts_anew: bool,
    },
}

impl<'t> Analysis<'t, '_> {
    /// Whose the column `name` is that stands at `column`; `None` where tables are not known at all.
    pub(super) fn whose(&self, column: Node<'t>, name: &str) -> Option<Whose> {
        let home = self.home?;
        if !self.tables.catalogue.is_loaded() {
            return self.is_nobody_elses(home, column, name).then_some(Whose::Target);
        }
        let target = self.target_has(name);
        let mut unclear = false;
        let mut below = column;
        // What the way leads out of: a query in a FROM sees nothing beside it, unless it is lateral.
        let mut hidden = false;
        let mut beside = false;
        while let Some(node) = below.parent() {
            if !self.tables.patience.can_step() {
                return Some(Whose::Unclear);
            }
            match (node.kind(), below.field()) {
                (Kind::WithClause, _) => hidden = true,
                (Kind::RangeSubselect, _) => (hidden, beside) = (!node.flag(Field::Lateral), true),
                (Kind::RangeFunction | Kind::RangeTableFunc | Kind::JsonTable, _) => beside = true,
                // A join sees its own sides.
                (Kind::JoinExpr, Field::Quals) => beside = true,
                _ => {}
            }
            if node.index() == home.index() {
                return Some(self.at_home(home, name, target, unclear || beside, hidden));
            }
            if is_a_query(node) {
                if !hidden {
                    match self.query_has(node, name) {
                        (Has::Yes, _) if beside => unclear = true,
                        (Has::Yes, _) if unclear => return Some(Whose::Unclear),
                        (Has::Yes, source) => return Some(Whose::Source(source)),
                        (Has::Unknown, _) => unclear = true,
                        (Has::No, _) => {}
                    }
                }
                (hidden, beside) = (false, false);
                // Whoever it is, it is not the table.
                if target == Has::No && unclear {
                    return Some(Whose::Other);
                }
            }
            below = node;
        }
        Some(Whose::Unclear)
    }

    /// Where tables are not known: whether all queries around a column say themselves that they have none of that
    /// name. `WITH u AS (SELECT 1 AS y) DELETE FROM t WHERE id IN (SELECT id FROM u)`
    fn is_nobody_elses(&self, home: Node<'t>, column: Node<'t>, name: &str) -> bool {
        let mut queries = 0;
        let mut below = column;
        while let Some(node) = below.parent() {
            let beside = matches!(
                (node.kind(), below.field()),
                (Kind::WithClause | Kind::RangeSubselect | Kind::RangeFunction | Kind::RangeTableFunc, _)
                    | (Kind::JsonTable, _)
                    | (Kind::JoinExpr, Field::Quals)
            );
            if beside || !self.tables.patience.can_step() {
                return false;
            }
            if node.index() == home.index() {
                return queries > 0 && self.others.is_empty();
            }
            if is_a_query(node) {
                queries += 1;
                if self.query_has(node, name).0 != Has::No {
                    return false;
                }
            }
            below = node;
        }
        false
    }

    /// The same where the way out has come to the statement or query whose FROM has the table.
    fn at_home(&self, home: Node<'t>, name: &str, target: Has, unclear: bool, hidden: bool) -> Whose {
        if hidden || matches!(home.kind(), Kind::InsertStmt) {
            return if unclear && target != Has::No { Whose::Unclear } else { Whose::Other };
        }
        let mut found = None;
        let mut unknown = false;
        for other in &self.others {
            match self.tables.has_column(other.node, name, self.depth) {
                Has::Yes => found = Some(other),
                // `unnest(..) AS name`
                Has::Unknown if other.name.as_deref() == Some(name) => found = Some(other),
                Has::Unknown => unknown = true,
                Has::No => {}
            }
        }
        // A name that nobody further out could have.
        let outermost = home.kind() != Kind::SelectStmt || !is_within_a_query(home);
        match (target, found) {
            _ if unclear && target != Has::No => Whose::Unclear,
            // A column of which the catalogue has not heard yet.
            (Has::No, None) if outermost && self.others.is_empty() => Whose::Target,
            (Has::No, Some(other)) => Whose::Source(other.name.clone()),
            (Has::No, None) => Whose::Other,
            (Has::Yes, None) if !unknown => Whose::Target,
            (Has::Unknown, None) if !unknown && outermost => Whose::Target,
            _ => Whose::Unclear,
        }
    }

    /// What the table says of its column.
    pub(super) fn constraint(&self, name: &str) -> Option<Constraint> {
        self.constraint_of(self.target_node?, name)
    }

    /// The same of another item of a FROM.
    pub(super) fn constraint_of(&self, table: Node<'t>, column: &str) -> Option<Constraint> {
        let name = table.text(Field::Relname).filter(|_| table.kind() == Kind::RangeVar)?;
        if self.tables.with_clause(table).is_some() {
            return None;
        }
        let schema = table.text(Field::Schemaname);
        self.tables.catalogue.constraint(schema.as_deref(), &name, column, self.tables.path)
    }

    /// What stands behind a column of the target, where that is a query; nothing where it is a table, or not plain.
    pub(super) fn made_of(&self, reads: Reads, column: &str) -> Option<Made> {
        let target = self.target_node.filter(|_| reads == Reads::OWN || reads == Reads::EITHER)?;
        self.made_in(target, column, 0)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only queries make columns")]
    fn made_in(&self, source: Node<'t>, column: &str, depth: u32) -> Option<Made> {
        let (with, query) = match source.kind() {
            Kind::RangeVar => {
                let with = self.tables.with_clause(source)?;
                (Some(with), with.get(Field::Ctequery)?)
            }
            Kind::RangeSubselect => (None, source.get(Field::Subquery)?),
            _ => return None,
        };
        if depth > DEEPEST || !self.tables.patience.can_afford(query) {
            return Some(Made::Up);
        }
        // `(SELECT id, 1 FROM t) q(id, x)`
        let place = |names: Vec<std::borrow::Cow<'t, str>>| names.iter().position(|name| *name == column);
        let by_alias = source.get(Field::Alias).and_then(|alias| place(alias.names(Field::Colnames)));
        let by_name = || with.and_then(|with| place(with.names(Field::Aliascolnames)));
        let items = || query.list(Field::TargetList);
        let item = match by_alias.or_else(by_name) {
            Some(place) => items().nth(place),
            None => items().find(|item| item.text(Field::Name).as_deref() == Some(column)),
        };
        let Some(item) = item else {
            // `SELECT *`, `SELECT rn`
            let from = From::of(query.list(Field::FromClause));
            return from.sources.iter().find_map(|source| self.made_in(source.node, column, depth + 1));
        };
        let value = item.get(Field::Val)?;
        let window = value.get(Field::Over);
        let name = value.names(Field::Funcname).last().map(ToString::to_string);
        Some(match (window, name.as_deref()) {
            // `rank() OVER ()` is 1 in every row.
            (Some(window), Some("rank" | "dense_rank"))
                if !window.has(Field::Name)
                    && !window.has(Field::Refname)
                    && !window
                        .list(Field::OrderClause)
                        .flat_map(Node::within)
                        .any(|node| node.kind() == Kind::ColumnRef) =>
            {
                Made::Up
            }
            (Some(window), Some("row_number" | "rank" | "dense_rank")) => Made::Rank {
                // A window of a name may be partitioned where it is defined.
                starts_anew: window.has(Field::PartitionClause)
                    || window.has(Field::Name)
                    || window.has(Field::Refname),
            },
            (Some(_), _) => Made::Up,
            _ if value.kind() == Kind::ColumnRef => {
                let fields: Vec<_> = value.list(Field::Fields).filter_map(Node::string).collect();
                let from = From::of(query.list(Field::FromClause));
                let inner = fields.last().and_then(|name| {
                    from.sources.iter().find_map(|source| self.made_in(source.node, name, depth + 1))
                });
                inner.unwrap_or(Made::OfTheRow)
            }
            _ => worked_out(value),
        })
    }

    /// Whether a column of the target, where that is a query, may be another by another name, or be worked out of it.
    pub(super) fn may_be_renamed(&self, column: &str) -> bool {
        self.target_node.is_some_and(|target| self.kept(target, column, 0) == Some(false))
    }

    /// Whether `column` of an item of a FROM is the column of that name of what is behind it; `None` where it surely
    /// has none, or is a table.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only queries have columns by other names")]
    fn kept(&self, source: Node<'t>, column: &str, depth: u32) -> Option<bool> {
        let (query, renamed) = match source.kind() {
            Kind::RangeVar => {
                let with = self.tables.with_clause(source)?;
                (with.get(Field::Ctequery)?, with.has(Field::Aliascolnames))
            }
            Kind::RangeSubselect => (source.get(Field::Subquery)?, false),
            _ => return None,
        };
        let renamed = renamed || source.get(Field::Alias).is_some_and(|alias| alias.has(Field::Colnames));
        if renamed || query.has(Field::Larg) || depth > DEEPEST || !self.tables.patience.can_afford(query) {
            return Some(false);
        }
        let named = |item: &Node<'t>| {
            let value = item.get(Field::Val);
            let fields = value.map(|value| value.list(Field::Fields)).into_iter().flatten();
            let own = fields.filter_map(Node::string).last();
            (item.text(Field::Name).or(own.clone()).as_deref() == Some(column)).then_some(own)
        };
        let all = |item: Node<'t>| item.within().any(|part| part.kind() == Kind::AStar);
        match query.list(Field::TargetList).find_map(|item| named(&item)) {
            Some(own) if own.as_deref() != Some(column) => return Some(false),
            Some(_) => {}
            None if query.list(Field::TargetList).any(all) => {}
            None => return None,
        }
        let from = From::of(query.list(Field::FromClause));
        let mut behind = from.sources.iter().map(|source| self.kept(source.node, column, depth + 1));
        Some(behind.all(|kept| kept != Some(false)))
    }

    fn target_has(&self, name: &str) -> Has {
        self.target_node.map_or(Has::Unknown, |target| self.tables.has_column(target, name, self.depth))
    }

    /// Whether a FROM of `query`, or the table that it changes, has a column, and the item's name.
    fn query_has(&self, query: Node<'t>, name: &str) -> (Has, Option<String>) {
        let items = [Field::FromClause, Field::UsingClause].into_iter().flat_map(|field| query.list(field));
        let tables =
            [Field::Relation, Field::SourceRelation].into_iter().filter_map(|field| query.get(field));
        let mut found = (Has::No, None);
        for source in From::of(items.chain(tables)).sources {
            match self.tables.has_column(source.node, name, self.depth) {
                Has::Yes => return (Has::Yes, source.name),
                Has::Unknown if source.name.as_deref() == Some(name) => return (Has::Yes, source.name),
                Has::Unknown => found.0 = Has::Unknown,
                Has::No => {}
            }
        }
        found
    }

    /// What reads a column of a source, or of the target, as [`Reads`].
    pub(super) fn reads_of(&self, whose: Whose) -> Reads {
        let named =
            |names: &[String], name: &Option<String>| name.as_ref().is_some_and(|name| names.contains(name));
        match whose {
            Whose::Target => Reads::OWN,
            Whose::Source(name) if named(&self.twins, &name) => Reads::TWIN,
            Whose::Source(name) if named(&self.copies, &name) => Reads::COPY,
            Whose::Source(_) | Whose::Other if self.only_values => Reads::COPY,
            // One of them, perhaps.
            Whose::Other if !self.twins.is_empty() || !self.copies.is_empty() => {
                Reads::COPY.and(Reads::OTHER)
            }
            Whose::Source(_) | Whose::Other => Reads::OTHER,
            Whose::Unclear => Reads::EITHER,
        }
    }
}

/// What an expression over a row's columns is: not `a - a`, `0 * a`, `a % 2`.
pub(super) fn worked_out(value: Node<'_>) -> Made {
    let mut seen: Vec<String> = Vec::new();
    for node in value.within() {
        let says_little = node.kind() == Kind::AExpr
            && node.names(Field::Name).last().is_some_and(|name| matches!(&**name, "*" | "/" | "%"));
        if says_little && node.children().any(|side| side.kind() == Kind::AConst) {
            return Made::Up;
        }
        if node.kind() == Kind::ColumnRef {
            let name = node.list(Field::Fields).filter_map(Node::string).last();
            let name = name.map_or_else(|| "*".to_owned(), |name| name.into_owned());
            if seen.contains(&name) || seen.len() > MOST_COLUMNS {
                return Made::Up;
            }
            seen.push(name);
        }
    }
    if seen.is_empty() { Made::Up } else { Made::WorkedOut }
}

/// More columns in one expression are not told apart.
const MOST_COLUMNS: usize = 16;

fn is_within_a_query(query: Node<'_>) -> bool {
    let mut around = query.parent();
    while let Some(node) = around {
        // Legs of a set operation stand side by side.
        let leg = node.kind() == Kind::SelectStmt && node.has(Field::Larg);
        if is_a_query(node) && !leg {
            return true;
        }
        around = node.parent();
    }
    false
}
