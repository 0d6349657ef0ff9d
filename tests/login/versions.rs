//! The protocol's versions 3.0 and 3.2, and cancel keys.

use super::*;

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
fn a_pooler_before_upstream_may_know_3_0_only() {
    let stack = Stack::with(&Setup { version: 18, ..Setup::default() });
    let port = only_3_0(stack.cluster.port());
    stack.reconfigure(|text| {
        text.replace(&format!("port = {}\n", stack.cluster.port()), &format!("port = {port}\n"))
    });

    assert_eq!(text(&stack.psql(&["select 'in'"])), "in\n");
    assert_eq!(text(&stack.psql(&["select 'in'"])), "in\n");
    assert_eq!(stack.log().matches("protocol 3.0 from now on").count(), 1);
}
