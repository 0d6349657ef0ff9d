//! What happens when people press the buttons they should.

use std::time::Duration;

use countersign::approval::Withdrawal;
use countersign::desk::Ending;
use countersign::policy::Terms;
use countersign::statement::{Ending as StatementEnding, Outcome};

use crate::fake::{Click, Failure};
use crate::fixture::{
    ALICE, BOB, DORA, OLGA, SAM, SlackFixture, draft, outcome, terms, two_groups, with_escalation,
};
use crate::{APPROVE, DENY, ESCALATE, OPEN};

const SQL: &str = "COPY customers TO STDOUT";

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_lets_the_statement_run_and_the_card_says_so() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    assert_eq!(card.buttons(), [APPROVE, DENY, OPEN]);

    let ack = fixture.fake.click(BOB, &card, APPROVE).await;

    let Ending::Granted(grant) = outcome(opened.ending).await else { panic!("not granted") };
    assert!(ack.came());
    assert_eq!(grant.request(), opened.request.id);
    let card = fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| !card.buttons().contains(&APPROVE.to_owned())))
        .await;
    assert_eq!(card.buttons(), [OPEN]);
    assert!(card.says().contains("was approved"), "{}", card.says());
    assert!(card.says().contains("bob@example.com approved at"), "{}", card.says());
    assert!(card.says().contains(SQL), "the statement stays on the card");
    assert_eq!(fixture.recorded.refused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_follows_in_the_thread() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.click(BOB, &card, APPROVE).await;
    let Ending::Granted(_grant) = outcome(opened.ending).await else { panic!("not granted") };

    let outcome = Outcome {
        ending: StatementEnding::Completed { tag: "COPY 120".into() },
        rows: 120,
        bytes: 4321,
        transaction: None,
        result_digest: None,
    };
    fixture.desk.ran(opened.request.id, &outcome, Duration::from_millis(35));

    let receipt = fixture.fake.until(|fake| fake.thread(&card.ts).into_iter().next()).await;
    assert!(receipt.says().contains("ran: COPY 120"), "{}", receipt.says());
    assert!(receipt.says().contains("120 rows, 4321 bytes, 35 ms"), "{}", receipt.says());
    let says = fixture
        .fake
        .until(|fake| fake.cards().first().map(|card| card.says()).filter(|says| says.contains("and ran")))
        .await;
    assert!(says.contains(SQL));
    assert_eq!(fixture.fake.cards().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_carries_its_reason_to_the_agent() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;

    fixture.fake.click(BOB, &card, DENY).await;
    let view = fixture.fake.dialog(BOB).await;
    let ack = fixture.fake.submit(BOB, Some("use the anonymised copy")).await;

    let Ending::Denied { by, message } = outcome(opened.ending).await else { panic!("not denied") };
    assert!(ack.came());
    assert_eq!(view["title"]["text"], format!("Deny {}", opened.request.id.code()));
    assert_eq!(by.as_str(), "bob@example.com");
    assert_eq!(message.as_deref(), Some("use the anonymised copy"));
    let says = fixture
        .fake
        .until(|fake| fake.cards().first().map(|card| card.says()).filter(|says| says.contains("was denied")))
        .await;
    assert!(says.contains("use the anonymised copy"), "{says}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_needs_no_reason_unless_the_rule_wants_one() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;

    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, None).await;

    let Ending::Denied { message, .. } = outcome(opened.ending).await else { panic!("not denied") };
    assert_eq!(message, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_reason_is_asked_for_before_an_approval_counts() {
    let fixture = SlackFixture::open().await;
    let mut opened = fixture.hold_on(SQL, Terms { reason_required: true, ..terms() });
    let card = fixture.fake.first_card().await;

    fixture.fake.click(BOB, &card, APPROVE).await;
    let view = fixture.fake.dialog(BOB).await;
    let input = view["blocks"].as_array().unwrap().last().unwrap();
    assert_eq!(input["optional"], false);
    assert!(opened.ending.try_recv().is_err(), "nothing was decided by opening the dialog");

    // Slack takes blanks for a reason; we do not.
    fixture.fake.submit(BOB, Some("   ")).await;
    fixture.fake.told(BOB, "needs a reason").await;
    fixture.fake.click(BOB, &card, APPROVE).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, Some("ticket 4711")).await;

    let Ending::Granted(grant) = outcome(opened.ending).await else { panic!("not granted") };
    assert_eq!(grant.approvals()[0].reason.as_deref(), Some("ticket 4711"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_have_to_agree_and_the_card_says_who_is_missing() {
    let fixture = SlackFixture::open().await;
    let mut opened = fixture.hold_on(SQL, two_groups());
    let card = fixture.fake.first_card().await;
    assert!(card.says().contains("Waiting for 1 of dba and 1 of security"), "{}", card.says());

    fixture.fake.click(BOB, &card, APPROVE).await;
    let card = fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| card.says().contains("Waiting for 1 of security")))
        .await;
    assert!(card.says().contains("bob@example.com approved"), "{}", card.says());
    assert!(opened.ending.try_recv().is_err());
    // A second voice of the same group is no help, and the same voice again is none at all.
    fixture.fake.click(BOB, &card, APPROVE).await;
    fixture.fake.told(BOB, "You have answered already").await;
    fixture.fake.click(DORA, &card, APPROVE).await;
    assert!(opened.ending.try_recv().is_err());

    fixture.fake.click(SAM, &card, APPROVE).await;

    let Ending::Granted(grant) = outcome(opened.ending).await else { panic!("not granted") };
    assert!(grant.approvals().iter().any(|review| review.reviewer.as_str() == "sam@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escalation_tells_the_next_group_and_lets_nobody_of_it_approve_before_its_time() {
    let fixture = SlackFixture::open().await;
    let mut opened = fixture.hold_on(SQL, with_escalation());
    let card = fixture.fake.first_card().await;
    assert_eq!(card.buttons(), [APPROVE, DENY, ESCALATE, OPEN]);
    // Not yet asked.
    fixture.fake.click(OLGA, &card, APPROVE).await;
    fixture.fake.told(OLGA, "You stand in for others, and may approve this from").await;

    fixture.fake.click(BOB, &card, ESCALATE).await;
    let card = fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| !card.buttons().contains(&ESCALATE.to_owned())))
        .await;
    assert!(card.says().contains("bob@example.com escalated"), "{}", card.says());
    fixture.fake.click(OLGA, &card, APPROVE).await;
    fixture.fake.told(OLGA, "You stand in for others, and may approve this from").await;
    assert!(opened.ending.try_recv().is_err());

    fixture.fake.click(BOB, &card, APPROVE).await;

    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_may_stop_their_agent_and_not_approve_for_it() {
    let fixture = SlackFixture::open().await;
    let mut opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;

    fixture.fake.click(ALICE, &card, APPROVE).await;
    let told = fixture.fake.told(ALICE, "owner of the agent").await;
    assert!(told.contains(&opened.request.id.code()), "{told}");
    assert!(opened.ending.try_recv().is_err());
    let refused = fixture.recorded.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, "alice@example.com");

    fixture.fake.click(ALICE, &card, DENY).await;
    fixture.fake.dialog(ALICE).await;
    fixture.fake.submit(ALICE, Some("my mistake")).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Denied { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_counts_once_and_is_told_so() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    let click = Click::on(&fixture.fake, BOB, &card, APPROVE);
    let second = Click::on(&fixture.fake, BOB, &card, APPROVE);

    let (one, two) = tokio::join!(fixture.fake.send(click), fixture.fake.send(second));

    assert!(one.came() && two.came());
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
    fixture.fake.told(BOB, "has been approved already").await;
    let counted = fixture.recorded.reviews().into_iter().filter(|review| review.not_counted.is_none());
    assert_eq!(counted.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_slack_repeats_is_one_click() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold_on(SQL, two_groups());
    let card = fixture.fake.first_card().await;

    // The same envelope over both sockets, and the same click in another envelope.
    let twice = Click::on(&fixture.fake, BOB, &card, APPROVE).twice().repeated();
    assert!(fixture.fake.send(twice).await.came(), "every copy is acknowledged");
    fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| card.says().contains("Waiting for 1 of security")))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    assert_eq!(fixture.fake.whispers(BOB), Vec::<String>::new());
    assert_eq!(fixture.recorded.reviews().len(), 1);
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_click_is_told_what_happened() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, None).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Denied { .. }));

    // Dora's screen still shows the buttons.
    fixture.fake.click(DORA, &card, APPROVE).await;
    fixture.fake.told(DORA, "has been denied already, by bob@example.com").await;
    fixture.fake.click(DORA, &card, DENY).await;
    let told = fixture.fake.until(|fake| fake.whispers(DORA).into_iter().nth(1)).await;
    assert!(told.contains("has been denied already"), "no dialog is opened for nothing: {told}");
    assert_eq!(fixture.fake.world().dialog(DORA).map(|dialog| dialog.id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_after_the_agent_left_does_nothing_and_says_so() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);

    fixture.fake.click(BOB, &card, APPROVE).await;

    fixture.fake.told(BOB, "was withdrawn: the agent cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_that_opens_too_late_is_told_and_can_be_asked_for_again() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;

    fixture.fake.world().with(|state| state.trigger_life = Some(Duration::ZERO));
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.told(BOB, "Slack did not open the dialog in time").await;
    fixture.fake.world().with(|state| state.trigger_life = None);
    // No answer at all: nobody is kept waiting longer than Slack would keep the ticket.
    fixture.fake.world().fail("views.open", &Failure::Silence, 1);
    let asked = std::time::Instant::now();
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.until(|fake| fake.whispers(BOB).into_iter().nth(1)).await;
    assert!(asked.elapsed() < Duration::from_secs(3));

    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, Some("no")).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Denied { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_that_opened_though_slack_never_said_so_can_be_submitted() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.world().fail("views.open", &Failure::LostAnswer, 1);

    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.told(BOB, "Slack did not open the dialog in time").await;
    fixture.fake.submit(BOB, Some("but it did")).await;

    let Ending::Denied { message, .. } = outcome(opened.ending).await else { panic!("not denied") };
    assert_eq!(message.as_deref(), Some("but it did"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_a_reason_for_an_approval_that_is_not_theirs_to_give() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold_on(SQL, Terms { reason_required: true, ..terms() });
    let card = fixture.fake.first_card().await;

    fixture.fake.click(OLGA, &card, APPROVE).await;
    fixture.fake.click(ALICE, &card, APPROVE).await;

    fixture.fake.told(OLGA, "in none of the groups that are asked").await;
    fixture.fake.told(ALICE, "owner of the agent").await;
    assert!(fixture.fake.calls("views.open").is_empty());
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_submitted_after_the_request_ended_is_told_so() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.click(DORA, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));

    fixture.fake.submit(BOB, Some("no")).await;

    fixture.fake.told(BOB, "Too late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_faster_than_slacks_own_answer_counts() {
    let fixture = SlackFixture::open().await;
    // Slack posts the card, and its answer is lost; so Bob sees a card that we know nothing of yet.
    fixture.fake.world().fail("chat.postMessage", &Failure::LostAnswer, 1);
    let opened = fixture.hold(SQL);
    let first = fixture.fake.first_card().await;
    let ack = tokio::spawn({
        let click = Click::on(&fixture.fake, BOB, &first, APPROVE);
        async move { click }
    });
    let click = ack.await.unwrap();
    assert!(fixture.fake.send(click).await.came());

    // The post is repeated. The copy says that it is one, and the other card can be answered.
    fixture.fake.told(BOB, "this card is a copy").await;
    let cards = fixture.fake.until(|fake| Some(fake.cards()).filter(|cards| cards.len() == 2)).await;
    fixture
        .fake
        .until(|fake| fake.world().message(&first.ts).filter(|card| card.buttons().is_empty()).map(|_| ()))
        .await;
    fixture.fake.click(BOB, &cards[1], APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_requests_share_a_card_one_after_the_other() {
    let fixture = SlackFixture::open().await;
    let first = fixture.hold(SQL);
    fixture.fake.first_card().await;
    let second = fixture.hold(SQL);

    let card = fixture
        .fake
        .until(|fake| {
            fake.cards().into_iter().find(|card| card.says().contains("1 identical requests wait behind"))
        })
        .await;
    assert_eq!(fixture.fake.cards().len(), 1);
    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(first.ending).await, Ending::Granted(_)));
    let cards = fixture.fake.until(|fake| Some(fake.cards()).filter(|cards| cards.len() == 2)).await;
    fixture.fake.click(DORA, &cards[1], APPROVE).await;
    assert!(matches!(outcome(second.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_waits_for_can_be_taken_back_until_it_is_used() {
    let fixture = SlackFixture::open().await;
    let asked = draft(SQL, Terms { defer: true, ..terms() });
    let seal = asked.seal.clone();
    let opened = fixture.desk.open(asked).unwrap();
    let card = fixture.fake.first_card().await;
    fixture.fake.click(BOB, &card, APPROVE).await;
    let card =
        fixture.fake.until(|fake| fake.cards().into_iter().find(|card| card.buttons() == [DENY, OPEN])).await;
    assert_eq!(card.button(DENY).unwrap().0["text"]["text"], "Take back");
    // A screen that is behind is told what happened, not that there is no such button.
    let late = Click::on(&fixture.fake, DORA, &card, DENY)
        .forged("/actions/0/action_id", serde_json::Value::from(APPROVE));
    fixture.fake.send(late).await;
    fixture.fake.told(DORA, "has been approved already, by bob@example.com").await;

    fixture.fake.click(DORA, &card, DENY).await;
    fixture.fake.dialog(DORA).await;
    fixture.fake.submit(DORA, Some("on second thoughts")).await;

    fixture.fake.until(|fake| (fake.world().message(&card.ts)?.buttons() == [OPEN]).then_some(())).await;
    assert_eq!(fixture.desk.request(&opened.request.id.code()).unwrap().state.as_str(), "withdrawn");
    assert!(!matches!(fixture.desk.claim(&seal), countersign::desk::Claim::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_needs_more_than_a_click_offers_no_approval() {
    let fixture = SlackFixture::open().await;
    let terms = Terms { assurance: countersign::actor::Assurance::Login, ..terms() };
    let opened = fixture.desk.open(draft(SQL, terms)).unwrap();

    let card = fixture.fake.first_card().await;

    assert_eq!(card.buttons(), [DENY, OPEN]);
    assert!(card.says().contains("It needs a login to be approved"), "{}", card.says());
    drop(opened);
}
