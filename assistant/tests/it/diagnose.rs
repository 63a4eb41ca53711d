//! `POST /diagnose` over a real Prometheus, and over ones that are down, slow or talk nonsense.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use runwire_assistant::cli::rules;
use runwire_assistant::diagnosis::expression::Expression;
use runwire_assistant::diagnosis::response::{Diagnosis, Status};
use runwire_assistant::diagnosis::{Engine, Question, Scope};
use runwire_assistant::prometheus::{Prometheus, Settings};
use runwire_assistant::runbook::{Library, load};
use serde_json::Value;

pub(crate) mod hostile;
mod past;
pub(crate) mod prometheus;
mod shared;
mod victoria;
pub(crate) mod worlds;

use worlds::World;

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn skipped(reason: &str) {
    println!("skipped: {reason}");
}

fn library() -> Library {
    load(&[worlds::runbooks()])
}

fn engine(url: &str) -> Engine {
    let prometheus = Prometheus::new(Settings::new(url)).unwrap();
    Engine::new(prometheus, Duration::from_secs(20))
}

fn question(time: i64) -> Question {
    Question {
        scope: Scope::default(),
        scope_is_a_guess: false,
        time_millis: time * 1000,
        window: Duration::from_secs(300),
        limit: 5,
        since_millis: None,
        alert: None,
        hits: Vec::new(),
    }
}

/// Families of every metric that the runbooks ask for.
pub(crate) fn families(library: &Library) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for runbook in &library.runbooks {
        let of_modes = runbook.failure_modes.iter().flat_map(|mode| &mode.evidence);
        let exprs = of_modes
            .map(|evidence| &evidence.expr)
            .chain(runbook.symptoms.iter().map(|symptom| &symptom.expr));
        for expr in exprs {
            let expression = Expression::parse(expr).unwrap();
            let ours = expression.metrics().iter();
            let ours = ours.filter_map(|name| name.strip_prefix("runwire_"));
            names.extend(ours.map(|name| {
                ["_total", "_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name)
                    .to_owned()
            }));
        }
    }
    names
}

fn line(world: &World, diagnosis: &Diagnosis) -> String {
    let hypotheses: Vec<String> = diagnosis
        .hypotheses
        .iter()
        .map(|mode| {
            let places: Vec<String> = mode
                .affected
                .iter()
                .take(1)
                .map(|affected| {
                    let end = |name: &Option<String>| name.clone().unwrap_or("*".into());
                    format!(
                        " {}>{}",
                        end(&affected.workload),
                        end(&affected.peer_workload)
                    )
                })
                .collect();
            format!(
                "{} {}{}",
                mode.failure_mode,
                mode.confidence,
                places.concat()
            )
        })
        .collect();
    format!(
        "{}\n    {}: {}\n",
        world.name,
        serde_json::to_value(diagnosis.status)
            .unwrap()
            .as_str()
            .unwrap(),
        hypotheses.join(", ")
    )
}

async fn check_worlds(expected: Expect) {
    let library = library();
    let worlds = worlds::all();
    let Some(server) = prometheus::start(&worlds::openmetrics(&worlds, &families(&library))) else {
        skipped("prometheus and promtool are not installed");
        return;
    };
    let engine = engine(&server.url);
    let mut table = String::new();
    for world in &worlds {
        let diagnosis = engine.diagnose(&library, &question(world.time())).await;
        assert_eq!(diagnosis.degraded, [], "{}", world.name);
        numbers_can_be_asked_again(&engine.prometheus, &diagnosis, world.time()).await;
        let fresh = self::engine(&server.url);
        let again = fresh.diagnose(&library, &question(world.time())).await;
        assert_eq!(
            serde_json::to_string(&diagnosis).unwrap(),
            serde_json::to_string(&again).unwrap()
        );
        table += &line(world, &diagnosis);
    }
    scopes_select(&engine, &library, &worlds).await;
    expected.assert_eq(&table);
}

