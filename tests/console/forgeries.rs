//! Other sites, other ports, and forged forms and cookies.

use super::*;

#[test]
fn another_port_of_the_host_is_sent_nothing_of_the_session() {
    for sign_in in ["link", "token"] {
        let site = Site::open();
        let mut browser = Browser::open();
        let snoop = Snoop::open();
        if sign_in == "link" {
            site.sign_in(&mut browser, "bob");
        } else {
            browser.goto(&site.at("/sign-in"));
            browser.fill("#token", &site.secrets["bob"]);
            browser.submit("button.primary");
            browser.note_session();
        }
        let opened = site.ask(DDL);
        site.read(&mut browser, &opened.request);
        // A link to elsewhere on a page of the session, which no page has: what it would tell.
        let elsewhere = snoop.at("/from-the-console");
        browser.evaluate(&format!("location.assign('{elsewhere}')"));
        browser.wait("#snoop");
        for path in ["/", "/requests", "/s", "/s/", "/s/guess/requests", "/sign-in", "/s/../s/"] {
            browser.goto(&snoop.at(path));
        }

        // Neither as a cookie nor as the page that one came from.
        let console = format!("127.0.0.1:{}", site.url.port().unwrap());
        let heard = snoop.0.lock().clone();
        assert!(heard.len() >= 8, "{heard:?}");
        for head in heard {
            assert!(!head.contains("css_") && !head.contains("cookie:"), "{head}");
            assert!(!head.contains(&console) && !head.contains(&browser.base.to_lowercase()), "{head}");
        }
        assert_eq!(browser.evaluate("document.cookie + JSON.stringify(localStorage)"), "{}");
    }
}

#[test]
fn a_cookie_without_its_path_opens_nothing_and_neither_does_the_path_alone() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    site.read(&mut browser, &opened.request);
    let fields =
        ["csrf", "seen"].map(|name| (name, browser.value(&format!("form.verdict input[name={name}]"))));
    let form = fields.iter().map(|(name, value)| (*name, value.as_str())).chain([("verdict", "approve")]);
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let cookie = format!("countersign={}", browser.cookies()[0]["value"].as_str().unwrap());
    let (page, base) = (page_of(&opened.request), browser.base.clone());
    let other = format!("/s/{}", "A".repeat(32));

    let tries = [
        (cookie.as_str(), String::new()),
        (&cookie, "/s".to_owned()),
        (&cookie, "/s/".to_owned()),
        (&cookie, other.clone()),
        (&cookie, format!("{other}{base}")),
        (&cookie, format!("/S{}", &base[2..])),
        (&cookie, base.to_lowercase()),
        ("countersign=css_guess", base.clone()),
        ("countersign=", base.clone()),
        ("", base.clone()),
    ];
    for (cookie, base) in tries {
        let headers = [
            ("cookie", cookie),
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
        ];
        for path in ["/requests", page.as_str(), "/ledger", "/sessions", "/live", "/"] {
            let (status, body) = site.raw("GET", &format!("{base}{path}"), &headers, "");
            assert!(matches!(status, 303 | 401 | 404), "{base}{path}: {status}");
            assert!(!body.contains("orders"), "{base}{path}");
        }
        let (status, _) = site.raw("POST", &format!("{base}{page}/verdict"), &headers, &form);
        assert!(matches!(status, 303 | 404), "{base}: {status}");
    }
    // By the API neither of them is anything.
    assert_eq!(site.raw("GET", &format!("{base}/api/v1/requests"), &[("cookie", &cookie)], "").0, 404);
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
    assert_eq!(site.raw("GET", &format!("{base}{page}"), &[("cookie", &cookie)], "").0, 200);
}

#[test]
fn a_link_from_a_chat_leads_into_the_session_of_this_browser() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    let inside = site.at(&format!("{}{}", browser.base, page_of(&opened.request)));

    browser.goto(&site.at(&page_of(&opened.request)));
    browser.wait("#sql");
    assert_eq!(browser.url(), inside);

    // Whoever signs out leaves nothing behind, and a session that is over is forgotten.
    browser.submit("button.quiet");
    browser.goto(&site.at(&page_of(&opened.request)));
    assert!(browser.url().contains("/sign-in?next="));
    site.sign_in(&mut browser, "bob");
    site.pass(13 * 3600);
    for _ in 0..2 {
        browser.goto(&site.at(&page_of(&opened.request)));
        browser.wait("#token");
        assert!(browser.url().contains("/sign-in?next="), "{}", browser.url());
    }
    assert_eq!(browser.evaluate("JSON.stringify(localStorage)"), "{}");
}

#[test]
fn another_local_name_of_the_console_leads_to_its_address() {
    let (site, mut browser) = signed_in("bob");
    let port = site.url.port().unwrap();

    browser.goto(&format!("http://localhost:{port}/history"));
    browser.wait(".filters");

    assert_eq!(browser.url(), site.at(&format!("{}/history", browser.base)));
    let head = [("host", format!("localhost:{port}"))].map(|(name, value)| (name, value));
    let headers: Vec<(&str, &str)> = head.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (status, _) = site.raw("POST", "/sign-in", &headers, &format!("token={}", site.secrets["bob"]));
    assert_eq!(status, 421);
}

