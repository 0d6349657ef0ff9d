//! What stands in a FROM, and which columns that has.

use super::patience::Patience;
use crate::classify::SearchPath;
use crate::classify::catalogue::{Catalogue, Has};
use crate::classify::tree::{Field, Kind, Node};

/// Deeper subqueries are not looked into.
pub(super) const DEEPEST: u32 = 8;

/// One table, subquery or function of a FROM.
pub(super) struct Source<'t> {
    pub(super) node: Node<'t>,
    pub(super) name: Option<String>,
}

/// What a FROM is made of.
#[derive(Default)]
pub(super) struct From<'t> {
    pub(super) sources: Vec<Source<'t>>,
    /// The conditions of its inner joins.
    pub(super) joins: Vec<Node<'t>>,
}

impl<'t> From<'t> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all else is one item of a FROM")]
    pub(super) fn of(items: impl Iterator<Item = Node<'t>>) -> Self {
        let mut from = Self::default();
        let mut open: Vec<Node<'t>> = items.collect();
        while let Some(node) = open.pop() {
            match node.kind() {
                // Under an alias, a join's tables are out of reach, and what it brings may be all of them.
                Kind::JoinExpr if !node.has(Field::Alias) => {
                    open.extend([Field::Larg, Field::Rarg].into_iter().filter_map(|side| node.get(side)));
                    let inner = matches!(node.word(Field::Jointype), "" | "JOIN_INNER");
                    from.joins.extend(node.get(Field::Quals).filter(|_| inner));
                }
                Kind::RangeTableSample => open.extend(node.get(Field::Relation)),
                _ => {
                    let alias = node.get(Field::Alias).and_then(|alias| alias.text(Field::Aliasname));
                    let name = alias.or_else(|| node.text(Field::Relname)).map(|name| name.into_owned());
                    from.sources.push(Source { node, name });
                }
            }
        }
        from
    }
}

impl<'t> Source<'t> {
    /// Another item of the same FROM.
    pub(super) fn again(&self) -> Self {
        Self { node: self.node, name: self.name.clone() }
    }
}

/// What names of tables mean.
#[derive(Clone, Copy)]
pub(in crate::classify) struct Names<'p> {
    pub(in crate::classify) catalogue: &'p Catalogue,
    pub(in crate::classify) path: &'p SearchPath,
}

impl<'p> Names<'p> {
    /// With so many nodes to look at.
    pub(super) fn with(self, patience: &'p Patience) -> Tables<'p> {
        Tables { catalogue: self.catalogue, path: self.path, patience }
    }
}

/// The same, and how many nodes may still be looked at to tell.
#[derive(Clone, Copy)]
pub(super) struct Tables<'p> {
    pub(super) catalogue: &'p Catalogue,
    pub(super) path: &'p SearchPath,
    pub(super) patience: &'p Patience,
}

impl Tables<'_> {
    /// The WITH query that a name without a schema stands for.
    pub(super) fn with_clause<'t>(&self, table: Node<'t>) -> Option<Node<'t>> {
        if table.kind() != Kind::RangeVar || table.has(Field::Schemaname) {
            return None;
        }
        let name = table.text(Field::Relname)?;
        let mut around = table.parent();
        while let Some(node) = around {
            if !self.patience.can_step() {
                return None;
            }
            // Lists are long, and have no fields.
            if node.kind() != Kind::Items
                && let Some(with) = node.get(Field::WithClause)
            {
                let found = with
                    .list(Field::Ctes)
                    .inspect(|_| _ = self.patience.can_step())
                    .find(|cte| cte.text(Field::Ctename).as_deref() == Some(&name));
                if found.is_some() {
                    return found;
                }
            }
            around = node.parent();
        }
        None
    }

    /// Whether an item of a FROM has a column.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own is not known")]
    pub(super) fn has_column<'t>(&self, source: Node<'t>, name: &str, depth: u32) -> Has {
        if depth > DEEPEST || !self.patience.can_step() {
            return Has::Unknown;
        }
        let own = match source.kind() {
            Kind::RangeVar => {
                let table = source.text(Field::Relname).unwrap_or_default();
                match self.with_clause(source) {
                    Some(with) => self.with_has(with, source, name, depth),
                    None => {
                        let schema = source.text(Field::Schemaname);
                        self.catalogue.has_column(schema.as_deref(), &table, name, self.path)
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
    fn with_has<'t>(&self, with: Node<'t>, table: Node<'t>, name: &str, depth: u32) -> Has {
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
    fn returns<'t>(&self, query: Node<'t>, name: &str, depth: u32) -> Has {
        if depth > DEEPEST || !self.patience.can_step() {
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
    fn is_called<'t>(&self, item: Node<'t>, name: &str, from: &From<'t>, depth: u32) -> Has {
        let is = |known: &str| if known == name { Has::Yes } else { Has::No };
        if !self.patience.can_step() {
            return Has::Unknown;
        }
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
            Kind::AExpr if value.word(Field::Kind) == "AEXPR_NULLIF" => is("nullif"),
            // A cast to bool up to Postgres 14, which gives it that name.
            Kind::AConst if value.has(Field::Boolval) => Has::Unknown,
            Kind::AConst | Kind::ParamRef | Kind::AExpr | Kind::BoolExpr => is("?column?"),
            _ => Has::Unknown,
        }
    }
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

/// A statement with tables of its own.
pub(super) fn is_a_query(node: Node<'_>) -> bool {
    matches!(
        node.kind(),
        Kind::SelectStmt | Kind::InsertStmt | Kind::UpdateStmt | Kind::DeleteStmt | Kind::MergeStmt
    )
}
