//! The turns of a node whose groups take long.

use std::cell::RefCell;
use std::pin::pin;

use futures::FutureExt;
use quorate_rt::testing::Memory;

use super::*;
use crate::node::delays::Delays;
use crate::node::group::Turns;
use crate::types::GroupId;

/// A group whose turns take two fifths of what one of the node may take.
struct Slow {
    rt: Memory,
    slot: Slot,
    turns: Rc<RefCell<Vec<Slot>>>,
}

impl Turns for Slow {
    fn turn(&mut self, _: Instant, _: &mut Option<Box<Output>>) -> Result<bool, Fatal> {
        self.rt.pass(MAX_TURN * 2 / 5);
        self.turns.borrow_mut().push(self.slot);
        Ok(false)
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn group(&self) -> GroupId {
        self.slot as GroupId
    }
}

#[test]
fn a_turn_ends_after_its_time_and_the_groups_that_are_left_come_next() {
    let rt = Memory::default();
    let groups = Rc::new(Groups::new(Delays::new(Instant::default)));
    let had = Rc::<RefCell<Vec<Slot>>>::default();
    let reservations: Vec<_> = (0..10).map(|group| groups.reserve(group).unwrap()).collect();
    for reservation in &reservations {
        let slot = reservation.slot;
        let turns = Rc::clone(&had);
        groups.put_back(slot, Box::new(Slow { rt: rt.clone(), slot, turns }));
        groups.ready.add(slot);
    }
    let first = reservations[0].slot;
    let mut turns = pin!(Loop::new(rt, Rc::clone(&groups)).run());
    let mut of_one_poll = || {
        assert!(turns.as_mut().now_or_never().is_none(), "the node goes on");
        had.take().into_iter().map(|slot| slot - first).collect::<Vec<_>>()
    };
    assert_eq!(of_one_poll(), [0, 1, 2, 3], "then others on the thread have their part");
    groups.ready.add(first);
    assert_eq!(of_one_poll(), [4, 5, 6, 7]);
    assert_eq!(of_one_poll(), [8, 9, 0], "whoever has had a turn waits for the others");
    assert!(of_one_poll().is_empty());
}
