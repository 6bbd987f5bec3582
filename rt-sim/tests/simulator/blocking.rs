//! Work on real threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use quorate_rt::{Executor, Task, TaskError};
use quorate_rt_sim::Crash;

use crate::common::*;

#[test]
fn it_takes_the_same_time_however_long_it_takes() {
    let pair = Pair::new(1);
    let took = |work: fn() -> u64| {
        let (result, took) = pair.time(pair.on_a.spawn_blocking(work));
        (result.unwrap(), took)
    };
    let (quick, long) =
        (took(|| 1), took(|| (0..10_000_000).fold(7, |sum: u64, n| sum ^ (n * 31))));
    assert_eq!(quick.0, 1);
    let same = |took: Duration| took > Duration::from_micros(10) && took < MS;
    assert!(same(quick.1) && same(long.1), "{:?} {:?}", quick.1, long.1);
}

#[test]
fn it_runs_beside_what_its_process_does_meanwhile() {
    let pair = Pair::new(1);
    let (go, gone) = mpsc::channel();
    let working = pair.on_a.spawn_blocking(move || gone.recv().unwrap());
    let other = pair.on_a.spawn(async move { go.send(7).unwrap() });
    pair.wait(async {
        other.await.unwrap();
        assert_eq!(working.await.unwrap(), 7);
    });
}

#[test]
fn a_panic_in_it_reaches_who_waits() {
    let pair = Pair::new(1);
    let working = pair.on_a.spawn_blocking(|| panic!("expected by the test"));
    let panicked: Result<(), _> = pair.wait(working);
    assert_eq!(panicked, Err(TaskError::Panicked("expected by the test".to_owned())));
}

#[test]
fn its_result_reaches_no_process_that_has_died_meanwhile() {
    let pair = Pair::new(1);
    let seen = Rc::new(Cell::new(false));
    let (told, working) = (Rc::clone(&seen), pair.on_a.spawn_blocking(|| 7));
    pair.on_a
        .spawn(async move {
            let _ = working.await;
            told.set(true);
        })
        .detach();
    pair.simulation.step();
    pair.a.crash(Crash::Process);
    pair.a.start(idle);
    pair.simulation.run_for(SECOND);
    assert!(!seen.get());
}

#[test]
fn a_simulation_does_not_wait_for_work_whose_process_has_died() {
    let pair = Pair::new(1);
    let (go, gone) = mpsc::channel::<()>();
    let (ended, end) = mpsc::channel();
    pair.on_a
        .spawn_blocking(move || {
            let _only_when_the_test_ends = gone.recv();
            ended.send(()).unwrap();
        })
        .detach();
    pair.simulation.step();
    pair.a.crash(Crash::Process);
    pair.simulation.run_for(SECOND); // Or it would hang here.
    drop(go);
    end.recv().expect("it can't be cancelled");
}
