//! A node: its addresses, its zone, and the networks its pods get addresses from.

use std::net::IpAddr;

use kube::core::Object;
use serde::Deserialize;

/// As the API sends it, without its list of images.
pub type Node = Object<NodeSpec, NodeStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    address: String,
}

/// What is kept of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeMeta {
    pub zone: Option<Box<str>>,
    pub addresses: Vec<IpAddr>,
    pub pod_networks: Vec<Network>,
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let (base, bits): (IpAddr, u8) = (base.parse().ok()?, bits.parse().ok()?);
        let most = if base.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { base, bits })
    }

    /// The address without a host part is no pod's: flannel gives it to the node's own end of the
    /// overlay, from where the node's processes speak to pods elsewhere.
    fn of_node(self) -> Option<IpAddr> {
        let most = if self.base.is_ipv4() { 32 } else { 128 };
        (self.bits < most).then_some(self.base)
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

pub fn node(node: &Node) -> NodeMeta {
    let labels = node.metadata.labels.as_ref();
    let zones = [
        "topology.kubernetes.io/zone",
        // Before Kubernetes 1.17.
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let zone = zones.iter().find_map(|&name| labels?.get(name));
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let spec = &node.spec;
    let networks = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut pod_networks: Vec<Network> = Vec::new();
    for network in networks.filter_map(|text| Network::parse(text)) {
        if !pod_networks.contains(&network) {
            pod_networks.push(network);
        }
    }
    // Names are among them.
    let told = (addresses.unwrap_or_default().iter())
        .filter_map(|each| Some(each.address.parse::<IpAddr>().ok()?.to_canonical()));
    let addresses = told
        .chain(pod_networks.iter().filter_map(|it| it.of_node()))
        .collect();
    NodeMeta {
        zone: zone.map(|zone| zone.as_str().into()),
        addresses,
        pod_networks,
    }
}
