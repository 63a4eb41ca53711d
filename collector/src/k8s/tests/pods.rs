//! Whose an address, a cgroup or a container is, while pods come and go.

use serde_json::json;

use super::*;

const CART: &str = "10.0.0.5";

fn cart() -> Value {
    a_pod("cart-1", "b", CART, "StatefulSet/cart")
}

fn by_hint(world: &World, uid: Option<&str>, container: Option<&str>) -> Option<String> {
    let hint = PodHint { uid, container };
    let found = world.index.local_pod(hint, world.now)?;
    Some(found.map_or_else(|reason| reason.as_str().to_owned(), |it| show(&it)))
}

#[test]
fn an_address_is_its_pods_in_every_notation() {
    let mut world = World::synced();
    let mut pod = cart();
    pod["status"]["podIPs"] = json!([{"ip": CART}, {"ip": "fd00:0::5"}]);
    world.apply(&pod);
    for address in [CART, "::ffff:10.0.0.5", "fd00::5"] {
        assert_eq!(world.at(address), "shop/statefulset/cart", "{address}");
    }
    assert_eq!(world.at("10.0.0.6"), "nobody");
}

#[test]
fn a_reused_address_never_has_the_old_name() {
    let new = a_pod("web-1", "b", CART, "StatefulSet/web");
    // The news may come in any order.
    for (first, second) in [("delete", "apply"), ("apply", "delete")] {
        let mut world = World::synced();
        world.apply(&cart());
        for step in [first, second] {
            match step {
                "delete" => world.delete(&cart()),
                _ => world.apply(&new),
            }
        }
        assert_eq!(world.at(CART), "shop/statefulset/web", "{first}");
        // Late changes of the old one do not give it back.
        world.apply(&new);
        assert_eq!(world.at(CART), "shop/statefulset/web");
    }
}

#[test]
fn of_two_that_were_there_before_us_the_younger_has_the_address() {
    let mut world = World::new();
    let mut younger = a_pod("web-1", "c", CART, "StatefulSet/web");
    younger["metadata"]["creationTimestamp"] = json!("2026-11-21T00:00:00Z");
    world.apply(&younger);
    world.apply(&cart());
    assert_eq!(world.at(CART), "shop/statefulset/web");
}

#[test]
fn the_address_of_a_pod_that_is_over_is_free() {
    for phase in ["Succeeded", "Failed"] {
        let mut world = World::synced();
        world.apply(&cart());
        let mut over = cart();
        over["status"]["phase"] = json!(phase);
        world.apply(&over);
        // What the kernel counted until now still comes.
        assert_eq!(world.at(CART), "shop/statefulset/cart");
        world.wait(10);
        assert_eq!(world.at(CART), "nobody", "{phase}");
    }
    let mut world = World::synced();
    world.apply(&cart());
    world.delete(&cart());
    world.wait(10);
    assert_eq!(world.at(CART), "nobody");
}

#[test]
fn a_pod_that_is_terminating_still_has_its_address() {
    let mut world = World::synced();
    let mut pod = cart();
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-20T04:00:00Z");
    world.apply(&pod);
    assert_eq!(world.at(CART), "shop/statefulset/cart");
}

#[test]
fn a_pod_of_the_hosts_network_has_no_address_but_containers() {
    let mut world = World::synced();
    let mut pod = a_pod("proxy-x", "a", "192.0.2.1", "DaemonSet/proxy");
    pod["spec"]["hostNetwork"] = json!(true);
    world.apply(&pod);
    assert_eq!(world.at("192.0.2.1"), "nobody");
    let name = Some("shop/daemonset/proxy".to_owned());
    assert_eq!(by_hint(&world, Some("uid-of-proxy-x"), None), name);
    assert_eq!(
        by_hint(&world, Some("?"), Some("container-of-proxy-x")),
        name
    );
    assert_eq!(by_hint(&world, None, Some("container-of-other")), None);
    world.delete(&pod);
    assert_eq!(by_hint(&world, Some("uid-of-proxy-x"), None), None);
}

