//! Properties of the fuzz targets, on their corpora.

#[path = "../../fuzz/replay.rs"]
mod replay;

use quorate_core::fuzzing::messages;

#[test]
fn messages_of_the_corpus() {
    replay::replay("messages", 5000, messages);
}
