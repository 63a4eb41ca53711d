//! Numbers of the protocol → the names that IANA gave them. Each set is closed, fit for a label.

use rustls::CipherSuite;

pub fn version(number: u16) -> &'static str {
    match number {
        0x0300 => "ssl3.0",
        0x0301 => "1.0",
        0x0302 => "1.1",
        0x0303 => "1.2",
        0x0304 => "1.3",
        _ => "other",
    }
}

pub fn cipher(number: u16) -> String {
    match CipherSuite::from(number).as_str() {
        Some(name) => match name.strip_prefix("TLS13_") {
            Some(rest) => format!("TLS_{rest}"),
            None => name.to_owned(),
        },
        None => "other".to_owned(),
    }
}

/// As [`cipher`], but numbers without a name stay numbers: for lists, not for labels.
pub fn cipher_or_number(number: u16) -> String {
    match cipher(number).as_str() {
        "other" => format!("{number:#06x}"),
        name => name.to_owned(),
    }
}

pub fn level(number: u8) -> &'static str {
    match number {
        1 => "warning",
        2 => "fatal",
        _ => "other",
    }
}

pub fn alert(number: u8) -> &'static str {
    match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => "other",
    }
}

/// An alert that only its two ends can read.
pub const HIDDEN_ALERT: &str = "encrypted";

/// The registered protocols; what programs make up is `other`.
pub fn alpn(protocol: &str) -> &'static str {
    const KNOWN: [&str; 24] = [
        "h2",
        "http/1.1",
        "http/1.0",
        "http/0.9",
        "h2c",
        "h3",
        "spdy/3",
        "stun.turn",
        "webrtc",
        "ftp",
        "imap",
        "pop3",
        "managesieve",
        "coap",
        "xmpp-client",
        "xmpp-server",
        "acme-tls/1",
        "mqtt",
        "dot",
        "ntske/1",
        "postgresql",
        "irc",
        "smb",
        "grpc-exp",
    ];
    (KNOWN.into_iter())
        .find(|&known| known == protocol)
        .unwrap_or("other")
}
