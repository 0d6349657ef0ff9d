//! Signing in and out.

use super::*;

#[test]
fn a_link_signs_in_once_and_only_by_its_button() {
    let site = Site::open();
    let mut browser = Browser::open();
    let link = site.web.sign_in_link(&"bob@example.com".into()).unwrap();

    // What a chat service's preview does.
    for _ in 0..3 {
        assert_eq!(ureq::get(link.as_str()).call().unwrap().status(), 200);
    }
    browser.goto(link.as_str());
    assert_eq!(browser.submit("button.primary"), 200);
    assert!(browser.text(".who").contains("bob@example.com"));
    let cookies = browser.cookies();
    assert_eq!(cookies[0]["httpOnly"], true);
    assert_eq!(cookies[0]["sameSite"], "Strict");
    browser.note_session();
    assert_eq!(cookies[0]["path"], format!("{}/", browser.base));

    browser.fresh(json!({}));
    browser.goto(link.as_str());
    assert_eq!(browser.submit("button.primary"), 401);
    assert!(browser.text(".banner").contains("A link works once"));

    let old = site.web.sign_in_link(&"bob@example.com".into()).unwrap();
    site.pass(11 * 60);
    browser.goto(old.as_str());
    assert_eq!(browser.submit("button.primary"), 401);
    assert!(browser.text(".banner").contains("expired"));
    assert!(site.web.sign_in_link(&"mallory@example.com".into()).is_none());
}

#[test]
fn whoever_is_not_signed_in_is_asked_to_and_comes_back() {
    let site = Site::open();
    let mut browser = Browser::open();
    let opened = site.ask("GRANT ALL ON orders TO reporting");

    site.read(&mut browser, &opened.request);
    assert!(browser.url().contains("/sign-in?next="));
    assert!(browser.text("main").contains("countersign reviewer link"));
    browser.fill("#token", &site.secrets["bob"]);
    browser.submit("button.primary");

    browser.note_session();
    assert_eq!(browser.url(), site.at(&format!("{}{}", browser.base, page_of(&opened.request))));
    // A token is no login, and this rule wants one.
    assert_eq!(browser.text("#cannot .note-title"), "Not sure enough that it is you");
    assert_eq!(browser.count("button.approve"), 0);
    assert_eq!(browser.count("button.deny"), 1);
}

#[test]
fn an_agents_password_signs_nobody_in() {
    let site = Site::open();
    let mut browser = Browser::open();

    browser.goto(&site.at("/sign-in"));
    browser.fill("#token", &site.secrets["reporting-bot"]);

    assert_eq!(browser.submit("button.primary"), 401);
    assert!(browser.text(".banner").contains("An agent cannot sign in"));
}

#[test]
fn guessing_is_slowed_down_and_a_good_link_still_works() {
    let site = Site::open();
    let mut browser = Browser::open();
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    let guess = || site.raw("POST", "/sign-in", &headers, "token=csr_guess").0;
    let refused = std::iter::repeat_with(guess).take_while(|status| *status == 401).count();

    assert!(refused < 25, "{refused}");
    assert_eq!(guess(), 429);
    site.sign_in(&mut browser, "bob");
    assert!(browser.text(".who").contains("bob@example.com"));
}

#[test]
fn signing_out_ends_the_session_everywhere() {
    let (site, mut browser) = signed_in("bob");
    let secret = browser.cookies()[0]["value"].as_str().unwrap().to_owned();

    browser.submit("button.quiet");

    assert!(browser.url().ends_with("/sign-in"));
    let cookie = format!("countersign={secret}");
    for path in ["/requests", &format!("{}/requests", browser.base)] {
        let stolen = site.raw("GET", path, &[("cookie", &cookie)], "");
        assert_eq!(stolen.0, 303, "{path}");
    }
}
