//! Postgres protocol version 3: bytes to messages and back.
