//! The flow table, against connections that the test makes itself.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use runwire_collector::enrich::{Answered, FiveTuple};
use runwire_collector::flows::{Clock, DatagramFeed, Filter, FlowLimits, Flows, Row, Sort, Span};
use runwire_collector::signals::{SignalSettings, UdpFlows};

use super::lab::{Lab, nft, run};
use super::measure::Measurement;

struct Table {
    measurement: Measurement,
    flows: Flows,
}

impl Table {
    fn start(limits: FlowLimits) -> Option<Self> {
        let flows = Flows::default();
        flows.lock().set_limits(limits);
        let settings = SignalSettings {
            flows: flows.clone(),
            ..SignalSettings::default()
        };
        let measurement = Measurement::start_with("tcp_lifecycle", settings)?;
        Some(Self { measurement, flows })
    }

    /// What the table holds of a lab, the oldest first.
    fn rows(&mut self, lab: &Lab, span: Option<Span>) -> Vec<Row> {
        self.measurement.collect();
        let filter = Filter {
            workload: Some(lab.client.clone()),
            span,
            ..Filter::default()
        };
        let flows = self.flows.lock();
        let mut rows = flows.rows(&filter, Sort::Started, usize::MAX, Clock::now());
        rows.reverse();
        rows
    }
}

/// Answers `answer` bytes to `request` bytes on every connection, and closes when the client does.
fn serve(listener: TcpListener, request: usize, answer: usize) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                if stream.read_exact(&mut vec![0; request]).is_ok() {
                    let _ = stream.write_all(&vec![7; answer]);
                    let _ = stream.read(&mut [0; 1]);
                }
            });
        }
    });
}

fn ask(server: SocketAddr, request: usize, answer: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&vec![1; request]).unwrap();
    stream.read_exact(&mut vec![0; answer]).unwrap();
    stream
}

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn a_connection_is_one_row_from_open_to_closed(server: fn(&Lab) -> IpAddr) {
    let lab = Lab::new();
    let limits = FlowLimits {
        persistent_after: Duration::from_millis(1500),
        ..FlowLimits::default()
    };
    let Some(mut table) = Table::start(limits) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((server(&lab), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    serve(listener, 1000, 5000);

    let held = lab.in_client(|| ask(address, 1000, 5000));
    let local = held.local_addr().unwrap();
    pause(100);
    let rows = table.rows(&lab, None);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let row = &rows[0];
    assert_eq!((row.state, row.role, row.protocol), ("open", "both", "tcp"));
    assert_eq!(SocketAddr::new(row.src_address, row.src_port), local);
    assert_eq!(SocketAddr::new(row.dst_address, row.dst_port), address);
    assert_eq!((row.bytes_sent, row.bytes_received), (1000, 5000));
    assert_eq!(*row.source.name, lab.client);
    assert_eq!(*row.destination.name, lab.server);
    assert!(!row.persistent && row.ended.is_none() && row.service.is_none());

    drop(lab.in_client(|| ask(address, 1000, 5000)));
    lab.in_client(|| TcpStream::connect((server(&lab), 9)).unwrap_err());
    pause(1500);
    drop(held);
    pause(200);
    let rows = table.rows(&lab, None);
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.state,
                row.reason,
                row.bytes_sent,
                row.bytes_received,
                row.persistent,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("closed", None, 1000, 5000, true),
            ("closed", None, 1000, 5000, false),
            ("failed", Some("refused"), 0, 0, false),
        ]
    );
    assert!((1.6..3.0).contains(&rows[0].duration_seconds), "{rows:#?}");
    // Nothing is new, so nothing moves.
    let what = |row: &Row| {
        (
            row.id,
            row.state,
            row.bytes_sent,
            row.segments_sent,
            row.duration_seconds,
        )
    };
    let again = table.rows(&lab, None);
    assert!(
        rows.iter().map(what).eq(again.iter().map(what)),
        "{again:#?}"
    );
}

