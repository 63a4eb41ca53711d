use super::*;
use crate::abi::{
    STREAM_FIN, STREAM_LOST, STREAM_RECEIVED, STREAM_SENT, STREAM_SYN, STREAM_TLS,
    STREAM_TLS_RECORD, TCP_ROLE_CLIENT, TCP_ROLE_SERVER,
};

const MS: u64 = 1_000_000;
const HELLO: &[u8] = include_bytes!("../../../tls/captured/tls1_3.bin");

/// One end of a connection from port 40000 of 10.0.0.1 to port 443 of 10.0.0.2.
struct End {
    netns: u32,
    is_client: bool,
    sent: u32,
    received: u32,
}

impl End {
    fn client() -> Self {
        Self {
            netns: 1,
            is_client: true,
            sent: 1000,
            received: u32::MAX - 5,
        }
    }

    fn server() -> Self {
        Self {
            netns: 2,
            is_client: false,
            sent: u32::MAX - 5,
            received: 1000,
        }
    }

    /// What this end sees of bytes that lie `at` bytes deep in the client's or the server's stream.
    fn sees(&self, from_client: bool, at: u32, flags: u32, ms: u64) -> stream_segment {
        let is_sent = from_client == self.is_client;
        let start = if is_sent { self.sent } else { self.received };
        let (local, peer) = if self.is_client { (1, 2) } else { (2, 1) };
        let (local_port, peer_port) = if self.is_client {
            (40000, 443)
        } else {
            (443, 40000)
        };
        let address = |host| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, host];
        stream_segment {
            time_ns: ms * MS,
            cgroup: 1,
            netns: self.netns,
            sequence: start.wrapping_add(at),
            sent_start: self.sent,
            received_start: self.received,
            length: 0,
            local_port,
            peer_port,
            local: address(local),
            peer: address(peer),
            direction: (if is_sent {
                STREAM_SENT
            } else {
                STREAM_RECEIVED
            }) as u8,
            role: (if self.is_client {
                TCP_ROLE_CLIENT
            } else {
                TCP_ROLE_SERVER
            }) as u8,
            transport: 6,
            flags: flags as u8,
            reserved: 0,
        }
    }
}

fn connections() -> Connections {
    Connections::new(Duration::from_secs(10))
}

