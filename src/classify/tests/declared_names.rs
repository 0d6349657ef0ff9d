//! What the operator trusts: functions, extensions, settings; and what a rule can name.

use super::*;
use crate::classify::pattern::{Glob, TablePattern};
use crate::statement::RelationCheck;

const FUNCTIONS: [&str; 12] = [
    "public|find_srid|1|1|scalar|postgis|plpgsql|s|false|postgres|f",
    "public|st_fromflatgeobuftotable|2|2|scalar|postgis|c|i|false|postgres|f",
    "public|pure|1|1|scalar|own_ext|plpgsql|i|false|postgres|f",
    "public|similarity|2|2|scalar|pg_trgm|c|i|false|postgres|f",
    "public|uuid_generate_v4|0|0|any|uuid-ossp|c|v|false|postgres|f",
    "public|as_owner|0|0|any|uuid-ossp|c|v|true|postgres|f",
    "public|dropgeometrytable|1|1|scalar|postgis|plpgsql|v|false|postgres|f",
    "public|cosine_distance|2|2|scalar|vector|c|i|false|postgres|f",
    "app|similarity|2|2|scalar|false|plpgsql|v|false|owner|f",
    "public|dblink|2|2|scalar|dblink|c|v|false|postgres|f",
    "public|st_one|1|1|scalar|false|plpgsql|i|false|owner|f",
    "public|My Func|0|0|any|false|plpgsql|v|false|owner|f",
];

fn catalogue(declared: Declared) -> Catalogue {
    let row = |text: &str| -> catalogue::Row { text.split('|').map(|c| Some(c.to_owned())).collect() };
    let functions = FUNCTIONS.map(|text| {
        let mut row = row(text);
        row.extend([None, Some(String::new())]);
        row
    });
    let mut answers = vec![functions.to_vec(), vec![row("public|<=>|public|cosine_distance|vector")]];
    answers.resize(catalogue::QUERIES.len(), Vec::new());
    for (answer, query) in answers.iter_mut().zip(catalogue::QUERIES) {
        if query.name == "extensions" {
            *answer = vec![
                row("operator class|public|vector_cosine_ops|vector"),
                row("operator class|app|vector_cosine_ops2|other"),
                row("access method||hnsw|vector"),
            ];
        }
    }
    catalogue::from_rows(15, &answers, &Arc::new(declared)).unwrap()
}

fn trusting(extensions: &[&str]) -> Declared {
    Declared::default().with_safe_extensions(extensions.iter().map(|name| (*name).to_owned()).collect())
}

fn found_at(declared: Declared, path: &[&str], sql: &str) -> Arc<Classification> {
    let catalogue = catalogue(declared);
    let path = SearchPath::Known(path.iter().map(|schema| (*schema).into()).collect());
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context(&catalogue, &path))
}

fn class(declared: Declared, sql: &str) -> StatementClass {
    found_at(declared, &["public"], sql).class
}

#[test]
fn members_of_a_trusted_extension_pass_and_nothing_else_does() {
    let all = ["pg_trgm", "uuid-ossp", "vector", "postgis", "own_ext"];
    for sql in [
        "SELECT similarity('a', 'b')",
        "SELECT public.similarity('a', 'b')",
        "SELECT uuid_generate_v4()",
        "SELECT 1 ORDER BY '[1]' <=> '[2]'",
        "SELECT 1 ORDER BY '[1]' OPERATOR(public.<=>) '[2]'",
        "SELECT cosine_distance('[1]', '[2]')",
        "SELECT pure(1)",
        "CREATE INDEX ON pg_temp.t USING hnsw (v vector_cosine_ops)",
    ] {
        assert!(!class(trusting(&all), sql).is_privileged(), "{sql}");
        assert!(class(trusting(&["hstore"]), sql).is_privileged(), "{sql}");
    }
    for sql in [
        "SELECT app.similarity('a', 'b')",
        "SELECT as_owner()",
        "SELECT dropgeometrytable('customers')",
        "SELECT find_srid('it may call one that writes')",
        "SELECT st_fromflatgeobuftotable('public', 't')",
        "SELECT dblink('', 'select 1')",
        "CREATE INDEX ON pg_temp.t USING hnsw (v app.vector_cosine_ops2)",
    ] {
        let with_dblink = trusting(&["pg_trgm", "uuid-ossp", "vector", "postgis", "dblink"]);
        assert!(class(with_dblink, sql).is_privileged(), "{sql}");
    }
    let elsewhere = found_at(trusting(&all), &["app", "public"], "SELECT similarity('a', 'b')");
    assert_eq!(elsewhere.class, StatementClass::Code, "another function of the name is found first");
}

