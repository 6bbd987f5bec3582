//! Quorate on monoio: io_uring where the kernel grants it, otherwise epoll with file work on
//! blocking threads.
//!
//! Tasks and timers are those of [`quorate_rt::local_executor`]; of monoio there are the drivers,
//! and what they complete.

mod file;
mod gather;
mod net;
mod runtime;

pub use file::MonoioFile;
pub use net::{MonoioListener, MonoioReadHalf, MonoioStream, MonoioWriteHalf};
pub use runtime::Monoio;

/// The most that one operation moves, in bytes. monoio cuts lengths to 32 bits; the kernel stops at
/// 2 GiB anyway.
const LONGEST_TRANSFER: usize = 1 << 30;
