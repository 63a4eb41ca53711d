//! The schema: every key, how its value is read and written, and when a new one takes effect.

use std::time::Duration;

use tracing::Level;

use super::values::{self, duration, number, parse, show_switch, switch};
use super::{Config, KubernetesPods, LogFormat};
use crate::capture::CaptureMode;
use crate::host::HostVeths;
use crate::k8s::watch::Mode;

/// A key of the configuration. Its variable is `RUNWIRE_` and the name in capitals.
pub struct Key {
    /// In the file.
    pub name: &'static str,
    /// Without the dashes in front.
    pub flag: &'static str,
    pub value_name: &'static str,
    pub help: &'static str,
    pub applies: Applies,
    /// Says what the value must be if it is not that.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    get: fn(&Config) -> String,
}

/// When a new value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// Also while the collector runs: when the file changes, or by `config set`.
    AtOnce,
    /// Only when the collector starts.
    AtStart,
}

impl Applies {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::AtStart => "at start",
        }
    }
}

impl Key {
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// As [`Key::value`], without passwords in addresses: for logs and support bundles.
    pub fn shown(&self, config: &Config) -> String {
        values::mask(&self.value(config))
    }

    /// Whether the file may have keys of their own under it.
    pub(super) fn has_entries(&self) -> bool {
        self.value_name.contains('=')
    }

    /// Gives `to` the value that `from` has.
    pub fn copy(&self, from: &Config, to: &mut Config) {
        // What was read once can be read again.
        let _ = (self.set)(to, &self.value(from));
    }

    pub fn variable(&self) -> String {
        format!("RUNWIRE_{}", self.name.to_uppercase())
    }

