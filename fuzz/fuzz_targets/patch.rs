//! Fuzzes `patch_files::patch`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::patch_files::patch);
