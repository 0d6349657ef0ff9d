//! Sockets, TLS, and shutting down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use tracing::{debug, info, warn};

use super::Web;
use super::caller::Peer;
use super::connections::{Connection, ConnectionLimits, Connections};

/// How long a TLS handshake, and the head of a request, may take.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long requests in flight get when the server shuts down, or a connection's time is over.
const GOODBYE: Duration = Duration::from_secs(5);
/// How often it is asked whether a connection's time is over.
const CHECK: Duration = Duration::from_secs(1);

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
        info!(address = %listener.local_addr()?, url = %self.0.settings.url, tls = tls.is_some(), "console listening");
        let shutdown = async {
            shutdown.await;
            self.0.closing.send_replace(true);
        };
        serve_router(listener, tls, self.router(), self.0.settings.connections, shutdown).await;
        Ok(())
    }
}

/// Serves `router` over HTTP/1 and HTTP/2 until `shutdown` is done, with no more connections, and none
/// for longer, than `limits` allow.
pub async fn serve_router(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let tls = tls.map(|config| TlsAcceptor::from(for_http(&config)));
    let connections = Connections::new(limits);
    let (stop, stopped) = watch::channel(false);
    // Every connection has a sender; the receiver learns when the last of them has gone.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        let Some((socket, address)) = accepted else { continue };
        let Some(connection) = connections.enter(address.ip(), Instant::now()) else {
            debug!(%address, "all connections are in use");
            continue;
        };
        let _ = socket.set_nodelay(true);
        let served =
            Served { router: router.clone(), peer: Peer(address), connection, stopped: stopped.clone() };
        let (tls, open) = (tls.clone(), open.clone());
        tokio::spawn(async move {
            let _open = open;
            let Some(tls) = tls else { return served.drive(socket).await };
            let handshake = tokio::time::timeout(BEGINNING, tls.accept(socket));
            let accepted = tokio::select! {
                accepted = handshake => accepted,
                () = served.connection.gives_way() => return,
            };
            match accepted {
                Ok(Ok(stream)) => served.drive(stream).await,
                Ok(Err(error)) => debug!(%address, %error, "no TLS"),
                Err(_) => debug!(%address, "no TLS in time"),
            }
        });
    }
    drop(open);
    stop.send_replace(true);
    if tokio::time::timeout(GOODBYE, all_closed.recv()).await.is_err() {
        warn!("web requests in flight were cut off");
    }
}

/// HTTP over the same certificate that Postgres agents are shown.
fn for_http(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The next connection.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Usually too many open files: it passes when others hang up, and asking at once again
            // would only burn the processor.
            warn!(%error, "an HTTP connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

/// One connection that is served.
struct Served {
    router: Router,
    peer: Peer,
    connection: Connection,
    stopped: watch::Receiver<bool>,
}

impl Served {
    async fn drive(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self { router, peer, connection, mut stopped } = self;
        let used = connection.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(used.clone());
            let under_way = used.begin();
            let mut router = router.clone();
            async move {
                let answer = router.call(request.map(Body::new)).await?;
                Ok::<_, std::convert::Infallible>(answer.map(|body| under_way.until_sent(body)))
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(BEGINNING).max_buf_size(64 << 10);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(32 << 10);
        builder.http2().keep_alive_interval(Duration::from_secs(30));
        let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut served = std::pin::pin!(served);
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When it is cut off that was told to end.
        let mut deadline: Option<Instant> = None;
        loop {
            let has_to_end = tokio::select! {
                ended = served.as_mut() => {
                    if let Err(error) = ended {
                        debug!(peer = %peer.0, %error, "a web connection broke");
                    }
                    return;
                }
                () = connection.gives_way() => return,
                _ = stopped.wait_for(|stopped| *stopped), if deadline.is_none() => true,
                now = check.tick() => match deadline {
                    Some(deadline) if now >= deadline => return,
                    Some(_) => false,
                    None => connection.is_over(now),
                },
            };
            if has_to_end && deadline.is_none() {
                deadline = Some(Instant::now() + GOODBYE);
                served.as_mut().graceful_shutdown();
            }
        }
    }
}
