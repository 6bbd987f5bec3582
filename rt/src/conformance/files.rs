//! Files: positional reads and writes, durability, directories, locks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use tempfile::TempDir;

use super::net::{cut, pattern};
use super::{guard, yield_now};
use crate::blocking::WRITES_ARE_DURABLE;
use crate::channel::oneshot;
use crate::{File, Files, OpenMode};

/// An empty directory, deleted at the end.
pub(super) struct Scratch {
    path: PathBuf,
    _delete: TempDir,
}

impl Scratch {
    pub(super) async fn new<R: Files>(rt: &R) -> Self {
        let delete = TempDir::with_prefix("quorate-conformance-").unwrap();
        let path = delete.path().join("scratch");
        rt.create_dir_all(&path).await.unwrap();
        Self { path, _delete: delete }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

pub(super) async fn create<R: Files>(rt: &R, path: &Path, content: &[u8]) -> R::File {
    let file = rt.open(path, OpenMode::CreateNew).await.unwrap();
    file.write_all_at(vec![Bytes::copy_from_slice(content)], 0).await.unwrap();
    file
}

/// Everything in it.
async fn content(file: &impl File) -> BytesMut {
    let mut got = BytesMut::new();
    loop {
        got.reserve(64 * 1024);
        let offset = got.len() as u64;
        let (result, back) = file.read_at(got, offset).await;
        got = back;
        if result.unwrap() == 0 {
            return got;
        }
    }
}

pub async fn reads_what_was_written<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"0123456789").await;
    assert_eq!(content(&file).await, "0123456789");
    assert_eq!(file.len().await.unwrap(), 10);
    file.write_all_at(vec![Bytes::from_static(b"abc")], 4).await.unwrap();
    assert_eq!(content(&file).await, "0123abc789");
    let (result, got) = file.read_at(BytesMut::with_capacity(3), 5).await;
    assert!(result.unwrap() > 0);
    assert!("bc789".as_bytes().starts_with(&got));
    let other = rt.open(&scratch.path("a"), OpenMode::Read).await.unwrap();
    assert_eq!(content(&other).await, "0123abc789");
}

pub async fn reads_past_the_end<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"0123456789").await;
    let (result, got) = file.read_at(BytesMut::with_capacity(100), 7).await;
    assert_eq!(result.unwrap(), 3, "short, at the end");
    assert_eq!(got, "789");
    for offset in [10, 11, 1 << 40] {
        let (result, got) = file.read_at(BytesMut::with_capacity(100), offset).await;
        assert_eq!(result.unwrap(), 0);
        assert!(got.is_empty());
    }
}

pub async fn reads_append<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"0123456789").await;
    let mut into = BytesMut::with_capacity(7);
    into.put_slice(b"abc");
    let (capacity, place) = (into.capacity(), into.as_ptr());
    let (result, into) = file.read_at(into, 2).await;
    let read = result.unwrap();
    assert!(read > 0);
    assert_eq!(into, "abc23456789".as_bytes()[..3 + read]);
    assert_eq!(into.capacity(), capacity, "a buffer neither grows nor shrinks");
    assert_eq!(into.as_ptr(), place, "nor moves");

    let mut full = BytesMut::with_capacity(4);
    full.put_bytes(b'f', full.capacity());
    let before = full.clone();
    let (result, full) = file.read_at(full, 0).await;
    assert_eq!(result.unwrap(), 0, "no room, nothing read");
    assert_eq!(full, before);

    let mut past = BytesMut::with_capacity(7);
    past.put_slice(b"abc");
    let (result, past) = file.read_at(past, 10).await;
    assert_eq!(result.unwrap(), 0);
    assert_eq!(past, "abc");
}

pub async fn gathered_writes<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"head").await;
    let buffers = [&b"one"[..], b"", b"two", b"three", b""].map(Bytes::from_static);
    file.write_all_at(buffers.to_vec(), 6).await.unwrap();
    assert_eq!(content(&file).await, "head\0\0onetwothree");
    file.write_all_at(Vec::new(), 0).await.unwrap();
    file.write_all_at(vec![Bytes::new()], 1_000).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 17, "writing nothing changes nothing");

    // More than one gathered write takes (IOV_MAX is 1024).
    for (name, len) in [("b", 20_000), ("c", 8 << 20)] {
        let whole = pattern(len);
        let file = create(&rt, &scratch.path(name), b"12345").await;
        file.write_all_at(cut(whole.clone(), 5_000), 5).await.unwrap();
        let got = content(&file).await;
        assert_eq!(got.len(), 5 + len);
        assert!(got[..5] == *b"12345" && got[5..] == whole, "every byte in its place");
    }
}

