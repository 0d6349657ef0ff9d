//! Requests: lists, answers, and who may give them.

use super::*;
use countersign::approval::Withdrawal;

#[test]
fn a_waiting_request_is_listed_as_scripts_expect_it() {
    let site = Site::open();
    let opened = site.ask(EXPORT);

    let listed = site.get("/requests", "bob");

    assert_eq!(listed.status, 200);
    let request = &listed.body[0];
    assert_eq!(request["id"], opened.request.id.code());
    assert_eq!(request["state"], "waiting");
    assert_eq!(request["class"], "export");
    assert_eq!(request["agent"], "reporting-bot");
    assert_eq!(request["upstream"], "app");
    assert_eq!(request["sql"], EXPORT);
    assert_eq!(request["digest"], opened.request.digest.to_string());
    assert_eq!(request["expires_at"], "2026-11-23T09:56:07Z");
    assert_eq!(request["may_answer"], json!(["bob@example.com", "carol@example.com", "dave@example.com"]));
    assert_eq!(listed.body.as_array().unwrap().len(), 1);
}

#[test]
fn waiting_requests_are_listed_before_ended_ones() {
    let site = Site::open();
    let early = site.ask(DDL).request.clone();
    let waiting = [site.ask("DROP TABLE a"), site.ask("DROP TABLE b")];
    site.desk.withdraw(early.id, Withdrawal::AgentCancelled);
    let late = site.ask("DROP TABLE c");
    site.desk.withdraw(late.request.id, Withdrawal::AgentCancelled);

    let codes = |path: &str| -> Vec<String> {
        let listed = site.get(path, "bob").body;
        listed.as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
    };

    let [first, second] = waiting.each_ref().map(|opened| opened.request.id.code());
    let (late, early) = (late.request.id.code(), early.id.code());
    assert_eq!(codes("/requests"), [second.clone(), first.clone(), late.clone(), early.clone()]);
    assert_eq!(codes("/requests?limit=3"), [second.clone(), first.clone(), late.clone()]);
    assert_eq!(codes("/requests?limit=1"), std::slice::from_ref(&second));
    assert_eq!(codes("/requests?state=waiting"), [second, first]);
    assert_eq!(codes("/requests?state=withdrawn"), [late, early]);
    assert!(codes("/requests?agent=migration-agent").is_empty());
    assert_eq!(site.get("/requests?state=asleep", "bob").status, 400);
    assert_eq!(site.get("/requests?limit=many", "bob").status, 400);
    assert_eq!(site.get("/requests?unknown=1", "bob").status, 400);
}

#[test]
fn the_filter_mine_lists_what_the_caller_may_approve() {
    let site = Site::open();
    let _ddl = site.ask(DDL);
    let _export = site.ask(EXPORT);

    let mine = |who| site.get("/requests?mine=true", who).body.as_array().unwrap().len();

    // Alice owns the agent; Dave is asked for the export only.
    assert_eq!((mine("alice"), mine("bob"), mine("dave")), (0, 2, 1));
}

#[test]
fn an_approval_that_completes_the_quorum_releases_the_statement() {
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let (code, digest) = (opened.request.id.code(), opened.request.digest.to_string());
    let approve = format!("/requests/{code}/approve");

    let first = site.post(&approve, "bob", json!({"digest": digest, "reason": "the monthly report"}));
    let second = site.post(&approve, "dave", json!({"digest": digest, "reason": "agreed with legal"}));

    assert_eq!((first.status, &first.body["state"]), (200, &json!("waiting")));
    assert_eq!(first.body["missing"], json!([{"group": "security", "count": 1}]));
    assert_eq!((second.status, &second.body["state"]), (200, &json!("granted")));
    assert_eq!(second.body["request"]["reviews"][0]["reviewer"], "bob@example.com");
    let Ending::Granted(grant) = opened.ending.blocking_recv().unwrap() else { panic!("not granted") };
    assert_eq!(grant.approvals().len(), 2);
    assert_eq!(grant.seal().statement, opened.request.digest);
}

#[test]
fn the_code_may_be_typed_as_people_type_it() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let typed = opened.request.id.code().to_lowercase().replace('-', "");

    assert_eq!(site.get(&format!("/requests/{typed}"), "bob").status, 200);
    assert_eq!(site.get(&format!("/requests/{}", opened.request.id.0), "bob").status, 200);
    assert_eq!(site.get("/requests/..%2f..%2fstatus", "bob").status, 404);
    assert_eq!(site.get("/requests/ZZZZ-ZZ", "bob").body["error"], "unknown_request");
}

#[test]
fn a_denial_tells_the_agent_why() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "use the migration tool"});

    let denied = site.post(&format!("/requests/{}/deny", opened.request.id), "bob", body);

    assert_eq!((denied.status, &denied.body["state"]), (200, &json!("denied")));
    let Ending::Denied { by, message } = opened.ending.blocking_recv().unwrap() else { panic!("not denied") };
    assert_eq!(by.as_str(), "bob@example.com");
    assert_eq!(message.as_deref(), Some("use the migration tool"));
}

