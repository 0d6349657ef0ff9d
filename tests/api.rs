//! The REST API, over HTTP, with a real desk behind it. Every answer is held against `openapi.json`.
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

#[path = "support/openapi.rs"]
mod openapi;
#[path = "support/scenes.rs"]
mod scenes;
#[path = "support/web.rs"]
mod web;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use base64::Engine as _;
use countersign::approval::HoldState;
use countersign::desk::{Ending, Limits};
use countersign::identity::secret::SecretHash;
use countersign::identity::{AgentEntry, ReviewerEntry, ScramVerifier};
use countersign::ledger::Event;
use countersign::web::views::Activity;
use serde_json::{Value, json};
use web::{House, Plan};

const EXPORT: &str = "COPY customers TO STDOUT";
const DDL: &str = "ALTER TABLE orders ADD COLUMN note text";

struct Answer {
    status: u16,
    body: Value,
    headers: http::HeaderMap,
    text: String,
}

fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    config.timeout_global(Some(Duration::from_secs(30))).build().into()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

impl House {
    fn send(&self, method: &str, path: &str, credentials: Option<&str>, body: Option<Value>) -> Answer {
        let path = format!("/api/v1{path}");
        let mut request = http::Request::builder().method(method).uri(self.at(&path));
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        let client = client();
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                client.run(request.body(body.to_string()).unwrap())
            }
            None => client.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let content_type = headers["content-type"].to_str().unwrap().to_owned();
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        openapi::check(method, &path, status, &content_type, &text);
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), headers, text }
    }

    fn get(&self, path: &str, who: &str) -> Answer {
        self.send("GET", path, Some(&bearer(&self.secrets[who])), None)
    }

    fn post(&self, path: &str, who: &str, body: Value) -> Answer {
        self.send("POST", path, Some(&bearer(&self.secrets[who])), Some(body))
    }
}

#[test]
fn every_route_is_in_the_document_and_nothing_else_is() {
    let routes: BTreeSet<(String, String)> = countersign::web::api::routes()
        .into_iter()
        .map(|route| (route.method.to_lowercase(), route.path.to_owned()))
        .collect();
    let document = openapi::document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |m| (m.clone(), path.clone()))
        })
        .collect();

    assert_eq!(routes, described);
    let house = House::open();
    let served = house.send("GET", "/openapi.json", None, None);
    assert_eq!(served.body, document);
}

#[test]
fn a_waiting_request_is_listed_as_scripts_expect_it() {
    let house = House::open();
    let opened = house.ask(EXPORT);

    let listed = house.get("/requests", "bob");

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
fn what_waits_is_listed_first_and_what_ended_after_it() {
    let house = House::open();
    let early = house.ask(DDL).request.clone();
    let waiting = [house.ask("DROP TABLE a"), house.ask("DROP TABLE b")];
    house.desk.withdraw(early.id, "the agent cancelled");
    let late = house.ask("DROP TABLE c");
    house.desk.withdraw(late.request.id, "the agent cancelled");

    let codes = |path: &str| -> Vec<String> {
        let listed = house.get(path, "bob").body;
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
    assert_eq!(house.get("/requests?state=asleep", "bob").status, 400);
    assert_eq!(house.get("/requests?limit=many", "bob").status, 400);
    assert_eq!(house.get("/requests?unknown=1", "bob").status, 400);
}

#[test]
fn mine_are_those_that_i_may_approve() {
    let house = House::open();
    let _ddl = house.ask(DDL);
    let _export = house.ask(EXPORT);

    let mine = |who| house.get("/requests?mine=true", who).body.as_array().unwrap().len();

    // Alice owns the agent; Dave is asked for the export only.
    assert_eq!((mine("alice"), mine("bob"), mine("dave")), (0, 2, 1));
}

#[test]
fn an_approval_that_completes_the_quorum_releases_the_statement() {
    let house = House::open();
    let opened = house.ask(EXPORT);
    let (code, digest) = (opened.request.id.code(), opened.request.digest.to_string());
    let approve = format!("/requests/{code}/approve");

    let first = house.post(&approve, "bob", json!({"digest": digest, "reason": "the monthly report"}));
    let second = house.post(&approve, "dave", json!({"digest": digest, "reason": "agreed with legal"}));

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
    let house = House::open();
    let opened = house.ask(DDL);
    let typed = opened.request.id.code().to_lowercase().replace('-', "");

    assert_eq!(house.get(&format!("/requests/{typed}"), "bob").status, 200);
    assert_eq!(house.get(&format!("/requests/{}", opened.request.id.0), "bob").status, 200);
    assert_eq!(house.get("/requests/..%2f..%2fstatus", "bob").status, 404);
    assert_eq!(house.get("/requests/ZZZZ-ZZ", "bob").body["error"], "unknown_request");
}

#[test]
fn a_denial_tells_the_agent_why() {
    let house = House::open();
    let opened = house.ask(DDL);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "use the migration tool"});

    let denied = house.post(&format!("/requests/{}/deny", opened.request.id), "bob", body);

    assert_eq!((denied.status, &denied.body["state"]), (200, &json!("denied")));
    let Ending::Denied { by, message } = opened.ending.blocking_recv().unwrap() else { panic!("not denied") };
    assert_eq!(by.as_str(), "bob@example.com");
    assert_eq!(message.as_deref(), Some("use the migration tool"));
}

