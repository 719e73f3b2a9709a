//! Fuzzes `bodies::content_id`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::bodies::content_id(data));
