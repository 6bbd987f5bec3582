//! Transports on tokio, against each other and against peers that do as the test says, byte by
//! byte.

mod accepting;
mod boots;
mod exchange;
mod form;
mod fuzz;
mod handshake;
mod hostile;
mod lanes;
mod memories;
mod names;
mod unproven;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::channel::mpsc;
use litemap::LiteMap;
use quorate_core::codec::{Gather, put_message};
use quorate_core::{
    AppendOutcome, Body, Boot, Claim, ClusterId, Credentials, Digest, Entries, Entry,
    ForwardOutcome, GroupId, Inbox, LeadershipTransfer, LogId, Membership, Memory, Message, NodeId,
    Obstacle, Payload, Replica, Situation, SnapshotMeta, StoreState, Term, Transport,
};
use quorate_rt::{Executor, Launch, Listener, Network, ReadHalf, Stream, WriteHalf};
use quorate_rt_tokio::{Tokio, TokioListener, TokioReadHalf, TokioStream, TokioWriteHalf};

use crate::config::{TcpConfig, Timing};
use crate::frame::put_frame;
use crate::handshake::{
    Answer, Confirm, Hello, Lane, Nonce, Party, Role, VERSIONS, is_formation, mac,
};
use crate::transport::TcpTransport;

const GROUP: GroupId = 7;
/// Its bytes occur nowhere by chance.
const CLUSTER: ClusterId = ClusterId(0xC1A5_7E12_0123_4567_89AB_CDEF_5EC2_E777);
const OTHER_CLUSTER: ClusterId = ClusterId(0x07E2_C1A5_7E12_0000_1111_2222_3333_4444);
const ANYWHERE: &str = "127.0.0.1:0";

/// Fails a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(scenario: impl AsyncFnOnce(Tokio)) {
    Tokio::run(&Launch::default(), async |rt| {
        let deadline = rt.sleep(PATIENCE);
        let scenario = std::pin::pin!(scenario(rt));
        match futures::future::select(scenario, std::pin::pin!(deadline)).await {
            futures::future::Either::Left(_) => {}
            futures::future::Either::Right(_) => panic!("the scenario hangs"),
        }
    })
    .unwrap();
}

