//! How rules decide, through the file format and with the real classifier.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::classify::{Catalogue, Classifier, Context, Limits};
use crate::statement::SqlText;

fn load(text: &str) -> Policy {
    match Policy::load(&[("p.toml".to_owned(), text.to_owned())], Defaults::default()) {
        Ok(policy) => policy,
        Err(problems) => {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn errors(text: &str) -> Vec<String> {
    let result = Policy::load(&[("p.toml".to_owned(), text.to_owned())], Defaults::default());
    result.expect_err("it is wrong").iter().map(ToString::to_string).collect()
}

/// What is asked about a statement, besides its text.
struct Asked<'a> {
    agent: &'a str,
    path: SearchPath,
    in_transaction: bool,
    defer: bool,
    now: &'a str,
    declared: Arc<Declared>,
}

fn asked() -> Asked<'static> {
    Asked {
        agent: "bot",
        path: SearchPath::Known(vec!["public".into()]),
        in_transaction: false,
        defer: false,
        now: "2026-01-07T12:00:00Z",
        declared: Arc::default(),
    }
}

fn classified(sql: &str, path: &SearchPath, declared: &Arc<Declared>) -> Arc<Classification> {
    Classifier::new(Limits::default()).classify(
        &SqlText::from(sql),
        &Context {
            server_version: 15,
            catalogue: &Catalogue::built_in_with(15, declared),
            search_path: path,
            database: "app",
            role: "bot",
            strings_standard: true,
        },
    )
}

fn decide_as(policy: &Policy, sql: &str, asked: &Asked<'_>) -> Decision {
    decide_classified(policy, &classified(sql, &asked.path, &asked.declared), asked)
}

fn decide_classified(policy: &Policy, classification: &Classification, asked: &Asked<'_>) -> Decision {
    let agent = Agent { name: asked.agent.into(), owners: Vec::new(), upstreams: Vec::new() };
    let target = Target { upstream: "app".into(), database: "app".into(), role: "bot".into() };
    let now: Timestamp = asked.now.parse().unwrap();
    policy.decide(&Subject {
        agent: &agent,
        target: &target,
        classification,
        search_path: &asked.path,
        in_transaction: asked.in_transaction,
        claimed_defer: asked.defer,
        now,
    })
}

fn decide(policy: &Policy, sql: &str) -> Decision {
    decide_as(policy, sql, &asked())
}

/// `allow`, `hold dba`, `deny`: the decision in short, with the rules that made it.
fn short(decision: &Decision) -> String {
    let rules: Vec<&str> = decision.rules().into_iter().map(RuleName::as_str).collect();
    let groups = match decision {
        Decision::Hold(terms) => {
            terms.approvals.iter().map(|asked| format!(" {}:{}", asked.group, asked.count)).collect()
        }
        Decision::Allow(_) | Decision::Deny(_) | Decision::Invalid(_) => String::new(),
    };
    format!("{}{groups} [{}]", decision.then().as_str(), rules.join(" "))
}

fn terms(policy: &Policy, sql: &str) -> Terms {
    match decide(policy, sql) {
        Decision::Hold(terms) => terms,
        other @ (Decision::Allow(_) | Decision::Deny(_) | Decision::Invalid(_)) => panic!("{other:?}"),
    }
}

const EXPORT: &str = "COPY public.customers TO STDOUT";

// ---- what holds where nothing is said ---------------------------------------------------------

#[test]
fn p3_without_rules_every_privileged_class_is_held_for_the_default_reviewers() {
    let nothing = load("");

    assert_eq!(short(&decide(&nothing, "SELECT 1")), "allow []");
    assert_eq!(short(&decide(&nothing, "INSERT INTO t VALUES (1)")), "allow []");
    for sql in [
        EXPORT,
        "DROP TABLE t",
        "DO $$ $$",
        "SET ROLE x",
        "SELECT pg_read_file('x')",
        "SELECT unknown_function()",
    ] {
        assert_eq!(short(&decide(&nothing, sql)), "hold dba:1 []", "{sql}");
    }
    let terms = terms(&nothing, EXPORT);
    assert_eq!((terms.expires, terms.assurance), (Duration::from_secs(900), Assurance::Click));
}

#[test]
fn p3_what_only_the_server_can_parse_is_held_unless_a_rule_allows_whatever_is_unknown() {
    let asked = asked();
    let unreadable =
        classified("CREATE TABLE system_user (a int)", &asked.path, &asked.declared).of_unreadable();
    let decided = |policy: &str| short(&decide_classified(&load(policy), &unreadable, &asked));
    let rule =
        |when: &str, then: &str| format!("[[rule]]\nname = 'a'\nwhen = {{ {when} }}\nthen = '{then}'\n");

    assert_eq!(decided(""), "hold dba:1 []");
    assert_eq!(decided(&rule("table = ['pii.*']", "hold")), "hold dba:1 [a]", "it may be anything");
    assert_eq!(decided(&rule("class = ['ddl', 'invalid']", "hold")), "hold dba:1 []", "nobody knows");
    assert_eq!(decided(&rule("class = ['ddl']", "allow")), "hold dba:1 []");
    assert_eq!(decided(&rule("class = ['admin']", "allow")), "allow [a]");
}

#[test]
fn p3_what_the_grammar_rejects_is_refused_as_such_unless_a_rule_holds_it() {
    let table_rule = "[[rule]]\nname = 'a'\nwhen = { table = ['pii.*'] }\nthen = 'hold'\n";
    let held = "[[rule]]\nname = 'b'\nwhen = { class = ['invalid'] }\nthen = 'hold'\n";

    let Decision::Invalid(refused) = decide(&load(table_rule), "DELETE FORM t") else {
        panic!("not refused")
    };
    assert!(refused.error.message.contains("FORM"), "{}", refused.error.message);
    assert_eq!(short(&decide(&load(held), "DELETE FORM t")), "hold dba:1 [b]");
}

#[test]
fn what_is_no_sql_can_never_be_allowed() {
    assert_eq!(
        errors("[[rule]]\nname = 'x'\nwhen = { class = ['invalid'] }\nthen = 'allow'\n"),
        [
            "p.toml:3: rule[0].when: a text that is no SQL cannot be allowed: nobody knows what upstream would make of it"
        ]
    );
}

// ---- how rules add up -------------------------------------------------------------------------

const ADDING_UP: &str = r#"
[[rule]]
name = "z-allow"
when = { class = ["export"] }
then = "allow"

[[rule]]
name = "b-hold"
when = { class = ["export"], table = ["public.*"] }
then = "hold"
approvals = [{ group = "dba", count = 2 }, { group = "legal" }]
expires = "10m"
assurance = "login"

[[rule]]
name = "a-hold"
when = { class = ["export"], table = ["*.customers"] }
then = "hold"
approvals = [{ group = "security" }, { group = "dba" }]
expires = "5m"
reason = "required"
hold_in_transaction = "refuse"

[[rule]]
name = "m-deny"
when = { class = ["export"], agent = ["evil-*"] }
then = "deny"
message = "no"
"#;

#[test]
fn holds_add_up_to_every_group_and_the_strictest_terms() {
    let terms = terms(&load(ADDING_UP), EXPORT);

    assert_eq!(terms.rules, ["a-hold".into(), "b-hold".into()]);
    let asked: Vec<(&str, u32)> = terms.approvals.iter().map(|a| (a.group.as_str(), a.count)).collect();
    assert_eq!(asked, [("dba", 2), ("legal", 1), ("security", 1)]);
    assert_eq!(terms.expires, Duration::from_secs(300));
    assert_eq!(terms.assurance, Assurance::Login);
    assert!(terms.reason_required);
    assert_eq!(terms.in_transaction, InTransaction::Refuse);
}

#[test]
fn deny_beats_hold_beats_allow() {
    let policy = load(ADDING_UP);

    let evil = Asked { agent: "evil-bot", ..asked() };
    assert_eq!(short(&decide_as(&policy, EXPORT, &evil)), "deny [m-deny]");
    assert_eq!(short(&decide(&policy, "COPY sales.orders TO STDOUT")), "allow [z-allow]");
}

#[test]
fn the_order_of_rules_and_files_never_matters() {
    let rules: Vec<String> =
        ADDING_UP.split("[[rule]]").skip(1).map(|rule| format!("[[rule]]{rule}")).collect();
    let first = load(ADDING_UP);
    for turn in 0..rules.len() {
        let files: Vec<(String, String)> = (0..rules.len())
            .map(|n| (format!("{n}.toml"), rules[(n + turn) % rules.len()].clone()))
            .collect();
        let other = Policy::load(&files, Defaults::default()).unwrap();
        assert_eq!(other.digest(), first.digest());
        assert_eq!(decide(&other, EXPORT), decide(&first, EXPORT));
    }
}

#[test]
fn a_rule_that_holds_without_naming_anybody_asks_the_default_reviewers() {
    let policy = load("[[rule]]\nname = 'x'\nwhen = { class = ['read'] }\nthen = 'hold'\n");

    assert_eq!(short(&decide(&policy, "SELECT 1")), "hold dba:1 [x]");
}

#[test]
fn an_escalation_of_one_rule_never_weakens_another() {
    let both = |second: &str| {
        load(&format!(
            "[[rule]]\nname = 'a'\nwhen = {{ class = ['export'] }}\nthen = 'hold'\n\
             approvals = [{{ group = 'dba' }}, {{ group = 'legal' }}]\nescalate = [{{ after = '5m', to = 'oncall' }}]\n\
             [[rule]]\nname = 'b'\nwhen = {{ class = ['export'] }}\nthen = 'hold'\n\
             approvals = [{{ group = 'dba' }}]\n{second}"
        ))
    };
    let steps = |policy: &Policy| -> Vec<String> {
        terms(policy, EXPORT)
            .escalate
            .iter()
            .map(|step| format!("{}s {} for {:?}", step.after.as_secs(), step.to, step.stands_in_for))
            .collect()
    };

    // b insists on dba: oncall may stand in for legal alone.
    assert_eq!(steps(&both("")), ["300s oncall for [\"legal\"]"]);
    assert_eq!(
        steps(&both("escalate = [{ after = '7m', to = 'oncall' }]")),
        ["300s oncall for [\"legal\"]", "420s oncall for [\"dba\"]"]
    );
}

#[test]
fn a_rule_may_defer_and_may_forbid_it() {
    let rule = |defer: &str| {
        load(&format!("[[rule]]\nname = 'x'\nwhen = {{ class = ['export'] }}\nthen = 'hold'\n{defer}"))
    };
    let defers =
        |policy: &Policy, claimed| match decide_as(policy, EXPORT, &Asked { defer: claimed, ..asked() }) {
            Decision::Hold(terms) => terms.defer,
            other @ (Decision::Allow(_) | Decision::Deny(_) | Decision::Invalid(_)) => panic!("{other:?}"),
        };

    assert_eq!((defers(&rule(""), false), defers(&rule(""), true)), (false, true));
    assert_eq!((defers(&rule("defer = true"), false), defers(&rule("defer = true"), true)), (true, true));
    assert_eq!((defers(&rule("defer = false"), false), defers(&rule("defer = false"), true)), (false, false));
}

// ---- what an allow does not allow -------------------------------------------------------------

fn allow(when: &str) -> Policy {
    load(&format!("[[rule]]\nname = 'let'\nwhen = {{ {when} }}\nthen = 'allow'\n"))
}

#[test]
fn an_allow_for_a_privileged_class_must_name_it() {
    assert_eq!(short(&decide(&allow("agent = ['bot']"), EXPORT)), "hold dba:1 []");
    assert_eq!(short(&decide(&allow("class = ['read']"), EXPORT)), "hold dba:1 []");
    assert_eq!(short(&decide(&allow("class = ['export']"), EXPORT)), "allow [let]");
}

#[test]
fn an_allow_for_one_class_does_not_carry_another_in_the_same_message() {
    let policy = allow("class = ['export']");

    for sql in [
        "COPY t TO STDOUT; DROP TABLE t",
        "DROP TABLE t; COPY t TO STDOUT",
        "COPY t TO STDOUT; DO $$ $$",
        "COPY (SELECT pg_read_file('/etc/passwd')) TO STDOUT",
        "COPY (SELECT unknown_function()) TO STDOUT",
        "COPY t TO PROGRAM 'sh'",
    ] {
        assert_eq!(short(&decide(&policy, sql)), "hold dba:1 []", "{sql}");
    }
    // Server access outranks an export; naming the greater does not allow the lesser.
    let files = allow("class = ['server_io']");
    assert_eq!(short(&decide(&files, "SELECT pg_read_file('x'); COPY t TO STDOUT")), "hold dba:1 []");
}

#[test]
fn many_reasons_of_one_class_do_not_hide_another_class() {
    let policy = allow("class = ['server_io']");
    let reads: Vec<String> = (0..200).map(|n| format!("pg_read_file('{n}')")).collect();
    let sql = format!("SELECT {}, unknown_function()", reads.join(", "));

    assert_eq!(short(&decide(&policy, &sql)), "hold dba:1 []");
}

#[test]
fn an_allow_by_table_covers_every_table_or_none() {
    let policy = allow("class = ['export'], table = ['public.products', 'open.*']");

    for sql in
        ["COPY public.products TO STDOUT", "COPY (SELECT * FROM public.products, open.prices) TO STDOUT"]
    {
        assert_eq!(short(&decide(&policy, sql)), "allow [let]", "{sql}");
    }
    for sql in [
        "COPY (SELECT * FROM public.products, public.customers) TO STDOUT",
        "COPY (SELECT (SELECT max(email) FROM public.customers) FROM public.products) TO STDOUT",
        "COPY public.products TO STDOUT; COPY public.customers TO STDOUT",
        "COPY (SELECT 1) TO STDOUT",
    ] {
        assert_eq!(short(&decide(&policy, sql)), "hold dba:1 []", "{sql}");
    }
}

#[test]
fn an_allow_by_table_does_not_trust_a_name_that_a_temporary_table_can_take() {
    let policy = allow("class = ['export'], table = ['public.products']");

    // CREATE TEMP TABLE products AS SELECT * FROM customers; needs nobody's approval. Then:
    assert_eq!(short(&decide(&policy, "COPY products TO STDOUT")), "hold dba:1 []");
    assert_eq!(short(&decide(&policy, "COPY pg_temp.products TO STDOUT")), "hold dba:1 []");
}

#[test]
fn an_allow_by_table_for_what_cannot_be_seen_is_an_error() {
    let problems =
        errors("[[rule]]\nname = 'x'\nwhen = { class = ['ddl', 'code'], table = ['a.*'] }\nthen = 'allow'\n");

    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("p.toml:3: rule[0].when: which tables a statement of class \"code\""));
}

