//! The store as a snapshot: each key's length (8 bytes, little-endian), the key, its value's length
//! (8) and the value, in the order of the keys.

use bytes::Bytes;
use quorate::{Snapshot, SnapshotError, SnapshotReader, SnapshotWriter};

use crate::key::KeyRef;
use crate::map::{Map, Part, drop_in_turns};
use crate::request::MAX_VALUE_BYTES;
use crate::store::Store;

/// Values from this length on, in bytes, are handed over as they are. A shorter one is copied: to
/// clone it would cost 32 bytes for as long as it lives, as the first clone of `Bytes` does.
const LONG_VALUE_BYTES: usize = 256 << 10;

/// The longest key: what any argument of a request may have.
const MAX_KEY_BYTES: usize = MAX_VALUE_BYTES;

impl Snapshot for Store {
    type View = Map;

    fn view(&self) -> Result<Map, SnapshotError> {
        Ok(self.values.clone())
    }

    /// Each part is let go of when it is written: what has changed since the view was taken is kept
    /// twice no longer than that.
    async fn write(view: Map, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        let mut parts = view.into_parts();
        while let Some(part) = parts.next() {
            let written = write_part(&part, to).await;
            drop(part);
            if written.is_err() {
                drop_in_turns(parts).await;
                return written;
            }
        }
        Ok(())
    }

    /// Reads it as [`restore`](Self::restore) does, and keeps nothing.
    async fn check(from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        let mut last = None;
        while from.remaining() > 0 {
            read_pair(from, &mut last).await?;
        }
        Ok(())
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        self.values.clear().await;
        self.count.set(0);
        let mut last = None;
        while from.remaining() > 0 {
            let (position, key, value) = read_pair(from, &mut last).await?;
            // A copy: as a slice it would keep alive the whole chunk that it was read in.
            let key = KeyRef { position, bytes: &key };
            self.values.insert(key, Bytes::copy_from_slice(&value));
        }
        self.count.set(self.values.len());
        Ok(())
    }
}

async fn write_part(part: &Part, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
    for (key, value) in part {
        to.write(&(key.bytes.len() as u64).to_le_bytes()).await?;
        to.write(&key.bytes).await?;
        to.write(&(value.len() as u64).to_le_bytes()).await?;
        match value.len() {
            LONG_VALUE_BYTES.. => to.write_bytes(Bytes::clone(value)).await?,
            _ => to.write(value).await?,
        }
    }
    Ok(())
}

/// The next key, its position and its value. The key must come after the last one, whose place it
/// takes.
async fn read_pair(
    from: &mut SnapshotReader,
    last: &mut Option<(u64, Bytes)>,
) -> Result<(u64, Bytes, Bytes), SnapshotError> {
    let key = read(from, "key", MAX_KEY_BYTES).await?;
    let position = KeyRef::new(&key).position;
    let this = Some((position, key.clone()));
    if *last >= this {
        return Err(SnapshotError::state_machine("the keys are not in their order"));
    }
    *last = this;
    let value = read(from, "value", MAX_VALUE_BYTES).await?;
    Ok((position, key, value))
}

/// A length and as many bytes.
async fn read(from: &mut SnapshotReader, what: &str, most: usize) -> Result<Bytes, SnapshotError> {
    let len = from.read_u64().await?;
    if len > most as u64 {
        let reason = format!("a {what} of {len} bytes is longer than any");
        return Err(SnapshotError::state_machine(reason));
    }
    from.read(len).await
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
