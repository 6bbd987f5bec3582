//! A runtime that simulates: tasks, time, TCP and files of any number of hosts on one thread, all
//! of it decided by a seed.
//!
//! [`Sim`] implements [`AsyncRuntime`](quorate_rt::AsyncRuntime), so what runs on it is the code
//! that ships. A [`Simulation`] has [`Host`]s; on each one process runs at a time, and dies by a
//! [`Crash`]. Their clocks, their [`Network`] and their [`Disk`]s do what real ones do at their
//! worst, when they are told to; otherwise they are merely slow, each time in another way.
//!
//! The same seed and the same program give the same run, event by event: see [`Simulation::hash`].
//! What draws from the seed draws from a [`Generator`] of its own, so that one draw more in the
//! network does not shift those of the scheduler.
//!
//! | file | concern |
//! | --- | --- |
//! | `simulation.rs` | [`Simulation`]: from the seed to the end |
//! | `world.rs` | what all hosts share: the time and the events, one after the other |
//! | `events.rs` | the heap of what is to happen |
//! | `generator.rs` | the generators |
//! | `host.rs` | [`Host`]: a machine and its process, how it is started, paused and killed |
//! | `tasks.rs` | a process' tasks, and how they are woken |
//! | `clock.rs`, `timers.rs` | a host's clocks, which may run fast and jump, and its timers |
//! | `runtime.rs` | [`Sim`] |
//! | `blocking.rs` | blocking work, on real threads |
//! | `net/` | connections, listeners, and what can go wrong between two hosts |
//! | `names.rs` | names, and what looking them up may do |
//! | `disk/` | files, names, what of them is durable, and what can go wrong with that |
//! | `trace.rs` | what has happened: its hash, its counts, and the last of it |

mod blocking;
mod clock;
mod disk;
mod events;
mod generator;
mod host;
mod names;
mod net;
mod runtime;
mod simulation;
mod tasks;
mod timers;
mod trace;
mod world;

pub use disk::{Disk, DiskConfig, DiskImage, SimFile, SimFileLock};
pub use generator::Generator;
pub use host::{Crash, Host, HostId};
pub use names::{NameConfig, Names};
pub use net::{Network, NetworkConfig, SimListener, SimReadHalf, SimStream, SimWriteHalf};
pub use runtime::Sim;
pub use simulation::{Simulation, Stuck};
pub use timers::SimSleep;
pub use trace::Happened;
pub use world::{Step, current};
