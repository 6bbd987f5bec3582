//! One leader, and peers whose answers are made by hand: what it sends, and when.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::{Engine, Input, Local, Output, Proposal, ReadChunk};
use quorate_core::quorum::Voters;
use quorate_core::{
    AppendOutcome, Body, Boot, ClusterId, Config, Digest, Entry, ForwardOutcome, HardState, LogId,
    LogMeta, Membership, Memory, Message, Payload, Recovered, Replica, Role, SnapshotMeta, Term,
    TransferError,
};
use quorate_rt::Instant;

/// A node with its first disk.
fn node(id: u64) -> Replica {
    Replica::new(id, 1)
}

/// A snapshot of ten bytes.
fn meta(index: u64) -> SnapshotMeta {
    let members = [1, 2, 3].map(|id| (node(id), format!("node-{id}"))).into();
    SnapshotMeta {
        log_id: LogId::new(1, 1, index),
        time: 0,
        membership: Membership::founding(ClusterId(7), members).expect("valid"),
        membership_index: 1,
        bytes: 10,
        digest: Digest::of(&index.to_le_bytes()),
    }
}

/// Node 1, which leads since term 2, and the time. Its log begins after 9.
struct Leader {
    engine: Engine,
    now: Instant,
}

impl Leader {
    fn new(config: Config) -> Self {
        Self::of(config, meta(9))
    }

    /// The same with this snapshot, which ends at 9.
    fn of(config: Config, snapshot: SnapshotMeta) -> Self {
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), voted_for: Some(node(1)) },
            snapshot: Some(snapshot),
            log_meta: LogMeta::after(meta(9).log_id),
            ..Recovered::default()
        };
        let local = Local { replica: node(1), boot: Boot { number: 1, tag: 1 }, cluster: None };
        let engine = Engine::new(local, 0, config, recovered, 1, Instant::default());
        let mut leader = Self { engine, now: Instant::default() + Duration::from_secs(10) };
        leader.step(Input::Wake);
        leader.hear(2, Body::PreVoteReply { granted: true, attempt: 0 });
        let write = leader.output().write.expect("its vote is to be kept").0;
        leader.step(Input::Persisted { write });
        leader.hear(2, Body::VoteReply { granted: true, attempt: 0 });
        assert_eq!(leader.engine.role(), Role::Leader);
        leader.output();
        leader
    }

    fn step(&mut self, input: Input) {
        self.engine.step(self.now, input);
    }

    fn hear(&mut self, from: u64, body: Body) {
        self.hear_replica(node(from), body);
    }

    fn hear_replica(&mut self, from: Replica, body: Body) {
        let (to, term) = (node(1), Term(2));
        self.step(Input::Message(Message { group: 0, cluster: None, from, to, term, body }));
    }

    fn output(&mut self) -> Output {
        *self.engine.take_output()
    }

    /// Time passes. (Node 3 is there all the while: a leader that nobody answers is none.)
    fn wait(&mut self, duration: Duration) {
        self.now += duration;
        self.hear(3, accepted(9));
        self.step(Input::Wake);
    }

    /// What comes of node 2's word that it has stored so much of a snapshot.
    fn after_reply(&mut self, index: u64, stored: u64) -> Output {
        self.hear(2, Body::SnapshotReply { digest: meta(index).digest, stored });
        self.output()
    }

    /// What comes of a chunk that has been read for node 2.
    fn after_read(&mut self, index: u64, offset: u64, chunk: &'static [u8]) -> Output {
        let (peer, digest, chunk) = (node(2), meta(index).digest, Bytes::from_static(chunk));
        self.step(Input::ChunkRead { peer, digest, offset, chunk });
        self.output()
    }
}

/// It sends node 2 its snapshot, four bytes at a time and up to eight of them ahead: the first four
/// are being read.
fn sending() -> Leader {
    let config = Config { max_append_bytes: 4, max_inflight_bytes: 8, ..Config::default() };
    let mut leader = Leader::new(config);
    let outcome = AppendOutcome::Rejected { prev: 9, hint: LogId::ZERO };
    leader.hear(2, Body::AppendReply { round: 0, outcome });
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)], "an offer");
    assert_eq!(leader.after_reply(9, 0).rare().chunks, [read(9, 0, 4)]);
    leader
}

