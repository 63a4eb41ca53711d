//! HTTP/1 by its request or status line; HTTP/2 by its preface; gRPC by a header of its requests.

use super::{Match, Patience, Protocol, begins};

const METHODS: [&[u8]; 17] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const SETTINGS: u8 = 4;

/// `application/grpc` in the Huffman code of HPACK, whole bytes of it, and as it is.
const GRPC: [&[u8]; 2] = [
    &[0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65],
    b"application/grpc",
];

/// A setting that only gRPC's C library and its bindings send.
const GRPC_SETTING: u16 = 0xfe03;

pub(super) fn http1(client: &[u8], server: &[u8]) -> Match {
    if begins(server, b"HTTP/1.") == Match::Yes(Protocol::Unknown) {
        return Match::Yes(Protocol::Http1);
    }
    let matches = METHODS.map(|method| begins(client, method));
    let method = (METHODS.iter().zip(matches))
        .find(|(_, found)| *found == Match::Yes(Protocol::Unknown))
        .map(|(method, _)| method);
    match method {
        Some(method) => request_target(&client[method.len()..], method),
        None if is_request_line(client) => Match::Yes(Protocol::Http1),
        None if matches.contains(&Match::Perhaps) => Match::Perhaps,
        None => Match::No,
    }
}

/// A method that nobody has heard of (RFC 9110, 9.1, lets anyone invent some), if the version is there to be seen.
fn is_request_line(client: &[u8]) -> bool {
    let line = client.split(|&byte| byte == b'\r').next();
    let mut words = line.unwrap_or_default().split(|&byte| byte == b' ');
    let [Some(method), Some(target), Some(version), None] = std::array::from_fn(|_| words.next())
    else {
        return false;
    };
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    !method.is_empty()
        && method.iter().all(is_method)
        && target.iter().all(u8::is_ascii_graphic)
        && version.starts_with(b"HTTP/1.")
        && version.len() == 8
}

/// A path, an address, a name with port, or `*`; and if the line ends, the version.
fn request_target(rest: &[u8], method: &[u8]) -> Match {
    let Some(&first) = rest.first() else {
        return Match::Perhaps;
    };
    let is_target = match first {
        b'/' | b'*' => true,
        _ if method == b"CONNECT " => first.is_ascii_alphanumeric() || first == b'[',
        _ => begins(rest, b"http") != Match::No,
    };
    let line = rest.split(|&byte| byte == b'\r' || byte == b'\n').next();
    let line = line.unwrap_or_default();
    let is_whole = line.len() < rest.len();
    let printable = line.iter().all(|&byte| byte >= 0x20 && byte != 0x7f);
    if !is_target || !printable {
        return Match::No;
    }
    let version = line.windows(7).any(|word| word == b"HTTP/1.");
    if is_whole && !version {
        return Match::No;
    }
    Match::Yes(Protocol::Http1)
}

pub(super) fn http2(client: &[u8], server: &[u8], patience: Patience) -> Match {
    match begins(client, PREFACE) {
        Match::Yes(_) => {}
        other => return other,
    }
    // A server that knows no better says so in its own words.
    if begins(server, b"HTTP/1.") != Match::No && !server.is_empty() {
        return Match::No;
    }
    let requests = read_frames(&client[PREFACE.len()..]);
    let answers = read_frames(server);
    if requests.is_grpc || answers.is_grpc {
        return Match::Yes(Protocol::Grpc);
    }
    if requests.headers || patience == Patience::Decide {
        return Match::Yes(Protocol::Http2);
    }
    Match::Perhaps
}

#[derive(Default)]
struct Frames {
    is_grpc: bool,
    /// A whole block of headers was there to be read.
    headers: bool,
}

fn read_frames(mut bytes: &[u8]) -> Frames {
    let mut frames = Frames::default();
    while bytes.len() >= FRAME_HEADER {
        let length =
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (kind, flags) = (bytes[3], bytes[4]);
        let rest = &bytes[FRAME_HEADER..];
        let payload = &rest[..rest.len().min(length)];
        match kind {
            HEADERS => {
                frames.is_grpc |= GRPC.iter().any(|name| contains(payload, name));
                frames.headers |= payload.len() == length && flags & END_HEADERS != 0;
            }
            SETTINGS => {
                let mut settings = payload.chunks_exact(6);
                frames.is_grpc |=
                    settings.any(|pair| u16::from_be_bytes([pair[0], pair[1]]) == GRPC_SETTING);
            }
            _ => {}
        }
        bytes = &rest[payload.len()..];
    }
    frames
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
