//! How agents prove who they are: passwords, certificates, and a reload of both.

use super::*;

#[test]
fn channel_binding_is_offered_under_tls_and_a_downgrade_is_noticed() {
    let (stack, plain) = (with_tls(), Stack::start());
    let script = r#"
def told(tls, flag, mechanism=None, binding=None, password=token):
    w = Wire(port)
    data = b""
    if tls:
        w.ask_tls()
        data = end_point(w.s.getpeercert(True))
    w.startup(who)
    error = w.scram(password, flag, mechanism, data if binding is None and flag.startswith("p") else binding or b"")
    if error and error.startswith("E"):
        error = error.split("C")[-1][:5]
    return error, w.offered
tls = sys.argv[5] == "tls"
plus = "p=tls-server-end-point"
print("none", told(tls, "n"))
print("could", told(tls, "y"))
if tls:
    print("bound", told(tls, plus))
    print("other server", told(tls, plus, binding=b"x" * 32)[0])
    print("wrong password", told(tls, plus, password="x")[0])
    print("other binding", told(tls, "p=tls-unique")[0])
    print("bound in name only", told(tls, "n", "SCRAM-SHA-256-PLUS")[0])
print("not offered", told(tls, plus, "SCRAM-SHA-256")[0])
print("unknown", told(tls, "n", "SCRAM-SHA-1")[0])
"#;

    assert_eq!(
        speak(&stack, script, &["tls"]),
        "none (None, ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])\n\
         could ('28P01', ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])\n\
         bound (None, ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])\n\
         other server 28P01\nwrong password 28P01\nother binding 08P01\nbound in name only 08P01\n\
         not offered 08P01\nunknown 08P01\n"
    );
    assert!(stack.log().contains("SCRAM channel binding check failed"), "{}", stack.log());
    assert_eq!(
        speak(&plain, script, &["plain"]),
        "none (None, ['SCRAM-SHA-256'])\ncould (None, ['SCRAM-SHA-256'])\nnot offered 08P01\nunknown 08P01\n"
    );

    // What real clients make of it, and how it is recorded.
    for (binding, method) in [("require", "scram-sha-256-plus"), ("disable", "scram-sha-256")] {
        let url = format!(
            "postgresql://{AGENT}:{TOKEN}@localhost:{}/app?sslmode=require&channel_binding={binding}",
            stack.port
        );
        assert_eq!(text(&stack.psql_command(&url).args(["-c", "select 1"]).output().unwrap()), "1\n");
        wait_for("it is recorded", || {
            stack.entries("session_opened", 1).iter().any(|entry| entry["method"] == method)
        });
    }
}

fn bot(name: &str) -> Vec<(DnType, &str)> {
    vec![(DnType::OrganizationName, "Example"), (DnType::CommonName, name)]
}

/// psql as an agent with a certificate.
fn psql_with(stack: &Stack, agent: &str, certificate: Option<&str>, password: Option<&str>) -> Command {
    let url = format!("postgresql://{agent}@localhost:{}/app?sslmode=require", stack.port);
    let mut psql = stack.psql_command(&url);
    // libpq looks into the home of whoever runs it; nothing of that is meant here.
    psql.env("HOME", stack.directory.path()).env("PGPASSWORD", password.unwrap_or_default());
    if let Some(certificate) = certificate {
        let key = stack.path(&format!("{certificate}.key"));
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        psql.env("PGSSLCERT", stack.path(&format!("{certificate}.crt"))).env("PGSSLKEY", key);
    }
    psql.args(["-c", "select 'in'"]);
    psql
}

