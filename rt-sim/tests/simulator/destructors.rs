//! What destructors do while their process dies: in a process that is really killed, none of them
//! runs. So nothing of it may be seen.

use std::cell::Cell;
use std::rc::Rc;

use futures::FutureExt;
use quorate_rt::{Executor, File, Files, Network, Task, TaskError, WriteHalf};
use quorate_rt_sim::{Crash, Sim, SimFile};

use crate::common::*;

/// Does something when it is dropped.
struct WhenDropped<F: FnMut()>(F);

impl<F: FnMut()> Drop for WhenDropped<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Has a task of `a` hold something that acts when it is dropped.
fn holds(pair: &Pair, act: impl FnMut() + 'static) {
    let held = WhenDropped(act);
    pair.on_a
        .spawn(async move {
            let _held = held;
            std::future::pending::<()>().await
        })
        .detach();
    pair.simulation.run_for(MS);
}

/// Counts how often it is called.
fn counter() -> (Rc<Cell<u32>>, impl Fn() + Clone) {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    (count, move || counted.set(counted.get() + 1))
}

#[test]
fn they_start_no_tasks() {
    for crash in [Crash::Process, Crash::Power] {
        let pair = Pair::new(1);
        let (ran, run) = counter();
        let (seen, see) = counter();
        let rt = pair.on_a.clone();
        holds(&pair, move || {
            let (run, see) = (run.clone(), see.clone());
            // It holds something itself that does the same.
            let (inner, again) = (rt.clone(), run.clone());
            let held = WhenDropped(move || {
                let again = again.clone();
                inner.spawn(async move { again() }).detach();
            });
            let mut task = rt.spawn(async move {
                let _held = held;
                run();
            });
            if (&mut task).now_or_never() == Some(Err(TaskError::Cancelled)) {
                see();
            }
        });
        pair.a.crash(crash);
        pair.a.start(idle);
        pair.simulation.run_for(SECOND);
        assert_eq!((ran.get(), seen.get()), (0, 1));
    }
}

#[test]
fn they_send_nothing() {
    for crash in [Crash::Process, Crash::Power] {
        let pair = Pair::new(1);
        let [(from_b, mut writer), (mut reader, _back)] = halves(pair.connect());
        let (written, count) = counter();
        holds(&pair, move || {
            let _ = &from_b;
            if writer.write_all(vec!["farewell".into()]).now_or_never().is_some() {
                count();
            }
        });
        pair.a.crash(crash);
        assert_eq!(written.get(), 1, "it does not hang there");
        match (crash, pair.within(SECOND, read_some(&mut reader, 100))) {
            (Crash::Process, Some(Ok(end))) => assert!(end.is_empty(), "{end:?}"),
            (Crash::Power, None) => {}
            (_, read) => panic!("{read:?}"),
        }
    }
}

#[test]
fn they_send_nothing_of_a_write_under_way_either() {
    for seed in 0..20 {
        let pair = Pair::on(seed, even(MS, 1000));
        let [of_a, (mut reader, _back)] = halves(pair.connect());
        let (_from_b, mut writer) = of_a;
        pair.on_a.spawn(async move { write(&mut writer, pattern(10_000)).await }).detach();
        pair.simulation.run_for(SECOND);
        pair.a.crash(Crash::Process);
        assert_eq!(pair.wait(read_to_end(&mut reader)).0.len(), 1000);
    }
}

/// Has a destructor begin something with a file of `a`.
fn begins_with_a_file<T>(pair: &Pair, what: impl AsyncFn(&SimFile, &Sim) -> T + 'static) {
    let rt = pair.on_a.clone();
    let file = pair.wait(create_durable(&rt, "/file", "as it was"));
    holds(pair, move || {
        let _ = what(&file, &rt).now_or_never();
    });
}

#[test]
fn they_write_nothing() {
    for seed in 0..20 {
        for crash in [Crash::Process, Crash::Power] {
            let pair = Pair::new(seed);
            begins_with_a_file(&pair, async |file, _| write_at(file, 0, "afterwards").await);
            pair.a.crash(crash);
            pair.a.start(idle);
            pair.simulation.run_for(SECOND);
            let read = pair.wait(content_of(&pair.on_a, "/file"));
            assert_eq!(read.as_deref(), Some(&b"as it was"[..]));
        }
    }
}

#[test]
fn they_remove_nothing() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        begins_with_a_file(&pair, async |_, rt| rt.remove_file("/file".as_ref()).await);
        pair.a.crash(Crash::Process);
        pair.a.start(idle);
        pair.simulation.run_for(SECOND);
        assert_eq!(pair.a.disk().files().len(), 1);
    }
}

#[test]
fn they_cut_nothing() {
    for seed in 0..20 {
        let pair = Pair::new(seed);
        begins_with_a_file(&pair, async |file, _| file.set_len(0).await);
        pair.a.crash(Crash::Process);
        pair.a.start(idle);
        pair.simulation.run_for(SECOND);
        assert_eq!(pair.a.disk().used(), 9);
    }
}

#[test]
fn they_lock_nothing() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    holds(&pair, move || drop(rt.lock_file("/lock".as_ref()).now_or_never()));
    pair.a.crash(Crash::Process);
    pair.a.start(idle);
    pair.simulation.run_for(SECOND);
    assert!(pair.a.disk().files().is_empty());
    assert!(pair.wait(pair.on_a.lock_file("/lock".as_ref())).is_ok());
}

#[test]
fn they_connect_nowhere_and_listen_no_more() {
    let pair = Pair::new(1);
    let mut listener = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    let (rt, to) = (pair.on_a.clone(), at(&pair.b));
    holds(&pair, move || drop(rt.connect(to).now_or_never()));
    let (rt, own) = (pair.on_a.clone(), at(&pair.a));
    holds(&pair, move || std::mem::forget(rt.listen(own).now_or_never()));
    pair.a.crash(Crash::Process);
    pair.a.start(idle);
    assert!(pair.within(HOUR, quorate_rt::Listener::accept(&mut listener)).is_none());
    assert!(pair.wait(pair.on_a.listen(at(&pair.a))).is_ok(), "the port is free");
}

#[test]
fn they_arm_no_timers() {
    let pair = Pair::new(1);
    let rt = pair.on_a.clone();
    holds(&pair, move || {
        let _is_not_over = rt.sleep(SECOND).now_or_never();
    });
    pair.a.crash(Crash::Process);
    let events = pair.simulation.events();
    pair.simulation.run_for(HOUR);
    assert_eq!(pair.simulation.events(), events);
}

#[test]
fn they_may_crash_their_host_and_panic() {
    let pair = Pair::new(1);
    let a = pair.a.clone();
    holds(&pair, move || a.crash(Crash::Process));
    holds(&pair, || panic!("expected by the test"));
    let (dropped, count) = counter();
    holds(&pair, count);
    pair.a.crash(Crash::Power);
    assert!(!pair.a.is_running());
    assert_eq!((pair.a.incarnation(), dropped.get()), (2, 1));
}

#[test]
fn they_know_where_they_run() {
    let pair = Pair::new(1);
    pair.simulation.run_for(SECOND);
    let seen = Rc::new(Cell::new(None));
    let tells = Rc::clone(&seen);
    holds(&pair, move || tells.set(quorate_rt_sim::current()));
    pair.simulation.run_for(SECOND);
    pair.a.crash(Crash::Process);
    assert_eq!(seen.get(), Some((pair.simulation.now(), pair.a.id())));
    assert_eq!(quorate_rt_sim::current(), None);
}
