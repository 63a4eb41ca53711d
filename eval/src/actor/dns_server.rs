//! A DNS server over UDP and TCP that answers every name, or those of one zone, or fails in the ways resolvers do.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Live, dns_message, unspecified};
use crate::scenario::Family;
use crate::seed::Random;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    family: Family,
    #[serde(default = "default_port")]
    port: u16,
    #[serde(default)]
    answer: Answer,
    /// Share of the queries that get `answer`; the others are answered well.
    #[serde(default = "all")]
    ratio: f64,
    #[serde(default)]
    delay_ms: u64,
    /// Names outside of it do not exist; the empty one holds every name.
    #[serde(default)]
    zone: String,
    /// Share of the answers that do not fit a datagram: cut over UDP, whole over TCP.
    #[serde(default)]
    truncate: f64,
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    #[default]
    NoError,
    ServFail,
    NxDomain,
    Refused,
    Silent,
}

fn default_port() -> u16 {
    53
}

fn all() -> f64 {
    1.0
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let settings = live.get();
    let address = SocketAddr::new(unspecified(settings.family), settings.port);
    let listener = TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let streams = live.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let live = streams.clone();
            // What goes wrong with a connection is the client's to report.
            thread::spawn(move || drop(serve(stream, &live)));
        }
    });
    let mut random = Random::new(1, "answers");
    let mut buffer = [0; 4096];
    loop {
        // An ICMP error for an earlier answer arrives here; the next query is what counts.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let settings = live.get();
        let query = &buffer[..length];
        let answer = if random.unit() < settings.truncate {
            dns_message::truncated(query, ADDRESS)
        } else {
            answer(query, &settings, &mut random)
        };
        let Some(message) = answer else {
            continue;
        };
        if settings.delay_ms == 0 {
            // The client may have given up.
            let _ = socket.send_to(&message, peer);
            continue;
        }
        let socket = socket.try_clone().context("cannot share the socket")?;
        let delay = Duration::from_millis(settings.delay_ms);
        thread::spawn(move || {
            thread::sleep(delay);
            let _ = socket.send_to(&message, peer);
        });
    }
}

/// The queries of one connection, until the client ends it.
fn serve(mut stream: TcpStream, live: &Live<Settings>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut random = Random::new(2, "answers");
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let settings = live.get();
        thread::sleep(Duration::from_millis(settings.delay_ms));
        if let Some(message) = answer(&query, &settings, &mut random) {
            stream.write_all(&dns_message::framed(&message))?;
        }
    }
}

/// `None`: no answer at all.
fn answer(query: &[u8], settings: &Settings, random: &mut Random) -> Option<Vec<u8>> {
    let answer = if random.unit() < settings.ratio {
        settings.answer
    } else {
        Answer::NoError
    };
    let code = match answer {
        Answer::NoError if dns_message::is_in_zone(query, &settings.zone) => 0,
        Answer::NoError | Answer::NxDomain => dns_message::NXDOMAIN,
        Answer::ServFail => 2,
        Answer::Refused => 5,
        Answer::Silent => return None,
    };
    dns_message::answer(query, code, ADDRESS)
}
