//! Tables that the operator calls sensitive.

use super::*;

fn catalogue() -> Catalogue {
    let row = |text: &str| -> catalogue::Row {
        text.split('|').map(|c| (c != "-").then(|| c.to_owned())).collect()
    };
    let relations = [
        r#"public|users|r|["id","name","email","tax_id","a"]|none|[]|[]|{}"#,
        r#"public|orders|r|["id","user_id","amount","c"]|none|[]|[]|{}"#,
        r#"public|names|v|["name"]|none|[]|[]|{}"#,
        r#"public|active|v|["name","email"]|none|[]|[]|{}"#,
        r#"public|busy|v|["name","email"]|none|[]|[]|{}"#,
        r#"pii|people|p|["id","name","age","kind"]|none|[]|[]|{}"#,
    ];
    let views = [
        "public|names|public|users|name|shows",
        "public|active|public|users|name|shows",
        "public|active|public|users|email|shows",
        "public|busy|public|active|-|shows",
        "public|own_settings|pg_catalog|pg_settings|-|shows",
        "public|own_classes|pg_catalog|pg_class|relname|shows",
        "public|passwords|pg_catalog|pg_authid|rolpassword|shows",
        "public|more_passwords|public|passwords|rolpassword|shows",
        "public|mappings|pg_catalog|pg_user_mappings|srvname|shows",
        "public|secrets|pg_catalog|pg_user_mappings|umoptions|shows",
        "public|people_eu|pii|people|-|is part of",
        "pii|people|public|people_eu|-|has",
        "public|everybody|pii|people|-|has",
        "pii|people|public|everybody|-|is part of",
    ];
    let mut answers =
        vec![vec![], vec![], vec![], vec![], relations.map(row).to_vec(), views.map(row).to_vec()];
    answers.resize(catalogue::QUERIES.len(), Vec::new());
    let sensitive = ["pii.*", "public.users.email", "public.users.tax_*"];
    let sensitive = sensitive.map(|name| SensitiveName::parse(name).unwrap()).to_vec();
    catalogue::from_rows(15, &answers, &Arc::new(Declared::default().with_sensitive(sensitive))).unwrap()
}

fn classify_with(catalogue: &Catalogue, sql: &str) -> Arc<Classification> {
    let path = SearchPath::Known(vec!["public".into()]);
    let context = context(catalogue, &path);
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context)
}

fn classes(texts: &[&str], class: StatementClass) {
    let catalogue = catalogue();
    for sql in texts {
        let found = classify_with(&catalogue, sql);
        assert_eq!(found.class, class, "{sql}: {:?}", found.reasons);
    }
}

#[test]
fn what_is_returned_of_a_sensitive_table_is_read() {
    classes(
        &[
            "UPDATE pii.people SET age = age FROM orders WHERE people.id = orders.user_id RETURNING name",
            "UPDATE pii.people p SET age = age FROM orders o WHERE p.id = o.user_id RETURNING *",
            "DELETE FROM pii.people USING orders WHERE people.id = user_id RETURNING name",
            "WITH w AS (UPDATE users SET name = name FROM orders WHERE users.id = user_id RETURNING email) SELECT * FROM w",
            "INSERT INTO pii.people (id) SELECT user_id FROM orders ON CONFLICT (id) DO UPDATE SET age = people.age RETURNING name",
        ],
        StatementClass::Export,
    );
    classes(
        &[
            "UPDATE pii.people SET age = 7 WHERE id = 5 RETURNING name",
            "UPDATE pii.people SET age = 7 FROM orders WHERE people.id = orders.user_id AND amount = 5 RETURNING name",
            "UPDATE pii.people SET age = 7 FROM orders WHERE people.id = orders.user_id AND amount = 5",
            "UPDATE users SET name = name FROM orders WHERE users.id = user_id RETURNING users.id",
            "INSERT INTO pii.people (id, name) VALUES (1, 'a') RETURNING id",
            "INSERT INTO pii.people (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = 'b' RETURNING id",
            "INSERT INTO pii.people (id) SELECT user_id FROM orders WHERE amount = 5 RETURNING id",
            "DELETE FROM users WHERE email = 'a@example.com' RETURNING email",
        ],
        StatementClass::Write,
    );
}

