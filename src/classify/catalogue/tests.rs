//! What names mean, with catalogues made up and one of a real server.

use super::*;
use crate::classify::pattern::TablePattern;

fn row(text: &str) -> Row {
    text.split('|').map(|column| Some(column.to_owned())).collect()
}

fn catalogue(functions: &[&str], operators: &[&str], types: &[&str], safe: &[&str]) -> Catalogue {
    let rows = |texts: &[&str]| texts.iter().map(|text| row(text)).collect::<Vec<_>>();
    let functions = functions.iter().map(|text| {
        let mut row = row(&format!("{text}|plpgsql|v|false|owner|f"));
        row.extend([None, Some(String::new())]);
        row
    });
    let safe = safe.iter().map(|name| TablePattern::parse(name).unwrap()).collect();
    let safe = Declared::default().with_safe_functions(safe);
    let mut answers = vec![functions.collect(), rows(operators), rows(types)];
    answers.resize(QUERIES.len(), Vec::new());
    from_rows(15, &answers, &Arc::new(safe)).unwrap()
}

fn path(schemas: &[&str]) -> SearchPath {
    SearchPath::Known(schemas.iter().map(|schema| Arc::from(*schema)).collect())
}

#[test]
fn a_users_function_takes_a_builtins_name_only_where_it_is_found_and_fits() {
    let shadowed = catalogue(&["public|lower|1|1|scalar|false"], &[], &[], &[]);
    let class =
        |schema, arguments, path: &SearchPath| shadowed.function(schema, "lower", arguments, path).class;

    assert_eq!(class(None, 1, &path(&["public"])), StatementClass::Code);
    assert_eq!(class(None, 1, &SearchPath::Unknown), StatementClass::Code);
    assert_eq!(class(None, 1, &path(&["app"])), StatementClass::Read);
    assert_eq!(class(None, 2, &path(&["public"])), StatementClass::Read);
    assert_eq!(class(Some("pg_catalog"), 1, &path(&["public"])), StatementClass::Read);
}

#[test]
fn an_extensions_overload_does_not() {
    let citext = catalogue(
        &["public|replace|3|3|any|true"],
        &["public|=|public|citext_eq|true", "public|<=>|public|cosine|true"],
        &[],
        &[],
    );

    assert_eq!(citext.function(None, "replace", 3, &path(&["public"])).class, StatementClass::Read);
    assert_eq!(citext.operator(None, "=", &path(&["public"])), None);
    assert!(citext.operator(None, "<=>", &path(&["public"])).is_some());
}

#[test]
fn what_the_operator_declared_safe_is_read() {
    let declared = catalogue(
        &["public|score|1|1|scalar|false", "app|f|0|0|any|false", "other|f|0|0|any|false"],
        &["public|<=>|public|score|true"],
        &[],
        &["public.score", "app.*"],
    );
    let public = path(&["public"]);

    assert_eq!(declared.function(None, "score", 1, &public).class, StatementClass::Read);
    assert_eq!(declared.function(Some("public"), "score", 1, &public).class, StatementClass::Read);
    assert_eq!(declared.operator(None, "<=>", &public), None);
    assert_eq!(declared.function(None, "f", 0, &path(&["app"])).class, StatementClass::Read);
    assert_eq!(declared.function(None, "f", 0, &path(&["app", "other"])).class, StatementClass::Code);
    assert_eq!(declared.function(None, "f", 0, &SearchPath::Unknown).class, StatementClass::Code);
}

#[test]
fn attributes_are_functions_of_one_argument() {
    let user = catalogue(&["public|email|1|1|scalar|false", "public|secret|1|1|any|false"], &[], &[], &[]);
    let public = path(&["public"]);
    let class = |name, applied| user.attribute(name, applied, &public).map(|meaning| meaning.class);

    assert_eq!(class("pg_read_file", Applied::Row), Some(StatementClass::ServerIo));
    assert_eq!(class("email", Applied::Row), None);
    assert_eq!(class("email", Applied::Anything), Some(StatementClass::Code));
    assert_eq!(class("secret", Applied::Row), Some(StatementClass::Code));
    assert_eq!(class("name", Applied::Anything), None);
    assert_eq!(class("id", Applied::Anything), None);
}

