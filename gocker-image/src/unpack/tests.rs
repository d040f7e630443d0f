//! Whole layers, built in memory, applied to a directory.
