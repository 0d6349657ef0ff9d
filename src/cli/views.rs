//! What the console and the API see of a running proxy.

use std::sync::Arc;

use crate::actor::ReviewerId;
use crate::channel::Channel;
use crate::classify::{Catalogue, Classification, Context, SearchPath};
use crate::ledger::Event;
use crate::policy::Policy;
use crate::proxy::Shared;
use crate::proxy::sessions::{Doing, Watch};
use crate::statement::{SessionId, SqlText, Target, TransactionStatus};
use crate::web::views::{Activity, HealthView, PartStatus, PolicyView, SessionRow, SessionsView, ViewError};

/// A running proxy, looked at from the web side.
pub(super) struct Seen {
    pub(super) shared: Arc<Shared>,
    pub(super) channels: Vec<Arc<dyn Channel>>,
}

impl SessionsView for Seen {
    fn sessions(&self) -> Vec<SessionRow> {
        self.shared.sessions.list().iter().map(|watch| row(watch)).collect()
    }

    fn kill(&self, session: SessionId, by: &ReviewerId) -> Result<bool, ViewError> {
        let event = Event::ConfigChanged {
            what: format!("session {session} ended by an operator"),
            by: Some(by.to_string()),
            digest: None,
            difference: None,
        };
        let recorded = self.shared.ledger.append(event);
        recorded.map_err(|error| ViewError::Unavailable(format!("not ended: {error}")))?;
        Ok(self.shared.sessions.kill(session))
    }
}

fn row(watch: &Watch) -> SessionRow {
    let doing = watch.doing();
    SessionRow {
        id: watch.id,
        agent: watch.identity.agent.name.clone(),
        upstream: watch.target.upstream.to_string(),
        database: watch.target.database.to_string(),
        role: watch.target.role.to_string(),
        client_address: watch.identity.client_address.to_string(),
        method: watch.identity.method.as_str(),
        tls: watch.encrypted,
        opened_at: watch.since,
        activity: match doing {
            Doing::Idle | Doing::InTransaction => Activity::Idle,
            Doing::Running => Activity::Running,
            Doing::Holding => Activity::Held,
        },
        request: *watch.held.lock(),
        transaction: match doing {
            Doing::Idle => Some(TransactionStatus::Idle),
            Doing::InTransaction => Some(TransactionStatus::InBlock),
            Doing::Running | Doing::Holding => None,
        },
        statements: watch.statements(),
        claimed: watch.claimed.lock().clone(),
    }
}

impl PolicyView for Seen {
    fn policy(&self) -> Arc<Policy> {
        self.shared.policy.load_full()
    }

    fn targets(&self) -> Vec<Target> {
        self.shared.upstreams.load().values().map(|state| state.upstream.target()).collect()
    }

    fn classify(
        &self,
        sql: &SqlText,
        target: &Target,
        search_path: &SearchPath,
    ) -> Result<Arc<Classification>, ViewError> {
        let known = self.shared.upstreams.load().get(&target.upstream).and_then(|state| state.last());
        // An upstream that nobody has used yet: Postgres's own functions are all that is known of it.
        let (version, catalogue) = match known {
            Some(known) => (known.server_version, Arc::clone(&known.catalogue)),
            None => (15, Catalogue::built_in_with(15, self.shared.policy.load().declared())),
        };
        let context = Context {
            server_version: version,
            catalogue: &catalogue,
            search_path,
            database: target.database.as_str(),
            role: target.role.as_str(),
            strings_standard: true,
        };
        Ok(self.shared.classifier.classify(sql, &context))
    }
}

impl HealthView for Seen {
    fn upstreams(&self) -> Vec<PartStatus> {
        self.shared
            .upstreams
            .load()
            .values()
            .map(|state| {
                let trouble = state.trouble();
                PartStatus {
                    name: state.upstream.name.to_string(),
                    healthy: trouble.is_none(),
                    note: trouble,
                }
            })
            .collect()
    }

    fn channels(&self) -> Vec<PartStatus> {
        let channels = self.channels.iter().map(|channel| {
            let status = channel.status();
            let note = status.last_error.filter(|_| !status.connected).map(|last| last.error);
            PartStatus { name: channel.name().to_string(), healthy: status.connected, note }
        });
        let trouble = self.shared.trouble.lock().clone();
        let files =
            trouble.map(|note| PartStatus { name: "files".to_owned(), healthy: false, note: Some(note) });
        channels.chain(files).collect()
    }
}
