//! Whether what a query reads of a table is picked.
//!
//! Stricter than for a table that is changed: a join alone picks nothing, and neither does a column of a
//! query further out, which has another value for each of *its* rows.

use super::{Analysis, Picks, Reads};
use crate::classify::tree::{Field, Kind, Node};
use crate::classify::walk::patience::Patience;
use crate::classify::walk::sources::{From, Names, Source, is_a_query};

/// More items of a FROM are not told apart.
pub(in crate::classify::walk) const MOST_SOURCES: usize = 64;

/// Whether `condition`, with the inner joins of `items`, is known to pick rows of `table`, which is one of
/// `items`, or of another table that it is joined to by equality. `patience` is for all questions about a text.
pub(in crate::classify::walk) fn picks_what_is_read<'t>(
    names: Names<'_>,
    items: impl Iterator<Item = Node<'t>> + Clone,
    condition: Option<Node<'t>>,
    table: Node<'t>,
    patience: &Patience,
) -> bool {
    let from = From::of(items.clone());
    let Some(own) = from.sources.iter().position(|source| source.node.index() == table.index()) else {
        return false;
    };
    if from.sources.len() > MOST_SOURCES {
        return false;
    }
    let conjuncts = conjuncts(condition.into_iter().chain(from.joins.iter().copied()));
    let groups = joined(&from, items, &conjuncts);
    let is_picked = |place: usize, source: &Source<'t>| {
        let is_table = place == own || source.node.kind() == Kind::RangeVar;
        let is_joined = groups.get(place) == groups.get(own);
        is_table && is_joined && picks(names, &from, source, &conjuncts, patience)
    };
    // Where everything is joined, it does not matter whose an unqualified column is.
    let anybodys = || {
        groups.iter().all(|group| Some(group) == groups.get(own))
            && from.sources.iter().all(|source| source.node.kind() == Kind::RangeVar)
            && picks_somebodys(names, &from, &conjuncts, patience)
    };
    let picked =
        from.sources.iter().enumerate().any(|(place, source)| is_picked(place, source)) || anybodys();
    picked && !patience.is_over()
}

/// Whether `condition` of `query` is known to pick rows of any of its tables.
pub(in crate::classify::walk) fn picks_any<'t>(
    names: Names<'_>,
    query: Node<'t>,
    condition: Node<'t>,
    patience: &Patience,
) -> bool {
    let from = From::of(query.list(Field::FromClause));
    let conjuncts = conjuncts(std::iter::once(condition));
    from.sources.len() <= MOST_SOURCES
        && (picks_somebodys(names, &from, &conjuncts, patience)
            || from.sources.iter().any(|source| picks(names, &from, source, &conjuncts, patience)))
}

/// The parts of conditions that all have to hold.
fn conjuncts<'t>(conditions: impl Iterator<Item = Node<'t>>) -> Vec<Node<'t>> {
    let mut open: Vec<Node<'t>> = conditions.collect();
    let mut found = Vec::new();
    while let Some(node) = open.pop() {
        if node.kind() == Kind::BoolExpr && node.word(Field::Boolop) == "AND_EXPR" {
            open.extend(node.list(Field::Args));
        } else {
            found.push(node);
        }
    }
    found
}

/// Whether one of some conditions picks rows of `source`.
fn picks<'t>(
    names: Names<'_>,
    from: &From<'t>,
    source: &Source<'t>,
    conditions: &[Node<'t>],
    patience: &Patience,
) -> bool {
    let alone = from.sources.len() == 1;
    let others = || from.sources.iter().filter(|other| other.node.index() != source.node.index());
    let Some(first) = conditions.first() else { return false };
    let mut analysis = Analysis {
        tables: names.with(patience),
        condition: *first,
        home: query_of(source.node),
        target_node: Some(source.node),
        others: others().map(Source::again).collect(),
        table: source.node.text(Field::Relname).map(|name| name.into_owned()),
        target: source.name.clone(),
        unqualified: if alone { Reads::OWN } else { Reads::EITHER },
        twins: Vec::new(),
        copies: others().filter_map(|other| other.name.clone()).collect(),
        only_values: true,
        summaries: Vec::new(),
        depth: 0,
    };
    conditions.iter().any(|condition| {
        analysis.condition = *condition;
        matches!(analysis.run(), Picks(_))
    })
}

