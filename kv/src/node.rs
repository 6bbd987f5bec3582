//! One node: its store, its transport, its state machine and its server, put together.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join;
use futures::{FutureExt, select_biased};
use quorate::rt::channel::watch;
use quorate::rt::{Listener, Task};
use quorate::{
    AsyncRuntime, Config, Credentials, Executor, FileStore, GroupId, Inbox, InitializeError,
    LocalRaft, Message, MessageLimit, Network, Node, NodeId, Obstacle, Replica, TcpTransport,
    Transport,
};
use tracing::info;

use crate::limits::Limits;
use crate::server::Server;
use crate::store::Store;

/// How long to wait before asking again whether the cluster serves, while the node starts.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// How long a port may still be in use, and how often it is tried: the kernel closes the sockets of
/// a process that used io_uring a moment after its end.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_PAUSE: Duration = Duration::from_millis(5);

/// How long a node that was told another list than its peers goes on answering them, so that each
/// of them notices: twice what a peer waits at most before it connects again.
const DISAGREEMENT: Duration = Duration::from_secs(2);

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
    /// The most clients at a time.
    pub(crate) max_clients: usize,
    /// What clients may use.
    pub(crate) limits: Limits,
}

/// Runs a node until `stop` says so. `on_ready` is called with the leader when it has answered its
/// first linearizable read.
///
/// Errors: it could not start, or failed.
pub(crate) async fn run<R: AsyncRuntime>(
    rt: &R,
    plan: Plan,
    mut stop: watch::Receiver<bool>,
    on_ready: impl FnOnce(NodeId) + 'static,
) -> Result<(), String> {
    let Plan { id, client, peer, data, members, config, max_clients, limits } = plan;
    let tcp = once_free(rt, async || TcpTransport::bind(rt, &peer).await).await;
    let tcp = tcp.map_err(|error| error.to_string())?;
    let listener = once_free(rt, async || listen(rt, &client).await).await;
    let listener = listener.map_err(|error| format!("can't listen on {client}: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    // A command line that can't work leaves nothing on the disk.
    tcp.check_list(id, &members)?;
    let log_store = FileStore::open(rt, &data).await.map_err(|error| error.to_string())?;
    let store = Store::default();
    let keys = store.count();
    let patience = config.request_timeout;
    let node = Node::builder(id)
        .log_store(log_store)
        .transport(Addressed { tcp, members: members.clone() })
        .start(rt)
        .await
        .map_err(|error| error.to_string())?;
    let raft = node.group(0).config(config).open_local(store).await;
    let raft = raft.map_err(|error| error.to_string())?;
    info!(id, %client, %peer, data = %data.display(), "serving");
    let server = Server::new(rt.clone(), raft.clone(), keys, port, max_clients, limits, patience);
    let server = Rc::new(server);
    // Dropping it closes the listener.
    let accepting = rt.spawn(Rc::clone(&server).accept(listener));
    let (waiting, asked) = (rt.clone(), raft.clone());
    rt.spawn(async move {
        if let Some(leader) = first_leader(&waiting, &asked).await {
            on_ready(leader);
        }
    })
    .detach();

    {
        let mut stopped = pin!(raft.stopped().fuse());
        let mut asked = pin!(stop.wait_for(|stop| *stop).fuse());
        // It serves meanwhile, if only to say for whom it waits.
        let mut forming = pin!(form(rt, id, raft.clone(), members).fuse());
        loop {
            select_biased! {
                outcome = stopped => {
                    // Its clients are answered that it has failed.
                    server.stop(accepting).await;
                    return outcome.map_err(|error| error.to_string());
                }
                _ = asked => break,
                outcome = forming => outcome?,
            }
        }
    }
    // What clients have asked is brought to its end or refused by the node, and answered.
    let (stopped, ()) = join(node.shutdown(), server.stop(accepting)).await;
    stopped.map_err(|error| error.to_string())
}

/// Tries again while the port is in use, for a while.
async fn once_free<R: Executor, T>(
    rt: &R,
    listen: impl AsyncFn() -> io::Result<T>,
) -> io::Result<T> {
    let deadline = rt.now() + PORT_PATIENCE;
    loop {
        match listen().await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && rt.now() < deadline => {
                rt.sleep(PORT_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn listen<R: Network>(rt: &R, address: &str) -> io::Result<R::Listener> {
    let mut result = Err(io::Error::other("the name has no address"));
    for resolved in rt.resolve(address).await? {
        result = rt.listen(resolved).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Waits until a linearizable read succeeds, and gives the leader at that time. None: the node has
/// ended.
async fn first_leader<R: Executor>(rt: &R, raft: &LocalRaft<Store>) -> Option<NodeId> {
    let mut metrics = raft.metrics();
    loop {
        let leader = metrics.wait_for(|metrics| metrics.leader.is_some()).await.ok()?.leader;
        if raft.read(|_| ()).await.is_ok() {
            return leader;
        }
        rt.sleep(READY_PAUSE).await;
    }
}

/// Waits until this node is part of a cluster that was founded with this list.
///
/// Errors: it can't be.
async fn form<R: Executor>(
    rt: &R,
    id: NodeId,
    raft: LocalRaft<Store>,
    members: BTreeMap<NodeId, String>,
) -> Result<(), String> {
    let forms = raft.metrics().borrow().membership.is_none();
    match raft.initialize(members).await {
        Ok(()) => {
            if forms {
                info!(id, "the cluster is formed");
            }
            // A disk that another has replaced may not know that yet. But the leader confirms a
            // read to members only.
            if first_leader(rt, &raft).await.is_some() {
                info!(id, "this node is part of the cluster");
            }
            Ok(())
        }
        // The node says it, too.
        Err(InitializeError::Shutdown | InitializeError::Fatal(_)) => Ok(()),
        Err(error) => {
            if let InitializeError::OtherList { .. } = error {
                rt.sleep(DISAGREEMENT).await;
            }
            Err(error.to_string())
        }
    }
}

/// TCP, to the addresses of the command line. The log has those with which the cluster was formed;
/// a node that has moved since, or a demo on other ports, is not where the log says. They were
/// checked before the node started.
struct Addressed<R: Network> {
    tcp: TcpTransport<R>,
    members: BTreeMap<NodeId, String>,
}

impl<R: Network> Transport for Addressed<R> {
    fn send(&self, message: Message) -> bool {
        self.tcp.send(message)
    }

    fn is_ready(&self, to: Replica) -> bool {
        self.tcp.is_ready(to)
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        self.tcp.message_limit()
    }

    fn dropped_messages(&self) -> u64 {
        self.tcp.dropped_messages()
    }

    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        self.tcp.attach(group, credentials, inbox);
    }

    fn set_credentials(&self, group: GroupId, credentials: Credentials) {
        self.tcp.set_credentials(group, credentials);
    }

    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        let told = |(replica, known): (&Replica, &String)| {
            let address = self.members.get(&replica.id).unwrap_or(known);
            (*replica, address.clone())
        };
        self.tcp.set_peers(group, &peers.iter().map(told).collect());
    }

    fn obstacle(&self, to: Replica) -> Obstacle {
        self.tcp.obstacle(to)
    }

    fn detach(&self, group: GroupId) {
        self.tcp.detach(group);
    }
}
