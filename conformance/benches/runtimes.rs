//! Compares runtimes; see the function `main`.
#![forbid(unsafe_code)]

fn main() {}
