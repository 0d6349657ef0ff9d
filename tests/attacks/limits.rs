//! One agent that tries to take what others need.

use super::*;

#[test]
fn sessions_end_with_their_agents_and_leave_no_locks() {
    let stack = stack();
    attack(
        &stack,
        &format!(
            "{RAW}{}",
            r#"
row = 0
def locked():
    global row
    row += 1
    r = Raw()
    r.do(Q(b"create temp table t (a text)"))
    r.do(Q(b"begin"))
    r.do(Q(b"update orders set amount = amount where id = %d" % row))
    return r
left = []
# In an open copy; in an open copy with something else behind it; with a held statement and no Sync.
r = locked()
r.send(Q(b"copy t from stdin"), message(b"d", b"x\n"))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(Q(b"copy t from stdin"))
time.sleep(0.2)
r.send(message(b"d", b"x\n"), Q(BAD))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(Q(b"copy t from stdin"), Q(BAD))
time.sleep(0.2)
left.append(r)
r = locked()
r.send(P(b"", BAD), B(b"", b""))
left.append(r)
r = locked()
r.send(P(b"", b"select pg_sleep(0.3)"), B(b"", b""), E(b""))
left.append(r)
for r in left:
    r.connection.pgconn.finish()
    r.socket.close()
"#
        ),
    );
    wait_for("every session has ended", || {
        stack.superuser(
            "select count(*) from pg_stat_activity where usename = 'app' and application_name not in ('', 'countersign catalogue')",
        ) == "0"
            && stack.metric("countersign_sessions") == 0
    });
    assert_eq!(
        stack
            .superuser("set lock_timeout = '2s'; with u as (update orders set amount = 1 where id < 6 returning 1) select count(*) from u"),
        "5"
    );
}

/// Temporary objects are the session's own: no other session has to reload the catalogue because of them.
#[test]
fn temporary_objects_of_one_session_make_no_other_read_the_catalogue() {
    use wire::{Wire, query};
    // A column that has the name of a type is looked up as a function once a temporary table may hide its own.
    let sql = "CREATE DOMAIN email AS text CHECK (value ~ '@'); CREATE TABLE people (id int, email email); GRANT SELECT ON people TO app";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let (mut a, mut b) = (Wire::agent(stack.port), Wire::agent(stack.port));
    b.ask(&query("select 1"));
    let readings = || stack.log().matches("catalogue read").count();
    let before = readings();
    for made in [
        "create temp table x (a int)",
        "drop table pg_temp.x",
        "create temporary table x as select 1 as a",
        "drop table pg_temp.x",
        "select 1 as a into temp x",
        "drop table pg_temp.x",
        "create table pg_temp.x (a int, b text)",
        "alter table pg_temp.x add column c int",
        "create index on pg_temp.x (a)",
        "drop table pg_temp.x",
        "create temp sequence s",
        "drop sequence pg_temp.s",
        "begin; create temp table y (a int) on commit drop; commit",
        "select people.email from people",
        "select p.email from people p",
    ] {
        a.errors.clear();
        a.ask(&query(made));
        assert!(a.errors.is_empty(), "{made}: {:?}", a.errors);
        b.ask(&query("select 1"));
    }
    assert_eq!(readings(), before, "{}", stack.log());
}

/// All of the server's connections are taken, and the catalogue has to be read anew.
#[test]
fn a_full_server_refuses_no_session_that_runs() {
    use wire::{Wire, query};
    let policy = "[[rule]]\nname = \"scratch\"\nwhen = { class = [\"ddl\"] }\nthen = \"allow\"\n";
    let stack = Stack::with(&Setup {
        server: vec![("max_connections", "20")],
        policy: Some(policy.to_owned()),
        ..Setup::default()
    });
    let mut running = Wire::agent(stack.port);
    running.ask(&query("select 1"));
    let parameters = [("user", support::AGENT), ("database", "app")];
    let mut all = Vec::new();
    while let Ok(session) = Wire::try_connect(stack.port, &parameters, support::TOKEN) {
        all.push(session);
        assert!(all.len() < 30, "the server should be full");
    }
    for round in 0..3 {
        running.errors.clear();
        all[0].ask(&query(&format!("create table t{round} (a int)")));
        running.ask(&query(&format!("select count(*) from t{round}")));
        assert!(running.errors.is_empty(), "{:?}", running.errors);
    }
    // Even without the connection of our own, transactions can end.
    running.ask(&query("begin"));
    running.ask(&query("select 1"));
    let kept = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'countersign cat%'";
    stack.superuser(kept);
    let mut another = Vec::new();
    while let Ok(session) = Wire::try_connect(stack.port, &parameters, support::TOKEN) {
        another.push(session);
    }
    all[0].ask(&query("create table late (a int)"));
    running.errors.clear();
    running.ask(&query("rollback"));
    assert!(running.errors.is_empty(), "{:?}", running.errors);
    // Once there is room, everything goes on.
    all.truncate(3);
    drop(another);
    wait_for("statements run again", || {
        running.errors.clear();
        running.ask(&query("select count(*) from late"));
        running.errors.is_empty()
    });
}

