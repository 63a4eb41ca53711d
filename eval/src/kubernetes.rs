//! The namespaces of a lab as pods: an API server that names them, and what that changes in question and expectation.

#[allow(dead_code, reason = "the collector's tests use it whole")]
pub(crate) mod api;
#[allow(dead_code, reason = "the collector's tests use it whole")]
pub(crate) mod objects;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use self::api::FakeApi;
use crate::lab::Plan;

/// What the API calls the machine that everything runs on.
const NODE: &str = "worker-1";
/// Of the pods; see [`objects::pod`].
const NAMESPACE: &str = "shop";

pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    /// Deployments by network namespace. None is called as its network namespace is, so that an answer
    /// with the names of this host is not taken for one with names of Kubernetes.
    deployments: BTreeMap<String, String>,
    _api: FakeApi,
}

impl Cluster {
    /// Every node of the lab is a pod of a Deployment; the router is none.
    pub(crate) fn start(plan: &Plan, folder: &Path) -> Result<Self> {
        let api = FakeApi::start();
        api.apply(&objects::node(NODE, "zone-a", "192.0.2.1"));
        api.apply(&objects::namespace(NAMESPACE));
        let mut deployments = BTreeMap::new();
        for node in &plan.nodes {
            let (_, word) = node.namespace.split_once('-').unwrap_or_default();
            let deployment = format!("{word}-app");
            let name = format!("{deployment}-7d9c-x2k4p");
            let mut pod = objects::pod(&name, NODE, &node.ipv4.to_string(), &deployment);
            pod["status"]["podIPs"] = json!([{"ip": node.ipv4}, {"ip": node.ipv6}]);
            api.apply(&pod);
            deployments.insert(node.namespace.clone(), deployment);
        }
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig())
            .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
        Ok(Self {
            kubeconfig,
            deployments,
            _api: api,
        })
    }

    /// Of the collector.
    pub(crate) fn flags(&self) -> String {
        format!(
            "--kubeconfig {} --node-name {NODE}",
            self.kubeconfig.display()
        )
    }

    pub(crate) fn workload(&self, namespace: &str) -> String {
        self.deployments
            .get(namespace)
            .map_or(namespace, String::as_str)
            .to_owned()
    }

    /// The question in the names of Kubernetes.
    pub(crate) fn ask(&self, question: &Value) -> Value {
        let mut asked = question.clone();
        if let Some(Value::String(text)) = asked.get_mut("query") {
            for (namespace, deployment) in &self.deployments {
                *text = text.replace(namespace, deployment);
            }
        }
        let Some(scope) = asked.get_mut("scope").and_then(Value::as_object_mut) else {
            return asked;
        };
        let workload = scope.get("workload").and_then(Value::as_str);
        if let Some(deployment) = workload.and_then(|name| self.deployments.get(name)) {
            scope.insert("workload".to_owned(), json!(deployment));
            scope.insert("namespace".to_owned(), json!(NAMESPACE));
        }
        asked
    }
}
