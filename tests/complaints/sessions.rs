//! Session state: pool resets, settings, start-up, restarts of the server.

use super::*;

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

#[test]
fn after_a_restart_of_upstream_the_session_gets_an_error_and_notifications_resume() {
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
fn parameter_status_of_upstream_reaches_the_agent() {
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

/// Npgsql with prepared statements, deadpool's clean recycling, asyncpg, psycopg_pool and others send these
/// with every checkout.
#[test]
fn resets_of_connection_pools_need_no_approval() {
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
        let mut agent = Wire::deferring_agent(stack.port);
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

/// A session that acts as another role, by an approval or by the login's own settings, needs approval to go back.
#[test]
fn going_back_to_the_login_role_is_free_only_where_the_server_confirms_it() {
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
    let mut lowered = Wire::deferring_agent(stack.port);
    assert_eq!(lowered.ask(&query("SELECT current_user")), "TDC[SELECT 1]ZI");
    assert_eq!(lowered.row, "low");
    assert_eq!(lowered.ask(&query("RESET ROLE")), "C[RESET]ZI", "to what the login has made of it");
    assert_eq!(lowered.ask(&query("SET ROLE NONE")), "E42501ZI");
}

/// PostgREST and applications with a schema for each tenant bind what they set.
#[test]
fn bound_values_of_set_config_count_as_literals() {
    let stack = Stack::with(&Setup {
        sql: "CREATE SCHEMA tenant; GRANT USAGE ON SCHEMA tenant TO app; CREATE ROLE other; GRANT other TO app;".into(),
        ..Setup::default()
    });
    let mut agent = Wire::deferring_agent(stack.port);
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
