//! Folders in which a store is made, or not: other data, files, and what a crash has left of a
//! store in the making.

use std::path::Path;
use std::{fs, io};

use quorate_rt_tokio::Tokio;

use super::images::{DIR, in_memory, open};
use super::*;

/// A scenario in a real folder, as a disk in memory has none.
fn on_disk(scenario: impl AsyncFnOnce(&Tokio, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    Tokio::run(&Launch::named("test"), async |rt| scenario(&rt, dir.path()).await).unwrap();
}

async fn open_in(rt: &Tokio, dir: &Path) -> FileStore<Tokio> {
    FileStore::open_with(rt, dir, SMALL).await.unwrap()
}

/// A store is refused there, and nothing is changed. Gives what is said.
async fn refused(rt: &Tokio, root: &Path, dir: &Path, kind: io::ErrorKind) -> String {
    let before = listing(root);
    let opened = FileStore::open_with(rt, dir, SMALL).await;
    let error = opened.map(drop).expect_err("no folder for a store");
    assert_eq!(listing(root), before);
    let StoreError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), kind, "{error}");
    let said = error.to_string();
    assert!(said.contains(dir.to_str().unwrap()), "{said}");
    assert!(said.contains("choose an empty folder"), "{said}");
    said
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(listing(&path));
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

#[test]
fn a_folder_with_other_data_is_refused_and_some_of_them_are_named() {
    on_disk(async |rt, root| {
        let dir = root.join("home");
        fs::create_dir_all(dir.join("Documents")).unwrap();
        fs::write(dir.join(".bashrc"), "").unwrap();
        let said = refused(rt, root, &dir, io::ErrorKind::DirectoryNotEmpty).await;
        assert!(said.contains("it holds .bashrc, Documents;"), "{said}");
        for number in 0..20 {
            fs::write(dir.join(format!("{number:02}.txt")), "").unwrap();
        }
        let said = refused(rt, root, &dir, io::ErrorKind::DirectoryNotEmpty).await;
        assert!(said.contains(".bashrc, 00.txt, 01.txt, 02.txt, 03.txt and 17 more"), "{said}");
    });
}

#[test]
fn another_programs_log_or_lock_is_not_taken_for_a_stores() {
    on_disk(async |rt, root| {
        for (number, file) in
            ["wal/0.wal", "wal/0000000000000000-0000000000000000.wal", "snapshots/a", "CURRENT"]
                .into_iter()
                .enumerate()
        {
            let dir = root.join(number.to_string());
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "theirs").unwrap();
            fs::write(dir.join("LOCK"), "").unwrap();
            let said = refused(rt, root, &dir, io::ErrorKind::DirectoryNotEmpty).await;
            assert!(said.contains(&format!("it holds {file};")), "{said}");
        }
        let dir = root.join("file");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("wal"), "theirs").unwrap();
        let said = refused(rt, root, &dir, io::ErrorKind::DirectoryNotEmpty).await;
        assert!(said.contains("it holds wal"), "{said}");
    });
}

#[test]
fn a_file_in_the_place_of_the_folder_is_called_a_file() {
    on_disk(async |rt, root| {
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        let said = refused(rt, root, &file, io::ErrorKind::NotADirectory).await;
        assert!(said.contains("it is a file"), "{said}");
        let said = refused(rt, root, &file.join("a/b"), io::ErrorKind::NotADirectory).await;
        assert!(said.contains(&format!("{} is a file", file.display())), "{said}");
        let checked = FileStore::check(rt, &file).await.unwrap_err().to_string();
        assert!(checked.contains("it is a file"), "{checked}");
    });
}

#[test]
fn the_root_of_a_file_system_may_hold_a_store() {
    on_disk(async |rt, root| {
        fs::create_dir(root.join("lost+found")).unwrap();
        put(&open_in(rt, root).await, 1, entries([entry(1, 1, "a")])).await;
    });
}

#[test]
fn files_beside_a_store_do_not_keep_it_from_opening() {
    on_disk(async |rt, root| {
        put(&open_in(rt, root).await, 1, entries([entry(1, 1, "a")])).await;
        fs::write(root.join("notes.txt"), "the admin's").unwrap();
        assert_eq!(last(&open_in(rt, root).await, 1).await, 1);
    });
}

#[test]
fn a_folder_is_opened_whatever_a_crash_has_left_of_its_creation() {
    in_memory(async |rt| {
        let rt = rt.with(&Image::new());
        rt.disk.record_moments();
        put(&open(&rt).await.unwrap(), 1, entries([entry(1, 1, "a")])).await;
        let moments = rt.disk.take_moments();
        let without = moments.iter().filter(|moment| {
            let segment = PathBuf::from(format!("{DIR}/wal/{:016}.wal", 1));
            !moment.image.contains_key(&segment)
        });
        let mut names: Vec<Vec<_>> =
            without.map(|moment| moment.image.keys().cloned().collect()).collect();
        names.sort();
        names.dedup();
        assert!(names.len() >= 3, "nothing, the lock, a segment in the making: {names:?}");
        for moment in moments {
            let store = open(&rt.with(&moment.image)).await;
            let store = store.unwrap_or_else(|error| panic!("{error}"));
            assert!(last(&store, 1).await <= 1);
        }
    });
}

#[test]
fn a_folder_is_opened_with_any_part_of_a_store_that_holds_nothing() {
    on_disk(async |rt, root| {
        for parts in 0..32 {
            let dir = root.join(parts.to_string());
            fs::create_dir(&dir).unwrap();
            let has = |part: u32| parts >> part & 1 == 1;
            if has(0) {
                fs::create_dir_all(dir.join("wal")).unwrap();
            }
            if has(1) {
                fs::create_dir_all(dir.join("snapshots")).unwrap();
            }
            if has(2) {
                fs::write(dir.join("LOCK"), "").unwrap();
            }
            if has(3) {
                fs::create_dir_all(dir.join("wal")).unwrap();
                fs::write(dir.join("wal/next.tmp"), "half").unwrap();
            }
            if has(4) {
                fs::create_dir_all(dir.join("snapshots")).unwrap();
                fs::write(dir.join("snapshots/1.tmp"), "half").unwrap();
            }
            let store = open_in(rt, &dir).await;
            put(&store, 1, entries([entry(1, 1, "a")])).await;
        }
    });
}
