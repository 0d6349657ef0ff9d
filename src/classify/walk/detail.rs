//! Which columns of which tables a statement names, for people who are asked about it.
//!
//! Nothing is decided by this, so it costs nothing until somebody is asked: a text is read again for it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::patience::Patience;
use super::sources::{From, Names, Source, Tables, is_a_query};
use crate::classify::Verb;
use crate::classify::catalogue::Has;
use crate::classify::tree::{Field, Kind, Node, Tree};

/// More nodes are not looked at to tell columns.
const PATIENCE: u32 = 200_000;

/// More columns of one table are not listed.
const MOST: usize = 200;

/// What is done to columns of a table: its schema as the statement or the catalogue says, and its name.
pub(in crate::classify) type Touched = BTreeMap<(Verb, Option<String>, String), Vec<String>>;

/// The columns that a tree's statements name. `*` stands for all of a table.
pub(in crate::classify) fn columns(tree: &Tree<'_>, names: Names<'_>) -> Touched {
    let patience = Patience::of(PATIENCE);
    let mut detail = Detail { tables: names.with(&patience), touched: Touched::new() };
    for statement in tree.statements() {
        for node in statement.within() {
            if patience.is_over() {
                break;
            }
            detail.visit(node);
        }
    }
    detail.touched
}

struct Detail<'p> {
    tables: Tables<'p>,
    touched: Touched,
}

impl Detail<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else names columns of tables")]
    fn visit<'t>(&mut self, node: Node<'t>) {
        match node.kind() {
            Kind::ColumnRef => self.reads(node),
            Kind::ResTarget => self.assigns(node),
            Kind::InsertStmt if !node.has(Field::Cols) => {
                if let Some(table) = node.get(Field::Relation) {
                    self.add(Verb::Insert, table, "*");
                }
            }
            Kind::CopyStmt => self.copies(node),
            Kind::JoinExpr => {
                for column in node.list(Field::UsingClause).filter_map(Node::string) {
                    let sides = [Field::Larg, Field::Rarg].into_iter().filter_map(|side| node.get(side));
                    self.reads_of(&From::of(sides).sources, &column);
                }
            }
            _ => {}
        }
    }

    /// A column in an expression.
    fn reads<'t>(&mut self, column: Node<'t>) {
        let star = column.list(Field::Fields).any(|field| field.kind() == Kind::AStar);
        let names = column.names(Field::Fields);
        let (qualifier, name): (Option<&str>, &str) = match names.as_slice() {
            [.., table] if star => (Some(table), "*"),
            [] => (None, "*"),
            [.., table, name] => (Some(table), name),
            [name] => (None, name),
        };
        let mut below = column;
        while let Some(node) = below.parent() {
            if !self.tables.patience.can_step() {
                return;
            }
            if is_a_query(node) {
                let sources = sources_of(node);
                let found = match qualifier {
                    Some(qualifier) => self.reads_of_one(&sources, qualifier, name),
                    None if name == "*" => {
                        sources.iter().for_each(|source| self.add(Verb::Read, source.node, "*"));
                        true
                    }
                    None => self.reads_of(&sources, name),
                };
                if found {
                    return;
                }
            }
            below = node;
        }
    }

    fn reads_of_one(&mut self, sources: &[Source<'_>], qualifier: &str, column: &str) -> bool {
        let source = sources.iter().find(|source| source.name.as_deref() == Some(qualifier));
        if let Some(source) = source {
            self.add(Verb::Read, source.node, column);
        }
        source.is_some()
    }

    /// A column of one of these; where it is not known whose, it is noted for all that may have it.
    fn reads_of(&mut self, sources: &[Source<'_>], column: &str) -> bool {
        let has = |source: &Source<'_>| self.tables.has_column(source.node, column, 0);
        let known: Vec<Has> = sources.iter().map(has).collect();
        let wanted = if known.contains(&Has::Yes) { Has::Yes } else { Has::Unknown };
        let mut found = false;
        for (source, has) in sources.iter().zip(known) {
            if has == wanted {
                found = true;
                self.add(Verb::Read, source.node, column);
            }
        }
        // `SELECT t FROM t`
        found || self.reads_of_one(sources, column, "*")
    }

    /// A column that is given a value.
    fn assigns(&mut self, target: Node<'_>) {
        let Some(name) = target.text(Field::Name) else { return };
        let (verb, statement) = match target.place() {
            (Kind::InsertStmt, Field::Cols) => (Verb::Insert, target.holder()),
            (Kind::UpdateStmt, Field::TargetList) => (Verb::Update, target.holder()),
            (Kind::OnConflictClause, Field::TargetList) => {
                (Verb::Update, target.holder().and_then(Node::holder))
            }
            (Kind::MergeWhenClause, Field::TargetList) => {
                let branch = target.holder();
                let inserts = branch.is_some_and(|branch| branch.word(Field::CommandType) == "CMD_INSERT");
                (if inserts { Verb::Insert } else { Verb::Update }, branch.and_then(Node::holder))
            }
            _ => return,
        };
        if let Some(table) = statement.and_then(|statement| statement.get(Field::Relation)) {
            self.add(verb, table, &name);
        }
    }

    fn copies(&mut self, copy: Node<'_>) {
        let Some(table) = copy.get(Field::Relation) else { return };
        let listed: Vec<Cow<'_, str>> = copy.names(Field::Attlist);
        let verbs: &[Verb] =
            if copy.flag(Field::IsFrom) { &[Verb::Insert] } else { &[Verb::Export, Verb::Read] };
        for verb in verbs {
            if listed.is_empty() {
                self.add(*verb, table, "*");
            }
            listed.iter().for_each(|column| self.add(*verb, table, column));
        }
    }

    fn add(&mut self, verb: Verb, source: Node<'_>, column: &str) {
        if source.kind() == Kind::RangeTableSample {
            return source.get(Field::Relation).into_iter().for_each(|table| self.add(verb, table, column));
        }
        if source.kind() != Kind::RangeVar || self.tables.with_clause(source).is_some() {
            return;
        }
        let name = source.text(Field::Relname).unwrap_or_default();
        let catalogue = self.tables.catalogue;
        let schema = match source.text(Field::Schemaname) {
            Some(schema) => Some(schema.into_owned()),
            None if catalogue.system_relation(None, &name).is_some() => Some("pg_catalog".to_owned()),
            None => catalogue.relation_schema(&name, self.tables.path).map(|schema| schema.to_string()),
        };
        let columns = self.touched.entry((verb, schema, name.into_owned())).or_default();
        if columns.len() < MOST && !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
}

/// Where a query's columns come from.
fn sources_of(query: Node<'_>) -> Vec<Source<'_>> {
    let items = [Field::FromClause, Field::UsingClause].into_iter().flat_map(|field| query.list(field));
    let tables = [Field::Relation, Field::SourceRelation].into_iter().filter_map(|field| query.get(field));
    From::of(items.chain(tables)).sources
}
