//! The corpora under `fixtures/statements/`, and what must hold for any text at all.

mod catalogue_and_path;
mod columns;
mod declared_names;
mod foreign_keys;
mod repeated_calls;
mod sensitive_tables;

use std::sync::Arc;

use super::*;
use crate::statement::SqlText;

/// A session of `bot`'s.
fn context<'a>(catalogue: &'a Catalogue, search_path: &'a SearchPath) -> Context<'a> {
    Context {
        server_version: catalogue.server_version(),
        catalogue,
        search_path,
        database: "app",
        role: "bot",
        strings_standard: true,
    }
}

/// Classifies with the built-in catalogue of Postgres 15, as `countersign classify` does.
fn classify(sql: &str) -> Arc<Classification> {
    classify_on(15, sql)
}

fn classify_on(version: u32, sql: &str) -> Arc<Classification> {
    let catalogue = Catalogue::built_in(version);
    Classifier::new(Limits::default())
        .classify(&SqlText::from(sql), &context(&catalogue, &SearchPath::Unknown))
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
    let lines = lines(include_str!("../../../fixtures/statements/corpus.jsonl"));
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
    for line in include_str!("../../../fixtures/statements/corpus.jsonl").lines() {
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

/// WITH queries that name each other ten times each took two minutes in a text of 1 MiB.
#[test]
fn what_conditions_cost_is_bounded_for_a_whole_text() {
    let names = |level: usize| vec![format!("w{level}"); 10].join(", ");
    let levels: String = (1..6).map(|level| format!(", w{level} AS (TABLE {})", names(level - 1))).collect();
    let levels = levels.replace("TABLE", "SELECT * FROM");
    let one = format!(
        "WITH w0 AS (SELECT * FROM customers){levels} DELETE FROM coupons WHERE EXISTS (SELECT 1 FROM w5 w WHERE w.name = coupons.code)"
    );
    assert_eq!(classify(&one.replace("w5 w", "w1 w")).class, StatementClass::Write);

    let joined = one.replace(
        "WHERE EXISTS (SELECT 1 FROM w5 w WHERE w.name = coupons.code)",
        "USING w5 WHERE code = 'x'",
    );
    assert_eq!(classify(&vec![joined; 200].join(";")).class, StatementClass::MassWrite);
    // Twenty-seven seconds of half as much.
    let nested: String =
        (0..800).map(|n| format!("NOT EXISTS (SELECT 1 FROM u{n} WHERE u{n}.x{n} = t.y{n} AND ")).collect();
    let inside: Vec<String> = (0..10_000).map(|n| format!("a{n} = b{n}")).collect();
    let deep = format!("DELETE FROM t WHERE {nested}{}{}", inside.join(" AND "), ")".repeat(800));
    assert_eq!(classify(&deep).class, StatementClass::MassWrite);
    let found = classify(&vec![one; 200].join(";"));

    assert_eq!(found.class, StatementClass::MassWrite);
    // Many that are simple are not held for being many.
    let plain = "DELETE FROM coupons WHERE code IN (SELECT name FROM customers WHERE id = 5)";
    assert_eq!(classify(&vec![plain; 5_000].join(";")).class, StatementClass::Write);
}

#[test]
fn what_is_too_large_or_too_deep_is_held_with_a_reason() {
    let cases = [
        (format!("SELECT {}1", "1+".repeat(34_000)), "beyond the parser's limits: stack depth"),
        (format!("SELECT {}1{}", "/*".repeat(65), "*/".repeat(65)), "nests comments"),
        (format!("SELECT 1 {} 1", "+".repeat(2_000)), "operator characters too long"),
        // Found by trying: 1 MiB of it took more than five minutes.
        (
            format!("SELECT 1 {}", ["/*".repeat(60), "*/".repeat(60)].concat().repeat(4_000)),
            "operator characters too long",
        ),
        (format!("SELECT '{}'", "x".repeat(1 << 20)), "longer than 1 MiB even without"),
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
    assert_eq!(classify(&call).class, StatementClass::Code, "the call is found among the literals");
    let calls = format!("INSERT INTO t VALUES {} (f())", "(f()),".repeat(300_000));
    assert_eq!(classify(&calls).class, StatementClass::Admin, "too long to be read");
    let system = format!("INSERT INTO pg_proc VALUES {rows} (1, 2, 3, 4, 5, 6)");
    assert_eq!(classify(&system).class, StatementClass::Admin);
}

/// The same statement with few rows and with many, by the ordinary way and by the one for long texts.
#[test]
fn a_long_statement_is_what_a_short_one_is() {
    let vector = vec!["0.123456789"; 1536].join(",");
    let forms: [(&str, &str, StatementClass); 22] = [
        ("INSERT INTO t VALUES ", "(7, ARRAY[VECTOR])", StatementClass::Write),
        ("INSERT INTO t VALUES ", "(7, '[VECTOR]'::text)", StatementClass::Write),
        ("INSERT INTO t (a) VALUES ", "('7'::int)", StatementClass::Write),
        (
            "INSERT INTO t VALUES ",
            "(-7, CAST('7' AS numeric(10, 2)), DATE '2026-01-01')",
            StatementClass::Write,
        ),
        (
            "INSERT INTO t VALUES ",
            "(TIMESTAMP WITH TIME ZONE 'now', INTERVAL '1 day', ROW(7, 'a'))",
            StatementClass::Write,
        ),
        ("INSERT INTO t VALUES ", "($1, $2, DEFAULT, NULL, true)", StatementClass::Write),
        ("INSERT INTO t VALUES ", "(7, 'customers'::pg_temp.evil)", StatementClass::Write),
        ("INSERT INTO pg_proc VALUES ", "(7, 'a')", StatementClass::Admin),
        ("INSERT INTO cron.job VALUES ", "(7, 'a')", StatementClass::Code),
        (
            "INSERT INTO t VALUES ",
            "(7, 'a') ON CONFLICT (a) DO UPDATE SET b = excluded.b",
            StatementClass::Write,
        ),
        ("INSERT INTO t VALUES ", "(7, 'a') RETURNING evil(a)", StatementClass::Code),
        ("INSERT INTO t VALUES ", "(7, 'a') RETURNING lo_unlink(a)", StatementClass::MassWrite),
        ("INSERT INTO t VALUES ", "(7, 'a'); DROP TABLE t", StatementClass::Ddl),
        ("UPDATE t SET b = v.b FROM (VALUES ", "(7, 'a')) v (a, b) WHERE t.a = v.a", StatementClass::Write),
        ("UPDATE t SET b = v.b FROM (VALUES ", "(7, 'a')) v (a, b)", StatementClass::MassWrite),
        ("SELECT * FROM t WHERE a IN (", "7)", StatementClass::Read),
        ("DELETE FROM t WHERE a IN (", "7)", StatementClass::Write),
        ("DELETE FROM t WHERE a NOT IN (", "7)", StatementClass::Write),
        ("DELETE FROM t WHERE (a, b) IN (", "(7, 'a'))", StatementClass::Write),
        ("DELETE FROM t WHERE a IN (1, 0, ", "7)", StatementClass::MassWrite),
        ("DELETE FROM t WHERE a = ANY (ARRAY[", "7])", StatementClass::Write),
        ("WITH x AS (DELETE FROM t) INSERT INTO t VALUES ", "(7, 'a')", StatementClass::MassWrite),
    ];
    for (before, last, class) in forms {
        let last = last.replace("VECTOR", &vector);
        // All but the last one end where that has its own list's end.
        let one = match last.find([')', ']']) {
            Some(end) if !last.starts_with('(') => last[..end].to_owned(),
            _ => {
                let mut depth = 0;
                let end = last.find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0
                });
                last[..=end.unwrap()].to_owned()
            }
        };
        let short = classify(&format!("{before}{one}, {last}"));
        assert_eq!(short.class, class, "{before}{last:.60}: {:?}", short.reasons);
        let long = format!("{before}{}{last}", format!("{one}, ").repeat((1200 << 10) / (one.len() + 2) + 1));
        let long = classify(&long);
        assert_eq!(long.class, class, "long: {before}{last:.60}: {:?}", long.reasons);
        assert_eq!(long.effects, short.effects, "{before}{last:.60}");
        assert_eq!(long.parts.len(), short.parts.len());
    }
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
    let class = |sql: &str| classifier.classify(&SqlText::from(sql), &odd).class;
    assert!(class(r"select 'it\'s', version()").is_privileged());
    for sql in ["select 'it''s'", "set standard_conforming_strings = on", "show standard_conforming_strings"]
    {
        assert!(!class(sql).is_privileged(), "{sql} is read alike either way");
    }
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
    fn what_a_parse_prepared_does_to_the_session_its_execute_does() {
        let does = |sql: &str, prepared: &str| {
            let resolved = resolved(sql, &[("p", prepared)]);
            let effects = resolved.session_effects();
            effects.filter(|effect| !matches!(effect, SessionEffect::Execute(_))).cloned().collect::<Vec<_>>()
        };
        let path = SessionEffect::Set { name: "search_path".into(), value: Some("s2".into()), local: false };

        assert_eq!(does("EXECUTE p", "SET search_path = s2"), [path]);
        assert_eq!(
            does("EXPLAIN ANALYZE EXECUTE p", "SELECT set_config('search_path', 's2', false)"),
            [SessionEffect::MayChangeSettings]
        );
        let made = does("EXECUTE p", "CREATE TEMP TABLE u (a int)");
        assert!(made.contains(&SessionEffect::TemporaryRelation), "{made:?}");
        assert_eq!(does("EXECUTE p", "DEALLOCATE x"), [SessionEffect::Deallocate("x".into())]);
        assert_eq!(does("EXECUTE p", "PREPARE x AS SELECT 1"), [SessionEffect::Prepare("x".into())]);
        assert_eq!(does("EXECUTE p", "PREPARE p AS SELECT 1"), []);
        assert_eq!(
            does("CREATE TEMP TABLE u AS EXECUTE p", "PREPARE p AS SELECT 1"),
            [SessionEffect::TemporaryRelation]
        );
        let settings = "PREPARE p AS SELECT set_config('search_path', $1, false)";
        assert!(does("EXECUTE p('s2')", settings).contains(&SessionEffect::PathUnknown));
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
        Some("alter role a pasword '<redacted>' password '<redacted>'")
    );
}

mod properties {
    use proptest::prelude::*;

    use super::super::lex::{TokenKind, lex};
    use super::*;

    fn privileged() -> Vec<String> {
        lines(include_str!("../../../fixtures/statements/corpus.jsonl"))
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
    let file = include_str!("../../../fixtures/benign/recorded.jsonl");
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

/// Each execution used to copy what all before it do to the session.
#[test]
#[expect(clippy::disallowed_methods, reason = "what it takes is what is tested")]
fn executing_a_name_many_times_costs_in_proportion() {
    let meaning = classify("select set_config('app.a', 'b', false)");
    let began = std::time::Instant::now();
    for text in ["execute p;", "explain execute p;", "create temp table t as execute p;"] {
        let all = classify(&text.repeat(20_000));
        let resolved = resolve_names(&all, &|_| Some(Arc::clone(&meaning)));
        assert_eq!(resolved.steps.len(), 20_000);
        let last = resolved.steps.last().unwrap();
        assert!(last.effects.iter().any(|effect| matches!(effect, SessionEffect::Set { .. })), "{last:?}");
        assert!(resolved.reasons.len() < 100);
    }
    // Squared it would be an hour.
    assert!(began.elapsed().as_secs() < 120, "{:?}", began.elapsed());
}

/// Of two statements that do the same, the reason names the first only.
#[test]
fn what_an_execute_does_beside_its_name_counts_each_time() {
    let meaning = classify("select $1::text");
    let all = classify("execute p(evil()); set search_path = public; execute p(evil())");
    let resolved = resolve_names(&all, &|_| Some(Arc::clone(&meaning)));
    for step in [&resolved.steps[0], &resolved.steps[2]] {
        assert!(step.effects.contains(&SessionEffect::PathUnknown), "{step:?}");
    }
    assert_eq!(resolved.parts[2].class, StatementClass::Code);
}
