//! What of a disk survives: a process' death, and a loss of power.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join;
use quorate_rt::{Executor, File, Files, OpenMode, Task};
use quorate_rt_sim::{Crash, DiskConfig, Sim, SimFile};

use crate::common::*;

const SECTOR: usize = 512;

/// Enough for anything that may happen to happen.
const SEEDS: std::ops::Range<u64> = 0..200;

/// What `a` has of a file after it was prepared and its power was lost.
fn survives(seed: u64, path: &str, prepare: impl AsyncFnOnce(&Sim)) -> Option<Vec<u8>> {
    let pair = Pair::new(seed);
    pair.wait(prepare(&pair.on_a));
    pair.a.crash(Crash::Power);
    pair.a.start(idle);
    let survived = pair.wait(content_of(&pair.on_a, path));
    let durable = pair.a.disk().durable().files.remove(Path::new(path));
    assert!(survived == durable, "what has survived is durable");
    survived
}

/// Everything that may survive.
fn all_that_may<T: Ord>(of_seed: impl FnMut(u64) -> T) -> BTreeSet<T> {
    SEEDS.map(of_seed).collect()
}

/// The first byte of each sector. All are the same in it.
fn sectors(content: &[u8]) -> Vec<u8> {
    let first = |sector: &[u8]| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "it is written as a whole");
        sector[0]
    };
    content.chunks(SECTOR).map(first).collect()
}

#[test]
fn what_a_killed_process_has_written_is_there_synced_or_not() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        pair.wait(async {
            let file = create(&pair.on_a, "/file").await;
            write_at(&file, 0, pattern(5000)).await.unwrap();
            file.set_len(4000).await.unwrap();
            drop(create(&pair.on_a, "/removed").await);
            pair.on_a.remove_file(Path::new("/removed")).await.unwrap();
        });
        pair.a.crash(Crash::Process);
        pair.a.start(idle);
        assert!(pair.wait(content_of(&pair.on_a, "/file")).as_deref() == Some(&pattern(4000)));
        assert_eq!(pair.a.disk().files(), [Path::new("/file")]);
    }
}

#[test]
fn what_a_killed_process_has_not_synced_may_still_be_lost_with_the_power() {
    for_some(SEEDS, |seed| {
        let pair = Pair::new(seed);
        pair.wait(async {
            let file = create_durable(&pair.on_a, "/file", "old").await;
            write_at(&file, 0, "new").await.unwrap();
        });
        pair.a.crash(Crash::Process);
        pair.a.crash(Crash::Power); // With a process or without.
        let content = &pair.a.disk().durable().files[Path::new("/file")];
        assert!(content == b"old" || content == b"new");
        content == b"new"
    });
}

#[test]
fn what_is_synced_survives_always() {
    for seed in SEEDS {
        let survived = survives(seed, "/a/b/file", async |rt| {
            rt.create_dir_all(Path::new("/a/b")).await.unwrap();
            let file = create_durable(rt, "/a/b/file", vec![1; 5 * SECTOR]).await;
            write_at(&file, 2 * SECTOR as u64, vec![2; SECTOR]).await.unwrap();
            file.allocate(10 * SECTOR as u64).await.unwrap();
            file.set_len(6 * SECTOR as u64).await.unwrap();
            file.sync_data().await.unwrap();
            write_at(&file, 0, vec![3; SECTOR]).await.unwrap();
        });
        let sectors = sectors(&survived.expect("its name is durable"));
        assert_eq!(sectors[1..], [1, 2, 1, 1, 0]);
        assert!(sectors[0] == 1 || sectors[0] == 3);
    }
}

#[test]
fn of_a_write_that_is_not_synced_any_sectors_survive() {
    let seen = all_that_may(|seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", vec![1; 3 * SECTOR]).await;
            write_at(&file, 0, vec![2; 3 * SECTOR]).await.unwrap();
        });
        sectors(&survived.unwrap())
    });
    assert_eq!(seen.len(), 8, "all subsets: {seen:?}");
}

#[test]
fn of_a_write_that_is_cut_across_sectors_each_part_survives_or_not() {
    let seen = all_that_may(|seed| {
        survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", vec![b'.'; 2 * SECTOR]).await;
            write_at(&file, SECTOR as u64 - 3, "abcdef").await.unwrap();
        })
        .unwrap()[SECTOR - 3..SECTOR + 3]
            .to_vec()
    });
    let possible = ["......", "abc...", "...def", "abcdef"].map(|text| text.as_bytes().to_vec());
    assert_eq!(seen, possible.into());
}

#[test]
fn of_several_writes_the_first_ones_survive_or_all_or_none_or_any() {
    let seen = all_that_may(|seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", vec![1; 8 * SECTOR]).await;
            for number in 0..8 {
                write_at(&file, number * SECTOR as u64, vec![2; SECTOR]).await.unwrap();
            }
        });
        sectors(&survived.unwrap())
    });
    let first = |count: usize| [vec![2; count], vec![1; 8 - count]].concat();
    for count in 0..=8 {
        assert!(seen.contains(&first(count)), "{count} and no more");
    }
    assert!(seen.len() > 20, "and others: {}", seen.len());
}

