//! A replica that was removed, or is about to be: what makes it one, and when it still campaigns.

use super::*;

fn configuration(index: Index, ids: &[u64]) -> Entry {
    let log_id = LogId::new(1, 2, index);
    Entry { log_id, time: 0, payload: Payload::Membership(members(ids)) }
}

/// Node 1, which has these configurations in its log, one after the other, of which the first is
/// known to be committed.
fn with_configurations(config: Config, standing: Standing, configurations: &[&[u64]]) -> Engine {
    let mut log_meta = LogMeta::default();
    (1..).zip(configurations).for_each(|(at, ids)| log_meta.push(&configuration(at, ids)));
    let marks = Marks { committed: LogId::new(1, 2, 1), ..Marks::default() };
    let hard_state = HardState { term: Term(1), voted_for: Some(node(2)) };
    let recovered = Recovered { hard_state, standing, log_meta, marks, ..Recovered::default() };
    let local = Local { replica: node(1), boot: Boot { number: 1, tag: 1 }, cluster: None };
    Engine::new(local, 0, config, recovered, 1, Instant::default())
}

fn extend(after: Index, committed: Index, configurations: &[&[u64]]) -> Input {
    let entries: Vec<_> =
        (after + 1..).zip(configurations).map(|(at, ids)| configuration(at, ids)).collect();
    let prev = if after == 0 { LogId::ZERO } else { LogId::new(1, 2, after) };
    says(Body::Append { prev, committed, round: 1, durable: 0, entries: entries.into() })
}

/// It was removed before its snapshot, and has forgotten that it was a voter before that.
#[test]
fn only_a_configuration_that_names_it_makes_a_removed_replica_a_member_again() {
    for (ids, standing) in [(&[2, 3, 4], Standing::Spent), (&[1, 2, 3], Standing::Empty)] {
        let snapshot = SnapshotMeta { membership: members(&[2, 3]), ..meta(5) };
        let mut engine = engine(Recovered {
            hard_state: HardState { term: Term(1), voted_for: Some(node(2)) },
            standing: Standing::Spent,
            log_meta: LogMeta::after(snapshot.log_id),
            snapshot: Some(snapshot),
            ..Recovered::default()
        });
        output_of(&mut engine);
        after(&mut engine, extend(5, 6, &[ids]));
        assert_eq!(engine.committed(), 6);
        assert_eq!(*engine.standing(), standing, "{ids:?}");
    }
}

/// It alone has the configuration that leaves it out, which may have to be committed by it.
#[test]
fn a_replica_that_is_still_needed_campaigns_when_it_is_told_to() {
    let config = Config { elections: false, ..Config::default() };
    let mut engine = with_configurations(config, Standing::Empty, &[&[1, 2], &[2]]);
    output_of(&mut engine);
    engine.campaign_by_hand(Instant::default()).expect("it may be the only one who can");
    let asked = output_of(&mut engine).messages;
    assert!(asked.iter().any(|message| matches!(message.body, Body::PreVote { .. })), "{asked:?}");
}

/// Its log ends with the configuration that leaves it out, and it does not know that this is
/// committed: it asks for votes, and is shown so.
#[test]
fn a_removed_replica_that_has_all_of_the_log_is_told() {
    let told = |last: Index| {
        let mut member =
            with_configurations(Config::default(), Standing::Empty, &[&[1, 2, 3], &[1, 2]]);
        after(&mut member, extend(2, 2, &[]));
        assert_eq!(member.committed(), 2);
        let last_log_id = LogId::new(1, 2, last);
        let asks = Body::Vote { last_log_id, transfer: None, attempt: 1 };
        let messages = after(&mut member, message(3, 1, asks)).messages;
        messages.into_iter().find(|message| matches!(message.body, Body::Removed { .. }))
    };
    assert!(told(1).is_some(), "it has less");
    assert!(told(3).is_none(), "it may know more");
    let shown = told(2).expect("it has the same");

    let mut removed =
        with_configurations(Config::default(), Standing::Empty, &[&[1, 2, 3], &[2, 3]]);
    let Body::Removed { log_id, .. } = shown.body else { unreachable!() };
    after(&mut removed, says(Body::Removed { log_id, membership: members(&[2, 3]) }));
    assert_eq!(*removed.standing(), Standing::Spent);
}
