//! Who gets in, and how: the first messages, TLS, passwords, certificates, with real clients and
//! servers.
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
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use countersign::identity::{AgentEntry, Directory, KeySources, ScramVerifier};
use countersign::proxy::handshake::{self, Door};
use countersign::proxy::tls::AgentTls;
use countersign::proxy::upstream::{self, Upstream};
use pki::{Authority, Issued};
use rcgen::DnType;
use support::{AGENT, Setup, Stack, TOKEN, countersign, text, wait_for};

/// The first lines of every script that speaks for itself.
const WIRE: &str = "
import sys, json, struct, threading, time
from wire import *
port, agent, token = int(sys.argv[2]), sys.argv[3], sys.argv[4]
who = [('user', agent), ('database', 'app')]
";

/// Runs a script with `tests/support/wire.py`; returns what it prints.
fn speak(stack: &Stack, script: &str, arguments: &[&str]) -> String {
    let port = stack.port.to_string();
    let arguments = [&[port.as_str(), AGENT, TOKEN], arguments].concat();
    text(&stack.python(&format!("{WIRE}{script}"), &arguments))
}

fn with_tls() -> Stack {
    Stack::with(&Setup { tls: true, ..Setup::default() })
}

// ---- the protocol's version ----------------------------------------------------------------------

#[test]
fn newer_versions_and_options_are_negotiated_and_cancel_keys_are_as_long_as_agreed() {
    let stack = Stack::start();
    let script = r#"
def session(minor, extra=[]):
    w = Wire(port)
    w.negotiated = None
    w.startup(who + extra, minor=minor)
    assert w.scram(token) is None
    w.key = w.ready()
    return w

for minor, extra in [(0, []), (1, []), (2, []), (9999, []), (0, [("_pq_.x", "1")]), (9999, [("_pq_.x", "1"), ("_pq_.y", "")])]:
    w = session(minor, extra)
    offer = w.negotiated
    if offer is not None:
        version, count = struct.unpack("!Ii", offer[:8])
        offer = "%d.%d %s" % (version >> 16, version & 0xffff, [n.decode() for n in offer[8:].split(b"\0")[:count]])
    print(minor, extra and "options" or "-", offer, len(w.key) - 4)

def cancel(key):
    c = Wire(port)
    c.send(struct.pack("!iii", 12 + len(key) - 4, CANCEL, struct.unpack("!i", key[:4])[0]) + key[4:])
    assert c.closed()

for minor in (0, 2):
    w = session(minor)
    w.query("select pg_backend_pid()")
    assert str(struct.unpack("!i", w.key[:4])[0]) in repr(w.message() and w.message())
    assert w.answer() == ("CZ", None)
    w.query("select count(*) from generate_series(1, 100000000000)")
    time.sleep(0.3)
    wrong = bytearray(w.key); wrong[-1] ^= 1
    for key in (bytes(wrong), w.key[:-1] if minor else w.key + b"\0", w.key[:8] if minor else w.key[:4] + bytes(4), w.key[:4] + bytes(256)):
        cancel(key)
    w.s.settimeout(0.5)
    try:
        print("cancelled by a wrong key", w.message())
    except TimeoutError:
        print("goes on")
    w.s.settimeout(30)
    cancel(w.key)
    print(w.answer())
    w.query("select 1")
    print(w.answer())
"#;

    let output = speak(&stack, script, &[]);

    let expected = "0 - None 4\n1 - None 4\n2 - None 32\n9999 - 3.2 [] 32\n0 options 3.0 ['_pq_.x'] 4\n\
                    9999 options 3.2 ['_pq_.x', '_pq_.y'] 32\n\
                    goes on\n('TEZ', '57014')\n('TDCZ', None)\ngoes on\n('TEZ', '57014')\n('TDCZ', None)\n";
    assert_eq!(output, expected);
}

