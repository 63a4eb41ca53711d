//! The index follows an API server through everything that happens to watches.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runwire_collector::k8s::watch::{Mode, WatchSettings, follow, probe};
use runwire_collector::k8s::{Cluster, Found, KubernetesHealth, RIGHTS};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::api::{FakeApi, Faults};
use super::objects::{endpoint_slice, namespace, node, pod, pod_of_job, service};

/// Longer than the first pauses between tries.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a collector on the node `a` knows of a cluster.
struct World {
    api: FakeApi,
    cluster: Arc<Cluster>,
    settings: WatchSettings,
    runtime: Runtime,
    _directory: TempDir,
}

impl World {
    fn new(api: FakeApi) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, api.kubeconfig()).unwrap();
        let settings = WatchSettings {
            mode: Mode::On,
            kubeconfig: Some(path),
            node: Some("a".to_owned()),
            whole_cluster: true,
        };
        Self {
            api,
            cluster: Arc::new(Cluster::new(Some("a"), Duration::from_secs(30))),
            settings,
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            _directory: directory,
        }
    }

    /// Two nodes, a pod on each, followed.
    fn small() -> Self {
        let api = FakeApi::start();
        api.apply(&node("a", "z1", "192.0.2.1"));
        api.apply(&node("b", "z2", "192.0.2.2"));
        api.apply(&namespace("shop"));
        api.apply(&pod("web-0", "a", "10.0.0.1", "web"));
        api.apply(&pod("cart-0", "b", "10.0.0.2", "cart"));
        let world = Self::new(api);
        world.follow();
        world.until("all is listed", |world| world.health().is_synced());
        world
    }

    fn follow(&self) {
        let (cluster, settings) = (self.cluster.clone(), self.settings.clone());
        self.runtime.spawn(follow(cluster, settings));
    }

    fn health(&self) -> KubernetesHealth {
        self.cluster.health(Instant::now()).unwrap()
    }

    fn failures(&self, resource: &str, reason: &str) -> u64 {
        let health = self.health();
        let watch = health.resources.iter().find(|it| it.resource == resource);
        watch
            .and_then(|it| it.failures.get(reason))
            .copied()
            .unwrap_or(0)
    }

    fn lists(&self, resource: &str) -> usize {
        let requests = self.api.requests();
        let lists = requests.iter().filter(|it| !it.is_watch());
        lists.filter(|it| it.resource == resource).count()
    }

    fn name(&self, address: &str) -> String {
        let address: IpAddr = address.parse().unwrap();
        match self.cluster.index().at(address, Instant::now()) {
            Found::Workload(workload) => workload.name.to_string(),
            found => format!("{found:?}"),
        }
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "never: {what}: {:?}",
                self.health()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn until_named(&self, address: &str, name: &str) {
        self.until(name, |world| world.name(address) == name);
    }
}

#[test]
fn objects_are_listed_and_followed() {
    let world = World::small();
    assert_eq!(world.name("10.0.0.1"), "web");
    assert_eq!(world.name("10.0.0.2"), "cart");
    assert_eq!(world.name("192.0.2.2"), "~node");

    world.api.apply(&pod("new-0", "b", "10.0.0.3", "new"));
    world.until_named("10.0.0.3", "new");
    world.api.apply(&service("web", "10.96.0.1"));
    world.api.apply(&endpoint_slice("web", "10.0.0.1"));
    world.until("the Service is known", |world| {
        let index = world.cluster.index();
        let service = index.service_at("10.96.0.1".parse().unwrap());
        service.is_some_and(|key| &*index.behind(key, Instant::now()).name == "web")
    });
    // It completes: for the watch of the others it is gone, and its address is free.
    let mut over = pod("new-0", "b", "10.0.0.3", "new");
    over["status"]["phase"] = "Succeeded".into();
    world.api.apply(&over);
    world.api.apply(&pod("next-0", "b", "10.0.0.3", "next"));
    world.until_named("10.0.0.3", "next");
    world.api.delete(&pod("web-0", "a", "10.0.0.1", "web"));
    world.until("it is gone", |world| {
        world.cluster.index().namespaces()["shop"].0 == 2
    });
}

