//! Service addresses, and who answers there.

use serde_json::json;

use super::*;

fn a_service(address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": address, "clusterIPs": [address, "fd00:96::1"], "externalIPs": ["198.51.100.1"],
            "ports": [{"port": 80, "protocol": "TCP"}], "type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "lb.example"}]}}})
}

fn a_slice(name: &str, addresses: &[&str]) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": addresses.iter().map(|it| json!({"addresses": [it], "conditions": {"ready": true}})).collect::<Vec<_>>(),
        "ports": [{"port": 8080, "protocol": "TCP", "name": ""}]})
}

fn behind(world: &World) -> String {
    show(
        &world
            .index
            .behind(&ObjectKey::new("shop", "web"), world.now),
    )
}

#[test]
fn a_service_has_all_its_addresses_until_it_changes_them() {
    let mut world = World::synced();
    world.apply(&a_service("10.96.0.1"));
    for address in ["10.96.0.1", "fd00:96::1", "198.51.100.1", "198.51.100.2"] {
        assert_eq!(world.at(address), "shop/Service web", "{address}");
    }
    world.apply(&a_service("10.96.0.9"));
    assert_eq!(world.at("10.96.0.1"), "nobody");
    world.delete(&a_service("10.96.0.9"));
    assert_eq!(world.at("10.96.0.9"), "nobody");
    // A headless one has none.
    world.apply(&a_service("None"));
    assert_eq!(world.at("10.96.0.9"), "nobody");
}

#[test]
fn services_that_share_an_address_keep_it_when_one_of_them_goes() {
    let mut world = World::synced();
    let mut other = a_service("10.96.0.2");
    other["metadata"]["name"] = json!("web-udp");
    other["spec"]["clusterIPs"] = json!(["10.96.0.2"]);
    for (first, second) in [("web", "web-udp"), ("web-udp", "web")] {
        let named = |name: &str| match name {
            "web" => a_service("10.96.0.1"),
            _ => other.clone(),
        };
        world.apply(&named(first));
        world.apply(&named(second));
        world.delete(&named(second));
        assert_eq!(world.at("198.51.100.2"), format!("shop/Service {first}"));
        world.delete(&named(first));
        assert_eq!(world.at("198.51.100.2"), "nobody");
    }
}

#[test]
fn an_address_of_a_node_is_not_taken_for_a_services() {
    let mut world = World::synced();
    world.apply(&a_service("10.96.0.1"));
    world.apply(
        &json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.2"}]}}),
    );
    let service = |address: &str| world.index.service_at(address.parse().unwrap()).is_some();
    assert_eq!(
        (service("198.51.100.1"), service("198.51.100.2")),
        (true, false)
    );
    assert_eq!(world.at("198.51.100.2"), "host/host/~host");
}

#[test]
fn a_service_is_its_endpoints_workload_if_that_is_one() {
    let mut world = World::synced();
    world.apply(&a_service("10.96.0.1"));
    assert_eq!(behind(&world), "shop/service/web");
    world.apply(&a_pod("web-0", "b", "10.0.0.1", "StatefulSet/web"));
    world.apply(&a_pod("web-1", "b", "10.0.0.2", "StatefulSet/web"));
    world.apply(&a_pod("canary-0", "b", "10.0.0.3", "StatefulSet/canary"));
    world.apply(&a_slice("web-x", &["10.0.0.1"]));
    world.apply(&a_slice("web-y", &["10.0.0.2"]));
    assert_eq!(behind(&world), "shop/statefulset/web");
    world.apply(&a_slice("web-y", &["10.0.0.2", "10.0.0.3"]));
    assert_eq!(behind(&world), "shop/service/web");
    world.delete(&a_slice("web-y", &[]));
    assert_eq!(behind(&world), "shop/statefulset/web");
    // One whose endpoints are elsewhere.
    world.apply(&a_slice("web-x", &["203.0.113.7"]));
    assert_eq!(behind(&world), "~external/external/~external");
}

#[test]
fn namespaces_count_their_pods_and_services() {
    let mut world = World::synced();
    world.apply(&json!({"kind": "Namespace", "metadata": {"name": "empty"}}));
    world.apply(&a_service("10.96.0.1"));
    world.apply(&a_pod("web-0", "b", "10.0.0.1", "StatefulSet/web"));
    let mut over = a_pod("web-1", "b", "10.0.0.2", "StatefulSet/web");
    over["status"]["phase"] = json!("Failed");
    world.apply(&over);
    let counts: Vec<_> = world
        .index
        .namespaces()
        .into_iter()
        .map(|(name, counts)| (name.to_string(), counts))
        .collect();
    assert_eq!(
        counts,
        [("empty".to_owned(), (0, 0)), ("shop".to_owned(), (1, 1))]
    );
}
