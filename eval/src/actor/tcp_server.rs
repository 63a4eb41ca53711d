//! A TCP server that answers requests, or misbehaves in the ways servers do.
//!
//! A request is two big-endian u32, the length of the body that follows and the length wanted back.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use serde::Deserialize;

use super::{Live, read_paced, unspecified};
use crate::scenario::Family;
use crate::seed::Random;

/// The last byte of an answer that tells of an error.
pub(super) const ERROR: u8 = b'e';

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    family: Family,
    port: u16,
    /// Listens on `::` also for IPv4, as many servers do.
    #[serde(default)]
    dual_stack: bool,
    #[serde(default = "default_backlog")]
    backlog: u16,
    /// Whether connections are taken from the accept queue at all.
    #[serde(default = "yes")]
    accept: bool,
    /// Pause before each accept.
    #[serde(default)]
    accept_delay_ms: u64,
    /// One connection at a time, as a single-threaded server.
    #[serde(default)]
    serial: bool,
    /// The application's own time for a request.
    #[serde(default = "default_delay")]
    delay_ms: u64,
    /// Speed at which request bodies are read; 0 is as fast as they come.
    #[serde(default)]
    read_bytes_per_second: u64,
    /// SO_RCVBUF of the listener, which accepted sockets inherit; 0 leaves the kernel's choice.
    #[serde(default)]
    receive_buffer: usize,
    /// SO_RCVBUF of a connection once it is accepted: the window that was offered before does not fit it any more.
    #[serde(default)]
    shrunken_buffer: usize,
    /// Computing per request, on one processor.
    #[serde(default)]
    spin_ms: u64,
    /// Share of answers that tell of an error, as an HTTP 500 does.
    #[serde(default)]
    error_ratio: f64,
    /// Share of answers that end with a reset half-way.
    #[serde(default)]
    reset_ratio: f64,
    /// Stop taking connections, answer what is under way, end.
    #[serde(default)]
    drain: bool,
}

fn default_backlog() -> u16 {
    128
}

fn default_delay() -> u64 {
    1
}

fn yes() -> bool {
    true
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let listener = open(&live.get())?;
    let open_connections = Arc::new(AtomicUsize::new(0));
    let mut seen: u64 = 0;
    let mut backlog = live.get().backlog;
    // Slow application threads hold their connection; the queue of the listener is another matter.
    let mut held = VecDeque::new();
    loop {
        let settings = live.get();
        if settings.drain {
            // tcp_migrate_req hands what waits in our queue to the other listener of the port.
            drop(listener);
            for _ in 0..100 {
                if open_connections.load(Ordering::Relaxed) == 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        if settings.backlog != backlog {
            backlog = settings.backlog;
            listen(&listener, Backlog::new(backlog)?).context("cannot change the backlog")?;
        }
        if !settings.accept {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        if !readable(&listener) {
            continue;
        }
        thread::sleep(Duration::from_millis(settings.accept_delay_ms));
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // The peer may be gone again already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("cannot accept"),
        };
        seen += 1;
        let mut random = Random::new(seen, "connection");
        if settings.serial {
            // An error here is the client's to report.
            let _ = serve(stream, live, &mut random);
            continue;
        }
        let live = live.clone();
        let counter = Arc::clone(&open_connections);
        counter.fetch_add(1, Ordering::Relaxed);
        held.push_back(thread::spawn(move || {
            let _ = serve(stream, &live, &mut random);
            counter.fetch_sub(1, Ordering::Relaxed);
        }));
        held.retain(|thread| !thread.is_finished());
    }
}

fn open(settings: &Settings) -> Result<TcpListener> {
    let family = if settings.dual_stack {
        Family::Ipv6
    } else {
        settings.family
    };
    let domain = match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(domain, SockType::Stream, flags, None).context("cannot make a socket")?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    // For a successor that starts before this one ends.
    setsockopt(&listener, sockopt::ReusePort, &true)?;
    if settings.receive_buffer > 0 {
        setsockopt(&listener, sockopt::RcvBuf, &settings.receive_buffer)?;
    }
    let address = SocketAddr::new(unspecified(family), settings.port);
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&listener),
        &SockaddrStorage::from(address),
    )
    .with_context(|| format!("cannot bind {address}"))?;
    listen(&listener, Backlog::new(settings.backlog)?)
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(TcpListener::from(listener))
}

/// Waits a little for a connection, so that changed settings are seen soon.
fn readable(listener: &TcpListener) -> bool {
    let mut waited = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut waited, PollTimeout::from(50_u8)).is_ok_and(|ready| ready > 0)
}

fn serve(mut stream: TcpStream, live: &Live<Settings>, random: &mut Random) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // A client that vanished must not hold its thread for ever.
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header)?;
        let [a, b, c, d, e, f, g, h] = header;
        let body = u32::from_be_bytes([a, b, c, d]) as usize;
        let wanted = u32::from_be_bytes([e, f, g, h]) as usize;
        if live.get().shrunken_buffer > 0 {
            setsockopt(&stream, sockopt::RcvBuf, &live.get().shrunken_buffer)?;
        }
        read_paced(&mut stream, body, || live.get().read_bytes_per_second)?;
        let settings = live.get();
        thread::sleep(Duration::from_millis(settings.delay_ms));
        let computed = Instant::now() + Duration::from_millis(settings.spin_ms);
        while Instant::now() < computed {
            std::hint::spin_loop();
        }
        let mut answer = vec![b'r'; wanted];
        if random.unit() < settings.error_ratio {
            answer.fill(ERROR);
        }
        if random.unit() < settings.reset_ratio {
            stream.write_all(&answer[..wanted / 2])?;
            setsockopt(
                &stream,
                sockopt::Linger,
                &nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                },
            )?;
            return Ok(());
        }
        stream.write_all(&answer)?;
        if settings.drain {
            return Ok(());
        }
    }
}
