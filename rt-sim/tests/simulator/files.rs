//! Errors, full and slow disks, and rot.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_rt::{Executor, File, Files, OpenMode, Task};
use quorate_rt_sim::{Crash, DiskConfig, DiskImage};

use crate::common::*;

const SECTOR: usize = 512;
const EIO: i32 = 5;

impl Pair {
    fn is_disk(&self, change: impl FnOnce(&mut DiskConfig)) {
        let mut config = DiskConfig::default();
        change(&mut config);
        self.a.disk().configure(config);
    }

    fn file(&self, data: impl Into<Bytes>) -> quorate_rt_sim::SimFile {
        self.wait(create_durable(&self.on_a, "/file", data))
    }
}

fn is_eio<T>(result: std::io::Result<T>) -> bool {
    result.err().is_some_and(|error| error.raw_os_error() == Some(EIO))
}

#[test]
fn operations_take_as_long_as_the_disk_does() {
    let pair = Pair::new(1);
    let file = pair.file("x");
    pair.is_disk(|disk| {
        disk.latency = MS..2 * MS;
        disk.sync_latency = 10 * MS..20 * MS;
    });
    let quick = |took: Duration| took >= MS && took < 2 * MS;
    assert!(quick(pair.time(file.read_at(BytesMut::with_capacity(1), 0)).1));
    assert!(quick(pair.time(write_at(&file, 0, "y")).1));
    assert!(quick(pair.time(file.len()).1));
    assert!(quick(pair.time(file.set_len(5)).1));
    assert!(quick(pair.time(file.allocate(5)).1));
    assert!(quick(pair.time(pair.on_a.open(Path::new("/file"), OpenMode::Read)).1));
    let took = pair.time(file.sync_data()).1;
    assert!(took >= 10 * MS && took < 20 * MS, "{took:?}");
}

#[test]
fn a_stalled_disk_ends_nothing_until_it_goes_on() {
    let pair = Pair::new(1);
    let file = pair.file("x");
    let rt = pair.on_a.clone();
    let begun = pair.simulation.now();
    let reading = rt.spawn(async move {
        let read = file.read_at(BytesMut::with_capacity(10), 0).await.0;
        (read.unwrap(), file)
    });
    pair.simulation.step(); // It has begun.
    pair.a.disk().stall(10 * SECOND);
    pair.a.disk().stall(SECOND); // A shorter one does not end it.
    let (read, file) = pair.wait(reading).unwrap();
    assert_eq!(read, 1);
    let took = pair.simulation.now() - begun;
    assert!(took >= 10 * SECOND && took < 10 * SECOND + MS, "{took:?}");

    pair.a.disk().stall(10 * SECOND);
    let took = pair.time(file.sync_data()).1;
    assert!(took >= 10 * SECOND && took < 10 * SECOND + MS, "nor what begins: {took:?}");
    assert!(pair.time(file.sync_data()).1 < 10 * MS, "it is over");
}

#[test]
fn a_disk_that_resumes_ends_what_its_stall_has_held_up() {
    let pair = Pair::new(1);
    let file = pair.file("x");
    pair.a.disk().stall(HOUR);
    let syncing = pair.on_a.spawn(async move { file.sync_data().await });
    pair.simulation.run_for(SECOND);
    pair.a.disk().resume();
    let (synced, took) = pair.time(syncing);
    assert!(synced.unwrap().is_ok() && took < 10 * MS, "{took:?}");
}

#[test]
fn what_a_stall_holds_up_dies_with_its_process() {
    let pair = Pair::new(1);
    for crash in [Crash::Process, Crash::Power] {
        pair.a.disk().replace(&DiskImage::default());
        pair.a.disk().stall(SECOND);
        pair.a.crash(Crash::Process);
        pair.a.start(async |rt| drop(create(&rt, "/file").await));
        pair.simulation.run_for(SECOND / 2);
        pair.a.crash(crash);
        pair.simulation.run_for(HOUR);
        assert!(pair.a.disk().files().is_empty());
        pair.a.start(idle);
    }
}

#[test]
fn reads_fail() {
    for_some(0..50, |seed| {
        let pair = Pair::new(seed);
        let file = pair.file("hello");
        pair.is_disk(|disk| disk.read_errors = 0.5);
        let (read, into) = pair.wait(async {
            let mut into = BytesMut::with_capacity(20);
            into.extend_from_slice(b"before ");
            file.read_at(into, 0).await
        });
        let failed = is_eio(read);
        assert!(failed && into == "before " || into.starts_with(b"before h"), "{into:?}");
        assert_eq!(pair.simulation.counts().contains_key("read error"), failed);
        failed
    });
}

