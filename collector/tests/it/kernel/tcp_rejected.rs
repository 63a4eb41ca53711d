//! Connection attempts that a packet filter of their own host rejects with ICMP. The message comes
//! while connect() still holds the socket, so the kernel keeps the error aside and tries on.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::lab::{Lab, run};
use super::measure::Measurement;
use super::tcp_lifecycle::connect_without_waiting;

/// Port, kind of rejection, and what it is over IPv4 and IPv6.
const REJECTIONS: [(u16, &str, [&str; 2]); 4] = [
    (7_001, "port-unreachable", ["refused", "refused"]),
    (
        7_002,
        "no-route",
        ["network_unreachable", "network_unreachable"],
    ),
    (
        7_003,
        "host-unreachable",
        ["host_unreachable", "host_unreachable"],
    ),
    (
        7_004,
        "admin-prohibited",
        ["host_unreachable", "prohibited"],
    ),
];

fn reject(client: &str, port: u16, kind: &str) {
    run(&format!(
        "ip netns exec {client} nft add rule inet t out tcp dport {port} reject with icmpx type {kind}"
    ));
}

fn add_chain(client: &str) {
    run(&format!("ip netns exec {client} nft add table inet t"));
    run(&format!(
        "ip netns exec {client} nft add chain inet t out {{ type filter hook output priority 0 ; }}"
    ));
}

/// As a program does that has been told to look at its socket. The kernel forgets what it hands out.
fn error_of(socket: &OwnedFd) -> io::Error {
    io::Error::from_raw_os_error(getsockopt(socket, sockopt::SocketError).unwrap())
}

fn an_attempt_that_is_rejected_has_that_reason(server: fn(&Lab) -> IpAddr, finish: fn(&OwnedFd)) {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_lifecycle") else {
        return;
    };
    let client = lab.client.as_str();
    add_chain(client);
    let server = server(&lab);
    for (port, kind, reasons) in REJECTIONS {
        let reason = reasons[usize::from(server.is_ipv6())];
        let labels = [("src_workload", client), ("reason", reason)];
        let before = measurement.count("tcp_connect_failures_total", &labels);
        reject(client, port, kind);
        for _ in 0..3 {
            let socket = lab.in_client(|| connect_without_waiting((server, port).into()));
            finish(&socket);
        }
        measurement.collect();
        let counted = measurement.count("tcp_connect_failures_total", &labels) - before;
        let show = measurement.show("tcp_connect_failures");
        assert_eq!(counted, 3, "{kind} {show}");
    }
    let all = [("src_workload", client)];
    let failures = measurement.count("tcp_connect_failures_total", &all);
    assert_eq!(failures, 12);
    // It was the program that ended these, not the kernel.
    assert_eq!(Lab::nstat(client, "TcpAttemptFails"), 0);
}

#[test]
#[ignore = "needs root"]
fn a_program_that_asked_for_the_error_was_rejected_over_ipv4() {
    an_attempt_that_is_rejected_has_that_reason(
        |lab| lab.server4,
        |socket| {
            assert_ne!(error_of(socket).raw_os_error(), Some(0));
        },
    );
}

#[test]
#[ignore = "needs root"]
fn a_program_that_gave_up_was_rejected_over_ipv4() {
    an_attempt_that_is_rejected_has_that_reason(|lab| lab.server4, |_| ());
}

#[test]
#[ignore = "needs root"]
fn a_program_that_gave_up_was_rejected_over_ipv6() {
    an_attempt_that_is_rejected_has_that_reason(|lab| lab.server6, |_| ());
}

#[test]
#[ignore = "needs root"]
fn what_was_rejected_first_and_then_succeeded_did_not_fail() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_lifecycle") else {
        return;
    };
    let client = lab.client.as_str();
    add_chain(client);
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address: SocketAddr = listener.local_addr().unwrap();
    reject(client, address.port(), "port-unreachable");
    let socket = lab.in_client(|| connect_without_waiting(address));
    let error = error_of(&socket).kind();
    assert_eq!(error, io::ErrorKind::ConnectionRefused);
    // The SYN is sent again after a second.
    run(&format!("ip netns exec {client} nft flush ruleset"));
    drop(listener.accept().unwrap());
    drop(socket);
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    let edge = [("src_workload", client)];
    let show = measurement.show("tcp_conn");
    let failures = measurement.count("tcp_connect_failures_total", &edge);
    assert_eq!(failures, 0, "{show}");
    let closed = [
        ("src_workload", client),
        ("role", "client"),
        ("error", "none"),
    ];
    let closed = measurement.count("tcp_connections_closed_total", &closed);
    assert_eq!(closed, 1, "{show}");
}
