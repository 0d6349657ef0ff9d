//! Whose a column is that is named without its table.
//!
//! In `DELETE FROM t WHERE x IN (SELECT x FROM u)` the inner x is u's; but where u has no such column, it is
//! t's, and every row goes. Postgres looks from the inside to the outside (`colNameToVar`), and so does this,
//! with the columns that the catalogue knows.

use super::sources::{From, Source};
use super::{Analysis, DEEPEST, Reads};
use crate::classify::SearchPath;
use crate::classify::catalogue::{Catalogue, Has};
use crate::classify::tree::{Field, Kind, Node};

/// What names of tables mean.
#[derive(Clone, Copy)]
pub(in crate::classify::walk) struct Names<'p> {
    pub(in crate::classify::walk) catalogue: &'p Catalogue,
    pub(in crate::classify::walk) path: &'p SearchPath,
}

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

impl<'t> Analysis<'t, '_> {
    /// Whose the column `name` is that stands at `column`; `None` where tables are not known at all.
    pub(super) fn whose(&self, column: Node<'t>, name: &str) -> Option<Whose> {
        let home = self.home.filter(|_| self.names.catalogue.is_loaded())?;
        let target = self.target_has(name);
        let mut unclear = false;
        let mut below = column;
        // What the way leads out of: a query in a FROM sees nothing beside it, unless it is lateral.
        let mut hidden = false;
        let mut beside = false;
        while let Some(node) = below.parent() {
            if !self.can_step() {
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

    /// The same where the way out has come to the statement or query whose FROM has the table.
    fn at_home(&self, home: Node<'t>, name: &str, target: Has, unclear: bool, hidden: bool) -> Whose {
        if hidden || matches!(home.kind(), Kind::InsertStmt) {
            return if unclear && target != Has::No { Whose::Unclear } else { Whose::Other };
        }
        let mut found = None;
        let mut unknown = false;
        for other in &self.others {
            match self.has_column(other.node, name, self.depth) {
                Has::Yes => found = Some(other),
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

    fn target_has(&self, name: &str) -> Has {
        self.target_node.map_or(Has::Unknown, |target| self.has_column(target, name, self.depth))
    }

    /// Whether a FROM of `query`, or the table that it changes, has a column, and the item's name.
    fn query_has(&self, query: Node<'t>, name: &str) -> (Has, Option<String>) {
        let items = [Field::FromClause, Field::UsingClause].into_iter().flat_map(|field| query.list(field));
        let tables =
            [Field::Relation, Field::SourceRelation].into_iter().filter_map(|field| query.get(field));
        let mut found = (Has::No, None);
        for source in From::of(items.chain(tables)).sources {
            match self.has_column(source.node, name, self.depth) {
                Has::Yes => return (Has::Yes, source.name),
                Has::Unknown => found.0 = Has::Unknown,
                Has::No => {}
            }
        }
        found
    }

    /// Whether an item of a FROM has a column.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own is not known")]
    fn has_column(&self, source: Node<'t>, name: &str, depth: u32) -> Has {
        if depth > DEEPEST || !self.can_step() {
            return Has::Unknown;
        }
        let own = match source.kind() {
            Kind::RangeVar => {
                let table = source.text(Field::Relname).unwrap_or_default();
                match self.with_clause(source) {
                    Some(with) => self.with_has(with, source, name, depth),
                    None => {
                        let schema = source.text(Field::Schemaname);
                        self.names.catalogue.has_column(schema.as_deref(), &table, name, self.names.path)
                    }
                }
            }
            Kind::RangeSubselect => {
                source.get(Field::Subquery).map_or(Has::Unknown, |query| self.returns(query, name, depth + 1))
            }
            Kind::RangeTableSample => source
                .get(Field::Relation)
                .map_or(Has::Unknown, |table| self.has_column(table, name, depth + 1)),
            // Under an alias of its own.
            Kind::JoinExpr => {
                let sides = [Field::Larg, Field::Rarg].into_iter().filter_map(|side| source.get(side));
                any(sides.map(|side| self.has_column(side, name, depth + 1)))
            }
            _ if source
                .list(Field::Coldeflist)
                .any(|column| column.text(Field::Colname).as_deref() == Some(name)) =>
            {
                Has::Yes
            }
            _ => Has::Unknown,
        };
        match source.get(Field::Alias) {
            Some(alias) => renamed(alias, Field::Colnames, name, own),
            None => own,
        }
    }

    /// Whether a WITH query has a column, as `table` sees it.
    fn with_has(&self, with: Node<'t>, table: Node<'t>, name: &str, depth: u32) -> Has {
        let query = with.get(Field::Ctequery);
        // A recursive query that names itself, has the columns of its first half.
        let inside = (with.index()..with.end()).contains(&table.index());
        let query = query.and_then(|query| if inside { query.get(Field::Larg) } else { Some(query) });
        let own = query.map_or(Has::Unknown, |query| self.returns(query, name, depth + 1));
        let searched = with.has(Field::SearchClause) || with.has(Field::CycleClause);
        let has = renamed(with, Field::Aliascolnames, name, own);
        // SEARCH and CYCLE add some.
        if has == Has::No && searched { Has::Unknown } else { has }
    }

    /// Whether what a query returns has a column of that name.
    fn returns(&self, query: Node<'t>, name: &str, depth: u32) -> Has {
        if depth > DEEPEST || !self.can_step() {
            return Has::Unknown;
        }
        if !matches!(query.word(Field::Op), "" | "SETOP_NONE") {
            return query.get(Field::Larg).map_or(Has::Unknown, |first| self.returns(first, name, depth + 1));
        }
        if let Some(row) = query.list(Field::ValuesLists).next() {
            let place = name.strip_prefix("column").and_then(|place| place.parse::<usize>().ok());
            let there = place.is_some_and(|place| (1..=row.children().count()).contains(&place));
            return if there { Has::Yes } else { Has::No };
        }
        if query.kind() != Kind::SelectStmt {
            return Has::Unknown;
        }
        let from = From::of(query.list(Field::FromClause));
        any(query.list(Field::TargetList).map(|item| self.is_called(item, name, &from, depth)))
    }

    /// Whether an item of a SELECT list is, or expands to, a column of that name (`FigureColname`).
    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own is not known")]
    fn is_called(&self, item: Node<'t>, name: &str, from: &From<'t>, depth: u32) -> Has {
        let is = |known: &str| if known == name { Has::Yes } else { Has::No };
        if let Some(label) = item.text(Field::Name) {
            return is(&label);
        }
        let Some(value) = item.get(Field::Val) else { return Has::Unknown };
        match value.kind() {
            Kind::ColumnRef if value.list(Field::Fields).any(|field| field.kind() == Kind::AStar) => {
                let qualifier = value.names(Field::Fields).last().map(|name| name.to_string());
                let meant =
                    from.sources.iter().filter(|source| qualifier.is_none() || source.name == qualifier);
                let mut known = meant.map(|source| self.has_column(source.node, name, depth + 1)).peekable();
                // Of a table further out.
                if known.peek().is_none() { Has::Unknown } else { any(known) }
            }
            Kind::ColumnRef => value.names(Field::Fields).last().map_or(Has::Unknown, |last| is(last)),
            Kind::FuncCall => value.names(Field::Funcname).last().map_or(Has::Unknown, |last| is(last)),
            Kind::AConst | Kind::ParamRef | Kind::AExpr | Kind::BoolExpr => is("?column?"),
            _ => Has::Unknown,
        }
    }

    fn can_step(&self) -> bool {
        let left = self.patience.get().checked_sub(1);
        self.patience.set(left.unwrap_or(0));
        left.is_some()
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
            Whose::Source(_) | Whose::Other => Reads::OTHER,
            Whose::Unclear => Reads::EITHER,
        }
    }
}

pub(super) fn is_a_query(node: Node<'_>) -> bool {
    matches!(
        node.kind(),
        Kind::SelectStmt | Kind::InsertStmt | Kind::UpdateStmt | Kind::DeleteStmt | Kind::MergeStmt
    )
}

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

/// Whether any of some has it.
fn any(all: impl Iterator<Item = Has>) -> Has {
    all.fold(Has::No, |so_far, next| match (so_far, next) {
        (Has::Yes, _) | (_, Has::Yes) => Has::Yes,
        (Has::Unknown, _) | (_, Has::Unknown) => Has::Unknown,
        (Has::No, Has::No) => Has::No,
    })
}

/// The same behind a list of other names for the first columns.
fn renamed(alias: Node<'_>, list: Field, name: &str, own: Has) -> Has {
    let mut listed = alias.list(list).filter_map(Node::string).peekable();
    if listed.peek().is_none() {
        return own;
    }
    match (listed.any(|listed| listed == name), own) {
        (true, _) => Has::Yes,
        (false, Has::No) => Has::No,
        (false, Has::Yes | Has::Unknown) => Has::Unknown,
    }
}

impl<'t> Source<'t> {
    /// Another item of the same FROM.
    pub(super) fn again(&self) -> Self {
        Self { node: self.node, name: self.name.clone() }
    }
}
