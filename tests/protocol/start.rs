//! How a session starts: start-up parameters, failed logins, TLS, an upstream that is down.

use super::*;

#[test]
fn application_name_is_the_agents_if_configured() {
    let verifier = countersign::identity::ScramVerifier::of_password(TOKEN);
    let config = format!(
        "\n[[upstream]]\nname = \"named\"\nhost = \"127.0.0.1\"\nport = {{port}}\ndatabase = \"postgres\"\nuser = \"app\"\n\
         password_file = \"upstream-password\"\napplication_name = \"agent\"\n\
         [[agent]]\nname = \"named-bot\"\nowner = \"alice@example.com\"\nverifier = \"{verifier}\"\nupstreams = [\"named\"]\n"
    );
    let stack = Stack::with(&Setup { config, ..Setup::default() });
    let name = |url: &str| {
        let url = format!("{url}?application_name=month-end");
        text(&stack.psql_command(&url).args(["-c", "show application_name"]).output().unwrap())
    };

    assert!(name(&stack.url()).starts_with("countersign reporting-bot "), "unless told otherwise");
    let named = format!("postgresql://named-bot:{TOKEN}@127.0.0.1:{}/named", stack.port);
    assert_eq!(name(&named), "month-end\n");
}

#[test]
fn a_wrong_password_and_an_unknown_agent_get_the_same_error() {
    let stack = Stack::start();
    let told = |user: &str, password: &str| {
        let url = format!("postgresql://{user}:{password}@127.0.0.1:{}/app", stack.port);
        let output = stack.psql_command(&url).args(["-c", "select 1"]).output().unwrap();
        assert!(!output.status.success());
        text(&output).replace(user, "USER")
    };

    let wrong = told(AGENT, "wrong");
    let unknown = told("nobody-here", "wrong");

    assert!(wrong.contains("password authentication failed for user \"USER\""), "{wrong}");
    assert_eq!(wrong, unknown);
}

#[test]
fn a_database_that_is_no_upstream_of_the_agents_does_not_exist() {
    let stack = Stack::start();
    let url = format!("postgresql://{AGENT}:{TOKEN}@127.0.0.1:{}/postgres", stack.port);

    let output = stack.psql_command(&url).args(["-c", "select 1"]).output().unwrap();

    assert!(text(&output).contains("database \"postgres\" does not exist"), "{}", text(&output));
}

#[test]
fn an_upstream_that_is_down_is_named() {
    let mut stack = Stack::start();
    stack.cluster.crash();

    let output = stack.psql(&["select 1"]);

    assert!(text(&output).contains("could not connect to upstream \"app\""), "{}", text(&output));
}

#[test]
fn when_upstream_dies_the_session_ends_with_an_error() {
    let mut stack = Stack::start();
    let mut psql = stack.psql_start(&["select pg_sleep(30) from customers limit 1"]);
    // pg_sleep is not harmless to everyone, so it may be held; either way the session is there.
    wait_for("the session runs", || stack.log().contains("session begun"));
    std::thread::sleep(Duration::from_millis(300));

    stack.cluster.crash();
    let mut shown = String::new();
    psql.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    psql.wait().unwrap();

    let told = [
        "terminating connection",
        "could not connect to upstream",
        "was lost",
        "server closed the connection",
    ];
    assert!(told.iter().any(|words| shown.contains(words)), "{shown}");
}

#[test]
fn start_up_parameters_outside_the_list_are_refused_by_name() {
    let stack = Stack::start();
    let told = |options: &str| {
        let mut psql = stack.psql_command(&stack.url());
        text(&psql.env("PGOPTIONS", options).args(["-c", "show statement_timeout"]).output().unwrap())
    };

    assert!(
        told("-c session_replication_role=replica").contains("\"session_replication_role\" is not accepted")
    );
    assert!(told("-c role=postgres").contains("\"role\" is not accepted"));
    assert_eq!(told("-c statement_timeout=5s -c countersign.model=test"), "5s\n");
}