#[test]
fn a_form_of_another_site_does_nothing() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    site.read(&mut browser, &opened.request);
    let field =
        |browser: &mut Browser, name: &str| browser.value(&format!("form.verdict input[name={name}]"));
    // The worst case: the other site knows every token.
    let (csrf, seen) = (field(&mut browser, "csrf"), field(&mut browser, "seen"));
    // Its path, too.
    let target = site.at(&format!("{}{}/verdict", browser.base, page_of(&opened.request)));
    let evil = evil_site(format!(
        "<form method=post action='{target}'><input name=csrf value='{csrf}'><input name=seen value='{seen}'>\
         <button name=verdict value=approve>win a prize</button></form>"
    ));

    browser.goto(&evil);
    let status = browser.submit("button");

    assert_eq!(status, 403);
    assert_eq!(browser.text("h1"), "Turned away");
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn no_other_site_can_frame_or_read_the_console() {
    let (site, mut browser) = signed_in("bob");
    let _opened = site.ask(DDL);
    let page = site.at(&format!("{}/requests", browser.base));
    let evil = evil_site(format!(
        "<iframe src='{page}'></iframe><img id=i src='{page}'><script>\
         fetch('{page}', {{ credentials: 'include', mode: 'no-cors' }}).then(() => document.title = 'read', () => document.title = 'blocked')</script>"
    ));

    browser.goto(&evil);
    browser.evaluate("new Promise((r) => setTimeout(r, 500))");

    assert_eq!(browser.title(), "blocked");
    // A frame that was refused shows the browser's own page.
    assert_eq!(browser.evaluate("document.querySelector('iframe').contentDocument"), serde_json::Value::Null);
}

#[test]
fn a_form_counts_only_with_the_tokens_of_this_session() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    let other = site.ask("DROP TABLE old_orders");
    site.read(&mut browser, &opened.request);
    let cookie = format!("countersign={}", browser.cookies()[0]["value"].as_str().unwrap());
    let csrf = browser.value("form.verdict input[name=csrf]");
    let seen = browser.value("form.verdict input[name=seen]");
    let base = browser.base.clone();
    let send = |request: &countersign::approval::Request, form: &[(&str, &str)], headers: &[(&str, &str)]| {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let origin = site.url.origin().ascii_serialization();
        let mut all = vec![
            ("cookie", cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        for (name, value) in headers {
            all.retain(|(known, _)| known != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        site.raw("POST", &format!("{base}{}/verdict", page_of(request)), &all, &body).0
    };
    let good = [("csrf", csrf.as_str()), ("seen", seen.as_str()), ("verdict", "approve")];
    let flipped = seen.replacen(".1.", ".0.", 1);
    let unseen = other.request.digest.to_string();
    let forged = format!("{unseen}{}", &seen[64..]);

    assert_eq!(send(&opened.request, &[good[1], good[2]], &[]), 400);
    assert_eq!(send(&opened.request, &[("csrf", "0"), good[1], good[2]], &[]), 403);
    assert_eq!(send(&opened.request, &[good[0], ("seen", "x"), good[2]], &[]), 403);
    assert_eq!(send(&opened.request, &[good[0], ("seen", &flipped), good[2]], &[]), 403);
    assert_eq!(send(&other.request, &[good[0], ("seen", &forged), good[2]], &[]), 403);
    // What was seen was another request.
    assert_eq!(send(&other.request, &good, &[]), 409);
    assert_eq!(send(&opened.request, &good, &[("origin", "https://evil.example")]), 403);
    assert_eq!(send(&opened.request, &good, &[("origin", ""), ("sec-fetch-site", "")]), 403);
    assert_eq!(send(&opened.request, &good, &[("sec-fetch-site", "cross-site")]), 403);
    assert_eq!(send(&opened.request, &good, &[("host", "evil.example")]), 421);
    assert_eq!(send(&opened.request, &good, &[("cookie", "")]), 303);
    assert_eq!(send(&opened.request, &good, &[("cookie", "countersign=css_planted")]), 303);
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
    // What another port planted beside the session's cookie does not keep its owner out.
    let planted = format!("countersign=css_planted; {cookie}; countersign=css_other");
    assert_eq!(send(&opened.request, &good, &[("cookie", &planted)]), 303);
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().reviews.len(), 1);
}

/// A page of another site: `localhost` is not `127.0.0.1`.
fn evil_site(html: String) -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4096];
            let _ = std::io::Read::read(&mut socket, &mut head);
            let page = format!("<!doctype html><title>evil</title>{html}");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length:";
            let _ = std::io::Write::write_all(
                &mut socket,
                format!("{head} {}\r\n\r\n{page}", page.len()).as_bytes(),
            );
        }
    });
    format!("http://localhost:{port}/")
}

/// Another port of the console's host, which keeps what browsers send it.
struct Snoop(std::sync::Arc<parking_lot::Mutex<Vec<String>>>, u16);

impl Snoop {
    fn open() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::sync::Arc::<parking_lot::Mutex<Vec<String>>>::default();
        let keeping = heard.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut head = [0; 8192];
                let read = std::io::Read::read(&mut socket, &mut head).unwrap_or(0);
                keeping.lock().push(String::from_utf8_lossy(&head[..read]).to_lowercase());
                let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<!doctype html><title>snoop</title><p id=snoop>hello";
                let _ = std::io::Write::write_all(&mut socket, page.as_bytes());
            }
        });
        Self(heard, port)
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.1)
    }
}
