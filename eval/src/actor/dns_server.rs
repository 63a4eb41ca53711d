//! A DNS server over UDP that answers every name, or fails in the ways resolvers do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
}

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
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let mut random = Random::new(1, "answers");
    let mut buffer = [0; 4096];
    loop {
        // An ICMP error for an earlier answer arrives here; the next query is what counts.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let settings = live.get();
        let answer = if random.unit() < settings.ratio {
            settings.answer
        } else {
            Answer::NoError
        };
        let code = match answer {
            Answer::NoError => 0,
            Answer::ServFail => 2,
            Answer::NxDomain => 3,
            Answer::Refused => 5,
            Answer::Silent => continue,
        };
        let Some(message) = dns_message::answer(
            &buffer[..length],
            code,
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        ) else {
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
