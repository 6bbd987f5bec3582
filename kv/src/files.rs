//! The open files of the process: how many there may be, and how many of them clients get.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// The most clients of a node at a time: Redis' default. With what an idle connection holds they
/// take some 100 MiB.
const MAX_CLIENTS: usize = 10_000;

/// With fewer clients a node is of no use.
const MIN_CLIENTS: usize = 16;

/// Standard streams, the log, signals.
const OF_PROCESS: usize = 16;

/// Of each node: 64 open segments of its log and those that are just being made or read, its
/// snapshots, folders and lock (some 20), its listeners and its runtime (some 12).
/// [`REFUSALS`](crate::server::REFUSALS) come to that.
const OF_NODE: usize = 100;

/// Of each other node: two connections from it and two to it, one of each for snapshots.
const OF_PEER: usize = 4;

/// Connections to the peer port of which nobody knows yet whose they are. The transport takes at
/// most so many; a smaller process must do with a quarter of its files for them.
const OF_STRANGERS: usize = 256;

/// How many clients each of so many nodes of the process may have, each in a cluster of so many
/// members. Raises the limit of open files as far as that may be.
///
/// Errors: the limit is so low that a node could not run.
pub(crate) fn clients(nodes: usize, members: usize) -> Result<usize, String> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        warn!(%error, "can't raise the limit of open files; fewer clients can connect");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return Ok(MAX_CLIENTS) };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    match share(files, nodes, members) {
        Some(MAX_CLIENTS) => Ok(MAX_CLIENTS),
        Some(clients) => {
            warn!(
                files,
                clients,
                "the limit of open files allows no more clients than this; raise RLIMIT_NOFILE for more"
            );
            Ok(clients)
        }
        None => {
            let least = (files..).find(|files| share(*files, nodes, members).is_some());
            let least = least.unwrap_or(usize::MAX);
            Err(format!(
                "the process may have only {files} open files, and needs {least}: raise the limit with `ulimit -Hn {least}`, or by \
                 LimitNOFILE={least} in the unit of systemd"
            ))
        }
    }
}

/// How many clients a node may have in a process with so many files, if it can run.
fn share(files: usize, nodes: usize, members: usize) -> Option<usize> {
    let of_node = files.saturating_sub(OF_PROCESS) / nodes.max(1);
    let strangers = OF_STRANGERS.min(of_node / 4);
    let others = OF_NODE + OF_PEER * members + strangers + crate::server::REFUSALS;
    let clients = of_node.saturating_sub(others).min(MAX_CLIENTS);
    (clients >= MIN_CLIENTS).then_some(clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_a_node_does_not_need() {
        assert_eq!(share(1 << 20, 1, 3), Some(MAX_CLIENTS));
        assert_eq!(share(1024, 1, 3), Some(1024 - 16 - 100 - 12 - 252 - 16));
        assert_eq!(share(256, 1, 3), Some(256 - 16 - 100 - 12 - 60 - 16));
        assert_eq!(share(128, 1, 3), None);
        // A demo's nodes share them.
        assert_eq!(share(1024, 3, 3), Some(336 - 100 - 12 - 84 - 16));
        assert_eq!(share(0, 1, 1), None);
    }
}
