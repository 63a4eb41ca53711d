//! Names from the Kubernetes API, and what becomes of them when it fails.

#[path = "../../../eval/src/kubernetes/api.rs"]
pub(crate) mod api;
#[path = "../../../eval/src/kubernetes/objects.rs"]
mod objects;
mod running;
mod watch;
