//! The whole of a runtime, for code that uses all of it.

use crate::{Executor, Files, Network};

/// A single-threaded async runtime: tasks, time and randomness ([`Executor`]), TCP and names
/// ([`Network`]), and files ([`Files`]).
///
/// Whatever implements these implements this trait. A function or a type that needs only some of
/// them should ask for those, as in `R: Network`: then it also runs where the others are missing,
/// as on a runtime that is made for tests.
pub trait AsyncRuntime: Executor + Network + Files {}

impl<R: Executor + Network + Files> AsyncRuntime for R {}
