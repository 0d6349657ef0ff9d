//! A table with columns of fourteen types that holds whatever such columns may hold: both ends of each
//! type's order, nothing, much, and every value that conditions compare with.

use std::fmt::Write as _;

use super::quoted;
use super::support::random::Random;

/// Rows of the table, in order and mixed.
const ROWS: usize = 401;
const MIXED: usize = 2500;

pub(crate) const NUMBERS: &[&str] = &[
    "-1000000000",
    "1000000000",
    "-70000",
    "-101",
    "-12",
    "-7",
    "-3",
    "-2",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "12",
    "13",
    "24",
    "30",
    "31",
    "60",
    "61",
    "99",
    "100",
    "366",
    "1000",
    "70001",
    "500000000",
];
/// With all of [`NUMBERS`] but its ends.
const FRACTIONS: &[&str] = &[
    "-1e30",
    "1e30",
    "-1000.5",
    "-2",
    "-1",
    "-0.5",
    "-0.001",
    "0",
    "0.001",
    "0.25",
    "0.5",
    "1",
    "1.5",
    "2",
    "3",
    "5",
    "10",
    "12",
    "24",
    "99.99",
    "1000",
    "100000.25",
    "-70000",
    "-101",
    "-12",
    "-7",
    "-3",
    "4",
    "6",
    "7",
    "9",
    "11",
    "13",
    "30",
    "31",
    "60",
    "61",
    "99",
    "100",
    "366",
    "70001",
    "8",
    "15",
];
pub(crate) const TEXTS: &[&str] = &[
    "",
    "\u{10ffff}",
    "aaaaaaaaaaaaaaaaaaaaa",
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb bbbbbb",
    LONG,
    " ",
    "  ",
    "a",
    "A",
    "b",
    "x",
    "ab",
    "aB",
    "abc",
    "a b",
    "zz",
    "0",
    "1",
    "t",
    "f",
    "true",
    "false",
    "%",
    "_",
    "a%",
    "\\",
    "a\\b",
    "é",
    "[a]",
    "(b)",
    "a-b",
    "1x",
    "x1",
    "foo bar",
    "{a}",
    "\n",
    ".",
    "-",
    "'",
];
/// More than any number of parts that conditions ask for.
const MANY: &str = "many";
/// Longer than any length that conditions ask for.
const LONG: &str = include_str!("../../LICENSE");
pub(crate) const TIMES: &[&str] = &[
    "-infinity",
    "infinity",
    "0044-03-15 BC",
    "1000-01-01",
    "1969-12-31 23:59:59.999",
    "1970-01-01",
    "2000-01-01",
    "2000-02-29 12:30",
    "2023-12-31 23:59:59",
    "2024-01-01",
    "2024-06-15 06:07:08.5",
    "2024-12-24 18:00",
    "2026-11-23",
    "9999-12-31",
];
pub(crate) const DOCUMENTS: &[&str] = &[
    "null",
    "true",
    "0",
    "1",
    "\"a\"",
    "[]",
    "{}",
    "[1, 2]",
    "[\"a\"]",
    "{\"a\": 1}",
    "{\"a\": \"x\", \"n\": 5}",
    "{\"n\": -1000000000}",
    "{\"n\": 1000000000}",
    "{\"b\": null}",
    "{\"a\": \"\", \"n\": 0}",
    "{\"a\": \"a\", \"n\": 2}",
];
pub(crate) const LISTS: &[&str] =
    &[MANY, "{}", "{a}", "{b}", "{a,b}", "{x}", "{\"\"}", "{a,a,zz}", "{{a,b},{x,zz}}"];
pub(crate) const SPANS: &[&str] =
    &["empty", "(,)", "[1,5)", "[0,1)", "(,10]", "[100,)", "[-7,-3]", "[5,5]", "[1,900000000]"];
const WORDS: &[&str] = &[MANY, "", "a", "b", "a b", "zz x", "a:1 b:2", "foo"];

fn columns() -> [(&'static str, &'static str, &'static [&'static str]); 14] {
    [
        ("id", "bigint", NUMBERS),
        ("n", "bigint", NUMBERS),
        ("m", "bigint", NUMBERS),
        ("amount", "numeric", FRACTIONS),
        ("f", "float8", FRACTIONS),
        ("status", "text", TEXTS),
        ("code", "varchar", TEXTS),
        ("active", "boolean", &["true", "false"]),
        ("d", "date", TIMES),
        ("at", "timestamp", TIMES),
        ("data", "jsonb", DOCUMENTS),
        ("tags", "text[]", LISTS),
        ("span", "int8range", SPANS),
        ("words", "tsvector", WORDS),
    ]
}

/// A value of a column, as SQL.
fn sql_of(kind: &str, value: &str) -> String {
    match kind {
        "text[]" if value == MANY => "(SELECT array_agg('w' || g) FROM generate_series(1, 150) g)".to_owned(),
        "tsvector" if value == MANY => {
            "(SELECT string_agg('w' || g, ' ')::tsvector FROM generate_series(1, 150) g)".to_owned()
        }
        _ => format!("{}::{kind}", quoted(value)),
    }
}

/// The table: each value of each column, beside ever others of the other columns.
pub(crate) fn table() -> String {
    let list = columns().map(|(name, kind, _)| format!("{name} {kind} NOT NULL")).join(", ");
    let mut sql = format!("CREATE TABLE sample ({list}); INSERT INTO sample VALUES ");
    for row in 0..ROWS {
        let values: Vec<String> = (0..)
            .zip(columns())
            .map(|(place, (_, kind, values))| {
                sql_of(kind, values[(row * (2 * place + 1) + row / 7 * place) % values.len()])
            })
            .collect();
        let comma = if row == 0 { "" } else { ", " };
        write!(sql, "{comma}({})", values.join(", ")).unwrap();
    }
    let mut random = Random::new(1);
    for _ in 0..MIXED {
        let values: Vec<String> = columns()
            .iter()
            .map(|(_, kind, values)| sql_of(kind, values[random.below(values.len())]))
            .collect();
        write!(sql, ", ({})", values.join(", ")).unwrap();
    }
    // Between any two numbers is another.
    let dense = ["id", "n", "m", "amount", "f"];
    let dense = columns().map(|(name, _, _)| if dense.contains(&name) { "g" } else { name }).join(", ");
    write!(
        sql,
        "; INSERT INTO sample SELECT {dense} FROM (SELECT * FROM sample LIMIT 1) s, generate_series(-110, 1010, 4) g"
    )
    .unwrap();
    // Every value is in every column.
    for (name, kind, values) in columns() {
        for value in values {
            write!(
                sql,
                "; INSERT INTO sample SELECT {} FROM (SELECT * FROM sample LIMIT 1) s",
                columns()
                    .map(|(other, _, _)| if other == name { sql_of(kind, value) } else { other.into() })
                    .join(", ")
            )
            .unwrap();
        }
    }
    sql + "; CREATE FUNCTION matches(text) RETURNS int LANGUAGE plpgsql AS $$
        DECLARE found int; BEGIN EXECUTE 'SELECT count(*) FROM sample WHERE ' || $1 INTO found; RETURN found;
        EXCEPTION WHEN OTHERS THEN RETURN -1; END $$"
}
