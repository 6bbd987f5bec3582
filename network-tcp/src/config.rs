//! The settings of a transport, and its counters.

use std::time::Duration;

use quorate_core::{ConfigError, MAX_ADDRESS_BYTES};
use serde::{Deserialize, Serialize};

use crate::list::HostPort;

/// The settings of a transport. All nodes of a cluster should have the same limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// The largest message, in bytes as encoded; default 64 MiB. It must hold what the nodes'
    /// `Config` allows: one command of `max_command_bytes`, or `max_append_bytes` of entries, and
    /// 110 KiB more for the configuration that goes with a chunk of a snapshot. A node checks that
    /// when it starts. Too small: a larger message never arrives, and replication stops at
    /// it. Too large: so much memory may one connection take. 1 KiB to 2 GiB.
    pub max_frame_bytes: usize,

    /// The memory for messages that are arriving, in bytes, over all connections from other nodes;
    /// default 128 MiB. A message of more than 64 KiB takes its size of it until it is there whole;
    /// when nothing is left, its connection is not read until others have finished, so that the
    /// sender waits. Smaller messages need none. Too small: large messages arrive one after the
    /// other. Too large: so much memory may the peers take. At least `max_frame_bytes`.
    pub max_arriving_bytes: usize,

    /// What waits to be written to one peer, in bytes; default 16 MiB. The chunks of snapshots are
    /// counted apart, with the same limit. At it further messages are dropped (Raft repeats what
    /// matters). The message that crosses it still goes, whatever its size, so the memory is
    /// bounded by twice this and two messages more. Heartbeats, votes and answers, which are small,
    /// have 64 KiB more for them. Too small: bursts are lost and repeated, as are
    /// chunks of a snapshot where this is less than the nodes' `max_inflight_bytes`. Too large:
    /// memory, and what reaches a slow peer is old. At least 1 KiB.
    pub max_outbox_bytes: usize,

    /// The address at which the others reach this node, as `host:port`; default the one it listens
    /// on. A peer uses it as long as it doesn't know this node from the cluster's membership. One
    /// of `0.0.0.0` or `::` is completed by what the peer sees. A node whose port is forwarded, or
    /// whose address is translated, needs it to pass the
    /// [check of its list](quorate_core::Transport::check_list).
    pub advertise: Option<String>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            max_frame_bytes: 64 * MIB,
            max_arriving_bytes: 128 * MIB,
            max_outbox_bytes: 16 * MIB,
            advertise: None,
        }
    }
}

impl TcpConfig {
    /// Checks that the values can work.
    ///
    /// Errors: the first field that can't, by its name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |good: bool, field: &'static str, reason: &str| {
            if good { Ok(()) } else { Err(ConfigError { field, reason: reason.to_owned() }) }
        };
        check(self.max_frame_bytes >= 1 << 10, "max_frame_bytes", "must be at least 1 KiB")?;
        check(self.max_frame_bytes <= 2 << 30, "max_frame_bytes", "must be at most 2 GiB")?;
        check(
            self.max_arriving_bytes >= self.max_frame_bytes,
            "max_arriving_bytes",
            "must be at least max_frame_bytes",
        )?;
        check(self.max_outbox_bytes >= 1 << 10, "max_outbox_bytes", "must be at least 1 KiB")?;
        let Some(advertise) = self.advertise.as_deref() else { return Ok(()) };
        check(advertise.len() <= MAX_ADDRESS_BYTES, "advertise", "is too long")?;
        HostPort::parse(advertise)
            .map(|_| ())
            .map_err(|reason| ConfigError { field: "advertise", reason })
    }
}

/// What a transport has done since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections to peers whose handshake succeeded.
    pub connects: u64,
    /// Connections from peers whose handshake succeeded.
    pub accepts: u64,
    /// Of both, those on which nothing was proven, so that only messages pass that form a cluster
    /// or let a new disk in.
    pub unproven: u64,
    /// Connections that a handshake ended: a wrong magic, version, cluster, node or boot, in both
    /// directions; and of those from others, one that was silent, or was closed for a newer one, as
    /// too many had proven nothing.
    pub refused_handshakes: u64,
    /// Of these, the ones that this node refused, or was refused, because two processes run on
    /// copies of one data folder.
    pub twins: u64,
    /// Messages written.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Gathered writes, each of all that waited for one peer.
    pub writes: u64,
    /// Messages received, those that were dropped included.
    pub frames_in: u64,
    /// Bytes received after handshakes.
    pub bytes_in: u64,
    /// Frames that ended their connection: too large, damaged, of unknown form, not between its two
    /// replicas, or of a kind for which nothing was proven.
    pub bad_frames: u64,
    /// Connections from peers that were closed because a frame had begun and did not advance.
    pub stalled: u64,
    /// Connections from peers that were closed because nothing came for long.
    pub vanished: u64,
    /// How often a message had to wait for others to arrive, as
    /// [`max_arriving_bytes`](TcpConfig::max_arriving_bytes) were taken.
    pub arrival_waits: u64,
    /// How often accepting a connection has failed: most likely, the process has no file descriptor
    /// left.
    pub accept_errors: u64,
    /// Panics of a peer's task, after which the transport goes on: each is a bug.
    pub panics: u64,
    /// Messages that were not sent, or whose connection broke while they were being written.
    pub dropped_out: u64,
    /// Messages received for a group that isn't here.
    pub dropped_in: u64,
}