pub async fn used_by_many_tasks<R: Files>(rt: R) {
    const TASKS: usize = 100;
    const LEN: usize = 5_000;
    let scratch = Scratch::new(&rt).await;
    let file = Rc::new(create(&rt, &scratch.path("a"), b"").await);
    let whole = pattern(TASKS * LEN);
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let file = Rc::clone(&file);
            let part = whole.slice(number * LEN..(number + 1) * LEN);
            let offset = (number * LEN) as u64;
            rt.spawn(async move {
                file.write_all_at(vec![part.clone()], offset).await.unwrap();
                file.sync_data().await.unwrap();
                let (result, mut got) = file.read_at(BytesMut::with_capacity(LEN), offset).await;
                assert!(result.unwrap() > 0);
                got.truncate(LEN);
                assert!(part.starts_with(&got));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(content(&*file).await == whole);
}

pub async fn syncs<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"one").await;
    file.sync_data().await.unwrap();
    file.write_all_at(vec![Bytes::from_static(b"two")], 3).await.unwrap();
    file.sync_data().await.unwrap();
    rt.sync_dir(&scratch.path).await.unwrap();
    drop(file);
    let file = rt.open(&scratch.path("a"), OpenMode::Read).await.unwrap();
    assert_eq!(content(&file).await, "onetwo");
}

pub async fn writes_durably<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"0123456789").await;
    file.write_durably_at(vec![Bytes::from_static(b"abc")], 4).await.unwrap();
    file.write_durably_at(vec![], 4).await.unwrap();
    assert_eq!(content(&file).await, "0123abc789");
    // Several small ones, several large ones, and more of them than the kernel takes at once.
    for (count, len) in [(3, 5), (3, 10_000), (1500, 7), (1500, 5000)] {
        let buffers: Vec<_> = (0..count).map(|at| Bytes::from(vec![at as u8; len])).collect();
        file.set_len(0).await.unwrap();
        file.write_durably_at(buffers.clone(), 10).await.unwrap();
        let got = content(&file).await;
        assert!(got[10..] == buffers.concat() && got[..10] == [0; 10], "{count} of {len} bytes");
    }
    let read_only = rt.open(&scratch.path("a"), OpenMode::Read).await.unwrap();
    let refused = read_only.write_durably_at(vec![Bytes::from_static(b"no")], 0).await;
    assert!(refused.is_err(), "a file that is open for reading only");
}

/// Not in the suite, but for backends that write through a ring: a file that may be written has a
/// descriptor whose writes are durable when they are done. That they are, nothing short of a power
/// cut tells.
pub async fn has_a_descriptor_for_durable_writes<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let path = scratch.path("a");
    let _created = create(&rt, &path, b"content").await;
    let _opened = rt.open(&path, OpenMode::Write).await.unwrap();
    let _read_only = rt.open(&path, OpenMode::Read).await.unwrap();
    let links = fs::read_dir("/proc/self/fd").unwrap().map(|link| link.unwrap());
    let of_file = links.filter(|link| fs::read_link(link.path()).is_ok_and(|to| to == path));
    let durable = of_file.filter(|link| {
        let info = Path::new("/proc/self/fdinfo").join(link.file_name());
        let info = fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        i32::from_str_radix(flags, 8).unwrap() & WRITES_ARE_DURABLE == WRITES_ARE_DURABLE
    });
    assert_eq!(durable.count(), 2);
}

pub async fn allocates<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"data").await;
    file.allocate(100_000).await.unwrap();
    file.sync_data().await.unwrap();
    let got = content(&file).await;
    assert_eq!(got.len(), 100_000);
    assert_eq!(got[..4], *b"data");
    assert!(got[4..].iter().all(|byte| *byte == 0));
    for less in [0, 3, 50_000, 100_000] {
        file.allocate(less).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 100_000, "it never cuts");
    }
    file.write_all_at(vec![Bytes::from_static(b"more")], 50_000).await.unwrap();
    assert_eq!(content(&file).await[50_000..50_005], *b"more\0");
    assert!(file.allocate(u64::MAX).await.is_err());
    assert!(file.allocate(1 << 60).await.is_err(), "no disk is that large");
    assert_eq!(file.len().await.unwrap(), 100_000);
}

pub async fn cuts_and_extends<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let file = create(&rt, &scratch.path("a"), b"0123456789").await;
    file.set_len(4).await.unwrap();
    assert_eq!(content(&file).await, "0123");
    file.set_len(6).await.unwrap();
    assert_eq!(content(&file).await, "0123\0\0", "what was cut does not come back");
    assert_eq!(file.len().await.unwrap(), 6);
    file.set_len(0).await.unwrap();
    assert_eq!(content(&file).await, "");
}

pub async fn open_modes<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let path = scratch.path("a");
    for mode in [OpenMode::Read, OpenMode::Write] {
        let error = rt.open(&path, mode).await.err().expect("it is missing");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{mode:?}");
    }
    drop(create(&rt, &path, b"kept").await);
    let error = rt.open(&path, OpenMode::CreateNew).await.err().expect("it exists");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);

    let file = rt.open(&path, OpenMode::Write).await.unwrap();
    assert_eq!(content(&file).await, "kept", "opening cuts nothing");
    file.write_all_at(vec![Bytes::from_static(b"K")], 0).await.unwrap();
    let file = rt.open(&path, OpenMode::Read).await.unwrap();
    assert_eq!(content(&file).await, "Kept");
    assert!(file.write_all_at(vec![Bytes::from_static(b"x")], 0).await.is_err());
    let error = rt.open(&scratch.path("none/a"), OpenMode::CreateNew).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

