//! The only integration-test crate.

mod exposition;
mod host;
mod kernel;
mod kubernetes;
mod readme;
mod running;
mod server;
