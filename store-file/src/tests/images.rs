//! What tests of crashes share: disks in memory, where records stand on them, and what of them may
//! be missing.

use std::path::Path;

use super::*;
use crate::format::{HEADER_BYTES, record_seed};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader, record_bytes};

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

pub(super) const DIR: &str = "/store";

/// Where a record stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// Bytes of it that mean something.
    pub(super) used: usize,
    pub(super) sync_marker: bool,
    /// Whether it is a copy of entries.
    pub(super) copy: bool,
}

pub(super) async fn open(rt: &Memory) -> Result<FileStore<Memory>, StoreError> {
    FileStore::open_with(rt, DIR, SMALL).await
}

/// What is there once a dropped store has written its last.
pub(super) async fn closed(rt: &Memory) -> Image {
    while rt.lock_file(&Path::new(DIR).join("LOCK")).await.is_err() {
        yield_now().await;
    }
    rt.disk.now()
}

pub(super) fn segments(image: &Image) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
    image.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "wal"))
}

pub(super) fn ends_with_an_empty_segment(image: &Image) -> bool {
    let last = segments(image).skip(1).last();
    last.is_some_and(|(_, last)| last[HEADER_BYTES as usize..].iter().all(|byte| *byte == 0))
}

/// The sectors in which two contents differ, by file and offset.
pub(super) fn differences(old: &Image, new: &Image) -> Vec<(PathBuf, usize)> {
    let mut sectors = Vec::new();
    for (path, new) in segments(new) {
        let mut old = old.get(path).cloned().unwrap_or_default();
        old.resize(new.len(), 0);
        let pairs = old.chunks(SECTOR).zip(new.chunks(SECTOR)).enumerate();
        let changed = pairs.filter(|(_, (old, new))| old != new);
        sectors.extend(changed.map(|(at, _)| (path.clone(), at * SECTOR)));
    }
    sectors
}

/// The new content without some of what differs from the old.
pub(super) fn without(old: &Image, new: &Image, missing: &[(PathBuf, usize)]) -> Image {
    let mut image = new.clone();
    for (path, at) in missing {
        let content = image.get_mut(path).unwrap();
        let end = content.len().min(at + SECTOR);
        let sector = &mut content[*at..end];
        let old = old.get(path).and_then(|old| old.get(*at..end)).unwrap_or_default();
        sector.fill(0);
        sector[..old.len()].copy_from_slice(old);
    }
    image
}

pub(super) fn subset<T: Clone>(of: &[T], mask: usize) -> Vec<T> {
    let chosen = of.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
    chosen.map(|(_, item)| item.clone()).collect()
}

/// The number of a segment.
pub(super) fn number(file: &Path) -> u32 {
    file.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// The records of a log that is whole.
pub(super) fn places(image: &Image) -> Vec<Place> {
    let mut places = Vec::new();
    for (file, content) in segments(image) {
        let segment = number(file);
        let store = segment_header(content, segment).store;
        let mut begin = HEADER_BYTES;
        while let Some(header) = content.get(begin as usize..).and_then(|rest| rest.first_chunk())
            && let Some(record) = RecordHeader::decode(
                header,
                record_seed(store, Position { segment, offset: begin }),
            )
        {
            let used = RECORD_HEADER_BYTES + record.body_bytes as usize;
            let end = begin + record_bytes(record.body_bytes);
            let (file, sync_marker) = (file.clone(), record.is_sync_marker());
            let copy = record.is_copy();
            places.push(Place {
                file,
                begin: begin as usize,
                end: end as usize,
                used,
                sync_marker,
                copy,
            });
            begin = end;
        }
    }
    places
}

pub(super) fn in_memory(scenario: impl AsyncFnOnce(Memory)) {
    Memory::run(&Launch::named("test"), scenario).unwrap();
}
