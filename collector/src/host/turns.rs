//! Whose turn it is to be read, where there are more namespaces than can be read each time.

use std::collections::{HashMap, HashSet};

use super::netns::{Inode, Place};
use super::readings::Moved;
use crate::enrich::NetnsId;

/// Namespaces that are read at one collection.
const BATCH: usize = 256;
/// Of these, at most so many because something happens in them; the others take turns.
const BUSY: usize = 192;

#[derive(Default)]
pub(super) struct Turns {
    known: HashMap<Inode, Known>,
    round: u64,
}

struct Known {
    /// `None` if it could not be entered yet.
    netns: Option<NetnsId>,
    /// When it had its turn.
    round: u64,
    moved: Moved,
}

impl Turns {
    /// Forgets namespaces that are not there any more, and says which they were.
    pub(super) fn retain(&mut self, places: &[Place]) -> Vec<NetnsId> {
        let there: HashSet<Inode> = places.iter().map(|place| place.inode).collect();
        let gone = self.known.extract_if(|inode, _| !there.contains(inode));
        gone.filter_map(|(_, known)| known.netns).collect()
    }

    /// Whether so many namespaces are all that there are, and each had its turn.
    pub(super) fn had_all(&self, places: usize) -> bool {
        self.known.len() >= places
    }

    pub(super) fn next(&mut self, mut places: Vec<Place>) -> Vec<Place> {
        self.round += 1;
        if places.len() > BATCH {
            places = self.choose(places);
        }
        for place in &places {
            let known = self.known.entry(place.inode).or_insert(Known {
                netns: None,
                round: 0,
                moved: Moved::No,
            });
            known.round = self.round;
        }
        places
    }

    fn choose(&self, mut places: Vec<Place>) -> Vec<Place> {
        // Longest ago first; new ones were never read.
        let read = |place: &Place| self.known.get(&place.inode).map_or(0, |known| known.round);
        let moved = |place: &Place| {
            let known = self.known.get(&place.inode);
            known.is_some_and(|known| known.moved == Moved::Yes)
        };
        places.sort_by_key(|place| (read(place), place.inode));
        let (mut next, mut rest): (Vec<_>, Vec<_>) = places.into_iter().partition(moved);
        if next.len() > BUSY {
            rest.extend(next.drain(BUSY..));
            rest.sort_by_key(|place| (read(place), place.inode));
        }
        rest.truncate(BATCH - next.len());
        next.extend(rest);
        next
    }

    /// The namespace that was here before, if it was another one.
    pub(super) fn was_read(
        &mut self,
        inode: Inode,
        netns: NetnsId,
        moved: Moved,
    ) -> Option<NetnsId> {
        let known = self.known.get_mut(&inode)?;
        known.moved = moved;
        let before = known.netns.replace(netns)?;
        (before != netns).then_some(before)
    }
}

#[test]
fn busy_namespaces_come_first_and_no_other_waits_for_ever() {
    use crate::enrich::Workload;
    let places = || -> Vec<Place> {
        (0..1000)
            .map(|number| Place {
                inode: Inode::of(number),
                path: "/".into(),
                id: None,
                owner: Workload::unknown(),
                is_hosts: false,
            })
            .collect()
    };
    let mut turns = Turns::default();
    let mut reads: HashMap<Inode, u32> = HashMap::new();
    let is_busy = |inode: Inode| (0..300).any(|busy| inode == Inode::of(busy));
    for _ in 0..30 {
        let next = turns.next(places());
        assert_eq!(next.len(), BATCH);
        for place in next {
            *reads.entry(place.inode).or_default() += 1;
            let moved = if is_busy(place.inode) {
                Moved::Yes
            } else {
                Moved::No
            };
            turns.was_read(place.inode, NetnsId(1), moved);
        }
    }
    assert_eq!(reads.len(), 1000, "each had its turn");
    let mean = |busy: bool| {
        let of: Vec<u32> = (reads.iter())
            .filter(|(inode, _)| is_busy(**inode) == busy)
            .map(|(_, &reads)| reads)
            .collect();
        of.iter().sum::<u32>() / of.len() as u32
    };
    assert!(
        mean(true) > 5 * mean(false),
        "{} {}",
        mean(true),
        mean(false)
    );
    assert_eq!(turns.retain(&places()[..999]).len(), 1);
}
