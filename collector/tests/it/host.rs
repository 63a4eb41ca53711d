//! Real namespaces in, names out.

mod churn;
pub(crate) mod exact;

use std::net::IpAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use runwire_collector::enrich::{CgroupId, Enricher, NetnsId};
use runwire_collector::export::{Format, Registry};
use runwire_collector::host::{Host, Paths, ReadingSettings, Readings, netns};

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

/// A namespace with an address on a dummy of its own pair; gone when dropped.
struct Namespace(String);

impl Namespace {
    fn new(suffix: &str) -> Self {
        let name = format!("rwhost{}{suffix}", std::process::id());
        run(&format!("ip netns add {name}"));
        Self(name)
    }

    fn id(&self) -> NetnsId {
        let found = netns::named(&Paths::default()).unwrap();
        let found = found
            .into_iter()
            .find(|(_, found)| found.name.as_ref() == Some(&self.0));
        let (inode, found) = found.unwrap();
        netns::visit(&[(inode, found.path)], || netns::id().unwrap())[0].1
    }

    fn add_address(&self, address: &str) {
        let name = &self.0;
        // nodad: an IPv6 address is usable at once.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        run(&format!("ip -n {name} addr add {address} dev lo{nodad}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn name_of(enricher: &Enricher, from: &Namespace, address: &str) -> String {
    let address: IpAddr = address.parse().unwrap();
    enricher.peer(from.id(), address).name.to_string()
}

/// Searches rest between one another, so an answer may take its time.
fn eventually(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "never");
        sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn addresses_are_named_by_the_namespace_that_has_them() {
    let (one, two) = (Namespace::new("a"), Namespace::new("b"));
    one.add_address("198.18.77.1/32");
    two.add_address("198.18.77.2/32");
    two.add_address("2001:db8:77::2/128");
    let registry = Registry::new(100);
    let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);

    assert_eq!(*enricher.owner(one.id(), CgroupId(0)).name, *one.0);
    assert_eq!(name_of(&enricher, &one, "198.18.77.2"), two.0);
    assert_eq!(name_of(&enricher, &one, "2001:db8:77::2"), two.0);
    assert_eq!(name_of(&enricher, &two, "198.18.77.1"), one.0);
    assert_eq!(name_of(&enricher, &two, "127.0.0.1"), two.0);
    assert_eq!(name_of(&enricher, &two, "198.18.77.3"), "~external");

    // What comes later is found when somebody asks for it.
    let three = Namespace::new("c");
    eventually(|| *enricher.owner(three.id(), CgroupId(0)).name == *three.0);
    three.add_address("198.18.77.4/32");
    eventually(|| {
        // As the agent does every second.
        enricher.refresh();
        name_of(&enricher, &one, "198.18.77.4") == three.0
    });

    // What went keeps its name for a while.
    let (gone, name) = (three.id(), three.0.clone());
    drop(three);
    enricher.refresh();
    assert_eq!(*enricher.owner(gone, CgroupId(0)).name, *name);
    let alive = enricher.workloads();
    assert!(alive.iter().all(|workload| *workload.name != *name));
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn an_address_given_twice_keeps_its_name_for_who_reached_it() {
    let [client, late, server, twin] = ["e", "f", "g", "h"].map(Namespace::new);
    client.add_address("198.18.78.1/32");
    server.add_address("198.18.78.2/32");
    let registry = Registry::new(100);
    let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);
    let [from, address] = ["198.18.78.1", "198.18.78.2"].map(|text| text.parse().unwrap());
    assert_eq!(name_of(&enricher, &client, "198.18.78.2"), server.0);
    enricher.note_reached(client.id(), address);

    twin.add_address("198.18.78.2/32");
    // Addresses are read again every few seconds.
    let start = Instant::now();
    while name_of(&enricher, &late, "198.18.78.2") != "~unknown" {
        assert!(start.elapsed() < Duration::from_secs(20), "never");
        sleep(Duration::from_millis(100));
        enricher.refresh();
    }
    assert_eq!(name_of(&enricher, &client, "198.18.78.2"), server.0);
    assert_eq!(name_of(&enricher, &twin, "198.18.78.2"), twin.0);
    // A packet of the client is meant for the server, wherever it ends up.
    assert_eq!(*enricher.meant(twin.id(), from, address).name, *server.0);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn counters_of_a_namespace_are_those_of_nstat() {
    let one = Namespace::new("d");
    run(&format!("ip -n {} link set lo up", one.0));
    let script = "import socket\nfor i in range(7):\n  try: socket.create_connection(('127.0.0.1', 9))\n  except OSError: pass";
    let python = ["netns", "exec", &one.0, "python3", "-c", script];
    assert!(Command::new("ip").args(python).status().unwrap().success());

    let registry = Registry::new(10_000);
    let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);
    let mut counters = Readings::new(&registry, &ReadingSettings::default());
    counters.collect(&enricher);
    counters.collect(&enricher);
    let text = registry.encode(Format::Text, None);
    for counter in ["TcpActiveOpens", "TcpAttemptFails", "TcpOutRsts"] {
        let name = &one.0;
        let line = format!(
            "runwire_netns_mib_total{{namespace=\"host\",workload=\"{name}\",kind=\"netns\",counter=\"{counter}\"}} 7\n"
        );
        assert!(text.contains(&line), "{counter}");
    }
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn two_hundred_namespaces_are_refreshed_in_no_time() {
    let namespaces: Vec<Namespace> = (0..200).map(|i| Namespace::new(&format!("m{i}"))).collect();
    let registry = Registry::new(10_000);
    let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);
    let last = namespaces.last().unwrap();
    assert_eq!(*enricher.owner(last.id(), CgroupId(0)).name, *last.0);
    let start = Instant::now();
    enricher.refresh();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}
