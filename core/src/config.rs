//! The settings of a group on one of its nodes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{
    APPEND_OVERHEAD_BYTES, FORWARD_OVERHEAD_BYTES, MAX_SNAPSHOT_OVERHEAD_BYTES, max_append_bytes,
};
use crate::error::ConfigError;
use crate::transport::MessageLimit;
use crate::types::Entry;

/// The settings of a group on one of its nodes: see [`GroupBuilder::config`]. A group should have
/// the same on all of its nodes. Groups of a node may differ. The defaults suit a local network.
///
/// # While the group runs
/// [`Raft::configure`](crate::Raft::configure) changes all of them, on one node, at once. Do it on
/// one node after the other. For longer timeouts, lengthen `election_timeout` on all nodes first,
/// and then `heartbeat_interval`; for shorter ones begin with `heartbeat_interval`. Otherwise nodes
/// miss a leader that is there, and hold an election. A leader's settings count for the limits of
/// its log; raise what bounds a message on all nodes before a larger command is written.
///
/// # In a file
/// Serde reads and writes settings. A field that is missing has its default, and an unknown one is
/// an error. Durations are text with a unit, as `"250ms"`, `"1s"` or `"1m 30s"`. Whether the values
/// can work is checked by [`validate`](Self::validate), and whenever they are used.
///
/// ```toml
/// heartbeat_interval = "250ms"
/// election_timeout = "2500ms"
/// snapshot_after_entries = 100_000
/// ```
///
/// # With many groups
/// All limits count for one group on one node, and none for the node as a whole. The defaults let
/// 64 groups of a node hold, in the worst case:
///
/// | setting | 64 groups may hold |
/// | --- | --- |
/// | [`max_queued_bytes`](Self::max_queued_bytes) | 8 GiB of memory |
/// | [`max_uncommitted_bytes`](Self::max_uncommitted_bytes) | 4 GiB of log, if all lead here |
/// | [`max_inflight_bytes`](Self::max_inflight_bytes) | 512 MiB of memory for each peer |
/// | [`max_pending_reads`](Self::max_pending_reads) | 6.4 million reads |
/// | [`snapshot_after_bytes`](Self::snapshot_after_bytes) | 16 GiB of log before a snapshot |
/// | [`max_retained_bytes`](Self::max_retained_bytes) | 256 GiB of log behind snapshots |
///
/// To bound a node as a whole, divide what it may hold by the number of its groups. For memory,
/// lower `max_queued_bytes` and `max_uncommitted_bytes` first. Neither can be less than the largest
/// command takes, so lower `max_command_bytes` with them. For disk space, lower
/// `max_retained_bytes` and `snapshot_after_bytes`. What waits for a peer in the TCP transport is
/// bounded there, for all groups together.
///
/// [`GroupBuilder::config`]: crate::GroupBuilder::config
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often an idle leader lets its followers hear of it, and a candidate repeats a request
    /// that gets no answer; default 100 ms. It bounds how long a lost message goes unnoticed. Too
    /// short: idle nodes burn CPU and small delays count. Too long: a lost append waits, and the
    /// election timeout must be longer still.
    #[serde(with = "crate::text::duration")]
    pub heartbeat_interval: Duration,

    /// How long a follower waits for a leader before it campaigns; each wait is drawn from this to
    /// a tenth more. Default 1 s. Also how long a leader goes on without hearing from a quorum
    /// (check-quorum), and how long a node that has heard from a leader refuses others its vote.
    /// Too short: a pause of the leader, or of its disk, costs an election. Too long: writes wait
    /// that long after a leader's death. At least three heartbeat intervals. Whether another node
    /// is alive, which groups at rest count on, is judged once for all groups: with the shortest
    /// heartbeat interval and the longest election timeout of a node's open groups. So one group
    /// with a long timeout makes all groups at rest notice a dead node late.
    #[serde(with = "crate::text::duration")]
    pub election_timeout: Duration,

    /// How far the time stamps of one leadership may run ahead of the leader's monotonic clock when
    /// its wall clock is set forward, in all; default 1 s. Beyond it stamps go on at the pace of
    /// the monotonic clock, until the wall clock is no longer ahead or another leadership begins.
    /// Too short: when a slow wall clock is corrected, stamps lag behind the right time for the
    /// rest of the leadership; time synchronization rarely steps a running clock by as much as a
    /// second. Too long: a clock that is set wrong lets things expire early by that much. It does
    /// not bound the first stamp of a leadership, which is the wall clock of the new leader. At
    /// least 1 ms, the unit of stamps, and at most an hour.
    #[serde(with = "crate::text::duration")]
    pub max_clock_step: Duration,

    /// The deadline for each phase of a request; default 3 s. A write or a read waits so long for a
    /// leader to be known, and a write for room on the way to it; once passed on, for the leader's
    /// answer; and then while the commit index stands still. A read whose leader is gone before it
    /// has answered goes to the next leader. After the time a request is refused, except that the
    /// outcome of a write that was passed on or placed is unknown. Too short: an election fails
    /// what could have succeeded right after. Too long: clients of a cluster without a majority
    /// wait in vain. A write that was on its way to a leader that froze or was killed is answered
    /// half an election timeout after the next leader is known, if that is earlier. At least one
    /// election timeout.
    #[serde(with = "crate::text::duration")]
    pub request_timeout: Duration,

    /// The largest command, in bytes as encoded; default 16 MiB. A larger one is refused, by the
    /// node whose client has it and by the leader that it is passed on to. At most 1 GiB, and with
    /// 173 bytes more at most what the [transport](crate::Transport::message_limit) carries.
    pub max_command_bytes: usize,

    /// The entries in one message to a peer, in bytes; default 1 MiB. One entry may always go,
    /// whatever its size. It also bounds the chunks of snapshots. Too small: a peer that is behind
    /// catches up slowly. Too large: a heartbeat waits behind it on the wire. With 111,405 bytes
    /// more, for a configuration in front of a chunk, at most what the
    /// [transport](crate::Transport::message_limit) carries.
    pub max_append_bytes: usize,

    /// What a leader has sent to one peer and not yet got acknowledged, in bytes; default 8 MiB. At
    /// the limit the peer gets heartbeats only; one entry may exceed it. It also bounds what a
    /// follower has passed on to the leader and not got answered: at the limit further writes wait;
    /// one command may always go. Too small: the connection idles between acknowledgements (it
    /// should hold bandwidth × round trip, with the peer's fsync in it). Too large: a slow peer
    /// costs that much memory, and what exceeds the transport's own limit is dropped and sent
    /// again. At least `max_append_bytes`.
    pub max_inflight_bytes: usize,

    /// What a leader has in its log beyond the commit index, in bytes; default 64 MiB. At the limit
    /// a write gets `Busy`. Too small: writes are refused under bursts. Too large: so much may be
    /// lost with a leader that has lost its quorum, after its clients waited in vain. At least
    /// `max_command_bytes` and [`Entry::OVERHEAD_BYTES`].
    pub max_uncommitted_bytes: usize,

    /// The commands that the handles of a group have queued on this node and that have not been
    /// answered, in bytes; default 128 MiB. At the limit a write gets `Busy`. Too small: writes are
    /// refused under bursts. Too large: memory. At least `max_command_bytes` and
    /// [`Entry::OVERHEAD_BYTES`].
    pub max_queued_bytes: usize,

    /// The entries handed to the state machine in one batch, in bytes; default 1 MiB. One entry may
    /// always go. Too small: the batch's fixed cost per entry. Too large: reads wait behind it.
    pub max_apply_bytes: usize,

    /// A snapshot is taken when the entries applied since the last one take more than this, in
    /// bytes; default 256 MiB. Too small: the state is written again and again. Too large: a
    /// restart replays for long, and the log takes much space. At least 1.
    pub snapshot_after_bytes: u64,

    /// … or are more than this; default 1,000,000. At least 1.
    pub snapshot_after_entries: u64,

    /// Of the log behind a snapshot so many bytes are kept, for peers that are a little behind;
    /// default 16 MiB. Too small: a peer that was away for a moment gets a whole snapshot. Too
    /// large: disk space.
    pub retained_bytes: u64,

    /// A leader keeps what the peers that are there still need of its log, and what follows on a
    /// snapshot that it is sending, up to so many bytes behind its newest snapshot; default 4 GiB.
    /// Too small: a slow transfer is out of date when it ends, and has to be followed by another.
    /// Too large: disk space. At least `retained_bytes`.
    pub max_retained_bytes: u64,

    /// Whether the leader lets the empty disk of a node in for one that has been silent for ten
    /// election timeouts; default true. Without it a lost disk leaves the group with one replica
    /// less.
    pub replace_lost_disks: bool,

    /// Whether this node campaigns when it has had no leader for an election timeout; default true.
    /// Without it, it follows and votes, and leads only if it is told to: by a
    /// [transfer](crate::Raft::transfer_leadership) or by
    /// [`Raft::campaign`](crate::Raft::campaign).
    /// If no voter of a majority campaigns, a group that has lost its leader stays without one. The
    /// node that forms a group campaigns until that is done.
    pub elections: bool,

    /// Whether this node sends heartbeats as a leader; default true. Without it the group does not
    /// rest, and a leader that has nothing else to send loses its leadership after an election
    /// timeout; what is lost on the way is not sent again. It is for tests, which make a leader
    /// fall silent by it.
    pub heartbeats: bool,

    /// Whether this node asks the others before it campaigns (pre-vote); default true. Without it a
    /// node that was cut off raises the term in vain, which costs the leader its leadership when
    /// the node is back, and two candidates at once may share the votes.
    pub pre_vote: bool,

    /// The reads that wait for a confirmation, for the state machine, or for their turn; default
    /// 100,000. At the limit a read gets `Busy`.
    pub max_pending_reads: usize,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            max_clock_step: Duration::from_secs(1),
            request_timeout: Duration::from_secs(3),
            max_command_bytes: 16 * MIB,
            max_append_bytes: MIB,
            max_inflight_bytes: 8 * MIB,
            max_uncommitted_bytes: 64 * MIB,
            max_queued_bytes: 128 * MIB,
            max_apply_bytes: MIB,
            snapshot_after_bytes: 256 * MIB as u64,
            snapshot_after_entries: 1_000_000,
            retained_bytes: 16 * MIB as u64,
            max_retained_bytes: 4096 * MIB as u64,
            replace_lost_disks: true,
            elections: true,
            heartbeats: true,
            pre_vote: true,
            max_pending_reads: 100_000,
        }
    }
}

