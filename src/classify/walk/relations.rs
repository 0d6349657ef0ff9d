//! Tables: which statement does what to them, and which names only look like tables.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::Walk;
use super::sensitive::mentions;
use super::statements::is_temporary;
use crate::classify::catalogue::Change;
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::{Doubt, Effect, ObjectKind, StatementClass, Verb};

/// Whether a schema holds the tables of a job scheduler (pg_cron, pgAgent).
fn relations_of_a_scheduler(schema: Option<&str>) -> bool {
    matches!(schema, Some("cron" | "pgagent"))
}

/// A WITH clause around the current node.
pub(super) struct Scope<'a> {
    /// Where the statement that has it ends.
    end: u32,
    recursive: bool,
    /// Where each of its queries ends, in order.
    ends: Vec<u32>,
    /// Where the queries start.
    start: u32,
    /// Name to the place of the first query of that name.
    names: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Walk<'a> {
    /// Whether a query takes nothing of `name`, of which everybody may read all columns but one, that not
    /// everybody may read.
    fn only_public_columns(&self, node: Node<'a>, name: &str) -> bool {
        let Some(secret) = secret_of(name) else { return false };
        // Where a FROM names it; `COPY pg_subscription TO ..` and their like name no columns.
        let in_from = matches!(node.place(), (Kind::SelectStmt, Field::FromClause) | (Kind::JoinExpr, _));
        let Some(around) = self.tree.node(0).filter(|root| in_from && self.patience.can_afford(*root)) else {
            return false;
        };
        let catalogue = self.around.catalogue;
        // `oid` is a function as well as their column.
        let is_call = |attribute: &str| attribute != "oid" && catalogue.may_be_called(attribute);
        !mentions(around, node, |column| column == secret, is_call)
    }

    /// Remembers a statement's WITH clause while its nodes are visited.
    pub(super) fn enter_scope(&mut self, statement: Node<'a>) {
        let Some(with) = statement.get(Field::WithClause) else { return };
        let mut scope = Scope {
            end: statement.end(),
            recursive: with.flag(Field::Recursive),
            ends: Vec::new(),
            start: with.index(),
            names: HashMap::new(),
        };
        for (place, query) in with.list(Field::Ctes).enumerate() {
            scope.ends.push(query.end());
            scope.names.entry(query.text(Field::Ctename).unwrap_or_default()).or_insert(place);
        }
        self.scopes.push(scope);
    }

    /// Whether an unqualified name at this place is a WITH query's, by Postgres's rules: a query sees
    /// those before it in its own WITH clause, all of them in a recursive one. So the second `t` of
    /// `WITH t AS (SELECT * FROM t) ..` is a table.
    pub(super) fn is_with_query(&mut self, node: Node<'a>, name: &str) -> bool {
        let index = node.index();
        while self.scopes.last().is_some_and(|scope| scope.end <= index) {
            self.scopes.pop();
        }
        self.scopes.iter().rev().any(|scope| {
            let Some(place) = scope.names.get(name) else { return false };
            let before = scope.ends.partition_point(|end| *end <= index);
            let inside = index > scope.start && before < scope.ends.len();
            !inside || scope.recursive || *place < before
        })
    }

    /// A relation that a statement names.
    pub(super) fn relation(&mut self, node: Node<'a>) {
        let name = node.text(Field::Relname).unwrap_or_default();
        let assumed = self.assumed.contains(&node.index());
        let schema = if assumed { Some("pg_temp".into()) } else { node.text(Field::Schemaname) };
        let place = node.place();
        let verb = match place {
            // Names of other FROM items, not of relations.
            (Kind::LockingClause, _) => return,
            (Kind::InsertStmt, Field::Relation) => Verb::Insert,
            (Kind::UpdateStmt, Field::Relation) => Verb::Update,
            (Kind::DeleteStmt, Field::Relation) => Verb::Delete,
            (Kind::MergeStmt, Field::Relation) => return self.merge_target(node, schema.as_deref(), &name),
            (Kind::CopyStmt, _) => {
                let from = node.holder().is_some_and(|copy| copy.flag(Field::IsFrom));
                if from { Verb::Insert } else { Verb::Export }
            }
            (Kind::TruncateStmt, _) => Verb::Truncate,
            (Kind::LockStmt, _) => Verb::Lock,
            (Kind::GrantStmt, _) => Verb::Grant,
            (Kind::CreateStmt, Field::Relation)
            | (Kind::IntoClause | Kind::ViewStmt | Kind::CreateSeqStmt | Kind::CompositeTypeStmt, _) => {
                Verb::Create
            }
            (
                Kind::AlterTableStmt
                | Kind::IndexStmt
                | Kind::AlterSeqStmt
                | Kind::RenameStmt
                | Kind::AlterObjectSchemaStmt
                | Kind::AlterObjectDependsStmt
                | Kind::AlterOwnerStmt
                | Kind::RefreshMatViewStmt
                | Kind::ClusterStmt
                | Kind::VacuumRelation
                | Kind::ReindexStmt
                | Kind::RuleStmt
                | Kind::CreateTrigStmt
                | Kind::CreatePolicyStmt
                | Kind::AlterPolicyStmt,
                _,
            ) => Verb::Alter,
            (
                Kind::CreateStmt
                | Kind::Constraint
                | Kind::TableLikeClause
                | Kind::PublicationTable
                | Kind::CreateStatsStmt
                | Kind::PartitionCmd
                | Kind::ImportForeignSchemaStmt
                | Kind::ColumnDef,
                _,
            ) => Verb::Use,
            _ => Verb::Read,
        };
        self.temporary |= verb == Verb::Create && is_temporary(node);
        if verb == Verb::Read && schema.is_none() && self.is_with_query(node, &name) {
            return;
        }
        let catalogue = self.around.catalogue;
        let system = schema.as_deref().is_some_and(|schema| schema.starts_with("pg_"))
            || catalogue.system_relation(schema.as_deref(), &name).is_some();
        let unknown = verb != Verb::Create && !system && !catalogue.has_relation(schema.as_deref(), &name);
        if unknown && catalogue.is_loaded() {
            self.found.doubts.insert(Doubt::Relation(name.as_ref().into()));
        }
        self.touches(verb, node, schema.as_deref(), &name);
        if verb == Verb::Export {
            self.touches(Verb::Read, node, schema.as_deref(), &name);
        }
    }

    /// MERGE does to its target what its branches say.
    fn merge_target(&mut self, node: Node<'a>, schema: Option<&str>, name: &str) {
        let branches = node.holder().into_iter().flat_map(|merge| merge.list(Field::MergeWhenClauses));
        for branch in branches {
            let verb = match branch.word(Field::CommandType) {
                "CMD_INSERT" => Verb::Insert,
                "CMD_UPDATE" => Verb::Update,
                "CMD_DELETE" => Verb::Delete,
                _ => continue,
            };
            self.touches(verb, node, schema, name);
        }
    }

    /// What is done to a view is done to the tables behind it, and to a partition's rows, to those of its
    /// table. What is done to the view itself is not.
    fn touches_through(&mut self, verb: Verb, schema: Option<&str>, name: &str) {
        let rows = matches!(
            verb,
            Verb::Read
                | Verb::Insert
                | Verb::Update
                | Verb::Delete
                | Verb::Truncate
                | Verb::Lock
                | Verb::Export
                | Verb::Use
        );
        let bases = self.around.catalogue.bases(schema, name).filter(|_| rows);
        let through: Arc<str> = match schema {
            Some(schema) => format!("{schema}.{name}").into(),
            None => name.into(),
        };
        self.found.effects.extend(bases.map(|base| {
            let (schema, name) = (Some(Arc::clone(&base.schema)), Arc::clone(&base.name));
            let through = Some(Arc::clone(&through));
            Effect { through, ..Effect::of(verb, ObjectKind::Relation, schema, name) }
        }));
    }

    /// What foreign keys do to other tables, because of what `node`'s statement does to `name`.
    fn cascades(&mut self, verb: Verb, node: Node<'a>, schema: Option<&str>, name: &str) {
        let catalogue = self.around.catalogue;
        // Reads are most.
        let changes = matches!(verb, Verb::Delete | Verb::Truncate | Verb::Update | Verb::Insert);
        if !changes || !catalogue.is_referred_to(schema, name) {
            return;
        }
        let Some(statement) = node.holder() else { return };
        let change = match verb {
            Verb::Delete => Change::Delete,
            Verb::Truncate if statement.word(Field::Behavior) == "DROP_CASCADE" => Change::Truncate,
            Verb::Update => Change::Update(assigned(statement)),
            Verb::Insert => {
                Change::Update(statement.get(Field::OnConflictClause).map_or_else(Vec::new, assigned))
            }
            Verb::Read
            | Verb::Truncate
            | Verb::Lock
            | Verb::Export
            | Verb::Create
            | Verb::Alter
            | Verb::Drop
            | Verb::Call
            | Verb::Set
            | Verb::Grant
            | Verb::Use => return,
        };
        self.found.effects.extend(catalogue.cascades(schema, name, change).into_iter().map(|(verb, key)| {
            let (schema, name) = (Some(Arc::clone(&key.table.0)), Arc::clone(&key.table.1));
            let through = Some(Arc::clone(&key.name));
            Effect { through, cascades: true, ..Effect::of(verb, ObjectKind::Relation, schema, name) }
        }));
    }

    fn writes_to_system(&mut self, node: Node<'a>, name: &str, through: Option<&str>) {
        let through = through.map_or_else(String::new, |view| format!(" through {view}"));
        let (class, what) = if name == "pg_settings" {
            (StatementClass::Settings, format!("changes settings through pg_settings{through}"))
        } else {
            (StatementClass::Admin, format!("writes to {name} of the system catalogue{through}"))
        };
        self.finds(class, what, self.span_of(node));
    }

    fn touches(&mut self, verb: Verb, node: Node<'a>, schema: Option<&str>, name: &str) {
        let catalogue = self.around.catalogue;
        let system = catalogue.system_relation(schema, name);
        let found = match (schema, system) {
            (None, Some(_)) => Some("pg_catalog".into()),
            (None, None) => catalogue.relation_schema(name, self.path),
            (Some(_), _) => None,
        };
        let planned = self.is_planned(node);
        let done = if planned { Verb::Use } else { verb };
        self.effect(done, ObjectKind::Relation, found.as_deref().or(schema), name);
        if let Some(effect) = self.found.effects.last_mut() {
            effect.qualified = schema.is_some();
        }
        self.touches_through(done, found.as_deref().or(schema), name);
        if planned {
            return;
        }
        self.cascades(verb, node, found.as_deref().or(schema), name);
        let is_system =
            system.is_some() || matches!(schema, Some("pg_catalog" | "pg_toast" | "information_schema"));
        let writes = matches!(verb, Verb::Insert | Verb::Update | Verb::Delete | Verb::Truncate);
        if is_system && writes {
            self.writes_to_system(node, name, None);
        }
        // What views show of it.
        for base in catalogue.bases(found.as_deref().or(schema), name) {
            let Some(system) = catalogue.system_relation(Some(&*base.schema), &base.name) else { continue };
            let is_shown = |column: &str| base.columns.as_ref().is_none_or(|shown| shown.contains(column));
            if writes {
                self.writes_to_system(node, &base.name, Some(name));
            } else if verb == Verb::Read && system.sensitive && secret_of(&base.name).is_none_or(is_shown) {
                let what = format!(
                    "reads {} through {name}, which holds credentials or other people's data",
                    base.name
                );
                self.finds(StatementClass::SensitiveRead, what, self.span_of(node));
            }
        }
        // Job schedulers run what stands in their tables.
        if writes && relations_of_a_scheduler(schema) {
            let what = format!("writes to {name} of a job scheduler, which runs what stands there");
            self.finds(StatementClass::Code, what, self.span_of(node));
        }
        // A TOAST table holds the long values of its table, whoever may read that.
        let statistics = system.is_some() && catalogue.knows_sensitive() && name.starts_with("pg_stats");
        let is_sensitive =
            system.is_some_and(|system| system.sensitive) || schema == Some("pg_toast") || statistics;
        if verb == Verb::Read && is_sensitive && !self.only_public_columns(node, name) {
            let what = format!("reads {name}, which holds credentials or other people's data");
            self.finds(StatementClass::SensitiveRead, what, self.span_of(node));
        }
    }
}

/// The column of a system relation that not everybody may read, where everybody may read the others.
fn secret_of(name: &str) -> Option<&'static str> {
    match name {
        "pg_subscription" => Some("subconninfo"),
        "pg_user_mappings" => Some("umoptions"),
        _ => None,
    }
}

/// The columns that an UPDATE, or one in another statement, assigns.
fn assigned(statement: Node<'_>) -> Vec<String> {
    let branches = statement.list(Field::MergeWhenClauses);
    let updates = branches.filter(|branch| branch.word(Field::CommandType) == "CMD_UPDATE");
    let items =
        statement.list(Field::TargetList).chain(updates.flat_map(|branch| branch.list(Field::TargetList)));
    items.filter_map(|item| item.text(Field::Name)).map(Cow::into_owned).collect()
}
