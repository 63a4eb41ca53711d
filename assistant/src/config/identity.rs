//! Keys about who we are to Prometheus: tenant, token or password, and whom we believe its certificate from.

use std::path::PathBuf;

use serde::Deserialize;

/// One optional value a key, as in [`super::Settings`].
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default)]
#[group(skip)]
pub struct IdentitySettings {
    /// Headers for Prometheus as `Name: value`, such as `X-Scope-OrgID: team`; may be given several times
    #[arg(
        long,
        env = "RUNWIRE_PROMETHEUS_HEADERS",
        hide_env_values = true,
        value_name = "HEADER",
        value_delimiter = ','
    )]
    pub prometheus_headers: Option<Vec<String>>,

    /// File with the bearer token for Prometheus; read again when it changes
    #[arg(long, env = "RUNWIRE_PROMETHEUS_TOKEN", value_name = "FILE")]
    pub prometheus_token: Option<PathBuf>,

    /// User for Prometheus, with `prometheus_password`
    #[arg(long, env = "RUNWIRE_PROMETHEUS_USER", value_name = "NAME")]
    pub prometheus_user: Option<String>,

    /// File with the password of `prometheus_user`; read again when it changes
    #[arg(long, env = "RUNWIRE_PROMETHEUS_PASSWORD", value_name = "FILE")]
    pub prometheus_password: Option<PathBuf>,

    /// Certificates in PEM of authorities that Prometheus' certificate may come from, beside those of the system
    #[arg(long, env = "RUNWIRE_PROMETHEUS_CA", value_name = "FILE")]
    pub prometheus_ca: Option<PathBuf>,
}

impl IdentitySettings {
    pub(super) fn or(self, other: Self) -> Self {
        let Self {
            prometheus_headers,
            prometheus_token,
            prometheus_user,
            prometheus_password,
            prometheus_ca,
        } = self;
        Self {
            prometheus_headers: prometheus_headers.or(other.prometheus_headers),
            prometheus_token: prometheus_token.or(other.prometheus_token),
            prometheus_user: prometheus_user.or(other.prometheus_user),
            prometheus_password: prometheus_password.or(other.prometheus_password),
            prometheus_ca: prometheus_ca.or(other.prometheus_ca),
        }
    }
}
