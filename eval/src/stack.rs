//! The three real programs: collector, Prometheus, assistant.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::kubernetes::Cluster;
use crate::process::Program;
use crate::state::State;
use crate::{command, http, say, stop};

/// Where the programs under test are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Programs {
    /// Folder with runwire-collector and runwire-assistant [default: beside this program].
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Prometheus' program [default: the one in the path].
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
    /// Folder of runbooks for the assistant.
    #[arg(long, value_name = "DIR", default_value = "runbooks")]
    runbooks: PathBuf,
    /// The namespaces of the lab are pods, named by an API server of Kubernetes.
    #[arg(long)]
    pub(crate) kubernetes: bool,
    /// How often Prometheus scrapes the lab, in seconds; a scenario lasts a few scrapes at least.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    scrape_interval: u16,
}

impl Programs {
    fn find(&self, name: &str) -> Result<PathBuf> {
        let folder = match &self.bin_dir {
            Some(folder) => folder.clone(),
            None => {
                let ourselves =
                    std::env::current_exe().context("cannot tell where this program is")?;
                ourselves.parent().unwrap_or(Path::new(".")).to_owned()
            }
        };
        let file = folder.join(name);
        if !file.is_file() {
            bail!(
                "there is no {}: build it (`cargo build --workspace`) or pass --bin-dir DIR",
                file.display()
            );
        }
        Ok(file)
    }

    pub(crate) fn runbooks(&self) -> &Path {
        &self.runbooks
    }

    /// Whichever is longer: what a scenario says, or so many scrapes.
    pub(crate) fn lasting(&self, seconds: u64, scrapes: u64) -> Duration {
        Duration::from_secs(seconds.max(u64::from(self.scrape_interval) * scrapes))
    }

    pub(crate) fn assistant(&self) -> Result<PathBuf> {
        self.find("runwire-assistant")
    }

    pub(crate) fn prometheus(&self) -> Result<PathBuf> {
        self.prometheus
            .clone()
            .or_else(|| command::find("prometheus"))
            .context("there is no prometheus in the path: apt-get install prometheus, or pass --prometheus FILE")
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    collector: u16,
    prometheus: u16,
    assistant: u16,
}

impl Ports {
    pub(crate) fn assistant(self) -> u16 {
        self.assistant
    }

    pub(crate) fn prometheus(self) -> u16 {
        self.prometheus
    }

    pub(crate) fn free() -> Result<Self> {
        // All three are held until the last is known, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [collector, prometheus, assistant] =
            held.map(|listener| listener?.local_addr().map(|addr| addr.port()));
        Ok(Self {
            collector: collector.context("no free port")?,
            prometheus: prometheus.context("no free port")?,
            assistant: assistant.context("no free port")?,
        })
    }

    /// The documented ports where they are free.
    pub(crate) fn usual() -> Result<Self> {
        let mut ports = Self::free()?;
        for (name, port, usual) in [
            ("collector", &mut ports.collector, 9435),
            ("Prometheus", &mut ports.prometheus, 9090),
            ("assistant", &mut ports.assistant, 8080),
        ] {
            if TcpListener::bind(("127.0.0.1", usual)).is_ok() {
                *port = usual;
            } else {
                say::progress(format_args!(
                    "port {usual} is taken: the {name} listens on {port}"
                ));
            }
        }
        Ok(ports)
    }
}

/// What Prometheus is told besides the addresses of the programs under test.
#[derive(Debug, Default)]
pub(crate) struct Scraping {
    /// Ports of the kube-proxies of the lab.
    pub(crate) kube_proxies: Vec<u16>,
    /// What the names of the lab begin with. What the collector says of pairs that have no such end is left out: a collector
    /// watches the whole machine, and on it there may be other labs, and whatever else runs there.
    pub(crate) prefix: Option<String>,
}

pub(crate) struct Stack {
    pub(crate) ports: Ports,
    programs: Vec<Program>,
    folder: PathBuf,
    state: State,
}

impl Stack {
    /// `folder` gets logs and data; data is removed with the stack, logs stay.
    pub(crate) fn start(
        programs: &Programs,
        ports: Ports,
        folder: &Path,
        state: &State,
        cluster: Option<&Cluster>,
        scraping: &Scraping,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let data = folder.join("prometheus-data");
        state.add_folder(&data)?;
        let mut stack = Self {
            ports,
            programs: Vec::new(),
            folder: folder.to_owned(),
            state: state.clone(),
        };
        let collector = programs.find("runwire-collector")?;
        let assistant = programs.assistant()?;
        let prometheus = programs.prometheus()?;
        let Ports {
            collector: collector_port,
            prometheus: prometheus_port,
            assistant: assistant_port,
        } = ports;

        let names = cluster.map(Cluster::flags).unwrap_or_default();
        stack.program(
            "collector",
            &collector,
            &format!("run --listen 127.0.0.1:{collector_port} {names}"),
        )?;
        // Nobody connects to a port before it listens: refused connections on this host are what the
        // collector would see, and rightly report, in the healthy phase.
        stack.wait_to_listen("collector", collector_port)?;
        let flags = format!(
            "serve --listen 127.0.0.1:{assistant_port} --runbooks {} --prometheus http://127.0.0.1:{prometheus_port}",
            programs.runbooks.display()
        );
        stack.program("assistant", &assistant, &flags)?;
        stack.wait_to_listen("assistant", assistant_port)?;
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            prometheus_config(programs.scrape_interval, ports, scraping),
        )
        .with_context(|| format!("cannot write {}", config.display()))?;
        let flags = format!(
            "--config.file={} --storage.tsdb.path={} --web.listen-address=127.0.0.1:{prometheus_port} --log.level=warn",
            config.display(),
            data.display()
        );
        stack.program("prometheus", &prometheus, &flags)?;
        stack.wait_to_listen("prometheus", prometheus_port)?;

