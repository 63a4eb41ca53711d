//! Scenario files: what is built, what is broken, what is asked, what is right. README.md is their manual.

mod background;
mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub(crate) use self::template::Template;
use crate::actor::Kind;
use crate::lab::Plan;
use crate::score::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// A scenario with every variable filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) summary: String,
    pub(crate) family: Family,
    #[serde(default)]
    pub(crate) actors: BTreeMap<String, ActorSpec>,
    #[serde(default = "default_warmup")]
    pub(crate) warmup: u64,
    /// Steps before the traffic starts: they belong to the lab, not to the fault.
    #[serde(default)]
    pub(crate) setup: Vec<Step>,
    #[serde(default)]
    pub(crate) fault: Vec<Step>,
    #[serde(default = "default_hold")]
    pub(crate) hold: u64,
    /// Steps that undo the fault; none where nobody says how.
    #[serde(default)]
    pub(crate) mend: Vec<Step>,
    /// The clients that must suffer for the case to count: one, or one for each of several faults.
    #[serde(default, deserialize_with = "one_or_more")]
    pub(crate) impact: Vec<String>,
    /// What must happen in the kernel instead, for a fault that no client feels.
    pub(crate) proof: Option<Proof>,
    /// The body of `POST /diagnose`.
    pub(crate) ask: Value,
    pub(crate) expect: Expect,
    /// Read by [`Template`] before the rest.
    #[serde(default, rename = "variables")]
    _variables: serde::de::IgnoredAny,
    #[serde(default, rename = "nodes")]
    _nodes: serde::de::IgnoredAny,
    #[serde(default, rename = "tags")]
    _tags: serde::de::IgnoredAny,
    #[serde(default, rename = "wires")]
    _wires: serde::de::IgnoredAny,
    #[serde(default, rename = "background")]
    _background: serde::de::IgnoredAny,
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(client) => vec![client],
        OneOrMore::More(clients) => clients,
    })
}

fn default_warmup() -> u64 {
    15
}

fn default_hold() -> u64 {
    25
}

/// A counter of the kernel that the fault must move, read by `nstat` and not by the collector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    pub(crate) node: String,
    /// As `nstat` writes it.
    pub(crate) counter: String,
    pub(crate) at_least: u64,
}

/// Where an actor lives and what it does: exactly one of the kinds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActorSpec {
    pub(crate) node: String,
    tcp_server: Option<Value>,
    tcp_client: Option<Value>,
    dns_server: Option<Value>,
    dns_client: Option<Value>,
    udp_server: Option<Value>,
    udp_client: Option<Value>,
    tls_server: Option<Value>,
    tls_client: Option<Value>,
    kube_proxy: Option<Value>,
}

impl ActorSpec {
    const KINDS: &str = "tcp_server, tcp_client, dns_server, dns_client, udp_server, udp_client, tls_server, tls_client, kube_proxy";

    pub(crate) fn kind(&self) -> Result<(Kind, &Value)> {
        let mut given = [
            (Kind::TcpServer, &self.tcp_server),
            (Kind::TcpClient, &self.tcp_client),
            (Kind::DnsServer, &self.dns_server),
            (Kind::DnsClient, &self.dns_client),
            (Kind::UdpServer, &self.udp_server),
            (Kind::UdpClient, &self.udp_client),
            (Kind::TlsServer, &self.tls_server),
            (Kind::TlsClient, &self.tls_client),
            (Kind::KubeProxy, &self.kube_proxy),
        ]
        .into_iter()
        .filter_map(|(kind, settings)| settings.as_ref().map(|settings| (kind, settings)));
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            _ => bail!("an actor is exactly one of {}", Self::KINDS),
        }
    }

    /// The actor that a client talks to, or an address and port.
    pub(crate) fn target(&self) -> Option<&str> {
        let (_, settings) = self.kind().ok()?;
        settings.get("to")?.as_str()
    }
}

/// One thing done at the start of the fault or at its end, in order.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// Rules for `nft -f` in the namespace of a node.
    Nft { node: String, rules: String },
    /// `ip -n NODE …`
    Ip { node: String, run: String },
    /// `tc -n NODE …`
    Tc { node: String, run: String },
    /// A sysctl below `net.` in the namespace of a node.
    Sysctl {
        node: String,
        key: String,
        value: String,
    },
    /// The connection-tracking table of a node gets entries of strangers until it is full.
    FillConntrack { node: String },
    /// Delay, jitter and loss of the user-space wire of a node.
    Wire { node: String, change: Value },
    /// Other settings for a running actor.
    Set { actor: String, change: Value },
    /// The process of an actor ends.
    Stop { actor: String },
    /// An actor that was stopped starts again.
    Start { actor: String },
    /// A successor starts on the same port, then the old process drains and ends.
    Restart { actor: String },
    /// Nothing, for a while.
    Wait { seconds: f64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) status: Status,
    pub(crate) failure_mode: Option<String>,
    /// Roles of the two ends, in either order. One role: an end of the affected pair.
    #[serde(default)]
    pub(crate) affected: Vec<String>,
    /// Names of the devices at the two ends of the affected link: one of them.
    #[serde(default)]
    pub(crate) device: Vec<String>,
    /// Roles between the ends, such as the router that drops: all must be named.
    #[serde(default)]
    pub(crate) way: Vec<String>,
    /// Further faults that are made at the same time.
    #[serde(default)]
    pub(crate) also: Vec<Fault>,
    /// Right if among the first this many.
    #[serde(default = "first")]
    pub(crate) top: usize,
}

