//! `countersign serve`: the proxy, wired together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::views::Seen;
use super::{metrics, reload};
use crate::actor::UpstreamName;
use crate::channel::{self, Channel};
use crate::classify::{Classifier, Declared};
use crate::config::{self, ApplicationName, Config, UpstreamTls};
use crate::desk::{Clock, Desk};
use crate::identity::KeySources;
use crate::ledger::{self, Event, Ledger};
use crate::proxy::catalogue::UpstreamState;
use crate::proxy::sessions::Sessions;
use crate::proxy::tls::{AgentTls, UpstreamTlsMode, upstream_config};
use crate::proxy::upstream::Upstream;
use crate::proxy::{self, Counters, ProxyLimits, Shared, Stop};
use crate::session;
use crate::web::record::Record;
use crate::web::{self, Views, Web};

/// Runs the proxy until SIGTERM or Ctrl-C.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// How long sessions may go on after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    super::log::start();
    // Whatever it writes is for nobody else: the ledger's files hold statements and values.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_descriptor_limit();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(problems) => return Ok(super::report_problems(&problems)),
    };
    runtime()?.block_on(async {
        let running = Running::start(config).await?;
        running.until_told().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// A session takes two descriptors; shells and services often start with 1,024. Raises the soft limit to
/// the hard one (`setrlimit(2)`), which needs no privilege.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(%error, "the limit on open files stays as it is");
    }
}

/// The runtime that everything is driven by. Statements are parsed on its threads, and the parser
/// wants deep stacks (see [`crate::classify`]). A thread that has parsed once keeps one of the
/// process's 1,024 pthread keys for good, so there are few threads and none of them ends.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(8 << 20)
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_hours(24 * 365 * 10))
        .build();
    runtime.context("cannot start the runtime")
}

