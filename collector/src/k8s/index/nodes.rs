//! The nodes of the index: their addresses, and which of them must be looked at again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::node::{NodeMeta, NodeNews};

#[derive(Default)]
pub(super) struct Nodes {
    nodes: HashMap<Arc<str>, NodeMeta>,
    addresses: HashMap<IpAddr, Arc<str>>,
    doubts: HashMap<Arc<str>, Doubt>,
}

/// A node of which there is news that its metadata does not tell whole.
struct Doubt {
    /// As of then; what is looked up must be no older.
    version: Box<str>,
    since: Instant,
    /// It was never seen whole, so it may have addresses that nobody knows.
    is_new: bool,
}

/// The node to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInDoubt {
    pub name: Arc<str>,
    /// The resource version from which on an answer is new enough.
    pub version: Box<str>,
}

impl Nodes {
    /// As it was listed: nothing that was told of it before is newer.
    pub(super) fn apply(&mut self, name: Arc<str>, node: NodeMeta) {
        self.doubts.remove(&name);
        self.set(name, node);
    }

    pub(super) fn hear(&mut self, name: Arc<str>, news: NodeNews, now: Instant) {
        let known = self.nodes.get_mut(&name);
        let is_new = known.is_none();
        let differs = known.is_none_or(|known| {
            known.zone.clone_from(&news.zone);
            known.marks != news.marks
        });
        match differs {
            true => self.doubt(&name, news.version, now),
            false => _ = self.doubts.remove(&name),
        }
        if is_new {
            if let Some(doubt) = self.doubts.get_mut(&name) {
                doubt.is_new = true;
            }
            let node = NodeMeta {
                zone: news.zone,
                addresses: news.addresses,
                ..NodeMeta::default()
            };
            self.set(name, node);
        }
    }

    /// What an answer says that was asked for because of `doubt`; `None` if the node is not there.
    pub(super) fn look(&mut self, doubt: &NodeInDoubt, node: Option<NodeMeta>) {
        let Some(current) = self.doubts.get(&doubt.name) else {
            // It is gone, or was listed meanwhile.
            return;
        };
        if current.version == doubt.version {
            self.doubts.remove(&doubt.name);
        }
        if let Some(node) = node {
            if let Some(newer) = self.doubts.get_mut(&doubt.name) {
                newer.is_new = false;
            }
            self.set(doubt.name.clone(), node);
        }
    }

    pub(super) fn doubt(&mut self, name: &Arc<str>, version: Box<str>, now: Instant) {
        let before = self.doubts.get(name);
        let doubt = Doubt {
            version,
            since: before.map_or(now, |doubt| doubt.since),
            is_new: before.is_some_and(|doubt| doubt.is_new),
        };
        self.doubts.insert(name.clone(), doubt);
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.doubts.remove(name);
        self.nodes.remove(name);
        self.index();
    }

    /// This node itself first, then whoever waits longest.
    pub(super) fn in_doubt(&self, own: Option<&Arc<str>>) -> Option<NodeInDoubt> {
        let rank = |name: &Arc<str>, doubt: &Doubt| (Some(name) != own, doubt.since);
        let (name, doubt) = (self.doubts.iter())
            .min_by(|(a, this), (b, that)| (rank(a, this), a).cmp(&(rank(b, that), b)))?;
        Some(NodeInDoubt {
            name: name.clone(),
            version: doubt.version.clone(),
        })
    }

    pub(super) fn doubts(&self) -> usize {
        self.doubts.len()
    }

    /// Since when nodes are there that were never seen whole.
    pub(super) fn new_since(&self) -> impl Iterator<Item = Instant> {
        let new = self.doubts.values().filter(|doubt| doubt.is_new);
        new.map(|doubt| doubt.since)
    }

    pub(super) fn get(&self, name: &str) -> Option<&NodeMeta> {
        self.nodes.get(name)
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.addresses.get(&address)
    }

    pub(super) fn has_pods_at(&self, address: IpAddr) -> bool {
        let mut networks = self.nodes.values().flat_map(|node| &node.pod_networks);
        networks.any(|network| network.contains(address))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Nearly always there is nothing new.
    fn set(&mut self, name: Arc<str>, node: NodeMeta) {
        if self.nodes.get(&name) == Some(&node) {
            return;
        }
        let is_new = !self.nodes.contains_key(&name);
        self.nodes.insert(name.clone(), node);
        match is_new && !self.shares_an_address(&name) {
            true => self.index_one(&name),
            false => self.index(),
        }
    }

    fn shares_an_address(&self, name: &str) -> bool {
        let mut addresses = self.nodes[name].addresses.iter();
        addresses.any(|address| self.addresses.contains_key(address))
    }

    fn index_one(&mut self, name: &Arc<str>) {
        for &address in &self.nodes[name].addresses {
            self.addresses.insert(address, name.clone());
        }
    }

    /// Of two nodes that claim an address, as when one takes the place of the other, the one whose
    /// name comes first has it, whoever was heard of last.
    fn index(&mut self) {
        self.addresses.clear();
        for (name, node) in &self.nodes {
            for &address in &node.addresses {
                (self.addresses.entry(address))
                    .and_modify(|holder| {
                        if **name < **holder {
                            holder.clone_from(name);
                        }
                    })
                    .or_insert_with(|| name.clone());
            }
        }
    }
}
