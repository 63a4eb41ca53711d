//! Follows the API server: lists in pages, watches, goes on after every failure. The only user of
//! `kube::Client`.

mod client;
mod nodes;

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource as KubeResource};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tracing::{info, warn};

pub use client::{Missing, Mode, WatchSettings, probe};

use super::cluster::{Cluster, Failure};
use super::entry::{Entry, ObjectKey};
use super::{Pod, Resource, endpoint_slice, owner, pod, service};

/// Objects of a page: at most some megabytes, since pods and EndpointSlices may have ten kilobytes.
const PAGE: u32 = 250;
/// Whether owners must be asked for is looked at this often.
const LOOK_FOR_OWNERS: Duration = Duration::from_secs(1);
/// Other tasks get a turn after so many events.
const EVENTS: usize = 64;
const LEAST_PAUSE: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// Follows everything that names ends, for as long as it is not dropped.
pub async fn follow(cluster: Arc<Cluster>, settings: WatchSettings) {
    let client = connect(&cluster, &settings).await;
    let mut watches = JoinSet::new();
    for resource in Resource::ALL {
        if resource == Resource::RemotePods && !settings.has_remote_pods() {
            continue;
        }
        let (cluster, client) = (cluster.clone(), client.clone());
        let node = settings.node.clone();
        watches.spawn(async move {
            while !cluster.index().needs(resource) {
                sleep(LOOK_FOR_OWNERS).await;
            }
            cluster.expect(resource);
            follow_one(resource, client, node.as_deref(), &cluster).await;
        });
    }
    watches.join_all().await;
}

/// What the configuration names may come later, such as a file on a volume.
async fn connect(cluster: &Cluster, settings: &WatchSettings) -> Client {
    let mut pause = LEAST_PAUSE;
    let mut told = String::new();
    loop {
        match settings.client().await {
            Ok(client) => {
                cluster.set_client(None);
                return client;
            }
            Err(error) => {
                let error = chain(error.as_ref());
                if error != told {
                    told.clone_from(&error);
                    warn!(
                        error,
                        "pods have no names: there is no way to the Kubernetes API"
                    );
                }
                cluster.set_client(Some(error));
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(MOST_PAUSE);
    }
}

async fn follow_one(resource: Resource, client: Client, node_name: Option<&str>, to: &Cluster) {
    let config = Config::default().page_size(PAGE);
    match resource {
        Resource::LocalPods => {
            let config = match node_name {
                Some(node) => config.fields(&format!("spec.nodeName={node}")),
                None => config,
            };
            let pods = watcher(Api::<Pod>::all(client), config);
            take(pods, resource, to, |it| Some(Entry::Pod(pod(it)))).await;
        }
        Resource::RemotePods => {
            // Those that are over have no address, and a cluster is full of them.
            let others = node_name.map_or_else(String::new, |it| format!("spec.nodeName!={it},"));
            let fields = format!("{others}status.phase!=Succeeded,status.phase!=Failed");
            let pods = watcher(Api::<Pod>::all(client), config.fields(&fields));
            take(pods, resource, to, |it| Some(Entry::Pod(pod(it)))).await;
        }
        Resource::Services => {
            let services = watcher(Api::<Service>::all(client), config);
            take(services, resource, to, |it| {
                Some(Entry::Service(service(it)))
            })
            .await;
        }
        Resource::EndpointSlices => {
            // Clients of a headless Service get the pods' own addresses.
            let config = config.labels("!service.kubernetes.io/headless");
            let slices = watcher(Api::<EndpointSlice>::all(client), config);
            take(slices, resource, to, |it| {
                endpoint_slice(it).map(Entry::EndpointSlice)
            })
            .await;
        }
        Resource::Nodes => nodes::follow(Api::all(client), config, to).await,
        Resource::Namespaces => {
            let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client), config);
            take(namespaces, resource, to, |_| Some(Entry::Namespace)).await;
        }
        Resource::ReplicaSets => {
            let sets = watcher(Api::<PartialObjectMeta<ReplicaSet>>::all(client), config);
            take(sets, resource, to, |it| {
                Some(Entry::Owner(owner(&it.metadata)))
            })
            .await;
        }
        Resource::Jobs => {
            let jobs = watcher(Api::<PartialObjectMeta<Job>>::all(client), config);
            take(jobs, resource, to, |it| {
                Some(Entry::Owner(owner(&it.metadata)))
            })
            .await;
        }
    }
}

