//! Fuzzes `plans::plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::plans::plan(data));
