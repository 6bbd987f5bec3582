//! Processes that are killed, and machines that lose their power.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use quorate_rt::{Executor, Files, Listener, Network, Task, TaskError, yield_now};
use quorate_rt_sim::{Crash, Simulation};

use crate::common::*;

const BOTH: [Crash; 2] = [Crash::Process, Crash::Power];

#[test]
fn the_tasks_of_a_process_that_dies_are_dropped_and_run_no_more() {
    for crash in BOTH {
        let simulation = Simulation::new(1);
        let host = simulation.host("a");
        let (alive, rounds) = (Rc::new(()), Rc::new(Cell::new(0)));
        let (held, counted) = (Rc::clone(&alive), Rc::clone(&rounds));
        host.start(async move |rt| {
            for _ in 0..3 {
                let (rt, held, counted) = (rt.clone(), Rc::clone(&held), Rc::clone(&counted));
                rt.clone()
                    .spawn(async move {
                        loop {
                            rt.sleep(MS).await;
                            counted.set(counted.get() + 1);
                            let _ = &held;
                        }
                    })
                    .detach();
            }
            drop(held);
            std::future::pending().await
        });
        simulation.run_for(SECOND);
        assert!(host.is_running() && rounds.get() > 1000 && Rc::strong_count(&alive) > 1);
        host.crash(crash);
        assert!(!host.is_running());
        assert_eq!(Rc::strong_count(&alive), 1);
        let then = rounds.get();
        simulation.run_for(SECOND);
        assert_eq!(rounds.get(), then);
    }
}

