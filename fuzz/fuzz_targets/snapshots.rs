#![no_main]
//! A snapshot of a store whose file is changed.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store_file::fuzzing::snapshots(data));
