//! `quorate-kv serve`: one node of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorate::NodeId;
use tracing::info;

use crate::files;
use crate::host::{self, Cluster};
use crate::limits::Limits;
use crate::log::{self, Log};
use crate::node::Plan;
use crate::{Engine, Snapshots, Timing, config};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// This node's number, one of those in --cluster.
    #[arg(long)]
    id: NodeId,
    /// Where clients reach this node: an address or a name of this machine, and a port.
    #[arg(long, value_name = "ADDR")]
    client: String,
    /// Where the other nodes reach this node.
    #[arg(long, value_name = "ADDR")]
    peer: String,
    /// All nodes and where the others reach them, the same on each: 1=PEER,2=PEER,3=PEER.
    #[arg(long, value_name = "ID=ADDR,...", value_parser = members)]
    cluster: Members,
    /// The folder for this node's data.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    snapshots: Snapshots,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    pub(crate) log: log::Options,
}

#[derive(Clone, Debug)]
struct Members(BTreeMap<NodeId, String>);

fn members(text: &str) -> Result<Members, String> {
    let mut members = BTreeMap::new();
    for member in text.split(',') {
        let (id, address) = member
            .split_once('=')
            .ok_or_else(|| format!("'{member}' is not of the form ID=ADDR"))?;
        let id = id.parse().map_err(|error| format!("the id '{id}': {error}"))?;
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {}
            _ => return Err(format!("'{address}' is not of the form HOST:PORT")),
        }
        if members.insert(id, address.to_owned()).is_some() {
            return Err(format!("node {id} is listed twice"));
        }
    }
    quorate::check_list(&members)?;
    Ok(Members(members))
}

/// Runs the node until a signal asks it to stop.
///
/// Errors: it could not start, or failed.
pub(crate) fn run(options: Options, log: &Log) -> Result<(), String> {
    let Options {
        id,
        client,
        peer,
        cluster: Members(members),
        data,
        snapshots,
        timing,
        limits,
        engine,
        log: _,
    } = options;
    let config = config(snapshots, timing)?;
    if !members.contains_key(&id) {
        return Err(format!("node {id} is not in --cluster"));
    }
    let max_clients = files::clients(1, members.len())?;
    let plan = Plan { id, client, peer, data, members, config, max_clients, limits };
    host::run(Cluster { nodes: vec![plan], engine }, log, |leader| {
        info!(leader, "ready");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_ids_with_addresses() {
        let Members(members) = members("2=b:2,1=[::1]:1").unwrap();
        assert_eq!(members, BTreeMap::from([(1, "[::1]:1".to_owned()), (2, "b:2".to_owned())]));
    }

    #[test]
    fn a_list_that_cannot_work_is_refused() {
        for text in
            ["", "1", "1=", "1=a", "1=a:x", "1=:1", "x=a:1", "0=a:1", "1=a:1,1=b:1", "1=a:1,"]
        {
            assert!(members(text).is_err(), "{text}");
        }
    }
}