#[test]
fn a_restarted_container_replaces_the_old_one() {
    let mut world = World::synced();
    let mut pod = a_pod("cart-0", "a", "10.0.0.9", "StatefulSet/cart");
    world.apply(&pod);
    pod["status"]["containerStatuses"][0]["containerID"] = json!("cri-o://second");
    pod["status"]["initContainerStatuses"] = json!([{"containerID": "docker://init"}, {}]);
    world.apply(&pod);
    for (container, known) in [
        ("container-of-cart-0", false),
        ("second", true),
        ("init", true),
    ] {
        assert_eq!(
            by_hint(&world, None, Some(container)).is_some(),
            known,
            "{container}"
        );
    }
}

#[test]
fn a_static_pod_is_known_by_its_hash_and_without_its_nodes_name() {
    let mut world = World::synced();
    let mut pod = a_pod("kube-apiserver-a", "a", "192.0.2.1", "Node/a");
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": "d41d8cd9"});
    world.apply(&pod);
    let name = Some("shop/pod/kube-apiserver".to_owned());
    assert_eq!(by_hint(&world, Some("d41d8cd9"), None), name);
}

#[test]
fn a_pod_that_gets_a_node_stays_whichever_watch_tells_first() {
    let mut unscheduled = a_pod("cart-0", "", "", "StatefulSet/cart");
    unscheduled["spec"] = json!({});
    unscheduled["status"] = json!({"phase": "Pending"});
    let scheduled = a_pod("cart-0", "a", CART, "StatefulSet/cart");
    for late in [true, false] {
        let mut world = World::synced();
        world.apply(&unscheduled);
        if !late {
            world.delete(&unscheduled);
        }
        world.apply(&scheduled);
        // What the other watch says comes late.
        world.apply(&unscheduled);
        if late {
            world.delete(&unscheduled);
        }
        assert_eq!(world.at(CART), "shop/statefulset/cart");
        assert_eq!(world.index.count(Resource::LocalPods), 1);
        assert_eq!(world.index.count(Resource::RemotePods), 0);
    }
}

#[test]
fn late_news_of_a_pod_do_not_take_the_name_from_the_one_that_came_after_it() {
    let old = a_pod("cart-0", "a", "10.0.0.4", "StatefulSet/cart");
    let mut new = a_pod("cart-0", "b", CART, "StatefulSet/cart");
    new["metadata"]["uid"] = json!("uid-of-the-second");
    new["metadata"]["creationTimestamp"] = json!("2026-11-21T00:00:00Z");
    for (old, new) in [(&old, &new), (&as_on("b", &old), &as_on("a", &new))] {
        let mut world = World::synced();
        world.apply(old);
        // The watch of the new one's node tells that it runs; the other was cut, and tells how the old one ended.
        world.apply(new);
        world.apply(old);
        world.delete(old);
        world.wait(10);
        assert_eq!(world.at(CART), "shop/statefulset/cart");
        assert_eq!(world.at("10.0.0.4"), "nobody");
    }
}

fn as_on(node: &str, pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = json!(node);
    pod
}

#[test]
fn what_a_list_lacks_is_gone() {
    let mut world = World::synced();
    let local = a_pod("cart-0", "a", "10.0.0.4", "StatefulSet/cart");
    world.apply(&cart());
    world.apply(&local);
    let there = [ObjectKey::new("shop", "other")].into();
    world.index.reset(Resource::RemotePods, &there, world.now);
    world.wait(10);
    assert_eq!(world.at(CART), "nobody");
    assert_eq!(world.at("10.0.0.4"), "shop/statefulset/cart");
}