#[test]
fn escalating_tells_the_next_group_at_once() {
    let house = House::open();
    let opened = house.ask(EXPORT);
    let path = format!("/requests/{}/escalate", opened.request.id);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "nobody of us is awake"});

    let escalated = house.post(&path, "bob", body.clone());
    let again = house.post(&path, "carol", body);

    assert_eq!((escalated.status, &escalated.body["state"]), (200, &json!("waiting")));
    assert_eq!((again.status, &again.body["error"]), (409, &json!("no_further_step")));
}

#[test]
fn an_answer_that_cannot_count_says_why() {
    let house = House::open();
    let opened = house.ask(EXPORT);
    let digest = opened.request.digest.to_string();
    let approve = format!("/requests/{}/approve", opened.request.id);
    let said = |who, body: Value| {
        let answer = house.post(&approve, who, body);
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
    assert_eq!(house.post(&approve, "bob", good.clone()).status, 200);
    assert_eq!(said("bob", good.clone()), no(409, "already_answered"));
    assert_eq!(said_unknown(&house), no(404, "unknown_request"));

    house.pass(16 * 60);
    let late = house.post(&approve, "dave", good);
    assert_eq!((late.status, late.body["error"].as_str()), (409, Some("too_late")));
    assert_eq!(late.body["state"], "expired");
}

fn said_unknown(house: &House) -> (u16, String) {
    let body = json!({"digest": "0".repeat(64)});
    let answer = house.post("/requests/0000-00/approve", "bob", body);
    (answer.status, answer.body["error"].as_str().unwrap().to_owned())
}

#[test]
fn a_token_is_no_login() {
    let house = House::open();
    let opened = house.ask("GRANT ALL ON orders TO reporting");
    let body = json!({"digest": opened.request.digest.to_string()});

    let refused = house.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("assurance_too_low")));
}

#[test]
fn a_refused_approval_leaves_an_entry() {
    let house = House::open();
    let opened = house.ask(DDL);
    let body = json!({"digest": opened.request.digest.to_string()});

    house.post(&format!("/requests/{}/approve", opened.request.id), "alice", body);

    let records = house.notes.records.lock();
    let Some(Event::Review(review)) = records.last() else { panic!("no entry: {records:?}") };
    assert!(review.not_counted.as_deref().unwrap().contains("owner"), "{review:?}");
}