#[test]
fn asking_for_the_length_never_fails() {
    let pair = Pair::new(1);
    let file = pair.file("hello");
    pair.is_disk(|disk| disk.read_errors = 1.0);
    assert_eq!(pair.wait(file.len()).unwrap(), 5);
    assert!(!pair.simulation.counts().contains_key("read error"), "so none is counted");
}

#[test]
fn a_write_that_fails_may_have_written_any_of_its_sectors() {
    let (old, new) = (vec![1; 4 * SECTOR], vec![2; 4 * SECTOR]);
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let pair = Pair::new(seed);
        let file = pair.file(old.clone());
        pair.is_disk(|disk| disk.write_errors = 1.0);
        assert!(is_eio(pair.wait(write_at(&file, 0, new.clone()))));
        assert_eq!(pair.simulation.counts()["write error"], 1);
        pair.is_disk(|_| ());
        let content = pair.wait(content(&file));
        let sectors: Vec<u8> = content.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(content.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 16, "{seen:?}");
}

#[test]
fn setting_a_length_fails_and_changes_nothing() {
    let pair = Pair::new(1);
    let file = pair.file("hello");
    pair.is_disk(|disk| disk.write_errors = 1.0);
    assert!(is_eio(pair.wait(file.set_len(0))) && is_eio(pair.wait(file.allocate(100))));
    assert_eq!(pair.wait(file.len()).unwrap(), 5);
}

#[test]
fn what_a_failed_sync_has_lost_is_not_brought_back_by_one_that_succeeds() {
    let new = vec![2u8; 8 * SECTOR];
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let pair = Pair::new(seed);
        let file = pair.file(vec![1; 8 * SECTOR]);
        pair.wait(write_at(&file, 0, new.clone())).unwrap();
        pair.is_disk(|disk| disk.sync_errors = 1.0);
        assert!(is_eio(pair.wait(file.sync_data())));
        assert_eq!(pair.simulation.counts()["sync error"], 1);
        pair.is_disk(|_| ());
        assert_eq!(pair.a.disk().unsynced(Path::new("/file")), Some(vec![]), "it looks clean");
        pair.wait(file.sync_data()).unwrap();
        assert!(pair.wait(content(&file)) == new, "and as if it were there");
        pair.a.crash(Crash::Power);
        let durable = &pair.a.disk().durable().files[Path::new("/file")];
        for sector in durable.chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
            *(if sector[0] == 1 { &mut lost } else { &mut kept }) += 1;
        }
        // What is written once more is durable once more.
        pair.a.start(idle);
        let file = pair.wait(pair.on_a.open(Path::new("/file"), OpenMode::Write)).unwrap();
        pair.wait(write_at(&file, 0, new.clone())).unwrap();
        pair.wait(file.sync_data()).unwrap();
        pair.a.crash(Crash::Power);
        assert!(pair.a.disk().durable().files[Path::new("/file")] == new);
    }
    assert!(lost > 100 && kept > 100, "{lost} {kept}");
}

#[test]
fn the_next_write_or_sync_fails_and_no_other() {
    let pair = Pair::new(1);
    let file = pair.file(vec![1; 5]);
    pair.a.disk().fail_next_sync();
    pair.wait(write_at(&file, 0, vec![2; 5])).unwrap();
    assert!(is_eio(pair.wait(file.sync_data())));
    pair.wait(file.sync_data()).unwrap();
    pair.a.disk().fail_next_write();
    pair.wait(file.sync_data()).unwrap();
    assert!(is_eio(pair.wait(write_at(&file, 0, vec![3; 5]))));
    pair.wait(write_at(&file, 0, vec![4; 5])).unwrap();
    pair.wait(file.sync_data()).unwrap();
    assert_eq!(pair.a.disk().durable().files[Path::new("/file")], [4; 5]);
}