#[test]
fn a_domain_with_code_in_its_check_is_code() {
    let types =
        catalogue(&[], &[], &["public|evil|d|true|20000|20001", "public|mood|e|false|20002|20003"], &[]);

    assert!(types.of_type(None, "evil", &path(&["public"])).is_some());
    assert_eq!(types.of_type(None, "mood", &path(&["public"])), None);
    assert_eq!(types.of_type(None, "int4", &path(&["public"])), None);
    assert_eq!(types.of_type(None, "unheard_of", &path(&["public"])), None);
    let by_number: Vec<u32> = (0..30_000).filter(|oid| types.type_runs_code(*oid)).collect();
    assert_eq!(by_number, [20_000, 20_001], "itself and its array");
}

/// The answers of a real Postgres 15 with citext, pg_trgm and hstore, and with objects made to
/// mislead: see `fixtures/catalogue/README.md`.
fn real() -> Catalogue {
    let text = include_str!("../../../fixtures/catalogue/postgres-15.json");
    let answers: HashMap<String, Vec<Row>> = serde_json::from_str(text).unwrap();
    let answers: Vec<Vec<Row>> =
        QUERIES.iter().map(|query| answers.get(query.name).cloned().unwrap_or_default()).collect();
    from_rows(15, &answers, &Arc::default()).unwrap()
}

#[test]
fn a_real_servers_answers_mean_what_its_objects_do() {
    let real = real();
    let public = path(&["public"]);
    let function = |name, arguments| real.function(None, name, arguments, &public).class;
    let operator = |name| real.operator(None, name, &public).is_some();

    assert_eq!(function("lower", 1), StatementClass::Code);
    assert_eq!(function("replace", 3), StatementClass::Read);
    assert_eq!(function("upper", 1), StatementClass::Read);
    assert_eq!(real.function(None, "upper", 1, &path(&["public", "evil"])).class, StatementClass::Code);
    assert_eq!(function("similarity", 2), StatementClass::Code);
    assert!(!operator("=") && !operator("%") && !operator("+") && operator("==="));
    assert!(real.operator(None, "+", &SearchPath::Unknown).is_some());
    assert!(real.of_type(None, "evil_int", &public).is_some());
    assert!(real.of_type(None, "mood", &public).is_some(), "a cast to it runs a function");
    assert!(real.of_type(None, "pair", &public).is_some(), "it has a column of the domain");
    for name in ["citext", "hstore", "posint", "int4"] {
        assert_eq!(real.of_type(None, name, &public), None, "{name}");
    }
    assert!(real.attribute("secret", Applied::Row, &public).is_some());
    assert_eq!(real.attribute("email", Applied::Row, &public), None);
    assert_eq!(real.relation_schema("customers", &public).as_deref(), Some("public"));
    let bases = |schema, name| {
        let shown = |base: &Base| match &base.columns {
            Some(columns) => {
                format!("{}({})", base.name, columns.iter().map(|c| &**c).collect::<Vec<_>>().join(","))
            }
            None => base.name.to_string(),
        };
        real.bases(Some(schema), name).map(shown).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(bases("public", "v2"), "customers(email,id,name) v_customers(email,id)");
    assert_eq!(bases("public", "mv"), "customers");
    assert_eq!(bases("app", "part_1"), "part");
    assert_eq!(bases("public", "part_1"), "");
    assert_eq!(bases("public", "part"), "part_1", "it is in another schema");
}

#[test]
fn answers_of_another_shape_are_an_error() {
    assert!(from_rows(15, &[], &Arc::default()).is_err());
    let short = vec![vec![row("a|b")], vec![], vec![], vec![], vec![], vec![], vec![], vec![], vec![]];
    assert_eq!(
        from_rows(15, &short, &Arc::default()).unwrap_err().to_string(),
        "the catalogue query `functions` answered 2 columns instead of 13"
    );
}

#[test]
fn each_load_has_a_generation_of_its_own() {
    let (one, two) = (catalogue(&[], &[], &[], &[]), catalogue(&[], &[], &[], &[]));

    assert_ne!(one.generation, two.generation);
    assert_eq!(Catalogue::built_in(15).generation, Catalogue::built_in(15).generation);
}
