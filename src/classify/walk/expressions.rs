//! Whatever runs a function: calls, operators, casts, attributes, sampling methods.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Names, Walk};
use crate::classify::catalogue::{Applied, Has, Meaning};
use crate::classify::tree::{Field, Kind, Node, Tree};
use crate::classify::{Doubt, Effect, ObjectKind, StatementClass, Verb};

/// Postgres 18's operator classes (`pg_opclass`), in order.
const OPERATOR_CLASSES: [&str; 126] = [
    "aclitem_ops",
    "array_ops",
    "bit_minmax_ops",
    "bit_ops",
    "bool_ops",
    "box_inclusion_ops",
    "box_ops",
    "bpchar_bloom_ops",
    "bpchar_minmax_ops",
    "bpchar_ops",
    "bpchar_pattern_ops",
    "bytea_bloom_ops",
    "bytea_minmax_ops",
    "bytea_ops",
    "char_bloom_ops",
    "char_minmax_ops",
    "char_ops",
    "cid_ops",
    "cidr_ops",
    "circle_ops",
    "date_bloom_ops",
    "date_minmax_multi_ops",
    "date_minmax_ops",
    "date_ops",
    "enum_ops",
    "float4_bloom_ops",
    "float4_minmax_multi_ops",
    "float4_minmax_ops",
    "float4_ops",
    "float8_bloom_ops",
    "float8_minmax_multi_ops",
    "float8_minmax_ops",
    "float8_ops",
    "inet_bloom_ops",
    "inet_inclusion_ops",
    "inet_minmax_multi_ops",
    "inet_minmax_ops",
    "inet_ops",
    "int2_bloom_ops",
    "int2_minmax_multi_ops",
    "int2_minmax_ops",
    "int2_ops",
    "int4_bloom_ops",
    "int4_minmax_multi_ops",
    "int4_minmax_ops",
    "int4_ops",
    "int8_bloom_ops",
    "int8_minmax_multi_ops",
    "int8_minmax_ops",
    "int8_ops",
    "interval_bloom_ops",
    "interval_minmax_multi_ops",
    "interval_minmax_ops",
    "interval_ops",
    "jsonb_ops",
    "jsonb_path_ops",
    "kd_point_ops",
    "macaddr8_bloom_ops",
    "macaddr8_minmax_multi_ops",
    "macaddr8_minmax_ops",
    "macaddr8_ops",
    "macaddr_bloom_ops",
    "macaddr_minmax_multi_ops",
    "macaddr_minmax_ops",
    "macaddr_ops",
    "money_ops",
    "multirange_ops",
    "name_bloom_ops",
    "name_minmax_ops",
    "name_ops",
    "numeric_bloom_ops",
    "numeric_minmax_multi_ops",
    "numeric_minmax_ops",
    "numeric_ops",
    "oid_bloom_ops",
    "oid_minmax_multi_ops",
    "oid_minmax_ops",
    "oid_ops",
    "oidvector_ops",
    "pg_lsn_bloom_ops",
    "pg_lsn_minmax_multi_ops",
    "pg_lsn_minmax_ops",
    "pg_lsn_ops",
    "point_ops",
    "poly_ops",
    "quad_point_ops",
    "range_inclusion_ops",
    "range_ops",
    "record_image_ops",
    "record_ops",
    "text_bloom_ops",
    "text_minmax_ops",
    "text_ops",
    "text_pattern_ops",
    "tid_bloom_ops",
    "tid_minmax_multi_ops",
    "tid_minmax_ops",
    "tid_ops",
    "time_bloom_ops",
    "time_minmax_multi_ops",
    "time_minmax_ops",
    "time_ops",
    "timestamp_bloom_ops",
    "timestamp_minmax_multi_ops",
    "timestamp_minmax_ops",
    "timestamp_ops",
    "timestamptz_bloom_ops",
    "timestamptz_minmax_multi_ops",
    "timestamptz_minmax_ops",
    "timestamptz_ops",
    "timetz_bloom_ops",
    "timetz_minmax_multi_ops",
    "timetz_minmax_ops",
    "timetz_ops",
    "tsquery_ops",
    "tsvector_ops",
    "uuid_bloom_ops",
    "uuid_minmax_multi_ops",
    "uuid_minmax_ops",
    "uuid_ops",
    "varbit_minmax_ops",
    "varbit_ops",
    "varchar_ops",
    "varchar_pattern_ops",
    "xid8_ops",
    "xid_ops",
];

/// A qualified name's schema and last part. A database in front of the schema changes nothing: it
/// can only be this one.
fn split<'n>(names: &'n [Cow<'_, str>]) -> (Option<&'n str>, &'n str) {
    match names {
        [.., schema, name] => (Some(schema), name),
        [name] => (None, name),
        [] => (None, ""),
    }
}

