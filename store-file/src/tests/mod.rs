//! Scenarios of a store: what it keeps, what it refuses, and what it does when the disk fails. They
//! run in memory, but for those that need folders.

mod cleaning;
mod compaction;
mod crashes;
mod damage;
mod failure;
mod folders;
mod forged;
mod full;
mod identity;
mod images;
mod log;
mod model;
mod power;
mod records;
mod refused;
mod removed;
mod snapshots;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    Appended, ClusterId, Completion, Entry, GroupId, HardState, Index, LogId, LogStore, LogWrite,
    Payload, Recovered, Replica, StoreError, Term,
};
use quorate_rt::channel::oneshot;
use quorate_rt::testing::{Disk, Faults, Image, Memory, Moment};
use quorate_rt::{Executor, Files, Launch, yield_now};

use crate::format::{ALIGNMENT, HEADER_BYTES, Position, SegmentHeader};
use crate::record::{SYNC_MARKER_BYTES, sync_marker};
use crate::{FileConfig, FileStore};

type Store = FileStore<Memory>;
type Outcome = oneshot::Receiver<Result<(), StoreError>>;

/// A runtime, a directory and settings.
struct Scene {
    rt: Memory,
    dir: PathBuf,
    config: FileConfig,
}

/// Small segments, and nothing in memory that is durable.
const SMALL: FileConfig =
    FileConfig { segment_bytes: 16 << 10, cache_bytes: 0, max_batch_bytes: 8 << 10 };

fn scene(scenario: impl AsyncFnOnce(Scene)) {
    Memory::run(&Launch::named("test"), async |rt| {
        // A store reads it beside whatever else it does.
        rt.disk.faults.spared.set(Some("LOCK"));
        scenario(Scene { rt, dir: PathBuf::from("/store"), config: SMALL }).await;
    })
    .unwrap();
}

impl Scene {
    async fn try_open(&self) -> Result<Store, StoreError> {
        FileStore::open_with(&self.rt, &self.dir, self.config.clone()).await
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    fn disk(&self) -> &Disk {
        &self.rt.disk
    }

    fn faults(&self) -> &Faults {
        &self.disk().faults
    }

    fn segment(&self, number: u32) -> PathBuf {
        self.dir.join(format!("wal/{number:016}.wal"))
    }

    fn has(&self, segment: u32) -> bool {
        self.disk().has(self.segment(segment))
    }

    fn content(&self, segment: u32) -> Vec<u8> {
        self.disk().get(self.segment(segment)).unwrap()
    }

    /// The end of a segment's records.
    fn end(&self, segment: u32) -> u64 {
        let content = self.content(segment);
        // A record ends with the last byte that isn't zero, filled up; a sync marker is none.
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let used = used.next_multiple_of(ALIGNMENT as usize) as u64;
        let Some(at) = used.checked_sub(SYNC_MARKER_BYTES) else { return used };
        let store = segment_header(&content, segment).store;
        let end = Position { segment, offset: at };
        let found = content[at as usize..used as usize] == sync_marker(store, end);
        if found { at } else { used }
    }

    /// Each record stands within the length that its segment was made with.
    fn fits(&self) {
        for number in (1..).take_while(|number| self.has(*number)) {
            let made_with = segment_header(&self.content(number), number).bytes;
            assert!(self.end(number) <= made_with, "segment {number}");
        }
    }

    /// Removes the sync marker from a segment, as if the system had crashed before that was on
    /// disk.
    fn crash(&self, segment: u32) {
        let (mut content, end) = (self.content(segment), self.end(segment));
        content[end as usize..].fill(0);
        self.set_content(segment, &content);
    }

    fn set_content(&self, segment: u32, content: &[u8]) {
        self.disk().put(self.segment(segment), content);
    }

    /// Until a segment is there: they are made in the background.
    async fn made(&self, segment: u32) {
        while !self.has(segment) {
            self.rt.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Until a store that was dropped has written its last.
    async fn closed(&self) {
        let lock = self.dir.join("LOCK");
        while self.rt.lock_file(&lock).await.is_err() {
            self.rt.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Until a condition holds that another task brings about.
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            self.rt.sleep(Duration::from_millis(1)).await;
        }
    }

    /// What an opening says of a damaged log: file name and offset.
    async fn damage(&self) -> (String, u64) {
        match self.try_open().await {
            Err(StoreError::Damaged { file, offset, .. }) => {
                (file.file_name().unwrap().to_str().unwrap().to_owned(), offset)
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("the damage went unnoticed"),
        }
    }
}

/// The header of a segment.
fn segment_header(content: &[u8], segment: u32) -> SegmentHeader {
    let header = Bytes::copy_from_slice(&content[..HEADER_BYTES as usize]);
    SegmentHeader::decode(&header, segment).unwrap()
}

fn entry(term: u64, index: Index, command: impl Into<Bytes>) -> Entry {
    Entry {
        log_id: LogId::new(term, 1, index),
        time: index,
        payload: Payload::Command(command.into()),
    }
}

fn entries(entries: impl Into<Vec<Entry>>) -> LogWrite {
    LogWrite { entries: entries.into().into(), ..LogWrite::default() }
}

fn hard_state(term: u64, vote: u64) -> LogWrite {
    let voted_for = Some(Replica::new(vote, 7)).filter(|vote| vote.id > 0);
    let hard_state = HardState { term: Term(term), voted_for };
    LogWrite { hard_state: Some(hard_state), ..LogWrite::default() }
}

/// Submits, without waiting.
fn submit<R: Files>(store: &FileStore<R>, group: GroupId, write: LogWrite) -> Outcome {
    let (sender, receiver) = oneshot::channel();
    let tell = move |outcome| {
        let _ = sender.send(outcome);
    };
    let Appended::Pending = store.append(group, write, Completion::new(tell)) else {
        panic!("a file is never durable at once")
    };
    receiver
}

/// Writes durably.
async fn put<R: Files>(store: &FileStore<R>, group: GroupId, write: LogWrite) {
    submit(store, group, write).await.unwrap().unwrap();
}

/// The whole log of a group.
async fn all<R: Files>(store: &FileStore<R>, group: GroupId) -> Vec<Entry> {
    let last = last(store, group).await;
    store.read(group, 1..last + 1, usize::MAX).await.unwrap().to_vec()
}

async fn last<R: Files>(store: &FileStore<R>, group: GroupId) -> Index {
    recovered(store, group).await.log_meta.last().index
}

/// What the store holds of a group, which is not opened by that.
async fn recovered<R: Files>(store: &FileStore<R>, group: GroupId) -> Recovered {
    let recovered = store.recover(group).await.unwrap();
    store.release(group);
    recovered
}
