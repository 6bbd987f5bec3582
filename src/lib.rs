//! Quorate: Raft for Rust services.
//!
//! One consensus engine, one TCP transport and one write-ahead log, which run unchanged on tokio,
//! on monoio and on compio. This crate puts the parts together: its features choose the backends,
//! all of them may be on at once, and none changes what a type means.
//!
//! | feature | brings |
//! | --- | --- |
//! | `tokio` (default) | [`Tokio`] |
//! | `monoio` | [`Monoio`] |
//! | `compio` | [`Compio`] |
//! | `tcp` (default) | [`TcpTransport`] |
//! | `mem` (default) | [`MemStore`], [`LocalNetwork`], [`SharedNetwork`] |
//! | `file` (default) | [`FileStore`] |
//! | `sim` | [`sim`]: a runtime that simulates hosts, networks and disks, for tests |
//! | `conformance` | [`conformance`]: the suites for what a user implements, for tests |

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "tokio",
        feature = "monoio",
        feature = "compio",
        feature = "tcp",
        feature = "mem",
        feature = "file",
        feature = "sim",
        feature = "conformance"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

/// The programs of the README and the guide compile and run.
#[cfg(all(
    doctest,
    feature = "tokio",
    feature = "monoio",
    feature = "compio",
    feature = "tcp",
    feature = "mem",
    feature = "file",
    feature = "sim"
))]
mod guide {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/first-service.md")]
    struct FirstService;

    #[doc = include_str!("../docs/state-machines.md")]
    struct StateMachines;

    #[doc = include_str!("../docs/clusters.md")]
    struct Clusters;

    #[doc = include_str!("../docs/plugging-in.md")]
    struct PluggingIn;

    #[doc = include_str!("../docs/requests.md")]
    struct Requests;

    #[doc = include_str!("../docs/testing-services.md")]
    struct TestingServices;

    #[cfg(feature = "conformance")]
    #[doc = include_str!("../docs/own-parts.md")]
    struct OwnParts;

    #[doc = include_str!("../docs/simulation.md")]
    struct Simulation;
}

mod launch;

// For services: nodes, groups, state machines, and what they answer.
pub use quorate_core::{
    At, CampaignError, Change, ChangeError, ChangeId, ChangeOptions, ChangeProgress, ChangeRefusal,
    ChangeWait, Command, Compact, Config, ConfigError, ConfigureError, Ending, Error, Fatal,
    GroupBuilder, GroupId, GroupState, Hindrance, Index, InitializeError, Leader, LeaderChange,
    LeaderChanges, Leadership, LocalRaft, LogId, MAX_ADDRESS_BYTES, MAX_ENDED, MAX_NODES, Member,
    MemberRole, Membership, Metrics, Node, NodeBuilder, NodeId, Obstacle, PeerMetrics, Plan,
    PlanStep, Raft, Raw, ReadError, Replica, Result, Role, SharedResponse, Snapshot, SnapshotError,
    SnapshotReader, SnapshotWriter, StartError, StateMachine, StepDownError, Target, Term,
    TransferError, TransferFailure, TransferOptions, UnfitTiming, WaitError, WriteError,
    check_list, quorum,
};
// For logs and snapshots of one's own.
pub use quorate_core::{
    Appended, Claim, ClusterId, Completes, Completion, Digest, Entries, Entry, HardState, Identity,
    LogMeta, LogStore, LogWrite, MAX_MEMORIES, MAX_STARTS, Marks, Memory, Payload, Recovered, Runs,
    SnapshotContent, SnapshotDraft, SnapshotMeta, Standing, Start, StoreError,
};
// For transports of one's own.
pub use quorate_core::{
    Alive, AppendOutcome, Body, Boot, ChangeKind, ChangeReply, ChangeRequest, Credentials,
    Departure, ForwardOutcome, Inbox, LeadershipTransfer, Message, MessageLimit, NODE_GROUP,
    Refusal, Situation, StoreState, Transport,
};
pub use quorate_rt::{
    Attached, Driver, Either, Elapsed, Executor, Files, Launch, Lines, Network, StopSignal, race,
};
// For the tests, the simulations and the benchmarks of this repository.
#[doc(hidden)]
pub use quorate_core::{engine, planted};

pub use launch::{launch, run};
pub use parts::*;

/// The encoding of messages, for a transport of one's own, and of what a log keeps, for a store.
pub mod codec {
    // Of messages.
    pub use quorate_core::codec::{
        APPEND_OVERHEAD_BYTES, DecodeError, FORWARD_OVERHEAD_BYTES, Gather,
        MAX_SNAPSHOT_OVERHEAD_BYTES, decode_message, decode_message_within, max_append_bytes,
        put_message,
    };
    // Of a log.
    pub use quorate_core::codec::{
        ENTRY_HEADER_BYTES, entry_bytes, put_entry, put_hard_state, put_marks, put_snapshot_meta,
        put_standing, take_entry, take_hard_state, take_marks, take_snapshot_meta, take_standing,
    };
}

/// The runtime's interface, for code that is generic over its runtime. (A backend is written
/// against the crate `quorate-rt`.)
pub mod rt {
    pub use quorate_rt::{
        AsyncRuntime, ContinuousInstant, Driver, Either, Elapsed, Executor, File, Files, Instant,
        Launch, Limited, Lines, Listener, Network, OpenMode, ReadHalf, StopSignal, Stream, Task,
        TaskError, WriteHalf, channel, race, yield_now,
    };
}

cfg_if::cfg_if! {
    if #[cfg(feature = "sim")] {
        /// The simulator: whole clusters on virtual time, a network and disks that do their worst,
        /// from a seed.
        pub use quorate_rt_sim as sim;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "conformance")] {
        /// The suites that check a log store, a transport, a state machine or a runtime of one's
        /// own against its contract. Each is a macro that makes a `#[test]` of each case.
        pub mod conformance {
            pub use quorate_core::conformance::{log_store, state_machine, transport};
            pub use quorate_core::{log_store_suite, state_machine_suite, transport_suite};
            pub use quorate_rt::{conformance as runtime, conformance_suite as runtime_suite};
        }
    }
}

/// The runtime, and what the features bring.
mod parts {
    pub use quorate_rt::AsyncRuntime;

    cfg_if::cfg_if! {
        if #[cfg(feature = "tokio")] {
            pub use quorate_rt_tokio::Tokio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "monoio")] {
            pub use quorate_rt_monoio::Monoio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "compio")] {
            pub use quorate_rt_compio::Compio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "tcp")] {
            pub use quorate_network_tcp::{TcpConfig, TcpTransport, check_address};
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "mem")] {
            pub use quorate_network_mem::{
                LocalNetwork, LocalTransport, SharedNetwork, SharedTransport,
            };
            pub use quorate_store_mem::MemStore;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "file")] {
            pub use quorate_store_file::{FileConfig, FileStore, StoreReport};
        }
    }
}

/// What a service usually needs.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    pub use crate::parts::*;
    pub use crate::{
        At, ChangeError, ChangeOptions, Compact, Config, LocalRaft, Membership, Metrics, Node,
        Raft, Raw, ReadError, Role, Snapshot, SnapshotError, SnapshotReader, SnapshotWriter,
        StateMachine, Target, WriteError,
    };
    pub use crate::{Either, Elapsed, Lines, StopSignal, race};
    // Their methods, not their names: a service may have a `Network` of its own.
    pub use crate::rt::{
        Executor as _, File as _, Files as _, Listener as _, Network as _, ReadHalf as _,
        Stream as _, Task as _, WriteHalf as _,
    };
}
