//! The only integration-test crate.

mod exposition;
mod host;
mod kernel;
mod readme;
mod running;
mod server;