fn shown(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) if schema != "pg_catalog" => format!("{schema}.{name}"),
        _ => name.to_owned(),
    }
}

/// Everything that columns can be of, by the names that it goes by. A lock clause names such items, and is
/// none.
fn from_items<'a>(tree: &'a Tree<'a>) -> HashMap<Cow<'a, str>, Vec<Node<'a>>> {
    let mut items: HashMap<Cow<'a, str>, Vec<Node<'a>>> = HashMap::new();
    let mut targets = Vec::new();
    for node in tree.node(0).into_iter().flat_map(Node::within) {
        let place = node.place();
        if place.0 == Kind::LockingClause {
            continue;
        }
        let alias = node.get(Field::Alias).and_then(|alias| alias.text(Field::Aliasname));
        let Some(name) = alias.or_else(|| node.text(Field::Relname)) else { continue };
        items.entry(name).or_default().push(node);
        if matches!(
            place,
            (Kind::InsertStmt | Kind::UpdateStmt | Kind::DeleteStmt | Kind::MergeStmt, Field::Relation)
        ) {
            targets.push(node);
        }
    }
    // What ON CONFLICT and RETURNING call the rows of a statement's target.
    for name in ["excluded", "old", "new"] {
        items.entry(Cow::Borrowed(name)).or_insert_with(|| targets.clone());
    }
    items
}

impl<'a> Walk<'a> {
    /// A function call.
    pub(super) fn call(&mut self, node: Node<'a>) {
        let names = node.names(Field::Funcname);
        let (schema, name) = split(&names);
        // Up to 15, `json_object(..)` was written like any function and looked up like one; the newer
        // grammar already says pg_catalog.
        let looked_up = name == "json_object" && self.around.catalogue.server_version() < 16;
        let schema = if looked_up { None } else { schema };
        // An ordered-set aggregate takes what it is ordered by as well.
        let ordered = if node.flag(Field::AggWithinGroup) { node.list(Field::AggOrder).count() } else { 0 };
        let arguments = node.list(Field::Args).count() + ordered;
        let meaning = self.around.catalogue.function(schema, name, arguments, self.path);
        if meaning.class == StatementClass::Settings {
            return self.set_config(node);
        }
        self.meets(&meaning, node, ObjectKind::Function, schema, name, "calls");
    }

    fn meets(
        &mut self,
        meaning: &Meaning,
        node: Node<'a>,
        kind: ObjectKind,
        schema: Option<&str>,
        name: &str,
        verb: &str,
    ) {
        self.may_change_settings |= meaning.may_change_settings;
        // Calls that only read are not worth a line in the record of what was touched.
        if !meaning.class.changes_nothing() {
            let schema = meaning.schema.as_deref().or(schema);
            self.effect(Verb::Call, kind, schema, name);
        }
        if !meaning.reads.is_empty() {
            let through: Arc<str> = shown(meaning.schema.as_deref().or(schema), name).into();
            let verb = |verb| if self.is_planned(node) { Verb::Use } else { verb };
            let reads = meaning.reads.iter().map(|effect| Effect {
                verb: verb(effect.verb),
                through: Some(Arc::clone(&through)),
                ..effect.clone()
            });
            let reads: Vec<Effect> = reads.collect();
            self.found.effects.extend(reads);
        }
        self.calls(meaning.class, node, format!("{verb} {}, which {}", shown(schema, name), meaning.why));
        if meaning.lasts && !self.is_planned(node) && self.may_repeat(node) {
            let what = format!(
                "{verb} {}, which {}, perhaps for each of many rows",
                shown(schema, name),
                meaning.why
            );
            self.calls(StatementClass::MassWrite, node, what);
        }
    }

    /// Syntax that is a function of the grammar's from some version on. Before, the same text calls a
    /// function of that name, and only users can have made one.
    pub(super) fn newer_function(&mut self, node: Node<'a>, name: &str, since: u32) {
        let version = self.around.catalogue.server_version();
        if version < since {
            let what = format!("calls {name}, which Postgres {version} does not have itself");
            self.calls(StatementClass::Code, node, what);
        }
    }

    /// `a + b` and its kind.
    pub(super) fn operator_expression(&mut self, node: Node<'a>) {
        match node.word(Field::Kind) {
            "AEXPR_BETWEEN" | "AEXPR_NOT_BETWEEN" | "AEXPR_BETWEEN_SYM" | "AEXPR_NOT_BETWEEN_SYM" => {
                for name in [">=", "<="] {
                    self.operator(node, None, name);
                }
            }
            _ => self.qualified_operator(node, Field::Name),
        }
    }

