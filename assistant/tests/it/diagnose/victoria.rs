//! VictoriaMetrics in Prometheus' place, and vmauth in front of it: the same causes at the same places, by the same queries;
//! tenant headers, passwords, tokens and authorities of one's own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runwire_assistant::config::IdentitySettings;
use runwire_assistant::diagnosis::response::Diagnosis;
use runwire_assistant::prometheus::{Identity, Prometheus, Settings, http_client};

use super::{engine, families, library, prometheus, question, skipped, worlds};

/// A program that serves HTTP on a port of its own until the test ends.
struct Program {
    child: Child,
    port: u16,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(name: &str, arguments: &[String]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(name)
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self { child, port };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{name} does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        program
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The same samples as [`prometheus::start`] has.
async fn victoria(folder: &Path, openmetrics: &str) -> Program {
    let server = Program::start(
        "victoria-metrics",
        &[
            format!("-storageDataPath={}", folder.display()),
            "-retentionPeriod=100y".into(),
            "-search.disableCache".into(),
        ],
    );
    // Its import reads milliseconds where OpenMetrics has seconds.
    let text: String = openmetrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}000\n"))
        .collect();
    let client = http_client(Duration::from_secs(60)).unwrap();
    let import = client
        .post(format!("{}/api/v1/import/prometheus", server.url()))
        .body(text)
        .send()
        .await
        .unwrap();
    assert!(import.status().is_success(), "{}", import.status());
    let flushed = client
        .get(format!("{}/internal/force_flush", server.url()))
        .send()
        .await
        .unwrap();
    assert!(flushed.status().is_success());
    server
}

/// What a person acts on.
fn essence(diagnosis: &Diagnosis) -> String {
    let causes: Vec<String> = diagnosis
        .hypotheses
        .iter()
        .filter(|found| found.confidence >= 0.5)
        .map(|found| format!("{} {:?}", found.failure_mode, found.affected))
        .collect();
    format!("{:?} {}", diagnosis.status, causes.join("; "))
}

/// By what part the value of a piece of evidence of the first cause differs at most.
fn distance(one: &Diagnosis, other: &Diagnosis) -> f64 {
    let values = |diagnosis: &Diagnosis| -> BTreeMap<String, f64> {
        let first = diagnosis.hypotheses.iter().take(1);
        first
            .flat_map(|found| &found.evidence)
            .filter_map(|evidence| Some((evidence.query.clone(), evidence.value?)))
            .collect()
    };
    let theirs = values(other);
    let values = values(one).into_iter();
    let both = values.filter_map(|(query, value)| Some((value, *theirs.get(&query)?)));
    both.filter(|(value, _)| *value != 0.0)
        .map(|(value, theirs)| (theirs / value - 1.0).abs())
        .fold(0.0, f64::max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_gives_the_same_answers_as_prometheus() {
    let library = library();
    let worlds = worlds::all();
    let text = worlds::openmetrics(&worlds, &families(&library));
    if !prometheus::installed("victoria-metrics") {
        skipped("victoria-metrics is not installed");
        return;
    }
    let Some(server) = prometheus::start(&text) else {
        skipped("prometheus and promtool are not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let victoria = victoria(folder.path(), &text).await;
    let (one, other) = (engine(&server.url), engine(&victoria.url()));
    let mut differences = Vec::new();
    let mut farthest: f64 = 0.0;
    // Some of every kind: each costs two answers.
    for world in worlds.iter().step_by(5) {
        let expected = one.diagnose(&library, &question(world.time())).await;
        let given = other.diagnose(&library, &question(world.time())).await;
        assert_eq!(given.degraded, [], "{}", world.name);
        farthest = farthest.max(distance(&expected, &given));
        if essence(&expected) != essence(&given) {
            differences.push(format!(
                "{}:\n  {}\n  {}",
                world.name,
                essence(&expected),
                essence(&given)
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // These counters grow evenly; where they do not, its `rate()` is another one.
    assert!(farthest < 1e-6, "{farthest}");
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vmauth_lets_in_who_says_so_over_a_certificate_of_ones_own() {
    if !prometheus::installed("victoria-metrics") || !prometheus::installed("vmauth") {
        skipped("victoria-metrics is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let victoria = victoria(&path("data"), "up 1 1700000000\n# EOF\n").await;
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=authority",
    );
    openssl(
        folder.path(),
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    );
    std::fs::write(path("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder.path(),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
    let users = format!(
        "users:\n- {{username: runwire, password: open sesame, url_prefix: '{0}'}}\n- {{bearer_token: a-token, url_prefix: '{0}'}}\n",
        victoria.url()
    );
    std::fs::write(path("users.yml"), users).unwrap();
    let guard = Program::start(
        "vmauth",
        &[
            format!("-auth.config={}", path("users.yml").display()),
            "-tls".into(),
            format!("-tlsCertFile={}", path("server.pem").display()),
            format!("-tlsKeyFile={}", path("server.key").display()),
        ],
    );
    let secret = |name: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        Some(path(name))
    };
    let authority = Some(path("ca.pem"));
    let ask = async |keys: IdentitySettings| {
        let mut settings = Settings::new(format!("https://127.0.0.1:{}", guard.port));
        settings.identity = Identity::open(&keys).unwrap();
        let prometheus = Prometheus::new(settings).unwrap();
        let answer = prometheus.instant("up", 1_700_000_010_000).await;
        answer
            .map(|vector| vector.samples.len())
            .map_err(|error| error.to_string())
    };
    let none = IdentitySettings::default;
    let password = IdentitySettings {
        prometheus_user: Some("runwire".into()),
        prometheus_password: secret("password", "open sesame\n"),
        prometheus_ca: authority.clone(),
        prometheus_headers: Some(vec!["X-Scope-OrgID: team".into()]),
        ..none()
    };
    assert_eq!(ask(password.clone()).await, Ok(1));
    let token = IdentitySettings {
        prometheus_token: secret("token", "a-token"),
        prometheus_ca: authority.clone(),
        ..none()
    };
    assert_eq!(ask(token).await, Ok(1));
    let wrong = IdentitySettings {
        prometheus_password: secret("wrong", "open barley"),
        ..password.clone()
    };
    let refused = ask(wrong).await.unwrap_err();
    assert!(
        refused.contains("answers status 4") && !refused.contains("barley"),
        "{refused}"
    );
    let stranger = IdentitySettings {
        prometheus_ca: None,
        ..password
    };
    let refused = ask(stranger).await.unwrap_err();
    assert!(
        refused.to_lowercase().contains("certificate") || refused.contains("UnknownIssuer"),
        "{refused}"
    );
}
