//! Statements that make, alter and drop objects.

use std::sync::Arc;

use super::Walk;
use super::statements::is_temporary;
use crate::classify::StatementClass::{self, Admin, Code, Ddl, Grant, Read, ServerIo, Write};
use crate::classify::catalogue::TakenAlong;
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::{Classification, Effect, ObjectKind, Verb};

impl<'a> Walk<'a> {
    /// A new table. A temporary one is the session's own, but for what ties it to others.
    pub(super) fn create_table(&mut self, node: Node<'a>) {
        let temporary = node.get(Field::Relation).is_some_and(is_temporary);
        let tied = node.has(Field::InhRelations) || node.has(Field::Partbound);
        // As a child of a permanent table it would change what others read from that.
        if !temporary || tied {
            self.does(Ddl, node, "creates a table");
        } else {
            self.does(Write, node, "creates a temporary table");
            self.access_method(node);
        }
    }

    pub(super) fn create_table_as(&mut self, node: Node<'a>) {
        let into = node.get(Field::Into);
        if node.word(Field::Objtype) == "OBJECT_MATVIEW" {
            self.later_until = self.later_until.max(node.end());
            self.does(Ddl, node, "creates a materialized view");
        } else {
            self.creates_table(
                node,
                into.and_then(|into| into.get(Field::Rel)),
                "creates a table from a query",
            );
        }
        if let Some(into) = into {
            self.access_method(into);
        }
    }

    pub(super) fn creates_table(&mut self, node: Node<'a>, table: Option<Node<'a>>, what: &str) {
        let class = if table.is_some_and(is_temporary) { Write } else { Ddl };
        self.does(class, node, what);
    }

    /// Storage methods are code of extensions.
    fn access_method(&mut self, node: Node<'a>) {
        if let Some(method) = node.text(Field::AccessMethod)
            && !self.around.catalogue.is_trusted_part("access method", None, &method, self.path)
            && !matches!(&*method, "heap" | "btree" | "hash" | "gist" | "gin" | "spgist" | "brin")
        {
            self.does(
                Code,
                node,
                &format!("uses the access method {method}, which is not on the allow-list"),
            );
        }
    }

    /// A statement on one relation that is a write where that is temporary.
    pub(super) fn temporary_or_ddl(&mut self, node: Node<'a>, relation: Field, what: &str) {
        self.owned_by(node);
        if node.get(relation).is_some_and(|relation| self.is_temporary(relation)) {
            self.does(Write, node, what);
            self.access_method(node);
        } else {
            self.does(Ddl, node, what);
        }
    }

    /// The commands say what it is; each is visited.
    pub(super) fn alter_table(&mut self, node: Node<'a>) {
        let foreign = node.word(Field::Objtype) == "OBJECT_FOREIGN_TABLE";
        let temporary = node.get(Field::Relation).is_some_and(|table| self.is_temporary(table));
        let plain = node.list(Field::Cmds).all(|command| {
            matches!(
                command.word(Field::Subtype),
                "AT_AddColumn"
                    | "AT_DropColumn"
                    | "AT_ColumnDefault"
                    | "AT_SetNotNull"
                    | "AT_DropNotNull"
                    | "AT_AlterColumnType"
                    | "AT_AddConstraint"
                    | "AT_DropConstraint"
                    | "AT_SetStatistics"
                    | "AT_SetRelOptions"
                    | "AT_ResetRelOptions"
            )
        });
        let cascades = node.list(Field::Cmds).any(|command| command.word(Field::Behavior) == "DROP_CASCADE");
        if let Some(table) = node.get(Field::Relation).filter(|_| !temporary) {
            self.alters_heirs(table);
        }
        if let Some(table) = node.get(Field::Relation)
            && cascades
            && !temporary
        {
            if matches!(node.word(Field::Objtype), "OBJECT_TABLE" | "OBJECT_VIEW" | "OBJECT_MATVIEW") {
                let name = table.text(Field::Relname).unwrap_or_default();
                self.takes_along(table.text(Field::Schemaname).as_deref(), &name);
            } else {
                self.takes_unknown_along();
            }
        }
        if foreign {
            self.does(ServerIo, node, "changes a foreign table");
        } else if temporary && plain {
            self.does(Write, node, "alters a temporary table");
        } else {
            self.does(Ddl, node, "alters a table");
        }
    }

