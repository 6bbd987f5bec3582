//! Driving a simulation, and what it tells of itself.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use quorate_rt::channel::oneshot;
use quorate_rt::{Executor, Task};
use quorate_rt_sim::{Crash, HostId, Simulation, Step, Stuck, current};

use crate::common::*;

#[test]
fn what_was_woken_from_outside_runs_at_once() {
    let pair = Pair::new(1);
    let ran_at = Rc::new(Cell::new(None));
    let (wake, woken) = oneshot::channel::<()>();
    pair.on_a
        .spawn({
            let (ran_at, rt) = (Rc::clone(&ran_at), pair.on_a.clone());
            async move {
                let _ = woken.await;
                ran_at.set(Some(rt.now()));
            }
        })
        .detach();
    pair.simulation.run_for(SECOND);
    let woken_at = pair.wait(async { pair.on_a.now() });
    drop(wake);
    pair.simulation.run_for(SECOND);
    let late = ran_at.get().expect("it was woken") - woken_at;
    assert!(late < MS, "{late:?}");
}

#[test]
fn what_was_woken_from_outside_runs_though_nothing_else_happens() {
    let pair = Pair::new(1);
    let ran = Rc::new(Cell::new(false));
    let done = Rc::clone(&ran);
    while pair.simulation.step() != Step::Nothing {}
    pair.on_a.spawn(async move { done.set(true) }).detach();
    assert!(pair.simulation.run_until(SECOND, || ran.get()));
}

#[test]
fn running_for_a_while_takes_as_long_whatever_happens() {
    let simulation = Simulation::new(1);
    simulation.run_for(SECOND);
    assert_eq!(simulation.now(), SECOND);
    let host = simulation.host("a");
    host.start(async |rt| {
        loop {
            rt.sleep(300 * MS).await;
        }
    });
    simulation.run_for(SECOND);
    assert_eq!(simulation.now(), 2 * SECOND);
    assert!(!simulation.run_until(SECOND, || false));
    assert_eq!(simulation.now(), 3 * SECOND, "the limit is over");
    host.crash(Crash::Process);
    while simulation.step() != Step::Nothing {}
    let now = simulation.now();
    assert!(!simulation.run_until(HOUR, || false));
    assert_eq!(simulation.now(), now + HOUR, "though there is nothing to happen");
}

#[test]
fn running_until_something_is_so_ends_there() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    let done = Rc::new(Cell::new(false));
    let is_done = Rc::clone(&done);
    host.start(async move |rt| {
        rt.sleep(SECOND).await;
        done.set(true);
        rt.sleep(HOUR).await;
    });
    assert!(simulation.run_until(2 * HOUR, || is_done.get()));
    let late = simulation.now() - SECOND;
    assert!(late < MS, "{late:?}");
}

#[test]
fn who_waits_for_what_will_not_happen_is_stuck() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    let ended = simulation.block_on(&host, async |rt| {
        rt.sleep(SECOND).await;
        std::future::pending::<()>().await;
    });
    assert_eq!(ended, Err(Stuck));
    assert!(simulation.now() >= SECOND, "what there was to happen has happened");
    assert_eq!(simulation.block_on(&host, async |_| 7), Ok(7), "and it can go on");
}

#[test]
fn what_drives_a_simulation_is_no_process_and_does_not_die_with_one() {
    let pair = Pair::new(1);
    let seen = pair.wait(async {
        pair.a.crash(Crash::Process);
        pair.on_a.sleep(SECOND).await;
        pair.a.is_running()
    });
    assert!(!seen);
}

#[test]
fn the_time_and_the_host_of_what_runs_are_known_while_it_runs() {
    let pair = Pair::new(1);
    assert_eq!(current(), None);
    let (on_b, on_a) = pair.wait(async {
        let inside = pair.on_b.spawn(async { current() });
        pair.on_a.sleep(SECOND).await;
        (inside.await.unwrap(), current())
    });
    let (at, host) = on_b.expect("it runs in a simulation");
    assert_eq!(host, pair.b.id());
    assert!(at < MS);
    assert_eq!(on_a, Some((pair.simulation.now(), pair.a.id())));
    assert_eq!(current(), None);
}

#[test]
fn hosts_have_names_numbers_and_addresses() {
    let simulation = Simulation::new(1);
    let hosts: Vec<_> = (0..300).map(|number| simulation.host(format!("h{number}"))).collect();
    assert_eq!(hosts[299].name(), "h299");
    assert_eq!(hosts[299].id(), HostId(299));
    assert_eq!(hosts[0].ip().to_string(), "10.0.0.1");
    assert_eq!(hosts[299].ip().to_string(), "10.0.1.44");
}

#[test]
fn the_last_of_what_has_happened_is_kept_if_that_is_wanted() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    host.start(async |rt| {
        loop {
            rt.sleep(MS).await;
        }
    });
    simulation.run_for(SECOND);
    assert_eq!(simulation.recent(), []);
    assert!(simulation.events() >= 1000);
    simulation.keep_recent();
    simulation.run_for(10 * SECOND);
    host.crash(Crash::Power);
    let recent = simulation.recent();
    assert_eq!(recent.len(), 4096);
    assert!(recent.is_sorted_by_key(|happened| happened.at), "oldest first");
    assert!(recent[0].at > Duration::from_secs(5), "and only the last");
    let dies = recent.iter().find(|happened| happened.what == "dies").expect("it is among them");
    assert_eq!((dies.at, dies.host), (simulation.now(), Some(host.id())));
}

#[test]
fn a_simulation_that_is_dropped_frees_all_that_ran_in_it() {
    struct Held(#[expect(dead_code, reason = "it is only held")] Rc<()>);
    let alive = Rc::new(());
    let pair = Pair::new(1);
    let (on_a, on_b) = pair.connect();
    let held = Held(Rc::clone(&alive));
    let file = pair.wait(create(&pair.on_a, "/held"));
    pair.on_a
        .spawn(async move {
            let _all = (held, on_a, file);
            std::future::pending::<()>().await
        })
        .detach();
    let held = Held(Rc::clone(&alive));
    let mut reader = quorate_rt::Stream::split(on_b).0;
    pair.on_b
        .spawn(async move {
            let _held = held;
            read_to_end(&mut reader).await
        })
        .detach();
    pair.simulation.run_for(SECOND);
    assert_eq!(Rc::strong_count(&alive), 3);
    drop(pair.simulation);
    assert_eq!(Rc::strong_count(&alive), 1);
}