#[test]
fn an_agent_is_accepted_with_its_own_certificate_only() {
    let (ours, theirs) = (Authority::new("agents"), Authority::new("agents"));
    let (one, two) = (ours.client(&bot("one")), ours.client(&bot("two")));
    let forged = ours.client(&[(DnType::CommonName, "one,O=Example")]);
    let issued = [
        ("one", &one),
        ("two", &two),
        ("forged", &forged),
        ("expired", &ours.expired(&bot("one"))),
        ("stranger", &theirs.client(&bot("one"))),
        ("server", &ours.server(&["one"])),
    ];
    let mut setup = Setup { tls: true, client_ca: Some("agents.crt"), ..Setup::default() };
    setup.files =
        issued.iter().flat_map(|(prefix, issued)| files(&format!("agent-{prefix}"), issued)).collect();
    setup.files.push(("agents.crt".to_owned(), ours.pem.clone()));
    let verifier = ScramVerifier::of_password(TOKEN);
    for (name, proof) in [
        ("by-name", "certificate = \"CN=one,O=Example\"".to_owned()),
        ("by-print", format!("certificate = \"sha256:{}\"", two.fingerprint)),
        ("by-both", format!("certificate = \"CN=one, O=Example\"\nverifier = \"{verifier}\"")),
    ] {
        writeln!(
            setup.config,
            "[[agent]]\nname = \"{name}\"\nowner = \"alice@example.com\"\nupstreams = [\"app\"]\n{proof}"
        )
        .unwrap();
    }
    let stack = Stack::with(&setup);
    let told = |agent: &str, certificate: Option<&str>, password: Option<&str>| {
        let certificate = certificate.map(|name| format!("agent-{name}"));
        text(&psql_with(&stack, agent, certificate.as_deref(), password).output().unwrap())
    };

    assert_eq!(told("by-name", Some("one"), None), "in\n");
    assert_eq!(told("by-print", Some("two"), None), "in\n");
    assert_eq!(told("by-both", Some("one"), Some(TOKEN)), "in\n");
    assert_eq!(told(AGENT, Some("two"), Some(TOKEN)), "in\n", "a password agent may show one, too");
    for (agent, certificate) in [
        ("by-name", None),
        ("by-name", Some("two")),
        ("by-name", Some("forged")),
        ("by-print", Some("one")),
        ("by-both", None),
        ("by-both", Some("two")),
    ] {
        let shown = told(agent, certificate, Some(TOKEN));
        assert!(shown.contains("certificate authentication failed"), "{agent} {certificate:?}: {shown}");
    }
    assert!(told("by-both", Some("one"), Some("wrong")).contains("password authentication failed"));
    assert!(told(AGENT, Some("two"), Some("wrong")).contains("password authentication failed"));
    // The handshake itself refuses certificates that are not by our authority, not for clients, or not in force.
    for (certificate, alert) in [
        ("stranger", "unknown ca|decrypt error"),
        ("expired", "certificate expired"),
        ("server", "certificate"),
    ] {
        let shown = told("by-name", Some(certificate), None);
        assert!(alert.split('|').any(|alert| shown.contains(alert)), "{certificate}: {shown}");
        assert!(!shown.contains("in\n"), "{certificate}: {shown}");
    }
    let plain = format!("postgresql://by-name@127.0.0.1:{}/app?sslmode=disable", stack.port);
    let shown = text(&stack.psql_command(&plain).args(["-c", "select 1"]).output().unwrap());
    assert!(shown.contains("certificate authentication failed"), "{shown}");

    let sessions = stack.entries("session_opened", 4);
    let of = |agent: &str| {
        let entry = sessions.iter().find(|entry| entry["agent"] == agent).unwrap();
        (entry["method"].as_str().unwrap().to_owned(), entry["certificate"].as_str().map(str::to_owned))
    };
    assert_eq!(of("by-name"), ("certificate".to_owned(), Some(one.fingerprint.clone())));
    assert_eq!(of("by-print"), ("certificate".to_owned(), Some(two.fingerprint.clone())));
    assert_eq!(of("by-both"), ("scram-sha-256-plus".to_owned(), Some(one.fingerprint.clone())));
    assert_eq!(sessions.len(), 4, "nobody else got in: {sessions:?}");
    let log = stack.log();
    assert!(log.contains("no certificate was shown") && log.contains("another one than configured"), "{log}");
}

