//! Protocols by their first bytes: clients and servers that say, byte for byte, what real ones say.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::lab::Lab;
use super::measure::Measurement;

const CANARY: &str = "canary-7f3a91c2";

enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
}
use Turn::{Client, Server};

fn preface(extra: &[u8]) -> Vec<u8> {
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], extra].concat()
}

fn headers(block: &[u8]) -> Vec<u8> {
    [&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1], block].concat()
}

/// What is said, in turns, and the protocol that this is.
fn conversations() -> Vec<(&'static str, Vec<Turn>)> {
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x04test\0\0\x01\0\x01";
    let greeting = b"\x4a\0\0\0\x0a8.0.36\0\x0b\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0abcdefghijkl\0caching_sha2_password\0";
    let startup = b"\0\0\0\x24\0\x03\0\0user\0shop\0database\0shop\0\0\0\0";
    let grpc =
        headers(b"\x83\x86\x44\x05/a/b/\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let random = |seed: u32| -> Vec<u8> {
        let next = |n: &mut u32| {
            *n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*n >> 24) as u8)
        };
        let mut state = seed;
        std::iter::from_fn(|| next(&mut state)).take(90).collect()
    };
    vec![
        (
            "http1",
            vec![
                Client(
                    format!("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{CANARY}")
                        .into_bytes(),
                ),
                Server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
            ],
        ),
        (
            "http2",
            vec![
                Client(preface(&headers(b"\x82\x86\x84\x41\x01a"))),
                Server(settings.to_vec()),
            ],
        ),
        // As grpc-go does it: the request waits for the server's settings.
        (
            "grpc",
            vec![
                Client(preface(&[])),
                Server(settings.to_vec()),
                Client(grpc),
            ],
        ),
        (
            "redis",
            vec![
                Client(format!("*2\r\n$4\r\nAUTH\r\n$15\r\n{CANARY}\r\n").into_bytes()),
                Server(b"+OK\r\n".to_vec()),
            ],
        ),
        (
            "mysql",
            vec![
                Server(greeting.to_vec()),
                Client([&[0x20, 0, 0, 1, 0x85, 0xa6, 3, 0], CANARY.as_bytes()].concat()),
            ],
        ),
        (
            "postgresql",
            vec![
                Client(startup.to_vec()),
                Server(b"R\0\0\0\x08\0\0\0\x03".to_vec()),
                Client(format!("p\0\0\0\x14{CANARY}\0").into_bytes()),
            ],
        ),
        (
            "dns",
            vec![
                Client([&[0, question.len() as u8], &question[..]].concat()),
                Server(vec![0, 12, 0x12, 0x34, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]),
            ],
        ),
        ("unknown", vec![Client(random(7)), Server(random(8))]),
        ("unknown", vec![Client(random(9))]),
    ]
}

/// Says everything over one connection to `server`.
fn say(stream: &TcpStream, turns: &[Turn], client: bool) {
    let mut stream = stream;
    for turn in turns {
        match (turn, client) {
            (Client(bytes), true) | (Server(bytes), false) => stream.write_all(bytes).unwrap(),
            (Client(bytes) | Server(bytes), _) => {
                stream.read_exact(&mut vec![0; bytes.len()]).unwrap();
            }
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

fn each_protocol_is_counted(lab: &Lab, address: IpAddr) {
    const EACH: u64 = 20;
    let Some(mut measurement) = Measurement::start("protocol") else {
        return;
    };
    for (_, turns) in &conversations() {
        let listener = lab.in_server(|| TcpListener::bind((address, 0)).unwrap());
        let server: SocketAddr = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..EACH {
                    say(&listener.accept().unwrap().0, turns, false);
                }
            });
            lab.in_client(|| {
                for _ in 0..EACH {
                    say(&TcpStream::connect(server).unwrap(), turns, true);
                }
            });
        });
    }
    thread::sleep(Duration::from_millis(2500));
    measurement.collect();
    let show = measurement.show("protocol_connections");
    for (name, expected) in [
        ("http1", EACH),
        ("http2", EACH),
        ("grpc", EACH),
        ("redis", EACH),
        ("mysql", EACH),
        ("postgresql", EACH),
        ("dns", EACH),
        ("unknown", 2 * EACH),
    ] {
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("dst_workload", lab.server.as_str()),
            ("protocol", name),
            ("transport", "tcp"),
        ];
        let count = measurement.count("protocol_connections_total", &labels);
        assert_eq!(count, expected, "{name}\n{show}");
    }
    // Counted once, though both ends are here.
    let turned = [("src_workload", lab.server.as_str())];
    assert_eq!(
        measurement.count("protocol_connections_total", &turned),
        0,
        "{show}"
    );
    assert!(
        !measurement.show("").contains(CANARY),
        "payload in a metric"
    );
}

#[test]
#[ignore = "needs root"]
fn each_protocol_is_counted_over_ipv4() {
    let lab = Lab::new();
    each_protocol_is_counted(&lab, lab.server4);
}

#[test]
#[ignore = "needs root"]
fn each_protocol_is_counted_over_ipv6() {
    let lab = Lab::new();
    each_protocol_is_counted(&lab, lab.server6);
}

#[test]
#[ignore = "needs root"]
fn dns_over_udp_is_known_on_any_port_and_counted_once_a_client() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("protocol") else {
        return;
    };
    let socket = lab.in_server(|| UdpSocket::bind((lab.server4, 0)).unwrap());
    let server = socket.local_addr().unwrap();
    let mut query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x04test\0\0\x01\0\x01".to_vec();
    lab.in_client(|| {
        for id in 0..20 {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            query[0] = id;
            client.send_to(&query, server).unwrap();
            client.send_to(&query, server).unwrap();
            client.send_to(&[id; 40], server).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(1500));
    measurement.collect();
    let labels = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
        ("transport", "udp"),
    ];
    let show = measurement.show("protocol_connections");
    assert_eq!(
        measurement.count("protocol_connections_total", &labels),
        20,
        "{show}"
    );
}
