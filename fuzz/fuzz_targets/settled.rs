//! Fuzzes `bodies::settled`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::bodies::settled(data));
