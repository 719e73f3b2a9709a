//! Fuzzes `bodies::filter`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::bodies::filter);
