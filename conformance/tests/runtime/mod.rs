//! What an OCI runtime owes to its callers, one file for each subject.

mod bad_input;
mod cgroups;
mod cli;
mod console;
mod crash;
mod fds;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod rootfs;
mod security;
mod unserved;
