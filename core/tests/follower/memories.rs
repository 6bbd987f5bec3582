//! What a replica remembers of others, and what they remember of it; and what is promised for good.

use super::*;

/// A leader whose disk was put back may be elected by another that knows of nothing, while the node
/// that has committed what both have forgotten restarts. It must not give that up without a word.
#[test]
fn what_was_committed_before_a_restart_is_not_replaced() {
    let mut log_meta = LogMeta::default();
    log_meta.push(&first(members(&[1, 2, 3])));
    entries(2..=7).iter().for_each(|entry| log_meta.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: Some(node(2)) };
    let marks = Marks { committed: LogId::new(1, 2, 5), ..Marks::default() };
    let recovered = Recovered { hard_state, log_meta, marks, ..Recovered::default() };
    let mut restarted = engine(recovered);
    assert_eq!(after(&mut restarted, Input::Wake).committed, Some(5));
    let shorter = |prev, entries: Vec<Entry>| Body::Append {
        prev,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    let body = shorter(LogId::new(1, 2, 2), vec![entry(2, 3, 3)]);
    let output = after(&mut restarted, message(3, 2, body));
    assert!(output.write.is_none_or(|(_, write)| write.entries.is_empty()));
    assert_eq!(restarted.contradictions(), 1);
    assert_eq!(restarted.last_log_id(), LogId::new(1, 2, 7));
    let body = shorter(LogId::new(1, 2, 5), vec![entry(2, 3, 6)]);
    after(&mut restarted, message(3, 2, body));
    assert_eq!(restarted.contradictions(), 1, "what is not known to be committed may be replaced");
    assert_eq!(restarted.last_log_id(), LogId::new(2, 3, 6));
}

/// Each thing that a peer may remember of a disk that was put back, and what is no accusation.
#[test]
fn a_disk_that_was_put_back_is_noticed_by_what_others_remember() {
    let nothing = Memory::default();
    let at = |index| LogId::new(1, 2, index);
    for (memory, accused) in [
        (nothing, false),
        (
            Memory {
                term: Term(1),
                voted: Term(1),
                acknowledged: at(7),
                committed: at(6),
                ..nothing
            },
            false,
        ),
        (Memory { committed: at(3), ..nothing }, false),
        (Memory { term: Term(2), ..nothing }, true),
        (Memory { voted: Term(2), ..nothing }, false),
        (Memory { acknowledged: at(8), ..nothing }, true),
        (Memory { acknowledged: LogId::new(2, 3, 6), ..nothing }, true),
        (Memory { acknowledged: LogId::new(0, 0, 9), ..nothing }, false),
        (Memory { committed: at(8), ..nothing }, true),
        (Memory { committed: LogId::new(2, 3, 7), ..nothing }, true),
    ] {
        let mut output = after(&mut follower(5, 7), Input::Remembered { from: node(2), memory });
        assert_eq!(output.rare().rolled_back.is_some(), accused, "{memory:?}");
    }
    let in_start = |number, tag| Memory { boot: Boot { number, tag }, ..nothing };
    for (memory, accused) in [
        (in_start(1, 1), false),
        (in_start(1, 2), true),
        (in_start(2, 1), true),
        (in_start(0, 9), false),
    ] {
        let mut output = after(&mut follower(5, 7), Input::Remembered { from: node(2), memory });
        assert_eq!(output.rare().rolled_back.is_some(), accused, "{memory:?}");
    }
    let voted = Memory { voted: Term(1), ..nothing };
    let mut output = after(&mut follower(5, 7), Input::Remembered { from: node(3), memory: voted });
    assert!(output.rare().rolled_back.is_some(), "its vote was node 2's, and node 3 has got one");
}

/// A disk that was put back can come by the same term again, and lead in it. What it has then shows
/// nothing, but how its runs began does.
#[test]
fn a_disk_that_was_put_back_is_noticed_when_its_term_has_risen_again() {
    let starts: LiteMap<u64, Start> = (1..=4)
        .map(|number| {
            (
                number,
                Start {
                    tag: 10 + number,
                    term: Term(number),
                    last: LogId::new(number, 1, 10 * number),
                },
            )
        })
        .collect();
    let memory = |number, tag, term| {
        let boot = Boot { number, tag };
        Memory { term: Term(term), boot, ..Memory::default() }
    };
    let judge = |memory: Memory| {
        let hard_state = HardState { term: Term(9), voted_for: Some(node(1)) };
        let marks = Marks { starts: starts.clone(), ..Marks::default() };
        let recovered = Recovered { hard_state, marks, ..Recovered::default() };
        let local = Local { replica: node(1), boot: Boot { number: 6, tag: 16 }, cluster: None };
        let now = Instant::default();
        let mut engine = Engine::new(local, 0, Config::default(), recovered, 1, now);
        after(&mut engine, Input::Remembered { from: node(2), memory }).rare().rolled_back.is_some()
    };
    for (number, acknowledged, committed, accused) in [
        (2, LogId::new(3, 1, 30), LogId::ZERO, false),
        (2, LogId::new(3, 1, 31), LogId::ZERO, true), // Start 3 began with term 3 and 3.1-30.
        (2, LogId::new(2, 1, 99), LogId::ZERO, false), // Replaced in term 3, perhaps.
        (2, LogId::new(3, 1, 31), LogId::new(3, 1, 31), true),
    ] {
        let boot = Boot { number, tag: 10 + number };
        let memory = Memory { term: Term(3), acknowledged, committed, boot, ..Memory::default() };
        assert_eq!(judge(memory), accused, "start {number}, {acknowledged}, {committed}");
    }
    for (number, tag, term, accused) in [
        (2, 12, 3, false), // Start 3 began with term 3.
        (2, 12, 4, true),
        (2, 13, 1, true), // Another process was start 2.
        (4, 14, 9, false),
        (4, 14, 10, true),
        (5, 99, 9, false), // Start 5 has written nothing.
        (6, 16, 9, false),
        (6, 17, 9, true),
        (7, 17, 9, true),
    ] {
        assert_eq!(judge(memory(number, tag, term)), accused, "start {number}/{tag}, term {term}");
    }
}

/// Followers remember of their leader what it has said to be durable, and of which run that was.
#[test]
fn a_follower_remembers_how_far_the_log_of_its_leader_was_durable() {
    let mut follower = follower(0, 3);
    let boot = Boot { number: 5, tag: 50 };
    after(&mut follower, Input::Met { replica: node(2), boot });
    let append = |durable| {
        let (prev, entries) = (LogId::new(1, 2, 3), vec![entry(1, 2, 4), entry(1, 2, 5)]);
        says(Body::Append { prev, committed: 4, round: 0, entries: entries.into(), durable })
    };
    let at = |index| LogId::new(1, 2, index);
    let remembers = |acknowledged, committed| {
        Some(Memory { term: Term(1), voted: Term(0), acknowledged, committed, boot })
    };
    after(&mut follower, append(2));
    assert_eq!(follower.memory_of(node(2)), remembers(at(2), at(2)));
    after(&mut follower, append(5));
    assert_eq!(follower.memory_of(node(2)), remembers(at(5), at(4)));
    after(&mut follower, append(99));
    assert_eq!(follower.memory_of(node(2)), remembers(at(5), at(4)), "what lies here is known");
    // It goes to the disk with the next write, and by itself when there is none for a while.
    let later = Instant::from_nanos(Duration::from_secs(5).as_nanos() as u64);
    follower.step(later, Input::Wake);
    let (_, write) = output_of(&mut follower).write.expect("marks that nothing takes along");
    let marks = write.marks.expect("marks");
    assert_eq!(marks.memories.get(&node(2)).copied(), remembers(at(5), at(4)));
    assert_eq!(
        marks.starts,
        [(1, Start { tag: 1, term: Term(1), last: at(3) })].into_iter().collect()
    );
}

/// A leader of a later term may put entries of earlier terms in the place of what was acknowledged
/// and never committed; until its own follow, the log ends before what a former leader remembers.
#[test]
fn what_a_later_leader_has_replaced_is_no_accusation() {
    let mut replaced = follower(0, 5);
    let of_term_2 = |index| entry(2, 3, index);
    let append = |prev, entries: Vec<Entry>| Body::Append {
        prev,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    let ends_at_5 = LogId::new(1, 2, 5);
    let body = append(ends_at_5, vec![of_term_2(6), of_term_2(7), of_term_2(8)]);
    after(&mut replaced, message(3, 2, body));
    after(&mut replaced, message(2, 3, append(ends_at_5, vec![entry(1, 2, 6)])));
    assert_eq!(replaced.last_log_id(), LogId::new(1, 2, 6));
    let acknowledged = LogId::new(2, 3, 8);
    let memory = Memory { term: Term(2), acknowledged, ..Memory::default() };
    let remembered = || Input::Remembered { from: node(3), memory };
    assert_eq!(after(&mut replaced, remembered()).rare().rolled_back, None);

    // The same after a restart in between.
    let mut log_meta = LogMeta::default();
    entries(1..=6).iter().for_each(|entry| log_meta.push(entry));
    let hard_state = HardState { term: Term(3), voted_for: None };
    let mut restarted = engine(Recovered { hard_state, log_meta, ..Recovered::default() });
    assert_eq!(after(&mut restarted, remembered()).rare().rolled_back, None);
}

/// A founder loses its disk as the leader of term 1, before another disk has the first entry. Its
/// next disk may lead in term 1 as well: who waits for the first entry follows that one then.
#[test]
fn another_promise_ends_the_following_of_a_leader() {
    let local = Local { replica: node(3), boot: Boot { number: 1, tag: 1 }, cluster: None };
    let mut engine =
        Engine::new(local, 0, Config::default(), Recovered::default(), 1, Instant::default());
    let mut hear = |disk, term, body| {
        let (from, to, term) = (Replica::new(1, disk), node(3), Term(term));
        let message = Message { group: 0, cluster: None, from, to, term, body };
        after(&mut engine, Input::Message(message));
        engine.leader()
    };
    for disk in [1, 2] {
        let claim = Claim {
            cluster: ClusterId(disk.into()),
            ballot: disk,
            founder: Replica::new(1, disk),
            list: std::sync::Arc::new(
                [1, 3].map(|id| (id, format!("node-{id}"))).into_iter().collect(),
            ),
        };
        assert_eq!(hear(disk, 0, Body::Claim(Box::new(claim))), None);
        let (prev, entries) = (LogId::FIRST, Entries::default());
        let heartbeat = Body::Append { prev, committed: 0, round: 0, durable: 0, entries };
        assert_eq!(hear(disk, 1, heartbeat), Some(Replica::new(1, disk)));
    }
}

/// Who forms a cluster hears anybody at a listed address.
#[test]
fn a_ballot_at_the_end_of_all_numbers_is_no_panic() {
    let mut founder = engine(Recovered::default());
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    founder.initialize(Instant::default(), list).unwrap();
    for ballot in [u64::MAX - 1, u64::MAX, u64::MAX] {
        let ids = [1, 2].into();
        let situation = Situation::Claimed { ballot, founder: Replica::new(1, 9), ids };
        let body = Body::Situation { situation, listed: [1, 2].into() };
        after(&mut founder, message(2, 0, body));
        let claim = founder.standing().claim().map(|claim| claim.ballot);
        assert_eq!(claim, Some(u64::MAX));
    }
}

/// What a leader remembers of its peers goes along with later writes, and comes back with the
/// store.
#[test]
fn memories_outlive_a_restart() {
    let memory = Memory { term: Term(3), acknowledged: LogId::new(3, 1, 9), ..Memory::default() };
    let marks = Marks { memories: [(node(2), memory)].into_iter().collect(), ..Marks::default() };
    let mut engine = engine(Recovered { marks, ..Recovered::default() });
    assert_eq!(engine.memory_of(node(2)), Some(memory));
    assert_eq!(engine.memory_of(Replica::new(2, 2)), None);
}

/// Absence alone is not enough: a node that joins replays the time before.
#[test]
fn who_was_a_voter_and_has_committed_a_configuration_without_itself_is_spent() {
    let others = || Entry { payload: Payload::Membership(members(&[2, 3])), ..entry(1, 2, 2) };
    for (begin, spent) in [(&[1, 2, 3][..], true), (&[2, 3], false)] {
        let mut engine = newcomer();
        let entries = vec![first(members(begin)), others()].into();
        let body = Body::Append { prev: LogId::ZERO, committed: 1, round: 0, durable: 0, entries };
        after(&mut engine, message(3, 1, body));
        assert_ne!(*engine.standing(), Standing::Spent, "it is not committed");
        let body = Body::Append {
            prev: LogId::new(1, 2, 2),
            committed: 2,
            round: 0,
            durable: 0,
            entries: Entries::default(),
        };
        let output = after(&mut engine, message(3, 1, body));
        assert_eq!(*engine.standing() == Standing::Spent, spent);
        let written = output.write.and_then(|(_, write)| write.standing);
        assert_eq!(written.as_deref() == Some(&Standing::Spent), spent, "durably");
        let output = after(&mut engine, message(2, 0, Body::Who { listed: [].into() }));
        assert_ne!(situation(&output), Some(&Situation::Spent), "not before it is durable");
    }
}

/// Voters vote before they have the first entry, and a founder may lose it again: until somebody
/// has acknowledged it, the claim may have to be made anew, and who is let in would not take that.
#[test]
fn a_founder_lets_nobody_in_before_its_first_entry_has_left_it() {
    let mut founder = newcomer();
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    founder.initialize(Instant::default(), list).expect("it may found");
    let (write, _) = output_of(&mut founder).write.expect("its claim");
    after(&mut founder, Input::Persisted { write });
    let listed: BTreeSet<u64> = [1, 2].into();
    let situation = Situation::Claimed { ballot: 1, founder: node(1), ids: listed.clone() };
    let body = Body::Situation { situation, listed: listed.clone() };
    after(&mut founder, sent(node(2), node(1), 0, body));
    assert_eq!(founder.last_log_id(), LogId::FIRST);
    for (term, body) in [
        (1, Body::PreVoteReply { granted: true, attempt: 0 }),
        (1, Body::VoteReply { granted: true, attempt: 0 }),
    ] {
        after(&mut founder, sent(node(2), node(1), term, body));
    }
    assert_ne!(founder.memory_of(node(2)), None, "its vote is remembered");
    let asked = |founder: &mut Engine| {
        let who = Body::Who { listed: listed.clone() };
        let output = after(founder, sent(node(2), node(1), 0, who));
        output.messages.iter().any(|message| matches!(message.body, Body::Admit { .. }))
    };
    assert!(!asked(&mut founder));
}
