//! Forged, expired, replayed and misplaced proofs.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::account::{ChatAccount, ChatAccounts};
use super::link::SignInLinks;
use super::reviewer::PersonalTokens;
use super::secret::SecretHash;
use super::session::{ConsoleSessions, Lifetimes, SessionProof, SessionSecrets, SignedInWith};
use super::*;
use crate::actor::Assurance;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_607_200 + seconds).unwrap()
}

fn entry(id: &str, token: &str) -> ReviewerEntry {
    ReviewerEntry {
        reviewer: Arc::new(Reviewer { id: id.into(), also: Vec::new(), groups: vec!["dba".into()] }),
        tokens: vec![SecretHash::of(token)],
        accounts: vec![ChatAccount {
            channel: ChannelName::Slack,
            team: "T1".into(),
            user: format!("U-{id}"),
        }],
    }
}

fn directory_of(people: Vec<ReviewerEntry>, secret: u8) -> Directory {
    let agent = Agent { name: "bot".into(), owners: vec!["alice".into()], upstreams: Vec::new() };
    let verifier = ScramVerifier::of_password("csr_shared");
    Directory::new(vec![AgentEntry::with_password(agent, verifier)], people, [secret; 32]).unwrap()
}

fn directory() -> Directory {
    directory_of(vec![entry("bob", "csr_bob"), entry("carol", "csr_carol")], 7)
}

#[test]
fn a_token_is_its_owners_and_nobody_elses() {
    let directory = directory();
    let recognise = |token: &str| PersonalTokens.recognise(&directory, token, at(0));

    let carol = recognise("csr_carol").unwrap();
    assert_eq!((carol.reviewer().id.as_str(), carol.assurance()), ("carol", Assurance::Click));
    assert_eq!(recognise("csr_carol ").unwrap_err(), NotRecognised::Unknown);
    assert_eq!(recognise("CSR_carol").unwrap_err(), NotRecognised::Unknown);
    assert_eq!(recognise(&SecretHash::of("csr_carol").to_string()).unwrap_err(), NotRecognised::Unknown);
}

#[test]
fn p4_a_token_that_is_also_an_agents_password_is_refused() {
    // An operator gave the agent the reviewer's token as its password.
    let directory = directory_of(vec![entry("bob", "csr_shared"), entry("carol", "csr_carol")], 7);

    for _ in 0..2 {
        let result = PersonalTokens.recognise(&directory, "csr_shared", at(0));
        assert_eq!(result.unwrap_err(), NotRecognised::AgentCredential);
    }
    assert!(PersonalTokens.recognise(&directory, "csr_carol", at(0)).is_ok());
}

#[test]
fn p4_an_agents_token_is_told_for_what_it_is() {
    let result = PersonalTokens.recognise(&directory(), "csa_anything", at(0));

    assert_eq!(result.unwrap_err(), NotRecognised::AgentCredential);
}

#[test]
fn a_chat_account_is_its_workspace_and_its_user() {
    let directory = directory();
    let recognise = |team: &str, user: &str| {
        let account = ChatAccount { channel: ChannelName::Slack, team: team.into(), user: user.into() };
        ChatAccounts.recognise(&directory, &account, at(0)).map(|who| who.channel())
    };

    assert_eq!(recognise("T1", "U-bob"), Ok(ChannelName::Slack));
    assert_eq!(recognise("T2", "U-bob"), Err(NotRecognised::NotEnrolled));
    assert_eq!(recognise("T1", "bob"), Err(NotRecognised::NotEnrolled));
    assert_eq!(recognise("", ""), Err(NotRecognised::Unknown));
}

// ---- links ------------------------------------------------------------------------------------

#[test]
fn a_link_signs_in_once() {
    let directory = directory();
    let links = SignInLinks::new(at(0));
    let link = link::issue(&directory, &"bob".into(), at(1));

    let bob = links.recognise(&directory, &link, at(2)).unwrap();
    assert_eq!((bob.reviewer().id.as_str(), bob.assurance()), ("bob", Assurance::Login));
    assert_eq!(links.recognise(&directory, &link, at(3)).unwrap_err(), NotRecognised::Used);
}

