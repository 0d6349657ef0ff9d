//! Where held statements wait.
