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

use super::reload;
use crate::actor::UpstreamName;
use crate::classify::{self, Classifier};
use crate::config::{self, Config, UpstreamTls};
use crate::desk::{Clock, Desk};
use crate::ledger::{self, Event, Ledger};
use crate::proxy::catalogue::UpstreamState;
use crate::proxy::sessions::Sessions;
use crate::proxy::tls::{AgentTls, UpstreamTlsMode, upstream_config};
use crate::proxy::upstream::Upstream;
use crate::proxy::{self, Counters, ProxyLimits, Shared, Stop};
use crate::session;

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
    super::logging();
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

/// The runtime that everything is driven by. Statements are parsed on its threads, and the parser
/// wants deep stacks (see [`crate::classify`]).
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build();
    runtime.context("cannot start the runtime")
}

/// A running proxy.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<ArcSwap<Config>>,
    stop: watch::Sender<Stop>,
    agents: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts everything that `config` names; when it returns, agents can connect.
    pub(super) async fn start(config: Config) -> anyhow::Result<Self> {
        proxy::tls::install_provider();
        let policy = config.load_policy().map_err(|problems| {
            super::report_problems(&problems);
            anyhow::anyhow!("the policies cannot be loaded")
        })?;
        let ledger = Ledger::open(&ledger_settings(&config)).context("cannot open the ledger")?;
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

        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let shared = Arc::new(Shared {
            classifier: Classifier::new(classify::Limits::default()),
            policy: ArcSwap::from_pointee(policy),
            ledger,
            desk: desk.clone(),
            directory,
            upstreams: ArcSwap::from_pointee(upstreams(&config)?),
            tls: ArcSwap::from_pointee(agent_tls(&config)?),
            insecure_plaintext: config.insecure_plaintext,
            sessions: Sessions::default(),
            limits: limits(&config.limits),
            counters: Counters::default(),
            trouble: parking_lot::Mutex::default(),
            started: Instant::now(),
            per_agent: parking_lot::Mutex::default(),
        });
        let (stop, stopped) = watch::channel(Stop::Run);
        info!(listen = %listener.local_addr()?, upstreams = config.upstreams.len(), "countersign is ready");
        let agents = tokio::spawn(proxy::serve(Arc::clone(&shared), listener, stopped));
        let config = Arc::new(ArcSwap::from_pointee(config));
        let background = vec![
            tokio::spawn(async move { desk.run_timers().await }),
            tokio::spawn(reload::watch(Arc::clone(&shared), Arc::clone(&config))),
        ];
        Ok(Self { shared, config, stop, agents, background })
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
        let Self { shared, stop, mut agents, background, .. } = self;
        let _ = stop.send(Stop::Drain);
        tokio::select! {
            _ = &mut agents => {}
            () = impatience => {
                let _ = stop.send(Stop::Now);
                let _ = tokio::time::timeout(Duration::from_secs(5), agents).await;
            }
        }
        for task in background {
            task.abort();
        }
        let ledger = shared.ledger.clone();
        // Joins the writer's thread, which may take a moment.
        let _ = tokio::task::spawn_blocking(move || ledger.close()).await;
        info!("countersign has stopped");
    }
}

/// The ledger's settings, from the configuration's.
pub(super) fn ledger_settings(config: &Config) -> ledger::Settings {
    let mut settings = ledger::Settings::new(&config.ledger.path);
    settings.key = Some(config.ledger.keys.join("ledger.key"));
    settings.spool = Some(config.ledger.spool.clone());
    settings.signing = match config.ledger.signing {
        config::Signing::EveryEntry => ledger::Signing::EveryEntry,
        config::Signing::Checkpoint => ledger::Signing::Checkpoint,
    };
    settings.heads = config.ledger.head_file.iter().cloned().collect();
    settings
}

fn limits(limits: &config::Limits) -> ProxyLimits {
    ProxyLimits {
        sessions: limits.sessions,
        sessions_per_agent: limits.sessions_per_agent,
        unproved: 256,
        session: session::Limits {
            message: limits.message_bytes,
            unit: limits.message_bytes,
            ..session::Limits::default()
        },
    }
}

/// The certificate that agents are shown, read from its files.
pub(super) fn agent_tls(config: &Config) -> anyhow::Result<Option<AgentTls>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    Ok(Some(AgentTls::load(&tls.certificate, &tls.key, tls.client_ca.as_deref())?))
}

/// The upstreams of a configuration.
pub(super) fn upstreams(config: &Config) -> anyhow::Result<BTreeMap<UpstreamName, Arc<UpstreamState>>> {
    config.upstreams.iter().map(|(name, upstream)| Ok((name.clone(), Arc::new(state(upstream)?)))).collect()
}

/// One upstream, with its certificates read.
pub(super) fn state(upstream: &config::Upstream) -> anyhow::Result<UpstreamState> {
    let mode = match upstream.tls {
        UpstreamTls::VerifyFull => UpstreamTlsMode::VerifyFull,
        UpstreamTls::VerifyCa => UpstreamTlsMode::VerifyCa,
        UpstreamTls::Require => UpstreamTlsMode::Require,
        UpstreamTls::Disable => UpstreamTlsMode::Disable,
    };
    let tls = upstream_config(mode, upstream.ca.as_deref(), None)
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
    };
    Ok(UpstreamState::new(reached, Vec::new()))
}
