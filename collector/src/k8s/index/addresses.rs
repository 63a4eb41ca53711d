//! Who has an address now. An address is given to another pod as soon as the first is over, and
//! the news of both may come in any order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::enrich::Workload;

use super::super::entry::ObjectKey;

/// What the kernel counted for a pod that is gone comes with the next collection.
const DEPARTED: Duration = Duration::from_secs(10);
const MAX_DEPARTED: usize = 4096;

#[derive(Default)]
pub(super) struct Claims {
    /// The one who counts comes last. Nearly always there is one only.
    claims: HashMap<IpAddr, Vec<Claim>>,
    departed: HashMap<IpAddr, (Workload, Instant)>,
}

struct Claim {
    key: ObjectKey,
    /// Who was seen with the address last has it; of those that were there from the start, the
    /// one that was created last.
    order: (u64, i64),
}

impl Claims {
    pub(super) fn holder(&self, address: IpAddr) -> Option<&ObjectKey> {
        self.claims.get(&address)?.last().map(|claim| &claim.key)
    }

    pub(super) fn departed(&self, address: IpAddr, now: Instant) -> Option<&Workload> {
        let (workload, since) = self.departed.get(&address)?;
        (now.saturating_duration_since(*since) < DEPARTED).then_some(workload)
    }

    pub(super) fn add(&mut self, address: IpAddr, key: &ObjectKey, order: (u64, i64)) {
        self.departed.remove(&address);
        let claims = self.claims.entry(address).or_default();
        if claims.iter().any(|claim| claim.key == *key) {
            return;
        }
        let key = key.clone();
        claims.push(Claim { key, order });
        claims.sort_by(|a, b| (a.order, &a.key).cmp(&(b.order, &b.key)));
        claims.shrink_to_fit();
    }

    pub(super) fn remove(
        &mut self,
        address: IpAddr,
        key: &ObjectKey,
        workload: &Workload,
        now: Instant,
    ) {
        let Some(claims) = self.claims.get_mut(&address) else {
            return;
        };
        claims.retain(|claim| claim.key != *key);
        if !claims.is_empty() {
            return;
        }
        self.claims.remove(&address);
        if self.departed.len() >= MAX_DEPARTED {
            self.departed
                .retain(|_, (_, since)| now.saturating_duration_since(*since) < DEPARTED);
        }
        if self.departed.len() < MAX_DEPARTED {
            self.departed.insert(address, (workload.clone(), now));
        }
    }
}