#[test]
#[ignore = "needs root"]
fn a_connection_is_one_row_from_open_to_closed_over_ipv4() {
    a_connection_is_one_row_from_open_to_closed(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn a_connection_is_one_row_from_open_to_closed_over_ipv6() {
    a_connection_is_one_row_from_open_to_closed(|lab| lab.server6);
}

#[test]
#[ignore = "needs root"]
fn a_time_range_counts_what_moved_in_it() {
    let lab = Lab::new();
    let Some(mut table) = Table::start(FlowLimits::default()) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    serve(listener, 1000, 5000);
    let now = || Clock::now().monotonic;
    let before = now();
    drop(lab.in_client(|| ask(address, 1000, 5000)));
    let mut held = lab.in_client(|| ask(address, 1000, 5000));
    pause(300);
    table.rows(&lab, None);
    pause(200);
    let between = now();
    held.write_all(&[1; 70]).unwrap();
    pause(200);
    let sums = |rows: &[Row]| -> (u64, u64) {
        let sent = rows.iter().map(|row| row.bytes_sent).sum();
        (sent, rows.iter().map(|row| row.bytes_received).sum())
    };
    let mut between_and = |from, to| sums(&table.rows(&lab, Some(Span { from, to })));
    assert_eq!(between_and(before, between), (2000, 10_000));
    assert_eq!(between_and(between, now()), (70, 0));
    assert_eq!(between_and(0, before), (0, 0));
}

#[test]
#[ignore = "needs root"]
fn a_full_table_holds_the_newest() {
    const LIMIT: usize = 64;
    let lab = Lab::new();
    let limits = FlowLimits {
        entries: LIMIT,
        ..FlowLimits::default()
    };
    let Some(mut table) = Table::start(limits) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    serve(listener, 1, 1);
    let mut last = 0;
    for _ in 0..3 * LIMIT {
        let stream = lab.in_client(|| ask(address, 1, 1));
        last = stream.local_addr().unwrap().port();
    }
    pause(200);
    let rows = table.rows(&lab, None);
    let statistics = table.flows.lock().statistics();
    assert_eq!(statistics.entries, LIMIT);
    assert!(statistics.evicted_ended + statistics.evicted_open >= 2 * LIMIT as u64);
    assert!(rows.iter().any(|row| row.src_port == last), "{rows:#?}");
}

/// The client's own namespace translates; a router would be found in the same way.
fn a_service_is_one_edge_to_its_backend(server: fn(&Lab) -> IpAddr, is_held: bool) {
    let lab = Lab::new();
    let Some(mut table) = Table::start(FlowLimits::default()) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((server(&lab), 0)).unwrap());
    let backend = listener.local_addr().unwrap();
    serve(listener, 1000, 5000);
    let (family, service, length): (_, IpAddr, _) = if backend.is_ipv4() {
        ("ip", Ipv4Addr::new(10, 96, 0, 1).into(), 32)
    } else {
        (
            "ip6",
            Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 1).into(),
            128,
        )
    };
    let client = &lab.client;
    run(&format!(
        "ip -n {client} route add {service}/{length} dev eth0"
    ));
    if is_held {
        run(&format!(
            "ip -n {} address add {service}/{length} dev lo",
            lab.server
        ));
    }
    let rules = format!(
        "table inet t {{\n chain c {{\n type nat hook output priority -100\n \
         {family} daddr {service} tcp dport 80 dnat {family} to {backend}\n }}\n}}\n"
    );
    if !nft(client, &rules) {
        return;
    }
    drop(lab.in_client(|| ask(SocketAddr::new(service, 80), 1000, 5000)));
    let _held = lab.in_client(|| ask(SocketAddr::new(service, 80), 1000, 5000));
    drop(lab.in_client(|| ask(backend, 1000, 5000)));
    pause(200);
    let rows = table.rows(&lab, None);
    assert_eq!(rows.len(), 3, "{rows:#?}");
    for (row, through) in rows.iter().zip([true, true, false]) {
        assert_eq!(row.role, "both");
        assert_eq!((row.bytes_sent, row.bytes_received), (1000, 5000));
        assert_eq!(*row.destination.name, lab.server);
        assert_eq!(SocketAddr::new(row.dst_address, row.dst_port), backend);
        let expected = through.then(|| SocketAddr::new(service, 80));
        assert_eq!(
            (row.service, row.backend),
            (expected, expected.map(|_| backend))
        );
    }
    // The metrics name the backend too.
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    let attempts = (table.measurement).count("tcp_connect_attempts_total", &edge);
    let all = table.measurement.show("tcp_connect_attempts");
    assert_eq!(attempts, 3, "{all}");
}

