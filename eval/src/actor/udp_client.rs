//! A UDP client that sends numbered datagrams at a steady rate and waits for each to come back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::{Beat, Live, Report, error_name, unspecified};
use crate::scenario::Family;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    to: SocketAddr,
    /// Datagrams a second, over all workers.
    #[serde(default = "default_rate")]
    rate: f64,
    #[serde(default = "default_workers")]
    workers: u32,
    #[serde(default = "default_size")]
    size: usize,
    #[serde(default = "default_timeout")]
    timeout_ms: u64,
}

fn default_rate() -> f64 {
    20.0
}

fn default_workers() -> u32 {
    8
}

fn default_size() -> usize {
    200
}

fn default_timeout() -> u64 {
    500
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
    for number in 0_u64.. {
        beat.wait(|| live.get().rate / workers);
        let settings = live.get();
        let started = Instant::now();
        match exchange(&settings, number) {
            Ok(()) => report.ok(started.elapsed()),
            Err(error) => report.error(error_name(&error)),
        }
    }
}

/// A socket per exchange, so that a late answer is not taken for the next one's.
fn exchange(settings: &Settings, number: u64) -> io::Result<()> {
    let family = if settings.to.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(family), 0))?;
    socket.connect(settings.to)?;
    socket.set_read_timeout(Some(Duration::from_millis(settings.timeout_ms)))?;
    let mut datagram = vec![b'd'; settings.size.max(8)];
    datagram[..8].copy_from_slice(&number.to_be_bytes());
    socket.send(&datagram)?;
    let mut answer = vec![0; 65_536];
    socket.recv(&mut answer).map(|_| ())
}
