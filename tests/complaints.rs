//! What users of other proxies have complained about (PgBouncer, pgcat, Odyssey, Supavisor, RDS Proxy),
//! each as a test: real Postgres, real sockets, through the real binary.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use support::{AGENT, BOB, Setup, Stack, TOKEN, text, wait_for};
use wire::{Wire, bind, cancel, close, describe, execute, extended, flush, frame, parse, query, sync};

/// Denies what the tests need denied at once, so that no reviewer has to answer.
const DENY_DROP: &str = r#"
[[rule]]
name = "no-ddl"
when = { class = ["ddl"] }
then = "deny"
"#;

fn denying() -> Stack {
    Stack::with(&Setup { policy: Some(DENY_DROP.to_owned()), ..Setup::default() })
}

/// The same server without a proxy, as the role that the proxy logs in with.
fn direct(stack: &Stack) -> Wire {
    let parameters = [("user", "app"), ("database", "postgres"), ("application_name", "direct")];
    Wire::connect(stack.cluster.port(), &parameters, "upstream-secret")
}

#[test]
fn a_sync_inside_a_copy_is_not_counted_as_a_reply() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    let rows = [frame('d', b"5001\t1\t1\n"), sync(), frame('d', b"5002\t1\t1\n"), sync(), flush()].concat();
    let copy = [extended("copy orders from stdin", &[]), sync(), rows.clone(), frame('c', b""), sync()];

    assert_eq!(agent.ask(&copy.concat()), "12GC[COPY 2]ZI");
    assert_eq!(agent.ask(&query("select count(*) from orders where id > 5000")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.row, "2");

    // The same within a Query, and one that fails in the middle.
    let copy = [query("copy orders from stdin"), rows, frame('f', b"enough\0")].concat();
    assert_eq!(agent.ask(&copy), "GE57014ZI");
    assert_eq!(agent.ask(&query("select 1")), "TDC[SELECT 1]ZI");
    assert!(agent.is_silent(Duration::from_millis(200)), "one ReadyForQuery each");
}

/// An error makes upstream skip to Sync: what would have closed and prepared a name behind it never
/// happened.
#[test]
fn the_map_of_statements_is_never_ahead_of_upstream() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    assert_eq!(agent.ask(&[parse("x", "select 'old'"), sync()].concat()), "1ZI");

    let replace = [close('S', "x"), parse("x", "select 'new'")].concat();
    let failing = [extended("select 1/0", &[]), replace.clone(), sync()].concat();
    let bound = [bind("", "x", &[]), execute("", 0), sync()].concat();
    agent.send(&[failing, bound.clone()].concat());
    let seen = agent.until_ready();
    assert!(seen.ends_with("E22012ZI"), "{seen}");
    assert_eq!(agent.until_ready(), "2DC[SELECT 1]ZI");
    assert_eq!(agent.row, "old");

    agent.send(&[replace, sync(), bound].concat());
    assert_eq!((agent.until_ready(), agent.until_ready()), ("31ZI".into(), "2DC[SELECT 1]ZI".into()));
    assert_eq!(agent.row, "new");
}

/// An agent whose held statements fail at once.
fn impatient(port: u16) -> Wire {
    let mut agent = Wire::agent(port);
    assert_eq!(agent.ask(&query("SET countersign.hold = 'defer'")), "C[SET]ZI");
    agent
}

