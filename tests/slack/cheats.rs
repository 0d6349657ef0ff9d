//! People who should not, and clicks that are not what they seem. Each is told, written down, and
//! nothing happens to the request.

use std::sync::Arc;
use std::time::Duration;

use countersign::channel::Channel as _;
use countersign::desk::Ending;
use countersign::identity::Directory;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fake::people::Submit;
use crate::fake::{Click, FakeSlack, Message, TEAM, User};
use crate::fixture::{ALICE, BOB, MALLORY, OLGA, SlackFixture, draft, outcome, terms};
use crate::{APPROVE, DENY};

const SQL: &str = "COPY customers TO STDOUT";
const GUEST: &str = "U0GUEST001";
const ROBOT: &str = "U0ROBOT001";
const ABROAD: &str = "U0ABROAD01";

/// A request that waits, and its card.
struct Scene {
    fixture: SlackFixture,
    card: Message,
    ending: oneshot::Receiver<Ending>,
    code: String,
}

async fn scene() -> Scene {
    Scene::in_office(SlackFixture::open().await).await
}

impl Scene {
    async fn in_office(fixture: SlackFixture) -> Self {
        let opened = fixture.hold(SQL);
        let card = fixture.fake.first_card().await;
        Self { card, ending: opened.ending, code: opened.request.id.code(), fixture }
    }

    fn click(&self, user: &str) -> Click {
        Click::on(&self.fixture.fake, user, &self.card, APPROVE)
    }

    /// Sends a click that must not count: whoever sent it is told `words`, and it is written down as
    /// an answer of `recorded_as`.
    async fn refused(&mut self, user: &str, click: Click, words: &str, recorded_as: &str) {
        let before = self.fixture.fake.whispers(user).len();
        assert!(self.fixture.fake.send(click).await.came());

        let told = self.fixture.fake.until(|fake| fake.whispers(user).into_iter().nth(before)).await;
        assert!(told.contains(words) && told.contains(&self.code), "{told}");
        let as_written = |(who, why): &(String, String)| who == recorded_as && why.contains(words);
        self.fixture.fake.until(|_| self.fixture.recorded.refused().into_iter().find(as_written)).await;
        self.nothing_happened();
    }

    fn nothing_happened(&mut self) {
        assert!(self.ending.try_recv().is_err(), "the request was answered");
        let counted =
            self.fixture.recorded.reviews().into_iter().filter(|review| review.not_counted.is_none());
        assert_eq!(counted.count(), 0);
    }

