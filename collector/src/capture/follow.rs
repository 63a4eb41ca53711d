//! Interfaces that come and go: which there are, which are wanted, and what is attached to them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::interface::{self, Found};
use super::totals::Totals;
use super::{CELLS, COUNTS, CaptureMode, CaptureSettings};
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::Labels;
use crate::host::netns::{self, Inode};
use crate::kernel::{
    Attachment, Direction, Object, ReadError, Refusal, Tap, Way, remove_stale_filters,
};

/// Looking may take at most this part of the time …
const LOOK_SHARE: u32 = 20;
/// … within these bounds.
const LOOK: Duration = Duration::from_secs(1);
const MAX_LOOK: Duration = Duration::from_secs(5);
/// What is attached is asked whether it still is.
const VERIFY: Duration = Duration::from_secs(10);
/// Whoever is in the way may have gone.
const RETRY: Duration = Duration::from_secs(30);

/// A namespace and a number in it, as `struct capture_key`.
pub(super) type Key = [u32; 2];

/// Where namespaces can be entered.
type Places = Vec<(Inode, PathBuf)>;

#[derive(Default)]
pub(super) struct Followed {
    tap: Option<Tap>,
    interfaces: BTreeMap<Key, Interface>,
    places: Places,
    /// Namespaces in which nothing is left of processes that were killed.
    clean: HashSet<NetnsId>,
    next_look: Option<Instant>,
    next_verify: Option<Instant>,
}

pub(super) struct Interface {
    netns: Inode,
    pub(super) name: String,
    /// The beginning of the labels of its series, once it has any.
    pub(super) labels: Option<Labels>,
    pub(super) totals: Totals<CELLS>,
    state: State,
}

enum State {
    Captured(Attachment),
    Refused { refusal: Refusal, retry: Instant },
}

/// What one namespace says of itself.
struct Inside {
    id: NetnsId,
    interfaces: Vec<Found>,
    /// Numbers of those that are attached to no more.
    detached: Vec<u32>,
}

/// What is to be done inside the namespaces.
#[derive(Default)]
struct Work {
    remove: HashMap<NetnsId, Vec<Attachment>>,
    add: HashMap<NetnsId, Vec<u32>>,
    places: HashSet<Inode>,
}

impl Followed {
    /// Loads the programs of a mode.
    pub(super) fn load(
        &mut self,
        object: &mut Object,
        settings: &CaptureSettings,
    ) -> Result<(), Refusal> {
        self.clean.clear();
        self.tap = match settings.mode {
            CaptureMode::Off => None,
            CaptureMode::Xdp => {
                let programs = [(Direction::Ingress, "capture_xdp")];
                Some(object.load_tap(Way::Xdp, &programs)?)
            }
            CaptureMode::Tc => {
                let programs = [
                    (Direction::Ingress, "capture_ingress"),
                    (Direction::Egress, "capture_egress"),
                ];
                let tap = object.load_tap(Way::Tcx, &programs)?;
                let links = !settings.without_links && tap.has_links();
                Some(if links {
                    tap
                } else {
                    tap.attached_by(Way::Filter)
                })
            }
        };
        Ok(())
    }

    pub(super) fn look_now(&mut self) {
        self.next_look = None;
    }

    /// Those whose packets are counted.
    pub(super) fn captured(&mut self) -> impl Iterator<Item = (Key, &mut Interface)> {
        (self.interfaces.iter_mut())
            .filter(|(_, interface)| matches!(interface.state, State::Captured(_)))
            .map(|(&key, interface)| (key, interface))
    }

    /// Whether an interface has series with these labels.
    pub(super) fn has(&self, labels: &Labels) -> bool {
        (self.interfaces.values()).any(|interface| interface.labels.as_ref() == Some(labels))
    }

