//! Statements that were held although they are harmless.

use super::*;

/// Bulk loaders name their staging tables without a schema. Upstream says whether the name is theirs.
#[test]
fn a_temporary_table_is_recognised_by_its_plain_name_while_it_exists() {
    let stack = Stack::with(&Setup {
        sql:
            "CREATE TABLE staging (id int); INSERT INTO staging VALUES (1); ALTER TABLE staging OWNER TO app"
                .into(),
        ..Setup::default()
    });
    let kept = || stack.superuser("select count(*) from public.staging");
    let mut agent = Wire::deferring_agent(stack.port);
    let ask = |agent: &mut Wire, sql: &str| agent.ask(&query(sql));

    assert_eq!(
        ask(&mut agent, "CREATE TEMP TABLE staging (id int); INSERT INTO staging VALUES (1), (2)"),
        "C[CREATE TABLE]C[INSERT 0 2]ZI"
    );
    for (sql, tag) in [
        ("CREATE INDEX staging_id ON staging (id)", "CREATE INDEX"),
        ("ANALYZE staging", "ANALYZE"),
        ("ALTER TABLE staging ADD COLUMN note text", "ALTER TABLE"),
        ("COMMENT ON COLUMN staging.note IS 'x'", "COMMENT"),
        ("UPDATE staging SET note = 'x'", "UPDATE 2"),
        ("DELETE FROM staging", "DELETE 2"),
        ("TRUNCATE staging", "TRUNCATE TABLE"),
        ("DROP INDEX staging_id", "DROP INDEX"),
    ] {
        assert_eq!(ask(&mut agent, sql), format!("C[{tag}]ZI"), "{sql}: {:?}", agent.errors);
    }
    assert_eq!(agent.ask(&[extended("TRUNCATE staging", &[]), sync()].concat()), "12C[TRUNCATE TABLE]ZI");

    // Where the answer would not hold for what runs.
    let held = |seen: String, sql: &str| assert!(seen.contains("E42501"), "{sql}: {seen}");
    held(ask(&mut agent, "DROP TABLE staging; DROP TABLE staging"), "twice in a text");
    held(ask(&mut agent, "DROP TABLE staging, orders"), "with a permanent one");
    let twice = [extended("DROP TABLE staging", &[]), extended("DROP TABLE staging", &[]), sync()].concat();
    held(agent.ask(&twice), "twice in a pipeline");
    assert_eq!(kept(), "1");
    ask(&mut agent, "CREATE TEMP TABLE IF NOT EXISTS staging (id int)");
    assert_eq!(ask(&mut agent, "BEGIN"), "C[BEGIN]ZT");
    assert_eq!(ask(&mut agent, "DROP TABLE staging"), "C[DROP TABLE]ZT");
    held(ask(&mut agent, "DROP TABLE staging"), "dropped in this transaction");
    assert_eq!(ask(&mut agent, "ROLLBACK"), "C[ROLLBACK]ZI");
    assert_eq!(ask(&mut agent, "TRUNCATE staging"), "C[TRUNCATE TABLE]ZI", "it is back");
    assert_eq!(ask(&mut agent, "DROP TABLE staging"), "C[DROP TABLE]ZI");
    held(ask(&mut agent, "DROP TABLE staging"), "gone");

    assert_eq!(
        ask(&mut agent, "BEGIN; CREATE TEMP TABLE staging (id int) ON COMMIT DROP; COMMIT"),
        "C[BEGIN]C[CREATE TABLE]C[COMMIT]ZI"
    );
    held(ask(&mut agent, "TRUNCATE staging"), "dropped by the commit");
    assert_eq!(
        ask(&mut agent, "BEGIN; CREATE TEMP TABLE staging (id int); ROLLBACK"),
        "C[BEGIN]C[CREATE TABLE]C[ROLLBACK]ZI"
    );
    held(ask(&mut agent, "TRUNCATE staging"), "rolled back");

    // A prepared statement keeps the table that it was analysed for, whatever stands before it by now.
    assert_eq!(ask(&mut agent, "CREATE TEMP TABLE other (id int)"), "C[CREATE TABLE]ZI");
    assert_eq!(agent.ask(&[parse("d", "DELETE FROM staging"), sync()].concat()), "1ZI");
    assert_eq!(ask(&mut agent, "CREATE TEMP TABLE staging (id int)"), "C[CREATE TABLE]ZI");
    held(agent.ask(&[bind("", "d", &[]), execute("", 0), sync()].concat()), "prepared before");
    assert_eq!(kept(), "1");
}

