//! Packet capture beside the programs of somebody else, and what it leaves behind.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use runwire_collector::capture::CaptureMode;
use runwire_collector::signals::NAMES;

use super::capture::{Node, Veth, send_datagrams};
use super::lab::{in_namespace, run};
use super::measure::Measurement;

/// What a CNI might do: it counts, and its verdict ends the chain.
const PROGRAM: &str = r#"
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");
static __always_inline void count(void)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&seen, &zero);
	if (value)
		__sync_fetch_and_add(value, 1);
}
SEC("classifier") int cni(struct __sk_buff *skb)
{
	count();
	return TC_ACT_OK;
}
SEC("xdp") int cni_xdp(struct xdp_md *frame)
{
	count();
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"#;

struct Cni {
    ebpf: Ebpf,
}

/// Programs from their source in C.
pub(super) fn compiled(program: &str) -> Ebpf {
    let directory = tempfile::tempdir().unwrap();
    let [source, object] = ["test.bpf.c", "test.bpf.o"].map(|name| directory.path().join(name));
    std::fs::write(&source, program).unwrap();
    let clangs = ["clang-19", "clang-16", "clang"];
    let named = std::env::var("CLANG").ok();
    let compiled = named.as_deref().into_iter().chain(clangs).any(|clang| {
        Command::new(clang)
            .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c"])
            .arg(format!(
                "-I/usr/include/{}-linux-gnu",
                std::env::consts::ARCH
            ))
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .status()
            .is_ok_and(|status| status.success())
    });
    assert!(compiled, "clang, which built the collector, is still there");
    Ebpf::load(&std::fs::read(object).unwrap()).unwrap()
}

impl Cni {
    fn load() -> Self {
        Self {
            ebpf: compiled(PROGRAM),
        }
    }

    /// In the calling thread's namespace, for as long as that exists.
    fn attach_tc(&mut self, interface: &str, direction: TcAttachType, links: bool) {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut("cni").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        let options = if links {
            TcAttachOptions::TcxOrder(LinkOrder::last())
        } else {
            TcAttachOptions::Netlink(NlOptions {
                priority: 50,
                ..NlOptions::default()
            })
        };
        let id: SchedClassifierLinkId = program
            .attach_with_options(interface, direction, options)
            .unwrap();
        // Dropped elsewhere, it would look for its filter elsewhere.
        std::mem::forget(program.take_link(id).unwrap());
    }

    fn attach_xdp(&mut self, interface: &str) {
        let program: &mut Xdp = self
            .ebpf
            .program_mut("cni_xdp")
            .unwrap()
            .try_into()
            .unwrap();
        program.load().unwrap();
        program.attach(interface, XdpMode::Skb).unwrap();
    }

    fn seen(&self) -> u64 {
        let map = Array::<_, u64>::try_from(self.ebpf.map("seen").unwrap()).unwrap();
        map.get(&0, 0).unwrap()
    }
}

/// Sends both ways, and returns how many packets the neighbour saw of it.
fn exchange(node: &Node, veth: &Veth, cni: &Cni) -> u64 {
    let before = cni.seen();
    let (node, peer) = (node.name.as_str(), veth.peer.as_str());
    assert_eq!(send_datagrams((node, peer), veth.peer4, &[100], 20), 20);
    assert_eq!(send_datagrams((peer, node), veth.node6, &[100], 20), 20);
    cni.seen() - before
}

fn udp_packets(measurement: &Measurement, veth: &Veth) -> u64 {
    let labels = [("interface", veth.interface.as_str()), ("protocol", "udp")];
    measurement.count("capture_packets_total", &labels)
}

/// What `tc` shows of an interface.
fn traffic_control(node: &Node, veth: &Veth) -> String {
    let (node, interface) = (&node.name, &veth.interface);
    ["qdisc show", "filter show ingress", "filter show egress"]
        .map(|what| {
            let (object, rest) = what.split_once(' ').unwrap();
            let line = match rest.split_once(' ') {
                None => format!("tc -n {node} {object} show dev {interface}"),
                Some((_, way)) => format!("tc -n {node} {object} show dev {interface} {way}"),
            };
            run(&line)
        })
        .concat()
}

#[test]
#[ignore = "needs root"]
fn a_program_that_ends_the_chain_goes_on_and_hides_nothing() {
    for (cni_links, our_links) in [(true, true), (false, true), (false, false)] {
        let mut node = Node::new();
        let veth = node.add_veth('v');
        let mut cni = Cni::load();
        in_namespace(&node.name, || {
            if !cni_links {
                tc::qdisc_add_clsact(&veth.interface).unwrap();
            }
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                cni.attach_tc(&veth.interface, direction, cni_links);
            }
        });
        assert_eq!(exchange(&node, &veth, &cni), 40, "before");
        let as_before = traffic_control(&node, &veth);
        let mut settings = node.settings(CaptureMode::Tc, "@*");
        settings.capture.without_links = !our_links;
        let Some(mut measurement) = Measurement::start_with("capture", settings) else {
            return;
        };
        measurement.collect();
        assert_eq!(our_links, traffic_control(&node, &veth) == as_before);
        assert_eq!(exchange(&node, &veth, &cni), 40, "during");
        measurement.collect();
        let show = measurement.show("capture");
        assert_eq!(udp_packets(&measurement, &veth), 40, "{show}");
        drop(measurement);
        assert_eq!(exchange(&node, &veth, &cni), 40, "after");
        assert_eq!(traffic_control(&node, &veth), as_before);
    }
}

