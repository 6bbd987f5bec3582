//! What a store holds when it is opened again: everything that was reported as durable, and
//! otherwise everything up to some write.

use quorate_rt::{Executor, Launch};

use super::{Scene, StoreFactory, content, durable, entries, hard_state, marks, standing};
use crate::{GroupId, HardState, LogWrite};

const GROUP: GroupId = 7;

/// Runs of several terms and leaders, and memberships of which some have been replaced.
#[doc(hidden)]
pub async fn recovers_the_log_meta<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    let writes =
        [(0, 1, 1), (1, 2, 40), (2, 41, 41), (3, 42, 90), (4, 30, 70), (7, 71, 71), (8, 60, 60)];
    for (term, first, last) in writes {
        scene.put(GROUP, entries(term, first, last)).await;
        if F::DURABLE {
            // Compares the metadata with that of the entries.
            scene = scene.reopen().await;
        }
    }
    scene.check().await;
}

/// Alone and together with entries, of which neither comes without the other.
#[doc(hidden)]
pub async fn recovers_hard_states<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    let voted = |term, voted_for| hard_state(term, voted_for).hard_state;
    let writes = [
        hard_state(1, None),
        hard_state(1, Some(u64::MAX)),
        LogWrite { hard_state: voted(5, Some(2)), ..entries(5, 1, 3) },
        LogWrite { hard_state: voted(6, None), ..entries(6, 2, 2) },
        entries(6, 3, 5),
        hard_state(u64::MAX, Some(1)),
    ];
    for write in writes {
        let hard_state = write.hard_state;
        scene.put(GROUP, write).await;
        if F::DURABLE {
            scene = scene.reopen().await;
            if hard_state.is_some() {
                assert_eq!(Some(scene.log(GROUP).hard_state), hard_state);
            }
            assert_eq!(scene.log(GROUP + 1).hard_state, HardState::default());
        }
    }
    scene.reopen().await.check().await;
}

/// Of each kind, alone and together with what else a group keeps. They stay when the log is purged,
/// or begins anew.
#[doc(hidden)]
pub async fn recovers_standings_and_marks<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    for seed in 1..9 {
        let last = scene.log(GROUP).last().index;
        let all = LogWrite {
            hard_state: hard_state(seed, Some(1)).hard_state,
            marks: marks(seed + 1).marks,
            standing: standing(seed + 1).standing,
            ..entries(seed, last + 1, last + 5)
        };
        for write in [standing(seed), marks(seed), all] {
            scene.put(GROUP, write).await;
            if F::DURABLE {
                // Compares them with what was written.
                scene = scene.reopen().await;
            }
        }
        let covered = scene.log(GROUP).last();
        if F::DURABLE {
            scene.take_snapshot(GROUP, covered.index, content(seed, 1000)).await;
            let write = LogWrite { purge: Some(covered), ..LogWrite::default() };
            scene.put(GROUP, write).await;
            scene = scene.reopen().await;
        }
    }
    scene.check().await;
}

/// Again and again the store is dropped: at once, after some turns, after some of the writes, after
/// all.
#[doc(hidden)]
pub async fn crashes_at_any_moment<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    const GROUPS: [GroupId; 3] = [1, 2, 3];
    let mut random = fastrand::Rng::with_seed(3);
    let mut scene = Scene::open(rt, factory, &GROUPS).await;
    for life in 0..40 {
        let mut outcomes = Vec::new();
        for _ in 0..random.usize(1..30) {
            let group = GROUPS[random.usize(..GROUPS.len())];
            outcomes.push(scene.submit_random(&mut random, group).await);
            if random.u8(..8) == 0 {
                scene.turn().await;
            }
        }
        match life % 4 {
            0 => {}
            1 => {
                for _ in 0..random.u8(..50) {
                    scene.turn().await;
                }
            }
            2 => durable(outcomes.swap_remove(outcomes.len() / 2)).await,
            _ => {
                for outcome in outcomes {
                    durable(outcome).await;
                }
            }
        }
        scene = scene.reopen().await;
        scene.check().await;
    }
}

/// What is durable is there although the power has gone, whatever was under way. (Each other case
/// that opens a store again loses the power, too, where the factory can; this one says where it
/// can't.)
#[doc(hidden)]
pub async fn survives_a_power_loss<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for life in 0..10 {
        let next = scene.log(GROUP).last().index + 1;
        scene.put(GROUP, entries(1, next, next + 3)).await;
        let _its_end_is_not_awaited = scene.submit(GROUP, entries(1, next + 4, next + 9));
        if life % 2 == 0 {
            scene.turn().await;
        }
        let (rt, factory, past) = scene.crash();
        if F::DURABLE && !factory.lose_power(&rt).await {
            super::skipped("survives_a_power_loss", "its disk can't lose what was not synced");
            return;
        }
        scene = Scene::resume(rt, factory, past).await;
        scene.check().await;
    }
}

/// The old suffix, the new one, or the old one again; no mixture, and nothing behind it.
#[doc(hidden)]
pub async fn crashes_while_a_suffix_is_replaced<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for life in 0..12 {
        let first = scene.submit(GROUP, entries(1, 1, 12));
        let turns = [(2, 5, 7), (1, 5, 9), (3, 6, 20), (1, 6, 8)];
        let mut outcomes: Vec<_> = turns
            .iter()
            .map(|(term, first, last)| scene.submit(GROUP, entries(*term, *first, *last)))
            .collect();
        match life % 3 {
            0 => durable(first).await,
            1 => durable(outcomes.swap_remove(life % 4)).await,
            _ => {}
        }
        scene = scene.reopen().await;
        scene.check().await;
    }
}

/// The runtime ends while the store writes, and another one opens it.
#[doc(hidden)]
pub fn ends_with_its_runtime<R: Executor, F: StoreFactory<R>>(launch: &Launch, factory: F) {
    let first_life = async |rt: R| {
        let mut scene = Scene::open(rt, factory, &[GROUP]).await;
        scene.put(GROUP, entries(1, 1, 20)).await;
        for index in 21..100 {
            let _its_end_is_not_awaited = scene.submit(GROUP, entries(1, index, index));
            if index % 10 == 0 {
                scene.turn().await;
            }
        }
        let (_rt, factory, past) = scene.crash();
        (factory, past)
    };
    let (factory, past) = R::run(launch, first_life).expect("the runtime starts");
    let second_life = async |rt: R| {
        let mut scene = Scene::resume(rt, factory, past).await;
        scene.check().await;
        let next = scene.log(GROUP).last().index + 1;
        scene.put(GROUP, entries(2, next, next + 5)).await;
        scene.reopen().await.check().await;
    };
    R::run(launch, second_life).expect("the runtime starts");
}
