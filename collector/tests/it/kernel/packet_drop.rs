//! Drops by a firewall rule and by a closed port; accept queues.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::lab::{Lab, run};
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

#[test]
#[ignore = "needs root"]
fn a_full_accept_queue_is_seen_as_such() {
    let lab = Lab::new();
    let listener = lab.in_server(|| listen_with_backlog(lab.server4, 2));
    let address = listener.local_addr().unwrap();
    let Some(mut measurement) = Measurement::start("listen_queue") else {
        return;
    };
    measurement.collect();
    let timeout = Duration::from_millis(100);
    let open: Vec<_> = (0..6)
        .map(|_| lab.in_client(|| TcpStream::connect_timeout(&address, timeout)))
        .collect();
    thread::sleep(Duration::from_millis(100));
    measurement.collect();

    let owner = [("workload", lab.server.as_str())];
    let show = measurement.show("tcp_");
    assert_eq!(measurement.count("tcp_listeners", &owner), 1, "{show}");
    assert_eq!(
        measurement.count("tcp_accept_queue_limit", &owner),
        2,
        "{show}"
    );
    assert_eq!(
        measurement.count("tcp_accept_queue_length", &owner),
        3,
        "{show}"
    );
    let ratio = measurement.sum("tcp_accept_queue_utilization_ratio", &owner);
    assert!((ratio - 1.5).abs() < 1e-9, "{show}");
    let kernel = Lab::nstat(&lab.server, "TcpExtListenDrops");
    assert_eq!(
        measurement.count("tcp_listener_drops_total", &owner),
        kernel,
        "{show}"
    );
    assert!(kernel > 0);
    drop(open);
}

fn listen_with_backlog(address: IpAddr, backlog: i32) -> TcpListener {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket,
    };
    use std::os::fd::AsRawFd as _;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let IpAddr::V4(address) = address else {
        unreachable!("the test's server has an IPv4 address")
    };
    let address = SockaddrIn::from(std::net::SocketAddrV4::new(address, 0));
    bind(socket.as_raw_fd(), &address).unwrap();
    listen(&socket, Backlog::new(backlog).unwrap()).unwrap();
    socket.into()
}
