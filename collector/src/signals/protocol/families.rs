//! Metric families of protocols and TLS.

use std::collections::HashSet;

use crate::export::{Buckets, Counter, EDGE, Gauge, Histogram, Labels, OWNER, Registry};
use crate::signals::events_lost;
use crate::signals::labels::OTHER;
use crate::tls::handshake::{End, Outcome};
use crate::tls::names;

pub(super) struct Families {
    pub(super) connections: Counter,
    pub(super) plaintext: Counter,
    pub(super) certificates: Gauge,
    pub(super) beginnings: Gauge,
    handshakes: Counter,
    client_hellos: Counter,
    duration: Histogram,
    alerts: Counter,
    failures: Counter,
    alpn: Counter,
    server_names: Counter,
    lost: Counter,
    /// The server names that have series of their own, and how many may have.
    named: HashSet<String>,
    max_named: usize,
}

impl Families {
    pub(super) fn register(all: &Registry, max_named: usize) -> Self {
        let registry = all.for_signal(super::NAME);
        Self {
            connections: registry.counter(
                "protocol_connections",
                "Connections by the protocol that their first bytes tell; over UDP, clients that sent DNS queries",
                &[EDGE, &["protocol", "transport"]],
            ),
            plaintext: registry.counter(
                "tls_plaintext_connections",
                "Connections on which one end spoke clear text and the other expected TLS",
                &[EDGE],
            ),
            certificates: registry.gauge(
                "tls_certificate_expiry_timestamp_seconds",
                "When a certificate that was seen in the last day expires, in Unix time; of the 256 that expire first",
                &[OWNER, &["server_name", "fingerprint"]],
            ),
            beginnings: registry.gauge(
                "tls_certificate_not_before_timestamp_seconds",
                "From when on that certificate is good, in Unix time: with its end, how long certificates of this server last",
                &[OWNER, &["server_name", "fingerprint"]],
            ),
            handshakes: registry.counter(
                "tls_handshakes",
                "TLS handshakes completed, by what the server chose",
                &[EDGE, &["version", "cipher"]],
            ),
            client_hellos: registry.counter(
                "tls_client_hellos",
                "TLS handshakes begun and over, by the highest version that the client offered",
                &[EDGE, &["version"]],
            ),
            duration: registry.histogram(
                "tls_handshake_duration_seconds",
                "Time from the client hello to the end of a completed TLS handshake",
                &[EDGE],
                Buckets::exponential(500e-6, 2.0, 16),
            ),
            alerts: registry.counter(
                "tls_alerts",
                "TLS alerts during handshakes, by the side that sent them",
                &[EDGE, &["alert", "level", "side"]],
            ),
            failures: registry.counter(
                "tls_handshake_failures",
                "TLS handshakes begun and not completed, by the alert or else what ended them",
                &[EDGE, &["reason"]],
            ),
            alpn: registry.counter(
                "tls_alpn",
                "TLS handshakes begun whose client offered an application protocol; one of several counts for each",
                &[EDGE, &["protocol"]],
            ),
            server_names: registry.counter(
                "tls_server_names",
                "TLS handshakes begun for a server name; only if tls_server_names is set, and only for so many names",
                &[&["server_name"]],
            ),
            lost: events_lost(all),
            named: HashSet::new(),
            max_named,
        }
    }

    /// Names that have series keep them.
    pub(super) fn name_at_most(&mut self, names: usize) {
        self.max_named = names;
    }

    pub(super) fn lose(&self, reason: &str, count: u64) {
        if count > 0 {
            self.lost.add(Labels::new(&[super::NAME, reason]), count);
        }
    }

    pub(super) fn add(&mut self, edge: &Labels, outcome: &Outcome) {
        let with = |labels: &[&str]| edge.clone().with(labels);
        let hello = &outcome.hello;
        self.client_hellos
            .add(with(&[names::version(hello.version())]), 1);
        for protocol in distinct(hello.alpn.iter().map(|protocol| names::alpn(protocol))) {
            self.alpn.add(with(&[protocol]), 1);
        }
        for alert in &outcome.alerts {
            let labels = with(&[alert.alert, alert.level, alert.side.as_str()]);
            self.alerts.add(labels, 1);
        }
        if let Some(name) = &hello.server_name {
            self.add_name(name);
        }
        match outcome.end {
            End::Completed => {
                let chosen = outcome.chosen.clone().unwrap_or_default();
                let cipher = names::cipher(chosen.cipher);
                self.handshakes
                    .add(with(&[names::version(chosen.version), &cipher]), 1);
                let seconds = outcome.duration_ns as f64 / 1e9;
                self.duration.observe(edge.clone(), seconds);
            }
            End::Failed(reason) => self.failures.add(with(&[reason]), 1),
        }
    }

    fn add_name(&mut self, name: &str) {
        if self.max_named == 0 {
            return;
        }
        if self.named.len() < self.max_named && !self.named.contains(name) {
            self.named.insert(name.to_owned());
        }
        let label = if self.named.contains(name) {
            name
        } else {
            OTHER
        };
        self.server_names.add(Labels::new(&[label]), 1);
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    names.collect()
}
