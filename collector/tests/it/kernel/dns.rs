//! Queries to a small server of the test's own, over UDP and TCP, IPv4 and IPv6.

mod external;
mod names;
mod questions;
mod stream;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use runwire_collector::signals::SignalSettings;

pub(crate) use self::stream::framed;
use super::lab::Lab;
use super::measure::Measurement;

const A: u16 = 1;
const AAAA: u16 = 28;

/// A query for `www.example.test`.
fn query(id: u16, qtype: u16) -> Vec<u8> {
    query_for(id, "www.example.test", qtype)
}

pub(crate) fn query_for(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// The answer to `query` with nothing in it.
pub(crate) fn answer(query: &[u8], rcode: u8, truncated: bool) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80 | if truncated { 2 } else { 0 };
    message[3] = 0x80 | rcode;
    message
}

fn ask_udp(server: IpAddr, queries: &[Vec<u8>]) {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    // Some resolvers connect their socket, others do not.
    let connected = queries.len() == 1;
    if connected {
        socket.connect((server, 53)).unwrap();
    }
    for query in queries {
        if connected {
            socket.send(query).unwrap();
        } else {
            socket.send_to(query, (server, 53)).unwrap();
        }
    }
    for _ in queries {
        socket.recv_from(&mut [0; 512]).unwrap();
    }
}

/// Answers as many queries as `rcodes`, one after the other, each after a while.
fn serve_udp(socket: &UdpSocket, rcodes: &[u8]) {
    for &rcode in rcodes {
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer).unwrap();
        thread::sleep(Duration::from_millis(5));
        let answer = answer(&buffer[..length], rcode, rcode == 0);
        socket.send_to(&answer, client).unwrap();
    }
}

fn queries_and_answers_are_counted(server: fn(&Lab) -> IpAddr) {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    let server = server(&lab);
    let socket = lab.in_server(|| UdpSocket::bind((server, 53)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| serve_udp(&socket, &[0, 0, 2, 3, 5]));
        lab.in_client(|| {
            // A and AAAA at once from one socket, as resolvers do.
            ask_udp(server, &[query(7, A), query(8, AAAA)]);
            for id in 9..12 {
                ask_udp(server, &[query(id, A)]);
            }
        });
    });
    measurement.collect();

    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    let count = |metric: &str, extra: &[(&str, &str)]| {
        measurement.count(metric, &[edge.as_slice(), extra].concat())
    };
    let show = measurement.show("dns_");
    assert_eq!(
        count("dns_queries_total", &[("qtype", "a"), ("protocol", "udp")]),
        4,
        "{show}"
    );
    assert_eq!(
        count("dns_queries_total", &[("qtype", "aaaa")]),
        1,
        "{show}"
    );
    for (rcode, expected) in [
        ("noerror", 2),
        ("servfail", 1),
        ("nxdomain", 1),
        ("refused", 1),
    ] {
        assert_eq!(
            count("dns_responses_total", &[("rcode", rcode)]),
            expected,
            "{show}"
        );
    }
    assert_eq!(count("dns_truncated_responses_total", &[]), 2, "{show}");
    assert_eq!(count("dns_query_duration_seconds_count", &[]), 5, "{show}");
    let seconds = measurement.sum("dns_query_duration_seconds_sum", &edge);
    // The second of the two that were asked at once waited for the first.
    assert!((0.03..0.3).contains(&seconds), "{seconds} s");
    assert_eq!(count("dns_timeouts_total", &[]), 0, "{show}");
    // The server's own sockets are no clients.
    let server = [("src_workload", lab.server.as_str())];
    assert_eq!(measurement.count("dns_queries_total", &server), 0, "{show}");
}

#[test]
#[ignore = "needs root"]
fn queries_and_answers_are_counted_over_ipv4() {
    queries_and_answers_are_counted(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn queries_and_answers_are_counted_over_ipv6() {
    queries_and_answers_are_counted(|lab| lab.server6);
}

/// Answers whatever comes until it hears a message of one byte.
fn answer_all(socket: &UdpSocket, rcode: impl Fn(&[u8]) -> u8) {
    let mut buffer = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).unwrap();
        if length == 1 {
            return;
        }
        let query = &buffer[..length];
        let answer = answer(query, rcode(query), false);
        let _ = socket.send_to(&answer, client);
    }
}

#[test]
#[ignore = "needs root"]
fn queries_over_tcp_are_counted() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 53)).unwrap());
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 512];
            let length = stream.read(&mut buffer).unwrap();
            let answer = framed(answer(&buffer[2..length], 5, false));
            stream.write_all(&answer).unwrap();
        });
        lab.in_client(|| {
            let mut stream = TcpStream::connect((lab.server4, 53)).unwrap();
            stream.write_all(&framed(query(77, A))).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
        });
    });
    measurement.collect();
    let show = measurement.show("dns_");
    let labels = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
        ("protocol", "tcp"),
    ];
    assert_eq!(measurement.count("dns_queries_total", &labels), 1, "{show}");
    assert_eq!(
        measurement.count("dns_responses_total", &labels),
        1,
        "{show}"
    );
    assert_eq!(
        measurement.count("dns_query_duration_seconds_count", &labels[..2]),
        1
    );
}

#[test]
#[ignore = "needs root"]
fn a_query_without_answer_times_out_and_a_repeated_one_has_two_chances() {
    let settings = SignalSettings {
        dns_timeout: Duration::from_millis(400),
        ..SignalSettings::default()
    };
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start_with("dns", settings) else {
        return;
    };
    let socket = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    lab.in_client(|| {
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Never answered.
        client.send_to(&query(1, A), (lab.server4, 53)).unwrap();
        // Asked twice, answered once.
        client.send_to(&query(2, A), (lab.server4, 53)).unwrap();
        thread::sleep(Duration::from_millis(50));
        client.send_to(&query(2, A), (lab.server4, 53)).unwrap();
        let mut buffer = [0; 512];
        for _ in 0..3 {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            if buffer[1] == 2 && length > 12 {
                socket
                    .send_to(&answer(&buffer[..length], 0, false), from)
                    .unwrap();
                break;
            }
        }
        client.recv_from(&mut buffer).unwrap();
    });
    measurement.collect();
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    assert_eq!(measurement.count("dns_queries_total", &edge), 3);
    assert_eq!(measurement.count("dns_responses_total", &edge), 1);
    assert_eq!(measurement.count("dns_timeouts_total", &edge), 0);
    let waiting = [edge.as_slice(), &[("late", "false")]].concat();
    assert_eq!(measurement.count("dns_waiting_queries", &waiting), 1);
    // From the first of the two questions.
    assert!(measurement.sum("dns_query_duration_seconds_sum", &edge) >= 0.05);
    thread::sleep(Duration::from_millis(500));
    measurement.collect();
    assert_eq!(measurement.count("dns_timeouts_total", &edge), 2);
    assert_eq!(measurement.count("dns_waiting_queries", &edge), 0);
}
