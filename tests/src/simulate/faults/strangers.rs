//! Strangers at the peer ports: connections that say nothing, that speak nonsense, or that stop in
//! the middle of a message, each of them again as soon as it is closed.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate::rt::{ReadHalf, Stream, WriteHalf};
use quorate::sim::{Generator, Sim};
use quorate::{Executor, Network, NodeId};

use super::super::SimTask;
use super::super::cluster::Cluster;
use super::Calm;

/// More than a node keeps of those who have proven nothing.
const CROWD: u64 = 300;

/// So many that a place which becomes free is hardly ever a member's: each of them asks for one ten
/// times a second, and a member about once.
const BESIEGERS: u64 = 1000;

/// What a handshake begins with: magic, the versions, and that 200 bytes follow.
const BEGINS: &[u8] = b"quorate\n\x03\0\0\0\x03\0\0\0\xc8\0\0\0";

pub(super) async fn strangers(calm: Calm) {
    while calm.passes().await {
        let (id, many) = (calm.any_node(), *calm.draw.choose(&[1, 10, CROWD]));
        calm.cluster.count("strangers came");
        calm.cluster.tell(|| format!("{many} strangers come to node {id}"));
        let crowd = crowd(&calm.cluster, &calm.rt, &calm.draw, id, many, nonsense);
        calm.lasts(calm.some_time()).await;
        drop(crowd);
        calm.cluster.tell(|| format!("the strangers leave node {id}"));
    }
}

/// Strangers who hold every place that they get, for as long as a node lets them: they begin a
/// handshake, at most, and say nothing that would end it. They leave when this is dropped.
pub fn siege(cluster: &Rc<Cluster>, rt: &Sim, id: NodeId) -> Vec<SimTask> {
    let draw = Rc::new(Generator::new(cluster.plan.seed, &format!("siege of {id}")));
    crowd(cluster, rt, &draw, id, BESIEGERS, begin)
}

fn crowd(
    cluster: &Rc<Cluster>,
    rt: &Sim,
    draw: &Rc<Generator>,
    id: NodeId,
    many: u64,
    says: fn(&Generator) -> Bytes,
) -> Vec<SimTask> {
    let stranger =
        |_| rt.spawn(stranger(Rc::clone(cluster), rt.clone(), Rc::clone(draw), id, says));
    (0..many).map(stranger).collect()
}

async fn stranger(
    cluster: Rc<Cluster>,
    rt: Sim,
    draw: Rc<Generator>,
    id: NodeId,
    says: fn(&Generator) -> Bytes,
) {
    loop {
        if let Ok(stream) = rt.connect(cluster.address(id)).await {
            let (mut read, mut write) = stream.split();
            let said = says(&draw);
            if said.is_empty() || write.write_all(vec![said]).await.is_ok() {
                // Until it is thrown out.
                let mut heard = BytesMut::new();
                loop {
                    heard.clear();
                    heard.reserve(256);
                    let (count, back) = read.read(heard).await;
                    heard = back;
                    if !count.is_ok_and(|count| count > 0) {
                        break;
                    }
                }
            }
        }
        rt.sleep(draw.duration(&(Duration::from_millis(1)..Duration::from_millis(200)))).await;
    }
}

fn nonsense(draw: &Generator) -> Bytes {
    let random = |len: u64| (0..len).map(|_| draw.below(256) as u8).collect::<Vec<_>>();
    match draw.below(3) {
        0 => begin(draw),
        1 => random(1 + draw.below(300)).into(),
        _ => [BEGINS, &random(draw.below(250))].concat().into(),
    }
}

/// Nothing, or a part of what a handshake begins with.
fn begin(draw: &Generator) -> Bytes {
    Bytes::from_static(BEGINS).slice(..draw.below(BEGINS.len() as u64) as usize)
}