/// 100 embeddings of 1,536 dimensions are 1.8 MiB of literals.
#[test]
fn long_lists_of_literals_are_classified_like_short_ones() {
    let stack = Stack::with(&Setup {
        policy: Some("[[rule]]\nname = 'no-writes'\nwhen = { class = ['write', 'mass_write'], table = ['public.customers', 'public.events'] }\nthen = 'deny'\n".into()),
        sql: "CREATE VIEW late AS SELECT * FROM customers; ALTER VIEW late OWNER TO app;
              CREATE SCHEMA parts; GRANT USAGE ON SCHEMA parts TO app;
              CREATE TABLE events (id int, t text) PARTITION BY RANGE (id);
              CREATE TABLE parts.e1 PARTITION OF events FOR VALUES FROM (0) TO (100000000);
              ALTER TABLE events OWNER TO app; ALTER TABLE parts.e1 OWNER TO app"
            .into(),
        ..Setup::default()
    });
    let mut agent = Wire::deferring_agent(stack.port);
    let made = agent.ask(&query("CREATE TEMP TABLE e (id int PRIMARY KEY, v float8[])"));
    assert_eq!(made, "C[CREATE TABLE]ZI");

    let vector = format!("ARRAY[{}]", vec!["0.123456789"; 1536].join(","));
    let rows: Vec<String> = (0..100).map(|n| format!("({n},{vector})")).collect();
    assert_eq!(agent.ask(&query(&format!("INSERT INTO e VALUES {}", rows.join(",")))), "C[INSERT 0 100]ZI");
    let rows: Vec<String> = (1000..101_000).map(|n| format!("('{n}'::int)")).collect();
    let insert = format!("INSERT INTO e (id) VALUES {} ON CONFLICT (id) DO NOTHING", rows.join(","));
    assert_eq!(agent.ask(&query(&insert)), "C[INSERT 0 100000]ZI");
    let keys: Vec<String> = (1_000_000..1_200_000).map(|n| n.to_string()).collect();
    let delete = format!("DELETE FROM e WHERE id IN ({})", keys.join(", "));
    assert!(delete.len() > 1 << 20);
    assert_eq!(agent.ask(&query(&delete)), "C[DELETE 0]ZI");

    for (table, behind, columns) in
        [("late", "customers", 3), ("parts.e1", "events", 2), ("public.late", "customers", 3)]
    {
        for count in [1, 3000] {
            let row = |n: u32| format!("({}{})", 20_000 + n, ", 'xxxx'".repeat(columns - 1));
            let rows: Vec<String> = (0..count).map(row).collect();
            let seen = agent.ask(&query(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))));
            assert!(seen.starts_with("E42501"), "{count} rows into {table}: {seen}");
        }
        let written = stack.superuser(&format!("select count(*) from {behind} where id >= 20000"));
        assert_eq!(written, "0", "{behind}");
    }
}

/// A search by trigrams, an id: what extensions bring passes where the policy trusts them.
#[test]
fn a_trusted_extension_counts_as_soon_as_it_exists_and_covers_only_its_members() {
    let stack = Stack::with(&Setup {
        policy: Some("safe_extensions = ['pg_trgm', 'uuid-ossp']\nsafe_settings = ['app.*']\nsafe_functions = ['public.st_*']\n".into()),
        sql: "CREATE EXTENSION pg_trgm; CREATE EXTENSION fuzzystrmatch; CREATE EXTENSION dblink;
              CREATE FUNCTION st_one(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
              CREATE FUNCTION other(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'"
            .into(),
        ..Setup::default()
    });
    let mut agent = Wire::deferring_agent(stack.port);
    let mut class = |sql: &str| {
        let seen = agent.ask(&query(sql));
        if seen.contains("E42501") { "held" } else { "passes" }
    };
    for sql in [
        "SELECT similarity(name, 'n1') FROM customers LIMIT 3",
        "SELECT * FROM customers WHERE name % 'n1'",
        "SELECT name <-> 'n1' FROM customers ORDER BY name <-> 'n1' LIMIT 1",
        "CREATE TEMP TABLE words (w text); CREATE INDEX ON pg_temp.words USING gin (w gin_trgm_ops)",
        "SELECT st_one(1)",
        "SET app.tenant_id = '42'",
        "SELECT set_config('app.tenant_id', '42', false)",
        "SET pg_trgm.similarity_threshold = 0.5",
    ] {
        assert_eq!(class(sql), "passes", "{sql}");
    }
    for sql in [
        "SELECT levenshtein('a', 'b')",
        "SELECT * FROM dblink('', 'select 1') t(a int)",
        "SELECT other(1)",
        "SET other.x = '1'",
        "SET session_replication_role = replica",
        "SELECT uuid_generate_v4()",
    ] {
        assert_eq!(class(sql), "held", "{sql}");
    }
    let creating = stack.psql_start(&["CREATE EXTENSION \"uuid-ossp\""]);
    let mut request = None;
    wait_for("the request for it", || {
        request =
            stack.waiting().into_iter().find(|waiting| waiting.to_string().contains("CREATE EXTENSION"));
        request.is_some()
    });
    stack.approve(BOB, &request.unwrap());
    let said = support::ended(creating);
    assert!(!said.contains("ERROR"), "{said}");
    wait_for("the new extension to be known", || class("SELECT uuid_generate_v4()") == "passes");
}
