//! What a state machine writes is what it reads, in chunks, with the digest of all of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use quorate_rt::{Executor, Launch, testing};

use super::*;

/// A draft in memory, and the content that it has become.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<Bytes>>>);

impl Memory {
    fn of(content: &[u8]) -> Self {
        Self(Rc::new(RefCell::new(vec![Bytes::copy_from_slice(content)])))
    }

    fn content(&self) -> Vec<u8> {
        self.0.borrow().concat()
    }

    fn chunks(&self) -> Vec<usize> {
        self.0.borrow().iter().map(Bytes::len).collect()
    }

    fn writer(&self) -> SnapshotWriter {
        SnapshotWriter::new(Box::new(self.clone()))
    }

    /// Reads what is said to have so many bytes.
    fn reader(&self, bytes: usize) -> SnapshotReader {
        SnapshotReader::new(Box::new(self.clone()), bytes as u64)
    }
}

#[async_trait(?Send)]
impl SnapshotDraft for Memory {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.0.borrow_mut().push(chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>, _: &SnapshotMeta) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait(?Send)]
impl SnapshotContent for Memory {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let content = Bytes::from(self.content());
        let from = content.len().min(offset as usize);
        Ok(content.slice(from..content.len().min(from + max_bytes)))
    }
}

/// A disk that is full.
struct Full;

#[async_trait(?Send)]
impl SnapshotDraft for Full {
    async fn write(&mut self, _: Bytes) -> Result<(), StoreError> {
        Err(StoreError::io("writing", io::ErrorKind::StorageFull.into()))
    }

    async fn finish(self: Box<Self>, _: &SnapshotMeta) -> Result<(), StoreError> {
        unreachable!("nothing was written")
    }
}

fn run<T: 'static>(test: impl Future<Output = T> + 'static) -> T {
    testing::Memory::run(&Launch::default(), async |_: testing::Memory| test.await)
        .expect("the runtime starts")
}

/// Bytes of which no two parts are the same.
fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

fn reason<T>(result: Result<T, SnapshotError>) -> String {
    match result {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it should have failed"),
    }
}

#[test]
fn small_writes_are_gathered_and_large_ones_are_split() {
    run(async {
        let memory = Memory::default();
        let mut writer = memory.writer();
        let content = bytes(3 * CHUNK_BYTES + 1000);
        let (small, large) = content.split_at(1000);
        for part in small.chunks(10) {
            writer.write(part).await.expect("writes");
        }
        assert_eq!(memory.chunks(), [0usize; 0], "they are held back");
        let (first, second) = large.split_at(CHUNK_BYTES);
        writer.write(first).await.expect("writes");
        assert_eq!(memory.chunks(), [CHUNK_BYTES]);
        writer.write_bytes(Bytes::copy_from_slice(second)).await.expect("writes");
        let (_, len, digest) = writer.end().await.expect("ends");
        assert_eq!(memory.chunks(), [CHUNK_BYTES, 1000, CHUNK_BYTES, CHUNK_BYTES]);
        assert_eq!(memory.content(), content, "in order");
        assert_eq!((len, digest), (content.len() as u64, Digest::of(&content)));
    });
}

/// No content: it may be large, and secret.
#[test]
fn a_log_may_tell_how_much_is_left_to_be_read() {
    run(async {
        let memory = Memory::of(b"secret");
        let mut reader = memory.reader(6);
        reader.read(2).await.expect("reads");
        assert_eq!(format!("{reader:?}"), "SnapshotReader { remaining: 4, .. }");
        let mut writer = memory.writer();
        writer.write(b"secret").await.expect("writes");
        assert_eq!(format!("{writer:?}"), "SnapshotWriter { .. }");
    });
}

#[test]
fn what_is_held_back_is_handed_over_at_the_end() {
    run(async {
        let memory = Memory::default();
        let mut writer = memory.writer();
        writer.write_bytes(Bytes::from_static(b"ab")).await.expect("writes");
        writer.write(b"").await.expect("writes");
        writer.write(b"c").await.expect("writes");
        let (_, len, digest) = writer.end().await.expect("ends");
        assert_eq!(memory.content(), b"abc");
        assert_eq!((len, digest), (3, Digest::of(b"abc")));
    });
}

#[test]
fn a_snapshot_may_be_empty() {
    run(async {
        let memory = Memory::default();
        let (_, len, digest) = memory.writer().end().await.expect("ends");
        assert_eq!((len, digest), (0, Digest::of(b"")));
        let mut reader = memory.reader(0);
        assert_eq!(reader.read(0).await.expect("reads"), b""[..]);
        assert_eq!(reader.end().expect("is at its end"), digest);
    });
}

