//! Settings that a session may and may not change.

use super::*;

/// The value of setting `name` in a session that starts with these parameters, or why it did not start.
fn shown_with(
    port: u16,
    user: (&str, &str),
    password: &str,
    start: &[(&str, &str)],
    name: &str,
) -> Result<String, String> {
    let mut parameters = vec![("user", user.0), ("database", user.1)];
    parameters.extend(start);
    let mut session = Wire::try_connect(port, &parameters, password)?;
    session.ask(&wire::query(&format!("SHOW {name}")));
    Ok(session.row)
}

#[test]
fn start_up_parameters_may_set_what_set_may_without_approval() {
    let stack = Stack::start();
    let proxied =
        |start: &[(&str, &str)], name: &str| shown_with(stack.port, (AGENT, "app"), TOKEN, start, name);
    let direct = |start: &[(&str, &str)], name: &str| {
        shown_with(stack.cluster.port(), ("app", "postgres"), "upstream-secret", start, name)
    };
    for (name, value) in [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("work_mem", "64MB"),
        ("plan_cache_mode", "force_custom_plan"),
        ("enable_seqscan", "off"),
        ("bytea_output", "escape"),
        ("search_path", "audit,public"),
        ("statement_timeout", "70s"),
    ] {
        for options in [
            format!("-c {name}={value}"),
            format!("-c{name}={value}"),
            format!("--{}={value}", name.replace('_', "-")),
        ] {
            let start = [("options", options.as_str())];
            assert_eq!(proxied(&start, name), direct(&start, name), "{options}");
            assert!(direct(&start, name).is_ok(), "{options}");
        }
        let start = [(name, value)];
        assert_eq!(proxied(&start, name), direct(&start, name), "{name}");
    }
    // Postgres's own precedence.
    for start in [
        &[("work_mem", "1MB"), ("options", "-c work_mem=2MB")][..],
        &[("options", "-c work_mem=2MB"), ("WORK_MEM", "3MB")],
        &[("options", "-c work_mem=2MB -c Work_Mem=4MB")],
        &[("options", "-c work_mem=2MB"), ("options", "-c jit=off")],
        &[("options", r"-c work_mem=\5\M\B")],
        &[("work_mem", "6MB"), ("work_mem", "7MB")],
    ] {
        let (through, without) = (proxied(start, "work_mem"), direct(start, "work_mem"));
        assert!(without.is_ok(), "{start:?}");
        assert_eq!(through, without, "{start:?}");
    }
    // What SET may not do, and what is no setting there.
    for (name, value) in [
        ("role", "postgres"),
        ("session_authorization", "postgres"),
        ("search_path", "pg_temp"),
        ("synchronous_commit", "off"),
        ("app.tenant", "7"),
        ("session_preload_libraries", "x"),
    ] {
        let options = format!("-c {name}={value}");
        for start in [("options", options.as_str()), (name, value)] {
            let refused = proxied(&[start], "work_mem").unwrap_err();
            assert!(refused.contains("C0A000") && refused.contains(name), "{refused}");
        }
    }
    for options in ["-c user=postgres", "-c database=template1", "-c options=-crole=x", "-c replication=true"]
    {
        assert!(proxied(&[("options", options)], "work_mem").unwrap_err().contains("C0A000"), "{options}");
    }
    // A value that the server does not take: its own words, and the upstream is well.
    let refused = proxied(&[("work_mem", "much")], "work_mem").unwrap_err();
    assert!(
        refused.contains("C22023") && refused.contains("invalid value for parameter \"work_mem\""),
        "{refused}"
    );
    assert_eq!(proxied(&[], "work_mem"), direct(&[], "work_mem"));
}

#[test]
fn loosening_an_operators_guard_needs_approval() {
    let sql = "ALTER ROLE app SET statement_timeout = '50s'; ALTER DATABASE postgres SET default_transaction_read_only = on;
               ALTER ROLE app IN DATABASE postgres SET lock_timeout = '9s'; ALTER ROLE app SET lock_timeout = 0;";
    let stack = Stack::with(&Setup { sql: sql.into(), ..Setup::default() });
    let mut agent = Wire::agent(stack.port);

    for passes in [
        "SET statement_timeout = '50s'",
        "SET statement_timeout = 5000",
        "RESET statement_timeout",
        "SET statement_timeout TO DEFAULT",
        "SELECT set_config('statement_timeout', '4s', false)",
        "RESET ALL",
        "DISCARD ALL",
        "SET lock_timeout = '1s'",
        "SET idle_session_timeout = 0",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN READ ONLY",
        "COMMIT",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION READ ONLY",
        "COMMIT",
    ] {
        let answer = agent.ask(&wire::query(passes));
        assert!(answer.contains("C["), "{passes}: {answer}");
        assert!(!agent.notices.iter().any(|notice| notice.contains("waiting for approval")), "{passes}");
    }
    for held in [
        "SET statement_timeout = 0",
        "SET statement_timeout = '1min'",
        "SET LOCAL lock_timeout = 0",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_catalog.set_config('default_transaction_read_only', 'off', true)",
        "SET default_transaction_read_only = off",
        "SET default_transaction_read_only = false",
        "SET transaction_read_only = off",
        "SET transaction_read_only TO DEFAULT",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "COMMIT; BEGIN READ WRITE; SELECT 1",
    ] {
        agent.send(&wire::query(held));
        let request = stack.request();
        assert_eq!(request["class"], "settings", "{held}: {request}");
        stack.approve(BOB, &request);
        let answer = agent.until_ready();
        assert!(answer.contains("C["), "{held}: {answer}");
        agent.ask(&wire::query("ROLLBACK"));
        wait_for("nothing waits", || stack.waiting().is_empty());
    }
    let check =
        support::countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();
    let check = text(&check);
    for guard in ["statement_timeout = 50s", "lock_timeout = 9s", "default_transaction_read_only = on"] {
        assert!(check.contains(guard), "{check}");
    }
    // At start-up neither, in whichever way.
    for start in [
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("options", "-c statement_timeout=0"),
        ("options", "--lock-timeout=10s"),
    ] {
        let refused = shown_with(stack.port, (AGENT, "app"), TOKEN, &[start], "work_mem").unwrap_err();
        assert!(refused.contains("C0A000") && refused.contains("loosens"), "{start:?}: {refused}");
    }
    let tighter = [("statement_timeout", "1s"), ("default_transaction_read_only", "on")];
    assert!(shown_with(stack.port, (AGENT, "app"), TOKEN, &tighter, "work_mem").is_ok());
}

/// Where nothing is set there is nothing to loosen.
#[test]
fn an_agent_may_undo_its_own_settings() {
    let stack = Stack::start();
    let mut agent = Wire::agent(stack.port);
    for passes in [
        "SET default_transaction_read_only = on",
        "SET default_transaction_read_only = off",
        "SET statement_timeout = '5s'",
        "SET statement_timeout = 0",
        "BEGIN READ WRITE",
        "SET TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SET LOCAL lock_timeout = 0",
        "ROLLBACK",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    ] {
        let answer = agent.ask(&wire::query(passes));
        assert!(answer.contains("C["), "{passes}: {answer}");
    }
    assert!(stack.waiting().is_empty());
}
