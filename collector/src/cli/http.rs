//! Requests to the running collector.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::server::{ANSWER, loopback_beside};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The collector itself gives up before.
const STORE_TIMEOUT: Duration = ANSWER.saturating_add(Duration::from_secs(5));

/// The body, whatever the status: a collector that is not ready says why.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    Connection::open(address)?.get(path)
}

/// As [`get`], where the collector may have to read up to a gigabyte of its flow store first.
pub(super) fn get_stored(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    Connection::with_patience(address, STORE_TIMEOUT)?.get(path)
}

/// The collector's own sentence if it refuses what it was given.
pub(super) fn put(
    address: SocketAddr,
    path: &str,
    value: &str,
) -> anyhow::Result<Result<(), String>> {
    match Connection::open(address)?.send("PUT", path, value)? {
        (200, _) => Ok(Ok(())),
        (400..=499, body) => Ok(Err(detail(&body))),
        (_, body) => bail!("{}", detail(&body)),
    }
}

/// For more than one request: who watches the network should not be what is seen there.
pub(super) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::with_patience(address, TIMEOUT)
    }

    fn with_patience(address: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let address = reachable(address);
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| {
            format!("no collector answers on {address}; start `runwire-collector run`, or give its address with --listen")
        })?;
        stream.set_read_timeout(Some(patience))?;
        let stream = BufReader::new(stream);
        Ok(Self { address, stream })
    }

    pub(super) fn get(&mut self, path: &str) -> anyhow::Result<String> {
        let (status, body) = self.send("GET", path, "")?;
        match status {
            404 => bail!("{} is not a collector: it has no {path}", self.address),
            403 => bail!("{}", detail(&body)),
            _ => Ok(body),
        }
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let Self { address, stream } = self;
        let header = crate::server::WRITE_HEADER;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{header}: 1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = || {
            stream.get_mut().write_all(request.as_bytes())?;
            receive(stream)
        };
        let answer = answer().with_context(|| format!("cannot read {path} from {address}"))?;
        answer.with_context(|| format!("{address} answers, but not as a collector does"))
    }
}

/// Status and body; `None` if this is no answer that a collector gives.
fn receive(stream: &mut impl BufRead) -> io::Result<Option<(u16, String)>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut length = None;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse::<u64>().ok();
            }
            Some(_) => {}
            None => break,
        }
    }
    let (Some(status), Some(length)) = (status, length) else {
        return Ok(None);
    };
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    Ok(Some((status, String::from_utf8_lossy(&body).into_owned())))
}

#[test]
fn an_answer_ends_where_it_says() {
    let check = |text: &str, expected: Option<(u16, &str)>| {
        let answer = receive(&mut text.as_bytes()).unwrap();
        let answer = answer
            .as_ref()
            .map(|(status, body)| (*status, body.as_str()));
        assert_eq!(answer, expected, "{text}");
    };
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1",
        Some((200, "ok")),
    );
    check("HTTP/1.1 200 OK\r\n\r\nok", None);
    check("SSH-2.0-OpenSSH_9\r\n", None);
    check("", None);
}

#[test]
fn what_the_store_has_is_waited_for_as_long_as_the_collector_takes() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connection = Connection::with_patience(address, STORE_TIMEOUT).unwrap();
    let patience = connection.stream.get_ref().read_timeout().unwrap();
    assert!(patience > Some(ANSWER), "{patience:?}");
}

/// The sentence in an error as RFC 9457 wants it.
fn detail(body: &str) -> String {
    let problem: Option<Value> = serde_json::from_str(body).ok();
    let detail = problem.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
    detail.unwrap_or_else(|| body.to_owned())
}

/// Where the collector that serves on `address` takes what only its own host may ask.
pub(super) fn administration(address: SocketAddr) -> SocketAddr {
    let beside = loopback_beside(address).filter(|beside| {
        // Not another host's, whose loopback is out of reach.
        let is_of_this_host = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).is_ok();
        is_of_this_host && TcpStream::connect_timeout(beside, TIMEOUT).is_ok()
    });
    beside.unwrap_or(address)
}

/// A server on all addresses is also on loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
