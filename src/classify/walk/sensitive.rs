//! Reading tables that the operator calls sensitive: all of their rows at once is an export.

use std::borrow::Cow;

use super::conditions::{MOST_SOURCES, picks_what_is_read};
use super::{SearchPath, StatementClass, Walk};
use crate::classify::catalogue::Has;
use crate::classify::declared::Sensitive;
use crate::classify::tree::{Children, Field, Kind, Node};

/// A LIMIT beyond this is none: as for FETCH.
const LARGE_LIMIT: i64 = 10_000;

/// Aggregates of which a row says little about each of the rows that went into it.
const SUMMARIES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "corr",
];

/// Aggregates that make one value of all rows.
const COLLECTORS: &[&str] = &[
    "array_agg",
    "string_agg",
    "json_agg",
    "json_agg_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
    "xmlagg",
    "range_agg",
    "range_intersect_agg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "mode",
    "percentile_cont",
    "percentile_disc",
];

impl<'a> Walk<'a> {
    /// The sensitive tables of a FROM, in a statement with a condition of its own.
    pub(super) fn reads_sensitive(&mut self, node: Node<'a>, from: Field) {
        if !self.around.catalogue.knows_sensitive() || self.is_planned(node) {
            return;
        }
        let items = node.list(from);
        let condition = node.get(Field::WhereClause);
        let tables = tables_of(items.clone());
        let few = tables.len() <= MOST_SOURCES;
        for table in tables {
            let Some(what) = self.sensitive(node, table) else { continue };
            if few && picks_what_is_read(self.names(), items.clone(), condition, table, &self.patience)
                || self.is_bounded(node)
            {
                continue;
            }
            let text = format!(
                "reads {what}, which the policy calls sensitive, without a WHERE that picks rows or a small LIMIT"
            );
            let span = self.span_of(table);
            self.finds(StatementClass::Export, text, span);
        }
    }

    /// What a statement returns of a sensitive table that it changes (`UPDATE users SET id = id FROM .. RETURNING
    /// email`) is read as well.
    pub(super) fn returns_sensitive(&mut self, node: Node<'a>, from: Field) {
        let returns = node.has(Field::ReturningList) || node.has(Field::ReturningClause);
        let Some(table) = node.get(Field::Relation).filter(|_| returns) else { return };
        if !self.around.catalogue.knows_sensitive() || self.is_planned(node) {
            return;
        }
        let Some(what) = self.sensitive(node, table) else { return };
        let items = node.list(from).chain([table]);
        let condition = node.get(Field::WhereClause);
        let picked = if node.kind() == Kind::InsertStmt {
            // As many rows as it is given: a list in the text is short, and without a conflict they are its own.
            let updates = node
                .get(Field::OnConflictClause)
                .is_some_and(|conflict| conflict.word(Field::Action) == "ONCONFLICT_UPDATE");
            !updates || node.get(Field::SelectStmt).is_none_or(|query| query.has(Field::ValuesLists))
        } else {
            node.kind() != Kind::MergeStmt
                && items.clone().count() <= MOST_SOURCES
                && picks_what_is_read(self.names(), items, condition, table, &self.patience)
        };
        if !picked {
            let text = format!(
                "returns {what}, which the policy calls sensitive, without a WHERE that picks rows by a value"
            );
            let span = self.span_of(table);
            self.finds(StatementClass::Export, text, span);
        }
    }

    /// What a MERGE takes from a sensitive table goes somewhere else.
    pub(super) fn merges_sensitive(&mut self, node: Node<'a>) {
        if !self.around.catalogue.knows_sensitive() || self.is_planned(node) {
            return;
        }
        let source = node.get(Field::SourceRelation).filter(|source| source.kind() == Kind::RangeVar);
        if let Some(table) = source
            && let Some(what) = self.sensitive(node, table)
        {
            let text = format!("merges all of {what}, which the policy calls sensitive, into another table");
            let span = self.span_of(table);
            self.finds(StatementClass::Export, text, span);
        }
    }

