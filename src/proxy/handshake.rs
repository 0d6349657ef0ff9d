//! The agent's first messages: TLS or not, who it is, and what it wants.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf as _, BytesMut};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::stream::Stream;
use super::tls::AgentTls;
use crate::actor::{Agent, AgentIdentity, AuthenticationMethod, Claims};
use crate::refusal::Refusal;
use crate::session::startup::Startup;
use crate::wire::backend;
use crate::wire::frame::{Frame, HEADER, Reader};
use crate::wire::frontend::{Opening, OpeningError, tag};
use crate::wire::scram::{self, Channel, Exchange, Keys, ScramError};

/// How long an agent may take to prove who it is.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The longest password message (`PG_MAX_AUTH_TOKEN_LENGTH`).
const LONGEST_PASSWORD: usize = 65_535;

/// Finds the agent of a user name, and what to check its password against.
pub type Lookup<'a> = dyn Fn(&str) -> (Option<Arc<Agent>>, Keys) + Sync + 'a;

/// What every connection is received with.
pub struct Door<'a> {
    /// TLS, where it is configured.
    pub tls: Option<&'a AgentTls>,
    /// Plain text is accepted from other machines, too.
    pub insecure_plaintext: bool,
    /// The verifier for a user name. There always is one; where there is no agent, the exchange must
    /// fail at its end.
    pub verifier: &'a Lookup<'a>,
}

/// Somebody who got through.
#[derive(Debug)]
pub enum Visitor {
    /// An agent that has proved who it is, and waits for `AuthenticationOk`.
    Agent(Box<Arrival>),
    /// Somebody who holds a session's cancel key.
    Cancel {
        /// The process id.
        process: i32,
        /// The secret.
        secret: Vec<u8>,
    },
}

/// An agent that has proved who it is.
#[derive(Debug)]
pub struct Arrival {
    /// Its connection.
    pub stream: Stream,
    /// What it asked for.
    pub startup: Startup,
    /// Who it is.
    pub identity: AgentIdentity,
    /// Answers that were not sent yet.
    pub output: BytesMut,
    /// Bytes that it sent ahead.
    pub input: BytesMut,
}

/// Why somebody did not get through.
#[derive(Debug, thiserror::Error)]
pub enum Turned {
    /// The connection broke or was closed.
    #[error("{0}")]
    Gone(#[from] io::Error),
    /// It took too long.
    #[error("no proof within {PATIENCE:?}")]
    TooSlow,
    /// The bytes are not the protocol.
    #[error("{0}")]
    Malformed(#[from] OpeningError),
    /// It was told why.
    #[error("{0}")]
    Refused(Refusal),
}

/// Receives one connection.
///
/// # Errors
/// As [`Turned`] says; the agent has been told as much as it may know.
pub async fn receive(socket: TcpStream, from: SocketAddr, door: &Door<'_>) -> Result<Visitor, Turned> {
    tokio::time::timeout(PATIENCE, Reception::new(socket, from, door).run())
        .await
        .unwrap_or(Err(Turned::TooSlow))
}

struct Reception<'a> {
    door: &'a Door<'a>,
    from: SocketAddr,
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
}

impl<'a> Reception<'a> {
    fn new(socket: TcpStream, from: SocketAddr, door: &'a Door<'a>) -> Self {
        Self { door, from, stream: Stream::Tcp(socket), input: BytesMut::new(), output: BytesMut::new() }
    }

    async fn run(mut self) -> Result<Visitor, Turned> {
        let (mut asked_tls, mut asked_gss) = (false, false);
        if let Stream::Tcp(socket) = &self.stream {
            let mut first = [0];
            // A TLS ClientHello at once (`sslnegotiation=direct`): no start-up packet begins with 0x16.
            if socket.peek(&mut first).await? == 1 && first == [0x16] {
                asked_tls = true;
                self = self.under_tls(true).await?;
            }
        }
        loop {
            let packet = self.packet().await?;
            match Opening::read(&packet)? {
                Opening::SslRequest if !asked_tls => {
                    asked_tls = true;
                    if self.door.tls.is_some() {
                        self.stream.write_all(b"S").await?;
                        self.stream.flush().await?;
                        self = self.under_tls(false).await?;
                    } else {
                        self.stream.write_all(b"N").await?;
                    }
                }
                Opening::GssEncRequest if !asked_gss => {
                    asked_gss = true;
                    self.stream.write_all(b"N").await?;
                }
                Opening::SslRequest | Opening::GssEncRequest => {
                    return Err(Turned::Malformed(OpeningError::Layout));
                }
                Opening::Cancel { process, secret } => {
                    return Ok(Visitor::Cancel { process, secret: secret.to_vec() });
                }
                Opening::Startup { minor, parameters } => {
                    let told = self.admit(minor, &parameters).await;
                    return match told {
                        Ok((startup, identity)) => Ok(Visitor::Agent(Box::new(Arrival {
                            stream: self.stream,
                            startup,
                            identity,
                            output: self.output,
                            input: self.input,
                        }))),
                        Err(Turned::Refused(refusal)) => {
                            backend::put_refusal_as(&refusal, "FATAL", &mut self.output);
                            self.send().await?;
                            let _ = self.stream.shutdown().await;
                            Err(Turned::Refused(refusal))
                        }
                        Err(other) => Err(other),
                    };
                }
            }
        }
    }

    /// Reads exactly one start-up packet. Nothing behind it is read, so bytes that somebody slipped in
    /// behind an SSLRequest meet the TLS handshake and break it (CVE-2021-23214).
    async fn packet(&mut self) -> Result<Vec<u8>, Turned> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let total = Opening::length(&length)?.ok_or(OpeningError::Length)?;
        let mut packet = vec![0; total];
        let (head, body) = packet.split_at_mut_checked(4).ok_or(OpeningError::Length)?;
        head.copy_from_slice(&length);
        self.stream.read_exact(body).await?;
        Ok(packet)
    }

