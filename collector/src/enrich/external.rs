//! Names of ends outside, from the DNS answers that told a namespace their addresses. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Kind, NetnsId, Workload};

/// What every namespace was told. Two may have other names for one address.
#[derive(Default)]
pub struct ExternalNames {
    known: HashMap<(NetnsId, IpAddr), Workload>,
    /// Names that were given out. Once one, always one.
    shown: HashSet<Arc<str>>,
    limit: usize,
}

impl ExternalNames {
    /// Replaces what is known. At most `limit` names are given out, the first that are asked for;
    /// ends with other names have none.
    pub fn learn(
        &mut self,
        names: impl IntoIterator<Item = (NetnsId, IpAddr, String)>,
        limit: usize,
    ) {
        self.limit = limit;
        self.known.clear();
        let mut workloads: HashMap<String, Workload> = HashMap::new();
        for (netns, address, name) in names {
            let workload = workloads
                .entry(name)
                .or_insert_with_key(|name| Workload::new(Workload::EXTERNAL, name, Kind::External));
            let address = address.to_canonical();
            self.known.insert((netns, address), workload.clone());
        }
    }

    /// What `netns` calls an address outside.
    pub fn at(&mut self, netns: NetnsId, address: IpAddr) -> Option<Workload> {
        let workload = self.known.get(&(netns, address.to_canonical()))?;
        if !self.shown.contains(&workload.name) {
            if self.shown.len() >= self.limit {
                return None;
            }
            self.shown.insert(workload.name.clone());
        }
        Some(workload.clone())
    }
}

#[test]
fn each_namespace_has_its_own_names_and_all_have_few() {
    let address = |last| IpAddr::from([203, 0, 113, last]);
    let told = |netns, last, name: &str| (NetnsId(netns), address(last), name.to_owned());
    let mut names = ExternalNames::default();
    let all = [
        told(1, 1, "api.example.com"),
        told(2, 1, "cdn.example.net"),
        told(1, 2, "third.example.org"),
    ];
    names.learn(all.clone(), 2);
    let name = |names: &mut ExternalNames, netns, last| {
        let workload = names.at(NetnsId(netns), address(last))?;
        assert_eq!(&*workload.namespace, "~external");
        assert_eq!(workload.kind, Kind::External);
        Some(workload.name.to_string())
    };
    assert_eq!(name(&mut names, 1, 1).as_deref(), Some("api.example.com"));
    assert_eq!(name(&mut names, 2, 1).as_deref(), Some("cdn.example.net"));
    assert_eq!(name(&mut names, 3, 1), None, "it was told nothing");
    assert_eq!(name(&mut names, 1, 2), None, "there are two already");
    names.learn(all, 3);
    assert_eq!(name(&mut names, 1, 1).as_deref(), Some("api.example.com"));
    assert_eq!(name(&mut names, 1, 2).as_deref(), Some("third.example.org"));
    names.learn([], 0);
    assert_eq!(name(&mut names, 1, 1), None);
}
