//! What has happened: a hash over all of it, how often each kind, and, if asked for, the last of
//! it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::host::HostId;

/// How much of the past is kept, if it is kept.
const RECENT: usize = 4096;

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When, from the begin of the simulation.
    pub at: Duration,
    /// To whom; none where it concerns no host, or all of them.
    pub host: Option<HostId>,
    /// What.
    pub what: &'static str,
    /// More of it, by its kind: a number of bytes, of a task, …
    pub detail: u64,
    /// And more: the CRC of a content, another host, …
    pub more: u64,
}

#[derive(Default)]
pub(crate) struct Trace {
    hash: Cell<u64>,
    events: Cell<u64>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    /// None if it is not kept.
    recent: RefCell<Option<VecDeque<Happened>>>,
}

impl Trace {
    /// Takes note of something.
    pub(crate) fn note(
        &self,
        now: u64,
        host: Option<HostId>,
        what: &'static str,
        detail: u64,
        more: u64,
    ) {
        self.events.set(self.events.get() + 1);
        let mut hash = self.hash.get();
        let host_number = host.map_or(u64::MAX, |host| host.0 as u64);
        let kind = what.bytes().fold(0u64, |kind, byte| kind.rotate_left(7) ^ u64::from(byte));
        for part in [now, host_number ^ kind << 16, detail, more] {
            hash = mix(hash, part);
        }
        self.hash.set(hash);
        if let Some(recent) = &mut *self.recent.borrow_mut() {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            let at = Duration::from_nanos(now);
            recent.push_back(Happened { at, host, what, detail, more });
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn hash(&self) -> u64 {
        mix(self.hash.get(), self.events.get())
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.get()
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.borrow().clone()
    }

    pub(crate) fn keep(&self) {
        self.recent.borrow_mut().get_or_insert_default();
    }

    pub(crate) fn recent(&self) -> Vec<Happened> {
        self.recent.borrow().iter().flatten().copied().collect()
    }
}

/// A step of a hash in the manner of FxHash: fast, and good enough to tell two runs apart.
fn mix(hash: u64, part: u64) -> u64 {
    (hash.rotate_left(5) ^ part).wrapping_mul(0x517C_C1B7_2722_0A95)
}
