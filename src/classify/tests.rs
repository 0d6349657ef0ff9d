//! The corpora under `fixtures/statements/`, and what must hold for any text at all.

use std::sync::Arc;

use super::*;
use crate::statement::SqlText;

/// Classifies with the built-in catalogue of Postgres 15, as `countersign classify` does.
fn classify(sql: &str) -> Arc<Classification> {
    classify_on(15, sql)
}

fn classify_on(version: u32, sql: &str) -> Arc<Classification> {
    let catalogue = Catalogue::built_in(version);
    let context = Context {
        server_version: version,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context)
}

#[derive(serde::Deserialize)]
struct Line {
    id: String,
    sql: String,
    class: StatementClass,
    #[serde(default)]
    server_version: Option<u32>,
}

fn lines(file: &str) -> Vec<Line> {
    file.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn mistakes(lines: &[Line]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for line in lines {
        let found = classify_on(line.server_version.unwrap_or(15), &line.sql);
        if found.class != line.class {
            mistakes.push(format!(
                "{}: {} is {}, not {}: {:?}",
                line.id, line.sql, found.class, line.class, found.reasons
            ));
        }
    }
    mistakes
}

#[test]
fn every_line_of_the_corpus_has_its_class() {
    let lines = lines(include_str!("../../fixtures/statements/corpus.jsonl"));
    assert!(lines.len() > 250);

    let mistakes = mistakes(&lines);

    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn every_family_of_our_own_has_its_class() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/statements");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        all.extend(lines(&std::fs::read_to_string(file.unwrap().path()).unwrap()));
    }
    assert!(all.len() > 1_000, "{}", all.len());

    let mistakes = mistakes(&all);

    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn a_class_is_held_exactly_when_the_corpus_says_so() {
    #[derive(serde::Deserialize)]
    struct Line {
        sql: String,
        privileged: bool,
    }
    for line in include_str!("../../fixtures/statements/corpus.jsonl").lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        assert_eq!(classify(&line.sql).class.is_privileged(), line.privileged, "{}", line.sql);
    }
}

/// Ordinary SQL that parsers with a limit on depth reject.
#[test]
fn deep_but_ordinary_sql_is_read() {
    let joins: String = (0..200).map(|n| format!(" JOIN t{n} ON t{n}.id = t.id")).collect();
    let texts = [
        format!("SELECT * FROM t{joins}"),
        format!("SELECT {}x FROM t", "a || ".repeat(500)),
        format!("SELECT 1 FROM t WHERE {}b = 2", "a = 1 AND ".repeat(5_000)),
        format!("SELECT 1 FROM t WHERE {}b = 2", "a = 1 OR ".repeat(5_000)),
        format!("SELECT 1 FROM t WHERE a IN ({}1)", "1,".repeat(50_000)),
        format!("SELECT {}1{}", "(".repeat(900), ")".repeat(900)),
        format!("SELECT {}1{}", "coalesce(a, ".repeat(400), ")".repeat(400)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(500)),
    ];
    for text in texts {
        let found = classify(&text);
        assert_eq!(found.class, StatementClass::Read, "{}: {:?}", &text[..60], found.reasons);
    }
}

#[test]
fn what_is_too_large_or_too_deep_is_held_with_a_reason() {
    let cases = [
        (format!("SELECT {}1", "1+".repeat(34_000)), "beyond the parser's limits: stack depth"),
        (format!("SELECT {}1{}", "/*".repeat(65), "*/".repeat(65)), "nests comments"),
        (format!("SELECT 1 {} 1", "+".repeat(2_000)), "operator too long"),
        // Found by trying: 1 MiB of it took more than five minutes.
        (
            format!("SELECT 1 {}", ["/*".repeat(60), "*/".repeat(60)].concat().repeat(4_000)),
            "operator too long",
        ),
        (format!("SELECT '{}'", "x".repeat(1 << 20)), "longer than 1 MiB"),
        (format!("SELECT 1 {}", " ".repeat(33 << 20)), "too long"),
    ];
    for (text, why) in cases {
        let found = classify(&text);
        assert_eq!(found.class, StatementClass::Admin);
        assert!(found.reasons[0].text.contains(why), "{:?}", found.reasons);
    }
    assert_eq!(
        classify(&format!("SELECT {}1{}", "/*".repeat(64), "*/".repeat(64))).class,
        StatementClass::Read
    );
}

#[test]
fn a_bulk_insert_of_literals_is_a_write_however_long() {
    let rows = "(1, 'it''s', NULL, -2.5, E'\\n', $$x$$),".repeat(60_000);
    let text = format!("INSERT INTO app.t (a, b) VALUES {rows} (1, 2, 3, 4, 5, 6)");
    assert!(text.len() > 2 << 20);

    let found = classify(&text);
    assert_eq!(found.class, StatementClass::Write);
    assert_eq!((&*found.effects[0].name, found.effects[0].schema.as_deref()), ("t", Some("app")));
    assert_eq!((found.parts.len(), found.steps.len()), (1, 1));

    let call = format!("INSERT INTO t VALUES {rows} (f(), 2, 3, 4, 5, 6)");
    assert_eq!(classify(&call).class, StatementClass::Admin);
    let system = format!("INSERT INTO pg_proc VALUES {rows} (1, 2, 3, 4, 5, 6)");
    assert_eq!(classify(&system).class, StatementClass::Admin);
}

