//! Who may call what: reviewers, agents, strangers; limits on strangers.

use super::*;
use countersign::approval::Withdrawal;

#[test]
fn a_personal_token_gives_click_assurance_only() {
    let site = Site::open();
    let opened = site.ask("GRANT ALL ON orders TO reporting");
    let body = json!({"digest": opened.request.digest.to_string()});

    let refused = site.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("assurance_too_low")));
}

#[test]
fn unknown_credentials_are_refused_everywhere() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let request = format!("/requests/{}", opened.request.id);
    let reads = [
        "/whoami",
        "/status",
        "/requests",
        &request,
        "/events",
        "/sessions",
        "/ledger",
        "/ledger/entries",
        "/ledger/entries/1",
        "/policies",
        "/agents",
        "/reviewers",
    ];

    for path in reads {
        for credentials in
            [None, Some("Bearer csr_nobody"), Some("Bearer"), Some("Basic !!"), Some("Digest x")]
        {
            let refused = site.send("GET", path, credentials, None);
            assert!(matches!(refused.status, 401 | 429), "{path} {credentials:?}: {}", refused.status);
            assert!(!refused.text.contains("orders"));
        }
    }
    let cookie =
        client().get(site.at("/api/v1/requests")).header("cookie", "countersign=css_x").call().unwrap();
    assert_eq!(cookie.status(), 401);
}

