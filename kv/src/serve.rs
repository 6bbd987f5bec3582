//! `quorate-kv serve`: one node of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorate::{ClusterId, NodeId};
use tracing::info;

use crate::files;
use crate::host::{self, Cluster};
use crate::join::Joining;
use crate::limits::Limits;
use crate::log::{self, Log};
use crate::node::{Entrance, Plan};
use crate::{Engine, Snapshots, Timing, config};

/// Open files are kept for so many members at least, as more may be added.
const USUAL_MEMBERS: usize = 5;

#[derive(Debug, clap::Args)]
#[group(id = "entrance", args = ["cluster", "join"], required = true, multiple = false)]
pub(crate) struct Options {
    /// This node's number. In its cluster no other node has it.
    #[arg(long)]
    id: NodeId,
    /// Where clients reach this node: an address or a name of this machine, and a port.
    #[arg(long, value_name = "ADDR")]
    client: String,
    /// Where the other nodes reach this node.
    #[arg(long, value_name = "ADDR")]
    peer: String,
    /// Where the other nodes reach this node, if it listens on all addresses of its machine
    /// (--peer 0.0.0.0:7101) or its address is translated.
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Forms a cluster of these nodes, the same on each: 1=PEER,2=PEER,3=PEER. Once it is formed,
    /// only the numbers count, and its membership says where nodes are.
    #[arg(long, value_name = "ID=ADDR,...", value_parser = members)]
    cluster: Option<Members>,
    /// Joins a cluster: with an empty folder, the node waits until RAFT ADD on a member lets it in.
    /// With --token it asks for that itself, at these client addresses of members.
    #[arg(long, value_name = "CLIENT-ADDR,...", num_args = 0..=1, default_missing_value = "")]
    #[arg(value_parser = addresses)]
    join: Option<Addresses>,
    /// The id of the cluster, which RAFT TOKEN prints on a member: the node refuses a folder of
    /// another one. With --join and addresses, it lets itself into this cluster.
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Option<ClusterId>,
    /// Where nodes are, whatever the membership says: only for a cluster of which most nodes have
    /// other addresses than before, so that no RAFT MOVE is possible. The same on each; after
    /// RAFT MOVE for each of them, start them without it.
    #[arg(long, value_name = "ID=ADDR,...", value_parser = members)]
    addresses: Option<Members>,
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

/// Client addresses of members.
#[derive(Clone, Debug)]
struct Addresses(Vec<String>);

fn addresses(text: &str) -> Result<Addresses, String> {
    let addresses = text.split(',').filter(|_| !text.is_empty());
    let checked = |address: &str| quorate::check_address(address).map(|()| address.to_owned());
    Ok(Addresses(addresses.map(checked).collect::<Result<_, _>>()?))
}

fn token(text: &str) -> Result<ClusterId, String> {
    let id = u128::from_str_radix(text, 16);
    id.map(ClusterId).map_err(|_| "it is no token as RAFT TOKEN prints it".to_owned())
}

impl Options {
    /// How the node comes into its cluster.
    ///
    /// Errors: it can't be so.
    fn entrance(&self) -> Result<Entrance, String> {
        let Self { id, peer, .. } = self;
        if let Some(Members(list)) = &self.cluster {
            return match list.contains_key(id) {
                true => Ok(Entrance::Form(list.clone())),
                false => Err(format!(
                    "node {id} is not in --cluster: where it is to be added to a cluster that is formed, use --join"
                )),
            };
        }
        let address = self.advertise.clone().unwrap_or_else(|| peer.clone());
        quorate::check_address(&address).map_err(|reason| {
            format!("--peer: {reason}: say by --advertise where the other nodes reach this one")
        })?;
        let members = self.join.as_ref().map(|Addresses(members)| members.clone());
        let members = members.unwrap_or_default();
        // Without a token it only waits.
        let token = self.token.filter(|_| !members.is_empty());
        let asks = token.map(|token| (members, token.to_string()));
        Ok(Entrance::Join(Joining { id: *id, address, asks }))
    }
}

/// Runs the node until a signal asks it to stop.
///
/// Errors: it could not start, or failed.
pub(crate) fn run(options: Options, log: &Log) -> Result<(), String> {
    let entrance = options.entrance()?;
    let Options { id, client, peer, advertise, addresses, token, data, .. } = options;
    let Options { snapshots, timing, limits, engine, .. } = options;
    let config = config(snapshots, timing)?;
    let members = match &entrance {
        Entrance::Form(list) => list.len().max(USUAL_MEMBERS),
        Entrance::Join(_) => USUAL_MEMBERS,
    };
    let max_clients = files::clients(1, members)?;
    let addresses = addresses.map(|Members(of)| of).unwrap_or_default();
    let plan = Plan {
        id,
        client,
        peer,
        advertise,
        data,
        entrance,
        addresses,
        token,
        config,
        max_clients,
        limits,
    };
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
