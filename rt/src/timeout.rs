//! A time limit for a future: see [`Executor::timeout`](crate::Executor::timeout).

use std::fmt;
use std::io;

/// A future did not end within its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(Elapsed: Elapsed) -> Self {
        io::ErrorKind::TimedOut.into()
    }
}
