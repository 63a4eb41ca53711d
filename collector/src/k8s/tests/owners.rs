//! From a pod to the workload that a person deploys.

use serde_json::json;

use super::*;

const ADDRESS: &str = "10.0.0.5";

fn owned(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Value {
    let mut object = json!({"kind": kind, "metadata": {"namespace": "shop", "name": name}});
    if let Some((kind, name)) = owner {
        let group = if kind == "CronJob" {
            "batch/v1"
        } else {
            "apps/v1"
        };
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": group, "kind": kind, "name": name, "uid": "3", "controller": true}]);
    }
    object
}

#[test]
fn the_direct_owner_is_the_workload_of_most() {
    for (owner, expected) in [
        ("", "pod/it-x"),
        ("StatefulSet/cart", "statefulset/cart"),
        ("DaemonSet/agent", "daemonset/agent"),
        ("ReplicationController/old", "replicationcontroller/old"),
        ("Rollout/canary", "controller/canary"),
    ] {
        let mut world = World::synced();
        world.apply(&a_pod("it-x", "b", ADDRESS, owner));
        assert_eq!(world.at(ADDRESS), format!("shop/{expected}"));
    }
}

#[test]
fn a_deployment_is_known_by_the_hash_on_its_pods() {
    let mut world = World::synced();
    let mut pod = a_pod("web-7d9c-x", "b", ADDRESS, "ReplicaSet/web-7d9c");
    pod["metadata"]["labels"] = json!({"pod-template-hash": "7d9c"});
    world.apply(&pod);
    assert_eq!(world.at(ADDRESS), "shop/deployment/web");
    assert!(!world.index.needs(Resource::ReplicaSets));
}

#[test]
fn an_owner_that_is_late_is_waited_for_and_asked_for() {
    for (owner, resource, kind, known, expected) in [
        (
            "ReplicaSet/bare",
            Resource::ReplicaSets,
            "ReplicaSet",
            None,
            "replicaset/bare",
        ),
        (
            "ReplicaSet/r-1",
            Resource::ReplicaSets,
            "ReplicaSet",
            Some(("Rollout", "r")),
            "controller/r",
        ),
        (
            "Job/import-20240101",
            Resource::Jobs,
            "Job",
            None,
            "job/import-20240101",
        ),
        (
            "Job/tidy-29",
            Resource::Jobs,
            "Job",
            Some(("CronJob", "tidy")),
            "cronjob/tidy",
        ),
    ] {
        let mut world = World::synced();
        world.apply(&a_pod("it-x", "b", ADDRESS, owner));
        assert_eq!(world.at(ADDRESS), "owner_unknown");
        assert!(world.index.needs(resource));
        let name = owner.split_once('/').unwrap().1;
        world.apply(&owned(kind, name, known));
        assert_eq!(world.at(ADDRESS), format!("shop/{expected}"));

        // It is not known for ever, but for the pods that come: not even this is needed again.
        world.apply(&a_pod("it-y", "b", "10.0.0.6", owner));
        assert_eq!(world.at("10.0.0.6"), format!("shop/{expected}"));
    }
}

#[test]
fn after_the_grace_period_the_direct_owner_will_do() {
    let mut world = World::synced();
    let pod = a_pod("it-x", "b", ADDRESS, "Job/tidy-29");
    world.apply(&pod);
    world.wait(29);
    assert_eq!(world.at(ADDRESS), "owner_unknown");
    // Changes of the pod do not begin it anew.
    world.apply(&pod);
    world.wait(1);
    assert_eq!(world.at(ADDRESS), "shop/job/tidy-29");
}

#[test]
fn pods_that_outlive_their_owner_keep_its_name() {
    let mut world = World::synced();
    let mut pod = a_pod("it-x", "b", ADDRESS, "Job/tidy-29");
    let job = owned("Job", "tidy-29", Some(("CronJob", "tidy")));
    world.apply(&pod);
    world.apply(&job);
    world.delete(&job);
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-20T04:00:00Z");
    world.apply(&pod);
    assert_eq!(world.at(ADDRESS), "shop/cronjob/tidy");
    assert!(!world.index.needs(Resource::Jobs));

    // One that gets another owner does not.
    let mut other = a_pod("it-x", "b", ADDRESS, "Job/other");
    other["metadata"]["uid"] = pod["metadata"]["uid"].clone();
    world.apply(&other);
    assert_eq!(world.at(ADDRESS), "owner_unknown");
}
