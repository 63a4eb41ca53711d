//! Which protocol a connection speaks, by the first bytes of each side. Pure; looks at nothing but
//! the bytes, so a port means nothing.

mod dns;
mod http;
mod passing;
#[cfg(test)]
mod tests;

pub use passing::PassingBytes;

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    Tls,
    Mysql,
    Postgresql,
    Redis,
    Dns,
    Unknown,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Mysql => "mysql",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
            Self::Dns => "dns",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether more bytes may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    More,
    Decide,
}

/// What one rule says of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Yes(Protocol),
    /// As far as the bytes go.
    Perhaps,
    No,
}

/// Bytes of each side after which nothing is expected to turn up any more.
const ENOUGH: usize = 48;

/// The protocol of a TCP connection from what its client and its server sent first. `None`: wait
/// for more.
pub fn classify(client: &[u8], server: &[u8], patience: Patience) -> Option<Protocol> {
    let http2 = http::http2(client, server, patience);
    let rules = [
        tls(client),
        http2,
        http::http1(client, server),
        postgresql(client, server),
        redis(client, server),
        mysql(client, server),
        dns::over_tcp(client, server),
    ];
    let found = rules.iter().find_map(|rule| match rule {
        Match::Yes(protocol) => Some(*protocol),
        Match::Perhaps | Match::No => None,
    });
    if found.is_some() {
        return found;
    }
    let open = rules.contains(&Match::Perhaps) || client.is_empty() || server.is_empty();
    // Settings alone are longer than that, and only the headers after them tell gRPC from the rest.
    let wait = open && (http2 == Match::Perhaps || client.len().min(server.len()) < ENOUGH);
    (patience == Patience::Decide || !wait).then_some(Protocol::Unknown)
}

/// The protocol of a datagram to a server.
pub fn classify_datagram(query: &[u8]) -> Protocol {
    match dns::query(query) {
        Match::Yes(protocol) => protocol,
        Match::Perhaps | Match::No => Protocol::Unknown,
    }
}

/// Compares what there is of both.
fn begins(bytes: &[u8], expected: &[u8]) -> Match {
    let common = bytes.len().min(expected.len());
    if bytes[..common] != expected[..common] {
        Match::No
    } else if bytes.len() < expected.len() {
        Match::Perhaps
    } else {
        Match::Yes(Protocol::Unknown)
    }
}

/// A record of the handshake, and in it a client hello.
fn tls(client: &[u8]) -> Match {
    let fits = |at: usize, test: fn(u8) -> bool| client.get(at).is_none_or(|&byte| test(byte));
    let is_hello = fits(0, |kind| kind == 0x16)
        && fits(1, |major| major == 3)
        && fits(2, |minor| minor <= 4)
        && fits(3, |length| length <= 0x41)
        && fits(5, |message| message == 1)
        && fits(6, |length| length <= 1);
    match (is_hello, client.len()) {
        (false, _) => Match::No,
        (true, ..6) => Match::Perhaps,
        (true, _) => Match::Yes(Protocol::Tls),
    }
}

/// A startup message, or the request for encryption before it.
fn postgresql(client: &[u8], _server: &[u8]) -> Match {
    let Some((length, code)) = be32(client, 0).zip(be32(client, 4)) else {
        // Lengths have two zeros in front.
        return begins(client, &[0, 0]).and_then_perhaps();
    };
    let is_startup = match code {
        80_877_103 | 80_877_104 => length == 8,
        80_877_102 => (16..=300).contains(&length),
        _ => {
            // Version 3; the rest are pairs of words that end with zeros.
            let end = client.len().min(length as usize);
            let words = client.get(8..end).unwrap_or_default();
            code >> 16 == 3
                && (code & 0xffff) < 100
                && (9..=10_000).contains(&length)
                && words.iter().all(|&byte| byte == 0 || byte >= 0x20)
        }
    };
    if is_startup {
        Match::Yes(Protocol::Postgresql)
    } else {
        Match::No
    }
}

/// An array of bulk strings, or a word that is answered in kind.
fn redis(client: &[u8], server: &[u8]) -> Match {
    let request = counted(client, b'*').map(|rest| counted(rest, b'$').is_some());
    match request {
        Some(true) => return Match::Yes(Protocol::Redis),
        Some(false) => {
            let rest = after_line(client).unwrap_or_default();
            return begins(rest, b"$").and_then_perhaps();
        }
        None => {}
    }
    if client.first() == Some(&b'*') && after_line(client).is_none() && client.len() < 12 {
        return Match::Perhaps;
    }
    // Commands typed by hand.
    let Some(line) = line(client) else {
        let is_word = client.iter().all(|byte| matches!(byte, 0x20..0x7f));
        return if is_word && client.len() < ENOUGH {
            Match::Perhaps
        } else {
            Match::No
        };
    };
    let command = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    const COMMANDS: [&[u8]; 12] = [
        b"PING", b"AUTH", b"HELLO", b"INFO", b"GET", b"SET", b"SELECT", b"COMMAND", b"CLIENT",
        b"ECHO", b"QUIT", b"DEL",
    ];
    if !COMMANDS
        .iter()
        .any(|known| command.eq_ignore_ascii_case(known))
    {
        return Match::No;
    }
    match server.first() {
        None => Match::Perhaps,
        Some(b'+' | b'-' | b':' | b'$' | b'*' | b'%' | b'_') => Match::Yes(Protocol::Redis),
        Some(_) => Match::No,
    }
}

/// What follows `*3\r\n`.
fn counted(bytes: &[u8], mark: u8) -> Option<&[u8]> {
    let line = line(bytes)?;
    let (&first, digits) = line.split_first()?;
    let is_count = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    (first == mark && is_count).then(|| &bytes[line.len() + 2..])
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some(&bytes[..end])
}

fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    Some(&bytes[line(bytes)?.len() + 2..])
}

/// The greeting of the server, which speaks first; or its refusal.
fn mysql(client: &[u8], server: &[u8]) -> Match {
    // What a client says before it was greeted is no MySQL; its answer is message 1.
    if client.get(3).is_some_and(|&sequence| sequence != 1) {
        return Match::No;
    }
    let Some(&kind) = server.get(4) else {
        let may_be = server.get(2).is_none_or(|&high| high == 0)
            && server.get(3).is_none_or(|&sequence| sequence == 0);
        return if may_be { Match::Perhaps } else { Match::No };
    };
    let length = usize::from(server[0]) | usize::from(server[1]) << 8;
    if server[2] != 0 || server[3] != 0 || !(8..=1024).contains(&length) {
        return Match::No;
    }
    let rest = &server[5..];
    let yes = match kind {
        // Protocol 10, then the version as text.
        10 => {
            let version = rest.split(|&byte| byte == 0).next().unwrap_or_default();
            version.first().is_some_and(u8::is_ascii_digit)
                && version.iter().all(u8::is_ascii_graphic)
                && version.contains(&b'.')
        }
        // An error of the server's range, as to a host that is blocked.
        255 => {
            rest.len() >= 2
                && (1000..4000).contains(&(u16::from(rest[0]) | u16::from(rest[1]) << 8))
        }
        _ => return Match::No,
    };
    match (yes, rest.len()) {
        (true, _) => Match::Yes(Protocol::Mysql),
        (false, ..4) => Match::Perhaps,
        (false, _) => Match::No,
    }
}

impl Match {
    /// For the beginning of something whose rest was not there to be looked at.
    fn and_then_perhaps(self) -> Self {
        match self {
            Self::Yes(_) | Self::Perhaps => Self::Perhaps,
            Self::No => Self::No,
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