#[test]
fn an_allow_does_not_reach_into_another_schema_or_agent() {
    let schema = allow("class = ['ddl'], table = ['scratch.*']");
    assert_eq!(short(&decide(&schema, "DROP TABLE scratch.a, scratch.b")), "allow [let]");
    assert_eq!(short(&decide(&schema, "DROP TABLE scratch.a, public.b")), "hold dba:1 []");
    assert_eq!(short(&decide(&schema, "DROP SCHEMA public CASCADE")), "hold dba:1 []");
    assert_eq!(short(&decide(&schema, "DROP TABLE scratch.a; DROP TYPE t CASCADE")), "hold dba:1 []");

    let agent = allow("class = ['export'], agent = ['reporting-*']");
    assert_eq!(short(&decide_as(&agent, EXPORT, &Asked { agent: "reporting-1", ..asked() })), "allow [let]");
    assert_eq!(
        short(&decide_as(&agent, EXPORT, &Asked { agent: "Reporting-1", ..asked() })),
        "hold dba:1 []"
    );
}

// ---- what a deny or hold by table catches -----------------------------------------------------

fn by_table(then: &str) -> Policy {
    load(&format!("[[rule]]\nname = 'pii'\nwhen = {{ table = ['pii.*'] }}\nthen = '{then}'\n"))
}