#[test]
fn an_old_write_may_survive_a_newer_one_to_the_same_place() {
    let seen = all_that_may(|seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", "0").await;
            write_at(&file, 0, "1").await.unwrap();
            write_at(&file, 0, "2").await.unwrap();
        });
        survived.unwrap()
    });
    assert_eq!(seen, ["0", "1", "2"].map(|text| text.as_bytes().to_vec()).into());
}

/// How long a file may be after a power loss whose length was changed and not synced.
fn lengths(change: impl AsyncFn(&SimFile)) -> BTreeSet<usize> {
    all_that_may(|seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", vec![1; 100]).await;
            change(&file).await;
        });
        survived.unwrap().len()
    })
}

#[test]
fn a_length_that_is_not_synced_may_be_lost() {
    assert_eq!(lengths(async |file| file.set_len(10).await.unwrap()), [10, 100].into());
    assert_eq!(lengths(async |file| file.allocate(200).await.unwrap()), [100, 200].into());
    assert_eq!(lengths(async |file| write_at(file, 100, "x").await.unwrap()), [100, 101].into());
}

#[test]
fn a_sync_is_of_what_was_written_before_it_began() {
    for_some(SEEDS, |seed| {
        let survived = survives(seed, "/file", async |rt| {
            rt.host()
                .disk()
                .configure(DiskConfig { sync_latency: SECOND..SECOND, ..DiskConfig::default() });
            let file = create_durable(rt, "/file", "00").await;
            write_at(&file, 0, "1").await.unwrap();
            let late = async {
                rt.sleep(SECOND / 2).await;
                write_at(&file, 1, "1").await.unwrap();
            };
            let (synced, ()) = join(file.sync_data(), late).await;
            synced.unwrap();
        });
        let survived = survived.unwrap();
        assert_eq!(survived[0], b'1', "that is durable");
        survived[1] == b'1'
    });
}

#[test]
fn a_sync_is_of_one_file() {
    for_some(SEEDS, |seed| {
        let survived = survives(seed, "/other", async |rt| {
            let other = create_durable(rt, "/other", "old").await;
            write_at(&other, 0, "new").await.unwrap();
            create_durable(rt, "/file", "x").await;
        });
        survived.unwrap() == b"new"
    });
}

#[test]
fn a_sync_is_of_all_handles_of_a_file() {
    for seed in SEEDS {
        let survived = survives(seed, "/file", async |rt| {
            let file = create_durable(rt, "/file", "old").await;
            let other = rt.open(Path::new("/file"), OpenMode::Write).await.unwrap();
            write_at(&other, 0, "new").await.unwrap();
            file.sync_data().await.unwrap();
        });
        assert_eq!(survived.unwrap(), b"new");
    }
}

#[test]
fn a_name_is_there_for_sure_only_after_its_directory_was_synced() {
    for_some(SEEDS, |seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create(rt, "/file").await;
            write_at(&file, 0, "x").await.unwrap();
            file.sync_data().await.unwrap();
        });
        assert!(survived.as_deref().is_none_or(|content| content == b"x"), "with its content");
        survived.is_some()
    });
    for_some(SEEDS, |seed| {
        let survived = survives(seed, "/a/file", async |rt| {
            rt.create_dir_all(Path::new("/a")).await.unwrap();
            drop(create(rt, "/a/file").await);
            rt.sync_dir(Path::new("/")).await.unwrap(); // Another one.
        });
        survived.is_some()
    });
}

#[test]
fn a_file_whose_name_is_durable_and_whose_content_is_not_may_be_empty() {
    let seen = all_that_may(|seed| {
        let survived = survives(seed, "/file", async |rt| {
            let file = create(rt, "/file").await;
            write_at(&file, 0, "x").await.unwrap();
            rt.sync_dir(Path::new("/")).await.unwrap();
        });
        survived.unwrap()
    });
    assert_eq!(seen, [b"".to_vec(), b"x".to_vec()].into());
}

#[test]
fn a_file_that_was_removed_may_come_back_unless_its_directory_was_synced() {
    for_some(SEEDS, |seed| {
        let survived = survives(seed, "/file", async |rt| {
            create_durable(rt, "/file", "x").await;
            rt.remove_file(Path::new("/file")).await.unwrap();
        });
        assert!(survived.as_deref().is_none_or(|content| content == b"x"));
        survived.is_some()
    });
    for seed in SEEDS {
        let survived = survives(seed, "/file", async |rt| {
            create_durable(rt, "/file", "x").await;
            rt.remove_file(Path::new("/file")).await.unwrap();
            rt.sync_dir(Path::new("/")).await.unwrap();
        });
        assert_eq!(survived, None);
    }
}

#[test]
fn a_rename_is_durable_when_it_has_ended() {
    for seed in SEEDS {
        let survived = survives(seed, "/file", async |rt| {
            create_durable(rt, "/file", "old").await;
            let draft = create(rt, "/draft").await;
            write_at(&draft, 0, "new").await.unwrap();
            draft.sync_data().await.unwrap();
            rt.rename(Path::new("/draft"), Path::new("/file")).await.unwrap();
        });
        assert_eq!(survived.unwrap(), b"new");
    }
}

