//! Properties of the fuzz targets, on their corpora.

#[path = "../../fuzz/replay.rs"]
mod replay;

use quorate_network_tcp::fuzzing::{frames, handshake};

#[test]
fn frames_of_the_corpus() {
    replay::replay("frames", 5000, frames);
}

#[test]
fn handshakes_of_the_corpus() {
    replay::replay("handshake", 5000, handshake);
}
