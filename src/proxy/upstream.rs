//! Reaching upstream: the connection, TLS, and a login of our own.
//!
//! The agent never holds upstream's credentials, and upstream never sees the agent's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::stream::{Stream, tune};
use super::tls;
use crate::actor::{DatabaseName, RoleName, UpstreamName};
use crate::statement::Target;
use crate::wire::backend::{self, Fields, tag};
use crate::wire::cancel::CancelKey;
use crate::wire::frame::{Frame, Reader};
use crate::wire::frontend::Opening;
use crate::wire::scram;

/// Where an upstream is and how to log in there.
#[derive(Clone)]
pub struct Upstream {
    /// The operator's name for it.
    pub name: UpstreamName,
    /// A host name, an address, or a directory with a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database there.
    pub database: DatabaseName,
    /// The role we log in with.
    pub role: RoleName,
    /// Its password, if it needs one.
    pub password: Option<Zeroizing<String>>,
    /// TLS; `None` for none.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long connecting and logging in may take.
    pub timeout: Duration,
    /// Sessions are called there what their agents call themselves, and not after us.
    pub agents_name_sessions: bool,
}

impl Upstream {
    /// What statements are recorded against.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { upstream: self.name.clone(), database: self.database.clone(), role: self.role.clone() }
    }
}

/// Why there is no session upstream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Upstream does not offer TLS although it is configured.
    #[error("upstream does not offer TLS, which its configuration demands")]
    NoTls,
    /// The host's name cannot be checked against a certificate.
    #[error("\"{0}\" is not a name that a certificate can be made out to")]
    Name(String),
    /// Upstream asks for a way to log in that we do not have.
    #[error("upstream asks for {0}")]
    Method(String),
    /// A password is needed and none is configured.
    #[error("upstream asks for a password, and the configuration has none")]
    NoPassword,
    /// Upstream asked for the password in clear text on a connection without TLS.
    #[error("upstream asks for the password in clear text without TLS; it was not sent")]
    CleartextWithoutTls,
    /// Upstream, or what stands before it, does not know the version that we asked for.
    #[error("upstream does not negotiate protocol versions: {message}")]
    Version {
        /// Its message.
        message: String,
    },
    /// Upstream said no.
    #[error("upstream refused: {message} ({code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// Its message.
        message: String,
    },
    /// Upstream does not speak the protocol.
    #[error("upstream does not speak Postgres's protocol: {0}")]
    Protocol(&'static str),
    /// The database is not in UTF8. Postgres cuts and compares names by the database's encoding, so in any
    /// other one two names could be the same to it and different to us.
    #[error(
        "the database's encoding is {encoding}, and countersign works with UTF8 databases only; \
         create a database with ENCODING 'UTF8' and restore a dump of this one into it"
    )]
    Encoding {
        /// What upstream reported as `server_encoding`.
        encoding: String,
    },
    /// What an attempt that others had begun ended with.
    #[error("{0}")]
    Shared(Arc<Self>),
}

impl ConnectError {
    /// The encoding of a database that is not in UTF8, where that is the error.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        match self {
            Self::Encoding { encoding } => Some(encoding),
            Self::Shared(error) => error.encoding(),
            Self::Io(_)
            | Self::Timeout(_)
            | Self::NoTls
            | Self::Name(_)
            | Self::Method(_)
            | Self::NoPassword
            | Self::CleartextWithoutTls
            | Self::Version { .. }
            | Self::Refused { .. }
            | Self::Protocol(_) => None,
        }
    }
}

impl ConnectError {
    /// What upstream says of a setting in the start-up packet: it knows none of that name, does not take the
    /// value, or not from us. Upstream itself can be reached.
    #[must_use]
    pub fn about_a_setting(&self) -> Option<&str> {
        let Self::Refused { code, message } = self else { return None };
        matches!(code.as_str(), "22023" | "42704" | "42602" | "55P02").then_some(message)
    }
}

/// A session upstream, ready for queries.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// What was read behind `ReadyForQuery`; usually nothing.
    pub rest: BytesMut,
    /// What upstream reported of itself, by name.
    pub parameters: BTreeMap<String, String>,
    /// Its warnings and notices (of a login event trigger, say), as it framed them; at
    /// most 64 KiB, without what comes behind.
    pub notices: BytesMut,
    /// Process id and secret, for cancelling.
    pub key: Option<CancelKey>,
}

