//! Plays a plan between the two namespaces of a lab. One thread holds both ends of a connection, so
//! that every close is where the plan has it; several threads play at once.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::plan::{Act, Close, Family, Plan};
use crate::kernel::dns::{answer, framed, query_for};
use crate::kernel::lab::{Lab, run};
use crate::kernel::measure::is_older_than;

/// Longer than the kernel puts off an acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody has it, of TCP or UDP.
const NO_PORT: u16 = 9;
const FLOOD_SIZE: usize = 1000;

/// What was done, as the programs that did it know.
#[derive(Default)]
pub(super) struct Done {
    pub(super) opened: u64,
    pub(super) refused: u64,
    /// Payload from the client to the server, and back.
    pub(super) bytes: [u64; 2],
    /// Resets that an open connection received, at the client and at the server.
    pub(super) resets: [u64; 2],
    /// Datagrams read, and their payload, at the server and at the client.
    pub(super) read: [(u64, u64); 2],
    /// Datagrams sent, and their payload, by the client and by the server.
    pub(super) sent: [(u64, u64); 2],
    /// Of those, to a port that nobody has.
    pub(super) to_nobody: u64,
    /// DNS queries by type and whether over TCP, and answers by code.
    pub(super) queries: BTreeMap<(u16, bool), u64>,
    pub(super) answers: BTreeMap<u8, u64>,
    pub(super) open: Vec<(TcpStream, TcpStream)>,
}

impl Done {
    pub(super) fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.refused += other.refused;
        self.to_nobody += other.to_nobody;
        for end in 0..2 {
            self.bytes[end] += other.bytes[end];
            self.resets[end] += other.resets[end];
            self.read[end].0 += other.read[end].0;
            self.read[end].1 += other.read[end].1;
            self.sent[end].0 += other.sent[end].0;
            self.sent[end].1 += other.sent[end].1;
        }
        for (key, n) in other.queries {
            *self.queries.entry(key).or_default() += n;
        }
        for (key, n) in other.answers {
            *self.answers.entry(key).or_default() += n;
        }
        self.open.extend(other.open);
    }
}

/// One thread's part: addresses of its own in the server's namespace, and who listens there.
pub(super) struct Player {
    four: Servers,
    six: Servers,
    /// How many DNS queries there were; no two are alike.
    queries: u16,
}

struct Servers {
    talk: TcpListener,
    echo: UdpSocket,
    dns: UdpSocket,
    dns_over_tcp: TcpListener,
}

impl Servers {
    fn open(lab: &Lab, address: IpAddr) -> Self {
        let server = &lab.server;
        match address {
            IpAddr::V4(_) => run(&format!("ip -n {server} address add {address}/24 dev eth0")),
            IpAddr::V6(_) => run(&format!(
                "ip -n {server} address add {address}/64 dev eth0 nodad"
            )),
        };
        let servers = lab.in_server(|| Self {
            talk: TcpListener::bind((address, 0)).unwrap(),
            echo: UdpSocket::bind((address, 0)).unwrap(),
            dns: UdpSocket::bind((address, 53)).unwrap(),
            dns_over_tcp: TcpListener::bind((address, 53)).unwrap(),
        });
        for socket in [&servers.echo, &servers.dns] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        servers
    }

    fn address(&self) -> IpAddr {
        self.talk.local_addr().unwrap().ip()
    }
}

impl Player {
    pub(super) fn new(lab: &Lab, number: u8) -> Self {
        let host = 10 + number;
        let (IpAddr::V4(four), IpAddr::V6(six)) = (lab.server4, lab.server6) else {
            unreachable!("a lab has one of each");
        };
        let [a, b, c, _] = four.octets();
        let mut words = six.segments();
        words[7] = host.into();
        Self {
            four: Servers::open(lab, Ipv4Addr::new(a, b, c, host).into()),
            six: Servers::open(lab, Ipv6Addr::from(words).into()),
            queries: 0,
        }
    }

