//! A DNS client that asks as the C library does: a connected socket per query, a time-out, a second try.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::{Beat, Live, Report, dns_message, error_name, unspecified};
use crate::scenario::Family;
use crate::seed::Random;

const NAMES: &[&str] = &[
    "cart", "checkout", "ledger", "mail", "metrics", "orders", "search", "stock",
];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    to: SocketAddr,
    #[serde(default = "default_rate")]
    rate: f64,
    #[serde(default = "default_workers")]
    workers: u32,
    #[serde(default = "default_timeout")]
    timeout_ms: u64,
    #[serde(default = "default_attempts")]
    attempts: u32,
    #[serde(default = "default_suffix")]
    suffix: String,
}

fn default_rate() -> f64 {
    5.0
}

fn default_workers() -> u32 {
    8
}

fn default_timeout() -> u64 {
    1500
}

fn default_attempts() -> u32 {
    2
}

fn default_suffix() -> String {
    "shop.example".to_owned()
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let report = Report::default();
    let workers = live.get().workers.max(1);
    for worker in 0..workers {
        let live = live.clone();
        let report = report.clone();
        let offset = Duration::from_secs_f64(f64::from(worker) / live.get().rate.max(0.001));
        thread::spawn(move || {
            let mut random = Random::new(worker.into(), "queries");
            let mut beat = Beat::start(offset);
            loop {
                let settings = live.get();
                beat.wait(settings.rate / f64::from(workers));
                let name = format!("{}.{}", random.pick(NAMES), settings.suffix);
                let started = Instant::now();
                match resolve(&name, &settings, &mut random) {
                    Ok(0) => report.ok(started.elapsed()),
                    Ok(2) => report.error("servfail"),
                    Ok(3) => report.error("nxdomain"),
                    Ok(5) => report.error("dns_refused"),
                    Ok(_) => report.error("other"),
                    Err(error) => report.error(error_name(&error)),
                }
            }
        });
    }
    report.print_every_second()
}

fn resolve(name: &str, settings: &Settings, random: &mut Random) -> io::Result<u8> {
    let family = if settings.to.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let kind = match family {
        Family::Ipv4 => dns_message::TYPE_A,
        Family::Ipv6 => dns_message::TYPE_AAAA,
    };
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..settings.attempts.max(1) {
        let id = u16::try_from(random.between(0, 0xffff)).unwrap_or_default();
        match ask(&dns_message::query(id, name, kind), id, family, settings) {
            Ok(code) => return Ok(code),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(query: &[u8], id: u16, family: Family, settings: &Settings) -> io::Result<u8> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(family), 0))?;
    socket.connect(settings.to)?;
    socket.send(query)?;
    let end = Instant::now() + Duration::from_millis(settings.timeout_ms);
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        if let Some(code) = dns_message::response_code(&buffer[..length], id) {
            return Ok(code);
        }
    }
}
