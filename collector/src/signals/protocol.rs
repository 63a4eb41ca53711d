//! Protocols of connections and TLS handshakes, by the first bytes of each side: see
//! `bpf/protocol.bpf.c`.

mod agenda;
mod certificates;
mod connection;
mod connections;
mod families;
mod prober;
mod recent;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tracing::{debug, warn};
use zerocopy::FromBytes as _;

use super::labels::{Ends, address, inward, outward};
use super::{Signal, SignalSettings};
use crate::abi::stream_segment;
use crate::elf;
use crate::enrich::{Enricher, NetnsId};
use crate::export::{Labels, Registry, owner};
use crate::kernel::{
    Bell, Direction, Eraser, KernelTypes, Number, Object, Refusal, Ring, monotonic_nanoseconds,
};
use crate::tls::handshake::{End, Outcome};
use crate::tls::table::{Server, TlsTable};
use certificates::Certificates;
use connection::Edge;
use connections::{Connections, Finished, Found};
use families::Families;
use prober::Prober;

pub(super) const NAME: &str = "protocol";
static ELF: &[u8] = elf!("protocol");

/// How often the ring is looked into.
const LOOK: Duration = Duration::from_millis(200);
/// What was read stays in the ring so long at most.
const ERASE_AFTER: u64 = 3_000_000_000;
const TLS13: u16 = 0x0304;

pub(super) struct Protocol {
    families: Families,
    table: TlsTable,
    certificates: Certificates,
    prober: Option<Prober>,
    handshake_timeout: Duration,
    reader: Option<Arc<Mutex<Reader>>>,
}

/// What the ring's thread and the collection share.
pub(super) struct Reader {
    ring: Ring,
    /// Pieces that the ring had no room for, ever.
    lost_pieces: Number,
    /// `None` if the kernel did not take it.
    eraser: Option<Eraser>,
    /// When the first of what is in the ring still was read.
    unerased_since: Option<u64>,
    connections: Connections,
}

impl Protocol {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        Self {
            families: Families::register(registry, settings.tls_server_names),
            table: settings.tls_table.clone(),
            certificates: Certificates::new(settings.tls_server_names > 0),
            prober: prober(settings),
            handshake_timeout: settings.tls_handshake_timeout,
            reader: None,
        }
    }

    fn start_reading(&mut self, object: &mut Object) -> anyhow::Result<()> {
        let ring = object.take_ring("segments")?;
        let bell = ring.bell()?;
        let eraser = (object.take_eraser("protocol_erase", &ring))
            .inspect_err(|error| warn!(%error, "first bytes of connections stay in the kernel's ring until others take their place"));
        let reader = Arc::new(Mutex::new(Reader {
            ring,
            lost_pieces: object.take_number("lost_segments")?,
            eraser: eraser.ok(),
            unerased_since: None,
            connections: Connections::new(self.handshake_timeout),
        }));
        let shared = Arc::downgrade(&reader);
        thread::Builder::new()
            .name("first-bytes".to_owned())
            .spawn(move || read_until_dropped(&bell, &shared))?;
        self.reader = Some(reader);
        Ok(())
    }
}

fn prober(settings: &SignalSettings) -> Option<Prober> {
    (settings.tls_probe).then(|| Prober::new(settings.tls_probe_interval))
}

/// Ends soon after the signal.
fn read_until_dropped(bell: &Bell, reader: &Weak<Mutex<Reader>>) {
    while let Some(reader) = reader.upgrade() {
        lock(&reader).read();
        drop(reader);
        bell.wait(LOOK);
    }
}

impl Reader {
    fn read(&mut self) {
        let has_read = drain(&mut self.ring, &mut self.connections);
        let now = monotonic_nanoseconds();
        if has_read {
            self.unerased_since.get_or_insert(now);
        }
        if (self.unerased_since).is_some_and(|since| now.saturating_sub(since) >= ERASE_AFTER) {
            self.unerased_since = None;
            self.erase();
        }
        let connections = &mut self.connections;
        connections.lost_pieces(self.lost_pieces.read(), now);
        connections.tick(now);
    }

    fn erase(&mut self) {
        let Some(eraser) = &self.eraser else {
            return;
        };
        let mut has_read = false;
        let erased = eraser.erase(|| has_read |= drain(&mut self.ring, &mut self.connections));
        if has_read {
            self.unerased_since = Some(monotonic_nanoseconds());
        }
        if let Err(error) = erased {
            debug!(%error, "cannot erase first bytes from the kernel's ring");
        }
    }

