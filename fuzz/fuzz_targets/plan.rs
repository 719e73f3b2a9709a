//! Fuzzes `plans::plan`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::plans::plan);