#[test]
fn escalating_tells_the_next_group_at_once() {
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let path = format!("/requests/{}/escalate", opened.request.id);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "nobody of us is awake"});

    let escalated = site.post(&path, "bob", body.clone());
    let again = site.post(&path, "carol", body);

    assert_eq!((escalated.status, &escalated.body["state"]), (200, &json!("waiting")));
    assert_eq!((again.status, &again.body["error"]), (409, &json!("no_further_step")));
}

#[test]
fn an_answer_that_cannot_count_says_why() {
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let digest = opened.request.digest.to_string();
    let approve = format!("/requests/{}/approve", opened.request.id);
    let said = |who, body: Value| {
        let answer = site.post(&approve, who, body);
        for field in ["message", "hint"] {
            assert!(answer.body[field].as_str().unwrap().len() > 3, "{}", answer.text);
        }
        (answer.status, answer.body["error"].as_str().unwrap().to_owned())
    };
    let no = |status, word: &str| (status, word.to_owned());
    let other = "0".repeat(64);

    assert_eq!(said("bob", json!({"digest": digest})), no(422, "reason_required"));
    assert_eq!(said("bob", json!({"digest": digest, "reason": "  "})), no(422, "reason_required"));
    assert_eq!(
        said("bob", json!({"digest": digest, "reason": "x".repeat(3000)})),
        no(422, "reason_too_long")
    );
    assert_eq!(said("bob", json!({"reason": "x"})), no(422, "digest_required"));
    assert_eq!(said("bob", json!({"digest": "abc", "reason": "x"})), no(422, "digest_required"));
    assert_eq!(said("bob", json!({"digest": other, "reason": "x"})), no(409, "digest_mismatch"));
    assert_eq!(said("bob", json!({"digest": digest, "raeson": "x"})), no(400, "malformed"));
    assert_eq!(said("bob", json!([])), no(400, "malformed"));
    // The owner of the agent.
    assert_eq!(said("alice", json!({"digest": digest, "reason": "x"})), no(403, "not_allowed"));
    let good = json!({"digest": digest, "reason": "x"});
    assert_eq!(site.post(&approve, "bob", good.clone()).status, 200);
    assert_eq!(said("bob", good.clone()), no(409, "already_answered"));
    assert_eq!(said_unknown(&site), no(404, "unknown_request"));

    site.pass(16 * 60);
    let late = site.post(&approve, "dave", good);
    assert_eq!((late.status, late.body["error"].as_str()), (409, Some("too_late")));
    assert_eq!(late.body["state"], "expired");
}

fn said_unknown(site: &Site) -> (u16, String) {
    let body = json!({"digest": "0".repeat(64)});
    let answer = site.post("/requests/0000-00/approve", "bob", body);
    (answer.status, answer.body["error"].as_str().unwrap().to_owned())
}

#[test]
fn a_refused_approval_leaves_an_entry() {
    let site = Site::open();
    let opened = site.ask(DDL);
    let body = json!({"digest": opened.request.digest.to_string()});

    site.post(&format!("/requests/{}/approve", opened.request.id), "alice", body);

    let records = site.recorded.records.lock();
    let Some(Event::Review(review)) = records.last() else { panic!("no entry: {records:?}") };
    assert!(review.not_counted.as_deref().unwrap().contains("owner"), "{review:?}");
}

#[test]
fn while_the_ledger_cannot_write_no_answer_counts() {
    let site = Site::open();
    let opened = site.ask(DDL);
    *site.recorded.broken.lock() = true;
    let body = json!({"digest": opened.request.digest.to_string()});

    let refused = site.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

    assert_eq!((refused.status, &refused.body["error"]), (503, &json!("ledger_unavailable")));
    assert_eq!(site.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn when_a_request_was_displayed_is_what_the_server_knows() {
    let said = ["1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-11-23T09:41:08Z", "yesterday"];
    for said in said {
        let site = Site::open();
        let opened = site.ask(DDL);
        site.pass(60);
        let body = json!({"digest": opened.request.digest.to_string(), "displayed_at": said});

        let answer = site.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

        assert_eq!(answer.status, 200, "{said}: {}", answer.text);
        let review = site.review();
        assert_eq!((review.displayed_at, review.quick), (None, false), "{said}");
    }
    // Every way to read the whole request counts; the first time counts, for each person separately.
    let site = Site::open();
    let opened = site.ask(EXPORT);
    let path = format!("/requests/{}", opened.request.id);
    site.pass(10);
    let first = site.now();
    site.get(&path, "carol");
    site.pass(60);
    site.get(&path, "carol");
    site.get(&path, "dave");
    let dave = site.now();
    site.pass(2);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "x"});
    site.post(&format!("{path}/escalate"), "carol", body.clone());
    let review = site.review();
    assert_eq!((review.displayed_at, review.quick), (Some(first), false));
    site.post(&format!("{path}/approve"), "dave", body.clone());
    let review = site.review();
    assert_eq!((review.displayed_at, review.quick), (Some(dave), true));
    // If it was not displayed: since it was opened.
    site.post(&format!("{path}/deny"), "bob", body);
    let review = site.review();
    assert_eq!((review.displayed_at, review.quick), (None, false));
}

