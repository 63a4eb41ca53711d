//! A real Prometheus on a port of its own, with series that never were.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn installed(name: &str) -> bool {
    Command::new(name)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Starts Prometheus over the samples of an OpenMetrics text; `None` where it is not installed.
pub(crate) fn start(openmetrics: &str) -> Option<Server> {
    if !installed("prometheus") || !installed("promtool") {
        return None;
    }
    let data = tempfile::tempdir().unwrap();
    let text = data.path().join("series.txt");
    let blocks = data.path().join("blocks");
    std::fs::write(&text, openmetrics).unwrap();
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&text, &blocks])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    Some(serve(data, &blocks, "global: {}\n"))
}

/// Starts Prometheus with this configuration and no samples yet; `None` where it is not installed.
pub(crate) fn scraping(config: &str) -> Option<Server> {
    installed("prometheus").then(|| {
        let data = tempfile::tempdir().unwrap();
        let blocks = data.path().join("blocks");
        serve(data, &blocks, config)
    })
}

fn serve(data: tempfile::TempDir, blocks: &Path, text: &str) -> Server {
    let config = data.path().join("prometheus.yml");
    std::fs::write(&config, text).unwrap();
    // A port that was free a moment ago may be taken by now; then another one is tried.
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if let Some(child) = listen(&config, blocks, port) {
            return Server {
                child,
                url: format!("http://127.0.0.1:{port}"),
                _data: data,
            };
        }
    }
    panic!("prometheus does not start");
}

fn listen(config: &Path, blocks: &Path, port: u16) -> Option<Child> {
    let mut child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", blocks.display()))
        .arg("--storage.tsdb.retention.time=100y")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let started = Instant::now();
    let mut lines = log.lines();
    while let Some(Ok(line)) = lines.next() {
        if line.contains("Server is ready") {
            // Nobody reads on, and a full pipe would stop the server.
            std::thread::spawn(move || lines.for_each(drop));
            return Some(child);
        }
        if started.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
