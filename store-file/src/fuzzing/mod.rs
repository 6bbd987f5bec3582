//! What fuzz targets check of this crate. Not part of its API.

mod image;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use quorate_core::codec::Gather;
use quorate_core::{
    ClusterId, Completion, Digest, Entry, LogId, LogStore, LogWrite, Membership, Payload,
    Recovered, Replica, SnapshotMeta, StoreError,
};
use quorate_rt::channel::oneshot;
use quorate_rt::testing::Memory;

use self::image::{SEGMENT_BYTES, STORE, header, image, repair};
use crate::format::{EntryCrc, Position, record_seed};
use crate::record::{
    Content, Encoder, KIND_BEGIN, KIND_COPY, KIND_OWNER, KIND_SYNC_MARKER, KIND_WRITE,
    RECORD_HEADER_BYTES, RecordHeader, take_checked_entry,
};
use crate::{FileConfig, FileStore};

/// The property of the target `records`: the body of a record is a write, or an error, or doesn't
/// match; its entries stand one behind the other, where they can also be read alone; and its own
/// encoding decodes to the same. The first byte is the kind of the record, and whether the CRCs of
/// the entries are set right.
pub fn records(data: &[u8]) {
    const GROUP: u64 = 7;
    let Some((how, body)) = data.split_first() else { return };
    let kind = match how & 3 {
        1 if how & 8 > 0 => KIND_COPY,
        of => [KIND_OWNER, KIND_WRITE, KIND_SYNC_MARKER, KIND_BEGIN][usize::from(of)],
    };
    let at = Position::first_in(1);
    let mut body = body.to_vec();
    if how & 4 == 0 {
        repair(&mut body, GROUP);
    }
    let seed = record_seed(STORE, at);
    let header = RecordHeader::decode(&header(at, kind, GROUP, at, &body), seed).unwrap();
    let body = Bytes::from(body);
    let content = header.content(STORE, body.clone(), seed);
    let (Ok(Some(Content::Write(decoded))) | Ok(Some(Content::Copy(decoded)))) = content else {
        return;
    };
    let is_copy = kind == KIND_COPY;
    let mut end = None;
    assert_eq!(decoded.write.entries.len(), decoded.spans.len());
    for (entry, span) in decoded.write.entries.iter().zip(&decoded.spans) {
        assert!(end.is_none_or(|end| end == span.offset));
        end = Some(span.offset + span.len);
        let begin = span.offset - RECORD_HEADER_BYTES;
        let mut alone = body.slice(begin..begin + span.len);
        assert_eq!(
            take_checked_entry(&mut alone, &EntryCrc::new(STORE, GROUP)).as_ref(),
            Ok(entry)
        );
        assert!(alone.is_empty());
    }
    assert!(end.is_none_or(|end| end == RECORD_HEADER_BYTES + body.len()));
    let mut encoder = Encoder::new(STORE);
    let (len, _) = match is_copy {
        true => encoder.encode_copy(GROUP, decoded.write.entries.clone()),
        false => encoder.encode(GROUP, &decoded.write, decoded.replaces),
    };
    let mut to = Gather::new();
    encoder.put(&mut to, GROUP, at, at);
    let record = Bytes::from(to.take().concat());
    let header = RecordHeader::decode(record.first_chunk().unwrap(), seed).unwrap();
    let again = record.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len as usize);
    match header.content(STORE, again, seed).unwrap() {
        Some(Content::Write(again) | Content::Copy(again)) => {
            assert_eq!((again.write, again.replaces), (decoded.write, decoded.replaces));
        }
        again => panic!("{again:?}"),
    }
}

