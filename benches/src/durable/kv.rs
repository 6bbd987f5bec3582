//! `quorate-kv`, by the Redis protocol.

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::processes::{Processes, free_addresses, wait_for};
use super::{Adapter, Cluster, Work};

/// Name, runtime and driver.
pub(crate) const RUNTIMES: [(&str, &str, &str); 5] = [
    ("tokio", "tokio", "poll"),
    ("monoio (io_uring)", "monoio", "uring"),
    ("monoio (polling)", "monoio", "poll"),
    ("compio (io_uring)", "compio", "uring"),
    ("compio (polling)", "compio", "poll"),
];

pub(crate) fn start(dir: &Path, runtime: &str, driver: &str) -> Result<Cluster> {
    let program = env::current_exe()?.with_file_name("quorate-kv");
    ensure!(
        program.is_file(),
        "build {} first: cargo build --release -p quorate-kv",
        program.display()
    );
    let data = tempfile::tempdir_in(dir)?;
    let addresses: [SocketAddr; 6] = free_addresses()?;
    let (clients, peers) = addresses.split_at(3);
    let members: Vec<_> = (1..).zip(peers).map(|(id, peer)| format!("{id}={peer}")).collect();
    let nodes = (1..).zip(clients.iter().zip(peers)).map(|(id, (client, peer))| {
        let mut command = Command::new(&program);
        command.args(["serve", "--runtime", runtime, "--driver", driver]);
        command.arg("--id").arg(id.to_string()).arg("--data").arg(data.path().join(id.to_string()));
        command.arg("--client").arg(client.to_string()).arg("--peer").arg(peer.to_string());
        command.arg("--cluster").arg(members.join(",")).env("RUST_LOG", "error");
        command
    });
    let processes = Processes::start(nodes)?;
    // Names and values, one after the other.
    let leads = |client: &SocketAddr| {
        status(*client).is_ok_and(|status| status.contains("role\r\n$6\r\nleader\r\n"))
    };
    let leader = wait_for("a leader", || clients.iter().copied().find(leads))?;
    Ok(Cluster { processes, leader, _data: data })
}

/// What the node says of itself.
fn status(node: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&node, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"*2\r\n$4\r\nRAFT\r\n$6\r\nSTATUS\r\n")?;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer)?;
    answer.truncate(read);
    Ok(String::from_utf8(answer)?)
}

pub(super) struct Connection {
    stream: tokio::net::TcpStream,
    work: Work,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Sends what is to be asked, and gives the answer.
    async fn ask(&mut self) -> Result<&[u8]> {
        self.stream.write_all(&self.request).await?;
        let mut len = 0;
        loop {
            let read = self.stream.read(&mut self.answer[len..]).await?;
            ensure!(read > 0, "the node has closed the connection");
            len += read;
            let answer = &self.answer[..len];
            if is_whole(answer).context("not an answer")? {
                return Ok(&self.answer[..len]);
            }
        }
    }
}

/// Whether all of a simple string, an error or a bulk string has come.
fn is_whole(answer: &[u8]) -> Option<bool> {
    let Some(line) = answer.windows(2).position(|end| end == b"\r\n") else { return Some(false) };
    match answer.first()? {
        b'+' | b'-' => Some(true),
        b'$' => {
            let bytes: i64 = std::str::from_utf8(&answer[1..line]).ok()?.parse().ok()?;
            let content = usize::try_from(bytes).map_or(0, |bytes| bytes + 2);
            Some(answer.len() >= line + 2 + content)
        }
        _ => None,
    }
}

impl Adapter for Connection {
    async fn connect(leader: SocketAddr, work: Work) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(leader).await?;
        stream.set_nodelay(true)?;
        let answer = vec![0; work.bytes + 1024];
        Ok(Self { stream, work, request: Vec::new(), answer })
    }

    async fn set(&mut self, key: usize) -> Result<()> {
        let bytes = self.work.bytes;
        self.request.clear();
        write!(self.request, "*3\r\n$3\r\nSET\r\n$10\r\nkey{key:07}\r\n${bytes}\r\n")?;
        self.request.resize(self.request.len() + bytes, b'x');
        self.request.extend(b"\r\n");
        match self.ask().await? {
            b"+OK\r\n" => Ok(()),
            other => bail!("SET is answered {:?}", String::from_utf8_lossy(other)),
        }
    }

    async fn get(&mut self, key: usize) -> Result<()> {
        self.request.clear();
        write!(self.request, "*2\r\n$3\r\nGET\r\n$10\r\nkey{key:07}\r\n")?;
        let expected = self.work.bytes;
        let answer = self.ask().await?;
        let value = answer.iter().filter(|byte| **byte == b'x').count();
        ensure!(value == expected, "GET is answered {:?}", String::from_utf8_lossy(answer));
        Ok(())
    }
}
