//! Properties of the fuzz targets, on their corpora.

#[path = "../../fuzz/replay.rs"]
mod replay;

use quorate_store_file::fuzzing::{records, recovery, snapshots};

#[test]
fn records_of_the_corpus() {
    replay::replay("records", 5000, records);
}

#[test]
fn snapshots_of_the_corpus() {
    replay::replay("snapshots", 200, snapshots);
}

#[test]
fn recovery_of_the_corpus() {
    replay::replay("recovery", 1000, recovery);
}
