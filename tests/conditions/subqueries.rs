//! Conditions about other tables, and about the table itself in another place: `EXISTS`, `IN`, joins,
//! derived tables, WITH queries, sets of numbers.
//!
//! The other tables hold every combination of their values for half of the target's keys, so that what is
//! true of every row is so by its form and not by chance.

use super::{Plan, Random, Sample, quoted, run};

/// Two sets of tables, so that what is true of all rows by chance in the one is not in the other.
///
/// In `first`, every second id of the middle of `t` has rows in `u`, half of those in `v`; not all of what `a`, `b` and
/// `name` hold is in theirs. In `second`, ids of `t` occur more than once, some have one row in `u` and some one in `v`
/// alone; numbers are below nothing, too, and in every combination with each other, names in capitals, and some of `u`
/// says nothing.
const TABLES: &str = "
    CREATE SCHEMA first; CREATE SCHEMA second;
    CREATE TABLE first.t (id int NOT NULL, a int NOT NULL, b int NOT NULL, name text NOT NULL, active bool NOT NULL);
    CREATE TABLE second.t (LIKE first.t INCLUDING ALL);
    CREATE TABLE first.u (id int, t_id int, k int, s text);
    CREATE TABLE second.u (LIKE first.u);
    CREATE TABLE first.v (LIKE first.u);
    CREATE TABLE second.v (LIKE first.u);
    INSERT INTO first.t VALUES (0, 1, 1, 'a', false);
    INSERT INTO first.t SELECT g, CASE WHEN g < 60 THEN g % 9 + 1 ELSE g END, g % 7 + 1, CASE WHEN g < 60 THEN chr(97 + g % 5) ELSE 'n' || g END,
        g % 4 < 2 FROM generate_series(1, 130) g ORDER BY g * 37 % 131;
    INSERT INTO first.u SELECT row_number() OVER (), g, k, chr(96 + s) FROM generate_series(31, 91, 3) g,
        generate_series(1, 5) k, generate_series(1, 3) s WHERE k <= g % 5 + 1 AND s <= g % 4 + 1;
    INSERT INTO first.v SELECT * FROM first.u WHERE t_id % 2 = 0 AND k < 5;
    INSERT INTO second.t SELECT CASE WHEN g > 90 THEN g % 5 ELSE g - 20 END, g % 23 - 9, g % 11 - 3,
        CASE g % 4 WHEN 0 THEN 'A' || g WHEN 1 THEN 'a' ELSE chr(97 + g % 19) END, g % 3 = 0
        FROM generate_series(1, 110) g ORDER BY g * 53 % 127;
    INSERT INTO second.t SELECT b, a, b, name, active FROM unnest('{-3,0,1,2,3,5}'::int[]) a,
        unnest('{-3,0,1,2,3,4,5}'::int[]) b, unnest('{a,A1}'::text[]) name, unnest('{t,f}'::bool[]) active;
    INSERT INTO second.u SELECT 500 - g, g, CASE WHEN g % 6 > 0 THEN g % 13 - 4 END, CASE WHEN g % 5 > 0 THEN 'A' || g END
        FROM generate_series(-15, 60, 4) g;
    INSERT INTO second.u SELECT 900 + g, 1, 1, 'a' FROM generate_series(1, 4) g;
    INSERT INTO second.v SELECT 500 - g, g, g % 4 - 1, 'a' FROM generate_series(-18, 65, 3) g;
    ANALYZE;
    CREATE FUNCTION matches(text, text) RETURNS int LANGUAGE plpgsql AS $$
        DECLARE found int; BEGIN PERFORM set_config('search_path', $2, true); EXECUTE $1 INTO found; RETURN found;
        EXCEPTION WHEN OTHERS THEN RETURN -1; END $$";

struct Maker(Random);

