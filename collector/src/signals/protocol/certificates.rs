//! The certificates that servers presented of late.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::export::Labels;
use crate::tls::certificate::{self, Certificate};

/// A server that nobody asked for so long may be gone, or have a new one.
const KEEP: Duration = Duration::from_secs(24 * 3600);
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

    /// Those that expire first.
    pub(super) fn series(&mut self) -> Vec<(Labels, f64)> {
        self.by_fingerprint
            .retain(|_, kept| kept.last.elapsed() < KEEP);
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
                (labels, kept.certificate.not_after as f64)
            })
            .collect()
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