    /// How many interfaces there are by why they are not captured; "" are those that are.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::from([("", 0)]);
        for interface in self.interfaces.values() {
            let reason = match &interface.state {
                State::Captured(_) => "",
                State::Refused { refusal, .. } => refusal.reason,
            };
            *counts.entry(reason).or_default() += 1;
        }
        counts
    }

    /// Looks for interfaces if it is time to; then gives the labels of those that were left.
    pub(super) fn look(
        &mut self,
        object: &mut Object,
        enricher: &Enricher,
        settings: &CaptureSettings,
    ) -> Result<Option<Vec<Labels>>, ReadError> {
        let start = Instant::now();
        if self.tap.is_none() || self.next_look.is_some_and(|at| start < at) {
            return Ok(None);
        }
        self.places = enricher
            .host()
            .map(|host| host.places().collect())
            .unwrap_or_default();
        let insides = self.look_inside(start);
        let mut work = Work::default();
        let left = self.leave(object, &insides, settings, &mut work)?;
        self.arrive(object, insides, settings, &mut work)?;
        self.carry_out(object, work)?;
        self.show(object, Some(enricher));
        self.next_look = Some(start + (start.elapsed() * LOOK_SHARE).clamp(LOOK, MAX_LOOK));
        Ok(Some(left))
    }

    /// As [`Followed::detach_all`], and makes room in the map.
    pub(super) fn leave_all(&mut self, object: &mut Object) -> Vec<Labels> {
        for key in self.interfaces.keys() {
            let _ = object.remove_entry::<_, CELLS>(COUNTS, *key);
        }
        self.detach_all()
    }

    /// Detaches from everything, and gives the labels of what it was attached to.
    pub(super) fn detach_all(&mut self) -> Vec<Labels> {
        let mut work = Work::default();
        let left = std::mem::take(&mut self.interfaces)
            .into_iter()
            .filter_map(|(key, interface)| work.leave(key, interface))
            .collect();
        self.visit(work);
        left
    }

    fn look_inside(&mut self, now: Instant) -> Vec<(Inode, Inside)> {
        let verify = self.next_verify.is_none_or(|at| now >= at);
        if verify {
            self.next_verify = Some(now + VERIFY);
        }
        let filters = self.tap.as_ref().map(Tap::way) == Some(Way::Filter);
        let read = || {
            let id = netns::id().ok()?;
            if filters && !self.clean.contains(&id) {
                remove_stale_filters().ok()?;
            }
            let is_detached = |interface: &Interface| match &interface.state {
                State::Captured(attachment) => !attachment.is_attached(),
                State::Refused { .. } => false,
            };
            let known = self.interfaces.range([id.0, 0]..=[id.0, u32::MAX]);
            let detached = known
                .filter(|(_, interface)| verify && is_detached(interface))
                .map(|(key, _)| key[1])
                .collect();
            Some(Inside {
                id,
                interfaces: interface::list().ok()?,
                detached,
            })
        };
        let insides: Vec<_> = netns::visit(&self.places, read)
            .into_iter()
            .filter_map(|(inode, inside)| Some((inode, inside?)))
            .collect();
        self.clean = insides.iter().map(|(_, inside)| inside.id).collect();
        insides
    }

    /// Those that are gone, no longer wanted, called otherwise or detached by somebody else.
    fn leave(
        &mut self,
        object: &mut Object,
        insides: &[(Inode, Inside)],
        settings: &CaptureSettings,
        work: &mut Work,
    ) -> Result<Vec<Labels>, ReadError> {
        let existing: HashSet<Inode> = self.places.iter().map(|(inode, _)| *inode).collect();
        let mut names = HashMap::new();
        let mut detached = HashSet::new();
        let mut entered = HashSet::new();
        for (inode, inside) in insides {
            entered.insert(*inode);
            let key = |index| [inside.id.0, index];
            names.extend((inside.interfaces.iter()).map(|found| (key(found.index), &found.name)));
            detached.extend(inside.detached.iter().map(|&index| key(index)));
        }
        let stays = |key: &Key, interface: &Interface| match names.get(key) {
            Some(name) => {
                **name == interface.name
                    && settings.interfaces.matches(name)
                    && !detached.contains(key)
            }
            // Not entered this time: we do not know.
            None => existing.contains(&interface.netns) && !entered.contains(&interface.netns),
        };
        let (staying, leaving): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.interfaces)
                .into_iter()
                .partition(|(key, interface)| stays(key, interface));
        self.interfaces = staying;
        let mut left = Vec::new();
        for (key, interface) in leaving {
            object.remove_entry::<_, CELLS>(COUNTS, key)?;
            left.extend(work.leave(key, interface));
        }
        Ok(left)
    }

    /// Those that are new, and those that are tried again.
    fn arrive(
        &mut self,
        object: &mut Object,
        insides: Vec<(Inode, Inside)>,
        settings: &CaptureSettings,
        work: &mut Work,
    ) -> Result<(), ReadError> {
        let now = Instant::now();
        for (netns, inside) in insides {
            let wanted = (inside.interfaces.into_iter())
                .filter(|found| settings.interfaces.matches(&found.name));
            for found in wanted {
                let key = [inside.id.0, found.index];
                let is_due = match self.interfaces.get(&key) {
                    None => true,
                    Some(Interface {
                        state: State::Refused { retry, .. },
                        ..
                    }) => now >= *retry,
                    Some(_) => false,
                };
                if !is_due {
                    continue;
                }
                let refusal = self.obstacle(object, key, &found)?;
                if refusal.is_none() {
                    work.add.entry(inside.id).or_default().push(found.index);
                    work.places.insert(netns);
                }
                let interface = Interface {
                    netns,
                    name: found.name,
                    labels: None,
                    totals: Totals::default(),
                    state: State::Refused {
                        refusal: refusal.unwrap_or_else(pending),
                        retry: now + RETRY,
                    },
                };
                self.interfaces.insert(key, interface);
            }
        }
        Ok(())
    }

    /// Why an interface cannot be attached to; if nothing is in the way, it has a place to count.
    fn obstacle(
        &self,
        object: &mut Object,
        key: Key,
        found: &Found,
    ) -> Result<Option<Refusal>, ReadError> {
        if self.tap.as_ref().map(Tap::way) == Some(Way::Xdp) && !found.ethernet {
            return Ok(Some(Refusal {
                reason: "not_ethernet",
                detail: "its frames have no Ethernet header: `capture: tc` can count them".into(),
            }));
        }
        if object.put_zeros::<_, CELLS>(COUNTS, key)? {
            return Ok(None);
        }
        Ok(Some(Refusal {
            reason: "map_full",
            detail: "there are more interfaces than `capture_counts` has room for".into(),
        }))
    }

    fn carry_out(&mut self, object: &mut Object, work: Work) -> Result<(), ReadError> {
        for (key, outcome) in self.visit(work) {
            let Some(interface) = self.interfaces.get_mut(&key) else {
                continue;
            };
            let name = &interface.name;
            match outcome {
                Ok(attachment) => {
                    info!(interface = %name, netns = key[0], "counting packets");
                    interface.state = State::Captured(attachment);
                    continue;
                }
                Err(refusal) if refusal.reason == GONE => {}
                Err(refusal) => {
                    let retried = matches!(&interface.state, State::Refused { refusal: before, .. }
                        if before.reason == refusal.reason);
                    if !retried {
                        warn!(interface = %name, netns = key[0], reason = refusal.reason,
                            error = %refusal, "cannot count packets of an interface");
                    }
                    interface.state = State::Refused {
                        refusal,
                        retry: Instant::now() + RETRY,
                    };
                    object.remove_entry::<_, CELLS>(COUNTS, key)?;
                    continue;
                }
            }
            self.interfaces.remove(&key);
            object.remove_entry::<_, CELLS>(COUNTS, key)?;
        }
        Ok(())
    }

    /// Detaches and attaches inside the namespaces.
    fn visit(&self, work: Work) -> Vec<(Key, Result<Attachment, Refusal>)> {
        let places: Places = (self.places.iter())
            .filter(|(inode, _)| work.places.contains(inode))
            .cloned()
            .collect();
        let Work { remove, add, .. } = work;
        let remove = Mutex::new(remove);
        let act = || {
            let Ok(id) = netns::id() else {
                return Vec::new();
            };
            let mut remove = remove.lock().unwrap_or_else(PoisonError::into_inner);
            for attachment in remove.remove(&id).into_iter().flatten() {
                if let Err(error) = attachment.remove() {
                    warn!(netns = id.0, %error, "cannot remove filters of an interface");
                }
            }
            drop(remove);
            let (Some(tap), Some(added)) = (&self.tap, add.get(&id)) else {
                return Vec::new();
            };
            (added.iter())
                .map(|&index| ([id.0, index], tap.attach(index)))
                .collect()
        };
        netns::visit(&places, act)
            .into_iter()
            .flat_map(|(_, outcomes)| outcomes)
            .collect()
    }

    /// Says in the hooks how it is.
    pub(super) fn show(&self, object: &mut Object, enricher: Option<&Enricher>) {
        let Some(hook) = self.tap.as_ref().map(|tap| tap.way().hook()) else {
            return object.set_hooks(Vec::new());
        };
        let mut refused: BTreeMap<&'static str, Vec<(&Key, &Interface, &Refusal)>> =
            BTreeMap::new();
        let mut captured = false;
        for (key, interface) in &self.interfaces {
            match &interface.state {
                State::Captured(_) => captured = true,
                State::Refused { refusal, .. } => {
                    let same = refused.entry(refusal.reason).or_default();
                    same.push((key, interface, refusal));
                }
            }
        }
        let mut hooks = Vec::new();
        if captured || refused.is_empty() {
            hooks.push((hook, None));
        }
        for (reason, same) in refused {
            let Some((key, interface, refusal)) = same.first() else {
                continue;
            };
            let place = enricher.map_or_else(String::new, |enricher| {
                let owner = enricher.owner(NetnsId(key[0]), CgroupId(0));
                format!(" of {}/{}", owner.namespace, owner.name)
            });
            let more = match same.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let detail = format!("{}{place}{more}: {refusal}", interface.name);
            hooks.push((hook, Some(Refusal { reason, detail })));
        }
        object.set_hooks(hooks);
    }
}

impl Work {
    /// Detaches, now or inside the namespace; gives the labels of its series.
    fn leave(&mut self, key: Key, interface: Interface) -> Option<Labels> {
        if let State::Captured(attachment) = interface.state
            && attachment.outlives_us()
        {
            let netns = NetnsId(key[0]);
            self.remove.entry(netns).or_default().push(attachment);
            self.places.insert(interface.netns);
        }
        interface.labels
    }
}

/// The reason of an interface that went while we were attaching to it.
const GONE: &str = "interface_gone";

fn pending() -> Refusal {
    Refusal {
        reason: "attach_failed",
        detail: "its namespace could not be entered".into(),
    }
}
