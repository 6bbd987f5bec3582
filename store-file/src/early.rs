//! The begin of a log of which an opening knows only copies; see "Copies" in the format's
//! description.
//!
//! Where the first segments were removed, the log of a group that an opening finds is in two parts.
//! The writes that it finds are the end of the log, without a gap: from the first of them on, all
//! are there. What comes before that was written in segments that are gone, and what of it still
//! counts was copied. The copies may come in any order, and more than once. Only when all records
//! were read must they make up the rest of the log.

use std::collections::BTreeMap;

use quorate_core::{Entry, Index, LogId, LogMeta, Membership, Payload};

use crate::locations::{EntryLocation, EntryLocations};

/// The entries before the first that was written, as far as copies of them were found.
#[derive(Debug, Default)]
pub(crate) struct Early(BTreeMap<Index, Copied>);

/// An entry without its content.
#[derive(Debug)]
struct Copied {
    log_id: LogId,
    time: u64,
    bytes: usize,
    membership: Option<Box<Membership>>,
    location: EntryLocation,
}

impl Early {
    /// Errors: a copy was found of another entry with this index, and nothing has replaced that.
    pub(crate) fn add(&mut self, entry: &Entry, location: EntryLocation) -> Result<(), String> {
        let membership = match &entry.payload {
            Payload::Membership(membership) => Some(Box::new(membership.clone())),
            _ => None,
        };
        let (log_id, time, bytes) = (entry.log_id, entry.time, entry.bytes());
        let copied = Copied { log_id, time, bytes, membership, location };
        match self.0.insert(log_id.index, copied) {
            Some(before) if before.log_id != log_id || before.location.len != location.len => {
                Err(format!("a copy of {log_id}, and one of {} before", before.log_id))
            }
            _ => Ok(()),
        }
    }

    /// The log is truncated before this entry.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.0.split_off(&from);
    }

    /// The log is purged up to this entry, which it did not hold if the purge replaces the log.
    ///
    /// Errors: it holds another one.
    pub(crate) fn purge(&mut self, to: LogId, replaces: bool) -> Result<(), String> {
        if replaces {
            self.0.clear();
            return Ok(());
        }
        match self.0.get(&to.index) {
            Some(held) if held.log_id != to => {
                Err(format!("{to} is to be purged from a log that holds {}", held.log_id))
            }
            _ => {
                self.0 = self.0.split_off(&(to.index + 1));
                Ok(())
            }
        }
    }

    /// The log from its begin, after `purged`, to the last of the entries.
    ///
    /// Errors: one is missing or can't follow on the one before it, and where the next is.
    pub(crate) fn join(
        self,
        purged: LogId,
    ) -> Result<(LogMeta, EntryLocations), (String, EntryLocation)> {
        let (mut log_meta, mut locations) = (LogMeta::after(purged), EntryLocations::default());
        for Copied { log_id, time, bytes, membership, location } in self.0.into_values() {
            let last = log_meta.last();
            if log_id.index != last.index + 1 {
                return Err((missing(log_id.index, last, purged), location));
            }
            let pushed = log_meta.try_push(log_id, time, bytes, membership.map(|boxed| *boxed));
            pushed.map_err(|wrong| (format!("{wrong} after {last}"), location))?;
            locations.extend([location]);
        }
        Ok((log_meta, locations))
    }
}

/// What it means that after `last` the next entry found is `next`.
pub(crate) fn missing(next: Index, last: LogId, purged: LogId) -> String {
    if last == purged {
        return format!("the log begins with entry {next}, and {} is purged", purged.index);
    }
    format!("the entries between {} and {next} are missing", last.index)
}
