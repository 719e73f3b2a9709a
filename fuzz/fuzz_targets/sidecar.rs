//! Fuzzes `bodies::sidecar`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::bodies::sidecar(data));
