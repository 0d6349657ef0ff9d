//! Whether enough distinct people have approved.
