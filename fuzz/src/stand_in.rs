//! What the included modules name of modules that are too heavy to include: the embedding model, the HTTP client, the database.

use std::time::Duration;

/// As in `assistant/src/prometheus.rs`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{self:?}")]
pub enum QueryError {
    Unreachable(String),
    TimedOut(Duration),
    Refused(String),
    Status(u16),
    Redirect(String),
    Busy,
    TooLarge(usize),
    Malformed(String),
}

/// As in `assistant/src/retrieval.rs`.
pub const GRAPH_FROM: usize = 50_000;

pub mod fuse {
    /// As in `assistant/src/retrieval/fuse.rs`.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Ranking {
        #[default]
        Fused,
        Sum,
        ReciprocalRank,
        Meaning,
        Words,
    }
}

pub mod incidents {
    use std::path::PathBuf;
    use std::time::Duration;

    /// As in `assistant/src/incidents.rs`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Settings {
        pub place: Place,
        pub retention: Duration,
        pub limit: u64,
        pub rediagnose: Duration,
        pub targets: deliver::Targets,
    }

    /// As in `assistant/src/incidents/store.rs`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Place {
        Sqlite(PathBuf),
        Postgres(String),
    }

    /// As in `assistant/src/incidents/deliver.rs`.
    pub mod deliver {
        use std::path::PathBuf;

        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Targets {
            pub webhook: Option<Webhook>,
            pub grafana: Option<Grafana>,
        }

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Webhook {
            pub url: String,
            pub format: Format,
            pub token_file: Option<PathBuf>,
            pub secret_file: Option<PathBuf>,
        }

        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Format {
            #[default]
            Runwire,
            Slack,
        }

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Grafana {
            pub url: String,
            pub token_file: Option<PathBuf>,
        }
    }
}

/// As in `assistant/src/narrate.rs`.
pub mod narrate {
    use std::path::PathBuf;
    use std::time::Duration;

    #[derive(Debug, Clone, PartialEq)]
    pub struct Settings {
        pub base_url: String,
        pub model: String,
        pub key: Option<Key>,
        pub timeout: Duration,
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Key {
        File(PathBuf),
        Text(String),
    }
}

pub mod embed {
    pub const GRAPH: &str = "model.onnx";
    pub const WEIGHTS: &str = "model.safetensors";
    pub const MAX_TOKENS: usize = 256;

    #[derive(Debug, thiserror::Error)]
    #[error("no model is here")]
    pub struct EmbedError;

    /// As in `assistant/src/retrieval/embed.rs`.
    pub trait Embedder: Send + Sync {
        fn name(&self) -> &str;
        fn dimensions(&self) -> usize;
        fn count_tokens(&self, text: &str) -> usize;
        fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
    }
}
