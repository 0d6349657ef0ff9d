//! A socket, plain or under TLS, in either direction.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// How long unacknowledged data may stay in flight before the connection counts as dead.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a silent connection stays without a keepalive probe.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection to an agent or to upstream.
#[derive(Debug)]
pub enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A Unix-domain socket.
    Unix(UnixStream),
    /// An agent's, under TLS.
    Agent(Box<server::TlsStream<TcpStream>>),
    /// Upstream's, under TLS.
    Upstream(Box<client::TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Agent(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::Upstream(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Agent(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Upstream(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Agent(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Upstream(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Agent(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Upstream(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Small messages leave at once, and dead peers are noticed: a host that vanished must not keep a
/// transaction, and its locks, open for hours.
///
/// # Errors
/// When the socket does not take an option.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tuned_socket_sends_at_once_and_notices_the_dead() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, (theirs, _)) = tokio::try_join!(connecting, listener.accept()).unwrap();

        for socket in [ours, theirs] {
            tune(&socket).unwrap();
            let socket = socket2::SockRef::from(&socket);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        }
    }
}
