//! Fuzzes `compares::compare`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::compares::compare);
