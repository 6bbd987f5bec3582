//! `quorate-kv`: a replicated, durable key-value server that speaks the Redis protocol.

mod attempt;
mod check;
mod command;
mod connection;
mod demo;
mod glob;
mod host;
mod info;
mod key;
mod map;
mod members;
mod node;
mod reply;
mod request;
mod serve;
mod server;
mod snapshot;
mod store;
#[cfg(test)]
mod store_conformance;
mod write;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use quorate::Config;
use tracing_subscriber::EnvFilter;

/// A replicated, durable key-value server that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Runs a whole cluster in this process, each node on a thread of its own.
    Demo(demo::Options),
    /// Runs one node of a cluster.
    Serve(serve::Options),
    /// Verifies a node's data, while it is not running, and prints what they hold.
    Check(check::Options),
}

/// What a node runs on.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Engine {
    /// The async runtime.
    #[arg(long, value_enum, default_value_t)]
    runtime: Runtime,
    /// How the runtime talks to the kernel.
    #[arg(long, value_enum, default_value_t)]
    driver: Driver,
}

/// When a node takes snapshots.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Snapshots {
    /// A node takes a snapshot of its state, and purges its log, once so many bytes of it have been applied since the last one.
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().snapshot_after_bytes)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_bytes: u64,
    /// … or so many entries.
    #[arg(long, value_name = "COUNT", default_value_t = Config::default().snapshot_after_entries)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_entries: u64,
}

impl From<Snapshots> for Config {
    fn from(snapshots: Snapshots) -> Self {
        Self {
            snapshot_after_bytes: snapshots.snapshot_bytes,
            snapshot_after_entries: snapshots.snapshot_entries,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Runtime {
    #[default]
    Tokio,
    Monoio,
    Compio,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Driver {
    /// io_uring where the runtime and the kernel have it, otherwise polling.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Polling.
    Poll,
}

impl From<Driver> for quorate::Driver {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Auto => Self::Auto,
            Driver::Uring => Self::Uring,
            Driver::Poll => Self::Poll,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(match arguments.command {
            // Nodes of one process lose each other only when it ends.
            Subcommands::Demo(_) => "warn,quorate_network_tcp=error",
            Subcommands::Serve(_) => "info",
            Subcommands::Check(_) => "warn",
        })
    });
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(stderr).init();
    let result = match arguments.command {
        Subcommands::Demo(options) => demo::run(options),
        Subcommands::Serve(options) => serve::run(options),
        Subcommands::Check(options) => check::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "quorate-kv: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_command_lines_of_the_manual_are_understood() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in [
            "quorate-kv demo",
            "quorate-kv demo --snapshot-bytes 1048576 --snapshot-entries 1",
            "quorate-kv check --data d",
            "quorate-kv demo --nodes 5 --runtime monoio --driver poll --data d --base-port 80",
            "quorate-kv serve --id 1 --client [::]:7001 --peer host:7101 --cluster 1=host:7101,2=b:1 --data d",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{error}"));
        }
        for line in [
            "quorate-kv",
            "quorate-kv demo --nodes 0",
            "quorate-kv demo --snapshot-bytes 0",
            "quorate-kv serve --id 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
