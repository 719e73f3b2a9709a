//! Fuzzes `patch_files::signature_file`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::patch_files::signature_file);
