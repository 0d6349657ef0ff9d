//! The first messages: requests for encryption, TLS, start-up packets.

use super::*;

#[test]
fn encryption_requests_are_accepted_once_and_alone() {
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
fn start_up_packets_are_limited_in_size_and_time() {
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