#[test]
fn nothing_is_asked_that_is_not_a_right_or_not_needed() {
    let world = World::small();
    let [pod, job] = pod_of_job("tidy-29384756", "tidy", "10.0.0.9");
    let before = world.api.requests();
    assert!(
        before
            .iter()
            .all(|it| it.resource != "jobs" && it.resource != "replicasets")
    );
    world.api.apply(&pod);
    world.api.apply(&job);
    world.until_named("10.0.0.9", "tidy");
    for request in world.api.requests() {
        let is_right = RIGHTS
            .iter()
            .any(|(_, resource)| *resource == request.resource);
        assert!(is_right, "{request:?}");
        let resource = request.resource.as_str();
        let metadata = matches!(resource, "namespaces" | "replicasets" | "jobs")
            || resource == "nodes" && request.is_watch();
        assert_eq!(request.metadata_only, metadata, "{request:?}");
        if !request.is_watch() {
            assert_eq!(request.parameter("limit"), "250", "{request:?}");
        }
        if resource == "pods" {
            let selector = request.parameter("fieldSelector");
            let others = "spec.nodeName!=a,status.phase!=Succeeded,status.phase!=Failed";
            assert!(
                selector == "spec.nodeName=a" || selector == others,
                "{selector}"
            );
        }
    }
}

#[test]
fn a_watch_that_is_cut_goes_on_where_it_was() {
    for cut_in_a_line in [false, true] {
        let world = World::small();
        let lists = world.lists("pods");
        world.api.set_faults(Faults {
            cut_in_a_line,
            ..Faults::default()
        });
        world.api.cut_watches();
        world.api.apply(&pod("new-0", "b", "10.0.0.3", "new"));
        world.until_named("10.0.0.3", "new");
        assert_eq!(world.lists("pods"), lists, "nothing is listed again");
        assert!(world.health().is_synced());
    }
}

#[test]
fn history_that_is_gone_is_listed_again_and_a_bookmark_saves_that() {
    let world = World::small();
    let lists = world.lists("pods");
    // Nothing of ours changes, but the world goes on.
    for number in 0..10 {
        world.api.apply(&namespace(&format!("n{number}")));
    }
    world.api.bookmark();
    world.api.compact();
    world.api.cut_watches();
    world.api.apply(&pod("new-0", "b", "10.0.0.3", "new"));
    world.until_named("10.0.0.3", "new");
    assert_eq!(world.lists("pods"), lists);
    assert_eq!(world.failures("remote_pods", "expired"), 0);

    let gone = pod("cart-0", "b", "10.0.0.2", "cart");
    world.api.set_faults(Faults {
        down: true,
        ..Faults::default()
    });
    world.api.cut_watches();
    std::thread::sleep(Duration::from_millis(200));
    world.api.delete(&gone);
    world.api.compact();
    world.api.set_faults(Faults::default());
    world.until("it is listed again", |world| {
        world.cluster.index().namespaces()["shop"].0 == 2
    });
    assert!(world.failures("remote_pods", "expired") > 0);
    world.until("it is forgotten", |world| {
        world.name("10.0.0.2") == "Nobody"
    });
    assert_eq!(world.name("10.0.0.3"), "new");
}

#[test]
fn what_is_forbidden_is_said_and_the_rest_goes_on() {
    for (code, reason) in [(401, "unauthorized"), (403, "forbidden")] {
        let api = FakeApi::start();
        api.apply(&node("a", "z1", "192.0.2.1"));
        api.apply(&pod("cart-0", "b", "10.0.0.2", "cart"));
        api.set_faults(Faults {
            refused: [("services".to_owned(), code)].into(),
            ..Faults::default()
        });
        let world = World::new(api);
        world.follow();
        world.until_named("10.0.0.2", "cart");
        world.until("it is said", |world| world.failures("services", reason) > 0);
        world.until("it is partial", |world| world.health().state == "partial");
        let health = world.health();
        let said = health.reason.unwrap();
        assert!(
            said.starts_with("services: ") && said.contains("the fake says"),
            "{said}"
        );

        assert_eq!(missing(&world), ["list services", "watch services"]);

        world.api.set_faults(Faults::default());
        world.until("all is well", |world| world.health().is_synced());
    }
}

/// As `doctor` finds it.
fn missing(world: &World) -> Vec<String> {
    let missing = world.runtime.block_on(probe(&world.settings)).unwrap();
    let named = missing
        .iter()
        .map(|it| format!("{} {}", it.verb, it.resource));
    named.collect()
}

#[test]
fn a_watch_that_is_refused_is_missed_though_all_can_be_listed() {
    let world = World::small();
    assert_eq!(missing(&world), [""; 0]);
    world.api.set_faults(Faults {
        refused: [("watch pods".to_owned(), 403)].into(),
        ..Faults::default()
    });
    assert_eq!(missing(&world), ["watch pods"]);
    // Names are as of the list, and that is said.
    world.api.cut_watches();
    world.until("it is lost", |world| world.health().state == "lost");
    world.until("why is said", |world| {
        world.failures("remote_pods", "forbidden") > 0
    });
}

