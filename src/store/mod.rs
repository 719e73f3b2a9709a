//! The only code that touches files.

mod map;

pub use map::Window;
