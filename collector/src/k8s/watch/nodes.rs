//! Follows nodes: lists them whole, watches their metadata only, and looks at those again by name of
//! which that tells that more may have changed.
//!
//! A kubelet writes its node's status at least every five minutes, and a whole node is mostly images
//! and conditions: in a large cluster, watched whole by every node, that alone is most of what the API
//! server sends. Addresses are in the status too, but change with the metadata, or nearly never.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, Request, header};
use kube::Api;
use kube::api::{ListParams, VersionMatch};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::runtime::watcher::{Config, DefaultBackoff};
use tokio::time::sleep;

use super::super::cluster::{Cluster, Failure};
use super::super::entry::Entry;
use super::super::index::NodeInDoubt;
use super::super::{Node, Resource, node, node_news};
use super::{MOST_PAUSE, failure, take};

/// For what changes without a trace in the metadata, such as a lease of another address, all are
/// listed again this often: some megabytes for each thousand nodes.
const LIST_AGAIN: Duration = Duration::from_hours(12);
/// Not sooner than this after the last time.
const LEAST_BETWEEN_LISTS: Duration = Duration::from_mins(10);
/// This node alone is looked at this often.
const OWN_AGAIN: Duration = Duration::from_mins(5);
const LOOK_FOR_DOUBTS: Duration = Duration::from_millis(500);
/// A node is looked at by the collectors of all the others: they take their time, so that the API
/// server is not asked more than some thousand times a second.
const FOR_EACH_NODE: Duration = Duration::from_millis(1);

pub(super) async fn follow(api: Api<Node>, config: Config, to: &Cluster) {
    loop {
        let nodes = take(
            watcher(api.clone(), config.clone()),
            Resource::Nodes,
            to,
            |it: &Node| {
                Some(match it.is_whole() {
                    true => Entry::Node(node(it)),
                    false => Entry::NodeNews(node_news(it)),
                })
            },
        );
        tokio::select! {
            () = nodes => return,
            () = look(&api, to) => {}
        }
    }
}

/// A watch of nodes gives their metadata only, a list everything. Both are of one watcher, which has
/// one type for both.
pub(super) fn narrow<B>(mut request: Request<B>) -> Request<B> {
    const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let uri = request.uri();
    let is_watch = (uri.query()).is_some_and(|it| it.split('&').any(|pair| pair == "watch=true"));
    if is_watch && uri.path().ends_with("/api/v1/nodes") {
        let accept = HeaderValue::from_static(METADATA);
        request.headers_mut().insert(header::ACCEPT, accept);
    }
    request
}

/// Returns when all nodes should be listed again.
async fn look(api: &Api<Node>, cluster: &Cluster) {
    let start = Instant::now();
    let mut own_again = start + OWN_AGAIN;
    let list_again = start + LIST_AGAIN.mul_f64(0.75 + random() / 2.0);
    let mut backoff = DefaultBackoff::default();
    loop {
        sleep(LOOK_FOR_DOUBTS).await;
        let now = Instant::now();
        if now >= own_again {
            cluster.change().doubt_own_node(now);
            own_again = now + OWN_AGAIN;
        }
        let (doubt, doubts, nodes, is_own) = {
            let index = cluster.index();
            let doubt = index.node_in_doubt();
            let is_own = doubt.as_ref().map(|it| &it.name) == index.own_node();
            let nodes = index.count(Resource::Nodes);
            (doubt, index.nodes_in_doubt(), nodes, is_own)
        };
        let is_cheaper = doubts > nodes / 4 && doubts > 100;
        if now >= list_again || is_cheaper && now >= start + LEAST_BETWEEN_LISTS {
            return;
        }
        let Some(doubt) = doubt else {
            continue;
        };
        if !is_own {
            let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
            sleep((FOR_EACH_NODE * nodes).mul_f64(random() * 2.0)).await;
        }
        match look_at(api, &doubt).await {
            Ok(found) => {
                (cluster.change()).look_at_node(&doubt, found.as_ref().map(node));
                backoff.reset();
            }
            Err(error) => {
                let failure = Failure {
                    is_passing: true,
                    ..failure(&watcher::Error::InitialListFailed(error))
                };
                cluster.failed(Resource::Nodes, failure, now);
                sleep(backoff.next().unwrap_or(MOST_PAUSE)).await;
            }
        }
    }
}

/// By a list of one, which needs no other right than the list of all; servers look up a name as
/// cheaply either way.
async fn look_at(api: &Api<Node>, doubt: &NodeInDoubt) -> kube::Result<Option<Node>> {
    let mut parameters = ListParams::default().fields(&format!("metadata.name={}", doubt.name));
    parameters.resource_version = Some(doubt.version.to_string());
    parameters.version_match = Some(VersionMatch::NotOlderThan);
    Ok(api.list(&parameters).await?.items.pop())
}

/// From 0 to 1, and another one on each node.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0).to_be_bytes();
    f64::from(u32::from_be_bytes([bits[0], bits[1], bits[2], bits[3]])) / f64::from(u32::MAX)
}

#[test]
fn a_watch_of_nodes_is_of_their_metadata_and_nothing_else_is() {
    for (uri, is_narrow) in [
        ("/api/v1/nodes?watch=true&resourceVersion=7", true),
        ("/api/v1/nodes?limit=250", false),
        ("/api/v1/pods?watch=true", false),
    ] {
        let request = Request::get(uri).header("accept", "application/json");
        let request = narrow(request.body(()).unwrap());
        let accept = request.headers()[header::ACCEPT].to_str().unwrap();
        assert_eq!(
            accept.contains("as=PartialObjectMetadata;"),
            is_narrow,
            "{uri}"
        );
    }
}
