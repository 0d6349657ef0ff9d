//! `countersign::fuzzing::session`: what is promised, and how it is checked, stands there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign::fuzzing::session(data));