/// Every value and sample comes from its query at the answer's time.
async fn numbers_can_be_asked_again(prometheus: &Prometheus, diagnosis: &Diagnosis, time: i64) {
    let six_digits = |value: f64| format!("{value:.5e}").parse::<f64>().unwrap();
    for evidence in diagnosis.hypotheses.iter().flat_map(|mode| &mode.evidence) {
        let answer = prometheus
            .instant(&evidence.query, time * 1000)
            .await
            .unwrap()
            .samples;
        let has = |value: f64| {
            answer
                .iter()
                .any(|sample| six_digits(sample.value) == value)
        };
        assert!(evidence.value.is_none_or(has), "{}", evidence.query);
        for shown in &evidence.samples {
            let same = |sample: &runwire_assistant::prometheus::Sample| {
                sample.labels == shown.labels && six_digits(sample.value) == shown.value
            };
            assert!(answer.iter().any(same), "{}", evidence.query);
        }
    }
}

async fn scopes_select(engine: &Engine, library: &Library, worlds: &[World]) {
    let world = worlds
        .iter()
        .find(|world| world.name.starts_with("nothing listens"))
        .unwrap();
    let ask = async |namespace: Option<&str>, workload: &str, guess| {
        let scope = Scope {
            namespace: namespace.map(str::to_owned),
            workload: Some(workload.into()),
            ..Scope::default()
        };
        let question = Question {
            scope,
            scope_is_a_guess: guess,
            ..question(world.time())
        };
        engine.diagnose(library, &question).await
    };
    for workload in ["client", "server"] {
        let diagnosis = ask(Some("host"), workload, false).await;
        assert_eq!(diagnosis.status, Status::Fault, "{workload}");
        assert_eq!(diagnosis.hypotheses[0].failure_mode, "no-listener");
    }
    let stranger = ask(None, "nobody", false).await;
    assert_eq!(stranger.status, Status::Unknown);
    assert_eq!(stranger.hypotheses, []);
    assert!(stranger.degraded.iter().any(|part| part.part == "scope"));
    let renamed = ask(Some("shop"), "server", true).await;
    assert_eq!(renamed.status, Status::Fault);
    assert!(renamed.degraded.iter().any(|part| part.part == "scope"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_world_of_the_runbooks_is_understood() {
    check_worlds(expect![[r#"
        nothing listens, 5 attempts a second
            fault: no-listener 0.966 client>server
        nothing listens, 0.1 attempts a second
            fault: no-listener 0.966 client>server
        something outside refuses
            fault: no-listener 0.941 client>~external
        a rule drops new connections, 5 attempts a second
            fault: policy-drop 0.931 client>server
        a rule drops new connections, 0.1 attempts a second
            fault: policy-drop 0.931 client>server
        ten seconds into a silent drop: the recent window sees it first
            fault: policy-drop 0.944 client>server
        a rule drops the answers to SYNs: the drops point the other way
            fault: policy-drop 0.931 client>server
        a rule rejects with ICMP, rate-limited: some fail at once, the others hang
            fault: policy-reject 0.982 client>server, policy-drop 0.052 client>server
        a rule rejects with a reset of its own
            fault: policy-reject 0.946 client>server
        a rule rejects with a reset what a gateway sends on for others
            fault: policy-reject 0.946 client>server
        nobody accepts: the queue is full and no drop is seen
            fault: accept-queue-overflow 0.99 server>*
        a SYN flood without cookies: the listener drops, its accept queue does not overflow
            no_network_fault: not-network 0.989
        the client has no route: connect() fails at once and no packet leaves
            fault: no-route 0.928 client>server
        a route of type unreachable on the client itself
            fault: blackhole-route 0.928 client>server
        a router that nobody watches tells that the host is unreachable
            unknown: not-network 0.4
        a router drops all that a client sends, queries too
            fault: policy-drop 0.931 client>server, dns-unanswered 0.4 client>names
        nobody at the name server's address answers ARP
            fault: neighbour-failed 0.928 client>names, dns-unanswered 0.45 client>names
        the name server is gone, and nobody has its address
            fault: dns-unanswered 0.964 client>~external, dns-stale-conntrack 0.199 client>*
        the reverse-path filter drops datagrams
            fault: rp-filter 0.928 client>names
        the client lost its route a quarter of a minute ago
            fault: no-route 0.924 client>server
        the reverse-path filter drops the answers
            fault: rp-filter 0.928 server>client
        a node loses its route under open connections
            fault: no-route 0.896 client>server, local-loss 0.45 client>server
        no neighbour answers under open connections
            fault: neighbour-failed 0.896 client>server, local-loss 0.45 client>server
        one client closes connections to a replica that is gone, while the others serve it
            no_network_fault: not-network 0.989
        a tc program drops the answers to SYNs
            fault: policy-drop-ebpf 0.912 server>client
        a tc program cuts open connections off
            fault: policy-drop-ebpf 0.91 client>server, local-loss 0.45 client>server
        a tc filter drops one packet in eight
            fault: local-loss 0.972 client>server
        the server has no route for its answers: its listener drops the SYNs
            fault: no-route 0.928 client>server
        a server tries IPv6 in vain all day, and its queue of half-open connections is full
            fault: syn-backlog-full 0.966 client>server
        a node prohibits an IPv6 destination
            fault: blackhole-route 0.928 client>server, no-route 0.45 client>server
        a rule cuts open connections off, and no new ones are tried
            fault: policy-drop 0.944 client>server, local-loss 0.4 client>server
        a rule drops datagrams that are no queries
            fault: policy-drop 0.944 client>server
        the client's own rules drop datagrams: they never count as sent
            fault: egress-drop-local 0.928 client>server
        the connection-tracking table of the client itself is full
            fault: conntrack-full 0.913 client>server
        the client's own rules cut its open connections off
            fault: egress-drop-local 0.928 client>server, policy-drop 0.45 client>server, local-loss 0.4 client>server
        the connection-tracking table is full, and the client sends datagrams only
            fault: conntrack-full 0.913 client>names, dns-unanswered 0.45 client>names
        a rule rejects with ICMP «protocol unreachable», which is none of the usual errors
            fault: policy-reject 0.983 client>server
        two clients hear nothing from a listener whose queue of half-open connections is full
            fault: syn-backlog-full 0.966 client>server, node-down 0.176 client>server
        the server listens on IPv4 only: one program asks IPv6 alone, another falls back to IPv4
            fault: no-listener 0.894 client>server
        a Service names a port that none of its backends has
            fault: no-listener 0.924 client>server
        a rule drops SYNs at one of several backends
            fault: policy-drop 0.944 client>server
        a rule rejects SYNs at one of several backends
            fault: policy-reject 0.946 client>server
        a tc program drops SYNs at one of several backends
            fault: policy-drop-ebpf 0.912 client>server
        what a pod sends to itself through a Service comes back with its own address
            fault: hairpin-off 0.883 client>client
        one of several backends is where a route throws packets away
            fault: stale-endpoint 0.881 client>~unknown
        the link of a router between the two comes and goes
            fault: link-flap 0.932 client>server, local-loss 0.45 client>server, no-route 0.386 client>server
        a rule rejects lookups, and ICMP says so to some
            fault: policy-reject 0.982 client>server, dns-unanswered 0.45 client>server
        every third answer is SERVFAIL
            fault: dns-servfail 0.972 client>dns
        SERVFAIL only, one lookup every ten seconds
            fault: dns-servfail 0.972 client>dns
        two SERVFAIL among a few answers prove nothing
            no_network_fault: not-network 0.989
        silence from the first query on
            fault: dns-unanswered 0.989 client>dns
        a third of the queries is lost
            fault: dns-unanswered 0.84 client>dns
        a fifth of the queries is lost, and as much of the segments that this client sends to others
            fault: wire-loss 0.927 client>server, dns-unanswered 0.173 client>dns
        answers after 200 ms
            fault: dns-slow 0.949 client>dns
        search lists since eight seconds, and twenty lookups a second before
            fault: nxdomain-storm 0.902 client>dns
        a client that asks one thing at a time gets no answer any more, with a time-out of two seconds
            fault: dns-unanswered 0.889 client>dns
        the server answers when the client has given up, which asks for less time than that takes
            fault: dns-slow 0.979 client>server, dns-unanswered 0.199 client>server, udp-no-port 0.14 server>client
        answers are cut, and programs go on over TCP before the other answer of the pair has come
            no_network_fault: not-network 0.989, udp-no-port 0.072 server>client
        a node drops one packet in eight
            fault: local-loss 0.977 server>client
        a node drops one packet in eight, one request every ten seconds
            fault: local-loss 0.928 server>client
        loss on the wire, which no watched kernel owns
            fault: wire-loss 0.909 client>server
        big packets vanish and the sender is not told
            fault: mtu-blackhole 0.959 server>client
        the receiver stops reading
            fault: slow-receiver 0.974 client>server
        the server aborts every second connection
            fault: peer-reset 0.985 client>server
        clients reset every second connection before they have an answer
            fault: peer-reset 0.928 client>server
        a rule resets one answer in ten, and the server what the client sends after that
            fault: policy-reject 0.894 client>server, conntrack-invalid 0.45 client>*, peer-reset 0.396 client>server
        the path takes 40 ms, lookups too
            fault: dns-slow 0.934 client>dns
        the path gets longer under open connections, which remember their old minimum
            no_network_fault: not-network 0.989
        every second SYN is lost on the wire: connecting is slow, the path is not
            unknown: not-network 0.4
        CoreDNS finds none of its upstreams healthy
            fault: forward-broken 0.99 coredns>*, dns-servfail 0.45 client>coredns
        an upstream of CoreDNS answers SERVFAIL, and its health checks pass
            fault: forward-broken 0.97 coredns>*, dns-servfail 0.45 client>coredns
        a change waits for a kube-proxy that hangs
            fault: kube-proxy-lag 0.896 *>*
        a change has just come to a kube-proxy that had nothing to do
            no_network_fault: not-network 0.989
        a kube-proxy has just started and not yet written its rules
            no_network_fault: not-network 0.989
        a kube-proxy that has nothing to do
            no_network_fault: not-network 0.989
        Cilium denies what its program drops
            fault: policy-drop-ebpf 0.894 client>server
        a busy pair: connections close cleanly, search suffixes give NXDOMAIN, one segment in a thousand is repeated
            no_network_fault: not-network 0.989
        one request every ten seconds
            no_network_fault: not-network 0.989
        a restart: nothing listens for two of the last thirty seconds
            no_network_fault: not-network 0.989
        a server that thinks for a second: acknowledgements are delayed, nothing else
            no_network_fault: not-network 0.989
        a bulk transfer that the receiver's window paces
            no_network_fault: not-network 0.989
        scans from outside meet the firewall and closed ports
            no_network_fault: not-network 0.989
        path MTU discovery at work: the sender is told and goes on
            fault: pmtud-active 0.937 server>client
        connections kept for hours to a slow program: acknowledgements are delayed, new ones open fast
            no_network_fault: not-network 0.989
        a server that answers after its clients stopped waiting: late data is met with a reset
            no_network_fault: not-network 0.989, peer-reset 0.204 client>server
        a bulk download: the receiver's host merges segments, so one acknowledgement comes back for forty
            no_network_fault: not-network 0.989
        clients try IPv6 first on a host without it, and connect by IPv4 then
            no_network_fault: not-network 0.989
        a health check connects, says nothing and resets
            no_network_fault: not-network 0.989
        pods come and go: their cables to the node come up and go down with them
            no_network_fault: not-network 0.989
        a proxy that ends its connections to servers by a reset, once it has the answer
            no_network_fault: not-network 0.989
        a name of both families: the server has no IPv6, and each refusal is followed by a connection over IPv4
            no_network_fault: not-network 0.989
        checks of ports and of TLS: some reset unused connections, some close and reset what still comes
            no_network_fault: not-network 0.989
        resets that come when the client's program has closed
            no_network_fault: not-network 0.989
        traceroute over two routers: the last hop answers «port unreachable»
            no_network_fault: not-network 0.989, udp-no-port 0.4 client>server
        a burst of lookups, all of the last second
            no_network_fault: not-network 0.989
        nothing listened until 200 s ago, and all is well since
            no_network_fault: not-network 0.983, no-listener 0.45 client>server
        nothing listened until 200 s ago, and since then a rule rejects
            fault: policy-reject 0.946 client>server
        a rule dropped until 60 s ago, and since then nothing listens
            fault: no-listener 0.843 client>server, policy-drop 0.45 client>server
        nothing listened until 60 s ago, and the client keeps the connections that it has since
            no_network_fault: not-network 0.983, no-listener 0.4 client>server
        connections were reset until 60 s ago, and those of since then stay open
            no_network_fault: not-network 0.983, peer-reset 0.4 client>server
        a name server was silent until 60 s ago, and its client asks another one since
            no_network_fault: not-network 0.983, dns-unanswered 0.4 client>dns
        a name server answered late until 60 s ago, and in time since
            no_network_fault: not-network 0.983, dns-slow 0.45 client>dns, dns-unanswered 0.319 client>dns
        two pairs, two faults
            fault: dns-servfail 0.972 other>dns, no-listener 0.894 client>server
        one client is served badly, the others are fine
            fault: policy-drop 0.931 client>server
    "#]]).await;
}

/// Asks a Prometheus at `url` about now, and wants an answer in any case.
async fn ask_broken(url: &str, deadline: Duration) -> Diagnosis {
    let prometheus = Prometheus::new(Settings {
        timeout: Duration::from_secs(10),
        ..Settings::new(url)
    });
    let engine = Engine::new(prometheus.unwrap(), deadline);
    let library = library();
    let diagnosis = engine.diagnose(&library, &question(1_700_000_000)).await;
    assert_eq!(diagnosis.status, Status::Unknown);
    assert_eq!(diagnosis.hypotheses, []);
    assert!(!diagnosis.checked.is_empty());
    assert!(
        diagnosis
            .checked
            .iter()
            .all(|checked| checked.outcome == "unavailable")
    );
    diagnosis
}

fn reasons(diagnosis: &Diagnosis, url: &str) -> String {
    diagnosis
        .degraded
        .iter()
        .map(|part| format!("{}: {}\n", part.part, part.reason.replace(url, "URL")))
        .collect()
}

#[tokio::test]
async fn prometheus_may_be_down() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let diagnosis = ask_broken(&url, Duration::from_secs(5)).await;
    expect![[r#"
        prometheus: cannot reach Prometheus: Connection refused (os error 111) (asked at URL)
    "#]]
    .assert_eq(&reasons(&diagnosis, &url));
}

/// Answers every request with `response` until the test ends; with none, it never answers.
fn fake(response: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(response) = response else {
                silent.push(stream);
                continue;
            };
            let mut request = [0; 65536];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(response.as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn prometheus_may_be_slow() {
    let url = fake(None);
    let started = Instant::now();
    let diagnosis = ask_broken(&url, Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(3));
    expect![[r#"
        prometheus: the deadline of 300ms passed (asked at URL)
    "#]]
    .assert_eq(&reasons(&diagnosis, &url));
}

#[tokio::test]
async fn prometheus_may_talk_nonsense() {
    let broken = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"status\":\"success\",";
    let gateway =
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
    for (response, expected) in [
        (
            broken,
            expect![[r#"
        prometheus: the answer of Prometheus cannot be read: EOF while parsing a value at line 1 column 20 (asked at URL)
    "#]],
        ),
        (
            gateway,
            expect![[r#"
        prometheus: Prometheus answers status 502 (asked at URL)
    "#]],
        ),
    ] {
        let url = fake(Some(response));
        let diagnosis = ask_broken(&url, Duration::from_secs(5)).await;
        expected.assert_eq(&reasons(&diagnosis, &url));
    }
}

#[tokio::test]
async fn answers_of_any_size_are_bounded() {
    let url = fake(Some(
        "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n",
    ));
    let prometheus = Prometheus::new(Settings {
        max_response_bytes: 1000,
        ..Settings::new(&url)
    });
    let error = prometheus.unwrap().instant("up", 0).await.unwrap_err();
    assert!(!error.to_string().is_empty());
}

/// Every rule links to its page and its panel, and says the same to Grafana as to Prometheus.
fn for_grafana_they_are_the_same(yaml: &str, rules: &rules::Rules) {
    let prometheus: Value = serde_yaml_ng::from_str(yaml).unwrap();
    let grafana = rules::grafana::provisioning(rules, "prom", "Runwire");
    let grafana = serde_json::to_value(&grafana).unwrap();
    assert_eq!(grafana["apiVersion"], 1);
    let mut uids = BTreeSet::new();
    let groups = prometheus["groups"].as_array().unwrap();
    for (group, provisioned) in groups.iter().zip(grafana["groups"].as_array().unwrap()) {
        let (group, provisioned) = (&group["rules"], &provisioned["rules"]);
        assert_eq!(
            group.as_array().unwrap().len(),
            provisioned.as_array().unwrap().len()
        );
        for (rule, provisioned) in group
            .as_array()
            .unwrap()
            .iter()
            .zip(provisioned.as_array().unwrap())
        {
            let name = rule["alert"].as_str().unwrap();
            let annotations = &provisioned["annotations"];
            assert_eq!(provisioned["title"], name);
            assert_eq!(provisioned["data"][0]["model"]["expr"], rule["expr"]);
            assert_eq!(provisioned["data"][0]["datasourceUid"], "prom");
            assert_eq!(provisioned["data"][1]["refId"], provisioned["condition"]);
            assert_eq!(
                annotations["runbook_url"],
                rule["annotations"]["runbook_url"]
            );
            let uid = provisioned["uid"].as_str().unwrap();
            assert!(uid.len() <= 40 && uids.insert(uid.to_owned()), "{uid}");
            let panel = annotations["__panelId__"].as_str();
            // Our dashboards show our metrics.
            if !rule["expr"].as_str().unwrap().contains("runwire_") {
                assert_eq!(panel, None, "{name}");
                continue;
            }
            let panel = panel.unwrap_or_else(|| panic!("no panel shows {name}"));
            let dashboard = annotations["__dashboardUid__"].as_str().unwrap();
            assert_eq!(
                rule["annotations"]["dashboard_url"],
                format!("http://grafana.example/d/{dashboard}?viewPanel={panel}")
            );
        }
    }
    assert!(!uids.is_empty());
}

#[test]
fn rules_are_what_prometheus_takes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
    let dashboards = rules::dashboards::Dashboards::read(folder.as_ref()).unwrap();
    let links = rules::Links {
        assistant: "http://assistant.example:8080",
        grafana: "http://grafana.example",
        dashboards: &dashboards,
    };
    let latest = rules::latest(Duration::from_secs(15));
    let rules = rules::rules(&library(), &links, "2m", latest);
    let yaml = serde_yaml_ng::to_string(&rules).unwrap();
    for_grafana_they_are_the_same(&yaml, &rules);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, &yaml).unwrap();
    match std::process::Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .output()
    {
        Ok(output) => assert!(
            output.status.success(),
            "{}{yaml}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => skipped(&format!("promtool cannot be run: {error}")),
    }
}

/// Fifty alerts at once cost Prometheus one snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_about_one_moment_share_its_queries() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let app = axum::Router::new().fallback(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async { r#"{"status":"success","data":{"resultType":"vector","result":[]}}"# }
    });
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    // What does not come in time is asked again: fifty at once may keep a busy machine for long.
    let patience = Duration::from_secs(120);
    let settings = Settings {
        timeout: patience,
        ..Settings::new(&url)
    };
    let engine = Arc::new(Engine::new(Prometheus::new(settings).unwrap(), patience));
    let library = Arc::new(library());
    engine.diagnose(&library, &question(1_700_000_000)).await;
    let alone = asked.swap(0, Ordering::Relaxed);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (engine, library) = (engine.clone(), library.clone());
            tokio::spawn(async move { engine.diagnose(&library, &question(1_700_000_100)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), alone);
    serving.abort();
}