/// Bulk loaders name their staging tables without a schema. Upstream says whether the name is theirs.
#[test]
fn a_temporary_table_is_known_by_its_plain_name_for_as_long_as_it_is_one() {
    let stack = Stack::with(&Setup {
        sql:
            "CREATE TABLE staging (id int); INSERT INTO staging VALUES (1); ALTER TABLE staging OWNER TO app"
                .into(),
        ..Setup::default()
    });
    let kept = || stack.superuser("select count(*) from public.staging");
    let mut agent = impatient(stack.port);
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
fn long_statements_of_literals_ask_nobody_and_are_judged_like_short_ones() {
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
    let mut agent = impatient(stack.port);
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
fn a_trusted_extension_is_known_as_soon_as_it_is_there_and_covers_its_own_only() {
    let stack = Stack::with(&Setup {
        policy: Some("safe_extensions = ['pg_trgm', 'uuid-ossp']\nsafe_settings = ['app.*']\nsafe_functions = ['public.st_*']\n".into()),
        sql: "CREATE EXTENSION pg_trgm; CREATE EXTENSION fuzzystrmatch; CREATE EXTENSION dblink;
              CREATE FUNCTION st_one(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
              CREATE FUNCTION other(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'"
            .into(),
        ..Setup::default()
    });
    let mut agent = impatient(stack.port);
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

#[test]
fn a_flush_is_neither_dropped_nor_taken_for_a_sync() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    let mut other = direct(&stack);

    agent.send(&[extended("insert into orders values (6001, 1, 1)", &[]), flush()].concat());
    let answers: String = (0..3).map(|_| agent.read().unwrap().0).collect();
    assert_eq!(answers, "12C", "not dropped");
    assert!(agent.is_silent(Duration::from_millis(300)), "no ReadyForQuery");
    other.ask(&query("select count(*) from orders where id = 6001"));
    assert_eq!(other.row, "0", "the implicit transaction is open");

    assert_eq!(agent.ask(&sync()), "ZI");
    other.ask(&query("select count(*) from orders where id = 6001"));
    assert_eq!(other.row, "1");
}

/// 8,000 statements one way while 8 MB of rows come the other way, cut where no message ends: every
/// buffer between the two is full most of the time.
#[test]
fn a_pipeline_that_fills_all_buffers_both_ways_does_not_deadlock() {
    const COUNT: usize = 8_000;
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    let mut writer = agent.socket.try_clone().unwrap();
    let one = [extended("select repeat('x', 1000)", &[]), sync()].concat();
    let written = std::thread::spawn(move || {
        let all = one.repeat(COUNT);
        for part in all.chunks(4093) {
            writer.write_all(part).unwrap();
        }
    });
    // The agent begins to read only when its own socket takes no more.
    std::thread::sleep(Duration::from_millis(500));

    for at in 0..COUNT {
        assert_eq!(agent.until_ready(), "12DC[SELECT 1]ZI", "statement {at}");
    }
    written.join().unwrap();
    assert!(agent.is_silent(Duration::from_millis(100)));
}

/// Pipelines from a seed: each Sync and each Query has exactly one ReadyForQuery, the same as without a
/// proxy.
#[test]
fn no_ready_for_query_is_missing_and_none_is_extra() {
    let stack = denying();
    let mut through = Wire::agent(stack.port);
    let mut without = direct(&stack);
    let mut seed = 20_260_101_u64;
    let mut choose = move |count: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 20) % count
    };
    for _ in 0..150 {
        let mut pipeline = Vec::new();
        let mut ready = 0;
        for _ in 0..=choose(12) {
            let sql = ["select 1", "select 1/0", "begin", "commit", "nonsense", "select id from orders", ""]
                [choose(7) as usize];
            match choose(8) {
                0 => {
                    pipeline.extend([extended("select 1", &[]), sync(), query(sql)].concat());
                    ready += 2;
                }
                1 => pipeline.extend([close('S', "x"), parse("x", sql)].concat()),
                2 => pipeline.extend([describe('S', "x"), flush()].concat()),
                3 => pipeline.extend([bind("p", "x", &[]), execute("p", 3), execute("p", 0)].concat()),
                4 => {
                    pipeline.extend(sync());
                    ready += 1;
                }
                _ => {
                    pipeline.extend([extended(sql, &[]), sync()].concat());
                    ready += 1;
                }
            }
        }
        pipeline.extend([sync(), query("rollback")].concat());
        ready += 2;
        through.send(&pipeline);
        without.send(&pipeline);
        let answers = |wire: &mut Wire| -> Vec<String> {
            // A Query behind an error is skipped, so a final marker tells where the answers end.
            let marker = query("select 'the end'");
            wire.send(&marker);
            let mut answers = Vec::new();
            while wire.row != "the end" {
                answers.push(wire.until_ready());
            }
            wire.row.clear();
            answers
        };
        let (through, without) = (answers(&mut through), answers(&mut without));
        assert!(without.len() <= ready + 1);
        assert_eq!(through, without);
    }
}

#[test]
fn an_upstream_that_ends_a_session_is_one_error_and_not_two() {
    let stack = Stack::start();
    let terminate = |agent: &Wire| {
        stack.superuser(&format!("select pg_terminate_backend({})", agent.key.0));
    };
    let mut idle = Wire::agent(stack.port);
    terminate(&idle);
    assert_eq!(idle.until_ready(), "E57P01!");

    let mut running = Wire::agent(stack.port);
    running.send(&query("select pg_sleep(60)"));
    wait_for("it runs", || {
        stack.superuser("select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()") == "1"
    });
    terminate(&running);
    assert_eq!(running.until_ready(), "TE57P01!");

    let mut held = Wire::agent(stack.port);
    held.send(&query("drop table orders"));
    stack.request();
    terminate(&held);
    assert_eq!(held.until_ready(), "E57P01!");
    wait_for("nobody is asked any more", || stack.waiting().is_empty());
}

/// Postgres signals a process, not a statement: sent straight, a cancel that comes late hits whatever runs
/// next. Through the proxy it never does.
#[test]
fn a_late_cancel_never_hits_the_next_statement() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    let (port, key) = (stack.port, agent.key);
    let mut hit = 0;
    for round in 0..40 {
        agent.send(&query("select pg_sleep(0.02)"));
        let cancelling = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10 + round % 20));
            cancel(port, key);
        });
        let first = agent.until_ready();
        hit += usize::from(first == "TE57014ZI");
        assert!(matches!(first.as_str(), "TDC[SELECT 1]ZI" | "TE57014ZI" | "E57014ZI"), "{first}");
        let next = agent.ask(&query("select count(*) from generate_series(1, 20000)"));
        cancelling.join().unwrap();
        // The cancel may be for this one if it came while this one ran: but then it was not late.
        if next != "TDC[SELECT 1]ZI" {
            assert_ne!(first, "TE57014ZI", "two statements cancelled by one request");
        }
        assert_eq!(agent.ask(&query("select 1")), "TDC[SELECT 1]ZI", "round {round}");
    }
    assert!(hit > 0, "some cancels came in time");
}

