//! Fuzzes `streams::signature`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::streams::signature);
