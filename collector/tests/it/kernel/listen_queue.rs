//! Accept queues, full and not.

use std::io::Read as _;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::lab::Lab;
use super::measure::{Measurement, say};

#[test]
#[ignore = "needs root"]
fn every_listener_is_listed_with_its_queue() {
    let lab = Lab::new();
    let old = lab.in_server(|| TcpListener::bind((lab.server6, 0)).unwrap());
    let Some(mut measurement) = Measurement::start("listen_queue") else {
        return;
    };
    // Many, of both families; one has two connections that wait, more than it may.
    let many: Vec<_> = (0..40)
        .map(|_| lab.in_server(|| TcpListener::bind("[::]:0").unwrap()))
        .collect();
    // Several that share a port have a queue each.
    let first = lab.in_server(|| listen_on_shared_port(0));
    let shared = first.local_addr().unwrap().port();
    let second = lab.in_server(|| listen_on_shared_port(shared));
    let full = lab.in_server(|| listen_with_backlog(lab.server4, 0));
    let address = full.local_addr().unwrap();
    let open: Vec<_> = (0..3)
        .map(|_| {
            let timeout = Duration::from_millis(100);
            lab.in_client(|| TcpStream::connect_timeout(&address, timeout))
        })
        .collect();
    measurement.collect();
    let report = measurement.report("listen_queue");
    let mine: Vec<_> = report["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|listener| listener["workload"] == lab.server.as_str())
        .collect();
    assert_eq!(mine.len(), 44, "{mine:?}");
    // The fullest first.
    assert_eq!(mine[0]["address"], address.ip().to_string());
    assert_eq!(mine[0]["port"], address.port());
    assert_eq!(mine[0]["length"], 1);
    assert_eq!(mine[0]["limit"], 0);
    assert_eq!(mine[0]["full"], true);
    assert_eq!(mine[0]["kind"], "netns");
    assert!(mine[0]["drops"].as_u64() > Some(0), "{:?}", mine[0]);
    let has = |address: &str, port: u16| {
        mine.iter()
            .any(|listener| listener["address"] == address && listener["port"] == port)
    };
    for listener in &many {
        assert!(has("::", listener.local_addr().unwrap().port()));
    }
    assert!(has(
        &lab.server6.to_string(),
        old.local_addr().unwrap().port()
    ));
    let sharing = (mine.iter()).filter(|listener| listener["port"] == shared);
    assert_eq!(sharing.count(), 2);
    drop((open, first, second));
}

#[test]
#[ignore = "needs root"]
fn the_queue_of_an_older_mptcp_listener_is_found() {
    let lab = Lab::new();
    // Ends when its input does.
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)\n\
        s.bind(('::', 4000)); s.listen(7)\n\
        print('.', end='', flush=True); sys.stdin.read()";
    let mut program = Command::new("ip")
        .args(["netns", "exec", &lab.server, "python3", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = program.stdout.take().unwrap();
    match output.read_exact(&mut [0]) {
        Ok(()) => the_queue_is_found(&lab),
        Err(_) => say("skipped: no MPTCP"),
    }
    drop(program.stdin.take());
    program.wait().unwrap();
}

fn the_queue_is_found(lab: &Lab) {
    let Some(mut measurement) = Measurement::start("listen_queue") else {
        return;
    };
    let timeout = Duration::from_millis(100);
    let open = [lab.server4, lab.server6]
        .map(|to| lab.in_client(|| TcpStream::connect_timeout(&(to, 4000).into(), timeout)));
    assert!(open.iter().all(Result::is_ok), "{open:?}");
    measurement.collect();
    let owner = [("workload", lab.server.as_str())];
    let gauges = [
        "tcp_listeners",
        "tcp_accept_queue_length",
        "tcp_accept_queue_limit",
    ]
    .map(|name| measurement.count(name, &owner));
    assert_eq!(gauges, [1, 2, 7], "{}", measurement.show("tcp_"));
}

fn listen_on_shared_port(port: u16) -> TcpListener {
    use nix::sys::socket::sockopt::ReusePort;
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket,
    };
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    setsockopt(&socket, ReusePort, &true).unwrap();
    let any = std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(any)).unwrap();
    listen(&socket, Backlog::new(8).unwrap()).unwrap();
    socket.into()
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
