//! Fuzzes `bodies::content_id`.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::bodies::content_id);
