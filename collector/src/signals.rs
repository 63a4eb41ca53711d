//! What we measure. A signal goes from its hooks to its metric families; [`all`] is the list.
//!
//! Each collection has three steps: every signal reads what must be asked for (iterators), then all
//! programs are turned to their other maps, then every signal empties the maps they wrote to before.

mod dns;
mod icmp;
mod labels;
mod listen_queue;
mod neighbour;
mod packet_drop;
mod probe;
mod protocol;
mod running;
mod tcp_connect;
mod tcp_lifecycle;
mod tcp_reset;
mod tcp_retransmit;
mod udp;

pub use running::Signals;
pub use udp::{UdpFlow, UdpFlows};

use std::collections::BTreeMap;
use std::time::Duration;

use crate::abi;
use crate::capture::{self, Capture, CaptureMode, CaptureSettings};
use crate::config::Config;
use crate::enrich::Enricher;
use crate::export::{Counter, Registry};
use crate::flows::Flows;
use crate::kernel::{Bounds, KernelTypes, Object, Refusal};
use crate::scan::Detector;
use crate::tls::table::TlsTable;

/// One thing that we measure.
pub trait Signal: Send {
    /// The file stem in `bpf/`, the switch in the settings, the label on our own metrics.
    fn name(&self) -> &'static str;

    fn elf(&self) -> &'static [u8];

    /// Bounds of histograms that its programs fill.
    fn bounds(&self) -> Vec<Bounds> {
        Vec::new()
    }

    /// Takes what can change while it runs.
    fn configure(&mut self, _settings: &SignalSettings) {}

    /// Fails if the signal is of no use without the hook that was refused. Hooks it can do without
    /// are only recorded in the object.
    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal>;

    /// Goes after what comes and goes. Called about once a second.
    fn follow(&mut self, _object: &mut Object, _enricher: &Enricher) -> anyhow::Result<()> {
        Ok(())
    }

    /// Runs what counts only when asked to. Comes before the maps are swapped.
    fn read(&mut self, _object: &mut Object, _enricher: &Enricher) -> anyhow::Result<()> {
        Ok(())
    }

    /// Takes records from where little of them fits. Comes twice a second.
    fn drain(&mut self, _object: &mut Object, _enricher: &Enricher) -> anyhow::Result<()> {
        Ok(())
    }

    /// Adds what the kernel counted since the last call.
    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()>;

    /// What it found that is no metric, as of the last collection.
    fn report(&self) -> Option<serde_json::Value> {
        None
    }
}

/// What the user may change.
#[derive(Clone, Debug)]
pub struct SignalSettings {
    /// Signals by name that are not to be measured.
    pub off: Vec<String>,
    /// After how long a DNS query without answer counts as timed out.
    pub dns_timeout: Duration,
    /// How many DNS names may be label values.
    pub dns_names: usize,
    /// How many names ends outside may have.
    pub external_names: usize,
    /// A TLS handshake that takes longer counts as failed.
    pub tls_handshake_timeout: Duration,
    /// Server names that may be labels.
    pub tls_server_names: usize,
    /// Whether servers are asked for the certificates that TLS 1.3 hides, and how often.
    pub tls_probe: bool,
    pub tls_probe_interval: Duration,
    /// Where handshakes are shown one by one.
    pub tls_table: TlsTable,
    /// How often sockets that escaped the hooks are looked for.
    pub repair_interval: Duration,
    /// Where UDP flows go, if somebody keeps a table of them.
    pub udp_flows: Option<UdpFlows>,
    /// Who tells scans and floods, from what signals and others see.
    pub detector: Detector,
    /// Sizes of kernel maps that differ from those in `bpf/`, by a name of [`MAPS`].
    pub map_capacity: BTreeMap<String, u32>,
    /// A signal that failed is tried again after this long, then after twice as long, and so on.
    pub retry_after: Duration,
    /// Whether the kernel is to measure programs.
    pub statistics: bool,
    /// Where connections go.
    pub flows: Flows,
    pub capture: CaptureSettings,
}

/// Histograms whose buckets the user may choose, and how many (+Inf not counted) there is room for.
pub const HISTOGRAMS: &[(&str, usize)] = &[
    (
        "tcp_connect_duration_seconds",
        abi::TCP_CONNECT_SLOTS as usize - 1,
    ),
    (
        "tcp_connection_duration_seconds",
        abi::TCP_LIFETIME_SLOTS as usize - 1,
    ),
    ("tcp_rtt_seconds", abi::TCP_RTT_SLOTS as usize - 1),
    ("tcp_min_rtt_seconds", abi::TCP_RTT_SLOTS as usize - 1),
    ("dns_query_duration_seconds", abi::DNS_SLOTS as usize - 1),
    ("tls_handshake_duration_seconds", 31),
    ("scrape_duration_seconds", 31),
    ("capture_packet_size_bytes", abi::CAPTURE_SLOTS as usize - 1),
];

