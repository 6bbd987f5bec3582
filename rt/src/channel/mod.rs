//! Channels and signals between the tasks of one thread, and a watch that also works across
//! threads.

use std::fmt;

pub mod oneshot;
mod signal;
pub mod watch;

pub use signal::Signal;

/// The other side of the channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the other side of the channel is gone")
    }
}

impl std::error::Error for Closed {}

#[cfg(test)]
use testing::count_wakes;

#[cfg(test)]
mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    pub(super) struct Wakes(AtomicUsize);

    impl Wakes {
        pub(super) fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A waker that does nothing but count.
    pub(super) fn count_wakes() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        (Arc::clone(&wakes), Waker::from(wakes))
    }
}
