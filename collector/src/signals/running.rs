//! The signals of this process while they run: a signal that fails is turned off, shows as such,
//! leaves the others alone, and is tried again after a while.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Signal, SignalSettings, all};
use crate::enrich::Enricher;
use crate::export::{Counter, Gauge, Labels, Registry};
use crate::kernel::statistics::{Measuring, ProgramRuns};
use crate::kernel::{
    HookStatus, KernelTypes, MapFill, Object, Refusal, release_memory, wait_for_programs,
};

/// A signal that fails again and again is tried no more often than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Loaded and attached signals.
pub struct Signals {
    running: Vec<Running>,
    /// Hooks of signals that are off; those of running ones are in their objects.
    refused: Vec<HookStatus>,
    /// Signals that failed, also after they are running again until that has lasted.
    retries: HashMap<&'static str, Retry>,
    settings: SignalSettings,
    make: Make,
    /// While programs' runs are counted.
    measuring: Option<Measuring>,
    registry: Registry,
    hook_attached: Gauge,
    insert_failures: Counter,
    events_lost: Counter,
    run_seconds: Counter,
    runs: Counter,
    map_entries: Gauge,
    map_capacity: Gauge,
}

/// Registers and returns every signal there is.
type Make = fn(&Registry, &SignalSettings) -> Vec<Box<dyn Signal>>;

struct Running {
    signal: Box<dyn Signal>,
    object: Object,
    insert_failures: u64,
    /// Program runs as of the last collection.
    counted_runs: HashMap<String, ProgramRuns>,
    failure: Option<Refusal>,
}

struct Retry {
    at: Instant,
    pause: Duration,
}

impl Signals {
    /// Loads and attaches what this kernel allows. Never fails: what could not be had is in
    /// [`Signals::hooks`].
    pub fn start(registry: &Registry, settings: &SignalSettings) -> Self {
        Self::start_all(registry, settings, all)
    }

    fn start_all(registry: &Registry, settings: &SignalSettings, make: Make) -> Self {
        let mut signals = Self::none(registry, settings, make);
        signals.measure();
        signals.bring_up(|_| true);
        signals
    }

    fn none(registry: &Registry, settings: &SignalSettings, make: Make) -> Self {
        Self {
            running: Vec::new(),
            refused: Vec::new(),
            retries: HashMap::new(),
            settings: settings.clone(),
            make,
            measuring: None,
            registry: registry.clone(),
            hook_attached: registry.gauge(
                "hook_attached",
                "Whether a kernel hook of a signal is attached, and why not",
                &[&["signal", "hook", "reason"]],
            ),
            insert_failures: registry.counter(
                "bpf_map_insert_failures",
                "Additions that found their kernel map full and went to its overflow entry",
                &[&["map"]],
            ),
            events_lost: super::events_lost(registry),
            run_seconds: registry.counter(
                "bpf_program_run_seconds",
                "Time spent in a BPF program, while the kernel measures it",
                &[&["program"]],
            ),
            runs: registry.counter(
                "bpf_program_runs",
                "Runs of a BPF program, while the kernel measures them",
                &[&["program"]],
            ),
            map_entries: registry.gauge(
                "bpf_map_entries",
                "Entries that a kernel map held when it was last looked at or emptied",
                &[&["map"]],
            ),
            map_capacity: registry.gauge(
                "bpf_map_capacity",
                "Entries that a kernel map has room for",
                &[&["map"]],
            ),
        }
    }