#[test]
fn a_rule_by_table_catches_the_table_wherever_it_is_named() {
    let policy = by_table("deny");

    for sql in [
        "SELECT * FROM pii.people",
        "SELECT (SELECT max(name) FROM pii.people)",
        "WITH p AS (SELECT * FROM pii.people) SELECT 1",
        "INSERT INTO t SELECT * FROM pii.people",
        "COPY (SELECT * FROM \"pii\".\"people\") TO STDOUT",
        "UPDATE t SET a = 1 FROM pii.people WHERE t.id = people.id",
        "SELECT 1; SELECT 2; TABLE pii.people",
        "DROP SCHEMA pii CASCADE",
        "SELECT 'x' IN (TABLE pii.people)",
        "EXPLAIN ANALYZE SELECT * FROM pii.people",
        "PREPARE p AS SELECT * FROM pii.people",
    ] {
        assert_eq!(short(&decide(&policy, sql)), "deny [pii]", "{sql}");
    }
    assert_eq!(short(&decide(&policy, "SELECT * FROM public.people")), "allow []");
    assert_eq!(short(&decide(&policy, "SELECT 'pii.people'")), "allow []");
}

#[test]
fn an_unqualified_name_is_looked_up_where_the_session_looks() {
    let policy = by_table("deny");
    let path = |schemas: &[&str]| Asked {
        path: SearchPath::Known(schemas.iter().map(|schema| (*schema).into()).collect()),
        ..asked()
    };

    assert_eq!(short(&decide_as(&policy, "SELECT * FROM people", &path(&["public"]))), "allow []");
    assert_eq!(short(&decide_as(&policy, "SELECT * FROM people", &path(&["public", "pii"]))), "deny [pii]");
    let unknown = Asked { path: SearchPath::Unknown, ..asked() };
    assert_eq!(short(&decide_as(&policy, "SELECT * FROM people", &unknown)), "deny [pii]");
    assert_eq!(short(&decide_as(&policy, "SELECT * FROM public.people", &unknown)), "allow []");
}