/// … and node 2 has stored the first four, while the second four are being read.
fn half_sent() -> Leader {
    let mut leader = sending();
    assert_eq!(leader.after_read(9, 0, b"0123").rare().chunks, [read(9, 4, 4)]);
    assert!(leader.after_reply(9, 4).rare().chunks.is_empty(), "one chunk is read at a time");
    leader
}

fn read(index: u64, offset: u64, len: usize) -> ReadChunk {
    ReadChunk { peer: node(2), meta: meta(index), offset, len }
}

/// The chunks that are sent, and the offers: the snapshot's index, the offset, and the length,
/// which is 0 of an offer.
fn sent_chunks(output: &Output) -> Vec<(u64, u64, usize)> {
    let snapshot_chunk = |message: &Message| match &message.body {
        Body::Snapshot { meta, offset, chunk } => Some((meta.log_id.index, *offset, chunk.len())),
        _ => None,
    };
    output.messages.iter().filter_map(snapshot_chunk).collect()
}

fn timeout() -> Duration {
    Config::default().election_timeout
}

const MOMENT: Duration = Duration::from_nanos(1);

#[test]
fn chunks_are_sent_ahead_as_far_as_the_window_reaches() {
    let mut leader = sending();
    let output = leader.after_read(9, 0, b"0123");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 0, 4)], vec![read(9, 4, 4)])
    );
    let output = leader.after_read(9, 4, b"4567");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 4, 4)], vec![]),
        "the window is full"
    );
    assert_eq!(leader.after_reply(9, 4).rare().chunks, [read(9, 8, 2)]);
    let output = leader.after_read(9, 8, b"89");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 8, 2)], vec![]),
        "that is all of it"
    );
}

#[test]
fn a_reply_about_another_snapshot_says_nothing() {
    let mut leader = half_sent();
    for stored in [0, 10] {
        leader.after_reply(8, stored);
    }
    // (If it had believed that node 2 has nothing, it would send no more; if it had believed the
    // other, there were nothing to send.)
    let output = leader.after_read(9, 4, b"4567");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 4, 4)], vec![read(9, 8, 2)])
    );
}

#[test]
fn a_reply_that_cannot_be_says_nothing() {
    let mut leader = half_sent();
    leader.after_reply(9, 11);
    assert_eq!(sent_chunks(&leader.after_read(9, 4, b"4567")), [(9, 4, 4)]);
}

#[test]
fn the_same_reply_again_changes_nothing_and_is_no_progress() {
    let mut leader = half_sent();
    leader.wait(timeout() - MOMENT);
    leader.after_reply(9, 4);
    let output = leader.after_read(9, 4, b"4567");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 4, 4)], vec![read(9, 8, 2)])
    );
    leader.wait(MOMENT);
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)], "it has not got on for so long");
}

/// A chunk was lost where a transport had no room for it: the peer could not take the next, and
/// says once more what it has.
#[test]
fn a_chunk_that_the_peer_misses_is_sent_again_at_once_and_not_twice() {
    let mut leader = half_sent();
    assert_eq!(leader.after_read(9, 4, b"4567").rare().chunks, [read(9, 8, 2)]);
    leader.after_read(9, 8, b"89");
    assert_eq!(leader.after_reply(9, 4).rare().chunks, [read(9, 4, 4)]);
    // Each of the chunks that were on their way is answered like that.
    assert!(leader.after_reply(9, 4).rare().chunks.is_empty());
    let output = leader.after_read(9, 4, b"4567");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![(9, 4, 4)], vec![read(9, 8, 2)])
    );
    leader.after_reply(9, 4);
    assert_eq!(sent_chunks(&leader.after_read(9, 8, b"89")), [(9, 8, 2)]);
    // Farther on, it may happen again.
    assert!(leader.after_reply(9, 8).rare().chunks.is_empty());
    assert_eq!(leader.after_reply(9, 8).rare().chunks, [read(9, 8, 2)]);
}

