//! Ends outside by the names that their clients asked for.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use runwire_collector::signals::SignalSettings;

use super::super::lab::{Lab, run};
use super::super::measure::Measurement;
use super::{A, AAAA, query_for};

/// Answers a query with an alias and the address of that.
fn answer_with(query: &[u8], address: IpAddr) -> Vec<u8> {
    const POINTER: [u8; 2] = [0xc0, 12];
    const CNAME: [u8; 2] = [0, 5];
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[7] = 2;
    let alias = message.len() + 12;
    message.extend(POINTER);
    message.extend(CNAME);
    message.extend([0, 1, 0, 0, 0, 60, 0, 6]);
    message.extend(*b"\x03cdn");
    message.extend(POINTER);
    message.extend([0xc0, u8::try_from(alias).unwrap()]);
    let octets = match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    message.extend(if octets.len() == 4 { A } else { AAAA }.to_be_bytes());
    message.extend([0, 1, 0, 0, 0, 60, 0, octets.len() as u8]);
    message.extend(octets);
    message
}

/// The client asks for the name and then sends a query to the address that it got.
fn talk(lab: &Lab, name: &str, outside: IpAddr) {
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    let wait = Some(Duration::from_secs(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            let (length, client) = server.recv_from(&mut buffer).unwrap();
            let answer = answer_with(&buffer[..length], outside);
            server.send_to(&answer, client).unwrap();
        });
        lab.in_client(|| {
            let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
            socket.set_read_timeout(wait).unwrap();
            let qtype = if outside.is_ipv4() { A } else { AAAA };
            let to = SocketAddr::new(lab.server4, 53);
            socket.send_to(&query_for(7, name, qtype), to).unwrap();
            socket.recv(&mut [0; 512]).unwrap();
            let any = if outside.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            let query = query_for(8, "elsewhere.test", A);
            socket.send_to(&query, (outside, 53)).unwrap();
        });
    });
}

#[test]
#[ignore = "needs root"]
fn an_end_outside_has_the_name_that_its_client_asked_for() {
    let lab = Lab::new();
    let settings = SignalSettings {
        external_names: 2,
        ..SignalSettings::default()
    };
    let Some(mut measurement) = Measurement::start_with("dns", settings.clone()) else {
        return;
    };
    let token = format!("t{}", std::process::id());
    // What is wanted is told to the programs at a collection.
    measurement.collect();
    let ends = [
        ("203.0.113.9", format!("api.{token}.example")),
        ("2001:db8:77::9", format!("six.{token}.example")),
        // There are two already.
        ("203.0.113.10", format!("more.{token}.example")),
    ];
    for (address, name) in &ends {
        let address: IpAddr = address.parse().unwrap();
        let gateway = if address.is_ipv4() {
            lab.server4
        } else {
            lab.server6
        };
        let client = &lab.client;
        run(&format!("ip -n {client} route add {address} via {gateway}"));
        talk(&lab, name, address);
        measurement.collect();
    }
    let queries = |measurement: &Measurement, to: &str| {
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("dst_namespace", "~external"),
            ("dst_workload", to),
            ("dst_kind", "external"),
        ];
        measurement.count("dns_queries_total", &labels)
    };
    let show = measurement.show("dns_queries_total");
    assert_eq!(queries(&measurement, &ends[0].1), 1, "{show}");
    assert_eq!(queries(&measurement, &ends[1].1), 1, "{show}");
    assert_eq!(queries(&measurement, &ends[2].1), 0, "{show}");
    assert_eq!(queries(&measurement, "~external"), 1, "{show}");

    // Turned off, the end has no name again.
    measurement.configure(SignalSettings::default());
    measurement.collect();
    talk(&lab, &ends[0].1, ends[0].0.parse().unwrap());
    measurement.collect();
    assert_eq!(queries(&measurement, &ends[0].1), 1);
    assert_eq!(queries(&measurement, "~external"), 2);
}