#[test]
fn a_process_that_is_killed_ends_its_streams_after_what_it_has_written() {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, mut back)] = halves(pair.connect());
    pair.wait(write(&mut writer, "the last words")).unwrap();
    pair.a.crash(Crash::Process);
    pair.wait(async {
        let (read, end) = read_to_end(&mut reader).await;
        assert_eq!((read.as_slice(), kind(end)), (&b"the last words"[..], None));
        write(&mut back, "is anybody there").await.unwrap();
        pair.on_b.sleep(SECOND).await;
        assert_eq!(kind(read_some(&mut reader, 1).await), Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_process_that_is_killed_with_something_unread_resets_its_streams() {
    let pair = Pair::new(1);
    let [_of_a, (mut reader, mut back)] = halves(pair.connect());
    pair.wait(write(&mut back, "unread")).unwrap();
    pair.simulation.run_for(SECOND);
    pair.a.crash(Crash::Process);
    let read = pair.wait(read_some(&mut reader, 1));
    assert_eq!(kind(read), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_a_write_has_sent_a_part_of_it() {
    let pair = Pair::on(1, even(MS, 1000));
    let [_of_a, (mut reader, _)] = halves(pair.connect());
    let (_, mut writer) = _of_a;
    pair.on_a.spawn(async move { write(&mut writer, pattern(10_000)).await }).detach();
    let read = pair.wait(read_exactly(&mut reader, 2000)).unwrap();
    pair.a.crash(Crash::Process);
    let (rest, end) = pair.wait(read_to_end(&mut reader));
    assert_eq!([&read, &rest[..]].concat(), pattern(10_000)[..2000 + rest.len()]);
    assert!(rest.len() <= 1000 && kind(end).is_none(), "what was within the window");
}

#[test]
fn who_listened_in_a_process_that_is_killed_listens_no_more() {
    let pair = Pair::new(1);
    let mut listener = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    let (mut waits, _) =
        quorate_rt::Stream::split(pair.wait(pair.on_a.connect(at(&pair.b))).unwrap());
    pair.b.crash(Crash::Process);
    let end = pair.within(SECOND, read_some(&mut waits, 1));
    assert!(matches!(end, Some(Ok(end)) if end.is_empty()), "nobody will accept it");
    let refused = pair.wait(pair.on_a.connect(at(&pair.b)));
    assert_eq!(kind(refused), Some(ErrorKind::ConnectionRefused));
    // Who still has the listener has nothing of it, and does not take the port away from the next.
    assert!(pair.within(SECOND, listener.accept()).is_none());
    let _next = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    drop(listener);
    assert!(pair.wait(pair.on_a.connect(at(&pair.b))).is_ok());
}

#[test]
fn a_machine_without_power_says_nothing_to_its_peers() {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, mut back)] = halves(pair.connect());
    pair.wait(write(&mut writer, "under way when it happens")).unwrap();
    pair.a.crash(Crash::Power);
    assert!(pair.within(HOUR, read_some(&mut reader, 100)).is_none(), "not even that it is gone");
    let (read, took) = pair.time(async {
        write(&mut back, "is anybody there").await.unwrap();
        read_some(&mut reader, 1).await
    });
    assert_eq!(kind(read), Some(ErrorKind::TimedOut));
    assert!(took > 4 * SECOND && took < 40 * SECOND, "{took:?}");
}

#[test]
fn a_machine_that_has_its_power_again_knows_nothing_of_its_connections() {
    let pair = Pair::new(1);
    let [_of_a, (mut reader, mut back)] = halves(pair.connect());
    pair.a.crash(Crash::Power);
    pair.wait(write(&mut back, "is anybody there")).unwrap();
    pair.simulation.run_for(SECOND);
    pair.a.start(idle);
    assert!(
        pair.within(4 * SECOND, read_some(&mut reader, 1))
            .is_some_and(|read| { kind(read) == Some(ErrorKind::ConnectionReset) })
    );
}

#[test]
fn a_machine_that_has_its_power_again_resets_who_tells_it_of_an_end() {
    let pair = Pair::new(1);
    let [_of_a, (mut reader, mut back)] = halves(pair.connect());
    pair.a.crash(Crash::Power);
    pair.a.start(idle);
    let read = pair.within(SECOND, async {
        quorate_rt::WriteHalf::shutdown(&mut back).await.unwrap();
        read_some(&mut reader, 1).await
    });
    assert_eq!(kind(read.unwrap()), Some(ErrorKind::ConnectionReset));
}

#[test]
fn what_a_machine_would_have_repeated_is_lost_with_its_power() {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, _)] = halves(pair.connect());
    pair.cut(&pair.a, &pair.b);
    pair.wait(write(&mut writer, "only in the memory of the kernel")).unwrap();
    // First only the process dies, for which the kernel would go on.
    pair.a.crash(Crash::Process);
    pair.simulation.run_for(SECOND);
    pair.a.crash(Crash::Power);
    pair.a.start(idle);
    pair.heal(&pair.a, &pair.b);
    assert!(pair.within(HOUR, read_some(&mut reader, 100)).is_none());
}

#[test]
fn a_machine_loses_its_power_with_or_without_a_process() {
    let pair = Pair::new(1);
    pair.a.crash(Crash::Process);
    assert!(pair.a.reaches(&pair.b));
    pair.a.crash(Crash::Power);
    assert!(!pair.a.reaches(&pair.b));
    pair.a.start(idle);
    assert!(pair.a.reaches(&pair.b), "with a new process it has power");
}

#[test]
fn a_process_that_is_started_again_is_another_one() {
    for crash in BOTH {
        let pair = Pair::new(1);
        let before = pair.wait(pair.on_a.listen(at(&pair.a))).unwrap();
        let lock = pair.wait(pair.on_a.lock_file("/lock".as_ref())).unwrap();
        assert_eq!(pair.a.incarnation(), 1);
        pair.a.crash(crash);
        assert_eq!(pair.a.incarnation(), 2);
        let seen = Rc::new(RefCell::new(None));
        let told = Rc::clone(&seen);
        pair.a.start(async move |rt| {
            let listener = rt.listen(at(&rt.host())).await.map(drop);
            let lock = rt.lock_file("/lock".as_ref()).await.map(drop);
            let task = rt.spawn(async { 7 }).await;
            told.replace(Some((kind(listener), kind(lock), task)));
            std::future::pending().await
        });
        pair.simulation.run_for(SECOND);
        assert_eq!(seen.take(), Some((None, None, Ok(7))), "ports and locks are free");
        assert_eq!((pair.a.incarnation(), pair.a.is_running()), (2, true));
        drop((before, lock));
    }
}

#[test]
fn a_runtime_of_a_process_that_is_dead_starts_nothing() {
    let pair = Pair::new(1);
    let ran = Rc::new(Cell::new(false));
    pair.a.crash(Crash::Process);
    let of_the_dead = |ran: &Rc<Cell<bool>>| {
        let ran = Rc::clone(ran);
        pair.on_a.spawn(async move { ran.set(true) })
    };
    assert_eq!(pair.wait(of_the_dead(&ran)), Err(TaskError::Cancelled));
    pair.a.start(idle);
    assert_eq!(pair.wait(of_the_dead(&ran)), Err(TaskError::Cancelled), "nor in the next one");
    assert!(!ran.get());
    let blocking = pair.on_a.spawn_blocking(|| 7);
    assert_eq!(pair.wait(blocking), Err(TaskError::Cancelled));
}

#[test]
fn a_process_that_is_killed_by_itself_dies_after_the_poll_and_before_any_other() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed);
        let host = simulation.host("a");
        let (polls, killed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (count, kills) = (Rc::clone(&polls), Rc::clone(&killed));
        host.start(async move |rt| {
            for _ in 0..5 {
                let (count, kills) = (Rc::clone(&count), Rc::clone(&kills));
                rt.spawn(async move {
                    loop {
                        yield_now().await;
                        assert!(!kills.get());
                        count.set(count.get() + 1);
                    }
                })
                .detach();
            }
            for _ in 0..10 {
                yield_now().await;
            }
            rt.host().crash(Crash::Process);
            assert!(rt.host().is_running(), "this poll comes to its end");
            kills.set(true);
            std::future::pending().await
        });
        simulation.run_for(SECOND);
        assert!(killed.get() && !host.is_running());
        let then = polls.get();
        simulation.run_for(SECOND);
        assert_eq!(polls.get(), then);
    }
}

