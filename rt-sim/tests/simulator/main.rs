//! What the simulator promises, and every fault that it can be told to make: each a scenario.
//!
//! | file | concern |
//! | --- | --- |
//! | `common.rs` | two hosts and a connection, files, and how long to wait |
//! | `streams.rs` | the order of a stream, windows, bandwidth, ends, and operations that are dropped |
//! | `links.rs` | links that are cut, stall and break |
//! | `connecting.rs` | connections that are refused, hang, or find nobody |
//! | `names.rs` | names that are slow, wrong, changing, or not known |
//! | `crashes.rs` | processes that are killed, and machines that lose their power |
//! | `destructors.rs` | what destructors do while their process dies |
//! | `processes.rs` | pauses, slowness, and processes that end by themselves |
//! | `clocks.rs` | clocks that are wrong, and the timers on them |
//! | `files.rs` | errors, full and slow disks, and rot |
//! | `durability.rs` | what of a disk survives |
//! | `blocking.rs` | work on real threads |
//! | `worlds.rs` | driving a simulation, and what it tells of itself |
//! | `determinism.rs` | the same seed gives the same run |

mod blocking;
mod clocks;
mod common;
mod connecting;
mod crashes;
mod destructors;
mod determinism;
mod durability;
mod files;
mod links;
mod names;
mod processes;
mod streams;
mod worlds;