#[test]
fn an_answer_that_cannot_have_been_read_is_recorded_as_quick() {
    for (who, verdict, waited, quick) in [
        ("bob", "approve", 0, true),
        ("bob", "deny", 2, true),
        ("bob", "approve", 3, false),
        // An owner's approval does not count, and is recorded as well.
        ("alice", "approve", 1, true),
        ("alice", "approve", 5, false),
    ] {
        let site = Site::open();
        let opened = site.ask(DDL);
        site.pass(waited);
        let body = json!({"digest": opened.request.digest.to_string()});

        site.post(&format!("/requests/{}/{verdict}", opened.request.id), who, body);

        assert_eq!(site.review().quick, quick, "{who} {verdict} after {waited} s");
    }
}

#[test]
fn a_list_is_complete_page_by_page() {
    let limits = Limits { waiting_per_agent: 20_000, opened_per_minute: 20_000, ..Limits::default() };
    let site = Site::open_with(SiteSetup { limits: Some(limits), ..SiteSetup::default() });
    let oldest = site.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let flood: Vec<_> = (0..230).map(|number| site.ask(&format!("drop table t{number}"))).collect();
    for opened in &flood[..40] {
        site.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    }
    let all = |query: &str| {
        let mut codes: Vec<String> = Vec::new();
        let mut path = format!("/requests?{query}");
        loop {
            let page = site.get(&path, "bob");
            codes.extend(
                page.body.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()),
            );
            let Some(link) = page.headers.get("link") else { return codes };
            let link = link.to_str().unwrap();
            let target = link.strip_prefix("</api/v1").unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            path = target.to_owned();
        }
    };
    let code = |opened: &countersign::desk::Opened| opened.request.id.code();
    let waiting: Vec<String> = flood[40..].iter().rev().map(code).chain([code(&oldest)]).collect();
    let ended: Vec<String> = flood[..40].iter().rev().map(code).collect();

    for limit in ["", "limit=7", "limit=191", "limit=1000"] {
        assert_eq!(all(limit), [waiting.clone(), ended.clone()].concat(), "{limit}");
        assert_eq!(all(&format!("{limit}&state=waiting")), waiting, "{limit}");
        assert_eq!(all(&format!("{limit}&state=withdrawn")), ended, "{limit}");
        assert_eq!(all(&format!("{limit}&agent=migration-agent")), [code(&oldest)], "{limit}");
        assert_eq!(all(&format!("{limit}&mine=true")).len(), 190, "{limit}: bob owns the other agent");
    }
    for bad in ["x", "w", "wx", "q018f0000-0000-7000-8000-000000000000"] {
        assert_eq!(site.get(&format!("/requests?cursor={bad}"), "bob").status, 400, "{bad}");
    }
}

#[test]
fn a_page_of_long_statements_is_short() {
    let site = Site::open();
    let long = "x".repeat(3 << 20);
    let waiting: Vec<_> =
        (0..7).map(|number| site.ask(&format!("drop table t{number} /* {long} */"))).collect();

    let page = site.get("/requests", "bob");

    assert_eq!(page.body.as_array().unwrap().len(), 2);
    assert!(page.headers.contains_key("link"));
    drop(waiting);
}

#[test]
fn the_exact_bytes_can_be_had_unless_they_hold_secrets() {
    let site = Site::open();
    let odd = site.ask("drop table \"a\u{202e}b\"");
    let secret = site.ask("ALTER ROLE bob PASSWORD 'hunter2'");

    let bytes = site.get(&format!("/requests/{}/statement", odd.request.id), "bob");
    assert_eq!(bytes.text, "drop table \"a\u{202e}b\"");
    assert!(bytes.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));

    let refused = site.get(&format!("/requests/{}/statement", secret.request.id), "bob");
    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("hides_secrets")));
    let shown = site.get(&format!("/requests/{}", secret.request.id), "bob");
    assert!(!shown.text.contains("hunter2"), "{}", shown.text);
}

#[test]
fn hidden_characters_are_marked_in_the_list() {
    let site = Site::open();
    let _opened = site.ask("drop table a; --\u{202e}\u{200b}\u{1b}[2K");

    let sql = site.get("/requests", "bob").body[0]["sql"].as_str().unwrap().to_owned();

    assert_eq!(sql, "drop table a; --⟨U+202E⟩⟨U+200B⟩⟨U+001B⟩[2K");
}

#[test]
fn thousands_of_waiting_requests_are_listed() {
    let limits = Limits { waiting_per_agent: 20_000, opened_per_minute: 20_000, ..Limits::default() };
    let site = Site::open_with(SiteSetup { limits: Some(limits), ..SiteSetup::default() });
    let waiting: Vec<_> = (0..3_000).map(|number| site.ask(&format!("drop table t{number}"))).collect();

    let listed = site.get("/requests", "bob");

    assert_eq!(listed.body.as_array().unwrap().len(), 100);
    assert_eq!(listed.body[0]["id"], waiting[2_999].request.id.code());
}
