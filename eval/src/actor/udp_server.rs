//! A UDP server that sends every datagram back, or reads too slowly to.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Deserialize;

use super::{Live, unspecified};
use crate::scenario::Family;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    family: Family,
    port: u16,
    /// The application's own time for a datagram; the next one waits in the socket's buffer.
    #[serde(default)]
    delay_ms: u64,
    /// SO_RCVBUF; 0 leaves the kernel's choice.
    #[serde(default)]
    receive_buffer: usize,
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let settings = live.get();
    let address = SocketAddr::new(unspecified(settings.family), settings.port);
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    if settings.receive_buffer > 0 {
        setsockopt(&socket, sockopt::RcvBuf, &settings.receive_buffer)?;
    }
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error for an earlier answer arrives here; the next datagram is what counts.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        thread::sleep(Duration::from_millis(live.get().delay_ms));
        // The client may be gone.
        let _ = socket.send_to(&buffer[..length], peer);
    }
}
