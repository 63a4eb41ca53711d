//! What we measure. A signal goes from its hooks to its metric families; [`all`] is the list.
//!
//! Each collection has three steps: every signal reads what must be asked for (iterators), then all
//! programs are turned to their other maps, then every signal empties the maps they wrote to before.

mod dns;
mod labels;
mod listen_queue;
mod packet_drop;
mod running;
mod tcp_lifecycle;
mod tcp_reset;
mod tcp_retransmit;

pub use running::Signals;

use std::collections::HashMap;
use std::time::Duration;

use crate::enrich::Enricher;
use crate::export::Registry;
use crate::kernel::{KernelTypes, Object, Refusal};

/// One thing that we measure.
pub trait Signal: Send {
    /// The file stem in `bpf/`, the switch in the settings, the label on our own metrics.
    fn name(&self) -> &'static str;

    fn elf(&self) -> &'static [u8];

    /// Fails if the signal is of no use without the hook that was refused. Hooks it can do without
    /// are only recorded in the object.
    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal>;

    /// Runs what counts only when asked to. Comes before the maps are swapped.
    fn read(&mut self, _object: &mut Object, _enricher: &Enricher) -> anyhow::Result<()> {
        Ok(())
    }

    /// Adds what the kernel counted since the last call.
    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()>;
}

/// What the user may change.
#[derive(Clone, Debug)]
pub struct SignalSettings {
    /// Signals by name that are not to be measured.
    pub off: Vec<String>,
    /// After how long a DNS query without answer counts as timed out.
    pub dns_timeout: Duration,
    /// How often sockets that escaped the hooks are looked for.
    pub repair_interval: Duration,
    /// Sizes of kernel maps that differ from those in `bpf/`, by name.
    pub map_capacity: HashMap<&'static str, u32>,
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            dns_timeout: Duration::from_secs(5),
            repair_interval: Duration::from_secs(30),
            map_capacity: HashMap::new(),
        }
    }
}

/// Every signal, its families registered.
pub fn all(registry: &Registry, settings: &SignalSettings) -> Vec<Box<dyn Signal>> {
    vec![
        Box::new(tcp_lifecycle::TcpLifecycle::register(registry, settings)),
        Box::new(tcp_retransmit::TcpRetransmit::register(registry)),
        Box::new(tcp_reset::TcpReset::register(registry)),
        Box::new(packet_drop::PacketDrop::register(registry)),
        Box::new(listen_queue::ListenQueue::register(registry, settings)),
        Box::new(dns::Dns::register(registry, settings)),
    ]
}

/// The names of [`all`], for who checks settings.
pub const NAMES: [&str; 6] = [
    tcp_lifecycle::NAME,
    tcp_retransmit::NAME,
    tcp_reset::NAME,
    packet_drop::NAME,
    listen_queue::NAME,
    dns::NAME,
];
