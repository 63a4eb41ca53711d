//! What is read from the kernel equals what `nstat`, `conntrack`, `ip` and `tc` print.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use runwire_collector::enrich::Enricher;
use runwire_collector::export::{Format, Registry};
use runwire_collector::host::{Host, HostVeths, Paths, ReadingSettings, Readings};
use serde_json::Value;

use crate::kernel::lab::{Lab, run};
use crate::kernel::measure::has_label;

/// Everything that is read, of all namespaces.
pub(crate) struct Reader {
    pub(crate) registry: Registry,
    enricher: Enricher,
    readings: Readings,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let registry = Registry::new(100_000);
        let settings = ReadingSettings {
            off: Vec::new(),
            host_veths: HostVeths::Off,
        };
        Self {
            enricher: Enricher::of_host(Host::new(Paths::default()), &registry),
            readings: Readings::new(&registry, &settings),
            registry,
        }
    }

    pub(crate) fn collect(&mut self) {
        self.enricher.refresh();
        self.readings.collect(&self.enricher);
    }

    /// Series of a metric and a namespace: the labels after those, and the value.
    pub(crate) fn series(&self, metric: &str, namespace: &str) -> Vec<(String, u64)> {
        let start = format!("runwire_{metric}{{");
        let text = self.registry.encode(Format::Text, None);
        (text.lines())
            .filter_map(|line| line.strip_prefix(&start)?.rsplit_once("} "))
            .filter(|(labels, _)| has_label(labels, "workload", namespace))
            .map(|(labels, value)| {
                let value: f64 = value.parse().expect("values are numbers");
                (labels.to_owned(), value as u64)
            })
            .collect()
    }

    /// The value of one series; 0 if it is not there.
    pub(crate) fn value(&self, metric: &str, namespace: &str, labels: &[(&str, &str)]) -> u64 {
        (self.series(metric, namespace).iter())
            .filter(|(series, _)| {
                labels
                    .iter()
                    .all(|(name, value)| has_label(series, name, value))
            })
            .map(|(_, value)| value)
            .sum()
    }
}

fn send(lab: &Lab, address: IpAddr, port: u16, packets: usize, size: usize) {
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    lab.in_client(|| {
        let socket = UdpSocket::bind(any).unwrap();
        for _ in 0..packets {
            // Refused now and then, because nobody listens.
            let _ = socket.send_to(&vec![7; size], (address, port));
        }
    });
}

