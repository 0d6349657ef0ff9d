//! What a database has of its own, and where its names are looked up.

use super::*;

fn class(sql: &str, functions: &[&str], path: SearchPath) -> StatementClass {
    let row = |text: &&str| -> catalogue::Row {
        let text = format!("{text}|plpgsql|v|false|owner|f");
        let columns = text.split('|').map(|column| Some(column.to_owned()));
        columns.chain([None, Some(String::new())]).collect()
    };
    let rows = functions.iter().map(row).collect();
    let mut answers = vec![rows];
    answers.resize(catalogue::QUERIES.len(), Vec::new());
    let catalogue = catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
    let context = context(&catalogue, &path);
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context).class
}

const LOWER: &[&str] = &["evil|lower|1|1|scalar|false"];

fn public() -> SearchPath {
    SearchPath::Known(vec!["public".into()])
}

#[test]
fn a_changed_path_is_unknown_for_the_rest_of_the_text() {
    assert_eq!(class("SELECT lower('x')", LOWER, public()), StatementClass::Read);
    for before in [
        "SET search_path TO evil",
        "SET LOCAL search_path = evil",
        "SELECT set_config('search_path', 'evil', false)",
        "RESET ALL",
        "DISCARD ALL",
        "ROLLBACK",
        "SET SCHEMA 'evil'",
        "BEGIN; SAVEPOINT s; ROLLBACK TO s",
    ] {
        let sql = format!("{before}; SELECT lower('x')");
        assert_eq!(class(&sql, LOWER, public()), StatementClass::Code, "{sql}");
    }
    assert_eq!(class("SET jit = off; SELECT lower('x')", LOWER, public()), StatementClass::Read);
}

#[test]
fn an_attribute_of_a_table_is_no_call_of_a_scalar_function() {
    let email = &["public|email|1|1|scalar|false"];
    assert_eq!(class("SELECT c.email FROM customers c", email, public()), StatementClass::Read);
    assert_eq!(class("SELECT f.email FROM unnest(ARRAY['x']) f", email, public()), StatementClass::Code);
    assert_eq!(class("SELECT unnest.email FROM unnest(ARRAY['x'])", email, public()), StatementClass::Code);
    assert_eq!(class("SELECT (c.x).email FROM customers c", email, public()), StatementClass::Code);
    // Found by trying on a server: these FROM items have names that no call shows.
    for sql in [
        "SELECT \"current_user\".email FROM current_user",
        "SELECT text.email FROM CAST('x' AS text)",
        "SELECT coalesce.email FROM coalesce('x'::text)",
        "SELECT \"btrim\".email FROM trim('x')",
        "SELECT r.email FROM ROWS FROM (unnest(ARRAY['x'])) r",
        "SELECT f.email FROM unnest(ARRAY['x']) AS f(col)",
    ] {
        assert_eq!(class(sql, email, public()), StatementClass::Code, "{sql}");
    }
    for sql in [
        "SELECT q.email FROM (SELECT 'x'::text a) q",
        "SELECT q.email FROM (VALUES ('x'::text)) q",
        "WITH c AS (SELECT unnest(ARRAY['x'])) SELECT c.email FROM c",
    ] {
        assert_eq!(class(sql, email, public()), StatementClass::Read, "{sql}");
    }
}
