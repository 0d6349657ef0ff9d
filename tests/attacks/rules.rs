//! Statements that a rule should have held or denied, and that must not pass as something harmless.

use super::*;

/// An approval for a cursor is bound to its query.
#[test]
fn a_deferred_grant_for_a_cursor_does_not_fit_another_query_of_its_name() {
    use support::{BOB, TOKEN};
    use wire::{Wire, execute, query, sync};
    let stack = Stack::start();
    type Take = fn() -> Vec<u8>;
    let takes: [Take; 3] = [
        || query("fetch all k"),
        || [execute("k", 0), sync()].concat(),
        || query("select cursor_to_xml('k', 1000, false, false, '')"),
    ];
    for (number, take) in takes.iter().enumerate() {
        let mut agent = Wire::connect(stack.port, DEFERS, TOKEN);
        let mut with = |declare: &str| {
            agent.ask(&query("begin"));
            agent.ask(&query(declare));
            let seen = agent.ask(&take());
            agent.ask(&query("rollback"));
            seen
        };
        let asked = format!("declare k cursor for select {number} as asked");
        let other = "declare k cursor for select 'other' as x from generate_series(1, 3)";
        assert_eq!(with(&asked), "E42501ZE");
        let request = stack.request();
        assert!(request.to_string().contains("as asked"), "the reviewer sees the query: {request}");
        stack.answer(BOB, &request, "approve", None);

        assert_eq!(with(other), "E42501ZE", "{number}: it is another query");
        let second = stack.request();
        stack.answer(BOB, &second, "deny", None);
        let seen = with(&asked);
        assert!(!seen.starts_with('E'), "{number}: and this is the one: {seen}");
    }
}

/// Rules by table are about the rows that leave, whichever way.
#[test]
fn a_rule_by_table_sees_through_a_cursor() {
    use support::TOKEN;
    use wire::{Wire, execute, query, sync};
    let policy = "[[rule]]\nname = \"orders stay\"\nwhen = { class = [\"export\"], table = [\"public.orders\"] }\nthen = \"deny\"\n";
    let stack = Stack::with(&Setup { policy: Some(policy.to_owned()), ..Setup::default() });
    let mut agent = Wire::connect(stack.port, DEFERS, TOKEN);
    let denied = |agent: &Wire| agent.errors.last().is_some_and(|error| error.contains("orders stay"));
    agent.ask(&query("copy public.orders to stdout"));
    assert!(denied(&agent), "{:?}", agent.errors);
    for take in [query("fetch all c"), [execute("c", 0), sync()].concat(), query("fetch backward all in c")] {
        agent.ask(&query("begin"));
        agent.ask(&query("declare c scroll cursor for select * from public.orders"));
        agent.errors.clear();
        agent.ask(&take);
        assert!(denied(&agent), "{:?}", agent.errors);
        agent.ask(&query("rollback"));
    }
    // An unknown cursor may read anything: it is held, never allowed.
    agent.ask(&query("begin"));
    assert_eq!(agent.ask(&query("fetch all nobody_knows_it")), "E42501ZE");
    agent.ask(&query("rollback"));
    assert_eq!(agent.ask(&query("select query_to_xml('table public.orders', true, false, '')")), "E42501ZI");
}