    pub(super) fn play(&mut self, lab: &Lab, plan: &Plan) -> Done {
        let mut done = Done::default();
        for &(family, act) in plan {
            self.queries += 1;
            let servers = match (family, act) {
                // Before that, no event tells of a full buffer over IPv6.
                (Family::V6, Act::Flood { .. }) if is_older_than(6, 10) => &self.four,
                (Family::V4, _) => &self.four,
                (Family::V6, _) => &self.six,
            };
            match act {
                Act::Talk {
                    request,
                    answer,
                    close,
                } => servers.talk(lab, request, answer, close, &mut done),
                Act::Refused => {
                    let nobody = (servers.address(), NO_PORT);
                    lab.in_client(|| TcpStream::connect(nobody).unwrap_err());
                    done.refused += 1;
                }
                Act::Datagrams { count, size } => servers.echo(lab, count, size, &mut done),
                Act::Flood { count } => servers.flood(lab, count, &mut done),
                Act::Nobody { count, size } => servers.to_nobody(lab, count, size, &mut done),
                Act::Query { qtype, rcode } => {
                    servers.query(lab, &query(self.queries, qtype), rcode, &mut done);
                    *done.queries.entry((qtype, false)).or_default() += 1;
                    *done.answers.entry(rcode).or_default() += 1;
                }
                Act::QueryOverTcp { qtype, rcode } => {
                    servers.query_over_tcp(lab, &query(self.queries, qtype), rcode, &mut done);
                    *done.queries.entry((qtype, true)).or_default() += 1;
                    *done.answers.entry(rcode).or_default() += 1;
                }
            }
        }
        done
    }
}

fn query(number: u16, qtype: u16) -> Vec<u8> {
    query_for(number, &format!("n{number}.example.test"), qtype)
}

impl Servers {
    fn talk(&self, lab: &Lab, request: usize, answer: usize, close: Close, done: &mut Done) {
        let address = self.talk.local_addr().unwrap();
        let client = lab.in_client(|| TcpStream::connect(address).unwrap());
        let (server, _) = self.talk.accept().unwrap();
        done.opened += 1;
        let (to_client, to_server) = close.resets();
        done.resets[0] += u64::from(to_client);
        done.resets[1] += u64::from(to_server);
        if close == Close::ServerLeavesUnread {
            // As much as fits into any receive buffer.
            let request = request % 20_000 + 1;
            (&client).write_all(&vec![1; request]).unwrap();
            done.bytes[0] += request as u64;
            sleep(ACKNOWLEDGED);
            drop(server);
            expect_reset(&client);
            return;
        }
        done.bytes[0] += request as u64;
        done.bytes[1] += answer as u64;
        if close == Close::ServerHalf {
            carry(&server, &client, answer);
            server.shutdown(Shutdown::Write).unwrap();
            expect_end(&client);
            carry(&client, &server, request);
        } else {
            carry(&client, &server, request);
            if close == Close::ClientHalf {
                client.shutdown(Shutdown::Write).unwrap();
                expect_end(&server);
            }
            carry(&server, &client, answer);
        }
        match close {
            Close::ClientFirst | Close::ServerHalf => end(client, server),
            Close::ServerFirst | Close::ClientHalf => end(server, client),
            Close::Both => std::thread::scope(|scope| {
                scope.spawn(|| drop(client));
                scope.spawn(|| drop(server));
            }),
            Close::ClientResets => reset(client, server),
            Close::ServerResets | Close::ServerLeavesUnread => reset(server, client),
            Close::Never => done.open.push((client, server)),
        }
    }