#[test]
fn bytes_that_are_no_text_are_held() {
    let catalogue = Catalogue::built_in(15);
    let context = Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    let classifier = Classifier::new(Limits::default());
    let classify = |bytes: &[u8]| classifier.classify(&SqlText::new(bytes.to_vec()), &context);
    let found = classify(b"select 1\0; drop table t");
    assert_eq!(found.class, StatementClass::Invalid);
    assert!(found.syntax_error.is_none(), "Postgres's grammar has not spoken");
    for (bytes, told) in [(&b"select '\xff'"[..], "0xff"), (b"\xe4 x", "0xe4 0x20 0x78"), (b"\xf0", "0xf0")] {
        let found = classify(bytes);
        assert_eq!(found.class, StatementClass::Invalid);
        let error = found.syntax_error.as_ref().unwrap();
        assert!(error.encoding, "refused as Postgres refuses it, with its own code");
        assert_eq!(&*error.message, format!("invalid byte sequence for encoding \"UTF8\": {told}"));
    }
    let odd = Context { strings_standard: false, ..context };
    assert!(classifier.classify(&SqlText::from("select 1"), &odd).class.is_privileged());
}

#[test]
fn a_syntax_error_is_postgres_own() {
    let found = classify("select 'ä' frm t x");
    let error = found.syntax_error.as_ref().unwrap();

    assert_eq!((&*error.message, error.position), ("syntax error at or near \"t\"", Some(16)));
    let span = found.reasons[0].span.clone().unwrap();
    assert_eq!(&"select 'ä' frm t x"[span.start as usize..span.end as usize], "t");
}

#[test]
fn reasons_point_at_the_text_they_come_from() {
    let cases = [
        ("select 1, pg_catalog . \"pg_read_file\"('/x') from t", "pg_catalog . \"pg_read_file\"('/x')"),
        ("select ä, lo_import('/x')", "lo_import('/x')"),
        ("select * from pg_catalog.pg_authid a", "pg_catalog.pg_authid"),
        ("select 1; /* c */ drop table t ; ", "drop table t"),
        ("select f.pg_read_file from unnest(array['x']) f", "f.pg_read_file"),
    ];
    for (sql, piece) in cases {
        let found = classify(sql);
        let span = found.reasons[0].span.clone().expect(sql);
        assert_eq!(&sql[span.start as usize..span.end as usize], piece);
    }
}

mod session {
    use super::*;
    use crate::statement::SessionEffect::{self, *};

    fn effects(sql: &str) -> Vec<Vec<SessionEffect>> {
        classify(sql).steps.iter().map(|step| step.effects.clone()).collect()
    }

    fn set(name: &str, value: Option<&str>, local: bool) -> SessionEffect {
        Set { name: name.into(), value: value.map(Into::into), local }
    }

    #[test]
    fn each_raw_statement_has_its_step() {
        let found =
            effects("PREPARE Foo AS SELECT 1; EXECUTE foo; DEALLOCATE \"foo\"; DEALLOCATE ALL; SELECT 1");
        assert_eq!(
            found,
            [
                vec![Prepare("foo".into())],
                vec![Execute("foo".into())],
                vec![Deallocate("foo".into())],
                vec![DeallocateAll],
                vec![]
            ]
        );
    }

    #[test]
    fn names_are_folded_unescaped_and_cut_like_postgres_does() {
        let long = "x".repeat(70);
        assert_eq!(
            effects(&format!("DECLARE {long} CURSOR FOR SELECT 1")),
            [[Declare("x".repeat(63).into())]]
        );
        assert_eq!(effects("DECLARE U&\"\\0061B\" CURSOR FOR SELECT 1"), [[Declare("aB".into())]]);
        assert_eq!(
            effects("CLOSE \"A\"\"b\"; CLOSE ALL"),
            [vec![CloseCursor("A\"b".into())], vec![CloseAllCursors]]
        );
    }

