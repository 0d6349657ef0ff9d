//! P10: no token, no ticket and no SQL is ever in a log, at whatever level, whatever goes wrong.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign::channel::Channel as _;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::fake::{APP_TOKEN, BOT_TOKEN, Failure, FakeSlack};
use crate::fixture::{BOB, MALLORY, SlackFixture, draft, outcome, terms};
use crate::{APPROVE, DENY};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const SQL: &str = "COPY customers_of_ours TO STDOUT";
const PURPOSE: &str = "to see whether this is logged";
const REASON: &str = "a reason between us";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_log_even_at_trace_level() {
    let log = Log::default();
    // Everything: ours, slack-morphism's, hyper's, and through `log` tungstenite's and rustls's.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .init();
    let mut asked = draft(SQL, terms());
    asked.claimed.set("purpose", PURPOSE);

    let fake = FakeSlack::start();
    // Sockets that cannot be opened are where slack-morphism logs their addresses as errors.
    fake.world().with(|state| state.deaf = true);
    let fixture =
        SlackFixture::open_at_once(fake, |settings| settings.timing.hello = Duration::from_millis(300));
    fixture.fake.until(|fake| fake.calls("apps.connections.open").into_iter().nth(4)).await;
    fixture.fake.world().mend();
    fixture.fake.until_sockets(2).await;
    fixture.until_connected().await;

    let opened = fixture.desk.open(asked).unwrap();
    let card = fixture.fake.first_card().await;
    fixture.fake.click(MALLORY, &card, APPROVE).await;
    fixture.fake.told(MALLORY, "not that of an enrolled").await;
    fixture.fake.world().fail("chat.update", &Failure::Says("invalid_arguments"), 1);
    fixture.fake.click(BOB, &card, DENY).await;
    fixture.fake.dialog(BOB).await;
    fixture.fake.submit(BOB, Some(REASON)).await;
    outcome(opened.ending).await;
    fixture.fake.until(|_| fixture.slack.status().dead_letters.into_iter().next()).await;
    fixture.fake.world().revoke();
    let other = fixture.desk.open(draft(SQL, terms())).err();
    assert!(other.is_some(), "it cools down");
    let other = fixture.hold("COPY other_things_of_ours TO STDOUT");
    let revoked =
        |_: &FakeSlack| fixture.slack.status().last_error.filter(|last| last.error.contains("token_revoked"));
    fixture.fake.until(revoked).await;
    fixture.fake.world().go_down();
    fixture.fake.until(|_| (fixture.slack.open_sockets() == 0).then_some(())).await;

    let status = serde_json::to_string(&fixture.slack.status()).unwrap();
    let settings = format!("{:?}", fixture.settings);
    drop((fixture, other));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    // It does log: our own words, and those of the libraries.
    for words in ["slack socket open", "slack cannot be reached", "Sending HTTP request", "hyper"] {
        assert!(log.contains(words), "{words} is not in the log");
    }
    let secrets = [
        BOT_TOKEN,
        APP_TOKEN,
        "bottokenbottoken",
        "apptokenapptoken",
        "ticket-",
        "secret-response-url",
        "verification-token-of-old",
        "customers_of_ours",
        "other_things_of_ours",
        PURPOSE,
        REASON,
    ];
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
        assert!(!status.contains(secret) && !settings.contains(secret), "{secret}");
    }
}
