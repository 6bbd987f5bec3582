//! What waits for one peer, and the requests that carry it: messages, each behind its length.

use std::cell::Cell;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use bytes::Buf;
use quorate::codec::{DecodeError, Gather, decode_message, put_message};
use quorate::{Executor, Message, Tokio};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{MAX_BYTES, Task};

/// Of a length, which is little-endian.
const LENGTH_BYTES: usize = 4;
/// What may wait for one peer.
const MAX_WAITING_BYTES: usize = LENGTH_BYTES + MAX_BYTES;
/// A request that has so many bytes takes no more messages.
const BATCH_BYTES: usize = 1 << 20;
pub(crate) const MAX_BODY_BYTES: usize = BATCH_BYTES + LENGTH_BYTES + MAX_BYTES;
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Peer {
    queue: mpsc::UnboundedSender<Frame>,
    room: Arc<Semaphore>, // In bytes.
    _posts: Task,
}

/// A message behind its length, and its share of the room.
type Frame = (Vec<u8>, OwnedSemaphorePermit);

impl Peer {
    /// Posts request after request, so that messages arrive in their order. When one fails, its
    /// messages and all that came meanwhile are dropped. Raft repeats what matters, and a peer that
    /// comes back needs fresh messages, not a backlog.
    pub(crate) fn connect(
        rt: &Tokio,
        client: &reqwest::Client,
        address: &str,
        dropped: &Rc<Cell<u64>>,
    ) -> Self {
        let (queue, mut frames) = mpsc::unbounded_channel::<Frame>();
        let (client, url) = (client.clone(), format!("http://{address}/raft"));
        let dropped = Rc::clone(dropped);
        let posts = rt.spawn(async move {
            while let Some((mut body, _room)) = frames.recv().await {
                let mut carried = 1;
                while body.len() < BATCH_BYTES
                    && let Ok((frame, _room)) = frames.try_recv()
                {
                    body.extend(frame);
                    carried += 1;
                }
                let response = client.post(&url).timeout(TIMEOUT).body(body).send().await;
                if response.and_then(reqwest::Response::error_for_status).is_err() {
                    let stale = iter::from_fn(|| frames.try_recv().ok()).count();
                    dropped.set(dropped.get() + carried + stale as u64);
                }
            }
        });
        Self { queue, room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)), _posts: posts }
    }

    /// Returns whether there was room.
    pub(crate) fn send(&self, message: &Message) -> bool {
        let mut frame = Gather::new();
        let length = frame.reserve_u32();
        put_message(&mut frame, message);
        let bytes = frame.len() as u32;
        frame.fill(length, bytes - LENGTH_BYTES as u32);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        room.is_ok_and(|room| self.queue.send((frame.take().concat(), room)).is_ok())
    }
}

/// Takes the messages out of the body of a request.
pub(crate) fn decode(mut body: Bytes) -> Result<Vec<Message>, DecodeError> {
    let short = |needs, has| DecodeError::Short { what: "frame", needs, has };
    let mut messages = Vec::new();
    while !body.is_empty() {
        let has = body.len();
        let length = body.try_get_u32_le().map_err(|_| short(LENGTH_BYTES, has))? as usize;
        if length > body.len() {
            return Err(short(length, body.len()));
        }
        messages.push(decode_message(body.split_to(length))?);
    }
    Ok(messages)
}
