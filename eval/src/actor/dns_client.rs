//! A DNS client that asks as the C library does: a connected socket per query, a time-out, a second try, the suffixes of a
//! search list before the name itself, and TCP where an answer was cut.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
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
    /// Suffixes that are tried one after the other before the name itself, as with `ndots:5`.
    #[serde(default)]
    search: Vec<String>,
    /// A and AAAA at once from one port, as for `getaddrinfo`.
    #[serde(default)]
    both: bool,
    /// One port for every query of a worker, as programs with a resolver of their own do.
    #[serde(default)]
    keep_port: bool,
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
            let mut kept = None;
            loop {
                beat.wait(|| live.get().rate / f64::from(workers));
                let settings = live.get();
                let name = format!("{}.{}", random.pick(NAMES), settings.suffix);
                let started = Instant::now();
                match resolve(&name, &settings, &mut random, &mut kept) {
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

/// The code for the first name of the search list that exists, or for the name itself.
fn resolve(
    name: &str,
    settings: &Settings,
    random: &mut Random,
    kept: &mut Option<UdpSocket>,
) -> io::Result<u8> {
    for suffix in &settings.search {
        let code = look_up(&format!("{name}.{suffix}"), settings, random, kept)?;
        if code != dns_message::NXDOMAIN {
            return Ok(code);
        }
    }
    look_up(name, settings, random, kept)
}

fn look_up(
    name: &str,
    settings: &Settings,
    random: &mut Random,
    kept: &mut Option<UdpSocket>,
) -> io::Result<u8> {
    let kinds: &[u16] = match (settings.both, settings.to.is_ipv4()) {
        (true, _) => &[dns_message::TYPE_A, dns_message::TYPE_AAAA],
        (false, true) => &[dns_message::TYPE_A],
        (false, false) => &[dns_message::TYPE_AAAA],
    };
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..settings.attempts.max(1) {
        let queries: Vec<(u16, Vec<u8>)> = kinds
            .iter()
            .map(|kind| {
                let id = u16::try_from(random.between(0, 0xffff)).unwrap_or_default();
                (id, dns_message::query(id, name, *kind))
            })
            .collect();
        match ask(&queries, settings, kept) {
            Ok(code) => return Ok(code),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends all at once and waits for an answer to each; the code is that of the last.
fn ask(
    queries: &[(u16, Vec<u8>)],
    settings: &Settings,
    kept: &mut Option<UdpSocket>,
) -> io::Result<u8> {
    let socket = match kept.take() {
        Some(socket) => socket,
        None => open(settings)?,
    };
    let code = exchange(&socket, queries, settings);
    if settings.keep_port {
        *kept = Some(socket);
    }
    code
}

fn open(settings: &Settings) -> io::Result<UdpSocket> {
    let family = if settings.to.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(family), 0))?;
    socket.connect(settings.to)?;
    Ok(socket)
}

fn exchange(socket: &UdpSocket, queries: &[(u16, Vec<u8>)], settings: &Settings) -> io::Result<u8> {
    for (_, query) in queries {
        socket.send(query)?;
    }
    let end = Instant::now() + Duration::from_millis(settings.timeout_ms);
    let mut buffer = [0; 4096];
    let mut open: Vec<&(u16, Vec<u8>)> = queries.iter().collect();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        let message = &buffer[..length];
        let Some((at, mut code)) = open.iter().enumerate().find_map(|(at, (id, _))| {
            dns_message::response_code(message, *id).map(|code| (at, code))
        }) else {
            continue;
        };
        let (id, query) = open.swap_remove(at);
        if dns_message::is_truncated(message) {
            code = ask_over_tcp(query, *id, settings)?;
        }
        if open.is_empty() {
            return Ok(code);
        }
    }
}

fn ask_over_tcp(query: &[u8], id: u16, settings: &Settings) -> io::Result<u8> {
    let timeout = Duration::from_millis(settings.timeout_ms);
    let mut stream = TcpStream::connect_timeout(&settings.to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(&dns_message::framed(query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    dns_message::response_code(&message, id).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