    pub fn value(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        flag: "listen",
        value_name: "ADDR:PORT",
        help: "Where /metrics, /healthz and /readyz are served",
        applies: Applies::AtStart,
        set: |config, text| {
            config.listen = parse(text, "write an address and port such as 127.0.0.1:9435")?;
            Ok(())
        },
        get: |config| config.listen.to_string(),
    },
    Key {
        name: "log_format",
        flag: "log-format",
        value_name: "text|json",
        help: "How log lines are written to standard error",
        applies: Applies::AtStart,
        set: |config, text| {
            config.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("write text or json".to_owned()),
            };
            Ok(())
        },
        get: |config| match config.log_format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        },
    },
    Key {
        name: "log_level",
        flag: "log-level",
        value_name: "LEVEL",
        help: "The least important lines that are logged: error, warn, info, debug or trace",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.log_level = match text {
                "error" => Level::ERROR,
                "warn" => Level::WARN,
                "info" => Level::INFO,
                "debug" => Level::DEBUG,
                "trace" => Level::TRACE,
                _ => return Err("write error, warn, info, debug or trace".to_owned()),
            };
            Ok(())
        },
        get: |config| config.log_level.to_string().to_lowercase(),
    },
    Key {
        name: "disabled_signals",
        flag: "disabled-signals",
        value_name: "NAME,…",
        help: "Signals that are not measured; `runwire-collector status` lists their names",
        applies: Applies::AtOnce,
        set: |config, text| {
            let names = text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            config.disabled_signals = names.map(str::to_owned).collect();
            let known = crate::agent::signal_names();
            let unknown =
                (config.disabled_signals.iter()).find(|name| !known.contains(&name.as_str()));
            match unknown {
                Some(name) => Err(format!(
                    "there is no signal `{name}`, they are {}",
                    known.join(", ")
                )),
                None => Ok(()),
            }
        },
        get: |config| config.disabled_signals.join(","),
    },
    Key {
        name: "series_budget",
        flag: "series-budget",
        value_name: "NUMBER",
        help: "Series that one metric may have; what is more is counted under ~other",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.series_budget = number(text, 100..=1_000_000)?;
            Ok(())
        },
        get: |config| config.series_budget.to_string(),
    },
    Key {
        name: "dns_timeout",
        flag: "dns-timeout",
        value_name: "DURATION",
        help: "How long a DNS query waits for its answer before it counts as timed out",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_millis(100)..=Duration::from_secs(60);
            config.dns_timeout = duration(text, range, "5s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.dns_timeout).to_string(),
    },
    Key {
        name: "dns_names",
        flag: "dns-names",
        value_name: "NUMBER",
        help: "DNS names that may be values of the label `name` of dns_name_queries; 0: none",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.dns_names = number(text, 0..=10_000)?;
            Ok(())
        },
        get: |config| config.dns_names.to_string(),
    },
    Key {
        name: "external_names",
        flag: "external-names",
        value_name: "NUMBER",
        help: "DNS names that ends outside the cluster may have instead of ~external; 0: none",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.external_names = number(text, 0..=10_000)?;
            Ok(())
        },
        get: |config| config.external_names.to_string(),
    },
    Key {
        name: "tls_handshake_timeout",
        flag: "tls-handshake-timeout",
        value_name: "DURATION",
        help: "How long a TLS handshake may take before it counts as failed",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_secs(1)..=Duration::from_secs(120);
            config.tls_handshake_timeout = duration(text, range, "10s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.tls_handshake_timeout).to_string(),
    },
    Key {
        name: "tls_server_names",
        flag: "tls-server-names",
        value_name: "NUMBER",
        help: "How many server names of TLS may be label values; 0 keeps names off the metrics",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.tls_server_names = number(text, 0..=1000)?;
            Ok(())
        },
        get: |config| config.tls_server_names.to_string(),
    },
    Key {
        name: "tls_probe",
        flag: "tls-probe",
        value_name: "on|off",
        help: "Connect to TLS 1.3 servers that others talked to, for the expiry of their certificates",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.tls_probe = switch(text)?;
            Ok(())
        },
        get: |config| show_switch(config.tls_probe),
    },
    Key {
        name: "tls_probe_interval",
        flag: "tls-probe-interval",
        value_name: "DURATION",
        help: "How often the same server is probed; never more than one a second in all",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);
            config.tls_probe_interval = duration(text, range, "1h")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.tls_probe_interval).to_string(),
    },
    Key {
        name: "buckets",
        flag: "buckets",
        value_name: "METRIC=SECONDS,…;…",
        help: "Upper bounds of a histogram's buckets, in its unit and without +Inf",
        applies: Applies::AtStart,
        set: |config, text| {
            config.buckets = values::buckets(text)?;
            Ok(())
        },
        get: |config| values::show_buckets(&config.buckets),
    },
    Key {
        name: "map_capacity",
        flag: "map-capacity",
        value_name: "MAP=ENTRIES;…",
        help: "Sizes of kernel maps; what does not fit is counted in bpf_map_insert_failures_total",
        applies: Applies::AtStart,
        set: |config, text| {
            config.map_capacity = values::map_capacity(text)?;
            Ok(())
        },
        get: |config| values::show_map_capacity(&config.map_capacity),
    },
    Key {
        name: "collect_interval",
        flag: "collect-interval",
        value_name: "DURATION",
        help: "The kernel's maps are emptied at least this often, also when nobody scrapes",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_millis(500)..=Duration::from_secs(60);
            config.collect_interval = duration(text, range, "5s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.collect_interval).to_string(),
    },
    Key {
        name: "refresh_interval",
        flag: "refresh-interval",
        value_name: "DURATION",
        help: "How often network namespaces and addresses that came or went are looked for",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_millis(100)..=Duration::from_secs(60);
            config.refresh_interval = duration(text, range, "1s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.refresh_interval).to_string(),
    },
    Key {
        name: "statistics",
        flag: "statistics",
        value_name: "on|off",
        help: "Have the kernel measure runs and time of BPF programs, at about 60 ns a run",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.statistics = switch(text)?;
            Ok(())
        },
        get: |config| show_switch(config.statistics),
    },
    Key {
        name: "drop_capabilities",
        flag: "drop-capabilities",
        value_name: "on|off",
        help: "Give up, for good, every capability that measuring does not need",
        applies: Applies::AtStart,
        set: |config, text| {
            config.drop_capabilities = switch(text)?;
            Ok(())
        },
        get: |config| show_switch(config.drop_capabilities),
    },
    Key {
        name: "debug_endpoints",
        flag: "debug-endpoints",
        value_name: "on|off",
        help: "Serve /debug/…, to this host alone, which config get and set and parts of bundle ask; where `listen` is no loopback address, on 127.0.0.1 or ::1 with the same port too if it is on at the start",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.debug_endpoints = switch(text)?;
            Ok(())
        },
        get: |config| show_switch(config.debug_endpoints),
    },
    Key {
        name: "host_veths",
        flag: "host-veths",
        value_name: "sum|each|off",
        help: "How the interface metrics count the host's ends of the veth pairs of its containers: all as one series, each, or not at all",
        applies: Applies::AtStart,
        set: |config, text| {
            config.host_veths = match text {
                "sum" => HostVeths::Sum,
                "each" => HostVeths::Each,
                // Some who write YAML turn `off` into this.
                "off" | "false" => HostVeths::Off,
                _ => return Err("write sum, each or off".to_owned()),
            };
            Ok(())
        },
        get: |config| match config.host_veths {
            HostVeths::Sum => "sum".to_owned(),
            HostVeths::Each => "each".to_owned(),
            HostVeths::Off => "off".to_owned(),
        },
    },
    Key {
        name: "flow_limit",
        flag: "flow-limit",
        value_name: "NUMBER",
        help: "Flows that are remembered at a time; beyond, the oldest are forgotten",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.flow_limit = number(text, 16..=4_000_000)?;
            Ok(())
        },
        get: |config| config.flow_limit.to_string(),
    },
    Key {
        name: "flow_timeout",
        flag: "flow-timeout",
        value_name: "DURATION",
        help: "How long a flow is remembered after its end, or after its last datagram",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
            config.flow_timeout = duration(text, range, "5m")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.flow_timeout).to_string(),
    },
    Key {
        name: "flow_persistent_after",
        flag: "flow-persistent-after",
        value_name: "DURATION",
        help: "From which duration on a flow is persistent and not short-lived",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::ZERO..=Duration::from_secs(86_400);
            config.flow_persistent_after = duration(text, range, "10s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.flow_persistent_after).to_string(),
    },
    Key {
        name: "flow_store",
        flag: "flow-store",
        value_name: "FOLDER",
        help: "Where flows that have ended are kept on disk, also over restarts; nowhere if empty",
        applies: Applies::AtStart,
        set: |config, text| {
            if !text.is_empty() && !text.starts_with('/') {
                return Err(
                    "write the whole path of a folder, such as /var/lib/runwire-collector/flows"
                        .to_owned(),
                );
            }
            config.flow_store = (!text.is_empty()).then(|| text.into());
            Ok(())
        },
        get: |config| match &config.flow_store {
            Some(path) => path.display().to_string(),
            None => String::new(),
        },
    },
    Key {
        name: "flow_store_keep",
        flag: "flow-store-keep",
        value_name: "DURATION",
        help: "How long flows stay on disk",
        applies: Applies::AtOnce,
        set: |config, text| {
            let range = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
            config.flow_store_keep = duration(text, range, "24h")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.flow_store_keep).to_string(),
    },
    Key {
        name: "flow_store_size",
        flag: "flow-store-size",
        value_name: "BYTES",
        help: "Bytes that flows may take on disk; beyond, the oldest are removed",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.flow_store_size = number(text, 1 << 20..=1 << 40)?;
            Ok(())
        },
        get: |config| config.flow_store_size.to_string(),
    },
    Key {
        name: "capture",
        flag: "capture",
        value_name: "off|xdp|tc",
        help: "Whether packets are counted at interfaces: xdp those that come in, tc both directions",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.capture = match text {
                // Some who write YAML turn `off` into this.
                "off" | "false" => CaptureMode::Off,
                "xdp" => CaptureMode::Xdp,
                "tc" => CaptureMode::Tc,
                _ => return Err("write off, xdp or tc".to_owned()),
            };
            Ok(())
        },
        get: |config| config.capture.as_str().to_owned(),
    },
    Key {
        name: "capture_interfaces",
        flag: "capture-interfaces",
        value_name: "PATTERN,…",
        help: "Interfaces whose packets are counted, in every namespace; with ! in front, those that are not",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.capture_interfaces = text.parse()?;
            Ok(())
        },
        get: |config| config.capture_interfaces.to_string(),
    },
    Key {
        name: "capture_sampling",
        flag: "capture-sampling",
        value_name: "RATIO",
        help: "Share of packets that is looked at; counts are scaled up from them",
        applies: Applies::AtOnce,
        set: |config, text| {
            let expected = "write a number from 0.0001 to 1, such as 0.1";
            let ratio: f64 = parse(text, expected)?;
            if !(0.0001..=1.0).contains(&ratio) {
                return Err(expected.to_owned());
            }
            config.capture_sampling = ratio;
            Ok(())
        },
        get: |config| config.capture_sampling.to_string(),
    },
    Key {
        name: "kubernetes",
        flag: "kubernetes",
        value_name: "auto|on|off",
        help: "Whether pods get their names from the Kubernetes API; auto: inside a pod, or if kubeconfig is set",
        applies: Applies::AtStart,
        set: |config, text| {
            config.kubernetes = match text {
                "auto" => Mode::Auto,
                "on" | "true" => Mode::On,
                // Some who write YAML turn `off` into this.
                "off" | "false" => Mode::Off,
                _ => return Err("write auto, on or off".to_owned()),
            };
            Ok(())
        },
        get: |config| match config.kubernetes {
            Mode::Auto => "auto".to_owned(),
            Mode::On => "on".to_owned(),
            Mode::Off => "off".to_owned(),
        },
    },
    Key {
        name: "kubeconfig",
        flag: "kubeconfig",
        value_name: "FILE",
        help: "How the Kubernetes API is reached, if not by the service account of the collector's pod",
        applies: Applies::AtStart,
        set: |config, text| {
            config.kubeconfig = (!text.is_empty()).then(|| text.into());
            Ok(())
        },
        get: |config| match &config.kubeconfig {
            Some(path) => path.display().to_string(),
            None => String::new(),
        },
    },
    Key {
        name: "node_name",
        flag: "node-name",
        value_name: "NAME",
        help: "What this node is called in Kubernetes; else $NODE_NAME, else the host's name",
        applies: Applies::AtStart,
        set: |config, text| {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            if text.len() > 253 || !text.bytes().all(is_name) {
                return Err("write the name of a node, as `kubectl get nodes` has it".to_owned());
            }
            config.node_name = (!text.is_empty()).then(|| text.to_owned());
            Ok(())
        },
        get: |config| config.node_name.clone().unwrap_or_default(),
    },
    Key {
        name: "kubernetes_pods",
        flag: "kubernetes-pods",
        value_name: "cluster|node",
        help: "Whose pods are asked for: with node, pods of other nodes have no names, and the API server has less to do",
        applies: Applies::AtStart,
        set: |config, text| {
            config.kubernetes_pods = match text {
                "cluster" => KubernetesPods::Cluster,
                "node" => KubernetesPods::Node,
                _ => return Err("write cluster or node".to_owned()),
            };
            Ok(())
        },
        get: |config| match config.kubernetes_pods {
            KubernetesPods::Cluster => "cluster".to_owned(),
            KubernetesPods::Node => "node".to_owned(),
        },
    },
    Key {
        name: "kubernetes_grace",
        flag: "kubernetes-grace",
        value_name: "DURATION",
        help: "How long a pod is ~unknown while Kubernetes has not told of it; then it has the name of its container",
        applies: Applies::AtStart,
        set: |config, text| {
            let range = Duration::from_secs(1)..=Duration::from_secs(600);
            config.kubernetes_grace = duration(text, range, "30s")?;
            Ok(())
        },
        get: |config| humantime::format_duration(config.kubernetes_grace).to_string(),
    },
    Key {
        name: "kubernetes_app_labels",
        flag: "kubernetes-app-labels",
        value_name: "on|off",
        help: "Export the app.kubernetes.io labels of this node's workloads as workload_labels",
        applies: Applies::AtOnce,
        set: |config, text| {
            config.kubernetes_app_labels = switch(text)?;
            Ok(())
        },
        get: |config| show_switch(config.kubernetes_app_labels),
    },
];
