use proptest::prelude::*;

use super::Protocol::{Dns, Grpc, Http1, Http2, Mysql, Postgresql, Redis, Tls, Unknown};
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    [
        &[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1],
        payload,
    ]
    .concat()
}

fn dns_query() -> Vec<u8> {
    let question = b"\x03www\x07example\x04test\x00\x00\x1c\x00\x01";
    [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], question].concat()
}

fn greeting() -> Vec<u8> {
    let body = b"\x0a8.0.36-0ubuntu0\x00\x0b\x00\x00\x00abcdefgh\x00\xff\xff\xff\x02\x00\xff\xdf";
    [&[body.len() as u8, 0, 0, 0], &body[..]].concat()
}

fn startup() -> Vec<u8> {
    let body = b"\x00\x03\x00\x00user\x00shop\x00database\x00shop\x00\x00";
    [&[0, 0, 0, body.len() as u8 + 4], &body[..]].concat()
}

/// What the first bytes of each side say, whole and also with the client's cut anywhere.
fn check(client: &[u8], server: &[u8], expected: Protocol) {
    let whole = classify(client, server, Patience::Decide);
    assert_eq!(whole, Some(expected), "{client:?}");
    for cut in 0..client.len() {
        let early = classify(&client[..cut], &[], Patience::More);
        assert!(
            early.is_none() || early == Some(expected),
            "{cut} of {client:?}: {early:?}"
        );
    }
}

#[test]
fn http2_is_waited_for_however_long_the_settings_are() {
    let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100].repeat(8));
    let client = [PREFACE, &settings].concat();
    assert_eq!(classify(&client, &settings, Patience::More), None);
    let name = b"content-type application/grpc";
    let request = [&client[..], &frame(1, 4, name)].concat();
    assert_eq!(classify(&request, &settings, Patience::More), Some(Grpc));
    assert_eq!(classify(&client, &settings, Patience::Decide), Some(Http2));
}

#[test]
fn a_server_that_answers_the_preface_in_its_own_words_speaks_http1() {
    for patience in [Patience::More, Patience::Decide] {
        let found = classify(PREFACE, b"HTTP/1.1 400 Bad Request\r\n", patience);
        assert_eq!(found, Some(Http1), "{patience:?}");
    }
}

#[test]
fn each_protocol_is_known_by_its_first_bytes() {
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", Http1);
    check(
        b"POST /a?b=c HTTP/1.0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n",
        Http1,
    );
    check(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"", Http1);
    check(b"CONNECT shop.test:443 HTTP/1.1\r\n\r\n", b"", Http1);
    check(b"GET http://shop.test/ HTTP/1.1\r\n\r\n", b"", Http1);
    check(
        b"BREW /pot HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 418 I'm a teapot\r\n",
        Http1,
    );
    // The kernel does not show the answer: the request has to do.
    check(b"BREW /pot HTTP/1.1\r\n\r\n", b"", Http1);
    check(b"VERSION-CONTROL /pot HTTP/1.0\r\n\r\n", b"", Http1);
    check(b"BREW /pot SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n", Unknown);
    check(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], b"", Tls);
    check(&startup(), b"", Postgresql);
    check(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], b"S", Postgresql);
    check(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", Redis);
    check(
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\ncanary\r\n",
        b"",
        Redis,
    );
    check(b"PING\r\n", b"+PONG\r\n", Redis);
    check(b"", &greeting(), Mysql);
    check(b"", b"\x4a\x00\x00\x00\x0a5.5.5-10.11.6-MariaDB\x00", Mysql);
    check(
        b"",
        b"\x17\x00\x00\x00\xff\x10\x04Too many connections",
        Mysql,
    );
    let query = dns_query();
    let framed = [&[0, query.len() as u8][..], &query].concat();
    check(&framed, b"", Dns);
    assert_eq!(classify_datagram(&query), Dns);
}

#[test]
fn grpc_is_http_2_with_its_content_type() {
    let plain = frame(1, 4, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a']);
    let huffman = frame(
        1,
        4,
        b"\x83\x86\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64",
    );
    let literal = frame(1, 4, b"\x83\x86\x5f\x10application/grpc");
    let check = |frames: &[&[u8]], server: &[u8], expected| {
        let client = [&[PREFACE], frames].concat().concat();
        super::tests::check(&client, server, expected);
    };
    check(&[SETTINGS, &plain], b"", Http2);
    check(&[SETTINGS], b"", Http2);
    check(&[SETTINGS, &huffman], b"", Grpc);
    check(&[SETTINGS, &literal], b"", Grpc);
    check(&[SETTINGS], &[SETTINGS, &huffman].concat(), Grpc);
    // A setting that only gRPC sends.
    check(&[&frame(4, 0, &[0xfe, 3, 0, 0, 0, 1])], b"", Grpc);
    let early = [PREFACE, SETTINGS].concat();
    assert_eq!(classify(&early, SETTINGS, Patience::More), None);
}

#[test]
fn what_resembles_a_protocol_is_unknown() {
    check(b"GET out of here\r\n", b"", Unknown);
    check(b"GETTING / FTP/1.1\r\n", b"", Unknown);
    check(b"GETTING up early\r\n", b"HTTP", Unknown);
    check(b"* OK IMAP\r\n", b"", Unknown);
    check(b"", b"220 mail.test ESMTP\r\n", Unknown);
    check(
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        Unknown,
    );
    check(&[22, 3, 1, 2, 0, 2, 0, 1, 0xfc], b"", Unknown);
    check(&[0, 0, 0, 9, 0, 4, 0, 0, 0], b"", Unknown);
    check(b"PING\r\n", b"pong\r\n", Unknown);
    let mut answer = dns_query();
    answer[2] |= 0x80;
    assert_eq!(classify_datagram(&answer), Unknown);
}

#[test]
fn a_side_that_says_nothing_is_waited_for() {
    assert_eq!(classify(b"", b"", Patience::More), None);
    assert_eq!(classify(b"hello", b"", Patience::More), None);
    assert_eq!(
        classify(b"\x01hello\xff", b"you", Patience::More),
        Some(Unknown)
    );
    assert_eq!(classify(b"", b"", Patience::Decide), Some(Unknown));
}

proptest! {
    #[test]
    fn any_bytes_are_classified(
        client in proptest::collection::vec(any::<u8>(), 0..200),
        server in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0_usize..7,
    ) {
        let starts: [&[u8]; 7] =
            [b"", b"GET ", PREFACE, b"*1\r\n", &[0, 0, 0, 20, 0, 3], &[0, 40, 1, 2, 1, 0, 0, 1], &[22, 3]];
        let client = [starts[start], &client].concat();
        let _ = classify(&client, &server, Patience::More);
        prop_assert!(classify(&client, &server, Patience::Decide).is_some());
        let _ = classify_datagram(&client);
    }

    #[test]
    fn small_numbers_are_classified(client in proptest::collection::vec(0_u8..4, 0..40)) {
        prop_assert!(classify(&client, &client, Patience::Decide).is_some());
        let _ = classify_datagram(&client);
    }

    #[test]
    fn random_bytes_are_unknown(
        client in proptest::collection::vec(any::<u8>(), 16..64),
        server in proptest::collection::vec(any::<u8>(), 16..64),
    ) {
        prop_assert_eq!(classify(&client, &server, Patience::Decide), Some(Unknown));
    }
}
