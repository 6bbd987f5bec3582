//! How a runnable task wakes the executor: at most once, however many tasks become runnable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

/// Nothing is runnable, and the backend may sleep: who makes something runnable has to wake it.
const IDLE: u8 = 0;
/// The executor is at work, and looks again before it becomes idle.
const AT_WORK: u8 = 1;
/// Something has become runnable since the executor has looked last.
const WOKEN: u8 = 2;

#[derive(Default)]
pub(super) struct ExecutorWaker {
    state: AtomicU8,
    backend: AtomicWaker,
}

impl ExecutorWaker {
    /// The executor begins to look at what is runnable.
    pub(super) fn enter(&self, backend: &Waker) {
        self.backend.register(backend);
        self.state.swap(AT_WORK, Ordering::AcqRel);
    }

    /// The executor has found nothing runnable. False if something has become so in the meantime:
    /// look again.
    pub(super) fn leave(&self) -> bool {
        let idle =
            self.state.compare_exchange(AT_WORK, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !idle {
            self.state.swap(AT_WORK, Ordering::AcqRel);
        }
        idle
    }

    /// The executor has ended; wakers that others still hold do nothing.
    pub(super) fn close(&self) {
        self.state.swap(WOKEN, Ordering::AcqRel);
        self.backend.take();
    }
}

impl Wake for ExecutorWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            self.backend.wake();
        }
    }
}
