//! Clocks that are wrong, and the timers on them; and wall clocks that are set.

use std::time::Duration;

use futures::future::join;
use quorate_rt::Executor;
use quorate_rt_sim::{Sim, Simulation};

use crate::common::*;

/// How long a timer takes, on the clock of the world and on that of its host.
fn sleeps(pair: &Pair, rt: &Sim, duration: Duration) -> (Duration, Duration) {
    pair.wait(async {
        let (world, host) = (pair.simulation.now(), rt.now());
        rt.sleep(duration).await;
        (pair.simulation.now() - world, rt.now() - host)
    })
}

#[test]
fn a_clock_begins_at_its_offset_and_goes_with_the_time() {
    let simulation = Simulation::new(1);
    let host = simulation.host_whose_clock_shows("a", HOUR);
    let rt = simulation.block_on(&host, async |rt| rt).unwrap();
    assert_eq!(Duration::from_nanos(rt.now().as_nanos()), HOUR);
    simulation.run_for(SECOND);
    assert_eq!(Duration::from_nanos(rt.now().as_nanos()), HOUR + SECOND);
    let right = simulation.host("b");
    let rt = simulation.block_on(&right, async |rt| rt).unwrap();
    assert_eq!(Duration::from_nanos(rt.now().as_nanos()), simulation.now());
}

#[test]
fn a_clock_that_drifts_makes_timers_early_or_late_to_all_but_its_host() {
    for (drift, world) in [(100_000, 9_090), (-500_000, 20_000), (-900_000, 100_000)] {
        let pair = Pair::new(1);
        pair.a.set_drift(drift);
        let (took, told) = sleeps(&pair, &pair.on_a, 10 * SECOND);
        assert_eq!(took.as_millis(), world, "at {drift}");
        assert!(told >= 10 * SECOND && told < 10 * SECOND + MS, "{told:?}");
        assert_eq!(sleeps(&pair, &pair.on_b, SECOND).0, SECOND, "the others are right");
        pair.a.set_drift(0);
        assert_eq!(sleeps(&pair, &pair.on_a, SECOND), (SECOND, SECOND), "and it is again");
    }
}

#[test]
fn a_clock_never_stands_still() {
    let pair = Pair::new(1);
    for drift in [-1_000_000, i64::MIN] {
        pair.a.set_drift(drift);
        let before = pair.on_a.now();
        pair.simulation.run_for(10 * SECOND);
        assert_eq!(pair.on_a.now() - before, Duration::from_micros(10));
    }
    pair.a.set_drift(i64::MAX);
    assert!(sleeps(&pair, &pair.on_a, HOUR).0 <= Duration::from_micros(1));
}

#[test]
fn a_timer_under_way_follows_the_clock() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    let sleeping = pair.on_a.spawn(async move { rt.sleep(100 * SECOND).await });
    pair.simulation.run_for(10 * SECOND);
    pair.a.set_drift(1_000_000); // Twice as fast.
    pair.simulation.run_for(10 * SECOND);
    pair.a.set_drift(-500_000); // Half as fast.
    let (_, took) = pair.time(sleeping);
    assert!(took >= 140 * SECOND && took < 140 * SECOND + MS, "{took:?}");
}

#[test]
fn a_clock_that_jumps_makes_due_what_it_jumps_over() {
    let pair = Pair::new(1);
    let timer = |rt: &Sim, after: Duration| {
        let inner = rt.clone();
        rt.spawn(async move {
            inner.sleep(after).await;
            quorate_rt_sim::current().map(|(at, _)| at)
        })
    };
    let on_a = [SECOND, 59 * SECOND, 61 * SECOND].map(|after| timer(&pair.on_a, after));
    let on_b = timer(&pair.on_b, SECOND);
    let before = pair.on_a.now();
    pair.simulation.run_for(MS);
    let jumps_at = pair.simulation.now();
    pair.a.jump(60 * SECOND);
    assert!(pair.on_a.now() - before >= 60 * SECOND);
    let ended = pair.wait(join(futures::future::join_all(on_a), on_b));
    let after = |at: &Result<Option<Duration>, _>| at.as_ref().unwrap().unwrap() - jumps_at;
    assert!(after(&ended.0[0]) < MS && after(&ended.0[1]) < MS, "at once");
    let last = after(&ended.0[2]);
    assert!(last > 900 * MS && last < 1100 * MS, "{last:?}");
    assert!(after(&ended.1) > 900 * MS, "the other clock has not jumped");
}

#[test]
fn timers_end_in_the_order_of_their_deadlines_and_those_with_the_same_one_in_that_of_their_creation()
 {
    let pair = Pair::new(1);
    let ended: Log<u32> = Log::default();
    pair.wait(async {
        let deadline = pair.on_a.now() + SECOND;
        let timers = [(3, 5 * MS), (1, MS), (2, MS), (0, Duration::ZERO)].map(|(number, more)| {
            let (sleep, ended) = (pair.on_a.sleep_until(deadline + more), Log::clone(&ended));
            async move {
                sleep.await;
                ended.borrow_mut().push(number);
            }
        });
        futures::future::join_all(timers).await;
    });
    assert_eq!(*ended.borrow(), [0, 1, 2, 3]);
}

