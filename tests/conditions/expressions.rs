//! Conditions out of columns, functions, operators and literals of many types.

use super::values::{DOCUMENTS, LISTS, NUMBERS, SPANS, TEXTS, TIMES, table};
use super::{Plan, Random, Sample, quoted, run};

/// What an expression is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Text,
    Time,
}

struct Maker(Random);

impl Maker {
    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.0.below(list.len())]
    }

    /// A literal that is among the column's values, and neither the least nor the greatest of them.
    fn literal(&mut self, kind: Type, derived: bool) -> String {
        match kind {
            Type::Number if derived => self.of(&NUMBERS[4..28]).to_owned(),
            Type::Number => self.of(&NUMBERS[2..NUMBERS.len() - 1]).to_owned(),
            Type::Text => {
                let text = self.of(TEXTS);
                // The ends of the order.
                if text == "\u{10ffff}" { "'a'".to_owned() } else { quoted(text) }
            }
            Type::Time => format!("'{}'", self.of(&TIMES[3..TIMES.len() - 1])),
        }
    }

    fn small(&mut self) -> String {
        let numbers = ["0", "1", "2", "3", "5", "10", "100", "-1", "-9", "0.5", "1e-30", "1e30", "2.0"];
        self.of(&numbers).to_owned()
    }

    fn snippet(&mut self) -> String {
        let snippets = ["''", "'a'", "'x'", "' '", "'b'", "'%'", "'1'", "lower('')", "lower('A')", "'zz'"];
        self.of(&snippets).to_owned()
    }

    /// An expression, and whether it is more than a column.
    fn value(&mut self, kind: Type, depth: usize) -> (String, bool) {
        if depth == 0 || self.0.chance(35) {
            let column = match kind {
                Type::Number => self.of(&["id", "n", "m", "amount", "f", "n", "m"]),
                Type::Text => self.of(&["status", "code", "status"]),
                Type::Time => self.of(&["d", "at", "at"]),
            };
            return (column.to_owned(), false);
        }
        let number = |maker: &mut Self| maker.value(Type::Number, depth - 1).0;
        let text = |maker: &mut Self| maker.value(Type::Text, depth - 1).0;
        let time = |maker: &mut Self| maker.value(Type::Time, depth - 1).0;
        let made = match kind {
            Type::Number => match self.0.below(26) {
                0 => format!("{} + {}", number(self), self.small()),
                1 => format!("({} - {})", number(self), self.small()),
                2 => format!("{} * {}", number(self), self.small()),
                3 => format!("({} / {})", number(self), self.small()),
                4 | 5 => format!("({} % {})", number(self), self.small()),
                6 => format!("mod({}, {})", number(self), self.small()),
                7 => format!("({}::bigint & {})", number(self), self.of(&["1", "3", "4", "255", "0", "-1"])),
                8 => format!("-{}", number(self)),
                9 => {
                    let name = self.of(&["abs", "sign", "floor", "ceil", "round", "trunc", "sqrt", "exp"]);
                    format!("{name}({})", number(self))
                }
                10 => {
                    format!("round({}::numeric, {})", number(self), self.of(&["0", "2", "-1", "-9", "-40"]))
                }
                11 | 12 => {
                    let name = self.of(&[
                        "length",
                        "octet_length",
                        "bit_length",
                        "char_length",
                        "ascii",
                        "pg_column_size",
                    ]);
                    format!("{name}({})", text(self))
                }
                13 => format!("strpos({}, {})", text(self), self.snippet()),
                14 => format!("position({} in {})", self.snippet(), text(self)),
                15 | 16 => {
                    let field = self.of(&[
                        "year",
                        "month",
                        "day",
                        "hour",
                        "minute",
                        "second",
                        "dow",
                        "doy",
                        "week",
                        "quarter",
                        "epoch",
                        "century",
                        "millennium",
                        "decade",
                        "isodow",
                        "isoyear",
                        "julian",
                        "milliseconds",
                    ]);
                    match self.0.below(2) {
                        0 => format!("extract({field} from {})", time(self)),
                        _ => format!("date_part('{field}', {})", time(self)),
                    }
                }
                17 => format!(
                    "{}::{}",
                    number(self),
                    self.of(&["int", "bigint", "numeric", "float8", "smallint", "bit(1)::int"])
                ),
                18 => "active::int".to_owned(),
                19 => self
                    .of(&["cardinality(tags)", "array_length(tags, 1)", "length(words)", "array_ndims(tags)"])
                    .to_owned(),
                20 => self
                    .of(&[
                        "(data->>'n')::int",
                        "(data->'n')::bigint",
                        "jsonb_array_length(data)",
                        "lower(span)",
                        "upper(span)",
                    ])
                    .to_owned(),
                21 => format!("coalesce({}, {})", number(self), self.small()),
                22 => format!("nullif({}, {})", number(self), self.small()),
                23 => format!("greatest({}, {})", number(self), self.small()),
                24 => format!("({} {} {})", number(self), self.of(&["+", "-", "*", "%"]), number(self)),
                _ => format!(
                    "CASE WHEN {} THEN {} ELSE {} END",
                    self.condition(depth - 1),
                    number(self),
                    self.small()
                ),
            },
            Type::Text => match self.0.below(20) {
                0 => format!(
                    "{}({})",
                    self.of(&["lower", "upper", "initcap", "reverse", "md5", "btrim", "ltrim"]),
                    text(self)
                ),
                1 => format!("{}({}, {})", self.of(&["left", "right"]), text(self), self.small()),
                2 => format!(
                    "substr({}, {}, {})",
                    text(self),
                    self.of(&["1", "2", "0", "-3"]),
                    self.of(&["0", "1", "3"])
                ),
                3 => format!("substr({}, {})", text(self), self.of(&["1", "2", "100000"])),
                4 => format!("replace({}, {}, {})", text(self), self.snippet(), self.snippet()),
                5 => {
                    format!("split_part({}, {}, {})", text(self), self.snippet(), self.of(&["1", "2", "99"]))
                }
                6 => format!("({} || {})", text(self), self.snippet()),
                7 => format!("({} || {})", self.snippet(), text(self)),
                8 => format!("concat({}, {})", text(self), self.snippet()),
                9 => format!("coalesce({}, {})", text(self), self.snippet()),
                10 => format!("{}::text", number(self)),
                11 => self
                    .of(&[
                        "active::text",
                        "data->>'a'",
                        "data#>>'{a}'",
                        "jsonb_typeof(data)",
                        "data->>0",
                        "data::text",
                        "tags[1]",
                        "tags::text",
                        "id::text",
                    ])
                    .to_owned(),
                12 | 13 => format!(
                    "to_char({}, '{}')",
                    time(self),
                    self.of(&[
                        "YYYY",
                        "MM",
                        "YYYY-MM-DD",
                        "\"x\"",
                        "FM\"x\"",
                        "HH24",
                        "\\x",
                        "Day",
                        "",
                        "Q",
                        "\"x\"YYYY"
                    ])
                ),
                14 => format!(
                    "to_char({}::numeric, '{}')",
                    number(self),
                    self.of(&["999", "FM999", "\"x\"", "9", "FM\"x\"", "S9"])
                ),
                15 => format!("translate({}, {}, {})", text(self), self.snippet(), self.snippet()),
                16 => format!("btrim({}, {})", text(self), self.of(&["'abx'", "' '", "''", "'0123456789'"])),
                17 => format!(
                    "{}::{}",
                    text(self),
                    self.of(&["text", "varchar", "varchar(1)", "char(1)", "name", "bytea::text"])
                ),
                18 => format!("({} || {})", text(self), text(self)),
                _ => format!("repeat({}, {})", text(self), self.of(&["0", "1", "2"])),
            },
            Type::Time => match self.0.below(8) {
                0 | 1 => format!(
                    "date_trunc('{}', {})",
                    self.of(&["day", "month", "year", "hour", "century", "millennium", "week", "decade"]),
                    time(self)
                ),
                2 => format!("{}::{}", time(self), self.of(&["date", "timestamp", "timestamptz"])),
                3 => format!(
                    "({} + interval '{}')",
                    time(self),
                    self.of(&["1 day", "1000 years", "-1 month", "0"])
                ),
                4 => format!("({} - interval '{}')", time(self), self.of(&["1 day", "1000 years"])),
                5 => format!("date({})", time(self)),
                6 => "(at AT TIME ZONE 'UTC')".to_owned(),
                _ => format!("coalesce({}, 'epoch')", time(self)),
            },
        };
        (made, true)
    }

    fn pattern(&mut self) -> String {
        let parts = [
            "a", "b", "x", "%", "%", "_", "\\", "\\%", "|", "(", ")", "*", "+", "?", "{0}", "{1,2}", "[",
            "]", "a%",
        ];
        let count = 1 + self.0.below(5);
        quoted(&(0..count).map(|_| self.of(&parts)).collect::<String>())
    }

    fn regex(&mut self) -> String {
        let parts = [
            "a", "b", "x", ".", ".*", "*", "+", "?", "|", "(", ")", "(?:", "[", "]", "[^a]", "[a-c]", "^",
            "$", "{0}", "{0,}", "{1}", "\\d", "\\w*", "\\.", "\\m", "\\s?", "***:", "***=", "(?i)", "a?",
            "b*", " ", "-", "\\", "\\A", "(?=a)", "(?!a)",
        ];
        let count = 1 + self.0.below(5);
        quoted(&(0..count).map(|_| self.of(&parts)).collect::<String>())
    }

    fn of_documents(&mut self) -> String {
        let literal = |maker: &mut Self, list: &[&str]| quoted(maker.of(list));
        match self.0.below(14) {
            0 => format!("data @> {}", literal(self, DOCUMENTS)),
            1 => format!("data <@ {}", literal(self, DOCUMENTS)),
            2 => format!("data ? {}", self.snippet()),
            3 => format!("data {} {}", self.of(&["?|", "?&"]), literal(self, LISTS)),
            4 => format!(
                "data @@ {}",
                self.of(&["'$.n == 5'", "'true'", "'1 == 1'", "'exists($)'", "'$.a == \"x\"'"])
            ),
            5 => format!("data @? {}", self.of(&["'$.n'", "'$'", "'$.a'"])),
            6 => format!("tags {} {}", self.of(&["@>", "<@", "&&"]), literal(self, LISTS)),
            7 => format!("tags {} ARRAY[{}]", self.of(&["@>", "<@", "&&"]), self.snippet()),
            8 => format!("{} = {}(tags)", self.snippet(), self.of(&["ANY", "ALL"])),
            9 => format!("{} <> {}(tags)", self.snippet(), self.of(&["ANY", "ALL"])),
            10 => format!(
                "span {} {}",
                self.of(&["@>", "<@", "&&", "<<", ">>", "-|-", "&<", "&>", "=", "<>", "<", ">="]),
                literal(self, SPANS)
            ),
            11 => format!("span @> {}::bigint", self.literal(Type::Number, false)),
            12 => {
                let bounds = ["NULL", "1", "5", "''", "-1"];
                format!(
                    "{} <@ int8range({}, {})",
                    self.of(&["n", "span"]),
                    self.of(&bounds),
                    self.of(&bounds)
                )
            }
            _ => {
                let queries = [
                    "'a'",
                    "'!a'",
                    "'!zz'",
                    "'a & !b'",
                    "'a | !a'",
                    "'a | b'",
                    "''",
                    "'a:*'",
                    "'a <-> b'",
                    "'!(a & b)'",
                    "to_tsquery('!qq')",
                    "plainto_tsquery('a')",
                    "websearch_to_tsquery('-qq')",
                ];
                format!("words @@ {}", self.of(&queries))
            }
        }
    }

    fn comparison(&mut self, depth: usize) -> String {
        if self.0.chance(15) {
            return self.of_documents();
        }
        let kind = [Type::Number, Type::Number, Type::Text, Type::Text, Type::Time][self.0.below(5)];
        let (value, derived) = self.value(kind, depth);
        let literal = self.literal(kind, derived);
        match self.0.below(22) {
            0..=4 => format!("{value} {} {literal}", self.of(&["=", "<", ">", "<=", ">="])),
            5 => format!("{value} <> {literal}"),
            6 => format!("{literal} {} {value}", self.of(&["=", "<", ">", "<=", ">=", "<>"])),
            7 | 8 => {
                let count = 1 + self.0.below(4);
                let list: Vec<String> = (0..count).map(|_| self.literal(kind, derived)).collect();
                let list = list.join(", ");
                match self.0.below(4) {
                    0 => format!("{value} NOT IN ({list})"),
                    1 => format!("{value} = ANY (ARRAY[{list}])"),
                    2 => format!("{value} <> ALL (ARRAY[{list}])"),
                    _ => format!("{value} IN ({list})"),
                }
            }
            9 => {
                let (a, b) = (self.literal(kind, derived), self.literal(kind, derived));
                format!(
                    "{value} {} {a} AND {b}",
                    self.of(&["BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC", "NOT BETWEEN SYMMETRIC"])
                )
            }
            10 => format!("{value} IS {} DISTINCT FROM {literal}", self.of(&["", "NOT"])),
            11 => format!("{value} {} {}", self.of(&["=", "<", ">", "<>"]), self.value(kind, depth).0),
            12 => format!("{value} IN (0, 1)"),
            13 => format!("{value} IN ('t', 'f')"),
            14 if kind == Type::Text => format!("{value} {} {}", self.of(&["~", "~*", "!~"]), self.regex()),
            15 if kind == Type::Text => format!("{value} {} {}", self.of(&["~", "~*"]), self.regex()),
            16 if kind == Type::Text => {
                format!(
                    "{value} {} {}",
                    self.of(&["LIKE", "ILIKE", "SIMILAR TO", "NOT LIKE"]),
                    self.pattern()
                )
            }
            17 if kind == Type::Text => {
                format!("{value} {} {}", self.of(&["LIKE", "SIMILAR TO"]), self.pattern())
            }
            18 if kind == Type::Text => format!("starts_with({value}, {})", self.snippet()),
            19 if kind == Type::Text => format!("{value} ^@ {}", self.snippet()),
            20 => format!(
                "({value}, {}) {} ({literal}, {})",
                self.of(&["status", "n", "5"]),
                self.of(&["=", "<>", "<", ">="]),
                self.of(&["'a'", "5", "6"])
            ),
            _ => format!("{value} = {literal}"),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        let inner = |maker: &mut Self| maker.condition(depth - 1);
        if depth == 0 {
            return self.comparison(1);
        }
        match self.0.below(22) {
            0 | 1 => format!("({} OR {})", inner(self), inner(self)),
            2 => format!("({} AND {})", inner(self), inner(self)),
            3 => format!("NOT ({})", inner(self)),
            4 => format!(
                "({}) IS {}",
                inner(self),
                self.of(&["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN"])
            ),
            5 => format!("({}) {} {}", inner(self), self.of(&["=", "<>"]), self.of(&["true", "false"])),
            6 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                inner(self),
                self.of(&["true", "false"]),
                self.of(&["true", "false", "NULL"])
            ),
            7 => format!("coalesce({}, {})", inner(self), self.of(&["true", "false"])),
            8 => format!("({}) IN (true, false)", inner(self)),
            9 => self
                .of(&[
                    "active",
                    "NOT active",
                    "active = true",
                    "active IS NOT FALSE",
                    "active IN ('t', 'f')",
                    "active = 't'",
                    "active <> 'f'",
                    "active::int = 1",
                    "active > false",
                    "active >= false",
                    "active::text <> 'x'",
                ])
                .to_owned(),
            // Twice the same column, which is how two halves make a whole.
            10 => {
                let kind = [Type::Number, Type::Text, Type::Time][self.0.below(3)];
                let (value, derived) = self.value(kind, 0);
                let test = |maker: &mut Self| {
                    let literal = maker.literal(kind, derived);
                    format!("{value} {} {literal}", maker.of(&["=", "<", ">", "<=", ">=", "<>"]))
                };
                let (one, other) = (test(self), test(self));
                format!("({one} {} {other})", self.of(&["OR", "OR", "AND"]))
            }
            _ => self.comparison(2),
        }
    }
}

