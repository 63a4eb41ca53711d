//! Names and addresses of a lab, drawn from the seed; pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::scenario::Family;
use crate::seed::Random;

/// Words that say nothing about networks, roles or faults: the programs under test see these names.
const WORDS: &[&str] = &[
    "acorn", "agate", "alder", "almond", "amber", "aspen", "auburn", "barley", "basil", "birch",
    "bramble", "brass", "briar", "cedar", "cherry", "cinder", "citron", "clover", "cobalt",
    "copper", "coral", "cotton", "daisy", "dune", "elder", "ember", "fennel", "fern", "finch",
    "flint", "garnet", "ginger", "hazel", "heather", "heron", "holly", "indigo", "iris", "ivory",
    "jade", "jasper", "juniper", "kelp", "larch", "laurel", "lemon", "lilac", "linen", "lotus",
    "lupin", "maple", "marble", "mint", "moss", "myrtle", "nettle", "nutmeg", "oak", "olive",
    "onyx", "opal", "orchid", "oriole", "pearl", "peony", "pepper", "pine", "plum", "poplar",
    "poppy", "quartz", "quince", "raven", "robin", "rowan", "rubber", "russet", "saffron", "sage",
    "sandal", "sienna", "sorrel", "sparrow", "spruce", "sumac", "swift", "tansy", "teal",
    "thistle", "thyme", "topaz", "tulip", "umber", "velvet", "violet", "walnut", "willow", "wren",
    "yarrow", "zinnia",
];

/// A star: every node hangs on the router by a network of its own.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) router: String,
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What the scenario calls it.
    pub(crate) role: String,
    /// What the programs under test see.
    pub(crate) namespace: String,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) gateway4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    pub(crate) gateway6: Ipv6Addr,
    /// The router's device towards this node.
    pub(crate) link: String,
    /// Joined by the user-space wire, which can delay and lose, instead of a veth pair.
    pub(crate) wire: bool,
}

impl Node {
    pub(crate) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.ipv4.into(),
            Family::Ipv6 => self.ipv6.into(),
        }
    }

    pub(crate) fn gateway(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.gateway4.into(),
            Family::Ipv6 => self.gateway6.into(),
        }
    }
}

impl Plan {
    /// `attempt` leads to other names and addresses, for when the first ones are taken.
    pub(crate) fn draw(
        seed: u64,
        attempt: u64,
        roles: &[String],
        wires: &BTreeSet<String>,
    ) -> Self {
        let seed = seed ^ attempt.rotate_left(32);
        let mut names = Random::new(seed, "names");
        let mut addresses = Random::new(seed, "addresses");
        let prefix = format!("{}{:03x}", names.pick(WORDS), names.between(0, 0xfff));
        let mut taken = BTreeSet::new();
        let mut name = || loop {
            let word = *names.pick(WORDS);
            if taken.insert(word) {
                return format!("{prefix}-{word}");
            }
        };
        let router = name();
        let mut networks = BTreeSet::new();
        let nodes = roles
            .iter()
            .enumerate()
            .map(|(index, role)| {
                let [a, b, c] = loop {
                    let network = private_network(&mut addresses);
                    if networks.insert(network) {
                        break network;
                    }
                };
                let host = octet(&mut addresses, 2, 120);
                let gateway = octet(&mut addresses, 130, 254);
                let site = [
                    0xfd00 | group(&mut addresses) & 0xff,
                    group(&mut addresses),
                    group(&mut addresses),
                ];
                let subnet = group(&mut addresses);
                let v6 = |suffix: [u16; 4]| {
                    let [e, f, g, h] = suffix;
                    Ipv6Addr::new(site[0], site[1], site[2], subnet, e, f, g, h)
                };
                Node {
                    role: role.clone(),
                    namespace: name(),
                    ipv4: Ipv4Addr::new(a, b, c, host),
                    gateway4: Ipv4Addr::new(a, b, c, gateway),
                    ipv6: v6([
                        group(&mut addresses),
                        group(&mut addresses),
                        group(&mut addresses),
                        group(&mut addresses) | 2,
                    ]),
                    gateway6: v6([0, 0, 0, 1]),
                    link: format!("eth{index}"),
                    wire: wires.contains(role),
                }
            })
            .collect();
        Self { router, nodes }
    }

    pub(crate) fn node(&self, role: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.role == role)
    }

    /// The namespace of a role; `router` is one.
    pub(crate) fn namespace(&self, role: &str) -> Option<&str> {
        if role == "router" {
            return Some(&self.router);
        }
        self.node(role).map(|node| node.namespace.as_str())
    }

    /// What the names of all namespaces of the lab begin with, and those of no other lab.
    pub(crate) fn prefix(&self) -> &str {
        let end = self.router.find('-').map_or(0, |hyphen| hyphen + 1);
        &self.router[..end]
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.router.as_str())
            .chain(self.nodes.iter().map(|node| node.namespace.as_str()))
    }
}

/// The first three octets of a /24 out of RFC 1918.
fn private_network(random: &mut Random) -> [u8; 3] {
    match random.between(0, 2) {
        0 => [10, octet(random, 0, 255), octet(random, 0, 255)],
        1 => [172, octet(random, 16, 31), octet(random, 0, 255)],
        _ => [192, 168, octet(random, 0, 255)],
    }
}

fn octet(random: &mut Random, low: u8, high: u8) -> u8 {
    u8::try_from(random.between(low.into(), high.into())).expect("between two octets")
}

fn group(random: &mut Random) -> u16 {
    u16::try_from(random.between(0, 0xffff)).expect("16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, attempt: u64) -> Plan {
        let roles = ["client", "server", "resolver", "a", "b"].map(str::to_owned);
        Plan::draw(
            seed,
            attempt,
            &roles,
            &BTreeSet::from(["client".to_owned()]),
        )
    }

    #[test]
    fn a_seed_gives_the_same_plan_again() {
        assert_eq!(format!("{:?}", draw(4, 0)), format!("{:?}", draw(4, 0)));
        assert_ne!(draw(4, 0).router, draw(5, 0).router);
        assert_ne!(draw(4, 0).router, draw(4, 1).router);
    }

    #[test]
    fn addresses_are_private_and_networks_are_distinct() {
        for seed in 0..300 {
            let plan = draw(seed, 0);
            let mut networks = BTreeSet::new();
            for node in &plan.nodes {
                assert!(
                    node.ipv4.is_private() && node.gateway4.is_private(),
                    "{node:?}"
                );
                assert!(
                    node.ipv6.is_unique_local() && node.gateway6.is_unique_local(),
                    "{node:?}"
                );
                assert_ne!(node.ipv4, node.gateway4);
                assert_ne!(node.ipv6, node.gateway6);
                assert_eq!(node.ipv4.octets()[..3], node.gateway4.octets()[..3]);
                assert_eq!(node.ipv6.segments()[..4], node.gateway6.segments()[..4]);
                assert!(networks.insert(node.ipv4.octets()[..3].to_vec()));
            }
        }
    }

    #[test]
    fn names_are_distinct_and_say_nothing_of_the_role() {
        for seed in 0..300 {
            let plan = draw(seed, 0);
            let names: BTreeSet<&str> = plan.namespaces().collect();
            assert_eq!(names.len(), 6);
            assert!(plan.prefix().len() > 4);
            assert!(names.iter().all(|name| name.starts_with(plan.prefix())));
            for node in &plan.nodes {
                assert!(
                    !node.namespace.contains(&node.role) || node.role.len() == 1,
                    "{node:?}"
                );
            }
        }
    }
}
