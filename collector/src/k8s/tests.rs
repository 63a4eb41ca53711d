//! Objects in the shape of an API server, handed to the index.

mod nodes;
mod owners;
mod pods;
mod services;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::index::Settings;
use super::*;

pub(super) const GRACE: Duration = Duration::from_secs(30);

/// An index of the node `a`, and a clock.
pub(super) struct World {
    pub(super) index: Index,
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new() -> Self {
        let settings = Settings {
            on: true,
            node: Some("a".into()),
            grace: GRACE,
        };
        Self {
            index: Index::new(settings),
            now: Instant::now(),
        }
    }

    /// With everything listed, and nothing there.
    pub(super) fn synced() -> Self {
        let mut world = Self::new();
        for resource in Resource::ALL {
            world.index.reset(resource, &Default::default(), world.now);
        }
        world
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn apply(&mut self, object: &Value) {
        let (resource, key, entry) = read(object);
        self.index.apply(resource, &key, entry, self.now);
    }

    pub(super) fn delete(&mut self, object: &Value) {
        let (resource, key, _) = read(object);
        self.index.delete(resource, &key, self.now);
    }

    /// `namespace/kind/name`, or why there is none.
    pub(super) fn at(&self, address: &str) -> String {
        let address: IpAddr = address.parse().unwrap();
        match self.index.at(address, self.now) {
            Found::Workload(workload) => show(&workload),
            Found::Service(key) => format!("{}/Service {}", key.namespace, key.name),
            Found::Services(keys) => {
                let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
                format!("Services {}", names.join(", "))
            }
            Found::Unknown(reason) => reason.as_str().to_owned(),
            Found::Nobody => "nobody".to_owned(),
        }
    }
}

pub(super) fn show(workload: &crate::enrich::Workload) -> String {
    let kind = workload.kind.as_str();
    format!("{}/{kind}/{}", workload.namespace, workload.name)
}

fn read(object: &Value) -> (Resource, ObjectKey, Entry) {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("");
    let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
    let object = object.clone();
    let (resource, entry) = match text_of(&object, "/kind").as_str() {
        "Pod" => {
            let is_local = text_of(&object, "/spec/nodeName") == "a";
            let resource = match is_local {
                true => Resource::LocalPods,
                false => Resource::RemotePods,
            };
            let object: Pod = serde_json::from_value(object).unwrap();
            (resource, Entry::Pod(pod(&object)))
        }
        "Service" => {
            let entry = service(&serde_json::from_value(object).unwrap());
            (Resource::Services, Entry::Service(entry))
        }
        "EndpointSlice" => {
            let entry = endpoint_slice(&serde_json::from_value(object).unwrap());
            (
                Resource::EndpointSlices,
                Entry::EndpointSlice(entry.unwrap()),
            )
        }
        "Node" => {
            let object: Node = serde_json::from_value(object).unwrap();
            let entry = match object.is_whole() {
                true => Entry::Node(node(&object)),
                false => Entry::NodeNews(node_news(&object)),
            };
            (Resource::Nodes, entry)
        }
        "Namespace" => (Resource::Namespaces, Entry::Namespace),
        kind => {
            let resource = match kind {
                "Job" => Resource::Jobs,
                _ => Resource::ReplicaSets,
            };
            let meta = serde_json::from_value(object["metadata"].clone()).unwrap();
            (resource, Entry::Owner(owner(&meta)))
        }
    };
    (resource, key, entry)
}

fn text_of(object: &Value, path: &str) -> String {
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned()
}

/// A running pod with one container. `owner` is `Kind/name`, or empty.
pub(super) fn a_pod(name: &str, node: &str, address: &str, owner: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-11-20T03:10:00Z", "resourceVersion": "100",
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10"}]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1",
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "x", "imageID": "y",
                "containerID": format!("containerd://container-of-{name}")}],
        },
    });
    if let Some((kind, name)) = owner.split_once('/') {
        let api_version = match kind {
            "Job" | "CronJob" => "batch/v1",
            "Node" | "ReplicationController" => "v1",
            "Rollout" => "argoproj.io/v1alpha1",
            _ => "apps/v1",
        };
        pod["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "1"},
            {"apiVersion": api_version, "kind": kind, "name": name, "uid": "2", "controller": true},
        ]);
    }
    pod
}

#[test]
fn every_resource_has_its_right() {
    for resource in Resource::ALL {
        assert!(RIGHTS.contains(&resource.right()), "{resource:?}");
    }
    for right in RIGHTS {
        let used = Resource::ALL
            .iter()
            .any(|resource| resource.right() == *right);
        assert!(used, "{right:?} is a right that nobody uses");
    }
}