#[test]
fn names_never_fail_by_themselves() {
    let pair = Pair::new(1);
    pair.is_disk(|disk| (disk.read_errors, disk.write_errors, disk.sync_errors) = (1.0, 1.0, 1.0));
    pair.wait(async {
        let rt = &pair.on_a;
        rt.create_dir_all(Path::new("/a/b")).await.unwrap();
        drop(create(rt, "/a/b/c").await);
        rt.rename(Path::new("/a/b/c"), Path::new("/a/b/d")).await.unwrap();
        rt.sync_dir(Path::new("/a/b")).await.unwrap();
        assert_eq!(rt.read_dir(Path::new("/a/b")).await.unwrap(), ["d"]);
        rt.remove_file(Path::new("/a/b/d")).await.unwrap();
    });
    assert!(pair.simulation.counts().is_empty());
}

#[test]
fn a_full_disk_takes_no_more_until_something_is_removed_or_cut() {
    let pair = Pair::new(1);
    let file = pair.file(vec![1; 1000]);
    pair.is_disk(|disk| disk.capacity = 1500);
    let full = Some(ErrorKind::StorageFull);
    pair.wait(async {
        assert_eq!(kind(write_at(&file, 1000, vec![2; 501]).await), full);
        assert_eq!(file.len().await.unwrap(), 1000, "nothing of it");
        assert_eq!(kind(file.allocate(1501).await), full);
        assert_eq!(kind(file.set_len(1501).await), full);
        write_at(&file, 0, vec![2; 1000]).await.expect("it is there already");
        file.allocate(1500).await.expect("there is as much");
        write_at(&file, 500, vec![3; 1000]).await.expect("that was allocated");

        let other = create(&pair.on_a, "/other").await;
        assert_eq!(kind(write_at(&other, 0, "x").await), full);
        file.set_len(1499).await.unwrap();
        write_at(&other, 0, "x").await.expect("there is room for one byte");
        pair.on_a.remove_file(Path::new("/other")).await.unwrap();
        assert_eq!(pair.a.disk().used(), 1500, "a file that is open has its room");
        drop(other);
        assert_eq!(pair.a.disk().used(), 1499);
        file.sync_data().await.expect("what is there can be synced");
    });
}

#[test]
fn a_disk_is_filled_and_emptied_while_it_is_used() {
    let pair = Pair::new(1);
    let file = pair.file(vec![1; 1000]);
    let disk = pair.a.disk();
    let full = Some(ErrorKind::StorageFull);
    pair.wait(async {
        write_at(&file, 1000, vec![2; 500]).await.expect("there is room");
        disk.fill();
        assert_eq!(kind(write_at(&file, 1500, "x").await), full);
        write_at(&file, 0, vec![3; 1500]).await.expect("it is there already");
        file.sync_data().await.expect("what is there can be synced");
        // Less than is there already.
        disk.set_capacity(100);
        write_at(&file, 0, vec![4; 1500]).await.expect("it is there already");
        assert_eq!(kind(file.allocate(1501).await), full);
        file.set_len(50).await.unwrap();
        write_at(&file, 50, vec![5; 50]).await.expect("there is room for it");
        assert_eq!(kind(write_at(&file, 100, "x").await), full);
        disk.set_capacity(1 << 20);
        write_at(&file, 100, vec![6; 5000]).await.expect("there is room again");
    });
}

#[test]
fn a_crash_in_the_middle_of_a_write_that_has_no_room_fills_no_disk_beyond_its_end() {
    for seed in 0..50 {
        let pair = Pair::new(seed);
        let file = pair.file(vec![1; 1000]);
        pair.is_disk(|disk| {
            disk.capacity = 3000;
            disk.latency = SECOND..SECOND;
        });
        pair.on_a.spawn(async move { write_at(&file, 0, vec![2; 10_000]).await }).detach();
        pair.simulation.run_for(MS);
        pair.a.crash(Crash::Process);
        assert!(pair.a.disk().used() <= 3000, "{}", pair.a.disk().used());
    }
}

#[test]
fn no_file_is_larger_than_a_file_may_be() {
    const MOST: u64 = 1 << 44;
    let pair = Pair::new(1);
    let file = pair.file("x");
    let too_large = Some(ErrorKind::FileTooLarge);
    pair.wait(async {
        assert_eq!(kind(file.set_len(MOST + 1).await), too_large);
        assert_eq!(kind(file.allocate(u64::MAX).await), too_large);
        assert_eq!(kind(write_at(&file, MOST, "x").await), too_large);
        assert_eq!(kind(write_at(&file, u64::MAX, "xy").await), too_large);
        assert_eq!(kind(file.allocate(MOST).await), Some(ErrorKind::StorageFull));
        assert_eq!(file.len().await.unwrap(), 1);
    });
}

