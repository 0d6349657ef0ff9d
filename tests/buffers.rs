//! Memory is bounded, whether the agent, upstream or a reviewer is slow.
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

use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use support::wire::{self, Wire, extended, frame, query, sync};
use support::{BOB, Setup, Stack, signal, wait_for};

const MIB: u64 = 1 << 20;

/// The proxy's resident memory, in bytes.
fn resident(stack: &Stack) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.proxy_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The most that the proxy takes over `begin`, while `meanwhile` goes on.
fn growth(stack: &Stack, begin: u64, meanwhile: impl FnOnce()) -> u64 {
    std::thread::scope(|scope| {
        let (done, rest) = std::sync::mpsc::channel::<()>();
        let watch = scope.spawn(move || {
            let mut most = 0;
            while rest
                .recv_timeout(Duration::from_millis(20))
                .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                most = most.max(resident(stack));
            }
            most
        });
        meanwhile();
        drop(done);
        watch.join().unwrap().saturating_sub(begin)
    })
}

/// Sends `bytes` over and over, up to `most`, until the other side takes no more; how many it took.
fn stuff(wire: &mut Wire, bytes: &[u8], most: usize) -> usize {
    wire.socket.set_nonblocking(true).unwrap();
    let (mut sent, mut last) = (0, Instant::now());
    while sent < most && last.elapsed() < Duration::from_secs(2) {
        match wire.socket.write(&bytes[sent % bytes.len()..]) {
            Ok(wrote) => {
                sent += wrote;
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(error) => panic!("{error}"),
        }
    }
    wire.socket.set_nonblocking(false).unwrap();
    sent
}

/// A session with everything that grows only once behind it, and the memory that the proxy then has.
fn warmed(stack: &Stack) -> (Wire, u64) {
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("select repeat('x', 1000) from generate_series(1, 5000)"));
    (agent, resident(stack))
}

#[test]
fn an_agent_that_does_not_read_a_gigabyte_stops_upstream_and_not_the_proxy() {
    let stack = Stack::start();
    let (mut agent, before) = warmed(&stack);
    let backend = agent.key.0;

    let grew = growth(&stack, before, || {
        agent.send(&query("select repeat('x', 10000) from generate_series(1, 100000)"));
        wait_for("upstream waits for room", || {
            let waits = format!("select wait_event from pg_stat_activity where pid = {backend}");
            stack.superuser(&waits) == "ClientWrite"
        });
        std::thread::sleep(Duration::from_millis(500));
    });

    assert!(grew < 16 * MIB, "grew by {} KiB", grew >> 10);
    // Other sessions go on, and the slow one continues where it was.
    assert_eq!(Wire::agent(stack.port).ask(&query("select 1")), "TDC[SELECT 1]ZI");
    assert_eq!(agent.read().unwrap().0, 'T');
    for _ in 0..1000 {
        assert_eq!(agent.read().unwrap().0, 'D');
    }
}

#[test]
fn an_upstream_that_does_not_read_stops_the_agent_and_not_the_proxy() {
    let loose = "create table loose (a int, b int, c int); grant all on loose to app;";
    let stack = Stack::with(&Setup { sql: loose.to_owned(), ..Setup::default() });
    let (mut agent, before) = warmed(&stack);
    let backend = u32::try_from(agent.key.0).unwrap();
    agent.send(&query("copy loose from stdin"));
    assert_eq!(agent.read().unwrap().0, 'G');
    let rows: Vec<u8> =
        (0..1000).flat_map(|n| frame('d', format!("{}\t1\t1\n", 10_000 + n).as_bytes())).collect();

    signal(backend, "STOP");
    let mut sent = 0;
    let grew = growth(&stack, before, || sent = stuff(&mut agent, &rows, 256 << 20));
    signal(backend, "CONT");

    assert!(sent < 64 << 20, "took {sent} bytes that nobody wants");
    assert!(grew < 16 * MIB, "grew by {} KiB", grew >> 10);
    // What was sent is whole rows and a part of one: it is completed, and the copy fails for its own reason.
    let rest = rows.len() - sent % rows.len();
    agent.send(&rows[rows.len() - rest..]);
    assert_eq!(agent.ask(&frame('f', b"enough\0")), "E57014ZI");
}