#[test]
fn a_timer_of_a_clock_that_jumps_while_its_process_is_paused_is_due_when_that_goes_on() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    let sleeping = pair.on_a.spawn(async move { rt.sleep(HOUR).await });
    pair.simulation.run_for(MS);
    pair.a.pause();
    pair.a.jump(2 * HOUR);
    pair.simulation.run_for(SECOND);
    pair.a.resume();
    assert!(pair.time(sleeping).1 < MS);
}

#[test]
fn a_clock_keeps_its_time_over_a_crash() {
    let pair = Pair::new(1);
    pair.a.set_drift(1_000_000);
    pair.a.jump(HOUR);
    let before = pair.on_a.now();
    pair.a.crash(quorate_rt_sim::Crash::Power);
    pair.a.start(idle);
    pair.simulation.run_for(SECOND);
    let rt = pair.simulation.block_on(&pair.a, async |rt| rt).unwrap();
    assert_eq!(rt.now() - before, 2 * SECOND);
}

#[test]
fn a_wall_clock_begins_in_2026_and_goes_with_the_time_whatever_the_other_clock_does() {
    let pair = Pair::new(1);
    let begin = pair.on_a.wall_clock();
    assert_eq!(begin, 1_767_225_600_000);
    pair.a.set_drift(500_000);
    pair.a.jump(HOUR);
    pair.simulation.run_for(10 * SECOND);
    assert_eq!(pair.on_a.wall_clock() - begin, 10_000);
    assert_eq!(pair.on_b.wall_clock(), pair.on_a.wall_clock());
}

#[test]
fn a_wall_clock_is_set_forward_and_back_on_its_host_alone() {
    let pair = Pair::new(1);
    let hour = 3_600_000;
    for ahead in [2 * hour, -hour, -3, 0] {
        let monotonic = pair.on_a.now();
        pair.a.set_wall_clock_offset(ahead);
        assert_eq!(pair.a.wall_clock_offset(), ahead);
        let right = pair.on_b.wall_clock();
        assert_eq!(pair.on_a.wall_clock().checked_signed_diff(right), Some(ahead));
        assert_eq!(pair.on_a.now(), monotonic, "that clock is another one");
        pair.simulation.run_for(SECOND);
        assert_eq!(pair.on_b.wall_clock() - right, 1_000);
        let still = pair.on_a.wall_clock().checked_signed_diff(pair.on_b.wall_clock());
        assert_eq!(still, Some(ahead), "it goes on from there");
    }
}

#[test]
fn a_wall_clock_keeps_its_time_over_crashes() {
    for crash in [quorate_rt_sim::Crash::Process, quorate_rt_sim::Crash::Power] {
        let pair = Pair::new(1);
        pair.a.set_wall_clock_offset(-5_000);
        let before = pair.on_a.wall_clock();
        pair.a.crash(crash);
        pair.simulation.run_for(SECOND);
        pair.a.start(idle);
        let rt = pair.simulation.block_on(&pair.a, async |rt| rt).unwrap();
        assert_eq!(rt.wall_clock() - before, 1_000);
        assert_eq!(pair.on_b.wall_clock() - rt.wall_clock(), 5_000);
    }
}

#[test]
fn a_timer_does_not_follow_a_wall_clock() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    let sleeping = pair.on_a.spawn(async move { rt.sleep(SECOND).await });
    pair.simulation.run_for(MS);
    pair.a.set_wall_clock_offset(3_600_000);
    let took = pair.time(sleeping).1;
    assert!(took > 990 * MS && took < 1010 * MS, "{took:?}");
}

#[test]
fn time_in_suspend_is_counted_by_the_continuous_clock_alone() {
    let pair = Pair::new(1);
    let clocks = |rt: &Sim| (rt.continuous_now(), rt.now(), rt.wall_clock());
    let begin = [clocks(&pair.on_a), clocks(&pair.on_b)];
    let rt = pair.on_a.clone();
    let sleeping = pair.on_a.spawn(async move { rt.sleep(2 * SECOND).await });
    pair.simulation.run_for(MS);
    pair.a.suspend(HOUR);
    let took = pair.time(sleeping).1;
    assert!(took > 1990 * MS && took < 2010 * MS, "{took:?}");
    for (rt, begin, suspended) in
        [(&pair.on_a, begin[0], HOUR), (&pair.on_b, begin[1], Duration::ZERO)]
    {
        let end = clocks(rt);
        assert_eq!(end.0 - begin.0, end.1 - begin.1 + suspended);
        assert!(end.2 - begin.2 < 3_000);
    }
}
