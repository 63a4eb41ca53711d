//! The exposition: Prometheus text and OpenMetrics.

use std::fmt::Write;
use std::net::IpAddr;

use super::family::{Family, Kind, Value};
use super::{Labels, PREFIX, Registry, lock};

/// Scrapers remembered at a time. More than that is not a monitoring system but a port scan.
const MAX_SCRAPERS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A program that scrapes again and again and computes rates: what it has not seen yet is shown
/// to it as 0 once, since the increase from nothing to the first value would be lost to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scraper {
    pub address: IpAddr,
    pub user_agent: String,
}

impl Registry {
    /// All families that are shown, in order. `scraper`: who asks, if it asks regularly.
    pub fn encode(&self, format: Format, scraper: Option<Scraper>) -> String {
        let families = self.shown();
        let mut scrapes = lock(&self.inner.scrapes);
        let seen = match scraper {
            // Whoever comes for the first time has no past to which a 0 could be added.
            None => u64::MAX,
            Some(scraper) => {
                let generation = scrapes.generation;
                if scrapes.seen.len() >= MAX_SCRAPERS && !scrapes.seen.contains_key(&scraper) {
                    scrapes.seen.clear();
                }
                let seen = scrapes.seen.entry(scraper).or_default();
                seen.before = std::mem::replace(&mut seen.last, generation);
                seen.before
            }
        };
        scrapes.generation += 1;

        let mut out = Exposition::new(format);
        let mut counts = Vec::with_capacity(families.len());
        for family in &families {
            out.family(family, scrapes.generation, seen);
            counts.push((family.name, family.len(), family.overflow()));
        }
        out.own(&counts);
        if format == Format::OpenMetrics {
            out.text.push_str("# EOF\n");
        }
        out.text
    }

    /// What was encoded last for this scraper came too late for it, so it may not have seen it, and is shown the same as 0 once
    /// more. Not again and again: where all is slow, what is counted must be seen at last.
    pub fn was_late(&self, scraper: &Scraper) {
        if let Some(seen) = lock(&self.inner.scrapes).seen.get_mut(scraper)
            && seen.before != seen.repeated
        {
            seen.last = seen.before;
            seen.repeated = seen.before;
        }
    }

    /// One sample of every family, with `…` for each label: what there is to ask for.
    pub fn catalogue(&self) -> String {
        let mut out = Exposition::new(Format::Text);
        for family in self.shown() {
            let labels = Labels::new(&vec!["…"; family.labels.len()]);
            out.header(family.name, family.help, family.kind);
            out.series(&family, &labels, &family.zero());
        }
        out.own(&[("…", 0, 0)]);
        out.text
    }
}

struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    fn new(format: Format) -> Self {
        let text = String::with_capacity(64 * 1024);
        Self { text, format }
    }

    fn family(&mut self, family: &Family, generation: u64, seen: u64) {
        let zero = family.zero();
        let mut headed = false;
        family.visit(generation, |labels, series| {
            if !std::mem::replace(&mut headed, true) {
                self.header(family.name, family.help, family.kind);
            }
            let is_new = series.generation > seen && family.kind != Kind::Gauge;
            let value = if is_new { &zero } else { &series.value };
            self.series(family, labels, value);
        });
    }

    fn series(&mut self, family: &Family, labels: &Labels, value: &Value) {
        match value {
            Value::Number(number) => {
                let suffix = if family.kind == Kind::Counter {
                    "_total"
                } else {
                    ""
                };
                self.sample(family, suffix, labels, None, *number);
            }
            Value::Slots { slots, sum } => {
                let mut total = 0;
                let bounds = family.bounds().iter().copied().chain([f64::INFINITY]);
                for (bound, n) in bounds.zip(slots) {
                    total += n;
                    self.sample(family, "_bucket", labels, Some(bound), count(total));
                }
                self.sample(family, "_sum", labels, None, *sum);
                self.sample(family, "_count", labels, None, count(total));
            }
        }
    }

    /// What the registry says of itself: name, series and overflow of every family.
    fn own(&mut self, counts: &[(&str, usize, u64)]) {
        self.header(
            "series",
            "Series of a metric family, 0 included: a family that is not here is not measured",
            Kind::Gauge,
        );
        for (name, series, _) in counts {
            let _ = writeln!(self.text, "{PREFIX}series{{metric=\"{name}\"}} {series}");
        }
        self.header(
            "series_overflow",
            "Additions that went to the `~other` series of a family that is over its budget",
            Kind::Counter,
        );
        for (name, _, overflow) in counts {
            let _ = writeln!(
                self.text,
                "{PREFIX}series_overflow_total{{metric=\"{name}\"}} {overflow}"
            );
        }
    }

    fn header(&mut self, name: &str, help: &str, kind: Kind) {
        let suffix = match (self.format, kind) {
            // OpenMetrics names the family, the older format the sample.
            (Format::Text, Kind::Counter) => "_total",
            _ => "",
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = match self.format {
            // There, quotes are special also where nothing is quoted.
            Format::OpenMetrics => help.replace('"', "\\\""),
            Format::Text => help.to_owned(),
        };
        let _ = writeln!(self.text, "# HELP {PREFIX}{name}{suffix} {help}");
        let _ = writeln!(self.text, "# TYPE {PREFIX}{name}{suffix} {kind}");
    }

    fn sample(&mut self, family: &Family, suffix: &str, labels: &Labels, le: Option<f64>, n: f64) {
        let text = &mut self.text;
        text.push_str(PREFIX);
        text.push_str(family.name);
        text.push_str(suffix);
        let mut before = '{';
        for (name, value) in family.labels.iter().zip(labels.values()) {
            if value.is_empty() {
                continue;
            }
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
            before = ',';
        }
        if let Some(le) = le {
            text.push(before);
            text.push_str("le=\"");
            number(text, le);
            if le.is_finite() && le.fract() == 0.0 {
                // OpenMetrics wants bounds to look like what they are.
                text.push_str(".0");
            }
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        text.push(' ');
        number(text, n);
        text.push('\n');
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exposition values are doubles: exact up to 2^53"
)]
fn count(n: u64) -> f64 {
    n as f64
}

fn number(text: &mut String, n: f64) {
    if n.is_finite() {
        let _ = write!(text, "{n}");
    } else if n.is_nan() {
        text.push_str("NaN");
    } else {
        text.push_str(if n > 0.0 { "+Inf" } else { "-Inf" });
    }
}

fn escape(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        text.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}
