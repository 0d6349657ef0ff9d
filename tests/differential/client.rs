//! One connection that plays a script and keeps what was answered.

use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::script::{Script, Step};
use super::transcript::Reader;

/// An answer that takes longer will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing came for so long: what was asked has been answered, or waits for more. Taking it for
/// answered too early does no harm, since what was answered is compared as a whole.
const QUIET: Duration = Duration::from_millis(4);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub enum Place {
    /// Postgres itself, by its Unix socket, which asks for no password.
    Direct { socket: String, user: String, database: String },
    /// Through the proxy.
    Proxied { port: u16, user: String, password: String, database: String },
}

/// The answers to a script.
#[derive(Debug, Default)]
pub struct Played {
    pub lines: Vec<String>,
    /// How many answers there were at each `Wait`.
    pub at_waits: Vec<usize>,
    /// What should have come and did not.
    pub stalled: Option<String>,
}

/// See the module's documentation.
pub struct Client {
    stream: Pin<Box<dyn Stream>>,
    input: BytesMut,
    reader: Reader,
    lines: Vec<String>,
    closed: bool,
    patience: Duration,
}

async fn message(stream: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> io::Result<(u8, BytesMut)> {
    loop {
        if let Some((tag, total)) = header(input)
            && input.len() >= total
        {
            let mut message = input.split_to(total);
            message.advance(5);
            return Ok((tag, message));
        }
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn header(input: &[u8]) -> Option<(u8, usize)> {
    let [tag, length @ ..] = input.first_chunk::<5>()?;
    Some((*tag, u32::from_be_bytes(*length) as usize + 1))
}

/// Whether it is what the scanner says of a long identifier.
pub fn is_about_identifiers(line: &str) -> bool {
    line.starts_with("NoticeResponse") && line.contains("C=\"42622\"")
}

/// How many answers there are that have to be there on either side.
fn answers(lines: &[String]) -> usize {
    lines.iter().filter(|line| !is_about_identifiers(line)).count()
}

impl Client {
    /// Connects and logs in; also returns what the server reported of itself.
    pub async fn connect(place: &Place, patience: Duration) -> io::Result<(Self, Vec<(String, String)>)> {
        let (mut stream, user, database): (Pin<Box<dyn Stream>>, _, _) = match place {
            Place::Direct { socket, user, database } => {
                (Box::pin(UnixStream::connect(socket).await?), user, database)
            }
            Place::Proxied { port, user, database, .. } => {
                let socket = TcpStream::connect(("127.0.0.1", *port)).await?;
                socket.set_nodelay(true)?;
                (Box::pin(socket), user, database)
            }
        };
        let mut output = BytesMut::new();
        let parameters = [
            ("user", user.as_str()),
            ("database", database),
            ("application_name", "differential"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut output)?;
        stream.write_all(&output).await?;
        let mut input = BytesMut::new();
        let mut scram = None;
        let mut reported = Vec::new();
        let mut process = 0;
        loop {
            let (tag, body) = message(&mut stream, &mut input).await?;
            output.clear();
            match (tag, body.first_chunk::<4>().map(|kind| u32::from_be_bytes(*kind))) {
                (b'R', Some(10)) => {
                    let Place::Proxied { password, .. } = place else { continue };
                    let exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut output)?;
                    scram = Some(exchange);
                }
                (b'R', Some(11)) => {
                    let exchange = scram.as_mut().expect("an exchange has begun");
                    exchange.update(&body[4..])?;
                    frontend::sasl_response(exchange.message(), &mut output)?;
                }
                (b'R', Some(12)) => scram.as_mut().expect("an exchange has begun").finish(&body[4..])?,
                (b'S', _) => {
                    let mut texts = body[..].split(|&byte| byte == 0).map(String::from_utf8_lossy);
                    let mut next = || texts.next().unwrap_or_default().into_owned();
                    reported.push((next(), next()));
                }
                (b'K', Some(id)) => process = id.cast_signed(),
                (b'E', _) => return Err(io::Error::other(Reader::new(0, "").line(tag, &body))),
                (b'Z', _) => break,
                _ => {}
            }
            stream.write_all(&output).await?;
        }
        let application_name = reported.iter().find(|(name, _)| name == "application_name");
        let application_name = application_name.map(|(_, value)| value.as_str()).unwrap_or_default();
        let reader = Reader::new(process, application_name);
        Ok((Self { stream, input, reader, lines: Vec::new(), closed: false, patience }, reported))
    }

    /// Sends one `Query` and returns what is answered.
    pub async fn query(&mut self, sql: &str) -> io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        Step::Query(sql.as_bytes().to_vec()).put(&mut bytes);
        self.stream.write_all(&bytes).await?;
        let ready = |lines: &[String]| lines.last().is_some_and(|line| line.starts_with("ReadyForQuery"));
        if !self.read_until(ready).await || self.closed {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(std::mem::take(&mut self.lines))
    }

    /// Plays a script to its end. `guide` tells how many answers there should be at each `Wait`;
    /// without one, it waits until nothing more comes.
    pub async fn play(mut self, script: &Script, guide: Option<&[usize]>) -> Played {
        let mut played = Played::default();
        let mut burst = Vec::new();
        let mut ended = false;
        for step in &script.steps {
            match step {
                Step::Settle => Self::put_barrier(&mut burst),
                Step::Wait | Step::Sleep(_) | Step::HalfClose | Step::Terminate => step.put(&mut burst),
                message => {
                    message.put(&mut burst);
                    continue;
                }
            }
            self.send(&burst, script).await;
            burst.clear();
            match step {
                Step::Sleep(milliseconds) => self.read_for(Duration::from_millis(*milliseconds)).await,
                Step::Settle => {
                    if !self.read_until(Self::is_barrier).await {
                        played.stalled = Some("the barrier was not answered".to_owned());
                        break;
                    }
                }
                Step::Wait => {
                    match guide {
                        None => self.read_until_quiet().await,
                        Some(counts) => {
                            let wait = played.at_waits.len();
                            if !self.read_until(|lines| answers(lines) >= counts[wait]).await {
                                let (had, wanted) = (answers(&self.lines), counts[wait]);
                                played.stalled =
                                    Some(format!("{had} of {wanted} answers at Wait {}", wait + 1));
                                break;
                            }
                        }
                    }
                    played.at_waits.push(answers(&self.lines));
                }
                _ => {
                    if *step == Step::HalfClose {
                        let _ = self.stream.shutdown().await;
                    }
                    ended = true;
                    break;
                }
            }
        }
        if !ended && played.stalled.is_none() {
            Self::put_barrier(&mut burst);
            self.send(&burst, script).await;
            if !self.read_until(Self::is_barrier).await {
                played.stalled = Some("the barrier at the end was not answered".to_owned());
            }
            let mut terminate = Vec::new();
            Step::Terminate.put(&mut terminate);
            self.send(&terminate, script).await;
        }
        if played.stalled.is_none() && !self.read_until(|_| false).await {
            played.stalled = Some("the connection did not end".to_owned());
        }
        if self.closed {
            self.lines.push("(closed)".to_owned());
        }
        played.lines = self.lines;
        played
    }

    /// Whatever state the session is in, this is answered with seven `CloseComplete` in a row.
    fn put_barrier(out: &mut Vec<u8>) {
        Step::CopyFail(b"the script has ended".to_vec()).put(out);
        Step::Sync.put(out);
        for _ in 0..7 {
            Step::Close(b'S', b"the script has ended".to_vec()).put(out);
        }
        Step::Sync.put(out);
    }

    fn is_barrier(lines: &[String]) -> bool {
        let [before @ .., last] = lines else { return false };
        last.starts_with("ReadyForQuery")
            && before.len() >= 7
            && before[before.len() - 7..].iter().all(|line| line == "CloseComplete")
    }

    async fn send(&mut self, bytes: &[u8], script: &Script) {
        /// Behind so many bytes, chunks are larger: a megabyte byte by byte shows nothing more.
        const SMALL: usize = 4096;
        let mut rest = bytes;
        let mut sizes = script.chunks.iter().cycle();
        while !rest.is_empty() && !self.closed {
            let size = sizes.next().copied().unwrap_or(usize::MAX);
            let size = if bytes.len() - rest.len() > SMALL { size.saturating_mul(997) } else { size };
            let (mut chunk, after) = rest.split_at(size.clamp(1, rest.len()));
            rest = after;
            while !chunk.is_empty() && !self.closed {
                // Both ways at once: a server that cannot write its answers reads nothing more.
                let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
                tokio::select! {
                    biased;
                    written = writing.write(chunk) => match written {
                        Ok(count) => chunk = &chunk[count..],
                        // What was answered before is still there to be read.
                        Err(_) => return,
                    },
                    read = reading.read_buf(&mut self.input) => {
                        self.closed = !matches!(read, Ok(1..));
                    }
                }
                self.take();
            }
            if script.pause > 0 && !rest.is_empty() {
                self.read_for(Duration::from_millis(script.pause)).await;
            }
        }
    }

    fn take(&mut self) {
        while let Some((tag, total)) = header(&self.input)
            && self.input.len() >= total
        {
            let message = self.input.split_to(total);
            self.lines.push(self.reader.line(tag, &message[5..]));
        }
    }

    /// Reads once; `false` when the time is over.
    async fn read(&mut self, patience: Duration) -> bool {
        if self.closed {
            return false;
        }
        match tokio::time::timeout(patience, self.stream.read_buf(&mut self.input)).await {
            Ok(read) => {
                self.closed = !matches!(read, Ok(1..));
                self.take();
                true
            }
            Err(_) => false,
        }
    }

    async fn read_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && self.read(left).await
        {}
        tokio::time::sleep_until(until.into()).await;
    }

    async fn read_until_quiet(&mut self) {
        while self.read(QUIET).await {}
    }

    /// `true` when `enough` has come, or nothing more can.
    async fn read_until(&mut self, enough: impl Fn(&[String]) -> bool) -> bool {
        /// Nothing may be held: nobody is there to approve it.
        const HELD: &str = "waiting for approval of this statement";
        let until = Instant::now() + self.patience;
        while !enough(&self.lines) && !self.closed {
            if self.lines.last().is_some_and(|line| line.contains(HELD)) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.read(left).await {
                return self.closed;
            }
        }
        true
    }
}
