//! The signals of this process while they run: a signal that fails is turned off, shows as such,
//! and leaves the others alone.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::warn;

use super::{Signal, SignalSettings, all};
use crate::enrich::Enricher;
use crate::export::{Counter, Gauge, Labels, Registry};
use crate::kernel::statistics::ProgramRuns;
use crate::kernel::{HookStatus, KernelTypes, Object, Refusal, release_memory, wait_for_programs};

/// Loaded and attached signals.
pub struct Signals {
    running: Vec<Running>,
    /// Hooks of signals that are off; those of running ones are in their objects.
    refused: Vec<HookStatus>,
    registry: Registry,
    hook_attached: Gauge,
    insert_failures: Counter,
    events_lost: Counter,
    run_seconds: Counter,
    runs: Counter,
    /// Program runs as of the last collection.
    counted_runs: HashMap<String, ProgramRuns>,
}

struct Running {
    signal: Box<dyn Signal>,
    object: Object,
    insert_failures: u64,
    failure: Option<Refusal>,
}

impl Signals {
    /// Loads and attaches what this kernel allows. Never fails: what could not be had is in
    /// [`Signals::hooks`].
    pub fn start(registry: &Registry, settings: &SignalSettings) -> Self {
        let mut signals = Self::none(registry);
        let types = KernelTypes::read();
        for signal in all(registry, settings) {
            let name = signal.name();
            if settings.off.iter().any(|off| off == name) {
                let refusal = Refusal {
                    reason: "off",
                    detail: "turned off in the configuration".into(),
                };
                signals.refuse(name, refusal);
                continue;
            }
            match &types {
                Ok(types) => signals.add(signal, types, settings),
                Err(error) => signals.refuse(name, Refusal::of_load(error)),
            }
        }
        drop(types);
        release_memory();
        signals.expose();
        signals
    }

    fn none(registry: &Registry) -> Self {
        Self {
            running: Vec::new(),
            refused: Vec::new(),
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
            events_lost: registry.counter(
                "events_lost",
                "Collections of a signal that failed",
                &[&["signal", "reason"]],
            ),
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
            counted_runs: HashMap::new(),
        }
    }

    fn add(&mut self, mut signal: Box<dyn Signal>, types: &KernelTypes, settings: &SignalSettings) {
        let name = signal.name();
        let mut object = match Object::load(
            name,
            signal.elf(),
            types,
            &settings.map_capacity,
            &signal.bounds(),
        ) {
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
        self.refused.push(HookStatus {
            signal,
            hook: "all",
            refusal: Some(refusal),
        });
        self.registry.enable(signal, false);
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

    /// Moves what the kernel counted since the last call into the registry. Takes some ten
    /// milliseconds, nearly all of it waiting.
    pub fn collect(&mut self, enricher: &Enricher) {
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

    fn account(&mut self) {
        for running in &mut self.running {
            let total = running.object.insert_failures();
            let new = total.saturating_sub(running.insert_failures);
            running.insert_failures = total;
            self.insert_failures
                .add(Labels::new(&[running.signal.name()]), new);
            for now in running.object.program_runs() {
                // Nothing is measured unless someone asked the kernel to.
                if now.runs == 0 {
                    continue;
                }
                let before = self.counted_runs.insert(now.program.clone(), now.clone());
                let (runs, time) =
                    before.map_or((0, 0.0), |before| (before.runs, before.time.as_secs_f64()));
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