#[test]
fn a_rule_by_table_that_cannot_be_evaluated_holds() {
    for sql in [
        "DO $$ BEGIN DELETE FROM pii.people; END $$",
        "SELECT unknown_function()",
        "DROP OWNED BY bob",
        "GRANT SELECT ON ALL TABLES IN SCHEMA pii TO public",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA pii GRANT SELECT ON TABLES TO public",
        "DROP TYPE t CASCADE",
        "ALTER TABLE public.t ADD a int; GRANT SELECT ON ALL TABLES IN SCHEMA pii TO public",
    ] {
        assert_eq!(short(&decide(&by_table("deny"), sql)), "hold dba:1 [pii]", "{sql}");
    }
    // Not even where another rule allows the class.
    let policy = load(
        "[[rule]]\nname = 'let'\nwhen = { class = ['code'] }\nthen = 'allow'\n\
         [[rule]]\nname = 'pii'\nwhen = { table = ['pii.*'] }\nthen = 'deny'\n",
    );
    assert_eq!(short(&decide(&policy, "DO $$ $$")), "hold dba:1 [pii]");
}

#[test]
fn hours_transactions_and_targets_are_conditions() {
    let policy = load(
        "[[rule]]\nname = 'night'\nwhen = { class = ['read'], hours = '22:00-06:00 UTC' }\nthen = 'deny'\n\
         [[rule]]\nname = 'block'\nwhen = { class = ['write'], in_transaction = true }\nthen = 'deny'\n\
         [[rule]]\nname = 'other'\nwhen = { upstream = ['billing'] }\nthen = 'deny'\n",
    );

    assert_eq!(short(&decide(&policy, "SELECT 1")), "allow []");
    assert_eq!(
        short(&decide_as(&policy, "SELECT 1", &Asked { now: "2026-01-07T23:00:00Z", ..asked() })),
        "deny [night]"
    );
    let insert = "INSERT INTO t VALUES (1)";
    assert_eq!(short(&decide(&policy, insert)), "allow []");
    assert_eq!(
        short(&decide_as(&policy, insert, &Asked { in_transaction: true, ..asked() })),
        "deny [block]"
    );
}

