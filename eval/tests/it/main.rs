//! The built program, from outside.

mod bench;
mod lab;