    fn echo(&self, lab: &Lab, count: usize, size: usize, done: &mut Done) {
        let client = self.client(lab);
        let mut buffer = [0; 1 << 16];
        for _ in 0..count {
            client
                .send_to(&vec![1; size], self.echo.local_addr().unwrap())
                .unwrap();
            let (length, from) = self.echo.recv_from(&mut buffer).unwrap();
            self.echo.send_to(&buffer[..length], from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), size);
        }
        for end in 0..2 {
            add(&mut done.sent[end], count, size);
            add(&mut done.read[end], count, size);
        }
    }

    fn flood(&self, lab: &Lab, count: usize, done: &mut Done) {
        let client = self.client(lab);
        for _ in 0..count {
            client
                .send_to(&[1; FLOOD_SIZE], self.echo.local_addr().unwrap())
                .unwrap();
        }
        add(&mut done.sent[0], count, FLOOD_SIZE);
        self.echo.set_nonblocking(true).unwrap();
        while let Ok((length, _)) = self.echo.recv_from(&mut [0; 2000]) {
            add(&mut done.read[0], 1, length);
        }
        self.echo.set_nonblocking(false).unwrap();
    }

    fn to_nobody(&self, lab: &Lab, count: usize, size: usize, done: &mut Done) {
        let client = self.client(lab);
        for _ in 0..count {
            client
                .send_to(&vec![1; size], (self.address(), NO_PORT))
                .unwrap();
        }
        add(&mut done.sent[0], count, size);
        done.to_nobody += count as u64;
    }

    fn query(&self, lab: &Lab, query: &[u8], rcode: u8, done: &mut Done) {
        let client = self.client(lab);
        let mut buffer = [0; 512];
        client.send_to(query, (self.address(), 53)).unwrap();
        let (length, from) = self.dns.recv_from(&mut buffer).unwrap();
        let answer = answer(&buffer[..length], rcode, false);
        self.dns.send_to(&answer, from).unwrap();
        client.recv(&mut buffer).unwrap();
        for end in 0..2 {
            add(&mut done.sent[end], 1, query.len());
            add(&mut done.read[end], 1, query.len());
        }
    }

    fn query_over_tcp(&self, lab: &Lab, query: &[u8], rcode: u8, done: &mut Done) {
        let address = self.dns_over_tcp.local_addr().unwrap();
        let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
        let (mut server, _) = self.dns_over_tcp.accept().unwrap();
        let (query, answer) = (framed(query.to_vec()), framed(answer(query, rcode, false)));
        client.write_all(&query).unwrap();
        server.read_exact(&mut vec![0; query.len()]).unwrap();
        server.write_all(&answer).unwrap();
        client.read_exact(&mut vec![0; answer.len()]).unwrap();
        end(client, server);
        done.opened += 1;
        done.bytes[0] += query.len() as u64;
        done.bytes[1] += answer.len() as u64;
    }

    /// A UDP socket of the client's, not connected.
    fn client(&self, lab: &Lab) -> UdpSocket {
        let any: SocketAddr = match self.address() {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = lab.in_client(|| UdpSocket::bind(any).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

fn add(total: &mut (u64, u64), count: usize, size: usize) {
    total.0 += count as u64;
    total.1 += (count * size) as u64;
}

/// Moves bytes through a connection, however little of it its buffers hold.
fn carry(mut from: &TcpStream, mut to: &TcpStream, length: usize) {
    let data = vec![1; length];
    let mut buffer = vec![0; 1 << 16];
    let (mut sent, mut received) = (0, 0);
    let start = Instant::now();
    for end in [from, to] {
        end.set_nonblocking(true).unwrap();
    }
    while received < length {
        let before = sent + received;
        for (result, total) in [
            (from.write(&data[sent..]), &mut sent),
            (to.read(&mut buffer), &mut received),
        ] {
            match result {
                Ok(moved) => *total += moved,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        if sent + received == before {
            yield_now();
        }
        assert!(start.elapsed() < PATIENCE, "{received} of {length} bytes");
    }
    for end in [from, to] {
        end.set_nonblocking(false).unwrap();
    }
}

fn end(first: TcpStream, second: TcpStream) {
    drop(first);
    expect_end(&second);
}

fn reset(first: TcpStream, second: TcpStream) {
    sleep(ACKNOWLEDGED);
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&first, sockopt::Linger, &at_once).unwrap();
    drop(first);
    expect_reset(&second);
}

fn expect_end(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

fn expect_reset(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