/// Counters have no event to wait for.
async fn until(rt: &Tokio, mut condition: impl FnMut() -> bool) {
    while !condition() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

fn config() -> TcpConfig {
    TcpConfig::default()
}

fn replica(id: NodeId) -> Replica {
    Replica::new(id, 0xD15C_0000_0000_0000 + id)
}

/// A member of the cluster, in its third boot.
fn member(id: NodeId) -> Credentials {
    let boot = Boot { number: 3, tag: id };
    let (state, cluster) = (StoreState::Member, Some(CLUSTER));
    Credentials { replica: replica(id), boot, state, cluster }
}

/// A node with an empty store.
fn empty(id: NodeId) -> Credentials {
    Credentials { state: StoreState::Empty, cluster: None, ..member(id) }
}

/// The same store, started once more.
fn rebooted(own: Credentials) -> Credentials {
    let Boot { number, tag } = own.boot;
    Credentials { boot: Boot { number: number + 1, tag: tag + 1000 }, ..own }
}

/// A transport with a node attached.
struct Node {
    own: Credentials,
    transport: TcpTransport<Tokio>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

impl Node {
    async fn start(rt: &Tokio, id: NodeId) -> Self {
        Self::start_as(rt, member(id)).await
    }

    async fn start_as(rt: &Tokio, own: Credentials) -> Self {
        Self::start_with(rt, own, ANYWHERE, config(), Timing::DEFAULT).await
    }

    async fn start_with(
        rt: &Tokio,
        own: Credentials,
        address: &str,
        config: TcpConfig,
        timing: Timing,
    ) -> Self {
        let transport = TcpTransport::bind_timed(rt, address, config, timing).await.unwrap();
        let (sender, inbox) = mpsc::unbounded();
        let deliver = move |message| sender.unbounded_send(message).unwrap();
        transport.attach(GROUP, own, Inbox::new(deliver));
        Self { own, transport, inbox }
    }

    /// From now on it shows this.
    fn becomes(&mut self, state: StoreState, cluster: Option<ClusterId>) {
        self.own = Credentials { state, cluster, ..self.own };
        self.transport.set_credentials(GROUP, self.own);
    }

    fn address(&self) -> String {
        self.transport.local_addr().to_string()
    }

    /// From now on it knows these peers, whichever stores they have.
    fn meet(&self, peers: &[(NodeId, String)]) {
        let peers = peers.iter().map(|(id, address)| (Replica::any(*id), address.clone()));
        self.transport.set_peers(GROUP, &peers.collect());
    }

    fn send(&self, to: NodeId, body: Body) {
        self.send_to(replica(to), body);
    }

    fn send_to(&self, to: Replica, body: Body) {
        self.transport.send(message_between(self.own.replica, to, body));
    }

    /// A message that is known by its number.
    fn send_number(&self, to: NodeId, sequence: u64) {
        self.send(to, Body::ReadIndex { sequence });
    }

    /// The number of the next message.
    async fn number(&mut self) -> u64 {
        match self.inbox.recv().await.unwrap().body {
            Body::ReadIndex { sequence } => sequence,
            body => panic!("not a number: {body:?}"),
        }
    }

    /// Sends until something arrives at `to`, as a node that comes back may miss the first
    /// messages.
    async fn reach(&self, rt: &Tokio, to: &mut Node, sequence: u64) {
        until(rt, || {
            self.send_number(to.own.replica.id, sequence);
            std::iter::from_fn(|| to.inbox.try_recv().ok())
                .any(|message| message.body == Body::ReadIndex { sequence })
        })
        .await;
    }
}

/// Two nodes that know each other.
async fn pair(rt: &Tokio) -> (Node, Node) {
    let (one, two) = (Node::start(rt, 1).await, Node::start(rt, 2).await);
    one.meet(&[(2, two.address())]);
    two.meet(&[(1, one.address())]);
    (one, two)
}

/// The other end of a connection, in the hands of a test.
struct Wire {
    read: TokioReadHalf,
    write: TokioWriteHalf,
    buffer: BytesMut,
}

impl Wire {
    fn new(stream: TokioStream) -> Self {
        let (read, write) = stream.split();
        Self { read, write, buffer: BytesMut::new() }
    }

    async fn connect(rt: &Tokio, node: &Node) -> Self {
        Self::new(rt.connect(node.transport.local_addr()).await.unwrap())
    }

    /// Connected to `node` and welcomed there as member `id`.
    async fn welcomed(rt: &Tokio, node: &Node, id: NodeId) -> Self {
        Self::welcomed_on(rt, node, id, Lane::Main).await
    }

    async fn welcomed_on(rt: &Tokio, node: &Node, id: NodeId, lane: Lane) -> Self {
        let mut wire = Self::connect(rt, node).await;
        let hello = Hello { lane, ..hello(id, node.own.replica.id) };
        wire.shake_hands(&hello, member(id).cluster).await;
        wire
    }

    /// Says hello, and is welcomed.
    async fn shake_hands(&mut self, hello: &Hello, cluster: Option<ClusterId>) -> Party {
        let answer = self.greet(hello).await;
        assert_eq!(answer.refused, 0, "{answer:?}");
        let node = answer.node.unwrap();
        let mac = cluster.map(|cluster| mac(cluster, Role::Dialler, &hello.from, &node));
        self.send(Confirm { mac, ..Confirm::default() }.encode()).await;
        node
    }

    /// Says hello, and hears the answer.
    async fn greet(&mut self, hello: &Hello) -> Answer {
        self.send(hello.encode()).await;
        self.answer().await
    }

    /// The next connection, welcomed as by member `id`.
    async fn welcome(listener: &mut TokioListener, id: NodeId) -> (Self, Hello) {
        let (wire, hello, confirm) = Self::welcome_as(listener, member(id)).await;
        assert!(confirm.mac.is_some() && confirm.refused == 0, "{confirm:?}");
        (wire, hello)
    }

    async fn welcome_as(listener: &mut TokioListener, own: Credentials) -> (Self, Hello, Confirm) {
        let mut wire = Self::new(listener.accept().await.unwrap().0);
        let hello = wire.take(Hello::take).await;
        wire.send(welcome_by(own, &hello).encode()).await;
        let confirm = wire.take(Confirm::take).await;
        (wire, hello, confirm)
    }

    /// Takes a part of a handshake.
    async fn take<T>(
        &mut self,
        take: impl Fn(&mut BytesMut) -> Result<Option<T>, crate::handshake::Refusal>,
    ) -> T {
        loop {
            if let Some(taken) = take(&mut self.buffer).unwrap() {
                return taken;
            }
            assert!(self.more().await, "closed within a handshake");
        }
    }

    async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.write.write_all(vec![bytes.into()]).await.unwrap();
    }

    /// Reads more; false at the end of the stream, however that came.
    async fn more(&mut self) -> bool {
        self.buffer.reserve(1024);
        let (count, buffer) = self.read.read(std::mem::take(&mut self.buffer)).await;
        self.buffer = buffer;
        count.is_ok_and(|count| count > 0)
    }

    async fn answer(&mut self) -> Answer {
        self.take(Answer::take).await
    }

    /// Takes a part of a handshake, and appends its bytes to `all`.
    async fn take_bytes<T>(
        &mut self,
        all: &mut Vec<u8>,
        take: impl Fn(&mut BytesMut) -> Result<Option<T>, crate::handshake::Refusal>,
    ) -> T {
        loop {
            let before = self.buffer.clone();
            if let Some(taken) = take(&mut self.buffer).unwrap() {
                all.extend_from_slice(&before[..before.len() - self.buffer.len()]);
                return taken;
            }
            assert!(self.more().await, "closed within a handshake");
        }
    }

    /// Reads this frame, which must be the next.
    async fn expect(&mut self, message: &Message) {
        self.expect_bytes(&frame(&encode(message))).await;
    }

    async fn expect_bytes(&mut self, bytes: &[u8]) {
        while self.buffer.len() < bytes.len() {
            assert!(self.more().await, "closed before it");
        }
        let next = self.buffer.split_to(bytes.len());
        assert!(next == bytes, "not the next: {next:?}, but {bytes:?}");
    }

    async fn until_closed(&mut self) {
        while self.more().await {}
    }
}

const NONCE: Nonce = [0xA5; 16];

fn hello(from: NodeId, to: NodeId) -> Hello {
    hello_by(member(from), replica(to))
}

fn hello_by(own: Credentials, to: Replica) -> Hello {
    Hello {
        versions: VERSIONS,
        from: Party::new(&own, NONCE),
        to,
        lane: Lane::Main,
        address: "127.0.0.1:1".to_owned(),
    }
}

/// What a node answers that lets everybody in.
fn welcome_by(own: Credentials, hello: &Hello) -> Answer {
    let node = Party::new(&own, NONCE);
    let mac = own.cluster.map(|cluster| mac(cluster, Role::Acceptor, &hello.from, &node));
    Answer::welcome(hello, node, mac)
}

fn message(from: NodeId, to: NodeId, body: Body) -> Message {
    message_between(replica(from), replica(to), body)
}

/// One of a member, or one without a cluster where it forms one.
fn message_between(from: Replica, to: Replica, body: Body) -> Message {
    let cluster = (!is_formation(&body)).then_some(CLUSTER);
    Message { group: GROUP, cluster, from, to, term: Term(3), body }
}

fn encode(message: &Message) -> Vec<u8> {
    let mut body = Gather::new();
    put_message(&mut body, message);
    body.take().concat()
}

/// A frame with this body.
fn frame(body: &[u8]) -> Vec<u8> {
    let (mut to, mut from) = (Gather::new(), Gather::new());
    from.put_slice(body);
    put_frame(&mut to, &mut from);
    to.take().concat()
}

fn command(index: u64, bytes: usize) -> Entry {
    let content: Vec<u8> = (0..bytes).map(|n| (n as u64 * 7 + index) as u8).collect();
    Entry { log_id: LogId::new(2, 1, index), time: 5, payload: Payload::Command(content.into()) }
}

fn membership() -> Membership {
    let members = BTreeMap::from([(replica(1), "a:1".to_owned()), (replica(2), "b:2".to_owned())]);
    Membership::founding(CLUSTER, members).unwrap()
}

/// A chunk of a snapshot.
fn snapshot_chunk(offset: u64, bytes: usize) -> Body {
    let meta = SnapshotMeta {
        log_id: LogId::new(2, 1, 10),
        time: 4,
        membership: membership(),
        membership_index: 3,
        bytes: 1 << 40,
        digest: Digest::of(b"content"),
    };
    let chunk: Vec<u8> = (0..bytes).map(|n| (n as u64 * 13).wrapping_add(offset) as u8).collect();
    Body::Snapshot { meta: Box::new(meta), offset, chunk: chunk.into() }
}

fn who() -> Body {
    Body::Who { listed: BTreeSet::from([1, 2, 3]) }
}

fn situation() -> Body {
    Body::Situation { situation: Situation::Empty, listed: BTreeSet::new() }
}

fn claim() -> Body {
    let list = Arc::new(LiteMap::from_iter([(1, "a:1".to_owned()), (2, "b:2".to_owned())]));
    Body::Claim(Box::new(Claim { cluster: CLUSTER, ballot: 4, founder: replica(1), list }))
}

fn admit() -> Body {
    Body::Admit { cluster: CLUSTER, founders: BTreeSet::from([1, 2]) }
}

/// At least one of each kind of message, each outcome, each kind of entry.
fn all_kinds() -> Vec<Body> {
    let log_id = LogId::new(2, 1, 10);
    let entries = vec![
        Entry { log_id: LogId::new(2, 1, 11), time: 5, payload: Payload::Blank },
        command(12, 0),
        command(13, 100),
        command(14, 5000),
        Entry { log_id: LogId::new(3, 2, 15), time: 6, payload: Payload::Membership(membership()) },
    ];
    let transfer = LeadershipTransfer { leader: replica(3), term: Term(2), round: 9 };
    let commands = vec![Bytes::new(), Bytes::from_static(b"set"), Bytes::from(vec![1; 3000])];
    let forwarded = |outcome| Body::ForwardReply { boot: 5, sequence: 6, outcome };
    vec![
        Body::PreVote { last_log_id: log_id, attempt: 0 },
        Body::PreVoteReply { granted: true, attempt: 0 },
        Body::Vote { last_log_id: LogId::ZERO, transfer: None, attempt: 0 },
        Body::Vote { last_log_id: log_id, transfer: Some(transfer), attempt: 0 },
        Body::TimeoutNow { last_log_id: log_id, round: 9 },
        Body::VoteReply { granted: false, attempt: 0 },
        Body::Append { prev: log_id, committed: 9, round: 77, durable: 0, entries: entries.into() },
        Body::Append {
            prev: LogId::ZERO,
            committed: 0,
            round: 78,
            durable: 0,
            entries: Entries::default(),
        },
        Body::AppendReply { round: 77, outcome: AppendOutcome::Accepted { matched: 15 } },
        Body::AppendReply {
            round: 78,
            outcome: AppendOutcome::Rejected { prev: 10, hint: log_id },
        },
        Body::Forward { boot: 5, sequence: 6, commands },
        forwarded(ForwardOutcome::Appended(log_id)),
        forwarded(ForwardOutcome::NotLeader),
        forwarded(ForwardOutcome::Busy),
        forwarded(ForwardOutcome::StorageFull),
        forwarded(ForwardOutcome::Partly {
            first: log_id,
            refused: vec![quorate_core::Refusal::new(1, "why".to_owned())],
        }),
        Body::ReadIndex { sequence: 8 },
        Body::ReadIndexReply { sequence: 8, index: Some(15), time: 7 },
        Body::ReadIndexReply { sequence: 9, index: None, time: 0 },
        snapshot_chunk(0, 0),
        snapshot_chunk(1 << 30, 100),
        snapshot_chunk(u64::MAX, 5000),
        Body::SnapshotReply { digest: Digest::of(b"content"), stored: 1 << 30 },
        who(),
        situation(),
        claim(),
        admit(),
    ]
}
