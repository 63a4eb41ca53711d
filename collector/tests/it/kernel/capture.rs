//! Packet capture against the traffic generator, the sockets' counters and the interfaces' own.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use runwire_collector::capture::{CaptureMode, CaptureSettings};
use runwire_collector::signals::{NAMES, SignalSettings};

use super::lab::{Lab, in_namespace, run};
use super::measure::Measurement;

/// A namespace with some veths, each to a namespace of its own.
pub(crate) struct Node {
    unique: String,
    pub(crate) name: String,
    number: u32,
    peers: Vec<String>,
}

/// A veth of the node, and what is at its other end.
#[derive(Clone)]
pub(crate) struct Veth {
    pub(crate) interface: String,
    pub(crate) peer: String,
    pub(crate) node4: IpAddr,
    pub(crate) node6: IpAddr,
    pub(crate) peer4: IpAddr,
    pub(crate) peer6: IpAddr,
}

impl Node {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 16 + COUNT.fetch_add(1, Ordering::Relaxed);
        // No longer than an interface's name may be, with a letter and a digit after it.
        let unique = format!("rc{number:07x}");
        let node = Self {
            name: format!("{unique}n"),
            unique,
            number,
            peers: Vec::new(),
        };
        make_namespace(&node.name);
        node
    }

    /// Interfaces of this node begin with this, and no others.
    pub(crate) fn prefix(&self) -> &str {
        &self.unique
    }

    /// `letter` makes the name of the interface.
    pub(crate) fn add_veth(&mut self, letter: char) -> Veth {
        let at = u16::try_from(self.peers.len()).unwrap();
        let peer = format!("{}p{at}", self.unique);
        make_namespace(&peer);
        self.peers.push(peer.clone());
        let [_, _, high, low] = self.number.to_be_bytes();
        let four = |end: u16| IpAddr::from([10, high, low, (at * 4 + end) as u8]);
        let network = u16::from_be_bytes([high, low]);
        let six = |end| IpAddr::from([0xfd92, network, at, 0, 0, 0, 0, end]);
        let veth = Veth {
            interface: format!("{}{letter}", self.unique),
            peer,
            node4: four(1),
            node6: six(1),
            peer4: four(2),
            peer6: six(2),
        };
        let (node, interface, peer) = (&self.name, &veth.interface, &veth.peer);
        run(&format!(
            "ip -n {node} link add {interface} type veth peer name eth0 netns {peer}"
        ));
        for (namespace, device, four, six) in [
            (node, interface.as_str(), veth.node4, veth.node6),
            (peer, "eth0", veth.peer4, veth.peer6),
        ] {
            run(&format!(
                "ip -n {namespace} address add {four}/30 dev {device}"
            ));
            run(&format!(
                "ip -n {namespace} address add {six}/64 dev {device} nodad"
            ));
            run(&format!("ip -n {namespace} link set {device} up"));
        }
        // Until both know each other's hardware address.
        for address in [veth.peer4, veth.peer6] {
            run(&format!("ip netns exec {node} ping -q -c 1 -w 5 {address}"));
        }
        veth
    }

    pub(crate) fn settings(&self, mode: CaptureMode, globs: &str) -> SignalSettings {
        SignalSettings {
            capture: CaptureSettings {
                mode,
                interfaces: globs.replace('@', &self.unique).parse().unwrap(),
                ..CaptureSettings::default()
            },
            ..SignalSettings::default()
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for name in self.peers.iter().chain([&self.name]) {
            let _ = std::process::Command::new("ip")
                .args(["netns", "delete", name])
                .output();
        }
    }
}

fn make_namespace(name: &str) {
    run(&format!("ip netns add {name}"));
    run(&format!("ip -n {name} link set lo up"));
}

/// Sends datagrams from one namespace to an address in another, which counts those that came.
pub(crate) fn send_datagrams(
    (from, to): (&str, &str),
    address: IpAddr,
    sizes: &[usize],
    count: usize,
) -> usize {
    let receiver = in_namespace(to, || UdpSocket::bind((address, 0)).unwrap());
    let target = receiver.local_addr().unwrap();
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let sender = in_namespace(from, || UdpSocket::bind(any).unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut received = 0;
    let mut buffer = [0; 65_536];
    for &size in sizes {
        for _ in 0..count {
            sender.send_to(&vec![0; size], target).unwrap();
            received += usize::from(receiver.recv(&mut buffer).is_ok());
        }
    }
    received
}

/// Sends a stream from one namespace to an address in another.
fn send_stream((from, to): (&str, &str), address: IpAddr, megabytes: usize) {
    use std::io::{Read as _, Write as _};
    let listener = in_namespace(to, || TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer).unwrap() > 0 {}
        });
        let mut stream = in_namespace(from, || std::net::TcpStream::connect(target).unwrap());
        let megabyte = vec![0; 1 << 20];
        for _ in 0..megabytes {
            stream.write_all(&megabyte).unwrap();
        }
    });
    // The last acknowledgements.
    thread::sleep(Duration::from_millis(300));
}

