//! Quorate on tokio: a `LocalRuntime` (one thread, no `Send`), epoll for TCP, and file work on
//! tokio's blocking threads.

mod net;
mod runtime;
mod task;
mod tasks;
mod threads;

pub use net::{TokioListener, TokioReadHalf, TokioStream, TokioWriteHalf};
pub use runtime::Tokio;
pub use task::TokioTask;
