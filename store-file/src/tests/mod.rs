//! Scenarios of a store: what it keeps, what it refuses, and what it does when the disk fails. They
//! run on tokio, and could on any runtime.

mod compaction;
mod crashes;
mod damage;
mod failure;
mod faults;
mod folders;
mod forged;
mod identity;
mod images;
mod log;
mod memory;
mod model;
mod records;
mod refused;
mod snapshots;
mod state;

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    ClusterId, Completion, Entry, GroupId, HardState, Index, LogId, LogStore, LogWrite, Payload,
    Recovered, Replica, StoreError, Term,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{AsyncRuntime, Launch, yield_now};
use quorate_rt_tokio::Tokio;
use tempfile::TempDir;

use self::faults::{Faults, Faulty};
use crate::format::{ALIGNMENT, HEADER_BYTES, Position, SegmentHeader};
use crate::record::{WITNESS_BYTES, witness};
use crate::{FileConfig, FileStore};

type Rt = Faulty<Tokio>;
type Store = FileStore<Rt>;
type Outcome = oneshot::Receiver<Result<(), StoreError>>;

/// A runtime, a directory and settings.
struct Scene {
    rt: Rt,
    dir: TempDir,
    config: FileConfig,
}

/// Small segments, and nothing in memory that is durable.
const SMALL: FileConfig =
    FileConfig { segment_bytes: 16 << 10, cache_bytes: 0, max_batch_bytes: 8 << 10 };

fn scene(scenario: impl AsyncFnOnce(Scene)) {
    let dir = tempfile::tempdir().unwrap();
    Rt::run(&Launch::named("test"), async |rt| scenario(Scene { rt, dir, config: SMALL }).await)
        .unwrap();
}

impl Scene {
    async fn try_open(&self) -> Result<Store, StoreError> {
        FileStore::open_with(&self.rt, self.dir.path(), self.config.clone()).await
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    fn faults(&self) -> &Rc<Faults> {
        &self.rt.faults
    }

    fn segment(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("wal/{number:016}.wal"))
    }

    fn content(&self, segment: u32) -> Vec<u8> {
        fs::read(self.segment(segment)).unwrap()
    }

    /// The end of a segment's records.
    fn end(&self, segment: u32) -> u64 {
        let content = self.content(segment);
        // A record ends with the last byte that isn't zero, filled up; a witness is none.
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let used = used.next_multiple_of(ALIGNMENT as usize) as u64;
        let Some(at) = used.checked_sub(WITNESS_BYTES) else { return used };
        let store = segment_header(&content, segment).store;
        let end = Position { segment, offset: at };
        let found = content[at as usize..used as usize] == witness(store, end);
        if found { at } else { used }
    }

    /// Each record stands within the length that its segment was made with.
    fn fits(&self) {
        for number in (1..).take_while(|number| self.segment(*number).exists()) {
            let made_with = segment_header(&self.content(number), number).bytes;
            assert!(self.end(number) <= made_with, "segment {number}");
        }
    }

    /// Removes the witness from a segment, as if the system had crashed before that was on disk.
    fn crash(&self, segment: u32) {
        let (mut content, end) = (self.content(segment), self.end(segment));
        content[end as usize..].fill(0);
        self.set_content(segment, &content);
    }

    fn set_content(&self, segment: u32, content: &[u8]) {
        fs::write(self.segment(segment), content).unwrap();
    }

    /// Until a segment is there: they are made in the background.
    async fn made(&self, segment: u32) {
        while !self.segment(segment).exists() {
            self.rt.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Until a store that was dropped has written its last.
    async fn closed(&self) {
        let lock = self.dir.path().join("LOCK");
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
fn submit<R: AsyncRuntime>(store: &FileStore<R>, group: GroupId, write: LogWrite) -> Outcome {
    let (sender, receiver) = oneshot::channel();
    let tell = move |outcome| {
        let _ = sender.send(outcome);
    };
    store.append(group, write, Completion::new(tell));
    receiver
}

/// Writes durably.
async fn put<R: AsyncRuntime>(store: &FileStore<R>, group: GroupId, write: LogWrite) {
    submit(store, group, write).await.unwrap().unwrap();
}

/// The whole log of a group.
async fn all<R: AsyncRuntime>(store: &FileStore<R>, group: GroupId) -> Vec<Entry> {
    let last = last(store, group).await;
    store.read(group, 1..last + 1, usize::MAX).await.unwrap().to_vec()
}

async fn last<R: AsyncRuntime>(store: &FileStore<R>, group: GroupId) -> Index {
    store.recover(group).await.unwrap().outline.last().index
}
