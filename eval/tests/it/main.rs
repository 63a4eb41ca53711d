//! The built program, from outside.

mod lab;
