//! A Raft log in memory, for tests, benchmarks and caches
