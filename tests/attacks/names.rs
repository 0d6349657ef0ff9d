//! Names that get another meaning between a decision and the execution.

use super::*;

#[test]
fn a_shadowing_function_is_held_however_its_schema_gets_into_the_path() {
    let stack = stack();
    attack(
        &stack,
        r#"
ways = [
    "set search_path = evil, public; select lower('x'::varchar)",
    "select set_config('search_path', 'evil', false); select lower('x'::varchar)",
    "begin; set local search_path = evil; select lower('x'::varchar); commit",
    "set schema 'evil'; select lower('x'::varchar)",
    "select lower(name::varchar) from customers where false; set search_path to evil; select lower(name::varchar) from customers limit 1",
]
for way in ways:
    c = session()
    attempt(lambda: c.pgconn.exec_(way.encode()))
    c.close()
for way in ways:
    c = session()
    for part in way.split("; "):
        attempt(lambda: c.execute(part))
    c.close()
# Everything in one pipeline, before any answer has come.
c = session()
def pipelined():
    with c.pipeline():
        c.execute("set search_path = evil")
        c.execute("select lower('x'::varchar)")
attempt(pipelined)
# Separate syncs, still without waiting.
c = session()
c.pgconn.enter_pipeline_mode()
for sql in [b"set search_path = evil", b"select lower('x'::varchar)"]:
    c.pgconn.send_query_params(sql, [])
    c.pgconn.pipeline_sync()
attempt(lambda: [c.pgconn.flush(), c.pgconn.get_result()])
"#,
    );
}

#[test]
fn a_start_up_path_is_known_from_the_first_statement_on() {
    let stack = stack();
    attack(
        &stack,
        r#"
c = psycopg.connect(sys.argv[1] + "?options=-c%20search_path%3Devil%20-c%20countersign.hold%3Ddefer", autocommit=True)
attempt(lambda: c.execute("select lower('x'::varchar)"))
attempt(lambda: c.execute("select ping('x')"))
"#,
    );
}

#[test]
fn names_cannot_be_swapped_under_a_decision() {
    let stack = stack();
    attack(
        &stack,
        r#"
# A Parse that fails keeps the old meaning of a name; so does one that is skipped.
c = session()
g = c.pgconn
attempt(lambda: g.prepare(b"s", b"select evil.ping('x')"))
g.enter_pipeline_mode()
g.send_prepare(b"s", b"select 1")
g.pipeline_sync()
g.send_query_prepared(b"s", [])
g.pipeline_sync()
g.flush()
while True:
    r = g.get_result()
    if r is None:
        r = g.get_result()
        if r is None:
            break
c.close()
# SQL names and protocol names are one space.
c = session()
g = c.pgconn
g.prepare(b"t", b"select evil.ping('x')")
attempt(lambda: c.execute("execute t"))
g.exec_prepared(b"t", [])
c.close()
# A name of more than 63 bytes is the same as its first 63.
c = session()
g = c.pgconn
g.prepare(b"a" * 70, b"select evil.ping('x')")
g.exec_prepared(b"a" * 63, [])
g.exec_(b"execute " + b"a" * 64)
c.close()
"#,
    );
}

#[test]
fn a_function_of_the_open_transaction_is_held_under_a_built_in_name() {
    let stack = Stack::with(&Setup {
        sql: TRAPS.to_owned(),
        policy: Some(
            "[[rule]]\nname = \"functions-are-fine\"\nwhen = { class = [\"code\", \"ddl\"], in_transaction = true }\nthen = \"deny\"\n".to_owned(),
        ),
        ..Setup::default()
    });
    attack(
        &stack,
        r#"
c = session()
attempt(lambda: c.pgconn.exec_(b"begin; create function public.upper(varchar) returns text language sql as 'insert into public.canary values (1); select $1'; select upper('x'::varchar); commit"))
"#,
    );
}

#[test]
fn a_new_default_search_path_counts_for_the_next_session() {
    let policy = r#"
[[rule]]
name = "grants"
when = { class = ["grant", "admin"] }
then = "allow"

[[rule]]
name = "secret"
when = { table = ["hidden.*"] }
then = "deny"
"#;
    let stack = Stack::with(&Setup {
        policy: Some(policy.to_owned()),
        sql: "CREATE SCHEMA hidden; GRANT USAGE ON SCHEMA hidden TO app;
              CREATE TABLE hidden.notes (a int); GRANT SELECT ON hidden.notes TO app;
              CREATE TABLE public.notes (a int); GRANT SELECT ON public.notes TO app;"
            .into(),
        ..Setup::default()
    });
    let read = wire::query("SELECT * FROM notes");
    assert_eq!(wire::Wire::agent(stack.port).ask(&read), "TC[SELECT 0]ZI");

    // A rule by table cannot tell what a grant touches, and holds it.
    let mut changing = wire::Wire::agent(stack.port);
    changing.send(&wire::query("ALTER ROLE app SET search_path = hidden"));
    stack.approve(BOB, &stack.request());
    assert_eq!(changing.until_ready(), "C[ALTER ROLE]ZI");

    let mut later = wire::Wire::agent(stack.port);
    assert!(later.ask(&read).starts_with('E'), "{:?}", later.errors);
}

