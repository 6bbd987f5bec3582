//! Starting a runtime on a thread of its own.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::channel::watch;
use crate::{Executor, Launch};

pub fn on_a_thread_of_its_own<R: Executor>(launch: Launch) {
    let launch = Launch { name: "conformance-7".to_owned(), ..launch };
    let text = "from outside".to_owned();
    let started = R::launch(launch, async move |rt| {
        let here = Rc::new(thread::current().id()); // Not `Send`, and alive over an await.
        let in_a_task = rt.spawn(async { thread::current().id() }).await.unwrap();
        assert_eq!(in_a_task, *here);
        (*here, thread::current().name().map(str::to_owned), text)
    });
    let (thread, name, text) = started.unwrap().join().unwrap().unwrap();
    assert_ne!(thread, thread::current().id());
    assert_eq!(name.as_deref(), Some("conformance-7"));
    assert_eq!(text, "from outside");
}

fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

pub fn pinned<R: Executor>(launch: Launch) {
    let before = cores();
    for core in before.iter().copied().take(4) {
        let launch = Launch { core: Some(core), ..launch.clone() };
        let started = R::launch(launch, async move |rt| {
            rt.sleep(Duration::from_millis(1)).await;
            cores()
        });
        assert_eq!(started.unwrap().join().unwrap().unwrap(), [core]);
    }
    assert_eq!(cores(), before, "who launches stays where it was");
    let unpinned = R::launch(Launch { core: None, ..launch }, async move |_| cores());
    assert_eq!(unpinned.unwrap().join().unwrap().unwrap(), before);
}

pub fn core_that_does_not_exist<R: Executor>(launch: Launch) {
    // 1023, the last that can be named, is missing on any machine that runs this; then two that
    // can't be named.
    for core in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
        let launch = Launch { core: Some(core), ..launch.clone() };
        let started = R::launch(launch, async |_| panic!("it must not start"));
        let result: io::Result<()> = started.unwrap().join().unwrap();
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

pub fn panicking<R: Executor>(launch: Launch) {
    let (go, mut gone) = watch::channel(false);
    let bystander =
        R::launch(launch.clone(), async move |_| gone.wait_for(|go| *go).await.map(|go| *go))
            .unwrap();
    let panicking = R::launch(launch, async |rt| {
        rt.sleep(Duration::ZERO).await;
        panic!("expected by the test: main");
    });
    let result: thread::Result<io::Result<()>> = panicking.unwrap().join();
    let payload = result.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"expected by the test: main"));
    go.send(true);
    assert_eq!(bystander.join().unwrap().unwrap(), Ok(true), "other runtimes go on");
}

pub fn several_at_once<R: Executor>(launch: Launch) {
    const RUNTIMES: usize = 4;
    const ROUNDS: u64 = 1_000;
    // A ring in which each passes on what its predecessor says, plus one.
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..RUNTIMES).map(|_| watch::channel(0_u64)).unzip();
    let running: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(number, sender)| {
            let mut before = receivers[(number + RUNTIMES - 1) % RUNTIMES].clone();
            R::launch(launch.clone(), async move |_| {
                for round in 0..ROUNDS {
                    let due = round * RUNTIMES as u64 + number as u64;
                    let value = *before.wait_for(|value| *value == due).await.unwrap();
                    sender.send(value + 1);
                }
                // The first to end must not close what the last one still waits for.
                sender
            })
            .unwrap()
        })
        .collect();
    let ended: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
    assert_eq!(*ended[RUNTIMES - 1].borrow(), ROUNDS * RUNTIMES as u64);
}
