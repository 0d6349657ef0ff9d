//! The console in a real browser, with a real desk behind it.
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

#[path = "../support/browser.rs"]
mod browser;
mod forgeries;
#[path = "../support/scenes.rs"]
mod scenes;
mod sign_in;
#[path = "../support/web.rs"]
mod web;

use browser::Browser;
use countersign::approval::HoldState;
use countersign::approval::Withdrawal;
use countersign::desk::Ending;
use serde_json::json;
use web::{Site, SiteSetup};

const EXPORT: &str = "COPY customers TO STDOUT";
const DDL: &str = "ALTER TABLE orders ADD COLUMN note text";

/// Pictures of every page, for looking at: `cargo nextest run --test console --run-ignored only`.
#[test]
#[ignore = "makes pictures; what they show is for people to judge"]
fn pictures_of_every_page() {
    let site = Site::open_with(SiteSetup::default());
    let scene = scenes::set(&site);
    let files = tempfile::tempdir().unwrap();
    let (recorded, ledger) = Site::with_ledger(files.path());
    let (request, _) = scenes::record_sample_entries(&recorded, &ledger);
    let mut browser = Browser::open();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let images = folder.join("../../docs/images");
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.fresh(json!({"scheme": scheme, "width": width, "height": 940}));
        let picture = |browser: &mut Browser, name: &str| {
            let path = folder.join(format!("{name}-{scheme}-{width}.png"));
            browser.screenshot(path.to_str().unwrap(), true);
        };
        browser.goto(&site.at("/sign-in"));
        picture(&mut browser, "sign-in");
        browser.goto(site.web.sign_in_link(&"carol@example.com".into()).unwrap().as_str());
        picture(&mut browser, "sign-in-link");
        browser.submit("button.primary");
        browser.note_session();
        for (name, path) in scene.pages() {
            site.visit(&mut browser, &path);
            if browser.count("[data-live]") > 0 {
                browser.wait("#live.on");
            }
            picture(&mut browser, &name);
            // The two that the documentation shows.
            if (scheme, width) == ("light", 1280) && matches!(name.as_str(), "request" | "requests") {
                browser.screenshot(images.join(format!("console-{name}.png")).to_str().unwrap(), false);
            }
        }
        browser.fill("#what-if-sql", "copy (select * from customers) to stdout");
        browser.submit("button.primary");
        picture(&mut browser, "what-if");
        site.visit(&mut browser, "/nowhere");
        picture(&mut browser, "nowhere");

        browser.fresh(json!({"scheme": scheme, "width": width, "height": 860}));
        recorded.sign_in(&mut browser, "carol");
        recorded.visit(&mut browser, "/ledger");
        browser.submit(".verify button");
        browser.wait(".verify .banner");
        picture(&mut browser, "ledger");
        recorded.visit(&mut browser, &format!("/ledger?kind=statement&request={}", request.code()));
        browser.submit("td a");
        picture(&mut browser, "entry");
    }
}

/// A site, a browser in it, and `who` signed in by a link.
fn signed_in(who: &str) -> (Site, Browser) {
    let site = Site::open();
    let mut browser = Browser::open();
    site.sign_in(&mut browser, who);
    (site, browser)
}

impl Site {
    fn sign_in(&self, browser: &mut Browser, who: &str) {
        let link = self.web.sign_in_link(&format!("{who}@example.com").as_str().into()).unwrap();
        browser.goto(link.as_str());
        assert_eq!(browser.submit("button.primary"), 200);
        browser.note_session();
    }

    /// Opens `path` in the session of `browser`.
    fn visit(&self, browser: &mut Browser, path: &str) -> u64 {
        let url = self.at(&format!("{}{path}", browser.base));
        browser.goto(&url)
    }

    /// Opens the page of `request` in the session of `browser`.
    fn read(&self, browser: &mut Browser, request: &countersign::approval::Request) {
        self.visit(browser, &page_of(request));
    }
}

fn page_of(request: &countersign::approval::Request) -> String {
    format!("/requests/{}", request.id.code())
}

