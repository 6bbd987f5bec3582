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
    AsyncRuntime, ClusterId, Config, Credentials, Executor, FileStore, GroupId, Inbox,
    InitializeError, LocalRaft, Membership, Message, MessageLimit, Metrics, Network, Node, NodeId,
    Obstacle, Replica, TcpConfig, TcpTransport, Transport,
};
use tracing::{info, warn};

use crate::join::{self, Joining};
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
    /// Where peers reach it, if that is elsewhere.
    pub(crate) advertise: Option<String>,
    /// Its folder.
    pub(crate) data: PathBuf,
    /// How it comes into its cluster.
    pub(crate) entrance: Entrance,
    /// Where nodes are, whatever the membership says.
    pub(crate) addresses: BTreeMap<NodeId, String>,
    /// The cluster that its folder must be of, if it is of one.
    pub(crate) token: Option<ClusterId>,
    /// Its settings.
    pub(crate) config: Config,
    /// The most clients at a time.
    pub(crate) max_clients: usize,
    /// What clients may use.
    pub(crate) limits: Limits,
}

/// How a node comes into its cluster.
#[derive(Clone, Debug)]
pub(crate) enum Entrance {
    /// It forms one of these nodes, and where they are reached.
    Form(BTreeMap<NodeId, String>),
    /// It is let into one that is formed.
    Join(Joining),
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
    let Plan { id, client, peer, advertise, data, entrance, addresses, .. } = plan;
    let Plan { token, config, max_clients, limits, .. } = plan;
    let settings = TcpConfig { advertise: advertise.clone(), ..TcpConfig::default() };
    let tcp =
        once_free(rt, async || TcpTransport::bind_with(rt, &peer, settings.clone()).await).await;
    let tcp = tcp.map_err(|error| error.to_string())?;
    let listener = once_free(rt, async || listen(rt, &client).await).await;
    let listener = listener.map_err(|error| format!("can't listen on {client}: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    // A list that can't work leaves nothing on the disk. Later, nodes may have been moved.
    let is_checked = !data.join("wal").exists();
    if let (Entrance::Form(list), true) = (&entrance, is_checked) {
        tcp.check_list(id, list)?;
    }
    // Otherwise the others look for it elsewhere than the membership says.
    let own = advertise.unwrap_or(peer.clone());
    let own = (!addresses.contains_key(&id)).then_some(own);
    let log_store = FileStore::open(rt, &data).await.map_err(|error| error.to_string())?;
    let store = Store::default();
    let keys = store.count();
    let patience = config.request_timeout;
    let node = Node::builder(id)
        .log_store(log_store)
        .transport(Addressed { tcp: tcp.clone(), addresses })
        .start(rt)
        .await
        .map_err(|error| error.to_string())?;
    let raft = node.group(0).config(config).open_local(store).await;
    let raft = raft.map_err(|error| error.to_string())?;
    if let (Entrance::Form(list), false) = (&entrance, is_checked)
        && raft.metrics().borrow().membership.is_none()
    {
        tcp.check_list(id, list)?;
    }
    let cluster = raft.metrics().borrow().cluster;
    if let (Some(token), Some(cluster)) = (token, cluster)
        && token != cluster
    {
        // Not its id, which is a secret.
        return Err(format!(
            "{} is of another cluster than --token says: this node has taken part in nothing",
            data.display()
        ));
    }
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
        let mut forming = pin!(enter(&server, id, entrance).fuse());
        let mut watching = pin!(watch(&server, id, own, &tcp).fuse());
        loop {
            select_biased! {
                outcome = stopped => {
                    // Its clients are answered that it has failed.
                    server.stop(accepting).await;
                    return outcome.map_err(|error| error.to_string());
                }
                _ = asked => break,
                outcome = forming => outcome?,
                () = watching => {}
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

/// Waits until this node is part of its cluster. One that joins does so again when it has left: a
/// learner that came too late may be let in once more.
///
/// Errors: it can't be.
async fn enter<R: Network>(
    server: &Server<R>,
    id: NodeId,
    entrance: Entrance,
) -> Result<(), String> {
    let is_new = || server.metrics.borrow().membership.is_none();
    match entrance {
        Entrance::Form(list) => {
            let news = is_new().then_some("the cluster is formed");
            form(&server.rt, &server.raft, list).await?;
            serve(server, id, news).await
        }
        Entrance::Join(joining) => {
            while !server.metrics.borrow().removed {
                let news = is_new().then_some("this node was let into the cluster");
                join::until_let_in(server, &joining).await?;
                serve(server, id, news).await?;
                if server.metrics.clone().wait_for(has_left).await.is_err() {
                    break; // The node has ended.
                }
            }
            Ok(())
        }
    }
}

fn has_left(metrics: &Metrics) -> bool {
    let is_member = |of: &Membership| of.is_member(metrics.replica);
    metrics.removed || !metrics.membership.as_ref().is_some_and(is_member)
}

/// A member says that it is one, when it knows.
///
/// Errors: another disk of this node is a member in the place of this one.
async fn serve<R: Network>(
    server: &Server<R>,
    id: NodeId,
    news: Option<&str>,
) -> Result<(), String> {
    let mut metrics = server.metrics.clone();
    let is_replaced = |metrics: &Metrics| metrics.removed && is_replaced(metrics);
    if is_replaced(&metrics.borrow()) {
        return Err(InitializeError::Spent.to_string());
    }
    if has_left(&metrics.borrow()) {
        return Ok(()); // It goes on running, to tell clients so.
    }
    if let Some(news) = news {
        info!(id, "{news}");
    }
    // A disk that another has replaced may not know that yet. But the leader confirms a read to
    // members only.
    let mut leads = pin!(first_leader(&server.rt, &server.raft).fuse());
    let mut leaves = pin!(metrics.wait_for(has_left).fuse());
    select_biased! {
        leader = leads => {
            if leader.is_some() {
                info!(id, "this node is part of the cluster");
            }
        }
        _ = leaves => {}
    }
    Ok(())
}

/// Waits until this node is part of a cluster that was founded with this list, or was removed from
/// it.
///
/// Errors: it can't be.
async fn form<R: Executor>(
    rt: &R,
    raft: &LocalRaft<Store>,
    members: BTreeMap<NodeId, String>,
) -> Result<(), String> {
    match raft.initialize(members).await {
        Ok(()) | Err(InitializeError::Spent) => Ok(()),
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

/// Whether another disk of this node is a member in the place of this one.
fn is_replaced(metrics: &Metrics) -> bool {
    let members = metrics.membership.iter().flat_map(|membership| membership.members().keys());
    members.clone().all(|member| *member != metrics.replica)
        && members.clone().any(|member| member.id == metrics.id)
}

/// Says what an operator has to do about the membership, each time that becomes another thing.
/// `own` is where this node says that it is reached, if that is to be what the membership says.
async fn watch<R: Network>(
    server: &Server<R>,
    id: NodeId,
    own: Option<String>,
    tcp: &TcpTransport<R>,
) {
    let mut metrics = server.metrics.clone();
    let part = |metrics: &Metrics| {
        let address = metrics.membership.as_ref().and_then(|of| of.members().get(&metrics.replica));
        (address.cloned().filter(|_| !metrics.removed), metrics.removed)
    };
    let mut before = (None, false);
    // It is an error when the node has ended.
    while let Ok(now) = metrics.wait_for(|metrics| part(metrics) != before).await.map(|m| part(&m))
    {
        if now.1 && !before.1 {
            warn!(
                id,
                "this node was removed from its cluster. It goes on running to tell clients so. Stop \
                 it, and delete its folder when nobody wants to look into it any more. To add it \
                 again, start it with an empty folder and --join"
            );
        }
        if let (Some(listed), Some(own)) = (&now.0, &own)
            && let Err(reason) = tcp.check_list(id, &[(id, listed.clone())].into())
        {
            warn!(
                id,
                "the other nodes look for this one at {listed}, by the membership: {reason}. If \
                 this node is to stay here, RAFT MOVE {id} {own} on any node mends that; otherwise \
                 start it at {listed}"
            );
        }
        before = now;
    }
}

/// TCP, to other addresses than those of the membership where the command line has some: for a
/// cluster of which most nodes have moved at once, and for a demo on other ports.
///
/// (It checks no list: that of a node whose cluster is formed may be out of date.)
struct Addressed<R: Network> {
    tcp: TcpTransport<R>,
    addresses: BTreeMap<NodeId, String>,
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
            let address = self.addresses.get(&replica.id).unwrap_or(known);
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
