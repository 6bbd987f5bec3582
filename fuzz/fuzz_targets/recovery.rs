#![no_main]
//! Whole segments of the write-ahead log.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store_file::fuzzing::recovery(data));