/// A role's own path may lead to foreign operators, with which our queries would find nothing.
#[test]
fn catalogue_queries_use_built_in_operators_only() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE reached (what text); GRANT ALL ON reached TO PUBLIC;
              CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
              CREATE FUNCTION evil.no(oid, oid) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''oid''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
              CREATE OPERATOR evil.>= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.no);
              CREATE FUNCTION evil.no(text, text) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''text''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
              CREATE FUNCTION evil.no(name, name) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.reached VALUES (''name''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.no);
              CREATE FUNCTION public.harmful() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
              ALTER ROLE app SET search_path = evil, pg_catalog, public"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::deferring_agent(stack.port);
    let seen = agent.ask(&wire::query("SELECT harmful()"));
    assert!(seen.contains("E42501"), "{seen}");
    let checked =
        support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();
    assert!(
        text(&checked).contains("public.customers"),
        "it lists the role's own tables: {}",
        text(&checked)
    );

    assert_eq!(stack.superuser("select count(*) from reached"), "0");
}

/// Names are cut and compared by the database's encoding: in another one than ours two names would be one
/// to upstream and two to us.
#[test]
fn a_database_that_is_not_in_utf8_is_refused_at_connect_by_check_and_in_status() {
    let stack = Stack::start();
    let mut database = "postgres".to_owned();
    for encoding in ["SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"] {
        let name = format!("in_{}", encoding.to_lowercase());
        stack.superuser(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ));
        stack.reconfigure(|config| {
            config.replace(&format!("database = \"{database}\""), &format!("database = \"{name}\""))
        });
        database = name;

        let parameters = [("user", support::AGENT), ("database", "app")];
        let refused = wire::Wire::try_connect(stack.port, &parameters, support::TOKEN).err().unwrap();
        assert!(refused.contains("0A000") && refused.contains(encoding), "{refused}");
        assert!(refused.contains("ENCODING 'UTF8'"), "{refused}");

        let check = support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output();
        let check = check.unwrap();
        let said = text(&check);
        assert_eq!(check.status.code(), Some(2), "{said}");
        assert!(said.contains(encoding) && said.contains("UTF8 databases only"), "{said}");

        let (_, status) = stack.api(BOB, "GET", "/status", None);
        assert!(status["upstreams"].to_string().contains(encoding), "{status}");
    }
}

