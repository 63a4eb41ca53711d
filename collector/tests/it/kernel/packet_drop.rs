//! Drops by a firewall rule, by an XDP program and by a closed port.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use aya::programs::{Xdp, XdpMode};

use super::capture_beside::compiled;
use super::lab::{Lab, in_namespace, nft, run};
use super::measure::Measurement;

#[test]
#[ignore = "needs root"]
fn a_firewall_drop_has_its_place_and_both_ends() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    let server = &lab.server;
    run(&format!("ip netns exec {server} nft add table inet t"));
    run(&format!(
        "ip netns exec {server} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    run(&format!(
        "ip netns exec {server} nft add rule inet t in udp dport 4000 drop"
    ));
    run(&format!(
        "ip netns exec {server} nft add rule inet t in tcp dport 4000 drop"
    ));
    lab.in_client(|| {
        for address in [lab.server4, lab.server6] {
            let any: SocketAddr = match address {
                IpAddr::V4(_) => "0.0.0.0:0".parse().unwrap(),
                _ => "[::]:0".parse().unwrap(),
            };
            let socket = UdpSocket::bind(any).unwrap();
            for _ in 0..9 {
                socket.send_to(b"dropped", (address, 4000)).unwrap();
            }
        }
        let silent = SocketAddr::new(lab.server4, 4000);
        TcpStream::connect_timeout(&silent, Duration::from_millis(300)).unwrap_err();
        // To a port that nobody has.
        let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
        for _ in 0..5 {
            let _ = socket.send_to(b"nobody", (lab.server4, 4001));
        }
    });
    thread::sleep(Duration::from_millis(100));
    measurement.collect();

    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
        ("workload", lab.server.as_str()),
        ("interface", "eth0"),
    ];
    let count = |extra: &[(&str, &str)]| {
        let labels = [edge.as_slice(), extra].concat();
        measurement.count("dropped_packets_total", &labels)
    };
    let show = measurement.show("dropped_packets");
    let policy = [("class", "policy"), ("site", "nft_do_chain")];
    assert_eq!(
        count(&[policy.as_slice(), &[("protocol", "udp")]].concat()),
        18,
        "{show}"
    );
    assert_eq!(
        count(&[policy.as_slice(), &[("protocol", "tcp"), ("syn", "true")]].concat()),
        1,
        "{show}"
    );
    assert_eq!(count(&[("reason", "netfilter_drop")]), 19, "{show}");
    assert_eq!(
        count(&[("class", "no_socket"), ("reason", "no_socket")]),
        5,
        "{show}"
    );
}

/// Of a pod whose node hides it behind its own address, on the way there and back, and to an address that the node
/// translates; of the node itself while it sends too.
#[test]
#[ignore = "needs root"]
fn what_is_dropped_behind_a_node_is_its_pods() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (node, pod, server) = (&lab.client, &other.client, &lab.server);
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    for line in [
        format!("ip -n {pod} link add up0 type veth peer name pod0 netns {node}"),
        format!("ip -n {pod} link set up0 up"),
        format!("ip -n {node} link set pod0 up"),
        format!("ip -n {pod} route add {}/32 dev up0", lab.server4),
        format!("ip -n {node} route add {}/32 dev pod0", other.client4),
        format!("ip -n {pod} route add 10.96.7.1/32 dev up0"),
        format!("ip -n {node} route add 10.96.7.1/32 dev eth0"),
        format!(
            "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.pod0.proxy_arp=1 net.ipv4.neigh.pod0.proxy_delay=0"
        ),
    ] {
        run(&line);
    }
    let hide = format!(
        "table ip t {{\n chain s {{\n type nat hook prerouting priority -100\n \
         ip daddr 10.96.7.1 dnat to {}\n }}\n chain c {{\n type nat hook postrouting priority 100\n \
         oifname eth0 masquerade\n }}\n}}\n",
        lab.server4
    );
    let drop_question = "table ip t {\n chain c {\n type filter hook input priority 0\n \
                         udp dport 4000 drop\n }\n}\n";
    let drop_answer = "table netdev t {\n chain c {\n type filter hook ingress device eth0 priority 0\n \
                       udp sport 4001 drop\n }\n}\n";
    if !nft(node, &hide) || !nft(server, drop_question) || !nft(node, drop_answer) {
        return;
    }
    let answering = |port| {
        let socket = lab.in_server(|| UdpSocket::bind((lab.server4, port)).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    };
    let answer = |socket: &UdpSocket| {
        let (_, asker) = socket.recv_from(&mut [0; 16]).unwrap();
        socket.send_to(b"answer", asker).unwrap();
        asker.ip()
    };
    let (first, second) = (answering(4001), answering(4002));
    let question = |namespace: &str, address: IpAddr, port: u16| {
        in_namespace(namespace, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"question", (address, port)).unwrap();
        });
    };
    let dropped = |measurement: &mut Measurement, source: &str, destination: &str| {
        thread::sleep(Duration::from_millis(100));
        measurement.collect();
        let edge = [("src_workload", source), ("dst_workload", destination)];
        let dropped = measurement.count("dropped_packets_total", &edge);
        (dropped, measurement.show("dropped_packets"))
    };
    let is = |(dropped, shown): (u64, String), expected| assert_eq!(dropped, expected, "{shown}");

    question(pod, lab.server4, 4000);
    question(pod, lab.server4, 4000);
    is(dropped(&mut measurement, pod, server), 2);
    question(pod, lab.server4, 4001);
    assert_eq!(answer(&first), lab.client4, "hidden");
    is(dropped(&mut measurement, server, pod), 1);
    question(node, lab.server4, 4000);
    is(dropped(&mut measurement, node, server), 1);
    let service = IpAddr::from([10, 96, 7, 1]);
    question(pod, service, 4001);
    first.recv_from(&mut [0; 16]).unwrap();
    // A list that took long is not made again at once.
    let learn = || measurement.enricher().learn_translations();
    assert!((0..300).any(|_| learn() || {
        thread::sleep(Duration::from_millis(100));
        false
    }));
    let mut programs = compiled(XDP);
    let program: &mut Xdp = programs.program_mut("drop").unwrap().try_into().unwrap();
    program.load().unwrap();
    let link = in_namespace(node, || program.attach("pod0", XdpMode::Skb).unwrap());
    question(pod, service, 4000);
    is(dropped(&mut measurement, pod, server), 3);
    in_namespace(node, || program.detach(link).unwrap());
    // What the server answers has the Service's address by the time it leaves the node.
    let drop_translated = "table ip u {\n chain c {\n type filter hook postrouting priority 200\n \
                           ip saddr 10.96.7.1 udp sport 4002 drop\n }\n}\n";
    assert!(nft(node, drop_translated));
    question(pod, service, 4002);
    answer(&second);
    is(dropped(&mut measurement, server, pod), 2);
    // Which of the two cannot be told.
    question(node, lab.server4, 4000);
    question(pod, lab.server4, 4000);
    is(dropped(&mut measurement, node, server), 3);
    is(dropped(&mut measurement, pod, server), 3);
}

