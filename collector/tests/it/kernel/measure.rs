//! Signals on the running kernel, and what they say.

use std::fmt::Write as _;

use runwire_collector::enrich::Enricher;
use runwire_collector::export::{Format, Registry};
use runwire_collector::host::{Host, Paths};
use runwire_collector::kernel::HookStatus;
use runwire_collector::signals::{NAMES, SignalSettings, Signals};

pub(crate) struct Measurement {
    registry: Registry,
    enricher: Enricher,
    signals: Signals,
    /// The signals that are not measured.
    off: Vec<String>,
}

/// A label selector: `("src_workload", "a")`.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Measurement {
    /// `None`, with a word to the reader, where the kernel refuses `signal`.
    pub(crate) fn start(signal: &str) -> Option<Self> {
        Self::start_with(signal, SignalSettings::default())
    }

    pub(crate) fn start_with(signal: &str, settings: SignalSettings) -> Option<Self> {
        Self::start_in(Registry::new(10_000), signal, settings)
    }

    /// `None`, with a word to the reader, where the kernel refuses one of them.
    pub(crate) fn start_all(signals: &[&str]) -> Option<Self> {
        Self::start_all_in(Registry::new(10_000), signals, SignalSettings::default())
    }

    pub(crate) fn start_in(
        registry: Registry,
        signal: &str,
        settings: SignalSettings,
    ) -> Option<Self> {
        Self::start_all_in(registry, &[signal], settings)
    }

    fn start_all_in(registry: Registry, wanted: &[&str], settings: SignalSettings) -> Option<Self> {
        let settings = SignalSettings {
            off: NAMES
                .iter()
                .filter(|name| !wanted.contains(*name))
                .map(|name| (*name).to_owned())
                .collect(),
            ..settings
        };
        let signals = Signals::start(&registry, &settings);
        for signal in wanted {
            if signals.names().contains(signal) {
                continue;
            }
            let mut reasons = String::new();
            for hook in signals.hooks().iter().filter(|hook| hook.signal == *signal) {
                if let Some(refusal) = &hook.refusal {
                    let _ = write!(reasons, "{} {refusal}; ", hook.hook);
                }
            }
            say(&format!("skipped: {signal}: {reasons}"));
            return None;
        }
        let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);
        Some(Self {
            registry,
            enricher,
            signals,
            off: settings.off,
        })
    }

    /// The signal goes on with other settings.
    pub(crate) fn configure(&mut self, settings: SignalSettings) {
        let off = self.off.clone();
        self.signals.configure(SignalSettings { off, ..settings });
    }

    pub(crate) fn hooks(&self) -> Vec<HookStatus> {
        self.signals.hooks()
    }

    pub(crate) fn collect(&mut self) {
        self.enricher.refresh();
        self.signals.collect(&self.enricher);
        for hook in self.signals.hooks() {
            let refused = hook.refusal.filter(|refusal| refusal.reason == "failed");
            assert!(refused.is_none(), "{}: {refused:?}", hook.signal);
        }
    }

    /// What a signal found that is no metric.
    pub(crate) fn report(&self, signal: &str) -> serde_json::Value {
        self.signals.report(signal).expect("the signal is on")
    }

    pub(crate) fn enricher(&self) -> &Enricher {
        &self.enricher
    }

    /// The sum of all series of a metric that have these labels. `metric` as exposed, without the
    /// prefix.
    pub(crate) fn sum(&self, metric: &str, labels: Labels<'_>) -> f64 {
        let wanted = format!("runwire_{metric}");
        let text = self.registry.encode(Format::Text, None);
        text.lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (name, rest) = series.split_once('{').unwrap_or((series, ""));
                let matches = name == wanted
                    && (labels.iter()).all(|(name, value)| has_label(rest, name, value));
                matches.then(|| value.parse::<f64>().expect("values are numbers"))
            })
            .sum()
    }

    /// As [`Measurement::sum`], of a count.
    pub(crate) fn count(&self, metric: &str, labels: Labels<'_>) -> u64 {
        self.sum(metric, labels) as u64
    }

    /// Every series of a metric: for messages.
    pub(crate) fn show(&self, metric: &str) -> String {
        let wanted = format!("runwire_{metric}");
        let text = self.registry.encode(Format::Text, None);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(&wanted))
            .collect();
        lines.join("\n")
    }
}

pub(crate) fn has_label(series: &str, name: &str, value: &str) -> bool {
    let wanted = format!("{name}=\"{value}\"");
    series
        .trim_end_matches('}')
        .split(',')
        .any(|label| label == wanted)
}

#[expect(clippy::print_stderr, reason = "who runs the tests must see this")]
pub(crate) fn say(message: &str) {
    eprintln!("{message}");
}

/// Whether the running kernel lacks something that came with this version of Linux.
pub(crate) fn is_older_than(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux says it");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    (next(), next()) < (Some(major), Some(minor))
}
