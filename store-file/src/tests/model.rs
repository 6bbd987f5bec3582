//! Random writes, purges, snapshots, reads and openings against the simplest model there is: a list
//! of entries per group.

use std::task::{Context, Waker};

use quorate_core::{Marks, Standing};

use super::images::places;
use super::state::*;
use super::*;

const GROUPS: usize = 4;

/// A group that writes seldom and purges nothing: what it needs is copied, so that the segments of
/// the others can go.
const IDLE: u64 = 3;

/// Numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn random_writes_reads_and_openings_agree_with_a_list() {
    scene(async |mut scene| {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut model: [State; GROUPS] = Default::default();
        let (mut term, mut removed, mut copied) = (1, 0, 0);
        for _ in 0..40 {
            scene.config.cache_bytes = random.below(4) as usize * 3000;
            let store = scene.open().await;
            let first = first_segment(&scene);
            assert!(removed <= first, "a segment that was removed is back");
            removed = first;
            let mut outcomes = Vec::new();
            for _ in 0..random.below(60) {
                let group = if random.below(24) == 0 { IDLE } else { random.below(IDLE) };
                let state = &mut model[group as usize];
                let write = write(&store, group, state, &mut term, &mut random, false).await;
                state.apply(&write);
                outcomes.push(submit(&store, group, write));
                if random.below(4) == 0 {
                    for outcome in outcomes.drain(..) {
                        outcome.await.unwrap().unwrap();
                    }
                }
                compare(&store, &model, &mut random).await;
            }
            for outcome in outcomes {
                outcome.await.unwrap().unwrap();
            }
            for (group, state) in (0..).zip(&model) {
                assert_eq!(State::of(&store, group).await, *state);
            }
            copied += usize::from(has_copies(&scene));
        }
        assert!(removed > 10, "{removed}");
        assert!(copied > 10, "{copied}");
        let store = scene.open().await;
        for (group, state) in (0..).zip(&model) {
            assert_eq!(State::of(&store, group).await, *state);
        }
    });
}

/// Disks fill and empty meanwhile, groups are removed, and now and then the process ends while the
/// disk is full: then a part is there. What is there always makes sense.
#[test]
fn random_writes_and_removals_on_disks_that_fill_agree_with_a_list() {
    scene(async |mut scene| {
        let mut random = Random(0x2545_F491_4F6C_DD1D);
        let mut model: [State; GROUPS] = Default::default();
        let (mut term, mut dropped, mut ended_full) = (1, 0, 0);
        for _ in 0..300 {
            scene.config.cache_bytes = random.below(4) as usize * 3000;
            scene.faults().full.set(false);
            let store = scene.open().await;
            let (mut writes, mut removals) = (Vec::new(), Vec::new());
            for _ in 0..random.below(40) {
                if random.below(5) == 0 {
                    scene.faults().full.set(random.below(3) > 0);
                }
                let group = random.below(GROUPS as u64);
                let state = &mut model[group as usize];
                if random.below(12) == 0 {
                    let mut removal = Box::pin(store.remove(group));
                    let standing = state.standing.clone();
                    *state = State::default();
                    if standing == Standing::Spent {
                        state.standing = standing;
                    }
                    // It is queued when it is polled.
                    if removal.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                        removals.push(removal);
                    }
                } else {
                    let is_full = scene.faults().full.get();
                    let write = write(&store, group, state, &mut term, &mut random, is_full).await;
                    state.apply(&write);
                    writes.push(submit(&store, group, write));
                }
                if random.below(3) == 0 {
                    yield_now().await;
                }
                if random.below(10) == 0 {
                    scene.rt.sleep(Duration::from_millis(1)).await;
                }
                compare(&store, &model, &mut random).await;
            }
            let ends_full = scene.faults().full.get() && random.below(2) == 0;
            if !ends_full {
                scene.faults().full.set(false);
                for removal in removals.drain(..) {
                    removal.await.unwrap();
                }
                for outcome in writes {
                    match outcome.await.unwrap() {
                        Ok(()) => {}
                        Err(StoreError::Abandoned) => dropped += 1, // With its group.
                        Err(error) => panic!("{error}"),
                    }
                }
                for (group, state) in (0..).zip(&model) {
                    assert_eq!(State::of(&store, group).await, *state);
                }
            }
            drop(removals);
            drop(store);
            scene.closed().await;
            let store = scene.open().await;
            for (group, state) in (0..).zip(&mut model) {
                let is = State::of(&store, group).await;
                assert!(ends_full || is == *state, "{is:?}, and not {state:?}");
                *state = is;
            }
            ended_full += usize::from(ends_full);
            drop(store);
            scene.closed().await;
        }
        assert!(dropped > 10, "{dropped}");
        assert!(ended_full > 10, "{ended_full}");
    });
}

