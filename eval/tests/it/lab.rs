//! A lab carries traffic, and nothing of it outlives its process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// `runwire-eval lab`, ended when the test does.
struct Lab {
    child: Child,
    description: Value,
}

impl Lab {
    fn start(seed: u32, extra: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_runwire-eval"))
            .args(["lab", "--seed", &seed.to_string()])
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let description = serde_json::from_str(&line).unwrap_or(Value::Null);
        let lab = Self { child, description };
        assert!(lab.description.is_object(), "the lab did not start: {line}");
        lab
    }

    fn node(&self, index: usize) -> &Value {
        &self.description["nodes"][index]
    }

    fn namespaces(&self) -> Vec<String> {
        let nodes = self.description["nodes"].as_array().unwrap();
        let mut names: Vec<String> = nodes.iter().map(|node| text(&node["namespace"])).collect();
        names.push(text(&self.description["router"]));
        names
    }

    fn end(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Signal::SIGTERM);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// Seeds that no other run of these tests has just used.
fn seed() -> u32 {
    std::process::id() * 16
}

fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(
                    fs::File::open(format!("/run/netns/{namespace}")).unwrap(),
                    CloneFlags::CLONE_NEWNET,
                )
                .unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Sends four bytes from the first node to the second, over that family.
fn carries(lab: &Lab, family: &str) {
    let address: IpAddr = text(&lab.node(1)[family]).parse().unwrap();
    let listener = inside(&text(&lab.node(1)["namespace"]), || {
        TcpListener::bind((address, 0)).unwrap()
    });
    let target = SocketAddr::new(address, listener.local_addr().unwrap().port());
    let client = thread::spawn({
        let namespace = text(&lab.node(0)["namespace"]);
        move || {
            inside(&namespace, || {
                let mut stream =
                    TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
                stream.write_all(b"ping").unwrap();
            });
        }
    });
    let (mut stream, peer) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    client.join().unwrap();
    assert_eq!(bytes, b"ping");
    assert_eq!(
        peer.ip(),
        text(&lab.node(0)[family]).parse::<IpAddr>().unwrap()
    );
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn a_lab_carries_both_families_and_leaves_nothing() {
    let mut lab = Lab::start(seed(), &[]);
    carries(&lab, "ipv4");
    carries(&lab, "ipv6");
    let namespaces = lab.namespaces();
    assert!(namespaces.iter().all(|name| exists(name)), "{namespaces:?}");
    lab.end(Signal::SIGTERM);
    assert!(
        !namespaces.iter().any(|name| exists(name)),
        "{namespaces:?}"
    );
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn the_user_space_wire_carries_both_families() {
    let lab = Lab::start(seed() + 1, &["--wires", "client"]);
    carries(&lab, "ipv4");
    carries(&lab, "ipv6");
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn the_next_start_removes_what_a_killed_one_left() {
    let mut killed = Lab::start(seed() + 2, &["--wires", "client"]);
    let namespaces = killed.namespaces();
    killed.end(Signal::SIGKILL);

    let _next = Lab::start(seed() + 3, &[]);
    // The wire of the killed lab dies with its parent and lets its devices go.
    let limit = Instant::now() + Duration::from_secs(5);
    while namespaces.iter().any(|name| exists(name)) {
        assert!(Instant::now() < limit, "still there: {namespaces:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