        stack.wait(
            "collector",
            &format!("http://127.0.0.1:{collector_port}/readyz"),
            |_| true,
        )?;
        stack.wait(
            "prometheus",
            &format!("http://127.0.0.1:{prometheus_port}/-/ready"),
            |_| true,
        )?;
        stack.wait(
            "assistant",
            &format!("http://127.0.0.1:{assistant_port}/readyz"),
            |_| true,
        )?;
        let scraped = stack.query_url("up{job=\"runwire-collector\"} == 1");
        stack.wait("first scrape", &scraped, |body| body.contains("\"value\""))?;
        Ok(stack)
    }

    fn program(&mut self, name: &str, file: &Path, flags: &str) -> Result<()> {
        let arguments: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        let log = self.folder.join(format!("{name}.log"));
        self.programs
            .push(Program::start(name, file, &arguments, &log)?);
        Ok(())
    }

    fn wait(&mut self, what: &str, url: &str, is_ready: impl Fn(&str) -> bool) -> Result<()> {
        let started = Instant::now();
        let mut said = 0;
        loop {
            self.check()?;
            let last = match http::get(url) {
                Ok((200, body)) if is_ready(&body) => return Ok(()),
                Ok((status, body)) => format!("status {status}: {}", body.trim()),
                Err(error) => format!("{error:#}"),
            };
            let waited = started.elapsed().as_secs();
            if waited >= 90 {
                bail!("{what} is not ready after {waited} s ({url}): {last}");
            }
            if waited >= said + 5 {
                said = waited;
                say::progress(format_args!("  waiting for the {what}, {waited} s"));
            }
            stop::sleep(Duration::from_millis(100))?;
        }
    }

    fn wait_to_listen(&mut self, what: &str, port: u16) -> Result<()> {
        for tenth in 0..900 {
            self.check()?;
            if listens(port) {
                return Ok(());
            }
            if tenth > 0 && tenth % 50 == 0 {
                say::progress(format_args!("  waiting for the {what}, {} s", tenth / 10));
            }
            stop::sleep(Duration::from_millis(100))?;
        }
        bail!("{what} does not listen on port {port} after 90 s")
    }

