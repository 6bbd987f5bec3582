//! Whole clusters, over every combination of backends