fn first_segment(scene: &Scene) -> usize {
    (1..).find(|number| scene.has(*number)).unwrap() as usize
}

/// Whether entries were copied.
fn has_copies(scene: &Scene) -> bool {
    places(&scene.disk().now()).iter().any(|place| place.copy)
}

/// A write that makes sense now: of entries at the end or in place of some, and now and then with a
/// snapshot, of what is there or of what another node has, or a purge.
async fn write(
    store: &Store,
    group: GroupId,
    state: &State,
    term: &mut u64,
    random: &mut Random,
    is_full: bool,
) -> LogWrite {
    let mut write = LogWrite::default();
    let covered = state.snapshot.as_ref().map_or(0, |meta| meta.log_id.index);
    let mut next = state.last().index + 1;
    // The last entry that is not above an index, and is not purged.
    let held = |index: Index| {
        let entries = state.entries.iter().rev().map(|entry| entry.log_id);
        entries.into_iter().find(|log_id| log_id.index <= index)
    };
    let taken = match random.below(12) {
        _ if group == IDLE => None,
        0 | 1 if is_full => None, // Where a snapshot may fail.
        0 => held(next).filter(|log_id| log_id.index > covered),
        1 => {
            *term += 1;
            Some(LogId::new(*term, 1, next.max(covered) + random.below(5)))
        }
        2 => {
            write.purge = held(covered);
            None
        }
        _ => None,
    };
    if let Some(at) = taken {
        let meta = meta(at, random.below(100_000));
        finish(store, group, &meta).await.unwrap();
        write.snapshot = Some(Box::new(meta));
        let is_held = held(at.index) == Some(at);
        write.purge = Some(at).filter(|_| !is_held || random.below(2) == 0);
        if !is_held {
            next = at.index + 1;
        }
    } else if random.below(8) == 0 && next > covered + 1 {
        *term += 1;
        // The idle group keeps what it has, or nearly.
        let most = if group == IDLE { 3 } else { next };
        next -= random.below((next - covered).min(most));
    }
    if random.below(10) == 0 {
        *term += 1;
        write.hard_state = Some(HardState { term: Term(*term), voted_for: None });
    }
    if random.below(10) == 0 {
        let committed = LogId::new(*term, 1, random.below(1000));
        write.marks = Some(Box::new(Marks { committed, ..Marks::default() }));
    }
    if random.below(20) == 0 {
        let is_spent = state.standing == Standing::Spent; // It is not let in again.
        write.standing = Some(Box::new(match random.below(4) {
            cluster @ 1.. if !is_spent => Standing::Admitted(ClusterId(cluster.into())),
            _ => Standing::Spent,
        }));
    }
    let entries = (next..next + random.below(4)).map(|index| {
        let content = vec![random.below(256) as u8; random.below(1500) as usize];
        entry(*term, index, content)
    });
    write.entries = entries.collect();
    write
}

async fn compare(store: &Store, model: &[State; GROUPS], random: &mut Random) {
    for (group, state) in (0..).zip(model) {
        assert_eq!(last(store, group).await, state.last().index);
        if state.entries.is_empty() {
            continue;
        }
        let at = random.below(state.entries.len() as u64) as usize;
        let max_bytes = random.below(10_000) as usize;
        let expected = &state.entries[at..];
        let range = expected[0].log_id.index..state.last().index + 1;
        let read = store.read(group, range, max_bytes).await.unwrap();
        assert_eq!(read, expected[..read.len()]);
        let bytes: usize = read.iter().map(Entry::bytes).sum();
        assert!(read.len() == 1 || bytes <= max_bytes);
        assert!(expected.get(read.len()).is_none_or(|next| bytes + next.bytes() > max_bytes));
    }
}