#[test]
fn a_cancel_always_ends() {
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);

    // Nothing runs; nobody has such a key; many at once.
    cancel(stack.port, agent.key);
    cancel(stack.port, (agent.key.0, agent.key.1.wrapping_add(1)));
    cancel(stack.port, (1, 2));
    let (port, key) = (stack.port, agent.key);
    let crowd: Vec<_> = (0..40).map(|_| std::thread::spawn(move || cancel(port, key))).collect();
    crowd.into_iter().for_each(|one| one.join().unwrap());
    assert_eq!(agent.ask(&query("select 1")), "TDC[SELECT 1]ZI");

    // What is held.
    agent.send(&query("drop table orders"));
    stack.request();
    cancel(stack.port, agent.key);
    assert_eq!(agent.until_ready(), "E57014ZI");
    assert!(stack.waiting().is_empty());
}

#[test]
fn nothing_is_smuggled_in_at_start_up() {
    let stack = Stack::start();
    let login = |extra: &[(&str, &str)]| {
        let parameters = [&[("user", AGENT), ("database", "app")], extra].concat();
        Wire::try_connect(stack.port, &parameters, TOKEN)
    };
    for extra in [
        ("options", "-c role=postgres"),
        ("options", "-crole=postgres"),
        ("options", "-c\u{b}role=postgres"),
        ("options", "--role=postgres"),
        ("options", "-c session_preload_libraries=x"),
        ("options", "-c jit=off -c session_replication_role=replica"),
        ("options", r"-c countersign.purpose=a\ -c\ b -c role=x"),
        ("options", "-d 5"),
        ("role", "postgres"),
        ("search_path", "evil, pg_catalog"),
        ("search_path", "pg_temp, public"),
        ("search_path", "\"PG_TEMP"),
        ("Search_Path", "pg_temp"),
        ("search_path", "public, \"pg_catalog\""),
        ("replication", "database"),
    ] {
        let refused = login(&[extra]).err().unwrap_or_else(|| panic!("{extra:?} got in"));
        assert!(refused.contains("C0A000"), "{extra:?}: {refused}");
        let name = if extra.0 == "options" { "" } else { extra.0 };
        assert!(refused.to_lowercase().contains(&name.to_lowercase()), "{extra:?}: {refused}");
    }

    // A name with quotes is shown, not run; upstream's names agent and session whatever was asked.
    let name = "x'; drop table orders; --\" \\";
    let mut quoted = login(&[("application_name", name), ("_pq_.anything", "1")]).unwrap();
    quoted.ask(&query("select current_setting('application_name')"));
    assert!(quoted.row.starts_with("countersign reporting-bot "), "{}", quoted.row);
    assert_eq!(stack.superuser("select count(*) from orders"), "1000");
    // The last one counts, and it is the one that is checked.
    let twice = login(&[("search_path", "public"), ("search_path", "pg_temp")]);
    assert!(twice.is_err());
}

