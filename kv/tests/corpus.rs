//! The property of the fuzz target `requests`, on its corpus. The server is a program, so the test
//! includes its files.

#[path = "../../fuzz/replay.rs"]
mod replay;
#[expect(dead_code, reason = "the server uses more of it than the property does")]
#[path = "../src/request.rs"]
mod request;
#[path = "../src/request_fuzzing.rs"]
mod request_fuzzing;

#[test]
fn requests_of_the_corpus() {
    replay::replay("requests", 5000, request_fuzzing::requests);
}
