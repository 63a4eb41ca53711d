//! Healthy traffic of bystanders, so that no fault happens on a silent network.

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Background {
    None,
    #[default]
    Quiet,
    Busy,
}

pub(crate) const CLIENT: &str = "bystander";
pub(crate) const SERVER: &str = "neighbour";

impl Background {
    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Quiet | Self::Busy => &[CLIENT, SERVER],
        }
    }

    /// Names start with `background_`, so that a scenario's own cannot clash.
    pub(crate) fn actors(self) -> Vec<(String, Value)> {
        let (kept, fresh, lookups) = match self {
            Self::None => return Vec::new(),
            Self::Quiet => (10, 4, 3),
            Self::Busy => (120, 60, 40),
        };
        [
            ("web", json!({"node": SERVER, "tcp_server": {"delay_ms": 3}})),
            ("names", json!({"node": SERVER, "dns_server": {}})),
            (
                "kept",
                json!({"node": CLIENT, "tcp_client": {"to": "background_web", "rate": kept}}),
            ),
            (
                "fresh",
                json!({"node": CLIENT, "tcp_client": {"to": "background_web", "rate": fresh, "new_connection": true}}),
            ),
            (
                "lookups",
                json!({"node": CLIENT, "dns_client": {"to": "background_names", "rate": lookups}}),
            ),
        ]
        .into_iter()
        .map(|(id, spec)| (format!("background_{id}"), spec))
        .collect()
    }
}
