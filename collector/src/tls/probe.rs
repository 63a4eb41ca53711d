//! A handshake of our own, for the certificates that a server presents. Nothing is sent after it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::table::Server;

const TIMEOUT: Duration = Duration::from_secs(2);

/// DER, the server's own first. Before anything is sent, `announce` is told our port.
pub fn certificates(server: &Server, announce: impl FnOnce(u16)) -> io::Result<Vec<Vec<u8>>> {
    let recorder = Arc::new(Recorder::new());
    let mut connection = client(server, recorder.clone()).map_err(io::Error::other)?;
    let address = SocketAddr::new(server.address, server.port);
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    announce(stream.local_addr()?.port());
    let mut result = Ok(());
    while connection.is_handshaking() && result.is_ok() {
        result = connection.complete_io(&mut stream).map(drop);
    }
    connection.send_close_notify();
    let _ = connection.complete_io(&mut stream);
    let chain = recorder.take();
    // A server that wants a certificate of ours has shown its own before it says no.
    if chain.is_empty() {
        return Err(result
            .err()
            .unwrap_or_else(|| io::ErrorKind::InvalidData.into()));
    }
    Ok(chain)
}

fn client(server: &Server, recorder: Arc<Recorder>) -> Result<ClientConnection, rustls::Error> {
    let provider = recorder.provider.clone();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_no_client_auth();
    let name = (server.name.as_ref())
        .and_then(|name| ServerName::try_from(name.clone()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(server.address.into()));
    ClientConnection::new(Arc::new(config), name)
}

/// Trusts everybody: who is asked for a date need not be believed.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<Vec<u8>>>,
}

impl Recorder {
    fn new() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            chain: Mutex::default(),
        }
    }

    fn take(&self) -> Vec<Vec<u8>> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut chain)
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|certificate| certificate.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