fn protocols(connections: &mut Connections) -> Vec<(bool, &'static str, u64)> {
    let found = connections.take().protocols.into_iter();
    let mut found: Vec<_> = found
        .map(|((edge, protocol, _), count)| (edge.is_client, protocol.as_str(), count))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn a_connection_between_two_local_ends_counts_at_its_client() {
    let mut both = connections();
    for end in [End::server(), End::client()] {
        // The greeting of a server comes to the client's side second.
        both.segment(&end.sees(false, 0, 0, 1), b"\x4a\0\0\0\x0a8.0.36\0");
        both.segment(&end.sees(true, 0, 0, 2), b"\x20\0\0\x01");
    }
    both.tick(3000 * MS);
    assert_eq!(protocols(&mut both), [(true, "mysql", 1)]);

    let mut server_alone = connections();
    server_alone.segment(&End::server().sees(true, 0, 0, 1), b"GET / HTTP/1.1\r\n");
    assert_eq!(
        protocols(&mut server_alone),
        [],
        "the client's side may follow"
    );
    server_alone.tick(1100 * MS);
    assert_eq!(protocols(&mut server_alone), [(false, "http1", 1)]);
}

#[test]
fn a_connection_that_begins_with_data_in_its_syn_is_one() {
    let request = b"GET / HTTP/1.1\r\n";
    let syn = |end: &End| {
        let mut syn = end.sees(true, 0, STREAM_SYN, 1);
        *(if end.is_client {
            &mut syn.received_start
        } else {
            &mut syn.sent_start
        }) = 0;
        syn
    };
    // Of both ends the client's is seen first, whatever comes when.
    for ends in [
        vec![End::client(), End::server()],
        vec![End::client()],
        vec![End::server()],
    ] {
        let mut connections = connections();
        for end in &ends {
            connections.segment(&syn(end), request);
        }
        for end in ends.iter().rev() {
            // The server had no use for what came with the SYN.
            connections.segment(&end.sees(true, 0, 0, 2), request);
            connections.segment(&end.sees(false, 0, 0, 3), b"HTTP/1.1 200 OK\r\n");
        }
        connections.tick(3000 * MS);
        let is_client = ends[0].is_client;
        assert_eq!(protocols(&mut connections), [(is_client, "http1", 1)]);
    }
}

#[test]
fn pieces_that_come_late_do_not_count_again() {
    let mut connections = connections();
    let end = End::client();
    connections.segment(&end.sees(true, 0, 0, 1), b"GET ");
    connections.segment(&end.sees(true, 4, 0, 2), b"/ HTTP/1.1\r\n");
    connections.segment(&end.sees(true, 0, 0, 3), b"GET / HTTP/1.1\r\n");
    connections.segment(&end.sees(false, 0, 0, 4), b"HTTP/1.1 200 OK\r\n");
    assert_eq!(protocols(&mut connections), [(true, "http1", 1)]);
    connections.tick(9000 * MS);
    assert!(connections.live.is_empty());
    // The answer of a server that took its time.
    let answer = end.sees(false, 0, STREAM_ANSWERS, 9001);
    connections.segment(&answer, b"HTTP/1.1 200 OK\r\n");
    assert!(connections.live.is_empty());
}

#[test]
fn a_handshake_is_put_together_and_nothing_of_it_is_kept() {
    let mut connections = connections();
    let end = End::client();
    let mut at = [0, 0];
    let mut file = HELLO;
    let mut ms = 0;
    while let [side, high, low, rest @ ..] = file {
        let (bytes, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        let from_client = *side == b'C';
        let depth = &mut at[usize::from(from_client)];
        ms += 10;
        connections.segment(
            &end.sees(from_client, *depth, STREAM_TLS | STREAM_TLS_RECORD, ms),
            bytes,
        );
        *depth += bytes.len() as u32;
        file = rest;
    }
    connections.tick(2000 * MS);
    let found = connections.take();
    let [finished] = found.handshakes.as_slice() else {
        panic!("{} handshakes", found.handshakes.len());
    };
    assert_eq!(finished.outcome.end, crate::tls::handshake::End::Completed);
    assert_eq!(finished.outcome.duration_ns, 20 * MS);
    assert_eq!(finished.server.1, 443);
    connections.tick(9000 * MS);
    assert!(connections.live.is_empty());
}

#[test]
fn a_handshake_that_lost_a_piece_is_lost_and_not_failed() {
    let hello = |connections: &mut Connections, ms| {
        let segment = End::client().sees(true, 0, STREAM_TLS | STREAM_TLS_RECORD, ms);
        connections.segment(&segment, &HELLO[3..264]);
    };
    let closing = |flags, ms| End::client().sees(true, 261, STREAM_TLS | STREAM_FIN | flags, ms);

    let mut told_by_the_kernel = connections();
    hello(&mut told_by_the_kernel, 1);
    told_by_the_kernel.segment(&closing(STREAM_LOST, 2), &[]);
    let found = told_by_the_kernel.take();
    assert_eq!((found.incomplete, found.handshakes.len()), (1, 0));

    // After the first second nothing was lost, so the time-out of the second one is its own.
    let mut timed_out = connections();
    hello(&mut timed_out, 1);
    timed_out.lost_pieces(3, 1000 * MS);
    let mut later = End::client().sees(true, 0, STREAM_TLS | STREAM_TLS_RECORD, 2000);
    later.local_port += 1;
    later.sent_start += 1;
    later.sequence += 1;
    timed_out.segment(&later, &HELLO[3..264]);
    timed_out.lost_pieces(3, 20_000 * MS);
    timed_out.tick(20_000 * MS);
    let found = timed_out.take();
    assert_eq!((found.lost_pieces, found.incomplete), (3, 1));
    assert_eq!(found.handshakes.len(), 1);

    let mut closed = connections();
    hello(&mut closed, 1);
    closed.segment(&closing(0, 2), &[]);
    let found = closed.take();
    assert_eq!((found.incomplete, found.handshakes.len()), (0, 1));
}

#[test]
fn a_connection_of_our_own_does_not_count() {
    let mut connections = connections();
    connections.ignore(1, 40000, 0);
    for end in [End::client(), End::server()] {
        let hello = end.sees(true, 0, STREAM_TLS | STREAM_TLS_RECORD, 1);
        connections.segment(&hello, &HELLO[3..264]);
        connections.segment(&end.sees(true, 261, STREAM_TLS | STREAM_FIN, 2), &[]);
    }
    connections.tick(3000 * MS);
    let found = connections.take();
    assert!(found.protocols.is_empty() && found.handshakes.is_empty());
}

#[test]
fn a_port_used_again_is_another_connection() {
    let mut connections = connections();
    for again in 0..3 {
        let mut end = End::client();
        end.received += again;
        end.sent += again * 77;
        connections.segment(&end.sees(true, 0, 0, 1), b"*1\r\n$4\r\nPING\r\n");
    }
    assert_eq!(protocols(&mut connections), [(true, "redis", 3)]);
}

#[test]
fn one_that_was_counted_may_change_to_tls() {
    let smtp = |server_alone: bool| {
        let mut connections = connections();
        let mut ends = vec![End::server()];
        if !server_alone {
            ends.insert(0, End::client());
        }
        for end in &ends {
            connections.segment(&end.sees(false, 0, 0, 1), b"220 mail\r\n");
            let greeting =
                b"EHLO a.example.org with a long line, so that no more is waited for\r\n";
            connections.segment(&end.sees(true, 0, 0, 2), greeting);
        }
        connections.tick(1600 * MS);
        assert!(connections.live.is_empty());
        for end in &ends {
            let hello = end.sees(true, 100, STREAM_TLS | STREAM_TLS_RECORD, 5000);
            connections.segment(&hello, &HELLO[3..264]);
            connections.segment(&end.sees(true, 361, STREAM_TLS | STREAM_FIN, 5001), &[]);
        }
        connections.tick(6100 * MS);
        let found = connections.take();
        (
            found.protocols.values().sum::<u64>(),
            found.handshakes.len(),
        )
    };
    assert_eq!(smtp(false), (1, 1), "both ends are here");
    assert_eq!(smtp(true), (1, 1));

    // This one was there before us.
    let mut connections = connections();
    let hello = End::client().sees(true, 100, STREAM_TLS | STREAM_TLS_RECORD, 1);
    connections.segment(&hello, &HELLO[3..264]);
    connections.tick(6100 * MS);
    assert!(connections.live.is_empty());
}

#[test]
fn connections_that_are_soon_over_take_no_room() {
    let mut connections = connections();
    let many = u32::try_from(MAX_CONNECTIONS).unwrap() + 1000;
    for at in 0..many {
        for mut end in [End::client(), End::server()] {
            let start = if end.is_client {
                &mut end.sent
            } else {
                &mut end.received
            };
            *start = at;
            let mut request = end.sees(true, 0, 0, 1000 + u64::from(at / 1000));
            request.local_port = request.local_port.wrapping_add(at as u16);
            connections.segment(&request, b"GET / HTTP/1.1\r\n");
        }
    }
    let found = connections.take();
    assert_eq!(found.lost, 0);
    assert_eq!(found.protocols.values().sum::<u64>(), u64::from(many));
}

#[test]
fn a_server_that_gave_up_tls_is_not_expected_to_speak_it_for_ever() {
    let mut connections = connections();
    let end = End::client();
    let key = Key::of(&end.sees(true, 0, 0, 0));
    connections.note_tls_server((0, key.peer, key.peer_port), 0);
    let mut plain = |ms: u64| {
        connections.segment(&end.sees(true, 0, 0, ms), b"GET / HTTP/1.1\r\n");
        connections.segment(&end.sees(false, 0, 0, ms), b"HTTP/1.1 200 OK\r\n");
        for later in [5000, 20_000, 40_000, 60_000] {
            connections.tick((ms + later) * MS);
        }
        let found = connections.take();
        let counted: u64 = found.protocols.values().sum();
        (counted, found.plaintext.values().sum::<u64>())
    };
    assert_eq!(plain(1000), (1, 1));
    assert_eq!(plain(4_000_000), (1, 0), "an hour later");
}
