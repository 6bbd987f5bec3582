//! The Raft engine, the node that drives it, and the traits a service implements.
//!
//! What is public, and for whom:
//!
//! | | for | covered by semantic versioning |
//! | --- | --- | --- |
//! | the root | services, stores, transports | yes |
//! | [`codec`] | stores and transports: the encoding of messages, entries and fields | yes |
//! | [`quorum`] | whoever reads a [`Membership`]: its voters | yes |
//! | [`engine`] | tests, simulators and tools | no |
//! | `conformance`, a feature | the tests of stores, transports and state machines | no |
//!
//! A service depends on the facade, `quorate`, which re-exports the root.

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// No `Send` bounds, on purpose: what belongs to a core stays on that core.
#![allow(async_fn_in_trait)]

pub mod codec;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod encoding;
pub mod engine;
mod entries;
mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzzing;
mod hindrance;
mod identity;
mod leadership;
mod log_meta;
mod log_store;
mod membership;
mod message;
mod metrics;
mod node;
#[doc(hidden)]
pub mod planted;
pub mod quorum;
mod snapshot;
mod state_machine;
mod text;
mod transport;
mod types;

pub use config::Config;
pub use encoding::Compact;
pub use entries::{Entries, Runs};
pub use error::{
    ChangeError, ChangeRefusal, ConfigError, ConfigureError, Error, Fatal, InitializeError, Leader,
    ReadError, Result, SnapshotError, StartError, StoreError, WriteError,
};
pub use hindrance::Hindrance;
pub use identity::{
    Boot, Claim, ClusterId, Identity, MAX_MEMORIES, MAX_STARTS, Marks, Memory, Replica, Standing,
    Start,
};
pub use leadership::{
    CampaignError, Leadership, StepDownError, TransferError, TransferFailure, TransferOptions,
};
pub use log_meta::LogMeta;
pub use log_store::{
    Appended, Completes, Completion, LogStore, LogWrite, Recovered, SnapshotContent, SnapshotDraft,
};
pub use membership::{
    Change, ChangeId, ChangeKind, ChangeOptions, ChangeReply, ChangeRequest, Ending,
    MAX_ADDRESS_BYTES, MAX_ENDED, MAX_NODES, Member, MemberRole, Membership, Plan, PlanStep,
    Target, check_list,
};
pub use message::{
    Alive, AppendOutcome, Body, Departure, ForwardOutcome, LeadershipTransfer, Message, NODE_GROUP,
    Refusal, Situation,
};
pub use metrics::{
    ChangeProgress, ChangeWait, GroupState, Metrics, Obstacle, PeerMetrics, Role, UnfitTiming,
};
pub use node::{
    GroupBuilder, LeaderChange, LeaderChanges, LocalRaft, Node, NodeBuilder, Raft, WaitError,
};
pub use snapshot::{Digest, Snapshot, SnapshotMeta, SnapshotReader, SnapshotWriter};
pub use state_machine::{At, Command, Raw, SharedResponse, StateMachine};
pub use transport::{Credentials, Inbox, MessageLimit, StoreState, Transport};
pub use types::{Entry, GroupId, HardState, Index, LogId, NodeId, Payload, Term};
