//! The program itself: namespaces play pods, and what is exported has the names of Kubernetes.
//! These need root.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use runwire_collector::host::cgroup::cgroup2_mount;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::{FakeApi, Faults};
use super::objects::{endpoint_slice, namespace, node, pod, service};
use crate::kernel::lab::{Lab, run};
use crate::running::collector::{Collector, command, stdout};

/// A cluster with the node `a`, which this host is, and the configuration that tells of it.
struct Cluster {
    api: FakeApi,
    config: String,
    directory: TempDir,
}

impl Cluster {
    fn new() -> Self {
        let api = FakeApi::start();
        api.apply(&node("a", "z1", "192.0.2.1"));
        api.apply(&namespace("shop"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        fs::write(&path, api.kubeconfig()).unwrap();
        let config = format!(
            "kubeconfig: {}\nnode_name: a\nkubernetes_app_labels: on\n",
            path.display()
        );
        Self {
            api,
            config,
            directory,
        }
    }

    fn start(&self) -> Collector {
        let mut collector = Collector::start(&self.config);
        collector.eventually("Kubernetes is listed", |collector| {
            (readyz(collector)["kubernetes"]["state"] == "synced").then_some(())
        });
        collector
    }
}

fn readyz(collector: &Collector) -> Value {
    serde_json::from_str(&collector.get("/readyz").1).unwrap()
}

/// `namespace/kind/name` of both ends.
fn attempts(src: &str, dst: &str, service: &str) -> String {
    let end = |prefix: &str, text: &str| {
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, kind, name] = parts[..] else {
            panic!("{text}");
        };
        format!(
            "{prefix}_namespace=\"{namespace}\",{prefix}_workload=\"{name}\",{prefix}_kind=\"{kind}\""
        )
    };
    let service = match service {
        "" => String::new(),
        service => format!(",dst_service=\"{service}\""),
    };
    let (src, dst) = (end("src", src), end("dst", dst));
    format!("tcp_connect_attempts_total{{{src},{dst}{service}}}")
}

fn expect(collector: &mut Collector, series: &str, value: f64) {
    collector.eventually(series, |collector| {
        (collector.metric(series) == value).then_some(())
    });
}

fn listen(lab: &Lab, address: IpAddr) -> SocketAddr {
    let listener = lab.in_server(|| TcpListener::bind((address, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.read(&mut [0; 16]));
        }
    });
    address
}

fn connect(lab: &Lab, address: SocketAddr) {
    lab.in_client(|| {
        TcpStream::connect(address)
            .unwrap()
            .write_all(b"hello")
            .unwrap()
    });
}