    /// Fails, with the end of its log, when a program ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.ended().pop() {
            Some(program) => bail!(program),
            None => Ok(()),
        }
    }

    /// The programs that ended by themselves since the last call, each with the end of its log.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let folder = &self.folder;
        let mut ended = Vec::new();
        self.programs.retain_mut(|program| {
            let Err(error) = program.check() else {
                return true;
            };
            let log = folder.join(format!("{}.log", program.name));
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(8)..].join("\n  ");
            ended.push(format!("{error:#}; the end of {}:\n  {end}", log.display()));
            false
        });
        ended
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    pub(crate) fn assistant_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.assistant)
    }

    pub(crate) fn prometheus_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.prometheus)
    }

    pub(crate) fn collector_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.collector)
    }

    fn query_url(&self, query: &str) -> String {
        let encoded = http::encoded(query);
        format!("{}/api/v1/query?query={encoded}", self.prometheus_url())
    }

    pub(crate) fn diagnose(&self, body: &Value) -> Result<Vec<u8>> {
        http::post(&format!("{}/diagnose", self.assistant_url()), body)
    }

    /// What the collector shows now, for the record of a failed case.
    pub(crate) fn save_metrics(&self) {
        if let Ok((_, text)) = http::get(&format!("{}/metrics", self.collector_url())) {
            let _ = fs::write(self.folder.join("metrics.txt"), text);
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // In the reverse order of their start.
        while let Some(program) = self.programs.pop() {
            drop(program);
        }
        let data = self.folder.join("prometheus-data");
        // Prometheus may still be writing its last block when it was killed.
        for _ in 0..3 {
            if fs::remove_dir_all(&data).is_ok() || !data.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        if let Err(error) = self.state.remove_folder(&data) {
            say::progress(format_args!("{error:#}"));
        }
    }
}

/// Whether somebody listens on that port of 127.0.0.1, or of any address, without connecting.
fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A";
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A kernel without IPv6 lacks the second.
        let Ok(table) = fs::read_to_string(file) else {
            continue;
        };
        let local = format!(":{port:04X}");
        let found = table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields
                .next()
                .is_some_and(|address| address.ends_with(&local))
                && fields.nth(1) == Some(LISTEN)
        });
        if found {
            return true;
        }
    }
    false
}

fn prometheus_config(interval: u16, ports: Ports, scraping: &Scraping) -> String {
    let Ports {
        collector,
        assistant,
        ..
    } = ports;
    let mut config = format!(
        "global:
  scrape_interval: {interval}s
  scrape_timeout: {interval}s
scrape_configs:
  - job_name: runwire-assistant
    static_configs: [{{targets: ['127.0.0.1:{assistant}']}}]
"
    );
    for port in &scraping.kube_proxies {
        // As the collector, it is told from others by its instance: all of a lab is one node.
        config.push_str(&format!(
            "  - job_name: kube-proxy
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"
        ));
    }
    config.push_str(&format!(
        "  - job_name: runwire-collector
    static_configs: [{{targets: ['127.0.0.1:{collector}']}}]
"
    ));
    if let Some(prefix) = &scraping.prefix {
        // Of the ends and the place one is of the lab, and the others too or nobody with a name.
        let ours = format!("{prefix}.*");
        let allowed = format!("({ours}|~.*|)");
        config.push_str(&format!(
            "    metric_relabel_configs:
      - action: keep
        source_labels: [src_workload, dst_workload, workload]
        regex: '{ours};{allowed};{allowed}|{allowed};{ours};{allowed}|{allowed};{allowed};{ours}|;;{allowed}'
"
        ));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_in_the_lab_is_left_out() {
        let ports = Ports {
            collector: 1,
            prometheus: 2,
            assistant: 3,
        };
        let scraping = Scraping {
            kube_proxies: vec![4],
            prefix: Some("fern0aa-".to_owned()),
        };
        let config = prometheus_config(1, ports, &scraping);
        let regex = config.split('\'').rev().nth(1).expect("a quoted regex");
        // Prometheus anchors it at both ends.
        let regex = regex::Regex::new(&format!("^(?:{regex})$")).expect("a regex");
        for (labels, kept) in [
            ("fern0aa-oak;fern0aa-elm;", true),
            ("fern0aa-oak;~external;", true),
            ("fern0aa-oak;fern0aa-elm;fern0aa-fig", true),
            ("~external;fern0aa-elm;~host", true),
            ("~host;fern0aa-elm;", true),
            (";;fern0aa-elm", true),
            (";;~host", true),
            (";;", true),
            ("~host;~host;", false),
            ("moss001-oak;moss001-elm;", false),
            ("fern0aa-oak;moss001-elm;", false),
            (";;moss001-oak", false),
            ("~unknown;~unknown;moss001-oak", false),
            ("~unknown;~unknown;fern0aa-oak", true),
        ] {
            assert_eq!(regex.is_match(labels), kept, "{labels}");
        }
    }
}
