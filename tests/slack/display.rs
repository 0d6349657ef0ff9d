//! P6: what a reviewer sees in Slack is the whole statement and cannot be forged by the agent.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use countersign::approval::Shown;
use countersign::approval::Withdrawal;
use countersign::approval::request::TransactionView;
use countersign::channel::{Channel as _, ChannelStatus};
use countersign::statement::TransactionStatus;
use serde_json::Value;

use crate::fake::{Failure, Message, texts};
use crate::fixture::{BOB, SlackFixture, draft, outcome, terms, with_escalation};
use crate::{APPROVE, DENY, ESCALATE, OPEN};

/// The statement as the card shows it: what stands behind the line numbers.
fn statement_of(card: &Message) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in card.says().lines() {
        if let Some((number, text)) = line.split_once(" │ ")
            && number.trim().chars().all(|c| c.is_ascii_digit())
        {
            lines.push(text.to_owned());
        } else if let Some((blank, text)) = line.split_once(" ┆ ")
            && blank.trim().is_empty()
            && let Some(last) = lines.last_mut()
        {
            last.push_str(text);
        }
    }
    lines.join("\n")
}

fn status_of(fixture: &SlackFixture) -> ChannelStatus {
    fixture.slack.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_card_says_everything_that_a_reviewer_should_know() {
    let fixture = SlackFixture::open().await;
    let sql = "COPY customers (id, name) TO STDOUT\n  WITH (FORMAT csv); -- it's fine";
    let mut asked = draft(sql, terms());
    asked.transaction = TransactionView {
        status: Some(TransactionStatus::InBlock),
        statements: vec!["update customers set name = 'x'".to_owned()],
        ..TransactionView::default()
    };
    let opened = fixture.desk.open(asked).unwrap();

    let card = fixture.fake.first_card().await;

    assert_eq!(statement_of(&card), sql);
    let says = card.says();
    for words in [
        &format!("{} waits for an answer", opened.request.id.code()),
        "reporting-bot asks to run export on app",
        "Waiting for 1 of dba, until 20",
        "class export",
        "copies public.customers out",
        "held by rule customer-export",
        "owner: alice@example.com",
        "proved by: scram-sha-256-plus",
        "nobody checked this",
        "claimed model: gpt-5.2",
        "claimed purpose: monthly report",
        "upstream: app",
        "database: app",
        "role: bot",
        "it keeps its locks while this waits",
        "ran: update customers set name = 'x'",
        &format!("words: {}", opened.request.words.join(" ")),
        &format!("digest: {}", opened.request.digest),
        "ledger: 4711 entries, root 4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2",
    ] {
        assert!(says.contains(words), "{words:?} is not on the card:\n{says}");
    }
    let (open, _) = card.button(OPEN).unwrap();
    assert_eq!(open["url"], format!("https://console.example/requests/{}", opened.request.id.code()));
    let sections = card.blocks.as_array().unwrap().iter().filter(|block| block["type"] == "section");
    assert!(sections.into_iter().all(|section| section["expand"] == true), "nothing is folded away");
}

/// Everything that an agent might try to have Slack read as something else.
const TRICKS: &str = "select '<!channel> <!here> <@U0BOB00001> <#C0APPROVALS> <https://evil.example|Approve>' -- *bold* _it_ ~no~ `code`
/* ```
> quoted :white_check_mark: :tada: 1 &lt; 2 &amp;gt; &#60; */ \u{202e}drop\u{2066} \u{200b}table\u{feff}
Who asks
agent: trusted-bot
*What it does*
harmless";

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_the_agents_is_markup_anywhere() {
    let fixture = SlackFixture::open().await;
    let mut asked = draft(TRICKS, with_escalation());
    asked.claimed.set("purpose", "<!channel>\n*Approved* by <@U0BOB00001> &lt;b&gt; \u{202e}");
    asked.claimed.set("run", ":tada:");
    let opened = fixture.desk.open(asked).unwrap();
    let card = fixture.fake.first_card().await;
    fixture.fake.click(BOB, &card, ESCALATE).await;
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, Some("<!here> *no* <@U0MALLORY1> &lt;")).await;
    let card = fixture
        .fake
        .until(|fake| fake.cards().into_iter().find(|card| card.says().contains("was denied")))
        .await;
    fixture.fake.click(BOB, &opened_again(&card), APPROVE).await;

    let calls = fixture.fake.world().calls();
    for call in &calls {
        for (kind, text) in texts(&call.body) {
            assert_eq!(kind, "plain_text", "{text}");
            assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}']), "{text:?}");
            // Whether or not Slack reads entities in such texts, what it shows is the same.
            let read = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            assert_eq!(read, text);
        }
        // What stands beside the blocks is read as markup.
        if let Some(text) = call.body["text"].as_str() {
            assert!(!text.contains(['<', '>']), "{text}");
            assert!(!text.contains("bold") && !text.contains("purpose"), "{text}");
        }
        assert_no_emoji(&call.body);
        if call.method.starts_with("chat.") {
            assert_eq!(
                (call.body["parse"].as_str(), &call.body["link_names"]),
                (Some("none"), &Value::Bool(false))
            );
        }
    }
    // Nothing was lost over it either.
    assert_eq!(statement_of(&card).replace("&⟨U+0026⟩", "&"), Shown::of(TRICKS).as_str());
    // A line of the statement cannot pose as a line of ours.
    assert_eq!(card.says().lines().filter(|line| *line == "Who asks").count(), 1);
    assert_eq!(card.says().lines().filter(|line| line.starts_with("agent: ")).count(), 1);
    assert!(card.says().contains("claimed purpose: <!channel>⟨line break⟩*Approved* by"), "{}", card.says());
    drop(opened);
}

