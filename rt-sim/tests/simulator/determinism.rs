//! The same seed gives the same run, and another one another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_rt::{Executor, File, Files, Listener, Network, OpenMode, Stream, Task, yield_now};
use quorate_rt_sim::{
    Crash, DiskConfig, Generator, Happened, Host, NetworkConfig, Sim, Simulation,
};

use crate::common::*;

/// Everything that can go wrong by itself, does.
fn bad_network() -> NetworkConfig {
    NetworkConfig {
        jitter: 0.05,
        loss: 0.02,
        refusal: 0.05,
        hang: 0.02,
        window: 1 << 10..1 << 12,
        segment: 1..500,
        ..NetworkConfig::default()
    }
}

fn bad_disk() -> DiskConfig {
    DiskConfig {
        read_errors: 0.01,
        write_errors: 0.01,
        sync_errors: 0.01,
        short_reads: 0.3,
        ..DiskConfig::default()
    }
}

/// Sends back what it gets.
async fn echo(stream: impl Stream) {
    let (mut reader, mut writer) = stream.split();
    while let Ok(some) = read_some(&mut reader, 700).await {
        if some.is_empty() || write(&mut writer, some).await.is_err() {
            break;
        }
    }
}

/// Writes, reads and syncs, for ever.
async fn use_disk(rt: &Sim) -> std::io::Result<()> {
    let path = Path::new("/data/file");
    rt.create_dir_all(Path::new("/data")).await?;
    let file = match rt.open(path, OpenMode::Write).await {
        Ok(file) => file,
        Err(_) => rt.open(path, OpenMode::CreateNew).await?,
    };
    loop {
        let at = rt.random() % 10_000;
        write_at(&file, at, pattern(at as usize)).await?;
        file.read_at(BytesMut::with_capacity(3000), at / 2).await.0?;
        file.sync_data().await?;
        let sum = rt.spawn_blocking(move || (0..at).sum::<u64>()).await;
        let pause = sum.expect("it does not panic") % 1000;
        rt.sleep(Duration::from_micros(pause)).await;
    }
}

/// A process that talks to the others, and uses its disk.
async fn process(rt: Sim, others: Vec<Host>, say: Bytes) {
    let disk = rt.clone();
    rt.spawn(async move {
        while use_disk(&disk).await.is_err() {
            yield_now().await;
        }
    })
    .detach();
    for other in others {
        let (rt, say) = (rt.clone(), say.clone());
        rt.clone()
            .spawn(async move {
                loop {
                    rt.sleep(Duration::from_micros(rt.random() % 5_000)).await;
                    let Ok(stream) = rt.connect(at(&other)).await else { continue };
                    let (mut reader, mut writer) = stream.split();
                    while write(&mut writer, say.clone()).await.is_ok() {
                        if within(&rt, 50 * MS, read_some(&mut reader, 300)).await.is_none() {
                            break;
                        }
                    }
                }
            })
            .detach();
    }
    let mut listener = rt.listen(at(&rt.host())).await.expect("a free port");
    while let Ok((stream, _)) = listener.accept().await {
        rt.spawn(echo(stream)).detach();
    }
}