    #[test]
    fn transactions_and_their_characteristics() {
        assert_eq!(
            effects("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"),
            [vec![
                Begin,
                set("transaction_isolation", Some("serializable"), true),
                set("transaction_read_only", Some("1"), true)
            ]]
        );
        assert_eq!(
            effects("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
            [[set("default_transaction_read_only", Some("1"), false)]]
        );
        assert_eq!(
            effects(
                "COMMIT AND CHAIN; ABORT; SAVEPOINT a; ROLLBACK TO a; RELEASE a; PREPARE TRANSACTION 'x'"
            ),
            [
                vec![Commit { chain: true }],
                vec![Rollback { chain: false }],
                vec![Savepoint],
                vec![RollbackToSavepoint],
                vec![],
                vec![Commit { chain: false }]
            ]
        );
    }

    #[test]
    fn settings_in_all_their_spellings() {
        assert_eq!(effects("SET LOCAL Work_Mem = '64MB'"), [[set("work_mem", Some("64MB"), true)]]);
        assert_eq!(effects("SET search_path TO a, \"B\""), [[set("search_path", Some("a, B"), false)]]);
        assert_eq!(effects("SET SCHEMA 'x'"), [[set("search_path", Some("x"), false)]]);
        assert_eq!(
            effects("RESET jit; SET jit TO DEFAULT"),
            [[set("jit", None, false)], [set("jit", None, false)]]
        );
        assert_eq!(effects("SELECT set_config('JIT', 'off', true)"), [[set("jit", Some("off"), true)]]);
        assert_eq!(
            effects("SELECT U&\"set\\005fconfig\"('jit', 'off', false)"),
            [[set("jit", Some("off"), false)]]
        );
        assert_eq!(
            effects("RESET ALL; DISCARD ALL; DISCARD PLANS"),
            [vec![ResetAll], vec![DiscardAll], vec![]]
        );
    }

    #[test]
    fn copies_and_changes_of_the_catalogue() {
        assert_eq!(effects("COPY t FROM STDIN"), [[CopyIn]]);
        assert_eq!(effects("COPY t TO STDOUT"), [[CopyOut]]);
        for sql in
            ["CREATE TABLE t (a int)", "DROP FUNCTION f()", "CREATE EXTENSION x", "DO ''", "SELECT f()"]
        {
            assert!(effects(sql)[0].contains(&CatalogueChange), "{sql}");
        }
        for sql in ["CREATE TEMP TABLE t AS SELECT 1", "INSERT INTO t VALUES (1)", "GRANT SELECT ON t TO x"] {
            assert!(!effects(sql)[0].contains(&CatalogueChange), "{sql}");
        }
        assert_eq!(effects("EXPLAIN ANALYZE EXECUTE p(1)")[0].first(), Some(&Execute("p".into())));
        assert_eq!(effects("CREATE TEMP TABLE t AS EXECUTE p")[0].first(), Some(&Execute("p".into())));
    }
}

mod names {
    use super::*;

    fn resolved(sql: &str, known: &[(&str, &str)]) -> Arc<Classification> {
        resolve_names(&classify(sql), &|name| {
            known.iter().find(|(known, _)| *known == name).map(|(_, sql)| classify(sql))
        })
    }

    #[test]
    fn execute_is_what_was_prepared() {
        assert_eq!(resolved("EXECUTE p", &[]).class, StatementClass::Code);
        assert_eq!(resolved("EXECUTE p", &[("p", "PREPARE p AS SELECT 1")]).class, StatementClass::Read);
        let deletes = resolved("EXECUTE p", &[("p", "PREPARE p AS DELETE FROM t")]);
        assert_eq!(deletes.class, StatementClass::MassWrite);
        assert!(deletes.effects.iter().any(|effect| effect.verb == Verb::Delete && &*effect.name == "t"));
        assert!(
            deletes.reasons[0].text.starts_with("executes p, which deletes every row"),
            "{:?}",
            deletes.reasons
        );
    }

    #[test]
    fn only_an_execute_that_may_change_the_catalogue_makes_it_read_anew() {
        let changes = |sql: &str, prepared: &str| {
            let resolved = resolved(sql, &[("p", prepared)]);
            resolved.steps.iter().any(|step| step.effects.contains(&SessionEffect::CatalogueChange))
        };
        assert!(!changes("EXECUTE p", "PREPARE p AS SELECT 1"));
        assert!(!changes("EXPLAIN EXECUTE p", "PREPARE p AS UPDATE t SET n = 1 WHERE n = 2"));
        assert!(changes("EXECUTE p", "PREPARE p AS SELECT evil()"));
        assert!(changes("EXECUTE p(evil())", "PREPARE p AS SELECT 1"));
        assert!(changes("CREATE TABLE x AS EXECUTE p", "PREPARE p AS SELECT 1"));
        assert!(changes("EXECUTE p; DROP TABLE t", "PREPARE p AS SELECT 1"));
        assert!(changes("EXECUTE q", "PREPARE p AS SELECT 1"), "nothing is known of it");
    }

    #[test]
    fn what_else_the_statement_does_stays() {
        let known = [("p", "PREPARE p AS SELECT 1")];
        assert_eq!(resolved("EXECUTE p(length(pg_read_file('/x')))", &known).class, StatementClass::ServerIo);
        assert_eq!(resolved("EXECUTE p(evil())", &known).class, StatementClass::Code);
        assert_eq!(resolved("CREATE TABLE x AS EXECUTE p", &known).class, StatementClass::Ddl);
        assert_eq!(resolved("EXECUTE p; DROP TABLE t", &known).class, StatementClass::Ddl);
        assert_eq!(resolved("EXECUTE p; EXECUTE q", &known).class, StatementClass::Code);
    }

    #[test]
    fn what_holds_the_text_as_a_whole_stays_as_well() {
        let known = [("p", "PREPARE p AS SELECT 1")];
        assert_eq!(resolved("EXECUTE p; SELECT 1_000", &known).class, StatementClass::Invalid);
        assert_eq!(resolved("EXECUTE p; SELECT * FROM (SELECT 1)", &[]).class, StatementClass::Invalid);
    }

    #[test]
    fn a_name_both_prepared_here_and_known_before_has_the_worse_meaning() {
        let sql = "PREPARE p AS SELECT 1; EXECUTE p";
        assert_eq!(resolved(sql, &[]).class, StatementClass::Read);
        assert_eq!(resolved(sql, &[("p", "PREPARE p AS DELETE FROM t")]).class, StatementClass::MassWrite);
    }
}

mod catalogue_and_path {
    use super::*;

