//! The fuzz targets' common part; `tests/mutation.rs` of the crate includes the same files.

pub mod bodies;
pub mod compares;
pub mod http;
pub mod patch_files;
pub mod plans;
pub mod stored;
pub mod streams;
pub mod synced;

/// A target: what the fuzzer calls. Built without one it is a program that replays the files it is given, which any
/// compiler can build and `scripts/test` checks.
#[macro_export]
macro_rules! target {
    ($body:expr) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $body(data));

        #[cfg(not(fuzzing))]
        fn main() {
            for input in std::env::args_os().skip(1) {
                let data = std::fs::read(&input).expect("each argument is a file that can be read");
                $body(&data);
            }
        }
    };
}
