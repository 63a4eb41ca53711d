//! Nodes: listed whole, followed by their metadata, and looked at again where that is not enough.

use serde_json::json;

use super::*;

/// As a list gives it.
fn whole(address: &str, version: &str) -> Value {
    json!({"kind": "Node",
        "metadata": {"name": "b", "uid": "1", "resourceVersion": version,
            "labels": {"topology.kubernetes.io/zone": "z1"},
            "managedFields": [
                {"manager": "kubelet", "operation": "Update", "time": format!("2026-11-20T03:1{version}:00Z"), "subresource": "status",
                    "fieldsV1": {"f:status": {"f:conditions": {}, "f:addresses": {"k:{\"type\":\"InternalIP\"}": {}}}}},
                {"manager": "controller", "operation": "Update",
                    "fieldsV1": {"f:spec": {"f:podCIDRs": {"v:\"10.0.0.0/24\"": {}}}}},
            ]},
        "spec": {"podCIDRs": ["10.0.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
}

/// As a watch gives it.
fn metadata(of: &Value) -> Value {
    json!({"kind": "Node", "metadata": of["metadata"]})
}

fn doubt(world: &World) -> Option<String> {
    (world.index.node_in_doubt()).map(|doubt| format!("{} {}", doubt.name, doubt.version))
}

fn look(world: &mut World, version: &str, found: Option<&Value>) {
    let node = found.map(|it| node(&serde_json::from_value(it.clone()).unwrap()));
    let doubt = NodeInDoubt {
        name: "b".into(),
        version: version.into(),
    };
    world.index.look_at_node(&doubt, node);
}

#[test]
fn a_kubelet_that_writes_its_health_casts_no_doubt_on_what_is_known() {
    let mut world = World::synced();
    world.apply(&whole("192.0.2.2", "7"));
    world.apply(&metadata(&whole("192.0.2.2", "8")));
    assert_eq!(doubt(&world), None);
    assert_eq!(world.at("192.0.2.2"), "host/node/~node");
    assert_eq!(world.at("10.0.0.77"), "pod_unknown");
}

#[test]
fn what_may_have_changed_an_address_is_looked_at_again() {
    let changes = [
        ("/metadata/uid", json!("2")),
        ("/metadata/labels/topology.kubernetes.io~1zone", json!("z2")),
        (
            "/metadata/managedFields/0/fieldsV1/f:status/f:addresses",
            json!({"k:{\"type\":\"ExternalIP\"}": {}}),
        ),
        (
            "/metadata/managedFields/1/fieldsV1/f:spec/f:podCIDRs",
            json!({"v:\"10.0.1.0/24\"": {}}),
        ),
    ];
    for (pointer, value) in changes {
        let mut world = World::synced();
        world.apply(&whole("192.0.2.2", "7"));
        let mut changed = whole("192.0.2.3", "8");
        *changed.pointer_mut(pointer).unwrap() = value;
        world.apply(&metadata(&changed));
        assert_eq!(doubt(&world).as_deref(), Some("b 8"), "{pointer}");
        // Until then it has what it had.
        assert_eq!(world.at("192.0.2.2"), "host/node/~node");
        look(&mut world, "8", Some(&changed));
        assert_eq!(doubt(&world), None, "{pointer}");
        assert_eq!(world.at("192.0.2.3"), "host/node/~node");
        assert_eq!(world.at("192.0.2.2"), "nobody");
    }
}

#[test]
fn a_new_node_has_the_address_of_its_annotation_until_it_is_looked_at() {
    let mut world = World::synced();
    let mut new = whole("192.0.2.2", "7");
    new["metadata"]["annotations"] =
        json!({"alpha.kubernetes.io/provided-node-ip": "192.0.2.2,fd00::2"});
    world.apply(&metadata(&new));
    assert_eq!(world.at("fd00::2"), "host/node/~node");
    let zone = world.index.zone_at("192.0.2.2".parse().unwrap());
    assert_eq!(zone, Some("z1"));
    look(&mut world, "7", Some(&new));
    assert_eq!(
        (doubt(&world), world.at("10.0.0.7")),
        (None, "pod_unknown".to_owned())
    );
}

#[test]
fn who_may_be_a_new_node_is_not_called_external_before_it_is_looked_at() {
    let mut world = World::synced();
    let new = whole("172.16.0.2", "7");
    world.apply(&metadata(&new));
    // Its pods' addresses are inside, too; what is elsewhere in the Internet is not it.
    for address in ["172.16.0.2", "10.0.0.7", "fd00::2"] {
        assert_eq!(world.at(address), "kubernetes_unsynced", "{address}");
    }
    assert_eq!(world.at("198.51.100.7"), "nobody");
    // More news of it are no look at it.
    world.apply(&metadata(&whole("172.16.0.2", "8")));
    world.wait(30);
    assert_eq!(world.at("172.16.0.2"), "kubernetes_incomplete");
    look(&mut world, "8", Some(&new));
    assert_eq!(world.at("172.16.0.2"), "host/node/~node");
    assert_eq!(world.at("10.0.0.7"), "pod_unknown");
    assert_eq!(world.at("172.16.0.3"), "nobody");

    // Of a node that was seen whole, news are no reason to doubt what others are called.
    let mut changed = whole("172.16.0.2", "9");
    changed["metadata"]["uid"] = json!("2");
    world.apply(&metadata(&changed));
    assert_eq!(world.at("172.16.0.3"), "nobody");
}

#[test]
fn a_new_node_that_goes_before_it_is_looked_at_leaves_no_doubt() {
    let mut world = World::synced();
    let new = whole("172.16.0.2", "7");
    world.apply(&metadata(&new));
    world.delete(&metadata(&new));
    assert_eq!(world.at("172.16.0.2"), "nobody");
}

#[test]
fn an_answer_that_comes_late_neither_revives_a_node_nor_ends_a_newer_doubt() {
    let mut world = World::synced();
    let first = whole("192.0.2.2", "7");
    let mut second = whole("192.0.2.3", "8");
    second["metadata"]["uid"] = json!("2");
    world.apply(&metadata(&first));
    world.apply(&metadata(&second));
    look(&mut world, "7", Some(&first));
    assert_eq!(doubt(&world).as_deref(), Some("b 8"));
    world.delete(&metadata(&second));
    look(&mut world, "8", Some(&second));
    assert_eq!(world.index.count(Resource::Nodes), 0);
    assert_eq!(world.at("192.0.2.3"), "nobody");
}

#[test]
fn this_node_is_looked_at_first() {
    let mut world = World::synced();
    world.apply(&metadata(&whole("192.0.2.2", "7")));
    let mut own = whole("192.0.2.1", "8");
    own["metadata"]["name"] = json!("a");
    world.apply(&own);
    world.wait(1);
    world.index.doubt_own_node(world.now);
    assert_eq!(doubt(&world).as_deref(), Some("a 0"));
}
