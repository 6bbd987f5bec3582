//! Time that is virtual: waiting for an hour takes none, and no clock is set meanwhile.

use std::time::Duration;

use crate::Executor;

pub async fn wall_clock_goes_with_the_time<R: Executor>(rt: R) {
    let (begun, wall) = (rt.now(), rt.wall_clock());
    rt.sleep(Duration::from_secs(3_600)).await;
    let (passed, on_wall) = (rt.now() - begun, rt.wall_clock() - wall);
    let passed = u64::try_from(passed.as_millis()).unwrap();
    // Each of the two may have been cut to a whole millisecond.
    assert!(on_wall.abs_diff(passed) <= 1, "{on_wall} ms in {passed} ms");
}

pub async fn continuous_goes_with_the_time<R: Executor>(rt: R) {
    let (begun, continuous) = (rt.now(), rt.continuous_now());
    rt.sleep(Duration::from_secs(3_600)).await;
    assert_eq!(rt.continuous_now() - continuous, rt.now() - begun, "nothing was suspended");
}
