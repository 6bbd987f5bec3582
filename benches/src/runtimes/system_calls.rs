//! The floor: the same sockets and files by plain system calls on one thread, and two threads that
//! park and unpark each other.

use std::fs::OpenOptions;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::FutureExt;
use rustix::fs::{FallocateFlags, fallocate};

use super::io::{FILE_BYTES, GATHERED, GATHERED_BYTES, MESSAGE_BYTES, WRITE_BYTES};
use super::{Operation, Work};

pub(super) fn has(operation: Operation) -> bool {
    match operation {
        Operation::WakeThread
        | Operation::RoundTrip { connections: 1 }
        | Operation::Gather
        | Operation::Write { .. } => true,
        Operation::Switch
        | Operation::Spawn
        | Operation::Block
        | Operation::Timer
        | Operation::Late
        | Operation::Wake
        | Operation::RoundTrip { .. } => false,
    }
}

pub(super) fn run(work: &Work) -> Result<Vec<f64>> {
    match work.operation {
        Operation::WakeThread => wake_thread(work.duration),
        Operation::RoundTrip { .. } => round_trip(work.duration),
        Operation::Gather => gather(work.duration),
        Operation::Write { synced } => write(&work.dir, synced, work.duration),
        operation => bail!("{operation:?} is not the kernel's"),
    }
}

fn measure(
    duration: Duration,
    operations: usize,
    mut batch: impl FnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    let measured = super::measure(duration, operations, async || batch());
    measured.now_or_never().context("it waits for nothing")?
}

fn wake_thread(duration: Duration) -> Result<Vec<f64>> {
    let raised = [AtomicBool::new(false), AtomicBool::new(false)];
    let stop = AtomicBool::new(false);
    let wait = |signal: &AtomicBool| {
        while !signal.swap(false, Ordering::Acquire) {
            thread::park();
        }
    };
    let raise = |signal: &AtomicBool, thread: &thread::Thread| {
        signal.store(true, Ordering::Release);
        thread.unpark();
    };
    let this = thread::current();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                wait(&raised[0]);
                raise(&raised[1], &this);
            }
        });
        let figures = measure(duration, 64, || {
            for _ in 0..32 {
                raise(&raised[0], other.thread());
                wait(&raised[1]);
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        raise(&raised[0], other.thread());
        other.join().map_err(|_| anyhow!("a thread has panicked"))?;
        figures
    })
}

fn connected() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let outgoing = TcpStream::connect(listener.local_addr()?)?;
    let (incoming, _) = listener.accept()?;
    outgoing.set_nodelay(true)?;
    incoming.set_nodelay(true)?;
    Ok((outgoing, incoming))
}

fn round_trip(duration: Duration) -> Result<Vec<f64>> {
    let (mut outgoing, mut incoming) = connected()?;
    let (message, mut received) = ([7; MESSAGE_BYTES], [0; MESSAGE_BYTES]);
    measure(duration, 16, || {
        for _ in 0..16 {
            outgoing.write_all(&message)?;
            incoming.read_exact(&mut received)?;
            incoming.write_all(&received)?;
            outgoing.read_exact(&mut received)?;
        }
        Ok(())
    })
}

fn gather(duration: Duration) -> Result<Vec<f64>> {
    let (mut outgoing, mut incoming) = connected()?;
    let buffer = [7; GATHERED_BYTES];
    let buffers = [IoSlice::new(&buffer); GATHERED];
    let mut received = [0; GATHERED * GATHERED_BYTES];
    measure(duration, 16, || {
        for _ in 0..16 {
            let written = outgoing.write_vectored(&buffers)?;
            ensure!(written == received.len(), "a part of it was written");
            incoming.read_exact(&mut received)?;
        }
        Ok(())
    })
}

fn write(dir: &Path, synced: bool, duration: Duration) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir_in(dir)?;
    let file = OpenOptions::new().write(true).create_new(true).open(dir.path().join("file"))?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
    file.sync_data()?;
    let content = [7; WRITE_BYTES];
    let (mut offset, at_once) = (0, if synced { 1 } else { 16 });
    measure(duration, at_once, || {
        for _ in 0..at_once {
            file.write_all_at(&content, offset)?;
            offset = (offset + WRITE_BYTES as u64) % FILE_BYTES;
        }
        if synced {
            file.sync_data()?;
        }
        Ok(())
    })
}