/// Segments of TCP that the proxy has sent and that carry data, on its one connection that `filter` names.
fn segments(filter: &str) -> u64 {
    let output = Command::new("ss").args(["-tniHO"]).arg(filter).output().expect("ss (Debian: iproute2)");
    let shown = String::from_utf8(output.stdout).unwrap();
    let line =
        shown.lines().find(|line| line.contains("data_segs_out:")).unwrap_or_else(|| panic!("{shown}"));
    let count = line.split("data_segs_out:").nth(1).unwrap();
    count.split_whitespace().next().unwrap().parse().unwrap()
}

/// The proxy turns Nagle's algorithm off, so each write is a segment at least.
#[test]
fn a_pipeline_arrives_in_few_writes_and_so_does_a_result() {
    const COUNT: usize = 1000;
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("select 1"));
    let upstream = format!("dst 127.0.0.1:{}", stack.cluster.port());
    // There may be connections of the proxy's own: the session's is the one with its backend.
    let backend =
        stack.superuser(&format!("select client_port from pg_stat_activity where pid = {}", agent.key.0));
    let upstream = format!("src 127.0.0.1:{backend} and {upstream}");
    let agents = format!("src 127.0.0.1:{} and dst {}", stack.port, agent.socket.local_addr().unwrap());
    let one = extended("select $1", &["some value"]);
    for pipeline in [
        [one.repeat(COUNT), sync()].concat(),
        [one, sync()].concat().repeat(COUNT),
        query("select 'some value'").repeat(COUNT),
    ] {
        let (before, before_agent) = (segments(&upstream), segments(&agents));
        agent.send(&[pipeline.clone(), query("select 'the end'")].concat());
        agent.row.clear();
        let mut seen = String::new();
        while agent.row != "the end" {
            seen.push_str(&agent.until_ready());
        }
        assert_eq!(seen.matches("C[SELECT 1]").count(), COUNT + 1);
        let (wrote, answered) = (segments(&upstream) - before, segments(&agents) - before_agent);
        let bytes = pipeline.len();
        assert!(wrote <= 60, "{wrote} writes for {COUNT} statements of {bytes} bytes");
        assert!(answered <= 300, "{answered} writes for {COUNT} answers");
    }

    // Postgres itself writes 8 KiB at a time.
    let before_agent = segments(&agents);
    let seen = agent.ask(&query("select repeat('x', 1000) from generate_series(1, 10000)"));
    assert!(seen.ends_with("C[SELECT 10000]ZI"));
    let answered = segments(&agents) - before_agent;
    assert!(answered <= 1400, "{answered} writes for 10 MB");
}

#[test]
fn pgbench_prepares_scripts_of_several_commands() {
    let stack = denying();
    let script = stack.path("script.sql");
    let commands = "\\set id random(1, 100)
select name from customers where id = :id;
begin;
update orders set amount = amount + 1 where id = :id;
select amount from orders where id = :id;
savepoint s;
rollback to s;
commit;
\\startpipeline
select 1;
insert into orders values (:id + 100000 * :client_id + 1000000, :id, 1) on conflict do nothing;
select :id;
\\endpipeline
";
    std::fs::write(&script, commands).unwrap();
    for mode in ["simple", "extended", "prepared"] {
        // pgbench refuses pipelines in simple mode.
        let script_text = if mode == "simple" {
            commands.replace("\\startpipeline\n", "").replace("\\endpipeline\n", "")
        } else {
            commands.to_owned()
        };
        std::fs::write(&script, script_text).unwrap();
        let mut pgbench = Command::new("pgbench");
        pgbench.args(["-n", "-M", mode, "-c", "4", "-t", "25", "-f"]).arg(&script).arg(stack.url());
        let output = pgbench.output().expect("pgbench runs");
        let shown = text(&output);
        assert!(output.status.success(), "{mode}: {shown}");
        assert!(shown.contains("number of transactions actually processed: 100/100"), "{mode}: {shown}");
        assert!(!shown.contains("ERROR"), "{mode}: {shown}");
    }
}

