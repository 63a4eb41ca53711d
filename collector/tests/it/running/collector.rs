//! A running `runwire-collector`, ended when dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_runwire-collector");
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Collector {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Collector {
    /// With these lines in its configuration file, and ready.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_by(&[], config)
    }

    /// `wrapper` is a command that runs another one.
    pub(crate) fn start_by(wrapper: &[&str], config: &str) -> Self {
        Self::start_on("127.0.0.1:0", wrapper, config)
    }

    /// That serves on an address of where `wrapper` runs it.
    pub(crate) fn start_on(listen: &str, wrapper: &[&str], config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("c.yaml"), config).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let words = wrapper.iter().chain(&[PROGRAM]);
        let words: Vec<&str> = words.copied().collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["run", "--listen", listen, "--log-format", "json"])
            .arg("--config")
            .arg(directory.path().join("c.yaml"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut collector = Self {
            child,
            directory,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        collector.eventually("it serves", |collector| {
            let lines = collector.log();
            let line = lines
                .iter()
                .find_map(|line| line["fields"]["address"].as_str());
            collector.address = line?.parse().ok()?;
            Some(())
        });
        collector.eventually("it is ready", |collector| {
            let (status, _) = collector.get("/readyz");
            (status == 200).then_some(())
        });
        collector
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.directory.path().join("c.yaml"), text).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Every line of it is JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap();
        // The last line may be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON"));
        whole.lines().map(parse).collect()
    }

    pub(crate) fn has_logged(&self, message: &str) -> bool {
        let lines = self.log();
        lines
            .iter()
            .any(|line| line["fields"]["message"] == message)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = exchange(self.address, &request);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or(0), body.to_owned())
    }

    /// The sum of the series that start so.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            series
                .starts_with(&format!("runwire_{start}"))
                .then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// Runs another command of the program, for this collector.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        command(arguments, &self.address.to_string())
    }

    pub(crate) fn eventually<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the collector ended: {:?}", self.log());
            assert!(
                start.elapsed() < PATIENCE,
                "never: {what}; {:?}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(arguments: &[&str], address: &str) -> Output {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .args(["--listen", address])
        .output();
    output.unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends this and reads until the other side closes.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return String::new();
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
