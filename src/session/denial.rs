//! Denial by substitution.
//!
//! A refused message is replaced by one of the same type that must fail, so that upstream itself
//! aborts the transaction, skips to `Sync`, releases locks. Answering on our own would leave upstream
//! healthy: a later `COMMIT` would keep half of what the agent meant, and `ROLLBACK TO SAVEPOINT`
//! would have to be simulated. Upstream's error, recognised by a nonce, is then replaced by ours.

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::message::frontend;

use crate::refusal::Refusal;
use crate::wire::backend;

/// What the agent is told in place of upstream's error about a substitute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A refusal of ours.
    Refusal(Refusal),
    /// What Postgres says of a statement that does not exist (26000).
    NoStatement(String),
    /// What Postgres says of a portal that does not exist (34000).
    NoPortal(String),
    /// Our own grammar's error, behind a `Parse` of the very text that upstream should have refused.
    Unparsed(Refusal),
    /// Nothing: a `ROLLBACK` of ours stands for the agent's, and upstream's answer is the answer.
    RolledBack,
}

impl Told {
    /// Whether Postgres would have stopped at the text's bytes, before anything happened to the unnamed
    /// statement; the substitute is such a text, too, and has no room for a nonce.
    #[must_use]
    pub fn is_about_encoding(&self) -> bool {
        matches!(self, Self::Refusal(Refusal::Encoding { .. }))
    }

    /// Appends the `ErrorResponse`.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            // The session goes on, whatever the refusal would mean elsewhere.
            Self::Refusal(refusal) | Self::Unparsed(refusal) => {
                backend::put_refusal_as(refusal, "ERROR", out);
            }
            Self::NoStatement(name) if name.is_empty() => {
                backend::put_error("26000", "unnamed prepared statement does not exist", out);
            }
            Self::NoStatement(name) => {
                backend::put_error("26000", &format!("prepared statement \"{name}\" does not exist"), out);
            }
            Self::NoPortal(name) => {
                backend::put_error("34000", &format!("portal \"{name}\" does not exist"), out);
            }
            Self::RolledBack => {}
        }
    }
}

/// A substitute that was forwarded and whose error must come back.
#[derive(Clone, Debug)]
pub struct Substitute {
    /// What the agent is told.
    pub told: Told,
    /// Occurs in upstream's error message; `None` where the message has no room for one and order
    /// alone must do (`FunctionCall`, bytes that are no text).
    pub nonce: Option<String>,
}

/// Makes substitutes with nonces that no agent can guess: a keyed hash would do as well, but the
/// session is handed 64 random bits when it begins and counts on.
#[derive(Debug)]
pub struct Substitutes {
    seed: u64,
    made: u64,
}

