//! Channels between the tasks of one thread, and a watch that also works across threads.

pub mod mpsc;
pub mod oneshot;
pub mod watch;