/// A name of more than 63 bytes is cut where Postgres cuts it: in SQL before a character that does not fit,
/// in the protocol behind the 63rd byte.
#[test]
fn long_multibyte_names_are_cut_as_upstream_cuts_them() {
    use wire::{Wire, parse, query};
    let stack = stack();
    stack.superuser("CREATE TABLE victim (a int); ALTER TABLE victim OWNER TO app");
    let n = |count: usize| "n".repeat(count);
    let names: Vec<String> = [(62, "é"), (61, "é"), (61, "漢"), (60, "😀x"), (63, "é"), (60, "漢é")]
        .into_iter()
        .flat_map(|(count, tail)| [n(count), format!("{}{tail}", n(count))])
        .collect();
    let direct = || {
        Wire::connect(stack.cluster.port(), &[("user", "app"), ("database", "postgres")], "upstream-secret")
    };
    let sync = wire::frame('S', &[]);
    for prepared in &names {
        for executed in &names {
            let run = |mut wire: Wire| {
                let mut said = vec![wire.ask(&[parse(prepared, "select 1"), sync.clone()].concat())];
                said.push(wire.ask(&query(&format!("prepare \"{executed}\" as select 2"))));
                said.push(wire.ask(&query(&format!("execute \"{executed}\""))));
                said.push(wire.row.clone());
                said.push(wire.ask(&query(&format!("deallocate \"{prepared}\""))));
                said
            };
            let defer =
                [("user", support::AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
            let ours = run(Wire::connect(stack.port, &defer, support::TOKEN));
            assert_eq!(ours, run(direct()), "{prepared} {executed}");
        }
    }
    // A statement that is held under one of them does not run under another.
    for prepared in &names {
        let mut agent = Wire::agent(stack.port);
        agent.ask(&query("set countersign.hold = 'defer'"));
        agent.ask(&[parse(prepared, "drop table victim"), sync.clone()].concat());
        for executed in &names {
            agent.ask(&query(&format!("prepare \"{executed}\" as select 1")));
            agent.ask(&query(&format!("execute \"{executed}\"")));
        }
    }
    assert_eq!(stack.superuser("select count(*) from pg_class where relname = 'victim'"), "1");
}

/// A function that was created since the catalogue was read, called as if it were a column.
#[test]
fn an_unknown_name_after_a_dot_is_looked_up_before_it_passes() {
    use wire::{Wire, query};
    let stack = stack();
    stack.superuser(
        "CREATE TABLE v (a int PRIMARY KEY, b text); INSERT INTO v VALUES (1, 'x'); ALTER TABLE v OWNER TO app;
         CREATE TYPE pair AS (x int, y int)",
    );
    let defer = [("user", support::AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
    let mut agent = Wire::connect(stack.port, &defer, support::TOKEN);
    let mut round = 0;
    for call in [
        "select v.F from v",
        "select (v.*).F from v",
        "select (v).F from v",
        "select x.F from v x",
        "select x.F from (select * from v) x",
        "with w as (select * from v) select w.F from w",
        "select 1 from v where v.F is null",
        "select 1 from v order by v.F",
        "select (select v.F) from v",
        "update v set b = 'y' where a = 1 returning v.F",
        "insert into v values (1) on conflict (a) do update set b = excluded.F where v.a = 1",
        "update v set b = v.F where a = 1",
        "select coalesce(v.F, 'z') from v join (select 1 as one) o on v.F is not null",
        "prepare pF as select v.F from v",
        "select public.v.F from public.v",
        "select t.F from pg_temp.t",
    ] {
        round += 1;
        let name = format!("made{round}");
        let table = if call.contains("pg_temp") {
            agent.ask(&query("create temp table t (a int)"));
            agent.ask(&query("insert into t values (1)"));
            "anyelement"
        } else {
            "v"
        };
        agent.ask(&query("select v.a, v.b from v"));
        stack.superuser(&format!(
            "CREATE FUNCTION {name}({table}) RETURNS text LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.canary VALUES (''{name}''); RETURN ''x''; END'"
        ));
        agent.errors.clear();
        agent.ask(&query(&call.replace('F', &name)));
        assert!(agent.errors.iter().any(|error| error.contains("42501")), "{call}: {:?}", agent.errors);
    }
    assert_eq!(stack.superuser("select string_agg(what, ' ') from canary"), "");

    // If there is no such function, the server reports it. A column passes at once.
    agent.errors.clear();
    agent.ask(&query("select v.nothing from v"));
    assert!(agent.errors.iter().any(|error| error.contains("42703")), "{:?}", agent.errors);
    stack
        .superuser("ALTER TABLE v ADD COLUMN fresh int DEFAULT 7; CREATE VIEW fresh_view AS SELECT a FROM v; GRANT SELECT ON fresh_view TO app");
    agent.errors.clear();
    for harmless in [
        "select v.fresh from v",
        "select f.a from fresh_view f",
        "select t.a from t",
        "select e.key, e.value from jsonb_each('{\"a\": 1}') e",
        "select g.g from generate_series(1, 2) g",
        "select (row(1, 2)::pair).x",
        "select c.relname, c.oid from pg_class c limit 1",
        "insert into v values (2, 'x') on conflict (a) do update set b = excluded.b",
        "with w(n) as (select 1) select w.n from w",
        "select v.ctid, v.xmin from v",
        "select v.* from v",
        "select n.nullif from (select nullif(1, 2)) n",
    ] {
        agent.ask(&query(harmless));
        assert!(agent.errors.is_empty(), "{harmless}: {:?}", agent.errors);
    }
}

/// A view hands writes on to the table behind it, under whatever name it stands.
#[test]
fn a_write_through_a_temporary_view_is_held() {
    let views = [
        ("tv", "CREATE TEMP VIEW tv AS SELECT * FROM orders"),
        ("orders", "CREATE TEMP VIEW orders AS SELECT * FROM public.orders"),
        ("tv", "CREATE OR REPLACE TEMPORARY VIEW tv AS SELECT id, amount FROM orders WHERE id > 0"),
        ("tv", "CREATE TEMP VIEW first AS SELECT * FROM orders; CREATE TEMP VIEW tv AS SELECT * FROM first"),
        ("tv", "CREATE VIEW pg_temp.tv AS TABLE orders"),
        ("tv", "BEGIN; CREATE TEMP VIEW tv AS SELECT * FROM orders"),
        ("tv", "CREATE TEMP VIEW other AS SELECT * FROM orders; ALTER VIEW other RENAME TO tv"),
        (
            "tv",
            "PREPARE u AS SELECT 1; CREATE TEMP VIEW tv AS SELECT 1 AS amount; CREATE OR REPLACE TEMP VIEW tv AS SELECT amount FROM orders",
        ),
    ];
    for version in [15, 18] {
        let stack = Stack::with(&Setup { version, superuser: true, ..Setup::default() });
        let untouched = || stack.superuser("SELECT count(*) FROM orders WHERE amount > 0");
        let before = untouched();
        for (place, (name, view)) in views.iter().enumerate() {
            let writes = [
                format!("UPDATE {name} SET amount = -1"),
                format!("UPDATE {name} SET amount = -1 WHERE amount = 5"),
                format!("DELETE FROM {name}"),
                format!("DELETE FROM pg_temp.{name}"),
                format!("UPDATE pg_temp.{name} SET amount = -1"),
                format!("WITH x AS (DELETE FROM {name} RETURNING 1) SELECT count(*) FROM x"),
                format!("PREPARE w AS DELETE FROM {name}; EXECUTE w"),
            ];
            for (number, write) in writes.iter().enumerate() {
                // Each session reads the catalogue anew, so each view meets each write in one way only.
                let way = match (place + number) % 6 {
                    0 => vec![wire::query(view), wire::query(write)],
                    1 => vec![wire::query(&format!("{view}; {write}"))],
                    2 => vec![wire::query(view), [wire::extended(write, &[]), wire::sync()].concat()],
                    _ => continue,
                };
                let way = if version == 18 && place > 2 { continue } else { way };
                let mut agent = wire::Wire::deferring_agent(stack.port);
                for message in &way {
                    agent.ask(message);
                }
                agent.ask(&wire::query("COMMIT"));
                assert_eq!(untouched(), before, "{version}: {view}: {write}: {:?}", agent.errors);
            }
        }
        // One over the settings sets any of them.
        for (name, after) in [
            ("tv", "UPDATE tv SET setting = 'replica' WHERE name = 'session_replication_role'"),
            ("tv", "UPDATE pg_temp.tv SET setting = 'replica' WHERE name = 'session_replication_role'"),
            ("orders", "UPDATE orders SET setting = 'replica' WHERE name = 'session_replication_role'"),
        ] {
            let mut agent = wire::Wire::deferring_agent(stack.port);
            for begin in ["SELECT 1", "BEGIN"] {
                agent.ask(&wire::query(begin));
                agent.ask(&wire::query(&format!("CREATE TEMP VIEW {name} AS SELECT * FROM pg_settings")));
                agent.ask(&wire::query(after));
                agent.ask(&[wire::extended(after, &[]), wire::sync()].concat());
                agent.ask(&wire::query("COMMIT"));
                assert_eq!(
                    agent.numbers("SELECT (current_setting('session_replication_role') = 'origin')::int"),
                    [1],
                    "{version}: {after}"
                );
            }
        }
    }
}

/// Upstream is asked whether a name is that of such a view.
#[test]
fn a_session_with_a_temporary_view_may_write_to_other_tables() {
    let stack = Stack::with(&Setup { superuser: true, ..Setup::default() });
    let mut agent = wire::Wire::deferring_agent(stack.port);
    let passes = |agent: &mut wire::Wire, bytes: &[u8], expected: &str| {
        assert_eq!(agent.ask(bytes), expected, "{:?}", agent.errors);
    };
    let unit = |sql: &str, values: &[&str]| [wire::extended(sql, values), wire::sync()].concat();
    passes(&mut agent, &wire::query("CREATE TEMP VIEW tv AS SELECT * FROM orders"), "C[CREATE VIEW]ZI");
    passes(&mut agent, &wire::query("UPDATE orders SET amount = amount WHERE id = 5"), "C[UPDATE 1]ZI");
    passes(&mut agent, &unit("UPDATE orders SET amount = $1 WHERE id = $2", &["7", "5"]), "12C[UPDATE 1]ZI");
    passes(&mut agent, &wire::query("BEGIN"), "C[BEGIN]ZT");
    passes(&mut agent, &unit("DELETE FROM orders WHERE id = $1", &["6"]), "12C[DELETE 1]ZT");
    passes(&mut agent, &wire::query("ROLLBACK"), "C[ROLLBACK]ZI");
    passes(&mut agent, &wire::query("CREATE TEMP TABLE stage (id int)"), "C[CREATE TABLE]ZI");
    passes(&mut agent, &wire::query("INSERT INTO stage VALUES (1), (2)"), "C[INSERT 0 2]ZI");
    passes(&mut agent, &wire::query("DELETE FROM stage"), "C[DELETE 2]ZI");
    passes(&mut agent, &unit("DELETE FROM pg_temp.stage WHERE id = 1", &[]), "12C[DELETE 0]ZI");
    passes(&mut agent, &wire::query("DROP VIEW tv"), "C[DROP VIEW]ZI");
    assert!(stack.waiting().is_empty());
}