fn python(namespace: &str, script: &str) {
    let arguments = ["netns", "exec", namespace, "python3", "-c", script];
    let output = Command::new("ip").args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

fn json(line: &str) -> Value {
    serde_json::from_str(&run(line)).expect("JSON")
}

/// What is shown both before and after `work`: IPv6 sends messages of its own, and queues drain.
fn unchanged(show: impl Fn() -> Value, mut work: impl FnMut()) -> Value {
    loop {
        let before = show();
        work();
        let after = show();
        if before == after {
            return after;
        }
    }
}

fn nstat(namespace: &str) -> BTreeMap<String, u64> {
    let text = run(&format!("ip netns exec {namespace} nstat -asz"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn counters_of_fragments_and_routes_are_those_of_nstat() {
    let lab = Lab::new();
    let (client, server) = (&lab.client, &lab.server);
    run(&format!(
        "ip netns exec {server} sysctl -qw net.ipv4.ipfrag_time=1 net.ipv6.ip6frag_time=1 \
         net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1"
    ));
    // First fragments without a second, a packet from where no route leads back, and one that is
    // too large for a link and must not be cut.
    python(
        client,
        &format!(
            "import socket, struct\n\
             raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n\
             pack = socket.inet_aton\n\
             def header(source, flags): return struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 7, flags, 64, 17, 0, pack(source), pack('{four}'))\n\
             for i in range(3): raw.sendto(header('{own}', 0x2000) + bytes(8), ('{four}', 0))\n\
             for i in range(5): raw.sendto(header('203.0.113.9', 0) + struct.pack('!HHHH', 1, 9, 8, 0), ('{four}', 0))\n\
             raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 44)\n\
             for i in range(4): raw.sendto(struct.pack('!BBHI', 17, 0, 1, i) + bytes(8), ('{six}', 0))\n",
            own = lab.client4,
            four = lab.server4,
            six = lab.server6,
        ),
    );
    run(&format!("ip -n {client} link set eth0 mtu 1280"));
    python(
        client,
        &format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.IPPROTO_IP, 10, 0)\n\
             [s.sendto(bytes(3000), ('{}', 9)) for i in range(6)]\n",
            lab.server4
        ),
    );
    // Fragments are given up after a second.
    sleep(Duration::from_millis(2500));

    let mut reader = Reader::new();
    reader.collect();
    reader.collect();
    for namespace in [client, server] {
        let kernel = nstat(namespace);
        let series = reader.series("netns_mib_total", namespace);
        assert!(series.len() > 5, "{series:?}");
        for (labels, value) in series {
            let counter = labels
                .rsplit_once("counter=\"")
                .unwrap()
                .1
                .trim_end_matches('"');
            assert_eq!(kernel.get(counter), Some(&value), "{namespace} {counter}");
        }
    }
    let of = |namespace: &str, counter: &str| {
        reader.value("netns_mib_total", namespace, &[("counter", counter)])
    };
    assert_eq!(of(server, "Ip6ReasmFails"), 4);
    assert_eq!(of(server, "Ip6ReasmTimeout"), 4);
    assert_eq!(
        of(server, "IpReasmTimeout"),
        1,
        "three times the same fragment"
    );
    assert_eq!(of(server, "TcpExtIPReversePathFilter"), 5);
    assert_eq!(of(client, "IpFragOKs"), 6);
    assert_eq!(of(client, "IpFragCreates"), 18);
    assert_eq!(of(server, "IpReasmOKs"), 6);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn conntrack_is_that_of_conntrack() {
    let lab = Lab::new();
    let server = &lab.server;
    let nft = |rule: &str| run(&format!("ip netns exec {server} nft {rule}"));
    nft("add table inet t");
    nft("add chain inet t in { type filter hook input priority 0 ; }");
    nft("add rule inet t in ct state invalid counter drop");
    for address in [lab.server4, lab.server6] {
        send(&lab, address, 4000, 11, 10);
        for _ in 0..3 {
            send(&lab, address, 4001, 2, 10);
        }
    }
    // Segments of no connection, with a wrong checksum.
    let script = "import socket\n\
        for family, address in ((socket.AF_INET, 'FOUR'), (socket.AF_INET6, 'SIX')):\n  \
          raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)\n  \
          for i in range(7): raw.sendto(bytes([0, 9, 0, 9]) + bytes(8) + bytes([0x50, 0x10, 0, 9, 1, 2, 0, 0]), (address, 0))";
    let script = script.replace("FOUR", &lab.server4.to_string());
    python(
        &lab.client,
        &script.replace("SIX", &lab.server6.to_string()),
    );

    let mut reader = Reader::new();
    reader.collect();
    let mut kernel = BTreeMap::<String, u64>::new();
    let statistics = run(&format!("ip netns exec {server} conntrack -S"));
    for (event, value) in statistics
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        if event != "cpu" {
            *kernel.entry(event.to_owned()).or_default() += value.parse::<u64>().unwrap();
        }
    }
    assert!(kernel["invalid"] >= 14, "{statistics}");
    for (event, value) in &kernel {
        let ours = reader.value("conntrack_events_total", server, &[("event", event)]);
        assert_eq!(ours, *value, "{event}: {statistics}");
    }
    let entries = run(&format!("ip netns exec {server} conntrack -C"));
    let entries: u64 = entries.trim().parse().unwrap();
    assert!(entries >= 8, "{entries}");
    assert_eq!(reader.value("conntrack_entries", server, &[]), entries);
    let limit = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    assert_eq!(reader.value("conntrack_limit", server, &[]), limit);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn interfaces_are_those_of_ip_link() {
    let lab = Lab::new();
    let (client, server) = (&lab.client, &lab.server);
    run(&format!("ip -n {server} link add br0 mtu 1400 type bridge"));
    run(&format!("ip -n {server} link set br0 up"));
    for address in [lab.server4, lab.server6] {
        send(&lab, address, 4000, 25, 700);
    }
    let mut reader = Reader::new();
    let mut check = |interface: &str, namespace: &str| {
        let show = || {
            json(&format!(
                "ip -n {namespace} -s -j link show dev {interface}"
            ))
        };
        let link = &unchanged(show, || reader.collect())[0];
        for (direction, ip) in [("receive", "rx"), ("transmit", "tx")] {
            let labels = [("interface", interface), ("direction", direction)];
            for (metric, key) in [
                ("interface_bytes_total", "bytes"),
                ("interface_packets_total", "packets"),
                ("interface_dropped_packets_total", "dropped"),
                ("interface_errors_total", "errors"),
            ] {
                let kernel = link["stats64"][ip][key].as_u64().unwrap();
                let ours = reader.value(metric, namespace, &labels);
                assert_eq!(ours, kernel, "{metric} {direction}: {link}");
            }
        }
        let labels = [("interface", interface)];
        let mtu = reader.value("interface_mtu_bytes", namespace, &labels);
        assert_eq!(mtu, link["mtu"].as_u64().unwrap());
        (
            reader.value("interface_up", namespace, &labels),
            reader.value("interface_carrier_changes_total", namespace, &labels),
            reader.value("interface_speed_bytes", namespace, &labels),
        )
    };
    // What a veth says that it can.
    let ten_gigabits = 1_250_000_000;
    // The two changes that `ip` shows of a new veth are no flap.
    assert_eq!(check("eth0", client), (1, 0, ten_gigabits));
    // Too large for the other end, which drops it.
    run(&format!("ip -n {server} link set eth0 mtu 1300"));
    send(&lab, lab.server4, 4000, 9, 1440);
    check("eth0", server);
    check("br0", server);
    run(&format!("ip -n {server} link set eth0 down"));
    assert_eq!(check("eth0", client).0, 0);
    run(&format!("ip -n {server} link set eth0 up"));
    let (up, changes, _) = check("eth0", client);
    assert_eq!((up, changes), (1, 2));

    // A new name is another interface, and one that goes takes its series along.
    run(&format!("ip -n {server} link set br0 down"));
    run(&format!("ip -n {server} link set br0 name br7"));
    run(&format!("ip -n {server} link set br7 up"));
    check("br7", server);
    let named = |reader: &Reader, name: &str| {
        let text = reader.registry.encode(Format::Text, None);
        (text.lines())
            .filter(|line| line.contains(server) && has_label(line, "interface", name))
            .count()
    };
    assert_eq!(named(&reader, "br0"), 0);
    run(&format!("ip -n {server} link delete br7"));
    reader.collect();
    assert_eq!(named(&reader, "br7"), 0);
    assert!(named(&reader, "eth0") > 0);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn queues_are_those_of_tc() {
    let lab = Lab::new();
    let client = &lab.client;
    let tc = |arguments: &str| run(&format!("ip netns exec {client} tc {arguments}"));
    // The first holds what the second would drop, and both count it.
    for shaper in ["tbf rate 16kbit burst 3000 limit 9000", "htb default 1"] {
        tc(&format!("qdisc add dev eth0 root handle 1: {shaper}"));
        if shaper.starts_with("htb") {
            tc("class add dev eth0 parent 1: classid 1:1 htb rate 16kbit burst 2000");
            tc("qdisc add dev eth0 parent 1:1 pfifo limit 6");
        }
        for address in [lab.server4, lab.server6] {
            send(&lab, address, 4000, 20, 1000);
        }
        let mut reader = Reader::new();
        let show = || json(&format!("tc -n {client} -s -j qdisc show dev eth0"));
        let kernel = unchanged(show, || reader.collect())[0].clone();
        let kind = kernel["kind"].as_str().unwrap().to_owned();
        assert!(shaper.starts_with(&kind), "{kernel}");
        for (metric, key) in [
            ("qdisc_dropped_packets_total", "drops"),
            ("qdisc_overlimits_total", "overlimits"),
            ("qdisc_requeues_total", "requeues"),
            ("qdisc_backlog_bytes", "backlog"),
            ("qdisc_backlog_packets", "qlen"),
        ] {
            let ours = reader.value(metric, client, &[("interface", "eth0")]);
            assert_eq!(Some(ours), kernel[key].as_u64(), "{metric}: {kernel}");
        }
        assert!(kernel["drops"].as_u64() > Some(20), "{kernel}");
        assert!(kernel["backlog"].as_u64() > Some(1000), "{kernel}");
        tc("qdisc delete dev eth0 root");
        reader.collect();
        assert_eq!(reader.series("qdisc_dropped_packets_total", client), []);
    }
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn sockets_memory_and_settings_are_those_of_proc() {
    let lab = Lab::new();
    let server = &lab.server;
    run(&format!(
        "ip netns exec {server} sysctl -qw net.core.somaxconn=77 net.ipv4.tcp_max_tw_buckets=99"
    ));
    python(
        server,
        "open('/proc/sys/net/ipv4/ip_local_port_range','w').write('40000 40999')",
    );
    let _open = lab.in_server(|| {
        (
            std::net::TcpListener::bind((lab.server4, 0)).unwrap(),
            std::net::TcpListener::bind((lab.server6, 0)).unwrap(),
            UdpSocket::bind((lab.server6, 0)).unwrap(),
        )
    });
    let mut reader = Reader::new();
    reader.collect();
    let in_use = |family: &str, protocol: &str| {
        reader.value(
            "sockets_in_use",
            server,
            &[("family", family), ("protocol", protocol)],
        )
    };
    assert_eq!(
        [
            in_use("ipv4", "tcp"),
            in_use("ipv6", "tcp"),
            in_use("ipv6", "udp")
        ],
        [1, 1, 1]
    );
    assert_eq!(in_use("ipv4", "udp"), 0);
    let setting = |name: &str| reader.value("netns_setting", server, &[("setting", name)]);
    assert_eq!(setting("somaxconn"), 77);
    assert_eq!(setting("tcp_max_tw_buckets"), 99);
    assert_eq!(setting("local_ports"), 1000);
    assert_eq!(
        reader.series("netns_setting", &lab.client),
        [],
        "nothing is open there"
    );

    let text = reader.registry.encode(Format::Text, None);
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap();
    let limit: u64 = limit
        .split_ascii_whitespace()
        .nth(2)
        .unwrap()
        .parse()
        .unwrap();
    let line = format!(
        "runwire_socket_memory_limit_bytes{{protocol=\"tcp\",limit=\"maximum\"}} {}\n",
        limit * 4096
    );
    assert!(text.contains(&line), "{line}");
    assert!(text.contains("runwire_socket_memory_bytes{protocol=\"tcp\"} "));
    assert!(text.contains("runwire_softnet_time_squeezes_total "));
}
