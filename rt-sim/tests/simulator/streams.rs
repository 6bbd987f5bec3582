//! The order of a stream, windows, bandwidth, ends, and operations that are dropped.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures::future::join;
use quorate_rt::{Executor, Listener, Network, ReadHalf, WriteHalf};
use quorate_rt_sim::NetworkConfig;

use crate::common::*;

#[test]
fn a_segment_takes_its_latency() {
    let pair =
        Pair::on(1, NetworkConfig { latency: 10 * MS..20 * MS, jitter: 0.0, ..Default::default() });
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    let mut seen = BTreeSet::new();
    for number in 0..50u8 {
        let (read, took) = pair.time(async {
            write(&mut writer, vec![number]).await.unwrap();
            read_some(&mut reader, 1).await.unwrap()
        });
        assert_eq!(read, [number][..]);
        assert!(took >= 10 * MS && took <= 20 * MS, "{took:?}");
        seen.insert(took.as_millis());
    }
    assert!(seen.len() > 5, "they differ: {seen:?}");
}

#[test]
fn the_two_ends_of_a_connection_on_one_host_are_near() {
    let pair = Pair::on(1, even(HOUR, 1 << 16));
    let (_, took) = pair.time(async {
        let mut listener = pair.on_a.listen(at(&pair.a)).await.unwrap();
        let (there, here) = join(pair.on_a.connect(at(&pair.a)), listener.accept()).await;
        let [(_, mut writer), (mut reader, _)] = halves((there.unwrap(), here.unwrap().0));
        write(&mut writer, "hello").await.unwrap();
        assert_eq!(read_exactly(&mut reader, 5).await.unwrap(), "hello");
    });
    assert!(took < MS, "{took:?}");
}

#[test]
fn what_is_late_or_lost_holds_up_what_follows_and_nothing_overtakes() {
    let bad = NetworkConfig {
        jitter: 0.2,
        loss: 0.2,
        segment: 1..100,
        window: 1 << 20..1 << 20,
        ..NetworkConfig::default()
    };
    let pair = Pair::on(2, bad);
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    let sent = pattern(10_000);
    let (read, took) = pair.time(async {
        for chunk in sent.chunks(333) {
            write(&mut writer, chunk.to_vec()).await.unwrap();
        }
        read_exactly(&mut reader, sent.len()).await.unwrap()
    });
    assert_eq!(read, sent);
    assert!(pair.simulation.counts()["segment lost"] > 10);
    assert!(took > 200 * MS, "a repetition takes that long: {took:?}");
}

#[test]
fn a_write_is_cut_anywhere() {
    let config = NetworkConfig { segment: 1..50, window: 1 << 16..1 << 16, ..Default::default() };
    let pair = Pair::on(3, config);
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    let sizes: BTreeSet<usize> = pair.wait(async {
        write(&mut writer, pattern(5_000)).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut sizes = BTreeSet::new();
        loop {
            match read_some(&mut reader, 1 << 16).await.unwrap().len() {
                0 => return sizes,
                size => sizes.insert(size),
            };
        }
    });
    assert!(sizes.len() > 20, "{sizes:?}");
    assert_eq!(sizes.last(), Some(&49));
}

#[test]
fn a_writer_waits_when_its_window_is_full_until_something_is_read() {
    let pair = Pair::on(4, even(MS, 1000));
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    let written = Rc::new(Cell::new(false));
    let done = Rc::clone(&written);
    let _writing = pair.on_a.spawn(async move {
        write(&mut writer, pattern(3000)).await.unwrap();
        done.set(true);
        std::future::pending::<()>().await; // It stays open.
    });
    pair.simulation.run_for(HOUR);
    let mut read = |len| pair.within(SECOND, read_exactly(&mut reader, len)).unwrap().unwrap();
    assert_eq!(read(1000), pattern(1000));
    assert!(!written.get(), "the second thousand is under way");
    assert_eq!(read(999), pattern(1999).slice(1000..));
    pair.simulation.run_for(HOUR);
    assert!(!written.get(), "all but one of the third");
    assert_eq!(read(1), pattern(2000).slice(1999..));
    pair.simulation.run_for(SECOND);
    assert!(written.get(), "and that");
}

