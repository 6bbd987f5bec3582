//! etcd, by gRPC: the few messages of its version 3 API that are needed here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::processes::{Processes, free_addresses, wait_for};
use super::{Adapter, Cluster, Work};

pub(super) fn start(dir: &Path) -> Result<Cluster> {
    let data = tempfile::tempdir_in(dir)?;
    let addresses: [SocketAddr; 6] = free_addresses()?;
    let (clients, peers) = addresses.split_at(3);
    let members: Vec<_> =
        (1..).zip(peers).map(|(id, peer)| format!("n{id}=http://{peer}")).collect();
    let nodes = (1..).zip(clients.iter().zip(peers)).map(|(id, (client, peer))| {
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command
            .arg("--name")
            .arg(format!("n{id}"))
            .arg("--data-dir")
            .arg(data.path().join(id.to_string()));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        command
    });
    let processes = Processes::start(nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let leads = |client: &SocketAddr| runtime.block_on(leads(*client)).unwrap_or_default();
    let leader = wait_for("a leader", || clients.iter().copied().find(leads))?;
    Ok(Cluster { processes, leader, _data: data })
}

/// Whether the node there leads.
async fn leads(node: SocketAddr) -> Result<bool> {
    let channel = Endpoint::new(format!("http://{node}"))?.connect().await?;
    let status: Status = call(&channel, "/etcdserverpb.Maintenance/Status", Nothing {}).await?;
    Ok(status.header.is_some_and(|header| header.member_id == status.leader))
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let (request, path) = (tonic::Request::new(request), PathAndQuery::from_static(path));
    Ok(client.unary(request, path, ProstCodec::default()).await?.into_inner())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A read of one key; linearizable, as `serializable` is left out.
#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ranged {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

pub(super) struct Connection {
    channel: Channel,
    work: Work,
}

impl Adapter for Connection {
    async fn connect(leader: SocketAddr, work: Work) -> Result<Self> {
        let channel =
            Endpoint::new(format!("http://{leader}"))?.tcp_nodelay(true).connect().await?;
        Ok(Self { channel, work })
    }

    async fn set(&mut self, key: usize) -> Result<()> {
        let put =
            Put { key: format!("key{key:07}").into_bytes(), value: vec![b'x'; self.work.bytes] };
        let Nothing {} = call(&self.channel, "/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }

    async fn get(&mut self, key: usize) -> Result<()> {
        let range = Range { key: format!("key{key:07}").into_bytes() };
        let ranged: Ranged = call(&self.channel, "/etcdserverpb.KV/Range", range).await?;
        let is_there = matches!(&ranged.kvs[..], [found] if found.value.len() == self.work.bytes);
        ensure!(is_there, "key {key} is not found");
        Ok(())
    }
}
