//! What a certificate says of itself: until when it is good, for which names, who signed it.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// Names that one certificate may carry here.
const MAX_NAMES: usize = 64;
const MAX_TEXT: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub subject: String,
    pub issuer: String,
    /// DNS names and addresses that it is good for.
    pub names: Vec<String>,
    /// The first 16 hexadecimal digits of the SHA-256 of its DER.
    pub fingerprint: String,
    /// Subjects of what came with it.
    pub chain: Vec<String>,
}

/// `chain` in DER, the server's own certificate first; `None` if that cannot be read.
pub fn read(chain: &[impl AsRef<[u8]>]) -> Option<Certificate> {
    let der = chain.first()?.as_ref();
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = (alternatives.iter())
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(name)
        .take(MAX_NAMES);
    Some(Certificate {
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        subject: text(certificate.subject()),
        issuer: text(certificate.issuer()),
        names: names.collect(),
        fingerprint: fingerprint(der),
        chain: chain
            .iter()
            .filter_map(|der| subject(der.as_ref()))
            .collect(),
    })
}

pub fn fingerprint(der: &[u8]) -> String {
    let hash = digest(&SHA256, der);
    hash.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn subject(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(text(certificate.subject()))
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn text(name: &X509Name) -> String {
    printable(&name.to_string())
}

fn printable(text: &str) -> String {
    let letters = text.chars().take(MAX_TEXT);
    letters
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}