/// The property of the target `recovery`: a store whose segments hold anything opens, or is refused
/// as damaged and then left as it is, just as a check of it says, which changes nothing. What has
/// been opened can be read and written on, and is the same when it is opened again. The bytes
/// describe the segments; see `image.rs`.
pub fn recovery(data: &[u8]) {
    let rt = Memory::default();
    let dir = Path::new("d");
    for (number, content) in (1..).zip(image(data)) {
        rt.disk.put(dir.join(format!("wal/{number:016}.wal")), content);
    }
    rt.disk.put(dir.join("LOCK"), []);
    let before = rt.disk.now();
    let checked = rt.wait(FileStore::check(&rt, dir));
    assert!(rt.disk.now() == before, "a check changes nothing");
    let report = match checked {
        Ok(report) => report,
        Err(StoreError::Unsupported { .. }) => {
            let opened = rt.wait(open(&rt, dir));
            assert!(matches!(opened, Err(StoreError::Unsupported { .. })));
            assert!(rt.disk.now() == before, "what is refused is left as it is");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let store = match (rt.wait(open(&rt, dir)), &report.damage) {
        (Ok(store), None) => store,
        (Err(refused), Some(damage)) => {
            assert_eq!(refused.to_string(), damage.to_string());
            assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
            assert!(rt.disk.now() == before, "what is refused is left as it is");
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
        assert_eq!((&recovered.standing, &recovered.marks), (&checked.standing, &checked.marks));
        if let Some((first, last)) = checked.entries {
            assert_eq!(first.index, recovered.log_meta.purged().index + 1);
            assert_eq!(last, recovered.log_meta.last());
        }
        let entries = read_all(&rt, &store, *group, &recovered);
        groups.insert(*group, (recovered, entries));
    }
    // On with the first group, or a new one.
    let group = groups.keys().next().copied().unwrap_or(1);
    let (recovered, entries) = groups.entry(group).or_default();
    let last = recovered.log_meta.last();
    if last.index < u64::MAX - 1 {
        let next = Entry {
            log_id: LogId { index: last.index + 1, ..last },
            time: 1,
            payload: Payload::Command(Bytes::from_static(b"next")),
        };
        let write = LogWrite { entries: vec![next.clone()].into(), ..LogWrite::default() };
        put(&rt, &store, group, write);
        recovered.log_meta.push(&next);
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

/// The property of the target `snapshots`: whatever becomes of a snapshot's file, what is read is
/// what was written, or an error; and where the file can't be the snapshot's, the store doesn't
/// open. The bytes are the length of the content and changes of the file.
pub fn snapshots(data: &[u8]) {
    const GROUP: u64 = 7;
    let Some((len, mut changes)) = data.split_first_chunk() else { return };
    // Up to three blocks.
    let content: Bytes = (0..u32::from(u16::from_le_bytes(*len)) * 3).map(|at| at as u8).collect();
    let rt = Memory::default();
    let dir = Path::new("d");
    let log_id = LogId::new(3, 1, 9);
    let meta = SnapshotMeta {
        log_id,
        time: 5,
        membership: Membership::founding(
            ClusterId(5),
            [(Replica::new(1, 7), "a:1".to_owned())].into(),
        )
        .unwrap(),
        membership_index: 1,
        bytes: content.len() as u64,
        digest: Digest::of(&content),
    };
    let store = rt.wait(open(&rt, dir)).unwrap();
    let mut draft = rt.wait(store.draft(GROUP)).unwrap();
    rt.wait(draft.write(content.clone())).unwrap();
    rt.wait(draft.finish(&meta)).unwrap();
    let snapshot = Some(Box::new(meta.clone()));
    let write = LogWrite { snapshot, purge: Some(log_id), ..LogWrite::default() };
    put(&rt, &store, GROUP, write);
    drop(store);
    rt.finish();

    let mut files = rt.disk.now().into_iter().filter(|(path, _)| path.starts_with("d/snapshots"));
    let (path, mut file) = files.next().unwrap();
    assert!(files.next().is_none(), "one snapshot, one file");
    let whole = file.clone();
    while let Some(([low, high, how], rest)) = changes.split_first_chunk() {
        // Offsets count from the end as often as from the begin.
        let at = usize::from(u16::from_le_bytes([*low, *high]));
        let at = if how & 1 == 0 { at } else { file.len().saturating_sub(at) };
        match how >> 1 & 3 {
            0 => file.truncate(at),
            1 => file.extend_from_slice(&rest[..rest.len().min(1 + at % 64)]),
            _ => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= how >> 2 | 1;
                }
            }
        }
        changes = rest;
    }
    let same = file == whole;
    rt.disk.put(&path, file);
    let damage = rt.wait(FileStore::check(&rt, dir)).unwrap().damage;
    assert!(!same || damage.is_none(), "{damage:?}");
    read_snapshot(&rt, dir, GROUP, &meta, &content, (!same).then_some(damage.is_some()));
    // However that ended: what is left of a store holds all that is in memory.
    rt.finish();
}

/// Reads a snapshot, whose file has been `changed` or not, and if so, whether a check tells of
/// damage.
fn read_snapshot(
    rt: &Memory,
    dir: &Path,
    group: u64,
    meta: &SnapshotMeta,
    content: &Bytes,
    changed: Option<bool>,
) {
    let store = match rt.wait(open(rt, dir)) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. }) => return assert_eq!(changed, Some(true)),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(rt.wait(store.recover(group)).unwrap().snapshot.as_ref(), Some(meta));
    let read = match rt.wait(store.snapshot(group, meta)) {
        Ok(read) => read,
        Err(StoreError::Damaged { .. }) => return assert!(changed.is_some()),
        Err(error) => panic!("{error}"),
    };
    let mut at = 0;
    while at < content.len() {
        match rt.wait(read.read(at as u64, 40_000)) {
            Ok(bytes) => {
                assert!(!bytes.is_empty() && bytes == content[at..at + bytes.len()]);
                at += bytes.len();
            }
            Err(StoreError::Damaged { .. }) => return assert_eq!(changed, Some(true)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes, and waits for it.
fn put(rt: &Memory, store: &FileStore<Memory>, group: u64, write: LogWrite) {
    let (sender, receiver) = oneshot::channel();
    let tell = move |outcome| drop(sender.send(outcome));
    let _pending = store.append(group, write, Completion::new(tell));
    rt.wait(receiver).unwrap().unwrap();
}

async fn open(rt: &Memory, dir: &Path) -> Result<FileStore<Memory>, StoreError> {
    let config = FileConfig { segment_bytes: SEGMENT_BYTES as u64, ..FileConfig::default() };
    FileStore::open_with(rt, dir, config).await
}

/// The log of a group, which is what the metadata says.
fn read_all(rt: &Memory, store: &FileStore<Memory>, group: u64, is: &Recovered) -> Vec<Entry> {
    let range = is.log_meta.purged().index + 1..is.log_meta.last().index + 1;
    let entries = rt.wait(store.read(group, range.clone(), usize::MAX)).unwrap();
    let log_ids = entries.iter().map(|entry| Some(entry.log_id));
    assert!(log_ids.eq(range.map(|index| is.log_meta.log_id(index))));
    entries.to_vec()
}
