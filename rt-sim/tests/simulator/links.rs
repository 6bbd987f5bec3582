//! Links that are cut, stall and break.

use std::io::ErrorKind;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join;
use quorate_rt::{Executor, ReadHalf, WriteHalf};
use quorate_rt_sim::{Crash, Host, HostId, Simulation};

use crate::common::*;

/// TCP's patience with a link is somewhere in between.
const SHORT: Duration = Duration::from_secs(4);
const LONG: Duration = Duration::from_secs(40);

/// … and it tries again as often as that.
const REPEATS: Duration = Duration::from_secs(3);

fn cut_both(pair: &Pair) {
    pair.cut(&pair.a, &pair.b);
    pair.cut(&pair.b, &pair.a);
}

#[test]
fn a_short_cut_is_a_delay() {
    for seed in 0..10 {
        let pair = Pair::new(seed);
        let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
        cut_both(&pair);
        pair.wait(async {
            write(&mut writer, "hel").await.unwrap();
            pair.on_a.sleep(SECOND).await;
            write(&mut writer, "lo").await.unwrap();
        });
        assert!(pair.within(SHORT, pair.on_b.sleep(SHORT - MS)).is_some());
        assert!(pair.wait(read_all_there(&mut reader)).is_empty(), "nothing gets through");
        pair.simulation.network().heal_all();
        pair.simulation.run_for(REPEATS);
        // A read that was dropped may have taken some of it away.
        let rest = pair.wait(read_all_there(&mut reader));
        assert!(b"hello".ends_with(&rest) && rest.len() < 6);
        assert_eq!(pair.simulation.counts().get("connection timed out"), None);
    }
}

#[test]
fn what_was_sent_before_a_cut_and_is_under_way_waits_for_its_end() {
    let pair = Pair::on(1, even(SECOND, 1 << 16));
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    pair.wait(write(&mut writer, "hello")).unwrap();
    pair.simulation.run_for(SECOND / 2);
    pair.cut(&pair.a, &pair.b);
    pair.simulation.run_for(2 * SECOND);
    pair.heal(&pair.a, &pair.b);
    let (read, took) = pair.time(read_exactly(&mut reader, 5));
    assert_eq!(read.unwrap(), "hello");
    assert!(took > Duration::ZERO && took <= REPEATS, "{took:?}");
}

