//! Scenarios of the engine: whole clusters in one process, whose clock, network and disks are in
//! hand. `testdata/*.txt` are the scenarios; `commands.rs` describes their language.

mod cluster;
mod commands;
mod disk;
mod extremes;
mod interleavings;
#[cfg(feature = "planted")]
mod planted;
mod safety;
mod script;
mod show;
mod transitions;

/// One test for each file, and one that no file is left out.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                script::run(concat!(stringify!($name), ".txt"));
            }
        )*

        #[test]
        fn every_file_has_its_test() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
            let mut files: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let mut tests = vec![$(concat!(stringify!($name), ".txt")),*];
            tests.sort();
            assert_eq!(files, tests);
        }
    };
}

scenarios! {
    campaign_by_hand
    check_quorum
    configure_elections
    configure_heartbeats
    configure_pre_vote
    configure_removed
    configure_requests
    configure_timeouts
    conflict
    conflict_in_round
    election
    election_five
    election_loss
    election_single
    election_split
    election_yield
    exchange
    exchange_again
    exchange_back
    exchange_by_snapshot
    exchange_leader_lost
    exchange_majority_lost
    exchange_old_returns
    exchange_twice
    figure_8
    formation_dead_member
    formation_founder_lost
    formation_lists
    formation_lists_five
    formation_member_lost
    formation_next_claim
    formation_next_claim_unlisted
    formation_promise
    formation_single_restart
    forward
    forward_room
    forward_leader_lost
    forward_limit
    forward_leadership_transfer
    forward_leader_change
    leadership_transfer
    leadership_transfer_alone
    leadership_transfer_fails
    leadership_transfer_late
    leadership_transfer_repeated
    inflight
    inflight_full
    initialize
    late_vote
    leader_disk
    leader_disk_stalls
    leader_disk_starves
    leader_disk_unreadable
    log_comparison
    membership_asked_again
    membership_cancel
    membership_deposed
    membership_follows
    membership_grow
    membership_joint_leader_fails
    membership_late
    membership_late_in_joint
    membership_leader_leaves
    membership_learner
    membership_founder_added
    membership_removed_away
    membership_silent_target
    membership_snapshot
    membership_truncated
    membership_vote_of_behind
    overwritten_completion
    pre_vote
    read_after_restart
    read_before_first_commit
    read_follower
    read_index
    read_late_echo
    read_old_term
    reordered_append
    replication
    restart
    rolled_back
    rolled_back_leader
    rolled_back_same_term
    slow_peer
    snapshot
    snapshot_between
    snapshot_conflict
    snapshot_crash
    snapshot_disk_full
    snapshot_overtaken
    snapshot_peer_away
    snapshot_purged_to_end
    snapshot_resumes
    snapshot_silent_peer
    snapshot_slow_transfer
    step_down
    step_down_alone
    transfer
    transfer_fails
    transfer_lost_order
    transfer_preferred
    transfer_refused
    transfer_to_best
    uncommitted_limit
    vote_durability
    wiped_deposed_leader
    wiped_late_append
    wiped_two_terms
}
