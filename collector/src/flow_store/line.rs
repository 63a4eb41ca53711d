//! A flow as it is shown where Kubernetes knows more of its ends, and as a line of the store: what
//! is written, and what is read of it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flows::{Measures, Row, Seen, State, TCP, UDP};
use crate::k8s::Index;

#[derive(Serialize)]
pub struct ClusterRow {
    #[serde(flatten)]
    row: Row,
    /// The Service whose address the client asked for, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_zone: Option<String>,
    /// Known if both zones are.
    #[serde(skip_serializing_if = "Option::is_none")]
    crosses_zones: Option<bool>,
}

impl ClusterRow {
    /// Zones and Services are those of now.
    pub fn of(row: Row, index: &Index) -> Self {
        let arrived = || SocketAddr::new(row.dst_address, row.dst_port);
        let asked = row.service.unwrap_or_else(arrived);
        let protocol = if row.protocol == "udp" { UDP } else { TCP };
        let service = index.service_behind(asked, protocol);
        let zone = |address| index.zone_at(address).map(str::to_owned);
        let (src_zone, dst_zone) = (zone(row.src_address), zone(row.dst_address));
        let both = src_zone.as_ref().zip(dst_zone.as_ref());
        Self {
            service_name: service.map(|key| format!("{}/{}", key.namespace, key.name)),
            crosses_zones: both.map(|(src, dst)| src != dst),
            src_zone,
            dst_zone,
            row,
        }
    }
}

/// As it is written.
#[derive(Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) row: ClusterRow,
    /// Always true: its bytes are those of its whole life, also where a time was asked for.
    pub(super) stored: bool,
    /// An earlier line has the same `id`, when less was known; this one counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) supersedes: bool,
}

/// As it is read: what is looked at of a line.
#[derive(Deserialize)]
pub(super) struct Stored<'a> {
    pub(super) id: u64,
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    src_address: IpAddr,
    #[serde(borrow)]
    src_namespace: Cow<'a, str>,
    #[serde(borrow)]
    src_workload: Cow<'a, str>,
    dst_address: IpAddr,
    dst_port: u16,
    #[serde(borrow)]
    dst_namespace: Cow<'a, str>,
    #[serde(borrow)]
    dst_workload: Cow<'a, str>,
    service: Option<SocketAddr>,
    bytes_sent: u64,
    bytes_received: u64,
    duration_seconds: f64,
    pub(super) started: Option<Timestamp>,
    last_active: Option<Timestamp>,
    ended: Option<Timestamp>,
    #[serde(default)]
    pub(super) supersedes: bool,
}

impl Stored<'_> {
    /// `None` if its words are not ours.
    pub(super) fn seen(&self) -> Option<Seen<'_>> {
        let state = (State::ALL.into_iter()).find(|state| state.as_str() == self.state)?;
        Some(Seen {
            source: (&self.src_namespace, &self.src_workload),
            destination: (&self.dst_namespace, &self.dst_workload),
            client: self.src_address,
            server: SocketAddr::new(self.dst_address, self.dst_port),
            service: self.service,
            protocol: match &*self.protocol {
                "tcp" => TCP,
                "udp" => UDP,
                _ => 0,
            },
            state,
            is_here: [self.role != "server", self.role != "client"],
        })
    }

    pub(super) fn measures(&self) -> Measures {
        Measures {
            started: self.started,
            last_active: self.last_active,
            ended: self.ended,
            sent: self.bytes_sent,
            received: self.bytes_received,
            duration_seconds: self.duration_seconds,
        }
    }

    /// When it ended; of datagrams, when the last one was seen.
    pub(super) fn end(&self) -> Option<Timestamp> {
        self.ended.or(self.last_active).or(self.started)
    }
}
