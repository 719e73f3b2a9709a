//! Fuzzes `streams::prefixed`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::streams::prefixed);