#[test]
fn while_the_ledger_cannot_write_no_answer_counts() {
    let house = House::open();
    let opened = house.ask(DDL);
    *house.notes.broken.lock() = true;
    let body = json!({"digest": opened.request.digest.to_string()});

    let refused = house.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

    assert_eq!((refused.status, &refused.body["error"]), (503, &json!("ledger_unavailable")));
    assert_eq!(house.desk.request(&opened.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn strangers_get_nothing() {
    let house = House::open();
    let opened = house.ask(DDL);
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
            let refused = house.send("GET", path, credentials, None);
            assert!(matches!(refused.status, 401 | 429), "{path} {credentials:?}: {}", refused.status);
            assert!(!refused.text.contains("orders"));
        }
    }
    let cookie =
        client().get(house.at("/api/v1/requests")).header("cookie", "countersign=css_x").call().unwrap();
    assert_eq!(cookie.status(), 401);
}

#[test]
fn an_agent_reads_its_own_requests_and_decides_nothing() {
    let house = House::open();
    let own = house.ask(EXPORT);
    let others = house.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let password = &house.secrets["reporting-bot"];
    let digest = json!({"digest": own.request.digest.to_string(), "reason": "please"});
    house.post(&format!("/requests/{}/approve", own.request.id), "bob", digest.clone());

    for credentials in [basic("reporting-bot", password), bearer(password)] {
        let get = |path: &str| house.send("GET", path, Some(&credentials), None);
        let post = |path: &str, body| house.send("POST", path, Some(&credentials), Some(body));

        let listed = get("/requests?agent=migration-agent");
        assert_eq!(listed.body.as_array().unwrap().len(), 1);
        assert_eq!(listed.body[0]["sql"], EXPORT);
        // Who its reviewers are and what they say among themselves is not for it.
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
    assert_eq!(house.desk.request(&own.request.id.code()).unwrap().state, HoldState::Waiting);
}

#[test]
fn another_agents_password_opens_nothing() {
    let house = House::open();
    let password = &house.secrets["migration-agent"];

    for credentials in [basic("reporting-bot", password), basic("nobody", password), basic("", password)] {
        assert_eq!(house.send("GET", "/requests", Some(&credentials), None).status, 401);
    }
}

#[test]
fn an_agent_that_was_removed_is_a_stranger_at_once() {
    let house = House::open();
    let credentials = basic("reporting-bot", &house.secrets["reporting-bot"]);
    assert_eq!(house.send("GET", "/requests", Some(&credentials), None).status, 200);

    let empty = countersign::identity::Directory::new(Vec::new(), Vec::new(), [7; 32]).unwrap();
    house.directory.store(empty.into());

    assert_eq!(house.send("GET", "/requests", Some(&credentials), None).status, 401);
}

#[test]
fn guessing_is_slowed_down_and_reviewers_are_not() {
    let house = House::open();
    let guess = || house.send("GET", "/requests", Some("Bearer csr_guess"), None);
    while guess().status == 401 {}

    let stopped = guess();

    assert_eq!(stopped.status, 429);
    assert!(stopped.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(house.get("/requests", "bob").status, 200);
    house.pass(61);
    assert_eq!(guess().status, 401);
}

#[test]
fn an_agent_cannot_keep_the_others_from_asking() {
    let house = House::open();
    let credentials = basic("reporting-bot", &house.secrets["reporting-bot"]);
    let ask = || house.send("GET", "/whoami", Some(&credentials), None);
    let answered = std::iter::repeat_with(ask).take_while(|answer| answer.status == 200).count();

    assert_eq!(answered, 300);
    assert_eq!(ask().body["error"], "too_many_questions");
    let other = basic("migration-agent", &house.secrets["migration-agent"]);
    assert_eq!(house.send("GET", "/whoami", Some(&other), None).status, 200);
    let listening: Vec<Events> = (0..8).map(|_| house.listen("/api/v1/events", &other)).collect();
    assert_eq!(house.send("GET", "/events", Some(&other), None).body["error"], "too_many_streams");
    assert_eq!(house.listen("/api/v1/events", &bearer(&house.secrets["bob"])).next().0, "ready");
    drop(listening);
}

#[test]
fn a_body_must_be_json_of_a_reasonable_size() {
    let house = House::open();
    let opened = house.ask(DDL);
    let path = format!("/api/v1/requests/{}/approve", opened.request.id);
    let send = |content_type: &str, body: &str| {
        let request = client().post(house.at(&path)).header("authorization", bearer(&house.secrets["bob"]));
        let mut answer = request.header("content-type", content_type).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let status = answer.status().as_u16();
        openapi::check("POST", &path, status, "application/json", &text);
        status
    };
    let body = json!({"digest": opened.request.digest.to_string()}).to_string();

    // What a form of another site could send.
    assert_eq!(send("text/plain", &body), 415);
    assert_eq!(send("application/x-www-form-urlencoded", "digest=x"), 415);
    assert_eq!(send("application/json", "{"), 400);
    assert_eq!(send("application/json", &format!("{{\"reason\":\"{}\"}}", "x".repeat(70_000))), 413);
    assert_eq!(send("application/json; charset=utf-8", &body), 200);
}

#[test]
fn events_are_told_as_they_happen() {
    let house = House::open();
    let events = house.listen("/api/v1/events", &bearer(&house.secrets["bob"]));
    let agents = house.listen("/api/v1/events", &basic("migration-agent", &house.secrets["migration-agent"]));
    assert_eq!(events.next().0, "ready");
    assert_eq!(agents.next().0, "ready");

    let opened = house.ask(EXPORT);
    let (kind, told) = events.next();
    assert_eq!((kind.as_str(), &told["request"]["sql"]), ("opened", &json!(EXPORT)));

    let body = json!({"digest": opened.request.digest.to_string(), "reason": "no"});
    house.post(&format!("/requests/{}/deny", opened.request.id), "bob", body);
    assert_eq!(events.next().0, "reviewed");
    let (kind, told) = events.next();
    assert_eq!((kind.as_str(), &told["request"]["state"]), ("ended", &json!("denied")));

    // The other agent hears of its own requests only.
    let _own = house.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let (kind, told) = agents.next();
    assert_eq!((kind.as_str(), &told["request"]["agent"]), ("opened", &json!("migration-agent")));
}

#[test]
fn streams_end_when_the_server_does() {
    let house = House::open();
    let events = house.listen("/api/v1/events", &bearer(&house.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    drop(house);

    assert!(events.0.recv_timeout(Duration::from_secs(10)).is_err());
}

#[test]
fn a_stream_ends_with_the_right_to_hear_it() {
    let agent = |house: &House| basic("migration-agent", &house.secrets["migration-agent"]);
    let bob = |house: &House| bearer(&house.secrets["bob"]);
    let is_bob = |entry: &ReviewerEntry| entry.reviewer.id.as_str() == "bob@example.com";
    let is_agent = |entry: &AgentEntry| entry.agent.name.as_str() == "migration-agent";
    type Credentials<'c> = &'c dyn Fn(&House) -> String;
    type Change = Box<dyn Fn(&mut Vec<AgentEntry>, &mut Vec<ReviewerEntry>)>;
    let cases: [(Credentials<'_>, Change); 4] = [
        (&bob, Box::new(move |_, reviewers| reviewers.retain(|entry| !is_bob(entry)))),
        (
            &bob,
            Box::new(move |_, reviewers| {
                let bob = reviewers.iter_mut().find(|entry| is_bob(entry)).unwrap();
                bob.tokens = vec![SecretHash::of("csr_rotated")];
            }),
        ),
        (&agent, Box::new(move |agents, _| agents.retain(|entry| !is_agent(entry)))),
        (
            &agent,
            Box::new(move |agents, _| {
                let agent = agents.iter_mut().find(|entry| is_agent(entry)).unwrap();
                agent.verifier = Some(ScramVerifier::of_password("csa_rotated"));
            }),
        ),
    ];
    for (number, (credentials, change)) in cases.into_iter().enumerate() {
        let house = House::open();
        let quiet = house.listen("/api/v1/events", &credentials(&house));
        let busy = house.listen("/api/v1/events", &credentials(&house));
        assert_eq!((quiet.next().0, busy.next().0), ("ready".to_owned(), "ready".to_owned()));

        let draft = house.draft("migration-agent", "DROP TABLE salaries", |_| {});

        house.change_people(|agents, reviewers| change(agents, reviewers));
        // What happens next is told to nobody who may not hear it, however soon it happens.
        let opened = house.desk.open(draft);
        for stream in [quiet, busy] {
            let heard = stream.0.recv_timeout(Duration::from_secs(10));
            assert_eq!(heard, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "case {number}");
        }
        drop(opened);
    }
}

#[test]
fn a_stream_goes_on_while_other_people_change() {
    let house = House::open();
    let events = house.listen("/api/v1/events", &bearer(&house.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    house
        .change_people(|_, reviewers| reviewers.retain(|one| one.reviewer.id.as_str() != "dave@example.com"));
    std::thread::sleep(Duration::from_secs(3));
    let _opened = house.ask(DDL);

    assert_eq!(events.next().0, "opened");
}

#[test]
fn an_agent_cannot_tell_ids_of_others_requests_from_ids_of_none() {
    let house = House::open();
    let others = house.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let ended = house.ask_as("migration-agent", "DROP TABLE t", |_| {}).unwrap();
    house.desk.withdraw(ended.request.id, "the agent cancelled");
    let credentials = basic("reporting-bot", &house.secrets["reporting-bot"]);
    let ask = |method: &str, path: &str| {
        let body = (method == "POST").then(|| json!({"digest": others.request.digest.to_string()}));
        let mut answer = house.send(method, path, Some(&credentials), body);
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
fn when_a_request_was_displayed_is_what_the_server_knows() {
    let said = ["1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2026-11-23T09:41:08Z", "yesterday"];
    for said in said {
        let house = House::open();
        let opened = house.ask(DDL);
        house.pass(60);
        let body = json!({"digest": opened.request.digest.to_string(), "displayed_at": said});

        let answer = house.post(&format!("/requests/{}/approve", opened.request.id), "bob", body);

        assert_eq!(answer.status, 200, "{said}: {}", answer.text);
        let review = house.review();
        assert_eq!((review.displayed_at, review.quick), (None, false), "{said}");
    }
    // Told by any way the whole request is told; the first time counts, and each person has their own.
    let house = House::open();
    let opened = house.ask(EXPORT);
    let path = format!("/requests/{}", opened.request.id);
    house.pass(10);
    let first = house.now();
    house.get(&path, "carol");
    house.pass(60);
    house.get(&path, "carol");
    house.get(&path, "dave");
    let dave = house.now();
    house.pass(2);
    let body = json!({"digest": opened.request.digest.to_string(), "reason": "x"});
    house.post(&format!("{path}/escalate"), "carol", body.clone());
    let review = house.review();
    assert_eq!((review.displayed_at, review.quick), (Some(first), false));
    house.post(&format!("{path}/approve"), "dave", body.clone());
    let review = house.review();
    assert_eq!((review.displayed_at, review.quick), (Some(dave), true));
    // Where nobody was told: since it was opened.
    house.post(&format!("{path}/deny"), "bob", body);
    let review = house.review();
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
        let house = House::open();
        let opened = house.ask(DDL);
        house.pass(waited);
        let body = json!({"digest": opened.request.digest.to_string()});

        house.post(&format!("/requests/{}/{verdict}", opened.request.id), who, body);

        assert_eq!(house.review().quick, quick, "{who} {verdict} after {waited} s");
    }
}

#[test]
fn a_list_is_complete_page_by_page() {
    let limits = Limits { waiting_per_agent: 20_000, opened_per_minute: 20_000, ..Limits::default() };
    let house = House::open_with(Plan { limits: Some(limits), ..Plan::default() });
    let oldest = house.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let flood: Vec<_> = (0..230).map(|number| house.ask(&format!("drop table t{number}"))).collect();
    for opened in &flood[..40] {
        house.desk.withdraw(opened.request.id, "the agent cancelled");
    }
    let all = |query: &str| {
        let mut codes: Vec<String> = Vec::new();
        let mut path = format!("/requests?{query}");
        loop {
            let page = house.get(&path, "bob");
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
        assert_eq!(house.get(&format!("/requests?cursor={bad}"), "bob").status, 400, "{bad}");
    }
}

#[test]
fn a_page_of_long_statements_is_short() {
    let house = House::open();
    let long = "x".repeat(3 << 20);
    let waiting: Vec<_> =
        (0..7).map(|number| house.ask(&format!("drop table t{number} /* {long} */"))).collect();

    let page = house.get("/requests", "bob");

    assert_eq!(page.body.as_array().unwrap().len(), 2);
    assert!(page.headers.contains_key("link"));
    drop(waiting);
}

#[test]
fn sessions_are_listed_and_ended() {
    let house = House::open();
    let row = web::room("reporting-bot", 3, house.now(), Activity::Running);
    let id = row.id;
    house.rooms.0.lock().push(row);

    let listed = house.get("/sessions", "bob");
    assert_eq!(
        (&listed.body[0]["agent"], &listed.body[0]["activity"]),
        (&json!("reporting-bot"), &json!("running"))
    );

    let killed = house.post(&format!("/sessions/{id}/kill"), "bob", json!({}));
    assert_eq!((killed.status, &killed.body["killed"]), (200, &json!(true)));
    assert_eq!(house.post(&format!("/sessions/{id}/kill"), "bob", json!({})).status, 404);
    assert_eq!(house.post("/sessions/all/kill", "bob", json!({})).status, 404);
}

#[test]
fn status_tells_how_everything_is() {
    let house = House::open();
    let _waiting = house.ask(DDL);

    let status = house.get("/status", "bob").body;

    assert_eq!(status["requests"]["waiting"], 1);
    assert_eq!(status["policy"]["rules"], 3);
    assert_eq!(status["policy"]["digest"], house.policy.load().digest().to_string());
    // There is no ledger in this house.
    assert_eq!((&status["healthy"], &status["ledger"]["writable"]), (&json!(false), &json!(false)));
    let health = client().get(house.at("/healthz")).call().unwrap();
    assert_eq!(health.status(), 503);
}

#[test]
fn a_statement_can_be_tried_out() {
    let house = House::open();
    let ask = |body: Value| house.post("/policies/what-if", "bob", body);

    let held = ask(json!({"sql": EXPORT, "agent": "reporting-bot"})).body;
    assert_eq!((&held["then"], &held["class"]), (&json!("hold"), &json!("export")));
    assert_eq!(held["approvals"], json!([{"group": "dba", "count": 1}, {"group": "security", "count": 1}]));
    let decided: Vec<&Value> =
        held["rules"].as_array().unwrap().iter().filter(|r| r["decided"] == true).collect();
    assert_eq!(decided[0]["rule"], "customer-export");

    assert_eq!(ask(json!({"sql": "select 1"})).body["then"], "allow");
    assert_eq!(ask(json!({"sql": "selec 1"})).body["then"], "refuse");
    assert_eq!(ask(json!({"sql": "COPY t TO PROGRAM 'x'"})).body["then"], "deny");
    assert_eq!(ask(json!({"sql": ""})).status, 400);
    assert_eq!(ask(json!({"sql": "select 1", "upstream": "elsewhere"})).status, 400);
    assert_eq!(house.desk.counts(), (0, 0));
}

#[test]
fn people_and_policy_can_be_read() {
    let house = House::open();

    let agents = house.get("/agents", "bob").body;
    assert_eq!(agents[1]["owners"], json!(["alice@example.com"]));
    let reviewers = house.get("/reviewers", "bob");
    assert_eq!(reviewers.body[1]["also"], json!(["robert@corp.example"]));
    assert!(!reviewers.text.contains("csr_") && !reviewers.text.contains("sha256"), "{}", reviewers.text);
    let policies = house.get("/policies", "bob").body;
    assert_eq!(policies["set"]["rules"].as_array().unwrap().len(), 3);
}

#[test]
fn the_exact_bytes_can_be_had_unless_they_hold_secrets() {
    let house = House::open();
    let odd = house.ask("drop table \"a\u{202e}b\"");
    let secret = house.ask("ALTER ROLE bob PASSWORD 'hunter2'");

    let bytes = house.get(&format!("/requests/{}/statement", odd.request.id), "bob");
    assert_eq!(bytes.text, "drop table \"a\u{202e}b\"");
    assert!(bytes.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));

    let refused = house.get(&format!("/requests/{}/statement", secret.request.id), "bob");
    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("hides_secrets")));
    let shown = house.get(&format!("/requests/{}", secret.request.id), "bob");
    assert!(!shown.text.contains("hunter2"), "{}", shown.text);
}

#[test]
fn what_would_hide_is_visible_in_the_list() {
    let house = House::open();
    let _opened = house.ask("drop table a; --\u{202e}\u{200b}\u{1b}[2K");

    let sql = house.get("/requests", "bob").body[0]["sql"].as_str().unwrap().to_owned();

    assert_eq!(sql, "drop table a; --⟨U+202E⟩⟨U+200B⟩⟨U+001B⟩[2K");
}

#[test]
fn unknown_routes_and_methods_are_told_in_json() {
    let house = House::open();

    let nowhere = house.send("GET", "/nowhere", None, None);
    assert_eq!((nowhere.status, &nowhere.body["error"]), (404, &json!("no_such_route")));
    let wrong = house.send("POST", "/requests", None, Some(json!({})));
    assert_eq!((wrong.status, &wrong.body["error"]), (405, &json!("method_not_allowed")));
}

#[test]
fn every_answer_has_the_headers_that_protect_browsers() {
    let house = House::open();

    for path in ["/api/v1/requests", "/sign-in", "/static/none", "/nowhere", "/api/v1/nowhere"] {
        let answer = client().get(house.at(path)).call().unwrap();
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
    let house = House::open_with(Plan { patience: Some(Duration::from_millis(300)), ..Plan::default() });
    let mut socket = std::net::TcpStream::connect(house.url.socket_addrs(|| None).unwrap()[0]).unwrap();
    let head = format!(
        "POST /api/v1/policies/what-if HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        bearer(&house.secrets["bob"])
    );
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();

    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();

    assert!(line.starts_with("HTTP/1.1 408"), "{line}");
}

/// What a stranger sends who wants a place: HTTP/2 without a request, HTTP/1 without an end, nothing.
const BEGINNINGS: [&[u8]; 4] = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"GET / HTTP/1.1\r\nhost: x\r\n",
    b"PRI * HT",
    b"",
];

/// Connects from `from`, one of this machine's addresses.
fn connect_from(from: [u8; 4], house: &House) -> std::net::TcpStream {
    let to = house.url.socket_addrs(|| None).unwrap()[0];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(to).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    })
}

fn is_answered(house: &House) -> bool {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let client: ureq::Agent = config.timeout_global(Some(Duration::from_secs(10))).build().into();
    client.get(house.at("/healthz")).call().is_ok()
}

#[test]
fn a_stranger_who_takes_every_connection_keeps_nobody_out() {
    let connections = countersign::web::ConnectionLimits::of(40);
    let house = House::open_with(Plan { connections: Some(connections), ..Plan::default() });
    // Somebody listens already, from the same address as the second flood.
    let events = house.listen("/api/v1/events", &bearer(&house.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    for from in [[127, 0, 0, 2], [127, 0, 0, 1]] {
        let flood: Vec<std::net::TcpStream> = (0..80)
            .map(|number| {
                let mut socket = connect_from(from, &house);
                let _ = std::io::Write::write_all(&mut socket, BEGINNINGS[number % BEGINNINGS.len()]);
                socket
            })
            .collect();
        for _ in 0..3 {
            assert!(is_answered(&house), "{from:?}");
            assert_eq!(house.get("/whoami", "bob").status, 200, "{from:?}");
        }
        drop(flood);
    }

    let _opened = house.ask(DDL);
    assert_eq!(events.next().0, "opened");
}

#[test]
fn idle_connections_are_closed_and_so_are_old_ones_of_strangers() {
    let limits = countersign::web::ConnectionLimits {
        idle: Duration::from_secs(1),
        stranger: Duration::from_secs(3),
        ..countersign::web::ConnectionLimits::of(40)
    };
    let house = House::open_with(Plan { connections: Some(limits), ..Plan::default() });
    let events = house.listen("/api/v1/events", &bearer(&house.secrets["bob"]));
    assert_eq!(events.next().0, "ready");
    let idle = BEGINNINGS.iter().map(|beginning| (*beginning, false));
    // Asks again and again, and is never idle for long.
    let busy = (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), true);

    for (sent, is_busy) in idle.chain([busy]) {
        let mut socket = connect_from([127, 0, 0, 1], &house);
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
    let _opened = house.ask(DDL);
    assert_eq!(events.next().0, "opened");
}

#[test]
fn thousands_of_waiting_requests_are_listed() {
    let limits = Limits { waiting_per_agent: 20_000, opened_per_minute: 20_000, ..Limits::default() };
    let house = House::open_with(Plan { limits: Some(limits), ..Plan::default() });
    let waiting: Vec<_> = (0..3_000).map(|number| house.ask(&format!("drop table t{number}"))).collect();

    let listed = house.get("/requests", "bob");

    assert_eq!(listed.body.as_array().unwrap().len(), 100);
    assert_eq!(listed.body[0]["id"], waiting[2_999].request.id.code());
}

#[test]
fn the_ledger_is_searched_read_and_proved() {
    let folder = tempfile::tempdir().unwrap();
    let (house, ledger) = House::with_ledger(folder.path());
    let (request, session) = scenes::record_a_morning(&house, &ledger);
    let search = |query: &str| -> Vec<Value> {
        let mut found = Vec::new();
        // The index follows the ledger a moment behind.
        for _ in 0..50 {
            found = house.get(&format!("/ledger/entries?{query}"), "carol").body["entries"]
                .as_array()
                .unwrap()
                .clone();
            if !found.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        found
    };
    let kinds = |entries: &[Value]| -> Vec<String> {
        entries.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    };

    // The last that was recorded; when it can be found, so can the rest.
    assert_eq!(kinds(&search("kind=session_closed")), ["session_closed"]);
    let of_request = search(&format!("request={}", request.code().to_lowercase()));
    assert_eq!(
        kinds(&of_request),
        ["request_closed", "statement", "grant_used", "request_closed", "review", "review", "request_opened"]
    );
    assert_eq!(of_request[0]["outcome"], "executed");
    assert_eq!(of_request[1]["outcome"], "COPY 84213");
    assert!(of_request[4]["summary"].as_str().unwrap().starts_with("dave@example.com: approve (api, click)"));
    assert_eq!(search(&format!("request={}", request.0)), of_request);
    assert_eq!(kinds(&search(&format!("session={session}&kind=refused"))), ["refused"]);
    assert_eq!(kinds(&search("text=MAX(created_at)&class=read")), ["statement"]);
    assert!(
        search("kind=export")
            .iter()
            .all(|entry| entry["summary"].as_str().unwrap().contains("carol@example.com"))
    );
    assert_eq!(house.get("/ledger/entries?before=soon", "carol").status, 400);

    // A page at a time, nothing twice and nothing left out.
    let mut seqs = Vec::new();
    let mut next = String::new();
    loop {
        let page = house.get(&format!("/ledger/entries?agent=reporting-bot&limit=2{next}"), "carol").body;
        seqs.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    assert!(seqs.is_sorted_by(|a, b| a > b) && seqs.len() >= 9, "{seqs:?}");

    let statement = of_request[1]["seq"].as_u64().unwrap();
    let entry = house.get(&format!("/ledger/entries/{statement}"), "carol").body;
    assert_eq!(entry["kind"], "statement");
    let text = |name: &str| {
        let texts = entry["texts"].as_array().unwrap();
        texts.iter().find(|text| text["name"] == name).unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert!(text("sql").starts_with("COPY (\n    SELECT c.id"));
    let proof = house.get(&format!("/ledger/entries/{statement}/proof"), "carol").body;
    let parsed = countersign::ledger::read::Proof::parse(proof["text"].as_str().unwrap()).unwrap();
    let key = countersign::ledger::key::KeyFiles::beside(&folder.path().join("ledger.db")).public;
    let key = countersign::ledger::key::PublicRoot::load(&key).unwrap();
    assert_eq!(parsed.verify(&key).unwrap().root.to_string(), proof["root"].as_str().unwrap());
    assert_eq!(hex::encode(&parsed.body), entry["body"].as_str().unwrap());

    let bearer = bearer(&house.secrets["carol"]);
    let asked = client().get(house.at(&format!("/api/v1/ledger/entries/{statement}/proof")));
    let mut plain = asked.header("authorization", bearer).header("accept", "text/plain").call().unwrap();
    assert!(plain.body_mut().read_to_string().unwrap().starts_with("c2sp.org/tlog-proof@v1\n"));

    assert_eq!(house.get("/ledger/entries/999999", "carol").status, 404);
    assert_eq!(house.get("/ledger/entries/999999/proof", "carol").status, 404);
    assert_eq!(house.get("/ledger/entries/first", "carol").status, 400);
    let status = house.get("/ledger", "carol").body;
    assert_eq!(
        (&status["writable"], &status["origin"]),
        (&json!(true), &json!("countersign.example.com/production"))
    );
    assert_eq!(client().get(house.at("/healthz")).call().unwrap().status(), 200);
    ledger.close();
}

struct Events(std::sync::mpsc::Receiver<(String, Value)>);

impl Events {
    fn next(&self) -> (String, Value) {
        self.0.recv_timeout(Duration::from_secs(10)).expect("an event")
    }
}

impl House {
    /// The answer that was recorded last.
    fn review(&self) -> Box<countersign::ledger::ReviewRecord> {
        let records = self.notes.records.lock();
        let found = records.iter().rev().find_map(|record| match record {
            Event::Review(review) => Some(review.clone()),
            _ => None,
        });
        found.expect("a review")
    }

    fn listen(&self, path: &str, credentials: &str) -> Events {
        let (sender, receiver) = std::sync::mpsc::channel();
        let config = ureq::Agent::config_builder().http_status_as_error(true).build();
        let client: ureq::Agent = config.into();
        let answer = client.get(self.at(path)).header("authorization", credentials).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let reader = BufReader::new(answer.into_body().into_reader());
        std::thread::spawn(move || {
            let mut kind = String::new();
            for line in reader.lines() {
                let Ok(line) = line else { return };
                if let Some(word) = line.strip_prefix("event: ") {
                    kind = word.to_owned();
                } else if let Some(data) = line.strip_prefix("data: ") {
                    let told = serde_json::from_str(data).unwrap();
                    if sender.send((std::mem::take(&mut kind), told)).is_err() {
                        return;
                    }
                }
            }
        });
        Events(receiver)
    }
}
