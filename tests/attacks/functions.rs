//! Functions that run although the statement does not call them by name.

use super::*;

#[test]
fn a_value_whose_domain_check_runs_a_function_is_held_at_any_depth() {
    let traps = "
        CREATE TABLE canary (what text);
        CREATE FUNCTION public.checked(int) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.canary VALUES (''check''); RETURN true; END';
        CREATE DOMAIN small AS int CHECK (checked(VALUE));
        CREATE TYPE span AS RANGE (subtype = small);
        CREATE TYPE pair AS (a int, b small);
        CREATE DOMAIN pairs AS pair[];
        CREATE TYPE deep AS (p pairs, s span_multirange);
        CREATE FUNCTION public.checked(int[]) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.canary VALUES (''check''); RETURN true; END';
        CREATE DOMAIN ints AS int[] CHECK (checked(VALUE));
    ";
    let stack = Stack::with(&Setup { sql: traps.to_owned(), superuser: true, ..Setup::default() });
    let ways = [
        "'1'::small",
        "'[1,2]'::span",
        "'{[1,2]}'::span_multirange",
        "'(1,2)'::pair",
        "array['(1,2)']::pairs",
        "'(,\"{[1,2]}\")'::deep",
        "'{1}'::small[]",
        "'{1}'::ints",
    ];
    for way in ways {
        stack.superuser(&format!("select {way}"));
    }
    assert_ne!(stack.superuser("select count(*) from canary"), "0", "the traps snap");
    stack.superuser("truncate canary");

    let script = format!("for way in {ways:?}:\n    attempt(lambda: session().execute('select ' + way))\n");
    attack(&stack, &script);
}

#[test]
fn functions_in_attributes_casts_operators_and_wrappers_are_held() {
    let stack = stack();
    attack(
        &stack,
        r#"
for sql in [
    "select evil.ping('x')",
    "select ('x'::text).ping",
    "set search_path = evil; select (q.t).ping from (select 'x'::text as t) q",
    "set search_path = evil; select q.ping from unnest(array['x']) q",
    "select 'x'::text::evil.mood",
    "select cast('x'::text as evil.mood)",
    "select 'a' operator(evil.@@@) evil.ping('b')",
    "explain analyze select evil.ping('x')",
    "prepare p as select evil.ping('x')",
    "prepare p as select evil.ping('x'); execute p",
    "declare c cursor with hold for select evil.ping('x')",
    "copy (select evil.ping('x')) to stdout",
    "create temp table t as select evil.ping('x') as v",
    "create temp table t (v text default evil.ping('x')); insert into t default values",
    "create temp table t (v text check (evil.ping(v) = 'x')); insert into t values ('x')",
    "create temp table t (v text, w text generated always as (evil.ping(v)) stored); insert into t values ('x')",
    "insert into orders select 9999, 1, 1 where evil.ping('x') = 'x'",
    "update orders set amount = 1 where id = 1 and evil.ping('x') = 'x'",
    "delete from orders where id = 1 returning evil.ping('x')",
    "select * from orders order by evil.ping('x') limit 1",
    "select * from rows from (evil.ping('x')) as r",
    "select count(*) filter (where evil.ping('x') = 'x') from orders",
    "with w as (select evil.ping('x')) select * from w",
    "select case when true then evil.ping('x') end",
    "merge into orders o using (select 1 as id) s on o.id = s.id when matched and evil.ping('x') = 'x' then do nothing",
    "table customers; select evil.ping('x')",
    "values (evil.ping('x'))",
    "do $$ begin perform evil.ping('x'); end $$",
    "select U&\"\\0065vil\".U&\"p\\0069ng\"('x')",
    "select \"evil\".\"ping\"('x')",
    "select evil . /* */ ping ( 'x' )",
]:
    c = session()
    attempt(lambda: c.pgconn.exec_(sql.encode()))
    c.close()
    c = session()
    attempt(lambda: c.execute(sql.encode(), prepare=True))
    c.close()
"#,
    );
}

