//! How actors prove who they are.
