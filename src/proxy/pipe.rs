//! One side of a session: a socket, what was read from it and not consumed, what waits to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use super::stream::Stream;

/// How much is read at a time when there is much to read.
const LARGE_READ: usize = 64 << 10;
/// How much room an idle session keeps.
const SMALL_READ: usize = 4 << 10;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pipe {
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
    /// The last read filled its buffer: there is probably more.
    busy: bool,
    closed: bool,
    broken: bool,
    finished: bool,
}

impl Pipe {
    pub(super) fn new(stream: Stream, input: BytesMut) -> Self {
        Self {
            stream,
            input,
            output: BytesMut::new(),
            busy: false,
            closed: false,
            broken: false,
            finished: false,
        }
    }

    /// What was read and not consumed.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    pub(super) fn consume(&mut self, count: usize) {
        if count == self.input.len() {
            self.input.clear();
            // What one large message took is given back; an idle session holds little.
            if self.input.capacity() > LARGE_READ * 2
                || (!self.busy && self.input.capacity() > SMALL_READ * 2)
            {
                self.input = BytesMut::new();
            }
        } else {
            self.input.advance(count);
        }
    }

    /// What waits to be written.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The peer closed its side, or the connection broke.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The peer takes nothing more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Reads once; `Ready` when something came or the peer closed.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed {
            return Poll::Pending;
        }
        self.input.reserve(if self.busy { LARGE_READ } else { SMALL_READ });
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(read)) => {
                self.closed = read == 0;
                self.busy = self.input.len() == self.input.capacity();
            }
            Poll::Ready(Err(_)) => {
                self.closed = true;
                self.broken = true;
            }
        }
        Poll::Ready(())
    }

    /// Writes `bytes`, behind what waits already. What the socket does not take at once waits.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) {
        while self.output.is_empty() && !bytes.is_empty() && !self.broken {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
                Poll::Ready(_) => self.broken = true,
            }
        }
        if !self.broken {
            self.output.extend_from_slice(bytes);
        }
    }

    /// Writes as much as the socket takes; `Ready` when nothing is left.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.output.is_empty() && !self.broken {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written)) if written > 0 => self.output.advance(written),
                Poll::Ready(_) => self.broken = true,
            }
        }
        if self.broken {
            self.output.clear();
        } else if self.output.capacity() > LARGE_READ * 2 {
            self.output = BytesMut::new();
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(flushed) => {
                self.broken |= flushed.is_err();
                Poll::Ready(())
            }
        }
    }

    /// Ends our side, once. The peer sees that nothing more comes, and may go on writing.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) {
        if !self.finished && self.output.is_empty() {
            self.finished = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
    }

    /// Ends our side after what waits has been written.
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write(cx)).await;
        std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }
}
