#![no_main]
//! A stream of frames, as a peer may send it.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_network_tcp::fuzzing::frames(data));
