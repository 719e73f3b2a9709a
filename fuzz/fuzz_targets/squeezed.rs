//! Fuzzes `streams::squeezed`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::streams::squeezed);
