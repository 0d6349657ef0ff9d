//! Subqueries, joined tables and WITH: what they say about the target's rows, and whether they bring all of
//! them back.

use super::columns::Whose;
use super::compare::{existence, is_every_flag, negative, picks_by};
use super::emptiness::compares_with;
use super::values::{number_of, uncast};
use super::{Always, Constant, Form, Never, OtherThanTwin, Picks, SameAsTwin, Truth, Unclear};
use super::{Analysis, Columns, NOTHING, Reads, Shape, Summary};
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::walk::sources::{DEEPEST, From, Source, Tables};

/// Whether a query makes numbers up, or takes them from the system's lists of everything: all keys of a table may
/// be among them.
pub(in crate::classify::walk) fn counts(query: Node<'_>) -> bool {
    query.within().any(|node| {
        node.flag(Field::Ordinality)
            || node.kind() == Kind::RangeVar && is_a_list_of_the_systems(node)
            || node.kind() == Kind::FuncCall
                && node.names(Field::Funcname).last().is_some_and(|name| *name == "generate_series")
    })
}

/// `pg_attribute`, `information_schema.columns`; not what goes on in the server, like `pg_stat_activity`.
fn is_a_list_of_the_systems(table: Node<'_>) -> bool {
    let name = table.text(Field::Relname).unwrap_or_default();
    let schema = table.text(Field::Schemaname);
    schema.as_deref() == Some("information_schema")
        || schema.is_none_or(|schema| schema == "pg_catalog")
            && name.starts_with("pg_")
            && !["pg_stat", "pg_lock"].iter().any(|live| name.starts_with(live))
}

/// Whether what a query selects is true or false: with both, it is every flag.
fn selects_a_test(query: Node<'_>) -> bool {
    query.list(Field::TargetList).filter_map(|item| item.get(Field::Val)).any(|value| {
        matches!(value.kind(), Kind::BoolExpr | Kind::NullTest | Kind::BooleanTest)
            || value.kind() == Kind::SubLink && value.word(Field::SubLinkType) != "EXPR_SUBLINK"
            || value.kind() == Kind::AExpr
                && value.names(Field::Name).last().is_some_and(|name| {
                    !matches!(&**name, "+" | "-" | "*" | "/" | "%" | "||" | "&" | "->" | "->>" | "#>" | "#>>")
                })
                && value.word(Field::Kind) != "AEXPR_NULLIF"
    })
}

/// The same of what it returns: `SELECT row_number() OVER () FROM u`.
fn numbers(query: Node<'_>) -> bool {
    query.list(Field::TargetList).flat_map(Node::within).any(|node| {
        node.kind() == Kind::FuncCall
            && node
                .names(Field::Funcname)
                .last()
                .is_some_and(|name| matches!(&**name, "row_number" | "rank" | "dense_rank"))
    })
}

/// Whether a list of constants has both values that a flag may have: `VALUES (true), (false)`.
fn has_every_flag(query: Node<'_>) -> bool {
    let constants = query.within().filter(|node| node.kind() == Kind::AConst);
    is_every_flag(constants.map(|node| (Unclear, node)))
}

/// A batch may be so large.
pub(super) const LARGEST_BATCH: i64 = 100_000;

impl<'t, 'p> Analysis<'t, 'p> {
    /// The condition of an UPDATE, DELETE or MERGE.
    pub(super) fn of_statement(tables: Tables<'p>, statement: Node<'t>, condition: Node<'t>) -> Self {
        let target = statement.get(Field::Relation);
        let table = target.and_then(|target| target.text(Field::Relname)).map(|name| name.into_owned());
        let alias = target
            .and_then(|target| target.get(Field::Alias))
            .and_then(|alias| alias.text(Field::Aliasname))
            .map(|name| name.into_owned());
        let listed = [Field::FromClause, Field::UsingClause].into_iter();
        let listed = listed.flat_map(|field| statement.list(field));
        let others = From::of(listed.chain(statement.get(Field::SourceRelation)));
        let mut analysis = Self {
            tables,
            condition,
            home: Some(statement),
            target_node: target,
            target: alias.or_else(|| table.clone()),
            table,
            unqualified: if others.sources.is_empty() { Reads::OWN } else { Reads::EITHER },
            others: others.sources,
            twins: Vec::new(),
            copies: Vec::new(),
            only_values: false,
            summaries: Vec::new(),
            depth: 0,
        };
        analysis.place_others();
        analysis
    }

