//! Fuzzes `synced::index`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::synced::index);
