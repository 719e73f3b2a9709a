//! Fuzzes `streams::signature`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::streams::signature(data));