#[test]
#[ignore = "needs root"]
fn an_interface_with_an_xdp_program_is_left_to_it() {
    let mut node = Node::new();
    let [taken, free] = ['a', 'b'].map(|letter| node.add_veth(letter));
    let mut cni = Cni::load();
    in_namespace(&node.name, || cni.attach_xdp(&taken.interface));
    let Some(mut measurement) =
        Measurement::start_with("capture", node.settings(CaptureMode::Xdp, "@*"))
    else {
        return;
    };
    measurement.collect();
    assert_eq!(exchange(&node, &taken, &cni), 20, "ingress");
    exchange(&node, &free, &cni);
    measurement.collect();
    let show = measurement.show("capture");
    assert_eq!(udp_packets(&measurement, &taken), 0, "{show}");
    assert_eq!(udp_packets(&measurement, &free), 20, "{show}");
    assert!(
        show.contains(r#"runwire_capture_interfaces{reason="another_program"} 1"#),
        "{show}"
    );
    let refused = (measurement.hooks().into_iter())
        .find_map(|status| status.refusal.filter(|_| status.signal == "capture"))
        .unwrap();
    assert_eq!(refused.reason, "another_program");
    assert!(
        refused.detail.contains(&taken.interface),
        "{}",
        refused.detail
    );
    assert!(refused.detail.contains(&node.name), "{}", refused.detail);
    drop(measurement);
    assert_eq!(exchange(&node, &taken, &cni), 20, "after");
}

#[test]
#[ignore = "needs root"]
fn filters_without_links_are_as_exact_and_leave_nothing() {
    let mut node = Node::new();
    let veth = node.add_veth('v');
    let as_before = traffic_control(&node, &veth);
    let mut settings = node.settings(CaptureMode::Tc, "@*");
    settings.capture.without_links = true;
    let Some(mut measurement) = Measurement::start_with("capture", settings) else {
        return;
    };
    measurement.collect();
    assert!(traffic_control(&node, &veth).contains("runwire/capture_egress"));
    let ends = (node.name.as_str(), veth.peer.as_str());
    assert_eq!(send_datagrams(ends, veth.peer4, &[64, 512, 1400], 100), 300);
    assert_eq!(
        send_datagrams((ends.1, ends.0), veth.node6, &[64], 100),
        100
    );
    measurement.collect();
    let show = measurement.show("capture");
    assert_eq!(udp_packets(&measurement, &veth), 400, "{show}");
    drop(measurement);
    assert_eq!(traffic_control(&node, &veth), as_before);
}

/// The names under which a process of this test finds what to capture.
const HOLD: &str = "RUNWIRE_TEST_HOLD_FILTERS";

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "needs root"]
fn holds_filters_until_it_is_killed() {
    let Ok(globs) = std::env::var(HOLD) else {
        return;
    };
    let mut settings = runwire_collector::signals::SignalSettings::default();
    settings.capture.mode = CaptureMode::Tc;
    settings.capture.interfaces = globs.parse().unwrap();
    settings.capture.without_links = true;
    let mut measurement = Measurement::start_with("capture", settings).unwrap();
    loop {
        measurement.collect();
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs root"]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let mut node = Node::new();
    let [bare, used] = ['a', 'b'].map(|letter| node.add_veth(letter));
    let mut cni = Cni::load();
    in_namespace(&node.name, || {
        tc::qdisc_add_clsact(&used.interface).unwrap();
        cni.attach_tc(&used.interface, TcAttachType::Ingress, false);
    });
    let [bare_before, used_before] = [&bare, &used].map(|veth| traffic_control(&node, veth));
    let globs = format!("{}*", node.prefix());
    let killed = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kernel::capture_beside::holds_filters_until_it_is_killed",
        ])
        .args(["--ignored", "--nocapture"])
        .env(HOLD, &globs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut killed = KilledAtLast(killed);
    let attached = || {
        [&bare, &used]
            .iter()
            .all(|veth| traffic_control(&node, veth).contains("runwire/capture_egress"))
    };
    wait_until(attached);
    // Beside one that lives, nothing is removed.
    let mut settings = node.settings(CaptureMode::Tc, "@*");
    settings.capture.without_links = true;
    let count = |veth: &Veth| {
        traffic_control(&node, veth)
            .matches("runwire/capture_")
            .count()
    };
    let mut beside = Measurement::start_with("capture", settings.clone()).unwrap();
    beside.collect();
    assert_eq!([&bare, &used].map(count), [4, 4]);
    drop(beside);
    assert_eq!([&bare, &used].map(count), [2, 2]);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(attached(), "filters outlive their process");

    let mut next = Measurement::start_with("capture", settings).unwrap();
    next.collect();
    assert_eq!([&bare, &used].map(count), [2, 2], "only its own");
    assert_eq!(exchange(&node, &used, &cni), 20, "ingress");
    next.collect();
    assert_eq!(udp_packets(&next, &used), 40, "{}", next.show("capture"));
    drop(next);
    assert_eq!(traffic_control(&node, &bare), bare_before);
    assert_eq!(traffic_control(&node, &used), used_before);
}

