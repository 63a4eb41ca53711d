//! DNS over TCP in pieces, and several messages at once.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::super::lab::{Lab, run};
use super::super::measure::Measurement;
use super::{A, answer, query_for};

pub(crate) fn framed(message: Vec<u8>) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), &message[..]].concat()
}

/// Sends in pieces of `size` bytes, each a segment of its own.
fn send(stream: &mut TcpStream, bytes: &[u8], size: usize) {
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        stream.write_all(piece).unwrap();
        if size < bytes.len() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn exchange(lab: &Lab, address: IpAddr, names: &[String], size: usize) {
    let listener = lab.in_server(|| TcpListener::bind((address, 53)).unwrap());
    let queries = |id: usize, name: &String| query_for(id as u16, name, A);
    let queries: Vec<Vec<u8>> = names
        .iter()
        .enumerate()
        .map(|(id, name)| queries(id, name))
        .collect();
    let all: Vec<u8> = queries.iter().cloned().flat_map(framed).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut vec![0; all.len()]).unwrap();
            // Long answers, of which only the beginning is of interest.
            let answers: Vec<u8> = (queries.iter())
                .flat_map(|query| framed([answer(query, 3, false), vec![0; 60]].concat()))
                .collect();
            send(
                &mut stream,
                &answers,
                if size < all.len() { 7 } else { answers.len() },
            );
        });
        lab.in_client(|| {
            let mut stream = TcpStream::connect((address, 53)).unwrap();
            send(&mut stream, &all, size);
            stream.read_to_end(&mut Vec::new()).unwrap();
        });
    });
}

fn check(pieces: usize, count: usize) {
    for server in [|lab: &Lab| lab.server4, |lab: &Lab| lab.server6] {
        let lab = Lab::new();
        let Some(mut measurement) = Measurement::start("dns") else {
            return;
        };
        let names: Vec<String> = (0..count).map(|n| format!("n{n}.stream.test")).collect();
        exchange(&lab, server(&lab), &names, pieces);
        measurement.collect();
        let labels = [("src_workload", lab.client.as_str()), ("protocol", "tcp")];
        let show = measurement.show("dns_");
        let count = count as u64;
        assert_eq!(
            measurement.count("dns_queries_total", &labels),
            count,
            "{show}"
        );
        let labels = [labels.as_slice(), &[("rcode", "nxdomain"), ("qtype", "a")]].concat();
        assert_eq!(
            measurement.count("dns_responses_total", &labels),
            count,
            "{show}"
        );
        let report = measurement.report("dns").to_string();
        // Of many names only so many are kept by themselves, and which ones is up to the order of a map.
        assert!(report.contains(".stream.test"), "{report}");
    }
}

#[test]
#[ignore = "needs root"]
fn messages_in_pieces_are_put_together() {
    check(1, 2);
    check(5, 3);
}

#[test]
#[ignore = "needs root"]
fn many_messages_in_one_segment_are_all_seen() {
    check(usize::MAX, 40);
}

/// As after a lost segment, the first that is seen begins in the middle of a message.
#[test]
#[ignore = "needs root"]
fn answers_are_seen_again_after_one_whose_beginning_was_not() {
    let lab = Lab::new();
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 53)).unwrap());
    let mut client = lab.in_client(|| TcpStream::connect((lab.server4, 53)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    let mut ask = |query: &[u8]| client.write_all(&framed(query.to_vec())).unwrap();
    let missed = query_for(1, "missed.stream.test", A);
    ask(&missed);
    let long = framed([answer(&missed, 0, false), vec![b' '; 200]].concat());
    let (before, after) = long.split_at(100);
    server.write_all(before).unwrap();
    thread::sleep(Duration::from_millis(50));
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    server.write_all(after).unwrap();
    for id in 2..5 {
        let query = query_for(id, "seen.stream.test", A);
        ask(&query);
        thread::sleep(Duration::from_millis(5));
        server.write_all(&framed(answer(&query, 0, false))).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    measurement.collect();
    let labels = [("src_workload", lab.client.as_str()), ("protocol", "tcp")];
    let show = measurement.show("dns_");
    assert_eq!(measurement.count("dns_queries_total", &labels), 3, "{show}");
    assert_eq!(
        measurement.count("dns_responses_total", &labels),
        3,
        "{show}"
    );
}

/// The first segment with answers is lost, so that it comes once more after the others.
fn answers_that_overtake_the_first_are_seen(server: fn(&Lab) -> IpAddr, count: u16, cut: usize) {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("dns") else {
        return;
    };
    for rule in [
        "add table inet t",
        "add chain inet t in { type filter hook input priority 0 ; }",
        // Nothing without data is so long.
        "add rule inet t in tcp sport 53 meta length > 90 numgen inc mod 1000000 == 0 drop",
    ] {
        run(&format!("ip netns exec {} nft {rule}", lab.client));
    }
    let address = (server(&lab), 53);
    let listener = lab.in_server(|| TcpListener::bind(address).unwrap());
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let answers = |ids: std::ops::Range<u16>| -> Vec<Vec<u8>> {
        ids.map(|id| query_for(id, &format!("n{id}.stream.test"), A))
            .map(|query| framed([answer(&query, 3, false), vec![0; 60]].concat()))
            .collect()
    };
    // The last is in order, and tells whether the place was found again.
    for (ids, cut) in [(0..count, cut), (count..count + 1, usize::MAX)] {
        for id in ids.clone() {
            let query = query_for(id, &format!("n{id}.stream.test"), A);
            client.write_all(&framed(query)).unwrap();
        }
        let answers = answers(ids).concat();
        send(&mut server, &answers, cut.min(answers.len()));
        client.read_exact(&mut vec![0; answers.len()]).unwrap();
    }
    let lost = Lab::nstat(&lab.server, "TcpRetransSegs");
    assert!(lost > 0, "nothing was lost");
    measurement.collect();
    let labels = [("src_workload", lab.client.as_str()), ("protocol", "tcp")];
    let show = measurement.show("dns_");
    for metric in ["dns_queries_total", "dns_responses_total"] {
        let counted = measurement.count(metric, &labels);
        assert_eq!(counted, u64::from(count) + 1, "{show}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_lost_answer_is_seen_when_it_comes_after_the_others() {
    // Of that length each, with names of one digit.
    let one = framed([query_for(0, "n0.stream.test", A), vec![0; 60]].concat()).len();
    answers_that_overtake_the_first_are_seen(|lab| lab.server4, 4, one);
    answers_that_overtake_the_first_are_seen(|lab| lab.server6, 4, one);
}

#[test]
#[ignore = "needs root"]
fn the_lost_beginning_of_an_answer_is_seen_when_it_comes_after_the_rest() {
    answers_that_overtake_the_first_are_seen(|lab| lab.server4, 1, 45);
    answers_that_overtake_the_first_are_seen(|lab| lab.server6, 1, 45);
}
