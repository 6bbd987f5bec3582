#![no_main]
//! The first bytes of either side of a connection.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_network_tcp::fuzzing::handshake(data));