#[test]
fn after_a_restart_of_upstream_the_session_is_told_and_notifications_come_again() {
    let mut stack = Stack::start();
    let mut listener = Wire::agent(stack.port);
    assert_eq!(listener.ask(&query("listen jobs")), "C[LISTEN]ZI");

    stack.cluster.restart().unwrap();
    assert_eq!(listener.until_ready(), "E57P01!", "an agent that waits for notifications must hear of it");

    let mut listener = Wire::agent(stack.port);
    assert_eq!(listener.ask(&query("listen jobs")), "C[LISTEN]ZI");
    let mut notifier = Wire::agent(stack.port);
    assert_eq!(notifier.ask(&query("notify jobs, 'again'")), "C[NOTIFY]ZI");
    let (kind, body) = listener.read().unwrap();
    assert_eq!(kind, 'A');
    assert_eq!(String::from_utf8_lossy(&body[4..]), "jobs\0again\0");
}

#[test]
fn two_sessions_prepare_different_statements_under_one_name() {
    let stack = denying();
    let (mut one, mut two) = (Wire::agent(stack.port), Wire::agent(stack.port));
    assert_eq!(one.ask(&[parse("s1", "select 'one'"), sync()].concat()), "1ZI");
    assert_eq!(two.ask(&[parse("s1", "select 'two'"), sync()].concat()), "1ZI");
    let run = [bind("", "s1", &[]), execute("", 0), sync()].concat();

    for _ in 0..3 {
        assert_eq!((one.ask(&run), two.ask(&run)), ("2DC[SELECT 1]ZI".into(), "2DC[SELECT 1]ZI".into()));
        assert_eq!((one.row.as_str(), two.row.as_str()), ("one", "two"));
    }
    // Within one session it is a collision, and the first stays.
    assert_eq!(one.ask(&[parse("s1", "select 'three'"), sync()].concat()), "E42P05ZI");
    one.ask(&run);
    assert_eq!(one.row, "one");
}

#[test]
fn discard_all_and_deallocate_all_forget_what_was_prepared() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    let run = [bind("", "s1", &[]), execute("", 0), sync()].concat();
    for (forget, tag) in [
        ("discard all", "DISCARD ALL"),
        ("deallocate all", "DEALLOCATE ALL"),
        ("deallocate s1", "DEALLOCATE"),
    ] {
        assert_eq!(agent.ask(&[parse("s1", "select 'before'"), sync()].concat()), "1ZI");
        assert_eq!(agent.ask(&query(forget)), format!("C[{tag}]ZI"));
        assert_eq!(agent.ask(&run), "E26000ZI", "{forget}");
        assert_eq!(agent.ask(&[parse("s1", "select 'after'"), sync()].concat()), "1ZI");
        assert_eq!(agent.ask(&run), "2DC[SELECT 1]ZI");
        assert_eq!(agent.row, "after");
        assert_eq!(agent.ask(&[close('S', "s1"), sync()].concat()), "3ZI");
    }
    // What fails forgets nothing.
    assert_eq!(agent.ask(&[parse("s1", "select 'kept'"), sync()].concat()), "1ZI");
    assert_eq!(agent.ask(&query("begin")), "C[BEGIN]ZT");
    assert_eq!(agent.ask(&query("discard all")), "E25001ZE");
    assert_eq!(agent.ask(&query("rollback")), "C[ROLLBACK]ZI");
    assert_eq!(agent.ask(&run), "2DC[SELECT 1]ZI");
    assert_eq!(agent.row, "kept");
}

