//! Pipelines, prepared statements, COPY and cancels.

use super::*;

#[test]
fn a_sync_inside_a_copy_is_not_counted_as_a_reply() {
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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

#[test]
fn a_flush_is_neither_dropped_nor_taken_for_a_sync() {
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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

/// Postgres signals a process, not a statement: sent straight, a cancel that comes late hits whatever runs
/// next. Through the proxy it never does.
#[test]
fn a_late_cancel_never_hits_the_next_statement() {
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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
fn two_sessions_prepare_different_statements_under_one_name() {
    let stack = Stack::denying_ddl(15);
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
    let stack = Stack::denying_ddl(15);
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

/// Postgres gives up a stream in which something else comes where copy data should: a `Parse` that a copy
/// swallowed must not be believed, nor the `Bind` behind it run what the name meant before.
#[test]
fn a_parse_that_a_copy_swallows_does_not_change_what_a_bind_runs() {
    let stack = Stack::denying_ddl(15);
    let mut agent = Wire::agent(stack.port);
    agent.send(&[parse("x", "drop table orders"), sync()].concat());
    assert_eq!(agent.until_ready(), "1ZI");

    let swallowed = [parse("x", "select 1"), bind("", "x", &[]), execute("", 0), sync()].concat();
    agent.send(&[query("copy customers from stdin"), swallowed].concat());
    let seen = agent.until_ready();

    assert_eq!(stack.superuser("select count(*) from orders"), "1000", "{seen}");
    assert!(seen.ends_with("E08P01!"), "{seen}");
}
