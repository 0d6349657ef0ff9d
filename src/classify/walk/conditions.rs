//! Whether a condition picks rows, or is true of all of them however it is dressed up.
//!
//! `WHERE id = id`, `WHERE 1 = 1`, `WHERE id = 5 OR true`, `WHERE EXISTS (SELECT 1)`: an UPDATE or
//! DELETE with one of these changes the whole table. What a condition *means* for the rows there are
//! nobody can tell (`id > 0` may be all of them); this finds those that cannot depend on the row, or
//! depend on it in appearance only.
//!
//! Works from the leaves to the root over a flat range of the tree: each node is summarised from its
//! parts' summaries. Two expressions are the same when their hashes are; a collision can only make a
//! condition look constant, and so be held.

use std::hash::Hasher;

use crate::classify::tree::{Field, Kind, Node};

/// How an expression depends on the target's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    /// True of every row.
    Always,
    /// False of every row.
    Never,
    /// The same for every row, whatever that is.
    Constant,
    /// Depends on the row.
    Picks,
}

use Truth::{Always, Constant, Never, Picks};

#[derive(Clone, Copy, Debug)]
struct Summary {
    truth: Truth,
    hash: u64,
    /// The hash that its negation would have, where one is known.
    opposite: u64,
    /// It is a comparison or a test, whose value is NULL at most where a column is.
    is_test: bool,
    /// It is a column of the same table under another name: another row of it, perhaps.
    is_twin: bool,
}

const NOTHING: Summary = Summary { truth: Constant, hash: 0, opposite: 0, is_test: false, is_twin: false };

/// Whether `condition`, of the data-changing `statement`, depends on the row of its target.
pub(super) fn picks_rows(statement: Node<'_>, condition: Node<'_>) -> bool {
    Analysis::new(statement, condition).run() == Picks
}

struct Analysis<'t> {
    condition: Node<'t>,
    /// The target's alias or name.
    target: String,
    /// Other names for the same table in FROM or USING.
    twins: Vec<String>,
    summaries: Vec<Summary>,
    /// How many more nodes may be looked at to judge subqueries: nested ones would cost their depth
    /// times their size.
    patience: std::cell::Cell<u32>,
}

const PATIENCE: u32 = 4_000_000;

/// FxHash's mixing: fast, and good enough where a collision is harmless.
#[derive(Clone, Copy)]
struct Mix(u64);

impl Mix {
    fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn add(self, value: u64) -> Self {
        Self((self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95))
    }

    fn text(self, text: &[u8]) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(text);
        self.add(hasher.finish())
    }
}

fn alias_of(range: Node<'_>) -> Option<String> {
    let alias = range.get(Field::Alias).and_then(|alias| alias.text(Field::Aliasname));
    alias.or_else(|| range.text(Field::Relname)).map(|name| name.into_owned())
}

impl<'t> Analysis<'t> {
    fn new(statement: Node<'t>, condition: Node<'t>) -> Self {
        let target = statement.get(Field::Relation);
        let table = target.and_then(|target| target.text(Field::Relname));
        let others = [Field::FromClause, Field::UsingClause, Field::SourceRelation].into_iter();
        let twins = others
            .filter_map(|field| statement.get(field))
            .flat_map(Node::within)
            .filter(|node| node.kind() == Kind::RangeVar && node.text(Field::Relname) == table)
            .filter_map(alias_of)
            .collect();
        let length = (condition.end() - condition.index()) as usize;
        Self {
            condition,
            target: target.and_then(alias_of).unwrap_or_default(),
            twins,
            summaries: vec![NOTHING; length],
            patience: std::cell::Cell::new(PATIENCE),
        }
    }

    fn run(mut self) -> Truth {
        // Descendants stand behind their parents, so backwards is children first.
        for node in self.condition.within().rev() {
            let summary = self.summarise(node);
            let place = (node.index() - self.condition.index()) as usize;
            if let Some(slot) = self.summaries.get_mut(place) {
                *slot = summary;
            }
        }
        self.of(self.condition).truth
    }

    fn of(&self, node: Node<'_>) -> Summary {
        let place = node.index().wrapping_sub(self.condition.index()) as usize;
        self.summaries.get(place).copied().unwrap_or(NOTHING)
    }

