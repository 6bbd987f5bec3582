//! The handle of a task, and how a task fails.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::task::Poll;

/// The handle of a task. Awaiting it gives the task's result; dropping it cancels the task.
pub trait Task<T>: Future<Output = Result<T, TaskError>> + Unpin + 'static {
    /// Lets the task go on without its handle. A panic in it is then lost.
    fn detach(self);
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskError {
    /// It panicked, with this message.
    Panicked(String),
    /// The runtime dropped it before it ended.
    Cancelled,
}

impl TaskError {
    /// From what `catch_unwind` caught.
    pub fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(text) => (*text).to_owned(),
                Err(_) => "a panic without a message".to_owned(),
            },
        };
        Self::Panicked(message)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "the task panicked: {message}"),
            Self::Cancelled => write!(f, "the task was cancelled"),
        }
    }
}

impl std::error::Error for TaskError {}

/// Lets the other tasks of this thread run, and goes on when they have had their turn.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
