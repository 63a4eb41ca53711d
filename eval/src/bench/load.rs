//! Players that make load: a process each, in a namespace of its own, so that what they use is not taken for ours.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::{netns, say};

pub(super) const REQUEST: usize = 128;
pub(super) const ANSWER: usize = 512;
/// What most short connections of a cluster speak.
const REQUEST_BYTES: [u8; REQUEST] = message(
    b"GET /items?page=1 HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nAccept: */*\r\n\r\n",
);
const ANSWER_BYTES: [u8; ANSWER] =
    message(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
const CHUNK: usize = 128 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// Answers a request on every connection, and closes it.
    Answer { at: SocketAddr, threads: u32 },
    /// One connection after the other on every thread; `rate` a second over all threads, 0 for as many as go.
    Connect {
        to: SocketAddr,
        threads: u32,
        rate: f64,
        seconds: f64,
    },
    /// So many connections and no more, as fast as they go.
    Open {
        to: SocketAddr,
        threads: u32,
        count: u64,
    },
    /// Answers DNS queries with no answer.
    Reply { at: SocketAddr },
    /// One DNS query after the other.
    Ask { to: SocketAddr, seconds: f64 },
    /// Reads what comes until the other end closes.
    Sink { at: SocketAddr },
    /// Sends as fast as it goes.
    Send {
        to: SocketAddr,
        streams: u32,
        seconds: f64,
    },
    /// Takes connections and keeps them.
    Hold { at: SocketAddr },
    /// Opens connections and keeps them.
    Keep { to: SocketAddr, count: u64 },
}

/// What a player did; queries count as connections. Latencies are from connect() to the end of the answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) connections: u64,
    pub(super) errors: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// `load`: plays until it is done, says what it did, and for who listens until standard input ends.
pub(crate) fn run(namespace: &str, settings: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the parent")?;
    let load = serde_json::from_str(settings).context("the settings are wrong")?;
    netns::enter(namespace)?;
    let mut kept = Vec::new();
    let done = match load {
        Load::Answer { at, threads } => return answer(at, threads),
        Load::Reply { at } => return reply(at),
        Load::Sink { at } => return sink(at),
        Load::Hold { at } => return hold(at),
        Load::Connect {
            to,
            threads,
            rate,
            seconds,
        } => {
            let pause = (rate > 0.0).then(|| Duration::from_secs_f64(f64::from(threads) / rate));
            let end = Duration::from_secs_f64(seconds);
            connect(to, threads, pause, |_, elapsed| elapsed < end)?
        }
        Load::Open { to, threads, count } => {
            let share = count / u64::from(threads);
            connect(to, threads, None, |number, _| number < share)?
        }
        Load::Ask { to, seconds } => ask(to, Duration::from_secs_f64(seconds))?,
        Load::Send {
            to,
            streams,
            seconds,
        } => send(to, streams, Duration::from_secs_f64(seconds))?,
        Load::Keep { to, count } => {
            for number in 0..count {
                kept.push(TcpStream::connect(to).with_context(|| format!("connection {number}"))?);
            }
            Done {
                connections: count,
                ..Done::default()
            }
        }
    };
    say::result(serde_json::to_string(&done)?);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// As long as is wanted: the rest are dots.
const fn message<const LENGTH: usize>(text: &[u8]) -> [u8; LENGTH] {
    let mut bytes = [b'.'; LENGTH];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

fn ready() {
    say::result("ready");
}

fn answer(at: SocketAddr, threads: u32) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    ready();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Ok((mut stream, _)) = listener.accept() {
                    // A client that is gone by now says so itself.
                    let _ = stream
                        .read_exact(&mut [0; REQUEST])
                        .and_then(|()| stream.write_all(&ANSWER_BYTES));
                }
            });
        }
    });
    bail!("the server on {at} ended: too many open files?")
}

fn connect(
    to: SocketAddr,
    threads: u32,
    pause: Option<Duration>,
    goes_on: impl Fn(u64, Duration) -> bool + Sync,
) -> Result<Done> {
    let started = Instant::now();
    let errors = AtomicU64::new(0);
    let client = || {
        let mut nanoseconds: Vec<u32> = Vec::new();
        let mut number = 0;
        while goes_on(number, started.elapsed()) {
            if let Some(pause) = pause {
                // Late ones follow at once, so that the rate holds.
                let due = pause * u32::try_from(number).unwrap_or(u32::MAX);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
            let begun = Instant::now();
            match request(to) {
                Ok(()) => {
                    nanoseconds.push(begun.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
                }
                Err(_) => {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            }
            number += 1;
        }
        nanoseconds
    };
    let mut latencies = thread::scope(|scope| {
        let clients: Vec<_> = (0..threads).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    })
    .map_err(|_| anyhow!("a client panicked"))?
    .concat();
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |share: usize| {
        let index = latencies.len().saturating_sub(1) * share / 100;
        latencies
            .get(index)
            .map_or(0.0, |&nanoseconds| f64::from(nanoseconds) / 1e3)
    };
    Ok(Done {
        connections: latencies.len() as u64,
        errors: errors.into_inner(),
        bytes: 0,
        seconds,
        p50_us: quantile(50),
        p99_us: quantile(99),
    })
}

fn request(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&REQUEST_BYTES)?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer)?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// For the address of `shop.test`, after the identifier.
const QUERY: &[u8] = b"\x01\0\0\x01\0\0\0\0\0\0\x04shop\x04test\0\0\x01\0\x01";

fn reply(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
    ready();
    let mut message = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut message)?;
        // An answer, recursion available, no error.
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        socket.send_to(&message[..length], from)?;
    }
}

fn ask(to: SocketAddr, time: Duration) -> Result<Done> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot bind a socket")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let started = Instant::now();
    let mut done = Done::default();
    let mut number = 0_u16;
    while started.elapsed() < time {
        number = number.wrapping_add(1);
        socket.send(&[&number.to_be_bytes(), QUERY].concat())?;
        match socket.recv(&mut [0; 512]) {
            Ok(_) => done.connections += 1,
            Err(_) => done.errors += 1,
        }
    }
    done.seconds = started.elapsed().as_secs_f64();
    Ok(done)
}

fn sink(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    ready();
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        });
    }
    Ok(())
}

fn send(to: SocketAddr, streams: u32, time: Duration) -> Result<Done> {
    let started = Instant::now();
    let sender = || -> io::Result<u64> {
        let mut stream = TcpStream::connect(to)?;
        let chunk = vec![0; CHUNK];
        let mut bytes = 0;
        while started.elapsed() < time {
            stream.write_all(&chunk)?;
            bytes += CHUNK as u64;
        }
        Ok(bytes)
    };
    let sent = thread::scope(|scope| {
        let senders: Vec<_> = (0..streams).map(|_| scope.spawn(sender)).collect();
        let joined = senders.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    })
    .map_err(|_| anyhow!("a sender panicked"))?;
    Ok(Done {
        connections: streams.into(),
        bytes: sent.into_iter().sum::<io::Result<u64>>()?,
        seconds: started.elapsed().as_secs_f64(),
        ..Done::default()
    })
}

fn hold(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    ready();
    let mut held = Vec::new();
    for stream in listener.incoming() {
        held.push(stream.context("cannot take one more connection: raise `ulimit -n`")?);
    }
    Ok(())
}