/// As Postgres 17 and 18 have it.
#[test]
fn what_newer_statements_return_of_a_sensitive_table_is_an_export() {
    for sql in [
        "MERGE INTO pii.people p USING orders o ON p.id = o.user_id WHEN MATCHED THEN UPDATE SET age = 7 RETURNING p.name",
        "UPDATE users SET a = a FROM orders WHERE users.id = user_id RETURNING WITH (OLD AS before) before.to_json",
        "UPDATE users SET a = a FROM orders WHERE users.id = user_id RETURNING WITH (NEW AS after) after",
    ] {
        let found = classify_with(&catalogue(), sql);
        assert!(
            found.reasons.iter().any(|reason| reason.class == StatementClass::Export),
            "{:?}",
            found.reasons
        );
    }
}

#[test]
fn all_of_a_sensitive_table_is_an_export() {
    classes(
        &[
            "SELECT * FROM pii.people",
            "TABLE pii.people",
            "SELECT name FROM pii.people ORDER BY name",
            "SELECT * FROM pii.people WHERE true",
            "SELECT * FROM pii.people WHERE id = id",
            "SELECT * FROM pii.people WHERE id <> age",
            "SELECT * FROM pii.people LIMIT 1000000",
            "SELECT * FROM pii.people LIMIT ALL",
            "SELECT * FROM pii.people LIMIT $1",
            "SELECT * FROM pii.people LIMIT 10 + 1000000",
            "SELECT * FROM pii.people ORDER BY 1=1 FETCH FIRST 1 ROW WITH TIES",
            "SELECT string_agg(name, ',') FROM pii.people LIMIT 1",
            "SELECT json_agg(p) FROM pii.people p LIMIT 1",
            "SELECT count(*), name FROM pii.people GROUP BY name",
            "SELECT count(*), array_agg(name) FROM pii.people",
            "SELECT count(*) OVER (), name FROM pii.people",
            "SELECT (SELECT string_agg(name, ',') FROM pii.people) LIMIT 1",
            "SELECT p.name FROM pii.people p, generate_series(1, 9) g WHERE g > 0 AND g = 5",
            "SELECT p.name FROM pii.people p JOIN orders o ON o.person = p.id",
            "SELECT p.name FROM orders o LEFT JOIN pii.people p ON p.id = o.person AND p.id = 5",
            "SELECT p.name FROM pii.people p CROSS JOIN orders o WHERE o.id = 5",
            "SELECT p.name FROM generate_series(1, 100000) g, LATERAL (SELECT * FROM pii.people OFFSET g LIMIT 1) p",
            "SELECT (SELECT name FROM pii.people p WHERE p.id = g.n) FROM generate_series(1, 100000) g(n)",
            "SELECT (SELECT name FROM pii.people WHERE id = n) FROM generate_series(1, 100000) g(n)",
            "SELECT (SELECT name FROM pii.people OFFSET n LIMIT 1) FROM generate_series(1, 100000) g(n)",
            "SELECT g FROM generate_series(1, 100000) g WHERE EXISTS (SELECT FROM pii.people WHERE ssn = g)",
            "SELECT g FROM generate_series(1, 100000) g WHERE g IN (SELECT ssn FROM pii.people)",
            "SELECT 1 UNION ALL SELECT id FROM pii.people",
            "WITH x AS (SELECT * FROM pii.people) SELECT * FROM x WHERE id = 1",
            "WITH people AS (TABLE pii.people) SELECT 1",
            "INSERT INTO orders SELECT * FROM pii.people",
            "CREATE TEMP TABLE mine AS SELECT * FROM pii.people",
            "PREPARE p AS SELECT * FROM pii.people",
            "DECLARE c CURSOR FOR SELECT * FROM pii.people",
            "EXPLAIN ANALYZE SELECT * FROM pii.people",
            "UPDATE orders SET note = p.name FROM pii.people p WHERE orders.id = p.id RETURNING note",
            "DELETE FROM orders USING pii.people p WHERE orders.id = p.id RETURNING p.*",
            "SELECT * FROM people_eu",
            "SELECT * FROM everybody",
            "SELECT * FROM unknown_schema_of.people, pii.people_2",
            "SELECT * FROM pii.people TABLESAMPLE SYSTEM (100)",
            "SELECT * FROM (pii.people NATURAL JOIN orders)",
            "SELECT sum(1) FROM pii.people p HAVING string_agg(p::text, ',')::int > 0",
            "SELECT count(*) FROM pii.people ORDER BY string_agg(name, ',')",
            "SELECT sum(ascii(name) * power(1000::numeric, id)) FROM pii.people",
            "SELECT sum(ascii(name) * power(1000::numeric, id)) FROM pii.people LIMIT 1",
            "SELECT bit_or(set_bit(a, id, 1)) FROM pii.people",
            "SELECT percentile_disc(ARRAY[0.1, 0.2]) WITHIN GROUP (ORDER BY name) FROM pii.people",
            "SELECT count(name || 'x') FROM pii.people",
            "SELECT * FROM (SELECT * FROM pii.people LIMIT 10000) a UNION ALL SELECT * FROM (SELECT * FROM pii.people OFFSET 10000 LIMIT 10000) b",
            "SELECT p.* FROM pii.people p NATURAL JOIN orders o WHERE o.code = 'WELCOME'",
            "SELECT * FROM pii.people WHERE ctid > '(0,0)'",
            "SELECT * FROM pii.people WHERE ctid BETWEEN '(0,0)' AND '(999999,1)'",
            "SELECT * FROM pii.people WHERE id IN (SELECT generate_series(1, 100000))",
        ],
        StatementClass::Export,
    );
}