#[test]
fn a_window_is_drawn_for_each_connection() {
    let pair = Pair::on(4, NetworkConfig { window: 1000..2000, ..NetworkConfig::default() });
    let windows: BTreeSet<usize> = (0..10)
        .map(|_| {
            let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
            let _writing =
                pair.on_a.spawn(async move { write(&mut writer, pattern(1 << 16)).await });
            pair.simulation.run_for(SECOND);
            // All that has arrived is there at once; reading it makes room for more.
            pair.wait(read_all_there(&mut reader)).len()
        })
        .collect();
    assert!(windows.len() > 5, "{windows:?}");
    assert!(windows.iter().all(|window| (1000..2000).contains(window)), "{windows:?}");
}

#[test]
fn the_two_directions_have_windows_of_their_own() {
    let pair = Pair::on(4, even(MS, 1000));
    let [(mut from_b, mut to_b), (_from_a, mut to_a)] = halves(pair.connect());
    assert!(pair.within(SECOND, write(&mut to_b, pattern(1001))).is_none());
    pair.wait(async {
        write(&mut to_a, pattern(1000)).await.unwrap();
        assert_eq!(read_exactly(&mut from_b, 1000).await.unwrap(), pattern(1000));
    });
}

#[test]
fn a_link_carries_no_more_than_its_bandwidth() {
    let pair = Pair::on(5, NetworkConfig { bandwidth: 100_000, ..even(MS, 1 << 20) });
    let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
    let (_, took) = pair.time(async {
        write(&mut writer, pattern(1_000_000)).await.unwrap();
        read_exactly(&mut reader, 1_000_000).await.unwrap();
    });
    assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
    let (_, took) = pair.time(async {
        write(&mut writer, "x").await.unwrap();
        read_exactly(&mut reader, 1).await.unwrap();
    });
    assert!(took < 2 * MS, "it is free again: {took:?}");
}

#[test]
fn connections_share_the_bandwidth_of_a_link_but_not_that_of_the_opposite_one() {
    let pair = Pair::on(6, NetworkConfig { bandwidth: 100_000, ..even(MS, 1 << 20) });
    let [(_, mut first), (mut first_reader, mut back)] = halves(pair.connect());
    let [(mut back_reader, mut second), (mut second_reader, _)] = halves(pair.connect());
    let _ = &mut back_reader;
    let (_, took) = pair.time(async {
        write(&mut first, pattern(200_000)).await.unwrap();
        write(&mut second, pattern(200_000)).await.unwrap();
        let reads = join(
            read_exactly(&mut first_reader, 200_000),
            read_exactly(&mut second_reader, 200_000),
        );
        reads.await
    });
    assert!(took >= 4 * SECOND && took < 5 * SECOND, "{took:?}");
    let (_, took) = pair.time(async {
        write(&mut first, pattern(200_000)).await.unwrap();
        write(&mut back, "x").await
    });
    assert!(took < MS, "{took:?}");
}

#[test]
fn a_stream_ends_after_what_was_written_and_goes_on_in_the_other_direction() {
    let pair = Pair::new(7);
    let [(mut from_b, mut to_b), (mut from_a, mut to_a)] = halves(pair.connect());
    pair.wait(async {
        let writes = async {
            write(&mut to_b, pattern(2 << 20)).await.unwrap();
            to_b.shutdown().await.unwrap();
        };
        let (_, (read, end)) = join(writes, read_to_end(&mut from_a)).await;
        assert_eq!((read.len(), kind(end)), (2 << 20, None));
        assert_eq!(read_some(&mut from_a, 1).await.unwrap(), Bytes::new(), "and again");
        assert_eq!(kind(write(&mut to_b, "more").await), Some(ErrorKind::BrokenPipe));
        write(&mut to_a, "an answer").await.unwrap();
        assert_eq!(read_exactly(&mut from_b, 9).await.unwrap(), "an answer");
    });
}

