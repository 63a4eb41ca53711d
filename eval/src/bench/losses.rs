//! What a collector says that it has lost: of what, why, and how much.

use std::collections::BTreeMap;
use std::fmt;

use super::exposition::Exposition;

const METRICS: [&str; 2] = ["events_lost_total", "bpf_map_insert_failures_total"];

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Losses(BTreeMap<String, f64>);

impl Losses {
    pub(super) fn of(metrics: &Exposition) -> Self {
        let series = METRICS.iter().flat_map(|metric| metrics.series(metric));
        let by_what = series.map(|(labels, value)| {
            let quoted = labels.split('"').skip(1).step_by(2);
            (quoted.collect::<Vec<_>>().join(" "), value)
        });
        by_what.collect()
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(what, value)| {
            let before = before.0.get(what).copied().unwrap_or(0.0);
            (what.clone(), value - before)
        });
        more.collect()
    }

    pub(super) fn total(&self) -> f64 {
        // The sum of nothing is -0 otherwise.
        self.0.values().sum::<f64>() + 0.0
    }

    pub(super) fn parts(self) -> impl Iterator<Item = (String, f64)> {
        self.0.into_iter()
    }
}

impl FromIterator<(String, f64)> for Losses {
    fn from_iter<T: IntoIterator<Item = (String, f64)>>(parts: T) -> Self {
        let mut losses = Self::default();
        for (what, value) in parts.into_iter().filter(|(_, value)| *value != 0.0) {
            *losses.0.entry(what).or_default() += value;
        }
        losses
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.total())?;
        for (at, (what, value)) in self.0.iter().enumerate() {
            write!(out, "{} {value} {what}", if at == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

#[test]
fn losses_are_told_by_what_was_lost() {
    let metrics = |records: u32| {
        Losses::of(&Exposition(format!(
            "runwire_events_lost_total{{signal=\"opened\",reason=\"ring_full\"}} {records}\n\
             runwire_events_lost_total{{signal=\"dns\",reason=\"ring_full\"}} 3\n\
             runwire_bpf_map_insert_failures_total{{map=\"tls\"}} 0\n"
        )))
    };
    let more = metrics(7).since(&metrics(2));
    assert_eq!(more.to_string(), "5: 5 opened ring_full");
    let both: Losses = more.clone().parts().chain(more.parts()).collect();
    assert_eq!(
        (both.total(), Losses::default().to_string().as_str()),
        (10.0, "0")
    );
}
