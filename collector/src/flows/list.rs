//! A queue through the slots of a table, from which any slot may leave.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            previous: NONE,
            next: NONE,
        }
    }
}

#[derive(Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    length: usize,
}

/// Where the links of a slot are.
pub(super) trait Linked {
    fn links(&mut self, slot: u32) -> &mut Links;
}

impl Default for List {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
            length: 0,
        }
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn push(&mut self, slots: &mut impl Linked, slot: u32) {
        *slots.links(slot) = Links {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = slot,
            last => slots.links(last).next = slot,
        }
        self.last = slot;
        self.length += 1;
    }

    pub(super) fn remove(&mut self, slots: &mut impl Linked, slot: u32) {
        let Links { previous, next } = std::mem::take(slots.links(slot));
        match previous {
            NONE => self.first = next,
            previous => slots.links(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => slots.links(next).previous = previous,
        }
        self.length -= 1;
    }

    pub(super) fn next(slots: &mut impl Linked, slot: u32) -> Option<u32> {
        let next = slots.links(slot).next;
        (next != NONE).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked for Vec<Links> {
        fn links(&mut self, slot: u32) -> &mut Links {
            &mut self[slot as usize]
        }
    }

    #[test]
    fn slots_leave_from_anywhere() {
        let mut slots = vec![Links::default(); 4];
        let mut list = List::default();
        let shown = |list: &mut List, slots: &mut Vec<Links>| {
            let mut at = list.first();
            let mut shown = Vec::new();
            while let Some(slot) = at {
                shown.push(slot);
                at = List::next(slots, slot);
            }
            assert_eq!(shown.len(), list.len());
            shown
        };
        for slot in 0..4 {
            list.push(&mut slots, slot);
        }
        assert_eq!(shown(&mut list, &mut slots), [0, 1, 2, 3]);
        for (slot, left) in [(1, vec![0, 2, 3]), (3, vec![0, 2]), (0, vec![2])] {
            list.remove(&mut slots, slot);
            assert_eq!(shown(&mut list, &mut slots), left);
        }
        list.push(&mut slots, 1);
        assert_eq!(shown(&mut list, &mut slots), [2, 1]);
        list.remove(&mut slots, 1);
        list.remove(&mut slots, 2);
        assert_eq!(shown(&mut list, &mut slots), [0_u32; 0]);
    }
}
