//! Everything else that can be read: sessions, status, policy, ledger, the OpenAPI document.

use super::*;

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
    let site = Site::open();
    let served = site.send("GET", "/openapi.json", None, None);
    assert_eq!(served.body, document);
}

#[test]
fn sessions_are_listed_and_ended() {
    let site = Site::open();
    let row = web::session_row("reporting-bot", 3, site.now(), Activity::Running);
    let id = row.id;
    site.sample_sessions.0.lock().push(row);

    let listed = site.get("/sessions", "bob");
    assert_eq!(
        (&listed.body[0]["agent"], &listed.body[0]["activity"]),
        (&json!("reporting-bot"), &json!("running"))
    );

    let killed = site.post(&format!("/sessions/{id}/kill"), "bob", json!({}));
    assert_eq!((killed.status, &killed.body["killed"]), (200, &json!(true)));
    assert_eq!(site.post(&format!("/sessions/{id}/kill"), "bob", json!({})).status, 404);
    assert_eq!(site.post("/sessions/all/kill", "bob", json!({})).status, 404);
}

#[test]
fn status_shows_the_health_of_every_part() {
    let site = Site::open();
    let _waiting = site.ask(DDL);

    let status = site.get("/status", "bob").body;

    assert_eq!(status["requests"]["waiting"], 1);
    assert_eq!(status["policy"]["rules"], 3);
    assert_eq!(status["policy"]["digest"], site.policy.load().digest().to_string());
    // There is no ledger in this site.
    assert_eq!((&status["healthy"], &status["ledger"]["writable"]), (&json!(false), &json!(false)));
    let health = client().get(site.at("/healthz")).call().unwrap();
    assert_eq!(health.status(), 503);
}

#[test]
fn a_statement_can_be_classified_and_decided_without_running_it() {
    let site = Site::open();
    let ask = |body: Value| site.post("/policies/what-if", "bob", body);

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
    assert_eq!(site.desk.counts(), countersign::desk::RequestCounts { waiting: 0, ended: 0 });
}

#[test]
fn people_and_policy_can_be_read() {
    let site = Site::open();

    let agents = site.get("/agents", "bob").body;
    assert_eq!(agents[1]["owners"], json!(["alice@example.com"]));
    let reviewers = site.get("/reviewers", "bob");
    assert_eq!(reviewers.body[1]["also"], json!(["robert@corp.example"]));
    assert!(!reviewers.text.contains("csr_") && !reviewers.text.contains("sha256"), "{}", reviewers.text);
    let policies = site.get("/policies", "bob").body;
    assert_eq!(policies["set"]["rules"].as_array().unwrap().len(), 3);
}

#[test]
fn the_ledger_is_searched_read_and_proved() {
    let folder = tempfile::tempdir().unwrap();
    let (site, ledger) = Site::with_ledger(folder.path());
    let (request, session) = scenes::record_sample_entries(&site, &ledger);
    let search = |query: &str| -> Vec<Value> {
        let mut found = Vec::new();
        // The index follows the ledger a moment behind.
        for _ in 0..50 {
            found = site.get(&format!("/ledger/entries?{query}"), "carol").body["entries"]
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
    assert_eq!(site.get("/ledger/entries?before=soon", "carol").status, 400);

    // A page at a time, nothing twice and nothing left out.
    let mut seqs = Vec::new();
    let mut next = String::new();
    loop {
        let page = site.get(&format!("/ledger/entries?agent=reporting-bot&limit=2{next}"), "carol").body;
        seqs.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    assert!(seqs.is_sorted_by(|a, b| a > b) && seqs.len() >= 9, "{seqs:?}");

    let statement = of_request[1]["seq"].as_u64().unwrap();
    let entry = site.get(&format!("/ledger/entries/{statement}"), "carol").body;
    assert_eq!(entry["kind"], "statement");
    let text = |name: &str| {
        let texts = entry["texts"].as_array().unwrap();
        texts.iter().find(|text| text["name"] == name).unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert!(text("sql").starts_with("COPY (\n    SELECT c.id"));
    let proof = site.get(&format!("/ledger/entries/{statement}/proof"), "carol").body;
    let parsed = countersign::ledger::proof::Proof::parse(proof["text"].as_str().unwrap()).unwrap();
    let key = countersign::ledger::key::KeyFiles::beside(&folder.path().join("ledger.db")).public;
    let key = countersign::ledger::key::PublicRoot::load(&key).unwrap();
    assert_eq!(parsed.verify(&key).unwrap().root.to_string(), proof["root"].as_str().unwrap());
    assert_eq!(hex::encode(&parsed.body), entry["body"].as_str().unwrap());

    let bearer = bearer(&site.secrets["carol"]);
    let asked = client().get(site.at(&format!("/api/v1/ledger/entries/{statement}/proof")));
    let mut plain = asked.header("authorization", bearer).header("accept", "text/plain").call().unwrap();
    assert!(plain.body_mut().read_to_string().unwrap().starts_with("c2sp.org/tlog-proof@v1\n"));

    assert_eq!(site.get("/ledger/entries/999999", "carol").status, 404);
    assert_eq!(site.get("/ledger/entries/999999/proof", "carol").status, 404);
    assert_eq!(site.get("/ledger/entries/first", "carol").status, 400);
    let status = site.get("/ledger", "carol").body;
    assert_eq!(
        (&status["writable"], &status["origin"]),
        (&json!(true), &json!("countersign.example.com/production"))
    );
    assert_eq!(client().get(site.at("/healthz")).call().unwrap().status(), 200);
    ledger.close();
}
