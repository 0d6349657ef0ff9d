//! The life of one held statement, from `Waiting` to exactly one ending.
