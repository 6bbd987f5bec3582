//! What fuzz targets check of this crate. Not part of its API.

mod image;
mod memory;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use quorate_core::{Completion, Entry, LogId, LogStore, LogWrite, Payload, Recovered, StoreError};
use quorate_rt::channel::oneshot;

use self::image::{SEGMENT_BYTES, image};
use self::memory::Memory;
use crate::{FileConfig, FileStore};

/// The property of the target `recovery`: a store whose segments hold anything opens, or is refused as damaged and then left as it is, just as
/// a check of it says, which changes nothing. What has been opened can be read and written on, and is the same when it is opened again.
/// The bytes describe the segments; see `image.rs`.
pub fn recovery(data: &[u8]) {
    let rt = Memory::default();
    let dir = Path::new("d");
    for (number, content) in (1..).zip(image(data)) {
        rt.put(&dir.join(format!("wal/{number:016}.wal")), content);
    }
    let before = rt.files();
    let report = rt.wait(FileStore::check(&rt, dir)).unwrap();
    assert!(rt.files() == before, "a check changes nothing");
    let store = match (rt.wait(open(&rt, dir)), &report.damage) {
        (Ok(store), None) => store,
        (Err(refused), Some(damage)) => {
            assert_eq!(refused.to_string(), damage.to_string());
            assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
            assert!(rt.files() == before, "what is refused is left as it is");
            return;
        }
        (opened, damage) => {
            panic!("opening: {:?}, and the check: {damage:?}", opened.map(drop));
        }
    };
    let mut groups = BTreeMap::new();
    for (group, checked) in &report.groups {
        let recovered = rt.wait(store.recover(*group)).unwrap();
        assert_eq!(recovered.hard_state, checked.hard_state);
        if let Some((first, last)) = checked.entries {
            assert_eq!(first.index, recovered.outline.purged().index + 1);
            assert_eq!(last, recovered.outline.last());
        }
        let entries = read_all(&rt, &store, *group, &recovered);
        groups.insert(*group, (recovered, entries));
    }
    // On with the first group, or a new one.
    let group = groups.keys().next().copied().unwrap_or(1);
    let (recovered, entries) = groups.entry(group).or_default();
    let last = recovered.outline.last();
    if last.index < u64::MAX - 1 {
        let next = Entry {
            log_id: LogId { index: last.index + 1, ..last },
            payload: Payload::Command(Bytes::from_static(b"next")),
        };
        let write = LogWrite { entries: vec![next.clone()], ..LogWrite::default() };
        let (sender, receiver) = oneshot::channel();
        let tell = move |outcome| drop(sender.send(outcome));
        store.append(group, write, Completion::new(tell));
        rt.wait(receiver).unwrap().unwrap();
        recovered.outline.push(&next);
        entries.push(next);
    }
    drop(store);
    rt.finish();
    let report = rt.wait(FileStore::check(&rt, dir)).unwrap();
    assert!(report.damage.is_none(), "{:?}", report.damage);
    assert_eq!(report.end.map(|end| end.torn_bytes), Some(0), "all that is torn was cut");
    let store = rt.wait(open(&rt, dir)).unwrap();
    for (group, (before, entries)) in &groups {
        let recovered = rt.wait(store.recover(*group)).unwrap();
        assert_eq!(recovered, *before, "group {group}");
        assert_eq!(read_all(&rt, &store, *group, &recovered), *entries);
    }
    drop(store);
    rt.finish();
}

async fn open(rt: &Memory, dir: &Path) -> Result<FileStore<Memory>, StoreError> {
    let config = FileConfig { segment_bytes: SEGMENT_BYTES as u64, ..FileConfig::default() };
    FileStore::open_with(rt, dir, config).await
}

/// The log of a group, which is what the outline says.
fn read_all(rt: &Memory, store: &FileStore<Memory>, group: u64, is: &Recovered) -> Vec<Entry> {
    let range = is.outline.purged().index + 1..is.outline.last().index + 1;
    let entries = rt.wait(store.read(group, range.clone(), usize::MAX)).unwrap();
    let log_ids = entries.iter().map(|entry| Some(entry.log_id));
    assert!(log_ids.eq(range.map(|index| is.outline.log_id(index))));
    entries
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[test]
fn recovery_of_the_corpus() {
    replay::replay("recovery", recovery);
}