    pub(super) fn alter_table_command(&mut self, node: Node<'a>) {
        let (class, what) = match node.word(Field::Subtype) {
            "AT_ChangeOwner" => (Grant, "changes ownership"),
            "AT_EnableRowSecurity"
            | "AT_DisableRowSecurity"
            | "AT_ForceRowSecurity"
            | "AT_NoForceRowSecurity" => (Grant, "changes row level security"),
            "AT_EnableTrig"
            | "AT_EnableAlwaysTrig"
            | "AT_EnableReplicaTrig"
            | "AT_DisableTrig"
            | "AT_EnableTrigAll"
            | "AT_DisableTrigAll"
            | "AT_EnableTrigUser"
            | "AT_DisableTrigUser"
            | "AT_EnableRule"
            | "AT_EnableAlwaysRule"
            | "AT_EnableReplicaRule"
            | "AT_DisableRule" => (Code, "switches triggers or rules on or off"),
            "AT_GenericOptions" | "AT_AlterColumnGenericOptions" => {
                (ServerIo, "changes a foreign table's options")
            }
            _ => (Read, ""),
        };
        self.does(class, node, what);
    }

    /// RENAME, SET SCHEMA and DEPENDS ON.
    pub(super) fn alter_object(&mut self, node: Node<'a>) {
        let word = [Field::RenameType, Field::ObjectType].into_iter().map(|field| node.word(field));
        let word = word.into_iter().find(|word| !word.is_empty()).unwrap_or("");
        let class = altering(word);
        let temporary =
            class == Ddl && node.get(Field::Relation).is_some_and(|relation| self.is_temporary(relation));
        // A temporary table can leave its schema for no other, so only renames are left.
        let class = if temporary && node.kind() == Kind::RenameStmt { Write } else { class };
        self.new_name(node, word);
        // Columns are renamed in the tables that inherit them; attributes, in tables of their type.
        if let Some(relation) = node.get(Field::Relation)
            && word == "OBJECT_COLUMN"
        {
            self.alters_heirs(relation);
        }
        if node.word(Field::Behavior) == "DROP_CASCADE" {
            self.takes_unknown_along();
        }
        self.does(class, node, &format!("alters {}", with_article(spoken(word))));
    }

    /// Under which name a relation is to be found afterwards: rules by table are about that as well.
    fn new_name(&mut self, node: Node<'a>, word: &str) {
        let Some(relation) = node.get(Field::Relation) else { return };
        let assumed = self.assumed.contains(&relation.index());
        let schema = if assumed { Some("pg_temp".into()) } else { relation.text(Field::Schemaname) };
        let name = relation.text(Field::Relname).unwrap_or_default();
        match (node.text(Field::Newname), node.text(Field::Newschema)) {
            (Some(new), None) if is_relation(word) => {
                let known =
                    schema.map(Arc::from).or_else(|| self.around.catalogue.relation_schema(&name, self.path));
                self.effect(Verb::Create, ObjectKind::Relation, known.as_deref(), &new);
            }
            (None, Some(new)) => self.effect(Verb::Create, ObjectKind::Relation, Some(&new), &name),
            _ => {}
        }
    }

