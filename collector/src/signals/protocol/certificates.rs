//! The certificates that servers presented of late.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::export::Labels;
use crate::tls::certificate::{self, Certificate};

/// A server that nobody asked for so long may be gone.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Not seen for so long while its successor is: it was renewed. Of several replicas, one whose renewal failed is seen again.
const REPLACED: Duration = Duration::from_secs(3600);
const MAX_KEPT: usize = 4096;
const MAX_SERIES: usize = 256;

pub(super) struct Certificates {
    by_fingerprint: HashMap<(Labels, String), Kept>,
    with_names: bool,
}

struct Kept {
    certificate: Arc<Certificate>,
    server_name: String,
    last: Instant,
}

impl Certificates {
    pub(super) fn new(with_names: bool) -> Self {
        Self {
            by_fingerprint: HashMap::new(),
            with_names,
        }
    }

    pub(super) fn show_names(&mut self, with_names: bool) {
        self.with_names = with_names;
    }

    /// What `chain` says, if it is one; parsed only when it is new.
    pub(super) fn add(
        &mut self,
        chain: &[Vec<u8>],
        owner: Labels,
        server_name: Option<&str>,
    ) -> Option<Arc<Certificate>> {
        let key = (owner, certificate::fingerprint(chain.first()?));
        if let Some(kept) = self.by_fingerprint.get_mut(&key) {
            kept.last = Instant::now();
            return Some(kept.certificate.clone());
        }
        let certificate = Arc::new(certificate::read(chain)?);
        self.make_room();
        let kept = Kept {
            certificate: certificate.clone(),
            server_name: server_name.unwrap_or_default().to_owned(),
            last: Instant::now(),
        };
        self.by_fingerprint.insert(key, kept);
        Some(certificate)
    }

    /// Those that expire first: when each began, and when it ends.
    pub(super) fn series(&mut self) -> Vec<(Labels, [f64; 2])> {
        self.forget();
        let mut kept: Vec<_> = self.by_fingerprint.iter().collect();
        kept.sort_by_key(|((_, fingerprint), kept)| (kept.certificate.not_after, fingerprint));
        kept.truncate(MAX_SERIES);
        kept.into_iter()
            .map(|((owner, fingerprint), kept)| {
                let name = if self.with_names {
                    kept.server_name.as_str()
                } else {
                    ""
                };
                let labels = owner.clone().with(&[name, fingerprint]);
                let certificate = &kept.certificate;
                (
                    labels,
                    [certificate.not_before as f64, certificate.not_after as f64],
                )
            })
            .collect()
    }

    /// What was not seen for long, or has a successor: of the same server, for the same names, and good for longer.
    fn forget(&mut self) {
        self.by_fingerprint
            .retain(|_, kept| kept.last.elapsed() < KEEP);
        let line = |owner: &Labels, it: &Certificate| {
            (owner.clone(), it.subject.clone(), it.names.clone())
        };
        let mut last: HashMap<_, i64> = HashMap::new();
        for ((owner, _), kept) in &self.by_fingerprint {
            let end = kept.certificate.not_after;
            let last = last.entry(line(owner, &kept.certificate)).or_insert(end);
            *last = end.max(*last);
        }
        self.by_fingerprint.retain(|(owner, _), kept| {
            let certificate = &kept.certificate;
            kept.last.elapsed() < REPLACED
                || last[&line(owner, certificate)] <= certificate.not_after
        });
    }

    fn make_room(&mut self) {
        if self.by_fingerprint.len() < MAX_KEPT {
            return;
        }
        let oldest = self.by_fingerprint.iter().min_by_key(|(_, kept)| kept.last);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.by_fingerprint.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(minutes_ago: u64, names: &str, not_after: i64) -> ((Labels, String), Kept) {
        let certificate = Certificate {
            not_before: 0,
            not_after,
            subject: String::new(),
            issuer: String::new(),
            names: vec![names.to_owned()],
            fingerprint: not_after.to_string(),
            chain: Vec::new(),
        };
        let kept = Kept {
            certificate: Arc::new(certificate),
            server_name: String::new(),
            last: Instant::now() - Duration::from_secs(60 * minutes_ago),
        };
        let owner = Labels::new(&["shop", "web", "Deployment"]);
        ((owner, not_after.to_string()), kept)
    }

    fn ends(seen: impl IntoIterator<Item = ((Labels, String), Kept)>) -> Vec<f64> {
        let mut certificates = Certificates::new(false);
        certificates.by_fingerprint.extend(seen);
        let series = certificates.series();
        series.into_iter().map(|(_, [_, end])| end).collect()
    }

    #[test]
    fn one_that_was_renewed_is_no_longer_shown() {
        let after = [seen(61, "web.test", 100), seen(0, "web.test", 200)];
        assert_eq!(ends(after), [200.0]);
        let just_now = [seen(59, "web.test", 100), seen(0, "web.test", 200)];
        assert_eq!(ends(just_now), [100.0, 200.0]);
        let for_others = [seen(61, "old.test", 100), seen(0, "web.test", 200)];
        assert_eq!(ends(for_others), [100.0, 200.0]);
        let rolled_back = [seen(0, "web.test", 100), seen(61, "web.test", 200)];
        assert_eq!(ends(rolled_back), [100.0, 200.0]);
        let long_ago = [seen(24 * 60 + 1, "web.test", 100)];
        assert!(ends(long_ago).is_empty());
    }
}