#[test]
fn a_function_that_sees_every_row_sends_it_away() {
    let catalogue = catalogue();
    for sql in [
        "SELECT count(pg_notify('c', p::text)) FROM pii.people p",
        "SELECT 1 FROM pii.people WHERE pg_notify('c', name) IS NULL LIMIT 1",
        "SELECT 1 FROM pii.people ORDER BY lo_from_bytea(0, name::bytea) LIMIT 1",
        "SELECT sum(1) FROM pii.people p HAVING lo_from_bytea(777, string_agg(p::text, ',')::bytea) > 0",
    ] {
        let reasons = &classify_with(&catalogue, sql).reasons;
        assert!(reasons.iter().any(|reason| reason.class == StatementClass::Export), "{sql}: {reasons:?}");
    }
}

#[test]
fn statistics_hold_values_of_sensitive_columns() {
    let sql = "SELECT most_common_vals FROM pg_stats WHERE tablename = 'people'";
    assert_eq!(classify_with(&catalogue(), sql).class, StatementClass::SensitiveRead);
    assert_eq!(classify(sql).class, StatementClass::Read, "where nothing is called sensitive");
}

#[test]
fn a_part_of_it_is_not() {
    classes(
        &[
            "SELECT * FROM pii.people WHERE id = 5",
            "SELECT * FROM pii.people WHERE email = $1",
            "SELECT * FROM pii.people p WHERE p.id = ANY($1)",
            "SELECT * FROM pii.people LIMIT 100",
            "SELECT * FROM pii.people ORDER BY id FETCH FIRST 10 ROWS ONLY",
            "SELECT id FROM pii.people UNION SELECT id FROM pii.people LIMIT 20",
            "SELECT count(*) FROM pii.people",
            "SELECT count(1), max(age), coalesce(round(avg(age)), 0) FROM pii.people",
            "SELECT name, count(*) FROM pii.people GROUP BY name LIMIT 10",
            "SELECT * FROM pii.people WHERE ctid = '(0,1)'",
            "SELECT p.name FROM pii.people p JOIN orders o ON o.person = p.id WHERE o.id = 5",
            "SELECT p.name FROM pii.people p JOIN orders o USING (person) WHERE o.id = 5",
            "SELECT p.name FROM pii.people p, orders o WHERE o.person = p.id AND o.id = 5",
            "SELECT name FROM pii.people p JOIN orders o ON o.person = p.id WHERE number = 5",
            "SELECT * FROM pii.people p LEFT JOIN orders o ON o.person = p.id WHERE p.id = 5",
            "EXPLAIN SELECT * FROM pii.people",
            "SELECT * FROM orders",
            "WITH people AS (SELECT 1) SELECT * FROM people",
            "SELECT name FROM users",
            "SELECT id, name FROM users u ORDER BY u.name",
            "SELECT count(*) FROM users",
            "SELECT * FROM names",
        ],
        StatementClass::Read,
    );
}