#[test]
fn libpq_18_speaks_3_2_and_cancels() {
    for version in [15, 18] {
        let stack = Stack::with(&Setup { version, ..Setup::default() });
        let script = r#"
import sys, psycopg, threading, time
assert psycopg.pq.version() >= 180000
for least, most in (("3.2", "3.2"), ("3.0", "latest"), ("3.0", "3.0")):
    with psycopg.connect(sys.argv[1], autocommit=True, min_protocol_version=least, max_protocol_version=most) as c:
        timer = threading.Timer(0.5, c.cancel_safe)
        timer.start()
        try:
            c.execute("select count(*) from generate_series(1, 100000000000)")
        except psycopg.errors.QueryCanceled as e:
            timer.join()
            print(least, most, e.sqlstate, c.execute("select 1").fetchone()[0])
"#;

        let output = text(&stack.python(script, &[]));

        assert_eq!(output, "3.2 3.2 57014 1\n3.0 latest 57014 1\n3.0 3.0 57014 1\n", "version {version}");
    }
}

fn upstream_of(stack: &Stack) -> Upstream {
    Upstream {
        agents_name_sessions: false,
        name: "app".into(),
        host: "127.0.0.1".to_owned(),
        port: stack.cluster.port(),
        database: "postgres".into(),
        role: "app".into(),
        password: Some("upstream-secret".to_owned().into()),
        tls: None,
        timeout: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn upstream_is_spoken_to_in_3_2_where_it_knows_it() {
    for (version, length) in [(15, 4), (18, 32)] {
        let stack = Stack::with(&Setup { version, ..Setup::default() });
        let upstream = upstream_of(&stack);

        let connected = upstream::log_in(&upstream, &[], 2).await.unwrap();
        let key = connected.key.unwrap();

        assert_eq!(key.secret().len(), length, "version {version}");
        upstream::cancel(&upstream, &key).await.unwrap();
        let short = upstream::log_in(&upstream, &[], 0).await.unwrap().key.unwrap();
        assert_eq!(short.secret().len(), 4);
        // And that is what sessions of agents do.
        assert_eq!(text(&stack.psql(&["select 'in'"])), "in\n");
    }
}

/// Stands before a server and knows version 3.0 only, as PgBouncer before 1.23.
fn only_3_0(server: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for agent in listener.incoming() {
            let mut agent = agent.unwrap();
            std::thread::spawn(move || {
                let mut first = [0; 8];
                if agent.read_exact(&mut first).is_err() {
                    return;
                }
                if first[4..] == [0, 3, 0, 2] {
                    let fields = b"SFATAL\0VFATAL\0C08P01\0Mbad packet header: '0000004d00030002'\0\0";
                    let length = (fields.len() as u32 + 4).to_be_bytes();
                    let _ = agent.write_all(&[&b"E"[..], &length, fields].concat());
                    return;
                }
                let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                server.write_all(&first).unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), agent.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut agent, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

#[test]
fn what_stands_before_upstream_need_not_know_3_2() {
    let stack = Stack::with(&Setup { version: 18, ..Setup::default() });
    let port = only_3_0(stack.cluster.port());
    stack.reconfigure(|text| {
        text.replace(&format!("port = {}\n", stack.cluster.port()), &format!("port = {port}\n"))
    });

    assert_eq!(text(&stack.psql(&["select 'in'"])), "in\n");
    assert_eq!(text(&stack.psql(&["select 'in'"])), "in\n");
    assert_eq!(stack.log().matches("protocol 3.0 from now on").count(), 1);
}

// ---- the first messages --------------------------------------------------------------------------

#[test]
fn requests_to_encrypt_come_once_and_with_nothing_behind_them() {
    let (plain, tls) = (Stack::start(), with_tls());
    let script = r#"
def told(*steps):
    w = Wire(port)
    answers = []
    for code, behind in steps:
        w.request(code, behind)
        answer = w.recv(1)
        answers.append("closed" if answer is None else answer.decode())
        if answer is None:
            break
        if answer == b"S":
            w.tls()
    return " ".join(answers)

startup = struct.pack("!ii", 8 + len(b"user\0x\0\0"), 3 << 16) + b"user\0x\0\0"
for steps in (
    [(SSL, b""), (SSL, b"")],
    [(GSS, b""), (GSS, b"")],
    [(GSS, b""), (SSL, b""), (GSS, b"")],
    [(SSL, b""), (GSS, b"")],
    [(SSL, startup)],
    [(GSS, startup)],
    [(SSL, b"\x16\x03\x01")],
    [(GSS, struct.pack("!ii", 8, SSL))],
):
    print(told(*steps))
w = Wire(port)
w.request(GSS); assert w.recv(1) == b"N"
w.request(SSL)
if w.recv(1) == b"S":
    w.tls()
w.startup(who)
print(w.scram(token))
"#;

    assert_eq!(
        speak(&plain, script, &[]),
        "N closed\nN closed\nN N closed\nN N\nclosed\nclosed\nclosed\nclosed\nNone\n"
    );
    assert_eq!(
        speak(&tls, script, &[]),
        "S closed\nN closed\nN S closed\nS closed\nclosed\nclosed\nclosed\nclosed\nNone\n"
    );
    assert!(tls.log().contains("unencrypted bytes behind a request to encrypt"), "{}", tls.log());
}

/// CVE-2021-23214: what a man in the middle slips in behind the request, before the client's own
/// handshake, is never taken for the client's.
#[test]
fn bytes_slipped_in_before_the_handshake_break_it() {
    let stack = with_tls();
    let script = r#"
smuggled = struct.pack("!ii", 8 + len(b"user\0evil\0\0"), 3 << 16) + b"user\0evil\0\0"
w = Wire(port)
w.request(SSL)
assert w.recv(1) == b"S"
w.send(smuggled)
try:
    w.tls()
    print("shaken hands")
except (ssl.SSLError, ConnectionError) as e:
    print("broken")
"#;

    assert_eq!(speak(&stack, script, &[]), "broken\n");
    wait_for("it is in the log", || stack.log().contains("no TLS came about"));
    assert!(!stack.log().contains("evil"));
}

#[test]
fn direct_tls_needs_the_protocols_name() {
    let (stack, plain) = (with_tls(), Stack::start());
    let script = r#"
for alpn in (["postgresql"], ["h2", "postgresql"], None, ["h2"]):
    w = Wire(port)
    try:
        w.tls(alpn=alpn)
        w.startup(who)
        print(alpn, w.s.selected_alpn_protocol(), w.scram(token))
    except (ssl.SSLError, ConnectionError, BrokenPipeError) as e:
        print(alpn, "refused")
w = Wire(port)
w.ask_tls(alpn=["postgresql"])
w.startup(who)
print(w.scram(token))
w = Wire(port)
w.tls(alpn=["postgresql"])
w.request(SSL)
print(w.closed())
import psycopg
with psycopg.connect("postgresql://%s:%s@localhost:%d/app?sslmode=require&sslnegotiation=direct" % (agent, token, port)) as c:
    print(c.execute("select 'direct'").fetchone()[0])
"#;

    let output = speak(&stack, script, &[]);

    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "['postgresql'] postgresql None");
    assert_eq!(lines[1], "['h2', 'postgresql'] postgresql None");
    assert!(lines[2].starts_with("None refused") || lines[2].contains("asked for None"), "{output}");
    assert_eq!(lines[3], "['h2'] refused");
    assert_eq!(lines[4..], ["None", "True", "direct"]);
    assert!(stack.log().contains("direct TLS without the ALPN protocol"), "{}", stack.log());
    let refused = speak(
        &plain,
        "w = Wire(port)\ntry:\n    w.tls(alpn=['postgresql'])\nexcept Exception:\n    print('refused')",
        &[],
    );
    assert_eq!(refused, "refused\n", "without a certificate there is no TLS");
}

#[test]
fn start_up_packets_are_limited_in_size_and_time_and_told_what_is_wrong() {
    let setup = Setup { config: "[limits]\nlogin = \"700ms\"\n".to_owned(), ..Setup::default() };
    let stack = Stack::with(&setup);
    let script = r#"
# A packet may have 10,000 bytes behind its length, as in Postgres.
fixed = sum(len(p) + 1 for pair in who for p in pair) + len("_pq_.long") + 1 + 1 + 1 + 4
for size in (10000, 10001):
    w = Wire(port)
    w.startup(who + [("_pq_.long", "x" * (size - fixed))])
    print(size, w.scram(token))
for name, what in {
    "not UTF-8": dict(raw=b"user\0" + b"\xff\0\0"),
    "no value": dict(raw=b"user\0\0"),
    "no end": dict(raw=b"user\0x\0"),
    "behind the end": dict(raw=b"user\0x\0\0more\0"),
    "NUL in a value": dict(raw=b"user\0x\0database\0a\0b\0\0"),
    "version 2": dict(major=2, parameters=who),
    "version 4": dict(major=4, parameters=who),
    "no user": dict(parameters=[("database", "app")]),
    "replication": dict(parameters=who + [("replication", "1")]),
    "role": dict(parameters=who + [("role", "postgres")]),
}.items():
    w = Wire(port)
    w.startup(what.pop("parameters", None), **what)
    print(name, "|", w.error(), "|", w.closed())
for length in (0, 7, 10005, 2**31 - 1, 2**32 - 1):
    w = Wire(port)
    w.send(struct.pack("!I", length) + b"\0\3\0\0")
    print(length, w.closed())
# Slow ones: nothing at all, a drop at a time, and an exchange that stops in its middle.
def slow(steps):
    w = Wire(port)
    began = time.monotonic()
    try:
        steps(w)
    except (ConnectionError, BrokenPipeError):
        pass
    assert w.closed()
    return time.monotonic() - began
def drops(w):
    for n in range(30):
        w.send(b"\0" if n < 3 else bytes([100]) if n == 3 else b"x")
        time.sleep(0.1)
def stops(w):
    w.startup(who)
    assert w.message()[0] == "R"
for steps in (lambda w: None, drops, stops):
    took = slow(steps)
    assert 0.5 < took < 5, took
print("slow ones are gone")
"#;

    let output = speak(&stack, script, &[]);

    let expected = "10000 None
10001 asked for None b''
not UTF-8 | 08P01 protocol violation: invalid layout of the start-up packet | True
no value | 08P01 protocol violation: invalid layout of the start-up packet | True
no end | 08P01 protocol violation: invalid layout of the start-up packet | True
behind the end | 08P01 protocol violation: invalid layout of the start-up packet | True
NUL in a value | 08P01 protocol violation: invalid layout of the start-up packet | True
version 2 | 0A000 this version of the protocol is not supported through countersign | True
version 4 | 0A000 this version of the protocol is not supported through countersign | True
no user | 28000 no PostgreSQL user name specified in startup packet | True
replication | 0A000 replication is not supported through countersign | True
role | 0A000 start-up parameter \"role\" is not accepted | True
0 True\n7 True\n10005 True\n2147483647 True\n4294967295 True
slow ones are gone
";
    assert_eq!(output, expected);
    assert_eq!(stack.log().matches("no proof of identity in time").count(), 3);
}

/// A socket whose other end is told that it comes from `from`, received with `door`.
async fn received(from: &str, door: &Door<'_>, startup: &[u8]) -> (Result<(), String>, String) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut agent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    agent.write_all(startup).unwrap();
    agent.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let received = handshake::receive(socket, from.parse().unwrap(), door).await;
    let mut told = Vec::new();
    let _ = agent.read_to_end(&mut told);
    (received.map(|_| ()).map_err(|error| error.to_string()), String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test]
async fn from_other_machines_tls_is_required_unless_waived() {
    let authority = Authority::new("test");
    let folder = tempfile::tempdir().unwrap();
    let Issued { certificate, key, .. } = authority.server(&["localhost"]);
    fs::write(folder.path().join("crt"), certificate).unwrap();
    fs::write(folder.path().join("key"), key).unwrap();
    let tls = AgentTls::load(&folder.path().join("crt"), &folder.path().join("key"), None).unwrap();
    let directory = Directory::new(Vec::<AgentEntry>::new(), Vec::new(), [1; 32]).unwrap();
    let keys = KeySources::default();
    let door = |insecure_plaintext| Door {
        tls: Some(&tls),
        insecure_plaintext,
        patience: Duration::from_millis(300),
        agents: &directory,
        key_sources: &keys,
    };
    let startup = b"\0\0\0\x12\0\x03\0\0user\0bot\0\0";

    for from in ["192.0.2.7:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.7]:5000"] {
        let (refused, told) = received(from, &door(false), startup).await;
        assert!(refused.unwrap_err().contains("TLS is required"));
        assert!(told.contains("C28000\0") && !told.contains("SCRAM"), "{told}");
        let (gone_on, told) = received(from, &door(true), startup).await;
        assert!(gone_on.unwrap_err().contains("no proof within"));
        assert!(told.contains("SCRAM-SHA-256"), "{told}");
    }
    for from in ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
        let (_, told) = received(from, &door(false), startup).await;
        assert!(told.contains("SCRAM-SHA-256") && !told.contains("28000"), "{told}");
    }
}

// ---- passwords -----------------------------------------------------------------------------------

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

// ---- certificates --------------------------------------------------------------------------------

fn files(prefix: &str, issued: &Issued) -> [(String, String); 2] {
    [(format!("{prefix}.crt"), issued.certificate.clone()), (format!("{prefix}.key"), issued.key.clone())]
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
fn an_agent_comes_with_its_certificate_and_nobody_elses() {
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
    // The handshake itself refuses what is not by our authority, not for clients, or not in force.
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

// ---- reloading -----------------------------------------------------------------------------------

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
    // What is told to those who come now.
    let told = |name: &str| {
        let url = stack.url().replace(AGENT, name);
        text(&stack.psql_command(&url).args(["-c", "select 'in'"]).output().unwrap())
    };
    assert!(told("going").contains("password authentication failed"));
    assert!(told("moving").contains("database \"app\" does not exist"));
    assert_eq!(told(AGENT), "in\n");
}

// ---- our own login upstream ----------------------------------------------------------------------

/// How the server lets in whom.
const HBA: &str = "
local   all postgres      trust
local   all all           scram-sha-256
hostssl all by_cert  all  cert
host    all by_cert  all  reject
host    all by_md5   all  md5
host    all in_clear all  password
host    all all      all  scram-sha-256
";

/// Stands between us and a server, with a certificate of its own.
const MAN_IN_THE_MIDDLE: &str = "
import socket, ssl, struct, sys, threading
ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ours.load_cert_chain(sys.argv[2], sys.argv[3])
theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(a):
    try:
        assert a.recv(8, socket.MSG_WAITALL) == struct.pack('!ii', 8, 80877103)
        a.sendall(b'S')
        a = ours.wrap_socket(a, server_side=True)
        b = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
        b.sendall(struct.pack('!ii', 8, 80877103))
        assert b.recv(1) == b'S'
        b = theirs.wrap_socket(b)
    except (OSError, AssertionError):
        return
    threading.Thread(target=pump, args=(a, b), daemon=True).start()
    pump(b, a)
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
";

fn man_in_the_middle(server: u16, certificate: &std::path::Path, key: &std::path::Path) -> u16 {
    let mut child = support::python()
        .args(["-c", MAN_IN_THE_MIDDLE, &server.to_string()])
        .args([certificate, key])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut port).unwrap();
    // Its standard input closes with this process, and it ends.
    std::mem::forget(child);
    port.trim().parse().unwrap()
}

/// Makes a running server take TLS, and lets in as [`HBA`] says.
fn encrypt(stack: &Stack, server: &Issued, client_ca: &str) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let data = stack.cluster.directory().join("data");
    let owner = fs::metadata(&data).unwrap();
    for (name, text) in
        [("server.crt", &*server.certificate), ("server.key", &server.key), ("root.crt", client_ca)]
    {
        let path = data.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    stack.superuser("ALTER SYSTEM SET ssl = on");
    stack.superuser("ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
    stack.superuser("SELECT pg_reload_conf()");
    wait_for("the server takes TLS", || stack.superuser("SHOW ssl") == "on");
}

#[test]
fn upstream_is_logged_in_to_in_every_way_that_is_safe_and_in_no_other() {
    for version in [15, 18] {
        let (ours, other) = (Authority::new("upstream"), Authority::new("upstream"));
        let mut setup = Setup {
            version,
            sql: "CREATE ROLE by_cert LOGIN; SET password_encryption = md5;
                  CREATE ROLE by_md5 LOGIN PASSWORD 'upstream-secret'; RESET password_encryption;
                  CREATE ROLE in_clear LOGIN PASSWORD 'upstream-secret';"
                .to_owned(),
            ..Setup::default()
        };
        setup.files.push(("ours.crt".to_owned(), ours.pem.clone()));
        setup.files.push(("other.crt".to_owned(), other.pem.clone()));
        for (prefix, issued) in [
            ("by_cert", ours.client(&[(DnType::CommonName, "by_cert")])),
            ("somebody", ours.client(&[(DnType::CommonName, "somebody")])),
            ("stranger", other.client(&[(DnType::CommonName, "by_cert")])),
            ("middle", ours.server(&["localhost"])),
        ] {
            setup.files.extend(files(prefix, &issued));
        }
        let stack = Stack::with(&setup);
        encrypt(&stack, &ours.server(&["localhost"]), &ours.pem);
        let server = stack.cluster.port();
        let middle = man_in_the_middle(server, &stack.path("middle.crt"), &stack.path("middle.key"));
        let socket = stack.cluster.directory().display().to_string();
        let full = "tls = \"verify-full\"\nca = \"ours.crt\"";
        let password = "password_file = \"upstream-password\"";
        let client = |name: &str| format!("{full}\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"");
        // Name, host, port, role, how; and what the log says where nobody gets in.
        let cases = [
            ("full", "localhost", server, "app", format!("{full}\n{password}"), None),
            (
                "full-wrong-name",
                "127.0.0.1",
                server,
                "app",
                format!("{full}\n{password}"),
                Some("not valid for name"),
            ),
            (
                "full-wrong-ca",
                "localhost",
                server,
                "app",
                format!("tls = \"verify-full\"\nca = \"other.crt\"\n{password}"),
                Some("invalid peer certificate"),
            ),
            (
                "ca",
                "127.0.0.1",
                server,
                "app",
                format!("tls = \"verify-ca\"\nca = \"ours.crt\"\n{password}"),
                None,
            ),
            (
                "ca-wrong",
                "127.0.0.1",
                server,
                "app",
                format!("tls = \"verify-ca\"\nca = \"other.crt\"\n{password}"),
                Some("invalid peer certificate"),
            ),
            ("require", "127.0.0.1", server, "app", format!("tls = \"require\"\n{password}"), None),
            ("disable", "127.0.0.1", server, "app", format!("tls = \"disable\"\n{password}"), None),
            ("cert", "localhost", server, "by_cert", client("by_cert"), None),
            ("cert-none", "localhost", server, "by_cert", full.to_owned(), Some("client certificate")),
            (
                "cert-of-another",
                "localhost",
                server,
                "by_cert",
                client("somebody"),
                Some("certificate authentication failed"),
            ),
            (
                "cert-of-a-stranger",
                "localhost",
                server,
                "by_cert",
                client("stranger"),
                Some("received fatal alert"),
            ),
            (
                "cert-without-tls",
                "127.0.0.1",
                server,
                "by_cert",
                "tls = \"disable\"".to_owned(),
                Some("pg_hba.conf rejects"),
            ),
            ("md5", "127.0.0.1", server, "by_md5", format!("tls = \"disable\"\n{password}"), None),
            ("md5-over-tls", "localhost", server, "by_md5", format!("{full}\n{password}"), None),
            ("clear-over-tls", "localhost", server, "in_clear", format!("{full}\n{password}"), None),
            (
                "clear",
                "127.0.0.1",
                server,
                "in_clear",
                format!("tls = \"disable\"\n{password}"),
                Some("asks for the password in clear text without TLS; it was not sent"),
            ),
            ("no-password", "localhost", server, "app", full.to_owned(), Some("the configuration has none")),
            ("socket", socket.as_str(), server, "app", password.to_owned(), None),
            // The server's name and authority are right; only the password exchange, which is bound to
            // the certificate that was shown to us, tells that it is not the server's own.
            (
                "in-the-middle",
                "localhost",
                middle,
                "app",
                format!("{full}\n{password}"),
                Some("channel binding"),
            ),
        ];
        // What depends on the server's version; each upstream's catalogue takes a while to read.
        let again = ["full", "cert", "cert-of-another", "md5", "clear-over-tls", "clear", "in-the-middle"];
        let cases: Vec<_> =
            cases.into_iter().filter(|case| version == 15 || again.contains(&case.0)).collect();
        let mut more = String::new();
        for (name, host, port, role, how, _) in &cases {
            writeln!(more, "[[upstream]]\nname = \"{name}\"\nhost = \"{host}\"\nport = {port}\ndatabase = \"postgres\"\nuser = \"{role}\"\n{how}").unwrap();
        }
        let names: Vec<String> = cases.iter().map(|case| format!("\"{}\"", case.0)).collect();
        writeln!(
            more,
            "[[agent]]\nname = \"tester\"\nowner = \"alice@example.com\"\nupstreams = [{}]\nverifier = \"{}\"",
            names.join(", "),
            ScramVerifier::of_password(TOKEN)
        )
        .unwrap();
        stack.reconfigure(|text| text + &more);

        for (name, _, _, _, _, why) in &cases {
            let url = format!("postgresql://tester:{TOKEN}@127.0.0.1:{}/{name}", stack.port);
            let before = stack.log().len();
            let shown = text(&stack.psql_command(&url).args(["-c", "select current_user"]).output().unwrap());
            let told = |why: &str| stack.log().get(before..).is_some_and(|log| log.contains(why));
            match why {
                None => assert!(!shown.contains("FATAL"), "{version} {name}: {shown}"),
                Some(why) => {
                    assert!(
                        shown.contains(&format!("could not connect to upstream \"{name}\"")),
                        "{version} {name}: {shown}"
                    );
                    wait_for(&format!("{version} {name}: {why}"), || told(why));
                    assert!(!shown.contains(why), "the reason is the operator's: {shown}");
                }
            }
        }
        assert!(!stack.log().contains("upstream-secret"));
        let check = countersign().args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap();
        let shown = text(&check);
        assert!(shown.contains("ok       upstream \"cert\""), "{shown}");
        assert!(shown.contains("problem  upstream \"clear\""), "{shown}");
    }
}

/// CVE-2021-23222: what somebody slips in behind the server's answer is never taken for the server's.
#[tokio::test]
async fn bytes_behind_upstreams_answer_break_the_handshake() {
    let stack = Stack::start();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = [0; 8];
            let _ = socket.read_exact(&mut request);
            // "S", and at once a login without any question asked.
            let _ = socket.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            let _ = socket.read(&mut [0; 4096]);
        }
    });
    let tls = countersign::proxy::tls::upstream_config(
        countersign::proxy::tls::UpstreamTlsMode::Require,
        None,
        None,
    );
    let upstream = Upstream { port, tls: tls.unwrap(), ..upstream_of(&stack) };

    let refused = upstream::log_in(&upstream, &[], 0).await;

    assert!(matches!(refused, Err(upstream::ConnectError::Io(_))), "{refused:?}");
}
