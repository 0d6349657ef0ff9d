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
mod agents;
mod first_messages;
#[path = "../support/pki.rs"]
mod pki;
#[path = "../support/mod.rs"]
mod support;
mod upstream_login;
mod versions;

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

fn files(prefix: &str, issued: &Issued) -> [(String, String); 2] {
    [(format!("{prefix}.crt"), issued.certificate.clone()), (format!("{prefix}.key"), issued.key.clone())]
}

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

/// A man in the middle between us and a server, with a certificate of its own.
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
