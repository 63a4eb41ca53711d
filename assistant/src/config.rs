//! What the assistant can be told: by flag, by `RUNWIRE_…` variable or in a YAML file, in this order of precedence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::incidents;
use crate::incidents::deliver::Format;
use crate::narrate;
use crate::retrieval::fuse::Ranking;

mod access;
mod identity;
mod load;
mod surroundings;

pub use access::{AccessSettings, AuditQuestions, Auth, Network};
pub use identity::IdentitySettings;
pub use load::{ConfigError, edit_distance};

/// One optional value a key, as it stands in one source. The field's name is the key in the file, with hyphens the
/// flag, in capitals after `RUNWIRE_` the variable.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// YAML file with any of these keys
    #[arg(long, env = "RUNWIRE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Address and port to serve on [default: 127.0.0.1:8080]
    #[arg(long, env = "RUNWIRE_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// Folder of runbooks; may be given several times [default: runbooks, then /usr/share/runwire/runbooks]
    #[arg(
        long,
        env = "RUNWIRE_RUNBOOKS",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub runbooks: Option<Vec<PathBuf>>,

    /// Base URL of Prometheus or anything with its query API [default: http://127.0.0.1:9090]
    #[arg(long, env = "RUNWIRE_PROMETHEUS", value_name = "URL")]
    pub prometheus: Option<String>,

    /// When a diagnosis is wanted, 100ms to 20s; what Prometheus has not said by then is told as missing [default: 2s]
    #[arg(long, env = "RUNWIRE_DIAGNOSIS_DEADLINE", value_name = "DURATION")]
    pub diagnosis_deadline: Option<String>,

    /// Folder with all-MiniLM-L6-v2, or with another model as model.onnx [default: .runwire/model, then /usr/share/runwire/model]
    #[arg(long, env = "RUNWIRE_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// ONNX Runtime's shared library [default: .runwire/onnxruntime/libonnxruntime.so, then what the loader finds]
    #[arg(long, env = "RUNWIRE_ONNXRUNTIME", value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,

    /// Folder that keeps the index between runs [default: $XDG_CACHE_HOME/runwire, ~/.cache/runwire or /var/cache/runwire]
    #[arg(long, env = "RUNWIRE_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// How passages are ordered; all but `fused` are there to be compared with it [default: fused]
    #[arg(long, env = "RUNWIRE_RANKING", value_name = "NAME")]
    pub ranking: Option<Ranking>,

    /// Folder with a cross-encoder as model.onnx, which puts the best passages in order once more [default: none]
    #[arg(long, env = "RUNWIRE_RERANKER", value_name = "DIR")]
    pub reranker: Option<PathBuf>,

    /// From so many passages on, the nearest vectors are found by a graph, which is built beside; 0: never [default: 200000]
    #[arg(long, env = "RUNWIRE_GRAPH_FROM", value_name = "N")]
    pub graph_from: Option<usize>,

    /// Address under which users reach this service, for links in alerts [default: http:// and the listen address]
    #[arg(long, env = "RUNWIRE_EXTERNAL_URL", value_name = "URL")]
    pub external_url: Option<String>,

    /// Where incidents are kept: an SQLite file, a postgres:// address, or off [default: incidents.db in $STATE_DIRECTORY, $XDG_STATE_HOME/runwire, ~/.local/state/runwire or /var/lib/runwire]
    #[arg(
        long,
        env = "RUNWIRE_INCIDENTS",
        value_name = "FILE|URL|off",
        hide_env_values = true
    )]
    pub incidents: Option<String>,

    /// How long an incident without news is kept [default: 30d]
    #[arg(long, env = "RUNWIRE_INCIDENT_RETENTION", value_name = "DURATION")]
    pub incident_retention: Option<String>,

    /// Resolved incidents that are kept at most [default: 100000]
    #[arg(long, env = "RUNWIRE_INCIDENT_LIMIT", value_name = "N")]
    pub incident_limit: Option<u64>,

    /// How soon an open incident is diagnosed again; the pause grows to ten times this while nothing changes [default: 1m]
    #[arg(long, env = "RUNWIRE_REDIAGNOSE_EVERY", value_name = "DURATION")]
    pub rediagnose_every: Option<String>,

    /// Where diagnoses of incidents are posted [default: nowhere]
    #[arg(
        long,
        env = "RUNWIRE_NOTIFY_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub notify_url: Option<String>,

    /// In which form: runwire (all of it as JSON) or slack [default: runwire]
    #[arg(long, env = "RUNWIRE_NOTIFY_FORMAT", value_name = "NAME")]
    pub notify_format: Option<Format>,

    /// File with a bearer token for notify_url
    #[arg(long, env = "RUNWIRE_NOTIFY_TOKEN_FILE", value_name = "FILE")]
    pub notify_token_file: Option<PathBuf>,

    /// File with the key that signs what is posted to notify_url
    #[arg(long, env = "RUNWIRE_NOTIFY_SECRET_FILE", value_name = "FILE")]
    pub notify_secret_file: Option<PathBuf>,

    /// Base URL of a Grafana: pages link their queries to Explore there, and with a token each incident becomes an annotation [default: none]
    #[arg(long, env = "RUNWIRE_GRAFANA_URL", value_name = "URL")]
    pub grafana_url: Option<String>,

    /// File with the token of a Grafana service account
    #[arg(long, env = "RUNWIRE_GRAFANA_TOKEN_FILE", value_name = "FILE")]
    pub grafana_token_file: Option<PathBuf>,

    /// Base URL of a language model's OpenAI-compatible API, such as http://127.0.0.1:11434/v1, that may narrate diagnoses [default: none]
    #[arg(long, env = "RUNWIRE_LLM_BASE_URL", value_name = "URL")]
    pub llm_base_url: Option<String>,

    /// The model's name there
    #[arg(long, env = "RUNWIRE_LLM_MODEL", value_name = "NAME")]
    pub llm_model: Option<String>,

    /// File with its key; or put the key into the variable RUNWIRE_LLM_KEY
    #[arg(long, env = "RUNWIRE_LLM_KEY_FILE", value_name = "FILE")]
    pub llm_key_file: Option<PathBuf>,

    /// How long a narration may take [default: 30s]
    #[arg(long, env = "RUNWIRE_LLM_TIMEOUT", value_name = "DURATION")]
    pub llm_timeout: Option<String>,
    /// Address under which users reach Prometheus, for links to it [default: the one that is asked]
    #[arg(long, env = "RUNWIRE_PROMETHEUS_EXTERNAL_URL", value_name = "URL")]
    pub prometheus_external_url: Option<String>,

    /// Uid of Grafana's data source for Prometheus, for those links [default: Grafana's default source]
    #[arg(long, env = "RUNWIRE_GRAFANA_DATASOURCE", value_name = "UID")]
    pub grafana_datasource: Option<String>,

    /// What to log: error, warn, info, debug, trace, or a filter such as runwire_assistant=debug [default: info, and error for commands that print]
    #[arg(long, env = "RUNWIRE_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    #[command(flatten)]
    #[serde(flatten)]
    pub access: AccessSettings,

    #[command(flatten)]
    #[serde(flatten)]
    pub identity: IdentitySettings,
}

