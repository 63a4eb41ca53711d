//! TLS between `openssl s_client` and `openssl s_server`: what is exported of it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runwire_collector::signals::SignalSettings;
use runwire_collector::tls::table::{Entry, TlsTable};

use super::lab::Lab;
use super::measure::Measurement;
use super::tls_pieces::{TLS13, pieces};

/// A server of OpenSSL's with a certificate of its own, gone when it is dropped.
pub(super) struct TlsServer {
    child: Child,
    directory: tempfile::TempDir,
    pub(super) address: SocketAddr,
}

impl TlsServer {
    pub(super) fn start(lab: &Lab, address: IpAddr, days: i64, arguments: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name).display().to_string();
        let make = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {} -out {} \
             -days {days} -subj /CN=shop.test",
            path("key"),
            path("certificate"),
        );
        super::lab::run(&make);
        let port = lab.in_server(|| {
            TcpListener::bind((address, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        });
        let address = SocketAddr::new(address, port);
        let line = format!(
            "ip netns exec {} openssl s_server -accept {address} -quiet -www \
             -cipher DEFAULT:@SECLEVEL=0 -key {} -cert {} {arguments}",
            lab.server,
            path("key"),
            path("certificate"),
        );
        let server = Self {
            child: spawn(&line),
            directory,
            address,
        };
        server.wait(lab);
        server
    }

    fn wait(&self, lab: &Lab) {
        for _ in 0..200 {
            let listening = super::lab::run(&format!("ip netns exec {} ss -Hltn", lab.server));
            if listening.contains(&format!(":{} ", self.address.port())) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("openssl does not listen");
    }

    fn not_after(&self) -> i64 {
        let certificate = self.directory.path().join("certificate");
        let text = super::lab::run(&format!(
            "openssl x509 -in {} -noout -enddate -dateopt iso_8601",
            certificate.display()
        ));
        let time = text
            .trim()
            .trim_start_matches("notAfter=")
            .replace(' ', "T");
        time.parse::<jiff::Timestamp>().unwrap().as_second()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(line: &str) -> Child {
    let mut words = line.split_ascii_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// One handshake of `openssl s_client`, which ends it as its input does.
pub(super) fn connect(lab: &Lab, server: SocketAddr, arguments: &str) {
    let line = format!(
        "ip netns exec {} openssl s_client -connect {server} -cipher DEFAULT:@SECLEVEL=0 {arguments}",
        lab.client
    );
    spawn(&line).wait().unwrap();
}

pub(super) struct Setup {
    pub(super) lab: Lab,
    pub(super) measurement: Measurement,
    table: TlsTable,
}

impl Setup {
    pub(super) fn new(settings: SignalSettings) -> Option<Self> {
        let lab = Lab::new();
        let table = settings.tls_table.clone();
        let measurement = Measurement::start_with("protocol", settings)?;
        Some(Self {
            lab,
            measurement,
            table,
        })
    }

    pub(super) fn collect(&mut self) {
        thread::sleep(Duration::from_millis(1500));
        self.measurement.collect();
    }

    pub(super) fn count(&self, metric: &str, extra: &[(&str, &str)]) -> u64 {
        let edge = [
            ("src_workload", self.lab.client.as_str()),
            ("dst_workload", self.lab.server.as_str()),
        ];
        self.measurement.count(metric, &[&edge, extra].concat())
    }

    pub(super) fn show(&self) -> String {
        self.measurement.show("tls_")
    }

    /// Of this lab: others speak TLS too.
    pub(super) fn rows(&self) -> Vec<Entry> {
        let mut rows = self.table.list();
        rows.retain(|row| *row.src.name == *self.lab.client);
        rows
    }
}

fn every_version_is_counted(address: fn(&Lab) -> IpAddr) {
    let Some(mut setup) = Setup::new(SignalSettings::default()) else {
        return;
    };
    let address = address(&setup.lab);
    let server = TlsServer::start(&setup.lab, address, 30, "");
    let name = format!("{}.{}.shop.test", "a".repeat(63), "b".repeat(59));
    for version in ["1", "1_1", "1_2", "1_3"] {
        for _ in 0..5 {
            let arguments = format!("-tls{version} -servername {name} -alpn h2,http/1.1");
            connect(&setup.lab, server.address, &arguments);
        }
    }
    setup.collect();
    let show = setup.show();
    for version in ["1.0", "1.1", "1.2", "1.3"] {
        let labels = [("version", version)];
        assert_eq!(
            setup.count("tls_handshakes_total", &labels),
            5,
            "{version}\n{show}"
        );
        assert_eq!(
            setup.count("tls_client_hellos_total", &labels),
            5,
            "{version}\n{show}"
        );
    }
    let cipher = [("cipher", "TLS_AES_256_GCM_SHA384")];
    assert_eq!(setup.count("tls_handshakes_total", &cipher), 5, "{show}");
    assert_eq!(
        setup.count("tls_handshake_duration_seconds_count", &[]),
        20,
        "{show}"
    );
    assert_eq!(
        setup.count("tls_alpn_total", &[("protocol", "h2")]),
        20,
        "{show}"
    );
    assert_eq!(
        setup.count("tls_handshake_failures_total", &[]),
        0,
        "{show}"
    );
    assert_eq!(
        setup.count("protocol_connections_total", &[("protocol", "tls")]),
        20
    );
    let seconds = setup.measurement.sum(
        "tls_handshake_duration_seconds_sum",
        &[("dst_workload", &setup.lab.server)],
    );
    assert!((0.001..20.0).contains(&seconds), "{seconds} s");
    let rows = setup.rows();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row.key.server.name.as_deref(), Some(name.as_str()));
        assert_eq!(row.key.server.port, server.address.port());
        assert_eq!(row.handshakes, 5);
        assert_eq!(row.client_versions.first(), Some(&row.key.version));
        let certificate = row.certificate.map(|seen| seen.certificate.not_after);
        // TLS 1.3 hides it, and we do not ask unless we are told to.
        let expected = (row.key.version != "1.3").then(|| server.not_after());
        assert_eq!(certificate, expected, "{}", row.key.version);
    }
}

#[test]
#[ignore = "needs root"]
fn every_version_is_counted_over_ipv4() {
    every_version_is_counted(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn every_version_is_counted_over_ipv6() {
    every_version_is_counted(|lab| lab.server6);
}

#[test]
#[ignore = "needs root"]
fn certificates_expire_when_openssl_says() {
    let settings = SignalSettings {
        tls_probe: true,
        ..SignalSettings::default()
    };
    let Some(mut setup) = Setup::new(settings) else {
        return;
    };
    let lab = &setup.lab;
    let servers = [1, 30].map(|days| TlsServer::start(lab, lab.server4, days, "-tls1_2"));
    let hidden = TlsServer::start(lab, lab.server6, 365, "-tls1_3");
    for server in servers.iter().chain([&hidden]) {
        connect(lab, server.address, "-servername shop.test");
    }
    let times = |setup: &Setup, which: &str| -> Vec<i64> {
        let owner = format!("workload=\"{}\"", setup.lab.server);
        let text = setup
            .measurement
            .show(&format!("tls_certificate_{which}_timestamp_seconds{{"));
        let lines = text.lines().filter(|line| line.contains(&owner));
        let mut times: Vec<i64> = lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as i64)
            .collect();
        times.sort_unstable();
        times
    };
    let deadline = Instant::now() + Duration::from_secs(15);
    while times(&setup, "expiry").len() < 3 && Instant::now() < deadline {
        setup.collect();
    }
    let expected: Vec<i64> = servers
        .iter()
        .chain([&hidden])
        .map(TlsServer::not_after)
        .collect();
    assert_eq!(times(&setup, "expiry"), expected, "{}", setup.show());
    let mut begun: Vec<i64> = (expected.iter().zip([1, 30, 365]))
        .map(|(end, days)| end - days * 24 * 3600)
        .collect();
    begun.sort_unstable();
    assert_eq!(times(&setup, "not_before"), begun);
    // The probe itself is nobody's handshake.
    let hellos = setup.measurement.count(
        "tls_client_hellos_total",
        &[("dst_workload", &setup.lab.server)],
    );
    assert_eq!(hellos, 3, "{}", setup.show());
}

#[test]
#[ignore = "needs root"]
fn a_failed_handshake_has_its_reason() {
    let settings = SignalSettings {
        tls_handshake_timeout: Duration::from_secs(2),
        ..SignalSettings::default()
    };
    let Some(mut setup) = Setup::new(settings) else {
        return;
    };
    let lab = &setup.lab;
    let server4 = lab.server4;
    let tls = |arguments| TlsServer::start(lab, server4, 30, arguments);
    connect(lab, tls("").address, "-verify_return_error");
    connect(lab, tls("-tls1_3").address, "-tls1_2");
    connect(
        lab,
        tls("-Verify 1 -verify_return_error -tls1_2").address,
        "",
    );
    connect(
        lab,
        tls("-Verify 1 -verify_return_error -tls1_3").address,
        // Waits for what the server says.
        "-ign_eof",
    );
    let hello = &pieces(TLS13)[0].1;
    let speak = |answer: &[u8], wait: Duration, reset: bool| {
        let listener = lab.in_server(|| TcpListener::bind((server4, 0)).unwrap());
        let mut client =
            lab.in_client(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(hello).unwrap();
        // What is not read makes the kernel reset the connection.
        let read = if reset { 10 } else { hello.len() };
        accepted.read_exact(&mut vec![0; read]).unwrap();
        accepted.write_all(answer).unwrap();
        thread::sleep(wait);
    };
    let moment = Duration::from_millis(50);
    speak(b"", moment, false);
    speak(b"", moment, true);
    speak(b"HTTP/1.0 400 Bad Request\r\n\r\n", moment, false);
    speak(b"", Duration::from_millis(2500), false);
    setup.collect();
    let show = setup.show();
    for reason in [
        "unknown_ca",
        "protocol_version",
        "handshake_failure",
        "encrypted_alert",
        "closed",
        "reset",
        "plaintext",
        "timeout",
    ] {
        // OpenSSL's word for a self-signed certificate is its own.
        let count = setup.count("tls_handshake_failures_total", &[("reason", reason)]);
        assert_eq!(count, 1, "{reason}\n{show}");
    }
    assert_eq!(setup.count("tls_client_hellos_total", &[]), 8, "{show}");
    assert_eq!(setup.count("tls_handshakes_total", &[]), 0, "{show}");
    assert_eq!(
        setup.count("tls_plaintext_connections_total", &[]),
        1,
        "{show}"
    );
    let alert = [
        ("alert", "unknown_ca"),
        ("level", "fatal"),
        ("side", "client"),
    ];
    assert_eq!(setup.count("tls_alerts_total", &alert), 1, "{show}");
    let alert = [("alert", "protocol_version"), ("side", "server")];
    assert_eq!(setup.count("tls_alerts_total", &alert), 1, "{show}");
}

#[test]
#[ignore = "needs root"]
fn clear_text_where_tls_is_spoken_is_noticed() {
    let Some(mut setup) = Setup::new(SignalSettings::default()) else {
        return;
    };
    let server = TlsServer::start(&setup.lab, setup.lab.server4, 30, "");
    connect(&setup.lab, server.address, "");
    setup.collect();
    setup.lab.in_client(|| {
        let mut client = TcpStream::connect(server.address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    });
    setup.collect();
    let show = setup.show();
    assert_eq!(
        setup.count("tls_plaintext_connections_total", &[]),
        1,
        "{show}"
    );
    assert_eq!(setup.count("tls_client_hellos_total", &[]), 1, "{show}");
}