#[test]
fn what_upstream_reports_of_itself_is_told_truthfully_and_changes_pass() {
    let stack = Stack::start();
    let (through, mut without) = (Wire::agent(stack.port), direct(&stack));
    let told = |wire: &Wire| {
        let mut told = wire.parameters.clone();
        told.retain(|(name, _)| name != "application_name");
        told.sort();
        told
    };
    assert_eq!(told(&through), told(&without));
    assert!(through.reported("server_version").is_some_and(|version| version.starts_with("15.")));

    let mut through = through;
    for wire in [&mut through, &mut without] {
        assert_eq!(wire.ask(&query("set timezone = 'Asia/Tokyo'")), "C[SET]ZI");
        assert_eq!(wire.reported("TimeZone"), Some("Asia/Tokyo"));
        assert_eq!(
            wire.ask(&query("begin; set local datestyle = 'German'; rollback")),
            "C[BEGIN]C[SET]C[ROLLBACK]ZI"
        );
        assert_eq!(wire.reported("DateStyle"), Some("ISO, MDY"));
    }
}

/// Postgres gives up a stream in which something else comes where copy data should: a `Parse` that a copy
/// swallowed must not be believed, nor the `Bind` behind it run what the name meant before.
#[test]
fn a_parse_that_a_copy_swallows_does_not_change_what_a_bind_runs() {
    let stack = denying();
    let mut agent = Wire::agent(stack.port);
    agent.send(&[parse("x", "drop table orders"), sync()].concat());
    assert_eq!(agent.until_ready(), "1ZI");

    let swallowed = [parse("x", "select 1"), bind("", "x", &[]), execute("", 0), sync()].concat();
    agent.send(&[query("copy customers from stdin"), swallowed].concat());
    let seen = agent.until_ready();

    assert_eq!(stack.superuser("select count(*) from orders"), "1000", "{seen}");
    assert!(seen.ends_with("E08P01!"), "{seen}");
}