#[test]
#[ignore = "loads BPF: needs root"]
fn namespaces_that_play_pods_have_the_names_of_kubernetes() {
    let (lab, cluster) = (Lab::new(), Cluster::new());
    let (client, server) = (lab.client4.to_string(), lab.server4.to_string());
    cluster.api.apply(&pod("web-0", "a", &client, "web"));
    cluster.api.apply(&pod("cart-0", "a", &server, "cart"));
    cluster
        .api
        .apply(&pod("far-0", "b", &lab.nobody4.to_string(), "far"));
    let mut collector = cluster.start();

    // A pod here, by IPv4, and by an address that the API does not know of.
    connect(&lab, listen(&lab, lab.server4));
    connect(&lab, listen(&lab, lab.server6));
    let here = attempts("shop/deployment/web", "shop/deployment/cart", "");
    expect(&mut collector, &here, 2.0);
    let received = "tcp_bytes_received_total{src_namespace=\"shop\",src_workload=\"web\",src_kind=\"deployment\",\
                    dst_namespace=\"shop\",dst_workload=\"cart\",dst_kind=\"deployment\"}";
    expect(&mut collector, received, 10.0);
    // What is read of a namespace as a whole is its pod's too.
    let owner = "namespace=\"shop\",workload=\"web\",kind=\"deployment\"";
    expect(
        &mut collector,
        &format!("interface_up{{{owner},interface=\"eth0\"}}"),
        1.0,
    );
    let labels = format!("workload_labels{{{owner},name=\"web\"}}");
    expect(&mut collector, &labels, 1.0);
    expect(&mut collector, "kubernetes_pods{namespace=\"shop\"}", 3.0);

    // A pod on another node, and somebody outside. Nobody answers.
    run(&format!(
        "ip -n {} route add 198.51.100.7 dev eth0",
        lab.client
    ));
    for address in [lab.nobody4, "198.51.100.7".parse().unwrap()] {
        let wait = std::time::Duration::from_millis(50);
        let _ = lab.in_client(|| TcpStream::connect_timeout(&(address, 80).into(), wait));
    }
    let far = attempts("shop/deployment/web", "shop/deployment/far", "");
    expect(&mut collector, &far, 1.0);
    let outside = attempts("shop/deployment/web", "~external/external/~external", "");
    expect(&mut collector, &outside, 1.0);

    // Another pod takes the place of the first.
    cluster.api.delete(&pod("web-0", "a", &client, "web"));
    cluster.api.apply(&pod("next-0", "a", &client, "next"));
    let info = "workload_info{namespace=\"shop\",workload=\"next\",kind=\"deployment\"}";
    expect(&mut collector, info, 1.0);
    connect(&lab, listen(&lab, lab.server4));
    let next = attempts("shop/deployment/next", "shop/deployment/cart", "");
    expect(&mut collector, &next, 1.0);
    assert_eq!(collector.metric(&here), 2.0);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_services_address_is_its_backend_and_its_name() {
    let (lab, cluster) = (Lab::new(), Cluster::new());
    let (client, server) = (lab.client4.to_string(), lab.server4.to_string());
    cluster.api.apply(&pod("web-0", "a", &client, "web"));
    cluster.api.apply(&pod("cart-0", "a", &server, "cart"));
    cluster.api.apply(&service("cart", "10.96.0.7"));
    cluster.api.apply(&service("empty", "10.96.0.8"));
    cluster.api.apply(&endpoint_slice("cart", &server));
    let mut collector = cluster.start();
    // Nobody translates: what the endpoints say is all that is known.
    for address in ["10.96.0.7", "10.96.0.8"] {
        run(&format!(
            "ip -n {} route add {address} dev eth0",
            lab.client
        ));
        let wait = std::time::Duration::from_millis(50);
        let address: IpAddr = address.parse().unwrap();
        let _ = lab.in_client(|| TcpStream::connect_timeout(&(address, 80).into(), wait));
    }
    let cart = attempts("shop/deployment/web", "shop/deployment/cart", "cart");
    expect(&mut collector, &cart, 1.0);
    let empty = attempts("shop/deployment/web", "shop/service/empty", "empty");
    expect(&mut collector, &empty, 1.0);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn traffic_between_zones_is_counted_once() {
    let (lab, cluster) = (Lab::new(), Cluster::new());
    cluster.api.apply(&node("b", "z2", "192.0.2.2"));
    let (client, server) = (lab.client4.to_string(), lab.server4.to_string());
    // Both ends are here, but the API says that the client is elsewhere.
    cluster.api.apply(&pod("web-0", "b", &client, "web"));
    cluster.api.apply(&pod("cart-0", "a", &server, "cart"));
    let mut collector = cluster.start();
    connect(&lab, listen(&lab, lab.server4));
    let across = "tcp_zone_bytes_total{src_zone=\"z2\",dst_zone=\"z1\",crossing=\"true\"}";
    expect(&mut collector, across, 5.0);
    assert_eq!(collector.metric("tcp_zone_bytes_total"), 5.0);
    let info = "kubernetes_node_info{node=\"a\",zone=\"z1\"}";
    assert_eq!(collector.metric(info), 1.0);
    let (_, rows) = collector.get(&format!("/api/flows?src={client}"));
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let zones = (
        &rows[0]["src_zone"],
        &rows[0]["dst_zone"],
        &rows[0]["crosses_zones"],
    );
    assert_eq!(zones, (&json!("z2"), &json!("z1"), &json!(true)), "{rows}");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_pod_in_the_hosts_network_is_known_by_its_cgroup() {
    let cluster = Cluster::new();
    let uid = format!("0f6ab4c5-3c6c-4a53-b5b1-{:012x}", std::process::id());
    let mut agent = pod("agent-0", "a", "192.0.2.1", "agent");
    agent["metadata"]["uid"] = json!(uid);
    agent["spec"]["hostNetwork"] = json!(true);
    cluster.api.apply(&agent);
    let Some(cgroup) = Cgroup::new(&uid) else {
        return;
    };
    let mut collector = cluster.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let procs = cgroup.path.join("cgroup.procs");
    let script = format!(
        "echo $$ > {}; exec 3<>/dev/tcp/127.0.0.1/{port}",
        procs.display()
    );
    let connected = Command::new("bash").args(["-c", &script]).status().unwrap();
    assert!(connected.success());
    let series = attempts("shop/deployment/agent", "host/host/~host", "");
    expect(&mut collector, &series, 1.0);
}

/// As the kubelet and containerd make one for a container of a pod.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    #[expect(clippy::print_stderr, reason = "who runs the tests must see this")]
    fn new(uid: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = cgroup2_mount(&mounts)?;
        let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
        let path = path
            .join(slice)
            .join(format!("cri-containerd-{}.scope", "5e".repeat(32)));
        if let Err(error) = fs::create_dir_all(&path) {
            eprintln!("skipped: {error}");
            return None;
        }
        Some(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in [Some(self.path.as_path()), self.path.parent()]
            .into_iter()
            .flatten()
        {
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
#[ignore = "loads BPF: needs root"]
fn without_its_api_the_collector_runs_on_and_says_so() {
    let (lab, cluster) = (Lab::new(), Cluster::new());
    let client = lab.client4.to_string();
    cluster.api.apply(&pod("web-0", "a", &client, "web"));
    cluster.api.set_faults(Faults {
        refused: [("*".to_owned(), 403)].into(),
        ..Faults::default()
    });
    let mut collector = Collector::start(&cluster.config);
    collector.eventually("it says so", |collector| {
        let ready = readyz(collector);
        let kubernetes = &ready["kubernetes"];
        (ready["status"] == "degraded" && kubernetes["state"] == "unavailable").then_some(())
    });
    assert!(
        collector.metric(
            "kubernetes_watch_failures_total{resource=\"local_pods\",reason=\"forbidden\"}"
        ) > 0.0
    );
    assert_eq!(
        collector.metric("kubernetes_watch_synced{resource=\"local_pods\"}"),
        0.0
    );
    let path = cluster.directory.path().join("kubeconfig");
    let doctor = command(
        &["doctor", "--kubeconfig", path.to_str().unwrap()],
        "127.0.0.1:0",
    );
    let said = stdout(&doctor);
    let all = "pods, services, nodes, namespaces, endpointslices, replicasets, jobs";
    let sentence = format!(
        "{all} cannot be listed; {all} cannot be watched: the fake says Forbidden (403); give"
    );
    assert!(said.contains(&sentence), "{said}");

    // What is local has the name that this host knows; who is elsewhere is not called external.
    run(&format!(
        "ip -n {} route add 198.51.100.7 dev eth0",
        lab.client
    ));
    let wait = std::time::Duration::from_millis(50);
    let _ = lab.in_client(|| TcpStream::connect_timeout(&([198, 51, 100, 7], 80).into(), wait));
    let own = format!("host/netns/{}", lab.client);
    let series = attempts(&own, "~unknown/unknown/~unknown", "");
    expect(&mut collector, &series, 1.0);
    let reason = "unattributed_total{reason=\"kubernetes_unsynced\"}";
    assert!(collector.metric(reason) > 0.0);

    cluster.api.set_faults(Faults::default());
    collector.eventually("it has names", |collector| {
        let ready = readyz(collector);
        (ready["kubernetes"]["state"] == "synced" && ready["status"] == "ready").then_some(())
    });
    let info = "workload_info{namespace=\"shop\",workload=\"web\",kind=\"deployment\"}";
    expect(&mut collector, info, 1.0);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn ten_thousand_pods_take_little_memory() {
    let cluster = Cluster::new();
    let resident = |collector: &Collector| collector.metric("process_resident_memory_bytes");
    let without = resident(&Collector::start("kubernetes: off"));
    let few = resident(&cluster.start());
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let address = format!("10.1.{high}.{low}");
        let deployment = format!("deployment-{}", number / 10);
        let node = format!("node-{}", number / 50);
        let name = format!("{deployment}-7d9c-{number}");
        cluster.api.apply(&pod(&name, &node, &address, &deployment));
    }
    let collector = cluster.start();
    assert_eq!(
        collector.metric("kubernetes_pods{namespace=\"shop\"}"),
        10_000.0
    );
    let many = resident(&collector);
    let [without, few, many] = [without, few, many].map(|bytes| bytes / f64::from(1 << 20));
    #[expect(clippy::print_stdout, reason = "a figure for who runs the tests")]
    {
        println!(
            "MiB: {without:.1} without Kubernetes, {few:.1} with it, {many:.1} with 10,000 pods"
        );
    }
    assert!(many - few < 32.0, "{few} MiB, then {many}");
}