    /// The same table's rows, seen from a condition inside of a subquery of this condition.
    pub(super) fn inside(&self, condition: Node<'t>, sources: &[Source<'t>]) -> Self {
        let hidden = sources.iter().any(|source| source.name.is_some() && source.name == self.target);
        let mut analysis = Self {
            tables: self.tables,
            condition,
            home: self.home,
            target_node: self.target_node,
            table: self.table.clone(),
            target: self.target.clone().filter(|_| !hidden),
            unqualified: Reads::OTHER,
            others: self.others.iter().map(Source::again).collect(),
            // Those of queries in between are what they were.
            twins: self.twins.clone(),
            copies: self.copies.clone(),
            only_values: false,
            summaries: Vec::new(),
            depth: self.depth + 1,
        };
        let (twins, copies) = (analysis.twins.len(), analysis.copies.len());
        analysis.place(sources);
        // A name alone may be of any of them.
        if analysis.twins.len() > twins {
            analysis.unqualified = analysis.unqualified.and(Reads::TWIN);
        }
        if analysis.copies.len() > copies {
            analysis.unqualified = analysis.unqualified.and(Reads::COPY);
        }
        analysis
    }

    /// Another table of a query, `source`, seen from a condition of that query.
    fn of_source(&self, condition: Node<'t>, source: &Source<'t>, query: Node<'t>, from: &From<'t>) -> Self {
        let others = from.sources.iter().filter(|other| other.node.index() != source.node.index());
        let others: Vec<Source<'t>> = others.map(Source::again).collect();
        // What the row itself is compared with picks nothing: `id IN (SELECT x.id FROM t x WHERE x.id = t.id)`.
        let hidden = from.sources.iter().any(|other| other.name == self.target);
        let copies = self.copies.iter().cloned().chain(self.target.clone().filter(|_| !hidden)).collect();
        let mut analysis = Self {
            tables: self.tables,
            condition,
            home: Some(query),
            target_node: Some(source.node),
            table: self.table.clone(),
            target: source.name.clone(),
            unqualified: if others.is_empty() { Reads::OWN } else { Reads::EITHER },
            others,
            twins: Vec::new(),
            copies,
            only_values: false,
            summaries: Vec::new(),
            depth: self.depth + 1,
        };
        // And neither does another name for it: `FROM t x JOIN t y ON x.id = y.id`.
        if self.depth < DEEPEST {
            analysis.place_others();
        }
        analysis
    }

    fn place_others(&mut self) {
        let others = std::mem::take(&mut self.others);
        self.place(&others);
        self.others = others;
    }

    /// Notes which of `sources` are the target's table, or all its rows by another way.
    fn place(&mut self, sources: &[Source<'t>]) {
        for source in sources {
            let Some(name) = source.name.clone() else { continue };
            if self.is_the_table(source.node) {
                self.twins.push(name);
            } else if self.may_be_all_rows(source.node, self.depth) || self.says_it_all(source.node) {
                self.copies.push(name);
            }
        }
    }

    /// Whether a subquery or function of a FROM makes its rows out of the target's row, or up: `(SELECT code) s`,
    /// `unnest(ARRAY[code])`, `generate_series(1, 1000000)`, `(VALUES (true), (false)) v`.
    fn says_it_all(&self, source: Node<'t>) -> bool {
        if source.kind() == Kind::RangeVar {
            let query = self.with_query(source);
            return query.is_none() && is_a_list_of_the_systems(source)
                || query.is_some_and(|query| self.counts_up(query));
        }
        !self.tables.patience.can_afford(source)
            || counts(source)
            || source.get(Field::Subquery).is_some_and(selects_a_test)
            || has_every_flag(source)
            || self.is_made_of_the_row(source)
    }

    /// A recursive query without a table: `SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 1000`.
    fn counts_up(&self, query: Node<'t>) -> bool {
        let mut tables = query.within().filter(|node| node.kind() == Kind::RangeVar).peekable();
        !self.tables.patience.can_afford(query)
            || tables.peek().is_some()
                && tables.all(|table| self.with_query(table).is_some_and(|named| is_around(named, table)))
    }

    /// Whether a value comes out of queries of which none reads a table.
    pub(super) fn makes_up(&self, value: Node<'t>) -> bool {
        uncast(value).is_some_and(|value| value.kind() != Kind::AConst)
            && value.within().any(|node| node.kind() == Kind::SubLink)
            && !value.within().any(|node| node.kind() == Kind::RangeVar && self.with_query(node).is_none())
            && !value.within().any(|node| node.kind() == Kind::ParamRef)
    }

    /// Whether an item of a FROM that is no table takes columns of the target's row.
    fn is_made_of_the_row(&self, source: Node<'t>) -> bool {
        let tables = source.within().any(|part| part.kind() == Kind::RangeVar);
        source.within().filter(|part| part.kind() == Kind::ColumnRef).any(|column| {
            let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
            // `json_array_elements(q.j)`, where q is made of all rows, as good as they.
            let brings_all = |name: &str| self.twins.iter().chain(&self.copies).any(|known| known == name);
            match fields.as_slice() {
                [.., qualifier, _] => Some(&**qualifier) == self.target.as_deref() || brings_all(qualifier),
                [name] => match self.whose(column, name) {
                    Some(Whose::Source(Some(source))) => brings_all(&source),
                    Some(whose) => matches!(whose, Whose::Target | Whose::Unclear),
                    // Where nothing else is there that could have it.
                    None => !tables && source.kind() == Kind::RangeSubselect && !source.has(Field::Lateral),
                },
                [] => false,
            }
        })
    }

    /// A reference to the target's table by its name, in whatever schema.
    fn is_the_table(&self, source: Node<'t>) -> bool {
        source.kind() == Kind::RangeVar
            && source.text(Field::Relname).as_deref() == self.table.as_deref()
            && self.with_query(source).is_none()
    }

    /// The target's table, or a view or partition with rows of it, or what it is a view or partition of.
    fn shows_the_table(&self, source: Node<'t>) -> bool {
        if source.kind() != Kind::RangeVar || self.with_query(source).is_some() {
            return false;
        }
        let Some(table) = self.table.as_deref() else { return false };
        let name = source.text(Field::Relname).unwrap_or_default();
        if *name == *table {
            return true;
        }
        let catalogue = self.tables.catalogue;
        let target_schema = self.target_node.and_then(|target| target.text(Field::Schemaname));
        let schema = source.text(Field::Schemaname);
        let mut behind = catalogue.bases(schema.as_deref(), &name);
        let own = || catalogue.bases(target_schema.as_deref(), table);
        own().any(|base| *base.name == *name)
            || behind.any(|base| *base.name == *table || own().any(|own| own.name == base.name))
    }

    /// Whether a call reads the target's table by itself.
    pub(super) fn calls_for_the_table(&self, call: Node<'t>) -> bool {
        let names = call.names(Field::Funcname);
        let (schema, name) = match names.as_slice() {
            [.., schema, name] => (Some(&**schema), &**name),
            [name] => (None, &**name),
            [] => return false,
        };
        let (catalogue, path) = (self.tables.catalogue, self.tables.path);
        let arguments = call.list(Field::Args).count();
        let reads = catalogue.function(schema, name, arguments, path).reads;
        reads.iter().any(|read| self.table.as_deref() == Some(&*read.name))
    }

    /// Whether one item of a FROM may bring all of the target's rows.
    #[expect(clippy::wildcard_enum_match_arm, reason = "functions and their like")]
    fn may_be_all_rows(&self, source: Node<'t>, depth: u32) -> bool {
        match source.kind() {
            Kind::RangeVar => match self.with_query(source) {
                // A recursive query names itself.
                Some(query) if is_around(query, source) => false,
                Some(query) => !self.restricts(query, depth + 1),
                None => self.shows_the_table(source),
            },
            Kind::RangeSubselect => {
                source.get(Field::Subquery).is_none_or(|query| !self.restricts(query, depth + 1))
            }
            _ => self.reads_the_table(source, depth + 1),
        }
    }

    /// Whether the target's table is read anywhere in `node`.
    fn reads_the_table(&self, node: Node<'t>, depth: u32) -> bool {
        if depth > DEEPEST || !self.tables.patience.can_afford(node) {
            return true;
        }
        node.within().any(|part| match part.kind() == Kind::RangeVar {
            true => match self.with_query(part) {
                // A recursive query names itself.
                Some(query) if is_around(query, part) => false,
                Some(query) => self.reads_the_table(query, depth + 1),
                None => self.shows_the_table(part),
            },
            // `id IN (SELECT id FROM function_that_reads_t())`
            false => part.kind() == Kind::FuncCall && self.calls_for_the_table(part),
        })
    }

    /// Whether what `query` returns is surely not all rows of the target's table: it reads other tables, or
    /// it picks rows itself, or says how many.
    pub(super) fn restricts(&self, query: Node<'t>, depth: u32) -> bool {
        self.restricts_to(query, depth, false)
    }

    /// The same; `narrowly` if together with others it must not be all of them.
    fn restricts_to(&self, query: Node<'t>, depth: u32, narrowly: bool) -> bool {
        if depth > DEEPEST || !self.tables.patience.can_step() {
            return false;
        }
        if !self.reads_the_table(query, depth) {
            return true;
        }
        if query.kind() != Kind::SelectStmt {
            // What changes rows is judged by itself, and returns those that it changed.
            return matches!(query.kind(), Kind::UpdateStmt | Kind::DeleteStmt | Kind::MergeStmt);
        }
        // `LIMIT 5 WITH TIES` may be everything, and so may five of two values.
        let ties = query.word(Field::LimitOption) == "LIMIT_OPTION_WITH_TIES";
        if !ties && query.get(Field::LimitCount).is_some_and(is_a_batch) {
            // `id IN (SELECT x.id FROM t x WHERE x.id = t.id LIMIT 5)` is five for each row.
            let from = From::of(query.list(Field::FromClause));
            return self.may_tell_rows_apart(query, &from) && !self.speaks_of_the_row(query, &from);
        }
        if !matches!(query.word(Field::Op), "" | "SETOP_NONE") {
            let legs = || [Field::Larg, Field::Rarg].into_iter().filter_map(|leg| query.get(leg));
            // `SELECT .. WHERE a = 5 UNION SELECT .. WHERE a <> 5`
            let several = legs().filter(|leg| self.reads_the_table(*leg, depth + 1)).count() > 1;
            let adds = query.word(Field::Op) == "SETOP_UNION" && several;
            return legs().all(|leg| self.restricts_to(leg, depth + 1, narrowly || adds));
        }
        // `SELECT unnest(ARRAY(SELECT id FROM t))`
        let brings = |part: Node<'t>| match part.kind() == Kind::SubLink {
            true => part.get(Field::Subselect).is_some_and(|query| !self.restricts(query, depth + 1)),
            false => part.kind() == Kind::FuncCall && self.calls_for_the_table(part),
        };
        if query.list(Field::TargetList).flat_map(Node::within).any(brings) {
            return false;
        }
        // `VALUES (unnest((SELECT array_agg(id) FROM t)))`; without a call it is one value.
        let calls = query
            .list(Field::ValuesLists)
            .flat_map(Node::within)
            .filter(|part| part.kind() == Kind::FuncCall);
        if calls.flat_map(Node::within).any(brings) {
            return false;
        }
        let from = From::of(query.list(Field::FromClause));
        let conditions = || query.get(Field::WhereClause).into_iter().chain(from.joins.iter().copied());
        from.sources.iter().filter(|source| self.may_be_all_rows(source.node, depth)).all(|source| {
            conditions().any(|condition| {
                let mut analysis = self.of_source(condition, source, query, &from);
                analysis.depth = depth + 1;
                match analysis.run() {
                    Picks(form) => !narrowly || form.is_narrow(),
                    Always | Never | Constant | SameAsTwin | OtherThanTwin | Unclear => false,
                }
            })
        })
    }

    /// Whether a query looks for other rows of the same table that come before or behind.
    fn compares_twins(&self, query: Node<'t>) -> bool {
        let ordered = |node: Node<'t>| {
            node.kind() == Kind::AExpr
                && node
                    .names(Field::Name)
                    .last()
                    .is_some_and(|name| matches!(&**name, "<" | ">" | "<=" | ">=" | "<>"))
        };
        From::of(query.list(Field::FromClause)).sources.iter().any(|source| self.is_the_table(source.node))
            && query.get(Field::WhereClause).is_some_and(|condition| condition.within().any(ordered))
    }

    /// Whether so many rows of what a query selects stand for no more rows than that: its columns hold another value
    /// in each row, as far as is known.
    fn may_tell_rows_apart(&self, query: Node<'t>, from: &From<'t>) -> bool {
        let [source] = from.sources.as_slice() else { return true };
        let mut items = query.list(Field::TargetList).filter_map(|item| item.get(Field::Val));
        let (Some(only), None) = (items.next(), items.next()) else { return true };
        let fields: Vec<_> = only.list(Field::Fields).filter_map(Node::string).collect();
        let Some(name) = fields.last().filter(|_| only.kind() == Kind::ColumnRef) else { return true };
        self.constraint_of(source.node, name).is_none_or(|known| known.is_key || &**name == "ctid")
    }

    pub(super) fn sublink(&self, node: Node<'t>) -> Summary {
        let Some(query) = node.get(Field::Subselect) else { return self.parts(node) };
        // Each of nested ones is looked through, with all that are in it.
        if !self.tables.patience.can_afford(query) {
            return self.parts(node);
        }
        let tested = self.field(node, Field::Testexpr);
        let operator = node.names(Field::OperName);
        let operator = operator.last().map_or("=", |name| &**name);
        match (node.word(Field::SubLinkType), tested) {
            ("EXISTS_SUBLINK", _) => {
                let truth = self.exists(query);
                let reads = if truth == Constant { Reads::default() } else { Reads::OWN };
                let one_way = !self.may_bring(query, 0) || self.compares_twins(query);
                Summary { reads, columns: existence(), one_way, ..NOTHING }.test(truth)
            }
            ("ANY_SUBLINK" | "ROWCOMPARE_SUBLINK", Some(tested)) if operator == "=" => {
                let member = self.member(tested, query);
                // What `NOT IN (SELECT 1 WHERE false)` leaves out is nothing.
                let one_way = member.one_way || !self.brings_something(query) || compares_with(query, tested);
                Summary { one_way, ..member }
            }
            ("ALL_SUBLINK", Some(tested)) if operator == "<>" => {
                let member = self.member(tested, query);
                let picks = matches!(member.truth, Picks(_));
                // `n NOT IN (SELECT 0.5 FROM u)`
                let of_rows = query
                    .list(Field::TargetList)
                    .flat_map(Node::within)
                    .any(|part| part.kind() == Kind::ColumnRef);
                let brings = self.brings_something(query) && !compares_with(query, tested);
                let truth = match brings && (of_rows || !query.has(Field::FromClause)) {
                    true if picks => negative(tested),
                    false if picks => Unclear,
                    true | false => member.truth,
                };
                member.test(truth)
            }
            ("EXPR_SUBLINK" | "ARRAY_SUBLINK", _) => self.value_of(node, query),
            (_, Some(tested)) => tested.blur(self.value_of(node, query)),
            (_, None) => self.parts(node),
        }
    }

    /// `id IN (SELECT ..)`
    fn member(&self, tested: Summary, query: Node<'t>) -> Summary {
        let whole = tested.blur(NOTHING);
        if !tested.reads.row() {
            // `5 IN (SELECT u.x FROM u WHERE u.id = t.id)`
            return Summary { reads: Reads::OWN, columns: existence(), ..NOTHING }.test(self.exists(query));
        }
        // `active IN (SELECT c.id = 1 FROM customers c)`
        let others = !selects_a_test(query) && self.brings_others(query);
        let restricts = picks_by(tested) && others && self.restricts(query, self.depth);
        // `id IN (SELECT id FROM t WHERE a <> 2) OR a < 4`: all but some of the table itself.
        let broadly =
            restricts && self.reads_the_table(query, 0) && !self.restricts_to(query, self.depth, true);
        let truth = match restricts {
            true if broadly => Picks(Form::Negative),
            true => Picks(Form::Equal),
            false => Unclear,
        };
        // `id IN (SELECT t_id FROM u) OR NOT EXISTS (SELECT 1 FROM u WHERE u.t_id = t.id)`
        let columns = if broadly { Columns::ALL } else { whole.columns.and(existence()) };
        // And NULL where one of them is.
        let whole = Summary { columns, missing: true, ..whole };
        whole.test_of([tested]).test(truth)
    }

    /// Whether what a query selects does not come from the row that it is compared with.
    fn brings_others(&self, query: Node<'t>) -> bool {
        if !self.tables.patience.can_afford(query) {
            return false;
        }
        // `id IN (SELECT generate_series(1, 1000000))`
        if counts(query) || numbers(query) || has_every_flag(query) {
            return false;
        }
        let mut open = vec![query];
        while let Some(query) = open.pop() {
            open.extend([Field::Larg, Field::Rarg].into_iter().filter_map(|leg| query.get(leg)));
            let from = From::of(query.list(Field::FromClause));
            // `id IN (SELECT c.id FROM (SELECT t.id) c)`
            open.extend(from.sources.iter().filter_map(|source| source.node.get(Field::Subquery)));
            // `id IN (WITH c AS (SELECT t.id) SELECT id FROM c)`; a recursive query names itself.
            let named = from.sources.iter().filter_map(|source| {
                self.with_query(source.node).filter(|query| !is_around(*query, source.node))
            });
            for query in named {
                if !self.tables.patience.can_afford(query) || self.counts_up(query) {
                    return false;
                }
                open.push(query);
            }
            let tables = |source: &Source<'t>| {
                matches!(source.node.kind(), Kind::RangeVar | Kind::RangeSubselect | Kind::RangeTableSample)
            };
            // `FROM customers, unnest(ARRAY[code]) u`
            if from.sources.iter().any(|source| !tables(source) && self.is_made_of_the_row(source.node)) {
                return false;
            }
            let hidden =
                from.sources.iter().any(|source| source.name.is_some() && source.name == self.target);
            let mut columns = query
                .list(Field::TargetList)
                .chain(query.list(Field::ValuesLists))
                .flat_map(Node::within)
                .filter(|node| node.kind() == Kind::ColumnRef);
            let of_the_row = |column: Node<'t>| {
                let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
                match fields.as_slice() {
                    [.., qualifier, _] => !hidden && Some(&**qualifier) == self.target.as_deref(),
                    [name] => match self.whose(column, name) {
                        Some(whose) => matches!(whose, Whose::Target | Whose::Unclear),
                        // `(SELECT code)`
                        None => from.sources.is_empty(),
                    },
                    [] => from.sources.is_empty(),
                }
            };
            if columns.any(of_the_row) {
                return false;
            }
        }
        true
    }

    /// `EXISTS (SELECT .. WHERE .. = target.column)`
    fn exists(&self, query: Node<'t>) -> Truth {
        let from = From::of(query.list(Field::FromClause));
        let plain = query.kind() == Kind::SelectStmt
            && matches!(query.word(Field::Op), "" | "SETOP_NONE")
            && ![Field::LimitOffset, Field::HavingClause, Field::GroupClause, Field::WithClause]
                .into_iter()
                .any(|field| query.has(field))
            // `NOT EXISTS (SELECT .. LIMIT 0)`
            && query.get(Field::LimitCount).is_none_or(|limit| number_of(limit).is_some_and(|rows| rows >= 1.0))
            // An aggregate is one row, whatever there is: `EXISTS (SELECT count(*) ..)`, `.. ORDER BY count(*)`.
            && ![Field::TargetList, Field::SortClause, Field::DistinctClause, Field::WindowClause]
                .into_iter()
                .filter_map(|field| query.get(field))
                .flat_map(Node::within)
                .any(|part| part.kind() == Kind::FuncCall);
        if !self.speaks_of_the_row(query, &from) {
            return Constant;
        }
        let Some(condition) = query.get(Field::WhereClause).filter(|_| plain && !from.sources.is_empty())
        else {
            return Unclear;
        };
        if self.depth >= DEEPEST {
            return Unclear;
        }
        match self.inside(condition, &from.sources).run() {
            Picks(_) => Picks(Form::Equal),
            Always | Never | Constant | SameAsTwin | OtherThanTwin | Unclear => Unclear,
        }
    }

    /// Whether a subquery names a column of the target's row. Where tables are not known, only a qualified
    /// name says so: in `EXISTS (SELECT 1 FROM u WHERE id = 1)` the id is u's, if u has one.
    fn speaks_of_the_row(&self, query: Node<'t>, from: &From<'t>) -> bool {
        if !self.tables.patience.can_afford(query) {
            return true;
        }
        let hidden = from.sources.iter().any(|source| source.name.is_some() && source.name == self.target);
        !hidden
            && query.within().filter(|node| node.kind() == Kind::ColumnRef).any(|column| {
                let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
                match fields.as_slice() {
                    [.., qualifier, _] => Some(&**qualifier) == self.target.as_deref(),
                    [name] => match self.whose(column, name) {
                        Some(whose) => matches!(whose, Whose::Target | Whose::Unclear),
                        None => from.sources.is_empty(),
                    },
                    [] => from.sources.is_empty(),
                }
            })
    }

    /// A subquery as a value.
    fn value_of(&self, node: Node<'t>, query: Node<'t>) -> Summary {
        let from = From::of(query.list(Field::FromClause));
        let scalar = node.word(Field::SubLinkType) == "EXPR_SUBLINK";
        if self.speaks_of_the_row(query, &from) {
            // `(SELECT count(*) FROM u WHERE u.t_id = t.id)`
            let condition = query.get(Field::WhereClause).filter(|_| self.depth < DEEPEST);
            // `(SELECT 0 * count(*) FROM u WHERE u.t_id = t.id) = 0`
            let value = query.list(Field::TargetList).next().and_then(|item| item.get(Field::Val));
            let scaled = value.is_some_and(|value| {
                value.within().any(|part| {
                    part.kind() == Kind::AExpr
                        && part
                            .names(Field::Name)
                            .last()
                            .is_some_and(|name| matches!(&**name, "*" | "/" | "%"))
                        && part.children().any(|side| number_of(side).is_some())
                })
            });
            let tells = scalar
                && !scaled
                && !from.sources.is_empty()
                && self.finds_something(query, self.depth)
                && condition
                    .is_some_and(|condition| matches!(self.inside(condition, &from.sources).run(), Picks(_)))
                && self.brings_others(query);
            let shape = if tells { Shape::Derived } else { Shape::Vague };
            let columns = if from.sources.is_empty() { self.parts(node).columns } else { existence() };
            // NULL where nothing is found.
            let missing = true;
            let (truth, defaulted) = (Unclear, true);
            return Summary { truth, reads: Reads::OWN, columns, shape, defaulted, missing, ..NOTHING };
        }
        if self.restricts(query, self.depth) {
            return NOTHING;
        }
        Summary { reads: Reads::COPY, shape: Shape::Vague, is_scalar_query: scalar, ..NOTHING }
    }

    pub(super) fn with_query(&self, table: Node<'t>) -> Option<Node<'t>> {
        self.tables.with_clause(table)?.get(Field::Ctequery)
    }
}

pub(super) fn is_around(outer: Node<'_>, inner: Node<'_>) -> bool {
    (outer.index()..outer.end()).contains(&inner.index())
}

/// A LIMIT that limits.
fn is_a_batch(limit: Node<'_>) -> bool {
    match number_of(limit) {
        Some(number) => number <= LARGEST_BATCH as f64,
        None => limit.kind() == Kind::ParamRef,
    }
}
