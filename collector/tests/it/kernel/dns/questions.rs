//! The same question again, and the same name under another suffix.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::super::lab::Lab;
use super::super::measure::Measurement;
use super::{A, AAAA, answer_all, query, query_for};

const NXDOMAIN: u8 = 3;

/// Text of the query's name.
fn name_of(query: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &query[12..];
    while rest[0] > 0 {
        let (label, after) = rest[1..].split_at(rest[0].into());
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = after;
    }
    labels.join(".")
}

fn count(measurement: &Measurement, lab: &Lab, metric: &str) -> u64 {
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    measurement.count(metric, &edge)
}

fn send(lab: &Lab, query: &[u8]) {
    lab.in_client(|| {
        let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
        socket.send_to(query, (lab.server4, 53)).unwrap();
        // Whether an answer comes or not.
        socket
            .set_read_timeout(Some(Duration::from_millis(30)))
            .unwrap();
        let _ = socket.recv(&mut [0; 512]);
    });
}

#[test]
#[ignore = "needs root"]
fn a_question_without_usable_answer_is_repeated() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    // Silent: the same id, another id, other letters, but one question.
    send(&lab, &query(1, A));
    send(&lab, &query(1, A));
    send(&lab, &query(2, A));
    send(&lab, &query_for(3, "WWW.exAMple.test", A));
    // Others.
    send(&lab, &query(4, AAAA));
    send(&lab, &query_for(5, "www.example.example", A));
    server.set_nonblocking(true).unwrap();
    while server.recv(&mut [0; 512]).is_ok() {}
    server.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        // From here on, one answer with an error, then good ones.
        let answers = scope.spawn(|| {
            let failed = std::cell::Cell::new(false);
            answer_all(&server, |_| if failed.replace(true) { 0 } else { 2 });
        });
        for id in 10..14 {
            send(&lab, &query_for(id, "db.example.test", A));
        }
        send(&lab, &[0]);
        answers.join().unwrap();
    });
    measurement.collect();
    let show = measurement.show("dns_");
    assert_eq!(count(&measurement, &lab, "dns_queries_total"), 10, "{show}");
    // Three that heard nothing, one that heard an error; not the two after a good answer.
    assert_eq!(
        count(&measurement, &lab, "dns_repeated_queries_total"),
        4,
        "{show}"
    );
    assert_eq!(
        count(&measurement, &lab, "dns_search_suffix_queries_total"),
        0,
        "{show}"
    );
}

#[test]
#[ignore = "needs root"]
fn two_questions_under_one_id_have_an_answer_each() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    lab.in_client(|| {
        let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
        for qtype in [A, AAAA] {
            socket.send_to(&query(9, qtype), (lab.server4, 53)).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| super::serve_udp(&server, &[NXDOMAIN, NXDOMAIN]));
            for _ in 0..2 {
                socket.recv(&mut [0; 512]).unwrap();
            }
        });
    });
    measurement.collect();
    for qtype in ["a", "aaaa"] {
        let labels = [("src_workload", lab.client.as_str()), ("qtype", qtype)];
        let show = measurement.show("dns_");
        assert_eq!(measurement.count("dns_queries_total", &labels), 1, "{show}");
        assert_eq!(
            measurement.count("dns_responses_total", &labels),
            1,
            "{show}"
        );
    }
    assert_eq!(count(&measurement, &lab, "dns_repeated_queries_total"), 0);
}

/// `ip netns exec` shows it to what it starts.
struct ResolvConf(String);

impl ResolvConf {
    fn new(lab: &Lab, text: &str) -> Self {
        let directory = format!("/etc/netns/{}", lab.client);
        fs::create_dir_all(&directory).unwrap();
        fs::write(format!("{directory}/resolv.conf"), text).unwrap();
        Self(directory)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "needs root"]
fn the_search_list_of_the_c_library_is_recognized() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    let text = format!(
        "nameserver {}\nsearch shop.svc.cluster.test svc.cluster.test one.example\noptions ndots:5\n",
        lab.server4
    );
    let _resolv = ResolvConf::new(&lab, &text);
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    let look_up = |name: &str| {
        let arguments = ["netns", "exec", &lab.client, "getent", "ahosts", name];
        Command::new("ip").args(arguments).output().unwrap();
    };
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            answer_all(&server, |query| {
                if name_of(query) == "api.example.test" {
                    0
                } else {
                    NXDOMAIN
                }
            });
        });
        look_up("api.example.test");
        // Nothing after it in the list is asked for.
        look_up("gone.example.test.");
        send(&lab, &[0]);
        answers.join().unwrap();
    });
    measurement.collect();
    let show = measurement.show("dns_");
    // A and AAAA: under three suffixes and alone; the other alone.
    assert_eq!(count(&measurement, &lab, "dns_queries_total"), 10, "{show}");
    assert_eq!(
        count(&measurement, &lab, "dns_search_suffix_queries_total"),
        6,
        "{show}"
    );
    assert_eq!(
        count(&measurement, &lab, "dns_repeated_queries_total"),
        0,
        "{show}"
    );
}

#[test]
#[ignore = "needs root"]
fn extension_headers_are_skipped() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    // With a header of destination options, which takes a right of root's and so a raw call.
    let bytes: String = query(7, A)
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    let script = format!(
        "import socket as s; u = s.socket(s.AF_INET6, s.SOCK_DGRAM); \
         u.setsockopt(41, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0])); u.sendto(b'{bytes}', ('{}', 53))",
        lab.server6
    );
    let arguments = ["netns", "exec", &lab.client, "python3", "-c", &script];
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    measurement.collect();
    let labels = [("src_workload", lab.client.as_str()), ("qtype", "a")];
    let show = measurement.show("dns_");
    assert_eq!(measurement.count("dns_queries_total", &labels), 1, "{show}");
}
