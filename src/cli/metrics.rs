//! `[metrics]`: counters and gauges for Prometheus, in its text format 0.0.4. No names of agents, no SQL.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::channel::Channel;
use crate::proxy::Shared;
use crate::proxy::sessions::Doing;
use crate::web::ConnectionLimits;
use crate::web::serve::serve_router;

/// Whoever reads metrics is a stranger here; a few servers do.
const CONNECTIONS: usize = 64;

/// Answers `GET /metrics` until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, channels: Vec<Arc<dyn Channel>>) {
    let answer = move || {
        let text = text(&shared, &channels);
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    let router = Router::new().route("/metrics", get(answer));
    serve_router(listener, None, router, ConnectionLimits::of(CONNECTIONS), std::future::pending()).await;
}

fn text(shared: &Shared, channels: &[Arc<dyn Channel>]) -> String {
    let (accepted, turned_away, malformed) = shared.counters.read();
    let sessions = shared.sessions.list();
    let held = sessions.iter().filter(|watch| matches!(watch.doing(), Doing::Holding)).count();
    let waiting = shared.desk.counts().waiting;
    let ledger = shared.ledger.status();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP countersign_{name} {help}\n# TYPE countersign_{name} {kind}");
        let _ = writeln!(text, "countersign_{name} {value}");
    };
    metric("connections_total", "counter", "Connections accepted.", accepted);
    metric("connections_turned_away_total", "counter", "Connections that did not get in.", turned_away);
    metric("sessions_malformed_total", "counter", "Connections closed for malformed bytes.", malformed);
    metric("sessions", "gauge", "Sessions that are open.", sessions.len() as u64);
    metric("sessions_held", "gauge", "Sessions whose statement waits for approval.", held as u64);
    metric("requests_waiting", "gauge", "Requests that wait for an answer.", waiting as u64);
    metric(
        "ledger_entries",
        "counter",
        "Entries under the last checkpoint.",
        ledger.head.map_or(0, |h| h.size),
    );
    metric(
        "ledger_backlog_bytes",
        "gauge",
        "Bytes in the spool that are not in the file.",
        ledger.backlog_bytes,
    );
    metric("ledger_healthy", "gauge", "1 while the ledger writes.", ledger.is_healthy().into());
    metric("upstreams_in_trouble", "gauge", "Upstreams that could not be reached last.", {
        let upstreams = shared.upstreams.load();
        upstreams.values().filter(|upstream| upstream.trouble().is_some()).count() as u64
    });
    for channel in channels {
        let name = format!("{}_connected", channel.name());
        let help = format!("1 while reviewers can be reached through {}.", channel.name().title());
        metric(&name, "gauge", &help, channel.status().connected.into());
    }
    text
}
