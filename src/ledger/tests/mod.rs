//! What the ledger promises, tried from inside.

mod basics;
pub(crate) mod sample;
