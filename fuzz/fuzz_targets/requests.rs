#![no_main]
//! What a client of the key-value server sends. The server is a program and no library, so its
//! files are included.

#[path = "../../kv/src/request.rs"]
mod request;
#[path = "../../kv/src/request_fuzzing.rs"]
mod request_fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_fuzzing::requests(data));
