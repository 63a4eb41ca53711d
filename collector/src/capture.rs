//! Packets, bytes and packet sizes of network interfaces: see `bpf/capture.bpf.c`.
//!
//! Off unless the user asks for it. Interfaces are looked for about once a second, in every
//! namespace that the host knows; one that comes is attached to, one that goes takes its series
//! with it. What cannot be attached to is left as it is, and shown with the reason.

mod follow;
mod glob;
mod interface;
mod totals;

use zerocopy::transmute;

use crate::abi::{
    CAPTURE_DIRECTIONS, CAPTURE_EGRESS, CAPTURE_ICMP, CAPTURE_ICMPV6, CAPTURE_INGRESS,
    CAPTURE_OTHER, CAPTURE_PROTOCOLS, CAPTURE_SLOTS, CAPTURE_TCP, CAPTURE_UDP, capture_counts,
};
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Buckets, Counter, Gauge, Histogram, Labels, OWNER, Registry, owner};
use crate::kernel::{Bounds, KernelTypes, Object, Refusal};
use crate::signals::{Signal, SignalSettings};
use follow::Followed;
use totals::Sampling;

pub use glob::Globs;
pub use interface::names as interface_names;

pub const NAME: &str = "capture";
static ELF: &[u8] = elf!("capture");

/// The map of counters by interface.
const COUNTS: &str = "capture_counts";
/// Counters of one interface.
const CELLS: usize = size_of::<capture_counts>() / size_of::<u64>();

/// What the user may change, also while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureSettings {
    pub mode: CaptureMode,
    pub interfaces: Globs,
    /// The share of packets that is counted, and scaled up from.
    pub sampling: f64,
    /// Attaches as kernels before 6.6 need it, also where there are links.
    pub without_links: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    Off,
    /// Only what comes in, before the rest of the kernel sees it.
    Xdp,
    /// Both directions.
    Tc,
}

impl CaptureMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            mode: CaptureMode::Off,
            interfaces: Globs::default(),
            sampling: 1.0,
            without_links: false,
        }
    }
}

pub(crate) struct Capture {
    packets: Counter,
    bytes: Counter,
    sizes: Histogram,
    sampling_ratio: Gauge,
    interfaces: Gauge,
    settings: CaptureSettings,
    /// What is in force; `None` until it was first attached.
    applied: Option<CaptureSettings>,
    followed: Followed,
}

