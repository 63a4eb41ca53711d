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
    /// By their names; nearly always one.
    addresses: HashMap<IpAddr, Vec<ObjectKey>>,
}

impl Services {
    pub(super) fn apply(&mut self, key: ObjectKey, service: ServiceMeta) {
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.delete(&key);
        for &address in &service.addresses {
            let sharing = self.addresses.entry(address).or_default();
            let place = sharing.partition_point(|other| *other < key);
            sharing.insert(place, key.clone());
            sharing.shrink_to_fit();
        }
        self.services.insert(key, service);
    }

    pub(super) fn delete(&mut self, key: &ObjectKey) {
        let Some(old) = self.services.remove(key) else {
            return;
        };
        for address in old.addresses {
            if let Some(sharing) = self.addresses.get_mut(&address) {
                sharing.retain(|other| other != key);
                if sharing.is_empty() {
                    self.addresses.remove(&address);
                }
            }
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

    /// The Services that have this address, by their names.
    pub(super) fn at(&self, address: IpAddr) -> &[ObjectKey] {
        self.addresses.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The one of them that has this protocol and port.
    pub(super) fn on_port<'a>(
        &self,
        sharing: &'a [ObjectKey],
        port: (u8, u16),
    ) -> Option<&'a ObjectKey> {
        let has_it = |key: &&ObjectKey| self.services[*key].ports.contains(&port);
        let mut found = sharing.iter().filter(has_it);
        let first = found.next()?;
        found.next().is_none().then_some(first)
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