/// Prepared texts are kept, so they are counted in bytes, each text once for all its names.
#[test]
fn texts_that_a_session_keeps_are_limited_in_bytes() {
    use wire::{Wire, bind, close, parse, query};
    let stack = Stack::with(&Setup {
        config: "[limits]\nprepared_bytes = 1000000\nprepared_bytes_per_agent = 1600000\n".to_owned(),
        ..Setup::default()
    });
    let sync = wire::frame('S', &[]);
    let long = |tag: &str| format!("select '{tag}{}'", "x".repeat(400_000));
    let refused = |wire: &mut Wire, bytes: &[u8]| {
        wire.errors.clear();
        wire.ask(bytes);
        wire.errors.iter().any(|error| error.contains("53200") && error.contains("DEALLOCATE"))
    };
    let parsed = |name: &str, text: &str| [parse(name, text), sync.clone()].concat();
    let mut a = Wire::agent(stack.port);

    assert!(!refused(&mut a, &parsed("a", &long("a"))));
    assert!(!refused(&mut a, &parsed("b", &long("b"))));
    for name in 0..20 {
        assert!(!refused(&mut a, &parsed(&format!("again{name}"), &long("b"))), "the same text again");
    }
    assert!(refused(&mut a, &parsed("c", &long("c"))), "{:?}", a.errors);
    assert!(refused(&mut a, &query(&format!("prepare d as {}", long("d")))), "{:?}", a.errors);
    assert!(
        refused(&mut a, &query(&format!("declare e cursor with hold for {}", long("e")))),
        "{:?}",
        a.errors
    );
    assert!(refused(&mut a, &query(&format!("prepare f as select 1; {}", long("f")))), "{:?}", a.errors);
    assert!(!refused(&mut a, &query(&long("not kept"))), "{:?}", a.errors);
    assert!(!refused(&mut a, &parsed("", &long("unnamed"))), "{:?}", a.errors);
    assert!(!refused(&mut a, &query("prepare small as select 1")), "{:?}", a.errors);
    a.ask(&query("deallocate a"));
    assert!(!refused(&mut a, &query(&format!("prepare d as {}", long("d")))), "{:?}", a.errors);
    a.ask(&query("deallocate all"));

    // A portal keeps its text when its statement is closed.
    a.ask(&query("begin"));
    for portal in ["p", "q"] {
        let bound = [parse("", &long(portal)), bind(portal, "", &[]), sync.clone()].concat();
        assert!(!refused(&mut a, &bound), "{:?}", a.errors);
    }
    assert!(refused(&mut a, &[parse("", &long("r")), bind("r", "", &[]), sync.clone()].concat()));
    a.ask(&query("rollback"));
    assert!(!refused(&mut a, &parsed("c", &long("c"))), "{:?}", a.errors);

    // And all sessions of an agent together.
    let mut b = Wire::agent(stack.port);
    assert!(!refused(&mut a, &parsed("d", &long("d"))), "{:?}", a.errors);
    assert!(!refused(&mut b, &parsed("a", &long("e"))), "{:?}", b.errors);
    assert!(refused(&mut b, &parsed("b", &long("f"))), "{:?}", b.errors);
    assert!(b.errors.iter().any(|error| error.contains("this agent")), "{:?}", b.errors);
    a.ask(&[close('S', "c"), sync.clone()].concat());
    assert!(!refused(&mut b, &parsed("b", &long("f"))), "{:?}", b.errors);
}

#[test]
fn one_text_may_execute_a_limited_number_of_names() {
    use wire::{Wire, query};
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    agent.ask(&query("prepare p as select 1"));
    let said = agent.ask(&query(&"execute p;".repeat(3_000)));
    assert!(agent.errors.is_empty() && said.matches('C').count() >= 3_000, "{:?}", agent.errors);

    let prepare: String = (0..1_100).map(|name| format!("prepare p{name} as select 1;")).collect();
    agent.ask(&query(&prepare));
    let some: String = (0..900).map(|name| format!("execute p{name};")).collect();
    agent.ask(&query(&some));
    assert!(agent.errors.is_empty(), "{:?}", agent.errors);
    let too_many: String = (0..1_100).map(|name| format!("execute p{name};")).collect();
    agent.ask(&query(&too_many));
    assert!(agent.errors.iter().any(|error| error.contains("54000")), "{:?}", agent.errors);
}

/// Behind more than the proxy reads ahead, nobody sees the connection end.
#[test]
fn an_approval_is_not_used_when_the_agents_disconnect_cannot_be_seen() {
    let mut stack = Stack::start();
    let hold = || {
        let mut agent = wire::Wire::agent(stack.port);
        agent.send(&wire::query("DROP TABLE orders"));
        let request = stack.request();
        // As much as the sockets and the proxy take.
        let more = wire::query(&format!("SELECT '{}'", "x".repeat(60_000)));
        while agent.try_send(&more).is_ok() {}
        (agent, request)
    };
    for leaves in [true, false] {
        let (agent, request) = hold();
        let agent = if leaves { None } else { Some(agent) };
        stack.answer(BOB, &request, "approve", None);
        wait_for("it does not wait any more", || stack.waiting().is_empty());
        let state = || stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
        wait_for("it is withdrawn", || state().1["state"] == "withdrawn");
        assert_eq!(stack.superuser("select count(*) from orders"), "1000");
        drop(agent);
    }
    stack.assert_verifies();
}