/// Connects, up to TLS, without logging in. Cancel requests need no more.
///
/// # Errors
/// As [`ConnectError`] says.
pub async fn connect(upstream: &Upstream) -> Result<Stream, ConnectError> {
    if upstream.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", upstream.host, upstream.port);
        return Ok(Stream::Unix(UnixStream::connect(path).await?));
    }
    let mut socket = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
    tune(&socket)?;
    let Some(config) = &upstream.tls else { return Ok(Stream::Tcp(socket)) };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    // One byte and no more: what comes behind it belongs to the TLS handshake (CVE-2021-23222).
    if socket.read_u8().await? != b'S' {
        return Err(ConnectError::NoTls);
    }
    let name =
        ServerName::try_from(upstream.host.clone()).map_err(|_| ConnectError::Name(upstream.host.clone()))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
    Ok(Stream::Upstream(Box::new(stream)))
}

/// Connects and logs in with protocol 3.`minor`, or with an older one if upstream does not know that.
/// `settings` go into the start-up packet.
///
/// # Errors
/// As [`ConnectError`] says.
pub async fn log_in(
    upstream: &Upstream,
    settings: &[(String, String)],
    minor: u16,
) -> Result<Connected, ConnectError> {
    let connecting = async {
        let stream = connect(upstream).await?;
        let login = Login { upstream, stream, input: BytesMut::new(), output: BytesMut::new(), minor };
        login.run(settings).await
    };
    tokio::time::timeout(upstream.timeout, connecting)
        .await
        .unwrap_or(Err(ConnectError::Timeout(upstream.timeout)))
}

/// The largest message we accept before a session runs.
const LIMIT: usize = 1 << 20;
/// Bytes of notices that are kept for the agent while we log in.
const NOTICES: usize = 64 << 10;

struct Login<'a> {
    upstream: &'a Upstream,
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
    /// The minor version that was asked for.
    minor: u16,
}