    /// What is done to the columns and constraints of a table is done to those of its heirs, unless ONLY says
    /// otherwise.
    fn alters_heirs(&mut self, table: Node<'a>) {
        if !table.flag(Field::Inh) || self.assumed.contains(&table.index()) {
            return;
        }
        let catalogue = self.around.catalogue;
        let name = table.text(Field::Relname).unwrap_or_default();
        let schema = table.text(Field::Schemaname).map(Arc::from);
        let schema: Option<Arc<str>> = schema.or_else(|| catalogue.relation_schema(&name, self.path));
        let by: Arc<str> = match &schema {
            Some(schema) => format!("{schema}.{name}").into(),
            None => (*name).into(),
        };
        let heirs = catalogue.heirs(schema.as_deref(), &name).into_iter().map(|(schema, name)| {
            let through = Some(Arc::clone(&by));
            Effect {
                through,
                cascades: true,
                ..Effect::of(Verb::Alter, ObjectKind::Relation, Some(schema), name)
            }
        });
        self.found.effects.extend(heirs);
    }

    /// What `CASCADE` takes along from a relation.
    fn takes_along(&mut self, schema: Option<&str>, name: &str) {
        let catalogue = self.around.catalogue;
        let found = match schema {
            Some(_) => None,
            None => catalogue.relation_schema(name, self.path),
        };
        let schema = found.as_deref().or(schema);
        let by = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
        self.loses(catalogue.taken_along(schema, name), &by);
    }

    fn loses(&mut self, taken: TakenAlong, by: &str) {
        let by: Arc<str> = by.into();
        self.found.effects.extend(taken.relations.into_iter().map(|((schema, name), dropped)| {
            let verb = if dropped { Verb::Drop } else { Verb::Alter };
            let through = Some(Arc::clone(&by));
            Effect { through, cascades: true, ..Effect::of(verb, ObjectKind::Relation, Some(schema), name) }
        }));
        if taken.others {
            self.takes_unknown_along();
        }
    }

    fn takes_unknown_along(&mut self) {
        self.effect(Verb::Drop, ObjectKind::Other, None, Classification::UNKNOWN_LOSSES);
    }

    /// The column that a sequence is to belong to: its table is altered, and whoever drops it drops the
    /// sequence.
    pub(super) fn owned_by(&mut self, node: Node<'a>) {
        for option in node.list(Field::Options) {
            if option.text(Field::Defname).as_deref() != Some("owned_by") {
                continue;
            }
            let names = option.get(Field::Arg).map(|list| list.names(Field::Items)).unwrap_or_default();
            if let [table @ .., _column] = names.as_slice()
                && let [schema @ .., table] = table
            {
                let schema = schema.last().map(|schema| &**schema);
                self.effect(Verb::Alter, ObjectKind::Relation, schema, table);
            }
        }
    }

    pub(super) fn drop_objects(&mut self, node: Node<'a>) {
        let word = node.word(Field::RemoveType);
        let relations = is_relation(word);
        let mut temporary = relations;
        let cascades = node.word(Field::Behavior) == "DROP_CASCADE";
        for object in node.list(Field::Objects) {
            let names = object.names(Field::Items);
            if let [schema @ .., name] = names.as_slice()
                && relations
            {
                let assumed = schema.is_empty() && self.around.assumes_temporary;
                if assumed {
                    self.found.assumed_temporary.push((**name).into());
                }
                let schema = if assumed { Some("pg_temp") } else { schema.last().map(|schema| &**schema) };
                self.effect(Verb::Drop, ObjectKind::Relation, schema, name);
                temporary &= schema == Some("pg_temp");
                match (cascades, word) {
                    (true, "OBJECT_INDEX") => self.takes_unknown_along(),
                    (true, _) if schema != Some("pg_temp") => self.takes_along(schema, name),
                    _ => {}
                }
            } else if let Some(name) = object.string() {
                self.effect(Verb::Drop, object_kind(word), None, &name);
                if cascades && word == "OBJECT_SCHEMA" {
                    self.loses(self.around.catalogue.taken_along_from(&name), &name);
                }
            }
            if cascades && !relations && word != "OBJECT_SCHEMA" {
                self.takes_unknown_along();
            }
        }
        let class = altering(word);
        let class = if class == Ddl && temporary { Write } else { class };
        self.does(class, node, &format!("drops {}", with_article(spoken(word))));
    }