impl Config {
    /// Checks that the values can work, alone and together.
    ///
    /// Errors: the first field that can't, by its name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |good: bool, field: &'static str, reason: &str| {
            if good { Ok(()) } else { Err(ConfigError { field, reason: reason.to_owned() }) }
        };
        const LONGEST: Duration = Duration::from_secs(3600);
        check(
            self.heartbeat_interval >= Duration::from_millis(1),
            "heartbeat_interval",
            "must be at least 1 ms",
        )?;
        check(
            self.election_timeout >= self.heartbeat_interval.saturating_mul(3),
            "election_timeout",
            "must be at least three heartbeat intervals",
        )?;
        check(self.election_timeout <= LONGEST, "election_timeout", "must be at most an hour")?;
        check(
            self.max_clock_step >= Duration::from_millis(1),
            "max_clock_step",
            "must be at least 1 ms",
        )?;
        check(self.max_clock_step <= LONGEST, "max_clock_step", "must be at most an hour")?;
        check(
            self.request_timeout >= self.election_timeout,
            "request_timeout",
            "must be at least one election timeout",
        )?;
        check(self.request_timeout <= LONGEST, "request_timeout", "must be at most an hour")?;
        check(self.max_command_bytes > 0, "max_command_bytes", "must not be 0")?;
        check(self.max_command_bytes <= 1 << 30, "max_command_bytes", "must be at most 1 GiB")?;
        check(self.max_append_bytes > 0, "max_append_bytes", "must not be 0")?;
        check(self.max_append_bytes <= 1 << 30, "max_append_bytes", "must be at most 1 GiB")?;
        check(
            self.max_inflight_bytes >= self.max_append_bytes,
            "max_inflight_bytes",
            "must be at least max_append_bytes",
        )?;
        // Otherwise the largest command would be `Busy` for ever.
        let largest = self.max_command_bytes + Entry::OVERHEAD_BYTES;
        check(
            self.max_uncommitted_bytes >= largest,
            "max_uncommitted_bytes",
            "must be at least max_command_bytes and 64 more",
        )?;
        check(
            self.max_queued_bytes >= largest,
            "max_queued_bytes",
            "must be at least max_command_bytes and 64 more",
        )?;
        check(self.max_apply_bytes > 0, "max_apply_bytes", "must not be 0")?;
        check(self.snapshot_after_bytes > 0, "snapshot_after_bytes", "must not be 0")?;
        check(self.snapshot_after_entries > 0, "snapshot_after_entries", "must not be 0")?;
        check(
            self.max_retained_bytes >= self.retained_bytes,
            "max_retained_bytes",
            "must be at least retained_bytes",
        )?;
        check(self.max_pending_reads > 0, "max_pending_reads", "must not be 0")
    }

    /// Checks that a transport with this limit carries all that these settings allow: what could be
    /// proposed and never be carried would stop replication for good (R19).
    ///
    /// # Errors
    /// The field that allows too much, with the transport's setting and what to set.
    pub(crate) fn check_carried(&self, limit: MessageLimit) -> Result<(), ConfigError> {
        let Self { max_command_bytes: command, max_append_bytes: append, .. } = *self;
        let messages = [
            (
                "max_command_bytes",
                "an append of one command",
                command,
                command + APPEND_OVERHEAD_BYTES,
            ),
            (
                "max_command_bytes",
                "a forward of one command",
                command,
                command + FORWARD_OVERHEAD_BYTES,
            ),
            ("max_append_bytes", "an append of entries", append, max_append_bytes(append)),
            (
                "max_append_bytes",
                "a chunk of a snapshot",
                append,
                append + MAX_SNAPSHOT_OVERHEAD_BYTES,
            ),
        ];
        let MessageLimit { bytes, setting } = limit;
        let largest = messages.into_iter().max_by_key(|(.., needs)| *needs);
        let Some((field, what, value, needs)) = largest.filter(|(.., needs)| *needs > bytes) else {
            return Ok(());
        };
        let most = match bytes.saturating_sub(needs - value) {
            0 => String::new(),
            most => format!("set it to at most {most}, or "),
        };
        let reason = format!(
            "it is {value}, so that {what} may take {needs} bytes, and {setting} lets the transport carry {bytes}: {most}set {setting} to at least {needs}"
        );
        Err(ConfigError { field, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    /// The field that the error names, with this change to the defaults.
    fn refused(change: impl FnOnce(&mut Config)) -> &'static str {
        let mut config = Config::default();
        change(&mut config);
        config.validate().expect_err("it can't work").field
    }

    #[test]
    fn an_error_names_the_field() {
        assert_eq!(refused(|c| c.heartbeat_interval = Duration::ZERO), "heartbeat_interval");
        assert_eq!(refused(|c| c.heartbeat_interval = Duration::MAX), "election_timeout");
        let two = |c: &mut Config| c.election_timeout = 2 * c.heartbeat_interval;
        assert_eq!(refused(two), "election_timeout");
        let days = |c: &mut Config| {
            c.election_timeout = Duration::from_secs(86_400);
            c.request_timeout = Duration::from_secs(86_400);
        };
        assert_eq!(refused(days), "election_timeout");
        assert_eq!(refused(|c| c.max_clock_step = Duration::from_micros(999)), "max_clock_step");
        let over = |c: &mut Config| c.max_clock_step = Duration::from_secs(3_601);
        assert_eq!(refused(over), "max_clock_step");
        let short = |c: &mut Config| c.request_timeout = Duration::from_millis(999);
        assert_eq!(refused(short), "request_timeout");
        assert_eq!(refused(|c| c.request_timeout = Duration::MAX), "request_timeout");
        assert_eq!(refused(|c| c.max_command_bytes = 0), "max_command_bytes");
        assert_eq!(refused(|c| c.max_command_bytes = usize::MAX), "max_command_bytes");
        assert_eq!(refused(|c| c.max_append_bytes = 0), "max_append_bytes");
        assert_eq!(refused(|c| c.max_append_bytes = usize::MAX), "max_append_bytes");
        let narrow = |c: &mut Config| c.max_inflight_bytes = c.max_append_bytes - 1;
        assert_eq!(refused(narrow), "max_inflight_bytes");
        let narrow = |c: &mut Config| c.max_uncommitted_bytes = c.max_command_bytes + 63;
        assert_eq!(refused(narrow), "max_uncommitted_bytes");
        let narrow = |c: &mut Config| c.max_queued_bytes = c.max_command_bytes + 63;
        assert_eq!(refused(narrow), "max_queued_bytes");
        assert_eq!(refused(|c| c.max_apply_bytes = 0), "max_apply_bytes");
        assert_eq!(refused(|c| c.snapshot_after_bytes = 0), "snapshot_after_bytes");
        assert_eq!(refused(|c| c.snapshot_after_entries = 0), "snapshot_after_entries");
        let narrow = |c: &mut Config| c.max_retained_bytes = c.retained_bytes - 1;
        assert_eq!(refused(narrow), "max_retained_bytes");
        assert_eq!(refused(|c| c.max_pending_reads = 0), "max_pending_reads");
    }

    #[test]
    fn what_the_transport_cannot_carry_is_an_error_that_names_both_settings() {
        let small = Config { max_command_bytes: 1000, max_append_bytes: 1000, ..Config::default() };
        let carries = |config: &Config, bytes| {
            let error = config.check_carried(MessageLimit { bytes, setting: "max_frame" }).err()?;
            assert!(error.reason.contains("max_frame"), "{error}");
            Some((error.field, error.reason))
        };
        let chunk = 1000 + MAX_SNAPSHOT_OVERHEAD_BYTES;
        assert_eq!(carries(&small, chunk), None);
        let (field, reason) = carries(&small, chunk - 1).expect("no chunk of a snapshot fits");
        assert_eq!(field, "max_append_bytes");
        assert!(reason.contains("set it to at most 999, or set max_frame to at least"), "{reason}");
        let (field, reason) = carries(&small, 100).expect("no chunk of a snapshot fits");
        assert_eq!(field, "max_append_bytes");
        assert!(!reason.contains("at most"), "no value is small enough: {reason}");

        let large = Config { max_command_bytes: 200_000, ..small };
        let append = 200_000 + APPEND_OVERHEAD_BYTES;
        assert_eq!(carries(&large, append), None);
        let (field, reason) = carries(&large, append - 1).expect("no append fits");
        assert_eq!(field, "max_command_bytes");
        assert!(reason.contains("set it to at most 199999,"), "{reason}");
        assert_eq!(carries(&Config::default(), 64 << 20), None, "the default of TCP");
    }
}
