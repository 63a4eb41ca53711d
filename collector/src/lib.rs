//! The collector: counts in the kernel, names both ends, exports to Prometheus.

pub mod abi;
pub mod enrich;
pub mod export;
pub mod host;
pub mod kernel;
pub mod signals;