    /// COMMENT ON. That of a temporary table goes with it.
    pub(super) fn comment(&mut self, node: Node<'a>) {
        let names = node.get(Field::Object).map(|object| object.names(Field::Items)).unwrap_or_default();
        let relation = match (node.word(Field::Objtype), names.as_slice()) {
            ("OBJECT_COLUMN", [relation @ .., _column]) => relation,
            (word, relation) if is_relation(word) => relation,
            _ => &[],
        };
        let assumed = relation.len() == 1 && self.around.assumes_temporary;
        if let [name] = relation
            && assumed
        {
            self.found.assumed_temporary.push((**name).into());
        }
        let temporary =
            assumed || relation.first().is_some_and(|schema| relation.len() == 2 && *schema == "pg_temp");
        let class = if temporary { Write } else { Ddl };
        self.does(class, node, "changes a comment");
    }

    /// CREATE VIEW. A temporary one that only reads is the session's own, as what it reads already is.
    pub(super) fn create_view(&mut self, node: Node<'a>) {
        self.later_until = self.later_until.max(node.end());
        if !node.get(Field::View).is_some_and(is_temporary) {
            self.does(Ddl, node, "creates a view");
        }
    }

    /// The same when everything in it has been looked at.
    pub(super) fn created_view(&mut self, root: Node<'a>) {
        if root.kind() == Kind::ViewStmt && root.get(Field::View).is_some_and(is_temporary) {
            let class = if self.class.changes_nothing() { Write } else { Ddl };
            self.does(class, root, "creates a temporary view");
        }
    }

    pub(super) fn vacuum(&mut self, node: Node<'a>) {
        let tables = node.list(Field::Rels);
        let temporary = tables.clone().count() > 0
            && tables
                .into_iter()
                .all(|table| table.get(Field::Relation).is_some_and(|table| self.is_temporary(table)));
        match (node.flag(Field::IsVacuumcmd), temporary) {
            (_, true) => self.does(Write, node, "maintains a temporary table"),
            (true, false) => self.does(Admin, node, "vacuums tables"),
            (false, false) => self.does(Admin, node, "collects statistics of tables"),
        }
    }

    /// A role that a statement names.
    pub(super) fn role(&mut self, node: Node<'a>) {
        let Some(name) = node.text(Field::Rolename) else { return };
        let verb = match node.place() {
            (Kind::DropRoleStmt, _) => Verb::Drop,
            (Kind::AlterRoleStmt | Kind::AlterRoleSetStmt, _) => Verb::Alter,
            (Kind::GrantRoleStmt | Kind::GrantStmt, _) => Verb::Grant,
            _ => Verb::Use,
        };
        self.effect(verb, ObjectKind::Role, None, &name);
    }

    /// A function or the like whose qualified name stands in a field.
    pub(super) fn names_function(&mut self, verb: Verb, node: Node<'a>, field: Field) {
        let names = node.names(field);
        if let [schema @ .., name] = names.as_slice() {
            self.effect(verb, ObjectKind::Function, schema.last().map(|schema| &**schema), name);
        }
    }

    /// CREATE AGGREGATE, OPERATOR, TYPE, COLLATION, TEXT SEARCH ..
    pub(super) fn define(&mut self, node: Node<'a>) {
        let class = match node.word(Field::Kind) {
            "OBJECT_COLLATION" | "OBJECT_TSDICTIONARY" | "OBJECT_TSCONFIGURATION" => Ddl,
            // CREATE TYPE t; announces a type. With a definition it names its functions.
            "OBJECT_TYPE" if !node.has(Field::Definition) => Ddl,
            _ => Code,
        };
        self.does(class, node, &format!("creates {}", with_article(spoken(node.word(Field::Kind)))));
    }

    pub(super) fn create_range(&mut self, node: Node<'a>) {
        let runs = node.list(Field::Params).any(|option| {
            matches!(option.text(Field::Defname).as_deref(), Some("canonical" | "subtype_diff"))
        });
        self.does(if runs { Code } else { Ddl }, node, "creates a range type");
    }

