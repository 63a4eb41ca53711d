//! HTTPS from two files, which may change while we serve.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config::ConfigError;
use crate::metrics::Metrics;
use crate::watched::{Troubles, Watched};

const RELOAD: Duration = Duration::from_secs(2);

/// Certificate and key as they are now: connections that come get the newest, those there are stay as they are.
pub struct Certificate(Watched<Arc<CertifiedKey>>);

impl Certificate {
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, ConfigError> {
        let files = Watched::open("tls_certificate", vec![certificate, key], parse);
        let files = files.map_err(|reason| ConfigError::value("tls_certificate", reason))?;
        Ok(Arc::new(Self(files)))
    }

    pub fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Takes new files into use for as long as it is polled.
    pub async fn keep_fresh(self: Arc<Self>, troubles: Arc<Troubles>, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(RELOAD).await;
            self.0.poll(&troubles, &metrics).await;
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current()))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

fn parse(files: &[Vec<u8>]) -> Result<Arc<CertifiedKey>, String> {
    let [certificate, key] = files else {
        return Err("two files are needed".into());
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| "the first is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("there is no certificate in PEM in the first".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "there is no private key in PEM in the second".to_owned())?;
    let pair = CertifiedKey::from_der(chain, key, &default_provider());
    let pair = pair.map_err(|error| {
        format!("they do not belong together, or are of a kind that is not known ({error})")
    })?;
    Ok(Arc::new(pair))
}
