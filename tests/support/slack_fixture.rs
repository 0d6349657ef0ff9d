//! A desk with people, an agent, and Slack beside it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign::actor::{GroupName, PersonName, Reviewer};
use countersign::approval::Draft;
use countersign::approval::request::TreeHead;
use countersign::channel::slack::{Slack, SlackSettings, Timing, Token};
use countersign::channel::{Channel, ChannelName, RetryTiming, follow};
use countersign::classify::Classification;
use countersign::desk::{Clock, Desk, Ending, Limits, Opened, Recorder, Unrecorded};
use countersign::identity::account::ChatAccount;
use countersign::identity::{AgentEntry, Directory, ReviewerEntry, ScramVerifier};
use countersign::ledger::{Event, Ledger, ReviewRecord};
use countersign::policy::Terms;
use countersign::statement::{Digest, Fingerprint};
use parking_lot::Mutex;
use tokio::sync::oneshot::error::RecvError;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::fake::{APP_TOKEN, BOT_TOKEN, CHANNEL, FakeSlack, TEAM};
pub use crate::samples::terms;
use crate::samples::{self, approval, escalation};

/// The people, their Slack accounts and groups. Alice owns the agent.
pub const BOB: &str = "U0BOB00001";
pub const DORA: &str = "U0DORA0001";
pub const SAM: &str = "U0SAM00001";
pub const OLGA: &str = "U0OLGA0001";
pub const ALICE: &str = "U0ALICE001";
/// In the channel, and no reviewer.
pub const MALLORY: &str = "U0MALLORY1";

const PEOPLE: [(&str, &str, &[&str]); 5] = [
    ("bob@example.com", BOB, &["dba"]),
    ("dora@example.com", DORA, &["dba"]),
    ("sam@example.com", SAM, &["security"]),
    ("olga@example.com", OLGA, &["oncall"]),
    ("alice@example.com", ALICE, &["dba"]),
];

/// Keeps recorded events, and writes them into a real ledger where there is one.
#[derive(Default)]
pub struct RecordedEvents {
    events: Mutex<Vec<Event>>,
    pub ledger: Option<Ledger>,
}

impl RecordedEvents {
    /// The answers that were written down, and why they did not count.
    pub fn reviews(&self) -> Vec<ReviewRecord> {
        let reviews = |event: &Event| match event {
            Event::Review(review) => Some((**review).clone()),
            _ => None,
        };
        self.events.lock().iter().filter_map(reviews).collect()
    }

    /// Who was refused, and why.
    pub fn refused(&self) -> Vec<(String, String)> {
        let reviews = self.reviews().into_iter();
        reviews.filter_map(|review| Some((review.reviewer.id.to_string(), review.not_counted?))).collect()
    }
}

impl Recorder for RecordedEvents {
    fn append(&self, event: Event) -> Result<(), Unrecorded> {
        if let Some(ledger) = &self.ledger {
            Recorder::append(ledger, event.clone())?;
        }
        self.events.lock().push(event);
        Ok(())
    }

    fn head(&self) -> Option<TreeHead> {
        Some(TreeHead { size: 4711, root: Digest::of(b"root") })
    }
}

/// A desk, its people and Slack.
pub struct SlackFixture {
    pub fake: FakeSlack,
    pub desk: Desk,
    pub recorded: Arc<RecordedEvents>,
    pub directory: Arc<ArcSwap<Directory>>,
    pub slack: Arc<Slack>,
    pub settings: SlackSettings,
    tasks: Tasks,
}

/// What runs beside the desk, as long as it does.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// How a hold ends. A test whose hold does not end should fail with a message.
pub async fn outcome(ending: impl Future<Output = Result<Ending, RecvError>>) -> Ending {
    tokio::time::timeout(Duration::from_secs(15), ending).await.expect("the hold ends").unwrap()
}

/// Times that tests can wait for.
pub fn timing() -> Timing {
    Timing {
        call: Duration::from_millis(400),
        dialog: Duration::from_millis(800),
        hello: Duration::from_millis(1_500),
        ping: Duration::from_secs(1),
        retry: RetryTiming {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(200),
            refused: Duration::from_millis(200),
        },
        look_up: Duration::from_millis(500),
        rely: Duration::from_secs(2),
    }
}

impl SlackFixture {
    /// Opens the fixture; Slack is connected when this returns.
    pub async fn open() -> Self {
        Self::open_with(FakeSlack::start(), |_| {}).await
    }

    pub async fn open_with(fake: FakeSlack, change: impl FnOnce(&mut SlackSettings)) -> Self {
        let fixture = Self::open_at_once(fake, change);
        fixture.fake.until_sockets(2).await;
        fixture.until_connected().await;
        fixture
    }

    /// Opens the fixture whether or not Slack answers.
    pub fn open_at_once(fake: FakeSlack, change: impl FnOnce(&mut SlackSettings)) -> Self {
        Self::open_beside(None, fake, change)
    }

