//! A TLS client: OpenSSL's own, which verifies the server and asks for a page over a new connection each time.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::{Beat, Live, Report};
use crate::certificates::SERVER_NAME;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    to: SocketAddr,
    /// Where the lab's certificates are.
    #[serde(default)]
    certificates: PathBuf,
    /// Pages a second, over all workers.
    #[serde(default = "default_rate")]
    rate: f64,
    #[serde(default = "default_workers")]
    workers: u32,
    /// The only version spoken, as OpenSSL writes it: `tls1_2`. Empty: all.
    #[serde(default)]
    version: String,
    /// Whether it has a certificate to show.
    #[serde(default = "yes")]
    own_certificate: bool,
}

fn default_rate() -> f64 {
    4.0
}

fn default_workers() -> u32 {
    2
}

fn yes() -> bool {
    true
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let report = Report::default();
    let workers = live.get().workers.max(1);
    for worker in 0..workers {
        let live = live.clone();
        let report = report.clone();
        let offset = Duration::from_secs_f64(f64::from(worker) / live.get().rate.max(0.001));
        thread::spawn(move || work(&live, &report, Beat::start(offset), f64::from(workers)));
    }
    report.print_every_second()
}

fn work(live: &Live<Settings>, report: &Report, mut beat: Beat, workers: f64) {
    loop {
        beat.wait(|| live.get().rate / workers);
        let settings = live.get();
        let started = Instant::now();
        match page(&settings) {
            Ok(true) => report.ok(started.elapsed()),
            Ok(false) => report.error("tls"),
            Err(_) => report.error("other"),
        }
    }
}

/// Whether the page came.
fn page(settings: &Settings) -> Result<bool> {
    let file = |name: &str| settings.certificates.join(name);
    let mut command = Command::new("timeout");
    command.args(["3", "openssl", "s_client", "-quiet", "-verify_return_error"]);
    command.args(["-connect", &settings.to.to_string()]);
    command.args(["-servername", SERVER_NAME, "-verify_hostname", SERVER_NAME]);
    command.arg("-CAfile").arg(file("ca.pem"));
    if !settings.version.is_empty() {
        command.arg(format!("-{}", settings.version));
    }
    if settings.own_certificate {
        command.arg("-cert").arg(file("client.pem"));
        command.arg("-key").arg(file("client.key"));
    }
    let mut client = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = client.stdin.take() {
        // A client that ended already says so by its output.
        let _ = input.write_all(b"GET / HTTP/1.0\r\n\r\n");
    }
    let output = client.wait_with_output()?;
    Ok(output.stdout.starts_with(b"HTTP/1.0 200"))
}