#[test]
fn a_read_may_give_less_than_there_is_but_never_nothing() {
    for_some(0..50, |seed| {
        let pair = Pair::new(seed);
        let file = pair.file(pattern(100));
        pair.is_disk(|disk| disk.short_reads = 0.9);
        let (read, into) = pair.wait(file.read_at(BytesMut::with_capacity(100), 0));
        let read = read.unwrap();
        assert!(read > 0 && into == pattern(100)[..read]);
        read < 100
    });
    let pair = Pair::new(1);
    let file = pair.file(pattern(100));
    pair.is_disk(|disk| disk.short_reads = 0.0);
    for _ in 0..100 {
        assert_eq!(pair.wait(file.read_at(BytesMut::with_capacity(200), 0)).0.unwrap(), 100);
    }
}

#[test]
fn a_bit_that_flips_is_seen_at_once_and_after_any_crash() {
    for crash in [Crash::Process, Crash::Power] {
        let pair = Pair::new(1);
        let file = pair.file(vec![0; 1000]);
        let disk = pair.a.disk();
        disk.flip_bit(Path::new("/file"), 700, 3).unwrap();
        let mut expected = vec![0; 1000];
        expected[700] = 8;
        assert_eq!(pair.wait(content(&file)), expected);
        assert_eq!(pair.simulation.counts()["bit flipped"], 1);
        pair.a.crash(crash);
        assert_eq!(disk.durable().files[Path::new("/file")], expected);
        pair.a.start(idle);
        assert_eq!(pair.wait(content_of(&pair.on_a, "/file")), Some(expected.clone()));
        disk.flip_bit(Path::new("/file"), 700, 8 + 3).unwrap();
        disk.flip_bit(Path::new("/file"), 5000, 0).unwrap();
        assert_eq!(pair.wait(content_of(&pair.on_a, "/file")), Some(vec![0; 1000]), "back again");
        let nowhere = disk.flip_bit(Path::new("/no"), 0, 0);
        assert_eq!(kind(nowhere), Some(ErrorKind::NotFound));
    }
}