#[test]
#[ignore = "needs root"]
fn a_service_is_its_backend_however_soon_one_looks_again() {
    const SERVICES: u8 = 4;
    let lab = Lab::new();
    let Some(mut table) = Table::start(FlowLimits::default()) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let backend = listener.local_addr().unwrap();
    serve(listener, 10, 50);
    let client = &lab.client;
    run(&format!("ip -n {client} route add 10.96.1.0/24 dev eth0"));
    let rules = format!(
        "table inet t {{\n chain c {{\n type nat hook output priority -100\n \
         ip daddr 10.96.1.0/24 tcp dport 80 dnat ip to {backend}\n }}\n}}\n"
    );
    if !nft(client, &rules) {
        return;
    }
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    for number in 1..=SERVICES {
        let service = SocketAddr::from(([10, 96, 1, number], 80));
        drop(lab.in_client(|| ask(service, 10, 50)));
        table.measurement.collect();
        let attempts = (table.measurement).count("tcp_connect_attempts_total", &edge);
        let all = table.measurement.show("tcp_connect_attempts");
        assert_eq!(attempts, u64::from(number), "{all}");
    }
}

/// To list them all is dear, so it is done seldom, and in between single connections are asked for.
#[test]
#[ignore = "needs root"]
fn a_service_is_its_backend_beside_sixty_thousand_translated_connections() {
    const SERVICES: u8 = 4;
    let lab = Lab::new();
    let Some(mut table) = Table::start(FlowLimits::default()) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let backend = listener.local_addr().unwrap();
    serve(listener, 10, 50);
    let client = &lab.client;
    run(&format!("ip -n {client} route add 10.96.1.0/24 dev eth0"));
    let rules = format!(
        "table inet t {{\n chain c {{\n type nat hook output priority -100\n \
         ip daddr 10.96.1.0/24 tcp dport 80 dnat ip to {backend}\n }}\n}}\n"
    );
    if !nft(client, &rules) || !track(client, 60_000) {
        return;
    }
    let mut last = None;
    for number in 1..=SERVICES {
        let service = SocketAddr::from(([10, 96, 1, number], 80));
        drop(lab.in_client(|| ask(service, 10, 50)));
        pause(50);
        let rows = table.rows(&lab, None);
        let of_service = rows.iter().find(|row| row.service == Some(service));
        let of_service = of_service.unwrap_or_else(|| panic!("{service} {rows:#?}"));
        assert_eq!(of_service.backend, Some(backend));
        last = Some(FiveTuple {
            protocol: 6,
            client: SocketAddr::new(of_service.src_address, of_service.src_port),
            server: service,
        });
    }
    let enricher = table.measurement.enricher();
    enricher.begin_collection();
    let answered = enricher.learn_translations_of(&[last.unwrap()]);
    assert_eq!(answered, Answered::First(1), "they are not listed again");
}