    /// Takes what may change while signals run: some are turned on, some off.
    pub fn configure(&mut self, settings: SignalSettings) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.measure();
        let settings = self.settings.clone();
        let (ended, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| settings.is_off(running.signal.name()));
        self.running = running;
        for running in &mut self.running {
            running.signal.configure(&self.settings);
        }
        for name in ended.into_iter().map(|ended: Running| ended.signal.name()) {
            self.refuse(name, turned_off());
        }
        self.retries.retain(|name, _| !settings.is_off(name));
        self.bring_up(|name| before.is_off(name));
    }

    /// Has the kernel measure programs, or no longer.
    fn measure(&mut self) {
        if !self.settings.statistics {
            self.measuring = None;
        } else if self.measuring.is_none() {
            match Measuring::start() {
                Ok(measuring) => self.measuring = Some(measuring),
                Err(error) => warn!(
                    %error,
                    "the kernel does not measure programs: `statistics: on` needs CAP_SYS_ADMIN"
                ),
            }
        }
    }

    /// Loads and attaches those that do not run and are `wanted`.
    fn bring_up(&mut self, wanted: impl Fn(&str) -> bool) {
        let runs: Vec<_> = self.names();
        let wanted = |name: &str| wanted(name) && !runs.contains(&name);
        // Families are registered even if nothing is to be started: they show as not measured.
        let signals = (self.make)(&self.registry, &self.settings);
        let signals: Vec<_> = (signals.into_iter())
            .filter(|signal| wanted(signal.name()))
            .collect();
        if !signals.is_empty() {
            let types = KernelTypes::read();
            for signal in signals {
                let name = signal.name();
                self.refused.retain(|hook| hook.signal != name);
                if self.settings.is_off(name) {
                    self.refuse(name, turned_off());
                    continue;
                }
                match &types {
                    Ok(types) => self.add(signal, types),
                    Err(error) => self.refuse(name, Refusal::of_load(error)),
                }
            }
            drop(types);
            release_memory();
        }
        self.expose();
    }

    fn add(&mut self, mut signal: Box<dyn Signal>, types: &KernelTypes) {
        let name = signal.name();
        let capacity = &self.settings.map_capacity;
        let loaded = Object::load(name, signal.elf(), types, capacity, &signal.bounds());
        let mut object = match loaded {
            Ok(object) => object,
            Err(error) => return self.refuse(name, Refusal::of_load(&error)),
        };
        match signal.attach(&mut object, types) {
            Ok(()) => {
                self.registry.enable(name, true);
                self.running.push(Running {
                    signal,
                    object,
                    insert_failures: 0,
                    counted_runs: HashMap::new(),
                    failure: None,
                });
            }
            Err(refusal) => {
                warn!(
                    signal = name,
                    reason = refusal.reason,
                    error = %refusal,
                    "signal is off: hook not attached"
                );
                self.refused.extend_from_slice(object.hooks());
                self.registry.enable(name, false);
                self.try_again_later(name, &refusal);
            }
        }
    }

    fn refuse(&mut self, signal: &'static str, refusal: Refusal) {
        if refusal.reason != "off" {
            warn!(
                signal,
                reason = refusal.reason,
                error = %refusal,
                "signal is off"
            );
        }
        self.try_again_later(signal, &refusal);
        self.refused.push(HookStatus {
            signal,
            hook: "all",
            refusal: Some(refusal),
        });
        self.registry.enable(signal, false);
    }

    fn try_again_later(&mut self, signal: &'static str, refusal: &Refusal) {
        // The kernel will not have learnt it, and no right comes back.
        if !matches!(
            refusal.reason,
            "failed" | "load_failed" | "attach_failed" | "no_cgroup2"
        ) {
            return;
        }
        let pause = match self.retries.get(signal) {
            None => self.settings.retry_after,
            Some(retry) => (retry.pause * 2).min(LONGEST_PAUSE),
        };
        let at = Instant::now() + pause;
        self.retries.insert(signal, Retry { at, pause });
    }

    /// Every hook, attached or not.
    pub fn hooks(&self) -> Vec<HookStatus> {
        let mut hooks = self.refused.clone();
        for running in &self.running {
            hooks.extend_from_slice(running.object.hooks());
        }
        hooks
    }

    /// Names of the signals that are measured.
    pub fn names(&self) -> Vec<&'static str> {
        self.running
            .iter()
            .map(|running| running.signal.name())
            .collect()
    }

    /// What a signal found that is no metric. `None` if it is not measured.
    pub fn report(&self, signal: &str) -> Option<serde_json::Value> {
        self.running
            .iter()
            .find(|running| running.signal.name() == signal)
            .and_then(|running| running.signal.report())
    }

    /// How full the kernel's maps were when they were last looked at.
    pub fn maps(&self) -> Vec<MapFill> {
        let objects = self.running.iter().map(|running| &running.object);
        objects.flat_map(Object::maps).collect()
    }

    /// Takes records out of the kernel's rings, before these are full.
    pub fn drain(&mut self, enricher: &Enricher) {
        for running in &mut self.running {
            running.run("drain", |signal, object| signal.drain(object, enricher));
        }
        self.turn_off_failed();
    }

    /// Goes after what comes and goes. To be called about once a second.
    pub fn follow(&mut self, enricher: &Enricher) {
        for running in &mut self.running {
            running.run("follow", |signal, object| signal.follow(object, enricher));
        }
    }

    /// Moves what the kernel counted since the last call into the registry. Takes some ten
    /// milliseconds, nearly all of it waiting.
    pub fn collect(&mut self, enricher: &Enricher) {
        enricher.begin_collection();
        for running in &mut self.running {
            running.run("read", |signal, object| signal.read(object, enricher));
        }
        for running in &mut self.running {
            running.run("swap", |_, object| Ok(object.swap()?));
        }
        wait_for_programs();
        for running in &mut self.running {
            running.run("collect", |signal, object| signal.collect(object, enricher));
        }
        self.turn_off_failed();
        self.try_again();
        self.account();
        self.expose();
    }

    fn turn_off_failed(&mut self) {
        let (failed, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| running.failure.is_some());
        self.running = running;
        for failed in failed {
            let name = failed.signal.name();
            self.events_lost
                .add(Labels::new(&[name, "collection_failed"]), 1);
            if let Some(refusal) = failed.failure {
                self.refuse(name, refusal);
            }
        }
    }

    fn try_again(&mut self) {
        let now = Instant::now();
        let is_up = self.names();
        // What has run for as long as it rested is well again.
        self.retries
            .retain(|name, retry| !is_up.contains(name) || now < retry.at + retry.pause);
        let due: Vec<&str> = (self.retries.iter())
            .filter(|(name, retry)| retry.at <= now && !is_up.contains(name))
            .map(|(name, _)| *name)
            .collect();
        if due.is_empty() {
            return;
        }
        self.bring_up(|name| due.contains(&name));
        for name in self.names() {
            if due.contains(&name) {
                info!(signal = name, "signal is on again");
            }
        }
    }

    fn account(&mut self) {
        for running in &mut self.running {
            let total = running.object.insert_failures();
            let new = total.saturating_sub(running.insert_failures);
            running.insert_failures = total;
            self.insert_failures
                .add(Labels::new(&[running.signal.name()]), new);
            for now in running.object.program_runs() {
                let before = (running.counted_runs).insert(now.program.clone(), now.clone());
                let (runs, time, missed) = before.map_or((0, 0.0, 0), |before| {
                    (before.runs, before.time.as_secs_f64(), before.missed)
                });
                let missed = now.missed.saturating_sub(missed);
                if missed > 0 {
                    let labels = Labels::new(&[running.signal.name(), "interrupted"]);
                    self.events_lost.add(labels, missed);
                }
                // Nothing is measured unless someone asked the kernel to.
                if now.runs == 0 {
                    continue;
                }
                let labels = Labels::new(&[&now.program]);
                self.runs.add(labels.clone(), now.runs.saturating_sub(runs));
                self.run_seconds
                    .add_seconds(labels, (now.time.as_secs_f64() - time).max(0.0));
            }
        }
    }

    fn expose(&self) {
        let series = self
            .hooks()
            .iter()
            .map(|status| {
                let reason = status.refusal.as_ref().map_or("", |refusal| refusal.reason);
                let attached = if status.refusal.is_none() { 1.0 } else { 0.0 };
                let labels = Labels::new(&[status.signal, status.hook, reason]);
                (labels, attached)
            })
            .collect();
        self.hook_attached.replace_all(series);
        let maps = self.maps();
        let of_each = |value: fn(&MapFill) -> f64| {
            let series = maps.iter();
            series
                .map(|map| (Labels::new(&[&map.map]), value(map)))
                .collect()
        };
        self.map_entries
            .replace_all(of_each(|map| map.entries as f64));
        self.map_capacity
            .replace_all(of_each(|map| f64::from(map.capacity)));
    }
}

fn turned_off() -> Refusal {
    Refusal {
        reason: "off",
        detail: "turned off in the configuration".into(),
    }
}

impl Running {
    fn run(
        &mut self,
        step: &str,
        work: impl FnOnce(&mut dyn Signal, &mut Object) -> anyhow::Result<()>,
    ) {
        if self.failure.is_some() {
            return;
        }
        let Self { signal, object, .. } = self;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(signal.as_mut(), object)));
        self.failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Refusal::of_failure(format!("{step}: {error:#}"))),
            Err(_) => Some(Refusal::of_failure(format!("{step}: panic"))),
        };
    }
}

#[cfg(test)]
mod tests;