#[test]
fn a_statement_is_read_and_approved() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);

    site.read(&mut browser, &opened.request);
    assert_eq!(browser.text("#sql").trim_end(), DDL);
    assert!(browser.text(".digest").contains(&opened.request.digest.to_string()));
    assert!(browser.text(".digest").contains(&opened.request.words.join(" ")));
    // The keyboard starts at the statement.
    assert_eq!(browser.evaluate("document.activeElement.id"), "sql");
    site.pass(5);
    browser.fill("#reason", "the release of today");
    assert_eq!(browser.submit("button.approve"), 200);

    assert_eq!(browser.text(".banner-title"), "Your approval counts");
    let Ending::Granted(grant) = opened.ending.blocking_recv().unwrap() else { panic!("not granted") };
    let review = &grant.approvals()[0];
    assert_eq!(review.reviewer.as_str(), "bob@example.com");
    assert_eq!(review.channel.as_str(), "console");
    assert_eq!(review.assurance.as_str(), "login");
    assert_eq!(review.reason.as_deref(), Some("the release of today"));
    assert!(!review.quick);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_approval_that_cannot_have_been_read_is_flagged() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    site.pass(60);

    site.read(&mut browser, &opened.request);
    site.pass(2);
    browser.submit("button.approve");

    let Ending::Granted(grant) = opened.ending.blocking_recv().unwrap() else { panic!("not granted") };
    assert!(grant.approvals()[0].quick);
    assert!(browser.text(".reviews").contains("within 3 s"));
}

#[test]
fn a_denial_with_its_reason_reaches_the_agent_without_any_script() {
    let site = Site::open();
    let mut browser = Browser::open();
    browser.fresh(json!({"js": false}));
    site.sign_in(&mut browser, "bob");
    let opened = site.ask(DDL);

    site.visit(&mut browser, "/requests");
    assert_eq!(browser.submit(&format!("text={}", opened.request.id.code())), 200);
    browser.fill("#reason", "Use the migration tool,\nplease.");
    assert_eq!(browser.submit("button.deny"), 200);

    let Ending::Denied { by, message } = opened.ending.blocking_recv().unwrap() else { panic!("not denied") };
    assert_eq!(by.as_str(), "bob@example.com");
    assert_eq!(message.as_deref(), Some("Use the migration tool,\nplease."));
    assert!(browser.text(".standing").contains("Denied"));
    assert_eq!(browser.count("form.verdict"), 0);
}

#[test]
fn an_escalation_tells_the_next_group() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(EXPORT);

    site.read(&mut browser, &opened.request);
    assert_eq!(browser.text("button.escalate"), "Escalate to oncall");
    browser.fill("#reason", "it is 3 am");
    browser.submit("button.escalate");

    assert_eq!(browser.text(".banner-title"), "Escalated");
    assert!(!browser.text(".required").contains("or oncall"), "they may not answer yet");
    assert_eq!(browser.count("button.escalate"), 0);
}