impl Capture {
    pub(crate) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        let registry = registry.for_signal(NAME);
        let labels: &[&[&str]] = &[OWNER, &["interface", "direction", "protocol"]];
        Self {
            packets: registry.counter(
                "capture_packets",
                "Packets on the wire that an interface received (ingress) or was given to send (egress)",
                labels,
            ),
            bytes: registry.counter(
                "capture_bytes",
                "Bytes of those packets, link-layer headers included",
                labels,
            ),
            sizes: registry.histogram(
                "capture_packet_size_bytes",
                "Size of those packets, link-layer headers included",
                labels,
                Buckets::exponential(64.0, 2.0, CAPTURE_SLOTS as usize - 1),
            ),
            sampling_ratio: registry.gauge(
                "capture_sampling_ratio",
                "Share of packets that is counted and scaled up from; 1 is exact",
                &[],
            ),
            interfaces: registry.gauge(
                "capture_interfaces",
                "Interfaces whose packets are counted, and with a reason those whose are not although they are wanted",
                &[&["reason"]],
            ),
            settings: settings.capture.clone(),
            applied: None,
            followed: Followed::default(),
        }
    }

    fn sampling(&self) -> Sampling {
        let settings = self.applied.as_ref().unwrap_or(&self.settings);
        Sampling::of(settings.sampling)
    }

    /// Makes `settings` those in force.
    fn take_settings(&mut self, object: &mut Object) -> Result<(), Refusal> {
        if self.applied.as_ref() == Some(&self.settings) {
            return Ok(());
        }
        let how = |settings: &CaptureSettings| (settings.mode, settings.without_links);
        let before = self.applied.replace(self.settings.clone());
        let failed = |error: crate::kernel::ReadError| Refusal::of_failure(format!("{error:#}"));
        object
            .set_number("capture_settings", self.sampling().threshold)
            .map_err(failed)?;
        self.sampling_ratio
            .set(Labels::default(), self.settings.sampling);
        if before.as_ref().map(how) != Some(how(&self.settings)) {
            let left = self.followed.leave_all(object);
            self.forget(left);
            self.followed.load(object, &self.settings)?;
        }
        self.followed.look_now();
        Ok(())
    }

    fn follow_interfaces(
        &mut self,
        object: &mut Object,
        enricher: &Enricher,
    ) -> anyhow::Result<()> {
        let sampled = self.sampling();
        if self.applied.as_ref() != Some(&self.settings) {
            // What was counted so far was counted under the old settings.
            self.add_new(object, enricher, sampled)?;
        }
        if let Err(refusal) = self.take_settings(object) {
            self.applied = None;
            anyhow::bail!("{refusal}");
        }
        let left = self.followed.look(object, enricher, &self.settings)?;
        if let Some(left) = left {
            self.forget(left);
            let counts = self.followed.counts();
            let series =
                (counts.into_iter()).map(|(reason, count)| (Labels::new(&[reason]), count as f64));
            self.interfaces.replace_all(series.collect());
        }
        Ok(())
    }

    fn add_new(
        &mut self,
        object: &Object,
        enricher: &Enricher,
        sampling: Sampling,
    ) -> anyhow::Result<()> {
        let mut renamed = Vec::new();
        object.note_fill(COUNTS, self.followed.captured().count());
        for (key, interface) in self.followed.captured() {
            let Some(totals) = object.sum_of::<_, CELLS>(COUNTS, key)? else {
                continue;
            };
            let workload = enricher.owner(NetnsId(key[0]), CgroupId(0));
            let labels = owner(&workload).with(&[&interface.name]);
            if let Some(before) = interface.labels.replace(labels.clone())
                && before != labels
            {
                renamed.push(before);
            }
            let added: capture_counts = transmute!(interface.totals.advance(&totals, sampling));
            for (direction, protocol, labels) in series_of(&labels) {
                let count = &added.by[direction][protocol];
                let packets = count.slots.iter().sum();
                if packets > 0 || count.bytes > 0 {
                    self.packets.add(labels.clone(), packets);
                    self.bytes.add(labels.clone(), count.bytes);
                    self.sizes.add(labels, &count.slots, count.bytes as f64);
                }
            }
        }
        self.forget(renamed);
        Ok(())
    }

    /// Removes the series of interfaces that are no more, by their first labels.
    fn forget(&self, gone: Vec<Labels>) {
        for labels in gone {
            if self.followed.has(&labels) {
                continue;
            }
            self.packets.forget(&labels);
            self.bytes.forget(&labels);
            self.sizes.forget(&labels);
        }
    }
}

/// Turned off, or failed: no series may stay for when it is on again.
impl Drop for Capture {
    fn drop(&mut self) {
        let left = self.followed.detach_all();
        self.forget(left);
    }
}

impl Signal for Capture {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn bounds(&self) -> Vec<Bounds> {
        vec![Bounds {
            name: "capture_size_bounds",
            values: self.sizes.bounds(1.0),
        }]
    }

    /// Takes effect at the next look for interfaces: attaches and detaches the difference.
    fn configure(&mut self, settings: &SignalSettings) {
        self.settings = settings.capture.clone();
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        let taken = self.take_settings(object);
        match &taken {
            Ok(()) => self.followed.show(object, None),
            Err(refusal) => {
                object.set_hooks(vec![(self.settings.mode.as_str(), Some(refusal.clone()))]);
            }
        }
        taken
    }

    fn follow(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        self.follow_interfaces(object, enricher)
    }

    fn read(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        self.follow_interfaces(object, enricher)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        self.add_new(object, enricher, self.sampling())
    }
}

/// Every direction and protocol of an interface, with its labels.
fn series_of(interface: &Labels) -> impl Iterator<Item = (usize, usize, Labels)> {
    (0..CAPTURE_DIRECTIONS).flat_map(move |direction| {
        (0..CAPTURE_PROTOCOLS).map(move |protocol| {
            let names = [direction_name(direction), protocol_name(protocol)];
            let labels = interface.clone().with(&names);
            (direction as usize, protocol as usize, labels)
        })
    })
}

fn direction_name(direction: u32) -> &'static str {
    match direction {
        CAPTURE_INGRESS => "ingress",
        CAPTURE_EGRESS => "egress",
        _ => "unknown",
    }
}

fn protocol_name(protocol: u32) -> &'static str {
    match protocol {
        CAPTURE_TCP => "tcp",
        CAPTURE_UDP => "udp",
        CAPTURE_ICMP => "icmp",
        CAPTURE_ICMPV6 => "icmpv6",
        CAPTURE_OTHER => "other",
        _ => "unknown",
    }
}
