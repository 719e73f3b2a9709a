//! Fuzzes `compares::compare`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::compares::compare(data));