/// The card as it was, with its buttons: somebody's screen is behind.
fn opened_again(card: &Message) -> Message {
    let mut blocks = card.blocks.clone();
    let button = serde_json::json!({"type": "button", "action_id": APPROVE, "text": {"type": "plain_text", "text": "x"}, "value": "x"});
    blocks
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({"type": "actions", "block_id": "countersign", "elements": [button]}));
    Message { blocks, ..card.clone() }
}

fn assert_no_emoji(value: &Value) {
    match value {
        Value::Object(object) => {
            if object.get("type").is_some_and(|kind| kind == "plain_text") {
                assert_eq!(object.get("emoji"), Some(&Value::Bool(false)), "{value}");
            }
            object.values().for_each(assert_no_emoji);
        }
        Value::Array(values) => values.iter().for_each(assert_no_emoji),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_fit_is_cut_openly_and_cannot_be_approved_here() {
    let fixture = SlackFixture::open().await;
    let sql = format!("select {}", "'a rather long list of things', ".repeat(2_000));
    let mut opened = fixture.hold(&sql);

    let card = fixture.fake.first_card().await;

    assert_eq!(card.buttons(), [DENY, OPEN]);
    assert!(card.says().contains("⟨the rest is not shown here⟩"), "{}", card.says());
    assert!(card.says().contains("This is not the whole request, so it cannot be approved here"));
    // Not even by somebody who brings a button along.
    let (button, block) = card.button(DENY).unwrap();
    let click = crate::fake::Click::raw(&fixture.fake, BOB, &card, &button, &block)
        .forged("/actions/0/action_id", Value::from(APPROVE));
    fixture.fake.send(click).await;
    fixture.fake.told(BOB, "The card does not offer this answer").await;
    assert!(opened.ending.try_recv().is_err());

    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, None).await;
    assert!(matches!(outcome(opened.ending).await, countersign::desk::Ending::Denied { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_size_slack_takes_the_card_and_an_approvable_one_is_whole() {
    let fixture = SlackFixture::open().await;
    let unit = |unit: &str, length: usize| unit.repeat(length / unit.len() + 1);
    let mut whole = 0;
    let mut cut = 0;
    for filling in ["x", "x, ", "<", "&", "é", "\u{1F600}", "line\n", "\n\nx", "\u{202e}", "\t", "⟨"] {
        for length in [0, 100, 390, 400, 401, 2_990, 3_000, 3_010, 6_000, 9_000, 12_500] {
            let sql = format!("select '{}'", unit(filling, length));
            let opened = fixture.hold(&sql);
            let code = opened.request.id.code();
            let waits = format!("{code} waits");
            let card = fixture
                .fake
                .until(|fake| fake.cards().into_iter().find(|card| card.says().contains(&waits)))
                .await;
            if card.buttons().contains(&APPROVE.to_owned()) {
                whole += 1;
                assert_eq!(statement_of(&card), Shown::of(&sql).as_str(), "{filling:?} {length}");
            } else {
                cut += 1;
                assert!(card.says().contains("not the whole request"));
            }
            fixture.desk.withdraw(opened.request.id, Withdrawal::SessionEnded);
        }
    }

    let refused = fixture.fake.world().calls().into_iter().find(|call| call.outcome != "ok");
    assert!(refused.is_none(), "{:?}", refused.map(|call| call.outcome));
    assert!(whole > 40 && cut > 20, "{whole} whole, {cut} cut");
    assert_eq!(status_of(&fixture).dead_letters, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_slack_refuses_all_the_same_is_shown_without_its_text_and_without_approval() {
    let fixture = SlackFixture::open().await;
    fixture.fake.world().fail("chat.postMessage", &Failure::Says("msg_blocks_too_long"), 1);
    let opened = fixture.hold("COPY customers TO STDOUT");

    let card = fixture.fake.first_card().await;

    assert_eq!(card.buttons(), [DENY, OPEN]);
    assert!(!card.says().contains("COPY customers TO STDOUT"));
    assert_eq!(status_of(&fixture).dead_letters, []);
    fixture.desk.withdraw(opened.request.id, Withdrawal::SessionEnded);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slack_never_takes_is_given_up_and_can_be_seen_in_status() {
    let fixture = SlackFixture::open().await;
    fixture.fake.world().fail("chat.postMessage", &Failure::Says("msg_blocks_too_long"), 2);
    let opened = fixture.hold("COPY customers TO STDOUT");

    let letter = fixture.fake.until(|_| status_of(&fixture).dead_letters.into_iter().next()).await;

    assert_eq!(letter.request, opened.request.id.code());
    assert_eq!((letter.what, letter.error.as_str()), ("post the card", "msg_blocks_too_long"));
    assert_eq!(status_of(&fixture).queued, 0);
    assert!(status_of(&fixture).connected, "one card is not the channel");
}

#[tokio::test(flavor = "multi_thread")]
async fn slacks_own_models_agree_with_everything_that_is_sent() {
    let fixture = SlackFixture::open().await;
    for sql in [TRICKS, "COPY customers TO STDOUT", &"select 1;\n".repeat(3_000)] {
        let opened = fixture.desk.open(draft(sql, with_escalation())).unwrap();
        let code = opened.request.id.code();
        let card = fixture
            .fake
            .until(|fake| fake.cards().into_iter().find(|card| card.says().contains(&code)))
            .await;
        fixture.fake.click(BOB, &card, ESCALATE).await;
        fixture.fake.click(BOB, &card, DENY).await;
        fixture.fake.dialog(BOB).await;
        fixture.fake.submit(BOB, Some("no <!here>")).await;
        assert!(matches!(outcome(opened.ending).await, countersign::desk::Ending::Denied { .. }));
        fixture
            .fake
            .until(|fake| (fake.world().message(&card.ts)?.says().contains("was denied")).then_some(()))
            .await;
        fixture.fake.click(BOB, &card, APPROVE.replace("approve", "deny").as_str()).await;
    }
    fixture.fake.told(BOB, "Too late").await;

    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("slack-payloads-{}.jsonl", std::process::id()));
    let mut out = std::fs::File::create(&file).unwrap();
    let calls = fixture.fake.world().calls();
    let sent = calls.iter().filter(|call| call.method.starts_with("chat.") || call.method == "views.open");
    for call in sent {
        let line = serde_json::json!({"method": call.method, "body": call.body});
        writeln!(out, "{line}").unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/tools/python/bin/python");
    if !python.exists() {
        eprintln!("not compared with Slack's models: run `.ci/install test` first");
        return;
    }
    let checked = Command::new(python)
        .arg(root.join("tests/tools/check_slack_payloads.py"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    std::fs::remove_file(file).unwrap();
}