/// Adds connections to a tracking table, each with another destination than its client thinks.
/// False, with a word to the reader, where that cannot be done.
#[expect(clippy::print_stderr, reason = "who runs the tests must see this")]
fn track(namespace: &str, connections: u32) -> bool {
    let lines = (0..connections).map(|number| {
        let (client, port) = (number / 60_000, 1024 + number % 60_000);
        format!(
            "-A -t 600 -u SEEN_REPLY,ASSURED -p tcp --state ESTABLISHED -g 10.1.0.1 \
             -s 10.{client}.7.7 -d 10.97.0.1 --sport {port} --dport 80 \
             -r 10.1.0.1 -q 10.{client}.7.7 --reply-port-src 80 --reply-port-dst {port}\n"
        )
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.collect::<String>()).unwrap();
    let done = Command::new("ip")
        .args(["netns", "exec", namespace, "conntrack", "-R"])
        .arg(file.path())
        .output();
    let done = done.is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("skipped: conntrack cannot add connections here");
    }
    done
}

#[test]
#[ignore = "needs root"]
fn a_service_is_one_edge_to_its_backend_over_ipv4() {
    a_service_is_one_edge_to_its_backend(|lab| lab.server4, false);
}

#[test]
#[ignore = "needs root"]
fn a_service_is_one_edge_to_its_backend_over_ipv6() {
    a_service_is_one_edge_to_its_backend(|lab| lab.server6, false);
}

#[test]
#[ignore = "needs root"]
fn a_service_whose_address_somebody_has_is_one_edge_too() {
    a_service_is_one_edge_to_its_backend(|lab| lab.server4, true);
}

fn datagrams_make_a_flow(server: fn(&Lab) -> IpAddr) {
    let lab = Lab::new();
    let udp_flows = UdpFlows::default();
    let flows = Flows::default();
    flows.lock().set_limits(FlowLimits {
        timeout: Duration::from_secs(60),
        ..FlowLimits::default()
    });
    let settings = SignalSettings {
        udp_flows: Some(udp_flows.clone()),
        ..SignalSettings::default()
    };
    let Some(mut measurement) = Measurement::start_with("udp", settings) else {
        return;
    };
    let mut feed = DatagramFeed::new(flows.clone());
    let address = server(&lab);
    let socket = lab.in_server(|| UdpSocket::bind((address, 0)).unwrap());
    let address = socket.local_addr().unwrap();
    let mut rows = |measurement: &mut Measurement| {
        measurement.collect();
        let now = Clock::now();
        feed.take(udp_flows.take().0, measurement.enricher(), now.monotonic);
        let filter = Filter {
            workload: Some(lab.client.clone()),
            port: Some(address.port()),
            ..Filter::default()
        };
        flows.lock().rows(&filter, Sort::Started, usize::MAX, now)
    };
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = lab.in_client(|| UdpSocket::bind(any).unwrap());
    let exchange = |times: usize| {
        for _ in 0..times {
            client.send_to(&[1; 100], address).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 200]).unwrap();
            socket.send_to(&[2; 30], from).unwrap();
            client.recv(&mut [0; 200]).unwrap();
        }
    };
    exchange(3);
    assert_eq!(rows(&mut measurement).len(), 1);
    exchange(4);
    let all = rows(&mut measurement);
    assert_eq!(all.len(), 1, "{all:#?}");
    let row = &all[0];
    assert_eq!((row.protocol, row.state, row.role), ("udp", "open", "both"));
    assert_eq!((row.bytes_sent, row.bytes_received), (700, 210));
    assert_eq!((row.segments_sent, row.segments_received), (7, 7));
    assert_eq!(*row.source.name, lab.client);
    assert_eq!(*row.destination.name, lab.server);
    assert_eq!(row.src_port, client.local_addr().unwrap().port());
    // It goes when it has been silent for long enough.
    flows.lock().age(Clock::now().monotonic + 59_000_000_000);
    assert_eq!(rows(&mut measurement).len(), 1);
    flows.lock().age(Clock::now().monotonic + 61_000_000_000);
    assert_eq!(rows(&mut measurement).len(), 0);
}

#[test]
#[ignore = "needs root"]
fn datagrams_make_a_flow_over_ipv4() {
    datagrams_make_a_flow(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn datagrams_make_a_flow_over_ipv6() {
    datagrams_make_a_flow(|lab| lab.server6);
}
