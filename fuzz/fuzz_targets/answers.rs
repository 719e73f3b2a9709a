//! Fuzzes `bodies::answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::bodies::answers(data));