/// Kernel maps whose size the user may choose. A pair (see `bpf/include/count.bpf.h`) goes by its
/// name without the number.
pub const MAPS: &[&str] = &[
    "tcp_edges",
    "tcp_states",
    "tcp_connects",
    "flow_records",
    "tcp_retransmits",
    "tcp_resets",
    "packet_drops",
    "dns_edges",
    "dns_pending",
    "dns_questions",
    "dns_searches",
    "dns_answers",
    "dns_names",
    "dns_addresses",
    "icmp_sent",
    "pings",
    "neighbour_failures",
    "probes",
    "udp_flows",
    "udp_edges",
    "udp_drops",
    "capture_counts",
];

impl From<&Config> for SignalSettings {
    fn from(config: &Config) -> Self {
        Self {
            off: config.disabled_signals.clone(),
            dns_timeout: config.dns_timeout,
            dns_names: config.dns_names,
            external_names: config.external_names,
            tls_handshake_timeout: config.tls_handshake_timeout,
            tls_server_names: config.tls_server_names,
            tls_probe: config.tls_probe,
            tls_probe_interval: config.tls_probe_interval,
            map_capacity: config.map_capacity.clone(),
            statistics: config.statistics,
            capture: config.capture_settings(),
            ..Self::default()
        }
    }
}

impl SignalSettings {
    pub fn is_off(&self, signal: &str) -> bool {
        self.off.iter().any(|off| off == signal)
            || (signal == capture::NAME && self.capture.mode == CaptureMode::Off)
    }
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            dns_timeout: Duration::from_secs(5),
            dns_names: 0,
            external_names: 0,
            tls_handshake_timeout: Duration::from_secs(10),
            tls_server_names: 0,
            tls_probe: false,
            tls_probe_interval: Duration::from_secs(3600),
            tls_table: TlsTable::default(),
            repair_interval: Duration::from_secs(30),
            udp_flows: None,
            detector: Detector::default(),
            map_capacity: BTreeMap::new(),
            retry_after: Duration::from_secs(10),
            statistics: false,
            flows: Flows::default(),
            capture: CaptureSettings::default(),
        }
    }
}

/// Records and collections that never arrived, with why.
pub fn events_lost(registry: &Registry) -> Counter {
    registry.counter(
        "events_lost",
        "Records that found no room, events that came while their program was interrupted, and collections of a signal that failed",
        &[&["signal", "reason"]],
    )
}

/// Every signal, its families registered.
pub fn all(registry: &Registry, settings: &SignalSettings) -> Vec<Box<dyn Signal>> {
    vec![
        Box::new(tcp_lifecycle::TcpLifecycle::register(registry, settings)),
        Box::new(tcp_connect::TcpConnect::register(registry)),
        Box::new(tcp_retransmit::TcpRetransmit::register(registry)),
        Box::new(tcp_reset::TcpReset::register(registry)),
        Box::new(packet_drop::PacketDrop::register(registry)),
        Box::new(listen_queue::ListenQueue::register(registry, settings)),
        Box::new(dns::Dns::register(registry, settings)),
        Box::new(udp::Udp::register(registry, settings)),
        Box::new(probe::Probe::register(registry, settings)),
        Box::new(icmp::IcmpSent::register(registry, settings)),
        Box::new(neighbour::Neighbour::register(registry)),
        Box::new(Capture::register(registry, settings)),
        Box::new(protocol::Protocol::register(registry, settings)),
    ]
}

/// The signal that [`Signals::report`]s the listening sockets.
pub const LISTENERS: &str = listen_queue::NAME;
/// Whose report names what is asked of DNS.
pub const DNS: &str = dns::NAME;

/// The signal that [`Signals::report`]s scans and floods.
pub const PROBES: &str = probe::NAME;

/// The names of [`all`], for who checks settings.
pub const NAMES: [&str; 13] = [
    tcp_lifecycle::NAME,
    tcp_connect::NAME,
    tcp_retransmit::NAME,
    tcp_reset::NAME,
    packet_drop::NAME,
    listen_queue::NAME,
    dns::NAME,
    udp::NAME,
    probe::NAME,
    icmp::NAME,
    neighbour::NAME,
    capture::NAME,
    protocol::NAME,
];