/// What goes along with a table, and where it goes, is covered by a rule or asked about.
#[test]
fn an_allow_of_ddl_by_table_covers_no_other_object() {
    let rule = "[[rule]]\nname = 'scratch'\nwhen = { class = ['ddl'], table = ['public.scratch', 'public.scratch_*'] }\nthen = 'allow'\n";
    let stack = Stack::with(&Setup {
        policy: Some(rule.into()),
        sql: "SET ROLE app; CREATE TABLE scratch (id int PRIMARY KEY, v text); CREATE VIEW report AS SELECT id FROM scratch;
              CREATE TABLE child (id int CONSTRAINT child_fk REFERENCES scratch); CREATE TABLE scratch_2 (id int);
              CREATE SEQUENCE scratch_s; CREATE TABLE numbered (id int DEFAULT nextval('scratch_s'));
              CREATE TABLE scratch_3 (id int); CREATE VIEW scratch_v AS SELECT * FROM scratch_3;
              CREATE VIEW late AS SELECT * FROM scratch_v; CREATE SCHEMA attic"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::deferring_agent(stack.port);
    for sql in [
        "drop table public.scratch cascade",
        "alter table public.scratch drop column id cascade",
        "alter table public.scratch drop constraint scratch_pkey cascade",
        "drop table public.scratch_3 cascade",
        "drop view public.scratch_v cascade",
        "drop sequence public.scratch_s cascade",
        "alter table public.scratch_2 rename to invoices",
        "alter table public.scratch_2 set schema attic",
        "alter sequence public.scratch_s owned by public.child.id",
        "alter table public.scratch_2 inherit public.child",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.contains("E42501"), "{sql}: {seen}");
    }
    let left = "select count(*) from unnest(array['report', 'late', 'scratch_v', 'scratch_2', 'numbered']) n where to_regclass(n) is not null";
    assert_eq!(stack.superuser(left), "5");
    assert_eq!(stack.superuser("select count(*) from pg_constraint where conname = 'child_fk'"), "1");
    for sql in [
        "create table public.scratch_9 (id int)",
        "alter table public.scratch_9 rename to scratch_8",
        "alter table public.scratch_2 add column x int",
        "drop table public.scratch_2, public.scratch_8 cascade",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(!seen.contains('E') || seen.starts_with("C["), "{sql}: {seen} {:?}", agent.errors);
    }
}

/// One statement, one call in its text, all large objects.
#[test]
fn a_call_for_each_row_is_not_classified_as_a_single_call() {
    let stack = Stack::with(&Setup {
        sql: "SELECT lo_from_bytea(0, 'x') FROM generate_series(1, 50); UPDATE pg_largeobject_metadata SET lomowner = 'app'::regrole;
              CREATE SEQUENCE s1; CREATE SEQUENCE s2; ALTER SEQUENCE s1 OWNER TO app; ALTER SEQUENCE s2 OWNER TO app"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::deferring_agent(stack.port);
    for sql in [
        "select count(lo_unlink(oid)) from pg_largeobject_metadata",
        "select 1 from pg_largeobject_metadata where lo_unlink(oid) = 1",
        "select u from pg_largeobject_metadata m, lo_unlink(m.oid) u",
        "select (select lo_unlink(m.oid)) from pg_largeobject_metadata m",
        "select lo_unlink(unnest(array(select oid from pg_largeobject_metadata)))",
        "create temp table x (o oid check (lo_unlink(o) = 1))",
        "select setval(oid::regclass, 1) from pg_class where relname in ('s1', 's2')",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.contains("E42501"), "{sql}: {seen}");
    }
    assert_eq!(stack.superuser("select count(*) from pg_largeobject_metadata"), "50");
    for sql in [
        "select setval('s1', coalesce(max(id), 1), max(id) is not null) from orders",
        "select nextval('s1') from generate_series(1, 10)",
        "select pg_notify('c', id::text) from customers where id = 5",
    ] {
        let seen = agent.ask(&wire::query(sql));
        assert!(seen.starts_with("TD"), "{sql}: {seen}");
    }
}

/// `DELETE .. WHERE x IN (SELECT x FROM u)` where u has no x compares x with itself.
#[test]
fn a_subquery_over_a_column_of_the_outer_table_is_held() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE kept (x int, y int); INSERT INTO kept SELECT n, n FROM generate_series(1, 9) n;
              CREATE TABLE listed (y int); INSERT INTO listed VALUES (3);
              CREATE VIEW shown AS SELECT * FROM listed;
              GRANT SELECT, DELETE ON kept, listed, shown TO app;"
            .into(),
        ..Setup::default()
    });
    assert_eq!(
        stack.superuser(
            "begin; delete from kept where x in (select x from listed); select count(*) from kept; rollback"
        ),
        "0",
        "it deletes everything"
    );
    let script = r#"
c = session()
for query in [
    "delete from kept where x in (select x from listed)",
    "delete from kept where x = (select x from listed limit 1)",
    "delete from kept where ctid in (select ctid from shown)",
    "delete from kept where exists (select from listed where kept.x = x)",
    "create temp table listed (z int); insert into pg_temp.listed values (1); delete from kept where y in (select y from listed)",
]:
    attempt(lambda: c.execute(query))
c = session()
c.execute("create temp table listed as select 1 as z")
for prepare in [None, True]:
    attempt(lambda: c.execute("delete from kept where y in (select y from listed)", prepare=prepare))
