//! Fuzzes `stored::activity`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::stored::activity);
