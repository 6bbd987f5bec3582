//! A runtime of Quorate inside a program that runs on a runtime of its own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A runtime of Quorate inside a program that runs on a runtime of its own, on the same thread:
/// made by `Tokio::attach`, `Monoio::attach` or `Compio::attach`.
///
/// While there is an `Attached` on a thread, the methods of [`rt`](Self::rt) may be called on that
/// thread, from any task of the program. Everybody who attaches on one thread shares one runtime.
///
/// To end in order, shut the nodes down first, and then [`close`](Self::close) this. The runtime
/// ends with the last `Attached` of its thread.
///
/// # Dropping
/// Dropping it asks for the same as `close`, and waits for nothing: what has begun to be written is
/// written by the program's runtime as long as that runs. If the program's runtime ends before that
/// is done, folders that a store has open may stay locked until the process ends. So await
/// [`close`](Self::close) on all ways out of a program that goes on without its runtime, or that
/// opens the same folder again.
#[must_use = "the runtime ends with its last handle"]
pub struct Attached<R> {
    rt: R,
    attachment: Box<dyn Attachment>,
}

/// A backend's side of an [`Attached`]. Dropping it asks for the end of the attachment.
pub trait Attachment {
    /// Ends it, and waits for the file operations and the blocking work that have begun.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>>;
}

impl<R: Clone> Attached<R> {
    /// For a backend.
    pub fn new(rt: R, attachment: impl Attachment + 'static) -> Self {
        Self { rt, attachment: Box::new(attachment) }
    }

    /// The runtime: what stores, transports and nodes are started on.
    pub fn rt(&self) -> R {
        self.rt.clone()
    }

    /// Detaches, and waits for the file operations and the blocking work that have begun. With the
    /// last `Attached` of the thread the runtime ends, and its tasks are dropped before this
    /// returns. So call it from a task of the program: one of [`rt`](Self::rt) would be dropped,
    /// too.
    ///
    /// # Cancellation
    /// It is detached all the same.
    pub async fn close(self) {
        self.attachment.close().await;
    }
}

impl<R> fmt::Debug for Attached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}
