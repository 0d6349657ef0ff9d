//! The agent's first messages: TLS or not, who it is, and what it wants.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf as _, BytesMut};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::stream::Stream;
use super::tls::AgentTls;
use crate::actor::{self, Agent, AuthenticationMethod, Claims};
use crate::identity::token::{Token, VerifiedToken};
use crate::identity::{AgentIdentity, Demand, Demanded, KeySources, ScramVerifier, TokenRule};
use crate::refusal::Refusal;
use crate::session::startup::Startup;
use crate::wire::backend;
use crate::wire::frame::{Frame, HEADER, Reader};
use crate::wire::frontend::{Opening, OpeningError, tag};
use crate::wire::scram::{self, Channel, Exchange, Keys, ScramError};

/// The longest password message (`PG_MAX_AUTH_TOKEN_LENGTH`).
const LONGEST_PASSWORD: usize = 65_535;

/// What every connection is received with.
pub struct Door<'a> {
    /// TLS, where it is configured.
    pub tls: Option<&'a AgentTls>,
    /// Plain text is accepted from other machines, too.
    pub insecure_plaintext: bool,
    /// How long an agent may take to prove who it is.
    pub patience: Duration,
    /// Who may come, and what they have to show.
    pub agents: &'a (dyn AgentIdentity + Sync),
    /// The keys that tokens are checked with.
    pub key_sources: &'a KeySources,
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
        /// Its connection: whoever asked waits for its end, which says that the cancel has been passed on.
        stream: Box<Stream>,
    },
}

/// An agent that has proved who it is.
#[derive(Debug)]
pub struct Arrival {
    /// Its connection.
    pub stream: Stream,
    /// What it asked for.
    pub startup: Startup,
    /// The minor version of the protocol that was agreed on.
    pub minor: u16,
    /// Who it is.
    pub identity: actor::AgentIdentity,
    /// When its session has to end, because its token does.
    pub until: Option<Timestamp>,
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
    /// No TLS came about: another protocol, or a certificate that is not accepted.
    #[error("{0}")]
    Tls(io::Error),
    /// It took too long.
    #[error("no proof within {0:?}")]
    TooSlow(Duration),
    /// The bytes are not the protocol.
    #[error("{0}")]
    Malformed(#[from] OpeningError),
    /// It was told why.
    #[error("{refusal}{}", because(.why.as_deref()))]
    Refused {
        /// What it was told.
        refusal: Refusal,
        /// What it was not told.
        why: Option<String>,
    },
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal, why: None }
    }
}

/// Receives one connection.
///
/// # Errors
/// As [`Turned`] says; the agent has been told as much as it may know.
pub async fn receive(socket: TcpStream, from: SocketAddr, door: &Door<'_>) -> Result<Visitor, Turned> {
    tokio::time::timeout(door.patience, Reception::new(socket, from, door).run())
        .await
        .unwrap_or(Err(Turned::TooSlow(door.patience)))
}

