//! The table of a node's groups. They are opened into it, found in it, told to stop, and end with
//! the node. The loop in [`turns`](super::turns) gives them their turns.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use quorate_rt::TaskError;
use quorate_rt::channel::watch;

use super::delays::Delays;
use super::group::{Ends, Opened, Turns, bug};
use super::ready::{Ready, Slot};
use crate::config::Config;
use crate::error::{Fatal, StartError};
use crate::message::NODE_GROUP;
use crate::state_machine::StateMachine;
use crate::types::GroupId;

/// The slot of the [liveness](super::liveness) of nodes, which is no group.
pub(super) const OF_LIVENESS: Slot = 0;

/// The slot of the [tasks that were answered](super::wakes), which are no group either. Its turn is
/// any turn of the node.
pub(super) const OF_WAKES: Slot = 1;

/// The slot of the handles that [shut the node down](crate::Raft::shutdown), which are no group.
/// Its turn tells all groups to stop.
pub(super) const OF_SHUTDOWN: Slot = 2;

/// The groups of a node.
pub(super) struct Groups {
    pub(super) ready: Rc<Ready>,
    pub(super) delays: Rc<Delays>,
    /// Those that are open, or being opened or removed.
    table: RefCell<BTreeMap<GroupId, TableEntry>>,
    /// The groups by their slots. One is taken out for its turn.
    turns: RefCell<Vec<Option<Box<dyn Turns>>>>,
    free: RefCell<Vec<Slot>>,
    /// The settings of the group that was opened last.
    config: RefCell<Arc<Config>>,
    /// The node was told to stop: no group is opened any more, and it ends with the last one.
    is_stopping: Cell<bool>,
    /// Why the first group failed that failed while the node was stopping.
    failed: OnceCell<Fatal>,
    /// How the node has ended, once it has.
    ended: OnceCell<Result<(), Fatal>>,
    /// How many groups have left the table.
    left: watch::Sender<u64>,
}

/// A group in the table.
struct TableEntry {
    slot: Slot,
    /// None while it is being opened or removed.
    open: Option<Open>,
}

struct Open {
    ends: Rc<dyn Ends>,
    /// Its mailbox, of whatever state machine.
    mailbox: Rc<dyn Any>,
}

/// A place in the table, which no other group gets. Without [`open`](Self::open) it is given back.
pub(super) struct Reservation<'a> {
    groups: &'a Groups,
    group: GroupId,
    pub(super) slot: Slot,
    is_open: bool,
}

impl Reservation<'_> {
    /// The group is open: from now on it has turns.
    ///
    /// # Errors
    /// The node has ended meanwhile.
    pub(super) fn open<SM: StateMachine>(mut self, opened: Opened<SM>) -> Result<(), StartError> {
        let Opened { mailbox, turns, ends } = opened;
        if let Err(ended) = self.groups.check_running() {
            drop(turns);
            ends.end(Err(Fatal::Dropped)); // Nobody has a handle of it.
            return Err(ended);
        }
        self.is_open = true;
        self.groups.turns.borrow_mut()[self.slot] = Some(turns);
        if self.groups.is_stopping.get() {
            ends.stop();
        }
        let entry = TableEntry { slot: self.slot, open: Some(Open { ends, mailbox }) };
        self.groups.table.borrow_mut().insert(self.group, entry);
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            self.groups.leave(self.group);
        }
    }
}

impl Groups {
    /// An empty table. Its first slots are for what is no group.
    pub(super) fn new(delays: Delays) -> Self {
        Self {
            ready: Rc::default(),
            delays: Rc::new(delays),
            table: RefCell::default(),
            turns: RefCell::new(vec![None, None, None]),
            free: RefCell::default(),
            config: RefCell::default(),
            is_stopping: Cell::new(false),
            failed: OnceCell::new(),
            ended: OnceCell::new(),
            left: watch::channel(0).0,
        }
    }

