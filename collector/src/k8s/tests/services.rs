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

/// Two Services with the address of one load balancer, and ports of their own.
fn sharing() -> [Value; 2] {
    let mut dns = a_service("10.96.0.2");
    dns["metadata"]["name"] = json!("dns");
    dns["spec"]["clusterIPs"] = json!(["10.96.0.2"]);
    dns["spec"]["ports"] =
        json!([{"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "UDP"}]);
    [a_service("10.96.0.1"), dns]
}

#[test]
fn of_services_that_share_an_address_the_port_tells_which_in_whatever_order_they_came() {
    let [web, dns] = sharing();
    for order in [[&web, &dns], [&dns, &web]] {
        let mut world = World::synced();
        order.iter().for_each(|it| world.apply(it));
        // Whoever knows no port does not name one of them.
        assert_eq!(world.at("198.51.100.2"), "Services dns, web");
        let address = "198.51.100.2".parse().unwrap();
        assert_eq!(world.index.service_at(address), None);
        let behind = |protocol, port| {
            let asked = std::net::SocketAddr::new(address, port);
            let found = world.index.service_behind(asked, protocol);
            found.map(|key| key.name.to_string())
        };
        assert_eq!(behind(6, 80).as_deref(), Some("web"));
        assert_eq!(behind(17, 80).as_deref(), Some("dns"));
        assert_eq!(behind(17, 53).as_deref(), Some("dns"));
        assert_eq!(behind(6, 443), None);
        world.delete(order[1]);
        let left = order[0]["metadata"]["name"].as_str().unwrap();
        assert_eq!(world.at("198.51.100.2"), format!("shop/Service {left}"));
        world.delete(order[0]);
        assert_eq!(world.at("198.51.100.2"), "nobody");
    }
}

#[test]
fn of_services_with_one_port_at_one_address_none_is_named() {
    let [web, mut other] = sharing();
    other["spec"]["ports"] = json!([{"port": 80}]);
    let mut world = World::synced();
    world.apply(&web);
    world.apply(&other);
    let asked = "198.51.100.2:80".parse().unwrap();
    assert_eq!(world.index.service_behind(asked, 6), None);
}

#[test]
fn on_a_nodes_address_the_port_tells_the_service_from_the_node() {
    let mut world = World::synced();
    world.apply(&a_service("10.96.0.1"));
    world.apply(
        &json!({"kind": "Node", "metadata": {"name": "b"}, "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.2"}]}}),
    );
    let behind = |asked: &str| world.index.service_behind(asked.parse().unwrap(), 6);
    assert!(behind("198.51.100.2:80").is_some());
    assert!(behind("198.51.100.2:10250").is_none());
}

#[test]
fn where_only_this_nodes_pods_are_asked_for_an_endpoint_elsewhere_is_not_outside() {
    let mut world = World::synced();
    world.apply(&a_service("10.96.0.1"));
    world.apply(&a_slice("web-x", &["203.0.113.7"]));
    assert_eq!(behind(&world), "shop/service/web");
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
    // One whose endpoints are elsewhere, where all pods are known.
    world.index.expect(Resource::RemotePods);
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