/// `NOT status LIKE '%q%'` is true of every row where none has a q, which the text does not tell.
fn depends_on_what_is_there(condition: &str) -> bool {
    let like = ["LIKE", "SIMILAR", "~", "@>", "<@", "&&", "?", "@@", "starts_with", "^@", "(tags)", "span"];
    let not = ["NOT", "<>", "false", "FALSE", "!~"];
    // Many alternatives about many columns may be all rows of any table that is not large.
    condition.matches(" OR ").count() > 2
        || like.iter().any(|word| condition.contains(word)) && not.iter().any(|word| condition.contains(word))
}

#[test]
fn a_condition_that_is_true_of_every_row_is_never_taken_for_one_that_picks_some() {
    let plan = Plan {
        tables: table(),
        settings: "SET TimeZone = 'UTC'; SET statement_timeout = '60s'",
        rows: "SELECT count(*) FROM sample",
        batch: 200,
        count: 6_000,
        soak_count: 400_000,
        one_picks_of: 10,
    };
    run(&plan, |random| {
        let condition = Maker(random).condition(2);
        Sample {
            statement: format!("DELETE FROM sample WHERE {condition}"),
            counts: vec![format!("matches({})", quoted(&condition))],
            may_be_true_by_chance: depends_on_what_is_there(&condition),
        }
    });
}