#[test]
fn the_list_follows_what_happens() {
    let (site, mut browser) = signed_in("bob");
    assert_eq!(browser.text(".empty h2"), "Nothing is waiting");
    browser.wait("#live.on");

    let opened = site.ask(DDL);
    browser.wait(".request-row");
    assert!(browser.text(".request-row").contains("reporting-bot"));
    assert_eq!(browser.attribute("#waiting-count", "data-count"), "1");
    assert!(browser.title().starts_with("(1) "));

    site.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    browser.wait(".empty");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_of_a_request_follows_what_others_do_and_keeps_what_is_typed() {
    let (site, mut browser) = signed_in("carol");
    let opened = site.ask(EXPORT);
    site.read(&mut browser, &opened.request);
    browser.wait("#live.on");
    browser.fill("#reason", "I have read");

    site.verdict("bob", &opened.request, "approve");
    browser.wait(".reviews li");
    assert!(browser.text(".reviews").contains("bob@example.com approved"));
    assert_eq!(browser.value("#reason"), "I have read");

    site.verdict("dave", &opened.request, "deny");
    browser.gone("form.verdict");
    assert!(browser.text(".standing").contains("Denied"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_request_that_expires_says_so_by_itself() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    site.read(&mut browser, &opened.request);
    browser.wait("#live.on");

    site.pass(16 * 60);
    // The proxy's timers notice within a moment; the page is told.
    browser.gone("form.verdict");
    assert!(browser.text(".standing").contains("Expired"));
}

#[test]
fn an_owner_is_told_why_they_cannot_approve() {
    let (site, mut browser) = signed_in("alice");
    let opened = site.ask(DDL);

    site.read(&mut browser, &opened.request);

    assert_eq!(browser.count("button.approve"), 0);
    let why = browser.text("#cannot");
    assert!(why.contains("You are an owner of the agent that asks"), "{why}");
    // Whatever is sent, the desk has the last word, and there is an entry.
    // At the last moment: the page renews its parts as things happen.
    browser.evaluate("document.addEventListener('submit', (e) => { e.submitter.value = 'approve'; }, true)");
    assert_eq!(browser.submit("button.deny"), 403);
    assert!(browser.text(".banner.bad").contains("you are an owner"), "{}", browser.text(".banner"));
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn the_list_has_as_many_pages_as_it_needs() {
    let limits = countersign::desk::Limits {
        waiting_per_agent: 1_000,
        opened_per_minute: 1_000,
        ..countersign::desk::Limits::default()
    };
    let site = Site::open_with(SiteSetup { limits: Some(limits), ..SiteSetup::default() });
    let mut browser = Browser::open();
    let oldest = site.ask(DDL);
    site.pass(1);
    let mut flood: Vec<_> = (0..220).map(|number| site.ask(&format!("drop table t{number}"))).collect();
    site.sign_in(&mut browser, "bob");

    site.visit(&mut browser, "/requests");
    assert_eq!(browser.text(".request-row .code"), oldest.request.id.code(), "the most urgent first");
    assert_eq!(browser.text(".list-head .count"), "221");
    let mut codes = browser.texts(".request-row .code");
    assert!(browser.text("nav.more").contains("Page 1 of 3"));
    for page in ["2", "3"] {
        browser.submit("nav.more a[rel=next]");
        assert!(browser.text("nav.more").contains(&format!("Page {page} of 3")));
        codes.extend(browser.texts(".request-row .code"));
    }
    assert_eq!(browser.axe(), Vec::<String>::new());
    codes.sort();
    codes.dedup();
    assert_eq!(codes.len(), 221);

    for opened in flood.drain(..) {
        site.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    }
    site.visit(&mut browser, "/history?state=withdrawn");
    let mut ended = browser.texts(".request-row .code");
    for _ in 0..2 {
        browser.submit(".more a");
        ended.extend(browser.texts(".request-row .code"));
    }
    ended.sort();
    ended.dedup();
    assert_eq!((ended.len(), browser.count(".more a")), (220, 0));
}

#[test]
fn a_page_hears_nothing_more_when_its_session_is_over() {
    let (site, mut browser) = signed_in("bob");
    let cookie = format!("countersign={}", browser.cookies()[0]["value"].as_str().unwrap());
    let answer =
        ureq::get(site.at(&format!("{}/live", browser.base))).header("cookie", cookie).call().unwrap();
    let mut stream = std::io::BufReader::new(answer.into_body().into_reader());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stream, &mut line).unwrap();
    assert_eq!(line, "event: ready\n");

    site.change_people(|_, reviewers| reviewers.retain(|one| one.reviewer.id.as_str() != "bob@example.com"));
    let _opened = site.ask(DDL);

    let mut rest = String::new();
    // It ends, so this does.
    let _ = std::io::Read::read_to_string(&mut stream, &mut rest);
    assert!(!rest.contains("opened"), "{rest}");
    assert_eq!(site.visit(&mut browser, "/requests"), 200);
    assert!(browser.url().contains("/sign-in"), "{}", browser.url());
}

#[test]
fn somebody_who_is_not_asked_is_told_who_is() {
    let (site, mut browser) = signed_in("dave");
    let opened = site.ask(DDL);

    site.read(&mut browser, &opened.request);

    assert!(browser.text("#cannot").contains("dba"));
    assert_eq!(browser.count("form.verdict"), 0);
}

#[test]
fn an_answer_that_comes_late_is_told_what_happened() {
    let (site, mut browser) = signed_in("bob");
    let opened = site.ask(DDL);
    site.read(&mut browser, &opened.request);
    // Pressed by hand below, as by a browser that has not heard yet.
    let form =
        ["csrf", "seen"].map(|name| (name, browser.value(&format!("form.verdict input[name={name}]"))));
    let cookie = format!("countersign={}", browser.cookies()[0]["value"].as_str().unwrap());

    site.verdict("carol", &opened.request, "deny");
    let fields = form.iter().map(|(name, value)| (*name, value.as_str())).chain([("verdict", "approve")]);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers = [
        ("cookie", cookie.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    let (status, page) =
        site.raw("POST", &format!("{}{}/verdict", browser.base, page_of(&opened.request)), &headers, &body);

    assert_eq!(status, 409);
    assert!(page.contains("too late: the request is denied already"), "{page}");
}

#[test]
fn what_an_agent_writes_is_text_and_nothing_hides_in_it() {
    let (site, mut browser) = signed_in("bob");
    let sql = "drop table a; -- \u{202e}\u{2066}\u{200b}</pre></code><script>document.title='owned'</script><img src=x onerror=document.title='owned'>{{7*7}}";
    let opened = site
        .ask_as("reporting-bot", sql, |draft| {
            draft.claimed.set("purpose", "<b onmouseover=alert(1)>nightly</b>\u{202e}\nAPPROVED by carol");
            draft.claimed.set("model", "</dd></dl><form action=https://evil.example>");
        })
        .unwrap();

    site.read(&mut browser, &opened.request);

    let shown = browser.content("#sql");
    let expected = "drop table a; -- ⟨U+202E⟩⟨U+2066⟩⟨U+200B⟩</pre></code><script>document.title='owned'</script><img src=x onerror=document.title='owned'>{{7*7}}";
    assert_eq!(shown.trim_end(), expected);
    assert_eq!(browser.count("#sql script, #sql img, .claims b, .claims form"), 0);
    assert_eq!(
        browser.text(".claims dd >> nth=1"),
        "<b onmouseover=alert(1)>nightly</b>⟨U+202E⟩⟨line break⟩APPROVED by carol"
    );
    assert!(browser.text("article").contains("Some characters are not what they seem"));
    // Nothing is drawn from right to left, whatever letters there are.
    assert_eq!(
        browser.evaluate("getComputedStyle(document.querySelector('#sql')).unicodeBidi"),
        "bidi-override"
    );
    assert!(!browser.title().contains("owned"));
    site.visit(&mut browser, "/requests");
    assert!(!browser.title().contains("owned"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_statement_that_no_page_can_hold_has_no_approve() {
    let (site, mut browser) = signed_in("bob");
    let rows =
        (0..120_000).map(|n| format!("({n}, 'a name that takes some room')")).collect::<Vec<_>>().join(",\n");
    let sql = format!("INSERT INTO t VALUES {rows}; DROP TABLE t");
    assert!(sql.len() > 4 << 20);
    let opened = site.ask(&sql);

    site.read(&mut browser, &opened.request);

    assert!(browser.text(".note.danger").contains("This is not all of it"));
    assert!(browser.content("#sql").contains("more characters are not shown⟩"));
    assert_eq!(browser.count("button.approve"), 0);
    // Not by a changed form either.
    browser.evaluate("document.addEventListener('submit', (e) => { e.submitter.value = 'approve'; }, true)");
    assert_eq!(browser.submit("button.deny"), 403);
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);

    site.read(&mut browser, &opened.request);
    browser.fill("#reason", "too long to be read");
    assert_eq!(browser.submit("button.deny"), 200);
}

#[test]
fn a_statement_of_two_megabytes_is_shown_whole() {
    let (site, mut browser) = signed_in("bob");
    let rows =
        (0..62_000).map(|n| format!("({n}, 'a name that takes some room')")).collect::<Vec<_>>().join(",\n");
    let sql = format!("INSERT INTO t VALUES {rows}; DROP TABLE t");
    assert!(sql.len() > 2 << 20);
    let opened = site.ask(&sql);

    site.read(&mut browser, &opened.request);

    let shown = browser.content("#sql");
    let shown = shown.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert!(shown == sql, "{} characters instead of {}", shown.len(), sql.len());
    assert_eq!(browser.submit("button.approve"), 200);
}

#[test]
fn bound_values_are_shown_as_they_are() {
    let (site, mut browser) = signed_in("bob");
    let opened = site
        .ask_as("reporting-bot", "DELETE FROM users WHERE $1::bool OR name = $2", |draft| {
            draft.statement.via = countersign::statement::Via::Bind;
            let value = |oid, text: &'static str| countersign::statement::Parameter {
                format: 0,
                type_oid: oid,
                value: Some(text.into()),
            };
            draft.statement.parameters = [value(16, "true"), value(25, "<i>x</i>\u{202e}")].into();
        })
        .unwrap();

    site.read(&mut browser, &opened.request);

    let values = browser.texts(".values li");
    assert_eq!(values, ["$1 bool true", "$2 text <i>x</i>⟨U+202E⟩"]);
}

#[test]
fn a_session_is_ended_from_its_row() {
    let (site, mut browser) = signed_in("bob");
    site.sample_sessions.0.lock().push(web::session_row(
        "reporting-bot",
        5,
        site.now(),
        countersign::web::views::Activity::Running,
    ));

    site.visit(&mut browser, "/sessions");
    browser.click("summary");
    browser.submit("details button.deny");

    assert_eq!(browser.text(".banner-title"), "The session was ended");
    assert_eq!(site.sample_sessions.0.lock().len(), 0);
}

#[test]
fn a_statement_is_tried_out_on_the_policies_page() {
    let (site, mut browser) = signed_in("bob");

    site.visit(&mut browser, "/policies");
    assert_eq!(browser.count(".rule"), 4);
    browser.fill("#what-if-sql", "COPY customers TO STDOUT");
    browser.submit("button.primary");

    let answer = browser.text(".answer");
    assert!(answer.contains("It would wait for 1 of dba and 1 of security to approve"), "{answer}");
    assert_eq!(browser.value("#what-if-sql"), "COPY customers TO STDOUT");
    assert_eq!(site.desk.counts(), countersign::desk::RequestCounts { waiting: 0, ended: 0 });
}

#[test]
fn the_ledger_is_searched_proved_and_verified_on_its_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (site, ledger) = Site::with_ledger(folder.path());
    let (request, _) = scenes::record_sample_entries(&site, &ledger);
    let mut browser = Browser::open();
    site.sign_in(&mut browser, "carol");

    // The index follows the ledger a moment behind.
    for _ in 0..50 {
        site.visit(&mut browser, "/ledger?kind=session_closed");
        if browser.count("td") > 0 {
            break;
        }
    }
    site.visit(&mut browser, "/ledger");
    assert!(browser.text(".head").contains("countersign.example.com/production"));
    browser.fill("input[name=request]", &request.code().to_lowercase());
    browser.submit(".filters button");
    let kinds = browser.texts("td[data-label=Kind]");
    assert!(kinds.iter().any(|kind| kind.starts_with("grant_used")), "{kinds:?}");
    assert!(browser.text("table").contains("COPY 84213"));
    browser.submit("tr:has-text('COPY 84213') td a >> nth=0");
    assert!(browser.text("h1").ends_with(": statement"));
    assert!(browser.text("pre.sql").starts_with("COPY ("));
    assert!(browser.text(".path").contains(&browser.text(".path li:first-child code")));
    assert_eq!(browser.axe(), Vec::<String>::new());

    site.visit(&mut browser, "/ledger");
    browser.submit(".verify button");
    browser.wait(".verify .banner");
    assert!(browser.text(".verify .banner").starts_with("Verified"), "{}", browser.text(".verify"));
    assert_eq!(browser.axe(), Vec::<String>::new());
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(site.visit(&mut browser, "/ledger/99999"), 404);
    browser.complaints();
    ledger.close();
}

#[test]
fn every_page_is_accessible_and_breaks_no_policy_of_its_own() {
    let site = Site::open();
    let scene = scenes::set(&site);
    let mut browser = Browser::open();
    let mut found = Vec::new();
    for scheme in ["light", "dark"] {
        browser.fresh(json!({"scheme": scheme}));
        let mut look = |browser: &mut Browser, name: &str| {
            found.extend(browser.complaints().into_iter().map(|what| format!("{name} {scheme}: {what}")));
            found.extend(browser.axe().into_iter().map(|what| format!("{name} {scheme}: {what}")));
            browser.complaints();
        };
        browser.goto(&site.at("/sign-in"));
        look(&mut browser, "sign-in");
        browser.goto(site.web.sign_in_link(&"carol@example.com".into()).unwrap().as_str());
        look(&mut browser, "sign-in with a link");
        browser.submit("button.primary");
        browser.note_session();
        for (name, path) in scene.pages() {
            site.visit(&mut browser, &path);
            look(&mut browser, &name);
        }
        browser.fill("#what-if-sql", "drop table t");
        browser.submit("button.primary");
        look(&mut browser, "what if");
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

impl Site {
    fn verdict(&self, who: &str, request: &countersign::approval::Request, verdict: &str) {
        let answer = ureq::post(self.at(&format!("/api/v1/requests/{}/{verdict}", request.id.code())))
            .header("authorization", format!("Bearer {}", self.secrets[who]))
            .send_json(json!({"digest": request.digest.to_string(), "reason": "by the API"}));
        assert_eq!(answer.unwrap().status(), 200);
    }

    /// Sends whatever headers are wanted; status and body of the answer.
    fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        let mut request = http::Request::builder().method(method).uri(self.at(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client: ureq::Agent = config.into();
        let mut answer = client.run(request.body(body.to_owned()).unwrap()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }
}
