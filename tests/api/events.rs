//! The event stream.

use super::*;

#[test]
fn events_are_streamed_as_they_happen() {
    let site = Site::open();
    let events = site.listen("/api/v1/events", &bearer(&site.secrets["bob"]));
    let agents = site.listen("/api/v1/events", &basic("migration-agent", &site.secrets["migration-agent"]));
    assert_eq!(events.next().0, "ready");
    assert_eq!(agents.next().0, "ready");

    let opened = site.ask(EXPORT);
    let (kind, told) = events.next();
    assert_eq!((kind.as_str(), &told["request"]["sql"]), ("opened", &json!(EXPORT)));

    let body = json!({"digest": opened.request.digest.to_string(), "reason": "no"});
    site.post(&format!("/requests/{}/deny", opened.request.id), "bob", body);
    assert_eq!(events.next().0, "reviewed");
    let (kind, told) = events.next();
    assert_eq!((kind.as_str(), &told["request"]["state"]), ("ended", &json!("denied")));

    // The other agent gets events of its own requests only.
    let _own = site.ask_as("migration-agent", DDL, |_| {}).unwrap();
    let (kind, told) = agents.next();
    assert_eq!((kind.as_str(), &told["request"]["agent"]), ("opened", &json!("migration-agent")));
}

#[test]
fn streams_end_when_the_server_does() {
    let site = Site::open();
    let events = site.listen("/api/v1/events", &bearer(&site.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    drop(site);

    assert!(events.0.recv_timeout(Duration::from_secs(10)).is_err());
}

#[test]
fn an_event_stream_ends_when_its_reader_is_removed() {
    let agent = |site: &Site| basic("migration-agent", &site.secrets["migration-agent"]);
    let bob = |site: &Site| bearer(&site.secrets["bob"]);
    let is_bob = |entry: &ReviewerEntry| entry.reviewer.id.as_str() == "bob@example.com";
    let is_agent = |entry: &AgentEntry| entry.agent.name.as_str() == "migration-agent";
    type Credentials<'c> = &'c dyn Fn(&Site) -> String;
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
        let site = Site::open();
        let quiet = site.listen("/api/v1/events", &credentials(&site));
        let busy = site.listen("/api/v1/events", &credentials(&site));
        assert_eq!((quiet.next().0, busy.next().0), ("ready".to_owned(), "ready".to_owned()));

        let draft = site.draft("migration-agent", "DROP TABLE salaries", |_| {});

        site.change_people(|agents, reviewers| change(agents, reviewers));
        // The next events do not reach a removed reader, however soon they happen.
        let opened = site.desk.open(draft);
        for stream in [quiet, busy] {
            let heard = stream.0.recv_timeout(Duration::from_secs(10));
            assert_eq!(heard, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "case {number}");
        }
        drop(opened);
    }
}

#[test]
fn a_stream_goes_on_while_other_people_change() {
    let site = Site::open();
    let events = site.listen("/api/v1/events", &bearer(&site.secrets["bob"]));
    assert_eq!(events.next().0, "ready");

    site.change_people(|_, reviewers| reviewers.retain(|one| one.reviewer.id.as_str() != "dave@example.com"));
    std::thread::sleep(Duration::from_secs(3));
    let _opened = site.ask(DDL);

    assert_eq!(events.next().0, "opened");
}
