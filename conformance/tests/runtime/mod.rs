//! What an OCI runtime owes to its callers, one file for each subject.

mod bad_input;
mod cgroups;
mod cli;
mod console;
mod crash;
mod devices;
mod events;
mod exec;
mod exec_join;
mod exec_terminal;
mod fds;
mod hooks;
mod kill;
mod lifecycle;
mod list;
mod mounts;
mod namespaces;
mod pause;
mod process;
mod ps;
mod rootfs;
mod run;
mod seccomp;
mod security;
mod unserved;
mod update;