/// Takes the events of a watch into the index. An object that means nothing (any more) is not in it.
async fn take<S, K>(
    events: S,
    resource: Resource,
    cluster: &Cluster,
    convert: impl Fn(&K) -> Option<Entry>,
) where
    S: WatchStreamExt<Item = watcher::Result<Event<K>>> + Send,
    K: KubeResource + Clone + Debug + Send + 'static,
{
    let mut events = pin!(events);
    let mut backoff = DefaultBackoff::default();
    let mut listed = HashSet::new();
    let mut taken = 0_usize;
    while let Some(event) = next(&mut events).await {
        let now = Instant::now();
        match event {
            Ok(event) => {
                // A list that begins, and its first pages, are no success: every try has them.
                let is_followed = !matches!(event, Event::Init | Event::InitApply(_));
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => {
                        let key = apply(cluster, resource, &object, &convert, now);
                        listed.insert(key);
                    }
                    Event::InitDone => {
                        cluster.change().reset(resource, &listed, now);
                        let objects = listed.len();
                        listed = HashSet::new();
                        cluster.synced(resource);
                        info!(
                            resource = resource.as_str(),
                            objects, "following Kubernetes"
                        );
                    }
                    Event::Apply(object) => {
                        apply(cluster, resource, &object, &convert, now);
                    }
                    Event::Delete(object) => {
                        let key = ObjectKey::of(object.meta());
                        cluster.change().delete(resource, &key, now);
                    }
                }
                if is_followed {
                    cluster.succeeded(resource);
                    backoff.reset();
                }
            }
            Err(error) => {
                let failure = failure(&error);
                let (reason, detail) = (failure.reason, failure.detail.clone());
                if cluster.failed(resource, failure, now) {
                    let resource = resource.as_str();
                    warn!(
                        resource,
                        reason,
                        error = detail,
                        "cannot follow Kubernetes; trying on"
                    );
                }
                sleep(backoff.next().unwrap_or(MOST_PAUSE)).await;
            }
        }
        taken += 1;
        if taken.is_multiple_of(EVENTS) {
            yield_now().await;
        }
    }
}

async fn next<S: WatchStreamExt>(events: &mut Pin<&mut S>) -> Option<S::Item> {
    poll_fn(|context| events.as_mut().poll_next(context)).await
}

fn apply<K: KubeResource>(
    cluster: &Cluster,
    resource: Resource,
    object: &K,
    convert: impl Fn(&K) -> Option<Entry>,
    now: Instant,
) -> ObjectKey {
    let key = ObjectKey::of(object.meta());
    let entry = convert(object);
    let mut index = cluster.change();
    match entry {
        Some(entry) => index.apply(resource, &key, entry, now),
        None => index.delete(resource, &key, now),
    }
    key
}

fn failure(error: &watcher::Error) -> Failure {
    use watcher::Error::{
        InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
    };
    let (code, is_passing) = match error {
        InitialListFailed(kube::Error::Api(status)) => (status.code, false),
        WatchStartFailed(kube::Error::Api(status)) => (status.code, status.code == 410),
        WatchError(status) => (status.code, status.code == 410),
        InitialListFailed(_) | WatchStartFailed(_) => (0, false),
        WatchFailed(_) => (0, true),
        NoResourceVersion => (422, false),
    };
    let reason = match (code, error) {
        (401, _) => "unauthorized",
        (403, _) => "forbidden",
        (410, _) => "expired",
        (0, WatchFailed(_)) => "cut",
        (0, InitialListFailed(kube::Error::SerdeError(_))) => "unreadable",
        (0, _) => "unreachable",
        _ => "refused",
    };
    Failure {
        reason,
        detail: chain(error),
        is_passing,
    }
}

/// An error and what it came from; where the API server said it, only that, which is a sentence already.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return format!("{} ({})", status.message, status.code);
        }
        let said = cause.to_string();
        // Many repeat their cause.
        if !parts.iter().any(|part| part.contains(&said)) {
            parts.push(said);
        }
        next = cause.source();
    }
    parts.join(": ")
}
