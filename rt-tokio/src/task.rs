//! Tasks that end with their handle; tokio's own go on without it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use quorate_rt::{Task, TaskError};
use tokio::task::JoinHandle;

/// The handle of a task; see [`Task`].
#[derive(Debug)]
pub struct TokioTask<T> {
    /// Taken by `detach` alone.
    handle: Option<JoinHandle<T>>,
}

impl<T> TokioTask<T> {
    pub(crate) fn new(handle: JoinHandle<T>) -> Self {
        Self { handle: Some(handle) }
    }
}

impl<T: 'static> Task<T> for TokioTask<T> {
    fn detach(mut self) {
        self.handle = None;
    }
}

impl<T> Future for TokioTask<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle.as_mut().expect("a detached task has no handle to poll");
        pin!(handle).poll(context).map_err(|error| match error.try_into_panic() {
            Ok(payload) => TaskError::from_panic(payload),
            Err(_) => TaskError::Cancelled,
        })
    }
}

impl<T> Drop for TokioTask<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}