#[test]
fn the_reason_says_which_line_of_the_policy_lets_a_function_pass() {
    let reason = |sql: &str| found_at(Declared::default(), &["public"], sql).reasons[0].text.to_string();

    let operator = reason("SELECT 1 ORDER BY '[1]' <=> '[2]'");
    assert!(operator.contains("declare public.cosine_distance safe, or the extension vector"), "{operator}");
    let function = reason("SELECT similarity('a', 'b')");
    assert!(function.contains("declare public.similarity safe, or the extension pg_trgm"), "{function}");
    let own = reason("SELECT st_one(1)");
    assert!(own.contains("declare public.st_one safe") && !own.contains("extension"), "{own}");
    let owner = reason("SELECT as_owner()");
    assert!(!owner.contains("extension"), "it runs as its owner: {owner}");
}

#[test]
fn a_safe_function_is_a_pattern_with_stars_and_quotes() {
    let safe =
        |pattern: &str| Declared::default().with_safe_functions(vec![TablePattern::parse(pattern).unwrap()]);
    for (pattern, sql) in [
        ("public.st_*", "SELECT st_one(1)"),
        ("pub*.*_one", "SELECT st_one(1)"),
        ("public.*", "SELECT st_one(1)"),
        ("public.\"My Func\"", "SELECT \"My Func\"()"),
        ("public.\"My Func\"", "SELECT public.\"My Func\"()"),
        ("public.cosine_*", "SELECT 1 ORDER BY '[1]' <=> '[2]'"),
    ] {
        assert_eq!(class(safe(pattern), sql), StatementClass::Read, "{pattern}: {sql}");
    }
    for (pattern, sql) in [("public.\"st_*\"", "SELECT st_one(1)"), ("app.st_*", "SELECT st_one(1)")] {
        assert_eq!(class(safe(pattern), sql), StatementClass::Code, "{pattern}: {sql}");
    }
}

#[test]
fn safe_settings_may_be_set_in_every_spelling_and_no_other_may() {
    let declared =
        || Declared::default().with_safe_settings(["app.*", "*.tenant_*", "plv8.*"].map(Glob::new).to_vec());
    for sql in [
        "SET app.tenant_id = '42'",
        "SET LOCAL App.Who = '42'",
        "SET SESSION \"app.x\" = 1",
        "RESET app.tenant_id",
        "SELECT set_config('app.tenant_id', '42', true), set_config('other.tenant_id', '', false)",
        "SELECT set_config('app.tenant_id', current_user::text, true)",
    ] {
        assert!(!class(declared(), sql).is_privileged(), "{sql}");
    }
    for sql in [
        "SET other.x = '1'",
        "SET session_replication_role = replica",
        "SET application.tenant = 1",
        "SET plv8.start_proc = 'f'",
        "SELECT set_config('app.' || 'x', '1', true)",
        "SELECT set_config('app.x', '1', true), set_config('search_path', 'pg_temp', true)",
        "ALTER ROLE bot SET app.x = 1",
    ] {
        assert!(class(declared(), sql).is_privileged(), "{sql}");
    }
}

#[test]
fn how_an_extension_searches_an_index_is_the_sessions_own_business() {
    for sql in [
        "SET hnsw.ef_search = 100",
        "SET LOCAL ivfflat.probes = 10",
        "SET hnsw.iterative_scan = 'relaxed_order'",
        "SET pg_trgm.word_similarity_threshold TO 0.3",
        "SELECT set_config('pg_trgm.similarity_threshold', '0.2', false)",
    ] {
        assert!(!classify(sql).class.is_privileged(), "{sql}");
    }
    for sql in ["SET app.tenant_id = 1", "SET hnsw.unheard_of = 1"] {
        assert_eq!(classify(sql).class, StatementClass::Settings, "{sql}");
    }
}