/// What an agent has proved.
struct Proved {
    agent: Arc<Agent>,
    method: AuthenticationMethod,
    verified: Claims,
    until: Option<Timestamp>,
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
                (asked_tls, asked_gss) = (true, true);
                self = self.under_tls(true).await?;
            }
        }
        loop {
            let packet = self.packet().await?;
            let opening = match Opening::read(&packet) {
                Ok(opening) => opening,
                Err(error) => return self.not_understood(error).await,
            };
            match opening {
                Opening::SslRequest if !asked_tls => {
                    asked_tls = true;
                    self.nothing_behind().await?;
                    if self.door.tls.is_some() {
                        // Nothing else is negotiated under TLS.
                        asked_gss = true;
                        self.stream.write_all(b"S").await?;
                        self.stream.flush().await?;
                        self = self.under_tls(false).await?;
                    } else {
                        self.stream.write_all(b"N").await?;
                    }
                }
                Opening::GssEncRequest if !asked_gss => {
                    asked_gss = true;
                    self.nothing_behind().await?;
                    self.stream.write_all(b"N").await?;
                }
                Opening::SslRequest | Opening::GssEncRequest => {
                    return Err(Turned::Malformed(OpeningError::Again));
                }
                Opening::Cancel { process, secret } => {
                    let secret = secret.to_vec();
                    return Ok(Visitor::Cancel { process, secret, stream: Box::new(self.stream) });
                }
                Opening::Startup { minor, parameters } => {
                    return match self.admit(minor, &parameters).await {
                        Ok((startup, identity, until)) => Ok(Visitor::Agent(Box::new(Arrival {
                            stream: self.stream,
                            startup,
                            minor: minor.min(Opening::NEWEST),
                            identity,
                            until,
                            output: self.output,
                            input: self.input,
                        }))),
                        Err(Turned::Refused { refusal, why }) => {
                            self.tell(&refusal).await?;
                            Err(Turned::Refused { refusal, why })
                        }
                        Err(other) => Err(other),
                    };
                }
            }
        }
    }

    /// A start-up packet that cannot be read. As Postgres, we say so where the other end seems to speak
    /// the protocol; where not even the length makes sense, there is nobody to tell.
    async fn not_understood(mut self, error: OpeningError) -> Result<Visitor, Turned> {
        match error {
            OpeningError::Version(..) => {
                let refusal = Refusal::Unsupported {
                    feature: "this version of the protocol",
                    hint: "Countersign speaks versions 3.0 to 3.2.",
                };
                self.tell(&refusal).await?;
            }
            OpeningError::Layout => {
                self.tell(&Refusal::Protocol { what: "invalid layout of the start-up packet" }).await?;
            }
            OpeningError::Length | OpeningError::Again | OpeningError::Behind | OpeningError::Alpn => {}
        }
        Err(Turned::Malformed(error))
    }

    async fn tell(&mut self, refusal: &Refusal) -> Result<(), Turned> {
        backend::put_refusal_as(refusal, "FATAL", &mut self.output);
        self.send().await?;
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Nobody may send anything before a request to encrypt is answered: what comes with it was not
    /// encrypted, and somebody on the way may have put it there (CVE-2021-23214).
    async fn nothing_behind(&self) -> Result<(), Turned> {
        let Stream::Tcp(socket) = &self.stream else { return Ok(()) };
        let mut byte = [0];
        let there = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut byte);
            Poll::Ready(matches!(socket.poll_peek(cx, &mut buffer), Poll::Ready(Ok(read)) if read > 0))
        });
        if there.await { Err(Turned::Malformed(OpeningError::Behind)) } else { Ok(()) }
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
            return Err(Turned::Malformed(OpeningError::Again));
        };
        let accepting = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.config)).accept(socket);
        let stream = accepting.await.map_err(Turned::Tls)?;
        // Without ALPN, direct TLS would let another protocol's client be talked into speaking to us.
        if direct && stream.get_ref().1.alpn_protocol() != Some(b"postgresql") {
            return Err(Turned::Malformed(OpeningError::Alpn));
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
    ) -> Result<(Startup, actor::AgentIdentity, Option<Timestamp>), Turned> {
        let startup = Startup::check(parameters)?;
        if !self.is_encrypted()
            && !self.from.ip().to_canonical().is_loopback()
            && !self.door.insecure_plaintext
        {
            return Err(no_tls().into());
        }
        if minor > Opening::NEWEST || !startup.unknown_options.is_empty() {
            let newest = minor.min(Opening::NEWEST);
            backend::put_negotiate(newest, startup.unknown_options.clone(), &mut self.output);
        }
        let proved = self.prove(&startup.user).await?;
        backend::put_authentication_ok(&mut self.output);
        let identity = actor::AgentIdentity {
            agent: proved.agent,
            method: proved.method,
            client_address: self.from.ip().to_canonical().to_string().into(),
            certificate_fingerprint: self.certificate().map(|der| Sha256::digest(der).into()),
            verified: proved.verified,
        };
        Ok((startup, identity, proved.until))
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Agent(_))
    }

    fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.stream {
            Stream::Agent(stream) => stream.get_ref().1.peer_certificates()?.first(),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Upstream(_) => None,
        }
    }

    /// Asks for everything that this agent has to show.
    async fn prove(&mut self, user: &str) -> Result<Proved, Turned> {
        let Demand { agent, certificate, secret } = self.door.agents.demand(user);
        if let Some(rule) = certificate {
            let why = match self.certificate() {
                Some(shown) if rule.fits(shown) => None,
                Some(_) => Some("the certificate is another one than configured"),
                None => Some("no certificate was shown"),
            };
            if let Some(why) = why {
                let refusal = Refusal::NotAuthorized {
                    what: format!("certificate authentication failed for user \"{user}\""),
                    hint: "Connect with the client certificate that was issued to this agent.",
                };
                return Err(Turned::Refused { refusal, why: Some(why.to_owned()) });
            }
        }
        let (agent, method, token) = match secret {
            Demanded::Nothing => (agent, AuthenticationMethod::Certificate, None),
            Demanded::Password(verifier) => (agent, self.password_known(user, verifier).await?, None),
            Demanded::Token(rule) => {
                let token = self.token_shown(user, &rule).await?;
                let until = rule.end_with_token.then_some(token.expires);
                (agent, AuthenticationMethod::Jwt, Some((token.claims, until)))
            }
        };
        let agent = agent.ok_or_else(|| wrong(user)(ScramError::WrongPassword))?;
        let (verified, until) = token.unwrap_or_default();
        Ok(Proved { agent, method, verified, until })
    }

    /// A SCRAM exchange. Where the agent is unknown it ends here at the latest: nobody knows the
    /// password of its verifier.
    async fn password_known(
        &mut self,
        user: &str,
        verifier: ScramVerifier,
    ) -> Result<AuthenticationMethod, Turned> {
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
        let (mechanism, first) = sasl_initial(&initial).ok_or(MALFORMED)?;
        let ScramVerifier { iterations, salt, stored_key, server_key } = verifier;
        let keys = Keys { iterations, salt, stored_key, server_key };
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let nonce = base64::engine::general_purpose::STANDARD.encode(random);
        let (exchange, answer) =
            Exchange::begin(mechanism, first, keys, &channel, &nonce).map_err(wrong(user))?;
        backend::put_sasl_continue(answer.as_bytes(), &mut self.output);
        self.send().await?;

        let last = self.password().await?;
        let proof = exchange.finish(&last).map_err(wrong(user))?;
        backend::put_sasl_final(proof.as_bytes(), &mut self.output);
        Ok(if mechanism == scram::MECHANISM_PLUS {
            AuthenticationMethod::ScramSha256Plus
        } else {
            AuthenticationMethod::ScramSha256
        })
    }

    /// Asks for a token, which is sent as a password in clear text.
    async fn token_shown(&mut self, user: &str, rule: &TokenRule) -> Result<VerifiedToken, Turned> {
        // Whoever reads it along can use it until it expires: not even on this machine without TLS.
        if !self.is_encrypted() {
            return Err(no_tls().into());
        }
        backend::put_cleartext_request(&mut self.output);
        self.send().await?;
        let message = Zeroizing::new(self.password().await?.to_vec());
        let text = message.strip_suffix(b"\0").and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or(Refusal::Protocol { what: "expected a password" })?;
        let refused = |why: String| Turned::Refused {
            refusal: Refusal::InvalidPassword { user: user.to_owned() },
            why: Some(why),
        };
        let token = Token::parse(text, rule).map_err(|error| refused(error.to_string()))?;
        let keys = self.door.key_sources.keys(&rule.keys, |keys| token.has_key(keys)).await;
        let keys = keys.map_err(|error| refused(error.to_string()))?;
        token.verify(&keys, rule, Timestamp::now()).map_err(|error| refused(error.to_string()))
    }

    /// The body of the next message, which must be one of the password family.
    async fn password(&mut self) -> Result<BytesMut, Turned> {
        loop {
            let first = Frame::first(&self.input, LONGEST_PASSWORD).map_err(|_| MALFORMED)?;
            if let Some(frame) = first {
                let (kind, total) = (frame.tag, frame.bytes.len());
                let mut frame = self.input.split_to(total);
                if kind != tag::PASSWORD {
                    return Err(MALFORMED.into());
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

fn no_tls() -> Refusal {
    Refusal::NotAuthorized {
        what: "TLS is required".to_owned(),
        hint: "Connect with sslmode=require or stronger.",
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
        let refusal = match error {
            ScramError::Malformed => MALFORMED,
            ScramError::ChannelBinding | ScramError::WrongPassword => {
                Refusal::InvalidPassword { user: user.to_owned() }
            }
        };
        Turned::Refused { refusal, why: Some(error.to_string()) }
    }
}