    fn class(sql: &str, functions: &[&str], path: SearchPath) -> StatementClass {
        let row = |text: &&str| -> catalogue::Row {
            let text = format!("{text}|plpgsql|v|false|owner|f");
            let columns = text.split('|').map(|column| Some(column.to_owned()));
            columns.chain([None, Some(String::new())]).collect()
        };
        let rows = functions.iter().map(row).collect();
        let catalogue =
            catalogue::from_rows(15, &[rows, vec![], vec![], vec![], vec![], vec![]], &Arc::default())
                .unwrap();
        let context = Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &path,
            database: "app",
            role: "bot",
            strings_standard: true,
        };
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
        assert_eq!(
            class("SELECT unnest.email FROM unnest(ARRAY['x'])", email, public()),
            StatementClass::Code
        );
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
}

#[test]
fn secrets_are_taken_out_of_what_is_shown() {
    let redacted = |sql: &str| classify(sql).redacted_sql.as_deref().map(str::to_owned);

    assert_eq!(
        redacted("alter role a password 'x'; select 'password=y'").as_deref(),
        Some("alter role a password '<redacted>'; select 'password=y'")
    );
    assert_eq!(redacted("select 1"), None);
    assert_eq!(redacted("insert into t values ('password=x')"), None);
    assert_eq!(
        redacted("alter role a pasword 'x' password 'y'").as_deref(),
        Some("alter role a pasword 'x' password '<redacted>'")
    );
}

#[test]
fn only_plain_statements_of_known_functions_are_explainable() {
    for sql in ["select lower(a) from t", "delete from t where id = 1", "insert into t select nextval('s')"] {
        assert!(classify(sql).explainable, "{sql}");
    }
    for sql in [
        "select f()",
        "select 1; select 2",
        "copy t to stdout",
        "set jit = off",
        "select pg_read_file('x')",
        "selec",
    ] {
        assert!(!classify(sql).explainable, "{sql}");
    }
    assert!(classify("delete from t").explainable, "a plan helps the reviewer most where it is held");
}

mod properties {
    use proptest::prelude::*;

    use super::super::lex::{TokenKind, lex};
    use super::*;

