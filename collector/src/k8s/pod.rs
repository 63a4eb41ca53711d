//! A pod: what of it names addresses, containers and sockets.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::meta::{CONFIG_HASH, slim};
use super::owner::{AppLabels, Owner, controller};

/// As the API sends it, without the nine tenths that nobody here reads: a page of whole pods is
/// larger than all that is kept of a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Pod {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    /// All containers have ended for good, and the addresses are free for others.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodMeta {
    pub uid: Box<str>,
    /// A static pod's cgroup is called after this and not after the uid.
    pub config_hash: Option<Box<str>>,
    pub node: Option<Box<str>>,
    pub host_network: bool,
    pub phase: Phase,
    /// Its own: none if it uses its node's.
    pub addresses: Box<[IpAddr]>,
    /// Without `containerd://` in front.
    pub containers: Box<[Box<str>]>,
    pub owner: Option<Owner>,
    pub template_hash: Option<Box<str>>,
    /// Unix time, in seconds.
    pub created: i64,
    pub app: Option<Box<AppLabels>>,
}

pub fn pod(pod: &Pod) -> PodMeta {
    let status = &pod.status;
    let host_network = pod.spec.host_network == Some(true);
    let label = |name: &str| boxed(pod.metadata.labels.as_ref()?.get(name));
    let annotation = |name: &str| boxed(pod.metadata.annotations.as_ref()?.get(name));
    PodMeta {
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        config_hash: annotation(CONFIG_HASH),
        node: boxed(pod.spec.node_name.as_ref()),
        host_network,
        phase: phase(status),
        addresses: match host_network {
            true => Box::default(),
            false => addresses(status),
        },
        containers: containers(status),
        owner: controller(&pod.metadata),
        template_hash: label("pod-template-hash"),
        created: created(&pod.metadata),
        app: AppLabels::of(&pod.metadata),
    }
}

fn boxed(text: Option<&String>) -> Option<Box<str>> {
    text.filter(|text| !text.is_empty())
        .map(|text| text.as_str().into())
}

fn phase(status: &PodStatus) -> Phase {
    match status.phase.as_deref() {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        _ => Phase::Pending,
    }
}

fn addresses(status: &PodStatus) -> Box<[IpAddr]> {
    let all = status.pod_ips.iter().flatten().map(|each| &each.ip);
    let mut found: Vec<IpAddr> = all
        .chain([&status.pod_ip])
        .filter_map(|text| text.as_ref()?.parse::<IpAddr>().ok())
        .map(|address| address.to_canonical())
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into()
}

fn containers(status: &PodStatus) -> Box<[Box<str>]> {
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    (lists.into_iter().flatten().flatten())
        .filter_map(|container| {
            let id = container.container_id.as_deref()?;
            let id = id.split_once("://").map_or(id, |(_, id)| id);
            (!id.is_empty()).then(|| id.into())
        })
        .collect()
}

fn created(meta: &ObjectMeta) -> i64 {
    (meta.creation_timestamp.as_ref()).map_or(0, |time| time.0.as_second())
}
