//! Pauses, slowness, and processes that end by themselves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use quorate_rt::{Executor, Listener, Network, Task, yield_now};
use quorate_rt_sim::{Crash, Host, Simulation, Step};

use crate::common::*;

#[test]
fn a_process_that_is_paused_does_nothing_until_it_goes_on() {
    let pair = Pair::new(1);
    let rounds = Rc::new(Cell::new(0));
    let (count, rt) = (Rc::clone(&rounds), pair.on_a.clone());
    pair.on_a
        .spawn(async move {
            loop {
                rt.sleep(10 * MS).await;
                count.set(count.get() + 1);
            }
        })
        .detach();
    pair.simulation.run_for(SECOND);
    assert!(!pair.a.is_paused());
    pair.a.pause();
    assert!(pair.a.is_paused() && pair.a.is_running());
    let then = rounds.get();
    assert!(then > 90);
    pair.simulation.run_for(HOUR);
    assert_eq!(rounds.get(), then);
    pair.a.resume();
    pair.simulation.run_for(MS);
    assert!(!pair.a.is_paused());
    assert_eq!(rounds.get(), then + 1, "its timer was due long ago, and once");
    pair.simulation.run_for(SECOND);
    assert!(rounds.get() > then + 90);
}

#[test]
fn what_is_sent_to_a_process_that_is_paused_is_taken_by_the_kernel() {
    let pair = Pair::on(1, even(MS, 1000));
    let [(_from_b, mut writer), (mut reader, _back)] = halves(pair.connect());
    let read = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::clone(&read);
    pair.on_b
        .spawn(async move {
            loop {
                let some = read_some(&mut reader, 100).await.unwrap();
                all.borrow_mut().extend_from_slice(&some);
            }
        })
        .detach();
    pair.simulation.run_for(MS);
    pair.b.pause();
    pair.wait(write(&mut writer, pattern(1000))).unwrap();
    assert!(pair.within(HOUR, write(&mut writer, "x")).is_none(), "its window is full");
    assert!(read.borrow().is_empty());
    pair.b.resume();
    pair.simulation.run_for(10 * MS);
    assert_eq!(read.borrow()[..1000], pattern(1000));
}

#[test]
fn what_a_process_has_sent_before_it_is_paused_is_repeated_by_the_kernel() {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, _back)] = halves(pair.connect());
    pair.cut(&pair.a, &pair.b);
    pair.wait(write(&mut writer, "hello")).unwrap();
    pair.a.pause();
    pair.simulation.run_for(SECOND);
    pair.heal(&pair.a, &pair.b);
    assert_eq!(pair.within(4 * SECOND, read_exactly(&mut reader, 5)).unwrap().unwrap(), "hello");
}

#[test]
fn a_disk_writes_on_for_a_process_that_is_paused() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    pair.on_a
        .spawn(async move {
            let file = create(&rt, "/file").await;
            rt.host().pause();
            write_at(&file, 0, "hello").await.unwrap();
            std::future::pending::<()>().await;
        })
        .detach();
    pair.simulation.run_for(SECOND);
    assert!(pair.a.is_paused());
    assert_eq!(pair.a.disk().used(), 5);
}

#[test]
fn a_process_that_is_paused_can_be_killed_and_the_next_one_runs() {
    let pair = Pair::new(1);
    pair.a.pause();
    pair.a.crash(Crash::Process);
    assert!(!pair.a.is_running() && !pair.a.is_paused());
    pair.a.pause();
    assert!(!pair.a.is_paused(), "there is none");
    let ran = Rc::new(Cell::new(false));
    let told = Rc::clone(&ran);
    pair.a.start(async move |_| {
        told.set(true);
        std::future::pending().await
    });
    pair.simulation.run_for(SECOND);
    assert!(ran.get());
}

#[test]
fn pausing_again_and_again_loses_no_wake_up_and_makes_none() {
    let pair = Pair::new(1);
    let rounds = Rc::new(Cell::new(0));
    let (count, rt) = (Rc::clone(&rounds), pair.on_a.clone());
    pair.on_a
        .spawn(async move {
            for _ in 0..1000 {
                rt.sleep(MS).await;
                yield_now().await;
                count.set(count.get() + 1);
            }
        })
        .detach();
    for _ in 0..1000 {
        pair.a.pause();
        pair.a.pause();
        pair.simulation.run_for(Duration::from_micros(700));
        pair.a.resume();
        pair.a.resume();
        pair.simulation.run_for(Duration::from_micros(900));
    }
    pair.simulation.run_for(SECOND);
    assert_eq!(rounds.get(), 1000);
}

#[test]
fn a_slow_process_takes_as_many_times_longer() {
    let takes = |times: u64| {
        let pair = Pair::new(1);
        pair.a.set_slowness(times);
        let work = pair.on_a.spawn(async {
            for _ in 0..10_000 {
                yield_now().await;
            }
        });
        pair.time(work).1
    };
    let usual = takes(1);
    assert!(usual > 10 * MS && usual < SECOND, "{usual:?}");
    let slow = takes(100).as_secs_f64() / usual.as_secs_f64();
    assert!(slow > 80.0 && slow < 120.0, "{slow}");
    assert_eq!(takes(0), usual, "not faster");
}