    fn privileged() -> Vec<String> {
        lines(include_str!("../../fixtures/statements/corpus.jsonl"))
            .into_iter()
            .filter(|line| line.class.is_privileged() && line.class != StatementClass::Invalid)
            .map(|line| line.sql)
            .collect()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other tokens have one spelling")]
    /// Writes the same tokens another way: `choices` are consumed one per token.
    fn respelled(sql: &str, choices: &[u8]) -> String {
        let mut out = String::new();
        let mut choices = choices.iter().copied().cycle();
        for token in lex(sql).tokens {
            let choice = choices.next().unwrap_or(0);
            let text = token.of(sql);
            out.push_str(match choice % 7 {
                0 => "/* ; */",
                1 => " --'\n",
                2 => "\n\t",
                3 => "/*/*'*/*/ ",
                _ => " ",
            });
            match token.kind {
                TokenKind::Word if text.starts_with("pg_") && choice % 5 == 0 => {
                    out.push_str(&format!("U&\"\\{:04x}{}\"", text.as_bytes()[0], &text[1..]));
                }
                TokenKind::Word if text.starts_with("pg_") && choice % 5 == 1 => {
                    out.push_str(&format!("\"{text}\""));
                }
                TokenKind::Word => out.extend(text.chars().enumerate().map(|(place, c)| {
                    if (choice >> (place % 8)) & 1 == 0 {
                        c.to_ascii_uppercase()
                    } else {
                        c.to_ascii_lowercase()
                    }
                })),
                TokenKind::String if choice % 3 == 0 && !text.contains('\\') && !text.contains('\n') => {
                    out.push('E');
                    out.push_str(text);
                }
                _ => out.push_str(text),
            }
        }
        out
    }

    fn wrapped(sql: &str, choice: u8) -> String {
        let body = sql.trim_end_matches([';', ' ', '\n']);
        let query = classify(sql).parts.len() == 1 && &*classify(sql).parts[0].kind == "SelectStmt";
        let row = query
            || matches!(classify(sql).parts.first(), Some(part) if matches!(&*part.kind, "InsertStmt" | "UpdateStmt" | "DeleteStmt"));
        match choice % 9 {
            0 if row => format!("EXPLAIN ANALYZE {body}"),
            1 if row => format!("PREPARE x AS {body}"),
            2 if query => format!("DECLARE x CURSOR FOR {body}"),
            3 if query => format!("COPY ({body}) TO STDOUT"),
            4 if query => format!("SELECT (SELECT count(*) FROM ({body}) q)"),
            5 if query => format!("INSERT INTO x {body}"),
            6 if query => format!("CREATE TEMP TABLE x AS {body}"),
            7 => format!("SELECT 1; {body}; SELECT 2"),
            8 => format!("BEGIN; {body}; COMMIT"),
            _ => body.to_owned(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_get_a_class(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let catalogue = Catalogue::built_in(15);
            let context = Context {
                server_version: 15,
                catalogue: &catalogue,
                search_path: &SearchPath::Unknown,
                database: "",
                role: "",
                strings_standard: true,
            };
            let found = Classifier::new(Limits::default()).classify(&SqlText::new(bytes), &context);
            prop_assert_eq!(found.parts.len(), found.steps.len());
        }

        #[test]
        fn pieces_of_sql_in_any_order_get_a_class(
            pieces in prop::collection::vec(prop::sample::select(privileged()), 1..4),
            cuts in prop::collection::vec(0_usize..400, 4),
        ) {
            let mut text = String::new();
            for (piece, cut) in pieces.iter().zip(cuts) {
                text.extend(piece.chars().skip(cut % 40));
                text.push(' ');
            }
            let found = classify(&text);
            prop_assert!(found.reasons.iter().all(|reason| reason.span.as_ref().is_none_or(|span| text.get(span.start as usize..span.end as usize).is_some())));
        }

        #[test]
        fn no_spelling_makes_a_privileged_statement_harmless(
            sql in prop::sample::select(privileged()),
            choices in prop::collection::vec(any::<u8>(), 1..40),
            wrapper in any::<u8>(),
        ) {
            let text = respelled(&wrapped(&sql, wrapper), &choices);
            let found = classify(&text);
            prop_assert!(found.class.is_privileged(), "{} became {}: {:?}", sql, text, found.reasons);
            prop_assert!(found.class != StatementClass::Invalid, "{} became {}: {:?}", sql, text, found.reasons);
        }

        #[test]
        fn a_fingerprint_does_not_depend_on_spelling(
            sql in prop::sample::select(privileged()),
            choices in prop::collection::vec(2_u8..3, 1..40),
        ) {
            let text = respelled(&sql, &choices);
            prop_assert_eq!(classify(&text).fingerprint, classify(&sql).fingerprint, "{}", text);
        }
    }
}

#[test]
fn an_export_says_how_much_it_takes() {
    for (sql, scope) in [
        ("COPY public.t TO STDOUT", "all of public.t"),
        ("COPY (SELECT * FROM t) TO STDOUT", "all that there are: it has no WHERE and no LIMIT"),
        ("COPY (SELECT * FROM t JOIN u USING (a) WHERE u.a = 5) TO STDOUT", "those that its WHERE picks"),
        (
            "COPY (SELECT * FROM t WHERE a = a) TO STDOUT",
            "perhaps all that there are: its WHERE is not one that surely picks some",
        ),
        ("COPY (SELECT * FROM t LIMIT 5) TO STDOUT", "as many as its LIMIT says"),
        ("COPY (DELETE FROM t WHERE a = 1 RETURNING a) TO STDOUT", "those that it changes"),
    ] {
        assert_eq!(*classify(sql).reasons[0].text, format!("copies rows out: {scope}"), "{sql}");
    }
}

mod columns {
    use super::*;

    fn with_context<T>(path: SearchPath, what: impl FnOnce(&Classifier, &Context<'_>) -> T) -> T {
        let row = |text: &str| -> catalogue::Row { text.split('|').map(|c| Some(c.to_owned())).collect() };
        let relations = [
            r#"public|t|r|["id","x","a","note"]|none|["id","x","a"]|["x"]"#,
            r#"public|u|r|["id","y","t_id"]|applies|[]|[]"#,
            r#"public|shown|v|["y"]|none|[]|[]"#,
            r#"app|u|r|["id","x"]|none|[]|[]"#,
            r#"public|all_t|v|["id","x"]|none|[]|[]"#,
            r#"public|more_t|v|["cid"]|none|[]|[]"#,
            r#"public|t_1|r|["id","x","a","note"]|none|[]|[]"#,
        ];
        let views = [
            "public|all_t|public|t|id|shows",
            "public|more_t|public|all_t|id|shows",
            "public|t_1|public|t|-|is part of",
        ];
        let view = |text: &str| -> catalogue::Row {
            text.split('|').map(|c| (c != "-").then(|| c.to_owned())).collect()
        };
        let function = |name: &str, returns: &str, body: &str| -> catalogue::Row {
            let row = format!("public|{name}|0|0|scalar|false|sql|s|false|owner|f|{body}|{returns}");
            row.split('|').map(|c| Some(c.to_owned())).collect()
        };
        let functions =
            [function("ids", "20", "SELECT id FROM t"), function("others", "20", "SELECT y FROM u")];
        let answers = [
            functions.to_vec(),
            vec![],
            vec![],
            vec![],
            relations.map(row).to_vec(),
            views.map(view).to_vec(),
        ];
        let catalogue = catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
        let context = Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &path,
            database: "app",
            role: "bot",
            strings_standard: true,
        };
        what(&Classifier::new(Limits::default()), &context)
    }

    fn classify_at(path: SearchPath, sql: &str) -> Arc<Classification> {
        with_context(path, |classifier, context| classifier.classify(&SqlText::from(sql), context))
    }

    /// `read public.t (id)`, one for each relation.
    fn touched(sql: &str) -> String {
        let path = SearchPath::Known(vec!["public".into()]);
        let found = with_context(path, |classifier, context| {
            let text = SqlText::from(sql);
            let found = classifier.classify(&text, context);
            classifier.detail(std::iter::once(&text), context, &found)
        });
        let line = |effect: &Effect| {
            let schema = effect.schema.as_deref().map(|schema| format!("{schema}.")).unwrap_or_default();
            let columns: Vec<&str> = effect.columns.iter().map(|column| &**column).collect();
            let security = effect.row_security.map(|security| format!(" {security:?}")).unwrap_or_default();
            format!("{:?} {schema}{}({}){security}", effect.verb, effect.name, columns.join(","))
        };
        let relations = found.effects.iter().filter(|effect| effect.kind == ObjectKind::Relation);
        relations.map(line).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn effects_say_which_columns_and_whether_row_security_applies() {
        for (sql, expected) in [
            ("SELECT id, x FROM t WHERE a = 1", "Read public.t(id,x,a)"),
            ("SELECT * FROM t", "Read public.t(*)"),
            ("SELECT t FROM t", "Read public.t(*)"),
            ("SELECT count(*) FROM t", "Read public.t()"),
            (
                "SELECT y, x FROM t JOIN u ON t.id = t_id",
                "Read public.t(x,id); Read public.u(y,t_id) Applies",
            ),
            ("SELECT x FROM t JOIN u USING (id)", "Read public.t(x,id); Read public.u(id) Applies"),
            ("SELECT s.z FROM (SELECT x AS z FROM t) s", "Read public.t(x)"),
            ("WITH t AS (SELECT y FROM u) SELECT y FROM t", "Read public.u(y) Applies"),
            (
                "SELECT x FROM t WHERE EXISTS (SELECT FROM u WHERE t_id = t.id AND note = 'n')",
                "Read public.t(x,id,note); Read public.u(t_id) Applies",
            ),
            ("UPDATE t SET note = '' WHERE id = 1 RETURNING x", "Read public.t(id,x); Update public.t(note)"),
            ("DELETE FROM t WHERE id = 1", "Read public.t(id); Delete public.t()"),
            ("INSERT INTO t (id, x) VALUES (1, 2)", "Insert public.t(id,x)"),
            ("INSERT INTO t VALUES (1, 2)", "Insert public.t(*)"),
            (
                "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET x = t.x + 1",
                "Read public.t(x); Insert public.t(id); Update public.t(x)",
            ),
            (
                "MERGE INTO t USING u ON t.id = t_id WHEN MATCHED THEN UPDATE SET x = y",
                "Read public.t(id); Read public.u(t_id,y) Applies; Update public.t(x)",
            ),
            ("COPY t (id, x) TO STDOUT", "Read public.t(id,x); Export public.t(id,x)"),
            ("COPY t TO STDOUT", "Read public.t(*); Export public.t(*)"),
            ("SELECT who, name FROM elsewhere, t", "Read elsewhere(who,name); Read public.t()"),
            ("SELECT rolname FROM pg_roles", "Read pg_catalog.pg_roles(rolname)"),
        ] {
            assert_eq!(touched(sql), expected, "{sql}");
        }
    }

    fn classes(schemas: &[&str], texts: &[&str], class: StatementClass) {
        for sql in texts {
            let path = SearchPath::Known(schemas.iter().map(|schema| Arc::from(*schema)).collect());
            let found = classify_at(path, sql);
            assert_eq!(found.class, class, "{sql}: {:?}", found.reasons);
        }
    }

    #[test]
    fn a_column_that_a_subquery_takes_from_the_row_itself_picks_nothing() {
        classes(
            &["public"],
            &[
                "DELETE FROM t WHERE x IN (SELECT x FROM u)",
                "DELETE FROM t WHERE x = ANY (SELECT x FROM u)",
                "DELETE FROM t WHERE x = (SELECT x FROM u LIMIT 1)",
                "DELETE FROM t WHERE x = ANY (ARRAY(SELECT x FROM u))",
                "DELETE FROM t WHERE x IN (SELECT x FROM u UNION SELECT y FROM u)",
                "DELETE FROM t WHERE x IN (SELECT x FROM u JOIN shown USING (y))",
                "DELETE FROM t WHERE x IN (SELECT s.x FROM (SELECT x FROM u) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT y FROM u) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT id AS z FROM t t2) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT x AS z FROM t t2) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM (TABLE u) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM u AS u (a, b, c))",
                "DELETE FROM t WHERE x IN (SELECT s.x FROM shown, (SELECT x FROM u) s)",
                "DELETE FROM t WHERE x IN (SELECT s.x FROM LATERAL (SELECT x FROM u) s, (SELECT 1 AS x) r)",
                "DELETE FROM t WHERE x IN (WITH w AS (SELECT y FROM u) SELECT x FROM w)",
                "DELETE FROM t WHERE x IN (WITH w AS (SELECT x FROM u) SELECT w.x FROM w)",
                "WITH w AS (SELECT y FROM u) DELETE FROM t WHERE x IN (SELECT x FROM w)",
                "DELETE FROM t WHERE x IN (SELECT x FROM generate_subscripts(ARRAY[1], 1) AS g (i))",
                "DELETE FROM t WHERE ctid IN (SELECT ctid FROM shown)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.x = x)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE x = t.x)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE EXISTS (SELECT 1 FROM shown WHERE x = t.x))",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t t2 WHERE id = t.id)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t t2 WHERE EXISTS (SELECT 1 FROM u WHERE t2.id = t.id))",
                "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE x <> t.x)",
                "UPDATE t SET note = '' FROM u WHERE u.y = 1",
                "UPDATE t SET note = '' FROM u WHERE y = 1",
                "DELETE FROM public.t WHERE x IN (SELECT x FROM public.u)",
                "DELETE FROM t WHERE id IN (SELECT id FROM all_t)",
                "DELETE FROM t WHERE id IN (SELECT cid FROM more_t)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM more_t m WHERE m.cid = t.id)",
                "DELETE FROM t USING more_t WHERE t.id = more_t.cid",
                "DELETE FROM all_t WHERE id IN (SELECT id FROM t)",
                "DELETE FROM all_t WHERE id IN (SELECT cid FROM more_t)",
                "DELETE FROM t_1 WHERE id IN (SELECT id FROM t)",
                "DELETE FROM t WHERE id IN (SELECT * FROM ids())",
                "DELETE FROM t WHERE id IN (SELECT ids())",
                "DELETE FROM t WHERE id IN (SELECT unnest(ARRAY(SELECT id FROM t)))",
                "DELETE FROM t WHERE id IN (SELECT unnest(ARRAY(SELECT id FROM t)) FROM u)",
                "DELETE FROM t WHERE id = ANY (ARRAY(SELECT ids()))",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest(ARRAY[x]) z WHERE z = t.x)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest(ARRAY[x]) z WHERE t.x = z)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u, unnest(ARRAY[x]) AS z (k) WHERE t.x = k)",
                "DELETE FROM t WHERE x IN (SELECT z FROM u, unnest(ARRAY[x]) z)",
                "DELETE FROM t WHERE x IN (SELECT k FROM u, LATERAL (SELECT x AS k) l)",
                "DELETE FROM t USING generate_series(0, 100000) g WHERE x = g",
                // Nobody knows these tables.
                "DELETE FROM t WHERE x IN (SELECT x FROM elsewhere)",
                "DELETE FROM t WHERE x IN (SELECT x FROM jsonb_to_record('{}'))",
            ],
            StatementClass::MassWrite,
        );
    }

