//! What reviewers see and what their answer means.
//!
//! - [`request`]: everything known about one held statement.
//! - [`seal`]: what a grant is bound to.
//! - [`document`]: the request laid out for people; every channel renders this one model.
//! - [`visible`]: text in which nothing hides.
//! - [`words`]: four words for a digest.
//! - [`hold`]: the life of one held statement; the only place where a [`Grant`] is made.
//! - [`quorum`]: whether enough distinct people have approved, and who may be one of them.
//! - [`json`]: the same as the API's JSON.

mod difference;
pub mod document;
pub mod hold;
pub mod json;
pub mod parameter;
pub mod quorum;
pub mod request;
pub mod seal;
pub mod visible;
pub mod words;

pub use document::Document;
pub use hold::{
    Grant, GrantMismatch, Hold, HoldState, Release, Reply, Review, Verdict, VerdictError, VoidReason,
    Withdrawal,
};
pub use request::{Draft, Request};
pub use seal::{Seal, SealDifference};
pub use visible::Shown;