impl Substitutes {
    /// `seed` is 64 fresh random bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, made: 0 }
    }

    /// A name that is fresh to this session and that no agent can guess.
    pub fn name(&mut self, what: &str) -> String {
        self.made += 1;
        // SplitMix64: neighbouring counts give unrelated names.
        let mut mixed = self.seed.wrapping_add(self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        format!("countersign_{what}_{mixed:016x}")
    }

    /// A name that upstream's log shows, so that its one ERROR line names the request.
    fn nonce(&mut self, told: &Told) -> String {
        let request = match told {
            Told::Refusal(refusal) | Told::Unparsed(refusal) => match refusal.request() {
                Some(request) => request.code().replace('-', "").to_lowercase(),
                None => refusal.code().to_owned(),
            },
            Told::NoStatement(_) | Told::NoPortal(_) | Told::RolledBack => "unknown".to_owned(),
        };
        self.name(&request)
    }

    /// A `ROLLBACK` of our own.
    pub fn roll_back(&self, out: &mut BytesMut) {
        put(out, |out| frontend::query("ROLLBACK", out));
    }

    /// A `Query` whose text is a syntax error: the grammar is asked before the transaction's state.
    pub fn query(&mut self, told: Told, out: &mut BytesMut) -> Substitute {
        if told.is_about_encoding() {
            out.put_slice(&[b'Q', 0, 0, 0, 6, 0xff, 0]);
            return Substitute { told, nonce: None };
        }
        let nonce = self.nonce(&told);
        // The nonce holds neither a NUL nor anything but an identifier's characters.
        put(out, |out| frontend::query(&nonce, out));
        Substitute { told, nonce: Some(nonce) }
    }

    /// A `Parse` of `sql` as the unnamed statement: what a `Query` would have been parsed to.
    pub fn parse_of_query(sql: &[u8], out: &mut BytesMut) {
        out.put_u8(b'P');
        out.put_u32((4 + 1 + sql.len() + 1 + 2) as u32);
        out.put_u8(0);
        out.put_slice(sql);
        out.put_slice(&[0, 0, 0]);
    }

    /// A `Close` of the unnamed statement.
    pub fn close_unnamed(out: &mut BytesMut) {
        out.put_slice(b"C\0\0\0\x06S\0");
    }

    /// A `Flush`.
    pub fn flush(out: &mut BytesMut) {
        out.put_slice(b"H\0\0\0\x04");
    }

    /// A `Sync`.
    pub fn sync(out: &mut BytesMut) {
        out.put_slice(b"S\0\0\0\x04");
    }

    /// A `Parse` of a syntax error under the agent's own name: like the original it removes the
    /// unnamed statement and keeps a named one.
    pub fn parse(&mut self, told: Told, name: &[u8], out: &mut BytesMut) -> Substitute {
        if told.is_about_encoding() {
            out.put_slice(&[b'P', 0, 0, 0, 9, 0, 0xff, 0, 0, 0]);
            return Substitute { told, nonce: None };
        }
        let nonce = self.nonce(&told);
        out.put_u8(b'P');
        out.put_u32((4 + name.len() + 1 + nonce.len() + 1 + 2) as u32);
        out.put_slice(name);
        out.put_u8(0);
        out.put_slice(nonce.as_bytes());
        out.put_slice(&[0, 0, 0]);
        Substitute { told, nonce: Some(nonce) }
    }

    /// A `Bind` of a statement that does not exist.
    pub fn bind(&mut self, told: Told, out: &mut BytesMut) -> Substitute {
        let nonce = self.nonce(&told);
        out.put_u8(b'B');
        out.put_u32((4 + 1 + nonce.len() + 1 + 6) as u32);
        out.put_u8(0);
        out.put_slice(nonce.as_bytes());
        out.put_slice(&[0; 7]);
        Substitute { told, nonce: Some(nonce) }
    }

    /// An `Execute` of a portal that does not exist.
    pub fn execute(&mut self, told: Told, out: &mut BytesMut) -> Substitute {
        let nonce = self.nonce(&told);
        put(out, |out| frontend::execute(&nonce, 0, out));
        Substitute { told, nonce: Some(nonce) }
    }

    /// A `FunctionCall` of OID 0: no arguments, text result.
    pub fn function_call(&mut self, told: Told, out: &mut BytesMut) -> Substitute {
        out.put_u8(b'F');
        out.put_u32(4 + 4 + 2 + 2 + 2);
        out.put_slice(&[0; 10]);
        Substitute { told, nonce: None }
    }
}

/// postgres-protocol's writers fail on strings with a NUL and on frames over 2 GiB; ours have neither.
fn put(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) {
    let before = out.len();
    if write(out).is_err() {
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frame;
    use crate::wire::frontend as views;

    fn told() -> Told {
        Told::Refusal(Refusal::HoldInTransaction)
    }

    #[test]
    fn substitutes_are_whole_frames_of_the_same_type() {
        let mut substitutes = Substitutes::new(7);
        let mut out = BytesMut::new();
        let query = substitutes.query(told(), &mut out);
        let parse = substitutes.parse(told(), b"s1", &mut out);
        let bind = substitutes.bind(told(), &mut out);
        let execute = substitutes.execute(told(), &mut out);
        substitutes.function_call(told(), &mut out);

        let mut rest = &out[..];
        let mut next = || {
            let frame = Frame::first(rest, 1000).unwrap().unwrap();
            rest = &rest[frame.bytes.len()..];
            frame
        };
        assert_eq!(views::query(next().body()).unwrap(), query.nonce.unwrap().as_bytes());
        let parsed = views::Parse::read(next().body()).unwrap();
        assert_eq!((parsed.name, parsed.sql), (&b"s1"[..], parse.nonce.as_deref().unwrap().as_bytes()));
        let bound = views::Bind::read(next().body()).unwrap();
        assert_eq!((bound.portal, bound.statement), (&b""[..], bind.nonce.as_deref().unwrap().as_bytes()));
        let executed = views::Execute::read(next().body()).unwrap();
        assert_eq!(executed.portal, execute.nonce.unwrap().as_bytes());
        assert_eq!(views::FunctionCall::read(next().body()).unwrap().oid, 0);
        assert!(rest.is_empty());
    }

    #[test]
    fn nonces_differ_and_are_short_enough_to_be_shown_whole() {
        let mut substitutes = Substitutes::new(7);
        let mut out = BytesMut::new();
        let one = substitutes.query(told(), &mut out).nonce.unwrap();
        let two = substitutes.query(told(), &mut out).nonce.unwrap();

        assert_ne!(one, two);
        assert!(one.len() <= super::super::names::Name::LONGEST, "a longer one would come back cut");
    }
}
