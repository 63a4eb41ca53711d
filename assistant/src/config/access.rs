//! Keys about who may ask, how often, over which connection, and what is written down about it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// One optional value a key, as in [`super::Settings`].
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default)]
#[group(skip)]
pub struct AccessSettings {
    /// Whether callers must say who they are [default: required where others than this host can reach us, or where `tokens` or `trusted_proxies` is given; else off]
    #[arg(long, env = "RUNWIRE_AUTH", value_name = "WHETHER")]
    pub auth: Option<Auth>,

    /// File of bearer tokens, one a line: NAME:TOKEN or NAME:sha256:HEX; read again when it changes
    #[arg(long, env = "RUNWIRE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,

    /// File of tokens of the same form that are good for the Alertmanager webhook alone
    #[arg(long, env = "RUNWIRE_WEBHOOK_TOKENS", value_name = "FILE")]
    pub webhook_tokens: Option<PathBuf>,

    /// Addresses or networks of proxies that log users in and name them in a header
    #[arg(
        long,
        env = "RUNWIRE_TRUSTED_PROXIES",
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub trusted_proxies: Option<Vec<Network>>,

    /// Header in which a trusted proxy names the user [default: X-Forwarded-User]
    #[arg(long, env = "RUNWIRE_USER_HEADER", value_name = "NAME")]
    pub user_header: Option<String>,

    /// Whether /metrics asks for a token too: required or off [default: off]
    #[arg(long, env = "RUNWIRE_METRICS_AUTH", value_name = "WHETHER")]
    pub metrics_auth: Option<Auth>,

    /// Requests a second that one token or user may make on average, and five times as many at once; 0: no limit [default: 20]
    #[arg(long, env = "RUNWIRE_RATE_LIMIT", value_name = "N")]
    pub rate_limit: Option<u32>,

    /// Metrics that agents may read through /mcp; a name that ends in _ stands for all that begin with it [default: runwire_,up]
    #[arg(
        long,
        env = "RUNWIRE_MCP_METRICS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub mcp_metrics: Option<Vec<String>>,

    /// File that a JSON line is added to for every diagnosis [default: none; the log has them at level debug]
    #[arg(long, env = "RUNWIRE_AUDIT", value_name = "FILE")]
    pub audit: Option<PathBuf>,

    /// How the audit shows questions: hash or text [default: hash]
    #[arg(long, env = "RUNWIRE_AUDIT_QUESTIONS", value_name = "HOW")]
    pub audit_questions: Option<AuditQuestions>,

    /// Certificate chain in PEM: with `tls_key`, HTTPS is served; read again when it changes
    #[arg(long, env = "RUNWIRE_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of `tls_certificate` in PEM
    #[arg(long, env = "RUNWIRE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    Required,
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AuditQuestions {
    /// Equal questions are seen to be equal, and none can be read.
    #[default]
    Hash,
    Text,
}

/// An address, or all that begin with the same bits: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// An IPv4 address is the same also where a socket shows it as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (
                u128::from(own.to_bits()) << 96,
                u128::from(other.to_bits()) << 96,
            ),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits()),
            _ => return false,
        };
        self.bits == 0 || (own ^ other) >> (128 - u32::from(self.bits)) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither an address nor a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl AccessSettings {
    pub(super) fn or(self, other: Self) -> Self {
        let Self {
            auth,
            tokens,
            webhook_tokens,
            trusted_proxies,
            user_header,
            metrics_auth,
            rate_limit,
            mcp_metrics,
            audit,
            audit_questions,
            tls_certificate,
            tls_key,
        } = self;
        Self {
            auth: auth.or(other.auth),
            tokens: tokens.or(other.tokens),
            webhook_tokens: webhook_tokens.or(other.webhook_tokens),
            trusted_proxies: trusted_proxies.or(other.trusted_proxies),
            user_header: user_header.or(other.user_header),
            metrics_auth: metrics_auth.or(other.metrics_auth),
            rate_limit: rate_limit.or(other.rate_limit),
            mcp_metrics: mcp_metrics.or(other.mcp_metrics),
            audit: audit.or(other.audit),
            audit_questions: audit_questions.or(other.audit_questions),
            tls_certificate: tls_certificate.or(other.tls_certificate),
            tls_key: tls_key.or(other.tls_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_addresses() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                holds,
                "{network:?} {address}"
            );
        }
        for bad in ["", "proxy", "10.0.0.0/33", "10.0.0.0/x", "10.0.0/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
