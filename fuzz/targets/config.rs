//! The assistant's config file: whatever stands in it, it is taken, or refused with a sentence that shows no secret.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use runwire_fuzz::config::{Config, Settings};

/// In memory where there is such a place: it is written for every input.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    };
    folder.join(format!("runwire-fuzz-{}.yaml", std::process::id()))
});

const SECRET: &str = "hunter2hunter2";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).unwrap();
    let settings = Settings {
        config: Some(FILE.clone()),
        ..Settings::default()
    };
    let loaded = Config::load(settings, "error");
    // Nothing is left behind, however this process ends.
    let _ = std::fs::remove_file(&*FILE);
    match loaded {
        Ok(config) => {
            assert!(!config.external_url.ends_with('/'));
            assert!(!config.prometheus.contains('@') || config.prometheus.contains('/'));
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty());
            // What may hold a password shows none, nor does a key that nobody knows.
            let text = String::from_utf8_lossy(data);
            let with_password = format!("://u:{SECRET}@");
            let may_hold = |line: &str| {
                let keys = ["prometheus: ", "incidents: ", "notify_url: ", "grafana_url: "];
                keys.iter().any(|key| line.starts_with(key))
            };
            let mut lines = text.lines().filter(|line| line.contains(SECRET));
            let is_secret = |line: &str| may_hold(line) && line.matches(SECRET).count() == 1;
            if lines.all(|line| is_secret(line) && line.contains(&with_password)) {
                assert!(!sentence.contains(SECRET), "{sentence}");
            }
        }
    }
});