/// The same for conditions of which nobody knows whose columns they are about.
fn picks_somebodys<'t>(
    names: Names<'_>,
    from: &From<'t>,
    conditions: &[Node<'t>],
    patience: &Patience,
) -> bool {
    let Some(first) = conditions.first() else { return false };
    let mut analysis = Analysis {
        tables: names.with(patience),
        condition: *first,
        home: None,
        target_node: None,
        others: Vec::new(),
        table: None,
        target: None,
        unqualified: Reads::OWN,
        twins: Vec::new(),
        copies: from.sources.iter().filter_map(|source| source.name.clone()).collect(),
        only_values: true,
        summaries: Vec::new(),
        depth: 0,
    };
    conditions.iter().any(|condition| {
        analysis.condition = *condition;
        matches!(analysis.run(), Picks(_))
    })
}

/// The query or statement whose FROM an item is in.
fn query_of(item: Node<'_>) -> Option<Node<'_>> {
    let mut around = item.parent();
    while let Some(node) = around {
        if is_a_query(node) {
            return Some(node);
        }
        around = node.parent();
    }
    None
}

/// To each source the number of its group: those that equalities connect have the same.
fn joined<'t>(from: &From<'t>, items: impl Iterator<Item = Node<'t>>, conjuncts: &[Node<'t>]) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..from.sources.len()).collect();
    let mut unite = |one: usize, other: usize| {
        if let (Some(one), Some(other)) = (groups.get(one).copied(), groups.get(other).copied()) {
            groups.iter_mut().filter(|group| **group == other).for_each(|group| *group = one);
        }
    };
    let place_of = |column: Node<'t>| {
        let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
        let [.., qualifier, _] = fields.as_slice() else { return None };
        from.sources.iter().position(|source| source.name.as_deref() == Some(&**qualifier))
    };
    for conjunct in conjuncts.iter().filter(|node| node.kind() == Kind::AExpr) {
        let equality = conjunct.word(Field::Kind) == "AEXPR_OP"
            && conjunct.names(Field::Name).last().is_some_and(|name| **name == *"=");
        let (Some(left), Some(right)) = (conjunct.get(Field::Lexpr), conjunct.get(Field::Rexpr)) else {
            continue;
        };
        if !equality || left.kind() != Kind::ColumnRef || right.kind() != Kind::ColumnRef {
            continue;
        }
        match (place_of(left), place_of(right)) {
            (Some(left), Some(right)) => unite(left, right),
            // Of two tables, it can only be about both.
            (None, None) if from.sources.len() == 2 => unite(0, 1),
            _ => {}
        }
    }
    // `JOIN .. USING (..)`. A NATURAL JOIN may have no column in common.
    let mut open: Vec<Node<'t>> = items.filter(|item| item.kind() == Kind::JoinExpr).collect();
    while let Some(join) = open.pop() {
        let sides: Vec<Node<'t>> =
            [Field::Larg, Field::Rarg].into_iter().filter_map(|side| join.get(side)).collect();
        if join.has(Field::UsingClause) {
            let below = |source: &Source<'t>| {
                sides.iter().any(|side| (side.index()..side.end()).contains(&source.node.index()))
            };
            let mut places =
                (0..).zip(&from.sources).filter(|(_, source)| below(source)).map(|(place, _)| place);
            if let Some(first) = places.next() {
                places.for_each(|place| unite(first, place));
            }
        }
        open.extend(sides.into_iter().filter(|side| side.kind() == Kind::JoinExpr));
    }
    groups
}
