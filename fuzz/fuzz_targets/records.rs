#![no_main]
//! The body of a record of the write-ahead log.

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store_file::fuzzing::records(data));