fn first() -> usize {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Fault,
    NoNetworkFault,
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Fault => "fault",
            Self::NoNetworkFault => "no_network_fault",
            Self::Unknown => "unknown",
        })
    }
}

impl Scenario {
    /// Ports of this host where a kube-proxy shows its metrics.
    pub(crate) fn kube_proxies(&self) -> Vec<u16> {
        let settings = (self.actors.values()).filter_map(|spec| spec.kube_proxy.as_ref());
        settings
            .filter_map(|settings| settings["port"].as_u64()?.try_into().ok())
            .collect()
    }

    /// What a reader of the file would trip over later, said at once.
    fn check(&self, plan: &Plan) -> Result<()> {
        let node = |role: &str| {
            plan.namespace(role)
                .map(|_| ())
                .with_context(|| format!("there is no node `{role}`"))
        };
        let actor = |id: &str| {
            self.actors
                .get(id)
                .map(|_| ())
                .with_context(|| format!("there is no actor `{id}`"))
        };
        for (id, spec) in &self.actors {
            node(&spec.node).with_context(|| format!("actor `{id}`"))?;
            spec.kind().with_context(|| format!("actor `{id}`"))?;
            if let Some(target) = spec.target()
                && target.parse::<std::net::SocketAddr>().is_err()
            {
                actor(target).with_context(|| format!("actor `{id}`, `to`"))?;
            }
        }
        for step in self.setup.iter().chain(&self.fault).chain(&self.mend) {
            match step {
                Step::Nft { node: role, .. }
                | Step::Ip { node: role, .. }
                | Step::Tc { node: role, .. } => node(role),
                Step::Sysctl { node: role, .. }
                | Step::Wire { node: role, .. }
                | Step::FillConntrack { node: role } => node(role),
                Step::Set { actor: id, .. } | Step::Stop { actor: id } => actor(id),
                Step::Start { actor: id } | Step::Restart { actor: id } => actor(id),
                Step::Wait { .. } => Ok(()),
            }
            .context("`setup`, `fault` or `mend`")?;
        }
        let also = self.expect.also.iter().flat_map(|fault| &fault.affected);
        for role in self.expect.affected.iter().chain(also) {
            node(role).context("`expect.affected`")?;
        }
        for role in &self.expect.way {
            node(role).context("`expect.way`")?;
        }
        for id in &self.impact {
            actor(id).context("`impact`")?;
        }
        if let Some(proof) = &self.proof {
            node(&proof.node).context("`proof`")?;
        }
        if self.expect.status == Status::Fault && self.expect.failure_mode.is_none() {
            bail!("`expect.failure_mode` is missing");
        }
        if self.expect.status == Status::Fault && self.impact.is_empty() == self.proof.is_none() {
            bail!(
                "a fault needs either `impact`, the client that must suffer for the case to count, or `proof`, for one that nobody feels"
            );
        }
        Ok(())
    }
}

/// The scenario files of a folder, by name; all of them, or those named.
pub(crate) fn files(folder: &Path, only: &[String]) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!(
            "cannot read the scenario folder {}: pass --scenarios DIR",
            folder.display()
        )
    })?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
    });
    files.sort();
    for name in only {
        if !files.iter().any(|file| stem(file) == *name) {
            bail!("there is no scenario `{name}` in {}", folder.display());
        }
    }
    if !only.is_empty() {
        files.retain(|file| only.contains(&stem(file)));
    }
    if files.is_empty() {
        bail!("{} holds no scenario (*.yaml)", folder.display());
    }
    Ok(files)
}

pub(crate) fn stem(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_is_well_formed_with_any_seed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        for file in files(&folder, &[]).unwrap() {
            let template = Template::read(&file).unwrap();
            for seed in 1..20 {
                let plan = Plan::draw(seed, 0, &template.roles(), &template.wires());
                let scenario = template
                    .fill(seed, &plan)
                    .unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
                for (id, spec) in &scenario.actors {
                    let settings = crate::traffic::settings(&scenario, &plan, id, spec).unwrap();
                    let (kind, _) = spec.kind().unwrap();
                    kind.check(&settings)
                        .unwrap_or_else(|error| panic!("{}: {id}: {error:#}", file.display()));
                }
            }
        }
    }
}