pub async fn renames<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let (new, old) = (scratch.path("new"), scratch.path("old"));
    let file = create(&rt, &new, b"new").await;
    file.sync_data().await.unwrap();
    drop(create(&rt, &old, b"old").await);
    rt.rename(&new, &old).await.unwrap();
    assert_eq!(rt.read_dir(&scratch.path).await.unwrap(), ["old"]);
    let renamed = rt.open(&old, OpenMode::Read).await.unwrap();
    assert_eq!(content(&renamed).await, "new", "the target is replaced");
    file.write_all_at(vec![Bytes::from_static(b"NEW")], 0).await.unwrap();
    assert_eq!(content(&renamed).await, "NEW", "an open file goes with its name");

    let error = rt.rename(&new, &old).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(content(&renamed).await, "NEW");
}

pub async fn directories<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let deep = scratch.path("x/y/z");
    rt.create_dir_all(&deep).await.unwrap();
    rt.create_dir_all(&deep).await.expect("it exists already");
    rt.create_dir_all(&scratch.path("x/w")).await.unwrap();
    assert_eq!(rt.read_dir(&scratch.path("x")).await.unwrap(), ["w", "y"]);
    assert!(rt.read_dir(&deep).await.unwrap().is_empty());

    for name in ["b", "c", "a", "ü", "10", "9"] {
        drop(create(&rt, &deep.join(name), b"").await);
    }
    assert_eq!(rt.read_dir(&deep).await.unwrap(), ["10", "9", "a", "b", "c", "ü"], "sorted");
    rt.remove_file(&deep.join("b")).await.unwrap();
    rt.sync_dir(&deep).await.unwrap();
    assert_eq!(rt.read_dir(&deep).await.unwrap(), ["10", "9", "a", "c", "ü"]);

    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(rt.remove_file(&deep.join("b")).await), ErrorKind::NotFound);
    assert_eq!(kind(rt.sync_dir(&scratch.path("none")).await), ErrorKind::NotFound);
    assert_eq!(kind(rt.read_dir(&scratch.path("none")).await.map(drop)), ErrorKind::NotFound);
    assert!(rt.create_dir_all(&deep.join("a")).await.is_err(), "a file is in its place");
    assert!(rt.create_dir_all(&deep.join("a/b")).await.is_err(), "a file is in its way");
}

pub async fn names_that_are_not_utf8<R: Files>(rt: R) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let scratch = Scratch::new(&rt).await;
    let path = scratch.path.join(OsStr::from_bytes(b"not-\xff-utf8"));
    drop(create(&rt, &path, b"").await);
    let error = rt.read_dir(&scratch.path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

pub async fn locks<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let path = scratch.path("lock");
    for _ in 0..3 {
        let held = rt.lock_file(&path).await.unwrap();
        let error = rt.lock_file(&path).await.err().expect("it is held");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains("lock"), "it says which: {error}");
        let _other = rt.lock_file(&scratch.path("other")).await.unwrap();
        drop(held);
    }
    drop(create(&rt, &scratch.path("a"), b"kept").await);
    let _held = rt.lock_file(&scratch.path("a")).await.unwrap();
    let file = rt.open(&scratch.path("a"), OpenMode::Read).await.unwrap();
    assert_eq!(content(&file).await, "kept", "locking cuts nothing");
}

pub async fn cancelled_operations<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    for round in 0..20 {
        let path = scratch.path(&round.to_string());
        let (guard, dropped) = guard();
        let (begun, has_begun) = oneshot::channel();
        let (inner, at) = (rt.clone(), path.clone());
        let writing = rt.spawn(async move {
            let _guard = guard;
            let file = create(&inner, &at, b"").await;
            begun.send(()).unwrap();
            file.write_all_at(vec![pattern(1 << 20)], 0).await.unwrap();
            file.sync_data().await.unwrap();
        });
        has_begun.await.unwrap();
        for _ in 0..round {
            yield_now().await; // Drops it at one point or another.
        }
        drop(writing);
        dropped.await.unwrap();
        let file = rt.open(&path, OpenMode::Write).await.unwrap();
        let got = content(&file).await;
        assert!(pattern(1 << 20).starts_with(&got), "whatever was written is what was to be");
    }
}

pub async fn many_files<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    for number in 0..100 {
        let file = create(&rt, &scratch.path(&number.to_string()), b"x").await;
        let task = rt.spawn(async move { file.len().await.unwrap() });
        assert_eq!(task.await, Ok(1));
    }
    assert_eq!(rt.read_dir(&scratch.path).await.unwrap().len(), 100);
}
