//! Slack slow, broken, busy, gone, and back; and the proxy restarted meanwhile. Holds stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::approval::Verdict;
use countersign::approval::Withdrawal;
use countersign::channel::{Channel, ChannelName, drain};
use countersign::desk::Ending;
use countersign::statement::SessionEnd;
use serde_json::json;

use crate::fake::world::Order;
use crate::fake::{Click, Failure, FakeSlack};
use crate::fixture::{BOB, DORA, MALLORY, SAM, SlackFixture, draft, outcome, terms, timing, two_groups};
use crate::{APPROVE, DENY, OPEN};

const SQL: &str = "COPY customers TO STDOUT";

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_slack_renews_is_replaced_before_it_goes() {
    let fixture = SlackFixture::open().await;
    let old = fixture.fake.world().socket_ids();
    for socket in &old {
        fixture.fake.world().disconnect(*socket, "warning", false);
    }
    // A third and a fourth open while the first two still listen; then those go.
    fixture
        .fake
        .until(|fake| {
            let now = fake.world().socket_ids();
            (now.len() == 2 && now.iter().all(|socket| !old.contains(socket))).then_some(())
        })
        .await;
    assert!(fixture.slack.status().connected);

    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    assert!(fixture.fake.click(BOB, &card, APPROVE).await.came());
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_come_in_while_one_socket_is_renewed() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold_on(SQL, two_groups());
    let card = fixture.fake.first_card().await;
    let [first, _] = fixture.fake.world().socket_ids()[..] else { panic!("two sockets") };

    fixture.fake.world().disconnect(first, "refresh_requested", true);
    let ack = fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(ack.came());
    fixture.fake.until_sockets(2).await;
    assert!(fixture.fake.click(SAM, &card, APPROVE).await.came());

    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
    assert!(fixture.slack.status().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_break_are_opened_again() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    for _ in 0..3 {
        let old = fixture.fake.world().socket_ids();
        fixture.fake.world().order_all(|| Order::Cut);
        fixture
            .fake
            .until(|fake| {
                let now = fake.world().socket_ids();
                (now.len() == 2 && now.iter().all(|socket| !old.contains(socket))).then_some(())
            })
            .await;
    }
    fixture.until_connected().await;

    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_never_says_hello_is_thrown_away() {
    let fake = FakeSlack::start();
    fake.world().with(|state| state.mute = true);
    let fixture = SlackFixture::open_at_once(fake, |settings| {
        settings.timing.hello = Duration::from_millis(300);
    });
    // It tries again and again, and says what is wrong.
    fixture.fake.until(|fake| fake.calls("apps.connections.open").into_iter().nth(6)).await;
    let error = fixture.fake.until(|_| fixture.slack.status().last_error).await;
    assert_eq!(error.error, "no socket is open");
    assert!(!fixture.slack.status().connected);

    fixture.fake.world().mend();
    fixture.fake.until_sockets(2).await;
    fixture.until_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_which_nothing_moves_any_more_is_found_by_its_pings() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    let old = fixture.fake.world().socket_ids();
    // Both connections stay open, and nothing comes over them: no pong, no click.
    fixture.fake.world().order_all(|| Order::Freeze);

    fixture
        .fake
        .until(|fake| {
            let now = fake.world().socket_ids();
            (now.iter().filter(|socket| !old.contains(socket)).count() == 2).then_some(())
        })
        .await;

    fixture.fake.world().with(|state| state.sockets.retain(|socket, _| !old.contains(socket)));
    assert!(fixture.fake.click(BOB, &card, APPROVE).await.came());
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_slack_wants_fewer_calls_it_gets_fewer_and_the_card_comes_later() {
    let fixture = SlackFixture::open().await;
    fixture.fake.world().fail("chat.postMessage", &Failure::RateLimited { seconds: 1 }, 1);
    let first = fixture.hold(SQL);
    let second = fixture.hold("COPY salaries TO STDOUT");

    fixture.fake.until(|fake| (fake.cards().len() == 2).then_some(())).await;

    let calls = fixture.fake.calls("chat.postMessage");
    let limited = calls.iter().find(|call| call.outcome == "429").unwrap().at;
    let later: Vec<Duration> =
        calls.iter().filter(|call| call.at > limited).map(|call| call.at - limited).collect();
    // Calls that were under way already may arrive; none is begun.
    let begun = later.iter().filter(|after| **after > Duration::from_millis(50));
    assert!(begun.into_iter().all(|after| *after >= Duration::from_millis(950)), "{later:?}");
    assert!(fixture.slack.status().connected, "being asked for patience is no outage");
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn buttons_go_even_while_posting_has_to_wait() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.world().fail("chat.postMessage", &Failure::RateLimited { seconds: 30 }, 1);
    let other = fixture.hold("COPY salaries TO STDOUT");
    fixture.fake.until(|fake| fake.calls("chat.postMessage").into_iter().nth(1)).await;

    fixture.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);

    fixture.fake.until(|fake| (fake.world().message(&card.ts)?.buttons() == [OPEN]).then_some(())).await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_slacks_are_retried_and_the_hold_stands() {
    for failure in [
        Failure::Status(500),
        Failure::Status(503),
        Failure::Says("internal_error"),
        Failure::Silence,
        Failure::Portal,
    ] {
        let fixture = SlackFixture::open().await;
        fixture.fake.world().fail("chat.postMessage", &failure, 3);
        let mut opened = fixture.hold(SQL);

        fixture.fake.until(|_| (!fixture.slack.status().connected).then_some(())).await;
        assert!(opened.ending.try_recv().is_err(), "{failure:?}");
        let card = fixture.fake.first_card().await;
        fixture.until_connected().await;
        assert_eq!(fixture.fake.cards().len(), 1, "{failure:?}");
        fixture.fake.click(BOB, &card, APPROVE).await;
        assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_visible_holds_stand_and_what_is_still_true_is_shown_afterwards() {
    let fixture = SlackFixture::open().await;
    let shown = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.world().go_down();
    fixture.fake.until(|_| (!fixture.slack.status().connected).then_some(())).await;
    let out_since = fixture.slack.status().since;

    // One ends, one comes and goes, one stays.
    fixture.desk.withdraw(shown.request.id, Withdrawal::AgentCancelled);
    let gone = fixture.hold("COPY gone TO STDOUT");
    let stays = fixture.hold("COPY stays TO STDOUT");
    tokio::time::sleep(Duration::from_millis(400)).await;
    fixture.desk.withdraw(gone.request.id, Withdrawal::AgentCancelled);
    let status = fixture.slack.status();
    assert!(!status.connected && status.queued >= 2, "{status:?}");
    assert!(status.last_error.is_some());
    assert!(matches!(outcome(shown.ending).await, Ending::Withdrawn { .. }));

    fixture.fake.world().mend();
    let back = fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| card.says().contains("COPY stays")))
        .await;
    fixture.fake.until(|fake| (fake.world().message(&card.ts)?.buttons() == [OPEN]).then_some(())).await;
    fixture.fake.until_sockets(2).await;
    fixture.until_connected().await;

    let status = fixture.slack.status();
    assert!(status.since > out_since && status.queued == 0, "{status:?}");
    assert!(!fixture.fake.cards().iter().any(|card| card.says().contains("COPY gone")));
    fixture.fake.click(BOB, &back, APPROVE).await;
    assert!(matches!(outcome(stays.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_no_storm_of_calls() {
    let fixture = SlackFixture::open().await;
    fixture.fake.world().fail("chat.postMessage", &Failure::Status(503), 1_000);
    let held: Vec<_> = (0..20).map(|number| fixture.hold(&format!("COPY t{number} TO STDOUT"))).collect();
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    // One at a time tries, at growing intervals up to 200 ms here.
    let calls = fixture.fake.calls("chat.postMessage").len();
    assert!((3..=24).contains(&calls), "{calls}");

    fixture.fake.world().mend();
    fixture.fake.until(|fake| (fake.cards().len() == 20).then_some(())).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_answered_elsewhere_while_slack_is_down() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.world().go_down();
    let by = {
        use countersign::identity::ReviewerIdentity as _;
        use countersign::identity::account::{ChatAccount, ChatAccounts};
        let account = ChatAccount {
            channel: ChannelName::Slack,
            team: crate::fake::TEAM.to_owned(),
            user: DORA.to_owned(),
        };
        ChatAccounts.recognise(&fixture.directory.load(), &account, fixture.desk.now()).unwrap()
    };
    let answer =
        countersign::desk::Answer { by, digest: opened.request.digest, reason: None, displayed_at: None };
    fixture.desk.verdict(opened.request.id, Verdict::Approve, answer).unwrap();
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));

    fixture.fake.world().mend();
    let says = fixture
        .fake
        .until(|fake| {
            fake.world().message(&card.ts).map(|card| card.says()).filter(|says| says.contains("approved"))
        })
        .await;
    assert!(says.contains("dora@example.com approved"), "{says}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_may_be_down_when_the_proxy_starts() {
    let fake = FakeSlack::start();
    fake.world().go_down();
    let fixture = SlackFixture::open_at_once(fake, |_| {});
    let opened = fixture.hold(SQL);
    let error = fixture.fake.until(|_| fixture.slack.status().last_error).await;
    assert_eq!(error.error, "Slack cannot be reached");

    fixture.fake.world().mend();
    let card = fixture.fake.first_card().await;
    fixture.fake.until_sockets(2).await;
    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_tokens_are_said_and_not_hammered() {
    let fixture = SlackFixture::open().await;
    fixture.fake.world().revoke();
    let opened = fixture.hold(SQL);

    let revoked =
        |_: &FakeSlack| fixture.slack.status().last_error.filter(|last| last.error.contains("token_revoked"));
    fixture.fake.until(revoked).await;
    assert!(!fixture.slack.status().connected);
    let before = fixture.fake.calls("chat.postMessage").len();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let after = fixture.fake.calls("chat.postMessage").len();
    assert!(after - before <= 6, "one every 200 ms: {before}, {after}");

    fixture.fake.world().mend();
    fixture.fake.first_card().await;
    fixture.until_connected().await;
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_two_apps_are_found_out() {
    let fake = FakeSlack::start();
    fake.world().with(|state| state.hello_app = Some("A0OTHER001".to_owned()));
    let fixture = SlackFixture::open_at_once(fake, |_| {});

    let error = "the app token and the bot token belong to different apps";
    fixture.fake.until(|_| fixture.slack.status().last_error.filter(|last| last.error == error)).await;

    assert!(!fixture.slack.status().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_not_in_the_channel_is_said_until_it_is() {
    let fake = FakeSlack::start();
    fake.world().set_channel("is_member", json!(false));
    let fixture = SlackFixture::open_at_once(fake, |_| {});
    let opened = fixture.hold(SQL);

    let error = "the app is not a member of the channel";
    fixture.fake.until(|_| fixture.slack.status().last_error.filter(|last| last.error == error)).await;
    assert!(fixture.fake.cards().is_empty());

    fixture.fake.world().set_channel("is_member", json!(true));
    fixture.fake.first_card().await;
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_wide_installation_is_refused() {
    let fake = FakeSlack::start();
    let auth = json!({"team_id": "T0HOME0001", "bot_id": "B0BOT00001", "is_enterprise_install": true});
    fake.world().with(|state| state.auth = Some(auth));
    let fixture = SlackFixture::open_at_once(fake, |_| {});

    let error = "the app is installed for a whole organisation";
    fixture.fake.until(|_| fixture.slack.status().last_error.filter(|last| last.error == error)).await;
    assert_eq!(fixture.fake.world().sockets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_do_not_wait_for_slack_or_the_ledger() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    // Everything that a click leads to hangs.
    for method in ["views.open", "chat.postEphemeral", "chat.update", "users.info"] {
        fixture.fake.world().fail(method, &Failure::Silence, 100);
    }

    let started = Instant::now();
    for action in [DENY, DENY, DENY, DENY, OPEN] {
        let ack = fixture.fake.click(DORA, &card, action).await;
        assert!(ack.came(), "{ack:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    // People who clicked in vain cannot be told, and nobody waits for them.
    for _ in 0..200 {
        assert!(fixture.fake.click(MALLORY, &card, APPROVE).await.came());
    }
    // And an approval counts, though nobody can be shown that it does.
    let approved = Instant::now();
    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
    assert!(approved.elapsed() < Duration::from_millis(500), "{:?}", approved.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_deleted_is_shown_again_while_its_request_waits() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold_on(SQL, two_groups());
    let card = fixture.fake.first_card().await;
    fixture.fake.world().delete(&card.ts);

    // Found out when it has to change.
    let click = Click::on(&fixture.fake, BOB, &card, APPROVE);
    fixture.fake.send(click).await;

    let again = fixture.fake.first_card().await;
    assert_ne!(again.ts, card.ts);
    assert!(again.says().contains("Waiting for 1 of security"), "{}", again.says());
    fixture.fake.click(SAM, &again, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_messages_may_not_be_changed_the_thread_says_how_it_ended() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    fixture.fake.world().fail("chat.update", &Failure::Says("edit_window_closed"), 100);

    fixture.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);

    let said = fixture.fake.until(|fake| fake.thread(&card.ts).into_iter().next()).await;
    assert!(said.says().contains("was withdrawn"), "{}", said.says());
    // Its buttons are still there, and do nothing.
    fixture.fake.click(BOB, &card, APPROVE).await;
    fixture.fake.told(BOB, "was withdrawn: the agent cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_of_a_crashed_run_are_closed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slack-cards");
    let path = file.clone();
    let fixture =
        SlackFixture::open_with(FakeSlack::start(), |settings| settings.cards_file = Some(path)).await;
    let ended = fixture.hold("COPY ended TO STDOUT");
    let first = fixture.fake.first_card().await;
    fixture.desk.withdraw(ended.request.id, Withdrawal::AgentCancelled);
    fixture.fake.until(|fake| (fake.world().message(&first.ts)?.buttons() == [OPEN]).then_some(())).await;
    let _opened = fixture.hold(SQL);
    let card = fixture.fake.until(|fake| fake.cards().into_iter().nth(1)).await;
    // Bob still has it on his screen.
    let click = Click::on(&fixture.fake, BOB, &card, APPROVE);

    let fixture = fixture.restart().await;

    let says = fixture
        .fake
        .until(|fake| {
            fake.world().message(&card.ts).filter(|card| card.buttons().is_empty()).map(|card| card.says())
        })
        .await;
    assert!(says.contains("is closed") && says.contains("The proxy was restarted"), "{says}");
    let untouched = fixture.fake.world().message(&first.ts).unwrap();
    assert!(untouched.says().contains("was withdrawn"), "{}", untouched.says());
    fixture.fake.send(click).await;
    fixture.fake.told(BOB, "This card cannot be answered any more").await;
    assert_eq!(fixture.recorded.reviews().len(), 0);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("COPY"));

    // And once is enough.
    fixture.fake.until(|_| (fixture.slack.status().queued == 0).then_some(())).await;
    let edits = fixture.fake.world().message(&card.ts).unwrap().edits;
    let fixture = fixture.restart().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fixture.fake.world().message(&card.ts).unwrap().edits, edits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_nobody_remembers_is_closed_by_the_first_click_on_it() {
    let fixture = SlackFixture::open().await;
    let _opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.fake.world().message(&card.ts).unwrap().buttons(), [APPROVE, DENY, OPEN]);

    fixture.fake.click(BOB, &card, APPROVE).await;

    fixture.fake.told(BOB, "This card cannot be answered any more").await;
    fixture
        .fake
        .until(|fake| fake.world().message(&card.ts).filter(|card| card.buttons().is_empty()).map(|_| ()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_started_anew_takes_its_cards_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slack-cards");
    let cards = path.clone();
    let mut fixture =
        SlackFixture::open_with(FakeSlack::start(), |settings| settings.cards_file = Some(cards)).await;
    let opened = fixture.hold(SQL);
    let card = fixture.fake.first_card().await;
    let before = card.button(APPROVE).unwrap().0["value"].clone();
    // Slack shows it a moment before the channel has Slack's answer.
    let is_noted = || std::fs::read_to_string(&path).is_ok_and(|cards| cards.contains(&card.ts));
    fixture.fake.until(|_| is_noted().then_some(())).await;

    // The configuration was reloaded: another channel, the same desk.
    fixture.start_slack_anew().await;

    let card = fixture
        .fake
        .until(|fake| {
            fake.world().message(&card.ts).filter(|card| card.button(APPROVE).unwrap().0["value"] != before)
        })
        .await;
    assert_eq!(fixture.fake.cards().len(), 1);
    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_until_no_card_has_buttons_that_do_nothing() {
    let fixture = SlackFixture::open().await;
    let held: Vec<_> = (0..5).map(|number| fixture.hold(&format!("COPY t{number} TO STDOUT"))).collect();
    fixture.fake.until(|fake| (fake.cards().len() == 5).then_some(())).await;

    for opened in &held {
        fixture.desk.withdraw(opened.request.id, Withdrawal::Session(SessionEnd::ShutDown));
    }
    // On the way, or there already.
    let all_over = |fake: &FakeSlack| fake.cards().iter().all(|card| card.buttons() == [OPEN]);
    fixture.fake.until(|fake| (fixture.slack.status().queued > 0 || all_over(fake)).then_some(())).await;
    drain(&[fixture.slack.clone() as Arc<dyn Channel>], Duration::from_secs(5)).await;

    assert!(all_over(&fixture.fake));
    // Not for ever, though.
    fixture.fake.world().go_down();
    let _opened = fixture.hold(SQL);
    fixture.fake.until(|_| (fixture.slack.status().queued > 0).then_some(())).await;
    let started = Instant::now();
    drain(&[fixture.slack.clone() as Arc<dyn Channel>], Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_clicks_is_taken_in_or_not_acknowledged_and_never_lost_silently() {
    let fixture = SlackFixture::open().await;
    let opened = fixture.desk.open(draft(SQL, terms())).unwrap();
    let card = fixture.fake.first_card().await;
    let clicks = (0..600).map(|_| fixture.fake.send(Click::on(&fixture.fake, DORA, &card, OPEN)));
    let acks = futures_util::future::join_all(clicks).await;

    let came = acks.iter().filter(|ack| ack.came()).count();
    assert!(came > 256, "{came} of 600");
    fixture.fake.click(BOB, &card, APPROVE).await;
    assert!(matches!(outcome(opened.ending).await, Ending::Granted(_)));
    assert_eq!(timing().ping, Duration::from_secs(1));
}