    /// Whether a query returns few rows, whatever it reads, or only sums them up.
    fn is_bounded(&mut self, query: Node<'a>) -> bool {
        if query.kind() != Kind::SelectStmt || !self.patience.can_afford(query) || self.is_repeated(query) {
            return false;
        }
        // `WHERE pg_notify('c', name) IS NULL LIMIT 1` looks at every row.
        let writes = |node: Node<'a>| {
            let names = node.names(Field::Funcname);
            let (schema, name) = match names.as_slice() {
                [.., schema, name] => (Some(&**schema), &**name),
                [name] => (None, &**name),
                [] => (None, ""),
            };
            let arguments = node.list(Field::Args).count();
            !self.around.catalogue.function(schema, name, arguments, self.path).class.changes_nothing()
        };
        if query.within().any(|node| collects(node) || (node.kind() == Kind::FuncCall && writes(node))) {
            return false;
        }
        if sums_up(query) {
            return true;
        }
        // Several queries with a LIMIT each return as many rows as all of them.
        let Some(rows) = self.small_limit(query) else { return false };
        self.limited += rows;
        self.limited <= LARGE_LIMIT
    }

    /// Whether `query` runs once for each row of another: a subquery in an expression, a lateral or recursive
    /// one. A few rows each time are many, and even `EXISTS (SELECT FROM t WHERE secret = n)` says it all in
    /// the end.
    fn is_repeated(&self, query: Node<'a>) -> bool {
        let mut around = query.parent();
        while let Some(node) = around {
            let lateral = node.kind() == Kind::RangeSubselect && node.flag(Field::Lateral);
            let value = node.kind() == Kind::SubLink;
            let recursive = node.kind() == Kind::WithClause && node.flag(Field::Recursive);
            if lateral || value || recursive || !self.patience.can_step() {
                return true;
            }
            around = node.parent();
        }
        false
    }

    /// The LIMIT of `query`, or of the set operation that it is a leg of, where it is a small number.
    fn small_limit(&self, query: Node<'a>) -> Option<i64> {
        let mut limited = query;
        loop {
            let count = limited.get(Field::LimitCount).filter(|count| count.kind() == Kind::AConst);
            let number =
                count.and_then(|count| count.get(Field::Ival)).map(|number| number.number(Field::Ival));
            let ties = limited.word(Field::LimitOption) == "LIMIT_OPTION_WITH_TIES";
            if let Some(rows) = number.filter(|rows| (0..=LARGE_LIMIT).contains(rows) && !ties) {
                return Some(rows);
            }
            let leg = matches!(limited.place(), (Kind::SelectStmt, Field::Larg | Field::Rarg));
            limited = limited.holder().filter(|_| leg && self.patience.can_step())?;
        }
    }

    /// What of `table` is sensitive and read by `statement`, in words.
    fn sensitive(&mut self, statement: Node<'a>, table: Node<'a>) -> Option<String> {
        let name = table.text(Field::Relname)?;
        let schema = table.text(Field::Schemaname);
        if schema.is_none() && self.is_with_query(table, &name) {
            return None;
        }
        let catalogue = self.around.catalogue;
        let path: &SearchPath = self.path;
        let shown = || match &schema {
            Some(schema) => format!("{schema}.{name}"),
            None => name.clone().into_owned(),
        };
        match catalogue.sensitive(schema.as_deref(), &name, path) {
            Sensitive::Nothing => None,
            Sensitive::Everything => Some(shown()),
            Sensitive::Columns(columns) => {
                let is_read = |column: &str| columns.iter().any(|glob| glob.matches(column));
                let is_call = |attribute: &str| {
                    catalogue.may_be_called(attribute)
                        && catalogue.has_column(schema.as_deref(), &name, attribute, path) != Has::Yes
                };
                let read =
                    !self.patience.can_afford(statement) || mentions(statement, table, is_read, is_call);
                read.then(|| {
                    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                    format!("{} of {}", columns.join(", "), shown())
                })
            }
        }
    }
}

