//! Quorate's benches: the framework against what the machine can do at all, against its peers, and
//! across its runtimes.
//!
//! Each bench runs its cells in turn, several times, so that what else the machine does falls on
//! all of them alike, and prints medians. `elections` measures nothing, and counts on virtual time.

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

mod closed_loop;
mod durable;
mod elections;
mod engine;
mod minimal;
mod report;
mod runtimes;
mod scale;
mod transfer;
mod wal;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::report::Options;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    bench: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three nodes in one process, in memory: what the consensus itself costs.
    Minimal {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        minimal: minimal::Options,
    },
    /// Three engines on one thread: what the protocol itself costs, in time and in instructions.
    Engine {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        engine: engine::Options,
    },
    /// The write-ahead log: durable appends, appends that nobody waits for, recovery, reads.
    Wal {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        wal: wal::Options,
    },
    /// Three processes whose disks keep what they acknowledge, beside etcd.
    Durable {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        durable: durable::Options,
    },
    /// What each backend costs: tasks, timers, wake-ups, sockets, files, and a cluster on each.
    Runtimes {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        runtimes: runtimes::Options,
    },
    /// How the cost grows, with the nodes, the commands and the log, and what an idle node costs.
    Scale {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        scale: scale::Options,
    },
    /// How long writes pause while leadership is transferred.
    Transfer {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        transfer: transfer::Options,
    },
    /// Elections with several candidates at once, counted on virtual time.
    Elections {
        #[command(flatten)]
        elections: elections::Options,
    },
    /// What `engine` runs under callgrind.
    #[command(hide = true)]
    EngineAlone(engine::Alone),
}

fn main() -> Result<()> {
    match Arguments::parse().bench {
        Command::Minimal { options, minimal } => minimal::bench(&minimal).run(&options),
        Command::Engine { options, engine } => engine::bench(&engine).run(&options),
        Command::Wal { options, wal } => wal::bench(&wal)?.run(&options),
        Command::Durable { options, durable } => durable::bench(&durable).run(&options),
        Command::Runtimes { options, runtimes } => runtimes::bench(&runtimes).run(&options),
        Command::Scale { options, scale } => scale::bench(&scale)?.run(&options),
        Command::Transfer { options, transfer } => transfer::bench(&transfer).run(&options),
        Command::Elections { elections } => elections::bench(&elections),
        Command::EngineAlone(alone) => engine::alone(&alone),
    }
}