#[test]
fn before_pods_are_listed_nobody_is_called_external() {
    let mut world = World::new();
    assert_eq!(world.at("203.0.113.7"), "kubernetes_unsynced");
    world
        .index
        .reset(Resource::LocalPods, &Default::default(), world.now);
    assert_eq!(world.at("203.0.113.7"), "nobody");
}

#[test]
fn an_address_may_be_one_of_what_is_asked_for_and_not_listed_yet() {
    let mut world = World::new();
    let with_addresses = [
        Resource::LocalPods,
        Resource::RemotePods,
        Resource::Services,
        Resource::Nodes,
    ];
    for resource in with_addresses {
        world.index.expect(resource);
    }
    for resource in with_addresses {
        assert_eq!(
            world.at("203.0.113.7"),
            "kubernetes_unsynced",
            "{resource:?}"
        );
        world.index.reset(resource, &Default::default(), world.now);
    }
    assert_eq!(world.at("203.0.113.7"), "nobody");
    // Owners have none.
    world.index.expect(Resource::Jobs);
    assert_eq!(world.at("203.0.113.7"), "nobody");
}

#[test]
fn a_node_that_changes_its_address_does_not_keep_the_old_one() {
    let mut world = World::synced();
    let node = |address: &str| {
        json!({"kind": "Node", "metadata": {"name": "b"}, "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
    };
    for address in ["192.0.2.2", "192.0.2.2", "192.0.2.3"] {
        world.apply(&node(address));
        assert_eq!(world.at(address), "host/node/~node");
    }
    assert_eq!(world.at("192.0.2.2"), "nobody");
}

#[test]
fn an_address_of_a_pod_network_is_somebodys() {
    let mut world = World::synced();
    world.apply(&json!({"kind": "Node", "metadata": {"name": "b", "labels": {"topology.kubernetes.io/zone": "z2"}},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}, {"type": "Hostname", "address": "b"}]}}));
    for (address, expected) in [
        ("10.0.0.77", "pod_unknown"),
        ("fd00::77", "pod_unknown"),
        ("10.0.1.77", "nobody"),
        ("192.0.2.2", "host/node/~node"),
        // A node's own end of an overlay.
        ("10.0.0.0", "host/node/~node"),
        ("fd00::", "host/node/~node"),
    ] {
        assert_eq!(world.at(address), expected, "{address}");
    }
    world.apply(&cart());
    let zone = |address: &str| world.index.zone_at(address.parse().unwrap());
    assert_eq!(
        (zone(CART), zone("192.0.2.2"), zone("10.0.1.1")),
        (Some("z2"), Some("z2"), None)
    );
    assert_eq!(world.index.missing_node(), Some("a"));
}

#[test]
fn what_may_not_be_listed_is_waited_for_no_longer_than_the_grace_period() {
    let with_addresses = [Resource::RemotePods, Resource::Services, Resource::Nodes];
    for refused in with_addresses {
        let mut world = World::new();
        with_addresses
            .into_iter()
            .for_each(|it| world.index.expect(it));
        for resource in Resource::ALL.into_iter().filter(|it| *it != refused) {
            world.index.reset(resource, &Default::default(), world.now);
        }
        world.index.fail(refused, world.now);
        assert_eq!(
            world.at("203.0.113.7"),
            "kubernetes_unsynced",
            "{refused:?}"
        );
        world.wait(30);
        assert_eq!(world.at("203.0.113.7"), "nobody", "{refused:?}");
        // Inside there may be somebody that is not told of.
        for address in ["10.96.0.1", "100.64.0.1", "fd00::1"] {
            assert_eq!(world.at(address), "kubernetes_incomplete", "{refused:?}");
        }
        world.index.reset(refused, &Default::default(), world.now);
        assert_eq!(world.at("10.96.0.1"), "nobody");
    }
    // Without this node's pods nobody is known.
    let mut world = World::new();
    world.index.fail(Resource::LocalPods, world.now);
    world.wait(3600);
    assert_eq!(world.at("203.0.113.7"), "kubernetes_unsynced");
}
