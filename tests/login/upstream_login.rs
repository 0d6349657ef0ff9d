//! The proxy's own login at the upstream.

use super::*;

fn man_in_the_middle(server: u16, certificate: &std::path::Path, key: &std::path::Path) -> u16 {
    let mut script = support::python();
    script.args(["-c", MAN_IN_THE_MIDDLE, &server.to_string()]).args([certificate, key]);
    support::start_python_server(script)
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

/// CVE-2021-23222: bytes that a man in the middle appends to the server's answer are never read as the server's.
#[tokio::test]
async fn bytes_after_upstreams_answer_break_the_handshake() {
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
