//! Transports on tokio, against each other and against peers that do as the test says, byte by byte.

mod exchange;
mod fuzz;
mod handshake;
mod hostile;
mod lanes;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::codec::{Gather, put_message};
use quorate_core::{
    AppendOutcome, Body, Digest, Entries, Entry, ForwardOutcome, GroupId, Inbox, LogId, Membership,
    Message, NodeId, Payload, SnapshotMeta, Term, Transport, Vote,
};
use quorate_rt::channel::mpsc;
use quorate_rt::{AsyncRuntime, Launch, Listener, ReadHalf, Stream, WriteHalf};
use quorate_rt_tokio::{Tokio, TokioListener, TokioReadHalf, TokioStream, TokioWriteHalf};

use crate::config::{TcpConfig, Timing};
use crate::frame::put_frame;
use crate::handshake::{Answer, Hello, Lane};
use crate::transport::TcpTransport;

const GROUP: GroupId = 7;
const CLUSTER: u64 = 42;
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
    TcpConfig { cluster_id: CLUSTER, ..TcpConfig::default() }
}

/// A transport with node `id` attached.
struct Node {
    id: NodeId,
    transport: TcpTransport<Tokio>,
    inbox: mpsc::Receiver<Message>,
}

impl Node {
    async fn start(rt: &Tokio, id: NodeId) -> Self {
        Self::start_with(rt, id, ANYWHERE, config(), Timing::DEFAULT).await
    }

    async fn start_with(
        rt: &Tokio,
        id: NodeId,
        address: &str,
        config: TcpConfig,
        timing: Timing,
    ) -> Self {
        let transport = TcpTransport::bind_timed(rt, address, config, timing).await.unwrap();
        let (sender, inbox) = mpsc::channel(10_000);
        let deliver = move |message| sender.try_send(message).unwrap();
        transport.attach(GROUP, id, Inbox::new(deliver));
        Self { id, transport, inbox }
    }

    fn address(&self) -> String {
        self.transport.local_addr().to_string()
    }

    /// From now on it knows these peers.
    fn meet(&self, peers: &[(NodeId, String)]) {
        self.transport.set_peers(GROUP, &peers.iter().cloned().collect());
    }

    fn send(&self, to: NodeId, body: Body) {
        self.transport.send(Message { group: GROUP, from: self.id, to, term: Term(3), body });
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

    /// Sends until something arrives at `to`, as a node that comes back may miss the first messages.
    async fn reach(&self, rt: &Tokio, to: &mut Node, sequence: u64) {
        until(rt, || {
            self.send_number(to.id, sequence);
            std::iter::from_fn(|| to.inbox.try_recv())
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

    /// Connected to `node` and welcomed there as node `id`.
    async fn welcomed(rt: &Tokio, node: &Node, id: NodeId) -> Self {
        Self::welcomed_on(rt, node, id, Lane::Main).await
    }

    async fn welcomed_on(rt: &Tokio, node: &Node, id: NodeId, lane: Lane) -> Self {
        let mut wire = Self::connect(rt, node).await;
        wire.send(Hello { lane, ..hello(id, node.id) }.encode()).await;
        assert_eq!(wire.answer().await.refused, None);
        wire
    }

    /// The next connection, welcomed as by node `id`.
    async fn welcome(listener: &mut TokioListener, id: NodeId) -> (Self, Hello) {
        let mut wire = Self::new(listener.accept().await.unwrap().0);
        let hello = loop {
            if let Some(hello) = Hello::take(&mut wire.buffer).unwrap() {
                break hello;
            }
            assert!(wire.more().await);
        };
        wire.send(Answer { cluster: CLUSTER, node: id, refused: None }.encode()).await;
        (wire, hello)
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
        loop {
            if let Some(answer) = Answer::take(&mut self.buffer).unwrap() {
                return answer;
            }
            assert!(self.more().await, "closed without an answer");
        }
    }

    /// Reads this frame, which must be the next.
    async fn expect(&mut self, message: &Message) {
        let bytes = frame(&encode(message));
        while self.buffer.len() < bytes.len() {
            assert!(self.more().await, "closed before {message:?}");
        }
        assert!(self.buffer.split_to(bytes.len()) == bytes, "not {message:?}");
    }

    async fn until_closed(&mut self) {
        while self.more().await {}
    }
}

fn hello(from: NodeId, to: NodeId) -> Hello {
    Hello { cluster: CLUSTER, from, to, lane: Lane::Main, address: "127.0.0.1:1".to_owned() }
}

fn message(from: NodeId, to: NodeId, body: Body) -> Message {
    Message { group: GROUP, from, to, term: Term(3), body }
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
    Entry { log_id: LogId::new(2, 1, index), payload: Payload::Command(content.into()) }
}

/// A piece of a snapshot.
fn piece(offset: u64, bytes: usize) -> Body {
    let voters = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:2".to_owned())]);
    let meta = SnapshotMeta {
        log_id: LogId::new(2, 1, 10),
        membership: Membership::new(voters).unwrap(),
        membership_index: 3,
        bytes: 1 << 40,
        digest: Digest::of(b"content"),
    };
    let chunk: Vec<u8> = (0..bytes).map(|n| (n as u64 * 13).wrapping_add(offset) as u8).collect();
    Body::Snapshot { meta, offset, chunk: chunk.into() }
}

/// At least one of each kind of message, each outcome, each kind of entry.
fn all_kinds() -> Vec<Body> {
    let log_id = LogId::new(2, 1, 10);
    let voters = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:2".to_owned())]);
    let entries = vec![
        Entry { log_id: LogId::new(2, 1, 11), payload: Payload::Blank },
        command(12, 0),
        command(13, 100),
        command(14, 5000),
        Entry {
            log_id: LogId::new(3, 2, 15),
            payload: Payload::Membership(Membership::new(voters).unwrap()),
        },
    ];
    let commands = vec![Bytes::new(), Bytes::from_static(b"set"), Bytes::from(vec![1; 3000])];
    let forwarded = |outcome| Body::ForwardReply { session: 5, sequence: 6, outcome };
    vec![
        Body::PreVote { last_log_id: log_id },
        Body::PreVoteReply { vote: Vote::Yes },
        Body::Vote { last_log_id: LogId::ZERO, handover: false },
        Body::TimeoutNow,
        Body::VoteReply { vote: Vote::No },
        Body::Append { prev: log_id, committed: 9, round: 77, entries: entries.into() },
        Body::Append { prev: LogId::ZERO, committed: 0, round: 78, entries: Entries::default() },
        Body::AppendReply { round: 77, outcome: AppendOutcome::Accepted { matched: 15 } },
        Body::AppendReply {
            round: 78,
            outcome: AppendOutcome::Rejected { prev: 10, hint: log_id },
        },
        Body::Forward { session: 5, sequence: 6, commands },
        forwarded(ForwardOutcome::Appended(log_id)),
        forwarded(ForwardOutcome::NotLeader),
        forwarded(ForwardOutcome::Busy),
        forwarded(ForwardOutcome::Partly {
            first: log_id,
            refused: vec![Refusal::new(1, "why".to_owned())],
        }),
        Body::ReadIndex { sequence: 8 },
        Body::ReadIndexReply { sequence: 8, index: Some(15) },
        Body::ReadIndexReply { sequence: 9, index: None },
        piece(0, 0),
        piece(1 << 30, 100),
        piece(u64::MAX, 5000),
        Body::SnapshotReply { digest: Digest::of(b"content"), stored: 1 << 30 },
    ]
}