/// Whether `statement` may read a column of `table` that `is_meant` takes: it names it, takes whole rows, or
/// gives the columns other names.
/// `x.to_json` is `to_json(x)`, and takes a whole row, where `is_call` says that no column has the name.
pub(super) fn mentions<'t>(
    statement: Node<'t>,
    table: Node<'t>,
    is_meant: impl Fn(&str) -> bool,
    is_call: impl Fn(&str) -> bool,
) -> bool {
    let joined = statement.within().filter(|node| node.kind() == Kind::JoinExpr);
    let aliases: Vec<Node<'t>> = joined.chain([table]).filter_map(|item| item.get(Field::Alias)).collect();
    // `FROM users AS u (a, b)`, `FROM (users JOIN orders USING (id)) AS j (a, b)`
    if aliases.iter().any(|alias| alias.has(Field::Colnames)) {
        return true;
    }
    let mut rows: Vec<_> = aliases.iter().filter_map(|alias| alias.text(Field::Aliasname)).collect();
    rows.extend(table.text(Field::Relname));
    // What RETURNING calls the row before and after.
    rows.extend([Cow::Borrowed("old"), Cow::Borrowed("new")]);
    let options = statement.within().filter(|node| node.kind() == Kind::ReturningOption);
    rows.extend(options.filter_map(|option| option.text(Field::Value)));
    let reads = |column: Node<'t>| {
        let star = column.list(Field::Fields).any(|field| field.kind() == Kind::AStar);
        let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
        let whole = match fields.as_slice() {
            [only] => rows.contains(only),
            [.., row, name] => rows.contains(row) && is_call(name),
            [] => false,
        };
        star || whole || fields.last().is_some_and(|column| is_meant(column))
    };
    let joins_by = |join: Node<'t>| {
        join.flag(Field::IsNatural)
            || join.list(Field::UsingClause).filter_map(Node::string).any(|column| is_meant(&column))
    };
    statement.within().any(|node| match node.kind() == Kind::ColumnRef {
        true => reads(node),
        false => node.kind() == Kind::JoinExpr && joins_by(node),
    })
}

/// The tables that a FROM names, joined or not.
fn tables_of<'t>(items: Children<'t>) -> Vec<Node<'t>> {
    let mut open: Vec<Node<'t>> = items.collect();
    let mut tables = Vec::new();
    while let Some(node) = open.pop() {
        if node.kind() == Kind::RangeVar {
            tables.push(node);
        } else if node.kind() == Kind::JoinExpr {
            open.extend([Field::Larg, Field::Rarg].into_iter().filter_map(|side| node.get(side)));
        } else if node.kind() == Kind::RangeTableSample {
            open.extend(node.get(Field::Relation));
        }
    }
    tables
}

/// Whether an aggregate takes nothing but columns as they are, so that its value says little about each row:
/// `sum(ascii(name) * 1000 ^ id)` is a whole table.
fn is_plain_summary(call: Node<'_>) -> bool {
    let names = call.names(Field::Funcname);
    let name = match names.as_slice() {
        [name] => &**name,
        [schema, name] if **schema == *"pg_catalog" => &**name,
        _ => return false,
    };
    SUMMARIES.contains(&name)
        && !call.has(Field::AggOrder)
        && call.list(Field::Args).all(|argument| matches!(argument.kind(), Kind::ColumnRef | Kind::AConst))
}

/// Whether a call makes one value of many rows.
fn collects(node: Node<'_>) -> bool {
    if node.kind() != Kind::FuncCall {
        return matches!(node.kind(), Kind::JsonObjectAgg | Kind::JsonArrayAgg);
    }
    node.names(Field::Funcname).last().is_some_and(|name| {
        COLLECTORS.contains(&&**name) || (SUMMARIES.contains(&&**name) && !is_plain_summary(node))
    })
}

/// Whether `query` returns one row, of aggregates that say little about each row, and does nothing else.
fn sums_up(query: Node<'_>) -> bool {
    let more = [Field::GroupClause, Field::HavingClause, Field::SortClause, Field::DistinctClause];
    if more.into_iter().any(|field| query.has(field)) {
        return false;
    }
    let calls = || query.within().filter(|node| node.kind() == Kind::FuncCall);
    let summaries: Vec<(u32, u32)> = query
        .list(Field::TargetList)
        .flat_map(Node::within)
        .filter(|node| node.kind() == Kind::FuncCall && !node.has(Field::Over) && is_plain_summary(*node))
        .map(|node| (node.index(), node.end()))
        .collect();
    let inside =
        |node: &Node<'_>| summaries.iter().any(|(start, end)| (*start..*end).contains(&node.index()));
    let rounds = |node: &Node<'_>| matches!(node.names(Field::Funcname).as_slice(), [name] if matches!(&**name, "round" | "trunc" | "abs"));
    !summaries.is_empty()
        && calls().all(|call| inside(&call) || rounds(&call))
        && query
            .list(Field::TargetList)
            .flat_map(Node::within)
            .filter(|node| matches!(node.kind(), Kind::ColumnRef | Kind::SubLink))
            .all(|node| inside(&node))
}
