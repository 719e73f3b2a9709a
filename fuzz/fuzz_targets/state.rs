//! Fuzzes `stored::state`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::stored::state);