/// Time limits. They are constants for users; only this crate's tests shorten them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// For looking a name up: what three name servers take that don't answer, each asked twice for
    /// 5 s, which is the system's default. A look-up for which nobody waits any more goes on; the
    /// next one for that name joins it.
    pub(crate) lookup: Duration,
    /// How long a name's look-up may take before the last known addresses of that name are tried:
    /// many times what a name server takes, and less than an election.
    pub(crate) lookup_patience: Duration,
    /// For connecting to one address: a first packet and two repetitions.
    pub(crate) connect: Duration,
    /// For each step of an attempt at an address that a peer had before, or that only other groups
    /// name. A machine that was switched off, or a name that nobody answers for, must not hide the
    /// newest address for long. A first packet is enough: these attempts take turns with those at
    /// the newest address.
    pub(crate) elsewhere: Duration,
    /// The pause between two attempts to connect to addresses of one name, as in RFC 8305.
    pub(crate) stagger: Duration,
    /// For each side's part of a handshake: a silent client must not hold memory for longer.
    pub(crate) handshake: Duration,
    /// How long a peer may take to receive anything of what was sent to it. It covers one that
    /// reads no more, and one that has vanished without a word.
    pub(crate) silence: Duration,
    /// The pause between two reports of what has arrived. Several fit into the silence, so that it
    /// takes more than one lost packet or slow turn to look dead.
    pub(crate) report: Duration,
    /// The first pause after a failure: short, so that a restarted peer is back quickly.
    pub(crate) backoff_min: Duration,
    /// The longest pause: long enough for a dead peer to cost nothing.
    pub(crate) backoff_max: Duration,
    /// How long the connection for snapshots stays open with nothing to do: longer than a transfer
    /// pauses, for a slow disk at either end, and so short that the peers of a large cluster don't
    /// keep two connections each.
    pub(crate) idle: Duration,
    /// How long an unproven connection stays open with nothing to do. By then more may be provable,
    /// and the peer's word of it may have been lost.
    pub(crate) unproven_idle: Duration,
    /// How long the older of two processes of a replica has for its answer to a ping. It is what a
    /// reboot costs whose connections were not closed, and many times a round trip.
    pub(crate) ping: Duration,
    /// The pause between two looks at what has come on the accepted connections: a frame must
    /// advance in it.
    pub(crate) sweep: Duration,
    /// After so long a silence a peer is pinged that keeps its connection open without having
    /// anything to say, and after twice that it has vanished: as rarely as costs nothing, and long
    /// before the resources of dead peers add up.
    pub(crate) quiet: Duration,
}

impl Timing {
    /// The limits of an attempt at another address than the newest.
    pub(crate) fn elsewhere(self) -> Self {
        let most = self.elsewhere;
        Self {
            lookup: self.lookup.min(most),
            connect: self.connect.min(most),
            handshake: self.handshake.min(most),
            ..self
        }
    }

    pub(crate) const DEFAULT: Self = Self {
        lookup: Duration::from_secs(30),
        lookup_patience: Duration::from_millis(500),
        connect: Duration::from_secs(5),
        elsewhere: Duration::from_secs(1),
        stagger: Duration::from_millis(250),
        handshake: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        report: Duration::from_secs(1),
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        idle: Duration::from_secs(30),
        unproven_idle: Duration::from_secs(5),
        ping: Duration::from_millis(500),
        sweep: Duration::from_secs(5),
        quiet: Duration::from_secs(15),
    };

    /// The pause after so many failures in a row: doubled each time, up to the longest, less up to
    /// a half by chance, so that nodes that lost the same peer don't come back in step.
    pub(crate) fn backoff(&self, failures: u32, random: u64) -> Duration {
        let full = self.backoff_min.saturating_mul(1 << failures.min(16)).min(self.backoff_max);
        let half = full / 2;
        // The remainder is not quite uniform, which is good enough for jitter.
        let jitter = random % u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        full - Duration::from_nanos(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let field = |config: TcpConfig| config.validate().unwrap_err().field;
        let good = TcpConfig::default();
        assert!(good.validate().is_ok());
        assert_eq!(field(TcpConfig { max_frame_bytes: 0, ..good.clone() }), "max_frame_bytes");
        assert_eq!(
            field(TcpConfig { max_frame_bytes: 3 << 30, ..good.clone() }),
            "max_frame_bytes"
        );
        assert_eq!(field(TcpConfig { max_outbox_bytes: 0, ..good.clone() }), "max_outbox_bytes");
        let less = TcpConfig { max_arriving_bytes: (64 << 20) - 1, ..good.clone() };
        assert_eq!(field(less), "max_arriving_bytes");
        let advertise =
            |address: &str| TcpConfig { advertise: Some(address.to_owned()), ..good.clone() };
        assert_eq!(field(advertise("")), "advertise");
        assert_eq!(field(advertise("raft-1.example")), "advertise");
        assert_eq!(field(advertise(&"a".repeat(MAX_ADDRESS_BYTES + 1))), "advertise");
        assert!(advertise("raft-1.example:7001").validate().is_ok());
    }

    #[test]
    fn the_pause_doubles_to_its_maximum_and_varies_by_a_half() {
        let timing = Timing::DEFAULT;
        let longest =
            [0, 1, 2, 3, 4, 5, 6, 1000].map(|failures| timing.backoff(failures, 0).as_millis());
        assert_eq!(longest, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        for failures in [0, 3, 1000] {
            let full = timing.backoff(failures, 0);
            let pauses = (1..100_u64)
                .map(|n| timing.backoff(failures, n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            let (least, most) = pauses.fold((full, Duration::ZERO), |(least, most), pause| {
                (least.min(pause), most.max(pause))
            });
            assert!(least > full / 2 && least < full * 6 / 10, "{least:?}");
            assert!(most <= full && most > full * 9 / 10, "{most:?}");
        }
    }
}
