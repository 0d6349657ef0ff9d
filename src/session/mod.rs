//! One proxied session as a state machine without I/O.