/// Each small message has to be remembered until it is answered.
#[test]
fn messages_that_nobody_answers_stop_being_read() {
    let stack = Stack::start();
    for small in [sync(), extended("select 1", &[]), query("")] {
        let (mut agent, before) = warmed(&stack);
        let backend = u32::try_from(agent.key.0).unwrap();
        signal(backend, "STOP");

        let mut sent = 0;
        let grew = growth(&stack, before, || sent = stuff(&mut agent, &small.repeat(1000), 64 << 20));
        signal(backend, "CONT");

        assert!(sent < 32 << 20, "took {sent} bytes of {}", small.escape_ascii());
        assert!(grew < 32 * MIB, "grew by {} KiB for {sent} bytes", grew >> 10);
    }
}

#[test]
fn an_agent_that_goes_on_sending_while_it_is_held_is_stopped_at_a_mebibyte() {
    let stack = Stack::start();
    let (mut agent, before) = warmed(&stack);
    agent.send(&query("drop table customers"));
    let request = stack.request();
    let one = query("select 1");

    let mut sent = 0;
    let grew = growth(&stack, before, || sent = stuff(&mut agent, &one.repeat(100), 256 << 20));

    assert!(sent < 32 << 20, "took {sent} bytes");
    assert!(grew < 8 * MIB, "grew by {} KiB", grew >> 10);
    assert_eq!(stack.waiting().len(), 1, "it is still held");
    stack.answer(BOB, &request, "deny", None);
    assert_eq!(agent.until_ready(), "E42501ZI");
    for _ in 0..1000 {
        assert_eq!(agent.until_ready(), "TDC[SELECT 1]ZI", "what was sent meanwhile runs");
    }
}

/// While a cancel is on its way nothing of the agent's is forwarded.
#[test]
fn an_agent_that_goes_on_sending_while_it_cancels_is_stopped_too() {
    let stack = Stack::start();
    let (mut agent, before) = warmed(&stack);
    agent.send(&query("select pg_sleep(3600)"));
    wait_for("it runs", || {
        let runs = format!("select wait_event from pg_stat_activity where pid = {}", agent.key.0);
        stack.superuser(&runs) == "PgSleep"
    });
    // The postmaster accepts no cancel while it is stopped.
    signal(stack.cluster.process(), "STOP");
    let (port, key) = (stack.port, agent.key);
    let cancelling = std::thread::spawn(move || wire::cancel(port, key));
    std::thread::sleep(Duration::from_millis(300));

    let mut sent = 0;
    let one = query("select 1").repeat(1000);
    let grew = growth(&stack, before, || sent = stuff(&mut agent, &one, 256 << 20));
    signal(stack.cluster.process(), "CONT");

    assert!(sent < 32 << 20, "took {sent} bytes");
    assert!(grew < 8 * MIB, "grew by {} KiB", grew >> 10);
    cancelling.join().unwrap();
    let seen = agent.until_ready();
    assert!(seen.ends_with("E57014ZI"), "{seen}");
}

#[test]
fn many_agents_that_do_not_read_cost_a_bounded_amount_each() {
    let count = if std::env::var_os("COUNTERSIGN_SOAK").is_some() { 200 } else { 40 };
    let stack = Stack::with(&Setup { server: vec![("max_connections", "300")], ..Setup::default() });
    let (_agent, before) = warmed(&stack);
    let mut agents: Vec<Wire> = (0..count).map(|_| Wire::agent(stack.port)).collect();

    let grew = growth(&stack, before, || {
        for agent in &mut agents {
            agent.send(&query("select repeat('x', 10000) from generate_series(1, 2000)"));
        }
        wait_for("all of them wait for room", || {
            let waits = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
            stack.superuser(waits) == count.to_string()
        });
    });

    let each = grew / count;
    assert!(each < MIB, "{} KiB each", each >> 10);
    for agent in &mut agents {
        let seen = agent.until_ready();
        assert!(seen.ends_with("C[SELECT 2000]ZI"), "{}", &seen[seen.len().saturating_sub(40)..]);
    }
}

/// The proxy still holds the last bytes for the agent when upstream has ended.
#[test]
fn an_agent_that_half_closes_and_reads_late_gets_every_byte() {
    let stack = Stack::start();
    let (mut agent, _) = warmed(&stack);
    // Little is on its way between the proxy and an agent that takes little.
    rustix::net::sockopt::set_socket_recv_buffer_size(&agent.socket, 32 << 10).unwrap();
    agent.send(&query("select repeat('x', 10000) from generate_series(1, 120)"));
    agent.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(agent.read().unwrap().0, 'T');
    for _ in 0..95 {
        assert_eq!(agent.read().unwrap().0, 'D');
    }

    std::thread::sleep(Duration::from_secs(4));

    assert_eq!(agent.until_ready(), format!("{}C[SELECT 120]ZI", "D".repeat(25)));
    assert!(agent.read().is_none());
}