impl Login<'_> {
    async fn send(&mut self) -> Result<(), ConnectError> {
        self.stream.write_all(&self.output).await?;
        self.stream.flush().await?;
        self.output.clear();
        Ok(())
    }

    /// The next message, as type and body.
    async fn receive(&mut self) -> Result<(u8, BytesMut), ConnectError> {
        loop {
            let first =
                Frame::first(&self.input, LIMIT).map_err(|_| ConnectError::Protocol("a message's length"))?;
            if let Some(frame) = first {
                let (tag, total) = (frame.tag, frame.bytes.len());
                let mut frame = self.input.split_to(total);
                let body = frame.split_off(crate::wire::frame::HEADER);
                if tag == tag::ERROR {
                    let fields =
                        Fields::read(&body).map_err(|_| ConnectError::Protocol("a malformed error"))?;
                    let (code, message) = (fields.code.to_owned(), fields.message.to_owned());
                    return Err(ConnectError::Refused { code, message });
                }
                return Ok((tag, body));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    async fn run(mut self, settings: &[(String, String)]) -> Result<Connected, ConnectError> {
        let fixed = [("user", self.upstream.role.as_str()), ("database", self.upstream.database.as_str())];
        // Behind the agent's settings: of a name given twice, the later value counts.
        let forced = [("client_encoding", "UTF8")];
        let asked = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Opening::put_startup(self.minor, fixed.into_iter().chain(asked).chain(forced), &mut self.output)?;
        self.send().await?;
        self.authenticate().await?;

        let mut parameters = BTreeMap::new();
        let mut notices = BytesMut::new();
        let mut key = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                tag::PARAMETER_STATUS => {
                    let (name, value) = backend::parameter_status(&body)
                        .map_err(|_| ConnectError::Protocol("a malformed parameter status"))?;
                    parameters.insert(name.to_owned(), value.to_owned());
                }
                tag::BACKEND_KEY_DATA => {
                    let read = CancelKey::read(&body);
                    key = Some(read.map_err(|_| ConnectError::Protocol("a malformed cancel key"))?);
                }
                tag::NOTICE if notices.len() + body.len() <= NOTICES => {
                    notices.put_u8(tag);
                    notices.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX) + 4);
                    notices.extend_from_slice(&body);
                }
                tag::NOTICE => {}
                tag::READY => {
                    let encoding = parameters.get("server_encoding").map_or("not reported", String::as_str);
                    if encoding != "UTF8" {
                        return Err(ConnectError::Encoding { encoding: encoding.to_owned() });
                    }
                    let Login { stream, input: rest, .. } = self;
                    return Ok(Connected { stream, rest, parameters, notices, key });
                }
                _ => return Err(ConnectError::Protocol("an unexpected message at start-up")),
            }
        }
    }

    fn password(&self) -> Result<Zeroizing<String>, ConnectError> {
        self.upstream.password.clone().ok_or(ConnectError::NoPassword)
    }

    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        let malformed = |_| ConnectError::Protocol("a malformed authentication request");
        // What stands between us and the server may know no version but 3.0, and say so by an error in
        // place of the first authentication request.
        let mut first = match self.receive().await {
            Err(ConnectError::Refused { code, message })
                if self.minor > 0 && matches!(code.as_str(), "08P01" | "0A000") =>
            {
                return Err(ConnectError::Version { message });
            }
            first => Some(first?),
        };
        loop {
            let (tag, body) = match first.take() {
                Some(first) => first,
                None => self.receive().await?,
            };
            if tag == tag::NEGOTIATE {
                let (minor, options) = backend::negotiate(&body)
                    .map_err(|_| ConnectError::Protocol("a malformed version negotiation"))?;
                // We sent no options, and a newer version than ours was not on offer.
                if minor >= self.minor || options > 0 {
                    return Err(ConnectError::Protocol("a version negotiation that makes no sense"));
                }
                self.minor = minor;
                continue;
            }
            if tag != tag::AUTHENTICATION {
                return Err(ConnectError::Protocol("no authentication request"));
            }
            let mut reader = Reader::new(&body);
            match reader.u32().map_err(malformed)? {
                0 => return Ok(()),
                3 => {
                    // Over a Unix socket or TLS only: anybody on the path could read it.
                    if matches!(self.stream, Stream::Tcp(_)) {
                        return Err(ConnectError::CleartextWithoutTls);
                    }
                    frontend::password_message(self.password()?.as_bytes(), &mut self.output)?;
                    self.send().await?;
                }
                5 => {
                    let salt = reader.bytes(4).map_err(malformed)?.try_into().unwrap_or_default();
                    let hash =
                        md5_hash(self.upstream.role.as_str().as_bytes(), self.password()?.as_bytes(), salt);
                    frontend::password_message(hash.as_bytes(), &mut self.output)?;
                    self.send().await?;
                }
                10 => {
                    let mechanisms: Vec<&[u8]> =
                        reader.rest().split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
                    self.scram(&mechanisms).await?;
                }
                other => return Err(ConnectError::Method(method(other).to_owned())),
            }
        }
    }

    async fn scram(&mut self, mechanisms: &[&[u8]]) -> Result<(), ConnectError> {
        let offered = |name: &str| mechanisms.contains(&name.as_bytes());
        let end_point = match &self.stream {
            Stream::Upstream(stream) => {
                stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(tls::end_point)
            }
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Agent(_) => None,
        };
        let (mechanism, binding) = match end_point {
            Some(hash) if offered(scram::MECHANISM_PLUS) => {
                (scram::MECHANISM_PLUS, ChannelBinding::tls_server_end_point(hash))
            }
            Some(_) => (scram::MECHANISM, ChannelBinding::unrequested()),
            None => (scram::MECHANISM, ChannelBinding::unsupported()),
        };
        if !offered(mechanism) {
            return Err(ConnectError::Method("a SASL mechanism other than SCRAM-SHA-256".to_owned()));
        }
        let mut exchange = ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, exchange.message(), &mut self.output)?;
        self.send().await?;
        let first = self.sasl(11).await?;
        exchange.update(&first)?;
        frontend::sasl_response(exchange.message(), &mut self.output)?;
        self.send().await?;
        let last = self.sasl(12).await?;
        // Checks that upstream knows our password's verifier, too.
        exchange.finish(&last)?;
        Ok(())
    }

    async fn sasl(&mut self, step: u32) -> Result<BytesMut, ConnectError> {
        let (tag, mut body) = self.receive().await?;
        if tag != tag::AUTHENTICATION || Reader::new(&body).u32() != Ok(step) {
            return Err(ConnectError::Protocol("a SASL exchange out of order"));
        }
        Ok(body.split_off(4))
    }
}

fn method(code: u32) -> &'static str {
    match code {
        2 => "Kerberos V5",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "an authentication method that countersign does not know",
    }
}

/// Asks upstream to cancel what the session with this key is running. Returns when upstream has closed
/// the connection: by then the signal is sent, and no later statement can be hit by it.
///
/// # Errors
/// When upstream cannot be reached.
pub async fn cancel(upstream: &Upstream, key: &CancelKey) -> Result<(), ConnectError> {
    let cancelling = async {
        let mut stream = connect(upstream).await?;
        let mut request = BytesMut::new();
        key.put_request(&mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut nothing = [0; 16];
        // An error here is a reset instead of a close, which says the same.
        while matches!(stream.read(&mut nothing).await, Ok(read) if read > 0) {}
        Ok(())
    };
    tokio::time::timeout(upstream.timeout, cancelling)
        .await
        .unwrap_or(Err(ConnectError::Timeout(upstream.timeout)))
}