    #[test]
    fn a_column_of_the_subquerys_own_tables_picks() {
        classes(
            &["public"],
            &[
                "DELETE FROM t WHERE id IN (SELECT id FROM u)",
                "DELETE FROM t WHERE id IN (SELECT t_id FROM u)",
                "DELETE FROM t WHERE x IN (SELECT * FROM others())",
                "DELETE FROM t WHERE id IN (SELECT id FROM all_t WHERE x = 5)",
                "DELETE FROM t WHERE x IN (SELECT y FROM shown)",
                "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT y AS x FROM u) s)",
                "DELETE FROM t WHERE x IN (SELECT x FROM u AS u (x))",
                "DELETE FROM t WHERE x IN (SELECT x FROM unnest(ARRAY[1, 2]) AS x (x))",
                "DELETE FROM t WHERE x IN (SELECT x FROM jsonb_to_recordset('[]') AS r (x int))",
                "DELETE FROM t WHERE x IN (SELECT value::int FROM jsonb_array_elements_text('[]'))",
                "DELETE FROM t WHERE id IN (SELECT (data->>'id')::int FROM elsewhere)",
                "DELETE FROM t WHERE x IN (WITH w AS (SELECT y AS x FROM u) SELECT x FROM w)",
                "WITH w (x) AS (VALUES (1)) DELETE FROM t WHERE x IN (SELECT x FROM w)",
                "DELETE FROM t WHERE x IN (SELECT column1 FROM (VALUES (1)) v)",
                "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 1 LIMIT 10)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t_id = x)",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t_id = t.id)",
                "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE t_id = t.id)",
                "UPDATE t SET note = '' FROM u WHERE x = 1",
                "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest($1::int[]) z WHERE z = t.x)",
                "DELETE FROM t USING unnest($1::int[]) k WHERE x = k",
                "UPDATE t SET note = '' FROM u WHERE x = y",
                "UPDATE t SET note = '' FROM u WHERE t_id = t.id AND y = 1",
                "DELETE FROM t USING u WHERE x = 5 AND y = 3",
            ],
            StatementClass::Write,
        );
    }

    #[test]
    fn constraints_say_what_is_in_each_row() {
        classes(
            &["public"],
            &[
                "DELETE FROM t WHERE a IS NOT NULL",
                "DELETE FROM t WHERE NOT (a IS NULL)",
                "DELETE FROM t WHERE a IS NOT UNKNOWN",
                "DELETE FROM t AS k WHERE k.a IS NOT NULL",
                "DELETE FROM t WHERE x <> 5",
                "DELETE FROM t WHERE x NOT IN (5, 6)",
                "DELETE FROM t WHERE x > 0",
                "DELETE FROM t WHERE NOT x = 5",
            ],
            StatementClass::MassWrite,
        );
        classes(
            &["public"],
            &[
                "DELETE FROM t WHERE note IS NOT NULL",
                "DELETE FROM t WHERE NOT (note IS NULL)",
                "DELETE FROM t WHERE note IS NULL",
                "DELETE FROM t WHERE a <> 5",
                "DELETE FROM t WHERE x > 5",
                "DELETE FROM t WHERE x = 5",
            ],
            StatementClass::Write,
        );
    }

    /// The path says which table is meant, and a temporary one may be in front of it.
    #[test]
    fn a_name_means_what_the_path_says() {
        let by_path = ["DELETE FROM t WHERE x IN (SELECT x FROM u)"];
        classes(&["app", "public"], &by_path, StatementClass::Write);
        classes(&["public", "app"], &by_path, StatementClass::MassWrite);

        let same = ["DELETE FROM t WHERE id IN (SELECT id FROM u)"];
        classes(&["public"], &same, StatementClass::Write);
        classes(&["pg_temp", "public"], &same, StatementClass::MassWrite);
        classes(
            &["public"],
            &["CREATE TEMP TABLE u (y int); DELETE FROM t WHERE id IN (SELECT id FROM u)"],
            StatementClass::MassWrite,
        );
        classes(
            &["pg_temp", "public"],
            &[
                "DELETE FROM t WHERE id = 5",
                "DELETE FROM public.t WHERE id IN (SELECT id FROM public.u)",
                "DELETE FROM public.t WHERE id IN (SELECT t_id FROM u)",
            ],
            StatementClass::Write,
        );
    }
}

