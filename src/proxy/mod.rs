//! Listening, connecting, and driving sessions.
