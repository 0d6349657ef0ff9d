//! Listening, connecting, and driving sessions.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks")]

pub mod handshake;
pub mod stream;
pub mod tls;
pub mod upstream;