    /// `x IN (SELECT ..)` looks up `=`; `x > ALL (SELECT ..)` says which.
    pub(super) fn sublink(&mut self, node: Node<'a>) {
        if node.has(Field::OperName) {
            self.qualified_operator(node, Field::OperName);
        } else if node.word(Field::SubLinkType) == "ANY_SUBLINK" {
            self.operator(node, None, "=");
        }
    }

    /// `CASE x WHEN y`, `JOIN .. USING (x)` and `NATURAL JOIN` look up `=` without writing it.
    pub(super) fn unwritten_equality(&mut self, node: Node<'a>) {
        let compares = match node.kind() == Kind::CaseExpr {
            true => node.has(Field::Arg),
            false => node.has(Field::UsingClause) || node.flag(Field::IsNatural),
        };
        if compares {
            self.operator(node, None, "=");
        }
    }

    /// An operator in a list of names.
    pub(super) fn qualified_operator(&mut self, node: Node<'a>, field: Field) {
        if node.has(field) {
            let names = node.names(field);
            let (schema, name) = split(&names);
            self.operator(node, schema, name);
        }
    }

    fn operator(&mut self, node: Node<'a>, schema: Option<&str>, name: &str) {
        if let Some(meaning) = self.around.catalogue.operator(schema, name, self.path) {
            self.meets(&meaning, node, ObjectKind::Operator, schema, name, "uses the operator");
        }
    }

    /// `a.b`: where no column has the name, `b` is called with the row of `a`, and no call shows.
    pub(super) fn column(&mut self, node: Node<'a>) {
        let fields = node.list(Field::Fields);
        let count = fields.clone().count();
        if count < 2 {
            return;
        }
        let mut last = fields.skip(count - 2);
        let (qualifier, attribute) = (last.next(), last.next());
        let Some(name) = attribute.and_then(Node::string) else { return };
        let catalogue = self.around.catalogue;
        let qualifier = qualifier.and_then(Node::string);
        if catalogue.attribute(&name, Applied::Anything, self.path).is_none() {
            return self.doubt_column(qualifier, name);
        }
        if qualifier.as_deref().is_some_and(|table| self.has_column(table, &name) == Has::Yes) {
            return;
        }
        let scalar = qualifier.is_none_or(|qualifier| self.is_function_alias(&qualifier));
        let applied = if scalar { Applied::Anything } else { Applied::Row };
        if let Some(meaning) = catalogue.attribute(&name, applied, self.path) {
            self.meets(&meaning, node, ObjectKind::Function, None, &name, "may call");
        }
    }

    /// A column that the catalogue does not know may be a call of a function that was made since it was read.
    fn doubt_column(&mut self, table: Option<Cow<'a, str>>, name: Cow<'a, str>) {
        let catalogue = self.around.catalogue;
        if !catalogue.is_loaded() {
            return;
        }
        let table = table.unwrap_or_default();
        if !self.columns_seen.insert((table.clone(), name.clone())) {
            return;
        }
        match self.has_column(&table, &name) {
            Has::Yes => {}
            Has::No => _ = self.found.doubts.insert(Doubt::Column(name.into())),
            Has::Unknown => self.doubt_attribute(&name),
        }
    }

    fn doubt_attribute(&mut self, name: &str) {
        let catalogue = self.around.catalogue;
        if catalogue.is_loaded() && !catalogue.has_function(name) {
            // A lookup would find the known type each time, and then read the whole catalogue again.
            let is_type = catalogue.has_own_type(name);
            let doubt = if is_type { Doubt::Call(name.into()) } else { Doubt::Attribute(name.into()) };
            self.found.doubts.insert(doubt);
        }
    }

    /// Whether whatever goes by the name of `table` in this text has that column: then it is no call.
    fn has_column(&mut self, table: &str, column: &str) -> Has {
        let tree = self.tree;
        let items = self.from_items.get_or_insert_with(|| from_items(tree));
        let tables = Names { catalogue: self.around.catalogue, path: self.path }.with(&self.patience);
        let mut found =
            items.get(table).into_iter().flatten().map(|item| tables.has_column(*item, column, 0));
        let Some(first) = found.next() else { return Has::Unknown };
        if found.all(|other| other == first) { first } else { Has::Unknown }
    }