/// Nothing in these texts names the function that they run.
#[test]
fn functions_that_run_without_being_named_are_held() {
    let stack = Stack::with(&Setup {
        sql: "
            CREATE TABLE canary (what text);
            GRANT INSERT, SELECT ON canary TO app;
            CREATE FUNCTION f(text) RETURNS bool LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.canary VALUES ($1); RETURN true; END';
            CREATE DOMAIN dom AS text CHECK (f(VALUE));
            CREATE TYPE pair AS (a dom, b int);
            CREATE FUNCTION eq(varchar, varchar) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT public.f($1)';
            CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = eq);
            CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE plpgsql AS
                'BEGIN PERFORM public.f(''cmp''); RETURN sign($1 - $2); END';
            CREATE OPERATOR CLASS r_ops FOR TYPE int USING btree AS
                OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int);
            CREATE TYPE rrng AS RANGE (SUBTYPE = int4, SUBTYPE_OPCLASS = r_ops);"
            .to_owned(),
        ..Setup::default()
    });
    // Without a proxy they do run it.
    stack.superuser("select case 'a'::varchar when 'b'::varchar then 1 end; select '[1,2]'::rrng");
    assert_ne!(stack.superuser("select count(*) from canary"), "0");
    stack.superuser("truncate canary");
    attack(
        &stack,
        r#"
c = session()
values = {'dom': b'x', '_dom': b'{x}', 'pair': b'(x,1)', '_pair': b'{"(x,1)"}', 'rrng': b'[1,2]', '_rrng': b'{"[1,2]"}'}
p = c.pgconn
for name, value in values.items():
    oid = c.execute(f"select '{name}'::regtype::oid").fetchone()[0]
    result = p.exec_params(b'select $1', [value], [oid])
    assert result.error_field(pq.DiagnosticField.SQLSTATE) == b'42501', (name, result.error_message)
    p.prepare(b'p' + name.encode(), b'select 1 where $1 is null', [oid])
    attempt(lambda: c.execute("execute p%s('%s')" % (name, value.decode())))
for query in [
    "select case 'x'::varchar when 'b'::varchar then 1 end",
    "select 'x'::varchar in (select 'b'::varchar)",
    "select 'x'::varchar not in (select 'b'::varchar)",
    "select 1 from (select 'x'::varchar v) x join (select 'b'::varchar v) y using (v)",
    "select 1 from (select 'x'::varchar v) x natural join (select 'b'::varchar v) y",
    "select '[1,2]'::public.rrng",
    "create temp table ix as select generate_series(1,3) x",
    "create index on pg_temp.ix (x r_ops)",
    "create temp table parted (x int) partition by range (x r_ops)",
]:
    attempt(lambda: c.execute(query))
"#,
    );
}

/// An array type goes by a name of its own, `_` and its element's.
#[test]
fn a_cast_to_an_array_type_by_its_own_name_is_held() {
    let stack = Stack::with(&Setup {
        sql: "CREATE TABLE calls (n int); GRANT INSERT, SELECT ON calls TO app;
              CREATE FUNCTION noted(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO calls VALUES (1); RETURN true; END';
              CREATE DOMAIN d AS text CHECK (noted(value));
              CREATE DOMAIN _odd AS text CHECK (noted(value));
              CREATE DOMAIN a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_underscore AS text CHECK (noted(value));
              CREATE TYPE comp AS (a d); CREATE TABLE tdom (a d, b int); CREATE VIEW vd AS SELECT * FROM tdom;
              CREATE TYPE mood AS ENUM ('a'); CREATE TYPE plain AS ENUM ('a');
              CREATE FUNCTION to_mood(int) RETURNS mood LANGUAGE plpgsql AS 'BEGIN INSERT INTO calls VALUES (1); RETURN ''a''; END';
              CREATE CAST (int AS mood) WITH FUNCTION to_mood(int);"
            .into(),
        ..Setup::default()
    });
    let mut agent = wire::Wire::connect(
        stack.port,
        &[("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")],
        support::TOKEN,
    );
    for sql in [
        "SELECT '{x}'::_d",
        "SELECT public._d '{x}'",
        "SELECT ARRAY['x']::_d",
        "SELECT '{x}'::__odd",
        "SELECT '{x}'::_a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_underscor",
        "SELECT '{x}'::_a_name_of_sixty_three_bytes_which_leaves_no_room_for_the_undersco",
        r#"SELECT '{"(x)"}'::_comp"#,
        r#"SELECT '{"(x,1)"}'::_tdom"#,
        r#"SELECT '{"(x,1)"}'::_vd"#,
        "SELECT ARRAY[1]::_mood",
        r#"SELECT * FROM json_to_record('{"a":["x"]}') AS x(a _d)"#,
        "SELECT array_append('{}'::_d, 'x')",
        // Attributes that are casts.
        "SELECT ('x'::text).d",
        "SELECT ('x'::varchar).d",
        "SELECT ('{x}'::text)._d",
        "SELECT (t.b).d FROM tdom t",
        "SELECT f.d FROM unnest(ARRAY['q']) f",
        "SELECT (current_user).d",
        "PREPARE p(_d) AS SELECT $1",
        "EXECUTE p('{x}')",
        "CREATE TEMP TABLE u (a _d)",
        "INSERT INTO pg_temp.u VALUES ('{x}')",
    ] {
        agent.ask(&wire::query(sql));
    }
    assert_eq!(stack.superuser("SELECT count(*) FROM calls"), "0", "code ran unasked: {:?}", agent.errors);
    assert_eq!(agent.ask(&wire::query("SELECT '{1,2}'::_int4, '{a}'::_plain")), "TDC[SELECT 1]ZI");
}
