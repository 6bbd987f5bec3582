//! A snapshot on its way from a leader to a follower that its log can't help any more (5.3): both
//! ends of it.
//!
//! The leader *offers* it, the follower answers how much of it it has, and from there on the leader
//! sends chunks in a window of limited size. So a transfer that broke goes on where it broke,
//! whatever got lost; and the first chunk of another snapshot is the only one that begins another
//! transfer (S3). Chunks that come twice, late or out of order are not taken.

use bytes::Bytes;
use quorate_rt::Instant;

use super::{Common, ReadChunk, ReceiveStep};
use crate::config::Config;
use crate::identity::Replica;
use crate::message::Body;
use crate::plant;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::Index;

/// The leader's end.
#[derive(Debug)]
pub(super) struct OutgoingSnapshot {
    pub(super) meta: SnapshotMeta,
    /// So much the peer has written.
    pub(super) stored: u64,
    /// Up to here chunks were sent.
    sent: u64,
    /// From here on they were sent again.
    repeated: Option<u64>,
    state: State,
    /// A chunk is being read.
    reading: bool,
    /// Then the offer is repeated, if the peer has not got on.
    pub(super) offer_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is not known what the peer has: an offer is out.
    Offered,
    /// Chunks are sent.
    Streaming,
    /// The peer has lost what it had: its disk is full, or it was started again. After a pause it
    /// gets another offer.
    Resting,
}

impl OutgoingSnapshot {
    /// Begins, with an offer that is due at once.
    pub(super) fn new(meta: SnapshotMeta, now: Instant) -> Self {
        Self {
            meta,
            stored: 0,
            sent: 0,
            repeated: None,
            state: State::Resting,
            reading: false,
            offer_at: now,
        }
    }

    /// Offers, or asks for the next chunk to be read, where that is due.
    pub(super) fn advance(&mut self, common: &mut Common, peer: Replica) {
        if common.now >= self.offer_at {
            self.offer(common, peer);
        }
        let Config { max_append_bytes, max_inflight_bytes, .. } = *common.config;
        let room = (max_inflight_bytes as u64).saturating_sub(self.sent - self.stored);
        let len = room.min(max_append_bytes as u64).min(self.meta.bytes - self.sent);
        if self.state == State::Streaming && !self.reading && len > 0 {
            self.reading = true;
            let (meta, offset, len) = (self.meta.clone(), self.sent, len as usize);
            common.out.rare().chunks.push(ReadChunk { peer, meta, offset, len });
        }
    }

    fn offer(&mut self, common: &mut Common, peer: Replica) {
        // Nothing is lost by taking another one where this has got nowhere; and where the log does
        // not reach back to it any more, it would have to be followed by another. Else it goes on,
        // however long the peer was away.
        let is_useless = self.meta.log_id.index < common.log.purged().index;
        if (self.stored == 0 || is_useless)
            && let Some(newest) = common.log.snapshot()
        {
            self.meta = newest.clone();
            self.stored = 0;
        }
        self.sent = self.stored;
        self.repeated = None;
        self.state = State::Offered;
        self.offer_at = common.now + common.config.election_timeout;
        let (meta, chunk) = (Box::new(self.meta.clone()), Bytes::new());
        common.send(peer, Body::Snapshot { meta, offset: 0, chunk });
    }

    /// A chunk has been read.
    pub(super) fn read(
        &mut self,
        common: &mut Common,
        peer: Replica,
        digest: Digest,
        offset: u64,
        chunk: Bytes,
    ) {
        self.reading = false;
        // Meanwhile the peer may have turned out to need another.
        let wanted = self.state == State::Streaming && self.meta.digest == digest;
        if wanted && chunk.is_empty() {
            // It is there no more: the newest is offered, at once.
            (self.stored, self.sent, self.state) = (0, 0, State::Resting);
            self.offer_at = common.now;
        } else if wanted && self.sent == offset {
            self.sent += chunk.len() as u64;
            assert!(self.sent <= self.meta.bytes, "a chunk beyond the end of a snapshot");
            let meta = Box::new(self.meta.clone());
            common.send(peer, Body::Snapshot { meta, offset, chunk });
        }
    }

    /// The peer has written so much.
    pub(super) fn on_reply(&mut self, common: &Common, digest: Digest, stored: u64) {
        if digest != self.meta.digest || stored > self.meta.bytes {
            return;
        }
        let again_at = common.now + common.config.election_timeout;
        match self.state {
            State::Offered => {
                self.state = State::Streaming;
                (self.stored, self.sent, self.offer_at) = (stored, stored, again_at);
            }
            State::Streaming if stored > self.stored => {
                self.stored = stored;
                self.sent = self.sent.max(stored);
                self.offer_at = again_at;
            }
            // An answer that was late says the same, but then the next ones say more, and what they
            // say is believed.
            State::Streaming if stored < self.stored => {
                self.state = State::Resting;
                (self.stored, self.sent, self.offer_at) = (stored, stored, again_at);
            }
            // A chunk came that it could not take: one before that is lost. What follows is refused
            // as well, so this counts once for a place; where it gets lost again, the next offer
            // helps. (And where nothing is stored, its disk may be full.)
            State::Streaming
                if stored > 0 && self.sent > stored && self.repeated != Some(stored) =>
            {
                (self.sent, self.repeated) = (stored, Some(stored));
            }
            // The answer to the next offer will tell.
            State::Streaming | State::Resting => {}
        }
    }
}