#[test]
fn a_psql_in_another_locale_gets_utf8_all_the_same() {
    let stack = Stack::start();
    let mut psql = stack.psql_command(&stack.url());

    let output = psql
        .env("LC_ALL", "C")
        .env("PGCLIENTENCODING", "LATIN1")
        .args(["-c", "show client_encoding"])
        .output();

    assert_eq!(text(&output.unwrap()), "UTF8\n");
}

#[test]
fn tls_is_offered_and_verified_with_channel_binding() {
    let stack = Stack::with(&Setup { tls: true, ..Setup::default() });
    let certificate = stack.path("server.crt");
    let url = format!(
        "postgresql://{AGENT}:{TOKEN}@localhost:{}/app?sslmode=verify-full&sslrootcert={}&channel_binding=require",
        stack.port,
        certificate.display()
    );

    let output = stack.psql_command(&url).args(["-c", "select 'over tls'"]).output().unwrap();

    assert_eq!(text(&output), "over tls\n");
}

#[test]
fn replication_is_refused() {
    let stack = Stack::start();
    let url = format!("{}?replication=database", stack.url());
    let output = stack.psql_command(&url).args(["-c", "IDENTIFY_SYSTEM"]).output().unwrap();
    assert!(text(&output).contains("replication is not supported"), "{}", text(&output));
}

#[test]
fn upstreams_notices_during_the_login_reach_the_agent() {
    let sql = "
        CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE NOTICE 'welcome, %', session_user; END $$;
        CREATE EVENT TRIGGER greet ON login EXECUTE FUNCTION greet();";
    let stack = Stack::with(&Setup { version: 18, sql: sql.into(), ..Setup::default() });
    let mut agent = Wire::agent(stack.port);
    let [greeting] = &*agent.notices else { panic!("{:?}", agent.notices) };
    assert!(greeting.contains("Mwelcome, app"), "{greeting}");
    assert_eq!(agent.ask(&wire::query("SELECT 1")), "TDC[SELECT 1]ZI");
}

#[test]
fn malformed_bytes_get_an_error_end_the_session_and_are_counted() {
    use std::io::Write as _;
    let stack = Stack::start();
    // Before the login there is no agent to send an error to.
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap();
    socket.set_read_timeout(Some(support::SOON)).unwrap();
    socket.write_all(b"\xff\xff\xff\xffgarbage").unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty());
    wait_for("it is in the log", || stack.log().contains("malformed start-up"));

    let script = r#"
import os, socket, sys, psycopg
malformed = {
    "unknown type": b"\x01\0\0\0\x04",
    "length below 4": b"Q\0\0\0\x03",
    "negative length": b"Q\xff\xff\xff\xff",
    "no terminator": b"Q\0\0\0\x05x",
    "text after the terminator": b"Q\0\0\0\x0eselect 1\0x",
    "too many parameters for its bytes": b"B\0\0\0\x0c\0\0\x7f\xff\0\0\0\0",
}
for name, bytes in malformed.items():
    connection = psycopg.connect(sys.argv[1])
    end = socket.socket(fileno=os.dup(connection.fileno()))
    end.settimeout(10)
    end.sendall(bytes)
    answer = b""
    while True:
        more = end.recv(4096)
        if not more:
            break
        answer += more
    print(name, b"08P01" in answer)
"#;
    let output = stack.python(script, &[]);
    assert_eq!(text(&output).matches(" True").count(), 6, "{}", text(&output));
    assert_eq!(stack.metric("countersign_sessions_malformed_total"), 7);
    assert_eq!(stack.metric("countersign_ledger_healthy"), 1);
}

#[test]
fn connections_before_the_login_are_limited_and_the_next_gets_an_error() {
    let stack = Stack::start();
    let crowd: Vec<_> =
        (0..256).map(|_| std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap()).collect();
    wait_for("they are all received", || stack.metric("countersign_connections_total") >= 257);

    let mut told = Vec::new();
    wait_for("the next is told", || {
        let mut next = std::net::TcpStream::connect(("127.0.0.1", stack.port)).unwrap();
        next.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        told.clear();
        let _ = next.read_to_end(&mut told);
        !told.is_empty()
    });

    assert!(String::from_utf8_lossy(&told).contains("53300"), "{told:?}");
    drop(crowd);
    wait_for("there is room again", || text(&stack.psql(&["select 'in'"])).contains("in"));
}
