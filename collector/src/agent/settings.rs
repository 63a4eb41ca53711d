//! The configuration in force, and how it changes while the collector runs: the file is edited, or
//! somebody sets a key. What is wrong changes nothing.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Agent, lock};
use crate::capabilities::{self, Capability, needed};
use crate::config::{Applies, BadConfig, Config, KEYS, Key, Loaded, Origin, Sources, load};
use crate::logs::Logs;

pub struct Settings {
    agent: Arc<Agent>,
    logs: Logs,
    /// Where the next configuration comes from, and what the last good one said.
    wanted: Mutex<(Sources, Loaded)>,
    /// As wanted, but for keys that only a start reads.
    in_force: watch::Sender<Arc<Config>>,
}

/// A key as `config get` shows it.
#[derive(Serialize)]
pub struct Setting {
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
    pub takes_effect: &'static str,
    /// What the file says, if that waits for a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_restart: Option<String>,
    pub help: &'static str,
}

impl Settings {
    pub fn new(agent: Arc<Agent>, logs: Logs, sources: Sources, loaded: Loaded) -> Self {
        let in_force = watch::Sender::new(Arc::new(loaded.config.clone()));
        Self {
            agent,
            logs,
            wanted: Mutex::new((sources, loaded)),
            in_force,
        }
    }

    pub fn current(&self) -> Arc<Config> {
        self.in_force.borrow().clone()
    }

    /// To wait for changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.subscribe()
    }

    pub fn recent_logs(&self) -> String {
        self.logs.recent()
    }

    /// Reads the file again.
    pub fn reload(&self) {
        let mut wanted = lock(&self.wanted);
        match load(&wanted.0) {
            Ok(loaded) => {
                let changed = self.apply(&mut wanted.1, loaded);
                let outcome = if changed { "applied" } else { "unchanged" };
                self.agent.count_reload(outcome, true);
            }
            Err(wrong) => {
                error!(error = %wrong, "the configuration stays as it was");
                self.agent.count_reload("refused", false);
            }
        }
    }

    /// Sets a key until the collector ends.
    pub fn set(&self, name: &str, value: &str) -> Result<(), BadConfig> {
        let Some(key) = Key::named(name) else {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            return Err(BadConfig(format!(
                "there is no key `{name}`, they are {}",
                names.join(", ")
            )));
        };
        if key.applies == Applies::AtStart {
            return Err(BadConfig(format!(
                "`{name}` is only read at start: write it into the configuration file and restart the collector"
            )));
        }
        let mut wanted = lock(&self.wanted);
        // On top of what was good last: the file may be wrong by now.
        let loaded = wanted.1.with(key, value)?;
        wanted.0.overrides.insert(key.name, value.to_owned());
        self.apply(&mut wanted.1, loaded);
        Ok(())
    }

    /// What the process is at: for the support bundle.
    pub fn state(&self) -> serde_json::Value {
        let held = capabilities::had();
        let (held, lacking): (Vec<_>, Vec<_>) =
            needed().partition(|capability| capabilities::holds(held, capability));
        let names = |of: Vec<&Capability>| -> Vec<&str> {
            of.into_iter().map(|capability| capability.name).collect()
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "process": std::process::id(),
            "threads": threads(),
            "capabilities": {"held": names(held), "lacking": names(lacking)},
            "health": self.agent.health(),
            "maps": self.agent.maps(),
        })
    }

    /// Every key, without what nobody but its owner should see.
    pub fn show(&self) -> Vec<Setting> {
        let wanted = lock(&self.wanted);
        let current = self.current();
        let show = |key: &'static Key| {
            let (value, wish) = (key.shown(&current), key.shown(&wanted.1.config));
            Setting {
                name: key.name,
                origin: wanted.1.origin(key),
                takes_effect: key.applies.as_str(),
                after_restart: (wish != value).then_some(wish),
                value,
                help: key.help,
            }
        };
        KEYS.iter().map(show).collect()
    }

    /// True if anything is different from before.
    fn apply(&self, before: &mut Loaded, loaded: Loaded) -> bool {
        let mut next = (*self.current()).clone();
        let (mut changed, mut waiting) = (Vec::new(), Vec::new());
        for key in KEYS {
            if key.value(&loaded.config) == key.value(&before.config) {
                continue;
            }
            match key.applies {
                Applies::AtOnce => {
                    key.copy(&loaded.config, &mut next);
                    changed.push(format!("{}={}", key.name, key.shown(&next)));
                }
                Applies::AtStart => waiting.push(key.name),
            }
        }
        *before = loaded;
        if !changed.is_empty() {
            // Levels first, so that this line is seen if it is wanted.
            self.logs.set_level(next.log_level);
            self.agent.configure(&next);
            self.in_force.send_replace(Arc::new(next));
            info!(changed = changed.join(" "), "the configuration changed");
        }
        if !waiting.is_empty() {
            warn!(
                keys = waiting.join(", "),
                "these keys changed but are only read at start: restart the collector"
            );
        }
        !changed.is_empty() || !waiting.is_empty()
    }
}

/// Names of this process's threads, and the capabilities of each.
fn threads() -> Vec<serde_json::Value> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let describe = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        Some(json!({"name": field("Name:")?, "effective": field("CapEff:")?}))
    };
    tasks.flatten().filter_map(describe).collect()
}

#[tokio::test]
async fn who_asks_for_the_configuration_keeps_no_other_waiting() {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use axum::body::Body;
    use axum::extract::{ConnectInfo, Request};
    use tower::ServiceExt as _;

    use crate::enrich::{Enricher, Identities};
    use crate::export::Registry;

    let registry = Registry::new(100);
    let enricher = Enricher::of(Identities::default(), &registry);
    let agent = Arc::new(Agent::new(registry, Arc::new(enricher)));
    let (sources, loaded) = (Sources::default(), Loaded::default());
    let settings = Arc::new(Settings::new(agent, Logs::default(), sources, loaded));
    // Somebody turns signals on, which takes a while.
    let (begins, begun) = std::sync::mpsc::channel();
    let setting = settings.clone();
    let setter = std::thread::spawn(move || {
        let _wanted = lock(&setting.wanted);
        begins.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(800));
    });
    begun.recv().unwrap();
    let mut request = Request::get("/debug/config").body(Body::empty()).unwrap();
    let here = SocketAddr::from(([127, 0, 0, 1], 40_000));
    request.extensions_mut().insert(ConnectInfo(here));
    let start = Instant::now();
    let other = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        start.elapsed()
    };
    let asked = crate::server::debug_routes(settings).oneshot(request);
    let (response, waited) = tokio::join!(asked, other);
    assert_eq!(response.unwrap().status(), 200);
    assert!(waited < Duration::from_millis(600), "{waited:?}");
    setter.join().unwrap();
}