/// The same, checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    pub runbooks: Vec<PathBuf>,
    /// Without a slash at the end.
    pub prometheus: String,
    pub diagnosis_deadline: Duration,
    /// `None`: no model is there, and nobody asked for one.
    pub model: Option<PathBuf>,
    /// `None`: left to the dynamic loader.
    pub onnxruntime: Option<PathBuf>,
    /// `None`: nowhere to keep anything.
    pub cache: Option<PathBuf>,
    pub ranking: Ranking,
    pub reranker: Option<PathBuf>,
    /// `usize::MAX`: never.
    pub graph_from: usize,
    /// Without a slash at the end.
    pub external_url: String,
    /// `None`: incidents are not kept.
    pub incidents: Option<incidents::Settings>,
    /// `None`: no language model.
    pub llm: Option<narrate::Settings>,
    /// Without a slash at the end.
    pub prometheus_external_url: String,
    /// Without a slash at the end. `None`: no links to Grafana.
    pub grafana_url: Option<String>,
    pub grafana_datasource: Option<String>,
    pub log: String,
    pub access: AccessSettings,
    pub identity: IdentitySettings,
}

impl Config {
    /// Reads the file that the flags or variables name, if any, and checks everything. `log` is what is logged where
    /// nobody says otherwise.
    pub fn load(settings: Settings, log: &str) -> Result<Self, ConfigError> {
        let from_file = match &settings.config {
            Some(path) => load::file(path)?,
            None => Settings::default(),
        };
        let default = Settings {
            log: Some(log.to_owned()),
            ..Settings::default()
        };
        load::check(settings.or(from_file).or(default))
    }
}

impl Settings {
    fn or(self, other: Self) -> Self {
        // Named one by one, so that a new key cannot be forgotten here.
        let Self {
            config,
            listen,
            runbooks,
            prometheus,
            diagnosis_deadline,
            model,
            onnxruntime,
            cache,
            ranking,
            reranker,
            graph_from,
            external_url,
            incidents,
            incident_retention,
            incident_limit,
            rediagnose_every,
            notify_url,
            notify_format,
            notify_token_file,
            notify_secret_file,
            grafana_url,
            grafana_token_file,
            llm_base_url,
            llm_model,
            llm_key_file,
            llm_timeout,
            prometheus_external_url,
            grafana_datasource,
            log,
            access,
            identity,
        } = self;
        Self {
            config: config.or(other.config),
            listen: listen.or(other.listen),
            runbooks: runbooks.or(other.runbooks),
            prometheus: prometheus.or(other.prometheus),
            diagnosis_deadline: diagnosis_deadline.or(other.diagnosis_deadline),
            model: model.or(other.model),
            onnxruntime: onnxruntime.or(other.onnxruntime),
            cache: cache.or(other.cache),
            ranking: ranking.or(other.ranking),
            reranker: reranker.or(other.reranker),
            graph_from: graph_from.or(other.graph_from),
            external_url: external_url.or(other.external_url),
            incidents: incidents.or(other.incidents),
            incident_retention: incident_retention.or(other.incident_retention),
            incident_limit: incident_limit.or(other.incident_limit),
            rediagnose_every: rediagnose_every.or(other.rediagnose_every),
            notify_url: notify_url.or(other.notify_url),
            notify_format: notify_format.or(other.notify_format),
            notify_token_file: notify_token_file.or(other.notify_token_file),
            notify_secret_file: notify_secret_file.or(other.notify_secret_file),
            grafana_url: grafana_url.or(other.grafana_url),
            grafana_token_file: grafana_token_file.or(other.grafana_token_file),
            llm_base_url: llm_base_url.or(other.llm_base_url),
            llm_model: llm_model.or(other.llm_model),
            llm_key_file: llm_key_file.or(other.llm_key_file),
            llm_timeout: llm_timeout.or(other.llm_timeout),
            prometheus_external_url: prometheus_external_url.or(other.prometheus_external_url),
            grafana_datasource: grafana_datasource.or(other.grafana_datasource),
            log: log.or(other.log),
            access: access.or(other.access),
            identity: identity.or(other.identity),
        }
    }
}