#[test]
fn a_long_cut_is_an_error_to_who_sends_and_nothing_to_who_listens() {
    for seed in 0..10 {
        let pair = Pair::new(seed);
        let [(mut from_b, mut to_b), (mut from_a, mut to_a)] = halves(pair.connect());
        cut_both(&pair);
        pair.wait(write(&mut to_b, "hello")).unwrap();
        let (read, took) = pair.time(read_some(&mut from_b, 1));
        assert_eq!(kind(read), Some(ErrorKind::TimedOut));
        assert!(took > SHORT && took < LONG, "{took:?}");
        assert_eq!(kind(pair.wait(write(&mut to_b, "x"))), Some(ErrorKind::TimedOut));
        assert_eq!(pair.simulation.counts()["connection timed out"], 1);

        assert!(pair.within(HOUR, read_some(&mut from_a, 1)).is_none());
        pair.simulation.network().heal_all();
        assert!(pair.within(HOUR, read_some(&mut from_a, 1)).is_none(), "and after that");
        pair.wait(write(&mut to_a, "is anybody there")).unwrap();
        let answer = pair.within(SECOND, read_some(&mut from_a, 1));
        assert_eq!(kind(answer.unwrap()), Some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_connection_on_which_nothing_is_said_outlives_any_cut() {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, _)] = halves(pair.connect());
    cut_both(&pair);
    pair.simulation.run_for(HOUR);
    pair.simulation.network().heal_all();
    pair.wait(async {
        write(&mut writer, "hello").await.unwrap();
        assert_eq!(read_exactly(&mut reader, 5).await.unwrap(), "hello");
    });
}

#[test]
fn a_link_that_is_cut_one_way_lets_data_there_and_no_acknowledgements_back() {
    let pair = Pair::on(1, even(MS, 1000));
    let [(_from_b, mut writer), (mut reader, mut back)] = halves(pair.connect());
    pair.cut(&pair.b, &pair.a);
    let writing = pair.on_a.spawn(async move {
        write(&mut writer, pattern(1500)).await.unwrap();
        (writer, _from_b)
    });
    assert_eq!(
        pair.within(SECOND, read_exactly(&mut reader, 1000)).unwrap().unwrap(),
        pattern(1000)
    );
    assert!(pair.within(2 * SECOND, reader.read(bytes::BytesMut::with_capacity(1))).is_none());
    let mut writing = writing;
    assert!(pair.wait(async { (&mut writing).now_or_never().is_none() }), "its window is full");
    pair.wait(write(&mut back, "no way back")).unwrap();

    pair.heal(&pair.b, &pair.a);
    let (written, took) = pair.time(writing);
    let (_writer, mut from_b) = written.unwrap();
    assert!(took < MS, "the acknowledgements come: {took:?}");
    pair.simulation.run_for(MS * 2);
    assert!(pair.wait(read_all_there(&mut reader)).len() >= 499);
    assert_eq!(pair.wait(read_exactly(&mut from_b, 11)).unwrap(), "no way back");
}

#[test]
fn acknowledgements_that_do_not_come_for_long_are_an_error_to_who_waits_for_them() {
    let pair = Pair::on(1, even(MS, 1000));
    let [(_from_b, mut writer), (mut reader, _back)] = halves(pair.connect());
    pair.cut(&pair.b, &pair.a);
    let (written, took) = pair.time(async {
        let reads = async {
            read_exactly(&mut reader, 1000).await.unwrap();
        };
        join(write(&mut writer, pattern(1500)), reads).await.0
    });
    assert_eq!(kind(written), Some(ErrorKind::TimedOut));
    assert!(took > SHORT && took < LONG, "{took:?}");
}

#[test]
fn a_cut_is_between_two_hosts_and_in_one_direction() {
    let simulation = Simulation::new(1);
    let hosts: Vec<Host> = (0..3).map(|number| simulation.host(format!("{number}"))).collect();
    let network = simulation.network();
    network.cut(HostId(0), HostId(1));
    let reach = |from: usize, to: usize| hosts[from].reaches(&hosts[to]);
    assert!(!reach(0, 1) && reach(1, 0) && reach(0, 2) && reach(2, 0) && reach(1, 2));
    assert!(network.is_cut(HostId(0), HostId(1)) && !network.is_cut(HostId(1), HostId(0)));
    network.cut(HostId(2), HostId(2));
    assert!(reach(2, 2), "not from itself");
    network.cut(HostId(2), HostId(1));
    network.heal(HostId(0), HostId(1));
    assert!(reach(0, 1) && !reach(2, 1));
    network.heal_all();
    assert!(reach(2, 1));
    hosts[0].start(idle);
    hosts[0].crash(Crash::Power);
    assert!(!reach(0, 1) && !reach(1, 0), "there is nobody");
}

#[test]
fn what_is_sent_over_a_link_that_stalls_arrives_at_its_end_in_order() {
    let pair = Pair::on(1, even(MS, 1 << 16));
    let [(_, mut writer), (mut reader, mut back)] = halves(pair.connect());
    let begun = pair.simulation.now();
    pair.wait(write(&mut writer, "under way, ")).unwrap();
    pair.simulation.network().stall(pair.a.id(), pair.b.id(), 10 * SECOND);
    pair.simulation.run_for(5 * SECOND);
    pair.wait(write(&mut writer, "and later")).unwrap();
    let read = pair.wait(read_exactly(&mut reader, 20)).unwrap();
    assert_eq!(read, "under way, and later");
    let took = pair.simulation.now() - begun;
    assert!(took >= 10 * SECOND && took < 10 * SECOND + 2 * MS, "{took:?}");

    pair.simulation.network().stall(pair.a.id(), pair.b.id(), 10 * SECOND);
    assert!(pair.within(SECOND, write(&mut back, "the other way")).unwrap().is_ok());
    assert_eq!(pair.simulation.counts().get("connection timed out"), None);
}

#[test]
fn a_stall_holds_up_connections_too() {
    let pair = Pair::new(1);
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        pair.simulation.network().stall(from.id(), to.id(), 10 * SECOND);
        let begun = pair.simulation.now();
        drop(pair.connect());
        let took = pair.simulation.now() - begun;
        assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
    }
}