#[test]
fn a_rename_under_way_leaves_the_old_file_or_the_new_one_and_never_neither() {
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let pair = Pair::new(seed);
        let rt = pair.on_a.clone();
        pair.on_a
            .spawn(async move {
                create_durable(&rt, "/file", "old").await;
                create_durable(&rt, "/draft", "new").await;
                rt.host()
                    .disk()
                    .configure(DiskConfig { latency: SECOND..SECOND, ..DiskConfig::default() });
                rt.rename(Path::new("/draft"), Path::new("/file")).await.unwrap();
                std::future::pending::<()>().await
            })
            .detach();
        // The name changes after one second, and its directory is synced after two.
        pair.simulation.run_for(Duration::from_millis(1500));
        pair.a.crash(Crash::Power);
        let files = pair.a.disk().durable().files;
        let content = |path| files.get(Path::new(path)).map(|content| content[0] as char);
        seen.insert((content("/file"), content("/draft")));
    }
    // Two names at once have been seen of real disks, too.
    assert!(seen.contains(&(Some('o'), Some('n'))) && seen.contains(&(Some('n'), None)));
    assert!(seen.iter().all(|(file, _)| file.is_some()), "{seen:?}");
}

#[test]
fn names_whose_directory_is_not_synced_are_lost_one_by_one() {
    let seen = all_that_may(|seed| {
        let pair = Pair::new(seed);
        pair.wait(async {
            for name in ["/0", "/1", "/2"] {
                drop(create(&pair.on_a, name).await);
            }
        });
        pair.a.crash(Crash::Power);
        pair.a.disk().files().len() * 10 + usize::from(pair.a.disk().files().contains(&"/0".into()))
    });
    assert!(seen.is_superset(&[0, 11, 21, 31].into()), "the first ones: {seen:?}");
    assert!(seen.contains(&10) || seen.contains(&20), "or others: {seen:?}");
}

#[test]
fn a_directory_is_durable_when_it_is_made() {
    for seed in SEEDS {
        let pair = Pair::new(seed);
        pair.wait(pair.on_a.create_dir_all(Path::new("/a/b/c"))).unwrap();
        pair.a.crash(Crash::Power);
        assert_eq!(pair.a.disk().durable().directories, ["/a", "/a/b", "/a/b/c"].map(Path::new));
    }
}

/// What of a write is there that is under way when something happens to `a`.
fn under_way(seed: u64, crash: Crash) -> Vec<u8> {
    let pair = Pair::new(seed);
    let rt = pair.on_a.clone();
    pair.on_a
        .spawn(async move {
            let file = create_durable(&rt, "/file", vec![1; 4 * SECTOR]).await;
            rt.host()
                .disk()
                .configure(DiskConfig { latency: SECOND..SECOND, ..DiskConfig::default() });
            rt.sleep(SECOND).await;
            write_at(&file, 0, vec![2; 4 * SECTOR]).await.unwrap();
            rt.host().crash(Crash::Power); // Too late.
        })
        .detach();
    pair.simulation.run_for(Duration::from_millis(1500));
    pair.a.crash(crash);
    pair.simulation.run_for(SECOND);
    pair.a.disk().configure(DiskConfig::default());
    pair.a.start(idle);
    sectors(&pair.wait(content_of(&pair.on_a, "/file")).unwrap())
}

#[test]
fn a_write_under_way_when_its_process_dies_is_done_or_not_or_in_part() {
    for crash in [Crash::Process, Crash::Power] {
        let seen = all_that_may(|seed| under_way(seed, crash));
        assert!(seen.is_superset(&[vec![1; 4], vec![2; 4]].into()), "as a whole: {seen:?}");
        assert!(seen.len() > 10, "or any part of it: {seen:?}");
    }
}

#[test]
fn of_what_is_under_way_when_a_process_ends_by_itself_it_is_the_same() {
    let seen = all_that_may(|seed| {
        let pair = Pair::new(seed);
        pair.a.crash(Crash::Process);
        pair.a.start(async |rt| {
            let file = create_durable(&rt, "/file", "old").await;
            let writing = rt.spawn(async move { write_at(&file, 0, "new").await });
            quorate_rt::yield_now().await;
            drop(writing);
        });
        pair.simulation.run_for(SECOND);
        assert!(!pair.a.is_running());
        pair.wait(content_of(&pair.on_a, "/file")).unwrap()
    });
    assert_eq!(seen, [b"old".to_vec(), b"new".to_vec()].into());
}

#[test]
fn a_machine_that_has_lost_its_power_loses_nothing_more_by_losing_it_again() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        pair.wait(async {
            let file = create_durable(&pair.on_a, "/file", vec![1; 8 * SECTOR]).await;
            write_at(&file, 0, vec![2; 8 * SECTOR]).await.unwrap();
        });
        pair.a.crash(Crash::Power);
        let survived = pair.a.disk().durable();
        let counted = pair.simulation.events();
        pair.a.crash(Crash::Power);
        assert_eq!((pair.a.disk().durable(), pair.simulation.events()), (survived, counted));
    }
}