#[test]
fn a_process_dies_after_as_many_polls_as_was_planned() {
    for planned in 1..50 {
        let simulation = Simulation::new(planned);
        let host = simulation.host("a");
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        host.start(async move |rt| {
            for _ in 0..4 {
                let count = Rc::clone(&count);
                rt.spawn(async move {
                    loop {
                        count.set(count.get() + 1);
                        yield_now().await;
                    }
                })
                .detach();
            }
            std::future::pending().await
        });
        simulation.run_for(MS);
        host.crash_after(planned, Crash::Power);
        let then = polls.get();
        assert!(simulation.run_until(SECOND, || !host.is_running()));
        assert_eq!(polls.get() - then, planned);
    }
}

#[test]
fn a_planned_death_is_of_the_process_for_which_it_was_planned() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    host.crash_after(1, Crash::Power);
    let survives = || {
        host.start(async |_| {
            loop {
                yield_now().await;
            }
        });
        simulation.run_for(20 * MS);
        let survived = host.is_running();
        host.crash(Crash::Process);
        survived
    };
    assert!(survives(), "there was none");
    host.start(async |rt| {
        rt.host().crash_after(1000, Crash::Power);
        rt.sleep(SECOND).await;
    });
    simulation.run_for(2 * SECOND);
    assert!(!host.is_running() && survives(), "it has ended by itself");
    for crash in BOTH {
        host.start(idle);
        host.crash_after(1000, Crash::Power);
        host.crash(crash);
        assert!(survives(), "it has died by {crash:?}");
    }
}

#[test]
fn a_task_kills_the_process_of_another_host_at_once() {
    let pair = Pair::new(1);
    let b = pair.b.clone();
    let dead = pair.on_a.spawn(async move {
        b.crash(Crash::Process);
        !b.is_running()
    });
    assert_eq!(pair.wait(dead), Ok(true));
}

#[test]
fn timers_of_a_dead_process_wake_nobody() {
    let pair = Pair::new(1);
    for _ in 0..100 {
        let rt = pair.on_a.clone();
        pair.on_a.spawn(async move { rt.sleep(SECOND).await }).detach();
    }
    pair.simulation.run_for(MS);
    pair.a.crash(Crash::Process);
    let events = pair.simulation.events();
    pair.simulation.run_for(Duration::from_secs(2));
    assert_eq!(pair.simulation.events(), events);
}

#[test]
#[should_panic(expected = "one process runs on a at a time")]
fn two_processes_on_one_host_are_refused() {
    let simulation = Simulation::new(1);
    let host = simulation.host("a");
    host.start(idle);
    host.start(idle);
}
