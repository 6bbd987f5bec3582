//! Entries on the disk that others have replaced which are not there yet.
//!
//! Nobody reads them any more. But if the process ends now, the log on the disk is still the one
//! with them, and it must have no hole. So their segments stay until those others are durable, or
//! are waiting for space no more: see [`State::move_begin`](crate::state::State::move_begin).

use quorate_core::{GroupId, Index};

use crate::format::Position;

#[derive(Debug)]
struct Pin {
    group: GroupId,
    segment: u32,
    /// The last of them in this segment. Once it is purged, they are of no use.
    last: Index,
    /// The end of the write that has replaced them.
    until: Position,
}

#[derive(Debug, Default)]
pub(crate) struct Pins(Vec<Pin>);

impl Pins {
    /// These segments are needed until the write is durable that ends at `until`, each up to an
    /// entry of the group.
    pub(crate) fn add(
        &mut self,
        group: GroupId,
        segments: impl IntoIterator<Item = (u32, Index)>,
        until: Position,
    ) {
        let pin = |(segment, last)| Pin { group, segment, last, until };
        self.0.extend(segments.into_iter().map(pin));
    }

    /// The log's record that ended at `from` ends at `to` now.
    pub(crate) fn move_to(&mut self, from: Position, to: Position) {
        for pin in self.0.iter_mut().filter(|pin| pin.until == from) {
            pin.until = to;
        }
    }

    /// The log is durable up to there.
    pub(crate) fn release(&mut self, durable: Position) {
        self.0.retain(|pin| pin.until > durable);
    }

    /// The first segment that is needed, where the groups' logs are purged up to there.
    pub(crate) fn first(&self, purged: impl Fn(GroupId) -> Index) -> Option<u32> {
        let needed = self.0.iter().filter(|pin| pin.last > purged(pin.group));
        needed.map(|pin| pin.segment).min()
    }
}
