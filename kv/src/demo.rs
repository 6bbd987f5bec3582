//! `quorate-kv demo`: a cluster in one process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use quorate::NodeId;

use crate::files;
use crate::host::{self, Cluster};
use crate::limits::Limits;
use crate::log::{self, Lines, Log};
use crate::node::{Entrance, Plan};
use crate::{Engine, Snapshots, Timing, config};

/// Peers are at the base port and this, so that the clients' ports stay in one row.
const PEER_PORTS: u16 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    #[command(flatten)]
    snapshots: Snapshots,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    engine: Engine,
    /// The folder for the data, node i's in a folder i; without it they are deleted at the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Node i serves clients on this port + i, and its peers on this port + 100 + i.
    #[arg(long, default_value_t = 7000, value_parser = clap::value_parser!(u16).range(..65_000))]
    base_port: u16,
    #[command(flatten)]
    pub(crate) log: log::Options,
}

/// Runs the cluster until a signal asks it to stop.
///
/// Errors: a node could not start, or failed.
pub(crate) fn run(options: Options, log: &Log) -> Result<(), String> {
    // Nobody may be reading any more; the cluster serves all the same.
    let stdout = Lines::to_stdout()?;
    let config = config(options.snapshots, options.timing)?;
    let max_clients = files::clients(options.nodes.into(), options.nodes.into())?;
    let temporary = match &options.data {
        Some(_) => None,
        None => {
            let folder = tempfile::Builder::new().prefix("quorate-kv-").tempdir();
            Some(folder.map_err(|error| format!("can't create a temporary folder: {error}"))?)
        }
    };
    let data = match (&options.data, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => unreachable!("the one is made where the other is missing"),
    };
    let address = |port: u16| format!("127.0.0.1:{}", options.base_port + port);
    let members: BTreeMap<NodeId, String> =
        (1..=options.nodes).map(|i| (NodeId::from(i), address(PEER_PORTS + i))).collect();
    let plans = (1..=options.nodes).map(|i| Plan {
        id: i.into(),
        client: address(i),
        peer: address(PEER_PORTS + i),
        advertise: None,
        data: data.join(i.to_string()),
        entrance: Entrance::Form(members.clone()),
        // Another base port may have been given than the last time.
        addresses: members.clone(),
        token: None,
        config: config.clone(),
        max_clients,
        limits: options.limits.clone(),
    });
    let clients: Vec<_> = (1..=options.nodes).map(address).collect();
    let kept = options.data.is_some();
    let cluster = Cluster { nodes: plans.collect(), engine: options.engine };
    let result = host::run(cluster, log, |leader| {
        let port = options.base_port + 1;
        let end = if kept { "" } else { " and deletes its data" };
        let text = format!(
            "ready leader={leader} clients={}\n\
             try: redis-cli -p {port} set greeting hello    (any node takes reads and writes; Ctrl-C stops the cluster{end})\n",
            clients.join(","),
        );
        stdout.push(text.as_bytes());
    });
    stdout.close();
    if let Some(folder) = temporary {
        let path = folder.path().to_owned();
        if let Err(error) = folder.close().or_else(|_| fs::remove_dir_all(&path)) {
            tracing::error!(%error, "{} is left behind", path.display());
        }
    }
    result
}
