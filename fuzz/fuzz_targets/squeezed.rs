//! Fuzzes `streams::squeezed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::streams::squeezed(data));
