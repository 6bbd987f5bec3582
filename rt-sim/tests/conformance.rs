//! The suite of `quorate-rt`, in the simulator.

use quorate_rt::{Launch, conformance_suite};
use quorate_rt_sim::Sim;

conformance_suite!(simulated, Sim, Launch::default(), isolated);