/// An agent whose statements that need approval fail at once, with 42501.
fn deferring(stack: &Stack) -> Wire {
    let parameters = [("user", AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
    Wire::connect(stack.port, &parameters, TOKEN)
}

/// Npgsql with prepared statements, deadpool's clean recycling, asyncpg, psycopg_pool and others send these
/// with every checkout.
#[test]
fn a_pools_reset_waits_for_nobody() {
    let roles = "CREATE ROLE other; GRANT other TO app;";
    for version in [15, 18] {
        let stack = Stack::with(&Setup { sql: roles.to_owned(), version, ..Setup::default() });
        let resets = [
            "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();\
             DISCARD SEQUENCES;DISCARD TEMP",
            "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
             SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
            "DISCARD ALL",
            "ROLLBACK; RESET SESSION AUTHORIZATION; RESET ALL",
            "RESET ROLE",
            "SET ROLE NONE",
            "SET ROLE none; SET ROLE \"none\"; SET LOCAL ROLE 'none'",
            "SET ROLE app; RESET ROLE",
            "SET ROLE \"app\"",
            "SET SESSION AUTHORIZATION 'app'",
            "SELECT set_config('role', 'none', false), set_config('Session_Authorization', 'app', true)",
            "SELECT set_config('role', NULL, false)",
            "BEGIN; RESET ROLE; SET LOCAL ROLE none; COMMIT",
        ];
        let mut agent = deferring(&stack);
        // Again and again in the same session, and behind a path of its own.
        for before in
            ["SELECT 1", "SET search_path = public", "BEGIN; SET LOCAL search_path = public; COMMIT"]
        {
            for reset in resets {
                agent.ask(&query(before));
                let answer = agent.ask(&query(reset));
                assert!(answer.ends_with("ZI") && agent.errors.is_empty(), "{reset}: {:?}", agent.errors);
            }
        }
        for sql in ["RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT"] {
            let answer = agent.ask(&[extended(sql, &[]), sync()].concat());
            assert!(answer.ends_with("ZI") && agent.errors.is_empty(), "{sql}: {answer}");
        }
        for sql in [
            "SET ROLE other",
            "SET ROLE \"App\"",
            "SET SESSION AUTHORIZATION other",
            "SELECT set_config('role', 'other', false)",
            "SELECT set_config('role', 'No' || 'ne', false)",
            "SET ROLE other; RESET ROLE",
        ] {
            assert_eq!(agent.ask(&query(sql)), "E42501ZI", "{sql}");
        }
    }
}

/// Who has become somebody else, by an approval or by the login's own settings, does not go back unasked.
#[test]
fn going_back_to_oneself_is_free_only_where_the_server_says_that_one_is_oneself() {
    let stack =
        Stack::with(&Setup { sql: "CREATE ROLE low; GRANT low TO app;".to_owned(), ..Setup::default() });
    let mut agent = Wire::agent(stack.port);
    agent.send(&query("SET ROLE low"));
    stack.approve(BOB, &stack.request());
    assert_eq!(agent.until_ready(), "C[SET]ZI");
    // It is `low` now, whatever the session has said before.
    assert_eq!(agent.ask(&query("SET ROLE low")), "C[SET]ZI");
    for sql in ["RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT"] {
        agent.send(&query(sql));
        let request = stack.request();
        assert_eq!(request["class"], "identity", "{sql}");
        stack.answer(BOB, &request, "deny", None);
        assert_eq!(agent.until_ready(), "E42501ZI", "{sql}");
    }
    assert_eq!(agent.ask(&query("DISCARD ALL")), "C[DISCARD ALL]ZI", "as before");
    assert_eq!(agent.ask(&query("RESET ROLE")), "C[RESET]ZI", "and then it is itself again");

    stack.superuser("ALTER ROLE app SET role = low");
    let mut lowered = deferring(&stack);
    assert_eq!(lowered.ask(&query("SELECT current_user")), "TDC[SELECT 1]ZI");
    assert_eq!(lowered.row, "low");
    assert_eq!(lowered.ask(&query("RESET ROLE")), "C[RESET]ZI", "to what the login has made of it");
    assert_eq!(lowered.ask(&query("SET ROLE NONE")), "E42501ZI");
}

/// PostgREST and applications with a schema for each tenant bind what they set.
#[test]
fn bound_values_of_set_config_are_judged_as_if_they_were_written_out() {
    let stack = Stack::with(&Setup {
        sql: "CREATE SCHEMA tenant; GRANT USAGE ON SCHEMA tenant TO app; CREATE ROLE other; GRANT other TO app;".into(),
        ..Setup::default()
    });
    let mut agent = deferring(&stack);
    let mut passes = |sql: &str, values: &[&str]| {
        agent.ask(&query("RESET search_path"));
        let answer = agent.ask(&[extended(sql, values), sync()].concat());
        assert!(answer.ends_with("ZI"), "{sql} {values:?}: {answer}");
        !answer.contains("E42501")
    };
    let path = "SELECT set_config('search_path', $1, true)";
    for (sql, values, free) in [
        (path, &["public"][..], true),
        (path, &["tenant, \"Other\""], true),
        (path, &["pg_temp, public"], false),
        (path, &["\"unterminated"], false),
        ("SELECT set_config($1, $2, true)", &["search_path", "public"], true),
        ("SELECT pg_catalog.set_config($1::text, $2::varchar, $3)", &["Search_Path", "tenant", "f"], true),
        ("SELECT set_config($1, $2, true)", &["session_replication_role", "replica"], false),
        ("SELECT set_config($2, $1, true)", &["public", "search_path"], true),
        ("SELECT set_config($1 || '', $2, true)", &["search_path", "public"], false),
        (
            "SELECT set_config('search_path', $1, true), set_config('role', $2, true)",
            &["public", "none"],
            true,
        ),
        (
            "SELECT set_config('search_path', $1, true), set_config('role', $2, true)",
            &["public", "app"],
            true,
        ),
        (
            "SELECT set_config('search_path', $1, true), set_config('role', $2, true)",
            &["public", "other"],
            false,
        ),
        ("SELECT set_config('role', $1, true), set_config('app.tenant', $2, true)", &["none", "7"], false),
        ("SELECT set_config('statement_timeout', $1, false)", &["5s"], true),
    ] {
        assert_eq!(passes(sql, values), free, "{sql} {values:?}");
    }
    // NULL, and a parameter in the binary format that a driver declares as text.
    let null = frame('B', b"\0\0\0\0\0\x01\xff\xff\xff\xff\0\0");
    assert_eq!(
        agent.ask(&[parse("", path), null, execute("", 0), sync()].concat()),
        "12DC[SELECT 1]ZI",
        "{:?}",
        agent.errors
    );
    let mut declared = [b"\0", path.as_bytes(), b"\0"].concat();
    declared.extend([0, 1, 0, 0, 0, 25]);
    let binary = frame('B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\x06public\0\0");
    assert_eq!(
        agent.ask(&[frame('P', &declared), binary, execute("", 0), sync()].concat()),
        "12DC[SELECT 1]ZI",
        "{:?}",
        agent.errors
    );
    // The values of SQL's own EXECUTE, of a statement that the protocol prepared.
    agent.ask(&[parse("s", path), sync()].concat());
    assert_eq!(agent.ask(&query("EXECUTE s('tenant')")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.ask(&query("EXECUTE s('pg_temp')")), "E42501ZI");
    assert_eq!(agent.ask(&query("EXECUTE s(lower('PG_TEMP'))")), "E42501ZI");
}

/// psqlODBC's ANSI driver asks for SQL_ASCII at connect, psql by `\encoding`, psycopg2 by set_client_encoding.
#[test]
fn another_encoding_is_refused_at_once_and_the_session_goes_on() {
    let stack = Stack::with(&Setup {
        policy: Some("[[rule]]\nname = \"all\"\nwhen = { class = [\"settings\", \"code\"] }\nthen = \"allow\"\n".to_owned()),
        sql: "CREATE FUNCTION other() RETURNS text LANGUAGE sql AS $$ SELECT set_config('client_encoding', 'LATIN1', false) $$;".into(),
        ..Setup::default()
    });
    let mut agent = Wire::agent(stack.port);
    let refused = "E0A000ZI";
    for sql in [
        "SET client_encoding TO 'SQL_ASCII'",
        "SET client_encoding = LATIN1",
        "SET NAMES 'sjis'",
        "SET LOCAL client_encoding = 'LATIN1'",
        "SELECT 1; SET client_encoding = 'LATIN1'",
        "SELECT set_config('client_encoding', 'SQL_ASCII', false)",
        "SELECT set_config('Client_Encoding', 'LATIN' || '1', true)",
    ] {
        assert_eq!(agent.ask(&query(sql)), refused, "{sql}");
        assert!(agent.errors.last().unwrap().contains("RESET client_encoding"), "{:?}", agent.errors);
    }
    let bound = |sql: &str, values: &[&str]| [extended(sql, values), sync()].concat();
    assert_eq!(agent.ask(&bound("SET client_encoding = 'LATIN1'", &[])), "1E0A000ZI");
    assert_eq!(
        agent.ask(&bound("SELECT set_config($1, $2, false)", &["client_encoding", "LATIN1"])),
        "1E0A000ZI"
    );
    agent.ask(&[parse("s", "SET client_encoding = 'LATIN1'"), sync()].concat());
    assert_eq!(agent.ask(&query("EXECUTE s")), refused);
    for sql in [
        "SET client_encoding = 'UTF8'",
        "SET client_encoding TO 'utf-8'",
        "SET NAMES 'Unicode'",
        "SET client_encoding TO DEFAULT",
        "RESET client_encoding",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        let answer = agent.ask(&query(sql));
        assert!(answer.starts_with('C') && answer.ends_with("ZI"), "{sql}: {answer}");
    }
    assert_eq!(
        agent.ask(&bound("SELECT set_config('client_encoding', $1, false)", &["utf8"])),
        "12DC[SELECT 1]ZI"
    );
    agent.ask(&query("SELECT 'é'"));
    assert_eq!(agent.row, "é");

    // Whatever else has changed it: ASCII goes on, and RESET leads out.
    assert_eq!(agent.ask(&query("SELECT other()")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.reported("client_encoding"), Some("LATIN1"));
    assert_eq!(agent.ask(&query("SELECT 'plain'")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.ask(&query("SELECT 'é'")), refused);
    assert_eq!(agent.ask(&bound("SELECT $1", &["é"])), "1E0A000ZI");
    assert_eq!(agent.ask(&query("RESET client_encoding")), "C[RESET]ZI");
    assert_eq!(agent.ask(&query("SELECT 'é'")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.row, "é");
}