    async fn under_tls(mut self, direct: bool) -> Result<Self, Turned> {
        let (Stream::Tcp(socket), Some(tls)) = (self.stream, self.door.tls) else {
            return Err(Turned::Malformed(OpeningError::Layout));
        };
        let stream = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config)).accept(socket).await?;
        // Without ALPN, direct TLS would let another protocol's client be talked into speaking to us.
        if direct && stream.get_ref().1.alpn_protocol() != Some(b"postgresql") {
            return Err(Turned::Malformed(OpeningError::Layout));
        }
        self.stream = Stream::Agent(Box::new(stream));
        Ok(self)
    }

    async fn send(&mut self) -> Result<(), Turned> {
        self.stream.write_all(&self.output).await?;
        self.stream.flush().await?;
        self.output.clear();
        Ok(())
    }

    async fn admit(
        &mut self,
        minor: u16,
        parameters: &[(&str, &str)],
    ) -> Result<(Startup, AgentIdentity), Turned> {
        let startup = Startup::check(parameters).map_err(Turned::Refused)?;
        let encrypted = matches!(self.stream, Stream::Agent(_));
        if !encrypted && !self.from.ip().is_loopback() && !self.door.insecure_plaintext {
            return Err(Turned::Refused(Refusal::NotAuthorized {
                what: "TLS is required".to_owned(),
                hint: "Connect with sslmode=require or stronger.",
            }));
        }
        if minor > 0 || !startup.unknown_options.is_empty() {
            backend::put_negotiate(startup.unknown_options.clone(), &mut self.output);
        }
        let (agent, method) = self.prove(&startup.user).await?;
        let identity = AgentIdentity {
            agent,
            method,
            client_address: self.from.ip().to_canonical().to_string().into(),
            certificate_fingerprint: self.certificate().map(|der| Sha256::digest(der).into()),
            verified: Claims::default(),
        };
        Ok((startup, identity))
    }

    fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.stream {
            Stream::Agent(stream) => stream.get_ref().1.peer_certificates()?.first(),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Upstream(_) => None,
        }
    }

    async fn prove(&mut self, user: &str) -> Result<(Arc<Agent>, AuthenticationMethod), Turned> {
        let channel = match (&self.stream, self.door.tls) {
            (Stream::Agent(_), Some(tls)) => Channel::Tls { end_point: tls.end_point.clone() },
            _ => Channel::Plain,
        };
        let mechanisms: &[&str] = match channel {
            Channel::Tls { .. } => &[scram::MECHANISM_PLUS, scram::MECHANISM],
            Channel::Plain => &[scram::MECHANISM],
        };
        backend::put_sasl(mechanisms, &mut self.output);
        self.send().await?;

        let initial = self.password().await?;
        let (mechanism, first) = sasl_initial(&initial).ok_or(Turned::Refused(MALFORMED))?;
        let (agent, keys) = (self.door.verifier)(user);
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let nonce = base64::engine::general_purpose::STANDARD.encode(random);
        let (exchange, answer) =
            Exchange::begin(mechanism, first, keys, &channel, &nonce).map_err(wrong(user))?;
        backend::put_sasl_continue(answer.as_bytes(), &mut self.output);
        self.send().await?;

        let last = self.password().await?;
        let proof = exchange.finish(&last).map_err(wrong(user))?;
        let Some(agent) = agent else {
            return Err(wrong(user)(ScramError::WrongPassword));
        };
        backend::put_sasl_final(proof.as_bytes(), &mut self.output);
        backend::put_authentication_ok(&mut self.output);
        let method = if mechanism == scram::MECHANISM_PLUS {
            AuthenticationMethod::ScramSha256Plus
        } else {
            AuthenticationMethod::ScramSha256
        };
        Ok((agent, method))
    }

    /// The body of the next message, which must be one of the password family.
    async fn password(&mut self) -> Result<BytesMut, Turned> {
        loop {
            let first =
                Frame::first(&self.input, LONGEST_PASSWORD).map_err(|_| Turned::Refused(MALFORMED))?;
            if let Some(frame) = first {
                let (kind, total) = (frame.tag, frame.bytes.len());
                let mut frame = self.input.split_to(total);
                if kind != tag::PASSWORD {
                    return Err(Turned::Refused(MALFORMED));
                }
                frame.advance(HEADER);
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Turned::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

const MALFORMED: Refusal = Refusal::Protocol { what: "expected a SASL response" };

/// Mechanism and data of a `SASLInitialResponse`.
fn sasl_initial(body: &[u8]) -> Option<(&'static str, &[u8])> {
    let mut reader = Reader::new(body);
    let mechanism = match reader.cstr().ok()? {
        name if name == scram::MECHANISM.as_bytes() => scram::MECHANISM,
        name if name == scram::MECHANISM_PLUS.as_bytes() => scram::MECHANISM_PLUS,
        _ => return None,
    };
    let length = usize::try_from(reader.i32().ok()?).ok()?;
    let data = reader.bytes(length).ok()?;
    reader.end().ok()?;
    Some((mechanism, data))
}

/// What the agent is told when an exchange fails: nothing that would tell a wrong password from an
/// unknown agent.
fn wrong(user: &str) -> impl Fn(ScramError) -> Turned {
    move |error| {
        Turned::Refused(match error {
            ScramError::Malformed => MALFORMED,
            ScramError::ChannelBinding | ScramError::WrongPassword => {
                Refusal::InvalidPassword { user: user.to_owned() }
            }
        })
    }
}
