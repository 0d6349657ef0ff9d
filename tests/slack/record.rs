//! P4 and P7: what came through Slack, and what was turned away there, is in a ledger that verifies.

use countersign::approval::Withdrawal;
use countersign::desk::Ending;
use countersign::ledger::key::{KeyFiles, RootKey};
use countersign::ledger::verify::{Options, Progress, verify};
use countersign::ledger::{Ledger, SessionInfo, Settings};

use crate::fake::FakeSlack;
use crate::fixture::{ALICE, BOB, MALLORY, OLGA, SAM, SlackFixture, draft, outcome, two_groups};
use crate::{APPROVE, DENY};

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_refusals_are_entries_of_a_ledger_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    RootKey::generate("example.org/slack").unwrap().save(&KeyFiles::beside(&path)).unwrap();
    let ledger = Ledger::open(&Settings::new(&path)).unwrap();
    let fixture = SlackFixture::open_beside(Some(ledger.clone()), FakeSlack::start(), |_| {});
    fixture.fake.until_sockets(2).await;
    fixture.until_connected().await;
    let mut sessions = Vec::new();
    let mut open = |sql: &str| {
        let asked = draft(sql, two_groups());
        let info = SessionInfo {
            session: asked.session,
            identity: asked.identity.clone(),
            target: asked.target.clone(),
            claimed: asked.claimed.clone(),
            at: fixture.desk.now(),
        };
        sessions.push(ledger.session_opened(&info).unwrap());
        fixture.desk.open(asked).unwrap()
    };
    let approved = open("COPY customers TO STDOUT");
    let denied = open("COPY salaries TO STDOUT");
    let mut cards = fixture.fake.until(|fake| Some(fake.cards()).filter(|cards| cards.len() == 2)).await;
    // They are posted side by side.
    cards.sort_by_key(|card| card.says().contains("salaries"));

    for user in [MALLORY, OLGA, ALICE] {
        fixture.fake.click(user, &cards[0], APPROVE).await;
        fixture.fake.told(user, "your answer does not count").await;
    }
    for user in [BOB, SAM] {
        fixture.fake.click(user, &cards[0], APPROVE).await;
    }
    fixture.fake.click(BOB, &cards[1], DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, Some("not those")).await;
    let Ending::Granted(grant) = outcome(approved.ending).await else { panic!("not granted") };
    assert!(matches!(outcome(denied.ending).await, Ending::Denied { .. }));
    // Its session goes away before it uses the grant.
    drop(grant);
    fixture.desk.withdraw(approved.request.id, Withdrawal::SessionGone);
    assert_eq!(fixture.recorded.reviews().len(), 6);
    for session in &sessions {
        session.closed("the agent left");
    }
    drop((sessions, fixture));
    ledger.close();

    let options = Options { path, key: None, anchors: Vec::new() };
    let report = verify(&options, &Progress::default()).unwrap();
    assert!(report.problem.is_none(), "{:?}", report.problem);
    assert!(report.counts.entries > 14, "{:?}", report.counts);
}