fn certificate_of(stack: &Stack) -> String {
    speak(stack, "w = Wire(port)\nw.ask_tls()\nprint(end_point(w.s.getpeercert(True)).hex())", &[])
        .trim()
        .to_owned()
}

#[test]
fn a_reload_changes_certificates_and_agents_and_ends_only_the_sessions_of_the_revoked() {
    let verifier = ScramVerifier::of_password(TOKEN);
    let entry = |name: &str| {
        format!(
            "[[agent]]\nname = \"{name}\"\nowner = \"alice@example.com\"\nupstreams = [\"app\"]\nverifier = \"{verifier}\"\n"
        )
    };
    let setup = Setup { tls: true, config: entry("going") + &entry("moving"), ..Setup::default() };
    let stack = Stack::with(&setup);
    let script = r#"
import sys, psycopg
connect = lambda name: psycopg.connect(sys.argv[1].replace("reporting-bot", name) + "?sslmode=require", autocommit=True)
staying, going, moving = connect("reporting-bot"), connect("going"), connect("moving")
staying.execute("begin")
going.execute("select 1")
print("ready", flush=True)
sys.stdin.readline()
print(staying.execute("select 'still here'").fetchone()[0], flush=True)
for c in going, moving:
    try:
        c.execute("select 1")
        print("not ended")
    except psycopg.OperationalError as e:
        print(e.diag.sqlstate if e.diag.sqlstate else str(e).splitlines()[0])
sys.stdin.readline()
staying.execute("commit")
print(staying.execute("select 'and here'").fetchone()[0])
"#;
    let mut running = support::python()
        .arg("-c")
        .arg(script)
        .arg(stack.url())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("three sessions", || stack.log().matches("session begun").count() == 3);
    let before = certificate_of(&stack);

    // An operator's commands, in place; the file is noticed without a signal.
    let config = stack.path("countersign.toml");
    let loaded = stack.log().matches("configuration loaded").count();
    assert!(countersign().args(["agent", "revoke", "going", "-c"]).arg(&config).status().unwrap().success());
    wait_for("noticed", || stack.log().matches("configuration loaded").count() > loaded);
    stack.reconfigure(|text| {
        let (head, tail) = text.split_once("name = \"moving\"").unwrap();
        let second = "[[upstream]]\nname = \"other\"\nhost = \"127.0.0.1\"\nuser = \"app\"\n";
        format!(
            "{head}name = \"moving\"{}{second}",
            tail.replace("upstreams = [\"app\"]", "upstreams = [\"other\"]")
        )
    });
    wait_for("both have ended", || stack.entries("session_closed", 2).len() == 2);
    for entry in stack.entries("session_closed", 2) {
        assert_eq!(entry["what"], "the agent is no longer allowed here", "{entry}");
    }
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();

    // A new certificate, and one that is no good.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(stack.path("server.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(stack.path("server.crt"), made.cert.pem()).unwrap();
    wait_for("the new certificate is shown", || certificate_of(&stack) != before);
    let new = certificate_of(&stack);
    assert_eq!(new, countersign::statement::Digest::of(made.cert.der()).to_string());
    fs::write(stack.path("server.crt"), "nonsense").unwrap();
    wait_for("nonsense is told", || stack.log().contains("the changed configuration is not used"));
    assert_eq!(certificate_of(&stack), new, "the old one stays");

    stdin.write_all(b"\n").unwrap();
    drop(stdin);
    let output = running.wait_with_output().unwrap();
    assert_eq!(text(&output), "ready\nstill here\n57P01\n57P01\nand here\n");
    // The error for new connections.
    let told = |name: &str| {
        let url = stack.url().replace(AGENT, name);
        text(&stack.psql_command(&url).args(["-c", "select 'in'"]).output().unwrap())
    };
    assert!(told("going").contains("password authentication failed"));
    assert!(told("moving").contains("database \"app\" does not exist"));
    assert_eq!(told(AGENT), "in\n");
}
