//! A lab of network namespaces: made, used, and always torn down.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

pub(crate) use self::plan::{Node, Plan};
use crate::actor::Kind;
use crate::process::Actor;
use crate::state::State;
use crate::{command, netns, say};

pub(crate) struct Lab {
    pub(crate) plan: Plan,
    /// The user-space wires, by the role of the node that hangs on them.
    pub(crate) wires: BTreeMap<String, Actor>,
    state: State,
}

impl Lab {
    /// Draws names that are not taken by another lab on this machine.
    pub(crate) fn plan(seed: u64, roles: &[String], wires: &BTreeSet<String>) -> Result<Plan> {
        for attempt in 0..64 {
            let plan = Plan::draw(seed, attempt, roles, wires);
            if plan.namespaces().all(|name| !netns::path(name).exists()) {
                return Ok(plan);
            }
        }
        bail!(
            "no free namespace names for seed {seed}: remove old ones from {}",
            netns::FOLDER
        )
    }

    pub(crate) fn build(plan: Plan, state: &State) -> Result<Self> {
        let mut lab = Self {
            plan,
            wires: BTreeMap::new(),
            state: state.clone(),
        };
        // From here on `Drop` removes whatever exists.
        for name in lab.plan.namespaces() {
            lab.state.add_namespace(name)?;
            command::run(&format!("ip netns add {name}"))?;
            command::run(&format!("ip -n {name} link set lo up"))?;
            // Link-local addresses work at once too: a lab whose first packets wait a second looks sick.
            netns::sysctl(name, "net.ipv6.conf.default.dad_transmits", "0")?;
            netns::sysctl(name, "net.ipv6.conf.default.accept_dad", "0")?;
        }
        let router = lab.plan.router.clone();
        netns::sysctl(&router, "net.ipv4.ip_forward", "1")?;
        netns::sysctl(&router, "net.ipv6.conf.all.forwarding", "1")?;
        for node in lab.plan.nodes.clone() {
            lab.join(&router, &node)
                .with_context(|| format!("cannot join {} to the router", node.namespace))?;
        }
        for node in &lab.plan.nodes {
            wait_for_link(&node.namespace, "eth0")?;
            wait_for_link(&router, &node.link)?;
        }
        Ok(lab)
    }

    fn join(&mut self, router: &str, node: &Node) -> Result<()> {
        let Node {
            namespace, link, ..
        } = node;
        if node.wire {
            let settings = json!({
                "near": {"namespace": namespace, "device": "eth0"},
                "far": {"namespace": router, "device": link},
            });
            let wire = Actor::start(&node.role, None, Kind::Wire, settings)?;
            self.wires.insert(node.role.clone(), wire);
            wait_for_device(namespace, "eth0")?;
            wait_for_device(router, link)?;
        } else {
            command::run(&format!(
                "ip link add name eth0 netns {namespace} type veth peer name {link} netns {router}"
            ))?;
        }
        for (name, device, ipv4, ipv6) in [
            (namespace.as_str(), "eth0", node.ipv4, node.ipv6),
            (router, link.as_str(), node.gateway4, node.gateway6),
        ] {
            command::run(&format!("ip -n {name} address add {ipv4}/24 dev {device}"))?;
            // Without duplicate detection the address works at once.
            command::run(&format!(
                "ip -n {name} address add {ipv6}/64 dev {device} nodad"
            ))?;
            command::run(&format!("ip -n {name} link set {device} up"))?;
        }
        command::run(&format!(
            "ip -n {namespace} route add default via {}",
            node.gateway4
        ))?;
        command::run(&format!(
            "ip -n {namespace} -6 route add default via {}",
            node.gateway6
        ))?;
        Ok(())
    }
}

/// Until its link is up and its addresses may be used: packets of the first moments would be lost or late.
fn wait_for_link(namespace: &str, device: &str) -> Result<()> {
    for _ in 0..100 {
        let link = command::run(&format!("ip -n {namespace} link show dev {device}"))?;
        let tentative = command::run(&format!(
            "ip -n {namespace} -6 address show dev {device} tentative"
        ))?;
        // A TAP device reports no state, only its carrier. A queue that is still `noop` drops everything.
        let is_up = link.contains("LOWER_UP")
            && !link.contains("state DOWN")
            && !link.contains("qdisc noop ");
        if is_up && tentative.trim().is_empty() {
            return Ok(());
        }
        crate::stop::sleep(Duration::from_millis(50))?;
    }
    bail!("the link {device} in {namespace} is not up after 5 s")
}

fn wait_for_device(namespace: &str, device: &str) -> Result<()> {
    for _ in 0..100 {
        if command::run(&format!("ip -n {namespace} link show dev {device}")).is_ok() {
            return Ok(());
        }
        crate::stop::sleep(Duration::from_millis(50))?;
    }
    bail!("the wire made no device {device} in {namespace} within 5 s: is /dev/net/tun there?")
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.wires.clear();
        for name in self.plan.namespaces() {
            // Orphans would go on sending, and keep the namespace alive, for minutes: the next case
            // would see retransmits out of nowhere. A kernel that cannot kill sockets keeps them.
            if netns::path(name).exists() {
                let _ = command::run(&format!("ip netns exec {name} ss -t -a -K"));
            }
            if netns::path(name).exists()
                && let Err(error) = command::run(&format!("ip netns delete {name}"))
            {
                say::progress(format_args!("{error:#}"));
                continue;
            }
            if let Err(error) = self.state.remove_namespace(name) {
                say::progress(format_args!("{error:#}"));
            }
        }
    }
}