#[test]
#[ignore = "needs root"]
fn the_program_detaches_when_it_is_stopped_or_killed() {
    let others = NAMES.map(|name| if name == "capture" { "" } else { name });
    let others = others.join(",");
    for (mode, signal) in [
        ("tc", "TERM"),
        ("tc", "KILL"),
        ("xdp", "TERM"),
        ("xdp", "KILL"),
    ] {
        let mut node = Node::new();
        let veth = node.add_veth('v');
        let show = || {
            let link = run(&format!(
                "ip -n {} -d link show {}",
                node.name, veth.interface
            ));
            (
                traffic_control(&node, &veth),
                link,
                attached_programs(&node, &veth),
            )
        };
        let before = show();
        let collector = Command::new(env!("CARGO_BIN_EXE_runwire-collector"))
            .args(["run", "--listen", "127.0.0.1:0", "--capture", mode])
            .args(["--disabled-signals", &others])
            .args(["--capture-interfaces", &format!("{}*", node.prefix())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut collector = KilledAtLast(collector);
        wait_until(|| show() != before);
        run(&format!("kill -{signal} {}", collector.0.id()));
        collector.0.wait().unwrap();
        // What goes with a descriptor goes a moment after the process.
        wait_until(|| show() == before);
    }
}

/// Links of programs, which tools of this age do not show.
fn attached_programs(node: &Node, veth: &Veth) -> usize {
    in_namespace(&node.name, || {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .map(|direction| {
                let (_, programs) =
                    SchedClassifier::query_tcx(&veth.interface, direction).unwrap_or_default();
                programs.len()
            })
            .iter()
            .sum()
    })
}

fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain");
        thread::sleep(Duration::from_millis(50));
    }
}

struct KilledAtLast(Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
