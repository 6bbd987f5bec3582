//! Tasks that end with their handle; tokio's own go on without it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use quorate_rt::blocking_threads::Blocking;
use quorate_rt::{Task, TaskError};
use tokio::task::JoinHandle;

/// The handle of a task; see [`Task`].
#[derive(Debug)]
pub struct TokioTask<T> {
    running: Running<T>,
}

#[derive(Debug)]
enum Running<T> {
    Task(JoinHandle<T>),
    Blocking(Blocking<T>),
    Detached,
}

impl<T> TokioTask<T> {
    pub(crate) fn new(handle: JoinHandle<T>) -> Self {
        Self { running: Running::Task(handle) }
    }

    pub(crate) fn blocking(work: Blocking<T>) -> Self {
        Self { running: Running::Blocking(work) }
    }
}

impl<T: 'static> Task<T> for TokioTask<T> {
    fn detach(mut self) {
        self.running = Running::Detached;
    }
}

impl<T> Future for TokioTask<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.running {
            Running::Task(handle) => {
                pin!(handle).poll(context).map_err(|error| match error.try_into_panic() {
                    Ok(payload) => TaskError::from_panic(payload),
                    Err(_) => TaskError::Cancelled,
                })
            }
            Running::Blocking(work) => pin!(work).poll(context),
            Running::Detached => unreachable!("a detached task has no handle to poll"),
        }
    }
}

impl<T> Drop for TokioTask<T> {
    fn drop(&mut self) {
        if let Running::Task(handle) = &self.running {
            handle.abort();
        }
    }
}