mod sensitive_tables {
    use super::*;

    fn catalogue() -> Catalogue {
        let row = |text: &str| -> catalogue::Row {
            text.split('|').map(|c| (c != "-").then(|| c.to_owned())).collect()
        };
        let relations = [
            r#"public|users|r|["id","name","email","tax_id","a"]|none|[]|[]"#,
            r#"public|orders|r|["id","user_id","amount","c"]|none|[]|[]"#,
            r#"public|names|v|["name"]|none|[]|[]"#,
            r#"public|active|v|["name","email"]|none|[]|[]"#,
            r#"public|busy|v|["name","email"]|none|[]|[]"#,
            r#"pii|people|p|["id","name","age","kind"]|none|[]|[]"#,
        ];
        let views = [
            "public|names|public|users|name|shows",
            "public|active|public|users|name|shows",
            "public|active|public|users|email|shows",
            "public|busy|public|active|-|shows",
            "public|people_eu|pii|people|-|is part of",
            "pii|people|public|people_eu|-|has",
            "public|everybody|pii|people|-|has",
            "pii|people|public|everybody|-|is part of",
        ];
        let answers = [vec![], vec![], vec![], vec![], relations.map(row).to_vec(), views.map(row).to_vec()];
        let sensitive = ["pii.*", "public.users.email", "public.users.tax_*"];
        let sensitive = sensitive.map(|name| SensitiveName::parse(name).unwrap()).to_vec();
        catalogue::from_rows(15, &answers, &Arc::new(Declared::new(Vec::new(), sensitive))).unwrap()
    }