#[test]
fn a_kubeconfig_that_is_not_there_is_told_in_one_sentence() {
    let mut world = World::new(FakeApi::start());
    world.settings.kubeconfig = Some("/nonexistent/kubeconfig".into());
    world.follow();
    world.until("it is said", |world| world.health().reason.is_some());
    let said = world.health().reason.unwrap();
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

#[test]
fn a_list_that_fails_again_and_again_is_tried_ever_less_often() {
    let api = FakeApi::start();
    api.apply(&node("a", "z1", "192.0.2.1"));
    api.set_faults(Faults {
        refused: [("services".to_owned(), 500)].into(),
        ..Faults::default()
    });
    let world = World::new(api);
    world.follow();
    world.until("it is said", |world| {
        world.failures("services", "refused") > 0
    });
    // Pauses of at least 0.8, 1.6, 3.2 and 6.4 s: the fifth try is later than this.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        let state = world.health().state;
        let is_said = matches!(state, "unavailable" | "partial");
        assert!(is_said, "also while it tries: {state}");
        std::thread::sleep(Duration::from_millis(1));
    }
    let lists = world.lists("services");
    assert!((2..=4).contains(&lists), "{lists} tries");
}

#[test]
fn while_the_server_is_away_names_stay_and_that_is_said() {
    let world = World::small();
    world.api.set_faults(Faults {
        down: true,
        ..Faults::default()
    });
    world.api.cut_watches();
    world.until("it is lost", |world| world.health().state == "lost");
    // One watch is enough to be lost; the others notice in their own time.
    world.until("pods are lost too", |world| {
        world.failures("remote_pods", "unreachable") > 0
    });
    assert_eq!(world.name("10.0.0.2"), "cart");
    world.api.set_faults(Faults::default());
    world.api.apply(&pod("new-0", "b", "10.0.0.3", "new"));
    world.until_named("10.0.0.3", "new");
}

#[test]
fn a_node_that_is_called_otherwise_is_noticed() {
    let api = FakeApi::start();
    api.apply(&node("b", "z2", "192.0.2.2"));
    let world = World::new(api);
    world.follow();
    world.until("it is noticed", |world| world.health().state == "lost");
    let reason = world.health().reason.unwrap();
    assert!(reason.contains("no node is called `a`"), "{reason}");
}

#[test]
fn ten_thousand_pods_come_in_pages_even_from_a_slow_server() {
    let api = FakeApi::start();
    api.apply(&node("a", "z1", "192.0.2.1"));
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let address = format!("10.1.{high}.{low}");
        let deployment = format!("d{}", number / 10);
        api.apply(&pod(&format!("p-{number}"), "b", &address, &deployment));
    }
    api.set_faults(Faults {
        slow: Duration::from_millis(20),
        ..Faults::default()
    });
    let world = World::new(api);
    world.follow();
    world.until("all is listed", |world| world.health().is_synced());
    assert_eq!(world.lists("pods"), 41);
    assert_eq!(world.name("10.1.39.15"), "d999");
    assert_eq!(world.cluster.index().workloads().len(), 1000);
}

/// By name, of those that the watch's metadata cast doubt on.
fn looks(world: &World) -> Vec<String> {
    let requests = world.api.requests();
    let lists = requests.iter().filter(|it| it.resource == "nodes");
    let names = lists.filter_map(|it| it.parameter("fieldSelector").strip_prefix("metadata.name="));
    names.map(str::to_owned).collect()
}

#[test]
fn nodes_are_followed_by_their_metadata_and_looked_at_when_that_changes() {
    let world = World::small();
    // As every kubelet does every few minutes.
    let mut healthy = node("b", "z2", "192.0.2.2");
    healthy["status"]["conditions"] =
        serde_json::json!([{"type": "Ready", "lastHeartbeatTime": "2026-11-20T03:10:00Z"}]);
    world.api.apply(&healthy);
    // Later, so that the first was heard of.
    world.api.apply(&node("c", "z1", "192.0.2.3"));
    world.until_named("192.0.2.3", "~node");
    assert_eq!(looks(&world), ["c"]);

    let mut moved = node("b", "z2", "192.0.2.9");
    moved["metadata"]["annotations"] = serde_json::json!({"plugin.example/address": "192.0.2.9"});
    world.api.apply(&moved);
    world.until_named("192.0.2.9", "~node");
    assert_eq!(world.name("192.0.2.2"), "Nobody");
    world.api.delete(&moved);
    world.until_named("192.0.2.9", "Nobody");
    assert_eq!(looks(&world), ["c", "b"]);
    assert_eq!(world.lists("nodes"), 3, "listed once as a whole");
}
