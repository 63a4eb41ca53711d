//! Handshakes of `openssl s_client` with `openssl s_server`, as they went over the wire: a file is a
//! list of pieces, each with who sent it (C or S) and its length.

use proptest::prelude::*;

use super::certificate::{self, Certificate};
use super::handshake::{End, Handshake, Outcome, Side};
use super::hello::{client_hello, server_hello};
use super::names;
use super::record::{Event, Reader};

macro_rules! captured {
    ($name:literal) => {
        pieces(include_bytes!(concat!("captured/", $name, ".bin")))
    };
}

fn pieces(mut file: &[u8]) -> Vec<(Side, Vec<u8>)> {
    let mut pieces = Vec::new();
    while let [side, high, low, rest @ ..] = file {
        let (bytes, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        let side = if *side == b'C' {
            Side::Client
        } else {
            Side::Server
        };
        pieces.push((side, bytes.to_vec()));
        file = rest;
    }
    pieces
}

/// Plays a handshake that takes a millisecond a piece, each piece cut to `size` bytes.
fn play(pieces: &[(Side, Vec<u8>)], size: usize) -> Handshake {
    let mut handshake = Handshake::default();
    for (now, (side, bytes)) in (0..).zip(pieces) {
        for piece in bytes.chunks(size) {
            handshake.read(*side, piece, now * 1_000_000);
        }
    }
    handshake
}

fn outcome(pieces: &[(Side, Vec<u8>)], size: usize) -> Outcome {
    play(pieces, size).into_outcome().expect("it is over")
}

#[test]
fn every_version_is_read_however_it_is_cut() {
    let check = |pieces: &[(Side, Vec<u8>)], version: &str, cipher: &str, milliseconds: u64| {
        for size in [1, 3, 5, 120, 1460, 65536] {
            let outcome = outcome(pieces, size);
            let chosen = outcome.chosen.unwrap();
            assert_eq!(outcome.end, End::Completed);
            assert_eq!(names::version(chosen.version), version);
            assert_eq!(names::version(outcome.hello.version()), version);
            assert_eq!(names::cipher(chosen.cipher), cipher);
            assert_eq!(outcome.hello.server_name.as_deref(), Some("shop.test"));
            assert_eq!(outcome.hello.alpn, ["h2", "http/1.1"]);
            assert_eq!(outcome.duration_ns, milliseconds * 1_000_000);
            assert!(outcome.alerts.is_empty());
        }
    };
    let old = "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA";
    check(&captured!("tls1"), "1.0", old, 3);
    check(&captured!("tls1_1"), "1.1", old, 3);
    check(
        &captured!("tls1_2"),
        "1.2",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        3,
    );
    check(&captured!("tls1_3"), "1.3", "TLS_AES_256_GCM_SHA384", 2);
    check(&captured!("retry"), "1.3", "TLS_AES_256_GCM_SHA384", 4);
}

#[test]
fn a_failure_has_the_name_of_its_alert_and_the_side_that_sent_it() {
    let check = |pieces: &[(Side, Vec<u8>)], reason: &'static str, side: Side| {
        let outcome = outcome(pieces, 1460);
        assert_eq!(outcome.end, End::Failed(reason));
        let alerts: Vec<_> = outcome
            .alerts
            .iter()
            .map(|alert| (alert.alert, alert.side))
            .collect();
        assert_eq!(alerts, [(reason, side)]);
    };
    check(
        &captured!("version_alert"),
        "protocol_version",
        Side::Server,
    );
    check(&captured!("unknown_ca"), "unknown_ca", Side::Client);
    check(&captured!("unknown_ca_12"), "unknown_ca", Side::Client);
    check(
        &captured!("client_cert_12"),
        "handshake_failure",
        Side::Server,
    );
}

#[test]
fn a_server_may_refuse_a_client_after_the_handshake_of_tls_1_3() {
    let pieces = captured!("client_cert_13");
    let (after, before) = pieces.split_last().unwrap();
    let mut handshake = play(before, 1460);
    assert!(!handshake.is_settled(3_000_000), "it may still be refused");
    handshake.read_after(&after.1[..5]);
    handshake.close(false, 4_000_000);
    let outcome = handshake.into_outcome().unwrap();
    assert_eq!(outcome.end, End::Failed("encrypted_alert"));
    // As long, but the connection goes on.
    let mut handshake = play(before, 1460);
    handshake.read_after(&after.1[..5]);
    assert!(handshake.is_settled(1_100_000_000));
    assert_eq!(handshake.into_outcome().unwrap().end, End::Completed);
}

#[test]
fn what_ends_a_handshake_without_alert_is_its_reason() {
    let hello = &captured!("tls1_2")[..1];
    let check = |reason: &'static str, end: fn(&mut Handshake)| {
        let mut handshake = play(hello, 1460);
        end(&mut handshake);
        assert_eq!(handshake.into_outcome().unwrap().end, End::Failed(reason));
    };
    check("closed", |handshake| handshake.close(false, 1));
    check("reset", |handshake| handshake.close(true, 1));
    check("timeout", |handshake| handshake.time_out(1));
    check("plaintext", |handshake| {
        handshake.read(Side::Server, b"HTTP/1.1 400 Bad Request\r\n", 1);
    });
    let mut unfinished = play(hello, 1460);
    assert!(!unfinished.is_settled(u64::MAX));
    unfinished.close(true, 7_000_000);
    assert_eq!(unfinished.into_outcome().unwrap().duration_ns, 7_000_000);
}

