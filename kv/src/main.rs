//! `quorate-kv`: a replicated, durable key-value server that speaks the Redis protocol.

mod alarm;
mod attempt;
mod budget;
mod change;
mod check;
mod command;
mod connection;
mod demo;
mod files;
mod glob;
mod host;
mod info;
mod join;
mod key;
mod leadership;
mod limits;
mod log;
mod map;
mod members;
mod node;
mod queue;
mod read;
mod reply;
mod request;
#[cfg(test)]
mod request_tests;
mod serve;
mod server;
mod settings;
mod signals;
mod snapshot;
mod store;
#[cfg(test)]
mod store_conformance;
mod table;
mod thread_time;
mod write;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use quorate::Config;
use tracing_subscriber::EnvFilter;

use crate::log::Log;

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
    Serve(Box<serve::Options>),
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
    /// A node takes a snapshot of its state, and purges its log, once so many bytes of it have been
    /// applied since the last one.
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().snapshot_after_bytes)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_bytes: u64,
    /// … or so many entries.
    #[arg(long, value_name = "COUNT", default_value_t = Config::default().snapshot_after_entries)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_entries: u64,
}

/// How soon nodes notice that others are gone.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Timing {
    /// How long a follower waits for its leader before it wants to be elected, at least, such as
    /// 1500ms; the same on all nodes. At least three round trips between them, and at least three
    /// heartbeats. The log and INFO say it where it is too short.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = limits::duration)]
    election_timeout: Duration,
    /// How often an idle leader lets its followers hear of it; a tenth of the election timeout, as
    /// by default, suits most networks.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = limits::duration)]
    heartbeat: Duration,
}

/// The settings of a node.
///
/// Errors: they can't work.
fn config(snapshots: Snapshots, timing: Timing) -> Result<Config, String> {
    let default = Config::default();
    let config = Config {
        snapshot_after_bytes: snapshots.snapshot_bytes,
        snapshot_after_entries: snapshots.snapshot_entries,
        heartbeat_interval: timing.heartbeat,
        election_timeout: timing.election_timeout,
        // An election takes little more than one of them, and rarely a second attempt.
        request_timeout: default.request_timeout.max(2 * timing.election_timeout),
        ..default
    };
    config.validate().map_err(|error| match error.field {
        "election_timeout" => format!("--election-timeout {}", error.reason),
        "heartbeat_interval" => format!("--heartbeat {}", error.reason),
        _ => error.to_string(),
    })?;
    Ok(config)
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
    let (options, default) = match &arguments.command {
        // Nodes of one process lose each other only when it ends.
        Subcommands::Demo(options) => (options.log.clone(), "warn,quorate_network_tcp=error"),
        Subcommands::Serve(options) => (options.log.clone(), "info"),
        Subcommands::Check(_) => (log::Options::default(), "warn"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = match Log::start(options, filter) {
        Ok(log) => log,
        Err(error) => {
            log::say_last(&error);
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Subcommands::Demo(options) => demo::run(options, &log),
        Subcommands::Serve(options) => serve::run(*options, &log),
        Subcommands::Check(options) => check::run(options),
    };
    log.end(result.as_ref().err().map(String::as_str));
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
            "quorate-kv demo --election-timeout 3s --heartbeat 500ms --client-timeout 5m",
            "quorate-kv demo --log-file l --log-format json",
            "quorate-kv check --data d",
            "quorate-kv demo --nodes 5 --runtime monoio --driver poll --data d --base-port 80",
            "quorate-kv serve --id 1 --client [::]:7001 --peer host:7101 --cluster 1=host:7101,2=b:1 --data d",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --join --data d",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --data d --join",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --join b:7001,c:7002 --token 7f --data d",
            "quorate-kv serve --id 4 --client :7004 --peer [::]:7104 --advertise a:7104 --join --data d",
            "quorate-kv serve --id 1 --client :7001 --peer a:1 --cluster 1=b:1 --addresses 1=a:1 --data d",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{error}"));
        }
        for line in [
            "quorate-kv",
            "quorate-kv demo --nodes 0",
            "quorate-kv demo --snapshot-bytes 0",
            "quorate-kv serve --id 1",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --data d",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --data d --join x",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --data d --cluster 4=a:7104 --token x",
            "quorate-kv serve --id 4 --client :7004 --peer a:7104 --data d --join --cluster 4=a:7104",
            "quorate-kv demo --log-format xml",
            "quorate-kv demo --heartbeat soon",
            "quorate-kv demo --stall-timeout 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