c = session()
c.execute("prepare later as delete from kept where y in (select y from listed)")
c.execute("create temp table listed as select 1 as z")
attempt(lambda: c.execute("execute later"))
c = session()
c.prepare_threshold = 0
def both():
    with c.pipeline():
        c.execute("create temp table listed as select 1 as z")
        c.execute("delete from kept where y in (select y from listed)")
attempt(both)
"#;
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "the attack itself broke: {}", text(&output));
    assert_eq!(stack.superuser("select count(*) from kept"), "9", "{}", text(&output));

    let mut agent = wire::Wire::agent(stack.port);
    assert_eq!(
        agent.ask(&wire::query("DELETE FROM kept WHERE y IN (SELECT y FROM listed)")),
        "C[DELETE 1]ZI"
    );
}

fn behind_a_rule(version: u32) -> Stack {
    Stack::with(&Setup {
        sql: BEHIND_A_RULE.to_owned(),
        policy: Some(BEHIND_A_RULE_POLICY.to_owned()),
        version,
        ..Setup::default()
    })
}

/// A DELETE by plain name reaches no schema that the rule protects, whatever came before it.
fn deletes_nothing(stack: &Stack, ways: &[(&str, Vec<Vec<u8>>)]) {
    let left = "SELECT (SELECT count(*) FROM audit.people) + (SELECT count(*) FROM \"Sales\".people) + (SELECT count(*) FROM \"a, b\".people)";
    for (name, before) in ways {
        let mut agent = wire::Wire::deferring_agent(stack.port);
        for message in before {
            agent.ask(message);
        }
        for id in 1..3 {
            agent.ask(&wire::query(&format!("DELETE FROM people WHERE id = {id}")));
        }
        assert_eq!(stack.superuser(left), "297", "{name}: deleted against a rule; {:?}", agent.errors);
    }
}