    pub(super) fn create_schema(&mut self, node: Node<'a>) {
        self.does(Ddl, node, "creates a schema");
        let other =
            node.get(Field::Authrole).is_some_and(|role| role.word(Field::Roletype) == "ROLESPEC_CSTRING");
        if other {
            self.does(Grant, node, "creates a schema that belongs to another role");
        }
        if let Some(name) = node.text(Field::Schemaname) {
            self.effect(Verb::Create, ObjectKind::Schema, None, &name);
        }
    }
}

/// Whether objects of a kind are rows of `pg_class`.
fn is_relation(word: &str) -> bool {
    matches!(
        word,
        "OBJECT_TABLE"
            | "OBJECT_INDEX"
            | "OBJECT_SEQUENCE"
            | "OBJECT_VIEW"
            | "OBJECT_MATVIEW"
            | "OBJECT_FOREIGN_TABLE"
    )
}

/// The class of altering or dropping an object of a kind.
fn altering(word: &str) -> StatementClass {
    match word {
        "OBJECT_ACCESS_METHOD"
        | "OBJECT_AGGREGATE"
        | "OBJECT_AMOP"
        | "OBJECT_AMPROC"
        | "OBJECT_CAST"
        | "OBJECT_CONVERSION"
        | "OBJECT_EVENT_TRIGGER"
        | "OBJECT_EXTENSION"
        | "OBJECT_FUNCTION"
        | "OBJECT_LANGUAGE"
        | "OBJECT_OPCLASS"
        | "OBJECT_OPERATOR"
        | "OBJECT_OPFAMILY"
        | "OBJECT_PROCEDURE"
        | "OBJECT_ROUTINE"
        | "OBJECT_RULE"
        | "OBJECT_TRANSFORM"
        | "OBJECT_TRIGGER"
        | "OBJECT_TSPARSER"
        | "OBJECT_TSTEMPLATE" => Code,
        "OBJECT_ROLE" | "OBJECT_POLICY" | "OBJECT_DEFACL" | "OBJECT_PARAMETER_ACL" => Grant,
        "OBJECT_DATABASE"
        | "OBJECT_TABLESPACE"
        | "OBJECT_PUBLICATION"
        | "OBJECT_PUBLICATION_NAMESPACE"
        | "OBJECT_PUBLICATION_REL" => Admin,
        "OBJECT_FDW" | "OBJECT_FOREIGN_SERVER" | "OBJECT_USER_MAPPING" | "OBJECT_SUBSCRIPTION" => ServerIo,
        // Everything else is schema: an object type that a later version brings is held as that.
        _ => Ddl,
    }
}

fn object_kind(word: &str) -> ObjectKind {
    match word {
        "OBJECT_SCHEMA" => ObjectKind::Schema,
        "OBJECT_ROLE" => ObjectKind::Role,
        "OBJECT_TYPE" | "OBJECT_DOMAIN" => ObjectKind::Type,
        "OBJECT_FUNCTION" | "OBJECT_PROCEDURE" | "OBJECT_ROUTINE" | "OBJECT_AGGREGATE" => {
            ObjectKind::Function
        }
        _ => ObjectKind::Other,
    }
}

fn with_article(what: String) -> String {
    let article = if what.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {what}")
}

/// `OBJECT_FOREIGN_TABLE` as a person says it.
fn spoken(word: &str) -> String {
    match word.strip_prefix("OBJECT_").unwrap_or(word) {
        "MATVIEW" => "materialized view".into(),
        "FDW" => "foreign-data wrapper".into(),
        "TSCONFIGURATION" => "text search configuration".into(),
        "TSDICTIONARY" => "text search dictionary".into(),
        "TSPARSER" => "text search parser".into(),
        "TSTEMPLATE" => "text search template".into(),
        "OPCLASS" => "operator class".into(),
        "OPFAMILY" => "operator family".into(),
        other => other.to_ascii_lowercase().replace('_', " "),
    }
}
