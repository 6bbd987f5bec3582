//! Whole clusters in the simulator: a fixed set of seeds of every profile. (`cargo run --release -p
//! quorate-tests --bin simulate` runs any others.)

use std::time::Duration;

use quorate_tests::simulate::{Overrides, Plan, Profile, run};

/// Few enough for a build without optimization.
const SEEDS: u64 = 10;

fn holds(profile: Profile) {
    for seed in 0..SEEDS {
        let report = run(&Plan::new(seed, profile, &Overrides::default()));
        if let Some(violation) = report.violation {
            panic!("seed {seed} of profile {profile}: {violation}");
        }
        assert!(report.operations > 0, "seed {seed} of profile {profile}: nobody asked anything");
    }
}

macro_rules! profiles {
    ($($name:ident: $profile:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            holds(Profile::$profile);
        })*

        #[test]
        fn each_profile_is_run() {
            assert_eq!(Profile::ALL, [$(Profile::$profile),*]);
        }
    };
}

profiles! {
    anything_may_go_wrong: Default,
    nothing_goes_wrong: Calm,
    networks_go_wrong: Network,
    processes_die: Crashes,
    disks_go_wrong: Disks,
    clocks_go_wrong: Clocks,
    clocks_go_wild: WildClocks,
    logs_are_compacted: Snapshots,
    clusters_are_formed: Formation,
    memberships_change: Memberships,
    disks_are_mixed_up: Identity,
    strangers_lie_and_speak_nonsense: Outside,
    it_ends_in_a_known_way: Endings,
}

/// A short run of a seed.
fn short(seed: u64) -> Plan {
    let overrides = Overrides { duration: Some(Duration::from_secs(2)), ..Overrides::default() };
    Plan::new(seed, Profile::Default, &overrides)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 100..104 {
        let (first, second) = (run(&short(seed)), run(&short(seed)));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

#[test]
fn two_seeds_give_two_runs() {
    assert_ne!(run(&short(100)).hash, run(&short(101)).hash);
}

/// A seed that something else has gone through before is the same: nothing is left over from one
/// run to the next on a thread.
#[test]
#[expect(clippy::disallowed_methods, reason = "a simulation runs on another thread")]
fn a_run_does_not_depend_on_those_before() {
    let alone = std::thread::spawn(|| run(&short(102)).hash).join().expect("runs");
    run(&short(103));
    assert_eq!(run(&short(102)).hash, alone);
}