    pub fn open_beside(
        ledger: Option<Ledger>,
        fake: FakeSlack,
        change: impl FnOnce(&mut SlackSettings),
    ) -> Self {
        countersign::proxy::tls::install_provider();
        for user in [BOB, DORA, SAM, OLGA, ALICE, MALLORY] {
            if fake.world().user(user).is_none() {
                fake.add_member(user);
            }
        }
        let recorded = Arc::new(RecordedEvents { ledger, ..RecordedEvents::default() });
        let directory = Arc::new(ArcSwap::from_pointee(directory()));
        let limits = Limits { opened_per_minute: 10_000, ..Limits::default() };
        let desk = Desk::new(limits, recorded.clone(), directory.clone(), Clock::real());
        let mut settings = SlackSettings {
            api_url: fake.api_url(),
            app_token: Token::new(APP_TOKEN),
            bot_token: Token::new(BOT_TOKEN),
            channel: CHANNEL.to_owned(),
            console_url: Some("https://console.example/".parse().unwrap()),
            cards_file: None,
            timing: timing(),
        };
        change(&mut settings);
        let slack = Slack::start(settings.clone(), desk.clone()).unwrap();
        let mut fixture = Self { fake, desk, recorded, directory, slack, settings, tasks: Tasks::default() };
        fixture.follow();
        let desk = fixture.desk.clone();
        fixture.tasks.0.push(tokio::spawn(async move { desk.run_timers().await }));
        fixture
    }

    fn follow(&mut self) {
        self.tasks.0.push(tokio::spawn(follow(self.desk.clone(), self.slack.clone())));
    }

    /// The process dies and is started again: a new desk, which knows nothing, and the same Slack.
    pub async fn restart(self) -> Self {
        let Self { fake, settings, mut tasks, slack, .. } = self;
        for task in tasks.0.drain(..) {
            task.abort();
            let _ = task.await;
        }
        drop(slack);
        fake.until_sockets(0).await;
        Self::open_with(fake, |fresh| *fresh = settings).await
    }

    /// The channel is started anew beside the same desk, as when the configuration changes.
    pub async fn start_slack_anew(&mut self) {
        for task in self.tasks.0.drain(..) {
            task.abort();
            let _ = task.await;
        }
        // The old one goes first, and with it its sockets.
        let stand_in =
            SlackSettings { api_url: "http://127.0.0.1:9/api".parse().unwrap(), ..self.settings.clone() };
        let stand_in = SlackSettings { cards_file: None, ..stand_in };
        self.slack = Slack::start(stand_in, self.desk.clone()).unwrap();
        self.fake.until_sockets(0).await;
        self.slack = Slack::start(self.settings.clone(), self.desk.clone()).unwrap();
        self.follow();
        self.until_connected().await;
    }

    pub async fn until_connected(&self) {
        self.fake.until(|_| self.slack.status().connected.then_some(())).await;
    }

    /// An agent's statement is held.
    pub fn hold(&self, sql: &str) -> Opened {
        self.desk.open(draft(sql, terms())).unwrap()
    }

    pub fn hold_on(&self, sql: &str, terms: Terms) -> Opened {
        self.desk.open(draft(sql, terms)).unwrap()
    }
}

fn directory() -> Directory {
    let agent = samples::agent("reporting-bot");
    let agents = vec![AgentEntry::with_password(agent, ScramVerifier::of_password("csa_agent"))];
    let reviewers = PEOPLE.iter().map(|(id, user, groups)| ReviewerEntry {
        reviewer: Arc::new(Reviewer {
            id: (*id).into(),
            also: Vec::<PersonName>::new(),
            groups: groups.iter().map(|group| GroupName::from(*group)).collect(),
        }),
        tokens: Vec::new(),
        accounts: vec![ChatAccount {
            channel: ChannelName::Slack,
            team: TEAM.to_owned(),
            user: (*user).to_owned(),
        }],
    });
    Directory::new(agents, reviewers.collect(), [7; 32]).unwrap()
}

/// One of the database administrators and one of security.
pub fn two_groups() -> Terms {
    Terms { approvals: vec![approval("dba", 1), approval("security", 1)], ..terms() }
}

/// After an hour, or at once when somebody escalates, the people on call may answer for the others.
pub fn with_escalation() -> Terms {
    Terms { escalate: vec![escalation(3_600, "oncall", &["dba"])], ..terms() }
}

/// What `reporting-bot` asks for, in a session of its own.
pub fn draft(sql: &str, terms: Terms) -> Draft {
    let classification = Classification {
        fingerprint: Fingerprint(Digest::of(sql.as_bytes())),
        ..samples::customer_export(sql)
    };
    let session = Uuid::now_v7().as_u128();
    Draft { classification: Arc::new(classification), ..samples::draft_of(sql, session, terms) }
}
