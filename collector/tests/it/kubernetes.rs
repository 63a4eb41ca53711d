//! Names from the Kubernetes API, and what becomes of them when it fails.

pub(crate) mod api;
mod objects;
mod running;
mod watch;
