//! Agents that prove who they are by a signed token, against an identity provider that publishes its
//! keys, changes them, and goes away.
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
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use pki::Authority;
use rcgen::DnType;
use serde_json::Value;
use support::{Setup, Stack, countersign, python, root, text, wait_for};

const ISSUER: &str = "https://id.example/realm";
const AUDIENCE: &str = "countersign-test";
const SUBJECT: &str = "service-account-7";

/// Keys and tokens (`tests/support/issuer.py`); the token called `soon` expires in `soon` seconds.
fn issued(soon: u32) -> Value {
    let script = root().join("tests/support/issuer.py");
    let output = python().arg(script).args([ISSUER, AUDIENCE, SUBJECT, &soon.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A web server that publishes keys.
struct Provider {
    port: u16,
    /// What it answers; nothing while it is away.
    keys: Arc<Mutex<Option<String>>>,
}

impl Provider {
    fn start(keys: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = Arc::new(Mutex::new(Some(keys.to_owned())));
        let published = Arc::clone(&keys);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let _ = socket.read(&mut [0; 4096]);
                let answer = match &*published.lock().unwrap() {
                    Some(keys) => format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
                        keys.len()
                    ),
                    None => "HTTP/1.1 503 Away\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                };
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { port, keys }
    }

    fn publish(&self, keys: Option<&Value>) {
        *self.keys.lock().unwrap() = keys.map(|keys| keys.as_str().unwrap().to_owned());
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }
}

fn agent(name: &str, jwks: &str, more: &str) -> String {
    format!(
        "[[agent]]\nname = \"{name}\"\nowner = \"alice@example.com\"\nupstreams = [\"app\"]\n{more}\n\
         jwt = {{ issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\", subject = \"{SUBJECT}\", jwks = \"{jwks}\" }}\n"
    )
}

fn told(stack: &Stack, agent: &str, token: &str, mode: &str) -> String {
    let url = format!("postgresql://{agent}@localhost:{}/app?sslmode={mode}", stack.port);
    let mut psql = stack.psql_command(&url);
    text(&psql.env("PGPASSWORD", token).args(["-c", "select 'in'"]).output().unwrap())
}

#[test]
fn a_signed_token_lets_its_agent_in_and_no_other_does() {
    let provider = Provider::start("{\"keys\": []}");
    let mut setup = Setup { tls: true, ..Setup::default() };
    setup.files.push(("jwks.json".to_owned(), "{\"keys\": []}".to_owned()));
    setup.config = agent("url-bot", &provider.url(), "") + &agent("file-bot", "jwks.json", "");
    setup.config += &agent("strict-bot", "jwks.json", "")
        .replace(" }\n", ", algorithms = [\"ES256\"], clock_skew = \"0s\", claims = { task = \"sub\" } }\n");
    setup.config += &agent("ending-bot", "jwks.json", "")
        .replace(" }\n", ", clock_skew = \"0s\", end_with_token = true }\n");
    let stack = Stack::with(&setup);
    // Made only now: some of them are good for a few seconds.
    let issued = issued(15);
    provider.publish(Some(&issued["jwks"]));
    fs::write(stack.path("jwks.json"), issued["jwks"].as_str().unwrap()).unwrap();
    let soon = issued["soon"].as_str().unwrap();

    // Ends with its token, while another one's session goes on.
    let script = "
import sys, psycopg, time
connect = lambda agent: psycopg.connect(sys.argv[1], user=agent, password=sys.argv[2], autocommit=True)
ending, other = connect('ending-bot'), connect('file-bot')
for n in range(200):
    time.sleep(0.2)
    try:
        ending.execute('select 1')
    except psycopg.OperationalError as e:
        print(e.diag.sqlstate, e.diag.message_primary)
        break
print(other.execute('select 1').fetchone()[0])
try:
    connect('ending-bot')
except psycopg.OperationalError as e:
    print('replayed', 'password authentication failed' in str(e))
";
    let url = format!("postgresql://localhost:{}/app?sslmode=require", stack.port);
    let ending = python()
        .args(["-c", script, &url, soon])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();

    for (name, token) in issued["good"].as_object().unwrap() {
        assert_eq!(told(&stack, "url-bot", token.as_str().unwrap(), "require"), "in\n", "{name}");
    }
    let good = issued["good"]["RS256"].as_str().unwrap();
    assert_eq!(told(&stack, "file-bot", good, "require"), "in\n");
    let mut messages = std::collections::BTreeSet::new();
    for (name, token) in issued["bad"].as_object().unwrap() {
        let shown = told(&stack, "url-bot", token.as_str().unwrap(), "require");
        assert!(!shown.contains("in\n"), "{name}: {shown}");
        if name != "very long" {
            messages.insert(shown.replace("url-bot", "AGENT").split("FATAL:").last().unwrap().to_owned());
        }
    }
    // Whatever was wrong, and were there such an agent at all: the same words.
    assert_eq!(messages.len(), 1, "{messages:?}");
    let nobody = told(&stack, "nobody", good, "require");
    let nobody = nobody.replace("nobody", "AGENT").split("FATAL:").last().unwrap().to_owned();
    assert!(nobody.contains("password authentication failed for user \"AGENT\""), "{nobody}");
    assert!(messages.contains(&nobody), "{messages:?} {nobody}");
    // The operator's log says what it was, and never the token.
    let log = stack.log();
    for why in [
        "signature is wrong",
        "it has expired",
        "it is not good yet",
        "its \\\"iss\\\"",
        "its \\\"aud\\\"",
        "its \\\"sub\\\"",
        "its \\\"exp\\\"",
        "\\\"none\\\", which is not allowed",
        "\\\"HS256\\\", which is not allowed",
        "no such key",
        "critical extensions",
        "a token for something else",
        "not a signed token",
    ] {
        assert!(log.contains(why) || log.contains(&why.replace('\\', "")), "{why}: {log}");
    }
    assert!(!log.contains(&good[good.len() - 40..]) && !log.contains(&good[..60]), "{log}");

    // Without TLS no token is asked for, on this machine neither.
    for agent in ["url-bot", "file-bot"] {
        let shown = told(&stack, agent, good, "disable");
        assert!(shown.contains("TLS is required"), "{shown}");
    }
    // Narrower rules: one algorithm, no skew, other claims.
    assert_eq!(told(&stack, "strict-bot", issued["good"]["ES256"].as_str().unwrap(), "require"), "in\n");
    assert!(told(&stack, "strict-bot", good, "require").contains("password authentication failed"));
    let late = issued["good"]["expired within the skew"].as_str().unwrap();
    assert!(told(&stack, "ending-bot", late, "require").contains("password authentication failed"));

    let shown = text(&ending.wait_with_output().unwrap());
    assert_eq!(
        shown,
        "57P01 terminating connection because the agent's token has expired\n1\nreplayed True\n"
    );
    let sessions = stack.entries("session_opened", 14);
    let of = |agent: &str| sessions.iter().find(|entry| entry["agent"] == agent).unwrap();
    assert_eq!(of("url-bot")["method"], "jwt");
    assert_eq!(
        of("url-bot")["verified"],
        serde_json::json!({ "model": "model-7", "run": "run-42", "purpose": "the monthly report" })
    );
    assert_eq!(of("strict-bot")["verified"]["task"], SUBJECT);
    assert_eq!(sessions.len(), 14, "nobody else got in: {sessions:?}");
}

#[test]
fn verified_claims_are_shown_apart_from_what_the_agent_says() {
    let issued = issued(600);
    let mut setup = Setup { tls: true, ..Setup::default() };
    setup.files.push(("jwks.json".to_owned(), issued["jwks"].as_str().unwrap().to_owned()));
    setup.config = agent("file-bot", "jwks.json", "");
    let mut stack = Stack::with(&setup);
    let url = format!("postgresql://file-bot@localhost:{}/app?sslmode=require", stack.port);
    let psql = stack
        .psql_command(&url)
        .env("PGPASSWORD", issued["good"]["RS256"].as_str().unwrap())
        .env("PGOPTIONS", "-c countersign.model=a-much-better-one -c countersign.task=harmless")
        .args(["-c", "drop table orders"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();

    let request = stack.request();
    let id = request["id"].as_str().unwrap();
    let (_, whole) = stack.api(support::BOB, "GET", &format!("/requests/{id}"), None);
    let whole = whole.to_string();
    assert!(
        whole.contains("{\"label\":\"verified model\",\"value\":\"model-7\"}")
            && whole.contains("a-much-better-one"),
        "{whole}"
    );
    stack.approve(support::BOB, &request);
    support::ended(psql);

    let opened = &stack.entries("session_opened", 1)[0];
    assert_eq!(opened["verified"]["model"], "model-7");
    assert_eq!(opened["claimed"]["model"], "a-much-better-one");
    stack.assert_verifies();
}

#[test]
fn keys_are_rotated_and_the_provider_may_be_away() {
    let issued = issued(600);
    let provider = Provider::start(issued["jwks"].as_str().unwrap());
    let mut setup = Setup { tls: true, ..Setup::default() };
    setup.files.push(("jwks.json".to_owned(), issued["jwks"].as_str().unwrap().to_owned()));
    setup.config = agent("url-bot", &provider.url(), "") + &agent("file-bot", "jwks.json", "");
    let stack = Stack::with(&setup);
    let (good, later) = (issued["good"]["RS256"].as_str().unwrap(), issued["later"].as_str().unwrap());
    assert_eq!(told(&stack, "url-bot", good, "require"), "in\n");
    assert_eq!(told(&stack, "file-bot", good, "require"), "in\n");

    // Known keys go on counting, also across a reload of the configuration.
    provider.publish(None);
    stack.reconfigure(|text| text + "# changed\n");
    assert_eq!(told(&stack, "url-bot", good, "require"), "in\n");

    // A key that is not known is asked for; what is not published any more then does not count.
    provider.publish(Some(&issued["rotated"]));
    fs::write(stack.path("jwks.json"), issued["rotated"].as_str().unwrap()).unwrap();
    for agent in ["url-bot", "file-bot"] {
        assert_eq!(told(&stack, agent, later, "require"), "in\n", "{agent}: {}", stack.log());
        assert!(told(&stack, agent, good, "require").contains("password authentication failed"), "{agent}");
    }
    fs::remove_file(stack.path("jwks.json")).unwrap();
    assert!(told(&stack, "file-bot", later, "require").contains("password authentication failed"));
    // The client may hear of it before the log does.
    wait_for("the log to say why", || stack.log().contains("no keys from"));
}

#[test]
fn keys_come_over_tls_and_a_certificate_may_be_asked_for_as_well() {
    let issued = issued(600);
    let authority = Authority::new("agents");
    let certificate = authority.client(&[(DnType::CommonName, "bot")]);
    let provider = Secure::start(issued["jwks"].as_str().unwrap(), &authority);
    let mut setup = Setup { tls: true, client_ca: Some("agents.crt"), ..Setup::default() };
    setup.files = vec![
        ("agents.crt".to_owned(), authority.pem.clone()),
        ("other.crt".to_owned(), Authority::new("other").pem),
        ("bot.crt".to_owned(), certificate.certificate.clone()),
        ("bot.key".to_owned(), certificate.key.clone()),
    ];
    let url = format!("https://localhost:{}/keys", provider.0);
    let ca = |name: &str| format!("\", ca = \"{name}\" }}\n");
    setup.config = agent("https-bot", &url, "").replace("\" }\n", &ca("agents.crt"));
    setup.config += &agent("wary-bot", &url, "").replace("\" }\n", &ca("other.crt"));
    setup.config += &agent("both-bot", &url, "certificate = \"CN=bot\"").replace("\" }\n", &ca("agents.crt"));
    let stack = Stack::with(&setup);
    let good = issued["good"]["RS256"].as_str().unwrap();

    assert_eq!(told(&stack, "https-bot", good, "require"), "in\n");
    assert!(told(&stack, "wary-bot", good, "require").contains("password authentication failed"));
    assert!(told(&stack, "both-bot", good, "require").contains("certificate authentication failed"));
    let mut output = countersign();
    let shown = text(&output.args(["check", "-c"]).arg(stack.path("countersign.toml")).output().unwrap());
    assert!(shown.contains("ok       agent \"https-bot\": 4 keys of its issuer"), "{shown}");
    assert!(shown.contains("problem  agent \"wary-bot\": no keys from"), "{shown}");

    let key = stack.path("bot.key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("postgresql://both-bot@localhost:{}/app?sslmode=require", stack.port);
    let mut psql = stack.psql_command(&url);
    psql.env("PGSSLCERT", stack.path("bot.crt")).env("PGSSLKEY", key).env("PGPASSWORD", good);
    assert_eq!(text(&psql.args(["-c", "select 'in'"]).output().unwrap()), "in\n");
    let opened = stack.entries("session_opened", 2);
    let both = opened.iter().find(|entry| entry["agent"] == "both-bot").unwrap();
    assert_eq!(
        (&both["method"], &both["certificate"]),
        (&"jwt".into(), &certificate.fingerprint.as_str().into())
    );
}

/// A provider under TLS.
struct Secure(u16);

impl Secure {
    fn start(keys: &str, authority: &Authority) -> Self {
        let issued = authority.server(&["localhost"]);
        let folder = tempfile::tempdir().unwrap();
        let mut script = String::new();
        for (name, text) in [("crt", &issued.certificate), ("key", &issued.key)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        writeln!(script, "import http.server, ssl, sys, threading").unwrap();
        script.push_str(
            "
class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + '/crt', sys.argv[1] + '/key')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Keys)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
",
        );
        let mut server = python();
        server.args(["-c", &script]).arg(folder.path()).arg(keys);
        Self(support::start_python_server(server))
    }
}