    /// The next connection from this port is ours, and does not count.
    pub(super) fn ignore(&mut self, netns: NetnsId, local_port: u16) {
        self.connections
            .ignore(netns.0, local_port, monotonic_nanoseconds());
    }
}

/// Whether there was anything.
fn drain(ring: &mut Ring, connections: &mut Connections) -> bool {
    let mut has_read = false;
    ring.drain(|record| {
        has_read = true;
        if let Ok((segment, bytes)) = stream_segment::read_from_prefix(record) {
            let length = bytes.len().min(segment.length as usize);
            connections.segment(&segment, &bytes[..length]);
        }
    });
    has_read
}

pub(super) fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signal for Protocol {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn configure(&mut self, settings: &SignalSettings) {
        self.families.name_at_most(settings.tls_server_names);
        self.certificates.show_names(settings.tls_server_names > 0);
        self.handshake_timeout = settings.tls_handshake_timeout;
        if let Some(reader) = &self.reader {
            let timeout = settings.tls_handshake_timeout;
            lock(reader).connections.set_handshake_timeout(timeout);
        }
        match &mut self.prober {
            Some(prober) if settings.tls_probe => prober.set_interval(settings.tls_probe_interval),
            _ => self.prober = prober(settings),
        }
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        self.start_reading(object)
            .map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_root_cgroup("protocol_ingress", Direction::Ingress)?;
        object.attach_root_cgroup("protocol_egress", Direction::Egress)
    }

    fn collect(&mut self, _object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let Some(reader) = &self.reader else {
            return Ok(());
        };
        let found = {
            let mut reader = lock(reader);
            reader.read();
            reader.connections.take()
        };
        self.add(found, enricher);
        if let (Some(prober), Some(reader)) = (&mut self.prober, &self.reader) {
            for (server, owner, chain) in prober.run(reader, enricher) {
                let read = self.certificates.add(&chain, owner, server.name.as_deref());
                if let Some(certificate) = read {
                    self.table.set_certificate(&server, &certificate);
                }
            }
        }
        let (ends, beginnings) = (self.certificates.series().into_iter())
            .map(|(labels, [beginning, end])| ((labels.clone(), end), (labels, beginning)))
            .unzip();
        self.families.certificates.replace_all(ends);
        self.families.beginnings.replace_all(beginnings);
        Ok(())
    }
}

impl Protocol {
    fn add(&mut self, found: Found, enricher: &Enricher) {
        self.families.lose("ring_full", found.lost_pieces);
        self.families.lose("table_full", found.lost);
        self.families.lose("incomplete", found.incomplete);
        for ((edge, protocol, transport), count) in found.protocols {
            let transport = if transport == 17 { "udp" } else { "tcp" };
            let labels = labels(enricher, &edge).with(&[protocol.as_str(), transport]);
            self.families.connections.add(labels, count);
        }
        for (edge, count) in found.plaintext {
            self.families.plaintext.add(labels(enricher, &edge), count);
        }
        for finished in found.handshakes {
            self.finished(&finished, enricher);
        }
    }

    fn finished(&mut self, finished: &Finished, enricher: &Enricher) {
        let Finished { edge, outcome, .. } = finished;
        let Some(ends) = Ends::of(enricher, edge.netns, edge.cgroup, edge.peer) else {
            return;
        };
        let (client, server, service) = if edge.is_client {
            (ends.local, ends.peer, ends.service)
        } else {
            (ends.peer, ends.local, None)
        };
        let service = service.as_deref().unwrap_or_default();
        self.families
            .add(&crate::export::edge_by(&client, &server, service), outcome);
        let meant = Server {
            address: address(finished.server.0),
            port: finished.server.1,
            name: outcome.hello.server_name.clone(),
        };
        let owner = owner(&server);
        let certificate =
            (self.certificates).add(&outcome.certificates, owner.clone(), meant.name.as_deref());
        if is_worth_a_probe(outcome)
            && let Some(prober) = &mut self.prober
        {
            prober.ask(NetnsId(edge.netns), meant.clone(), owner);
        }
        let client = (address(finished.client), client);
        self.table
            .add(client, (meant, server), outcome, certificate);
    }
}

/// Its certificate was not to be seen.
fn is_worth_a_probe(outcome: &Outcome) -> bool {
    let version = outcome.chosen.as_ref().map(|chosen| chosen.version);
    outcome.end == End::Completed && version.is_some_and(|version| version >= TLS13)
}

/// From the client to the server.
fn labels(enricher: &Enricher, edge: &Edge) -> Labels {
    let ends = Ends::of(enricher, edge.netns, edge.cgroup, edge.peer);
    if edge.is_client {
        outward(ends.as_ref())
    } else {
        inward(ends.as_ref())
    }
}
