//! What the assistant can be told: by flag, by `RUNWIRE_…` variable or in a YAML file, in this order of precedence.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::retrieval::fuse::Ranking;

mod access;
mod identity;
mod load;

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

    /// Address under which users reach this service, for links in alerts [default: http:// and the listen address]
    #[arg(long, env = "RUNWIRE_EXTERNAL_URL", value_name = "URL")]
    pub external_url: Option<String>,

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
    /// `None`: no model is there, and nobody asked for one.
    pub model: Option<PathBuf>,
    /// `None`: left to the dynamic loader.
    pub onnxruntime: Option<PathBuf>,
    /// `None`: nowhere to keep anything.
    pub cache: Option<PathBuf>,
    pub ranking: Ranking,
    /// Without a slash at the end.
    pub external_url: String,
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
            model,
            onnxruntime,
            cache,
            ranking,
            external_url,
            log,
            access,
            identity,
        } = self;
        Self {
            config: config.or(other.config),
            listen: listen.or(other.listen),
            runbooks: runbooks.or(other.runbooks),
            prometheus: prometheus.or(other.prometheus),
            model: model.or(other.model),
            onnxruntime: onnxruntime.or(other.onnxruntime),
            cache: cache.or(other.cache),
            ranking: ranking.or(other.ranking),
            external_url: external_url.or(other.external_url),
            log: log.or(other.log),
            access: access.or(other.access),
            identity: identity.or(other.identity),
        }
    }
}
