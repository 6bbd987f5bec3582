//! Time: timers run from their creation, end in order and never early; and the wall clock.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{join, join_all, select};

use super::{guard, yield_now};
use crate::{Either, Elapsed, Executor, Instant, race};

pub async fn never_goes_back<R: Executor>(rt: R) {
    let mut last = rt.now();
    for _ in 0..1_000 {
        let coarse = rt.coarse_now();
        let now = rt.now();
        assert!(now >= last && now >= coarse);
        last = now;
        yield_now().await;
    }
    rt.sleep(Duration::from_millis(100)).await;
    assert!(rt.coarse_now() > last, "it goes on");
}

pub async fn continuous_never_goes_back<R: Executor>(rt: R) {
    let mut last = rt.continuous_now();
    for _ in 0..1_000 {
        let now = rt.continuous_now();
        assert!(now >= last);
        last = now;
        yield_now().await;
    }
}

pub async fn continuous_goes_on_at_least_as_now_does<R: Executor>(rt: R) {
    // Read around the other one, it has at least as much time, also where neither is suspended.
    let (continuous, begun) = (rt.continuous_now(), rt.now());
    for _ in 0..20 {
        rt.sleep(Duration::from_millis(5)).await;
        let passed = rt.now() - begun;
        assert!(rt.continuous_now() - continuous >= passed);
    }
}

pub async fn never_ends_early<R: Executor>(rt: R) {
    // Around the granularity that timers commonly have, a millisecond.
    for micros in [0, 1, 10, 999, 1_000, 1_001, 1_500, 1_999, 2_000, 10_300, 25_999] {
        let duration = Duration::from_micros(micros);
        let begun = rt.now();
        rt.sleep(duration).await;
        assert!(rt.now() >= begun + duration, "{duration:?}");
        let deadline = rt.now() + duration;
        rt.sleep_until(deadline).await;
        assert!(rt.now() >= deadline, "{duration:?}");
    }
}

pub async fn many_never_end_early<R: Executor>(rt: R) {
    let timers: Vec<_> = (0..10_000_u64)
        .map(|number| {
            let rt = rt.clone();
            // Neither in the order of their creation nor all different.
            let deadline = rt.now() + Duration::from_micros(number * 7_919 % 100_000);
            rt.clone().spawn(async move {
                rt.sleep_until(deadline).await;
                rt.now() >= deadline
            })
        })
        .collect();
    for timer in timers {
        assert_eq!(timer.await, Ok(true));
    }
}

pub async fn past_deadlines_end<R: Executor>(rt: R) {
    rt.sleep(Duration::from_millis(2)).await;
    let now = rt.now();
    rt.sleep_until(Instant::from_nanos(0)).await;
    rt.sleep_until(Instant::from_nanos(now.as_nanos() - 1)).await;
    rt.sleep_until(now).await;
    rt.sleep(Duration::ZERO).await;
}

pub async fn ends_in_order<R: Executor>(rt: R) {
    let begun = rt.now();
    let ended = Rc::new(RefCell::new(Vec::new()));
    let timers = [90, 15, 60, 30, 1, 120, 45].map(|millis| {
        let ended = Rc::clone(&ended);
        let timer = rt.sleep_until(begun + Duration::from_millis(millis));
        rt.spawn(async move {
            timer.await;
            ended.borrow_mut().push(millis);
        })
    });
    for timer in timers {
        timer.await.unwrap();
    }
    assert_eq!(*ended.borrow(), [1, 15, 30, 45, 60, 90, 120]);
}

pub async fn armed_when_created<R: Executor>(rt: R) {
    let ended = RefCell::new(Vec::new());
    let old = rt.sleep(Duration::from_millis(60));
    rt.sleep(Duration::from_millis(80)).await;
    // Armed by its first poll, the old one would now take longer than the new one.
    let new = rt.sleep(Duration::from_millis(20));
    join(
        async {
            old.await;
            ended.borrow_mut().push("old");
        },
        async {
            new.await;
            ended.borrow_mut().push("new");
        },
    )
    .await;
    assert_eq!(*ended.borrow(), ["old", "new"]);
}

pub async fn far_deadlines<R: Executor>(rt: R) {
    let far = [
        rt.sleep_until(Instant::from_nanos(u64::MAX)),
        rt.sleep(Duration::MAX),
        rt.sleep(Duration::from_secs(60 * 60 * 24 * 365 * 30)),
    ];
    let waiting = rt.spawn(join_all(far));
    rt.sleep(Duration::from_millis(5)).await; // A near one ends while they wait.
    drop(waiting);
    yield_now().await;
}

pub async fn dropped_timers<R: Executor>(rt: R) {
    for _ in 0..5_000 {
        drop(rt.sleep(Duration::from_secs(3_600))); // Never polled.
    }
    for number in 0..1_000_u64 {
        // Polled, and then dropped because the other one was faster.
        let long = Box::pin(rt.sleep(Duration::from_secs(3_600) + Duration::from_millis(number)));
        let short = Box::pin(rt.sleep(Duration::ZERO));
        select(short, long).await;
    }
    rt.sleep(Duration::from_millis(1)).await; // The clockwork is still whole.
}

pub async fn wall_clock_is_plausible<R: Executor>(rt: R) {
    // The years 2020 and 2200. Seconds would be below, and microseconds above.
    const PLAUSIBLE: Range<u64> = 1_577_836_800_000..7_258_118_400_000;
    let begun = rt.wall_clock();
    assert!(PLAUSIBLE.contains(&begun), "{begun} ms since the epoch");
    // It goes on. How far is not asked: it may be set at any time.
    while rt.wall_clock() == begun {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

pub async fn limits_of_time<R: Executor>(rt: R) {
    let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(2));
    let begun = rt.now();
    assert_eq!(rt.timeout(moment, std::future::pending::<()>()).await, Err(Elapsed));
    assert!(rt.now() >= begun + moment, "it does not end early");
    assert_eq!(rt.timeout(hour, async { 5 }).await, Ok(5));
    // A task whose time has passed is cancelled.
    let (alive, dropped) = guard();
    let task = rt.spawn(async move {
        let _alive = alive;
        std::future::pending::<()>().await
    });
    assert_eq!(rt.timeout(moment, task).await, Err(Elapsed));
    dropped.await.unwrap();
    // The time runs from the call.
    let late = rt.timeout(moment, std::future::pending::<()>());
    rt.sleep(moment).await;
    assert_eq!(race(late, rt.sleep(hour)).await, Either::Left(Err(Elapsed)));
}
