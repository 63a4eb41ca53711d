//! The collector: counts in the kernel, names both ends, exports to Prometheus.

pub mod enrich;
pub mod export;
pub mod host;
