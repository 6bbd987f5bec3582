//! Writes of a program that has a runtime already, beside those on a runtime of Quorate's, for
//! callgrind. They are a program of their own: where one program has several runtimes, less of each
//! is inlined.
//!
//! Without an argument it tells the names of the cases; with one it runs that case.

use std::io;

use anyhow::{Context, Result};
use compio::driver::{DriverType, ProactorBuilder};
use monoio::{LegacyDriver, RuntimeBuilder};
use quorate::{Attached, Compio, Executor, Monoio};

use self::writes::{counted, write, writes};

mod writes;

type Case = (&'static str, fn() -> Result<()>);

const CASES: &[Case] = &[
    ("write-1-monoio", || write::<Monoio>(1)),
    ("write-1-monoio-attached", || write_attached_monoio(1)),
    ("write-1-compio", || write::<Compio>(1)),
    ("write-1-compio-attached", || write_attached_compio(1)),
];

#[expect(clippy::disallowed_methods, reason = "a program has arguments")]
fn main() -> Result<()> {
    let Some(name) = std::env::args().nth(1) else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, run) = CASES.iter().find(|case| case.0 == name).context("there is no such case")?;
    run()
}

/// Writes of a task of a program, to whose runtime Quorate's is attached.
fn write_attached_monoio(at_once: usize) -> Result<()> {
    let mut program = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    counted(|| program.block_on(attached(Monoio::attach, at_once)))
}

fn write_attached_compio(at_once: usize) -> Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.driver_type(DriverType::Poll);
    let program = compio::runtime::RuntimeBuilder::new().with_proactor(proactor).build()?;
    counted(|| program.block_on(attached(Compio::attach, at_once)))
}

async fn attached<R: Executor>(
    attach: impl Fn() -> io::Result<Attached<R>>,
    at_once: usize,
) -> Result<()> {
    let attached = attach()?;
    writes(attached.rt(), at_once).await?;
    attached.close().await;
    Ok(())
}
