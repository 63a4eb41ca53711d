//! A TCP client with a steady request rate that reports how it was served.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::{Beat, Live, Report, error_name, read_paced, tcp_server};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    to: SocketAddr,
    /// Another address of the server, which is tried before, as programs do with a name of both families.
    #[serde(default)]
    first: Option<IpAddr>,
    /// Requests a second, over all workers.
    #[serde(default = "default_rate")]
    rate: f64,
    #[serde(default = "default_workers")]
    workers: u32,
    /// A connection for every request instead of one per worker.
    #[serde(default)]
    new_connection: bool,
    /// Instead of the server's port, this one and those behind it, one after the other.
    #[serde(default)]
    scan_from: Option<u16>,
    #[serde(default = "default_upload")]
    upload_bytes: u32,
    #[serde(default = "default_download")]
    download_bytes: u32,
    #[serde(default = "default_connect_timeout")]
    connect_timeout_ms: u64,
    /// Speed at which answers are read; 0 is as fast as they come.
    #[serde(default)]
    read_bytes_per_second: u64,
    /// Longest wait without progress while sending or receiving.
    #[serde(default = "default_timeout")]
    timeout_ms: u64,
}

fn default_rate() -> f64 {
    20.0
}

fn default_workers() -> u32 {
    4
}

fn default_upload() -> u32 {
    200
}

fn default_download() -> u32 {
    2000
}

fn default_connect_timeout() -> u64 {
    2500
}

fn default_timeout() -> u64 {
    3000
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let report = Report::default();
    let workers = live.get().workers.max(1);
    for worker in 0..workers {
        let live = live.clone();
        let report = report.clone();
        let period = f64::from(workers) / live.get().rate.max(0.001);
        let offset = Duration::from_secs_f64(period * f64::from(worker) / f64::from(workers));
        thread::spawn(move || work(&live, &report, Beat::start(offset), f64::from(workers)));
    }
    report.print_every_second()
}

fn work(live: &Live<Settings>, report: &Report, mut beat: Beat, workers: f64) {
    let mut kept: Option<TcpStream> = None;
    loop {
        beat.wait(|| live.get().rate / workers);
        let settings = live.get();
        // As HTTP clients do: a connection that the server closed while idle is not used again.
        let reused = kept.take().filter(is_idle);
        let started = Instant::now();
        let outcome = reused
            .map_or_else(|| connect(&settings), Ok)
            .and_then(|mut stream| exchange(&mut stream, &settings).map(|last| (stream, last)));
        match outcome {
            Ok((stream, last)) => {
                if last == tcp_server::ERROR {
                    report.error("answered");
                } else {
                    report.ok(started.elapsed());
                }
                if !settings.new_connection {
                    kept = Some(stream);
                }
            }
            Err(error) => report.error(error_name(&error)),
        }
    }
}

fn connect(settings: &Settings) -> io::Result<TcpStream> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let mut to = settings.to;
    if let Some(first) = settings.scan_from {
        to.set_port(first.saturating_add(TRIED.fetch_add(1, Ordering::Relaxed)));
    }
    let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
    let first = settings.first.and_then(|address| {
        TcpStream::connect_timeout(&SocketAddr::new(address, to.port()), connect_timeout).ok()
    });
    let stream = first.map_or_else(|| TcpStream::connect_timeout(&to, connect_timeout), Ok)?;
    let timeout = Some(Duration::from_millis(settings.timeout_ms));
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn is_idle(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let idle = stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && idle
}

/// Gives the last byte of the answer.
fn exchange(stream: &mut TcpStream, settings: &Settings) -> io::Result<u8> {
    let mut request = Vec::with_capacity(8 + settings.upload_bytes as usize);
    request.extend(settings.upload_bytes.to_be_bytes());
    request.extend(settings.download_bytes.to_be_bytes());
    request.resize(8 + settings.upload_bytes as usize, b'q');
    stream.write_all(&request)?;
    read_paced(stream, settings.download_bytes as usize, || {
        settings.read_bytes_per_second
    })
}
