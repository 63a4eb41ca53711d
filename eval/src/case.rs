//! One scenario with one seed, from the first namespace to the score.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::baseline::{Baselines, Moments};
use crate::catalogue::Catalogue;
use crate::fault;
use crate::kubernetes::Cluster;
use crate::lab::Lab;
use crate::proof;
use crate::recording::{Recording, Times};
use crate::report::opinion::Opinions;
use crate::say;
use crate::scenario::{Scenario, Status, Template};
use crate::score::{Answer, Expected, Fault, Score, score};
use crate::seed::Random;
use crate::series;
use crate::sli::{self, Window};
use crate::stack::{Ports, Programs, Scraping, Stack};
use crate::state::State;
use crate::stop;
use crate::traffic::Traffic;

/// Seconds after which a mended fault that is still told counts as one that is told for ever.
const LONGEST_TOLD: u64 = 120;

/// More seconds than a case lasts.
const LONGEST: u64 = 300;

/// Everything worth keeping of a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    pub(crate) family: String,
    pub(crate) expected: Expected,
    /// The question before the fault; nothing is wrong then.
    pub(crate) before: Score,
    /// The last question.
    pub(crate) after: Score,
    /// Questions of a healthy case that were answered with a fault.
    pub(crate) false_alarms: usize,
    pub(crate) questions: usize,
    /// From the fault to the first right answer.
    pub(crate) seconds_to_answer: Option<f64>,
    /// How long each question about the moment waited for its answer, while the fault was on.
    #[serde(default)]
    pub(crate) seconds_asked: Vec<f64>,
    /// What happened after the fault was undone, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mended: Option<Mended>,
    /// What the client of the fault noticed. `None`: nothing, so the case does not count.
    pub(crate) impact: Option<String>,
    /// The same question about the same time gave the same bytes.
    pub(crate) repeatable: bool,
    /// What the nodes of the lab are called.
    #[serde(default)]
    pub(crate) workloads: Vec<String>,
    #[serde(default)]
    pub(crate) clients: BTreeMap<String, Windows>,
    pub(crate) answer: Value,
    /// What simpler methods say, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) baselines: BTreeMap<String, Opinions>,
}

