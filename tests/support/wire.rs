//! A client that sends exactly the bytes of a test, over a socket of its own.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use super::{AGENT, SOON, TOKEN};

/// One message of a server's: its type and its body.
pub type Reply = (char, Vec<u8>);

pub struct Wire {
    pub socket: TcpStream,
    /// From `BackendKeyData`.
    pub key: (i32, i32),
    /// From `ParameterStatus`, in order.
    pub parameters: Vec<(String, String)>,
    /// The first column of the last row that `until_ready` has seen.
    pub row: String,
    /// The errors that it has seen, fields separated by `|`.
    pub errors: Vec<String>,
    /// The notices.
    pub notices: Vec<String>,
}

impl Wire {
    /// The usual agent, at a proxy's port.
    pub fn agent(port: u16) -> Self {
        Self::connect(port, &[("user", AGENT), ("database", "app")], TOKEN)
    }

    /// The same agent, whose statements that need approval fail at once, with 42501.
    pub fn deferring_agent(port: u16) -> Self {
        let parameters = [("user", AGENT), ("database", "app"), ("options", "-c countersign.hold=defer")];
        Self::connect(port, &parameters, TOKEN)
    }

    pub fn connect(port: u16, parameters: &[(&str, &str)], password: &str) -> Self {
        Self::try_connect(port, parameters, password).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Logs in; an `Err` is the server's error message, fields separated by `|`.
    pub fn try_connect(port: u16, parameters: &[(&str, &str)], password: &str) -> Result<Self, String> {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut wire = Self {
            socket,
            key: (0, 0),
            parameters: Vec::new(),
            row: String::new(),
            errors: Vec::new(),
            notices: Vec::new(),
        };
        wire.send(&startup(parameters));
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (kind, body) = wire.read().ok_or_else(|| "closed".to_owned())?;
            match kind {
                'R' => match body[3] {
                    0 => {}
                    10 => {
                        let message = scram.message();
                        let mut first = format!("{SCRAM_SHA_256}\0").into_bytes();
                        first.extend((message.len() as u32).to_be_bytes());
                        first.extend_from_slice(message);
                        wire.send(&frame('p', &first));
                    }
                    11 => {
                        scram.update(&body[4..]).unwrap();
                        wire.send(&frame('p', scram.message()));
                    }
                    12 => scram.finish(&body[4..]).unwrap(),
                    other => panic!("authentication {other}"),
                },
                'K' => wire.key = (int(&body[..4]), int(&body[4..8])),
                'S' => wire.parameter(&body),
                'Z' => return Ok(wire),
                'E' => return Err(fields(&body)),
                'N' => wire.notices.push(fields(&body)),
                // NegotiateProtocolVersion
                'v' => {}
                other => panic!("{other} while logging in"),
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The same to a server that may close or stop reading; an `Err` is a socket that takes no more.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        self.socket.write_all(bytes)
    }

    /// The next message; `None` when the server has closed.
    pub fn read(&mut self) -> Option<Reply> {
        let mut header = [0; 5];
        match self.socket.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in time"),
            Err(_) => return None,
        }
        let mut body = vec![0; int(&header[1..]) as usize - 4];
        self.socket.read_exact(&mut body).ok()?;
        Some((char::from(header[0]), body))
    }

    fn parameter(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body).into_owned();
        let mut parts = text.split('\0');
        self.parameters.push((parts.next().unwrap().into(), parts.next().unwrap().into()));
    }

    /// The last value that the server reported for a parameter.
    pub fn reported(&self, name: &str) -> Option<&str> {
        let last = self.parameters.iter().rev().find(|(known, _)| known == name);
        last.map(|(_, value)| value.as_str())
    }

    /// Sends, and reads up to `ReadyForQuery`.
    pub fn ask(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        self.until_ready()
    }

