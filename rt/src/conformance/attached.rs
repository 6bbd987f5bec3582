//! A runtime and the program that it is attached to, side by side.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::stream::FuturesUnordered;

use super::files::Scratch;
use super::{Program, yield_now};
use crate::{Executor, File, Files, Launch, OpenMode, Task};

/// Far more turns than any test needs.
const MANY_TURNS: u32 = 20_000_000;

const TICKS: u32 = 20;

/// Starts a task of the program that ticks each millisecond, and counts.
fn ticks<P: Program>() -> Rc<Cell<u32>> {
    let ticks = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ticks);
    P::spawn(async move {
        while counted.get() < TICKS {
            P::sleep(Duration::from_millis(1)).await;
            counted.set(counted.get() + 1);
        }
    });
    ticks
}

pub fn the_program_ticks_beside_busy_tasks<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let ticks = ticks::<P>();
        let seen = Rc::clone(&ticks);
        let busy = attached.rt().spawn(async move {
            for _ in 0..MANY_TURNS {
                if seen.get() == TICKS {
                    return;
                }
                yield_now().await;
            }
        });
        busy.await.unwrap();
        attached.close().await;
        ticks.get()
    };
    assert_eq!(P::run(&launch, program).unwrap(), TICKS);
}

pub fn the_program_ticks_while_its_tasks_and_ours_wake_each_other<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let ticks = ticks::<P>();
        let (to_ours, mut questions) = mpsc::unbounded::<()>();
        let (to_program, mut answers) = mpsc::unbounded::<()>();
        let ours = attached.rt().spawn(async move {
            while questions.next().await.is_some() && to_program.unbounded_send(()).is_ok() {}
        });
        for _ in 0..MANY_TURNS {
            if ticks.get() == TICKS {
                break;
            }
            to_ours.unbounded_send(()).unwrap();
            answers.next().await.unwrap();
        }
        drop((to_ours, ours));
        attached.close().await;
        ticks.get()
    };
    assert_eq!(P::run(&launch, program).unwrap(), TICKS);
}

/// Not for monoio, which runs a task that only yields again before all others.
pub fn our_tasks_run_beside_a_busy_task_of_the_program<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let (over, mut is_over) = oneshot::channel();
        P::spawn(async move {
            for _ in 0..MANY_TURNS {
                if is_over.try_recv() != Ok(None) {
                    return;
                }
                yield_now().await;
            }
        });
        let ours = attached.rt().spawn(async {
            for _ in 0..1000 {
                yield_now().await;
            }
            over.send(()).is_ok()
        });
        let in_time = ours.await;
        attached.close().await;
        in_time
    };
    assert_eq!(P::run(&launch, program).unwrap(), Ok(true));
}

pub fn those_who_attach_share_it<P: Program>(launch: Launch) {
    let program = async || {
        let first = P::attach().unwrap();
        let second = P::attach().unwrap();
        let (ask, mut asked) = mpsc::unbounded::<oneshot::Sender<()>>();
        let serves = first.rt().spawn(async move {
            while let Some(answer) = asked.next().await {
                let _ = answer.send(());
            }
        });
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let begun = second.rt().spawn_blocking(move || gone.recv().is_ok());
        let (done, is_done) = oneshot::channel();
        P::spawn(async move {
            second.close().await; // It waits for the blocking work.
            let _ = done.send(());
        });
        for _ in 0..10 {
            let (answer, answered) = oneshot::channel();
            ask.unbounded_send(answer).unwrap();
            answered.await.unwrap();
        }
        go.send(()).unwrap();
        is_done.await.unwrap();
        assert_eq!(begun.await, Ok(true));
        let (answer, answered) = oneshot::channel();
        ask.unbounded_send(answer).unwrap();
        answered.await.expect("the first goes on");
        drop((ask, serves));
        first.close().await;
        P::attach().expect("the last has closed, and it begins anew").close().await;
    };
    P::run(&launch, program).unwrap();
}

pub fn close_waits_for_work_whose_task_is_gone<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (done, is_done) = std::sync::mpsc::channel();
        drop(attached.rt().spawn_blocking(move || {
            let _ = gone.recv();
            let _ = done.send(());
        }));
        go.send(()).unwrap();
        attached.close().await;
        is_done.try_recv().expect("it has ended before");
    };
    P::run(&launch, program).unwrap();
}