#[test]
fn a_process_is_as_fast_as_before_when_it_is_slow_no_more() {
    let pair = Pair::new(1);
    pair.a.set_slowness(1 << 20);
    pair.on_a.spawn(async {}).detach();
    pair.simulation.run_for(10 * SECOND);
    pair.a.set_slowness(1);
    let work = pair.on_a.spawn(async {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    assert!(pair.time(work).1 < 100 * MS);
}

#[test]
fn time_passes_while_a_process_is_always_busy() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    host.start(async |_| {
        loop {
            yield_now().await;
        }
    });
    let fair = Rc::new(Cell::new(false));
    let told = Rc::clone(&fair);
    simulation.host("b").start(async move |rt| {
        rt.sleep(100 * MS).await;
        told.set(true);
    });
    simulation.run_for(200 * MS);
    assert!(fair.get());
}

#[test]
fn tasks_that_are_runnable_at_the_same_time_run_in_any_order() {
    let order = |seed| {
        let pair = Pair::new(seed);
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..5 {
            let order = Rc::clone(&order);
            pair.on_a.spawn(async move { order.borrow_mut().push(number) }).detach();
        }
        pair.simulation.run_for(SECOND);
        order.take()
    };
    let orders: std::collections::BTreeSet<Vec<i32>> = (0..100).map(order).collect();
    assert!(orders.len() > 30, "{}", orders.len());
    assert!(orders.iter().all(|order| order.len() == 5));
}

#[test]
fn a_process_ends_with_its_main_future_and_all_that_it_has_with_it() {
    let pair = Pair::new(1);
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    pair.b.crash(Crash::Process);
    pair.b.start(async move |rt| {
        let mut listener = rt.listen(at(&rt.host())).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        rt.spawn(async move {
            let _held = (stream, held);
            std::future::pending::<()>().await
        })
        .detach();
        rt.sleep(SECOND).await;
    });
    pair.simulation.run_for(MS);
    let connected = pair.wait(pair.on_a.connect(at(&pair.b))).unwrap();
    let (mut reader, _writer) = quorate_rt::Stream::split(connected);
    let (end, took) = pair.time(read_to_end(&mut reader));
    assert!(end.1.is_ok() && took > 900 * MS && took < 1100 * MS, "{took:?}");
    assert!(!pair.b.is_running());
    assert_eq!((pair.b.incarnation(), Rc::strong_count(&alive)), (3, 1));
    pair.b.start(idle);
    assert!(pair.b.is_running());
}

#[test]
fn a_process_whose_main_future_panics_ends_and_the_simulation_goes_on() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    host.start(async |_| panic!("expected by the test"));
    simulation.run_for(SECOND);
    assert!(!host.is_running());
    host.start(idle);
    assert!(host.is_running());
}

#[test]
fn a_step_tells_whose_process_had_its_turn() {
    let pair = Pair::new(1);
    while pair.simulation.step() != Step::Nothing {}
    pair.on_b.spawn(async {}).detach();
    assert_eq!(pair.simulation.step(), Step::Ran(pair.b.id()));
    assert_eq!(pair.simulation.step(), Step::Nothing);
    let rt = pair.on_a.clone();
    pair.on_a.spawn(async move { rt.sleep(SECOND).await }).detach();
    assert_eq!(pair.simulation.step(), Step::Ran(pair.a.id()));
    assert_eq!(pair.simulation.step(), Step::Other, "a timer is due");
    assert_eq!(pair.simulation.step(), Step::Ran(pair.a.id()));
    assert_eq!(pair.simulation.step(), Step::Nothing);
}

#[test]
fn a_process_has_tasks_and_connections_that_can_be_counted() {
    let pair = Pair::new(1);
    assert_eq!(pair.a.tasks(), 1, "its main future");
    let sleeps = |duration| {
        let rt = pair.on_a.clone();
        pair.on_a.spawn(async move { rt.sleep(duration).await })
    };
    let (_short, _long) = (sleeps(SECOND), sleeps(HOUR));
    assert_eq!(pair.a.tasks(), 3);
    pair.simulation.run_for(2 * SECOND);
    assert_eq!(pair.a.tasks(), 2);

    let connections = |host: &Host| pair.simulation.network().connections(host.id());
    let (of_a, of_b) = pair.connect();
    let others = pair.connect();
    assert_eq!((connections(&pair.a), connections(&pair.b)), (2, 2));
    drop(of_a);
    assert_eq!((connections(&pair.a), connections(&pair.b)), (1, 2));
    pair.b.crash(Crash::Process);
    assert_eq!((connections(&pair.a), connections(&pair.b)), (1, 0));
    pair.a.crash(Crash::Process);
    assert_eq!((connections(&pair.a), pair.a.tasks()), (0, 0));
    drop((of_b, others));
}

#[test]
fn a_process_that_is_to_die_is_doomed_until_it_is_dead() {
    let pair = Pair::new(1);
    assert!(!pair.a.is_doomed());
    pair.a.crash_after(10, Crash::Process);
    assert!(pair.a.is_doomed());
    pair.a.crash(Crash::Process);
    assert!(!pair.a.is_doomed());
}
