//! Everything at once: real psql, the real binary, a real Postgres, and answers from Slack.

use crate::fake::{APP_TOKEN, BOT_TOKEN, CHANNEL, FakeSlack, Message, TEAM};
use crate::support::{BOB, Setup, Stack, countersign, ended, text, wait_for};
use crate::{APPROVE, DENY};

/// Dave is a dba, and answers in Slack.
const DAVE: &str = "U0DAVE0001";

fn with_slack(fake: &FakeSlack, tokens: &tempfile::TempDir) -> Stack {
    fake.add_member(DAVE);
    let file = |name: &str, token: &str| {
        let path = tokens.path().join(name);
        std::fs::write(&path, token).unwrap();
        path.display().to_string()
    };
    let config = format!(
        "[[reviewer]]\nid = \"dave@example.com\"\ngroups = [\"dba\"]\n\
         slack = {{ team = \"{TEAM}\", user = \"{DAVE}\" }}\n\
         [slack]\napp_token_file = \"{}\"\nbot_token_file = \"{}\"\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
        file("app", APP_TOKEN),
        file("bot", BOT_TOKEN),
        fake.api_url(),
    );
    Stack::with(&Setup { config, ..Setup::default() })
}

fn asks_nothing(card: &Message) -> bool {
    ![APPROVE, DENY].iter().any(|button| card.buttons().contains(&(*button).to_owned()))
}

fn channel(stack: &Stack) -> serde_json::Value {
    let (status, answer) = stack.api(BOB, "GET", "/status", None);
    assert_eq!(status, 200, "{answer}");
    answer["channels"].as_array().unwrap().iter().find(|part| part["name"] == "slack").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_waits_for_a_click_in_slack_and_the_receipt_follows_in_the_thread() {
    let (fake, tokens) = (FakeSlack::start(), tempfile::tempdir().unwrap());
    let mut stack = with_slack(&fake, &tokens);
    fake.until_sockets(2).await;

    let psql = stack.psql_start(&["drop table orders"]);
    let card = fake.first_card().await;
    for said in ["drop table orders", "ddl", "reporting-bot", "alice@example.com"] {
        assert!(card.says().contains(said), "{said} in {}", card.says());
    }
    fake.click(DAVE, &card, APPROVE).await;

    let shown = ended(psql);
    assert!(!shown.contains("ERROR"), "{shown}");
    assert_eq!(stack.superuser("select to_regclass('orders') is null"), "t");
    let receipt = fake.until(|fake| fake.thread(&card.ts).into_iter().next_back()).await;
    assert!(receipt.says().contains("DROP TABLE"), "{}", receipt.says());
    fake.until(|fake| fake.cards().first().filter(|card| asks_nothing(card)).cloned()).await;

    let psql = stack.psql_start(&["copy customers to stdout"]);
    let card = fake.until(|fake| fake.cards().into_iter().nth(1)).await;
    fake.click(DAVE, &card, DENY).await;
    fake.dialog(DAVE).await;
    fake.submit(DAVE, Some("ask for the aggregate instead")).await;
    let shown = ended(psql);
    assert!(shown.contains("ask for the aggregate instead"), "{shown}");
    assert!(!shown.contains("c1@example.com"), "{shown}");

    let ledger = stack.path("ledger/countersign.db");
    stack.assert_verifies();
    let found = countersign()
        .args(["ledger", "query", ledger.to_str().unwrap(), "--reviewer", "dave@example.com"])
        .output()
        .unwrap();
    let shown = text(&found);
    assert!(shown.contains("drop table orders") && shown.contains("denied_by_reviewer"), "{shown}");
    for secret in [APP_TOKEN, BOT_TOKEN] {
        assert!(!stack.log().contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_slack_down_the_hold_stands_and_status_log_and_the_other_ways_still_work() {
    let (fake, tokens) = (FakeSlack::start(), tempfile::tempdir().unwrap());
    fake.world().go_down();
    let stack = with_slack(&fake, &tokens);

    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    wait_for("the outage is visible in status", || {
        let slack = channel(&stack);
        slack["healthy"] == false && !slack["note"].is_null()
    });
    wait_for("and in the log", || stack.log().to_lowercase().contains("slack"));
    assert_eq!(stack.metric("countersign_slack_connected"), 0);
    assert_eq!(stack.metric("countersign_sessions_held"), 1);
    stack.approve(BOB, &request);
    assert!(!ended(psql).contains("ERROR"));

    fake.world().mend();
    fake.until_sockets(2).await;
    // The card of a request that has ended says so, or was never posted; nobody is asked for nothing.
    assert!(fake.cards().iter().all(asks_nothing));
}
