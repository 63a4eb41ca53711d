//! A signal that fails once comes back, by itself and with its counters.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::elf;
use crate::enrich::Identities;
use crate::export::Format;

/// Counts its collections, and fails at the second one of all.
struct Fragile(Counter);

static COLLECTIONS: AtomicU32 = AtomicU32::new(0);

impl Signal for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn elf(&self) -> &'static [u8] {
        elf!("tcp_retransmit")
    }

    fn attach(&mut self, _: &mut Object, _: &KernelTypes) -> Result<(), Refusal> {
        Ok(())
    }

    fn collect(&mut self, _: &mut Object, _: &Enricher) -> anyhow::Result<()> {
        anyhow::ensure!(COLLECTIONS.fetch_add(1, Ordering::Relaxed) != 1, "broken");
        self.0.add(Labels::default(), 1);
        Ok(())
    }
}

fn fragile(registry: &Registry, _: &SignalSettings) -> Vec<Box<dyn Signal>> {
    let registry = registry.for_signal("fragile");
    vec![Box::new(Fragile(registry.counter("collected", "C", &[])))]
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_signal_that_fails_is_tried_again() {
    let registry = Registry::new(100);
    let enricher = Enricher::of(Identities::default(), &registry);
    let settings = SignalSettings {
        retry_after: Duration::ZERO,
        ..SignalSettings::default()
    };
    let mut signals = Signals::start_all(&registry, &settings, fragile);
    let has = |line: &str| {
        let text = registry.encode(Format::Text, None);
        text.lines().any(|shown| shown == line)
    };
    signals.collect(&enricher);
    assert!(has("runwire_collected_total 1"));
    // Fails, and is brought up again in the same collection.
    signals.collect(&enricher);
    assert!(has(
        "runwire_events_lost_total{signal=\"fragile\",reason=\"collection_failed\"} 1"
    ));
    assert_eq!(signals.names(), ["fragile"]);
    signals.collect(&enricher);
    assert!(has("runwire_collected_total 2"), "goes on where it was");

    // With a pause it stays off meanwhile, and says so.
    COLLECTIONS.store(1, Ordering::Relaxed);
    signals.retries.clear();
    signals.settings.retry_after = Duration::from_secs(60);
    signals.collect(&enricher);
    assert!(signals.names().is_empty());
    assert!(has(
        "runwire_hook_attached{signal=\"fragile\",hook=\"all\",reason=\"failed\"} 0"
    ));
    assert!(!has("runwire_collected_total 2"), "not measured");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn signals_are_turned_off_and_on_while_others_run() {
    let registry = Registry::new(100);
    let settings = SignalSettings::default();
    let mut signals = Signals::start_all(&registry, &settings, fragile);
    let off = SignalSettings {
        off: vec!["fragile".to_owned()],
        ..settings.clone()
    };
    signals.configure(off);
    assert!(signals.names().is_empty());
    let reasons: Vec<_> = (signals.hooks().iter())
        .map(|hook| hook.refusal.as_ref().unwrap().reason)
        .collect();
    assert_eq!(reasons, ["off"]);
    signals.configure(settings);
    assert_eq!(signals.names(), ["fragile"]);
    assert!(signals.hooks().is_empty(), "it has none");
}
