//! The handshakes of late, for people to look at: bounded, the oldest leave first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::certificate::Certificate;
use super::handshake::{End, Outcome};
use super::names;
use crate::enrich::Workload;

const MAX_ENTRIES: usize = 1000;

/// May be shared; clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct TlsTable(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    entries: HashMap<Key, Entry>,
    next_id: u64,
}

/// Handshakes that differ in nothing but the time are one entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub src: IpAddr,
    pub server: Server,
    pub version: &'static str,
    pub cipher: String,
}

/// Whom a client meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub address: IpAddr,
    pub port: u16,
    pub name: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: String,
    pub key: Key,
    pub src: Workload,
    pub dst: Workload,
    pub client_versions: Vec<&'static str>,
    pub client_ciphers: Vec<String>,
    pub client_alpn: Vec<String>,
    /// Chosen by the server, where that can be seen: before TLS 1.3.
    pub alpn: Option<String>,
    pub certificate: Option<Seen>,
    pub handshakes: u64,
    pub failures: u64,
    pub last_failure: Option<&'static str>,
    pub last_seen: Timestamp,
}

/// A certificate, and when it was last presented.
#[derive(Clone, Debug)]
pub struct Seen {
    pub certificate: Arc<Certificate>,
    pub at: Timestamp,
}

impl TlsTable {
    pub fn add(
        &self,
        (src, src_workload): (IpAddr, Workload),
        (server, dst_workload): (Server, Workload),
        outcome: &Outcome,
        certificate: Option<Arc<Certificate>>,
    ) {
        let chosen = outcome.chosen.as_ref();
        let key = Key {
            src,
            server,
            version: chosen.map_or("", |chosen| names::version(chosen.version)),
            cipher: chosen
                .map_or_else(String::new, |chosen| names::cipher_or_number(chosen.cipher)),
        };
        let now = Timestamp::now();
        let mut entries = self.lock();
        entries.make_room(&key);
        let id = format!("{:016x}", entries.next_id);
        let entry = entries.entries.entry(key.clone());
        let is_new = matches!(entry, std::collections::hash_map::Entry::Vacant(_));
        let entry = entry.or_insert_with(|| Entry {
            id,
            key,
            src: src_workload.clone(),
            dst: dst_workload.clone(),
            client_versions: Vec::new(),
            client_ciphers: Vec::new(),
            client_alpn: Vec::new(),
            alpn: None,
            certificate: None,
            handshakes: 0,
            failures: 0,
            last_failure: None,
            last_seen: now,
        });
        entry.src = src_workload;
        entry.dst = dst_workload;
        entry.update(outcome, now);
        if let Some(certificate) = certificate {
            entry.certificate = Some(Seen {
                certificate,
                at: now,
            });
        }
        entries.next_id += u64::from(is_new);
    }

    /// What a server presented to somebody else.
    pub fn set_certificate(&self, server: &Server, certificate: &Arc<Certificate>) {
        let at = Timestamp::now();
        for entry in self.lock().entries.values_mut() {
            if entry.key.server == *server {
                let certificate = certificate.clone();
                entry.certificate = Some(Seen { certificate, at });
            }
        }
    }

    /// All entries, the latest first.
    pub fn list(&self) -> Vec<Entry> {
        let mut list: Vec<Entry> = self.lock().entries.values().cloned().collect();
        list.sort_by(|a, b| (b.last_seen, &b.id).cmp(&(a.last_seen, &a.id)));
        list
    }

    pub fn get(&self, id: &str) -> Option<Entry> {
        let entries = self.lock();
        entries
            .entries
            .values()
            .find(|entry| entry.id == id)
            .cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn make_room(&mut self, key: &Key) {
        if self.entries.len() < MAX_ENTRIES || self.entries.contains_key(key) {
            return;
        }
        let oldest = self.entries.values().min_by_key(|entry| entry.last_seen);
        if let Some(key) = oldest.map(|entry| entry.key.clone()) {
            self.entries.remove(&key);
        }
    }
}

impl Entry {
    fn update(&mut self, outcome: &Outcome, now: Timestamp) {
        let hello = &outcome.hello;
        self.client_versions = hello.versions.iter().map(|&n| names::version(n)).collect();
        self.client_ciphers = (hello.ciphers.iter())
            .map(|&number| names::cipher_or_number(number))
            .collect();
        self.client_alpn.clone_from(&hello.alpn);
        self.alpn = (outcome.chosen.as_ref()).and_then(|chosen| chosen.alpn.clone());
        self.last_seen = now;
        match outcome.end {
            End::Completed => self.handshakes += 1,
            End::Failed(reason) => {
                self.failures += 1;
                self.last_failure = Some(reason);
            }
        }
    }
}