#[test]
fn a_link_does_not_outlive_its_minutes_nor_the_server() {
    let directory = directory();
    let link = link::issue(&directory, &"bob".into(), at(0));
    let recognise = |links: &SignInLinks, now| links.recognise(&directory, &link, now).map(|_| ());

    assert_eq!(recognise(&SignInLinks::new(at(0)), at(600)), Err(NotRecognised::Expired));
    assert_eq!(recognise(&SignInLinks::new(at(0)), at(599)), Ok(()));
    // What was used before the restart is forgotten, so nothing from before it is good.
    assert_eq!(recognise(&SignInLinks::new(at(1)), at(2)), Err(NotRecognised::Expired));
    assert_eq!(
        recognise(&SignInLinks::new(at(-60)), at(-30)),
        Err(NotRecognised::Expired),
        "from the future"
    );
}

#[test]
fn a_link_cannot_be_forged_or_changed() {
    let directory = directory();
    let links = SignInLinks::new(at(0));
    let link = link::issue(&directory, &"bob".into(), at(0));
    let elsewhere = link::issue(&directory_of(vec![entry("bob", "csr_bob")], 8), &"bob".into(), at(0));

    assert_eq!(links.recognise(&directory, &elsewhere, at(1)).unwrap_err(), NotRecognised::Unknown);
    for place in 4..link.len() {
        let mut bytes = link.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        // The last character of base64 has bits that mean nothing; the decoder refuses them.
        assert_eq!(
            links.recognise(&directory, &changed, at(1)).unwrap_err(),
            NotRecognised::Unknown,
            "{place}"
        );
    }
    for text in ["", "csl_", "csl_AAAA", &link[4..], &format!("{link}A")] {
        assert_eq!(links.recognise(&directory, text, at(1)).unwrap_err(), NotRecognised::Unknown, "{text}");
    }
}

#[test]
fn a_link_for_somebody_who_is_not_enrolled_is_no_link() {
    let directory = directory();
    let link = link::issue(&directory, &"eve".into(), at(0));

    assert_eq!(
        SignInLinks::new(at(0)).recognise(&directory, &link, at(1)).unwrap_err(),
        NotRecognised::NotEnrolled
    );
}

// ---- sessions ---------------------------------------------------------------------------------

fn signed_in(sessions: &ConsoleSessions, directory: &Directory, now: Timestamp) -> SessionSecrets {
    let link = link::issue(directory, &"bob".into(), now);
    let bob = SignInLinks::new(now).recognise(directory, &link, now).unwrap();
    sessions.open(&bob, SignedInWith::Link, now)
}

#[test]
fn a_session_needs_its_path_and_its_cookie() {
    let directory = directory();
    let sessions = ConsoleSessions::default();
    let (one, other) = (signed_in(&sessions, &directory, at(0)), signed_in(&sessions, &directory, at(0)));
    let shown = |path: &str, cookie: &str| {
        sessions.recognise(&directory, SessionProof { path, cookie }, at(1)).map(|who| who.assurance())
    };

    assert_eq!(shown(&one.path, &one.cookie), Ok(Assurance::Login));
    for (path, cookie) in [
        ("", one.cookie.as_str()),
        (one.path.as_str(), ""),
        (&one.path, &one.path),
        (&one.cookie, &one.path),
        (&one.path, &other.cookie),
        (&other.path, &one.cookie),
    ] {
        assert_eq!(shown(path, cookie), Err(NotRecognised::Unknown));
    }
    // 24 bytes of base64: what nobody guesses.
    assert!(one.path.len() == 32 && one.path != other.path);
}

#[test]
fn a_session_ends_with_the_token_that_opened_it() {
    let before = directory();
    let sessions = ConsoleSessions::default();
    let bob = PersonalTokens.recognise(&before, "csr_bob", at(0)).unwrap();
    let by_token = sessions.open(&bob, SignedInWith::Token(SecretHash::of("csr_bob")), at(0));
    let by_link = signed_in(&sessions, &before, at(0));
    let rotated = directory_of(vec![entry("bob", "csr_new")], 7);

    assert!(sessions.recognise(&before, by_token.proof(), at(1)).is_ok());
    assert!(sessions.recognise(&rotated, by_token.proof(), at(1)).is_err());
    assert!(sessions.recognise(&before, by_token.proof(), at(1)).is_err(), "for good");
    assert!(sessions.recognise(&rotated, by_link.proof(), at(1)).is_ok());
}

