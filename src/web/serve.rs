//! Sockets, TLS, and shutting down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use tracing::{debug, info, warn};

use super::Web;
use super::caller::Peer;

/// Connections at a time. Whoever comes later waits to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a TLS handshake, and the head of a request, may take.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long requests in flight get when the server shuts down.
const GOODBYE: Duration = Duration::from_secs(5);

impl Web {
    /// Serves `listener` until `shutdown` is done; then takes no more connections, ends streams of
    /// events, and gives requests in flight a moment.
    ///
    /// # Errors
    /// When the listener breaks for good.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let tls = tls.map(|config| TlsAcceptor::from(for_http(&config)));
        let router = self.router();
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        info!(address = %listener.local_addr()?, url = %self.0.settings.url, tls = tls.is_some(), "console listening");
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &places) => accepted,
                () = &mut shutdown => break,
            };
            let Some((socket, address, place)) = accepted else { continue };
            let _ = socket.set_nodelay(true);
            let connection =
                Connection { router: router.clone(), peer: Peer(address), watcher: graceful.watcher() };
            let tls = tls.clone();
            tokio::spawn(async move {
                let _place = place;
                let Some(tls) = tls else { return connection.drive(socket).await };
                match tokio::time::timeout(BEGINNING, tls.accept(socket)).await {
                    Ok(Ok(stream)) => connection.drive(stream).await,
                    Ok(Err(error)) => debug!(%address, %error, "no TLS"),
                    Err(_) => debug!(%address, "no TLS in time"),
                }
            });
        }
        self.0.closing.send_replace(true);
        if tokio::time::timeout(GOODBYE, graceful.shutdown()).await.is_err() {
            warn!("web requests in flight were cut off");
        }
        Ok(())
    }
}

/// HTTP over the same certificate that Postgres agents are shown.
fn for_http(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

type Accepted = (tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, address)) => Some((socket, address, place)),
        Err(error) => {
            // Usually too many open files: it passes when others hang up, and asking at once again
            // would only burn the processor.
            warn!(%error, "a connection to the console could not be accepted");
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

struct Connection {
    router: axum::Router,
    peer: Peer,
    watcher: hyper_util::server::graceful::Watcher,
}

impl Connection {
    async fn drive(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self { router, peer, watcher } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let mut router = router.clone();
            async move { router.call(request.map(Body::new)).await }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(BEGINNING).max_buf_size(64 << 10);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(32 << 10);
        builder.http2().keep_alive_interval(Duration::from_secs(30));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            debug!(peer = %peer.0, %error, "a web connection broke");
        }
    }
}