/// All that is told of a run.
type Run = (u64, u64, BTreeMap<&'static str, u64>, Vec<Happened>);

/// Three hosts that do all there is to do, while everything goes wrong that can.
fn run(seed: u64, say: &'static str) -> Run {
    let simulation = Simulation::new(seed);
    simulation.keep_recent();
    simulation.network().configure(bad_network());
    let faults = Generator::new(seed, "faults");
    let hosts: Vec<Host> = (0..3).map(|number| simulation.host(format!("{number}"))).collect();
    let start = |host: &Host| {
        let others = hosts.iter().filter(|other| other.id() != host.id()).cloned().collect();
        host.start(async move |rt| process(rt, others, say.into()).await);
    };
    for host in &hosts {
        host.disk().configure(bad_disk());
        start(host);
    }
    for _ in 0..40 {
        simulation.run_for(faults.duration(&(Duration::ZERO..20 * MS)));
        let (one, other) = (faults.choose(&hosts), faults.choose(&hosts));
        match faults.below(10) {
            0 => one.crash(Crash::Power),
            1 => one.crash(Crash::Process),
            2 => one.crash_after(faults.below(100), Crash::Power),
            3 => simulation.network().cut(one.id(), other.id()),
            4 => simulation.network().heal_all(),
            5 => simulation.network().stall(one.id(), other.id(), 10 * MS),
            6 => drop(simulation.network().reset(one.id(), other.id())),
            7 => one.disk().stall(10 * MS),
            8 => one.set_drift(faults.below(100_000) as i64),
            _ => one.pause(),
        }
        hosts.iter().filter(|host| !host.is_running()).for_each(&start);
        other.resume();
    }
    (simulation.hash(), simulation.events(), simulation.counts(), simulation.recent())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "two simulations run on two threads")]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let mut hashes = BTreeSet::new();
    for seed in 0..4 {
        let first = run(seed, "hello");
        // On another thread, while that one is busy with another run.
        let (second, _) = std::thread::scope(|scope| {
            let second = scope.spawn(|| run(seed, "hello"));
            (second.join().expect("it does not panic"), run(seed + 100, "hello"))
        });
        assert!(first == second, "seed {seed}: {} and {}", first.0, second.0);
        assert!(first.1 > 10_000 && first.2.len() > 5, "much happens: {:?}", first.2);
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 4);
}

#[test]
fn a_run_in_which_something_else_is_said_is_another_one() {
    let (one, other) = (run(1, "hello"), run(1, "hellp"));
    assert_ne!(one.0, other.0);
}

#[test]
fn one_number_more_for_a_process_shifts_nothing_else() {
    let run = |numbers: usize| {
        let pair = Pair::on(1, bad_network());
        let rt = pair.on_a.clone();
        pair.a.disk().configure(bad_disk());
        pair.on_a
            .spawn(async move {
                for _ in 0..numbers {
                    rt.random();
                }
                let file = create(&rt, "/file").await;
                for number in 0..100 {
                    let _may_fail = write_at(&file, number, "x").await;
                    let _is_refused = within(&rt, MS, rt.connect(at(&rt.host()))).await;
                }
            })
            .detach();
        pair.simulation.run_for(HOUR);
        pair.simulation.hash()
    };
    assert_eq!(run(0), run(1000));
}

/// How long each of fifty messages is under way, while something else happens or doesn't.
fn latencies(meanwhile: impl AsyncFnOnce(Sim) + 'static) -> Vec<Duration> {
    let pair = Pair::new(1);
    let [(_from_b, mut writer), (mut reader, _back)] = halves(pair.connect());
    pair.simulation.host("c").start(meanwhile);
    let message = |_| {
        let (_, took) = pair.time(async {
            write(&mut writer, "x").await.unwrap();
            read_exactly(&mut reader, 1).await.unwrap()
        });
        took
    };
    (0..50).map(message).collect()
}

#[test]
fn what_disks_and_processes_draw_does_not_shift_the_network() {
    let alone = latencies(idle);
    assert!(alone.iter().collect::<BTreeSet<_>>().len() > 40, "they differ");
    let busy = latencies(async |rt| {
        rt.host().disk().configure(bad_disk());
        loop {
            let _may_fail = use_disk(&rt).await;
            rt.random();
        }
    });
    assert_eq!(alone, busy);
}

#[test]
fn what_the_network_draws_does_not_shift_the_disks() {
    let times = |talks: bool| {
        let pair = Pair::on(1, bad_network());
        let sides = pair.connect();
        let [(_from_b, mut writer), (mut reader, _back)] = halves(sides);
        let file = pair.wait(create(&pair.on_a, "/file"));
        let times = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..50 {
            if talks {
                pair.wait(async {
                    write(&mut writer, "x").await.unwrap();
                    read_exactly(&mut reader, 1).await.unwrap();
                });
            }
            times.borrow_mut().push(pair.time(file.sync_data()).1);
        }
        times.take()
    };
    assert_eq!(times(false), times(true));
}
