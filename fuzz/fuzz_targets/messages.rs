#![no_main]
//! A message between nodes, without its frame.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_core::fuzzing::messages(data));
