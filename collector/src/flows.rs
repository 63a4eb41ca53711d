//! Connections, each a row with both its ends: those that are open, and those that were lately.
//!
//! [`FlowTable`] is pure: sightings of sockets in, rows and a graph out. [`Feed`] makes sightings of
//! what the kernel tells, and knows who is who.

mod datagram;
mod feed;
mod flow;
mod graph;
mod history;
mod list;
mod outbox;
mod query;
mod table;
#[cfg(test)]
mod tests;
pub mod unit;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use datagram::DatagramFeed;
pub use feed::{Feed, Reasons};
pub use flow::{Edge, End, Phase, Sighting, State, TCP, UDP};
pub use graph::{Graph, Statistic, fields};
pub use outbox::Ended;
pub use query::{Clock, Filter, Measures, Row, Seen, Sort, Span, Whom};
pub use table::{FlowTable, Statistics};

use crate::enrich::Workload;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    pub entries: usize,
    /// After its end; or, of what has no end, after its last datagram.
    pub timeout: Duration,
    /// What lasts at least so long is persistent.
    pub persistent_after: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            entries: 65_536,
            timeout: Duration::from_secs(300),
            persistent_after: Duration::from_secs(10),
        }
    }
}

/// An attempt to open a connection, once it has come to something: for who looks for patterns.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub protocol: u8,
    pub source: Workload,
    pub source_address: IpAddr,
    pub destination: Workload,
    /// Before translation: the address that was asked for.
    pub destination_address: IpAddr,
    pub port: u16,
    /// `None`: it was opened; else why not.
    pub failure: Option<&'static str>,
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
}

/// The flow table of this process.
#[derive(Clone, Default)]
pub struct Flows(Arc<Mutex<FlowTable>>);

impl Flows {
    /// A panic in the middle of a change costs a row at worst.
    pub fn lock(&self) -> MutexGuard<'_, FlowTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Flows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Flows({})", self.lock().len())
    }
}