#[test]
fn a_stall_holds_up_acknowledgements_too() {
    let pair = Pair::on(1, even(MS, 1000));
    let [(_from_b, mut writer), (mut reader, _)] = halves(pair.connect());
    pair.simulation.network().stall(pair.b.id(), pair.a.id(), 10 * SECOND);
    let (_, took) = pair
        .time(join(async { write(&mut writer, pattern(1001)).await.unwrap() }, async {
            read_exactly(&mut reader, 1001).await.unwrap()
        }));
    assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
}

#[test]
fn a_stall_holds_up_resets_too() {
    let pair = Pair::new(1);
    let [of_a, (mut from_a, mut to_a)] = halves(pair.connect());
    pair.simulation.network().stall(pair.a.id(), pair.b.id(), 10 * SECOND);
    let (read, took) = pair.time(async {
        write(&mut to_a, "unread").await.unwrap();
        pair.on_a.sleep(SECOND).await;
        drop(of_a);
        read_some(&mut from_a, 1).await
    });
    assert_eq!(kind(read), Some(ErrorKind::ConnectionReset));
    assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
}

#[test]
fn a_shorter_stall_does_not_end_a_longer_one() {
    let pair = Pair::new(1);
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    pair.simulation.network().stall(pair.a.id(), pair.b.id(), 10 * SECOND);
    pair.simulation.network().stall(pair.a.id(), pair.b.id(), SECOND);
    let (_, took) = pair.time(async {
        write(&mut writer, "x").await.unwrap();
        read_exactly(&mut reader, 1).await.unwrap()
    });
    assert!(took >= 10 * SECOND, "{took:?}");
}

#[test]
fn healing_all_ends_stalls_for_what_is_under_way_too() {
    let pair = Pair::new(1);
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    pair.simulation.network().stall(pair.a.id(), pair.b.id(), HOUR);
    pair.wait(write(&mut writer, "held ")).unwrap();
    pair.simulation.run_for(SECOND);
    pair.simulation.network().heal_all();
    let (_, took) = pair.time(async {
        write(&mut writer, "up").await.unwrap();
        assert_eq!(read_exactly(&mut reader, 7).await.unwrap(), "held up");
    });
    assert!(took < 10 * MS, "{took:?}");
}

#[test]
fn a_reset_meets_both_sides_in_the_middle_of_a_write() {
    let pair = Pair::on(1, even(MS, 10_000));
    let [(mut from_b, mut to_b), (mut from_a, mut to_a)] = halves(pair.connect());
    let others = pair.connect();
    let writing = pair.on_a.spawn(async move {
        let written = write(&mut to_b, pattern(100_000)).await;
        (kind(written), kind(to_b.shutdown().await))
    });
    let read = pair.wait(read_exactly(&mut from_a, 25_000)).unwrap();
    assert_eq!(read, pattern(25_000));
    // In any order, and only the connections of these two.
    assert_eq!(pair.simulation.network().reset(pair.a.id(), HostId(9)), 0);
    assert_eq!(pair.simulation.network().reset(pair.b.id(), pair.a.id()), 2);
    let reset = Some(ErrorKind::ConnectionReset);
    pair.wait(async {
        assert_eq!(writing.await.unwrap(), (reset, reset));
        assert_eq!(kind(read_some(&mut from_a, 1).await), reset, "what has arrived is lost, too");
        assert_eq!(kind(read_some(&mut from_b, 1).await), reset);
        assert_eq!(kind(write(&mut to_a, "x").await), reset);
    });
    drop(others);
    assert_eq!(pair.simulation.counts()["connection reset"], 2);
    assert_eq!(pair.simulation.network().reset(pair.a.id(), pair.b.id()), 0, "they are gone");
}
