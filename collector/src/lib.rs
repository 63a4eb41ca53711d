//! The collector: counts in the kernel, names both ends, exports to Prometheus.
//!
//! ```text
//!  bpf/*.bpf.c ─ maps ─► kernel ─ bytes ─► signals ─┬─► export ─► server ─► /metrics
//!  /run/netns, /proc, cgroups ─► host ─► enrich ────┘
//!  Kubernetes API ─────────────► k8s ────┘
//! ```

pub mod abi;
pub mod agent;
pub mod capabilities;
pub mod capture;
pub mod cli;
pub mod config;
pub mod enrich;
pub mod export;
pub mod flow_store;
pub mod flows;
pub mod host;
pub mod icmp;
pub mod k8s;
pub mod kernel;
pub mod logs;
pub mod protocol;
pub mod scan;
pub mod server;
pub mod signals;
pub mod tls;
