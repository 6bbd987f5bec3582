//! The store as a snapshot: each key's length (8 bytes, little-endian), the key, its value's length (8) and the value, in the order of the keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate::{Snapshot, SnapshotError, SnapshotReader, SnapshotWriter};

use crate::key::Key;
use crate::store::Store;

impl Snapshot for Store {
    type View = BTreeMap<Key, Bytes>;

    fn view(&self) -> Result<Self::View, SnapshotError> {
        Ok(self.values.clone())
    }

    async fn write(view: Self::View, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        for (key, value) in view {
            to.write(&(key.bytes.len() as u64).to_le_bytes()).await?;
            to.write(&key.bytes).await?;
            to.write(&(value.len() as u64).to_le_bytes()).await?;
            to.write_bytes(value).await?;
        }
        Ok(())
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        self.values.clear();
        while from.remaining() > 0 {
            let len = from.read_u64().await?;
            let key = Key::new(&from.read(len).await?).copied();
            let len = from.read_u64().await?;
            let value = Bytes::copy_from_slice(&from.read(len).await?);
            self.values.insert(key, value);
        }
        self.count.set(self.values.len());
        Ok(())
    }
}
