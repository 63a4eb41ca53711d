//! The program killed right after it acknowledged: the incident is there, and is diagnosed by the next one.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::START;
use super::desk::{alert, notification};

pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Program {
    /// The assistant as users run it, on a port of its own.
    pub(super) fn start(place: &Path) -> Self {
        Self::start_by(
            &[],
            Path::new(env!("CARGO_BIN_EXE_runwire-assistant")),
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks")),
            place,
        )
    }

    /// The same behind a command that runs it in its turn. Whatever it writes goes to `place`.
    pub(crate) fn start_by(
        wrapper: &[&str],
        program: &Path,
        runbooks: &Path,
        place: &Path,
    ) -> Self {
        let mut words = wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut child = Command::new(words.next().expect("there is at least the program"))
            .args(words)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "info",
                "--prometheus",
                "http://127.0.0.1:1",
                "--runbooks",
            ])
            .arg(runbooks)
            .arg("--incidents")
            .arg(place.join("incidents.db"))
            .arg("--cache")
            .arg(place.join("cache"))
            .current_dir(place)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it serves").unwrap();
            if let Some((_, address)) = line.split_once("address=") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        // Nobody reads on, and a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Status and body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        (status, body.unwrap())
    }

    pub(super) fn incidents(&self) -> Vec<Value> {
        let (status, body) = self.ask("GET", "/incidents?limit=500", "");
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        list["incidents"].as_array().unwrap().clone()
    }

    pub(super) fn wait(&self, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let incidents = self.incidents();
            if is_so(&incidents) {
                return incidents;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{incidents:#?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_and_diagnosed_after_a_kill() {
    let place = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut program = Program::start(place.path());
        for group in 0..20 {
            let group = notification(&format!("{round}-{group}"), &[alert("a", START, None)]);
            let (status, body) = program.ask("POST", "/webhook/alertmanager", &group.to_string());
            assert_eq!(status, 200, "{body}");
        }
        program.kill();
    }
    let program = Program::start(place.path());
    assert_eq!(program.incidents().len(), 60);
    let all = program.wait(|all| all.iter().all(|incident| !incident["status"].is_null()));
    assert_eq!(all.len(), 60);
}
