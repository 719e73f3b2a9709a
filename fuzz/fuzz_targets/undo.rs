//! Fuzzes `stored::undo`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::stored::undo);