/// As it says to an offer.
#[test]
fn a_peer_that_says_again_what_it_has_and_misses_nothing_may_miss_it_later() {
    let mut leader = half_sent();
    leader.after_reply(9, 4);
    leader.after_read(9, 4, b"4567");
    leader.after_read(9, 8, b"89");
    assert_eq!(leader.after_reply(9, 4).rare().chunks, [read(9, 4, 4)]);
}

#[test]
fn progress_puts_the_next_offer_off() {
    let mut leader = half_sent();
    leader.after_read(9, 4, b"4567");
    leader.wait(timeout() - MOMENT);
    leader.after_reply(9, 8);
    leader.wait(timeout() - MOMENT);
    assert!(sent_chunks(&leader.output()).is_empty());
    leader.wait(MOMENT);
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)]);
}

/// Its disk is full, or it was started again.
#[test]
fn a_peer_that_has_lost_something_gets_nothing_but_an_offer_after_a_pause() {
    let mut leader = half_sent();
    assert!(leader.after_reply(9, 0).rare().chunks.is_empty());
    let mut output = leader.after_read(9, 4, b"4567");
    assert!(sent_chunks(&output).is_empty() && output.rare().chunks.is_empty());
    leader.wait(timeout() - MOMENT);
    assert!(sent_chunks(&leader.output()).is_empty());
    leader.wait(MOMENT);
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)]);
    assert_eq!(leader.after_reply(9, 0).rare().chunks, [read(9, 0, 4)], "from the begin");
}

#[test]
fn a_chunk_that_was_read_before_the_peer_was_asked_anew_is_not_sent() {
    let mut leader = half_sent();
    leader.wait(timeout());
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)]);
    assert!(sent_chunks(&leader.after_read(9, 4, b"4567")).is_empty(), "what it has is not known");
    assert_eq!(leader.after_reply(9, 4).rare().chunks, [read(9, 4, 4)]);
}

