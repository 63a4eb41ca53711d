//! `GET` from the running collector.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The body, whatever the status: a collector that is not ready says why.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let address = reachable(address);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| {
        format!("no collector answers on {address}; start `runwire-collector run`, or give its address with --listen")
    })?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // 1.0: the body is what comes until the connection is closed.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .with_context(|| format!("cannot read {path} from {address}"))?;
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        bail!("{address} answers, but not as a collector does");
    };
    if head.contains(" 404 ") {
        bail!("{address} is not a collector: it has no {path}");
    }
    Ok(body.to_owned())
}

/// A server on all addresses is also on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