/// Drops datagrams to port 4000.
const XDP: &str = r#"
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int drop(struct xdp_md *frame)
{
	void *end = (void *)(long)frame->data_end;
	struct iphdr *ip = (void *)(long)frame->data + sizeof(struct ethhdr);
	struct udphdr *udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end || ip->version != 4 || ip->protocol != 17)
		return XDP_PASS;
	return udp->dest == bpf_htons(4000) ? XDP_DROP : XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"#;

/// The kernel gives no reason for these, whether it runs the program for the driver or a veth does.
#[test]
#[ignore = "needs root"]
fn what_an_xdp_program_drops_has_its_reason() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    let mut programs = compiled(XDP);
    let program: &mut Xdp = programs.program_mut("drop").unwrap().try_into().unwrap();
    program.load().unwrap();
    for (mode, dropped) in [(XdpMode::Skb, 9), (XdpMode::Driver, 18)] {
        let link = in_namespace(&lab.server, || program.attach("eth0", mode).unwrap());
        lab.in_client(|| {
            let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
            for _ in 0..9 {
                socket.send_to(b"dropped", (lab.server4, 4000)).unwrap();
            }
        });
        thread::sleep(Duration::from_millis(100));
        in_namespace(&lab.server, || program.detach(link).unwrap());
        measurement.collect();
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("dst_workload", lab.server.as_str()),
            ("workload", lab.server.as_str()),
            ("interface", "eth0"),
            ("reason", "xdp"),
            ("class", "policy"),
        ];
        assert_eq!(
            measurement.count("dropped_packets_total", &labels),
            dropped,
            "{}",
            measurement.show("dropped_packets")
        );
    }
}

/// A segmentation-offload buffer is one event and many packets; the firewall counts its bytes.
#[test]
#[ignore = "needs root"]
fn bytes_and_packets_of_large_buffers_are_those_of_the_wire() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    let server = &lab.server;
    run(&format!("ip netns exec {server} nft add table inet t"));
    run(&format!(
        "ip netns exec {server} nft add chain inet t in {{ type filter hook prerouting priority 0 ; }}"
    ));
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    run(&format!(
        "ip netns exec {server} nft add rule inet t in tcp dport {} counter drop",
        address.port()
    ));
    client.write_all(&[0; 14_000]).unwrap();
    thread::sleep(Duration::from_millis(50));
    run(&format!("ip netns exec {server} nft flush chain inet t in"));
    // The rule is gone, and with it its counter; what was dropped is what was sent and not received.
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    let labels = [
        ("workload", server.as_str()),
        ("reason", "netfilter_drop"),
        ("interface", "eth0"),
    ];
    let packets = measurement.count("dropped_packets_total", &labels);
    let bytes = measurement.count("dropped_bytes_total", &labels);
    let show = measurement.show("dropped_");
    // Ten segments of 1448 bytes at the first attempt alone.
    assert!(packets >= 10, "{show}");
    // Headers of a buffer are there once, however many packets it is.
    assert!(bytes >= 14_000, "{show}");
    assert!(bytes <= packets * 1_500, "{show}");
    drop(accepted);
}

#[test]
#[ignore = "needs root"]
fn a_link_that_comes_up_makes_no_errors() {
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    let lab = Lab::new();
    let (client, server) = (&lab.client, &lab.server);
    run(&format!(
        "ip -n {client} link add eth1 type veth peer name eth1 netns {server}"
    ));
    for namespace in [client, server] {
        run(&format!("ip -n {namespace} link set eth1 up"));
    }
    thread::sleep(Duration::from_millis(2_500));
    measurement.collect();
    let show = measurement.show("dropped_packets");
    for namespace in [client, server] {
        let errors = [("workload", namespace.as_str()), ("class", "error")];
        assert_eq!(
            measurement.count("dropped_packets_total", &errors),
            0,
            "{show}"
        );
    }
}
