//! The players of a lab: this program again, as a child inside a network namespace.
//!
//! Settings come as JSON on the command line and, changed, a line at a time on standard input. When
//! that closes, the parent is gone and the actor ends. Clients print a line of [`Sample`] a second.

mod dns_client;
mod dns_message;
mod dns_server;
mod kube_proxy;
mod tcp_client;
mod tcp_server;
mod tls_client;
mod tls_server;
mod udp_client;
mod udp_server;
mod wire;

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use crate::netns;
use crate::scenario::Family;
use crate::sli::Sample;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    TcpServer,
    TcpClient,
    DnsServer,
    DnsClient,
    UdpServer,
    UdpClient,
    TlsServer,
    TlsClient,
    KubeProxy,
    Wire,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TcpServer => "tcp-server",
            Self::TcpClient => "tcp-client",
            Self::DnsServer => "dns-server",
            Self::DnsClient => "dns-client",
            Self::UdpServer => "udp-server",
            Self::UdpClient => "udp-client",
            Self::TlsServer => "tls-server",
            Self::TlsClient => "tls-client",
            Self::KubeProxy => "kube-proxy",
            Self::Wire => "wire",
        }
    }

    /// Whether an actor of this kind would take these settings.
    pub(crate) fn check(self, settings: &serde_json::Value) -> Result<()> {
        fn parse<T: DeserializeOwned>(settings: &serde_json::Value) -> Result<()> {
            T::deserialize(settings)?;
            Ok(())
        }
        match self {
            Self::TcpServer => parse::<tcp_server::Settings>(settings),
            Self::TcpClient => parse::<tcp_client::Settings>(settings),
            Self::DnsServer => parse::<dns_server::Settings>(settings),
            Self::DnsClient => parse::<dns_client::Settings>(settings),
            Self::UdpServer => parse::<udp_server::Settings>(settings),
            Self::UdpClient => parse::<udp_client::Settings>(settings),
            Self::TlsServer => parse::<tls_server::Settings>(settings),
            Self::TlsClient => parse::<tls_client::Settings>(settings),
            Self::KubeProxy => parse::<kube_proxy::Settings>(settings),
            Self::Wire => parse::<wire::Settings>(settings),
        }
        .with_context(|| format!("bad settings of a {}", self.name()))
    }
}

/// The child's main function.
pub(crate) fn run(kind: Kind, namespace: Option<&str>, settings: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the parent")?;
    if let Some(namespace) = namespace {
        netns::enter(namespace)?;
    }
    match kind {
        Kind::TcpServer => tcp_server::run(&Live::start(settings)?),
        Kind::TcpClient => tcp_client::run(&Live::start(settings)?),
        Kind::DnsServer => dns_server::run(&Live::start(settings)?),
        Kind::DnsClient => dns_client::run(&Live::start(settings)?),
        Kind::UdpServer => udp_server::run(&Live::start(settings)?),
        Kind::UdpClient => udp_client::run(&Live::start(settings)?),
        Kind::TlsServer => tls_server::run(&Live::start(settings)?),
        Kind::TlsClient => tls_client::run(&Live::start(settings)?),
        Kind::KubeProxy => kube_proxy::run(&Live::start(settings)?),
        Kind::Wire => wire::run(&Live::start(settings)?),
    }
}

/// Settings that the parent may change while the actor runs.
struct Live<T>(Arc<Mutex<Arc<T>>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Live<T> {
    fn start(settings: &str) -> Result<Self> {
        let first: T = serde_json::from_str(settings).context("bad settings")?;
        let live = Self(Arc::new(Mutex::new(Arc::new(first))));
        let changed = live.clone();
        thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                // The parent checked the settings before it sent them.
                if let Ok(next) = serde_json::from_str(&line) {
                    *changed.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                }
            }
            process::exit(0);
        });
        Ok(live)
    }

    fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a client saw since the last line, shared by its threads.
#[derive(Clone, Default)]
struct Report(Arc<Mutex<Sample>>);

impl Report {
    fn ok(&self, latency: Duration) {
        let mut sample = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sample.ok += 1;
        sample
            .latencies_us
            .push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn error(&self, name: &str) {
        let mut sample = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sample.errors.entry(name.to_owned()).or_default() += 1;
    }

    /// Never returns while the parent reads.
    fn print_every_second(&self) -> Result<()> {
        loop {
            thread::sleep(Duration::from_secs(1));
            let sample =
                std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            let mut line = serde_json::to_vec(&sample)?;
            line.push(b'\n');
            let mut out = io::stdout().lock();
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                bail!("the parent stopped reading");
            }
        }
    }
}

/// A steady beat: `rate` times a second, without catching up after a stall, like a user who waits.
struct Beat {
    next: Instant,
    /// Beats a second.
    rate: f64,
}

impl Beat {
    fn start(offset: Duration) -> Self {
        Self {
            next: Instant::now() + offset,
            rate: 0.0,
        }
    }

    /// A `rate` that changes meanwhile counts at once, or the fault that it is would begin when everybody has had a last rest.
    fn wait(&mut self, rate: impl Fn() -> f64) {
        const LOOK: Duration = Duration::from_millis(100);
        let came = Instant::now();
        loop {
            let now = Instant::now();
            let rest = self.rest(now, rate().max(0.001));
            if rest.is_zero() {
                break;
            }
            thread::sleep(rest.min(LOOK));
        }
        self.next = self.next.max(came) + Duration::from_secs_f64(1.0 / self.rate);
    }

    /// What is left of a rest becomes shorter or longer with the rate, so that those who took turns still do.
    fn rest(&mut self, now: Instant, rate: f64) -> Duration {
        let mut rest = self.next.saturating_duration_since(now);
        if self.rate > 0.0 && rate != self.rate {
            rest = rest.mul_f64(self.rate / rate);
            self.next = now + rest;
        }
        self.rate = rate;
        rest
    }
}

#[test]
fn a_new_rate_counts_in_the_middle_of_a_rest() {
    let now = Instant::now();
    let mut beat = Beat {
        next: now + Duration::from_secs(30),
        rate: 0.1,
    };
    assert_eq!(beat.rest(now, 0.1), Duration::from_secs(30));
    assert_eq!(beat.rest(now, 1.0), Duration::from_secs(3));
    let later = now + Duration::from_secs(1);
    assert_eq!(beat.rest(later, 1.0), Duration::from_secs(2));
    assert_eq!(beat.rest(later, 0.5), Duration::from_secs(4));
}

/// The address a server of this family listens on.
fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A short name for what went wrong, for the client's report.
fn error_name(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::PermissionDenied => "prohibited",
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::AddrNotAvailable => "no_address",
        _ => "other",
    }
}

/// Reads so many bytes, ten small bites a second if `bytes_per_second` is not 0, and forgets all but the last.
fn read_paced(
    stream: &mut impl Read,
    length: usize,
    bytes_per_second: impl Fn() -> u64,
) -> io::Result<u8> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = length;
    let mut last = 0;
    while left > 0 {
        let speed = bytes_per_second();
        let bite = if speed == 0 {
            buffer.len()
        } else {
            usize::try_from(speed / 10)
                .unwrap_or(usize::MAX)
                .clamp(1, buffer.len())
        };
        let read = stream.read(&mut buffer[..bite.min(left)])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= read;
        last = buffer[read - 1];
        if speed > 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(last)
}
