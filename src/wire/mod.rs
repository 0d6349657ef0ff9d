//! Postgres protocol version 3: bytes to messages and back.
//!
//! - [`frame`]: the length-prefixed frames that both directions are made of. Lengths are checked here,
//!   before anything else looks at a message.
//! - [`frontend`]: what agents say, as views that borrow the frame.
//! - [`backend`]: what servers say: the few messages we write, and the fields of those we must read.
//! - [`cancel`]: the keys that cancel requests carry.
//! - [`scram`]: the server's side of SCRAM-SHA-256.
//!
//! Messages that *we* write use pgwire's types. Messages that decide something are read by views of
//! our own, because pgwire's decoders read past a frame and replace bytes that are no UTF-8, and a
//! proxy that judges other bytes than it forwards judges nothing (`docs/decisions/0002`).
//!
//! This module knows nothing of sessions: it keeps no state between two messages.

pub mod backend;
pub mod cancel;
pub mod frame;
pub mod frontend;
pub mod scram;
