//! How an empty node comes into a cluster that is formed: it waits until a member is told to let it
//! in (RAFT ADD), or asks for that itself, as a client of a member.
//!
//! It asks only as long as its disk holds nothing of a cluster. So a node that was removed later
//! does not come back by itself.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, select_biased};
use quorate::rt::{ReadHalf, Stream, WriteHalf};
use quorate::{Executor, Metrics, Network, NodeId};
use tracing::info;

use crate::alarm::Alarm;
use crate::server::Server;

/// From one line of the log to the next, and from one question to the next.
const PAUSE: Duration = Duration::from_secs(3);

/// How long a member may take to be reached. Its answer takes until this node has caught up.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// The longest answer that is read: an error may name many nodes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A node that is told no list.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) id: NodeId,
    /// Where the other nodes reach it.
    pub(crate) address: String,
    /// Members that it asks to be let in, by their client addresses, and what it shows them.
    pub(crate) asks: Option<(Vec<String>, String)>,
}

/// Waits until this node is a member.
///
/// Errors: the member that was asked is of another cluster than the token.
pub(crate) async fn until_let_in<R: Network>(
    server: &Server<R>,
    joining: &Joining,
) -> Result<(), String> {
    let (rt, mut metrics) = (&server.rt, server.metrics.clone());
    let members = joining.asks.iter().flat_map(|(members, _)| members);
    let mut members = members.cycle();
    let mut question: Option<(&String, <R as Executor>::Task<io::Result<String>>)> = None;
    let mut answer = String::new();
    while !has_ended(&metrics.borrow()) {
        let is_empty = metrics.borrow().membership.is_none();
        if is_empty && question.is_none() {
            let ask = |to| (to, rt.spawn(ask(rt.clone(), String::clone(to), joining.request())));
            question = members.next().map(ask);
        }
        let mut text = joining.waits(is_empty);
        if let Some((member, _)) = &question {
            text = format!("{text}; it has asked {member}");
        }
        if !answer.is_empty() {
            text = format!("{text}; {answer}");
        }
        info!(id = joining.id, "{text}");
        server.waits_to_join.replace(Some(text));
        let said = {
            let answered = async {
                match &mut question {
                    Some((member, task)) => (*member, task.await.map_err(io::Error::other)),
                    None => pending().await,
                }
            };
            let mut answered = pin!(answered.fuse());
            select_biased! {
                _ = metrics.wait_for(has_ended).fuse() => continue,
                said = answered => said,
                () = rt.sleep(PAUSE).fuse() => continue,
            }
        };
        question = None;
        answer = match (said.0, said.1.flatten()) {
            (member, Ok(line)) => match line.strip_prefix('-') {
                Some(error) if error.starts_with("WRONGTOKEN") => {
                    return Err(format!("{member} refuses this node: {error}"));
                }
                Some(error) => format!("{member} says: {error}"),
                None => format!("{member} has let it in"),
            },
            (member, Err(error)) => format!("{member} can't be asked: {error}"),
        };
        let _ = Alarm::new(rt.clone()).within(PAUSE, metrics.wait_for(has_ended)).await;
    }
    server.waits_to_join.replace(None);
    Ok(())
}

/// It is a member, or was one and can't be one again.
fn has_ended(metrics: &Metrics) -> bool {
    let is_member = |membership: &quorate::Membership| membership.is_member(metrics.replica);
    metrics.removed || metrics.membership.as_ref().is_some_and(is_member)
}

impl Joining {
    /// What it waits for, for people.
    fn waits(&self, is_empty: bool) -> String {
        let Self { id, address, .. } = self;
        let why = match is_empty {
            true => "waits to be let into a cluster",
            false => {
                "is no member of its cluster: it was let in and has left again, as it came too \
                 late or was removed, or it has not heard of it yet"
            }
        };
        format!("node {id} {why}; on a member, RAFT ADD {id} {address} lets it in")
    }

    /// RAFT ADD, for a member.
    fn request(&self) -> Bytes {
        let id = self.id.to_string();
        let token = self.asks.as_ref().map(|(_, token)| token.as_str()).unwrap_or_default();
        let arguments = ["RAFT", "ADD", &id, &self.address, "TOKEN", token];
        let mut request = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            request.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        Bytes::from(request)
    }
}

/// Sends a request, and gives the first line of the answer.
async fn ask<R: Network>(rt: R, to: String, request: Bytes) -> io::Result<String> {
    let mut alarm = Alarm::new(rt.clone());
    let reached = async {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in rt.resolve(&to).await? {
            match rt.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    };
    let reached = alarm.within(REACHED_WITHIN, reached).await;
    let stream = reached.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    let (mut reader, mut writer) = stream.split();
    writer.write_all(vec![request]).await?;
    let mut received = BytesMut::new();
    loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\r') {
            return Ok(String::from_utf8_lossy(&received[..end]).into_owned());
        }
        if received.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("it is no server of quorate-kv"));
        }
        received.reserve(512);
        let (read, filled) = reader.read(received).await;
        received = filled;
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_what_redis_cli_would_send() {
        let asks = Some((Vec::new(), "00ff".to_owned()));
        let joining = Joining { id: 4, address: "host:7101".to_owned(), asks };
        let request = "*6\r\n$4\r\nRAFT\r\n$3\r\nADD\r\n$1\r\n4\r\n$9\r\nhost:7101\r\n$5\r\nTOKEN\r\n$4\r\n00ff\r\n";
        assert_eq!(joining.request(), request);
    }

    #[test]
    fn what_is_waited_for_is_said_with_the_command_that_helps() {
        let joining = Joining { id: 4, address: "host:7101".to_owned(), asks: None };
        let text =
            "node 4 waits to be let into a cluster; on a member, RAFT ADD 4 host:7101 lets it in";
        assert_eq!(joining.waits(true), text);
        assert!(joining.waits(false).starts_with("node 4 is no member of its cluster: "));
    }
}
