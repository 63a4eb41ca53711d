//! Files that are taken into use again when they change, and what is wrong with parts of us for `/readyz` to tell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::{info, warn};

use crate::hash::sha256;
use crate::metrics::Metrics;

/// Secrets and certificates are small; what is larger is the wrong file.
const MAX_BYTES: u64 = 1 << 20;

/// Parts that do not work as they should, each with a sentence.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<&'static str, String>>);

impl Troubles {
    pub fn set(&self, part: &'static str, trouble: Option<String>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(sentence) => parts.insert(part, sentence),
            None => parts.remove(part),
        };
    }

    pub fn all(&self) -> BTreeMap<&'static str, String> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.clone()
    }
}

/// Something made from files, made again when their content changes. What cannot be made leaves what there is.
pub struct Watched<T> {
    /// The key that names the file.
    key: &'static str,
    paths: Vec<PathBuf>,
    parse: fn(&[Vec<u8>]) -> Result<T, String>,
    current: RwLock<Arc<T>>,
    /// What was tried last, whether it was taken or not.
    seen: Mutex<Seen>,
}

type Seen = Result<[u8; 32], String>;

impl<T> Watched<T> {
    /// The sentence says which file it is about and what is wrong, and shows nothing of what is in it.
    pub fn open(
        key: &'static str,
        paths: Vec<PathBuf>,
        parse: fn(&[Vec<u8>]) -> Result<T, String>,
    ) -> Result<Self, String> {
        let contents = read(&paths)?;
        let first = parse(&contents).map_err(|reason| cannot_use(&paths, &reason))?;
        Ok(Self {
            key,
            parse,
            current: RwLock::new(Arc::new(first)),
            seen: Mutex::new(Ok(fingerprint(&contents))),
            paths,
        })
    }

    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files once.
    pub async fn poll(&self, troubles: &Troubles, metrics: &Metrics) {
        let paths = self.paths.clone();
        let contents = tokio::task::spawn_blocking(move || read(&paths)).await;
        let Ok(contents) = contents else { return };
        let seen = match &contents {
            Ok(contents) => Ok(fingerprint(contents)),
            Err(reason) => Err(reason.clone()),
        };
        {
            let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *last == seen {
                return;
            }
            *last = seen;
        }
        let made = contents.and_then(|contents| {
            (self.parse)(&contents).map_err(|reason| cannot_use(&self.paths, &reason))
        });
        let key = self.key;
        let outcome = match made {
            Ok(made) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                troubles.set(key, None);
                info!(key, "a changed file is in use");
                "applied"
            }
            Err(reason) => {
                warn!(key, %reason, "a changed file is not taken, and the last good one stays in use");
                troubles.set(
                    key,
                    Some(format!("{reason}; the last good content stays in use")),
                );
                "refused"
            }
        };
        metrics.add(
            "runwire_assistant_file_reloads_total",
            "Files of tokens, certificates and passwords that changed, by whether they were taken",
            &[("key", key), ("outcome", outcome)],
            1.0,
        );
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    paths
        .iter()
        .map(|path| {
            let shown = path.display();
            let size = std::fs::metadata(path).map(|file| file.len());
            if size.is_ok_and(|size| size > MAX_BYTES) {
                return Err(format!(
                    "names {shown}, which is larger than 1 MiB; name the right file"
                ));
            }
            std::fs::read(path).map_err(|error| {
                format!("names {shown}, which cannot be read: {error}; give a readable file")
            })
        })
        .collect()
}

fn cannot_use(paths: &[PathBuf], reason: &str) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "names {}, which cannot be used: {reason}",
        shown.join(" and ")
    )
}

fn fingerprint(contents: &[Vec<u8>]) -> [u8; 32] {
    let hashes: Vec<u8> = contents
        .iter()
        .flat_map(|content| sha256(content))
        .collect();
    sha256(&hashes)
}