    fn classify_with(catalogue: &Catalogue, sql: &str) -> Arc<Classification> {
        let path = SearchPath::Known(vec!["public".into()]);
        let context = Context {
            server_version: 15,
            catalogue,
            search_path: &path,
            database: "app",
            role: "bot",
            strings_standard: true,
        };
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

    /// As Postgres 17 has it.
    #[test]
    fn what_a_merge_returns_of_a_sensitive_table_is_an_export() {
        let sql = "MERGE INTO pii.people p USING orders o ON p.id = o.user_id WHEN MATCHED THEN UPDATE SET age = 7 RETURNING p.name";
        let found = classify_with(&catalogue(), sql);
        assert!(
            found.reasons.iter().any(|reason| reason.class == StatementClass::Export),
            "{:?}",
            found.reasons
        );
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
            assert!(
                reasons.iter().any(|reason| reason.class == StatementClass::Export),
                "{sql}: {reasons:?}"
            );
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
            &["SELECT email FROM users WHERE id = 1", "SELECT * FROM active WHERE id = 1"],
            StatementClass::Read,
        );
    }

    #[test]
    fn another_number_in_the_limit_is_another_answer() {
        let catalogue = catalogue();
        let path = SearchPath::Known(vec!["public".into()]);
        let context = Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &path,
            database: "app",
            role: "bot",
            strings_standard: true,
        };
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
}

/// `fixtures/benign/README.md` says how these were recorded.
#[test]
fn what_tools_send_is_not_held_but_for_a_few_that_are_explained() {
    #[derive(serde::Deserialize)]
    struct Recorded {
        tool: String,
        sql: String,
        class: StatementClass,
        held: Option<String>,
    }
    let file = include_str!("../../fixtures/benign/recorded.jsonl");
    let all: Vec<Recorded> = file.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let texts: std::collections::HashSet<&str> = all.iter().map(|one| one.sql.as_str()).collect();
    let held = all.iter().filter(|one| one.held.is_some()).count();
    let mut mistakes = Vec::new();

    for Recorded { tool, sql, class, held } in &all {
        let found = classify_on(15, sql);
        if found.class != *class || found.class.is_privileged() != held.is_some() {
            mistakes.push(format!("{tool}: {sql} is {}: {:?}", found.class, found.reasons));
        }
    }

    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(
        texts.len() >= 2_000 && texts.len() == all.len(),
        "{} of {} are distinct",
        texts.len(),
        all.len()
    );
    assert!(held * 100 < all.len(), "{held} of {} are held", all.len());
}
