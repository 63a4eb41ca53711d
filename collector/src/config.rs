//! The configuration: every key, its default, and what it may be. [`KEYS`] is the schema; the
//! file, the variables and the flags are all read by it.

mod keys;
mod load;
mod values;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use crate::capture::{CaptureMode, CaptureSettings, Globs};
use crate::host::HostVeths;
use crate::k8s::watch::{Mode, WatchSettings};
pub use keys::{Applies, KEYS, Key};
pub use load::{BadConfig, Loaded, Origin, Sources, load};
pub use watch::FileWatch;

pub use values::mask;

use crate::flow_store::Limits;
use crate::flows::FlowLimits;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub log_format: LogFormat,
    pub log_level: Level,
    pub disabled_signals: Vec<String>,
    pub series_budget: usize,
    pub dns_timeout: Duration,
    pub dns_names: usize,
    pub external_names: usize,
    pub tls_handshake_timeout: Duration,
    pub tls_server_names: usize,
    pub tls_probe: bool,
    pub tls_probe_interval: Duration,
    pub buckets: BTreeMap<String, Vec<f64>>,
    pub map_capacity: BTreeMap<String, u32>,
    pub collect_interval: Duration,
    pub refresh_interval: Duration,
    pub statistics: bool,
    pub drop_capabilities: bool,
    pub debug_endpoints: bool,
    pub host_veths: HostVeths,
    pub flow_limit: usize,
    pub flow_timeout: Duration,
    pub flow_persistent_after: Duration,
    pub flow_store: Option<PathBuf>,
    pub flow_store_keep: Duration,
    pub flow_store_size: u64,
    pub capture: CaptureMode,
    pub capture_interfaces: Globs,
    pub capture_sampling: f64,
    pub kubernetes: Mode,
    pub kubeconfig: Option<PathBuf>,
    pub node_name: Option<String>,
    pub kubernetes_pods: KubernetesPods,
    pub kubernetes_grace: Duration,
    pub kubernetes_app_labels: bool,
}

/// Whose pods are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesPods {
    Cluster,
    /// Those of this node. Others are `~unknown` where their network is known, or `~external`.
    Node,
}

impl Config {
    pub fn capture_settings(&self) -> CaptureSettings {
        CaptureSettings {
            mode: self.capture,
            interfaces: self.capture_interfaces.clone(),
            sampling: self.capture_sampling,
            ..CaptureSettings::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let flows = FlowLimits::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9435)),
            log_format: LogFormat::Text,
            log_level: Level::INFO,
            disabled_signals: Vec::new(),
            series_budget: 10_000,
            dns_timeout: Duration::from_secs(5),
            dns_names: 0,
            external_names: 0,
            tls_handshake_timeout: Duration::from_secs(10),
            tls_server_names: 0,
            tls_probe: false,
            tls_probe_interval: Duration::from_secs(3600),
            buckets: BTreeMap::new(),
            map_capacity: BTreeMap::new(),
            collect_interval: Duration::from_secs(5),
            refresh_interval: Duration::from_secs(1),
            statistics: false,
            drop_capabilities: true,
            debug_endpoints: true,
            host_veths: HostVeths::Sum,
            capture: CaptureMode::Off,
            capture_interfaces: Globs::default(),
            capture_sampling: 1.0,
            kubernetes: Mode::Auto,
            kubeconfig: None,
            node_name: None,
            kubernetes_pods: KubernetesPods::Cluster,
            kubernetes_grace: Duration::from_secs(30),
            kubernetes_app_labels: false,
            flow_limit: flows.entries,
            flow_timeout: flows.timeout,
            flow_persistent_after: flows.persistent_after,
            flow_store: None,
            flow_store_keep: Duration::from_secs(86_400),
            flow_store_size: 256 << 20,
        }
    }
}

impl Config {
    pub fn watch_settings(&self) -> WatchSettings {
        WatchSettings {
            mode: self.kubernetes,
            kubeconfig: self.kubeconfig.clone(),
            node: (self.node_name.clone())
                .or_else(|| std::env::var("NODE_NAME").ok())
                .filter(|name| !name.is_empty())
                .or_else(|| nix::unistd::gethostname().ok()?.into_string().ok()),
            whole_cluster: self.kubernetes_pods == KubernetesPods::Cluster,
        }
    }

    pub fn flow_limits(&self) -> FlowLimits {
        FlowLimits {
            entries: self.flow_limit,
            timeout: self.flow_timeout,
            persistent_after: self.flow_persistent_after,
        }
    }

    pub fn flow_store_limits(&self) -> Limits {
        Limits {
            keep: self.flow_store_keep,
            size: self.flow_store_size,
        }
    }
}