#[test]
fn an_agent_reads_its_own_requests_and_decides_nothing() {
    let site = Site::open();
    let own = site.ask(EXPORT);
    let others = site.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let password = &site.secrets["reporting-bot"];
    let digest = json!({"digest": own.request.digest.to_string(), "reason": "please"});
    site.post(&format!("/requests/{}/approve", own.request.id), "bob", digest.clone());

    for credentials in [basic("reporting-bot", password), bearer(password)] {
        let get = |path: &str| site.send("GET", path, Some(&credentials), None);
        let post = |path: &str, body| site.send("POST", path, Some(&credentials), Some(body));

        let listed = get("/requests?agent=migration-agent");
        assert_eq!(listed.body.as_array().unwrap().len(), 1);
        assert_eq!(listed.body[0]["sql"], EXPORT);
        // It must not learn who its reviewers are, nor their private words.
        assert_eq!((&listed.body[0]["reviews"], &listed.body[0]["may_answer"]), (&json!([]), &json!([])));
        assert!(!listed.text.contains("example.com"), "{}", listed.text);
        let shown = get(&format!("/requests/{}", own.request.id));
        assert_eq!((shown.status, shown.body.get("document")), (200, None));
        assert_eq!(get(&format!("/requests/{}", others.request.id)).status, 404);
        assert_eq!(get("/whoami").body, json!({"kind": "agent", "id": "reporting-bot"}));

        for verdict in ["approve", "deny", "escalate"] {
            let refused = post(&format!("/requests/{}/{verdict}", own.request.id), digest.clone());
            assert_eq!(
                (refused.status, &refused.body["error"]),
                (403, &json!("agent_credential")),
                "{verdict}"
            );
        }
        for path in
            ["/status", "/sessions", "/ledger", "/ledger/entries", "/policies", "/agents", "/reviewers"]
        {
            assert_eq!(get(path).status, 403, "{path}");
        }
        assert_eq!(post("/policies/what-if", json!({"sql": "select 1"})).status, 403);
        assert_eq!(post(&format!("/sessions/{}/kill", own.request.draft.session), json!({})).status, 403);
    }
    assert_eq!(site.desk.request(&own.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn another_agents_password_opens_nothing() {
    let site = Site::open();
    let password = &site.secrets["migration-agent"];

    for credentials in [basic("reporting-bot", password), basic("nobody", password), basic("", password)] {
        assert_eq!(site.send("GET", "/requests", Some(&credentials), None).status, 401);
    }
}

#[test]
fn credentials_of_a_removed_agent_stop_working_at_once() {
    let site = Site::open();
    let credentials = basic("reporting-bot", &site.secrets["reporting-bot"]);
    assert_eq!(site.send("GET", "/requests", Some(&credentials), None).status, 200);

    let empty = countersign::identity::Directory::new(Vec::new(), Vec::new(), [7; 32]).unwrap();
    site.directory.store(empty.into());

    assert_eq!(site.send("GET", "/requests", Some(&credentials), None).status, 401);
}

#[test]
fn password_guessing_is_slowed_down_and_reviewers_are_not() {
    let site = Site::open();
    let guess = || site.send("GET", "/requests", Some("Bearer csr_guess"), None);
    while guess().status == 401 {}

    let stopped = guess();

    assert_eq!(stopped.status, 429);
    assert!(stopped.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(site.get("/requests", "bob").status, 200);
    site.pass(61);
    assert_eq!(guess().status, 401);
}

#[test]
fn one_agent_cannot_keep_others_from_opening_requests() {
    let site = Site::open();
    let credentials = basic("reporting-bot", &site.secrets["reporting-bot"]);
    let ask = || site.send("GET", "/whoami", Some(&credentials), None);
    let answered = std::iter::repeat_with(ask).take_while(|answer| answer.status == 200).count();

    assert_eq!(answered, 300);
    assert_eq!(ask().body["error"], "too_many_questions");
    let other = basic("migration-agent", &site.secrets["migration-agent"]);
    assert_eq!(site.send("GET", "/whoami", Some(&other), None).status, 200);
    let listening: Vec<Events> = (0..8).map(|_| site.listen("/api/v1/events", &other)).collect();
    assert_eq!(site.send("GET", "/events", Some(&other), None).body["error"], "too_many_streams");
    assert_eq!(site.listen("/api/v1/events", &bearer(&site.secrets["bob"])).next().0, "ready");
    drop(listening);
}

#[test]
fn a_body_must_be_json_of_a_reasonable_size() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let path = format!("/api/v1/requests/{}/approve", opened.request.id);
    let send = |content_type: &str, body: &str| {
        let request = client().post(site.at(&path)).header("authorization", bearer(&site.secrets["bob"]));
        let mut answer = request.header("content-type", content_type).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let status = answer.status().as_u16();
        openapi::check("POST", &path, status, "application/json", &text);
        status
    };
    let body = json!({"digest": opened.request.digest.to_string()}).to_string();

    // A request that a form of another site could send.
    assert_eq!(send("text/plain", &body), 415);
    assert_eq!(send("application/x-www-form-urlencoded", "digest=x"), 415);
    assert_eq!(send("application/json", "{"), 400);
    assert_eq!(send("application/json", &format!("{{\"reason\":\"{}\"}}", "x".repeat(70_000))), 413);
    assert_eq!(send("application/json; charset=utf-8", &body), 200);
}

#[test]
fn an_agent_cannot_tell_ids_of_others_requests_from_ids_of_none() {
    let site = Site::open();
    let others = site.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let ended = site.ask_as("migration-agent", "DROP TABLE t", |_| {}).unwrap();
    site.desk.withdraw(ended.request.id, Withdrawal::AgentCancelled);
    let credentials = basic("reporting-bot", &site.secrets["reporting-bot"]);
    let ask = |method: &str, path: &str| {
        let body = (method == "POST").then(|| json!({"digest": others.request.digest.to_string()}));
        let mut answer = site.send(method, path, Some(&credentials), body);
        answer.headers.remove("date");
        let headers: Vec<String> = answer.headers.iter().map(|header| format!("{header:?}")).collect();
        (answer.status, answer.text, headers)
    };

    for (others, none) in [
        (others.request.id.code(), "ZZZZ-ZZ".to_owned()),
        (others.request.id.0.to_string(), uuid::Uuid::now_v7().to_string()),
        (ended.request.id.code(), "0000-00".to_owned()),
    ] {
        let [theirs, none] = [others, none].map(|id| {
            let get = [
                format!("/requests/{id}"),
                format!("/requests/{id}/statement"),
                format!("/events?request={id}"),
            ];
            let post = ["approve", "deny", "escalate"].map(|verdict| format!("/requests/{id}/{verdict}"));
            let get = get.map(|path| ask("GET", &path));
            let post = post.map(|path| ask("POST", &path));
            [get, post].concat()
        });
        assert_eq!(theirs, none);
        assert!(theirs[..3].iter().all(|answer| answer.0 == 404), "{theirs:?}");
    }
}

#[test]
fn unknown_routes_and_methods_get_json_errors() {
    let site = Site::open();

    let nowhere = site.send("GET", "/nowhere", None, None);
    assert_eq!((nowhere.status, &nowhere.body["error"]), (404, &json!("no_such_route")));
    let wrong = site.send("POST", "/requests", None, Some(json!({})));
    assert_eq!((wrong.status, &wrong.body["error"]), (405, &json!("method_not_allowed")));
}

#[test]
fn every_answer_has_the_headers_that_protect_browsers() {
    let site = Site::open();

    for path in ["/api/v1/requests", "/sign-in", "/static/none", "/nowhere", "/api/v1/nowhere"] {
        let answer = client().get(site.at(path)).call().unwrap();
        let header =
            |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
    }
}

#[test]
fn a_request_whose_body_never_comes_is_given_up() {
    let site =
        Site::open_with(SiteSetup { patience: Some(Duration::from_millis(300)), ..SiteSetup::default() });
    let mut socket = std::net::TcpStream::connect(site.url.socket_addrs(|| None).unwrap()[0]).unwrap();
    let head = format!(
        "POST /api/v1/policies/what-if HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        bearer(&site.secrets["bob"])
    );
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();

    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();

    assert!(line.starts_with("HTTP/1.1 408"), "{line}");
}

/// Connects from `from`, one of this machine's addresses.
fn connect_from(from: [u8; 4], site: &Site) -> std::net::TcpStream {
    let to = site.url.socket_addrs(|| None).unwrap()[0];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(to).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    })
}

fn is_answered(site: &Site) -> bool {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let client: ureq::Agent = config.timeout_global(Some(Duration::from_secs(10))).build().into();
    client.get(site.at("/healthz")).call().is_ok()
}

#[test]
fn unauthenticated_connections_cannot_lock_out_reviewers() {
    let connections = countersign::web::ConnectionLimits::of(40);
    let site = Site::open_with(SiteSetup { connections: Some(connections), ..SiteSetup::default() });
    // A reviewer listens already, from the same address as the second flood.
    let events = site.listen("/api/v1/events", &bearer(&site.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    for from in [[127, 0, 0, 2], [127, 0, 0, 1]] {
        let flood: Vec<std::net::TcpStream> = (0..80)
            .map(|number| {
                let mut socket = connect_from(from, &site);
                let _ = std::io::Write::write_all(&mut socket, BEGINNINGS[number % BEGINNINGS.len()]);
                socket
            })
            .collect();
        for _ in 0..3 {
            assert!(is_answered(&site), "{from:?}");
            assert_eq!(site.get("/whoami", "bob").status, 200, "{from:?}");
        }
        drop(flood);
    }

    let _opened = site.ask(DDL);
    assert_eq!(events.next().0, "opened");
}

#[test]
fn idle_and_old_unauthenticated_connections_are_closed() {
    let limits = countersign::web::ConnectionLimits {
        idle: Duration::from_secs(1),
        stranger: Duration::from_secs(3),
        ..countersign::web::ConnectionLimits::of(40)
    };
    let site = Site::open_with(SiteSetup { connections: Some(limits), ..SiteSetup::default() });
    let events = site.listen("/api/v1/events", &bearer(&site.secrets["bob"]));
    assert_eq!(events.next().0, "ready");
    let idle = BEGINNINGS.iter().map(|beginning| (*beginning, false));
    // Asks again and again, and is never idle for long.
    let busy = (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), true);

    for (sent, is_busy) in idle.chain([busy]) {
        let mut socket = connect_from([127, 0, 0, 1], &site);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut is_closed = std::io::Write::write_all(&mut socket, sent).is_err();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !is_closed && std::time::Instant::now() < deadline {
            let mut answer = [0; 4096];
            is_closed = match std::io::Read::read(&mut socket, &mut answer) {
                Ok(0) => true,
                Ok(read) => {
                    let is_ping = read >= 17 && answer[3] == 6 && answer[4] == 0;
                    if is_ping {
                        answer[4] = 1;
                        let _ = std::io::Write::write_all(&mut socket, &answer[..17]);
                    }
                    false
                }
                Err(error) => {
                    !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                }
            };
            if is_busy && !is_closed {
                is_closed = std::io::Write::write_all(&mut socket, sent).is_err();
            }
        }
        assert!(is_closed, "{}", String::from_utf8_lossy(sent));
    }

    // A stream of a person is neither.
    let _opened = site.ask(DDL);
    assert_eq!(events.next().0, "opened");
}
