//! The way to the API server: inside a pod by its service account, elsewhere by a kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::{ListParams, WatchParams};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config};

use tower::util::MapRequestLayer;

use super::super::RIGHTS;
use super::nodes::narrow;

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The API server ends a watch after 290 seconds, and has bookmarks to send before. Whoever says
/// nothing for so long is gone, even if the connection is not.
const SILENCE: Duration = Duration::from_secs(300);

/// Whether Kubernetes is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Inside a pod, or if a kubeconfig is named.
    #[default]
    Auto,
    On,
    Off,
}

/// How the API server is reached and what it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchSettings {
    pub mode: Mode,
    pub kubeconfig: Option<PathBuf>,
    /// What this node is called in Kubernetes.
    pub node: Option<String>,
    /// Pods of other nodes are asked for too.
    pub whole_cluster: bool,
}

/// Whether this process runs in a pod that may talk to its API server.
fn is_in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists()
}

impl WatchSettings {
    pub fn is_on(&self) -> bool {
        match self.mode {
            Mode::Auto => self.kubeconfig.is_some() || is_in_cluster(),
            Mode::On => true,
            Mode::Off => false,
        }
    }

    /// Without a name for this node all pods are in one watch.
    pub(super) fn has_remote_pods(&self) -> bool {
        self.whole_cluster && self.node.is_some()
    }

    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let config = self.config().await?;
        let client = ClientBuilder::try_from(config)
            .context("cannot use what the Kubernetes configuration says")?;
        Ok(client
            .with_layer(&MapRequestLayer::new(narrow::<Body>))
            .build())
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.found().await?;
        let agent = concat!("runwire-collector/", env!("CARGO_PKG_VERSION"));
        config.headers.push((
            axum::http::header::USER_AGENT,
            axum::http::HeaderValue::from_static(agent),
        ));
        // Of a request; of the events that follow, kube sees to it.
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        Ok(config)
    }

    async fn found(&self) -> anyhow::Result<Config> {
        if let Some(path) = &self.kubeconfig {
            let named = || format!("cannot use `kubeconfig` {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
            let options = KubeConfigOptions::default();
            return (Config::from_custom_kubeconfig(kubeconfig, &options).await)
                .with_context(named);
        }
        if is_in_cluster() {
            return Config::incluster().context("cannot use the pod's service account");
        }
        Config::infer().await.context(
            "there is no Kubernetes configuration: set `kubeconfig`, or `kubernetes` to off",
        )
    }
}

/// A right that the collector needs and does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Of [`super::super::VERBS`].
    pub verb: &'static str,
    pub resource: &'static str,
    /// What the API server said.
    pub why: String,
}

/// Tries every right that is needed, by listing one object and by a watch that nothing is waited
/// for from. An error: there is no answer at all.
pub async fn probe(settings: &WatchSettings) -> anyhow::Result<Vec<Missing>> {
    let client = settings.client().await?;
    let one = ListParams::default().limit(1);
    // Nothing is called so: an answer begins without the objects that are there.
    let nothing = WatchParams::default()
        .labels("runwire.example/nothing=is-called-so")
        .timeout(1);
    let mut missing = Vec::new();
    for &(group, resource) in RIGHTS {
        let version = GroupVersionKind::gvk(group, "v1", "");
        let api_resource = ApiResource::from_gvk_with_plural(&version, resource);
        let api = Api::<DynamicObject>::all_with(client.clone(), &api_resource);
        let listed = api.list_metadata(&one).await.map(drop);
        let watched = api.watch_metadata(&nothing, "0").await.map(drop);
        for (verb, tried) in [("list", listed), ("watch", watched)] {
            match tried {
                Ok(()) => {}
                Err(error @ kube::Error::Api(_)) => missing.push(Missing {
                    verb,
                    resource,
                    why: super::chain(&error),
                }),
                Err(error) => bail!("the API server cannot be asked: {}", super::chain(&error)),
            }
        }
    }
    Ok(missing)
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let kubeconfig = "\
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: 'http://127.0.0.1:9'}}]
users: [{name: test, user: {}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
";
    std::fs::write(&path, kubeconfig).unwrap();
    let settings = WatchSettings {
        kubeconfig: Some(path),
        ..WatchSettings::default()
    };
    let config = settings.config().await.unwrap();
    assert_eq!(config.read_timeout, Some(SILENCE));
    assert!(config.reset_reader_on_write);
}