/// The follower's end.
#[derive(Debug)]
pub(super) struct IncomingSnapshot {
    meta: SnapshotMeta,
    /// So much was taken, without a gap …
    taken: u64,
    /// … and so much of it is written.
    stored: u64,
    /// All is written: now its digest is compared.
    ending: bool,
}

impl IncomingSnapshot {
    /// Whether all of it is here, so that it may take the place of the log at any moment.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }
}

impl Common {
    /// A chunk, or an offer, has come from the leader.
    pub(super) fn receive(
        &mut self,
        leader: Replica,
        meta: SnapshotMeta,
        offset: u64,
        chunk: Bytes,
    ) {
        let digest = meta.digest;
        if self.receiving.as_ref().is_none_or(|receiving| receiving.meta != meta) {
            if self.receiving.as_ref().is_some_and(|receiving| receiving.ending) {
                return; // It will be installed or lost in a moment, and the leader asks again.
            }
            let is_first = offset == 0;
            plant!(S3, is_first = true);
            if !is_first {
                self.send(leader, Body::SnapshotReply { digest, stored: 0 });
                return;
            }
            self.out.rare().receive_steps.push(ReceiveStep::Begin(digest));
            let begun = IncomingSnapshot { meta, taken: offset, stored: 0, ending: false };
            self.receiving = Some(Box::new(begun));
        }
        let Some(receiving) = &mut self.receiving else { return };
        let unwritten = receiving.taken - receiving.stored;
        let fits = unwritten <= self.config.max_inflight_bytes as u64;
        if !chunk.is_empty() && offset == receiving.taken && fits {
            receiving.taken += chunk.len() as u64;
            self.out.rare().receive_steps.push(ReceiveStep::Chunk(chunk));
        } else {
            let stored = receiving.stored;
            self.send(leader, Body::SnapshotReply { digest, stored });
        }
        self.end_if_whole();
    }

    /// So much has been written; the leader is told, if there is one.
    pub(super) fn chunk_stored(&mut self, leader: Option<Replica>, digest: Digest, stored: u64) {
        // Where the same snapshot has begun anew, this may speak of its earlier draft.
        let speaks_of =
            |r: &&mut Box<IncomingSnapshot>| r.meta.digest == digest && stored <= r.taken;
        let Some(receiving) = self.receiving.as_mut().filter(speaks_of) else { return };
        receiving.stored = receiving.stored.max(stored);
        if let Some(leader) = leader {
            self.send(leader, Body::SnapshotReply { digest, stored });
            // Without a leader this replica may come to lead itself. The next one's offer ends it.
            self.end_if_whole();
        }
    }

    fn end_if_whole(&mut self) {
        if let Some(receiving) = &mut self.receiving
            && receiving.stored == receiving.meta.bytes
            && !receiving.ending
        {
            receiving.ending = true;
            self.out.rare().receive_steps.push(ReceiveStep::End(receiving.meta.clone()));
        }
    }

    pub(super) fn snapshot_lost(&mut self, leader: Option<Replica>, digest: Digest) {
        let lost = self.receiving.take_if(|receiving| receiving.meta.digest == digest);
        if let (Some(_), Some(leader)) = (lost, leader) {
            self.send(leader, Body::SnapshotReply { digest, stored: 0 });
        }
    }

    /// A snapshot is whole and durable. Whether it takes the place of the log up to its end,
    /// because it covers more than is known to be committed here (S2).
    pub(super) fn snapshot_ready(&mut self, meta: SnapshotMeta) -> bool {
        let is_it =
            |receiving: &mut Box<IncomingSnapshot>| receiving.ending && receiving.meta == meta;
        let has_come = self.receiving.take_if(is_it).is_some();
        let covered = self.log.snapshot().map_or(0, |snapshot| snapshot.log_id.index);
        let (index, committed) = (meta.log_id.index, self.committed);
        plant!(S2, committed = if has_come { 0 } else { committed });
        // Another has overtaken it; or the log has, and though that is committed, not all of it may
        // have been applied, as what is purged must have been.
        if index <= covered || has_come && index <= committed {
            return false;
        }
        if index > committed && !has_come {
            return false; // Nobody waits for it any more.
        }
        if index <= committed {
            let ours = self.log.log_id(index);
            assert_eq!(ours, Some(meta.log_id), "a snapshot of what was never committed (S2)");
            self.log.name_snapshot(meta);
            return false;
        }
        tracing::info!(
            me = %self.me, at = %meta.log_id, bytes = meta.bytes,
            "a snapshot of the leader has taken the place of the log"
        );
        self.note_replaced();
        self.log.install(meta.clone(), self.committed);
        self.membership_changed();
        self.commit_to(index);
        self.out.rare().restore = Some(meta);
        true
    }

    /// Purges what the snapshot covers, but for the last `retained` bytes of it, and for what peers
    /// still need, which lies after `needed`: else one that has just got a snapshot would at once
    /// need the next (S5).
    pub(super) fn purge_behind_snapshot(&mut self, retained: u64, needed: Option<Index>) {
        let Some(snapshot) = self.log.snapshot() else { return };
        let covered = snapshot.log_id.index;
        let mut to = self.log.back_by(covered, retained);
        if let Some(needed) = needed {
            let least = self.log.back_by(covered, self.config.max_retained_bytes);
            to = to.min(needed.max(least));
        }
        self.log.purge(to);
    }
}