#[test]
fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
    let directory = directory();
    let lifetimes = Lifetimes {
        idle: Duration::from_secs(60),
        absolute: Duration::from_secs(150),
        fresh: Duration::from_secs(100),
    };
    let sessions = ConsoleSessions::new(lifetimes);
    let look = |secrets: &SessionSecrets, now| {
        sessions.recognise(&directory, secrets.proof(), at(now)).map(|who| who.assurance())
    };

    let idle = signed_in(&sessions, &directory, at(0));
    assert_eq!(look(&idle, 59), Ok(Assurance::Login));
    assert_eq!(look(&idle, 119), Err(NotRecognised::Expired));
    assert_eq!(look(&idle, 59), Err(NotRecognised::Unknown), "and is gone");

    let used = signed_in(&sessions, &directory, at(0));
    assert_eq!(look(&used, 50), Ok(Assurance::Login));
    assert_eq!(look(&used, 100), Ok(Assurance::Click), "the sign-in is not fresh any more");
    assert_eq!(look(&used, 149), Ok(Assurance::Click));
    assert_eq!(look(&used, 150), Err(NotRecognised::Expired));
}

#[test]
fn a_session_ends_with_its_reviewer() {
    let directory = directory();
    let sessions = ConsoleSessions::default();
    let secret = signed_in(&sessions, &directory, at(0));
    let without_bob = directory_of(vec![entry("carol", "csr_carol")], 7);

    assert_eq!(
        sessions.recognise(&without_bob, secret.proof(), at(1)).unwrap_err(),
        NotRecognised::NotEnrolled
    );
    assert!(sessions.recognise(&directory, secret.proof(), at(1)).is_err(), "for good");
}

#[test]
fn a_session_that_was_signed_out_is_nobodys() {
    let directory = directory();
    let sessions = ConsoleSessions::default();
    let (one, other) = (signed_in(&sessions, &directory, at(0)), signed_in(&sessions, &directory, at(0)));

    sessions.close(one.proof());
    assert!(sessions.recognise(&directory, one.proof(), at(1)).is_err());
    assert!(sessions.recognise(&directory, other.proof(), at(1)).is_ok());
    sessions.close_all_of(&"bob".into());
    assert!(sessions.recognise(&directory, other.proof(), at(1)).is_err());
}

#[test]
fn one_person_does_not_fill_the_memory_with_sessions() {
    let directory = directory();
    let sessions = ConsoleSessions::default();
    let first = signed_in(&sessions, &directory, at(0));
    let last = (1..20).map(|n| signed_in(&sessions, &directory, at(n))).last().unwrap();

    assert!(sessions.recognise(&directory, first.proof(), at(30)).is_err());
    assert!(sessions.recognise(&directory, last.proof(), at(30)).is_ok());
}

#[test]
fn a_proof_of_one_kind_is_no_proof_of_another() {
    let directory = directory();
    let sessions = ConsoleSessions::default();
    let session = signed_in(&sessions, &directory, at(0));
    let link = link::issue(&directory, &"bob".into(), at(0));
    let links = SignInLinks::new(at(0));

    for proof in [session.cookie.as_str(), &session.path, &link] {
        assert!(PersonalTokens.recognise(&directory, proof, at(1)).is_err());
    }
    let token = SessionProof { path: &session.path, cookie: "csr_bob" };
    assert!(sessions.recognise(&directory, token, at(1)).is_err());
    assert!(links.recognise(&directory, "csr_bob", at(1)).is_err());
    assert!(links.recognise(&directory, &session.cookie, at(1)).is_err());
}

#[test]
fn a_known_and_an_unknown_agent_are_answered_alike() {
    let directory = directory();
    let password = |name: &str| match directory.demand(name) {
        Demand { agent, certificate: None, secret: Demanded::Password(verifier) } => (agent, verifier),
        other => panic!("{other:?}"),
    };
    let (known, real) = password("bot");
    let (unknown, mock) = password("ghost");

    assert!(known.is_some() && unknown.is_none());
    assert_eq!((real.iterations, real.salt.len()), (mock.iterations, mock.salt.len()));
    assert_eq!(password("ghost").1, mock);
}