/// Packets and bytes, received and sent, as `ip -s link` shows them.
fn link_counters(namespace: &str, interface: &str) -> [u64; 4] {
    let text = run(&format!(
        "ip -n {namespace} -j -s link show dev {interface}"
    ));
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    [
        ("rx", "packets"),
        ("rx", "bytes"),
        ("tx", "packets"),
        ("tx", "bytes"),
    ]
    .map(|(way, unit)| links[0]["stats64"][way][unit].as_u64().unwrap())
}

/// As [`link_counters`], by our count.
fn captured(measurement: &Measurement, interface: &str) -> [u64; 4] {
    [
        ("packets", "ingress"),
        ("bytes", "ingress"),
        ("packets", "egress"),
        ("bytes", "egress"),
    ]
    .map(|(unit, direction)| {
        let labels = [("interface", interface), ("direction", direction)];
        measurement.count(&format!("capture_{unit}_total"), &labels)
    })
}

fn start(settings: SignalSettings) -> Option<Measurement> {
    let mut measurement = Measurement::start_with("capture", settings)?;
    // Finds the interfaces.
    measurement.collect();
    Some(measurement)
}

#[test]
#[ignore = "needs root"]
fn packets_bytes_and_sizes_are_those_of_the_generator() {
    for mode in [CaptureMode::Tc, CaptureMode::Xdp] {
        let mut node = Node::new();
        let veth = node.add_veth('v');
        let Some(mut measurement) = start(node.settings(mode, "@*")) else {
            return;
        };
        for (ends, four, six) in [
            (
                (node.name.as_str(), veth.peer.as_str()),
                veth.peer4,
                veth.peer6,
            ),
            (
                (veth.peer.as_str(), node.name.as_str()),
                veth.node4,
                veth.node6,
            ),
        ] {
            for address in [four, six] {
                assert_eq!(send_datagrams(ends, address, &[64, 512, 1400], 100), 300);
            }
        }
        run(&format!(
            "ip netns exec {} ping -q -i 0.02 -c 10 {}",
            node.name, veth.peer4
        ));
        measurement.collect();
        let show = measurement.show("capture");
        for direction in ["ingress", "egress"] {
            let seen = mode == CaptureMode::Tc || direction == "ingress";
            let labels = |protocol| {
                [
                    ("workload", node.name.as_str()),
                    ("interface", veth.interface.as_str()),
                    ("direction", direction),
                    ("protocol", protocol),
                ]
            };
            let expect = |metric: &str, labels: &[(&str, &str)], expected: u64| {
                let expected = if seen { expected } else { 0 };
                assert_eq!(
                    measurement.count(metric, labels),
                    expected,
                    "{metric}: {show}"
                );
            };
            expect("capture_packets_total", &labels("udp"), 600);
            expect("capture_packets_total", &labels("icmp"), 10);
            expect("capture_packets_total", &labels("tcp"), 0);
            // Ethernet and IP headers; Ethernet, IPv6 and UDP headers.
            let payload = 100 * (64 + 512 + 1400);
            let bytes = payload + 300 * 42 + payload + 300 * 62;
            expect("capture_bytes_total", &labels("udp"), bytes);
            expect("capture_bytes_total", &labels("icmp"), 10 * 98);
            expect("capture_packet_size_bytes_sum", &labels("udp"), bytes);
            for (bound, count) in [
                ("64.0", 0),
                ("128.0", 200),
                ("512.0", 200),
                ("1024.0", 400),
                ("2048.0", 600),
            ] {
                let labels = [labels("udp").as_slice(), &[("le", bound)]].concat();
                expect("capture_packet_size_bytes_bucket", &labels, count);
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn segments_of_large_buffers_count_one_by_one() {
    for mode in [CaptureMode::Tc, CaptureMode::Xdp] {
        let mut node = Node::new();
        let veth = node.add_veth('v');
        let Some(mut measurement) = start(node.settings(mode, "@*")) else {
            return;
        };
        let ends = (veth.peer.as_str(), node.name.as_str());
        for address in [veth.node4, veth.node6] {
            send_stream(ends, address, 20);
            send_stream(
                (ends.1, ends.0),
                if address.is_ipv4() {
                    veth.peer4
                } else {
                    veth.peer6
                },
                20,
            );
        }
        measurement.collect();
        let show = measurement.show("capture");
        let sent = |namespace: &str| {
            Lab::nstat(namespace, "TcpOutSegs") + Lab::nstat(namespace, "TcpRetransSegs")
        };
        for (direction, namespace) in [("ingress", &veth.peer), ("egress", &node.name)] {
            if mode == CaptureMode::Xdp && direction == "egress" {
                continue;
            }
            let labels = [
                ("interface", veth.interface.as_str()),
                ("direction", direction),
                ("protocol", "tcp"),
            ];
            let packets = measurement.count("capture_packets_total", &labels);
            assert_eq!(packets, sent(namespace), "{mode:?} {direction}: {show}");
            // No segment was larger than the link takes.
            let labels = [labels.as_slice(), &[("le", "2048.0")]].concat();
            let small = measurement.count("capture_packet_size_bytes_bucket", &labels);
            assert_eq!(small, packets, "{show}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn totals_equal_the_interface_s_own() {
    let mut node = Node::new();
    let veth = node.add_veth('v');
    // Then the interface, too, counts what is on the wire and not what the driver is given.
    for (namespace, interface) in [(&node.name, veth.interface.as_str()), (&veth.peer, "eth0")] {
        run(&format!(
            "ip netns exec {namespace} ethtool -K {interface} tso off gso off gro off"
        ));
    }
    for mode in [CaptureMode::Tc, CaptureMode::Xdp] {
        let before = link_counters(&node.name, &veth.interface);
        let Some(mut measurement) = start(node.settings(mode, "@*")) else {
            return;
        };
        let attached = link_counters(&node.name, &veth.interface);
        let ends = (node.name.as_str(), veth.peer.as_str());
        for address in [veth.peer4, veth.peer6] {
            send_stream(ends, address, 10);
            // Fragments, most of them without a UDP header.
            send_datagrams(ends, address, &[1, 3000, 9000], 20);
        }
        for address in [veth.node4, veth.node6] {
            send_stream((ends.1, ends.0), address, 10);
        }
        measurement.collect();
        let after = link_counters(&node.name, &veth.interface);
        let ours = captured(&measurement, &veth.interface);
        let show = measurement.show("capture");
        for (at, &count) in ours.iter().enumerate() {
            if mode == CaptureMode::Xdp && at >= 2 {
                assert_eq!(count, 0, "{show}");
                continue;
            }
            // The interface may have been in use while we attached.
            let theirs = (after[at] - attached[at])..=(after[at] - before[at]);
            assert!(
                theirs.contains(&count),
                "{mode:?} {theirs:?} {count}: {show}"
            );
        }
        let udp = [
            ("interface", veth.interface.as_str()),
            ("direction", "egress"),
            ("protocol", "udp"),
        ];
        let fragments = if mode == CaptureMode::Tc {
            2 * 20 * (1 + 3 + 7)
        } else {
            0
        };
        assert_eq!(
            measurement.count("capture_packets_total", &udp),
            fragments,
            "{show}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn interfaces_that_match_are_followed_and_others_left_alone() {
    let mut node = Node::new();
    let [first, second, other] = ['a', 'b', 'x'].map(|letter| node.add_veth(letter));
    let Some(mut measurement) = start(node.settings(CaptureMode::Tc, "@[a-m],!@m")) else {
        return;
    };
    let ping = |veth: &Veth| {
        run(&format!(
            "ip netns exec {} ping -q -i 0.02 -c 5 {}",
            node.name, veth.peer4
        ));
    };
    let count = |measurement: &Measurement, veth: &Veth| {
        let labels = [
            ("interface", veth.interface.as_str()),
            ("direction", "egress"),
            ("protocol", "icmp"),
        ];
        measurement.count("capture_packets_total", &labels)
    };
    for veth in [&first, &second, &other] {
        ping(veth);
    }
    measurement.collect();
    let counts = [&first, &second, &other].map(|veth| count(&measurement, veth));
    assert_eq!(counts, [5, 5, 0], "{}", measurement.show("capture"));

    // One more, while we run.
    let mut node = node;
    let late = node.add_veth('c');
    let excluded = node.add_veth('m');
    wait_until(&mut measurement, |show| {
        show.contains("runwire_capture_interfaces 3\n")
    });
    for veth in [&late, &excluded] {
        run(&format!(
            "ip netns exec {} ping -q -i 0.02 -c 5 {}",
            node.name, veth.peer4
        ));
    }
    measurement.collect();
    let counts = [&late, &excluded].map(|veth| count(&measurement, veth));
    assert_eq!(counts, [5, 0], "{}", measurement.show("capture"));

    // One goes, one gets another name.
    run(&format!(
        "ip -n {} link delete {}",
        node.name, first.interface
    ));
    let renamed = format!("{}d", node.prefix());
    run(&format!(
        "ip -n {} link set dev {} name {renamed}",
        node.name, second.interface
    ));
    wait_until(&mut measurement, |show| {
        ![&first, &second]
            .iter()
            .any(|gone| show.contains(&gone.interface))
            && show.contains("runwire_capture_interfaces 2\n")
    });
    run(&format!(
        "ip netns exec {} ping -q -i 0.02 -c 5 {}",
        node.name, second.peer4
    ));
    measurement.collect();
    let again = Veth {
        interface: renamed,
        ..second
    };
    assert_eq!(
        count(&measurement, &again),
        5,
        "{}",
        measurement.show("capture")
    );

    // Other patterns, while we run.
    measurement.configure(node.settings(CaptureMode::Tc, "@x"));
    measurement.collect();
    run(&format!(
        "ip netns exec {} ping -q -i 0.02 -c 5 {}",
        node.name, other.peer4
    ));
    measurement.collect();
    let show = measurement.show("capture");
    assert_eq!(count(&measurement, &other), 5, "{show}");
    assert!(!show.contains(&late.interface), "{show}");
    assert!(show.contains("runwire_capture_interfaces 1\n"), "{show}");

    // Off and on again: what was counted before is no more.
    measurement.configure(node.settings(CaptureMode::Off, "@x"));
    measurement.collect();
    assert_eq!(measurement.show("capture"), "");
    measurement.configure(node.settings(CaptureMode::Tc, "@x"));
    measurement.collect();
    assert_eq!(count(&measurement, &other), 0);

    // And another mode.
    measurement.configure(node.settings(CaptureMode::Xdp, "@x"));
    measurement.collect();
    assert_eq!(count(&measurement, &other), 0, "egress is not seen");
    let hooks = measurement.hooks();
    let ours = hooks
        .iter()
        .find(|status| status.signal == "capture")
        .unwrap();
    assert_eq!(ours.hook, "xdp");
}

/// Interfaces are looked for now and then.
fn wait_until(measurement: &mut Measurement, done: impl Fn(&str) -> bool) {
    let start = Instant::now();
    while !done(&measurement.show("capture")) {
        let show = measurement.show("capture");
        assert!(start.elapsed() < Duration::from_secs(10), "{show}");
        thread::sleep(Duration::from_millis(100));
        measurement.collect();
    }
}

#[test]
#[ignore = "needs root"]
fn interfaces_that_the_map_has_no_room_for_are_said_to_be_left_out() {
    let mut node = Node::new();
    let veths = ['a', 'b', 'c'].map(|letter| node.add_veth(letter));
    let mut settings = node.settings(CaptureMode::Tc, "@*");
    settings.map_capacity.insert("capture_counts".to_owned(), 2);
    let Some(mut measurement) = start(settings) else {
        return;
    };
    let show = measurement.show("capture");
    assert!(show.contains("runwire_capture_interfaces 2\n"), "{show}");
    assert!(
        show.contains(r#"runwire_capture_interfaces{reason="map_full"} 1"#),
        "{show}"
    );
    let hooks = measurement.hooks();
    assert_eq!(
        hooks.len() - NAMES.len() + 1,
        2,
        "on, and why not all: {hooks:?}"
    );
    // The others go on.
    for veth in &veths {
        send_datagrams((&node.name, &veth.peer), veth.peer4, &[100], 5);
    }
    measurement.collect();
    let labels = [("workload", node.name.as_str()), ("protocol", "udp")];
    assert_eq!(measurement.count("capture_packets_total", &labels), 10);
}

#[test]
#[ignore = "needs root"]
fn senders_on_all_processors_lose_nothing() {
    let mut node = Node::new();
    let veth = node.add_veth('v');
    let Some(mut measurement) = start(node.settings(CaptureMode::Tc, "@*")) else {
        return;
    };
    let target = SocketAddr::new(veth.peer4, 9);
    thread::scope(|scope| {
        for _ in 0..8 {
            let socket = in_namespace(&node.name, || UdpSocket::bind("0.0.0.0:0").unwrap());
            scope.spawn(move || {
                for _ in 0..5000 {
                    // An answer that nobody listens is reported here.
                    let _ = socket.send_to(&[0; 100], target);
                }
            });
        }
    });
    measurement.collect();
    let sent = Lab::nstat(&node.name, "UdpOutDatagrams");
    let labels = [
        ("interface", veth.interface.as_str()),
        ("direction", "egress"),
        ("protocol", "udp"),
    ];
    let show = measurement.show("capture_packets");
    assert_eq!(
        measurement.count("capture_packets_total", &labels),
        sent,
        "{show}"
    );
    assert!(sent > 20_000, "{sent}");
}

#[test]
#[ignore = "needs root"]
fn a_sample_is_scaled_up_to_the_whole() {
    let mut node = Node::new();
    let veth = node.add_veth('v');
    let mut settings = node.settings(CaptureMode::Tc, "@*");
    settings.capture.sampling = 0.1;
    let Some(mut measurement) = start(settings) else {
        return;
    };
    assert!((measurement.sum("capture_sampling_ratio", &[]) - 0.1).abs() < 1e-9);
    let target = SocketAddr::new(veth.peer4, 9);
    let socket = in_namespace(&node.name, || UdpSocket::bind("0.0.0.0:0").unwrap());
    for _ in 0..50_000 {
        let _ = socket.send_to(&[0; 500], target);
    }
    send_stream((&node.name, &veth.peer), veth.peer4, 50);
    measurement.collect();
    let show = measurement.show("capture");
    let check = |protocol, whole: u64| {
        let labels = [
            ("interface", veth.interface.as_str()),
            ("direction", "egress"),
            ("protocol", protocol),
        ];
        let estimate = measurement.sum("capture_packets_total", &labels);
        // Four standard deviations of a sample of one in ten: once in sixteen thousand runs.
        let allowed = 4.0 * (whole as f64 * 0.9 / 0.1).sqrt();
        let error = (estimate - whole as f64).abs();
        assert!(
            error <= allowed,
            "{estimate} of {whole}, {allowed} allowed: {show}"
        );
        assert!(error > 0.0, "{show}");
    };
    check("udp", Lab::nstat(&node.name, "UdpOutDatagrams"));
    let segments = Lab::nstat(&node.name, "TcpOutSegs") + Lab::nstat(&node.name, "TcpRetransSegs");
    check("tcp", segments);
}

#[test]
#[ignore = "needs root"]
fn a_tag_hides_nothing() {
    let mut node = Node::new();
    let veth = node.add_veth('v');
    let (name, interface, peer) = (&node.name, &veth.interface, &veth.peer);
    let tagged = format!("{}t", node.prefix());
    for (namespace, under, over, end) in [
        (name, interface.as_str(), tagged.as_str(), 1),
        (peer, "eth0", "tagged", 2),
    ] {
        // A kernel without VLANs has nothing to hide either.
        let made = std::process::Command::new("ip")
            .args(["-n", namespace, "link", "add", "link", under, "name", over])
            .args(["type", "vlan", "id", "7"])
            .output()
            .unwrap();
        if !made.status.success() {
            return;
        }
        run(&format!(
            "ip -n {namespace} address add 10.7.7.{end}/24 dev {over}"
        ));
        run(&format!("ip -n {namespace} link set {over} up"));
    }
    for mode in [CaptureMode::Tc, CaptureMode::Xdp] {
        let Some(mut measurement) = start(node.settings(mode, "@*")) else {
            return;
        };
        let address = IpAddr::from([10, 7, 7, 1]);
        assert_eq!(send_datagrams((peer, name), address, &[100], 50), 50);
        measurement.collect();
        let show = measurement.show("capture_packets");
        for interface in [interface, &tagged] {
            let labels = [
                ("interface", interface.as_str()),
                ("direction", "ingress"),
                ("protocol", "udp"),
            ];
            assert_eq!(
                measurement.count("capture_packets_total", &labels),
                50,
                "{mode:?}: {show}"
            );
        }
    }
}