    /// Whether some FROM item of that name is a function, whose row may be a scalar.
    fn is_function_alias(&mut self, name: &str) -> bool {
        let tree = self.tree;
        let (aliases, any) = self.function_aliases.get_or_insert_with(|| {
            let mut aliases = HashSet::new();
            let mut any = false;
            for item in tree.node(0).into_iter().flat_map(Node::within) {
                if item.kind() != Kind::RangeFunction {
                    continue;
                }
                match item.get(Field::Alias).and_then(|alias| alias.text(Field::Aliasname)) {
                    Some(alias) => _ = aliases.insert(alias),
                    // `FROM upper('x')` is called upper; `FROM CAST('x' AS text)` is called text,
                    // `FROM current_user` current_user, and so on for a dozen kinds of syntax.
                    None => {
                        let first = item.list(Field::Functions).next();
                        let first = first.and_then(|pair| pair.list(Field::Items).next());
                        match first.filter(|call| call.kind() == Kind::FuncCall) {
                            Some(call) => aliases.extend(call.names(Field::Funcname).pop()),
                            None => any = true,
                        }
                    }
                }
            }
            (aliases, any)
        });
        *any || aliases.contains(name)
    }

    /// `(a).b`: the same, of any expression.
    pub(super) fn indirection(&mut self, node: Node<'a>) {
        for attribute in node.list(Field::Indirection) {
            let Some(name) = attribute.string() else { continue };
            let catalogue = self.around.catalogue;
            let subject = node.get(Field::Arg).filter(|arg| arg.location().is_some()).unwrap_or(node);
            if let Some(meaning) = catalogue.attribute(&name, Applied::Anything, self.path) {
                self.meets(&meaning, subject, ObjectKind::Function, None, &name, "may call");
            } else if node.get(Field::Arg).is_some_and(|arg| self.is_scalar(arg))
                && !catalogue.may_be_called(&name)
                && !catalogue.is_scalar_type(&name)
            {
                let what = format!("calls {name}, which is not on the allow-list");
                self.calls(StatementClass::Code, subject, what);
            } else {
                self.doubt_attribute(&name);
            }
        }
    }

    /// Whether an expression surely has no columns, so that an attribute of it is a call.
    fn is_scalar(&self, node: Node<'a>) -> bool {
        if node.kind() == Kind::TypeCast {
            let names = node.get(Field::TypeName).map(|to| to.names(Field::Names)).unwrap_or_default();
            let (schema, name) = split(&names);
            return matches!(schema, None | Some("pg_catalog")) && self.around.catalogue.is_scalar_type(name);
        }
        matches!(node.kind(), Kind::AConst | Kind::SQLValueFunction)
    }

    /// A type, wherever one is named: making a value of it may run a function.
    pub(super) fn type_name(&mut self, node: Node<'a>) {
        let names = node.names(Field::Names);
        let (schema, name) = split(&names);
        let catalogue = self.around.catalogue;
        if let Some(meaning) = catalogue.of_type(schema, name, self.path) {
            self.meets(&meaning, node, ObjectKind::Type, schema, name, "uses the type");
        } else if catalogue.is_loaded() && !catalogue.has_type(name) {
            self.found.doubts.insert(Doubt::Type(name.into()));
        }
    }

    /// TABLESAMPLE methods are functions.
    pub(super) fn sample(&mut self, node: Node<'a>) {
        let names = node.names(Field::Method);
        let (schema, name) = split(&names);
        let own = matches!(schema, None | Some("pg_catalog")) && matches!(name, "bernoulli" | "system");
        if !own && !self.around.catalogue.is_safe_method(schema, name, self.path) {
            let what = format!("samples with {}, which is not on the allow-list", shown(schema, name));
            self.calls(StatementClass::Code, node, what);
        }
    }

    /// An index's operator class brings functions. Postgres's own are known by their names.
    pub(super) fn operator_class(&mut self, node: Node<'a>) {
        let names = node.names(Field::Opclass);
        let (schema, name) = split(&names);
        let own =
            matches!(schema, None | Some("pg_catalog")) && OPERATOR_CLASSES.binary_search(&name).is_ok();
        let trusted = || self.around.catalogue.is_trusted_part("operator class", schema, name, self.path);
        if !names.is_empty() && !own && !trusted() {
            let what =
                format!("uses the operator class {}, which is not on the allow-list", shown(schema, name));
            self.calls(StatementClass::Code, node, what);
        }
    }

    /// The operators of an exclusion constraint: pairs of an element and a list of names.
    pub(super) fn exclusion(&mut self, node: Node<'a>) {
        let pairs = node.list(Field::Exclusions);
        for names in pairs.flat_map(|pair| pair.list(Field::Items)).filter(|part| part.kind() == Kind::List) {
            let names = names.names(Field::Items);
            let (schema, name) = split(&names);
            self.operator(node, schema, name);
        }
    }
}
