//! The Services of the index and their endpoints.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::super::entry::ObjectKey;
use super::super::service::{ServiceMeta, SliceMeta};

#[derive(Default)]
pub(super) struct Services {
    services: HashMap<ObjectKey, ServiceMeta>,
    /// By slice.
    slices: HashMap<ObjectKey, SliceMeta>,
    /// By Service: its slices' names.
    slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    addresses: HashMap<IpAddr, ObjectKey>,
}

impl Services {
    pub(super) fn apply(&mut self, key: ObjectKey, service: ServiceMeta) {
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.delete(&key);
        for &address in &service.addresses {
            self.addresses.insert(address, key.clone());
        }
        self.services.insert(key, service);
    }

    pub(super) fn delete(&mut self, key: &ObjectKey) {
        let Some(old) = self.services.remove(key) else {
            return;
        };
        for address in old.addresses {
            if self.addresses.get(&address) != Some(key) {
                continue;
            }
            // Several Services may share the address of a load balancer, each with ports of its own.
            let others =
                (self.services.iter()).filter(|(_, service)| service.addresses.contains(&address));
            match others.map(|(other, _)| other).min() {
                Some(other) => self.addresses.insert(address, other.clone()),
                None => self.addresses.remove(&address),
            };
        }
    }

    pub(super) fn apply_slice(&mut self, key: ObjectKey, slice: SliceMeta) {
        if self.slices.get(&key) == Some(&slice) {
            return;
        }
        self.delete_slice(&key);
        let service = service_of(&key, &slice);
        self.slices_of
            .entry(service)
            .or_default()
            .insert(key.clone());
        self.slices.insert(key, slice);
    }

    pub(super) fn delete_slice(&mut self, key: &ObjectKey) {
        let Some(old) = self.slices.remove(key) else {
            return;
        };
        let service = service_of(key, &old);
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<&ObjectKey> {
        self.addresses.get(&address)
    }

    pub(super) fn endpoints(&self, service: &ObjectKey) -> impl Iterator<Item = IpAddr> {
        let slices = self.slices_of.get(service).into_iter().flatten();
        slices.flat_map(|key| self.slices[key].endpoints.iter().copied())
    }

    pub(super) fn keys(&self) -> Vec<ObjectKey> {
        self.services.keys().cloned().collect()
    }

    pub(super) fn slice_keys(&self) -> Vec<ObjectKey> {
        self.slices.keys().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.services.len()
    }

    pub(super) fn count_slices(&self) -> usize {
        self.slices.len()
    }
}

fn service_of(slice_key: &ObjectKey, slice: &SliceMeta) -> ObjectKey {
    ObjectKey {
        namespace: slice_key.namespace.clone(),
        name: (*slice.service).into(),
    }
}
