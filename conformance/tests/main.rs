//! The one test binary: suites for runtimes, for image tools, and for engines
//! that drive the runtime.
#![forbid(unsafe_code)]

mod engines;
mod image;
mod runtime;