#[test]
fn a_chunk_from_where_the_peer_was_before_is_not_sent() {
    let mut leader = half_sent();
    leader.after_reply(9, 1);
    leader.wait(timeout());
    assert_eq!(sent_chunks(&leader.output()), [(9, 0, 0)]);
    leader.after_reply(9, 1);
    let output = leader.after_read(9, 4, b"4567");
    assert_eq!(
        (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
        (vec![], vec![read(9, 1, 4)])
    );
}

#[test]
fn a_chunk_of_the_snapshot_before_is_not_sent_as_one_of_the_next() {
    for chunk in [&b"0123"[..], b""] {
        let mut leader = sending();
        leader.hear(3, accepted(10));
        leader.step(Input::Persisted { write: 2 });
        leader.output();
        leader.step(Input::SnapshotReady(newer()));
        leader.wait(timeout());
        assert_eq!(
            sent_chunks(&leader.output()),
            [(10, 0, 0)],
            "it has got nowhere with the first"
        );
        assert!(leader.after_reply(10, 0).rare().chunks.is_empty(), "one chunk is read at a time");
        let output = leader.after_read(9, 0, chunk);
        let next = ReadChunk { peer: node(2), meta: newer(), offset: 0, len: 4 };
        assert_eq!(
            (sent_chunks(&output), output.rare.unwrap_or_default().chunks),
            (vec![], vec![next])
        );
    }
}

/// It answers heartbeats all the while, and may have told before that of more than the log reaches
/// back to.
#[test]
fn a_peer_that_agrees_with_what_is_purged_goes_on_getting_the_snapshot() {
    let mut leader = half_sent();
    leader.hear(2, accepted(8));
    let mut output = leader.output();
    assert!(sent_chunks(&output).is_empty() && output.rare().fetches.is_empty());
    assert_eq!(sent_chunks(&leader.after_read(9, 4, b"4567")), [(9, 4, 4)]);
}

/// Whether it has lost that, its answer there will tell.
#[test]
fn a_peer_whose_hint_is_below_what_it_has_acknowledged_is_asked_for_just_that() {
    let mut leader = Leader::new(Config::default());
    for ticket in 1..4 {
        leader.engine.propose(leader.now, ticket, [Bytes::from_static(b"a")]);
    }
    leader.hear(2, accepted(11));
    leader.output();
    let outcome = AppendOutcome::Rejected { prev: 13, hint: LogId::ZERO };
    leader.hear(2, Body::AppendReply { round: 0, outcome });
    let fetches = leader.output().rare.unwrap_or_default().fetches;
    assert_eq!(fetches.iter().map(|fetch| &fetch.range).collect::<Vec<_>>(), [&(12..14)]);
}

/// All in one turn: what stands before them is known no more, so it is to get the snapshot.
#[test]
fn entries_that_were_read_for_a_peer_are_not_sent_once_they_are_purged() {
    for purged in [12, 13] {
        let mut leader =
            Leader::new(Config { retained_bytes: 0, max_retained_bytes: 0, ..Config::default() });
        for ticket in 1..4 {
            leader.engine.propose(leader.now, ticket, [Bytes::from_static(b"a")]);
        }
        let write = leader.output().write.expect("new entries").0;
        leader.step(Input::Persisted { write });
        leader.hear(3, accepted(13));
        leader.hear(2, accepted(11));
        let outcome = AppendOutcome::Rejected { prev: 13, hint: LogId::ZERO };
        leader.hear(2, Body::AppendReply { round: 0, outcome });
        assert_eq!(leader.output().rare().fetches.len(), 1);
        let snapshot = SnapshotMeta { log_id: LogId::new(2, 1, purged), ..meta(purged) };
        leader.step(Input::SnapshotReady(snapshot));
        let entry = |index| Entry {
            log_id: LogId::new(2, 1, index),
            time: 0,
            payload: Payload::Command(Bytes::from_static(b"a")),
        };
        leader.step(Input::Fetched {
            peer: node(2),
            term: Term(2),
            entries: vec![entry(12), entry(13)].into(),
        });
        assert_eq!(sent_chunks(&leader.output()), [(purged, 0, 0)], "an offer");
    }
}

/// Those that others pass on count as its own do.
#[test]
fn no_more_is_taken_than_may_be_uncommitted() {
    let each = Entry::OVERHEAD_BYTES + 5;
    // (The blank one of its term has no content.)
    let max_uncommitted_bytes = Entry::OVERHEAD_BYTES + 2 * each;
    let mut leader = Leader::new(Config { max_uncommitted_bytes, ..Config::default() });
    let command = || Bytes::from_static(b"12345");
    leader.hear(2, Body::Forward { boot: 7, sequence: 1, commands: vec![command()] });
    leader.engine.propose(leader.now, 1, [command(), command(), Bytes::new()]);
    leader.hear(2, Body::Forward { boot: 7, sequence: 2, commands: vec![Bytes::new()] });
    let output = leader.output();
    let at = |index| LogId::new(2, 1, index);
    let busy = [(2..3, Proposal::Busy), (3..4, Proposal::Busy)];
    assert_eq!(output.proposals[0], (1..2, Proposal::Appended(at(12))));
    assert_eq!(output.proposals[1..], busy);
    let answers = output.messages.iter().filter_map(|message| match &message.body {
        Body::ForwardReply { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    let expected = [ForwardOutcome::Appended(at(11)), ForwardOutcome::Busy];
    assert_eq!(answers.collect::<Vec<_>>(), expected);
}

/// The disk is full: nothing is taken until there is space, and reads go on.
#[test]
fn a_leader_whose_disk_is_full_takes_no_commands() {
    let mut leader = Leader::new(Config::default());
    let command = || Bytes::from_static(b"a");
    leader.engine.propose(leader.now, 1, [command()]);
    let (write, _) = leader.output().write.expect("its entries");
    leader.step(Input::Delayed { write });
    assert!(leader.engine.waits_for_space());
    leader.engine.propose(leader.now, 2, [command(), command()]);
    leader.hear(2, Body::Forward { boot: 7, sequence: 1, commands: vec![command()] });
    let output = leader.output();
    let full = [(2..3, Proposal::StorageFull), (3..4, Proposal::StorageFull)];
    assert_eq!(output.proposals, full);
    assert_eq!(leader.engine.last_log_id().index, 11, "nothing was appended");
    let full = Body::ForwardReply { boot: 7, sequence: 1, outcome: ForwardOutcome::StorageFull };
    assert!(output.messages.iter().any(|message| message.to == node(2) && message.body == full));
    // Nobody else has more: there is nobody to transfer leadership to.
    assert!(!leader.engine.is_resigning());
    leader.step(Input::Persisted { write });
    assert!(!leader.engine.waits_for_space());
    leader.engine.propose(leader.now, 4, [command()]);
    let placed = Proposal::Appended(LogId::new(2, 1, 12));
    assert_eq!(leader.output().proposals, [(4..5, placed)]);
}

/// The others have space: one of them is to lead. If it does not take over, the next try comes an
/// election timeout after the end of this one.
#[test]
fn a_leader_whose_disk_is_full_transfers_leadership_to_those_who_have_space() {
    let mut leader = Leader::new(Config::default());
    let timeout = Config::default().election_timeout;
    leader.engine.propose(leader.now, 1, [Bytes::new()]);
    let (write, _) = leader.output().write.expect("its entries");
    leader.step(Input::Persisted { write: write - 1 });
    leader.step(Input::Delayed { write });
    // What has no entries is written to the reserve.
    let written = |leader: &mut Leader| {
        let output = leader.output();
        if let Some((write, _)) = output.write {
            leader.step(Input::Persisted { write });
        }
        output
    };
    let is_told = |output: &Output, id| {
        let is_order = |message: &Message| matches!(message.body, Body::TimeoutNow { .. });
        output.messages.iter().any(|message| message.to == node(id) && is_order(message))
    };
    leader.hear(2, accepted(11));
    assert!(!is_told(&written(&mut leader), 2), "only one of three has it");
    leader.hear(3, accepted(11));
    let output = written(&mut leader);
    assert_eq!(output.committed, Some(11));
    assert!(is_told(&output, 2) || is_told(&output, 3));
    assert!(leader.engine.is_resigning());
    leader.wait(timeout);
    leader.step(Input::Wake);
    written(&mut leader);
    assert!(!leader.engine.is_resigning(), "it goes on: nobody has taken over");
    leader.engine.propose(leader.now, 2, [Bytes::new()]);
    assert_eq!(written(&mut leader).proposals, [(2..3, Proposal::StorageFull)]);
    leader.wait(timeout);
    leader.step(Input::Wake);
    written(&mut leader);
    assert!(leader.engine.is_resigning(), "the next try");
}

/// E4: a learner may have everything, and is never told to take over: not by its name, and not as
/// the best.
#[test]
fn leadership_is_transferred_to_voters_only() {
    let members = (1..=4).map(|id| (node(id), format!("node-{id}"))).collect();
    let (founders, voters) = ([1, 2, 3].into(), Voters::simple([1, 2, 3].map(node)));
    let membership = Membership::new(ClusterId(7), founders, members, voters).expect("valid");
    let mut leader = Leader::of(Config::default(), SnapshotMeta { membership, ..meta(9) });
    let told = |leader: &mut Leader| -> Vec<Replica> {
        let messages = leader.output().messages;
        let orders = messages.iter().filter(|m| matches!(m.body, Body::TimeoutNow { .. }));
        orders.map(|message| message.to).collect()
    };
    leader.hear(4, accepted(10));
    let refused = leader.engine.transfer_leadership(leader.now, 4.into());
    assert!(matches!(refused, Err(TransferError::NoSuchVoter(4))), "{refused:?}");
    let begun = leader.engine.transfer_leadership(leader.now, None.into());
    begun.expect("there are other voters");
    assert_eq!(told(&mut leader), [], "only the learner has caught up");
    assert!(!leader.engine.hands_over());
    leader.engine.propose(leader.now, 1, [Bytes::new()]);
    let placed = [(1..2, Proposal::Appended(LogId::new(2, 1, 11)))];
    assert_eq!(leader.output().proposals, placed, "it serves");
    leader.hear(2, accepted(11));
    leader.hear(4, accepted(11));
    assert_eq!(told(&mut leader), [node(2)]);
    assert!(leader.engine.hands_over());
    leader.engine.propose(leader.now, 2, [Bytes::new()]);
    assert_eq!(leader.output().proposals, [(2..3, Proposal::NotLeader)]);
}

fn accepted(matched: u64) -> Body {
    Body::AppendReply { round: 0, outcome: AppendOutcome::Accepted { matched } }
}

fn newer() -> SnapshotMeta {
    SnapshotMeta { log_id: LogId::new(2, 1, 10), ..meta(10) }
}

/// Rule 4: who is not in the leader's latest configuration is refused, and known by its replica.
#[test]
fn forwards_and_questions_of_strangers_are_refused() {
    let forward = || Body::Forward { boot: 1, sequence: 1, commands: vec![Bytes::new()] };
    for stranger in [Replica::new(2, 2), node(4)] {
        let mut leader = Leader::new(Config::default());
        leader.hear_replica(stranger, forward());
        leader.hear_replica(stranger, Body::ReadIndex { sequence: 2 });
        let output = leader.output();
        assert_eq!(leader.engine.last_log_id().index, 10, "only its own entry");
        let to_stranger = output.messages.iter().filter(|message| message.to == stranger);
        let answers: Vec<_> = to_stranger.map(|message| message.body.clone()).collect();
        let outcome = ForwardOutcome::NotLeader;
        assert_eq!(answers[0], Body::ForwardReply { boot: 1, sequence: 1, outcome });
        assert!(matches!(answers[1], Body::ReadIndexReply { index: None, .. }));
    }
}

/// I7: a forward of another run than the peer is in is nobody's, and leaves the numbers of the
/// present one as they are.
#[test]
fn forwards_of_runs_that_cannot_have_been_are_dropped() {
    let mut leader = Leader::new(Config::default());
    let forward = |boot| Body::Forward { boot, sequence: 1, commands: vec![Bytes::new()] };
    leader.step(Input::Met { replica: node(2), boot: Boot { number: 5, tag: 7 } });
    // A forward of the run before may come late.
    let boots = [(u64::MAX, 10), (6, 10), (5, 11), (5, 11), (4, 12), (4, 12)];
    for (boot, last) in boots {
        leader.hear(2, forward(boot));
        assert_eq!(leader.engine.last_log_id().index, last, "boot {boot}");
    }
}

/// R15, R17: what another disk of a node says is no acknowledgement of the one that the
/// configuration names.
#[test]
fn acknowledgements_of_another_disk_count_for_nothing() {
    let mut leader = Leader::new(Config::default());
    let write = leader.engine.take_write().map(|(write, _)| write);
    if let Some(write) = write {
        leader.step(Input::Persisted { write });
    }
    leader.step(Input::Persisted { write: 2 });
    leader.hear_replica(Replica::new(2, 2), accepted(10));
    leader.hear_replica(Replica::new(3, 9), accepted(10));
    assert_eq!(leader.output().committed, None);
    leader.hear(2, accepted(10));
    assert_eq!(leader.output().committed, Some(10));
}

/// A refusal of something of an earlier term is said before the present term is durable. Who takes
/// it for a proof accuses a healthy disk after a crash.
#[test]
fn only_what_follows_durability_is_remembered() {
    let mut leader = Leader::new(Config::default());
    let refused = AppendOutcome::Rejected { prev: 0, hint: LogId::ZERO };
    leader.hear(2, Body::AppendReply { round: 0, outcome: refused });
    leader.hear(3, Body::SnapshotReply { digest: meta(9).digest, stored: 0 });
    let voted = Memory { term: Term(2), voted: Term(2), ..Memory::default() };
    assert_eq!(leader.engine.memory_of(node(2)), Some(voted), "its vote, and nothing more");
    assert_eq!(leader.engine.memory_of(node(3)), None);
    let outcome = AppendOutcome::Accepted { matched: 9 };
    leader.hear(3, Body::AppendReply { round: 0, outcome });
    let at = meta(9).log_id;
    let remembered = Memory { term: Term(2), acknowledged: at, committed: at, ..Memory::default() };
    assert_eq!(leader.engine.memory_of(node(3)), Some(remembered));
}