    /// Takes a place in the table for a group that is to be opened or removed.
    ///
    /// # Errors
    /// It is in the table already, or the node is stopping or has ended.
    pub(super) fn reserve(&self, group: GroupId) -> Result<Reservation<'_>, StartError> {
        self.check_running()?;
        if group == NODE_GROUP {
            return Err(StartError::GroupId);
        }
        if self.is_stopping.get() {
            return Err(StartError::Shutdown);
        }
        let table = &mut *self.table.borrow_mut();
        if table.contains_key(&group) {
            return Err(StartError::GroupIsOpen(group));
        }
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let turns = &mut *self.turns.borrow_mut();
            turns.push(None);
            turns.len() - 1
        });
        table.insert(group, TableEntry { slot, open: None });
        Ok(Reservation { groups: self, group, slot, is_open: false })
    }

    fn check_running(&self) -> Result<(), StartError> {
        match self.ended.get() {
            None => Ok(()),
            Some(Ok(())) => Err(StartError::Shutdown),
            Some(Err(fatal)) => Err(StartError::Fatal(fatal.clone())),
        }
    }

    /// The settings of a group that is opened. Mostly all groups have the same, and share them.
    pub(super) fn share(&self, config: Config) -> Arc<Config> {
        let mut last = self.config.borrow_mut();
        if **last != config {
            *last = Arc::new(config);
        }
        Arc::clone(&last)
    }

    /// The ids of the groups that are open.
    pub(super) fn ids(&self) -> Vec<GroupId> {
        let table = self.table.borrow();
        table.iter().filter(|(_, entry)| entry.open.is_some()).map(|(group, _)| *group).collect()
    }

    /// The mailbox of a group, if it is open.
    pub(super) fn mailbox(&self, group: GroupId) -> Option<Rc<dyn Any>> {
        Some(Rc::clone(&self.table.borrow().get(&group)?.open.as_ref()?.mailbox))
    }

    /// Whether a group is open, and not only about to be opened or removed.
    pub(super) fn is_open(&self, group: GroupId) -> bool {
        self.table.borrow().get(&group).is_some_and(|entry| entry.open.is_some())
    }

    fn ends(&self, group: GroupId) -> Option<Rc<dyn Ends>> {
        Some(Rc::clone(&self.table.borrow().get(&group)?.open.as_ref()?.ends))
    }

    /// Tells a group to stop in order, if it is open.
    pub(super) fn stop_group(&self, group: GroupId) {
        let ends = self.ends(group);
        ends.into_iter().for_each(|ends| ends.stop());
    }

    /// Waits until a group is not in the table.
    pub(super) async fn until_gone(&self, group: GroupId) {
        let mut left = self.left.subscribe();
        while self.table.borrow().contains_key(&group) && left.changed().await.is_ok() {}
    }

    /// Tells all groups to stop in order, and the loop to end after the last one.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
        self.ids().into_iter().for_each(|group| self.stop_group(group));
        self.ready.raise();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// What has come of stopping, once all groups have stopped.
    pub(super) fn stopped(&self) -> Option<Result<(), Fatal>> {
        let has_stopped = self.is_stopping.get() && self.table.borrow().is_empty();
        has_stopped.then(|| self.failed.get().map_or(Ok(()), |fatal| Err(fatal.clone())))
    }

    /// Takes a group out for its turn; none if there is none in this slot.
    pub(super) fn take(&self, slot: Slot) -> Option<Box<dyn Turns>> {
        self.turns.borrow_mut().get_mut(slot)?.take()
    }

    /// The turn of a group is over, and it goes on.
    pub(super) fn put_back(&self, slot: Slot, turns: Box<dyn Turns>) {
        self.turns.borrow_mut()[slot] = Some(turns);
    }

    /// A group has ended by itself.
    ///
    /// # Errors
    /// Something that was called has panicked.
    pub(super) fn end_group(
        &self,
        turns: Box<dyn Turns>,
        outcome: Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let group = turns.group();
        if self.is_stopping.get()
            && let Err(fatal) = &outcome
        {
            let _ = self.failed.set(fatal.clone());
        }
        let ends = self.ends(group);
        // What is called here is not the node's own.
        let ended = caught(|| {
            drop(turns);
            if let Some(ends) = ends {
                ends.end(outcome);
            }
        });
        self.leave(group);
        ended
    }

    fn leave(&self, group: GroupId) {
        if let Some(entry) = self.table.borrow_mut().remove(&group) {
            self.free.borrow_mut().push(entry.slot);
        }
        self.left.send_modify(|left| *left += 1);
        self.ready.raise(); // The node may have waited for the last one.
    }

    /// The node has come to this, and all groups that are left with it.
    ///
    /// # Errors
    /// Something that was called has panicked.
    pub(super) fn end(&self, outcome: &Result<(), Fatal>) -> Result<(), Fatal> {
        match self.ended.set(outcome.clone()) {
            Ok(()) => self.close(|ends| ends.end(outcome.clone())),
            Err(_) => Ok(()),
        }
    }

    /// The node is dropped, and all its groups with it.
    pub(super) fn abandon(&self) {
        let _ = self.end(&Err(Fatal::Dropped)); // Nobody could be told of a panic.
    }

    fn close(&self, close: impl Fn(&dyn Ends)) -> Result<(), Fatal> {
        // Out of the cells first: what is called may come back here. The turns go before anybody is
        // told, as whoever is told may open the groups again.
        let turns = self.turns.take();
        let mut closed = caught(|| drop(turns));
        let table = self.table.take();
        for open in table.into_values().filter_map(|entry| entry.open) {
            let ended = caught(|| close(&*open.ends));
            closed = closed.and(ended);
        }
        self.left.send_modify(|left| *left += 1);
        self.ready.raise();
        closed.and(caught(|| self.ready.wakes.close()))
    }
}

fn caught(call: impl FnOnce()) -> Result<(), Fatal> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| bug(TaskError::from_panic(panic)))
}
