//! One node: its store, its transport, its state machine and its server, put together.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::{FutureExt, select_biased};
use quorate::rt::channel::watch;
use quorate::rt::{Listener, Task};
use quorate::{
    AsyncRuntime, Config, FileStore, GroupId, Inbox, InitializeError, LocalRaft, Message, Node,
    NodeId, TcpConfig, TcpTransport, Transport,
};
use tracing::info;

use crate::server::Server;
use crate::store::Store;

/// How long to wait before asking again whether the cluster serves, while the node starts.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// What a node is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: NodeId,
    /// Where it listens for clients.
    pub(crate) client: String,
    /// Where it listens for peers.
    pub(crate) peer: String,
    /// Its folder.
    pub(crate) data: PathBuf,
    /// All nodes and where they are reached.
    pub(crate) members: BTreeMap<NodeId, String>,
    /// Its settings.
    pub(crate) config: Config,
}

/// Runs a node until `stop` says so. `on_ready` is called with the leader when it has answered its first linearizable read.
///
/// Errors: it could not start, or failed.
pub(crate) async fn run<R: AsyncRuntime>(
    rt: &R,
    plan: Plan,
    mut stop: watch::Receiver<bool>,
    on_ready: impl FnOnce(NodeId) + 'static,
) -> Result<(), String> {
    let Plan { id, client, peer, data, members, config } = plan;
    let log_store = FileStore::open(rt, &data).await.map_err(|error| error.to_string())?;
    let tcp_config = TcpConfig { cluster_id: cluster_id(&members), ..TcpConfig::default() };
    let tcp =
        TcpTransport::bind_with(rt, &peer, tcp_config).await.map_err(|error| error.to_string())?;
    let listener = listen(rt, &client).await?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let store = Store::default();
    let keys = store.count();
    let node = Node::builder(id)
        .config(config)
        .log_store(log_store)
        .transport(Addressed { tcp, members: members.clone() })
        .state_machine(store)
        .start(rt)
        .await
        .map_err(|error| error.to_string())?;
    let raft = node.local();
    match raft.initialize(members.clone()).await {
        Ok(()) => info!(id, "the cluster is formed"),
        Err(InitializeError::AlreadyInitialized) => check_members(&raft, &members)?,
        Err(error) => return Err(error.to_string()),
    }
    info!(id, %client, %peer, data = %data.display(), "serving");
    let server = Rc::new(Server::new(rt.clone(), raft.clone(), keys, port));
    // Dropped at the end, which closes the listener. The connections end with the runtime.
    let _accepting = rt.spawn(server.accept(listener));
    let waiting = rt.clone();
    rt.spawn(async move {
        if let Some(leader) = first_leader(&waiting, &raft).await {
            on_ready(leader);
        }
    })
    .detach();

    {
        let mut stopped = pin!(node.stopped().fuse());
        let mut asked = pin!(stop.wait_for(|stop| *stop).fuse());
        select_biased! {
            outcome = stopped => return outcome.map_err(|error| error.to_string()),
            _ = asked => {}
        }
    }
    node.shutdown().await.map_err(|error| error.to_string())
}

async fn listen<R: AsyncRuntime>(rt: &R, address: &str) -> Result<R::Listener, String> {
    let failed = |error| format!("can't listen on {address}: {error}");
    // A blocking look-up, but nothing else goes on yet on this thread.
    let mut result = Err(format!("can't listen on {address}: the name has no address"));
    for resolved in address.to_socket_addrs().map_err(failed)? {
        result = rt.listen(resolved).await.map_err(failed);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Waits until a linearizable read succeeds, and gives the leader at that time. None: the node has ended.
async fn first_leader<R: AsyncRuntime>(rt: &R, raft: &LocalRaft<Store>) -> Option<NodeId> {
    let mut metrics = raft.metrics();
    loop {
        let leader = metrics.wait_for(|metrics| metrics.leader.is_some()).await.ok()?.leader;
        if raft.read(|_| ()).await.is_ok() {
            return leader;
        }
        rt.sleep(READY_PAUSE).await;
    }
}

/// The nodes of a cluster can't be changed yet: to go on under others than those in the log would only look like it.
fn check_members(
    raft: &LocalRaft<Store>,
    members: &BTreeMap<NodeId, String>,
) -> Result<(), String> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    let Some(membership) = &metrics.membership else { return Ok(()) };
    if membership.voters().keys().eq(members.keys()) {
        return Ok(());
    }
    let list = |members: &BTreeMap<NodeId, String>| {
        members.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let (old, new) = (list(membership.voters()), list(members));
    Err(format!(
        "the data are of a cluster of the nodes {old}, and can't become one of the nodes {new}"
    ))
}

/// Tells clusters apart: nodes with different lists refuse each other (FNV-1a; the same on every build and machine).
fn cluster_id(members: &BTreeMap<NodeId, String>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let list: Vec<_> = members.iter().map(|(id, address)| format!("{id}={address}")).collect();
    list.join(",").bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// TCP, to the addresses of the command line. The log has those with which the cluster was formed; a node that has
/// moved since, or a demo on other ports, is not where the log says.
struct Addressed<R: AsyncRuntime> {
    tcp: TcpTransport<R>,
    members: BTreeMap<NodeId, String>,
}

impl<R: AsyncRuntime> Transport for Addressed<R> {
    fn send(&self, message: Message) {
        self.tcp.send(message);
    }

    fn attach(&self, group: GroupId, node: NodeId, inbox: Inbox) {
        self.tcp.attach(group, node, inbox);
    }

    fn set_peers(&self, group: GroupId, _: &BTreeMap<NodeId, String>) {
        self.tcp.set_peers(group, &self.members);
    }

    fn detach(&self, group: GroupId) {
        self.tcp.detach(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_id_is_that_of_the_list() {
        let members = |address: &str| BTreeMap::from([(1, address.to_owned())]);
        assert_eq!(cluster_id(&BTreeMap::new()), 0xcbf2_9ce4_8422_2325);
        // FNV-1a of "1=a".
        let by_hand = b"1=a".iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
        });
        assert_eq!(cluster_id(&members("a")), by_hand);
        assert_ne!(cluster_id(&members("a")), cluster_id(&members("b")));
    }
}