/// A running proxy.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) web: Option<Web>,
    channels: Vec<Arc<dyn Channel>>,
    stop: watch::Sender<Stop>,
    agents: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts everything that `config` names; when it returns, agents can connect.
    pub(super) async fn start(config: Config) -> anyhow::Result<Self> {
        proxy::tls::install_provider();
        let before = reload::Before::of(&config);
        let policy = config.load_policy().map_err(|problems| {
            super::report_problems(&problems);
            anyhow::anyhow!("the policies cannot be loaded")
        })?;
        let classifier = Classifier::new(config.limits.classify());
        let policy = reload::passing(&classifier, policy).map_err(|failed| {
            for failure in &failed {
                super::terminal::complain(&format!("countersign: {failure}"));
            }
            anyhow::anyhow!("cases of the policies fail; `countersign policy test` shows them one by one")
        })?;
        let ledger = Ledger::open(&config.ledger_settings()).context("cannot open the ledger")?;
        let recovery = ledger.recovery();
        if recovery != &ledger::Recovery::default() {
            warn!(
                replayed = recovery.replayed,
                lost = recovery.lost,
                unknown = recovery.unknown,
                withdrawn = recovery.withdrawn.len(),
                "the last run did not end in good order; the ledger was brought up to date"
            );
        }
        let left_over = recovery.withdrawn.clone();
        let directory = Arc::new(ArcSwap::from(Arc::clone(&config.directory)));
        let desk =
            Desk::new(config.limits.desk, Arc::new(ledger.clone()), Arc::clone(&directory), Clock::real());
        ledger.append(Event::ConfigChanged {
            what: "start".to_owned(),
            by: None,
            digest: Some(config.digest),
            difference: None,
        })?;
        ledger.append(Event::PolicyLoaded {
            policy: policy.digest(),
            what: format!("start: {}", config.policy.dir.display()),
            by: None,
            difference: None,
            rules: policy.rules().len() as u64,
        })?;

        let declared = Arc::clone(policy.declared());
        let shared = Arc::new(Shared {
            classifier,
            policy: ArcSwap::from_pointee(policy),
            ledger,
            desk: desk.clone(),
            directory,
            upstreams: ArcSwap::from_pointee(upstreams(&config, &declared, &BTreeMap::new())?),
            tls: ArcSwap::from_pointee(agent_tls(&config)?),
            insecure_plaintext: config.insecure_plaintext,
            sessions: Sessions::default(),
            limits: limits(&config.limits),
            counters: Counters::default(),
            trouble: parking_lot::Mutex::default(),
            started: Instant::now(),
            per_agent: parking_lot::Mutex::default(),
            key_sources: KeySources::default(),
            large_texts: Arc::default(),
        });
        desk.close_left_over(&left_over);
        let channels = start_channels(&config, &desk)?;
        let followers =
            channels.iter().map(|channel| tokio::spawn(channel::follow(desk.clone(), Arc::clone(channel))));
        let mut background: Vec<JoinHandle<()>> = followers.collect();
        let web = web(&config, &shared, channels.clone());
        let console = match &config.console {
            Some(console) => Some(
                TcpListener::bind(console.listen)
                    .await
                    .with_context(|| format!("the console cannot listen on {}", console.listen))?,
            ),
            None => None,
        };
        let metrics = match config.metrics {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("metrics cannot be served on {address}"))?,
            ),
            None => None,
        };
        // Last: who can connect can be held, and what is held has to be answered somewhere.
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let (stop, stopped) = watch::channel(Stop::Run);
        info!(listen = %listener.local_addr()?, upstreams = config.upstreams.len(), "countersign is ready");
        let agents = tokio::spawn(proxy::serve(Arc::clone(&shared), listener, stopped));
        for state in shared.upstreams.load().values().cloned() {
            // Agents are told when they come; the operator hears of it now.
            tokio::spawn(async move {
                if let Err(error) = UpstreamState::known(&state).await {
                    warn!(upstream = %state.upstream.name, %error, "upstream cannot be used as it is");
                }
            });
        }
        let config = Arc::new(ArcSwap::from_pointee(config));
        let timers = desk.clone();
        background.push(tokio::spawn(async move { timers.run_timers().await }));
        background.push(tokio::spawn(reload::watch(Arc::clone(&shared), Arc::clone(&config), before)));
        if let Some(listener) = metrics {
            background.push(tokio::spawn(metrics::serve(listener, Arc::clone(&shared), channels.clone())));
        }
        if let (Some(web), Some(listener)) = (web.clone(), console) {
            let mut stopped = stop.subscribe();
            let until_stopped = async move {
                // The console stays until sessions have ended: what waits may still be answered.
                while *stopped.borrow_and_update() != Stop::Now && stopped.changed().await.is_ok() {}
            };
            background.push(tokio::spawn(async move {
                if let Err(error) = web.serve(listener, None, until_stopped).await {
                    error!(%error, "the console has stopped");
                }
            }));
        }
        Ok(Self { shared, web, channels, stop, agents, background })
    }

    /// Runs until SIGTERM or Ctrl-C, then drains; the second signal ends it at once.
    pub(super) async fn until_told(self) {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            error!("cannot listen for signals");
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(DRAIN) => {}
            }
        };
        self.stop_after(again).await;
    }

    /// Ends in good order: no new sessions; those that run have until `impatience` ends.
    pub(super) async fn stop_after(self, impatience: impl Future<Output = ()>) {
        let Self { shared, channels, stop, mut agents, background, .. } = self;
        let _ = stop.send(Stop::Drain);
        tokio::select! {
            _ = &mut agents => {}
            () = impatience => {
                let _ = stop.send(Stop::Now);
                let _ = tokio::time::timeout(Duration::from_secs(5), agents).await;
            }
        }
        let _ = stop.send(Stop::Now);
        channel::drain(&channels, Duration::from_secs(5)).await;
        for task in background {
            task.abort();
        }
        let ledger = shared.ledger.clone();
        // Joins the writer's thread, which may take a moment.
        let _ = tokio::task::spawn_blocking(move || ledger.close()).await;
        info!("countersign has stopped");
    }
}