    fn field(&self, node: Node<'_>, field: Field) -> Option<Summary> {
        node.get(field).map(|part| self.of(part))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "an expression without a rule depends on the row as its parts do"
    )]
    fn summarise(&self, node: Node<'t>) -> Summary {
        match node.kind() {
            Kind::Scalar | Kind::Empty => Summary { hash: Mix::new(1).text(node.raw()).0, ..NOTHING },
            Kind::AConst => self.constant(node),
            Kind::ColumnRef => self.column(node),
            Kind::TypeCast | Kind::CollateClause => self.field(node, Field::Arg).unwrap_or(NOTHING),
            Kind::BoolExpr => self.boolean(node),
            Kind::AExpr => self.operator(node),
            Kind::NullTest => self.null_test(node),
            Kind::BooleanTest => self.boolean_test(node),
            Kind::SubLink => self.sublink(node),
            Kind::CaseExpr => self.case(node),
            Kind::CoalesceExpr | Kind::MinMaxExpr => self.first_of(node),
            Kind::CurrentOfExpr => Summary { truth: Picks, hash: 3, ..NOTHING },
            _ => self.any_part(node),
        }
    }

    /// Depends on the row when any of its parts does.
    fn any_part(&self, node: Node<'t>) -> Summary {
        let mut hash = Mix::new(node.kind() as u64);
        let mut truth = Constant;
        for part in node.children().filter(|part| part.field() != Field::Location) {
            let summary = self.of(part);
            hash = hash.add(part.field() as u64).add(summary.hash);
            if summary.truth == Picks {
                truth = Picks;
            }
        }
        Summary { truth, hash: hash.0, ..NOTHING }
    }

    fn constant(&self, node: Node<'t>) -> Summary {
        let flag = node.get(Field::Boolval).map(|flag| flag.flag(Field::Boolval));
        let truth = match flag {
            Some(true) => Always,
            Some(false) => Never,
            None => Constant,
        };
        Summary { truth, ..self.any_part(node) }
    }

    fn column(&self, node: Node<'t>) -> Summary {
        let fields: Vec<_> = node.list(Field::Fields).filter_map(Node::string).collect();
        let (name, qualifier) = match fields.as_slice() {
            [.., qualifier, name] => (&**name, Some(&**qualifier)),
            [name] => (&**name, None),
            // `t.*`
            [] => ("*", None),
        };
        let is_twin = qualifier.is_some_and(|qualifier| self.twins.iter().any(|twin| twin == qualifier));
        let own = is_twin || qualifier.is_none_or(|qualifier| qualifier == self.target);
        // A column of the target has one hash under all its spellings: `t.id = id` is `id = id`.
        let hash = if own { Mix::new(2) } else { Mix::new(4).text(qualifier.unwrap_or("").as_bytes()) };
        // Columns of other tables alone do not pick rows of the target.
        Summary { truth: picks(own && !is_twin), hash: hash.text(name.as_bytes()).0, is_twin, ..NOTHING }
    }

    fn boolean(&self, node: Node<'t>) -> Summary {
        let parts: Vec<Summary> = node.list(Field::Args).map(|part| self.of(part)).collect();
        let whole = Summary { is_test: true, ..self.any_part(node) };
        let any = |truth| parts.iter().any(|part| part.truth == truth);
        let truth = match node.word(Field::Boolop) {
            "NOT_EXPR" => {
                let part = parts.first().copied().unwrap_or(NOTHING);
                let truth = match part.truth {
                    Always => Never,
                    Never => Always,
                    Constant | Picks => part.truth,
                };
                let hash = part.opposite ^ 0x5555;
                return Summary { truth, hash, opposite: part.hash, is_test: true, is_twin: false };
            }
            "AND_EXPR" if any(Never) => Never,
            "AND_EXPR" if any(Picks) => Picks,
            "AND_EXPR" if any(Constant) => Constant,
            "AND_EXPR" => Always,
            _ if any(Always) => Always,
            _ if any(Constant) => Constant,
            // `a = 1 OR a <> 1`, `a IS NULL OR a IS NOT NULL`
            _ if has_opposites(&parts) => Constant,
            _ if any(Picks) => Picks,
            _ => Never,
        };
        Summary { truth, ..whole }
    }

    fn operator(&self, node: Node<'t>) -> Summary {
        let whole = self.any_part(node);
        let names = node.names(Field::Name);
        let name = names.last().map_or("", |name| &**name);
        let kind = node.word(Field::Kind);
        let (left, right) =
            (self.field(node, Field::Lexpr), self.field(node, Field::Rexpr).unwrap_or(NOTHING));
        let Some(left) = left else {
            // A sign or another prefix changes nothing about what it depends on.
            return if name == "+" { right } else { Summary { truth: picks(right.truth == Picks), ..whole } };
        };
        let items = || node.get(Field::Rexpr).into_iter().flat_map(|list| self.items(list));
        // `t.id = t2.id` of one table joined with itself is true for each row's own twin; `t.id < t2.id`
        // is how duplicates are removed.
        let twins = left.is_twin != right.is_twin;
        let same = left.hash == right.hash && (!twins || matches!(name, "=" | "<=" | ">="));
        let depends = left.truth == Picks || right.truth == Picks;
        match (kind, name) {
            ("AEXPR_OP" | "AEXPR_DISTINCT" | "AEXPR_NOT_DISTINCT" | "AEXPR_NULLIF", _) if same => {
                let literal = |field| node.get(field).is_some_and(|side| side.kind() == Kind::AConst);
                let known = name == "=" && literal(Field::Lexpr);
                Summary { truth: if known { Always } else { Constant }, is_test: true, ..whole }
            }
            ("AEXPR_OP", "=") if self.are_other_literals(node) => {
                Summary { truth: Never, is_test: true, ..whole }
            }
            ("AEXPR_OP", "+" | "-" | "*" | "/" | "||") => {
                self.neutral(node, name, left, right).unwrap_or(Summary { truth: picks(depends), ..whole })
            }
            ("AEXPR_IN" | "AEXPR_OP_ANY" | "AEXPR_OP_ALL", _) => {
                // `id IN (id)`, `id = ANY (ARRAY[id])`
                let itself = same || items().any(|item| item.hash == left.hash);
                self.test(node, whole, depends && !itself)
            }
            ("AEXPR_BETWEEN" | "AEXPR_NOT_BETWEEN" | "AEXPR_BETWEEN_SYM" | "AEXPR_NOT_BETWEEN_SYM", _) => {
                let itself = items().count() > 0 && items().all(|bound| bound.hash == left.hash);
                self.test(node, whole, depends && !itself)
            }
            ("AEXPR_LIKE" | "AEXPR_ILIKE" | "AEXPR_SIMILAR", _) => {
                self.test(node, whole, depends && !same && !self.matches_all(node))
            }
            (_, "~" | "~*" | "!~" | "!~*") => self.test(node, whole, depends && !self.matches_all(node)),
            _ => self.test(node, whole, depends),
        }
    }

    fn test(&self, node: Node<'t>, whole: Summary, picks_rows: bool) -> Summary {
        Summary {
            truth: picks(picks_rows),
            opposite: self.negated(node),
            is_test: true,
            hash: whole.hash,
            is_twin: false,
        }
    }

    /// The hash that the same comparison has with the opposite operator.
    fn negated(&self, node: Node<'t>) -> u64 {
        let names = node.names(Field::Name);
        let name = names.last().map_or("", |name| &**name);
        let opposite = match name {
            "=" => "<>",
            "<>" => "=",
            "<" => ">=",
            ">=" => "<",
            ">" => "<=",
            "<=" => ">",
            "~~" => "!~~",
            "!~~" => "~~",
            "~" => "!~",
            "!~" => "~",
            _ => return 0,
        };
        let mut hash = Mix::new(node.kind() as u64);
        for part in node.children().filter(|part| part.field() != Field::Location) {
            let own = self.of(part).hash;
            let part_hash = if part.field() == Field::Name { self.name_list(part, opposite) } else { own };
            hash = hash.add(part.field() as u64).add(part_hash);
        }
        hash.0
    }

    /// The hash of a list that holds one name.
    fn name_list(&self, list: Node<'t>, name: &str) -> u64 {
        let scalar = Mix::new(1).text(escaped(name).as_bytes()).0;
        let string = Mix::new(Kind::String as u64).add(Field::Sval as u64).add(scalar).0;
        Mix::new(list.kind() as u64).add(Field::None as u64).add(string).0
    }

    fn items(&self, list: Node<'t>) -> impl Iterator<Item = Summary> {
        // A List has items, an ARRAY[..] elements; nothing else has either.
        let inner = list.get(Field::Items).or_else(|| list.get(Field::Elements));
        inner.into_iter().flat_map(Node::children).map(|item| self.of(item))
    }

    /// `x + 0`, `1 * x`, `x || ''` are x; `x - x`, `x * 0` are nothing.
    fn neutral(&self, node: Node<'t>, name: &str, left: Summary, right: Summary) -> Option<Summary> {
        let value = |field| node.get(field).and_then(literal);
        let (a, b) = (value(Field::Lexpr), value(Field::Rexpr));
        let is = |value: &Option<String>, expected: &str| value.as_deref() == Some(expected);
        match name {
            "-" | "/" if left.hash == right.hash => Some(NOTHING),
            "*" if is(&a, "0") || is(&b, "0") => Some(NOTHING),
            "+" | "-" if is(&b, "0") => Some(left),
            "+" if is(&a, "0") => Some(right),
            "*" | "/" if is(&b, "1") => Some(left),
            "*" if is(&a, "1") => Some(right),
            "||" if is(&b, "") => Some(left),
            "||" if is(&a, "") => Some(right),
            _ => None,
        }
    }

    /// `1 = 2`: only numbers and strings without a cast, whose equality we can judge.
    fn are_other_literals(&self, node: Node<'t>) -> bool {
        let value = |field| node.get(field).filter(|side| side.kind() == Kind::AConst);
        match (value(Field::Lexpr), value(Field::Rexpr)) {
            (Some(a), Some(b)) => {
                let both = |field| a.has(field) && b.has(field);
                (both(Field::Ival) || both(Field::Sval)) && literal(a) != literal(b)
            }
            _ => false,
        }
    }

    /// A pattern that anything matches.
    fn matches_all(&self, node: Node<'t>) -> bool {
        let pattern = node.get(Field::Rexpr).into_iter().flat_map(Node::within).find_map(Node::literal);
        pattern.is_some_and(|pattern| {
            matches!(&*pattern, "" | "^" | "$" | ".*" | "^.*" | "^.*$" | ".*$")
                || (!pattern.is_empty() && pattern.bytes().all(|byte| byte == b'%'))
        })
    }

    fn null_test(&self, node: Node<'t>) -> Summary {
        let inner = self.field(node, Field::Arg).unwrap_or(NOTHING);
        // `(id = 5) IS NOT NULL` asks whether id is there, not whether it is 5.
        let truth = picks(inner.truth == Picks && !inner.is_test);
        let is_null = node.word(Field::Nulltesttype) == "IS_NULL";
        let (this, other) = (Mix::new(11).add(inner.hash).0, Mix::new(12).add(inner.hash).0);
        let (hash, opposite) = if is_null { (this, other) } else { (other, this) };
        Summary { truth, hash, opposite, is_test: true, is_twin: false }
    }

    fn boolean_test(&self, node: Node<'t>) -> Summary {
        let inner = self.field(node, Field::Arg).unwrap_or(NOTHING);
        let unknown = matches!(node.word(Field::Booltesttype), "IS_UNKNOWN" | "IS_NOT_UNKNOWN");
        let truth = picks(inner.truth == Picks && !(unknown && inner.is_test));
        Summary { truth, is_test: true, ..self.any_part(node) }
    }

    fn sublink(&self, node: Node<'t>) -> Summary {
        let whole = self.any_part(node);
        let Some(query) = node.get(Field::Subselect) else { return whole };
        let tested = self.field(node, Field::Testexpr);
        let truth = match tested {
            Some(tested) => picks(
                (tested.truth == Picks && !self.holds_all_of_itself(node, query))
                    || self.is_correlated(query),
            ),
            None => picks(self.is_correlated(query)),
        };
        Summary { truth, is_test: node.word(Field::SubLinkType) != "EXPR_SUBLINK", ..whole }
    }

    /// Whether a subquery speaks of the target's row. Only a qualified name says so for sure: in
    /// `EXISTS (SELECT 1 FROM u WHERE id = 1)` the id is u's, if u has one.
    fn is_correlated(&self, query: Node<'t>) -> bool {
        let Some(left) = self.patience.get().checked_sub(query.end() - query.index()) else { return false };
        self.patience.set(left);
        let shadowed = query
            .within()
            .filter(|node| matches!(node.kind(), Kind::RangeVar | Kind::RangeSubselect | Kind::RangeFunction))
            .filter_map(alias_of)
            .any(|name| name == self.target);
        !shadowed
            && query.within().filter(|node| node.kind() == Kind::ColumnRef).any(|column| {
                let fields: Vec<_> = column.list(Field::Fields).filter_map(Node::string).collect();
                matches!(fields.as_slice(), [.., qualifier, _] if **qualifier == self.target)
            })
    }

    /// `id IN (SELECT id FROM t)` of t itself, without a condition.
    fn holds_all_of_itself(&self, node: Node<'t>, query: Node<'t>) -> bool {
        let from: Vec<_> = query.list(Field::FromClause).collect();
        let [table] = from.as_slice() else { return false };
        let columns: Vec<_> =
            query.list(Field::TargetList).filter_map(|column| column.get(Field::Val)).collect();
        let last = |node: Node<'t>| node.list(Field::Fields).filter_map(Node::string).last();
        let tested = node.get(Field::Testexpr).and_then(last);
        query.kind() == Kind::SelectStmt
            && table.kind() == Kind::RangeVar
            && table
                .text(Field::Relname)
                .is_some_and(|name| name == self.target || self.twins.iter().any(|t| *t == *name))
            && ![Field::WhereClause, Field::LimitCount, Field::HavingClause, Field::LimitOffset]
                .into_iter()
                .any(|field| query.has(field))
            && matches!(columns.as_slice(), [column] if tested.is_some() && last(*column) == tested)
    }

    fn case(&self, node: Node<'t>) -> Summary {
        let whole = self.any_part(node);
        let branches: Vec<Node<'t>> = node.list(Field::Args).collect();
        let result = |branch: &Node<'t>| self.field(*branch, Field::Result).unwrap_or(NOTHING);
        let otherwise = self.field(node, Field::Defresult);
        let same = match otherwise {
            Some(otherwise) => branches.iter().all(|branch| result(branch).hash == otherwise.hash),
            None => branches.iter().all(|branch| result(branch).truth == Never),
        };
        // `CASE WHEN true THEN ..`: the first condition decides whether the row has a say.
        let subject = self.field(node, Field::Arg).is_some_and(|subject| subject.truth == Picks);
        let first = branches.first().and_then(|branch| self.field(*branch, Field::Expr));
        let decides = subject || first.is_some_and(|condition| condition.truth == Picks);
        Summary { truth: picks(decides && !same), ..whole }
    }

    /// COALESCE, GREATEST, LEAST: the first argument decides; of equal ones, any.
    fn first_of(&self, node: Node<'t>) -> Summary {
        let parts: Vec<Summary> = node.list(Field::Args).map(|part| self.of(part)).collect();
        let Some(first) = parts.first().copied() else { return NOTHING };
        if parts.iter().all(|part| part.hash == first.hash) {
            return first;
        }
        let depends = if node.kind() == Kind::MinMaxExpr {
            parts.iter().any(|part| part.truth == Picks)
        } else {
            first.truth == Picks
        };
        Summary { truth: picks(depends), ..self.any_part(node) }
    }
}

fn picks(yes: bool) -> Truth {
    if yes { Picks } else { Constant }
}

fn has_opposites(parts: &[Summary]) -> bool {
    let mut hashes: Vec<u64> = parts.iter().map(|part| part.hash).collect();
    hashes.sort_unstable();
    parts.iter().any(|part| part.opposite != 0 && hashes.binary_search(&part.opposite).is_ok())
}

/// libpg_query writes `<` and `>` as JSON escapes; hashes are of the raw text.
fn escaped(name: &str) -> String {
    name.replace('<', "\\u003c").replace('>', "\\u003e")
}

/// A number or string without a cast.
fn literal(node: Node<'_>) -> Option<String> {
    if node.kind() != Kind::AConst {
        return None;
    }
    if let Some(number) = node.get(Field::Ival) {
        return Some(number.number(Field::Ival).to_string());
    }
    if let Some(number) = node.get(Field::Fval) {
        return number.text(Field::Fval).map(|text| text.into_owned());
    }
    node.literal().map(|text| text.into_owned())
}