/// The path is the one that the server reports, never one that was derived from a statement.
#[test]
fn a_rule_by_table_holds_however_the_search_path_was_set() {
    let query = |sql: &str| wire::query(sql);
    let set = "SELECT set_config('search_path', 'audit', false)";
    let some_rows = |sql: &str| {
        [wire::parse("", sql), wire::bind("", "", &[]), wire::execute("", 1), wire::sync()].concat()
    };
    let bound = [wire::parse("", set), wire::bind("p", "", &[]), wire::sync()].concat();
    let several = |sql: &[&str]| sql.iter().map(|sql| wire::query(sql)).collect::<Vec<_>>();
    let one = |sql: &str| vec![wire::query(sql)];
    for version in [15, 18] {
        let stack = behind_a_rule(version);
        deletes_nothing(
            &stack,
            &[
                ("a quoted name", one("SET search_path = \"Sales\"")),
                ("a quoted name in a literal", one("SET search_path = 'Sales'")),
                ("a comma in a name", one("SET search_path = 'a, b'")),
                ("an escaped name", one("SET search_path = U&\"\\0053ales\"")),
                ("SET SCHEMA", one("SET SCHEMA 'Sales'")),
                ("SET SESSION", one("SET SESSION search_path TO audit, \"Sales\"")),
                ("one text", one("SET search_path = audit; DELETE FROM people WHERE id = 3")),
                ("set_config", one("SELECT set_config('search_path', '\"Sales\"', false)")),
                ("set_config, not local by a word", one("SELECT set_config('search_path', 'audit', 'off')")),
                ("set_config, not local by NULL", one("SELECT set_config('search_path', 'audit', NULL)")),
                (
                    "set_config, not local by a cast",
                    one("SELECT set_config('search_path', 'audit', 0::bool)"),
                ),
                (
                    "set_config, not local by a query",
                    one("SELECT set_config('search_path', 'audit', (SELECT false))"),
                ),
                (
                    "set_config by another case",
                    one("SELECT pg_catalog.set_config('Search_Path', 'audit', false)"),
                ),
                (
                    "a local path that is not lasting",
                    several(&[
                        "SET search_path = audit",
                        "SELECT set_config('search_path', 'elsewhere', 't')",
                        "SELECT set_config('search_path', 'elsewhere', 'yes')",
                        "SELECT set_config('search_path', 'elsewhere', 1::bool)",
                        "SET LOCAL search_path = elsewhere",
                    ]),
                ),
                (
                    "bound values",
                    vec![
                        [
                            wire::extended("SELECT set_config($1, $2, $3)", &["search_path", "audit", "f"]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                (
                    "a prepared statement",
                    vec![[wire::parse("s", set), wire::sync()].concat(), query("EXECUTE s")],
                ),
                ("a row limit", vec![some_rows(set)]),
                (
                    "FETCH from a portal",
                    vec![query("BEGIN"), bound.clone(), query("FETCH 1 FROM p"), query("COMMIT")],
                ),
                (
                    "MOVE in a portal",
                    vec![query("BEGIN"), bound.clone(), query("MOVE 1 IN p"), query("COMMIT")],
                ),
                (
                    "a portal that is left suspended",
                    vec![query("BEGIN"), bound.clone(), [wire::execute("p", 1), wire::sync()].concat()],
                ),
                (
                    "a rollback",
                    several(&["SET search_path = audit", "BEGIN", "SET search_path = elsewhere", "ROLLBACK"]),
                ),
                (
                    "a rollback to a savepoint",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SAVEPOINT a",
                        "SET LOCAL search_path = elsewhere",
                        "ROLLBACK TO a",
                    ]),
                ),
                (
                    "the end of SET LOCAL",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SET LOCAL search_path = elsewhere",
                        "COMMIT",
                    ]),
                ),
                (
                    "a transaction that fails",
                    several(&[
                        "SET search_path = audit",
                        "BEGIN",
                        "SET search_path = elsewhere",
                        "SELECT 1/0",
                        "COMMIT",
                    ]),
                ),
                (
                    "a pipeline that fails",
                    vec![
                        query("SET search_path = audit"),
                        [
                            wire::extended("SET search_path = elsewhere", &[]),
                            wire::extended("SELECT 1/0", &[]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                (
                    "the end of a pipeline",
                    vec![
                        query("SET search_path = audit"),
                        [
                            wire::extended("SELECT set_config('search_path', 'elsewhere', true)", &[]),
                            wire::sync(),
                        ]
                        .concat(),
                    ],
                ),
                ("RESET", several(&["SET search_path = audit", "BEGIN", "RESET search_path", "ROLLBACK"])),
                ("a function", one("SELECT public.moves()")),
                ("a function of a function", one("SELECT public.calls()")),
                ("a function with a path of its own", one("SELECT public.with_own_path()")),
                ("a function with a body of the standard's", one("SELECT public.atomic()")),
                ("a planned function", one("EXPLAIN SELECT public.moves_by_name('search_path')")),
                ("a function that was declared safe", one("SELECT public.dynamic(1)")),
                ("an attribute", one("SELECT (1).dynamic")),
                ("an operator", one("SELECT 1 OPERATOR(public.@+@) 2")),
                ("a view", one("SELECT * FROM public.seen")),
                ("a view of a view", one("SELECT * FROM public.seen_through")),
                ("a cursor", several(&["BEGIN", "DECLARE c CURSOR FOR TABLE public.seen", "FETCH 1 FROM c"])),
                ("a trigger", one("INSERT INTO public.fired VALUES (1)")),
                ("a trigger of a partition", one("INSERT INTO public.parent VALUES (1)")),
                ("a default", one("INSERT INTO public.defaulted VALUES (1)")),
                ("a check", one("INSERT INTO public.checked VALUES (1)")),
                ("a column's domain", one("INSERT INTO public.of_domain VALUES (1)")),
                ("a policy", one("SELECT * FROM public.filtered WHERE a = 1")),
                ("a cascade", one("DELETE FROM public.held_by WHERE k = 1")),
                (
                    "a trigger behind COPY",
                    vec![
                        [
                            query("COPY public.fired FROM STDIN"),
                            wire::frame('d', b"1\n"),
                            wire::frame('c', b""),
                        ]
                        .concat(),
                    ],
                ),
            ],
        );
    }
}

/// A reviewer is shown where names are looked up when the statement runs, or that this is not known.
#[test]
fn reviewers_see_the_servers_search_path_in_the_middle_of_a_pipeline() {
    let stack = Stack::with(&Setup {
        sql: format!("{BEHIND_A_RULE} ALTER TABLE audit.people OWNER TO app;"),
        ..Setup::default()
    });
    let shown = |request: &serde_json::Value| {
        let path = format!("/requests/{}", request["id"].as_str().unwrap());
        stack.api(BOB, "GET", &path, None).1.to_string()
    };
    let drop = [wire::extended("DROP TABLE people", &[]), wire::flush()].concat();
    let run = |sql: &str| [wire::extended(sql, &[]), wire::flush()].concat();
    let set = |path: &str| format!("SELECT set_config('search_path', '{path}', true)");

    // Settings are asked for when the request opens, and again before the statement runs.
    let mut agent = wire::Wire::agent(stack.port);
    agent.send(&run(&set("audit")));
    agent.send(&drop);
    let request = stack.request();
    let document = shown(&request);
    assert!(document.contains("search_path = audit"), "{document}");
    stack.approve(BOB, &request);
    agent.send(&wire::sync());
    let answer = agent.until_ready();
    assert!(answer.ends_with("C[DROP TABLE]ZI"), "{answer}");
    assert_eq!(
        stack.superuser("SELECT to_regclass('audit.people') IS NULL, to_regclass('people')"),
        "t|people"
    );

    // What runs before it in the same batch has not run yet.
    let mut agent = wire::Wire::agent(stack.port);
    let moves = wire::extended("SELECT set_config($1, $2, true)", &["search_path", "\"Sales\""]);
    agent.send(&[moves, drop, wire::sync()].concat());
    let request = stack.request();
    let document = shown(&request);
    assert!(document.contains("search_path = (not known"), "{document}");
    stack.answer(BOB, &request, "deny", None);
    assert!(agent.until_ready().contains("E42501"), "{:?}", agent.errors);
}

/// Parts of a unit are rounded to whole ones of the next smaller, and none at all is no limit.
#[test]
fn no_spelling_of_a_timeout_gets_past_the_operators_guard() {
    let sql = "ALTER ROLE app SET statement_timeout = '30s'";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let mut agent = wire::Wire::deferring_agent(stack.port);
    let numbers = [
        "0", "1", "0.4", "0.5", "0.51", "1.5", "2.5", "0.0001", "0.0005", "0.0083", "0.0084", "0.008333",
        "0.499999", "0.00034", "0.00035", "29.9999", "30", "30.0004", "30.5", "30000", "30000.5", ".5",
        "5e3", "0x10", "010", "-1", "+5", " 5 ", "1_000",
    ];
    let mut passed = 0;
    for number in numbers {
        for unit in ["", "us", "ms", "s", "min", "h", "d", " ms", "MS"] {
            let value = format!("{number}{unit}");
            let set = format!("SET statement_timeout = '{value}'");
            let literal = format!("SET LOCAL statement_timeout = {number}");
            let call = format!("SELECT set_config('statement_timeout', '{value}', true)");
            for sql in [&set, &literal, &call] {
                agent.ask(&wire::query("BEGIN"));
                passed += usize::from(agent.ask(&wire::query(sql)).starts_with('C'));
                if agent.ask(&wire::query("SELECT 1")).contains('E') {
                    agent.ask(&wire::query("ROLLBACK"));
                    continue;
                }
                let limit =
                    agent.numbers("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'");
                assert!((1..=30_000).contains(&limit[0]), "{sql}: {limit:?}");
                agent.ask(&wire::query("ROLLBACK"));
            }
        }
    }
    assert!(passed > 100, "{passed}");
}

/// A unit is forwarded whole, long after its first statement was decided if a later one waits.
#[test]
fn decisions_for_a_batch_do_not_outlast_a_change_of_policy() {
    let mut stack = Stack::with(&Setup {
        sql: "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1); ALTER TABLE kept OWNER TO app".into(),
        ..Setup::default()
    });
    let load = |policy: &str| {
        let before = stack.log().matches("policies loaded").count();
        std::fs::write(stack.path("policies/later.toml"), policy).unwrap();
        wait_for("it is loaded", || stack.log().matches("policies loaded").count() > before);
    };
    let deny = "[[rule]]\nname = 'freeze'\nwhen = { class = ['ddl', 'write'] }\nthen = 'deny'\n";
    // What was approved, and what nobody had to approve.
    for first in ["DROP TABLE kept", "DELETE FROM kept WHERE id = 1"] {
        let mut agent = wire::Wire::agent(stack.port);
        let unit = [wire::extended(first, &[]), wire::extended("TRUNCATE orders", &[]), wire::sync()];
        agent.send(&unit.concat());
        if first.starts_with("DROP") {
            let request = stack.request();
            assert!(request.to_string().contains("kept"), "{request}");
            stack.approve(BOB, &request);
            wait_for("the next one waits", || {
                stack.waiting().first().is_some_and(|next| next["id"] != request["id"])
            });
        }
        let request = stack.request();
        load(deny);
        stack.approve(BOB, &request);
        let seen = agent.until_ready();
        assert!(seen.contains("E57014ZI"), "{first}: {seen}");
        assert!(agent.errors.last().unwrap().contains("have changed"), "{:?}", agent.errors);
        assert_eq!(stack.superuser("select count(*) from kept"), "1", "{first}");
        assert_eq!(stack.superuser("select count(*) from orders"), "1000", "{first}");
        load("");
        // Sent again, it is decided anew; and where nothing changes, both run.
        agent.send(&unit.concat());
        while stack.superuser("select count(*) from orders") == "1000" {
            if let Some(request) = stack.waiting().first() {
                stack.approve(BOB, request);
            }
        }
        let seen = agent.until_ready();
        assert!(!seen.contains("E5") && seen.ends_with("ZI"), "{seen}: {:?}", agent.errors);
        stack.superuser("insert into orders (id, amount) select g, g from generate_series(1, 1000) g");
        stack.superuser("create table if not exists kept (id int); alter table kept owner to app; delete from kept; insert into kept values (1)");
    }
    stack.assert_verifies();
}

/// What runs before a statement in its batch decides what it does, so reviewers see all of it.
#[test]
fn everything_before_a_held_statement_in_its_batch_is_shown_or_it_is_refused() {
    let stack = Stack::start();
    let batch = |before: &[String]| {
        let before = before.iter().map(|sql| wire::extended(sql, &[]));
        [before.collect::<Vec<_>>().concat(), wire::extended("DROP TABLE orders", &[]), wire::sync()].concat()
    };
    let path = "SET search_path = elsewhere".to_owned();
    let reads = |count: usize| (0..count).map(|number| format!("SELECT {number}"));
    let mut agent = wire::Wire::agent(stack.port);

    agent.send(&batch(&std::iter::once(path.clone()).chain(reads(60)).collect::<Vec<_>>()));
    let request = stack.request();
    let id = request["id"].as_str().unwrap();
    let (_, shown) = stack.api(BOB, "GET", &format!("/requests/{id}"), None);
    assert!(shown.to_string().contains("SET search_path = elsewhere"), "{shown}");
    stack.answer(BOB, &request, "deny", Some("no"));
    assert!(agent.until_ready().contains("E42501"));

    let long = format!("SELECT '{}'", "x".repeat(70_000));
    for before in [std::iter::once(path.clone()).chain(reads(120)).collect(), vec![path, long]] {
        let seen = agent.ask(&batch(&before));
        assert!(seen.contains("E42501"), "{seen}");
        assert!(agent.errors.last().unwrap().contains("too much comes before it"), "{:?}", agent.errors);
    }
    assert!(stack.waiting().is_empty());
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
}

/// Only the transaction that makes a view can see what is behind it.
#[test]
fn a_view_is_not_written_through_unasked_in_the_transaction_that_makes_it() {
    let policy = "[[rule]]\nname = 'views'\nwhen = { class = ['ddl'] }\nthen = 'allow'\n";
    let stack = Stack::with(&Setup { policy: Some(policy.into()), superuser: true, ..Setup::default() });
    for (view, write) in [
        (
            "CREATE VIEW public.v AS SELECT * FROM pg_settings",
            "UPDATE v SET setting = 'replica' WHERE name = 'session_replication_role'",
        ),
        (
            "CREATE VIEW public.v AS SELECT * FROM pg_settings",
            "UPDATE public.v SET setting = 'replica' WHERE name = 'session_replication_role'",
        ),
    ] {
        let mut agent = wire::Wire::deferring_agent(stack.port);
        agent.ask(&wire::query("BEGIN"));
        let made = agent.ask(&wire::query(view));
        assert!(made.starts_with("C[CREATE"), "{view}: {made}: {:?}", agent.errors);
        agent.ask(&wire::query(write));
        let seen = agent.ask(&wire::query("SELECT current_setting('session_replication_role')"));
        assert!(agent.row != "replica", "{view}, {made}; {write}, {seen}: {:?}", agent.errors);
        agent.ask(&wire::query("ROLLBACK"));
    }
}
