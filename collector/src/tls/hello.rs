//! Client hello and server hello: bodies of handshake messages → what was offered, what was chosen.

/// What a client offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Best first as the client lists them; values that mean nothing (RFC 8701) are left out.
    pub versions: Vec<u16>,
    pub ciphers: Vec<u16>,
    pub server_name: Option<String>,
    pub alpn: Vec<String>,
}

impl ClientHello {
    /// The highest version that the client speaks.
    pub fn version(&self) -> u16 {
        self.versions.iter().copied().max().unwrap_or_default()
    }
}

/// What a server chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    pub version: u16,
    pub cipher: u16,
    pub alpn: Option<String>,
    /// It chose nothing yet, but asks for another client hello.
    pub is_retry: bool,
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Names longer than the DNS allows are cut.
const MAX_NAME: usize = 255;

/// In place of the random bytes of a server hello: SHA-256 of "HelloRetryRequest".
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Reads from the front of a message; `None` where it is too short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<usize> {
        Some(usize::from(self.take(1)?[0]))
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes behind their own length, which is of one byte or two.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length)
    }

    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    fn extension(&mut self) -> Option<(u16, &'a [u8])> {
        Some((self.u16()?, self.vector()?))
    }
}

/// Any message with its fixed part is read; what is broken behind it is left out.
pub fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut cursor = Cursor(body);
    let legacy_version = cursor.u16()?;
    cursor.take(32)?;
    cursor.short_vector()?;
    let mut hello = ClientHello {
        ciphers: numbers(cursor.vector()?),
        ..ClientHello::default()
    };
    cursor.short_vector()?;
    let mut extensions = Cursor(cursor.vector().unwrap_or_default());
    while let Some((kind, content)) = extensions.extension() {
        let mut content = Cursor(content);
        match kind {
            SERVER_NAME => hello.server_name = server_name(content),
            ALPN => hello.alpn = alpn(content),
            SUPPORTED_VERSIONS => {
                hello.versions = numbers(content.short_vector().unwrap_or_default());
            }
            _ => {}
        }
    }
    if hello.versions.is_empty() {
        // A client without the extension speaks every version up to this one, or so it says.
        hello.versions = vec![legacy_version.min(0x0303)];
    }
    Some(hello)
}

pub fn server_hello(body: &[u8]) -> Option<ServerHello> {
    let mut cursor = Cursor(body);
    let mut version = cursor.u16()?;
    let is_retry = cursor.take(32)? == RETRY;
    cursor.short_vector()?;
    let cipher = cursor.u16()?;
    cursor.u8()?;
    let mut chosen_alpn = None;
    let mut extensions = Cursor(cursor.vector().unwrap_or_default());
    while let Some((kind, content)) = extensions.extension() {
        match kind {
            SUPPORTED_VERSIONS => version = Cursor(content).u16().unwrap_or(version),
            ALPN => chosen_alpn = alpn(Cursor(content)).into_iter().next(),
            _ => {}
        }
    }
    Some(ServerHello {
        version,
        cipher,
        alpn: chosen_alpn,
        is_retry,
    })
}

/// The certificates of a Certificate message as TLS 1.2 and older send it, the server's own first.
pub fn certificates(body: &[u8]) -> Vec<&[u8]> {
    let mut chain = Vec::new();
    let mut cursor = Cursor(body.get(3..).unwrap_or_default());
    while let Some(length) = cursor.take(3) {
        let length =
            usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
        let Some(certificate) = cursor.take(length) else {
            break;
        };
        chain.push(certificate);
    }
    chain
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    let numbers = bytes.chunks_exact(2);
    let numbers = numbers.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    numbers.filter(|&number| !is_grease(number)).collect()
}

/// Values that clients mix in so that servers learn to ignore what they do not know.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && high & 15 == 10
}

fn server_name(mut content: Cursor) -> Option<String> {
    let mut names = Cursor(content.vector()?);
    loop {
        let kind = names.u8()?;
        let name = names.vector()?;
        if kind == 0 {
            let name = name.get(..MAX_NAME).unwrap_or(name);
            return Some(readable(name)).filter(|name| !name.is_empty());
        }
    }
}

fn alpn(mut content: Cursor) -> Vec<String> {
    let mut protocols = Vec::new();
    let mut list = Cursor(content.vector().unwrap_or_default());
    while let Some(protocol) = list.short_vector() {
        let is_grease = matches!(protocol, &[a, b] if a == b && a & 15 == 10);
        if !is_grease && protocols.len() < 16 {
            protocols.push(readable(protocol));
        }
    }
    protocols
}

/// Names come from the network: nothing that is not printable gets into an answer of ours.
fn readable(bytes: &[u8]) -> String {
    let letters = bytes.iter().map(|&byte| match byte {
        b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
        0x21..0x7f => char::from(byte),
        _ => '?',
    });
    letters.collect()
}
