//! Fuzzes `bodies::messages`: the payload decoder of every message; the first byte is the frame type.
#![cfg_attr(fuzzing, no_main)]

syncline_fuzz::target!(syncline_fuzz::bodies::messages);
