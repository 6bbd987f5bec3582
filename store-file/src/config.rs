//! The settings of a store.

use quorate_core::ConfigError;
use serde::{Deserialize, Serialize};

use crate::format::HEADER_BYTES;

/// The settings of a [`FileStore`](crate::FileStore). Any of them may change from one opening to
/// the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    /// The size of a segment, in bytes; default 64 MiB. The one in use and the next are allocated.
    /// Too small: the log often moves on to another file. Too large: an almost empty store takes
    /// much space, and an opening reads for long, since it looks at every byte of the last segment.
    /// Four segments may hold nothing that is needed before the log is
    /// [cleaned](crate::FileStore#cleaning). From 16 KiB to 4 GiB. A write that is larger gets a
    /// segment of its size. If the next can't be allocated when it is needed, entries wait until it
    /// can.
    pub segment_bytes: u64,

    /// The recent entries kept in memory, of all groups together, in bytes; default 64 MiB. Entries
    /// that are not yet durable are kept beyond that; their bound is what the nodes submit without
    /// waiting. Too small: peers that are a little behind, and the state machine, are served from
    /// disk. 0 keeps nothing that is durable.
    pub cache_bytes: usize,

    /// What is written and synced at once, in bytes; default 8 MiB. A single write may always go.
    /// Too small: a burst takes many syncs. Too large: those at the front of a burst wait for its
    /// end. From 4 KiB to 1 GiB.
    pub max_batch_bytes: usize,
}

impl Default for FileConfig {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self { segment_bytes: 64 * MIB as u64, cache_bytes: 64 * MIB, max_batch_bytes: 8 * MIB }
    }
}

impl FileConfig {
    /// Checks that the values can work.
    ///
    /// Errors: the first field that can't, by its name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |good: bool, field: &'static str, reason: &str| {
            if good { Ok(()) } else { Err(ConfigError { field, reason: reason.to_owned() }) }
        };
        check(
            (4 * HEADER_BYTES..=4 << 30).contains(&self.segment_bytes),
            "segment_bytes",
            "must be from 16 KiB to 4 GiB",
        )?;
        check(
            (4 << 10..=1 << 30).contains(&self.max_batch_bytes),
            "max_batch_bytes",
            "must be from 4 KiB to 1 GiB",
        )
    }
}
