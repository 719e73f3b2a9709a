//! Fuzzes `bodies::filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::bodies::filter(data));