#[test]
fn relations_that_may_be_temporary_are_named_where_it_would_make_a_difference() {
    for (sql, names) in [
        ("DROP TABLE staging", &["staging"][..]),
        ("DROP TABLE IF EXISTS a, b CASCADE", &["a", "b"]),
        ("DROP TABLE pg_temp.a, b", &["b"]),
        ("CREATE INDEX ON staging (id)", &["staging"]),
        ("TRUNCATE staging", &["staging"]),
        ("ANALYZE staging", &["staging"]),
        ("ALTER TABLE staging ADD COLUMN x int", &["staging"]),
        ("ALTER TABLE staging RENAME TO other", &["staging"]),
        ("COMMENT ON TABLE staging IS 'x'", &["staging"]),
        ("DELETE FROM staging", &["staging"]),
        ("UPDATE staging SET a = b FROM customers", &["staging"]),
        ("DROP VIEW v", &["v"]),
        ("INSERT INTO staging SELECT * FROM staging ON CONFLICT (id) DO UPDATE SET a = 1", &["staging"]),
    ] {
        let found = classify(sql);
        assert!(found.class.is_privileged(), "{sql}");
        let if_confirmed = found.if_confirmed.as_ref().expect(sql);
        let told: Vec<&str> = if_confirmed.names.iter().map(|name| &**name).collect();
        assert_eq!(told, names, "{sql}");
        assert_eq!(if_confirmed.classification.class, StatementClass::Write, "{sql}");
        let changes_rows = ["DELETE", "UPDATE", "INSERT"].iter().any(|verb| sql.starts_with(verb));
        let check = if changes_rows { RelationCheck::TemporaryTables } else { RelationCheck::Temporary };
        assert_eq!(if_confirmed.check, check, "{sql}");
        let permanent = |effect: &Effect| {
            effect.verb != Verb::Read
                && effect.schema.as_deref() != Some("pg_temp")
                && effect.kind == ObjectKind::Relation
        };
        assert!(!if_confirmed.classification.effects.iter().any(permanent), "{sql}");
    }
    for sql in [
        "DROP TABLE staging, public.customers",
        "DROP TABLE staging; DROP TABLE staging",
        "DROP SCHEMA staging",
        "CREATE INDEX ON staging (evil(id))",
        "ALTER TABLE staging INHERIT customers",
        "ALTER TABLE staging OWNER TO other",
        "TRUNCATE staging, public.customers",
        "DELETE FROM public.staging",
        "DELETE FROM staging RETURNING evil(id)",
        "DROP FUNCTION staging",
    ] {
        assert!(classify(sql).if_confirmed.is_none(), "{sql}");
    }
}

#[test]
fn a_temporary_view_is_a_write_where_its_query_only_reads() {
    for sql in [
        "CREATE TEMP VIEW v AS SELECT * FROM customers",
        "CREATE OR REPLACE TEMPORARY VIEW v AS WITH x AS (SELECT 1) SELECT * FROM x",
        "CREATE VIEW pg_temp.v AS VALUES (1)",
    ] {
        assert_eq!(classify(sql).class, StatementClass::Write, "{sql}");
    }
    for sql in [
        "CREATE VIEW v AS SELECT * FROM customers",
        "CREATE TEMP VIEW v AS SELECT nextval('s')",
        "CREATE TEMP VIEW v AS SELECT lo_unlink(1)",
        "CREATE TEMP VIEW v AS SELECT * FROM customers FOR UPDATE",
        "CREATE TEMP VIEW v AS SELECT evil(1)",
        "CREATE TEMP VIEW v AS SELECT rolpassword FROM pg_authid",
    ] {
        assert!(classify(sql).class.is_privileged(), "{sql}");
    }
}