#[test]
fn functions_that_the_operator_declared_safe_are_read() {
    let policy = load("safe_functions = ['app.total', 'reports.*']\n");
    let safe = Asked { declared: policy.declared().clone(), ..asked() };

    assert_eq!(short(&decide_as(&policy, "SELECT app.total(7), reports.monthly()", &safe)), "allow []");
    assert_eq!(short(&decide_as(&policy, "SELECT app.other()", &safe)), "hold dba:1 []");
    let problems = errors("safe_functions = ['pg_catalog.pg_read_file', 'total', '*.x', 'app.f(int)']\n");
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn what_cannot_be_trusted_as_a_whole_is_a_mistake_in_the_file() {
    for (line, why) in [
        ("safe_functions = ['public.st_(']", "without arguments"),
        ("safe_functions = ['pg_*.x']", "built in"),
        ("safe_functions = ['st_*']", "not of the form"),
        ("safe_extensions = ['dblink']", "over the network"),
        ("safe_extensions = ['postgres_fdw']", "over the network"),
        ("safe_extensions = ['other_fdw']", "over the network"),
        ("safe_extensions = ['file_fdw']", "files"),
        ("safe_extensions = ['adminpack']", "files"),
        ("safe_extensions = ['plpython3u']", "code that its caller writes"),
        ("safe_extensions = ['plpgsql']", "code that its caller writes"),
        ("safe_extensions = ['tablefunc']", "SQL given as a string"),
        ("safe_extensions = ['*']", "patterns are not taken"),
        ("safe_settings = ['*']", "with a dot"),
        ("safe_settings = ['session_replication_role']", "with a dot"),
        ("safe_settings = ['search_*']", "with a dot"),
        ("safe_settings = ['.x']", "nothing before its dot"),
        ("safe_settings = []", "is empty"),
    ] {
        let problems = errors(line);
        assert!(problems.iter().any(|problem| problem.contains(why)), "{line}: {problems:#?}");
    }
    let policy = load(
        "safe_functions = ['public.st_*', 'public.\"My F\"']\nsafe_extensions = ['vector', 'uuid-ossp']\nsafe_settings = ['App.*', '*.tenant']",
    );
    let form = policy.normal_form();
    assert!(
        form.contains(r#""safe_extensions":["uuid-ossp","vector"],"safe_settings":["*.tenant","app.*"]"#),
        "{form}"
    );
    assert_ne!(policy.digest(), load("safe_functions = ['public.st_*']").digest());
}

#[test]
fn a_rule_by_setting_is_about_what_a_statement_sets() {
    let policy = load(
        r#"
[[rule]]
name = "tenants"
when = { class = ["settings"], setting = ["App.*", "work_*"] }
then = "allow"

[[rule]]
name = "no-jit"
when = { setting = "jit*" }
then = "deny"

[[rule]]
name = "readers"
when = { class = ["identity"], set_role = ["reader", "app_*"] }
then = "allow"
"#,
    );
    for (sql, expected) in [
        ("SET app.tenant = 1", "allow [tenants]"),
        ("SET LOCAL APP.tenant = 1; SET work_mem = '1MB'", "allow [tenants]"),
        ("SELECT set_config('app.x', $1, true)", "allow [tenants]"),
        ("SET other.x = 1", "hold dba:1 []"),
        ("SET app.tenant = 1; SET other.x = 1", "hold dba:1 []"),
        ("SET app.tenant = 1; SET session_replication_role = replica", "hold dba:1 []"),
        ("SELECT set_config(a, b, true), set_config('app.x', '1', true) FROM t", "hold dba:1 [no-jit]"),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'app.x'", "hold dba:1 [no-jit]"),
        ("SET jit_above_cost = 1", "deny [no-jit]"),
        ("SELECT set_config('jit', 'off', false)", "deny [no-jit]"),
        ("SET enable_seqscan = off", "allow []"),
        ("SET ROLE reader", "allow [readers]"),
        ("SET SESSION AUTHORIZATION app_reader", "allow [readers]"),
        ("SET LOCAL ROLE app_x", "allow [readers]"),
        ("SET ROLE admin", "hold dba:1 []"),
        ("SELECT set_config('role', 'reader', false)", "allow [readers]"),
        ("SELECT set_config('role', $1, false)", "hold dba:1 []"),
        ("SET ROLE reader; SELECT set_config('role', $1, false)", "hold dba:1 []"),
        ("SET ROLE reader; SET ROLE admin", "hold dba:1 []"),
    ] {
        assert_eq!(short(&decide(&policy, sql)), expected, "{sql}");
    }
    for key in ["setting = 'app.*'", "set_role = 'reader'"] {
        let text = format!("[[rule]]\nname = 'x'\nwhen = {{ class = ['code'], {key} }}\nthen = 'allow'\n");
        assert!(errors(&text)[0].contains("cannot be seen"), "{text}");
    }
}

#[test]
fn lint_says_that_role_is_the_login_and_set_role_the_one_that_is_taken() {
    let policy = load(
        "[[rule]]\nname = 'x'\nwhen = { class = ['identity'], role = ['reader'], agent = 'bot' }\nthen = 'hold'\n",
    );

    let found = policy.lint();
    assert!(found.iter().any(|problem| problem.message.contains("set_role")), "{found:?}");
}

/// A database in which things depend on tables whose names begin with `scratch`.
fn with_dependents(sql: &str) -> Arc<Classification> {
    let row = |text: &str| -> crate::classify::catalogue::Row {
        text.split('|').map(|column| (column != "-").then(|| column.to_owned())).collect()
    };
    let dependents = [
        "public|scratch|public|report|v|n",
        "public|scratch|public|child|r|n",
        "public|scratch_2|public|scratch_v|v|n",
        "public|scratch_v|public|late|v|n",
        "public|scratch_3|public|scratch_4|r|n",
        "public|scratch_5|-|-|-|n",
        "public|scratch_s|public|orders|r|n",
        "public|scratch_6|public|heir|r|i",
    ];
    let answers: Vec<Vec<crate::classify::catalogue::Row>> = crate::classify::catalogue::QUERIES
        .iter()
        .map(|query| if query.name == "dependents" { dependents.map(row).to_vec() } else { Vec::new() })
        .collect();
    let catalogue = crate::classify::catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
    let path = SearchPath::Known(vec!["public".into()]);
    Classifier::new(Limits::default()).classify(
        &SqlText::from(sql),
        &Context {
            server_version: 15,
            catalogue: &catalogue,
            search_path: &path,
            database: "app",
            role: "bot",
            strings_standard: true,
        },
    )
}

#[test]
fn an_allow_by_table_covers_what_goes_along_and_the_name_that_is_given() {
    let policy = load(
        r#"
[[rule]]
name = "scratch"
when = { class = ["ddl"], table = ["public.scratch", "public.scratch_*", "scratch.*"] }
then = "allow"

[[rule]]
name = "invoices"
when = { class = ["ddl"], table = ["public.invoices"] }
then = "deny"
"#,
    );
    let decision = |sql: &str| short(&decide_classified(&policy, &with_dependents(sql), &asked()));
    for sql in [
        "DROP TABLE public.scratch",
        "DROP TABLE public.scratch_3 CASCADE",
        "DROP TABLE public.scratch_9 CASCADE",
        "ALTER TABLE public.scratch DROP COLUMN v",
        "ALTER TABLE public.scratch_3 DROP COLUMN v CASCADE",
        "ALTER TABLE public.scratch_2 RENAME TO scratch_7",
        "ALTER TABLE public.scratch_2 RENAME COLUMN a TO b",
        "ALTER TABLE public.scratch_2 SET SCHEMA scratch",
        "ALTER SEQUENCE public.scratch_s OWNED BY public.scratch.id",
        "ALTER SEQUENCE public.scratch_s OWNED BY NONE",
        "ALTER TABLE ONLY public.scratch_6 ADD COLUMN x int",
        "CREATE TABLE public.scratch_8 (LIKE public.scratch)",
        "CREATE VIEW public.scratch_w AS SELECT * FROM public.scratch",
    ] {
        assert_eq!(decision(sql), "allow [scratch]", "{sql}");
    }
    for sql in [
        "DROP TABLE public.scratch CASCADE",
        "DROP TABLE public.scratch_3, public.scratch CASCADE",
        "DROP TABLE public.scratch_2 CASCADE",
        "DROP VIEW public.scratch_v CASCADE",
        "DROP TABLE public.scratch_5 CASCADE",
        "DROP SEQUENCE public.scratch_s CASCADE",
        "DROP INDEX public.scratch_idx CASCADE",
        "DROP TYPE public.scratch_t CASCADE",
        "DROP SCHEMA app CASCADE",
        "ALTER TABLE public.scratch DROP COLUMN v CASCADE",
        "ALTER TABLE public.scratch DROP CONSTRAINT scratch_pkey CASCADE",
        "ALTER TABLE public.scratch_2 RENAME TO customers",
        "ALTER VIEW public.scratch_v RENAME TO report_2",
        "ALTER SEQUENCE public.scratch_s RENAME TO s",
        "ALTER TABLE public.scratch_2 SET SCHEMA app",
        "ALTER SCHEMA scratch RENAME TO app",
        "ALTER SEQUENCE public.scratch_s OWNED BY public.customers.id",
        "ALTER SEQUENCE public.customers_id_seq OWNED BY public.scratch.id",
        "CREATE SEQUENCE public.scratch_t OWNED BY public.customers.id",
        "ALTER TABLE public.scratch_6 ADD COLUMN x int",
        "ALTER TABLE public.scratch_6 RENAME COLUMN x TO y",
        "DROP TABLE public.scratch_6 CASCADE",
        "ALTER TYPE public.scratch_t RENAME ATTRIBUTE a TO b CASCADE",
        "ALTER TYPE public.scratch_t DROP ATTRIBUTE a CASCADE",
        "ALTER TABLE public.scratch INHERIT public.customers",
        "ALTER TABLE public.scratch ATTACH PARTITION public.customers FOR VALUES IN (1)",
        "ALTER TABLE public.scratch ADD FOREIGN KEY (a) REFERENCES public.customers",
        "CREATE TABLE public.scratch_8 (LIKE public.customers)",
        "CREATE TABLE public.scratch_8 () INHERITS (public.customers)",
        "CREATE TABLE public.scratch_8 PARTITION OF public.customers FOR VALUES IN (1)",
        "CREATE VIEW public.scratch_w AS SELECT * FROM public.customers",
    ] {
        let decision = decision(sql);
        assert!(decision.starts_with("hold dba:1 ["), "{sql}: {decision}");
    }
    assert_eq!(decision("ALTER TABLE public.scratch_2 RENAME TO invoices"), "deny [invoices]");
}

// ---- the file ---------------------------------------------------------------------------------

#[test]
fn an_assurance_that_nobody_could_ever_meet_does_not_load() {
    let file = "[[rule]]\nname = \"x\"\nthen = \"hold\"\nassurance = \"signature\"\n";

    let problems = Policy::load(&[("p.toml".to_owned(), file.to_owned())], Defaults::default()).unwrap_err();

    let [problem] = &problems[..] else { panic!("{problems:?}") };
    let said = problem.to_string();
    assert!(said.contains("p.toml:4") && said.contains("\"signature\" is not supported"), "{said}");
}

#[test]
fn every_mistake_in_a_file_is_reported_at_once() {
    let text = r#"
[[rule]]
name = "a"
when = { class = ["exprot"], table = ["customers"], hours = "8-18" }
then = "hodl"

[[rule]]
name = "a"
then = "hold"
aprovals = [{ group = "dba" }]
expires = "soon"
reason = "yes"
assurance = "fingerprint"

[[rule]]
name = "b"
then = "deny"
approvals = [{ group = "dba", count = 0 }]

[[rule]]
name = "c"
then = "hold"
approvals = [{ group = "dba" }, { group = "dba" }]
expires = "5m"
escalate = [{ after = "5m", to = "oncall" }]
message = "x"

[[case]]
sql = "SELECT 1"
expect = { then = "maybe", rule = "zzz" }
"#;

    insta::assert_snapshot!(errors(text).join("\n"));
}

#[test]
fn a_case_names_rules_that_exist() {
    assert_eq!(
        errors("[[case]]\nsql = 'SELECT 1'\nexpect = { then = 'allow', rule = 'zzz' }\n"),
        ["p.toml:1: case[0].expect.rule: there is no rule called \"zzz\""]
    );
}

#[test]
fn two_rules_of_one_name_are_a_mistake_across_files_too() {
    let rule = "[[rule]]\nname = 'x'\nthen = 'deny'\n";
    let files = [("a.toml".to_owned(), rule.to_owned()), ("b.toml".to_owned(), rule.to_owned())];

    let problems = Policy::load(&files, Defaults::default()).unwrap_err();

    assert_eq!(
        problems[0].to_string(),
        "b.toml:1: rule[0].name: a rule called \"x\" stands in a.toml:1 already"
    );
}

#[test]
fn p7_the_digest_is_of_what_decides_and_not_of_how_it_is_written() {
    let one =
        load("# a comment\n[[rule]]\nname = 'x'\nwhen = { class = ['ddl', 'export'] }\nthen = 'hold'\n");
    let same = load(
        "[[rule]]\nthen = 'hold'\napprovals = [{ group = 'dba', count = 1 }]\nexpires = '900s'\nname = 'x'\nwhen = { class = ['export', 'ddl'] }\n",
    );
    let other =
        load("[[rule]]\nname = 'x'\nwhen = { class = ['export', 'ddl'] }\nthen = 'hold'\nexpires = '899s'\n");
    let defaults = Defaults { reviewers: "security".into(), ..Defaults::default() };
    let asks_others = Policy::load(&[], defaults).unwrap();

    assert_eq!(one.digest(), same.digest());
    assert_ne!(one.digest(), other.digest());
    assert_ne!(load("").digest(), asks_others.digest());
    assert_eq!(
        Digest::of(format!("countersign/policy/v1\0{}", one.normal_form()).as_bytes()),
        one.digest(),
        "anybody can compute it again"
    );
}

#[test]
fn lint_finds_what_cannot_be_meant() {
    let policy = load(
        r#"
[[rule]]
name = "all-exports"
when = { class = ["export", "ddl"] }
then = "deny"

[[rule]]
name = "never-asked"
when = { class = ["export"], table = ["pii.*"] }
then = "hold"

[[rule]]
name = "same"
when = { class = ["ddl", "export"] }
then = "allow"

[[rule]]
name = "pointless"
when = { class = ["read"] }
then = "allow"

[[rule]]
name = "generous"
when = { class = ["code"] }
then = "allow"

[[rule]]
name = "tableless"
when = { class = ["identity"], table = ["public.Customers"] }
then = "hold"

[[rule]]
name = "everything"
then = "hold"
approvals = [{ group = "dba" }]
escalate = [{ after = "5m", to = "dba" }]
"#,
    );

    let findings: Vec<String> = policy.lint().iter().map(ToString::to_string).collect();

    insta::assert_snapshot!(findings.join("\n"));
}

#[test]
fn the_policies_we_ship_keep_their_promises_together_and_each_by_itself() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files: Vec<(String, String)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    let classifier = Classifier::new(Limits::default());
    let sets = std::iter::once(files.clone()).chain(files.iter().map(|file| vec![file.clone()]));
    for set in sets {
        let policy = Policy::load(&set, Defaults::default()).unwrap();
        for (case, ran) in policy.run_cases(&classifier) {
            assert!(ran.failures.is_empty(), "{}:{} {case}: {:?}", case.file, case.place.line, ran.failures);
        }
    }
    assert!(files.len() >= 3);
}

#[test]
fn a_case_that_fails_says_what_it_expected_and_what_it_got() {
    let policy = load(
        "[[case]]\nsql = 'COPY t TO STDOUT'\nexpect = { then = 'allow', class = 'read', groups = ['x'] }\n",
    );

    let ran = policy.run_cases(&Classifier::new(Limits::default()));

    assert_eq!(
        ran[0].1.failures,
        [
            "expected allow, got hold",
            "expected class read, got export",
            "expected to ask [\"x\"], got [\"dba\"]"
        ]
    );
}

proptest! {
    /// Adding a rule that holds or denies never lets more through.
    #[test]
    fn another_hold_or_deny_never_lets_more_through(
        first in 0usize..6, second in 0usize..6, sql in 0usize..6,
    ) {
        let conditions = ["class = ['export']", "class = ['ddl']", "table = ['pii.*']", "agent = ['bot']", "agent = ['x']", "in_transaction = true"];
        let statements = [EXPORT, "SELECT 1", "DROP TABLE pii.x", "DO $$ $$", "DELETE FROM pii.x", "SELECT * FROM pii.x"];
        let weight = |policy: &Policy| match decide(policy, statements[sql]) {
            Decision::Allow(_) => 0,
            Decision::Hold(terms) => 1 + terms.approvals.iter().map(|asked| asked.count).sum::<u32>(),
            Decision::Deny(_) | Decision::Invalid(_) => 100,
        };
        let base = format!("[[rule]]\nname = 'let'\nwhen = {{ class = ['export', 'ddl', 'code'] }}\nthen = 'allow'\n[[rule]]\nname = 'one'\nwhen = {{ {} }}\nthen = 'hold'\n", conditions[first]);
        for then in ["hold", "deny"] {
            let more = format!("{base}[[rule]]\nname = 'two'\nwhen = {{ {} }}\nthen = '{then}'\n", conditions[second]);
            prop_assert!(weight(&load(&more)) >= weight(&load(&base)));
        }
    }
}
