//! Buckets that the user chose, filled by the kernel's programs.

use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use runwire_collector::export::Registry;
use runwire_collector::signals::SignalSettings;

use super::lab::Lab;
use super::measure::Measurement;

#[test]
#[ignore = "loads BPF: needs root"]
fn observations_fall_into_the_buckets_that_were_asked_for() {
    let chosen = |name: &str, bounds: &[f64]| (name.to_owned(), bounds.to_vec());
    let buckets = [
        chosen("tcp_connection_duration_seconds", &[0.1, 0.25]),
        chosen("tcp_connect_duration_seconds", &[10.0]),
        chosen("tcp_rtt_seconds", &[1e-6, 2e-6, 3.0]),
    ];
    let registry = Registry::with_buckets(10_000, buckets.into());
    let lab = Lab::new();
    let signal = "tcp_lifecycle";
    let Some(mut measured) = Measurement::start_in(registry, signal, SignalSettings::default())
    else {
        return;
    };
    for server in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        // Room below and above for a machine that is busy.
        for life in [5, 160, 400] {
            let client = lab.in_client(|| TcpStream::connect(address).unwrap());
            let (accepted, _) = listener.accept().unwrap();
            sleep(Duration::from_millis(life));
            drop(client);
            drop(accepted);
        }
    }
    // The side that closes first waits for the other's FIN.
    sleep(Duration::from_millis(50));
    measured.collect();
    let count = |le: &str| {
        let labels = [
            ("src_workload", &*lab.client),
            ("role", "client"),
            ("le", le),
        ];
        measured.count("tcp_connection_duration_seconds_bucket", &labels)
    };
    let shown = measured.show("tcp_connection_duration_seconds_bucket");
    assert_eq!(
        (count("0.1"), count("0.25"), count("+Inf")),
        (2, 4, 6),
        "{shown}"
    );
    let bounds = |metric: &str| {
        let text = measured.show(metric);
        let of_client = text.lines().filter(|line| line.contains(&lab.client));
        let mut bounds: Vec<String> = of_client
            .filter_map(|line| Some(line.split_once("le=\"")?.1.split('"').next()?.to_owned()))
            .collect();
        bounds.dedup();
        bounds
    };
    assert_eq!(
        bounds("tcp_connect_duration_seconds_bucket"),
        ["10.0", "+Inf"]
    );
}