#[test]
fn certificates_are_read_before_tls_1_3() {
    for pieces in [captured!("tls1"), captured!("tls1_2")] {
        let Certificate {
            not_after,
            not_before,
            subject,
            issuer,
            names,
            fingerprint,
            chain,
        } = certificate::read(&outcome(&pieces, 100).certificates).unwrap();
        // As `openssl x509 -dates -fingerprint -sha256` has them.
        assert_eq!((not_before, not_after), (1_795_223_147, 1_797_815_147));
        assert_eq!(subject, "O=Runwire, CN=shop.test");
        assert_eq!(issuer, subject);
        assert_eq!(names, ["shop.test", "www.shop.test", "10.0.0.1"]);
        assert_eq!(fingerprint, "e2929e804df5b550");
        assert_eq!(chain, [subject]);
    }
    assert!(outcome(&captured!("tls1_3"), 100).certificates.is_empty());
}

/// The body of a client hello.
fn hello(versions: &[u16], ciphers: &[u16], name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let words = |numbers: &[u16]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect()
    };
    let vector = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let short = |bytes: &[u8]| [&[bytes.len() as u8][..], bytes].concat();
    let extension =
        |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &vector(content)].concat();
    let protocols: Vec<u8> = alpn.iter().flat_map(|protocol| short(protocol)).collect();
    let name = [&[0][..], &vector(name.as_bytes())].concat();
    let extensions = [
        extension(0x0a0a, &[]),
        extension(0, &vector(&name)),
        extension(16, &vector(&protocols)),
        extension(43, &short(&words(versions))),
        // As large as the key shares of post-quantum key exchanges.
        extension(51, &[7; 1500]),
    ]
    .concat();
    [
        &[3, 3][..],
        &[1; 32],
        &short(&[2; 32]),
        &vector(&words(ciphers)),
        &short(&[0]),
        &vector(&extensions),
    ]
    .concat()
}

#[test]
fn values_that_mean_nothing_are_left_out() {
    let body = hello(
        &[0x7a7a, 0x0304, 0x0303],
        &[0x1a1a, 0x1301],
        "Shop.Test",
        &[b"\x0a\x0a", b"h2"],
    );
    assert!(body.len() > 1460);
    let hello = client_hello(&body).unwrap();
    assert_eq!(hello.versions, [0x0304, 0x0303]);
    assert_eq!(hello.ciphers, [0x1301]);
    assert_eq!(hello.alpn, ["h2"]);
    assert_eq!(hello.server_name.as_deref(), Some("shop.test"));
}

#[test]
fn names_may_be_long_or_strange() {
    let check = |name: &str, expected: Option<&str>| {
        let hello = client_hello(&hello(&[0x0304], &[0x1301], name, &[])).unwrap();
        assert_eq!(hello.server_name.as_deref(), expected);
    };
    let long = ["a".repeat(63), "b".repeat(63), "test".to_owned()].join(".");
    check(&long, Some(&long));
    check("", None);
    check("a\nb\u{7f}c", Some("a?b?c"));
    check(&"x".repeat(700), Some(&"x".repeat(255)));
}

#[test]
fn the_shortest_hello_is_one() {
    let body = [&[3, 1][..], &[0; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    let hello = client_hello(&body).unwrap();
    assert_eq!((hello.version(), hello.ciphers), (0x0301, vec![0x2f]));
    assert_eq!(client_hello(&body[..34]), None);
}

#[test]
fn names_are_those_of_iana() {
    assert_eq!(
        names::cipher(0xc02f),
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    );
    assert_eq!(names::cipher(0x1303), "TLS_CHACHA20_POLY1305_SHA256");
    assert_eq!(
        names::cipher(0xcca8),
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
    );
    assert_eq!(names::cipher(0xeeee), "other");
    assert_eq!(names::cipher_or_number(0xeeee), "0xeeee");
}

#[test]
fn a_message_may_take_several_records_and_a_record_hold_several_messages() {
    let body = hello(&[0x0304], &[0x1301], "a.test", &[]);
    let message = [
        &[1, 0, (body.len() >> 8) as u8, body.len() as u8][..],
        &body,
    ]
    .concat();
    let record = |bytes: &[u8]| {
        [
            &[22, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8][..],
            bytes,
        ]
        .concat()
    };
    let cut: Vec<u8> = message.chunks(100).flat_map(record).collect();
    assert_eq!(
        Reader::default().read(&cut),
        [Event::Message(1, body.clone())]
    );
    let twice = record(&[message.clone(), message].concat());
    let events = [Event::Message(1, body.clone()), Event::Message(1, body)];
    assert_eq!(Reader::default().read(&twice), events);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        start in 0_usize..3,
    ) {
        // Some begin as a hello does.
        let starts: [&[u8]; 3] = [&[], &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[22, 3, 3, 0, 80, 11]];
        let bytes = [starts[start], &bytes].concat();
        let _ = client_hello(&bytes);
        let _ = server_hello(&bytes);
        let _ = certificate::read(&[&bytes]);
        let _ = certificate::read(&super::hello::certificates(&bytes));
        let mut handshake = Handshake::default();
        handshake.read(Side::Client, &bytes, 1);
        handshake.read(Side::Server, &bytes, 2);
        handshake.close(false, 3);
    }

    #[test]
    fn a_captured_handshake_with_a_wrong_byte_does_no_harm(at in 0_usize..3000, byte in any::<u8>()) {
        let mut pieces = captured!("tls1_2");
        let total: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut at = at % total;
        for (_, bytes) in &mut pieces {
            match bytes.get_mut(at) {
                Some(old) => {
                    *old = byte;
                    break;
                }
                None => at -= bytes.len(),
            }
        }
        let mut handshake = play(&pieces, 1460);
        handshake.close(true, 9);
        if let Some(outcome) = handshake.into_outcome() {
            let _ = certificate::read(&outcome.certificates);
        }
    }
}