#[test]
fn a_bit_that_flips_before_it_is_synced_is_synced_so() {
    let pair = Pair::new(1);
    let file = pair.file(vec![0; 10]);
    pair.wait(write_at(&file, 2, vec![1; 3])).unwrap();
    pair.a.disk().flip_bit(Path::new("/file"), 3, 7).unwrap();
    pair.wait(file.sync_data()).unwrap();
    pair.a.crash(Crash::Power);
    let durable = &pair.a.disk().durable().files[Path::new("/file")];
    assert_eq!(durable[..], [0, 0, 1, 129, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_misdirected_write_goes_to_another_place_as_a_whole_and_the_next_one_to_its_own() {
    let pair = Pair::new(1);
    let file = pair.file(vec![0; 100]);
    pair.a.disk().misdirect(Path::new("/file"), 10).unwrap();
    pair.wait(async {
        file.write_all_at(vec!["one".into(), "".into(), "two".into()], 20).await.unwrap();
        write_at(&file, 50, "three").await.unwrap();
    });
    let mut expected = vec![0; 100];
    expected[30..36].copy_from_slice(b"onetwo");
    expected[50..55].copy_from_slice(b"three");
    assert_eq!(pair.wait(content(&file)), expected);
    let nowhere = pair.a.disk().misdirect(Path::new("/no"), 10);
    assert_eq!(kind(nowhere), Some(ErrorKind::NotFound));
}

#[test]
fn a_write_that_was_to_be_misdirected_is_so_no_more_after_a_power_loss() {
    let pair = Pair::new(1);
    let _file = pair.file(vec![0; 100]);
    pair.a.disk().misdirect(Path::new("/file"), 10).unwrap();
    pair.a.crash(Crash::Power);
    pair.a.start(idle);
    pair.wait(async {
        let file = pair.on_a.open(Path::new("/file"), OpenMode::Write).await.unwrap();
        write_at(&file, 0, "x").await.unwrap();
        assert_eq!(content(&file).await[0], b'x');
    });
}

#[test]
fn a_lock_ends_with_its_process_or_when_it_is_dropped() {
    let pair = Pair::new(1);
    let path = Path::new("/lock");
    let lock = |rt: quorate_rt_sim::Sim| async move { rt.lock_file(path).await };
    let first = pair.wait(lock(pair.on_a.clone())).unwrap();
    assert_eq!(kind(pair.wait(lock(pair.on_a.clone()))), Some(ErrorKind::WouldBlock));
    assert!(pair.wait(lock(pair.on_b.clone())).is_ok(), "another host has other files");
    for crash in [Crash::Process, Crash::Power] {
        pair.a.crash(crash);
        pair.a.start(idle);
        let _next = pair.wait(lock(pair.on_a.clone())).unwrap();
        assert_eq!(kind(pair.wait(lock(pair.on_a.clone()))), Some(ErrorKind::WouldBlock));
    }
    let last = pair.wait(lock(pair.on_a.clone())).unwrap();
    drop(first);
    let still = pair.wait(lock(pair.on_a.clone()));
    assert_eq!(kind(still), Some(ErrorKind::WouldBlock), "the first was of a process that is dead");
    drop(last);
    assert!(pair.wait(lock(pair.on_a.clone())).is_ok());
}

#[test]
fn a_dropped_operation_may_still_be_done() {
    for_some(0..40, |seed| {
        let pair = Pair::new(seed);
        let file = pair.file("old");
        assert!(pair.within(Duration::from_nanos(1), write_at(&file, 0, "new")).is_none());
        pair.simulation.run_for(SECOND);
        let content = pair.wait(content(&file));
        assert!(content == b"old" || content == b"new");
        let done = content == b"new";
        assert_eq!(pair.simulation.counts().contains_key("write dropped and done"), done);
        done
    });
    for_some(0..40, |seed| {
        let pair = Pair::new(seed);
        let remove = pair.on_a.remove_file(Path::new("/file"));
        let _file = pair.file("x");
        assert!(pair.within(Duration::from_nanos(1), remove).is_none());
        pair.simulation.run_for(SECOND);
        pair.a.disk().files().is_empty()
    });
}

#[test]
fn a_disk_can_be_looked_at_and_exchanged() {
    let pair = Pair::new(1);
    let file = pair.file("hello");
    pair.wait(async {
        pair.on_a.create_dir_all(Path::new("/a/b")).await.unwrap();
        write_at(&file, 5, " world").await.unwrap();
        write_at(&file, 0, "J").await.unwrap();
        drop(create(&pair.on_a, "/a/b/new").await);
    });
    let disk = pair.a.disk();
    assert_eq!(disk.files(), ["/a/b/new", "/file"].map(Path::new));
    assert_eq!(disk.used(), 11);
    assert_eq!(disk.unsynced(Path::new("/file")), Some(vec![5..11, 0..1]));
    assert_eq!(disk.unsynced(Path::new("/no")), None);
    assert_eq!((disk.writes(Path::new("/file")), disk.writes(Path::new("/no"))), (Some(3), None));
    let image = disk.durable();
    assert_eq!(image.directories, ["/a", "/a/b"].map(Path::new));
    assert_eq!(image.files, [(Path::new("/file").to_owned(), b"hello".to_vec())].into());

    pair.b.disk().replace(&image);
    assert_eq!(pair.b.disk().durable(), image, "as it is");
    assert_eq!(pair.wait(content_of(&pair.on_b, "/file")).as_deref(), Some(&b"hello"[..]));
    pair.b.crash(Crash::Power);
    assert_eq!(pair.b.disk().durable(), image, "and durable");
    pair.a.crash(Crash::Power);
    drop(file);
    disk.replace(&DiskImage::default());
    assert!(disk.files().is_empty() && disk.durable() == DiskImage::default());
    assert_eq!(disk.used(), 0);
}

#[test]
fn names_in_the_current_directory_are_the_same_with_and_without_it() {
    let pair = Pair::new(1);
    pair.wait(async {
        let rt = &pair.on_a;
        let file = create(rt, "file").await;
        write_at(&file, 0, "x").await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(content_of(rt, "./file").await.as_deref(), Some(&b"x"[..]));
        assert_eq!(rt.read_dir(Path::new(".")).await.unwrap(), ["file"]);
        rt.rename(Path::new("./file"), Path::new("other")).await.unwrap();
        rt.create_dir_all(Path::new("./a")).await.unwrap();
        drop(create(rt, "a/./b").await);
        rt.sync_dir(Path::new("./a")).await.unwrap();
    });
    let files: Vec<_> = pair.a.disk().durable().files.into_keys().collect();
    assert_eq!(files, ["a/b", "other"].map(Path::new));
}
