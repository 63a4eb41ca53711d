//! Asks servers for the certificate that TLS 1.3 hides, where the user has switched that on: one
//! server a second at most, each once an interval, from the namespace of who spoke to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::{Reader, lock};
use crate::enrich::{Enricher, NetnsId};
use crate::export::Labels;
use crate::host::Host;
use crate::host::netns::{self, Inode};
use crate::tls::probe;
use crate::tls::table::Server;

/// Between two probes, whomever they go to.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_SERVERS: usize = 4096;
const MAX_WAITING: usize = 64;

pub(super) struct Prober {
    interval: Duration,
    asked: HashMap<(NetnsId, Server), Instant>,
    /// Wanted, and not yet handed to the thread.
    wanted: Vec<(NetnsId, Server, Labels)>,
    thread: Option<(SyncSender<Task>, Receiver<Answer>)>,
}

struct Task {
    netns: NetnsId,
    place: (Inode, PathBuf),
    server: Server,
    owner: Labels,
}

/// A server, whose it is, and the certificates that it presented.
pub(super) type Answer = (Server, Labels, Vec<Vec<u8>>);

impl Prober {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            asked: HashMap::new(),
            wanted: Vec::new(),
            thread: None,
        }
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Unless it was asked not long ago.
    pub(super) fn ask(&mut self, netns: NetnsId, server: Server, owner: Labels) {
        let key = (netns, server);
        let is_due = (self.asked.get(&key)).is_none_or(|at| at.elapsed() >= self.interval);
        if !is_due || self.wanted.len() >= MAX_WAITING {
            return;
        }
        if self.asked.len() >= MAX_SERVERS {
            self.asked.retain(|_, at| at.elapsed() < self.interval);
            if self.asked.len() >= MAX_SERVERS {
                return;
            }
        }
        self.wanted.push((key.0, key.1.clone(), owner));
        self.asked.insert(key, Instant::now());
    }

    /// Hands over what is wanted; returns what has come back.
    pub(super) fn run(&mut self, reader: &Arc<Mutex<Reader>>, enricher: &Enricher) -> Vec<Answer> {
        let wanted = self.placed(|netns| place_of(&*enricher.host()?, netns));
        if self.thread.is_none() {
            self.thread = start(reader.clone());
        }
        let Some((tasks, answers)) = &self.thread else {
            return Vec::new();
        };
        for task in wanted {
            if let Err(TrySendError::Full(task)) = tasks.try_send(task) {
                self.asked.remove(&(task.netns, task.server));
            }
        }
        answers.try_iter().collect()
    }

    /// What is wanted, with the places that it is asked from. Where a namespace is not known, which
    /// may be because it is new, the next connection asks again.
    fn placed(&mut self, place_of: impl Fn(NetnsId) -> Option<(Inode, PathBuf)>) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (netns, server, owner) in std::mem::take(&mut self.wanted) {
            match place_of(netns) {
                Some(place) => tasks.push(Task {
                    netns,
                    place,
                    server,
                    owner,
                }),
                None => _ = self.asked.remove(&(netns, server)),
            }
        }
        tasks
    }
}

/// Where this namespace can be entered.
fn place_of(host: &Host, netns: NetnsId) -> Option<(Inode, PathBuf)> {
    let place = (host.owned_places().into_iter()).find(|place| place.id == Some(netns))?;
    Some((place.inode, place.path))
}

fn start(reader: Arc<Mutex<Reader>>) -> Option<(SyncSender<Task>, Receiver<Answer>)> {
    let (task_sender, tasks) = sync_channel::<Task>(MAX_WAITING);
    let (answers, answer_receiver) = sync_channel(MAX_WAITING);
    let work = move || {
        for task in tasks {
            if let Some(chain) = probe_from(&task, &reader) {
                // Full: nobody has collected for a minute. The server will be asked again.
                let _ = answers.try_send((task.server, task.owner, chain));
            }
            thread::sleep(PAUSE);
        }
    };
    let thread = thread::Builder::new().name("tls-probe".to_owned());
    match thread.spawn(work) {
        Ok(_) => Some((task_sender, answer_receiver)),
        Err(error) => {
            warn!(%error, "cannot start a thread: certificates are not probed");
            None
        }
    }
}

/// On a thread of its own, since it enters the namespace.
fn probe_from(task: &Task, reader: &Mutex<Reader>) -> Option<Vec<Vec<u8>>> {
    let ask = || {
        let announce = |local_port| lock(reader).ignore(task.netns, local_port);
        probe::certificates(&task.server, announce)
    };
    let result = netns::visit(std::slice::from_ref(&task.place), ask);
    match result.into_iter().next()?.1 {
        Ok(chain) => Some(chain),
        Err(error) => {
            debug!(server = %task.server.address, port = task.server.port, %error, "probe failed");
            None
        }
    }
}

#[test]
fn a_server_of_a_namespace_that_is_not_known_yet_is_asked_for_again() {
    let mut prober = Prober::new(Duration::from_secs(3600));
    let netns = NetnsId(1);
    let server = Server {
        address: [192, 0, 2, 1].into(),
        port: 443,
        name: None,
    };
    prober.ask(netns, server.clone(), Labels::default());
    assert!(prober.placed(|_| None).is_empty());
    prober.ask(netns, server.clone(), Labels::default());
    let place = Some((Inode::of(1), PathBuf::from("/proc/1/ns/net")));
    assert_eq!(prober.placed(|_| place.clone()).len(), 1);
    prober.ask(netns, server, Labels::default());
    assert!(prober.placed(|_| place.clone()).is_empty(), "once an hour");
}
