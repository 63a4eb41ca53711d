//! Two network namespaces with a cable between them, gone when the test ends.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// The end that connects, and the end that listens.
pub(crate) struct Lab {
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) client4: IpAddr,
    pub(crate) server4: IpAddr,
    pub(crate) server6: IpAddr,
    /// An address of the network that nobody has.
    pub(crate) nobody4: IpAddr,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Unique among the tests of this process and among processes. The addresses too: a peer
        // whose address several namespaces have cannot be named.
        let number = std::process::id() * 16 + COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{number:x}");
        let [_, _, high, low] = number.to_be_bytes();
        let address4 = |host| IpAddr::V4(Ipv4Addr::new(10, high, low, host));
        let address6 = |host| {
            let network = u16::from_be_bytes([high, low]);
            IpAddr::V6(Ipv6Addr::new(0xfd91, network, 0, 0, 0, 0, 0, host))
        };
        let lab = Self {
            client: format!("rwk{unique}c"),
            server: format!("rwk{unique}s"),
            client4: address4(1),
            server4: address4(2),
            server6: address6(2),
            nobody4: address4(99),
        };
        for namespace in [&lab.client, &lab.server] {
            run(&format!("ip netns add {namespace}"));
            // No neighbour discovery or duplicate-address detection in the way.
            run(&format!(
                "ip netns exec {namespace} sysctl -qw net.ipv6.conf.all.accept_dad=0 \
                 net.ipv6.conf.default.accept_dad=0"
            ));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        let (client, server) = (&lab.client, &lab.server);
        run(&format!(
            "ip -n {client} link add eth0 type veth peer name eth0 netns {server}"
        ));
        for (namespace, host) in [(client, 1), (server, 2)] {
            let (four, six) = (address4(host), address6(host.into()));
            run(&format!("ip -n {namespace} address add {four}/24 dev eth0"));
            run(&format!(
                "ip -n {namespace} address add {six}/64 dev eth0 nodad"
            ));
            run(&format!("ip -n {namespace} link set eth0 up"));
        }
        for server in [lab.server4, lab.server6] {
            lab.wait_until_connected(server);
        }
        lab
    }

    /// IPv6 takes a second after its link has come up.
    fn wait_until_connected(&self, server: IpAddr) {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let client = self.in_client(|| UdpSocket::bind(any).unwrap());
        let server = self.in_server(|| UdpSocket::bind((server, 9)).unwrap());
        server
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = server.local_addr().unwrap();
        for _ in 0..500 {
            // Refused while the address is being assigned.
            let _ = client.send_to(b"there?", address);
            if server.recv(&mut [0; 16]).is_ok() {
                // Those that waited for the neighbour.
                while server.recv(&mut [0; 16]).is_ok() {}
                return;
            }
        }
        panic!("{address} cannot be reached");
    }

    pub(crate) fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.client, work)
    }

    pub(crate) fn in_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.server, work)
    }

    /// A counter of `nstat`, of the client's or the server's namespace.
    pub(crate) fn nstat(namespace: &str, counter: &str) -> u64 {
        let output = run(&format!("ip netns exec {namespace} nstat -asz {counter}"));
        output
            .lines()
            .find_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                (fields.next() == Some(counter)).then(|| fields.next())?
            })
            .map_or(0, |value| value.parse().expect("nstat prints numbers"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .output();
        }
    }
}

/// Runs `work` on a thread of its own inside a namespace. Sockets made there stay there.
pub(crate) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{name}");
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let namespace = File::open(&path).expect("the namespace exists");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// False, with a word to the reader, where there is no nft.
#[expect(clippy::print_stderr, reason = "who runs the tests must see this")]
pub(crate) fn nft(namespace: &str, rules: &str) -> bool {
    let nft = Command::new("ip")
        .args(["netns", "exec", namespace, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut nft) = nft else {
        eprintln!("skipped: no nft");
        return false;
    };
    let mut stdin = nft.stdin.take().unwrap();
    stdin.write_all(rules.as_bytes()).unwrap();
    drop(stdin);
    let done = nft.wait().is_ok_and(|status| status.success());
    if !done {
        eprintln!("skipped: nft cannot translate here");
    }
    done
}

/// Runs a command line without quotes, and returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .expect("the command is installed");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