pub fn a_lock_is_free_after_a_program_that_has_not_closed<P: Program>(launch: Launch) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LOCK");
    for _ in 0..2 {
        let program = async || {
            let attached = P::attach().unwrap();
            let rt = attached.rt();
            let (locked, is_locked) = oneshot::channel();
            let path = path.clone();
            let holds = rt.clone().spawn(async move {
                let _lock = rt.lock_file(&path).await.expect("it is free");
                let _ = locked.send(());
                pending::<()>().await;
            });
            holds.detach();
            is_locked.await.unwrap();
            // Here `attached` is dropped, and nothing runs any more.
        };
        P::run(&launch, program).unwrap();
    }
}

pub fn attaching_within_run_is_an_error<P: Program>(launch: Launch) {
    let attached = P::Guest::run(&launch, async |_| P::attach().map(drop)).unwrap();
    let error = attached.expect_err("the thread has a runtime").to_string();
    assert!(error.contains("use the runtime they have given"), "{error}");
}

pub fn attaching_without_a_program_is_an_error<P: Program>(_: Launch) {
    let error = P::attach().map(drop).expect_err("there is no program");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("`quorate::run`"), "{error}");
}

pub fn what_is_called_after_the_end_says_so<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let rt = attached.rt();
        attached.close().await;
        catch_unwind(AssertUnwindSafe(|| drop(rt.spawn_blocking(|| ())))).is_err()
    };
    assert!(P::run(&launch, program).unwrap());
}

pub fn files_are_written_from_a_task_of_the_program<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let scratch = Scratch::new(&attached.rt()).await;
        let file = attached.rt().open(&scratch.path("file"), OpenMode::CreateNew).await.unwrap();
        file.write_durably_at(vec!["written".into()], 0).await.unwrap();
        drop(file);
        attached.close().await;
    };
    P::run(&launch, program).unwrap();
}

pub fn running_within_a_program_is_an_error<P: Program>(launch: Launch) {
    let inner = launch.clone();
    let program = async || P::Guest::run(&inner, async |_| ());
    let error = P::run(&launch, program).unwrap().expect_err("a runtime runs on this thread");
    assert!(error.to_string().contains("::attach`"), "{error}");
}

pub fn close_ends_though_the_last_handle_is_dropped_meanwhile<P: Program>(launch: Launch) {
    let program = async || {
        let first = P::attach().unwrap();
        let second = P::attach().unwrap();
        let timer = first.rt().sleep(Duration::from_secs(3600)); // It keeps the executor in memory.
        let (closed, is_closed) = oneshot::channel();
        P::spawn(async move {
            first.close().await;
            let _ = closed.send(());
        });
        yield_now().await;
        drop(second);
        is_closed.await.unwrap();
        drop(timer);
    };
    P::run(&launch, program).unwrap();
}

pub fn close_ends_though_operations_begin_meanwhile<P: Program>(launch: Launch) {
    let program = async || {
        let attached = P::attach().unwrap();
        let rt = attached.rt();
        P::spawn(async move {
            for _ in 0..20 {
                P::sleep(Duration::from_micros(200)).await;
                // A mistake of the program, and in the end a panic.
                let begin = || rt.spawn_blocking(|| ()).detach();
                if catch_unwind(AssertUnwindSafe(begin)).is_err() {
                    return;
                }
            }
        });
        attached.close().await;
    };
    P::run(&launch, program).unwrap();
}

/// The writer of a store is such a task.
pub fn close_drops_tasks_between_two_operations<P: Program>(launch: Launch) {
    struct Guard(std::sync::mpsc::Sender<bool>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::panicking());
        }
    }
    let program = async || {
        let attached = P::attach().unwrap();
        let rt = attached.rt();
        let (ended, has_ended) = std::sync::mpsc::channel();
        let (begun, has_begun) = oneshot::channel();
        let works = rt.clone().spawn(async move {
            let (_guard, mut begun) = (Guard(ended), Some(begun));
            loop {
                rt.spawn_blocking(|| ()).await.unwrap();
                begun.take().map(|begun| begun.send(()));
            }
        });
        works.detach();
        has_begun.await.unwrap();
        attached.close().await;
        has_ended.try_recv()
    };
    assert_eq!(P::run(&launch, program).unwrap(), Ok(false), "dropped, and not by a panic");
}

pub fn many_wait_for_one_piece_of_work<P: Program>(launch: Launch) {
    const MANY: usize = 20_000;
    let program = async || {
        let attached = P::attach().unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        attached.rt().spawn_blocking(move || gone.recv()).detach();
        let closing = FuturesUnordered::new();
        for _ in 0..MANY {
            closing.push(P::attach().unwrap().close());
        }
        go.send(()).unwrap();
        closing.collect::<()>().await;
        attached.close().await;
    };
    P::run(&launch, program).unwrap();
}