#[test]
fn all_of_a_sensitive_column_is_an_export() {
    classes(
        &[
            "SELECT email FROM users",
            "SELECT u.email FROM public.users u",
            "SELECT * FROM users",
            "SELECT u FROM users u",
            "SELECT (u).email FROM users u",
            "SELECT to_json(u) FROM users AS u",
            "SELECT u.to_json FROM users AS u",
            "SELECT users.json_agg FROM users",
            "SELECT public.users.quote_literal FROM public.users",
            "SELECT j.to_jsonb FROM (users c CROSS JOIN orders k) AS j",
            "SELECT name FROM users WHERE users.to_json::text > ''",
            "UPDATE users SET a = a FROM orders WHERE users.id = user_id RETURNING users.to_json",
            "UPDATE users SET a = a FROM orders WHERE users.id = user_id RETURNING old",
            "UPDATE users SET a = a FROM orders WHERE users.id = user_id RETURNING new.to_json",
            "SELECT name FROM users WHERE email > ''",
            "SELECT b FROM users AS u (a, b)",
            "SELECT b FROM (users JOIN orders ON true) AS j (a, b)",
            "SELECT j FROM (users JOIN orders ON true) AS j",
            "SELECT (j).z FROM (users c CROSS JOIN (SELECT 1) k) AS j (a, b, z)",
            "SELECT to_json(j) FROM (users c CROSS JOIN orders k) AS j",
            "UPDATE orders o SET status = z FROM (users c CROSS JOIN (SELECT 1) k) AS j (a, b, z) WHERE o.id = j.a RETURNING status",
            "SELECT tax_number FROM users",
            "SELECT o.id FROM users JOIN orders o USING (email)",
            "SELECT * FROM active",
            "SELECT name FROM active",
            "SELECT name FROM busy",
        ],
        StatementClass::Export,
    );
    classes(
        &[
            "SELECT email FROM users WHERE id = 1",
            "SELECT * FROM active WHERE id = 1",
            "SELECT u.name FROM users u",
            "SELECT u.id, users.a FROM users u, users",
        ],
        StatementClass::Read,
    );
}

#[test]
fn views_of_the_system_catalogue_are_what_they_show() {
    use StatementClass::{Admin, Read, SensitiveRead, Settings};
    classes(
        &["UPDATE own_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'"],
        Settings,
    );
    classes(
        &[
            "DELETE FROM own_classes WHERE relname = 'x'",
            "UPDATE own_classes SET relname = 'x' WHERE relname = 'y'",
        ],
        Admin,
    );
    classes(
        &["SELECT * FROM passwords", "SELECT rolpassword FROM more_passwords", "TABLE secrets"],
        SensitiveRead,
    );
    classes(
        &["SELECT * FROM own_settings", "SELECT relname FROM own_classes", "SELECT * FROM mappings"],
        Read,
    );
}

#[test]
fn another_number_in_the_limit_is_another_answer() {
    let catalogue = catalogue();
    let path = SearchPath::Known(vec!["public".into()]);
    let context = context(&catalogue, &path);
    let classifier = Classifier::new(Limits::default());
    let class = |sql: &str| classifier.classify(&SqlText::from(sql), &context).class;
    let (few, many) = ("SELECT * FROM pii.people LIMIT 10", "SELECT * FROM pii.people LIMIT 99999999");

    for (sql, expected) in [(few, StatementClass::Read), (many, StatementClass::Export)].repeat(2) {
        assert_eq!(class(sql), expected, "{sql}");
    }
}

#[test]
fn many_tables_and_conditions_are_told_in_time() {
    let catalogue = catalogue();
    let tables: Vec<String> = (0..40_000).map(|n| format!("pii.t{n}")).collect();
    let conditions: Vec<String> = (0..10_000).map(|n| format!("t{n}.a = t{}.a", n + 1)).collect();
    let nested = (0..500).fold("SELECT 1".to_owned(), |inner, n| {
        format!("SELECT ({inner}) FROM pii.t{n} WHERE id = 1 AND a IN (SELECT 1)")
    });
    let wide = format!("SELECT 1 FROM {} WHERE {}", tables.join(","), conditions.join(" AND "));

    let arms = vec!["SELECT * FROM pii.people"; 3_000].join(" UNION ALL ");
    // It is not timed: where it took quadratic time, this test would not end.
    assert_eq!(classify_with(&catalogue, &wide).class, StatementClass::Export);
    assert_eq!(classify_with(&catalogue, &nested).class, StatementClass::Read);
    assert_eq!(classify_with(&catalogue, &arms).class, StatementClass::Export);
}

#[test]
fn a_views_tables_are_among_the_effects_and_a_rule_by_table_sees_them() {
    let found = classify_with(&catalogue(), "SELECT name FROM busy WHERE id = 1");
    let shown: Vec<String> = found
        .effects
        .iter()
        .map(|effect| {
            let through = effect.through.as_deref().unwrap_or("-");
            format!("{}.{} {through}", effect.schema.as_deref().unwrap_or("?"), effect.name)
        })
        .collect();

    assert_eq!(shown, ["public.active public.busy", "public.busy -", "public.users public.busy"]);
}
