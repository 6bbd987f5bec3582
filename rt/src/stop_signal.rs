//! The signals that ask a process to stop.

use std::io;
use std::thread;

use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::channel::watch;

/// Tells that the process was asked to stop: by SIGTERM, or by SIGINT, as Ctrl-C sends it. It works
/// on any thread and any executor. A simulator has no signals: stop its processes by other means.
///
/// ```no_run
/// # use std::io;
/// use quorate_rt::{Executor, StopSignal};
///
/// # async fn serve() {}
/// # async fn program<R: Executor>(rt: R) -> io::Result<()> {
/// let stop = StopSignal::listen()?;
/// let serving = rt.spawn(serve());
/// stop.received().await;
/// drop(serving); // and shut the node down
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the signals don't end the process any more: stop it when one is received"]
pub struct StopSignal {
    received: watch::Receiver<bool>,
}

impl StopSignal {
    /// Listens to these signals from now on, on a thread of its own. From then on none of them ends
    /// the process by itself, as long as the process lives.
    ///
    /// Each call starts a thread, so call it once and clone the result.
    ///
    /// # Errors
    /// The thread can't be started, or the system refuses.
    #[expect(clippy::disallowed_methods, reason = "not a part of any runtime")]
    pub fn listen() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (sender, received) = watch::channel(false);
        thread::Builder::new().name("stop-signal".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let signal = signal_name(signal).unwrap_or("unknown");
                tracing::info!(signal, "a signal asks the process to stop");
            }
            sender.send(true);
        })?;
        Ok(Self { received })
    }

    /// Waits until one of the signals has come, at once if that is so already.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing.
    pub async fn received(&self) {
        let _the_thread_lives = self.received.clone().wait_for(|received| *received).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn a_signal_is_received_by_all_that_listen_and_ends_nothing() {
        let stops = [StopSignal::listen().unwrap(), StopSignal::listen().unwrap()];
        let clone = stops[0].clone();
        assert_eq!(clone.received().now_or_never(), None);
        raise(SIGTERM).unwrap();
        for stop in stops.iter().chain([&clone]) {
            block_on(stop.received());
            assert_eq!(stop.received().now_or_never(), Some(()), "it stays received");
        }
        // Nor does the next one.
        raise(SIGINT).unwrap();
    }
}