#[test]
fn a_full_disk_is_told_of_where_the_bytes_go_to_it() {
    run(async {
        let mut writer = SnapshotWriter::new(Box::new(Full));
        let failed = writer.write(&bytes(CHUNK_BYTES)).await;
        assert!(matches!(failed, Err(SnapshotError::Store(StoreError::Io { .. }))), "{failed:?}");
        let mut writer = SnapshotWriter::new(Box::new(Full));
        writer.write(b"held back").await.expect("nothing is written yet");
        assert!(matches!(writer.end().await.map(|_| ()), Err(SnapshotError::Store(_))));
    });
}

#[test]
fn what_is_read_is_what_was_written_however_it_is_cut() {
    run(async {
        let content = bytes(2 * CHUNK_BYTES + 100);
        let memory = Memory::of(&content);
        for step in [7919, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, content.len()] {
            let mut reader = memory.reader(content.len());
            let mut read = Vec::new();
            while reader.remaining() > 0 {
                let len = reader.remaining().min(step as u64);
                read.extend_from_slice(&reader.read(len).await.expect("reads"));
                assert_eq!(reader.remaining(), (content.len() - read.len()) as u64);
            }
            assert!(read == content, "in steps of {step}");
            assert_eq!(reader.end().expect("is at its end"), Digest::of(&content));
        }
    });
}

#[test]
fn numbers_are_little_endian_and_may_lie_across_chunks() {
    run(async {
        let mut content = vec![0; CHUNK_BYTES - 3];
        content.extend_from_slice(&0x0102_0304_0506_0708_u64.to_le_bytes());
        let memory = Memory::of(&content);
        let mut reader = memory.reader(content.len());
        reader.read(CHUNK_BYTES as u64 - 3).await.expect("reads");
        assert_eq!(reader.read_u64().await.expect("reads"), 0x0102_0304_0506_0708);
        assert_eq!(
            reason(reader.read_u64().await),
            "the state machine's snapshot: 8 bytes wanted where 0 are left"
        );
    });
}

#[test]
fn no_more_is_read_than_there_is_and_nothing_is_left() {
    run(async {
        let mut reader = Memory::of(b"abc").reader(3);
        assert_eq!(
            reason(reader.read(4).await),
            "the state machine's snapshot: 4 bytes wanted where 3 are left"
        );
        assert_eq!(
            reason(reader.read(u64::MAX).await),
            format!("the state machine's snapshot: {} bytes wanted where 3 are left", u64::MAX)
        );
        assert_eq!(reader.read(2).await.expect("it goes on"), b"ab"[..]);
        assert_eq!(reason(reader.end()), "the state machine's snapshot: 1 bytes were left unread");
    });
}

#[test]
fn a_content_that_ends_too_early_is_an_error_of_the_store() {
    run(async {
        let len = CHUNK_BYTES + 10;
        let mut reader = Memory::of(&bytes(len - 1)).reader(len);
        reader.read(CHUNK_BYTES as u64).await.expect("so much is there");
        let cut = reader.read(10).await;
        let Err(SnapshotError::Store(StoreError::Io { source, .. })) = cut else {
            panic!("{cut:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn another_content_has_another_digest() {
    run(async {
        let mut content = bytes(CHUNK_BYTES + 10);
        let digest = Digest::of(&content);
        content[CHUNK_BYTES + 5] ^= 1;
        let mut reader = Memory::of(&content).reader(content.len());
        reader.read(content.len() as u64).await.expect("reads");
        assert_ne!(reader.end().expect("is at its end"), digest);
    });
}

type Map = BTreeMap<String, Vec<u32>>;

/// What a map becomes that is restored from these bytes.
async fn restored(content: &[u8]) -> Result<Map, SnapshotError> {
    let mut map = Map::from([("what was there before".to_owned(), vec![])]);
    map.restore(&mut Memory::of(content).reader(content.len())).await?;
    Ok(map)
}

#[test]
fn what_serde_knows_has_a_snapshot() {
    run(async {
        let map = Map::from([("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![])]);
        let (memory, view) = (Memory::default(), map.view().expect("has a view"));
        let mut writer = memory.writer();
        Map::write(view, &mut writer).await.expect("writes");
        writer.end().await.expect("ends");
        assert_eq!(restored(&memory.content()).await.expect("is restored"), map);
    });
}

#[test]
fn what_serde_can_make_no_sense_of_is_an_error() {
    run(async {
        let map = Map::from([("a".to_owned(), vec![1, 2])]);
        let good = map.view().expect("has a view");
        assert_eq!(restored(&good).await.expect("is restored"), map);
        let long = [&good[..], b"xy"].concat();
        let refusal = "the state machine's snapshot: there are bytes after its end";
        assert_eq!(reason(restored(&long).await), refusal);
        for cut in 0..good.len() {
            let failed = restored(&good[..cut]).await;
            assert!(matches!(failed, Err(SnapshotError::StateMachine(_))), "{cut}: {failed:?}");
        }
    });
}
