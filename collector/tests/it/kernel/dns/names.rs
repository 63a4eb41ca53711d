//! What is asked for: exact for a few names, bounded for many.

use std::net::UdpSocket;
use std::thread;

use runwire_collector::signals::SignalSettings;

use super::super::lab::Lab;
use super::super::measure::Measurement;
use super::{A, answer_all, query_for};

fn ask(lab: &Lab, names: impl Iterator<Item = String> + Send) {
    lab.in_client(|| {
        let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
        socket.connect((lab.server4, 53)).unwrap();
        for (id, name) in names.enumerate() {
            socket.send(&query_for(id as u16, &name, A)).unwrap();
            socket.recv(&mut [0; 512]).unwrap();
        }
        socket.send(&[0]).unwrap();
    });
}

fn measure(dns_names: usize, names: &[String]) -> Option<(Lab, Measurement)> {
    let settings = SignalSettings {
        dns_names,
        ..SignalSettings::default()
    };
    measure_with(settings, names)
}

/// Names that begin with a letter of an odd number do not exist.
fn measure_with(settings: SignalSettings, names: &[String]) -> Option<(Lab, Measurement)> {
    let lab = Lab::new();
    let mut measurement = Measurement::start_with("dns", settings)?;
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 53)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| answer_all(&server, |query| query[13] % 2 * 3));
        ask(&lab, names.iter().cloned());
    });
    measurement.collect();
    Some((lab, measurement))
}

fn queries(measurement: &Measurement, name: &str) -> u64 {
    let report = measurement.report("dns");
    (report["names"].as_array().unwrap().iter())
        .find(|entry| entry["name"] == name)
        .map_or(0, |entry| entry["queries"].as_u64().unwrap())
}

#[test]
#[ignore = "needs root"]
fn names_are_counted_exactly() {
    let token = format!("t{}", std::process::id());
    let label = "x".repeat(60);
    let long: String = [
        format!("{label}.").repeat(3),
        "y".repeat(50),
        format!(".{token}"),
    ]
    .concat();
    let first = format!("a.{token}.example");
    let second = format!("b.{token}.example");
    let mut names = vec![first.clone(); 6];
    names.push(first.to_uppercase());
    names.extend(vec![second.clone(); 3]);
    names.push(long.clone());
    let Some((_lab, measurement)) = measure(1000, &names) else {
        return;
    };
    let show = measurement.show("dns_name");
    for (name, count, rcode) in [
        (&first, 7, "nxdomain"),
        (&second, 3, "noerror"),
        (&long, 1, "noerror"),
    ] {
        assert_eq!(
            queries(&measurement, name),
            count,
            "{}",
            measurement.report("dns")
        );
        let labels = [("name", name.as_str()), ("rcode", rcode)];
        assert_eq!(
            measurement.count("dns_name_queries_total", &labels),
            count,
            "{show}"
        );
    }
    assert!(long.len() > 230);
}

#[test]
#[ignore = "needs root"]
fn names_are_no_labels_unless_switched_on() {
    let name = format!("q{}.example", std::process::id());
    let Some((_lab, measurement)) = measure(0, std::slice::from_ref(&name)) else {
        return;
    };
    assert_eq!(queries(&measurement, &name), 1);
    assert!(!measurement.show("dns_name_queries_total").contains('{'));
}

#[test]
#[ignore = "needs root"]
fn names_without_room_keep_their_outcome() {
    const NAMES: u64 = 100;
    let settings = SignalSettings {
        dns_names: 1000,
        map_capacity: [("dns_answers".to_owned(), 16)].into(),
        ..SignalSettings::default()
    };
    let token = std::process::id();
    let names: Vec<String> = (0..NAMES).map(|n| format!("a{n}.r{token}.test")).collect();
    let Some((_lab, measurement)) = measure_with(settings, &names) else {
        return;
    };
    let outcome = |rcode| {
        let labels = [("name", "~other"), ("rcode", rcode)];
        measurement.count("dns_name_queries_total", &labels)
    };
    let show = measurement.show("dns_name_queries_total");
    // Names that the rest of the host asks for have no room either.
    assert!(outcome("nxdomain") > NAMES / 2, "{show}");
    assert!(outcome("noerror") < NAMES / 2, "{show}");
}

#[test]
#[ignore = "needs root"]
fn ten_thousand_random_subdomains_stay_bounded() {
    let domain = format!("r{}.co.uk", std::process::id());
    let cluster = format!("r{}.svc.cluster.local", std::process::id());
    let names: Vec<String> = (0..10_000_u64)
        .map(|n| {
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let under = if n % 2 == 0 { &domain } else { &cluster };
            format!("{random:x}.{under}")
        })
        .collect();
    let Some((lab, measurement)) = measure(100, &names) else {
        return;
    };
    let edge = [("src_workload", lab.client.as_str())];
    assert_eq!(measurement.count("dns_queries_total", &edge), 10_000);
    let show = measurement.show("dns_name_queries_total");
    assert!(show.lines().count() < 250, "{show}");
    let total: f64 = [&domain, &cluster]
        .map(|domain| queries(&measurement, &format!("*.{domain}")) as f64)
        .iter()
        .sum();
    assert!(total > 7000.0, "{}", measurement.report("dns"));
    let labels = [("name", format!("*.{domain}"))];
    let labels = labels
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    assert!(
        measurement.count("dns_name_queries_total", &labels) > 3500,
        "{show}"
    );
}
