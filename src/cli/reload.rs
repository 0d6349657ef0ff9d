//! Changes while the proxy runs: policies, agents, reviewers, upstreams, certificates.
//!
//! A changed file is used only when all of it is good: policies after their cases have passed, the
//! configuration when every line of it makes sense. Until then the old one stays in force, and the
//! error is logged and shown in `status`. What listens where, the ledger and limits need a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::serve;
use crate::classify::Classifier;
use crate::config::Config;
use crate::ledger::Event;
use crate::policy::Policy;
use crate::proxy::Shared;

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How many looks apart the time of day is asked for, by which rules begin to speak.
const HOURS_EVERY: u32 = 5;

/// What a file looks like from outside; enough to see that it was written.
type Look = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

/// What the files look like before they are read: a change while they are is a change, too.
pub(super) struct Before {
    policies: Look,
    configuration: Look,
}

impl Before {
    pub(super) fn of(config: &Config) -> Self {
        Self { policies: look_at_policies(config), configuration: look_at_configuration(config) }
    }
}

/// Looks for changes since `before`, for ever.
pub(super) async fn watch(shared: Arc<Shared>, config: Arc<ArcSwap<Config>>, before: Before) {
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        error!("cannot listen for SIGHUP");
        return;
    };
    let Before { mut policies, mut configuration } = before;
    let mut looks = 0_u32;
    loop {
        let told = tokio::select! {
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(EVERY) => false,
        };
        let now = look_at_configuration(&config.load());
        let is_configured_anew = told || now != configuration;
        if is_configured_anew {
            configuration = now;
            reload_configuration(&shared, &config);
        }
        let now = look_at_policies(&config.load());
        // The configuration says who is asked where no rule does, and for how long.
        if is_configured_anew || now != policies {
            policies = now;
            reload_policies(&shared, &config.load());
        }
        looks = (looks + 1) % HOURS_EVERY;
        if looks == 0 && has_hours(&shared.policy.load()) && shared.desk.counts().waiting > 0 {
            shared.reconsider();
        }
    }
}

fn look(paths: impl IntoIterator<Item = PathBuf>) -> Look {
    let seen =
        |path: &Path| std::fs::metadata(path).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
    paths.into_iter().map(|path| (path.clone(), seen(&path))).collect()
}

fn look_at_policies(config: &Config) -> Look {
    let files =
        std::fs::read_dir(&config.policy.dir).into_iter().flatten().flatten().map(|entry| entry.path());
    look(files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")))
}

fn look_at_configuration(config: &Config) -> Look {
    look(config.files.iter().cloned())
}

/// Whether what a policy says depends on the time.
fn has_hours(policy: &Policy) -> bool {
    policy.rules().iter().any(|rule| rule.when.hours.is_some())
}

fn reload_policies(shared: &Shared, config: &Config) {
    let loaded =
        config.load_policy().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    let policy = match loaded.and_then(|policy| passing(&shared.classifier, policy)) {
        Ok(policy) => policy,
        Err(problems) => {
            for problem in &problems {
                warn!(%problem, "changed policies are not used");
            }
            *shared.trouble.lock() = Some(format!("changed policies are not used: {}", problems.join("; ")));
            return;
        }
    };
    *shared.trouble.lock() = None;
    let old = shared.policy.load().digest();
    if policy.digest() == old {
        return;
    }
    let event = Event::PolicyLoaded {
        policy: policy.digest(),
        what: format!("changed files in {}", config.policy.dir.display()),
        by: None,
        difference: Some(format!("{old} -> {}", policy.digest())),
        rules: policy.rules().len() as u64,
    };
    // A change that is not on record does not take effect.
    if let Err(error) = shared.ledger.append(event) {
        error!(%error, "changed policies are not used: the ledger cannot record them");
        return;
    }
    info!(policy = %policy.digest(), rules = policy.rules().len(), "policies loaded");
    let declared = Arc::clone(policy.declared());
    let is_new = **shared.policy.load().declared() != *declared;
    shared.policy.store(Arc::new(policy));
    if is_new {
        for upstream in shared.upstreams.load().values() {
            upstream.declare(Arc::clone(&declared));
        }
    }
    shared.reconsider();
}

/// `policy`, if its own cases pass.
pub(super) fn passing(classifier: &Classifier, policy: Policy) -> Result<Policy, Vec<String>> {
    let failed: Vec<String> = policy
        .run_cases(classifier)
        .into_iter()
        .flat_map(|(case, ran)| {
            ran.failures.into_iter().map(move |failure| format!("case \"{case}\": {failure}"))
        })
        .collect();
    if failed.is_empty() { Ok(policy) } else { Err(failed) }
}

fn reload_configuration(shared: &Shared, config: &ArcSwap<Config>) {
    let old = config.load();
    let new = match Config::load(&old.path) {
        Ok(new) => new,
        Err(problems) => {
            for problem in &problems {
                warn!(%problem, "the changed configuration is not used");
            }
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            *shared.trouble.lock() =
                Some(format!("the changed configuration is not used: {}", problems.join("; ")));
            return;
        }
    };
    let parts = serve::agent_tls(&new).and_then(|tls| {
        Ok((tls, serve::upstreams(&new, shared.policy.load().declared(), &shared.upstreams.load())?))
    });
    let (tls, upstreams) = match parts {
        Ok(parts) => parts,
        Err(error) => {
            warn!(%error, "the changed configuration is not used");
            *shared.trouble.lock() = Some(format!("the changed configuration is not used: {error:#}"));
            return;
        }
    };
    *shared.trouble.lock() = None;
    if new.digest != old.digest {
        let event = Event::ConfigChanged {
            what: "the configuration file changed".to_owned(),
            by: None,
            digest: Some(new.digest),
            difference: Some(format!("{} -> {}", old.digest, new.digest)),
        };
        if let Err(error) = shared.ledger.append(event) {
            error!(%error, "the changed configuration is not used: the ledger cannot record it");
            return;
        }
    }
    if new.listen != old.listen || new.ledger != old.ledger || new.limits != old.limits {
        warn!("listen, ledger and limits take effect after a restart");
    }
    info!(config = %new.digest, "configuration loaded");
    shared.directory.store(Arc::clone(&new.directory));
    shared.tls.store(Arc::new(tls));
    shared.upstreams.store(Arc::new(upstreams));
    config.store(Arc::new(new));
    shared.end_revoked();
    shared.reconsider();
}
