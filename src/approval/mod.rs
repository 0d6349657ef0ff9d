//! What reviewers see and what their answer means.
//!
//! - [`request`]: the document that every channel renders.
//! - [`hold`]: the life of one held statement; the only place where a [`Grant`] is made.
//! - [`quorum`]: whether enough distinct people have approved.

pub mod hold;
pub mod quorum;
pub mod request;

pub use hold::{Grant, Review, Verdict};
pub use request::{Draft, Request, Seal};
