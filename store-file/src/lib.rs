//! A write-ahead log for Raft, over the files of any runtime