#[test]
fn a_closed_side_ends_the_stream_and_answers_what_comes_later_by_a_reset() {
    let pair = Pair::new(8);
    let [of_a, (mut from_a, mut to_a)] = halves(pair.connect());
    drop(of_a);
    pair.wait(async {
        assert_eq!(read_some(&mut from_a, 1).await.unwrap(), Bytes::new());
        write(&mut to_a, "is anybody there").await.unwrap();
        pair.on_b.sleep(SECOND).await;
        assert_eq!(kind(read_some(&mut from_a, 1).await), Some(ErrorKind::ConnectionReset));
        assert_eq!(kind(write(&mut to_a, "no").await), Some(ErrorKind::ConnectionReset));
        assert_eq!(kind(to_a.shutdown().await), Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_side_that_is_closed_with_something_unread_resets_the_other() {
    let pair = Pair::new(9);
    let [of_a, (mut from_a, mut to_a)] = halves(pair.connect());
    pair.wait(async {
        write(&mut to_a, "nobody reads this").await.unwrap();
        pair.on_b.sleep(SECOND).await;
        drop(of_a);
        assert_eq!(kind(read_some(&mut from_a, 1).await), Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn an_end_that_meets_a_closed_side_resets_nothing() {
    let pair = Pair::new(10);
    let [(from_b, mut to_b), (mut from_a, mut to_a)] = halves(pair.connect());
    pair.wait(async {
        write(&mut to_b, "the last words").await.unwrap();
        drop((from_b, to_b));
        pair.on_b.sleep(SECOND).await;
        to_a.shutdown().await.unwrap();
        pair.on_b.sleep(SECOND).await;
        let (read, end) = read_to_end(&mut from_a).await;
        assert_eq!((read.as_slice(), kind(end)), (&b"the last words"[..], None));
    });
}

#[test]
fn dropping_one_half_closes_nothing() {
    let pair = Pair::new(11);
    let [(from_b, mut to_b), (mut from_a, to_a)] = halves(pair.connect());
    drop((from_b, to_a));
    pair.wait(async {
        pair.on_a.sleep(SECOND).await;
        write(&mut to_b, "hello").await.unwrap();
        assert_eq!(read_exactly(&mut from_a, 5).await.unwrap(), "hello");
    });
}

#[test]
fn a_dropped_read_may_lose_what_comes_next_at_most_as_much_as_it_had_room_for() {
    for_some(0..40, |seed| {
        let pair = Pair::new(seed);
        let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
        assert!(pair.within(SECOND, reader.read(BytesMut::with_capacity(3))).is_none());
        let sent = Bytes::from_static(b"0123456789");
        let read = pair.wait(async {
            writer.write_all(vec![sent.clone()]).await.unwrap();
            writer.shutdown().await.unwrap();
            read_to_end(&mut reader).await.0
        });
        let lost = sent.len() - read.len();
        assert_eq!(sent.slice(lost..), read, "what is lost is lost at the begin");
        assert!(lost <= 3, "{lost}");
        lost > 0
    });
}

#[test]
fn a_dropped_read_that_had_ended_loses_nothing() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        let [(_, mut writer), (mut reader, _)] = halves(pair.connect());
        pair.wait(async {
            for _ in 0..10 {
                write(&mut writer, "0123456789").await.unwrap();
                assert_eq!(read_exactly(&mut reader, 10).await.unwrap(), "0123456789");
            }
        });
    }
}

#[test]
fn a_dropped_write_may_still_happen_in_part() {
    let mut parts = BTreeSet::new();
    let sent = pattern(300_000);
    for seed in 0..40 {
        let pair = Pair::on(seed, even(MS, 1000));
        let [(_from_b, mut writer), (mut reader, _)] = halves(pair.connect());
        assert!(pair.within(SECOND, write(&mut writer, sent.clone())).is_none());
        drop((_from_b, writer));
        let (read, _) = pair.wait(read_to_end(&mut reader));
        assert!(read.len() >= 1000 && read == sent[..read.len()], "always a prefix");
        parts.insert(read.len());
    }
    assert!(parts.contains(&1000), "nothing more of it");
    assert!(parts.len() > 10, "or any part: {parts:?}");
}
