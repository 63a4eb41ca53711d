//! Captured TLS handshakes, played again over TCP in pieces of any size and thousands at once.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt,
};

use runwire_collector::signals::SignalSettings;

use super::lab::{Lab, run};
use super::tls::{Setup, TlsServer, connect};

const TLS12: &[u8] = include_bytes!("../../../src/tls/captured/tls1_2.bin");
pub(super) const TLS13: &[u8] = include_bytes!("../../../src/tls/captured/tls1_3.bin");

/// The pieces of a captured handshake: whether the client sent it, and the bytes.
pub(super) fn pieces(mut file: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut pieces = Vec::new();
    while let [side, high, low, rest @ ..] = file {
        let (bytes, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        pieces.push((*side == b'C', bytes.to_vec()));
        file = rest;
    }
    pieces
}

/// As many handshakes as `names`, all open at once, each hello with its own server name of nine
/// letters and every piece cut as `cut` says.
fn play(lab: &Lab, server: IpAddr, plays: &[(&[u8], String)], cut: usize) {
    let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut ends = Vec::new();
    for _ in plays {
        let client = lab_connect(lab, address);
        ends.push((client, listener.accept().unwrap().0));
    }
    let plays: Vec<_> = plays
        .iter()
        .map(|(file, name)| (pieces(file), name))
        .collect();
    let longest = plays
        .iter()
        .map(|(pieces, _)| pieces.len())
        .max()
        .unwrap_or(0);
    for step in 0..longest {
        for ((pieces, name), (client, server)) in plays.iter().zip(&mut ends) {
            let Some((from_client, bytes)) = pieces.get(step) else {
                continue;
            };
            let mut bytes = bytes.clone();
            if let Some(at) = bytes.windows(9).position(|window| window == b"shop.test")
                && *from_client
            {
                bytes[at..at + 9].copy_from_slice(name.as_bytes());
            }
            let (from, to) = if *from_client {
                (client, server)
            } else {
                (server, client)
            };
            for piece in bytes.chunks(cut) {
                from.write_all(piece).unwrap();
                to.read_exact(&mut vec![0; piece.len()]).unwrap();
            }
        }
    }
}

fn lab_connect(lab: &Lab, address: SocketAddr) -> TcpStream {
    let client = lab.in_client(|| TcpStream::connect(address).unwrap());
    client.set_nodelay(true).unwrap();
    client
}

/// Connects with the first write: its data come with the SYN.
fn connect_fast(lab: &Lab, address: SocketAddr) -> TcpStream {
    lab.in_client(|| {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        setsockopt(&socket, sockopt::TcpFastOpenConnect, &true).unwrap();
        let address = SockaddrStorage::from(address);
        nix::sys::socket::connect(socket.as_raw_fd(), &address).unwrap();
        TcpStream::from(socket)
    })
}

fn hellos_in_the_syn_are_seen(server: fn(&Lab) -> IpAddr) {
    let Some(mut setup) = Setup::new(SignalSettings::default()) else {
        return;
    };
    let lab = &setup.lab;
    // Of all listeners, and without a cookie from before.
    for namespace in [&lab.client, &lab.server] {
        run(&format!(
            "ip netns exec {namespace} sysctl -qw net.ipv4.tcp_fastopen=1543"
        ));
    }
    let listener = lab.in_server(|| TcpListener::bind((server(lab), 0)).unwrap());
    for file in [TLS12, TLS13] {
        for _ in 0..3 {
            let mut client = connect_fast(lab, listener.local_addr().unwrap());
            let mut accepted: Option<TcpStream> = None;
            for (from_client, bytes) in pieces(file) {
                if from_client {
                    client.write_all(&bytes).unwrap();
                }
                let server = accepted.get_or_insert_with(|| listener.accept().unwrap().0);
                if from_client {
                    server.read_exact(&mut vec![0; bytes.len()]).unwrap();
                } else {
                    server.write_all(&bytes).unwrap();
                    client.read_exact(&mut vec![0; bytes.len()]).unwrap();
                }
            }
        }
    }
    let fast = Lab::nstat(&lab.server, "TcpExtTCPFastOpenPassive");
    assert_eq!(fast, 6, "no data came with the SYN");
    setup.collect();
    let show = setup.show();
    for version in ["1.2", "1.3"] {
        let labels = [("version", version)];
        assert_eq!(setup.count("tls_handshakes_total", &labels), 3, "{show}");
        assert_eq!(setup.count("tls_client_hellos_total", &labels), 3, "{show}");
    }
    assert_eq!(
        setup.count("tls_handshake_failures_total", &[]),
        0,
        "{show}"
    );
    // Once, though both ends are here.
    assert_eq!(
        setup.count("protocol_connections_total", &[("protocol", "tls")]),
        6
    );
    for row in setup.rows() {
        assert_eq!(row.key.server.name.as_deref(), Some("shop.test"));
    }
}

#[test]
#[ignore = "needs root"]
fn hellos_in_the_syn_are_seen_over_ipv4() {
    hellos_in_the_syn_are_seen(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn hellos_in_the_syn_are_seen_over_ipv6() {
    hellos_in_the_syn_are_seen(|lab| lab.server6);
}

#[test]
#[ignore = "needs root"]
fn a_hello_may_come_in_any_pieces() {
    let Some(mut setup) = Setup::new(SignalSettings::default()) else {
        return;
    };
    let cuts = [1, 3, 6, 44, 64, 120, 200];
    for cut in cuts {
        for server in [setup.lab.server4, setup.lab.server6] {
            for file in [TLS12, TLS13] {
                play(&setup.lab, server, &[(file, format!("cut{cut:06}"))], cut);
            }
        }
    }
    // Larger than a segment, as with the key shares of post-quantum key exchanges.
    let server = TlsServer::start(&setup.lab, setup.lab.server4, 30, "");
    let protocols: Vec<String> = (0..250).map(|n| format!("protocol-{n}")).collect();
    connect(
        &setup.lab,
        server.address,
        &format!("-servername large.test -alpn {}", protocols.join(",")),
    );
    setup.collect();
    let show = setup.show();
    let each = 2 * cuts.len() as u64;
    assert_eq!(
        setup.count("tls_handshakes_total", &[("version", "1.2")]),
        each,
        "{show}"
    );
    assert_eq!(
        setup.count("tls_handshakes_total", &[("version", "1.3")]),
        each + 1,
        "{show}"
    );
    for row in setup.rows() {
        let name = row.key.server.name.as_deref().unwrap_or_default();
        assert!(name.starts_with("cut") || name == "large.test", "{name}");
        assert_eq!(
            row.certificate.is_some(),
            row.key.version == "1.2",
            "{name}"
        );
    }
}

/// `all` handshakes, every other one of TLS 1.2, with names that tell which.
fn many(all: usize) -> Vec<(&'static [u8], String)> {
    let one = |n| match n % 2 {
        0 => (TLS12, format!("even{n:05}")),
        _ => (TLS13, format!("odd-{n:05}")),
    };
    (0..all).map(one).collect()
}

fn lost(setup: &Setup, reason: &str) -> u64 {
    let labels = [("signal", "protocol"), ("reason", reason)];
    setup.measurement.count("events_lost_total", &labels)
}

fn patient(names: usize) -> Option<Setup> {
    Setup::new(SignalSettings {
        tls_server_names: names,
        tls_handshake_timeout: Duration::from_secs(60),
        ..SignalSettings::default()
    })
}

#[test]
#[ignore = "needs root"]
fn a_hundred_handshakes_at_a_time_are_not_mixed_up() {
    let Some(mut setup) = patient(1000) else {
        return;
    };
    let plays = many(1000);
    for some in plays.chunks(100) {
        play(&setup.lab, setup.lab.server4, some, 65536);
        setup.collect();
    }
    assert_eq!(setup.count("tls_handshake_failures_total", &[]), 0);
    // On a busy machine there may have been no room for some: these are then missing, and told.
    let incomplete = lost(&setup, "incomplete");
    let is_all = lost(&setup, "ring_full") == 0;
    let completed = setup.count("tls_handshakes_total", &[]);
    assert!(completed <= 1000 && (!is_all || (completed, incomplete) == (1000, 0)));
    for (_, name) in &plays {
        let count = setup
            .measurement
            .count("tls_server_names_total", &[("server_name", name)]);
        assert!(count <= 1 && (!is_all || count == 1), "{name}: {count}");
    }
    for row in setup.rows() {
        let name = row.key.server.name.unwrap_or_default();
        let version = if name.starts_with("even") {
            "1.2"
        } else {
            "1.3"
        };
        assert_eq!(row.key.version, version, "{name}");
    }
}

/// More than the ring may hold before anybody looks: what is lost is counted, and is no failure.
#[test]
#[ignore = "needs root"]
fn of_two_thousand_handshakes_at_once_none_is_told_as_a_failure() {
    const ALL: u64 = 2000;
    let Some(mut setup) = patient(0) else {
        return;
    };
    play(&setup.lab, setup.lab.server4, &many(ALL as usize), 65536);
    setup.collect();
    let completed = setup.count("tls_handshakes_total", &[]);
    let (incomplete, pieces) = (lost(&setup, "incomplete"), lost(&setup, "ring_full"));
    let told = format!("{completed} completed, {incomplete} incomplete, {pieces} pieces lost");
    assert_eq!(setup.count("tls_handshake_failures_total", &[]), 0);
    // Of a connection whose client hello was lost, nothing but that piece is counted.
    assert!(completed + incomplete + pieces >= ALL, "{told}");
    assert!(pieces > 0 || completed == ALL, "{told}");
}