/// What was done to the system of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something of the network broke, that the catalogue knows.
    Fault,
    /// Somebody suffered, and the answer should not be a fault of the catalogue.
    Foreign,
    Healthy,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mended {
    /// From the end of the fault until it was not likely for the first time. `None`: it was told to the last.
    pub(crate) seconds_told: Option<f64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Windows {
    before: Option<Window>,
    after: Option<Window>,
}

impl Case {
    pub(crate) fn kind(&self) -> Kind {
        match (self.expected.status, &self.impact) {
            (Status::Fault, _) => Kind::Fault,
            (Status::Unknown, _) | (Status::NoNetworkFault, Some(_)) => Kind::Foreign,
            (Status::NoNetworkFault, None) => Kind::Healthy,
        }
    }

    pub(crate) fn counts(&self) -> bool {
        self.expected.status != Status::Fault || self.impact.is_some()
    }

    pub(crate) fn is_right(&self) -> bool {
        self.before.right && self.after.right && self.false_alarms == 0 && self.repeatable
    }
}

/// A lab with traffic and the three programs watching it.
pub(crate) struct Running {
    // Dropped in this order: the programs go before what they watch.
    pub(crate) stack: Stack,
    pub(crate) traffic: Traffic,
    pub(crate) lab: Lab,
    pub(crate) scenario: Scenario,
    cluster: Option<Cluster>,
}

impl Running {
    pub(crate) fn start(
        template: &Template,
        seed: u64,
        programs: &Programs,
        ports: Ports,
        folder: &Path,
        state: &State,
    ) -> Result<Self> {
        let seed = template.seed(seed);
        let plan = Lab::plan(seed, &template.roles(), &template.wires())?;
        let scenario = template
            .fill(seed, &plan)
            .with_context(|| format!("bad scenario {}", template.name))?;
        let mut lab = Lab::build(plan, state).context("cannot build the lab")?;
        fault::prepare(&scenario, &mut lab)?;
        let cluster = match programs.kubernetes {
            true => Some(Cluster::start(&lab.plan, folder)?),
            false => None,
        };
        // A collector meets connections that are older than itself as well as new ones.
        // Who is scraped must listen before Prometheus starts.
        let scraping = Scraping {
            kube_proxies: scenario.kube_proxies(),
            prefix: cluster.is_none().then(|| lab.plan.prefix().to_owned()),
        };
        let traffic_first =
            !scraping.kube_proxies.is_empty() || Random::new(seed, "order").between(0, 1) == 0;
        if traffic_first {
            let traffic = Traffic::start(&scenario, &lab.plan)?;
            let stack = Stack::start(programs, ports, folder, state, cluster.as_ref(), &scraping)?;
            Ok(Self {
                stack,
                traffic,
                lab,
                scenario,
                cluster,
            })
        } else {
            let stack = Stack::start(programs, ports, folder, state, cluster.as_ref(), &scraping)?;
            let traffic = Traffic::start(&scenario, &lab.plan)?;
            Ok(Self {
                stack,
                traffic,
                lab,
                scenario,
                cluster,
            })
        }
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.stack.check()?;
        self.traffic.check()
    }

    pub(crate) fn question(&self) -> Value {
        let asked = &self.scenario.ask;
        match &self.cluster {
            Some(cluster) => cluster.ask(asked),
            None => asked.clone(),
        }
    }

    /// What the nodes of the lab are called.
    pub(crate) fn workloads(&self) -> Vec<String> {
        (self.lab.plan.namespaces())
            .map(|name| self.workload(name))
            .collect()
    }

    /// Asks the scenario's question; `time` pins it.
    pub(crate) fn ask(&self, time: Option<Timestamp>) -> Result<Vec<u8>> {
        let mut body = self.question();
        if let Some(time) = time {
            body["time"] = json!(time.to_string());
        }
        self.stack.diagnose(&body)
    }

    pub(crate) fn judge(&self, expected: &Expected, answer: &[u8]) -> Result<Score> {
        let answer: Answer = serde_json::from_slice(answer).with_context(|| {
            format!(
                "not in the contract's shape: {}",
                String::from_utf8_lossy(answer)
            )
        })?;
        let lab = self.workloads();
        let lab: Vec<&str> = lab.iter().map(String::as_str).collect();
        Ok(score(expected, &answer, &lab))
    }

    pub(crate) fn expected(&self) -> Expected {
        let expect = &self.scenario.expect;
        let names = |roles: &[String]| {
            let names = roles
                .iter()
                .filter_map(|role| self.lab.plan.namespace(role));
            names.map(|name| self.workload(name)).collect()
        };
        Expected {
            status: expect.status,
            failure_mode: expect.failure_mode.clone(),
            affected: names(&expect.affected),
            device: expect.device.clone(),
            way: names(&expect.way),
            top: expect.top,
            also: expect
                .also
                .iter()
                .map(|fault| Fault {
                    failure_mode: fault.failure_mode.clone(),
                    affected: names(&fault.affected),
                })
                .collect(),
        }
    }

    /// What the programs under test are to call a namespace of the lab.
    fn workload(&self, namespace: &str) -> String {
        match &self.cluster {
            Some(cluster) => cluster.workload(namespace),
            None => namespace.to_owned(),
        }
    }

    pub(crate) fn inject(&mut self) -> Result<()> {
        fault::inject(&self.scenario, &mut self.lab, &mut self.traffic)
    }
}

/// What every case of a run needs.
pub(crate) struct Means {
    pub(crate) programs: Programs,
    pub(crate) catalogue: Catalogue,
    pub(crate) baselines: Baselines,
    /// Where recordings go.
    pub(crate) record: Option<PathBuf>,
    /// Whether faults are undone, and how long they are told then is measured.
    pub(crate) mend: bool,
}

pub(crate) fn run(
    template: &Template,
    seed: u64,
    means: &Means,
    folder: &Path,
    state: &State,
) -> Result<Case> {
    let ports = Ports::free()?;
    let mut running = Running::start(template, seed, &means.programs, ports, folder, state)?;
    let warmup = means.programs.lasting(running.scenario.warmup, 5);
    let hold = means.programs.lasting(running.scenario.hold, 6);
    let case = observe(&mut running, seed, folder, warmup, hold).and_then(|(mut case, times)| {
        compare(&running, &mut case, times, means)?;
        if means.mend && !running.scenario.mend.is_empty() {
            case.mended = Some(mend(&mut running, &case.expected, folder)?);
        }
        Ok(case)
    });
    running.stack.save_metrics();
    case
}

/// Undoes the fault and asks until it is told no more.
fn mend(running: &mut Running, expected: &Expected, folder: &Path) -> Result<Mended> {
    say::progress(format_args!("  mended, for {LONGEST_TOLD} s at most"));
    fault::mend(&running.scenario, &mut running.lab, &mut running.traffic)?;
    let started = Instant::now();
    let longest = Duration::from_secs(LONGEST_TOLD);
    while started.elapsed() < longest {
        stop::sleep(Duration::from_secs(1))?;
        running.check()?;
        let bytes = running.ask(None)?;
        let answer: Answer = serde_json::from_slice(&bytes)?;
        if !expected.is_told(&answer) {
            let seconds_told = Some(started.elapsed().as_secs_f64());
            return Ok(Mended { seconds_told });
        }
        fs::write(folder.join("mended.json"), &bytes)?;
    }
    Ok(Mended { seconds_told: None })
}

/// Asks simpler methods about the same data, and records it where that is wanted.
fn compare(running: &Running, case: &mut Case, times: Times, means: &Means) -> Result<()> {
    let prometheus = running.stack.prometheus_url();
    let workloads = running.workloads();
    let mut series = series::read(&prometheus, times.asked, LONGEST)?;
    series.retain(|one| one.is_about(&workloads));
    let moments = Moments {
        prometheus: &prometheus,
        times,
        workloads: &workloads,
    };
    case.baselines = means.baselines.judge(&moments, &series, &means.catalogue)?;
    let Some(folder) = &means.record else {
        return Ok(());
    };
    Recording {
        scenario: case.scenario.clone(),
        seed: case.seed,
        family: case.family.clone(),
        question: running.question(),
        expected: case.expected.clone(),
        impact: case.impact.clone(),
        workloads,
        times,
    }
    .write(folder, series, &means.catalogue)
}

fn observe(
    running: &mut Running,
    seed: u64,
    folder: &Path,
    warmup: Duration,
    hold: Duration,
) -> Result<(Case, Times)> {
    let expected = running.expected();
    let offset = Random::new(seed, &running.scenario.name).unit();
    say::progress(format_args!("  healthy traffic for {} s", warmup.as_secs()));
    // Two seconds of settling are not what the client usually sees.
    let mark = running.traffic.mark();
    stop::sleep(warmup + Duration::from_secs_f64(offset))?;
    running.check()?;
    let healthy_windows = running.traffic.windows(&mark, 2);
    let answer = running.ask(None)?;
    let healthy = Timestamp::now().as_millisecond();
    fs::write(folder.join("before.json"), &answer)?;
    let before = running.judge(&Expected::healthy(), &answer)?;

    let mark = running.traffic.mark();
    say::progress(format_args!(
        "  for {} s: {}",
        hold.as_secs(),
        running.scenario.summary
    ));
    let proof = running.scenario.proof.clone();
    let counted = proof
        .as_ref()
        .map(|proof| proof::read(proof, &running.lab.plan))
        .transpose()?;
    let started = Instant::now();
    let fault = Timestamp::now().as_millisecond();
    running.inject()?;
    let mut seconds_to_answer = None;
    let mut seconds_asked = Vec::new();
    let mut false_alarms = 0;
    let mut questions = 0;
    while started.elapsed() < hold {
        stop::sleep(Duration::from_secs(1).min(hold.saturating_sub(started.elapsed())))?;
        running.check()?;
        let asked = Instant::now();
        let bytes = running.ask(None)?;
        seconds_asked.push(asked.elapsed().as_secs_f64());
        let score = running.judge(&expected, &bytes)?;
        questions += 1;
        if score.false_alarm {
            false_alarms += 1;
            fs::write(folder.join(format!("alarm-{false_alarms}.json")), &bytes)?;
        }
        if score.right && seconds_to_answer.is_none() {
            seconds_to_answer = Some(started.elapsed().as_secs_f64());
        }
    }

    // Two seconds ago, so that every scrape of that time has arrived.
    let time = Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(2))?;
    let bytes = running.ask(Some(time))?;
    let repeatable = running.ask(Some(time))? == bytes;
    fs::write(folder.join("after.json"), &bytes)?;
    let after = running.judge(&expected, &bytes)?;
    let fault_windows = running.traffic.windows(&mark, 2);
    let impact = if let (Some(proof), Some(counted)) = (&proof, counted) {
        proof::verdict(proof, counted, proof::read(proof, &running.lab.plan)?)
    } else {
        sli::impact_on(&running.scenario.impact, &healthy_windows, &fault_windows)
    };
    if let Some(impact) = &impact {
        say::progress(format_args!("  impact on {impact}"));
    }
    let mut clients = BTreeMap::new();
    for id in healthy_windows.keys().chain(fault_windows.keys()) {
        clients.entry(id.clone()).or_insert_with(|| Windows {
            before: healthy_windows.get(id).cloned(),
            after: fault_windows.get(id).cloned(),
        });
    }
    for (id, windows) in &clients {
        if let Some(window) = &windows.before
            && !window.is_healthy()
        {
            say::progress(format_args!(
                "  {id} was not healthy before the fault: {window}"
            ));
        }
        if let (true, Some(window)) = (id.starts_with("background_"), &windows.after)
            && !window.is_healthy()
        {
            say::progress(format_args!(
                "  {id} suffers from a fault that is not its own: {window}"
            ));
        }
    }
    let case = Case {
        scenario: running.scenario.name.clone(),
        seed,
        family: running.scenario.family.to_string(),
        expected,
        before,
        after,
        false_alarms,
        questions,
        seconds_to_answer,
        seconds_asked,
        mended: None,
        impact,
        repeatable,
        workloads: running.workloads(),
        clients,
        answer: serde_json::from_slice(&bytes)?,
        baselines: BTreeMap::new(),
    };
    let times = Times {
        healthy,
        fault,
        asked: time.as_millisecond(),
    };
    Ok((case, times))
}