/// The channels that are configured.
fn start_channels(config: &Config, desk: &Desk) -> anyhow::Result<Vec<Arc<dyn Channel>>> {
    let start = |settings: &channel::Settings| Ok(channel::start(settings.clone(), desk.clone())?);
    config.channels.iter().map(start).collect()
}

/// The console and the API, where they are configured.
fn web(config: &Config, shared: &Arc<Shared>, channels: Vec<Arc<dyn Channel>>) -> Option<Web> {
    let console = config.console.as_ref()?;
    let seen = Arc::new(Seen { shared: Arc::clone(shared), channels });
    let record = Record::new(shared.ledger.clone(), &config.ledger_settings(), Clock::real());
    let views =
        Views { ledger: Arc::new(record), sessions: seen.clone(), policy: seen.clone(), health: seen };
    let mut connections = web::ConnectionLimits::of(config.limits.console_connections);
    if let Some(share) = config.limits.console_connections_per_address {
        connections.of_one_address = share;
    }
    let settings = web::Settings { connections, ..web::Settings::new(console.url.clone()) };
    Some(Web::new(settings, shared.desk.clone(), Arc::clone(&shared.directory), views))
}

fn limits(limits: &config::Limits) -> ProxyLimits {
    ProxyLimits {
        sessions: limits.sessions,
        sessions_per_agent: limits.sessions_per_agent,
        login: limits.login,
        unproved: limits.unauthenticated,
        unproved_per_address: limits
            .unauthenticated_per_address
            .unwrap_or_else(|| limits.unauthenticated.div_ceil(4)),
        session: session::Limits {
            message: limits.message_bytes,
            unit: limits.message_bytes,
            prepared_bytes: limits.prepared_bytes,
            prepared_bytes_per_agent: limits.prepared_bytes_per_agent,
            transaction_bytes: limits.transaction_bytes,
            ..session::Limits::default()
        },
    }
}

/// The certificate that agents are shown, read from its files.
pub(super) fn agent_tls(config: &Config) -> anyhow::Result<Option<AgentTls>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    Ok(Some(AgentTls::load(&tls.certificate, &tls.key, tls.client_ca.as_deref())?))
}

/// The upstreams of a configuration, which come after `earlier` ones of the same names.
pub(super) fn upstreams(
    config: &Config,
    declared: &Arc<Declared>,
    earlier: &BTreeMap<UpstreamName, Arc<UpstreamState>>,
) -> anyhow::Result<BTreeMap<UpstreamName, Arc<UpstreamState>>> {
    let reached = |(name, upstream): (&UpstreamName, _)| {
        let state = state(upstream, Arc::clone(declared))?;
        let state = match earlier.get(name) {
            Some(earlier) => state.succeeding(earlier),
            None => state,
        };
        Ok((name.clone(), Arc::new(state)))
    };
    config.upstreams.iter().map(reached).collect()
}

/// One upstream, with its certificates read.
pub(super) fn state(upstream: &config::Upstream, declared: Arc<Declared>) -> anyhow::Result<UpstreamState> {
    let mode = match upstream.tls {
        UpstreamTls::VerifyFull => UpstreamTlsMode::VerifyFull,
        UpstreamTls::VerifyCa => UpstreamTlsMode::VerifyCa,
        UpstreamTls::Require => UpstreamTlsMode::Require,
        UpstreamTls::Disable => UpstreamTlsMode::Disable,
    };
    let client = upstream.client.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let tls = upstream_config(mode, upstream.ca.as_deref(), client)
        .with_context(|| format!("TLS of upstream \"{}\"", upstream.name))?;
    let reached = Upstream {
        name: upstream.name.clone(),
        host: upstream.host.clone(),
        port: upstream.port,
        database: upstream.target.database.clone(),
        role: upstream.target.role.clone(),
        password: upstream.password.as_ref().map(|secret| Zeroizing::new(secret.expose().to_owned())),
        tls,
        timeout: Duration::from_secs(10),
        agents_name_sessions: upstream.application_name == ApplicationName::Agent,
    };
    Ok(UpstreamState::new(reached, declared))
}