impl Maker {
    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.0.below(list.len())]
    }

    /// Where rows of another table come from, and the name that they go by.
    fn source(&mut self) -> String {
        let on =
            self.of(&["false", "v.t_id = u.t_id", "v.id = u.id", "v.id <> v.id", "true", "v.k > 2", "NULL"]);
        match self.0.below(16) {
            0..=5 => "u".into(),
            6 => format!("u JOIN v ON {on}"),
            7 => format!("u LEFT JOIN v ON {on}"),
            8 => format!(
                "u, {} z",
                self.of(&[
                    "(SELECT 1 WHERE false)",
                    "v",
                    "(SELECT 1 LIMIT 0)",
                    "generate_series(1, 0)",
                    "(VALUES (1))",
                    "unnest('{}'::int[])"
                ])
            ),
            9 => format!(
                "(SELECT * FROM u {}) u",
                self.of(&["LIMIT 0", "WHERE false", "WHERE k = 1", "OFFSET 1000", "", "ORDER BY b"])
            ),
            10 => "(VALUES (1, -1, 1, 'a')) u(id, t_id, k, s)".into(),
            11 => "unnest('{10,12}'::int[]) u(t_id)".into(),
            12 => format!(
                "(SELECT t_id, k {} FROM u) u",
                self.of(&["AS id, k", "AS id, k, s", ", id, s", "AS k, id, s"])
            ),
            13 => "(SELECT t_id, k, id, s FROM u UNION SELECT t_id, k, id, s FROM v) u".into(),
            14 => "(SELECT id AS t_id, b AS k, id, 'a' AS s FROM t) u".into(),
            _ => "u TABLESAMPLE bernoulli (0)".into(),
        }
    }

    /// A condition on the other table alone.
    fn filter(&mut self) -> &'static str {
        const FILTERS: &[&str] = &[
            "u.k = 1",
            "u.k > 2",
            "u.k <> 3",
            "u.s = 'a'",
            "u.k = u.k",
            "u.k <> u.k",
            "true",
            "false",
            "NULL",
            "u.k = ANY ('{}')",
            "u.k IN (SELECT 1 WHERE false)",
            "u.k IN (SELECT k FROM v)",
            "u.k NOT IN (SELECT k FROM v WHERE false)",
            "u.s LIKE 'a%'",
            "u.k BETWEEN 2 AND 4",
            "u.k < t.a",
            "u.s <> t.name",
            "u.k = t.a",
            "u.k + 1 > u.k",
            "EXISTS (SELECT FROM v WHERE v.id = u.id)",
            "NOT EXISTS (SELECT FROM v WHERE v.id = u.id)",
            "(SELECT count(*) FROM v) > 0",
        ];
        FILTERS[self.0.below(FILTERS.len())]
    }

    fn matches(&mut self) -> &'static str {
        const MATCHES: [&str; 9] = [
            "u.t_id = t.id",
            "u.t_id = t.id",
            "u.t_id = t.id",
            "u.t_id = t.id",
            "t.id = u.t_id",
            "u.t_id < t.id",
            "u.t_id <> t.id",
            "u.t_id = t.id + 0",
            "(u.t_id, 1) = (t.id, 1)",
        ];
        MATCHES[self.0.below(MATCHES.len())]
    }

    fn tail(&mut self) -> &'static str {
        const TAILS: [&str; 16] = [
            "",
            "",
            "",
            "",
            "ORDER BY u.t_id",
            "ORDER BY count(*)",
            "LIMIT 1",
            "LIMIT 0",
            "OFFSET 1",
            "GROUP BY u.t_id",
            "HAVING true",
            "HAVING count(*) = 0",
            "GROUP BY u.t_id HAVING count(*) > 1",
            "ORDER BY max(u.t_id)",
            "WINDOW w AS (ORDER BY sum(u.t_id))",
            "LIMIT NULL",
        ];
        TAILS[self.0.below(TAILS.len())]
    }

    fn exists(&mut self) -> String {
        let not = self.of(&["", "NOT "]);
        let what = self.of(&[
            "1",
            "",
            "*",
            "count(*)",
            "DISTINCT u.t_id",
            "max(u.t_id)",
            "DISTINCT ON (count(*)) 1",
            "NULL",
        ]);
        let (source, matches, filter, tail) = (self.source(), self.matches(), self.filter(), self.tail());
        let and = if self.0.chance(50) { format!("AND {filter}") } else { String::new() };
        format!("{not}EXISTS (SELECT {what} FROM {source} WHERE {matches} {and} {tail})")
    }

    fn member(&mut self) -> String {
        let not = self.of(&["", "", "NOT "]);
        let tested = self.of(&["t.id", "t.id", "id", "t.id + 0", "t.a", "t.name"]);
        let what = match tested {
            "t.a" => self.of(&["u.k", "u.k", "max(u.k)", "t.a"]),
            "t.name" => self.of(&["u.s", "u.s", "lower(u.s)", "t.name"]),
            _ => self.of(&[
                "u.t_id",
                "u.t_id",
                "u.t_id",
                "u.t_id + 0",
                "max(u.t_id)",
                "t.id",
                "coalesce(u.t_id, t.id)",
            ]),
        };
        let (source, filter, tail) = (self.source(), self.filter(), self.tail());
        let filter = if self.0.chance(60) { format!("WHERE {filter}") } else { String::new() };
        format!("{tested} {not}IN (SELECT {what} FROM {source} {filter} {tail})")
    }

    /// The table itself, in another place.
    fn itself(&mut self) -> String {
        let made = |maker: &mut Self| {
            maker.of(&[
                "a",
                "b",
                "id",
                "a + 1",
                "a + b",
                "lower(name)",
                "name",
                "1",
                "rank() OVER ()",
                "rank() OVER (ORDER BY a)",
                "row_number() OVER ()",
                "row_number() OVER (PARTITION BY id ORDER BY a, b)",
                "count(*) OVER ()",
                "dense_rank() OVER (PARTITION BY id)",
                "a - a",
                "active",
                "ntile(1) OVER ()",
                "max(a) OVER (PARTITION BY id)",
                "lag(a) OVER (ORDER BY id)",
                "coalesce(a, b)",
                "t",
                "percent_rank() OVER ()",
            ])
        };
        let (x, y) = (made(self), made(self));
        let inner = self.of(&[
            "",
            "",
            "",
            "WHERE b < 5",
            "WHERE true",
            "ORDER BY b",
            "ORDER BY a",
            "WHERE a = a",
            "WHERE id IN (SELECT t_id FROM u)",
        ]);
        let test = self.of(&[
            "q.x = q.y",
            "q.x > q.y",
            "q.x <> q.y",
            "q.x = 1",
            "q.x <= 1",
            "q.x > 4",
            "q.y <> 2",
            "q.x = q.id",
            "q.x = t.a",
            "q.id = t.id",
            "q.x = q.y AND q.x = 1",
        ]);
        let star = self.of(&["q.id", "id", "q.id", "max(q.id)", "q.y"]);
        match self.0.below(6) {
            0 => format!(
                "id IN (SELECT {star} FROM (SELECT id, {x} AS x, {y} AS y FROM t {inner}) q WHERE {test})"
            ),
            1 => format!(
                "id IN (SELECT {star} FROM (SELECT id, {x}, {y} FROM t {inner}) q(id, x, y) WHERE {test})"
            ),
            2 => format!(
                "id IN (SELECT {star} FROM (SELECT * FROM (SELECT id, {x} AS x, {y} AS y FROM t) i {inner}) q WHERE {test})"
            ),
            3 => format!(
                "id IN (WITH q AS (SELECT id, {x} AS x, {y} AS y FROM t {inner}) SELECT {star} FROM q WHERE {test})"
            ),
            4 => format!(
                "EXISTS (SELECT FROM (SELECT id, {x} AS x, {y} AS y FROM t {inner}) q WHERE q.id = t.id AND {test})"
            ),
            _ => format!(
                "EXISTS (SELECT FROM {} e WHERE e::text = t.id::text)",
                self.of(&[
                    "unnest(ARRAY(SELECT id FROM t))",
                    "json_array_elements_text((SELECT json_agg(id) FROM t))",
                    "generate_series(1, 1000)",
                    "unnest(ARRAY[t.id])",
                    "unnest('{1,2,3}'::int[])",
                    "regexp_split_to_table((SELECT string_agg(id::text, ',') FROM t), ',')",
                    "(SELECT string_to_table((SELECT string_agg(id::text, ',') FROM t), ',') AS e)",
                ])
            ),
        }
    }

    fn value(&mut self) -> String {
        let what = self.of(&[
            "max(u.id)",
            "count(*)",
            "min(u.k)",
            "bool_or(u.k > 1)::int",
            "coalesce(max(u.k), 0)",
            "count(u.id)",
            "0 * count(*)",
        ]);
        let test = self.of(&["IS NULL", "IS NOT NULL", "= 0", "> 0", ">= 0", "< 3", "BETWEEN 2 AND 90"]);
        let (source, matches) = (self.source(), self.matches());
        format!("(SELECT {what} FROM {source} WHERE {matches}) {test}")
    }

    fn condition(&mut self, depth: usize) -> String {
        if depth > 0 {
            let inner = |maker: &mut Self| maker.condition(depth - 1);
            match self.0.below(10) {
                0 | 1 => return format!("({} OR {})", inner(self), inner(self)),
                2 => return format!("({} AND {})", inner(self), inner(self)),
                3 => return format!("NOT ({})", inner(self)),
                4 => {
                    return format!(
                        "({}) IS {}",
                        inner(self),
                        self.of(&["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN"])
                    );
                }
                _ => {}
            }
        }
        match self.0.below(11) {
            0..=3 => self.exists(),
            4..=6 => self.member(),
            7 | 8 => self.itself(),
            9 => self.value(),
            _ => self
                .of(&[
                    "active",
                    "NOT active",
                    "active BETWEEN false AND true",
                    "a > 3",
                    "a IN (1, 2, 3)",
                    "a < 4",
                    "name = 'a'",
                    "a <> b",
                    "b IN (0, 1)",
                ])
                .to_owned(),
        }
    }

    /// A WITH query in front, and the condition.
    fn statement(&mut self) -> (String, String) {
        const WITH: [&str; 6] = [
            "WITH u AS (SELECT * FROM v)",
            "WITH u AS (SELECT * FROM v WHERE false)",
            "WITH u(id, t_id, k, s) AS (SELECT id, id, a, name FROM t)",
            "WITH u AS (SELECT 1 AS id, NULL::int AS t_id, 1 AS k, 'a' AS s)",
            "WITH u(id, t_id, k, s) AS (VALUES (1, -1, 1, 'a'))",
            "WITH u AS (SELECT id, id AS t_id, b AS k, 'a' AS s FROM t WHERE a = 1)",
        ];
        let with = if self.0.chance(15) { self.of(&WITH) } else { "" };
        (with.to_owned(), self.condition(1))
    }
}

#[test]
fn a_subquery_that_is_true_of_every_row_is_never_taken_for_one_that_picks_some() {
    let plan = Plan {
        tables: TABLES.to_owned(),
        settings: "SET statement_timeout = '60s'; SET jit = off",
        rows: "SELECT (SELECT count(*) FROM first.t), (SELECT count(*) FROM second.t)",
        batch: 100,
        count: 3_000,
        soak_count: 200_000,
        one_picks_of: 20,
    };
    run(&plan, |random| {
        let (with, condition) = Maker(random).statement();
        let counting = quoted(&format!("{with} SELECT count(*) FROM t WHERE {condition}"));
        Sample {
            statement: format!("{with} DELETE FROM t WHERE {condition}"),
            counts: ["first", "second"].map(|path| format!("public.matches({counting}, '{path}')")).into(),
            may_be_true_by_chance: false,
        }
    });
}