    /// The request can still be approved by whoever may.
    async fn still_works(self) {
        self.fixture.fake.click(BOB, &self.card, APPROVE).await;
        assert!(matches!(outcome(self.ending).await, Ending::Granted(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_of_another_group_is_refused() {
    let mut scene = scene().await;
    let click = scene.click(OLGA);

    scene.refused(OLGA, click, "in none of the groups that are asked: dba", "olga@example.com").await;

    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_refused() {
    let mut scene = scene().await;
    let click = scene.click(ALICE);

    scene.refused(ALICE, click, "an owner of the agent", "alice@example.com").await;

    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_is_not_enrolled_is_refused_and_recorded_as_the_account_it_is() {
    let mut scene = scene().await;
    let click = scene.click(MALLORY);
    let recorded = format!("slack:{TEAM}/{MALLORY}");

    scene.refused(MALLORY, click, "not that of an enrolled reviewer", &recorded).await;

    scene.still_works().await;
}

/// A reviewer whose account turns out not to be a full member's. Enrolled, so that it is Slack's word
/// that keeps them out.
async fn enrolled_but(name: &str, value: Value, words: &str) {
    let fake = FakeSlack::start();
    let bob = User::member(BOB).with(name, value);
    let home = bob.home();
    fake.world().add_user(bob);
    let mut scene = Scene::in_office(SlackFixture::open_with(fake, |_| {}).await).await;
    let click = scene.click(BOB);

    let recorded = if home == TEAM { "bob@example.com".to_owned() } else { format!("slack:{home}/{BOB}") };
    scene.refused(BOB, click, words, &recorded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_refused_even_if_it_is_enrolled() {
    enrolled_but("is_bot", json!(true), "bot cannot answer requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_refused_even_if_enrolled() {
    enrolled_but("is_restricted", json!(true), "guest of the workspace cannot answer").await;
    enrolled_but("is_ultra_restricted", json!(true), "guest of the workspace cannot answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_from_another_workspace_is_refused_even_with_an_enrolled_id() {
    enrolled_but("team_id", json!("T0ELSEWHERE"), "from another workspace").await;
    enrolled_but("is_stranger", json!(true), "from another workspace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_account_is_refused() {
    enrolled_but("deleted", json!(true), "account is deactivated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_slack_does_not_vouch_for_is_refused() {
    enrolled_but("is_restricted", json!(null), "Slack does not say whether the account").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_not_enrolled_are_refused_whatever_they_are() {
    let mut scene = scene().await;
    let world = scene.fixture.fake.world().clone();
    world.add_user(User::member(ROBOT).with("is_bot", json!(true)));
    world.add_user(User::member(GUEST).with("is_restricted", json!(true)));
    for user in [ROBOT, GUEST] {
        let click = scene.click(user);
        let recorded = format!("slack:{TEAM}/{user}");
        scene.refused(user, click, "not that of an enrolled reviewer", &recorded).await;
    }

    world.add_user(User::member(ABROAD).with("team_id", json!("T0ELSEWHERE")));
    let click = scene.click(ABROAD);
    let recorded = format!("slack:T0ELSEWHERE/{ABROAD}");
    scene.refused(ABROAD, click, "from another workspace", &recorded).await;
    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_refusal_does_not_fill_the_ledger() {
    let mut scene = scene().await;
    for _ in 0..20 {
        let click = scene.click(MALLORY);
        assert!(scene.fixture.fake.send(click).await.came());
    }
    scene.fixture.fake.until(|fake| (fake.whispers(MALLORY).len() == 20).then_some(())).await;

    assert_eq!(scene.fixture.recorded.refused().len(), 1);
    scene.nothing_happened();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_in_a_shared_channel_is_refused_and_no_card_is_shown_there() {
    let mut scene = scene().await;
    scene.fixture.fake.world().set_channel("is_ext_shared", json!(true));
    let error = "the channel is shared with others";
    scene
        .fixture
        .fake
        .until(|_| scene.fixture.slack.status().last_error.filter(|last| last.error == error))
        .await;
    let click = scene.click(BOB);

    scene.refused(BOB, click, "channel is shared with others", "bob@example.com").await;
    let opened = scene.fixture.desk.open(draft("COPY salaries TO STDOUT", terms())).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.fixture.fake.cards().len(), 1);
    let status = scene.fixture.slack.status();
    assert!(!status.connected && status.queued == 1, "{status:?}");

    scene.fixture.fake.world().set_channel("is_ext_shared", json!(false));
    scene.fixture.fake.until(|fake| (fake.cards().len() == 2).then_some(())).await;
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_value_is_refused() {
    let mut scene = scene().await;
    let real = scene.card.button(APPROVE).unwrap().0["value"].as_str().unwrap().to_owned();
    let (id, _) = real.split_once('.').unwrap();
    let words = "hat the button carried is not what the card carries";
    for forged in ["", "x", id, &format!("{id}."), &format!("{id}.{}", "0".repeat(32))] {
        let click = scene.click(BOB).forged("/actions/0/value", json!(forged));
        scene.refused(BOB, click, words, "bob@example.com").await;
    }

    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_of_one_card_does_not_work_on_another() {
    let mut scene = scene().await;
    let other = scene.fixture.desk.open(draft("COPY salaries TO STDOUT", terms())).unwrap();
    let cards = scene.fixture.fake.until(|fake| Some(fake.cards()).filter(|cards| cards.len() == 2)).await;
    let (button, block) = scene.card.button(APPROVE).unwrap();

    // The first card's button, said to be pressed on the second card.
    let click = Click::raw(&scene.fixture.fake, BOB, &cards[1], &button, &block);
    scene.refused(BOB, click, "from another message than the card", "bob@example.com").await;

    assert!(scene.fixture.desk.request(&other.request.id.code()).unwrap().reviews.is_empty());
    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_from_another_message_or_channel_is_refused() {
    let mut scene = scene().await;
    let elsewhere = FakeSlack::elsewhere(&scene.card, "1767607200.999999");
    let click = Click::on(&scene.fixture.fake, BOB, &elsewhere, APPROVE);
    scene.refused(BOB, click, "from another message than the card", "bob@example.com").await;

    // Nobody can be told in a channel that the app is not in.
    let abroad = Message { channel: "C0ELSEWHERE".to_owned(), ..scene.card.clone() };
    let click = Click::on(&scene.fixture.fake, BOB, &abroad, APPROVE);
    assert!(scene.fixture.fake.send(click).await.came());
    let abroad = |(_, why): &(String, String)| why.contains("another channel");
    let refused =
        scene.fixture.fake.until(|_| scene.fixture.recorded.refused().into_iter().find(abroad)).await;
    assert_eq!(refused.0, "bob@example.com");

    scene.nothing_happened();
    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_block_action_app_or_team_is_refused() {
    let mut scene = scene().await;
    for (pointer, value, words) in [
        ("/actions/0/block_id", json!("other"), "the card has no such button"),
        ("/actions/0/action_id", json!("countersign.grant"), "the card has no such button"),
        ("/actions/0/action_id", json!("countersign.escalate"), "the card does not offer this answer"),
        ("/api_app_id", json!("A0OTHER001"), "the click was for another app"),
        ("/team/id", json!("T0ELSEWHERE"), "from another workspace"),
        ("/is_enterprise_install", json!(true), "whole organisation"),
    ] {
        let click = scene.click(BOB).forged(pointer, value);
        let words = words.trim_start_matches("the ");
        scene.refused(BOB, click, words, "bob@example.com").await;
    }

    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_that_contradicts_itself_is_not_even_acknowledged() {
    let mut scene = scene().await;
    let fake = &scene.fixture.fake;
    let action = json!({"action_id": APPROVE, "block_id": "countersign", "value": "x"});
    let forgeries = [
        ("/container/channel_id", json!("C0ELSEWHERE")),
        ("/container/message_ts", json!("1.1")),
        ("/container/is_ephemeral", json!(true)),
        ("/container/type", json!("view")),
        ("/message/ts", json!("1.1")),
        ("/user/team_id", json!(null)),
        ("/team", json!(null)),
        ("/actions", json!([action, action])),
        ("/actions", json!([])),
    ];
    let click =
        |(pointer, value): (&str, Value)| Click::on(fake, BOB, &scene.card, APPROVE).forged(pointer, value);
    let acks =
        futures_util::future::join_all(forgeries.into_iter().map(|forged| fake.send(click(forged)))).await;

    assert!(acks.iter().all(|ack| !ack.came()), "{acks:?}");
    scene.nothing_happened();
    scene.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_can_be_submitted_only_by_the_one_who_was_asked_and_once() {
    let mut scene = scene().await;
    scene.fixture.fake.click(BOB, &scene.card, DENY).await;
    scene.fixture.fake.dialog(BOB).await;
    let fake = &scene.fixture.fake;
    let honest = Submit::of(fake, BOB, Some("no"));
    let words = "dialog is not one that was opened for you";
    let told = |times: usize| {
        move |fake: &FakeSlack| {
            let told = fake.whispers(BOB).into_iter().filter(|whisper| whisper.contains(words));
            (told.count() == times).then_some(())
        }
    };

    for (pointer, value) in [
        ("/user/id", json!(OLGA)),
        ("/view/private_metadata", json!("00000000000000000000000000000000")),
        ("/view/callback_id", json!("other")),
    ] {
        let trigger = json!(format!("{}", fake.world().number()));
        let forged = honest.clone().forged(pointer, value).forged("/trigger_id", trigger);
        assert!(fake.send_submission(forged).await.came());
    }
    fake.told(OLGA, words).await;
    fake.until(told(2)).await;
    scene.nothing_happened();

    let fake = &scene.fixture.fake;
    fake.send_submission(honest.clone()).await;
    assert!(matches!(outcome(&mut scene.ending).await, Ending::Denied { .. }));
    fake.send_submission(honest.forged("/trigger_id", json!("another"))).await;
    fake.until(told(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_lost_their_role_after_the_dialog_opened_is_refused() {
    let mut scene = scene().await;
    scene.fixture.fake.click(BOB, &scene.card, DENY).await;
    scene.fixture.fake.dialog(BOB).await;
    scene.fixture.directory.store(Arc::new(Directory::new(Vec::new(), Vec::new(), [7; 32]).unwrap()));

    scene.fixture.fake.submit(BOB, Some("no")).await;

    scene.fixture.fake.told(BOB, "account is not that of an enrolled reviewer").await;
    scene.nothing_happened();
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_that_are_not_for_us_are_acknowledged_and_forgotten() {
    let scene = scene().await;
    let fake = &scene.fixture.fake;
    for mut frame in [
        json!({"type": "slash_commands", "payload": {"command": "/approve"}}),
        json!({"type": "events_api", "payload": {"event": {"type": "message"}}, "retry_attempt": 1}),
        json!({"type": "interactive", "payload": {"type": "shortcut", "callback_id": "x"}}),
        json!({"type": "something_new", "payload": 7}),
    ] {
        let envelope = format!("other-{}", fake.world().number());
        frame["envelope_id"] = json!(envelope);
        assert!(fake.deliver_frame(&envelope, &frame, 1).await.came(), "{frame}");
    }

    scene.still_works().await;
}
