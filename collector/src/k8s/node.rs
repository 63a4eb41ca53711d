//! A node: its addresses, its zone, and the networks its pods get addresses from.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use k8s_openapi::ClusterResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

/// The one address that the metadata of some tell.
const PROVIDED_ADDRESS: &str = "alpha.kubernetes.io/provided-node-ip";

/// As the API sends it, without its list of images. A list gives it whole; a watch its metadata
/// only, since each kubelet writes its node's status every few minutes.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    status: Option<NodeStatus>,
}

impl Node {
    /// Not its metadata only.
    pub fn is_whole(&self) -> bool {
        self.status.is_some()
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
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
    /// Differs where its metadata says that more may have changed than its health.
    pub marks: u64,
}

/// What a watch tells of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNews {
    pub zone: Option<Box<str>>,
    /// As far as an annotation tells them.
    pub addresses: Vec<IpAddr>,
    pub marks: u64,
    /// The resource version.
    pub version: Box<str>,
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
        zone: zone(&node.metadata),
        addresses,
        pod_networks,
        marks: marks(&node.metadata),
    }
}

pub fn node_news(node: &Node) -> NodeNews {
    let meta = &node.metadata;
    let provided = (meta.annotations.as_ref()).and_then(|all| all.get(PROVIDED_ADDRESS));
    let addresses = provided.into_iter().flat_map(|text| text.split(','));
    NodeNews {
        zone: zone(meta),
        addresses: addresses
            .filter_map(|text| Some(text.trim().parse::<IpAddr>().ok()?.to_canonical()))
            .collect(),
        marks: marks(meta),
        version: meta.resource_version.as_deref().unwrap_or_default().into(),
    }
}

fn zone(meta: &ObjectMeta) -> Option<Box<str>> {
    let labels = meta.labels.as_ref();
    let zones = [
        "topology.kubernetes.io/zone",
        // Before Kubernetes 1.17.
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let zone = zones.iter().find_map(|&name| labels?.get(name));
    zone.map(|zone| zone.as_str().into())
}

/// What changes when a node is made anew, is given labels or annotations (network plug-ins keep
/// addresses there), or gets or loses an address or a network of pods: who manages a field is told
/// in the metadata. What a kubelet writes of its health changes none of it.
fn marks(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&meta.uid, &meta.labels, &meta.annotations).hash(&mut hasher);
    for entry in meta.managed_fields.iter().flatten() {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        for pointer in ["/f:status/f:addresses", "/f:spec/f:podCIDRs"] {
            // Maps are sorted, so one value is always the same text.
            let owned = fields.and_then(|fields| fields.pointer(pointer));
            owned.map(Value::to_string).hash(&mut hasher);
        }
    }
    hasher.finish()
}