    /// One row of numbers.
    pub fn numbers(&mut self, sql: &str) -> Vec<i64> {
        self.send(&query(sql));
        let mut values = Vec::new();
        loop {
            let (kind, body) = self.read().expect("the server is there");
            match kind {
                'D' => {
                    let mut rest = &body[2..];
                    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                        let (value, behind) =
                            behind.split_at(usize::try_from(i32::from_be_bytes(*length)).unwrap());
                        values.push(std::str::from_utf8(value).unwrap().parse().unwrap());
                        rest = behind;
                    }
                }
                'E' => panic!("{}", String::from_utf8_lossy(&body)),
                'Z' => return values,
                _ => {}
            }
        }
    }

    /// The types of all messages up to the next `ReadyForQuery`; or up to the end, shown as `!`. An
    /// error is followed by its SQLSTATE, and the last by the transaction status. Notices, notifications
    /// and parameter changes are left out.
    pub fn until_ready(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let Some((kind, body)) = self.read() else {
                seen.push('!');
                return seen;
            };
            match kind {
                'A' => {}
                'S' => self.parameter(&body),
                'N' => self.notices.push(fields(&body)),
                'E' => {
                    seen.push_str(&format!("E{}", code(&body)));
                    self.errors.push(fields(&body));
                }
                'D' => {
                    seen.push('D');
                    if body.len() > 6 && body[2] != 0xff {
                        let end = 6 + int(&body[2..6]) as usize;
                        self.row = String::from_utf8_lossy(&body[6..end]).into_owned();
                    }
                }
                'Z' => {
                    seen.push_str(&format!("Z{}", char::from(body[0])));
                    return seen;
                }
                'C' => {
                    let tag = String::from_utf8_lossy(&body[..body.len() - 1]);
                    seen.push_str(&format!("C[{tag}]"));
                }
                other => seen.push(other),
            }
        }
    }

    /// Whether nothing but notices comes for as long as that.
    pub fn is_silent_but_notices(&mut self, limit: Duration) -> bool {
        let until = std::time::Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.is_silent(left) {
                return true;
            }
            match self.read() {
                Some(('N', body)) => self.notices.push(fields(&body)),
                _ => return false,
            }
        }
    }

    /// Whether nothing comes for as long as that.
    pub fn is_silent(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut byte = [0];
        let silent = matches!(
            self.socket.peek(&mut byte),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        );
        self.socket.set_read_timeout(Some(SOON)).unwrap();
        silent
    }
}

fn int(bytes: &[u8]) -> i32 {
    i32::from_be_bytes(bytes.try_into().unwrap())
}

/// The SQLSTATE of an error's body.
pub fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.split('\0').find_map(|field| field.strip_prefix('C').map(str::to_owned)).unwrap_or_default()
}

/// All fields of an error's or notice's body.
pub fn fields(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', "|")
}

/// Asks for a cancel of the session with this key, and waits until the server has closed the socket.
pub fn cancel(port: u16, (process, secret): (i32, i32)) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut request = Vec::new();
    for word in [16, 80_877_102, process, secret] {
        request.extend(word.to_be_bytes());
    }
    socket.write_all(&request).unwrap();
    let mut rest = Vec::new();
    let ended = socket.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}

pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in parameters {
        body.extend(format!("{name}\0{value}\0").into_bytes());
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub fn frame(kind: char, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[kind as u8][..], &length, body].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame('Q', format!("{sql}\0").as_bytes())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame('P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Binds text values.
pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    frame('B', &body)
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame('E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

/// `kind` is `S` for a statement, `P` for a portal.
pub fn describe(kind: char, name: &str) -> Vec<u8> {
    frame('D', format!("{kind}{name}\0").as_bytes())
}

pub fn close(kind: char, name: &str) -> Vec<u8> {
    frame('C', format!("{kind}{name}\0").as_bytes())
}

pub fn sync() -> Vec<u8> {
    frame('S', b"")
}

pub fn flush() -> Vec<u8> {
    frame('H', b"")
}

/// Parse, Bind, Execute of the unnamed statement and portal.
pub fn extended(sql: &str, values: &[&str]) -> Vec<u8> {
    [parse("", sql), bind("", "", values), execute("", 0)].concat()
}
