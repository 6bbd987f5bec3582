//! Sockets and files. Both ends of a connection are on one thread: what is measured is the work,
//! and not how fast the kernel wakes another.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use quorate::rt::{File, Listener, OpenMode, ReadHalf, Stream, WriteHalf};
use quorate::{Files, Network};

use super::measure;

pub(super) const MESSAGE_BYTES: usize = 128;

pub(super) const GATHERED: usize = 16;
pub(super) const GATHERED_BYTES: usize = 256;

pub(super) const WRITE_BYTES: usize = 4 << 10;
/// Writes begin anew after so many bytes of the file.
pub(super) const FILE_BYTES: u64 = 16 << 20;

async fn connected<R: Network>(rt: &R) -> Result<(Connection<R>, Connection<R>)> {
    let mut listener = rt.listen(([127, 0, 0, 1], 0).into()).await?;
    let outgoing = rt.connect(listener.local_addr()?).await?;
    let (incoming, _) = listener.accept().await?;
    Ok((Connection::new(outgoing), Connection::new(incoming)))
}

struct Connection<R: Network> {
    read: <R::Stream as Stream>::ReadHalf,
    write: <R::Stream as Stream>::WriteHalf,
    buffer: BytesMut,
}

impl<R: Network> Connection<R> {
    fn new(stream: R::Stream) -> Self {
        let (read, write) = stream.split();
        Self { read, write, buffer: BytesMut::new() }
    }

    /// So many bytes; none where the stream has ended.
    async fn read(&mut self, len: usize) -> Result<Option<Bytes>> {
        while self.buffer.len() < len {
            self.buffer.reserve(len);
            let (read, buffer) = self.read.read(std::mem::take(&mut self.buffer)).await;
            self.buffer = buffer;
            if read? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    async fn round_trip(&mut self, message: &Bytes) -> Result<()> {
        self.write.write_all(vec![message.clone()]).await?;
        let answer = self.read(message.len()).await?;
        ensure!(answer.as_ref() == Some(message), "another answer");
        Ok(())
    }

    async fn echo(mut self) -> Result<()> {
        while let Some(message) = self.read(MESSAGE_BYTES).await? {
            self.write.write_all(vec![message]).await?;
        }
        Ok(())
    }
}

/// A task for each end of each connection.
pub(super) async fn round_trip<R: Network>(
    rt: &R,
    count: usize,
    duration: Duration,
) -> Result<Vec<f64>> {
    const TRIPS: usize = 16;
    let (mut connections, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (outgoing, incoming) = connected(rt).await?;
        connections.push(outgoing);
        servers.push(rt.spawn(incoming.echo()));
    }
    let message = Bytes::from_static(&[7; MESSAGE_BYTES]);
    let figures = measure(duration, count * TRIPS, async || {
        let tasks: Vec<_> = connections
            .drain(..)
            .map(|mut connection| {
                let message = message.clone();
                rt.spawn(async move {
                    for _ in 0..TRIPS {
                        connection.round_trip(&message).await?;
                    }
                    anyhow::Ok(connection)
                })
            })
            .collect();
        for task in tasks {
            connections.push(task.await??);
        }
        Ok(())
    })
    .await;
    drop(connections);
    for server in servers {
        server.await??;
    }
    figures
}

/// One task writes, and then reads what it has written at the other end.
pub(super) async fn gather<R: Network>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    const LEN: usize = GATHERED * GATHERED_BYTES;
    let (mut outgoing, mut incoming) = connected(rt).await?;
    let buffers = vec![Bytes::from_static(&[7; GATHERED_BYTES]); GATHERED];
    measure(duration, 16, async || {
        for _ in 0..16 {
            outgoing.write.write_all(buffers.clone()).await?;
            ensure!(incoming.read(LEN).await?.is_some(), "the stream has ended");
        }
        Ok(())
    })
    .await
}

/// One after the other, in space that is allocated.
pub(super) async fn write<R: Files>(
    rt: &R,
    dir: &Path,
    synced: bool,
    duration: Duration,
) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir_in(dir)?;
    let file = rt.open(&dir.path().join("file"), OpenMode::CreateNew).await?;
    file.allocate(FILE_BYTES).await?;
    file.sync_data().await?;
    let content = Bytes::from_static(&[7; WRITE_BYTES]);
    let (mut offset, at_once) = (0, if synced { 1 } else { 16 });
    measure(duration, at_once, async || {
        for _ in 0..at_once {
            let content = vec![content.clone()];
            if synced {
                file.write_durably_at(content, offset).await?;
            } else {
                file.write_all_at(content, offset).await?;
            }
            offset = (offset + WRITE_BYTES as u64) % FILE_BYTES;
        }
        Ok(())
    })
    .await
}
